"""Quality rules: which values of a band, such as a cloud mask, leave the samples of a record valid."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from itertools import pairwise
from numbers import Integral, Real
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from rasteret_beam.errors import InputError, did_you_mean, listed
from rasteret_beam.quality_text import arguments_of, rules_of, text_of

MOST_BITS = 64
EXACT_FLOATS = 1 << 53
NEEDS_BANDS = "; quality=... needs all bands of its rules, but those of rules that have missing pass or missing fail"
"""End of an error of bands that a collection lacks."""
"""Below, each whole number is a float64."""

Field = tuple[tuple[int, int], tuple[int, ...]]
"""First and last bit, and the values that are excluded."""


@dataclass(frozen=True, repr=False)
class Quality:
    """A rule on a band of a record: samples are valid where the band's pixel at the point passes it.

    All conditions of a rule have to pass. Values are compared in the band's data type, without scale and offset.

    Parameters
    ----------
    band : str
        The band to look at, such as ``"SCL"``.
    exclude : sequence of numbers
        Values that do not pass.
    keep : sequence of numbers, optional
        The values that pass; all others do not.
    exclude_bits : sequence of int
        A value does not pass if one of these bits is set; bit 0 is the lowest.
    fields : {(first bit, last bit): sequence of int}
        A value does not pass if one of these groups of bits holds one of the numbers given for it. Kept as a tuple of
        pairs, so that rules can be hashed.
    minimum, maximum : number, optional
        Least and greatest value that pass.
    missing : "error", "pass" or "fail"
        What becomes of a record without the band: an error before any pixel is read, or all of its pixels pass, or
        none does.

    Raises
    ------
    InputError
        The rule cannot be used, or has no condition.

    Examples
    --------
    >>> Quality("SCL", exclude=[0, 1, 3, 8, 9, 10])
    Quality('SCL', exclude=[0, 1, 3, 8, 9, 10])
    >>> str(Quality("QA_PIXEL", exclude_bits=[0, 1, 2, 3, 4], fields={(8, 9): [3]}))
    'QA_PIXEL no bits 0-4 and bits 8-9 not in 3'
    """

    band: str
    _: KW_ONLY
    exclude: Sequence[float] = ()
    keep: Sequence[float] | None = None
    exclude_bits: Sequence[int] = ()
    fields: Mapping[tuple[int, int], Sequence[int]] | Sequence[Field] = ()
    minimum: float | None = None
    maximum: float | None = None
    missing: Literal["error", "pass", "fail"] = "error"

    def __post_init__(self) -> None:
        if not isinstance(self.band, str) or not self.band.strip():
            raise InputError(f"the band of a quality rule is {self.band!r}; it has to be the name of a band")
        self._set(exclude=_numbers(self, "exclude"))
        if self.keep is not None:
            self._set(keep=_numbers(self, "keep"))
        self._set(exclude_bits=_bits(self), fields=_fields(self))
        for name in ("minimum", "maximum"):
            if getattr(self, name) is not None:
                self._set(**{name: _number(self, name, getattr(self, name))})
        self._check()

    def _set(self, **values: Any) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def _check(self) -> None:
        if self.missing not in ("error", "pass", "fail"):
            raise refused(self, f"missing is {self.missing!r}; it can be 'error', 'pass' or 'fail'")
        if self.keep is not None and self.exclude:
            raise refused(self, "both exclude and keep are given; all values but those of keep are excluded anyway")
        if self.keep is not None and not self.keep:
            raise refused(self, "keep is empty, so no pixel would pass; list the values that pass")
        if self.minimum is not None and self.maximum is not None and self.maximum < self.minimum:
            raise refused(self, f"maximum is {self.maximum}, less than the minimum, {self.minimum}")
        bounds = (self.keep, self.minimum, self.maximum)
        if not (self.exclude or self.exclude_bits or self.fields or any(each is not None for each in bounds)):
            raise refused(self, "no condition is given; give exclude, keep, exclude_bits, fields, minimum or maximum")

    @staticmethod
    def preset(name: str, *, band: str | None = None, missing: Literal["error", "pass", "fail"] = "error") -> "Quality":
        """The usual rule for clouds of a product.

        Parameters
        ----------
        name : str
            ``"sentinel-2-l2a"``: band ``SCL`` without classes 0 (no data), 1 (saturated or defective), 3 (cloud
            shadow), 8 and 9 (cloud of medium and high probability) and 10 (thin cirrus). Classes: ESA, Sentinel-2
            Products Specification Document, Scene Classification of Level-2A.
            ``"landsat-c2-l2"``: band ``QA_PIXEL`` without bits 0 (fill), 1 (dilated cloud), 2 (cirrus, Landsat 8 and 9
            only), 3 (cloud) and 4 (cloud shadow). Bits: USGS, Landsat 8-9 Collection 2 Level 2 Data Format Control
            Book (LSDS-1328); the same for Landsat 4 to 7.
            ``"hls"``: band ``Fmask`` without bits 0 (cirrus, reserved in version 2.0), 1 (cloud), 2 (adjacent to cloud
            or shadow) and 3 (cloud shadow). Bits: NASA, HLS Product User Guide, Version 2.0, quality assessment layer.
        band : str, optional
            Name of the band in the collection, where it is another one, such as ``"scl"``.
        missing : "error", "pass" or "fail"
            As of :class:`Quality`.

        Raises
        ------
        InputError
            There is no such preset.
        """
        if not isinstance(name, str) or name.lower() not in PRESETS:
            near = did_you_mean(name, PRESETS) if isinstance(name, str) else ""
            raise InputError(f"quality has no preset {name!r}{near}; it has {listed(PRESETS)}")
        rule = PRESETS[name.lower()]
        return replace(rule, band=rule.band if band is None else band, missing=missing)

    @property
    def needs_bits(self) -> bool:
        """Whether it looks at single bits, which only integers have."""
        return bool(self.exclude_bits or self.fields)

    def check_dtype(self, dtype: npt.DTypeLike) -> None:
        """Refuse a data type of the band on which the rule cannot be applied.

        Raises
        ------
        InputError
            The rule looks at bits that the type does not have, or the values have no order.
        """
        dtype = np.dtype(dtype)
        if dtype.kind not in "iufb":
            raise refused(self, f"values of {dtype} cannot be compared")
        if not self.needs_bits:
            return
        if dtype.kind == "f":
            raise refused(
                self,
                f"bits are those of whole numbers, but the band has {dtype}; use exclude, keep, minimum or maximum",
            )
        highest = max([*self.exclude_bits, *(last for (_, last), _ in _pairs(self))])
        if highest >= 8 * dtype.itemsize:
            raise refused(
                self, f"bit {highest} is beyond the band's {dtype}, which has bits 0 to {8 * dtype.itemsize - 1}"
            )

    def passes(self, values: npt.NDArray[Any], valid: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Which pixels of the band pass.

        Parameters
        ----------
        values : array [n] of any shape, in the data type of the file
            Bits of signed integers are those of their two's complement.
        valid : array of bool, of the same shape
            Which of them are not nodata and not masked; all others do not pass, and NaN does not either.

        Returns
        -------
        array of bool, of the same shape

        Raises
        ------
        InputError
            As of :meth:`check_dtype`.
        """
        values = np.asarray(values)
        self.check_dtype(values.dtype)
        values = values.view(np.uint8) if values.dtype == bool else values
        values = values.astype(values.dtype.newbyteorder("="), copy=False)
        passing = np.array(valid, bool)
        if values.dtype.kind == "f":
            passing &= ~np.isnan(values)
        if self.exclude:
            passing &= ~np.isin(values, _members(self.exclude, values.dtype))
        if self.keep is not None:
            passing &= np.isin(values, _members(self.keep, values.dtype))
        if self.minimum is not None:
            passing &= _at_least(values, self.minimum)
        if self.maximum is not None:
            passing &= _at_most(values, self.maximum)
        return passing & self._bits_pass(values) if self.needs_bits else passing

    def _bits_pass(self, values: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
        unsigned = np.dtype(f"u{values.dtype.itemsize}").type
        bits = values.view(unsigned)
        passing = bits & unsigned(sum(1 << bit for bit in self.exclude_bits)) == 0
        for (first, last), excluded in _pairs(self):
            held = bits >> unsigned(first) & unsigned((1 << last - first + 1) - 1)
            passing &= ~np.isin(held, np.array(excluded, unsigned))
        return passing

    def __str__(self) -> str:
        """The rule as text, from which :func:`parse_quality` makes the same rule."""
        return text_of(
            self.band,
            self.exclude,
            self.keep,
            self.exclude_bits,
            _pairs(self),
            self.minimum,
            self.maximum,
            self.missing,
        )

    def __repr__(self) -> str:
        given = {
            "exclude": [*self.exclude],
            "keep": self.keep and [*self.keep],
            "exclude_bits": [*self.exclude_bits],
            "fields": {bits: [*values] for bits, values in _pairs(self)},
            "minimum": self.minimum,
            "maximum": self.maximum,
            "missing": None if self.missing == "error" else self.missing,
        }
        shown = [f"{name}={value!r}" for name, value in given.items() if value not in (None, [], {})]
        return f"Quality({', '.join([repr(self.band), *shown])})"


def parse_quality(text: str) -> Quality:
    """The rule that a text describes, such as ``"SCL not in 0,1,3,8-10"``.

    Raises
    ------
    InputError
        The text does not follow the grammar, which the error shows, or the rule cannot be used.
    """
    arguments = arguments_of(text)
    try:
        return Quality.preset(**arguments) if "name" in arguments else Quality(**arguments)
    except InputError as error:
        raise InputError(f"quality rule {text!r}: {error}") from None


def parse_qualities(text: str) -> tuple[Quality, ...]:
    """The rules that a text describes, separated by ``;``.

    Raises
    ------
    InputError
        As of :func:`parse_quality`, or the text holds no rule.
    """
    rules = rules_of(text)
    if not rules:
        arguments_of(text)
    return tuple(parse_quality(rule) for rule in rules)


def check_quality(given: Any) -> tuple[Quality, ...]:
    """The rules of an option ``quality``: a rule, text, or a sequence of rules and texts.

    Raises
    ------
    InputError
        Something else is given, or a text cannot be read.
    """
    if isinstance(given, Quality):
        return (given,)
    if isinstance(given, str):
        return parse_qualities(given)
    wrong = "it has to be a list of Quality(...), or of rules as text such as 'SCL not in 0,1,3,8-10'"
    if isinstance(given, Mapping | bytes) or not isinstance(given, Iterable):
        raise InputError(f"quality is {given!r}; {wrong}")
    rules: list[Quality] = []
    for each in given:
        if not isinstance(each, Quality | str):
            raise InputError(f"quality has {each!r}; {wrong}")
        rules += check_quality(each)
    return tuple(rules)


def refused(rule: Quality, why: str) -> InputError:
    """The error of a rule that cannot be used."""
    return InputError(f"quality of band {rule.band!r}: {why}")


def _pairs(rule: Quality) -> Sequence[Field]:
    return rule.fields  # type: ignore[return-value]  # made of pairs in __post_init__


def _items(rule: Quality, name: str, given: Any) -> list[Any]:
    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable):
        raise refused(rule, f"{name} is {given!r}; it has to be a list of numbers")
    return [*given]


def _numbers(rule: Quality, name: str) -> tuple[float, ...]:
    return tuple(sorted({_number(rule, name, each) for each in _items(rule, name, getattr(rule, name))}))


def _number(rule: Quality, name: str, value: Any) -> float:
    """A number of Python: an int where it is whole."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise refused(rule, f"{name} has {value!r}, which is not a number")
    try:
        number = float(value)
    except OverflowError:
        raise refused(rule, f"{name} has a number that no band can hold, {value}") from None
    if not math.isfinite(number):
        raise refused(rule, f"{name} has {number}, which is not a finite number")
    if isinstance(value, Integral):
        return int(value)
    return int(number) if number.is_integer() and abs(number) < EXACT_FLOATS else number


def _bits(rule: Quality) -> tuple[int, ...]:
    return tuple(sorted({_bit(rule, "exclude_bits", bit) for bit in _items(rule, "exclude_bits", rule.exclude_bits)}))


def _bit(rule: Quality, name: str, bit: Any) -> int:
    if isinstance(bit, bool) or not isinstance(bit, Integral) or not 0 <= int(bit) < MOST_BITS:
        raise refused(rule, f"{name} has bit {bit!r}; bits are whole numbers from 0 to {MOST_BITS - 1}")
    return int(bit)


def _fields(rule: Quality) -> tuple[Field, ...]:
    given = rule.fields.items() if isinstance(rule.fields, Mapping) else rule.fields
    form = "it has to be of the form {(8, 9): [3]}: first and last bit, and the values to exclude"
    try:
        pairs = sorted((_bits_of_field(rule, *bits), _values_of_field(rule, *bits, values)) for bits, values in given)
    except (TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise refused(rule, f"fields is {rule.fields!r}; {form}") from None
    for ((_, last), _), ((first, end), _) in pairwise(pairs):
        if first <= last:
            raise refused(rule, f"fields has bits {first} to {end}, which overlap with another field up to bit {last}")
    return tuple(pairs)


def _bits_of_field(rule: Quality, first: Any, last: Any) -> tuple[int, int]:
    first, last = _bit(rule, "fields", first), _bit(rule, "fields", last)
    if last < first:
        raise refused(rule, f"fields has bits {first} to {last}; give the lower bit first")
    return first, last


def _values_of_field(rule: Quality, first: int, last: int, values: Any) -> tuple[int, ...]:
    name = f"fields of bits {first} to {last}"
    most = (1 << last - first + 1) - 1
    found = {_number(rule, name, each) for each in _items(rule, name, values)}
    if not found:
        raise refused(rule, f"{name} has no values; list those to exclude")
    for each in found:
        if not isinstance(each, int) or not 0 <= each <= most:
            raise refused(rule, f"{name} has {each}; it can hold whole numbers from 0 to {most}")
    return tuple(sorted(int(each) for each in found))


def _members(numbers: Sequence[float], dtype: np.dtype) -> npt.NDArray[Any]:
    """Those of some numbers that a type can hold, in the type."""
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            members = np.array(numbers, np.float64).astype(dtype)
        return members[np.isfinite(members)]
    limits = np.iinfo(dtype)
    whole = [int(each) for each in numbers if each == int(each)]
    return np.array([each for each in whole if limits.min <= each <= limits.max], dtype)


def _at_most(values: npt.NDArray[Any], bound: float) -> npt.NDArray[np.bool_]:
    dtype = values.dtype
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            limit = np.float64(bound).astype(dtype)
        return values <= (np.finfo(dtype).max if limit == np.inf else limit)
    whole, limits = math.floor(bound), np.iinfo(dtype)
    return values <= dtype.type(min(whole, limits.max)) if whole >= limits.min else np.zeros(values.shape, bool)


def _at_least(values: npt.NDArray[Any], bound: float) -> npt.NDArray[np.bool_]:
    dtype = values.dtype
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            limit = np.float64(bound).astype(dtype)
        return values >= (np.finfo(dtype).min if limit == -np.inf else limit)
    whole, limits = math.ceil(bound), np.iinfo(dtype)
    return values >= dtype.type(max(whole, limits.min)) if whole <= limits.max else np.zeros(values.shape, bool)


PRESETS = {
    "sentinel-2-l2a": Quality("SCL", exclude=(0, 1, 3, 8, 9, 10)),
    "landsat-c2-l2": Quality("QA_PIXEL", exclude_bits=(0, 1, 2, 3, 4)),
    "hls": Quality("Fmask", exclude_bits=(0, 1, 2, 3)),
}
"""Rules by the name of a product; :meth:`Quality.preset` has the meaning and the source of the codes."""
