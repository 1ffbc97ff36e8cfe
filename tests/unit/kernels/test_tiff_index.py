"""What a collection may claim of a band: facts that contradict each other are found, and named with both values."""

from dataclasses import replace

import numpy as np
import pytest

from rasteret_beam.kernels.storage.tiff_index import why_inconsistent
from rasteret_beam.model import Grid, StoredBand

GRID = Grid("EPSG:32631", (10.0, 0.0, 500_000.0, 0.0, -10.0, 4_500_000.0), 100, 70, 32, 32)
PLACES = {"tile_offsets": range(1000, 2200, 100), "tile_byte_counts": [100] * 12}
STORED = StoredBand(
    "float32",
    compression=8,
    predictor=3,
    samples_per_pixel=3,
    planar_configuration=2,
    bits_per_sample=32,
    file_size=2200,
    **PLACES,
)


def placed(number: int, offset: int, count: int) -> StoredBand:
    offsets, counts = (np.array(values, dtype=np.int64) for values in PLACES.values())
    offsets[number], counts[number] = offset, count
    return replace(STORED, tile_offsets=offsets, tile_byte_counts=counts)


@pytest.mark.parametrize(
    "stored", [STORED, placed(3, 0, 0), replace(STORED, file_size=None), replace(STORED, predictor=1)]
)
def test_facts_that_agree(stored: StoredBand) -> None:
    assert why_inconsistent(stored, GRID, 2) is None


@pytest.mark.parametrize(
    ("stored", "reason"),
    [
        (replace(STORED, dtype="E"), "dtype 'E'"),
        (replace(STORED, dtype="complex64"), "dtype 'complex64'"),
        (replace(STORED, bits_per_sample=16), "16 bits a sample in float32"),
        (replace(STORED, predictor=4), "predictor 4"),
        (
            replace(STORED, dtype="uint8", bits_per_sample=8),
            "predictor 3, which is for floating-point numbers, in uint8",
        ),
        (replace(STORED, planar_configuration=3), "planar configuration 3"),
        (replace(STORED, samples_per_pixel=2), "band index 2 (from 0) of 2 sample(s) a pixel"),
        (replace(STORED, tile_offsets=range(36)), "36 offsets and 12 byte counts for 12 tile(s)"),
        (replace(STORED, tile_byte_counts=()), "12 offsets and 0 byte counts for 12 tile(s)"),
        (replace(STORED, tile_offsets=[2**63] * 12), "an offset or a byte count beyond 2^63"),
        (placed(4, 2101, 100), "tile number 4 has 100 bytes at offset 2101 of a file of 2200 bytes"),
        (placed(5, -1, 100), "tile number 5 has 100 bytes at offset -1 of a file of 2200 bytes"),
        (placed(6, 0, 100), "tile number 6 has 100 bytes at offset 0 of a file of 2200 bytes"),
        (placed(7, 100, 0), "tile number 7 has 0 bytes at offset 100 of a file of 2200 bytes"),
        (placed(7, 1650, 100), "tile number 6 has 100 bytes at offset 1600, and tile number 7 begins at 1650"),
        (placed(7, 1100, 100), "tile number 1 has 100 bytes at offset 1100, and tile number 7 begins at 1100"),
        (
            replace(placed(8, 2**63 - 5, 2**62), file_size=None),
            f"tile number 8 has {2**62} bytes at offset {2**63 - 5}",
        ),
    ],
)
def test_facts_that_do_not(stored: StoredBand, reason: str) -> None:
    assert why_inconsistent(stored, GRID, 2) == reason


def test_predictor_of_a_compression_that_takes_none_is_ignored() -> None:
    assert why_inconsistent(replace(STORED, dtype="int32", compression=32773), GRID, 0) is None


def test_uncompressed_tiles_are_whole() -> None:
    size = 4 * 32 * 32
    stored = replace(STORED, compression=1, file_size=None, tile_byte_counts=[size, 0, *[size + 1] * 10])
    stored = replace(stored, tile_offsets=[100, 0, *range(5000, 55_000, 5000)])
    assert why_inconsistent(stored, GRID, 0) is None
    short = replace(stored, tile_byte_counts=[size, 0, size - 1, *[size] * 9])
    assert why_inconsistent(short, GRID, 0) == "tile number 2 has 4095 bytes at offset 5000, where 4096 are stored"


@pytest.mark.parametrize("sides", [(0, 70, 32, 32), (100, 70, -1, 32)])
def test_sizes_that_cannot_be(sides: tuple[int, ...]) -> None:
    grid = Grid(GRID.crs, GRID.transform, *sides)
    assert why_inconsistent(STORED, grid, 0) == "an image of {} x {} pixels in tiles of {} x {}".format(*sides)


def test_tiles_that_are_too_large() -> None:
    grid = replace(GRID, tile_width=1 << 15, tile_height=1 << 13)
    stored = replace(STORED, tile_offsets=[1000], tile_byte_counts=[100])
    assert why_inconsistent(stored, grid, 0) == f"tiles of {1 << 30} bytes, where {1 << 29} are the most"
    assert why_inconsistent(replace(stored, dtype="uint8", predictor=2, bits_per_sample=8), grid, 0) is None
