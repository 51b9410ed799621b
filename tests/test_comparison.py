"""Numbers digit by digit, and the comparison of recipes."""

import json
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from studies import comparison
from studies.comparison import BASE, NO_CHANGE, TITLES, differences, write_report
from studies.digits import (
    DIGIT_VOCABULARY,
    DIGITS,
    SIGNS,
    DigitStudent,
    allowed,
    decode_digits,
    digit_tokenizer,
)
from t2relax.data.token_dataset import PairDataset, PairEncoding, collate
from t2relax.data.training_pairs import NO_AUGMENTATION, Pair, encode_pair, save_pairs
from t2relax.lm import t5
from t2relax.loss import LossSettings
from t2relax.text.codec import Crystal, Delta, read_delta, write_cif, write_delta
from t2relax.text.grammar import template
from t2relax.text.tokens import COARSE, EOS_ID, FINE, FORCED, PAD_ID, PLAIN_VOCABULARY, Tokenizer

TOKENIZER = digit_tokenizer()
TINY = {"d_model": 32, "d_kv": 16, "num_heads": 2, "d_ff": 64, "num_layers": 2}


def random_pair(species, seed):
    """Sites anywhere in a triclinic cell, and changes of up to tens of % and hundredths."""
    rng = np.random.default_rng(seed)
    cellpar = np.array([*rng.uniform(3, 12, 3), *rng.uniform(75, 105, 3)])
    zs, fracs = np.array(species, dtype=np.int16), rng.random((len(species), 3))
    moved = rng.uniform(-0.5, 0.5, (len(species), 3))
    return Pair(Crystal(cellpar, fracs, zs), Delta(rng.normal(0, 0.3, 6), moved))


PAIRS = [random_pair(species, i) for i, species in enumerate(([11, 17], [22, 8, 8], [14] * 12))]


@pytest.fixture(scope="module")
def tiny():
    """An untrained two-layer T5 in double precision: rounding decides nothing."""
    torch.manual_seed(0)
    model = t5.new_model(TOKENIZER, 0, DigitStudent, num_decoder_layers=2, **TINY)
    return model.double().eval()


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "pairs.npz"
    save_pairs(path, PAIRS, {"toys": "sha256:0"})
    return str(path)


# --- digits --------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 118), min_size=1, max_size=14), st.integers(0, 2**32 - 1))
def test_texts_come_back_and_the_grammar_gives_everything_but_signs_and_digits(species, seed):
    pair = random_pair(species, seed)
    source, target = encode_pair(pair, TOKENIZER)
    assert TOKENIZER.decode(source) == write_cif(pair.initial)
    assert TOKENIZER.decode(target) == write_delta(pair.delta, pair.initial)
    grammar, ids = template(pair.initial.numbers, TOKENIZER), np.array(target)
    given_ids = grammar.kinds == FORCED
    assert (ids[given_ids] == grammar.ids[given_ids]).all()
    assert allowed(TOKENIZER, len(TOKENIZER))[grammar.ids, ids].all()
    assert (~given_ids).sum() == 6 * (7 + 3 * len(species))


def test_every_sign_digit_and_point_is_a_token_of_its_own():
    assert DIGIT_VOCABULARY[:2] == ("<pad>", "</s>")
    assert len(set(DIGIT_VOCABULARY)) == len(DIGIT_VOCABULARY)
    assert not [x for x in DIGIT_VOCABULARY if re.fullmatch(r" ?[+-]?[\d.]{2,}| \d", x)]
    words = [TOKENIZER.vocabulary[i] for i in TOKENIZER.encode("\n_cell_length_a -01.924")]
    assert words == ["\n_cell_length_a", " -", *"01.924"]


def test_each_digit_weighs_what_its_number_token_weighs():
    settings = LossSettings(cell=8, angle=7, position=6, rest=5, forced=4)
    weights = settings.weights(template(np.array([11]), TOKENIZER)).tolist()
    cell, angle, move = ([x, x, x, 4, x, 5, 5] for x in (8, 7, 6))
    assert weights == [*[4, *cell] * 4, *[4, *angle] * 3, 4, 4, 4, *move * 3, 4]


def test_at_a_sign_only_signs_and_at_a_digit_only_digits():
    mask = allowed(TOKENIZER, len(TOKENIZER) + 28)
    plus, zero, point = TOKENIZER.ids(" +", "0", ".")
    assert mask[plus].nonzero()[0].tolist() == sorted(TOKENIZER.ids(*SIGNS))
    assert mask[zero].nonzero()[0].tolist() == sorted(TOKENIZER.ids(*DIGITS))
    assert mask[point].nonzero()[0].tolist() == [point]


def test_an_untrained_model_cannot_break_the_grammar():
    """Random weights, and an embedding larger than the vocabulary where the logits are highest."""
    torch.manual_seed(1)
    model = t5.new_model(TOKENIZER, 0, DigitStudent, num_decoder_layers=1, **TINY).eval()
    model.resize_token_embeddings(len(TOKENIZER) + 28)
    with torch.no_grad():
        model.shared.weight[len(TOKENIZER) :] *= 100.0
    sources = [encode_pair(pair, TOKENIZER)[0] for pair in PAIRS]
    grammars = [template(pair.initial.numbers, TOKENIZER) for pair in PAIRS]
    for pair, chosen in zip(PAIRS, decode_digits(model, sources, grammars), strict=True):
        (row,) = chosen.ids
        _, species = read_delta(TOKENIZER.decode(row.tolist()), pair.initial)
        assert species.tolist() == pair.initial.numbers.tolist()
        assert row[-1] == EOS_ID


def test_decoding_is_greedy_under_the_grammar(tiny):
    """Each free token is the likeliest allowed one, by the model's own forward pass."""
    sources = [encode_pair(pair, TOKENIZER)[0] for pair in PAIRS]
    grammars = [template(pair.initial.numbers, TOKENIZER) for pair in PAIRS]
    mask = torch.from_numpy(allowed(TOKENIZER, len(TOKENIZER)))
    decoded = decode_digits(tiny, sources, grammars)
    for source, grammar, chosen in zip(sources, grammars, decoded, strict=True):
        (row,) = chosen.ids
        with torch.no_grad():
            inputs = torch.tensor([[PAD_ID, *row[:-1]]])
            logits = tiny(input_ids=torch.tensor([source]), decoder_input_ids=inputs).logits[0]
        best = logits.masked_fill(~mask[grammar.ids], -torch.inf).argmax(dim=-1).numpy()
        assert (row == np.where(grammar.kinds == FORCED, grammar.ids, best)).all()


def test_a_perfect_prediction_costs_nothing_and_a_wrong_token_what_it_weighs(tiny):
    labels = torch.tensor([5, 6, 7])
    logits = torch.full((3, len(TOKENIZER)), -100.0)
    logits[torch.arange(3), labels] = 0.0
    weights = torch.tensor([1.0, 2.0, 1.0])
    assert tiny._loss(logits, labels, weights).item() == pytest.approx(0.0, abs=1e-6)
    wrong = torch.tensor([5, 8, 7])  # 100 nats, half of the weight
    assert tiny._loss(logits, wrong, weights).item() == pytest.approx(50.0)


def test_a_batch_of_digits_has_the_loss_of_its_logits(tiny):
    settings = LossSettings()
    data = PairDataset(PAIRS, NO_AUGMENTATION, PairEncoding(settings.weights, TOKENIZER))
    batch = collate([data[0]])
    weights = batch["loss_weights"].double()
    with torch.no_grad():
        loss = tiny(**batch | {"loss_weights": weights}).loss.item()
        plain = {name: batch[name] for name in ("input_ids", "attention_mask", "labels")}
        log_p = tiny(**plain).logits.log_softmax(dim=-1)
    known = batch["labels"] >= 0
    picked = log_p[known].gather(1, batch["labels"][known][:, None])[:, 0]
    expected = -(picked * weights[known]).sum() / weights.sum()
    assert loss == pytest.approx(expected.item(), rel=1e-5)


def test_kinds_of_the_two_spellings_say_the_same():
    for tokenizer, leading in ((Tokenizer(), 1), (TOKENIZER, 4)):
        grammar = template(np.array([11, 17]), tokenizer)
        assert grammar.leading.shape == (13, leading)
        assert (grammar.kinds[grammar.leading] == COARSE).all()
        assert (grammar.kinds == FINE).sum() == 13 * (1 if leading == 1 else 2)


# --- comparison ----------------------------------------------------------------------------------


def command(archive, out, *more):
    shape = [x for k, v in TINY.items() for x in ("--set", f"{k}={v}")]
    sizes = ["--steps", "1", "--batch-size", "2", "--workers", "0", "--eval-size", "2"]
    return ["--data", archive, "--val", archive, "--out", str(out), *shape, *sizes, *more]


@pytest.mark.slow
def test_all_arms_are_trained_once_and_reported(archive, tmp_path, monkeypatch, capsys):
    argv = command(archive, tmp_path)
    assert comparison.main(argv) == 0
    table = capsys.readouterr().out
    assert (tmp_path / "comparison.md").read_text() == table
    assert all(table.count(f"\n| {arm} |") == 2 for arm in comparison.ARMS if arm != BASE)
    assert "2 validation structures (2 compositions), 3 for training, 2 seeds" in table
    content = json.loads((tmp_path / "comparison.json").read_text())
    arms = content["by_part"][archive]["arms"]
    assert list(arms) == [NO_CHANGE, *comparison.ARMS]
    assert arms["digits"]["steps"] == [1, 1]
    layers = {arm: each.get("n_layer_parameters") for arm, each in arms.items()}
    assert layers["digits"] == layers[BASE]
    assert len(list((tmp_path / "runs").glob("*.json"))) == 2 * len(comparison.ARMS)
    monkeypatch.setattr(comparison.Comparison, "_run", lambda *_: pytest.fail("ran again"))
    assert comparison.main(argv) == 0
    assert capsys.readouterr().out == table
    assert comparison.main([*argv, "--learning-rate", "0.1"]) == 2
    assert "another --out" in capsys.readouterr().err


@pytest.mark.slow
def test_an_interrupted_comparison_goes_on_with_the_unfinished_run(archive, tmp_path, monkeypatch):
    argv = command(archive, tmp_path, "--arms", f"{BASE},digits", "--seeds", "0")
    proper, ran = comparison.Comparison._run, []

    def stopping(self, name, args):
        if name == "digits":
            raise KeyboardInterrupt
        return proper(self, name, args)

    def counting(self, name, args):
        ran.append(name)
        return proper(self, name, args)

    monkeypatch.setattr(comparison.Comparison, "_run", stopping)
    assert comparison.main(argv) == 130
    monkeypatch.setattr(comparison.Comparison, "_run", counting)
    assert comparison.main(argv) == 0
    assert ran == ["digits"]


@pytest.mark.slow
def test_arms_of_a_seed_see_the_same_starts_in_the_same_order(archive, tmp_path, monkeypatch):
    seen, proper = [], comparison.Augmentation.__call__

    def logging(self, pair, rng):
        changed = proper(self, pair, rng)
        seen.append(write_cif(changed.initial))
        return changed

    monkeypatch.setattr(comparison.Augmentation, "__call__", logging)
    more = ["--arms", f"{BASE},deep-encoder,digits", "--seeds", "0", "--steps", "3"]
    assert comparison.main(command(archive, tmp_path, *more)) == 0
    count = len(seen) // 3
    assert count >= 5
    assert seen == seen[:count] * 3


@pytest.mark.slow
def test_a_run_out_of_time_says_how_far_it_came(archive, tmp_path):
    more = ["--arms", "digits", "--seeds", "0", "--steps", "3", "--minutes", "0"]
    assert comparison.main(command(archive, tmp_path, *more)) == 0
    content = json.loads((tmp_path / "comparison.json").read_text())
    arm = content["by_part"][archive]["arms"]["digits"]
    assert arm["steps"] == [1]
    assert arm["difference"] == {}


@pytest.mark.slow
def test_sources_of_validation_have_tables_of_their_own(archive, tmp_path, capsys):
    other = tmp_path / "other.npz"
    save_pairs(other, PAIRS[:1], {"toys": "sha256:0"})
    more = ["--val", str(other), "--arms", BASE, "--seeds", "0"]
    assert comparison.main(command(archive, tmp_path / "out", *more)) == 0
    table = capsys.readouterr().out
    assert table.index("## pairs") < table.index("2 validation structures")
    assert table.index("## other") < table.index("1 validation structures")
    content = json.loads((tmp_path / "out" / "comparison.json").read_text())
    means = [part["arms"][BASE]["means"][0] for part in content["by_part"].values()]
    assert means[0] != means[1]


def test_arms_of_another_text_or_other_starts_go_on_from_a_checkpoint(archive, tmp_path, capsys):
    torch.manual_seed(0)
    start = tmp_path / "start"
    plain = Tokenizer(PLAIN_VOCABULARY)
    student = t5.new_model(plain, num_decoder_layers=1, **TINY | {"num_layers": 1})
    t5.save(student, plain, start, {"from": "scratch", "max_sites": 12})
    argv = ["--data", archive, "--val", archive, "--out", str(tmp_path / "out"), "--workers", "0"]
    argv += ["--init", str(start), "--steps", "1", "--batch-size", "2", "--seeds", "0"]
    assert comparison.main([*argv, "--arms", "plain-text,undisplaced"]) == 0
    assert "| plain-text |" in capsys.readouterr().out
    assert comparison.main([*argv, "--arms", "digits"]) == 2
    assert "--init: digits shapes a new model" in capsys.readouterr().err


@pytest.mark.parametrize("more", [["--arms", "letters"], ["--data", "no.npz"], ["--set", "d_ff"]])
def test_a_mistake_is_one_line_and_exit_2(archive, tmp_path, capsys, more):
    assert comparison.main(command(archive, tmp_path, *more)) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("more", [["--seeds", "a"], ["--steps", "0"], ["--eval-size", "-1"]])
def test_a_number_that_is_none_is_a_mistake_of_the_command_line(more):
    with pytest.raises(SystemExit) as mistake:
        comparison.parse(more)
    assert mistake.value.code == 2


def test_without_data_the_comparison_takes_the_embedded_set():
    args = comparison.parse([])
    assert (args.data, args.val, args.seeds) == (["embedded"], ["embedded"], (0, 1))
    assert args.arms == tuple(comparison.ARMS)


def runs(*levels):
    """A record for each seed; all of its measures are the stated one for each of 8 structures."""
    sizes = {"n_parameters": 1200, "n_layer_parameters": 900, "steps": 5, "minutes": 0.5}
    return [{**sizes, "columns": {k: [x] * 8 for k in TITLES}} for x in levels]


def test_the_tables_state_means_ranges_and_paired_differences(tmp_path):
    records = {
        NO_CHANGE: [{"columns": runs(0.5)[0]["columns"]}],
        BASE: runs(0.2, 0.4),
        "digits": runs(0.3, 0.5),
    }
    origin = {"n_structures": 8, "n_pairs": 3}
    table = write_report(tmp_path, records, [f"group {i}" for i in range(8)], origin)
    lines = table.splitlines()
    assert lines[2] == f"| {NO_CHANGE} |{' – |' * 4}{' 0.5000 |' * 5}"
    assert lines[3] == (
        f"| {BASE} | 1,200 | 900 | 5 | 0.5 |{' 0.3000 [0.2000, 0.4000] |' * len(TITLES)}"
    )
    assert f"| digits |{' +0.1000 [+0.1000, +0.1000] |' * len(TITLES)}" in lines
    assert differences({"digits": runs(0.3)}, ["a"] * 8) == {}
