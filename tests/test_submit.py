"""Submissions: predictions and a card go to a row, and nothing else of the folder is believed."""

import json
import math
import pickle

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from benchmarks.core import Geometry, Status
from benchmarks.data import load
from benchmarks.store import Record, RunWriter
from leaderboard.__main__ import main as leaderboard
from leaderboard.submission import CARD, LARGEST_CARD, PREDICTIONS
from leaderboard.submit import main


@pytest.fixture(scope="module")
def data():
    return load("embedded", split="test")


@pytest.fixture(scope="module")
def half(data):
    """A model that goes half the way, and refuses the first sample."""

    def answer(i):
        initial, final = data.geometries(i)
        if not i:
            return Status.UNSUPPORTED, None
        lattice = (initial.lattice + final.lattice) / 2
        return Status.OK, Geometry(lattice, final.frac_coords, final.numbers)

    return [answer(i) for i in range(len(data))]


@pytest.fixture
def run(tmp_path, data, half):
    identity = {"model": "half", "label": "Half the way", "family": "other", "weights": None,
                "weights_sha256": None, "dataset": data.name, "revision": data.revision,
                "split": data.split}  # fmt: skip
    machine = {"cpu": "a cpu", "device": "cpu", "threads": 1, "licence": "MIT",
               "training_data": ["embedded/train"], "functional": "PBE"}  # fmt: skip
    folder = tmp_path / "runs" / "half"
    with RunWriter.open(folder, identity, machine) as writer:
        writer.append(
            Record(model="half", sample_id=sample_id, repeat=0, status=status, geometry=geometry,
                   batch_id=k, batch_size=1, batch_seconds=0.25)
            for k, (sample_id, (status, geometry)) in enumerate(zip(data.ids, half, strict=True))
        )  # fmt: skip
    return folder


@pytest.fixture
def submission(tmp_path, run):
    folder = tmp_path / "submission"
    author = ["--author", "A. Name", "--link", "https://example.org/half"]
    assert main(["from-run", str(run), str(folder), *author]) == 0
    return folder


def edit_card(folder, **changes):
    card = yaml.safe_load((folder / "card.yaml").read_text()) | changes
    (folder / "card.yaml").write_text(yaml.safe_dump(card, allow_unicode=True))


def edit_rows(folder, change):
    """Rewrite the predictions with what `change` makes of the list of rows."""
    path = folder / "predictions.parquet"
    rows = pq.read_table(path).to_pylist()
    pq.write_table(pa.Table.from_pylist(change(rows), schema=PREDICTIONS), path)


def refusal(folder, capsys):
    """The one line with which `check` refuses a folder."""
    capsys.readouterr()
    assert main(["check", str(folder)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    return said


def test_a_run_that_is_submitted_has_the_same_scores_and_its_time_is_declared(
    tmp_path, run, submission, capsys
):
    assert main(["check", str(submission), "--run", str(tmp_path / "back")]) == 0
    capsys.readouterr()
    both = {}
    for name, folder in (("own", run), ("back", tmp_path / "back" / "half")):
        assert leaderboard([str(folder), "--out", str(tmp_path / name)]) == 0
        both[name] = json.loads((tmp_path / name / "board.json").read_text())["rows"][0]
    own, back = both["own"]["metrics"], both["back"]["metrics"]
    assert own["score"] == back["score"]
    assert own["lattice_mae"] == back["lattice_mae"]
    assert back["score"]["point"] > 0.7
    assert (own["wall_time_median"]["point"], own["declared_time"]["point"]) == (0.25, None)
    assert (back["wall_time_median"]["point"], back["declared_time"]["point"]) == (None, 0.25)
    assert both["back"]["hardware"] == []
    assert both["back"]["coverage"] == both["own"]["coverage"]
    assert both["back"]["track"] == "equal data"
    page = (tmp_path / "back" / "board.md").read_text()
    assert "Submitted as predictions, not run here: half (A. Name)." in page
    assert "Declared time (s)" in page
    assert "Declared time (s) |" not in (tmp_path / "own" / "board.md").read_text()


def test_a_template_is_a_submission_that_answers_nothing(tmp_path, data, capsys):
    folder = tmp_path / "new"
    assert main(["template", str(folder)]) == 0
    assert pq.read_table(folder / "predictions.parquet")["id"].to_pylist() == list(data.ids)
    assert main(["check", str(folder)]) == 0
    said = capsys.readouterr().out
    assert "0/53" in said
    assert "note: card.yaml: authors is empty" in said
    assert main(["template", str(folder)]) == 2
    assert "is there and not empty" in capsys.readouterr().err


def test_the_references_themselves_are_flagged(submission, data, capsys):
    def copied(rows):
        for k in (1, 2):
            final = data.geometries(k)[1]
            rows[k] |= {
                "lattice": final.lattice.tolist(),
                "frac_coords": final.frac_coords.tolist(),
            }
        return rows

    edit_rows(submission, copied)
    capsys.readouterr()
    assert main(["check", str(submission)]) == 1
    listed = f"({data.ids[1]}, {data.ids[2]})"
    said = f"flag: 2 of 53 predictions are the reference itself to 1e-06 {listed}\n"
    assert said in capsys.readouterr().out


def test_what_training_may_have_shown_is_compared_with_what_it_cannot_have(data, half):
    import pandas as pd

    from leaderboard.submission import flags

    def table(gain_where_seen):
        seen = np.arange(len(data)) % 2 == 0
        return pd.DataFrame({
            "sample_id": data.ids, "strain": 1.0, "position_max": 1.0,
            "score": np.where(seen, 0.7 + gain_where_seen, 0.7),
            "source": np.where(seen, "mp", "oqmd"), "group": [f"X{i}" for i in range(len(data))],
        })  # fmt: skip

    trained = ["MPtrj (Materials Project)"]
    (line,) = flags(table(0.25), data, trained)
    assert line.startswith("it gains more over no change on what its training may hold")
    assert flags(table(0.25), data, []) == []
    assert flags(table(-0.25), data, trained) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda rows: rows[:-1], "missing; every id of the split stands once"),
        (lambda rows: [*rows, rows[1]], "there more than once"),
        (lambda rows: [*rows, rows[1] | {"id": "\x1b[31mother"}], "\\x1b[31mother: not of emb"),
        (lambda rows: [rows[0], rows[1] | {"status": "fine"}, *rows[2:]], "'fine' is none of ok"),
        (lambda rows: [rows[0], rows[1] | {"numbers": None}, *rows[2:]], "has no structure"),
        (lambda rows: [rows[0] | {"numbers": [1]}, *rows[1:]], "and the status unsupported"),
        (lambda rows: [rows[0], rows[1] | {"numbers": [0] * 9}, *rows[2:]], "and 9 numbers"),
        (lambda rows: [rows[0], rows[1] | {"lattice": [[1.0]] * 3}, *rows[2:]], "shape (3, 1)"),
        (lambda rows: [rows[0], rows[1] | {"lattice": [[1.0], []]}, *rows[2:]], "different length"),
        (lambda rows: [rows[0], rows[1] | {"seconds": -1.0}, *rows[2:]], "seconds are -1.0"),
        (
            lambda rows: [rows[0], rows[1] | {"lattice": [[math.nan] * 3] * 3}, *rows[2:]],
            "has a number that is not finite",
        ),
    ],
    ids=["missing", "twice", "unknown", "status", "no structure", "refused with a structure",
         "counts", "shape", "ragged", "time", "nan"],
)  # fmt: skip
def test_rows_that_are_no_predictions_of_the_split_are_refused(submission, capsys, change, said):
    edit_rows(submission, change)
    assert said in refusal(submission, capsys)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": "a\u202eb"}, "model: 'a\\u202eb' is not what may stand there"),
        ({"model": "x" * 81}, "model: "),
        ({"family": "transformer"}, "family: 'transformer' is not one of"),
        ({"weights": {"name": "f", "sha256": "12"}}, "weights: "),
        ({"link": "javascript:alert(1)"}, "link: 'javascript:alert(1)' is not what may"),
        ({"price": 3}, "the card: Additional properties are not allowed ('price' was unexp"),
        ({"split": "train"}, "not of embedded-v1, split train; every id of the split stands once"),
        ({"revision": "sha256:0"}, "which is not at hand: name the data with --data"),
    ],
)
def test_a_card_that_is_not_of_the_form_is_refused_by_its_field(submission, capsys, changes, said):
    edit_card(submission, **changes)
    assert said in refusal(submission, capsys)


def test_nothing_of_a_submission_is_executed_or_followed(submission, tmp_path, capsys):
    card, predictions = submission / "card.yaml", submission / "predictions.parquet"
    mark = tmp_path / "executed"

    class Bomb:
        def __reduce__(self):
            return mark.touch, ()

    kept = predictions.read_bytes()
    predictions.write_bytes(pickle.dumps(Bomb()))
    assert "cannot be read" in refusal(submission, capsys)
    predictions.write_bytes(kept)
    card.write_text(f"!!python/object/apply:os.system ['touch {mark}']")
    assert "no YAML that can be read" in refusal(submission, capsys)
    card.write_text("[" * 20_000)
    assert "no YAML that can be read" in refusal(submission, capsys)
    card.write_text("x" * (LARGEST_CARD + 1))
    assert "larger than 65,536 bytes" in refusal(submission, capsys)
    card.unlink()
    card.symlink_to("/etc/hostname")
    assert "links are not followed" in refusal(submission, capsys)
    assert not mark.exists()


def test_other_columns_are_told_with_those_that_are_needed(submission, capsys):
    path = submission / "predictions.parquet"
    pq.write_table(pq.read_table(path).rename_columns({"id": "material_id"}), path)
    said = refusal(submission, capsys)
    assert "has the columns material_id, status" in said
    assert "they must be id, status, lattice, frac_coords, numbers, seconds" in said


def test_the_cards_schema_is_one():
    from jsonschema import Draft202012Validator

    Draft202012Validator.check_schema(CARD)
