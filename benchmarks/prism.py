"""`pipelines.sample_points` on Prism, Beam's portable runner, beside the local runner: wall, memory, shuffled bytes.

    python -m benchmarks.prism [--points 1000000] [--skew 0] [--stream 0]

Prism, Beam's pool of Python workers, its worker and the command are processes of their own; the peak of each is shown.
Rows must equal those of the local runner, or the exit status is 1. With `--skew N` also N points in one tile beside a
thousand others, against as many spread evenly; with `--stream N` also a stream of N windows of one second.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from apache_beam import coders
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.transforms.periodicsequence import PeriodicImpulse
from apache_beam.transforms.window import FixedWindows

import rasteret_beam
from benchmarks import skew
from benchmarks.data import S2
from benchmarks.sample_points import OURS, ROOT, Folders, Pythons, prepare
from rasteret_beam import PointBatches, ReadPoints, SamplePoints, WriteSamplesToParquet
from rasteret_beam.kernels.routing.chunks import ChunkRules, route
from rasteret_beam.model import TileKey
from rasteret_beam.transforms.runtime.coders import RecordBatchCoder
from tests.support.portable import prism, worker_pool

STREAM_POINTS = 20_000
KEY = [("point_index", "ascending"), ("record_id", "ascending"), ("band", "ascending")]
NAMES = {"pipelines.sample_points": "command", "worker_pool_main": "pool", "sdk_worker": "worker", "prism": "Prism"}


class Watch:
    """Memory of the processes below this one, by name: the peak of each, and the present."""

    def __init__(self) -> None:
        self.peaks: dict[str, int] = {}
        self.now: dict[str, int] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look_on, daemon=True)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _look_on(self) -> None:
        while not self._ended.wait(0.1):
            for name, peak, now in _processes():
                self.peaks[name] = max(peak, self.peaks.get(name, 0))
                self.now[name] = now

    def __str__(self) -> str:
        return ", ".join(f"{name} {peak / 1e6:.2f} GB" for name, peak in sorted(self.peaks.items()))


def _processes() -> Iterator[tuple[str, int, int]]:
    """(name, peak kB, present kB) of the processes below this one that :data:`NAMES` knows."""
    found: dict[int, tuple[int, str, dict[str, str]]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            lines = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines() if ":" in line)
        except OSError:
            continue
        found[int(folder.name)] = int(lines["PPid"]), words, lines
    for number, (parent, words, lines) in found.items():
        name = next((name for mark, name in NAMES.items() if mark in words), None)
        while parent in found and parent != os.getpid():
            parent = found[parent][0]
        if number != os.getpid() and parent == os.getpid() and name is not None and "VmHWM" in lines:
            yield name, int(lines["VmHWM"].split()[0]), int(lines["VmRSS"].split()[0])


def seconds(flags: Sequence[object]) -> float:
    """Wall seconds of the command as a process."""
    started = time.perf_counter()
    words = [sys.executable, "-m", "pipelines.sample_points", *map(str, flags)]
    subprocess.run(words, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def rows(prefix: Path) -> pa.Table:
    files = sorted(prefix.parent.glob(f"{prefix.name}-*-of-*.parquet"))
    return pa.concat_tables(pq.read_table(path) for path in files).sort_by(KEY)


def shuffled(folders: Folders, count: int) -> None:
    """Bytes of what goes into the GroupByKey, as its coders write it."""
    index = rasteret_beam.load(folders.ours).index(S2.bands).routing
    keys, batches = coders.registry.get_coder(TileKey), RecordBatchCoder()
    reading = ReadPoints(str(folders.points(count)), x_column="lon", y_column="lat", geometry_crs=4326)
    bytes_out = chunks = pairs = samples = 0
    for points in reading.batches():
        for key, chunk in route(index, points, None, ChunkRules()).chunks:
            bytes_out += len(keys.encode(key)) + len(batches.encode(chunk))
            chunks += 1
            pairs += len(chunk)
            samples += len(chunk) * len(index.grid_of(key)[1])
    print(
        f"shuffle: {chunks:,} chunks of {pairs:,} points on records, {bytes_out / 1e6:.1f} MB; bytes a point "
        f"{bytes_out / count:.1f}, a point and record {bytes_out / pairs:.1f}, a sample {bytes_out / samples:.1f}"
    )


def batch(folders: Folders, count: int, options: Sequence[str], out: Path) -> bool:
    """Time and compare the same job on both runners."""
    flags = ["--points", folders.points(count), "--x_column=lon", "--y_column=lat", "--geometry_crs=4326"]
    flags += ["--collection", folders.ours, "--bands", ",".join(S2.bands)]
    with Watch() as local:
        print(f"local: {seconds([*flags, '--output', out / 'local']):.1f} s, peaks {local}")
    with Watch() as portable:
        print(f"Prism: {seconds([*flags, '--output', out / 'prism', *options]):.1f} s, peaks {portable}")
    one, other = rows(out / "local"), rows(out / "prism")
    print(f"{len(one):,} rows, {'equal' if one.equals(other) else 'DIFFERENT'}")
    return one.equals(other)


def crowded(count: int, options: Sequence[str], out: Path) -> None:
    """The points of `benchmarks.skew` on Prism."""
    skew.write_raster(out / "raster.tif")
    rasteret_beam.build_from_cogs([out / "raster.tif"]).export(out / "collection")
    flags = ["--x_column=x", "--y_column=y", "--geometry_crs=32631", "--bands=B1", "--collection", out / "collection"]
    rng = np.random.default_rng(2)
    for name, make in (("even", skew.even), ("skewed", skew.skewed)):
        pq.write_table(make(count + skew.FEW * skew.ORDINARY, rng), out / f"{name}.parquet", row_group_size=1 << 17)
        with Watch() as watch:
            took = seconds([*flags, "--points", out / f"{name}.parquet", "--output", out / name, *options])
        print(f"{name:8} {took:.1f} s on Prism, peaks {watch}")


def tick_batch(tick: Any, begin: float) -> pa.RecordBatch:
    """The points of one second, anywhere on the raster of `benchmarks.skew`."""
    number = round(float(tick) - begin)
    points = skew.even(STREAM_POINTS, np.random.default_rng(number))
    ids = pa.array(np.arange(STREAM_POINTS) + number * STREAM_POINTS)
    return points.append_column("id", ids).combine_chunks().to_batches()[0]


def stream(windows: int, options: Sequence[str], out: Path) -> None:
    """A stream of as many windows; the present memory of Prism and its worker on the way."""
    skew.write_raster(out / "raster.tif")
    rasteret_beam.build_from_cogs([out / "raster.tif"]).export(out / "collection")
    collection, begin = rasteret_beam.load(out / "collection"), float(int(time.time()))
    schema = pa.schema([("x", pa.float64()), ("y", pa.float64()), ("id", pa.int64())])
    pipeline = beam.Pipeline(options=PipelineOptions([*options, "--streaming"]))
    ticks = pipeline | PeriodicImpulse(begin, begin + windows, fire_interval=1)
    given = ticks | beam.Map(tick_batch, begin).with_output_types(pa.RecordBatch) | beam.WindowInto(FixedWindows(1))
    points = given | PointBatches("id", schema=schema, x_column="x", y_column="y", geometry_crs=32631)
    points | SamplePoints(collection, ["B1"]) | WriteSamplesToParquet(str(out / "stream"))
    with Watch() as watch:
        result = pipeline.run()
        for part in range(1, 5):
            time.sleep(max(0.0, begin + windows * part / 4 - time.time()))
            files = len(list(out.glob("stream-*.parquet")))
            shown = ", ".join(f"{name} {kilobytes / 1e3:.0f} MB" for name, kilobytes in sorted(watch.now.items()))
            print(f"after {windows * part // 4} s: {files} files, {shown}")
        result.wait_until_finish()
    found = sum(pq.read_metadata(path).num_rows for path in out.glob("stream-*.parquet"))
    print(f"{found:,} rows of {windows * STREAM_POINTS:,} points")


def main() -> int:
    """Measure and print; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(tempfile.gettempdir()) / "rasteret_beam_benchmark"
    parser.add_argument("--folder", type=Path, default=default, help="where data are kept (%(default)s)")
    parser.add_argument("--points", type=int, default=1_000_000)
    parser.add_argument("--skew", type=int, default=0)
    parser.add_argument("--stream", type=int, default=0)
    flags = parser.parse_args()
    folders, out = Folders(flags.folder.resolve()), Path(tempfile.mkdtemp(prefix="rasteret_beam_prism_"))
    same = True
    try:
        with ExitStack() as stack:
            options = [*stack.enter_context(prism(out)), *stack.enter_context(worker_pool(out))]
            if flags.points:
                prepare(folders, S2, [flags.points], [OURS], Pythons(sys.executable))
                shuffled(folders, flags.points)
                same = batch(folders, flags.points, options, out)
            if flags.skew:
                crowded(flags.skew, options, out)
            if flags.stream:
                stream(flags.stream, options, out)
    finally:
        shutil.rmtree(out)
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
