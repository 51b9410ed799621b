"""What our own decoding saves, as ratios in one run.

    make perf

Against `model.generate` with a vectorised logits processor: the same weights, constraint and
batches of 64, the same ids out; of the T5 and of the decoder-only model. Against CHGNet: median
wall time of a structure, text, decoding and relaxed cell included. On real starting structures
(`../shared/data`).
"""

import time

import numpy as np
import pytest
import torch
from transformers import (
    DynamicCache,
    EncoderDecoderCache,
    LogitsProcessor,
    LogitsProcessorList,
)

from benchmarks.core import Geometry, RelaxSettings
from benchmarks.data import load
from benchmarks.models.registry import MODELS
from t2relax.data.token_dataset import pad
from t2relax.lm.decoding import decode_constrained, quantile
from t2relax.relaxer import TextRelaxer
from t2relax.text.codec import Crystal
from t2relax.text.grammar import ORDINAL, REST, template
from t2relax.text.tokens import COARSE, FINE, FORCED, PAD_ID

pytestmark = pytest.mark.perf

BATCH, MANY, FEW = 64, 256, 40


class Grammar(LogitsProcessor):
    """The constraint as Hugging Face's generation takes it: one token at each position."""

    def __init__(self, templates, size, before=1):
        self.before = before  # tokens in front of the target
        self.kinds = torch.from_numpy(pad([t.kinds.tolist() for t in templates], FORCED))
        self.ids = torch.from_numpy(pad([t.ids.tolist() for t in templates], PAD_ID))
        self.mask = torch.zeros((3, size), dtype=torch.bool)
        self.mask[COARSE, ORDINAL] = True
        self.mask[FINE, REST] = True

    def __call__(self, input_ids, scores):
        place = input_ids.shape[1] - self.before
        kinds, ids = self.kinds[:, place], self.ids[:, place]
        likeliest = scores.masked_fill(~self.mask[kinds], -torch.inf).argmax(dim=-1)
        digits = ORDINAL.start + quantile(scores[:, ORDINAL], torch.full((len(kinds),), 0.5))[0]
        chosen = torch.where(kinds == COARSE, digits, likeliest)
        chosen = torch.where(kinds == FORCED, ids, chosen)
        return torch.full_like(scores, -torch.inf).scatter_(1, chosen[:, None], 0.0)


@pytest.fixture(scope="module")
def inputs(shared_data):
    """Structures, and the relaxer that reads them."""
    data = load(str(shared_data / "substitution" / "val.parquet"), limit=MANY)
    return [sample.initial for sample in data], TextRelaxer(
        settings=RelaxSettings(batch_size=BATCH)
    )


def plainly(model, sources, templates):
    """`model.generate` in batches of 64, in the order given."""
    rows = []
    for first in range(0, len(sources), BATCH):
        batch = slice(first, first + BATCH)
        source = torch.from_numpy(pad(sources[batch], PAD_ID))
        found = model.generate(
            input_ids=source,
            attention_mask=(source != PAD_ID).long(),
            max_new_tokens=max(len(t.ids) for t in templates[batch]),
            do_sample=False,
            eos_token_id=None,
            # made by itself it has as many layers as the encoder, which here has fewer
            past_key_values=EncoderDecoderCache(DynamicCache(), DynamicCache()),
            logits_processor=LogitsProcessorList(
                [Grammar(templates[batch], model.lm_head.out_features)]
            ),
        )
        rows += [
            r[1 : 1 + len(t.ids)] for r, t in zip(found.numpy(), templates[batch], strict=True)
        ]
    return rows


def quickly(model, sources, templates):
    """Ours, in batches of 64 by length."""
    order = sorted(range(len(sources)), key=lambda i: len(sources[i]))
    rows = {}
    for first in range(0, len(order), BATCH):
        batch = order[first : first + BATCH]
        found = decode_constrained(
            model, [sources[i] for i in batch], [templates[i] for i in batch]
        )
        rows |= {i: chosen.ids[0] for i, chosen in zip(batch, found, strict=True)}
    return [rows[i] for i in range(len(sources))]


def test_decoding_against_generate(benchmark, inputs):
    structures, relaxer = inputs
    geometries = [Geometry.of(structure) for structure in structures]
    sources = [
        relaxer.language_model.tokenizer.source(Crystal.of(geometry)) for geometry in geometries
    ]
    templates = [
        template(geometry.numbers, relaxer.language_model.tokenizer) for geometry in geometries
    ]
    began = time.perf_counter()
    plain = plainly(relaxer.language_model.model, sources, templates)
    slow = time.perf_counter() - began
    fast = benchmark.pedantic(
        quickly, (relaxer.language_model.model, sources, templates), rounds=3, warmup_rounds=1
    )
    assert all((a == b).all() for a, b in zip(plain, fast, strict=True))
    ratio = slow / benchmark.stats["median"]
    benchmark.extra_info |= {"structures": len(structures), "times_faster": round(ratio, 2)}
    assert ratio > 1


def test_decoding_of_a_decoder_only_model_against_generate(benchmark, inputs):
    found = TextRelaxer(MODELS["gpt"].kwargs["path"]).language_model
    prompts = [found.prompt(Crystal.of(Geometry.of(structure))) for structure in inputs[0]]
    prompts = sorted(prompts, key=lambda prompt: len(prompt.ids))[:BATCH]
    templates = [template(prompt.numbers, found.tokens.tokenizer) for prompt in prompts]
    ids, mask = found._aligned([prompt.ids for prompt in prompts])
    grammar = Grammar(templates, found.model.config.vocab_size, before=ids.shape[1])
    began = time.perf_counter()
    rows = found.model.generate(
        input_ids=ids,
        attention_mask=mask,
        max_new_tokens=max(len(t.ids) for t in templates),
        do_sample=False,
        eos_token_id=None,
        logits_processor=LogitsProcessorList([grammar]),
    )[:, ids.shape[1] :]
    slow = time.perf_counter() - began
    fast = benchmark.pedantic(found.decode, (prompts,), rounds=3, warmup_rounds=1)
    texts = [
        found.tokens.tokenizer.decode(row[: len(t.ids)].tolist())
        for row, t in zip(rows, templates, strict=True)
    ]
    assert texts == [written.text for (written,) in fast]
    ratio = slow / benchmark.stats["median"]
    benchmark.extra_info |= {"structures": len(prompts), "times_faster": round(ratio, 2)}
    assert ratio > 1


def test_a_relaxation_against_chgnet(benchmark, inputs):
    from baselines.potentials.chgnet import CHGNet

    structures, relaxer = inputs[0][:FEW], inputs[1]
    benchmark.pedantic(relaxer.relax, (structures,), rounds=3, warmup_rounds=1)
    chgnet, seconds = CHGNet(), []
    chgnet.relax(structures[:1])
    for structure in structures:
        began = time.perf_counter()
        chgnet.relax([structure])
        seconds.append(time.perf_counter() - began)
    ratio = np.median(seconds) / (benchmark.stats["median"] / len(structures))
    benchmark.extra_info |= {"structures": len(structures), "times_faster": round(float(ratio), 1)}
    assert ratio > 1
