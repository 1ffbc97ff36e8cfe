"""Summaries as bytes: JSON and NumPy arrays, without pickles, so that a file of them runs no code."""

import io
import json
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa

from rasteret_beam.errors import InputError
from rasteret_beam.kernels.summary.cells import Cells
from rasteret_beam.kernels.summary.dates import Dates
from rasteret_beam.kernels.summary.rows import Series
from rasteret_beam.kernels.summary.summary import Summary
from rasteret_beam.kernels.summary.tally import Tally
from rasteret_beam.kernels.summary.values import Values

VERSION = 1
NUMBERS = ("rows", "without_record", "dead_values", "points_in")
CODEC = "zstd"


def to_bytes(summary: Summary) -> bytes:
    """A summary as bytes, without its sets of points."""
    facts: dict[str, Any] = {
        "version": VERSION,
        "bands": list(summary.bands),
        "nodata": {band: list(values) for band, values in summary.nodata.items()},
        "numbers": {name: getattr(summary, name) for name in NUMBERS},
        "dates": [summary.dates.unit, summary.dates.without, list(summary.dates.counts.items())],
        "kinds": {band: dict(kinds) for band, kinds in summary.kinds.items()},
        "reasons": dict(summary.reasons),
        "dead_letters": dict(summary.dead_letters),
        "values": [[*key, of.count, of.mean, of.squares, of.low, of.high] for key, of in summary.values.items()],
        "cells": [[*key, cells.span] for key, cells in summary.cells.items()],
        "reason_cells": [[*key, cells.span] for key, cells in summary.reason_cells.items()],
        "tallies": {name: [of.width, of.limit, of.level] for name, of in summary.tallies().items()},
    }
    arrays: dict[str, Any] = {"facts": np.frombuffer(json.dumps(facts).encode(), dtype=np.uint8)}
    for name, tally in summary.tallies().items():
        arrays |= {f"{name}k": tally.keys, f"{name}s": tally.sums}
    file = io.BytesIO()
    np.savez(file, **arrays)
    data = file.getvalue()
    return len(data).to_bytes(8, "little") + pa.compress(data, codec=CODEC, asbytes=True)


def from_bytes(data: bytes) -> Summary:
    """The summary that :func:`to_bytes` has made bytes of.

    Raises
    ------
    InputError
        It is of another version.
    """
    raw = pa.decompress(data[8:], decompressed_size=int.from_bytes(data[:8], "little"), codec=CODEC, asbytes=True)
    with np.load(io.BytesIO(raw), allow_pickle=False) as arrays:
        facts = json.loads(arrays["facts"].tobytes())
        if facts["version"] != VERSION:
            raise InputError(f"a summary has version {facts['version']}, but this release reads version {VERSION}")
        tallies = {name: _tally(arrays, name, *of) for name, of in facts["tallies"].items()}
    summary = Summary(tuple(facts["bands"]), facts["nodata"], **facts["numbers"])
    unit, without, counts = facts["dates"]
    summary.dates = Dates(unit, {int(day): int(many) for day, many in counts}, without)
    summary.kinds = {band: Counter(kinds) for band, kinds in facts["kinds"].items()}
    summary.reasons, summary.dead_letters = Counter(facts["reasons"]), Counter(facts["dead_letters"])
    for at, (band, statistic, count, mean, squares, low, high) in enumerate(facts["values"]):
        summary.values[Series(band, statistic)] = Values(count, mean, squares, low, high, tallies[f"v{at}"])
    for name, group, width in (("c", "cells", 2), ("r", "reason_cells", 0)):
        for at, (crs, of, span) in enumerate(facts[group]):
            cells = Cells(width, span=span)
            cells.tally = tallies[f"{name}{at}"]
            getattr(summary, group)[crs, of] = cells
    return summary


def _tally(arrays: Any, name: str, width: int, limit: int, level: int) -> Tally:
    tally = Tally(width, limit, level, arrays[f"{name}k"])
    tally.sums = arrays[f"{name}s"]
    return tally
