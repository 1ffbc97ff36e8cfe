"""Parsed paths: whether an href is a local file, a URL or a name for GDAL, and its scheme, host and path."""

import re
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import unquote

from rasteret_beam.readers.storage.access import AZURE, GS, S3

WEB = ("http", "https")
BUCKETS = (S3, GS, *AZURE)
SCHEMES = (*WEB, *BUCKETS)
"""Schemes that obstore reads; ``file`` and plain paths are local."""

SUBDATASET = re.compile(r"(?!(?i:file):/)[A-Za-z][A-Za-z0-9_]+:(?!//)")
"""Beginning of GDAL's names of datasets in files: NETCDF:file.nc:variable, HDF5:"file.h5"://group, GTIFF_DIR:2:x."""


@dataclass(frozen=True)
class Location:
    """A path, a URL or another name of a file, parsed once.

    Attributes
    ----------
    text : str
        The name as given.
    scheme : str
        Of a URL, as written; empty for all other names.
    root : str
        Scheme and bucket or host of a URL, such as ``s3://bucket``; empty for all other names.
    path : str
        The rest of a URL, unchanged; the whole name if it is not a URL.
    is_subdataset : bool
        GDAL's name of a dataset in a file. A local path of this form has to begin with ``/`` or ``.``.
    """

    text: str
    scheme: str
    root: str
    path: str
    is_subdataset: bool

    @classmethod
    @lru_cache(maxsize=8192)
    def of(cls, text: str) -> "Location":
        """Parse a name; ``file:`` URIs are local, as are plain paths."""
        is_subdataset = SUBDATASET.match(text) is not None
        if "://" not in text or is_file_uri(text) or is_subdataset:
            return cls(text, "", "", text, is_subdataset)
        scheme, _, rest = text.partition("://")
        host, _, path = rest.partition("/")
        return cls(text, scheme, f"{scheme}://{host}", path, False)

    @property
    def parts(self) -> tuple[str, str, str]:
        """Scheme, root and path."""
        return self.scheme, self.root, self.path

    @property
    def is_remote(self) -> bool:
        """It is a URL of something other than a local file."""
        return bool(self.root)

    @property
    def is_web(self) -> bool:
        """It is a URL with scheme http or https."""
        return self.scheme in WEB

    @property
    def is_in_bucket(self) -> bool:
        """It is a URL of an object in a bucket."""
        return self.scheme in BUCKETS

    @property
    def is_object(self) -> bool:
        """It is a URL in a bucket or on the web, which this package reads itself."""
        return self.scheme in SCHEMES

    @property
    def is_local(self) -> bool:
        """It is a plain local path or a ``file:`` URI: not a URL, a /vsi path or a subdataset."""
        return not (self.is_remote or self.is_subdataset or self.text.startswith("/vsi"))

    @property
    def key(self) -> str:
        """The path in obstore's store: decoded on the web; object names in buckets are literal, as in GDAL."""
        return unquote(self.path) if self.is_web else self.path

    @property
    def is_addressable(self) -> bool:
        """obstore requests exactly this URL: it drops queries and passwords, and normalizes paths."""
        if not self.is_object or "?" in self.text:
            return False
        if self.is_web and ("@" in self.root or "#" in self.text or "%2f" in self.path.lower()):
            return False
        return not {"", ".", ".."} & set(self.key.split("/"))

    @property
    def has_ranges(self) -> bool:
        """Its byte ranges can be requested, by obstore or (signed URLs, passwords) as a web request."""
        return self.is_addressable or self.is_web


def is_file_uri(text: str) -> bool:
    """Whether a text is a ``file:`` URI (RFC 8089)."""
    return text[:6].lower() == "file:/"
