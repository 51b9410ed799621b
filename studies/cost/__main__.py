"""Measure the cost of the models on this machine.

    python -m studies.cost --out DIR               # cost.csv, cost.svg
    python -m studies.cost --batching --out DIR    # batching.csv, batching.svg

The first has, by the number of sites from 2 to 200, seconds of an evaluation of energy, forces and
stress, peak memory, and the exponent of a power law at large sizes, for every potential that can be
loaded here, and for the T5 up to its limit. The second relaxes the same structures with MACE, by
ASE's loop and on the batched engine, 1 to 64 at a time. Every point has a process of its own, with
the threads of `OMP_NUM_THREADS`; for numbers to keep, use a machine that does nothing else. With
`--device cuda` the memory is that of the GPU.
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
from studies.cost import batching, sites
from studies.cost import batching as figures
from studies.cost.timing import DEFAULT, Choice, Machine, chosen


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
        print(table.to_string(index=False, float_format="%.4g"))
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
    add(
        "--structures",
        type=whole_number(2),
        default=batching.STRUCTURES,
        metavar="N",
        help=_STRUCTURES,
    )
    return parser


_MODELS = f"default: those that are here of {','.join(DEFAULT)}; with --batching one, mace"
_STRUCTURES = "of --batching; default: 64"


def _sites(args: argparse.Namespace) -> pd.DataFrame:
    names = args.models.split(",") if args.models else None
    with tempfile.TemporaryDirectory() as folder:
        models = chosen(Choice(names, args.engine, Path(folder)), _say)
        points: list[sites.Point] = []
        try:
            for point in sites.points(models, args.largest, _machine(args), _say):
                points.append(point)  # noqa: PERF402 - kept if interrupted
        except KeyboardInterrupt:
            if points:
                figures.cost(points, args.out)
                _say(f"{args.out / 'cost.csv'} has what was measured by then")
            raise
    if not points:
        raise UserError("no model could be measured")
    return figures.cost(points, args.out)


def _batching(args: argparse.Namespace) -> pd.DataFrame:
    (model,) = chosen(Choice([args.models or batching.MODEL], ENGINES[0], args.out), _say)
    found = list(batching.rows(model, args.structures, _machine(args), _say))
    return figures.batching(found, args.out)


def _machine(args: argparse.Namespace) -> Machine:
    return Machine(args.device, args.out / "worker.log")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
