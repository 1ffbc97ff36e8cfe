"""A front before a storage server: keeps a list of what it is asked for, refuses as it is told, and can be killed.

It runs as a process of its own (``python -m tests.support.front TARGET``), which can be killed. With ``--gcs`` it
speaks the XML API of Google's for reading objects, which the emulator of the JSON API behind it does not: with the
headers that the service itself sends.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import format_datetime
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import quote, unquote, urlsplit
from urllib.request import ProxyHandler, Request, build_opener

from tests.support.paths import ROOT
from tests.support.ports import free_port

RULES, LOG = "/-/rules", "/-/log"
HOPS = ("connection", "transfer-encoding")
DROPPED = (*HOPS, "content-length", "date", "server")


def rule(path: str = "", method: str = "", **changes: object) -> dict[str, object]:
    """What happens to requests whose path and method match.

    After some of them (``after``), so many (``times``, or all) get an answer with this ``status`` and error ``code``;
    or the front ends itself (``die``).
    """
    usual = {"status": 503, "times": None, "after": 0, "code": "", "die": False}
    assert set(changes) <= set(usual)
    return {"path": path, "method": method, **usual, **changes}


class Front:
    """The front's process; ``url`` stays the same when it is killed and started again."""

    def __init__(self, target: str, gcs: bool = False):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._words = [
            sys.executable,
            "-m",
            "tests.support.front",
            target,
            f"--port={self.port}",
            *(["--gcs"] if gcs else []),
        ]
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        self.process = subprocess.Popen(self._words, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def kill(self) -> None:
        """End it at once, whatever is under way."""
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()

    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def wait_for_its_end(self) -> None:
        """Until a rule has ended it."""
        assert self.process is not None
        self.process.wait(120)

    def __enter__(self) -> "Front":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @contextmanager
    def ruled(self, *rules: dict[str, object]) -> Iterator[None]:
        """With rules, of which the first that matches a request counts; without any after the block."""
        self._ask(RULES, list(rules))
        try:
            yield
        finally:
            if self.is_running():
                self._ask(RULES, [])

    def log(self) -> list[dict[str, object]]:
        """The requests since the last call: method, path, headers in lower case, status."""
        return self._ask(LOG)

    def _ask(self, path: str, body: object = None) -> list[dict[str, object]]:
        request = Request(self.url + path, None if body is None else json.dumps(body).encode())
        with build_opener(ProxyHandler({})).open(request, timeout=30) as answer:
            return json.load(answer)


@dataclass
class _State:
    target: str
    gcs: bool
    rules: list[dict] = field(default_factory=list)
    seen: list[dict] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    state: _State

    def log_message(self, *_: object) -> None:
        """Nothing: requests are kept."""

    def handle_one(self) -> None:
        body = self._body()
        if self.path in (RULES, LOG):
            self._control(body)
            return
        found = self._rule()
        if found is not None and found["die"]:
            os._exit(9)
        if found is not None:
            status, headers, data = self._refusal(found)
        elif self.state.gcs and not re.match(r"/(storage|upload|download|resumable|batch)(/|$)", self.path):
            status, headers, data = self._xml()
        else:
            status, headers, data = self._ask_target(self.command, self.path, body, dict(self.headers))
        with self.state.lock:
            sent = {name.lower(): value for name, value in self.headers.items()}
            self.state.seen.append({"method": self.command, "path": self.path, "headers": sent, "status": status})
        self._answer(status, headers, data)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = handle_one

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _control(self, body: bytes) -> None:
        with self.state.lock:
            answer: list = []
            if self.path == RULES:
                self.state.rules = json.loads(body)
            else:
                answer, self.state.seen = self.state.seen, []
        self._answer(200, {}, json.dumps(answer).encode())

    def _rule(self) -> dict | None:
        with self.state.lock:
            for each in self.state.rules:
                if re.search(each["path"], unquote(self.path)) and re.search(each["method"], self.command):
                    if each["after"]:
                        each["after"] -= 1
                        return None
                    if each["times"] == 0:
                        continue
                    if each["times"] is not None:
                        each["times"] -= 1
                    return each
        return None

    def _refusal(self, found: dict) -> tuple[int, dict[str, str], bytes]:
        status, code = (
            found["status"],
            found["code"] or {403: "AccessDenied", 503: "SlowDown"}.get(found["status"], "No"),
        )
        if self.path.startswith(("/storage/", "/upload/", "/download/")):
            error = {"code": status, "message": code, "errors": [{"reason": code, "message": code, "domain": "global"}]}
            return status, {"Content-Type": "application/json"}, json.dumps({"error": error}).encode()
        text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{code}</Message></Error>"
        return status, {"Content-Type": "application/xml"}, text.encode()

    def _ask_target(
        self, method: str, path: str, body: bytes, headers: dict[str, str]
    ) -> tuple[int, dict[str, str], bytes]:
        connection = HTTPConnection(urlsplit(self.state.target).netloc, timeout=60)
        kept = {name: value for name, value in headers.items() if name.lower() not in (*HOPS, "content-length")}
        if self.state.gcs:
            kept.pop("Accept-Encoding", None)
        try:
            connection.request(method, path, body, kept)
            answer = connection.getresponse()
            data = answer.read()
            found = {name: value for name, value in answer.getheaders() if name.lower() not in DROPPED}
            if method == "HEAD" and answer.headers.get("Content-Length"):
                found["Content-Length"] = answer.headers["Content-Length"]
            location = found.get("Location", "")
            if location.startswith(self.state.target):  # of a resumable upload, which has to come by here
                found["Location"] = f"http://{self.headers['Host']}" + location.removeprefix(self.state.target)
            return answer.status, found, data
        finally:
            connection.close()

    def _xml(self) -> tuple[int, dict[str, str], bytes]:
        """An object by the XML API, as Google's documents it: metadata in headers, byte ranges, If-Match."""
        bucket, _, name = unquote(urlsplit(self.path).path).lstrip("/").partition("/")
        place = f"/storage/v1/b/{bucket}/o/{quote(name, safe='')}"
        status, _, text = self._ask_target("GET", place, b"", {})
        if not name or status != 200:
            code = b"NoSuchKey" if name else b"NoSuchBucket"
            return 404, {"Content-Type": "application/xml"}, b"<Error><Code>" + code + b"</Code></Error>"
        facts = json.loads(text)
        _, _, data = self._ask_target("GET", f"{place}?alt=media", b"", {})
        changed = datetime.fromisoformat(facts.get("updated", "2024-01-01T00:00:00Z").replace("Z", "+00:00"))
        etag = '"' + str(facts.get("md5Hash") or facts["etag"]).strip('"') + '"'
        headers = {"ETag": etag, "Last-Modified": format_datetime(changed, usegmt=True), "Accept-Ranges": "bytes"}
        if self.headers.get("If-Match", etag) != etag:
            return 412, headers, b"<Error><Code>PreconditionFailed</Code></Error>"
        if self.command == "HEAD":
            return 200, headers | {"Content-Length": str(len(data))}, b""
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked is None:
            return 200, headers, data
        start, stop = int(asked[1]), min(int(asked[2] or len(data)) + 1, len(data))
        if start >= len(data):
            return 416, headers | {"Content-Range": f"bytes */{len(data)}"}, b""
        return 206, headers | {"Content-Range": f"bytes {start}-{stop - 1}/{len(data)}"}, data[start:stop]

    def _answer(self, status: int, headers: dict[str, str], data: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if "Content-Length" not in headers and status != 204:
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


def main() -> None:
    """Stand before a server until the process is ended; prints a line when it answers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--gcs", action="store_true")
    flags = parser.parse_args()
    state = _State(flags.target, flags.gcs)
    with _Server(("127.0.0.1", flags.port), type("Handler", (_Handler,), {"state": state})) as server:
        print("ready", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
