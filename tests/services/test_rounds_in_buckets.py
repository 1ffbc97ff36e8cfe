"""A run with its outputs in a bucket is resumed from the records that it has left there."""

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from apache_beam.io.aws.clients.s3 import boto3_client
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions

from pipelines import sample_points
from rasteret_beam import Collection
from rasteret_beam.errors import OutputError
from rasteret_beam.transforms.runtime.files import find_files, open_parquet
from rasteret_beam.transforms.sinks.rounds import RoundRecords
from tests.support.buckets import SERVICES, Place
from tests.support.commands import as_flags, execute

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("same_signal_handlers")]


@pytest.fixture(params=["gs", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    (tmp_path / "bucket").mkdir()
    with SERVICES[request.param](tmp_path / "bucket", monkeypatch) as found:
        FileSystems.set_options(PipelineOptions())  # as a pipeline does; Beam's S3 needs it
        monkeypatch.setattr(boto3_client, "Client", lru_cache(boto3_client.Client))
        yield found


def test_resumed(
    place: Place, scenes: Collection, points: pa.Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenes.export(tmp_path / "c")
    pq.write_table(points.slice(0, 300), tmp_path / "p.parquet", row_group_size=100)
    given = {"points": place.upload(tmp_path / "p.parquet", "in/p.parquet"), "collection": tmp_path / "c"}
    flags = as_flags(**given, x_column="x", y_column="y", geometry_crs=32631, bands="B10", round_points=100)
    real = RoundRecords.finish

    def finish(self: RoundRecords, done: object) -> None:
        if self.finished():
            raise OutputError("the network is gone")
        real(self, done)

    monkeypatch.setattr(RoundRecords, "finish", finish)
    outcome = execute(sample_points.main, *flags, f"--output={place.uri}/out/s")
    assert outcome.code == 1 and "100 of 300 points in 1 round(s) are finished and kept" in outcome.err
    monkeypatch.setattr(RoundRecords, "finish", real)
    resumed = execute(sample_points.main, *flags, f"--output={place.uri}/out/s", "--resume")
    assert resumed.code == 0, resumed.err
    assert execute(sample_points.main, *flags, f"--output={tmp_path}/whole/s").code == 0
    rows = pa.concat_tables(read(path) for path in find_files(f"{place.uri}/out/"))
    whole = pq.read_table(tmp_path / "whole")
    order = [("point_index", "ascending"), ("record_id", "ascending")]
    assert rows.sort_by(order).equals(whole.select(rows.column_names).sort_by(order))
    assert resumed.figures["points read"] == 300 and len(rows) == resumed.figures["rows"] > 0
    assert not [name for name in place.names() if "temporary" in name]


def read(path: str) -> pa.Table:
    with open_parquet(path) as file:
        return file.read()
