"""What a report shows of a collection, of options and of the versions of the software."""

import platform
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import pyarrow as pa
import pyproj
import rasterio
import shapely

from rasteret_beam.collection.eager.plan_view import Plan
from rasteret_beam.collection.explore.footprints import footprints_of
from rasteret_beam.collection.index.band_facts import read_facts
from rasteret_beam.collection.parquet.layout import time_span
from rasteret_beam.collection.records.selection import RecordSelection
from rasteret_beam.errors import InputError, listed, without_secrets
from rasteret_beam.kernels.geo.crs import crs_label
from rasteret_beam.option_fields import options_of
from rasteret_beam.options import SampleOptions
from rasteret_beam.pages.report.facts import Facts
from rasteret_beam.schema import METADATA_SUFFIX

MOST_FOOTPRINTS = 1000
MOST_RECORDS = 20_000
"""Of a collection whose nodata values are read."""


def facts_of(
    collection: RecordSelection | None,
    *,
    title: str = "",
    options: SampleOptions | Mapping[str, str] | None = None,
    point_crs: str = "",
    plan: Plan | Mapping[str, int] | None = None,
    plan_note: str = "",
    outputs: Mapping[str, str] | None = None,
) -> Facts:
    """The facts of a report.

    Parameters
    ----------
    collection : Collection, optional
    title : str
        Default: named after the collection.
    options : SampleOptions or mapping, optional
        Those that differ from the default are shown.
    point_crs : str
        As text that pyproj reads.
    plan : Plan or mapping, optional
        Of :func:`rasteret_beam.plan`, or its totals.
    plan_note : str
        Why there is none.
    outputs : mapping, optional
    """
    shapes, crs, note = _footprints(collection)
    return Facts(
        title=title or (f"Samples of {collection.name}" if collection is not None and collection.name else "Samples"),
        collection=_described(collection) if collection is not None else {},
        options=options if isinstance(options, Mapping) else _options(options),
        versions=versions(),
        outputs=dict(outputs or {}),
        plan=plan.totals if isinstance(plan, Plan) else plan,
        plan_note=plan_note,
        footprints=shapes,
        footprint_crs=crs,
        footprint_note=note,
        point_crs=point_crs,
        made=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
    )


def _footprints(collection: RecordSelection | None) -> tuple[Sequence[bytes], str, str]:
    """WKB of outlines, their CRS, and what they leave out; none where the records have none."""
    if collection is None:
        return (), "", ""
    try:
        found = footprints_of(collection, MOST_FOOTPRINTS)
    except InputError:
        return (), "", ""
    return shapely.to_wkb(found.shapes).tolist(), found.crs, found.note()


def _described(collection: RecordSelection) -> dict[str, str]:
    first, last = (
        time_span(collection.to_table(["datetime"])) if "datetime" in collection.schema.names else (None, None)
    )
    return {
        "name": collection.name,
        "source": without_secrets(collection.path or collection.data_source or "in memory"),
        "records": f"{len(collection):,}",
        "dates": f"{first:%Y-%m-%d} to {last:%Y-%m-%d}" if first and last else "none",
        "CRS": listed([crs_label(text) for text in collection.crs], 6),
        "bands": listed(collection.bands, 12),
    }


def _options(options: SampleOptions | None) -> dict[str, str]:
    """Options that differ from the default."""
    if options is None:
        return {}
    given = {each.name: getattr(options, each.name) for each in options_of(SampleOptions)}
    default = SampleOptions()
    changed = {name: value for name, value in given.items() if value != getattr(default, name)}
    return {name: option_text(value) for name, value in changed.items()} or {"all": "as by default"}


def option_text(value: Any) -> str:
    """The value of an option or flag as text."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {each}" for name, each in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(without_secrets(str(each)) for each in value)
    return without_secrets(str(value))


def versions() -> dict[str, str]:
    """Of this package and of those that decide about numbers."""
    found = {"rasteret_beam": _own_version(), "Python": platform.python_version()}
    if "apache_beam" in sys.modules:
        found["Apache Beam"] = version("apache-beam")
    return found | {
        "NumPy": np.__version__,
        "PyArrow": pa.__version__,
        "PROJ": pyproj.proj_version_str,
        "GDAL": str(rasterio.__gdal_version__),
    }


def _own_version() -> str:
    try:
        return version("rasteret-beam")
    except PackageNotFoundError:
        return ""


def nodata_of_values(
    collection: RecordSelection | None, bands: Sequence[str], options: SampleOptions | None = None
) -> dict[str, list[float]]:
    """The nodata values that sampled values of bands can have; none where these are not stored numbers."""
    if options is not None and (options.unscale or options.resampling != "nearest"):
        return {}
    there = set(collection.schema.names) if collection is not None else set()
    known = [band for band in bands if band + METADATA_SUFFIX in there]
    if collection is None or not known or len(collection) > MOST_RECORDS:
        return {}
    found = read_facts(collection, known).nodata_of()
    return {band: values for band, values in found.items() if values}
