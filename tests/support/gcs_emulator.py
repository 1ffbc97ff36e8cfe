"""A Cloud Storage of this machine's own, for tests: gcp-storage-emulator in an environment of its own."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from apache_beam.internal.gcp import auth

from tests.support.locks import alone
from tests.support.paths import ROOT
from tests.support.ports import free_port

VENV = ROOT / ".venv-gcs"
EMULATOR = "gcp-storage-emulator==2026.7.19"
SECONDS_TO_START = 30


@dataclass(frozen=True)
class Gcs:
    """A running emulator with one bucket, which keeps its objects as files."""

    folder: Path
    port: int
    bucket: str = "bucket"

    @property
    def uri(self) -> str:
        return f"gs://{self.bucket}"

    def file(self, uri: str) -> Path:
        """Where an object lies."""
        return self.folder / ".cloudstorage" / uri.removeprefix("gs://")

    def objects(self, prefix: str) -> list[str]:
        """URIs of all objects under a prefix that ends at a slash."""
        home = self.folder / ".cloudstorage"
        return sorted(f"gs://{path.relative_to(home)}" for path in self.file(prefix).rglob("*") if path.is_file())


@contextmanager
def gcs_emulator(folder: Path) -> Iterator[Gcs]:
    """Run the emulator on a free port of the loopback address, and have Beam and Google's client use it."""
    program = _install()
    gcs = Gcs(folder, free_port())
    words = [program, "-d", folder, "start", "-H", "127.0.0.1", "--port", gcs.port, "--default-bucket", gcs.bucket]
    with (folder / "emulator.log").open("wb") as log:
        process = subprocess.Popen([str(word) for word in words], stdout=log, stderr=log)
    try:
        _wait(process, gcs, folder / "emulator.log")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{gcs.port}")
            # Else each client looks for credentials on the network for half a minute.
            patch.setattr(auth._Credentials, "_credentials", None)
            patch.setattr(auth._Credentials, "_credentials_init", True)
            yield gcs
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()


def _install() -> Path:
    """The emulator's program; a half-made environment is made again."""
    complete, program = VENV / "complete", VENV / "bin" / "gcp-storage-emulator"
    with alone(VENV):
        if not (program.exists() and complete.exists() and complete.read_text() == EMULATOR):
            shutil.rmtree(VENV, ignore_errors=True)
            _run(sys.executable, "-m", "venv", VENV)
            _run(VENV / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", EMULATOR)
            complete.write_text(EMULATOR)
    return program


def _run(*command: object) -> None:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if done.returncode:
        pytest.fail(f"{command} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"[-4000:])


def _wait(process: subprocess.Popen[bytes], gcs: Gcs, log: Path) -> None:
    """Until the bucket is there."""
    end = time.monotonic() + SECONDS_TO_START
    while time.monotonic() < end and process.poll() is None:
        try:
            with urlopen(f"http://127.0.0.1:{gcs.port}/storage/v1/b/{gcs.bucket}", timeout=5):
                return
        except (HTTPError, OSError):
            time.sleep(0.1)
    pytest.fail(f"the emulator did not start, see {os.fspath(log)}:\n{log.read_text()[-2000:]}")
