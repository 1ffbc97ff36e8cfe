"""Scale and offset of bands as options: ``{"B04": (0.0001, -0.1)}``, or ``B04=0.0001,-0.1`` as text."""

import math
from collections.abc import Iterable, Iterator, Mapping
from numbers import Real
from typing import Any

from rasteret_beam.errors import InputError, did_you_mean, listed

FORM = '{"B04": (0.0001, -0.1)}, band to (scale, offset)'
GRAMMAR = "BAND=SCALE,OFFSET[;BAND=SCALE,OFFSET...], such as B04=0.0001,-0.1"


class Scales(Mapping[str, tuple[float, float]]):
    """Scale and offset by band; it cannot be changed, and can be hashed.

    Parameters
    ----------
    pairs : mapping of str to (float, float)
        As of :func:`to_scales`.
    """

    __slots__ = ("_pairs",)

    def __init__(self, pairs: Mapping[str, tuple[float, float]] | None = None):
        self._pairs = dict(sorted((pairs or {}).items()))

    def __getitem__(self, band: str) -> tuple[float, float]:
        return self._pairs[band]

    def __iter__(self) -> Iterator[str]:
        return iter(self._pairs)

    def __len__(self) -> int:
        return len(self._pairs)

    def __hash__(self) -> int:
        return hash(tuple(self._pairs.items()))

    def __repr__(self) -> str:
        return repr(self._pairs)


NO_SCALES = Scales()


def to_scales(value: Any) -> Scales:
    """Scale and offset by band, checked: finite numbers, and no scale is 0.

    Raises
    ------
    InputError
        Names the band and the value.
    """
    if isinstance(value, Scales):
        return value
    if not isinstance(value, Mapping):
        raise InputError(f"scales is {value!r}; give {FORM}")
    return Scales({_band(band): _pair(band, pair) for band, pair in value.items()})


def _band(band: Any) -> str:
    if not isinstance(band, str) or not band:
        raise InputError(f"scales has {band!r} for a band; give {FORM}")
    return band


def _pair(band: str, pair: Any) -> tuple[float, float]:
    numbers = list(pair) if isinstance(pair, Iterable) and not isinstance(pair, str | Mapping) else []
    if len(numbers) != 2 or not all(isinstance(one, Real) and not isinstance(one, bool) for one in numbers):
        raise InputError(f"scales has {pair!r} for band {band!r}; give {FORM}")
    scale, offset = map(float, numbers)
    wrong = why_unusable(scale, offset)
    if wrong:
        raise InputError(f"scales has {pair!r} for band {band!r}: {wrong}")
    return scale, offset


def why_unusable(scale: float, offset: float) -> str | None:
    """Why numbers cannot be scaled by a pair; None if they can."""
    if not math.isfinite(scale) or not math.isfinite(offset):
        name, number = ("offset", offset) if math.isfinite(scale) else ("scale", scale)
        return f"{name} {number} is not a finite number"
    return None if scale else "scale 0 makes all values equal"


def parse_scales(text: str) -> dict[str, tuple[float, float]]:
    """Scale and offset by band, from text such as ``B04=0.0001,-0.1;B08=0.0001,-0.1``.

    Raises
    ------
    InputError
        Names the part that cannot be read, and the grammar.
    """
    found: dict[str, tuple[float, float]] = {}
    for part in filter(None, map(str.strip, text.split(";"))):
        band, equals, numbers = part.rpartition("=")
        band = band.strip()
        try:
            scale, offset = map(float, numbers.split(","))
        except ValueError:
            raise InputError(f"{part!r} is not {GRAMMAR}") from None
        if not equals or not band:
            raise InputError(f"{part!r} is not {GRAMMAR}")
        if wrong := why_unusable(scale, offset):
            raise InputError(f"{part!r} cannot be used: {wrong}")
        if band in found:
            raise InputError(f"band {band!r} is given twice; give each band once")
        found[band] = scale, offset
    if not found:
        raise InputError(f"{text!r} is not {GRAMMAR}")
    return found


def check_scaled_bands(scales: Mapping[str, Any], bands: Iterable[str]) -> None:
    """Refuse scales of a band that is not among those that are read.

    Raises
    ------
    InputError
        Names the first band, and those that are read.
    """
    known = list(bands)
    for band in scales:
        if band not in known:
            raise InputError(
                f"scales is {dict(scales)!r}, but band {band!r}{did_you_mean(band, known)} is not among the bands that "
                f"are read: {listed(known)}; leave it out, or read it too"
            )
