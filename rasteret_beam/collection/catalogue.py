"""The catalogue: short ids of datasets and the places of their collections.

Entries come from ``catalogue.json`` beside this module, from the user's file, and from :func:`register`; a later source
overrides an earlier one. The environment variable ``RASTERET_BEAM_CATALOGUE`` gives the path or URL of the user's file;
the default is ``~/.config/rasteret_beam/catalogue.json``:

    {"team/plots": {"data": "s3://bucket/plots", "region": "eu-west-1", "anonymous": true}}

``data`` is required (a relative path starts at the file's folder); ``name``, ``description``, ``region``,
``anonymous``, ``endpoint``, ``requester_pays`` (``true``, or the Google project to bill), ``vrt``, ``drivers`` and
``allow_local`` are optional, and other keys are ignored.
"""

import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.resources import files
from typing import Any

from rasteret_beam.collection.eager.unknown_keywords import like_path, path_of
from rasteret_beam.collection.records.hrefs import folder_of, resolved
from rasteret_beam.errors import InputError, MissingInputError, did_you_mean, listed, one_line, without_secrets
from rasteret_beam.kernels.storage.globs import is_glob
from rasteret_beam.model import Access
from rasteret_beam.readers.storage.location import Location
from rasteret_beam.readers.storage.objects import read_object
from rasteret_beam.readers.storage.stores import absolute

log = logging.getLogger(__name__)

FILE_VARIABLE = "RASTERET_BEAM_CATALOGUE"
KEYS: tuple[tuple[str, type | tuple[type, ...], str], ...] = (
    ("data", str, "a text"),
    ("name", str, "a text"),
    ("description", str, "a text"),
    ("region", str, "a text"),
    ("endpoint", str, "a text"),
    ("anonymous", bool, "true or false"),
    ("requester_pays", (bool, str), "true, false or a project's name"),
    ("vrt", bool, "true or false"),
    ("drivers", list, "a list of names of GDAL's drivers"),
    ("allow_local", bool, "true or false"),
)
"""Keys of an entry that are used; others are ignored."""

NAMES = [name for name, _, _ in KEYS]

USER_FILE = "~/.config/rasteret_beam/catalogue.json"


@dataclass(frozen=True)
class Entry:
    """A dataset of the catalogue.

    Attributes
    ----------
    id : str
    data : str
        Path or URI of its collection: a Parquet file, or a folder of Parquet files.
    name : str
        Name of the collection, if it should differ from the stored one.
    description : str
    access : Access
        How its bucket is read.
    """

    id: str
    data: str
    name: str = ""
    description: str = ""
    access: Access = field(default_factory=Access)


_registered: dict[str, Entry] = {}


def register(
    id: str,
    path: str | os.PathLike[str],
    *,
    name: str = "",
    description: str = "",
    anonymous: bool = False,
    region: str | None = None,
    endpoint: str | None = None,
    requester_pays: bool | str = False,
    vrt: bool = False,
    drivers: Sequence[str] = (),
    allow_local: bool = False,
) -> None:
    """Give a collection an id for :func:`rasteret_beam.load` in this process.

    Parameters
    ----------
    id : str
        An id such as ``"team/plots"``. It overrides an entry with the same id.
    path : str
        The collection: a Parquet file or a folder of Parquet files, local or in a bucket.
    name, description : str, optional
    anonymous, region, endpoint, requester_pays, vrt, drivers, allow_local
        How the buckets of the collection and its rasters are read; see :class:`rasteret_beam.Access`.

    Raises
    ------
    InputError
        The id is empty or looks like a path, or the endpoint is not a plain URL.
    """
    _check_id(id, "dataset id")
    if looks_like_path(id):
        raise InputError(f"dataset id {id!r} is the name of an existing path; give another id")
    fields = {
        "data": path_of(path, "path", "that of a collection: a Parquet file or a folder of Parquet files"),
        "name": name,
        "description": description,
        "anonymous": anonymous,
        "region": region,
        "endpoint": endpoint,
        "requester_pays": requester_pays,
        "vrt": vrt,
        "drivers": list(drivers),
        "allow_local": allow_local,
    }
    _registered[id] = _entry(id, fields, "of this process", os.getcwd())


def entries() -> dict[str, Entry]:
    """All known datasets by id.

    Raises
    ------
    InputError, MissingInputError
        The user's file cannot be used, or the file that the environment names does not exist.
    """
    shipped = files("rasteret_beam.collection").joinpath("catalogue.json").read_text()
    found = _parsed(shipped, "catalogue.json", "/")
    named = os.environ.get(FILE_VARIABLE)
    path = absolute(named or USER_FILE)
    if named and Location.of(named).is_object:
        return found | _parsed(_read(named), without_secrets(named), folder_of(named)) | _registered
    if os.path.isfile(path):
        found |= _parsed(_text(path), path, os.path.dirname(path))
    elif named:
        raise MissingInputError(f"{FILE_VARIABLE} is {named}, but that file does not exist")
    return found | _registered


def _read(url: str) -> str:
    try:
        return read_object(url).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise MissingInputError(f"the catalogue of {FILE_VARIABLE} cannot be read: {one_line(error)}") from error


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"catalogue {path} cannot be read: {one_line(error)}") from error


def _check_id(id: object, what: str) -> None:
    if not isinstance(id, str):
        raise InputError(f"{what} is {id!r}, a {type(id).__name__}; give a text such as 'team/plots'")
    if not id.strip() or _is_path(id):
        raise InputError(f"{what} {id!r} looks like a path; give one such as 'team/plots'")


def looks_like_path(text: str) -> bool:
    """Whether a text is a path and not an id: it exists, has a scheme or wildcard, is absolute or ends in .parquet."""
    return _is_path(text) or os.path.exists(text)


def _is_path(text: str) -> bool:
    return (
        "://" in text
        or text.startswith(("/", ".", "~", "file:/"))
        or os.path.isabs(text)
        or text.rstrip("/").endswith(".parquet")
        or is_glob(text)
    )


def find_entry(id: str) -> Entry:
    """The dataset with an id.

    Raises
    ------
    MissingInputError
        No dataset has this id; lists the known ids.
    """
    known = entries()
    if id not in known:
        near = did_you_mean(id, known) or like_path(id)
        raise MissingInputError(
            f"there is no file or folder {id!r}, and no dataset with that id{near}; known ids: "
            f"{listed(sorted(known), 40)}. Add one with rasteret_beam.register, or in {USER_FILE}."
        )
    return known[id]


def access_with(place: str, given: Mapping[str, Any]) -> Access | None:
    """The access to a path or id that some fields ask for, None if there are none; others are those of the catalogue.

    Raises
    ------
    MissingInputError
        No dataset has this id.
    """
    if not given or looks_like_path(place):
        return Access(**given) if given else None
    return replace(find_entry(place).access, **given)


def _parsed(text: str, source: str, folder: str) -> dict[str, Entry]:
    try:
        described = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"catalogue {source} is not JSON: {error}") from error
    if not isinstance(described, dict):
        raise InputError(f"catalogue {source} is a JSON {type(described).__name__}; it has to map ids to entries")
    for id in described:
        _check_id(id, f"catalogue {source}: dataset id")
    return {id: _entry(id, fields, source, folder) for id, fields in described.items()}


def _entry(id: str, fields: Any, source: str, folder: str) -> Entry:
    if not isinstance(fields, dict) or not isinstance(fields.get("data"), str) or not fields["data"].strip():
        raise InputError(f"entry {id!r} of catalogue {source} has no text 'data': the path or URI of its collection")
    for name, kinds, wanted in KEYS:
        if fields.get(name) is not None and not isinstance(fields[name], kinds):
            raise InputError(f"entry {id!r} of catalogue {source}: {name} is {fields[name]!r}; it has to be {wanted}")
    for name in fields:
        near = did_you_mean(name, NAMES[3:], cutoff=0.8) if name not in NAMES else ""
        if near:
            log.warning("key %r of entry %r of catalogue %s is not used%s", name, id, source, near)
    try:
        access = Access(
            fields.get("anonymous") or False,
            fields.get("region"),
            fields.get("endpoint"),
            fields.get("requester_pays") or False,
            fields.get("vrt") or False,
            fields.get("drivers") or (),
            fields.get("allow_local") or False,
        )
    except InputError as error:
        raise InputError(f"entry {id!r} of catalogue {source}: {error}") from error
    place = _absolute(fields["data"], folder)
    return Entry(id, place, fields.get("name") or "", fields.get("description") or "", access)


def _absolute(path: str, folder: str) -> str:
    # An absolute path is local, wherever the catalogue is.
    return path if os.path.isabs(path) else resolved(path, folder)
