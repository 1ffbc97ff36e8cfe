"""Files with broken headers, sampled in a process of limited memory: what rasterio gives, and what this package does.

Run as a program (``python -m tests.support.fuzzed FOLDER SEED FIRST LAST``), it prints a line before each step of each
file, and its outcome as JSON after it, so that a crash or a hang is known by the last line.
"""

import json
import logging
import re
import resource
import struct
import sys
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import rasterio
from affine import Affine, TransformNotInvertibleError

from rasteret_beam import Collection, build_from_cogs
from rasteret_beam.errors import RasteretBeamError
from rasteret_beam.kernels.geo.grids import Floats
from tests.support import rasters

MEMORY = 3 << 30
"""Address space of a process that samples broken files."""

POINTS = 6
MOST_BANDS = 300

UNCERTAIN = "places that float64 cannot tell apart"
"""Such files are left out: the centre of a pixel, taken there and back, may be of another pixel."""

BIG, BAND, PIXEL = {"BIGTIFF": "YES"}, {"INTERLEAVE": "BAND"}, {"INTERLEAVE": "PIXEL"}
KINDS = (
    rasters.RasterCase(name="cog", dtype="uint16", driver="COG", options={"COMPRESS": "DEFLATE", "PREDICTOR": "2"}),
    rasters.RasterCase(name="planar", dtype="int16", count=3, options={"COMPRESS": "LZW"} | BAND),
    rasters.RasterCase(name="interleaved", dtype="uint8", count=3, options={"COMPRESS": "ZSTD"} | PIXEL),
    rasters.RasterCase(
        name="bigtiff", dtype="float32", count=2, options={"COMPRESS": "DEFLATE", "PREDICTOR": "3"} | BIG | BAND
    ),
    rasters.RasterCase(
        name="big_endian", dtype="uint16", nodata=7, options={"COMPRESS": "DEFLATE", "ENDIANNESS": "BIG"}
    ),
    rasters.RasterCase(name="plain", dtype="int32", count=2, options={"COMPRESS": "NONE"} | PIXEL | BIG),
    rasters.RasterCase(name="lerc", dtype="int16", options={"COMPRESS": "LERC_ZSTD"}),
    rasters.RasterCase(
        name="sparse", dtype="uint8", nodata=9, sparse=True, options={"COMPRESS": "DEFLATE", "SPARSE_OK": "TRUE"}
    ),
)
WORDS = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
TELLING = [0, 1, 2, 3, 4, 5, 7, 8, 16, 32, 255, 256, 65535, 65536, 32946, 34887, 50000, 2**20, 2**28, 2**31, 2**32 - 1]
TAGS = [
    254,
    256,
    257,
    258,
    259,
    262,
    266,
    273,
    274,
    277,
    278,
    279,
    284,
    317,
    322,
    323,
    324,
    325,
    338,
    339,
    32997,
    33550,
]


@dataclass
class Directory:
    """The first directory of a TIFF, to be broken in place."""

    content: bytearray
    order: str
    word: int
    first: int
    count: int

    @classmethod
    def of(cls, content: bytearray) -> "Directory":
        order = "<" if content[:2] == b"II" else ">"
        word = 8 if 43 in content[2:4] else 4
        (at,) = struct.unpack_from(order + ("Q" if word == 8 else "I"), content, word)
        form = "Q" if word == 8 else "H"
        (count,) = struct.unpack_from(order + form, content, at)
        return cls(content, order, word, at + struct.calcsize(order + form), count)

    @property
    def length(self) -> int:
        return 4 + 2 * self.word

    def entry(self, number: int) -> tuple[int, int, int, int]:
        """Where an entry is, its tag, its type and its count."""
        at = self.first + number * self.length
        form = "Q" if self.word == 8 else "I"
        return at, *struct.unpack_from(f"{self.order}HH{form}", self.content, at)

    def put(self, at: int, size: int, value: int) -> None:
        """Write a whole number, as much of it as fits."""
        self.content[at : at + size] = (value % (1 << 8 * size)).to_bytes(
            size, "little" if self.order == "<" else "big"
        )

    def values(self, number: int) -> tuple[int, int, int]:
        """Where the values of an entry begin, the size of each, and how many there are."""
        at, _, kind, count = self.entry(number)
        size = WORDS.get(kind, 1)
        inline = at + 4 + self.word
        if size * count <= self.word:
            return inline, size, count
        (start,) = struct.unpack_from(self.order + ("Q" if self.word == 8 else "I"), self.content, inline)
        return start, size, count


Breaking = Callable[[Directory, np.random.Generator], None]


def _flip_bytes(directory: Directory, rng: np.random.Generator) -> None:
    end = directory.first + directory.count * directory.length
    for _ in range(rng.integers(1, 5)):
        at = rng.integers(0, len(directory.content)) if rng.random() < 0.2 else rng.integers(0, end)
        directory.content[min(at, len(directory.content) - 1)] ^= 1 << rng.integers(0, 8)


def _change_tag(directory: Directory, rng: np.random.Generator) -> None:
    at, *_ = directory.entry(rng.integers(0, directory.count))
    directory.put(at, 2, int(rng.choice(TAGS)))


def _change_type(directory: Directory, rng: np.random.Generator) -> None:
    at, *_ = directory.entry(rng.integers(0, directory.count))
    directory.put(at + 2, 2, int(rng.integers(0, 20)))


def _change_count(directory: Directory, rng: np.random.Generator) -> None:
    at, _, _, count = directory.entry(rng.integers(0, directory.count))
    near = [count - 1, count + 1, 2 * count, 3 * count]
    directory.put(at + 4, directory.word, int(rng.choice([*near, *TELLING])))


def _change_value(directory: Directory, rng: np.random.Generator) -> None:
    start, size, count = directory.values(rng.integers(0, directory.count))
    at = start + size * int(rng.integers(0, max(1, min(count, 1000))))
    if at + size <= len(directory.content):
        old = int.from_bytes(directory.content[at : at + size], "little" if directory.order == "<" else "big")
        directory.put(at, size, int(rng.choice([old + 1, 2 * old, old // 2, old + 64, *TELLING])))


def _change_offset(directory: Directory, rng: np.random.Generator) -> None:
    at, *_ = directory.entry(rng.integers(0, directory.count))
    directory.put(at + 4 + directory.word, directory.word, int(rng.integers(0, 2 * len(directory.content))))


def _swap_values(directory: Directory, rng: np.random.Generator) -> None:
    many = [number for number in range(directory.count) if directory.values(number)[2] > 1]
    start, size, count = directory.values(int(rng.choice(many)))
    one, other = (start + size * int(at) for at in rng.integers(0, count, 2))
    content = directory.content
    content[one : one + size], content[other : other + size] = (
        content[other : other + size],
        content[one : one + size],
    )


def _truncate(directory: Directory, rng: np.random.Generator) -> None:
    del directory.content[int(rng.integers(1, len(directory.content))) :]


BREAKINGS: tuple[Breaking, ...] = (
    _flip_bytes,
    _change_tag,
    _change_type,
    _change_count,
    _change_value,
    _change_value,
    _change_offset,
    _swap_values,
    _truncate,
)


def broken(content: bytes, rng: np.random.Generator) -> bytes:
    """A file broken in one or two ways."""
    copy = bytearray(content)
    for _ in range(rng.integers(1, 3)):
        try:
            rng.choice(np.array(BREAKINGS, dtype=object))(Directory.of(copy), rng)
        except (struct.error, ValueError, OverflowError):  # what was broken first leaves nothing to break
            break
    return bytes(copy)


@dataclass(frozen=True)
class Expected:
    """What rasterio gives: NaN [points, bands] where it cannot read; no points where it cannot open the file."""

    points: pa.Table | None
    crs: str
    indexes: list[int]
    values: np.ndarray
    error: str


def oracle(path: Path, rng: np.random.Generator) -> Expected:
    """rasterio's values at some points on the centres of pixels."""
    try:
        with rasterio.open(path) as dataset:
            indexes = list(range(1, dataset.count + 1)) if dataset.count <= MOST_BANDS else [1]
            col, row = rng.integers(0, [dataset.width, dataset.height], (POINTS, 2)).T + 0.5
            a, b, c, d, e, f = dataset.transform[:6]
            x, y = a * col + b * row + c, d * col + e * row + f
            if not _return(dataset.transform, x, y, col, row):
                return Expected(None, "", [], np.empty(0), UNCERTAIN)
            values, error = np.full((POINTS, len(indexes)), np.nan), ""
            for number, point in enumerate(zip(x, y, strict=True)):
                try:
                    values[number] = next(dataset.sample([point], indexes))
                except Exception as failed:
                    error = f"{type(failed).__name__}: {failed}"
            crs = dataset.crs.to_wkt() if dataset.crs else "EPSG:32631"
            return Expected(pa.table({"x": x, "y": y}), crs, indexes, values, error)
    except Exception as error:
        return Expected(None, "", [], np.empty(0), f"{type(error).__name__}: {error}")


def _return(transform: Affine, x: Floats, y: Floats, col: Floats, row: Floats) -> bool:
    """Whether places come back to the middle of their pixels."""
    try:
        back = ~transform
    except TransformNotInvertibleError:
        return False
    found = back.a * x + back.b * y + back.c - col, back.d * x + back.e * y + back.f - row
    return bool(np.abs(found).max() < 0.01)


def outcome(path: Path, expected: Expected) -> str:
    """ "same", "refused" (by a clear error), "by GDAL" (whose values are not always the same), or what is wrong."""
    try:
        bands = {f"B{index}": index - 1 for index in expected.indexes} or None
        collection = build_from_cogs([path], bands=bands)
        if expected.points is None:
            return "same"
        at = {"x_column": "x", "y_column": "y", "geometry_crs": expected.crs}
        samples = collection.sample_points(expected.points, collection.bands, **at)
    except RasteretBeamError as error:
        text = " ".join(str(error).split())
        if str(path) not in text or RAW.search(text):
            return f"unclear: {type(error).__name__}: {text}"
        return "refused" if expected.error else f"refused: {text.replace(str(path), '')}"
    except Exception as error:
        return f"raw: {type(error).__name__}: {error}"
    found = np.full(expected.values.shape, np.nan)
    band = [collection.bands.index(name) for name in samples["band"].to_pylist()]
    found[samples["point_index"].to_numpy(), band] = samples["value"].to_numpy()
    readable = ~np.isnan(expected.values)
    if np.array_equal(found[readable], expected.values[readable]):
        return "same"
    plan = collection.plan(expected.points, collection.bands, **at).to_pylist()
    by_gdal = all(row["engine"] == "rasterio" for row in plan) or _is_overfull(path, collection, plan)
    return f"{'by GDAL' if by_gdal else 'differs'}: {found.tolist()} {expected.values.tolist()}"


def _is_overfull(path: Path, collection: Collection, plan: list[dict[str, Any]]) -> bool:
    """Whether a deflated tile holds more than a tile: of such a one, GDAL gives a part, and else what memory held."""
    content = path.read_bytes()
    for row in plan:
        stored = collection.to_table()[f"{row['band']}_metadata"][0].as_py()
        samples = stored["samples_per_pixel"] if stored["planar_configuration"] == 1 else 1
        size = stored["tile_width"] * stored["tile_height"] * samples * np.dtype(stored["dtype"]).itemsize
        try:
            if len(zlib.decompress(content[row["offset"] or 0 :][: row["bytes"]])) > size:
                return True
        except zlib.error:
            continue
    return False


RAW = re.compile(r"(Type|Index|Key|Overflow|Attribute|ZeroDivision|UnicodeDecode)Error")
"""Errors of Python that tell a user nothing."""


def main(folder: Path, seed: int, first: int, last: int) -> None:
    """Make, sample and remove the files of some numbers."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    whole = [kind.write(folder).read_bytes() for kind in KINDS]
    for number in range(first, last):
        rng = np.random.default_rng([seed, number])
        path = folder / f"{KINDS[number % len(KINDS)].name}_{seed}_{number}.tif"
        path.write_bytes(broken(whole[number % len(KINDS)], rng))
        _tell(number=number, step="rasterio")
        expected = oracle(path, rng)
        if expected.error == UNCERTAIN:
            path.unlink()
            continue
        _tell(number=number, step="ours")
        _tell(
            number=number,
            file=path.name,
            outcome=outcome(path, expected),
            rasterio=expected.error,
            peak=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10,
        )
        path.unlink()


def _tell(**facts: Any) -> None:
    print(json.dumps(facts), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
