"""Check the extra columns that depend on the collection and the bands, and find their types."""

from collections.abc import Sequence

import pyarrow as pa

from rasteret_beam.collection.records.selection import RecordSelection
from rasteret_beam.columns import BAND_RECORD, RECORD, bands_with_records, record_names
from rasteret_beam.errors import InputError, did_you_mean, listed
from rasteret_beam.schema import CHECKSUMS, EXTRA_SUFFIX, METADATA_SUFFIX

OF_FILES = ("assets", "grids", CHECKSUMS)


def record_types(
    collection: RecordSelection, bands: Sequence[str], extra_columns: Sequence[str]
) -> dict[str, pa.DataType]:
    """The types of the columns of a collection that ``extra_columns`` name.

    Raises
    ------
    InputError
        The collection lacks a column, it holds facts of files, or the record of a band is asked for that is not among
        the bands.
    """
    _check_bands(bands, extra_columns)
    schema = collection.schema
    known = [field.name for field in columns_of_records(collection)]
    types = {}
    for name in record_names(extra_columns):
        if name in schema.names and name not in known:
            raise InputError(
                f"extra_columns have {RECORD + name!r}, but column {name} holds facts of files, of all bands; use the "
                "extra columns href, nodata, scale and offset"
            )
        if name not in known:
            near = did_you_mean(name, known)
            raise InputError(
                f"extra_columns have {RECORD + name!r}, but the collection has no column {name!r}{near}; it has "
                f"{listed(known, 40)}"
            )
        types[name] = schema.field(name).type
    return types


def columns_of_records(collection: RecordSelection) -> list[pa.Field]:
    """The columns of a collection that hold facts of records, not of files."""
    of_files = {*OF_FILES, *(band + suffix for band in collection.bands for suffix in (METADATA_SUFFIX, EXTRA_SUFFIX))}
    return [field for field in collection.schema if field.name not in of_files]


def _check_bands(bands: Sequence[str], extra_columns: Sequence[str]) -> None:
    for band in bands_with_records(extra_columns):
        if band not in bands:
            raise InputError(
                f"extra_columns have {band + BAND_RECORD!r}, but {band!r} is not one of the bands"
                f"{did_you_mean(band, bands)}; they are {listed(bands)}"
            )
