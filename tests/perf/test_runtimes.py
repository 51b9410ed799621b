"""Other runtimes than torch for the T5, as ratios in one run, where they are installed.

    pip install onnx onnxruntime ctranslate2 && make perf

ONNX Runtime runs the encoder; CTranslate2 decodes greedily without a grammar. Tokens that the input
determines in the middle of a text, and medians in place of the likeliest token, are nothing that
CTranslate2's generation can be told, so that the constrained decoding has no counterpart there.
"""

import time

import numpy as np
import pytest
import torch

from benchmarks.core import Geometry
from benchmarks.data import load
from t2relax.data.token_dataset import pad
from t2relax.lm.decoding import decode_free, encode
from t2relax.relaxer import TextRelaxer
from t2relax.text.codec import Crystal
from t2relax.text.tokens import PAD_ID

pytestmark = [
    pytest.mark.perf,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
]

MANY, BATCH, LONGEST, ROUNDS = 256, 64, 400, 5


@pytest.fixture(scope="module")
def relaxer():
    return TextRelaxer()


@pytest.fixture(scope="module")
def sources(shared_data, relaxer):
    """Token ids of real starting structures, by length."""
    data = load(str(shared_data / "substitution" / "val.parquet"), limit=MANY)
    texts = [
        relaxer.language_model.tokenizer.source(Crystal.of(Geometry.of(sample.initial)))
        for sample in data
    ]
    return sorted(texts, key=len)


def batches(sources, size=BATCH):
    return [sources[first : first + size] for first in range(0, len(sources), size)]


def seconds(work):
    """The median of `ROUNDS`, after one that does not count."""
    took = []
    for _ in range(1 + ROUNDS):
        began = time.perf_counter()
        work()
        took.append(time.perf_counter() - began)
    return float(np.median(took[1:]))


class Encoder(torch.nn.Module):
    def __init__(self, stack):
        super().__init__()
        self.stack = stack

    def forward(self, ids, mask):
        return self.stack(input_ids=ids, attention_mask=mask).last_hidden_state


def exported(model, path):
    """The encoder in a file that ONNX Runtime reads."""
    ids = torch.ones(2, 16, dtype=torch.long)
    axes = {"ids": {0: "n", 1: "length"}, "mask": {0: "n", 1: "length"}}
    torch.onnx.export(
        Encoder(model.encoder).eval(),
        (ids, torch.ones_like(ids)),
        path,
        input_names=list(axes),
        output_names=["hidden"],
        dynamic_axes=axes | {"hidden": {0: "n", 1: "length"}},
        dynamo=False,
    )


@torch.inference_mode()
def test_encoder_against_onnxruntime(benchmark, relaxer, sources, tmp_path):
    pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    exported(relaxer.language_model.model, tmp_path / "encoder.onnx")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(tmp_path / "encoder.onnx", options)

    def other(size):
        padded = [pad(batch, PAD_ID) for batch in batches(sources, size)]
        return [
            session.run(None, {"ids": ids, "mask": (ids != PAD_ID).astype(np.int64)})[0]
            for ids in padded
        ]

    ours = benchmark.pedantic(
        lambda: [encode(relaxer.language_model.model, batch) for batch in batches(sources)],
        rounds=ROUNDS,
        warmup_rounds=1,
    )
    theirs = other(BATCH)
    for (hidden, present), found in zip(ours, theirs, strict=True):
        assert np.allclose(hidden[present], found[present.numpy()], atol=1e-4)
    best = min(seconds(lambda size=size: other(size)) for size in (8, 16, BATCH))
    ratio = best / benchmark.stats["median"]
    benchmark.extra_info |= {"structures": len(sources), "times_faster": round(ratio, 2)}


@torch.inference_mode()
def test_free_decoding_against_ctranslate2(benchmark, relaxer, sources, tmp_path):
    ctranslate2 = pytest.importorskip("ctranslate2")
    from ctranslate2.converters.transformers import T5Loader

    config, words = (
        relaxer.language_model.model.config,
        list(relaxer.language_model.tokenizer.vocabulary),
    )
    words += [f"<{i}>" for i in range(config.vocab_size - len(words))]
    spec = T5Loader().get_model_spec(relaxer.language_model.model)
    spec.register_source_vocabulary(words)
    spec.register_target_vocabulary(words)
    spec.config.decoder_start_token = words[config.decoder_start_token_id]
    spec.config.eos_token = words[config.eos_token_id]
    spec.config.add_source_eos = spec.config.add_source_bos = False
    spec.validate()
    spec.optimize(quantization=None)
    spec.save(str(tmp_path))
    translator = ctranslate2.Translator(
        str(tmp_path), intra_threads=torch.get_num_threads(), compute_type="float32"
    )
    texts = [[words[token] for token in source] for source in sources]

    def other():
        settings = {"beam_size": 1, "max_decoding_length": LONGEST}
        found = [translator.translate_batch(batch, **settings) for batch in batches(texts)]
        return [result.hypotheses[0] for batch in found for result in batch]

    ours = benchmark.pedantic(
        lambda: [
            ids
            for b in batches(sources)
            for ids in decode_free(relaxer.language_model.model, b, LONGEST)
        ],
        rounds=ROUNDS,
        warmup_rounds=1,
    )
    same = [
        [words[token] for token in ids[:-1]] == found
        for ids, found in zip(ours, other(), strict=True)
    ]
    ratio = seconds(other) / benchmark.stats["median"]
    benchmark.extra_info |= {"structures": len(sources), "times_faster": round(ratio, 2)}
    benchmark.extra_info |= {"same_text": float(np.mean(same))}
    assert np.mean(same) > 0.9
