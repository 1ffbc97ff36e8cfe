"""How a job grows: with the points, the cores and the records, as a table and a picture.

    python -m benchmarks.scaling [--points 1000,...,100000000] [--records 6,600,6000,60000,300000] [--picture PNG]

Points: the whole command on the s2 collection (`benchmarks.data`), `match="latest"`, one band, Parquet in and Parquet
out; on one core and on all. Records: load, index, and route 1,000,000 points, on a collection like AlphaEarth's
(`benchmarks.big_index`), whose files do not exist. The data are kept in the folder.
"""

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import big_index
from benchmarks.data import POINT_ROW_GROUP, S2
from benchmarks.sample_points import OURS, POINT_SEED, Folders, Pythons, measured, prepare

AT_ONCE = 10_000_000
"""Points that are made at a time."""


@dataclass(frozen=True)
class Cost:
    """What a process took: `what` is the curve, `size` where on it; wall and CPU seconds, peak bytes."""

    what: str
    size: int
    wall: float
    cpu: float
    peak: int

    def row(self) -> str:
        """As a row of a Markdown table."""
        rate = f"{self.size / self.wall:,.0f}"
        return f"| {self.what} | {self.size:,} | {self.wall:.1f} | {self.cpu:.1f} | {self.peak / 1e9:.2f} | {rate} |"


def cost_of(what: str, size: int, command: Sequence[str], cores: int | None = None) -> Cost:
    """Run a command, on so many cores if said, and count what it costs."""
    if cores is not None:
        allowed = ",".join(map(str, sorted(os.sched_getaffinity(0))[:cores]))
        command = ["taskset", "-c", allowed, *command]
    with tempfile.TemporaryDirectory() as logs:
        out, err = Path(logs, "out"), Path(logs, "err")
        cost = measured(command, out, err)
        if cost["status"]:
            raise SystemExit(err.read_text()[-2000:])
    return Cost(what, size, cost["wall"], cost["cpu"], cost["peak"])


def make_points(path: Path, count: int) -> None:
    """Write random points on the s2 places, a part at a time, so that memory stays bounded."""
    if path.exists():
        return
    if count <= AT_ONCE:
        S2.write_points(path, count, POINT_SEED)
        return
    part = path.with_suffix(".part")
    unfinished = path.with_suffix(".unfinished")
    S2.write_points(part, 1, POINT_SEED)
    with pq.ParquetWriter(unfinished, pq.read_schema(part)) as writer:
        for number, start in enumerate(range(0, count, AT_ONCE)):
            S2.write_points(part, min(AT_ONCE, count - start), POINT_SEED + number)
            table = pq.read_table(part)
            names = pa.array([f"plot_{at:09d}" for at in range(start, start + len(table))])
            writer.write_table(table.set_column(0, "plot_id", names), row_group_size=POINT_ROW_GROUP)
    part.unlink()
    unfinished.rename(path)


def by_points(folders: Folders, sizes: Sequence[int]) -> Iterator[Cost]:
    """The command over numbers of points and of cores."""
    cores = len(os.sched_getaffinity(0))
    for size in sizes:
        make_points(folders.points(size), size)
        for used in sorted({1, cores}):
            output = folders.output("scaling")
            flags = ["--points", str(folders.points(size)), "--x_column", "lon", "--y_column", "lat"]
            flags += ["--geometry_crs", "4326", "--collection", str(folders.ours), "--bands", "B02"]
            flags += ["--match", "latest", "--output", str(output / "samples")]
            command = [sys.executable, "-m", "pipelines.sample_points", *flags]
            yield cost_of(f"points, {used} core{'s' * (used > 1)}", size, command, used)
            shutil.rmtree(output, ignore_errors=True)


def by_records(folder: Path, sizes: Sequence[int]) -> Iterator[Cost]:
    """Loading, indexing and routing over numbers of records."""
    for size in sizes:
        place = folder / f"records_{size}"
        big_index.make_collection(place, size, ours=True)
        big_index.make_points(place.with_suffix(".points.parquet"), size, big_index.POINTS)
        command = [sys.executable, "-m", "benchmarks.big_index", str(place), "--phase", "tiles"]
        yield cost_of("records", size, command)


def draw(costs: Sequence[Cost], path: Path) -> None:
    """Seconds and peak memory over points, and over records."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.4), layout="constrained")
    seconds, memory, records = figure.subplots(1, 3)
    for name in dict.fromkeys(cost.what for cost in costs if cost.what != "records"):
        curve = [cost for cost in costs if cost.what == name]
        sizes = [cost.size for cost in curve]
        label = name.removeprefix("points, ")
        seconds.loglog(sizes, [cost.wall for cost in curve], marker="o", label=label)
        memory.semilogx(sizes, [cost.peak / 1e9 for cost in curve], marker="o", label=label)
    many = [cost for cost in costs if cost.what == "records"]
    records.semilogx([cost.size for cost in many], [cost.wall for cost in many], marker="o", color="tab:green")
    for axes, x, y in (
        (seconds, "points", "wall seconds"),
        (memory, "points", "peak memory, GB"),
        (records, "records", "seconds to load, index and\nroute 1,000,000 points"),
    ):
        axes.set(xlabel=x, ylabel=y)
        axes.grid(alpha=0.3)
    memory.set_ylim(bottom=0)
    records.set_ylim(bottom=0)
    seconds.legend()
    figure.savefig(path, dpi=130)


def numbers(text: str) -> list[int]:
    """Sizes, with commas between."""
    return [int(size) for size in text.split(",") if size]


def main() -> None:
    """Measure, print the table, and draw the picture."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    default = Path(tempfile.gettempdir()) / "rasteret_beam_benchmark"
    parser.add_argument("--folder", type=Path, default=default, help="where data are kept (%(default)s)")
    parser.add_argument("--points", type=numbers, default="1000,10000,100000,1000000,10000000,100000000")
    parser.add_argument("--records", type=numbers, default="6,600,6000,60000,300000")
    parser.add_argument("--picture", type=Path, help="PNG of the curves")
    flags = parser.parse_args()
    folders = Folders(flags.folder.resolve())
    prepare(folders, S2, [], [OURS], Pythons(sys.executable))
    costs = []
    print("| what grows | size | wall s | CPU s | peak GB | a second |\n|---|---:|---:|---:|---:|---:|")
    for cost in chain(by_points(folders, flags.points), by_records(folders.root, flags.records)):
        costs.append(cost)
        print(cost.row(), flush=True)
    if flags.picture:
        draw(costs, flags.picture)


if __name__ == "__main__":
    main()
