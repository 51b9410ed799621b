"""SevenNet, Nequix, matgl 2: found without their libraries, checked by an energy, run with them."""

import hashlib
import sys

import pytest
from ase.calculators.calculator import Calculator, all_changes

from baselines.potentials import loading, matgl2, nequix, sevenn
from benchmarks.core import Geometry, RelaxSettings, Status, UserError
from benchmarks.engine.execute import run_model
from benchmarks.models.environments import interpreter, locate_model
from benchmarks.models.registry import MODELS
from benchmarks.testing import sample_structures

SPEC = MODELS["sevennet-0"]
SHA256 = "7052cb42b7b3be42b40b97fa0d21077a48c54b5548948fc4dcf346629f813c36"
CALCULATOR = """
from tests.test_sevenn import Constant

def SevenNetCalculator(model, device):
    assert model.endswith("checkpoint_sevennet_0.pth") and device == "cpu"
    return Constant()
"""


class Constant(Calculator):
    """So many eV per atom, whatever the crystal."""

    implemented_properties = ("energy",)
    per_atom = -3.3827

    def __init__(self):
        super().__init__()
        self.type_map = {11: 0, 17: 1}

    def calculate(self, atoms=None, properties=("energy",), system_changes=tuple(all_changes)):
        super().calculate(atoms, properties, system_changes)
        self.results = {"energy": self.per_atom * len(atoms)}


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package `sevenn` in place of the real one, with a file for its weights."""
    folder = tmp_path / "sevenn"
    file = folder / sevenn.PUBLISHED["sevennet-0"].file
    file.parent.mkdir(parents=True)
    file.write_bytes(b"PK\x05\x06" + bytes(18))  # the smallest zip archive
    (folder / "__init__.py").write_text("")
    (folder / "calculator.py").write_text(CALCULATOR)
    for name in [name for name in sys.modules if name.split(".")[0] == "sevenn"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    yield file
    for name in [name for name in sys.modules if name.split(".")[0] == "sevenn"]:
        del sys.modules[name]


def test_weights_are_found_without_importing_the_library(package):
    assert sevenn.weights() == package
    assert "sevenn" not in sys.modules


def test_weights_that_break_off_are_refused(package):
    package.write_bytes(b"PK\x05")
    with pytest.raises(UserError, match="is no torch checkpoint, or breaks off"):
        sevenn.weights()


def test_missing_weights_name_the_environment(package):
    package.unlink()
    with pytest.raises(UserError, match=r"checkpoint_sevennet_0.pth\) .*: make env-sevenn$"):
        sevenn.weights()


def test_the_model_knows_its_elements_and_its_energy(package, monkeypatch):
    assert sevenn.SevenNet(**SPEC.kwargs).elements == {11, 17}
    monkeypatch.setattr(Constant, "per_atom", -3.37)
    with pytest.raises(UserError, match=r"sevennet-0 gives NaCl -3\.3700 eV/atom, which is not"):
        sevenn.SevenNet()


def test_a_package_that_is_not_there(monkeypatch):
    with pytest.raises(UserError, match=r"package no_such_package \(w\.bin\) are not there: fix$"):
        loading.bundled("no_such_package", "w.bin", "fix")


@pytest.mark.slow
@pytest.mark.parametrize("model", [*matgl2.PUBLISHED, *nequix.PUBLISHED, *sevenn.PUBLISHED])
def test_it_relaxes_in_its_environment(model, tmp_path):
    spec = MODELS[model]
    try:
        interpreter(spec)
        (file,) = locate_model(spec, offline=True).weights
    except UserError as error:
        pytest.skip(str(error))
    if model == "sevennet-0":
        assert hashlib.sha256(file.read_bytes()).hexdigest() == SHA256
    structures = sample_structures()
    todo = [(str(i), 0, Geometry.of(structure)) for i, structure in enumerate(structures)]
    records = []
    log = tmp_path / "worker.log"
    settings = RelaxSettings(max_steps=20)
    outcome = run_model(spec, todo, settings=settings, on_records=records.extend, log=log)
    assert outcome.aborted is None, log.read_text()
    assert len(records) == len(structures)
    assert {record.status for record in records} <= {Status.OK, Status.UNCONVERGED}


def test_nequix_weights_are_looked_for_in_the_named_folder_and_in_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("T2_WEIGHTS", raising=False)
    with pytest.raises(UserError, match=r"nequix-mp-1 are not there, not downloading") as caught:
        nequix.weights("nequix-mp-1", offline=True)
    cached = tmp_path / "home/.cache/nequix/models/nequix-mp-1.nqx"
    assert str(caught.value).endswith(f"models/nequix-mp-1.nqx and save it as {cached}")
    cached.parent.mkdir(parents=True)
    cached.write_bytes(b"{}")
    assert nequix.weights("nequix-mp-1", offline=True) == cached
    named = tmp_path / "weights/nequix-mp-1/nequix-mp-1.nqx"
    named.parent.mkdir(parents=True)
    named.write_bytes(b"{}")
    monkeypatch.setenv("T2_WEIGHTS", str(tmp_path / "weights"))
    assert nequix.weights("nequix-mp-1", offline=True) == named
    with pytest.raises(UserError, match=r"no\.nqx: no such file of Nequix weights"):
        nequix.weights(str(tmp_path / "no.nqx"))
