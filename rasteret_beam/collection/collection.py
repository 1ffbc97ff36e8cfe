"""The collection: records of raster files, filtered lazily, sampled eagerly."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from html import escape
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from rasteret_beam.collection.catalogue import find_entry, looks_like_path
from rasteret_beam.collection.chips import get_numpy
from rasteret_beam.collection.filters import in_range, meets_any, meets_box
from rasteret_beam.collection.geometries import boxes_of
from rasteret_beam.collection.index import CollectionIndex
from rasteret_beam.collection.layout import band_names, check_layout, schema_metadata
from rasteret_beam.collection.plan import plan
from rasteret_beam.collection.sample import sample_points
from rasteret_beam.collection.storage import is_remote, open_dataset, readable, write_collection
from rasteret_beam.collection.units import files_of
from rasteret_beam.errors import CollectionError, InputError, MissingInputError, listed, without_secrets
from rasteret_beam.kernels.crs import Floats
from rasteret_beam.kernels.routing import check_match
from rasteret_beam.model import AS_GIVEN, Access
from rasteret_beam.readers.local_files import exists
from rasteret_beam.readers.stores import absolute, local_path
from rasteret_beam.schema import METADATA_SUFFIX

CHECKED_FILES = 2000
FEW_BOXES = 64


@dataclass(frozen=True, eq=False)
class Collection:
    """Raster records and where their bands are; filters are applied when it is read.

    Made by :func:`rasteret_beam.load`, :func:`~rasteret_beam.build_from_cogs` and
    :func:`~rasteret_beam.build_from_table`. It pickles as a path and a filter where it was
    loaded from Parquet, and with its table otherwise.

    Attributes
    ----------
    name, data_source : str
    path : str or None
        Where it was loaded from.
    failures : tuple of (href, reason)
        Files that were left out when it was built with ``on_error="skip"``.
    access : Access
        How its bucket, and those of its rasters, are read.
    """

    name: str
    path: str | None
    data_source: str = ""
    failures: tuple[tuple[str, str], ...] = ()
    table: pa.Table | None = field(default=None, repr=False)
    filter: ds.Expression | None = field(default=None, repr=False)
    access: Access = field(default=AS_GIVEN, repr=False)

    @classmethod
    def from_table(
        cls,
        table: pa.Table,
        *,
        name: str = "",
        data_source: str = "",
        failures: Iterable[tuple[str, str]] = (),
        access: Access = AS_GIVEN,
    ) -> "Collection":
        """A collection held in memory; the table is in the collection layout."""
        check_layout(table.schema, "the table")
        return cls(name, None, data_source, tuple(failures), table, access=access)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_dataset"}

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
        """The records for which an Arrow expression on the collection's columns is true."""
        return replace(self, filter=expr if self.filter is None else self.filter & expr)

    def subset(
        self,
        *,
        bbox: tuple[float, float, float, float] | None = None,
        date_range: tuple[Any, Any] | None = None,
        geometries: Any = None,
        cloud_cover_lt: float | None = None,
        ids: str | Iterable[str] | None = None,
    ) -> "Collection":
        """The records that meet every criterion given.

        Parameters
        ----------
        bbox : (west, south, east, north) in degrees, optional
            Records whose box meets it; west > east crosses the antimeridian.
        date_range : (first, last), optional
            ISO dates or datetimes in UTC, both included; a date as the last one means all of
            that day. Records without a datetime are left out.
        geometries : optional
            Records whose box meets the box of one of them: Shapely geometries, WKB, GeoJSON,
            (west, south, east, north), lists of those, or Arrow arrays of WKB or GeoArrow
            points; in longitude and latitude.
        cloud_cover_lt : float, optional
            Percent, compared with column ``eo:cloud_cover``.
        ids : str or iterable of str, optional
            Records with these ids; those that are not in the collection are passed over.

        Raises
        ------
        InputError
            A criterion cannot be used, or none is given.
        """
        criteria: list[ds.Expression] = []
        if bbox is not None:
            criteria.append(meets_box(bbox))
        if date_range is not None:
            criteria.append(in_range(date_range))
        if geometries is not None:
            criteria.append(self._meets_boxes(boxes_of(geometries)))
        if cloud_cover_lt is not None:
            if "eo:cloud_cover" not in self.schema.names:
                raise InputError("the collection has no column eo:cloud_cover to compare with cloud_cover_lt")
            criteria.append(pc.field("eo:cloud_cover") < float(cloud_cover_lt))
        if ids is not None:
            wanted = [ids] if isinstance(ids, str) else list(ids)
            criteria.append(pc.field("id").isin(pa.array(wanted, type=pa.string())))
        if not criteria:
            raise InputError("subset needs a criterion: bbox, date_range, geometries, cloud_cover_lt or ids")
        narrowed = self
        for criterion in criteria:
            narrowed = narrowed.where(criterion)
        return narrowed

    def _meets_boxes(self, boxes: Floats) -> ds.Expression:
        if len(boxes) <= FEW_BOXES:
            return meets_any(boxes.tolist())
        # So many terms of one expression would overflow Arrow's stack: name the records instead.
        parts = [boxes[start : start + FEW_BOXES].tolist() for start in range(0, len(boxes), FEW_BOXES)]
        ids = {record for part in parts for record in self.where(meets_any(part)).to_table(["id"])["id"].to_pylist()}
        return pc.field("id").isin(pa.array(sorted(ids), type=pa.string()))

    def to_table(self, columns: list[str] | None = None) -> pa.Table:
        """The records, filtered, as an Arrow table."""
        with readable(self.path or "the table"):
            return self.dataset.to_table(columns=columns, filter=self.filter)

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return self.to_table().__arrow_c_stream__(requested_schema)

    def __len__(self) -> int:
        with readable(self.path or "the table"):
            return self.dataset.count_rows(filter=self.filter)

    @property
    def bands(self) -> list[str]:
        return band_names(self.schema)

    @property
    def bounds(self) -> tuple[float, float, float, float] | None:
        """Box (west, south, east, north) of all records, in degrees; None without records."""
        if not len(self):
            return None
        column = self.to_table(["bbox"])["bbox"].combine_chunks()
        outermost = {"xmin": pc.min, "ymin": pc.min, "xmax": pc.max, "ymax": pc.max}
        west, south, east, north = (most(pc.struct_field(column, side)).as_py() for side, most in outermost.items())
        return west, south, east, north

    @property
    def crs(self) -> list[str]:
        """CRSs of the records' rasters, sorted."""
        if "crs" not in self.schema.names:
            return sorted(f"EPSG:{code}" for code in pc.unique(self.to_table(["proj:epsg"])["proj:epsg"]).to_pylist())
        return sorted(text for text in pc.unique(self.to_table(["crs"])["crs"]).to_pylist() if text)

    def describe(self) -> dict[str, Any]:
        """Name, source, number of records, range of datetimes, bounds, CRSs, bands, and the first record's pixels."""
        span = pc.min_max(self.to_table(["datetime"])["datetime"])
        return {
            "name": self.name,
            "source": without_secrets(self.path or self.data_source or "in memory"),
            "records": len(self),
            "date_range": (span["min"].as_py(), span["max"].as_py()),
            "bounds": self.bounds,
            "crs": self.crs,
            "bands": self.bands,
            **self._pixels(),
        }

    def _pixels(self) -> dict[str, Any]:
        """Data types and nodata values of the first record's bands."""
        described = [band + METADATA_SUFFIX for band in self.bands if band + METADATA_SUFFIX in self.schema.names]
        parts = {f"{part} {name}": pc.field(name, part) for name in described for part in ("dtype", "nodata")}
        rows = self.dataset.head(1, columns=parts, filter=self.filter).to_pylist() if parts else []
        values = {
            part: [rows[0][f"{part} {name}"] for name in described] if rows else [] for part in ("dtype", "nodata")
        }
        return {part: [value for value in dict.fromkeys(found) if value is not None] for part, found in values.items()}

    def __repr__(self) -> str:
        return f"Collection({self.name!r}, {len(self)} records, bands {listed(self.bands, 8)})"

    def _repr_html_(self) -> str:
        facts = self.describe()
        first, last = facts["date_range"]
        shown = {
            "records": f"{facts['records']:,}",
            "dates": f"{first:%Y-%m-%d} to {last:%Y-%m-%d}" if first else "none",
            "bounds": ", ".join(f"{side:.4f}" for side in facts["bounds"] or ()) or "none",
            "crs": listed(facts["crs"], 6),
            "bands": listed(facts["bands"], 12),
            "pixels": f"{listed(facts['dtype'])}, nodata {listed(facts['nodata']) or 'none'}",
            "source": facts["source"],
        }
        rows = "".join(f"<tr><th>{name}</th><td>{escape(value)}</td></tr>" for name, value in shown.items())
        return f"<table><caption>Collection {escape(self.name)}</caption>{rows}</table>"

    def export(self, path: str | os.PathLike[str], *, access: Access = AS_GIVEN) -> None:
        """Write the collection, filtered, to a folder (or a file ``*.parquet``), in place of one that is there.

        Parameters
        ----------
        path : str
            Local, or in a bucket.
        access : Access
            How that bucket is reached.

        Raises
        ------
        OutputError
            The place cannot be written.
        InputError
            There is no record to write.
        """
        table = self.to_table()
        if not len(table):
            raise InputError(f"collection {self.name!r} has no records to export")
        metadata = schema_metadata(table, self.name, self.data_source)
        write_collection(table.replace_schema_metadata(metadata), os.fspath(path), access)

    def check_bands(self, bands: Sequence[str]) -> list[str]:
        """The wanted bands as a list, if the collection has them all.

        Raises
        ------
        InputError
            A band is not in the collection, is named twice, or none is wanted.
        CollectionError
            The collection was built without headers.
        """
        wanted = [bands] if isinstance(bands, str) else list(bands)
        missing = [band for band in wanted if band not in self.bands]
        if missing:
            raise InputError(f"the collection has no band(s) {listed(missing)}; it has {listed(self.bands, 80)}")
        if not wanted or len(set(wanted)) < len(wanted):
            raise InputError(f"bands must be named once each, and at least one; got {listed(wanted) or 'none'}")
        if any(band + METADATA_SUFFIX not in self.schema.names for band in wanted):
            raise CollectionError("the collection has no headers of its files; build it with enrich_cog=True")
        return wanted

    def check_usable(self, bands: Sequence[str], match: str = "all") -> list[str]:
        """The wanted bands as a list, if they can be sampled.

        Raises
        ------
        InputError
            As :meth:`check_bands`, the collection has no records, or ``match`` is unknown.
        """
        wanted = self.check_bands(bands)
        check_match(match)
        if not any(file.has_rows() for file in files_of(self.dataset, self.filter)):
            narrowed = " after subset and where" if self.filter is not None else ""
            raise InputError(f"collection {self.name!r} has no records{narrowed}")
        return wanted

    def index(self, bands: Sequence[str], match: str = "all", cache_bytes: int = 64 << 20) -> CollectionIndex:
        """What sampling some bands needs to know of the collection; ``cache_bytes`` bound what it keeps of files.

        Raises
        ------
        InputError
            As :meth:`check_usable`.
        """
        wanted = self.check_usable(bands, match)
        return CollectionIndex(
            files_of(self.dataset, self.filter), self.schema, wanted, match, self.access, cache_bytes
        )

    def check_files(self) -> None:
        """Refuse a collection whose local files are gone; looks at up to :data:`CHECKED_FILES` of them.

        Raises
        ------
        MissingInputError
            Names the first that is missing, and how many are.
        """
        hrefs = _some_hrefs(self.to_table(["assets"])["assets"])
        local = [href for href in hrefs if not is_remote(href) and not href.startswith("/vsi")]
        gone = [href for href in local if not exists(local_path(href))]
        if gone:
            raise MissingInputError(
                f"{len(gone)} of {len(local)} files of the collection are gone, such as {gone[0]}; "
                "build the collection again, or put the files back"
            )

    def sample_points(self, points: Any, bands: Sequence[str], **options: Any) -> pa.Table:
        """Sample values at points; see :func:`rasteret_beam.collection.sample.sample_points`."""
        return sample_points(self, points, bands, **options)

    def plan(self, points: Any, bands: Sequence[str], **options: Any) -> pa.Table:
        """The tiles that sampling points would read; see :func:`rasteret_beam.collection.plan.plan`."""
        return plan(self, points, bands, **options)

    def get_numpy(self, geometries: Any, bands: Sequence[str], **options: Any) -> Any:
        """Pixels under polygons as an array; see :func:`rasteret_beam.collection.chips.get_numpy`."""
        return get_numpy(self, geometries, bands, **options)


def load(path_or_dataset_id: str | os.PathLike[str], name: str = "", *, access: Access | None = None) -> Collection:
    """Load a collection from Parquet, or a dataset of the catalogue by its id.

    Parameters
    ----------
    path_or_dataset_id : str
        A file, or a folder with hive partitions, local or in a bucket (gs://, s3://, az://); a
        file on the web (https://); or an id such as ``"aef/v1-annual"``. What exists, has a
        scheme, starts with ``/``, ``.`` or ``~`` or ends in ``.parquet`` is a path.
    name : str, optional
        Of the collection, in place of its own.
    access : Access, optional
        How its bucket and those of its rasters are read: without credentials, paid by the
        reader, at another endpoint. By default as the catalogue says, else as the URI and the
        environment do.

    Raises
    ------
    MissingInputError
        There is nothing at the path, and no dataset with such an id; lists the known ids.
    CollectionError
        What is there is no collection.
    """
    place, known = os.fspath(path_or_dataset_id), AS_GIVEN
    if isinstance(path_or_dataset_id, str) and not looks_like_path(place):
        entry = find_entry(place)
        place, known, name = entry.data, entry.access, name or entry.name
    access = known if access is None else access
    place = absolute(place)
    dataset = open_dataset(place, access)
    check_layout(dataset.schema, without_secrets(place))
    metadata = dataset.schema.metadata or {}
    stem = os.path.splitext(os.path.basename(place.partition("?")[0].rstrip("/")))[0]
    found = metadata.get(b"name", b"").decode()
    data_source = metadata.get(b"data_source", b"").decode()
    return Collection(name or found or stem, place, data_source, access=access)


def _some_hrefs(assets: pa.ChunkedArray) -> list[str]:
    step = max(1, len(assets) * max(1, assets.type.num_fields) // CHECKED_FILES)
    rows = assets.take(pa.array(range(0, len(assets), step)))
    found = (asset["href"] for row in rows.to_pylist() if row for asset in row.values() if asset and asset["href"])
    return list(dict.fromkeys(found))
