"""Libraries that keep the grammar of a target over the subwords of a published tokenizer.

    T2_TOKENIZER=tokenizer.json python -m pytest -m perf tests/perf/test_grammars.py

The file is that of a model of the hub; llguidance is what `t2relax.lm.subwords` takes, xgrammar and
outlines-core are what it is compared with. Each library reads the vocabulary, makes the grammar of
a crystal, and follows the true target token by token; times are seconds of the processor.
"""

import os
import time

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode

from t2relax.text.codec import Crystal, Delta, write_delta
from t2relax.text.grammar import target_pattern

pytestmark = pytest.mark.perf
CRYSTALS = 3


def of_llguidance(fast):
    """A function that makes the grammar of a pattern: it gives (is allowed, consume)."""
    llguidance = pytest.importorskip("llguidance")
    from llguidance.hf import from_tokenizer

    vocabulary = from_tokenizer(fast)

    def grammar(pattern):
        matcher = llguidance.LLMatcher(vocabulary, llguidance.LLMatcher.grammar_from_regex(pattern))
        allowed = lambda i: matcher.compute_bitmask()[i >> 3] >> (i & 7) & 1  # noqa: E731
        return allowed, matcher.consume_token

    return grammar


def of_xgrammar(fast):
    """The same."""
    xgrammar = pytest.importorskip("xgrammar")
    info = xgrammar.TokenizerInfo.from_huggingface(fast)
    compiler = xgrammar.GrammarCompiler(info, max_threads=1, cache_enabled=False)

    def grammar(pattern):
        matcher = xgrammar.GrammarMatcher(compiler.compile_regex(pattern))
        mask = xgrammar.allocate_token_bitmask(1, info.vocab_size)

        def allowed(i):
            matcher.fill_next_token_bitmask(mask)
            return int(mask[0, i >> 5]) >> (i & 31) & 1

        return allowed, matcher.accept_token

    return grammar


def of_outlines(fast):
    """The same."""
    outlines = pytest.importorskip("outlines_core")
    byte_of, ids = {c: b for b, c in bytes_to_unicode().items()}, {}
    for token, i in fast.get_vocab().items():
        if set(token) <= set(byte_of) and i != fast.eos_token_id:
            ids.setdefault(bytes(byte_of[c] for c in token), []).append(i)
    vocabulary = outlines.Vocabulary(fast.eos_token_id, ids)

    def grammar(pattern):
        guide = outlines.Guide(outlines.Index(pattern, vocabulary))
        return lambda i: i in guide.get_tokens(), lambda i: guide.advance(i) is not None

    return grammar


def target(n_sites, seed):
    """The atomic numbers of a crystal, and a target for it."""
    rng = np.random.default_rng(seed)
    numbers = rng.choice([11, 17, 22, 8, 26], n_sites).astype(np.int16)
    cell = np.array([*rng.uniform(4, 9, 3), *rng.uniform(80, 100, 3)])
    delta = Delta(rng.normal(0, 0.1, 6), rng.normal(0, 0.02, (n_sites, 3)))
    return numbers, write_delta(delta, Crystal(cell, rng.random((n_sites, 3)), numbers))


@pytest.mark.parametrize("n_sites", [2, 8, 16])
@pytest.mark.parametrize("library", [of_llguidance, of_xgrammar, of_outlines])
def test_a_grammar_over_subwords(benchmark, library, n_sites):
    if not (file := os.environ.get("T2_TOKENIZER")):
        pytest.skip("T2_TOKENIZER names no tokenizer.json of the hub")
    fast = PreTrainedTokenizerFast(tokenizer_file=file)
    fast.eos_token = fast.convert_ids_to_tokens(len(fast) - 1)
    began = time.process_time()
    grammar = library(fast)
    vocabulary, made, steps = time.process_time() - began, [], []
    for seed in range(CRYSTALS):
        numbers, text = target(n_sites, seed)
        began = time.process_time()
        allowed, consume = grammar(target_pattern(numbers))
        made.append(time.process_time() - began)
        for i in fast(text, add_special_tokens=False).input_ids:
            began = time.process_time()
            assert allowed(i)
            assert consume(i)
            steps.append(time.process_time() - began)
    benchmark.extra_info |= {
        "vocabulary_s": round(vocabulary, 2),
        "grammar_ms": round(1e3 * float(np.median(made)), 1),
        "token_us": round(1e6 * float(np.median(steps)), 1),
    }
    benchmark.pedantic(lambda: None, rounds=1)
