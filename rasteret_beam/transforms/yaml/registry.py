"""The transforms of Beam YAML.

A config has the keys of the Python arguments and options. A collection is a path (or an id of the catalogue), with the
keys of its subset and of the access beside it. What is written to files has a ``path``.
"""

from typing import Any

from rasteret_beam.chip_options import ChipOptions
from rasteret_beam.errors import InputError, listed
from rasteret_beam.options import SampleOptions
from rasteret_beam.transforms.chips.read_chips import ChipOutputs, ReadChips
from rasteret_beam.transforms.rows.to_batches import ToBatches
from rasteret_beam.transforms.rows.to_rows import ToRows
from rasteret_beam.transforms.sampling.outputs import SamplingOutputs
from rasteret_beam.transforms.sampling.sample_points import SamplePoints
from rasteret_beam.transforms.sinks.bigquery import WriteSamplesToBigQuery, WriteZonalStatisticsToBigQuery
from rasteret_beam.transforms.sinks.csv import WriteSamplesToCsv, WriteZonalStatisticsToCsv
from rasteret_beam.transforms.sinks.geotiff import WriteChipsToGeoTiff
from rasteret_beam.transforms.sinks.iceberg import WriteSamplesToIceberg, WriteZonalStatisticsToIceberg
from rasteret_beam.transforms.sinks.parquet import (
    WriteChipsToParquet,
    WriteSamplesToParquet,
    WriteZonalStatisticsToParquet,
)
from rasteret_beam.transforms.sources.bigquery import BigQueryQuery, BigQueryTable
from rasteret_beam.transforms.sources.points import ReadPoints
from rasteret_beam.transforms.sources.polygons import ReadPolygons
from rasteret_beam.transforms.sources.stream import PointBatches
from rasteret_beam.transforms.yaml.collections import (
    ACCESS_KEYS,
    COLLECTION_KEYS,
    access_of,
    collection_of,
    taken,
)
from rasteret_beam.transforms.yaml.keys import Key, keys_of_fields, keys_of_options
from rasteret_beam.transforms.yaml.sinks import sink
from rasteret_beam.transforms.yaml.steps import ERROR_KEY, Step
from rasteret_beam.transforms.zonal.zonal_statistics import ZonalOutputs, ZonalStatistics
from rasteret_beam.zonal_options import ZonalOptions

PATH = Key("path", Any, None, "file, folder or glob, or a list of such")
BIGQUERY_KEYS = (
    Key("table", str, None, "BigQuery table, project:dataset.table"),
    Key("query", str, None, "BigQuery SELECT statement, which runs once"),
    Key("index_column", str, None, "integer column of the table or query that becomes point_index"),
    Key("snapshot_time", str, None, "read the table as it was then, in ISO form"),
    Key("project", str, None, "project that BigQuery bills"),
)


def _points(**config: Any) -> ReadPoints:
    """Read a table of points: files, or a BigQuery table or query."""
    given = taken(config, "path", "table", "query")
    if len(given) != 1:
        raise InputError(f"give one of path, table and query; given: {listed(given) or 'none'}")
    of_bigquery = taken(config, "index_column", "snapshot_time", "project")
    (name, source), *_ = given.items()
    if name == "path" and of_bigquery:
        raise InputError(f"{listed(of_bigquery)} given without table or query")
    if name == "query" and "snapshot_time" in of_bigquery:
        raise InputError("snapshot_time goes with table; in a query write FOR SYSTEM_TIME AS OF")
    if name == "table":
        source = BigQueryTable(source, **of_bigquery)
    elif name == "query":
        source = BigQueryQuery(source, **of_bigquery)
    return ReadPoints(source, **_with_access(config))


def _polygons(**config: Any) -> ReadPolygons:
    """Read a table of polygons from files."""
    return ReadPolygons(config.pop("path"), **_with_access(config))


def _with_access(config: dict[str, Any]) -> dict[str, Any]:
    access = access_of(config)
    return config if access is None else {**config, "access": access}


def _on_collection(transform: Any) -> Any:
    def make(**config: Any) -> Any:
        collection = collection_of(config)
        return transform(collection, config.pop("bands"), **config)

    make.__doc__ = transform.__doc__
    return make


def _with_leftovers(name: str) -> tuple[Key, ...]:
    crs = Key("geometry_crs", Any, None, "CRS of the input, where its batches do not carry it")
    return crs, Key(f"with_{name}", bool, False, f"also give the output {name}, with a reason for each row")


POINTS = "batches of points, as ReadPoints gives them, or PointBatches of rows"
POLYGONS = "batches of polygons, as ReadPolygons gives them"
READING = ("source", "access")

_STEPS = (
    Step("ReadPoints", _points, (PATH, *BIGQUERY_KEYS, *keys_of_fields(ReadPoints, READING), *ACCESS_KEYS), "nothing"),
    Step(
        "ReadPolygons",
        _polygons,
        (Key("path", Any, help=PATH.help), *keys_of_fields(ReadPolygons, READING), *ACCESS_KEYS),
        "nothing",
    ),
    Step("PointBatches", PointBatches, keys_of_fields(PointBatches, ["schema"]), "rows", "rows or batches"),
    Step(
        "SamplePoints",
        _on_collection(SamplePoints),
        (*COLLECTION_KEYS, *_with_leftovers("unsampled"), *keys_of_options(SampleOptions), ERROR_KEY),
        what=POINTS,
        outputs=SamplingOutputs._fields,
    ),
    Step(
        "ReadChips",
        _on_collection(ReadChips),
        (*COLLECTION_KEYS, *_with_leftovers("unmatched"), *keys_of_options(ChipOptions), ERROR_KEY),
        what=POLYGONS,
        outputs=ChipOutputs._fields,
    ),
    Step(
        "ZonalStatistics",
        _on_collection(ZonalStatistics),
        (*COLLECTION_KEYS, *_with_leftovers("unmatched"), *keys_of_options(ZonalOptions), ERROR_KEY),
        what=POLYGONS,
        outputs=ZonalOutputs._fields,
    ),
    Step("ToRows", ToRows, keys_of_fields(ToRows, ["schema"]), wraps=False),
    Step("ToBatches", ToBatches, keys_of_fields(ToBatches, ["schema"]), "rows", "rows"),
    sink(WriteSamplesToParquet, prefix="path"),
    sink(WriteSamplesToBigQuery, table="table"),
    sink(WriteSamplesToCsv, path="path"),
    sink(WriteSamplesToIceberg, table="table"),
    sink(WriteChipsToParquet, prefix="path"),
    sink(WriteChipsToGeoTiff, folder="path"),
    sink(WriteZonalStatisticsToParquet, prefix="path"),
    sink(WriteZonalStatisticsToBigQuery, table="table"),
    sink(WriteZonalStatisticsToCsv, path="path"),
    sink(WriteZonalStatisticsToIceberg, table="table"),
)

TRANSFORMS = {step.name: step for step in _STEPS}
"""All transforms by their type in YAML."""
