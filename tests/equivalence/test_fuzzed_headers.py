"""Thousands of broken headers: rasterio's values or one clear error that names the file, in bounded memory."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from typing import Any

import pytest

from tests.support.paths import ROOT

FILES = 1000
SILENT_SECONDS = 120.0
"""Of one file, on a machine that does much else: it has hung."""

MOST_MEMORY = 2 << 30
"""Held at the most, rasterio's own reading of the same files included."""


class Worker:
    """A process that samples broken files; one that crashes or hangs is started again after the file it did so at."""

    def __init__(self, folder: Path, seed: int):
        self.folder = folder
        self.seed = seed
        self.outcomes: list[dict[str, Any]] = []
        self.ended: list[tuple[int, str, str]] = []

    def run(self, first: int = 0) -> None:
        while first < FILES:
            command = [sys.executable, "-m", "tests.support.fuzzed", *map(str, (self.folder, self.seed, first, FILES))]
            with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
                last = self._follow(process)
                if last is None:
                    assert process.wait() == 0
                    return
            self.ended.append((last["number"], last["step"], f"exit code {process.returncode}"))
            first = last["number"] + 1

    def _follow(self, process: subprocess.Popen[bytes]) -> dict[str, Any] | None:
        """The step that a process ended or hung in; None if it came to its end."""
        lines: Queue[bytes] = Queue()
        assert process.stdout is not None
        Thread(target=lambda: [*map(lines.put, process.stdout or ()), lines.put(b"")], daemon=True).start()
        last: dict[str, Any] | None = None
        while True:
            try:
                line = lines.get(timeout=SILENT_SECONDS)
            except Empty:
                process.kill()
                return last
            if not line:
                return last if process.wait() else None
            last = json.loads(line)
            if "outcome" in last:
                self.outcomes.append(last)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [2, 3])
def test_broken_headers(seed: int, tmp_path: Path) -> None:
    worker = Worker(tmp_path, seed)
    worker.run()
    # What rasterio itself does not survive is not ours.
    assert [end for end in worker.ended if end[1] != "rasterio"] == []
    kinds = Counter(found["outcome"].partition(":")[0] for found in worker.outcomes)
    wrong = [found for found in worker.outcomes if found["outcome"].partition(":")[0] not in GOOD]
    assert wrong == []
    assert kinds["same"] > FILES / 5 and kinds["refused"] > FILES / 5
    assert kinds["by GDAL"] < FILES / 100
    assert max(found["peak"] for found in worker.outcomes) < MOST_MEMORY


GOOD = ("same", "refused", "by GDAL")
