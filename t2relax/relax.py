"""The T5 for a person: crystal structures in, relaxed structures out.

    python -m t2relax.relax input.cif -o relaxed.cif

Every input is read before the model is loaded, and every file is written whole or not at all.
`benchmarks.data.structures` reads them; ASE writes all formats.
"""

from __future__ import annotations

import argparse
import glob
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, get_args

import numpy as np
from ase import Atoms
from ase.io import write as ase_write
from ase.io.formats import UnknownFileTypeError, filetype, get_compression, ioformats
from pymatgen.core import Structure
from tqdm import tqdm

from benchmarks.core import SCORED, Geometry, Relaxed, RelaxSettings, UserError
from benchmarks.core.cli import check_device, check_installed, run_command
from benchmarks.core.files import READ_ERRORS
from benchmarks.core.geometry import cell_parameters, displacements
from benchmarks.data.structures import FoundStructure
from benchmarks.data.structures.read import crystals_of_cif, read_structures
from t2relax.lm import checkpoint
from t2relax.lm.base import Mode


class Item(NamedTuple):
    """One structure of the input, or why there is none."""

    found: FoundStructure
    target: Path | None
    """The file of its result, which inputs share under `-o`; None is the standard output."""
    structure: Structure | None


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status, which `--help` explains."""
    args = _parser().parse_args(argv)
    return run_command(lambda: _run(args), interrupted="interrupted: no file is half-written")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m t2relax.relax",
        description="Relax crystal structures with the T5. Without -o and --out-dir the result of "
        "NAME.cif is NAME.relaxed.cif beside it, and that of the standard input goes to the "
        "standard output. What changed is said on stderr, a line per structure.",
        epilog="Formats are ASE's, known by a file's name or content; the standard streams are "
        "CIF. Inputs are never changed. All structures of a file are relaxed and called "
        "FILE@INDEX. A CIF's symmetry operations are applied; constraints, velocities and the "
        "like are dropped. Exit status: 0 all were relaxed, 1 the model failed for some, 2 a "
        "mistake in the command or an input that cannot be read (its line says why; the others "
        "are relaxed and written), 130 interrupted.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("inputs", nargs="+", metavar="INPUT", help="file, glob pattern, or - for stdin")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("-o", "--output", metavar="FILE", help="one for all results, - for stdout")
    where.add_argument("--out-dir", type=Path, metavar="DIR", help="DIR/NAME.relaxed.cif for each")
    add("--to", default="cif", metavar="SUFFIX", help="instead of cif, without -o: vasp, xyz, …")
    add("--force", action="store_true", help="replace outputs that exist")
    add("--mode", choices=get_args(Mode), default="constrained", help="default: constrained")
    add(
        "--checkpoint", type=Path, default=checkpoint.CHECKPOINT, metavar="DIR", help="of the model"
    )
    add("--device", choices=("cpu", "cuda"), default="cpu", help="default: cpu")
    add("--batch-size", type=int, default=64, metavar="N", help="default: 64")
    return parser


def _run(args: argparse.Namespace) -> int:
    check_installed("t2relax.relax", ("torch", "transformers"), "t5")
    checkpoint.weights(args.checkpoint)
    if args.batch_size < 1:
        raise UserError("--batch-size is at least 1")
    check_device(args.device)
    try:
        sources = _sources(args.inputs)
        targets = _targets(sources, args)
    except OSError as error:  # a name that is too long, no permission
        raise UserError(f"{error.filename}: {error.strerror}") from error
    items = [
        Item(each, target, each.geometry.structure() if each.geometry else None)
        for source, target in zip(sources, targets, strict=True)
        for each in _read(source)
    ]
    if not any(item.structure for item in items):
        for item in items:
            _say(_line(item, None))
        return 2
    _check_counts([item.target for item in items if item.structure and item.target])
    relaxed: dict[Path | None, list[Structure]] = {}
    for item, outcome in zip(items, _relax(items, args), strict=True):
        _say(_line(item, outcome))
        for warning in item.found.warnings:
            _say(f"{item.found.name}: warning, {warning}")
        if outcome and outcome.status in SCORED and outcome.structure:
            relaxed.setdefault(item.target, []).append(outcome.structure)
    for target, structures in relaxed.items():
        _write(target, structures)
    if not all(item.structure for item in items):
        return 2
    return int(sum(map(len, relaxed.values())) < len(items))


def _read(source: str) -> list[FoundStructure]:
    if source == "-":
        return crystals_of_cif(sys.stdin.buffer.read(), source)
    return read_structures(source)


def _check_counts(targets: Sequence[Path]) -> None:
    """Refuse an output that cannot hold all that goes into it."""
    for path in set(targets):
        form = ioformats[filetype(path, read=False)]
        if form.single and targets.count(path) > 1:
            raise UserError(f"{form.name} files hold one structure: write cif, or use --out-dir")


def _relax(items: Sequence[Item], args: argparse.Namespace) -> list[Relaxed | None]:
    """Return one outcome per item, None where there is no structure; like sizes go together."""
    from t2relax.relaxer import TextRelaxer

    settings = RelaxSettings(device=args.device, batch_size=args.batch_size)
    relaxer = TextRelaxer(args.checkpoint, args.mode, settings=settings)
    structures = {i: item.structure for i, item in enumerate(items) if item.structure}
    order = sorted(structures, key=lambda i: len(structures[i]))
    outcomes: dict[int, Relaxed] = {}
    starts = range(0, len(order), args.batch_size)
    for first in tqdm(starts, unit="batch", disable=None if len(starts) > 1 else True):
        batch = order[first : first + args.batch_size]
        outcomes |= zip(batch, relaxer.relax([structures[i] for i in batch]), strict=True)
    return [outcomes.get(i) for i in range(len(items))]


def _line(item: Item, outcome: Relaxed | None) -> str:
    """Write one line about a structure: its status, and the changes of cell and positions."""
    name = item.found.name
    if outcome is None or item.structure is None:
        return f"{name}: unsupported, {item.found.problem}"
    head = f"{name}: {item.structure.composition.formula.replace(' ', '')} {outcome.status}"
    if outcome.structure is None or outcome.status not in SCORED:
        lost = "the text lists other atoms than the input's" if outcome.structure else ""
        reason = lost or (outcome.detail or "").partition("\n")[0]  # the generated text follows
        return f"{head}, {reason}"
    before, after = Geometry.of(item.structure), Geometry.of(outcome.structure)
    volume = 100 * (outcome.structure.volume / item.structure.volume - 1)
    change = cell_parameters(after.lattice) - cell_parameters(before.lattice)
    moved = np.linalg.norm(displacements(before, after), axis=1).max()
    edges = " ".join(f"{x} {d:+.4f}" for x, d in zip("abc", change, strict=False))
    angles = f"angles at most {np.abs(change[3:]).max():.3f}°"
    return f"{head}, dV/V {volume:+.2f} %, {edges} Å, {angles}, sites at most {moved:.4f} Å"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201 (a command)


def _sources(patterns: Sequence[str]) -> list[str]:
    """Return the inputs in order, with patterns expanded, each file once."""
    found: dict[object, str] = {}
    for pattern in patterns:
        if Path(pattern).is_dir():
            raise UserError(f"{pattern} is a folder: name its files, like '{pattern}/*.cif'")
        names = [pattern]
        if pattern != "-" and not Path(pattern).is_file():
            matches = glob.glob(pattern, recursive=True)  # noqa: PTH207 (Path's is relative only)
            names = sorted(name for name in matches if Path(name).is_file())
        if not names:
            raise UserError(f"{pattern}: no such file")
        found |= {name if name == "-" else Path(name).resolve(): name for name in names}
    return list(found.values())


def _targets(sources: Sequence[str], args: argparse.Namespace) -> list[Path | None]:
    """Choose a path for each result, so that no file and no other result is lost."""
    if args.out_dir and args.out_dir.exists() and not args.out_dir.is_dir():
        raise UserError(f"--out-dir {args.out_dir} is a file")
    targets = [_target(source, args) for source in sources]
    inputs = {Path(source).resolve() for source in sources if source != "-"}
    writers: dict[Path, str] = {}
    for source, path in zip(sources, targets, strict=True):
        if path is None:
            continue
        if path in inputs:
            raise UserError(f"{path} is an input, which is never replaced: choose another output")
        if not args.output and writers.setdefault(path, source) != source:
            raise UserError(f"{writers[path]} and {source} would both be written to {path}")
        if path.is_dir() or (path.exists() and not args.force):
            raise UserError(f"{path} exists: choose another output, or replace files by --force")
        if not args.out_dir and not path.parent.is_dir():
            raise UserError(f"{path.parent} is no folder: make it first")
    return targets


def _target(source: str, args: argparse.Namespace) -> Path | None:
    if args.output == "-" or (source == "-" and not args.output and not args.out_dir):
        return None
    if args.output:
        path = Path(args.output)
    else:
        stem = Path("stdin" if source == "-" else get_compression(source)[0]).stem
        path = (args.out_dir or Path(source).parent) / f"{stem}.relaxed.{args.to}"
    try:
        can_write = ioformats[filetype(path, read=False)].can_write
    except (UnknownFileTypeError, KeyError):
        can_write = False
    if not can_write:
        raise UserError(f"{path}: no format that ASE writes; try .cif, .vasp, .extxyz or .json")
    return path.resolve()


def _write(path: Path | None, structures: Sequence[Structure]) -> None:
    """Write all to the path; a file appears under its name when it is complete."""
    images = [
        Atoms(g.numbers, cell=g.lattice, scaled_positions=g.frac_coords.round(8), pbc=True)
        for g in map(Geometry.of, structures)
    ]
    try:
        if path is None:
            ase_write(sys.stdout.buffer, images, format="cif")
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{os.getpid()}.{path.name}")
        try:
            ase_write(part, images, format=filetype(path, read=False))
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except READ_ERRORS as error:
        raise UserError(f"{path or 'stdout'} cannot be written: {error}") from error


if __name__ == "__main__":
    sys.exit(main())
