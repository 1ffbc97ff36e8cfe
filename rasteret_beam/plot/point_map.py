"""A map of sampled points."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from rasteret_beam.collection.eager.unknown_keywords import names_of
from rasteret_beam.columns import VALUE
from rasteret_beam.errors import InputError, listed
from rasteret_beam.kernels.geo.crs import crs_text
from rasteret_beam.kernels.geo.map_axes import UNKNOWN, map_axes
from rasteret_beam.matplotlib_axes import axes_of, draw_colour_bar, draw_map_axes, draw_note
from rasteret_beam.plot.sample_columns import Batch, SampleColumns, Selection

MAX_POINTS = 100_000
PLACE = ("point_x", "point_y")
KNOWN = ("point_index", "datetime", "point_crs")
HASHES = float(2**64)
ONE_PLACE = 1e-4
"""Half the width of a map of one place, as a share of its larger coordinate."""

Floats = NDArray[np.float64]


def points(
    samples: Any,
    band: str | int | None = None,
    *,
    column: str = VALUE,
    bands: Sequence[str] = (),
    nodata: float | None = None,
    unit: str = "",
    crs: Any = None,
    max_points: int = MAX_POINTS,
    ax: Any = None,
    **scatter: Any,
) -> Any:
    """A map of points, coloured by the values of a band.

    Each point has its newest valid value. Samples whose ``status`` is not ``valid`` or ``filled``, that are null or
    NaN, or that equal column ``nodata``, are left out. Memory grows with ``max_points``, not with the samples.

    Parameters
    ----------
    samples
        A sample table of any layout: an Arrow table, record batch, reader or dataset, a pandas frame, or anything with
        an Arrow C stream (Polars, DuckDB).
    band : str or int, optional
        The band to draw; may be left out if there is one. With ``layout="columns"`` any column of numbers, with
        ``layout="values"`` the position in the lists, from 0, or a name of ``bands``.
    column : str
        With ``layout="long"``, the column of the values, such as that of a statistic.
    bands : sequence of str
        With ``layout="values"``, the bands in the order of the lists.
    nodata : float, optional
        A value that is left out too.
    unit : str
        Unit of the values, for the label of the colour bar.
    crs : optional
        CRS of the points, for the labels, where it has no EPSG code and the table does not carry it.
    max_points : int
        Of more points, a random but repeatable choice is drawn, and the picture notes it.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default on a new figure.
    **scatter
        Passed on to :meth:`matplotlib.axes.Axes.scatter`: ``cmap``, ``vmin``, ``vmax``, ``norm``, ``s``.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    InputError
        The samples have no points, no such band, or no valid value of it; they have several CRSs.
    MissingInputError
        Matplotlib is not installed.
    """
    if isinstance(max_points, bool) or not isinstance(max_points, int) or max_points < 1:
        raise InputError(f"max_points is {max_points!r}; give a whole number of at least 1")
    ax = axes_of(ax, figsize=(7, 6))
    read = SampleColumns(samples, Selection(band, column, names_of(bands, "bands"), nodata), PLACE, KNOWN)
    found = _newest(read, max_points)
    if not len(found.places.value):
        raise InputError(f"no sample of band {read.band!r} is valid, so there are no points to draw")
    given = read.exact_crs if crs is None and not found.codes else crs
    names = map_axes(found.crs(given)) if given is not None or found.codes else UNKNOWN
    x, y, value = found.places.x, found.places.y, found.places.value
    size = float(np.clip(20_000 / len(value), 2, 24))
    shown = ax.scatter(x, y, **{"c": value, "s": size, "linewidths": 0} | scatter)
    if not (np.ptp(x) or np.ptp(y)):
        half = max(ONE_PLACE * max(abs(x[0]), abs(y[0])), ONE_PLACE)
        ax.set(xlim=(x[0] - half, x[0] + half), ylim=(y[0] - half, y[0] + half))
    draw_map_axes(ax, names, float((y.min() + y.max()) / 2))
    draw_colour_bar(ax, shown, f"{read.band} ({unit})" if unit else read.band)
    draw_note(ax, found.note())
    return ax


@dataclass(frozen=True, eq=False)
class Places:
    """n points, in the order of their hashes: a random order that depends on the points alone."""

    hash: NDArray[np.uint64]
    x: Floats
    y: Floats
    datetime: NDArray[np.datetime64]
    value: Floats

    def columns(self) -> Iterator[NDArray[Any]]:
        yield from (self.hash, self.x, self.y, self.datetime, self.value)

    def take(self, rows: NDArray[Any]) -> "Places":
        return Places(*(column[rows] for column in self.columns()))


class Found:
    """The points to draw, as far as batches have been read."""

    def __init__(self, limit: int):
        self.limit = limit
        self.places = Places(
            np.empty(0, np.uint64), np.empty(0), np.empty(0), np.empty(0, "datetime64[us]"), np.empty(0)
        )
        self.codes: list[int] = []
        self._full = False

    def add(self, batch: Batch, first_row: int) -> None:
        """The points of a batch whose first row has this number; keeps those with the lowest hashes."""
        if "point_crs" in batch.columns:
            found = pc.unique(batch.columns["point_crs"]).drop_null().to_pylist()
            self.codes = list(dict.fromkeys((*self.codes, *found)))
        x, y = (batch.numbers(name) for name in PLACE)
        chosen = np.isfinite(batch.value) & np.isfinite(x) & np.isfinite(y)
        index = (
            batch.numbers("point_index")
            if "point_index" in batch.columns
            else np.arange(first_row, first_row + len(batch), dtype=np.float64)
        )
        when = (
            batch.moments("datetime")
            if "datetime" in batch.columns
            else np.full(len(batch), np.datetime64("NaT", "us"))
        )
        hashes = _hashes(index, x, y)
        chosen &= hashes <= self.places.hash[-1] if self._full else True
        new = Places(hashes, x, y, when, batch.value).take(chosen)
        joined = Places(*map(np.concatenate, zip(self.places.columns(), new.columns(), strict=True)))
        # NaT sorts last, so it becomes the oldest moment.
        age = np.where(np.isnat(joined.datetime), np.iinfo(np.int64).min, joined.datetime.astype(np.int64))
        order = np.lexsort((age, joined.hash))
        last = np.append(joined.hash[order][1:] != joined.hash[order][:-1], True)[: len(order)]
        newest = order[last]
        self._full = self._full or len(newest) > self.limit
        self.places = joined.take(newest[: self.limit])

    def crs(self, given: Any) -> str:
        """The one CRS of the points."""
        text = None if given is None else crs_text(given)
        known = [f"EPSG:{code}" for code in self.codes]
        if len(known) > 1:
            raise InputError(f"the samples are in several CRSs: {listed(known)}; draw those of one at a time")
        if text is not None and known and text != known[0] and text != "OGC:CRS84":
            raise InputError(f"crs is {text}, but column point_crs has {known[0]}; leave crs out")
        return text or known[0]

    def note(self) -> str:
        """What is left out."""
        if not self._full:
            return ""
        total = (self.limit - 1) / (float(self.places.hash[-1]) / HASHES)
        return f"{self.limit:,} of about {float(f'{total:.2g}'):,.0f} points"


def _newest(read: SampleColumns, limit: int) -> Found:
    found, rows = Found(limit), 0
    for batch in read:
        found.add(batch, rows)
        rows += len(batch)
    return found


def _hashes(index: Floats, x: Floats, y: Floats) -> NDArray[np.uint64]:
    """A 64-bit hash of each point: number, x and y."""
    mixed = np.zeros(len(index), np.uint64)
    for column in (index, x + 0.0, y + 0.0):  # -0.0 becomes 0.0
        mixed = _mixed(mixed ^ column.view(np.uint64))
    return mixed


def _mixed(bits: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finalizer of SplitMix64 (Steele, Lea and Flood 2014), after its increment."""
    bits = bits + np.uint64(0x9E3779B97F4A7C15)
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))
