"""Rasteret's side of test_rasteret.py: a script run in a Python that has Rasteret, and nothing of this project.

It takes a JSON list of jobs: build a collection from a record table, or sample one that is there.
"""

import json
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import rasteret


def build(records: str, collection: str) -> None:
    """Parse the headers of a record table's files, and export the collection with its year and month partitions."""
    rasteret.build_from_table(pq.read_table(records), enrich_cog=True).export(collection)


def sample(collection: str, points: str, samples: str, bands: list[str], options: dict[str, Any]) -> None:
    """Write the samples of a table of points to Parquet."""
    loaded = rasteret.load(collection)
    # Without bbox=, Rasteret 0.4.1 makes one filter term for each point, and dies of a segmentation fault at many.
    table = loaded.sample_points(pq.read_table(points), bands, bbox=loaded.bounds, **options)
    pq.write_table(table, samples)


def main() -> None:
    jobs = json.loads(Path(sys.argv[1]).read_text())
    for job in jobs:
        {"build": build, "sample": sample}[job.pop("do")](**job)


if __name__ == "__main__":
    main()
