"""How far an answer of a language model may be from the truth, told before the truth is known.

    python -m t2relax.confidence CHECKPOINT --val VAL.parquet

A model with our vocabulary has a distribution for each number that it writes. Its spread becomes an
expected error [Å] of the answer, by a line that is fitted on validation pairs and stays with the
checkpoint: each number is written given those before it, so that the spreads alone are too small.
Where the expected error is many times the change that the text tells, the answer is no change; how
many times is chosen on the same pairs. A training does this at its end; the command does it for a
checkpoint that lies in a folder.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.core import UserError
from benchmarks.core.cli import run_command
from benchmarks.core.files import atomic_write
from t2relax.data.training_pairs import Pair, read_pairs
from t2relax.lm.base import LanguageModel, decode_all
from t2relax.lm.checkpoint import CODEC_FILE, read_record, record_text
from t2relax.lm.pretrained import load
from t2relax.text.codec import DELTA_TAGS, Crystal, Delta, read_delta

KEY: Final = "confidence"
"""The entry of the training record that holds a `Confidence`."""
THRESHOLDS: Final = (0.5, 0.7, 1.0, 1.4, 2.0, 3.0, 5.0, 10.0)
SMALLEST: Final = 20
"""Fewer validation pairs say nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Confidence:
    """How the spreads of a checkpoint are to be read; the numbers follow from validation pairs."""

    floor: float
    """The expected error of an answer without spread [Å]."""
    cell: float
    """Expected error per spread of the cell."""
    positions: float
    """Expected error per spread of the positions."""
    no_change_above: float | None
    """The answer is no change where the expected error is above this multiple of the change that
    the text tells; None for never."""
    n: int
    """Number of the validation pairs."""
    share_unchanged: float
    """Share of them whose answer is no change by this rule."""
    rank_correlation: float
    """Spearman's, of expected and true errors over these pairs; 0 where one of them is constant."""

    def expected_error(self, spread: NDArray[np.float32], initial: Crystal) -> float:
        """Give the expected error [Å] of one answer, see `error_of`."""
        cell, positions = spreads(spread, initial)
        return self.floor + self.cell * cell + self.positions * positions

    def doubts(self, expected_error: float, change: float) -> bool:
        """Tell whether no change is the better answer.

        Args:
            expected_error: What `expected_error` gives [Å].
            change: The size of the change that the text tells, `size_of` [Å].
        """
        return self.no_change_above is not None and expected_error > self.no_change_above * change


def read_confidence(folder: Path) -> Confidence | None:
    """Read what the record of a checkpoint folder holds; None if nobody fitted it.

    Raises:
        UserError: The record is damaged.
    """
    found = read_record(folder)["training"].get(KEY)
    try:
        return None if found is None else Confidence(**found)
    except TypeError as error:
        raise UserError(
            f"{folder / CODEC_FILE}: '{KEY}' is not what python -m t2relax.confidence writes: "
            "run it again"
        ) from error


def spreads(spread: NDArray[np.float32], initial: Crystal) -> tuple[float, float]:
    """Turn the spread of the numbers of a text into lengths [Å].

    Args:
        spread: (7 + 3 n_sites,) of `Written`.
        initial: The crystal that was read.

    Returns:
        The mean spread of a, b and c, in which that of the mean length is contained, and the root
        of the summed squares of the three spreads of a site times the cell lengths, averaged over
        the sites.
    """
    lengths = initial.cellpar[:3]
    cell = float((np.hypot(spread[0], spread[1:4]) / 100 * lengths).mean())
    sites = spread[len(DELTA_TAGS) :].reshape(-1, 3) / 100 * lengths
    return cell, float(np.linalg.norm(sites, axis=1).mean())


def size_of(change: Delta, lattice: NDArray[np.float64]) -> float:
    """Measure a change, or an error [Å]: mean |a, b, c| plus the mean length of the displacements.

    Args:
        change: The change, or the difference of two.
        lattice: (3, 3) in which fractional coordinates are lengths [Å].
    """
    moved = np.linalg.norm(change.frac_coords @ lattice, axis=1).mean()
    return float(np.abs(change.cellpar[:3]).mean() + moved)


def fit(features: NDArray[np.float64], errors: NDArray[np.float64], changes: NDArray[np.float64],
        unchanged: NDArray[np.float64]) -> Confidence:  # fmt: skip
    """Fit on n validation pairs.

    The line minimises the squares, with coefficients that are not negative (Lawson and Hanson's
    NNLS). The threshold is the one of `THRESHOLDS` with the smallest mean error of the answers, and
    there is none where it gains less than twice the standard error of the gain.

    Args:
        features: (n, 2) of `spreads` [Å].
        errors: (n,) errors of what the texts tell [Å], by `size_of`.
        changes: (n,) sizes of the changes that the texts tell [Å].
        unchanged: (n,) errors of no change [Å].
    """
    from scipy.optimize import nnls
    from scipy.stats import spearmanr

    columns = np.column_stack([np.ones(len(errors)), features])
    coefficients, _ = nnls(columns, errors)
    expected = columns @ coefficients
    threshold, share, best = None, 0.0, 0.0
    for each in THRESHOLDS:
        doubted = expected > each * changes
        gains = np.where(doubted, errors - unchanged, 0.0)
        gain, deviation = gains.mean(), gains.std() / np.sqrt(len(gains))
        if gain > max(best, 2 * deviation):
            threshold, share, best = each, float(doubted.mean()), float(gain)
    floor, cell, positions = map(float, coefficients)
    return Confidence(
        floor=floor,
        cell=cell,
        positions=positions,
        no_change_above=threshold,
        n=len(errors),
        share_unchanged=round(share, 4),
        rank_correlation=round(float(np.nan_to_num(spearmanr(expected, errors)[0])), 4),
    )


def calibrate(language_model: LanguageModel, pairs: Sequence[Pair]) -> Confidence | None:
    """Decode validation pairs and fit; None for a model that does not tell its spreads."""
    found = [
        (pair, *read_delta(written.text, pair.initial), written.spread)
        for pair, written in zip(pairs, decode_all(language_model, pairs), strict=True)
        if written.spread is not None
    ]
    if len(found) < SMALLEST:
        return None
    rows = []
    for pair, told, _, spread in found:
        lattice, true = pair.reference().lattice, pair.delta
        missed = Delta(told.cellpar - true.cellpar, told.frac_coords - true.frac_coords)
        sizes = (size_of(each, lattice) for each in (missed, told, true))
        rows.append([*spreads(spread, pair.initial), *sizes])
    table = np.array(rows)
    return fit(table[:, :2], *table[:, 2:].T)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return 0 when the record was written, 2 after a mistake of the user's."""
    parser = argparse.ArgumentParser(
        prog="python -m t2relax.confidence", description=__doc__, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="its record is changed")
    parser.add_argument("--val", action="append", required=True, help="validation data; repeatable")
    args = parser.parse_args(argv)
    return run_command(lambda: _run(args))


def _run(args: argparse.Namespace) -> int:
    content = read_record(args.checkpoint)
    pairs = read_pairs(args.val, "val").pairs
    found = calibrate(load(args.checkpoint), pairs)
    if found is None:
        raise UserError(
            f"{args.checkpoint}: at least {SMALLEST} validation pairs and a model with our "
            "vocabulary are needed"
        )
    content["training"][KEY] = asdict(found)
    with atomic_write(args.checkpoint / CODEC_FILE) as partial:
        partial.write_text(record_text(content), encoding="utf-8")
    print(json.dumps(asdict(found)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
