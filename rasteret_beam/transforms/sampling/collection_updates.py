"""A collection that grows while a stream runs, as a slowly updating side input.

Every window of the stream has one version of the collection, for routing and for sampling: that of the window of
the updates in which it ends. So a tile's key means the same before and after the shuffle, for late points too.

Windows that end before the updates begin have the version that was there when the pipeline was built. No side input
brings it: Flink keeps an element back until a side input has a value for its window, and the windows of the past
cannot all have one.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import KW_ONLY, dataclass
from functools import lru_cache, partial
from typing import Any, TypeAlias

import apache_beam as beam
import pyarrow as pa
from apache_beam.transforms.window import FixedWindows, GlobalWindows
from apache_beam.utils.timestamp import MAX_TIMESTAMP, Timestamp

from rasteret_beam.collection.collection import Collection
from rasteret_beam.collection.parquet.versions import CollectionVersion, first_version, look
from rasteret_beam.errors import InputError
from rasteret_beam.model import TileKey
from rasteret_beam.schema import VERSION_KEY
from rasteret_beam.transforms.sampling.outputs import together
from rasteret_beam.transforms.sampling.polling import LookFn

EARLIER = "earlier"
LATER = "later"


class VersionWindows(FixedWindows):
    """Fixed windows, each of which has a version from ``begins`` (seconds since 1970) on; runners see the former."""

    def __init__(self, every: int, begins: int):
        super().__init__(every)
        self.begins = begins

    def __eq__(self, other: object) -> bool:
        return isinstance(other, VersionWindows) and (self.size, self.begins) == (other.size, other.begins)

    def __hash__(self) -> int:
        return hash((self.size, self.begins))


@dataclass(eq=False)
class CollectionUpdates(beam.PTransform):
    """Look at a collection again and again; gives its versions, for ``SamplePoints(..., updates=...)``.

    The files of the collection are listed once in each window of ``every`` seconds, soon after
    it has begun, from the window on in which the pipeline was built. Points whose own windows end
    in it are sampled from the files that were there then. A collection grows by files beside those
    that are there (``more.export(folder + "/more")``): one that is written anew or taken away ends
    the job.

    Parameters
    ----------
    collection : Collection
        With a path.
    every : int
        Seconds of processing time, and width of the windows of the versions.
    until : Timestamp, optional
        When to stop; by default never. Points of later windows are sampled from the files that were there when the
        pipeline was built.
    allowed_lateness : int
        That of the points, in seconds, for runners that forget side inputs after it. (Prism instead
        waits for it before it gives a window's first point on: leave it out there.)

    Yields
    ------
    str
        The text of a :class:`rasteret_beam.collection.parquet.versions.CollectionVersion`.

    Raises
    ------
    InputError
        When applied: the collection is in memory.
    """

    collection: Collection
    _: KW_ONLY
    every: int = 600
    until: Any = MAX_TIMESTAMP
    allowed_lateness: int = 0

    def __post_init__(self) -> None:
        if self.every < 1:
            raise InputError(f"every is {self.every}; versions need windows of 1 second or more")

    def expand(self, begin: Any) -> beam.PCollection[str]:
        first_version(self.collection)
        begins = math.floor(time.time() / self.every) * self.every
        looking = LookFn(partial(_look, self.collection), begins, self.every, Timestamp.of(self.until))
        return (
            begin
            | beam.Impulse()
            | "Look" >> beam.ParDo(looking).with_output_types(str)
            | beam.WindowInto(VersionWindows(self.every, begins), allowed_lateness=self.allowed_lateness)
        )


def _look(collection: Collection) -> str:
    return look(str(collection.path), collection.access).text


@dataclass(frozen=True)
class VersionOf:
    """In place of updates: what a DoFn is told of the version of rows, a text or a side input."""

    version: Any


Updates: TypeAlias = beam.PCollection | VersionOf | None
"""Versions of a collection that grows, as texts; None of one that does not."""


def told(version: VersionOf | None) -> dict[str, Any]:
    """Arguments of a DoFn that is told of the version."""
    return {} if version is None else {"version": version.version}


def by_version(
    rows: beam.PCollection,
    updates: Updates,
    first: CollectionVersion | None,
    step: Callable[[beam.PCollection, VersionOf | None], Any],
) -> Any:
    """Apply a step to rows; where the collection grows, with their version.

    Rows of windows before the updates go apart, with the first version; ``first`` is None where nothing grows.

    Updates that :class:`CollectionUpdates` did not make may lack a version for any window, and then the first is
    taken; on Flink this window waits for ever.

    Raises
    ------
    InputError
        As :func:`check_updates`.
    """
    if first is None:
        return step(rows, None)
    if isinstance(updates, VersionOf):
        return step(rows, updates)
    check_updates(rows, updates)
    assert updates is not None
    versions = VersionOf(beam.pvalue.AsSingleton(updates, default_value=first.text))
    windows = updates.windowing.windowfn
    if not isinstance(windows, VersionWindows):
        return step(rows, versions)
    parts = rows | "SplitByVersion" >> beam.ParDo(_SplitFn(windows.begins)).with_outputs(EARLIER, LATER)
    for part in (EARLIER, LATER):
        parts[part].element_type = rows.element_type
    earlier = parts[EARLIER] | "Earlier" >> _Step(step, VersionOf(first.text))
    later = parts[LATER] | "Later" >> _Step(step, versions)
    return together(earlier, later)


class _SplitFn(beam.DoFn):
    """Rows of windows that end before the updates begin, and the others."""

    def __init__(self, begins: int):
        self.begins = Timestamp(begins)

    def process(self, row: Any, window: Any = beam.DoFn.WindowParam) -> Iterator[Any]:
        yield beam.pvalue.TaggedOutput(EARLIER if window.max_timestamp() < self.begins else LATER, row)


@dataclass(eq=False)
class _Step(beam.PTransform):
    """A step as a transform, so that its parts have separate names."""

    step: Callable[[beam.PCollection, VersionOf | None], Any]
    version: VersionOf

    def expand(self, rows: beam.PCollection) -> Any:
        return self.step(rows, self.version)


def check_updates(rows: beam.PCollection, updates: beam.PCollection[str] | None) -> None:
    """Refuse windows in which routing and sampling could see two versions.

    Raises
    ------
    InputError
    """
    windows = rows.windowing.windowfn
    if isinstance(windows, GlobalWindows) or windows.is_merging():
        raise InputError(
            f"updates are given, but the points are in {type(windows).__name__}, which do not each belong to one "
            "version of the collection; use FixedWindows or SlidingWindows"
        )
    if updates is None or isinstance(updates.windowing.windowfn, GlobalWindows):
        raise InputError(
            "the updates are in the global window, which never ends; make them with CollectionUpdates, or give them "
            "FixedWindows"
        )


@lru_cache(maxsize=8)
def _parsed(text: str) -> CollectionVersion:
    return CollectionVersion.of(text)


def parsed(text: str | None) -> CollectionVersion | None:
    """The version of a text, parsed once for all batches of its windows."""
    return None if text is None else _parsed(text)


def with_version(
    chunks: Iterable[tuple[TileKey, pa.RecordBatch]], version: CollectionVersion
) -> Iterator[tuple[TileKey, pa.RecordBatch]]:
    """Chunks that say which version they were routed by."""
    before = stamped = None
    for key, chunk in chunks:
        if chunk is not before:  # one object comes for several records, and is encoded once
            metadata = (chunk.schema.metadata or {}) | {VERSION_KEY: version.digest.encode()}
            before, stamped = chunk, chunk.replace_schema_metadata(metadata)
        yield key, stamped


def check_version(routed: str | None, seen: CollectionVersion | None) -> None:
    """Refuse to sample points from another version than they were routed by: keys would mean other grids.

    Raises
    ------
    InputError
    """
    sampled = None if seen is None else seen.digest
    if routed != sampled:
        raise InputError(
            f"points were routed by version {routed} of the collection, but would be sampled from version {sampled}: "
            "KeyByRecordAndTile and SampleTiles need the same updates, and updates need the allowed_lateness of the "
            "points"
        )
