"""Reading a data set of the Hub by parts, against a server on this machine."""

import errno
import io
import json
import os
import re
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ase.data import chemical_symbols
from huggingface_hub import constants
from pymatgen.core import Lattice, Structure

from benchmarks.core import MissingFinalFrame
from benchmarks.data import load
from benchmarks.data.__main__ import main as data_main
from benchmarks.run import main as run_main
from benchmarks.store import read_run
from t2relax import train
from t2relax.data.training_pairs import read_pairs
from tests.conftest import LEMAT_SCHEMA, one_line
from tests.hub_server import COMMIT, LONG, N_SITES, REPO, lemat_files, serving

ADDRESS = f"hf://{REPO}"
ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def files():
    """600 trajectories, 12 row groups in 4 files, most borders inside a trajectory."""
    return lemat_files(600, 4, 280)


@pytest.fixture(scope="module")
def local(files, tmp_path_factory):
    """The same as a folder on disk, read whole."""
    folder = tmp_path_factory.mktemp("whole")
    for path, content in files.items():
        (folder / Path(path).name).write_bytes(content)
    return load(str(folder), split="train")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache."""
    monkeypatch.setattr(constants, "HF_ASSETS_CACHE", str(tmp_path / "assets"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path


@pytest.fixture
def ask(monkeypatch):
    """`ask(server)`: the library's variables as HF_ENDPOINT sets them when it is imported."""

    def point(server):
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)

    return point


@pytest.fixture
def hub(files, cache, ask, monkeypatch):
    """The files on a server, and no waiting between repetitions."""
    with serving(dict(files)) as server:
        ask(server)
        monkeypatch.setattr("time.sleep", lambda _: None)
        yield server


def cached(cache, pattern):
    return sorted(path for path in (cache / "assets").rglob(pattern) if path.is_file())


# --- what is read ---------------------------------------------------------------------------------


def test_drawn_trajectories_are_whole_though_borders_cut_them(hub, local):
    drawn = load(ADDRESS, limit=300)
    assert len(drawn) == len(set(drawn.ids)) == 300
    for i, sample_id in enumerate(drawn.ids):
        whole = local.get(sample_id)
        assert drawn[i].n_frames == whole.n_frames
        assert (drawn[i].initial, drawn[i].final) == (whole.initial, whole.final)
    lengths = {sample.n_frames for sample in local}
    assert LONG in lengths
    assert {sample.n_frames for sample in drawn} == lengths


def test_name_revision_and_rule_are_those_of_the_commit(hub):
    drawn = load(ADDRESS, limit=5)
    assert (drawn.name, drawn.split) == (f"{REPO}/compatible_pbe", "train")
    assert drawn.revision == COMMIT
    assert drawn.rule.startswith("row groups by hash, max(32, n // 32) trajectories of each")
    assert not drawn.redistributable


def of_many_elements(content):
    """A file of the server's with another element for every trajectory, 90 in all."""
    table = pq.read_table(io.BytesIO(content))
    numbers = [1 + int(name.removeprefix("agm")) % 90 for name in table["immutable_id"].to_pylist()]
    species = pa.array([[chemical_symbols[number]] * N_SITES for number in numbers])
    place = LEMAT_SCHEMA.get_field_index("species_at_sites")
    sink = io.BytesIO()
    pq.write_table(table.set_column(place, "species_at_sites", species), sink, row_group_size=280)
    return sink.getvalue()


def test_a_held_out_split_of_a_draw_names_the_commit_and_finds_its_samples_again(hub, tmp_path):
    hub.files.update({path: of_many_elements(content) for path, content in hub.files.items()})
    out = tmp_path / "held-out"
    sizes = ["--limit", "60", "--test-size", "10", "--val-size", "5"]
    assert data_main(["split", ADDRESS, *sizes, "--out", str(out)]) == 0
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["sources"] == [f"hf://{REPO}@{COMMIT}:compatible_pbe"]
    parts = {name: set(load(str(out), split=name).ids) for name in manifest["splits"]}
    assert {name: len(ids) for name, ids in parts.items()} == {
        name: part["n_samples"] for name, part in manifest["splits"].items()
    }
    assert set.union(*parts.values()) == set(load(ADDRESS, limit=60).ids)
    assert set(load(str(out), split="test", offline=True).ids) == parts["test"]


def test_a_smaller_limit_is_contained_in_a_larger_one(hub, local):
    sets = [set(load(ADDRESS, limit=n).ids) for n in (1, 31, 32, 33, 150, 383, 450, 599, 9999)]
    assert [len(s) for s in sets] == [1, 31, 32, 33, 150, 383, 450, 599, 600]
    assert all(small < large for small, large in pairwise(sets))
    assert sets[-1] == set(local.ids)


def test_another_seed_draws_others(hub):
    assert set(load(ADDRESS, limit=40).ids) != set(load(ADDRESS, limit=40, seed=1).ids)


def test_unusable_trajectories_are_replaced_from_further_row_groups(hub, files):
    """Every second trajectory is slab-like: the first row groups alone would not do."""
    for path, content in files.items():
        table = pq.read_table(pa.BufferReader(content))
        odd = [int(name[3:]) % 2 for name in table["immutable_id"].to_pylist()]
        column = pa.array([2 if x else 3 for x in odd], pa.int8())
        i = table.schema.get_field_index("nperiodic_dimensions")
        sink = pa.BufferOutputStream()
        pq.write_table(table.set_column(i, table.field(i), column), sink, row_group_size=280)
        hub.files[path] = sink.getvalue().to_pybytes()
    drawn = load(ADDRESS, limit=100)
    assert len(drawn) == 100
    assert {str(q.reason) for q in drawn.quarantined} == {"not periodic in three dimensions"}
    assert set(load(ADDRESS, limit=60).ids) < set(drawn.ids)


def test_with_other_data_each_source_takes_its_turn(hub, tmp_path, write_lemat, lemat_frame):
    cells = [Structure(Lattice.cubic(a), ["Ge"], [[0, 0, 0]]) for a in (3.0, 3.1)]
    rows = [lemat_frame(cell, f"mp-{i}", k) for i in range(5) for k, cell in enumerate(cells)]
    sources = [ADDRESS, str(write_lemat(tmp_path / "own.parquet", rows))]
    own = load(sources[1])
    assert set(load(sources, limit=6).ids) == {
        *load(ADDRESS, limit=3).ids,
        *own.select(load(sources[1], limit=3).ids).ids,
    }
    large = load(sources, limit=50)
    assert set(large.ids) == {*load(ADDRESS, limit=45).ids, *own.ids}
    assert large.name == f"{REPO}/compatible_pbe/train+{own.name}"
    assert large.rule.endswith("several sources turn by turn")
    assert set(load(sources, limit=20).ids) < set(large.ids)


def test_what_is_known_of_an_end_does_not_depend_on_the_limit(hub, lemat_frame, lemat_table):
    """Two row groups show that last frames are dropped, two of the same source do not."""
    backwards = [(5.5, 0), (5.53, 0), (5.0, 1), (5.45, 1)]
    single = [(5.2, 0), (5.4, 0)]
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, LEMAT_SCHEMA) as writer:
        for group in range(4):
            rows = [
                lemat_frame(
                    Structure(Lattice.cubic(a), ["Ge"], [[0, 0, 0]]),
                    f"mp-{group}{i:02d}",
                    step,
                    relaxation_number=number,
                )
                for i in range(40)
                for step, (a, number) in enumerate(single if group > 1 or i % 2 else backwards)
            ]
            writer.write_table(lemat_table(rows))
    hub.files.clear()
    hub.files["compatible_pbe/train-0.parquet"] = sink.getvalue().to_pybytes()
    drawn = [
        load(ADDRESS, limit=n, missing_final_frame=MissingFinalFrame.KEEP)
        for n in (10, 40, 100, 160)
    ]
    missing = set(drawn[-1].missing_final_frame_ids)
    assert len(missing) == 40
    for small in drawn[:-1]:
        assert set(small.missing_final_frame_ids) == missing & set(small.ids)


def test_audit_reads_what_a_run_of_that_limit_reads(hub, tmp_path, capsys):
    ids = load(ADDRESS, limit=40).ids
    served = hub.served
    command = ["audit", ADDRESS, "--limit", "40", "--out", str(tmp_path / "audit")]
    assert data_main([*command, "--offline"]) == 0
    assert hub.served == served
    table = pq.read_table(tmp_path / "audit" / "audit.parquet")
    assert set(table["sample_id"].to_pylist()) == set(ids)
    assert data_main(["audit", f"{ADDRESS}@gone", "--limit", "4"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_without_a_limit_only_the_columns_that_are_needed_are_read(hub, local, cache):
    """No forces, for one: they are two fifths of the bytes."""
    whole = load(f"{ADDRESS}@main:compatible_pbe")
    assert whole.ids == local.ids
    assert all(a.final == b.final for a, b in zip(whole[::50], local[::50], strict=True))
    assert whole.quarantined == local.quarantined
    assert whole.rule is None
    assert 0.3 * hub.size < hub.served < 0.8 * hub.size
    served = hub.served
    again = load(ADDRESS, offline=True)
    assert again.ids == local.ids
    assert hub.served == served


def test_run_and_training_read_all_of_it_without_a_limit(hub, capsys):
    assert run_main(["--data", ADDRESS, "--models", "identity", "--dry-run"]) == 0
    assert "would run 600 samples" in capsys.readouterr().out
    pairs, origin = read_pairs([ADDRESS], "train")
    assert len(pairs) == 600
    assert origin == {f"{REPO}/compatible_pbe/train": COMMIT}
    assert hub.served < 0.8 * hub.size


def test_rows_in_any_order_give_the_same_pairs_without_a_limit(hub, local):
    shuffle(hub)
    whole = load(ADDRESS)
    assert set(whole.ids) == set(local.ids)
    assert all(sample.final == local.get(sample.sample_id).final for sample in whole[::50])


def test_more_than_memory_holds_is_one_line_before_anything_is_read(hub, monkeypatch, capsys):
    monkeypatch.setattr("benchmarks.data.hub.remote.MOST_BYTES", hub.size - 1)
    one_line(lambda: load(ADDRESS), "GB are too many", "say --limit N")
    for command in (
        lambda: train.main(["--data", ADDRESS, "--val", "embedded", "--out", "nowhere"]),
        lambda: run_main(["--data", ADDRESS, "--models", "identity"]),
        lambda: data_main(["audit", ADDRESS]),
    ):
        assert command() == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "say --limit N" in line
    assert hub.served == 0
    assert len(load(ADDRESS, limit=20)) == 20


def test_frames_of_the_drawn_row_groups_hold_forces(hub):
    drawn = load(ADDRESS, limit=30)
    kept = [frame for frame in drawn.frames() if frame.sample_id in set(drawn.ids)]
    assert {frame.sample_id for frame in kept} == set(drawn.ids)
    assert all(frame.forces is not None for frame in kept)


def test_training_reads_no_more_than_its_limit(hub):
    pairs, origin = read_pairs([ADDRESS], "train", limit=20)
    assert len(pairs) == 20
    assert origin == {f"{REPO}/compatible_pbe/train": COMMIT}
    more, _ = read_pairs([ADDRESS], "train", every_frame=True, limit=20)
    assert len(more) > 40
    assert hub.served < 0.5 * hub.size


def test_a_limit_reads_a_small_part_of_the_bytes(cache, ask):
    with serving(lemat_files(9000, 12, 160)) as server:
        ask(server)
        assert len(load(ADDRESS, limit=50)) == 50
        assert server.served < 0.05 * server.size
        before = server.served
        assert len(load(ADDRESS, limit=50)) == 50
        assert server.served == before  # all from the cache
        more = len(load(ADDRESS, limit=60))
        assert more == 60
        assert server.served - before < 0.02 * server.size  # only what is new


# --- offline, killed, damaged ---------------------------------------------------------------------


def test_offline_reads_the_cache_and_names_what_it_lacks(hub, cache):
    one_line(lambda: load(ADDRESS, limit=40, offline=True), "offline", "listing", "run once")
    ids = load(ADDRESS, limit=40).ids
    asked = dict(hub.asked)
    assert load(ADDRESS, limit=40, offline=True).ids == ids
    assert load(f"{ADDRESS}@{COMMIT}", limit=20, offline=True).revision == COMMIT
    one_line(lambda: load(ADDRESS, limit=400, offline=True), "offline", "train-0000", "run once")
    one_line(lambda: load(ADDRESS, offline=True), "train-0000", "run once")
    assert dict(hub.asked) == asked


def test_a_killed_start_leaves_nothing_that_is_taken_for_whole(hub, cache, monkeypatch):
    """Killed between writing and renaming, and before that: the next start goes on."""

    def killed(self, target):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            load(ADDRESS, limit=40)
    assert not cached(cache, "*")
    ids = load(ADDRESS, limit=40).ids
    assert load(ADDRESS, limit=40, offline=True).ids == ids


def test_a_full_disk_is_one_line(hub, cache, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    one_line(lambda: load(ADDRESS, limit=5), "No space left on device", "HF_HOME")


def test_a_start_that_failed_half_way_goes_on(hub, cache):
    load(ADDRESS, limit=32)
    kept = cached(cache, "*.first.*.parquet")
    assert len(kept) == 1
    stamp = kept[0].stat().st_mtime_ns
    hub.faults = [("resolve", 404)] * 9
    one_line(lambda: load(ADDRESS, limit=300), "no such revision")
    hub.faults = []
    assert len(load(ADDRESS, limit=300)) == 300
    assert kept[0].stat().st_mtime_ns == stamp


def test_a_damaged_row_group_of_the_cache_is_fetched_again(hub, cache):
    ids = load(ADDRESS, limit=40).ids
    for path in cached(cache, "*.parquet"):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    one_line(lambda: load(ADDRESS, limit=40, offline=True), "damaged", "run once")
    assert load(ADDRESS, limit=40).ids == ids
    assert load(ADDRESS, limit=40, offline=True).ids == ids


# --- a server that fails --------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["api", "resolve", "store"])
@pytest.mark.parametrize("fault", [429, 503])
def test_a_busy_server_is_asked_again(hub, part, fault):
    hub.faults = [(part, fault)] * 3
    assert len(load(ADDRESS, limit=40)) == 40
    assert hub.faults == []


@pytest.mark.parametrize("limit", [500, None])
def test_a_process_that_is_killed_goes_on(files, cache, ask, limit):
    """SIGKILL three times, each time a little further; then everything is as if never killed."""
    code = f"from benchmarks.data import load; load({ADDRESS!r}, limit={limit})"
    with serving(files) as server:
        environment = {"HF_ENDPOINT": server.url, "HF_ASSETS_CACHE": str(cache / "assets")}
        for requests in (4, 12, 20):
            server.asked.clear()
            with subprocess.Popen(
                [sys.executable, "-c", code], env=os.environ | environment, cwd=ROOT
            ) as process:
                while server.asked["store"] < requests and process.poll() is None:
                    time.sleep(0.005)
                process.kill()
        ask(server)
        kept = {path: path.stat().st_mtime_ns for path in cached(cache, "*.parquet")}
        ids = load(ADDRESS, limit=limit).ids
        assert kept
        assert all(path.stat().st_mtime_ns == stamp for path, stamp in kept.items())
        for path in cached(cache, "*"):
            path.unlink()
        assert load(ADDRESS, limit=limit).ids == ids


def test_bodies_cut_off_are_asked_for_again(hub, local):
    hub.faults = [("store", "cut")] * 3
    drawn = load(ADDRESS, limit=40)
    assert hub.faults == []
    assert all(s.final == local.get(s.sample_id).final for s in drawn)


def test_a_server_that_does_not_answer_in_time_is_asked_again(files, cache, ask, monkeypatch):
    with serving(files) as server:
        ask(server)
        monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 1)
        server.faults = [("store", "slow")]
        assert len(load(ADDRESS, limit=5)) == 5
        assert server.faults == []


def test_a_server_that_stays_busy_is_one_line(hub):
    hub.faults = [("store", 503)] * 99
    one_line(lambda: load(ADDRESS, limit=40), "503", hub.url)


@pytest.mark.parametrize(
    ("part", "fault", "words"),
    [
        ("store", "short", ["wrong length", "train-0000"]),
        ("store", "whole", ["wrong length", "no range"]),
        ("store", "bits", ["train-0000", "not a readable parquet file"]),
        ("resolve", "hash", ["its sha256 is not that of the listing", "train-0000"]),
        ("resolve", "commit", ["answered from ffff"]),
        ("resolve", 404, ["no such revision", COMMIT]),
        ("api", 404, ["no such revision", ADDRESS]),
    ],
)
def test_what_is_not_what_was_asked_for_is_one_line(hub, cache, part, fault, words):
    hub.faults = [(part, fault)] * 4
    one_line(lambda: load(ADDRESS, limit=40), *words)
    assert not cached(cache, "*.first.*.parquet")


@pytest.mark.parametrize(
    ("part", "fault", "words"),
    [
        ("store", "short", "wrong length"),
        ("store", "bits", "not a readable parquet file"),
        ("resolve", "hash", "its sha256 is not that of the listing"),
        ("resolve", 404, "no such revision"),
    ],
)
def test_without_a_limit_too_it_is_one_line_and_goes_on(hub, local, part, fault, words):
    hub.faults = [(part, fault)] * 99
    one_line(lambda: load(ADDRESS), words)
    hub.faults = []
    assert load(ADDRESS).ids == local.ids


def test_without_a_limit_what_is_cut_off_is_asked_for_again(hub, local):
    hub.faults = [("store", "cut"), ("store", 503)]
    assert load(ADDRESS).ids == local.ids
    assert hub.faults == []


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("hf://LeMat-Traj", ["write it as hf://OWNER/NAME"]),
        (f"{ADDRESS}@nothing", ["no such revision"]),
        (f"{ADDRESS}:compatible_pbesol", ["no configuration", "it has compatible_pbe"]),
        ("hf://LeMaterial/Other", ["no such data set"]),
    ],
)
def test_wrong_addresses_are_one_line(hub, address, words):
    one_line(lambda: load(address, limit=5), *words)


def test_splits_that_it_does_not_have(hub):
    one_line(lambda: load(ADDRESS, split="test", limit=5), "has one split, train")


def test_rows_of_a_trajectory_apart_are_refused(hub):
    shuffle(hub)
    one_line(lambda: load(ADDRESS, limit=5), "not neighbours", "leave out --limit")


def shuffle(hub):
    """The rows of each file in another order."""
    for path, content in hub.files.items():
        table = pq.read_table(pa.BufferReader(content))
        shuffled = np.random.default_rng(0).permutation(len(table))
        sink = pa.BufferOutputStream()
        pq.write_table(table.take(shuffled), sink, row_group_size=280)
        hub.files[path] = sink.getvalue().to_pybytes()


# --- the command ----------------------------------------------------------------------------------


def run(server, cache, *arguments, **variables):
    """`python -m benchmarks.run` on the server's data, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.run", "--data", ADDRESS, "--limit", "50"]
    environment = {"HF_ENDPOINT": server.url, "HF_HOME": str(cache), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*command, "--out", str(cache / "runs"), *arguments],
        env=os.environ | environment | variables,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_command_reads_runs_and_goes_on_offline(files, tmp_path):
    with serving(files) as server:
        done = run(server, tmp_path, "--models", "identity")
        assert done.returncode == 0, done.stderr
        served = server.served
        again = run(server, tmp_path, "--models", "identity", "--offline")
        assert again.returncode == 0, again.stderr
        assert server.served == served
        gone = run(server, tmp_path, "--models", "identity", "--data", f"{ADDRESS}@gone")
        assert gone.returncode == 2
        assert gone.stderr.count("\n") == 1
        assert "no such revision" in gone.stderr
    stored = read_run(tmp_path / "runs" / "identity")
    assert len(stored.records) == 50
    assert stored.identity["revision"] == COMMIT
    assert stored.identity["dataset"] == f"{REPO}/compatible_pbe"
    assert stored.provenance["chosen_by"].startswith("row groups by hash")
    assert re.search(r"50 samples", done.stderr)


@pytest.mark.slow
def test_training_streams(hub, tmp_path, capsys):
    out = tmp_path / "model"
    tiny = ["--set", "num_layers=1", "--set", "d_ff=32", "--batch-size", "4", "--workers", "0"]
    command = ["--data", ADDRESS, "--limit", "12", "--val", "embedded", "--out", str(out)]
    assert train.main([*command, *tiny, "--steps", "2", "--eval-steps", "2"]) == 0
    assert hub.served < 0.5 * hub.size
    card = json.loads((out / "t2relax.json").read_text())["training"]
    assert card["n_pairs"] == 12
    assert card["data"][f"{REPO}/compatible_pbe/train"] == COMMIT
    capsys.readouterr()
    assert train.main(["--data", f"{ADDRESS}@gone", *command[2:]]) == 2
    assert "no such revision" in capsys.readouterr().err


@pytest.mark.slow
def test_the_command_with_the_t5(files, tmp_path):
    with serving(files) as server:
        done = run(server, tmp_path, "--models", "t5", "--limit", "12")
    assert done.returncode == 0, done.stderr
    assert len(read_run(tmp_path / "runs" / "t5").records) == 12
