"""Check the index of a collection: types of columns, ids, grids, and facts of bands."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyproj.exceptions import CRSError

from rasteret_beam.errors import CollectionError, listed, without_secrets
from rasteret_beam.kernels.geo.crs import Floats, full_turn
from rasteret_beam.kernels.geo.grids import Ints
from rasteret_beam.schema import (
    BAND_EXTRA_TYPE,
    BAND_METADATA_TYPE,
    CHECKSUMS,
    EXTRA_SUFFIX,
    GRID_TYPE,
    METADATA_SUFFIX,
)

REQUIRED = ("id", "datetime", "geometry", "assets")
SIZES = ("width", "height", "tile_width", "tile_height")
BAND_FIELDS = ("image_width", "image_height", "tile_width", "tile_height", "dtype", "transform", "nodata")
"""Required fields of a band's metadata."""

AGAIN = "build the collection again"

Flags = NDArray[np.bool_]


def check_types(schema: pa.Schema, source: str) -> None:
    """Refuse a table that lacks a column of a collection or has one of another type.

    Raises
    ------
    CollectionError
    """
    fields = {field.name: field for field in schema}
    missing = [name for name in REQUIRED if name not in fields]
    if missing:
        raise CollectionError(
            f"{source} is not a collection: it lacks column(s) {listed(missing)}; it has {listed(schema.names)}. "
            "Build one with build_from_cogs or build_from_table."
        )
    _check_type(fields["id"], _is_text, "string", source)
    if not pa.types.is_timestamp(fields["datetime"].type):
        raise CollectionError(f"column datetime of {source} is {fields['datetime'].type}, not a timestamp")
    _check_assets(fields["assets"], source)
    if "grids" in fields:
        _check_like(fields["grids"], pa.list_(GRID_TYPE), GRID_TYPE.names, source)
    if "bbox" in fields and not pa.types.is_null(fields["bbox"].type):
        _check_type(fields["bbox"], pa.types.is_struct, "struct of xmin, ymin, xmax, ymax", source)
    if CHECKSUMS in fields:
        _check_checksums(fields[CHECKSUMS], source)
    bands = set(fields["assets"].type.names)
    for name, field in fields.items():
        if name.endswith(METADATA_SUFFIX) and name.removesuffix(METADATA_SUFFIX) in bands:
            _check_like(field, BAND_METADATA_TYPE, BAND_FIELDS, source)
        if name.endswith(EXTRA_SUFFIX) and name.removesuffix(EXTRA_SUFFIX) in bands:
            _check_like(field, BAND_EXTRA_TYPE, (), source)


def _check_assets(field: pa.Field, source: str) -> None:
    _check_type(field, pa.types.is_struct, "struct with a struct of href and band_index for each band", source)
    for band in field.type:
        shape = f"assets.{band.name} of {source} is {band.type}, not a struct of href (string) and band_index (integer)"
        if not pa.types.is_struct(band.type):
            raise CollectionError(shape)
        parts = {part.name: part.type for part in band.type}
        if not _is_text(parts.get("href", pa.null())) or not pa.types.is_integer(parts.get("band_index", pa.null())):
            raise CollectionError(shape)


def _check_checksums(field: pa.Field, source: str) -> None:
    parts = {part.name: part.type for part in field.type} if pa.types.is_struct(field.type) else {}
    bands = parts.get("bands", pa.null())
    numbers = [parts.get("record", pa.null()), *(band.type for band in bands)] if pa.types.is_struct(bands) else []
    if not numbers or not all(map(pa.types.is_integer, numbers)):
        raise CollectionError(
            f"column {CHECKSUMS} of {source} is {field.type}, not a struct of record (integer) and bands (a struct of "
            f"integers); drop it to read the collection without them, or {AGAIN}"
        )


def _check_type(field: pa.Field, check: Callable[[pa.DataType], bool], wanted: str, source: str) -> None:
    if not check(field.type):
        raise CollectionError(f"column {field.name} of {source} is {field.type}, not a {wanted}; {AGAIN}")


def _check_like(field: pa.Field, model: pa.DataType, required: list[str] | tuple[str, ...], source: str) -> None:
    """Refuse a column with another type than the model; number and list widths and extra fields may differ."""
    wrong = _unlike(field.type, model, required, field.name)
    if wrong is not None:
        raise CollectionError(f"column {wrong} in {source}; {AGAIN}")


def _unlike(kind: pa.DataType, model: pa.DataType, required: list[str] | tuple[str, ...], name: str) -> str | None:
    if pa.types.is_list(model):
        if not (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)):
            return f"{name} is {kind}, not a list"
        return _unlike(kind.value_type, model.value_type, required, name)
    if not pa.types.is_struct(model):
        return None if _same_family(kind, model) else f"{name} is {kind}, not {model}"
    if not pa.types.is_struct(kind):
        return f"{name} is {kind}, not a struct"
    models = {part.name: part.type for part in model}
    found = {part.name: part.type for part in kind}
    missing = [part for part in required if part not in found]
    if missing:
        return f"{name} lacks {listed(missing)}"
    parts = (_unlike(found[part], models[part], (), f"{name}.{part}") for part in models if part in found)
    return next((wrong for wrong in parts if wrong is not None), None)


def _same_family(kind: pa.DataType, model: pa.DataType) -> bool:
    if pa.types.is_null(kind):
        return True
    if _is_text(model):
        return _is_text(kind)
    if pa.types.is_integer(model):
        return pa.types.is_integer(kind)
    return pa.types.is_floating(kind) or pa.types.is_integer(kind)


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)  # Arrow cannot compare string views


class RecordChecks:
    """Checks of the records of one file; errors name the file.

    Parameters
    ----------
    ids : [n] ChunkedArray
    source : str
        The file.

    Raises
    ------
    CollectionError
        A record has no id.
    """

    def __init__(self, ids: pa.ChunkedArray, source: str):
        self.source = without_secrets(source)
        if ids.null_count:
            row = pc.index(ids.is_null(), True).as_py()
            raise CollectionError(f"record number {row} (from 0) of {self.source} has no id; {AGAIN}")
        self.ids = ids

    def refuse(self, wrong: Flags, column: str, values: Any, why: str, owner: Ints | None = None) -> None:
        """Raise for the first wrong value of [m]; ``owner`` [m] are the records of the values."""
        if wrong.any():
            at = int(np.flatnonzero(wrong)[0])
            record_id = self.ids[at if owner is None else int(owner[at])].as_py()
            value = values[at].as_py() if isinstance(values, pa.Array | pa.ChunkedArray) else values[at]
            raise CollectionError(f"record {record_id!r} of {self.source}: {column} is {_shown(value)}, {why}; {AGAIN}")

    def grids(self, column: pa.Array) -> None:
        """Refuse a column ``grids`` with a record without grids, or with an invalid grid.

        Raises
        ------
        CollectionError
        """
        lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False).astype(np.int64)
        self.refuse(lengths == 0, "grids", column, "but a record needs at least one grid")
        owner = np.repeat(np.arange(len(column), dtype=np.int64), lengths)
        flat = pc.list_flatten(column)
        self.refuse(_nulls(flat), "grids", flat, "but a grid needs a size and a transform", owner)
        parts = {name: pc.struct_field(flat, name) for name in GRID_TYPE.names}
        self.sizes({f"grids.{name}": parts[name] for name in SIZES}, owner)
        self.transforms("grids.transform", parts["transform"], 6, owner)
        self.crs("grids.crs", parts["crs"], owner)
        self._band_lists(parts["bands"], owner, lengths)

    def sizes(self, columns: Mapping[str, pa.Array], owner: Ints | None = None) -> None:
        """Refuse sizes [m] in pixels that are null or less than 1."""
        for name, values in columns.items():
            wrong = pc.fill_null(pc.less(values, 1), True).to_numpy(zero_copy_only=False)
            self.refuse(wrong, name, values, "not a number of pixels of 1 or more", owner)

    def transforms(self, name: str, lists: pa.Array, length: int, owner: Ints | None = None) -> None:
        """Refuse lists [m] that do not have ``length`` finite numbers, or whose pixels have no area."""
        lengths = pc.fill_null(pc.list_value_length(lists), -1).to_numpy(zero_copy_only=False)
        self.refuse(lengths != length, name, lists, f"not {length} numbers", owner)
        values = pc.fill_null(pc.list_flatten(lists), np.nan).to_numpy(zero_copy_only=False)
        numbers = values.astype(np.float64).reshape(-1, length)
        self.refuse(~np.isfinite(numbers).all(axis=1), name, lists, f"not {length} finite numbers", owner)
        self.refuse(_area(numbers) == 0, name, lists, "whose pixels have no size", owner)

    def crs(self, name: str, texts: pa.Array, owner: Ints | None = None) -> None:
        """Refuse CRSs [m] that PROJ cannot parse."""
        self.refuse(_nulls(texts), name, texts, "not a CRS", owner)
        encoded = pc.dictionary_encode(texts)
        broken = [number for number, text in enumerate(encoded.dictionary.to_pylist()) if not _is_crs(text)]
        self.refuse(np.isin(encoded.indices.to_numpy(), broken), name, texts, "which PROJ cannot parse", owner)

    def _band_lists(self, texts: pa.Array, owner: Ints, lengths: Ints) -> None:
        self.refuse(_nulls(texts), "grids.bands", texts, "not a JSON list of band names", owner)
        encoded = pc.dictionary_encode(texts)
        lists = [_band_list(text) for text in encoded.dictionary.to_pylist()]
        broken = [number for number, bands in enumerate(lists) if bands is None]
        code = encoded.indices.to_numpy().astype(np.int64)
        self.refuse(np.isin(code, broken), "grids.bands", texts, "not a JSON list of band names", owner)
        starts = np.cumsum(lengths) - lengths
        for count in np.unique(lengths[lengths > 1]).tolist():  # records with several grids
            first = starts[lengths == count]
            sets, which = np.unique(code[first[:, None] + np.arange(count)], axis=0, return_inverse=True)
            twice = np.array([_overlap([lists[n] or [] for n in row]) for row in sets.tolist()], dtype=bool)
            wrong = np.zeros(len(code), dtype=bool)
            wrong[first] = twice[which.reshape(-1)]
            self.refuse(wrong, "grids.bands", texts, "and another grid of the record has one of these bands too", owner)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) < 120 else f"{text[:120]}..."


def _nulls(values: pa.Array) -> Flags:
    return values.is_null().to_numpy(zero_copy_only=False)


def _area(numbers: Floats) -> Floats:
    """Areas of the pixels of affines [m, 6], or [m, 4] of (scale x, left, scale y, top)."""
    if numbers.shape[1] == 4:
        return numbers[:, 0] * numbers[:, 2]
    return numbers[:, 0] * numbers[:, 4] - numbers[:, 1] * numbers[:, 3]


def _is_crs(text: str) -> bool:
    try:
        full_turn(text)
    except CRSError:
        return False
    return True


def _band_list(text: str) -> list[str] | None:
    try:
        bands = json.loads(text)
    except ValueError:
        return None
    return bands if isinstance(bands, list) and all(isinstance(band, str) for band in bands) else None


def _overlap(lists: list[list[str]]) -> bool:
    together = [band for bands in lists for band in bands]
    return len(set(together)) < len(together)


def check_band(facts: Mapping[str, Any], grid: Mapping[str, Any] | None, band: str, record: str) -> None:
    """Refuse invalid facts of one band of a record.

    Parameters
    ----------
    facts : {name: value}
        Facts from its asset and metadata.
    grid : dict, optional
        The element of column ``grids`` that contains the band.
    record : str
        Record and file, for the error.

    Raises
    ------
    CollectionError
        No href, a negative band index, an unknown dtype, or another grid in ``{band}_metadata`` than in ``grids``.
    """

    def refuse(column: str, value: object, why: str) -> None:
        raise CollectionError(f"{record}: {column} is {_shown(value)}, {why}; {AGAIN}")

    href, index, dtype = facts.get("href"), facts.get("band_index"), facts.get("dtype")
    if not href or not href.strip():
        refuse(f"assets.{band}.href", href, "but the record has a grid for this band")
    if "\0" in str(href):
        refuse(f"assets.{band}.href", href, "which a path cannot contain")
    if index is not None and index < 0:
        refuse(f"assets.{band}.band_index", index, "not a number of 0 or more")
    if grid is not None and dtype is None:
        refuse(f"{band}{METADATA_SUFFIX}.dtype", dtype, "but the record has a grid for this band")
    if dtype is not None and known_dtype(dtype) is None:
        refuse(f"{band}{METADATA_SUFFIX}.dtype", dtype, "not a NumPy name of integers or floats")
    if grid is not None:
        for name, wanted in _of_grid(grid):
            if facts.get(name) not in (None, wanted):
                refuse(f"{band}{METADATA_SUFFIX}.{name}", facts[name], f"but in column grids it is {_shown(wanted)}")


def _of_grid(grid: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """The values that a band's metadata must have for its grid."""
    a, b, c, d, e, f = grid["transform"]
    pairs = [(name, grid[name.removeprefix("image_")]) for name in BAND_FIELDS[:4]]
    return [*pairs, ("transform", [a, c, e, f])] if b == d == 0 else pairs


def known_dtype(text: str) -> np.dtype | None:
    """The pixel dtype of a name, or None."""
    try:
        dtype = np.dtype(text)
    except (TypeError, ValueError):
        return None
    return dtype if dtype.kind in "iuf" else None


def check_dtypes(batch: pa.RecordBatch, bands: Sequence[str], source: str) -> None:
    """Refuse rows of ``id`` and numbered columns ``dtype`` with a name that is not a pixel dtype.

    Raises
    ------
    CollectionError
    """
    for number, band in enumerate(bands):
        column = batch[f"dtype{number}"]
        for name in pc.unique(column).to_pylist():
            if name is not None and known_dtype(name) is None:
                record_id = batch["id"][pc.index(column, name).as_py()].as_py()
                check_band({"href": "-", "dtype": name}, None, band, f"record {record_id!r} of {source}")
