"""The PTransforms; the only package that imports Apache Beam."""

import rasteret_beam.transforms.beam_import  # noqa: F401  (first: it imports Beam without a word)
from rasteret_beam.transforms.bigquery_source import BigQueryQuery, BigQueryTable
from rasteret_beam.transforms.build_collection import BuildCollection
from rasteret_beam.transforms.chips import ChipOutputs, ReadChips
from rasteret_beam.transforms.dead_letters import SampleDeadLetters
from rasteret_beam.transforms.outputs import SamplingOutputs
from rasteret_beam.transforms.point_batches import PointBatches
from rasteret_beam.transforms.read_points import ReadPoints
from rasteret_beam.transforms.read_polygons import ReadPolygons
from rasteret_beam.transforms.sample import KeyByRecordAndTile, SamplePoints, SampleTiles
from rasteret_beam.transforms.updates import CollectionUpdates
from rasteret_beam.transforms.windows import GroupByTile
from rasteret_beam.transforms.write_bigquery import WriteSamplesToBigQuery
from rasteret_beam.transforms.write_geotiff import WriteChipsToGeoTiff
from rasteret_beam.transforms.write_parquet import WriteChipsToParquet, WriteSamplesToParquet

__all__ = [
    "BigQueryQuery",
    "BigQueryTable",
    "BuildCollection",
    "ChipOutputs",
    "CollectionUpdates",
    "GroupByTile",
    "KeyByRecordAndTile",
    "PointBatches",
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
