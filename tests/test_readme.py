"""README, docs and CONTRIBUTING are held to the repository: tables, tree, links, commands."""

import importlib
import re
import shlex
from pathlib import Path

import pyarrow.compute as pc
import pytest

from benchmarks.models.registry import MODELS, ModelSpec
from benchmarks.store import read_runs
from benchmarks.testing import check_relaxer

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CARDS = [*ROOT.glob("t2relax/*/README.md"), *ROOT.glob("benchmarks/data/*/README.md")]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "baselines" / "README.md"]
PAGES += sorted(ROOT.glob("docs/*.md"))
OURS = {"embedded-v1", "embedded-v2", "embedded-v3"}
RUNS = ROOT / "leaderboard" / "runs"


def test_the_committed_leaderboard_is_what_the_stored_runs_give():
    from leaderboard.publish import differing, published_documents

    made = published_documents(store=False)
    assert made.stale + differing(made.texts) == [], "run `make leaderboard`"


def test_every_stored_run_is_on_a_published_board():
    from leaderboard.scoring import read_entries

    assert {entry.archive for entry in read_entries()} == {path.name for path in RUNS.iterdir()}


def test_the_embedded_board_has_every_model_of_the_first_leaderboard():
    names = {run.name for run in read_runs([RUNS / "embedded-v1"])}
    assert names >= {"identity", "mean-delta", "volume-scaling", "gbr", "t5", "mace", "chgnet"}
    assert {part for name in names for part in name.split("+")} <= set(MODELS)


def test_structures_that_are_not_ours_are_not_committed():
    """Of other data an archive has what a model changed; answers as given are no prediction."""
    others = [path for path in RUNS.iterdir() if path.name not in OURS]
    assert len(others) > 2
    for run in (run for folder in others for run in read_runs([folder])):
        given = run.table.filter(pc.field("lattice").is_valid())
        assert set(given["status"].to_pylist()) <= {"invalid"}, run.name
    assert [path for folder in others for path in folder.rglob("part-*.parquet")] == []


def test_the_readme_is_short_and_its_tree_lists_every_top_level_folder():
    assert README.count("\n") < 160
    listed = set(re.findall(r"^(\w+)/ ", README.split("## Where things are")[1], re.MULTILINE))
    folders = {path.parent.name for path in [*ROOT.glob("*/*.py"), *ROOT.glob("*/*.md")]}
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").replace("/", "").split()
    assert listed == {name for name in folders - set(ignored) if not name.startswith(".")}


def test_every_page_of_the_docs_is_linked_from_the_readme():
    pages = {f"docs/{path.name}" for path in ROOT.glob("docs/*.md")}
    assert pages == set(re.findall(r"\]\((docs/[^)#/]+\.md)\)", README))


@pytest.mark.parametrize("page", [*PAGES, *CARDS], ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\((?!http|#)([^)]+)\)", page.read_text(encoding="utf-8")):
        path, _, heading = target.partition("#")
        assert (page.parent / path).exists(), target
        if heading:
            text = (page.parent / path).read_text(encoding="utf-8")
            headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
            assert heading in {title.lower().replace(" ", "-") for title in headings}, target


def test_the_make_targets_of_the_pages_exist():
    makefile = (ROOT / "Makefile").read_text()
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    targets = set(re.findall(r"(?:^|`)make ([\w-]+)", text, re.MULTILINE))
    assert targets >= {"bench", "test", "env", "lint", "leaderboard", "full", "perf", "scale"}
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


PACKAGES = "benchmarks|t2relax|baselines|leaderboard|studies"
WITH_SUBCOMMANDS = {"benchmarks.data", "baselines.train", "leaderboard.submit"}
SUBCOMMANDS = {("benchmarks.dft", "verdict")}  # of modules that also work without one
OF_TWO_WORDS = {"build"}
"""Subcommands that have a second word."""


def commands():
    """The flags of each `python -m MODULE [SUBCOMMAND]` of the pages, in blocks and in a line."""
    found = {}
    for page in [*PAGES, *CARDS]:
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        lines = re.findall(
            r"python -m ((?:benchmarks|t2relax|baselines|leaderboard|studies)[^`\n#]*)", text
        )
        for line in lines:
            module, *words = shlex.split(line)
            first = (module, *words[:1])
            given = words[:1] if module in WITH_SUBCOMMANDS or first in SUBCOMMANDS else []
            given = words[:2] if given and given[0] in OF_TWO_WORDS else given
            flags = {word.partition("=")[0] for word in words if word.startswith("--")}
            found.setdefault((module, *given), set()).update(flags)
    return found


@pytest.mark.parametrize("command", sorted(commands()), ids=" ".join)
def test_the_commands_of_the_pages_have_the_flags_that_they_are_given(command, capsys):
    module, *subcommand = command
    try:
        main = importlib.import_module(module).main
    except AttributeError:
        main = importlib.import_module(f"{module}.__main__").main
    with pytest.raises(SystemExit) as ended:
        main([*subcommand, "--help"])
    assert ended.value.code == 0
    assert commands()[command] <= set(re.findall(r"--[\w-]+", capsys.readouterr().out))


def test_the_model_of_contributing_keeps_the_contract():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    relaxer, entry, *_ = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    names = {"ModelSpec": ModelSpec}
    exec(relaxer, names)
    check_relaxer(names["Shrink"](), tolerance=1e-12)
    assert eval(entry, names)[0].target == "baselines.shrink:Shrink"
