"""Write a whole collection to Parquet, on disk or in a bucket."""

import glob
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rasteret_beam.collection.parquet.files import (
    OF_A_FOLDER,
    PARTITIONS,
    UNDER_WAY,
    check_parts,
    is_part,
    open_dataset,
)
from rasteret_beam.errors import OutOfMemoryError, OutputError, RasteretBeamError, listed
from rasteret_beam.model import DEFAULT_ACCESS, Access
from rasteret_beam.readers.storage.committed_files import undone_beside
from rasteret_beam.readers.storage.local_files import MORE_MEMORY, exists, why_not_written
from rasteret_beam.readers.storage.location import Location
from rasteret_beam.readers.storage.objects import check_bucket_output, delete_objects, find_objects, put_object
from rasteret_beam.readers.storage.stores import absolute
from rasteret_beam.schema import CHECKSUMS, EXTRA_SUFFIX, METADATA_SUFFIX

ROW_GROUP_BYTES = 32 << 20
"""Small, so that the assets of one record can be read without many others."""

DISPENSABLE = (".DS_Store", "_SUCCESS", "_metadata", "_common_metadata")
"""Hidden files that do not prevent replacing a collection."""


def row_group_rows(table: pa.Table) -> int:
    """Rows of a row group of about :data:`ROW_GROUP_BYTES`."""
    return max(1, min(50_000, len(table) * ROW_GROUP_BYTES // max(1, table.nbytes)))


def writer_options(schema: pa.Schema) -> dict[str, object]:
    """Options for writing Parquet: statistics and dictionaries only for columns that select records.

    Without them for the other columns, some 28 per band, files of 64 bands are a third smaller, take three quarters of
    the time to write, and half the time to read a row group.
    """
    chosen_by = [
        path
        for field in schema
        if field.name not in ("assets", CHECKSUMS) and not field.name.endswith((METADATA_SUFFIX, EXTRA_SUFFIX))
        for path in _leaves(field)
    ]
    return {"compression": "zstd", "write_statistics": chosen_by, "use_dictionary": chosen_by}


def _leaves(field: pa.Field, above: str = "") -> list[str]:
    """Paths of the Parquet columns that a field is stored in."""
    path = above + field.name
    if pa.types.is_struct(field.type):
        return [leaf for child in field.type for leaf in _leaves(child, path + ".")]
    if pa.types.is_list(field.type) or pa.types.is_large_list(field.type):
        return _leaves(field.type.value_field.with_name("element"), path + ".list.")
    return [path]


def write_collection(table: pa.Table, path: str, access: Access = DEFAULT_ACCESS) -> None:
    """Write a collection with its schema metadata, and replace an existing collection.

    A path that ends in ``.parquet`` is one file; any other is a folder with hive partitions year and month. On a local
    disk the old collection stays until the new one is complete. In a bucket, objects are replaced one by one, after the
    new collection is complete on this machine.

    Raises
    ------
    OutputError
        The path cannot be written, or is something other than a collection.
    """
    if undone_beside(absolute(path), access) is not None:
        raise OutputError(
            f"{path} is not replaced: a build of it was killed while it moved files into place; build it again with "
            "BuildCollection, which completes it, or give another path"
        )
    if Location.of(path).is_remote:
        _write_remote(table, path, access)
        return
    try:
        place = absolute(path)
        check_replaceable(place)
        fresh = f"{place}{UNDER_WAY}{uuid.uuid4().hex[:8]}" + (".parquet" if place.endswith(".parquet") else "")
        os.makedirs(os.path.dirname(place), exist_ok=True)
        try:
            _write(table, fresh)
            _replace(fresh, place)
        finally:
            _remove(fresh)
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(f"the collection cannot be written to {path}: {why_not_written(error)}") from error
    except MemoryError as error:
        raise OutOfMemoryError(f"memory ran out while the collection {path} was written; {MORE_MEMORY}") from error


def _write_remote(table: pa.Table, path: str, access: Access) -> None:
    path = path.rstrip("/")
    check_replaceable(path, access)
    old = find_objects(path, access)
    with tempfile.TemporaryDirectory() as folder:
        place = os.path.join(folder, "collection" + (".parquet" if path.endswith(".parquet") else ""))
        _write(table, place)
        found = [place] if os.path.isfile(place) else glob.glob(f"{place}/**/*.parquet", recursive=True)
        fresh = {path + name.removeprefix(place): name for name in sorted(found)}
        for url, name in fresh.items():
            with open(name, "rb") as file:
                put_object(url, file.read(), access)
    delete_objects([url for url in old if url not in fresh], access)


def _write(table: pa.Table, place: str) -> None:
    try:
        _write_parquet(table, place)
    except pa.ArrowNotImplementedError as error:
        wrong = [
            f"{name} ({kind})"
            for name, kind in zip(table.schema.names, table.schema.types, strict=True)
            if not _is_writable(table.select([name]))
        ]
        raise OutputError(
            f"Parquet cannot hold column(s) {listed(wrong)} of the collection; cast or drop them before it is built"
        ) from error


def _is_writable(table: pa.Table) -> bool:
    try:
        pq.write_table(table.slice(0, 0), pa.BufferOutputStream())
    except pa.ArrowNotImplementedError:
        return False
    return True


def _write_parquet(table: pa.Table, place: str) -> None:
    rows, options = row_group_rows(table), writer_options(table.schema)
    if place.endswith(".parquet"):
        pq.write_table(table, place, row_group_size=rows, **options)
        return
    for name, part in zip(PARTITIONS, (pc.year, pc.month), strict=True):
        if name not in table.column_names:  # a part of a collection has them in the names of its parent folders
            table = table.append_column(name, part(table["datetime"]).cast(pa.int32()))
    pq.write_to_dataset(
        table,
        place,
        partition_cols=list(PARTITIONS),
        row_group_size=rows,
        basename_template="part-{i}.parquet",
        **options,
    )


def check_replaceable(place: str, access: Access = DEFAULT_ACCESS) -> None:
    """Refuse to replace anything but a collection or an empty folder.

    Raises
    ------
    OutputError
    """
    if Location.of(place).is_remote:
        check_bucket_output(place, "collection")
        if not Location.of(place).is_object or not find_objects(place, access):
            return
    elif not exists(place) or (os.path.isdir(place) and not os.listdir(place)):
        return
    parts, others = [], []
    for name in _inner_names(place, access):
        if is_part(name):
            parts.append(name)
        elif os.path.basename(name) not in DISPENSABLE:
            others.append(name)
        if len(others) == 5:
            break
    if others:
        raise OutputError(
            f"{place} has files that do not belong to a collection, such as {listed(others)}, so it is not replaced; "
            "give another path, or remove them"
        )
    if not any(map(OF_A_FOLDER.fullmatch, parts)):
        raise OutputError(f"{place} has collections in its subfolders, so it is not replaced; give another path")
    try:
        dataset = open_dataset(place, access)
        names = dataset.schema.names
        check_parts(dataset)
    except RasteretBeamError as error:
        raise OutputError(f"{place} exists and is not a collection, so it is not replaced: {error}") from error
    if not {"id", "assets"} <= set(names):
        raise OutputError(
            f"{place} exists and is not a collection (it has {listed(names)}), so it is not replaced; give another path"
        )


def _inner_names(place: str, access: Access) -> Iterable[str]:
    """Paths of all files below a folder, including hidden ones; for a file, its name."""
    if Location.of(place).is_remote:
        inside = find_objects(place, access)
        return [url.removeprefix(place.rstrip("/")).lstrip("/") or os.path.basename(url) for url in inside]
    if os.path.isfile(place):
        return [os.path.basename(place)]
    return (os.path.relpath(os.path.join(root, name), place) for root, _, names in os.walk(place) for name in names)


def _replace(fresh: str, place: str) -> None:
    if not os.path.isdir(place):
        os.replace(fresh, place)
        return
    old = f"{place}.old-{uuid.uuid4().hex[:8]}"
    os.rename(place, old)
    os.rename(fresh, place)
    shutil.rmtree(old)


def _remove(place: str) -> None:
    if os.path.isdir(place):
        shutil.rmtree(place)
    elif os.path.exists(place):
        os.remove(place)
