"""Types of the values in the sample table: float64, float32, or those that the files store.

A type is exact for a stored one if it holds each of its values: any wider integer, float64 for integers of up to 32
bits, but for no mixture of int64 and uint64, or of these and floats.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import combinations
from typing import TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rasteret_beam.errors import CollectionError, InputError, without_secrets
from rasteret_beam.kernels.sampling.validity import has_long_integers
from rasteret_beam.model import Asset
from rasteret_beam.options import SampleOptions

ValueTypes: TypeAlias = Mapping[str, pa.DataType]
"""The type of each band's values; all are equal but in ``layout="columns"``."""

StoredTypes: TypeAlias = Mapping[str, Mapping[str, str]]
"""For each band NumPy's names of the types in which records store it, and of each the id of the first record."""


def numpy_dtype(kind: pa.DataType) -> np.dtype:
    """NumPy's type of values; ``to_pandas_dtype`` needs pandas, which is not always installed."""
    return np.dtype(pa.nulls(0, kind).to_numpy(zero_copy_only=False).dtype)


def plain_types(options: SampleOptions, bands: Sequence[str]) -> ValueTypes:
    """Types of values that do not depend on the collection."""
    return dict.fromkeys(bands, pa.float32() if options.value_type == "float32" else pa.float64())


def raw_types(layout: str, stored: StoredTypes) -> ValueTypes:
    """With ``value_type="raw"``: the type that holds all values of a column exactly; float64 for a band of no record.

    Raises
    ------
    InputError
        No type does.
    """
    columns = [[band] for band in stored] if layout == "columns" else [list(stored)]
    found: dict[str, pa.DataType] = {}
    for bands in columns:
        places: dict[str, tuple[str, str]] = {}
        for band in bands:
            for dtype, record in stored[band].items():
                places.setdefault(dtype, (band, record))
        found |= dict.fromkeys(bands, pa.from_numpy_dtype(_common(places, layout)) if places else pa.float64())
    return {band: found[band] for band in stored}


def _common(places: Mapping[str, tuple[str, str]], layout: str) -> np.dtype:
    """The exact type of values of several types, each of which some band of a record has."""
    common = np.result_type(*places)
    if _are_exact_for(places, common):
        return common
    first, second = _in_conflict(places)
    (band, record), (other_band, other_record) = places[first], places[second]
    way_out = "choose records of one type with subset"
    if layout != "columns" and band != other_band:
        way_out = 'sample such bands one at a time, use layout="columns"'
    raise InputError(
        f"value_type is 'raw', but band {band} of record {record!r} is {first} and band {other_band} of record "
        f"{other_record!r} is {second}, and no type holds the values of both exactly; {way_out}, or use "
        'value_type="float64"'
    )


def _in_conflict(dtypes: Collection[str]) -> Sequence[str]:
    """Two types for which there is no exact one; integers of 64 bits and another type, as all others have one."""
    pairs = combinations(sorted(dtypes, key=lambda dtype: np.dtype(dtype).kind == "f"), 2)
    return next(pair for pair in pairs if not _are_exact_for(pair, np.result_type(*pair)))


def _are_exact_for(stored: Iterable[str], wanted: np.dtype) -> bool:
    return all(is_exact_for(np.dtype(dtype), wanted) for dtype in stored)


def is_exact_for(stored: np.dtype, wanted: np.dtype) -> bool:
    """Whether a type holds all values of a stored one."""
    return np.can_cast(stored, wanted, "safe") and not (has_long_integers(stored.name) and wanted.kind == "f")


def in_type(values: NDArray[np.generic], wanted: pa.DataType, value_type: str, asset: Asset) -> NDArray[np.generic]:
    """Values [n] of a band as they are in rows.

    Raises
    ------
    CollectionError
        With ``value_type="raw"``, the file stores values that the type does not hold, because the collection has grown
        or the file has changed since the type was chosen.
    """
    dtype = numpy_dtype(wanted)
    if values.dtype == dtype:
        return values
    if value_type == "raw" and not is_exact_for(values.dtype, dtype):
        raise CollectionError(
            f"value_type is 'raw' and values of band {asset.band} are {dtype.name}, as the records of the collection "
            f"had them when the job began, but record {asset.record_id!r} stores {values.dtype.name} in "
            f'{without_secrets(asset.href)}; use value_type="float64", or sample this record in a separate job'
        )
    # Signalling NaN, of corrupt files, become quiet ones; values beyond float32 become infinite.
    with np.errstate(invalid="ignore", over="ignore"):
        return values.astype(dtype)
