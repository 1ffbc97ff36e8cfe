"""Each transform knows the columns of its batches when the pipeline is built: rows are made of all of them."""

from pathlib import Path
from typing import Any

import apache_beam as beam
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely

from rasteret_beam import (
    Collection,
    ReadChips,
    ReadPoints,
    ReadPolygons,
    SamplePoints,
    ToRows,
    WriteSamplesToCsv,
    WriteSamplesToParquet,
    WriteZonalStatisticsToParquet,
    ZonalStatistics,
)
from tests.support.pipelines import XY, Kept, read, run

OPTIONS: dict[str, dict[str, Any]] = {
    "long": {},
    "every column": {"extra_columns": ["status", "distance", "pixel_lon", "record:eo:cloud_cover", "record:bbox"]},
    "lists": {"layout": "values", "extra_columns": ["status"]},
    "columns": {
        "layout": "columns",
        "value_type": "raw",
        "statistics": ["mean", "percentile_97.5"],
        "window_pixels": 1,
    },
    "windows": {"max_distance_pixels": 1, "return_neighbourhood": "always"},
    "left": {"join": "left", "match": "latest", "value_type": "float32"},
    "dead letters": {"on_error": "dead_letter"},
}


def extra_columns(scenes: Collection, wanted: list[str]) -> list[str]:
    return [name for name in wanted if not name.startswith("record:") or name[7:] in scenes.schema.names]


def keep(rows: Any, name: str, found: Kept) -> None:
    """The first row of each bundle, as a dict."""
    rows | f"Keep{name}" >> beam.Map(lambda row: found.append((name, row._asdict())))


@pytest.mark.slow
def test_of_points(scenes: Collection, points: pa.Table, tmp_path: Path) -> None:
    found = Kept()
    few = points.slice(0, 60).append_column("when", pa.array([1_685_577_600] * 60, pa.timestamp("s", "Asia/Tokyo")))
    pq.write_table(few, tmp_path / "points.parquet")

    def build(pipeline: beam.Pipeline) -> None:
        reading = pipeline | ReadPoints(str(tmp_path / "points.parquet"), **XY)
        keep(reading | ToRows(), "points", found)
        for name, options in OPTIONS.items():
            given = {**options}
            if "extra_columns" in given:
                given["extra_columns"] = extra_columns(scenes, given["extra_columns"])
            sampling = SamplePoints(scenes, ["B10", "B20"], with_unsampled=True, **given)
            outputs = reading | f"Sample {name}" >> sampling
            keep(outputs.samples | f"Rows {name}" >> ToRows(), name, found)
            keep(outputs.unsampled | f"Unsampled {name}" >> ToRows(), f"unsampled {name}", found)
            if outputs.dead_letters is not None:
                outputs.dead_letters | "Letters" >> ToRows()

    run(build)
    first = dict(reversed(found))
    assert {*first} >= {"points", *OPTIONS, *(f"unsampled {name}" for name in OPTIONS)}
    assert all(row["kind"] in ("a", "b") and row["when"].micros == 1_685_577_600 * 10**6 for row in first.values())
    assert len(first["lists"]["values"]) == 2 and "B10_percentile_97_5" in first["columns"]
    long = {row["record_id"] for name, row in found if name == "long" and row["point_index"] == 7}
    at = few.slice(7, 1)
    assert long == {*scenes.sample_points(at, ["B10", "B20"], **XY)["record_id"].to_pylist()}


@pytest.mark.parametrize("chips", [True, False], ids=["chips", "statistics"])
def test_of_polygons(scenes: Collection, tmp_path: Path, chips: bool) -> None:
    found = Kept()
    wkb = shapely.to_wkb([shapely.box(501_000, 5_398_000, 501_100, 5_398_100), shapely.box(0, 0, 9, 9)])
    table = pa.table({"crop": ["rye", "oats"], "geometry": pa.array(wkb, pa.binary())})
    pq.write_table(table, tmp_path / "fields.parquet")
    kind: Any = ReadChips if chips else ZonalStatistics

    def build(pipeline: beam.Pipeline) -> None:
        fields = pipeline | ReadPolygons(str(tmp_path / "fields.parquet"), geometry_crs=32631)
        outputs = fields | kind(scenes, ["B10"], match="latest", with_unmatched=True, on_error="dead_letter")
        for name, batches in outputs._asdict().items():
            keep(batches | f"Rows {name}" >> ToRows(), name, found)

    run(build)
    first = dict(found)
    main = first["chips" if chips else "statistics"]
    assert (main["crop"], main["band"], first["unmatched"]["crop"]) == ("rye", "B10", "oats")
    assert not chips or len(main["mask"]) == main["shape"][0] * main["shape"][1]


def test_files_without_rows_have_the_columns_of_the_options(scenes: Collection, tmp_path: Path) -> None:
    away = pa.table({"x": [0.0], "y": [0.0], "plot": ["a"]})
    fields = pa.table({"geometry": [shapely.to_wkb(shapely.box(0, 0, 1, 1))], "field": [7]})
    options: dict[str, Any] = {"layout": "columns", "extra_columns": ["status"], "value_type": "raw"}

    def build(pipeline: beam.Pipeline) -> None:
        samples = pipeline | ReadPoints(away, **XY) | SamplePoints(scenes, ["B10", "B20"], **options)
        samples | "Parquet" >> WriteSamplesToParquet(tmp_path / "s")
        samples | "Csv" >> WriteSamplesToCsv(tmp_path / "s.csv")
        polygons = pipeline | ReadPolygons(fields, geometry_crs=32631)
        zones = polygons | ZonalStatistics(scenes, ["B10"], geometry_crs=32631, statistics=["max"])
        zones | "Zones" >> WriteZonalStatisticsToParquet(tmp_path / "z")

    run(build)
    expected = scenes.sample_points(away, ["B10", "B20"], **XY, **options)
    assert len(expected) == 0 and read(tmp_path / "s").schema.equals(expected.schema)
    header = (tmp_path / "s.csv").read_text().strip().split(",")
    assert [name.strip('"') for name in header] == expected.schema.names
    zonal = scenes.zonal_statistics(fields, ["B10"], geometry_crs=32631, statistics=["max"])
    (written,) = tmp_path.glob("z-*.parquet")
    assert pq.read_schema(written).equals(zonal.schema)
