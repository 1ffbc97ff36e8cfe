"""The collection that a config names, filtered, and the access to buckets."""

from collections.abc import Sequence
from typing import Any

from rasteret_beam.collection.catalogue import access_with
from rasteret_beam.collection.collection import Collection, load
from rasteret_beam.errors import InputError
from rasteret_beam.model import Access
from rasteret_beam.transforms.yaml.keys import Key

ACCESS = ("anonymous", "requester_pays")
RASTERS = ("vrt", "drivers", "allow_local")
SUBSET = ("bbox", "date_range", "ids", "cloud_cover_lt")

ACCESS_KEYS = (
    Key("anonymous", bool, False, "read without credentials"),
    Key("requester_pays", Any, False, "pay for the requests: the Google project to bill, or true for s3://"),
)

COLLECTION_KEYS = (
    Key("collection", str, help="folder or file of the collection, or an id of the catalogue"),
    Key("bands", list[str], help="bands of the collection"),
    Key("bbox", list[float], None, "only records that intersect this box in degrees: [west, south, east, north]"),
    Key("date_range", Any, None, 'only records in this range of ISO dates, such as "2023-01-01/2023-06-30"'),
    Key("ids", list[str], None, "only records with these ids"),
    Key("cloud_cover_lt", float, None, "only records with less eo:cloud_cover, in percent"),
    *ACCESS_KEYS,
    Key("vrt", bool, False, "also open virtual rasters (VRT) and the files that they name"),
    Key("drivers", list[str], (), "GDAL drivers to use in addition"),
    Key("allow_local", bool, False, "allow a collection in a bucket or on the web to name local files"),
)
"""The keys of a collection; those of its subset and of access are as the flags of the commands."""


def taken(config: dict[str, Any], *names: str) -> dict[str, Any]:
    """Values of a config that are given, which are taken out of it."""
    found = {name: config.pop(name) for name in names if name in config}
    return {name: value for name, value in found.items() if value is not None}


def access_of(config: dict[str, Any]) -> Access | None:
    """The access to files that a config asks for; None if it does not."""
    given = _given(config, ACCESS)
    return Access(**given) if given else None


def _given(config: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    found = {name: value for name, value in taken(config, *names).items() if value}
    return found | ({"drivers": tuple(found["drivers"])} if "drivers" in found else {})


def collection_of(config: dict[str, Any]) -> Collection:
    """The collection of a config, whose keys are taken out of it."""
    place = config.pop("collection")
    if not isinstance(place, str):
        raise InputError(f"collection is {place!r}; give the path of a collection, or its id in the catalogue")
    access = access_with(place, _given(config, (*ACCESS, *RASTERS)))
    return load(place, access=access).narrowed(**taken(config, *SUBSET))
