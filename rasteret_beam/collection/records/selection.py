"""The interface of collections for functions that read the selected records."""

from typing import Protocol

import pyarrow as pa
import pyarrow.dataset as ds

from rasteret_beam.model import Access


class RecordSelection(Protocol):
    """The parts of :class:`rasteret_beam.Collection` that read its records.

    Functions of a collection take this, so that their modules need not import the collection, which imports them.
    """

    @property
    def name(self) -> str: ...

    @property
    def path(self) -> str | None: ...

    @property
    def data_source(self) -> str: ...

    @property
    def dataset(self) -> ds.Dataset: ...

    @property
    def filter(self) -> ds.Expression | None: ...

    @property
    def schema(self) -> pa.Schema: ...

    @property
    def bands(self) -> list[str]: ...

    @property
    def bounds(self) -> tuple[float, float, float, float] | None: ...

    @property
    def bounds_crs(self) -> str | None: ...

    @property
    def crs(self) -> list[str]: ...

    @property
    def raster_access(self) -> Access: ...

    def __len__(self) -> int: ...

    def where(self, expr: ds.Expression) -> "RecordSelection": ...

    def to_table(self, columns: list[str] | None = None) -> pa.Table: ...
