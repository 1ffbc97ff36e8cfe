"""STAC items as a record table: a row for each item, its properties as columns."""

import json
import posixpath
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date as Date
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pyarrow as pa
import shapely

from rasteret_beam.collection.records.assets import FACTS, Assets, stated
from rasteret_beam.collection.records.hrefs import resolved
from rasteret_beam.collection.records.records import Stated
from rasteret_beam.collection.stac.bands import Source, Wanted, bands_of, check_known, names_in, no_item_has
from rasteret_beam.collection.stac.documents import Document, Item, wkb_of
from rasteret_beam.collection.stac.facts import header_of
from rasteret_beam.errors import InputError, without_secrets
from rasteret_beam.model import BandHeader
from rasteret_beam.schema import BBOX_TYPE

OF_LAYOUT = frozenset(("id", "datetime", "geometry", "bbox", "assets", "crs", "grids", "year", "month", "collection"))
"""Columns of a collection that properties of items do not replace."""

IN_ASSETS = frozenset(("bands", "eo:bands", "raster:bands", "nodata", "raster:scale", "raster:offset"))
"""Properties that tell of bands, which assets have in the table."""

TIFFS = ("image/tiff", "image/geotiff", "image/vnd.stac.geotiff", "image/x.geotiff")

BASELINES = ("s2:processing_baseline", "processing:version")
PAID_SCHEMES = ("s3://", "gs://")
SCENES = ("grid:code", "s2:mgrs_tile", "landsat:wrs_path", "landsat:wrs_row")


class NoItemsError(InputError):
    """A source has no item that is wanted."""


class Kind(NamedTuple):
    """What the values of a property are.

    Attributes
    ----------
    types : set of type
    most : int
        The greatest absolute value of whole numbers.
    """

    types: frozenset[type]
    most: int

    @classmethod
    def of(cls, values: Sequence[Any]) -> "Kind":
        types = frozenset(type(value) for value in values if value is not None)
        numbers = (abs(value) for value in values if type(value) is int)
        return cls(types, max(numbers, default=0) if int in types else 0)

    def joined(self, other: "Kind") -> "Kind":
        return Kind(self.types | other.types, max(self.most, other.most))

    @property
    def type(self) -> pa.DataType | None:
        """Of the column; None if it has JSON."""
        if self.types <= {bool}:
            return pa.bool_()
        if self.types <= {int, float} and self.most < 1 << (53 if float in self.types else 63):
            return pa.float64() if float in self.types else pa.int64()
        return pa.string() if self.types <= {str} else None


NOTHING = Kind(frozenset(), 0)


@dataclass(frozen=True)
class ItemTable:
    """Items as a record table.

    Attributes
    ----------
    table : Table
        id, datetime, start_datetime, end_datetime, geometry, bbox, assets (JSON), collection, then properties.
    bands : list of str
        In the order asked for, or of first mention.
    headers : {id: {band: BandHeader or str}}
        What the items say of the files, or what they lack.
    tiffs : {id: set of str}
        Bands whose files are TIFFs by media type or name, or may be.
    paid : {id: (asset, href)}
        The first asset of an item in a bucket whose requester pays, of items with such assets.
    """

    table: pa.Table
    bands: list[str]
    headers: Mapping[str, Mapping[str, BandHeader | str]]
    tiffs: Mapping[str, frozenset[str]]
    paid: Mapping[str, tuple[str, str]]


def item_table(
    items: Iterable[Item],
    bands: Wanted | None,
    alternate: str | None = None,
    newest: bool = False,
    each_band: bool = True,
) -> ItemTable:
    """Items as a record table.

    Parameters
    ----------
    alternate : str, optional
        The alternate of an asset's href to take, such as "s3", where the asset has it (STAC's alternate extension).
    newest : bool
        Of several processings of a scene, keep the newest.
    each_band : bool
        Refuse a band that no item has; else only bands of which no item has any.

    Raises
    ------
    InputError
        An item has no id, an asset another form, or no item has a band.
    """
    found = named_items(items, newest)
    if not found:
        raise NoItemsError("no item was found; widen collections, bbox, datetime or query")
    return table_of(found, bands, alternate, None, each_band)


def table_of(
    found: Sequence[tuple[str, Item]],
    bands: Wanted | None,
    alternate: str | None,
    kinds: Mapping[str, Kind] | None,
    each_band: bool = False,
) -> ItemTable:
    """Distinct items with their ids as a record table.

    Parameters
    ----------
    kinds : mapping, optional
        The properties that become columns, with what their values are in all items of which these are some; by default
        those of these items.
    """
    rows = [_Row.of(item, name, bands) for name, item in found]
    every = dict.fromkeys(band for row in rows for band in row.sources)
    if bands is not None:
        if each_band or (kinds is None and not every):
            check_known(bands, every, [row.assets for row in rows])
        every = {band: None for band in bands if band in every}
    properties = [_properties(item.document) for _, item in found]
    geometries = [wkb_of(row.item.document.get("geometry"), f"item {row.name!r}") for row in rows]
    columns: dict[str, Any] = {
        "id": pa.array([row.name for row in rows]),
        "datetime": pa.array([row.moment() for row in rows], type=pa.string()),
        "geometry": pa.array(geometries, type=pa.binary()),
        "bbox": _boxes([item for _, item in found], geometries),
        "assets": pa.array([json.dumps(row.placed(alternate)) for row in rows]),
        "collection": pa.array([item.document.get("collection") for _, item in found], type=pa.string()),
    }
    return ItemTable(
        pa.table(columns | _columns(properties, kinds_of(properties) if kinds is None else kinds)),
        list(every),
        {row.name: row.headers() for row in rows},
        {row.name: row.tiffs() for row in rows},
        {row.name: paid for row in rows if (paid := row.paid(alternate)) is not None},
    )


@dataclass(frozen=True, eq=False)
class _Row:
    """An item on its way to a row: its id in the table, its assets, and the asset and stated facts of each band."""

    item: Item
    name: str
    assets: Assets
    sources: Mapping[str, Source]
    stated: Mapping[str, Stated]

    @classmethod
    def of(cls, item: Item, name: str, bands: Wanted | None) -> "_Row":
        assets, properties = _assets(item), item.document.get("properties") or {}
        sources = bands_of(assets, bands, f"item {name!r}")
        facts = {
            band: stated(assets[key], properties, index, f"asset {key!r} of item {name!r}")
            for band, (key, index) in sources.items()
        }
        return cls(item, name, assets, sources, facts)

    @property
    def properties(self) -> Mapping[str, Any]:
        return self.item.document.get("properties") or {}

    def moment(self) -> str | None:
        """The datetime as text."""
        value = self.properties.get("datetime")
        if isinstance(value, Date):
            return value.isoformat()
        if not isinstance(value, str | None):
            raise InputError(f"item {self.name!r} has datetime {value!r}; it has to be text in ISO 8601")
        return value

    def placed(self, alternate: str | None) -> dict[str, dict[str, Any]]:
        """The bands as the assets of a record table: href, band_index, nodata, scale and offset."""
        found = {}
        for band, (key, index) in self.sources.items():
            said = self.stated[band]
            facts = {fact: value for fact in FACTS if (value := getattr(said, fact)) is not None}
            href = resolved(_href(self.assets[key], alternate), self.item.base)
            found[band] = {"href": href, "band_index": index, **facts}
        return found

    def paid(self, alternate: str | None) -> tuple[str, str] | None:
        """The first asset in a bucket of which the item says that the requester pays."""
        for key, _ in self.sources.values():
            href = resolved(_href(self.assets[key], alternate), self.item.base)
            if href.startswith(PAID_SCHEMES) and _requester_pays(self.assets[key], self.properties, alternate):
                return key, href
        return None

    def headers(self) -> dict[str, BandHeader | str]:
        """What the item tells of the headers of files, or what it lacks."""
        return {
            band: header_of(self.assets[key], self.properties, index, self.stated[band])
            for band, (key, index) in self.sources.items()
        }

    def tiffs(self) -> frozenset[str]:
        """Bands whose files are TIFFs, or may be."""
        return frozenset(band for band, source in self.sources.items() if _may_be_tiff(self.assets[source.asset]))


class Summary(NamedTuple):
    """What items have in common.

    Attributes
    ----------
    kinds : {property: Kind}
    bands : {band: None}
    assets : {name: None}
        Assets, bands and common names.
    items : int
        Number of items.
    """

    kinds: dict[str, Kind]
    bands: dict[str, None]
    assets: dict[str, None]
    items: int

    @classmethod
    def of(cls, items: Sequence[tuple[str, Item]], bands: Wanted | None) -> "Summary":
        """That of some items."""
        rows = [_Row.of(item, name, bands) for name, item in items]
        known = dict.fromkeys(name for row in rows for name in names_in(row.assets))
        found = dict.fromkeys(band for row in rows for band in row.sources)
        return cls(kinds_of([_properties(item.document) for _, item in items]), found, known, len(items))

    @classmethod
    def joined(cls, parts: Iterable["Summary"]) -> "Summary":
        """That of all items of some parts."""
        kinds: dict[str, Kind] = {}
        bands: dict[str, None] = {}
        assets: dict[str, None] = {}
        items = 0
        for part in parts:
            for name, kind in part.kinds.items():
                kinds[name] = kind.joined(kinds.get(name, NOTHING))
            bands |= part.bands
            assets |= part.assets
            items += part.items
        return cls(kinds, bands, assets, items)

    def check(self, bands: Wanted | None) -> None:
        """Refuse to go on without an item, or with a band that none has.

        Raises
        ------
        InputError
        """
        if not self.items:
            raise NoItemsError("no item was found; widen collections, bbox, datetime or query")
        for band in bands or ():
            if band not in self.bands:
                raise no_item_has(band, (bands or {})[band], list(self.assets))


def named_items(items: Iterable[Item], newest: bool) -> list[tuple[str, Item]]:
    """Each item once, with its id in a collection; as in :func:`item_table`."""
    found = _distinct(list(items), newest)
    return list(zip(_ids(found), found, strict=True))


def key_of(document: Document, newest: bool) -> tuple[Any, ...]:
    """What the items have in common of which one is taken."""
    scene = _scene(document) if newest else None
    return (document.get("collection"), document["id"]) if scene is None else scene


def _distinct(items: Sequence[Item], newest: bool) -> list[Item]:
    """Each item once: of those with the same id and collection, and with ``newest`` of one scene, the newest."""
    kept: dict[Any, Item] = {}
    for item in items:
        document = item.document
        check_members(item)
        key = key_of(document, newest)
        if key not in kept or _version(document) > _version(kept[key].document):
            kept[key] = item
    return list(kept.values())


def check_members(item: Item) -> None:
    """Refuse an item whose members have another form."""
    document = item.document
    name, properties, collection = (document.get(member) for member in ("id", "properties", "collection"))
    if not isinstance(name, str):
        raise InputError(f"an item of {without_secrets(item.base)} has id {name!r}; an id is text")
    if not isinstance(properties, Mapping | None):
        raise InputError(f"item {name!r} has properties {str(properties)[:60]}; they have to be an object")
    if not isinstance(collection, str | None):
        raise InputError(f"item {name!r} has collection {collection!r}; it has to be text")


def _scene(document: Document) -> tuple[Any, ...] | None:
    """What processings of a scene have in common: collection, platform, second and place; None if the item lacks it."""
    properties = document.get("properties") or {}
    place = tuple(str(properties[name]) if properties.get(name) else None for name in SCENES)
    moment = properties.get("datetime")
    if not moment or not any(place):
        return None
    return document.get("collection"), properties.get("platform"), str(moment)[:19], place


def _version(document: Document) -> tuple[Any, ...]:
    properties = document.get("properties") or {}
    baseline = next((properties[name] for name in BASELINES if properties.get(name)), "")
    parts = tuple(int(part) if part.isdecimal() else -1 for part in str(baseline).lstrip("vV").split("."))
    return parts, str(properties.get("updated") or properties.get("created") or "")


def _ids(items: Sequence[Item]) -> list[str]:
    """The ids of items, with that of the collection before those that several collections have."""
    names = [item.document["id"] for item in items]
    twice = {name for name, count in Counter(names).items() if count > 1}
    return [
        f"{item.document.get('collection')}/{name}" if name in twice else name
        for item, name in zip(items, names, strict=True)
    ]


def _assets(item: Item) -> Assets:
    assets = item.document.get("assets")
    if not isinstance(assets, Mapping) or not all(isinstance(asset, Mapping | None) for asset in assets.values()):
        raise InputError(
            f"item {item.document['id']!r} has assets {str(assets)[:60]!r}; they have to be an object of objects"
        )
    found = {}
    for name, asset in assets.items():
        href = None if asset is None else asset.get("href")
        if not isinstance(href, str | None):
            raise InputError(f"asset {name!r} of item {item.document['id']!r} has href {href!r}; it has to be text")
        if href:
            found[name] = {**(item.defaults.get(name) or {}), **asset}
    return found


def _may_be_tiff(asset: Mapping[str, Any]) -> bool:
    """Whether a file has the places of tiles that a header tells, by its media type, else by its name."""
    kind = str(asset.get("type") or "").lower()
    if kind:
        return kind.startswith(TIFFS)
    ending = posixpath.splitext(urlsplit(str(asset["href"])).path)[1].lower()
    return ending in ("", ".tif", ".tiff")


def _href(asset: Mapping[str, Any], alternate: str | None) -> str:
    others = asset.get("alternate")
    chosen = others.get(alternate) if alternate is not None and isinstance(others, Mapping) else None
    href = chosen.get("href") if isinstance(chosen, Mapping) else None
    return str(href or asset["href"])


def _requester_pays(asset: Mapping[str, Any], properties: Mapping[str, Any], alternate: str | None) -> bool:
    """Whether the requester pays for an asset, by STAC's storage extension.

    Version 1 has ``storage:requester_pays`` in the asset or the item; version 2 has ``storage:schemes`` in the item, of
    which the asset names its own in ``storage:refs``.
    """
    others = asset.get("alternate")
    chosen = others.get(alternate) if alternate is not None and isinstance(others, Mapping) else None
    levels = [level for level in (chosen, asset, properties) if isinstance(level, Mapping)]
    said = next((level["storage:requester_pays"] for level in levels if "storage:requester_pays" in level), None)
    if said is not None:
        return said is True
    schemes = next((level["storage:schemes"] for level in levels if "storage:schemes" in level), None)
    named = next((level["storage:refs"] for level in levels if "storage:refs" in level), ())
    refs = [named] if isinstance(named, str) else list(named or ())
    found = [schemes.get(ref) for ref in refs] if isinstance(schemes, Mapping) else []
    return any(isinstance(scheme, Mapping) and scheme.get("requester_pays") is True for scheme in found)


def _properties(document: Document) -> dict[str, Any]:
    properties = document.get("properties") or {}
    return {
        name: value
        for name, value in properties.items()
        if name == "datetime" or (name not in OF_LAYOUT and name not in IN_ASSETS and not name.startswith("proj:"))
    }


def kinds_of(properties: Sequence[Mapping[str, Any]]) -> dict[str, Kind]:
    """What the values of properties are."""
    names = dict.fromkeys(name for each in properties for name in each if name != "datetime")
    return {name: Kind.of([each.get(name) for each in properties]) for name in names}


def _columns(properties: Sequence[Mapping[str, Any]], kinds: Mapping[str, Kind]) -> dict[str, pa.Array]:
    """Properties as columns: truth values, numbers or texts; others, and mixed ones, as JSON."""
    return {name: _column([each.get(name) for each in properties], kind.type) for name, kind in kinds.items()}


def _column(values: Sequence[Any], kind: pa.DataType | None) -> pa.Array:
    if kind is not None:
        return pa.array(values, type=kind)
    return pa.array([None if value is None else json.dumps(value, default=str) for value in values], type=pa.string())


def _boxes(items: Sequence[Item], geometries: Sequence[bytes | None]) -> pa.Array:
    """Boxes in two dimensions; one across the antimeridian has all longitudes, as those of files have."""
    boxes: list[dict[str, float] | None] = []
    for item, geometry in zip(items, geometries, strict=True):
        given = item.document.get("bbox")
        sides = list(given.values()) if isinstance(given, Mapping) else list(given or ())
        if len(sides) not in (4, 6) or None in sides:
            sides = [] if geometry is None else list(shapely.from_wkb(geometry).bounds)
        if not sides:
            boxes.append(None)
            continue
        half = len(sides) // 2
        west, south, east, north = (float(sides[at]) for at in (0, 1, half, half + 1))
        west, east = (west, east) if west <= east else (-180.0, 180.0)
        boxes.append(dict(zip(BBOX_TYPE.names, (west, south, east, north), strict=True)))
    return pa.array(boxes, type=BBOX_TYPE)
