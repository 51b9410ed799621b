"""The audit: every trajectory with its decision, or its reason for quarantine."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pymatgen.core import Lattice, Structure

from benchmarks.data.__main__ import COMMANDS, main
from benchmarks.data.audit import COLUMNS, audit
from benchmarks.data.folders import EMBEDDED
from benchmarks.data.sources import resolve

ROOT = Path(__file__).parents[1]


def salt(a):
    return Structure(Lattice.cubic(a), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])


@pytest.fixture
def pair(lemat_frame):
    def make(material, **columns):
        known = {
            "forces": [[0.0, 0.03, 0.04], [0.0, 0.0, 0.0]],
            "stress_tensor": np.diag([0.5, -2.0, 0.0]),
        }
        return [
            lemat_frame(salt(5.6), material, 0, energy=-7.0, **known),
            lemat_frame(salt(5.7), material, 1, **{"energy": -8.0, **known, **columns}),
        ]

    return make


@pytest.fixture
def audited(tmp_path, write_lemat):
    def run(rows, **kwargs):
        path = write_lemat(tmp_path / "x.parquet", rows)
        return audit(resolve(str(path)), **kwargs)

    return run


def test_nothing_is_dropped_in_silence(audited, lemat_frame, pair):
    """Every kind of bad input, one trajectory each, and a sound one."""
    nan = [[0, 0, 0], [1, 1, np.nan]]
    bad = {
        "frames of different composition": pair("mp-1", species_at_sites=["Na", "F"]),
        "lattice or positions not finite": pair("mp-2", cartesian_site_positions=nan),
        "zero sites": pair("mp-3", species_at_sites=[], nsites=0),
        "single frame": pair("mp-4")[:1],
        "duplicated step": [*pair("mp-5"), pair("mp-5")[1]],
        "no 3x3 lattice": pair("mp-6", lattice_vectors=None),
        "no relaxation step": pair("mp-7", relaxation_step=None),
        "malformed id": [lemat_frame(salt(5.6), "mp-8", 0, id="nonsense")],
    }
    rows = [row for trajectory in bad.values() for row in trajectory]
    table = audited([*rows, *pair("mp-9")])
    assert list(table) == list(COLUMNS)
    reasons = dict(zip(table["sample_id"], table["reason"], strict=True))
    assert reasons.pop("nonsense") == "malformed id"
    assert pd.isna(reasons.pop("mp-9-0-pbe"))
    assert reasons == {f"mp-{i}-0-pbe": reason for i, reason in enumerate(list(bad)[:-1], start=1)}
    assert (table["status"] == "quarantined").sum() == len(bad)
    assert table["used"].sum() == 1
    assert table["detail"].notna().sum() == len(bad)


def test_row_states_what_the_target_is_worth(audited, pair):
    (row,) = audited(pair("mp-1")).to_dict("records")
    assert (row["initial_id"], row["relaxed_id"]) == ("mp-1-0-pbe-0", "mp-1-0-pbe-1")
    assert row["residual_force"] == pytest.approx(0.05)
    assert row["residual_stress"] == pytest.approx(2.0)
    assert not row["relaxed"]
    assert row["energy_change"] == pytest.approx(-0.5)
    assert row["energy_above_lowest"] == 0
    assert (row["order"], row["basis"], row["end"]) == ("single", "single calculation", "unknown")
    assert (row["source"], row["functional"], row["n_frames"]) == ("mp", "pbe", 2)


def test_rising_energy_is_counted(tmp_path, write_lemat, pair, capsys):
    rows = [*pair("mp-1"), *pair("mp-2", energy=-6.9), *pair("mp-3", energy=None)]
    path = write_lemat(tmp_path / "x.parquet", rows)
    assert main(["audit", str(path)]) == 0
    text = capsys.readouterr().out
    assert "| with energies | 2 |" in text
    assert (
        "| — of them with an energy that goes down, or up by less than 0.0001 eV/atom | 1 |" in text
    )


def test_limit_takes_the_trajectories_that_a_run_takes(audited, pair):
    rows = [row for i in range(20) for row in pair(f"mp-{i}")]
    table = audited(rows, limit=3)
    assert list(table["sample_id"]) == ["mp-6-0-pbe", "mp-8-0-pbe", "mp-14-0-pbe"]


def test_chunks_give_what_the_whole_gives(audited, pair, monkeypatch):
    rows = [row for i in range(7) for row in pair(f"mp-{i}")]
    rows[5]["lattice_vectors"] = None
    whole = audited(rows)
    monkeypatch.setattr("benchmarks.data.audit.CHUNK", 2)
    pd.testing.assert_frame_equal(audited(rows), whole)


def test_files_say_what_was_audited(tmp_path, capsys):
    assert main(["audit", "embedded", "--out", str(tmp_path / "out")]) == 0
    assert "audit.parquet" in capsys.readouterr().out
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["audit.md", "audit.parquet"]
    table = pq.read_table(tmp_path / "out" / "audit.parquet")
    assert table.num_rows == 53
    assert table.schema.metadata[b"revision"].startswith(b"sha256:")
    assert "# Audit of embedded-v1, split test" in (tmp_path / "out" / "audit.md").read_text()


def test_killed_audit_leaves_no_partial_file_and_the_next_one_gives_the_same(tmp_path):
    command = [sys.executable, "-m", "benchmarks.data", "audit", "embedded", "--out"]
    whole = tmp_path / "whole"
    begin = time.perf_counter()
    subprocess.run([*command, str(whole)], cwd=ROOT, check=True, capture_output=True)
    took = time.perf_counter() - begin
    for share in (0.5, 0.9, 0.97):
        process = subprocess.Popen([*command, str(tmp_path / "cut")], cwd=ROOT)
        time.sleep(share * took)
        process.send_signal(signal.SIGKILL)
        process.wait()
        for path in (tmp_path / "cut").glob("audit.*[!p]"):
            assert path.read_bytes() == (whole / path.name).read_bytes()
    subprocess.run([*command, str(tmp_path / "cut")], cwd=ROOT, check=True, capture_output=True)
    for name in ("audit.parquet", "audit.md"):
        assert (tmp_path / "cut" / name).read_bytes() == (whole / name).read_bytes()


# --- bad input: one line on stderr and exit 2 -----------------------------------------------------


def says(capsys, argv, *words):
    assert main(argv) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    for word in words:
        assert word in said


def test_unknown_command_and_unusable_arguments(tmp_path, capsys):
    says(capsys, ["aduit"], "no command 'aduit'", "audit")
    says(capsys, [], "audit")
    says(capsys, ["audit", "nothing"], "no such file")
    says(capsys, ["audit", "embedded", "--limit", "0"], "at least 1")
    says(capsys, ["audit", "embedded", "--split", "tset"], "no split 'tset'")
    (tmp_path / "file").write_text("")
    says(capsys, ["audit", "embedded", "--out", str(tmp_path / "file")], "cannot be written")


def test_truncated_file_missing_column_and_wrong_type(tmp_path, capsys, lemat_table, pair):
    path = tmp_path / "x.parquet"
    data = (EMBEDDED / "test.parquet").read_bytes()
    path.write_bytes(data[: len(data) // 2])
    says(capsys, ["audit", str(path)], "not a readable parquet file")
    table = lemat_table(pair("mp-1"))
    pq.write_table(table.drop_columns(["relaxation_number"]), path)
    says(capsys, ["audit", str(path)], "lacks relaxation_number")
    i = table.schema.get_field_index("forces")
    pq.write_table(table.set_column(i, "forces", pa.array(["a", "b"])), path)
    says(capsys, ["audit", str(path)], "column forces is string")


def test_every_command_can_be_loaded():
    for name in COMMANDS:
        with pytest.raises(SystemExit) as info:
            main([name, "--help"])
        assert info.value.code == 0


# --- the data sets beside the repository ----------------------------------------------------------


def test_audit_of_a_file_with_the_quirks_of_the_public_fetcher(shared_data):
    table = audit(resolve(str(shared_data / "vasp" / "lemat-quirks.parquet")))
    paired = table[table["status"] == "paired"]
    assert (len(table), len(paired)) == (92, 91)
    assert paired["end"].value_counts().to_dict() == {"missing": 50, "present": 41}
    assert table["used"].sum() == 46
    assert (paired.loc[paired["end"] == "present", "order"] == "backwards").all()
    assert (paired["missing_steps"] > 0).sum() == 6
    assert paired["start_missing"].sum() == 5
