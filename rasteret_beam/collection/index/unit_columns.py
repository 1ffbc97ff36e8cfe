"""Scale and offset of bands, as the columns of a collection have them.

Our ``{band}_extra`` has those of the record table, else of the file, since the collection was built. Assets of
collections by other tools may have what a record table has: :data:`STATED`.
"""

import json
from collections.abc import Callable
from typing import Any

import pyarrow as pa

from rasteret_beam.collection.parquet.files import readable
from rasteret_beam.collection.parquet.row_groups import Columns, files_of
from rasteret_beam.collection.records.assets import stated
from rasteret_beam.collection.records.selection import RecordSelection
from rasteret_beam.errors import without_secrets
from rasteret_beam.kernels.tables.distinct import count_rows
from rasteret_beam.schema import EXTRA_SUFFIX, METADATA_SUFFIX

UNITS = ("scale", "offset")
STATED = (*UNITS, "raster:scale", "raster:offset", "raster:bands", "bands")

Units = tuple[float | None, float | None]
"""Scale and offset; None where the collection does not say."""


UnitCounts = dict[Units, int]
"""Numbers of records."""


class UnitColumns:
    """Which columns of a collection have scale and offset.

    Parameters
    ----------
    schema : pyarrow.Schema
        Of the collection.
    """

    def __init__(self, schema: pa.Schema):
        self._in_extra = {
            field.name.removesuffix(EXTRA_SUFFIX): [name for name in UNITS if field.type.get_field_index(name) >= 0]
            for field in schema
            if field.name.endswith(EXTRA_SUFFIX) and pa.types.is_struct(field.type)
        }
        assets = schema.field("assets").type if "assets" in schema.names else pa.struct([])
        self._in_assets = {
            field.name: [name for name in STATED if field.type.get_field_index(name) >= 0]
            for field in assets
            if pa.types.is_struct(field.type)
        }

    def columns(self, number: int, band: str) -> Columns:
        """Columns that :meth:`of` needs; names end in the number of the band."""
        found: Columns = {f"{name}{number}": (band + EXTRA_SUFFIX, name) for name in self._in_extra.get(band, ())}
        names = self._in_assets.get(band, ())
        return found | {f"asset {name}{number}": ("assets", band, name) for name in names}

    def columns_to_count(self, number: int, band: str) -> Columns:
        """Columns that :meth:`count` needs."""
        of_asset: Columns = {f"{name}{number}": ("assets", band, name) for name in ("href", "band_index")}
        return of_asset | self.columns(number, band)

    def count(self, found: UnitCounts, table: pa.Table, number: int, band: str) -> None:
        """Add the records of a table that have a band."""
        names = ["band_index", *(name.removesuffix(f"{number}") for name in self.columns(number, band))]
        has = table[f"href{number}"].is_valid()
        rows = pa.table({name: _plain(table[f"{name}{number}"]) for name in names}).filter(has)
        for row, many in count_rows(rows):
            pair = self.of(row.get, band, "a record")
            found[pair] = found.get(pair, 0) + many

    def of(self, fact: Callable[[str], Any], band: str, record: str) -> Units:
        """Scale and offset of a band of a record: those of its assets, else of ``{band}_extra``.

        Parameters
        ----------
        fact : callable
            From the name of a column, without the number of the band, to its value; None where there is none.

        Raises
        ------
        InputError
            A value is not a number.
        """
        asset = {name: fact(f"asset {name}") for name in self._in_assets.get(band, ())}
        said = stated(asset, {}, fact("band_index") or 0, f"asset {band!r} of {record}") if any_of(asset) else None
        scale, offset = (None, None) if said is None else (said.scale, said.offset)
        return fact("scale") if scale is None else scale, fact("offset") if offset is None else offset


def any_of(asset: dict[str, Any]) -> bool:
    return any(value is not None for value in asset.values())


def count_units(collection: RecordSelection) -> dict[str, UnitCounts]:
    """For each band the pairs of scale and offset that its records have, each with the number of these.

    Raises
    ------
    CollectionError
        The collection cannot be read.
    """
    units = UnitColumns(collection.schema)
    bands = [band for band in collection.bands if band + METADATA_SUFFIX in collection.schema.names]
    columns: Columns = {}
    for number, band in enumerate(bands):
        columns |= units.columns_to_count(number, band)
    found: dict[str, UnitCounts] = {band: {} for band in bands}
    source = without_secrets(collection.path or f"collection {collection.name!r}")
    with readable(source):
        for file in files_of(collection.dataset, collection.filter):
            table = file.read({"id": ("id",)} | columns).table
            for number, band in enumerate(bands):
                units.count(found[band], table, number, band)
    return found


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column that can be grouped: lists and structs as JSON."""
    if not pa.types.is_nested(column.type):
        return column
    return pa.chunked_array([[value and json.dumps(value) for value in column.to_pylist()]], type=pa.string())
