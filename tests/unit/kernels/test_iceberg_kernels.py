"""Partitions and types of Iceberg tables, against pyiceberg's own."""

from collections import defaultdict
from datetime import datetime

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyiceberg.io.pyarrow import pyarrow_to_schema, schema_to_pyarrow
from pyiceberg.schema import assign_fresh_schema_ids
from pyiceberg.transforms import parse_transform
from pyiceberg.types import StringType, TimestampType

from rasteret_beam.errors import InputError
from rasteret_beam.kernels.iceberg.names import PartitionTerm, TableName
from rasteret_beam.kernels.iceberg.partitions import split
from rasteret_beam.kernels.iceberg.types import fit, storable_schema, with_field_ids

EPOCH = datetime(1970, 1, 1)
MOMENTS = st.none() | st.datetimes(datetime(1900, 1, 1), datetime(2100, 1, 1))


@given(
    st.lists(st.tuples(MOMENTS, st.none() | st.sampled_from(["B1", "B2", ""])), min_size=1, max_size=40),
    st.sampled_from(["year", "month", "day", "hour"]),
)
def test_parts_are_the_partitions_of_pyiceberg(rows: list[tuple[datetime | None, str | None]], unit: str) -> None:
    moments, bands = zip(*rows, strict=True)
    batch = pa.record_batch({"t": pa.array(moments, pa.timestamp("us")), "b": bands, "n": range(len(rows))})
    batch = batch.set_column(1, "b", pa.array(bands, pa.string()))
    of_time = parse_transform(unit).transform(TimestampType())
    of_text = parse_transform("identity").transform(StringType())
    wanted = defaultdict(list)
    for number, (moment, band) in enumerate(rows):
        micros = None if moment is None else round((moment - EPOCH) / (datetime.resolution))
        wanted[of_time(micros), of_text(band)].append(number)
    parts = list(split(batch, [PartitionTerm("t", unit), PartitionTerm("b")]))
    assert sorted(part["n"].to_pylist() for _, part in parts) == sorted(wanted.values())
    assert len({key for key, _ in parts}) == len(parts)


def test_without_terms_rows_are_one_part() -> None:
    batch = pa.record_batch({"n": [1, 2]})
    [(key, part)] = split(batch, [])
    assert (key, part is batch) == ((), True)


NESTED = pa.schema(
    [
        pa.field("l", pa.large_list(pa.struct([("x", pa.uint8()), ("y", pa.list_(pa.float16(), 2))]))),
        pa.field("m", pa.map_(pa.string(), pa.dictionary(pa.int8(), pa.large_string()))),
        pa.field("s", pa.struct([("t", pa.timestamp("ns", "Asia/Tokyo"))])),
        pa.field("d", pa.decimal128(9, 2), nullable=False),
        pa.field("u", pa.uuid()),
    ]
)


def test_stored_types_are_those_that_pyiceberg_keeps() -> None:
    """A table made of them gives the same types back, whose ids stand at the fields."""
    stored = storable_schema(NESTED)
    numbers = iter(range(1, 99))
    table = assign_fresh_schema_ids(pyarrow_to_schema(with_field_ids(stored, lambda path: next(numbers))))
    back = storable_schema(schema_to_pyarrow(table, include_field_ids=False))
    assert fit(stored, back).wrong == fit(stored, back).new == []
    with_ids = with_field_ids(back, lambda path: table.find_field(path).field_id)
    assert pyarrow_to_schema(with_ids) == table


@pytest.mark.parametrize(
    ("rows", "table", "fits"),
    [
        (pa.int32(), pa.int64(), True),
        (pa.int64(), pa.int32(), False),
        (pa.float32(), pa.float64(), True),
        (pa.int32(), pa.float64(), False),
        (pa.decimal128(5, 2), pa.decimal128(9, 2), True),
        (pa.decimal128(5, 2), pa.decimal128(9, 3), False),
        (pa.list_(pa.int32()), pa.list_(pa.int64()), True),
        (pa.struct([("a", pa.int32())]), pa.struct([("a", pa.int64())]), True),
        (pa.struct([("a", pa.int32())]), pa.struct([("b", pa.int32())]), False),
        (pa.timestamp("us"), pa.timestamp("us", "UTC"), False),
    ],
)
def test_types_that_a_table_takes(rows: pa.DataType, table: pa.DataType, fits: bool) -> None:
    found = fit(pa.schema([("x", rows)]), pa.schema([("x", table)]))
    assert list(found.wrong) == ([] if fits else [f"x is {table} in the table, {rows} in the rows"])
    assert found.schema.field("x").type == table


def test_columns_that_differ_in_case_alone() -> None:
    with pytest.raises(InputError, match="columns Plot, plot have one name or differ only in case"):
        storable_schema(pa.schema([("Plot", pa.int32()), ("plot", pa.int32())]))


def test_names_of_tables_in_nested_namespaces() -> None:
    name = TableName.parse("lake.a.b.t")
    assert (name.catalog, name.namespace, name.table, str(name)) == ("lake", ("a", "b"), "t", "lake.a.b.t")
