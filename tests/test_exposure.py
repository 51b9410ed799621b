"""Who may have seen what: training sets against the source and composition of a sample."""

import json
from pathlib import Path

import pytest

from benchmarks.core.geometry import elements, reduced_composition
from benchmarks.core.published_weights import models_trained_on
from benchmarks.core.training_data import TRAINING_SETS, track
from benchmarks.data import load
from benchmarks.data.exposure import Seen, drawn_from, seen
from benchmarks.data.splits.manifest import split_of
from benchmarks.models.registry import MODELS

ROOT = Path(__file__).parents[1]
MPTRJ = ("MPtrj (Materials Project)",)


@pytest.mark.parametrize(
    ("training_data", "source", "answer"),
    [
        ((), "mp", "no"),
        (MPTRJ, "mp", "possibly"),
        (MPTRJ, "mvc", "possibly"),
        (MPTRJ, "agm", "no"),
        (MPTRJ, "oqmd", "no"),
        (MPTRJ, "wbm", "no"),
        (MPTRJ, "gpaw", "no"),
        ((*MPTRJ, "sAlex (Alexandria)"), "agm", "possibly"),
        (("OMat24",), "agm", "possibly"),
        (("OMat24",), "oqmd", "no"),
    ],
)
def test_published_sets_are_told_by_the_source(training_data, source, answer):
    assert seen(training_data, source, "ClNa") == Seen(answer)


@pytest.mark.parametrize("source", ["gh", "augcgcnn", "nomad", "unknown"])
def test_what_cannot_be_known_is_not_called_unseen(source):
    assert seen(MPTRJ, source, "ClNa") == "possibly"
    assert seen(("not stated",), "gpaw", "ClNa") == "possibly"


def test_own_training_sets_are_told_by_the_chemical_system():
    assert (split_of(["Cl", "Na"]), split_of(["Hf"])) == ("train", "test")
    ours = ("substitution/train", "embedded/train")
    assert seen(ours, "mp", "ClNa") == seen(ours, "gpaw", "ClNa") == "possibly"
    assert seen(ours, "mp", "Hf") == seen(ours, "gpaw", "Hf") == seen(ours, "gh", "Hf") == "no"
    assert seen(("embedded/train",), "mp", "ClNa") == "no"


def test_no_model_saw_the_embedded_test_set():
    for sample in load():
        composition = reduced_composition(site.specie.Z for site in sample.initial)
        for spec in MODELS.values():
            assert seen(spec.training_data, sample.source, composition) == "no"


def test_every_training_set_of_the_registry_is_known():
    assert {name for spec in MODELS.values() for name in spec.training_data} <= TRAINING_SETS.keys()


@pytest.mark.parametrize(
    ("model", "path"),
    [
        ("mean-delta", "baselines/mean_delta.json"),
        ("gbr", "baselines/gbr.json"),
        ("gnn-delta", "baselines/gnn_delta.json"),
        ("mace-embedded", "baselines/mace_embedded.json"),
        ("tensornet-embedded", "baselines/tensornet_embedded.json"),
        ("t5", "t2relax/checkpoint/t2relax.json"),
        ("t5-equal", "t2relax/equal/t2relax.json"),
        ("gpt", "t2relax/gpt/t2relax.json"),
    ],
)
def test_our_models_were_trained_on_what_the_registry_says(model, path):
    card = json.loads((ROOT / path).read_text())
    data = card.get("training_data") or card["training"]["data"]
    names = {each if isinstance(each, str) else each["name"] for each in data}
    assert {name.replace("embedded-v1", "embedded") for name in names} == set(
        MODELS[model].training_data
    )


def test_published_models_stand_with_what_they_were_trained_on():
    for spec in MODELS.values():
        if spec.track == "foundation" and spec.name != "mace":  # ours, which inherits its teacher's
            for name in spec.training_data:
                assert spec.label in models_trained_on(name)


@pytest.mark.parametrize(
    ("training_data", "expected"),
    [
        ((), "trivial"),
        (("Materials Project bond lengths",), "trivial"),
        (("Materials Project bond lengths", "embedded/train"), "equal data"),
        (("substitution/train", "embedded-v2/train"), "equal data"),
        (("MPtrj (Materials Project)",), "foundation"),
        (("embedded/train", "MPtrj (Materials Project)"), "foundation"),
        (("embedded/train", "my own"), "not stated"),
    ],
)
def test_one_relaxation_from_elsewhere_leaves_the_track_of_equal_data(training_data, expected):
    assert track(training_data) == expected


def test_a_training_set_is_drawn_from_its_sources():
    assert drawn_from(("OMat24", "substitution/train"), "oqmd")
    assert not drawn_from(("OMat24", "not stated"), "mp")


def test_elements_of_a_composition():
    assert elements("O3SrTi") == ["O", "Sr", "Ti"]
    assert elements("C") == ["C"]
