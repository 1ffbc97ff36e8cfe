"""Summaries of a collection's columns: what the bands of its records are like, its dates, CRSs and further columns."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rasteret_beam.collection.index.extra_columns import columns_of_records
from rasteret_beam.collection.parquet.files import readable
from rasteret_beam.collection.parquet.layout import exact_nodata
from rasteret_beam.collection.parquet.row_groups import Columns, files_of
from rasteret_beam.collection.records.selection import RecordSelection
from rasteret_beam.errors import without_secrets
from rasteret_beam.schema import EXTRA_SUFFIX, METADATA_SUFFIX

PIXELS = ("dtype", "nodata", "image_width", "image_height", "tile_width", "tile_height")
EXTRA = ("nodata_integer",)

Kinds = Counter[tuple[Any, ...]]
"""How many records have a band with these values of :data:`PIXELS` and :data:`EXTRA`."""


def summarise_bands(collection: RecordSelection) -> dict[str, dict[str, Any]]:
    """What the bands of all records are like; empty for a collection without headers.

    Returns
    -------
    {band: facts}
        ``records``, their number; ``dtype`` and ``nodata``, lists of distinct values; ``width`` and ``height``,
        (least, most) pixels of a raster; ``tile_size``, list of distinct (width, height); ``tiles``, the number of all.

    Raises
    ------
    CollectionError
        The collection cannot be read.
    """
    bands = [band for band in collection.bands if band + METADATA_SUFFIX in collection.schema.names]
    columns: dict[str, Columns] = {band: _columns(collection.schema, band) for band in bands}
    kinds: dict[str, Kinds] = {band: Counter() for band in bands}
    wanted: Columns = {f"{name} {band}": path for band in bands for name, path in columns[band].items()}
    with readable(without_secrets(collection.path or f"collection {collection.name!r}")):
        for file in files_of(collection.dataset, collection.filter):
            table = file.read({"id": ("id",)} | wanted).table
            for band in bands:
                _count(kinds[band], table.select([f"{name} {band}" for name in columns[band]]), list(columns[band]))
    return {band: _facts(kinds[band]) for band in bands}


def _columns(schema: pa.Schema, band: str) -> Columns:
    found: Columns = {name: (band + METADATA_SUFFIX, name) for name in PIXELS}
    extra = band + EXTRA_SUFFIX
    there = schema.field(extra).type if extra in schema.names else pa.struct([])
    return found | {name: (extra, name) for name in EXTRA if there.get_field_index(name) >= 0}


def _count(kinds: Kinds, table: pa.Table, names: list[str]) -> None:
    """Add the records of a table that have a band."""
    table = table.rename_columns(names)
    grouped = table.filter(table["image_width"].is_valid()).group_by(names).aggregate([([], "count_all")])
    for row in grouped.to_pylist():
        kinds[tuple(row.get(name) for name in (*PIXELS, *EXTRA))] += row["count_all"]


def _facts(kinds: Kinds) -> dict[str, Any]:
    rows = [dict(zip((*PIXELS, *EXTRA), kind, strict=True)) | {"records": many} for kind, many in kinds.items()]
    nodata = [exact_nodata(row["nodata"], row["nodata_integer"]) for row in rows]
    return {
        "records": sum(row["records"] for row in rows),
        "dtype": list(dict.fromkeys(row["dtype"] for row in rows)),
        "nodata": sorted({repr(value): value for value in nodata if value is not None}.values()),
        "width": _ends([row["image_width"] for row in rows]),
        "height": _ends([row["image_height"] for row in rows]),
        "tile_size": sorted({(row["tile_width"], row["tile_height"]) for row in rows if row["tile_width"]}),
        "tiles": sum(_tiles(row) * row["records"] for row in rows),
    }


def _ends(values: list[int]) -> tuple[int, int] | None:
    return (min(values), max(values)) if values else None


def _tiles(row: Mapping[str, Any]) -> int:
    """Tiles of a raster; one of unknown tile size counts as one."""
    width, height = row["tile_width"] or row["image_width"], row["tile_height"] or row["image_height"]
    return -(-row["image_width"] // width) * -(-row["image_height"] // height)


def count_months(collection: RecordSelection) -> tuple[dict[str, int], int]:
    """The number of records in each month ("2023-06"), in order, and of those without a datetime."""
    moments = collection.to_table(["datetime"])["datetime"]
    there = moments.drop_null().to_numpy().astype("datetime64[M]")
    months, numbers = np.unique(there, return_counts=True)
    return {str(month): int(many) for month, many in zip(months, numbers, strict=True)}, moments.null_count


def count_crs(collection: RecordSelection) -> dict[str, int]:
    """The number of records in each CRS, the most frequent first."""
    name = "crs" if "crs" in collection.schema.names else "proj:epsg"
    if name not in collection.schema.names:
        return {}
    found = {row["values"]: row["counts"] for row in pc.value_counts(collection.to_table([name])[name]).to_pylist()}
    named = {str(key) if name == "crs" else f"EPSG:{key}": many for key, many in found.items() if key}
    return dict(sorted(named.items(), key=lambda pair: (-pair[1], pair[0])))


def further_columns(collection: RecordSelection) -> dict[str, str]:
    """Columns of the records that the layout does not have, such as ``eo:cloud_cover``, and their types."""
    return {field.name: str(field.type) for field in columns_of_records(collection) if field.name not in LAYOUT}


LAYOUT = (
    "id",
    "datetime",
    "geometry",
    "bbox",
    "proj:epsg",
    "crs",
    "year",
    "month",
    "footprint_crs",
    "start_datetime",
    "end_datetime",
)
"""Columns of every collection."""
