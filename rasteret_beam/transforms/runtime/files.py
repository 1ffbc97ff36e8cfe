"""Find, open, check and delete files, with Beam's filesystems where needed."""

import glob
import os
import shutil
import uuid
from collections.abc import Iterable, Sequence
from contextlib import suppress
from importlib.util import find_spec
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq
from apache_beam.io.filesystem import BeamIOError, CompressionTypes, FileSystem
from apache_beam.io.filesystems import FileSystems

from rasteret_beam.errors import (
    InputError,
    MissingInputError,
    NoAnswerError,
    OutputError,
    RasteretBeamError,
    how_to_install,
    listed,
    one_line,
    without_secrets,
)
from rasteret_beam.kernels.storage.globs import Selection, as_folder, is_glob
from rasteret_beam.model import DEFAULT_ACCESS, Access
from rasteret_beam.readers.storage.access import AZURE, GS, S3
from rasteret_beam.readers.storage.first_contact import within
from rasteret_beam.readers.storage.found_file import FoundFile
from rasteret_beam.readers.storage.listing import CSV_ENDINGS, PARQUET_ENDINGS, Paths, find
from rasteret_beam.readers.storage.listing import find_rasters as find_rasters  # for callers of this module
from rasteret_beam.readers.storage.local_files import Kind, denied, why_not_written
from rasteret_beam.readers.storage.location import Location
from rasteret_beam.readers.storage.objects import check_bucket_output, explained, open_object, open_to_the_end
from rasteret_beam.readers.storage.stores import service_name
from rasteret_beam.transforms.runtime.google_services import look_for_credentials

GEOJSON_ENDINGS = (".geojson", ".geojsonl", ".geojsons")
VECTOR_ENDINGS = (".gpkg", ".fgb", ".shp")
"""GeoPackage, FlatGeobuf and shapefiles."""

IN_FOLDERS = (
    PARQUET_ENDINGS + CSV_ENDINGS,
    GEOJSON_ENDINGS,
    (*VECTOR_ENDINGS, *(f"{ending}.zip" for ending in VECTOR_ENDINGS)),
)
"""Endings of the tables in a folder: the first group with a file counts."""

PARQUET_MAGIC = b"PAR1"

EXTRAS = {GS: ("google.cloud.storage", "google-cloud-storage", "gcp"), S3: ("boto3", "boto3", "aws")}
"""Requirements of Beam for writing to a scheme: module, package and extra."""


def find_tables(places: Paths, access: Access = DEFAULT_ACCESS) -> list[FoundFile]:
    """Files of a path, a folder, a glob or a list of these, each once, in name order.

    In a folder, all Parquet and CSV files at any depth are selected, except hidden ones; see
    :mod:`rasteret_beam.kernels.storage.globs`. If there are none, its GeoJSON files (``.geojson``, ``.geojsonl``,
    ``.geojsons``) are selected, but not ``.json``, which may have any content; if there are none of these either,
    vector files of :data:`VECTOR_ENDINGS`, also zipped (``.shp.zip``). ``access`` is the access to buckets.

    Raises
    ------
    MissingInputError, PermissionDeniedError, InputError
        A path does not exist, may not be read, or is not a regular file.
    """
    what = "Parquet, CSV, GeoJSON or vector file"
    first, *others = IN_FOLDERS
    try:
        return find(places, first, what, access, BeamLister())
    except MissingInputError:
        for endings in others:
            with suppress(MissingInputError):
                return find(places, endings, what, access, BeamLister())
        raise


def find_files(places: Paths, access: Access = DEFAULT_ACCESS) -> list[str]:
    """The paths of :func:`find_tables`."""
    return [file.path for file in find_tables(places, access)]


class BeamLister:
    """Lists files of schemes that only Beam supports."""

    def kind(self, place: str) -> Kind | None:
        if is_glob(place):
            return None
        if place in self._matches(place, place):
            return "file"
        return "folder" if self._matches(as_folder(place) + "**", place) else None

    def files(self, selection: Selection) -> Iterable[tuple[str, str, bool]]:
        found = self._matches(selection.root + "**", selection.start)
        return [(path, path, False) for path in found if selection.files.fullmatch(path)]

    def _matches(self, pattern: str, shown: str) -> list[str]:
        try:
            return [match.path for match in FileSystems.match([pattern])[0].metadata_list]
        except (BeamIOError, ValueError) as error:
            raise MissingInputError(f"{without_secrets(shown)} cannot be listed: {one_line(error)}") from error


def name_of(path: str) -> str:
    """A path in lower case without the query of a URL, for checking its extension."""
    return (path.partition("?")[0] if Location.of(path).is_web else path).lower()


def is_parquet(path: str, access: Access = DEFAULT_ACCESS) -> bool:
    """Whether a file is Parquet (by its first bytes) or CSV (by its name).

    Raises
    ------
    InputError
        It is neither.
    MissingInputError
        It cannot be opened.
    """
    try:
        with open_file(path, access) as file:
            magic = file.read(4)
    except RasteretBeamError:
        raise
    except (OSError, BeamIOError) as error:
        raise MissingInputError(f"{without_secrets(path)} cannot be opened: {one_line(error)}") from error
    if magic == PARQUET_MAGIC:
        return True
    if name_of(path).endswith(CSV_ENDINGS):
        return False
    raise InputError(
        f"{without_secrets(path)} is neither Parquet (it does not start with PAR1) nor named "
        f"{', '.join([*CSV_ENDINGS, *VECTOR_ENDINGS])}"
    )


def open_file(path: str, access: Access = DEFAULT_ACCESS, to_the_end: bool = False) -> IO[bytes]:
    """The raw bytes of a file; ``to_the_end`` is for sequential reading with few requests."""
    if not Location.of(path).is_remote:
        try:
            return open(path, "rb")
        except PermissionError as error:
            raise denied(path) from error
    if Location.of(path).is_object:
        return open_to_the_end(path, access) if to_the_end else open_object(path, access)  # type: ignore[return-value]
    return FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED)


def open_parquet(path: str, access: Access = DEFAULT_ACCESS) -> pq.ParquetFile:
    """A Parquet file; close it after use.

    Raises
    ------
    InputError
        It is not Parquet, or is damaged.
    """
    try:
        if Location.of(path).is_remote:
            return pq.ParquetFile(open_file(path, access), pre_buffer=True)
        return pq.ParquetFile(path)
    except PermissionError as error:
        raise denied(path) from error
    except pa.ArrowInvalid as error:
        raise InputError(f"{without_secrets(path)} cannot be read as Parquet: {error}") from error


def check_output(path: str, what: str) -> None:
    """Refuse an output that cannot be written, without a request.

    Raises
    ------
    OutputError
    """
    check_bucket_output(path, what)
    scheme = path.partition("://")[0] if Location.of(path).is_remote else ""
    extra = EXTRAS.get(scheme)
    if extra is not None and not _is_installed(extra[0]):
        raise OutputError(
            f"{what} {path} cannot be written: that needs {extra[1]}, which is not installed: "
            f"{how_to_install(extra[2])}"
        )
    if scheme in AZURE:
        raise OutputError(f"{what} {path} cannot be written: Beam writes to Azure as azfs://ACCOUNT/CONTAINER/PATH")
    if scheme and scheme not in known_schemes():
        raise OutputError(
            f"{what} {without_secrets(path)} cannot be written: Beam has no filesystem for {scheme}://, only for "
            f"local paths and {listed(f'{name}://' for name in known_schemes())}"
        )


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # its parent is not installed
        return False


def known_schemes() -> list[str]:
    """Schemes that Beam can write to."""
    return sorted({each.scheme() for each in FileSystem.get_all_subclasses() if each.scheme() not in (None, "file")})


def check_writable(prefix: str) -> None:
    """Write and remove a small file beside an output, with its folders.

    Raises
    ------
    OutputError
        It cannot be written.
    """
    probe = f"{prefix}.probe-{uuid.uuid4().hex[:8]}"
    missing = [] if Location.of(prefix).is_remote else _missing_folders(probe)
    try:
        if Location.of(prefix).is_remote:
            within(service_name(prefix), lambda: _write_and_delete(probe))
        else:
            _write_and_delete(probe)
    except NoAnswerError as error:
        raise OutputError(f"output {prefix} cannot be written: {error}") from None
    except Exception as error:  # each Beam filesystem has its own errors
        local = isinstance(error, OSError) and not Location.of(prefix).is_remote
        why = why_not_written(error) if local else explained(error, prefix, writing=True)  # type: ignore[arg-type]
        raise OutputError(f"output {prefix} cannot be written: {why}") from error
    finally:
        for folder in missing:
            with suppress(OSError):  # another job may have written a file there
                os.rmdir(folder)


def check_file_writable(path: str) -> None:
    """The same as :func:`check_writable` for an output that is one file, which cannot replace a folder.

    Raises
    ------
    OutputError
    """
    if not Location.of(path).is_remote and os.path.isdir(path):
        raise OutputError(f"output {path} cannot be written: it is a folder; give the path of a file")
    check_writable(path)


def _write_and_delete(probe: str) -> None:
    if probe.startswith("gs://"):
        look_for_credentials()
    with FileSystems.create(probe, compression_type=CompressionTypes.UNCOMPRESSED) as file:
        file.write(b"probe")
    delete_files([probe])


def _missing_folders(path: str) -> list[str]:
    """Missing parent folders of a path, the innermost first."""
    found = []
    folder = os.path.dirname(os.path.abspath(path))
    while not os.path.exists(folder):
        found.append(folder)
        folder = os.path.dirname(folder)
    return found


def matching(start: str, pattern: str) -> list[str]:
    """Files whose paths are the literal ``start`` followed by a match of the glob ``pattern``."""
    if not Location.of(start).is_remote:
        return glob.glob(glob.escape(start) + pattern)
    return [entry.path for entry in FileSystems.match([start + pattern])[0].metadata_list]


def delete_files(paths: Sequence[str]) -> None:
    """Delete files by their literal paths, as Beam treats brackets in a local path as a glob."""
    for path in paths:
        if not Location.of(path).is_remote:
            os.remove(path)
    remote = [path for path in paths if Location.of(path).is_remote]
    if remote:
        FileSystems.delete(remote)


def delete_folder(folder: str) -> None:
    """Delete a folder and its content, if it exists."""
    if Location.of(folder).is_remote:
        delete_files(matching(folder + "/", "**"))
    else:
        shutil.rmtree(folder, ignore_errors=True)
