"""The command that relaxes a person's files: reading, writing, refusing, exit statuses."""

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
from t2relax import relaxer
from t2relax.lm import t5
from t2relax.relax import main
from t2relax.text.tokens import Tokenizer
from tests.test_cif import CASES_FOLDER, CELL, DISORDERED, ROCKSALT, SITES, only

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

    def __init__(self, checkpoint, mode, *, settings):
        self.batch_size = settings.batch_size

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
    monkeypatch.setattr(relaxer, "TextRelaxer", Stretch)


@pytest.fixture
def never(monkeypatch):
    """A model that must not be loaded: the mistake is known before."""

    def load(*_, **__):
        pytest.fail("the model was loaded")

    monkeypatch.setattr(relaxer, "TextRelaxer", load)


@pytest.fixture(scope="module")
def tiny_folder(tmp_path_factory):
    torch.manual_seed(1)
    sizes = {"d_model": 32, "d_kv": 16, "num_heads": 2, "d_ff": 64, "num_layers": 2}
    folder = tmp_path_factory.mktemp("tiny")
    t5.save(t5.new_model(Tokenizer(), **sizes), Tokenizer(), folder, {"max_sites": 8})
    return folder


def stdin(monkeypatch, text):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))


def files():
    return sorted(str(path) for path in Path().rglob("*") if path.is_file())


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
    relaxed = only(Path("relaxed.cif").read_text())
    assert relaxed.lattice[0].tolist() == [5.7528, 0, 0]
    assert relaxed.frac_coords.tolist() == [[0.01, 0, 0], [0.5, 0.5, 0.5]]
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
    assert files() == []
    Path("POSCAR").write_text(POSCAR)
    assert main(["POSCAR", "-o", "-"]) == 0
    assert len(only(capsys.readouterr().out).numbers) == 4
    assert files() == ["POSCAR"]


def test_every_block_of_a_cif_is_relaxed_and_named(stretch, capsys):
    blocks = ["data_global\n_journal_year 2020\n", ROCKSALT, DISORDERED, ROCKSALT]
    Path("many.cif").write_text("\n".join(blocks))
    assert main(["many.cif", "-o", "out.cif"]) == 2
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
    assert main(["*.cif", "--out-dir", "out"]) == 2
    assert files() == ["a.cif", "bad.cif", "broken.cif", "out/a.relaxed.cif"]
    bad, broken = capsys.readouterr().err.splitlines()[1:]
    assert main(["a.cif", "bad.cif", "--out-dir", "model"]) == 1
    assert bad == "bad.cif: Xe1Cl1 invalid, no loop of sites"
    assert broken.startswith("broken.cif: unsupported, a damaged CIF, line 1")


def test_the_cases_end_with_a_line_for_each_bad_file_and_the_good_ones_written(stretch, capsys):
    assert main([f"{CASES_FOLDER}/*.cif", "--out-dir", "r"]) == 2
    captured = capsys.readouterr()
    refused = [line.split(":")[0] for line in captured.err.splitlines() if "unsupported" in line]
    assert [Path(name).stem for name in refused] == [
        *("angle_zero", "attached_hydrogens", "cartesian_only", "coordinates_dots"),
        *("magnetic_old_dot", "magnetic_underscore", "operations_no_group"),
        "operations_without_centring",
    ]
    assert "Traceback" not in captured.err
    written = {path.removeprefix("r/").removesuffix(".relaxed.cif") for path in files()}
    everything = {path.stem for path in CASES_FOLDER.glob("*.cif")}
    assert written == everything - {Path(name).stem for name in refused}
    assert len(ase_read("r/it_number_second_block.relaxed.cif", index=":")) == 2


@pytest.mark.filterwarnings("error:No Pauling electronegativity")
def test_a_noble_gas_is_one_line(stretch, capsys):
    assert main([str(CASES_FOLDER / "helium.extxyz"), "--out-dir", "r"]) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert "He1 ok" in line


def test_what_is_odd_about_an_input_is_said_beside_its_line(stretch, capsys):
    Path("a.cif").write_text(ROCKSALT + "_cell_volume 190\n")
    assert main(["a.cif"]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert lines[1] == "a.cif: warning, it says a volume of 190 Å^3, its cell has 179.4"


@pytest.mark.parametrize(
    ("argv", "why"),
    [
        (["none.cif"], "none.cif: no such file"),
        (["a" * 300], "a: File name too long"),
        (["*.vasp"], "*.vasp: no such file"),
        (["."], ". is a folder: name its files, like './*.cif'"),
        (["a.cif", "-o", "kept.cif"], "kept.cif exists: choose another output"),
        (["a.cif", "-o", "sub/../a.cif", "--force"], "a.cif is an input, which is never replaced"),
        (["k*.cif", "-o", "kept.cif", "--force"], "kept.cif is an input, which is never replaced"),
        (["a.cif", "sub/a.cif", "--out-dir", "o"], "a.cif and sub/a.cif would both be written to"),
        (["a.cif", "-o", "none/b.cif"], "none is no folder: make it first"),
        (["a.cif", "--out-dir", "kept.cif"], "--out-dir kept.cif is a file"),
        (["a.cif", "-o", "b.foo"], "b.foo: no format that ASE writes"),
        (["a.cif", "-o", "b"], "b: no format that ASE writes"),
        (["a.cif", "sub/a.cif", "-o", "POSCAR"], "vasp files hold one structure"),
        (["a.cif", "--batch-size", "0"], "--batch-size is at least 1"),
        (["a.cif", "--checkpoint", "sub"], "sub is no t2relax checkpoint"),
        (["kept.cif"], "kept.cif: unsupported, site Na1 has occupancy 0.5"),
        (["x.foo"], "x.foo: unsupported, no format that ASE knows"),
        (["close.cif"], "close.cif: unsupported, two of its atoms are 0.28 Å apart"),
        (["a.cif", "--to", "foo"], "a.relaxed.foo: no format that ASE writes"),
        (["no.xyz"], "no.xyz: unsupported, no crystal: it needs a cell"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_runs(never, capsys, argv, why):
    Path("sub").mkdir()
    for name, text in {"a.cif": ROCKSALT, "sub/a.cif": ROCKSALT, "kept.cif": DISORDERED}.items():
        Path(name).write_text(text)
    Path("x.foo").write_text("what")
    Path("close.cif").write_text(ROCKSALT.replace(".5 .5 .5", "0.05 0 0"))
    ase_write("no.xyz", Atoms("H2", [[0, 0, 0], [0, 0, 0.74]]))
    before = files()
    assert main(argv) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert why in line
    assert line.startswith("error: ") != ("unsupported" in line)
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
    monkeypatch.setattr(relaxer, "TextRelaxer", Stretch)
    Path("a.cif").write_text(ROCKSALT)
    assert main(["a.cif"]) == 130
    assert capsys.readouterr().err == "interrupted: no file is half-written\n"
    assert files() == ["a.cif"]


def test_an_unknown_flag_or_mode_is_a_mistake(capsys):
    for argv in (
        ["a.cif", "--mode", "best"],
        ["a.cif", "--out", "x"],
        [],
        ["a", "--batch-size", "one"],
        ["a", "--device", "gpu"],
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
    environment = {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    (line,) = done.stderr.splitlines()
    assert line.startswith("salt.cif: Na4Cl4 ok, dV/V ")
    assert 5.3 < np.linalg.norm(only(done.stdout).lattice[0]) < 6.0
