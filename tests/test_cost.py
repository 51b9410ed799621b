"""`python -m studies.cost`: what it times, what it fits, and what it does about failures."""

from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest

from benchmarks.core import RelaxSettings, UserError
from benchmarks.models.registry import resolve
from studies.cost import batching, sites
from studies.cost import batching as figures
from studies.cost.__main__ import main
from studies.cost.sites import Point, exponent, rattled, supercell
from studies.cost.timing import Choice, Machine, Measured, chosen
from tests.conftest import one_line

STILL = "still=ase:benchmarks.testing:ZeroForce"
EMT = "emt=ase:ase.calculators.emt:EMT"
"""Knows neither Li nor Br, and raises."""


def point(model, n, seconds, **fields):
    about = {"engine": "ase", "weights": "its own", "loaded_mb": 300.0, "peak_mb": 300.0 + n}
    about |= {"threads": 1, "device": "cpu"}
    return Point(model=model, sites=n, seconds=seconds, **(about | fields))


# --- by sites


def test_supercells_have_2_to_200_sites_at_one_density():
    cells = [supercell(multiples) for multiples in sites.SUPERCELLS]
    assert [len(cell) for cell in cells] == [2, 4, 8, 16, 32, 64, 128, 200]
    densities = [len(cell) / cell.volume for cell in cells]
    assert densities == pytest.approx([0.04689] * 8, rel=1e-3)


def test_every_round_has_a_geometry_of_its_own():
    """A calculator of ASE that is asked twice about the same atoms answers from memory."""
    rng, cell = np.random.default_rng(0), supercell((2, 1, 1))
    first, second = rattled(cell, rng), rattled(cell, rng)
    moved = (first.frac_coords - second.frac_coords) @ first.lattice
    assert 0.001 < np.abs(moved).max() < 0.1
    assert (first.lattice == cell.lattice.matrix).all()


def test_the_exponent_is_of_large_sizes_alone():
    sizes = [2, 4, 8, 16, 32, 64, 128, 200]
    seconds = [0.1, 0.1, 0.1, 0.1, *(1e-4 * n**2 for n in sizes[4:])]
    assert exponent(sizes, seconds) == pytest.approx(2.0)
    assert exponent([2, 4, 8, 16], [1.0, 2.0, 4.0, 8.0]) == pytest.approx(1.0)
    assert exponent([2, 4], [1.0, 2.0]) is None
    assert exponent([], []) is None


@pytest.mark.slow
def test_the_command_measures_one_evaluation_at_each_size(tmp_path, capsys):
    assert main(["--models", STILL, "--largest", "8", "--out", str(tmp_path)]) == 0
    table = pd.read_csv(tmp_path / "cost.csv")
    assert table.model.tolist() == ["still"] * 3
    assert table.sites.tolist() == [2, 4, 8]
    assert table.engine.tolist() == ["ase"] * 3
    assert table.seconds.between(1e-5, 1.0).all()
    assert (table.peak_mb >= table.loaded_mb).all()
    assert table.device.tolist() == ["cpu"] * 3
    assert table.exponent.notna().all()
    assert "sites" in (tmp_path / "cost.svg").read_text()
    assert "still" in capsys.readouterr().out


@pytest.mark.slow
def test_a_model_that_fails_at_a_size_costs_its_larger_points_only(tmp_path, capsys):
    assert main(["--models", f"{EMT},{STILL}", "--largest", "2", "--out", str(tmp_path)]) == 0
    assert pd.read_csv(tmp_path / "cost.csv").model.tolist() == ["still"]
    assert "2 sites: emt: " in capsys.readouterr().err


def test_an_interrupted_measurement_keeps_its_points(tmp_path, monkeypatch, capsys):
    def some(*_):
        yield point("still", 2, 0.1)
        raise KeyboardInterrupt

    monkeypatch.setattr(sites, "points", some)
    assert main(["--models", STILL, "--out", str(tmp_path)]) == 130
    assert pd.read_csv(tmp_path / "cost.csv").sites.tolist() == [2]
    assert capsys.readouterr().err.endswith("cost.csv has what was measured by then\ninterrupted\n")


def test_nothing_measured_is_an_error_of_one_line(tmp_path, capsys):
    assert main(["--models", EMT, "--largest", "2", "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == "error: no model could be measured"
    assert not (tmp_path / "cost.csv").exists()


def test_the_figure_says_which_weights_are_random_and_what_is_a_whole_answer():
    rows = [point("tensornet", n, 0.01 * n, weights="random") for n in (8, 16, 32)]
    rows += [point("t5", n, 0.1, engine="") for n in (8, 16)]
    table = pd.DataFrame([asdict(row) for row in rows])
    table["exponent"] = [1.0] * 3 + [None] * 2
    labels = [figures._label(name, part) for name, part in figures._models(table)]
    assert labels == ["tensornet, ase, random weights: $n^{1.00}$", "t5, whole answer"]


def test_a_machine_without_a_gpu_is_told_so_in_one_line(tmp_path, capsys, monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["--models", STILL, "--device", "cuda", "--out", str(tmp_path / "new")]) == 2
    assert capsys.readouterr().err.startswith("error: --device cuda: torch finds no GPU here")
    assert not (tmp_path / "new").exists()


def test_the_figure_says_whose_memory_it_is():
    table = pd.DataFrame([asdict(point("mace", 2, 0.1, device="cuda (NVIDIA H100)"))])
    assert figures._memory(table) == "peak memory of the GPU (MB)"
    assert figures._memory(table.assign(device="cpu")) == "peak memory (MB)"


def test_an_out_that_is_a_file_is_an_error_of_one_line(tmp_path, capsys):
    (tmp_path / "taken").touch()
    assert main(["--models", STILL, "--out", str(tmp_path / "taken")]) == 2
    assert (
        capsys.readouterr().err == f"error: {tmp_path / 'taken'}: cannot be written (File exists)\n"
    )


# --- which models


def test_of_the_default_what_is_not_here_is_left_out_and_said(tmp_path, monkeypatch):
    monkeypatch.setattr("studies.cost.timing.DEFAULT", ("identity", "nothing-like-it"))
    said = []
    models = chosen(Choice(None, "ase", tmp_path), said.append)
    assert [model.spec.name for model in models] == ["identity"]
    assert said[0].startswith("left out: unknown model 'nothing-like-it'")


def test_a_model_that_was_asked_for_and_is_not_here_is_an_error(tmp_path):
    one_line(lambda: chosen(Choice(["nope"], "ase", tmp_path), print), "unknown model 'nope'")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "n_parameters"), [("tensornet", 837_378), ("m3gnet", 664_221)])
def test_random_weights_stand_in_for_published_ones(name, n_parameters, tmp_path, monkeypatch):
    pytest.importorskip("matgl")
    from baselines.potentials.matgl import MatGL

    def missing(spec, *, offline):
        raise UserError("not there")

    monkeypatch.setattr("studies.cost.timing.locate_model", missing)
    (model,) = chosen(Choice([f"{name}-matpes-pbe"], "ase", tmp_path), print)
    assert model.weights == "random"
    relaxer = MatGL(**model.spec.kwargs, settings=RelaxSettings(max_steps=0))
    parameters = relaxer.calculator.potential.model.parameters()
    assert sum(p.numel() for p in parameters) == n_parameters
    (outcome,) = relaxer.relax([supercell((1, 1, 1))])
    assert outcome.n_force_evals == 1


# --- by batch


def test_batching_needs_a_model_with_two_engines(tmp_path, capsys):
    command = ["--batching", "--models", "identity", "--out", str(tmp_path)]
    assert main(command) == 2
    assert capsys.readouterr().err == "error: identity has no batched engine\n"


def test_a_relaxation_with_random_weights_is_no_measurement(tmp_path):
    model = Measured(resolve("mace"), "random")
    machine = Machine("cpu", tmp_path / "log")
    one_line(lambda: list(batching.rows(model, 2, machine, print)), "its weights are not here")


def test_structures_are_those_of_the_training_split_and_from_the_first_again():
    starts = batching.starts(64)
    assert len(starts) == 64
    assert starts[47].numbers.tolist() == starts[0].numbers.tolist()
    assert max(len(start.numbers) for start in starts) <= 4


@pytest.mark.slow
def test_both_engines_relax_all_structures_at_every_size(tmp_path):
    for package in ("mace", "torch_sim"):
        pytest.importorskip(package)
    command = ["--batching", "--structures", "4", "--out", str(tmp_path)]
    assert main(command) == 0
    table = pd.read_csv(tmp_path / "batching.csv")
    assert table.engine.tolist() == ["ase", "torchsim", "torchsim"]
    assert table.batch.tolist() == [1, 1, 4]
    assert table.structures.tolist() == [4] * 3
    assert table.evaluations[1] == table.evaluations[2] < table.evaluations[0]
    assert "structures per call" in (tmp_path / "batching.svg").read_text()
