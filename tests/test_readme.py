"""The README is held to the repository: its leaderboard, its tree, its commands."""

import re
from pathlib import Path

import pytest

from benchmarks.models.registry import MODELS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
OURS = {"embedded-v1", "embedded-v2"}
RUNS = sorted(path for path in (ROOT / "leaderboard" / "runs").iterdir() if path.is_dir())

SUBSETS = sorted(path for path in (ROOT / "leaderboard" / "subsets").iterdir() if path.is_dir())


def test_the_committed_leaderboard_is_what_the_stored_runs_give():
    from leaderboard.publish import outdated_files

    boards = ROOT / "leaderboard" / "boards"
    different = outdated_files(RUNS, boards, readme=ROOT / "README.md")
    for subset in SUBSETS:
        different += outdated_files([subset], boards / subset.name, readme=ROOT / "README.md")
    assert different == [], "run `make leaderboard`"


def test_the_embedded_board_has_every_model_of_the_first_leaderboard():
    names = {path.parent.name for path in RUNS[0].glob("*/run.json")}
    assert RUNS[0].name == "embedded-v1"
    assert names >= {"identity", "mean-delta", "volume-scaling", "gbr", "t5", "mace", "chgnet"}
    assert {part for name in names for part in name.split("+")} <= set(MODELS)


def test_structures_that_are_not_ours_are_not_committed():
    others = [path for path in [*RUNS, *SUBSETS] if path.name not in OURS]
    parts = [path for folder in others for path in folder.rglob("part-*.parquet")]
    assert len(others) > 2
    assert parts == []


def test_the_tree_lists_every_top_level_folder():
    listed = set(re.findall(r"^(\w+)/ ", README.split("## Where things are")[1], re.MULTILINE))
    folders = {path.parent.name for path in ROOT.glob("*/*.py")}
    assert listed == {name for name in folders if not name.startswith(".")}


@pytest.mark.parametrize("target", re.findall(r"\]\((?!http|#)([^)]+)\)", README))
def test_links_lead_somewhere(target):
    path, _, heading = target.partition("#")
    assert (ROOT / path).exists()
    if heading:
        headings = re.findall(r"^#+ (.+)$", (ROOT / path).read_text(), re.MULTILINE)
        assert heading in {title.lower().replace(" ", "-") for title in headings}


def test_the_make_targets_of_the_readme_exist():
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"(?:^|`)make (\w+)", README, re.MULTILINE))
    assert targets >= {"bench", "test", "env"}
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)
