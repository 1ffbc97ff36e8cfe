"""No module imports itself by way of others, also not in a function or for annotations alone."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FILES = [*ROOT.glob("rasteret_beam/**/*.py"), *ROOT.glob("pipelines/**/*.py")]
NAMES = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in FILES}

METHODS = {f"rasteret_beam.collection.eager.{name}" for name in ("get_numpy", "plan", "sample")}
"""Functions that the collection has as methods, and that name it in annotations."""


def imported(path: Path) -> set[str]:
    """The modules of the project that a module imports anywhere in its text."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= names & NAMES.keys() or {node.module}
    return found & NAMES.keys()


def test_imports_have_no_circles() -> None:
    graph = {name: imported(path) - {name} for name, path in NAMES.items()}
    assert graph["rasteret_beam.transforms.sinks.parquet"] > {"rasteret_beam.transforms.sinks.windowed_parquet"}
    for name in METHODS & graph.keys():
        graph[name].discard("rasteret_beam.collection.collection")
    TopologicalSorter(graph).prepare()  # raises CycleError, which lists the modules of a circle
