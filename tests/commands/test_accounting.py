"""What a job has counted has to add up: one that loses or doubles rows on the way does not end well."""

import gc
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
from affine import Affine
from apache_beam.utils.windowed_value import WindowedValue

import rasteret_beam as rasteret
from pipelines import build_collection, read_chips, sample_points
from pipelines.cli.runner import accounting_error, summary
from rasteret_beam.transforms import build_collection as building
from rasteret_beam.transforms.chips import read_chips as chips
from rasteret_beam.transforms.polygons import reading
from rasteret_beam.transforms.sampling import keying, sampling
from rasteret_beam.transforms.sinks import geotiff as write_geotiff
from tests.support import rasters
from tests.support.commands import Outcome, as_flags, execute

pytestmark = pytest.mark.usefixtures("same_signal_handlers")

WEST, NORTH, PIXEL = 500_000.0, 4_500_000.0, 16.0
Tamper = Callable[[list[Any]], list[Any]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two scenes and their collection; points and polygons, of which the last of each is outside."""
    folder = tmp_path_factory.mktemp("accounting")
    transform = Affine(PIXEL, 0.0, WEST, 0.0, -PIXEL, NORTH)
    paths = [
        rasters.RasterCase(
            name=name, dtype="int16", transform=transform, count=1, width=128, height=96, tile=(64, 64)
        ).write(folder)
        for name in "ab"
    ]
    rasteret.build_from_cogs(paths, bands=["red"], name="two").export(folder / "collection")
    rng = np.random.default_rng(3)
    x, y = rng.uniform(WEST, WEST + 128 * PIXEL, 50), rng.uniform(NORTH - 96 * PIXEL, NORTH, 50)
    pq.write_table(pa.table({"x": [*x, 0.0], "y": [*y, 0.0]}), folder / "points.parquet")
    shapes = [*shapely.box(x[:5] - 40, y[:5] - 40, x[:5] + 40, y[:5] + 40), shapely.box(0, 0, 9, 9)]
    pq.write_table(pa.table({"geometry": shapely.to_wkb(shapes)}), folder / "polygons.parquet")
    return folder


def sampled(folder: Path, output: Path) -> Outcome:
    flags = {"points": folder / "points.parquet", "collection": folder / "collection", "bands": "red"}
    return execute(
        sample_points.main, *as_flags(**flags, geometry_crs=32631, output=output / "s", unsampled=output / "left")
    )


def chipped(folder: Path, output: Path, *more: str) -> Outcome:
    flags = {"polygons": folder / "polygons.parquet", "collection": folder / "collection", "bands": "red"}
    return execute(
        read_chips.main,
        *as_flags(
            **flags, geometry_crs=32631, output=output / "c", unmatched=output / "left", geotiff=output / "tiffs"
        ),
        *more,
    )


def built(folder: Path, output: Path) -> Outcome:
    return execute(build_collection.main, *as_flags(cogs=folder, output=output / "collection"))


def tampered(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, change: Tamper) -> None:
    """Let a step of a pipeline give something else than it should; what it counts stays the same."""
    original = getattr(owner, name)

    def wrong(*args: Any, **kwargs: Any) -> Iterator[Any]:
        yield from change(list(original(*args, **kwargs)))

    monkeypatch.setattr(owner, name, wrong)


def without_first_chunk(outputs: list[Any]) -> list[Any]:
    chunks = [one for one in outputs if isinstance(one, WindowedValue) and isinstance(one.value, tuple)]
    return [one for one in outputs if one is not chunks[0]] if chunks else outputs


@pytest.mark.parametrize(
    ("command", "figures"),
    [
        (sampled, {"points read": 51, "sampled": 50, "unsampled": 1, "rows": 100}),
        (chipped, {"polygons read": 6, "with chips": 5, "unmatched": 1, "rows": 10, "geotiff files": 10}),
        (built, {}),
    ],
)
def test_nothing_is_lost(
    folder: Path, tmp_path: Path, command: Callable[..., Outcome], figures: dict[str, int]
) -> None:
    outcome = command(folder, tmp_path)
    assert (outcome.code, outcome.err) == (0, "")
    assert {label: outcome.figures[label] for label in figures} == figures


CASES = {
    "chunk lost before the shuffle": (
        sampled,
        keying._RouteFn,
        "_emit",
        without_first_chunk,
        r"100 values were to be sampled, but \d\d were and",
    ),
    "batch of samples lost": (
        sampled,
        sampling.SampleFn,
        "_emit",
        lambda rows: rows[1:],
        r"10[01] rows were to be written, but \d+ were",
    ),
    "batch of samples doubled": (
        sampled,
        sampling.SampleFn,
        "_emit",
        lambda rows: rows[:1] + rows,
        r"101 rows were to be written, but 1\d\d were",
    ),
    "chips lost": (
        chipped,
        reading.PolygonFn,
        "_emit",
        lambda rows: rows[1:],
        r"11 rows were to be written, but \d+ were",
    ),
    "GeoTIFF lost": (
        chipped,
        write_geotiff,
        "_write",
        lambda files: files[:0],
        "10 chips were read, but 0 GeoTIFFs written",
    ),
    "record lost": (
        built,
        building,
        "_read_headers",
        lambda records: records[:1],
        "2 records were read, but 1 written,",
    ),
}


@pytest.mark.parametrize(("command", "owner", "step", "change", "message"), CASES.values(), ids=CASES)
def test_exit_code_of_a_job_that_does_not_add_up(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: Callable[..., Outcome],
    owner: Any,
    step: str,
    change: Tamper,
    message: str,
) -> None:
    tampered(monkeypatch, owner, step, change)
    outcome = command(folder, tmp_path)
    assert outcome.code == 1
    assert len(outcome.err.strip().splitlines()) == 1
    assert re.search("error: the output is in place but not complete: " + message, outcome.err), outcome.err


def test_a_group_of_places_that_is_lost(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = chipped(folder, tmp_path, "--skip_invalid", "--match=latest")
    assert (whole.code, whole.err, whole.figures["rows"]) == (0, "", 5)
    monkeypatch.setattr(chips, "read_place_group", lambda *group: iter(()))
    outcome = chipped(folder, tmp_path, "--skip_invalid", "--match=latest")
    assert outcome.code == 1 and "5 chips were to be read, but 0 were" in outcome.err


def test_values_left_out_add_up() -> None:
    counts = {"values_routed": 9, "values_sampled": 5, "values_dead_lettered": 1, "values_left_out": 3}
    assert accounting_error(counts) is None
    assert accounting_error(counts | {"values_left_out": 2}) == (
        "9 values were to be sampled, but 5 were and 1 were given up, 2 left out"
    )
    assert "values left out                                  3" in summary(counts, 0.0)


def test_garbage_is_collected_while_a_command_runs() -> None:
    gc.disable()
    try:
        assert execute(lambda argv: 0 if gc.isenabled() else 1).code == 0
    finally:
        gc.enable()
