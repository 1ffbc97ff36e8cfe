"""Collections of raster records: load, filter, describe, export and sample them."""

import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from rasteret_beam.collection.catalogue import find_entry, looks_like_path
from rasteret_beam.collection.describe import describe, html_of
from rasteret_beam.collection.eager import get_numpy as arrays
from rasteret_beam.collection.eager import plan as planning
from rasteret_beam.collection.eager import sample as sampling
from rasteret_beam.collection.eager import zonal_statistics as zones
from rasteret_beam.collection.eager.unknown_keywords import checked_options, names_of, path_of
from rasteret_beam.collection.explore import maps
from rasteret_beam.collection.filters import footprint_boxes as boxes_of_footprints
from rasteret_beam.collection.filters.date_ranges import DateRange
from rasteret_beam.collection.filters.empty_subset import is_small, why_no_record
from rasteret_beam.collection.filters.subset import check_expression, criteria_of
from rasteret_beam.collection.index.band_facts import sample_types
from rasteret_beam.collection.index.collection_index import CollectionIndex
from rasteret_beam.collection.index.extra_columns import record_types
from rasteret_beam.collection.index.pixel_crs import pixel_crs
from rasteret_beam.collection.parquet.checksums import with_checksums
from rasteret_beam.collection.parquet.files import IN_EACH_FILE, check_parts, open_dataset, readable
from rasteret_beam.collection.parquet.layout import band_names, check_layout, schema_metadata
from rasteret_beam.collection.parquet.row_groups import files_of
from rasteret_beam.collection.parquet.writing import write_collection
from rasteret_beam.collection.pickled import Pickled
from rasteret_beam.collection.records import named_files
from rasteret_beam.collection.stac import update as updating
from rasteret_beam.errors import CollectionError, InputError, did_you_mean, listed, without_secrets
from rasteret_beam.kernels.geo.crs import crs_text, projjson
from rasteret_beam.kernels.routing.match import check_match
from rasteret_beam.model import DEFAULT_ACCESS, Access, MatchRules
from rasteret_beam.options import SampleOptions
from rasteret_beam.quality import NEEDS_BANDS
from rasteret_beam.readers.storage.href_policy import named_in
from rasteret_beam.readers.storage.stores import absolute
from rasteret_beam.schema import CHECKSUMS, METADATA_SUFFIX
from rasteret_beam.zonal_options import ZonalOptions

log = logging.getLogger(__name__)

DEFAULT_OPTIONS = SampleOptions()
DEFAULT_ZONAL_OPTIONS = ZonalOptions()


@dataclass(frozen=True, eq=False)
class Collection(Pickled):
    """Raster records and the places of their bands; filters are applied when records are read.

    Made by :func:`rasteret_beam.load`, :func:`~rasteret_beam.build_from_cogs`,
    :func:`~rasteret_beam.build_from_table` and :func:`~rasteret_beam.build_from_stac`. If it was loaded from Parquet it
    pickles as a path and a filter, otherwise with its table.

    Attributes
    ----------
    name, data_source : str
    path : str or None
        Where it was loaded from.
    failures : tuple of (href, reason)
        Files that were skipped when it was built with ``on_error="skip"``.
    access : Access
        How its bucket and those of its rasters are read.
    boxes : tuple of (west, south, east, north)
        Some of the boxes that it was filtered by, for errors.
    """

    name: str
    path: str | None
    data_source: str = ""
    failures: tuple[tuple[str, str], ...] = ()
    table: pa.Table | None = field(default=None, repr=False)
    filter: ds.Expression | None = field(default=None, repr=False)
    access: Access = field(default=DEFAULT_ACCESS, repr=False)
    boxes: tuple[tuple[float, ...], ...] = field(default=(), repr=False)

    @classmethod
    def from_table(
        cls,
        table: pa.Table,
        *,
        name: str = "",
        data_source: str = "",
        failures: Iterable[tuple[str, str]] = (),
        access: Access = DEFAULT_ACCESS,
    ) -> "Collection":
        """A collection in memory, from a table (or an object with an Arrow C stream) in the collection layout."""
        if not isinstance(table, pa.Table):
            if not hasattr(table, "__arrow_c_stream__"):
                raise InputError(
                    f"table is a {type(table).__name__}; give an Arrow table, or an object with an Arrow C stream"
                )
            table = pa.table(table)
        check_layout(table.schema, "the table")
        if CHECKSUMS in table.column_names:  # the caller may have changed the table since they were computed
            table = table.drop_columns([CHECKSUMS])
        return cls(name, None, data_source, tuple(failures), table, access=access)

    @property
    def dataset(self) -> ds.Dataset:
        """The records as an Arrow dataset, without the filter."""
        if "_dataset" not in self.__dict__:
            opened = ds.dataset(self.table) if self.table is not None else open_dataset(str(self.path), self.access)
            object.__setattr__(self, "_dataset", opened)
        return self.__dict__["_dataset"]

    def over(self, dataset: ds.Dataset) -> "Collection":
        """The same collection and filter over another dataset of its layout, in this process."""
        other = replace(self)
        object.__setattr__(other, "_dataset", dataset)
        return other

    @property
    def schema(self) -> pa.Schema:
        return self.dataset.schema

    def where(self, expr: ds.Expression) -> "Collection":
        """The records for which an Arrow expression on the collection's columns is true.

        Raises
        ------
        InputError
            It is not an expression, names a column that the collection lacks, or compares incompatible types.
        """
        check_expression(expr, self.schema)
        return replace(self, filter=expr if self.filter is None else self.filter & expr)

    @checked_options
    def subset(
        self,
        *,
        bbox: tuple[float, float, float, float] | None = None,
        date_range: DateRange | None = None,
        geometries: Any = None,
        cloud_cover_lt: float | None = None,
        ids: str | Iterable[str] | None = None,
    ) -> "Collection":
        """The records that meet all given criteria.

        Parameters
        ----------
        bbox : (west, south, east, north) in degrees, optional
            Records whose box intersects it; west > east crosses the antimeridian. It is in longitude and latitude of
            the Earth, or of another body if all records lie there: in :attr:`bounds_crs`.
        date_range : (first, last) or text, optional
            ISO dates or datetimes in UTC, both inclusive; a last date, month or year means its end.
            ``"2023-01-01/2023-06-30"``, ``"2023-06"``, and the open ``("2023", None)`` or ``"2023/.."`` are accepted
            too; see :func:`rasteret_beam.collection.filters.date_ranges.date_bounds`. A record without a datetime
            matches if the time from ``start_datetime`` to ``end_datetime`` overlaps the range; without these too, it
            does not match.
        geometries : optional
            Records whose box intersects the box of one of them: Shapely geometries, WKB, GeoJSON, (west, south, east,
            north), lists of those, or Arrow arrays of WKB or GeoArrow points; in :attr:`bounds_crs`, or in the CRS of
            other footprints if they declare it.
        cloud_cover_lt : float, optional
            Upper bound (exclusive) of column ``eo:cloud_cover``, in percent.
        ids : str or iterable of str, optional
            Records with these ids; unknown ids are ignored.

        Raises
        ------
        InputError
            A criterion cannot be used, or there are none.
        """
        criteria, boxes = criteria_of(self, bbox, date_range, geometries, cloud_cover_lt, ids)
        narrowed = self._where_all(criteria, boxes)
        if boxes and is_small(self.dataset) and not narrowed.has_records():
            log.warning("%s", why_no_record(self.dataset, boxes))
        return narrowed

    def _where_all(self, criteria: list[ds.Expression], boxes: list[tuple[float, ...]]) -> "Collection":
        narrowed = replace(self, boxes=(*self.boxes, *boxes))
        for criterion in criteria:
            narrowed = narrowed.where(criterion)
        return narrowed

    def has_records(self) -> bool:
        """Whether any record matches the filter; stops at the first one."""
        return any(file.has_rows() for file in files_of(self.dataset, self.filter))

    def narrowed(self, **criteria: Any) -> "Collection":
        """As :meth:`subset`, without a warning; criteria may be None."""
        names = ("bbox", "date_range", "geometries", "cloud_cover_lt", "ids")
        if all(criteria.get(name) is None for name in names):
            return self
        return self._where_all(*criteria_of(self, **{name: criteria.get(name) for name in names}))

    def to_table(self, columns: list[str] | None = None) -> pa.Table:
        """The filtered records as an Arrow table of all or some columns."""
        columns = None if columns is None else names_of(columns, "columns")
        with readable(self.path or "the table"):
            check_parts(self.dataset)
            return self.dataset.to_table(columns=columns, filter=self.filter)

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return self.to_table().__arrow_c_stream__(requested_schema)

    def __len__(self) -> int:
        with readable(self.path or "the table"):
            check_parts(self.dataset)
            return self.dataset.count_rows(filter=self.filter)

    @property
    def bands(self) -> list[str]:
        return list(self._bands)

    @cached_property
    def _bands(self) -> tuple[str, ...]:
        return tuple(band_names(self.schema))

    @property
    def bounds(self) -> tuple[float, float, float, float] | None:
        """Box (west, south, east, north) of the footprints in :attr:`bounds_crs`; None if no record has one there."""
        crs = self.bounds_crs
        if crs is None or "bbox" not in self.schema.names or not len(self):
            return None
        in_crs = boxes_of_footprints.in_footprint_crs(self.schema, crs)
        column = (self if in_crs is None else self.where(in_crs)).to_table(["bbox"])["bbox"].combine_chunks()
        outermost = {"xmin": pc.min, "ymin": pc.min, "xmax": pc.max, "ymax": pc.max}
        sides = tuple(most(pc.struct_field(column, side)).as_py() for side, most in outermost.items())
        return None if None in sides else sides  # type: ignore[return-value]

    bounds_crs = property(boxes_of_footprints.bounds_crs)

    @property
    def crs(self) -> list[str]:
        """CRSs of the records' rasters, sorted."""
        if not {"crs", "proj:epsg"} & set(self.schema.names):
            return []
        if "crs" not in self.schema.names:
            return sorted(f"EPSG:{code}" for code in pc.unique(self.to_table(["proj:epsg"])["proj:epsg"]).to_pylist())
        return sorted(text for text in pc.unique(self.to_table(["crs"])["crs"]).to_pylist() if text)

    def describe(self) -> dict[str, Any]:
        """Name, source, number of records, range of datetimes, bounds, CRSs, bands, and the first record's pixels.

        ``units`` are, for each band, the pairs of scale and offset that ``unscale`` applies, with the number of records
        of each; None where the collection does not say, and the file's tags do.

        ``rasters`` are, for each band, the number of its records, their data types, nodata values, sizes in pixels and
        numbers of tiles; ``tiles`` is the sum of these. ``files`` and ``bytes`` are those of all records; the sizes of
        ``files_of_unknown_size`` are not among them. ``months`` and ``records_by_crs`` count records, ``undated`` those
        without a datetime. ``columns`` are the columns of records beside those of every collection, with their types.
        No raster is opened.
        """
        return describe(self)

    def __repr__(self) -> str:
        return f"Collection({self.name!r}, {len(self)} records, bands {listed(self.bands, 8)})"

    def _repr_html_(self) -> str:
        return html_of(self)

    def export(self, path: str | os.PathLike[str], *, access: Access = DEFAULT_ACCESS) -> None:
        """Write the filtered collection to a folder or a file ``*.parquet``, and replace an existing collection.

        Parameters
        ----------
        path : str
            A local path, or one in a bucket.
        access : Access
            How that bucket is accessed.

        Raises
        ------
        OutputError
            The place cannot be written.
        InputError
            The collection has no records.
        CollectionError
            It was loaded from a bucket or the web and names a forbidden file, which an exported copy might be allowed
            to name.
        """
        place = path_of(path, "path", "where the collection is to be written")
        table = self.to_table()
        if not len(table):
            raise InputError(f"collection {self.name!r} has no records to export")
        table = with_checksums(table, self.path or f"collection {self.name!r}")
        named_files.check_hrefs(table["assets"], self.raster_access, self.path or self.name)
        metadata = schema_metadata(table, self.name, self.data_source)
        write_collection(table.replace_schema_metadata(metadata), place, access)

    def check_bands(self, bands: Sequence[str], needed_by: str = "") -> list[str]:
        """The given bands as a list, if the collection has all of them; ``needed_by`` ends the error if it has not.

        Raises
        ------
        InputError
            A band is missing or named twice, or no band is given.
        CollectionError
            The collection was built without headers.
        """
        if isinstance(bands, set | frozenset):
            raise InputError("bands is a set, which has no order; give a list of band names")
        wanted = names_of(bands, "bands")
        known, columns = set(self._bands), set(self.schema.names)
        missing = [band for band in wanted if band not in known]
        if missing:
            near = did_you_mean(missing[0], self.bands)
            there = f"it has {listed(self.bands, 80)}{needed_by}"
            raise InputError(f"the collection lacks band(s) {listed(missing)}{near}; {there}")
        if not wanted or len(set(wanted)) < len(wanted):
            raise InputError(f"bands are {listed(wanted) or 'empty'}; give at least one band, and each band once")
        if any(band + METADATA_SUFFIX not in columns for band in wanted):
            raise CollectionError(
                "the collection was built without the headers of its files; build it again with them, the default of "
                "build_from_table and pipelines.build_collection"
            )
        return wanted

    def check_usable(self, bands: Sequence[str], match: str | MatchRules = "all") -> list[str]:
        """The given bands as a list, if they can be sampled.

        Raises
        ------
        InputError
            As :meth:`check_bands` (also of quality bands that records must have), the collection has no records, or
            ``match`` is unknown.
        """
        wanted = self.check_bands(bands)
        check_match(match)
        needed = match.quality if isinstance(match, MatchRules) else ()
        if any(missing == "error" for _, missing in needed):
            self.check_bands(list(dict.fromkeys(band for band, missing in needed if missing == "error")), NEEDS_BANDS)
        if not self.has_records():
            narrowed = " after subset and where" if self.filter is not None else ""
            why = f": {why_no_record(self.dataset, self.boxes)}" if self.boxes else ""
            raise InputError(f"collection {self.name!r} has no records{narrowed}{why}")
        return wanted

    def index(
        self,
        bands: Sequence[str],
        match: str | MatchRules = "all",
        cache_bytes: int = 64 << 20,
        record_columns: Sequence[str] = (),
    ) -> CollectionIndex:
        """The index for sampling some bands, with some columns of the records.

        It caches facts of files in up to ``cache_bytes``.

        Raises
        ------
        InputError
            As :meth:`check_usable`.
        """
        wanted = self.check_usable(bands, match)
        settings = wanted, match, self.raster_access, cache_bytes, record_columns
        return CollectionIndex(files_of(self.dataset, self.filter), self.schema, *settings)

    def sample_schema(
        self,
        bands: Sequence[str],
        kept: Sequence[pa.Field] = (),
        options: SampleOptions = DEFAULT_OPTIONS,
        geometry_crs: Any = None,
    ) -> pa.Schema:
        """The schema of the samples of some bands, as sinks need it before there are rows.

        Parameters
        ----------
        bands : sequence of str
        kept : sequence of Field
            The columns of the points that pass through: ``kept_fields(ReadPoints(...).point_columns().schema)``.
        options : SampleOptions
        geometry_crs
            CRS of the points, which the schema has with ``geometry="point"``.

        Raises
        ------
        InputError
            As :meth:`check_bands`; with ``value_type="raw"`` the types of the files do not go together; or
            ``extra_columns`` name a column that the collection lacks.
        """
        wanted = self.check_bands(bands)
        types = record_types(self, wanted, options.extra_columns)
        points_crs = None if geometry_crs is None else crs_text(geometry_crs)
        crs = points_crs if options.geometry == "point" else pixel_crs(self, options)
        return options.schema(kept, wanted, sample_types(self, wanted, options), types, projjson(crs))

    def zonal_schema(
        self,
        kept: Sequence[pa.Field] = (),
        options: ZonalOptions = DEFAULT_ZONAL_OPTIONS,
        geometry_crs: Any = None,
    ) -> pa.Schema:
        """The schema of zonal statistics, as sinks need it before there are rows.

        Parameters
        ----------
        kept : sequence of Field
            The columns of the polygons that pass through:
            ``kept_polygon_fields(ReadPolygons(...).polygon_columns().schema)``.
        options : ZonalOptions
        geometry_crs
            CRS of the polygons, which the schema has with ``geometry="polygon"``.

        Raises
        ------
        InputError
            ``extra_columns`` name a column that the collection lacks, or a kept column has the name of another.
        """
        crs = None if geometry_crs is None else projjson(crs_text(geometry_crs))
        return options.schema(kept, record_types(self, (), options.extra_columns), crs)

    @property
    def raster_access(self) -> Access:
        """How its rasters are read; with the collection's origin if it is in a bucket or on the web."""
        return self.access if self.path is None else named_in(self.path, self.access)

    check_files = named_files.check_files
    sample_points = sampling.sample_points
    sample_batches = sampling.sample_batches
    plan = planning.plan
    get_numpy = arrays.get_numpy
    zonal_statistics = zones.zonal_statistics
    update_from_stac = updating.update_from_stac
    explore = maps.explore


def load(
    path_or_dataset_id: str | os.PathLike[str],
    name: str = "",
    *,
    access: Access | None = None,
    allow_local: bool = False,
) -> Collection:
    """Load a collection from Parquet or by its id in the catalogue.

    Parameters
    ----------
    path_or_dataset_id : str
        A file, a folder with hive partitions, or a glob, local or in a bucket (gs://, s3://, az://); a file on the web
        (https://); or an id such as ``"aef/v1-annual"``. A text is a path if it exists, has a scheme or wildcard,
        starts with ``/``, ``.`` or ``~``, or ends in ``.parquet``.
    name : str, optional
        Name of the collection instead of the stored one.
    access : Access, optional
        How its bucket and those of its rasters are read: without credentials, requester pays, at another endpoint. The
        default comes from the catalogue, or from the URI and the environment.
    allow_local : bool
        As in ``access``: a collection in a bucket or on the web may name files of this machine.

    Raises
    ------
    MissingInputError
        Neither a path nor a dataset with this id exists; lists the known ids.
    CollectionError
        The path is not a collection.
    """
    if not isinstance(name, str | None):
        raise InputError(f"name is {name!r}; give a text")
    if not isinstance(access, Access | None):
        raise InputError(f"access is {access!r}; give an Access")
    what = 'the path of a collection\'s file or folder, or the id of a dataset such as "aef/v1-annual"'
    place, known = path_of(path_or_dataset_id, "path_or_dataset_id", what), DEFAULT_ACCESS
    if isinstance(path_or_dataset_id, str) and not looks_like_path(place):
        entry = find_entry(place)
        place, known, name = entry.data, entry.access, name or entry.name
    access = known if access is None else access
    access = replace(access, allow_local=True) if allow_local else access
    place = absolute(place)
    dataset = open_dataset(place, access)
    if len(dataset.files) > 1 and not set(IN_EACH_FILE) <= set(dataset.schema.names):
        check_parts(dataset)
    check_layout(dataset.schema, without_secrets(place))
    metadata = dataset.schema.metadata or {}
    stem = os.path.splitext(os.path.basename(place.partition("?")[0].rstrip("/")))[0]
    found = metadata.get(b"name", b"").decode(errors="replace")
    data_source = metadata.get(b"data_source", b"").decode(errors="replace")
    return Collection(name or found or stem, place, data_source, access=access)
