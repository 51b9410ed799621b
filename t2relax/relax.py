"""The T5 for a person: crystal structures in, relaxed structures out.

    python -m t2relax.relax input.cif -o relaxed.cif

Every input is read before the model is loaded, and every file is written whole or not at all. CIFs
are read here, because the readers at hand drop partial occupancies (ASE) or reorder the sites and
round their coordinates (pymatgen): symmetry operations make the full cell, in the file's setting
and in the order of its sites. ASE reads the other formats and writes all of them.
"""

from __future__ import annotations

import argparse
import glob
import io
import os
import re
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

import numpy as np
from ase import Atoms
from ase.cell import Cell
from ase.data import atomic_numbers
from ase.io import read as ase_read
from ase.io import write as ase_write
from ase.io.formats import (
    UnknownFileTypeError,
    extension2format,
    filetype,
    get_compression,
    ioformats,
    open_with_compression,
)
from numpy.typing import NDArray
from pymatgen.core import Structure, SymmOp
from tqdm import tqdm

from benchmarks.core import SCORED, Geometry, Relaxed, UserError
from benchmarks.metrics.columns import SHORTEST
from benchmarks.metrics.geometry import (
    MinimumImage,
    cell_parameters,
    displacements,
    shortest_distance,
)
from t2relax import model as t5
from t2relax.codec import CELL_TAGS, CodecError

if TYPE_CHECKING:
    from moyopy import HallSymbolEntry, Operations

READER_ERRORS = (
    *(ValueError, LookupError, RuntimeError, AssertionError, TypeError, AttributeError),
    *(OSError, ImportError, SyntaxError, StopIteration, ArithmeticError, UnknownFileTypeError),
)
"""What ASE's readers and writers raise for a file that is not what it should be."""
SAME_SITE = 0.1
"""Images of a site nearer than this [Å] are one: 0.333 is as near to 1/3 as three digits are."""
FULL = 0.01
"""Occupancies this close to 1 are full: a refinement ends at 0.998."""

Block = Mapping[str, Sequence[str]]
"""One data block of a CIF: the values of each tag (in lower case), one for a tag without loop."""


class Target(NamedTuple):
    """Where relaxed structures go; several inputs share one when `-o` holds them all."""

    path: Path | None
    """None is the standard output."""
    format: str
    """As ASE calls it."""


@dataclass(frozen=True, slots=True)
class Item:
    """One structure of the input, or why there is none."""

    name: str
    target: Target
    structure: Structure | None
    problem: str = ""


# --- the command ---------------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit status, which `--help` explains."""
    try:
        return _run(_parser().parse_args(argv))
    except UserError as error:
        _say(f"error: {error}")
        return 2
    except KeyboardInterrupt:
        _say("interrupted: no file is half-written")
        return 130


def _parser() -> argparse.ArgumentParser:
    try:
        from t2relax.relaxer import Mode
    except ModuleNotFoundError as error:
        raise UserError(f"{error.name} is missing: pip install 't2relax-bench[t5]'") from error
    parser = argparse.ArgumentParser(
        prog="python -m t2relax.relax",
        description="Relax crystal structures with the T5. Without -o and --out-dir the result of "
        "NAME.cif is NAME.relaxed.cif beside it, and that of the standard input goes to the "
        "standard output. What changed is said on stderr, a line per structure.",
        epilog="Inputs are never changed. All structures of a file are relaxed and called "
        "FILE@INDEX. A CIF's symmetry operations are applied; constraints, velocities and the "
        "like are dropped. Exit status: 0 all were relaxed, 1 some were not (their lines say "
        "why), 2 a mistake in the command or nothing to relax, 130 interrupted.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("inputs", nargs="+", metavar="INPUT", help="file, glob pattern, or - for stdin")
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "-o", "--output", metavar="FILE", help="one file for all results, - for stdout"
    )
    where.add_argument("--out-dir", type=Path, metavar="DIR", help="DIR/NAME.relaxed.cif for each")
    add("--format", help="of the inputs, by ASE's name; default: as each file shows, stdin cif")
    add("--to", metavar="FORMAT", help="of the outputs; default: by -o's suffix, or cif")
    add("--force", action="store_true", help="replace outputs that exist")
    add("--mode", choices=get_args(Mode), default="constrained", help="default: constrained")
    add(
        "--checkpoint",
        type=Path,
        default=t5.CHECKPOINT,
        metavar="DIR",
        help="default: the packaged one",
    )
    add("--device", default="cpu", metavar="cpu|cuda", help="default: cpu")
    add("--batch-size", type=_count, metavar="N", help="default: the relaxer's own")
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return int(text)


def _run(args: argparse.Namespace) -> int:
    t5.weights(args.checkpoint)
    _check_device(args.device)
    sources = _sources(args.inputs)
    targets = _targets(sources, args)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # readers warn of what they ignore, line by line
        items = [
            item
            for source, target in zip(sources, targets, strict=True)
            for item in _items(source, target, args.format)
        ]
    _check_counts(items)
    outcomes = _relax(items, args)
    relaxed: dict[Target, list[Structure]] = {}
    for item, outcome in zip(items, outcomes, strict=True):
        _say(_line(item, outcome))
        if outcome and outcome.status in SCORED and outcome.structure:
            relaxed.setdefault(item.target, []).append(outcome.structure)
    for target, structures in relaxed.items():
        _write(target, structures)
    return int(sum(map(len, relaxed.values())) < len(items))


def _check_device(device: str) -> None:
    if device == "cpu":
        return
    if not re.fullmatch(r"cuda(:\d+)?", device):
        raise UserError(f"--device {device}: cpu or cuda")
    import torch

    if not torch.cuda.is_available():
        raise UserError("--device cuda: torch finds no GPU here; leave it out to run on the CPU")


def _check_counts(items: Sequence[Item]) -> None:
    """Something is to be relaxed, and each output can hold all that goes into it."""
    if not any(item.structure for item in items):
        if len(items) == 1:
            raise UserError(f"{items[0].name} cannot be relaxed: {items[0].problem}")
        for item in items:
            _say(_line(item, None))
        raise UserError(f"none of the {len(items)} structures can be relaxed")
    targets = [item.target for item in items if item.structure]
    for target in set(targets):
        if ioformats[target.format].single and targets.count(target) > 1:
            raise UserError(
                f"{target.format} files hold one structure, and {target.path or '-'} would get "
                f"{targets.count(target)}: write cif or extxyz, or many files with --out-dir"
            )


def _relax(items: Sequence[Item], args: argparse.Namespace) -> list[Relaxed | None]:
    """One outcome per item, None where there was nothing to relax; like sizes go together."""
    from transformers.utils import logging

    from t2relax.relaxer import T5Relaxer

    logging.disable_progress_bar()  # of reading the weights, which takes no time
    size = {"batch_size": args.batch_size} if args.batch_size else {}
    relaxer = T5Relaxer(args.checkpoint, args.mode, args.device, **size)
    structures = {i: item.structure for i, item in enumerate(items) if item.structure}
    order = sorted(structures, key=lambda i: len(structures[i]))
    outcomes: list[Relaxed | None] = [None] * len(items)
    with tqdm(total=len(order), unit="structure", disable=None if len(order) > 1 else True) as bar:
        for first in range(0, len(order), relaxer.batch_size):
            batch = order[first : first + relaxer.batch_size]
            for i, outcome in zip(
                batch, relaxer.relax([structures[i] for i in batch]), strict=True
            ):
                outcomes[i] = outcome
            bar.update(len(batch))
    return outcomes


def _line(item: Item, outcome: Relaxed | None) -> str:
    """What became of one structure, and what changed: volume, a, b, c, angles and positions."""
    if outcome is None or item.structure is None:
        return f"{item.name}: unsupported, {item.problem}"
    head = f"{item.name}: {item.structure.composition.formula.replace(' ', '')} {outcome.status}"
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
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


# --- files ---------------------------------------------------------------------------------------


def _sources(patterns: Sequence[str]) -> list[str]:
    """The inputs in order, patterns expanded, each file once."""
    found: dict[object, str] = {}
    for pattern in patterns:
        if pattern == "-" or Path(pattern).is_file():
            names = [pattern]
        elif Path(pattern).is_dir():
            raise UserError(f"{pattern} is a folder: name its files, like '{pattern}/*.cif'")
        else:
            found_here = glob.glob(pattern, recursive=True)  # noqa: PTH207 (Path's is relative only)
            names = sorted(name for name in found_here if Path(name).is_file())
        if not names:
            raise UserError(f"{pattern}: no such file")
        found |= {n if n == "-" else Path(n).resolve(): n for n in names}
    return list(found.values())


def _targets(sources: Sequence[str], args: argparse.Namespace) -> list[Target]:
    """Where each input's result goes, none of which loses a file or another result."""
    if args.out_dir and args.out_dir.exists() and not args.out_dir.is_dir():
        raise UserError(f"--out-dir {args.out_dir} is a file")
    targets = [_target(source, args) for source in sources]
    inputs = {Path(source).resolve() for source in sources if source != "-"}
    writers: dict[Path, str] = {}
    for source, (path, _) in zip(sources, targets, strict=True):
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


def _target(source: str, args: argparse.Namespace) -> Target:
    if args.output == "-" or (source == "-" and not args.output and not args.out_dir):
        target = Target(None, _written(args.to or "cif"))
    elif args.output:
        target = Target(Path(args.output).resolve(), _written(args.to, args.output))
    else:
        stem = Path("stdin" if source == "-" else get_compression(source)[0]).stem
        folder = args.out_dir or Path(source).parent
        path = folder / f"{stem}.relaxed.{args.to or 'cif'}"
        target = Target(path.resolve(), _written(args.to or "cif"))
    if target.path is None and not ioformats[target.format].acceptsfd:
        raise UserError(f"ASE cannot write {target.format} to the standard output: use -o FILE")
    return target


def _written(name: str | None, path: str = "") -> str:
    """ASE's name of the format called `name` (or with that suffix), or of `path`."""
    try:
        form = name or filetype(path, read=False)
    except UnknownFileTypeError:
        form = ""
    known = ioformats.get(form) or extension2format.get(form)
    if known is None or not known.can_write:
        what = f"--to {name}" if name else path
        raise UserError(f"{what}: no format that ASE writes; try cif, vasp, extxyz, json or traj")
    return str(known.name)


def _items(source: str, target: Target, form: str | None) -> Iterator[Item]:
    """The structures of one input; a file that cannot be read is one item with its problem."""
    form = form or _shown(source)
    if form not in ioformats or not ioformats[form].can_read:
        raise UserError(f"{source}: ASE reads no format {form!r}; name it with --format, as vasp")
    if source == "-" and not ioformats[form].acceptsfd:
        raise UserError(f"ASE cannot read {form} from the standard input: give a file")
    try:
        images = _images(source, form)
    except READER_ERRORS as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        yield Item(source, target, None, f"it cannot be read as {form} ({reason})")
        return
    if not images:
        yield Item(source, target, None, f"no structure is in it (read as {form})")
    for index, image in enumerate(images):
        name = f"{source}@{index}" if len(images) > 1 else source
        try:
            yield Item(name, target, _structure(image))
        except CodecError as error:
            yield Item(name, target, None, str(error))


def _shown(source: str) -> str:
    """The format by suffix or content: a CIF's suffix decides, its comments are free text."""
    if source == "-" or get_compression(source)[0].lower().endswith(".cif"):
        return "cif"
    try:
        return str(filetype(source))
    except (UnknownFileTypeError, OSError) as error:
        raise UserError(f"{source}: {error}; name its format with --format") from error


def _images(source: str, form: str) -> list[Block] | list[Atoms]:
    """What one input holds, not yet checked."""
    if form == "cif":
        raw = sys.stdin.buffer.read() if source == "-" else _bytes(source)
        blocks = cif_blocks(raw.decode("utf-8-sig", "replace"))
        return [block for block in blocks if any(tag.startswith("_atom_site_") for tag in block)]
    if source != "-":
        return list(ase_read(source, index=":", format=form, do_not_split_by_at_sign=True))
    stream = io.BytesIO(sys.stdin.buffer.read())
    return list(
        ase_read(stream if ioformats[form].isbinary else io.TextIOWrapper(stream), ":", form)
    )


def _bytes(path: str) -> bytes:
    with open_with_compression(path, "rb") as file:
        content: bytes = file.read()
    return content


def _structure(image: Block | Atoms) -> Structure:
    """The ordered crystal that was read.

    Raises:
        CodecError: it is none, or one that the T5 cannot mean.
    """
    geometry = _from_atoms(image) if isinstance(image, Atoms) else from_cif(image)
    shortest = shortest_distance(geometry)
    if not shortest >= SHORTEST:
        raise CodecError(f"two of its atoms are {shortest:.2f} Å apart: disordered or damaged")
    return geometry.structure()


def _from_atoms(atoms: Atoms) -> Geometry:
    if atoms.cell.rank < 3 or not atoms.pbc.all():
        raise CodecError("no crystal: it needs a cell, periodic in three directions")
    kinds = atoms.info.get("occupancy")  # as ASE keeps it when it reads a CIF
    shared = [x for k in kinds.values() for x in k.values()] if isinstance(kinds, dict) else []
    partial = [x for x in (*shared, *atoms.arrays.get("occupancy", ())) if FULL < x < 1 - FULL]
    if partial:
        raise CodecError(f"an occupancy of {partial[0]:g}: the T5 reads ordered crystals only")
    if (atoms.numbers < 1).any():
        raise CodecError("a site without an element")
    return Geometry(
        np.array(atoms.cell.array), atoms.get_scaled_positions(wrap=False), atoms.numbers
    )


def _write(target: Target, structures: Sequence[Structure]) -> None:
    """Write all to the target; a file appears under its name when it is complete."""
    images = [
        Atoms(g.numbers, cell=g.lattice, scaled_positions=g.frac_coords.round(8), pbc=True)
        for g in map(Geometry.of, structures)
    ]
    try:
        if target.path is None:
            sys.stdout.buffer.write(_encoded(images, target.format))
            sys.stdout.flush()
            return
        target.path.parent.mkdir(parents=True, exist_ok=True)
        part = target.path.with_name(f".{os.getpid()}.{target.path.name}")
        try:
            ase_write(part, images, format=target.format)
            part.replace(target.path)
        finally:
            part.unlink(missing_ok=True)
    except READER_ERRORS as error:
        raise UserError(f"{target.path or 'stdout'} cannot be written: {error}") from error


def _encoded(images: Sequence[Atoms], form: str) -> bytes:
    buffer = io.BytesIO()
    if ioformats[form].isbinary:
        ase_write(buffer, images, format=form)
        return buffer.getvalue()
    stream = io.StringIO()
    ase_write(stream, images, format=form)
    return stream.getvalue().encode()


# --- CIF -----------------------------------------------------------------------------------------

_TOKEN = re.compile(
    r"""^;(?P<text>.*?)^;|\#[^\n]*"""
    r"""|'(?P<single>[^\n]*?)'(?!\S)|"(?P<double>[^\n]*?)"(?!\S)|(?P<bare>\S+)""",
    re.MULTILINE | re.DOTALL,
)
_OPERATIONS = ("_space_group_symop_operation_xyz", "_symmetry_equiv_pos_as_xyz")
_NAMES = (
    *("_space_group_name_hall", "_symmetry_space_group_name_hall"),  # says setting and origin
    *("_space_group_name_h-m_alt", "_symmetry_space_group_name_h-m", "_space_group_name_h-m_full"),
)
_NUMBERS = ("_space_group_it_number", "_symmetry_int_tables_number")
_SETTING = re.compile(r"(.*?)(?:\s*:\s*(\w+)|\s+([SZHR]))?")
"""`F d -3 m :2`; databases also write S and Z for the first and second origin."""


def cif_blocks(text: str) -> list[Block]:
    """The data blocks of a CIF (version 1.1), whatever its layout.

    Raises:
        CodecError: a loop with an incomplete row, or a value without a tag.
    """
    blocks: list[dict[str, Sequence[str]]] = []
    tags: list[str] = []
    values: list[str] = []
    header = loop = False
    text = "\n".join(text.splitlines())
    tokens = ((m.lastgroup, m[m.lastgroup]) for m in _TOKEN.finditer(text) if m.lastgroup)
    for kind, token in (*tokens, ("bare", "data_")):
        word = token.lower() if kind == "bare" else ""
        if header and word.startswith("_"):
            tags.append(word.replace(".", "_"))
        elif word == "loop_" or word.startswith(("_", "data_")):
            _store(blocks, tags, values if loop else [" ".join(values)] if values else [])
            header = loop = word == "loop_"
            tags, values = [word.replace(".", "_")] if word.startswith("_") else [], []
            if word.startswith("data_"):
                blocks.append({})
        else:
            header = False
            values.append(token)
    return [*blocks[:-1]]


def _store(blocks: list[dict[str, Sequence[str]]], tags: list[str], values: list[str]) -> None:
    """Give each tag its column; words without quotes outside of loops are one value already."""
    if not tags and not values:
        return
    if not blocks or not tags or len(values) % len(tags):
        near = f"after {tags[-1]}" if tags else f"at {values[0]!r}"
        raise CodecError(f"the CIF's values {near} do not fit its tags")
    blocks[-1].update({tag: values[i :: len(tags)] for i, tag in enumerate(tags)})


def from_cif(block: Block) -> Geometry:
    """The full cell of a block, in its setting; a site's images follow it in the file's order.

    Raises:
        CodecError: no cell, no coordinates, partial occupancy, or a symmetry that does not fit.
    """
    lattice = _lattice(block)
    labels, numbers, fracs = _sites(block)
    rotations, translations = _operations(block, lattice)
    image, inverse = MinimumImage.of(lattice), np.linalg.inv(lattice)
    kept, owners = np.empty((0, 3)), np.empty(0, dtype=int)
    for i, frac in enumerate(fracs):
        near = np.linalg.norm(image.shortest((kept - frac) @ lattice), axis=1) < SAME_SITE
        if near.any():
            other = owners[near][0]
            if numbers[other] != numbers[i]:
                raise CodecError(f"sites {labels[other]} and {labels[i]} share a position")
            continue  # a file that lists the full cell besides its operations
        rest = rotations @ frac + translations
        while len(rest):
            apart = image.shortest((rest - rest[0]) @ lattice)
            same = np.linalg.norm(apart, axis=1) < SAME_SITE
            # of a special position written with few digits, the mean is the position itself
            site = rest[0] + apart[same].mean(axis=0) @ inverse
            kept, owners = np.vstack([kept, site]), np.append(owners, i)
            rest = rest[~same]
    whole = kept if len(rotations) == 1 else kept % 1.0
    return Geometry(lattice, whole, numbers[owners].astype(np.int16))


def _lattice(block: Block) -> NDArray[np.float64]:
    """(3, 3) row vectors [Å], a along x; an angle that is not given is 90° (CIF dictionary)."""
    values = [_known(block, (tag,)) for tag in CELL_TAGS]
    if not all(values[:3]):
        raise CodecError("no cell lengths (_cell_length_a, …): not a crystal")
    parameters = [_number(v[0], t) if v else 90.0 for v, t in zip(values, CELL_TAGS, strict=True)]
    try:
        lattice: NDArray[np.float64] = Cell.fromcellpar(parameters).array
    except AssertionError:
        lattice = np.zeros((3, 3))
    wrong = min(parameters) <= 0 or max(parameters[3:]) >= 180
    if wrong or not np.linalg.det(lattice) > 1e-3:
        raise CodecError(f"no cell has the parameters {parameters}")
    return lattice


def _sites(block: Block) -> tuple[Sequence[str], NDArray[np.int_], NDArray[np.float64]]:
    """Labels, atomic numbers and fractional coordinates (n_sites, 3) as they are listed."""
    columns = [block.get(f"_atom_site_fract_{x}", ()) for x in "xyz"]
    symbols = block.get("_atom_site_type_symbol", ())
    labels = block.get("_atom_site_label", symbols)
    if not labels or {len(x) for x in (*columns, symbols or labels)} != {len(labels)}:
        raise CodecError("sites without fractional coordinates or without elements")
    for label, value in zip(labels, block.get("_atom_site_occupancy", ()), strict=False):
        if value not in ("?", ".") and abs(_number(value, f"occupancy of {label}") - 1) > FULL:
            what = f"site {label} has occupancy {value}"
            raise CodecError(f"{what}: the T5 reads ordered crystals only")
    rows = zip(labels, *columns, strict=True)
    fracs = [[_number(x, f"coordinate of {label}") for x in row] for label, *row in rows]
    return (
        labels,
        np.array([_element(s, bool(symbols)) for s in symbols or labels]),
        np.array(fracs),
    )


def _element(symbol: str, typed: bool) -> int:
    """Atomic number of a type symbol (`Fe3+`, `FE`), or of a label if it leaves no doubt."""
    letters = re.sub(r"[^A-Za-z].*", "", symbol)
    if typed:
        names = {letters.capitalize()}
    else:
        names = {letters[:2]} if letters[1:2].islower() else {letters[:1], letters[:2].capitalize()}
    found = [z for name in names if (z := {"D": 1, "T": 1, **atomic_numbers}.get(name, 0))]
    if len(found) != 1:
        raise CodecError(f"which element is {symbol!r}? say it in _atom_site_type_symbol")
    return int(found[0])


def _number(text: str, what: str) -> float:
    """A CIF's number, without the uncertainty in brackets."""
    match = re.fullmatch(r"([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)(?:\(\d+\))?", text)
    if not match:
        raise CodecError(f"{what}: {text!r} is no number")
    return float(match[1])


def _known(block: Block, tags: Sequence[str]) -> Sequence[str]:
    """The values of the first of `tags` that is there and says something."""
    return next((block[t] for t in tags if not {*block.get(t, "?")} <= {"?", "."}), [])


# --- symmetry ------------------------------------------------------------------------------------


def _operations(block: Block, lattice: NDArray[np.float64]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Rotations (n, 3, 3) and translations (n, 3), listed or of the space group that is named."""
    listed = _known(block, _OPERATIONS)
    if not listed:
        return _named_operations(block, lattice)
    try:
        matrices = np.array([SymmOp.from_xyz_str(text).affine_matrix for text in listed])
    except (ValueError, LookupError, ArithmeticError):
        matrices = np.zeros((1, 4, 4))
    rotations = matrices[:, :3, :3]
    if any(text.count(",") != 2 for text in listed) or not _fits(rotations, lattice):
        raise CodecError("its symmetry operations are misspelt or do not fit its cell")
    return rotations, matrices[:, :3, 3]


def _named_operations(
    block: Block, lattice: NDArray[np.float64]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Those of the named space group in the one setting that fits the cell; P 1 without a name."""
    from moyopy import Setting, SpaceGroupType, operations_from_number

    names, number = [v[0] for t in _NAMES if (v := _known(block, (t,)))], _known(block, _NUMBERS)
    if not names and number and number[0].isdecimal() and 1 <= int(number[0]) <= 230:
        names = [SpaceGroupType(int(number[0])).hm_short]
    if not names:
        return np.eye(3)[None], np.zeros((1, 3))
    found: list[Operations] = []
    for entry in next(filter(None, map(_entries, names)), []):
        operations = operations_from_number(
            entry.number, setting=Setting.hall_number(entry.hall_number)
        )
        if _fits(np.array(operations.rotations), lattice):
            found.append(operations)
    if len(found) != 1:
        why = "has several origins or axes" if found else "is unknown or does not fit the cell"
        raise CodecError(f"space group {names[0]!r} {why}: the CIF must list its operations")
    return np.array(found[0].rotations), np.array(found[0].translations)


def _entries(name: str) -> list[HallSymbolEntry]:
    """The settings of space groups that a Hall or Hermann-Mauguin symbol can mean."""
    from moyopy import HallSymbolEntry

    match = _SETTING.fullmatch(name.strip())
    symbol, setting = (match[1], match[2] or match[3] or "") if match else (name, "")
    setting = {"S": "1", "Z": "2"}.get(setting, setting)
    found = []
    for entry in map(HallSymbolEntry, range(1, 531)):
        short = entry.hm_short
        if 3 <= entry.number <= 15:  # the short symbol of each setting, not of the standard one
            short = re.sub(r" 1(?= |$)", "", entry.hm_full)
        same = _plain(symbol) in map(_plain, (short, entry.hm_full, entry.hall_symbol))
        if same and entry.setting.startswith(setting):
            found.append(entry)
    return found


def _plain(symbol: str) -> str:
    return re.sub(r"[\s_]", "", symbol).lower()


def _fits(rotations: NDArray[Any], lattice: NDArray[np.float64]) -> bool:
    """Each rotation leaves the metric of the lattice as it is, but for rounded parameters."""
    metric = lattice @ lattice.T
    lengths = np.sqrt(np.diagonal(metric))
    turned = rotations.transpose(0, 2, 1) @ metric @ rotations
    return bool((np.abs(turned - metric) < 0.02 * np.outer(lengths, lengths)).all())


if __name__ == "__main__":
    sys.exit(main())
