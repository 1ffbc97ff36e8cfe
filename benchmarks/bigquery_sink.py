"""Benchmark of the BigQuery sink up to its load job, beside the Parquet sink, both into a bucket on loopback.

    python -m benchmarks.bigquery_sink [--rows 5000000] [--runs 3]

The same batches of samples go through WriteSamplesToParquet and through WriteSamplesToBigQuery, in turn, in this
process, into the Cloud Storage emulator of the tests. Of the second, what is before the load counts, and the load
is shown by itself: it is the service's work, here an emulator's.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions

from rasteret_beam import WriteSamplesToBigQuery, WriteSamplesToParquet
from rasteret_beam.schema import samples_schema
from rasteret_beam.transforms.sinks import bigquery as write_bigquery
from tests.support.emulators import BUCKET, PROJECT, cloud, credentials_file

RUNNER = "--runner=apache_beam.runners.portability.fn_api_runner.FnApiRunner"
BATCH_ROWS = 20_000
SPLITS = 8
LOADING: list[float] = []
"""Seconds of each load, which the last step notes in this process."""


def samples(split: int, rows: int) -> Iterator[pa.RecordBatch]:
    """Batches of samples: random points, 24 records, 2 bands, and a kept name."""
    rng = np.random.default_rng(split)
    schema = schema_of_samples()
    for start in range(0, rows, BATCH_ROWS):
        n = min(BATCH_ROWS, rows - start)
        record = int(rng.integers(24))
        index = np.sort(rng.integers(0, 10 * rows, n))
        columns = [
            index,
            rng.uniform(-180, 180, n),
            rng.uniform(-90, 90, n),
            np.full(n, 4326, np.int32),
            pa.array([f"scene-{record}"] * n),
            np.full(n, np.datetime64("2023-01-02", "us") + record),
            pa.array(["scenes"] * n),
            pa.array([f"B0{record % 2}"] * n),
            rng.integers(0, 10_000, n).astype(np.float64),
            np.full(n, 32631, np.int32),
            pa.array(index % 5000).cast(pa.string()),
        ]
        yield pa.RecordBatch.from_arrays([pa.array(one) for one in columns], schema=schema)


def schema_of_samples() -> pa.Schema:
    """Schema of the batches."""
    return samples_schema([pa.field("plot", pa.string())])


def run(sink: beam.PTransform, rows: int) -> float:
    """Seconds of a pipeline that makes the samples and writes them."""
    pipeline = beam.Pipeline(options=PipelineOptions([RUNNER]))
    made = pipeline | beam.Create(range(SPLITS), reshuffle=False)
    made | beam.FlatMap(samples, rows // SPLITS).with_output_types(pa.RecordBatch) | "Sink" >> sink
    started = time.perf_counter()
    pipeline.run().wait_until_finish()
    return time.perf_counter() - started


class _Discard(beam.PTransform):
    """No sink: what making the samples costs."""

    def expand(self, rows: beam.PCollection) -> beam.PCollection:
        return rows | beam.Filter(lambda batch: False)


def _timed(load):
    def wrapped(*given):
        started = time.perf_counter()
        try:
            return load(*given)
        finally:
            LOADING.append(time.perf_counter() - started)

    return wrapped


def clear() -> None:
    """Empty the bucket."""
    paths = [entry.path for entry in FileSystems.match([f"gs://{BUCKET}/**"])[0].metadata_list]
    if paths:
        FileSystems.delete(paths)


def main() -> int:
    """Parse the flags, benchmark, and print a table; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=5_000_000, help="rows of samples (%(default)s)")
    parser.add_argument("--runs", type=int, default=3, help="runs of each sink (%(default)s)")
    flags = parser.parse_args()
    write_bigquery.load = _timed(write_bigquery.load)
    with tempfile.TemporaryDirectory() as folder, cloud(Path(folder)) as servers:
        os.environ |= {
            "BIGQUERY_EMULATOR_HOST": servers.bigquery,
            "STORAGE_EMULATOR_HOST": servers.storage,
            "GOOGLE_APPLICATION_CREDENTIALS": str(credentials_file(Path(folder))),
            "GOOGLE_CLOUD_PROJECT": PROJECT,
        }
        seconds: dict[str, list[float]] = {"making": [], "parquet": [], "bigquery": []}
        from google.auth.credentials import AnonymousCredentials
        from google.cloud import bigquery  # type: ignore[attr-defined]

        bigquery.Client(project=PROJECT, credentials=AnonymousCredentials()).create_dataset("bench")
        schema = schema_of_samples()
        for number in range(flags.runs):
            seconds["making"].append(run(_Discard(), flags.rows))
            seconds["parquet"].append(run(WriteSamplesToParquet(f"gs://{BUCKET}/s", schema=schema), flags.rows))
            clear()
            sink = WriteSamplesToBigQuery(
                f"{PROJECT}.bench.t{number}", schema=schema, temp_location=f"gs://{BUCKET}/temp"
            )
            whole = run(sink, flags.rows)
            seconds["bigquery"].append(whole - LOADING[-1])
            clear()
    middle = {name: statistics.median(found) for name, found in seconds.items()}
    print(f"{flags.rows:,} rows, medians of {flags.runs}, seconds (from, to)")
    for name, found in seconds.items():
        print(f"{name:<10}{middle[name]:8.2f}  ({min(found):.2f}, {max(found):.2f})")
    print(f"{'load':<10}{statistics.median(LOADING):8.2f}  (of the emulator)")
    print(f"bigquery before the load / parquet: {middle['bigquery'] / middle['parquet']:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
