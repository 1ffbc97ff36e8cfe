"""A layer imports only the layers above it, and Beam stays in transforms/."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT

LAYERS = [
    ("rasteret_beam.errors", "rasteret_beam.model"),
    ("rasteret_beam.columns",),
    ("rasteret_beam.schema",),
    ("rasteret_beam.metrics", "rasteret_beam.options", "rasteret_beam.chip_options"),
    ("rasteret_beam.kernels",),
    ("rasteret_beam.readers",),
    ("rasteret_beam.collection",),
    ("rasteret_beam.transforms",),
    ("pipelines",),
]
ALLOWED_OUTSIDE = {
    "rasteret_beam.errors": set(),
    "rasteret_beam.model": set(),
    "rasteret_beam.columns": {"pyarrow"},
    "rasteret_beam.schema": {"pyarrow"},
    "rasteret_beam.options": {"numpy", "pyarrow"},
    "rasteret_beam.metrics": set(),
    "rasteret_beam.kernels": {"numpy", "pyarrow", "pyproj", "shapely"},
}
MODULES = sorted([*ROOT.glob("rasteret_beam/**/*.py"), *ROOT.glob("pipelines/*.py")])


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def layer(name: str) -> int | None:
    for number, members in enumerate(LAYERS):
        if any(name == member or name.startswith(member + ".") for member in members):
            return number
    return None


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_imports_go_up_only(path: Path) -> None:
    name = module_name(path)
    own = layer(name)
    if own is None:
        assert name == "rasteret_beam"
        return
    for imported in imports(path):
        other = layer(imported)
        assert other is None or other <= own, f"{name} imports {imported}, a layer below it"
        if imported.startswith("apache_beam"):
            assert name.startswith(("rasteret_beam.transforms", "pipelines")), f"{name} imports Beam"


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_upper_layers_need_little(path: Path) -> None:
    name = module_name(path)
    for prefix, allowed in ALLOWED_OUTSIDE.items():
        if name == prefix or name.startswith(prefix + "."):
            outside = {imported.split(".")[0] for imported in imports(path)} - {"rasteret_beam"}
            assert outside - set(sys.stdlib_module_names) <= allowed


def test_importing_the_package_does_not_import_beam() -> None:
    code = (
        "import sys, rasteret_beam; assert 'apache_beam' not in sys.modules; "
        "rasteret_beam.ReadPoints; print('apache_beam' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "True"


WITHOUT_EXTRA = """
import logging, sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.startswith(("apitools", "google.cloud", "google.api_core", "google.auth", "boto3", "botocore")):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocked())
from rasteret_beam import BigQueryTable, ReadPoints, SamplePoints, WriteSamplesToBigQuery, WriteSamplesToParquet
assert logging.getLogger().handlers == [] and logging.getLogger().filters == []
import pyarrow as pa
points = ReadPoints(pa.table({"x": [1.0], "y": [2.0]}), geometry_crs=4326)
print(next(points.batches()).num_rows)
"""


def test_importing_transforms_is_silent_without_the_extras() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT_EXTRA], capture_output=True, text=True, cwd=ROOT, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", "")


def test_modules_stay_small() -> None:
    long = {module_name(path): lines for path in MODULES if (lines := len(path.read_text().splitlines())) > 400}
    assert long == {}
