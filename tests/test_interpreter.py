"""A model with an environment of its own runs there, into the same folders, or says what to do."""

import platform
import subprocess
import sys
import venv
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.core import RelaxSettings, Status, UserError
from benchmarks.engine.execute import run_model
from benchmarks.models import environments as interpreter
from benchmarks.models.environments import locate_model
from benchmarks.models.provenance import environment, now, weights_identity
from benchmarks.models.registry import MODELS, ModelSpec, resolve
from benchmarks.run import main
from benchmarks.store import read_runs
from tests import toys

REPOSITORY = Path(__file__).parent.parent
MODULE = """
import sys
from pathlib import Path
from benchmarks.core import Relaxed, Status

class There:
    def relax(self, structures):
        return [Relaxed(status=Status.OK, structure=s, detail=sys.prefix) for s in structures]

def weights():
    return Path(__file__)
"""
SPEC = ModelSpec(
    name="there",
    target="only_there:There",
    family="gnn",
    label="There",
    requires=("only_there",),
    weights="only_there:weights",
    licence="MIT",
    environment="toy",
)


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    """No environment beside the code."""
    monkeypatch.setattr(interpreter, "ROOT", tmp_path)
    return tmp_path


@pytest.fixture
def there(nowhere, monkeypatch):
    """Another Python, which has our packages, one more, and our code only where it is told."""
    for name in ("benchmarks", "baselines"):
        (nowhere / name).symlink_to(REPOSITORY / name)
    prefix = nowhere / ".venv-toy"
    venv.create(prefix, symlinks=True)
    packages = next(prefix.glob("lib/python3*/site-packages"))
    ours = [path for path in sys.path if path.endswith("site-packages")]
    (packages / "ours.pth").write_text("\n".join(ours))
    (packages / "only_there.py").write_text(MODULE)
    monkeypatch.chdir(nowhere.parent)
    return prefix


def test_the_worker_runs_under_the_python_of_its_environment(there, tmp_path):
    records = []
    todo = [("one", 0, toys.geometry(1)), ("two", 0, toys.geometry(2))]
    outcome = run_model(
        SPEC, todo, settings=RelaxSettings(), on_records=records.extend, log=tmp_path / "log"
    )
    assert outcome.aborted is None
    assert [(r.sample_id, r.status) for r in records] == [("one", Status.OK), ("two", Status.OK)]
    assert [r.detail for r in records] == [str(there)] * 2
    assert records[1].geometry.numbers.tolist() == [14, 14]


def test_weights_and_versions_are_those_of_the_environment(there):
    found = locate_model(SPEC, offline=True)
    assert [path.name for path in found.weights] == ["only_there.py"]
    assert there in found.weights[0].parents
    assert set(found.versions) == {"packages", "python"}
    assert locate_model(MODELS["identity"], offline=True).versions == {}


def test_one_run_folder_for_models_of_two_environments(there, tmp_path, monkeypatch):
    monkeypatch.setitem(MODELS, "there", SPEC)
    out = tmp_path / "runs"
    assert main(["--models", "there,identity+there", "--limit", "2", "--out", str(out)]) == 0
    headers = {run.folder.name: run for run in read_runs([out])}
    assert set(headers) == {"identity", "there", "identity+there"}
    same = [{k: h.identity[k] for k in ("revision", "settings")} for h in headers.values()]
    assert same[0] == same[1] == same[2]
    assert headers["there"].identity["weights"] == "site-packages/only_there.py"
    assert headers["there"].provenance["python"] == platform.python_version()
    assert "numpy" in headers["there"].provenance["packages"]


def test_a_missing_environment_is_one_line_before_any_model_runs(nowhere, capsys):
    out = nowhere / "runs"
    assert main(["--models", "identity,sevennet-0", "--out", str(out)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith("error: sevennet-0 needs ")
    assert said.endswith("sevenn, in an environment of its own: make env-sevenn\n")
    assert not out.exists()


def test_an_environment_that_lacks_a_package_says_which(there):
    message = r"there needs nor_there, which \.venv-toy has not: make env-toy again .* share it$"
    with pytest.raises(UserError, match=message):
        locate_model(replace(SPEC, requires=("only_there", "nor_there")), offline=True)


def test_a_half_made_environment_says_how_to_make_it(there):
    next(there.glob("lib/python3*/site-packages/ours.pth")).unlink()
    with pytest.raises(UserError, match=r"python does not run \(ModuleNotFound.*make env-toy$"):
        locate_model(SPEC, offline=True)


def test_what_can_run_here_runs_here(nowhere):
    assert interpreter.interpreter(replace(SPEC, requires=("numpy",))) == sys.executable


def test_a_hybrid_runs_where_its_parts_can(monkeypatch):
    assert resolve("t5+sevennet-0").environment == "sevenn"
    assert resolve("t5+chgnet").environment is None
    monkeypatch.setitem(MODELS, "there", SPEC)
    with pytest.raises(UserError, match=r"its parts need environments sevenn and toy$"):
        resolve("sevennet-0+there")


def test_make_env_makes_every_environment_that_a_model_names():
    makefile = (REPOSITORY / "Makefile").read_text()
    for name in {spec.environment for spec in MODELS.values() if spec.environment}:
        assert f"\nenv-{name}:" in makefile
        assert (REPOSITORY / f"constraints-{name}.txt").is_file()


WEIGHTS_SHA = "9f64a747e1b97f131fabb6b447296c9b6f0201e79fb3c5356e6c77e89b6a806a"  # of b"\1\2\3\4"


def test_weights_are_named_and_hashed(tmp_path):
    file = tmp_path / "model.bin"
    file.write_bytes(b"\1\2\3\4")
    assert weights_identity([]) == {"weights": None, "weights_sha256": None}
    named = f"{tmp_path.name}/model.bin"
    assert weights_identity([file]) == {"weights": named, "weights_sha256": WEIGHTS_SHA}
    assert weights_identity([file, file])["weights_sha256"] == f"{WEIGHTS_SHA}+{WEIGHTS_SHA}"


def test_a_folder_of_weights_changes_with_any_file_in_it(tmp_path):
    (tmp_path / "a").write_bytes(b"1")
    before = weights_identity([tmp_path])["weights_sha256"]
    assert weights_identity([tmp_path])["weights_sha256"] == before
    (tmp_path / "b").write_bytes(b"2")
    assert weights_identity([tmp_path])["weights_sha256"] != before


def test_the_commit_is_that_of_this_code():
    root = Path(__file__).parents[1]
    head = subprocess.run(
        ["git", "-C", root, "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    )
    facts = environment("cpu")
    assert facts["git_sha"] == (head.stdout.strip() if head.returncode == 0 else None)
    assert facts["device"] == "cpu"
    assert facts["cpu"]
    assert {"numpy", "ase", "pymatgen"} <= set(facts["packages"])
    assert len(now()) == len("2026-01-01T00:00:00+00:00")
