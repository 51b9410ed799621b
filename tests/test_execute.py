"""Whatever one structure does to its worker, every other structure keeps its answer."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks.core import RelaxSettings, Status, UserError
from benchmarks.engine import process, worker
from benchmarks.engine.execute import Budget, Driver, RunLimits, run_model
from benchmarks.models.registry import ModelSpec
from benchmarks.store import table_of
from tests import toys

OK, ERROR, RESOURCE = Status.OK, Status.ERROR, Status.RESOURCE


def toy(cls, parts=(), batch_size=4, honours=(), **kwargs):
    return ModelSpec(
        name=cls.lower(),
        target=f"tests.toys:{cls}",
        kwargs=kwargs,
        honours=honours,
        family="hybrid" if parts else "trivial",
        label=cls,
        licence="MIT",
        batch_size=batch_size,
        parts=tuple(parts),
    )


def run(spec, sizes, tmp_path, **settings):
    """Run a toy over structures with so many sites each; records by size, and the outcome."""
    todo = [(f"s{size}", 0, toys.geometry(size)) for size in sizes]
    records = []
    outcome = run_model(
        spec,
        todo,
        settings=RelaxSettings(**settings),
        on_records=records.extend,
        log=tmp_path / "worker.log",
    )
    assert len({r.sample_id for r in records}) == len(records)
    return {int(r.sample_id[1:]): r for r in records}, outcome


def statuses(records):
    return {size: record.status for size, record in sorted(records.items())}


def test_answers_come_back_unchanged_and_timed(tmp_path):
    records, outcome = run(toy("ReturnsInput"), [1, 2, 3, 4, 5], tmp_path)
    assert statuses(records) == dict.fromkeys([1, 2, 3, 4, 5], OK)
    geometry = toys.geometry(3)
    assert np.array_equal(records[3].geometry.lattice, geometry.lattice)
    assert np.array_equal(records[3].geometry.frac_coords, geometry.frac_coords)
    assert np.array_equal(records[3].geometry.numbers, geometry.numbers)
    assert [records[n].batch_id for n in (1, 4, 5)] == [0, 0, 1]
    assert [records[n].batch_size for n in (1, 4, 5)] == [4, 4, 1]
    assert 0 < records[1].batch_seconds < 1
    assert outcome.aborted is None
    assert outcome.load_seconds > 0
    assert outcome.warmup_seconds > 0
    assert 10 < outcome.peak_memory_mb < 2000


def test_nothing_to_do_starts_nothing(tmp_path):
    records, outcome = run(toy("CannotLoad"), [], tmp_path)
    assert records == {}
    assert outcome.load_seconds is None
    assert outcome.aborted is None


@pytest.mark.parametrize(
    ("cls", "status", "detail"),
    [
        ("Raises", ERROR, "TypeError: no such orbital"),
        ("Exits", ERROR, "worker exited with status 3"),
        ("SegFaults", ERROR, "worker killed by SIGSEGV"),
        ("IsKilled", RESOURCE, "worker killed by SIGKILL (out of memory?)"),
        ("TooFew", ERROR, "ContractError: TooFew.relax gave 0 outcomes for 1"),
        ("NotRelaxed", ERROR, "ContractError: NotRelaxed.relax gave a NoneType, not a Relaxed"),
        (
            "LosesAnAtom",
            ERROR,
            "ContractError: LosesAnAtom.relax said ok with other sites than it was given",
        ),
    ],
)
def test_only_the_culprit_is_lost(cls, status, detail, tmp_path):
    records, outcome = run(toy(cls, bad=3), [1, 2, 3, 4, 5], tmp_path)
    assert statuses(records) == {1: OK, 2: OK, 3: status, 4: OK, 5: OK}
    assert records[3].detail == detail
    assert records[3].geometry is None
    assert records[4].batch_size == 1  # timed in the call that answered it
    assert outcome.aborted is None


@pytest.mark.parametrize(
    ("fields", "detail"),
    [
        ({"status": "fine"}, "gave the status 'fine', which is no Status"),
        ({"status": ["ok"]}, "gave the status ['ok'], which is no Status"),
        ({"detail": 7}, "gave a detail of type int, which is no text"),
        ({"detail": b"raw"}, "gave a detail of type bytes, which is no text"),
        ({"n_tokens": "7"}, "gave n_tokens '7', which is no count"),
        ({"n_tokens": 2**63}, f"gave n_tokens {2**63}, which is no count"),
        ({"n_force_evals": 1.5}, "gave n_force_evals 1.5, which is no count"),
        ({"n_force_evals": -5}, "gave n_force_evals -5, which is no count"),
        ({"energy": "low"}, "gave energy 'low', which is no float"),
        ({"max_force": 10**400}, f"gave max_force 1{'0' * 99}, which is no float"),
    ],
    ids=str,
)
def test_what_cannot_be_stored_is_no_answer(fields, detail):
    reply = worker.answer(toys.Answers(**fields), [toys.geometry(1)])
    assert (reply.status, reply.detail) == (ERROR, f"ContractError: Answers.relax {detail}")


def test_an_outcome_is_stored_whatever_its_texts_and_numbers_are(tmp_path):
    fields = {"detail": "\udce9" + "x" * 200_000, "n_tokens": np.int32(7), "energy": np.float32(1)}
    reply = worker.answer(toys.Answers(**fields), [toys.geometry(1)])
    (kept,) = reply.answers
    assert kept.outcome.detail == "?" + "x" * 99_999
    assert [type(kept.outcome.n_tokens), type(kept.outcome.energy)] == [int, float]
    records, _ = run(toy("RaisesUndecodable", bad=3), [1, 2, 3], tmp_path)
    assert statuses(records) == {1: OK, 2: OK, 3: ERROR}
    assert records[3].detail == "FileNotFoundError: caf?.npy" + "x" * 973
    assert table_of([*records.values()])["detail"].to_pylist()[2] == records[3].detail
    assert (tmp_path / "worker.log").stat().st_size < 100_000


def test_an_invalid_answer_of_very_many_sites_is_stored_without_them():
    reply = worker.answer(toys.TooManySites(), [toys.geometry(1)])
    assert [(each.outcome.status, each.geometry) for each in reply.answers] == [
        (Status.INVALID, None)
    ]


def test_a_model_that_leaks_memory_loses_no_structure(tmp_path):
    """A worker has memory for two structures beside the one that warms it up."""
    records, _ = run(toy("Leaks", calls=3, batch_size=1), [1, 2, 3, 4, 5], tmp_path)
    assert statuses(records) == dict.fromkeys([1, 2, 3, 4, 5], OK)


def test_a_structure_too_large_for_a_fresh_worker_is_tried_once(asked, tmp_path):
    records, _ = run(toy("Hungry", most=2, batch_size=1), [1, 2, 3, 4], tmp_path)
    assert statuses(records) == {1: OK, 2: OK, 3: RESOURCE, 4: RESOURCE}
    # one warms up each worker; 3 and 4 are each tried in the worker that is there, then in a fresh
    assert len(asked) == 3 + 2 + 2 * 2


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGSEGV])
def test_a_worker_that_somebody_kills_costs_no_structure(number, tmp_path):
    spec = toy(
        "DiesOnce", bad=3, batch_size=1, file=str(tmp_path / "died"), signal_number=int(number)
    )
    records, _ = run(spec, [1, 2, 3, 4], tmp_path)
    assert (tmp_path / "died").exists()
    assert statuses(records) == dict.fromkeys([1, 2, 3, 4], OK)


@pytest.mark.parametrize(
    ("data", "detail"),
    [
        (b"\0\0\0\5hello", "the worker's answer cannot be read (UnpicklingError)"),
        (b"\0\0\0\4N.N.", "the worker's answer cannot be read (NoneType)"),
        (b"hello", "the worker's answer broke off"),
    ],
)
def test_bytes_that_are_no_answer_cost_one_structure(data, detail, tmp_path, monkeypatch):
    monkeypatch.setattr(process, "_STALLED", 1)
    monkeypatch.setattr(process, "_GRACE", 0.1)
    records, _ = run(toy("WritesToSocket", bad=3, data=data), [1, 2, 3], tmp_path)
    assert statuses(records) == {1: OK, 2: OK, 3: ERROR}
    assert records[3].detail == detail


def test_a_log_is_bounded(tmp_path):
    run(toy("Prints", megabytes=20, batch_size=1), [1, 2], tmp_path)
    log = (tmp_path / "worker.log").read_bytes()
    assert 2 * 2**20 <= len(log) <= 2**24
    assert b"bytes are left out here" in log


def test_a_worker_that_holds_the_interpreter_ends_with_its_driver(tmp_path):
    file = tmp_path / "pid"
    code = f"""if True:
        from benchmarks.core import RelaxSettings
        from benchmarks.engine.execute import run_model
        from tests import test_execute, toys
        spec = test_execute.toy("HoldsTheInterpreter", bad=1, file={str(file)!r})
        todo = [("a", 0, toys.geometry(1))]
        run_model(spec, todo, settings=RelaxSettings(), on_records=print)"""
    driver = subprocess.Popen([sys.executable, "-c", code])
    try:
        for _ in range(600):
            if file.exists() and file.read_text():
                break
            time.sleep(0.05)
        time.sleep(0.1)  # now it is within C
        assert _alive(int(file.read_text()))
    finally:
        driver.kill()
        driver.wait()
    for _ in range(40):
        if not _alive(int(file.read_text())):
            break
        time.sleep(0.05)
    assert not _alive(int(file.read_text()))


def test_a_hanging_structure_is_ended_with_all_it_started(tmp_path):
    pids = tmp_path / "pids"
    begin = time.monotonic()
    spec = toy("HangsWithChild", bad=2, file=str(pids))
    records, _ = run(spec, [1, 2, 3], tmp_path, timeout=0.5)
    assert statuses(records) == {1: OK, 2: RESOURCE, 3: OK}
    assert records[2].detail == "no answer within 0.5 s"
    assert time.monotonic() - begin < 30
    for pid in pids.read_text().split():
        assert not _alive(int(pid))


def _alive(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


@pytest.mark.parametrize("cls", ["Raises", "Hangs", "IsKilled"])
def test_the_first_structure_may_be_the_culprit(cls, tmp_path):
    records, outcome = run(toy(cls, bad=1), [1, 2], tmp_path, timeout=1)
    assert statuses(records) == {1: ERROR if cls == "Raises" else RESOURCE, 2: OK}
    assert outcome.warmup_seconds is None


@pytest.fixture
def asked(monkeypatch):
    """Sizes and time limits of the calls of a worker, but for those that warm it up."""
    calls = []
    ask = process.Worker.ask

    def remember(self, batch, limit):
        calls.append((len(batch), round(limit, 3)))
        return ask(self, batch, limit)

    monkeypatch.setattr(process.Worker, "ask", remember)
    return calls


def test_a_hang_in_a_batch_is_found_by_halves_within_a_few_time_limits(asked, tmp_path):
    sizes = range(2, 18)
    records, _ = run(toy("Hangs", bad=9, batch_size=16), sizes, tmp_path, timeout=1)
    assert statuses(records) == {size: RESOURCE if size == 9 else OK for size in sizes}
    assert records[9].detail == "no answer within 1 s"
    assert records[9].batch_size == 1
    # It is the eighth of 16, so that five calls came to nothing: of 16, 8, 4, 2 and 1 structures.
    assert [n for n, _ in asked if n > 1] == [16, 8, 4, 4, 2, 2, 8]
    assert max(limit for _, limit in asked) < 1.5


def test_a_slow_batch_keeps_its_answers_and_the_next_has_the_time_it_needs(asked, tmp_path):
    sizes = range(1, 9)
    records, _ = run(toy("Sleeps", seconds=0.5, batch_size=4), sizes, tmp_path, timeout=1.5)
    assert statuses(records) == dict.fromkeys(sizes, OK)
    assert [records[size].batch_size for size in sizes] == [2, 2, 2, 2, 4, 4, 4, 4]
    assert [call for call in asked if call[0] == 4] == [(4, 1.5), (4, 6.0)]


@pytest.mark.parametrize(
    ("largest", "seconds_per_structure", "limits"),
    [
        (0, 0.0, [600, 600, 600]),
        (64, 1.0, [600, 606, 792]),
        (2, 1000.0, [600, 1200, 38400]),  # never more than each would have alone
    ],
)
def test_the_time_limit_of_a_batch(largest, seconds_per_structure, limits):
    driver = Driver(toy("ReturnsInput"), RelaxSettings(), RunLimits(), log=None, first_batch=0)
    driver.largest_answered, driver.seconds_per_structure = largest, seconds_per_structure
    assert [driver.time_limit(n) for n in (1, 2, 64)] == limits


def test_out_of_memory_halves_the_batch(tmp_path):
    records, _ = run(toy("Hungry", most=6), [1, 2, 3, 4, 9], tmp_path)
    assert statuses(records) == {1: OK, 2: OK, 3: OK, 4: OK, 9: RESOURCE}
    assert records[9].detail == "OutOfMemoryError: tried to allocate 2 GiB"
    assert [records[n].batch_size for n in (1, 2, 3, 4)] == [2, 2, 1, 1]


def test_an_answer_does_not_depend_on_the_order(tmp_path):
    forward, _ = run(toy("Stretches", factor=1.1), [1, 2, 3, 4, 5], tmp_path)
    backward, _ = run(toy("Stretches", factor=1.1), [5, 4, 3, 2, 1], tmp_path, batch_size=2)
    for size, record in forward.items():
        other = backward[size].geometry
        assert np.abs(record.geometry.lattice - other.lattice).max() < 1e-6


def test_a_hybrid_starts_where_its_first_part_ended(tmp_path):
    first = toy("Stretches", factor=1.1, bad=2, n_tokens=7)
    second = toy("Stretches", factor=2.0, n_force_evals=5)
    records, _ = run(toy("both", parts=(first, second)), [1, 2], tmp_path)
    assert statuses(records) == {1: OK, 2: Status.UNSUPPORTED}
    assert records[1].geometry.lattice[0, 0] == pytest.approx(8.8)
    assert (records[1].n_tokens, records[1].n_force_evals) == (7, 5)
    assert records[1].energy == 2.0
    assert records[2].detail == "too many sites"


def test_what_the_first_part_of_a_hybrid_collapsed_is_no_input_of_the_second(tmp_path):
    """A text model whose atoms meet must not gain by being followed by a potential."""
    first = toy("Stretches", factor=0.1, n_tokens=7)
    second = toy("Stretches", factor=2.0, bad=2)
    records, _ = run(toy("both", parts=(first, second)), [1, 2], tmp_path)
    assert statuses(records) == {1: OK, 2: Status.INVALID}
    assert records[2].geometry.lattice[0, 0] == pytest.approx(0.4)
    assert (records[2].detail, records[2].n_tokens) == ("too many sites", 7)


def test_constructors_of_models_that_honour_settings_get_them(tmp_path, capfd, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    settings = {"seed": 4, "fmax": 0.01, "max_steps": 9, "offline": True}
    records, _ = run(toy("Sees", honours=("seed",), own=7), [1], tmp_path, **settings)
    assert records[1].detail == "cpu 4 0.01 9 True 4 {'own': 7} 3 1"
    assert capfd.readouterr().out == ""
    assert "must not reach" in (tmp_path / "worker.log").read_text()


def test_a_relaxer_that_cannot_be_built_ends_the_run(tmp_path):
    records, outcome = run(toy("CannotLoad"), [1, 2], tmp_path)
    assert records == {}
    assert outcome.aborted == "cannotload cannot be loaded: ValueError: weights of another model"


def test_what_the_user_must_do_is_told_to_the_user(tmp_path):
    with pytest.raises(UserError, match=r"^weights\.pt is missing: put it there$"):
        run(toy("CannotLoad", user_error=True), [1], tmp_path)


def test_a_worker_that_dies_at_start_is_tried_three_times(tmp_path):
    marks = tmp_path / "marks"
    marks.mkdir()
    _, outcome = run(toy("DiesAtStart", folder=str(marks)), [1, 2], tmp_path)
    assert outcome.aborted == "diesatstart cannot be loaded: worker exited with status 7"
    assert len(list(marks.iterdir())) == 3


def test_a_worker_that_hangs_at_start_is_not_tried_again(monkeypatch):
    limits = []
    load = process.Worker.load

    def remember(self, limit):
        limits.append(limit)
        return load(self, limit)

    monkeypatch.setattr(process.Worker, "load", remember)
    outcome = run_model(
        toy("SlowToLoad", seconds=600),
        [("a", 0, toys.geometry(1))],
        settings=RelaxSettings(),
        limits=RunLimits(load_timeout=1.5),
        on_records=print,
    )
    assert outcome.aborted == "slowtoload cannot be loaded: no answer within 1.5 s"
    assert limits == [1.5]


def test_loading_has_a_time_limit_of_its_own(tmp_path):
    records, outcome = run(toy("SlowToLoad", seconds=1.0), [1], tmp_path, timeout=0.5)
    assert statuses(records) == {1: OK}
    assert 1.0 < outcome.load_seconds < 5.0


@pytest.mark.parametrize(
    ("n_ok", "n_errors", "overdrawn"),
    [(0, 5, False), (0, 6, True), (50, 5, False), (54, 6, False), (53, 6, True)],
)
def test_error_budget(n_ok, n_errors, overdrawn):
    budget = Budget(0.1)
    for status in [OK] * n_ok + [ERROR] * n_errors:
        budget.add(status, "TypeError: x")
    assert budget.overdrawn() == overdrawn
    assert (budget.verdict() is not None) == (overdrawn or n_ok == 0)


def test_a_row_of_nothing_but_errors_is_no_row(tmp_path):
    records, outcome = run(toy("Raises", bad=2), [2], tmp_path)
    assert statuses(records) == {2: ERROR}
    assert outcome.aborted == (
        "1 of 1 structures ended in error, the last with TypeError: no such orbital"
    )


def test_a_broken_model_ends_early(tmp_path):
    todo = [(f"s{i}", 0, toys.geometry(2)) for i in range(40)]
    records = []
    outcome = run_model(
        toy("Raises", bad=2),
        todo,
        settings=RelaxSettings(),
        on_records=records.extend,
        log=tmp_path / "log",
    )
    assert len(records) == 8  # two batches
    assert outcome.aborted == (
        "8 of 8 structures ended in error, the last with TypeError: no such orbital"
    )


def test_an_interrupt_leaves_no_worker(tmp_path):
    workers = []

    def interrupt(records):
        raise KeyboardInterrupt

    original = process.Worker.__init__

    def remember(self, *args):
        original(self, *args)
        workers.append(self.process)

    process.Worker.__init__ = remember
    try:
        with pytest.raises(KeyboardInterrupt):
            run_model(
                toy("ReturnsInput"),
                [("a", 0, toys.geometry(1))],
                settings=RelaxSettings(),
                on_records=interrupt,
            )
    finally:
        process.Worker.__init__ = original
    assert [worker.poll() for worker in workers] == [-9]


def test_threads_follow_the_user_or_the_cores(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3,2")
    assert process.threads() == 3
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert 1 <= process.threads() <= (os.cpu_count() or 1)
    assert process.environment(offline=False)["OMP_NUM_THREADS"] == str(process.threads())
