"""The options that all jobs share, and checks of those that several have."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, ClassVar, Literal

from rasteret_beam.durations import microseconds, to_duration
from rasteret_beam.errors import InputError
from rasteret_beam.model import MatchRules
from rasteret_beam.option_fields import check_options, option, plain_scalars
from rasteret_beam.quality import Quality
from rasteret_beam.scales import NO_SCALES

DEFAULT_CACHE_BYTES = 256 << 20
"""Safe beside everything else on a worker of 4 GB, also with a process for each of 4 cores."""

LEAST_CACHE_BYTES = 4 << 20

IN_TIME = ("nearest", "before", "after")
"""Values of ``match`` that go by the time of the point."""


@dataclass(frozen=True, kw_only=True)
class JobOptions:
    """The options that sampling jobs and chip jobs share; ``rows`` is what a row of their input is."""

    rows: ClassVar[str] = "points"

    match: Literal["all", "latest", "nearest", "before", "after"] = option(
        "all",
        help="use every record at a point or polygon, or for each band the newest one, or the one nearest in time, the "
        "newest at or before the time of the point or polygon, or the oldest at or after it",
        routing=True,
        retry=False,
    )
    time_column: str | None = option(
        None,
        help="column of the points or polygons with their times: timestamps (UTC if they have no zone), dates or ISO "
        "8601 text",
        metavar="NAME",
        routing=True,
    )
    tolerance: str | timedelta | None = option(  # noqa: RUF009
        None,
        help="use only records at most so long before or after the time of the point or polygon, such as 10D, 36h, "
        "90min, 30s or P10D",
        metavar="DURATION",
        routing=True,
        retry=False,
    )
    limit: int | None = option(
        None,
        help="use for each band at most so many records, those nearest in time (default: 1 with nearest, before and "
        "after, else all)",
        metavar="K",
        routing=True,
        retry=False,
    )
    on_error: Literal["raise", "dead_letter"] = option(
        "raise",
        help="fail if a tile cannot be read, or give it up with the points or chips on it",
        flag="",
        eager=False,
    )
    cache_bytes: int = option(
        DEFAULT_CACHE_BYTES,
        help="limit of the caches of each process in all: tiles, open files, offsets",
        metavar="MB",
        flag="cache_mb",
        unit=1 << 20,
        tuning=True,
    )

    def __post_init__(self) -> None:
        plain_scalars(self)
        check_cache_bytes(self.cache_bytes)
        self._check_time()
        if self.tolerance is not None:
            object.__setattr__(self, "tolerance", to_duration(self.tolerance, "tolerance"))
        check_options(self)

    def _check_time(self) -> None:
        """Refuse what cannot be matched in time."""
        way_out = f"name the column of the {self.rows} that has their times with time_column"
        if self.time_column is not None and (not isinstance(self.time_column, str) or not self.time_column):
            raise InputError(
                f"time_column is {self.time_column!r}; it has to be the name of a column of the {self.rows}"
            )
        if self.limit is not None and (
            isinstance(self.limit, bool) or not isinstance(self.limit, int) or self.limit < 1
        ):
            raise InputError(f"limit is {self.limit!r}; it has to be a whole number of records, 1 or more")
        if self.match in IN_TIME and self.time_column is None:
            raise InputError(f"match is {self.match!r}, but time_column is None; {way_out}")
        for name in ("tolerance", "limit"):
            value = getattr(self, name)
            if value is None:
                continue
            if self.match == "latest":
                raise InputError(
                    f"{name} is {value!r}, but match is 'latest', which takes the newest record whatever the time of "
                    f'the {self.rows[:-1]}; use match="before", or leave {name} out'
                )
            if self.time_column is None:
                raise InputError(f"{name} is {value!r}, but time_column is None; {way_out}")

    @property
    def match_rules(self) -> MatchRules:
        """What decides which of the records are taken."""
        in_time = self.match in IN_TIME or self.tolerance is not None or self.limit is not None
        return MatchRules(
            self.match,
            self.time_column if in_time else None,
            None if self.tolerance is None else microseconds(to_duration(self.tolerance, "tolerance")),
            self.limit,
        )

    @property
    def record_columns(self) -> tuple[str, ...]:
        """The columns of the collection that the index of a job holds."""
        return ()


def quality_option(where: str, **facts: Any) -> Any:
    """Rules on other bands; ``where`` they are read, and what fails one."""
    return option(
        (),
        help=f"rules on bands such as a cloud mask, read {where} that fail one are not valid; as Quality(...) or text, "
        "such as 'SCL not in 0,1,3,8-10', 'QA_PIXEL no bits 0-4', 'CLD <= 40' or 'preset:sentinel-2-l2a'",
        metavar="RULE",
        accepts=Quality | Sequence[Quality | str],
        **facts,
    )


def max_candidates_option(help: str, **facts: Any) -> Any:
    """How deep ``skip_invalid`` looks."""
    return option(10, help=help, metavar="N", retry=False, **facts)


def scales_option(**facts: Any) -> Any:
    """Scales and offsets in place of those of the collection."""
    return option(
        NO_SCALES,
        help="scale and offset of bands, in place of those of the collection and the files; with unscale",
        metavar="BAND=SCALE,OFFSET",
        **facts,
    )


def overlap_tolerance_option(use: str = "", **facts: Any) -> Any:
    """What is one moment; ``use`` ends the help."""
    return option("60s", help=f"records at most so long apart are of one moment{use}", metavar="DURATION", **facts)


def check_skipping(options: Any, also: str = "") -> None:
    """Refuse ``skip_invalid`` and ``max_candidates`` that cannot be used, or change nothing; ``also``: a way out.

    Raises
    ------
    InputError
    """
    if options.skip_invalid and options.match == "all":
        raise InputError(
            "skip_invalid is True, but match is 'all', which takes every record; use match=\"latest\", "
            f'match="nearest", match="before" or match="after"{also}'
        )
    most = options.max_candidates
    if most < 1:
        raise InputError(f"max_candidates is {most}; it has to be 1 or more")
    if not options.skip_invalid and most != type(options).max_candidates:
        raise InputError(
            f"max_candidates is {most}, but skip_invalid is False, so the best record is taken; use skip_invalid=True, "
            "or leave max_candidates out"
        )
    if options.skip_invalid and options.limit is not None and options.limit > most:
        raise InputError(
            f"limit is {options.limit}, but max_candidates is {most}: skip_invalid looks at no more records of a "
            f"{options.rows[:-1]}; use max_candidates={options.limit}, or limit={most}"
        )


def check_scales_used(scales: Mapping[str, tuple[float, float]], unscale: bool) -> None:
    """Refuse scales that nothing is scaled by.

    Raises
    ------
    InputError
    """
    if scales and not unscale:
        raise InputError(
            f"scales is {scales!r}, but unscale is False; scale the values with unscale=True, or leave scales out"
        )


def check_cache_bytes(value: Any) -> None:
    """Refuse a cache that is too small to work with.

    Raises
    ------
    InputError
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < LEAST_CACHE_BYTES:
        raise InputError(f"cache_bytes is {value!r}; it has to be a whole number of at least {LEAST_CACHE_BYTES}")
