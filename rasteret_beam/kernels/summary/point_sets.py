"""Sets of row numbers, an eighth of a byte each."""

import numpy as np
from numpy.typing import NDArray

from rasteret_beam.kernels.summary.tally import Ints
from rasteret_beam.kernels.summary.values import counted

PAGE = 1 << 20
"""Numbers of a page, which is there if it has any."""

MOST_PAGES = 1024
"""128 MB, for a thousand million numbers; those beyond these pages, such as random ids, take 8 bytes each."""


class PointSet:
    """A set of integers."""

    def __init__(self) -> None:
        self.pages: dict[int, NDArray[np.uint8]] = {}
        self.others: Ints = np.empty(0, dtype=np.int64)

    def add(self, numbers: Ints) -> None:
        """Add numbers [n], in any order, repeated or not."""
        if not len(numbers):
            return
        found = counted(numbers)[0]
        of_page = found // PAGE
        edges = np.append(np.flatnonzero(np.diff(of_page, prepend=of_page[0] - 1)), len(found))
        far = []
        for first, stop in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
            number, inside = int(of_page[first]), found[first:stop] % PAGE
            if number not in self.pages and len(self.pages) >= MOST_PAGES:
                far.append(found[first:stop])
                continue
            starts = np.flatnonzero(np.diff(inside >> 3, prepend=-1))
            bits = np.bitwise_or.reduceat((1 << (inside & 7)).astype(np.uint8), starts)
            self._page(number)[inside[starts] >> 3] |= bits
        if far:
            self.others = np.union1d(self.others, np.concatenate(far))

    def _page(self, number: int) -> NDArray[np.uint8]:
        return self.pages.setdefault(number, np.zeros(PAGE // 8, dtype=np.uint8))

    def __len__(self) -> int:
        return sum(int(np.unpackbits(page).sum()) for page in self.pages.values()) + len(self.others)

    def only_here(self, other: "PointSet") -> int:
        """How many of these numbers another set lacks."""
        both = PointSet()
        both.pages = {number: page.copy() for number, page in self.pages.items()}
        both.others = self.others
        for number, page in other.pages.items():
            both._page(number)[:] |= page
        both.others = np.union1d(both.others, other.others)
        twice = [number for number in both.others.tolist() if _has(both.pages, number)]
        return len(both) - len(twice) - len(other)


def _has(pages: dict[int, NDArray[np.uint8]], number: int) -> bool:
    page, inside = pages.get(number // PAGE), number % PAGE
    return page is not None and bool(page[inside >> 3] >> (inside & 7) & 1)
