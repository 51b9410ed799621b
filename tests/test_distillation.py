"""Frames labelled by a teacher: reproducible, resumable, readable as a data set."""

import json

import numpy as np
import pytest
from ase.calculators.lj import LennardJones

from baselines.potentials import chgnet
from baselines.training import distillation
from baselines.training.distillation import DistillationConfig, Drawing, label
from baselines.training.potential_training import to_atoms
from benchmarks.core import UserError
from benchmarks.core.geometry import reduced_composition
from benchmarks.data import frames, load


class Teacher(LennardJones):
    """A potential of all elements, in place of a published one."""

    calls = 0
    atom_indices = dict.fromkeys(range(1, 95), 0)

    def calculate(self, *args, **kwargs):
        type(self).calls += 1
        super().calculate(*args, **kwargs)


@pytest.fixture
def teacher(monkeypatch, tmp_path):
    file = tmp_path / "weights"
    file.write_bytes(b"weights")
    monkeypatch.setattr(chgnet, "weights", lambda _: file)
    monkeypatch.setattr(chgnet, "calculator", lambda _: Teacher(sigma=2.0, epsilon=0.1, rc=6.0))
    monkeypatch.setattr(distillation, "PART", 60)
    monkeypatch.setattr(Teacher, "calls", 0)
    return file


def config(folder, **changes):
    about = {"teacher": "chgnet", "data": ("embedded",), "out": folder, "draws": 50}
    return DistillationConfig(**about | changes)


def test_labels_are_a_data_set_with_the_teachers_numbers(teacher, tmp_path):
    card = label(config(tmp_path / "labels"))
    table = tmp_path / "labels/labels.parquet"
    found = list(frames(str(table)))
    assert len(found) == card["n_frames"] == sum(card["kinds"].values())
    assert card["kinds"]["atom"] == 94
    assert set(card["kinds"]) <= {"atom", *distillation.KINDS}
    for frame in found[::7]:
        atoms = to_atoms(frame.geometry, Teacher(sigma=2.0, epsilon=0.1, rc=6.0))
        assert frame.energy == pytest.approx(atoms.get_potential_energy())
        assert frame.forces == pytest.approx(atoms.get_forces(), abs=1e-8)
        assert frame.stress == pytest.approx(atoms.get_stress(voigt=False), abs=1e-8)
        assert np.linalg.norm(frame.forces, axis=1).max() <= distillation.LARGEST_FORCE


def test_labelling_goes_on_where_it_stopped_and_refuses_other_settings(teacher, tmp_path):
    whole = label(config(tmp_path / "whole"))
    label(config(tmp_path / "cut"))
    removed = sorted((tmp_path / "cut").glob("part-*.parquet"))[1]
    removed.unlink()
    before = Teacher.calls
    again = label(config(tmp_path / "cut"))
    assert 0 < Teacher.calls - before < before / 2
    assert again["sha256"] == whole["sha256"]
    with pytest.raises(UserError, match="seed is 0 there and 1 here"):
        label(config(tmp_path / "cut", seed=1))
    with pytest.raises(UserError, match="--teacher nobody: no name of published weights"):
        label(config(tmp_path / "new", teacher="nobody"))
    assert json.loads((tmp_path / "whole/labels.json").read_text()) == json.loads(json.dumps(whole))


def test_draws_depend_on_seed_and_number_alone_and_pairs_of_atoms_come_near():
    draw = Drawing([load("embedded", split="train")], list(range(1, 95)), seed=3)
    potential = Teacher()
    kinds = set()
    for number in range(94, 400):
        (kind, one), (same, other) = draw(number, potential), draw(number, potential)
        assert kind == same
        kinds.add(kind)
        if kind not in ("relaxation", "substituted"):
            (first,), (second,) = one, other
            assert np.array_equal(first.positions, second.positions)
        if kind == "pair":
            assert 0.2 < first.get_distance(0, 1) < distillation.BOX / 2
        if kind == "dense":
            assert first.get_volume() > 0
    assert kinds == set(distillation.KINDS)


def test_substitutions_leave_out_the_compositions_they_are_told_to():
    data = [load("embedded", split="train")]
    taken = distillation.compositions(data)
    assert len(taken) > 30
    few = [3, 11, 17, 35]  # with few elements the same compositions come again
    free = substituted(Drawing(data, few, seed=0))
    kept = substituted(Drawing(data, few, seed=0, left_out=frozenset(list(free)[:3])))
    assert len(free) > 3
    assert kept
    assert not kept & set(list(free)[:3])


def substituted(draw):
    """The compositions of many substitutions."""
    _, relaxed = draw._pairs[draw._materials[0]][0]
    rng = np.random.default_rng(0)
    return {reduced_composition(draw._substituted(relaxed, rng).numbers) for _ in range(200)}
