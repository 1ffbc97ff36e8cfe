"""Tiles that cannot be read: given up with their points, counted, written, and tried again."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.sample_points import main
from rasteret_beam import (
    Collection,
    ReadPoints,
    SampleDeadLetters,
    SamplePoints,
    WriteSamplesToParquet,
    build_from_cogs,
    metrics,
)
from rasteret_beam.errors import InputError
from rasteret_beam.kernels.sampling.dead_letters import points_of
from rasteret_beam.schema import DEAD_LETTER_SCHEMA
from tests.support.commands import execute
from tests.support.pipelines import ORDER, XY, read, run
from tests.support.rasters import RasterCase, damage_tile

BANDS = ["B1", "B2"]
DAMAGED = 5  # tile (1, 1) of 4 across


@pytest.fixture
def damaged(tmp_path: Path) -> tuple[Collection, pa.Table, pa.Table]:
    """A collection one tile of whose first band is damaged, points, and the samples of before the damage."""
    options = {"COMPRESS": "DEFLATE", "INTERLEAVE": "BAND"}
    path = RasterCase(name="scene", dtype="int16", count=2, nodata=7, gaps=7, options=options).write(tmp_path)
    collection = build_from_cogs([path])
    collection.export(tmp_path / "collection")
    rng = np.random.default_rng(1)
    x, y = 500_000 + rng.uniform(0, 203 * 16, 400), 4_500_000 - rng.uniform(0, 157 * 16, 400)
    points = pa.table({"x": x, "y": y, "plot": [f"plot {number}" for number in range(400)]})
    before = collection.sample_points(points, BANDS, **XY).sort_by(ORDER)
    shutil.copy(path, tmp_path / "good.tif")
    damage_tile(path, DAMAGED)
    return collection, points, before


def in_damaged_tile(samples: pa.Table) -> np.ndarray:
    col = np.floor((samples["point_x"].to_numpy() - 500_000) / 16) // 64
    row = np.floor((4_500_000 - samples["point_y"].to_numpy()) / 16) // 64
    return (row == 1) & (col == 1) & (np.array(samples["band"].to_pylist()) == "B1")


def sample_and_letters(
    collection: Collection, points: pa.Table, folder: Path, **options: object
) -> tuple[pa.Table, pa.Table, dict[str, int]]:
    def build(pipeline: object) -> None:
        batches = pipeline | ReadPoints(points, **XY)  # type: ignore[operator]
        outputs = batches | SamplePoints(collection, BANDS, on_error="dead_letter", **options)
        outputs.samples | "Samples" >> WriteSamplesToParquet(str(folder / "samples"))
        outputs.dead_letters | "Letters" >> WriteSamplesToParquet(str(folder / "dead"), schema=DEAD_LETTER_SCHEMA)

    counts = run(build)
    letters = pa.concat_tables(pq.read_table(file) for file in sorted(folder.glob("dead-*.parquet")))
    return read(folder / "samples").sort_by(ORDER), letters, counts


def test_only_the_points_of_the_tile_are_missing(
    damaged: tuple[Collection, pa.Table, pa.Table], tmp_path: Path
) -> None:
    collection, points, before = damaged
    samples, letters, counts = sample_and_letters(collection, points, tmp_path)
    lost = in_damaged_tile(before)
    assert 0 < lost.sum() < 60
    assert samples.equals(before.filter(pa.array(~lost)))
    (letter,) = letters.to_pylist()
    path = str(tmp_path / "scene.tif")
    assert {name: letter[name] for name in ("record_id", "band", "tile_row", "tile_col", "href")} == {
        "record_id": "scene",
        "band": "B1",
        "tile_row": 1,
        "tile_col": 1,
        "href": path,
    }
    assert letter["error"] == "DecodeError" and letter["attempts"] == 1
    assert letter["message"].startswith(f"record 'scene', band B1: {path}, tile (1, 1): it cannot be decoded: ")
    assert sorted(letter["point_indexes"]) == before.filter(pa.array(lost))["point_index"].to_pylist()
    assert counts[metrics.DEAD_LETTERS] == 1
    assert counts[metrics.VALUES_DEAD_LETTERED] == lost.sum()
    assert counts[metrics.VALUES_ROUTED] == len(before) == counts[metrics.VALUES_SAMPLED] + lost.sum()


def test_trying_again_gives_just_the_missing_rows(
    damaged: tuple[Collection, pa.Table, pa.Table], tmp_path: Path
) -> None:
    collection, points, before = damaged
    samples, _, _ = sample_and_letters(collection, points, tmp_path)
    shutil.copy(tmp_path / "good.tif", tmp_path / "scene.tif")

    def again(pipeline: object) -> None:
        outputs = pipeline | SampleDeadLetters(collection, str(tmp_path / "dead-*.parquet"))  # type: ignore[operator]
        outputs.samples | WriteSamplesToParquet(str(tmp_path / "again"))

    counts = run(again)
    both = pa.concat_tables([samples, read(tmp_path / "again")]).sort_by(ORDER)
    assert both.equals(before)
    assert counts[metrics.VALUES_ROUTED] == counts[metrics.VALUES_SAMPLED] == in_damaged_tile(before).sum()


def test_windows_that_reach_into_the_tile_are_given_up_too(
    damaged: tuple[Collection, pa.Table, pa.Table], tmp_path: Path
) -> None:
    collection, points, _ = damaged
    around = {"max_distance_pixels": 3, "return_neighbourhood": "always"}
    samples, letters, counts = sample_and_letters(collection, points, tmp_path, **around)
    shutil.copy(tmp_path / "good.tif", tmp_path / "scene.tif")
    expected = collection.sample_points(points, BANDS, **XY, **around).sort_by(ORDER)
    col = np.floor((expected["point_x"].to_numpy() - 500_000) / 16)
    row = np.floor((4_500_000 - expected["point_y"].to_numpy()) / 16)
    first = np.array(expected["band"].to_pylist()) == "B1"
    lost = (row >= 61) & (row < 131) & (col >= 61) & (col < 131) & first
    left = expected.filter(pa.array(~lost))
    windows = "neighbourhood_values"
    assert samples.drop_columns([windows]).equals(left.drop_columns([windows]))
    np.testing.assert_array_equal(*(np.array(table[windows].to_pylist()) for table in (samples, left)))  # NaN too
    given_up = sorted(index for indexes in letters["point_indexes"].to_pylist() for index in indexes)
    assert given_up == expected.filter(pa.array(lost))["point_index"].to_pylist()
    assert counts[metrics.VALUES_DEAD_LETTERED] == lost.sum()


def test_an_unreadable_file_gives_up_its_tiles_one_by_one(
    damaged: tuple[Collection, pa.Table, pa.Table], tmp_path: Path
) -> None:
    collection, points, before = damaged
    (tmp_path / "scene.tif").unlink()
    samples, letters, _ = sample_and_letters(collection, points, tmp_path)
    assert len(samples) == 0 and len(letters) == 2 * 4 * 3
    assert {letter["message"].rpartition(": ")[2] for letter in letters.to_pylist()} == {"no such file"}
    assert sum(map(len, letters["point_indexes"].to_pylist())) == len(before)


def test_a_letter_holds_its_points_with_their_columns(
    damaged: tuple[Collection, pa.Table, pa.Table], tmp_path: Path
) -> None:
    collection, points, _ = damaged
    _, letters, _ = sample_and_letters(collection, points, tmp_path)
    held = points_of(letters.to_batches()[0], 0)
    assert held["plot"].to_pylist() == [f"plot {index}" for index in held["point_index"].to_pylist()]


class TestCommand:
    @pytest.fixture
    def flags(self, damaged: tuple[Collection, pa.Table, pa.Table], tmp_path: Path) -> list[str]:
        pq.write_table(damaged[1], tmp_path / "points.parquet")
        place = [f"--points={tmp_path}/points.parquet", "--x_column=x", "--y_column=y", "--geometry_crs=32631"]
        return [*place, f"--collection={tmp_path}/collection", "--bands=B1,B2"]

    def test_dead_letters_and_retry(
        self, flags: list[str], damaged: tuple[Collection, pa.Table, pa.Table], tmp_path: Path
    ) -> None:
        before = damaged[2]
        lost = int(in_damaged_tile(before).sum())
        first = execute(main, *flags, f"--output={tmp_path}/first", f"--dead_letter={tmp_path}/left")
        assert first.code == 3
        assert first.figures["tiles given up"] == 1 and first.figures["values in them"] == lost
        assert first.figures["rows"] == len(before) - lost
        hint = f"warning: 1 tile(s) could not be read; try them again with --retry '{tmp_path}/left-*.parquet'"
        assert hint in first.err
        shutil.copy(tmp_path / "good.tif", tmp_path / "scene.tif")
        retry = [f"--retry={tmp_path}/left-*.parquet", f"--collection={tmp_path}/collection"]
        second = execute(main, *retry, f"--output={tmp_path}/second")
        assert (second.code, second.err) == (0, "")
        assert second.figures["rows"] == lost
        both = pa.concat_tables([read(tmp_path / "first"), read(tmp_path / "second")]).sort_by(ORDER)
        assert both.drop_columns(["collection"]).equals(before.drop_columns(["collection"]))  # it has a name now

    def test_without_failures_the_file_is_there_and_empty(self, flags: list[str], tmp_path: Path) -> None:
        shutil.copy(tmp_path / "good.tif", tmp_path / "scene.tif")
        done = execute(main, *flags, f"--output={tmp_path}/all", f"--dead_letter={tmp_path}/left")
        assert (done.code, done.err) == (0, "")
        assert pq.read_table(tmp_path / "left-00000-of-00001.parquet").schema == DEAD_LETTER_SCHEMA
        empty = execute(main, f"--retry={tmp_path}/left-*.parquet", *flags[-2:-1], f"--output={tmp_path}/none")
        assert empty.code == 1 and "holds no dead letters: there is nothing to try again" in empty.err

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["--retry={folder}/points.parquet"], "holds no dead letters: its columns are x, y, plot"),
            (["--retry={folder}/gone.parquet"], "there is no file, folder or match of"),
            (["--retry={folder}/points.parquet", "--bands=B1"], "--bands does not go with --retry"),
        ],
    )
    def test_unusable_letters(self, flags: list[str], tmp_path: Path, words: list[str], message: str) -> None:
        given = [word.format(folder=tmp_path) for word in words]
        outcome = execute(main, *given, f"--collection={tmp_path}/collection", f"--output={tmp_path}/o")
        assert outcome.code == 1 and message in outcome.err and len(outcome.err.splitlines()) == 1

    def test_one_source_of_points(self, flags: list[str], tmp_path: Path) -> None:
        outcome = execute(main, *flags, f"--output={tmp_path}/o", f"--retry={tmp_path}/x")
        assert outcome.code == 2 and "not allowed with argument --points" in outcome.err
        neither = execute(main, *flags[1:], f"--output={tmp_path}/o")
        assert neither.code == 2 and "one of the arguments --points --points_table" in neither.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"on_error": "ignore"}, r"on_error is 'ignore'; it can be one of \('raise', 'dead_letter'\)"),
        ({"on_error": "dead_letter", "layout": "values"}, "layout is 'values', but on_error is 'dead_letter'"),
    ],
)
def test_unusable_options(
    damaged: tuple[Collection, pa.Table, pa.Table], options: dict[str, str], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        run(lambda pipeline: pipeline | ReadPoints(damaged[1], **XY) | SamplePoints(damaged[0], BANDS, **options))
