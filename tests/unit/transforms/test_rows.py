"""Batches become Beam Rows, and the same batches again: any types, names, nulls, slices, windows and times."""

import math
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, NamedTuple

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest
from apache_beam.coders.row_coder import RowCoder
from apache_beam.testing.util import assert_that, equal_to
from apache_beam.transforms.window import FixedWindows, TimestampedValue
from apache_beam.utils.timestamp import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from rasteret_beam import SampleOptions, ToBatches, ToRows
from rasteret_beam.errors import InputError
from rasteret_beam.transforms.rows.batching import BATCH_BYTES, BatchRowsFn, as_batch
from rasteret_beam.transforms.rows.to_rows import _RowsFn
from rasteret_beam.transforms.rows.types import arrow_schema, beam_schema, row_class, row_name, row_schema
from tests.support.pipelines import Kept, run

# What a row can hold: for each type, its values

INTEGERS = [getattr(pa, f"{sign}int{bits}")() for sign in ("", "u") for bits in (8, 16, 32, 64)][:-1]
DAYS = st.dates()
TEXT = st.text(st.characters(codec="utf-8"), max_size=4)
BYTES = st.binary(max_size=4)


def _integers(kind: pa.DataType) -> st.SearchStrategy:
    info = np.iinfo(kind.to_pandas_dtype())
    return st.integers(int(info.min), int(info.max))


def _ticks(kind: pa.DataType) -> st.SearchStrategy:
    most = {"s": 2**60 // 10**6, "ms": 2**60 // 10**3, "us": 2**60, "ns": 2**63 - 1}[kind.unit]
    return st.integers(-most, most)


SIMPLE: dict[pa.DataType, st.SearchStrategy] = {
    **{kind: _integers(kind) for kind in INTEGERS},
    pa.bool_(): st.booleans(),
    pa.float16(): st.floats(width=16).map(np.float16),
    pa.float32(): st.floats(width=32),
    pa.float64(): st.floats(),
    pa.string(): TEXT,
    pa.large_string(): TEXT,
    pa.string_view(): TEXT,
    pa.binary(): BYTES,
    pa.large_binary(): BYTES,
    pa.binary_view(): BYTES,
    pa.binary(3): st.binary(min_size=3, max_size=3),
    pa.date32(): DAYS,
    pa.date64(): DAYS,
    pa.decimal128(5, 2): st.integers(-99999, 99999).map(lambda n: Decimal(n).scaleb(-2)),
    pa.decimal128(28, -3): st.integers(-(10**24), 10**24).map(lambda n: Decimal(n).scaleb(3)),
    pa.decimal256(60, 30): st.integers(-(10**27), 10**27).map(lambda n: Decimal(n).scaleb(-30)),
}
TIMES = [pa.timestamp(unit, zone) for unit in ("s", "ms", "us", "ns") for zone in (None, "UTC", "Asia/Kathmandu")]


def column(
    draw: st.DrawFn, kind: pa.DataType, rows: int, nullable: bool = True, outer: np.ndarray | None = None
) -> pa.Array:
    """A column of a type, made by Arrow alone; null where the struct that it is in is null (``outer``)."""
    missing = draw(st.lists(st.booleans(), min_size=rows, max_size=rows)) if nullable else [False] * rows
    mask = np.array(missing, bool) | (False if outer is None else outer)
    if kind in SIMPLE:
        values = draw(st.lists(SIMPLE[kind], min_size=rows, max_size=rows))
        return pa.array([None if gone else value for value, gone in zip(values, mask, strict=True)], type=kind)
    if pa.types.is_timestamp(kind):
        ticks = draw(st.lists(_ticks(kind), min_size=rows, max_size=rows))
        return pa.array(np.array(ticks, np.int64), mask=mask).cast(kind)
    if pa.types.is_dictionary(kind):
        words = column(draw, kind.value_type, 3, nullable=False).unique()
        places = draw(st.lists(st.integers(0, len(words) - 1), min_size=rows, max_size=rows))
        indices = pa.array(np.array(places, kind.index_type.to_pandas_dtype()), mask=mask)
        return pa.DictionaryArray.from_arrays(indices, words, ordered=kind.ordered)
    if pa.types.is_struct(kind):
        fields = [kind.field(number) for number in range(kind.num_fields)]
        parts = [column(draw, field.type, rows, field.nullable, mask) for field in fields]
        return pa.StructArray.from_arrays(parts, fields=fields, mask=pa.array(mask))
    if pa.types.is_fixed_size_list(kind):
        inner = column(draw, kind.value_type, rows * kind.list_size)
        return pa.FixedSizeListArray.from_arrays(inner, type=kind, mask=pa.array(mask))
    lengths = draw(st.lists(st.integers(0, 2), min_size=rows, max_size=rows))
    offsets = pa.array(np.concatenate([[0], np.cumsum(np.where(mask, 0, lengths))]), pa.int32())
    total = offsets[-1].as_py()
    if pa.types.is_map(kind):
        keys = pa.array([f"k{number}" for number in range(total)], kind.key_type)
        items = column(draw, kind.item_type, total)
        return pa.MapArray.from_arrays(offsets, keys, items, type=kind, mask=pa.array(mask))
    inner = column(draw, kind.value_type, total, kind.value_field.nullable)
    if pa.types.is_list_view(kind):
        starts, sizes = offsets[:-1], pa.array(np.diff(offsets.to_numpy()))
        return pa.ListViewArray.from_arrays(starts, sizes, inner, type=kind, mask=pa.array(mask))
    of = pa.list_(kind.value_field)
    return pa.ListArray.from_arrays(offsets, inner, type=of, mask=pa.array(mask)).cast(kind)


def nested(inner: st.SearchStrategy) -> st.SearchStrategy:
    lists = (pa.list_, pa.large_list, pa.list_view, lambda kind: pa.list_(kind, 2))
    names = st.lists(st.sampled_from(["a", "b c", "class", "_d", "2"]), min_size=1, max_size=2, unique=True)
    return st.one_of(
        st.tuples(st.sampled_from(lists), inner).map(lambda pair: pair[0](pair[1])),
        st.tuples(names, inner).map(lambda pair: pa.struct([(name, pair[1]) for name in pair[0]])),
        inner.map(lambda kind: pa.map_(pa.string(), kind)),
    )


LEAVES = st.sampled_from([*SIMPLE, *TIMES])
ENCODED = st.tuples(st.sampled_from([pa.int8(), pa.int32()]), st.sampled_from([pa.string(), pa.int16(), TIMES[5]]))
DICTIONARIES = ENCODED.map(lambda pair: pa.dictionary(*pair))
KINDS = st.one_of(LEAVES, DICTIONARIES, st.recursive(LEAVES, nested, max_leaves=3))
NAMES = st.sampled_from(["value", "record:eo:cloud_cover", "plot id", "2023", "_id", "class", "count", "Größe", ""])


@st.composite
def batches(draw: st.DrawFn) -> pa.RecordBatch:
    names = draw(st.lists(NAMES, min_size=1, max_size=3, unique=True))
    rows = draw(st.integers(0, 4))
    fields = [pa.field(name, draw(KINDS), nullable=draw(st.booleans())) for name in names]
    columns = [column(draw, field.type, rows, field.nullable) for field in fields]
    whole = pa.RecordBatch.from_arrays(columns, schema=pa.schema(fields, metadata={"point_crs": "EPSG:4326"}))
    return whole.slice(draw(st.integers(0, rows)))


def rows_of(batch: pa.RecordBatch, times: str = "nanos") -> list[Any]:
    making = _RowsFn(batch.schema, times)
    making.setup()
    return list(making.process(batch))


def decoded(values: pa.Array) -> pa.Array:
    return values.dictionary_decode() if pa.types.is_dictionary(values.type) else values


def same(one: pa.RecordBatch, other: pa.RecordBatch) -> bool:
    """As Arrow prints them, so that NaN equals NaN."""
    columns = zip(map(decoded, one.columns), map(decoded, other.columns), strict=True)
    printed = all(left.to_string(window=99) == right.to_string(window=99) for left, right in columns)
    return one.schema.equals(other.schema, check_metadata=True) and printed and len(one) == len(other)


@given(batches())
def test_rows_behind_a_shuffle_become_the_same_batch(batch: pa.RecordBatch) -> None:
    coder = RowCoder(row_schema(batch.schema, nanos=True))
    rows = [coder.decode(coder.encode(row)) for row in rows_of(batch)]
    assert len(rows) == len(batch)
    made = as_batch(rows, arrow_schema(beam_schema(row_class(row_schema(batch.schema, nanos=True)))), "the rows")
    made.validate(full=True)
    assert same(made, batch)


@given(batches())
def test_rows_have_arrows_own_values(batch: pa.RecordBatch) -> None:
    """Against ``to_pylist``, for what is no timestamp, struct or map in it."""
    plain = (pa.types.is_nested, pa.types.is_timestamp, pa.types.is_dictionary, pa.types.is_float16)
    for field in batch.schema:
        if not any(test(field.type) for test in plain):
            made = [getattr(row, row_name(field.name)) for row in rows_of(batch)]
            assert repr(made) == repr(batch.column(field.name).to_pylist())


def test_values_of_a_row() -> None:
    when = datetime(2023, 6, 1, 12, 30, 0, 250_000, tzinfo=UTC)
    kind = pa.struct([("crop", pa.string()), ("areas", pa.list_(pa.float32()))])
    batch = pa.RecordBatch.from_pydict(
        {
            "naive": pa.array([when.replace(tzinfo=None)], pa.timestamp("us")),
            "zoned": pa.array([when], pa.timestamp("ms", "Asia/Kathmandu")),
            "nanos": pa.array([1_685_622_600_000_000_001], pa.timestamp("ns")),
            "day": pa.array([date(2023, 6, 1)]),
            "kind": pa.array(["oak"]).dictionary_encode(),
            "field": pa.array([{"crop": "rye", "areas": [1.5, None]}], kind),
            "tags": pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64())),
            "small": pa.array([-128], pa.int8()),
            "nothing": pa.array([None], pa.float64()),
        }
    )
    (row,) = rows_of(batch)
    assert row.naive == row.zoned == Timestamp.of(when.timestamp())
    assert row.naive.to_utc_datetime(has_tz=True) == when
    assert row.nanos.nanos == 1_685_622_600_000_000_001
    assert (row.day, row.kind, row.small, row.nothing) == (date(2023, 6, 1), "oak", -128, None)
    assert (row.field.crop, row.field.areas, row.tags) == ("rye", [1.5, None], {"a": 1})


def test_times_in_microseconds_and_as_text() -> None:
    """What ToRows gives unless it is asked for nanoseconds; text becomes times again."""
    ticks = [1_685_622_600_250_000_000, None]
    schema = pa.schema(
        {
            "naive": pa.timestamp("ns"),
            "zoned": pa.timestamp("ns", "Asia/Kathmandu"),
            "lists": pa.list_(pa.timestamp("ns")),
            "coded": pa.dictionary(pa.int8(), pa.timestamp("ms")),
            "day": pa.date32(),
        }
    )
    whole = pa.array(ticks, pa.timestamp("ns"))
    columns = [whole, whole.cast(schema.field("zoned").type), pa.array([ticks, None], schema.field("lists").type)]
    columns += [whole.cast(pa.timestamp("ms")).dictionary_encode().cast(schema.field("coded").type)]
    batch = pa.RecordBatch.from_arrays([*columns, pa.array([date(2023, 6, 1), None])], schema=schema)
    coder = RowCoder(row_schema(schema))
    rows = [coder.decode(coder.encode(row)) for row in rows_of(batch, "instant")]
    assert {rows[0].naive.precision(), rows[0].lists[0].precision()} == {6}
    assert rows[0].naive == rows[0].zoned == rows[0].coded and rows[0].lists == [rows[0].naive, None]
    assert same(as_batch(rows, schema, "the rows"), batch)
    text = rows_of(batch.select(["naive", "zoned", "coded", "day"]), "text")
    assert tuple(text[0]) == (
        "2023-06-01T12:30:00.250000000",
        "2023-06-01T12:30:00.250000000Z",
        "2023-06-01T12:30:00.250",
        "2023-06-01",
    )
    assert set(text[1]) == {None}
    wanted = pa.schema([schema.field(name) for name in ("naive", "zoned", "day")])
    assert same(as_batch(text, wanted, "the rows"), batch.select(wanted.names))


def test_geoarrow_columns_are_their_storage() -> None:
    kind = pa.uuid()
    batch = pa.RecordBatch.from_arrays(
        [pa.ExtensionArray.from_storage(kind, pa.array([b"0123456789abcdef", None], pa.binary(16)))], names=["id"]
    )
    rows = rows_of(batch)
    assert rows[0].id == b"0123456789abcdef" and rows[1].id is None
    assert as_batch(rows, batch.schema, "the rows").equals(batch)


def test_runs() -> None:
    runs = pa.RunEndEncodedArray.from_arrays(pa.array([2, 3], pa.int32()), pa.array(["a", None]))
    batch = pa.RecordBatch.from_arrays([runs], names=["run"])
    rows = rows_of(batch)
    assert [row.run for row in rows] == ["a", "a", None]
    assert as_batch(rows, batch.schema, "the rows").equals(batch)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("value", "value"), ("record:eo:cloud_cover", "record_eo_cloud_cover"), ("2023", "c2023"), ("_id", "c_id"),
     ("class", "class_"), ("plot id", "plot_id"), ("", "c"), ("Größe", "Größe"), ("mean_97.5", "mean_97_5")],
)  # fmt: skip
def test_names(name: str, expected: str) -> None:
    assert row_name(name) == expected
    NamedTuple("Row", [(expected, int)])  # type: ignore[misc]  # accepts it


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ([("a", pa.uint64())], "column 'a' is uint64, for which Beam's rows have no type; cast it to int64 or decimal"),
        ([("a", pa.null())], "column 'a' is null, .*; it has only nulls; cast it to its intended type"),
        ([("a", pa.list_(pa.time64("us")))], r"column 'a\[\]' is time64\[us\], .*; cast it to int64 or to text"),
        ([("s", pa.struct([("d", pa.duration("s"))]))], r"column 's.d' is duration\[s\].*; cast it to int64, or leave"),
        ([("s", pa.struct([]))], "column 's' is struct<>"),
        ([("m", pa.month_day_nano_interval())], "cast it to another type, or leave it out"),
        ([("a b", pa.int8()), ("a:b", pa.int8())], "columns a b, a:b have one name in rows, 'a_b'; rename or drop"),
        ([], "the schema has no columns"),
    ],
)
def test_schemas_that_rows_cannot_have(schema: list, words: str) -> None:
    with pytest.raises(InputError, match=words):
        row_schema(pa.schema(schema))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (pa.array([10**28], pa.decimal128(38, 0)), "'a' .decimal128.38, 0.. cannot become rows: .* more than 28"),
        (pa.array([1], pa.timestamp("ns")), 'a time has nanoseconds, .*; give times="nanos" or "text"'),
        (pa.array([3_000_000], pa.date32()), "outside the years 1 to 9999"),
        (pa.array([[("a", 1), ("a", 2)]], pa.map_(pa.string(), pa.int64())), "a map has a key twice"),
    ],
)  # fmt: skip
def test_values_that_rows_cannot_hold(values: pa.Array, words: str) -> None:
    with pytest.raises(InputError, match=words):
        rows_of(pa.RecordBatch.from_arrays([values], names=["a"]), "instant")


@pytest.mark.parametrize(
    ("kind", "value", "words"),
    [
        (pa.int16(), 1.5, "column 'a' of the rows should be int16: .*1.5"),
        (pa.int8(), 300, "should be int8"),
        (pa.timestamp("s"), Timestamp(micros=1), "does not fit timestamp.s. without loss"),
        (pa.timestamp("ns"), Timestamp(2**40), "should be timestamp.ns."),
        (pa.list_(pa.float64(), 2), [1.0], "a list has 1 values, not 2"),
        (pa.struct([("x", pa.int8())]), 7, "should be struct"),
        (pa.decimal128(4, 1), Decimal("1.25"), "should be decimal128"),
    ],
)
def test_values_that_do_not_fit_a_schema(kind: pa.DataType, value: object, words: str) -> None:
    with pytest.raises(InputError, match=words):
        as_batch([beam.Row(a=value)], pa.schema([("a", kind)]), "the rows")


def test_a_null_where_the_schema_has_none() -> None:
    schema = pa.schema([pa.field("a", pa.int8(), nullable=False)])
    with pytest.raises(InputError, match="column 'a' of the rows has a null"):
        as_batch([beam.Row(a=None)], schema, "the rows")


# In pipelines

BATCH = pa.RecordBatch.from_pydict(
    {"plot": ["a", "b", "c"], "value": [1.5, None, math.inf], "record:x y": pa.array([1, 2, 3], pa.uint8())}
)


def test_there_and_back_in_a_pipeline() -> None:
    """The schema of the batches comes back without being named, also behind a filter."""
    found = Kept()

    def build(pipeline: beam.Pipeline) -> None:
        rows = pipeline | beam.Create([BATCH]) | ToRows(BATCH.schema) | beam.Reshuffle()
        values = rows | beam.Map(lambda row: (row.plot, row.value))
        assert_that(values, equal_to([("a", 1.5), ("b", None), ("c", math.inf)]))
        few = rows | beam.Filter(lambda row: row.record_x_y > 1) | ToBatches()
        few | "Keep" >> beam.Map(lambda batch: found.keep([batch]))
        few | "Again" >> ToRows() | beam.Map(lambda row: row.plot)  # the columns are known

    run(build)
    table = pa.Table.from_batches(found).sort_by("plot")
    assert table.schema == BATCH.schema and table.equals(pa.Table.from_batches([BATCH.slice(1)]))


def test_windows_and_times_are_kept() -> None:
    found = Kept()

    def seen(batch: pa.RecordBatch, time: Any = beam.DoFn.TimestampParam, window: Any = beam.DoFn.WindowParam) -> None:
        found.keep([(float(time), float(window.start), batch["value"].to_pylist())])

    def build(pipeline: beam.Pipeline) -> None:
        parts = pipeline | beam.Create([(BATCH.slice(0, 2), 5), (BATCH.slice(2), 65)])
        timed = parts | "Time" >> beam.Map(lambda pair: TimestampedValue(*pair)).with_output_types(pa.RecordBatch)
        rows = timed | beam.WindowInto(FixedWindows(60)) | ToRows(BATCH.schema)
        rows | ToBatches() | beam.Map(seen)

    run(build)
    merged = sorted((time, start, value) for time, start, values in found for value in values if value is not None)
    assert merged == [(5.0, 0.0, 1.5), (65.0, 60.0, math.inf)]


def batched(rows: list[Any], schema: pa.Schema, most: int = 100, by_time: bool = True) -> list[pa.RecordBatch]:
    batching = BatchRowsFn(schema, most, by_time, "the rows")
    batching.start_bundle()
    given = [one for number, row in enumerate(rows) for one in batching.process(row, Timestamp(number % 2), "window")]
    return [each.value for each in [*given, *batching.finish_bundle()]]


def test_batches_are_bounded() -> None:
    schema = pa.schema([("text", pa.string())])
    rows = [beam.Row(text=str(number)) for number in range(10)]
    assert [len(batch) for batch in batched(rows, schema, most=4, by_time=False)] == [4, 4, 2]
    assert [len(batch) for batch in batched(rows, schema)] == [5, 5], "two times"
    large = [beam.Row(text="x" * (BATCH_BYTES // 2)) for _ in range(4)]
    assert [len(batch) for batch in batched(large, schema, by_time=False)] == [2, 2]


class Plot(NamedTuple):
    plot: str
    area: float
    seen: Timestamp
    tags: list[str]


def test_rows_of_users_have_their_own_schema() -> None:
    """A NamedTuple, whose schema Beam makes: timestamps are instants."""
    found = Kept()

    def build(pipeline: beam.Pipeline) -> None:
        rows = pipeline | beam.Create([Plot("a", 1.5, Timestamp(7), ["x"])]).with_output_types(Plot)
        rows | ToBatches() | beam.Map(lambda batch: found.keep([batch]))

    run(build)
    (batch,) = found
    assert batch.to_pylist() == [
        {"plot": "a", "area": 1.5, "seen": datetime(1970, 1, 1, 0, 0, 7, tzinfo=UTC), "tags": ["x"]}
    ]


class Price(NamedTuple):
    price: Decimal


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda p: p | beam.Create([BATCH]) | ToRows(), r"columns of the batches are not known.*ToRows\(schema=...\)"),
        (lambda p: ToRows(BATCH), "schema is a RecordBatch; give a pyarrow.Schema"),
        (lambda p: ToBatches(batch_rows=0), "batch_rows is 0; it has to be a whole number, 1 or more"),
        (lambda p: p | beam.Create([{"a": 1}]) | ToBatches(), "whose columns are unknown; give schema="),
        (lambda p: p | beam.Create([Price(Decimal(1))]).with_output_types(Price) | ToBatches(),
         "'price' of the rows has Beam's type beam:logical_type:decimal:v1, whose scale is unknown, .*give schema="),
    ],
)  # fmt: skip
def test_what_cannot_be_built(build: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        build(beam.Pipeline())


def test_a_batch_with_other_columns() -> None:
    making = _RowsFn(BATCH.schema)
    making.setup()
    with pytest.raises(InputError, match=r"a batch has the columns plot .string., value .double.; expected plot"):
        list(making.process(BATCH.select(["plot", "value"])))


def test_the_sample_table_has_rows() -> None:
    """With each of its columns, and those that options add."""
    for options in (SampleOptions(), SampleOptions(max_distance_pixels=1, return_neighbourhood="always")):
        schema = options.schema()
        assert [field.name for field in row_schema(schema).fields] == schema.names
    wide = SampleOptions(layout="values").schema(bands=["a", "b"])
    assert arrow_schema(row_schema(wide)) == wide
