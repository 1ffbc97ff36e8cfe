"""What may be secret of a URL is neither shown nor kept."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from rasteret_beam import ReadPoints, ReadPolygons
from rasteret_beam.errors import TileReadError
from rasteret_beam.kernels.sampling.dead_letters import Failure, dead_letters
from rasteret_beam.model import Asset

SIGNED = "https://me:hunter2@host/folder/p.parquet?sig=5ec2e7"


@pytest.mark.parametrize("reader", [ReadPoints, ReadPolygons])
@pytest.mark.parametrize(
    ("source", "shown"),
    [
        (SIGNED, "https://host/folder/p.parquet?..."),
        ([SIGNED, Path("/a/b.parquet")], "https://host/folder/p.parquet?..., /a/b.parquet"),
        (pa.table({"x": [1.0]}), "Table"),
    ],
)
def test_reprs_of_readers(reader: Any, source: Any, shown: str) -> None:
    assert repr(reader(source)) == f"{reader.__name__}({shown})"


def test_hrefs_of_dead_letters() -> None:
    asset = Asset("r", "B1", SIGNED, 0, None, None)
    error = TileReadError("record 'r', band B1: 503")
    error.kind, error.attempts = "RangeError", 3
    chunk = pa.record_batch({"point_index": pa.array([4], pa.int64())})
    (letter,) = dead_letters(chunk, [Failure(asset, 0, 0, error, np.array([0]))]).to_pylist()
    assert letter["href"] == "https://host/folder/p.parquet?..."
    assert (letter["record_id"], letter["band"], letter["point_indexes"]) == ("r", "B1", [4])
