"""Benchmark of the Iceberg sink beside the Parquet sink, and of a commit of many files.

    python -m benchmarks.iceberg_sink [--rows 1000000] [--runs 3] [--files 1000]

The same batches of samples go through WriteSamplesToParquet and through WriteSamplesToIceberg, in turn, in this
process, into a table of a SQLite catalog in a temporary folder: once in batches of one record and band, as tiles give
them, and once with 24 months and 2 bands mixed in each batch. Then so many small files are added in one commit.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from apache_beam.options.pipeline_options import PipelineOptions
from pyiceberg.catalog import load_catalog

from rasteret_beam import WriteSamplesToIceberg, WriteSamplesToParquet
from rasteret_beam.schema import samples_schema
from rasteret_beam.transforms.runtime.iceberg_commit import add_files

RUNNER = "--runner=apache_beam.runners.portability.fn_api_runner.FnApiRunner"
BATCH_ROWS, SPLITS, MONTHS = 20_000, 8, 24
SCHEMA = samples_schema([pa.field("plot", pa.string())])


def samples(split: int, rows: int, mixed: bool) -> Iterator[pa.RecordBatch]:
    """Batches of samples: random points, 24 records of as many months, 2 bands, and a kept name."""
    rng = np.random.default_rng(split)
    months = np.arange("2022-01", "2024-01", dtype="datetime64[M]").astype("datetime64[us]")
    for start in range(0, rows, BATCH_ROWS):
        n = min(BATCH_ROWS, rows - start)
        record = rng.integers(MONTHS, size=n) if mixed else np.full(n, rng.integers(MONTHS))
        band = rng.integers(2, size=n) if mixed else np.full(n, rng.integers(2))
        index = np.sort(rng.integers(0, 10 * rows, n))
        columns = [
            index,
            rng.uniform(-180, 180, n),
            rng.uniform(-90, 90, n),
            np.full(n, 4326, np.int32),
            pa.array([f"scene-{number}" for number in range(MONTHS)]).take(pa.array(record)),
            months[record],
            pa.array(["scenes"] * n),
            pa.array(["B00", "B01"]).take(pa.array(band)),
            rng.integers(0, 10_000, n).astype(np.float64),
            np.full(n, 32631, np.int32),
            pa.array(index % 5000).cast(pa.string()),
        ]
        yield pa.RecordBatch.from_arrays([pa.array(one) for one in columns], schema=SCHEMA)


def run(sink: beam.PTransform, rows: int, mixed: bool) -> float:
    """Seconds of a pipeline that makes the samples and writes them."""
    pipeline = beam.Pipeline(options=PipelineOptions([RUNNER]))
    made = pipeline | beam.Create(range(SPLITS), reshuffle=False)
    made | beam.FlatMap(samples, rows // SPLITS, mixed).with_output_types(pa.RecordBatch) | "Sink" >> sink
    started = time.perf_counter()
    pipeline.run().wait_until_finish()
    return time.perf_counter() - started


class _Discard(beam.PTransform):
    """No sink: what making the samples costs."""

    def expand(self, rows: beam.PCollection) -> beam.PCollection:
        return rows | beam.Filter(lambda batch: False)


def compare(folder: Path, sink: Callable[..., WriteSamplesToIceberg], rows: int, runs: int, mixed: bool) -> None:
    """Print the seconds of each sink."""
    makers: dict[str, Callable[[str], beam.PTransform]] = {
        "making the samples alone": lambda name: _Discard(),
        "Parquet sink": lambda name: WriteSamplesToParquet(str(folder / name)),
        "Iceberg, no partitions": lambda name: sink(f"c.ns.{name}", partition_by=[]),
        "Iceberg, month and band": lambda name: sink(f"c.ns.{name}"),
    }
    found: dict[str, list[float]] = {name: [] for name in makers}
    for number in range(runs):
        for kind, (name, make) in enumerate(makers.items()):
            found[name].append(run(make(f"t{int(mixed)}{number}{kind}"), rows, mixed))
    print(f"{rows:,} rows, {'months and bands mixed in each batch' if mixed else 'a month and band for each batch'}")
    plain = statistics.median(found["Parquet sink"])
    for name, seconds in found.items():
        middle = statistics.median(seconds)
        print(f"  {name:<26}{middle:6.2f} s  ({min(seconds):.2f} to {max(seconds):.2f}){middle / plain:8.2f}")


def commit(sink: WriteSamplesToIceberg, count: int) -> None:
    """Print the seconds in which so many files are added."""
    folder = Path(sink.temporary())
    folder.mkdir(parents=True)
    stored = sink.plan.schema
    made = next(samples(0, 100, False)).cast(stored)
    paths = [str(folder / f"{number}.parquet") for number in range(count)]
    for path in paths:
        pq.write_table(pa.Table.from_batches([made]), path)
    started = time.perf_counter()
    add_files(sink.destination, sink.plan, paths, sink.run_name, sink.token)
    print(f"one commit of {count:,} files: {time.perf_counter() - started:.2f} s")


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--files", type=int, default=1_000)
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        uri, warehouse = f"sqlite:///{folder}/c.db", f"file://{folder}/warehouse"
        properties = {"type": "sql", "uri": uri, "warehouse": warehouse}
        load_catalog("c", **properties).create_namespace("ns")
        sink = partial(WriteSamplesToIceberg, schema=SCHEMA, catalog_properties=properties)
        for mixed in (False, True):
            compare(folder, sink, flags.rows, flags.runs, mixed)
        commit(sink("c.ns.many"), flags.files)


if __name__ == "__main__":
    main()
