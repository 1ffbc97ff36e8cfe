"""Read groups of polygons that are keyed by place into rows of zonal statistics."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import shapely

from rasteret_beam import metrics
from rasteret_beam.collection.eager.chip_groups import ReadRows
from rasteret_beam.collection.eager.zonal_job import ZonalJob
from rasteret_beam.collection.eager.zone_portions import Portion, portions
from rasteret_beam.collection.eager.zone_targets import LostZones, Names, walk
from rasteret_beam.errors import InputError, listed
from rasteret_beam.kernels.geo.grids import Ints
from rasteret_beam.kernels.routing.chip_chunks import batch_crs, hits_of
from rasteret_beam.kernels.routing.chip_windows import Overlap, chip_overlaps
from rasteret_beam.kernels.sampling.dead_letters import OF_ZONES, Failure, dead_letters, values_lost
from rasteret_beam.kernels.sampling.rows import merged
from rasteret_beam.kernels.statistics.moments import Choice, choices_by_moment, choices_by_record
from rasteret_beam.kernels.tables.point_times import NO_TIME, point_times
from rasteret_beam.kernels.tables.polygon_geometry import Polygons
from rasteret_beam.readers.jobs.zone_reader import ZoneReader
from rasteret_beam.schema import ZONAL_SETTINGS_KEY, ZONE_RECORDS

CHUNK_BYTES = 16 << 20
"""Chunks of a group that are read together: the polygons on a tile share it."""


def read_zonal_group(reader: ZoneReader, job: ZonalJob, chunks: Iterable[pa.RecordBatch]) -> Iterator[ReadRows]:
    """Read the polygons of a group into rows of zonal statistics.

    Parameters
    ----------
    chunks : iterable of RecordBatch
        Of polygons keyed by place, as :class:`rasteret_beam.kernels.routing.chip_chunks.RoutedPolygons` describes them.

    Yields
    ------
    ReadRows
        In the schema of the job, of at most 131,072 rows, by polygon, then by record in collection order, then by
        band; with ``join="left"`` also rows of bands for which a polygon has no record. With
        ``on_error="dead_letter"``, dead letters in ``schema.ZONAL_DEAD_LETTER_SCHEMA``: a row for each tile of a band
        that cannot be read, with the polygons and records whose rows it leaves out.

    Raises
    ------
    TileReadError
        A tile cannot be read.
    InputError
        A polygon has more valid pixels than ``max_exact_values``, and median or percentiles are wanted; names both.
    """
    for chunk in _together(chunks):
        overlaps = _overlaps(job, chunk)
        choices = list(_choices(job, chunk, overlaps))
        yield from _read(reader, job, chunk, overlaps, choices)
        if job.options.join == "left":
            yield from map(ReadRows, job.row_maker.rows(chunk, (), _missing(job, len(chunk), choices)))


def read_zones_again(
    reader: ZoneReader, job: ZonalJob, record_id: str, band: str, chunk: pa.RecordBatch
) -> Iterator[ReadRows]:
    """Read the polygons of a dead letter, with the options of the earlier run.

    Parameters
    ----------
    chunk : RecordBatch
        As :func:`rasteret_beam.kernels.sampling.dead_letters.points_of` gives it with ``OF_ZONES``.

    Yields
    ------
    ReadRows
        As :func:`read_zonal_group`: one row for each polygon.

    Raises
    ------
    InputError
        The collection no longer has the record or the band.
    """
    if job.index.routing.grid_of_band(record_id, band) is None:
        raise InputError(f"a dead letter is of record {record_id!r}, band {band}, which the collection does not have")
    overlaps = _overlaps(job, chunk)
    hits = {(overlap.geometry, overlap.grid): at for at, overlap in enumerate(overlaps)}
    grids = job.index.routing.band_grids(band)
    choices = []
    for zone, record_ids in enumerate(chunk[ZONE_RECORDS].to_pylist()):
        records = [job.index.routing.positions.get(each, -1) for each in record_ids]
        members = tuple((record, int(grids[record])) for record in records if record >= 0)
        found = [hits[zone, grid] for _, grid in members if (zone, grid) in hits]
        if len(found) < len(record_ids):
            raise InputError(
                f"a dead letter of band {band} is of records {listed(record_ids)}, and polygon "
                f"{chunk['geometry_id'][zone]} does not overlap all of them in the collection; read the polygons anew, "
                "not the dead letters"
            )
        choices.append(Choice(zone, (band,), [members], found))
    yield from _read(reader, job, chunk, overlaps, choices)


def rows_without_record(job: ZonalJob, polygons: pa.RecordBatch) -> pa.RecordBatch:
    """Rows for polygons that have no record, with ``join="left"``: one for each band, with nulls.

    Parameters
    ----------
    polygons : RecordBatch
        With ``geometry_id`` and the kept columns, such as a batch of unmatched polygons.
    """
    missing = np.stack(np.divmod(np.arange(len(polygons) * len(job.bands)), len(job.bands)), axis=1)
    batches = list(job.row_maker.rows(polygons, (), missing))
    if not batches:
        return job.row_maker.schema(polygons.schema).empty_table().to_batches()[0]
    return merged(batches)


def _together(chunks: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    held: list[pa.RecordBatch] = []
    size = 0
    for chunk in chunks:
        if held and size + chunk.nbytes > CHUNK_BYTES:
            yield merged(held)
            held, size = [], 0
        held.append(chunk)
        size += chunk.nbytes
    if held:
        yield merged(held)


def _overlaps(job: ZonalJob, chunk: pa.RecordBatch) -> list[Overlap]:
    crs, column = batch_crs(chunk.schema, None)
    shapes = shapely.force_2d(shapely.from_wkb(chunk["geometry"].to_numpy(zero_copy_only=False)))
    polygons = Polygons(shapes, crs, column, chunk["geometry_id"].to_numpy())
    found = list(chip_overlaps(job.index.routing, polygons))
    time_column = job.index.routing.matcher.time_column
    if time_column is None or time_column not in chunk.schema.names:
        return found
    timed = point_times(chunk, time_column) != NO_TIME
    return [overlap for overlap in found if timed[overlap.geometry]]


def _choices(job: ZonalJob, chunk: pa.RecordBatch, overlaps: Sequence[Overlap]) -> Iterator[Choice]:
    """What may be taken of each polygon."""
    routing, options = job.index.routing, job.options
    matcher = routing.matcher
    times = None if matcher.time_column is None else point_times(chunk, matcher.time_column)
    most = options.max_candidates if options.skip_invalid else matcher.most
    hits = hits_of(overlaps)
    for group in matcher.candidates(hits, len(chunk), times, None if options.merges else most):
        if options.merges:
            apart = options.match_rules.overlap_tolerance
            yield from choices_by_moment(group, hits.grid, routing.datetimes, apart, most)
        else:
            yield from choices_by_record(group, hits.grid)


def _read(
    reader: ZoneReader, job: ZonalJob, chunk: pa.RecordBatch, overlaps: Sequence[Overlap], choices: Sequence[Choice]
) -> Iterator[ReadRows]:
    _, column = batch_crs(chunk.schema, None)
    names = Names(chunk["geometry_id"].to_numpy(), column)
    settings = job.options.coverage, job.options.merges
    routed = (len(choice.bands) * (1 if job.options.skip_invalid else len(choice.ranked)) for choice in choices)
    job.counters.add(metrics.ZONES_ROUTED, sum(routed))
    for portion in portions(choices, overlaps, job.index.routing, *settings):
        yield from _read_portion(reader, job, chunk, portion, names)


def _read_portion(
    reader: ZoneReader, job: ZonalJob, chunk: pa.RecordBatch, portion: Portion, names: Names
) -> Iterator[ReadRows]:
    found, lost = walk(reader, job, portion, names)
    rows = sum(len(each.zones) for each in found)
    job.counters.add(metrics.ZONES_OUT, rows)
    yield from map(ReadRows, job.row_maker.rows(chunk, found, np.empty((0, 2), dtype=np.int64)))
    if lost:
        letters = _letters(job, chunk, lost)
        job.counters.add(metrics.DEAD_LETTERS, len(letters))
        job.counters.add(metrics.ZONES_DEAD_LETTERED, values_lost(letters, OF_ZONES))
        yield ReadRows(letters, failed=True)


def _letters(job: ZonalJob, chunk: pa.RecordBatch, lost: Sequence[LostZones]) -> pa.RecordBatch:
    """A dead letter for each tile that could not be read, with the polygons and records whose rows need it."""
    ids = job.index.routing.record_ids
    numbers = np.cumsum([0, *(len(each.failure.points) for each in lost)])
    by_tile: dict[tuple[str, str, str, int, int], list[Failure]] = {}
    for each, first in zip(lost, numbers.tolist(), strict=False):
        failure, asset = each.failure, each.failure.asset
        key = asset.record_id, asset.band, asset.href, failure.tile_row, failure.tile_col
        rows = first + np.arange(len(failure.points))
        by_tile.setdefault(key, []).append(replace(failure, points=rows))
    together = [replace(same[0], points=np.concatenate([each.points for each in same])) for same in by_tile.values()]
    zones = chunk.take(pa.array(np.concatenate([each.failure.points for each in lost])))
    records = [[ids[record] for record, _ in each.members] for each in lost for _ in each.failure.points]
    metadata = (chunk.schema.metadata or {}) | {ZONAL_SETTINGS_KEY: job.options.settings().encode()}
    fields = [field for field in zones.schema if field.name != ZONE_RECORDS]
    schema = pa.schema([*fields, pa.field(ZONE_RECORDS, pa.list_(pa.string()))], metadata)
    columns = [*(zones[field.name] for field in fields), pa.array(records, pa.list_(pa.string()))]
    return dead_letters(pa.RecordBatch.from_arrays(columns, schema=schema), together, OF_ZONES)


def _missing(job: ZonalJob, polygons: int, choices: Iterable[Choice]) -> Ints:
    """Polygons and bands, [m, 2], that have no record."""
    number = {band: at for at, band in enumerate(job.bands)}
    none = np.ones((polygons, len(job.bands)), dtype=bool)
    for choice in choices:
        if choice.ranked:
            none[choice.zone, [number[band] for band in choice.bands]] = False
    return np.stack(np.nonzero(none), axis=1)
