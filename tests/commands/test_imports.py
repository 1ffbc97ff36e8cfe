"""What importing the package brings along, and what it says without the extras."""

import subprocess
import sys
from pathlib import Path

import rasterio
from affine import Affine

from tests.support.paths import ROOT
from tests.support.rasters import RasterCase

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


def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=ROOT)


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


OPTIONAL = ("pandas", "geopandas", "polars", "duckdb", "matplotlib", "scipy", *BLOCKED)
"""Packages for users' own tables, and those of extras; the installation alone brings none of them."""

ALL_ALONE = f"""
import sys
from datetime import datetime
from pathlib import Path

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {OPTIONAL} or name.startswith({BLOCKED}):
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocked())
import pyarrow as pa
import pyarrow.parquet as pq
import rasteret_beam

folder, raster = Path(sys.argv[1]), sys.argv[2]
collection = rasteret_beam.build_from_cogs([raster], datetime=[datetime(2023, 1, 1)])
collection.export(folder / "collection")
points = pa.table({{"x": [500_005.0, 500_015.0], "y": [5_399_995.0] * 2, "day": ["2023-01-02"] * 2}})
pq.write_table(points, folder / "points.parquet")
wide = [dict(layout=layout, value_type=kind) for layout in ("long", "values", "columns") for kind in
        ("float64", "float32", "raw")]
timed = dict(match="nearest", time_column="day", extra_columns=["time_difference"])
around = dict(max_distance_pixels=1, return_neighbourhood="always")
for options in (*wide, timed, around):
    rows = collection.sample_points(points, ["B1"], geometry_crs=32631, **options)
    batches = collection.sample_batches(points, ["B1"], geometry_crs=32631, **options).read_all()
    assert rows.num_rows == 2 and repr(batches.to_pydict()) == repr(rows.to_pydict()), options
print(rows["value"].to_pylist())
print(collection.get_numpy([(500_000, 5_399_990, 500_020, 5_400_000)], ["B1"], geometry_crs=32631).ravel().tolist())
print(rasteret_beam.plan(collection, points, ["B1"], geometry_crs=32631).num_rows)

from pipelines import sample_points
flags = ["--points", folder / "points.parquet", "--collection", folder / "collection", "--geometry_crs", "32631"]
flags += ["--bands", "B1", "--unsampled", folder / "left"]
in_time = ["--match", "nearest", "--time_column", "day", "--dead_letter", folder / "dead"]
for options in (["--layout", "values", "--value_type", "raw"], in_time):
    output = folder / options[1]
    sys.argv = ["sample_points", *map(str, [*flags, *options, "--output", output])]
    assert not sample_points.main(), options
    print(pq.read_table(next(folder.glob(f"{{options[1]}}-*.parquet"))).num_rows)
"""


def test_sampling_needs_nothing_beside_the_installation(tmp_path: Path) -> None:
    pixels = {"dtype": "int16", "width": 32, "height": 32}
    affine = Affine(10.0, 0.0, 500_000.0, 0.0, -10.0, 5_400_000.0)
    path = RasterCase(name="alone", transform=affine, crs="EPSG:32631", **pixels).write(tmp_path)
    with rasterio.open(path) as raster:
        values = raster.read(1, window=rasterio.windows.Window(0, 0, 2, 1)).ravel().tolist()
    done = run(ALL_ALONE, str(tmp_path), str(path))
    assert done.returncode == 0, done.stderr
    found = [line for line in done.stdout.splitlines() if line[0] in "[12"]
    assert found == [str([float(value) for value in values]), str(values), "1", "2", "2"]
