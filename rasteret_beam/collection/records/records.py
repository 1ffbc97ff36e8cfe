"""Records while a collection is built: before and after their files are opened."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime as Datetime

from rasteret_beam.kernels.geo.footprints import Footprint
from rasteret_beam.model import BandHeader


@dataclass(frozen=True)
class Stated:
    """Facts of a band from a record table; None if the table lacks them."""

    nodata: float | None = None
    scale: float | None = None
    offset: float | None = None


NOTHING_STATED = Stated()


@dataclass(frozen=True)
class RecordSource:
    """A record before its files are opened.

    Attributes
    ----------
    id : str
    datetime : datetime or None
        In UTC, without a time zone.
    assets : {band: (href, 0-based band index)}
        Empty if ``href`` is given.
    href : str, optional
        One file, all of whose bands become the record's bands B1, B2, ...
    row : bytes
        The record's row of a record table without column ``assets``, as Arrow IPC; or empty.
    stated : {band: Stated}
        Facts of bands from a record table.
    start, end : datetime or None
        First and last datetime of a record without a datetime, as in STAC.
    known : {band: BandHeader}
        Headers that need not be read: the table has their facts.
    by_description : bool
        Name the bands of ``href`` by their descriptions, if each band has a different one.
    """

    id: str
    datetime: Datetime | None
    assets: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    href: str | None = None
    row: bytes = b""
    stated: Mapping[str, Stated] = field(default_factory=dict)
    start: Datetime | None = None
    end: Datetime | None = None
    known: Mapping[str, BandHeader] = field(default_factory=dict)
    by_description: bool = False

    @property
    def span(self) -> tuple[Datetime | None, Datetime | None]:
        """First and last datetime."""
        return self.datetime or self.start, self.datetime or self.end


@dataclass(frozen=True)
class RecordHeaders:
    """A record with the headers of its files, without the bands of files that failed.

    ``footprint`` is that of the first band's grid; None if the grid is on another celestial body or in an engineering
    CRS.
    """

    source: RecordSource
    headers: Mapping[str, BandHeader]
    footprint: Footprint | None = None


def bands_of_records(records: Iterable[RecordHeaders]) -> list[str]:
    """Bands of records in order of first appearance."""
    return list(dict.fromkeys(band for record in records for band in record.headers))
