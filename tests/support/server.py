"""A file server on 127.0.0.1 that answers byte ranges, counts what it is asked for, and fails as it is told to.

In a test, ``with RasterServer(folder) as server`` serves the files of a folder below ``server.url``, and
``server.plan`` decides what goes wrong with which request::

    server.plan = first(2, Fault(status=503))           # of each range; the third try is answered
    server.plan = always(Fault(reset_after=100))        # the connection is reset within every body
    server.plan = only(5, Fault(status=404))            # the sixth request alone
    server.plan = seeded(7, 0.2, [Fault(status=503), Fault(stop_after=10)])

It may have a process of its own, so as not to share the client's: :class:`ServerProcess`, or by hand
``python -m tests.support.server FOLDER --latency 0.03``, which prints its port.
``GET /-/counts`` gives requests and bytes since the last such call, as JSON.
"""

import argparse
import json
import random
import re
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from urllib.parse import unquote, urlsplit
from urllib.request import ProxyHandler, build_opener

from tests.support.paths import ROOT

COUNTS = "/-/counts"
BODY = b"<html>\n<body>this is no\nraster</body></html>"


@dataclass(frozen=True)
class Fault:
    """What goes wrong with the answer to one request; several at once may.

    Attributes
    ----------
    status : int, optional
        Answer with this status, and a body of HTML.
    reset_after, stop_after, stall_after : int, optional
        Bytes of the body after which the connection is reset, is closed in order, or nothing more is sent for
        :attr:`stall` seconds; the headers promise the whole body.
    cut : int
        Bytes that are missing at the end of the body, and in the headers.
    shift : int
        Bytes by which Content-Range is wrong; the body is that of the range that was asked for.
    whole : bool
        Answer with status 200 and the whole file, as a server that knows no ranges.
    hang : float
        Seconds before the answer begins.
    stall : float
    etag, size : optional
        What the headers say in place of the truth; with an ETag, the request's If-Match is ignored.
    """

    status: int | None = None
    reset_after: int | None = None
    stop_after: int | None = None
    stall_after: int | None = None
    cut: int = 0
    shift: int = 0
    whole: bool = False
    hang: float = 0.0
    stall: float = 30.0
    etag: str | None = None
    size: int | None = None


NO_FAULT = Fault()


@dataclass
class Request:
    """A request as it came in.

    Attributes
    ----------
    number : int
        Of all requests of the server, from 0.
    attempt : int
        How often the same method, path and range came before.
    target : str
        Path and query as sent, still percent-encoded.
    start, stop : int, optional
        The bytes asked for, half open.
    authorization : str, optional
        That header.
    sent : int
        Bytes of the body that were sent so far.
    """

    number: int
    attempt: int
    method: str
    target: str
    start: int | None
    stop: int | None
    authorization: str | None = None
    sent: int = 0

    @property
    def name(self) -> str:
        """The file's path below the folder."""
        return unquote(urlsplit(self.target).path).lstrip("/")


Plan = Callable[[Request], Fault | None]


def no_plan(request: Request) -> None:
    """Nothing goes wrong."""


def always(fault: Fault) -> Plan:
    """The fault at every request."""
    return lambda request: fault


def first(times: int, fault: Fault) -> Plan:
    """The fault at the first ``times`` requests of each range."""
    return lambda request: fault if request.attempt < times else None


def only(number: int, fault: Fault) -> Plan:
    """The fault at one request, counted from 0 since the log was cleared."""
    return lambda request: fault if request.number == number else None


def seeded(seed: int, share: float, faults: Sequence[Fault], most: int = 3) -> Plan:
    """One of the faults at a share of the requests, and at no more than ``most`` of one range.

    It depends on the request alone, and not on the order in which threads send them.
    """

    def plan(request: Request) -> Fault | None:
        rng = random.Random(f"{seed} {request.target} {request.start} {request.stop} {request.attempt}")
        return rng.choice(faults) if request.attempt < most and rng.random() < share else None

    return plan


class RasterServer:
    """Serves the files of a folder in threads of this process.

    Parameters
    ----------
    folder : Path
    latency : float
        Seconds before every answer.
    port : int
        0 takes a free one.

    Attributes
    ----------
    url : str
        Without a slash at its end.
    plan : callable
    log : list of Request
        In the order they came in.
    """

    def __init__(self, folder: Path, latency: float = 0.0, port: int = 0):
        self.folder = folder
        self.latency = latency
        self.plan: Plan = no_plan
        self.log: list[Request] = []
        self.closing = threading.Event()
        self._lock = threading.Lock()
        self._attempts: Counter[tuple[str, str, int | None, int | None]] = Counter()
        self._http = _Server(("127.0.0.1", port), _Handler)
        self._http.owner = self
        self.port = self._http.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    def __enter__(self) -> "RasterServer":
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.closing.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def reset(self, plan: Plan = no_plan) -> None:
        """Forget the requests so far, and follow another plan."""
        with self._lock:
            self.plan = plan
            self.log = []
            self._attempts.clear()

    def received(self, method: str, target: str, span: tuple[int | None, int | None], auth: str | None) -> Request:
        """Log a request."""
        with self._lock:
            key = (method, target, *span)
            request = Request(len(self.log), self._attempts[key], method, target, *span, authorization=auth)
            self._attempts[key] += 1
            self.log.append(request)
            return request

    def counts(self) -> dict[str, int]:
        """Requests and bytes of bodies since the log was cleared, which is cleared."""
        log = self.log
        self.reset(self.plan)
        methods = Counter(request.method for request in log)
        return {"requests": len(log), "bytes": sum(request.sent for request in log), **methods}


class ServerProcess:
    """The server as a process of its own, without faults; attributes as of :class:`RasterServer`."""

    def __init__(self, folder: Path, latency: float = 0.0):
        command = [sys.executable, "-m", "tests.support.server", str(folder), "--latency", str(latency)]
        self._process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> "ServerProcess":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.terminate()
        self._process.communicate()

    def counts(self) -> dict[str, int]:
        """As :meth:`RasterServer.counts`."""
        with build_opener(ProxyHandler({})).open(self.url + COUNTS) as answer:
            return json.load(answer)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128
    owner: RasterServer


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def log_message(self, format: str, *args: object) -> None:
        """Standard error is not for requests."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        owner = self.server.owner
        if self.path == COUNTS:
            self._answer(200, json.dumps(owner.counts()).encode(), {"Content-Type": "application/json"})
            return
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        span = (int(asked[1]), int(asked[2]) + 1 if asked[2] else None) if asked else (None, None)
        request = owner.received(self.command, self.path, span, self.headers.get("Authorization"))
        fault = owner.plan(request) or NO_FAULT
        if owner.closing.wait(owner.latency + fault.hang):
            self.close_connection = True
            return
        try:
            self._serve(request, fault)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True  # the client has gone, as it may

    def _serve(self, request: Request, fault: Fault) -> None:
        path = self.server.owner.folder / request.name
        if fault.status is not None or not path.is_file():
            self._answer(fault.status or 404, BODY, {"Content-Type": "text/html"})
            return
        facts = path.stat()
        etag = fault.etag or f'"{facts.st_mtime_ns:x}-{facts.st_size:x}"'
        if self.headers.get("If-Match", etag) != etag and fault.etag is None:
            self._answer(412, BODY, {"ETag": etag})
            return
        ranged = request.start is not None and not fault.whole
        start = (request.start or 0) if ranged else 0
        stop = min(request.stop or facts.st_size, facts.st_size) if ranged else facts.st_size
        if start >= stop:
            self._answer(416, b"", {"Content-Range": f"bytes */{facts.st_size}"})
            return
        stop -= fault.cut
        headers = {"ETag": etag, "Accept-Ranges": "none" if fault.whole else "bytes"}
        if ranged:
            size = fault.size or facts.st_size
            headers["Content-Range"] = f"bytes {start + fault.shift}-{stop + fault.shift - 1}/{size}"
        length = fault.size if fault.size and not ranged else stop - start
        body = b"" if self.command == "HEAD" else _read(path, start, stop)
        self._answer(206 if ranged else 200, body, headers, length, request, fault)

    def _answer(
        self,
        status: int,
        body: bytes,
        headers: dict[str, str],
        length: int | None = None,
        request: Request | None = None,
        fault: Fault = NO_FAULT,
    ) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        if self.command == "HEAD":
            return
        ends = [end for end in (fault.reset_after, fault.stop_after, fault.stall_after) if end is not None]
        body = body[: min(ends, default=len(body))]
        if request is not None:
            request.sent = len(body)
        self.wfile.write(body)
        if fault.reset_after is not None:
            # A lingering time of 0 makes close() send a reset. What was sent has to arrive before it.
            time.sleep(0.01)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
        if fault.stall_after is not None:
            self.server.owner.closing.wait(fault.stall)
        self.close_connection = self.close_connection or bool(ends)


def _read(path: Path, start: int, stop: int) -> bytes:
    with open(path, "rb") as file:
        file.seek(start)
        return file.read(stop - start)


def main() -> None:
    """Serve a folder until the process is ended; prints the port."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--latency", type=float, default=0.0, help="seconds before every answer (%(default)s)")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    flags = parser.parse_args()
    with RasterServer(flags.folder, flags.latency, flags.port) as server:
        print(server.port, flush=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            return


if __name__ == "__main__":
    main()
