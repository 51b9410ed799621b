"""No file runs code of its own without `--trust`: one harmless proof for each way in.

Each proof is a file that would leave a mark, fetch a file or clear a cache when it is loaded.
"""

import json
import pickle
import re
import shutil
from pathlib import Path

import pytest
from pymatgen.core import Lattice, Structure

from baselines.potentials import chgnet, matgl
from benchmarks.core import RelaxSettings, Status
from benchmarks.core.training_identity import read_state
from benchmarks.models.registry import resolve
from benchmarks.run import main
from tests import tiny
from tests.conftest import one_line

SALT = Structure(Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
SHORT = RelaxSettings(max_steps=0)


class Evil:
    """Leaves the file `mark` when it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return (Path.touch, (self.mark,))


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty home, with something in matgl's cache."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    cache = tmp_path / "home" / ".cache" / "matgl"
    cache.mkdir(parents=True)
    (cache / "kept").touch()
    return tmp_path / "home"


def named(module, name, **arguments):
    """What matgl reads as: call this name of this module with these arguments."""
    return {"@class": name, "@module": module, "@model_version": 99, "init_args": arguments}


def folder_of(path, **entries):
    """A saved model of matgl whose model.pt holds the entries."""
    import torch

    folder = tiny.matgl(path)
    saved = torch.load(folder / "model.pt", weights_only=True)
    torch.save(saved | entries, folder / "model.pt")
    return folder


# --- folders of matgl


CALLS = [
    ("matgl.graph.data", "MGLDataset", {"root": "FOLDER"}),
    ("matgl.config", "clear_cache", {"confirm": False}),
    ("matgl", "clear_cache", {"confirm": False}),
    ("matgl.utils.io", "load_model", {"path": "FOLDER"}),
    ("matgl.utils.io", "hf_hub_download", {"repo_id": "a/b", "filename": "c"}),
    ("matgl.models._tensornet", "logging.shutdown", {}),
    ("matgl.models", "MatGLModel", {}),
    ("matgl.apps.pes", "torch", {}),
    ("matgl.layers", "MLP", {"dims": [1, 1]}),
    ("pathlib", "Path", {}),
]
"""Code that a folder can name: matgl would call each, and the first five read, remove or fetch."""


def evil_folder(path, mark, module, name, arguments):
    """A folder that names code, with pickles where matgl's data sets would look for them."""
    import torch

    arguments = {key: str(path) if value == "FOLDER" else value for key, value in arguments.items()}
    folder_of(path, model=named(module, name, **arguments))
    for file in ("pyg_graph.pt", "lattice.pt", "state_attr.pt", "graph.pt"):
        torch.save(Evil(mark), path / file)
    return path


@pytest.mark.slow
@pytest.mark.parametrize(("module", "name", "arguments"), CALLS)
def test_a_matgl_folder_calls_models_of_matgl_only(module, name, arguments, tmp_path, home):
    pytest.importorskip("matgl")
    folder = evil_folder(tmp_path / "model", tmp_path / "ran", module, name, arguments)
    before = sorted(path.name for path in folder.iterdir())
    one_line(
        lambda: matgl.MatGL(str(folder)),
        f"{folder}: it names code of {module}, {name}, which is no model of matgl",
        "and would be run: add --trust if you trust it",
    )
    assert not (tmp_path / "ran").exists()
    assert (home / ".cache" / "matgl" / "kept").exists()
    assert sorted(path.name for path in folder.iterdir()) == before


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["ase", "torchsim"])
def test_a_run_refuses_such_a_folder_in_one_line(engine, tmp_path, home, capfd):
    pytest.importorskip("matgl")
    pytest.importorskip("torch_sim")
    folder = evil_folder(tmp_path / "model", tmp_path / "ran", *CALLS[0])
    command = ["--models", f"mine=matgl:{folder}", "--engine", engine, "--limit", "1"]
    assert main([*command, "--out", str(tmp_path / "runs")]) == 2
    error = capfd.readouterr().err.splitlines()[-1]
    assert error.startswith(f"error: {folder}: it names code of ")
    assert error.endswith("and would be run: add --trust if you trust it")
    assert not (tmp_path / "ran").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "hidden",
    [
        {"more": named("matgl.config", "clear_cache", confirm=False)},
        {"more": [({"deep": named("matgl.config", "clear_cache", confirm=False)},)]},
        {"model": named("matgl.models", "TensorNet", part=named("os", "getcwd"))},
        {"model": named("matgl.models._tensornet", "TensorNet", part=[named("os", "getcwd")])},
        {"model": {"@module": "os", "init_args": {}}},
        {"model": named(["matgl.models"], "TensorNet")},
        {"model": named("matgl.models\nTensorNet", "x\ny")},
    ],
    ids=["beside", "deep", "in the model", "in a list", "no class", "no text", "lines"],
)
def test_names_are_found_at_any_depth(hidden, tmp_path, home):
    pytest.importorskip("matgl")
    folder = folder_of(tmp_path / "model", **hidden)
    one_line(lambda: matgl.MatGL(str(folder)), "it names code of", "add --trust if you trust it")
    assert (home / ".cache" / "matgl" / "kept").exists()


@pytest.mark.slow
def test_a_trusted_matgl_folder_loads_what_it_names(tmp_path, monkeypatch):
    """What it names is a model here that only another module than matgl's models has."""
    pytest.importorskip("matgl")
    (tmp_path / "my_model.py").write_text("from matgl.models import TensorNet as Mine\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    folder = tiny.matgl(tmp_path / "model")
    import torch

    saved = torch.load(folder / "model.pt", weights_only=True)
    mine = saved["model"] | {"@module": "my_model", "@class": "Mine"}
    torch.save(saved | {"model": mine}, folder / "model.pt")
    one_line(lambda: matgl.MatGL(str(folder)), "it names code of my_model, Mine", "add --trust")
    spec = resolve(f"mine=matgl:{folder}", trust=True)
    assert spec.kwargs == {"model": str(folder), "trust": True}
    (outcome,) = matgl.MatGL(**spec.kwargs, settings=SHORT).relax([SALT])
    assert outcome.status in {Status.OK, Status.UNCONVERGED}


@pytest.mark.slow
@pytest.mark.parametrize("trust", [False, True])
@pytest.mark.parametrize("file", ["model.pt", "state.pt"])
def test_a_pickle_in_a_matgl_folder_is_never_read(file, trust, tmp_path):
    pytest.importorskip("matgl")
    import torch

    folder = tiny.matgl(tmp_path / "model")
    torch.save({"model": Evil(tmp_path / "ran")}, folder / file)
    one_line(
        lambda: matgl.MatGL(str(folder), trust=trust),
        "it holds more than tensors and plain data, and loading that could run any code",
        "with or without --trust",
    )
    assert not (tmp_path / "ran").exists()


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["M3GNet", "TensorNet", "CHGNet", "SO3Net"])
def test_models_of_matgl_need_no_trust(architecture, tmp_path):
    pytest.importorskip("matgl")
    folder = tiny.matgl(tmp_path / "model", architecture)
    matgl.refuse_foreign(folder)
    matgl.refuse_foreign(Path("baselines/tensornet_embedded").resolve())


# --- checkpoints of CHGNet and MACE


@pytest.mark.slow
def test_a_pickled_chgnet_is_read_only_when_trusted(tmp_path, monkeypatch):
    pytest.importorskip("chgnet")
    import torch

    path = tiny.chgnet(tmp_path / "c.pt")
    saved = torch.load(path, weights_only=True)
    torch.save(saved | {"more": Evil(tmp_path / "ran")}, path)
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")  # as mace-torch sets it
    one_line(lambda: chgnet.CHGNet(str(path)), "could run any code): add --trust if you trust it")
    assert not (tmp_path / "ran").exists()
    trusted = chgnet.CHGNet(**resolve(f"mine=chgnet:{path}", trust=True).kwargs, settings=SHORT)
    assert (tmp_path / "ran").exists()
    assert trusted.relax([SALT])[0].status in {Status.OK, Status.UNCONVERGED}


def test_trust_changes_nothing_of_models_that_hold_no_code(tmp_path):
    for kind in ("t5", "gnn-delta"):
        assert resolve(f"mine={kind}:{tmp_path}", trust=True).kwargs == {"path": str(tmp_path)}
    assert "trust" not in resolve("chgnet", trust=True).kwargs


# --- files of our own formats


def test_a_pickle_is_no_model_of_gnn_delta(tmp_path):
    pytest.importorskip("matgl")
    from baselines.delta import network

    (tmp_path / "m.safetensors").write_bytes(pickle.dumps(Evil(tmp_path / "ran")))
    one_line(lambda: network.GraphDelta(tmp_path / "m.safetensors"), "no model of `baselines.train")
    assert not (tmp_path / "ran").exists()


def test_a_pickle_is_no_gradient_boosting(tmp_path):
    from baselines import gbr

    (tmp_path / "m.skops").write_bytes(pickle.dumps(Evil(tmp_path / "ran")))
    one_line(lambda: gbr.load(tmp_path / "m.skops"), "m.skops is no file of `baselines.train gbr`")
    assert not (tmp_path / "ran").exists()


def test_a_type_of_others_in_skops_is_not_built(tmp_path):
    from skops.io import dump

    from baselines import gbr

    dump({"models": Evil(tmp_path / "ran")}, tmp_path / "m.skops")
    one_line(lambda: gbr.load(tmp_path / "m.skops"), "m.skops", "types that are not trusted")
    assert not (tmp_path / "ran").exists()


LOADERS = re.compile(
    r"\b(?:torch\.load|pickle\.loads?|joblib\.load|np\.load|dill\.loads?|shelve\.open|marshal\.loads?)"
    r"\(|trust_remote_code|allow_pickle|weights_only|\byaml\.(?:unsafe_|full_)?load\(|\b(?:eval|exec)\("
)
"""Calls and options by which Python runs code of a file."""
SAFE = re.compile(
    r"torch\.load\(.*weights_only=(?:True|not trust)\b|trust_remote_code=False|allow_pickle=False"
    r"|^\s*weights_only=True,|\.eval\(\)|`[^`]*(?:weights_only|pickle)[^`]*`"
)
OUR_OWN = {
    # what the driver has just written to its child, and what a relaxer has just answered
    ("benchmarks/models/environments.py", "pickle.load(sys.stdin.buffer)"),
    ("benchmarks/testing.py", "pickle.loads(pickle.dumps(outcome))"),
}


def test_every_loader_that_could_run_code_is_told_not_to():
    root, found, unsafe = Path(__file__).parents[1], 0, []
    for package in ("benchmarks", "baselines", "t2relax", "leaderboard", "studies"):
        for path in sorted((root / package).rglob("*.py")):
            name = path.relative_to(root).as_posix()
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
                if not LOADERS.search(line):
                    continue
                found += 1
                own = any(name == file and text in line for file, text in OUR_OWN)
                if not (own or SAFE.search(line)):
                    unsafe.append(f"{name}:{number}: {line.strip()}")
    assert found > 10
    assert unsafe == []


@pytest.mark.parametrize("beside", ["pytorch_model.bin", "training_args.bin", "adapter_model.bin"])
def test_a_t5_folder_runs_nothing_of_what_lies_in_it(beside, tmp_path):
    import torch

    from t2relax.lm import checkpoint, t5

    folder = shutil.copytree(checkpoint.CHECKPOINT, tmp_path / "t5")
    torch.save(Evil(tmp_path / "ran"), folder / beside)
    config = json.loads((folder / "config.json").read_text())
    mine = {"AutoConfig": "code.Config", "AutoModelForSeq2SeqLM": "code.Model"}
    (folder / "config.json").write_text(json.dumps(config | {"auto_map": mine}))
    (folder / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    t5.load(folder)
    (folder / "model.safetensors").write_bytes(pickle.dumps(Evil(tmp_path / "ran")))
    one_line(lambda: t5.load(folder), "t5 cannot be loaded")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "is damaged"),
        ("[1]", "is damaged"),
        ("{}", "lacks codec_version, max_sites, training, vocabulary, vocabulary_sha256"),
        ('{"codec_version": 4, "training": 7}', "is damaged"),
    ],
)
def test_a_damaged_t5_folder_is_one_line(text, words, tmp_path):
    from t2relax.lm import checkpoint, t5

    folder = shutil.copytree(checkpoint.CHECKPOINT, tmp_path / "t5")
    (folder / "t2relax.json").write_text(text)
    for read in (t5.load, checkpoint.decoding_identity, checkpoint.origin):
        one_line(lambda read=read: read(folder), "t2relax.json", words, "get the checkpoint again")


def test_a_published_t5_brings_no_code_of_its_own(tmp_path):
    from transformers import T5Config, T5ForConditionalGeneration

    from t2relax.lm.pretrained import from_pretrained
    from t2relax.text.tokens import Tokenizer

    small = T5Config(vocab_size=32, d_model=8, d_kv=4, num_heads=2, d_ff=8, num_layers=1)
    T5ForConditionalGeneration(small).save_pretrained(tmp_path / "hub")
    about = {"tokenizer_class": "Mine", "auto_map": {"AutoTokenizer": ["code.Mine", None]}}
    (tmp_path / "hub" / "tokenizer_config.json").write_text(json.dumps(about))
    mark = tmp_path / "ran"
    (tmp_path / "hub" / "code.py").write_text(f"open({str(mark)!r}, 'w')\nclass Mine: pass\n")
    one_line(lambda: from_pretrained(str(tmp_path / "hub"), Tokenizer()), "--init", "hub")
    assert not mark.exists()
    import torch

    (tmp_path / "hub" / "tokenizer_config.json").unlink()
    (tmp_path / "hub" / "model.safetensors").write_bytes(pickle.dumps(Evil(mark)))
    one_line(lambda: from_pretrained(str(tmp_path / "hub"), Tokenizer()), "--init", "hub")
    (tmp_path / "hub" / "model.safetensors").unlink()
    torch.save({"shared.weight": Evil(mark)}, tmp_path / "hub" / "pytorch_model.bin")
    one_line(lambda: from_pretrained(str(tmp_path / "hub"), Tokenizer()), "could run any code")
    assert not mark.exists()


# --- states of interrupted trainings


def test_a_state_is_tensors_and_plain_data(tmp_path):
    import torch

    torch.save({"step": 3, "model": {"w": torch.zeros(2)}}, tmp_path / "good.pt")
    assert read_state(tmp_path / "good.pt")["step"] == 3
    torch.save({"model": Evil(tmp_path / "ran")}, tmp_path / "evil.pt")
    (tmp_path / "old.pt").write_bytes(pickle.dumps(Evil(tmp_path / "ran")))
    (tmp_path / "cut.pt").write_bytes((tmp_path / "good.pt").read_bytes()[:-100])
    for name in ("evil.pt", "old.pt", "cut.pt", "none.pt"):
        one_line(lambda name=name: read_state(tmp_path / name), name, "no --trust", "remove it")
    assert not (tmp_path / "ran").exists()


def test_the_state_of_gnn_delta_runs_nothing(tmp_path):
    pytest.importorskip("lightning")
    pytest.importorskip("matgl")
    import torch

    from baselines.delta import train_delta
    from tests.test_delta import SMALL, growing

    state = tmp_path / "x.state" / "last.ckpt"
    state.parent.mkdir()
    torch.save({"state_dict": Evil(tmp_path / "ran")}, state)
    config = train_delta.DeltaTrainingConfig(
        out=tmp_path / "x.safetensors", epochs=1, batch_size=8, shape=SMALL
    )
    one_line(lambda: train_delta.fit(growing(), (), config), "last.ckpt", "can run any code")
    assert not (tmp_path / "ran").exists()


@pytest.mark.slow
def test_the_state_of_a_t5_training_runs_nothing(tmp_path, write_lemat, lemat_frame, capsys):
    import torch

    from t2relax import train

    frames = [lemat_frame(SALT, f"mp-{k}", step) for k in range(4) for step in (0, 1)]
    data = str(write_lemat(tmp_path / "train.parquet", frames))
    command = ["--data", data, "--val", data, "--out", str(tmp_path / "out"), "--batch-size", "4"]
    command += ["--eval-steps", "2", "--workers", "0", "--set", "num_layers=1", "--set", "d_ff=32"]
    assert train.main([*command, "--steps", "4", "--minutes", "0"]) == 0
    pickled = 0
    (checkpoint,) = (tmp_path / "out" / "state").glob("checkpoint-*")
    for file in [*checkpoint.glob("*.pt"), *checkpoint.glob("*.pth"), *checkpoint.glob("*.bin")]:
        kept = file.read_bytes()
        torch.save(Evil(tmp_path / "ran"), file)
        capsys.readouterr()
        if train.main([*command, "--steps", "4", "--minutes", "0"]) == 2:
            pickled += 1
            error = capsys.readouterr().err  # beside progress
            assert f"error: {checkpoint} is no state of a training" in error
            assert "Traceback" not in error
        assert not (tmp_path / "ran").exists()
        file.write_bytes(kept)
    assert pickled >= 2
