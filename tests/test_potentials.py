"""Published potentials: found by name, loaded or refused in one line, checked by an energy."""

import json
import pickle
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from ase.data import chemical_symbols
from hypothesis import given, settings
from hypothesis import strategies as st
from pymatgen.core import Lattice, Structure

from baselines.engines.ase_engine import AseRelaxer
from baselines.engines.relaxation_loop import shortest_contact
from baselines.potentials import chgnet, diep, loading, mace, matgl
from benchmarks.core import Geometry, Relaxed, RelaxSettings, Status, UserError
from benchmarks.core.geometry import shortest_distance
from benchmarks.models.registry import find_weights, resolve
from benchmarks.run import main
from benchmarks.testing import ZeroForce, check_relaxer, sample_structures
from tests import tiny
from tests.conftest import one_line
from tests.four_crystals import measure

ARCHITECTURES = {"M3GNet": "m3gnet-matpes-pbe", "TensorNet": "tensornet-matpes-pbe"}
SCORED = {Status.OK, Status.UNCONVERGED}


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty home and cache, and no hub."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / ".cache"))
    return tmp_path


@pytest.fixture
def evil(tmp_path):
    """Something that leaves a mark in `tmp_path` when it is unpickled."""

    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    return Evil()


def salt(a=5.64):
    fcc = Lattice([[0, a / 2, a / 2], [a / 2, 0, a / 2], [a / 2, a / 2, 0]])
    return Structure(fcc, ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])


def cut(path):
    """The file without its end, as a download that broke off leaves it."""
    path.write_bytes(path.read_bytes()[:-100])


# --- the contract, one line each


@pytest.mark.slow
@pytest.mark.parametrize("model", ["chgnet-0.2.0", "chgnet-r2scan"])
def test_other_chgnets_keep_the_contract(model):
    pytest.importorskip("chgnet")
    check_relaxer(
        chgnet.CHGNet(model, settings=RelaxSettings(max_steps=20)), sample_structures()[:3]
    )


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_matgl_keeps_the_contract(architecture, tmp_path):
    pytest.importorskip("matgl")
    folder = tiny.matgl(tmp_path / "model", architecture)
    outcomes = check_relaxer(matgl.MatGL(str(folder), settings=RelaxSettings(max_steps=5)))
    assert {outcome.status for outcome in outcomes} <= SCORED


@pytest.mark.slow
def test_a_mace_of_ones_own_keeps_the_contract(tmp_path):
    pytest.importorskip("mace")
    outcomes = check_relaxer(
        mace.Mace(str(tiny.mace(tmp_path / "m.model")), settings=RelaxSettings(max_steps=5))
    )
    assert {outcome.status for outcome in outcomes} <= SCORED


@pytest.mark.slow
def test_a_chgnet_of_ones_own_keeps_the_contract(tmp_path):
    pytest.importorskip("chgnet")
    check_relaxer(
        chgnet.CHGNet(str(tiny.chgnet(tmp_path / "c.pt")), settings=RelaxSettings(max_steps=5))
    )


@pytest.mark.slow
def test_diep_keeps_the_contract():
    pytest.importorskip("diep")
    outcomes = check_relaxer(
        diep.DIEP(settings=RelaxSettings(max_steps=3)), sample_structures()[:3]
    )
    assert {outcome.status for outcome in outcomes} <= SCORED


@pytest.mark.slow
@pytest.mark.parametrize("model", [*mace.PUBLISHED, *matgl.PUBLISHED])
def test_published_weights_keep_the_contract(model):
    package, relaxer = (mace, mace.Mace) if model in mace.PUBLISHED else (matgl, matgl.MatGL)
    pytest.importorskip(relaxer.__name__.lower())
    try:
        package.weights(model, offline=True)
    except UserError as error:
        pytest.skip(str(error))
    outcomes = check_relaxer(relaxer(model))
    assert {outcome.status for outcome in outcomes} <= SCORED


# --- weights by name


@pytest.mark.slow
@pytest.mark.parametrize(("architecture", "model"), ARCHITECTURES.items())
def test_matgl_finds_published_weights_in_its_cache(architecture, model, home):
    pytest.importorskip("matgl")
    repo = f"{architecture}-PES-MatPES-PBE-2025.2"
    folder = tiny.cached_matgl(home, repo, architecture=architecture)
    assert matgl.weights(model) == folder
    (outcome,) = matgl.MatGL(model, settings=RelaxSettings(max_steps=1)).relax([salt()])
    assert outcome.status in SCORED
    assert outcome.energy == pytest.approx(2 * tiny.ENERGY, abs=0.1)


def test_missing_matgl_weights_say_what_to_fetch_and_where_to_put_it(home):
    one_line(
        lambda: matgl.weights("tensornet-matpes-r2scan", offline=True),
        "not downloading (offline)",
        "materialyze/TensorNet-PES-MatPES-r2SCAN-2025.2",
        str(home / ".cache" / "matgl"),
    )


def test_without_network_the_download_of_matgl_weights_fails_in_one_line(home, monkeypatch):
    def unreachable(*args, **kwargs):
        raise ConnectionError("Network is unreachable\nand more")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", unreachable)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    one_line(
        lambda: matgl.weights("m3gnet-matpes-pbe"),
        "cannot be downloaded (ConnectionError: Network is unreachable)",
    )


def test_a_download_ends_in_the_folder_of_the_files(home, monkeypatch):
    def fetch(repo, name, cache_dir):
        path = Path(cache_dir) / repo.replace("/", "--") / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("data", "")
        return str(path)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", fetch)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    folder = home / ".cache" / "matgl" / "materialyze--M3GNet-PES-MatPES-PBE-2025.2"
    assert matgl.weights("m3gnet-matpes-pbe") == folder


def test_looking_for_weights_does_not_import_torch(home):
    code = (
        "import sys; from benchmarks.core import UserError;"
        "from benchmarks.models.registry import MODELS, find_weights\n"
        "for spec in MODELS.values():\n"
        "    if spec.family != 'gnn': continue\n"
        "    try: find_weights(spec, offline=True)\n"
        "    except UserError as error: print(spec.name)\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    *missing, torch = done.stdout.split()
    assert set(missing) >= {*mace.PUBLISHED, *matgl.PUBLISHED}
    assert "mace" not in missing
    assert torch == "False"


def test_missing_weights_end_the_command_before_any_model_runs(home, capsys):
    pytest.importorskip("matgl")
    out = home / "runs"
    models = ["--models", "tensornet-matpes-pbe", "--offline", "--out", str(out)]
    assert main(models) == 2
    said = capsys.readouterr()
    assert said.err.count("\n") == 1
    assert said.err.startswith("error: the weights of tensornet-matpes-pbe are not there")
    assert not out.exists()


@pytest.mark.slow
def test_files_of_mace_are_those_that_mace_torch_knows(monkeypatch, home):
    pytest.importorskip("mace")
    from mace.calculators import foundations_models as theirs

    for known in mace.PUBLISHED.values():
        assert theirs.mace_mp_urls[known.package_name] == f"{mace.DOWNLOADS}/{known.file}"


# --- an energy that is known


@pytest.mark.slow
@pytest.mark.parametrize("model", chgnet.PUBLISHED)
def test_every_chgnet_gives_the_energy_it_gave(model):
    pytest.importorskip("chgnet")
    known = chgnet.PUBLISHED[model]
    potential = chgnet.calculator(chgnet.weights(model), version=known.package_name)
    loading.check_reference_energy(potential, loading.reference_energy(known), model)
    other = loading.R2SCAN if known.package_name != "r2scan" else loading.PBE
    one_line(lambda: loading.check_reference_energy(potential, other, model), model, "eV/atom")


@pytest.mark.slow
@pytest.mark.parametrize("energy", [-1.30, -6.87, float("nan")])
def test_published_weights_with_another_energy_are_refused(energy, home):
    pytest.importorskip("matgl")
    tiny.cached_matgl(home, "TensorNet-PES-MatPES-PBE-2025.2", energy=energy)
    one_line(lambda: matgl.MatGL("tensornet-matpes-pbe"), "tensornet-matpes-pbe gives NaCl")


@pytest.mark.slow
def test_the_same_for_mace_and_its_own_are_believed(home):
    pytest.importorskip("mace")
    cached = home / ".cache" / "mace" / "macempa0mediummodel"
    tiny.mace(cached, energy=-1.3)
    one_line(lambda: mace.Mace("mace-mpa-0"), "mace-mpa-0 gives NaCl -1.")
    assert mace.Mace(str(cached)).elements >= {11, 17}
    tiny.mace(cached)
    (outcome,) = mace.Mace("mace-mpa-0", settings=RelaxSettings(max_steps=1, offline=True)).relax(
        [salt()]
    )
    assert outcome.energy == pytest.approx(2 * tiny.ENERGY, abs=0.1)


def test_a_potential_that_raises_over_salt_has_wrong_weights():
    one_line(
        lambda: loading.check_reference_energy(EMT(), loading.PBE, "x"), "x has no energy for NaCl"
    )


# --- files that are something else


def test_files_that_break_off_are_refused_before_torch_reads_them(tmp_path):
    path = tmp_path / "w.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data.pkl", "x" * 1000)
    assert loading.intact(path) == path
    cut(path)
    for weights in (chgnet.weights, mace.weights):
        one_line(lambda weights=weights: weights(str(path)), "breaks off: get it again")
    path.write_bytes(pickle.dumps({"a": 1}))
    one_line(lambda: loading.intact(path), "is no torch checkpoint")
    one_line(lambda: chgnet.weights(str(tmp_path / "none")), "no such file")
    one_line(lambda: matgl.weights(str(tmp_path)), "model.pt, state.pt, model.json not there")


@pytest.mark.slow
def test_a_truncated_matgl_file_ends_the_command(tmp_path, capsys):
    pytest.importorskip("matgl")
    folder = tiny.matgl(tmp_path / "model")
    cut(folder / "state.pt")
    out = tmp_path / "runs"
    assert main(["--models", f"mine=matgl:{folder}", "--out", str(out)]) == 2
    assert "state.pt is no torch checkpoint, or breaks off" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.slow
def test_weights_of_another_library_are_refused_in_one_line(tmp_path):
    pytest.importorskip("chgnet")
    pytest.importorskip("mace")
    pytest.importorskip("matgl")
    own, folder = tiny.chgnet(tmp_path / "c.pt"), tiny.matgl(tmp_path / "model")
    one_line(lambda: mace.Mace(str(own)), "c.pt cannot be loaded", "wrong weights?")
    one_line(lambda: chgnet.CHGNet(str(folder / "state.pt")), "cannot be loaded")
    (folder / "model.pt").write_bytes(own.read_bytes())
    one_line(lambda: matgl.MatGL(str(folder)), "cannot be loaded")


@pytest.mark.slow
def test_weights_of_an_older_matgl_are_refused_not_warned_of(tmp_path):
    pytest.importorskip("matgl")
    folder = tiny.matgl(tmp_path / "model")
    card = json.loads((folder / "model.json").read_text())
    card["@model_version"] = 2
    (folder / "model.json").write_text(json.dumps(card))
    one_line(lambda: matgl.MatGL(str(folder)), "was written by an older matgl")


@pytest.mark.slow
def test_a_pickle_runs_nothing(tmp_path, evil, monkeypatch):
    import torch

    pytest.importorskip("chgnet")
    pytest.importorskip("matgl")
    own, folder = tmp_path / "c.pt", tiny.matgl(tmp_path / "model")
    torch.save({"model": evil}, own)
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")  # as mace-torch sets it
    one_line(lambda: chgnet.CHGNet(str(own)), "could run any code")
    torch.save({"model": evil}, folder / "model.pt")
    one_line(lambda: matgl.MatGL(str(folder)), "could run any code")
    touch = {"@class": "Path", "@module": "pathlib", "init_args": {}}
    torch.save({"model": touch}, folder / "model.pt")
    one_line(lambda: matgl.MatGL(str(folder)), "it names code of pathlib")
    assert not (tmp_path / "ran").exists()


@pytest.fixture
def own_diep(tmp_path):
    """The folder of the wheel, as a model of one's own."""
    pytest.importorskip("diep")
    return shutil.copytree(diep.weights(), tmp_path / "own")


@pytest.mark.slow
def test_a_diep_of_ones_own_has_to_have_an_energy_of_a_functional(own_diep):
    import torch

    assert 70 in diep.DIEP(str(own_diep)).elements
    state = torch.load(own_diep / "state.pt", weights_only=True)
    state["element_refs.property_offset"] += 5
    torch.save(state, own_diep / "state.pt")
    one_line(
        lambda: diep.DIEP(str(own_diep)),
        "gives NaCl -1.89",
        "weights for another version of diep than 2.",
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "name"), [("os", "getcwd"), ("diep.models._diep", "Path"), ("diep.graph", "DIEP")]
)
def test_a_diep_that_names_other_code_is_refused_before_it_is_called(module, name, own_diep):
    import torch

    saved = torch.load(own_diep / "model.pt", weights_only=True)
    saved["more"] = {"@class": name, "@module": module, "init_args": {}}
    torch.save(saved, own_diep / "model.pt")
    one_line(
        lambda: diep.DIEP(str(own_diep)),
        f"it names code of {module}, {name}, which is no model of diep",
    )


def test_a_folder_that_is_no_diep_is_told_before_anything_is_loaded(tmp_path):
    spec = resolve(f"mine=diep:{tmp_path}")
    assert (spec.target, spec.extra) == ("baselines.potentials.diep:DIEP", "diep")
    one_line(lambda: find_weights(spec, offline=True), "is no saved model of diep: model.pt, state")
    assert resolve(f"mine=diep:{tmp_path}", trust=True).kwargs["trust"]


# --- structures that a potential cannot relax


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_matgl_without_parameters_for_an_element_does_not_guess(architecture, tmp_path):
    pytest.importorskip("matgl")
    relaxer = matgl.MatGL(
        str(tiny.matgl(tmp_path / "model", architecture)), settings=RelaxSettings(max_steps=2)
    )
    iron = Structure(Lattice.cubic(2.8), ["Fe"], [[0, 0, 0]])
    lonely = Structure(Lattice.cubic(15), ["Na"], [[0, 0, 0]])
    unknown, alone = relaxer.relax([iron, lonely])
    assert unknown == Relaxed(status=Status.UNSUPPORTED, detail="no parameters for Fe")
    assert alone.status is Status.OK
    assert alone.energy == pytest.approx(tiny.ENERGY, abs=0.1)


@pytest.mark.parametrize(
    ("structure", "detail"),
    [
        (Structure(Lattice.cubic(4), ["Cu"] * 2, [[0, 0, 0]] * 2), "two atoms 0.00 Å apart"),
        (Structure(Lattice.cubic(4), ["Cu"] * 2, [[0, 0, 0], [3, 5, -1.1]]), "0.40 Å apart"),
        (Structure([[4, 0, 0], [0, 4, 0], [0, 0, 0.01]], ["Cu"], [[0, 0, 0]]), "0.01 Å apart"),
        (Structure([[40, 0, 0], [0, 40, 0], [17.3, 11.7, 1e-9]], ["Cu"], [[0, 0, 0]]), "apart"),
    ],
    ids=["overlapping", "images overlap", "flat", "flat and skewed"],
)
def test_fused_atoms_are_told_before_the_potential_is_asked(structure, detail):
    (outcome,) = AseRelaxer(ZeroForce).relax([structure])
    assert outcome.status is Status.UNSUPPORTED
    assert detail in outcome.detail
    assert outcome.detail.endswith("in the input")


def test_a_thin_cell_is_relaxed():
    thin = Structure(Lattice.tetragonal(12, 0.8), ["Cu"], [[0, 0, 0]])
    (outcome,) = AseRelaxer(EMT, settings=RelaxSettings(max_steps=3)).relax([thin])
    assert outcome.status in {*SCORED, Status.INVALID}
    assert outcome.n_force_evals >= 1


class Pull(Calculator):
    """Pulls the second atom to the first, whatever is between them."""

    implemented_properties = ("energy", "forces", "stress")

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        way = atoms.positions[0] - atoms.positions[1]
        forces = np.array([-way, way]) * 5
        self.results = {"energy": 0.0, "forces": forces, "stress": np.zeros(6)}


def test_atoms_that_fuse_on_the_way_are_invalid_at_once():
    start = Structure(Lattice.cubic(6), ["Cu"] * 2, [[0, 0, 0], [0.3, 0, 0]])
    (outcome,) = AseRelaxer(Pull).relax([start])
    assert outcome.status is Status.INVALID
    assert "Å apart" in outcome.detail
    assert outcome.n_force_evals < 40
    assert len(outcome.structure) == 2


@given(
    st.lists(st.floats(-2.5, 2.5), min_size=9, max_size=9),
    st.lists(st.floats(-3, 3), min_size=12, max_size=12),
)
@settings(max_examples=200, deadline=None)
def test_contact_is_the_distance_of_the_metrics(cell, sites):
    cell, sites = np.array(cell).reshape(3, 3), np.array(sites).reshape(4, 3)
    if abs(np.linalg.det(cell)) < 1e-6:
        return
    exact = shortest_distance(Geometry(cell, sites, np.ones(4, dtype=np.int16)))
    found = shortest_contact(cell, sites @ cell)
    if abs(exact - 0.5) > 1e-6:
        assert (found is not None) == (exact < 0.5)
    assert found is None or found >= exact - 1e-7


def test_a_cell_without_volume_has_no_distances():
    assert shortest_contact(np.diag([4.0, 4.0, 0.0]), np.zeros((1, 3))) == 0.0
    assert shortest_contact(np.full((3, 3), np.nan), np.zeros((1, 3))) == 0.0


# --- own files on the command line


def test_own_files_are_found_by_their_kind(tmp_path):
    (tmp_path / "w.pt").write_bytes(b"x")
    spec = resolve(f"mine=chgnet:{tmp_path / 'w.pt'}")
    assert (spec.target, spec.functional) == ("baselines.potentials.chgnet:CHGNet", "not stated")
    one_line(lambda: find_weights(spec, offline=True), "w.pt is no torch checkpoint")
    spec = resolve(f"mine=matgl:{tmp_path}")
    assert (spec.target, spec.extra) == ("baselines.potentials.matgl:MatGL", "matgl")
    assert spec.kwargs == {"model": str(tmp_path)}
    one_line(lambda: find_weights(spec, offline=True), "is no saved model of matgl")


def test_a_file_called_like_a_model_is_the_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "chgnet").write_bytes(b"x")
    assert resolve("mine=chgnet:chgnet").kwargs == {"model": str(tmp_path / "chgnet")}


# the packaged MACE of all elements


@pytest.fixture(scope="module")
def packaged_mace():
    pytest.importorskip("mace")
    return mace.calculator(mace.weights("mace"))


def test_the_packaged_mace_is_small_and_knows_89_elements(packaged_mace):
    assert mace.weights("mace").stat().st_size < 8e6
    assert len(packaged_mace.z_table.zs) == 89


def test_the_packaged_mace_relaxes_what_everybody_knows():
    """To 4 % of PBE's lattice constants; forces and stress are slopes of the energy."""
    pytest.importorskip("mace")
    found = measure("mace")
    for name, a in {"NaCl": 5.69, "Si": 5.47, "MgO": 4.25, "Cu": 3.63}.items():
        assert found["lattice"][name] == pytest.approx(a, rel=0.04), name
    assert found["asymmetric"]["forces"] < 1e-3
    assert found["asymmetric"]["stress"] < 2e-4


def test_elements_that_do_not_repel_are_those_that_the_readme_names(packaged_mace):
    """Energies of the crystals that ASE knows, compressed to shares of their bond length."""
    dips = {0.6: set(), 0.7: set()}
    known = 0
    for symbol in chemical_symbols[3:84]:
        try:
            crystal = bulk(symbol)
        except (ValueError, KeyError):
            continue
        known += 1
        energies = {}
        for share in (0.6, 0.65, 0.7, 0.75, 0.8, 0.9):
            atoms = crystal.copy()
            atoms.set_cell(crystal.cell * share, scale_atoms=True)
            atoms.calc = packaged_mace
            energies[share] = atoms.get_potential_energy()
        for lowest, found in dips.items():
            rising = [energy for share, energy in energies.items() if share >= lowest]
            if rising != sorted(rising, reverse=True):
                found.add(symbol)
    assert known == 67
    assert dips[0.7] == {"Ar", "Ir", "Mo"}
    assert len(dips[0.6]) == 67 - 51


@pytest.mark.parametrize("name", ["NaCl", "MgO", "Si", "Cu", "Fe", "GaAs", "CsCl", "Al"])
def test_compressed_cells_of_the_packaged_mace_repel(packaged_mace, name):
    """Down to 0.6 of the bond length the energy rises: nothing collapses."""
    kinds = {"NaCl": "rocksalt", "MgO": "rocksalt", "GaAs": "zincblende", "CsCl": "cesiumchloride"}
    lengths = {"NaCl": 5.69, "MgO": 4.25, "GaAs": 5.75, "CsCl": 4.20}
    crystal = bulk(name, kinds[name], a=lengths[name]) if name in kinds else bulk(name)
    energies = []
    for share in (0.6, 0.7, 0.8, 0.9):
        atoms = crystal.copy()
        atoms.set_cell(crystal.cell * share, scale_atoms=True)
        atoms.calc = packaged_mace
        energies.append(atoms.get_potential_energy())
    assert energies == sorted(energies, reverse=True)
