"""The CRS of points, in the metadata of the schemas of chunks and samples.

An EPSG code travels as a number. The whole CRS travels beside it only where the code is not all of it.
"""

import pyarrow as pa

from rasteret_beam.schema import POINT_CRS_KEY, POINT_EXACT_CRS_KEY


def exact_crs(code: int | None, crs: str | None) -> dict[bytes, str]:
    """Schema metadata with a CRS whose EPSG code, if it has one, is not all of it."""
    return {} if crs is None or crs == f"EPSG:{code}" else {POINT_EXACT_CRS_KEY: crs}


def crs_of_points(schema: pa.Schema, code: int | None) -> str | None:
    """CRS of the points of a chunk, of samples, or of a batch of unsampled points, whose EPSG code is known."""
    found = schema.metadata or {}
    text = found.get(POINT_EXACT_CRS_KEY) or found.get(POINT_CRS_KEY)
    if text is not None:
        return str(text.decode())
    return None if code is None else f"EPSG:{code}"


def with_crs(rows: pa.Schema, points: pa.Schema, code: int | None) -> pa.Schema:
    """The schema of rows of points, with the CRS of the points where its EPSG code is not all of it."""
    return rows.with_metadata(exact_crs(code, crs_of_points(points, code)) or None)
