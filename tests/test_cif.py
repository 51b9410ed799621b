"""Reading CIFs: nothing rounded, nothing doubled, nothing guessed; pymatgen must agree."""

import warnings
from pathlib import Path

import ase
import numpy as np
import pytest
from pymatgen.core import Structure

from benchmarks.data.structures import StructureError
from benchmarks.data.structures.cif import cif_blocks, from_cif

CELL = """
_cell_length_a 5.640(1)
_cell_length_b 5.640(1)
_cell_length_c 5.640(1)
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
"""
SITES = """
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
"""
NAME = "_symmetry_space_group_name_H-M "
ROCKSALT = f"data_NaCl{CELL}{SITES}Na1 Na 0 0 0 1\nCl1 Cl .5 .5 .5 1\n"
DISORDERED = f"data_mixed{CELL}{SITES}Na1 Na 0 0 0 0.5\nK1 K 0 0 0 0.5\n"
P63MC = (
    "loop_\n_space_group_symop_id\n_space_group_symop_operation_xyz\n"
    "1 'x, y, z'\n2 '-y, x-y, z'\n3 '-x+y, -x, z'\n4 '-x,-y,1/2+z'\n5 'Y,-X+Y,Z+1/2'\n"
    "6 'x-y,x,z+.5'\n7 -y,-x,z\n8 -x+y,y,z\n9 x,x-y,z\n10 y,x,z+1/2\n11 x-y,-y,z+1/2\n"
    "12 -x,-x+y,z+1/2\n"
)
MINERALS = sorted((Path(ase.__file__).parent / "test/testdata/minerals").glob("*.cif"))


def cell(*parameters):
    tags = ("length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma")
    return "".join(f"_cell_{tag} {x}\n" for tag, x in zip(tags, parameters, strict=True))


HEXAGONAL = cell(3.21, 3.21, 5.21, 90, 90, 120)
MONOCLINIC = cell(5, 6, 7, 90, 101, 90)


def only(text):
    (block,) = cif_blocks(text)
    return from_cif(block)


def check_same_crystal(geometry, structure):
    """Each site of one has its own of the same element in the other, within 0.02 Å."""
    ours = geometry.structure()
    assert ours.composition == structure.composition
    assert ours.lattice.parameters == pytest.approx(structure.lattice.parameters)
    far = structure.lattice.get_all_distances(ours.frac_coords, structure.frac_coords)
    partners = far.argmin(axis=1)
    assert len(set(partners.tolist())) == len(ours)
    assert far.min(axis=1).max() < 0.02
    assert [s.specie.Z for s in ours] == [structure[int(i)].specie.Z for i in partners]


def test_odd_but_legal_formatting_is_read_as_the_standard_has_it():
    geometry = only(
        "#\\#CIF_1.1\r\n# a comment with 'quotes', é and ;\n"
        "DATA_odd\n"
        "loop_ _atom_site_fract_z _atom_site_label\n"
        " _atom_site_U_iso_or_equiv  # a column nobody needs\n"
        "_atom_site_fract_x _Atom_Site_Fract_Y _atom_site_occupancy\n"
        "0.0 'Si1' 0.01 0\n"  # a row over two lines, two rows on one
        " 0 1. -.125(3) O2' 0.01(2) 1.25(1)\n0.2500(12) .\n"
        "_cell_angle_alpha 80 _cell_angle_beta 90.0 _cell_angle_gamma\n100.\n"
        "_cell_length_a 3.867(2) # angstrom\n"
        "_publ_text\n;\ndata_ loop_ _cell_length_a 99\n;\n"
        "_cell_length_c +4.867E0\n"
        "_chemical_name 'it's one value'\n"
        "_cell_length_b 5.867\n"
    )
    assert geometry.numbers.tolist() == [14, 8]
    assert geometry.frac_coords.tolist() == [[0, 0, 0], [1.25, 0.25, -0.125]]
    assert np.linalg.norm(geometry.lattice, axis=1) == pytest.approx([3.867, 5.867, 4.867])
    assert geometry.lattice[0].tolist() == [3.867, 0, 0]
    assert geometry.lattice[0] @ geometry.lattice[1] == pytest.approx(3.867 * 5.867 * -0.17364818)


def test_coordinates_of_a_file_without_symmetry_are_not_rounded_nor_sites_sorted():
    rows = "C C 0.3333 0.6667 -0.1 1\nTi Ti 0 0 0 1\nC C .5 .5 .5 1\n"
    for symmetry in ("", f"{NAME}'P 1'\n", f"{NAME}?\n", "_space_group_IT_number ?\n"):
        geometry = only(f"data_x{CELL}{symmetry}{SITES}{rows}")
        assert geometry.numbers.tolist() == [6, 22, 6]
        assert geometry.frac_coords[0].tolist() == [0.3333, 0.6667, -0.1]


@pytest.mark.parametrize("third", ["0.3333 0.6667", "0.333 0.667", "0.3333(2) 0.6667(2)"])
def test_a_special_position_in_few_digits_is_not_doubled(third):
    text = (
        f"data_ZnO\n{HEXAGONAL}{P63MC}{SITES}Zn1 Zn2+ {third} 0 1\nO1 O2- {third} .375 0.998(4)\n"
    )
    geometry = only(text)
    expected = [
        [1 / 3, 2 / 3, 0],
        [2 / 3, 1 / 3, 0.5],
        [1 / 3, 2 / 3, 0.375],
        [2 / 3, 1 / 3, 0.875],
    ]
    assert geometry.numbers.tolist() == [30, 30, 8, 8]
    assert geometry.frac_coords == pytest.approx(np.array(expected), abs=1e-3)
    assert geometry.frac_coords[0].tolist() == [
        float(x.partition("(")[0]) for x in third.split()
    ] + [0]


SPINEL = "Mg1 Mg 0 0 0 1\nAl1 Al .625 .625 .625 1\nO1 O 0.3875 0.3875 0.3875 1\n"
NAMED = {
    "Fm-3m": (CELL, "F m -3 m", "Na1 Na 0 0 0 1\nCl1 Cl .5 .5 .5 1\n", 8),
    "P6_3mc": (HEXAGONAL, "P 63 m c", "Zn Zn .3333 .6667 0 1\nO O .3333 .6667 .375 1\n", 4),
    "P6_3/mmc": (HEXAGONAL, "P 63/m m c", "Mg1 Mg 0.3333 0.6667 0.25 1\n", 2),
    "P2_1/n": (MONOCLINIC, "P 1 21/n 1", "Zr1 Zr .2 .3 .4 1\nO1 O .7 .1 .05 1\n", 8),
    "I2/a": (MONOCLINIC, "I 1 2/a 1", "Zr1 Zr .2 .3 .4 1\nO1 O .25 .1 0 1\n", 12),
    "R-3m": (HEXAGONAL, "R -3 m :H", "Bi1 Bi 0 0 0.2 1\n", 6),
    "Fd-3m": (cell(*[8.08] * 3, 90, 90, 90), "F d -3 m :1", SPINEL, 56),
    "Pbnm": (cell(5.4, 5.5, 7.6, 90, 90, 90), "P b n m", "Fe Fe .5 0 0 1\nO O .99 .03 .25 1\n", 8),
}  # fmt: skip


@pytest.mark.parametrize("name", NAMED)
def test_a_named_space_group_gives_the_crystal_that_pymatgen_reads(name):
    parameters, symbol, rows, n_sites = NAMED[name]
    text = f"data_x\n{parameters}{NAME}'{symbol}'\n{SITES}{rows}"
    geometry = only(text)
    assert len(geometry.numbers) == n_sites
    bare = text.replace(symbol, symbol.partition(" :")[0])  # as pymatgen knows it
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check_same_crystal(geometry, Structure.from_str(bare, fmt="cif"))


@pytest.mark.parametrize("path", MINERALS, ids=lambda path: path.stem)
def test_minerals_of_the_open_database_are_as_pymatgen_reads_them(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = Structure.from_file(path)
    if not expected.is_ordered:
        with pytest.raises(StructureError, match="occupancy"):
            only(path.read_text())
        return
    check_same_crystal(only(path.read_text()), expected)


def test_listed_operations_win_over_a_name():
    inversion = "loop_\n_symmetry_equiv_pos_as_xyz\n'x,y,z'\n'1/4-x,-y,-z'\n"  # in no table
    site = f"{SITES}C1 C .1 0.2 0.3 1\n"
    geometry = only(f"data_x{CELL}{inversion}{NAME}'F m -3 m'\n{site}")
    assert geometry.frac_coords.round(9).tolist() == [[0.1, 0.2, 0.3], [0.15, 0.8, 0.7]]


def test_the_origin_of_a_space_group_is_never_guessed():
    diamond = f"data_C{CELL}{SITES}C1 C 0.125 0.125 0.125 1\n{NAME}"
    for symbol in ("'F d -3 m'", "Fd-3m", "?\n_space_group_IT_number 227"):
        with pytest.raises(StructureError, match="'F d -3 m' has several origins"):
            only(f"{diamond}{symbol}\n")
    second = only(diamond + "'F d -3 m :2'\n")
    assert len(second.numbers) == 8
    assert len(only(diamond + "'F d -3 m :1'\n").numbers) == 16
    hall = only(diamond + "'F d -3 m'\n_space_group_name_Hall '-F 4vw 2vw 3'\n")
    assert hall.frac_coords.tolist() == second.frac_coords.tolist()
    assert len(only(ROCKSALT + "_space_group_IT_number 225\n").numbers) == 8


def test_a_file_that_lists_the_full_cell_and_its_operations_is_not_doubled():
    inversion = "loop_\n_symmetry_equiv_pos_as_xyz\n'x,y,z'\n'-x,-y,-z'\n"
    geometry = only(f"data_x{CELL}{inversion}{SITES}C1 C .1 0 0 1\nC2 C .9 0 0 1\nN1 N .3 0 0 1\n")
    assert geometry.numbers.tolist() == [6, 6, 7, 7]
    assert geometry.frac_coords[:, 0] == pytest.approx([0.1, 0.9, 0.3, 0.7])


def test_elements_are_read_from_type_symbols_in_any_case_before_labels():
    rows = "NA1 NA1+ 0 0 0 1\nC1 ca 0 .5 0 1\nOH2 O-2 .5 .5 0 1\n"
    assert only(f"data_x{CELL}{SITES}{rows}").numbers.tolist() == [11, 20, 8]
    labels = "data_x" + CELL + SITES.replace("_atom_site_type_symbol\n", "")
    rows = "Na1 0 0 0 1\nOA1 0 .5 0 1\nSiA .5 0 0 1\nC .5 .5 0 1\nMoM2 .5 .5 .5 1\n"
    assert only(labels + rows).numbers.tolist() == [11, 8, 14, 6, 42]


def test_blocks_of_the_same_name_are_all_read_and_those_without_sites_are_not():
    blocks = cif_blocks("data_global\n_journal_year 2020\n" + ROCKSALT + ROCKSALT)
    assert [len(from_cif(block).numbers) for block in blocks] == [2, 2]
    assert cif_blocks("") == cif_blocks(f"data_x{CELL}") == []


UNTYPED = ROCKSALT.replace("_type_symbol", "_x")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (DISORDERED, "site Na1 has occupancy 0.5: the T5 reads ordered crystals only"),
        (ROCKSALT.replace("0 1\n", "0 0,5\n"), "site Na1 has occupancy 0,5"),
        (f"data_x{CELL}{SITES}Na1 Na 0 0 0 1\nK1 K 0 0 1 1\n", "sites Na1 and K1 share a position"),
        (f"data_none{SITES}Na1 Na 0 0 0 1\n", "no cell (_cell_length_a"),
        (ROCKSALT.replace("_a 5.640(1)", "_a ?"), "no cell (_cell_length_a"),
        (ROCKSALT.replace("alpha 90", "alpha 200"), "no cell has the parameters"),
        (ROCKSALT.replace("alpha 90", "alpha ?"), "no cell has the parameters"),
        (ROCKSALT.replace("_a 5.640(1)", "_a -5"), "no cell has the parameters"),
        (ROCKSALT.replace("_fract_y", "_y"), "no sites with labels and fractional"),
        (ROCKSALT.replace("_site_label", "_site_x"), "no sites with labels and fractional"),
        (ROCKSALT.replace("Na1 Na 0", "Na1 Na 1/3"), "site Na1 has a coordinate that is no number"),
        (ROCKSALT.replace("Na1 Na 0", "Na1 Na ?"), "site Na1 has a coordinate that is no number"),
        (ROCKSALT.replace("Na1 Na", "W1 Wat"), "site W1: 'Wat' does not name one element"),
        (ROCKSALT.replace("Na1 Na", "M1 Mn/Fe"), "site M1: 'Mn/Fe' does not name one element"),
        (ROCKSALT.replace("Na1 Na", "H1 D"), "site H1: 'D' does not name one element"),
        (UNTYPED.replace("Na1 Na", "CA1 Na"), "'CA1' does not name one element"),
        (UNTYPED.replace("Na1 Na", "D1 Na"), "'D1' does not name one element"),
        (ROCKSALT + "loop_\n_symmetry_equiv_pos_as_xyz\n'x,y'\n", "operations are misspelt"),
        (ROCKSALT + "loop_\n_symmetry_equiv_pos_as_xyz\n-y,x-y,z\n", "does not fit its cell"),
        (f"data_x\n{MONOCLINIC}{SITES}C C 0 0 0 1\n{NAME}'P 1 1 21/b'\n", "does not fit its cell"),
        (ROCKSALT + "_space_group_symop_magn_operation.xyz x,y,z,+1\n", "a magnetic CIF"),
        (f"{ROCKSALT}{NAME}'F n o n'\n", "space group 'F n o n' is unknown"),
        (ROCKSALT[:-3] + "\n", "a damaged CIF, line 9: Wrong number of values in loop"),
        (ROCKSALT.replace("_a 5.640(1)", "_a 5 6"), "a damaged CIF, line 2: parse error"),
        (ROCKSALT + "_cell_length_a 6\n", "duplicate tag _cell_length_a"),
        (ROCKSALT + "_publ_text\n;\nwithout an end", "unterminated text field"),
        (ROCKSALT + "_publ_text\n_x 1", "_publ_text has no value"),
        ("what", "a damaged CIF, line 1: expected block header (data_)"),
    ],
)
def test_what_is_no_ordered_crystal_is_refused_and_says_why(text, why):
    with pytest.raises(StructureError) as caught:
        only(text)
    assert why in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_damage_is_a_traceback():
    rng = np.random.default_rng(0)
    text = f"data_ZnO\n{HEXAGONAL}{P63MC}{SITES}Zn1 Zn2+ 1/3 0.6667 0 1\nO1 O 0.3 0.6 .375 1\n"
    for _ in range(500):
        letters = list(text)
        for i in rng.integers(len(letters), size=3):
            letters[i] = str(rng.choice(list("\0\n;'_ #1-.xé")))
        try:
            for block in cif_blocks("".join(letters)):
                from_cif(block)
        except StructureError:
            continue
