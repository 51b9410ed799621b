"""One crystal in several writings: the crystal stays, answers come back, and the table says what a
relaxer makes of it."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from pymatgen.analysis.structure_matcher import StructureMatcher

from benchmarks.core import Geometry, Status
from benchmarks.core.geometry import displacements, strain
from benchmarks.core.statistics import Estimate
from benchmarks.core.writings import Convention, Writing
from benchmarks.store import Record
from leaderboard.board.schema import Board, Invariance
from leaderboard.scoring import INVARIANCE, with_invariance
from leaderboard.site import board_table
from leaderboard.views.markdown import markdown
from leaderboard.views.table_columns import rewritten
from studies import invariance
from tests.conftest import one_line
from tests.site_runs import scored_runs

TRICLINIC = Geometry(
    np.array([[4.0, 0.3, 0.1], [-0.7, 5.0, 0.2], [0.4, -0.9, 6.0]]),
    np.array([[0.05, 0.1, -0.2], [0.4, 0.55, 0.3], [0.7, 1.2, 0.8], [0.2, 0.8, 0.45]]),
    np.array([3, 8, 8, 22], dtype=np.int16),
)
"""Without symmetry, and with coordinates outside of the cell."""
ALONE = [{convention} for convention in Convention]
TOGETHER = {Convention.SITES, Convention.ORIGIN, Convention.AXES}
EVERY = [*ALONE, TOGETHER, set(Convention)]


def drawn(conventions, n_sites=4, seed=0):
    return Writing.drawn(conventions, n_sites, np.random.default_rng(seed))


def answer_to(initial):
    """The crystal strained and with its atoms moved, none of which sums to zero."""
    rng = np.random.default_rng(7)
    lattice = initial.lattice @ (np.eye(3) + rng.normal(0, 0.02, (3, 3)))
    fracs = initial.frac_coords + rng.normal(0, 0.02, initial.frac_coords.shape)
    return Geometry(lattice, fracs, initial.numbers)


@pytest.mark.parametrize("conventions", EVERY, ids=lambda found: "+".join(sorted(found)))
@pytest.mark.parametrize("seed", range(3))
def test_a_writing_is_of_the_same_crystal_and_an_answer_comes_back(conventions, seed):
    writing = drawn(conventions, seed=seed)
    written = writing.apply(TRICLINIC)
    assert StructureMatcher(scale=False, primitive_cell=True).fit(
        written.structure(), TRICLINIC.structure()
    )
    assert np.linalg.det(written.lattice) > 0
    back = writing.restore(written, TRICLINIC)
    for ours, theirs in zip(back, TRICLINIC, strict=True):
        assert np.abs(ours - theirs).max() < 1e-12
    # an answer that is written anew in the same way comes back as the answer
    answer = answer_to(TRICLINIC)
    restored = writing.restore(writing.apply(answer), TRICLINIC)
    assert np.abs(restored.lattice - answer.lattice).max() < 1e-12
    assert np.abs(displacements(answer, restored)).max() < 1e-9
    assert np.abs(displacements(answer, TRICLINIC)).max() > 0.05
    assert strain(TRICLINIC.lattice, restored.lattice) > 0.01


def test_each_convention_changes_what_it_says_and_nothing_else():
    sites, origin, axes, supercell = (drawn(each).apply(TRICLINIC) for each in ALONE)
    assert sorted(map(tuple, sites.frac_coords)) == sorted(map(tuple, TRICLINIC.frac_coords))
    assert not np.array_equal(sites.frac_coords, TRICLINIC.frac_coords)
    assert np.array_equal(sites.lattice, TRICLINIC.lattice)
    assert np.array_equal(origin.lattice, TRICLINIC.lattice)
    assert np.array_equal(origin.numbers, TRICLINIC.numbers)
    moved = (origin.frac_coords - TRICLINIC.frac_coords) % 1
    assert moved == pytest.approx(np.tile(moved[0], (4, 1)))
    assert np.array_equal(axes.numbers, TRICLINIC.numbers)
    lengths = np.linalg.norm(axes.lattice, axis=1)
    assert sorted(lengths) == pytest.approx(sorted(np.linalg.norm(TRICLINIC.lattice, axis=1)))
    assert supercell.numbers.tolist() == [3, 3, 8, 8, 8, 8, 22, 22]
    assert np.linalg.det(supercell.lattice) == pytest.approx(2 * np.linalg.det(TRICLINIC.lattice))


def test_exchanged_axes_stay_in_space_and_keep_the_handedness():
    """A swap of a and b: their vectors are exchanged, and all are reversed."""
    swap = Writing((1, 1, 1), (1, 0, 2), np.zeros(3), np.arange(4))
    a, b, c = TRICLINIC.lattice
    written = swap.apply(TRICLINIC)
    assert np.array_equal(written.lattice, [-b, -a, -c])
    assert written.frac_coords[1] == pytest.approx([0.45, 0.6, 0.7])
    turn = Writing((1, 1, 1), (1, 2, 0), np.zeros(3), np.arange(4)).apply(TRICLINIC)
    assert np.array_equal(turn.lattice, [b, c, a])
    assert turn.frac_coords[2] == pytest.approx([1.2, 0.8, 0.7])


def test_the_copies_of_a_site_are_averaged_as_displacements_whatever_cell_they_are_written_in():
    doubled = Writing((2, 1, 1), (0, 1, 2), np.zeros(3), np.arange(4))
    pair = Geometry(np.eye(3) * 4, np.array([[0.0, 0, 0], [0.5, 0.5, 0.5]]), np.int16([11, 17]))
    written = doubled.apply(pair)
    assert written.frac_coords[:, 0].tolist() == [0.0, 0.5, 0.25, 0.75]
    # of 8 Å: Na moves by -0.08 and by -0.16 Å, its partners by as much to the other side
    moved = np.array([-0.01, -0.02, 0.01, 0.02])
    fracs = written.frac_coords.copy()
    fracs[:, 0] = (fracs[:, 0] + moved) % 1
    answer = Geometry(written.lattice * [[1.01], [1], [1]], fracs, written.numbers)
    back = doubled.restore(answer, pair)
    assert back.lattice == pytest.approx(np.diag([4.04, 4, 4]))
    assert back.frac_coords[:, 0] == pytest.approx([-0.03, 0.53])


def test_a_writing_depends_on_its_seed_and_an_order_of_sites_is_another_one():
    assert np.array_equal(drawn({Convention.ORIGIN}).shift, drawn({Convention.ORIGIN}).shift)
    assert not np.array_equal(
        drawn({Convention.ORIGIN}).shift, drawn({Convention.ORIGIN}, seed=1).shift
    )
    orders = [drawn({Convention.SITES}, 2, seed).order.tolist() for seed in range(20)]
    assert orders == [[1, 0]] * 20
    assert drawn({Convention.SITES}, 1).order.tolist() == [0]
    assert {drawn({Convention.AXES}, seed=seed).axes for seed in range(60)} == {
        (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0),
    }  # fmt: skip


# --- the study


class Crystals:
    """Two crystals of two sites in a cube of 4 Å, and one of a single site."""

    ids = ("a", "b", "c")
    name, split, revision = "cubes", "test", "sha256:00"

    def __len__(self):
        return len(self.ids)

    def geometries(self, i):
        fracs = np.array([[0.0, 0, 0], [0.5, 0.5, 0.5]])[: 1 if i == 2 else 2]
        given = Geometry(np.eye(3) * 4, fracs, np.int16([11, 17 + i])[: len(fracs)])
        return given, given


CRYSTALS = Crystals()


def run_of(relax, name="toy", sha256=None):
    """A run whose records are `relax(geometry)` -> status, geometry."""
    records = []
    for sample_id, start in invariance.writings(CRYSTALS):
        status, geometry = relax(start)
        records.append(
            Record(model=name, sample_id=sample_id, repeat=0, status=status, geometry=geometry,
                   batch_id=0, batch_size=1, batch_seconds=0.1)
        )  # fmt: skip
    return SimpleNamespace(name=name, records=records, identity={"weights_sha256": sha256})


def means(relax):
    return invariance.summary(invariance.differences(run_of(relax), CRYSTALS)).set_index("writing")


def stretches_c(start):
    return Status.OK, start._replace(lattice=start.lattice * [[1], [1], [1.02]])


def moves_the_first_site(start):
    moved = np.zeros_like(start.frac_coords)
    moved[0, 0] = 0.1
    turned = start.frac_coords + moved @ np.linalg.inv(start.lattice)
    return Status.OK, start._replace(frac_coords=turned)


def refuses_more_than_two_sites(start):
    if len(start.numbers) > 2:
        return Status.UNSUPPORTED, None
    return Status.OK, start


def collapses_supercells(start):
    return Status.OK, start._replace(lattice=start.lattice * (len(start.numbers) < 3))


def test_no_change_is_told_from_every_writing_to_be_none():
    found = means(lambda start: (Status.OK, start))
    assert found.index.tolist() == ["sites", "origin", "axes", "supercell", "mean"]
    assert (found[["strain", "displacement"]] < 1e-12).to_numpy().all()
    assert found["n"].tolist() == [3] * 5
    assert found["status_changed"].tolist() == [0] * 5


def test_a_model_that_looks_at_the_axes_pays_for_their_names_alone():
    """A stretched c is another axis's once a, b and c are exchanged, and no other writing's."""
    found = means(stretches_c)
    drawn_axes = [invariance.writing_of(name, Convention.AXES, 2).axes[2] for name in CRYSTALS.ids]
    assert 2 not in drawn_axes
    expected = np.sqrt(2) * np.log(1.02)
    assert found["strain"].to_dict() == pytest.approx(
        {"sites": 0, "origin": 0, "axes": expected, "supercell": 0, "mean": expected / 4}, rel=1e-5
    )
    assert found["displacement"].to_numpy() == pytest.approx(0, abs=1e-9)


def test_a_model_that_looks_at_the_order_pays_for_it_and_for_copies():
    """0.1 Å of the first site: as much of the other one if they are exchanged, half of it on the
    mean over two copies; where there is one site the common shift is no change."""
    found = means(moves_the_first_site)
    wanted = {"sites": 0.2 / 3, "origin": 0, "axes": 0, "supercell": 0.05 / 3, "mean": 0.25 / 12}
    assert found["displacement"].to_dict() == pytest.approx(wanted, rel=1e-5)
    assert found["strain"].to_numpy() == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("relax", [refuses_more_than_two_sites, collapses_supercells])
def test_a_writing_without_an_answer_is_counted_and_not_compared(relax):
    found = means(relax)
    assert found["n"].tolist() == [3, 3, 3, 1, 3]
    assert found["status_changed"].tolist() == [0, 0, 0, 2, 2]


def test_the_command_writes_the_tables_and_does_nothing_twice(tmp_path, capsys):
    command = ["--models", "identity", "--n", "2", "--out", str(tmp_path)]
    assert invariance.main(command) == 0
    table = pd.read_csv(tmp_path / INVARIANCE)
    assert table["writing"].tolist() == ["sites", "origin", "axes", "supercell", "mean"]
    assert table["n"].tolist() == [2] * 5
    assert table["strain"].to_numpy() == pytest.approx(0, abs=1e-9)
    page = (tmp_path / "invariance.md").read_text()
    assert "| Model | sites | origin | axes | supercell | mean |" in page
    assert page.count("| identity |") == 3
    assert "embedded-v1, split test, 2 structures" in page
    parts = sorted(tmp_path.glob("runs/identity/*/part-*.parquet"))
    assert parts
    times = [part.stat().st_mtime_ns for part in parts]
    assert invariance.main(command) == 0
    assert sorted(tmp_path.glob("runs/identity/*/part-*.parquet")) == parts
    assert [part.stat().st_mtime_ns for part in parts] == times
    assert "identity: 10 ok" in capsys.readouterr().err


# --- the column of a board


@pytest.fixture
def folder(tmp_path):
    """A folder with what was measured of `halfway` (with other weights, too) and of no board's."""
    runs = [
        run_of(moves_the_first_site, "halfway"),
        run_of(stretches_c, "halfway", "0ther"),
        run_of(stretches_c, "nobody"),
    ]
    invariance.write_tables(runs, CRYSTALS, tmp_path)
    return tmp_path


def test_a_board_shows_what_was_measured_with_its_weights(tmp_path, folder):
    scored = scored_runs(tmp_path / "runs")
    plain = scored.board()
    board = with_invariance(plain, folder)
    known = {row.model: row.invariance for row in board.rows}
    found = known.pop("halfway")
    assert set(known.values()) == {None}
    assert (found.dataset, found.structures, found.status_changed) == ("cubes/test", 3, 0)
    assert found.displacement.point == pytest.approx(0.25 / 12, rel=1e-5)
    assert found.displacement.low < found.displacement.point < found.displacement.high
    assert Board.from_json(board.to_json()) == board
    page = markdown(board)
    assert "| Written otherwise moves by |" in page
    assert "| 0, 0.021 Å |" in page
    assert "over these four writings of 3 structures of cubes/test; 0 is right." in page
    (column,) = [each for each in board_table.columns(board) if each.key == "rewritten"]
    assert column.label == "Written otherwise moves by"
    cells = {
        line.row.model: line.cells["rewritten"] for line in board_table.lines(board, board.rows)
    }
    assert cells["halfway"].text == "0, 0.021 Å"
    assert cells["oracle"].text == "—"


def test_without_a_file_there_is_no_column_and_no_field(tmp_path):
    board = scored_runs(tmp_path / "runs").board()
    assert with_invariance(board, tmp_path) is board
    assert "invariance" not in board.to_json()
    assert "otherwise" not in markdown(board)
    assert "rewritten" not in [column.key for column in board_table.columns(board)]


def test_a_status_that_changes_is_told_under_the_table(tmp_path):
    invariance.write_tables([run_of(refuses_more_than_two_sites, "text")], CRYSTALS, tmp_path)
    board = with_invariance(scored_runs(tmp_path / "runs").board(), tmp_path)
    (found,) = [row.invariance for row in board.rows if row.invariance]
    assert found == Invariance(
        dataset="cubes/test", structures=3, status_changed=2,
        strain=Estimate(point=0.0, low=0.0, high=0.0, n=3),
        displacement=Estimate(point=0.0, low=0.0, high=0.0, n=3),
    )  # fmt: skip
    assert "Structures whose status one of them changes: text 2." in markdown(board)


def test_differences_of_rounding_are_not_written_out():
    def shown(strain, moved):
        ends = (Estimate(point=x, low=x, high=x, n=1) for x in (strain, moved))
        numbers = dict(zip(("strain", "displacement"), ends, strict=True))
        found = Invariance(dataset="toys", structures=1, status_changed=0, **numbers)
        return rewritten(SimpleNamespace(invariance=found))

    assert shown(4.4e-8, 9.5e-8) == "< 1e-06, < 1e-06 Å"
    assert shown(0.0, 0.00123) == "0, 0.0012 Å"
    assert rewritten(SimpleNamespace(invariance=None)) == "—"


@pytest.mark.parametrize(
    ("old", "new", "word"),
    [("displacement_low", "low", "displacement_low"), (",mean,3,", ",mean,many,", "many"),
     (",mean,3,0", ",mean,3,inf", "inf")],
)  # fmt: skip
def test_a_file_that_is_none_of_the_study_is_one_line(tmp_path, folder, old, new, word):
    path = folder / INVARIANCE
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    board = scored_runs(tmp_path / "runs").board()
    one_line(lambda: with_invariance(board, folder), str(path), word, "studies.invariance")
