"""Decoder-only models: texts, loss, grammar over any tokenizer, training, folders.

The models are untrained and tiny, so that whatever comes out right is owed to the grammar. Their
tokenizers are real: byte-pair encodings trained here on a few of our texts.
"""

import json
import pickle
import shutil
from copy import deepcopy
from itertools import accumulate

import numpy as np
import pytest
import torch
from pymatgen.core import Lattice, Structure
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from benchmarks.core import Status
from benchmarks.models.registry import decoding_identity, find_weights, resolve
from t2relax import train
from t2relax.data.training_pairs import Pair, save_pairs
from t2relax.lm import causal, checkpoint
from t2relax.lm.decoding import choose_number, span_of
from t2relax.lm.pretrained import LoraSettings, add_lora, causal_start, is_causal, load
from t2relax.lm.subwords import SubwordGrammar, published_subwords
from t2relax.loss import LossSettings
from t2relax.relaxer import TextRelaxer
from t2relax.text.codec import Crystal, Delta, read_delta, write_cif, write_delta
from t2relax.text.grammar import ORDINAL, REST, template
from t2relax.text.tokens import COARSE, FINE, FORCED, TARGET_SIZE, Tokenizer

from .conftest import one_line

TOKENIZER = Tokenizer()
OWN = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
END = "<|endoftext|>"


def random_pair(species, seed):
    """Sites anywhere in a triclinic cell, and changes of up to tens of % and hundredths."""
    rng = np.random.default_rng(seed)
    cellpar = np.array([*rng.uniform(3, 12, 3), *rng.uniform(75, 105, 3)])
    moved = rng.uniform(-0.05, 0.05, (len(species), 3))
    crystal = Crystal(cellpar, rng.random((len(species), 3)), np.array(species, dtype=np.int16))
    return Pair(crystal, Delta(rng.normal(0, 0.1, 6), moved))


PAIRS = [random_pair(z, i) for i, z in enumerate(([11, 17], [22, 8, 8], [14] * 12, [47]))]


def in_grammar(text, numbers):
    """The judgement of `t2relax.text.grammar`, which knows tokens and no pattern of characters."""
    grammar, spans = template(numbers, TOKENIZER), (None, ORDINAL, REST)
    ids = [*TOKENIZER.encode(text, TARGET_SIZE), 1]
    return len(ids) == len(grammar.ids) and all(
        i == given if kind == FORCED else spans[kind].start <= i < spans[kind].stop
        for i, given, kind in zip(ids, grammar.ids, grammar.kinds, strict=True)
    )


def byte_pairs(size=400):
    """A byte-level encoding, as Qwen and Llama 3 have it."""
    from tokenizers import ByteLevelBPETokenizer

    texts = [write_cif(p.initial) + "\n" + write_delta(p.delta, p.initial) for p in PAIRS]
    fast = ByteLevelBPETokenizer()
    fast.train_from_iterator(texts, vocab_size=size, special_tokens=[END], show_progress=False)
    return PreTrainedTokenizerFast(tokenizer_object=fast._tokenizer, eos_token=END)


def sentence_pieces():
    """Pieces with a visible space and single bytes for the rest, as Llama 2 has them."""
    from tokenizers import Tokenizer as Fast
    from tokenizers import decoders, models, normalizers, trainers

    fast = Fast(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    fast.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    fast.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    special = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256))]
    texts = [line for p in PAIRS for line in write_delta(p.delta, p.initial).split("\n")]
    trainer = trainers.BpeTrainer(vocab_size=500, special_tokens=special, show_progress=False)
    fast.train_from_iterator(texts, trainer)
    content = json.loads(fast.to_str())  # single bytes are text, not special
    content["added_tokens"] = content["added_tokens"][:3]
    fast = Fast.from_str(json.dumps(content))
    return PreTrainedTokenizerFast(
        tokenizer_object=fast, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )


@pytest.fixture(scope="module")
def hub_folder(tmp_path_factory):
    """A Qwen2 as the hub has it: more rows in its table than its tokenizer has subwords."""
    folder = tmp_path_factory.mktemp("hub")
    fast = byte_pairs()
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(fast) + 28,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        eos_token_id=fast.eos_token_id,
    )
    Qwen2ForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def subword_model(hub_folder):
    found = causal_start([str(hub_folder)], LossSettings())
    found.model.eval()
    return found


@pytest.fixture(scope="module")
def own_model():
    torch.manual_seed(0)
    return causal.own_model(causal.new_model(TOKENIZER, **OWN).eval(), TOKENIZER)


@pytest.fixture(scope="module")
def subword_tokens():
    pytest.importorskip("llguidance")
    kinds = {"bytes": byte_pairs(), "few": byte_pairs(257), "pieces": sentence_pieces()}
    return {name: published_subwords(fast) for name, fast in kinds.items()}


# --- texts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["bytes", "few", "pieces"])
def test_prompt_and_completion_are_the_texts_of_the_t5(subword_tokens, name):
    tokens, pair = subword_tokens[name], PAIRS[1]
    row = tokens(pair)
    assert tokens.text(row["labels"][:-1]) == write_delta(pair.delta, pair.initial)
    assert row["labels"][-1] == tokens.end_id
    begun = row["input_ids"][len(tokens.begin_ids) :]
    assert tokens.text(begun) == write_cif(pair.initial) + "\n"
    assert len(row["loss_weights"]) == len(row["labels"])
    assert tokens.begin_ids == ((1,) if name == "pieces" and tokens.begin_ids else ())


def test_a_tokenizer_that_drops_line_ends_is_refused():
    from tokenizers import normalizers

    fast = byte_pairs()
    published_subwords(fast)
    fast.backend_tokenizer.normalizer = normalizers.Replace("\n", " ")
    one_line(lambda: published_subwords(fast), "--init", "line ends")


# --- the loss ------------------------------------------------------------------------------------


@pytest.mark.parametrize("own", [True, False])
def test_the_loss_is_that_of_the_completion_and_of_each_text_alone(own, own_model, subword_model):
    """Padding counts nowhere, and a prompt is never predicted."""
    found = own_model if own else subword_model
    rows = [found.encode(pair) for pair in PAIRS]
    with torch.no_grad():
        together = found.loss(found.model, found.collate(rows)).item()
        alone = [found.loss(found.model, found.collate([row])).item() for row in rows]
    weights = [np.sum(row["loss_weights"]) for row in rows]
    assert together == pytest.approx(np.average(alone, weights=weights), rel=1e-5)


def test_the_loss_on_subwords_is_the_cross_entropy_of_the_model_itself(subword_model):
    row = subword_model.encode(PAIRS[0])
    ids = torch.tensor([[*row["input_ids"], *row["labels"]]])
    labels = torch.tensor([[-100] * len(row["input_ids"]) + list(row["labels"])])
    with torch.no_grad():
        expected = subword_model.model(input_ids=ids, labels=labels).loss.item()
        found = subword_model.loss(subword_model.model, subword_model.collate([row])).item()
    assert found == pytest.approx(expected, rel=1e-5)


# --- the grammar ---------------------------------------------------------------------------------


def adversaries(tokens, size):
    """Logits (size,) that would break a grammar that only adds to them."""
    rng = np.random.default_rng(0)
    end, digits = torch.zeros(size), torch.zeros(size)
    end[tokens.end_id] = 1e9
    digits[[i for i in range(size) if "9" in (tokens.tokenizer.id_to_token(i) or "")]] = 1e9
    yield "random", lambda: torch.from_numpy(rng.normal(0, 10, size)).float()
    yield "ends at once", lambda: end
    yield "digits only", lambda: digits
    yield "lowest id", lambda: -torch.arange(size).float()
    yield "highest id", lambda: torch.arange(size).float()
    yield "no number", lambda: torch.full((size,), torch.nan)
    yield "minus infinity", lambda: torch.full((size,), -torch.inf)
    yield "infinity", lambda: torch.full((size,), torch.inf)


@pytest.mark.parametrize("name", ["bytes", "few", "pieces"])
@pytest.mark.parametrize("numbers", [[8], [92, 92, 1, 118, 6, 27, 27, 7, 7, 53]])
@pytest.mark.parametrize("level", [None, 0.999])
def test_no_logits_can_break_the_grammar(subword_tokens, name, numbers, level):
    tokens, numbers = subword_tokens[name], np.array(numbers, dtype=np.int16)
    size = tokens.tokenizer.get_vocab_size() + 28  # the table of a model can have more rows
    texts = set()
    for attack, logits in adversaries(tokens, size):
        levels = None if level is None else [np.full(1000, level)]
        grammar = SubwordGrammar([tokens.matcher(numbers)], tokens.end_id, levels)
        ids = []
        while not ids or ids[-1] != tokens.end_id:
            scores = grammar(None, logits()[None])[0]
            (chosen,) = (scores > -torch.inf).nonzero()[:, 0].tolist()
            ids.append(chosen)
            assert len(ids) < 1000
        text = tokens.text(ids[:-1])
        assert in_grammar(text, numbers), (attack, text)
        species = read_delta(text, Crystal(np.array([4.0] * 3 + [90.0] * 3), None, numbers))[1]
        assert species.tolist() == numbers.tolist()
        texts.add(text)
    assert len(texts) > 1


def test_the_judge_of_the_grammar_refuses_what_breaks_it():
    text, numbers = write_delta(PAIRS[0].delta, PAIRS[0].initial), np.array([11, 17])
    assert in_grammar(text, numbers)
    assert not in_grammar(text, np.array([17, 11]))
    assert not in_grammar(text + "\nCl Cl3 +00.000 +00.000 +00.000", numbers)
    assert not in_grammar(text[: text.rindex(" ")], numbers)


def test_64_sites_have_a_grammar(subword_tokens):
    pair, tokens = random_pair([22, 8, 8, 57] * 16, 0), subword_tokens["bytes"]
    matcher = tokens.matcher(pair.initial.numbers)
    assert matcher.consume_tokens(tokens(pair)["labels"][:-1])
    assert matcher.is_accepting()


def test_a_grammar_that_leaves_nothing_is_an_error_and_no_free_text(subword_tokens):
    """Once a constraint without an allowed token was silently no constraint."""

    class Nothing:
        def is_stopped(self):
            return False

        def compute_bitmask(self):
            return bytes(80)

        def get_error(self):
            return "stuck"

    grammar = SubwordGrammar([Nothing()], 0)
    with pytest.raises(RuntimeError, match="no subword can follow: stuck"):
        grammar(None, torch.zeros(1, 640))


@pytest.mark.parametrize("own", [True, False])
def test_an_untrained_model_writes_only_texts_of_the_grammar(own, own_model, subword_model):
    if not own:
        pytest.importorskip("llguidance")
    found, pairs = own_model if own else subword_model, [PAIRS[3], PAIRS[0]]
    prompts = [found.prompt(pair.initial) for pair in pairs]
    together = found.decode(prompts)
    assert [len(texts) for texts in together] == [1, 1]
    for (written,), pair in zip(together, pairs, strict=True):
        assert in_grammar(written.text, pair.initial.numbers)
    ((alone,),) = found.decode(prompts[:1])
    assert alone.text == together[0][0].text  # the batch plays no part
    (drawn,) = found.decode(prompts[:1], seed=3)
    assert len({written.text for written in drawn}) == 8
    assert all(in_grammar(written.text, PAIRS[3].initial.numbers) for written in drawn)


def test_a_free_position_of_our_vocabulary_takes_the_median_or_the_likeliest():
    scores = torch.full((1, len(TOKENIZER)), 50.0)  # what is no number would win
    scores[:, ORDINAL] = -torch.inf
    scores[:, [ORDINAL.start + 1002, ORDINAL.start + 990]] = torch.tensor([0.0, -0.6])
    scores[:, REST.start + 7] = 60.0
    level = torch.tensor([0.5])
    found = [choose_number(scores[:, span_of(kind)], kind, level) for kind in (COARSE, FINE)]
    words = [TOKENIZER.vocabulary[int(ids)] for ids, _ in found]
    assert words[0] == " +00.2"  # 65 % is on it
    assert int(found[1][0]) == REST.start + 7
    assert found[0][1] > 0
    assert found[1][1] == 0


def test_cache_batch_and_skipped_tokens_change_nothing_of_a_decoder_only_model(own_model):
    """Against the whole text through the model for each token, alone and without a cache."""
    model = deepcopy(own_model.model).double()  # random weights: rounding decides between numbers
    found, pairs = causal.own_model(model, TOKENIZER), [PAIRS[3], PAIRS[0], PAIRS[1]]
    prompts = [found.prompt(pair.initial) for pair in pairs]
    for prompt, (written,) in zip(prompts, found.decode(prompts), strict=True):
        ids, grammar = list(prompt.ids), template(prompt.numbers, TOKENIZER)
        for token, kind in zip(grammar.ids.tolist(), grammar.kinds.tolist(), strict=True):
            with torch.no_grad():
                scores = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1]
            if kind == COARSE:
                shares = torch.softmax(scores[ORDINAL].float(), dim=-1).tolist()
                median = next(k for k, s in enumerate(accumulate(shares)) if s >= 0.5)
                ids.append(ORDINAL.start + median)
            else:
                ids.append(token if kind == FORCED else REST.start + int(scores[REST].argmax()))
        assert written.text == TOKENIZER.decode(ids[len(prompt.ids) :])
        assert written.n_tokens == len(grammar.ids)
        assert written.spread.shape == (7 + 3 * len(prompt.numbers),)


# --- training, folders, rows ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "pairs.npz"
    save_pairs(path, PAIRS, {"toys": "sha256:0"})
    return str(path)


def command(archive, out, *more):
    sizes = ["--steps", "2", "--batch-size", "2", "--eval-steps", "1", "--workers", "0"]
    sizes += ["--warmup", "0"]
    return ["--data", archive, "--val", archive, "--out", str(out), *sizes, *more]


def relaxed(folder):
    salt = Structure(Lattice.cubic(5.6), ["Na", "Cl"], [[0, 0, 0], [0.5] * 3])
    (outcome,) = TextRelaxer(folder).relax([salt])
    assert outcome.status is Status.OK
    assert outcome.structure.atomic_numbers == (11, 17)
    return outcome


@pytest.mark.slow
def test_a_published_model_is_trained_with_low_rank_changes_and_becomes_a_row(
    hub_folder, archive, tmp_path
):
    for module in ("llguidance", "peft"):
        pytest.importorskip(module)
    out = tmp_path / "out"
    argv = command(archive, out, "--init", str(hub_folder), "--lora", "r=2", "--learning-rate")
    assert train.main([*argv, "0.01"]) == 0
    before = stored_weights(hub_folder)
    after = stored_weights(out)
    name = "model.layers.0.self_attn.q_proj.weight"
    assert before.keys() == after.keys()  # the changes are added to the weights
    assert not torch.allclose(before[name], after[name].float(), atol=1e-4)
    assert torch.allclose(
        before["model.embed_tokens.weight"], after["model.embed_tokens.weight"].float(), atol=1e-3
    )
    card = json.loads((out / "t2relax.json").read_text())["training"]
    assert card["config"]["lora"] == {"r": 2, "alpha": 32.0, "dropout": 0.0}
    assert card["from"] == [str(hub_folder)]
    relaxed(out)
    spec = resolve(f"mine=causal:{out}")
    assert spec.target == "t2relax.relaxer:TextRelaxer"
    assert find_weights(spec, offline=True) == (out / "model.safetensors",)
    rule = decoding_identity(spec)["mine"]
    assert rule["mode"] == "constrained"
    assert rule["max_sites"] == 12


def stored_weights(folder):
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


@pytest.mark.slow
def test_a_decoder_only_model_from_scratch_is_trained_stored_and_goes_on(archive, tmp_path):
    shape = [x for k, v in OWN.items() for x in ("--set", f"{k}={v}")]
    out = tmp_path / "out"
    argv = command(archive, out, "--architecture", "causal", *shape)
    assert train.main([*argv, "--minutes", "0"]) == 0
    assert train.main(argv) == 0
    content = json.loads((out / "t2relax.json").read_text())
    assert content["vocabulary"] == list(TOKENIZER.vocabulary)
    assert content["training"]["steps"] == 2
    assert not checkpoint.is_encoder_decoder(out)
    assert decoding_identity(resolve(f"mine=causal:{out}"))["mine"]["mode"] == "constrained"
    outcome = relaxed(out)
    assert outcome.n_tokens == len(template(np.array([11, 17]), TOKENIZER).ids)
    more = command(archive, tmp_path / "more", "--init", str(out), "--steps", "1")
    assert train.main(more) == 0


def test_a_model_from_scratch_has_the_size_of_the_t5():
    from t2relax.lm import t5

    gpt, ours = causal.new_model(TOKENIZER), t5.new_model(TOKENIZER)
    assert gpt.num_parameters() == pytest.approx(ours.num_parameters(), rel=0.03)
    row = causal.own_model(gpt, TOKENIZER).encode(PAIRS[0])
    ids = torch.tensor([[*row["input_ids"], *row["labels"]]])
    with torch.no_grad():
        assert 0.3 < gpt(input_ids=ids).logits.std() < 3  # neither flat nor sure of anything


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--lora", "r=2"], ["--lora", "name it with --init"]),
        (["--lora", "rank=2"], ["--lora rank=2", "there is no field"]),
        (["--lora", "r=0"], ["--r 0", "larger than 0"]),
        (["--architecture", "causal", "--set", "d_model=8"], ["--set d_model=8", "no field"]),
        (["--architecture", "causal", "--init", "x"], ["--architecture", "has its own"]),
    ],
)
def test_a_mistake_is_one_line_and_exit_2(archive, tmp_path, capsys, more, words):
    assert train.main(command(archive, tmp_path / "out", *more)) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert all(word in said for word in words), said


def test_the_configuration_says_which_architecture_it_is(hub_folder, tmp_path):
    assert is_causal(str(hub_folder))
    assert not is_causal(str(checkpoint.CHECKPOINT))
    (tmp_path / "config.json").write_text('{"model_type": "bart"}')
    one_line(lambda: is_causal(str(tmp_path)), "is a bart: give a T5 or a decoder-only model")
    (tmp_path / "config.json").write_text(
        '{"model_type": "mine", "auto_map": {"AutoConfig": "c.C"}}'
    )
    (tmp_path / "c.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    one_line(lambda: is_causal(str(tmp_path)), f"--init {tmp_path}")
    assert not (tmp_path / "ran").exists()


class Evil:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return open, (str(self.mark), "w")


def test_a_causal_folder_runs_nothing_of_what_lies_in_it(own_model, subword_model, tmp_path):
    pytest.importorskip("llguidance")
    mark = tmp_path / "ran"
    for name, found in (("own", own_model), ("subwords", subword_model)):
        folder = tmp_path / name
        found.save(folder, {"from": "scratch", "max_sites": 8})
        found.model.float()
        config = json.loads((folder / "config.json").read_text())
        mine = {"AutoConfig": "code.Config", "AutoModelForCausalLM": "code.Model"}
        (folder / "config.json").write_text(json.dumps(config | {"auto_map": mine}))
        (folder / "code.py").write_text(f"open({str(mark)!r}, 'w')\n")
        torch.save(Evil(mark), folder / "pytorch_model.bin")
        assert load(folder).max_sites == 8
        (folder / "adapter_config.json").write_text("{}")
        one_line(lambda folder=folder: load(folder), "adapter")
        (folder / "adapter_config.json").unlink()
        (folder / "model.safetensors").write_bytes(pickle.dumps(Evil(mark)))
        one_line(lambda folder=folder: load(folder), f"{name} cannot be loaded")
    (tmp_path / "subwords" / "tokenizer.json").write_text("{}")
    one_line(lambda: load(tmp_path / "subwords"), "train again")
    assert not mark.exists()


def test_a_published_model_brings_no_pickle(hub_folder, tmp_path):
    folder = shutil.copytree(hub_folder, tmp_path / "hub")
    (folder / "model.safetensors").unlink()
    torch.save(Evil(tmp_path / "ran"), folder / "pytorch_model.bin")
    one_line(lambda: causal_start([str(folder)], LossSettings()), "--init")
    assert not (tmp_path / "ran").exists()


def test_a_published_generation_config_decides_nothing(hub_folder, tmp_path):
    """A repetition penalty of the hub would make every second zero unlikely."""
    folder = shutil.copytree(hub_folder, tmp_path / "hub")
    plain = causal_start([str(hub_folder)], LossSettings())
    text = '{"repetition_penalty": 9.0, "do_sample": true, "temperature": 5.0}'
    (folder / "generation_config.json").write_text(text)
    changed = causal_start([str(folder)], LossSettings())
    prompts = [plain.prompt(PAIRS[3].initial)]
    assert changed.decode_free(prompts) == plain.decode_free(prompts)


def test_a_crystal_that_does_not_fit_the_model_is_told(hub_folder, tmp_path, archive, capsys):
    folder = shutil.copytree(hub_folder, tmp_path / "hub")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 500}))
    assert train.main(command(archive, tmp_path / "out", "--init", str(folder))) == 2
    assert "the largest crystal of --data and --val does not fit" in capsys.readouterr().err


def test_low_rank_changes_alone_are_trained(hub_folder):
    pytest.importorskip("peft")
    found = add_lora(causal_start([str(hub_folder)], LossSettings()), LoraSettings(r=2))
    trained = {name for name, p in found.model.named_parameters() if p.requires_grad}
    assert trained
    assert all(".lora_" in name for name in trained)
    found.loss(found.model, found.collate([found.encode(PAIRS[0])])).backward()
    assert not found.muon
