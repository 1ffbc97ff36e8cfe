"""The worked examples of CONTRIBUTING.md do what they say, registered as it says."""

import argparse
import re
from collections.abc import Iterator
from dataclasses import fields
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import rasterio

from pipelines import sample_points
from pipelines.cli.flags import Parser, option_flags
from pipelines.cli.sample_sinks import SAMPLE_SINKS, SampleSink
from rasteret_beam import Collection, SampleOptions, columns
from rasteret_beam.kernels.routing.match import MATCHERS
from rasteret_beam.readers.jobs import sample_job
from tests.support.documents import run_page
from tests.support.paths import ROOT

CRS = {"x_column": "x", "y_column": "y", "geometry_crs": 32631}


@pytest.fixture(scope="module")
def examples() -> dict[str, Any]:
    return run_page(ROOT / "CONTRIBUTING.md")


def test_an_option(examples: dict[str, Any]) -> None:
    parser = Parser("test", "Test.")
    option_flags(parser, examples["WithMinimumYear"])
    assert parser.parse_args(["--min_year", "2020"]).min_year == 2020
    assert isinstance(parser, argparse.ArgumentParser)
    added = {each.name for each in fields(examples["WithMinimumYear"])} - {each.name for each in fields(SampleOptions)}
    assert added == {"min_year"}


def test_a_column(
    examples: dict[str, Any], scenes: Collection, points: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(columns, "COLUMNS", (*columns.COLUMNS, examples["YEAR"]))
    samples = scenes.sample_points(points, ["B10"], **CRS, extra_columns=["year"])
    assert samples.num_rows > 1000 and samples["year"].equals(pc.year(samples["datetime"]))
    assert samples.schema.field("year").type == pa.int64()


def test_a_matcher(
    examples: dict[str, Any], scenes: Collection, points: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against the oldest of all records that contain a point."""
    monkeypatch.setitem(MATCHERS, "oldest", examples["Oldest"])
    monkeypatch.setitem(SampleOptions.__annotations__, "match", Literal["all", "latest", "oldest"])
    every = scenes.sample_points(points, ["B10", "B20"], **CRS)
    oldest = every.group_by(["point_index", "band"]).aggregate([("datetime", "min")])
    keys = ["point_index", "band", "datetime"]
    expected = every.join(oldest.rename_columns(keys), keys=keys, join_type="inner")
    found = scenes.sample_points(points, ["B10", "B20"], **CRS, match="oldest")
    order = [(name, "ascending") for name in [*keys[:2], "record_id"]]
    first = expected.sort_by(order).select([*keys, "record_id", "value"]).to_pylist()
    unique = {(row["point_index"], row["band"]): row for row in reversed(first)}  # the first record of equal datetimes
    assert found.num_rows == len(unique) > 1000
    for row in found.select([*keys, "record_id", "value"]).to_pylist():
        assert unique[row["point_index"], row["band"]] == row


def test_a_pixel_method(
    examples: dict[str, Any], scenes: Collection, points: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against windows that rasterio reads."""
    monkeypatch.setattr(sample_job, "pixel_method", lambda options: examples["MeanOfValid"](1))
    found = scenes.sample_points(points.slice(0, 40), ["B10"], **CRS, extra_columns=["href"])
    assert found.num_rows > 40
    for row in found.select(["point_x", "point_y", "value", "href"]).to_pylist():
        with rasterio.open(row["href"]) as dataset:
            at, along = dataset.index(row["point_x"], row["point_y"])
            window = ((max(at - 1, 0), at + 2), (max(along - 1, 0), along + 2))
            assert row["value"] == pytest.approx(np.mean(dataset.read(1, window=window)), rel=1e-12)


class Service:
    """A web server that keeps what is posted to it."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self.send_response(204)
                self.end_headers()

            def do_POST(self) -> None:
                service.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
                self.do_HEAD()

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)


@pytest.fixture
def service() -> Iterator[Service]:
    found = Service()
    thread = Thread(target=found.server.serve_forever)
    thread.start()
    yield found
    found.server.shutdown()
    found.server.server_close()
    thread.join()


def test_a_sink(
    examples: dict[str, Any],
    scenes: Collection,
    points: pa.Table,
    service: Service,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    same_signal_handlers: None,
) -> None:
    """The command has its flag, and all rows arrive."""
    entry = re.search(r'"post": (SampleSink\(.*\))`', (ROOT / "CONTRIBUTING.md").read_text())
    assert entry is not None
    monkeypatch.setitem(SAMPLE_SINKS, "post", eval(entry[1], {"SampleSink": SampleSink, **examples}))
    scenes.export(tmp_path / "scenes")
    pq.write_table(points, tmp_path / "points.parquet")
    url = f"http://127.0.0.1:{service.server.server_port}/samples"
    flags = f"--points {tmp_path}/points.parquet --x_column x --y_column y --geometry_crs 32631 --bands B10"
    assert sample_points.main([*flags.split(), f"--collection={tmp_path}/scenes", f"--post={url}"]) == 0
    rows = pa.concat_tables(pa.ipc.open_stream(body).read_all() for body in service.bodies)
    order = [("point_index", "ascending"), ("record_id", "ascending")]
    expected = scenes.sample_points(points, ["B10"], **CRS).sort_by(order)
    assert (
        rows.sort_by(order)
        .select(["point_index", "record_id", "value"])
        .equals(expected.select(["point_index", "record_id", "value"]))
    )
