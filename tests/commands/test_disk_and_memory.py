"""A disk that is full and memory that runs out: errors that name the file and the way out."""

import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import rasterio
from affine import Affine
from apache_beam.io.localfilesystem import LocalFileSystem

import rasteret_beam
from pipelines import build_collection, read_chips, sample_points
from rasteret_beam import ReadPoints, build_from_cogs
from rasteret_beam.errors import OutOfMemoryError, OutputError
from rasteret_beam.readers.storage.local_files import in_memory, writing
from tests.support.commands import execute

ROWS = 2000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("disk")
    place = Affine(10, 0, 500000, 0, -10, 5000640)
    profile: dict[str, Any] = {
        "driver": "GTiff",
        "width": 64,
        "height": 64,
        "count": 1,
        "dtype": "uint8",
        "tiled": True,
        "blockxsize": 16,
        "blockysize": 16,
        "crs": "EPSG:32631",
        "transform": place,
    }
    with rasterio.open(folder / "s.tif", "w", **profile) as out:
        out.write(np.random.default_rng(1).integers(0, 255, (1, 64, 64)).astype("uint8"))
    build_from_cogs(folder / "s.tif").export(folder / "c")
    rng = np.random.default_rng(2)
    points = {"x": 500000 + 640 * rng.random(ROWS), "y": 5000640 - 640 * rng.random(ROWS), "noise": rng.random(ROWS)}
    pq.write_table(pa.table(points), folder / "p.parquet")
    box = "POLYGON ((500000 5000640, 500640 5000640, 500640 5000000, 500000 5000640))"
    (folder / "f.csv").write_text(f'wkt\n"{box}"\n')
    return folder


class FullDisk:
    """A file on a disk with no room for more than some bytes."""

    def __init__(self, file: Any, room: int, error: Callable[[], BaseException]):
        self.file, self.room, self.error = file, room, error

    def write(self, data: Any) -> int:
        self.room -= len(data)
        if self.room < 0:
            raise self.error()
        return int(self.file.write(data))

    def __enter__(self) -> "FullDisk":
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


def full() -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def fill_up(patch: pytest.MonkeyPatch, where: str, room: int = 100, error: Callable[[], BaseException] = full) -> None:
    """Let files whose path holds a text have so little room; a probe before the job still fits."""
    create = LocalFileSystem.create

    def limited(self: LocalFileSystem, path: str, *rest: Any, **named: Any) -> Any:
        file = create(self, path, *rest, **named)
        return FullDisk(file, room, error) if where in path and ".probe-" not in path else file

    patch.setattr(LocalFileSystem, "create", limited)


def sample(folder: Path, out: Path, *words: str) -> Any:
    common = [f"--points={folder}/p.parquet", "--geometry_crs=32631", f"--collection={folder}/c", "--bands=B1"]
    return execute(sample_points.main, *common, f"--output={out}/s", *words)


@pytest.mark.parametrize("where", ["_s.temporary-", "_left.temporary-", "_dead.temporary-"])
def test_samples_and_their_companions(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    fill_up(monkeypatch, where)
    outcome = sample(folder, tmp_path, f"--unsampled={tmp_path}/left", f"--dead_letter={tmp_path}/dead")
    assert outcome.code == 1
    line, *more = outcome.err.splitlines()
    assert line.startswith(f"error: output {tmp_path}/{where}")
    assert line.endswith(
        "cannot be written: [Errno 28] No space left on device; free space on its disk, or write to another"
    )
    assert not any(path.name.endswith(".parquet") for path in tmp_path.iterdir())
    if where == "_s.temporary-":
        assert more == [] and list(tmp_path.iterdir()) == []
        return
    # The companions have no row: their empty files are written when all samples are finished.
    assert [text.partition(" and kept; ")[0] for text in more] == [
        f"{ROWS:,} of {ROWS:,} points in 1 round(s) are finished"
    ]
    monkeypatch.undo()
    assert (
        sample(folder, tmp_path, f"--unsampled={tmp_path}/left", f"--dead_letter={tmp_path}/dead", "--resume").code == 0
    )
    assert not any("temporary" in path.name for path in tmp_path.iterdir())


def test_an_output_that_was_there_stays(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert sample(folder, tmp_path).code == 0
    before = pq.read_table(tmp_path)
    fill_up(monkeypatch, "_s.temporary-", error=lambda: OSError(errno.EDQUOT, "Disk quota exceeded"))
    outcome = sample(folder, tmp_path)
    assert outcome.code == 1
    assert "Disk quota exceeded; free some of the quota of this user" in outcome.err
    assert pq.read_table(tmp_path).equals(before)


@pytest.mark.parametrize("where", ["_c.temporary-", "_t.temporary-"])
def test_chips(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    fill_up(monkeypatch, where)
    words = [f"--polygons={folder}/f.csv", "--geometry_column=wkt", "--geometry_crs=32631", f"--collection={folder}/c"]
    outcome = execute(read_chips.main, *words, "--bands=B1", f"--output={tmp_path}/c", f"--geotiff={tmp_path}/t")
    assert outcome.code == 1
    assert outcome.err.startswith(f"error: output {tmp_path}/{where}")
    assert outcome.err.endswith("free space on its disk, or write to another\n")


def test_collections(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        fill_up(patch, "_c.temporary-")
        outcome = execute(build_collection.main, f"--cogs={folder}/s.tif", f"--output={tmp_path}/c")
    assert outcome.code == 1
    assert outcome.err.startswith(f"error: collection {tmp_path}/_c.temporary-")
    assert outcome.err.endswith("free space on its disk, or write to another\n")

    def fails(*_: object, **__: object) -> None:
        raise full()

    for name, call in (("write_table", "d.parquet"), ("write_to_dataset", "d")):
        with monkeypatch.context() as patch:
            patch.setattr(pq, name, fails)
            with pytest.raises(
                OutputError, match=r"written to .*/d.*: \[Errno 28\] No space left on device; free space on"
            ):
                rasteret_beam.load(folder / "c").export(tmp_path / call)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of a few pages."""
    place = tmp_path / "small"
    place.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=24k", "none", str(place)]
    if os.geteuid() != 0 or subprocess.run(words, capture_output=True, check=False).returncode:
        pytest.skip("no disk can be mounted here")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_a_real_disk_that_is_full(folder: Path, small_disk: Path) -> None:
    outcome = sample(folder, small_disk)
    assert outcome.code == 1, outcome.out
    (line,) = outcome.err.splitlines()
    assert line.startswith(f"error: output {small_disk}/_s.temporary-")
    assert "[Errno 28] No space left on device; free space on its disk, or write to another" in line
    assert list(small_disk.iterdir()) == []
    collection = rasteret_beam.load(folder / "c")
    (small_disk / "filler").write_bytes(b"0" * (16 << 10))
    with pytest.raises(OutputError, match=r"No space left on device.*; free space on its disk"):
        collection.export(small_disk / "c.parquet")
    assert [path.name for path in small_disk.iterdir()] == ["filler"]


def no_memory(*_: object, **__: object) -> None:
    raise MemoryError


def test_memory_that_runs_out(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        fill_up(patch, "_s.temporary-", error=MemoryError)
        outcome = sample(folder, tmp_path)
    assert outcome.err.startswith(f"error: memory ran out while output {tmp_path}/_s.temporary-")
    assert outcome.err.endswith("give the machine more memory, run fewer worker processes on it, or lower --cache_mb\n")
    with monkeypatch.context() as patch:
        patch.setattr("rasteret_beam.readers.tiles.indexed.decode_tile", no_memory)
        outcome = sample(folder, tmp_path)
    assert outcome.err.startswith(f"error: what is read of {folder}/s.tif does not fit into memory; give the machine")
    assert "cache_bytes" not in outcome.err
    with monkeypatch.context() as patch:
        patch.setattr(pq.ParquetFile, "iter_batches", no_memory)
        with pytest.raises(
            OutOfMemoryError, match=r"row group 0 of .*/p\.parquet does not fit into memory; write the file"
        ):
            list(ReadPoints(folder / "p.parquet", geometry_crs=32631).batches())
    with monkeypatch.context() as patch:
        patch.setattr(pq, "write_to_dataset", no_memory)
        with pytest.raises(OutOfMemoryError, match=r"memory ran out while the collection .*/d was written"):
            rasteret_beam.load(folder / "c").export(tmp_path / "d")


def test_other_errors_pass() -> None:
    with pytest.raises(ZeroDivisionError), writing("x"), in_memory("x"):
        raise ZeroDivisionError
    with pytest.raises(OutputError, match=r"^mine$"), writing("x"):
        raise OutputError("mine")
