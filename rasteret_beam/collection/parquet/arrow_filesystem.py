"""An Arrow filesystem that reads through obstore.

Collections and their rasters thus share credentials, endpoints and retries. It also reads https, requester-pays buckets
and Azure, which Arrow's filesystems do not support.
"""

from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.fs as pafs

from rasteret_beam.errors import InputError, without_secrets
from rasteret_beam.kernels.storage.globs import in_folder
from rasteret_beam.model import Access
from rasteret_beam.readers.storage.location import SCHEMES, Location
from rasteret_beam.readers.storage.objects import ObjectFile, list_folder, object_size, open_object


def on_remote(url: str, access: Access) -> tuple[pafs.FileSystem, str]:
    """The Arrow filesystem that reads a URL, and the path on it.

    Raises
    ------
    InputError
        Its scheme is not supported.
    """
    if not Location.of(url).is_object:
        raise InputError(
            f"{without_secrets(url)} cannot be read; give a local path, or a URL with {', '.join(SCHEMES)}"
        )
    scheme, _, path = url.partition("://")
    return pafs.PyFileSystem(_Objects(scheme, access)), path if Location.of(url).is_web else path.rstrip("/")


def url_of(fragment: ds.ParquetFileFragment) -> str:
    """The URL or path of a fragment."""
    handler = getattr(fragment.filesystem, "handler", None)
    return f"{handler.scheme}://{fragment.path}" if isinstance(handler, _Objects) else str(fragment.path)


class _Objects(pafs.FileSystemHandler):
    """Read-only objects of one scheme; a path starts with the bucket or host."""

    def __init__(self, scheme: str, access: Access):
        self.scheme = scheme
        self.access = access
        self.sizes: dict[str, int] = {}  # from the listing, so that opening a file does not request its size

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Objects) and (self.scheme, self.access) == (other.scheme, other.access)

    def __hash__(self) -> int:
        return hash((self.scheme, self.access))

    def _url(self, path: str) -> str:
        return f"{self.scheme}://{path}"

    def get_type_name(self) -> str:
        return self.scheme

    def normalize_path(self, path: str) -> str:
        return path

    def get_file_info(self, paths: list[str]) -> list[pafs.FileInfo]:
        return [self._info(path) for path in paths]

    def _info(self, path: str) -> pafs.FileInfo:
        """The kind of a path; a folder is a common prefix of object names."""
        url = self._url(path)
        file_first = Location.of(url).is_web or path.endswith(".parquet")
        for look in (self._file, self._folder) if file_first else (self._folder, self._file):
            found = look(path, url)
            if found is not None:
                return found
        return pafs.FileInfo(path, pafs.FileType.NotFound)

    def _file(self, path: str, url: str) -> pafs.FileInfo | None:
        try:
            return pafs.FileInfo(path, pafs.FileType.File, size=object_size(url, self.access))
        except FileNotFoundError:
            return None

    def _folder(self, path: str, url: str) -> pafs.FileInfo | None:
        inside = not Location.of(url).is_web and list_folder(url, self.access)
        return pafs.FileInfo(path, pafs.FileType.Directory) if inside else None

    def get_file_info_selector(self, selector: pafs.FileSelector) -> list[pafs.FileInfo]:
        start = len(self.scheme) + len("://")
        folder = self._url(selector.base_dir)
        found = list_folder(folder, self.access)
        self.sizes |= {item.url: item.size for item in found}
        counts = in_folder(folder).files.fullmatch
        inside = [item for item in found if counts(item.url)]
        return [pafs.FileInfo(item.url[start:], pafs.FileType.File, size=item.size) for item in inside]

    def open_input_file(self, path: str) -> pa.PythonFile:
        url = self._url(path)
        size = self.sizes.get(url)
        file = open_object(url, self.access) if size is None else ObjectFile(url, size, self.access)
        return pa.PythonFile(file, mode="r")

    def open_input_stream(self, path: str) -> pa.PythonFile:
        return self.open_input_file(path)

    def _refuse(self, *_: Any) -> Any:
        raise NotImplementedError("this filesystem is read-only")

    create_dir = delete_dir = delete_dir_contents = delete_root_dir_contents = delete_file = _refuse
    move = copy_file = open_output_stream = open_append_stream = _refuse
