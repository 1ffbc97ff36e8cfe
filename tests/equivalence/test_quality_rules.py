"""Quality rules at points, on the grids of their bands, against rasterio: eager calls, pipelines, the command line."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import rasterio
from affine import Affine

from pipelines.sample_points import main
from rasteret_beam import Collection, Quality, ReadPoints, SamplePoints, WriteSamplesToParquet, build_from_table
from rasteret_beam.errors import InputError
from tests.support.commands import execute
from tests.support.pipelines import XY, read, run

LEFT, TOP, SIZE = 500_000, 4_500_000, 960
POINTS = 400


@dataclass(frozen=True)
class Band:
    """How a band is made: pixels of so many metres, shifted to the lower right by so many."""

    dtype: str
    metres: int
    shift: float = 0
    most: int = 12
    nodata: float | None = None
    mask: bool = False


BANDS = {
    "B": Band("uint16", 10, nodata=0),
    "SCL": Band("uint8", 20, nodata=0),
    "CLD": Band("float32", 60, most=100, nodata=-1),
    "QA": Band("int16", 30, shift=-7.5, most=2**15, mask=True),
}


def write(path: Path, band: Band, rng: np.random.Generator) -> None:
    side = SIZE // band.metres + 2
    pixels = rng.integers(0, band.most, (side, side)).astype(band.dtype)
    if band.dtype == "int16":
        pixels = np.where(rng.random(pixels.shape) < 0.3, -pixels - 1, pixels & 0b1100100101).astype(band.dtype)
    if band.nodata is not None:
        pixels[rng.random(pixels.shape) < 0.1] = band.nodata
    place = Affine(band.metres, 0, LEFT + band.shift, 0, -band.metres, TOP - band.shift)
    layout = {"tiled": True, "blockxsize": 16, "blockysize": 16, "crs": "EPSG:32631", "nodata": band.nodata}
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(path, "w", "GTiff", side, side, 1, dtype=band.dtype, transform=place, **layout) as out,
    ):
        out.write(pixels, 1)
        if band.mask:
            out.write_mask(rng.random(pixels.shape) > 0.1)


@dataclass(frozen=True)
class Scene:
    folder: Path
    collection: Collection
    points: pa.Table

    def at_points(self, record: str, band: str) -> tuple[np.ndarray, np.ndarray]:
        """What rasterio reads under the points: stored values, and which of them are valid."""
        with rasterio.open(self.folder / f"{record}_{band}.tif") as dataset:
            pixels, masks = dataset.read(1), dataset.read_masks(1)
            places = [dataset.index(*at) for at in zip(*(self.points[name].to_numpy() for name in "xy"), strict=True)]
        row, column = np.array(places).T
        return pixels[row, column], masks[row, column] != 0


RECORDS = {"a": ["B", "SCL", "CLD", "QA"], "b": ["B", "SCL", "QA"]}


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """Two records, the second without ``CLD``; points off the edges of pixels of every band."""
    folder = tmp_path_factory.mktemp("scene")
    rng = np.random.default_rng(8)
    assets = []
    for record, bands in RECORDS.items():
        for band in bands:
            write(folder / f"{record}_{band}.tif", BANDS[band], rng)
        hrefs = {band: {"href": f"{folder}/{record}_{band}.tif", "band_index": 0} for band in bands}
        assets.append({band: hrefs.get(band) for band in BANDS})
    fields = [(band, pa.struct([("href", pa.string()), ("band_index", pa.int32())])) for band in BANDS]
    moments = pa.array([0, 86_400_000_000], pa.timestamp("us"))
    table = pa.table({"id": [*RECORDS], "datetime": moments, "assets": pa.array(assets, pa.struct(fields))})
    collection = build_from_table(table, name="scene")
    collection.export(folder / "collection")
    x, y = (np.floor(rng.uniform(0, SIZE, POINTS)) + 0.25 for _ in "xy")
    points = pa.table({"x": LEFT + x, "y": TOP - y})
    pq.write_table(points, folder / "points.parquet")
    return Scene(folder, collection, points)


def bits(value: int) -> str:
    """The 16 bits of a stored number, the lowest first."""
    return format(int(value) % 2**16, "016b")[::-1]


PASSES = {
    "SCL not in 0,1,3,8-10": lambda value: value not in (0, 1, 3, 8, 9, 10),
    "SCL in 4-7": lambda value: value in (4, 5, 6, 7),
    "CLD <= 40": lambda value: value <= 40,
    "CLD >= 10 and <= 40.5": lambda value: 10 <= value <= 40.5,
    "QA no bits 0,15": lambda value: bits(value)[0] == "0" and bits(value)[15] == "0",
    "QA bits 8-9 not in 3": lambda value: bits(value)[8:10] != "11",
    "QA bits 8-9 not in 1,2": lambda value: bits(value)[8:10] in ("00", "11"),
    "QA >= 0": lambda value: value >= 0,
}
"""Texts of rules, and what they let pass of a stored value."""

RULES = [[text] for text in PASSES] + [["SCL in 2-9", "QA no bits 5"], ["QA no bits 0", "QA no bits 2", "CLD <= 70"]]
PASSES |= {
    "SCL in 2-9": lambda value: 2 <= value <= 9,
    "QA no bits 5": lambda value: bits(value)[5] == "0",
    "QA no bits 0": lambda value: bits(value)[0] == "0",
    "QA no bits 2": lambda value: bits(value)[2] == "0",
    "CLD <= 70": lambda value: value <= 70,
}


def valid(scene: Scene, record: str, rules: list[str]) -> np.ndarray:
    """Which points have a valid sample of band ``B``, by a loop over the points."""
    found = scene.at_points(record, "B")[1]
    for text in rules:
        values, there = scene.at_points(record, text.split()[0])
        found = found & there & np.array([PASSES[text](value) for value in values])
    return found


def rows_of(table: pa.Table) -> dict[tuple[int, str], float | None]:
    keys = zip(table["point_index"].to_pylist(), table["record_id"].to_pylist(), strict=True)
    return dict(zip(keys, table["value"].to_pylist(), strict=True))


def expected(scene: Scene, rules: list[str], invalid: str, records: str = "a") -> dict[tuple[int, str], float | None]:
    rows: dict[tuple[int, str], float | None] = {}
    for record in records:
        values, good = scene.at_points(record, "B")[0], valid(scene, record, rules)
        assert 0 < good.sum() < POINTS
        rows |= {(point, record): float(values[point]) if good[point] else None for point in range(POINTS)}
    return rows if invalid == "null" else {key: value for key, value in rows.items() if value is not None}


@pytest.mark.parametrize("invalid", ["null", "drop"])
@pytest.mark.parametrize("rules", RULES, ids=str)
def test_rules(scene: Scene, rules: list[str], invalid: str) -> None:
    """And points without a row are unsampled."""
    one = scene.collection.subset(ids="a")
    found, left = one.sample_points(scene.points, ["B"], **XY, quality=rules, invalid=invalid, return_unsampled=True)
    wanted = expected(scene, rules, invalid)
    assert rows_of(found) == wanted
    gone = sorted({*range(POINTS)} - {point for point, _ in wanted})
    assert left.sort_by("point_index")["point_index"].to_pylist() == gone
    assert set(left["reason"].to_pylist()) <= {"invalid"}


def test_rules_as_values_give_the_same_rows(scene: Scene) -> None:
    rules = [Quality("SCL", keep=range(2, 10)), Quality("QA", exclude_bits=[5])]
    found = scene.collection.sample_points(scene.points, ["B"], **XY, quality=rules, invalid="drop")
    assert rows_of(found) == expected(scene, ["SCL in 2-9", "QA no bits 5"], "drop", "ab")


@pytest.mark.parametrize(("missing", "passing"), [("pass", True), ("fail", False)])
def test_a_record_without_the_band(scene: Scene, missing: str, passing: bool) -> None:
    found = scene.collection.sample_points(
        scene.points, ["B"], **XY, quality=f"CLD <= 40 missing {missing}", invalid="null"
    )
    values, there = scene.at_points("b", "B")
    second = {(point, "b"): float(values[point]) if passing and there[point] else None for point in range(POINTS)}
    assert rows_of(found) == expected(scene, ["CLD <= 40"], "null") | second


def test_a_record_without_the_band_is_an_error(scene: Scene) -> None:
    with pytest.raises(
        InputError, match=r"^quality band CLD is not in 1 of the 2 records to sample, the first of .*'b'"
    ):
        scene.collection.sample_points(scene.points, ["B"], **XY, quality="CLD <= 40", invalid="null")


@pytest.mark.parametrize(("missing", "passing"), [("pass", True), ("fail", False)])
def test_a_collection_without_the_band(scene: Scene, missing: str, passing: bool) -> None:
    one = scene.collection.subset(ids="a")
    with pytest.raises(InputError, match=r"SLC.*\(did you mean 'SCL'\?\)"):
        one.sample_points(scene.points, ["B"], **XY, quality="SLC in 4", invalid="null")
    found = one.sample_points(scene.points, ["B"], **XY, quality=f"SLC in 4 missing {missing}", invalid="null")
    values, there = scene.at_points("a", "B")
    wanted = {(point, "a"): float(values[point]) if passing and there[point] else None for point in range(POINTS)}
    assert rows_of(found) == wanted


def test_a_quality_band_among_the_bands(scene: Scene) -> None:
    """Its rows are there only if it is asked for, and the rule decides about them too."""
    one = scene.collection.subset(ids="a")
    found = one.sample_points(scene.points, ["SCL", "B"], **XY, quality="SCL in 4-7", invalid="null")
    assert set(found["band"].to_pylist()) == {"SCL", "B"}
    values, there = scene.at_points("a", "SCL")
    of_band = found.filter(pa.compute.equal(found["band"], "SCL"))
    good = there & np.isin(values, [4, 5, 6, 7])
    assert rows_of(of_band) == {(at, "a"): float(values[at]) if good[at] else None for at in range(POINTS)}


def test_latest_with_the_next_best_record(scene: Scene) -> None:
    found = scene.collection.sample_points(
        scene.points, ["B"], **XY, quality="SCL in 4-7", match="latest", skip_invalid=True, invalid="null"
    )
    of = {record: expected(scene, ["SCL in 4-7"], "null", record) for record in "ab"}
    wanted: dict[tuple[int, str], Any] = {}
    for point in range(POINTS):
        record = "a" if of["b"][point, "b"] is None and of["a"][point, "a"] is not None else "b"
        wanted[point, record] = of[record][point, record]
    assert rows_of(found) == wanted and {record for _, record in wanted} == {"a", "b"}


def test_a_pipeline(scene: Scene, tmp_path: Path) -> None:
    rules = ["SCL in 2-9", "QA no bits 5"]

    def build(pipeline: Any) -> None:
        points = pipeline | ReadPoints(scene.points, **XY)
        samples = points | SamplePoints(scene.collection, ["B"], quality=rules, invalid="null")
        samples | WriteSamplesToParquet(str(tmp_path / "out"))

    run(build)
    assert rows_of(read(tmp_path / "out")) == expected(scene, rules, "null", "ab")


def flags(scene: Scene, *words: str) -> list[str]:
    place = [f"--points={scene.folder}/points.parquet", "--x_column=x", "--y_column=y", "--geometry_crs=32631"]
    return [*place, f"--collection={scene.folder}/collection", "--bands=B", *words]


@pytest.mark.parametrize(
    "rules", [["--quality=SCL in 2-9;QA no bits 5"], ["--quality", "SCL in 2-9", "--quality", "QA no bits 5"]], ids=len
)
def test_the_command(scene: Scene, tmp_path: Path, rules: list[str]) -> None:
    done = execute(main, *flags(scene, *rules, "--invalid=drop", f"--output={tmp_path}/out"))
    assert (done.code, done.err) == (0, "")
    wanted = expected(scene, ["SCL in 2-9", "QA no bits 5"], "drop", "ab")
    assert rows_of(read(tmp_path / "out")) == wanted and done.figures["rows"] == len(wanted)


def test_the_command_without_the_band(scene: Scene, tmp_path: Path) -> None:
    output = f"--output={tmp_path}/out"
    for rule, named in (("CLD <= 40", "quality band CLD is not in 1 of"), ("SLC in 4", "did you mean 'SCL'?")):
        done = execute(main, *flags(scene, f"--quality={rule}", "--invalid=null", output))
        assert done.code == 1 and named in done.err and done.err.count("\n") == 1, done.err
    assert not [*tmp_path.iterdir()]


def test_the_plan_of_the_command(scene: Scene) -> None:
    done = execute(main, *flags(scene, "--quality=SCL in 2-9", "--invalid=drop", "--plan"))
    assert (done.code, done.err) == (0, "")


def test_rules_that_decide_nothing(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    """The raw values stay, and a warning tells the ways out."""
    found = scene.collection.sample_points(scene.points, ["B"], **XY, quality="SCL in 4")
    values = {record: scene.at_points(record, "B")[0] for record in "ab"}
    wanted = {(at, record): float(values[record][at]) for record in "ab" for at in range(POINTS)}
    assert rows_of(found) == wanted
    assert [each.getMessage().startswith("the quality rules (SCL in 4) change no row") for each in caplog.records] == [
        True
    ]
