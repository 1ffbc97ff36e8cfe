"""Paths at gs://, s3:// and http(s):// wherever one is taken; local files are the oracle."""

import gzip
import json
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from uuid import uuid4

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pv
import pyarrow.parquet as pq
import pytest
import shapely
from apache_beam.transforms.display import DisplayData
from rasterio.io import MemoryFile

import rasteret_beam
from pipelines import build_collection, read_chips, sample_points
from rasteret_beam import (
    Access,
    BuildCollection,
    Collection,
    ReadPoints,
    ReadPolygons,
    SamplePoints,
    WriteChipsToGeoTiff,
    WriteChipsToParquet,
    WriteSamplesToParquet,
    build_from_cogs,
    metrics,
)
from rasteret_beam.collection.parquet.versions import CollectionVersion, IndexVersions, look
from rasteret_beam.errors import (
    CollectionError,
    InputError,
    MissingInputError,
    OutputError,
    RasteretBeamError,
    TileReadError,
)
from rasteret_beam.kernels.storage.globs import glob_regex
from rasteret_beam.readers.storage import byte_ranges, objects, stores
from rasteret_beam.readers.storage.byte_ranges import RetryPolicy
from rasteret_beam.readers.storage.listing import find_rasters
from rasteret_beam.transforms.runtime.files import find_files
from tests.support.bucket_contents import CASES, COLUMNS, POINTS, points, same, table_at
from tests.support.buckets import KEYS, SERVICES, Place
from tests.support.commands import as_flags, execute
from tests.support.emulators import credentials_file
from tests.support.front import rule
from tests.support.pipelines import XY
from tests.support.server import Fault, RasterServer, first, no_plan


@pytest.fixture(scope="module", params=["gs", pytest.param("s3", marks=pytest.mark.slow)])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """The rasters, two point files and a polygon file in a bucket."""
    with (
        pytest.MonkeyPatch.context() as patch,
        SERVICES[request.param](tmp_path_factory.mktemp("bucket"), patch) as found,
    ):
        folder = tmp_path_factory.mktemp("local")
        for case in CASES:
            found.upload(case.write(folder), f"a folder/{case.name}.tif")
        found.put("a folder/deeper/notes.txt", b"no raster")
        for number, part in enumerate((points().slice(0, 200), points().slice(200))):
            pq.write_table(part, folder / "p.parquet", row_group_size=60)
            found.upload(folder / "p.parquet", f"points/part-{number}.parquet")
        pq.write_table(polygons(), folder / "polygons.parquet")
        found.upload(folder / "polygons.parquet", "polygons.parquet")
        yield found


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Collection:
    folder = tmp_path_factory.mktemp("oracle")
    return build_from_cogs([case.write(folder) for case in CASES])


def polygons() -> pa.Table:
    boxes = [shapely.box(500_100 + 400 * n, 4_498_000, 500_300 + 400 * n, 4_498_300) for n in range(4)]
    return pa.table({"field": ["a", "b", "c", "d"], "geometry": shapely.to_wkb(boxes)})


@pytest.fixture(scope="module")
def collection(place: Place) -> str:
    """Built by the command, of a glob, into the bucket."""
    words = [f"--cogs={place.uri}/a folder/*.tif", f"--output={place.uri}/collection", "--name=c"]
    done = execute(build_collection.main, *words)
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("2 of 2 records in ")
    return f"{place.uri}/collection"


def test_everything_in_the_bucket(place: Place, collection: str, local: Collection) -> None:
    words = [f"--points={place.uri}/points", *POINTS, f"--collection={collection}", "--bands=B1,B2"]
    outputs = [f"--output={place.uri}/out/samples", f"--unsampled={place.uri}/out/left"]
    done = execute(sample_points.main, *words, *outputs)
    assert (done.code, done.err) == (0, "")
    expected = local.sample_points(points(), ["B1", "B2"], **XY)
    assert same(table_at(place, "out/samples"), expected, [*COLUMNS, "plot"])
    sampled = set(expected["point_index"].to_pylist())
    assert set(table_at(place, "out/left")["point_index"].to_pylist()) == set(range(300)) - sampled
    assert 0 < len(sampled) < 300
    assert not [name for name in place.names() if "temporary" in name or "probe" in name]
    again = execute(sample_points.main, *words, *outputs)  # in place of what is there
    assert again.code == 0 and again.figures["rows"] == len(expected) == table_at(place, "out/samples").num_rows


def test_both_engines_in_one_process(place: Place, collection: str, local: Collection) -> None:
    loaded = rasteret_beam.load(collection)
    assert same(loaded.sample_points(points(), ["B1", "B2"], **XY), local.sample_points(points(), ["B1", "B2"], **XY))
    shape = polygons()["geometry"][1].as_py()
    grids = {"geometry_crs": 32631}
    for record in ("indexed", "by_gdal"):
        found, wanted = (each.subset(ids=[record]).get_numpy([shape], ["B1"], **grids) for each in (loaded, local))
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.slow
def test_dead_letters_and_retry(place: Place, collection: str, local: Collection) -> None:
    words = [f"--points={place.uri}/points/part-*.parquet", *POINTS, f"--collection={collection}", "--bands=B1"]
    with place.front.ruled(rule("a folder/indexed.tif", status=403)):
        first = execute(sample_points.main, *words, f"--output={place.uri}/half/s", f"--dead_letter={place.uri}/half/d")
    assert first.code == 3 and first.figures["tiles given up"] > 0
    retry = [f"--retry={place.uri}/half/d-*.parquet", f"--collection={collection}", f"--output={place.uri}/rest/s"]
    second = execute(sample_points.main, *retry)
    assert (second.code, second.err) == (0, "")
    both = pa.concat_tables([table_at(place, "half/s"), table_at(place, "rest/s")])
    assert same(both, local.sample_points(points(), ["B1"], **XY))


@pytest.mark.slow
def test_chips(place: Place, collection: str, local: Collection) -> None:
    words = [f"--polygons={place.uri}/polygons.parquet", "--geometry_crs=32631", f"--collection={collection}"]
    outputs = [f"--{flag}={place.uri}/chips/{flag}" for flag in ("output", "geotiff", "unmatched")]
    done = execute(read_chips.main, *words, "--bands=B1", *outputs)
    assert (done.code, done.err) == (0, "")
    tiffs = sorted(name for name in place.names() if name.startswith("chips/geotiff/"))
    assert tiffs == [f"chips/geotiff/{n}@{record}@B1.tif" for n in range(4) for record in ("by_gdal", "indexed")]
    expected = local.subset(ids=["indexed"]).get_numpy([polygons()["geometry"][2].as_py()], ["B1"], geometry_crs=32631)
    with MemoryFile(place.get("chips/geotiff/2@indexed@B1.tif")) as memory, memory.open() as opened:
        np.testing.assert_array_equal(opened.read(1), expected[0])


def test_export_replaces_a_collection_and_nothing_else(place: Place, collection: str, local: Collection) -> None:
    local.export(f"{place.uri}/exported")
    local.subset(ids=["indexed"]).export(f"{place.uri}/exported")
    assert rasteret_beam.load(f"{place.uri}/exported").to_table()["id"].to_pylist() == ["indexed"]
    local.export(f"{place.uri}/one.parquet")
    assert len(rasteret_beam.load(f"{place.uri}/one.parquet")) == 2
    before = place.names()
    for other in ("a folder", "points"):
        with pytest.raises(OutputError, match="so it is not replaced"):
            local.export(f"{place.uri}/{other}")
        words = [f"--cogs={place.uri}/a folder/indexed.tif", f"--output={place.uri}/{other}"]
        expected = "would replace --cogs" if other == "a folder" else "so it is not replaced"
        assert expected in execute(build_collection.main, *words).err
    assert place.names() == before


@pytest.mark.slow
def test_a_collection_that_grows(place: Place, collection: str, local: Collection) -> None:
    ids = sorted(rasteret_beam.load(collection).to_table(["id"])["id"].to_pylist())
    folder = f"{place.uri}/growing"
    parts = [rasteret_beam.load(collection).where(pc.field("id") == one) for one in ids]
    parts[0].export(folder)
    growing = rasteret_beam.load(folder)
    first = look(folder)
    place.put("growing/_temporary/part-0.parquet", b"not yet")
    assert look(folder) == first
    place.put("empty/_temporary/part-0.parquet", b"not yet")
    with pytest.raises(MissingInputError, match="has no Parquet files"):
        look(f"{place.uri}/empty")
    parts[1].export(f"{folder}/more")
    second = look(folder)
    assert {file[0] for file in second.files} > {file[0] for file in first.files}
    assert CollectionVersion.of(second.text) == second == look(folder)
    indexes = IndexVersions(growing, ["B1"], "all", 1 << 20, growing.schema)
    assert indexes.at(first).routing.record_ids == ids[:1]
    assert sorted(indexes.at(second).routing.record_ids) == ids
    name = first.files[0][0].removeprefix(f"{place.uri}/")
    data = place.get(name)
    place.put(name, data[:-1] + bytes([data[-1] ^ 1]))  # as many bytes as before
    with pytest.raises(CollectionError, match=r"of the growing collection .* has been rewritten"):
        indexes.at(look(folder))


@pytest.mark.slow
def test_a_table_of_records(place: Place, local: Collection, tmp_path: Path) -> None:
    rows = {"id": ["one"], "datetime": ["2023-01-05"], "path": [f"{place.uri}/a folder/indexed.tif"]}
    pq.write_table(pa.table(rows), tmp_path / "items.parquet")
    table = place.upload(tmp_path / "items.parquet", "items.parquet")
    words = [f"--table={table}", "--href_column=path", "--bands=X:1", f"--output={place.uri}/of_table"]
    assert execute(build_collection.main, *words).code == 0
    found = rasteret_beam.load(f"{place.uri}/of_table").sample_points(points(), ["X"], **XY)["value"]
    assert found.equals(local.subset(ids=["indexed"]).sample_points(points(), ["B2"], **XY)["value"])


def test_listing(place: Place) -> None:
    inside = [f"{place.uri}/a folder/by_gdal.tif", f"{place.uri}/a folder/indexed.tif"]
    for given in (
        "a folder",
        "a folder/",
        "a folder/*.tif",
        "a fol*/*.tif",
        "**/*[dl].tif",
        "a folder/*ed.tif,a folder",
    ):
        assert find_rasters([f"{place.uri}/{part}" for part in given.split(",")]) == inside
    assert find_rasters([inside[0]]) == inside[:1]
    assert find_files(f"{place.uri}/points/") == [f"{place.uri}/points/part-{number}.parquet" for number in (0, 1)]
    with pytest.raises(MissingInputError, match=r"there is no file, folder or match of .*/a f$"):
        find_rasters([f"{place.uri}/a f"])
    with pytest.raises(MissingInputError, match=r"there is no file, folder or match of .*/point$"):
        find_files(f"{place.uri}/point")
    with pytest.raises(MissingInputError, match=r"there is no \*.tif file in"):
        find_rasters([f"{place.uri}/points"])


def test_hidden_objects_partitions_and_literal_names(place: Place, tmp_path: Path) -> None:
    pq.write_table(points().slice(0, 3), tmp_path / "p.parquet")
    kept = ["country=FR/a.parquet", "country=IT/deep/b.parquet", "country=IT/[1].parquet"]
    hidden = [".ipynb_checkpoints/a.parquet", "country=FR/_temporary/a.parquet", "_SUCCESS", "country=FR/._a.parquet"]
    folder = f"found-{uuid4().hex}"
    for name in (*kept, *hidden):
        place.upload(tmp_path / "p.parquet", f"{folder}/{name}")
    urls = sorted(f"{place.uri}/{folder}/{name}" for name in kept)
    for pattern in ("", "/", "/**", "/**/*.parquet", "/country=*"):
        assert find_files(f"{place.uri}/{folder}{pattern}") == urls
    assert find_files(f"{place.uri}/{folder}/country=IT/[1].parquet") == [urls[1]]
    assert find_files(f"{place.uri}/{folder}/country=FR/_t*/*") == [
        f"{place.uri}/{folder}/country=FR/_temporary/a.parquet"
    ]
    read = pa.Table.from_batches(ReadPoints(f"{place.uri}/{folder}", **XY).batches())
    assert read["country"].to_pylist() == ["FR"] * 3 + ["IT"] * 6


def test_hidden_objects_are_no_part_of_a_collection(place: Place, local: Collection, tmp_path: Path) -> None:
    local.export(tmp_path / "c.parquet")
    folder = f"collection-{uuid4().hex}"
    for name in ("part.parquet", ".ipynb_checkpoints/part.parquet", "_temporary/part.parquet"):
        place.upload(tmp_path / "c.parquet", f"{folder}/{name}")
    for path in (folder, f"{folder}/*.parquet"):
        assert len(rasteret_beam.load(f"{place.uri}/{path}")) == len(local)
    table = rasteret_beam.build_from_table(
        f"{place.uri}/{folder}/**", band_codes=["B1"], access=Access(allow_local=True)
    )
    assert len(table) == len(local)


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("b/*.tif", ["b/x.tif"], ["b/.tif", "b/x/y.tif", "b/x.tiff", "c/b/x.tif"]),
        ("b/**/x.tif", ["b/x.tif", "b/c/d/x.tif"], ["b/cx.tif"]),
        ("b/**", ["b/x", "b/c/d"], ["b"]),
        ("b/?[ab][!c].(t)", ["b/xad.(t)"], ["b/xac.(t)", "b/xcd.(t)", "b//ad.(t)"]),
        ("b/[x", ["b/[x"], ["b/x"]),
        ("b/[]x].t", ["b/].t", "b/x.t"], ["b/[.t"]),
    ],
)
def test_globs(pattern: str, yes: list[str], no: list[str]) -> None:
    assert all(map(glob_regex(pattern).fullmatch, yes))
    assert not any(map(glob_regex(pattern).fullmatch, no))


# How a bucket is read


@pytest.fixture
def fresh(place: Place, tmp_path: Path) -> list[str]:
    """The rasters as objects that nothing has read before (GDAL keeps bytes of what it has); a collection of them."""
    folder = f"fresh-{uuid4().hex}"
    hrefs = [place.upload(case.write(tmp_path), f"{folder}/{case.name}.tif") for case in CASES]
    build_from_cogs(hrefs).export(tmp_path / "c.parquet")
    again = [place.upload(case.write(tmp_path), f"{folder}-2/{case.name}.tif") for case in CASES]
    return [*again, place.upload(tmp_path / "c.parquet", f"{folder}/collection/c.parquet")]


def used_with(place: Place, fresh: list[str], local: Collection, access: Access) -> list[dict]:
    """Build, load and sample with an access; gives the requests, some of which each library made."""
    place.front.log()
    *hrefs, file = fresh
    assert find_rasters([hrefs[0].rpartition("/")[0]], access) == sorted(hrefs)
    expected = local.sample_points(points(), ["B1"], **XY)
    for collection in (
        build_from_cogs(hrefs, access=access),
        rasteret_beam.load(file.rpartition("/")[0], access=access),
    ):
        assert same(collection.sample_points(points(), ["B1"], **XY), expected)
    read = pa.Table.from_batches(ReadPoints(f"{place.uri}/points", access=access, **XY).batches())
    assert read["plot"].to_pylist() == points()["plot"].to_pylist()
    first_of = ReadPolygons(f"{place.uri}/polygons.parquet", geometry_crs=32631, access=access).first_batch()
    assert first_of is not None and first_of["field"].to_pylist() == ["a", "b", "c", "d"]
    seen = place.front.log()
    for part in ("by_gdal.tif", "indexed.tif", "collection", "prefix=", "points/part-1", "polygons.parquet"):
        assert any(part in unquote(request["path"]) for request in seen)
    return seen


def test_anonymous_reading_is_not_signed(
    place: Place, fresh: list[str], local: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("STORAGE_EMULATOR_HOST", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    seen = used_with(place, fresh, local, Access(anonymous=True, region="eu-west-1", endpoint=place.front.url))
    assert [request for request in seen if "authorization" in request["headers"]] == []


def test_the_reader_pays(
    place: Place, fresh: list[str], local: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    google = place.uri.startswith("gs")
    if google:
        # Credentials that need no network, of the kind that each client takes.
        monkeypatch.delenv("STORAGE_EMULATOR_HOST")
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(credentials_file(tmp_path)))
        monkeypatch.setenv("GOOGLE_BEARER_TOKEN", "token")
        monkeypatch.setenv("GS_ACCESS_KEY_ID", "GOOGID")
        monkeypatch.setenv("GS_SECRET_ACCESS_KEY", "secret")
    access = Access(requester_pays="my-project" if google else True, endpoint=place.front.url)
    # The client of Google looks at the bucket for its traces, and does without.
    traced = "/storage/v1/b/bucket?projection=noAcl&prettyPrint=false"
    seen = [request for request in used_with(place, fresh, local, access) if request["path"] != traced]
    for request in seen:
        headers, path = request["headers"], request["path"]
        if google:
            assert headers.get("x-goog-user-project") == "my-project" or "userProject=my-project" in path
            assert "token" in headers["authorization"] or "GOOGID" in headers["authorization"]
        else:
            assert headers["x-amz-request-payer"] == "requester" and "AKIAPUBLICNAME" in headers["authorization"]


def test_flags_say_how_points_and_the_collection_are_read(place: Place, local: Collection, tmp_path: Path) -> None:
    local.export(tmp_path / "c.parquet")
    pq.write_table(points(), tmp_path / "p.parquet")
    collection = place.upload(tmp_path / "c.parquet", "public.parquet")
    words = [*POINTS, f"--collection={collection}", "--bands=B2", f"--output={tmp_path}/s", "--allow_local"]
    place.front.log()
    public = ["--anonymous", "--points_anonymous", f"--points={place.uri}/points"]
    done = execute(sample_points.main, *words, *public)
    seen = place.front.log()
    assert done.code == 0 and not [request for request in seen if "authorization" in request["headers"]]
    assert any("points/part-1" in unquote(request["path"]) for request in seen)
    written = pa.concat_tables(pq.read_table(path) for path in tmp_path.glob("s-*.parquet"))
    assert same(written, local.sample_points(points(), ["B2"], **XY))
    words.append(f"--points={tmp_path}/p.parquet")
    done = execute(sample_points.main, *words, "--requester_pays=true")
    if place.uri.startswith("s3"):
        assert {request["headers"]["x-amz-request-payer"] for request in place.front.log()} == {"requester"}
    else:
        assert done.code == 1 and "needs a project to bill: --requester_pays PROJECT (" in done.err


def test_a_collection_in_a_bucket_names_no_file_of_this_machine(
    place: Place, local: Collection, tmp_path: Path
) -> None:
    local.export(tmp_path / "c.parquet")
    uri = place.upload(tmp_path / "c.parquet", "stranger.parquet")
    loaded = rasteret_beam.load(uri)
    with pytest.raises(TileReadError, match=rf"\.tif.*it is a file of this machine, named by {uri}, from elsewhere"):
        loaded.sample_points(points(), ["B1"], **XY)
    with pytest.raises(CollectionError, match="allow_local=True"):
        loaded.export(tmp_path / "mine")
    assert not (tmp_path / "mine").exists()
    allowed = rasteret_beam.load(uri, allow_local=True)
    assert same(allowed.sample_points(points(), ["B1"], **XY), local.sample_points(points(), ["B1"], **XY))
    done = execute(
        sample_points.main,
        *POINTS,
        f"--collection={uri}",
        "--bands=B2",
        f"--output={tmp_path}/s",
        f"--points={place.uri}/points",
    )
    assert done.code == 1 and done.err.count("\n") == 1 and done.err.endswith("allow it with --allow_local\n")
    assert not list(tmp_path.glob("s-*"))


def test_keys_of_a_profile(place: Place, collection: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """obstore does not know the files of ``aws configure``."""
    if place.uri.startswith("gs"):
        pytest.skip("profiles are Amazon's")
    for name in KEYS:
        monkeypatch.delenv(name)
    file = tmp_path / "credentials"
    file.write_text("[team]\naws_access_key_id = AKIAOFTEAM\naws_secret_access_key = s%cret\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    monkeypatch.setenv("AWS_PROFILE", "team")
    for without_boto3 in (False, True):
        if without_boto3:
            monkeypatch.setitem(sys.modules, "obstore.auth.boto3", None)
        monkeypatch.setattr(stores, "_stores", {})
        place.front.log()
        rasteret_beam.load(collection)
        assert all("AKIAOFTEAM" in request["headers"]["authorization"] for request in place.front.log())


# What is wrong


def refused(place: Place, collection: str, what: str, other: str, main: Any = sample_points.main) -> str:
    """The line that the command ends with when one of its flags is another; nothing was read or written."""
    given = {"points": f"{place.uri}/points", "collection": collection, "output": f"{place.uri}/never/s", "bands": "B1"}
    decoded = metrics.PROGRESS.snapshot().get(metrics.TILES_DECODED, 0)
    before = place.names()
    done = execute(main, *POINTS, *as_flags(**{**given, what: other}))
    assert done.code == 1 and done.err.count("\n") == 1 and done.err.startswith("error: "), done.err
    assert metrics.PROGRESS.snapshot().get(metrics.TILES_DECODED, 0) == decoded
    assert place.names() == before
    return done.err


@pytest.mark.parametrize("what", ["points", "collection", "output", "unsampled", "dead_letter"])
def test_a_bucket_that_does_not_exist(place: Place, collection: str, what: str) -> None:
    root = f"{place.uri}-of-nobody"
    said = refused(place, collection, what, f"{root}/a/b")
    assert f"there is no bucket {root}" in said


GRANTS = {
    "gs": ("roles/storage.objectViewer", "roles/storage.objectAdmin"),
    "s3": ("s3:ListBucket on the bucket and s3:GetObject", "s3:PutObject"),
}


@pytest.mark.parametrize(
    ("what", "path"),
    [("points", "points"), ("points", "points.*part.0"), ("collection", "collection"), ("output", "never")],
)
def test_no_permission(place: Place, collection: str, what: str, path: str) -> None:
    with place.front.ruled(rule(path, status=403)):
        other = {"points": f"{place.uri}/points", "collection": collection, "output": f"{place.uri}/never/s"}[what]
        said = refused(place, collection, what, other)
    assert GRANTS[place.uri[:2]][what == "output"] in said


def test_building_from_what_cannot_be_read(place: Place, tmp_path: Path) -> None:
    def build(cogs: str, *rules: dict[str, object]) -> str:
        with place.front.ruled(*rules):
            done = execute(build_collection.main, f"--cogs={cogs}", f"--output={tmp_path}/c")
        assert done.code == 1 and done.err.startswith("error: ") and list(tmp_path.iterdir()) == []
        return done.err

    root = f"{place.uri}-of-nobody"
    assert f"there is no bucket {root}" in build(f"{root}/*.tif")
    assert GRANTS[place.uri[:2]][0] in build(f"{place.uri}/a folder/", rule("prefix=|list-type", status=403))
    assert f"1 raster file(s) could not be read:\n  {root}/a.tif: " in build(f"{root}/a.tif")


def test_a_service_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "LISTING_SECONDS", 0.5)
    with pytest.raises(
        MissingInputError, match=r"gs://bucket at http://127.0.0.1:9 cannot be listed: no answer in time; last error"
    ) as raised:
        objects.list_folder("gs://bucket/c", Access(anonymous=True, endpoint="http://127.0.0.1:9"))
    assert "Connection refused" in str(raised.value) and "HTTPConnectionPool" not in str(raised.value)


def test_a_url_that_is_none_is_not_asked_for_again() -> None:
    with pytest.raises(MissingInputError, match="URL can't contain control characters") as raised:
        ReadPoints("http://127.0.0.1:9/a b.csv?sig=secret", **XY).point_columns()
    assert "tries" not in str(raised.value)


# Secrets


def test_secrets_stand_nowhere(
    place: Place, collection: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Not in errors, logs of any level, pickles of a pipeline or its display data."""
    caplog.set_level(logging.DEBUG, "rasteret_beam")
    caplog.set_level(logging.DEBUG, "rasterio")
    monkeypatch.setattr(byte_ranges, "RETRY_POLICY", RetryPolicy(tries=2, first_pause=0.01))
    monkeypatch.setenv("GOOGLE_BEARER_TOKEN", "hush-hush-token")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "aHVzaC1odXNo")
    secrets = ["hush-hush", "aHVzaC1odXNo", "5ec2e7"]
    texts = []
    web = place.front.url.replace("http://", "http://me:hush-hush@") + "/bucket/none"
    for url in (f"{web}.parquet", f"{place.front.url}/bucket/none.parquet{SIGNED}"):
        for make in (
            lambda url: ReadPoints(url, **XY).point_columns(),
            lambda url: ReadPolygons(url, geometry_crs=4326).polygon_columns(),
            rasteret_beam.load,
            lambda url: build_from_cogs([url.replace(".parquet", ".tif")]),
        ):
            with pytest.raises(RasteretBeamError) as raised:
                make(url)
            texts.append(str(raised.value))
    with place.front.ruled(rule("indexed|by_gdal", status=503, times=8)):
        loaded = rasteret_beam.load(collection)
        with pytest.raises(RasteretBeamError) as raised:
            loaded.subset(ids=["indexed"]).sample_points(points(), ["B1"], **XY)
        texts.append(str(raised.value))
    pipeline = beam.Pipeline()
    outputs = pipeline | ReadPoints(f"{place.uri}/points", **XY) | SamplePoints(loaded, ["B1"], with_unsampled=True)
    outputs.samples | WriteSamplesToParquet(f"{place.uri}/never/s")
    proto = pipeline.to_runner_api().SerializeToString()
    assert b"points" in proto
    texts += [caplog.text, repr(loaded), repr(loaded.access), proto.decode("latin-1")]
    texts += [DisplayData.create_from(part).to_proto().__repr__() for part in (SamplePoints(loaded, ["B1"]),)]
    assert "try 1: the server answered 503" in caplog.text
    assert [secret for secret in secrets for text in texts if secret in text] == []


# On the web


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RasterServer]:
    """Points as Parquet, CSV and packed CSV, polygons as GeoJSON, on a server."""
    folder = tmp_path_factory.mktemp("web")
    pq.write_table(points(), folder / "p.parquet", row_group_size=100)
    pv.write_csv(points(), folder / "p.csv")
    (folder / "p.csv.gz").write_bytes(gzip.compress((folder / "p.csv").read_bytes()))
    features = [
        {"type": "Feature", "properties": {"field": field}, "geometry": shapely.geometry.mapping(shapely.from_wkb(wkb))}
        for field, wkb in zip(*(column.to_pylist() for column in polygons().columns), strict=True)
    ]
    (folder / "p.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    for case in CASES:
        case.write(folder)
    with RasterServer(folder) as server:
        yield server


SIGNED = "?X-Amz-Expires=60&X-Amz-Signature=5ec2e7"


@pytest.mark.parametrize("name", ["p.parquet", "p.csv", "p.csv.gz", f"p.parquet{SIGNED}", f"p.csv{SIGNED}"])
def test_points_on_the_web(web: RasterServer, local: Collection, tmp_path: Path, name: str) -> None:
    flags = [f"--points={web.url}/{name}", *POINTS, f"--output={tmp_path}/s", "--bands=B1"]
    local.export(tmp_path / "collection")
    web.reset(web.plan)
    done = execute(sample_points.main, *flags, f"--collection={tmp_path}/collection")
    assert (done.code, done.err) == (0, "")
    found = pa.concat_tables(pq.read_table(path) for path in sorted(tmp_path.glob("s-*.parquet")))
    assert same(found, local.sample_points(points(), ["B1"], **XY), [*COLUMNS, "plot"])
    assert {request.target for request in web.log} == {f"/{name}"}


def test_a_password_is_sent_and_stands_nowhere(web: RasterServer) -> None:
    url = web.url.replace("http://", "http://user:pass%20word@")
    web.reset(web.plan)
    assert ReadPoints(f"{url}/p.parquet", **XY).point_columns().x == "x"
    assert {request.authorization for request in web.log} == {"Basic dXNlcjpwYXNzIHdvcmQ="}
    with pytest.raises(MissingInputError, match=rf"{web.url}/none.parquet cannot be opened: .*no such file") as error:
        ReadPoints(f"{url}/none.parquet", **XY).point_columns()
    assert "pass" not in str(error.value)


def test_points_are_asked_for_again(web: RasterServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(byte_ranges, "RETRY_POLICY", RetryPolicy(first_pause=0.01))
    for name in ("p.parquet", f"p.parquet{SIGNED}"):
        web.reset(first(1, Fault(status=503)))
        reading = ReadPoints(f"{web.url}/{name}", **XY)
        assert sum(len(batch) for batch in reading.batches()) == 300
        assert len({request.attempt for request in web.log}) > 1
        web.reset(no_plan)


def test_polygons_and_a_collection_on_the_web(web: RasterServer, local: Collection) -> None:
    assert ReadPolygons(f"{web.url}/p.geojson{SIGNED}").first_batch()["field"].to_pylist() == ["a", "b", "c", "d"]
    with RasterServer(web.folder) as server:
        built = build_from_cogs([f"{server.url}/indexed.tif"])
        assert same(
            built.sample_points(points(), ["B1"], **XY),
            local.subset(ids=["indexed"]).sample_points(points(), ["B1"], **XY),
        )
        built.export(web.folder / "c.parquet")
        for query in ("", SIGNED):
            loaded = rasteret_beam.load(f"{server.url}/c.parquet{query}")
            assert (loaded.name, len(loaded)) == ("c", 1)
            assert same(loaded.sample_points(points(), ["B1"], **XY), built.sample_points(points(), ["B1"], **XY))
            assert "5ec2e7" not in repr(loaded) + loaded._repr_html_()


def test_a_catalogue_on_the_web(
    web: RasterServer, local: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local.export(tmp_path / "c")
    (web.folder / "catalogue.json").write_text(json.dumps({"team/plots": {"data": str(tmp_path / "c")}}))
    monkeypatch.setenv("RASTERET_BEAM_CATALOGUE", f"{web.url}/catalogue.json{SIGNED}")
    assert len(rasteret_beam.load("team/plots")) == 2
    monkeypatch.setenv("RASTERET_BEAM_CATALOGUE", f"{web.url}/none.json{SIGNED}")
    with pytest.raises(MissingInputError, match=r"RASTERET_BEAM_CATALOGUE cannot be read: .*no such file") as error:
        rasteret_beam.load("team/plots")
    assert "5ec2e7" not in str(error.value)


WEB = "https://example.org/folder"


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda c: WriteSamplesToParquet(f"{WEB}/s"), OutputError, "output .* cannot be written to a web server"),
        (lambda c: WriteChipsToParquet(f"{WEB}/s"), OutputError, "output .* cannot be written to a web server"),
        (lambda c: WriteChipsToGeoTiff(WEB), OutputError, "folder of GeoTIFFs .* cannot be written to a web server"),
        (lambda c: BuildCollection(WEB), OutputError, "collection .* cannot be written to a web server"),
        (lambda c: c.export(WEB), OutputError, "collection .* cannot be written to a web server"),
        (lambda c: WriteSamplesToParquet("az://c/s"), OutputError, "Beam writes to Azure as azfs://"),
        (lambda c: WriteSamplesToParquet("gopher://c/s"), OutputError, "no filesystem for gopher://, only .* gs://"),
        (lambda c: WriteSamplesToParquet("ftp://me:secret@host/s"), OutputError, "no filesystem for ftp://"),
        (lambda c: find_files("ftp://me:secret@host/s.csv"), MissingInputError, "^ftp://host/s.csv cannot be listed"),
        (lambda c: find_files(f"{WEB}/"), InputError, "a web server has no folders; give the URL of each file"),
        (
            lambda c: find_rasters([f"{WEB}/*.tif"]),
            InputError,
            "a web server has no folders; give the URL of each file",
        ),
        (
            lambda c: rasteret_beam.load("ftp://host/c"),
            InputError,
            "give a local path, or a URL with http, https, s3, gs, az",
        ),
        (lambda c: Access(endpoint="http://me:secret@host"), InputError, "endpoint is 'http://host'; give a plain URL"),
        (lambda c: Access(endpoint="host:9000"), InputError, "endpoint is 'host:9000'; give a plain URL"),
        (lambda c: Access(anonymous=True, requester_pays="p"), InputError, "cannot be billed to anybody; give one"),
    ],
)
def test_what_makes_no_sense_is_refused_at_once(
    local: Collection, make: Callable[[Collection], object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as raised:
        make(local)
    assert "secret" not in str(raised.value)
