"""The eager call in a process of its own: points in, one table out, written by `pyarrow.parquet.write_table`.

It prints the seconds of the call and of the write: together, the reference for the whole process of the command.
"""

import argparse
import time
from pathlib import Path

import pyarrow.parquet as pq

import rasteret_beam


def main() -> None:
    """Sample a table of lon and lat; prints the seconds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--collection", type=Path, required=True, help="folder of the exported collection")
    parser.add_argument("--bands", required=True, help="names with commas between")
    parser.add_argument("--points", type=Path, required=True, help="Parquet with lon and lat in EPSG:4326")
    parser.add_argument("--output", type=Path, required=True, help="Parquet file of the samples")
    flags = parser.parse_args()
    points = pq.read_table(flags.points)
    collection = rasteret_beam.load(flags.collection)
    started = time.perf_counter()
    samples = collection.sample_points(
        points, flags.bands.split(","), x_column="lon", y_column="lat", geometry_crs=4326
    )
    called = time.perf_counter()
    pq.write_table(samples, flags.output, compression="zstd")
    print(f"call_seconds {called - started:.3f}")
    print(f"write_seconds {time.perf_counter() - called:.3f}")


if __name__ == "__main__":
    main()
