"""The catalogue: short ids of datasets, and where their collections are.

Entries come from ``catalogue.json`` beside this module, from a file of the user's, and from
:func:`register`; of two with one id, the later of these three counts. The user's file is the
one that environment variable ``RASTERET_BEAM_CATALOGUE`` names, a path or a URL, else
``~/.config/rasteret_beam/catalogue.json``:

    {"team/plots": {"data": "s3://bucket/plots", "region": "eu-west-1", "anonymous": true}}

``data`` is needed (a relative path starts at the file's folder); ``name``, ``description``,
``region``, ``anonymous``, ``endpoint`` and ``requester_pays`` (``true``, or the project of Google's that is billed)
are not, and other keys are for the reader.
"""

import json
import os
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

from rasteret_beam.collection.storage import is_remote
from rasteret_beam.errors import InputError, MissingInputError, listed, one_line, without_secrets
from rasteret_beam.model import Access
from rasteret_beam.readers.objects import is_remote_object, read_object
from rasteret_beam.readers.stores import absolute, local_path

FILE_VARIABLE = "RASTERET_BEAM_CATALOGUE"
USER_FILE = "~/.config/rasteret_beam/catalogue.json"


@dataclass(frozen=True)
class Entry:
    """A dataset of the catalogue.

    Attributes
    ----------
    id : str
    data : str
        Path or URI of its collection: a Parquet file, or a folder of such.
    name : str
        Of the collection, where it is to have another than its own.
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
) -> None:
    """Give a collection an id that :func:`rasteret_beam.load` takes, in this process.

    Parameters
    ----------
    id : str
        Such as ``"team/plots"``. An entry of the same id is hidden.
    path : str
        The collection: a Parquet file or a folder of such, local or in a bucket.
    name, description : str, optional
    anonymous, region, endpoint, requester_pays
        How the bucket is read; see :class:`rasteret_beam.Access`.

    The bucket of the collection, and those of its rasters, are read so.

    Raises
    ------
    InputError
        The id is empty or could be taken for a path, or the endpoint is no plain URL.
    """
    if not id or looks_like_path(id):
        raise InputError(f"dataset id {id!r} could be taken for a path; give one such as 'team/plots'")
    place = absolute(path)
    _registered[id] = Entry(id, place, name, description, Access(anonymous, region, endpoint, requester_pays))


def entries() -> dict[str, Entry]:
    """All known datasets by id.

    Raises
    ------
    InputError, MissingInputError
        The user's file cannot be used, or the one that the environment names is not there.
    """
    shipped = files("rasteret_beam.collection").joinpath("catalogue.json").read_text()
    found = _parsed(shipped, "catalogue.json", "/")
    named = os.environ.get(FILE_VARIABLE)
    path = absolute(named or USER_FILE)
    if named and is_remote_object(named):
        return found | _parsed(_read(named), without_secrets(named), "/") | _registered
    if os.path.isfile(path):
        with open(path) as file:
            found |= _parsed(file.read(), path, os.path.dirname(path))
    elif named:
        raise MissingInputError(f"{FILE_VARIABLE} is {named}, but there is no such file")
    return found | _registered


def _read(url: str) -> str:
    try:
        return read_object(url).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise MissingInputError(f"the catalogue of {FILE_VARIABLE} cannot be read: {one_line(error)}") from error


def looks_like_path(text: str) -> bool:
    """Whether a text is a path rather than a dataset id: it exists, has a scheme, is absolute or ends in .parquet."""
    return (
        "://" in text
        or text.startswith(("/", ".", "~", "file:/"))
        or os.path.isabs(text)
        or text.rstrip("/").endswith(".parquet")
        or os.path.exists(text)
    )


def find_entry(id: str) -> Entry:
    """The dataset with an id.

    Raises
    ------
    MissingInputError
        There is none; lists the ids there are.
    """
    known = entries()
    if id not in known:
        raise MissingInputError(
            f"there is no file or folder {id!r}, and no dataset with that id; known ids: {listed(sorted(known), 40)}. "
            f"Add one with rasteret_beam.register, or in {USER_FILE}."
        )
    return known[id]


def _parsed(text: str, source: str, folder: str) -> dict[str, Entry]:
    try:
        described = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"catalogue {source} is no JSON: {error}") from error
    if not isinstance(described, dict):
        raise InputError(f"catalogue {source} is a JSON {type(described).__name__}; it has to map ids to entries")
    return {id: _entry(id, fields, source, folder) for id, fields in described.items()}


def _entry(id: str, fields: Any, source: str, folder: str) -> Entry:
    if not isinstance(fields, dict) or not isinstance(fields.get("data"), str):
        raise InputError(f"entry {id!r} of catalogue {source} has no text 'data': the path or URI of its collection")
    access = Access(
        bool(fields.get("anonymous", False)),
        fields.get("region"),
        fields.get("endpoint"),
        fields.get("requester_pays") or False,
    )
    place = _absolute(fields["data"], folder)
    return Entry(id, place, fields.get("name", ""), fields.get("description", ""), access)


def _absolute(path: str, folder: str) -> str:
    return path if is_remote(path) else os.path.join(folder, local_path(path))
