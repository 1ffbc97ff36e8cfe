"""``pipelines.zonal_statistics``: rows of the eager call, dead letters and their retry, errors, and its accounts."""

import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import shapely

from pipelines.zonal_statistics import main
from rasteret_beam import Collection, ZonalDeadLetters, build_from_cogs, metrics
from rasteret_beam.collection.eager import zonal_groups
from rasteret_beam.errors import InputError
from rasteret_beam.kernels.sampling.dead_letters import OF_ZONES, points_of
from rasteret_beam.schema import ZONAL_DEAD_LETTER_SCHEMA
from rasteret_beam.transforms.polygons import reading, routing
from tests.support.commands import execute
from tests.support.pipelines import run
from tests.support.polygons import on_raster
from tests.support.rasters import RasterCase, damage_tile
from tests.support.zonal_jobs import table_of, write, zonal, zones_of

pytestmark = pytest.mark.usefixtures("same_signal_handlers")

BANDS = ["B1", "B2"]
STATISTICS = ("count", "mean", "percentile_90")
OPTIONS = {"COMPRESS": "DEFLATE", "INTERLEAVE": "BAND"}
DAMAGED = 5  # tile (1, 1) of 4 across, of the first band
OUTSIDE = 30  # the last polygon


@dataclass(frozen=True)
class Scene:
    """A file of 203 x 157 pixels in tiles of 64, its collection, and the polygons; and the rows before the damage."""

    folder: Path
    collection: Collection
    polygons: pa.Table
    before: pa.Table
    over_tile: set[int]

    def mend(self) -> None:
        shutil.copy(self.folder / "good.tif", self.folder / "scene.tif")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    folder = tmp_path_factory.mktemp("scene")
    path = RasterCase(name="scene", dtype="int16", count=2, nodata=7, gaps=7, options=OPTIONS).write(folder)
    build_from_cogs([path], name="scene").export(folder / "collection")
    collection = build_from_cogs([path], name="scene")
    rng = np.random.default_rng(1)
    at = rng.uniform([0, 0], [203, 157], (OUTSIDE, 2))
    boxes = [shapely.box(*place, *(place + rng.uniform(2, 40, 2))) for place in at]
    shapes = [*(on_raster(path, box) for box in boxes), shapely.box(0, 0, 9, 9)]
    polygons = pa.table(
        {"geometry": shapely.to_wkb(shapes), "plot": [f"plot {number}" for number in range(OUTSIDE + 1)]}
    )
    pq.write_table(polygons, folder / "polygons.parquet")
    before = collection.zonal_statistics(polygons, BANDS, geometry_crs=32631, statistics=STATISTICS)
    tile = shapely.box(64, 64, 128, 128)
    with_centres = [len(_centres_in(box, tile)) > 0 for box in boxes]
    shutil.copy(path, folder / "good.tif")
    return Scene(folder, collection, polygons, before, set(np.flatnonzero(with_centres).tolist()))


def _centres_in(box: shapely.Geometry, tile: shapely.Geometry) -> np.ndarray:
    """Centres of pixels that lie in a box and in a tile, in pixels."""
    cols, rows = np.meshgrid(np.arange(64, 128) + 0.5, np.arange(64, 128) + 0.5)
    inside = shapely.contains_xy(box.intersection(tile), cols, rows)
    return np.argwhere(inside)


@pytest.fixture
def scene(made: Scene) -> Scene:
    """One tile of the first band is damaged."""
    made.mend()
    damage_tile(made.folder / "scene.tif", DAMAGED)
    return made


def again(scene: Scene, prefix: Path, letters: Path) -> dict[str, int]:
    read = ZonalDeadLetters(scene.collection, f"{letters}_dead-*.parquet", on_error="dead_letter")
    schema = scene.collection.zonal_schema(read.kept, read.options)
    return run(lambda pipeline: write(pipeline | read, prefix, schema, read.kept))


HOW: dict[str, dict[str, Any]] = {
    "plain": {"statistics": STATISTICS},
    "shares": {"statistics": ("mean", "sum"), "coverage": "fraction", "unscale": True, "scales": {"B1": (2.0, 1.0)}},
    "merged": {"statistics": ("count", "median"), "merge": "datetime"},
    "rules": {"statistics": ("count",), "quality": ["B2 >= 100"], "join": "left"},
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in ("plain", "merged") else pytest.mark.slow) for name in HOW]
)
def test_trying_again_gives_just_the_missing_rows(scene: Scene, tmp_path: Path, name: str) -> None:
    how = HOW[name]
    scene.mend()
    whole = scene.collection.zonal_statistics(scene.polygons, BANDS, geometry_crs=32631, **how)
    damage_tile(scene.folder / "scene.tif", DAMAGED)
    counts = zonal(scene.collection, scene.polygons, BANDS, tmp_path / "first", on_error="dead_letter", **how)
    rows, letters = zones_of(tmp_path / "first"), table_of(tmp_path / "first_dead")
    lost = [number for numbers in letters["geometry_ids"].to_pylist() for number in numbers]
    assert len(lost) == len(set(lost)) > 5 and {letter["band"] for letter in letters.to_pylist()} == {"B1"}
    missing = pc.and_(pc.equal(whole["band"], "B1"), pc.is_in(whole["geometry_id"], pa.array(lost, pa.int64())))
    assert same(rows, whole.filter(pc.invert(missing)))
    assert counts[metrics.ZONES_ROUTED] == counts[metrics.ZONES_OUT] + len(lost)
    assert (counts[metrics.ZONES_DEAD_LETTERED], counts[metrics.DEAD_LETTERS]) == (len(lost), len(letters))
    assert counts[metrics.ROWS_WRITTEN] == len(rows) + len(letters) + 1
    failed = again(scene, tmp_path / "still", tmp_path / "first")
    assert failed[metrics.ZONES_DEAD_LETTERED] == failed[metrics.ZONES_ROUTED] == len(lost)
    scene.mend()
    counts = again(scene, tmp_path / "again", tmp_path / "still")
    assert counts[metrics.ZONES_ROUTED] == counts[metrics.ZONES_OUT] == len(lost)
    assert not len(table_of(tmp_path / "again_dead"))
    assert same(pa.concat_tables([rows, zones_of(tmp_path / "again")]), whole)


def same(found: pa.Table, wanted: pa.Table) -> bool:
    """Whether two tables have the same rows in some order."""
    order = [("geometry_id", "ascending"), ("band", "ascending")]
    return found.sort_by(order).equals(wanted.sort_by(order))


def test_a_letter_names_the_tile_and_holds_polygons(scene: Scene, tmp_path: Path) -> None:
    zonal(scene.collection, scene.polygons, BANDS, tmp_path / "first", on_error="dead_letter")
    letters = table_of(tmp_path / "first_dead").combine_chunks().to_batches()[0]
    path = str(scene.folder / "scene.tif")
    for letter in letters.to_pylist():
        names = ("record_id", "band", "tile_row", "tile_col", "href", "error", "attempts")
        assert [letter[name] for name in names] == ["scene", "B1", 1, 1, path, "DecodeError", 1]
        assert "it cannot be decoded: " in letter["message"]
    given_up = {number for numbers in letters["geometry_ids"].to_pylist() for number in numbers}
    assert given_up == scene.over_tile
    held = points_of(letters, 0, OF_ZONES)
    assert held["geometry_id"].to_pylist() == letters["geometry_ids"][0].as_py()
    assert held["plot"].to_pylist() == [f"plot {number}" for number in held["geometry_id"].to_pylist()]


@pytest.mark.slow
def test_letters_of_other_runs_are_refused(scene: Scene, tmp_path: Path) -> None:
    """Their rows do not go into one table."""
    how = {"statistics": ("count",), "on_error": "dead_letter"}
    others = {
        "statistics": (scene.polygons, how | {"statistics": ("mean",)}),
        "columns": (scene.polygons.rename_columns(["geometry", "name"]), how),
    }
    zonal(scene.collection, scene.polygons, BANDS, tmp_path / "one", **how)
    for name, (polygons, given) in others.items():
        zonal(scene.collection, polygons, BANDS, tmp_path / name, **given)
        letters = [f"{tmp_path}/{each}_dead-*.parquet" for each in ("one", name)]
        with pytest.raises(InputError, match="are of runs with other options or columns; try them again one by one"):
            ZonalDeadLetters(scene.collection, letters)


def test_without_dead_letters_the_job_fails(scene: Scene, tmp_path: Path) -> None:
    with pytest.raises(Exception, match=r"band B1: .*scene\.tif, tile \(1, 1\): it cannot be decoded"):
        zonal(scene.collection, scene.polygons, BANDS, tmp_path / "first")
    assert not list(tmp_path.glob("first-*"))


@pytest.fixture
def flags(scene: Scene) -> list[str]:
    given = [f"--polygons={scene.folder}/polygons.parquet", "--geometry_crs=32631", "--statistics=count,mean"]
    return [*given, f"--collection={scene.folder}/collection", "--bands=B1,B2"]


class TestCommand:
    def test_rows_are_those_of_the_eager_call(self, flags: list[str], scene: Scene, tmp_path: Path) -> None:
        scene.mend()
        more = ["--coverage=all_touched", "--join=left", "--columns=plot", f"--unmatched={tmp_path}/left"]
        done = execute(main, *flags, *more, f"--output={tmp_path}/rows")
        assert (done.code, done.err) == (0, "")
        expected = scene.collection.zonal_statistics(
            scene.polygons, BANDS, geometry_crs=32631, coverage="all_touched", join="left"
        )
        assert same(zones_of(tmp_path / "rows"), expected)
        names = ("polygons read", "with a record", "unmatched", "rows", "rows without a record")
        assert [done.figures[name] for name in names] == [OUTSIDE + 1, OUTSIDE, 1, 2 * OUTSIDE, 2]
        assert table_of(tmp_path / "left")["reason"].to_pylist() == ["no_record"]

    def test_dead_letters_and_retry(self, flags: list[str], scene: Scene, tmp_path: Path) -> None:
        lost = len(scene.over_tile)
        first = execute(main, *flags, f"--output={tmp_path}/first", f"--dead_letter={tmp_path}/left")
        assert first.code == 3
        assert first.figures["rows that lack them"] == lost and first.figures["rows"] == 2 * OUTSIDE - lost
        assert f"try them again with --retry '{tmp_path}/left-*.parquet'" in first.err
        scene.mend()
        retry = [f"--retry={tmp_path}/left-*.parquet", f"--collection={scene.folder}/collection"]
        second = execute(main, *retry, f"--output={tmp_path}/second")
        assert (second.code, second.err, second.figures["rows"]) == (0, "", lost)
        both = pa.concat_tables([zones_of(tmp_path / "first"), zones_of(tmp_path / "second")])
        assert same(both, scene.before.drop_columns(["percentile_90"]))

    def test_without_failures_the_file_is_there_and_empty(self, flags: list[str], scene: Scene, tmp_path: Path) -> None:
        scene.mend()
        done = execute(main, *flags, f"--output={tmp_path}/all", f"--dead_letter={tmp_path}/left")
        assert (done.code, done.err) == (0, "")
        assert pq.read_table(tmp_path / "left-00000-of-00001.parquet").schema == ZONAL_DEAD_LETTER_SCHEMA
        collection = f"--collection={scene.folder}/collection"
        empty = execute(main, f"--retry={tmp_path}/left-*.parquet", collection, f"--output={tmp_path}/none")
        assert empty.code == 1 and "holds no dead letters: there is nothing to try again" in empty.err

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["--retry={folder}/polygons.parquet"], "holds no dead letters: its columns are geometry, plot"),
            (["--retry={folder}/polygons.parquet", "--statistics=sum"], "--statistics does not go with --retry"),
            (["--retry={folder}/polygons.parquet", "--coverage=fraction"], "--coverage does not go with --retry"),
            (["--retry={folder}/polygons.parquet", "--join=left"], "--join does not go with --retry"),
            (["--retry={folder}/polygons.parquet", "--unmatched=u"], "--unmatched does not go with --retry"),
        ],
    )
    def test_unusable_letters(self, scene: Scene, tmp_path: Path, words: list[str], message: str) -> None:
        given = [word.format(folder=scene.folder) for word in words]
        outcome = execute(main, *given, f"--collection={scene.folder}/collection", f"--output={tmp_path}/o")
        assert outcome.code == 1 and message in outcome.err and len(outcome.err.splitlines()) == 1

    @pytest.mark.parametrize(
        ("without", "more", "code", "message"),
        [
            ("--bands", [], 2, "the following arguments are required: --bands"),
            ("--polygons", [], 2, "one of the arguments --polygons --retry is required"),
            ("--output", [], 2, "one of the arguments --output --bigquery --iceberg is required"),
            ("", ["--bigquery=p:d.t"], 2, "argument --bigquery: not allowed with argument --output"),
            ("", ["--bq_run_id=r"], 1, "--bq_run_id given without --bigquery"),
            ("", ["--statistics=maen"], 1, "--statistics have 'maen' (did you mean 'mean'?)"),
            ("", ["--statistics=mean,mean"], 1, "name each of them once"),
            ("", ["--coverage=some"], 2, "argument --coverage: invalid choice: 'some'"),
            ("", ["--max_exact_values=0"], 1, "--max_exact_values is 0"),
            ("", ["--extra_columns=record:gone"], 1, "--extra_columns have 'record:gone'"),
            ("", ["--extra_columns=plot"], 1, "for the column plot of the collection give record:plot"),
            ("", ["--overlap_tolerance=soon"], 1, "--overlap_tolerance is 'soon'"),
            ("", ["--skip_invalid"], 1, "use --match latest"),
            ("", ["--scales=B1=2,0"], 1, "--unscale"),
            ("", ["--bands=B9"], 1, "B9"),
            ("", ["--dead_letter={folder}/o"], 1, "--output and --dead_letter are both"),
            ("", ["--statistic=mean"], 2, "unknown flag --statistic; did you mean --statistics?"),
        ],
    )
    def test_bad_input_is_one_line_that_names_the_flag(
        self, flags: list[str], tmp_path: Path, without: str, more: list[str], code: int, message: str
    ) -> None:
        words = [word for word in [*flags, f"--output={tmp_path}/o"] if not without or not word.startswith(without)]
        outcome = execute(main, *words, *(word.format(folder=tmp_path) for word in more))
        assert outcome.code == code and message in outcome.err and len(outcome.err.splitlines()) == 1
        assert not list(tmp_path.glob("o-*"))

    def test_a_column_with_the_name_of_a_statistic(self, flags: list[str], scene: Scene, tmp_path: Path) -> None:
        pq.write_table(scene.polygons.rename_columns(["geometry", "mean"]), tmp_path / "p.parquet")
        words = [f"--polygons={tmp_path}/p.parquet", *flags[1:], f"--output={tmp_path}/o"]
        outcome = execute(main, *words)
        assert outcome.code == 1 and "column(s) mean" in outcome.err and "--columns A,B" in outcome.err
        others = [word for word in words if not word.startswith(("--statistics", "--bands"))]
        assert execute(main, *others, "--statistics=count", "--bands=B2").code == 0


Change = Callable[[list[Any]], list[Any]]


def tampered(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, change: Change) -> None:
    original = getattr(owner, name)

    def wrong(*args: Any, **kwargs: Any) -> Iterator[Any]:
        return iter(change(list(original(*args, **kwargs))))

    monkeypatch.setattr(owner, name, wrong)


LOST: dict[str, tuple[Any, str, Change, str]] = {
    "group": (reading, "by_stamp", lambda rows: [], "30 polygons have a record, but 0 were read"),
    "batch": (reading.PolygonFn, "_emit", lambda rows: rows[1:], r"63 rows were to be written, but \d+ were"),
    "rows": (zonal_groups, "walk", lambda found: [found[0][1:], found[1]], r"60 rows were to be made, but \d+ were"),
    "unmatched": (
        routing._RouteFn,
        "process",
        lambda rows: rows[:-1],
        "1 polygons without a record were to have 2 rows, but have 0",
    ),
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in ("group", "rows") else pytest.mark.slow) for name in LOST]
)
def test_a_job_that_loses_rows_does_not_end_well(
    flags: list[str], scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    scene.mend()
    owner, step, change, message = LOST[name]
    tampered(monkeypatch, owner, step, change)
    outcome = execute(main, *flags, "--join=left", f"--output={tmp_path}/rows", f"--unmatched={tmp_path}/left")
    assert outcome.code == 1 and len(outcome.err.strip().splitlines()) == 1
    assert re.search("error: the output is in place but not complete: " + message, outcome.err), outcome.err
