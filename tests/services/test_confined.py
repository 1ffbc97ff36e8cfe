"""Web servers that a stranger names: no answer of theirs leads to a host that is near."""

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from rasteret_beam import Access
from rasteret_beam.kernels.storage import hosts
from rasteret_beam.metrics import Counters
from rasteret_beam.readers.storage import byte_ranges, href_policy
from rasteret_beam.readers.storage.byte_ranges import FileState, RangeError, RangeReader, RetryPolicy
from rasteret_beam.readers.storage.file_state import STALE
from tests.support.server import Fault, RasterServer, always, first

DATA = bytes(range(256)) * 40
STRANGER = Access(origin="s3://stranger/collection")


class _Leading(ThreadingHTTPServer):
    """A server that leads each request on, and keeps their headers."""

    daemon_threads = True

    def __init__(self, to: str, status: int = 302, address: str = "127.0.0.1"):
        super().__init__((address, 0), _Handler)
        self.to, self.status = to, status
        self.seen: list[dict[str, str]] = []
        self.url = f"http://{address}:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Leading

    def do_GET(self) -> None:
        self.server.seen.append(dict(self.headers))
        self.send_response(self.server.status)
        self.send_header("Location", self.server.to)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RasterServer]:
    (tmp_path / "a b.bin").write_bytes(DATA)
    (tmp_path / "a.bin").write_bytes(DATA)
    with RasterServer(tmp_path) as found:
        yield found


@pytest.fixture(autouse=True)
def _as_on_the_internet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of this machine's addresses, 127.0.0.1 is as far away as any; the others are near."""
    near = hosts.nearness
    monkeypatch.setattr(href_policy, "nearness", lambda host: None if host == "127.0.0.1" else near(host))
    monkeypatch.setattr(byte_ranges, "RETRY_POLICY", RetryPolicy(tries=2, first_pause=0.01, timeout=5.0))
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def leading() -> Iterator[_Leading]:
    found = _Leading("")
    threading.Thread(target=found.serve_forever, daemon=True).start()
    yield found
    found.shutdown()
    found.server_close()


def read(url: str, start: int = 0, stop: int = 100, access: Access = STRANGER, **state: object) -> bytes:
    return bytes(RangeReader().read(FileState(url, access=access, **state), start, stop, Counters()))  # type: ignore[arg-type]


def test_bytes_and_states_are_those_that_others_read(server: RasterServer) -> None:
    for name in ("a.bin", "a%20b.bin", "a b.bin", "a.bin?sig=1"):
        url = f"{server.url}/{name}"
        assert read(url, 7, 5000) == DATA[7:5000]
        file = RangeReader().state(FileState(url, access=STRANGER))
        assert file.size == len(DATA)
        assert read(url, 7, 500, size=file.size, etag=file.etag) == DATA[7:500]
    assert {request.method for request in server.log} == {"GET"}


def test_one_connection_serves_many_requests(server: RasterServer, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    connect = socket.create_connection
    monkeypatch.setattr(socket, "create_connection", lambda *a, **k: made.append(a) or connect(*a, **k))
    for start in range(50):
        assert read(f"{server.url}/a.bin", start, start + 20) == DATA[start : start + 20]
    assert len(made) <= 1


@pytest.mark.parametrize("fault", [Fault(status=503), Fault(reset_after=10), Fault(stop_after=10), Fault(cut=3)])
def test_failures_are_tried_again(fault: Fault, server: RasterServer) -> None:
    server.plan = first(1, fault)
    assert read(f"{server.url}/a.bin", 3, 300) == DATA[3:300]
    server.plan = always(fault)
    with pytest.raises(RangeError, match="could not be read in 2 attempt"):
        read(f"{server.url}/a.bin")


def test_errors_that_stay(server: RasterServer) -> None:
    url = f"{server.url}/a.bin"
    for fault, why in (
        (Fault(status=404), "no such file"),
        (Fault(status=403), "does not allow"),
        (Fault(whole=True), "byte ranges"),
    ):
        server.plan = always(fault)
        with pytest.raises(RangeError, match=why):
            read(url)
    server.plan = lambda request: None
    with pytest.raises(RangeError, match="its ETag is"):
        read(url, etag='"other"')
    with pytest.raises(RangeError, match=STALE.split(",")[0]):
        read(url, size=3)
    with pytest.raises(RangeError, match="the file ends"):
        read(url, len(DATA) + 1, len(DATA) + 9)


def test_redirects_are_followed_where_they_may_lead(server: RasterServer, leading: _Leading) -> None:
    for status in (301, 302, 303, 307, 308):
        leading.to, leading.status = f"{server.url}/a.bin", status
        assert read(f"{leading.url}/x") == DATA[:100]
        assert leading.seen[-1]["Range"] == "bytes=0-99"


@pytest.mark.parametrize(
    "to",
    [
        "http://127.0.0.2:{}/a.bin",
        "http://localhost:{}/a.bin",
        "http://[::ffff:127.0.0.1]:{}/a.bin",
        "//127.1:{}/a.bin",
        "http://169.254.169.254/latest/meta-data",
        "http://metadata.google.internal/",
        "file:///etc/passwd",
        "ftp://example.org/x",
        "gopher://127.0.0.1:{}/",
    ],
)
def test_redirects_to_what_is_near_are_not_followed(to: str, server: RasterServer, leading: _Leading) -> None:
    leading.to = to.format(server.url.rpartition(":")[2])
    for ask in (read, lambda url: RangeReader().state(FileState(url, access=STRANGER))):
        with pytest.raises(RangeError, match=r"it leads to (a|the) |the server redirects to "):
            ask(f"{leading.url}/x")  # type: ignore[operator]
    assert len(leading.seen) == 2 and server.log == []


def test_redirects_end(leading: _Leading) -> None:
    leading.to = f"{leading.url}/again"
    with pytest.raises(RangeError, match="redirects more than 10 times"):
        read(f"{leading.url}/x")
    assert len(leading.seen) == 10


def test_a_password_stays_with_its_host(server: RasterServer, leading: _Leading) -> None:
    leading.to = f"{server.url}/a.bin"
    assert read(leading.url.replace("://", "://me:secret@") + "/x") == DATA[:100]
    assert leading.seen[-1]["Authorization"].startswith("Basic ") and server.log[-1].authorization is None


def test_a_name_that_stands_for_an_address_of_this_machine(
    server: RasterServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = socket.getaddrinfo
    seen = []

    def stranger(host: str, port: int, *rest: object, **others: object) -> object:
        seen.append(host)
        return found("127.0.0.2" if host == "rasters.example" else host, port, *rest, **others)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", stranger)
    with ThreadingHTTPServer(("127.0.0.2", 0), _Handler) as near:
        threading.Thread(target=near.serve_forever, daemon=True).start()
        with pytest.raises(
            RangeError, match=r"it leads to a loopback host \(127.0.0.2\), and is named by s3://stranger"
        ):
            read(f"http://rasters.example:{near.server_port}/a.bin")
        near.shutdown()
    assert "rasters.example" in seen


def test_by_a_proxy_redirects_are_looked_at_too(
    server: RasterServer, leading: _Leading, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", leading.url)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    leading.to = f"{server.url}/a.bin"
    assert read("http://rasters.example/a.bin") == DATA[:100]
    leading.to = "http://169.254.169.254/"
    with pytest.raises(RangeError, match="the metadata service of a machine"):
        read("http://rasters.example/a.bin")
    assert leading.seen[-1]["Host"] == "rasters.example"


def test_what_the_user_names_is_read_by_obstore(server: RasterServer, leading: _Leading) -> None:
    leading.to = f"{server.url}/a.bin".replace("127.0.0.1", "localhost")
    assert read(f"{leading.url}/x", access=Access()) == DATA[:100]
