"""The pages about the benchmark itself: its data, its changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from benchmarks.core.inert_text import visible
from benchmarks.data.folders import EMBEDDED_SETS, MANIFEST, read_manifest
from benchmarks.metrics import METRICS
from leaderboard.site.board_page import BoardPage

CHANGELOG: Final = Path(__file__).parents[2] / "CHANGELOG.md"
"""Beside the packages in a clone; an installed package has none."""


class DataFacts(NamedTuple):
    """What the data page says of one board."""

    page: BoardPage
    facts: list[tuple[str, str]]
    card: str
    """The data card of an embedded set, as it is written."""
    exposure: list[tuple[str, int, int]]
    """Model, samples that it cannot have seen in training, samples."""


class RowChange(NamedTuple):
    """Rows of a board that were computed on one day, by one commit."""

    day: str
    page: BoardPage
    commit: str
    release: str
    models: list[str]


def data_facts(page: BoardPage) -> DataFacts:
    """What is known of the data of a board."""
    dataset = page.board.dataset
    found = page.scored.dataset
    name = dataset.name.removesuffix("-v1")
    folder = EMBEDDED_SETS.get(name)
    card, rule = "", ""
    if folder is not None and (folder / MANIFEST).is_file():
        rule = str(read_manifest(folder).get("rule", ""))
        readme = folder / "README.md"
        card = readme.read_text(encoding="utf-8") if readme.is_file() else ""
    redistributable = {run.provenance.get("redistributable") for run in page.scored.runs}
    facts = [
        ("Name", page.board.name),
        ("Revision", dataset.revision),
        ("Samples", str(dataset.n_samples)),
        ("sha256 of the sorted ids", dataset.ids_sha256),
        ("Split", f"{dataset.split or 'none'}{': ' + rule if rule else ''}"),
        ("Structures may be published", "yes" if redistributable == {True} else "no: ids and "
         "scores alone are stored"),
        ("Structures are on these pages", "yes" if found and found.redistributable else "no"),
        ("Left out by the audit", _counts(dataset.quarantined) or "none"),
        ("To be known", page.board.about or ""),
    ]  # fmt: skip
    return DataFacts(page, [(name, text) for name, text in facts if text], card, _exposure(page))


def _counts(quarantined: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in quarantined.items())


def _exposure(page: BoardPage) -> list[tuple[str, int, int]]:
    rows = page.board.rows
    return [(row.model, row.metrics["score_clean"].n, row.n_samples) for row in rows]


def row_changes(pages: Sequence[BoardPage]) -> list[RowChange]:
    """The rows by the day on which they were computed, the newest first."""
    found: dict[tuple[str, str, str], RowChange] = {}
    for page in pages:
        for run in page.scored.runs:
            facts: Mapping[str, Any] = run.provenance
            day = str(facts.get("ended") or facts.get("started") or "")[:10]
            commit = str(facts.get("git_sha") or "")[:12] or "not recorded"
            commit += " with local changes" if facts.get("git_dirty") else ""
            release = str((facts.get("packages") or {}).get("t2relax-bench", ""))
            change = RowChange(day, page, commit, release, [])
            found.setdefault((day, page.name, commit), change).models.append(run.name)
    return [found[key] for key in sorted(found, reverse=True)]


def changelog(path: Path = CHANGELOG) -> list[str]:
    """The entries of the changelog, the newest first; empty where there is none."""
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line.removeprefix("- ") for line in lines if line.startswith("- ")][::-1]


def search_entries(
    pages: Sequence[BoardPage], models: Mapping[str, str], menu: Sequence[tuple[str, str]]
) -> list[tuple[str, str, str, str]]:
    """What the search finds: title, further words, kind, address."""
    labels = {
        row.model: row.label for page in pages for row in (*page.board.rows, *page.board.apart)
    }
    found = [(model, labels[model], "model", address) for model, address in models.items()]
    found += [(page.short, page.title, "data set", page.address) for page in pages]
    found += [(label, "", "page", address) for label, address in menu]
    found += [
        (name, metric.description, "metric", f"metrics.html#{name}")
        for name, metric in METRICS.items()
    ]
    seen: set[str] = set()
    for page in pages:
        for sample_id, group in zip(page.data["ids"], page.data.get("group", ()), strict=False):
            if sample_id not in seen:
                seen.add(sample_id)
                found.append((sample_id, group, "structure", page.sample_pages[sample_id]))
    return [(visible(title), visible(text), kind, address) for title, text, kind, address in found]
