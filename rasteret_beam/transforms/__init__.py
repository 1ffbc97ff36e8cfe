"""The PTransforms; the only package that imports Apache Beam."""

import rasteret_beam.transforms.runtime.beam_import  # noqa: F401 (first: it imports Beam silently)
from rasteret_beam.transforms.build_collection import BuildCollection
from rasteret_beam.transforms.chips.dead_letters import ReadChipDeadLetters
from rasteret_beam.transforms.chips.read_chips import ChipOutputs, ReadChips
from rasteret_beam.transforms.runtime.event_times import GroupByTile
from rasteret_beam.transforms.sampling.collection_updates import CollectionUpdates
from rasteret_beam.transforms.sampling.dead_letters import SampleDeadLetters
from rasteret_beam.transforms.sampling.keying import KeyByRecordAndTile
from rasteret_beam.transforms.sampling.outputs import SamplingOutputs
from rasteret_beam.transforms.sampling.sample_points import SamplePoints
from rasteret_beam.transforms.sampling.sampling import SampleTiles
from rasteret_beam.transforms.sinks.bigquery import WriteSamplesToBigQuery
from rasteret_beam.transforms.sinks.geotiff import WriteChipsToGeoTiff
from rasteret_beam.transforms.sinks.parquet import WriteChipsToParquet, WriteSamplesToParquet
from rasteret_beam.transforms.sources.bigquery import BigQueryQuery, BigQueryTable
from rasteret_beam.transforms.sources.points import ReadPoints
from rasteret_beam.transforms.sources.polygons import ReadPolygons
from rasteret_beam.transforms.sources.stream import PointBatches

__all__ = [
    "BigQueryQuery",
    "BigQueryTable",
    "BuildCollection",
    "ChipOutputs",
    "CollectionUpdates",
    "GroupByTile",
    "KeyByRecordAndTile",
    "PointBatches",
    "ReadChipDeadLetters",
    "ReadChips",
    "ReadPoints",
    "ReadPolygons",
    "SampleDeadLetters",
    "SamplePoints",
    "SampleTiles",
    "SamplingOutputs",
    "WriteChipsToGeoTiff",
    "WriteChipsToParquet",
    "WriteSamplesToBigQuery",
    "WriteSamplesToParquet",
]
