"""The command that relaxes a person's files: reading CIFs, writing, refusing, exit statuses."""

import gzip
import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.io import read as ase_read
from ase.io import write as ase_write
from pymatgen.core import Structure

from benchmarks.core import Relaxed, Status
from t2relax import model as t5
from t2relax import relaxer
from t2relax.codec import CodecError
from t2relax.relax import _structure, cif_blocks, from_cif, main
from t2relax.tokens import Tokenizer

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
ROCKSALT = f"data_NaCl{CELL}{SITES}Na1 Na 0 0 0 1\nCl1 Cl .5 .5 .5 1\n"
DISORDERED = f"data_mixed{CELL}{SITES}Na1 Na 0 0 0 0.5\nK1 K 0 0 0 0.5\n"
NO_CELL = f"data_none{SITES}Na1 Na 0 0 0 1\n"
POSCAR = """Ti C interleaved
1.0
4.3 0 0
0 4.3 0
0 0 8.6
Ti C Ti C
1 1 1 1
direct
0 0 0
0.5 0.5 0
0 0 0.5
0.5 0.5 0.5
"""


class Stretch:
    """In place of the T5: 2 % longer edges and a first atom that moves; xenon is nonsense."""

    def __init__(self, checkpoint, mode, device, batch_size=2):
        self.batch_size = batch_size

    def relax(self, structures, /):
        return [self.one(structure) for structure in structures]

    def one(self, structure):
        if "Xe" in structure.symbol_set:
            return Relaxed(status=Status.INVALID, detail="no loop of sites\ndata_delta")
        fracs = structure.frac_coords.copy()
        fracs[0, 0] += 0.01 * (len(fracs) > 1)
        return Relaxed(
            status=Status.OK,
            structure=Structure(structure.lattice.matrix * 1.02, structure.species, fracs),
        )


@pytest.fixture(autouse=True)
def in_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def stretch(monkeypatch):
    monkeypatch.setattr(relaxer, "T5Relaxer", Stretch)


@pytest.fixture
def never(monkeypatch):
    """A model that must not be loaded: the mistake is known before."""

    def load(*_, **__):
        pytest.fail("the model was loaded")

    monkeypatch.setattr(relaxer, "T5Relaxer", load)


@pytest.fixture(scope="module")
def tiny_folder(tmp_path_factory):
    torch.manual_seed(0)
    sizes = {"d_model": 32, "d_kv": 16, "num_heads": 2, "d_ff": 64, "num_layers": 2}
    folder = tmp_path_factory.mktemp("tiny")
    t5.save(t5.new_model(Tokenizer(), **sizes), Tokenizer(), folder, {"max_sites": 8})
    return folder


def stdin(monkeypatch, text):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))


def only(text):
    (block,) = cif_blocks(text)
    return from_cif(block)


def files():
    return sorted(str(path) for path in Path().rglob("*") if path.is_file())


# --- reading CIFs --------------------------------------------------------------------------------


def test_odd_but_legal_formatting_is_read_as_the_standard_has_it():
    geometry = only(
        "#\\#CIF_1.1\r\n# a comment with 'quotes' and ;\n"
        "DATA_odd\n"
        "loop_ _atom_site_fract_z _atom_site_label\n"
        " _atom_site_U_iso_or_equiv  # a column nobody needs\n"
        "_atom_site_fract_x _Atom_Site.Fract_Y _atom_site_occupancy\n"
        "0.0 'Si1' 0.01 0\n"  # a row over two lines, two rows on one
        " 0 1. -.125(3) O2' 0.01(2) 1.25(1)\n0.2500(12) .\n"
        "_cell_angle_alpha 80 _cell_angle_beta 90.0 _cell_angle_gamma\n100.\n"
        "_cell_length_a 3.867(2) # angstrom\n"
        "_publ_text\n;\ndata_ loop_ _cell_length_a 99\n;\n"
        '_cell_length_c "+4.867E0"\n'
        "_chemical_name 'it's one value'\n"
        "_cell_length_b '5.867'\n"
    )
    assert geometry.numbers.tolist() == [14, 8]
    assert geometry.frac_coords.tolist() == [[0, 0, 0], [1.25, 0.25, -0.125]]
    assert np.linalg.norm(geometry.lattice, axis=1) == pytest.approx([3.867, 5.867, 4.867])
    assert geometry.lattice[0].tolist() == [3.867, 0, 0]
    assert geometry.lattice[0] @ geometry.lattice[1] == pytest.approx(3.867 * 5.867 * -0.17364818)


def test_coordinates_of_a_file_without_symmetry_are_not_rounded_nor_sites_sorted():
    geometry = only(f"data_x{CELL}{SITES}C C 0.3333 0.6667 -0.1 1\nTi Ti 0 0 0 1\nC C .5 .5 .5 1\n")
    assert geometry.numbers.tolist() == [6, 22, 6]
    assert geometry.frac_coords[0].tolist() == [0.3333, 0.6667, -0.1]


HEXAGONAL = "_cell_length_a 3.21\n_cell_length_b 3.21\n_cell_length_c 5.21\n_cell_angle_gamma 120\n"
P63MC = (
    "loop_\n_space_group_symop_id\n_space_group_symop_operation_xyz\n"
    "1 'x, y, z'\n2 '-y, x-y, z'\n3 '-x+y, -x, z'\n4 '-x,-y,1/2+z'\n5 'Y,-X+Y,Z+1/2'\n"
    "6 'x-y,x,z+.5'\n7 -y,-x,z\n8 -x+y,y,z\n9 x,x-y,z\n10 y,x,z+1/2\n11 x-y,-y,z+1/2\n"
    "12 -x,-x+y,z+1/2\n"
)


@pytest.mark.parametrize("third", ["0.3333 0.6667", "0.333 0.667", "0.3333(2) 0.6667(2)"])
def test_a_special_position_in_few_digits_is_not_doubled(third):
    geometry = only(
        f"data_ZnO\n{HEXAGONAL}{P63MC}{SITES}Zn1 Zn2+ {third} 0 1\nO1 O2- {third} .375 0.998(4)\n"
    )
    assert geometry.numbers.tolist() == [30, 30, 8, 8]
    expected = [
        [1 / 3, 2 / 3, 0],
        [2 / 3, 1 / 3, 0.5],
        [1 / 3, 2 / 3, 0.375],
        [2 / 3, 1 / 3, 0.875],
    ]
    assert geometry.frac_coords == pytest.approx(np.array(expected), abs=1e-9)


def test_a_space_group_without_operations_is_expanded_where_its_name_says_all():
    geometry = only(ROCKSALT + "_symmetry_space_group_name_H-M F m -3 m  # without its quotes\n")
    assert geometry.numbers.tolist() == [11] * 4 + [17] * 4
    assert geometry.frac_coords[:4].tolist() == [
        [0, 0, 0],
        [0, 0.5, 0.5],
        [0.5, 0, 0.5],
        [0.5, 0.5, 0],
    ]
    assert len(only(ROCKSALT + "_space_group_IT_number 225\n").numbers) == 8
    assert len(only(ROCKSALT + "_symmetry_space_group_name_H-M 'P 1'\n").numbers) == 2
    assert len(only(ROCKSALT + "_space_group_IT_number ?\n").numbers) == 2


def test_the_origin_of_a_space_group_is_never_guessed():
    diamond = f"data_C{CELL}{SITES}C1 C 0.125 0.125 0.125 1\n_space_group_name_H-M_alt "
    with pytest.raises(CodecError, match="'F d -3 m' has several origins or axes"):
        only(diamond + "'F d -3 m'\n")
    second = only(diamond + "'F d -3 m :2'\n")
    assert len(second.numbers) == len(only(diamond + "'F d -3 m Z'\n").numbers) == 8
    assert len(only(diamond + "'F d -3 m :1'\n").numbers) == 16
    hall = diamond.replace("_name_H-M_alt", "_name_Hall") + "'-F 4vw 2vw 3'\n"
    assert only(hall).frac_coords.tolist() == second.frac_coords.tolist()


def test_the_setting_of_a_monoclinic_and_a_rhombohedral_cell_is_the_files():
    cell = "data_m\n_cell_length_a 5\n_cell_length_b 6\n_cell_length_c 7\n_cell_angle_beta 101\n"
    site = f"{SITES}Zr1 Zr 0.2 0.3 0.4 1\n_space_group_name_H-M_alt "
    glide = only(f"{cell}{site}'P 1 21/n 1'\n").frac_coords
    assert [0.7, 0.2, 0.9] in glide.round(9).tolist()
    assert [0.2, 0.2, 0.9] in only(f"{cell}{site}'P 21/c'\n").frac_coords.round(9).tolist()
    with pytest.raises(CodecError, match="does not fit the cell"):
        only(f"{cell.replace('beta', 'gamma')}{site}'P 1 21/n 1'\n")
    sites = f"{SITES}Bi1 Bi 0 0 0.2 1\n_space_group_name_H-M_alt 'R -3 m'\n"
    assert len(only(f"data_h\n{HEXAGONAL}{sites}").numbers) == 6


def test_a_file_that_lists_the_full_cell_and_its_operations_is_not_doubled():
    inversion = "loop_\n_symmetry_equiv_pos_as_xyz\n'x,y,z'\n'-x,-y,-z'\n"
    geometry = only(f"data_x{CELL}{inversion}{SITES}C1 C .1 0 0 1\nC2 C .9 0 0 1\nN1 N .3 0 0 1\n")
    assert geometry.numbers.tolist() == [6, 6, 7, 7]
    assert geometry.frac_coords[:, 0] == pytest.approx([0.1, 0.9, 0.3, 0.7])


def test_elements_are_read_from_type_symbols_in_any_case_before_labels():
    rows = "NA1 NA1+ 0 0 0 1\nC1 ca 0 .5 0 1\nD1 D .5 0 0 1\nOH2 O-2 .5 .5 0 1\n"
    assert only(f"data_x{CELL}{SITES}{rows}").numbers.tolist() == [11, 20, 1, 8]
    labels = "data_x" + CELL + SITES.replace("_atom_site_type_symbol\n", "")
    rows = "Na1 0 0 0 1\nOH2 0 .5 0 1\nSiA .5 0 0 1\nC .5 .5 0 1\n"
    assert only(labels + rows).numbers.tolist() == [11, 8, 14, 6]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (DISORDERED, "site Na1 has occupancy 0.5: the T5 reads ordered crystals only"),
        (f"data_x{CELL}{SITES}Na1 Na 0 0 0 1\nK1 K 0 0 1 1\n", "sites Na1 and K1 share a position"),
        (NO_CELL, "no cell lengths"),
        (f"data_x{CELL}", "sites without fractional coordinates"),
        (ROCKSALT.replace("alpha 90", "alpha 200"), "no cell has the parameters"),
        (ROCKSALT.replace("Na1 Na 0", "Na1 Na 1/3"), "coordinate of Na1: '1/3' is no number"),
        (ROCKSALT.replace("Na1 Na 0", "Na1 Na ?"), "coordinate of Na1: '?' is no number"),
        (ROCKSALT.replace("Na1 Na", "Wat1 Wat"), "which element is 'Wat'"),
        (ROCKSALT[:-3] + "\n", "do not fit its tags"),
        (ROCKSALT.replace("_a 5.640(1)", "_a 5 6"), "_cell_length_a: '5 6' is no number"),
        (f"{ROCKSALT}_atom_site_label Na1\n", "sites without fractional coordinates"),
        (ROCKSALT.replace("_type_symbol", "_x").replace("Na1 Na", "CA1 Na"), "element is 'CA1'"),
        (ROCKSALT + "loop_\n_symmetry_equiv_pos_as_xyz\n'x,y'\n", "operations are misspelt"),
        (ROCKSALT + "loop_\n_symmetry_equiv_pos_as_xyz\n-y,x-y,z\n", "do not fit its cell"),
        (ROCKSALT + "_symmetry_space_group_name_H-M 'F n o n'\n", "is unknown"),
    ],
)
def test_what_is_no_ordered_crystal_is_refused_and_says_why(text, why):
    with pytest.raises(CodecError, match=why.replace("(", "\\(").replace("?", "\\?")):
        only(text)


def test_atoms_on_top_of_each_other_are_refused():
    (block,) = cif_blocks(ROCKSALT.replace(".5 .5 .5", "0.05 0 0"))
    with pytest.raises(CodecError, match=r"two of its atoms are 0\.28 Å apart"):
        _structure(block)


def test_the_partial_occupancy_that_ase_keeps_aside_is_seen():
    Path("mixed.cif").write_text(DISORDERED)
    atoms = ase_read("mixed.cif")
    assert len(atoms) == 1  # the trap: an ordered crystal, for all that its sites say
    with pytest.raises(CodecError, match=r"an occupancy of 0\.5"):
        _structure(atoms)


@pytest.mark.parametrize("atoms", [Atoms("H", pbc=True), Atoms("H", cell=[3, 3, 9], pbc=(1, 1, 0))])
def test_a_molecule_or_a_slab_is_no_crystal(atoms):
    with pytest.raises(CodecError, match="periodic in three directions"):
        _structure(atoms)


# --- the command ---------------------------------------------------------------------------------


def test_one_file_to_another_says_on_one_line_what_changed(stretch, capsys):
    Path("input.cif").write_text(ROCKSALT)
    assert main(["input.cif", "-o", "relaxed.cif"]) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == (
        "input.cif: Na1Cl1 ok, dV/V +6.12 %, a +0.1128 b +0.1128 c +0.1128 Å, "
        "angles at most 0.000°, sites at most 0.0282 Å\n"
    )
    (block,) = cif_blocks(Path("relaxed.cif").read_text())
    assert [*block["_cell_length_a"]] == ["5.7528"]
    assert from_cif(block).frac_coords.tolist() == [[0.01, 0, 0], [0.5, 0.5, 0.5]]
    assert files() == ["input.cif", "relaxed.cif"]


def test_without_output_the_result_lies_beside_the_input(stretch):
    Path("deep").mkdir()
    Path("deep/a.b.cif").write_text(ROCKSALT)
    Path("POSCAR").write_text(POSCAR)
    with gzip.open("packed.cif.gz", "wt") as file:
        file.write(ROCKSALT)
    assert main(["deep/a.b.cif", "POSCAR", "packed.cif.gz"]) == 0
    assert files() == [
        *("POSCAR", "POSCAR.relaxed.cif", "deep/a.b.cif", "deep/a.b.relaxed.cif"),
        *("packed.cif.gz", "packed.relaxed.cif"),
    ]


def test_poscar_in_and_extxyz_out_keep_the_order_of_the_sites(stretch):
    Path("POSCAR").write_text(POSCAR)
    assert main(["POSCAR", "-o", "out.xyz"]) == 0
    atoms = ase_read("out.xyz", format="extxyz")
    assert atoms.get_chemical_symbols() == ["Ti", "C", "Ti", "C"]
    assert atoms.cell.array == pytest.approx(np.diag([4.386, 4.386, 8.772]))
    assert atoms.get_scaled_positions()[:, 2] == pytest.approx([0, 0, 0.5, 0.5])


def test_globs_are_expanded_and_each_file_is_relaxed_once(stretch, capsys):
    for name in ("b.cif", "a.cif", "c.txt"):
        Path(name).write_text(ROCKSALT)
    assert main(["*.cif", "./a.cif", "--out-dir", "new/out", "--to", "vasp"]) == 0
    assert files()[-2:] == ["new/out/a.relaxed.vasp", "new/out/b.relaxed.vasp"]
    assert ase_read("new/out/b.relaxed.vasp").get_chemical_symbols() == ["Na", "Cl"]
    assert [line.split(":")[0] for line in capsys.readouterr().err.splitlines()] == [
        "./a.cif",
        "b.cif",
    ]


def test_standard_input_goes_to_standard_output(stretch, capsys, monkeypatch):
    stdin(monkeypatch, ROCKSALT)
    assert main(["-"]) == 0
    captured = capsys.readouterr()
    assert len(only(captured.out).numbers) == 2
    assert captured.err.startswith("-: Na1Cl1 ok")
    stdin(monkeypatch, POSCAR)
    assert main(["-", "--format", "vasp", "-o", "-", "--to", "extxyz"]) == 0
    assert capsys.readouterr().out.startswith('4\nLattice="4.386 0.0 0.0 0.0 4.386')
    assert files() == []


def test_every_block_of_a_cif_is_relaxed_and_named(stretch, capsys):
    blocks = ["data_global\n_journal_year 2020\n", ROCKSALT, DISORDERED, ROCKSALT]
    Path("many.cif").write_text("\n".join(blocks))
    assert main(["many.cif", "-o", "out.cif"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(",")[0] for line in lines] == [
        "many.cif@0: Na1Cl1 ok",
        "many.cif@1: unsupported",
        "many.cif@2: Na1Cl1 ok",
    ]
    assert "site Na1 has occupancy 0.5" in lines[1]
    assert len(ase_read("out.cif", index=":")) == 2


def test_many_inputs_go_into_one_file_that_can_hold_them_in_their_order(stretch):
    Path("POSCAR").write_text(POSCAR)
    Path("a.cif").write_text(ROCKSALT)
    assert main(["POSCAR", "a.cif", "-o", "all.extxyz"]) == 0
    assert [len(atoms) for atoms in ase_read("all.extxyz", index=":")] == [4, 2]


def test_a_structure_that_fails_costs_its_own_file_only(stretch, capsys):
    Path("a.cif").write_text(ROCKSALT)
    Path("bad.cif").write_text(ROCKSALT.replace("Na1 Na", "Xe1 Xe"))
    Path("broken.cif").write_text("no CIF at all")
    assert main(["*.cif", "--out-dir", "out"]) == 1
    assert files() == ["a.cif", "bad.cif", "broken.cif", "out/a.relaxed.cif"]
    bad, broken = capsys.readouterr().err.splitlines()[1:]
    assert bad == "bad.cif: Xe1Cl1 invalid, no loop of sites"
    assert broken.startswith("broken.cif: unsupported, it cannot be read as cif (the CIF's values")


@pytest.mark.parametrize(
    ("argv", "why"),
    [
        (["none.cif"], "none.cif: no such file"),
        (["*.vasp"], "*.vasp: no such file"),
        (["."], ". is a folder: name its files, like './*.cif'"),
        (["a.cif", "-o", "kept.cif"], "kept.cif exists: choose another output"),
        (["a.cif", "-o", "sub/../a.cif", "--force"], "a.cif is an input, which is never replaced"),
        (["*.cif", "-o", "kept.cif", "--force"], "kept.cif is an input, which is never replaced"),
        (["a.cif", "sub/a.cif", "--out-dir", "o"], "a.cif and sub/a.cif would both be written to"),
        (["a.cif", "-o", "none/b.cif"], "none is no folder: make it first"),
        (["a.cif", "--out-dir", "kept.cif"], "--out-dir kept.cif is a file"),
        (["a.cif", "-o", "b.foo"], "b.foo: no format that ASE writes"),
        (["a.cif", "-o", "b"], "b: no format that ASE writes"),
        (["a.cif", "--to", "foo"], "--to foo: no format that ASE writes"),
        (["a.cif", "-o", "-", "--to", "db"], "ASE cannot write db to the standard output"),
        (["a.cif", "sub/a.cif", "-o", "POSCAR"], "vasp files hold one structure"),
        (["a.cif", "--format", "foo"], "a.cif: ASE reads no format 'foo'"),
        (["x.foo"], "x.foo: ASE reads no format 'foo'; name it with --format"),
        (["a.cif", "--device", "gpu"], "--device gpu: cpu or cuda"),
        (["a.cif", "--checkpoint", "sub"], "sub is no t2relax checkpoint"),
        (["kept.cif"], "kept.cif cannot be relaxed: site Na1 has occupancy 0.5"),
        (["no.xyz"], "no.xyz cannot be relaxed: no crystal: it needs a cell"),
        (["a.cif", "--format", "vasp"], "a.cif cannot be relaxed: it cannot be read as vasp"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_runs(never, capsys, argv, why):
    Path("sub").mkdir()
    for name, text in {"a.cif": ROCKSALT, "sub/a.cif": ROCKSALT, "kept.cif": DISORDERED}.items():
        Path(name).write_text(text)
    Path("x.foo").write_text("what")
    ase_write("no.xyz", Atoms("H2", [[0, 0, 0], [0, 0, 0.74]]))
    before = files()
    assert main(argv) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert why in line
    assert files() == before
    assert Path("kept.cif").read_text() == DISORDERED


def test_an_output_is_replaced_by_force_only(stretch):
    Path("a.cif").write_text(ROCKSALT)
    Path("a.relaxed.cif").write_text("precious")
    assert main(["a.cif"]) == 2
    assert Path("a.relaxed.cif").read_text() == "precious"
    assert main(["a.cif", "--force"]) == 0
    assert Path("a.relaxed.cif").read_text().startswith("data_image0")


def test_a_write_that_fails_leaves_no_half_a_file(stretch, capsys, monkeypatch):
    Path("a.cif").write_text(ROCKSALT)
    Path("b.cif").write_text("precious")

    def full(path, images, format):  # noqa: A002 (ASE's name)
        Path(path).write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("t2relax.relax.ase_write", full)
    assert main(["a.cif", "-o", "b.cif", "--force"]) == 2
    assert "No space left on device" in capsys.readouterr().err
    assert Path("b.cif").read_text() == "precious"
    assert files() == ["a.cif", "b.cif"]


def test_an_interruption_is_130(capsys, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Stretch, "relax", interrupted)
    monkeypatch.setattr(relaxer, "T5Relaxer", Stretch)
    Path("a.cif").write_text(ROCKSALT)
    assert main(["a.cif"]) == 130
    assert capsys.readouterr().err == "interrupted: no file is half-written\n"
    assert files() == ["a.cif"]


def test_an_unknown_flag_or_mode_is_a_mistake(capsys):
    for argv in (
        ["a.cif", "--mode", "best"],
        ["a.cif", "--out", "x"],
        [],
        ["a", "--batch-size", "0"],
    ):
        with pytest.raises(SystemExit) as caught:
            main(argv)
        assert caught.value.code == 2
    assert "'constrained', 'free'" in capsys.readouterr().err


@pytest.mark.parametrize("size", ["1", "3"])
def test_a_checkpoint_relaxes_a_file_to_the_same_sites(tiny_folder, capsys, size):
    Path("salt.cif").write_text(ROCKSALT + "_space_group_IT_number 225\n")
    Path("many.cif").write_text(ROCKSALT * 3 + f"data_large{CELL}{SITES}" + _chain(9))
    argv = ["salt.cif", "many.cif", "--checkpoint", str(tiny_folder), "--batch-size", size]
    assert main(argv) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("salt.cif: Na4Cl4 ok, dV/V ")
    assert lines[4] == "many.cif@3: C9 unsupported, 9 sites: trained on at most 8"
    geometry = only(Path("salt.relaxed.cif").read_text())
    assert geometry.numbers.tolist() == [11] * 4 + [17] * 4
    assert len(ase_read("many.relaxed.cif", index=":")) == 3


def _chain(length):
    return "".join(f"C{i} C 0 0 {i / length} 1\n" for i in range(length))


@pytest.mark.slow
def test_the_packaged_checkpoint_from_the_shell():
    Path("salt.cif").write_text(ROCKSALT + "_space_group_IT_number 225\n")
    command = [sys.executable, "-m", "t2relax.relax", "salt.cif", "-o", "-"]
    root = Path(t5.__file__).parents[1]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env={"PYTHONPATH": str(root)}
    )
    (line,) = done.stderr.splitlines()
    assert line.startswith("salt.cif: Na4Cl4 ok, dV/V ")
    assert 5.3 < np.linalg.norm(only(done.stdout).lattice[0]) < 6.0
