"""A plan that notebooks show: its figures and its most crowded tiles."""

from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa

from rasteret_beam import metrics
from rasteret_beam.collection.eager.plan_figures import (
    CANDIDATES,
    RECORDS,
    TILES_OF_UNKNOWN_SIZE,
    crowded_tiles,
    plan_totals,
)
from rasteret_beam.errors import listed
from rasteret_beam.pages import Html, card, cards, fragment, tag
from rasteret_beam.pages import table as html_table
from rasteret_beam.schema import UNSAMPLED_REASONS

UNITS = ("bytes", "kB", "MB", "GB", "TB", "PB")
SHOWN_BANDS = 6


class Plan:
    """The tiles that a sampling job would read, as a table; made by :func:`rasteret_beam.plan`.

    It has the attributes and methods of a ``pyarrow.Table``, whose columns :func:`rasteret_beam.plan` describes, and an
    Arrow C stream. Functions of PyArrow that require a table take ``plan.table``. Notebooks show its figures and the
    tiles with the most points.

    Attributes
    ----------
    table : pyarrow.Table
    """

    table: pa.Table

    def __init__(self, table: pa.Table):
        self.table = table

    @property
    def totals(self) -> dict[str, int]:
        """The sums, under the names of the metrics of a run."""
        return plan_totals(self.table)

    def crowded_tiles(self, count: int = 10) -> list[dict[str, Any]]:
        """The tiles with the most points: record_id, tile_row, tile_col, points, and a list of bands."""
        return crowded_tiles(self.table, count)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "table":  # also while it is unpickled
            raise AttributeError(f"a plan has no attribute {name!r}")
        return getattr(self.table, name)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *dir(self.table)})

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, key: Any) -> Any:
        return self.table[key]

    def __eq__(self, other: object) -> bool:
        return bool(self.table == (other.table if isinstance(other, Plan) else other))

    def equals(self, other: Any, check_metadata: bool = False) -> bool:
        """As ``pyarrow.Table.equals``; the other may be a plan too."""
        return bool(self.table.equals(other.table if isinstance(other, Plan) else other, check_metadata))

    __hash__ = None  # type: ignore[assignment]

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return self.table.__arrow_c_stream__(requested_schema)

    def __repr__(self) -> str:
        totals = self.totals
        read = f"{totals[metrics.TILES_DECODED]:,} tiles, {human_bytes(totals[metrics.TILE_BYTES_READ])}"
        return f"Plan({totals[metrics.SAMPLES_OUT]:,} rows from {totals[RECORDS]:,} records: {read})"

    def _repr_html_(self) -> str:
        totals = self.totals
        figures = [(label, f"{number:,}") for label, number in figures_of(totals)]
        figures.append(("", human_bytes(totals[metrics.TILE_BYTES_READ])))
        notes = [tag("p", text) for text in [deeper_text(totals)] if text]
        return fragment(
            cards(card(html_table(("", ""), figures, numbers=(1,)), notes, heading="Plan"), self._crowded())
        )

    def _crowded(self) -> Html:
        found = self.crowded_tiles()
        if not found:
            return Html("")
        head = ("record", "tile (row, column)", "bands", "points")
        rows = [
            (tile["record_id"], place_of(tile), listed(tile["bands"], SHOWN_BANDS), f"{tile['points']:,}")
            for tile in found
        ]
        return card(html_table(head, rows, numbers=(3,)), heading=f"The {len(found)} most crowded tiles")


def figures_of(totals: Mapping[str, int]) -> Iterator[tuple[str, int]]:
    """The totals of a plan with their labels, in the order of a run's summary; without optional ones that are 0."""
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
    yield from ((label, totals[name]) for label, name in labels.items() if totals[name] or name not in optional)


def deeper_text(totals: Mapping[str, int]) -> str:
    """How many further records may be read at a point, if any."""
    most = totals.get(CANDIDATES)
    return f"where the best record is not valid, up to {most - 1} more are read" if most and most > 1 else ""


def place_of(tile: Mapping[str, Any]) -> str:
    return f"({tile['tile_row']}, {tile['tile_col']})"


def human_bytes(count: int) -> str:
    """A number of bytes in the unit that gives up to four digits."""
    value, unit = float(count), 0
    while value >= 1000 and unit < len(UNITS) - 1:
        value, unit = value / 1000, unit + 1
    return f"{value:.0f} {UNITS[unit]}" if unit == 0 else f"{value:.1f} {UNITS[unit]}"
