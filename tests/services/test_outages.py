"""Servers that are killed and started again, or answer 503 for a while, in the middle of a job.

The job ends with exactly the right rows, or fails by one clear line, leaves nothing behind, and a rerun gives them.
"""

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from apache_beam.internal.gcp import auth
from google.auth.credentials import AnonymousCredentials
from google.cloud import bigquery

from pipelines import sample_points
from rasteret_beam import Collection, build_from_cogs
from rasteret_beam.readers.storage import byte_ranges
from rasteret_beam.readers.storage.byte_ranges import RetryPolicy
from tests.support.bucket_contents import POINTS, same, table_at
from tests.support.buckets import SERVICES, Place
from tests.support.commands import Outcome, as_flags, execute
from tests.support.emulators import BUCKET, PROJECT, cloud, credentials_file
from tests.support.front import Front, rule
from tests.support.pipelines import XY, read
from tests.support.rasters import RasterCase
from tests.support.server import Fault, Plan, RasterServer, Request, no_plan

DEFLATE = {"COMPRESS": "DEFLATE", "PREDICTOR": "2"}
NAMES = [f"scene_{number:02d}" for number in range(12)]
OUT_SECONDS = 1.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve rasters that are read by ranges and one by GDAL, and points as a file."""
    made = tmp_path_factory.mktemp("rasters")
    for name in NAMES:
        RasterCase(name=name, dtype="uint16", options=DEFLATE).write(made)
    RasterCase(name="by_gdal", dtype="uint8", options={"COMPRESS": "JPEG"}).write(made)
    pq.write_table(points(), made / "points.parquet", row_group_size=100)
    return made


@pytest.fixture(scope="module")
def expected(folder: Path) -> pa.Table:
    local = build_from_cogs([folder / f"{name}.tif" for name in [*NAMES, "by_gdal"]])
    return local.sample_points(points(), ["B1"], **XY)


def points() -> pa.Table:
    rng = np.random.default_rng(5)
    return pa.table({"x": 500_000 + rng.uniform(0, 3600, 400), "y": 4_500_000 - rng.uniform(0, 2512, 400)})


@pytest.fixture(scope="module", params=SERVICES)
def place(request: pytest.FixtureRequest, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with (
        pytest.MonkeyPatch.context() as patch,
        SERVICES[request.param](tmp_path_factory.mktemp("bucket"), patch) as found,
    ):
        hrefs = [found.upload(folder / f"{name}.tif", f"scenes/{name}.tif") for name in [*NAMES, "by_gdal"]]
        found.upload(folder / "points.parquet", "points.parquet")
        build_from_cogs(hrefs).export(f"{found.uri}/collection")
        yield found


@contextmanager
def started_again(front: Front) -> Iterator[None]:
    """Start a front anew, a while after a rule has ended it."""

    def again() -> None:
        front.wait_for_its_end()
        time.sleep(OUT_SECONDS)
        front.start()

    first = front.process
    assert first is not None
    thread = threading.Thread(target=again)
    thread.start()
    try:
        yield
    finally:
        if first.poll() is None:  # the job did not ask for so much
            first.kill()
        thread.join(120)
    assert front.is_running()


def sample(place: Place, output: str, **flags: object) -> Outcome:
    given = {"points": f"{place.uri}/points.parquet", "collection": f"{place.uri}/collection", "bands": "B1", **flags}
    return execute(
        sample_points.main, *POINTS, *(f"--{name}={value}" for name, value in given.items()), f"--output={output}"
    )


@pytest.mark.slow
@pytest.mark.parametrize(("path", "after"), [("scene_", 5), ("by_gdal.tif", 0)])
def test_the_server_is_killed_while_rasters_are_read(
    place: Place, expected: pa.Table, tmp_path: Path, path: str, after: int
) -> None:
    with place.front.ruled(rule(path, die=True, after=after, times=1)), started_again(place.front):
        done = sample(place, str(tmp_path / "s"))
    assert (done.code, done.err) == (0, "")
    assert same(read(tmp_path / "s"), expected)
    after_it = [request for request in place.front.log() if path in unquote(str(request["path"]))]
    assert 206 in {request["status"] for request in after_it}


@pytest.mark.slow
@pytest.mark.parametrize("what", ["points.parquet", "collection"])
def test_the_server_is_killed_while_points_and_index_are_read(
    place: Place, expected: pa.Table, tmp_path: Path, what: str
) -> None:
    with place.front.ruled(rule(what, die=True, after=3, times=1)), started_again(place.front):
        done = sample(place, str(tmp_path / "s"))
    assert (done.code, done.err) == (0, "")
    assert same(read(tmp_path / "s"), expected)


def finishes(place: Place, first: Outcome, prefix: str, expected: pa.Table) -> None:
    """A job has given its rows; or has failed by one clear line, and gives them when it is run again."""
    done = first
    if first.code != 0:
        lines = first.err.strip().splitlines()
        assert first.code == 1 and len(lines) == 1 and lines[0].startswith("error: "), first.err
        done = sample(place, f"{place.uri}/{prefix}")
    assert (done.code, done.err) == (0, "")
    assert same(table_at(place, f"{prefix}-"), expected)
    assert not [name for name in place.names() if "probe" in name]


WRITES = {"gs": "out/s|/upload/", "s3": "out/s"}


@pytest.mark.slow
@pytest.mark.parametrize("after", [6])
def test_the_server_is_killed_while_samples_are_written(place: Place, expected: pa.Table, after: int) -> None:
    writes = rule(WRITES[place.uri[:2]], die=True, after=after, times=1)
    with place.front.ruled(writes), started_again(place.front):
        first = sample(place, f"{place.uri}/out/s")
    finishes(place, first, "out/s", expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "must_finish"), [("scene_|by_gdal.tif", True), ("points|collection", True), ("out/t|/upload/", False)]
)
def test_503s_for_a_while(place: Place, expected: pa.Table, path: str, must_finish: bool) -> None:
    with place.front.ruled(rule(path, status=503, times=4)):
        first = sample(place, f"{place.uri}/out/t")
    assert first.code == 0 or not must_finish
    finishes(place, first, "out/t", expected)


@pytest.mark.slow
def test_a_server_that_stays_away(
    place: Place, expected: pa.Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(byte_ranges, "RETRY_POLICY", RetryPolicy(tries=2, first_pause=0.01))
    with place.front.ruled(rule("scene_", die=True, after=3)):
        first = sample(place, str(tmp_path / "s"))
    place.front.start()
    assert first.code == 1 and len(first.err.splitlines()) == 1
    # A connection that the server accepted just before it died is reset, not refused.
    assert re.search(r"could not be read in 2 attempt\(s\); last error: the connection was (refused|reset)", first.err)
    assert list(tmp_path.iterdir()) == []
    again = sample(place, str(tmp_path / "s"))
    assert again.code == 0 and same(read(tmp_path / "s"), expected)


# BigQuery


@dataclass(frozen=True)
class Warehouse:
    """BigQuery and Cloud Storage, each behind a front."""

    bigquery: Front
    storage: Front
    client: bigquery.Client


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warehouse]:
    folder = tmp_path_factory.mktemp("cloud")
    with (
        pytest.MonkeyPatch.context() as patch,
        cloud(folder) as found,
        Front(found.bigquery) as rows,
        Front(found.storage, gcs=True) as files,
    ):
        patch.setenv("BIGQUERY_EMULATOR_HOST", found.bigquery)
        client = bigquery.Client(project=PROJECT, credentials=AnonymousCredentials())
        client.create_dataset(f"{PROJECT}.outage")
        patch.setenv("BIGQUERY_EMULATOR_HOST", rows.url)
        patch.setenv("STORAGE_EMULATOR_HOST", files.url)
        patch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(credentials_file(folder)))
        patch.setattr(auth._Credentials, "_credentials_init", False)
        yield Warehouse(rows, files, client)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("server", "what"),
    [
        ("bigquery", rule("/jobs", method="POST", die=True, after=1, times=1)),  # the first is a dry run
        ("bigquery", rule("/jobs/", method="GET", die=True, after=1, times=1)),
        ("bigquery", rule("", status=503, times=5, after=3)),
        ("storage", rule("/upload/", die=True, after=1, times=1)),
        ("storage", rule("", status=503, times=5, after=3)),
    ],
)
def test_a_load_through_an_outage(
    warehouse: Warehouse, folder: Path, expected: pa.Table, tmp_path: Path, server: str, what: dict[str, object]
) -> None:
    build_from_cogs([folder / f"{name}.tif" for name in [*NAMES, "by_gdal"]]).export(tmp_path / "c")
    run_id = f"r{uuid4().hex[:8]}"
    given = {"points": folder / "points.parquet", "collection": tmp_path / "c", "bands": "B1"}
    table = {"bigquery": f"{PROJECT}:outage.{run_id}", "bq_run_id": run_id, "temp_location": f"gs://{BUCKET}/temp"}
    words = [*POINTS, *as_flags(**given, **table)]
    front: Front = getattr(warehouse, server)
    with front.ruled(what), started_again(front) if what["die"] else nullcontext():
        done = execute(sample_points.main, *words)
    if done.code != 0:
        assert done.code == 1 and done.err.startswith("error: ") and done.err.count("error: ") == 1
    again = execute(sample_points.main, *words)
    assert again.code == 0
    found = warehouse.client.query(f"SELECT point_index, record_id, band, value FROM `{PROJECT}.outage.{run_id}`")
    assert same(pa.Table.from_pylist([dict(row) for row in found.result()]), expected)


# Dead letters


def failing(*names: str) -> Plan:
    def plan(request: Request) -> Fault | None:
        return Fault(status=503) if request.name.removesuffix(".tif") in names else None

    return plan


def test_files_that_stay_away_are_given_up_and_tried_again(
    folder: Path, expected: pa.Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(byte_ranges, "RETRY_POLICY", RetryPolicy(tries=3, first_pause=0.01))
    expected = expected.filter(pc.not_equal(expected["record_id"], "by_gdal"))
    with RasterServer(folder) as server:
        remote = of_server(server, folder)
        remote.export(tmp_path / "collection")
        server.reset(failing("scene_03", "scene_07"))
        words = [f"--points={folder}/points.parquet", *POINTS, f"--collection={tmp_path}/collection", "--bands=B1"]
        outputs = [f"--{flag}={tmp_path}/{flag}" for flag in ("output", "unsampled", "dead_letter")]
        first = execute(sample_points.main, *words, *outputs)
        assert first.code == 3
        lost = [name in ("scene_03", "scene_07") for name in expected["record_id"].to_pylist()]
        samples, letters = read(tmp_path / "output"), pq.read_table(tmp_path / "dead_letter-00000-of-00001.parquet")
        assert same(samples, expected.filter(pa.array([not each for each in lost])))
        # Each point on each record is sampled, given up, or on none at all.
        given_up = [(row["record_id"], point) for row in letters.to_pylist() for point in row["point_indexes"]]
        wanted = zip(
            *(expected.filter(pa.array(lost))[name].to_pylist() for name in ("record_id", "point_index")), strict=True
        )
        assert sorted(given_up) == sorted(wanted)
        assert len(samples) + len(given_up) == len(expected) == first.figures["rows"] + first.figures["values in them"]
        left = pq.read_table(tmp_path / "unsampled-00000-of-00001.parquet")["point_index"].to_pylist()
        assert sorted([*left, *set(expected["point_index"].to_pylist())]) == list(range(400))
        assert set(letters["attempts"].to_pylist()) == {3}
        server.reset(no_plan)
        again = [f"--retry={tmp_path}/dead_letter-*.parquet", f"--collection={tmp_path}/collection"]
        second = execute(sample_points.main, *again, f"--output={tmp_path}/again")
        assert (second.code, second.err) == (0, "")
        assert same(read(tmp_path / "again"), expected.filter(pa.array(lost)))


def of_server(server: RasterServer, folder: Path) -> Collection:
    """The collection with the server's URLs: headers are those of the files themselves."""
    table = build_from_cogs([folder / f"{name}.tif" for name in NAMES]).to_table()
    rows = table["assets"].to_pylist()
    for row in rows:
        row["B1"]["href"] = row["B1"]["href"].replace(str(folder), server.url)
    assets = pa.array(rows, type=table.schema.field("assets").type)
    return Collection.from_table(table.set_column(table.schema.get_field_index("assets"), "assets", assets))
