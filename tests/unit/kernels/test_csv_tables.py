"""CSV tables of points and polygons: values stay what the file says, and what cannot be read is one clear error."""

import bz2
import csv
import gzip
import io
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rasteret_beam import ReadPoints, ReadPolygons
from rasteret_beam.errors import InputError
from rasteret_beam.kernels.tables.csv_quotes import QuoteScan
from rasteret_beam.kernels.tables.text_columns import MisfitError, NumberForms, named_types, parsed_text
from rasteret_beam.transforms.sources import csv_files
from tests.support.properties import examples

Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def of(content: str | bytes, name: str = "points.csv") -> str:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return of


def points_of(source: Any, **settings: Any) -> pa.Table:
    reading = ReadPoints(source, **{"geometry_crs": 4326} | settings)
    return pa.Table.from_batches(list(reading.batches()), reading.point_columns().schema)


def kept_of(source: Any, **settings: Any) -> dict[str, list[Any]]:
    table = points_of(source, **settings)
    return {name: column for name, column in table.to_pydict().items() if name not in OWN}


OWN = ("point_index", "point_x", "point_y", "x", "y")


class TestTypes:
    @pytest.mark.parametrize(
        ("values", "kind"),
        [
            (["NA", "FR"], "string"),
            (["null", "nan"], "string"),
            (["nan", "1.5"], "string"),
            (["inf", "1.5"], "string"),
            (["01001", "06037"], "string"),
            (["1E5", "32E1"], "string"),
            (["1e5"], "string"),
            (["12345678901234567890", "12345678901234567891"], "string"),
            (["9223372036854775807", "-9223372036854775808"], "int64"),
            (["9223372036854775808"], "string"),
            (["9007199254740993", "0.5"], "string"),
            (["7", "-12", "0"], "int64"),
            (["7", "+7"], "string"),
            (["7", " 8"], "string"),
            (["0x1F"], "string"),
            (["1_000"], "string"),
            (["-0", "1.5"], "string"),
            (["-0.0", "1.5"], "double"),
            (["0.25", "-3.5"], "double"),
            (["1.0", "2.5"], "double"),
            (["1", "2.5"], "string"),
            (["1", "1.0"], "string"),
            (["1.10", "1.9"], "string"),
            (["1e-05", "0.5"], "double"),
            (["0.1234567890123456789"], "string"),
            (["true", "false"], "string"),
            (["2023-01-01"], "string"),
            (["1,5"], "string"),
            (["", ""], "string"),
        ],
    )
    def test_of_columns(self, write: Write, values: list[str], kind: str) -> None:
        text = io.StringIO()
        csv.writer(text, delimiter="\t").writerows(
            [["x", "y", "kept"], *([n, 1, value] for n, value in enumerate(values))]
        )
        table = points_of(write(text.getvalue(), "points.tsv"))
        assert str(table.schema.field("kept").type) == kind
        shown = [value if value is None or kind == "string" else repr(value) for value in table["kept"].to_pylist()]
        assert [value or None for value in values] == shown

    def test_a_column_with_a_quoted_value_is_text(self, write: Write) -> None:
        path = write('"x","y",a,b\n1,2,7,7\n3,4,"8",8\n')
        assert kept_of(path) == {"a": ["7", "8"], "b": [7, 8]}

    def test_only_an_empty_field_without_quotes_is_null(self, write: Write) -> None:
        path = write('x,y,a,b\n1,2,"",\n1,2,,""\n1,2,NULL,N/A\n')
        assert kept_of(path) == {"a": ["", None, "NULL"], "b": [None, "", "N/A"]}

    def test_a_quote_within_a_value_quotes_nothing(self, write: Write) -> None:
        path = write('x,y,pipe,count\n1,2,5" steel,6\n1,2,3"",7\n')
        assert kept_of(path) == {"pipe": ['5" steel', '3""'], "count": [6, 7]}

    def test_the_whole_file_decides(self, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(csv_files, "BLOCK_BYTES", 256)
        path = write("x,y,plot\n" + "1,2,10\n" * 500 + "1,2,007\n")
        assert kept_of(path)["plot"][-2:] == ["10", "007"]

    def test_the_whole_file_decides_about_quotes(self, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(csv_files, "BLOCK_BYTES", 256)
        path = write("x,y,plot,count\n" + "1,2,10,3\n" * 500 + '1,2,"7",3\n')
        kept = kept_of(path)
        assert kept["plot"][-2:] == ["10", "7"]
        assert kept["count"][-1] == 3

    def test_all_files_decide(self, write: Write, tmp_path: Path) -> None:
        write("x,y,plot\n1,2,7\n", "a.csv")
        write("plot,y,x\n008,2,1\n", "b.csv")
        assert kept_of(str(tmp_path)) == {"plot": ["7", "008"]}

    def test_one_file_has_another_order_and_more_columns(self, write: Write, tmp_path: Path) -> None:
        write("x,y,plot\n1,2,7\n", "a.csv")
        write("more,plot,y,x\nq,8,5,4\n", "b.csv")
        table = points_of(str(tmp_path))
        assert table.select(["point_x", "point_y", "plot"]).to_pylist() == [
            {"point_x": 1, "point_y": 2, "plot": 7},
            {"point_x": 4, "point_y": 5, "plot": 8},
        ]

    def test_only_the_columns_that_are_kept_are_looked_at(self, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
        seen: list[str] = []
        add = NumberForms.add
        monkeypatch.setattr(NumberForms, "add", lambda self, text: seen.append(text[0].as_py()) or add(self, text))
        assert kept_of(write("x,y,a,b\n1,2,3,4\n"), columns=["b"]) == {"b": [4]}
        assert seen == ["4"]

    def test_polygons_keep_their_ids(self, write: Write) -> None:
        path = write('fid,geometry,plot\n007,"POLYGON((0 0,1 0,1 1,0 0))",1\n')
        batch = ReadPolygons(path, geometry_crs=4326).first_batch()
        assert batch is not None
        assert batch.select(["fid", "plot"]).to_pylist() == [{"fid": "007", "plot": 1}]

    @settings(max_examples=examples(40), deadline=None)
    @given(
        values=st.lists(
            st.one_of(
                st.text("0123456789.-+eENAxy\"', \n", max_size=6),
                st.integers(-(2**70), 2**70).map(str),
                st.floats().map(repr),
            ),
            min_size=1,
            max_size=6,
        ),
        quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
    )
    def test_every_value_says_what_the_file_says(
        self, tmp_path_factory: pytest.TempPathFactory, values: list[str], quoting: int
    ) -> None:
        """Python's csv is the oracle; a number is one that Python, or Python without ``.0``, writes so."""
        path = tmp_path_factory.mktemp("any") / "points.csv"
        with open(path, "w", newline="") as file:
            rows = csv.writer(file, quoting=quoting, lineterminator="\n")
            rows.writerows([["x", "y", "kept"], *([1, 2, value] for value in values)])
        with open(path, newline="") as file:
            said = [row["kept"] for row in csv.DictReader(file)]
        found = kept_of(str(path))["kept"]
        if all(isinstance(value, str | None) for value in found):
            assert [value or "" for value in found] == said
            return
        assert quoting == csv.QUOTE_MINIMAL
        shown = ["" if value is None else repr(value) for value in found]
        by_arrow = pa.array(found).cast(pa.string()).fill_null("").to_pylist()
        assert said in (shown, [value.removesuffix(".0") for value in shown], by_arrow)


class TestColumnTypes:
    def test_are_obeyed(self, write: Write) -> None:
        path = write("x,y,plot,count,day,open\n1,2,7,08,2023-05-01,true\n1,2,8,,,\n")
        types = {"plot": "string", "count": pa.int32(), "day": "date32", "open": "bool"}
        table = points_of(path, column_types=types)
        assert [str(table.schema.field(name).type) for name in types] == ["string", "int32", "date32[day]", "bool"]
        assert table.select(["plot", "count", "open"]).to_pylist() == [
            {"plot": "7", "count": 8, "open": True},
            {"plot": "8", "count": None, "open": None},
        ]

    @pytest.mark.parametrize(
        ("kind", "printed"),
        [
            ("decimal128(10,2)", "decimal128(10, 2)"),
            ("decimal128(10, 2)", "decimal128(10, 2)"),
            ("decimal(10, 2)", "decimal128(10, 2)"),
            ("decimal256(50,2)", "decimal256(50, 2)"),
        ],
    )
    def test_of_decimals_by_name(self, write: Write, kind: str, printed: str) -> None:
        table = points_of(write("x,y,price\n1,2,1.50\n1,2,12345678.25\n"), column_types={"price": kind})
        assert str(table.schema.field("price").type) == printed
        assert table["price"].to_pylist() == [Decimal("1.50"), Decimal("12345678.25")]

    @pytest.mark.parametrize("kind", ["timestamp[us, tz=UTC]", "timestamp[us,UTC]"])
    def test_of_times_with_a_zone_by_name(self, write: Write, kind: str) -> None:
        table = points_of(write("x,y,seen\n1,2,2024-02-29T02:00:00+02:00\n"), column_types={"seen": kind})
        assert table.schema.field("seen").type == pa.timestamp("us", tz="UTC")
        assert table["seen"].to_pylist() == [datetime(2024, 2, 29, tzinfo=UTC)]

    def test_are_a_mapping(self, write: Write) -> None:
        with pytest.raises(InputError, match="column_types is 'a:string'; give a dict"):
            points_of(write("x,y,a\n1,2,3\n"), column_types="a:string")

    def test_of_partitions(self, tmp_path: Path) -> None:
        for code in ("01", "02"):
            (tmp_path / f"dep={code}").mkdir()
            (tmp_path / f"dep={code}" / "p.csv").write_text("x,y,a\n1,2,3\n")
        table = points_of(str(tmp_path), column_types={"dep": "string", "a": "int32"})
        assert table.select(["a", "dep"]).to_pylist() == [{"a": 3, "dep": "01"}, {"a": 3, "dep": "02"}]
        assert table.schema.field("dep").type == pa.string()
        assert points_of(str(tmp_path)).schema.field("dep").type == pa.int32()
        message = r"column_types gives column 'dep' the type date32\[day\], but a folder is named dep=01"
        with pytest.raises(InputError, match=message):
            points_of(str(tmp_path), column_types={"dep": "date32"})

    def test_spare_the_look_at_the_whole_file(self, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(csv_files, "NumberForms", None)
        assert kept_of(write("x,y,a\n1,2,3\n"), column_types={"a": "int64"}, columns=["a"]) == {"a": [3]}

    @pytest.mark.parametrize(
        ("types", "message"),
        [
            (
                {"count": "int64"},
                r"row 1 of column 'count' of .*points.csv is 'many', not int64; .*count:string",
            ),
            ({"count": "int8"}, r"row 0 of column 'count' of .*points.csv is '300', not int8"),
            ({"none": "int64"}, r"column_types names column\(s\) none; the first file has x, y, count"),
            ({"x": "string"}, r"column_types gives column 'x' the type string, but it contains the point"),
            ({"count": "number"}, r"column_types gives column 'count' the type number, which text cannot become"),
            ({"count": pa.list_(pa.int64())}, r"the type list<item: int64>, which text cannot become"),
        ],
    )
    def test_that_do_not_fit(self, write: Write, types: dict[str, Any], message: str) -> None:
        with pytest.raises(InputError, match=message):
            points_of(write("x,y,count\n1,2,300\n1,2,many\n"), column_types=types)

    def test_are_refused_for_parquet(self, tmp_path: Path) -> None:
        pa.parquet.write_table(pa.table({"x": [1.0], "y": [2.0]}), tmp_path / "p.parquet")
        with pytest.raises(
            InputError, match=r"csv_decimal, column_types \(--csv_decimal, --column_types\) given, .*CSV"
        ):
            points_of(str(tmp_path / "p.parquet"), column_types={"x": "int64"}, csv_decimal=",")

    def test_of_polygons(self, write: Write) -> None:
        path = write('fid,wkt\n7,"POLYGON((0 0,1 0,1 1,0 0))"\n')
        batch = ReadPolygons(path, geometry_crs=4326, column_types={"fid": "string"}).first_batch()
        assert batch is not None
        assert batch["fid"].to_pylist() == ["7"]


class TestFormat:
    @pytest.mark.parametrize(
        ("content", "name", "settings"),
        [
            ("x,y,a\n1.5,2,é\n", "p.csv", {}),
            ("x,y,a\r\n1.5,2,é\r\n", "p.csv", {}),
            ("x,y,a\r1.5,2,é\r", "p.csv", {}),
            ("x,y,a\n1.5,2,é", "p.csv", {}),
            ("\n\nx,y,a\n\n1.5,2,é\n\n", "p.csv", {}),
            ('\ufeff"x",y,a\n1.5,2,é\n', "p.csv", {}),
            ('x,y,a\n"1.5"," 2 ","é"\n', "p.csv", {}),
            ("x\ty\ta\n1.5\t2\té\n", "p.tsv", {}),
            ("x;y;a\n1.5;2;é\n", "p.csv", {"csv_delimiter": ";"}),
            ("x\ty\ta\n1.5\t2\té\n", "p.csv", {"csv_delimiter": "\\t"}),
            ("x;y;a\n1,5;2,0;é\n", "p.csv", {"csv_delimiter": ";", "csv_decimal": ","}),
            ("x|y|a\n1.5|2|é\n", "p.csv", {"csv_delimiter": "|"}),
            ("x,y,a\n1.5,2,é\n".encode("cp1252"), "p.csv", {"csv_encoding": "cp1252"}),
            ("x,y,a\n1.5,2,é\n".encode("utf-16"), "p.csv", {"csv_encoding": "utf-16"}),
            ("x,y,a\n1.5,2,é\n".encode("utf-8-sig"), "p.csv", {"csv_encoding": "UTF8"}),
            (gzip.compress("x,y,a\n1.5,2,é\n".encode(), mtime=0), "p.csv.gz", {}),
            (bz2.compress("x,y,a\n1.5,2,é\n".encode()), "p.csv.bz2", {}),
            (gzip.compress("x\ty\ta\n1.5\t2\té\n".encode(), mtime=0), "p.tsv.gz", {}),
            (gzip.compress(b"x,y,a\n", mtime=0) + gzip.compress("1.5,2,é\n".encode(), mtime=0), "p.csv.gz", {}),
        ],
    )
    def test_is_read(self, write: Write, content: str | bytes, name: str, settings: dict[str, str]) -> None:
        table = points_of(write(content, name), **settings)
        assert table.select(["point_x", "point_y", "a"]).to_pylist() == [{"point_x": 1.5, "point_y": 2.0, "a": "é"}]

    def test_decimal_commas_of_kept_columns(self, write: Write) -> None:
        path = write("x;y;height;version\n1;2;3,25;1.5\n1;2;4,0;2\n")
        assert kept_of(path, csv_delimiter=";", csv_decimal=",") == {"height": [3.25, 4.0], "version": ["1.5", "2"]}

    def test_line_breaks_and_delimiters_in_quoted_values(self, write: Write) -> None:
        path = write('x,y,note,n\n1,2,"a\nb, ""c""",5\n3,4,d,6\n')
        assert kept_of(path) == {"note": ['a\nb, "c"', "d"], "n": [5, 6]}

    def test_a_row_longer_than_a_block(self, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(csv_files, "BLOCK_BYTES", 512)
        rows = "".join(f"{n},2,{n}\n" for n in range(300))
        table = points_of(write(f"x,y,a\n{rows}1,2,{'z' * 2000}\n{rows}"))
        numbers = [*map(str, range(300))]
        assert table["a"].to_pylist() == [*numbers, "z" * 2000, *numbers]
        assert table["point_index"].to_pylist() == [*range(601)]

    def test_a_header_alone(self, write: Write) -> None:
        assert points_of(write("x,y,a")).num_rows == 0

    def test_a_repeated_name_that_is_not_needed(self, write: Write) -> None:
        assert kept_of(write("x,y,a,a,b\n1,2,3,4,5\n"), columns=["b"]) == {"b": [5]}

    def test_empty_coordinates_are_null_points(self, write: Write) -> None:
        table = points_of(write('x,y\n1,2\n,2\n"",2\nnan,2\n'))
        assert str(table["point_x"].to_pylist()) == "[1.0, None, None, nan]"

    @pytest.mark.parametrize(
        ("content", "settings", "message"),
        [
            ("", {}, r"points.csv cannot be read as CSV: Empty CSV file"),
            ("\n\n", {}, r"points.csv cannot be read as CSV: .*Empty CSV file"),
            ("x,y,a\n1,2,3\n1,2\n", {}, r"row 1 has 2 field\(s\), but the header has 3: 1,2\. "),
            (
                "x,y,a\n1,2,3\n1,2,3,4\n",
                {},
                r"row 1 has 4 field\(s\), but the header has 3: 1,2,3,4\. .*--csv_delimiter",
            ),
            ("x,y,a,a\n1,2,3,4\n", {}, r"points.csv has more than one column named a"),
            ("x;y\n1,5;2\n", {}, r"has one column, 'x;y'; if ';' separates its fields, give .*--csv_delimiter ';'"),
            (
                "x;y\n1,5;2\n",
                {"csv_delimiter": ";"},
                r"row 0 of column 'x' .* is '1,5', .*csv_decimal=',' .*--csv_decimal",
            ),
            (
                "x;y\n1.5;2\n",
                {"csv_delimiter": ";", "csv_decimal": ","},
                r"row 0 of column 'x' .* is '1.5', not a num",
            ),
            (
                "x,y\n1,2\nNA,2\n",
                {},
                r"row 1 of column 'x' of .*points.csv is 'NA', not a number; correct it or leave",
            ),
            ('x,y,a\n1,2,3\n1,2,"3\n1,2,3\n', {}, r"an unclosed quote in the record that starts in line 3"),
            ('x,y,a\n1,2,"p\nq"\n1,2,5" x\n1,2,"3\n', {}, r"unclosed quote .* starts in line 5"),
            (
                b"x,y,a\n1,2,b\n1,2,caf\xe9\n",
                {},
                r"row 1 of column 'a' of .* byte 0xe9, which is not utf-8: .*--csv_encoding",
            ),
            (b"x,y,caf\xe9\n1,2,b\n", {}, r"name of column 3 of .* byte 0xe9, which is not utf-8: .*--csv_encoding"),
            ("x,y,a\n1,2,b\n".encode("utf-16"), {}, r"column 1 of .* byte 0xff, .*--csv_encoding\), such as utf-16"),
            (
                b"x,y,a\n1,2,\x81\n",
                {"csv_encoding": "cp1252"},
                r"row 0 of column 'a' .* byte 0x81, which is not cp1252",
            ),
            (
                "x,y,a\n1,2,b\n".encode("utf-16")[:-1],
                {"csv_encoding": "utf-16"},
                r"points.csv is not utf-16: .*truncated",
            ),
            ("x,y\n1,2\n", {"csv_encoding": "klingon"}, r"csv_encoding is 'klingon', which is not a Python encoding"),
            ("x,y\n1,2\n", {"csv_encoding": "rot13"}, r"csv_encoding is 'rot13'"),
            ("x,y\n1,2\n", {"csv_delimiter": ";;"}, r"csv_delimiter is ';;'; give one ASCII character"),
            ("x,y\n1,2\n", {"csv_decimal": "'"}, r"csv_decimal is \"'\"; give '\.' or ','"),
            ("x,y\n1,2\n", {"csv_decimal": ",", "csv_delimiter": ","}, r"csv_decimal and csv_delimiter are both ','"),
        ],
    )
    def test_that_cannot_be_read(
        self, write: Write, content: str | bytes, settings: dict[str, str], message: str
    ) -> None:
        with pytest.raises(InputError, match=message):
            points_of(write(content), **settings)

    def test_a_file_that_is_cut_off(self, write: Write) -> None:
        packed = gzip.compress(b"x,y,a\n" + b"1,2,3\n" * 1000, mtime=0)
        with pytest.raises(InputError, match=r"points.csv.gz cannot be read as CSV: Truncated compressed stream"):
            points_of(write(packed[:-12], "points.csv.gz"))

    def test_a_quote_that_is_never_closed_in_a_large_file(self, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(csv_files, "BLOCK_BYTES", 512)
        monkeypatch.setattr(csv_files, "MAX_RECORD_BYTES", 2048)
        path = write('x,y,a\n1,2,3\n1,2,"3\n' + "1,2,3\n" * 2000)
        with pytest.raises(InputError, match=r"row 1 of .*points.csv, or a row soon after it, is longer than .*quote"):
            points_of(path)

    def test_a_later_file_lacks_a_column(self, write: Write, tmp_path: Path) -> None:
        write("x,y,plot\n1,2,7\n", "a.csv")
        write("x,y\n1,2\n", "b.csv")
        with pytest.raises(InputError, match=r"b.csv lacks column\(s\) plot, which the first file has; it has x, y"):
            points_of(str(tmp_path))


class TestQuoteScan:
    """Against a machine that goes from character to character."""

    @staticmethod
    def by_character(text: str) -> tuple[set[int], bool]:
        found, record, column, state, blank = set(), 0, 0, "start", True
        position = 0
        while position < len(text):
            char = text[position]
            if state == "quoted":
                if char == '"' and text[position + 1 : position + 2] == '"':
                    position += 1
                elif char == '"':
                    state = "plain"
            elif char in "\n\r":
                record, column, state, blank = record + (not blank), 0, "start", True
                position += 1
                continue
            elif char == ",":
                column, state = column + 1, "start"
            elif char == '"' and state == "start":
                state = "quoted"
                if record:
                    found.add(column)
            else:
                state = "plain"
            blank = False
            position += 1
        return found, state == "quoted"

    @settings(max_examples=examples(200), deadline=None)
    @given(text=st.text('ab,"\n\r', max_size=40), cut=st.integers(1, 12))
    def test_finds_the_same(self, text: str, cut: int) -> None:
        scan = QuoteScan(",")
        data = text.encode()
        for start in range(0, len(data), cut):
            scan.feed(data[start : start + cut])
        scan.finish()
        quoted, is_open = self.by_character(text)
        assert scan.quoted == quoted
        assert (scan.unclosed_line is not None) == is_open


class TestTextColumns:
    def test_the_first_misfit_is_named(self) -> None:
        values = np.array([str(n) for n in range(1000)], dtype=object)
        for row in (0, 1, 500, 999):
            broken = values.copy()
            broken[row:] = "none"
            with pytest.raises(MisfitError) as caught:
                parsed_text(pa.array(broken), pa.int64())
            assert (caught.value.row, caught.value.value) == (row, "none")

    def test_forms_over_batches(self) -> None:
        forms = NumberForms()
        for batch in (["1.0", "2.5"], [], [None], ["3.0"]):
            forms.add(pa.array(batch, pa.string()))
        assert forms.type == pa.float64()
        forms.add(pa.array(["3"]))
        assert forms.type == pa.string()

    def test_names_of_types(self) -> None:
        assert named_types({"a": "int64", "b": pa.date32()}) == {"a": pa.int64(), "b": pa.date32()}
