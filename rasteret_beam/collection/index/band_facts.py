"""Data types and nodata values of bands, which chips need before a file is opened."""

import logging
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rasteret_beam.collection.parquet.checks import check_dtypes
from rasteret_beam.collection.parquet.files import readable
from rasteret_beam.collection.parquet.layout import exact_nodata
from rasteret_beam.collection.parquet.row_groups import Columns, files_of
from rasteret_beam.collection.records.selection import RecordSelection
from rasteret_beam.errors import listed, without_secrets
from rasteret_beam.kernels.geo.grids import Ints
from rasteret_beam.kernels.sampling.validity import LONG_INTEGERS
from rasteret_beam.kernels.sampling.value_types import StoredTypes, ValueTypes, plain_types, raw_types
from rasteret_beam.options import SampleOptions
from rasteret_beam.readers.jobs.chip_reader import BandFacts
from rasteret_beam.schema import EXTRA_SUFFIX, METADATA_SUFFIX

log = logging.getLogger(__name__)

PARTS = ("dtype", "nodata", "nodata_integer")


class FactTable:
    """The facts of bands of records, stored as numbers of distinct values: four bytes per record and band.

    Attributes
    ----------
    bands : tuple of str
    distinct : list of BandFacts or None
        None for a band that a record lacks.
    """

    def __init__(self, bands: Sequence[str]):
        self.bands = tuple(bands)
        self._place = {band: number for number, band in enumerate(bands)}
        self.distinct: list[BandFacts | None] = []
        self._numbers: dict[tuple[str | None, str], int] = {}
        self._rows: dict[str, int] = {}
        self._parts: list[NDArray[np.int32]] = []
        self._codes = np.empty((0, len(self.bands)), dtype=np.int32)

    def of(self, record_id: str, bands: Sequence[str] | None = None) -> list[BandFacts]:
        """Facts of some bands (by default all) of a record."""
        codes = self._codes[self._rows[record_id]]
        found = [self.distinct[codes[self._place[band]]] for band in (self.bands if bands is None else bands)]
        return [fact for fact in found if fact is not None]

    def nodata_of(self) -> dict[str, list[float]]:
        """The nodata values that each band has in some record."""
        found: dict[str, list[float]] = {}
        for number, band in enumerate(self.bands):
            facts = [self.distinct[code] for code in np.unique(self._codes[:, number])]
            values = {float(fact.nodata) for fact in facts if fact is not None and fact.nodata is not None}
            found[band] = sorted(value for value in values if not np.isnan(value))
        return found

    def add(self, batch: pa.RecordBatch) -> None:
        """Add rows of ``id`` and of :data:`PARTS` with the number of each band."""
        for record_id in batch["id"].to_pylist():
            self._rows[record_id] = len(self._rows)
        found = dict(zip(batch.schema.names, batch.columns, strict=True))
        columns = [self._coded(found, number, len(batch)) for number in range(len(self.bands))]
        self._parts.append(np.stack(columns, axis=1))

    def finish(self) -> None:
        """Combine the added rows."""
        self._codes = np.concatenate([self._codes, *self._parts])
        self._parts.clear()

    def _coded(self, columns: dict[str, pa.Array], number: int, rows: int) -> NDArray[np.int32]:
        names = [f"{part}{number}" for part in PARTS]
        parts = [columns[name] if name in columns else pa.nulls(rows, pa.string()) for name in names]
        encoded = [pc.dictionary_encode(part, null_encoding="encode") for part in parts]
        combined: Ints = np.zeros(rows, dtype=np.int64)
        for part in encoded:
            combined = combined * max(1, len(part.dictionary)) + part.indices.to_numpy()
        _, first, inverse = np.unique(combined, return_index=True, return_inverse=True)
        codes = [self._number(*(part[int(row)].as_py() for part in parts)) for row in first]
        return np.array(codes, dtype=np.int32)[inverse.reshape(-1)]

    def _number(self, dtype: str | None, nodata: float | None, digits: str | None) -> int:
        nodata = exact_nodata(nodata, digits)
        key = (dtype, repr(nodata))
        if key not in self._numbers:
            self._numbers[key] = len(self.distinct)
            self.distinct.append(None if dtype is None else BandFacts(np.dtype(dtype), nodata))
        return self._numbers[key]


def _with_nodata_integer(schema: pa.Schema) -> set[str]:
    """Bands whose columns can hold every integer as a nodata value."""
    extra = [field for field in schema if field.name.endswith(EXTRA_SUFFIX) and pa.types.is_struct(field.type)]
    return {
        field.name.removesuffix(EXTRA_SUFFIX) for field in extra if field.type.get_field_index("nodata_integer") >= 0
    }


def read_facts(collection: RecordSelection, bands: Sequence[str], record_ids: Sequence[str] | None = None) -> FactTable:
    """The facts of some bands, of all records of a collection or of the given ones.

    Raises
    ------
    CollectionError
        A dtype is unknown, or the collection cannot be read.
    """
    columns: Columns = {"id": ("id",)}
    exact = _with_nodata_integer(collection.schema)
    for number, band in enumerate(bands):
        columns[f"dtype{number}"] = (band + METADATA_SUFFIX, "dtype")
        columns[f"nodata{number}"] = (band + METADATA_SUFFIX, "nodata")
        if band in exact:
            columns[f"nodata_integer{number}"] = (band + EXTRA_SUFFIX, "nodata_integer")
    chosen = collection.filter
    if record_ids is not None:
        wanted = pc.field("id").isin(pa.array(record_ids, type=collection.schema.field("id").type))
        chosen = wanted if chosen is None else chosen & wanted
    table = FactTable(bands)
    source = without_secrets(collection.path or f"collection {collection.name!r}")
    with readable(source):
        for file in files_of(collection.dataset, chosen):
            for batch in file.read(columns).table.combine_chunks().to_batches():
                check_dtypes(batch, bands, source)
                table.add(batch)
    table.finish()
    return table


def first_records(collection: RecordSelection, columns: Columns) -> pa.Table:
    """Columns of the first record and the rest of its row group; empty for an empty collection."""
    for file in files_of(collection.dataset, collection.filter):
        found = file.read({"id": ("id",)})
        if len(found.position):
            first, unit = int(found.position[0]), 0
            while first >= found.sizes[unit]:
                first, unit = first - int(found.sizes[unit]), unit + 1
            return found.units[unit].read(columns).slice(first)
    return pa.table({})


def sample_types(collection: RecordSelection, bands: Sequence[str], options: SampleOptions) -> ValueTypes:
    """Types of the values of some bands in the sample table; of all records, if the files' own are wanted.

    Raises
    ------
    InputError
        The types of the files do not go together.
    CollectionError
        A dtype is unknown, or the collection cannot be read.
    """
    if options.value_type != "raw":
        return plain_types(options, bands)
    return raw_types(options.layout, stored_types(collection, bands))


def stored_types(collection: RecordSelection, bands: Sequence[str]) -> StoredTypes:
    """For each band the dtypes that records have, each with the id of the first record.

    Raises
    ------
    CollectionError
        A dtype is unknown, or the collection cannot be read.
    """
    columns: Columns = {f"dtype{number}": (band + METADATA_SUFFIX, "dtype") for number, band in enumerate(bands)}
    found: dict[str, dict[str, str]] = {band: {} for band in bands}
    source = without_secrets(collection.path or f"collection {collection.name!r}")
    with readable(source):
        for file in files_of(collection.dataset, collection.filter):
            for batch in file.read({"id": ("id",)} | columns).table.combine_chunks().to_batches():
                check_dtypes(batch, bands, source)
                for band, name in zip(bands, columns, strict=True):
                    for dtype in pc.unique(batch[name].drop_null()).to_pylist():
                        if dtype not in found[band]:
                            found[band][dtype] = batch["id"][pc.index(batch[name], dtype).as_py()].as_py()
    return found


def warn_of_rounding(collection: RecordSelection, bands: Sequence[str], options: SampleOptions) -> None:
    """Log once if stored numbers of some bands may be rounded, according to the first row group."""
    value_type = options.value_type
    if value_type == "raw" or options.unscale:
        return
    columns: Columns = {band: (band + METADATA_SUFFIX, "dtype") for band in bands}
    found = first_records(collection, columns)
    kinds = {band: pc.unique(column).to_pylist() for band, column in zip(columns, found.columns, strict=False)}
    rounded = LONG_INTEGERS if value_type == "float64" else (*LONG_INTEGERS, "int32", "uint32")
    pairs = [(band, kind) for band, each in kinds.items() for kind in each if kind in rounded]
    if pairs:
        log.warning(
            "band(s) %s are %s: values beyond 2^%s are rounded, as value_type is %r; value_type='raw' keeps them exact",
            listed(dict.fromkeys(band for band, _ in pairs)),
            listed(dict.fromkeys(kind for _, kind in pairs)),
            53 if value_type == "float64" else 24,
            value_type,
        )
