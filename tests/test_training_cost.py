"""What a training cost: as published, as the cards of ours say, and as boards show it."""

import json
from types import SimpleNamespace

import pytest

from benchmarks.core.published_weights import PUBLISHED_WEIGHTS
from benchmarks.core.training_cost import TrainingCost, measured_costs
from benchmarks.core.training_data import Track
from benchmarks.models.provenance import known_training_costs, training_costs, weights_identity
from benchmarks.models.registry import find_weights, resolve
from leaderboard.views.table_columns import training

T5 = (
    TrainingCost(hours=3.8067, device="cpu", source="measured"),
    TrainingCost(hours=0.2317, device="NVIDIA H100 80GB HBM3", source="measured"),
)
"""Two stages of 5.7 and 8.2 minutes on the GPU, and one of 228 minutes."""
GBR = TrainingCost(hours=0.0469, device="cpu", source="measured")
"""169 seconds."""


def weights(model):
    return find_weights(resolve(model), offline=True)


def digest(model):
    return weights_identity(weights(model))["weights_sha256"]


def test_hours_of_published_weights_are_those_that_their_authors_state():
    stated = {name: x.training_cost for name, x in PUBLISHED_WEIGHTS.items() if x.training_cost}
    a100 = {"mace-mp-0": 2600, "nequix-mp-1": 500, "nequix-oam-1": 280, "nequix-omat-1": 240}
    hours = {name: x.hours for name, x in stated.items() if x.device == "NVIDIA A100"}
    assert hours == a100
    assert stated["diep-matpes-r2scan"].hours == 79
    assert all(cost.source.startswith("https://") for cost in stated.values())


def test_minutes_of_ours_are_those_of_their_cards_over_all_stages():
    (t5,), (gbr,) = weights("t5"), weights("gbr")
    assert measured_costs(t5) == T5
    assert measured_costs(gbr) == (GBR,)
    assert measured_costs(weights("mean-delta")[0]) == ()  # its card says no time


@pytest.mark.parametrize(
    ("card", "expected"),
    [
        ({"seconds": 3600, "device": "cpu"}, [(1.0, "cpu")]),
        ({"seconds": 3600}, []),
        ({"device": "cpu"}, []),
        ({"seconds": "long", "device": "cpu"}, []),
        (["no card"], []),
        ("no JSON", []),
    ],
)
def test_a_card_that_leaves_a_time_or_a_device_out_says_nothing(tmp_path, card, expected):
    text = card if isinstance(card, str) else json.dumps(card)
    (tmp_path / "w.json").write_text(text)
    found = measured_costs(tmp_path / "w.model")
    assert [(cost.hours, cost.device) for cost in found] == expected
    assert measured_costs(tmp_path / "other.model") == ()


def test_stages_on_two_devices_stay_apart_and_a_common_start_counts_once(tmp_path):
    first = {"from": "scratch", "minutes": 60.0, "device": "H100", "seed": 0}
    start = {"weights": "sha256:0", "training": first}
    second = {"from": [start, start], "minutes": 30.0, "device": "cpu"}
    (tmp_path / "t2relax.json").write_text(json.dumps({"training": second}))
    found = measured_costs(tmp_path / "model.safetensors")
    assert {cost.device: cost.hours for cost in found} == {"H100": 1.0, "cpu": 0.5}
    second["from"] = [{"weights": "sha256:0", "training": {"from": "scratch"}}]
    (tmp_path / "t2relax.json").write_text(json.dumps({"training": second}))
    assert measured_costs(tmp_path / "model.safetensors") == ()


def test_a_stored_run_has_the_cost_of_its_very_weights():
    assert known_training_costs("t5-best8", digest("t5")) == [*T5]
    assert known_training_costs("t5-best8", "of other weights") is None
    assert known_training_costs("mine", digest("t5")) is None
    assert known_training_costs("identity", None) == []
    assert known_training_costs("mean-delta", digest("mean-delta")) == [None]
    nequix = PUBLISHED_WEIGHTS["nequix-oam-1"].training_cost
    hybrid = known_training_costs("t5+nequix-oam-1", f"{digest('t5')}+whatever")
    assert hybrid == [*T5, nequix]
    assert known_training_costs("identity+chgnet", "whatever") == [None]


def test_a_new_run_records_it_also_for_weights_of_the_users_own(tmp_path):
    (t5,) = weights("t5")
    assert training_costs(resolve(f"mine=t5:{t5.parent}"), [t5]) == [*T5]
    assert training_costs(resolve("volume-scaling"), []) == []
    calculator = resolve("emt=ase:ase.calculators.emt:EMT")
    assert training_costs(calculator, []) == [None]
    hybrid = resolve("gbr+nequix-mp-1")
    recorded = training_costs(hybrid, [*weights("gbr"), tmp_path / "nequix-mp-1.nqx"])
    assert recorded == [GBR, PUBLISHED_WEIGHTS["nequix-mp-1"].training_cost]


@pytest.mark.parametrize(
    ("hours", "device", "short"),
    [
        (2600, "NVIDIA A100", "2,600 h A100"),
        (2.0, "NVIDIA L40S", "2 h L40S"),
        (0.2317, "NVIDIA H100 80GB HBM3", "14 min H100"),
        (1.9, "cpu", "114 min CPU"),
        (0.001, "cpu", "< 1 min CPU"),
    ],
)
def test_short_cells_have_time_and_device(hours, device, short):
    cost = TrainingCost(hours=hours, device=device, source="measured")
    row = SimpleNamespace(track=Track.FOUNDATION, training_cost=(cost, None))
    assert training(row) == f"{short} + —"
    assert training(row, whole=True).endswith(f" {device} (measured) + —")
    assert training(SimpleNamespace(track=Track.TRIVIAL, training_cost=())) == "none"
