"""Print the plan of a sampling job: the estimated tiles, bytes and rows."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from rasteret_beam import metrics
from rasteret_beam.collection.eager.plan import CANDIDATES, RECORDS, TILES_OF_UNKNOWN_SIZE, crowded_tiles, plan_totals
from rasteret_beam.errors import listed
from rasteret_beam.schema import UNSAMPLED_REASONS

UNITS = ("bytes", "kB", "MB", "GB", "TB", "PB")
SHOWN_BANDS = 6


def plan_text(plan: pa.Table, further: Sequence[str] = (), rows_each: int | None = None) -> str:
    """A plan as lines for the terminal: its totals in the order of a run's summary, and the most crowded tiles.

    ``further`` lines come after the totals; ``rows_each``: rows that every point has to have.
    """
    totals = plan_totals(plan)
    if rows_each is not None:
        totals[metrics.SAMPLES_OUT] = totals[metrics.POINTS_IN] * rows_each
    labels = {
        "points read": metrics.POINTS_IN,
        "  with a record": metrics.POINTS_SAMPLED,
        "  without": metrics.POINTS_UNSAMPLED,
    }
    labels |= {f"    {reason}": metrics.unsampled(reason) for reason in UNSAMPLED_REASONS}
    labels |= {
        "records": RECORDS,
        "rows": metrics.SAMPLES_OUT,
        "tiles to decode": metrics.TILES_DECODED,
        "requests": metrics.RANGE_REQUESTS,
        "bytes of tiles to read": metrics.TILE_BYTES_READ,
        "tiles of unknown size, not in these": TILES_OF_UNKNOWN_SIZE,
    }
    optional = {*map(metrics.unsampled, UNSAMPLED_REASONS), TILES_OF_UNKNOWN_SIZE}
    lines = [
        f"{label:<36}{totals[name]:>16,}" for label, name in labels.items() if totals[name] or name not in optional
    ]
    in_words = f"{'':<36}{human_bytes(totals[metrics.TILE_BYTES_READ]):>16}"
    most = totals.get(CANDIDATES)
    deeper = [f"where the best record is not valid, up to {most - 1} more are read"] if most and most > 1 else []
    return "\n".join([*lines, in_words, *deeper, *further, *_crowded(plan)])


def _crowded(plan: pa.Table) -> list[str]:
    found = crowded_tiles(plan)
    return [f"the {len(found)} most crowded tiles", *map(_crowded_line, found)] if found else []


def _crowded_line(tile: dict[str, Any]) -> str:
    place = f"({tile['tile_row']}, {tile['tile_col']})"
    return f"{tile['points']:>12,} points in tile {place} of {tile['record_id']}, {listed(tile['bands'], SHOWN_BANDS)}"


def human_bytes(count: int) -> str:
    """A number of bytes in the unit that gives up to four digits."""
    value, unit = float(count), 0
    while value >= 1000 and unit < len(UNITS) - 1:
        value, unit = value / 1000, unit + 1
    return f"{value:.0f} {UNITS[unit]}" if unit == 0 else f"{value:.1f} {UNITS[unit]}"
