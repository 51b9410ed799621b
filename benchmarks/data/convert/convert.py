"""Relaxations of other sources as one table in the column layout of LeMat-Traj.

    python -m benchmarks.data convert INPUT… --out FILE.parquet

An input is a file, or a folder that is walked. NOMAD archives (`archive.json`), `vasprun.xml`,
extended XYZ and ASE trajectories are read, whatever they are called; one file is one trajectory.
Finished free relaxations are taken; `--keep` names what passes besides (see `evidence`). The
settings that a file names (program, functional, +U, cutoff) are written to `FILE.settings.csv`,
because LeMat-Traj has no column for them.

Exit status: 0 when all inputs were converted, or are in the table already. 2 when one was not: each
is listed with its reason, and the others are written; also 2 for a mistake in the command. 130 when
interrupted; an older FILE is then untouched.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from benchmarks.core import UserError
from benchmarks.core.files import atomic_write
from benchmarks.data.convert.conventions import FUNCTIONALS
from benchmarks.data.convert.evidence import KEEP
from benchmarks.data.convert.inputs import ConvertOptions, find_inputs, printable, read_input
from benchmarks.data.convert.layout import TableWriter, table
from benchmarks.data.convert.recognition import FORMATS
from benchmarks.data.convert.relaxation import ConversionError


@dataclass(frozen=True, slots=True)
class ConversionOutcome:
    """The outcome of the conversion of one input."""

    path: Path
    reason: str = ""
    """The reason why it was not converted; empty if it was."""
    repeated: bool = False
    """True if another input has the same content and was converted."""
    settings: dict[str, object] = field(default_factory=dict)
    """Its line in the table of settings."""


class NothingConvertedError(UserError):
    """No input could be converted; `outcomes` say why."""

    def __init__(self, outcomes: Sequence[ConversionOutcome]) -> None:
        first = outcomes[0]
        more = f" and {len(outcomes) - 1} more" if len(outcomes) > 1 else ""
        super().__init__(f"nothing converted: {printable(first.path)}: {first.reason}{more}")
        self.outcomes = outcomes


def convert(inputs: Sequence[Path], out: Path, options: ConvertOptions) -> list[ConversionOutcome]:
    """Write the relaxations of `inputs` to one parquet file, and their settings beside it.

    Args:
        inputs: Files, and folders that are walked.
        out: The table. It and its settings appear, or are replaced, when both are complete.
        options: Options for the reading.

    Returns:
        An outcome for each file, in order.

    Raises:
        UserError: An argument is wrong, or no input could be converted (`NothingConvertedError`).
    """
    _check(out, options)
    paths = find_inputs(inputs, options.format)
    taken: dict[str, Path] = {}
    outcomes: list[ConversionOutcome] = []
    with atomic_write(out) as parquet, atomic_write(settings_path(out)) as settings:
        with TableWriter(parquet) as writer:
            for path in tqdm(paths, desc="convert", unit="file", disable=None):
                try:
                    found = read_input(path, options)
                except ConversionError as error:
                    outcomes.append(ConversionOutcome(path, reason=str(error)))
                    continue
                name = found.trajectory
                if name in taken:
                    reason = f"the same content as {printable(taken[name])}"
                    outcomes.append(ConversionOutcome(path, reason=reason, repeated=True))
                    continue
                taken[name] = path
                writer.add(table(found.relaxation, found.material, found.functional, name))
                outcomes.append(ConversionOutcome(path, settings=found.settings(path)))
        if not taken:
            raise NothingConvertedError(outcomes)
        rows = [outcome.settings for outcome in outcomes if outcome.settings]
        with settings.open("w", encoding="utf-8", newline="") as file:
            lines = csv.DictWriter(file, rows[0], lineterminator="\n")
            lines.writeheader()
            lines.writerows(rows)
    return outcomes


def settings_path(out: Path) -> Path:
    """The path of the settings that belong to a converted table."""
    return out.with_suffix(".settings.csv")


def _check(out: Path, options: ConvertOptions) -> None:
    if out.suffix != ".parquet":
        raise UserError(f"--out {out}: must end in .parquet")
    for path in (out, settings_path(out)):
        if path.is_dir():
            raise UserError(f"--out {out}: {path} is a folder")
    if not out.parent.is_dir():
        raise UserError(f"--out {out}: its folder does not exist")
    known = (("functional", FUNCTIONALS), ("format", tuple(FORMATS)))
    for name, choices in known:
        value = getattr(options, name)
        if value is not None and value not in choices:
            raise UserError(f"--{name} {value}: not one of {', '.join(choices)}")


def _summary(outcomes: Sequence[ConversionOutcome]) -> str:
    """A table of the inputs that were not converted, and the counts."""
    failed = [outcome for outcome in outcomes if outcome.reason]
    width = max((len(printable(outcome.path)) for outcome in failed), default=0)
    lines = [f"{printable(outcome.path):{width}}  {outcome.reason}" for outcome in failed]
    if lines:
        lines = [f"{'not converted':{width}}  reason", *lines, ""]
    counts = Counter(outcome.reason.partition(":")[0] for outcome in failed)
    frames = sum(int(str(outcome.settings.get("n_frames", 0))) for outcome in outcomes)
    listed = ", ".join(f"{n} {reason}" for reason, n in sorted(counts.items()))
    converted = f"{len(outcomes) - len(failed)} of {len(outcomes)} inputs, {frames} frames"
    return "\n".join([*lines, converted + (f"; not: {listed}" if listed else "")]) + "\n"


def main(argv: Sequence[str]) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.data convert",
        description="Make one LeMat-Traj table of other sources' relaxations.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("inputs", nargs="+", type=Path, metavar="INPUT", help="file, or folder that is walked")
    add("--out", type=Path, required=True, metavar="FILE.parquet")
    add("--functional", metavar="|".join(FUNCTIONALS), help="of the inputs that name none")
    add("--format", metavar="|".join(FORMATS), help="default: told by content, then name")
    add("--keep", action="append", default=[], choices=KEEP, help="convert these, too")
    args = parser.parse_args(argv)
    options = ConvertOptions(functional=args.functional, format=args.format, keep=args.keep)
    try:
        outcomes = convert(args.inputs, args.out, options)
    except NothingConvertedError as error:
        sys.stdout.write(_summary(error.outcomes))
        raise
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; nothing was written\n")
        return 130
    sys.stdout.write(f"{_summary(outcomes)}wrote {args.out} and {settings_path(args.out)}\n")
    return 2 if any(each.reason and not each.repeated for each in outcomes) else 0
