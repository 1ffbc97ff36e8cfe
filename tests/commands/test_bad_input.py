"""Bad input to ``sample_points``: one clear line that names the thing and the way out, and no pixel read before it."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
from affine import Affine

import rasteret_beam as rasteret
from pipelines import sample_points
from tests.support import rasters
from tests.support.commands import Outcome, as_flags, execute, in_process_of_its_own
from tests.support.rasters import damage_tile

pytestmark = pytest.mark.usefixtures("same_signal_handlers")

BANDS = ("red", "nir")
SCENES = ("a_20230101", "b_20230601")
LEFT, TOP, PIXEL, TILE, SIZE = 500_000.0, 4_500_000.0, 16.0, 64, 128


def write_collection(folder: Path) -> None:
    """Two scenes of two bands on one grid, and their collection."""
    scenes = [
        rasters.RasterCase(
            name=name,
            dtype="int16",
            count=2,
            width=SIZE,
            height=SIZE,
            transform=Affine(PIXEL, 0.0, LEFT, 0.0, -PIXEL, TOP),
            options={"COMPRESS": "DEFLATE"},
        ).write(folder)
        for name in SCENES
    ]
    dates = [name[-8:] for name in SCENES]
    rasteret.build_from_cogs(scenes, bands=BANDS, datetime=dates).export(folder / "collection")


@pytest.fixture(scope="module")
def unreadable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A collection whose files were emptied: a job that opens one of them fails of that."""
    folder = tmp_path_factory.mktemp("unreadable")
    write_collection(folder)
    for name in SCENES:
        (folder / f"{name}.tif").write_bytes(b"")
    return folder / "collection"


POINTS = pa.table({"x": [500_008.0, 501_000.0, 501_500.0], "y": [4_499_990.0] * 3, "site": ["a", "b", "c"]})


def with_column(name: str, values: object) -> pa.Table:
    return POINTS.set_column(POINTS.column_names.index(name), name, pa.array(values))


Sample = Callable[..., Outcome]


@pytest.fixture
def sample(unreadable: Path, tmp_path: Path) -> Sample:
    """Run the command on a table (or a path) and a collection whose pixels cannot be read."""

    def run(points: pa.Table | Path | str = POINTS, **flags: object) -> Outcome:
        if isinstance(points, pa.Table):
            pq.write_table(points, tmp_path / "points.parquet")
            points = tmp_path / "points.parquet"
        usual = {
            "geometry_crs": 32631,
            "collection": unreadable,
            "bands": "red,nir",
            "output": tmp_path / "out/samples",
        }
        return execute(sample_points.main, *as_flags(**({"points": points} | usual | flags)))

    return run


def check_refused(outcome: Outcome, *parts: object) -> None:
    """One line that starts with ``error:`` and holds the parts, and an exit code that says so."""
    assert outcome.code in (1, 2)
    assert outcome.out == ""
    assert outcome.err.startswith("error: ")
    assert len(outcome.err.splitlines()) == 1
    for part in parts:
        assert str(part) in outcome.err
    for code in ("Traceback", "[while running", "(in step", "not recognized as being in a supported file format"):
        assert code not in outcome.err


@pytest.fixture(autouse=True)
def nothing_written(tmp_path: Path) -> Iterator[None]:
    """No test leaves a file where the samples were to go: no shard, no temporary folder, no probe."""
    yield
    assert not list(tmp_path.glob("out/*"))


class TestPointFiles:
    def test_missing_file(self, sample: Sample, tmp_path: Path):
        check_refused(
            sample(tmp_path / "none.parquet"), f"there is no file, folder or match of {tmp_path}/none.parquet"
        )

    def test_glob_without_match(self, sample: Sample, tmp_path: Path):
        check_refused(sample(f"{tmp_path}/*.parquet"), f"there is no file, folder or match of {tmp_path}/*.parquet")

    def test_folder_without_parquet(self, sample: Sample, tmp_path: Path):
        (tmp_path / "notes").mkdir()
        (tmp_path / "notes/readme.txt").write_text("nothing here")
        check_refused(
            sample(tmp_path / "notes"), f"there is no Parquet, CSV, GeoJSON or vector file in {tmp_path}/notes"
        )

    @pytest.mark.parametrize("text", ["this is no Parquet", ""])
    def test_no_parquet(self, sample: Sample, tmp_path: Path, text: str):
        path = tmp_path / "text.parquet"
        path.write_text(text)
        check_refused(sample(path), f"{path} is neither Parquet (it does not start with PAR1) nor named .csv")

    def test_cut_off_parquet(self, sample: Sample, tmp_path: Path):
        pq.write_table(POINTS, tmp_path / "whole.parquet")
        path = tmp_path / "cut.parquet"
        path.write_bytes((tmp_path / "whole.parquet").read_bytes()[:-20])
        check_refused(sample(path), f"{path} cannot be read as Parquet: ")

    def test_damaged_parquet(self, sample: Sample, tmp_path: Path):
        path = tmp_path / "damaged.parquet"
        pq.write_table(POINTS, path)
        content = bytearray(path.read_bytes())
        content[4:80] = b"\xff" * 76
        path.write_bytes(content)
        check_refused(sample(path), path)

    def test_filesystem_that_there_is_none_of(self, sample: Sample):
        check_refused(sample("ftp://127.0.0.1/points.parquet"), "ftp://127.0.0.1/points.parquet")

    @pytest.mark.parametrize("name", ["no_rows.parquet", "header_only.csv"])
    def test_no_points(self, sample: Sample, tmp_path: Path, name: str):
        path = tmp_path / name
        if path.suffix == ".csv":
            path.write_text("x,y,site\n")
        else:
            pq.write_table(POINTS.slice(0, 0), path)
        check_refused(sample(path), f"{path} holds no points: there is no row in it")

    def test_empty_csv(self, sample: Sample, tmp_path: Path):
        (tmp_path / "empty.csv").write_text("")
        check_refused(sample(tmp_path / "empty.csv"), f"{tmp_path}/empty.csv cannot be read as CSV: Empty CSV file")

    @pytest.mark.parametrize(
        ("line", "parts"),
        [
            (
                "far,4499990,d",
                ["row 200000 of column 'x' of ", "long.csv is 'far', not a number; correct it or leave"],
            ),
            (
                "1,2,d,more",
                ["long.csv cannot be read as CSV: row 200000 has 4 field(s), but the header has 3: 1,2,d,more"],
            ),
        ],
    )
    def test_csv_whose_later_rows_are_unlike_the_first(
        self, sample: Sample, tmp_path: Path, line: str, parts: list[str]
    ):
        path = tmp_path / "long.csv"
        path.write_text("x,y,site\n" + "500008,4499990,abcdefgh\n" * 200_000 + line + "\n")
        check_refused(sample(path), *parts)


class TestSeveralPointFiles:
    """The first file decides about columns; each other one has to be like it."""

    @pytest.mark.parametrize(
        ("other", "parts"),
        [
            (POINTS.drop_columns(["site"]), ["b.parquet lacks column(s) site, which the first file has; it has x, y"]),
            (with_column("site", [1, 2, 3]), ["column 'site' of ", "b.parquet is int64, but string in the first file"]),
            (with_column("x", ["1", "east", "3"]), ["b.parquet", "'x'"]),
            (with_column("x", ["1", "2", "3"]), ["b.parquet", "'x'", "string"]),
        ],
        ids=["column missing", "other type", "text in x", "numbers as text in x"],
    )
    def test_unlike_the_first(self, sample: Sample, tmp_path: Path, other: pa.Table, parts: list[str]):
        folder = tmp_path / "points"
        folder.mkdir()
        pq.write_table(POINTS, folder / "a.parquet")
        pq.write_table(other, folder / "b.parquet")
        check_refused(sample(folder), *parts)


class TestPointColumns:
    @pytest.mark.parametrize(
        "flags",
        [
            {"x_column": "lon", "y_column": "y"},
            {"geometry_column": "lon"},
            {"columns": "site,lon"},
        ],
    )
    def test_unknown_column(self, sample: Sample, tmp_path: Path, flags: dict[str, str]):
        check_refused(sample(**flags), f"{tmp_path}/points.parquet has no column 'lon'; it has x, y, site")

    def test_only_one_coordinate(self, sample: Sample):
        check_refused(sample(x_column="x"), "--x_column and --y_column go together; only one of them is given")

    def test_no_column_known_as_a_point(self, sample: Sample, tmp_path: Path):
        outcome = sample(POINTS.rename_columns(["a", "b", "c"]))
        check_refused(
            outcome, f"{tmp_path}/points.parquet has no column known as a point; it has a, b, c. Give --x_column"
        )

    def test_text_in_a_coordinate_column(self, sample: Sample, tmp_path: Path):
        outcome = sample(with_column("x", ["1", "2", "east"]))
        check_refused(outcome, f"column 'x' of {tmp_path}/points.parquet is string; coordinates must be numbers")

    def test_text_in_a_coordinate_column_of_csv(self, sample: Sample, tmp_path: Path):
        (tmp_path / "points.csv").write_text("x,y\n500008,4499990\neast,4499990\n")
        outcome = sample(tmp_path / "points.csv")
        check_refused(outcome, f"row 1 of column 'x' of {tmp_path}/points.csv is 'east', not a number")

    @pytest.mark.parametrize("name", ["value", "point_x", "record_id", "reason"])
    def test_kept_column_with_a_reserved_name(self, sample: Sample, name: str):
        points = POINTS.rename_columns(["x", "y", name])
        check_refused(sample(points), f"column(s) named {name}, which the sample table needs", "rename them", "columns")

    @pytest.mark.parametrize(
        ("values", "parts"),
        [
            (
                [7],
                ["column 'where' of ", " is int64; a geometry column holds WKB (binary), WKT or GeoArrow points"],
            ),
            (["somewhere"], ["row 0 of column 'where' is not WKT: 'somewhere'"]),
            (["LINESTRING (1 2, 3 4)"], ["row 0 of column 'where' is LINESTRING (1 2, 3 4); only points"]),
            ([b"no geometry"], ["row 0 of column 'where' is not WKB: b'no geometry'"]),
            ([shapely.to_wkb(shapely.box(0, 0, 1, 1))], ["row 0 of column 'where' is POLYGON"]),
        ],
    )
    def test_no_point_geometry(self, sample: Sample, values: list, parts: list[str]):
        check_refused(sample(pa.table({"where": values}), geometry_column="where"), *parts)


class TestCrs:
    def test_missing(self, sample: Sample):
        check_refused(sample(geometry_crs=None), "have no CRS; give it with", "geometry_crs", "4326")

    def test_missing_for_wkb(self, sample: Sample):
        points = pa.table({"where": [shapely.to_wkb(shapely.Point(3, 40))]})
        outcome = sample(points, geometry_column="where", geometry_crs=None)
        check_refused(outcome, "geometry column 'where'", "has no CRS; give it with --geometry_crs")

    @pytest.mark.parametrize("crs", ["EPSG:99999999", "moon"])
    def test_unreadable(self, sample: Sample, crs: str):
        check_refused(
            sample(geometry_crs=crs), f"CRS '{crs}' cannot be read: ", 'Give an EPSG code (4326 or "EPSG:4326")'
        )

    def test_in_conflict_with_the_data(self, sample: Sample):
        geo = {"version": "1.1.0", "primary_column": "where", "columns": {"where": {"encoding": "WKB"}}}
        points = pa.table({"where": [shapely.to_wkb(shapely.Point(3, 40))]}, metadata={"geo": json.dumps(geo)})
        check_refused(sample(points), "geometry_crs is EPSG:32631", "'where'", "OGC:CRS84", "leave --geometry_crs out")


class TestNothingSampled:
    """Not an error, but said: nothing is read, and the empty output has exit code 0."""

    @pytest.mark.parametrize(
        ("flags", "hint"),
        [
            ({"x_column": "y", "y_column": "x"}, "but they do with x and y exchanged: x has to be the longitude"),
            (
                {"geometry_crs": 4326},
                "(500008, 4.49999e+06) are not degrees, but --geometry_crs is EPSG:4326; give the",
            ),
            ({"geometry_crs": 32630}, "they span x 500008 to 501500, y 4.49999e+06 to 4.49999e+06 in EPSG:32630"),
        ],
    )
    def test_hint(self, sample: Sample, tmp_path: Path, flags: dict[str, object], hint: str):
        outcome = sample(output=tmp_path / "empty/samples", **flags)
        assert outcome.code == 0
        assert outcome.err.startswith("warning: none of the points lies in the collection")
        assert hint in outcome.err
        assert len(outcome.err.splitlines()) == 1

    def test_no_usable_coordinates(self, sample: Sample, tmp_path: Path):
        points = with_column("x", [None, float("nan"), float("inf")])
        outcome = sample(points, output=tmp_path / "empty/samples")
        assert (outcome.code, outcome.err) == (0, "warning: none of the points has usable coordinates\n")


class TestCollection:
    def test_missing(self, sample: Sample, tmp_path: Path):
        check_refused(sample(collection=tmp_path / "none"), f"there is no file or folder {tmp_path}/none")

    def test_folder_without_parquet(self, sample: Sample, tmp_path: Path):
        (tmp_path / "empty").mkdir()
        check_refused(sample(collection=tmp_path / "empty"), f"folder {tmp_path}/empty has no Parquet files")

    def test_folder_of_rasters(self, sample: Sample, unreadable: Path):
        message = f"{unreadable.parent} has no Parquet files; it has a_20230101.tif"
        check_refused(sample(collection=unreadable.parent), message)

    @pytest.mark.parametrize("place", ["points", "points/a.parquet"])
    def test_table_that_is_no_collection(self, sample: Sample, tmp_path: Path, place: str):
        (tmp_path / "points").mkdir()
        pq.write_table(POINTS, tmp_path / "points/a.parquet")
        outcome = sample(collection=tmp_path / place)
        check_refused(
            outcome, f"{tmp_path}/{place} is not a collection: it lacks column(s) id, datetime, ", "x, y, site"
        )

    def test_damaged(self, sample: Sample, unreadable: Path, tmp_path: Path):
        for path in unreadable.rglob("*.parquet"):
            copy = tmp_path / "damaged" / path.relative_to(unreadable)
            copy.parent.mkdir(parents=True)
            content = bytearray(path.read_bytes())
            content[4:2000] = b"\xff" * 1996
            copy.write_bytes(content)
        check_refused(sample(collection=tmp_path / "damaged"), tmp_path / "damaged")

    @pytest.mark.parametrize("flags", [{"date_range": "2030-01-01,2030-12-31"}, {"bbox": "100,10,101,11"}])
    def test_no_record_left(self, sample: Sample, flags: dict[str, str]):
        check_refused(sample(**flags), "collection 'collection' has no records after subset")

    @pytest.mark.parametrize(
        ("flags", "message"),
        [
            ({"date_range": "soon,2030"}, "'soon' is not a valid ISO date or datetime (such as 2023-06-30)"),
            ({"date_range": "2024-01-01,2023-01-01"}, "its first date must not be after its last"),
            ({"bbox": "1,50,3,40"}, "has to be (west, south, east, north) in degrees, south <= north"),
        ],
    )
    def test_unusable_choice(self, sample: Sample, flags: dict[str, str], message: str):
        check_refused(sample(**flags), message)

    def test_unknown_band(self, sample: Sample):
        check_refused(sample(bands="red,blue,swir"), "the collection lacks band(s) blue, swir; it has red, nir")

    @pytest.mark.parametrize(("bands", "got"), [(",", "empty"), ("red,red", "red, red")])
    def test_no_band_or_one_twice(self, sample: Sample, bands: str, got: str):
        check_refused(sample(bands=bands), f"bands are {got}; give at least one band, and each band once")

    @pytest.mark.parametrize("gone", [SCENES, SCENES[1:]])
    def test_files_are_gone(self, sample: Sample, tmp_path: Path, gone: tuple[str, ...]):
        write_collection(tmp_path)
        for name in gone:
            (tmp_path / f"{name}.tif").unlink()
        outcome = sample(collection=tmp_path / "collection")
        wanted = f"{len(gone)} of 2 files of the collection are missing, such as {tmp_path}/{gone[0]}.tif"
        check_refused(outcome, wanted, "build the collection again, or restore the files")


class TestOutput:
    def test_below_a_file(self, sample: Sample, tmp_path: Path):
        (tmp_path / "file").write_text("mine")
        check_refused(sample(output=tmp_path / "file/samples"), f"output {tmp_path}/file/samples cannot be written")
        assert (tmp_path / "file").read_text() == "mine"

    def test_unsampled_below_a_file(self, sample: Sample, tmp_path: Path):
        (tmp_path / "file").write_text("mine")
        check_refused(sample(unsampled=tmp_path / "file/left"), f"output {tmp_path}/file/left cannot be written")

    def test_no_name(self, sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        (tmp_path / "inner").mkdir()
        monkeypatch.chdir(tmp_path / "inner")
        check_refused(sample(output=""), "--output")
        assert not list(tmp_path.glob("inner-*"))

    def test_both_outputs_in_one_place(self, sample: Sample, tmp_path: Path):
        place = tmp_path / "out/samples"
        check_refused(sample(unsampled=place), f"--output and --unsampled are both {place}; give two prefixes")


class TestPixels:
    """What can be found out only while pixels are read: the job fails of it, whole."""

    @pytest.fixture
    def job(self, tmp_path: Path) -> list[str]:
        """Flags of a job over one point in each tile, with an earlier output in its place."""
        write_collection(tmp_path)
        centre = np.array([32.0, 96.0]) * PIXEL
        x, y = (part.ravel() for part in np.meshgrid(LEFT + centre, TOP - centre))
        pq.write_table(pa.table({"x": x, "y": y}), tmp_path / "points.parquet")
        (tmp_path / "earlier").mkdir()
        (tmp_path / "earlier/samples-00000-of-00001.parquet").write_text("earlier")
        return as_flags(
            points=tmp_path / "points.parquet",
            geometry_crs=32631,
            collection=tmp_path / "collection",
            bands="red,nir",
            output=tmp_path / "earlier/samples",
            unsampled=tmp_path / "earlier/left",
        )

    @pytest.fixture(autouse=True)
    def earlier_output_is_untouched(self, job: list[str], tmp_path: Path) -> Iterator[None]:
        yield
        left = {path.name: path.read_bytes() for path in (tmp_path / "earlier").iterdir()}
        assert left == {"samples-00000-of-00001.parquet": b"earlier"}

    def test_damaged_tile(self, job: list[str], tmp_path: Path):
        damage_tile(tmp_path / "b_20230601.tif", 3)
        outcome = execute(sample_points.main, *job)
        check_refused(outcome, "record 'b_20230601', band red: ", tmp_path / "b_20230601.tif", "tile (1, 1)")
        assert "a_20230101" not in outcome.err

    def test_damaged_tile_in_a_process_of_its_own(self, job: list[str], tmp_path: Path):
        damage_tile(tmp_path / "b_20230601.tif", 3)
        outcome = in_process_of_its_own("sample_points", *job)
        check_refused(outcome, tmp_path / "b_20230601.tif", "tile (1, 1)")

    def test_reason_of_a_damaged_tile_is_told(self, job: list[str], tmp_path: Path):
        damage_tile(tmp_path / "b_20230601.tif", 3)
        assert "See previous exception" not in execute(sample_points.main, *job).err

    def test_cut_off_file(self, job: list[str], tmp_path: Path):
        path = tmp_path / "b_20230601.tif"
        path.write_bytes(path.read_bytes()[:-20])
        check_refused(execute(sample_points.main, *job), "record 'b_20230601'", path)

    @pytest.mark.parametrize(("width", "count"), [(SIZE - 8, 2), (SIZE, 1)])
    def test_another_raster_in_place_of_a_file(self, job: list[str], tmp_path: Path, width: int, count: int):
        transform = Affine(PIXEL, 0.0, LEFT, 0.0, -PIXEL, TOP)
        shape = {"width": width, "height": SIZE, "count": count}
        path = rasters.RasterCase(name="b_20230601", dtype="int16", transform=transform, **shape).write(tmp_path)
        outcome = execute(sample_points.main, *job)
        check_refused(outcome, "record 'b_20230601'", path, "changed after the collection was built", "build it again")
