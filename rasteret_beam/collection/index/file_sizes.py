"""The number and size of the files of records, from the columns of a collection."""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc


@dataclass
class FileSizes:
    """Totals of the records that are added; a file with several bands of a record counts once for it.

    Attributes
    ----------
    files, bytes : int
    unknown : int
        Files whose size the collection does not have.
    """

    files: int = 0
    bytes: int = 0
    unknown: int = 0

    def add(self, hrefs: Sequence[pa.ChunkedArray], sizes: Sequence[pa.ChunkedArray | None]) -> None:
        """Add records, by the files of their bands [b] and the sizes of these."""
        seen: list[pa.ChunkedArray] = []
        for href, size in zip(hrefs, sizes, strict=True):
            new = href.is_valid()
            for other in seen:
                new = pc.and_not(new, pc.fill_null(pc.equal(href, other), False))
                if not pc.any(new).as_py():
                    break
            many = pc.sum(new).as_py() or 0
            if many:
                seen.append(href)
                self._add(new, size, many)

    def _add(self, new: pa.ChunkedArray, size: pa.ChunkedArray | None, many: int) -> None:
        known = pa.nulls(0, pa.int64()) if size is None else size.filter(new).drop_null()
        self.files += many
        self.bytes += pc.sum(known).as_py() or 0
        self.unknown += many - len(known)
