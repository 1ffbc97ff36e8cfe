"""Rasters and collections on S3: a protocol server on the loopback, and local files as the oracle."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import boto3
import numpy as np
import pyarrow as pa
import pytest
from botocore.config import Config

import rasteret_beam
from rasteret_beam import Collection, ReadPoints, SamplePoints, WriteSamplesToParquet, build_from_cogs, metrics
from rasteret_beam.errors import TileReadError
from tests.support.emulators import serving
from tests.support.pipelines import ORDER, XY, read, run
from tests.support.ports import free_port
from tests.support.rasters import RasterCase

BUCKET = "scenes"
CASES = [
    RasterCase(name="indexed", dtype="uint16", count=2, options={"COMPRESS": "DEFLATE", "PREDICTOR": "2"}),
    RasterCase(name="by_gdal", dtype="uint8", options={"COMPRESS": "JPEG"}),
]


@dataclass(frozen=True)
class Bucket:
    """A bucket on a server, what is in it, and the same files on disk."""

    endpoint: str
    client: object
    remote: Collection
    local: Collection


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", port]
    with serving(command, port, tmp_path_factory.mktemp("server") / "log"):
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def bucket(server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bucket]:
    """Built with the endpoint in the environment, as GDAL, obstore and Arrow take it; exported to the bucket."""
    folder = tmp_path_factory.mktemp("s3")
    paths = [case.write(folder) for case in CASES]
    with pytest.MonkeyPatch.context() as environment:
        for name, value in {
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_REGION": "eu-west-1",
            "NO_PROXY": "127.0.0.1",
        }.items():
            environment.setenv(name, value)
        client = boto3.client("s3", endpoint_url=server, region_name="eu-west-1", config=Config(proxies={}))
        client.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
        for path in paths:
            client.upload_file(str(path), BUCKET, f"a folder/{path.name}")
        with pytest.MonkeyPatch.context() as endpoint:
            endpoint.setenv("AWS_ENDPOINT_URL", server)
            endpoint.setenv("AWS_S3_ENDPOINT", server.removeprefix("http://"))
            endpoint.setenv("AWS_HTTPS", "NO")
            endpoint.setenv("AWS_VIRTUAL_HOSTING", "FALSE")
            remote = build_from_cogs([f"s3://{BUCKET}/a folder/{path.name}" for path in paths])
            remote.export(f"s3://{BUCKET}/collection")
        rasteret_beam.register("test/s3", f"s3://{BUCKET}/collection", endpoint=server, region="eu-west-1")
        yield Bucket(server, client, rasteret_beam.load("test/s3"), build_from_cogs(paths))


@pytest.fixture(scope="module")
def points() -> pa.Table:
    rng = np.random.default_rng(3)
    return pa.table({"x": 500_000 + rng.uniform(0, 3248, 300), "y": 4_500_000 - rng.uniform(0, 2512, 300)})


def same(found: pa.Table, expected: pa.Table) -> bool:
    columns = ["point_index", "record_id", "band", "value"]
    return found.select(columns).sort_by(ORDER).equals(expected.select(columns).sort_by(ORDER))


def test_both_engines_read_from_the_endpoint_that_the_catalogue_names(bucket: Bucket, points: pa.Table) -> None:
    found = bucket.remote.sample_points(points, ["B1", "B2"], **XY)
    assert same(found, bucket.local.sample_points(points, ["B1", "B2"], **XY))
    assert set(found["record_id"].to_pylist()) == {"indexed", "by_gdal"}


def test_the_pipeline(bucket: Bucket, points: pa.Table, tmp_path: Path) -> None:
    def build(pipeline: object) -> None:
        batches = pipeline | ReadPoints(points, **XY)  # type: ignore[operator]
        batches | SamplePoints(bucket.remote, ["B1"]) | WriteSamplesToParquet(str(tmp_path / "s"))

    counts = run(build)
    assert same(read(tmp_path / "s"), bucket.local.sample_points(points, ["B1"], **XY))
    assert counts[metrics.TILES_INDEXED] == 12 and counts[metrics.TILES_DECODED] == 24
    assert counts[metrics.RANGE_REQUESTS] == 3  # all tiles of the one; a header and all tiles of the one GDAL reads


def test_a_changed_object_is_stale(bucket: Bucket, points: pa.Table) -> None:
    key = "a folder/indexed.tif"
    before = bucket.client.get_object(Bucket=BUCKET, Key=key)["Body"].read()  # type: ignore[attr-defined]
    try:
        changed = before[:-1] + bytes([before[-1] ^ 1])  # of the same size: its ETag tells
        bucket.client.put_object(Bucket=BUCKET, Key=key, Body=changed)  # type: ignore[attr-defined]
        with pytest.raises(TileReadError, match="so its index is stale; build it again"):
            bucket.remote.subset(ids=["indexed"]).sample_points(points, ["B1"], **XY)
    finally:
        bucket.client.put_object(Bucket=BUCKET, Key=key, Body=before)  # type: ignore[attr-defined]


def test_a_missing_object_is_named(bucket: Bucket, points: pa.Table) -> None:
    bucket.client.delete_object(Bucket=BUCKET, Key="a folder/by_gdal.tif")  # type: ignore[attr-defined]
    with pytest.raises(TileReadError, match=r"record 'by_gdal', band B1: s3://scenes/a folder/by_gdal.tif, tile"):
        bucket.remote.subset(ids=["by_gdal"]).sample_points(points, ["B1"], **XY)
