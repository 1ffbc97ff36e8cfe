"""The structure of the code: layers and what they import, how large functions and classes are, and tests apart."""

import ast
import sys
from collections import Counter
from collections.abc import Iterator
from graphlib import TopologicalSorter

from tests.support.paths import ROOT

LAYERS = [
    (
        "rasteret_beam.errors",
        "rasteret_beam.model",
        "rasteret_beam.durations",
        "rasteret_beam.scales",
        "rasteret_beam.quality_text",
    ),
    ("rasteret_beam.quality", "rasteret_beam.statistics"),
    ("rasteret_beam.columns",),
    ("rasteret_beam.schema",),
    ("rasteret_beam.option_fields",),
    ("rasteret_beam.job_options",),
    ("rasteret_beam.polygon_options",),
    (
        "rasteret_beam.metrics",
        "rasteret_beam.options",
        "rasteret_beam.chip_options",
        "rasteret_beam.zonal_options",
        "rasteret_beam.keywords",
    ),
    ("rasteret_beam.kernels",),
    ("rasteret_beam.pages", "rasteret_beam.matplotlib_axes"),
    ("rasteret_beam.readers",),
    ("rasteret_beam.collection",),
    ("rasteret_beam.plot",),
    ("rasteret_beam.transforms",),
    ("pipelines",),
]
ALLOWED_OUTSIDE = {
    "rasteret_beam.errors": set(),
    "rasteret_beam.model": set(),
    "rasteret_beam.durations": {"numpy"},
    "rasteret_beam.quality_text": set(),
    "rasteret_beam.quality": {"numpy"},
    "rasteret_beam.scales": set(),
    "rasteret_beam.statistics": {"pyarrow"},
    "rasteret_beam.columns": {"pyarrow"},
    "rasteret_beam.schema": {"pyarrow"},
    "rasteret_beam.option_fields": {"numpy"},
    "rasteret_beam.job_options": set(),
    "rasteret_beam.polygon_options": {"numpy"},
    "rasteret_beam.options": {"pyarrow"},
    "rasteret_beam.zonal_options": {"pyarrow"},
    "rasteret_beam.metrics": set(),
    "rasteret_beam.kernels": {"numpy", "pyarrow", "pyproj", "shapely"},
    "rasteret_beam.pages": {"numpy", "shapely"},
}
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): ast.parse(path.read_text())
    for package in ("rasteret_beam", "pipelines")
    for path in sorted((ROOT / package).rglob("*.py"))
}
TESTS = {path: ast.parse(path.read_text()) for path in sorted((ROOT / "tests").rglob("*.py"))}

SHARED = ("", "support")
"""What test modules may import of tests, the folder."""

STATEMENTS = 32
"""Of a function, those of functions in it included and docstrings not."""

STATEMENTS_OF_CLASS = 150
METHODS = 28


def layer(name: str) -> int | None:
    for number, members in enumerate(LAYERS):
        if any(name == member or name.startswith(member + ".") for member in members):
            return number
    return None


def imports(node: ast.AST) -> Iterator[str]:
    """Names that a module imports, wherever it does."""
    for child in ast.walk(node):
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.module and not child.level, "imports are absolute"
            yield child.module
            yield from (f"{child.module}.{alias.name}" for alias in child.names)


def test_imports_go_up_only() -> None:
    """Beam is imported in transforms and pipelines alone."""
    wrong = []
    for name, tree in MODULES.items():
        own = layer(name)
        assert (own is None) == (name == "rasteret_beam"), f"{name} is in no layer"
        for imported in {*imports(tree)} if own is not None else ():
            other = layer(imported)
            is_beam = imported.partition(".")[0] == "apache_beam"
            if (other or 0) > own or (is_beam and not name.startswith(("rasteret_beam.transforms", "pipelines"))):
                wrong.append(f"{name} imports {imported}")
    assert wrong == []
    assert len(MODULES) > 150


def test_upper_layers_need_little() -> None:
    wrong = []
    for name, tree in MODULES.items():
        for prefix, allowed in ALLOWED_OUTSIDE.items():
            if name == prefix or name.startswith(prefix + "."):
                outside = {imported.partition(".")[0] for imported in imports(tree)} - {"rasteret_beam"}
                wrong += [f"{name} imports {each}" for each in outside - set(sys.stdlib_module_names) - allowed]
    assert wrong == []


def test_imports_run_in_no_circle() -> None:
    """Not even where a function imports, or for annotations alone."""
    graph = {
        name: {imported for imported in imports(tree) if imported in MODULES} - {name, "rasteret_beam"}
        for name, tree in MODULES.items()
    }
    assert len([*TopologicalSorter(graph).static_order()]) > 150  # or it names the circle


def statements(node: ast.AST) -> int:
    """How many are in a function or a class; docstrings are none."""
    inner = [each for each in ast.walk(node) if isinstance(each, ast.stmt) and each is not node]
    return sum(
        not (isinstance(each, ast.Expr) and isinstance(each.value, ast.Constant) and isinstance(each.value.value, str))
        for each in inner
    )


def test_functions_and_classes_stay_small() -> None:
    wrong = []
    for name, tree in MODULES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and statements(node) > STATEMENTS:
                wrong.append(f"{name}.{node.name} has {statements(node)} statements, more than {STATEMENTS}")
            elif isinstance(node, ast.ClassDef):
                methods = sum(isinstance(each, ast.FunctionDef) for each in node.body)
                if statements(node) > STATEMENTS_OF_CLASS:
                    wrong.append(f"class {name}.{node.name} has {statements(node)} statements")
                if methods > METHODS:
                    wrong.append(f"class {name}.{node.name} has {methods} methods, more than {METHODS}")
    assert wrong == []


def test_no_test_module_imports_another() -> None:
    """What they share is in tests/support, which imports no test either."""
    wrong = []
    for path, tree in TESTS.items():
        for imported in imports(tree):
            first, _, rest = imported.partition(".")
            if first.startswith(("test_", "conftest")) or (first == "tests" and rest.partition(".")[0] not in SHARED):
                wrong.append(f"{path.relative_to(ROOT)} imports {imported}")
    assert wrong == []


def test_names_of_test_modules_are_unique() -> None:
    """Pytest imports them by these names alone."""
    names = Counter(path.name for path in TESTS if path.name != "__init__.py")
    assert [name for name, times in names.items() if times > 1] == []
    assert len(names) > 100
