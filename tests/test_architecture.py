"""A reader relies on the tree: no import leads back, and a name means one thing."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import networkx as nx

ROOT = Path(__file__).parents[1]
PACKAGES = ("benchmarks", "t2relax", "baselines", "leaderboard", "studies")
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
SAME_FILE_NAME = {"train.py"}
"""`python -m t2relax.train` and `python -m baselines.train` are two commands that train models."""


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(tree: ast.AST, modules: set[str]) -> Iterator[str]:
    """Modules of ours that a file imports, also in functions and only for type checkers.

    `from package import name` leads to `package.name` where that is a module, and to the package
    otherwise. That a module needs the packages above it is left out: the import system, not the
    module, runs their `__init__`.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found = [name if name in modules else node.module for name in names]
        else:
            continue
        yield from (name for name in found if name in modules)


def cycles(sources: dict[str, str]) -> list[list[str]]:
    """Modules that import each other in a circle, by module name -> source text."""
    graph = nx.DiGraph()
    for name, text in sources.items():
        graph.add_edges_from((name, other) for other in imported(ast.parse(text), set(sources)))
    parts = [sorted(part) for part in nx.strongly_connected_components(graph)]
    return [part for part in parts if len(part) > 1 or graph.has_edge(part[0], part[0])]


def test_no_modules_import_each_other_in_a_circle():
    sources = {module_name(path): path.read_text(encoding="utf-8") for path in FILES}
    assert len(sources) > 100
    assert cycles(sources) == []


def test_a_circle_through_a_function_and_a_type_is_found():
    sources = {
        "p": "",
        "p.a": "from p import b",
        "p.b": "def f():\n    import p.c",
        "p.c": "if TYPE_CHECKING:\n    from p.a import X",
        "p.d": "from p.a import X\nimport numpy",
    }
    assert cycles(sources) == [["p.a", "p.b", "p.c"]]


def test_a_file_name_means_one_thing():
    places = defaultdict(list)
    for path in FILES:
        if path.name not in ("__init__.py", "__main__.py"):
            places[path.name].append(path.relative_to(ROOT))
    doubled = {name: paths for name, paths in places.items() if len(paths) > 1}
    assert doubled.keys() <= SAME_FILE_NAME, doubled


def test_a_class_name_means_one_thing():
    places = defaultdict(list)
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(path.relative_to(ROOT))
    doubled = {name: paths for name, paths in places.items() if len(paths) > 1}
    assert doubled == {}
