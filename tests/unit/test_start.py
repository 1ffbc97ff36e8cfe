"""What our modules import when they are loaded: no package that a job may do without, such as pandas.

Beam and PyArrow load some of these by themselves; docs/performance.md names them.
"""

import ast
import sys
from collections.abc import Iterator

from tests.support.paths import ROOT

NEEDED = {
    "affine",
    "apache_beam",
    "grpc",
    "imagecodecs",
    "isal",
    "numpy",
    "obstore",
    "pipelines",
    "pyarrow",
    "pyproj",
    "rasterio",
    "rasteret_beam",
    "shapely",
    "tifffile",
}
"""What every job needs (gRPC: every pipeline); the layers say which modules may import Beam."""

DEMO = "pipelines/demo.py"
"""Makes pictures, for which it has an extra."""


def at_load(node: ast.AST) -> Iterator[str]:
    """Packages that a module imports when it is loaded: not in functions, nor for type checkers alone."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            yield (child.module or "").partition(".")[0]
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        elif not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from at_load(child)


def test_modules_load_only_what_every_job_needs() -> None:
    found = {
        f"{path.relative_to(ROOT)}: {name}"
        for package in ("rasteret_beam", "pipelines")
        for path in (ROOT / package).rglob("*.py")
        if path != ROOT / DEMO
        for name in at_load(ast.parse(path.read_text()))
        if name not in NEEDED | sys.stdlib_module_names
    }
    assert found == set()


def test_the_walk_sees_imports_at_load_alone() -> None:
    text = """
import numpy as np
from google.cloud import storage
try:
    import pandas.api
except ImportError:
    pass
if TYPE_CHECKING:
    import geopandas
class A:
    import fsspec
    def f(self):
        import boto3
"""
    assert list(at_load(ast.parse(text))) == ["numpy", "google", "pandas", "fsspec"]
