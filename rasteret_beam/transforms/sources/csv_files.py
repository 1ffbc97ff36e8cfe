"""Read CSV files: header, inferred types of columns, and rows as typed batches."""

import codecs
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pv
from apache_beam.io.filesystem import BeamIOError

from rasteret_beam.errors import InputError, MissingInputError, listed, one_line, without_secrets
from rasteret_beam.kernels.tables.csv_quotes import QuoteScan
from rasteret_beam.kernels.tables.text_columns import MisfitError, NumberForms, parsed_text
from rasteret_beam.model import Access
from rasteret_beam.transforms.sources.csv_format import (
    ENCODING_HINT,
    LONG_RECORD,
    MAX_RECORD_BYTES,
    CsvFormat,
    CsvStream,
)

BLOCK_BYTES = 4 << 20
HEADER_BYTES = 1 << 16
COLUMN_BYTES = 4 << 10
"""Bytes of a block per column, as smaller arrays of a wide table would be mostly overhead."""

UTF16_BOMS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)

FIELDS = re.compile(r"Row #(\d+): Expected (\d+) columns, got (\d+): ?(.*)")
"""Arrow's error about a row with too few or too many fields."""

DELIMITERS = ";\t|"
"""Likely delimiters of a file that seems to have one column."""


def decided_types(
    files: Sequence["CsvFile"], undecided: Sequence[str], typed: Mapping[str, pa.DataType]
) -> dict[str, pa.DataType]:
    """Infer types of text columns from all rows of all files: numbers if that changes no value, otherwise string.

    Parameters
    ----------
    files : sequence of CsvFile
    undecided : sequence of str
        The columns to infer.
    typed : {column: type}
        Columns with known types; their values are checked.

    Raises
    ------
    InputError
        A file cannot be read, or a value does not fit a known type.
    """
    forms = {name: NumberForms(files[0].format.decimal) for name in undecided}
    for file in files:
        scan = QuoteScan(file.delimiter)
        header = file.header()
        for first_row, batch in file.text([*undecided, *typed], scan):
            for name, column in zip(batch.schema.names, batch.columns, strict=True):
                if name in forms:
                    forms[name].add(column)
                else:
                    file.parsed(name, column, typed[name], first_row)
        for number in scan.quoted:
            if number < len(header) and header[number] in forms:
                forms[header[number]].keep_text()
    return {name: form.type for name, form in forms.items()}


@dataclass(frozen=True)
class CsvFile:
    """A CSV file; each method reads it again, in limited memory."""

    path: str
    access: Access
    format: CsvFormat

    @property
    def name(self) -> str:
        """Name in errors."""
        return without_secrets(self.path)

    @property
    def delimiter(self) -> str:
        return self.format.delimiter_of(self.path)

    def header(self) -> list[str]:
        """Names of the columns.

        Raises
        ------
        InputError
            The file is empty, is not valid text in the encoding, or has another delimiter.
        """
        return self._header

    @cached_property
    def _header(self) -> list[str]:
        try:
            names = self._raw_header(HEADER_BYTES)
        except _LongRecordError:
            names = self._raw_header(MAX_RECORD_BYTES)
        for number, name in enumerate(names, 1):
            self._check_text(name, f"the name of column {number} of {self.name}")
        found = [name.decode() for name in names]
        others = [mark for mark in DELIMITERS if mark in found[0]]
        if len(found) == 1 and others and self.format.delimiter is None:
            raise InputError(
                f"{self.name} has one column, {found[0]!r}; if {others[0]!r} separates its fields, give "
                f"csv_delimiter (--csv_delimiter '{others[0]}')"
            )
        return found

    def _raw_header(self, block: int) -> list[bytes]:
        """Names of the columns, decoded as Latin-1, which accepts any bytes."""
        with self._reading(), closing(CsvStream(self.path, self.access, self.format.encoding)) as stream:
            reader = self._open(stream, block, encoding="latin-1", skip_bad_rows=True)
            return [name.encode("latin-1") for name in reader.schema.names]

    def first_value(self, column: str) -> str | None:
        """The first text of a column that is not empty, or None."""
        for _, batch in self.text([column]):
            values = batch.column(0).filter(pc.not_equal(batch.column(0), ""))
            if len(values):
                return str(values[0].as_py())
        return None

    def rows(self) -> int:
        """Number of rows."""
        held = Counter(self.header())
        return sum(len(batch) for _, batch in self.text([name for name in held if held[name] == 1][:1]))

    def batches(self, types: Mapping[str, pa.DataType], most_rows: int) -> Iterator[pa.RecordBatch]:
        """All rows, with these columns and types.

        Raises
        ------
        InputError
            A column is missing, or a value does not have its type; names row, column and value.
        """
        schema = pa.schema(list(types.items()))
        for first_row, batch in self.text(list(types)):
            columns = [
                self.parsed(name, column, types[name], first_row)
                for name, column in zip(batch.schema.names, batch.columns, strict=True)
            ]
            whole = pa.RecordBatch.from_arrays(columns, schema=schema)
            yield from (whole.slice(at, most_rows) for at in range(0, len(whole), most_rows))

    def parsed(self, column: str, text: pa.Array, kind: pa.DataType, first_row: int) -> pa.Array:
        """A text column converted to a type; ``first_row`` is the row number of its first value."""
        try:
            return parsed_text(text, kind, self.format.decimal)
        except MisfitError as error:
            is_float = pa.types.is_floating(kind)
            otherwise = "" if is_float else f", or keep the column as text (--column_types {column}:string)"
            raise InputError(
                f"row {first_row + error.row} of column {column!r} of {self.name} is {error.value[:80]!r}, not "
                f"{'a number' if is_float else kind}{_number_hint(error.value, kind, self.format.decimal)}; "
                f"correct it or leave the field empty{otherwise}"
            ) from None

    def text(self, columns: Sequence[str], scan: QuoteScan | None = None) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Columns as text, and the row number of each batch's first row; ``scan`` gets all bytes of the file.

        An empty field is null, or an empty text if it is quoted.

        Raises
        ------
        InputError
            A column is missing, a row has too few or too many fields, or a value is not valid text in the encoding.
        """
        columns = list(dict.fromkeys(columns))
        self._check_columns(columns)
        done = 0
        wide = min(MAX_RECORD_BYTES, max(BLOCK_BYTES, COLUMN_BYTES * len(columns)))
        for block in (wide, MAX_RECORD_BYTES):
            seen = QuoteScan(self.delimiter) if scan is not None else None
            try:
                for first_row, batch in self._blocks(columns, pa.string(), block, seen):
                    if first_row + len(batch) > done:
                        fresh = batch.slice(max(0, done - first_row))
                        yield max(done, first_row), fresh
                        done = first_row + len(batch)
            except _LongRecordError:
                continue
            if scan is not None and seen is not None:
                scan.quoted |= seen.quoted
            return
        raise InputError(
            f"row {done} of {self.name}, or a row soon after it, is longer than {MAX_RECORD_BYTES >> 20} MB; look for "
            "an unclosed quote"
        )

    def _blocks(
        self, columns: Sequence[str], kind: pa.DataType, block: int, scan: QuoteScan | None = None
    ) -> Iterator[tuple[int, pa.RecordBatch]]:
        row = 0
        with self._reading(scan), closing(CsvStream(self.path, self.access, self.format.encoding, scan)) as stream:
            for batch in self._open(stream, block, columns, kind):
                yield row, batch
                row += len(batch)
            self._check_closed(scan)

    def _open(
        self,
        stream: CsvStream,
        block: int,
        columns: Sequence[str] | None = None,
        kind: pa.DataType | None = None,
        encoding: str = "utf8",
        skip_bad_rows: bool = False,
    ) -> pv.CSVStreamingReader:
        return pv.open_csv(
            pa.PythonFile(stream, mode="r"),
            read_options=pv.ReadOptions(block_size=block, encoding=encoding, use_threads=False),
            parse_options=pv.ParseOptions(
                delimiter=self.delimiter,
                newlines_in_values=True,
                invalid_row_handler=(lambda row: "skip") if skip_bad_rows else None,
            ),
            convert_options=pv.ConvertOptions(
                column_types=dict.fromkeys(columns or (), kind),
                include_columns=columns,
                null_values=[""],
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
            ),
        )

    @contextmanager
    def _reading(self, scan: QuoteScan | None = None) -> Iterator[None]:
        """Turn Arrow's errors into ours."""
        try:
            yield
        except pa.ArrowInvalid as error:
            text = one_line(error)
            if LONG_RECORD in text:
                raise _LongRecordError from error
            self._check_closed(scan)
            if "invalid UTF8" in text:
                raise self._broken_text() from error
            raise InputError(f"{self.name} cannot be read as CSV: {_in_words(text)}") from error
        except (OSError, BeamIOError) as error:
            if isinstance(error, MissingInputError):
                raise
            raise InputError(f"{self.name} cannot be read as CSV: {one_line(error)}") from error

    def _check_columns(self, columns: Sequence[str]) -> None:
        header = self.header()
        held = Counter(header)
        missing = [name for name in columns if name not in held]
        if missing:
            raise InputError(
                f"{self.name} lacks column(s) {listed(missing)}, which the first file has; it has {listed(header)}"
            )
        twice = [name for name in columns if held[name] > 1]
        if twice:
            raise InputError(f"{self.name} has more than one column named {listed(twice)}; rename them")

    def _check_closed(self, scan: QuoteScan | None) -> None:
        if scan is not None and scan.unclosed_line is not None:
            raise InputError(
                f"{self.name} has an unclosed quote in the record that starts in line {scan.unclosed_line}"
            )

    def _broken_text(self) -> InputError:
        """The error that names the first value that is not valid text in the encoding."""
        header = self.header()
        names = [name for name, count in Counter(header).items() if count == 1]
        for first_row, batch in self._blocks(names, pa.binary(), MAX_RECORD_BYTES):
            rows = (values.to_pylist() for values in batch.columns)
            for row, cells in enumerate(zip(*rows, strict=True), first_row):
                for name, cell in zip(names, cells, strict=True):
                    try:
                        self._check_text(cell or b"", f"row {row} of column {name!r} of {self.name}")
                    except InputError as error:
                        return error
        return InputError(f"{self.name} is not {self.format.encoding}; {ENCODING_HINT}")

    def _check_text(self, value: bytes, what: str) -> None:
        try:
            value.decode()
        except UnicodeDecodeError as error:
            shown = value[max(0, error.start - 30) : error.start + 30].decode(errors="backslashreplace")
            hint = ENCODING_HINT.replace("cp1252", "utf-16") if value[:2] in UTF16_BOMS else ENCODING_HINT
            raise InputError(
                f"{what} has byte 0x{value[error.start]:02x}, which is not {self.format.encoding}: {shown!r}; {hint}"
            ) from error


class _LongRecordError(Exception):
    """A record is longer than a block."""


def _in_words(text: str) -> str:
    """Arrow's error about a row with too few or too many fields, with the row's number."""
    found = FIELDS.search(text)
    if found is None:
        return text
    row, expected, fields, shown = found.groups()
    return (
        f"row {int(row) - 2} has {fields} field(s), but the header has {expected}: {shown[:80]}. Quote values "
        "that contain the delimiter, or give another delimiter with csv_delimiter (--csv_delimiter)"
    )


def _number_hint(value: str, kind: pa.DataType, decimal: str) -> str:
    is_comma = decimal == "." and not pa.types.is_integer(kind) and re.fullmatch(r"\s*[-+]?\d*,\d+\s*", value)
    return " (for a decimal comma give csv_decimal=',' or --csv_decimal=,)" if is_comma else ""
