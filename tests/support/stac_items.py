"""STAC items of small rasters: STAC 1.0 and 1.1, and an API that serves them."""

import json
import threading
from collections.abc import Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import rasterio  # type: ignore[import-untyped]
from affine import Affine

SIDE = 64
UTM = Affine(10.0, 0.0, 500_000.0, 0.0, -10.0, 5_000_640.0)
POINT = 500_105.0, 5_000_335.0
BOX = [3.0, 45.14, 3.01, 45.16]
OUTLINE = [[3.0, 45.14], [3.01, 45.14], [3.01, 45.16], [3.0, 45.16], [3.0, 45.14]]

Document = dict[str, Any]


def write_raster(path: Path, values: Sequence[int], driver: str = "GTiff", **profile: Any) -> Path:
    """A raster with a band of each value, and a gradient in its columns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tiled = {"tiled": True, "blockxsize": 32, "blockysize": 32, "compress": "deflate"} if driver == "GTiff" else {}
    whole = {"width": SIDE, "height": SIDE, "count": len(values), "dtype": "uint16", "crs": "EPSG:32631"}
    with rasterio.open(path, "w", driver=driver, transform=UTM, **whole | tiled | profile) as raster:
        for band, value in enumerate(values, 1):
            raster.write(value + np.arange(SIDE * SIDE, dtype="uint16").reshape(SIDE, SIDE) % SIDE, band)
    return path


def value_at(path: Path, band: int = 1, point: tuple[float, float] = POINT) -> float:
    """What rasterio has at a point."""
    with rasterio.open(path) as raster:
        return float(next(raster.sample([point], indexes=[band]))[0])


def item(name: str, day: int, assets: Document, **properties: Any) -> Document:
    """An item of the second of a day in June 2023."""
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": name,
        "collection": "s2",
        "bbox": BOX,
        "geometry": {"type": "Polygon", "coordinates": [OUTLINE]},
        "properties": {"datetime": f"2023-06-{day:02}T10:00:00Z", "eo:cloud_cover": 10.0 * day, **properties},
        "links": [],
        "assets": assets,
    }


def scene(folder: Path, name: str, day: int, **properties: Any) -> Document:
    """An item with red and near infrared in files of one band each, and a picture of three bands."""
    for key, values in (("B04", [100 * day]), ("B08", [1000 * day]), ("visual", [1, 2, 3])):
        write_raster(folder / f"{name}_{key}.tif", values, nodata=0)
    assets = {
        "B04": {
            "href": f"./{name}_B04.tif",
            "type": "image/tiff; application=geotiff; profile=cloud-optimized",
            "roles": ["data"],
            "eo:bands": [{"name": "B04", "common_name": "red"}],
            "raster:bands": [{"scale": 0.0001, "offset": -0.1, "nodata": 0, "data_type": "uint16"}],
        },
        "B08": {
            "href": f"{name}_B08.tif",
            "type": "image/tiff",
            "bands": [{"name": "B08", "eo:common_name": "nir", "raster:scale": 0.0002, "data_type": "uint16"}],
        },
        "visual": {
            "href": f"{name}_visual.tif",
            "type": "image/tiff",
            "eo:bands": [
                {"name": "B04", "common_name": "red"},
                {"name": "B03", "common_name": "green"},
                {"name": "B02", "common_name": "blue"},
            ],
        },
        "thumbnail": {"href": f"{name}.jpg", "type": "image/jpeg", "roles": ["thumbnail"]},
        "metadata": {"href": f"{name}.xml", "type": "application/xml", "roles": ["metadata"]},
    }
    return item(name, day, assets, **properties)


def feature_collection(items: Sequence[Mapping[str, Any]]) -> Document:
    return {"type": "FeatureCollection", "features": list(items)}


class StacApi:
    """A STAC API on 127.0.0.1 with pages of ``page`` items, and the files of a folder below ``/files``.

    With ``token``, files are served only to requests with ``?sig=TOKEN``.
    """

    def __init__(self, items: Sequence[Document], folder: Path, page: int = 2, token: str | None = None):
        self.items, self.folder, self.page, self.token = list(items), folder, page, token
        self.asked: list[tuple[str, str]] = []
        self.searches: list[Document] = []
        self.failures = 0
        self.item_assets: Document = {}

    def __enter__(self) -> "StacApi":
        api = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                api.get(self)

            do_HEAD = do_GET

            def do_POST(self) -> None:
                api.search(self, json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

            def log_message(self, *_: Any) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def get(self, request: BaseHTTPRequestHandler) -> None:
        """Answer the landing page, a collection, or a file."""
        asked = urlsplit(request.path)
        self.asked.append((asked.path, asked.query))
        if self.failures:
            self.failures -= 1
            self._send(request, 503, b"busy")
        elif asked.path == "/":
            self._json(request, self._landing())
        elif asked.path == "/collections/s2":
            self._json(request, self._collection())
        elif asked.path.startswith("/files/"):
            self._file(request, asked.path.removeprefix("/files/"), parse_qs(asked.query))
        else:
            self._send(request, 404, b"{}")

    def search(self, request: BaseHTTPRequestHandler, body: Document) -> None:
        """A page of the items that meet the search."""
        self.searches.append(body)
        chosen = [each for each in self.items if _meets(each, body)]
        start = int(body.get("token", 0))
        page: Document = feature_collection(chosen[start : start + self.page]) | {"links": []}
        if start + self.page < len(chosen):
            after = body | {"token": str(start + self.page)}
            page["links"] = [{"rel": "next", "method": "POST", "href": f"{self.url}/search", "body": after}]
        self._json(request, page)

    def _landing(self) -> Document:
        return {
            "type": "Catalog",
            "stac_version": "1.0.0",
            "id": "test",
            "description": "items",
            "conformsTo": [
                "https://api.stacspec.org/v1.0.0/core",
                "https://api.stacspec.org/v1.0.0/collections",
                "https://api.stacspec.org/v1.0.0/item-search",
                "https://api.stacspec.org/v1.0.0/item-search#query",
            ],
            "links": [
                {"rel": "self", "href": f"{self.url}/"},
                {"rel": "data", "href": f"{self.url}/collections"},
                {"rel": "search", "href": f"{self.url}/search", "method": "POST", "type": "application/geo+json"},
            ],
        }

    def _collection(self) -> Document:
        return {
            "type": "Collection",
            "stac_version": "1.0.0",
            "id": "s2",
            "description": "scenes",
            "license": "other",
            "extent": {"spatial": {"bbox": [[-180, -90, 180, 90]]}, "temporal": {"interval": [[None, None]]}},
            "links": [],
            "item_assets": self.item_assets,
        }

    def _file(self, request: BaseHTTPRequestHandler, name: str, query: Mapping[str, Sequence[str]]) -> None:
        path = self.folder / name
        if self.token is not None and query.get("sig") != [self.token]:
            self._send(request, 403, b"no signature")
        elif not path.is_file():
            self._send(request, 404, b"")
        else:
            whole, wanted = path.read_bytes(), request.headers.get("Range")
            if wanted is None:
                self._send(request, 200, whole)
                return
            first, last = wanted.removeprefix("bytes=").split("-")
            start, stop = int(first), min(int(last or len(whole) - 1) + 1, len(whole))
            self._send(request, 206, whole[start:stop], {"Content-Range": f"bytes {start}-{stop - 1}/{len(whole)}"})

    def _json(self, request: BaseHTTPRequestHandler, document: Document) -> None:
        self._send(request, 200, json.dumps(document).encode(), {"Content-Type": "application/json"})

    @staticmethod
    def _send(
        request: BaseHTTPRequestHandler, status: int, body: bytes, headers: Mapping[str, str] | None = None
    ) -> None:
        request.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            request.send_header(name, value)
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(body)


def _meets(found: Mapping[str, Any], body: Mapping[str, Any]) -> bool:
    """Whether an item meets a search, as far as the tests search."""
    properties = found["properties"]
    if body.get("collections") and found["collection"] not in body["collections"]:
        return False
    if "bbox" in body:
        west, _, east, north = body["bbox"]
        if not (found["bbox"][0] <= east and found["bbox"][2] >= west and found["bbox"][1] <= north):
            return False
    if "datetime" in body:
        first, last = body["datetime"].split("/")
        moment = properties["datetime"]
        if (first != ".." and moment < first) or (last != ".." and moment > last):
            return False
    compare = {"lt": lambda a, b: a < b, "lte": lambda a, b: a <= b, "eq": lambda a, b: a == b}
    query = body.get("query") or {}
    return all(compare[how](properties[name], to) for name, terms in query.items() for how, to in terms.items())
