"""The PTransforms; the only package that imports Apache Beam."""

from rasteret_beam.transforms.build_collection import BuildCollection
from rasteret_beam.transforms.read_points import ReadPoints
from rasteret_beam.transforms.sample import (
    GroupByTile,
    KeyByRecordAndTile,
    SamplePoints,
    SampleTiles,
    SamplingOutputs,
)
from rasteret_beam.transforms.write_parquet import WriteSamplesToParquet

__all__ = [
    "BuildCollection",
    "GroupByTile",
    "KeyByRecordAndTile",
    "ReadPoints",
    "SamplePoints",
    "SampleTiles",
    "SamplingOutputs",
    "WriteSamplesToParquet",
]
