"""The graph network that predicts relaxations in one pass: its symmetries, targets and training."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from pymatgen.core import Lattice, Structure
from scipy.spatial.transform import Rotation

from baselines import train
from baselines.delta import network as delta
from baselines.delta import train_delta
from baselines.delta.network import MARGIN, DeltaNetwork, GraphDelta, Shape, load, predict, save
from baselines.delta.train_delta import DeltaExamples, DeltaTrainingConfig, example
from benchmarks.core import ANSWERED, Geometry, Status, UserError
from benchmarks.core.geometry import displacements, strain, strained
from benchmarks.testing import check_relaxer

SMALL = Shape(width=8, blocks=2, radial=8, cutoff=4.0)


@pytest.fixture
def network():
    """Untrained, but with a head that answers."""
    torch.manual_seed(3)
    network = DeltaNetwork(SMALL).eval()
    with torch.no_grad():
        for last in (network.growth.layers[-1], network.pull.layers[-1]):
            last.weight.normal_(0, 0.5)
            last.bias.normal_(0, 0.5)
    return network


@pytest.fixture
def relaxer(network, tmp_path):
    save(network, range(1, 90), tmp_path / "network.safetensors")
    return GraphDelta(tmp_path / "network.safetensors")


def crooked(seed=0, n=5):
    """A triclinic cell without symmetry."""
    rng = np.random.default_rng(seed)
    lattice = np.diag([4.0, 4.5, 5.0]) + rng.normal(0, 0.4, (3, 3))
    return Geometry(lattice, rng.random((n, 3)), rng.integers(3, 60, n).astype(np.int16))


def changes(network, geometry):
    """Cell strain (3, 3) and displacements (n, 3), as the end tells them."""
    (end,) = predict(network, [geometry])
    stretch = np.linalg.solve(geometry.lattice, end.lattice)
    return stretch, (end.frac_coords - geometry.frac_coords) @ geometry.lattice


def test_an_untrained_network_changes_nothing():
    start = crooked()
    stretch, moved = changes(DeltaNetwork(SMALL).eval(), start)
    assert np.abs(stretch - np.eye(3)).max() < 1e-7
    assert np.abs(moved).max() == 0


@pytest.mark.parametrize("parity", [1, -1])
def test_a_turned_or_mirrored_crystal_gives_the_turned_answer(network, parity):
    start = crooked()
    turn = parity * Rotation.random(rng=1).as_matrix()
    stretch, moved = changes(network, start)
    turned, pushed = changes(network, start._replace(lattice=start.lattice @ turn))
    assert np.abs(moved).max() > 0.01
    assert np.abs(stretch - np.eye(3)).max() > 0.01
    assert turned == pytest.approx(turn.T @ stretch @ turn, abs=1e-5)
    assert pushed == pytest.approx(moved @ turn, abs=1e-5)


def test_a_symmetric_crystal_keeps_its_symmetry_whatever_the_weights_are(network):
    lattice = np.array([[0, 2.8, 2.8], [2.8, 0, 2.8], [2.8, 2.8, 0]])
    salt = Geometry(lattice, np.array([[0, 0, 0], [0.5] * 3]), np.array([11, 17], np.int16))
    stretch, moved = changes(network, salt)
    assert abs(stretch[0, 0] - 1) > 0.001
    assert stretch == pytest.approx(stretch[0, 0] * np.eye(3), abs=1e-6)
    assert np.abs(moved).max() < 1e-6


def test_a_supercell_and_another_order_of_sites_relax_alike(network):
    start = crooked()
    stretch, moved = changes(network, start)
    order = [2, 0, 4, 1, 3, 7, 5, 9, 6, 8]
    double = Geometry(
        start.lattice * [[2], [1], [1]],
        np.concatenate([start.frac_coords, start.frac_coords + np.array([1, 0, 0])])[order]
        / [2, 1, 1],
        np.tile(start.numbers, 2)[order],
    )
    twice, pushed = changes(network, double)
    assert twice == pytest.approx(stretch, abs=1e-5)
    assert pushed == pytest.approx(np.tile(moved, (2, 1))[order], abs=1e-5)


@pytest.mark.parametrize(
    "changes",
    [
        *((), ("along",), ("dilation",), ("along", "dilation"), ("strained",), ("displaced",)),
        ("relaxed",), ("together",), train_delta.CHANGES,
    ],
)  # fmt: skip
def test_what_is_to_be_learned_leads_to_the_end_also_from_a_changed_start(changes):
    rng = np.random.default_rng(5)
    start = crooked()
    turn = Rotation.random(rng=2).as_matrix()
    end = Geometry(
        strained(start.lattice, rng.normal(0, 0.05, (3, 3))) @ turn,
        start.frac_coords + rng.normal(0, 0.02, (5, 3)) + rng.integers(-1, 2, (5, 3)) + 0.4,
        start.numbers,
    )
    never = dict.fromkeys(train_delta.CHANGES, 0.0)
    always = DeltaTrainingConfig(out=Path(), **never | dict.fromkeys(changes, 1.0))
    changed = DeltaExamples([example(start, end, 4.0)], always)[0]
    found = Geometry(
        strained(changed.start.lattice, changed.strain),
        changed.start.frac_coords + changed.moved,
        start.numbers,
    )
    assert strain(end.lattice, found.lattice) < (0.01 if "along" in changes else 1e-9)
    assert np.abs(displacements(end, found)).max() < 1e-9
    begun = strain(start.lattice, changed.start.lattice)
    assert (begun > 1e-3) == bool({*changes} - {"displaced", "together"})
    moved = np.abs(displacements(start, changed.start)).max()
    assert (moved > 1e-3) == bool({*changes} & {"along", "relaxed", "together", "displaced"})
    if changes == ("relaxed",):
        assert np.abs(changed.strain).max() == np.abs(changed.moved).max() == 0


def test_bonds_that_a_dilation_brings_into_reach_are_there():
    start = crooked()
    near = example(start, start, 4.0)
    apart = near.start._replace(lattice=start.lattice / 1.08)
    shrunk = start._replace(lattice=start.lattice / 1.08)
    assert MARGIN > 1.08
    batch = train_delta.joined([apart], 4.0)
    assert (
        batch.bonds.shape == train_delta.joined([example(shrunk, shrunk, 4.0).start], 4.0)[2].shape
    )


def test_the_relaxer_keeps_the_contract(relaxer):
    check_relaxer(relaxer)


def test_unknown_elements_overlaps_and_mixed_sites_are_refused_and_the_rest_answered(relaxer):
    cubic = Lattice.cubic(4)
    strange = [
        Structure(cubic, ["Pu"], [[0, 0, 0]]),
        Structure(cubic, ["Na", "Cl"], [[0, 0, 0], [0, 0, 0.01]]),
        Structure(cubic, [{"Na": 0.5, "K": 0.5}], [[0, 0, 0]]),
        Structure(cubic, ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]),
        Structure(Lattice.cubic(40), ["Na"], [[0, 0, 0]]),  # no bonds at all
    ]
    found = relaxer.relax(strange)
    assert [x.status for x in found[:3]] == [Status.UNSUPPORTED] * 3
    assert all(x.status in ANSWERED for x in found[3:])  # with weights that mean nothing
    assert "Pu" in found[0].detail


def test_an_answer_that_is_no_crystal_is_invalid_and_costs_its_own_row(relaxer):
    sane = Structure(Lattice.cubic(4), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    with torch.no_grad():
        relaxer.network.growth.layers[-1].weight.zero_()
        for bias, word in ((0.6, "volume"), (800.0, "not finite"), (float("nan"), "not finite")):
            relaxer.network.growth.layers[-1].bias.fill_(bias)
            found = relaxer.relax([sane, sane])
            assert [x.status for x in found] == [Status.INVALID] * 2
            assert word in found[0].detail


def test_a_file_that_is_no_model_is_one_line(tmp_path, network):
    path = tmp_path / "x.safetensors"
    with pytest.raises(UserError, match="no model of"):
        load(path)
    path.write_bytes(b"nonsense")
    with pytest.raises(UserError, match="no model of"):
        load(path)
    save(network, [1], path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match="no model of"):
        load(path)


# --- training -----------------------------------------------------------------------------------


def growing(n=16, stretch=1.1):
    """Pairs of which every cell grows by a tenth."""
    starts = [crooked(seed, n=3) for seed in range(n)]
    return [(x, x._replace(lattice=x.lattice * stretch)) for x in starts]


def weights(path):
    return {k: v.numpy() for k, v in load(path)[0].state_dict().items()}


def test_training_learns_that_everything_grows(tmp_path):
    out = tmp_path / "n.safetensors"
    config = DeltaTrainingConfig(
        out=out, epochs=25, batch_size=8, shape=SMALL, **dict.fromkeys(train_delta.CHANGES, 0.0)
    )
    found = train_delta.fit(growing(), growing(4), config)
    first, last = found["validation"][0], found["validation"][-1]
    assert first["strain"] == pytest.approx(np.sqrt(3) * np.log(1.1), rel=0.3)
    assert last["strain"] < 0.2 * first["strain"]
    assert last["epoch"] == 25
    assert found["steps"] == 50
    assert sorted(p.name for p in tmp_path.iterdir()) == [out.name]


def test_an_interrupted_training_goes_on_to_the_same_weights(tmp_path, monkeypatch):
    def config(name, seed=1):
        return DeltaTrainingConfig(
            out=tmp_path / name, epochs=3, batch_size=8, shape=SMALL, seed=seed
        )

    def run(name):
        train_delta.fit(growing(), growing(4), config(name))
        return tmp_path / name

    whole = run("whole.safetensors")
    begin = train_delta.DeltaTraining.on_train_epoch_start

    def interrupted(self):
        if self.current_epoch == 2:
            raise KeyboardInterrupt
        begin(self)

    monkeypatch.setattr(train_delta.DeltaTraining, "on_train_epoch_start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run("parts.safetensors")
    assert not (tmp_path / "parts.safetensors").exists()
    monkeypatch.setattr(train_delta.DeltaTraining, "on_train_epoch_start", begin)
    with pytest.raises(UserError, match=r'data is "sha256:.*" there and "sha256:.*" here'):
        train_delta.fit(growing(stretch=1.2), (), config("parts.safetensors"))
    with pytest.raises(UserError, match="seed is 1 there and 2 here"):
        train_delta.fit(growing(), (), config("parts.safetensors", seed=2))
    parts = run("parts.safetensors")
    for name, values in weights(whole).items():
        assert np.array_equal(values, weights(parts)[name]), name


def test_the_command_writes_a_model_with_its_card(tmp_path, capsys):
    out = tmp_path / "mine.safetensors"
    command = ["gnn-delta", "--data", "embedded", "--val", "embedded", "--limit", "8"]
    assert train.main([*command, "--epochs", "1", "--out", str(out)]) == 0
    card = json.loads(out.with_suffix(".json").read_text())
    assert card["n"] == 8
    assert card["training_data"][0]["name"] == "embedded-v1/train"
    assert card["command"].startswith("python -m baselines.train gnn-delta --data embedded")
    assert len(card["validation"]) == 1
    assert GraphDelta(out).elements
    assert delta.PACKAGED.name == "gnn_delta.safetensors"
