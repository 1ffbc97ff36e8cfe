"""What masking has to know of the bands of records: dtype, nodata value, and whether their files may have masks."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rasteret_beam.collection.checks import check_dtypes
from rasteret_beam.collection.storage import readable
from rasteret_beam.errors import without_secrets
from rasteret_beam.kernels.grids import Ints
from rasteret_beam.readers.chips import BandFacts
from rasteret_beam.schema import EXTRA_SUFFIX, METADATA_SUFFIX

if TYPE_CHECKING:
    from rasteret_beam.collection.collection import Collection

MASKS_IN_FILE = ("per_dataset", "alpha")


class FactTable:
    """The facts of some bands of records, as numbers of a few distinct ones: four bytes a record and band.

    Attributes
    ----------
    bands : tuple of str
    distinct : list of BandFacts or None
        None stands for a band that a record lacks.
    """

    def __init__(self, bands: Sequence[str]):
        self.bands = tuple(bands)
        self.distinct: list[BandFacts | None] = []
        self._numbers: dict[tuple[str | None, str, bool], int] = {}
        self._rows: dict[str, int] = {}
        self._parts: list[NDArray[np.int32]] = []
        self._codes = np.empty((0, len(self.bands)), dtype=np.int32)

    def of(self, record_id: str, bands: Sequence[str] | None = None) -> list[BandFacts]:
        """Facts of some bands (by default all) of a record that has them."""
        codes = self._codes[self._rows[record_id]]
        found = [self.distinct[codes[self.bands.index(band)]] for band in (self.bands if bands is None else bands)]
        return [fact for fact in found if fact is not None]

    def add(self, batch: pa.RecordBatch) -> None:
        """Take in rows of ``id``, and of ``dtype``, ``nodata`` and ``mask`` with the number of each band."""
        for record_id in batch["id"].to_pylist():
            self._rows[record_id] = len(self._rows)
        columns = [self._coded(batch, number) for number in range(len(self.bands))]
        self._parts.append(np.stack(columns, axis=1))

    def finish(self) -> None:
        """Put together what was taken in."""
        self._codes = np.concatenate([self._codes, *self._parts])
        self._parts.clear()

    def _coded(self, batch: pa.RecordBatch, number: int) -> NDArray[np.int32]:
        names = [f"{part}{number}" for part in ("dtype", "nodata", "mask")]
        parts = [batch[name] if name in batch.schema.names else pa.nulls(len(batch), pa.string()) for name in names]
        encoded = [pc.dictionary_encode(part, null_encoding="encode") for part in parts]
        combined: Ints = np.zeros(len(batch), dtype=np.int64)
        for part in encoded:
            combined = combined * max(1, len(part.dictionary)) + part.indices.to_numpy()
        _, first, inverse = np.unique(combined, return_index=True, return_inverse=True)
        codes = [self._number(*(part[int(row)].as_py() for part in parts)) for row in first]
        return np.array(codes, dtype=np.int32)[inverse.reshape(-1)]

    def _number(self, dtype: str | None, nodata: float | None, mask: str | None) -> int:
        # A collection that does not say what masks its files have leaves it to the files.
        masked = mask is None or any(kind in mask for kind in MASKS_IN_FILE)
        key = (dtype, repr(nodata), masked)
        if key not in self._numbers:
            self._numbers[key] = len(self.distinct)
            self.distinct.append(None if dtype is None else BandFacts(np.dtype(dtype), nodata, masked))
        return self._numbers[key]


def read_facts(collection: "Collection", bands: Sequence[str], record_ids: Sequence[str] | None = None) -> FactTable:
    """The facts of some bands of a collection's records, by default of all of them.

    Raises
    ------
    CollectionError
        A dtype is unknown, or the collection cannot be read.
    """
    columns = {"id": pc.field("id")}
    for number, band in enumerate(bands):
        columns[f"dtype{number}"] = pc.field(band + METADATA_SUFFIX, "dtype")
        columns[f"nodata{number}"] = pc.field(band + METADATA_SUFFIX, "nodata")
        if band + EXTRA_SUFFIX in collection.schema.names:
            columns[f"mask{number}"] = pc.field(band + EXTRA_SUFFIX, "mask")
    chosen = collection.filter
    if record_ids is not None:
        wanted = pc.field("id").isin(pa.array(record_ids, type=collection.schema.field("id").type))
        chosen = wanted if chosen is None else chosen & wanted
    table = FactTable(bands)
    source = without_secrets(collection.path or f"collection {collection.name!r}")
    with readable(source):
        for batch in collection.dataset.to_batches(columns=columns, filter=chosen):
            if len(batch):
                check_dtypes(batch, bands, source)
                table.add(batch)
    table.finish()
    return table
