"""Hive partitions: columns whose values stand in the names of folders, as ``country=FR/month=6/part-0.parquet``.

Keys, values and types are those of ``pyarrow.dataset`` with ``partitioning="hive"``.
"""

import re
from collections.abc import Iterable, Mapping
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc

from rasteret_beam.errors import InputError
from rasteret_beam.kernels.tables.text_columns import MisfitError, parsed_text

NULL = "__HIVE_DEFAULT_PARTITION__"
WHOLE = re.compile(r"-?[0-9]+")
LARGEST = 2**31

Keys = Mapping[str, str | None]
"""The value of each key as text, decoded; None where it is null."""


def partition_keys(path: str, root: str | None) -> dict[str, str | None]:
    """Keys and values of the folders between a root (with ``/`` at its end; or None) and a file.

    Raises
    ------
    InputError
        One key has two values.
    """
    keys: dict[str, str | None] = {}
    for folder in path[len(root) :].split("/")[:-1] if root is not None else ():
        name, equals, text = folder.partition("=")
        if not equals or not name:
            continue
        value, key = None if text == NULL else _decoded(text, path), _decoded(name, path)
        if keys.setdefault(key, value) != value:
            raise InputError(f"{path} has two values of {key!r} in the names of its folders: {keys[key]} and {value}")
    return keys


def _decoded(text: str, path: str) -> str:
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError as error:
        raise InputError(f"folder name {text!r} of {path} is not UTF-8 once its % signs are decoded") from error


def partition_schema(all_keys: Iterable[Keys]) -> pa.Schema:
    """The fields of all keys: int32 if each value is one, otherwise string."""
    values: dict[str, set[str | None]] = {}
    for keys in all_keys:
        for name, value in keys.items():
            values.setdefault(name, set()).add(value)
    return pa.schema([pa.field(name, _type_of(found - {None})) for name, found in values.items()])


def _type_of(texts: set[str | None]) -> pa.DataType:
    whole = bool(texts) and all(
        WHOLE.fullmatch(text or "") is not None and -LARGEST <= int(text or "") < LARGEST for text in texts
    )
    return pa.int32() if whole else pa.string()


def check_partition_types(kinds: Mapping[str, pa.DataType], all_keys: Iterable[Keys]) -> None:
    """Refuse types that a value in the name of a folder does not have.

    Raises
    ------
    InputError
        Names the type and the folder.
    """
    folders = {(name, keys[name]) for keys in all_keys for name in kinds if name in keys}
    for name, text in sorted(folders, key=str):
        try:
            parsed_text(pa.array([text], pa.string()), kinds[name])
        except MisfitError:
            raise InputError(
                f"column_types gives column {name!r} the type {kinds[name]}, but a folder is named {name}={text}; "
                f"rename the folder, or take the column as text (--column_types {name}:string)"
            ) from None


def partition_column(field: pa.Field, keys: Keys, rows: int, path: str) -> pa.Array:
    """The column of a key for so many rows of a file; null where its path lacks the key.

    Raises
    ------
    InputError
        The value is not of the field's type, which is that of all files found first.
    """
    text = keys.get(field.name)
    if text is not None and pa.types.is_int32(field.type) and not pa.types.is_int32(_type_of({text})):
        raise InputError(
            f"{path} has {field.name}={text} in the names of its folders, and others whole numbers; rename the folder"
        )
    return pa.repeat(parsed_text(pa.array([text], pa.string()), field.type)[0], rows)


def check_agrees(column: pa.Array, name: str, keys: Keys, first_row: int, path: str) -> None:
    """Refuse a file whose own column says otherwise than the key of that name in its path.

    Raises
    ------
    InputError
        Names both.
    """
    if name not in keys or not len(column):
        return
    text = keys[name]
    plain = column.dictionary_decode() if isinstance(column, pa.DictionaryArray) else column
    try:
        value = pa.scalar(text, pa.string()).cast(plain.type)
        same = plain.is_null() if text is None else pc.fill_null(pc.equal(plain, value), False)
        wrong = pc.index(same, False).as_py()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        wrong = 0
    if wrong >= 0:
        shown = NULL if text is None else text
        raise InputError(
            f"column {name!r} of {path} is {plain[wrong].as_py()!r} in row {first_row + wrong}, but the file is in "
            f"folder {name}={shown}, which gives a column of that name too; rename one of them, or "
            "leave the column out with columns=[...]"
        )
