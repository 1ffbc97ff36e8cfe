"""The flags of collections that are built of STAC items."""

import argparse
import re
from typing import Any

from pipelines.cli.flags import bbox, date_range, names, switch
from rasteret_beam.collection.records.records import RecordSource
from rasteret_beam.collection.stac.documents import document_files, form_of
from rasteret_beam.collection.stac.records import search_of, sources_from_stac
from rasteret_beam.errors import InputError
from rasteret_beam.model import SIGNERS, Access
from rasteret_beam.readers.storage.location import Location
from rasteret_beam.transforms.stac_records import StacRecords

ONLY_STAC = ("assets", "stac_collections", "bbox", "datetime", "query", "newest", "alternate", "enrich", "sign")

CONDITION = re.compile(r"\s*([^\s<>=!]+)\s*(<=|>=|!=|=|<|>)\s*(.*?)\s*")
COMPARISONS = {"=": "eq", "!=": "neq", "<": "lt", "<=": "lte", ">": "gt", ">=": "gte"}
ENRICH: dict[str, bool | str] = {"auto": "auto", "all": True, "none": False}


def stac_flags(flags: argparse._ActionsContainer) -> None:
    """Add the flags that go with ``--stac``."""
    add = flags.add_argument
    add(
        "--assets",
        type=asset_bands,
        metavar="BAND=ASSET:N,...",
        help="bands and the asset of each, by its name or a band's name or common name, or as ASSET:INDEX "
        "from 0; instead of --bands",
    )
    add("--stac_collections", type=names, action="extend", metavar="ID,...", help="take items of these collections")
    add("--bbox", type=bbox, metavar="W,S,E,N", help="take items that intersect this box in degrees")
    add("--datetime", type=date_range, metavar="FIRST/LAST", help="take items of this time range")
    add(
        "--query",
        type=condition,
        action="append",
        metavar="CONDITION",
        help="take items whose property meets this, such as 'eo:cloud_cover<20'; may be repeated",
    )
    switch(flags, "--newest", "of several processings of a scene, take that of the newest processing baseline")
    add("--alternate", metavar="NAME", help="the alternate href to take where assets have it, such as s3")
    add(
        "--enrich",
        choices=tuple(ENRICH),
        help="read the headers of all files, of none (GDAL then reads their pixels), or of TIFFs and of "
        "files whose item lacks CRS, transform, shape or data type (default: auto)",
    )
    add("--sign", choices=SIGNERS, help="what signs the URLs of files when they are requested")


def asset_bands(text: str) -> dict[str, str | tuple[str, int]]:
    """``red=B04,blue=visual:2`` as bands and the asset of each."""
    bands: dict[str, str | tuple[str, int]] = {}
    for part in names(text):
        band, _, source = part.partition("=")
        asset, colon, index = source.rpartition(":")
        if not band or not source:
            raise argparse.ArgumentTypeError(f"{part!r} is not BAND=ASSET or BAND=ASSET:INDEX, such as red=B04")
        if band in bands:
            raise argparse.ArgumentTypeError(f"band {band!r} is named twice")
        bands[band] = (asset, int(index)) if colon and index.isdigit() else source
    return bands


def condition(text: str) -> tuple[str, str, Any]:
    """``eo:cloud_cover<20`` as property, operator and value."""
    found = CONDITION.fullmatch(text)
    if found is None or not found[3]:
        raise argparse.ArgumentTypeError(f"{text!r} is not PROPERTY<VALUE, with one of {' '.join(COMPARISONS)}")
    return found[1], COMPARISONS[found[2]], _value(found[3])


def _value(text: str) -> Any:
    if text in ("true", "false"):
        return text == "true"
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        return text


def check_without_stac(flags: argparse.Namespace) -> None:
    """Refuse flags that go with ``--stac`` where it is not given."""
    given = [name for name in ONLY_STAC if getattr(flags, name)]
    if given:
        raise InputError(f"--{given[0]} goes with --stac; omit it")


def records_of_workers(flags: argparse.Namespace, access: Access, is_local: bool) -> StacRecords | None:
    """The records of ``--stac`` as workers read them; None for catalogs, APIs and, in this process, a single file."""
    settings = _settings(flags) | _search(flags)
    if "://" in flags.stac and not Location.of(flags.stac).is_in_bucket:
        return None  # an API, or a single document
    found = document_files(flags.stac, access)
    if len(found) == 1 and (is_local or form_of(found[0]) == "json"):
        return None
    return StacRecords(flags.stac, access=access, **settings)


def stac_sources(flags: argparse.Namespace, access: Access) -> list[RecordSource]:
    """The records of ``--stac``, before their files are opened."""
    sources, _ = sources_from_stac(flags.stac, access=access, search=search_of(**_search(flags)), **_settings(flags))
    return sources


def _settings(flags: argparse.Namespace) -> dict[str, Any]:
    """What is taken of the items, by argument."""
    if flags.bands and flags.assets:
        raise InputError("--bands and --assets are given; give the bands with one of them")
    return {
        "bands": flags.assets or (list(flags.bands) if flags.bands else None),
        "newest": flags.newest,
        "alternate": flags.alternate,
        "enrich": ENRICH[flags.enrich or "auto"],
    }


def _search(flags: argparse.Namespace) -> dict[str, Any]:
    """Which items are wanted, by argument."""
    query: dict[str, dict[str, Any]] = {}
    for name, operator, value in flags.query or ():
        query.setdefault(name, {})[operator] = value
    return {
        "collections": flags.stac_collections or (),
        "bbox": flags.bbox,
        "datetime": flags.datetime,
        "query": query or None,
    }
