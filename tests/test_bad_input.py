"""What no potential can relax, and weights that are none: a status or one line, on every engine."""

import importlib
from pathlib import Path

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from benchmarks.core import SCORED, Geometry, RelaxSettings, Status
from benchmarks.run import main
from benchmarks.testing import check_outcome
from tests import tiny
from tests.conftest import one_line

pytestmark = pytest.mark.slow

POTENTIALS = {"chgnet": "CHGNet", "mace": "Mace"}
UNKNOWN = {"chgnet": "Po", "mace": "Po"}
ENGINES = ("ase", "torchsim")
FCC = Lattice([[0, 2.8, 2.8], [2.8, 0, 2.8], [2.8, 2.8, 0]])
SALT = Structure(FCC, ["Li", "Br"], [[0, 0, 0], [0.5, 0.5, 0.5]])


def class_of(package, engine):
    """The relaxer of a potential on an engine; skips where a package is not installed."""
    pytest.importorskip(package)
    if engine == "torchsim":
        pytest.importorskip("torch_sim")
    module = f"baselines.potentials.{package}" + ("_batched" if engine == "torchsim" else "")
    return getattr(
        importlib.import_module(module),
        ("Batched" if engine == "torchsim" else "") + POTENTIALS[package],
    )


@pytest.fixture(scope="module", params=[(p, e) for p in POTENTIALS for e in ENGINES], ids="-".join)
def case(request):
    """A potential's name and its relaxer, of two steps."""
    package, engine = request.param
    return package, class_of(package, engine)(settings=RelaxSettings(max_steps=2))


@pytest.fixture
def unasked(case, monkeypatch):
    """The same, without the potential: asking it would raise."""
    package, relaxer = case
    monkeypatch.setattr(relaxer, "model" if hasattr(relaxer, "model") else "calculator", None)
    return package, relaxer


def only(relaxer, structure):
    """Its outcome, which keeps the contract."""
    (outcome,) = relaxer.relax([structure])
    check_outcome(outcome, Geometry.of(structure))
    return outcome


# --- structures


def test_an_unknown_element_is_told_before_the_potential_is_asked(unasked):
    package, relaxer = unasked
    symbol = UNKNOWN[package]
    outcome = only(relaxer, Structure(Lattice.cubic(4), [symbol, "Li"], [[0, 0, 0], [0.5] * 3]))
    assert outcome.status is Status.UNSUPPORTED
    assert outcome.detail == f"no parameters for {symbol}"
    assert outcome.n_force_evals is None


@pytest.mark.parametrize(
    ("structure", "detail"),
    [
        (Structure(Lattice.cubic(4), ["Li", "Br"], [[0, 0, 0], [0.01, 0, 0]]), "0.04 Å apart"),
        (Structure([[4, 0, 0], [0, 4, 0], [2, 1.7, 0.01]], ["Al"], [[0, 0, 0]]), "Å apart"),
    ],
    ids=["an overlapping pair", "a flat cell"],
)
def test_fused_atoms_are_told_before_the_potential_is_asked(unasked, structure, detail):
    outcome = only(unasked[1], structure)
    assert outcome.status is Status.UNSUPPORTED
    assert detail in outcome.detail


def test_a_single_atom_has_an_answer(case):
    outcome = only(case[1], Structure(Lattice.cubic(2.9), ["Al"], [[0, 0, 0]]))
    assert outcome.status in SCORED
    assert outcome.max_force == pytest.approx(0.0, abs=1e-4)


def test_an_atom_without_neighbours_has_an_answer(case):
    outcome = only(case[1], Structure(Lattice.cubic(15), ["Al"], [[0, 0, 0]]))
    assert outcome.status is Status.OK
    assert outcome.n_force_evals == 1


def test_a_nearly_flat_cell_is_relaxed_or_invalid(case):
    outcome = only(case[1], Structure(Lattice.tetragonal(12, 0.8), ["Al"], [[0, 0, 0]]))
    assert outcome.status in {*SCORED, Status.INVALID}
    assert outcome.n_force_evals >= 1


def test_three_hundred_atoms_have_an_answer(case):
    large = SALT.make_supercell([5, 5, 6], in_place=False)
    large.perturb(0.05, seed=0)
    outcome = only(case[1], large)
    assert outcome.status is Status.UNCONVERGED
    assert outcome.n_force_evals == 3
    assert len(outcome.structure) == 300


def test_what_cannot_be_relaxed_leaves_the_others_their_answers(case):
    package, relaxer = case
    fused = Structure(Lattice.cubic(4), ["Li"] * 2, [[0, 0, 0]] * 2)
    unknown = Structure(Lattice.cubic(4), [UNKNOWN[package]], [[0, 0, 0]])
    alone = only(relaxer, SALT)
    outcomes = relaxer.relax([fused, SALT, unknown])
    assert [o.status for o in outcomes] == [Status.UNSUPPORTED, alone.status, Status.UNSUPPORTED]
    lattices = [outcome.structure.lattice.matrix for outcome in (outcomes[1], alone)]
    assert np.abs(lattices[0] - lattices[1]).max() < 1e-4


# --- weights


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("package", POTENTIALS)
def test_weights_that_break_off_or_are_of_another_library_are_one_line(package, engine, tmp_path):
    relaxer = class_of(package, engine)
    for other in POTENTIALS:
        pytest.importorskip(other)
    files = {"chgnet": tiny.chgnet(tmp_path / "c.pt"), "mace": tiny.mace(tmp_path / "m.model")}
    own, foreign = files.pop(package), next(iter(files.values()))
    assert relaxer(str(own), settings=RelaxSettings(max_steps=0)).relax([SALT])[0].status in SCORED
    one_line(lambda: relaxer(str(foreign)), "cannot be loaded")
    own.write_bytes(own.read_bytes()[:-100])
    one_line(lambda: relaxer(str(own)), "breaks off: get it again")
    one_line(lambda: relaxer(str(tmp_path / "none")), "no such file")


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("package", "reason"), [("chgnet", "could run any code"), ("mace", "add --trust")]
)
def test_a_pickle_from_elsewhere_runs_nothing(package, reason, engine, tmp_path, capfd):
    class_of(package, engine)
    import torch

    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"model": Evil()}, tmp_path / "evil.pt")
    model, out = f"mine={package}:{tmp_path / 'evil.pt'}", tmp_path / "runs"
    command = ["--models", model, "--engine", engine, "--limit", "1", "--out", str(out)]
    assert main(command) == 2
    error = capfd.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ")
    assert reason in error
    assert not (tmp_path / "ran").exists()
