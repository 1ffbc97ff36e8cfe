"""The format of CSV files, and their conversion to UTF-8."""

import codecs
import os
from dataclasses import dataclass
from threading import Lock

import pyarrow as pa
from apache_beam.io.filesystem import BeamIOError

from rasteret_beam.errors import InputError, MissingInputError, one_line, without_secrets
from rasteret_beam.kernels.tables.csv_quotes import QuoteScan
from rasteret_beam.model import Access
from rasteret_beam.transforms.runtime.files import name_of, open_file

MAX_RECORD_BYTES = 64 << 20
PACKED = {".gz": "gzip", ".bz2": "bz2"}
TABS = ("\\t", "tab")
"""The text for a tab on a command line."""

ENCODING_HINT = "give the file's encoding with csv_encoding (--csv_encoding), such as cp1252"

LONG_RECORD = "straddling object"
"""Arrow's error about a record that is longer than a block."""


@dataclass(frozen=True)
class CsvFormat:
    """The format of CSV files. Attributes
    ----------
    delimiter : str, optional
        One ASCII character; by default a tab in ``.tsv`` files, otherwise a comma.
    decimal : str
        The decimal separator of numbers: ``.`` or ``,``.
    encoding : str
        Python's name of the encoding.

    Raises
    ------
    InputError
    """

    delimiter: str | None = None
    decimal: str = "."
    encoding: str = "utf-8"

    def __post_init__(self) -> None:
        if self.delimiter in TABS:
            object.__setattr__(self, "delimiter", "\t")
        if self.delimiter is not None and (
            len(self.delimiter) != 1 or not self.delimiter.isascii() or self.delimiter in '"\r\n'
        ):
            raise InputError(
                f"csv_delimiter is {self.delimiter!r}; give one ASCII character, such as ';' or '\\t', other than a "
                "quote or line break"
            )
        if self.decimal not in (".", ","):
            raise InputError(f"csv_decimal is {self.decimal!r}; give '.' or ','")
        if self.decimal == self.delimiter:
            raise InputError(f"csv_decimal and csv_delimiter are both {self.decimal!r}; change one of them")
        try:
            is_text = codecs.lookup(self.encoding)._is_text_encoding
        except (LookupError, ValueError):
            is_text = False
        if not is_text:
            raise InputError(
                f"csv_encoding is {self.encoding!r}, which is not a Python encoding; give one such as cp1252, "
                "latin-1 or utf-16"
            )

    def delimiter_of(self, path: str) -> str:
        """The delimiter of a file."""
        is_tabbed = name_of(path).removesuffix(".gz").removesuffix(".bz2").endswith(".tsv")
        return self.delimiter or ("\t" if is_tabbed else ",")

    def given(self) -> list[str]:
        """The settings that differ from the defaults, by argument."""
        names = ("delimiter", "decimal", "encoding")
        return [f"csv_{name}" for name in names if getattr(self, name) != getattr(COMMAS, name)]


COMMAS = CsvFormat()
"""The default format."""


class CsvStream:
    """The decompressed bytes of a CSV file in UTF-8 without a byte order mark, as a file object for Arrow.

    Bytes that are invalid in the encoding are kept, so that Arrow reports them with their position.
    """

    closed = False

    def __init__(self, path: str, access: Access, encoding: str, scan: QuoteScan | None = None):
        self._name, self._encoding, self._scan = without_secrets(path), encoding, scan
        try:
            raw = open_file(path, access, to_the_end=True)
        except (OSError, BeamIOError) as error:
            raise MissingInputError(f"{self._name} cannot be opened: {one_line(error)}") from error
        self._file = pa.input_stream(raw, compression=PACKED.get(os.path.splitext(name_of(path))[1]))
        self._raw = raw
        is_utf8 = codecs.lookup(self._encoding).name in ("utf-8", "utf-8-sig")
        self._decoder = None if is_utf8 else codecs.getincrementaldecoder(self._encoding)("surrogateescape")
        self._held = self._last = b""
        self._begun = self._ended = False
        self._lock = Lock()

    def read(self, size: int) -> bytes:
        """At most ``size`` bytes; empty at the end of the file or once it is closed."""
        with self._lock:  # Arrow reads ahead on another thread, possibly after the file was closed
            return self._read(size) if not self.closed else b""

    def _read(self, size: int) -> bytes:
        while len(self._held) < size and not self._ended:
            self._draw(size)
        block, self._held = self._held[:size], self._held[size:]
        if self._scan is not None:
            if block:
                self._scan.feed(block)
                if self._scan.held_bytes > MAX_RECORD_BYTES:
                    raise pa.ArrowInvalid(LONG_RECORD)
            else:
                self._scan.finish()
        return block

    def _draw(self, size: int) -> None:
        raw = bytes(self._file.read(size))
        self._ended = not raw
        if self._decoder is not None:
            try:
                raw = self._decoder.decode(raw, final=self._ended).encode(errors="surrogateescape")
            except UnicodeError as error:
                raise InputError(f"{self._name} is not {self._encoding}: {one_line(error)}; {ENCODING_HINT}") from error
        self._held += raw
        if self._ended and self._last not in b"\r\n":
            self._held += b"\n"  # Arrow ignores a header without a line break
        self._last = self._held[-1:] or self._last
        if not self._begun and (len(self._held) >= len(codecs.BOM_UTF8) or self._ended):
            self._held = self._held.removeprefix(codecs.BOM_UTF8)
            self._begun = True

    def close(self) -> None:
        with self._lock:
            self.closed = True
            self._file.close()
            self._raw.close()
