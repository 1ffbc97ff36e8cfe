"""What sampling should give: brute force over all points, records and bands, with rasterio, pyproj and NumPy.

:func:`expected` takes the options of ``sample_points`` as a mapping, with quality rules as mappings too, and decides
point by point and band by band, in the order in which the documentation states it: which records are candidates, in
which order; whether the pixel of each is valid; which are taken; what becomes of invalid ones; what stands in a row.
None of the project's code is used.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyproj
import rasterio

projector = cache(partial(pyproj.Transformer.from_crs, always_xy=True))

US = timedelta(microseconds=1)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
Row = dict[str, Any]

STATISTICS = (
    "count",
    "valid_fraction",
    "mean",
    "median",
    "std",
    "min",
    "max",
    "sum",
    "majority",
    "variety",
    "percentile_90",
)
"""Statistics of windows that rows have, where ``statistics`` names them."""


@dataclass(frozen=True, eq=False)
class Raster:
    """A band of a record, read whole; ``left_in`` is what the file's own mask says of each pixel."""

    href: str
    values: np.ndarray
    left_in: np.ndarray
    transform: rasterio.Affine
    crs: str
    nodata: float | None
    scale: float
    offset: float
    block: tuple[int, int]

    def status(self, pixel: tuple[int, int]) -> str:
        """Of a pixel: "valid", "nodata" (NaN too) or "masked"."""
        value = self.values[pixel]
        if np.isnan(value) or (self.nodata is not None and value == self.nodata):
            return "nodata"
        return "valid" if self.left_in[pixel] else "masked"

    def pixel(self, x: float, y: float) -> tuple[int, int] | None:
        """Row and column of the pixel that holds a point in the raster's CRS; None outside."""
        col, row = (int(np.floor(place)) for place in ~self.transform * (x, y))
        height, width = self.values.shape
        return (row, col) if 0 <= row < height and 0 <= col < width else None

    def centre(self, pixel: tuple[int, int]) -> tuple[float, float]:
        """In the raster's CRS."""
        return self.transform * (pixel[1] + 0.5, pixel[0] + 0.5)

    def distance(self, pixel: tuple[int, int], x: float, y: float) -> float:
        """From a point to the rectangle of a pixel, of an upright grid."""
        centre_x, centre_y = self.centre(pixel)
        half = self.transform.a / 2
        return float(np.hypot(max(abs(x - centre_x) - half, 0), max(abs(y - centre_y) - half, 0)))

    def depth(self, x: float, y: float) -> float:
        """Metres from a point inside to the edge, of an upright grid."""
        col, row = ~self.transform * (x, y)
        height, width = self.values.shape
        return round(min(col, width - col, row, height - row) * self.transform.a, 3)


@dataclass(frozen=True, eq=False)
class Record:
    """A record: its id, its place in the collection, its datetime in microseconds, and its bands."""

    id: str
    order: int
    moment: int | None
    bands: dict[str, Raster]


@dataclass(frozen=True, eq=False)
class Point:
    """A point of the input: its row number, and its coordinates and time, as far as it has them."""

    index: int
    x: float
    y: float
    crs: str
    moment: int | None

    def on(self, raster: Raster) -> tuple[float, float]:
        return projector(self.crs, raster.crs).transform(self.x, self.y)


@dataclass(frozen=True, eq=False)
class Candidate:
    """A record for a point and a band: the pixel that gives the value, and how many better records are left aside."""

    record: Record
    raster: Raster
    pixel: tuple[int, int]
    status: str
    distance: float
    depth: int

    @property
    def is_valid(self) -> bool:
        return self.status in ("valid", "filled")


@dataclass(frozen=True)
class Answer:
    """Rows of the long layout, those of points without a sample included where ``join`` is left; and reasons."""

    rows: list[Row]
    unsampled: dict[int, str]


def microseconds(moment: datetime | None) -> int | None:
    if moment is None:
        return None
    return ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - EPOCH) // US


def read_records(table: pa.Table) -> list[Record]:
    """The records of a record table whose assets have href, band_index and, maybe, raster:bands."""
    return [
        Record(
            row["id"],
            order,
            microseconds(row["datetime"]),
            {band: read_raster(asset) for band, asset in row["assets"].items() if asset is not None},
        )
        for order, row in enumerate(table.to_pylist())
    ]


def read_raster(asset: Mapping[str, Any]) -> Raster:
    """The scale and offset are those of the asset, else those of the file."""
    number = asset["band_index"] + 1
    facts = next(iter(asset.get("raster:bands") or []), None) or {}
    with rasterio.open(asset["href"]) as dataset:
        values = dataset.read(number)
        left_in = dataset.read_masks(number) != 0
        nodata = dataset.nodatavals[number - 1]
        scale, offset = dataset.scales[number - 1], dataset.offsets[number - 1]
        crs, transform, block = dataset.crs.to_string(), dataset.transform, dataset.block_shapes[number - 1]
    own = {name: facts.get(name) for name in ("scale", "offset")}
    scale = scale if own["scale"] is None else own["scale"]
    offset = offset if own["offset"] is None else own["offset"]
    return Raster(asset["href"], values, left_in, transform, crs, nodata, scale, offset, block)


def points_of(table: pa.Table, x: str, y: str, crs: str, time: str | None = None) -> list[Point | str]:
    """The points of a table; for one that has no coordinates, the reason why it cannot be sampled."""
    times = table[time].cast(pa.timestamp("us")).to_pylist() if time else [None] * len(table)
    found: list[Point | str] = []
    for index, (east, north, moment) in enumerate(zip(table[x].to_pylist(), table[y].to_pylist(), times, strict=True)):
        if east is None or north is None:
            found.append("null")
        elif not np.isfinite([east, north]).all():
            found.append("not_finite")
        else:
            found.append(Point(index, east, north, crs, microseconds(moment)))
    return found


def expected(
    records: Sequence[Record], points: Iterable[Point | str], bands: Sequence[str], options: Mapping[str, Any]
) -> Answer:
    """The rows of the long layout, and the reasons of the points without a row that has a sample."""
    rows: list[Row] = []
    unsampled: dict[int, str] = {}
    for index, point in enumerate(points):
        of_point: list[Row] = []
        reasons: dict[str, str] = {}
        for band in bands:
            if isinstance(point, str):
                reasons[band] = point
                continue
            ranked, reason = _ranked(records, point, band, options)
            taken = [replace(each, depth=each.depth - before) for before, each in enumerate(_taken(ranked, options))]
            kept = [each for each in taken if options.get("invalid") != "drop" or each.is_valid]
            of_point += [
                _row(point, band, each, options) | _statistics(records, point, band, each, options) for each in kept
            ]
            if not kept:
                reasons[band] = "invalid" if taken else reason
        if not of_point:
            unsampled[index] = _first_reason(reasons.values())
            reasons = dict.fromkeys(bands, unsampled[index])
        if options.get("join") == "left":
            of_point += [_missing(index, band, reason) for band, reason in reasons.items()]
        rows += of_point
    return Answer(rows, unsampled)


def _first_reason(reasons: Iterable[str]) -> str:
    """That of a point: of its bands, the one that came nearest to a sample."""
    return max(reasons, key=("null", "not_finite", "no_record", "no_time", "out_of_tolerance", "invalid").index)


def _ranked(
    records: Sequence[Record], point: Point, band: str, options: Mapping[str, Any]
) -> tuple[list[Candidate], str]:
    """The candidates of a point and band, best first; and why there are none, if there are none."""
    match = options.get("match", "all")
    in_time = match in ("nearest", "before", "after") or options.get("tolerance") is not None or options.get("limit")
    found = [record for record in records if band in record.bands and _holds(record.bands[band], point)]
    if in_time and point.moment is None:
        return [], "no_time"
    if not found:
        return [], "no_record"
    if in_time:
        found = [record for record in found if _suits(record.moment, point.moment, match, options.get("tolerance"))]
    if options.get("overlap") == "first":
        found = _first_of_each_moment(found, point, band, options.get("overlap_tolerance", timedelta(seconds=60)))
    if match == "latest":
        found.sort(key=lambda record: (record.moment is None, -(record.moment or 0), record.order))
    elif in_time:
        found.sort(key=lambda record: (abs(record.moment - point.moment), record.moment, record.order))
    return [_candidate(record, point, band, depth, options) for depth, record in enumerate(found)], "out_of_tolerance"


def _holds(raster: Raster, point: Point) -> bool:
    return raster.pixel(*point.on(raster)) is not None


def _suits(moment: int | None, time: int, match: str, tolerance: timedelta | None) -> bool:
    if moment is None or (tolerance is not None and abs(moment - time) > tolerance // US):
        return False
    return {"before": moment <= time, "after": moment >= time}.get(match, True)


def _first_of_each_moment(records: list[Record], point: Point, band: str, apart: timedelta) -> list[Record]:
    """Of records in a chain of moments, each at most so far from the one before, the one that holds the point deepest.

    Records without a datetime stay, each for itself; the order is that of the collection.
    """
    groups: list[list[Record]] = []
    for record in sorted(records, key=lambda each: (each.moment is not None, each.moment or 0, each.order)):
        last = groups[-1][-1].moment if groups else None
        if last is not None and record.moment is not None and record.moment - last <= apart // US:
            groups[-1].append(record)
        else:
            groups.append([record])

    def rank(record: Record) -> tuple[float, int]:
        raster = record.bands[band]
        return -raster.depth(*point.on(raster)), record.order

    return sorted((min(group, key=rank) for group in groups), key=lambda record: record.order)


def _candidate(record: Record, point: Point, band: str, depth: int, options: Mapping[str, Any]) -> Candidate:
    raster, rules = record.bands[band], options.get("quality", ())
    x, y = point.on(raster)
    pixel = raster.pixel(x, y)
    assert pixel is not None
    status = raster.status(pixel)
    if status == "valid" and not all(passes(rule, record, raster.crs, x, y) for rule in rules):
        status = "masked"
    if status != "valid":
        reach = options.get("max_distance_pixels", 0)
        near = [each for each in _around(raster, pixel, reach) if _passing(record, raster, each, rules)]
        if near:
            best = min(near, key=lambda each: raster.distance(each, x, y))
            return Candidate(record, raster, best, "filled", raster.distance(best, x, y), depth)
    return Candidate(record, raster, pixel, status, 0.0, depth)


def _around(raster: Raster, pixel: tuple[int, int], reach: int) -> list[tuple[int, int]]:
    """The pixels of a raster at most so many rows and columns from one, without itself."""
    rows, cols = (
        range(max(at - reach, 0), min(at + reach + 1, size))
        for at, size in zip(pixel, raster.values.shape, strict=True)
    )
    return [(row, col) for row in rows for col in cols if (row, col) != pixel]


def _passing(record: Record, raster: Raster, pixel: tuple[int, int], rules: Iterable[Mapping[str, Any]]) -> bool:
    """Whether a pixel is valid: that of the quality bands is the one that holds its centre."""
    if raster.status(pixel) != "valid":
        return False
    key = record, raster, pixel, repr(rules)
    if key not in _PASSED:
        x, y = raster.centre(pixel)
        _PASSED[key] = all(passes(rule, record, raster.crs, x, y) for rule in rules)
    return _PASSED[key]


_PASSED: dict[tuple[Any, ...], bool] = {}
"""What is known already of pixels."""


def passes(rule: Mapping[str, Any], record: Record, crs: str, x: float, y: float) -> bool:
    """Whether a record passes a rule at a place, on the pixel of the quality band that holds it."""
    raster = record.bands.get(rule["band"])
    if raster is None:
        return {"pass": True, "fail": False}[rule["missing"]]
    pixel = raster.pixel(*projector(crs, raster.crs).transform(x, y))
    if pixel is None or raster.status(pixel) != "valid":
        return False
    value = raster.values[pixel].item()
    return not (
        value in rule.get("exclude", ())
        or (rule.get("keep") is not None and value not in rule["keep"])
        or any(value >> bit & 1 for bit in rule.get("exclude_bits", ()))
        or any(
            value >> low & ((1 << high - low + 1) - 1) in excluded
            for (low, high), excluded in rule.get("fields", {}).items()
        )
        or (rule.get("minimum") is not None and value < rule["minimum"])
        or (rule.get("maximum") is not None and value > rule["maximum"])
    )


def _most(options: Mapping[str, Any], found: int) -> int:
    return options.get("limit") or (found if options.get("match", "all") == "all" else 1)


def _taken(ranked: list[Candidate], options: Mapping[str, Any]) -> list[Candidate]:
    """The best candidates; with ``skip_invalid`` the best valid ones of the first, and the best if none is valid."""
    most = _most(options, len(ranked))
    if not options.get("skip_invalid"):
        return ranked[:most]
    first = ranked[: options.get("max_candidates", 10)]
    return ([each for each in first if each.is_valid] or first)[:most]


def _walked(ranked: list[Candidate], options: Mapping[str, Any]) -> list[Candidate]:
    """Those that have to be looked at, one after the other, until there are enough valid ones."""
    most = _most(options, len(ranked))
    if not options.get("skip_invalid"):
        return ranked[:most]
    seen: list[Candidate] = []
    for each in ranked[: options.get("max_candidates", 10)]:
        seen.append(each)
        if sum(one.is_valid for one in seen) == most:
            break
    return seen


Tile = tuple[str, int, int]
"""File, and row and column of the tile."""


def needed_tiles(
    records: Sequence[Record], points: Iterable[Point | str], bands: Sequence[str], options: Mapping[str, Any]
) -> set[Tile]:
    """The tiles without which the rows cannot be known.

    Of the candidates that have to be looked at, those of the quality bands, each while the ones before it pass, and
    that of the band itself where all pass; and those of the bands of rows that are shown though they are not valid.
    """
    needed: set[Tile] = set()
    for point in points:
        for band in bands if isinstance(point, Point) else ():
            ranked, _ = _ranked(records, point, band, options)
            for each in _walked(ranked, options):
                needed |= _looked_at(each, point, band, options)
            shown = [each for each in _taken(ranked, options) if options.get("invalid") != "drop"]
            needed |= {_tile(each.raster, each.raster.pixel(*point.on(each.raster))) for each in shown}
    return needed


def _looked_at(candidate: Candidate, point: Point, band: str, options: Mapping[str, Any]) -> set[Tile]:
    found: set[Tile] = set()
    for rule in options.get("quality", ()):
        raster = candidate.record.bands.get(rule["band"])
        pixel = raster and raster.pixel(*point.on(raster))
        if raster is not None and pixel is not None:
            found.add(_tile(raster, pixel))
        if not passes(rule, candidate.record, point.crs, point.x, point.y):
            return found
    return found | {_tile(candidate.raster, candidate.raster.pixel(*point.on(candidate.raster)))}


def _tile(raster: Raster, pixel: tuple[int, int]) -> Tile:
    return raster.href, pixel[0] // raster.block[0], pixel[1] // raster.block[1]


def _row(records: Sequence[Record], point: Point, band: str, taken: Candidate, options: Mapping[str, Any]) -> Row:
    record, raster = taken.record, taken.raster
    raw = raster.values[taken.pixel].item()
    scale, offset = options.get("scales", {}).get(band, (raster.scale, raster.offset))
    value: float | None = float(raw)
    if options.get("unscale"):
        value = raw * scale + offset
    if not taken.is_valid and (options.get("unscale") or options.get("invalid") == "null"):
        value = None
    x, y = raster.centre(taken.pixel)
    lon, lat = projector(raster.crs, "OGC:CRS84").transform(x, y)
    apart = None if None in (record.moment, point.moment) else (record.moment - point.moment) / 1e6
    return {
        "point_index": point.index,
        "record_id": record.id,
        "datetime": record.moment,
        "band": band,
        "value": value,
        "raster_crs": int(raster.crs.removeprefix("EPSG:")),
        "pixel_row": taken.pixel[0],
        "pixel_col": taken.pixel[1],
        "href": raster.href,
        "status": taken.status,
        "distance": taken.distance,
        "pixel_x": x,
        "pixel_y": y,
        "pixel_lon": lon,
        "pixel_lat": lat,
        "time_difference": apart,
        "nodata": raster.nodata,
        "scale": scale,
        "offset": offset,
        "candidate": taken.depth if options.get("skip_invalid") else 0,
        **_statistics(records, point, band, taken, options),
    }


def _statistics(
    records: Sequence[Record], point: Point, band: str, taken: Candidate, options: Mapping[str, Any]
) -> Row:
    """Of the valid pixels of the square around a point; beyond the raster they are of the records beside it."""
    record, raster, reach = taken.record, taken.raster, options.get("window_pixels", 0)
    if not options.get("statistics"):
        return {}
    pixel = raster.pixel(*point.on(raster))
    assert pixel is not None
    along = range(-reach, reach + 1)
    near = [_held(records, record, band, (pixel[0] + row, pixel[1] + col), options) for row in along for col in along]
    valid = []
    for holder, at in filter(None, near):
        of_holder = holder.bands[band]
        if _passing(holder, of_holder, at, options.get("quality", ())):
            scale, offset = options.get("scales", {}).get(band, (of_holder.scale, of_holder.offset))
            number = of_holder.values[at].item()
            valid.append(number * scale + offset if options.get("unscale") else number)
    times = Counter(valid)
    whole = {"count": len(valid), "variety": len(times), "valid_fraction": len(valid) / (2 * reach + 1) ** 2}
    if not valid:
        return whole
    return whole | {
        "mean": float(np.mean(valid)),
        "median": float(np.median(valid)),
        "std": float(np.std(valid)),
        "min": float(min(valid)),
        "max": float(max(valid)),
        "sum": float(np.sum(valid)),
        "majority": float(min(value for value in valid if times[value] == max(times.values()))),
        "percentile_90": float(np.percentile(valid, 90)),
    }


def _held(
    records: Sequence[Record], record: Record, band: str, pixel: tuple[int, int], options: Mapping[str, Any]
) -> tuple[Record, tuple[int, int]] | None:
    """Where a pixel of a record's grid, or one beyond it, is read: of records beside it, the first that holds it."""
    raster = record.bands[band]
    height, width = raster.values.shape
    if 0 <= pixel[0] < height and 0 <= pixel[1] < width:
        return record, pixel
    apart = options.get("overlap_tolerance", timedelta(seconds=60)) // US

    def is_beside(other: Record) -> bool:
        there = other.bands.get(band)
        if other is record or there is None or (record.moment is None) != (other.moment is None):
            return False
        same_units = (there.scale, there.offset) == (raster.scale, raster.offset)
        one_moment = record.moment is None or other.moment is None or abs(record.moment - other.moment) <= apart
        return there.crs == raster.crs and one_moment and (same_units or bool(options.get("unscale")))

    beside = [other for other in records if is_beside(other)]
    beside.sort(key=lambda other: (abs((other.moment or 0) - (record.moment or 0)), other.order))
    for other in beside:
        at = other.bands[band].pixel(*raster.centre(pixel))
        if at is not None:
            return other, at
    return None


def _missing(index: int, band: str, reason: str) -> Row:
    return {"point_index": index, "band": band, "status": reason}


def wide(answer: Answer, bands: Sequence[str], options: Mapping[str, Any]) -> list[Row]:
    """The rows of a wide layout: the long ones, pivoted.

    There is a row for each point where it has at most one record of each band: its record is that of the first band
    that has one. Otherwise there is one for each point and record. Points without a sample have a row where the long
    ones have.
    """
    one_record = _most(options, 2) == 1
    groups: dict[tuple[int, Any], dict[str, Row]] = {}
    for row in answer.rows:
        index, record = row["point_index"], row.get("record_id")
        if record is not None:
            groups.setdefault((index, None if one_record else record), {})[row["band"]] = row
        elif index in answer.unsampled:
            groups.setdefault((index, None), {})[row["band"]] = row
    return [_wide_row(index, of_band, bands) for (index, _), of_band in groups.items()]


def _wide_row(index: int, of_band: dict[str, Row], bands: Sequence[str]) -> Row:
    """Its status is that of the first band that is not valid."""
    there = [of_band[band] for band in bands if band in of_band]
    first = next((row for row in there if row.get("record_id") is not None), {})
    row = {name: first.get(name) for name in ("record_id", "datetime", "raster_crs", "time_difference")}
    row["status"] = next((each["status"] for each in there if each["status"] != "valid"), "valid")
    values = {band: of_band.get(band, {}).get("value") for band in bands}
    statistics = {name: [of_band.get(band, {}).get(name) for band in bands] for name in STATISTICS}
    values |= {f"{band}_{name}": of_band.get(band, {}).get(name) for name in STATISTICS for band in bands}
    records = {f"{band}_record_id": of_band.get(band, {}).get("record_id") for band in bands}
    lists = {"values": [values[band] for band in bands]} | statistics
    return {"point_index": index} | lists | row | values | records
