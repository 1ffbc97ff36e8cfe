"""The subcommands of ``rasteret-beam``, and how the running command was called, for its usage, examples and errors.

Imports nothing but the standard library: ``rasteret-beam --help`` and the completion of a shell start fast.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

COMMAND = "rasteret-beam"


@dataclass(frozen=True)
class Subcommand:
    """A subcommand: its module in ``pipelines``, what it does, and whether it runs a job of Beam."""

    module: str
    summary: str
    runs_job: bool = True


SUBCOMMANDS = {
    "build": Subcommand("build_collection", "read the headers of raster files, or a catalog, into a collection"),
    "inspect": Subcommand("inspect_collection", "show the records, bands, dates and footprints of a collection", False),
    "plan": Subcommand("plan_sampling", "estimate the tiles, bytes, rows and memory of a sampling job"),
    "sample": Subcommand("sample_points", "sample a collection at a table of points"),
    "report": Subcommand("report", "make a page of the sample files of an earlier run", False),
    "chips": Subcommand("read_chips", "cut the pixels under polygons into Parquet and GeoTIFFs"),
    "zonal": Subcommand("zonal_statistics", "make statistics of the pixels in polygons"),
}
NAMES = {subcommand.module: name for name, subcommand in SUBCOMMANDS.items()}

MODULE = re.compile(rf"(?:python -m )?\bpipelines\.({'|'.join(NAMES)})\b")

_running: ContextVar[str | None] = ContextVar("running", default=None)


@contextmanager
def called_by_name(name: str) -> Iterator[None]:
    """While it is open, the running command is ``rasteret-beam NAME``."""
    before = _running.set(f"{COMMAND} {name}")
    try:
        yield
    finally:
        _running.reset(before)


def as_typed(text: str) -> str:
    """A text whose commands are in the spelling of the running one: ``rasteret-beam NAME`` or as they are."""
    return MODULE.sub(lambda found: f"{COMMAND} {NAMES[found[1]]}", text) if _running.get() else text


def error_line(message: object) -> str:
    """The line of an error; it begins with the command if that is ``rasteret-beam NAME``."""
    running = _running.get()
    return f"{running}: error: {message}" if running else f"error: {message}"
