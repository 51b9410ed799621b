"""A model is found by its name, and what is missing is said before anything runs."""

import json
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from benchmarks.core import RelaxSettings, UserError
from benchmarks.core.published_weights import PUBLISHED_WEIGHTS
from benchmarks.models.registry import (
    MODELS,
    find_weights,
    honoured_settings,
    import_target,
    on_engine,
    require,
    resolve,
    resolve_all,
)
from benchmarks.models.user_models import FORMS, plugin_models
from benchmarks.run import main
from benchmarks.testing import main as check_command

HEAVY = ("torch", "pymatgen", "transformers", "chgnet", "mace", "matgl", "pandas", "pyarrow")


OURS = [
    "identity", "zero-force", "idealise", "bond-balance", "mean-delta", "volume-scaling", "gbr",
    "t5", "t5-free", "t5-sym", "t5-best8", "t5-tta", "t5-equal", "gpt", "gnn-delta", "mace",
    "mace-embedded", "tensornet-embedded",
]  # fmt: skip


def test_the_models_are_ours_and_those_whose_weights_are_published():
    assert [name for name in MODELS if name not in PUBLISHED_WEIGHTS] == OURS
    assert set(PUBLISHED_WEIGHTS) < set(MODELS)
    assert {"chgnet", "chgnet-r2scan", "mace-mp-0", "sevennet-0"} < set(PUBLISHED_WEIGHTS)


@pytest.mark.parametrize("spec", MODELS.values(), ids=list(MODELS))
def test_an_entry_names_a_class_that_exists(spec):
    try:
        require(spec)
    except UserError as error:
        pytest.skip(str(error))
    assert callable(import_target(spec.target))
    assert spec.weights is None or callable(import_target(spec.weights))
    learnt_nothing = {"identity", "idealise", "bond-balance", "zero-force"}
    assert spec.training_data or spec.name in learnt_nothing


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("chgnt", "unknown model 'chgnt': did you mean chgnet?"),
        ("T5", "unknown model 'T5': did you mean t5?"),
        ("zzzzz", "unknown model 'zzzzz': see --list-models"),
        ("t5+chgnt", "unknown model 'chgnt': did you mean chgnet?"),
        ("t5+", "unknown model '': see --list-models"),
        ("a/b=t5:x", "'a/b' cannot be a label: use letters, digits, '.', '_' and '-'"),
        ("..=t5:x", "'..' cannot be a label: use letters, digits, '.', '_' and '-'"),
        ("t5=t5:x", "'t5' is the name of a model already: choose another label"),
        ("my=t5:no/such/folder", "no/such/folder: no such file or folder"),
        ("my=ase:no_colon", "'no_colon': an ASE calculator is given as package.module:factory"),
        ("my=mace:m", "m is a pickle, which can run any code: add --trust if you trust it"),
        (
            "my=gap:x",
            f"'my=gap:x': write {FORMS}",
        ),
    ],
)
def test_a_wrong_name_is_answered_with_what_to_do(name, message):
    with pytest.raises(UserError) as caught:
        resolve(name)
    assert str(caught.value) == message


def test_a_missing_dependency_names_the_line_that_installs_it(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "chgnet" else True)
    with pytest.raises(UserError) as caught:
        require(MODELS["chgnet"])
    assert str(caught.value) == (
        "chgnet needs chgnet: pip install 't2relax-bench[chgnet]' "
        "(in a clone: pip install -e '.[chgnet]')"
    )


def test_a_hybrid_needs_what_its_parts_need():
    hybrid = resolve("t5+chgnet")
    assert hybrid.name == "t5+chgnet"
    assert hybrid.family == "hybrid"
    assert [part.name for part in hybrid.parts] == ["t5", "chgnet"]
    assert hybrid.requires == ("torch", "transformers", "safetensors", "chgnet")
    assert hybrid.extra == "chgnet,t5"
    assert hybrid.batch_size == 1
    assert hybrid.functional == "PBE(+U)"
    assert hybrid.training_data == (
        "substitution/train",
        "embedded/train",
        "embedded-v2/train",
        "MPtrj (Materials Project)",
    )


@pytest.mark.parametrize(
    ("name", "functional"),
    [
        ("identity", None),
        ("t5", "PBE(+U)"),
        ("t5-equal", "PBE"),
        ("mace", "PBE(+U)"),
        ("mace-embedded", "PBE"),
        ("tensornet-embedded", "PBE"),
        ("mace-mpa-0", "PBE(+U)"),
        ("tensornet-matpes-pbe", "PBE"),
        ("chgnet-r2scan", "r2SCAN"),
        ("t5+m3gnet-matpes-r2scan", "PBE(+U) + r2SCAN"),
        ("identity+chgnet", "PBE(+U)"),
        ("z=ase:a.b:c", "not stated"),
    ],
)
def test_every_model_says_what_dft_it_learned_from(name, functional):
    assert resolve(name).functional == functional


ALL = RelaxSettings(
    fmax=0.01, max_stress=0.002, max_steps=7, keep_symmetry=True, seed=3, timeout=60.0
)
LIMITS = {
    "fmax": 0.01,
    "max_steps": 7,
    "timeout": 60.0,
    "max_stress": 0.002,
    "keep_symmetry": True,
}


@pytest.mark.parametrize(
    ("name", "engine", "expected", "seeded"),
    [
        ("identity", "ase", {"timeout": 60.0}, False),
        ("t5", "torchsim", {"timeout": 60.0}, False),
        ("t5-best8", "ase", {"timeout": 60.0}, True),
        ("t5-tta", "ase", {"timeout": 60.0}, True),
        ("gnn-delta", "ase", {"timeout": 60.0}, False),
        ("chgnet", "ase", LIMITS, False),
        ("mace", "torchsim", LIMITS | {"engine": "torchsim"}, False),
        ("z=ase:a.b:c", "torchsim", LIMITS, False),
        ("t5-best8+sevennet-0", "ase", LIMITS, True),
    ],
)
def test_an_identity_holds_the_settings_that_the_model_honours(name, engine, expected, seeded):
    spec = on_engine(resolve(name), engine)
    assert honoured_settings(spec, ALL) == expected
    assert ("seed" in spec.honours) == seeded


def test_defaults_that_older_runs_did_not_record_are_left_out():
    expected = {"fmax": 0.05, "max_steps": 500, "timeout": 600.0}
    assert honoured_settings(MODELS["chgnet"], RelaxSettings()) == expected


def test_a_further_option_of_a_relaxation_touches_four_files():
    """It is defined, given to those who honour it, obeyed, and has a flag."""
    root = Path(__file__).parents[1]
    packages = ("benchmarks", "baselines", "t2relax", "leaderboard", "studies")
    files = [path for package in packages for path in (root / package).rglob("*.py")]
    naming = [
        path for path in files if re.search('keep_symmetry|"--keep-symmetry', path.read_text())
    ]
    assert {str(path.relative_to(root)) for path in naming} == {
        "benchmarks/core/types.py",
        "benchmarks/models/specs.py",
        "baselines/engines/relaxation_loop.py",
        "benchmarks/run.py",
    }


def test_a_model_honours_fields_that_there_are():
    names = {field.name for field in fields(RelaxSettings)}
    for spec in MODELS.values():
        assert names.issuperset(spec.honours), spec.name


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """An installed package whose modules cannot be imported, with four entry points."""
    info = tmp_path / "gap_zoo-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: gap-zoo\nVersion: 1.2\n")
    points = ("gap-si = gap_zoo:si", "t5 = gap_zoo:t5", "a/b = gap_zoo:ab", "gap-c = gap_zoo")
    relaxers = ("[t2relax_bench.relaxers]", "zoo-direct = gap_zoo:si", "gap-si = gap_zoo:si")
    text = "\n".join(["[t2relax_bench.models]", *points, *relaxers])
    (info / "entry_points.txt").write_text(text)
    (tmp_path / "gap_zoo.py").write_text("def si(): ...\nraise RuntimeError('imported')")
    monkeypatch.syspath_prepend(tmp_path)


def test_a_package_brings_a_model_of_its_own(plugin, capsys):
    # the registry's names stay its own, and what cannot be a model breaks no other
    assert list(plugin_models()) == ["gap-si", "zoo-direct"]
    assert main(["--list-models"]) == 0
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()[-2:]]
    assert names == ["gap-si", "zoo-direct"]
    direct = resolve("zoo-direct")
    assert (direct.target, direct.kwargs, direct.family) == ("gap_zoo:si", {}, "other")
    spec = resolve("gap-si")
    assert (spec.kwargs, spec.label) == ({"calculator": "gap_zoo:si"}, "gap-si (gap-zoo 1.2)")
    assert spec.requires == ("gap_zoo",)
    assert spec.training_data == ("not stated",)
    require(spec)
    assert resolve("t5+gap-si").name == "t5+gap-si"
    with pytest.raises(UserError, match=r"did you mean gap-si\?"):
        resolve("gap-s")


def test_own_models(tmp_path):
    own = resolve(f"mine=t5:{tmp_path}")
    assert (own.name, own.target) == ("mine", "t2relax.relaxer:TextRelaxer")
    assert own.kwargs == {"path": str(tmp_path)}
    assert own.training_data == ("not stated",)
    mace = resolve(f"big=mace:{tmp_path}", trust=True)
    assert mace.name == "big"
    ase = resolve("zero=ase:benchmarks.testing:ZeroForce")
    assert ase.kwargs == {"calculator": "benchmarks.testing:ZeroForce"}
    require(ase)
    for kind in ("ase", "relaxer"):
        with pytest.raises(UserError, match=r"no\.such\.module, which cannot be found"):
            require(resolve(f"zero={kind}:no.such.module:factory"))
        with pytest.raises(UserError, match=r"benchmarks\.testing has no nothing"):
            require(resolve(f"zero={kind}:benchmarks.testing:nothing"))
        with pytest.raises(UserError, match=r"is given as package\.module:factory"):
            resolve(f"zero={kind}:nothing")


def test_a_label_can_be_part_of_a_hybrid_and_a_model_is_taken_once():
    specs = resolve_all(["identity", "z=ase:a.b:c", "identity", "z+chgnet"])
    assert [spec.name for spec in specs] == ["identity", "z", "z+chgnet"]


def test_weights_are_asked_for_with_what_the_function_names(tmp_path):
    (tmp_path / "w.bin").write_bytes(b"weights")
    spec = resolve(f"mine=t5:{tmp_path}")
    with pytest.raises(UserError, match="is no t2relax checkpoint"):
        find_weights(spec, offline=True)
    assert find_weights(MODELS["identity"], offline=True) == ()


def test_listing_imports_nothing_heavy():
    code = (
        "import sys; from benchmarks.run import main; status = main(['--list-models']); "
        f"print([m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr); sys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    assert [line.split()[0] for line in done.stdout.splitlines()[1:]] == list(MODELS)


@pytest.mark.parametrize("name", [name for name, spec in MODELS.items() if spec.batched])
def test_the_batched_engine_of_a_model_is_there(name):
    module, _, cls = str(MODELS[name].batched).partition(":")
    path = Path(__file__).parents[1] / Path(*module.split(".")).with_suffix(".py")
    assert f"class {cls}(" in path.read_text()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def factory(): pass", None),
        ("from ase.calculators.emt import EMT as factory", None),
        ("factory = lambda: None", None),
        ("from ase.calculators.emt import *", None),
        ("def __getattr__(name): return print", None),
        ("def factroy(): pass", "'zoo.models:factory': zoo.models has no factory"),
        ("def factory(: pass", "'zoo.models:factory' cannot be imported (invalid syntax"),
    ],
)
def test_a_misspelt_factory_is_told_before_any_model_runs(source, message, tmp_path, monkeypatch):
    (tmp_path / "zoo").mkdir()
    (tmp_path / "zoo" / "__init__.py").touch()
    (tmp_path / "zoo" / "models.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == "zoo"]:
        monkeypatch.delitem(sys.modules, name)
    for spec in resolve_all(["z=ase:zoo.models:factory", "identity+z"]):
        if message is None:
            require(spec)
        else:
            with pytest.raises(UserError, match=re.escape(message)):
                require(spec)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("1 / 0", "ark.models cannot be imported (ZeroDivisionError: division by zero)"),
        ("import no_such_thing", "ark.models cannot be imported (No module named 'no_such_thing')"),
    ],
)
def test_a_package_that_cannot_be_imported_is_one_line(source, message, tmp_path, monkeypatch):
    (tmp_path / "ark").mkdir()
    (tmp_path / "ark" / "__init__.py").write_text(source)
    (tmp_path / "ark" / "models.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError) as caught:
        require(resolve("z=ase:ark.models:factory"))
    assert str(caught.value) == message


# --- relaxers of the user's


class Silent:
    """A relaxer that answers nothing."""

    def relax(self, structures, /):
        return []


def test_a_relaxer_of_the_users_has_a_row(tmp_path, capsys):
    mine = "mine=relaxer:benchmarks.testing:ReturnsInput"
    out = tmp_path / "runs"
    assert main(["--models", f"identity,{mine}", "--limit", "2", "--out", str(out)]) == 0
    board = json.loads((out / "board.json").read_text())
    rows = {row["model"]: row["metrics"]["score"] for row in board["rows"]}
    assert rows["mine"] == rows["identity"]


@pytest.mark.parametrize(
    ("factory", "status", "said"),
    [
        ("benchmarks.testing:ReturnsInput", 0, "ReturnsInput keeps the contract (ok, ok"),
        ("benchmarks.testing:ZeroForce", 0, "ZeroForce keeps the contract (ok, ok"),
        ("tests.test_registry:Silent", 1, "breaks the contract: one outcome per input"),
        ("benchmarks.testing:sample_structures", 2, "makes a list, without relax()"),
        ("benchmarks.testing:nothing", 2, "benchmarks.testing has no nothing"),
        ("no.such.module:factory", 2, "no.such.module, which cannot be found"),
        ("nothing", 2, "is given as package.module:factory"),
    ],
)
def test_the_contract_is_checked_from_the_shell(factory, status, said, capsys):
    assert check_command([factory]) == status
    captured = capsys.readouterr()
    assert said in captured.out + captured.err
    assert (captured.out + captured.err).count("\n") == 1
