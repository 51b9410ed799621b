"""`python -m studies.cost`: what it times, what it fits, and what it does about failures."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from benchmarks.core import RelaxSettings, UserError
from benchmarks.models.registry import resolve
from studies.cost import batching, cost_tables, measurements, sites
from studies.cost.__main__ import main
from studies.cost.cost_tables import write_cost_tables
from studies.cost.measurements import Extent, measure_all, read_measurements
from studies.cost.sites import Point, Relaxations, exponent, rattled, supercell
from studies.cost.timing import DEFAULT, Choice, Machine, Measured, chosen
from tests.conftest import one_line

STILL = "still=ase:benchmarks.testing:ZeroForce"
EMT = "emt=ase:ase.calculators.emt:EMT"
"""Knows neither Li nor Br, and raises."""


def point(model, n, seconds, **fields):
    about = {"engine": "ase", "weights": "its own", "loaded_mb": 300.0, "peak_mb": 300.0 + n}
    about |= {"threads": 1, "device": "cpu", "cpu": "a cpu"}
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
    command = ["--models", STILL, "--largest", "8", "--structures", "2", "--out", str(tmp_path)]
    assert main(command) == 0
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
    (row,) = pd.read_csv(tmp_path / "models.csv").to_dict("records")
    assert (row["finished"], row["structures"], row["relaxation_evaluations"]) == (2, 2, 1)
    assert "| still | — |" in (tmp_path / "cost.md").read_text()
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "measured").iterdir()}
    assert len(written) == 4
    assert main(command) == 0  # nothing is measured again
    assert {path: path.stat().st_mtime_ns for path in written} == written


@pytest.mark.slow
def test_a_model_that_fails_at_a_size_costs_its_larger_points_only(tmp_path, capsys):
    models = ["--models", f"{EMT},{STILL}", "--largest", "2", "--structures", "2"]
    assert main([*models, "--out", str(tmp_path)]) == 0
    assert pd.read_csv(tmp_path / "cost.csv").model.tolist() == ["still"]
    assert "emt-002-sites: emt: " in capsys.readouterr().err


def test_nothing_measured_is_an_error_of_one_line(tmp_path, capsys):
    assert main(["--models", EMT, "--largest", "2", "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == "error: no model could be measured"
    assert not (tmp_path / "cost.csv").exists()


# --- what is kept, and what it is kept from


HERE = {"threads": 1, "device": "cpu", "cpu": "a cpu"}


@pytest.fixture
def study(tmp_path, monkeypatch):
    """Measure models without running any, and give the names of what was measured."""
    done = []

    def measure(model, cell, machine):
        done.append(f"{model.spec.name} {len(cell)}")
        if model.spec.name == "t5" and len(cell) > 16:
            raise UserError("t5: unsupported")
        return point(model.spec.name, len(cell), 0.01 * len(cell), **machine.about())

    def relax(model, n, machine):
        done.append(f"{model.spec.name} relaxes {n}")
        return Relaxations(
            structures=n, seconds_per_structure=0.3, evaluations_per_structure=7.0, finished=n
        )

    monkeypatch.setattr(measurements, "measure", measure)
    monkeypatch.setattr(measurements, "relaxations", relax)

    def run(*names, packages="2.13", largest=32, structures=53, **machine):
        done.clear()
        models = [
            Measured(
                resolve(name), "its own", "00", {"python": "3.11", "packages": {"torch": packages}}
            )
            for name in names
        ]
        here = SimpleNamespace(about=lambda: HERE | machine)
        said = []
        measure_all(models, tmp_path / "measured", here, Extent(largest, structures), said.append)
        return list(done)

    return run


def test_an_interrupted_study_goes_on_where_it_was_and_other_models_join(study, tmp_path):
    assert study("chgnet", largest=4) == ["chgnet 2", "chgnet 4", "chgnet relaxes 53"]
    assert study("chgnet", largest=8) == ["chgnet 8"]
    (tmp_path / "measured" / "chgnet-relaxations.json").unlink()
    assert study("chgnet", "nequix-oam-1", largest=8) == [
        "chgnet relaxes 53",
        *("nequix-oam-1 2", "nequix-oam-1 4", "nequix-oam-1 8", "nequix-oam-1 relaxes 53"),
    ]


def test_a_model_that_fails_at_a_size_still_relaxes_what_it_can(study):
    assert study("t5") == ["t5 2", "t5 4", "t5 8", "t5 16", "t5 32", "t5 relaxes 53"]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"cpu": "another"}, "cpu is 'a cpu' there and 'another' here"),
        ({"threads": 2}, "threads is 1 there and 2 here"),
        ({"packages": "2.14"}, "torch is '2.13' there and '2.14' here"),
        ({"structures": 3}, "structures is 53 there and 3 here"),
    ],
)
def test_what_is_not_of_this_machine_or_these_packages_is_refused_before_anything(
    study, changed, said
):
    study("chgnet", largest=2)
    one_line(lambda: study("nequix-oam-1", "chgnet", largest=2, **changed), said)
    if not changed.keys() & {"cpu", "threads"}:  # other models do not mind another torch
        assert study("nequix-oam-1", largest=2, **changed)


def test_a_damaged_measurement_is_named(study, tmp_path):
    study("chgnet", largest=2)
    path = tmp_path / "measured" / "chgnet-002-sites.json"
    path.write_text("{")
    one_line(lambda: study("chgnet", largest=2), f"{path} is no measurement: remove it")


def test_the_tables_have_training_beside_use_of_models_of_all_environments(study, tmp_path):
    study("chgnet")
    study("nequix-oam-1", packages="2.9")
    study("t5")
    cost = {"hours": 280, "device": "NVIDIA A100", "source": "https://example.org"}
    path = tmp_path / "measured" / "nequix-oam-1-relaxations.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"training_cost": [cost]}))
    stored = list(read_measurements(tmp_path / "measured").values())
    table = write_cost_tables(stored, tmp_path).set_index("model")
    assert table.training.to_dict() == {"chgnet": "—", "nequix-oam-1": "280 h A100", "t5": "—"}
    assert table.training_stated["nequix-oam-1"] == "280 h NVIDIA A100 (https://example.org)"
    assert table.exponent.tolist() == pytest.approx([1.0] * 3)
    assert table.seconds_32_sites["chgnet"] == pytest.approx(0.32)
    assert np.isnan(table.seconds_32_sites["t5"])
    assert table.peak_mb["chgnet"] == 332
    page = (tmp_path / "cost.md").read_text()
    assert "Measured on one machine: a cpu, cpu, 1 thread;" in page
    assert (
        "| nequix-oam-1 | 280 h A100 | 20.0 | 320 | — | 1.00 | 332, 32 | 0.3 | 7 | 53/53 |" in page
    )
    assert "\n- chgnet, t5: Python 3.11, torch 2.13.\n" in page
    assert "\n- nequix-oam-1: Python 3.11, torch 2.9.\n" in page
    assert len(pd.read_csv(tmp_path / "cost.csv")) == 5 + 5 + 4


def test_the_figure_says_which_weights_are_random_and_what_is_a_whole_answer():
    rows = [point("tensornet", n, 0.01 * n, weights="random") for n in (8, 16, 32)]
    rows += [point("t5", n, 0.1, engine="") for n in (8, 16)]
    table = pd.DataFrame(rows)
    table["exponent"] = [1.0] * 3 + [None] * 2
    labels = [cost_tables.label(name, part) for name, part in cost_tables._models(table)]
    assert labels == ["tensornet, ase, random weights: $n^{1.00}$", "t5, whole answer"]


def test_by_default_every_potential_of_the_registry_is_measured():
    assert {"chgnet", "nequix-oam-1", "sevennet-l3i5", "m3gnet-mp-2021", "t5"} <= set(DEFAULT)
    assert not {"identity", "gbr", "t5-free"} & set(DEFAULT)


def test_a_machine_without_a_gpu_is_told_so_in_one_line(tmp_path, capsys, monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["--models", STILL, "--device", "cuda", "--out", str(tmp_path / "new")]) == 2
    assert capsys.readouterr().err.startswith("error: --device cuda: torch finds no GPU here")
    assert not (tmp_path / "new").exists()


def test_the_figure_says_whose_memory_it_is():
    table = pd.DataFrame([point("mace", 2, 0.1, device="cuda (NVIDIA H100)")])
    assert cost_tables.memory_label(table) == "peak memory of the GPU (MB)"
    assert cost_tables.memory_label(table.assign(device="cpu")) == "peak memory (MB)"


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
