"""Convert batches to dicts, for the BigQuery interfaces that take single rows."""

import base64
import math
from collections.abc import Iterator
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any

import pyarrow as pa

from rasteret_beam.kernels.bigquery.schema import loadable


def json_rows(batch: pa.RecordBatch) -> Iterator[dict[str, Any]]:
    """Rows for streaming inserts: JSON with NaN, infinities, times, decimals and bytes as text."""
    for row in loadable(batch).to_pylist():
        yield {name: _json(value) for name, value in row.items()}


def _json(value: Any) -> Any:
    match value:
        case float():
            return value if math.isfinite(value) else str(value).replace("nan", "NaN").replace("inf", "Infinity")
        case datetime() if value.tzinfo is not None:
            return value.astimezone(UTC).isoformat()
        case datetime() | date() | time():
            return value.isoformat()
        case Decimal():
            return format(value, "f")
        case bytes():
            return base64.b64encode(value).decode()
        case list():
            return [_json(one) for one in value]
        case dict():
            return {name: _json(one) for name, one in value.items()}
    return value


def python_rows(batch: pa.RecordBatch) -> Iterator[dict[str, Any]]:
    """Rows as dicts of Python values; null lists become empty."""
    batch = loadable(batch)
    lists = [field.name for field in batch.schema if pa.types.is_list(field.type)]
    for row in batch.to_pylist():
        yield row | {name: row[name] or [] for name in lists}
