"""Targets: zones that are read of the same records; and the walk over the records until enough pixels are valid."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from rasteret_beam import metrics
from rasteret_beam.collection.eager.zonal_job import ZonalJob
from rasteret_beam.collection.eager.zonal_rows import ZoneRows
from rasteret_beam.collection.eager.zone_portions import Portion, ZoneLattice
from rasteret_beam.errors import InputError
from rasteret_beam.kernels.geo.crs import Floats
from rasteret_beam.kernels.geo.grids import Ints
from rasteret_beam.kernels.sampling.dead_letters import Failure
from rasteret_beam.kernels.sampling.validity import Mask
from rasteret_beam.kernels.statistics.moments import Members
from rasteret_beam.kernels.statistics.zones import ZoneStates
from rasteret_beam.kernels.tables.polygon_geometry import geometry_label
from rasteret_beam.readers.jobs.zone_reader import PlacedPixels, ZoneLayer, ZoneReader, ZoneTask


class LostZones(NamedTuple):
    """Rows that a tile leaves out, which cannot be read: the points of the failure are numbers of polygons."""

    failure: Failure
    members: Members


@dataclass(eq=False)
class Target:
    """Zones to read of some records, and what is found.

    Attributes
    ----------
    members : tuple of (record, grid)
    bands : tuple of str
    zones : [n] int64
        Numbers of the polygons, ascending.
    states : dict of ZoneStates
        By band.
    covered : dict of [n] float64
        By band, the share of the pixels of each polygon that are valid.
    lost : dict of [n] bool
        By band, whether a tile could not be read.
    failures : list of LostZones
    has_pixels : [n] bool
        Whether a polygon has any pixel.
    """

    members: Members
    bands: tuple[str, ...]
    zones: Ints
    states: dict[str, ZoneStates] = field(default_factory=dict)
    covered: dict[str, Floats] = field(default_factory=dict)
    lost: dict[str, Mask] = field(default_factory=dict)
    failures: list[LostZones] = field(default_factory=list)
    has_pixels: Mask = field(init=False)

    def __post_init__(self) -> None:
        none = np.zeros(len(self.zones), dtype=bool)
        self.has_pixels = none.copy()
        self.lost = {band: none.copy() for band in self.bands}
        self.covered = {band: np.zeros(len(self.zones)) for band in self.bands}

    def add(self, states: dict[str, ZoneStates]) -> None:
        """Add pixels of the zones."""
        for band, state in states.items():
            self.states[band] = self.states[band].merged(state) if band in self.states else state

    def lose(self, failures: Iterable[Failure]) -> None:
        """Give up zones of a band, each for its first failure."""
        for failure in failures:
            lost = self.lost[failure.asset.band]
            new = failure.points[~lost[failure.points]]
            if len(new):
                lost[new] = True
                self.failures.append(LostZones(replace(failure, points=self.zones[new]), self.members))

    def is_enough(self, band: str, least: float) -> Mask:
        """Whether a record can be taken, [n]: enough pixels are valid, or there is none to be valid, or one is lost."""
        return self.lost[band] | ~self.has_pixels | (self.covered[band] >= least)

    def rows(self, job: ZonalJob, band: str, chosen: Mask) -> ZoneRows:
        """The rows of the chosen zones, except those that are lost."""
        at = np.flatnonzero(chosen & ~self.lost[band])
        whole = not job.options.shares
        columns = self.states[band].columns(job.options.statistics, self.covered[band], whole)
        taken = {
            name: column._replace(values=column.values[at], null=None if column.null is None else column.null[at])
            for name, column in columns.items()
        }
        return ZoneRows(self.members, list(job.bands).index(band), self.zones[at], taken)


def targets_of(choices: Iterable[tuple[int, tuple[str, ...], Members]]) -> list[Target]:
    """Polygons of the same records and bands together."""
    zones: dict[tuple[Members, tuple[str, ...]], list[int]] = {}
    for zone, bands, members in choices:
        zones.setdefault((members, bands), []).append(zone)
    ordered = sorted(zones.items(), key=lambda item: item[0][0])
    return [Target(members, bands, np.unique(own)) for (members, bands), own in ordered]


def read_targets(
    reader: ZoneReader, job: ZonalJob, portion: Portion, targets: Sequence[Target], names: "Names"
) -> None:
    """Read the pixels of targets.

    Raises
    ------
    TileReadError, InputError
        As :func:`.zonal_groups.read_zonal_group`.
    """
    for at, lattice in enumerate(portion.lattices):
        own = {
            number: [member for member in target.members if portion.lattice_of[member[1]] == at]
            for number, target in enumerate(targets)
        }
        mine = [number for number, members in own.items() if members]
        # Held values of a large polygon are those of one record at a time.
        together = [[number] for number in mine] if lattice.is_large and job.needs.holds else [mine]
        for numbers in filter(None, together):
            found: dict[int, dict[str, ZoneStates]] = {}
            layers = {number: layers_of(job, lattice, own[number], targets[number].bands) for number in numbers}
            tasks = _tasks(lattice, {number: targets[number].zones for number in numbers}, layers)
            for read in reader.read(tasks, job.sampling, job.zone_rules):
                target = targets[read.number]
                target.lose(read.failures)
                before = found.setdefault(read.number, {})
                for band, state in read.states.items():
                    before[band] = before[band].merged(state) if band in before else state
                    names.check_size(job, target, band, before[band])
            for number, states in found.items():
                _add(targets[number], lattice, states, job.needs_shares)


def _add(target: Target, lattice: ZoneLattice, states: dict[str, ZoneStates], with_shares: bool) -> None:
    """Add what is found on a lattice; with the valid share of the polygons' pixels, which takes time where a polygon
    reaches far beyond the raster."""
    target.add(states)
    if not with_shares:
        return
    weight = lattice.weight[np.searchsorted(lattice.zones, target.zones)]
    target.has_pixels |= weight > 0
    for band, state in states.items():
        share = np.divide(state.weight, weight, out=np.zeros(len(weight)), where=weight > 0)
        target.covered[band] = np.minimum(target.covered[band] + share, 1.0)


def _tasks(lattice: ZoneLattice, zones: dict[int, Ints], layers: dict[int, list[ZoneLayer]]) -> Iterator[ZoneTask]:
    for placed in lattice.parts():
        taken: dict[bytes, PlacedPixels] = {}
        for number, own in zones.items():
            key = own.tobytes()
            if key not in taken:
                taken = {key: placed.take(np.searchsorted(lattice.zones, own))}
            yield ZoneTask(number, taken[key], layers[number])


def layers_of(
    job: ZonalJob, lattice: ZoneLattice, members: Sequence[tuple[int, int]], bands: Sequence[str]
) -> list[ZoneLayer]:
    """Records on a lattice."""
    layers = []
    for record, number in members:
        record_id = job.index.routing.record_ids[record]
        quality = job.quality_reads(record_id)
        assets = job.index.assets(record_id, bands)
        place = lattice.lattice.places[number]
        layers.append(ZoneLayer(assets, quality, job.index.routing.grid(number), *place))
    return layers


@dataclass(frozen=True, eq=False)
class Names:
    """What errors call the polygons of a chunk: their numbers [n] in the input, and the column they are from."""

    ids: Ints
    column: str | None

    def check_size(self, job: ZonalJob, target: Target, band: str, states: ZoneStates) -> None:
        """Refuse to hold more values of a polygon than allowed."""
        most = job.options.max_exact_values
        if not job.needs.ordered:
            return
        over = np.flatnonzero(states.pixels > most)
        if len(over):
            label = geometry_label(int(self.ids[target.zones[over[0]]]), self.column)
            record = job.index.routing.record_ids[target.members[0][0]]
            raise InputError(
                f"{label} has more than {most} valid pixels of record {record!r}, band {band}, and max_exact_values is "
                f"{most}: raise it, as median and percentiles hold the values of a polygon in memory, or leave them "
                "out of statistics (mean, std, min, max, majority and variety have no such limit)"
            )


def walk(reader: ZoneReader, job: ZonalJob, portion: Portion, names: Names) -> tuple[list[ZoneRows], list[LostZones]]:
    """The rows of the records that are taken of a portion's polygons, and what could not be read."""
    if not job.options.skip_invalid:
        every = [(choice.zone, choice.bands, members) for choice in portion.choices for members in choice.ranked]
        targets = targets_of(every)
        read_targets(reader, job, portion, targets, names)
        rows = [
            target.rows(job, band, np.ones(len(target.zones), dtype=bool))
            for target in targets
            for band in target.bands
        ]
        return rows, [failure for target in targets for failure in target.failures]
    return _first_valid(reader, job, portion, names)


def _first_valid(
    reader: ZoneReader, job: ZonalJob, portion: Portion, names: Names
) -> tuple[list[ZoneRows], list[LostZones]]:
    """Of each polygon and band the first record with enough valid pixels, else the best."""
    left = {(number, band) for number, choice in enumerate(portion.choices) for band in choice.bands}
    taken: dict[tuple[int, str], Target] = {}
    failures: list[LostZones] = []
    depth = 0
    while left:
        numbers: dict[int, list[str]] = {}
        for number, choice in enumerate(portion.choices):
            bands = [band for band in choice.bands if (number, band) in left]
            if bands:
                numbers[number] = bands
        choices = portion.choices
        targets = targets_of(
            (choices[number].zone, tuple(bands), choices[number].ranked[depth]) for number, bands in numbers.items()
        )
        read_targets(reader, job, portion, targets, names)
        failures += [failure for target in targets for failure in target.failures]
        of = {(target.members, target.bands): target for target in targets}
        enough = {
            (id(target), band): set(target.zones[target.is_enough(band, float(job.options.min_valid))].tolist())
            for target in targets
            for band in target.bands
        }
        for number, bands in numbers.items():
            target = of[choices[number].ranked[depth], tuple(bands)]
            for band in bands:
                done = choices[number].zone in enough[id(target), band]
                if done or not depth:
                    taken[number, band] = target
                if done or depth + 1 == len(choices[number].ranked):
                    left.discard((number, band))
        depth += 1
        job.counters.add(metrics.CANDIDATES_WALKED, len(left))
    return _taken_rows(job, portion, taken), failures


def _taken_rows(job: ZonalJob, portion: Portion, taken: dict[tuple[int, str], Target]) -> list[ZoneRows]:
    zones: dict[tuple[int, str], list[int]] = {}
    targets: dict[int, Target] = {}
    for (number, band), target in taken.items():
        targets[id(target)] = target
        zones.setdefault((id(target), band), []).append(portion.choices[number].zone)
    return [targets[at].rows(job, band, np.isin(targets[at].zones, own)) for (at, band), own in zones.items()]
