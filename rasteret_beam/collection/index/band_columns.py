"""Read grids and CRSs from the columns that Rasteret writes: ``{band}_metadata``, ``crs`` and ``proj:epsg``."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rasteret_beam.collection.parquet.checks import RecordChecks
from rasteret_beam.errors import CollectionError
from rasteret_beam.kernels.geo.crs import Floats, crs_text
from rasteret_beam.kernels.geo.grids import Ints
from rasteret_beam.schema import METADATA_SUFFIX

METADATA_FIELDS = ("image_width", "image_height", "tile_width", "tile_height", "transform")

BandColumns = tuple[Ints, Floats, Ints]


def band_columns(light: pa.Table, number: int, band: str, checks: RecordChecks) -> BandColumns:
    """Records that have a band, [m]; their affines [m, 6] and sizes [m, 4]."""
    transform = light[f"transform{number}"].combine_chunks()
    sizes = {name: light[f"{name}{number}"].combine_chunks() for name in METADATA_FIELDS[:4]}
    has = pc.or_(transform.is_valid(), sizes["image_width"].is_valid())
    rows = np.flatnonzero(has.to_numpy(zero_copy_only=False))
    transform, sizes = transform.filter(has), {name: values.filter(has) for name, values in sizes.items()}
    named = f"{band}{METADATA_SUFFIX}"
    checks.transforms(f"{named}.transform", transform, 4, rows)
    checks.sizes({f"{named}.{name}": values for name, values in sizes.items()}, rows)
    a, c, e, f = pc.list_flatten(transform).to_numpy(zero_copy_only=False).astype(np.float64).reshape(-1, 4).T
    zero = np.zeros(len(rows))
    columns = [values.to_numpy(zero_copy_only=False).astype(np.int64) for values in sizes.values()]
    return rows, np.stack([a, zero, c, zero, e, f], axis=1), np.stack(columns, axis=1)


def record_crs(light: pa.Table, checks: RecordChecks) -> tuple[list[str], Ints]:
    texts = light["crs"] if "crs" in light.column_names else pa.chunked_array([pa.nulls(len(light), pa.string())])
    texts = texts.cast(pa.string())
    if "proj:epsg" in light.column_names:
        codes = pc.binary_join_element_wise("EPSG", light["proj:epsg"].cast(pa.string()), ":")
        texts = pc.coalesce(texts, codes)
    if texts.null_count:
        missing = light["id"].filter(texts.is_null())[0].as_py()
        raise CollectionError(f"record {missing!r} of the collection has neither crs nor proj:epsg")
    checks.crs("crs or proj:epsg", texts.combine_chunks())
    encoded = texts.combine_chunks().dictionary_encode()
    return [crs_text(text) for text in encoded.dictionary.to_pylist()], encoded.indices.to_numpy().astype(np.int64)
