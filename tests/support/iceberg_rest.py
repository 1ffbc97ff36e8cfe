"""A server of Iceberg's REST catalog protocol on loopback, as far as tests need it, over a SQL catalog.

Source: Apache Iceberg, REST catalog specification (open-api/rest-catalog-open-api.yaml).
"""

import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from pyiceberg.catalog.rest import CreateTableRequest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import (
    CommitFailedException,
    NoSuchNamespaceError,
    NoSuchTableError,
    TableAlreadyExistsError,
)
from pyiceberg.partitioning import UNPARTITIONED_PARTITION_SPEC
from pyiceberg.table import CommitTableRequest

CODES = {
    NoSuchNamespaceError: 404,
    NoSuchTableError: 404,
    TableAlreadyExistsError: 409,
    CommitFailedException: 409,
}
LOST = "lost"
"""A commit that is done, with an answer that tells of a failure of the server."""


class RestCatalog:
    """The server.

    Attributes
    ----------
    uri : str
    catalog : SqlCatalog
        What is behind it.
    asked : Counter
        Requests by method and last part of the path, such as ``POST t``.
    next_commits : list
        What becomes of the next commits: a status, :data:`LOST`, or None.
    """

    def __init__(self, folder: Path, token: str):
        uri, warehouse = f"sqlite:///{folder}/behind.db", f"file://{folder}/warehouse"
        self.catalog = SqlCatalog("behind", uri=uri, warehouse=warehouse)
        self.token = token
        self.asked: Counter[str] = Counter()
        self.next_commits: list[Any] = []
        self.lock = threading.Lock()
        owner = self

        class Handler(_Handler):
            rest = owner

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.uri = f"http://127.0.0.1:{self.server.server_port}"

    def answer(self, method: str, parts: list[str], body: bytes) -> Any:
        """The JSON of an answer; None where there is none."""
        if parts == ["config"]:
            return {"defaults": {}, "overrides": {}}
        assert parts[0] == "namespaces", parts
        names = [tuple(unquote(part).split("\x1f")) for part in parts[1:]]
        if not names:
            return {"namespaces": [list(each) for each in self.catalog.list_namespaces()]}
        if len(names) == 1:
            return {"namespace": list(names[0]), "properties": self.catalog.load_namespace_properties(names[0])}
        if len(names) == 2:
            return self._create(names[0], CreateTableRequest.model_validate({"location": None, **json.loads(body)}))
        identifier = (*names[0], names[2][0])
        if method == "POST":
            return self._commit(identifier, CommitTableRequest.model_validate_json(body))
        return _described(self.catalog.load_table(identifier))

    def _create(self, namespace: tuple[str, ...], asked: CreateTableRequest) -> Any:
        identifier = (*namespace, asked.name)
        settings = {
            "schema": asked.table_schema,
            "partition_spec": asked.partition_spec or UNPARTITIONED_PARTITION_SPEC,
            "location": asked.location,
            "properties": asked.properties,
        }
        if asked.stage_create:
            metadata = self.catalog.create_table_transaction(identifier, **settings).table_metadata
            return {"metadata": json.loads(metadata.model_dump_json()), "config": {}}
        return _described(self.catalog.create_table(identifier, **settings))

    def _commit(self, identifier: tuple[str, ...], asked: CommitTableRequest) -> Any:
        fate = self.next_commits.pop(0) if self.next_commits else None
        if isinstance(fate, int):
            raise _Refused(fate)
        table = self.catalog.load_table(identifier)
        done = self.catalog.commit_table(table, asked.requirements, asked.updates)
        if fate == LOST:
            raise _Refused(504)
        return json.loads(done.model_dump_json())


class _Refused(Exception):
    pass


def _described(table: Any) -> Any:
    metadata = json.loads(table.metadata.model_dump_json())
    return {"metadata-location": table.metadata_location, "metadata": metadata, "config": {}}


class _Handler(BaseHTTPRequestHandler):
    rest: RestCatalog
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        assert path.startswith("/v1/"), path
        parts = path.removeprefix("/v1/").split("/")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.rest.asked[f"{self.command} {parts[-1]}"] += 1
        if self.headers.get("Authorization") != f"Bearer {self.rest.token}":
            self._send(401, _error(401, "NotAuthorizedException", "the token is not known"))
            return
        try:
            with self.rest.lock:
                found = self.rest.answer(self.command, parts, body)
        except _Refused as refused:
            self._send(refused.args[0], _error(refused.args[0], "Refused", "refused by the test"))
        except tuple(CODES) as error:
            code = next(CODES[kind] for kind in type(error).__mro__ if kind in CODES)
            self._send(code, _error(code, type(error).__name__, str(error)))
        else:
            self._send(200, found)

    do_POST = do_HEAD = do_GET

    def _send(self, code: int, content: Any) -> None:
        data = json.dumps(content).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


def _error(code: int, kind: str, message: str) -> Any:
    return {"error": {"message": message, "type": kind, "code": code}}


@contextmanager
def rest_catalog(folder: Path, token: str) -> Iterator[RestCatalog]:
    """A running server, whose catalog has a namespace ``ns``."""
    rest = RestCatalog(folder, token)
    rest.catalog.create_namespace("ns")
    thread = threading.Thread(target=rest.server.serve_forever, args=[0.02], daemon=True)
    thread.start()
    try:
        yield rest
    finally:
        rest.server.shutdown()
        rest.server.server_close()
        thread.join()
        rest.catalog.close()
