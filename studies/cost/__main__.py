"""Measure the cost of the models on this machine.

    python -m studies.cost --out DIR               # cost.csv, models.csv, cost.md, cost.svg
    python -m studies.cost --batching --out DIR    # batching.csv, batching.svg

The first has, by the number of sites from 2 to 200, seconds of an evaluation of energy, forces and
stress, peak memory, and the exponent of a power law at large sizes, for every potential that can be
loaded here, in whichever environment has its packages, and for what answers in one pass (the T5 up
to its limit); then the time of a relaxation, beside what the training cost. Every measurement is
kept in DIR/measured: the same command goes on, other models join the table, and measurements of
another machine or number of threads are refused. The second relaxes the same structures with MACE,
by ASE's loop and on the batched engine, 1 to 64 at a time. Every point has a process of its own,
with the threads of `OMP_NUM_THREADS`; for numbers to keep, use a machine that does nothing else.
With `--device cuda` the memory is that of the GPU.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from benchmarks.core import UserError
from benchmarks.core.cli import check_device, run_command, whole_number
from benchmarks.models.registry import ENGINES
from studies.cost import batching
from studies.cost.cost_tables import write_cost_tables
from studies.cost.measurements import FOLDER, Extent, measure_all, read_measurements
from studies.cost.sites import RELAXED
from studies.cost.timing import Choice, Machine, chosen


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    args = _parser().parse_args(argv)

    def study() -> int:
        check_device(args.device)
        try:
            args.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{args.out}: cannot be written ({error.strerror})") from error
        table = _batching(args) if args.batching else _sites(args)
        shown = table.drop(columns=["label", "training_stated"], errors="ignore")
        print(shown.to_string(index=False, float_format="%.4g"))
        return 0

    return run_command(study)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m studies.cost", description=__doc__, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    add = parser.add_argument
    add("--out", type=Path, required=True, metavar="DIR")
    add("--batching", action="store_true", help="the batched engine against ASE's loop")
    add("--models", metavar="A,B,…", help=_MODELS)
    add("--engine", default=ENGINES[0], choices=ENGINES, help="of the first; default: ase")
    add("--device", default="cpu", metavar="cpu|cuda", help="default: cpu")
    add("--largest", type=whole_number(2), default=200, metavar="N", help="sites; default: 200")
    add("--structures", type=whole_number(2), metavar="N", help=_STRUCTURES)
    return parser


_MODELS = "default: every potential that is here, gnn-delta and t5; with --batching one, mace"
_STRUCTURES = f"to relax; default: {RELAXED}, with --batching {batching.STRUCTURES}"


def _sites(args: argparse.Namespace) -> pd.DataFrame:
    names = args.models.split(",") if args.models else None
    folder = args.out / FOLDER
    extent = Extent(args.largest, args.structures or RELAXED)
    with tempfile.TemporaryDirectory() as weights:
        models = chosen(Choice(names, args.engine, Path(weights)), _say)
        try:
            measure_all(models, folder, _machine(args), extent, _say)
        except KeyboardInterrupt:
            _say(f"{folder} has what was measured by then; the same command goes on")
            raise
    stored = read_measurements(folder).values()
    if not any("sites" in each["measured"] for each in stored):
        raise UserError("no model could be measured")
    return write_cost_tables(stored, args.out)


def _batching(args: argparse.Namespace) -> pd.DataFrame:
    (model,) = chosen(Choice([args.models or batching.MODEL], ENGINES[0], args.out), _say)
    found = list(batching.rows(model, args.structures or batching.STRUCTURES, _machine(args), _say))
    return batching.batching(found, args.out)


def _machine(args: argparse.Namespace) -> Machine:
    return Machine(args.device, args.out / "worker.log")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
