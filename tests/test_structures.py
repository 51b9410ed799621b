"""Structures in every format but CIF: the right crystal, or one line that says what is wrong."""

from pathlib import Path

import pytest

from benchmarks.data.structures import StructureError
from benchmarks.data.structures.formats import format_of, read_images

CASES = Path(__file__).parent / "cases"


def read_all(path):
    """What each image of a file is: its atomic numbers, or why there is none."""
    try:
        images = read_images(path, format_of(path))
    except StructureError as error:
        return [str(error)]
    return [str(g) if isinstance(g, StructureError) else g.numbers.tolist() for g in images]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("POSCAR_no_symbols", ["names no elements: write them in line 6 (VASP 5)"]),
        (
            "POSCAR_short",
            ["line 7 counts 3 atoms, but 2 coordinate lines follow: line 11 is missing"],
        ),
        ("blank_line_between.extxyz", [[11, 17]] * 5),
        ("helium.extxyz", [[2]]),
        ("left_handed.extxyz", [[11, 17]] * 2),
    ],
)
def test_cases(name, expected):
    assert read_all(CASES / name) == expected
