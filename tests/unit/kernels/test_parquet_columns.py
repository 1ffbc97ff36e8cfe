"""Storage of columns in Parquet, and text columns as dictionaries."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rasteret_beam.kernels.tables.dictionaries import TEXT, DictionaryEncoder, as_dictionaries
from rasteret_beam.kernels.tables.parquet_columns import column_storage

ROWS = 600_000
RANDOM = np.random.default_rng(5)
TEXTS = st.lists(st.sampled_from(["", "a", "bb", "\N{SNOWMAN}", None]), min_size=1, max_size=20)


def bands(points: int) -> np.ndarray:
    """Coordinates of points, which repeat for each band."""
    return np.resize(RANDOM.uniform(0, 90, points), ROWS)


@pytest.mark.parametrize(
    ("values", "dictionary"),
    [
        (RANDOM.integers(0, 256, ROWS).astype(float), True),
        (RANDOM.integers(0, 20_000, ROWS).astype(float), True),
        (RANDOM.uniform(0, 1, ROWS), False),
        (np.arange(ROWS), False),
        (bands(16_384), True),
        (bands(150_000), False),  # larger than a dictionary may be
        (np.full(ROWS, np.nan), True),
    ],
)
def test_a_dictionary_where_it_saves_bytes(values: np.ndarray, dictionary: bool) -> None:
    table = pa.table({"v": values})
    storage = column_storage(table, "zstd")
    assert storage.dictionary == (["v"] if dictionary else [])
    sizes = []
    for use in (True, False):
        file = pa.BufferOutputStream()
        pq.write_table(table, file, compression="none", use_dictionary=use, row_group_size=ROWS)
        sizes.append(file.getvalue().size)
    assert (sizes[0] < 0.8 * sizes[1]) == dictionary


def test_codec_where_it_saves_bytes() -> None:
    table = pa.table({"noise": RANDOM.uniform(0, 1, 5000), "count": np.arange(5000)})
    assert column_storage(table, "snappy").compression == {"noise": "NONE", "count": "snappy"}
    assert column_storage(table, "none").compression == {"noise": "NONE", "count": "NONE"}


def test_every_leaf_of_every_type() -> None:
    """Paths are those of the file, for types that cannot be counted too."""
    columns = {
        "list": pa.array([[1.0, None], None, []], pa.list_(pa.float64())),
        "fixed": pa.array([[1, 2], None, [3, 4]], pa.list_(pa.int8(), 2)),
        "struct": pa.array([{"a": 1, "b": [{"c": "x"}]}, None, {"a": 2, "b": None}]),
        "map": pa.array([[("k", 1)], None, []], pa.map_(pa.string(), pa.int32())),
        "null": pa.nulls(3),
        "bool": pa.array([True, None, False]),
        "half": pa.array(np.array([1, 2, 3], np.float16)),
        "text.view": pa.array(["a", None, "b"], pa.string_view()),
        "dictionary": pa.array(["a", None, "b"]).dictionary_encode(),
        "decimal": pa.array([1, None, 2]).cast(pa.decimal128(22, 2)),
        "binary": pa.array([b"a", None, b"b"], pa.large_binary()),
        "bytes": pa.array([b"a", None, b"b"], pa.binary(1)),
    }
    table = pa.table(columns)
    storage = column_storage(table, "zstd")
    file = pa.BufferOutputStream()
    pq.write_table(table, file, compression=storage.compression, use_dictionary=storage.dictionary)
    schema = pq.ParquetFile(pa.BufferReader(file.getvalue())).schema
    assert list(storage.compression) == [schema.column(number).path for number in range(len(schema))]


@settings(max_examples=60, deadline=None)
@given(chunks=st.lists(TEXTS, min_size=1, max_size=6), data=st.data())
def test_text_as_dictionaries_is_the_same_text(chunks: list[list[str | None]], data: st.DataObject) -> None:
    """Also of slices that share their buffers, in any order."""
    parts = []
    for chunk in chunks:
        whole = pa.array(chunk, pa.string())
        for _ in range(3):
            start = data.draw(st.integers(0, len(whole)))
            parts.append(whole.slice(start, data.draw(st.integers(0, len(whole) - start))))
    column = pa.chunked_array(parts, pa.string())
    encoded = DictionaryEncoder().encode(column)
    assert encoded.type == TEXT
    assert encoded.cast(pa.string()).to_pylist() == column.to_pylist()


def test_only_the_named_text_columns_become_dictionaries() -> None:
    own = pa.array(["x", "y"]).dictionary_encode()
    batch = pa.RecordBatch.from_pydict({"a": ["1", "2"], "b": ["1", "2"], "n": [1, 2], "d": own})
    table = as_dictionaries([batch, batch], {"a", "n", "d"})
    assert [field.type for field in table.schema] == [TEXT, pa.string(), pa.int64(), own.type]
    assert table.to_pylist() == 2 * batch.to_pylist()
