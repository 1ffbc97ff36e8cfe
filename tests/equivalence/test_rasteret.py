"""Collections pass both ways between this project and Rasteret 0.4.1, and samples are equal, row by row.

Rasteret needs Python 3.12, so it gets a virtual environment of its own, made at the first run and kept.
"""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import rasterio
import rasterio.mask
import shapely
from affine import Affine
from pyproj import Transformer

from rasteret_beam import Collection, build_from_table, load
from tests.support.paths import ROOT
from tests.support.rasters import RasterCase

pytestmark = pytest.mark.slow

RASTERET = "rasteret==0.4.1"
VENV = ROOT / ".venv-rasteret"

BANDS = ("B02", "A00", "A01", "R", "G")
DATES = [datetime(2022, 12, 30), datetime(2023, 1, 5, 10, 30), datetime(2023, 4, 9)]
PLACES = {"W": ("EPSG:32631", 500_000.0, 5_400_000.0), "E": ("EPSG:32632", 600_000.0, 4_500_000.0)}
WIDTH, HEIGHT, TILE, PIXEL = 200, 150, 64, 16.0
LACKS_B02 = "E_2"

KEY = ["point_index", "record_id", "band"]
LONLAT = {"x_column": "lon", "y_column": "lat", "geometry_crs": 4326}
UTM = {"x_column": "x", "y_column": "y", "geometry_crs": 32631}
RADIUS_1 = {"max_distance_pixels": 1}
RADIUS_2 = {"max_distance_pixels": 2, "return_neighbourhood": "always"}


@dataclass(frozen=True)
class Case:
    """A table of points, the options for both sides and ours alone, and how many rows there are at least."""

    points: str
    options: dict[str, Any]
    least_rows: int
    ours: dict[str, Any] = field(default_factory=dict)
    bands: tuple[str, ...] = BANDS


RING = {"fallback": "ring"}
"""Rasteret's rule; within one pixel ours is the same."""

CASES = {
    "all": Case("random", LONLAT, 5_000),
    "bands_of_every_record": Case("random", LONLAT, 5_000, bands=BANDS[1:]),
    "latest": Case("inside", LONLAT | {"match": "latest"}, 600 * 5),
    "tile_edges": Case("edges", UTM, 54 * 5 * 3),
    "fallback_1": Case("inside", LONLAT | RADIUS_1, 7_500),
    "fallback_2": Case("inside", LONLAT | RADIUS_2, 7_500, RING),
    "shown_if_nodata": Case("random", LONLAT | RADIUS_2 | {"return_neighbourhood": "if_center_nodata"}, 5_000, RING),
}


# Rasteret in its own environment


def python_3_12() -> str | None:
    """A Python 3.12 that can make virtual environments: this one, on the PATH, or of pyenv."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    found = [sys.executable, shutil.which("python3.12"), *map(str, sorted(pyenv.glob("versions/3.12*/bin/python3.12")))]
    check = "import sys, ensurepip, venv; sys.exit(sys.version_info[:2] != (3, 12))"
    # pyenv's shim is on the PATH even where its Python is not chosen, and then fails.
    runs = (one for one in found if one and subprocess.run([one, "-c", check], capture_output=True).returncode == 0)
    return next(runs, None)


def run(*command: object) -> None:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True)
    if done.returncode:
        pytest.fail(
            f"{' '.join(map(str, command))} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"[-4000:]
        )


@pytest.fixture(scope="module")
def peer() -> Path:
    """The Python of an environment with Rasteret; a half-made environment is made again."""
    python, complete = VENV / "bin" / "python", VENV / "complete"
    if not (python.exists() and complete.exists() and complete.read_text() == RASTERET):
        base = python_3_12()
        if base is None:
            pytest.skip("Rasteret needs Python 3.12: there is no python3.12 on the PATH, nor versions/3.12* of pyenv")
        shutil.rmtree(VENV, ignore_errors=True)
        run(base, "-m", "venv", VENV)
        run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", RASTERET)
        complete.write_text(RASTERET)
    return python


def ask(python: Path, folder: Path, *jobs: dict[str, Any]) -> None:
    """Have Rasteret do some jobs, in one process."""
    path = folder / "jobs.json"
    path.write_text(json.dumps(jobs, default=str))
    run(python, "-I", ROOT / "tests" / "support" / "rasteret_peer.py", path)


# Files, records and points


def write_record(folder: Path, place: str, number: int) -> dict[str, Any]:
    """A record of three files: one band with nodata, planar bands, and bands interleaved by pixel on a coarser grid.

    The planar ones of the eastern place are south-up, as AlphaEarth's are.
    """
    crs, left, top = PLACES[place]
    record = f"{place}_{number}"

    def written(name: str, pixel: float, south_up: bool = False, **layout: Any) -> str:
        shape = {"width": int(WIDTH * PIXEL / pixel), "height": int(HEIGHT * PIXEL / pixel), "tile": (TILE, TILE)}
        first_row, down = (top - HEIGHT * PIXEL, pixel) if south_up else (top, -pixel)
        affine = Affine(pixel, 0.0, left, 0.0, down, first_row)
        return str(RasterCase(name=f"{record}_{name}", crs=crs, transform=affine, **shape, **layout).write(folder))

    deflate = {"COMPRESS": "DEFLATE", "PREDICTOR": "2"}
    single = written("B02", PIXEL, dtype="uint16", nodata=0, options=deflate)
    planar = written(
        "aef",
        PIXEL,
        place == "E",
        dtype="int8",
        count=2,
        nodata=-128,
        options={"COMPRESS": "ZSTD", "INTERLEAVE": "BAND"},
    )
    pixel = written("rgb", 2 * PIXEL, dtype="int16", count=3, options=deflate | {"INTERLEAVE": "PIXEL"})
    assets = {"B02": (single, 0), "A00": (planar, 0), "A01": (planar, 1), "R": (pixel, 0), "G": (pixel, 1)}
    if record == LACKS_B02:
        del assets["B02"]
    return {
        "id": record,
        "datetime": DATES[number],
        "assets": {band: {"href": href, "band_index": index} for band, (href, index) in assets.items()},
        "geometry": footprint(place),
        "proj:epsg": int(crs.removeprefix("EPSG:")),
    }


def footprint(place: str) -> bytes:
    crs, left, top = PLACES[place]
    outline = shapely.segmentize(shapely.box(left, top - HEIGHT * PIXEL, left + WIDTH * PIXEL, top), 100.0)
    lonlat = Transformer.from_crs(crs, "OGC:CRS84", always_xy=True)
    return shapely.to_wkb(shapely.transform(outline, lonlat.transform, interleaved=False))


def random_points(n: int, margin: float, seed: int) -> pa.Table:
    """Points in degrees, about both places by a margin in metres (inside them by a negative one)."""
    rng = np.random.default_rng(seed)
    lon, lat = [], []
    for crs, left, top in PLACES.values():
        x = rng.uniform(left - margin, left + WIDTH * PIXEL + margin, n)
        y = rng.uniform(top - HEIGHT * PIXEL - margin, top + margin, n)
        placed = Transformer.from_crs(crs, 4326, always_xy=True).transform(x, y)
        lon, lat = [*lon, *placed[0]], [*lat, *placed[1]]
    return pa.table({"plot": [f"plot-{number}" for number in range(2 * n)], "lon": lon, "lat": lat})


def edge_points() -> pa.Table:
    """The corners of all tiles that are inside the western rasters, as exact numbers, and a step before and behind."""
    _, left, top = PLACES["W"]
    step = PIXEL / 1024
    places = [
        (left + col * TILE * PIXEL + dx, top - row * TILE * PIXEL + dy)
        for col in range(1, 4)
        for row in range(1, 3)
        for dx in (-step, 0.0, step)
        for dy in (-step, 0.0, step)
    ]
    x, y = zip(*places, strict=True)
    return pa.table({"plot": [str(number) for number in range(len(x))], "x": x, "y": y})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a record table of two places in two zones x three dates, and tables of points."""
    place = tmp_path_factory.mktemp("rasteret")
    rows = [write_record(place, name, number) for number in range(len(DATES)) for name in PLACES]
    schema_of = pa.Table.from_pylist(rows[:1]).schema
    pq.write_table(pa.Table.from_pylist(rows, schema=schema_of), place / "records.parquet")
    pq.write_table(random_points(300, 200.0, 1), place / "random.parquet")
    pq.write_table(random_points(300, -1.0, 2), place / "inside.parquet")
    pq.write_table(edge_points(), place / "edges.parquet")
    return place


# What both sides give


def sample_job(case: str, collection: Path, samples: Path) -> dict[str, Any]:
    asked = CASES[case]
    where = {"collection": collection, "points": collection.parent / f"{asked.points}.parquet", "samples": samples}
    return {"do": "sample", "bands": asked.bands, "options": asked.options, **where}


def theirs(folder: Path, case: str, collection: str) -> Path:
    return folder / f"{case}_of_{collection}.parquet"


@pytest.fixture(scope="module")
def sampled(peer: Path, folder: Path) -> Path:
    """The folder, with what each side built and exported, and Rasteret's samples of all of it."""
    ours = build_from_table(folder / "records.parquet", name="scenes")
    ours.export(folder / "ours")
    ours.export(folder / "ours.parquet")
    everything = [
        sample_job(case, folder / collection, theirs(folder, case, collection))
        for collection in ("ours", "rasteret")
        for case in CASES
    ]
    file = sample_job("all", folder / "ours.parquet", theirs(folder, "all", "ours.parquet"))
    ask(peer, folder, {"do": "build", "records": folder / "records.parquet", "collection": folder / "rasteret"})
    load(folder / "rasteret").export(folder / "again")
    ask(peer, folder, *everything, file, sample_job("all", folder / "again", theirs(folder, "all", "again")))
    return folder


def our_samples(folder: Path, case: str, collection: Collection) -> pa.Table:
    asked = CASES[case]
    points = pq.read_table(folder / f"{asked.points}.parquet")
    return collection.sample_points(points, asked.bands, **asked.options, **asked.ours)


def compared(samples: pa.Table) -> pa.Table:
    """What both sides have to have in common, in order."""
    names = [*KEY, "value", "datetime", "raster_crs", "point_crs", "point_x", "point_y", "plot"]
    shown = [name for name in ("neighbourhood_values",) if name in samples.column_names]
    types = {"datetime": pa.timestamp("us"), "neighbourhood_values": pa.list_(pa.float64())}
    chosen = samples.select(names + shown).sort_by([(name, "ascending") for name in KEY])
    for name, kind in types.items():
        if name in chosen.column_names:
            chosen = chosen.set_column(chosen.column_names.index(name), name, chosen[name].cast(kind))
    return chosen


def check_equal(ours: pa.Table, path: Path, case: str) -> None:
    asked = CASES[case]
    if "B02" in asked.bands and asked.options.get("match") != "latest":
        # Rasteret gives up a whole record that lacks one of the bands; ours gives the others.
        ours = ours.filter(pc.field("record_id") != LACKS_B02)
    ours, others = compared(ours), compared(pq.read_table(path))
    assert len(ours) >= asked.least_rows
    assert ours.column_names == others.column_names
    for name in ours.column_names:
        np.testing.assert_array_equal(*(flat(table[name]) for table in (ours, others)), err_msg=name)


def flat(column: pa.ChunkedArray) -> np.ndarray:
    """The values of a column; of a column of lists, theirs, and between them how long each is."""
    if not pa.types.is_list(column.type):
        return np.array(column.to_pylist())
    return np.array([part for row in column.to_pylist() for part in ((-1.5,) if row is None else (len(row), *row))])


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("collection", ["ours", "rasteret"])
def test_samples_of_one_collection_are_equal(sampled: Path, collection: str, case: str) -> None:
    ours = our_samples(sampled, case, load(sampled / collection))
    check_equal(ours, theirs(sampled, case, collection), case)


@pytest.mark.parametrize("collection", ["ours.parquet", "again"])
def test_one_file_and_an_export_of_what_rasteret_built(sampled: Path, collection: str) -> None:
    ours = our_samples(sampled, "all", load(sampled / collection))
    check_equal(ours, theirs(sampled, "all", collection), "all")
    assert compared(ours).equals(compared(our_samples(sampled, "all", load(sampled / "ours"))))


def test_the_cases_show_what_they_are_for(sampled: Path) -> None:
    """Nodata is met and replaced, records of every date, both zones, and each band have rows."""
    everything = our_samples(sampled, "all", load(sampled / "rasteret"))
    for name, count in {"record_id": 6, "band": 5, "raster_crs": 2, "datetime": 3}.items():
        assert pc.count_distinct(everything[name]).as_py() == count
    without = everything.filter(pc.equal(everything["record_id"], LACKS_B02))
    assert set(without["band"].to_pylist()) == set(BANDS[1:])
    plain, fallback = (our_samples(sampled, case, load(sampled / "rasteret")) for case in ("all", "fallback_2"))
    assert 0.05 < share_of_nodata(plain) < 0.15
    assert share_of_nodata(fallback) < 0.01
    newest = our_samples(sampled, "latest", load(sampled / "rasteret"))
    of_b02 = newest.filter(pc.field("band") == "B02")
    assert set(of_b02["record_id"].to_pylist()) == {"W_2", "E_1"}


def share_of_nodata(samples: pa.Table) -> float:
    values = samples.filter(pc.field("band") == "A00")["value"].to_numpy()
    return float((values == -128).mean())


def test_both_have_partitions_by_year_and_month(sampled: Path) -> None:
    for collection in ("ours", "rasteret", "again"):
        folders = {
            str(path.parent.relative_to(sampled / collection)) for path in (sampled / collection).rglob("*.parquet")
        }
        assert folders == {"year=2022/month=12", "year=2023/month=1", "year=2023/month=4"}


def test_polygons_of_a_collection_that_rasteret_built(sampled: Path) -> None:
    collection = load(sampled / "rasteret").subset(ids="W_1")
    _, left, top = PLACES["W"]
    shape = shapely.Point(left + 1000, top - 1000).buffer(500)
    paths = {"B02": "W_1_B02", "A01": "W_1_aef", "G": "W_1_rgb"}
    for band, index in {"B02": 1, "A01": 2, "G": 2}.items():
        with rasterio.open(sampled / f"{paths[band]}.tif") as dataset:
            expected, _ = rasterio.mask.mask(dataset, [shape], crop=True, indexes=index)
        found = collection.get_numpy(shape, [band], geometry_crs=32631)
        np.testing.assert_array_equal(found, expected[None], strict=True)


def test_headers_read_by_both_are_equal(sampled: Path) -> None:
    """All that an engine needs to decode a tile from the index alone."""
    ours, others = (load(sampled / name).to_table().sort_by("id") for name in ("ours", "rasteret"))
    for band in BANDS:
        mine, its = (table[f"{band}_metadata"].to_pylist() for table in (ours, others))
        assert [row is None for row in mine] == [row is None for row in its]
        for own, other in zip(mine, its, strict=True):
            if own is not None:
                assert set(own) == set(other)
                assert {name for name in own if own[name] != other[name]} == set()
