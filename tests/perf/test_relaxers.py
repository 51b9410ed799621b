"""What the batched engine saves: against CHGNet's and matcalc's own relaxers, and against ASE.

    make perf
    T2_PAIRS=../shared/data/substitution/test.parquet python -m pytest tests/perf/test_relaxers.py \
        --override-ini addopts=-q -s

`T2_PAIRS` is a data set from which 40 starts of 2 to 20 sites are drawn; without it those of the
embedded set, which are smaller. Ratios within one run, on as many threads as `OMP_NUM_THREADS`
says, or with `T2_DEVICE=cuda` on a GPU. All relax to the same limits, 0.05 eV/Å and 0.1 GPa.
CHGNet's own relaxer has a criterion that mixes forces and stress, so its FIRE is stopped at the
step at which ours is met.

Within the limits a soft crystal can stop some way from its minimum, so that two answers count as
the same minimum if they are within 1 meV/atom and 0.01 Å as they stopped, or after both were
relaxed further, to a twentieth of the limits. Of 40 substitutions 35 are. Of the others one is a
layered crystal (MoS2), whose layers CHGNet hardly holds at a distance (0.12 Å at the same energy).
Four lie on a saddle point that the symmetry of the start holds them to. Two stop there with both
relaxers, 0.03 Å apart, and only one of the two falls when it goes on; from two (TeAuN2F, Nb4B4W2)
CHGNet's own relaxer falls before it stops, by the rounding of its single precision over many steps,
to 0.9 and 0.2 eV/atom below: ours is in double precision and keeps the symmetry longer.
"""

import contextlib
import io
import os
import time

import numpy as np
import pytest

from benchmarks.core import GPA, RelaxSettings, Status
from benchmarks.data import load
from benchmarks.engine import worker
from benchmarks.engine.hybrid import build
from benchmarks.models.registry import on_engine, resolve

pytestmark = [pytest.mark.perf, pytest.mark.filterwarnings("ignore")]

N = int(os.environ.get("T2_STRUCTURES", "40"))
DEVICE = os.environ.get("T2_DEVICE", "cpu")
FMAX, MAX_STRESS = 0.05, 0.1 * GPA
SAME_ENERGY, SAME_LENGTH = 1e-3, 0.01
"""[eV/atom] and [Å]: two answers within both are the same minimum."""


@pytest.fixture(scope="module")
def starts():
    """Structures of 2 to 20 sites."""
    pairs = os.environ.get("T2_PAIRS")
    samples = load(pairs, limit=4 * N) if pairs else load("embedded", split="test")
    chosen = [sample.initial for sample in samples if 2 <= len(sample.initial) <= 20]
    if not pairs:
        chosen += [sample.initial for sample in load("embedded", split="train")]
        chosen = [structure for structure in chosen if len(structure) >= 2]
    assert len(chosen) >= N
    return chosen[:N]


def timed(function, *arguments):
    begin = time.perf_counter()
    answer = function(*arguments)
    return time.perf_counter() - begin, answer


class ConvergedError(Exception):
    """Our limits are met: how their loop is stopped where ours stops."""


def struct_optimizer(calculator, starts):
    """What `StructOptimizer` of CHGNet comes to, ended at the step where our criterion is met."""
    from chgnet.model import StructOptimizer
    from pymatgen.io.ase import AseAtomsAdaptor

    optimizer = StructOptimizer(calculator)
    answers, converged = [], 0
    for start in starts:
        atoms = AseAtomsAdaptor.get_atoms(start)
        with contextlib.redirect_stdout(io.StringIO()):
            optimizer.optimizer_class = stopping(atoms)
            try:
                optimizer.relax(atoms, fmax=0.0, steps=500, verbose=False, assign_magmoms=False)
            except ConvergedError:
                converged += 1
        answers.append(AseAtomsAdaptor.get_structure(atoms))
    return answers, converged


def stopping(atoms):
    """FIRE of ASE that stops by our criterion; forces and stress are there already."""
    from ase.optimize import FIRE

    class Stopping(FIRE):
        def step(self, *arguments):
            forces, stress = atoms.get_forces(), atoms.get_stress()
            if np.linalg.norm(forces, axis=1).max() <= FMAX and np.abs(stress).max() <= MAX_STRESS:
                raise ConvergedError
            return super().step(*arguments)

    return Stopping


def near(one, other):
    """Two outcomes within 1 meV/atom and 0.01 Å."""
    gap = abs(one.energy - other.energy) / len(one.structure)
    lengths = [np.array(outcome.structure.lattice.abc) for outcome in (one, other)]
    return gap < SAME_ENERGY and np.abs(lengths[0] - lengths[1]).max() < SAME_LENGTH


def compare(model, ours, theirs):
    """How many pairs of structures are the same: as they stopped, and then or after going on."""
    from baselines.engines.batch_engine import BatchedRelaxer

    stages = [BatchedRelaxer(model, settings=RelaxSettings(max_steps=0))]
    stages += [
        BatchedRelaxer(
            model,
            settings=RelaxSettings(fmax=FMAX / 20, max_stress=MAX_STRESS / 20, max_steps=2000),
        )
    ]
    stopped, further = (
        [near(*pair) for pair in zip(stage.relax(ours), stage.relax(theirs), strict=True)]
        for stage in stages
    )
    either = sum(a or b for a, b in zip(stopped, further, strict=True))
    return {"same_as_stopped": int(sum(stopped)), "same_minimum": int(either)}


def test_chgnet_against_its_own_relaxer(benchmark, starts):
    pytest.importorskip("chgnet")
    pytest.importorskip("torch_sim")
    from baselines.potentials import chgnet
    from baselines.potentials.chgnet_batched import BatchedCHGNet

    ours, theirs = (
        BatchedCHGNet(settings=RelaxSettings(device=DEVICE)),
        chgnet.CHGNet(settings=RelaxSettings(device=DEVICE)),
    )
    ours.relax(starts[:2])
    struct_optimizer(theirs.calculator, starts[:1])
    outcomes = benchmark.pedantic(ours.relax, (starts,), rounds=1)
    alone, by_ase = timed(theirs.relax, starts)
    theirs_seconds, (answers, converged) = timed(struct_optimizer, theirs.calculator, starts)
    same = compare(ours.model, [outcome.structure for outcome in outcomes], answers)
    seconds = benchmark.stats.stats.min
    benchmark.extra_info |= {
        "structures": len(starts),
        "seconds": round(seconds, 2),
        "struct_optimizer_seconds": round(theirs_seconds, 2),
        "times_faster_than_struct_optimizer": round(theirs_seconds / seconds, 2),
        "times_faster_than_ase_engine": round(alone / seconds, 2),
        "force_evaluations": sum(o.n_force_evals for o in outcomes),
        "force_evaluations_of_ase_engine": sum(o.n_force_evals for o in by_ase),
        "converged": sum(o.status is Status.OK for o in outcomes),
        "converged_by_struct_optimizer": converged,
        **same,
    }
    assert theirs_seconds / seconds > 2.5
    assert converged > 0.9 * len(starts)
    assert same["same_minimum"] > 0.8 * len(starts)


def test_chgnet_against_matcalc(benchmark, starts, monkeypatch):
    """Its FIRE ends by its own criterion, forces and the filter's share of the stress together."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # its import waits for the network otherwise
    matcalc = pytest.importorskip("matcalc", reason="not installed: make perf installs it")
    from baselines.potentials import chgnet
    from baselines.potentials.chgnet_batched import BatchedCHGNet

    ours = BatchedCHGNet(settings=RelaxSettings(device=DEVICE))
    calculator = chgnet.CHGNet(settings=RelaxSettings(device=DEVICE)).calculator
    theirs = matcalc.RelaxCalc(calculator, optimizer="FIRE", fmax=FMAX)
    ours.relax(starts[:2])
    theirs.calc(starts[0])
    outcomes = benchmark.pedantic(ours.relax, (starts,), rounds=1)
    theirs_seconds, answers = timed(lambda: [theirs.calc(start) for start in starts])
    seconds = benchmark.stats.stats.min
    ends = [answer["final_structure"] for answer in answers]
    same = compare(ours.model, [outcome.structure for outcome in outcomes], ends)
    benchmark.extra_info |= {
        "structures": len(starts),
        "times_faster_than_matcalc": round(theirs_seconds / seconds, 2),
        **same,
    }
    assert theirs_seconds / seconds > 2.5
    assert same["same_minimum"] > 0.7 * len(starts)


@pytest.mark.parametrize("size", [1, 4, 16, 64])
def test_mace_batches_against_the_ase_loop(benchmark, size):
    """The same 64 structures at every size; sizes ascend, since memory is the highest so far."""
    pytest.importorskip("mace")
    pytest.importorskip("torch_sim")
    from baselines.potentials import mace

    split = [sample.initial for sample in load("embedded", split="train")]
    starts = (split * 2)[:64]
    from baselines.potentials.mace_batched import BatchedMace

    ours, one_by_one = (
        BatchedMace(settings=RelaxSettings(device=DEVICE)),
        mace.Mace(settings=RelaxSettings(device=DEVICE)),
    )
    ours.relax(starts[:1])
    one_by_one.relax(starts[:1])

    def in_batches():
        parts = (starts[i : i + size] for i in range(0, len(starts), size))
        return [outcome for part in parts for outcome in ours.relax(part)]

    outcomes = benchmark.pedantic(in_batches, rounds=1)
    seconds, by_ase = timed(one_by_one.relax, starts)
    evaluations = [sum(o.n_force_evals for o in found) for found in (outcomes, by_ase)]
    ratio = seconds / benchmark.stats.stats.min
    benchmark.extra_info |= {
        "batch": size,
        "times_faster_than_ase": round(ratio, 2),
        "per_evaluation": round(ratio * evaluations[0] / evaluations[1], 2),
        "peak_memory_mb": round(worker.peak_memory_mb()),
        "converged": sum(o.status is Status.OK for o in outcomes),
        "converged_by_ase": sum(o.status is Status.OK for o in by_ase),
    }
    assert ratio > 1


@pytest.mark.parametrize("name", ["chgnet", "mace"])
def test_memory_of_the_largest_evaluation(benchmark, name):
    """One evaluation of the batched engine takes less than half of the memory there is."""
    pytest.importorskip("torch_sim")
    torch = pytest.importorskip("torch")
    relaxer = build(on_engine(resolve(name), "torchsim"), RelaxSettings(device=DEVICE, max_steps=0))
    crystal = load("embedded", split="train")[0].initial.make_supercell(2, in_place=False)
    size = len(crystal) ** 2 / crystal.volume * 1000
    n = int(relaxer.memory / size)
    relaxer.relax([crystal])
    if DEVICE == "cuda":
        torch.cuda.reset_peak_memory_stats()
    outcomes = benchmark.pedantic(relaxer.relax, ([crystal] * n,), rounds=1)
    peak = worker.peak_memory_mb()
    benchmark.extra_info |= {
        "sites": n * len(crystal),
        "seconds_per_site": benchmark.stats.stats.min / n / len(crystal),
        "peak_memory_mb": round(peak),
        "memory": relaxer.memory,
    }
    assert {outcome.n_force_evals for outcome in outcomes} == {1}
    there = torch.cuda.mem_get_info()[1] / 2**20 if DEVICE == "cuda" else 8192
    assert peak < there / 2
