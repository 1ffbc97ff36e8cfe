"""Raster point sampling on collections of cloud-optimised GeoTIFFs, as Apache Beam transforms.

The PTransforms (``ReadPoints``, ``SamplePoints``, ...) are loaded on first use, so that
``import rasteret_beam`` does not import Beam.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from rasteret_beam.chip_options import ChipOptions
from rasteret_beam.collection.build import build_from_cogs, build_from_table
from rasteret_beam.collection.catalogue import register
from rasteret_beam.collection.collection import Collection, load
from rasteret_beam.collection.eager.plan import plan
from rasteret_beam.kernels.sampling.chip_rows import decode_chip, decode_chips, join_windows
from rasteret_beam.model import Access, TileKey
from rasteret_beam.options import SampleOptions

if TYPE_CHECKING:
    from rasteret_beam.transforms import (
        BigQueryQuery,
        BigQueryTable,
        BuildCollection,
        CollectionUpdates,
        GroupByTile,
        KeyByRecordAndTile,
        PointBatches,
        ReadChipDeadLetters,
        ReadChips,
        ReadPoints,
        ReadPolygons,
        SampleDeadLetters,
        SamplePoints,
        SampleTiles,
        WriteChipsToGeoTiff,
        WriteChipsToParquet,
        WriteSamplesToBigQuery,
        WriteSamplesToParquet,
    )

__version__ = "0.1.0"

__all__ = [
    "Access",
    "BigQueryQuery",
    "BigQueryTable",
    "BuildCollection",
    "ChipOptions",
    "Collection",
    "CollectionUpdates",
    "GroupByTile",
    "KeyByRecordAndTile",
    "PointBatches",
    "ReadChipDeadLetters",
    "ReadChips",
    "ReadPoints",
    "ReadPolygons",
    "SampleDeadLetters",
    "SampleOptions",
    "SamplePoints",
    "SampleTiles",
    "TileKey",
    "WriteChipsToGeoTiff",
    "WriteChipsToParquet",
    "WriteSamplesToBigQuery",
    "WriteSamplesToParquet",
    "build_from_cogs",
    "build_from_table",
    "decode_chip",
    "decode_chips",
    "join_windows",
    "load",
    "plan",
    "register",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module("rasteret_beam.transforms"), name)
    raise AttributeError(f"module 'rasteret_beam' has no attribute {name!r}")
