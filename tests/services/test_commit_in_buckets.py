"""Outputs in buckets are put in place whole, or not at all, whichever request a run is killed before."""

import io
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path

import botocore.httpsession
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import requests
from apache_beam.io.aws.clients.s3 import boto3_client
from apache_beam.io.filesystems import FileSystems
from apache_beam.io.gcp import gcsio
from apache_beam.options.pipeline_options import PipelineOptions

import rasteret_beam
from rasteret_beam import Collection
from rasteret_beam.errors import MissingInputError
from rasteret_beam.kernels.storage.manifests import Manifest
from rasteret_beam.transforms.runtime.files import find_files, open_file
from rasteret_beam.transforms.sinks.commit import Output, Staged, abandon, commit, is_in_place
from rasteret_beam.transforms.sinks.parquet import shards
from tests.support.buckets import SERVICES, Place
from tests.support.kills import EARLY, LATE, NEVER, Killed, cut_off, rows

pytestmark = pytest.mark.slow

READING = ("GET", "HEAD")


@pytest.fixture(scope="module", params=["gs", "s3"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with (
        pytest.MonkeyPatch.context() as patch,
        SERVICES[request.param](tmp_path_factory.mktemp("bucket"), patch) as found,
    ):
        FileSystems.set_options(PipelineOptions())  # as a pipeline does; Beam's S3 needs it
        patch.setattr(boto3_client, "Client", lru_cache(boto3_client.Client))  # Beam makes one for each operation
        yield found


@pytest.fixture
def kill_after(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], list[str]]:
    """Let so many requests that change the bucket happen, and then no more; gives the list of those that happened.

    Beam packs copies and deletions on gs:// into one request, which the service may end half-way: here each is one.
    """
    monkeypatch.setattr(gcsio, "MAX_BATCH_OPERATION_SIZE", 1)
    happened: list[str] = []
    most = [0]

    def counted(real: Callable) -> Callable:
        def send(session, request, **kwargs):
            if request.method not in READING:
                if len(happened) >= most[0]:
                    raise Killed
                happened.append(f"{request.method} {request.url}")
            return real(session, request, **kwargs)

        return send

    for client in (requests.Session, botocore.httpsession.URLLib3Session):
        monkeypatch.setattr(client, "send", counted(client.send))

    def arm(number: int) -> list[str]:
        happened.clear()
        most[0] = number
        return happened

    arm(NEVER)
    return arm


def staged(prefix: str, run: str, files: int, started: float = LATE) -> Staged:
    """Files of a run, each with its name in it, that are to become the output."""
    output = Output(prefix, run, started)
    moves = {}
    for number in range(files):
        fresh = f"{output.temporary}/{number}.parquet"
        with FileSystems.create(fresh) as file:
            pq.write_table(pa.table({"run": [run], "number": [number]}), file)
        moves[f"{prefix}-{number:05d}-of-{files:05d}.parquet"] = fresh
    return Staged(output, moves, shards)


def seen(place: str) -> list[tuple[str, int]]:
    """The rows that this package reads, of the output's folder or of a glob."""
    try:
        names = find_files(place)
    except MissingInputError:
        return []
    rows = []
    for name in names:
        with open_file(name) as file:
            rows += pq.read_table(io.BytesIO(file.read())).to_pylist()
    return sorted((row["run"], row["number"]) for row in rows)


@pytest.mark.parametrize("what", ["rerun", "abandon"])
def test_a_kill_before_each_request(place: Place, kill_after, what: str) -> None:
    """A reader sees the old output whole or the new one whole; what comes next leaves no trace of the killed run."""
    old, new = 3, 2
    steps = 0
    for killed_after in range(100):
        folder = f"{place.uri}/{what}-{killed_after}/"
        prefix = f"{folder}out"
        commit([staged(prefix, "old", old, EARLY)])
        fresh = staged(prefix, "new", new)
        if cut_off(kill_after, killed_after, [fresh]) is None:
            break
        steps += 1
        decided = is_in_place(fresh.output)
        expected = rows("new", new) if decided else rows("old", old)
        assert seen(folder) == seen(f"{prefix}-*.parquet") == expected, killed_after
        if what == "rerun":
            commit([staged(prefix, "newer", 1, LATE + 1)])
            expected = rows("newer", 1)
        else:
            assert abandon(fresh.output) is decided
        assert seen(folder) == expected
        left = [name for name in place.names() if name.startswith(folder.removeprefix(f"{place.uri}/"))]
        assert sum(name.endswith(".parquet") and ".temporary-" not in name for name in left) == len(expected)
        if what == "abandon" or decided:
            assert not [name for name in left if ".temporary-new" in name]
    assert steps >= 2 * new + 2, "each file is copied and deleted; the decision and its end are written"


def test_a_collection_is_read_as_its_build_has_decided(place: Place, scenes: Collection, tmp_path: Path) -> None:
    """One file has moved, two have not, and one of the earlier build is there still."""
    scenes.export(tmp_path / "new")
    parts = sorted(str(path.relative_to(tmp_path / "new")) for path in (tmp_path / "new").rglob("*.parquet"))
    assert len(parts) == 3
    for part in parts[1:]:
        place.upload(tmp_path / "new" / part, f"decided/_built.temporary-run/{part}")
    place.upload(tmp_path / "new" / parts[0], f"decided/built/{parts[0]}")
    scenes.subset(date_range="2023-01").export(tmp_path / "old")
    (old,) = (tmp_path / "old").rglob("*.parquet")
    place.upload(old, "decided/built/year=2023/month=1/part-9.parquet")
    moves = {f"built/{part}": f"_built.temporary-run/{part}" for part in parts}
    manifest = Manifest("run", LATE, moves, ("built/year=2023/month=1/part-9.parquet",))
    place.put("decided/_built.manifest.json", manifest.to_json())
    found = rasteret_beam.load(f"{place.uri}/decided/built").to_table().select(["id", "month"]).sort_by("id")
    assert found.to_pydict() == {"id": scenes.to_table()["id"].sort().to_pylist(), "month": [1, 4, 7, 1, 4, 7]}
