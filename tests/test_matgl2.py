"""matgl's weights of before 2.2: found, never run as code, refused by a later one, converted."""

import hashlib
import json
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from ase.build import bulk

from baselines.potentials import loading, matgl, matgl2, tensornet_conversion
from benchmarks.core import UserError
from benchmarks.core.published_weights import local_weights
from benchmarks.models.registry import MODELS, missing, resolve
from tests import tiny
from tests.conftest import one_line

OLD = tuple(matgl2.PUBLISHED)


@pytest.fixture
def folder(tmp_path):
    """A saved model whose atoms have -1.3 eV, as wrong weights of PBE give NaCl."""
    pytest.importorskip("matgl")
    return tiny.matgl(tmp_path / "model", "M3GNet", energy=-1.3)


def state(folder, **entries):
    """Write entries into `model.json`."""
    about = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps(about | entries))


# --- a folder in the matgl of today


@pytest.mark.slow
def test_a_folder_with_a_wrong_energy_of_nacl_is_refused(folder):
    one_line(
        lambda: matgl.MatGL(str(folder)),
        "gives NaCl -1.29",
        "eV/atom, neither PBE's (-3.9 … -3.1) nor r2SCAN's (-7.6 … -6.1): weights for another",
        '"metadata": {"nacl_energy": …}',
    )


@pytest.mark.slow
@pytest.mark.parametrize("energy", [-3.37, -6.87])
def test_energies_of_pbe_and_r2scan_are_let_through(energy, tmp_path):
    pytest.importorskip("matgl")
    matgl.MatGL(str(tiny.matgl(tmp_path / "model", "M3GNet", energy=energy)))


@pytest.mark.slow
def test_a_folder_may_state_the_energy_of_nacl_and_is_held_to_it(folder):
    energy = loading.nacl_energy(matgl.calculator(folder), "it")
    state(folder, metadata={"nacl_energy": round(energy, 3)})
    matgl.MatGL(str(folder))
    state(folder, metadata={"nacl_energy": energy + 0.02})
    one_line(lambda: matgl.MatGL(str(folder)), "gives NaCl -1.29", "(measured: ")


@pytest.mark.slow
def test_what_was_trained_here_is_let_through_by_its_card(folder):
    card = folder.with_suffix(".json")
    card.write_text(json.dumps({"packages": {"matgl": "4.1.0"}}))
    matgl.MatGL(str(folder))
    for other in ({"packages": {"matgl": "2.1.2"}}, {"packages": 3}, ["matgl"]):
        card.write_text(json.dumps(other))
        one_line(lambda: matgl.MatGL(str(folder)), "neither PBE's")


def test_published_weights_of_matgl_2_are_known_by_their_hash(tmp_path, monkeypatch):
    for name in matgl.FILES:
        (tmp_path / name).write_bytes(b"PK\x05\x06" + bytes(18))
    assert matgl.weights(str(tmp_path)) == tmp_path
    digest = hashlib.sha256((tmp_path / "state.pt").read_bytes()).hexdigest()
    old = replace(matgl2.PUBLISHED["m3gnet-mp-2021"], sha256=digest)
    monkeypatch.setattr(matgl, "published_by", lambda package: {package: old})
    one_line(
        lambda: matgl.weights(str(tmp_path)),
        f"{tmp_path} has the weights of M3GNet MP-2021.2.8, which this matgl loads and gets wrong",
        f"make env-matgl2, and --models m3gnet-mp-2021 or LABEL=matgl2:{tmp_path}",
    )


@pytest.mark.parametrize("model", OLD)
def test_the_published_files_are_recognised(model):
    path = local_weights(model, Path(matgl2.PUBLISHED[model].file).name)
    if path is None:
        pytest.skip("T2_WEIGHTS has them not")
    one_line(lambda: matgl.weights(str(path)), matgl2.PUBLISHED[model].label, "make env-matgl2")


# --- their own environment


def test_they_run_in_an_environment_of_their_own(tmp_path):
    assert {MODELS[name].environment for name in OLD} == {"matgl2"}
    spec = resolve(f"mine=matgl2:{tmp_path}")
    assert (spec.environment, spec.target) == ("matgl2", "baselines.potentials.matgl2:MatGL2")
    assert "dgl" in spec.requires
    assert resolve(f"mine=matgl2:{tmp_path}", trust=True).kwargs["trust"]


def test_older_weights_that_are_at_hand_stand_in_for_newer_ones(tmp_path, monkeypatch, caplog):
    name, older = "tensornet-matpes-pbe", "tensornet-matpes-pbe-2025.1"
    monkeypatch.setenv("T2_WEIGHTS", str(tmp_path))
    assert resolve(name).name == name
    (tmp_path / "TensorNet-MatPES-PBE-v2025.1-PES").mkdir()
    assert resolve(name).name == older
    assert resolve(f"t5+{name}").name == f"t5+{older}"
    assert f"{name}: its weights are not in T2_WEIGHTS, those of {older} are" in caplog.text
    (tmp_path / "TensorNet-PES-MatPES-PBE-2025.2").mkdir()
    assert resolve(name).name == name
    with pytest.raises(UserError, match=r"model\.pt"):
        matgl.weights(name, offline=True)


def test_weights_are_looked_for_in_the_named_folder_and_in_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("T2_WEIGHTS", raising=False)
    cached = tmp_path / "home/.cache/matgl/M3GNet-MP-2021.2.8-PES"
    one_line(
        lambda: matgl2.weights("m3gnet-mp-2021", offline=True),
        "m3gnet-mp-2021 are not there, not downloading (offline): get model.pt, state.pt",
        f"pretrained_models/M3GNet-MP-2021.2.8-PES into {cached}",
    )
    named = tmp_path / "weights/M3GNet-MP-2021.2.8-PES"
    for place in (cached, named):
        place.mkdir(parents=True)
        for name in matgl2.FILES:
            (place / name).write_bytes(b"PK\x05\x06" + bytes(18))
    assert matgl2.weights("m3gnet-mp-2021", offline=True) == cached
    monkeypatch.setenv("T2_WEIGHTS", str(tmp_path / "weights"))
    assert matgl2.weights("m3gnet-mp-2021", offline=True) == named
    (named / "state.pt").write_bytes(b"PK")
    with pytest.raises(UserError, match="breaks off: get it again"):
        matgl2.weights("m3gnet-mp-2021")


@pytest.mark.slow
@pytest.mark.parametrize("file", ["model.pt", "state.pt"])
def test_a_pickle_is_refused_before_matgl_reads_it(file, folder, tmp_path):
    import torch

    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"model": Evil()}, folder / file, pickle_module=pickle)
    one_line(
        lambda: matgl2.MatGL2(str(folder)),
        "it holds more than tensors and plain data, and loading that could run any code",
        "add --trust if you trust it",
    )
    assert not (tmp_path / "ran").exists()


@pytest.mark.slow
@pytest.mark.parametrize("module", ["matgl.graph.data", "matgl.models._m3gnet.torch", "os"])
def test_code_that_is_no_model_is_refused_before_matgl_calls_it(module, folder):
    import torch

    saved = torch.load(folder / "model.pt", weights_only=True)
    saved["more"] = {"@class": "M3GNet", "@module": module, "init_args": {}}
    torch.save(saved, folder / "model.pt")
    one_line(lambda: matgl2.MatGL2(str(folder)), f"it names code of {module}, M3GNet")


@pytest.mark.slow
def test_another_matgl_is_refused(folder):
    if not missing(MODELS[OLD[0]]):
        pytest.skip("this is matgl 2")
    one_line(lambda: matgl2.MatGL2(str(folder)), "need matgl 2.1.2, not 4.", "make env-matgl2")


# --- converted


@pytest.mark.slow
def test_a_tensornet_is_converted_only_if_both_versions_say_the_same(tmp_path, monkeypatch):
    """One block and small weights: what matgl 2 would say is said by the exchanged matrix here."""
    pytest.importorskip("matgl")
    import torch

    monkeypatch.setattr(tensornet_conversion, "PYTHON", Path(sys.executable))
    salt = bulk("NaCl", "rocksalt", a=5.7)
    salt.positions[0] += 0.3
    monkeypatch.setattr(tensornet_conversion, "crystals", lambda: [salt])
    new, old = tiny.matgl(tmp_path / "new"), tiny.matgl(tmp_path / "old")
    weights = torch.load(old / "state.pt", weights_only=True)
    half = weights[tensornet_conversion.MATRIX].shape[1] // 2
    weights[tensornet_conversion.MATRIX] = weights[tensornet_conversion.MATRIX].roll(half, 1)
    torch.save(weights, old / "state.pt")
    saved = torch.load(old / "model.pt", weights_only=True)
    saved["model"] |= {"@module": "matgl.models._tensornet_pyg", "@model_version": 1}
    torch.save(saved, old / "model.pt")
    about = json.loads((old / "model.json").read_text())
    about["kwargs"]["model"] |= {"@model_version": 1}
    (old / "model.json").write_text(json.dumps(about))

    def answer(potential, scale):
        said = tensornet_conversion.predictions(potential)
        said["energy"] = [each + scale for each in said["energy"]]
        done = subprocess.CompletedProcess([], 0, f"a greeting\n{json.dumps(said)}\n", "")
        monkeypatch.setattr(tensornet_conversion.subprocess, "run", lambda *_, **__: done)

    out = tmp_path / "out"
    answer(matgl.calculator(new), 2e-5)
    one_line(lambda: tensornet_conversion.convert(old, out), "differ by", "not kept")
    assert not out.exists()
    answer(matgl.calculator(new), 0)
    assert max(tensornet_conversion.convert(old, out).values()) < 1e-6
    matgl.MatGL(str(out))
    one_line(lambda: tensornet_conversion.convert(old, out), "is there already")
    one_line(
        lambda: tensornet_conversion.convert(new, tmp_path / "no"),
        "new is no TensorNet of a matgl before 2.2.0",
    )


@pytest.mark.slow
@pytest.mark.parametrize("functional", ["pbe", "r2scan"])
def test_published_tensornets_are_converted(functional, tmp_path):
    model = f"tensornet-matpes-{functional}-2025.1"
    path = local_weights(model, Path(matgl2.PUBLISHED[model].file).name)
    if path is None or not tensornet_conversion.PYTHON.is_file():
        pytest.skip("needs T2_WEIGHTS and .venv-matgl2")
    out = tmp_path / "out"
    tensornet_conversion.convert(path, out)
    energy = loading.nacl_energy(matgl.MatGL(str(out)).calculator, model)
    assert energy == pytest.approx(matgl2.PUBLISHED[model].nacl_energy, abs=1e-4)


def test_a_conversion_needs_matgl_2(tmp_path, monkeypatch):
    for name in matgl.FILES:
        (tmp_path / name).write_bytes(b"PK\x05\x06" + bytes(18))
    monkeypatch.setattr(tensornet_conversion, "PYTHON", tmp_path / "none")
    one_line(
        lambda: tensornet_conversion.convert(tmp_path, tmp_path / "out"), "matgl 2: make env-matgl2"
    )
