"""Feed a summary with batches of any size, which it takes in blocks: small arrays take long in NumPy."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from rasteret_beam.kernels.summary.rows import Column, Part, Shape, parts, shape_of
from rasteret_beam.kernels.summary.summary import Mask, Summary, by_crs

BLOCK_ROWS = 1 << 18
"""Rows of a band that are added together."""

HELD_NUMBERS = 8 << 20
"""Numbers that are held at most, 64 MB."""

SMALL_ROWS, TOGETHER_ROWS = 2048, 16_384
"""Batches with fewer rows are put together first."""


class SampleFeed:
    """Adds batches of the sample table to a summary; :meth:`close` adds what is held."""

    def __init__(self, summary: Summary):
        self.summary = summary
        self._shape: Shape | None = None
        self._small: list[pa.RecordBatch] = []
        self._small_rows = 0
        self._held: dict[tuple[object, ...], list[Part]] = {}
        self._rows: dict[tuple[object, ...], int] = {}

    def add(self, batch: pa.RecordBatch) -> None:
        """Add a batch."""
        if not len(batch):
            return
        if self._shape is None:
            self._shape = shape_of(batch.schema, self.summary.bands or None)
        self.summary.count_points(batch)
        batch = batch.select(self._shape.read)
        if len(batch) >= SMALL_ROWS:
            self._take(batch)
            return
        self._small.append(batch)
        self._small_rows += len(batch)
        if self._small_rows >= TOGETHER_ROWS:
            self._take_small()

    def close(self) -> None:
        """Add what is held."""
        self._take_small()
        for key in [*self._held]:
            self._flush(key)

    def _take_small(self) -> None:
        small, self._small, self._small_rows = self._small, [], 0
        if small:
            self._take(small[0] if len(small) == 1 else pa.concat_batches(small))

    def _take(self, batch: pa.RecordBatch) -> None:
        assert self._shape is not None
        for crs, of_crs in by_crs(batch):
            for part in parts(of_crs, self._shape):
                self.summary.add_dates(part)
                key = crs, part.band, *part.status_names
                self._held.setdefault(key, []).append(part)
                self._rows[key] = self._rows.get(key, 0) + len(part.x)
                if self._rows[key] >= BLOCK_ROWS:
                    self._flush(key)
        width = 2 + len(self._shape.columns) * (len(self._shape.bands) if self._shape.layout == "values" else 1)
        if sum(self._rows.values()) * width > HELD_NUMBERS:
            for key in [*self._held]:
                self._flush(key)

    def _flush(self, key: tuple[object, ...]) -> None:
        assert self._shape is not None
        held = self._held.pop(key)
        del self._rows[key]
        self.summary.add_part(_together(held), int(key[0]), self._shape)  # type: ignore[call-overload]


def _together(held: Sequence[Part]) -> Part:
    """Parts of one band as one."""
    first = held[0]
    if len(held) == 1:
        return first
    values = {
        series: (
            np.concatenate([part.values[series][0] for part in held]),
            _masks([(part.values[series][1], len(part.x)) for part in held], where_none=False),
        )
        for series in first.values
    }
    return first._replace(
        x=np.concatenate([part.x for part in held]),
        y=np.concatenate([part.y for part in held]),
        values=values,
        has_record=_masks([(part.has_record, len(part.x)) for part in held], where_none=True),
        status=_codes([part.status for part in held]),
    )


def _masks(found: Sequence[tuple[Mask | None, int]], where_none: bool) -> Mask | None:
    if all(mask is None for mask, _ in found):
        return None
    return np.concatenate([np.full(rows, where_none) if mask is None else mask for mask, rows in found])


def _codes(found: Sequence[Column | None]) -> Column | None:
    there = [codes for codes in found if codes is not None]
    return np.concatenate(there) if there else None
