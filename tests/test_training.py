"""Training of the equal-data potentials: right units, the same twice, nothing lost on the way."""

import json
import logging
import signal
from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms
from pymatgen.core import Lattice, Structure

from baselines import train
from baselines.potentials import mace, matgl
from baselines.training import potential_training as labelled
from baselines.training import train_mace, train_tensornet
from baselines.training.potential_training import PotentialTrainingConfig
from benchmarks.core import RelaxSettings, Status
from benchmarks.testing import check_relaxer, sample_structures

RECIPES = {
    "mace": train_mace.DISTILLATION,
    "mace-embedded": train_mace.RECIPE,
    "tensornet-embedded": train_tensornet.RECIPE,
}
EMBEDDED = ("mace-embedded", "tensornet-embedded")
"""Those that were trained on the frames of the embedded training split."""
PACKAGES = {"mace": "mace", "mace-embedded": "mace", "tensornet-embedded": "matgl"}


def salt(cation="Na", a=5.69):
    cell = Lattice(np.array([[0, 2, 2], [2, 0, 2], [2, 2, 0]]) * a / 4)
    return Structure(cell, [cation, "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])


@pytest.fixture
def salt_frames(tmp_path, write_lemat, lemat_frame):
    """Three cells too wide (stress +20 kB in VASP's sign, -0.01248 eV/Å^3 in ASE's)."""
    labels = {"energy": -3.0, "forces": np.zeros((2, 3)), "stress_tensor": np.eye(3) * 20.0}
    frames = [lemat_frame(salt(a=a), step=step, **labels) for step, a in enumerate((6.0, 5.8, 5.7))]
    return write_lemat(tmp_path / "three.parquet", frames)


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_training_leaves_a_checkpoint_that_relaxes(name, tmp_path, salt_frames):
    pytest.importorskip(PACKAGES[name])
    import torch

    out = tmp_path / f"tiny{RECIPES[name].out.suffix}"
    arguments = [name, "--data", str(salt_frames), "--epochs", "1", "--out", str(out)]
    assert train.main(arguments) == 0
    card = json.loads(out.with_suffix(".json").read_text())
    assert card["n_frames"] == 3
    assert card["rmse_train"]["n"] == 3
    assert card["trained"] == "from scratch"
    package, relaxer = {"mace": (mace, mace.Mace), "matgl": (matgl, matgl.MatGL)}[PACKAGES[name]]
    assert package.weights(str(out)) == out
    assert torch.get_default_dtype() == torch.float32  # of the models that come after it
    (outcome,) = relaxer(str(out), settings=RelaxSettings(max_steps=2)).relax([salt()])
    assert outcome.status in {Status.OK, Status.UNCONVERGED}
    assert outcome.energy == pytest.approx(-3.0, abs=1.0)
    (refused,) = relaxer(str(out)).relax([salt("K")])
    assert refused.status is Status.UNSUPPORTED


@pytest.mark.slow
def test_potentials_are_trained_on_all_data_that_are_named(tmp_path, salt_frames):
    pytest.importorskip("matgl")
    out, both = tmp_path / "both", ["--data", str(salt_frames), "--data", "embedded"]
    assert (
        train.main(
            ["tensornet-embedded", *both, "--limit", "2", "--epochs", "1", "--out", str(out)]
        )
        == 0
    )
    card = json.loads(out.with_suffix(".json").read_text())
    assert [data["n"] for data in card["training_data"]] == [1, 2]
    assert card["n_frames"] == 3 + len(labelled.training_frames(["embedded"], 2))
    assert f"--data {salt_frames} --data embedded --limit 2 --epochs 1" in card["command"]
    assert (card["seed"], card["identity"]["limit"], card["identity"]["epochs"]) == (0, 2, 1)
    revisions = {data["name"]: data["revision"] for data in card["training_data"]}
    assert card["identity"]["data"] == revisions


@pytest.mark.slow
def test_a_distillation_that_is_interrupted_goes_on(tmp_path, salt_frames, capsys, monkeypatch):
    pytest.importorskip("mace")
    out = tmp_path / "student.model"
    command = ["mace", "--data", str(salt_frames), "--epochs", "3", "--out", str(out)]
    recipe = train_mace.DISTILLATION
    monkeypatch.setattr(train_mace, "FIRST_EPOCHS", 1)
    monkeypatch.setattr(train_mace, "SECOND_EPOCHS", 2)

    def interrupted(path):
        raise KeyboardInterrupt

    small = {"num_channels": "8", "max_L": "0"}
    monkeypatch.setattr(train_mace, "DISTILLED", train_mace.DISTILLED | small)
    monkeypatch.setattr(train_mace, "DISTILLATION", replace(recipe, calculator=interrupted))
    handlers = logging.getLogger().handlers[:]
    assert train.main(command) == 130
    assert logging.getLogger().handlers == handlers  # mace-torch adds one
    assert not out.exists()
    monkeypatch.setattr(train_mace, "DISTILLATION", recipe)
    assert train.main([*command, "--seed", "1"]) == 2
    assert "seed is 0 there and 1 here" in capsys.readouterr().err
    assert train.main(command) == 0
    card = json.loads(out.with_suffix(".json").read_text())
    assert (card["model"], card["n_frames"], card["n_held_out"]) == ("mace", 3, 1)
    assert card["settings_of_the_last_stage"]["max_num_epochs"] == "1"
    assert [each["epoch"] for each in card["rmse_held_out_by_epoch"]][-2:] == [1, 2]
    assert str(tmp_path) not in json.dumps(card["settings_of_the_last_stage"])
    assert not out.with_name("student.model.state").exists()
    assert mace.Mace(str(out)).elements == {11, 17}


@pytest.mark.parametrize("name", EMBEDDED)
def test_committed_potential_names_what_it_was_trained_on(name):
    out = RECIPES[name].out
    card = json.loads(out.with_suffix(".json").read_text())
    assert [data["name"] for data in card["training_data"]] == ["embedded-v1/train"]
    assert card["n_frames"] == 229
    files = [out, *out.glob("*")]
    assert sum(file.stat().st_size for file in files) < 5_000_000


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_a_smoke_run_keeps_nothing_and_says_so_in_one_line(name, capsys):
    pytest.importorskip(PACKAGES[name])
    out = RECIPES[name].out
    files = [out.with_suffix(".json"), *(out.iterdir() if out.is_dir() else [out])]
    before = [file.stat().st_mtime_ns for file in files]
    assert train.main([name, "--smoke", "--limit", "1"]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"{name}: trained on ")
    assert said.endswith("nothing kept\n")
    assert said.count("\n") == 1
    assert [file.stat().st_mtime_ns for file in files] == before


@pytest.mark.parametrize("name", RECIPES)
def test_a_smoke_run_never_replaces_the_committed_checkpoint(name, capsys):
    out = RECIPES[name].out
    assert train.main([name, "--smoke", "--out", str(out)]) == 2
    assert capsys.readouterr().err == (f"error: --smoke would replace {out}: give another --out\n")


@pytest.mark.parametrize("name", ["gnn-delta", *RECIPES])
def test_a_training_that_could_not_be_kept_is_refused_before_it(name, tmp_path, capsys):
    """A folder of other files was once taken for an old checkpoint, and removed."""
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.tex").write_text("hypothesis")
    (tmp_path / "file").touch()
    pairs = ["--data", "embedded"] if name in ("gnn-delta", "mace") else []
    for out in (precious, tmp_path / "file" / "below"):
        assert train.main([name, *pairs, "--out", str(out)]) == 2
        assert capsys.readouterr().err.startswith(f"error: --out {out}")
    assert (precious / "thesis.tex").read_text() == "hypothesis"


@pytest.mark.parametrize("name", ["gnn-delta", *RECIPES])
def test_a_library_that_is_not_installed_is_one_line(name, monkeypatch, capsys):
    monkeypatch.setattr("benchmarks.core.cli.importable", lambda module: module == "torch")
    assert train.main([name, "--data", "embedded"]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {name} needs ma")
    assert "pip install 't2relax-bench[ma" in said


@pytest.fixture
def examples(salt_frames):
    return labelled.training_frames([str(salt_frames)])


def test_stresses_are_given_to_matgl_in_gpa_with_the_sign_of_ase(examples):
    """20 kB in VASP's sign push outwards: -2 GPa, as matgl's are the slope of the energy."""
    pytest.importorskip("matgl")
    (_, _, _, labels), *_ = train_tensornet._graphs(examples, ("Na", "Cl"), 5.0)
    assert labels["stresses"].numpy() == pytest.approx(np.eye(3) * -2.0, abs=1e-5)


@pytest.fixture(scope="module")
def potential():
    pytest.importorskip("matgl")
    return matgl.calculator(train_tensornet.RECIPE.out)


def strained(atoms, strain):
    atoms = atoms.copy()
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + strain), scale_atoms=True)
    return atoms


@pytest.mark.slow
def test_stress_and_forces_are_slopes_of_the_energy_that_has_the_repulsion(potential):
    potential.potential.double()
    try:
        atoms = Atoms("LiBr", cell=salt().lattice.matrix, positions=[[0, 0, 0], [2.3, 0.2, 0.1]])
        atoms.pbc, step = True, 1e-4

        def energy(changed):
            changed.calc = potential
            return changed.get_potential_energy()

        for i, j in ((0, 0), (0, 1)):
            strain = np.zeros((3, 3))
            strain[i, j] = strain[j, i] = step
            up, down = energy(strained(atoms, strain)), energy(strained(atoms, -strain))
            slope = (up - down) / (2 * step * atoms.get_volume()) / (1 if i == j else 2)
            atoms.calc = potential
            assert atoms.get_stress(voigt=False)[i, j] == pytest.approx(slope, abs=2e-4)
        moved = [atoms.copy(), atoms.copy()]
        moved[0].positions[1, 0] += step
        moved[1].positions[1, 0] -= step
        slope = (energy(moved[0]) - energy(moved[1])) / (2 * step)
        assert atoms.get_forces()[1, 0] == pytest.approx(-slope, abs=1e-3)
    finally:
        potential.potential.float()


@pytest.mark.slow
def test_atoms_that_come_too_close_repel(potential):
    pair = Atoms("LiBr", cell=[20, 20, 20], positions=[[0, 0, 0], [0.7, 0, 0]], pbc=True)
    pair.calc = potential
    assert pair.get_forces()[1, 0] > 100


@pytest.mark.slow
def test_an_atom_without_neighbours_does_not_raise(potential):
    alone = Atoms("Li", cell=[20, 20, 20], pbc=True)
    alone.calc = potential
    assert np.abs(alone.get_forces()).max() < 1e-6


@pytest.mark.slow
def test_the_same_seed_trains_the_same_weights(tmp_path, examples):
    pytest.importorskip("matgl")
    import torch

    states = []
    for name, seed in (("one", 0), ("two", 0), ("other", 1)):
        (tmp_path / name).mkdir()
        config = PotentialTrainingConfig(
            model="tensornet-embedded", out=tmp_path / "out", seed=seed, epochs=2
        )
        trained = train_tensornet.fit(tmp_path / name, examples, config)
        states.append(torch.load(trained.path / "state.pt"))
    first, second, other = states
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not all(torch.equal(first[key], other[key]) for key in first)


@pytest.mark.slow
def test_interrupting_leaves_the_old_checkpoint_and_its_card(tmp_path, salt_frames, monkeypatch):
    """Lightning would end the process with 1, and let it ignore the next interrupt."""
    pytest.importorskip("matgl")
    import matgl.graph.data

    def interrupt(batch):
        raise KeyboardInterrupt

    monkeypatch.setattr(matgl.graph.data, "collate_fn_pes", interrupt)
    out, card = tmp_path / "old", tmp_path / "old.json"
    out.mkdir()
    (out / "state.pt").write_text("old")
    card.write_text("old")
    handler = signal.getsignal(signal.SIGINT)
    assert train.main(["tensornet-embedded", "--data", str(salt_frames), "--out", str(out)]) == 130
    assert [file.read_text() for file in (card, *out.iterdir())] == ["old", "old"]
    assert signal.getsignal(signal.SIGINT) is handler


@pytest.mark.slow
def test_tensornet_keeps_the_contract():
    pytest.importorskip("matgl")
    outcomes = check_relaxer(
        matgl.MatGL(str(train_tensornet.RECIPE.out), settings=RelaxSettings(max_steps=20))
    )
    assert {outcome.status for outcome in outcomes} <= {Status.OK, Status.UNCONVERGED}


@pytest.mark.slow
def test_tensornet_keeps_the_contract_on_the_batched_engine():
    pytest.importorskip("matgl")
    pytest.importorskip("torch_sim")

    from baselines.potentials.matgl_batched import BatchedMatGL

    check_relaxer(
        BatchedMatGL(str(train_tensornet.RECIPE.out), settings=RelaxSettings(max_steps=20)),
        sample_structures()[:4],
    )
