"""Damaged `vasprun.xml`: one line, or exactly what pymatgen reads from it."""

import re
import warnings

import numpy as np
import pytest

from benchmarks.data.convert.evidence import KEEP
from benchmarks.data.convert.inputs import ConvertOptions, read_input
from benchmarks.data.convert.relaxation import ConversionError
from tests.test_convert import vasprun

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


@pytest.mark.parametrize("seed", range(10))
def test_mutant_is_read_as_pymatgen_reads_it_or_is_one_line(tmp_path, seed):
    rng = np.random.default_rng(seed)
    whole, path, read = vasprun(), tmp_path / "vasprun.xml", 0
    for number in range(200):
        path.write_text(mutated(whole, rng), encoding="utf-8")
        keep = KEEP if number % 2 else ()
        said = ""
        try:
            found = read_input(path, ConvertOptions(functional="pbe", keep=keep))
        except ConversionError as error:
            said = str(error)
        assert "\n" not in said
        assert not WORDS_OF_PYTHON.search(said)
        if not said:
            check_like_pymatgen(path, found.relaxation.steps)
            read += 1
    assert 20 < read < 180
