"""Tiles of a chip job that cannot be read: given up with their chips, counted, written, and tried again."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import rasterio.features
import shapely
import tifffile

from pipelines.read_chips import main
from rasteret_beam import (
    ChipOptions,
    Collection,
    ReadChipDeadLetters,
    ReadChips,
    ReadPolygons,
    WriteChipsToParquet,
    build_from_cogs,
    decode_chip,
    metrics,
)
from rasteret_beam.errors import InputError, TileReadError
from rasteret_beam.kernels.sampling.dead_letters import OF_CHIPS, points_of
from rasteret_beam.schema import CHIP_DEAD_LETTER_SCHEMA, CHIP_WINDOW, chips_schema, unmatched_schema
from tests.support.commands import execute
from tests.support.pipelines import run
from tests.support.polygons import on_raster, oracle
from tests.support.rasters import RasterCase, damage_tile

BANDS = ["B1", "B2"]
KEY = ["geometry_id", "record_id", "band", "window_row", "window_col"]
ORDER = [(name, "ascending") for name in KEY]
OPTIONS = {"COMPRESS": "DEFLATE", "INTERLEAVE": "BAND"}
DAMAGED = 5  # tile (1, 1) of 4 across, of the first band
OUTSIDE = 60  # the last polygon


@dataclass(frozen=True)
class Scene:
    """A file of 203 x 157 pixels in tiles of 64, its collection, and the polygons; and the rows before the damage."""

    folder: Path
    collection: Collection
    polygons: pa.Table
    before: pa.Table

    def mend(self) -> None:
        shutil.copy(self.folder / "good.tif", self.folder / "scene.tif")

    def over_tile(self) -> set[int]:
        """The polygons whose crop reaches into tile (1, 1), by rasterio's windows."""
        with rasterio.open(self.folder / "good.tif") as dataset:
            crops = [
                rasterio.features.geometry_window(dataset, [shape])
                for shape in shapely.from_wkb(self.polygons["geometry"].to_pylist()[:OUTSIDE])
            ]
        return {
            number
            for number, crop in enumerate(crops)
            if crop.row_off < 128 and crop.row_off + crop.height > 64
            if crop.col_off < 128 and crop.col_off + crop.width > 64
        }


def table_of(prefix: Path) -> pa.Table:
    files = sorted(prefix.parent.glob(f"{prefix.name}-*-of-*.parquet"))
    return pa.concat_tables(pq.read_table(file) for file in files)


def chips_of(prefix: Path) -> pa.Table:
    return table_of(prefix).sort_by(ORDER)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    folder = tmp_path_factory.mktemp("scene")
    path = RasterCase(name="scene", dtype="int16", count=2, nodata=7, gaps=7, options=OPTIONS).write(folder)
    collection = build_from_cogs([path])
    collection.export(folder / "collection")
    rng = np.random.default_rng(1)
    at = rng.uniform([0, 0], [203, 157], (OUTSIDE, 2))
    boxes = [shapely.box(*place, *(place + rng.uniform(0.5, 40, 2))) for place in at]
    shapes = [*(on_raster(path, box) for box in boxes), shapely.box(0, 0, 9, 9)]
    names = [f"plot {number}" for number in range(OUTSIDE + 1)]
    polygons = pa.table({"geometry": shapely.to_wkb(shapes), "plot": names})
    pq.write_table(polygons, folder / "polygons.parquet")
    chips(collection, polygons, folder / "before")
    shutil.copy(path, folder / "good.tif")
    return Scene(folder, collection, polygons, chips_of(folder / "before"))


@pytest.fixture
def scene(made: Scene) -> Scene:
    """One tile of the first band is damaged."""
    made.mend()
    damage_tile(made.folder / "scene.tif", DAMAGED)
    return made


def chips(collection: Collection, polygons: pa.Table, prefix: Path, **how: Any) -> dict[str, int]:
    """Read chips into files: chips, and beside them unmatched polygons and dead letters."""

    def build(pipeline: beam.Pipeline) -> None:
        given = pipeline | ReadPolygons(polygons, geometry_crs=32631)
        found = given | ReadChips(collection, BANDS, with_unmatched=True, **how)
        write(found, prefix)
        left = WriteChipsToParquet(f"{prefix}_left", schema=unmatched_schema())
        found.unmatched | "WriteUnmatched" >> left

    return run(build)


def write(found: Any, prefix: Path) -> None:
    found.chips | "WriteChips" >> WriteChipsToParquet(str(prefix), schema=chips_schema([pa.field("plot", pa.string())]))
    if found.dead_letters is not None:
        letters = WriteChipsToParquet(f"{prefix}_dead", schema=CHIP_DEAD_LETTER_SCHEMA)
        found.dead_letters | "WriteDeadLetters" >> letters


def again(scene: Scene, prefix: Path, letters: Path, **how: Any) -> dict[str, int]:
    def build(pipeline: beam.Pipeline) -> None:
        read = ReadChipDeadLetters(scene.collection, f"{letters}_dead-*.parquet", on_error="dead_letter")
        write(pipeline | read, prefix)

    return run(build)


def test_only_the_chips_over_the_tile_are_missing(scene: Scene, tmp_path: Path) -> None:
    counts = chips(scene.collection, scene.polygons, tmp_path / "first", on_error="dead_letter")
    lost = pc.and_(
        pc.is_in(scene.before["geometry_id"], pa.array(sorted(scene.over_tile()), pa.int64())),
        pc.equal(scene.before["band"], "B1"),
    )
    assert 10 < pc.sum(lost).as_py() < OUTSIDE
    assert chips_of(tmp_path / "first").equals(scene.before.filter(pc.invert(lost)))
    letters = table_of(tmp_path / "first_dead")
    path = str(scene.folder / "scene.tif")
    for letter in letters.to_pylist():
        names = ("record_id", "band", "tile_row", "tile_col", "href", "error", "attempts")
        assert [letter[name] for name in names] == ["scene", "B1", 1, 1, path, "DecodeError", 1]
        assert letter["message"].startswith(f"record 'scene', band B1: {path}, tile (1, 1): it cannot be decoded: ")
    given_up = sorted(number for numbers in letters["geometry_ids"].to_pylist() for number in numbers)
    assert given_up == scene.before.filter(lost)["geometry_id"].to_pylist() == sorted(scene.over_tile())
    check_accounts(counts, tmp_path / "first", OUTSIDE + 1)
    assert (counts[metrics.DEAD_LETTERS], counts[metrics.CHIPS_DEAD_LETTERED]) == (len(letters), len(given_up))


def check_accounts(counts: dict[str, int], prefix: Path, polygons: int) -> None:
    """Every polygon is unmatched or matched; every chip of a matched one is a row, or in one dead letter."""
    rows, letters, left = chips_of(prefix), table_of(Path(f"{prefix}_dead")), table_of(Path(f"{prefix}_left"))
    lost = [number for numbers in letters["geometry_ids"].to_pylist() for number in numbers]
    assert counts[metrics.CHIPS_ROUTED] == len(rows) + len(lost)
    assert counts.get(metrics.CHIPS_OUT, 0) == len(rows)
    assert counts.get(metrics.CHIPS_DEAD_LETTERED, 0) == len(lost)
    there = {*rows["geometry_id"].to_pylist(), *lost}
    assert there.isdisjoint(left["geometry_id"].to_pylist())
    assert there | set(left["geometry_id"].to_pylist()) == set(range(polygons))
    assert counts[metrics.ROWS_WRITTEN] == len(rows) + len(letters) + len(left)


@pytest.mark.parametrize(
    "how",
    [
        pytest.param({"match": "latest"}, id="latest"),
        pytest.param({"all_touched": True, "fill": np.int16(-3)}, id="filled", marks=pytest.mark.slow),
        pytest.param({"max_chip_pixels": 100}, id="cut"),
    ],
)
def test_trying_again_gives_just_the_missing_rows(scene: Scene, tmp_path: Path, how: dict[str, Any]) -> None:
    counts = chips(scene.collection, scene.polygons, tmp_path / "first", on_error="dead_letter", **how)
    check_accounts(counts, tmp_path / "first", OUTSIDE + 1)
    scene.mend()
    counts = again(scene, tmp_path / "again", tmp_path / "first")
    assert counts[metrics.CHIPS_ROUTED] == counts[metrics.CHIPS_OUT] == len(chips_of(tmp_path / "again")) > 0
    assert not len(table_of(tmp_path / "again_dead"))
    chips(scene.collection, scene.polygons, tmp_path / "whole", **how)
    both = pa.concat_tables([chips_of(tmp_path / "first"), chips_of(tmp_path / "again")]).sort_by(ORDER)
    assert both.equals(chips_of(tmp_path / "whole"))
    shapes = shapely.from_wkb(scene.polygons["geometry"].to_pylist())
    for row in chips_of(tmp_path / "again").to_pylist() if "match" in how else ():
        expected = oracle(scene.folder / "good.tif", shapes[row["geometry_id"]], indexes=1)
        np.testing.assert_array_equal(decode_chip(row)[0], expected, strict=True)


def test_what_fails_again_is_given_up_again(scene: Scene, tmp_path: Path) -> None:
    chips(scene.collection, scene.polygons, tmp_path / "first", on_error="dead_letter", fill=-3, all_touched=True)
    counts = again(scene, tmp_path / "again", tmp_path / "first")
    assert counts[metrics.CHIPS_DEAD_LETTERED] == counts[metrics.CHIPS_ROUTED] > 0
    assert metrics.CHIPS_OUT not in counts
    scene.mend()
    again(scene, tmp_path / "third", tmp_path / "again")
    chips(scene.collection, scene.polygons, tmp_path / "whole", fill=-3, all_touched=True)
    both = pa.concat_tables([chips_of(tmp_path / "first"), chips_of(tmp_path / "third")]).sort_by(ORDER)
    assert both.equals(chips_of(tmp_path / "whole"))


def test_a_file_that_is_gone(scene: Scene, tmp_path: Path) -> None:
    (scene.folder / "scene.tif").unlink()
    counts = chips(scene.collection, scene.polygons, tmp_path / "first", on_error="dead_letter")
    assert not len(chips_of(tmp_path / "first"))
    check_accounts(counts, tmp_path / "first", OUTSIDE + 1)
    letters = table_of(tmp_path / "first_dead").to_pylist()
    assert {letter["message"].rpartition(": ")[2] for letter in letters} == {"no such file"}
    assert {letter["band"] for letter in letters} == {"B1", "B2"}


def test_a_mask_that_cannot_be_read(tmp_path: Path) -> None:
    path = RasterCase(name="masked", dtype="int16", masked=True, options={"COMPRESS": "DEFLATE"}).write(tmp_path)
    collection = build_from_cogs([path])
    shapes = [on_raster(path, shapely.box(60, 60, 70, 70)), on_raster(path, shapely.box(150, 10, 160, 30))]
    polygons = pa.table({"geometry": shapely.to_wkb(shapes), "plot": ["a", "b"]})
    with tifffile.TiffFile(path) as file:
        start, length = file.pages[1].dataoffsets[0], file.pages[1].databytecounts[0]
    content = bytearray(path.read_bytes())
    content[start : start + length] = b"\xff" * length
    path.write_bytes(content)
    with pytest.raises(TileReadError, match=r"mask of tile \(0, 0\)"):
        collection.get_numpy(shapes[:1], ["B1"], geometry_crs=32631)

    def build(pipeline: beam.Pipeline) -> None:
        given = pipeline | ReadPolygons(polygons, geometry_crs=32631)
        write(given | ReadChips(collection, ["B1"], on_error="dead_letter"), tmp_path / "first")

    counts = run(build)
    assert counts[metrics.CHIPS_DEAD_LETTERED] == counts[metrics.CHIPS_OUT] == 1
    (letter,) = table_of(tmp_path / "first_dead").to_pylist()
    assert letter["geometry_ids"] == [0] and "mask of tile (0, 0): " in letter["message"]
    (row,) = chips_of(tmp_path / "first").to_pylist()
    with rasterio.open(path) as dataset:
        np.testing.assert_array_equal(decode_chip(row)[1], dataset.read_masks(1, window=((10, 30), (150, 160))) > 0)


def test_a_letter_holds_windows_and_columns(scene: Scene, tmp_path: Path) -> None:
    chips(scene.collection, scene.polygons, tmp_path / "first", on_error="dead_letter")
    letters = table_of(tmp_path / "first_dead").combine_chunks().to_batches()[0]
    held = points_of(letters, 0, OF_CHIPS)
    assert held["geometry_id"].to_pylist() == letters["geometry_ids"][0].as_py()
    assert held["plot"].to_pylist() == [f"plot {number}" for number in held["geometry_id"].to_pylist()]
    windows = zip(*(held[name].to_pylist() for name in CHIP_WINDOW[:4]), strict=True)
    before = {row["geometry_id"]: row for row in scene.before.to_pylist()}
    for number, window in zip(held["geometry_id"].to_pylist(), windows, strict=True):
        row = before[number]
        assert window == (row["window_row"], row["window_col"], *row["shape"])


def test_without_dead_letters_the_job_fails(scene: Scene, tmp_path: Path) -> None:
    with pytest.raises(Exception, match=r"band B1: .*scene\.tif, tile \(1, 1\): it cannot be decoded"):
        chips(scene.collection, scene.polygons, tmp_path / "first")
    assert not list(tmp_path.glob("first-*"))


def test_a_collection_with_other_pixels_is_refused(scene: Scene, tmp_path: Path) -> None:
    chips(scene.collection, scene.polygons, tmp_path / "first", on_error="dead_letter")
    other = RasterCase(name="scene", dtype="int16", count=2, width=204, options=OPTIONS).write(tmp_path)

    def build(pipeline: beam.Pipeline) -> None:
        letters = pipeline | ReadChipDeadLetters(build_from_cogs([other]), f"{tmp_path}/first_dead-*.parquet")
        letters | WriteChipsToParquet(str(tmp_path / "again"))

    with pytest.raises(Exception, match=r"has windows of 203 x 157 pixels .* but the collection has 204 x 157 pixels"):
        run(build)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"on_error": "ignore"}, r"on_error is 'ignore'; it can be one of \('raise', 'dead_letter'\)"),
        ({"on_error": None}, "on_error is None"),
    ],
)
def test_unusable_options(scene: Scene, options: dict[str, Any], message: str) -> None:
    for make in (lambda: ReadChips(scene.collection, BANDS, **options), lambda: ChipOptions(**options)):
        with pytest.raises(InputError, match=message):
            make()


class TestCommand:
    @pytest.fixture
    def flags(self, scene: Scene) -> list[str]:
        given = [f"--polygons={scene.folder}/polygons.parquet", "--geometry_crs=32631"]
        return [*given, f"--collection={scene.folder}/collection", "--bands=B1,B2"]

    def test_dead_letters_and_retry(self, flags: list[str], scene: Scene, tmp_path: Path) -> None:
        lost = len(scene.over_tile())
        outputs = [f"--output={tmp_path}/first", f"--dead_letter={tmp_path}/left", f"--geotiff={tmp_path}/tiffs"]
        first = execute(main, *flags, *outputs, f"--unmatched={tmp_path}/none")
        assert first.code == 3
        assert first.figures["chips on them"] == lost and first.figures["rows"] == len(scene.before) - lost
        given_up = first.figures["tiles given up"]
        hint = f"warning: {given_up} tile(s) could not be read; try them again with --retry '{tmp_path}/left-*.parquet'"
        assert hint in first.err
        assert len(list((tmp_path / "tiffs").glob("*.tif"))) == len(scene.before) - lost
        scene.mend()
        retry = [f"--retry={tmp_path}/left-*.parquet", f"--collection={scene.folder}/collection"]
        second = execute(main, *retry, f"--output={tmp_path}/second", f"--geotiff={tmp_path}/more")
        assert (second.code, second.err) == (0, "")
        assert second.figures["rows"] == lost == len(list((tmp_path / "more").glob("*.tif")))
        both = pa.concat_tables([chips_of(tmp_path / "first"), chips_of(tmp_path / "second")]).sort_by(ORDER)
        assert both.drop_columns(["collection"]).equals(scene.before.drop_columns(["collection"]))  # it has a name now

    def test_without_failures_the_file_is_there_and_empty(self, flags: list[str], scene: Scene, tmp_path: Path) -> None:
        scene.mend()
        done = execute(main, *flags, f"--output={tmp_path}/all", f"--dead_letter={tmp_path}/left")
        assert (done.code, done.err) == (0, "")
        assert pq.read_table(tmp_path / "left-00000-of-00001.parquet").schema == CHIP_DEAD_LETTER_SCHEMA
        empty = execute(main, f"--retry={tmp_path}/left-*.parquet", flags[2], f"--output={tmp_path}/none")
        assert empty.code == 1 and "holds no dead letters: there is nothing to try again" in empty.err

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["--retry={folder}/polygons.parquet"], "holds no dead letters: its columns are geometry, plot"),
            (["--retry={folder}/gone.parquet"], "there is no file, folder or match of"),
            (["--retry={folder}/polygons.parquet", "--bands=B1"], "--bands does not go with --retry"),
            (["--retry={folder}/polygons.parquet", "--fill=3"], "--fill does not go with --retry"),
            (["--retry={folder}/polygons.parquet", "--all_touched"], "--all_touched does not go with --retry"),
            (["--retry={folder}/polygons.parquet", "--match=latest"], "--match does not go with --retry"),
        ],
    )
    def test_unusable_letters(self, scene: Scene, tmp_path: Path, words: list[str], message: str) -> None:
        given = [word.format(folder=scene.folder) for word in words]
        outcome = execute(main, *given, f"--collection={scene.folder}/collection", f"--output={tmp_path}/o")
        assert outcome.code == 1 and message in outcome.err and len(outcome.err.splitlines()) == 1

    @pytest.mark.parametrize(
        ("chosen", "more", "code", "message"),
        [
            (slice(None), ["--retry=x"], 2, "not allowed with argument --polygons"),
            (slice(1, None), [], 2, "one of the arguments --polygons --retry is required"),
            (slice(0, 3), [], 2, "the following arguments are required: --bands"),
            (slice(None), ["--dead_letter={folder}/o"], 1, "--output and --dead_letter are both"),
        ],
    )
    def test_flags_that_do_not_go_together(
        self, flags: list[str], tmp_path: Path, chosen: slice, more: list[str], code: int, message: str
    ) -> None:
        given = [word.format(folder=tmp_path) for word in more]
        outcome = execute(main, *flags[chosen], *given, f"--output={tmp_path}/o")
        assert outcome.code == code and message in outcome.err


def test_outputs_by_what_is_asked_for(scene: Scene) -> None:
    given: Callable[..., Any] = lambda pipeline, **how: (  # noqa: E731
        pipeline | ReadPolygons(scene.polygons, geometry_crs=32631) | ReadChips(scene.collection, BANDS, **how)
    )
    assert isinstance(given(beam.Pipeline()), beam.PCollection)
    dead = given(beam.Pipeline(), on_error="dead_letter")
    assert dead.unmatched is None and dead.dead_letters is not None
    left = given(beam.Pipeline(), with_unmatched=True)
    assert left.unmatched is not None and left.dead_letters is None
