"""Records of a collection while it is built: what is known before, and after, their files are opened."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime as Datetime

from rasteret_beam.kernels.geo.footprints import Footprint
from rasteret_beam.model import BandHeader


@dataclass(frozen=True)
class Stated:
    """What a record table says of a band beside its file; None where it says nothing."""

    nodata: float | None = None
    scale: float | None = None
    offset: float | None = None


NOTHING_STATED = Stated()


@dataclass(frozen=True)
class RecordSource:
    """A record to be built: what is known before its files are opened.

    Attributes
    ----------
    id : str
    datetime : datetime or None
        Without a time zone, in UTC.
    assets : {band: (href, 0-based band index)}
        Empty where ``href`` is given.
    href : str, optional
        One file whose bands, all of them, are the record's bands B1, B2, ...
    row : bytes
        The record's row of a record table, all its columns but ``assets``, as Arrow IPC; or nothing.
    stated : {band: Stated}
        What a record table says of bands.
    start, end : datetime or None
        The time that a record without a datetime spans, as STAC has it.
    by_description : bool
        Name the bands of ``href`` as the file describes them, where it describes all of them differently.
    """

    id: str
    datetime: Datetime | None
    assets: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    href: str | None = None
    row: bytes = b""
    stated: Mapping[str, Stated] = field(default_factory=dict)
    start: Datetime | None = None
    end: Datetime | None = None
    by_description: bool = False

    @property
    def span(self) -> tuple[Datetime | None, Datetime | None]:
        """First and last moment."""
        return self.datetime or self.start, self.datetime or self.end


@dataclass(frozen=True)
class RecordHeaders:
    """A record whose files have been read; bands whose file failed are left out of it.

    ``footprint`` is that of the first band's grid; None where the grid is on another celestial body or in an
    engineering CRS.
    """

    source: RecordSource
    headers: Mapping[str, BandHeader]
    footprint: Footprint | None = None


def bands_of_records(records: Iterable[RecordHeaders]) -> list[str]:
    """Bands of some records, in order of first mention."""
    return list(dict.fromkeys(band for record in records for band in record.headers))
