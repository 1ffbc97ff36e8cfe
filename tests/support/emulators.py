"""BigQuery and Cloud Storage on loopback: emulators in virtual environments of their own, and a proxy that can refuse.

The environments are made at the first run and kept in ``.venv-emulators``.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.support.locks import alone
from tests.support.paths import ROOT
from tests.support.ports import free_port

FOLDER = ROOT / ".venv-emulators"
PACKAGES = {
    "bigquery": ["bqemulator==1.4.0", "numpy", "duckdb==1.5.5", "duckdb-extension-spatial==1.5.5"],
    "storage": ["gcp-storage-emulator==2026.7.19"],
}
PROJECT, BUCKET = "proj", "bucket"
READY_SECONDS = 60

# The emulator looks for DuckDB's spatial extension where DuckDB installs such, and cannot download it everywhere.
INSTALL_SPATIAL = """
import duckdb, duckdb_extension_spatial, pathlib
folder = pathlib.Path(duckdb_extension_spatial.__file__).parent
(extension,) = folder.glob("extensions/*/spatial.duckdb_extension")
duckdb.sql(f"INSTALL '{extension}'")
"""


def environment(name: str) -> Path:
    """The ``bin`` folder of an emulator's environment; a half-made one is made again."""
    venv, packages = FOLDER / name, PACKAGES[name]
    complete = venv / "complete"
    FOLDER.mkdir(exist_ok=True)
    with alone(venv):
        if not complete.exists() or complete.read_text() != "\n".join(packages):
            shutil.rmtree(venv, ignore_errors=True)
            _run(sys.executable, "-m", "venv", venv)
            _run(venv / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages)
            complete.write_text("\n".join(packages))
    return venv / "bin"


def _run(*command: object) -> None:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True)
    if done.returncode:
        pytest.fail(f"{command[0]} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"[-4000:])


@contextmanager
def serving(command: list[object], port: int, log: Path, **variables: object) -> Iterator[None]:
    """A server process from when its port answers until the end of the block."""
    environ = {**os.environ, **{name: str(value) for name, value in variables.items()}}
    with log.open("w") as out:
        process = subprocess.Popen([*map(str, command)], stdout=out, stderr=subprocess.STDOUT, env=environ)
    try:
        until = time.monotonic() + READY_SECONDS
        while not _answers(port):
            if process.poll() is not None or time.monotonic() > until:
                pytest.fail(f"{command[0]} does not answer on port {port}:\n{log.read_text()[-3000:]}")
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


@dataclass(frozen=True)
class Cloud:
    """Addresses of the running emulators; ``reading`` is that of BigQuery's Storage Read API."""

    bigquery: str
    storage: str
    proxy: "Proxy"
    reading: str


@contextmanager
def cloud(folder: Path) -> Iterator[Cloud]:
    """Both emulators, with an empty bucket, and a proxy in front of BigQuery's."""
    bigquery, storage = environment("bigquery"), environment("storage")
    with alone(FOLDER / "spatial"):
        _run(bigquery / "python", "-c", INSTALL_SPATIAL)
    files, rest, grpc = free_port(), free_port(), free_port()
    host = "127.0.0.1"
    storing = [storage / "gcp-storage-emulator", "-d", folder, "start", "--port", files, "-H", host]
    querying = [bigquery / "bqemulator", "start", "--rest-port", rest, "--grpc-port", grpc, "--project", PROJECT]
    where = {"BQEMU_GCS_LOCAL_ROOT": folder / ".cloudstorage", "BQEMU_ENABLE_FORMAT_EXTENSIONS": "false"}
    with (
        serving([*storing, "--default-bucket", BUCKET], files, folder / "storage.log"),
        serving(querying, rest, folder / "bigquery.log", **where),
        Proxy.serving(f"http://{host}:{rest}") as proxy,
    ):
        yield Cloud(f"http://{host}:{rest}", f"http://{host}:{files}", proxy, f"{host}:{grpc}")


@dataclass(frozen=True)
class Request:
    """A request that came to the proxy."""

    method: str
    path: str
    body: bytes


Answer = tuple[int, str, str]
"""HTTP status, BigQuery's reason, message."""


def credentials_file(folder: Path) -> Path:
    """Credentials of nobody, with a token that is never renewed: nothing has to be asked for it."""
    nobody = {"type": "authorized_user", "client_id": "id", "client_secret": "secret", "refresh_token": "none"}
    path = folder / "credentials.json"
    path.write_text(json.dumps({**nobody, "token": "token", "expiry": "2999-01-01T00:00:00Z"}))
    return path


@dataclass
class Proxy:
    """Hands requests on to a server, but for those that ``refuse`` has an answer to; keeps a list of all."""

    target: str
    refuse: Callable[[Request], Answer | None] = lambda request: None
    seen: list[Request] = field(default_factory=list)
    address: str = ""

    @classmethod
    @contextmanager
    def serving(cls, target: str) -> Iterator["Proxy"]:
        proxy = cls(target)
        server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"proxy": proxy}))
        proxy.address = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield proxy
        finally:
            server.shutdown()
            server.server_close()
            thread.join()

    def loads(self) -> list[Request]:
        """The load jobs that were asked for."""
        return [one for one in self.seen if one.method == "POST" and b'"load"' in one.body]


class _Handler(BaseHTTPRequestHandler):
    proxy: Proxy

    def handle_one(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        request = Request(self.command, self.path, body)
        self.proxy.seen.append(request)
        refused = self.proxy.refuse(request)
        status, answer = self._refusal(*refused) if refused else self._handed_on(request)
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_one

    @staticmethod
    def _refusal(status: int, reason: str, message: str) -> tuple[int, bytes]:
        errors = [{"reason": reason, "message": message, "domain": "global"}]
        return status, json.dumps({"error": {"code": status, "message": message, "errors": errors}}).encode()

    def _handed_on(self, request: Request) -> tuple[int, bytes]:
        connection = HTTPConnection(urlsplit(self.proxy.target).netloc, timeout=60)
        kept = {name: value for name, value in self.headers.items() if name.lower() in ("content-type", "x-upload-id")}
        connection.request(request.method, request.path, request.body, kept)
        answer = connection.getresponse()
        try:
            return answer.status, answer.read()
        finally:
            connection.close()

    def log_message(self, *_: object) -> None:
        """Nothing: requests are kept."""


DENIED = (403, "accessDenied", "Access Denied: User does not have permission.")


def refusing(method: str, part: str, answer: Answer, mark: bytes = b"") -> Any:
    """A proxy's rule: requests of this method to such a path, with such a body, get this answer."""

    def refuse(request: Request) -> Answer | None:
        return answer if request.method == method and part in request.path and mark in request.body else None

    return refuse
