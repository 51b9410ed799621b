"""Relax structures with GPAW (PBE) and keep every frame, as a data set of your own.

    python -m benchmarks.dft --limit 2                    # of the list, to try it
    python -m benchmarks.dft mine/*.cif --dry-run          # what is in the files
    python -m benchmarks.dft mine/*.cif --out runs/mine
    python -m benchmarks.dft --list embedded-v2 --out runs/embedded-v2 --workers 2
    python -m benchmarks.dft --list embedded-v3 --out runs/embedded-v3
    python -m benchmarks.dft --list embedded-v3 --out runs/embedded-v3 --shard 1/4
    python -m benchmarks.dft --list embedded-v3 --out runs/embedded-v3 --emit slurm:32 > job.sh
    python -m benchmarks.dft --list embedded-v3 --out runs/embedded-v3 --export
    python -m benchmarks.dft --verify 10 --out runs/verify
    python -m benchmarks.dft --verify 10 --list embedded-v3 --out runs/verify-v3
    python -m benchmarks.dft --verify 30 --perturbed --out runs/perturbed   # do they come back?
    python -m benchmarks.dft --convergence --out runs/convergence
    python -m benchmarks.dft --convergence --list embedded-v3 --out runs/convergence-v3
    python -m benchmarks.dft verdict RUNS --limit 2        # predictions; see benchmarks.dft.verdict

GPAW runs under an interpreter of its own (Debian: apt install gpaw gpaw-data). Exit status: 0 when
every structure has a record, be it a failure; 1 when all failed, or a check did; 2 for a mistake in
the command, something missing, or a file that cannot be read (the others are relaxed); 130 when
interrupted. The same command goes on where it stopped. `embedded_v3_records.tar.gz` beside this
file has the relaxations of version 3 that are done so far: unpack it into `runs/` before going on.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from moyopy import SpaceGroupType

from benchmarks.core import WHOLE, UserError
from benchmarks.core.cli import positive, run_command, whole_number
from benchmarks.core.symmetry import symmetry_dataset
from benchmarks.dft import checks, verdict
from benchmarks.dft import initial_structures as starts
from benchmarks.dft.catalogue import starts as version_2
from benchmarks.dft.catalogue_v3 import in_turn
from benchmarks.dft.catalogue_v3 import starts as version_3
from benchmarks.dft.cost_order import sort_by_cost
from benchmarks.dft.data_card import Card
from benchmarks.dft.export import mark_unusable, write_set, write_table
from benchmarks.dft.pool import add_worker_options, gpaw_versions, relax_all, workers_of
from benchmarks.dft.results import DFTResult, Folder, InitialStructure
from benchmarks.dft.settings import VERSION_3, DFTSettings
from benchmarks.engine.job_array import job_array

LIST = "embedded-v2"
LIST_V3 = "embedded-v3"
OUT = Path("runs/reference")
SYMPREC = 0.01
"""Tolerance of the space groups that a dry run lists [Å]."""
_ABOUT = {
    2: "They are the prototype crystals of `benchmarks/dft/catalogue.py`, none of which is "
    "in version 1.",
    3: "They are those of `benchmarks/dft/catalogue_v3.py`, in which most atoms are away "
    "from their places; the test crystals of versions 1 and 2 are relaxed again from their ends "
    "(`again-`), all others are new.",
}
"""The sentence about the initial structures in the card of each version."""


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    given = sys.argv[1:] if argv is None else list(argv)

    def command() -> int:
        if given[:1] == ["verdict"]:
            return verdict.main(given[1:])
        args = _parser().parse_args(given)
        chosen = _command(args)
        if args.emit:
            sys.stdout.write(job_array(args.emit, "benchmarks.dft", given) + "\n")
            return 0
        return chosen(args)

    return run_command(command, interrupted="interrupted; the same command goes on from here")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.dft",
        description="Relax structures with GPAW (PBE) and keep every frame.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("inputs", nargs="*", type=Path, metavar="FILE", help="CIF, POSCAR, …, or parquet")
    add("--dry-run", action="store_true", help="list what would be relaxed, without GPAW")
    add(
        "--list",
        choices=[LIST, LIST_V3],
        help=f"the embedded set's list of that version; --limit alone means {LIST}",
    )
    add("--emit", metavar="slurm[:N]|pbs[:N]", help="print the script of a job array of N parts")
    add("--export", action="store_true", help="with --list: relax nothing, write what is done")
    add(
        "--verify",
        type=whole_number(1),
        metavar="N",
        help=f"relax N of version 1 again and compare; with --list {LIST_V3} of version 3",
    )
    add("--perturbed", action="store_true", help="with --verify: N starts of that set instead")
    add("--convergence", action="store_true", help="some structures with converged settings, too")
    add("--limit", type=whole_number(1), metavar="N", help="the first N structures")
    add("--out", type=Path, default=OUT, metavar="DIR", help=f"records, tables; default: {OUT}/")
    add_worker_options(parser)
    add("--licence", default="CC-BY-4.0", help="for the data card; default: CC-BY-4.0")
    for name, unit in (("fmax", "EV/Å"), ("kpt_density", "Å"), ("cutoff_factor", "X")):
        flag, value = "--" + name.replace("_", "-"), getattr(DFTSettings(), name)
        add(flag, type=positive, metavar=unit, help=f"default: {value:g} or the list's")
    n = DFTSettings().max_steps
    add("--max-steps", type=whole_number(1), metavar="N", help=f"default: {n} or the list's")
    return parser


def _command(args: argparse.Namespace) -> Callable[[argparse.Namespace], int]:
    asked = {
        _files: bool(args.inputs),
        _list: args.list is not None and not args.convergence and args.verify is None,
        _verify: args.verify is not None,
        _convergence: args.convergence,
    }
    chosen = [command for command, wanted in asked.items() if wanted]
    if args.export and (args.retry or args.list is None or chosen != [_list]):
        raise UserError("--export goes with --list alone: it relaxes nothing")
    if args.dry_run and (args.export or chosen not in ([_files], [_list], [])):
        raise UserError("--dry-run goes with files or with --list")
    if args.perturbed and (args.verify is None or args.list):
        raise UserError("--perturbed goes with --verify N, without --list")
    if args.verify and args.list == LIST:
        raise UserError(f"--verify takes version 1, or version 3 with --list {LIST_V3}")
    if (args.emit or args.shard != WHOLE) and chosen not in ([_files], [_list]):
        raise UserError("--shard and --emit go with files or with --list")
    if args.emit and (args.shard != WHOLE or args.export or args.dry_run):
        raise UserError("--emit makes the parts: leave out --shard, --export and --dry-run")
    if args.export and args.shard != WHOLE:
        raise UserError("--export writes what all parts have done: leave out --shard")
    if not chosen and args.limit:  # without a limit the list takes a day
        return _list
    if len(chosen) != 1:
        raise UserError(f"name one of: files to relax, --list {LIST}, --verify N, --convergence")
    return chosen[0]


def _files(args: argparse.Namespace) -> int:
    """Relax the structures of the files that the user named; 2 if some cannot be read."""
    found, problems = starts.from_files(args.inputs)
    for line in problems:
        print(line, file=sys.stderr)
    refused = any(not line.startswith("warning:") for line in problems)
    if args.dry_run or not found:
        _print_dry_run(found[: args.limit])
        return 2 if refused else 0
    status = _table(found, "They were given as files.", args)
    return 2 if refused else status


def _print_dry_run(found: Sequence[InitialStructure]) -> None:
    """Say of each structure its formula, its sites and its space group."""
    for start in found:
        dataset = symmetry_dataset(start.geometry, SYMPREC)
        group = SpaceGroupType(dataset.number).hm_short if dataset else "unknown"
        formula = start.geometry.structure().formula.replace(" ", "")
        print(f"{start.name}: {formula}, {len(start.geometry.numbers)} sites, space group {group}")


def _table(found: Sequence[InitialStructure], about: str, args: argparse.Namespace) -> int:
    path: Path = args.out / "relaxations.parquet"
    found = found[: args.limit]
    records = _relaxed(found, args.out, _settings(args), args)
    if _left_to_others(found, records):
        return 0
    used = [record for record in records if not record.reason]
    if used:
        write_table(used, path, _card("Reference relaxations", about, records, args))
        print(f"wrote {path}: python -m benchmarks.run --models t5,chgnet --data {path}")
    return 0 if used else 1


def _list(args: argparse.Namespace) -> int:
    """Relax the list of a version, or the first structures of it; or write what is done."""
    version = 3 if args.list == LIST_V3 else 2
    folder: Path = args.out / f"embedded_v{version}"
    listed = sort_by_cost(version_2()) if version == 2 else in_turn(version_3(), VERSION_3)
    about = _ABOUT[version]
    if args.dry_run:
        _print_dry_run(listed[: args.limit])
        return 0
    if args.limit:  # a part of a version is not that version
        return _table(listed, f"{about} These are the first in the order of computation.", args)
    if args.export:
        done = [each for each in listed if Folder(args.out).read(each) is not None]
        about += f" {len(done)} of the {len(listed)} structures of the list have a record."
        listed = done
    records = _relaxed(listed, args.out, _settings(args), args)
    if _left_to_others(listed, records):
        return 0
    used = [record for record in records if not record.reason]
    if used:
        about += " Splits by chemical system, by the rule in `manifest.json`."
        card = _card(f"The embedded set, version {version}", about, records, args)
        write_set(used, folder, card, "embedded", version)
        print(f"wrote {folder}; as benchmarks/data/{folder.name} it is --data embedded-v{version}")
    return 0 if used else 1


def _verify(args: argparse.Namespace) -> int:
    """Relax structures of a version again, or starts of `perturbed`, and compare the ends."""
    settings = _settings(args)
    if args.perturbed:
        title, tolerance = "Starts of `perturbed` that came back to their minima", checks.BACK
        found = checks.perturbed_starts(args.verify)[: args.limit]
        differences = checks.against_minima(_relaxed(found, args.out, settings, args))
    else:
        source = args.list or checks.VERSION_1
        title = f"Version {3 if args.list else 1}, computed again"
        tolerance = checks.TOLERANCE
        found = checks.embedded_starts(args.verify, source, settings)[: args.limit]
        records = _relaxed(found, args.out, settings, args)
        differences = checks.against_embedded(records, source)
    text = checks.report(title, differences, tolerance)
    checks.write(args.out / "verify.md", text, differences)
    print(text)
    return 0 if all(d.within(tolerance) for d in differences) else 1


def _convergence(args: argparse.Namespace) -> int:
    """Compare the relaxed cells with those of converged settings."""
    settings = _settings(args)
    names = checks.CONVERGENCE_V3 if args.list == LIST_V3 else checks.CONVERGENCE
    found = checks.convergence_starts(names)[: args.limit]
    usual = _relaxed(found, args.out / "usual", settings, args)
    ends = checks.ends(found, usual)
    better = _relaxed(ends, args.out / "tight", checks.tight(settings), args, one_frame=True)
    differences = checks.against(usual, {record.name: record for record in better})
    text = checks.report("What the settings cost", differences, None)
    checks.write(args.out / "convergence.md", text, differences)
    print(text)
    return 0 if not any(d.reason for d in differences) else 1


def _settings(args: argparse.Namespace) -> DFTSettings:
    names = ("fmax", "kpt_density", "cutoff_factor", "max_steps")
    given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    return replace(VERSION_3 if args.list == LIST_V3 else DFTSettings(), **given)


def _relaxed(
    found: Sequence[InitialStructure],
    folder: Path,
    settings: DFTSettings,
    args: argparse.Namespace,
    *,
    one_frame: bool = False,
) -> list[DFTResult]:
    """The record of each structure.

    A record of a single frame counts as failed, unless `one_frame` says that the structures were
    relaxed already.
    """
    workers = workers_of(args)
    known = gpaw_versions(args.python)
    records = relax_all(found, folder, settings, workers, known, retry=args.retry)
    records = records if one_frame else mark_unusable(records)
    failed = Counter(record.reason.partition(":")[0] for record in records if record.reason)
    listed = "".join(f"; {n} {reason}" for reason, n in failed.most_common())
    print(f"{folder}: {len(records) - failed.total()} of {len(records)} relaxed{listed}")
    return records


def _left_to_others(found: Sequence[InitialStructure], records: Sequence[DFTResult]) -> bool:
    """Whether other parts have structures without a record yet; says so."""
    left = len(found) - len(records)
    if left:
        print(f"{left} structures are left to other parts; the last one writes the data")
    return bool(left)


def _card(title: str, about: str, records: Sequence[DFTResult], args: argparse.Namespace) -> Card:
    return Card(
        title=title,
        about=about,
        licence=args.licence,
        settings=_settings(args),
        versions=gpaw_versions(args.python),
        records=records,
    )


if __name__ == "__main__":
    sys.exit(main())
