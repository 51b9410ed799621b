"""How wrong an answer may be: told by the text model, stored, and compared with the truth."""

import json
from dataclasses import asdict, replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from benchmarks.core import Geometry, Relaxed, Status, UserError
from benchmarks.engine.worker import _plain
from benchmarks.store import Record, RunWriter, read_run
from benchmarks.testing import assert_same, check_relaxer, sample_structures
from leaderboard.board.schema import Board
from leaderboard.paper import PaperParts
from leaderboard.publish import make_boards, publish
from leaderboard.scoring import score_runs
from leaderboard.site.pages import write_site
from leaderboard.views.markdown import markdown
from t2relax import confidence
from t2relax.confidence import Confidence, calibrate, fit, read_confidence, size_of, spreads
from t2relax.data.training_pairs import Pair
from t2relax.lm import decoding, t5
from t2relax.lm.base import decode_all
from t2relax.lm.checkpoint import CODEC_FILE, decoding_identity
from t2relax.lm.pretrained import load
from t2relax.relaxer import TextRelaxer
from t2relax.text.codec import Crystal, Delta, delta_between
from t2relax.text.grammar import ordinal_values
from t2relax.text.tokens import COARSE_TOKENS, Tokenizer
from tests.test_leaderboard import Memory, halfway, identity, oracle, write

PLAIN = Confidence(
    floor=0.01, cell=2.0, positions=3.0, no_change_above=None, n=9, share_unchanged=0.0,
    rank_correlation=0.5,
)  # fmt: skip
SMALL = {"d_model": 16, "d_kv": 8, "num_heads": 2, "d_ff": 24, "num_layers": 1}
CUBE = Crystal(np.array([4.0, 5, 6, 90, 90, 90]), np.zeros((2, 3)), np.array([11, 17], np.int16))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An untrained T5, calibrated by hand."""
    torch.manual_seed(0)
    made = tmp_path_factory.mktemp("calibrated")
    model = t5.new_model(Tokenizer(), num_decoder_layers=1, **SMALL)
    t5.save(model, Tokenizer(), made, {"from": "scratch", "max_sites": 8})
    return made


def calibrated(folder, found):
    content = json.loads((folder / CODEC_FILE).read_text())
    content["training"]["confidence"] = asdict(found)
    (folder / CODEC_FILE).write_text(json.dumps(content))
    return folder


def pairs(count=24):
    rng = np.random.default_rng(0)
    data = Memory(count)
    found = []
    for i in range(count):
        initial, final = data.geometries(i)
        stretched = final._replace(lattice=final.lattice * rng.uniform(0.97, 1.03))
        found.append(Pair(Crystal.of(initial), delta_between(initial, stretched)))
    return found


def test_the_spread_is_the_mean_distance_from_what_is_chosen():
    logits = torch.full((1, len(COARSE_TOKENS)), -torch.inf)
    values, shares = ordinal_values(), {1000: 0.6, 1010: 0.3, 990: 0.1}
    for place, share in shares.items():
        logits[0, place] = np.log(share)
    chosen, spread = decoding.quantile(logits, torch.tensor([0.5]))
    assert chosen.item() == 1000
    far = sum(share * abs(values[place] - values[1000]) for place, share in shares.items())
    assert spread.item() == pytest.approx(far, rel=1e-5)


def test_every_number_has_a_spread_and_no_other_token(folder):
    language_model = load(folder)
    crystals = [Crystal.of(Geometry.of(structure)) for structure in sample_structures()]
    prompts = [language_model.prompt(crystal) for crystal in crystals]
    for crystal, (written,) in zip(crystals, language_model.decode(prompts), strict=True):
        assert written.spread.shape == (7 + 3 * len(crystal.numbers),)
        assert (written.spread > 0).all()
    (eight,) = language_model.decode(prompts[:1], seed=0)
    assert len({tuple(written.spread) for written in eight}) == 8
    assert language_model.decode_free(prompts[:1])[0].spread is None


def test_spreads_are_lengths():
    spread = np.array([3.0, 4, 0, 4, 9, 9, 9, 1, 0, 0, 0, 2, 0], dtype=np.float32)
    cell, positions = spreads(spread, CUBE)
    assert cell == pytest.approx((0.05 * 4 + 0.03 * 5 + 0.05 * 6) / 3)
    assert positions == pytest.approx((0.01 * 4 + 0.02 * 5) / 2)
    assert PLAIN.expected_error(spread, CUBE) == pytest.approx(0.01 + 2 * cell + 3 * positions)


def test_the_size_of_a_change_counts_cell_and_positions():
    change = Delta(np.array([0.3, -0.3, 0, 5, 5, 5]), np.array([[0.1, 0, 0], [0, 0, 0]]))
    assert size_of(change, np.diag([4.0, 5, 6])) == pytest.approx(0.2 + 0.2)


def test_a_fit_finds_the_line_and_drops_nothing_for_nothing():
    rng = np.random.default_rng(0)
    features = rng.uniform(0, 0.2, (400, 2))
    errors = 0.02 + features @ [1.5, 2.5]
    found = fit(features, errors, changes=errors * 3, unchanged=errors * 3)
    assert (found.floor, found.cell, found.positions) == pytest.approx((0.02, 1.5, 2.5))
    assert (found.no_change_above, found.share_unchanged, found.n) == (None, 0.0, 400)
    assert found.rank_correlation == 1


def test_answers_that_are_worse_than_no_change_are_dropped():
    rng = np.random.default_rng(0)
    features = rng.uniform(0.02, 0.2, (400, 2))
    errors = features @ [1.0, 1.0]
    wild = features[:, 0] > 0.15  # these tell a small change and are far off
    changes = np.where(wild, errors / 4, errors * 4)
    unchanged = np.where(wild, errors / 2, errors * 4)
    found = fit(features, errors, changes, unchanged)
    assert found.no_change_above is not None
    assert found.share_unchanged == pytest.approx(wild.mean(), abs=1e-4)
    assert found.doubts(0.4, 0.1)
    assert not found.doubts(0.1, 0.4)


def test_a_gain_within_its_error_drops_nothing():
    rng = np.random.default_rng(0)
    errors = rng.uniform(0.1, 0.2, 400)
    unchanged = errors + rng.normal(0, 0.05, 400)
    assert fit(rng.uniform(0, 1, (400, 2)), errors, errors, unchanged).no_change_above is None


def test_a_relaxer_tells_what_its_checkpoint_says(folder):
    assert TextRelaxer(folder).relax(sample_structures())[0].expected_error is None
    outcomes = check_relaxer(TextRelaxer(calibrated(folder, PLAIN)))
    for structure, outcome in zip(sample_structures(), outcomes, strict=True):
        if outcome.status is Status.OK:
            crystal = Crystal.of(Geometry.of(structure))
            language_model = load(folder)
            ((written,),) = language_model.decode([language_model.prompt(crystal)])
            expected = PLAIN.expected_error(written.spread, crystal)
            assert outcome.expected_error == pytest.approx(expected, rel=1e-4)
    assert "no_change_above" not in decoding_identity(folder)
    best = TextRelaxer(folder, "best8").relax(sample_structures()[:1])[0]
    assert best.expected_error is None
    tta = TextRelaxer(folder, "tta").relax(sample_structures()[:1])[0]
    assert tta.status is not Status.OK or tta.expected_error > 0


def test_where_the_model_doubts_nothing_changes(folder):
    calibrated(folder, replace(PLAIN, no_change_above=0.0))
    assert decoding_identity(folder)["no_change_above"] == 0
    for structure, outcome in zip(
        sample_structures(), TextRelaxer(folder).relax(sample_structures()), strict=True
    ):
        if outcome.status is Status.OK:
            assert_same(Geometry.of(outcome.structure), Geometry.of(structure), 1e-9, "moved")


def test_the_command_calibrates_a_checkpoint(folder, monkeypatch, capsys):
    monkeypatch.setattr(confidence, "read_pairs", lambda *_: type("P", (), {"pairs": pairs()}))
    assert confidence.main([str(folder), "--val", "anything"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert asdict(read_confidence(folder)) == found
    assert found == asdict(calibrate(load(folder), pairs()))
    monkeypatch.setattr(confidence, "read_pairs", lambda *_: type("P", (), {"pairs": pairs(3)}))
    assert confidence.main([str(folder), "--val", "anything"]) == 2
    assert "at least 20 validation pairs" in capsys.readouterr().err


def test_a_damaged_record_is_the_users_to_mend(folder, tmp_path):
    content = json.loads((folder / CODEC_FILE).read_text())
    content["training"]["confidence"] = {"floor": 1}
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    (tmp_path / CODEC_FILE).write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"'confidence' is not what python -m t2relax\.confidence"):
        TextRelaxer(tmp_path)


def test_all_texts_come_in_the_order_of_their_pairs(folder):
    language_model, given = load(folder), pairs(5)
    texts = [written.text for written in decode_all(language_model, given, batch_size=2)]
    alone = [decode_all(language_model, [pair])[0].text for pair in given]
    assert texts == alone


# what is stored


def test_the_worker_sends_it_and_the_store_keeps_it(tmp_path):
    sent = _plain(Relaxed(status=Status.OK, expected_error=np.float32(0.25)))
    assert type(sent.expected_error) is float
    told(tmp_path / "runs", "halfway", halfway, Memory(), lambda error, i: 0.25)
    assert [r.expected_error for r in read_run(tmp_path / "runs" / "halfway").records] == [0.25] * 8


def test_a_part_of_an_older_program_is_read(tmp_path):
    folder = write(tmp_path, "identity", identity, Memory())
    (part,) = folder.glob("**/part-*.parquet")
    table = pq.read_table(part)
    pq.write_table(table.drop_columns(["expected_error"]), part, write_page_checksum=True)
    assert [record.expected_error for record in read_run(folder).records] == [None] * 8
    pq.write_table(table.append_column("more", pa.nulls(8)), part)
    with pytest.raises(UserError, match="its columns are not those of a record"):
        read_run(folder)


# the board


def told(folder, name, relax, dataset, expect):
    """A run whose records say `expect(true error, i)`."""
    read = read_run(write(folder, name, relax, dataset))
    records = []
    for i, record in enumerate(read.records):
        _, final = dataset.geometries(i)
        given = record.geometry
        missed = delta_between(final, given)
        records.append(replace(record, expected_error=expect(size_of(missed, given.lattice), i)))
    about, machine = dict(read.identity), dict(read.segments[0])
    for stale in ("shard", "n_records", "first_part"):
        machine.pop(stale, None)
    import shutil

    shutil.rmtree(folder / name)
    about.pop("schema_version")
    with RunWriter.open(folder / name, about, machine) as writer:
        for record in records:
            assert isinstance(record, Record)
            writer.append([record])
    return folder / name


@pytest.fixture
def runs(tmp_path):
    data = Memory(32)
    write(tmp_path / "runs", "identity", identity, data)
    told(tmp_path / "runs", "sure", halfway, data, lambda error, i: error)
    told(tmp_path / "runs", "wrong", halfway, data, lambda error, i: 1 - error)
    write(tmp_path / "runs", "oracle", oracle, data)
    return tmp_path / "runs", data


def test_the_board_compares_expected_with_true_errors(runs):
    folder, data = runs
    (board,) = make_boards([folder], [data])
    found = {each.model: each for each in board.reliability}
    assert found.keys() == {"sure", "wrong"}
    assert found["sure"].rank_correlation.point == pytest.approx(1, abs=1e-3)
    assert found["wrong"].rank_correlation.point == pytest.approx(-1, abs=1e-3)
    for each in found["sure"].bins:
        assert each.error.point == pytest.approx(each.expected, rel=0.02)
    kept = found["sure"].kept
    assert [each.n for each in kept] == [3, 8, 16, 24, 29, 32]
    errors = [each.error.point for each in kept]
    assert errors == sorted(errors)
    assert all(each.unchanged.point > each.error.point for each in kept)
    assert errors[0] < found["wrong"].kept[0].error.point
    assert errors[-1] == found["wrong"].kept[-1].error.point
    text = board.to_json()
    assert Board.from_json(text) == board
    page = markdown(board)
    assert "## Expected errors" in page
    assert "**sure**: rank correlation of expected and true errors 1.00" in page


def test_a_board_without_expected_errors_does_not_name_them(tmp_path):
    data = Memory()
    write(tmp_path, "identity", identity, data)
    told(tmp_path, "few", halfway, data, lambda error, i: error)
    (board,) = make_boards([tmp_path], [data])
    assert board.reliability == ()
    assert "reliability" not in board.to_json()
    assert "Expected errors" not in markdown(board)


def test_site_and_figures_show_them(runs, tmp_path):
    folder, data = runs
    write_site([("", score_runs([folder], [data])[0])], tmp_path / "site")
    (page,) = (tmp_path / "site").glob("**/sure*.html")
    html = page.read_text()
    assert "How well it knows its errors" in html
    assert html.count("<svg") >= 4
    (other,) = (tmp_path / "site").glob("**/oracle*.html")
    assert "knows its errors" not in other.read_text()
    parts = PaperParts(figures=True, tables=False, models=())
    publish([folder], tmp_path / "out", [data], paper=parts)
    (data_file,) = (tmp_path / "out").glob("**/reliability.csv")
    assert {line.split(",")[0] for line in data_file.read_text().splitlines()[1:]} == {
        "sure", "wrong"
    }  # fmt: skip
