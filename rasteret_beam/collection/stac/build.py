"""Building collections from STAC."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from rasteret_beam.collection.collection import Collection
from rasteret_beam.collection.filters.date_ranges import DateRange
from rasteret_beam.collection.records.headers import check_on_error, collection_table, read_records, settle_failures
from rasteret_beam.collection.stac.records import search_of, sources_from_stac
from rasteret_beam.errors import InputError
from rasteret_beam.model import DEFAULT_ACCESS, Access


def build_from_stac(
    source: Any,
    *,
    bands: Sequence[str] | Mapping[str, str | tuple[str, int]] | None = None,
    name: str = "",
    data_source: str = "",
    collections: str | Sequence[str] = (),
    bbox: Sequence[float] | None = None,
    datetime: DateRange | None = None,
    query: Mapping[str, Any] | None = None,
    newest: bool = False,
    alternate: str | None = None,
    enrich: bool | str = "auto",
    sign: str | Callable[[str], str] | None = None,
    on_error: str = "raise",
    access: Access = DEFAULT_ACCESS,
) -> Collection:
    """Build a collection with one record per STAC item.

    Parameters
    ----------
    source
        The URL of a STAC API; the path or URL of a static catalog, an item, an item collection, NDJSON or
        stac-geoparquet, or a folder or glob of these; or items in memory: pystac objects, or dicts. Catalogs and APIs
        need the extra ``stac``. Relative hrefs start at the folder of the item's document.
    bands : list of str, or mapping of str to str or (str, int), optional
        Names of bands, and what each is: an asset's name, a band's name, a common name such as "red" (``eo:bands`` of
        STAC 1.0, ``bands`` of 1.1), or an asset and a 0-based index in it. By default all bands of all assets that are
        rasters by media type or role; an asset of several bands gives ASSET_BAND for each.
    name, data_source : str
    collections : str or list of str
        Ids of the STAC collections that items are taken of; by default all.
    bbox : (west, south, east, north), optional
        In degrees; west > east crosses the antimeridian.
    datetime : optional
        As ``date_range`` of :meth:`Collection.subset`: ``"2023-01-01/2023-06-30"``, ``"2023-06"``.
    query : mapping, optional
        Conditions on properties, as in STAC's query extension: ``{"eo:cloud_cover": {"lt": 20}}``. An API applies them
        itself; of other sources they are applied here, as bbox and datetime are.
    newest : bool
        Of several processings of a scene (same collection, platform, second and ``grid:code`` or tile), take that of
        the newest processing baseline, then of the last ``updated``.
    alternate : str, optional
        The alternate href to take where assets have several (STAC's alternate extension), such as "s3" or "https".
    enrich : "auto", True or False
        Whether files' headers are read. Items do not tell where tiles lie in a file, so files of which they are not
        read are sampled through GDAL, which opens each. "auto": those of TIFFs, and of other files whose item lacks
        CRS, transform, shape or data type. False: none, which needs items with all of these.
    sign : str or callable, optional
        As ``sign`` of :class:`rasteret_beam.Access`: "planetary-computer", or a function of a URL.
    on_error : "raise" or "skip"
        As for :func:`rasteret_beam.build_from_cogs`.
    access : Access
        As for :func:`rasteret_beam.build_from_cogs`; it applies to the items' files too.

    Raises
    ------
    InputError, MissingInputError
        The source, a band or a condition cannot be used, no item is found, or a package is missing.
    BuildError
        Lists every raster file that could not be read, with its reason.
    """
    check_on_error(on_error)
    if enrich not in ("auto", True, False):
        raise InputError(f'enrich is {enrich!r}; it has to be "auto", True or False')
    access = access if sign is None else replace(access, sign=sign)
    search = search_of(collections, bbox, datetime, query)
    sources, bands_found = sources_from_stac(
        source, bands=bands, search=search, newest=newest, alternate=alternate, enrich=enrich, access=access
    )
    records, failures = read_records(sources, access=access)
    settle_failures(failures, on_error, len(records))
    table = collection_table(records, bands_found)
    return Collection.from_table(table, name=name, data_source=data_source, failures=failures, access=access)
