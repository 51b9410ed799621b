"""What a run says of itself can be checked by somebody else."""

import subprocess
from pathlib import Path

from benchmarks.models.provenance import environment, now, weights_identity

WEIGHTS_SHA = "9f64a747e1b97f131fabb6b447296c9b6f0201e79fb3c5356e6c77e89b6a806a"  # of b"\1\2\3\4"


def test_weights_are_named_and_hashed(tmp_path):
    file = tmp_path / "model.bin"
    file.write_bytes(b"\1\2\3\4")
    assert weights_identity([]) == {"weights": None, "weights_sha256": None}
    named = f"{tmp_path.name}/model.bin"
    assert weights_identity([file]) == {"weights": named, "weights_sha256": WEIGHTS_SHA}
    assert weights_identity([file, file])["weights_sha256"] == f"{WEIGHTS_SHA}+{WEIGHTS_SHA}"


def test_a_folder_of_weights_changes_with_any_file_in_it(tmp_path):
    (tmp_path / "a").write_bytes(b"1")
    before = weights_identity([tmp_path])["weights_sha256"]
    assert weights_identity([tmp_path])["weights_sha256"] == before
    (tmp_path / "b").write_bytes(b"2")
    assert weights_identity([tmp_path])["weights_sha256"] != before


def test_the_commit_is_that_of_this_code():
    root = Path(__file__).parents[1]
    head = subprocess.run(
        ["git", "-C", root, "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    )
    facts = environment("cpu")
    assert facts["git_sha"] == (head.stdout.strip() if head.returncode == 0 else None)
    assert facts["device"] == "cpu"
    assert facts["cpu"]
    assert {"numpy", "ase", "pymatgen"} <= set(facts["packages"])
    assert len(now()) == len("2026-01-01T00:00:00+00:00")
