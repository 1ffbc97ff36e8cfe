"""Checks of a record's bands when their assets are read."""

import json
from collections.abc import Mapping

import pyarrow as pa

from rasteret_beam.collection.index.band_columns import METADATA_FIELDS
from rasteret_beam.collection.parquet.checks import AGAIN, check_band
from rasteret_beam.collection.parquet.checksums import Checksums
from rasteret_beam.collection.parquet.row_groups import Columns
from rasteret_beam.errors import CollectionError, without_secrets
from rasteret_beam.schema import METADATA_SUFFIX

PLACES = ("tile_offsets", "tile_byte_counts")

FACTS = ("href", "band_index", "dtype", *METADATA_FIELDS)


class BandChecks:
    """Check that facts of bands are plausible, and compare their checksums if the collection has any.

    Parameters
    ----------
    schema : pyarrow.Schema
        Of the collection.
    """

    def __init__(self, schema: pa.Schema):
        self._names = frozenset(schema.names)
        self._checksums = Checksums(schema)

    def columns(self, bands: tuple[str, ...]) -> Columns:
        """Further columns that :meth:`check` needs; names of a band's columns end in its number."""
        columns: Columns = {name: (name,) for name in ("id", "grids") if name in self._names}
        for number, band in enumerate(bands):
            if band + METADATA_SUFFIX in self._names:
                columns |= {f"{name}{number}": (band + METADATA_SUFFIX, name) for name in METADATA_FIELDS}
            columns |= self._checksums.columns(number, band)
        return columns

    def check(
        self, columns: Mapping[str, pa.Array], row: int, record_id: str, bands: tuple[str, ...], path: str
    ) -> None:
        """Refuse a row of a file that has another record than expected, or facts of bands that cannot be true.

        Raises
        ------
        CollectionError
        """
        source = without_secrets(path)
        there = columns["id"][row].as_py()
        if there != record_id:
            raise CollectionError(
                f"{source} was rewritten while it was read: record {there!r} replaces {record_id!r}; start again"
            )
        grids = columns["grids"][row].as_py() if "grids" in columns else []
        grid_of = {band: grid for grid in grids for band in json.loads(grid["bands"])}
        for number, band in enumerate(bands):
            named = ((name, f"{name}{number}") for name in FACTS)
            facts = {name: columns[column][row].as_py() for name, column in named if column in columns}
            check_band(facts, grid_of.get(band), band, f"record {record_id!r} of {source}")
            for name in PLACES:
                values = columns[f"{name}{number}"][row].values if f"{name}{number}" in columns else None
                if values is not None and values.null_count:
                    column = f"{band}{METADATA_SUFFIX}.{name}"
                    raise CollectionError(f"record {record_id!r} of {source}: {column} holds a null; {AGAIN}")
        self._checksums.check(columns, row, bands, source)
