"""Read GeoJSON files: one document, or one feature per line."""

import os

from apache_beam.io.filesystem import BeamIOError

from rasteret_beam.errors import InputError, MissingInputError, RasteretBeamError, one_line, without_secrets
from rasteret_beam.model import Access
from rasteret_beam.transforms.runtime.files import name_of, open_file
from rasteret_beam.transforms.sources.table_files import Files

WHOLE_ENDINGS = (".geojson", ".json")
LINES_ENDINGS = (".geojsonl", ".geojsons", ".ndjson", ".jsonl")
RECORD_SEPARATOR = "\x1e"
"""The character before each feature in a text sequence (RFC 8142)."""


def is_geojson(files: Files) -> bool:
    """Whether files are GeoJSON by their names.

    Raises
    ------
    InputError
        Only some of them are.
    """
    if not any(map(_is_named_so, [*files.paths, files.first.path])):
        return False
    others = [file.path for file in files.found() if not _is_named_so(file.path)]
    if others:
        raise InputError(
            f"{without_secrets(others[0])} is not named as GeoJSON, but other files are; read each format with a "
            "separate transform"
        )
    return True


def _is_named_so(path: str) -> bool:
    return name_of(path).endswith((*WHOLE_ENDINGS, *LINES_ENDINGS))


def read_geojson(files: Files) -> list[str]:
    """GeoJSON texts of files in name order, each with a FeatureCollection, a Feature or a geometry.

    Raises
    ------
    MissingInputError, InputError
        A file cannot be opened or is not GeoJSON.
    """
    return [text for file in files.found() for text in _texts(file.path, files.access)]


def _texts(path: str, access: Access) -> list[str]:
    name = without_secrets(path)
    try:
        with open_file(path, access, to_the_end=True) as file:
            text = file.read().decode("utf-8-sig")
    except RasteretBeamError:
        raise
    except (OSError, BeamIOError) as error:
        raise MissingInputError(f"{name} cannot be opened: {one_line(error)}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{os.path.basename(name)} is not GeoJSON: {error}") from error
    if not name_of(path).endswith(LINES_ENDINGS):
        if not text.lstrip().startswith("{"):
            raise InputError(f"{name} is not GeoJSON: it does not start with an object")
        return [text]
    lines = [(number, line.strip(" \t\r" + RECORD_SEPARATOR)) for number, line in enumerate(text.split("\n"), 1)]
    broken = [number for number, line in lines if line and not line.startswith("{")]
    if broken:
        raise InputError(f"line {broken[0]} of {name} is not GeoJSON: it does not start with an object")
    return [line for _, line in lines if line]
