"""Peer of the benchmark of zonal statistics: a loop of exactextract over files.

Run with a Python that has exactextract, rasterio, geopandas and pyarrow; nothing of this project is imported.
"""

import argparse
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import geopandas
import pandas as pd
from exactextract import exact_extract


def statistics_of(path: Path, fields: Path, operations: list[str], strategy: str) -> pd.DataFrame:
    """The statistics of all fields in one file."""
    polygons = geopandas.read_parquet(fields)
    found = exact_extract(
        str(path), polygons, operations, include_cols=["geometry_id"], output="pandas", strategy=strategy
    )
    found["file"] = path.stem
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=Path, nargs="+", required=True)
    parser.add_argument("--fields", type=Path, required=True, help="GeoParquet in the CRS of the files")
    parser.add_argument("--operations", required=True, help="names with commas between")
    parser.add_argument("--strategy", default="feature-sequential", help="of exactextract (%(default)s)")
    parser.add_argument("--processes", type=int, default=1, help="files at the same time (%(default)s)")
    parser.add_argument("--output", type=Path, required=True, help="Parquet file of the statistics")
    flags = parser.parse_args()
    settings = flags.fields, flags.operations.split(","), flags.strategy
    started = time.perf_counter()
    if flags.processes == 1:
        tables = [statistics_of(path, *settings) for path in flags.files]
    else:
        with ProcessPoolExecutor(flags.processes) as pool:
            under_way = [pool.submit(statistics_of, path, *settings) for path in flags.files]
            tables = [each.result() for each in under_way]
    seconds = time.perf_counter() - started
    pd.concat(tables).to_parquet(flags.output)
    print(f"call_seconds {seconds:.3f}")


if __name__ == "__main__":
    main()
