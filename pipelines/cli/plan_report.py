"""Print the plan of a sampling job: the estimated tiles, bytes and rows."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from rasteret_beam import metrics
from rasteret_beam.collection.eager.plan_figures import crowded_tiles, plan_totals
from rasteret_beam.collection.eager.plan_view import SHOWN_BANDS, deeper_text, figures_of, human_bytes, place_of
from rasteret_beam.errors import listed


def plan_text(plan: pa.Table, further: Sequence[str] = (), rows_each: int | None = None) -> str:
    """A plan as lines for the terminal: its totals in the order of a run's summary, and the most crowded tiles.

    ``further`` lines come after the totals; ``rows_each``: rows that every point has to have.
    """
    totals = plan_totals(plan)
    if rows_each is not None:
        totals[metrics.SAMPLES_OUT] = totals[metrics.POINTS_IN] * rows_each
    lines = [f"{label:<36}{number:>16,}" for label, number in figures_of(totals)]
    in_words = f"{'':<36}{human_bytes(totals[metrics.TILE_BYTES_READ]):>16}"
    deeper = [text for text in [deeper_text(totals)] if text]
    return "\n".join([*lines, in_words, *deeper, *further, *_crowded(plan)])


def _crowded(plan: pa.Table) -> list[str]:
    found = crowded_tiles(plan)
    return [f"the {len(found)} most crowded tiles", *map(_crowded_line, found)] if found else []


def _crowded_line(tile: dict[str, Any]) -> str:
    bands = listed(tile["bands"], SHOWN_BANDS)
    return f"{tile['points']:>12,} points in tile {place_of(tile)} of {tile['record_id']}, {bands}"
