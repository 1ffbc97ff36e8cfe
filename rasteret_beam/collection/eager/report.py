"""A report of samples: one page in HTML, made without a network, that needs none."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from rasteret_beam.collection.eager.inputs import PointStream, table_stream
from rasteret_beam.collection.eager.plan_view import Plan
from rasteret_beam.collection.eager.report_facts import facts_of, nodata_of_values
from rasteret_beam.collection.records.selection import RecordSelection
from rasteret_beam.errors import InputError, listed
from rasteret_beam.kernels.geo.crs import crs_text
from rasteret_beam.kernels.summary.feeding import SampleFeed
from rasteret_beam.kernels.summary.point_sets import PointSet
from rasteret_beam.kernels.summary.rows import shape_of
from rasteret_beam.kernels.summary.summary import Summary
from rasteret_beam.options import SampleOptions
from rasteret_beam.pages.report.accounting import accounts_of
from rasteret_beam.pages.report.compose import report_fragment, report_page
from rasteret_beam.pages.report.facts import Facts
from rasteret_beam.readers.storage.local_files import writing

ACCEPTED = "the table that sample_points returns, or anything with an Arrow C stream of its rows"
QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


@dataclass(frozen=True)
class Report:
    """A report, which notebooks show.

    Attributes
    ----------
    summary : Summary
        The numbers.
    facts : Facts
    counts : {counter: number}, optional
        Of the run.
    """

    summary: Summary = field(repr=False)
    facts: Facts = field(repr=False)
    counts: Mapping[str, int] | None = field(default=None, repr=False)

    @property
    def html(self) -> str:
        """The whole page."""
        return report_page(self.summary, self.facts, self.counts)

    def _repr_html_(self) -> str:
        return report_fragment(self.summary, self.facts)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the page to a local file, with its folders.

        Raises
        ------
        OutputError
        """
        place = os.path.abspath(os.fspath(path))
        with writing(place):
            os.makedirs(os.path.dirname(place), exist_ok=True)
            with open(place, "w", encoding="utf-8") as file:
                file.write(self.html)

    def numbers(self) -> dict[str, Any]:
        """The numbers of the report: counts of points and rows, and for each column of values its statistics."""
        summary, accounts = self.summary, accounts_of(self.summary)
        return {
            "points": accounts.points_in,
            "sampled": accounts.sampled,
            "unsampled": accounts.unsampled,
            "reasons": accounts.reasons,
            "rows": summary.rows,
            "dead_letters": sum(summary.dead_letters.values()),
            "kinds": {band: dict(kinds) for band, kinds in summary.kinds.items()},
            "values": {
                series.label: {
                    "count": of.count,
                    "mean": of.mean,
                    "std": of.std,
                    "quantiles": dict(zip(QUANTILES, of.quantiles(list(QUANTILES)), strict=True)),
                }
                for series, of in summary.values.items()
            },
            "dates": dict(zip(*(each.tolist() for each in summary.dates.sorted()), strict=True)),
        }


def report(
    samples: Any,
    unsampled: Any = None,
    collection: RecordSelection | None = None,
    *,
    dead_letters: Any = None,
    bands: Sequence[str] | None = None,
    point_crs: Any = None,
    options: SampleOptions | None = None,
    plan: Plan | None = None,
    counts: Mapping[str, int] | None = None,
    title: str = "",
) -> Report:
    """A report of samples: accounts, maps, histograms and quantiles, validity, dates.

    Rows are read once, batch by batch; memory depends on the number of bands, and takes an eighth of a byte a point.

    Parameters
    ----------
    samples
        What :meth:`Collection.sample_points` or :meth:`Collection.sample_batches` gives, in any layout: an Arrow table
        or reader, or anything with an Arrow C stream (pandas, Polars, DuckDB), also of files that a job has written.
    unsampled, dead_letters : optional
        The points without a sample, and the tiles that could not be read, likewise.
    collection : Collection, optional
        For footprints, and for nodata values, which are not counted as values where the samples lack column ``status``.
    bands : sequence of str, optional
        Names of the bands of a wide layout, in order; needed for ``layout="values"``, whose table has no names.
    point_crs : optional
        CRS of the points, if it has no EPSG code.
    options : SampleOptions, optional
        Those of the samples, to be shown.
    plan : Plan, optional
        Of :meth:`Collection.plan`.
    counts : mapping, optional
        Counters of a run, by names of :mod:`rasteret_beam.metrics`.
    title : str, optional

    Returns
    -------
    Report
        With ``html``, ``save(path)`` and ``numbers()``; notebooks show it.

    Raises
    ------
    InputError
        A table lacks columns of the sample table, or cannot be read.
    """
    stream = table_stream(samples, "samples", ACCEPTED)
    known = tuple(bands) if bands is not None else None
    shape = shape_of(stream.schema, known or _bands_of(stream.schema, collection))
    wanted = shape.bands or (tuple(collection.bands) if collection is not None else ())
    nodata = nodata_of_values(collection, wanted, options)
    summary = Summary(known or shape.bands, nodata, sampled=PointSet(), others=PointSet())
    summarise(summary, stream, unsampled, dead_letters)
    text = crs_text(point_crs) if point_crs is not None else ""
    return Report(summary, facts_of(collection, title=title, options=options, point_crs=text, plan=plan), counts)


def _bands_of(schema: pa.Schema, collection: RecordSelection | None) -> tuple[str, ...] | None:
    """The bands of the collection, where these are the columns or lists of a wide layout."""
    if collection is None:
        return None
    if "values" in schema.names:
        size = getattr(schema.field("values").type, "list_size", -1)
        return tuple(collection.bands) if size == len(collection.bands) else None
    return tuple(collection.bands)


def summarise(summary: Summary, samples: Iterable[pa.RecordBatch], unsampled: Any = None, dead: Any = None) -> None:
    """Add tables to a summary, batch by batch."""
    feed = SampleFeed(summary)
    for batch in samples:
        feed.add(batch)
    feed.close()
    if unsampled is not None:
        summary.given_unsampled = True
        for batch in _checked(unsampled, "unsampled", ("point_x", "point_y", "point_crs", "reason")):
            summary.add_unsampled(batch)
    if dead is not None:
        for batch in _checked(dead, "dead_letters", ("error", "point_indexes")):
            summary.add_dead_letters(batch)


def _checked(given: Any, what: str, needed: Sequence[str]) -> PointStream:
    """A table as a stream, if it has the columns that are needed."""
    stream = table_stream(given, what, "the table that a job gives")
    missing = [name for name in needed if name not in stream.schema.names]
    if missing:
        raise InputError(f"{what} lack column(s) {listed(missing)}; they have {listed(stream.schema.names)}")
    return stream
