"""Which columns of a CSV file hold quoted values, from its bytes, block by block."""

import re
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rasteret_beam.kernels.geo.grids import Ints

QUOTE, LINE_FEED, CARRIAGE_RETURN = b'"\n\r'


class QuoteScan:
    """A look for quoted values, and for the lines at which records start.

    A quote opens a value at the start of a field only, and is a plain character elsewhere in an unquoted one; within a
    quoted value two of them stand for one. Delimiters and line breaks within quotes are part of the value.

    Parameters
    ----------
    delimiter : str
        One ASCII character.

    Attributes
    ----------
    quoted : set of int
        Numbers of the columns in which a value is quoted; the header does not count.
    unclosed_line : int or None
        After :meth:`finish`: line at which a record starts that a quote leaves without an end.
    held_bytes : int
        Bytes of the record that has not ended yet.
    """

    def __init__(self, delimiter: str):
        self.delimiter = ord(delimiter)
        self.quoted: set[int] = set()
        self.unclosed_line: int | None = None
        self._fields = re.compile(rb"(?:\A|(?<=[\n\r" + re.escape(delimiter.encode()) + rb']))"[^"]*(?:""[^"]*)*"?')
        self._held = b""
        self._past_header = False
        self._lines = 0

    @property
    def held_bytes(self) -> int:
        return len(self._held)

    def feed(self, block: bytes) -> None:
        """Take the next bytes of the file."""
        self._take(self._held + block, last=False)

    def finish(self) -> None:
        """The file has ended."""
        self._take(self._held, last=True)

    def _take(self, data: bytes, last: bool) -> None:
        if b'"' not in data:
            self._take_plain(data, last)
            return
        array = np.frombuffer(data, dtype=np.uint8)
        marks = _marks_by_parity(array, self.delimiter) or self._marks_by_field(data)
        ends = np.flatnonzero(((array == LINE_FEED) | (array == CARRIAGE_RETURN)) & ~marks.inside)
        stop = len(data) if last else int(ends[-1]) + 1 if len(ends) else 0
        self._note(array, marks, ends, stop)
        self._lines += _line_breaks(data[:stop])
        self._held = data[stop:]
        if last and marks.open:
            self.unclosed_line = self._line_of_last_record(data, ends)

    def _take_plain(self, data: bytes, last: bool) -> None:
        stop = len(data) if last else max(data.rfind(b"\n"), data.rfind(b"\r")) + 1
        self._past_header = self._past_header or bool(data[:stop].strip(b"\r\n"))
        self._lines += _line_breaks(data[:stop])
        self._held = data[stop:]

    def _note(self, array: NDArray[np.uint8], marks: "_Marks", ends: Ints, stop: int) -> None:
        """Note the columns of the quoted values that start before ``stop``, past the header."""
        starts = marks.starts[marks.starts < stop]
        if not self._past_header:
            first = int(np.argmax((array != LINE_FEED) & (array != CARRIAGE_RETURN)))
            after = ends[ends > first]
            if not len(after):
                return
            starts = starts[starts > after[0]]
            self._past_header = True
        delimiters = np.cumsum((array == self.delimiter) & ~marks.inside)
        line = np.searchsorted(ends, starts)
        before = np.where(line > 0, delimiters[ends[line - 1]] if len(ends) else 0, 0)
        self.quoted |= set(np.unique(delimiters[starts] - before).tolist())

    def _marks_by_field(self, data: bytes) -> "_Marks":
        """The same where quotes stand within unquoted values too: one quoted value after the other."""
        steps = np.zeros(len(data) + 1, dtype=np.int8)
        spans = [found.span() for found in self._fields.finditer(data)]
        starts, stops = np.array(spans, dtype=np.int64).reshape(-1, 2).T
        steps[starts] += 1
        steps[stops] -= 1
        is_open = bool(len(spans)) and spans[-1][1] == len(data) and data[spans[-1][0] :].count(b'"') % 2 == 1
        return _Marks(starts, np.cumsum(steps[:-1]) > 0, is_open)

    def _line_of_last_record(self, data: bytes, ends: Ints) -> int:
        start = int(ends[-1]) + 1 if len(ends) else 0
        return 1 + self._lines - _line_breaks(data[start:])


class _Marks(NamedTuple):
    """Where quoted values start, which bytes are within quotes, and whether a quote is open at the end."""

    starts: Ints
    inside: NDArray[np.bool_]
    open: bool


def _marks_by_parity(array: NDArray[np.uint8], delimiter: int) -> _Marks | None:
    """Every other quote opens, which holds where quotes stand at the start of fields and in quoted values alone; else
    None."""
    is_quote = array == QUOTE
    inside = np.bitwise_xor.accumulate(is_quote)
    opening = np.flatnonzero(is_quote & inside)
    before = array[np.maximum(opening - 1, 0)]
    at_start = (before == delimiter) | (before == LINE_FEED) | (before == CARRIAGE_RETURN) | (opening == 0)
    if not (at_start | (before == QUOTE)).all():
        return None
    return _Marks(opening[at_start], inside, bool(inside[-1]))


def _line_breaks(data: bytes) -> int:
    """Lines that end: at LF, CR LF or CR."""
    return data.count(b"\n") + data.count(b"\r") - data.count(b"\r\n")
