"""What static type checkers see of the options is made of their definitions, and is checked in calls."""

import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest

import rasteret_beam
from rasteret_beam import Collection
from templates import keywords
from tests.support.paths import ROOT

FACES = [
    *(
        getattr(Collection, name)
        for name in ("sample_points", "sample_batches", "plan", "get_numpy", "zonal_statistics")
    ),
    *(getattr(rasteret_beam, name) for name in ("SamplePoints", "KeyByRecordAndTile", "SampleTiles")),
    *(getattr(rasteret_beam, name) for name in ("SampleDeadLetters", "ReadChips", "ReadChipDeadLetters")),
    *(getattr(rasteret_beam, name) for name in ("ZonalStatistics", "ZonalDeadLetters")),
]

SETTINGS = """
[mypy]
follow_imports = skip
[mypy-rasteret_beam.*]
follow_imports = silent
[mypy-numpy.*,obstore.*,pyarrow.*,pyproj.*,shapely.*]
follow_imports = skip
follow_imports_for_stubs = true
"""
"""Of the modules that are imported, read this package alone, which takes 3 s instead of 12."""

CALLS = """
from typing import Any, Unpack

from rasteret_beam import (
    ChipOptions,
    Collection,
    KeyByRecordAndTile,
    Quality,
    ReadChipDeadLetters,
    ReadChips,
    SampleDeadLetters,
    SampleOptions,
    SamplePoints,
    SampleTiles,
    ZonalDeadLetters,
    ZonalOptions,
    ZonalStatistics,
    plan,
)
from rasteret_beam.keywords import SampleKeywords


def sampling(collection: Collection, **keywords: Unpack[SampleKeywords]) -> SamplePoints:
    return SamplePoints(collection, ["B04"], **keywords)


def right(collection: Collection, points: Any) -> None:
    collection.sample_points(points, ["B04"], geometry_crs=4326, match="latest", extra_columns=["href"])
    collection.sample_batches(points, ["B04"], options=SampleOptions(), max_distance_pixels=2)
    collection.plan(points, ["B04"], match="nearest", time_column="when", tolerance="3D")
    plan(collection, points, ["B04"], options=None)
    collection.sample_points(points, ["B04"], quality=Quality("SCL", exclude=[0, 1]))
    collection.sample_points(points, ["B04"], quality=["CLD <= 40", Quality("QA", fields={(8, 9): [3]})])
    collection.plan(points, ["B04"], quality="preset:hls")
    collection.get_numpy(points, ["B04"], all_touched=True, fill=0)
    sampling(collection, match="all")
    SamplePoints(collection, ["B04"], on_error="dead_letter")
    KeyByRecordAndTile(collection, ["B04"], overlap="first")
    SampleTiles(collection, ["B04"], value_type="raw", options=SampleOptions())
    SampleDeadLetters(collection, "dead", fallback="ring")
    ReadChips(collection, ["B04"], on_invalid="skip")
    ReadChipDeadLetters(collection, "dead", cache_bytes=1 << 24, options=ChipOptions())
    collection.zonal_statistics(points, ["B04"], statistics=["mean"], coverage="fraction", merge="datetime")
    ZonalStatistics(collection, ["B04"], join="left", on_error="dead_letter")
    ZonalDeadLetters(collection, "dead", options=ZonalOptions())


def wrong(collection: Collection, points: Any) -> None:
    collection.sample_points(points, ["B04"], mach="latest")  # call-arg "mach"
    collection.sample_points(points, ["B04"], match="newest")  # arg-type "match"
    collection.sample_points(points, ["B04"], on_error="raise")  # call-arg "on_error"
    collection.sample_points(points)  # call-arg few arguments
    collection.sample_batches(points, ["B04"], layout="wide")  # arg-type "layout"
    collection.plan(points, ["B04"], layout="long")  # call-arg "layout"
    collection.sample_points(points, ["B04"], quality=[3])  # list-item "int"
    plan(collection, points, ["B04"], limit="two")  # arg-type "limit"
    collection.get_numpy(points, ["B04"], max_chip_pixels=9)  # call-arg "max_chip_pixels"
    collection.get_numpy(points, ["B04"], options=SampleOptions())  # arg-type "options"
    sampling(collection, mach="all")  # call-arg "mach"
    SamplePoints(collection, ["B04"], mach="all")  # call-arg "mach"
    KeyByRecordAndTile(collection, ["B04"], overlap="last")  # arg-type "overlap"
    SampleTiles(collection, ["B04"], value_type="int16")  # arg-type "value_type"
    SampleDeadLetters(collection, "dead", match="latest")  # call-arg "match"
    ReadChips(collection, ["B04"], on_invalid="mend")  # arg-type "on_invalid"
    ReadChipDeadLetters(collection, "dead", fill=0)  # call-arg "fill"
    collection.zonal_statistics(points, ["B04"], coverage="center")  # arg-type "coverage"
    collection.zonal_statistics(points, ["B04"], on_invalid="skip")  # call-arg "on_invalid"
    ZonalStatistics(collection, ["B04"], merge="all")  # arg-type "merge"
    ZonalDeadLetters(collection, "dead", statistics=["mean"])  # call-arg "statistics"
"""


def test_the_module_is_made_of_the_definitions() -> None:
    assert keywords.FILE.read_text() == keywords.text(), "run `make templates`"


@pytest.mark.parametrize("face", FACES, ids=lambda face: face.__qualname__)
def test_a_face_is_written_with_the_options_that_it_takes(face: Any) -> None:
    """In order, with ``options`` last; the call's signature has them in place of ``**keywords``."""
    function = face.__init__ if isinstance(face, type) else face
    written = inspect.signature(function.__wrapped__).parameters
    called = inspect.signature(function).parameters
    (typed,) = get_args(written["keywords"].annotation)
    assert typed.__total__ is False
    assert [name for name in called if name not in written] == list(typed.__annotations__)
    assert list(typed.__annotations__)[-1] == "options"


@pytest.mark.slow
def test_mypy_checks_calls(tmp_path: Path) -> None:
    """A right call passes; an unknown keyword, a value that is no choice and a missing argument are errors."""
    settings, calls = tmp_path / "mypy.ini", tmp_path / "calls.py"
    settings.write_text(SETTINGS)
    calls.write_text(CALLS)
    command = [sys.executable, "-m", "mypy", f"--config-file={settings}", f"--cache-dir={tmp_path}", str(calls)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    found = re.findall(r"calls\.py:(\d+): error: (.*)  \[(.*)\]$", run.stdout, re.MULTILINE)
    marks = [(number, line.partition("  # ")[2]) for number, line in enumerate(CALLS.splitlines(), 1)]
    wanted = [(number, *mark.split(" ", 1)) for number, mark in marks if mark]
    assert [(int(line), code) for line, _, code in found] == [(line, code) for line, code, _ in wanted], run
    assert all(part in message for (_, message, _), (_, _, part) in zip(found, wanted, strict=True)), run.stdout
