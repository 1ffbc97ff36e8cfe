"""Which files a path, a folder or a glob means: locally, in listings of names, and on Beam's filesystems."""

import glob
import os
import socket
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
import rasterio
from affine import Affine
from apache_beam.io.filesystem import FileMetadata, FileSystem
from hypothesis import given, settings
from hypothesis import strategies as st

import rasteret_beam
from pipelines import build_collection, read_chips, sample_points
from rasteret_beam import (
    BuildCollection,
    ReadPoints,
    ReadPolygons,
    SampleDeadLetters,
    WriteChipsToGeoTiff,
    WriteChipsToParquet,
    WriteSamplesToParquet,
    build_from_cogs,
    build_from_table,
)
from rasteret_beam.collection.build import sources_from_cogs
from rasteret_beam.collection.parquet.files import open_dataset
from rasteret_beam.errors import BuildError, InputError, MissingInputError, PermissionDeniedError
from rasteret_beam.kernels.storage.globs import Selection, glob_regex, in_folder, in_matched, matched
from rasteret_beam.readers.storage import local_files
from rasteret_beam.readers.storage.listing import LocalLister, expand_rasters, files_at, find_rasters, split_lists
from rasteret_beam.readers.storage.objects import Found
from rasteret_beam.schema import DEAD_LETTER_SCHEMA
from rasteret_beam.transforms.runtime.files import find_files
from tests.support.commands import execute
from tests.support.properties import examples

HIDDEN = (
    ".ipynb_checkpoints/part-0",
    "_temporary/0/part-0",
    "_delta_log/part-0",
    ".Trash-1000/part-0",
    "__MACOSX/part-0",
    "._part-0",
    "_part-0",
)


def table(number: int = 0) -> pa.Table:
    return pa.table({"lon": [2.0 + number], "lat": [45.0], "plot": [number]})


def write(folder: Path, *names: str) -> list[str]:
    """Point files of one row, numbered in the order given."""
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table(number), folder / name)
    return [str(folder / name) for name in names]


def raster(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    place = Affine(10, 0, 500000, 0, -10, 5000160)
    with rasterio.open(
        path, "w", driver="GTiff", width=16, height=16, count=1, dtype="uint8", crs="EPSG:32631", transform=place
    ) as out:
        out.write(np.arange(256, dtype="uint8").reshape(1, 16, 16))
    return path


def inside(folder: Path, paths: Iterable[str]) -> list[str]:
    return [os.path.relpath(path, folder) for path in paths]


class Names:
    """A lister of nothing but names, as in a bucket."""

    def __init__(self, names: Sequence[str]):
        self.names = names

    def kind(self, place: str) -> str | None:
        if place in self.names:
            return "file"
        return "folder" if any(name.startswith(place.rstrip("/") + "/") for name in self.names) else None

    def files(self, selection: Selection) -> list[tuple[str, str, bool]]:
        assert all(name.startswith(selection.start) for name in self.names if selection.files.fullmatch(name))
        return [(name, name, False) for name in self.names if selection.files.fullmatch(name)]


# Hidden names


@pytest.mark.parametrize("hidden", HIDDEN)
def test_hidden_copies_are_not_read(tmp_path: Path, hidden: str) -> None:
    write(tmp_path, "part-0.parquet", "2023/part-1.parquet", f"{hidden}.parquet", f"2023/{hidden}.parquet")
    oracle = ds.dataset(tmp_path, format="parquet").count_rows()
    assert oracle == 2
    for place in (tmp_path, f"{tmp_path}/", f"{tmp_path}/**/*.parquet", f"{tmp_path}/**"):
        batches = ReadPoints(place, geometry_crs=4326).batches()
        assert sum(batch.num_rows for batch in batches) == oracle


@pytest.mark.parametrize("hidden", HIDDEN)
def test_hidden_rasters_are_not_taken(tmp_path: Path, hidden: str) -> None:
    kept = [raster(tmp_path / "a.tif"), raster(tmp_path / "b/c.TIF")]
    raster(tmp_path / f"{hidden}.tif")
    assert find_rasters([str(tmp_path)]) == sorted(map(str, kept))
    assert find_rasters(f"{tmp_path}/**/*.tif") == [str(kept[0])]
    assert build_from_cogs(tmp_path).to_table()["id"].to_pylist() == ["a", "c"]


def test_only_names_below_the_given_path_can_be_hidden(tmp_path: Path) -> None:
    place = tmp_path / ".cache/_work"
    write(place, "a.parquet", "_x=1/b.parquet", "_x/c.parquet", ".x=1/d.parquet")
    assert inside(place, find_files(str(place))) == ["_x=1/b.parquet", "a.parquet"]
    assert inside(place, find_files(f"{place}/_x/*")) == ["_x/c.parquet"]
    assert inside(place, find_files(f"{place}/_*/*")) == ["_x/c.parquet", "_x=1/b.parquet"]
    assert inside(place, find_files(f"{place}/.*/*")) == [".x=1/d.parquet"]
    assert inside(place, find_files(f"{tmp_path}/.c*/_w*/a*")) == ["a.parquet"]
    with pytest.raises(MissingInputError, match=r"wildcards do not match names that begin with \. or _"):
        find_files(f"{tmp_path}/*/*/a*")


def test_a_folder_of_hidden_files_holds_none(tmp_path: Path) -> None:
    write(tmp_path, "_a.parquet")
    with pytest.raises(MissingInputError, match=r"there is no Parquet, CSV, GeoJSON or vector file in .*; names"):
        find_files(str(tmp_path))


# Patterns


@pytest.mark.parametrize(
    "pattern",
    [
        "*.parquet",
        "**/*.parquet",
        "2023/**/*.parquet",
        "**/06/*.parquet",
        "**",
        "2023/**",
        "*/*.parquet",
        "*/*/*.parquet",
        "20*/b.parquet",
        "**/06/**/*.parquet",
        "**/**/c.parquet",
        "?.parquet",
        "[ab].parquet",
        "[!b].parquet",
        "./*.parquet",
        "2023/../*.parquet",
    ],
)
def test_patterns_match_as_pythons_do(tmp_path: Path, pattern: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "a.parquet", "b.parquet", "2023/b.parquet", "2023/06/c.parquet", "2024/06/07/c.parquet")
    monkeypatch.chdir(tmp_path)
    for start in ("", f"{tmp_path}/"):
        oracle = {os.path.realpath(path) for path in glob.glob(start + pattern, recursive=True) if os.path.isfile(path)}
        found = find_files(start + pattern)
        assert len(found) == len(oracle)
        assert set(map(os.path.realpath, found)) == oracle


NAMES = st.sampled_from(["a", "b", ".a", "_b", "ab", "_k=1", "[a]", "a*"])
PARTS = st.sampled_from(["a", "*", "**", "?", "a*", "[ab]", "[!a]", "_*", ".*", "*b", "[a]", "a**"])


@settings(max_examples=examples(150), deadline=None)
@given(
    paths=st.sets(st.lists(NAMES, min_size=1, max_size=4).map("/".join), min_size=1, max_size=8),
    pattern=st.lists(PARTS, min_size=1, max_size=4).map("/".join),
    trailing=st.sampled_from(["", "/"]),
)
def test_the_disk_and_a_list_of_names_give_the_same_files(
    tmp_path_factory: pytest.TempPathFactory, paths: set[str], pattern: str, trailing: str
) -> None:
    folder = tmp_path_factory.mktemp("names")
    files = sorted(path for path in paths if not any(other.startswith(path + "/") for other in paths))
    for path in files:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).touch()
    place = f"{folder}/{pattern}{trailing}"

    def found(lister: object) -> list[str] | None:
        try:
            return sorted(file.path for file in files_at(place, lister, ("",), "file"))
        except MissingInputError:
            return None

    assert found(LocalLister()) == found(Names([f"{folder}/{path}" for path in files]))


def test_a_pattern_of_folders_means_what_is_in_them(tmp_path: Path) -> None:
    names = ["2023/a.parquet", "2023/06/b.parquet", "2024/c.csv", "2024/notes.txt", "3/d.parquet"]
    paths = write(tmp_path, *names)
    assert find_files(f"{tmp_path}/20*") == find_files(f"{tmp_path}/20*/") == sorted(paths[:3])
    assert find_files(f"{tmp_path}/*/0?") == [paths[1]]


def test_a_path_that_is_there_is_taken_as_it_stands(tmp_path: Path) -> None:
    paths = write(tmp_path, "a[1].parquet", "a1.parquet", "b?/x.parquet", "bc/x.parquet", "*/y.parquet", "c,d.parquet")
    for path in (paths[0], paths[5]):
        assert find_files(path) == [path]
    assert find_files(f"{tmp_path}/b?") == [paths[2]]
    assert find_files(f"{tmp_path}/*") == [paths[4]]
    assert find_files(f"{tmp_path}/a[1]*") == [paths[1]]


def test_relative_paths_and_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = write(tmp_path, "in/a.parquet", "in/b.parquet")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find_files("in") == find_files("in/*") == ["in/a.parquet", "in/b.parquet"]
    assert find_files(".") == ["./in/a.parquet", "./in/b.parquet"]
    assert find_files("~/in/*.parquet") == find_files("~/in") == paths
    assert find_files(["in/b*", paths[1], "~/in/b.parquet", tmp_path / "in" / "b.parquet"]) == [paths[1]]
    with pytest.raises(InputError, match="a path of Parquet, CSV, GeoJSON or vector file is empty"):
        find_files([""])


def test_endings_count_in_any_case(tmp_path: Path) -> None:
    names = ["A.PARQUET", "b.GeoParquet", "c.CSV", "d.txt", "e.csv.GZ"]
    for name in names:
        (tmp_path / name).write_bytes(b"")
    assert inside(tmp_path, find_files(str(tmp_path))) == ["A.PARQUET", "b.GeoParquet", "c.CSV", "e.csv.GZ"]


# Links and what is no file


def test_each_real_file_is_read_once(tmp_path: Path) -> None:
    paths = write(tmp_path, "in/b/a.parquet", "in/c.parquet", "elsewhere/d.parquet", "elsewhere/e.parquet")
    (tmp_path / "in/a").symlink_to("b")
    (tmp_path / "in/b/up").symlink_to("..")
    (tmp_path / "in/other").symlink_to("../elsewhere")
    (tmp_path / "in/a.parquet").symlink_to("c.parquet")
    (tmp_path / "in/z.parquet").symlink_to("../elsewhere/e.parquet")
    links = [str(tmp_path / "in/other" / name) for name in ("d.parquet", "e.parquet")]
    expected = [*paths[:2], *links]
    for place in ("in", "in/**/*.parquet", "in/**"):
        assert find_files(f"{tmp_path}/{place}") == expected
    assert find_files([f"{tmp_path}/in", f"{tmp_path}/in/**/*.parquet", paths[1]]) == expected


def test_a_link_may_fit_a_pattern_that_its_target_does_not(tmp_path: Path) -> None:
    write(tmp_path, "a/x.parquet")
    (tmp_path / "b1").symlink_to("a")
    assert inside(tmp_path, find_files(f"{tmp_path}/**/b*/x.parquet")) == ["b1/x.parquet"]


def test_a_broken_link_is_reported_and_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    paths = write(tmp_path, "a.parquet")
    (tmp_path / "b.parquet").symlink_to("nowhere.parquet")
    (tmp_path / "loop.parquet").symlink_to("loop.parquet")
    assert ds.dataset(tmp_path, format="parquet").files == paths
    assert find_files(str(tmp_path)) == find_files(f"{tmp_path}/*") == paths
    assert "b.parquet: it is a link to nowhere.parquet, which does not exist" in caplog.text
    with pytest.raises(MissingInputError, match=r"there is no file, folder or match of .*b\.parquet"):
        find_files(f"{tmp_path}/b.parquet")


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    paths = write(tmp_path, "a.parquet")
    os.mkfifo(tmp_path / "fifo.parquet")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tmp_path / "s.parquet"))
        assert find_files(str(tmp_path)) == find_files(f"{tmp_path}/*.parquet") == paths
        assert len(open_dataset(str(tmp_path)).files) == 1
        with pytest.raises(InputError, match=r"s\.parquet is a socket, not a regular file"):
            find_files(f"{tmp_path}/s.parquet")
    fifo = f"{tmp_path}/fifo.parquet"
    for read in (find_files, build_from_table):
        with pytest.raises(InputError, match=r"fifo\.parquet is a FIFO, not a regular file"):
            read(fifo)
    assert find_rasters([fifo]) == [fifo]
    with pytest.raises(BuildError, match=r"fifo\.parquet: it is a named pipe, not a regular file"):
        build_from_cogs(fifo)


# Permissions


def refusing(monkeypatch: pytest.MonkeyPatch, closed: Path) -> None:
    """A folder that may be neither listed nor searched, also for root."""
    scandir, stat = os.scandir, os.stat

    def checked(call):
        def checks(path=".", *rest, **named):
            text = os.fspath(path) if isinstance(path, str | os.PathLike) else ""
            listing = call is scandir and text.rstrip("/") == str(closed)
            if listing or (call is stat and text.startswith(f"{closed}/")):
                raise PermissionError(13, "Permission denied", text)
            return call(path, *rest, **named)

        return checks

    monkeypatch.setattr(local_files.os, "scandir", checked(scandir))
    monkeypatch.setattr(local_files.os, "stat", checked(stat))


def test_a_folder_without_permission_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "a/x.parquet", "closed/y.parquet", ".hidden/z.parquet")
    raster(tmp_path / "closed/s.tif")
    closed = tmp_path / "closed"
    with monkeypatch.context() as patch:
        refusing(patch, closed)
        for read in (find_files, find_rasters, build_from_cogs, build_from_table, rasteret_beam.load):
            for place in (str(closed), str(tmp_path), f"{tmp_path}/*/*"):
                if read is rasteret_beam.load and place.endswith("*"):
                    continue
                with pytest.raises(PermissionDeniedError, match=f"permission denied: {closed} may not be read"):
                    read(place)
        with pytest.raises(PermissionError, match=r"permission denied: .*/y\.parquet"):
            find_files(f"{closed}/y.parquet")
    with monkeypatch.context() as patch:
        refusing(patch, tmp_path / ".hidden")
        assert inside(tmp_path, find_files(str(tmp_path))) == ["a/x.parquet", "closed/y.parquet"]


def as_nobody(work: Callable[[], str]) -> str:
    """What a text is for another user, to whom permissions apply."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.setgid(65534)
            os.setuid(65534)
            os.write(writing, work().encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        text = answer.read()
    os.waitpid(child, 0)
    return text


def error_of(call: Callable[[str], object], place: str) -> str:
    with pytest.raises((PermissionDeniedError, BuildError)) as raised:
        call(place)
    return str(raised.value)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_is_told_which_folder_is_closed(tmp_path: Path) -> None:
    raster(tmp_path / "closed/in/s.tif")
    (tmp_path / "closed").chmod(0o700)
    for folder in [tmp_path, *tmp_path.parents]:
        if folder.stat().st_uid == os.geteuid() and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o005)
    for place in (f"{tmp_path}/closed", f"{tmp_path}/closed/in/s.tif", f"{tmp_path}/*/in/*.tif"):
        said = as_nobody(lambda place=place: error_of(find_rasters, place))
        assert said.startswith(f"permission denied: {tmp_path}/closed may not be read by user 65534")
    said = as_nobody(lambda: error_of(build_from_cogs, f"{tmp_path}/closed/in/s.tif"))
    assert f"s.tif: permission denied: {tmp_path}/closed may not be read" in said
    rows = {"id": ["one"], "datetime": ["2023-01-05"], "path": ["s.tif"]}
    for name in ("rows/a.parquet", "rows/b.parquet"):
        (tmp_path / "rows").mkdir(exist_ok=True)
        pq.write_table(pa.table(rows), tmp_path / name)
        (tmp_path / name).chmod(0o200 if name.endswith("b.parquet") else 0o644)
    (tmp_path / "rows").chmod(0o755)
    said = as_nobody(lambda: error_of(lambda place: build_from_table(place, href_column="path"), f"{tmp_path}/rows"))
    assert said.startswith(f"permission denied: {tmp_path}/rows/b.parquet may not be read by user 65534")
    (tmp_path / "p.csv").write_text("lon,lat\n2,45\n")
    (tmp_path / "p.csv").chmod(0o200)
    said = as_nobody(lambda: error_of(lambda place: ReadPoints(place, geometry_crs=4326).files(), f"{tmp_path}/p.csv"))
    assert said.startswith(
        f"permission denied: {tmp_path}/p.csv may not be read by user 65534; give it read permission"
    )


# Several paths


def test_a_comma_in_a_path(tmp_path: Path) -> None:
    names = ["x,y.tif", "a.tif", "b,c/d.tif", "b,c/e.tif"]
    paths = [str(raster(tmp_path / name)) for name in names]
    for text, expected in [
        (paths[0], [paths[0]]),
        (f"{tmp_path}/b,c", [f"{tmp_path}/b,c"]),
        (f"{tmp_path}/b,c/*.tif", [f"{tmp_path}/b,c/*.tif"]),
        (f"{paths[1]}, {paths[2]}", [f"{tmp_path}/a.tif", f"{tmp_path}/b", "c/d.tif"]),
        (f"{paths[1]},{tmp_path}/*.tif", [paths[1], f"{tmp_path}/*.tif"]),
        ("https://127.0.0.1:9/a.tif,https://127.0.0.1:9/b.tif", [f"https://127.0.0.1:9/{n}.tif" for n in "ab"]),
        ("s3://b/a.tif,/vsizip/x.zip/b.tif", ["s3://b/a.tif", "/vsizip/x.zip/b.tif"]),
    ]:
        assert split_lists([text]) == expected
    out = tmp_path / "collection"
    words = [f"--cogs={paths[0]}", f"--cogs={paths[1]},{paths[1]}", f"--cogs={tmp_path}/b,c", f"--output={out}"]
    assert execute(build_collection.main, *words).code == 0
    assert sorted(rasteret_beam.load(out).to_table()["id"].to_pylist()) == ["a", "d", "e", "x,y"]


def test_flags_given_several_times(tmp_path: Path) -> None:
    collection = tmp_path / "collection"
    build_from_cogs(raster(tmp_path / "s.tif")).export(collection)
    for number, name in enumerate(("p,1", "p 2", "p3")):
        points = pa.table({"x": [500005.0 + 10 * number], "y": [5000155.0], "n": [number]})
        pq.write_table(points, tmp_path / f"{name}.parquet")
        box = f"POLYGON ((500000 5000160, 500020 5000160, 500020 5000140, 500000 5000140, 500000 {5000160}))"
        (tmp_path / f"{name}.csv").write_text(f'geometry,n\n"{box}",{number}\n')
    common = ["--geometry_crs=32631", f"--collection={collection}", "--bands=B1"]
    points = [f"--points={tmp_path}/p,1.parquet", f"--points={tmp_path}/p 2.parquet", f"--points={tmp_path}/p*.parquet"]
    assert execute(sample_points.main, *points, *common, f"--output={tmp_path}/out/s").code == 0
    rows = ds.dataset(tmp_path / "out").to_table().sort_by("n")
    assert rows.select(["n", "value"]).to_pydict() == {"n": [0, 1, 2], "value": [0.0, 1.0, 2.0]}
    polygons = [f"--polygons={tmp_path}/p,1.csv", f"--polygons={tmp_path}/p3.csv"]
    assert execute(read_chips.main, *polygons, *common, f"--output={tmp_path}/chips/c").code == 0
    assert sorted(ds.dataset(tmp_path / "chips").to_table()["n"].to_pylist()) == [0, 2]


def test_dead_letters_are_found_by_the_same_rule(tmp_path: Path) -> None:
    path = raster(tmp_path / "s.tif")
    collection, good = tmp_path / "collection", path.read_bytes()
    build_from_cogs(path).export(collection)
    path.write_bytes(good[: len(good) - 200])
    pq.write_table(pa.table({"x": [500005.0], "y": [5000155.0]}), tmp_path / "p.parquet")
    common = [f"--collection={collection}", f"--output={tmp_path}/out/s"]
    words = [f"--points={tmp_path}/p.parquet", "--geometry_crs=32631", "--bands=B1", f"--dead_letter={tmp_path}/dead/d"]
    assert execute(sample_points.main, *words, *common).code == 3
    (letters,) = (tmp_path / "dead").glob("*.parquet")
    for hidden in (".ipynb_checkpoints", "_temporary"):
        (tmp_path / "dead" / hidden).mkdir()
        (tmp_path / "dead" / hidden / letters.name).write_bytes(letters.read_bytes())
    path.write_bytes(good)
    for places in ([f"{tmp_path}/dead"], [f"{tmp_path}/dead/**/*.parquet", str(letters)]):
        outcome = execute(sample_points.main, *(f"--retry={place}" for place in places), *common)
        assert outcome.code == 0
        assert outcome.figures["rows"] == 1


# Rasters of build_from_cogs


def test_build_from_cogs_takes_folders_and_globs(tmp_path: Path) -> None:
    paths = [str(raster(tmp_path / name)) for name in ("z.tif", "in/b.tif", "in/deep/a.tiff")]
    raster(tmp_path / "in/.ipynb_checkpoints/b.tif")
    (tmp_path / "in/notes.txt").write_text("no raster")
    assert expand_rasters([paths[0], tmp_path / "in"]) == paths
    assert build_from_cogs([paths[0], tmp_path / "in"]).to_table()["id"].to_pylist() == ["z", "b", "a"]
    assert len(build_from_cogs(f"{tmp_path}/**/*.tif*")) == 3
    assert len(build_from_cogs([tmp_path / "in", f"{tmp_path}/in/*.tif"])) == 2
    assert len(build_from_cogs([paths[0], paths[0]], record_id=["one", "two"])) == 2
    with pytest.raises(MissingInputError, match=r"there is no \*\.tif file in"):
        (tmp_path / "empty").mkdir()
        build_from_cogs(tmp_path / "empty")
    with pytest.raises(MissingInputError, match=r"there is no file, folder or match of .*/q\*\.tif"):
        build_from_cogs(f"{tmp_path}/q*.tif")
    some = build_from_cogs([paths[0], f"{tmp_path}/gone.tif"], on_error="skip")
    assert list(some.failures) == [(f"{tmp_path}/gone.tif", "no such file")]


# Collections and record tables


def test_collections_and_record_tables_leave_hidden_files_out(tmp_path: Path) -> None:
    path = raster(tmp_path / "s.tif")
    built = build_from_cogs([path, path], record_id=["a", "b"], datetime=["2023-01-05", "2024-01-05"])
    built.export(tmp_path / "c")
    for hidden in (".ipynb_checkpoints", "_temporary"):
        (tmp_path / "c" / hidden).mkdir()
        for number, file in enumerate((tmp_path / "c").glob("year=*/*/*.parquet")):
            (tmp_path / "c" / hidden / f"{number}.parquet").write_bytes(file.read_bytes())
    (tmp_path / "c/loop").symlink_to(".")
    assert rasteret_beam.load(tmp_path / "c").to_table()["id"].to_pylist() == ["a", "b"]
    (part,) = (tmp_path / "c").glob("year=2023/month=1/*.parquet")
    for place in (part, part.parent, tmp_path / "c/year=2023", f"{tmp_path}/c/year=2023/*/*.parquet"):
        rasteret_beam.load(place).export(tmp_path / "again")
        assert rasteret_beam.load(tmp_path / "again").to_table()["year"].to_pylist() == [2023]
    rows = {"id": ["one"], "datetime": ["2023-01-05"], "path": [str(path)]}
    for name in ("in/site=x/a.parquet", "in/.b/a.parquet"):
        (tmp_path / name).parent.mkdir(parents=True)
        pq.write_table(pa.table(rows), tmp_path / name)
    for place in (tmp_path / "in", f"{tmp_path}/in/*/*.parquet", f"{tmp_path}/i*", (tmp_path / "in").as_uri()):
        table = build_from_table(place, href_column="path").to_table()
        assert table.select(["id", "site"]).to_pydict() == {"id": ["one"], "site": ["x"]}


# Listings


def test_the_disk_and_a_bucket_are_asked_for_no_more_than_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def listing(url: str, access: object, start: str = "", deep: bool = True) -> list[Found]:
        asked.append((url, start, deep))
        names = ["s3://b/x/a.tif", "s3://b/x/20/b.tif", "s3://b/x/[1].tif", "s3://b/x/_t/c.tif"]
        return [Found(name, 1) for name in names if name.startswith(start) and (deep or name.count("/") == 4)]

    monkeypatch.setattr("rasteret_beam.readers.storage.listing.list_folder", listing)
    assert find_rasters("s3://b/x/*.tif") == ["s3://b/x/[1].tif", "s3://b/x/a.tif"]
    assert asked == [("s3://b/x", "s3://b/x/", False)]
    asked.clear()
    assert find_rasters("s3://b/x/[1].tif") == ["s3://b/x/[1].tif"]
    assert find_rasters("s3://b/x/2*") == find_rasters("s3://b/x/2*/") == ["s3://b/x/20/b.tif"]
    assert find_rasters("s3://b/x") == ["s3://b/x/20/b.tif", "s3://b/x/[1].tif", "s3://b/x/a.tif"]
    with pytest.raises(InputError, match="has a wildcard in the name of its bucket"):
        find_rasters("s3://b*/x")


class Memory(FileSystem):
    """A filesystem of Beam's with nothing but names."""

    names = ("memory://h/in/a.parquet", "memory://h/in/_t/b.parquet", "memory://h/in/2023/c.parquet")

    @classmethod
    def scheme(cls) -> str:
        return "memory"

    def has_dirs(self) -> bool:
        return False

    def _list(self, dir_or_prefix: str) -> list[FileMetadata]:
        return [FileMetadata(name, 1) for name in self.names if name.startswith(dir_or_prefix)]

    def exists(self, path: str) -> bool:
        return path in self.names

    def size(self, path: str) -> int:
        return 1

    def metadata(self, path: str) -> FileMetadata:
        return FileMetadata(path, 1)

    def _none(self, *_: object) -> None:
        raise NotImplementedError

    join = split = mkdirs = create = open = copy = rename = last_updated = checksum = delete = _none


def test_filesystems_of_beam_follow_the_rule_too() -> None:
    expected = ["memory://h/in/2023/c.parquet", "memory://h/in/a.parquet"]
    for place in ("memory://h/in", "memory://h/in/", "memory://h/in/**", "memory://h/in/**/*.parquet", "memory://h/i*"):
        assert find_files(place) == expected
    assert find_files("memory://h/in/_t/b.parquet") == ["memory://h/in/_t/b.parquet"]
    assert find_files("memory://h/in/_t/*") == ["memory://h/in/_t/b.parquet"]


def test_selections_begin_where_their_files_do() -> None:
    assert glob_regex("a/**").fullmatch("a/b/c")
    assert not glob_regex("a/**").fullmatch("a/_b/c")
    assert (in_folder("a").root, in_folder("a/").root, in_folder("").root, in_folder("/").root) == ("a/", "a/", "", "/")
    assert (matched("a/b*c").root, matched("a/b*c").start, matched("a/b*c").is_deep) == ("a/", "a/b", False)
    assert in_matched("a/b*").files.fullmatch("a/bc/d/e")
    assert not in_matched("a/b*").files.fullmatch("a/bc/_d/e")


# file: URIs and pathlib


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """A folder whose name a URI has to encode."""
    folder = tmp_path / "my data ü 100%"
    folder.mkdir()
    return folder


def test_uris_and_path_objects_are_paths(odd: Path) -> None:
    raster(odd / "s t.tif")
    (odd / "p").mkdir()
    pq.write_table(table(), odd / "p/p ä.parquet")
    path = odd / "p/p ä.parquet"
    uri = path.as_uri()
    assert "%20" in uri and "%C3" in uri
    for place in (path, uri, uri.replace("file://", "file://localhost"), uri.replace("file://", "file:"), str(path)):
        assert find_files(place) == [str(path)]
    for place in ((odd / "p").as_uri(), odd / "p", f"{odd.as_uri()}/p/*.parquet", [path, uri]):
        assert find_files(place) == [str(path)]
        assert len(list(ReadPoints(place, geometry_crs=4326).batches())) == 1
    for href in (odd / "s t.tif", (odd / "s t.tif").as_uri(), odd, odd.as_uri(), f"{odd.as_uri()}/*.tif"):
        assert build_from_cogs(href).check_files() is None
        assert find_rasters(href) == [str(odd / "s t.tif")]


def test_another_host_is_refused() -> None:
    with pytest.raises(InputError, match=r"names the host 'server'; a file: URI of this machine has three slashes"):
        find_files("file://server/share/p.parquet")
    with pytest.raises(InputError, match="names the host 'server'"):
        build_from_cogs("file://server/share/s.tif")
    with pytest.raises(InputError, match="names the host 'c'"):
        rasteret_beam.load("file://c/collection")


@pytest.mark.parametrize("spelt", [Path, Path.as_uri])
def test_every_path_may_be_a_uri_or_a_path_object(odd: Path, spelt: Callable[[Path], Any]) -> None:
    build_from_cogs(spelt(raster(odd / "s.tif"))).export(spelt(odd / "c"))
    assert len(rasteret_beam.load(spelt(odd / "c"))) == 1
    rasteret_beam.register("odd/one", spelt(odd / "c"))
    assert len(rasteret_beam.load("odd/one")) == 1
    pq.write_table(table(), odd / "p.parquet")
    assert len(list(ReadPoints(spelt(odd / "p.parquet"), geometry_crs=4326).batches())) == 1
    (odd / "f.csv").write_text('wkt\n"POLYGON ((500000 5000160, 500020 5000160, 500020 5000140, 500000 5000160))"\n')
    assert ReadPolygons(spelt(odd / "f.csv"), geometry_column="wkt", geometry_crs=4326).first_batch() is not None
    (odd / "f.geojson").write_text('{"type": "Point", "coordinates": [0, 0]}')
    assert ReadPolygons(spelt(odd / "f.geojson")).first_batch() is not None
    pq.write_table(DEAD_LETTER_SCHEMA.empty_table(), odd / "d.parquet")
    assert SampleDeadLetters(rasteret_beam.load(odd / "c"), spelt(odd / "d.parquet")).bands == []
    assert WriteSamplesToParquet(spelt(odd / "s.parquet")).prefix == str(odd / "s")
    assert WriteChipsToParquet(spelt(odd / "c")).prefix == str(odd / "c")
    assert WriteChipsToGeoTiff(spelt(odd / "t")).folder == str(odd / "t")
    assert BuildCollection(spelt(odd / "b")).output == str(odd / "b")
    assert sources_from_cogs([spelt(odd / "s.tif")])[0].href == str(odd / "s.tif")


def test_flags_take_uris(odd: Path) -> None:
    raster(odd / "s.tif")
    pq.write_table(pa.table({"x": [500005.0], "y": [5000155.0]}), odd / "p.parquet")
    build = [f"--cogs={(odd / 's.tif').as_uri()}", f"--output={(odd / 'c').as_uri()}"]
    assert execute(build_collection.main, *build).code == 0
    words = [f"--points={(odd / 'p.parquet').as_uri()}", f"--collection={(odd / 'c').as_uri()}", "--geometry_crs=32631"]
    outcome = execute(sample_points.main, *words, "--bands=B1", f"--output={(odd / 'out/s').as_uri()}")
    assert outcome.code == 0
    assert pq.read_table(odd / "out/s-00000-of-00001.parquet")["value"].to_pylist() == [0.0]
