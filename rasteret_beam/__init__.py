"""Raster point sampling on collections of cloud-optimised GeoTIFFs, as Apache Beam transforms.

What is public is listed here. The PTransforms (``ReadPoints``, ``SamplePoints``, ...) are loaded on first use, so that
``import rasteret_beam`` does not import Beam. ``rasteret_beam.plot`` draws samples; it is loaded on first use too.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from rasteret_beam.chip_options import ChipOptions
from rasteret_beam.collection.build import build_from_cogs, build_from_table
from rasteret_beam.collection.catalogue import register
from rasteret_beam.collection.collection import Collection, load
from rasteret_beam.collection.eager.plan import plan
from rasteret_beam.collection.eager.plan_view import Plan
from rasteret_beam.collection.eager.report import report
from rasteret_beam.collection.stac.build import build_from_stac
from rasteret_beam.kernels.sampling.chip_rows import decode_chip, decode_chips, join_windows
from rasteret_beam.model import Access, TileKey
from rasteret_beam.options import SampleOptions
from rasteret_beam.quality import Quality
from rasteret_beam.zonal_options import ZonalOptions

if TYPE_CHECKING:
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
    from rasteret_beam.transforms.sinks.bigquery import WriteSamplesToBigQuery, WriteZonalStatisticsToBigQuery
    from rasteret_beam.transforms.sinks.geotiff import WriteChipsToGeoTiff
    from rasteret_beam.transforms.sinks.parquet import (
        WriteChipsToParquet,
        WriteSamplesToParquet,
        WriteZonalStatisticsToParquet,
    )
    from rasteret_beam.transforms.sources.bigquery import BigQueryQuery, BigQueryTable
    from rasteret_beam.transforms.sources.points import ReadPoints
    from rasteret_beam.transforms.sources.polygons import ReadPolygons
    from rasteret_beam.transforms.sources.stream import PointBatches
    from rasteret_beam.transforms.zonal.dead_letters import ZonalDeadLetters
    from rasteret_beam.transforms.zonal.zonal_statistics import ZonalOutputs, ZonalStatistics

__version__ = "0.1.0"

TRANSFORMS = {
    "BigQueryQuery": "sources.bigquery",
    "BigQueryTable": "sources.bigquery",
    "BuildCollection": "build_collection",
    "ChipOutputs": "chips.read_chips",
    "CollectionUpdates": "sampling.collection_updates",
    "GroupByTile": "runtime.event_times",
    "KeyByRecordAndTile": "sampling.keying",
    "PointBatches": "sources.stream",
    "ReadChipDeadLetters": "chips.dead_letters",
    "ReadChips": "chips.read_chips",
    "ReadPoints": "sources.points",
    "ReadPolygons": "sources.polygons",
    "SampleDeadLetters": "sampling.dead_letters",
    "SamplePoints": "sampling.sample_points",
    "SampleTiles": "sampling.sampling",
    "SamplingOutputs": "sampling.outputs",
    "WriteChipsToGeoTiff": "sinks.geotiff",
    "WriteChipsToParquet": "sinks.parquet",
    "WriteSamplesToBigQuery": "sinks.bigquery",
    "WriteSamplesToParquet": "sinks.parquet",
    "WriteZonalStatisticsToBigQuery": "sinks.bigquery",
    "WriteZonalStatisticsToParquet": "sinks.parquet",
    "ZonalDeadLetters": "zonal.dead_letters",
    "ZonalOutputs": "zonal.zonal_statistics",
    "ZonalStatistics": "zonal.zonal_statistics",
}
"""Modules, in ``rasteret_beam.transforms``, of the names that are loaded on first use."""

__all__ = [
    "Access",
    "BigQueryQuery",
    "BigQueryTable",
    "BuildCollection",
    "ChipOptions",
    "ChipOutputs",
    "Collection",
    "CollectionUpdates",
    "GroupByTile",
    "KeyByRecordAndTile",
    "Plan",
    "PointBatches",
    "Quality",
    "ReadChipDeadLetters",
    "ReadChips",
    "ReadPoints",
    "ReadPolygons",
    "SampleDeadLetters",
    "SampleOptions",
    "SamplePoints",
    "SampleTiles",
    "SamplingOutputs",
    "TileKey",
    "WriteChipsToGeoTiff",
    "WriteChipsToParquet",
    "WriteSamplesToBigQuery",
    "WriteSamplesToParquet",
    "WriteZonalStatisticsToBigQuery",
    "WriteZonalStatisticsToParquet",
    "ZonalDeadLetters",
    "ZonalOptions",
    "ZonalOutputs",
    "ZonalStatistics",
    "build_from_cogs",
    "build_from_stac",
    "build_from_table",
    "decode_chip",
    "decode_chips",
    "join_windows",
    "load",
    "plan",
    "register",
    "report",
]


def __getattr__(name: str) -> Any:
    if name == "plot":
        return import_module("rasteret_beam.plot")
    if name in TRANSFORMS:
        return getattr(import_module(f"rasteret_beam.transforms.{TRANSFORMS[name]}"), name)
    raise AttributeError(f"module 'rasteret_beam' has no attribute {name!r}")
