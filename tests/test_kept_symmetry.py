"""--keep-symmetry: what has a space group keeps it, whatever the potential and the engine."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from pymatgen.core import Lattice, Structure

from baselines.engines.ase_engine import AseRelaxer
from baselines.engines.relaxation_loop import KeptSymmetry
from benchmarks.core import GPA, Geometry, RelaxSettings, Status
from benchmarks.core.geometry import symmetry
from benchmarks.core.symmetry import space_group
from benchmarks.data import load
from benchmarks.engine.benchmark_run import BenchmarkRun, ModelRun
from benchmarks.models.registry import MODELS
from benchmarks.run import main
from benchmarks.testing import assert_same

TIGHT = {"fmax": 0.005, "max_stress": 0.005 * GPA}
L10 = Structure(Lattice.tetragonal(2.9, 3.9), ["Cu", "Au"], [[0, 0, 0], [0.5, 0.5, 0.5]])
HCP = Structure(
    Lattice.hexagonal(2.7, 4.1), ["Cu"] * 2, [[1 / 3, 2 / 3, 0.25], [2 / 3, 1 / 3, 0.75]]
)
ZIGZAG = Structure(  # Pmma: one coordinate of each species is free
    Lattice.orthorhombic(4.6, 2.8, 4.6),
    ["Cu", "Cu", "Au", "Au"],
    [[0.25, 0, 0.23], [0.75, 0, 0.77], [0.25, 0.5, 0.72], [0.75, 0.5, 0.28]],
)
STARTS = {123: L10, 194: HCP, 51: ZIGZAG}


class Lopsided(Calculator):
    """EMT, and a push of each atom and a shear of the cell that follow no symmetry."""

    implemented_properties = ("energy", "forces", "stress")

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        real = atoms.copy()
        real.calc = EMT()
        rng = np.random.default_rng(0)
        push = rng.normal(0, 0.3, (len(atoms), 3))
        shear = rng.normal(0, 0.01, 6)
        self.results = {
            "energy": real.get_potential_energy(),
            "forces": real.get_forces() + push,
            "stress": real.get_stress() + shear,
        }


def ase(**limits):
    return AseRelaxer(Lopsided, settings=RelaxSettings(**limits))


def torchsim(**limits):
    """The same potential on the batched engine."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("torch_sim")
    from torch_sim.models.interface import ModelInterface

    from baselines.engines.batch_engine import BatchedRelaxer

    class Model(ModelInterface):
        def __init__(self):
            super().__init__()
            self._device, self._dtype = torch.device("cpu"), torch.float64
            self._compute_forces = self._compute_stress = True

        def forward(self, state):
            said = [said_of(one) for one in state.split()]
            energies, forces, stresses = zip(*said, strict=True)
            return {
                "energy": torch.tensor(energies, dtype=torch.float64),
                "forces": torch.from_numpy(np.concatenate(forces)),
                "stress": torch.from_numpy(np.stack(stresses)),
            }

    def said_of(state):
        cell, places = state.row_vector_cell[0].numpy(), state.positions.numpy()
        numbers = state.atomic_numbers.numpy()
        atoms = Atoms(numbers, cell=cell, positions=places, pbc=True, calculator=Lopsided())
        return atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress(voigt=False)

    return BatchedRelaxer(Model(), settings=RelaxSettings(**limits))


ENGINES = pytest.mark.parametrize("engine", [ase, torchsim])


def number(structure, symprec=1e-5):
    return symmetry(Geometry.of(structure), symprec)[0]


@ENGINES
@pytest.mark.parametrize("expected", STARTS)
def test_a_lopsided_potential_does_not_break_the_symmetry_of_the_start(engine, expected):
    start = STARTS[expected]
    assert number(start) == expected
    (outcome,) = engine(keep_symmetry=True).relax([start])
    assert outcome.status is Status.OK
    assert outcome.n_force_evals > 2
    assert number(outcome.structure) == expected
    (free,) = engine(max_steps=20).relax([start])
    assert number(free.structure) != expected


@ENGINES
def test_of_a_start_without_symmetry_nothing_is_taken(engine):
    start = ZIGZAG.copy()
    start.perturb(0.1, seed=0)
    assert number(start, 0.01) == 1
    free, kept = (engine(max_steps=10, keep_symmetry=k).relax([start])[0] for k in (False, True))
    assert_same(Geometry.of(free.structure), Geometry.of(kept.structure), 1e-9, "projected")
    assert kept.max_force == pytest.approx(free.max_force)


def test_both_engines_end_in_the_same_symmetric_minimum():
    for start in STARTS.values():
        one, other = (
            engine(keep_symmetry=True, **TIGHT).relax([start])[0] for engine in (ase, torchsim)
        )
        assert one.status is other.status is Status.OK
        lengths = one.structure.lattice.abc
        assert other.structure.lattice.abc == pytest.approx(lengths, abs=0.01)
        moved = one.structure.frac_coords - other.structure.frac_coords
        assert np.abs(moved @ start.lattice.matrix).max() < 0.01
        assert one.energy == pytest.approx(other.energy, abs=2e-3 * len(start))


def test_forces_and_stress_that_symmetry_forbids_are_no_lack_of_convergence():
    """A push that no displacement within the group can follow would keep it from `ok` for ever."""
    (free,) = ase(max_steps=0).relax([HCP])
    (kept,) = ase(max_steps=0, keep_symmetry=True).relax([HCP])
    assert free.max_force > 0.1
    assert kept.max_force == pytest.approx(0.0, abs=1e-9)
    assert kept.max_stress != free.max_stress


def test_a_nearly_symmetric_start_strains_as_the_symmetric_one_would():
    off = L10.copy()
    off.apply_strain([0.0, 0.001, 0.0])  # 0.003 Å, within the tolerance
    assert number(off, 0.01) == 123
    (outcome,) = ase(keep_symmetry=True).relax([off])
    a, b, _ = outcome.structure.lattice.abc
    assert b / a == pytest.approx(1.001, abs=1e-5)
    assert outcome.structure.lattice.angles == pytest.approx((90, 90, 90), abs=1e-6)


def test_operations_of_a_supercell_are_found_and_orthogonal():
    """48 rotations and 32 translations of 64 atoms; all atoms are one another's images."""
    rocksalt = bulk("NaCl", "rocksalt", a=5.6, cubic=True) * 2
    geometry = Geometry(
        rocksalt.cell.array, rocksalt.get_scaled_positions(), rocksalt.numbers.astype(np.int16)
    )
    kept = KeptSymmetry.of(geometry)
    assert kept.images.shape == (48 * 32, 64)
    assert (np.sort(kept.images, axis=1) == np.arange(64)).all()
    assert (geometry.numbers[kept.images] == geometry.numbers).all()
    products = kept.rotations @ kept.rotations.transpose(0, 2, 1)
    assert np.abs(products - np.eye(3)).max() < 1e-12
    assert np.abs(kept.forces(np.ones((64, 3)))).max() < 1e-12


def test_images_are_of_the_nearest_atom_also_across_the_boundary():
    chain = Geometry(
        np.diag([3.0, 9.0, 9.0]),
        np.array([[-1e-17, 0, 0], [0.5, 0.999, 0.001]]),
        np.array([11, 11], dtype=np.int16),
    )
    group = space_group(chain, 0.05)
    assert group.images.shape[0] > 1
    assert (np.sort(group.images, axis=1) == [0, 1]).all()


# --- the command


def test_every_potential_takes_the_flag_on_every_engine():
    graphs = [spec for spec in MODELS.values() if spec.family == "gnn"]
    potentials = [spec for spec in graphs if spec.name != "gnn-delta"]  # which always keeps it
    assert len(potentials) >= 26
    for spec in potentials:
        assert "keep_symmetry" in spec.honours, spec.name


def test_runs_that_did_not_keep_it_have_the_identity_they_had():
    def identity(settings):
        run = BenchmarkRun(
            dataset=load("embedded", limit=1),
            settings=settings,
            repeats=1,
            out=None,
            command="",
            log=print,
        )
        return ModelRun(MODELS["mace"], ()).identity(run)["settings"]

    before = {"fmax": 0.05, "max_steps": 500, "timeout": 600.0}
    assert identity(RelaxSettings()) == before
    assert identity(RelaxSettings(keep_symmetry=True)) == before | {"keep_symmetry": True}


@pytest.mark.parametrize(
    ("options", "difference"),
    [
        (["--keep-symmetry"], "settings.keep_symmetry differs (None stored, now True)"),
        (["--max-stress", "2"], "settings.max_stress differs (None stored, now 0.0124830"),
    ],
)
def test_runs_with_and_without_do_not_mix(options, difference, tmp_path, capsys):
    zero = "zero=ase:benchmarks.testing:ZeroForce"
    arguments = ["--models", zero, "--limit", "1", "--out", str(tmp_path)]
    assert main(arguments) == 0
    capsys.readouterr()
    assert main([*arguments, "--max-stress", "0.1"]) == 0
    capsys.readouterr()
    assert main([*arguments, *options]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert difference in error
