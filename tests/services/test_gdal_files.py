"""Remote files that GDAL reads: every request may fail, and none fails unnoticed."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import rasterio
from rasterio.io import DatasetReader
from rasterio.transform import from_origin

from rasteret_beam import Access, build_from_cogs, metrics
from rasteret_beam.errors import BuildError, TileReadError
from rasteret_beam.metrics import Counters
from rasteret_beam.readers.gdal.rasters import Raster, RasterPool
from rasteret_beam.readers.jobs.cancellation import Cancelled, CancelToken
from rasteret_beam.readers.storage import byte_ranges
from rasteret_beam.readers.storage.byte_ranges import FileState, RangeError, RangeReader, RetryPolicy
from rasteret_beam.readers.tiles.gdal import RasterioEngine
from tests.support import tiles
from tests.support.rasters import RasterCase
from tests.support.server import Fault, RasterServer, Request, ServerProcess, always

TRIES = 3
SIZE = 512
FILES = ("header_last.tif", "photo.tif", "wavelets.jp2")
ONCE = {
    "503": Fault(status=503),
    "reset before the body": Fault(reset_after=0),
    "reset within the body": Fault(reset_after=100),
    "closed within the body": Fault(stop_after=10),
    "short": Fault(cut=7),
}
WINDOW = ((300, 364), (300, 364))


def noise(dtype: str = "uint8", seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 200, (SIZE, SIZE)).astype(dtype)


def write(path: Path, pixels: np.ndarray, driver: str = "GTiff", **options: Any) -> None:
    grid = {"width": SIZE, "height": SIZE, "crs": "EPSG:32631", "transform": from_origin(500_000, 4_500_000, 10, 10)}
    with rasterio.open(path, "w", driver=driver, count=1, dtype=pixels.dtype, **grid, **options) as dataset:
        dataset.write(pixels, 1)
        if path.name == "header_last.tif":  # it outgrows its place before the pixels, and is written behind them
            dataset.scales, dataset.offsets = (0.5,), (3.0,)
            dataset.update_tags(long="y" * 5000)
        if "mask" in path.name:
            dataset.write_mask(pixels != 9)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RasterServer]:
    folder = tmp_path_factory.mktemp("gdal")
    small = {"tiled": True, "blockxsize": 64, "blockysize": 64}
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        write(folder / "header_last.tif", noise(), compress="DEFLATE", nodata=7, **small)
    write(folder / "photo.tif", noise(), compress="JPEG", **small)
    write(
        folder / "wavelets.jp2", noise(), "JP2OpenJPEG", QUALITY="100", REVERSIBLE="YES", blockxsize=64, blockysize=64
    )
    for interleave in ("pixel", "band"):
        case = RasterCase(
            name=interleave, dtype="uint8", count=3, options={"COMPRESS": "JPEG", "INTERLEAVE": interleave.upper()}
        )
        case.write(folder)
    write(folder / "strips.tif", noise("uint16"), compress="DEFLATE")
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False):
        write(folder / "with_mask.tif", noise(), compress="DEFLATE", **small)
    aux = '<PAMDataset><PAMRasterBand band="1"><NoDataValue>5</NoDataValue></PAMRasterBand></PAMDataset>'
    (folder / "with_mask.tif.aux.xml").write_text(aux)
    with RasterServer(folder) as server:
        yield server


@pytest.fixture(autouse=True)
def quick(served: RasterServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(byte_ranges, "RETRY_POLICY", RetryPolicy(TRIES, 0.001, 5.0))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    served.reset()


@pytest.fixture(autouse=True)
def nothing_ignored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No error is lost in a function that GDAL calls."""
    lost: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lost.append)
    yield
    assert lost == []


def through(pool: RasterPool, file: FileState, work: Callable[[DatasetReader], Any], counters: Counters) -> Any:
    with pool.borrow(file, counters) as raster:
        return raster.read(work, counters)


def whole(dataset: DatasetReader) -> np.ndarray:
    return dataset.read(1)


def facts(dataset: DatasetReader) -> list[object]:
    """What a collection and a read take of a file."""
    masks = [[flag.name for flag in flags] for flags in dataset.mask_flag_enums]
    told = [dataset.crs, dataset.transform, dataset.nodatavals, dataset.scales, dataset.offsets, dataset.dtypes, masks]
    return [*told, dataset.read(1, window=WINDOW).tolist(), dataset.read_masks(1, window=WINDOW).tolist()]


def local_facts(served: RasterServer, name: str) -> list[object]:
    with rasterio.open(served.folder / name) as dataset:
        return facts(dataset)


def remote_facts(served: RasterServer, name: str) -> list[object]:
    counters = Counters()
    raster = Raster(FileState(f"{served.url}/{name}"), counters)
    try:
        return raster.read(facts, counters)
    finally:
        raster.close()


def requests_for(served: RasterServer, name: str) -> int:
    served.reset()
    assert remote_facts(served, name) == local_facts(served, name)
    return len(served.log)


def fits(request: Request, fault: str) -> bool:
    """The other faults are of bodies."""
    return fault == "503" or request.method == "GET"


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        *((name, fault) for name in FILES[:2] for fault in ONCE),
        pytest.param("wavelets.jp2", "reset within the body", marks=pytest.mark.slow),
    ],
)
def test_each_request_may_fail_once(served: RasterServer, name: str, fault: str) -> None:
    expected = local_facts(served, name)
    for number in range(requests_for(served, name)):
        served.reset(lambda request, at=number: ONCE[fault] if request.number == at and fits(request, fault) else None)
        assert remote_facts(served, name) == expected


@pytest.mark.parametrize(("name", "status"), [("header_last.tif", 503), ("photo.tif", 429), ("wavelets.jp2", 503)])
def test_no_failure_is_overlooked(served: RasterServer, name: str, status: int) -> None:
    """Of nothing: header, pixels, or a file that may lie beside."""
    for number in range(requests_for(served, name)):
        served.reset(lambda request, last=number: Fault(status=status) if request.number >= last else None)
        with pytest.raises(RangeError, match=rf"in {TRIES} attempt\(s\); last error: the server answered {status}"):
            remote_facts(served, name)
        assert len(served.log) == number + TRIES  # nothing more is asked for once it has failed


def test_what_lies_beside_is_found(served: RasterServer) -> None:
    assert remote_facts(served, "with_mask.tif") == local_facts(served, "with_mask.tif")
    assert remote_facts(served, "with_mask.tif")[2] == (5.0,)
    assert {"with_mask.tif.msk", "with_mask.tif.aux.xml"} <= {request.name for request in served.log}


def test_for_pixels_alone_nothing_else_is_asked_for(served: RasterServer) -> None:
    for name in ("with_mask.tif", "photo.tif", "strips.tif"):
        wants = tiles.wants_of(served.folder / name)
        remote = build_from_cogs([f"{served.url}/{name}"])
        served.reset()
        (file,) = {asset.href for asset in remote.index(["B1"]).assets(wants[0].asset.record_id, ["B1"])}
        pool, counters = RasterPool(skip_sidecars=True), Counters()
        state = RangeReader().state(FileState(file))
        found = through(pool, state, whole, counters)
        with rasterio.open(served.folder / name) as dataset:
            np.testing.assert_array_equal(found, dataset.read(1))
        assert {request.name for request in served.log} == {name}
        assert sum(request.method == "HEAD" for request in served.log) == 1
        pool.close()


def test_strips_come_by_few_requests(served: RasterServer) -> None:
    """128 strips of 4 rows; GDAL asks for those of a window at once."""
    pool, counters = RasterPool(skip_sidecars=True), Counters()
    with rasterio.open(served.folder / "strips.tif") as dataset:
        strips = SIZE // dataset.block_shapes[0][0]
    found = through(pool, FileState(f"{served.url}/strips.tif"), whole, counters)
    np.testing.assert_array_equal(found, noise("uint16"))
    assert strips >= 64 and counters.snapshot()[metrics.RANGE_REQUESTS] <= 4
    pool.close()


def test_a_file_that_was_changed(served: RasterServer) -> None:
    collection = build_from_cogs([f"{served.url}/photo.tif"])
    served.reset(always(Fault(etag='"other"')))
    x, y = 500_000 + 15.0, 4_500_000 - 15.0
    with pytest.raises(TileReadError, match=r"so its index is stale; build it again \(its ETag is \"other\""):
        collection.sample_points(pa.table({"x": [x], "y": [y]}), ["B1"], x_column="x", y_column="y", geometry_crs=32631)


def test_threads_share_few_open_files(served: RasterServer) -> None:
    """What one thread has opened another reads and closes."""
    pool, counters = RasterPool(max_open=2), Counters()
    names = [*FILES, "strips.tif"] * 24
    expected = {name: local_facts(served, name) for name in set(names)}
    with ThreadPoolExecutor(8) as threads:
        found = threads.map(lambda name: through(pool, FileState(f"{served.url}/{name}"), facts, counters), names)
        assert all(each == expected[name] for name, each in zip(names, found, strict=True))
    assert 0 < len(pool) <= 2
    counts = counters.snapshot()
    assert counts[metrics.DATASETS_OPENED] + counts.get(metrics.DATASET_CACHE_HITS, 0) == len(names)
    pool.close()


def test_a_variable_for_gdal_threads_changes_nothing(served: RasterServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GDAL_NUM_THREADS", "ALL_CPUS")
    with ThreadPoolExecutor(1) as thread, rasterio.open(served.folder / "wavelets.jp2") as local:
        pool = RasterPool()
        found = thread.submit(through, pool, FileState(f"{served.url}/wavelets.jp2"), whole, Counters()).result()
        np.testing.assert_array_equal(found, local.read(1))
        thread.submit(pool.close).result()


def test_sources_of_a_virtual_raster(served: RasterServer) -> None:
    source = '<SourceFilename relativeToVRT="1">photo.tif</SourceFilename>'
    (served.folder / "virtual.vrt").write_text(
        f'<VRTDataset rasterXSize="{SIZE}" rasterYSize="{SIZE}"><SRS>EPSG:32631</SRS>'
        '<GeoTransform>500000, 10, 0, 4500000, 0, -10</GeoTransform><VRTRasterBand dataType="Byte" band="1">'
        f"<SimpleSource>{source}<SourceBand>1</SourceBand></SimpleSource></VRTRasterBand></VRTDataset>"
    )
    raster = Raster(FileState(f"{served.url}/virtual.vrt", access=Access(vrt=True)), Counters())
    with rasterio.open(served.folder / "photo.tif") as local:
        np.testing.assert_array_equal(raster.read(whole, Counters()), local.read(1))
    raster.close()


@pytest.mark.parametrize("size", [64, 256])
def test_a_file_that_ends_before_its_pixels(served: RasterServer, size: int) -> None:
    """Nothing stands for the bytes that are missing, asked for in blocks or by a range of their own."""
    path = served.folder / f"short_{size}.tif"
    write(path, noise("uint16"), tiled=True, blockxsize=size, blockysize=size)
    path.write_bytes(path.read_bytes()[:-100])
    last = tiles.wants_of(f"{served.url}/{path.name}")[-1]
    (found,) = tiles.read(RasterioEngine(), [last]).values()
    assert isinstance(found, TileReadError)
    end = path.stat().st_size
    assert str(found).endswith(f": the file ends at byte {end}, but has a tile up to byte {end + 100}")
    raster = Raster(FileState(f"{served.url}/{path.name}"), Counters())
    with pytest.raises(RangeError, match=f"the file ends at byte {end}"):
        raster.read(whole, Counters())
    raster.close()


def test_no_name_of_ours_in_an_error(served: RasterServer) -> None:
    (served.folder / "words.tif").write_text("no raster at all")
    with pytest.raises(BuildError, match=r"words.tif: 'http://127.0.0.1:\d+/words.tif' not recognized as"):
        build_from_cogs([f"{served.url}/words.tif"])


def test_gdal_does_not_remember_a_failure(tmp_path: Path) -> None:
    """Of paths that are for GDAL alone, which holds Python's lock while it waits for the server."""
    with ServerProcess(tmp_path) as server, ThreadPoolExecutor(1) as thread:
        path = f"/vsicurl/{server.url}/late.tif"
        with pytest.raises(BuildError, match="404"):
            thread.submit(build_from_cogs, [path]).result()
        write(tmp_path / "late.tif", noise())
        assert thread.submit(build_from_cogs, [path]).result().bands == ["B1"]


def test_rasters_are_closed_one_at_a_time(served: RasterServer) -> None:
    """GDAL's lock of open datasets, and Python's: each thread would hold the one that the other waits for."""
    source = '<SourceFilename relativeToVRT="1">photo.tif</SourceFilename>'
    (served.folder / "closing.vrt").write_text(
        f'<VRTDataset rasterXSize="{SIZE}" rasterYSize="{SIZE}"><VRTRasterBand dataType="Byte" band="1">'
        f"<SimpleSource>{source}<SourceBand>1</SourceBand></SimpleSource></VRTRasterBand></VRTDataset>"
    )
    words = f"""
import threading
import time
from rasteret_beam.metrics import Counters
from rasteret_beam.readers.gdal.rasters import Raster
from rasteret_beam.readers.gdal.vsi_opener import GdalFile
from rasteret_beam.model import Access
from rasteret_beam.readers.storage.byte_ranges import FileState

opened, closing = threading.Event(), threading.Event()

def close(self, *_):
    if opened.is_set():
        closing.set()
        time.sleep(0.3)  # another thread may go on

GdalFile.__exit__ = close
local = Raster(FileState({str(served.folder / "strips.tif")!r}), Counters())
remote = Raster(FileState({f"{served.url}/closing.vrt"!r}, access=Access(vrt=True)), Counters())
print(remote.read(lambda dataset: dataset.read(1).sum(), Counters()))
opened.set()
thread = threading.Thread(target=remote.close)
thread.start()
closing.wait()
local.close()
thread.join()
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", words], capture_output=True, text=True, timeout=300)
    with rasterio.open(served.folder / "photo.tif") as local:
        assert (done.returncode, done.stdout, done.stderr) == (0, f"{local.read(1).sum()}\n", "")


def test_all_files_lie_in_one_file_system_of_gdal(served: RasterServer) -> None:
    """GDAL looks through its list of them without a lock: none may come or go while threads read."""
    first, second = (Raster(FileState(f"{served.url}/{name}"), Counters()) for name in ("photo.tif", "wavelets.jp2"))
    names = [raster.read(lambda dataset: dataset.name, Counters()) for raster in (first, second)]
    roots = {name.split("/")[1] for name in names}
    assert len(roots) == 1 and len(set(names)) == 2
    first.close()
    second.close()
    again = Raster(FileState(f"{served.url}/photo.tif"), Counters())
    assert again.read(lambda dataset: dataset.name.split("/")[1], Counters()) in roots
    again.close()


@pytest.mark.slow
def test_threads_open_and_close_remote_files(served: RasterServer) -> None:
    """Some thousand of each of them, in a process that may end in a segmentation fault."""
    words = f"""
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from rasteret_beam.metrics import Counters
from rasteret_beam.readers.gdal.rasters import Raster
from rasteret_beam.readers.storage.byte_ranges import FileState, RangeReader

data = Path({str(served.folder / "photo.tif")!r}).read_bytes()
RangeReader.read = lambda self, file, start, stop, counters, job: data[start:stop]

def read(number):
    raster = Raster(FileState("http://127.0.0.1/photo.tif", len(data)), Counters(), skip_sidecars=True)
    found = raster.read(lambda dataset: dataset.read(1, window=((0, 64), (0, 64))).sum(), Counters())
    raster.close()
    return found

with ThreadPoolExecutor(8) as threads:
    print(set(threads.map(read, range(12_000))))
"""
    done = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, timeout=300)
    with rasterio.open(served.folder / "photo.tif") as local:
        expected = {local.read(1)[:64, :64].sum()}
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{expected}\n", "")


@pytest.mark.parametrize("error", [KeyboardInterrupt, Cancelled, MemoryError])
def test_an_error_on_the_way_is_raised(
    served: RasterServer, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    """GDAL calls us to read; what ends that ends the whole."""
    raster = Raster(FileState(f"{served.url}/photo.tif"), Counters())

    def fail(*_: object) -> bytes:
        raise error("now")

    monkeypatch.setattr(RangeReader, "read", fail)
    with pytest.raises(error, match="now"):
        raster.read(whole, Counters())
    with pytest.raises(error, match="now"):
        Raster(FileState(f"{served.url}/photo.tif"), Counters())
    raster.close()


def test_a_job_that_has_ended_does_not_wait(served: RasterServer) -> None:
    job = CancelToken()
    served.reset(always(Fault(status=503)))
    job.cancel()
    with pytest.raises(Cancelled):
        Raster(FileState(f"{served.url}/photo.tif"), Counters(), job)
    assert len(served.log) == 1


@pytest.mark.parametrize("name", ["pixel.tif", "band.tif"])
def test_neighbouring_tiles_come_by_one_request(served: RasterServer, name: str) -> None:
    wants = tiles.wants_of(f"{served.url}/{name}")
    engine, counters = RasterioEngine(), Counters()
    served.reset()
    found = tiles.read(engine, wants, counters)
    assert found.keys() == {tiles.place_of(want) for want in wants}
    with rasterio.open(served.folder / name) as dataset:
        pixels = dataset.read()
    for (band, row, col), tile in found.items():
        expected = pixels[int(band[1:]) - 1, 64 * row : 64 * row + 64, 64 * col : 64 * col + 64]
        np.testing.assert_array_equal(tile, expected)
    assert len(engine.plan(wants)) == 1 and len(served.log) == 2  # the header, and everything else
    counts = counters.snapshot()
    assert (counts[metrics.RANGE_REQUESTS], counts[metrics.DATASETS_OPENED]) == (2, 1)
    assert counts[metrics.TILES_DECODED] == len(wants) == 36
    engine.close()


@pytest.mark.parametrize("name", ["pixel.tif", "band.tif"])
def test_a_corrupt_tile_fails_alone(served: RasterServer, tmp_path: Path, name: str) -> None:
    wants = tiles.wants_of(served.folder / name)
    bad = next(want for want in wants if tiles.place_of(want) == ("B2", 1, 1))
    data = bytearray((served.folder / name).read_bytes())
    start, stop = bad.span
    data[start:stop] = bytes(stop - start)
    (tmp_path / name).write_bytes(data)
    failing = {tiles.place_of(want) for want in wants if want.span == bad.span}
    with RasterServer(tmp_path) as server:
        remote = tiles.wants_of(f"{server.url}/{name}")
        found = tiles.read(RasterioEngine(), remote)
    with rasterio.open(served.folder / name) as dataset:
        pixels = dataset.read()
    for place, tile in found.items():
        band, row, col = place
        if place in failing:
            assert isinstance(tile, TileReadError)
            assert f"band {band}: {server.url}/{name}, tile ({row}, {col}): " in str(tile)
        else:
            expected = pixels[int(band[1:]) - 1, 64 * row : 64 * row + 64, 64 * col : 64 * col + 64]
            np.testing.assert_array_equal(tile, expected)
    assert len(failing) == (3 if name == "pixel.tif" else 1) and len(found) == 36


@pytest.mark.parametrize("name", ["pixel.tif", "band.tif", "strips.tif"])
def test_a_server_that_stays_away_is_asked_for_once(served: RasterServer, name: str) -> None:
    """Not again for each of the bands, or of the tiles, that one request was to bring."""
    engine = RasterioEngine()
    (together, *_) = engine.plan(tiles.wants_of(f"{served.url}/{name}"))
    served.reset(always(Fault(status=503)))
    found = list(engine.read(together, Counters()))
    assert len(served.log) == TRIES and len(found) == len(together)
    for want, error in found:
        assert isinstance(error, TileReadError) and error.attempts == TRIES and error.kind == "RangeError"
        assert str(error).startswith(
            f"record {want.asset.record_id!r}, band {want.asset.band}: {want.asset.href}, tile"
        )


def test_what_is_open_when_a_program_ends(served: RasterServer) -> None:
    """GDAL closes files when the interpreter is gone, and with it what reads them: it would say so."""
    words = f"""
import threading
from rasteret_beam.metrics import Counters
from rasteret_beam.readers.gdal.rasters import RasterPool
from rasteret_beam.readers.storage.byte_ranges import FileState

pool = RasterPool()

def read():
    with pool.borrow(FileState({f"{served.url}/photo.tif"!r}), Counters()) as raster:
        print(raster.read(lambda dataset: dataset.width, Counters()))

thread = threading.Thread(target=read)
thread.start()
thread.join()
keep = read, pool.__class__, [pool]
keep[2].append(keep)
"""
    done = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{SIZE}\n", "")


@pytest.mark.parametrize("key", ["a//b.tif", "a/../b.tif", "b.tif?versionId=1"])
def test_names_that_only_gdal_can_ask_for(key: str) -> None:
    with pytest.raises(
        BuildError, match=r"an object name .* is read by GDAL, which ignores .*; rename the object, or set"
    ):
        build_from_cogs([f"s3://bucket/{key}"], access=Access(anonymous=True))
