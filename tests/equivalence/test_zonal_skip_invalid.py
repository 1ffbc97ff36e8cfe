"""``skip_invalid`` of zonal statistics by brute force, and tiles that cannot be read."""

from datetime import datetime
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pyarrow as pa
import pytest
import shapely

from rasteret_beam import Collection, Quality, build_from_table
from rasteret_beam.collection.eager.zonal_groups import read_zonal_group, read_zones_again
from rasteret_beam.collection.eager.zonal_job import ZonalJob
from rasteret_beam.errors import InputError
from rasteret_beam.kernels.sampling.dead_letters import OF_ZONES, points_of
from rasteret_beam.kernels.tables.polygon_columns import choose_polygon_columns, polygon_batch
from rasteret_beam.readers.jobs.zone_reader import ZoneReader
from rasteret_beam.schema import ZONAL_DEAD_LETTER_SCHEMA
from rasteret_beam.zonal_options import ZonalOptions
from tests.support import chip_stack
from tests.support.chip_stack import LEFT, TOP, ZONE, Record, chip, ranked
from tests.support.rasters import damage_tile
from tests.support.zone_rasters import CORNER, numbers, write

CLEAR = Quality("SCL", exclude=chip_stack.CLOUD, missing="fail")
TIMES = ("2022-01-22T06:00", "2022-01-30", "2021-12-01", "2022-02-20")
BANDS = ["B1", "B2"]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Record], Collection]:
    return chip_stack.make(tmp_path_factory.mktemp("stack"))


def discs(count: int) -> gpd.GeoDataFrame:
    random = np.random.default_rng(4)
    at, size = random.uniform([150, 50], [1450, 1230], (count, 2)), random.uniform(3, 220, count)
    shapes = [
        shapely.Point(LEFT + east, TOP - south).buffer(radius, quad_segs=3)
        for (east, south), radius in zip(at, size, strict=True)
    ]
    return gpd.GeoDataFrame({"day": random.choice(TIMES, count).tolist()}, geometry=shapes, crs=ZONE)


@pytest.mark.parametrize(
    ("match", "min_valid", "most", "unscale"),
    [pytest.param("latest", 0.8, 10, False, marks=pytest.mark.slow), ("nearest", 1.0, 2, True)],
)
def test_each_band_has_the_first_record_with_enough_valid_pixels(
    stack: tuple[list[Record], Collection], match: str, min_valid: float, most: int, unscale: bool
) -> None:
    records, collection = stack
    frame = discs(14)
    timed = {} if match == "latest" else {"time_column": "day"}
    asked: dict[str, Any] = {"match": match, "min_valid": min_valid, "max_candidates": most, "unscale": unscale}
    names = ["count", "mean", "valid_fraction"]
    table = collection.zonal_statistics(
        frame, BANDS, statistics=names, skip_invalid=True, quality=[CLEAR], **asked, **timed
    )
    rows = {(row["geometry_id"], row["band"]): row for row in table.to_pylist()}
    assert len(rows) == table.num_rows
    for number, (shape, day) in enumerate(zip(frame.geometry, frame["day"], strict=True)):
        in_order = ranked(records, match, None if match == "latest" else day)
        for band in BANDS:
            each = [(record, chip(record, band, shape, rule="clouds", unscale=unscale)) for record in in_order]
            looked = [(record, found) for record, found in each if found is not None][:most]
            if not looked:
                assert (number, band) not in rows
                continue
            record, found = next((pair for pair in looked if pair[1].share >= min_valid), looked[0])
            row = rows.pop((number, band))
            values = found.pixels[found.valid].astype(np.float64)
            assert (row["record_id"], row["count"]) == (record.id, len(values))
            assert row["mean"] == (pytest.approx(values.mean(), rel=1e-12) if len(values) else None)
            assert row["valid_fraction"] == pytest.approx(found.share if found.own else 0.0)
    assert not rows


# Tiles that cannot be read


def damaged(folder: Path, names: tuple[str, ...], tile: int) -> Collection:
    """A record for each name, the first of which has a damaged tile (of 5 across)."""
    rows = []
    for at, name in enumerate(names):
        href = write(folder / f"{name}.tif", numbers((160, 160), seed=at), CORNER[0] + 800 * at, CORNER[1])
        rows.append({"id": name, "datetime": datetime(2024, 5, 1), "assets": {"B1": {"href": href, "band_index": 0}}})
    collection = build_from_table(pa.Table.from_pylist(rows), name="d")
    damage_tile(folder / f"{names[0]}.tif", tile)
    return collection


def job_of(collection: Collection, **options: Any) -> ZonalJob:
    made = ZonalOptions(on_error="dead_letter", statistics=("count", "sum"), **options)
    return ZonalJob(collection.index(["B1"], made.match_rules), collection.name, ["B1"], made)


def batch_of(frame: gpd.GeoDataFrame) -> pa.RecordBatch:
    table = pa.table({"plot": frame["plot"], "geometry": frame.geometry.to_wkb()})
    chosen = choose_polygon_columns(table.schema, geometry_crs=32631)
    return polygon_batch(table.to_batches()[0], 0, chosen)


def squares() -> gpd.GeoDataFrame:
    """In each corner of the first record, and one that reaches into the second record."""
    boxes = [(20, 20, 60, 60), (700, 20, 740, 60), (340, 340, 380, 380), (20, 700, 900, 740)]
    shapes = [
        shapely.box(CORNER[0] + left, CORNER[1] - bottom, CORNER[0] + right, CORNER[1] - top)
        for left, top, right, bottom in boxes
    ]
    return gpd.GeoDataFrame({"plot": list("abcd")}, geometry=shapes, crs=32631)


@pytest.mark.parametrize(("merge", "lost"), [("record", [("whole", 0)]), ("datetime", [(None, 0)])])
def test_lost_tiles_become_dead_letters_that_can_be_read_again(tmp_path: Path, merge: str, lost: list[Any]) -> None:
    """Polygons on other tiles have their rows; the letters give the others once the file is mended."""
    (tmp_path / "sound").mkdir(), (tmp_path / "broken").mkdir()
    names = ("whole", "beside")
    sound, broken = damaged(tmp_path / "sound", names, 24), damaged(tmp_path / "broken", names, 0)
    write(tmp_path / "sound" / "whole.tif", numbers((160, 160), seed=0), *CORNER)
    batch, reader = batch_of(squares()), ZoneReader()
    known = [rows for rows, _ in read_zonal_group(reader, job_of(sound, merge=merge), [batch])]
    job = job_of(broken, merge=merge)
    read = list(read_zonal_group(reader, job, [batch]))
    rows = pa.Table.from_batches([part.rows for part in read if not part.failed])
    (letters,) = (part.rows for part in read if part.failed)
    assert letters.schema == ZONAL_DEAD_LETTER_SCHEMA
    assert letters.select(["record_id", "band", "tile_row", "tile_col", "geometry_ids"]).to_pylist() == [
        {"record_id": "whole", "band": "B1", "tile_row": 0, "tile_col": 0, "geometry_ids": [0]}
    ]
    counts = job.counters.take()
    assert counts["zones_routed"] == counts["zones_out"] + counts["zones_dead_lettered"] == len(rows) + 1
    again = [
        part.rows
        for part in read_zones_again(reader, job_of(sound, merge=merge), "whole", "B1", points_of(letters, 0, OF_ZONES))
    ]
    both = pa.concat_tables([rows, pa.Table.from_batches(again)]).to_pylist()
    order = [("geometry_id", "ascending"), ("record_id", "ascending")]
    assert sorted(both, key=str) == sorted(pa.Table.from_batches(known).sort_by(order).to_pylist(), key=str)
    assert [(row["record_id"], row["geometry_id"]) for row in pa.Table.from_batches(again).to_pylist()] == lost
    reader.close()


def test_dead_letters_of_records_that_are_gone(tmp_path: Path) -> None:
    collection = damaged(tmp_path, ("whole", "beside"), 0)
    batch, reader = batch_of(squares()), ZoneReader()
    (letters,) = (rows for rows, failed in read_zonal_group(reader, job_of(collection), [batch]) if failed)
    other = job_of(collection.subset(ids=["beside"]))
    with pytest.raises(InputError, match="record 'whole', band B1, which the collection does not have"):
        list(read_zones_again(reader, other, "whole", "B1", points_of(letters, 0, OF_ZONES)))
    reader.close()
