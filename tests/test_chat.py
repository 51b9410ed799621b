"""Prompted models: what is asked, what is made of an answer, and what a server's faults cost."""

import json
import random
import re
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from pymatgen.core import Lattice, Structure

from benchmarks.core import Geometry, RelaxSettings, Status, UnavailableError
from benchmarks.core.geometry import cell_parameters
from benchmarks.models.registry import decoding_identity, find_weights, resolve
from benchmarks.run import main
from benchmarks.store import read_run
from benchmarks.store.records import Record, table_of
from benchmarks.testing import check_mirrored, check_relaxer, sample_structures
from leaderboard.site.model_page import _asked
from tests import tiny
from tests.chat_server import VERSION, chatting
from tests.conftest import one_line

pytest.importorskip("openai", reason="needs the extra chat")

from t2relax.chat import server as server_module
from t2relax.chat.answers import AnswerFile, read_answer, token_counts
from t2relax.chat.chat_relaxer import ChatRelaxer, forecast, identity
from t2relax.chat.questions import ExamplePool, cif_of, messages, token_bound
from t2relax.chat.server import Reply, Server, is_loopback

KEY = "sk-test-0123456789abcdef"


def salt(a=5.64, second="Cl"):
    """Rock salt as a primitive cubic pair, so that texts are short."""
    return Structure(Lattice.cubic(a), ["Na", second], [[0, 0, 0], [0.5, 0.5, 0.49]])


SALT = Geometry.of(salt())
EXPANDED = """data_crystal
_space_group_name_H-M_alt 'P 1'
_cell_length_a 5.7000
_cell_length_b 5.7000
_cell_length_c 5.7000
_cell_angle_alpha 90.0000
_cell_angle_beta 90.0000
_cell_angle_gamma 90.0000
loop_
_atom_site_type_symbol
_atom_site_label
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
Na Na1 0.00000 0.00000 0.99000
Cl Cl2 0.50000 0.50000 0.50000"""


def expand(question):
    """Answer with the same crystal, its lengths larger by 1 %."""
    cif = question[question.index("data_") :]
    return re.sub(r"(_cell_length_\w) (\S+)", lambda m: f"{m[1]} {1.01 * float(m[2]):.4f}", cif)


@pytest.fixture(autouse=True)
def _no_key_and_no_waits(monkeypatch):
    for name in ("OPENAI_API_KEY", "CHAT_API_KEY", "OPENAI_ORG_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(server_module, "FIRST_WAIT", 0.001)


@pytest.fixture
def chat():
    with chatting(expand) as server:
        yield server


def relaxer(server, *, timeout=60.0, seed=0, **about):
    settings = RelaxSettings(timeout=timeout, seed=seed)
    return ChatRelaxer(model="toy", url=server.url, settings=settings, **about)


def outcome(server, text=None, *, timeout=60.0, **about):
    if text is not None:
        server.reply = lambda _: text
    return relaxer(server, timeout=timeout, **about).relax([salt()])[0]


def test_the_question_is_the_instruction_and_the_cif():
    (turn,) = messages(SALT, [])
    assert turn.role == "user"
    assert "Write the CIF and nothing else.\n\ndata_crystal\n" in turn.content
    wanted = EXPANDED.replace("5.7000", "5.6400").replace("0.99000", "0.00000")
    assert cif_of(SALT) == wanted.replace("0.50000 0.50000 0.50000", "0.50000 0.50000 0.49000")


def test_an_answer_is_read_in_the_orientation_of_the_question(chat):
    found = outcome(chat, EXPANDED)
    assert found.status is Status.OK
    assert found.n_tokens == 300
    assert found.detail == EXPANDED
    assert np.abs(found.structure.lattice.matrix - 5.7 * np.eye(3)).max() < 1e-12
    # 0.99 of a site that was at 0 is a step back, and not nearly a whole cell
    wanted = [[0.0, 0.0, -0.01], [0.5, 0.5, 0.5]]
    assert np.abs(found.structure.frac_coords - wanted).max() < 1e-12
    turn = np.array([[0.0, 0.0, -1.0], [0.6, 0.8, 0.0], [0.8, -0.6, 0.0]])
    for rotation in (turn, -turn):  # the second cell is left-handed
        turned = SALT._replace(lattice=SALT.lattice @ rotation)
        geometry, problem = read_answer(EXPANDED, turned)
        assert problem == ""
        assert np.abs(geometry.lattice - 5.7 * rotation).max() < 1e-9


def test_a_prompted_model_keeps_the_contract(chat):
    made = relaxer(chat, requests=3)
    outcomes = check_relaxer(made, tolerance=1e-9)
    assert {each.status for each in outcomes} == {Status.OK}
    for structure, each in zip(sample_structures(), outcomes, strict=True):
        before, after = (cell_parameters(x.lattice.matrix) for x in (structure, each.structure))
        assert np.abs(after - before * [1.01, 1.01, 1.01, 1, 1, 1]).max() < 2e-4
    check_mirrored(made, sample_structures(), outcomes)


@pytest.mark.parametrize(
    "text",
    [
        f"Sure! Here is the relaxed structure:\n\n{EXPANDED}\n\nLet me know if you want more!",
        f"```cif\n{EXPANDED}\n```",
        f"The cell expands.\n```\n{EXPANDED}\n```\nThe forces vanish: 0.0 eV/Å now.",
        f"~~~\n{EXPANDED}",
        f"<think>\n{cif_of(SALT)}\nHmm, larger.</think>\n\n{EXPANDED}",
        f"Before:\n```cif\n{cif_of(SALT)}\n```\nAfter:\n```cif\n{EXPANDED}\n```\n```py\nexit()\n```",
        EXPANDED.replace("\n", "\r\n"),
        EXPANDED.replace("data_crystal\n", ""),
        EXPANDED.replace("loop_", "\nloop_").replace("Cl Cl2", "\nCl Cl2") + "\n#END\n",
        "\n".join(f"    {line}" for line in EXPANDED.splitlines()),
        EXPANDED.replace("5.7000", "5.7000(3)"),
    ],
    ids=["prose", "fence", "fence in prose", "open fence", "thoughts", "two", "windows",
         "no header", "blank lines", "indented", "uncertain"],
)  # fmt: skip
def test_prose_and_fences_around_a_cif_are_left_out(text):
    geometry, problem = read_answer(text, SALT)
    assert problem == ""
    assert geometry.numbers.tolist() == [11, 17]
    assert np.abs(geometry.lattice - 5.7 * np.eye(3)).max() < 1e-12
    assert np.abs(geometry.frac_coords - [[0, 0, -0.01], [0.5, 0.5, 0.5]]).max() < 1e-12


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        (EXPANDED.replace("Cl", "Br"), [11, 35]),
        (EXPANDED.rpartition("\n")[0], [11]),
        (EXPANDED + "\nO O3 0.25 0.25 0.25", [11, 17, 8]),
        (EXPANDED.replace("Na Na1", "Cl X").replace("Cl Cl2", "Na Y"), [17, 11]),
    ],
    ids=["other element", "atom lost", "atom added", "other order"],
)
def test_another_crystal_is_invalid_and_kept_for_the_validity_ladder(chat, text, numbers):
    found = outcome(chat, text)
    assert found.status is Status.INVALID
    assert found.detail == (
        f"the CIF lists other atoms than the question's, or in another order\n{text}"
    )
    assert [site.specie.Z for site in found.structure] == numbers


REFUSAL = "I'm sorry, I cannot help with that."


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "the text is empty"),
        ({"content": None}, "the text is empty"),
        ({"content": None, "refusal": REFUSAL}, "the model refuses: no CIF is in the text"),
        ({"finish": "content_filter"}, "the model refuses: the text is empty"),
        (REFUSAL, "no CIF is in the text"),
        (
            {"content": EXPANDED[:90], "finish": "length"},
            "the answer was cut off at 4096 tokens: ",
        ),
        (EXPANDED.replace("5.7000", "nan"), "no cell has the parameters"),
        (EXPANDED.replace("90.0000", "180"), "no cell has the parameters"),
        (EXPANDED.replace("5.7000", "1e999"), ""),
        (EXPANDED.replace("0.50000", "1e999"), ""),
        (EXPANDED.replace("'P 1'", "'P 1"), ""),
        (EXPANDED.replace("data_crystal", "data_x\n;\n'''\"\"\"'\"`$(exit 3)`"), ""),
        (f"{EXPANDED.rpartition(chr(10))[0]}\nCl Cl2 0.5 0.5 __import__('os')", ""),
        ("\x00\x1b[31m\x07\u202e\ud800" + "'\"" * 5000, "no CIF is in the text"),
        ("```" * 100_000, "no CIF is in the text"),
        ("_cell_length_a " + "_" * 500_000, "a CIF of "),
        ("_cell_length_a\n" * 60_000, "a CIF of "),
        ("\n".join([EXPANDED, *["Na Na1 0.1 0.1 0.1"] * 40_000]), "a CIF of "),
        ("loop_\n" * 3000 + "_cell_length_a 1", ""),
    ],
)  # fmt: skip
def test_a_text_without_a_crystal_is_invalid_whatever_it_is(chat, tmp_path, text, reason):
    begin = time.monotonic()
    found = outcome(chat, text if not isinstance(text, dict) else {"content": "", **text})
    assert time.monotonic() - begin < 5
    assert found.status is Status.INVALID or "atom" in found.detail
    assert found.detail.startswith(reason)
    assert len(found.detail) < 21_000
    record = Record(model="m", sample_id="s", repeat=0, status=found.status, batch_id=0,
                    batch_size=1, batch_seconds=1.0, detail=found.detail)  # fmt: skip
    pq.write_table(table_of([record]), tmp_path / "part.parquet")


def test_no_text_breaks_the_reader():
    rng = random.Random(0)
    letters = [*"\n\n ;'\"_#.-0159Na()`\\\x00é", "loop_", "data_", "_atom_site_fract_x"]
    n_read = 0
    for _ in range(300):
        text = list(EXPANDED)
        for _ in range(rng.choice((1, 2, 5, 40))):
            at = rng.randrange(len(text))
            text[at : at + rng.randrange(4)] = rng.choices(letters, k=rng.randrange(3))
        geometry, problem = read_answer("".join(text), SALT)
        assert (geometry is None) == bool(problem)
        assert "\n" not in problem
        n_read += geometry is not None
    assert 30 < n_read < 270


def test_a_long_text_is_cut_in_the_record_and_whole_in_the_file(chat, tmp_path):
    text = f"{'Well. ' * 10_000}\n{EXPANDED}"
    kept = tmp_path / "toy.answers.jsonl"
    found = outcome(chat, text, answers=str(kept))
    assert found.status is Status.OK
    assert found.detail == f"{text[:20_000]}\n… ({len(text)} characters)"
    (line,) = kept.read_text().splitlines()
    assert json.loads(line)["text"] == text


# --- faults of the server ---


@pytest.mark.parametrize(
    "fault", [(429, {"Retry-After": "0.05"}, {}), 408, 500, 502, 503, 529, "cut"], ids=str
)
def test_a_fault_that_passes_is_tried_again(chat, fault):
    chat.faults = [fault, fault]
    begin = time.monotonic()
    assert outcome(chat).status is Status.OK
    assert len(chat.requests) == 3
    assert time.monotonic() - begin > (0.1 if isinstance(fault, tuple) else 0.0)


@pytest.mark.parametrize(
    ("fault", "status", "words", "n_asked"),
    [
        (500, Status.ERROR, "the server answered with status 500 (fault 500)", 5),
        ("cut", Status.ERROR, "the connection broke 5 times, the last with ", 5),
        (400, Status.ERROR, "the server answered with status 400 (fault 400)", 1),
        (
            (400, {}, {"error": {"message": "maximum context length is 8 tokens"}}),
            Status.UNSUPPORTED,
            "the server answered with status 400 (maximum context length is 8 tokens)",
            1,
        ),
        (b"<html>\nhello</html>", Status.ERROR, "the server's reply is none of a chat: <html>", 1),
        (b'{"choices": []}', Status.ERROR, "the server's reply is none of a chat: {", 1),
        (b'{"choices": [{"message": 3}]}', Status.ERROR, "the server's reply is none", 1),
        (b"[" * 100_000, Status.ERROR, "the server's reply is none of a chat: [[", 1),
        (b"x" * (2**20 + 1), Status.INVALID, "a reply of more than 1048576 bytes", 1),
    ],
    ids=["500", "cut", "400", "context", "html", "empty", "wrong", "deep", "huge"],
)  # fmt: skip
def test_a_fault_of_one_request_is_the_outcome_of_its_structure(
    chat, fault, status, words, n_asked
):
    chat.always = fault
    found = outcome(chat)
    assert (found.status, found.structure) == (status, None)
    assert found.detail.startswith(words)
    assert len(chat.requests) == n_asked


@pytest.mark.parametrize("fault", ["silent", "drip"])
def test_silence_ends_with_the_time_limit(chat, fault):
    chat.always = fault
    begin = time.monotonic()
    found = outcome(chat, timeout=0.3)
    assert time.monotonic() - begin < 3
    assert (found.status, found.detail) == (
        Status.RESOURCE, "the server gave no answer within 0.27 s",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (401, "it refuses a request without key (CHAT_API_KEY) (fault 401)"),
        (404, "it has no model toy, or its URL ends otherwise (fault 404)"),
        (402, "the account has no credit left (fault 402)"),
        (
            (429, {}, {"error": {"message": "Pay!", "code": "insufficient_quota"}}),
            "the account has no credit left (Pay!)",
        ),
        (
            (302, {"Location": "http://127.0.0.2:9/v1"}, {}),
            "it sends to another address: give that",
        ),
        ((429, {"Retry-After": "3600"}, {}), "status 429, 1 times within 0.9 s"),
        ((429, {"Retry-After": "Fri, 01 Jan 2999 00:00:00 GMT"}, {}), "status 429, 1 times within"),
        ((503, {"Retry-After": "soon"}, {}), "status 503, "),
    ],
    ids=["401", "404", "402", "quota", "redirect", "long wait", "date", "503"],
)
def test_a_server_that_cannot_be_asked_ends_the_run(chat, fault, words):
    chat.always = fault
    with pytest.raises(UnavailableError) as caught:
        outcome(chat, timeout=1.0)
    assert str(caught.value).startswith(f"toy at {chat.url} cannot be asked: {words}")


def test_a_server_that_is_not_there_ends_the_run(chat):
    with chatting(expand) as gone:
        pass
    with pytest.raises(UnavailableError, match=r"cannot be asked: ConnectError"):
        outcome(gone, timeout=0.2)
    one_line(lambda: identity(model="toy", url="http://127.0.0.1:1/v1"), "toy", "cannot be asked")


def test_as_many_requests_as_wanted_go_out_at_a_time(chat):
    chat.seconds = 0.2
    structures = [salt(5.0 + 0.1 * i) for i in range(6)]
    found = relaxer(chat, requests=3).relax(structures)
    assert chat.busiest == 3
    lengths = [each.structure.lattice.a for each in found]
    assert np.abs(np.array(lengths) - 1.01 * (5.0 + 0.1 * np.arange(6))).max() < 1e-3


# --- the key ---


def test_the_key_goes_into_one_header_and_is_blotted_out_of_what_comes_back(chat, monkeypatch):
    monkeypatch.setenv("CHAT_API_KEY", f"{KEY}\n")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-mine")
    found = outcome(chat, f"Your key is {KEY}.\n{EXPANDED}")
    assert chat.headers[-1]["authorization"] == f"Bearer {KEY}"
    assert "org-mine" not in str(chat.headers)
    assert found.detail == f"Your key is [key].\n{EXPANDED}"
    for status in (400, 401, 500):
        chat.always = (status, {}, {"error": {"message": f"bad key {KEY}"}})
        try:
            said = outcome(chat).detail
        except UnavailableError as error:
            said = str(error)
        assert "bad key [key]" in said
    chat.always = KEY.encode()
    assert outcome(chat).detail == "the server's reply is none of a chat: [key]"


def test_openais_key_goes_to_openai_alone(chat, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    outcome(chat)
    assert KEY not in str(chat.headers)


def test_a_key_that_cannot_be_one_is_not_said(monkeypatch):
    one_line(lambda: Server("toy", server_module.API), "OPENAI_API_KEY is not set")
    monkeypatch.setenv("OPENAI_API_KEY", f"{KEY}\r\nX: y")
    text = one_line(lambda: Server("toy", server_module.API), "OPENAI_API_KEY holds a space")
    assert KEY[:6] not in text


@pytest.mark.parametrize(
    ("url", "here"),
    [
        ("http://127.0.0.1:8000/v1", True),
        ("http://localhost/v1", True),
        ("http://[::1]:80/v1", True),
        ("http://127.9.9.9", True),
        ("https://api.openai.com/v1", False),
        ("http://localhost.example.com/v1", False),
        ("http://10.0.0.1/v1", False),
        ("http://0.0.0.0/v1", False),
    ],
)
def test_offline_asks_this_machine_alone(url, here):
    assert is_loopback(url) is here
    spec = resolve(f"m=chat:toy@{url}")
    if here:
        assert find_weights(spec, offline=True) == ()
    else:
        one_line(lambda: find_weights(spec, offline=True), "m asks a server elsewhere: leave out")
    assert find_weights(spec, offline=False) == ()


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("toy@localhost:8000/v1", "'toy@localhost:8000/v1': write MODEL or MODEL@URL"),
        ("toy@ftp://x", "'toy@ftp://x': write MODEL or MODEL@URL"),
        ("a b", "'a b': write MODEL or MODEL@URL"),
        ("toy@http://", "m: its URL names no server"),
        ("toy@http://x:99999/v1", "m: its URL names no server"),
        ("toy@https://me:hush@x/v1", "m: its URL is stored with the run: put a key into the"),
        ("toy@https://x/v1?key=hush", "m: its URL is stored with the run: put a key into the"),
    ],
)
def test_a_name_that_no_server_can_have_is_refused(where, words):
    text = one_line(lambda: resolve(f"m=chat:{where}"))
    assert text.startswith(words.replace("run:", "run;"))
    assert "hush" not in text


def test_a_spec_says_what_is_asked_and_how():
    spec = resolve(
        "m=chat:@cf/some/model:8b@http://h:1/v1/", prompting={"shots": 2, "temperature": 0.7}
    )
    assert spec.kwargs == {
        "model": "@cf/some/model:8b", "url": "http://h:1/v1", "shots": 2, "temperature": 0.7,
    }  # fmt: skip
    assert spec.label == "@cf/some/model:8b, prompted, 2 examples"
    assert (spec.family, spec.extra, spec.honours) == ("llm", "chat", ("offline", "seed"))
    assert resolve("m=chat:toy").honours == ("offline",)


# --- examples ---


def test_examples_are_the_nearest_compositions_and_never_the_same():
    pool = ExamplePool.of("embedded")
    assert pool.source == "embedded-v1"
    train = dict(zip(pool.compositions, pool.examples, strict=True))
    assert len(pool.examples) > 40
    asked = Geometry.of(salt(second="Br"))
    chosen = pool.choose(asked, 4, "nearest")
    assert len(chosen) == 4
    names = [next(name for name, each in train.items() if each == one) for one in chosen]
    assert "Na1 Br1" not in names
    halides = {"F", "Cl", "Br", "I"}
    assert halides & set(re.findall("[A-Z][a-z]?", names[-1]))  # the nearest comes last
    fixed = pool.choose(asked, 3, "fixed")
    assert fixed == pool.choose(SALT, 3, "fixed")
    for name, example in train.items():
        symbol, count = re.findall(r"([A-Z][a-z]?)(\d+)", name)[0]
        assert example.initial.count(f"\n{symbol} {symbol}") % int(count) == 0
        geometry, problem = read_answer(example.final, Geometry.of(salt()))
        assert problem == ""
        own = pool.choose(geometry, len(train), "nearest")
        assert example not in own
    turns = messages(asked, chosen)
    assert [turn.role for turn in turns] == ["user", "assistant"] * 4 + ["user"]
    assert turns[-1].content == cif_of(asked)
    assert turns[7].content == chosen[3].final


def test_examples_stand_in_the_request(chat):
    outcome(chat, shots=2)
    (request,) = chat.requests
    assert len(request["messages"]) == 5
    assert request["temperature"] == 0.0
    assert request["max_tokens"] == 4096
    assert "seed" not in request


# --- what is kept ---


def test_a_reply_that_is_kept_is_not_asked_for_again(chat, tmp_path):
    kept = tmp_path / "toy.answers.jsonl"
    first = outcome(chat, answers=str(kept))
    with kept.open("a") as file:
        file.write('\n{"request": "half a li')
    again = outcome(chat, answers=str(kept))
    assert again == replace(first, structure=again.structure)
    assert len(chat.requests) == 1
    relaxer(chat, answers=str(kept)).relax([salt(4.0)])
    relaxer(chat, answers=str(kept), seed=1).relax([salt(4.0)])  # another sample of a repeat
    assert len(chat.requests) == 3
    lines = [line for line in kept.read_text().splitlines() if line.endswith("}")]
    assert len(lines) == 3
    assert set(json.loads(lines[0])) == {
        "request", "seconds", "text", "version", "finish", "prompt_tokens", "completion_tokens",
        "refused",
    }  # fmt: skip
    assert AnswerFile(kept).version == VERSION


def test_two_workers_may_keep_replies_in_one_file(tmp_path):
    kept = tmp_path / "toy.answers.jsonl"
    reply = Reply("x" * 20_000, VERSION, "stop", 7, 3)
    files = [AnswerFile(kept), AnswerFile(kept)]
    with ThreadPoolExecutor(2) as pool:
        for file, name in zip(files, "ab", strict=True):
            for i in range(10):
                pool.submit(file.keep, f"{name}{i}", reply, 1.0)
    assert token_counts(kept) == {"replies": 20, "prompt_tokens": 140, "completion_tokens": 60}
    again = AnswerFile(kept)
    assert all(again.get(f"{name}{i}") == reply for name in "ab" for i in range(10))


def test_another_version_of_the_model_ends_the_run(chat, tmp_path):
    kept = str(tmp_path / "toy.answers.jsonl")
    outcome(chat, answers=kept)
    chat.version = "toy-2"
    with pytest.raises(UnavailableError, match=rf"answers as 'toy-2', .* of '{VERSION}': begin"):
        relaxer(chat, answers=kept).relax([salt(4.0)])


def test_the_identity_is_what_decides_the_answers(chat):
    asked = resolve(f"m=chat:toy@{chat.url}", prompting={"shots": 2, "price": (1.0, 2.0)})
    facts = decoding_identity(asked)["m"]
    digest = facts.pop("prompt_sha256")
    assert re.fullmatch("[0-9a-f]{64}", digest)
    revision = facts["examples"][1]
    assert facts == {
        "model": "toy", "served": VERSION, "temperature": 0.0, "max_tokens": 4096, "shots": 2,
        "examples": ["embedded-v1", revision, "nearest"],
    }  # fmt: skip
    plain = identity(model="toy", url=chat.url, temperature="server")
    assert plain["temperature"] == "server"
    assert plain["prompt_sha256"] != digest
    assert "examples" not in plain
    assert chat.requests == []  # beside the one question for the version


def test_a_forecast_counts_tokens_and_cost_and_sends_nothing(chat):
    assert token_bound("Na1 0.12") == 7  # Na 1 ␣ 0 . 1 2
    text = forecast([SALT, SALT], 2, model="toy", url=chat.url, price=(1.0, 10.0), max_tokens=1000)
    n_in = 4 * (token_bound(messages(SALT, [])[0].content) + 8)
    n_out = 4 * token_bound(cif_of(SALT))
    assert text == (
        f"4 requests to {chat.url}, 8 at a time, key from CHAT_API_KEY: up to {n_in} tokens in, "
        f"about {n_out} out (never more than 4000), which costs about "
        f"{(n_in + 10 * n_out) / 1e6:.4g} (never more than {(n_in + 40_000) / 1e6:.4g})"
    )
    assert chat.headers == []


# --- the command ---


N = 6


@pytest.fixture
def command(tmp_path, chat, lemat_frame, write_lemat, monkeypatch):
    """A run of six crystals against the server; it returns the exit status."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("CHAT_API_KEY", KEY)
    frames = [
        lemat_frame(salt(5.0 + 0.1 * i + 0.05 * step), f"mp-{i}", step)
        for i in range(N)
        for step in (0, 1)
    ]
    data = str(write_lemat(tmp_path / "cells.parquet", frames))

    def run(*options, model="toy"):
        where = ["--data", data, "--out", str(tmp_path / "runs")]
        return main(["--models", f"row=chat:{model}@{chat.url}", *where, *options])

    return run


@pytest.mark.slow
def test_a_run_against_a_server_is_a_row(chat, command, tmp_path, capsys):
    options = ("--requests", "2", "--price", "1,10", "--offline")
    assert command(*options) == 0
    said = capsys.readouterr()
    assert "row: 6 replies, 4200 prompt_tokens, 1800 completion_tokens, 0.0222 cost" in said.err
    assert "row" in said.out
    out = tmp_path / "runs"
    stored = read_run(out / "row")
    assert len(chat.requests) == N  # no warm-up is paid for
    assert {record.status for record in stored.records} == {Status.OK}
    assert {record.n_tokens for record in stored.records} == {300}
    assert {record.batch_size for record in stored.records} == {2}
    assert all(record.detail.startswith("data_crystal") for record in stored.records)
    assert stored.identity["decoding"]["row"]["served"] == VERSION
    assert stored.identity["label"] == "toy, prompted, no examples"
    assert stored.provenance["spent"] == {
        "row": {"replies": 6, "prompt_tokens": 4200, "completion_tokens": 1800, "cost": 0.0222}
    }
    kept = out / "row" / "shard-0000" / "row.answers.jsonl"
    assert len(kept.read_text().splitlines()) == N
    assert KEY not in said.err + said.out
    for path in filter(lambda path: path.is_file(), out.rglob("*")):
        assert KEY.encode() not in path.read_bytes(), path
    assert command(*options) == 0
    assert "row: all 6 there already" in capsys.readouterr().err
    assert len(chat.requests) == N
    chat.version = "toy-2"
    assert command(*options) == 2
    assert "decoding" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_that_a_server_ended_goes_on_where_it_was(chat, command, tmp_path, capsys):
    chat.faults = [None] * 4  # the version, and three answers
    chat.always = 401
    assert command("--requests", "1") == 1
    assert "it refuses the key of CHAT_API_KEY (fault 401)" in capsys.readouterr().err
    assert len(read_run(tmp_path / "runs" / "row").records) == 3
    chat.always = None
    assert command("--requests", "1") == 0
    assert len(chat.requests) == N + 1
    stored = read_run(tmp_path / "runs" / "row")
    assert [record.status for record in stored.records] == [Status.OK] * N
    assert stored.provenance["aborted"] is None
    took = {"replies": 6, "prompt_tokens": 4200, "completion_tokens": 1800}
    assert [segment["spent"]["row"]["replies"] for segment in stored.segments] == [3, 6]
    assert stored.provenance["spent"] == {"row": took}
    shards = [{"shard": name, "spent": {"row": took | {"cost": 0.5}}} for name in "ab"]
    both = replace(stored, segments=(*stored.segments[:1], *shards)).provenance["spent"]
    assert both["row"]["replies"] == 3 + 6 + 6
    assert _asked(both) == "15 replies, 10,500 tokens in, 4,500 tokens out, cost 1"


def test_mistakes_are_told_before_anything_is_sent(chat, command, capsys):
    assert command("--dry-run", "--price", "1,10") == 0
    said = capsys.readouterr()
    assert (
        "  row: toy, prompted, no examples; no weights; batches of 8\n    6 requests to" in said.out
    )
    assert "which costs about 0.0" in said.out
    assert main(["--models", "row=chat:toy", "--offline", "--dry-run"]) == 2
    assert capsys.readouterr().err == "error: row asks a server elsewhere: leave out --offline\n"
    assert main(["--models", "gbr", "--shots", "3", "--dry-run"]) == 2
    assert capsys.readouterr().err.startswith("error: --shots is for prompted models, LABEL=chat:")
    assert command("--shots", "3", "--shots-from", "no/such", "--dry-run") == 2
    assert "no/such" in capsys.readouterr().err
    assert chat.headers == []
    chat.always = 404
    assert command(model="tyo") == 2
    said = capsys.readouterr().err
    assert f"error: tyo at {chat.url} cannot be asked: it has no model tyo" in said
    for bad in (["--price", "1"], ["--price", "1,-1"], ["--temperature", "hot"], ["--shots", "0"]):
        with pytest.raises(SystemExit):
            command(*bad)


@pytest.mark.full
def test_a_local_checkpoint_behind_transformers_serve_is_a_row(tmp_path, monkeypatch):
    """The server of transformers[serving], with a model of one layer that writes no CIF."""
    for name in ("fastapi", "uvicorn", "torch"):
        pytest.importorskip(name, reason="needs transformers[serving]")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    folder = tiny.chat_checkpoint(tmp_path / "model")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(folder)]
    with subprocess.Popen([*command, "--device", "cpu", "--port", port]) as server:
        try:
            for _ in range(600):
                with suppress(OSError), socket.create_connection(("localhost", int(port))):
                    break
                time.sleep(0.5)
            name = f"tiny=chat:{folder}@http://localhost:{port}/v1"
            out = tmp_path / "runs"
            where = ["--limit", "3", "--max-tokens", "32", "--offline", "--out", str(out)]
            assert main(["--models", name, "--shots", "1", *where]) == 0
        finally:
            server.terminate()
    stored = read_run(out / "tiny")
    assert [record.status for record in stored.records] == [Status.INVALID] * 3
    assert {record.n_tokens for record in stored.records} == {32}
    assert all("cut off at 32 tokens" in record.detail for record in stored.records)
    assert stored.identity["decoding"]["tiny"]["served"].startswith(str(folder))


def test_the_workflow_parses_and_gives_inputs_to_the_shell_as_variables_only():
    path = Path(__file__).parents[1] / ".github" / "workflows" / "language-models.yml"
    workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert list(workflow[True]) == ["workflow_dispatch"]  # YAML's `on`
    assert workflow["permissions"] == {"contents": "read"}
    job = workflow["jobs"]["row"]
    assert job["runs-on"] == ["self-hosted", "gpu"]
    scripts = [step["run"] for step in job["steps"] if "run" in step]
    assert len(scripts) == 5
    for script in scripts:
        assert "${{" not in script
        assert "API_KEY" not in script
        subprocess.run(["bash", "-n", "-c", script], check=True)
    with_key = [step["name"] for step in job["steps"] if "secrets." in str(step)]
    assert with_key == ["ask"]
