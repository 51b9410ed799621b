"""First and relaxed frame of each trajectory, found by what the frames show."""

import csv
import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymatgen.core import Lattice, Structure

from benchmarks.core import MissingFinalFrame
from benchmarks.data import Reason, load
from benchmarks.data.lemat.calculation_order import BASES, DECISIVE, ENDS, Basis, End
from benchmarks.data.lemat.calculations import cell_jump, metric_tensor
from benchmarks.data.lemat.reader import FrameFiles
from benchmarks.data.lemat.trajectories import survey

A = (5.0, 5.3, 5.45, 5.5, 5.52, 5.53)
"""Edge of a cube as it relaxes; two calculations of three steps."""
KEPT = {"energy", "stress_tensor", "forces"}


def frame(lemat_frame, a, step, number, material="mp-1", labels=KEPT):
    off = 5.53 - a
    known = {
        "energy": -8.0 + off**2,
        "stress_tensor": (-100 * off * np.eye(3)).tolist(),
        "forces": [[0.0, 0.0, off], [0.0, 0.0, -off]],
    }
    structure = Structure(Lattice.cubic(a), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    return lemat_frame(
        structure,
        material,
        step,
        relaxation_number=number,
        **{name: value for name, value in known.items() if name in labels},
    )


@pytest.fixture
def forwards(lemat_frame):
    """Two calculations in time order, the second starting where the first ended."""

    def make(material="mp-1", labels=KEPT):
        edges = [(a, 0) for a in A[:4]] + [(a, 1) for a in A[3:]]
        return [
            frame(lemat_frame, a, step, number, material, labels)
            for step, (a, number) in enumerate(edges)
        ]

    return make


@pytest.fixture
def backwards(lemat_frame):
    """The same as the public fetcher lists it: last calculation first, last frame dropped."""

    def make(material="mp-1", labels=KEPT, edges=A):
        listed = [(a, 0) for a in edges[3:]] + [(a, 1) for a in edges[:4]]
        return [
            frame(lemat_frame, a, step, number, material, labels)
            for step, (a, number) in enumerate(listed[:-1])
        ]

    return make


@pytest.fixture
def surveyed(tmp_path, write_lemat):
    def run(rows, **kwargs):
        path = write_lemat(tmp_path / "x.parquet", rows, **kwargs)
        return survey(FrameFiles([path]))

    return run


def edges(dataset):
    return [(s.initial.lattice.a, s.final.lattice.a) for s in dataset]


@pytest.mark.parametrize(
    "labels", [KEPT, {"energy"}, {"stress_tensor"}, set()], ids=["all", "energy", "stress", "cell"]
)
@pytest.mark.parametrize("way", ["forwards", "backwards"])
def test_start_is_not_taken_for_the_end_whichever_way_calculations_are_numbered(
    request, surveyed, tmp_path, way, labels
):
    found = surveyed(request.getfixturevalue(way)(labels=labels))
    order = found.trajectories.order
    assert order.backwards.tolist() == [way == "backwards"]
    assert BASES[order.basis[0]] is Basis.EVIDENCE
    (pair,) = edges(load(str(tmp_path / "x.parquet")))
    assert pair == pytest.approx((5.0, 5.53))


def test_forces_decide_only_where_the_light_columns_are_silent(lemat_frame, surveyed):
    """Two calculations in one fixed cell, without energies or stress."""
    rows = [frame(lemat_frame, 5.4, i, i // 2, labels={"forces"}) for i in range(4)]
    for row, force in zip(rows, (0.1, 0.02, 2.0, 0.3), strict=True):
        row["forces"] = [[force, 0, 0], [0, 0, 0]]
    order = surveyed(rows).trajectories.order
    assert order.evidence[0, :3].tolist() == [0, 0, 0]
    assert order.evidence[0, 3] == pytest.approx(np.log(15))
    assert order.backwards.tolist() == [True]


def test_silent_trajectory_is_read_as_its_source_is(lemat_frame, surveyed, forwards, backwards):
    silent = [frame(lemat_frame, 5.4, i, i, "mp-9", labels=()) for i in range(2)]
    for other, way in ((backwards, True), (forwards, False)):
        order = surveyed([*other("mp-1"), *silent]).trajectories.order
        assert order.backwards.tolist() == [way, way]
        assert [BASES[b] for b in order.basis] == [Basis.EVIDENCE, Basis.SOURCE]
    foreign = [*backwards("agm001"), *silent]
    for row in foreign[: -len(silent)]:
        row["id"] = row["id"].replace("-0-pbe", "-pbe")
    order = surveyed(foreign).trajectories.order
    assert order.backwards.tolist() == [True, False]
    assert BASES[order.basis[1]] is Basis.STEP


def test_what_one_set_of_files_shows_is_not_said_of_another(
    tmp_path, lemat_frame, write_lemat, backwards
):
    single = [frame(lemat_frame, a, i, 0, "mp-9") for i, a in enumerate((5.2, 5.4))]
    a = write_lemat(tmp_path / "a.parquet", backwards("mp-1"))
    b = write_lemat(tmp_path / "b.parquet", single)
    together, apart = (survey(FrameFiles([a, b], sets)).trajectories for sets in ([0, 0], [0, 1]))
    assert [ENDS[x] for x in together.order.end] == [End.PRESENT, End.MISSING]
    assert [ENDS[x] for x in apart.order.end] == [End.PRESENT, End.UNKNOWN]
    assert load([str(a), str(b)]).ids == (*load(str(a)).ids, *load(str(b)).ids)


def test_three_calculations_listed_backwards(lemat_frame, surveyed):
    listed = [(5.52, 0), (5.53, 0), (5.45, 1), (5.52, 1), (5.0, 2), (5.44, 2)]
    rows = [frame(lemat_frame, a, step, number) for step, (a, number) in enumerate(listed)]
    found = surveyed(rows).trajectories
    assert (found.chosen.initial_step.tolist(), found.chosen.relaxed_step.tolist()) == ([4], [1])
    assert found.n_calculations.tolist() == [3]


def test_dropped_last_frame_is_seen_in_the_trajectories_of_one_calculation(
    lemat_frame, surveyed, backwards, forwards
):
    single = [frame(lemat_frame, a, step, 0, "mp-9") for step, a in enumerate((5.2, 5.4))]
    order = surveyed([*backwards("mp-1"), *single]).trajectories.order
    assert [ENDS[e] for e in order.end] == [End.PRESENT, End.MISSING]
    whole = backwards("mp-1")
    whole.append(frame(lemat_frame, A[3], len(whole), 1))  # nothing dropped
    order = surveyed([*whole, *single]).trajectories.order
    assert [ENDS[e] for e in order.end] == [End.PRESENT, End.UNKNOWN]
    order = surveyed([*forwards("mp-1"), *single]).trajectories.order
    assert [ENDS[e] for e in order.end] == [End.UNKNOWN, End.UNKNOWN]


def test_first_calculation_alone_is_not_a_relaxation_that_ended(lemat_frame, surveyed, backwards):
    rows = [frame(lemat_frame, a, step + 3, 1, "mp-9") for step, a in enumerate((5.0, 5.3))]
    order = surveyed([*backwards("mp-1"), *rows]).trajectories.order
    assert ENDS[order.end[1]] is End.MISSING


def test_unrelaxed_remainder_is_not_a_target_unless_asked_for(
    tmp_path, lemat_frame, write_lemat, backwards
):
    rows = backwards("mp-1")
    for material, last in (("mp-2", 5.4), ("mp-3", 5.5295)):
        rows += [frame(lemat_frame, a, i, 0, material) for i, a in enumerate((5.2, last))]
    path = str(write_lemat(tmp_path / "x.parquet", rows))
    dataset = load(path)
    assert [s.material_id for s in dataset] == ["mp-1", "mp-3"]
    assert dataset.missing_final_frame_ids == ("mp-3-0-pbe",)
    (left_out,) = dataset.quarantined
    assert (left_out.sample_id, left_out.reason) == ("mp-2-0-pbe", Reason.END_MISSING)
    assert left_out.detail == "residual 0.130 eV/Å, 13.00 kB"
    assert len(load(path, missing_final_frame=MissingFinalFrame.KEEP)) == 3
    assert load(path, missing_final_frame=MissingFinalFrame.DROP).ids == ("mp-1-0-pbe",)
    for row in rows:
        row["forces"] = None  # then nobody knows how relaxed it is
    write_lemat(tmp_path / "x.parquet", rows)
    assert load(path).ids == ("mp-1-0-pbe",)


def test_missing_steps_are_counted_and_a_missing_start_is_seen(lemat_frame, surveyed):
    rows = [frame(lemat_frame, a, step, 0) for step, a in ((2, 5.0), (3, 5.3), (6, 5.5))]
    found = surveyed(rows).trajectories
    assert found.missing_steps.tolist() == [4]
    assert found.start_missing.tolist() == [True]
    assert (found.chosen.initial_step.tolist(), found.chosen.relaxed_step.tolist()) == ([2], [6])


@pytest.mark.parametrize("numbers", [(0, 1, 0), (0, None, 1)])
def test_calculations_that_overlap_or_lack_a_number_are_not_guessed(lemat_frame, surveyed, numbers):
    rows = [frame(lemat_frame, 5.0 + i / 10, i, n) for i, n in enumerate(numbers)]
    (fault,) = surveyed(rows).faults.values()
    assert fault.reason == Reason.ORDER


def test_numbers_that_are_all_null_are_one_calculation(lemat_frame, surveyed):
    rows = [frame(lemat_frame, 5.0 + i / 10, i, None) for i in range(3)]
    found = surveyed(rows)
    assert not found.faults
    assert (
        found.trajectories.n_calculations.tolist(),
        found.trajectories.chosen.relaxed_step.tolist(),
    ) == (
        [1],
        [2],
    )


@pytest.mark.parametrize("row_group_size", [1, 2, 100])
def test_step_in_two_rows_is_seen_across_row_groups(
    lemat_frame, surveyed, forwards, row_group_size
):
    rows = [frame(lemat_frame, 5 + i / 100, i, 0, "mp-2") for i in (0, 3, 1, 2, 4, 3)]
    found = surveyed([*rows, *forwards("mp-1")], row_group_size=row_group_size)
    (fault,) = found.faults.values()
    assert (fault.sample_id, fault.reason, fault.detail) == (
        "mp-2-0-pbe",
        Reason.DUPLICATED_STEP,
        "step 3",
    )
    assert found.trajectories.duplicated_steps.tolist() == [1, 0]


def test_null_steps_of_one_trajectory_do_not_taint_another(lemat_frame, surveyed, forwards):
    rows = [frame(lemat_frame, 5.0, i, 0, "mp-2") | {"relaxation_step": None} for i in range(2)]
    found = surveyed([*forwards("mp-1"), *rows, *forwards("mp-3")])
    assert [q.reason for q in found.faults.values()] == [Reason.NO_STEP]


@settings(max_examples=25, deadline=None)
@given(order=st.permutations(range(18)), size=st.integers(1, 18))
def test_order_of_rows_and_size_of_row_groups_do_not_matter(
    tmp_path_factory, lemat_frame, write_lemat, order, size
):
    rows = []
    for material in ("mp-1", "mp-2", "mp-3"):
        listed = [(a, 0) for a in A[3:]] + [(a, 1) for a in A[:3]]
        rows += [
            frame(lemat_frame, a, step, number, material) for step, (a, number) in enumerate(listed)
        ]
    path = tmp_path_factory.mktemp("rows") / "x.parquet"
    write_lemat(path, [rows[i] for i in order], row_group_size=size)
    found = survey(FrameFiles([path]))
    assert not found.faults
    assert found.trajectories.chosen.initial_step.tolist() == [3, 3, 3]
    assert found.trajectories.chosen.relaxed_step.tolist() == [2, 2, 2]
    assert sorted(edges(load(str(path)))) == [pytest.approx((5.0, 5.53))] * 3


def test_jump_of_the_cell_does_not_see_a_rotation():
    lattice = np.array([[4.0, 0.3, 0], [0, 5, 0.2], [0.1, 0, 6]])
    turned = lattice @ np.linalg.qr(np.arange(9).reshape(3, 3) ** 1.5)[0]
    before, after = (
        metric_tensor(np.stack([lattice, lattice])),
        metric_tensor(np.stack([turned, 1.01 * lattice])),
    )
    jumps = cell_jump(before, after)
    assert jumps[0] < 1e-6
    assert jumps[1] == pytest.approx(1.01**2 - 1, rel=1e-4)


# --- the data sets beside the repository ----------------------------------------------------------


def test_no_wrong_pair_in_a_file_with_the_quirks_of_the_public_fetcher(shared_data):
    folder = shared_data / "vasp"
    with (folder / "lemat-quirks-truth.csv").open() as file:
        truth = {row["quirks_id"]: row for row in csv.DictReader(file)}
    found = survey(FrameFiles([folder / "lemat-quirks.parquet"]))
    t = found.trajectories
    assert len(t) == len(truth) == 92
    for i, key in enumerate(t.ids):
        true = truth[t.materials[i]]
        assert f"{key}-{t.chosen.initial_step[i]}" == true["first"]
        assert f"{key}-{t.chosen.relaxed_step[i]}" == true["relaxed"]
        assert t.n_frames[i] == int(true["n_kept"])
        assert ENDS[t.order.end[i]] is (
            End.PRESENT if true["end_present"] == "True" else End.MISSING
        )
    assert [ENDS[end] for end in t.order.end].count(End.PRESENT) == 41
    assert [q.reason for q in found.faults.values()] == [Reason.SINGLE_FRAME]
    several = t.n_calculations > 1
    assert np.abs(t.order.evidence[several].sum(axis=1)).min() > 1.9 * DECISIVE


@pytest.mark.parametrize(
    ("path", "digest"),
    [
        ("gpaw/train", "2cd88c913d57632f9a4088c39038ab903fa92ea5a48bbc2108861689fdc8c76a"),
        ("gpaw/val", "6b9c1a3a7901fc612fa2908c49542f22fe09a31a90eb93ef61f69b6fde1efd4c"),
        ("gpaw/test", "b740d6b089d628b48bea85feabc1a1ba62ee7d24c08df0613c86713641b5057c"),
        ("substitution/train", "2982c7c44fd37190e7cf9bedc7f8d5ea0de4c8a57ce12cf95d78157b550d7f4f"),
        ("substitution/val", "87455e4be85adfa6e23a02ebb81a9fa8442afb1b6e2855d431a6a43a18d68f5d"),
        ("substitution/test", "248c886ba28309bc2ac0f7609c463d8f7bcc0542b37b17f5b640724807a506a7"),
        ("vasp/trajectories", "37eae0ef468bb35ee7d2a1f8ffaebb5f6731e55e9ec575b58f8111ee26d8cdb1"),
        ("vasp/other_frames", "2b429241273f0c2ac938a974d03d6f0c8089f3d7e5466d6f9edac2afbeafcf46"),
        (
            "hydrides/trajectories",
            "3a382582dfba5da0d845ef72541bb7dd86bfb4f428ff7124dd625412aff187f1",
        ),
    ],
)
def test_files_in_time_order_keep_their_pairs(shared_data, path, digest):
    """The hash is of a line for each trajectory: id, initial and relaxed row, number of frames."""
    found = survey(FrameFiles([shared_data / f"{path}.parquet"]))
    t = found.trajectories
    assert not found.faults
    assert not t.order.backwards.any()
    assert End.MISSING not in {ENDS[end] for end in t.order.end}
    rows = zip(t.ids, t.chosen.initial_row, t.chosen.relaxed_row, t.n_frames, strict=True)
    text = "\n".join(" ".join(map(str, row)) for row in rows)
    assert hashlib.sha256(text.encode()).hexdigest() == digest
