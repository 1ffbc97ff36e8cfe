"""Check that a collection may name its files, and that they exist."""

import pyarrow as pa
import pyarrow.compute as pc

from rasteret_beam.collection.records.selection import RecordSelection
from rasteret_beam.errors import CollectionError, MissingInputError, without_secrets
from rasteret_beam.model import Access
from rasteret_beam.readers.storage.href_policy import why_refused
from rasteret_beam.readers.storage.local_files import exists
from rasteret_beam.readers.storage.location import Location
from rasteret_beam.readers.storage.stores import local_path

CHECKED_FILES = 2000

OF_BUCKETS = r"^(s3|gs|az|abfss?)://[^<]*$"


def check_files(collection: RecordSelection) -> None:
    """Refuse a collection whose local files are missing; checks up to :data:`CHECKED_FILES` files.

    Raises
    ------
    CollectionError
        It names a file that it may not (see :mod:`rasteret_beam.readers.storage.href_policy`).
    MissingInputError
        Names the first missing file and the number of missing files.
    """
    assets = collection.to_table(["assets"])["assets"]
    check_hrefs(assets, collection.raster_access, collection.path or f"collection {collection.name!r}")
    local = [href for href in _some_hrefs(assets) if Location.of(href).is_local]
    gone = [href for href in local if not exists(local_path(href))]
    if gone:
        raise MissingInputError(
            f"{len(gone)} of {len(local)} files of the collection are missing, such as {gone[0]}; "
            "build the collection again, or restore the files"
        )


def check_hrefs(assets: pa.ChunkedArray, access: Access, what: str) -> None:
    """Refuse assets of a collection in a bucket or on the web that name a forbidden file.

    Raises
    ------
    CollectionError
        Names the first forbidden file of a band.
    """
    if access.origin is None:
        return
    for band in assets.type:
        hrefs = [pc.struct_field(chunk, [band.name, "href"]).cast(pa.string()) for chunk in assets.chunks]
        named = pc.unique(pa.chunked_array(hrefs, pa.string()).drop_null())
        for href in named.filter(pc.invert(pc.match_substring_regex(named, OF_BUCKETS))).to_pylist():
            if why := why_refused(href, access):
                raise CollectionError(f"{without_secrets(what)} names {without_secrets(href)}: {why}")


def _some_hrefs(assets: pa.ChunkedArray) -> list[str]:
    step = max(1, len(assets) * max(1, assets.type.num_fields) // CHECKED_FILES)
    rows = assets.take(pa.array(range(0, len(assets), step), type=pa.int64()))
    found = (asset["href"] for row in rows.to_pylist() if row for asset in row.values() if asset and asset["href"])
    return list(dict.fromkeys(found))
