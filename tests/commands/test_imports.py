"""What importing the package brings along, and what it says without the extras."""

import subprocess
import sys

from tests.support.paths import ROOT

BLOCKED = ("apitools", "google.cloud", "google.api_core", "google.auth", "boto3", "botocore")
WITHOUT_EXTRAS = f"""
import logging, sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.startswith({BLOCKED}):
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocked())
import rasteret_beam
from rasteret_beam import BigQueryTable, ReadPoints, SamplePoints, WriteSamplesToBigQuery, WriteSamplesToParquet
assert logging.getLogger().handlers == [] and logging.getLogger().filters == []
import pyarrow as pa
points = ReadPoints(pa.table({{"x": [1.0], "y": [2.0]}}), geometry_crs=4326)
print(next(points.batches()).num_rows)

read = lambda source: ReadPoints(source).point_columns()
for use in (
    WriteSamplesToBigQuery,
    lambda name: read(BigQueryTable(name)),
    lambda name: read(rasteret_beam.BigQueryQuery(name)),
):
    try:
        use("p:d.t")
    except rasteret_beam.errors.MissingInputError as error:
        print(error)
"""


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)


def test_importing_the_package_imports_neither_beam_nor_google() -> None:
    done = run(
        "import sys, rasteret_beam; assert 'apache_beam' not in sys.modules; "
        "print([name for name in sys.modules if name.startswith('google.cloud.')]); "
        "rasteret_beam.ReadPoints; print('apache_beam' in sys.modules)"
    )
    assert (done.stdout, done.stderr) == ("[]\nTrue\n", "")


def test_transforms_are_silent_without_the_extras_until_they_are_used() -> None:
    done = run(WITHOUT_EXTRAS)
    assert (done.returncode, done.stderr) == (0, "")
    rows, *errors = done.stdout.splitlines()
    assert rows == "1" and len(errors) == 3
    for error in errors:
        assert "in a checkout of rasteret_beam, run pip install '.[gcp]'; with a wheel, " in error
