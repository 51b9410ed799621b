"""Damaged inputs of `convert`: one line, or exactly what pymatgen and ASE read from them."""

import json
import re
import warnings
from io import StringIO

import ase.io
import numpy as np
import pytest

from benchmarks.data.convert.evidence import KEEP
from benchmarks.data.convert.inputs import ConvertOptions, read_input
from benchmarks.data.convert.relaxation import ConversionError
from tests.test_convert import archive, images, vasprun

COMPLETE = [kind for kind in KEEP if kind != "unfinished"]
TOKEN = re.compile(r"-?\d+\.\d+|\d+|[A-Za-z_]+|</?\w+[^>]*>")
ODD = ("***", "nan", "inf", "1e400", "-", "", "x", "0", "-1", "999999999999", "<", "&", "Å", "T")
WORDS_OF_PYTHON = re.compile(r"Error\b|Traceback|object at|NoneType|list index|unpack|0x[0-9a-f]+")


def mutated(text, rng):
    """Tokens replaced, removed, doubled or exchanged, or text cut off, at one to three places."""
    for _ in range(rng.integers(1, 4)):
        tokens = list(TOKEN.finditer(text))
        if not tokens:
            break
        one, other = (tokens[i] for i in rng.integers(len(tokens), size=2))
        start, end = one.span()
        match rng.integers(7):
            case 0:
                text = text[:start] + ODD[rng.integers(len(ODD))] + text[end:]
            case 2:
                text = text[:end] + " " + one[0] + text[end:]
            case 3:
                text = text[:start] + other[0] + text[end:]
            case 4:
                text = text[: int(rng.integers(len(text)))] if rng.integers(4) == 0 else text
            case 5:
                first, last = sorted((start, other.start()))
                text = text[:first] + text[min(last, first + 300) :]
            case 6:
                at = int(rng.integers(len(text)))
                text = text[:at] + chr(int(rng.integers(32, 300))) + text[at + 1 :]
            case 1:
                digits = [token for token in tokens if token[0][-1].isdigit()]
                start, end = digits[rng.integers(len(digits))].span() if digits else (0, 0)
                text = text[:start] + f"{rng.normal(0, 5):.4f}" + text[end:]
    return text


def check_like_pymatgen(path, steps):
    """Cells, sites, elements, energies and forces are those of pymatgen, number by number."""
    from pymatgen.io.vasp.outputs import Vasprun

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run = Vasprun(
            path,
            parse_dos=False,
            parse_eigen=False,
            parse_potcar_file=False,
            exception_on_bad_xml=False,
        )
    assert len(steps) == len(run.ionic_steps)
    for step, read in zip(steps, run.ionic_steps, strict=True):
        structure = read["structure"]
        symbols = [site.specie.symbol for site in structure]
        assert list(step.symbols) == ["H" if symbol in ("D", "T") else symbol for symbol in symbols]
        np.testing.assert_array_equal(step.lattice, structure.lattice.matrix)
        np.testing.assert_array_equal(step.positions, structure.cart_coords)
        energy = read.get("e_fr_energy", np.nan)
        assert step.energy == energy or (step.energy is None and not np.isfinite(energy))
        for name in ("forces", "stress"):
            ours = getattr(step, name)
            if ours is not None:
                np.testing.assert_array_equal(ours, read[name])
            else:
                assert name not in read or not np.isfinite(read[name]).all()


def check_like_ase(path, steps):
    """As above; ASE stops at a blank line."""
    images = ase.io.read(path, index=":", format="extxyz")
    assert len(images) <= len(steps)
    for step, atoms in zip(steps, images, strict=False):
        assert list(step.symbols) == atoms.get_chemical_symbols()
        np.testing.assert_array_equal(step.lattice, atoms.cell.array)
        np.testing.assert_array_equal(step.positions, atoms.positions)


def outcome(path, keep):
    """The steps of a file, or None if it is refused, in one line without the words of Python."""
    said = ""
    try:
        steps = read_input(path, ConvertOptions(functional="pbe", keep=keep)).relaxation.steps
    except ConversionError as error:
        steps, said = None, str(error)
    assert "\n" not in said
    assert not WORDS_OF_PYTHON.search(said)
    return steps


@pytest.mark.parametrize("seed", range(10))
def test_mutant_of_a_vasprun_is_read_as_pymatgen_reads_it_or_is_one_line(tmp_path, seed):
    rng = np.random.default_rng(seed)
    whole, path, read = vasprun(), tmp_path / "vasprun.xml", 0
    for number in range(200):
        path.write_text(mutated(whole, rng), encoding="utf-8")
        steps = outcome(path, KEEP if number % 2 else ())
        if steps is not None:
            check_like_pymatgen(path, steps)
            read += 1
    assert 20 < read < 180


@pytest.mark.parametrize("seed", range(4))
def test_mutant_of_an_extended_xyz_is_read_as_ase_reads_it_or_is_one_line(tmp_path, seed):
    rng = np.random.default_rng(seed)
    text = StringIO()
    ase.io.write(text, images(), format="extxyz")
    path, read = tmp_path / "a.extxyz", 0
    for number in range(500):
        path.write_text(mutated(text.getvalue(), rng), encoding="utf-8")
        steps = outcome(path, COMPLETE if number % 2 else ())
        if steps is not None:
            check_like_ase(path, steps)
            read += 1
    assert 50 < read < 450


def test_mutant_of_an_archive_is_read_or_is_one_line(tmp_path):
    rng = np.random.default_rng(0)
    text, path, read = json.dumps(archive()), tmp_path / "archive.json", 0
    for number in range(500):
        path.write_text(mutated(text, rng), encoding="utf-8")
        read += outcome(path, KEEP if number % 2 else ()) is not None
    assert 50 < read < 450
