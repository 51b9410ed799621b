"""Two engines, one protocol: the batched one ends in the same minima, with the same statuses."""

from types import SimpleNamespace

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.emt import EMT
from pymatgen.core import Lattice, Structure

from baselines.engines.ase_engine import AseRelaxer
from baselines.engines.batch_engine import FrechetLBFGS
from baselines.engines.relaxation_loop import PotentialResult, relaxation_loop
from baselines.potentials import chgnet, mace, matgl
from benchmarks.core import GPA, Geometry, Relaxed, RelaxSettings, Status
from benchmarks.data import load
from benchmarks.engine.benchmark_run import BenchmarkRun, ModelRun
from benchmarks.models.registry import MODELS, on_engine, resolve
from benchmarks.testing import assert_same, check_independent, check_relaxer, sample_structures
from tests import tiny
from tests.conftest import one_line

torch = pytest.importorskip("torch")
pytest.importorskip("torch_sim")

from torch_sim.models.interface import ModelInterface, validate_model_outputs  # noqa: E402

from baselines.engines.batch_engine import BatchedRelaxer  # noqa: E402

TIGHT = {"fmax": 0.005, "max_stress": 0.005 * GPA}


def fcc(symbol="Cu", a=3.6):
    sites = [[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]
    return Structure(Lattice.cubic(a), [symbol] * 4, sites)


class Toy(ModelInterface):
    """Constant stress, no force; energies nan from evaluation `until` on."""

    def __init__(self, stress=0.0, until=10**9):
        super().__init__()
        self._device, self._dtype = torch.device("cpu"), torch.float64
        self._compute_forces = self._compute_stress = True
        self.stress, self.until, self.sizes = stress, until, []

    def forward(self, state):
        self.sizes.append(state.n_systems)
        value = 0.0 if len(self.sizes) < self.until else float("nan")
        return {
            "energy": torch.full((state.n_systems,), value, dtype=torch.float64),
            "forces": torch.zeros_like(state.positions),
            "stress": self.stress * torch.eye(3, dtype=torch.float64).repeat(state.n_systems, 1, 1),
        }


def emt(geometry_path, numbers):
    atoms = Atoms(
        numbers, cell=geometry_path.cell, positions=geometry_path.positions, pbc=True,
        calculator=EMT(),
    )  # fmt: skip
    return PotentialResult(
        atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress(voigt=False)
    )


def driven(descent, path, geometry):
    """The outcome of a descent that EMT answers."""
    next(descent)
    try:
        while True:
            descent.send(emt(path, geometry.numbers))
    except StopIteration as end:
        return end.value


# --- the path


def test_the_gradient_is_the_derivative_of_the_energy_by_every_coordinate():
    start = fcc()
    start.translate_sites([1], [0.05, -0.02, 0.03])
    geometry = Geometry.of(start)
    path = FrechetLBFGS(geometry)
    rng = np.random.default_rng(0)
    strain = rng.normal(0, 0.1, (3, 3))
    path._x += np.concatenate([rng.normal(0, 0.05, (4, 3)), strain + strain.T])
    path._place()
    gradient = path._gradient(emt(path, geometry.numbers))
    direction = rng.normal(size=(7, 3))
    direction[-3:] += direction[-3:].T
    x, energies = path._x, []
    for sign in (-1, 1):
        path._x = x + sign * 1e-4 * direction
        path._place()
        energies.append(emt(path, geometry.numbers).energy)
    derivative = (energies[1] - energies[0]) / 2e-4
    assert derivative == pytest.approx((gradient * direction).sum(), rel=1e-5)


def test_the_path_ends_where_ase_ends_in_fewer_evaluations():
    start = fcc(a=3.9)
    start.translate_sites([1], [0.02, 0.01, -0.03])
    geometry = Geometry.of(start)
    path = FrechetLBFGS(geometry)
    descent = relaxation_loop(path, geometry, RelaxSettings(fmax=0.01))
    ours = driven(descent, path, geometry)
    (theirs,) = AseRelaxer(EMT, settings=RelaxSettings(fmax=0.01)).relax([start])
    assert ours.status is theirs.status is Status.OK
    assert ours.n_force_evals < theirs.n_force_evals / 2
    assert ours.structure.volume == pytest.approx(theirs.structure.volume, rel=2e-3)
    assert ours.energy == pytest.approx(theirs.energy, abs=4e-3)


# --- statuses


def test_nothing_to_do_changes_nothing():
    structures = sample_structures()
    for structure, outcome in zip(structures, BatchedRelaxer(Toy()).relax(structures), strict=True):
        assert outcome.status is Status.OK
        assert outcome.n_force_evals == 1
        assert_same(Geometry.of(structure), Geometry.of(outcome.structure), 0.0, "moved")


@pytest.mark.parametrize("stress", [-5.0, 5.0])
def test_exploding_cells_end_early_beside_others(stress):
    outcomes = BatchedRelaxer(Toy(stress)).relax([fcc(), fcc("Ag", 4.1)])
    for outcome in outcomes:
        assert outcome.status is Status.INVALID
        assert "volume changed" in outcome.detail
        assert outcome.n_force_evals < 30


def test_nan_is_invalid_not_converged():
    (outcome,) = BatchedRelaxer(Toy(0.05, until=3)).relax([fcc()])
    assert outcome.status is Status.INVALID
    assert "not finite" in outcome.detail


def test_out_of_steps_is_no_convergence():
    """torch-sim's own loop marks what has run out of steps as converged."""
    relaxer = BatchedRelaxer(Toy(0.01), settings=RelaxSettings(max_steps=2))
    (outcome,) = relaxer.relax([fcc()])
    assert outcome.status is Status.UNCONVERGED
    assert outcome.max_stress == pytest.approx(0.01)
    assert outcome.n_force_evals == len(relaxer.model.sizes) == 3


def test_unsupported_before_any_evaluation():
    relaxer = BatchedRelaxer(Toy(), elements=[11])
    assert relaxer.relax([fcc()]) == [
        Relaxed(status=Status.UNSUPPORTED, detail="no parameters for Cu")
    ]
    assert relaxer.model.sizes == []


def test_memory_bounds_what_is_evaluated_at_once():
    density = 4 / 3.6**3 * 1000
    relaxer = BatchedRelaxer(Toy(), memory=2.5 * 4 * density)
    assert {outcome.status for outcome in relaxer.relax([fcc()] * 5)} == {Status.OK}
    assert relaxer.model.sizes == [2, 2, 1]
    alone = BatchedRelaxer(Toy(), memory=1.0)
    assert alone.relax([fcc()] * 2)[1].status is Status.OK
    assert alone.model.sizes == [1, 1]


# --- potentials


@pytest.fixture(scope="module")
def batched_mace():
    pytest.importorskip("mace")

    from baselines.potentials.mace_batched import BatchedMace

    return BatchedMace


@pytest.fixture(scope="module")
def batched_chgnet():
    pytest.importorskip("chgnet")

    from baselines.potentials.chgnet_batched import BatchedCHGNet

    return BatchedCHGNet


@pytest.mark.slow
def test_mace_keeps_the_contract(batched_mace):
    outcomes = check_relaxer(batched_mace())
    assert [outcome.status for outcome in outcomes] == [Status.OK] * len(outcomes)


def test_of_several_heads_none_is_chosen_in_silence(batched_mace, monkeypatch):
    """torch-sim would ask the first, often that of the pretraining; ASE's calculator another."""
    one = SimpleNamespace(calculator=SimpleNamespace(available_heads=["pt_head", "Default"]))
    monkeypatch.setattr(mace, "Mace", lambda *_, **__: one)
    one_line(lambda: batched_mace("two.model"), "two.model has the heads pt_head, Default")


@pytest.mark.slow
def test_chgnet_keeps_the_contract(batched_chgnet):
    relaxer = batched_chgnet()
    outcomes = check_relaxer(relaxer)
    assert [outcome.status for outcome in outcomes] == [Status.OK] * len(outcomes)
    validate_model_outputs(relaxer.model, torch.device("cpu"), torch.float64)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["TensorNet", "M3GNet"])
def test_matgl_keeps_the_contract(tmp_path, architecture):
    pytest.importorskip("matgl")

    folder = str(tiny.matgl(tmp_path / "tiny", architecture))
    from baselines.potentials.matgl_batched import BatchedMatGL

    outcomes = check_relaxer(BatchedMatGL(folder))
    energies = [outcome.energy for outcome in matgl.MatGL(folder).relax(sample_structures())]
    assert [outcome.energy for outcome in outcomes] == pytest.approx(energies, rel=1e-6)


@pytest.mark.slow
def test_long_relaxations_do_not_depend_on_their_batch_either(batched_chgnet, shared_data):
    """In single precision 5 of 40 such starts ended up to 0.005 Å elsewhere, by their batch."""
    samples = load(str(shared_data / "substitution" / "test.parquet"), limit=20)
    starts = [sample.initial for sample in samples if len(sample.initial) <= 8]
    relaxer = batched_chgnet()
    outcomes = relaxer.relax(starts)
    assert max(outcome.n_force_evals for outcome in outcomes) > 10
    check_independent(relaxer, starts, outcomes, 1e-4)


def assert_same_minima(one, other, starts):
    """Within 0.01 Å and 1 meV/atom."""
    for first, second, start in zip(one, other, starts, strict=True):
        assert first.status is second.status is Status.OK
        assert first.energy == pytest.approx(second.energy, abs=1e-3 * len(start))
        a, b = first.structure, second.structure
        assert a.lattice.abc == pytest.approx(b.lattice.abc, abs=0.01)
        for i in range(len(start)):
            for j in range(i):
                assert a.get_distance(i, j) == pytest.approx(b.get_distance(i, j), abs=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("package", ["mace", "chgnet"])
def test_both_engines_end_in_the_same_minimum(package, request):
    """At limits ten times tighter than usual, and without ZnSe.

    At 0.05 eV/Å and 0.1 GPa a relaxation ends somewhere in a region around the minimum, which in
    soft crystals is wide: of this project's MACE, whose LiBr is too soft, lattice constants then
    differ by up to 0.03 Å between engines, and energies by 0.3 meV/atom. In its ZnSe a shear of
    the cell costs so little that both engines are 0.03 Å (0.005 meV/atom) apart even here, and
    only come together at 0.0005 GPa.
    """
    batched = request.getfixturevalue(f"batched_{package}")
    one_by_one = {"mace": mace.Mace, "chgnet": chgnet.CHGNet}[package]
    starts = [start for start in sample_structures() if start.reduced_formula != "ZnSe"]
    theirs = one_by_one(settings=RelaxSettings(**TIGHT)).relax(starts)
    ours = batched(settings=RelaxSettings(**TIGHT)).relax(starts)
    assert_same_minima(theirs, ours, starts)
    evaluations = [sum(o.n_force_evals for o in outcomes) for outcomes in (ours, theirs)]
    assert evaluations[0] < evaluations[1]


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["ase", "torchsim"])
@pytest.mark.parametrize("package", ["mace", "chgnet"])
def test_two_runs_give_identical_structures(package, engine, request):
    one_by_one = {"mace": mace.Mace, "chgnet": chgnet.CHGNet}[package]
    batched = request.getfixturevalue(f"batched_{package}")
    relaxer = {"ase": one_by_one, "torchsim": batched}[engine]
    starts = sample_structures()
    settings = RelaxSettings(max_steps=25)  # a run that differs does so long before its end
    first, second = (relaxer(settings=settings).relax(starts) for _ in range(2))
    for one, two in zip(first, second, strict=True):
        assert one.status is two.status
        assert one.n_force_evals == two.n_force_evals
        assert_same(Geometry.of(one.structure), Geometry.of(two.structure), 1e-6, "not repeatable")


@pytest.mark.slow
def test_atoms_are_not_counted_to_the_system_of_the_batch_before(batched_mace):
    """torch-sim's MACE told batches by their atomic numbers alone."""
    relaxer = batched_mace(settings=RelaxSettings(max_steps=0))
    single = Structure(Lattice([[0, 2, 2], [2, 0, 2], [2, 2, 0]]), ["Al"], [[0, 0, 0]])
    double, triple = single.make_supercell([2, 1, 1], in_place=False), single.copy()
    triple.make_supercell([3, 1, 1])
    energies = [
        [outcome.energy / len(outcome.structure) for outcome in relaxer.relax(batch)]
        for batch in ([single, triple], [double, double])
    ]
    assert np.ptp(energies) < 1e-6


@pytest.mark.slow
def test_chgnet_energy_forces_and_stress_are_those_of_its_calculator(batched_chgnet):
    starts = [*sample_structures(), Structure(Lattice.cubic(15), ["H"], [[0, 0, 0]])]
    ours = batched_chgnet(settings=RelaxSettings(max_steps=0)).relax(starts)
    theirs = chgnet.CHGNet(settings=RelaxSettings(max_steps=0)).relax(starts)
    for one, other in zip(ours, theirs, strict=True):
        assert one.energy == pytest.approx(other.energy, abs=1e-4)
        assert one.max_force == pytest.approx(other.max_force, abs=1e-4)
        assert one.max_stress == pytest.approx(other.max_stress, abs=1e-5)


# --- the command


def test_engine_changes_potentials_and_parts_of_hybrids_and_nothing_else():
    assert on_engine(MODELS["identity"], "torchsim") is MODELS["identity"]
    assert on_engine(MODELS["chgnet"], "ase") is MODELS["chgnet"]
    spec = on_engine(MODELS["chgnet"], "torchsim")
    assert spec.target == "baselines.potentials.chgnet_batched:BatchedCHGNet"
    assert spec.batch_size > 1
    assert "torch_sim" in spec.requires
    hybrid = on_engine(resolve("identity+mace"), "torchsim")
    assert [part.engine for part in hybrid.parts] == [None, "torchsim"]
    assert hybrid.engine == "torchsim"


def test_runs_of_the_first_engine_keep_their_identity():
    run = BenchmarkRun(
        dataset=load("embedded", limit=1),
        settings=RelaxSettings(),
        repeats=1,
        out=None,
        command="",
        log=print,
    )
    settings = {"fmax": 0.05, "max_steps": 500, "timeout": 600.0}
    for engine, expected in (("ase", settings), ("torchsim", settings | {"engine": "torchsim"})):
        plan = ModelRun(on_engine(MODELS["mace"], engine), ())
        assert plan.identity(run)["settings"] == expected
