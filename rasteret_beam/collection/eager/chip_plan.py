"""The chips that ``get_numpy`` reads: which whole records each polygon has, and in which order they are looked at."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

from rasteret_beam.collection.index.collection_index import CollectionIndex
from rasteret_beam.errors import InputError, listed
from rasteret_beam.kernels.geo.grids import Ints
from rasteret_beam.kernels.routing.chip_windows import ChipLayer, chip_layers
from rasteret_beam.kernels.routing.whole_records import WholeRecords
from rasteret_beam.kernels.tables.point_times import NO_TIME
from rasteret_beam.kernels.tables.polygon_geometry import Polygons
from rasteret_beam.model import Grid


@dataclass(frozen=True, eq=False)
class Chip:
    """One polygon on one record, with the layer of each band in order."""

    geometry: int
    record_id: str
    layers: tuple[ChipLayer, ...]


def plan_chips(
    index: CollectionIndex,
    polygons: Polygons,
    bands: Sequence[str],
    rules: WholeRecords,
    times: Ints | None = None,
    most: int | None = None,
) -> list[Chip]:
    """The chips of some polygons, in the order of the polygons, then of the records.

    Parameters
    ----------
    index : CollectionIndex
        Made with ``match="all"``.
    times : [n] int64, optional
        Of the polygons, where records are matched in time.
    most : int, optional
        Give as many records of each polygon, at most, in place of those that the rules take, the best first.

    Raises
    ------
    InputError
        A record that is taken lacks a band, or its bands are on several grids; a polygon has no time, or records
        overlap it, but none is in time.
    """
    chips: list[Chip] = []
    in_time = times if rules.rules.time_column is not None else None
    for geometry, on_polygon in groupby(chip_layers(index.routing, polygons), key=lambda layer: layer.geometry):
        label = polygons.label(geometry)
        time = None if in_time is None else int(in_time[geometry])
        if time == NO_TIME:
            raise InputError(
                f"{label} has no time: {rules.rules.time_column!r} is null there, and records are matched in time; "
                "leave it out"
            )
        suit, lacking = _on_polygon(index.routing.record_ids, geometry, label, list(on_polygon), bands)
        taken = rules.best(list(suit), time, most)
        due = rules.best(sorted([*suit, *lacking]), time)
        _check_taken(taken, [lacking[record] for record in due if record in lacking], rules)
        if not taken:
            raise _out_of_tolerance(label, [*suit, *lacking], time, rules)
        chips += [suit[record] for record in (taken if most is not None else sorted(taken))]
    for chip in chips:
        _check_one_grid(chip, bands)
    return chips


def _on_polygon(
    record_ids: Sequence[str], geometry: int, label: str, layers: Sequence[ChipLayer], bands: Sequence[str]
) -> tuple[dict[int, Chip], dict[int, str]]:
    """The chips of a polygon by record, and of records that lack bands what is wrong with them."""
    suit: dict[int, Chip] = {}
    lacking: dict[int, str] = {}
    for record, group in groupby(layers, key=lambda layer: layer.record):
        by_band = {band: layer for layer in group for band in layer.bands}
        missing = [band for band in bands if band not in by_band]
        if missing:
            lacking[record] = (
                f"record {record_ids[record]!r}, which {label} overlaps, has no band(s) {listed(missing)} there"
            )
        else:
            suit[record] = Chip(geometry, record_ids[record], tuple(by_band[band] for band in bands))
    return suit, lacking


def _check_taken(taken: Sequence[int], lacking: Sequence[str], rules: WholeRecords) -> None:
    """Refuse records that would be taken, but lack a band; or the best are taken of those that do not."""
    if lacking and not (rules.chooses and taken):
        raise InputError(
            f"{lacking[0]}, and an array has no place for a chip without them; leave such records out with where() "
            "or subset(), or ask for bands that all records have"
        )


def _out_of_tolerance(label: str, records: Sequence[int], time: int | None, rules: WholeRecords) -> InputError:
    moments = rules.datetimes[list(records)]
    shown = listed([_moment(moment) if moment != NO_TIME else "no datetime" for moment in np.sort(moments).tolist()], 3)
    return InputError(
        f"{label} overlaps {len(records)} record(s), but none is near enough in time, or on the side asked for: its "
        f"time is {_moment(time or 0)}, the records have {shown}; use a larger tolerance or another match, or leave it "
        "out"
    )


def _moment(microseconds: int) -> str:
    return str(np.datetime64(microseconds, "us").astype("datetime64[s]"))


def _check_one_grid(chip: Chip, bands: Sequence[str]) -> None:
    first = chip.layers[0].grid
    for band, layer in zip(bands, chip.layers, strict=True):
        if _pixels(layer.grid) != _pixels(first):
            raise InputError(
                f"bands {bands[0]} and {band} of record {chip.record_id!r} lie on different grids "
                f"({_shown(first)}, {_shown(layer.grid)}), so they cannot be stacked; ask for them one at a time"
            )


def _pixels(grid: Grid) -> tuple[Any, ...]:
    return grid.crs, grid.transform, grid.width, grid.height


def _shown(grid: Grid) -> str:
    across, down = np.hypot(grid.transform[0], grid.transform[3]), np.hypot(grid.transform[1], grid.transform[4])
    return f"{grid.height} x {grid.width} pixels of {across:g} x {down:g} in {grid.crs}"
