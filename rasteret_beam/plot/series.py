"""Samples over time: a mean with its spread, or a line for each group."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from rasteret_beam.collection.eager.unknown_keywords import names_of
from rasteret_beam.columns import VALUE
from rasteret_beam.errors import InputError
from rasteret_beam.matplotlib_axes import axes_of, draw_note, pyplot
from rasteret_beam.plot.moment_groups import STEPS, Groups, Means
from rasteret_beam.plot.sample_columns import SampleColumns, Selection

MAX_LINES = 10


def time_series(
    samples: Any,
    by: str | None = None,
    *,
    band: str | int | None = None,
    column: str = VALUE,
    bands: Sequence[str] = (),
    nodata: float | None = None,
    unit: str = "",
    every: str | None = "day",
    max_lines: int = MAX_LINES,
    ax: Any = None,
    **line: Any,
) -> Any:
    """The mean of a band over time, with a band of one standard deviation; with ``by``, a line for each group.

    Values of one UTC day count as one moment unless ``every`` differs. Samples that are not valid are left out as by
    :func:`rasteret_beam.plot.points`; a line has a gap at moments that have only such samples. Memory is bounded: it
    depends on the number of lines and moments, not on the number of samples.

    Parameters
    ----------
    samples
        As of :func:`rasteret_beam.plot.points`; or a table of zonal statistics, with ``column``.
    by : str, optional
        A column whose values are the groups, such as a kept column of the points, or ``point_index``.
    band, column, bands, nodata, unit
        As of :func:`rasteret_beam.plot.points`.
    every : {"hour", "day", "month", "year"} or None
        What counts as one moment; None for exact datetimes. Of more than 2,000 moments, coarser steps are drawn, and
        the picture notes it.
    max_lines : int
        Of more groups, the first in their order are drawn, and the picture notes it.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default on a new figure.
    **line
        Passed on to :meth:`matplotlib.axes.Axes.plot`.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    InputError
        The samples have no datetimes, no such band or column, or no valid value.
    MissingInputError
        Matplotlib is not installed.
    """
    if isinstance(max_lines, bool) or not isinstance(max_lines, int) or max_lines < 1:
        raise InputError(f"max_lines is {max_lines!r}; give a whole number of at least 1")
    if every not in STEPS:
        raise InputError(f"every is {every!r}; give one of {', '.join(str(step) for step in STEPS)}")
    ax = axes_of(ax, figsize=(8, 4))
    needed = ("datetime",) if by is None else ("datetime", _column_name(by))
    read = SampleColumns(samples, Selection(band, column, names_of(bands, "bands"), nodata), needed)
    groups = Groups(by, max_lines, every)
    for batch in read:
        groups.add(batch)
    if not groups.means.count.any():
        raise InputError(f"no sample of band {read.band!r} is valid and has a datetime, so there is no line to draw")
    labels = [read.band] if by is None else [str(name) for name in groups.names.to_pylist()]  # type: ignore[union-attr]
    for number, label in enumerate(labels):
        _draw(ax, groups.means.take(groups.means.group == number), label, line)
    _finish(ax, f"{read.band} ({unit})" if unit else read.band, by)
    draw_note(ax, _note(groups, every))
    return ax


def _column_name(by: Any) -> str:
    if not isinstance(by, str):
        raise InputError(f"by is {by!r}, a {type(by).__name__}; give the name of a column")
    return by


def _draw(ax: Any, means: Means, label: str, line: dict[str, Any]) -> None:
    """A line with gaps where no value is valid, and its spread where a moment has several values."""
    mean = np.where(means.count > 0, means.mean, np.nan)
    style = {"marker": "o", "markersize": 3, "linewidth": 1.2, "label": label}
    (drawn,) = ax.plot(means.moment, mean, **style | line)
    if (means.count > 1).any():
        spread = means.spread()
        ax.fill_between(means.moment, mean - spread, mean + spread, color=drawn.get_color(), alpha=0.2, linewidth=0)


def _finish(ax: Any, label: str, by: str | None) -> None:
    dates = pyplot().matplotlib.dates
    ax.xaxis.set_major_formatter(dates.ConciseDateFormatter(ax.xaxis.get_major_locator()))
    ax.set(xlabel="date (UTC)", ylabel=f"{label}, mean")
    if by is not None:
        ax.legend(title=by, fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))


def _note(groups: Groups, every: str | None) -> str:
    """What is left out."""
    parts = []
    if groups.more_than_counted or groups.count > groups.limit:
        total = f"more than {groups.count:,}" if groups.more_than_counted else f"{groups.count:,}"
        parts.append(f"{groups.limit:,} of {total} values of {groups.by}")
    if groups.every != every:
        parts.append(f"means by {groups.every}")
    if groups.undated:
        parts.append(f"{groups.undated:,} samples without a datetime are left out")
    return "; ".join(parts)
