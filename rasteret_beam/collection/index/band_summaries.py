"""Summaries of a collection's columns: what the bands of its records are like, its dates, CRSs and further columns."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rasteret_beam.collection.index.extra_columns import columns_of_records
from rasteret_beam.collection.index.file_sizes import FileSizes
from rasteret_beam.collection.index.unit_columns import UnitColumns, UnitCounts
from rasteret_beam.collection.parquet.files import readable
from rasteret_beam.collection.parquet.layout import exact_nodata
from rasteret_beam.collection.parquet.row_groups import Columns, files_of
from rasteret_beam.collection.records.selection import RecordSelection
from rasteret_beam.errors import without_secrets
from rasteret_beam.kernels.tables.distinct import count_rows
from rasteret_beam.schema import EXTRA_SUFFIX, METADATA_SUFFIX

PIXELS = ("dtype", "nodata", "image_width", "image_height", "tile_width", "tile_height")
EXTRA = ("nodata_integer",)
PARTS = (*PIXELS, *EXTRA)

Kinds = Counter[tuple[Any, ...]]
"""How many records have a band with these values of :data:`PARTS`."""


@dataclass
class BandSummaries:
    """What the bands of all records are like.

    Attributes
    ----------
    bands : {band: facts}
        ``records``, their number; ``dtype`` and ``nodata``, lists of distinct values; ``width`` and ``height``,
        (least, most) pixels of a raster; ``tile_size``, list of distinct (width, height); ``tiles``, the number of all.
    units : {band: UnitCounts}
        As :func:`.unit_columns.count_units` gives them.
    files : FileSizes
    """

    bands: dict[str, dict[str, Any]]
    units: dict[str, UnitCounts]
    files: FileSizes


def summarise_bands(collection: RecordSelection) -> BandSummaries:
    """Read what the bands of all records are like, in one scan; empty for a collection without headers.

    Raises
    ------
    CollectionError
        The collection cannot be read.
    """
    bands = [band for band in collection.bands if band + METADATA_SUFFIX in collection.schema.names]
    columns = [_columns(collection.schema, number, band) for number, band in enumerate(bands)]
    of_units, units = UnitColumns(collection.schema), [UnitCounts() for _ in bands]
    kinds, files = [Kinds() for _ in bands], FileSizes()
    wanted: Columns = {"id": ("id",)}
    for number, band in enumerate(bands):
        wanted |= columns[number] | of_units.columns_to_count(number, band) | _size(collection.schema, number, band)
    with readable(without_secrets(collection.path or f"collection {collection.name!r}")):
        for file in files_of(collection.dataset, collection.filter):
            table = file.read(wanted).table
            for number, band in enumerate(bands):
                _count(kinds[number], table.select(list(columns[number])))
                of_units.count(units[number], table, number, band)
            found = dict(zip(table.column_names, table.columns, strict=True))
            files.add(*([found.get(f"{name}{at}") for at in range(len(bands))] for name in ("href", "size")))
    facts = {band: _facts(kinds[number]) for number, band in enumerate(bands)}
    return BandSummaries(facts, dict(zip(bands, units, strict=True)), files)


def _size(schema: pa.Schema, number: int, band: str) -> Columns:
    """The column with the size of the file, if there is one."""
    return {f"size{number}": (band + EXTRA_SUFFIX, "file_size")} if _has(schema, band, "file_size") else {}


def _has(schema: pa.Schema, band: str, name: str) -> bool:
    extra = band + EXTRA_SUFFIX
    return extra in schema.names and schema.field(extra).type.get_field_index(name) >= 0


def _columns(schema: pa.Schema, number: int, band: str) -> Columns:
    """The columns of :data:`PARTS` that there are; names end in the number of the band."""
    found: Columns = {f"{name}{number}": (band + METADATA_SUFFIX, name) for name in PIXELS}
    return found | {f"{name}{number}": (band + EXTRA_SUFFIX, name) for name in EXTRA if _has(schema, band, name)}


def _count(kinds: Kinds, table: pa.Table) -> None:
    """Add the records of a table that have a band; its columns are those of :data:`PARTS`, or the first of them."""
    table = table.rename_columns(list(PARTS[: table.num_columns]))
    for row, many in count_rows(table.filter(table["image_width"].is_valid())):
        kinds[tuple(row.get(name) for name in PARTS)] += many


def _facts(kinds: Kinds) -> dict[str, Any]:
    rows = [dict(zip(PARTS, kind, strict=True)) | {"records": many} for kind, many in kinds.items()]
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
