"""Peer of the benchmark: Rasteret's own `Collection.sample_points`, in one process.

Run with a Python that has rasteret; nothing of this project is imported. `--records` builds the collection
once; later runs load it. The collection's own box (degrees, CRS84) is given as `bbox=` to `sample_points`
as well, where it narrows nothing: without it Rasteret 0.4.1 filters its records by one expression per
point, and at 10,000 points it crashes.
"""

import argparse
import time
from pathlib import Path

import pyarrow.parquet as pq
import rasteret
from rasteret.fetch.cog import _OBSTORE_CLIENT_OPTIONS


def build(records: Path, collection: Path) -> None:
    """Parse the COG headers of a record table (Parquet) and export the collection to a folder."""
    table = pq.read_table(records)
    rasteret.build_from_table(table, enrich_cog=True).export(collection)


def main() -> None:
    """Build the collection, or sample it; prints the rows and the seconds of the sample_points call alone."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--collection", type=Path, required=True, help="folder of the exported collection")
    parser.add_argument("--records", type=Path, help="Parquet record table: only build the collection")
    parser.add_argument("--bands", default="B02,B03", help="names with commas between (%(default)s)")
    parser.add_argument("--points", type=Path, help="Parquet with lon and lat in EPSG:4326")
    parser.add_argument("--output", type=Path, help="Parquet file of the samples; not written without it")
    parser.add_argument("--allow_http", action="store_true", help="let Rasteret's own reader ask servers without TLS")
    flags = parser.parse_args()
    if flags.allow_http:
        _OBSTORE_CLIENT_OPTIONS["allow_http"] = True
    if flags.records:
        build(flags.records, flags.collection)
        return
    points = pq.read_table(flags.points)
    collection = rasteret.load(str(flags.collection))
    bbox = collection.bounds
    started = time.perf_counter()
    samples = collection.subset(bbox=bbox).sample_points(
        points=points,
        x_column="lon",
        y_column="lat",
        bands=flags.bands.split(","),
        geometry_crs=4326,
        match="all",
        bbox=bbox,
    )
    seconds = time.perf_counter() - started
    if flags.output:
        pq.write_table(samples, flags.output, compression="zstd")
    print(f"rows {samples.num_rows}")
    print(f"call_seconds {seconds:.3f}")


if __name__ == "__main__":
    main()
