"""A training goes on only as the training that it is, and bad settings are one line."""

import json
import shutil

import numpy as np
import pytest

from benchmarks.core import Status, UserError
from benchmarks.core.cli import parse_fields
from benchmarks.core.training_identity import require_same_training
from benchmarks.metrics import score
from t2relax import train, train_seq
from t2relax.data.training_pairs import Pair, encode_pair, read_pairs, save_pairs
from t2relax.lm import checkpoint, t5
from t2relax.text.codec import Crystal, Delta, write_delta
from t2relax.text.tokens import Tokenizer
from t2relax.train import score_text

TOKENIZER = Tokenizer()
TINY = {"d_model": 32, "d_kv": 16, "num_heads": 2, "d_ff": 64, "num_layers": 1}


def rocksalt(a=5.0, change=0.1):
    """Two sites in a cube of edge `a` [Å]; relaxation adds `change` to each edge and no more."""
    cellpar = np.array([a, a, a, 90.0, 90.0, 90.0])
    sites = np.array([[0.0, 0.0, 0.0], [0.5, 0.5, 0.5]])
    delta = Delta(np.array([change] * 3 + [0.0] * 3), np.zeros((2, 3)))
    return Pair(Crystal(cellpar, sites, np.array([11, 17], dtype=np.int16)), delta)


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    """Two data sets that differ in one cell by 0.05 Å, under one name and revision."""
    folder = tmp_path_factory.mktemp("data")
    for name, change in (("one", 0.10), ("other", 0.15)):
        pairs = [rocksalt(4.5 + 0.2 * i, 0.05) for i in range(4)] + [rocksalt(5.5, change)]
        save_pairs(folder / f"{name}.npz", pairs, {"toys": "sha256:0"})
    return folder


# --- the comparison ------------------------------------------------------------------------------


def test_the_refusal_names_the_field_and_both_values(tmp_path):
    there, here = {"seed": 0, "loss": {"cell": 1.0}}, {"seed": 0, "loss": {"cell": 5.0}}
    with pytest.raises(UserError) as refusal:
        require_same_training(tmp_path, there, here)
    assert str(refusal.value) == (
        f"{tmp_path} is of another training: loss.cell is 1.0 there and 5.0 here: "
        "remove it, or give another --out"
    )


def test_a_field_that_one_of_them_lacks_is_a_difference(tmp_path):
    with pytest.raises(UserError, match="seed is not stated there and 3 here"):
        require_same_training(tmp_path, {"loss": 1}, {"loss": 1, "seed": 3})
    with pytest.raises(UserError, match='data is "a" there and not stated here'):
        require_same_training(tmp_path, {"loss": 1, "data": "a"}, {"loss": 1})
    with pytest.raises(UserError, match=r"shape is \{\} there and not stated here"):
        require_same_training(tmp_path, {"loss": 1, "shape": {}}, {"loss": 1})


@pytest.mark.parametrize("older", [None, {}])
def test_a_state_without_identity_is_refused(tmp_path, older):
    with pytest.raises(UserError, match="does not say from which data and settings"):
        require_same_training(tmp_path, older, {"seed": 0})


def test_what_json_made_of_an_identity_is_the_same_identity(tmp_path):
    identity = {"data": ("a", "b"), "minutes": float("inf"), "loss": {"cell": 1.0}}
    stored = {"data": ["a", "b"], "minutes": None, "loss": {"cell": 1.0}}
    require_same_training(tmp_path, stored, identity)


# --- t2relax.train -------------------------------------------------------------------------------


def text_command(archives, out, *more, data="one"):
    paths = ["--data", str(archives / f"{data}.npz"), "--val", str(archives / "one.npz")]
    shape = [x for k, v in TINY.items() for x in ("--set", f"{k}={v}")]
    sizes = ["--steps", "2", "--eval-steps", "1", "--batch-size", "2", "--workers", "0"]
    return [*paths, *shape, *sizes, "--out", str(out), *more]


@pytest.fixture(scope="module")
def trained(archives, tmp_path_factory):
    out = tmp_path_factory.mktemp("t5")
    assert train.main(text_command(archives, out)) == 0
    return out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--seed", "7"], "seed is 0 there and 7 here"),
        (["--loss", "cell=5"], "loss.cell is 1.0 there and 5.0 here"),
        (["--learning-rate", "0.1"], "learning_rate is 0.003 there and 0.1 here"),
        (["--set", "d_ff=32"], "shape.d_ff is 64 there and 32 here"),
        (["--steps", "4"], "steps is 2 there and 4 here"),
    ],
)
def test_a_training_does_not_go_on_as_another_one(archives, trained, capsys, more, said):
    """Weights of the first command stood under a record that named the second one's settings."""
    before = (trained / checkpoint.WEIGHTS).read_bytes()
    assert train.main(text_command(archives, trained, *more)) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ")
    assert said in error
    assert (trained / checkpoint.WEIGHTS).read_bytes() == before


@pytest.mark.slow
def test_a_training_does_not_go_on_with_other_pairs(archives, trained, capsys):
    assert train.main(text_command(archives, trained, data="other")) == 2
    assert "data.pairs is" in capsys.readouterr().err


@pytest.mark.slow
def test_a_state_of_an_older_version_does_not_go_on(archives, trained, tmp_path, capsys):
    older = tmp_path / "older"
    shutil.copytree(trained, older)
    (older / "state" / "identity.json").unlink()
    assert train.main(text_command(archives, older)) == 2
    assert "does not say from which data and settings" in capsys.readouterr().err


@pytest.mark.slow
def test_the_same_command_goes_on_and_the_record_holds_its_identity(archives, trained):
    before = (trained / checkpoint.WEIGHTS).read_bytes()
    assert train.main(text_command(archives, trained, "--minutes", "5")) == 0
    assert (trained / checkpoint.WEIGHTS).read_bytes() == before
    record = json.loads((trained / checkpoint.CODEC_FILE).read_text())["training"]
    assert record["identity"] == json.loads((trained / "state" / "identity.json").read_text())
    assert record["identity"]["from"] == []
    assert record["config"]["loss"]["cell"] == 1.0


def test_the_hash_of_pairs_is_of_the_pairs_and_not_of_their_name(archives):
    one, other = (read_pairs([str(archives / f"{n}.npz")], "train") for n in ("one", "other"))
    assert one.origin == other.origin
    assert one.identity()["pairs"] != other.identity()["pairs"]
    assert one.identity() == read_pairs([str(archives / "one.npz")], "train").identity()


@pytest.mark.parametrize(
    ("command", "more", "said"),
    [
        (train, ["--batch-size", "0"], "--batch-size 0: it must be larger than 0"),
        (train, ["--eval-steps", "0"], "--eval-steps 0: it must be larger than 0"),
        (train, ["--learning-rate", "nan"], "--learning-rate nan: it must be larger than 0"),
        (train, ["--workers", "-1"], "--workers -1: it must be not smaller than 0"),
        (train, ["--loss", "cel=1"], "--loss cel=1: there is no field 'cel'; did you mean cell?"),
        (train, ["--loss", "cell=x"], "--loss cell=x: cell is of type float"),
        (train, ["--loss", "cell"], "--loss wants FIELD=VALUE, not 'cell'"),
        (train, ["--set", "num_layer=1"], "did you mean num_layers?"),
        (train, ["--set", "num_layers=a"], "--set num_layers=a: num_layers is of type int"),
        (train, ["--init", "x", "--set", "d_ff=8"], "one of --init has its own"),
        (train_seq, ["--eval-steps", "0"], "--eval-steps 0: it must be larger than 0"),
        (train_seq, ["--batch-size", "0"], "--batch-size 0: it must be larger than 0"),
        (train_seq, ["--eval-size", "0"], "--eval-size 0: it must be larger than 0"),
        (train_seq, ["--group", "1"], "compares texts: --group 2 or more"),
    ],
)
def test_a_bad_setting_is_one_line_and_exit_2(capsys, command, more, said):
    assert command.main(["--data", "a", "--val", "b", "--out", "c", *more]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert said in error
    assert error.count("\n") == 1


def test_a_loss_that_is_no_field_lists_the_fields_that_there_are(capsys):
    assert train.main(["--data", "a", "--val", "b", "--out", "c", "--loss", "nonsense=1"]) == 2
    assert capsys.readouterr().err == (
        "error: --loss nonsense=1: there is no field 'nonsense'; fields: cell, angle, position, "
        "rest, forced, smoothing, distance, number\n"
    )


def test_a_whole_number_is_a_number(tmp_path):
    assert parse_fields(["cell=5"], "--loss", {"cell": 1.0}) == {"cell": 5.0}


def test_data_without_splits_are_read_whole(tmp_path, write_lemat, lemat_frame):
    """The message told the user to leave out a flag that the command does not have."""
    from pymatgen.core import Lattice, Structure

    cells = [Structure(Lattice.cubic(a), ["Ag"], [[0, 0, 0]]) for a in (4.0, 4.1)]
    frames = [lemat_frame(cell, "mp-1", step) for step, cell in enumerate(cells)]
    (tmp_path / "plain").mkdir()
    write_lemat(tmp_path / "plain" / "rows.parquet", frames)
    assert len(read_pairs([str(tmp_path / "plain")], "train").pairs) == 1


# --- t2relax.train_seq ---------------------------------------------------------------------------


@pytest.mark.slow
def test_a_fine_tuning_does_not_go_on_with_other_data(archives, tmp_path, capsys):
    """The weights were those of the first data set, the record named the second."""
    start = tmp_path / "start"
    model = t5.new_model(TOKENIZER, num_decoder_layers=1, **TINY)
    t5.save(model, TOKENIZER, start, {"from": "scratch", "max_sites": 8})
    sizes = ["--steps", "1", "--batch-size", "2", "--group", "2", "--eval-size", "2"]

    def command(data):
        paths = ["--data", str(archives / f"{data}.npz"), "--val", str(archives / "one.npz")]
        return [*paths, "--init", str(start), "--out", str(tmp_path / "out"), *sizes]

    assert train_seq.main(command("one")) == 0
    before = (tmp_path / "out" / checkpoint.WEIGHTS).read_bytes()
    assert train_seq.main(command("other")) == 2
    assert "state.pt is of another training: data.pairs is" in capsys.readouterr().err
    assert (tmp_path / "out" / checkpoint.WEIGHTS).read_bytes() == before


# --- selection of checkpoints --------------------------------------------------------------------


def validated(pair, delta):
    """The columns of `validate` for a model that answers `delta`."""
    return score_text(pair, write_delta(delta, pair.initial))


COLLAPSED = Delta(5.0 * np.array([0.24 ** (1 / 3) - 1] * 3 + [0.0] * 3), np.zeros((2, 3)))
"""A cell of 24 % of the volume, with its sites where they belong."""
CLOSE = Delta(np.zeros(6), np.array([[0.0] * 3, [-0.5 + 0.46 / 5 / 3**0.5] * 3]))
"""A cell that is right, with its two atoms 0.46 Å apart."""


@pytest.mark.parametrize("wrong", [COLLAPSED, CLOSE])
def test_a_decode_that_fails_the_validity_ladder_earns_nothing(wrong):
    """It earned 0.5 in training, and 0 on the board."""
    pair = rocksalt(change=0.0)
    found = validated(pair, wrong)
    assert (found["score"], found["adwt"], found["strain_awt"]) == (0.0, 0.0, 0.0)
    assert found["lattice_mae"] == found["position_mae"] == found["strain"] == 0.0  # no change


def test_a_cell_just_above_the_bound_is_valid_and_earns_what_the_board_gives():
    pair = rocksalt(change=0.0)
    found = validated(pair, Delta(5.0 * np.array([-0.36] * 3 + [0.0] * 3), np.zeros((2, 3))))
    assert found["score"] == 0.5  # sites right, cell wrong
    assert found["lattice_mae"] == pytest.approx(1.8)
    assert found["volume_mape"] == pytest.approx(100 * (1 - 0.64**3))


def test_the_score_of_a_checkpoint_is_that_of_the_board():
    pair = rocksalt(change=0.1)
    answer = Delta(np.array([0.15, 0.1, 0.1, 0, 0, 0]), np.array([[0.004, 0, 0], [-0.004, 0, 0]]))
    found = validated(pair, answer)
    text = TOKENIZER.decode(encode_pair(Pair(pair.initial, answer), TOKENIZER)[1])
    row = score(pair.start(), pair.reference(), pair.read(text), Status.OK)
    assert found["score"] == row["score"]
    assert 0.5 < found["score"] < 1.0
    assert found["lattice_mae"] == pytest.approx(0.05 / 3, abs=1e-4)
    assert found["position_mae"] == pytest.approx(0.004 * 5.1, abs=1e-4)
