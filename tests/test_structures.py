"""Structures in every format but CIF: the right crystal, or one line that says what is wrong."""

import gzip
import io
import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.io import read as ase_read
from ase.io import write as ase_write
from pymatgen.io.vasp import Poscar

from benchmarks.core import Geometry
from benchmarks.data.structures import StructureError
from benchmarks.data.structures.ase_formats import BY_ASE
from benchmarks.data.structures.formats import READERS, format_of, read_images
from benchmarks.data.structures.read import read_structures

CASES = Path(__file__).parent / "cases"
SALT = Atoms("NaCl", cell=[5, 5.1, 5.2], scaled_positions=[[0, 0, 0], [0.5, 0.4, 0.3]], pbc=True)
POSCAR = "salt\n5.64\n1 0 0\n0 1 0\n0 0 1\nNa Cl\n1 2\nDirect\n0 0 0\n.5 .5 .5\n.1 .2 .3\n"
FRAME = '2\nLattice="5 0 0 0 5 0 0 0 5" pbc="T T T"\nNa 0 0 0\nCl 2.5 2.5 2.5\n'
RES = """TITL salt
CELL 0.71073 5.64 5.64 5.64 90 90 90
LATT {latt}
{symm}SFAC Na Cl
{unit}FVAR 0.5 0.6
Na1 1 0 0 0 {na} 0.02
Cl1 2 10.5 10.5 10.5 {cl} 0.02
HKLF 4
END
Q1 1 0.1 0.1 0.1 11.0 0.05 0.5
"""
CUBIC = "SYMM -X,-Y,Z\nSYMM -X,Y,-Z\nSYMM X,-Y,-Z\n"
PDB = (
    "CRYST1    5.640    5.640    5.640  90.00  90.00  90.00 {group:11}4\n"
    "HETATM    1 {name:4} NA  A   1       0.000   0.000   0.000{occ:>6}  0.00          {na:>2}\n"
    "HETATM    2  CL  CL  A   2       2.820   2.820   2.820  1.00  0.00          CL\nEND\n"
)
LAMMPS = (
    "salt\n\n2 atoms\n2 atom types\n0 5.64 xlo xhi\n0 5.64 ylo yhi\n0 5.64 zlo zhi\n\n{}"
    "Atoms # atomic\n\n1 1 0 0 0\n2 2 2.82 2.82 2.82\n"
)
CSSR = (
    " REFERENCE STRUCTURE = 00000   A,B,C =   5.000   5.100   5.200\n"
    "   ALPHA,BETA,GAMMA =  90.000  90.000  90.000    SPGR = {}\n   2   0\n  0 salt\n"
    "   1 Na1   0.00000  0.00000  0.00000    0   0\n   2 Cl2   0.50000  0.40000  0.30000    0   0\n"
)


def read_all(path):
    """What each image of a file is: its atomic numbers, or why there is none."""
    try:
        images = read_images(path, format_of(path))
    except StructureError as error:
        return [str(error)]
    return [str(g) if isinstance(g, StructureError) else g.numbers.tolist() for g in images]


@pytest.fixture
def read(tmp_path):
    """Write a text under a name and read it."""

    def read(name, text):
        path = tmp_path / name
        path.write_text(text)
        return read_all(path)

    return read


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
        ("shelx_symmetry.res", [[11] * 4 + [17] * 4]),
        ("no_elements.lammps-data", ["the file names no elements: add the section Masses"]),
        ("partitioned", ["a folder, not a file"]),
    ],
)
def test_cases(name, expected):
    assert read_all(CASES / name) == expected


@pytest.mark.parametrize("form", sorted({*BY_ASE, *READERS} - {"cssr", "dftb", "xyz"}))
def test_a_crystal_survives_each_format_that_ase_writes(form, tmp_path):
    path = tmp_path / f"x.{form}"
    settings = {"espresso-in": {"pseudopotentials": {"Na": "a", "Cl": "b"}}}
    settings |= {"lammps-data": {"masses": True}, "mustem": {"keV": 100, "debye_waller_factors": 1}}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ase_write(path, SALT, format=form, **settings.get(form, {}))
    except (ValueError, TypeError):
        pytest.skip("ASE does not write it")
    (found,) = read_images(path, form)
    assert np.allclose(np.linalg.norm(found.lattice, axis=1), [5, 5.1, 5.2], atol=1e-3)
    assert found.numbers.tolist() == [11, 17]
    assert np.allclose(found.frac_coords[1] - found.frac_coords[0], [0.5, 0.4, 0.3], atol=1e-3)


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("POSCAR", "vasp"),
        ("POSCAR.orig", "vasp"),
        ("CONTCAR.relax1.gz", "vasp"),
        ("my_contcar", "vasp"),
        ("vasprun.xml.relax1.gz", "vasp-xml"),
        ("vasprun.xml.1", "vasp-xml"),
        ("run.xyz.1", "extxyz"),
        ("start.vasp.bak", "vasp"),
        ("POSCAR.cif", "cif"),
        ("a.CIF.bz2", "cif"),
        ("run.extxyz", "extxyz"),
        ("a.ins", "res"),
        ("a.ent", "proteindatabank"),
        ("a.cssr", "cssr"),
        ("salt.lmp", "lammps-data"),
    ],
)
def test_a_name_tells_the_format(name, form):
    assert format_of(Path(name)) == form


@pytest.mark.parametrize(
    ("name", "text", "form"),
    [
        ("data.salt", LAMMPS, "lammps-data"),
        ("salt.data", LAMMPS, "lammps-data"),
        ("start", POSCAR, "vasp"),
        ("start.txt", FRAME, "extxyz"),
        ("entry", "# comment\n\ndata_salt\n_cell_length_a 5\n", "cif"),
        ("model", RES, "res"),
        ("in.in", "&control\n/\n&system\n nat=1\n/\n", "espresso-in"),
    ],
)
def test_the_content_tells_the_format(name, text, form, tmp_path):
    (tmp_path / name).write_text(text)
    assert format_of(tmp_path / name) == form


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("x.txt", "hello", "no format that ASE knows: name the file by its format, .cif, .vasp"),
        ("empty", "", "the file is empty"),
        ("x.py", "raise SystemExit", "Python file is not read here"),
        ("x.gro", "salt\n1\n", "the file names no elements"),
        ("x.mol", "salt\n", "no crystal"),
        ("x.vasp.gz", "no gzip", "its compression is damaged or cut short"),
        ("x.json", '{"a": 1}', "cannot be read as ASE JSON database file: Does not resemble"),
    ],
)
def test_other_files_are_refused_in_one_line(name, text, problem, read):
    (line,) = read(name, text)
    assert line.startswith(problem)
    assert "\n" not in line


def test_no_pickle_and_no_address_is_opened(tmp_path):
    class Marker:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    for name in ("x.traj", "x.pckl", "x.db", "x.gpw", "x.vasp", "x.json"):
        (tmp_path / name).write_bytes(pickle.dumps(Marker()))
        assert len(read_all(tmp_path / name)) == 1
    assert not (tmp_path / "ran").exists()
    for form in ("mysql", "postgresql", "bundletrajectory", "octopus-in"):
        with pytest.raises(StructureError, match="is not read here"):
            read_images(tmp_path / "x.db", form)


def test_compressed_poscar_with_volume_and_cartesian_coordinates(tmp_path):
    text = POSCAR.replace("5.64", "-179.406144").replace("Direct", "Selective\nCart")
    text = text.replace("0 0 1\n", "0 0 1\r\n").replace("Na Cl", "Na_pv/6a2f Cl ! two")
    (tmp_path / "CONTCAR.relax1.gz").write_bytes(gzip.compress(text.encode()))
    (found,) = read_images(tmp_path / "CONTCAR.relax1.gz", "vasp")
    assert np.allclose(found.lattice, 5.64 * np.eye(3))
    assert np.allclose(found.frac_coords, [[0, 0, 0], [0.5, 0.5, 0.5], [0.1, 0.2, 0.3]])
    assert found.numbers.tolist() == [11, 17, 17]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("5.64", "1 1 5.64", [11, 17, 17]),
        ("1 0 0\n0 1 0", "0 1 0\n1 0 0", [11, 17, 17]),
        ("Na Cl", "D T", [1, 1, 1]),
        (".1 .2 .3\n", ".1 .2 .3\n\n0 0 0\n0 0 0\n0 0 0\n", [11, 17, 17]),
        ("salt\n5.64\n", "Na Cl\n5.64\n", [11, 17, 17]),
        ("Na Cl\n1 2", "Na Cl\n2 2", "line 7 counts 4 atoms, but 3 coordinate lines follow"),
        ("Na Cl\n1 2", "Na Cl\n1 1", "line 7 counts 2 atoms, but line 11 is one more"),
        ("Na Cl\n1 2", "Na\n1 2", "line 6 names 1 species, line 7 has 2 numbers"),
        (".5 .5 .5", ".5 .5 .5 Cl", [11, 17, 17]),
        ("Na Cl", "Na Qq", "line 6: 'Qq' is no element"),
        ("Na Cl", "Na H.5", "line 6: 'H.5' is no element"),
        ("1 2", "1 2.0", "line 7 has to list the numbers of atoms: '2.0' is none"),
        ("Direct\n", "", "line 8 has to be Direct or Cartesian"),
        (".5 .5 .5", ".5 nan .5", "line 10, a coordinate: 'nan' is no number"),
        ("0 1 0", "1 0 0", "its cell vectors span no volume"),
        ("5.64", "0", "line 2: a scale of 0"),
        ("5.64", "1 2", "line 2: the scale is one number or three"),
    ],
)
def test_poscar(old, new, expected, read):
    (found,) = read("POSCAR", POSCAR.replace(old, new, 1))
    assert found == expected or found.startswith(expected)


@pytest.mark.parametrize(
    ("comment", "ends", "expected"),
    [
        ("Na Cl", "", [11, 17, 17]),
        ("Na1Cl2", "", [11, 17, 17]),
        ("salt", "Na Cl Cl", [11, 17, 17]),
        ("Na Cl", "Na F F", "line 1 and the ends of the coordinate lines name other"),
        ("In a box of Cl", "", "names no elements"),
        ("I", "", "names no elements"),
    ],
)
def test_poscar_of_vasp_4_names_its_elements_or_none(comment, ends, expected, read):
    lines = POSCAR.replace("Na Cl\n", "").replace("salt", comment).splitlines()
    for i, end in enumerate(ends.split()):
        lines[7 + i] += f" {end}"
    (found,) = read("POSCAR", "\n".join(lines))
    assert found == expected or found.startswith(expected)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('"5 0 0 0 5 0 0 0 5"', "{5 0 0 0 5 0 0 0 5}", [[11, 17]]),
        ('"5 0 0 0 5 0 0 0 5"', "'5,0,0,0,5,0,0,0,5'", [[11, 17]]),
        ("Na", "D", [[1, 17]]),
        ("Na", "NA", [[11, 17]]),
        ('"T T T"', '"T T F"', ["no crystal: it needs a cell, periodic in three directions"]),
        ("Lattice=", "lattice=", ["no crystal: it needs a cell, periodic in three directions"]),
        ("5 0 0 0 5", "5 0 0 5", ["line 2: its Lattice is not nine numbers"]),
        ("Lattice=", "==", ["line 2 is not made of KEY=VALUE pairs"]),
        ("5 0 0 0 5", "nan 0 0 0 5", ["line 2: its Lattice is not nine numbers"]),
        ("Na 0 0 0", "Na 0 0 nan", ["line 3, a position: 'nan' is no number"]),
        ("Na 0 0 0", "Na 0 0", ["line 3 has 3 columns, 4 are declared in line 2"]),
        ("Na 0 0 0", "X 0 0 0", ["line 3: 'X' is no element"]),
        ("2.5 2.5 2.5\n", "2.5 2.5", ["line 4 has 3 columns, 4 are declared in line 2"]),
        (
            'pbc="T T T"',
            "Properties=species:S:1:pos:R:3:occupancy:R:1",
            ["line 3 has 4 columns, 5 are declared in line 2"],
        ),
        (
            "pbc",
            r'occupancy="_JSON {\"0\": {\"Na\": 0.5}}" pbc',
            ["an occupancy of 0.5: only ordered crystals can be read"],
        ),
        ("2\n", "3\n", ["line 1 counts 3 atoms, 2 lines follow: the file is cut short"]),
        ("pbc", "Properties=pos:R:3 pbc", ["line 3 has 4 columns, 3 are declared in line 2"]),
        ("pbc", "Lattice=1 pbc", ["line 2: its Lattice is not nine numbers"]),
    ],
)
def test_extended_xyz(old, new, expected, read):
    assert read("a.extxyz", FRAME.replace(old, new, 1)) == expected


def test_cells_are_read_as_they_are_left_handed_too(tmp_path):
    left, _ = read_images(CASES / "left_handed.extxyz", "extxyz")
    assert left.lattice.tolist() == [[2.75, 2.75, 0], [2.75, 0, 2.75], [0, 2.75, 2.75]]
    assert np.allclose(left.frac_coords, [[0, 0, 0], [0.5, 0.5, 0.5]])
    (tmp_path / "POSCAR").write_text(POSCAR.replace("1 0 0\n0 1 0", "0 1 0\n1 0 0"))
    (found,) = read_images(tmp_path / "POSCAR", "vasp")
    assert found.lattice.tolist() == [[0, 5.64, 0], [5.64, 0, 0], [0, 0, 5.64]]
    (tmp_path / "POSCAR").write_text(POSCAR.replace("0 0 1", "0 0 -1").replace("5.64", "-8"))
    (found,) = read_images(tmp_path / "POSCAR", "vasp")
    assert np.allclose(found.lattice, np.diag([2, 2, -2]))


def test_extended_xyz_takes_the_cell_vectors_of_adf(read):
    text = "1\ncomment\nNa 0 0 0\nVEC1 3 0 0\nVEC2 0 3 0\nVEC3 0 0 3\n"
    assert read("a.xyz", text) == [[11]]
    assert read("a.xyz", text.replace("VEC3 0 0 3\n", "")) == [
        "no crystal: it needs a cell, periodic in three directions"
    ]


def test_extended_xyz_never_loses_frames(read):
    garbage = "line 10: a number of atoms is needed, not 'Cl 2.5 2.5 2.5'; what follows is not read"
    assert read("a.xyz", f"\n{FRAME}\n\n{FRAME} \n") == [[11, 17], [11, 17]]
    assert read("a.xyz", FRAME + FRAME.replace("Na", "Qq") + FRAME) == [
        [11, 17],
        "line 7: 'Qq' is no element",
        [11, 17],
    ]
    assert read("a.xyz", FRAME + FRAME + "Cl 2.5 2.5 2.5\n" + FRAME) == [
        [11, 17],
        [11, 17],
        garbage.replace("10", "9"),
    ]


@pytest.mark.parametrize(
    ("latt", "symm", "na", "cl", "expected"),
    [
        (4, CUBIC, "10.125", "10.125", [11] * 4 + [17] * 4),
        (-4, "", "11.0", "11.0", [11] * 4 + [17] * 4),
        (2, "", "11.0", "11.0", "sites Na1 and Cl1 share a position"),
        (5, "", "10.5", "10.5", [11] * 2 + [17] * 2),
        (-1, "", "1.0", "1.0", [11, 17]),
        (1, "", "10.5", "10.5", [11, 17]),
        (-7, "SYMM 1/2+X, -Y, 0.5+Z\n", "11.0", "11.0", [11] * 4 + [17] * 4),
        (-1, "", "10.5", "11.0", "Na1 has an occupancy of 0.5"),
        (-1, "", "21.0", "-21.0", "Na1 has an occupancy of 0.6"),
        (-1, "", "31.0", "11.0", "line 6: 31 refers to free variable 3, which FVAR lacks"),
        (-3, "", "11.0", "11.0", [11] * 3 + [17] * 3),
        (8, "", "11.0", "11.0", "line 3: LATT 8 is no lattice type: 1 to 7, or -1 to -7"),
        (1, "SYMM X+Y,Y,Z\n", "11.0", "11.0", "LATT and SYMM are no space group"),
        (1, "SYMM -Y,X-Y,Z\n", "11.0", "11.0", "its symmetry (-y,x-y,z) does not fit its cell"),
    ],
)
def test_shelx_symmetry_is_obeyed(latt, symm, na, cl, expected, read):
    (found,) = read("a.res", RES.format(latt=latt, symm=symm, na=na, cl=cl, unit=""))
    assert found == expected or found.startswith(expected)


def test_shelx_is_refused_where_it_contradicts_itself(read):
    text = RES.format(latt=-4, symm="", na="11.0", cl="11.0", unit="UNIT 4 8\n")
    assert read("a.res", text) == [
        "UNIT says Na4 Cl8 in the cell, its atoms and symmetry give Na4 Cl4"
    ]
    text = RES.format(latt=-1, symm="", na="11.0", cl="11.0", unit="")
    swapped = text.replace("Na1 1", "Na1 2")
    assert read("a.res", swapped) == [
        "line 6: Na1 is Cl by its number in SFAC: correct one of them"
    ]
    without = text.replace("LATT -1\n", "")
    assert read("a.res", without) == ["no line LATT: add LATT 1 (centrosymmetric) or LATT -1"]
    airss = without.replace("11.0", "1.0")
    assert read("a.res", airss + airss) == [[11, 17], [11, 17]]
    assert read("a.res", text.replace("SFAC Na", "SFAC D").replace("Na1", "D1")) == [[1, 17]]


@pytest.mark.parametrize(
    ("group", "occ", "name", "na", "expected"),
    [
        ("P 1", "1.00", "NA", "NA", [11, 17]),
        ("", "", "NA", "NA", [11, 17]),
        ("F m -3 m", "1.00", "NA", "NA", [11] * 4 + [17] * 4),
        ("P 1", "1.00", "Na1", "", [11, 17]),
        ("P 1", "1.00", "NA", "D", [1, 17]),
        ("P 1", "0.50", "NA", "NA", "line 2: an occupancy of 0.5"),
        ("P 1", "1.00", "NA", "", "line 2: the atom 'NA' needs its element in columns 77-78"),
        ("F d -3 m", "1.00", "NA", "NA", "space group 'F d -3 m' of CRYST1 has several origins"),
        ("P é", "1.00", "NA", "NA", "space group 'P ?' of CRYST1 is unknown"),
        ("Q 1", "1.00", "NA", "NA", "space group 'Q 1' of CRYST1 is unknown"),
        ("P 63 m c", "1.00", "NA", "NA", "its symmetry (x-y,x,z+1/2) does not fit its cell"),
    ],
)
def test_pdb_symmetry_is_obeyed(group, occ, name, na, expected, read):
    (found,) = read("a.pdb", PDB.format(group=group, occ=occ, name=name, na=na))
    assert found == expected or found.startswith(expected)


def test_pdb_without_a_crystal_is_refused(read):
    text = PDB.format(group="P 1", occ="1.00", name="NA", na="NA")
    assert read("a.pdb", text.replace("5.640", "1.000")) == [
        "no crystal: the lengths of 1 stand for none"
    ]
    assert read("a.pdb", text.partition("\n")[2]) == [
        "no crystal: it needs a cell, periodic in three directions (CRYST1)"
    ]
    assert read("a.pdb", text + text.partition("\n")[2]) == [[11, 17], [11, 17]]


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ("Masses\n\n1 22.98977\n2 35.45\n\n", [11, 17]),
        ("Masses\n\n1 22.98977 # Na\n2 35.45 # Cl\n\n", [11, 17]),
        ("Masses\n\n1 59 # Co\n2 2.014\n\n", [27, 1]),
        ("Atom Type Labels\n\n1 Na\n2 Cl\n\n", [11, 17]),
        ("Masses\n\n1 59\n2 35.45\n\n", "the file names no elements: the mass 59 of type 1 is"),
        ("Masses\n\n1 1.0 # Na\n2 35.45\n\n", "type 1 is called Na and has another mass, 1"),
        ("Masses\n\n1 22.98977\n\n", "the file names no elements: type 2 has no mass"),
    ],
)
def test_lammps_data_names_its_elements_or_is_refused(section, expected, read):
    (found,) = read("a.lammps-data", LAMMPS.format(section))
    assert found == expected or found.startswith(expected)


@pytest.mark.parametrize(
    ("group", "expected"),
    [
        ("  1 P 1         OPT = 1", [11, 17]),
        ("225 F m -3 m    OPT = 1", "space group 'F m -3 m' is not read from this format"),
    ],
)
def test_cssr(group, expected, read):
    (found,) = read("a.cssr", CSSR.format(group))
    assert found == expected or found.startswith(expected)


@pytest.mark.parametrize(
    ("form", "text", "problem"),
    [
        (
            "dmol-car",
            "!BIOSYM\nPBC=ON\n\n!DATE\nPBC 5 5 5 90 90 90 (FM-3M)\n",
            "it states 'PBC 5 5",
        ),
        ("espresso-in", "&system\n space_group=225\n/\n", "it states 'space_group'"),
        ("abinit-in", "acell 3*10\nspgroup 225\n", "it states 'spgroup'"),
        ("castep-cell", "%BLOCK positions_frac\nNa 0 0 0 MIXTURE:(1 0.5)\n", "it states 'MIXTURE'"),
        ("struct", "salt\nF   LATTICE,NONEQUIV.ATOMS:  2\n", "it states 'F LATTICE'"),
        ("cfg", "Number of particles = 1\nA = 2.0 Angstrom\n", "it states 'A ='"),
        ("xsd", '<XSD><SpaceGroup ITNumber="225"/></XSD>', "it states 'ITNumber=\"225'"),
        ("lammps-dump-text", "ITEM: ATOMS id type x y z\n", "the file names no elements"),
        ("xsf", "CRYSTAL\nPRIMCOORD\n1 1\n11 0 0 0\n17 1 1 1\n", "it counts 1 atoms, 2 lines"),
        (
            "crystal",
            "3 1 1\n5 0 0\n0 5 0\n0 0 5\n48\n",
            "cannot be read as Crystal fort.34 format: High",
        ),
        (
            "espresso-in",
            "&system\n ibrav=2, nat=1\n/\n",
            "cannot be read as Quantum espresso in file: ASE",
        ),
        ("elk", "salt", "cannot be read as ELK atoms definition from GEOMETRY.OUT: damaged"),
        ("dlp4", "salt\n", "the file names no elements (DL_POLY_4 CONFIG file)"),
    ],
)
def test_what_ase_would_leave_out_is_refused(form, text, problem, tmp_path):
    (tmp_path / "x").write_text(text)
    with pytest.raises(StructureError) as error:
        read_images(tmp_path / "x", form)
    assert str(error.value).startswith(problem)


def test_partial_occupancies_are_refused_in_every_format(tmp_path):
    shared = SALT.copy()
    shared.info["occupancy"] = {"0": {"Na": 0.5, "K": 0.5}, "1": {"Cl": 1.0}}
    for name in ("x.traj", "x.extxyz"):
        shared.write(tmp_path / name)
        assert read_all(tmp_path / name) == [
            "an occupancy of 0.5: only ordered crystals can be read"
        ]
    shared.set_array("occupancy", np.array([1.0, 0.25]))
    shared.info.clear()
    shared.write(tmp_path / "x.extxyz")
    assert read_all(tmp_path / "x.extxyz") == [
        "an occupancy of 0.25: only ordered crystals can be read"
    ]


def test_molecules_and_slabs_are_no_crystals(tmp_path, capfd):
    slab = SALT.copy()
    slab.pbc = (True, True, False)
    for atoms in (slab, Atoms("H2", [[0, 0, 0], [0, 0, 0.7]])):
        atoms.write(tmp_path / "x.traj")
        assert read_all(tmp_path / "x.traj") == [
            "no crystal: it needs a cell, periodic in three directions"
        ]
    assert capfd.readouterr() == ("", "")


POSCARS = (
    POSCAR,
    """Fe_pv O
 1.05
 4.1 0.0 0.1
 0.0 3.9 0.0
 0.2 0.0 4.0
 Fe_pv/6a2f546d O/1b
 2 2
Selective dynamics
Cartesian
 0.0 0.0 0.0 T T F
 2.0 1.9 0.1 T T T
 2.0 0.0 0.1 F F F
 0.1 2.0 1.9 T T T

 0.0 0.0 0.0
 0.1 0 0
 0 0 0
 0 0 0
""",
    """Ca Ti O
   -59.5
     3.8900000000000000    0.0000000000000000    0.01
     0.0000000000000000    3.8800000000000000    0.0
     0.0 0.0 3.91
   Ca   Ti   O
     1     1     3
Direct
  0.00 0.00 0.00 Ca
  0.50 0.50 0.51 Ti
  0.50 0.50 0.0 O
  0.50 0.01 0.50 O
 -0.01 0.50 0.50 O
""",
)
FRAMES = (
    """2
Lattice="5.1 0.0 0.2 0.0 5.3 0.0 0.0 0.1 5.2" Properties=species:S:1:pos:R:3:forces:R:3 pbc="T T T"
Na 0.0 0.0 0.1 0.01 0 0
Cl 2.5 2.6 2.6 -0.01 0 0
1
energy=-6.5 Lattice="4.1 0.0 0.2 0.0 4.3 0.0 0.0 0.1 4.2" Properties=species:S:1:pos:R:3
He 1.0 0.5 0.25
""",
    """3
Properties=species:S:1:pos:R:3:Z:I:1:move_mask:L:1 Lattice='3.1 0 0 0 4.2 0 0 0 5.3'
Ca 0.0 0.0 0.0 20 T
Ti 1.5 2.0 2.5 22 F
O 1.5 2.0 0.4 8 T
""",
)
WORDS = ["", "0", "-1", "1e3", "nan", "1.5D0", "1_0", "Na", "D", "X", "T", "F", "NaCl", "3*", "é"]
LETTERS = '09.-+eDTF "=:\n#!'


def mutants(texts, seed, count):
    """Texts in which one or two characters, words or lines are changed."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        text = texts[rng.integers(len(texts))]
        for _ in range(rng.integers(1, 3)):
            lines = text.split("\n")
            i, j = rng.integers(len(lines), size=2)
            words = lines[i].split(" ")
            word, place = rng.integers(len(words)), rng.integers(len(text) + 1)
            letter, other = LETTERS[rng.integers(len(LETTERS))], WORDS[rng.integers(len(WORDS))]
            others = [" ".join([*words[:word], new, *words[word + 1 :]]) for new in (other, "")]
            choices = {
                "a word": ["\n".join([*lines[:i], new, *lines[i + 1 :]]) for new in others],
                "a letter": [text[:place] + letter + text[place + 1 :]] * 2,
                "a letter less": [text[:place] + text[place + 1 :]],
                "a line less": ["\n".join(lines[:i] + lines[i + 1 :])],
                "a line more": ["\n".join([*lines[:j], new, *lines[j:]]) for new in (lines[i], "")],
                "the end less": [text[:place]] if rng.random() < 0.2 else [text],
            }
            kinds = [mutant for group in choices.values() for mutant in group]
            text = kinds[rng.integers(len(kinds))]
        yield text


def same(first, second):
    """Whether two crystals are one, site by site, but for lattice translations."""
    if not np.array_equal(first.numbers, second.numbers):
        return False
    apart = first.frac_coords - second.frac_coords
    moved = (apart - np.rint(apart)) @ first.lattice
    return bool(np.allclose(first.lattice, second.lattice) and np.abs(moved).max() < 1e-5)


def by_ase(text, form):
    """The crystals of a text as ASE reads them, None where it fails."""
    try:
        images = ase_read(io.StringIO(text), index=":", format=form)
        return [
            Geometry(a.cell.array, np.linalg.solve(a.cell.array.T, a.positions.T).T, a.numbers)
            for a in images
        ]
    except Exception:  # noqa: BLE001 (whatever it raises)
        return None


@pytest.mark.filterwarnings("ignore")
def test_mutated_poscars_are_read_as_ase_and_pymatgen_do_or_refused():
    compared = 0
    for text in mutants(POSCARS, 17, 2000):
        try:
            (found,) = READERS["vasp"](text)
        except StructureError:
            continue
        try:
            theirs = Geometry.of(Poscar.from_str(text).structure)
        except Exception:  # noqa: BLE001 (whatever it raises)
            continue
        images = by_ase(text, "vasp")
        if images and same(images[0], theirs):
            assert same(found, theirs), text
            compared += 1
    assert compared > 200


@pytest.mark.filterwarnings("ignore")
def test_mutated_extended_xyz_is_read_as_ase_does_or_refused():
    compared = 0
    for text in mutants(FRAMES, 17, 2000):
        try:
            found = READERS["extxyz"](text)
        except StructureError:
            continue
        images = by_ase(text, "extxyz")
        refused = any(isinstance(image, StructureError) for image in found)
        if images and not refused and len(images) == len(found):
            assert all(map(same, found, images)), text
            compared += 1
        elif images and not refused:  # ASE stops at a blank line
            assert "\n\n" in text.rstrip().replace("\n \n", "\n\n"), text
    assert compared > 200


def test_a_name_that_is_too_long_is_one_line():
    (found,) = read_structures("a" * 300)
    assert found.problem == "cannot be read: File name too long"
