"""Reference relaxations; a `gpaw` of EMT stands in for GPAW, under this interpreter."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from functools import cache
from pathlib import Path

import ase.io
import numpy as np
import pyarrow.parquet as pq
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT

from benchmarks.core import Geometry, Shard, UserError
from benchmarks.core.geometry import reduced_composition
from benchmarks.core.symmetry import symmetry_dataset
from benchmarks.data import folders, frames, load
from benchmarks.data.__main__ import main as data_main
from benchmarks.data.splits.manifest import split_of
from benchmarks.data.splits.prototypes import prototype
from benchmarks.dft import catalogue_v3, checks
from benchmarks.dft import initial_structures as starts
from benchmarks.dft.__main__ import main
from benchmarks.dft.catalogue import CATALOGUE, ideal
from benchmarks.dft.catalogue import starts as version_2
from benchmarks.dft.catalogue_v3 import starts as version_3
from benchmarks.dft.cost_order import sort_by_cost
from benchmarks.dft.data_card import Card
from benchmarks.dft.export import mark_unusable, write_set
from benchmarks.dft.pool import DEFAULT, gpaw_versions
from benchmarks.dft.results import DFTResult, InitialStructure
from benchmarks.dft.settings import VERSION_3, DFTSettings
from benchmarks.store.locking import FolderLock
from tests.conftest import LEMAT_SCHEMA, one_line

FAKE = """
import os, time, types
from ase.calculators.emt import EMT

__version__ = os.environ.get("FAKE_VERSION", "1.2.3")

def PW(cutoff, dedecut):
    return cutoff, dedecut

def FermiDirac(width):
    return width

def Mixer(*numbers):
    return numbers

class GPAW(EMT):
    def __init__(self, mode, xc, kpts, **other):
        assert os.environ["OMP_NUM_THREADS"] == "1", "threads"
        version_2 = (600, "estimate"), {"density": 2.5, "gamma": True}
        slope = [((cutoff, None), {"density": 1.0, "gamma": True}) for cutoff in (475, 525)]
        version_3 = (500, 0.0), {"size": kpts.get("size"), "gamma": True}
        assert xc == "PBE" and (mode, kpts) in [version_2, *slope, version_3], mode
        super().__init__()
        print("a banner on stdout")
        self.n = 0

    def calculate(self, atoms, *args):
        self.n += 1
        symbol = atoms.get_chemical_symbols()[0]
        with open(os.environ["FAKE_CALLS"], "a") as calls:
            calls.write(symbol + chr(10))
        if symbol == "Pd":
            raise RuntimeError("no self-consistency" + chr(10) + "see the manual")
        if symbol == "Pt":
            os.kill(os.getpid(), 9)
        if symbol == "Au" and self.n > 1:
            time.sleep(60)
        self.wfs = types.SimpleNamespace(
            setups=[types.SimpleNamespace(symbol=symbol, fingerprint="0123456789")])
        super().calculate(atoms, *args)
"""


@cache
def _versions(python, _):
    """The versions of an interpreter are asked for once for each version of the fake."""
    return gpaw_versions(python)


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """A folder in which `main` finds the fake; `calls()` are the elements that it was asked for."""
    (tmp_path / "python").mkdir()
    (tmp_path / "python" / "gpaw.py").write_text(FAKE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "python"))
    monkeypatch.setenv("FAKE_CALLS", str(tmp_path / "calls"))
    monkeypatch.setattr(
        "benchmarks.dft.__main__.gpaw_versions",
        lambda python: _versions(python, os.environ.get("FAKE_VERSION")),
    )
    monkeypatch.chdir(tmp_path)

    class Fake:
        path = tmp_path
        out = tmp_path / "out"

        def file(self, symbol, a=None, name=None):
            path = tmp_path / f"{name or symbol}.cif"
            ase.io.write(path, bulk(symbol, a=a))
            return str(path)

        def run(self, *args, out="out"):
            return main([*args, "--python", sys.executable, "--out", str(tmp_path / out)])

        def calls(self):
            path = tmp_path / "calls"
            return Counter(path.read_text().split()) if path.exists() else Counter()

        def records(self):
            paths = (self.out / "records").glob("*.json")
            return {path.stem: json.loads(path.read_text()) for path in paths}

    return Fake()


# --- one relaxation -----------------------------------------------------------------------------


def test_a_relaxation_is_a_table_that_the_benchmark_reads(fake, capsys):
    assert fake.run(fake.file("Cu", 3.5)) == 0
    path = fake.out / "relaxations.parquet"
    assert pq.read_schema(path).equals(LEMAT_SCHEMA)
    dataset = load(str(path))
    assert dataset.ids == ("gpaw-Cu-0-pbe",)
    assert dataset.quarantined == ()
    sample = dataset[0]
    assert (sample.source, sample.functional) == ("gpaw", "pbe")
    assert sample.initial.volume == pytest.approx(3.5**3 / 4, rel=1e-4)
    assert sample.final.volume == pytest.approx(11.565, rel=2e-3)  # EMT's copper: 3.59 Å
    assert "1 of 1 relaxed" in capsys.readouterr().out


def test_units_and_the_sign_of_the_stress_are_those_of_the_layout(fake):
    fake.run(fake.file("Cu", 3.5))
    found = list(frames(str(fake.out / "relaxations.parquet")))
    assert [frame.step for frame in found] == list(range(len(found)))
    assert len(found) >= 3
    for frame in found:
        atoms = Atoms("Cu", cell=frame.geometry.lattice, pbc=True, calculator=EMT())
        assert frame.energy == pytest.approx(atoms.get_potential_energy(), abs=1e-9)
        assert frame.stress == pytest.approx(atoms.get_stress(voigt=False), abs=1e-9)
        assert frame.forces == pytest.approx(np.zeros((1, 3)), abs=1e-9)
    first = pq.read_table(fake.out / "relaxations.parquet")["stress_tensor"][0].as_py()
    assert first[0][0] > 10  # kB: a cell that is too small wants to expand


def test_the_card_says_how_and_what_failed(fake):
    fake.run(fake.file("Cu", 3.4), fake.file("Pd"), "--licence", "CC0-1.0")
    card = (fake.out / "README.md").read_text()
    for words in (
        "1 of 2 structures relaxed",
        "Licence: CC0-1.0.",
        "GPAW 1.2.3 through ASE",
        "800 eV with F N O, 700 eV with B C H, 600 eV otherwise",
        "Cu 01234567",
        "| Pd | RuntimeError: no self-consistency | 0 |",
        "fmax 0.03 eV/Å, at most 40 steps",
        "1 to 1 sites, 1 elements: Cu.",
        "the largest force is 0.000 eV/Å",
        "GPa (over 0.1 GPa: Cu); fmax bounds the virial per atom",
        "(1 of 1 trajectories)",  # 9 x 9 x 9 k-points at 3.4 Å, 8 x 8 x 8 at 3.59 Å
    ):
        assert words in card
    assert str(fake.path) not in card


# --- what goes wrong ----------------------------------------------------------------------------


def test_a_failure_costs_its_own_structure_only_and_is_kept_with_its_reason(fake, capsys):
    files = [fake.file(x) for x in ("Au", "Pd", "Pt", "Fe", "W", "Ag")]
    assert fake.run(*files, "--workers", "2", "--timeout", "8") == 0
    reasons = {name: record["reason"] for name, record in fake.records().items()}
    assert reasons == {
        "Ag": "",
        "Au": "time: no end within 8 s",
        "Pd": "RuntimeError: no self-consistency",
        "Pt": "killed by SIGKILL (out of memory?)",
        "Fe": "unsupported: Fe can be magnetic, spin is left out",
        "W": "NotImplementedError: No EMT-potential for W",
    }
    assert len(fake.records()["Au"]["frames"]) == 1
    assert load(str(fake.out / "relaxations.parquet")).ids == ("gpaw-Ag-0-pbe",)
    assert "1 of 6 relaxed" in capsys.readouterr().out


def test_what_does_not_converge_and_what_need_not_move_are_no_trajectories(fake):
    assert fake.run(fake.file("Cu", 3.2), "--max-steps", "1") == 1
    assert fake.records()["Cu"]["reason"] == "unconverged after 1 steps"
    assert not (fake.out / "relaxations.parquet").exists()
    relaxed = DFTResult(
        name="x", start="", symbols=["Cu"], cutoff=600.0, frames=fake.records()["Cu"]["frames"][:1]
    )
    assert mark_unusable([relaxed])[0].reason == "not a relaxation: single frame"


def test_the_same_command_goes_on_and_computes_nothing_twice(fake):
    files = [fake.file("Cu", 3.5), fake.file("Ag")]
    assert fake.run(*files) == 0
    calls, table = fake.calls(), (fake.out / "relaxations.parquet").read_bytes()
    assert fake.run(*files) == 0
    assert fake.calls() == calls
    assert (fake.out / "relaxations.parquet").read_bytes() == table
    (fake.out / "records" / "Ag.json").unlink()
    (fake.out / "records" / ".Ag.json.1.1.tmp").write_text("{")
    assert fake.run(*files) == 0
    assert (fake.calls() - calls).keys() == {"Ag"}
    assert sorted(path.name for path in (fake.out / "records").iterdir()) == ["Ag.json", "Cu.json"]


def test_parts_of_a_list_go_into_one_folder_and_the_last_one_writes_the_data(fake, capsys):
    names = ["a", "b", "c", "d"]
    files = [fake.file("Cu", 3.5, name) for name in names]
    parts = [[name for name in names if Shard(i, 2).holds(name)] for i in (1, 2)]
    assert all(parts)
    (fake.out / "records").mkdir(parents=True)
    leftovers = [fake.out / "records" / f".{part[0]}.json.1.1.tmp" for part in parts]
    for leftover in leftovers:
        leftover.write_text("{")
    assert fake.run(*files, "--shard", "1/2") == 0
    assert [leftover.exists() for leftover in leftovers] == [False, True]  # the other may write it
    assert f"{len(parts[1])} structures are left to other parts" in capsys.readouterr().out
    assert sorted(fake.records()) == sorted(parts[0])
    assert not (fake.out / "relaxations.parquet").exists()
    before = fake.records()
    assert fake.run(*files, "--shard", "2/2") == 0
    assert before.items() <= fake.records().items()
    assert len(load(str(fake.out / "relaxations.parquet"))) == 4


def test_a_part_excludes_the_whole_and_itself_but_no_other_part(fake, capsys):
    files = [fake.file("Cu", 3.5), fake.file("Ag")]
    lock = FolderLock(fake.out / "parts" / Shard(1, 2).folder)
    assert fake.run(*files) == 2
    assert fake.run(*files, "--shard", "1/2") == 2
    assert capsys.readouterr().err.count("another process is writing to it") == 2
    assert fake.run(*files, "--shard", "2/2") == 0
    lock.close()
    lock = FolderLock(fake.out)
    assert fake.run(*files, "--shard", "1/2") == 2
    lock.close()
    assert fake.run(*files) == 0


def test_the_parts_of_a_list_as_an_array_of_jobs(fake, capsys):
    assert fake.run("--list", "embedded-v3", "--emit", "slurm:4") == 0
    script = capsys.readouterr().out
    assert "#SBATCH --array=1-4" in script
    command = script.splitlines()[-1]
    assert " -m benchmarks.dft --list embedded-v3 " in command
    assert command.endswith('--shard "$SLURM_ARRAY_TASK_ID/4"')
    assert "--emit" not in command


@pytest.mark.parametrize(
    "options",
    [
        ["--verify", "1", "--shard", "1/2"],
        ["--convergence", "--emit", "slurm"],
        ["--list", "embedded-v3", "--export", "--shard", "1/2"],
        ["--list", "embedded-v3", "--emit", "slurm", "--shard", "1/2"],
    ],
)
def test_parts_of_what_has_none_are_refused(fake, capsys, options):
    assert fake.run(*options) == 2
    assert "--shard" in capsys.readouterr().err
    assert not fake.calls()


def test_a_failure_is_tried_again_when_asked(fake):
    fake.run(fake.file("Pd"), fake.file("Cu", 3.5))
    calls = fake.calls()
    fake.run(fake.file("Pd"), fake.file("Cu", 3.5))
    assert fake.calls() == calls
    fake.run(fake.file("Pd"), fake.file("Cu", 3.5), "--retry")
    assert fake.calls() - calls == {"Pd": 1}


def test_other_settings_or_another_start_never_mix_with_what_is_there(fake, capsys, monkeypatch):
    fake.run(fake.file("Cu", 3.5))
    for change, field in (
        (["--fmax", "0.01"], "fmax"),
        (["--cutoff-factor", "2"], "cutoff_factor"),
    ):
        assert fake.run(fake.file("Cu", 3.5), *change) == 2
        assert f"cannot go on: {field} differs" in capsys.readouterr().err
    monkeypatch.setenv("FAKE_VERSION", "9.9")
    assert fake.run(fake.file("Cu", 3.5)) == 2
    assert "gpaw differs ('1.2.3' stored, now '9.9')" in capsys.readouterr().err
    monkeypatch.delenv("FAKE_VERSION")
    assert fake.run(fake.file("Cu", 3.4)) == 2
    error = capsys.readouterr().err
    assert "relaxed from another start of that name" in error
    assert error.count("\n") == 1


def test_an_interrupt_kills_the_worker_and_leaves_whole_records(fake):
    # A shell's background job ignores SIGINT, and so would all that it starts.
    code = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    code += "from benchmarks.dft.__main__ import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, fake.file("Cu", 3.5), fake.file("Au")]
    command += ["--python", sys.executable, "--out", str(fake.out)]
    root = str(Path(__file__).parents[1])
    path = os.pathsep.join([root, os.environ["PYTHONPATH"]])
    driver = subprocess.Popen(
        command, env={**os.environ, "PYTHONPATH": path}, stderr=subprocess.PIPE, text=True
    )
    while fake.calls()["Au"] < 2:
        assert driver.poll() is None
        time.sleep(0.1)
    driver.send_signal(signal.SIGINT)
    _, error = driver.communicate(timeout=30)
    assert driver.returncode == 130
    assert error == "interrupted; the same command goes on from here\n"
    assert fake.records().keys() == {"Cu"}
    assert not _children_asleep(fake.path)


def _children_asleep(path):
    """Workers of this test that are still there, told by their environment."""
    needle = str(path / "calls").encode()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            here = needle in (process / "environ").read_bytes()
        except OSError:
            continue
        if here and int(process.name) != os.getpid():
            found.append(process.name)
    return found


def test_without_gpaw_one_line_says_what_to_install(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("PYTHONPATH", raising=False)
    ase.io.write(tmp_path / "Cu.cif", bulk("Cu"))
    for python, words in (
        ("/no/such/python", "no such"),
        (sys.executable, "No module named 'gpaw'"),
    ):
        command = [str(tmp_path / "Cu.cif"), "--out", str(tmp_path / "out"), "--python", python]
        assert main(command) == 2
        error = capsys.readouterr().err
        assert words in error
        assert "apt install gpaw gpaw-data" in error
        assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_command_does_one_thing(tmp_path, capsys):
    for args in ([], ["Cu.cif", "--convergence"]):
        assert main([*args, "--out", str(tmp_path)]) == 2
        assert "name one of" in capsys.readouterr().err


def test_a_limit_alone_tries_the_list(fake):
    assert fake.run("--limit", "2") == 1  # the fake knows neither lithium nor mercury
    assert sorted(fake.records()) == ["B1-Li-F-scaled", "B2m-Li-Hg-scaled"]


def test_a_part_of_the_list_is_a_table_and_not_version_2(fake, monkeypatch):
    copper, _ = starts.from_files([Path(fake.file("Cu", 3.5))])
    monkeypatch.setattr("benchmarks.dft.__main__.version_2", lambda: copper)
    assert fake.run("--list", "embedded-v2", "--limit", "1") == 0
    assert load(str(fake.out / "relaxations.parquet")).ids == ("gpaw-Cu-0-pbe",)
    assert not (fake.out / "embedded_v2").exists()
    assert fake.run("--list", "embedded-v2") == 0
    manifest = json.loads((fake.out / "embedded_v2" / "manifest.json").read_text())
    assert (manifest["name"], manifest["version"]) == ("embedded", 2)


def test_export_writes_what_is_done_of_version_3_and_relaxes_nothing(fake, monkeypatch):
    metals, _ = starts.from_files([Path(fake.file(x, a)) for x, a in (("Cu", 3.5), ("Ag", 4.2))])
    monkeypatch.setattr("benchmarks.dft.__main__.version_3", lambda: metals)
    command = ("--list", "embedded-v3")
    assert fake.run(*command, "--limit", "1") == 0
    ((done, record),), before = fake.records().items(), fake.calls()
    last = record["frames"][-1]
    assert np.abs(last["stress"]).max() < 0.03 / 160.2
    assert fake.run(*command, "--export") == 0
    assert list(fake.records()) == [done]
    assert fake.calls() == before
    manifest = json.loads((fake.out / "embedded_v3" / "manifest.json").read_text())
    assert (manifest["name"], manifest["version"]) == ("embedded", 3)
    stored = json.loads((fake.out / "settings.json").read_text())["identity"]
    assert DFTSettings(**{x: stored[x] for x in stored if x not in {"gpaw", "ase"}}) == VERSION_3
    card = (fake.out / "embedded_v3" / "README.md").read_text()
    assert "700 eV with F, 600 eV with B C H N O, 500 eV otherwise; Pulay" in card
    assert "1 of the 2 structures of the list have a record." in card
    assert "fmax 0.01 eV/Å, stress 0.03 GPa, at most 60 steps" in card


def test_export_without_a_list_or_with_retry_is_refused(tmp_path, capsys):
    for args in (["--limit", "2"], ["--verify", "1"], ["--list", "embedded-v3", "--retry"]):
        assert main([*args, "--export", "--out", str(tmp_path / "out")]) == 2
        assert "--export goes with --list" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


# --- structures from files ----------------------------------------------------------------------


def test_files_of_any_kind_give_starts_with_safe_names(tmp_path):
    (tmp_path / "Mg O").mkdir()
    ase.io.write(tmp_path / "Mg O" / "POSCAR", bulk("MgO", "rocksalt", a=4.2), format="vasp")
    ase.io.write(tmp_path / "two.xyz", [bulk("Cu"), bulk("Ag")])
    found, problems = starts.from_files([tmp_path / "Mg O" / "POSCAR", tmp_path / "two.xyz"])
    assert problems == []
    assert [start.name for start in found] == ["Mg-O-POSCAR", "two-0", "two-1"]
    assert found[0].symbols == ["Mg", "O"]
    table, _ = starts.from_files([folders.EMBEDDED / "val.parquet"])
    assert table[0].name == "A-hcp-Mg-hcp-0-pbe"


def test_what_is_no_ordered_crystal_is_said_and_does_not_cost_the_others(tmp_path):
    ase.io.write(tmp_path / "molecule.xyz", Atoms("CO", [[0, 0, 0], [0, 0, 1.1]]))
    (tmp_path / "noise.cif").write_text("no crystal\n")
    (tmp_path / "notes.unknown").write_text("no crystal\n")
    mixed = bulk("Cu", cubic=True)
    ase.io.write(tmp_path / "a.cif", mixed)
    text = (tmp_path / "a.cif").read_text()
    lines = [line.replace(" 1.0000", " 0.5000") for line in text.splitlines()]
    (tmp_path / "half.cif").write_text("\n".join(lines))
    said = {
        "absent.cif": "no such file",
        "molecule.xyz": "no crystal",
        "noise.cif": "a damaged CIF",
        "notes.unknown": "no format",
        "half.cif": "has occupancy",
    }
    found, problems = starts.from_files([tmp_path / name for name in (*said, "a.cif")])
    assert [start.name for start in found] == ["a"]
    for (name, why), problem in zip(said.items(), problems, strict=True):
        assert problem.startswith(f"{tmp_path / name}: ")
        assert why in problem
    one_line(lambda: starts.from_files([tmp_path / "a.cif"] * 2), "two structures are called a")


def test_a_dry_run_says_what_would_be_relaxed_without_gpaw(capsys):
    cases = Path(__file__).parent / "cases"
    files = sorted(map(str, cases.glob("reference_*.cif")))
    assert main([*files, "--dry-run"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "reference_capitals: Ca1O1, 2 sites, space group P m -3 m",
        "reference_origin: Si8, 8 sites, space group F d -3 m",
        "reference_p21n: Zr4O4, 8 sites, space group P 2_1/c",
        "reference_rhombohedral: Bi2, 2 sites, space group R -3 m",
    ]
    assert main([*files, str(cases / "angle_zero.cif"), "--dry-run"]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert "no cell has the parameters" in captured.err
    assert captured.out.count("\n") == 4
    assert main(["--list", "embedded-v2", "--limit", "2", "--dry-run"]) == 0
    assert capsys.readouterr().out.count("space group") == 2


def test_a_file_that_cannot_be_read_ends_with_2_and_the_others_are_relaxed(fake, capsys):
    Path("noise.cif").write_text("no crystal\n")
    assert fake.run(fake.file("Cu", 3.5), "noise.cif") == 2
    assert list(fake.records()) == ["Cu"]
    assert "noise.cif: a damaged CIF" in capsys.readouterr().err


# --- the list for version 2 ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def listed():
    return sort_by_cost(version_2())


def test_the_list_is_long_enough_and_much_of_it_can_move(listed):
    assert len(listed) > 100
    assert len({start.name for start in listed}) == len(listed)
    assert sum(internal_freedom(start.geometry) > 0 for start in listed) >= 40
    splits = Counter(split_of(start.symbols) for start in listed)
    assert set(splits) == {"train", "val", "test"}
    assert splits["train"] + splits["val"] > 4 * splits["test"]


def test_the_list_begins_with_few_k_points_and_electrons(listed):
    assert [start.name for start in listed[:2]] == ["B1-Li-F-scaled", "B2m-Li-Hg-scaled"]
    names = [start.name for start in listed]
    assert names.index("B1-Na-F-scaled") < names.index("B1-Ca-S-strained")  # fewer k-points
    assert names.index("GeTe-Ge-Te-scaled") < names.index("A7-Bi-scaled")  # fewer electrons
    assert names.index("C1-Sr-F-scaled") < names.index("C1-Ba-F-shifted")
    assert {split_of(start.symbols) for start in listed[:30]} == {"train", "val", "test"}


def test_nothing_on_the_list_is_in_version_1():
    def keys(geometries):
        return {(reduced_composition(g.numbers), prototype(g)) for g in geometries}

    sets = [load("embedded", split=split) for split in ("train", "val", "test")]
    old = keys(pair for s in sets for i in range(len(s)) for pair in s.geometries(i))
    new = keys(ideal(kind, name) for kind, _, names in CATALOGUE for name in names.split())
    assert not old & new


def test_no_test_system_of_version_1_is_in_the_training_set_of_version_2(listed):
    test = {frozenset(e.symbol for e in s.initial.elements) for s in load("embedded", split="test")}
    train = {frozenset(s.symbols) for s in listed if split_of(s.symbols) == "train"}
    assert test
    assert not test & train


def test_starts_are_the_same_on_every_machine_and_sane(listed):
    start = next(s for s in listed if s.name == "E21-Pb-Ti-O-shifted")
    lattice, frac_coords, _ = start.geometry
    assert start.symbols == ["Pb", "Ti", "O", "O", "O"]
    assert frac_coords[1, 2] * lattice[2, 2] - lattice[2, 2] / 2 == pytest.approx(0.1, abs=1e-6)
    assert lattice[0, 0] == pytest.approx(3.95253678, abs=1e-6)  # drawn from the name
    for start in listed:
        crystal = start.geometry.structure()
        distances = crystal.distance_matrix + 9 * np.eye(len(crystal))
        assert distances.min() > 1.4, start.name
        assert 7 < crystal.volume / len(crystal) < 60, start.name


def internal_freedom(geometry: Geometry) -> int:
    """How many coordinates of the sites the symmetry leaves free, translations apart.

    The number of displacements that every operation maps onto themselves: the mean over the
    operations of (sites that stay - 1) times the trace of the rotation.
    """
    found = symmetry_dataset(geometry, 1e-4)
    if found is None:
        return 3 * len(geometry.numbers) - 3
    turned = np.array(found.operations.rotations)
    moved = np.array(found.operations.translations)
    images = np.einsum("oij,sj->osi", turned, geometry.frac_coords) + moved[:, None]
    apart = images - geometry.frac_coords
    distances = np.linalg.norm((apart - apart.round()) @ geometry.lattice, axis=2)
    stay = (distances < 10 * 1e-4).sum(axis=1)
    return int(np.rint(np.mean((stay - 1) * np.trace(turned, axis1=1, axis2=2))))


def test_freedom_counts_what_symmetry_leaves():
    assert internal_freedom(ideal("B1", "Na-Cl")) == 0
    assert internal_freedom(ideal("B8", "Pt-Sn")) == 0
    assert internal_freedom(ideal("B4", "Zn-O")) == 1
    assert internal_freedom(ideal("B33", "Nb-B")) == 2


def test_half_of_version_2_can_move_or_has_its_symmetry_broken():
    sets = [load("embedded-v2", split=split) for split in ("train", "val", "test")]
    starts = {s.sample_id: Geometry.of(s.initial) for each in sets for s in each}
    free = {name for name, start in starts.items() if internal_freedom(start) > 0}
    broken = {n for n in starts if {"strained", "shifted", "rattled"} & set(n.split("-"))}
    assert (len(starts), len(free), len(free | broken)) == (100, 39, 50)


# --- the list for version 3 ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def listed_v3():
    return version_3()


def new_ones(listed):
    return [start for start in listed if not start.name.startswith(catalogue_v3.AGAIN)]


def test_version_3_is_large_has_most_elements_and_a_test_set(listed_v3):
    new = new_ones(listed_v3)
    assert len(new) == 595  # ids are pinned: what is added comes on top
    assert len({start.name.lower() for start in listed_v3}) == len(listed_v3) == 661
    assert len({symbol for start in new for symbol in start.symbols}) >= 60
    splits = Counter(split_of(start.symbols) for start in listed_v3)
    assert set(splits) == {"train", "val", "test"}
    assert splits["test"] >= 200
    assert max(len(start.symbols) for start in listed_v3) == 24
    ids = "\n".join(sorted(start.name for start in listed_v3))
    assert hashlib.sha256(ids.encode()).hexdigest()[:16] == "195e4e0f4cdad1c1"


def test_most_starts_of_version_3_have_atoms_away_from_their_places():
    moved = []
    for kind, change, compounds in catalogue_v3.CATALOGUE:
        for name in compounds.split()[:2]:
            away = catalogue_v3.start(kind, change, name)
            moves = away.frac_coords - catalogue_v3.undistorted(kind, name).frac_coords
            moves = (moves - moves.round()) @ away.lattice
            moved.append(np.linalg.norm(moves - moves.mean(axis=0), axis=1).mean())
    assert np.mean(np.array(moved) > 0.05) > 0.95
    assert 0.1 < np.median(moved) < 0.2
    assert max(moved) <= catalogue_v3.MOVED[1]


def test_only_what_is_relaxed_again_is_in_version_1_or_2(listed_v3):
    sets = [load(x, split=y) for x in ("embedded", "embedded-v2") for y in checks.SPLITS]
    known = [g for s in sets for i in range(len(s)) for g in s.geometries(i)]
    compositions = {reduced_composition(g.numbers) for g in known}
    rows = [(p, c) for p, _, names in catalogue_v3.CATALOGUE for c in names.split()]
    ideal_ones = [catalogue_v3.undistorted(*row) for row in dict.fromkeys(rows)]
    again = [g for g in ideal_ones if reduced_composition(g.numbers) in compositions]
    assert len(again) > 10
    keys = {(reduced_composition(g.numbers), prototype(g)) for g in known}
    assert not keys & {(reduced_composition(g.numbers), prototype(g)) for g in again}
    tests = [s for s in sets if s.split == "test"]
    assert len(listed_v3) - len(new_ones(listed_v3)) == sum(map(len, tests)) == 66


def test_what_is_relaxed_of_version_3_began_at_the_starts_of_the_list(listed_v3):
    starts = {f"gpaw-{each.name}-0-pbe": each.geometry for each in listed_v3}
    sets = [load("embedded-v3", split=split) for split in checks.SPLITS]
    assert sum(map(len, sets)) >= 66
    for each in sets:
        for i, name in enumerate(each.ids):
            initial, final = each.geometries(i)
            assert np.allclose(initial.lattice, starts[name].lattice, atol=1e-8)
            assert np.allclose(initial.frac_coords, starts[name].frac_coords, atol=1e-8)
            assert split_of(initial.structure().symbol_set) == each.split
            assert not np.array_equal(initial.lattice, final.lattice)


def test_starts_of_version_3_are_the_same_on_every_machine_and_sane(listed_v3):
    start = next(s for s in listed_v3 if s.name == "C4-Os-O-opened")
    assert start.symbols == ["Os", "Os", "O", "O", "O", "O"]
    assert start.geometry.lattice[0, 0] == pytest.approx(4.56605525, abs=1e-6)
    assert start.geometry.frac_coords[2, 0] == pytest.approx(0.33664622, abs=1e-6)
    for start in listed_v3:
        crystal = start.geometry.structure()
        distances = crystal.distance_matrix + 9 * np.eye(len(crystal))
        assert distances.min() > 1.1, start.name
        assert 4.5 < crystal.volume / len(crystal) < 80, start.name


def test_a_change_keeps_the_symmetries_that_it_says():
    groups = {
        change: symmetry_dataset(catalogue_v3.start("C4", change, "Sn-O"), 1e-4).number
        for change in catalogue_v3.Displacement
    }
    assert groups["opened"] == 136
    assert groups["rattled"] == 1
    assert groups["polar"] not in {1, 136}


def test_any_part_of_version_3_has_some_of_each_kind(listed_v3):
    turn = catalogue_v3.in_turn(listed_v3, VERSION_3)
    assert Counter(s.name for s in turn) == Counter(s.name for s in listed_v3)
    first = turn[:100]
    assert sum(s.name.startswith(catalogue_v3.AGAIN) for s in first) == 20
    assert sum(split_of(s.symbols) == "test" for s in new_ones(first)) == 40


def test_settings_of_version_3_look_at_the_elements():
    assert [VERSION_3.cutoff(x) for x in (["Li", "F"], ["Mg", "O"], ["Cu"])] == [700, 600, 500]
    found = [VERSION_3.density(x) for x in (["Cs", "Cl"], ["Zn", "S"], ["Cu"])]
    assert found == pytest.approx([2.1, 2.625, 3.5])
    assert not VERSION_3.unsupported(["Fe", "Si"])
    assert DFTSettings().unsupported(["Fe", "Si"])


def test_errors_of_the_settings_of_version_3_were_measured_with_these_settings():
    found = json.loads(Path(checks.__file__).with_name("convergence_v3.json").read_text())
    for row in found["cutoff"] + found["kpoints"]:
        symbols = re.findall("[A-Z][a-z]?", row["crystal"])
        assert row.get("cutoff", VERSION_3.cutoff(symbols)) == VERSION_3.cutoff(symbols)
        density = row.get("density", VERSION_3.density(symbols))
        assert density == pytest.approx(VERSION_3.density(symbols))
        assert abs(row["a"]) < 0.005
    assert (len(found["cutoff"]), len(found["kpoints"])) == (6, 11)


def test_version_3_has_settings_of_its_own_and_those_of_version_2_have_not_changed():
    old, new = DFTSettings(), VERSION_3
    assert [old.cutoff(x) for x in (["Mg", "O"], ["B", "As"], ["Cu"])] == [800, 700, 600]
    assert (old.pulay, old.density(["Na", "Cl"]), old.fmax) == ("estimate", 2.5, 0.03)
    assert (new.pulay, new.fixed_grid, new.fmax, new.max_stress) == ("measured", True, 0.01, 0.03)


# --- the data set of version 2 ------------------------------------------------------------------


def relaxed(start):
    """A record that shrinks by 1 %, with numbers that are only well formed."""
    lattice, frac_coords, numbers = start.geometry
    cells = (lattice, 0.995 * lattice, 0.99 * lattice)
    n = len(numbers)
    return DFTResult(
        name=start.name,
        start=start.sha256,
        symbols=start.symbols,
        cutoff=600.0,
        frames=[
            {
                "lattice": cell.tolist(),
                "positions": (frac_coords @ cell).tolist(),
                "energy": -1.0 * i,
                "forces": np.zeros((n, 3)).tolist(),
                "stress": np.zeros((3, 3)).tolist(),
            }
            for i, cell in enumerate(cells)
        ],
    )


@pytest.fixture
def version_2_set(tmp_path, listed, monkeypatch):
    folder = tmp_path / "embedded_v2"
    records = mark_unusable([relaxed(start) for start in listed[:30]])
    about = {"gpaw": "1", "ase": "2", "numpy": "3", "python": "4"}
    card = Card(
        title="T", about="", licence="L", settings=DFTSettings(), versions=about, records=records
    )
    for _ in range(2):  # the second replaces the first
        write_set(records, folder, card, "embedded", 2)
    monkeypatch.setitem(folders.EMBEDDED_SETS, "embedded-v2", folder)
    return folder


def test_version_2_is_loaded_beside_version_1_and_never_taken_for_it(version_2_set):
    sets = [load("embedded-v2", split=split) for split in ("train", "val", "test")]
    assert {s.name for s in sets} == {"embedded-v2"}
    assert sum(len(s) for s in sets) == 30
    assert not any(s.quarantined for s in sets)
    assert all(s.redistributable for s in sets)
    assert sets[0].revision != load("embedded").revision
    assert load().name == "embedded-v1"
    assert data_main(["manifest", str(version_2_set), "--check"]) == 0
    assert {path.name for path in version_2_set.parent.iterdir()} == {"embedded_v2"}


def test_a_set_that_is_absent_or_partial_is_not_read(version_2_set, monkeypatch):
    (version_2_set / "manifest.json").unlink()
    one_line(lambda: load("embedded-v2"), "embedded-v2", "python -m benchmarks.dft --list")
    monkeypatch.setitem(folders.EMBEDDED_SETS, "embedded-v2", version_2_set / "absent")
    one_line(lambda: load("embedded-v2"), "not there")


def test_a_damaged_set_is_not_read(version_2_set):
    (version_2_set / "test.parquet").write_bytes(b"")
    with pytest.raises(UserError, match="sha256 differs"):
        load("embedded-v2")


# --- the checks ---------------------------------------------------------------------------------


def test_version_1_agrees_with_itself_and_a_stretched_end_is_seen():
    dataset = load("embedded", split="val")
    ends = [dataset.geometries(i)[1] for i in range(len(dataset))]
    records = [
        relaxed(InitialStructure(name, end)) for name, end in zip(dataset.ids, ends, strict=True)
    ]
    for record, end in zip(records, ends, strict=True):
        record.frames[-1]["lattice"] = (end.lattice * (1.01 if "Ti" in record.name else 1)).tolist()
    differences = checks.against_embedded(records)
    assert [d.lengths < 1e-12 for d in differences] == [True, True, True, False]
    text = checks.report("T", differences, checks.TOLERANCE)
    assert "4 of 4 compared" in text
    assert "within 0.005 Å: 3" in text
    assert differences[-1].volume == pytest.approx(3.03, abs=0.01)


def test_entries_of_version_3_are_checked_with_its_settings(fake, capsys, monkeypatch):
    found = checks.embedded_starts(2, "embedded-v3", VERSION_3)
    first = load("embedded-v3", split=split_of(found[0].symbols))
    initial, _ = first.geometries(first.ids.index(found[0].name))
    assert np.array_equal(found[0].geometry.lattice, initial.lattice)
    monkeypatch.setattr(checks, "embedded_starts", lambda *_: [InitialStructure(*found[0][:2])])
    assert fake.run("--verify", "1", "--list", "embedded-v3") == 1  # the fake is no DFT
    stored = json.loads((fake.out / "settings.json").read_text())["identity"]
    assert DFTSettings(**{x: stored[x] for x in stored if x not in {"gpaw", "ase"}}) == VERSION_3
    text = (fake.out / "verify.md").read_text()
    assert text.startswith("# Version 3, computed again")
    assert found[0].name in text
    for more in (["--list", "embedded-v2"], ["--list", "embedded-v3", "--perturbed"]):
        assert fake.run("--verify", "1", *more) == 2
        assert "error: --" in capsys.readouterr().err


def test_starts_around_minima_come_back_or_are_seen_where_they_are():
    found = checks.perturbed_starts(6)
    assert len({start.name for start in found}) == 6
    assert sum("O" in start.symbols for start in found) == 2
    minima = load("perturbed", split="test")
    records = []
    for k, start in enumerate(found):
        end = minima.geometries(minima.ids.index(start.name))[1]
        lattice, frac_coords, _ = start.geometry if k == 0 else end
        record = relaxed(start)
        record.frames[-1] |= {
            "lattice": lattice.tolist(),
            "positions": (frac_coords @ lattice).tolist(),
        }
        records.append(record)
    differences = checks.against_minima(records)
    assert differences[0].displacement == pytest.approx(0.1, abs=1e-6)
    assert differences[0].lengths > 1e-3
    assert max(d.displacement + d.lengths for d in differences[1:]) < 1e-9
    assert "within 0.025 Å: 5" in checks.report("T", differences, checks.BACK)


def test_starts_of_the_checks_are_there():
    found = checks.convergence_starts()
    names = [start.name for start in found]
    assert names == list(checks.CONVERGENCE)
    assert len(names) == 10
    light = [s for s in found if {"O", "F"} & set(s.symbols)]
    assert len(light) >= 4
    assert len(checks.embedded_starts(5)) == 5


def test_the_error_of_the_settings_is_of_two_runs_of_the_same_start(fake):
    text = FAKE.replace("(mode, kpts) in [version_2, *slope, version_3]", "True")
    assert text != FAKE
    (fake.path / "python" / "gpaw.py").write_text(text)
    assert fake.run("--convergence", "--limit", "1") == 0
    assert (
        "1 of 1 compared: largest difference 0.0000 Å" in (fake.out / "convergence.md").read_text()
    )
    stored = [json.loads((fake.out / x / "settings.json").read_text()) for x in ("usual", "tight")]
    assert [s["identity"]["cutoff_factor"] for s in stored] == [1.0, 1.5]
    assert [s["identity"]["kpt_density"] for s in stored] == [2.5, 4.0]
    assert [s["identity"]["fmax"] for s in stored] == [0.03, pytest.approx(0.005)]
    assert json.loads((fake.out / "convergence.json").read_text())[0]["lengths"] == 0.0


# --- GPAW itself --------------------------------------------------------------------------------


@pytest.mark.slow
def test_gpaw_relaxes_aluminium(tmp_path):
    try:
        gpaw_versions(DEFAULT)
    except UserError as error:
        pytest.skip(str(error))
    ase.io.write(tmp_path / "Al.cif", bulk("Al", a=4.0))
    assert main([str(tmp_path / "Al.cif"), "--out", str(tmp_path / "out")]) == 0
    found = load(str(tmp_path / "out" / "relaxations.parquet"))[0].final
    assert (4 * found.volume) ** (1 / 3) == pytest.approx(4.037, abs=0.003)
