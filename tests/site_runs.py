"""Runs and a small parser that the tests of the site share."""

from dataclasses import replace
from html.parser import HTMLParser

from benchmarks.store import read_run
from leaderboard.board.scores import scores
from leaderboard.scoring import ScoredRuns
from tests.test_leaderboard import Memory, failing, halfway, identity, oracle, write

VOID = {"meta", "link", "input", "br", "img", "hr"}
MODELS = {
    "identity": (identity, "trivial"),
    "halfway": (halfway, "gnn"),
    "text": (failing("invalid", answer=halfway), "llm"),
    "oracle": (oracle, "trivial"),
}

HOSTILE = {
    "identity": "<script>alert(1)</script>",
    "halfway": '"><img src=x onerror=alert(1)>{{ 7*7 }}',
    "text": "=cmd()|' /C calc'!A0",
    "oracle": "../../\x1b[31m\u202eexe.\\input{x}__proto__",
}


def scored_runs(folder, dataset=None, renamed=None, models=MODELS):
    """Scored runs of some models on a toy data set; `renamed` gives models other names."""
    dataset = dataset or Public()
    runs = []
    for name, (relax, family) in models.items():
        run = read_run(write(folder, name, relax, dataset, seconds=0.1 * (1 + len(runs))))
        called = (renamed or {}).get(name, name)
        identity_of = run.identity | {"family": family, "model": called}
        runs.append(replace(run, name=called, identity=identity_of))
    tables = tuple(scores(run, dataset, store=False) for run in runs)
    return ScoredRuns(runs=tuple(runs), tables=tables, ended=(), dataset=dataset)


class Public(Memory):
    """A toy data set whose structures may be shown."""

    redistributable = True


class Page(HTMLParser):
    """The tags, texts, links and tables of a page; it fails where a tag is not closed."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.links, self.ids, self.tables = [], [], [], [], []
        self.feed(text)
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.tags.append((tag, found))
        self.links += [found[key] for key in ("href", "src") if key in found]
        self.ids += [found["id"]] if "id" in found else []
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if any(tag in self.open for tag in ("td", "th")):
            self.tables[-1][-1][-1] += data
