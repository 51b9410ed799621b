"""Reading CIFs: nothing rounded, nothing doubled, nothing guessed; pymatgen must agree."""

import time
import warnings
from pathlib import Path

import ase
import gemmi
import numpy as np
import pytest
import spglib
from pymatgen.core import Structure
from pymatgen.io.cif import CifWriter

from benchmarks.data.structures import StructureError
from benchmarks.data.structures.asymmetric_unit import triplet
from benchmarks.data.structures.cif import read_cif
from benchmarks.data.structures.read import crystals_of_cif

CASES_FOLDER = Path(__file__).parent / "cases"
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
    (found,) = read_cif(text, "x.cif")
    if found.geometry is None:
        raise StructureError(found.problem)
    return found.geometry


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
    geometry = only(f"data_x{CELL}{inversion}{NAME}'P -1'\n{site}")
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
    found = read_cif("data_global\n_journal_year 2020\n" + ROCKSALT + ROCKSALT, "x.cif")
    assert [(each.name, len(each.geometry.numbers)) for each in found] == [
        ("x.cif@0", 2),
        ("x.cif@1", 2),
    ]
    assert read_cif("", "x.cif") == read_cif(f"data_x{CELL}", "x.cif") == []


UNTYPED = ROCKSALT.replace("_type_symbol", "_x")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (DISORDERED, "site Na1 has occupancy 0.5: only ordered crystals are read"),
        (ROCKSALT.replace("0 1\n", "0 0,5\n"), "site Na1 has occupancy 0,5"),
        (f"data_x{CELL}{SITES}Na1 Na 0 0 0 1\nK1 K 0 0 1 1\n", "sites Na1 and K1 share a position"),
        (f"data_none{SITES}Na1 Na 0 0 0 1\n", "no cell (_cell_length_a"),
        (ROCKSALT.replace("_a 5.640(1)", "_a ?"), "no cell (_cell_length_a"),
        (ROCKSALT.replace("alpha 90", "alpha 200"), "no cell has the parameters"),
        (ROCKSALT.replace("alpha 90", "alpha ?"), "no cell has the parameters"),
        (ROCKSALT.replace("_a 5.640(1)", "_a -5"), "no cell has the parameters"),
        (ROCKSALT.replace("_fract_y", "_y"), "need fractional coordinates"),
        (ROCKSALT.replace("_fract_", "_Cartn_"), "only Cartesian ones are there"),
        (
            ROCKSALT.replace("_site_label", "_site_x").replace("_type_symbol", "_y"),
            "neither labels nor type symbols",
        ),
        (ROCKSALT.replace("Na1 Na 0", "Na1 Na 1/3"), "site Na1 has a coordinate that is no number"),
        (ROCKSALT.replace("Na1 Na 0", "Na1 Na ?"), "site Na1 has a coordinate that is no number"),
        (ROCKSALT.replace("Na1 Na", "W1 Wat"), "site W1: 'Wat' does not name one element"),
        (ROCKSALT.replace("Na1 Na", "M1 Mn/Fe"), "site M1: 'Mn/Fe' does not name one element"),
        (ROCKSALT.replace("Na1 Na", "Q1 Q"), "site Q1: 'Q' does not name one element"),
        (UNTYPED.replace("Na1 Na", "CA1 Na"), "'CA1' does not name one element"),
        (UNTYPED.replace("Na1 Na", "D1 Na"), "'D1' does not name one element"),
        (ROCKSALT + "loop_\n_symmetry_equiv_pos_as_xyz\n'x,y'\n", "operations are misspelt"),
        (
            ROCKSALT + "loop_\n_symmetry_equiv_pos_as_xyz\nx,y,z\n-y,x-y,z\n-x+y,-x,z\n",
            "does not fit its cell",
        ),
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
        for each in read_cif("".join(letters), "x.cif"):
            assert (each.geometry is None) == bool(each.problem)


# --- symmetry: obeyed or refused ------------------------------------------------------------------

LIST = "loop_\n_symmetry_equiv_pos_as_xyz\n"
NUMBER = "_space_group_IT_number"
CARBON = f"{SITES}C1 C .11 .32 .37 1\n"
TETRAGONAL = cell(4.6, 4.6, 2.96, 90, 90, 90)
ORTHORHOMBIC = cell(5.1, 6.2, 7.3, 90, 90, 90)
RHOMBOHEDRAL = cell(4.7, 4.7, 4.7, 57.2, 57.2, 57.2)


@pytest.mark.parametrize(
    ("parameters", "symmetry", "n_sites"),
    [
        (CELL, f"{NAME}'F 4/m -3 2/m'\n", 192),
        (ORTHORHOMBIC, f"{NAME}'P 2_1/n 2_1/m 2_1/a'\n", 8),
        (ORTHORHOMBIC, f"{NAME}'P 21/b 21/n 21/m'\n", 8),
        (TETRAGONAL, f"{NAME}'P 42/m 21/n 2/m'\n", 16),
        (HEXAGONAL, f"{NAME}'P 63/m 2/m 2/c'\n", 24),
        (HEXAGONAL, f"{NAME}'R -3 2/m'\n", 36),
        (RHOMBOHEDRAL, f"{NAME}'R -3 2/m'\n", 12),
        (RHOMBOHEDRAL, "_space_group_IT_number 166\n", 12),
        (CELL, f"{NAME}'F 41/d -3 2/m :2'\n", 192),
        (CELL, "_space_group.name_H-M_full 'F 4/m -3 2/m'\n", 192),
        (CELL, "_space_group.IT_number 225\n", 192),
        (CELL, "_symmetry.Int_Tables_number '225'\n", 192),
        (CELL, "_symmetry.space_group_name_H-M 'F m -3 m'\n", 192),
        (CELL, "_space_group.name_Hall '-F 4 2 3'\n", 192),
        (CELL, "_space_group_IT_number 227\n_space_group.IT_coordinate_system_code 2\n", 192),
        (ORTHORHOMBIC, f"{NUMBER} 62\n_space_group_IT_coordinate_system_code cab\n", 8),
        (CELL, "loop_\n_space_group_symop.operation_xyz\nx,y,z\n-x,-y,-z\n", 2),
        (CELL, "loop_\n_symmetry_equiv.pos_as_xyz\nx,y,z\n-x,-y,-z\n", 2),
        (CELL, "_space_group_name_Schoenflies C1\n", 1),
        (cell(3, 3, 15, 90, 90, 90), f"{LIST}x,y,z\nx,y,z+.2\nx,y,.4+z\nx,y,3/5+Z\nx,y,z-0.2\n", 5),
        (cell(3, 3, 21, 90, 90, 90), LIST + "".join(f"x,y,z+{i}/7\n" for i in range(7)), 7),
        (cell(3, 3, 90, 90, 90, 90), LIST + "".join(f"x,y,z+{i}/30\n" for i in range(30)), 30),
        (CELL, f"{LIST}-x,-y,-z\n", 2),
        (CELL, f"{LIST}'+x, +y, +z'\n' - x + 1/2, -y , -z'\n", 2),
    ],
)  # fmt: skip
def test_symmetry_in_any_spelling_is_obeyed(parameters, symmetry, n_sites):
    assert len(only(f"data_x\n{parameters}{symmetry}{CARBON}").numbers) == n_sites


MAGNETIC = ("_space_group_symop.magn_operation_xyz", "_space_group_symop_magn_operation_xyz",
            "_space_group_symop_magn_operation.xyz", "_magnetic_space_group_symop_operation_xyz",
            "_space_group_symop.magn_operation_mxmymz", "_space_group_magn.number_BNS",
            "_space_group.magn_name_BNS")  # fmt: skip


@pytest.mark.parametrize(
    ("symmetry", "why"),
    [
        *((f"{tag} x,y,z,+1\n", "a magnetic CIF") for tag in MAGNETIC),
        ("_space_group_symop_ssg_operation_algebraic x1,x2,x3,x4\n", "a modulated crystal"),
        ("_space_group_ssg_name 'P n m a(0b0)s0s'\n", "a modulated crystal"),
        ("_cell_modulation_dimension 1\n", "a modulated crystal"),
        ("_cell_wave_vector_x 0.25\n", "a modulated crystal"),
        ("_space_group_symop.matrices x\n", "is not understood"),
        ("_symmetry_equiv_pos_xyz x,y,z\n", "is not understood"),
        ("_space_group_symop.generator_xyz -x,-y,-z\n", "generator_xyz alone is not read"),
        ("_space_group_name_Schoenflies O_h^5\n", "the Schoenflies symbol 'O_h^5' is unknown"),
        ("_space_group_name_Hall '-F 9 9 9'\n", "the Hall symbol '-F 9 9 9' is unknown"),
        ("_space_group_IT_number cubic\n", "space group number 'cubic' is unknown"),
        ("_space_group_IT_number 231\n", "space group number '231' is unknown"),
        (
            "_space_group_IT_number 62\n_space_group_IT_coordinate_system_code xyz\n",
            "space group 62 with the setting 'xyz' is unknown",
        ),
        (f"{NAME}'F m -3 m'\n_space_group_IT_number 227\n", "two space groups"),
        (f"{NAME}'F m -3 m'\n_space_group_name_Hall '-P 1'\n", "two space groups"),
        (f"{LIST}x,y,z\nx,y\n", "misspelt: 'x,y'"),
        (f"{LIST}x,y,z\nx,y,z,+1\n", "misspelt: 'x,y,z,+1'"),
        (f"{LIST}x,y,z\nx,y,z/2\n", "misspelt"),
        (f"{LIST}x,y,z\nx,y,xz\n", "misspelt"),
        (f"{LIST}x,y,z\nx,x,z\n", "misspelt"),
        (f"{LIST}x,y,z\nx,y,z+1/0\n", "misspelt"),
        (f"{LIST}x,y,z\n-y,x,z\n", "its 2 symmetry operations are no group"),
        (f"{LIST}x,y,z\nx+1/3,y,z\n", "its 2 symmetry operations are no group"),
        (
            f"{LIST}x,y,z\n-x,-y,-z\nloop_\n_space_group_symop_operation_xyz\nx,y,z\n",
            "differ: take one out",
        ),
        (f"{LIST}x,y,z\n{NAME}'F m -3 m'\n", "its 1 listed operation are another group"),
        (f"{LIST}x,y,z\n-x,-y,-z\n{NAME}'F m -3 m'\n", "its 2 listed operations are another"),
        (f"{LIST}x,y,z\n-x,-y,-z\n{NAME}'P 1'\n", "its 2 listed operations are another group"),
    ],
)
def test_symmetry_that_is_not_understood_or_contradicts_itself_is_refused(symmetry, why):
    with pytest.raises(StructureError) as caught:
        only(f"data_x{CELL}{symmetry}{CARBON}")
    assert why in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_names_its_group_and_lists_its_whole_cell_is_read_and_said_to():
    rows = "".join(
        f"Na{i} Na {x} {y} {z} 1\nCl{i} Cl {x}.5 {y} {z} 1\n"
        for i, (x, y, z) in enumerate(
            [(0, 0, 0), (0, ".5", ".5"), (".5", 0, ".5"), (".5", ".5", 0)]
        )
    )
    rows = rows.replace(".5.5 ", "1 ")
    text = f"data_x{CELL}{LIST}x,y,z\n{NAME}'F m -3 m'\n{SITES}{rows}"
    (found,) = read_cif(text, "x.cif")
    assert len(found.geometry.numbers) == 8
    assert found.warnings == ("it names 'F m -3 m', which its operations are not",)


# --- a file that contradicts itself ---------------------------------------------------------------


def formula(text, z=None):
    units = f"_cell_formula_units_Z {z}\n" if z else ""
    return f"_chemical_formula_sum '{text}'\n{units}"


@pytest.mark.parametrize(
    ("stated", "warnings"),
    [
        (formula("Cl Na"), 0),
        (formula("Na1 Cl1", 1), 0),
        (formula("Na4 Cl4"), 0),
        (formula("Na0.98 Cl"), 1),
        (formula("(Na,K)1 Cl1"), 1),
        (formula("?"), 0),
        ("_cell_volume 179.4\n", 0),
        ("_cell_volume 190\n", 1),
        ("_exptl_crystal_density_diffrn 0.541(3)\n", 0),
        ("_exptl_crystal_density_diffrn 2.164\n", 1),
        ("_symmetry_cell_setting monoclinic\n", 1),
        ("_symmetry_cell_setting triclinic\n", 0),
    ],
)
def test_what_agrees_is_read_and_what_is_odd_is_said(stated, warnings):
    (found,) = read_cif(ROCKSALT + stated, "x.cif")
    assert found.geometry.numbers.tolist() == [11, 17]
    assert len(found.warnings) == warnings


@pytest.mark.parametrize(
    ("stated", "says"),
    [
        (formula("Na Cl", 4), "formula and Z = 4 say"),
        (formula("Na Cl", 0.5), "formula and Z = 0.5 say"),
        (formula("H2 Na Cl"), "H2"),
        (formula("Na2 Cl"), "atoms are missing or extra"),
        (formula("Na"), "atoms are missing or extra"),
        (formula("K Cl"), "atoms are missing or extra"),
        (formula("Na0.5 Cl"), "atoms are missing or extra"),
    ],
)
def test_a_formula_that_the_sites_do_not_give_is_refused(stated, says):
    with pytest.raises(StructureError, match="atoms are missing or extra") as caught:
        only(ROCKSALT + stated)
    assert says in str(caught.value)


def test_hydrogens_without_places_and_dummies_are_no_sites():
    extra = SITES.replace("_atom_site_occupancy", "_atom_site_attached_hydrogens")
    with pytest.raises(StructureError, match="the 2 hydrogens attached to site O1 have no coord"):
        only(f"data_x{CELL}{extra}O1 O 0 0 0 2\n")
    assert only(f"data_x{CELL}{extra}O1 O 0 0 0 0\nO2 O .5 0 0 .\n").numbers.tolist() == [8, 8]
    flag = SITES.replace("_atom_site_occupancy", "_atom_site_calc_flag")
    (found,) = read_cif(f"data_x{CELL}{flag}O1 O 0 0 0 d\nX1 X .5 0 0 dum\n", "x.cif")
    assert found.geometry.numbers.tolist() == [8]
    assert found.warnings == ("site X1 is a dummy and left out",)
    with pytest.raises(StructureError, match="all its sites are dummies"):
        only(f"data_x{CELL}{flag}X1 X .5 0 0 dum\n")


def test_the_formula_ends_the_doubt_about_a_label():
    text = UNTYPED.replace("Na1 Na", "CA1 Na")
    assert only(text + formula("Ca Cl")).numbers.tolist() == [20, 17]
    assert only(text + formula("C Cl")).numbers.tolist() == [6, 17]
    assert only(UNTYPED.replace("Na1 Na", "D1 Na") + formula("D Cl")).numbers.tolist() == [1, 17]
    assert only(UNTYPED.replace("Na1 Na", "Ob1 Na") + formula("O Cl")).numbers.tolist() == [8, 17]
    with pytest.raises(StructureError, match="'Wat1' does not name one element"):
        only(UNTYPED.replace("Na1 Na", "Wat1 Na") + formula("H2 O Cl"))


# --- numbers and isotopes ----------------------------------------------------------------------


def test_numbers_in_quotes_and_isotopes_are_read():
    text = ROCKSALT.replace("5.640(1)", "'5.640(1)'").replace(
        "Na1 Na 0 0 0 1", "T1 T '0' \"0\" 0 '1'"
    )
    geometry = only(text)
    assert geometry.lattice[0].tolist() == [5.64, 0, 0]
    assert geometry.numbers.tolist() == [1, 17]
    assert only(ROCKSALT.replace("Na1 Na", "D1 D1+")).numbers.tolist() == [1, 17]


def test_a_full_stop_is_zero_where_the_program_writes_it_so():
    text = ROCKSALT.replace("Na1 Na 0 0 0", "Na1 Na . . 0")
    with pytest.raises(StructureError, match=r"no number \(\.\): write 0 if 0 is meant"):
        only(text)
    assert only(text + "_database_code_ICSD 18189\n").frac_coords[0].tolist() == [0, 0, 0]


# --- one block does not cost the others ---------------------------------------------------------


def test_a_damaged_block_costs_itself_only():
    bad = ROCKSALT.replace("data_NaCl", "data_bad")
    kinds = (
        bad[:-3] + "\n",  # a value of the loop is missing
        bad.replace("_cell_angle_alpha 90", "_cell_angle_alpha 90 90"),
        bad + "_cell_length_a 6\n",
        bad + "_publ_text\n;\nwithout an end\n",
        bad.replace("Na1 Na", "Na1 Wat"),
        bad.replace("_cell_angle_alpha 90", "_cell_angle_alpha 0"),
    )
    for kind in kinds:
        found = read_cif(ROCKSALT + kind + ROCKSALT, "x.cif")
        read = [None if each.geometry is None else len(each.geometry.numbers) for each in found]
        assert read == [2, None, 2], kind
        assert found[1].problem
    (_, damaged, _) = read_cif(ROCKSALT + kinds[1] + ROCKSALT, "x.cif")
    assert "line 22" in damaged.problem
    text = f"_publ_text\n;\n{ROCKSALT};\n"  # a block within a text is none
    assert len(read_cif(ROCKSALT + text + bad[:-3] + "\n", "x.cif")) == 2


CASES = {
    "angle_zero": "no cell has the parameters 5.64 5.64 5.64 0 90 90",
    "attached_hydrogens": "the 2 hydrogens attached to site O1",
    "cartesian_only": "its sites need fractional coordinates",
    "coordinates_dots": "site F1 has a coordinate that is no number (.)",
    "deuterium": "LiH",
    "group_dotted_name": "Na4Cl4",
    "it_number_quoted": "Na4Cl4",
    "it_number_word": "Na4Cl4",
    "magnetic_old_dot": "a magnetic CIF",
    "magnetic_underscore": "a magnetic CIF",
    "occupancy_quoted": "NaCl",
    "operation_fifths": "Na5",
    "operations_no_group": "its 6 symmetry operations are no group",
    "operations_without_centring": "its formula and Z = 4 say",
    "reference_capitals": "CaO",
    "reference_origin": "Si8",
    "reference_p21n": "Zr4O4",
    "reference_rhombohedral": "Bi2",
    "symop_dotted_name": "Mn2O2",
}


@pytest.mark.parametrize("name", CASES)
def test_a_case_that_was_read_wrongly_is_right(name):
    (found,) = read_cif((CASES_FOLDER / f"{name}.cif").read_text(), name)
    if found.geometry is None:
        assert found.problem.startswith(CASES[name])
    else:
        assert found.geometry.structure().formula.replace("1", "").replace(" ", "") == CASES[name]


# --- mutants --------------------------------------------------------------------------------------


def mutant(text, rng):
    """A text with one or two small damages, of the kinds that people and programs make."""
    for _ in range(rng.integers(1, 3)):
        lines = text.splitlines()
        i = int(rng.integers(len(lines)))
        words = lines[i].split(" ")
        j = int(rng.integers(len(words)))
        kind = rng.integers(8)
        if kind == 0:
            lines.insert(i, lines[int(rng.integers(len(lines)))])
        elif kind == 1:
            del lines[i]
        elif kind == 2:
            words[j] = f"'{words[j]}'"
        elif kind == 3:
            words[j] = str(
                rng.choice(["?", ".", "0", "1", "-1", "1e3", "nan", "1/3", "0,5", "x", ""])
            )
        elif kind == 4:
            words[j] = words[j].swapcase()
        elif kind == 5 and words[j]:
            k = int(rng.integers(len(words[j])))
            words[j] = (
                words[j][:k] + str(rng.choice(list("0159.-+/'_;# xyzCOh\0é"))) + words[j][k + 1 :]
            )
        elif kind == 6:
            words.append(words[j])
        else:
            words[j] = words[j][::-1]
        if kind > 1:
            lines[i] = " ".join(words)
        text = "\n".join(lines) + "\n"
    return text


def read_by_gemmi(text):
    (block,) = (b for b in gemmi.cif.read_string(text) if b.find_values("_atom_site_fract_x"))
    small = gemmi.make_small_structure_from_block(block)
    sites = small.get_all_unit_cell_sites()
    lattice = np.array(small.cell.orth.mat.tolist()).T
    numbers = [site.element.atomic_number for site in sites]
    return Structure(lattice, numbers, [site.fract.tolist() for site in sites])


@pytest.mark.slow
def test_a_mutant_is_refused_or_read_as_gemmi_and_pymatgen_read_it():
    named = f"data_x{CELL}{NAME}'F m -3 m'\n{SITES}Na1 Na 0 0 0 1\nCl1 Cl .5 .5 .5 1\n"
    texts = (
        ROCKSALT,
        named + formula("Na Cl", 4),
        f"data_ZnO\n{HEXAGONAL}{P63MC}{SITES}Zn Zn2+ .3333 .6667 0 1\nO O2- .3333 .6667 .375 1\n",
        f"data_x\n{MONOCLINIC}{NAME}'P 1 21/c 1'\n{SITES}Zr1 Zr .2 .3 .4 1\nO1 O .7 .1 .05 1\n",
        MINERALS[0].read_text(),
    )
    rng = np.random.default_rng(17)
    accepted = compared = 0
    for n in range(2000):
        text = mutant(texts[n % len(texts)], rng)
        found = read_cif(text, "x.cif")
        assert all((each.geometry is None) == bool(each.problem) for each in found)
        assert not any("\n" in each.problem for each in found)
        if len(found) != 1 or found[0].geometry is None:
            continue
        accepted += 1
        ours = found[0].geometry.structure()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                theirs = read_by_gemmi(text)
                other = Structure.from_str(text, fmt="cif")
        except Exception:  # noqa: BLE001 (whatever these two raise)
            continue
        if not (other.is_ordered and theirs.is_ordered) or not same_crystal(theirs, other):
            continue
        compared += 1
        assert same_crystal(ours, theirs), text
    assert accepted > 400
    assert compared > 250


def same_crystal(one, other):
    """Equal cells, and each site of one has its own of the same element in the other."""
    if one.composition != other.composition:
        return False
    if not np.allclose(one.lattice.parameters, other.lattice.parameters, atol=1e-3):
        return False
    far = one.lattice.get_all_distances(one.frac_coords, other.frac_coords)
    far[np.array(one.atomic_numbers)[:, None] != np.array(other.atomic_numbers)] = np.inf
    return bool(far.min(axis=1).max() < 0.02 and len(set(far.argmin(axis=1))) == len(one))


# --- what other programs and people write -----------------------------------------------------


def sites_of(parameters, symmetry, rows="C1 C .11 .32 .37 1\n", sites=SITES):
    return only(f"data_x\n{parameters}{symmetry}{sites}{rows}").structure().formula.replace(" ", "")


@pytest.mark.parametrize("symprec", [None, 0.01])
def test_what_pymatgen_writes_is_read(symprec):
    crystal = Structure.from_spacegroup(
        "Fm-3m", np.eye(3) * 5.64, ["Na+", "Cl-"], [[0, 0, 0], [0.5, 0.5, 0.5]]
    )
    text = str(CifWriter(crystal, symprec=symprec))  # the formula of the cell, and Z = 4
    assert "'Na4 Cl4'" in text
    check_same_crystal(only(text), crystal)
    assert only(ROCKSALT.replace("Na1 Na", "Na1 Na+,spin=1")).numbers.tolist() == [11, 17]
    rocksalt = f"{NAME}'F m -3 m'\n{formula('Na2 Cl2', 4)}"
    with pytest.raises(StructureError, match="formula and Z = 4 say Na8Cl8"):
        sites_of(CELL, rocksalt, "Na1 Na 0 0 0 1\nCl1 Cl .5 .5 .5 1\n")


@pytest.mark.parametrize(
    ("parameters", "symbol", "n_sites"),
    [
        (MONOCLINIC, "P2_1/c", 4),
        (MONOCLINIC, "P 2~1~/c", 4),
        (MONOCLINIC, "P2(1)/c", 4),
        (MONOCLINIC, "P 21 / c", 4),
        (MONOCLINIC, "P 21/c (No. 14)", 4),
        (MONOCLINIC, "P 2<sub>1</sub>/c", 4),
        (ORTHORHOMBIC, "P 2~1~/n 2~1~/m 2~1~/a", 8),
        (ORTHORHOMBIC, "P 2_1 2_1 2_1", 4),
        (ORTHORHOMBIC, "P n n n Z", 8),
        (CELL, "F m 3bar m", 192),
        (CELL, "F 4/m \\bar{3} 2/m", 192),
        (HEXAGONAL, "P6(3)/mmc", 24),
        (HEXAGONAL, "P 6_3/m m c", 24),
    ],
)
def test_a_symbol_is_known_in_other_spellings(parameters, symbol, n_sites):
    assert sites_of(parameters, f"{NAME}'{symbol}'\n") == f"C{n_sites}"


def test_both_origins_are_known_as_the_icsd_writes_them():
    for symbol, n_sites in (("F d -3 m S", 16), ("F d -3 m Z", 8), ("Fd-3mZ", 8)):
        assert sites_of(CELL, f"{NAME}'{symbol}'\n", "C C .125 .125 .125 1\n") == f"C{n_sites}"


def test_operations_beside_a_name_that_is_unknown_are_obeyed_and_it_is_said():
    operations = f"{LIST}x,y,z\n-x,y+1/2,-z+1/2\n-x,-y,-z\nx,-y+1/2,z+1/2\n"
    for name, warning in (
        ("unclear", "space group 'unclear' is unknown, so it was not compared"),
        ("P 1 21/n 1", "its operations are another setting or origin of 'P 1 21/n 1'"),
    ):
        (found,) = read_cif(f"data_x\n{MONOCLINIC}{operations}{NAME}'{name}'\n{CARBON}", "x")
        assert len(found.geometry.numbers) == 4
        assert found.warnings == (warning,)
    for symmetry in (f"{operations}{NAME}'C unclear'\n", f"{LIST}x,y,z\n{NAME}unclear\n"):
        with pytest.raises(StructureError, match="are another group"):
            sites_of(MONOCLINIC, symmetry)


@pytest.mark.parametrize(
    ("symmetry", "why"),
    [
        ("_symmetry_space_group_name_HM 'F m -3 m'\n", "under _symmetry_space_group_name_hm is"),
        ("_space_group_name 'F m -3 m'\n", "under _space_group_name is not understood"),
        ("_spacegroup_number 225\n", "under _spacegroup_number is not understood"),
        ("_symmetry_Int_Table_number 225\n", "under _symmetry_int_table_number is not"),
        ("_space_group.centring_type F\n", "under _space_group_centring_type is not"),
        ("_space_group_Laue_class m-3m\n", "under _space_group_laue_class is not understood"),
        (f"{NAME}'P n m a'\n_space_group_name_Hall '-P 2c 2ab'\n", "it names two settings"),
        (f"_space_group_IT_number {'9' * 400}\n", "space group number '999"),
        (f"_space_group_IT_number {'9' * 5000}\n", "space group number '999"),
        *((f"{LIST}x,y,z+{x}{'9' * 5000}\n", "misspelt: 'x,y,z+") for x in ("", ".", "1/")),
        (LIST + "".join(f"x+{i}/1440,y,z\n" for i in range(1440)), "it lists 1440"),
    ],
)  # fmt: skip
def test_symmetry_that_would_be_passed_over_is_refused(symmetry, why):
    with pytest.raises(StructureError) as caught:
        sites_of(ORTHORHOMBIC, symmetry)
    assert why in str(caught.value)
    assert len(str(caught.value)) < 320


def test_a_group_by_its_number_alone_is_read_in_the_standard_setting_and_said_to():
    (found,) = read_cif(f"data_x\n{ORTHORHOMBIC}{NUMBER} 62\n{CARBON}", "x")
    assert len(found.geometry.numbers) == 8
    assert "read in the standard setting" in found.warnings[0]
    assert read_cif(f"data_x{CELL}{NUMBER} 225\n{CARBON}", "x")[0].warnings == ()
    assert sites_of(CELL, "_symmetry.entry_id abc\n_symmetry_space_group_comment x\n") == "C1"


def test_multiplicities_that_no_symmetry_gives_are_refused_or_said():
    table = SITES.replace("_atom_site_occupancy", "_atom_site_symmetry_multiplicity")
    rows = "Na1 Na 0 0 0 4\nCl1 Cl .5 .5 .5 4\n"
    with pytest.raises(StructureError, match="site Na1 has a multiplicity of 4, and no symmetry"):
        sites_of(CELL, "", rows, table)
    assert sites_of(CELL, f"{NAME}'F m -3 m'\n", rows, table) == "Na4Cl4"
    assert sites_of(CELL, "", rows.replace("4\n", "1\n"), table) == "Na1Cl1"
    pair = "C1 C .1 .2 .3 2\nC2 C .9 .8 .7 2\n"
    assert sites_of(CELL, "", pair, table) == "C2"
    rows = "C1 C .1 .2 .3 8\nN1 N .2 .3 .4 8\n"
    (found,) = read_cif(f"data_x{CELL}{LIST}x,y,z\n-x,-y,z\n{table}{rows}", "x")
    assert found.warnings == ("its multiplicities are 4 times what its symmetry gives",)


def test_alternatives_without_occupancies_are_no_ordered_crystal():
    table = SITES.replace("_atom_site_occupancy", "_atom_site_disorder_group")
    with pytest.raises(StructureError, match="disorder groups are alternatives"):
        sites_of(CELL, "", "C1 C 0 0 0 .\nO1 O .2 .2 .2 1\nO2 O .2 .2 .6 2\n", table)
    assert sites_of(CELL, "", "C1 C 0 0 0 0\nO1 O .2 .2 .2 1\nO2 O .2 .2 .6 1\n", table) == "C1O2"


def test_formulas_in_capitals_and_isotopes_are_read():
    assert only(ROCKSALT + formula("NA1 CL1")).numbers.tolist() == [11, 17]
    with pytest.raises(StructureError, match="atoms are missing or extra"):
        only(ROCKSALT + formula("NA1 CL1 H2"))
    assert only(ROCKSALT.replace("Na1 Na", "Li1 7Li")).numbers.tolist() == [3, 17]


def test_letters_of_word_processors_and_of_old_systems_are_plain_ones():
    expected = [[-0.1, 0, 0], [0.5, 0.5, 0.5]]
    text = ROCKSALT.replace("Na1 Na 0", "Na1 Na \u22120.1").replace("_a 5", "_a\xa05") + "\x1a"
    assert only(text).frac_coords.tolist() == expected
    with pytest.raises(StructureError, match=r"of CIF 2\.0 only what CIF 1\.1 has is read"):
        only(f"#\\#CIF_2.0\n{ROCKSALT}_x [1 2]\n")
    with pytest.raises(StructureError, match=r"^site Na 1 has occupancy \.5: only ordered"):
        only(ROCKSALT.replace("Na1 Na 0 0 0 1", "\n;Na\n1\n;\nNa 0 0 0 .5"))


@pytest.mark.parametrize(
    "text",
    [
        "data_\n" * 100_000,
        "data_x\n_x 1 2\n" + ";\n;\n" * 60_000 + "data_a\n" * 40_000,
        f"data_x\n{cell(300, 300, 300, 90, 90, 90)}{SITES}"
        + "".join(f"C C .{i % 20:02d} .{i // 20 % 20:02d} .{i // 400} 1\n" for i in range(8000)),
    ],
    ids=["headers", "texts", "sites"],
)  # fmt: skip
@pytest.mark.slow
def test_a_hostile_file_takes_no_time(text):
    started = time.process_time()
    crystals_of_cif(text.encode(), "x.cif")
    assert time.process_time() - started < 10


def cell_of_setting(number, choice):
    """A cell that a setting of a group fits, and no group of another crystal system does."""
    if number < 3:
        return cell(5, 6, 7, 85, 95, 101)
    if number < 16:
        angles = {"a": (101, 90, 90), "b": (90, 101, 90), "c": (90, 90, 101)}
        return cell(5, 6, 7, *angles[choice.lstrip("-")[0]])
    if number < 75:
        return ORTHORHOMBIC
    if number < 143:
        return cell(9.2, 9.2, 8.1, 90, 90, 90)
    if number < 195:
        return RHOMBOHEDRAL if choice == "R" else cell(9.2, 9.2, 8.1, 90, 90, 120)
    return cell(20, 20, 20, 90, 90, 90)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(1, 531, 53))
def test_every_setting_is_one_crystal_by_its_operations_its_hall_symbol_and_its_full_name(first):
    for hall_number in range(first, min(first + 53, 531)):
        setting = spglib.get_spacegroup_type(hall_number)
        operations = spglib.get_symmetry_from_database(hall_number)
        pairs = zip(operations["rotations"], operations["translations"] % 1, strict=True)
        head = "data_x\n" + cell_of_setting(setting.number, setting.choice)
        site = f"{SITES}C1 C .386 .277 .157 1\n"
        listed = LIST + "".join(f"{triplet(*pair)}\n" for pair in pairs)
        crystal = only(f"{head}{listed}{site}").structure()
        assert len(crystal) == len(operations["rotations"])
        hall = f"_space_group_name_Hall\n;{setting.hall_symbol}\n;\n"
        assert same_crystal(only(f"{head}{hall}{site}").structure(), crystal)
        if hall_number in (317, 319, 321):  # Cmmb and the like have the full name of Cmma
            continue
        full = f"{NAME}'{setting.international_full}'\n"
        (both,) = read_cif(f"{head}{listed}{full}{site}", "x")
        assert both.geometry is not None
        assert both.warnings == ()
        (named,) = read_cif(f"{head}{full}{site}", "x")
        if named.geometry is None:
            assert "has several origins" in named.problem
        else:
            assert same_crystal(named.geometry.structure(), crystal)
