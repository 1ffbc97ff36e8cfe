"""Show what a collection holds: its records, bands, dates, sizes and CRSs, and a map of the footprints."""

from pipelines.startup import prepare_process

if __name__ == "__main__":
    prepare_process()

import json
import math
import os
import shutil
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from pipelines.cli.collection_page import collection_page
from pipelines.cli.collection_text import collection_text
from pipelines.cli.flags import Parser, access_flags, access_of_collection, source, subset_flags, switch
from pipelines.cli.process import command, printed
from pipelines.cli.terminal_map import Style
from rasteret_beam import __version__
from rasteret_beam.collection.collection import load
from rasteret_beam.errors import OutputError

EPILOG = """
examples:
  python -m pipelines.inspect_collection collection/
  python -m pipelines.inspect_collection aef/v1-annual --bbox 11,48,12,49 --html munich.html
  python -m pipelines.inspect_collection gs://bucket/collection --json | jq .records

No raster is opened.

Exit codes: 0, the collection is shown. 1, it cannot be read. 2, a flag is wrong.
"""

ARGUMENTS = {"access=": "--anonymous and --requester_pays", "path_or_dataset_id is": "COLLECTION is"}
"""Arguments of the library that have a flag of another name."""


def parser() -> Parser:
    """The command's flags."""
    flags = Parser("inspect_collection", __doc__ or "", EPILOG, ARGUMENTS, needed="COLLECTION", runs_job=False)
    collection = flags.add_argument_group("collection")
    collection.add_argument(
        "collection",
        metavar="COLLECTION",
        help="folder or file of the collection, local, in a bucket or on the web, or an id in the catalogue",
    )
    subset_flags(collection)
    access_flags(collection, "the collection")
    outputs = flags.add_argument_group("outputs")
    outputs.add_argument(
        "--html",
        type=source,
        metavar="FILE",
        help="also write a page with maps and charts, which needs no network; replaces an existing file",
    )
    switch(outputs, "--json", "print the facts as JSON, without a map")
    return flags


def style() -> Style:
    """What standard output can show."""
    encoding = sys.stdout.encoding or "utf-8"
    try:
        "⣿│…".encode(encoding)
        unicode = True
    except (UnicodeEncodeError, LookupError):
        unicode = False
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM", "dumb") != "dumb"
    return Style(shutil.get_terminal_size().columns, unicode, colour)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; gives its exit code."""
    flags, _ = parser().parse(argv)
    collection = load(flags.collection, access=access_of_collection(flags))
    collection = collection.narrowed(bbox=flags.bbox, date_range=flags.date_range)
    facts = collection.describe()
    if flags.html:
        _write(flags.html, collection_page(collection, facts, f"rasteret_beam {__version__}"))
    if flags.json:
        return printed(json.dumps(_plain(facts), indent=2, ensure_ascii=False))
    text = collection_text(collection, facts, style())
    return printed(f"{text}\n\npage{'':8}{flags.html}" if flags.html else text)


def _plain(value: Any) -> Any:
    """Facts as JSON has them: dates as ISO text, and numbers that it lacks as text."""
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _write(path: str, page: str) -> None:
    if "://" in path:
        raise OutputError(f"--html {path} is not on this machine; give a local path, and copy the page")
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(page, encoding="utf-8")
    except OSError as error:
        raise OutputError(f"--html {path} cannot be written: {error.strerror or error}") from error


if __name__ == "__main__":
    command(main)
