"""What a path, a URL or a name for GDAL is."""

import pytest

from rasteret_beam.readers.storage.location import Location

FLAGS = (
    "is_local",
    "is_subdataset",
    "is_remote",
    "is_object",
    "is_in_bucket",
    "is_web",
    "is_addressable",
    "has_ranges",
)


@pytest.mark.parametrize(
    ("text", "flags"),
    [
        ("/a/b.tif", "is_local"),
        ("http", "is_local"),
        ("file:///a/b.tif", "is_local"),
        ("FILE:/a/b.tif", "is_local"),
        ("./NETCDF:a.nc:v", "is_local"),
        ("NETCDF:a.nc:v", "is_subdataset"),
        ("GTIFF_DIR:1:https://host/a.tif", "is_subdataset"),
        ("/vsizip/a.zip/b.tif", ""),
        ("s3://bucket/a b.tif", "is_remote is_object is_in_bucket is_addressable has_ranges"),
        ("gs://bucket/a//b.tif", "is_remote is_object is_in_bucket"),
        ("az://bucket/b.tif?version=1", "is_remote is_object is_in_bucket"),
        ("https://host/a.tif", "is_remote is_object is_web is_addressable has_ranges"),
        ("https://host/a.tif?signature=x", "is_remote is_object is_web has_ranges"),
        ("https://user:word@host/a.tif", "is_remote is_object is_web has_ranges"),
        ("https://host/a%2Fb.tif", "is_remote is_object is_web has_ranges"),
        ("https://host/%2e%2e/b.tif", "is_remote is_object is_web has_ranges"),
        ("hdfs://host/a.tif", "is_remote"),
        ("vrt:///a.tif", "is_remote"),
    ],
)
def test_kinds(text: str, flags: str) -> None:
    assert {name for name in FLAGS if getattr(Location.of(text), name)} == set(flags.split())


def test_parts() -> None:
    web = Location.of("https://host:8080/a%20b.tif")
    assert (web.scheme, web.root, web.path, web.key) == ("https", "https://host:8080", "a%20b.tif", "a b.tif")
    bucket = Location.of("s3://bucket/a%20b.tif")
    assert (bucket.scheme, bucket.root, bucket.path, bucket.key) == ("s3", "s3://bucket", "a%20b.tif", "a%20b.tif")
    local = Location.of("/a/b.tif")
    assert (local.scheme, local.root, local.path) == ("", "", "/a/b.tif")
