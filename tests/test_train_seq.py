"""Sequence-level fine-tuning: rewards, advantages, sampling, training, and the ablation."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from benchmarks.core import UserError
from studies import ablation
from studies.ablation import AblationOutcome, replicates, verdict
from t2relax import train_seq
from t2relax.data.training_pairs import Pair, encode_pair, save_pairs
from t2relax.lm import t5
from t2relax.lm.decoding import decode_free
from t2relax.policy import (
    EXTRA_TOKENS,
    Policy,
    PolicySettings,
    batches,
    load_free,
    optimizer_of,
    tokenize_pair,
    updates,
)
from t2relax.relaxer import TextRelaxer
from t2relax.reward import (
    ESTIMATORS,
    MEASURES,
    Reward,
    group_advantage,
    means,
    minimum_risk,
    score_decode,
    self_critical,
)
from t2relax.text.codec import Crystal, Delta
from t2relax.text.tokens import EOS_ID, TARGET_SIZE, Tokenizer

TOKENIZER = Tokenizer()
TINY = {"d_model": 32, "d_kv": 16, "num_heads": 2, "d_ff": 64, "num_layers": 1}
SILENT = {"rouge": 0.0, "bleu": 0.0, "physical": 0.0}


def rocksalt(a=5.0, change=0.1, symbols=(11, 17)):
    """Two sites in a cube of edge `a` [Å]; relaxation adds `change` to each edge and no more."""
    cellpar = np.array([a, a, a, 90.0, 90.0, 90.0])
    sites = np.array([[0.0, 0.0, 0.0], [0.5, 0.5, 0.5]])
    delta = Delta(np.array([change] * 3 + [0.0] * 3), np.zeros((2, 3)))
    return Pair(Crystal(cellpar, sites, np.array(symbols, dtype=np.int16)), delta)


def target(pair):
    return encode_pair(pair, TOKENIZER)[1]


def moved(pair, fracs):
    return replace(pair, delta=Delta(pair.delta.cellpar, np.array(fracs)))


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """An untrained T5 of one layer each."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("start")
    model = t5.new_model(TOKENIZER, num_decoder_layers=1, **TINY)
    t5.save(model, TOKENIZER, folder, {"from": "scratch", "max_sites": 8})
    return folder


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "pairs.npz"
    pairs = [rocksalt(4.5 + 0.2 * i, 0.05 * i, (11 + i % 2, 17)) for i in range(5)]
    save_pairs(path, pairs, {"toys": "sha256:0"})
    return str(path)


# --- reward --------------------------------------------------------------------------------------


def test_the_right_text_earns_all_and_costs_nothing():
    pair = rocksalt()
    (parts,) = Reward()([target(pair)], target(pair), pair)
    assert_allclose(parts, (1.0, 1.0, 0.0), atol=1e-12)


def test_the_physical_reward_is_minus_the_two_errors_in_angstrom():
    pair = rocksalt(change=0.1)
    wrong_cell = replace(pair, delta=Delta(np.array([0.2, 0.1, 0.1, 0, 0, 0]), np.zeros((2, 3))))
    (parts,) = Reward()([target(wrong_cell)], target(pair), pair)
    assert_allclose(parts.physical, -0.1 / np.sqrt(3), atol=1e-9)  # a off by 0.1 Å
    wrong_sites = moved(pair, [[0.01, 0, 0], [-0.01, 0, 0]])
    (parts,) = Reward()([target(wrong_sites)], target(pair), pair)
    assert_allclose(parts.physical, -0.01 * 5.1, atol=1e-9)  # in the relaxed cell


def test_a_uniform_shift_of_all_atoms_costs_nothing_physical():
    pair = rocksalt()
    shifted = moved(pair, [[0.01, 0, 0], [0.01, 0, 0]])
    (parts,) = Reward()([target(shifted)], target(pair), pair)
    assert_allclose(parts.physical, 0.0, atol=1e-9)
    assert parts.rouge < 1


def test_lost_and_swapped_atoms_and_nonsense_take_the_stated_price():
    pair = rocksalt()
    right = target(pair)
    sodium = rocksalt(symbols=(11, 11))
    lost = [*TOKENIZER.encode(TOKENIZER.decode(right).rsplit("\n", 1)[0]), EOS_ID]
    texts = [lost, target(sodium), right[:10], [EOS_ID], []]
    parts = Reward(failure=-1.5)(texts, right, pair)
    assert [p.physical for p in parts] == [-1.5] * 5
    assert parts[0].rouge > 0.8  # the text part hardly sees what the physics cannot use
    assert parts[3].rouge == parts[3].bleu == parts[4].bleu == 0


def test_failing_never_pays():
    """A structure 40 % too large is worth what nonsense is worth, not less."""
    pair = rocksalt()
    exploded = replace(pair, delta=Delta(np.array([2.0, 2.0, 2.0, 0, 0, 0]), np.zeros((2, 3))))
    (parts,) = Reward()([target(exploded)], target(pair), pair)
    assert parts.physical == -1.0


def test_rouge_and_bleu_of_a_text_with_one_wrong_token_are_those_of_its_tokens():
    """Literal values: 4 of 5 tokens in common; precisions 4/5, 2/4 and 0, 0 smoothed to 1/6, 1/8.

    BLEU = (4/5 · 2/4 · 1/6 · 1/8)^(1/4), sacrebleu's exponential smoothing halving twice.
    """
    reward, right = Reward(), TOKENIZER.encode(" +01.9 +02.0 +03.0 +04.0 +05.0")
    wrong = TOKENIZER.encode(" +01.9 +02.0 +09.0 +04.0 +05.0")
    (parts,) = reward([wrong], right, rocksalt())
    assert_allclose(parts.rouge, 4 / 5)
    assert_allclose(parts.bleu, (4 / 5 * 2 / 4 * 1 / 6 * 1 / 8) ** 0.25)


def test_blanks_and_line_breaks_within_a_token_do_not_make_words():
    """`\\n<tag>` of four words in all would count as one of eleven words otherwise."""
    pair = rocksalt()
    wrong = [i if i > 1 else 1 for i in target(pair)]
    wrong[1] += 1
    (parts,) = Reward()([wrong], target(pair), pair)
    tokens = len(target(pair)) - 1
    assert_allclose(parts.rouge, (tokens - 1) / tokens)


def test_what_follows_the_end_of_a_text_does_not_count_and_equal_texts_are_scored_once(monkeypatch):
    pair, reward, calls = rocksalt(), Reward(), []
    physical = reward._physical
    monkeypatch.setattr(reward, "_physical", lambda *a: calls.append(a) or physical(*a))
    padded = [*target(pair), 0, 0, 50]
    parts = reward([target(pair), padded, target(pair)], target(pair), pair)
    assert len(set(parts)) == 1
    assert len(calls) == 1


def test_the_measures_of_a_decode_are_those_of_the_benchmark():
    pair, reward = rocksalt(), Reward()
    off = replace(pair, delta=Delta(np.array([0.2, 0.1, 0.1, 0, 0, 0]), np.zeros((2, 3))))
    good, bad = (score_decode(t, target(pair), pair, reward) for t in (target(off), [EOS_ID]))
    rows = {name: np.array([good[name], bad[name]]) for name in good}
    found = means(rows)
    assert found["element_preservation"] == found["validity"] == 0.5
    assert_allclose(found["lattice_rmse"], 0.1 / np.sqrt(3), atol=1e-9)  # over the valid one
    assert_allclose(found["lattice_mae"], 0.1 / 3, atol=1e-9)
    assert_allclose(found["physical"], (-0.1 / np.sqrt(3) - 1) / 2, atol=1e-9)
    lost = means({name: np.array([bad[name]]) for name in bad})
    assert lost["lattice_rmse"] is None
    json.dumps(found | lost, allow_nan=False)


# --- estimators ----------------------------------------------------------------------------------

REWARDS = np.array([[1.0, 0.0], [0.5, 0.5]])


def test_group_advantages_are_centred_in_the_group_and_scaled_in_the_batch():
    weights = group_advantage(REWARDS, np.zeros(2), np.zeros((2, 2)))
    assert_allclose(weights, np.array([[1.0, -1.0], [0.0, 0.0]]) * np.sqrt(2))


def test_a_batch_that_earned_all_the_same_teaches_nothing():
    same = np.full((2, 3), 0.3)
    for estimate in (group_advantage, minimum_risk):
        assert_allclose(estimate(same, np.zeros(2), np.zeros((2, 3))), 0.0, atol=1e-12)


def test_self_critical_compares_with_the_greedy_text():
    weights = self_critical(REWARDS, np.array([0.25, 1.0]), np.zeros((2, 2)))
    assert_allclose(weights, [[0.75, -0.25], [-0.5, -0.5]])


def test_minimum_risk_is_the_gradient_of_the_expected_reward():
    log_probs = torch.tensor([[-300.0, -20.0, -100.0]], dtype=torch.float64, requires_grad=True)
    rewards = np.array([[0.2, 0.9, -1.0]])
    q = torch.softmax(0.005 * log_probs, dim=1)
    (q * torch.from_numpy(rewards)).sum().backward()
    weights = minimum_risk(rewards, np.zeros(1), log_probs.detach().numpy())
    assert_allclose(weights * 0.005 / 3, log_probs.grad.numpy(), rtol=1e-9)


# --- policy --------------------------------------------------------------------------------------


def policy_of(start, **settings):
    settings = {"batch_size": 2, "group": 3, "steps": 2, **settings}
    loaded = load_free(start)
    return Policy(loaded.model, PolicySettings(**settings), Reward(tokenizer=loaded.tokenizer))


def test_samples_are_free_but_of_the_tokens_of_targets(start):
    policy = policy_of(start)
    batch = [tokenize_pair(rocksalt(a), TOKENIZER) for a in (4.0, 5.0)]
    groups = policy._sample(batch, torch.Generator().manual_seed(0))
    assert [len(group) for group in groups] == [3, 3]
    assert all(0 < i < TARGET_SIZE for group in groups for text in group for i in text)
    assert len({tuple(text) for group in groups for text in group}) == 6


def test_samples_of_a_model_that_is_sure_are_its_greedy_texts(start):
    policy = policy_of(start)
    batch = [tokenize_pair(rocksalt(a), TOKENIZER) for a in (4.0, 5.0)]
    with torch.no_grad():
        policy.model.decoder.final_layer_norm.weight *= 100
    limit = len(batch[0].target) + EXTRA_TOKENS
    greedy = decode_free(policy.model, [e.source for e in batch], limit)
    groups = policy._sample(batch, torch.Generator().manual_seed(0))
    assert groups == [[ids] * 3 for ids in greedy]


def test_log_probabilities_of_texts_are_those_of_the_model(start):
    policy = policy_of(start)
    batch = [tokenize_pair(rocksalt(a), TOKENIZER) for a in (4.0, 5.0)]
    texts = [batch[0].target, batch[0].target[:7], batch[1].target[:3], batch[1].target]
    costs = policy._costs([e.source for e in batch], texts)
    for cost, text, source in zip(costs, texts, [0, 0, 1, 1], strict=True):
        inputs = torch.tensor([batch[source].source])
        logits = policy.model(input_ids=inputs, labels=torch.tensor([text])).logits
        log_p = torch.log_softmax(logits[0, :, :TARGET_SIZE], dim=-1)
        expected = -log_p[torch.arange(len(text)), text].sum()
        assert_allclose(cost.item(), expected.item(), rtol=1e-4)


@pytest.mark.parametrize("estimator", sorted(ESTIMATORS))
def test_a_step_makes_the_better_text_likelier(start, monkeypatch, estimator):
    policy = policy_of(start, estimator=estimator, token=0.0, group=2)
    batch = [tokenize_pair(rocksalt(), TOKENIZER)]
    good, bad = batch[0].target, batch[0].target[:9]
    monkeypatch.setattr(Policy, "_sample", lambda *_: [[good, bad]])
    before = policy._costs([batch[0].source], [good, bad]).detach()
    optimizer = torch.optim.SGD(policy.model.parameters(), lr=0.1)
    policy.loss(batch, torch.Generator())[0].backward()
    torch.nn.utils.clip_grad_norm_(policy.model.parameters(), 0.1)
    optimizer.step()
    after = policy._costs([batch[0].source], [good, bad]).detach()
    assert after[0] - after[1] < before[0] - before[1]


def test_without_rewards_nothing_is_sampled(start, monkeypatch):
    monkeypatch.setattr(Policy, "_sample", lambda *_: pytest.fail("sampled"))
    policy = policy_of(start, **SILENT, token=1.0, steps=10, learning_rate=3e-3)
    logs = list(updates(policy, optimizer_of(policy), [rocksalt(a) for a in (4.0, 5.0)]))
    assert logs[0].keys() == {"token_loss"}
    assert logs[-1]["token_loss"] < logs[0]["token_loss"]


def test_batches_are_the_same_for_a_seed_and_hold_every_pair_once_an_epoch():
    pairs = [rocksalt(4 + 0.1 * i) for i in range(7)]
    one, two = batches(pairs, 3, 0), batches(pairs, 3, 0)
    epoch = [next(one) for _ in range(3)]
    assert sorted(len(batch) for batch in epoch) == [1, 3, 3]
    assert sorted(p.initial.cellpar[0] for b in epoch for p in b) == [
        p.initial.cellpar[0] for p in pairs
    ]
    assert [[id(p) for p in next(two)] for _ in range(3)] == [[id(p) for p in b] for b in epoch]


# --- training ------------------------------------------------------------------------------------


def command(start, archive, out, *more):
    sizes = ["--batch-size", "2", "--group", "2", "--eval-size", "3", "--eval-steps", "1"]
    paths = ["--data", archive, "--val", archive, "--init", str(start), "--out", str(out)]
    return [*paths, *sizes, *more]


@pytest.mark.slow
def test_an_interrupted_run_ends_as_if_it_had_not_stopped(start, archive, tmp_path, monkeypatch):
    steps = ["--steps", "2"]
    assert train_seq.main(command(start, archive, tmp_path / "whole", *steps)) == 0
    proper = train_seq.updates

    def stopping(*args):
        yield next(proper(*args))
        raise KeyboardInterrupt

    monkeypatch.setattr(train_seq, "updates", stopping)
    assert train_seq.main(command(start, archive, tmp_path / "cut", *steps)) == 130
    monkeypatch.setattr(train_seq, "updates", proper)
    assert train_seq.main(command(start, archive, tmp_path / "cut", *steps)) == 0
    whole, cut = (
        torch.load(tmp_path / name / "state.pt", weights_only=True) for name in ("whole", "cut")
    )
    assert cut["step"] == 2
    for name, weights in whole["model"].items():
        assert torch.equal(weights, cut["model"][name])
    assert json.loads((tmp_path / "cut" / "history.json").read_text())


@pytest.mark.slow
def test_a_checkpoint_says_where_it_came_from_and_relaxes_freely(start, archive, tmp_path, capsys):
    out = tmp_path / "out"
    assert train_seq.main(command(start, archive, out, "--steps", "1")) == 0
    card = json.loads((out / "t2relax.json").read_text())["training"]
    assert card["from"][0]["training"] == {"from": "scratch", "max_sites": 8}
    assert card["max_sites"] == 8
    assert card["settings"]["physical"] == 1.0
    assert card["command"].startswith("python -m t2relax.train_seq")
    assert json.loads(capsys.readouterr().out)["reward"] == card["validation"]["reward"]
    relaxer = TextRelaxer(out, mode="free")
    assert relaxer.language_model.model.generation_config.suppress_tokens[0] == TARGET_SIZE
    other = command(start, archive, out, "--steps", "1", "--seed", "1")
    assert train_seq.main(other) == 2
    assert "another --out" in capsys.readouterr().err


@pytest.mark.parametrize("more", [["--group", "1"], ["--init", "nowhere"], ["--data", "no.npz"]])
def test_a_mistake_is_one_line_and_exit_2(start, archive, tmp_path, capsys, more):
    assert train_seq.main(command(start, archive, tmp_path, *more)) == 2
    assert capsys.readouterr().err.count("\n") == 1


# --- ablation ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_ablation_writes_its_report_and_runs_nothing_twice(
    start, archive, tmp_path, monkeypatch, capsys
):
    sizes = ["--batch-size", "2", "--group", "2", "--eval-size", "3", "--steps", "1"]
    paths = ["--data", archive, "--val", archive, "--init", str(start), "--out", str(tmp_path)]
    argv = [*paths, *sizes, "--seeds", "0,1", "--start-steps", "1"]
    assert ablation.main(argv) == 0
    assert "ROUGE and BLEU" in capsys.readouterr().out
    assert TextRelaxer(tmp_path / "start", mode="free").max_sites == 8
    assert len(list((tmp_path / "runs").glob("*.json"))) == 9
    names = ["ablation.json", "ablation.md", "ablation.svg"]
    before = {name: (tmp_path / name).read_bytes() for name in names}
    content = json.loads(before["ablation.json"])
    assert list(content["arms"]) == ["start", *ablation.ARMS]
    assert content["steps"]["token"] == [1, 1]
    monkeypatch.setattr(ablation, "load_free", lambda *_: pytest.fail("ran again"))
    assert ablation.main(argv) == 0
    assert before == {name: (tmp_path / name).read_bytes() for name in names}
    assert ablation.main([*argv, "--learning-rate", "0.1"]) == 2


def outcomes(**kept):
    """Two seeds of each arm over 40 structures, the stated share of which keep their atoms."""
    found = []
    for arm, share in kept.items():
        flags = (np.arange(40) < 40 * share).astype(float)
        columns = {m.column: np.where(flags > 0, 0.25, np.nan) for m in MEASURES.values()}
        columns["valid_species_order"] = flags
        found += [
            AblationOutcome(arm, seed, 1, columns) for seed in ((0,) if arm == "start" else (0, 1))
        ]
    return found


@pytest.mark.parametrize(
    ("physical", "start_rate", "answer"),
    [
        (0.2, 0.9, "holds here."),
        (0.5, 0.5, "only in part"),
        (0.9, 0.9, "not borne out"),
        (0.9, 0.2, "does not hold here: without them more"),
    ],
)
def test_the_verdict_follows_from_the_numbers(physical, start_rate, answer):
    rows = outcomes(start=start_rate, physical=physical, text=0.9, weighted=0.9)
    sentence = verdict(replicates(rows, [f"group {i}" for i in range(40)]))
    assert answer in sentence
    assert f"physical {100 * physical:.1f} %" in sentence


def test_estimates_pool_structures_and_seeds_and_roots_come_last():
    rows = outcomes(start=0.5, physical=0.5, text=0.5, weighted=0.5)
    found = replicates(rows, [f"group {i % 8}" for i in range(40)])
    assert found["physical"]["element_preservation"][0] == 0.5
    assert found["physical"]["lattice_rmse"][0] == 0.5  # of a square of 0.25 where there is one
    assert_allclose(found["physical"]["rouge"], 0.25)


def test_equal_arms_do_not_differ_in_any_replicate():
    rows = outcomes(start=0.5, physical=0.5, text=0.5, weighted=0.5)
    found = replicates(rows, [f"group {i}" for i in range(40)])
    kept = {arm: values["element_preservation"] for arm, values in found.items()}
    assert_allclose(kept["physical"], kept["weighted"], rtol=1e-12)
    assert np.std(kept["physical"]) > 0.01


def test_without_data_the_ablation_takes_the_embedded_set():
    args = ablation.parse([])
    assert (args.data, args.val, args.start_steps) == (["embedded"], ["embedded"], 0)
    assert ablation.parse(["--data", "a", "--data", "b"]).data == ["a", "b"]


def test_no_pairs_to_compare_on_is_the_users_mistake(archive, start, tmp_path):
    with pytest.raises(SystemExit) as mistake:
        ablation.parse(
            ["--data", archive, "--val", archive, "--out", str(tmp_path), "--seeds", "a"]
        )
    assert mistake.value.code == 2
    with pytest.raises(UserError):
        ablation.Ablation(ablation.parse(["--data", "no.npz", "--val", archive, "--out", "x"]))
