"""The options of a sampling job: one definition, of which signatures, flags, templates and docs are made.

A field of :class:`SampleOptions` is one option. Its type, default and metadata give the keyword argument of the eager
call and of the transforms, the flag of the command line, the parameter of the template and the row of the docs.
"""

import inspect
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields, replace
from datetime import timedelta
from functools import wraps
from types import NoneType, UnionType
from typing import Any, ClassVar, Literal, ParamSpec, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np
import pyarrow as pa

from rasteret_beam.columns import (
    BAND_RECORD,
    NEEDS_STATUS,
    NEEDS_TIME,
    RECORD,
    check_extra_columns,
    extra_column,
    optional_columns,
    record_names,
)
from rasteret_beam.durations import microseconds, to_duration
from rasteret_beam.errors import InputError, UnknownOptionError, did_you_mean, listed
from rasteret_beam.model import MatchRules
from rasteret_beam.quality import Quality, check_quality
from rasteret_beam.scales import NO_SCALES, to_scales
from rasteret_beam.schema import samples_schema

DEFAULT_CACHE_BYTES = 256 << 20
"""Safe beside everything else on a worker of 4 GB, also with a process for each of 4 cores."""

LEAST_CACHE_BYTES = 4 << 20

MAX_RADIUS = 4096
"""The largest radius of a window: 67 million pixels for a point."""

IN_TIME = ("nearest", "before", "after")
"""Values of ``match`` that go by the time of the point."""

Given = ParamSpec("Given")
Result = TypeVar("Result")
Definition = TypeVar("Definition", bound="JobOptions")
Class = TypeVar("Class")


@dataclass(frozen=True, kw_only=True)
class OptionFacts:
    """What the definition of an option holds beside its name, type and default.

    Attributes
    ----------
    help : str
        One line, for the reader of ``--help`` and of the docs.
    metavar : str, optional
        Placeholder of the flag's value.
    flag : str, optional
        Name of the flag where it is not that of the option; empty where another flag of the command sets it.
    unit : int
        What one of the flag's value is in the option's unit: ``1 << 20`` for a flag in megabytes.
    routing : bool
        It decides which tiles are read, so ``Collection.plan`` takes it too.
    eager : bool
        ``Collection.sample_points`` takes it.
    retry : bool
        The transforms that try dead letters again take it; the others are decided by the earlier run.
    tuning : bool
        It changes speed and memory, not the rows; such options come last.
    accepts : type, optional
        What callers may give, where that is more than the option's type.
    """

    help: str
    metavar: str | None = None
    flag: str | None = None
    unit: int = 1
    routing: bool = False
    eager: bool = True
    retry: bool = True
    tuning: bool = False
    accepts: Any = None


def option(default: Any, *, help: str, **facts: Any) -> Any:
    """A field that is an option; ``facts`` are those of :class:`OptionFacts`."""
    return field(default=default, metadata={"option": OptionFacts(help=help, **facts)})


@dataclass(frozen=True)
class Option:
    """An option as faces show it; ``choices`` are those of a ``Literal`` type."""

    name: str
    type: Any
    default: Any
    facts: OptionFacts

    @property
    def choices(self) -> tuple[Any, ...] | None:
        return get_args(self.type) if get_origin(self.type) is Literal else None


def options_of(definition: type) -> Iterator[Option]:
    """The options of a definition, in order; those for tuning last."""
    types = get_type_hints(definition)
    for each in sorted(fields(definition), key=lambda each: each.metadata["option"].tuning):
        yield Option(each.name, types[each.name], _default(each), each.metadata["option"])


def _default(each: Field) -> Any:
    assert each.default is not MISSING, f"option {each.name} has no default"
    return each.default


def check_options(options: Any) -> None:
    """Check each option's value by its type: choices, switches, whole numbers.

    Raises
    ------
    InputError
    """
    for each in options_of(type(options)):
        value = getattr(options, each.name)
        if each.choices is not None and not (isinstance(value, str) and value in each.choices):
            raise InputError(f"{each.name} is {value!r}; it can be one of {each.choices}")
        if each.type is bool and not isinstance(value, bool | np.bool_):
            raise InputError(f"{each.name} is {value!r}; it has to be True or False")
        if each.type is int and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
            raise InputError(f"{each.name} is {value!r}; it has to be a whole number, 0 or more")


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


@dataclass(frozen=True, kw_only=True)
class SampleOptions(JobOptions):
    """The options of a sampling job, beside its points, collection and bands.

    Raises
    ------
    InputError
        A value cannot be used, or two options do not go together.
    """

    overlap: Literal["all", "first"] = option(
        "all",
        help="of records of one moment, as where tiles of a scene overlap, sample all, or for each band the first: the "
        "one whose grid holds the point farthest from its edge",
        routing=True,
        retry=False,
    )
    overlap_tolerance: str | timedelta = option(  # noqa: RUF009
        "60s", help="records at most so long apart are of one moment", metavar="DURATION", routing=True, retry=False
    )
    quality: tuple[Quality, ...] = option(
        (),
        help="rules on bands such as a cloud mask, read at the point in the same record: samples that fail one are not "
        "valid; as Quality(...) or text, such as 'SCL not in 0,1,3,8-10', 'QA_PIXEL no bits 0-4', 'CLD <= 40' or "
        "'preset:sentinel-2-l2a'",
        metavar="RULE",
        routing=True,
        accepts=Quality | Sequence[Quality | str],
    )
    invalid: Literal["keep", "null", "drop"] = option(
        "keep",
        help="what becomes of samples that are nodata, masked or fail a quality rule: the raw value stays, the value "
        "is null, or there is no row",
    )
    skip_invalid: bool = option(
        False,
        help="where the sample of the best record is not valid, take the next one, in the order of match",
        routing=True,
        retry=False,
    )
    max_candidates: int = option(
        10,
        help="records of a point that skip_invalid looks at, at most, for each band",
        metavar="N",
        routing=True,
        retry=False,
    )
    join: Literal["inner", "left"] = option(
        "inner",
        help="left: points and bands without a sample have a row too, with null for the value and the record",
    )
    unscale: bool = option(
        False,
        help="give values in physical units, stored number * scale + offset, and null where the sample is not valid",
    )
    scales: Mapping[str, tuple[float, float]] = option(
        NO_SCALES,
        help="scale and offset of bands, in place of those of the collection and the files; with unscale",
        metavar="BAND=SCALE,OFFSET",
    )
    resampling: Literal["nearest", "bilinear", "cubic"] = option(
        "nearest",
        help="take the pixel that the point lies in, or interpolate between the centres of the 2 x 2 (bilinear) or "
        "4 x 4 (cubic) pixels around it",
    )
    skip_nodata: bool = option(
        False,
        help="interpolate between the pixels that are valid; otherwise a sample is valid only if all of its pixels are",
    )
    max_distance_pixels: int = option(
        0, help="search radius, in pixels, when the point's own pixel is not valid", metavar="R"
    )
    return_neighbourhood: Literal["off", "always", "if_center_nodata"] = option(
        "off", help="add the searched window as column neighbourhood_values"
    )
    fallback: Literal["closest", "ring"] = option(
        "closest", help="take the closest valid pixel of the window, or of its first ring that has one"
    )
    layout: Literal["long", "values", "columns"] = option(
        "long",
        help="a row for each band (long), or for each point and record, with a list of values (values) or a column for "
        "each band (columns)",
        retry=False,
    )
    value_type: Literal["float64", "float32", "raw"] = option(
        "float64",
        help="type of the values: float64, float32 (rounded to about 7 digits), or that of the files (raw)",
    )
    extra_columns: tuple[str, ...] = option(
        (),
        help=f"add columns to the sample table, of {listed(optional_columns())}, {RECORD}NAME (a column of the "
        f"collection) and BAND{BAND_RECORD} (the record of a band, in wide layouts)",
        metavar="A,B",
    )
    prefix_reads: bool = option(
        False,
        help="ask servers only for the first bytes of tiles that lie alone, as many as their points should need: fewer "
        "bytes, some more requests",
        tuning=True,
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "extra_columns", check_extra_columns(self.extra_columns, self.layout))
        object.__setattr__(self, "quality", check_quality(self.quality))
        object.__setattr__(self, "scales", to_scales(self.scales))
        object.__setattr__(self, "overlap_tolerance", to_duration(self.overlap_tolerance, "overlap_tolerance"))
        super().__post_init__()
        if self.max_distance_pixels > MAX_RADIUS:
            raise InputError(f"max_distance_pixels is {self.max_distance_pixels}; the most are {MAX_RADIUS}")
        if self.returns_windows and not self.max_distance_pixels:
            raise InputError(
                f"return_neighbourhood is {self.return_neighbourhood!r}, but max_distance_pixels is 0; "
                "give the radius of the window with max_distance_pixels"
            )
        timed = self.columns_needing(NEEDS_TIME)
        if timed and self.time_column is None:
            raise InputError(
                f"extra_columns have {timed[0]!r}, but time_column is None; name the column of the points that has "
                "their times with time_column"
            )
        check_skipping(self, ', or invalid="drop"')
        self._check_resampling()
        self._check_units()
        self._check_layout()

    def _check_resampling(self) -> None:
        if self.resampling == "nearest":
            if self.skip_nodata:
                raise InputError(
                    "skip_nodata is True, but resampling is 'nearest', which takes one pixel; use "
                    'resampling="bilinear" or "cubic", or, for the closest valid pixel, max_distance_pixels'
                )
            return
        if self.max_distance_pixels:
            raise InputError(
                f"resampling is {self.resampling!r}, but max_distance_pixels is {self.max_distance_pixels}; nodata "
                "fallback takes one pixel: use one of the two, or skip_nodata=True to interpolate between valid pixels"
            )
        if self.value_type == "raw":
            raise InputError(
                f"resampling is {self.resampling!r}, but value_type is 'raw', the type of the stored numbers; use "
                'value_type="float64" or "float32"'
            )

    def _check_units(self) -> None:
        check_scales_used(self.scales, self.unscale)
        if self.unscale and self.value_type == "raw":
            raise InputError(
                "unscale is True, but value_type is 'raw', the type of the stored numbers; use value_type=\"float64\" "
                'or value_type="float32"'
            )
        codes = [rule.band for rule in self.quality if rule.band in self.scales]
        if codes:
            raise InputError(
                f"scales is {self.scales!r}, but quality has a rule of band {codes[0]!r}, and quality bands are never "
                "scaled; leave the band out of scales"
            )

    def _check_layout(self) -> None:
        if self.layout == "long":
            return
        if self.on_error != "raise":
            raise InputError(
                f"layout is {self.layout!r}, but on_error is {self.on_error!r}; tiles are given up band by band, which "
                'only rows of layout="long" can show'
            )
        if self.returns_windows:
            raise InputError(
                f"layout is {self.layout!r}, but return_neighbourhood is {self.return_neighbourhood!r}; windows are "
                'given with layout="long" only'
            )

    @property
    def match_rules(self) -> MatchRules:
        """What decides which of the records that contain a point are taken."""
        return replace(
            super().match_rules,
            overlap=self.overlap,
            overlap_tolerance=microseconds(to_duration(self.overlap_tolerance, "overlap_tolerance")),
            places=self._places,
            wide=self.layout != "long",
            candidates=self.max_candidates if self.skip_invalid else None,
            quality=tuple((rule.band, rule.missing) for rule in self.quality),
        )

    @property
    def _places(self) -> str:
        """How points are keyed by place, whatever the collection: see :class:`MatchRules`."""
        if self.skip_invalid or self.invalid == "drop" or self.join == "left":
            return "point"
        if not self.quality or not self.uses_validity:
            return ""
        every = self.match == "all" and self.limit is None and self.overlap == "all"
        return "record" if every else "point"

    @property
    def needs_status(self) -> bool:
        """Whether it matters if samples are valid."""
        of_values = self.invalid != "keep" or self.skip_invalid or self.unscale
        return of_values or bool(self.columns_needing(NEEDS_STATUS))

    @property
    def uses_validity(self) -> bool:
        """Whether a row, or the pixel that it comes from, depends on which pixels are valid."""
        return self.needs_status or self.max_distance_pixels > 0 or self.resampling != "nearest"

    def columns_needing(self, need: str) -> list[str]:
        """The extra columns that need something, such as :data:`rasteret_beam.columns.NEEDS_STATUS`."""
        found = ((name, extra_column(name)) for name in self.extra_columns)
        return [name for name, column in found if column is not None and need in column.needs]

    def rows_each(self, bands: Collection[str]) -> int | None:
        """Rows of every point, sampled or not; None where points differ."""
        most = self.limit or (None if self.match == "all" else 1)
        if self.join != "left" or most != 1:
            return None
        return len(bands) if self.layout == "long" else 1

    @property
    def record_columns(self) -> tuple[str, ...]:
        """The columns of the collection that rows have."""
        return record_names(self.extra_columns)

    @property
    def returns_windows(self) -> bool:
        """Whether rows have the window that was searched."""
        return self.return_neighbourhood != "off"

    def schema(
        self,
        kept: Collection[pa.Field] = (),
        bands: Collection[str] = (),
        value_types: Mapping[str, pa.DataType] | None = None,
        record_types: Mapping[str, pa.DataType] | None = None,
    ) -> pa.Schema:
        """Schema of the sample table with these options; see :func:`rasteret_beam.schema.samples_schema`.

        Parameters
        ----------
        value_types : mapping of band to DataType, optional
            Types of the values; only needed with ``value_type="raw"``, for which
            :meth:`rasteret_beam.Collection.sample_schema` finds them.
        record_types : mapping of str to DataType, optional
            Types of the columns of the collection that ``extra_columns`` name, which it finds too.

        Raises
        ------
        InputError
            ``value_type`` is "raw", and no types are given; or the type of a column of the collection is not.
        """
        types: Mapping[str, pa.DataType] | pa.DataType | None = value_types
        if types is None:
            types = {"float64": pa.float64(), "float32": pa.float32()}.get(self.value_type)
        if types is None:
            raise InputError(
                "value_type is 'raw', so the types of values are those of the collection's files; "
                "Collection.sample_schema(bands, kept, options=...) gives the schema"
            )
        columns = self.returns_windows, self.layout, list(bands), self.extra_columns
        return samples_schema(list(kept), *columns, types, record_types)


def check_skipping(options: Any, also: str = "") -> None:
    """Refuse ``skip_invalid`` and ``max_candidates`` that cannot be used; ``also`` is a further way out.

    Raises
    ------
    InputError
    """
    if options.skip_invalid and options.match == "all":
        raise InputError(
            "skip_invalid is True, but match is 'all', which takes every record; use match=\"latest\", "
            f'match="nearest", match="before" or match="after"{also}'
        )
    if options.max_candidates < 1:
        raise InputError(f"max_candidates is {options.max_candidates}; it has to be 1 or more")


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


def takes_options(
    definition: type, keep: Callable[[Option], bool] = lambda _: True
) -> Callable[[Callable[Given, Result]], Callable[Given, Result]]:
    """Give a function the keyword arguments of a definition, in its signature and docstring too.

    The function has ``**keywords``: fields of the definition, and ``options`` with a value of it. They have a type of
    :mod:`rasteret_beam.keywords` for static checkers, and :func:`options_from` makes one value of them.

    Parameters
    ----------
    definition : type
        A dataclass of options.
    keep : callable
        Which of its options the function takes.
    """
    taken = [each for each in options_of(definition) if keep(each)]

    def decorate(function: Callable[Given, Result]) -> Callable[Given, Result]:
        signature = signature_with(inspect.signature(function), taken, definition)

        @wraps(function)
        def call(*args: Given.args, **given: Given.kwargs) -> Result:
            check_keywords(function, signature, given)
            return function(*args, **given)

        call.__signature__ = signature  # type: ignore[attr-defined]
        call.__doc__ = documented(function.__doc__ or "", taken)
        return call

    return decorate


def options_from(given: Mapping[str, Any], definition: type[Definition]) -> Definition:
    """The options of a call: its ``options`` or the defaults, with the fields that are given in their place.

    Raises
    ------
    InputError
        ``options`` are not of the definition, or a value cannot be used.
    """
    whole = given.get("options")
    if not isinstance(whole, definition | NoneType):
        raise InputError(f"options are a {type(whole).__name__}; give {definition.__name__}(...)")
    fields_given = {name: value for name, value in given.items() if name != "options"}
    return replace(definition() if whole is None else whole, **fields_given)


def documents_options(
    definition: type, keep: Callable[[Option], bool] = lambda _: True
) -> Callable[[type[Class]], type[Class]]:
    """Replace the line ``<options>`` of a class's docstring by the options that its constructor takes."""

    def decorate(documented_class: type[Class]) -> type[Class]:
        taken = [each for each in options_of(definition) if keep(each)]
        documented_class.__doc__ = documented(documented_class.__doc__ or "", taken)
        return documented_class

    return decorate


def signature_with(signature: inspect.Signature, taken: Collection[Option], definition: type) -> inspect.Signature:
    """A signature with options as keyword-only parameters, then ``options``, in place of ``**keywords``."""
    own = [each for each in signature.parameters.values() if each.kind is not inspect.Parameter.VAR_KEYWORD]
    rest = [each for each in own if each.kind is not inspect.Parameter.KEYWORD_ONLY]
    keywords = [each for each in own if each.kind is inspect.Parameter.KEYWORD_ONLY]
    kind = inspect.Parameter.KEYWORD_ONLY
    made = [inspect.Parameter(each.name, kind, default=each.default, annotation=each.type) for each in taken]
    whole = inspect.Parameter("options", kind, default=None, annotation=definition | None)
    return signature.replace(parameters=[*rest, *keywords, *made, whole])


def check_keywords(function: Callable[..., Any], signature: inspect.Signature, given: Mapping[str, Any]) -> None:
    """Refuse a keyword argument that a function does not have, and anything but True or False where one is the default.

    Raises
    ------
    UnknownOptionError, InputError
    """
    known = [name for name in list(signature.parameters)[1:] if name != "options"]
    for name, value in given.items():
        if name not in signature.parameters:
            owner = function.__qualname__.removesuffix(".__init__").rpartition(".")[2]
            raise UnknownOptionError(
                f"{owner} has no option {name!r}{did_you_mean(name, known)}; it has {listed(known, 40)}"
            )
        if isinstance(signature.parameters[name].default, bool) and not isinstance(value, bool | np.bool_):
            raise InputError(f"{name} is {value!r}; it has to be True or False")


def documented(text: str, taken: Collection[Option]) -> str:
    """A docstring whose line ``<options>`` is replaced by the options, in numpydoc's form."""
    lines = []
    for line in text.splitlines():
        if line.strip() != "<options>":
            lines.append(line)
            continue
        indent = line[: len(line) - len(line.lstrip())]
        for each in taken:
            lines.append(f"{indent}{each.name} : {type_text(each.type)}, default {each.default!r}")
            lines.append(f"{indent}    {each.facts.help[:1].upper()}{each.facts.help[1:]}.")
    return "\n".join(lines)


def type_text(kind: Any) -> str:
    """A type as docs show it: the choices of a ``Literal``, names otherwise."""
    if get_origin(kind) is Literal:
        return ", ".join(f'"{choice}"' for choice in get_args(kind))
    if get_origin(kind) in (UnionType, Union):
        return " or ".join(type_text(each) for each in get_args(kind))
    if get_origin(kind) is tuple:
        first, *others = get_args(kind)
        return (
            f"sequence of {type_text(first)}" if others == [...] else f"({', '.join(map(type_text, (first, *others)))})"
        )
    if get_origin(kind) is Mapping:
        name, value = get_args(kind)
        return f"mapping of {type_text(name)} to {type_text(value)}"
    return "None" if kind is NoneType else str(kind.__name__)
