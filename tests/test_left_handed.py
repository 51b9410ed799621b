"""Left-handed cells: the crystal is the same, or its mirror image, and so is its relaxation.

A copy with two lattice vectors and their coordinates swapped is the same crystal in a left-handed
cell, and its answer is that of the right-handed cell, swapped. A copy mirrored at x = 0 is the
enantiomorph, and its answer is the mirror image. The T5 reads cell parameters in the order of the
axes: the mirrored copy has the same text, the swapped copy another one, whose answer may differ.
"""

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.calculator import all_changes
from ase.calculators.emt import EMT
from ase.io import read
from ase.optimize import FIRE
from pymatgen.core import Lattice, Structure

from baselines.engines.ase_engine import AseRelaxer
from baselines.engines.relaxation_loop import right_handed
from baselines.potentials import chgnet, mace, matgl
from benchmarks.core import GPA, Geometry, RelaxSettings, Status
from benchmarks.data import load
from benchmarks.engine.hybrid import build
from benchmarks.models.registry import on_engine, resolve
from benchmarks.testing import ZeroForce, check_mirrored, mirrored
from tests import tiny

CASES = Path(__file__).parent / "cases"
TIGHT = RelaxSettings(fmax=0.005, max_stress=0.005 * GPA)


def swapped(geometry, axes=(1, 0, 2)):
    """The same crystal with its axes in another order: an odd permutation changes handedness."""
    return Geometry(
        geometry.lattice[list(axes)], geometry.frac_coords[:, list(axes)], geometry.numbers
    )


def crooked():
    """Copper without symmetry, in a right-handed cell."""
    cell = [[2.5, 0.1, 0.0], [0.2, 4.4, 0.3], [-0.2, 0.1, 3.6]]
    sites = [[0.02, 0.01, 0.0], [0.47, 0.45, 0.52]]
    return Geometry.of(Structure(Lattice(cell), ["Cu", "Cu"], sites))


class SignedVolume(EMT):
    """Divides the stress by det(cell), as CHGNet's ASE calculator does."""

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.results["stress"] = self.results["stress"] * np.sign(np.linalg.det(self.atoms.cell))


def assert_turned(answer, expected, tolerance):
    """The answer has the cell and the sites that are expected, unwrapped and in order [Å]."""
    found = Geometry.of(answer.structure)
    assert found.numbers.tolist() == expected.numbers.tolist()
    assert found.lattice == pytest.approx(expected.lattice, abs=tolerance)
    moved = (found.frac_coords - expected.frac_coords) @ expected.lattice
    assert np.abs(moved).max() <= tolerance


# --- the cell that a potential sees


def test_a_right_handed_cell_is_that_cell_and_a_left_handed_one_has_its_vectors_negated():
    cell = crooked().lattice
    assert right_handed(cell) is cell
    left = cell[[1, 0, 2]]
    assert np.linalg.det(left) < 0
    assert (right_handed(left) == -left).all()


@pytest.mark.parametrize("optimizer", [FIRE, None], ids=["ase", "batched"])
@pytest.mark.parametrize("keep", [False, True], ids=["free", "symmetry kept"])
def test_both_engines_turn_the_answer_back(optimizer, keep):
    settings = RelaxSettings(max_steps=15, keep_symmetry=keep)
    if optimizer is None:
        pytest.importorskip("torch_sim")
        relaxer = _batched(SignedVolume(), settings)
    else:
        relaxer = AseRelaxer(SignedVolume(), settings=settings, optimizer=optimizer)
    start = crooked()
    (right,) = relaxer.relax([start.structure()])
    assert right.n_force_evals > 5
    assert np.abs(Geometry.of(right.structure).lattice - start.lattice).max() > 0.05
    turns = [
        swapped,
        mirrored,
        lambda geometry: swapped(geometry, (0, 2, 1)),
        lambda geometry: swapped(geometry, (2, 0, 1)),  # even: stays right-handed
        lambda geometry: Geometry(-geometry.lattice, -geometry.frac_coords, geometry.numbers),
    ]
    for turn in turns:
        (left,) = relaxer.relax([turn(start).structure()])
        assert left.status is right.status
        assert left.energy == pytest.approx(right.energy, abs=1e-6)
        assert_turned(left, turn(Geometry.of(right.structure)), 1e-4)


def _batched(calculator, settings):
    """A batched relaxer that asks an ASE calculator."""
    import torch
    from torch_sim.models.interface import ModelInterface

    from baselines.engines.batch_engine import BatchedRelaxer

    class Asked(ModelInterface):
        def __init__(self):
            super().__init__()
            self._device, self._dtype = torch.device("cpu"), torch.float64
            self._compute_forces = self._compute_stress = True

        def forward(self, state):
            cell = state.row_vector_cell[0].numpy()
            atoms = Atoms(state.atomic_numbers.numpy(), cell=cell, pbc=True, calculator=calculator)
            atoms.positions = state.positions.numpy()
            return {
                "energy": torch.tensor([atoms.get_potential_energy()]),
                "forces": torch.as_tensor(atoms.get_forces()),
                "stress": torch.as_tensor(atoms.get_stress(voigt=False))[None],
            }

    return BatchedRelaxer(Asked(), settings=settings)


def test_a_skewed_left_handed_cell_relaxes_like_the_compact_one():
    relaxer = AseRelaxer(SignedVolume(), settings=TIGHT)
    start = crooked()
    skew = np.array([[0, 1, 0], [1, 3, 0], [-2, 1, 1]])
    assert np.linalg.det(skew) == pytest.approx(-1)

    def skewed(geometry):
        frac_coords = geometry.frac_coords @ np.linalg.inv(skew)
        return Geometry(skew @ geometry.lattice, frac_coords, geometry.numbers)

    (right,), (left,) = (relaxer.relax([g.structure()]) for g in (start, skewed(start)))
    assert left.status is right.status is Status.OK
    assert_turned(left, skewed(Geometry.of(right.structure)), 1e-3)


def test_a_left_handed_cell_in_which_nothing_moves_comes_back_to_the_last_bit():
    start = swapped(crooked())
    (outcome,) = AseRelaxer(ZeroForce).relax([start.structure()])
    assert (Geometry.of(outcome.structure).lattice == start.lattice).all()
    assert (Geometry.of(outcome.structure).frac_coords == start.frac_coords).all()


def test_a_left_handed_cell_that_explodes_is_invalid_and_keeps_its_handedness():
    class Push(EMT):
        def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
            super().calculate(atoms, properties, system_changes)
            self.results["stress"] = np.array([-5.0, -5.0, -5.0, 0, 0, 0])

    (outcome,) = AseRelaxer(Push()).relax([swapped(crooked()).structure()])
    assert outcome.status is Status.INVALID
    assert outcome.detail.startswith("volume changed by a factor of ")
    assert "-" not in outcome.detail
    assert np.linalg.det(outcome.structure.lattice.matrix) < 0


# --- forces and stress are slopes of the energy in left-handed cells too


def potentials(tmp_path):
    """Each potential of the registry, by name: what makes its relaxer, on both engines."""
    folders = {each: str(tiny.matgl(tmp_path / each, each)) for each in ("M3GNet", "TensorNet")}
    from baselines.potentials.chgnet_batched import BatchedCHGNet
    from baselines.potentials.mace_batched import BatchedMace
    from baselines.potentials.matgl_batched import BatchedMatGL

    return {
        "chgnet": chgnet.CHGNet,
        "chgnet batched": BatchedCHGNet,
        "mace": mace.Mace,
        "mace batched": BatchedMace,
        **{each: lambda folder=folder: matgl.MatGL(folder) for each, folder in folders.items()},
        **{
            f"{each} batched": lambda folder=folder: BatchedMatGL(folder)
            for each, folder in folders.items()
        },
    }


NAMES = ("chgnet", "mace", "M3GNet", "TensorNet")


def asked(relaxer, geometry):
    """What the engine hears from its potential at a geometry."""
    if isinstance(relaxer, AseRelaxer):
        from baselines.engines.ase_engine import _AsePath

        atoms = Atoms(
            geometry.numbers,
            cell=right_handed(geometry.lattice),
            positions=geometry.frac_coords @ geometry.lattice,
            pbc=True,
            calculator=relaxer.calculator,
        )
        answer = _AsePath(atoms, FIRE).evaluate()
        return answer.energy, answer.forces, atoms.get_stress(voigt=False)
    from baselines.engines.batch_engine import _answers, _Relaxation

    started = _Relaxation.begin(0, geometry.structure(), RelaxSettings())
    (answer,) = _answers(relaxer.model, [started])
    return answer.energy, answer.forces, answer.stress


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["", " batched"], ids=["ase", "batched"])
@pytest.mark.parametrize("name", NAMES)
def test_forces_and_stress_are_slopes_of_the_energy_in_a_left_handed_cell(name, engine, tmp_path):
    for module in ("chgnet", "mace", "matgl", "torch_sim"):
        pytest.importorskip(module)
    relaxer = potentials(tmp_path)[name + engine]()
    single = not engine and name != "mace"  # ASE's calculators of the others are in float32
    step = 0.01 if single else 1e-4
    cell = np.array([[0.1, 2.6, 2.9], [2.7, 0.0, 2.8], [2.9, 2.75, -0.1]])[[1, 0, 2]]
    numbers = np.array([3, 35], dtype=np.int16)
    start = Geometry(cell, np.array([[0.0, 0.0, 0.0], [0.47, 0.52, 0.51]]), numbers)
    assert np.linalg.det(cell) < 0
    _, forces, stress = asked(relaxer, start)

    def slope(strain, moved):
        energies = []
        for sign in (1, -1):
            lattice = cell @ (np.eye(3) + sign * step * strain)
            frac_coords = start.frac_coords + sign * step * moved @ np.linalg.inv(cell)
            energies.append(asked(relaxer, Geometry(lattice, frac_coords, numbers))[0])
        return (energies[0] - energies[1]) / (2 * step)

    rng = np.random.default_rng(0)
    strain, moved = rng.normal(size=(3, 3)), rng.normal(size=(2, 3))
    strain = (strain + strain.T) / 2
    tolerance = 0.05 if single else 1e-3
    volume = abs(np.linalg.det(cell))
    by_strain = volume * (stress * strain).sum()
    expected = slope(strain, np.zeros((2, 3)))
    assert by_strain == pytest.approx(expected, rel=tolerance, abs=tolerance / 10)
    by_move = -(forces * moved).sum()
    assert by_move == pytest.approx(slope(np.zeros((3, 3)), moved), rel=tolerance, abs=tolerance)


# --- every relaxer


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["ase", "torchsim"])
def test_chgnet_finds_salt_in_either_hand(engine):
    """`left_handed.extxyz` is `right_handed.extxyz` with two vectors swapped: it collapsed."""
    pytest.importorskip("chgnet")
    relaxer = build(on_engine(resolve("chgnet"), engine), RelaxSettings())
    for name in ("left_handed", "right_handed"):
        atoms = read(CASES / f"{name}.extxyz", index=0)
        start = Structure(atoms.cell.array, atoms.numbers, atoms.get_scaled_positions(wrap=False))
        (outcome,) = relaxer.relax([start])
        assert outcome.status is Status.OK
        assert outcome.structure.volume == pytest.approx(46.37, abs=0.15)
        assert outcome.energy == pytest.approx(-7.3359, abs=2e-4)
        handed = np.linalg.det(outcome.structure.lattice.matrix)
        assert np.sign(handed) == {"left_handed": -1, "right_handed": 1}[name]


RELAXERS = ["identity", "mean-delta", "volume-scaling", "gbr", "gnn-delta", "t5", "t5-sym"]
RELAXERS += ["chgnet", "mace", "tensornet-embedded", "t5+mace", "chgnet torchsim", "mace torchsim"]
TOLERANCE = {"t5": 1e-9, "identity": 0, "gnn-delta": 1e-5, "gbr": 0.002, "mean-delta": 0}
"""Largest difference of the answers for either hand [Å]; 0.01 for others, which are relaxed."""


@pytest.mark.slow
@pytest.mark.parametrize("name", RELAXERS)
def test_left_handed_copies_give_the_right_handed_answer(name):
    model, _, engine = name.partition(" ")
    for module in resolve(model).requires:
        pytest.importorskip(module)
    relaxer = build(on_engine(resolve(model), engine or "ase"), RelaxSettings())
    samples = [sample for sample in load("embedded", split="test") if len(sample.initial) <= 4]
    starts = [Geometry.of(sample.initial) for sample in samples[:12:4]]
    inputs = [start.structure() for start in starts]
    outcomes = relaxer.relax(inputs)
    tolerance = TOLERANCE.get(model, 0.01)
    check_mirrored(relaxer, inputs, outcomes, tolerance)
    if model.startswith("t5"):
        return
    copies = relaxer.relax([swapped(start).structure() for start in starts])
    for right, left in zip(outcomes, copies, strict=True):
        assert left.status is right.status
        if right.structure is not None:
            assert_turned(left, swapped(Geometry.of(right.structure)), tolerance)
