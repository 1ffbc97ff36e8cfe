"""A Storage Read API on loopback, in this process, which has its rows from BigQuery's emulator.

The emulator has an API of its own, but gives small tables in one stream, reads streams from the start
whatever the offset, knows no snapshots and no results of queries there, and hands GEOGRAPHY over as
WKB. This one does in these what the service is documented to do, and can refuse and break off.
"""

import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any
from uuid import uuid4

import grpc
import numpy as np
import pyarrow as pa
import shapely
from google.cloud import bigquery
from google.cloud.bigquery_storage_v1 import BigQueryReadClient, types
from google.cloud.bigquery_storage_v1.services.big_query_read.transports import BigQueryReadGrpcTransport

SERVICE = "google.cloud.bigquery.storage.v1.BigQueryRead"
PATH = re.compile(r"projects/([^/]+)/datasets/([^/]+)/tables/([^/]+)")
WKT = {"ARROW:extension:name": "google:sqlType:geography", "ARROW:extension:metadata": '{"encoding": "WKT"}'}

Refusal = tuple[grpc.StatusCode, str]


@dataclass
class StorageRead:
    """The server's settings, and what it has been asked.

    Attributes
    ----------
    streams : int
        Of a session, if as many are asked for: each has more rows than the one before, but the last has none.
    message_rows : int
    refuse : function of a method's name and a request
        What a call is refused with, if anything.
    breaks : dict
        By stream number, the messages after which calls break off, one call each.
    sessions, reads : list
        Requests that came.
    """

    client: bigquery.Client
    emulator: str
    streams: int = 1
    message_rows: int = 1000
    refuse: Callable[[str, Any], Refusal | None] = lambda method, request: None
    breaks: dict[int, list[int]] = field(default_factory=dict)
    sessions: list[Any] = field(default_factory=list)
    reads: list[Any] = field(default_factory=list)
    address: str = ""
    _parts: dict[str, pa.Table] = field(default_factory=dict)
    _copies: dict[tuple[str, str], pa.Table] = field(default_factory=dict)

    def create_read_session(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.sessions.append(request)
        self._refuse("CreateReadSession", request, context)
        wanted = request.read_session
        rows = self._rows(wanted)
        session = f"projects/proj/locations/us/sessions/{uuid4().hex}"
        names = []
        for number, (start, end) in enumerate(_cuts(len(rows), min(self.streams, request.max_stream_count))):
            names.append(f"{session}/streams/{number}")
            self._parts[names[-1]] = rows.slice(start, end - start)
        schema = types.ArrowSchema(serialized_schema=rows.schema.serialize().to_pybytes())
        streams = [types.ReadStream(name=name) for name in names]
        return types.ReadSession(name=session, table=wanted.table, arrow_schema=schema, streams=streams)

    def read_rows(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        self.reads.append(request)
        self._refuse("ReadRows", request, context)
        rows = self._parts[request.read_stream].slice(request.offset)
        waiting = self.breaks.get(int(request.read_stream.rsplit("/", 1)[1]), [])
        most = waiting.pop(0) if waiting else None
        for number, batch in enumerate(rows.combine_chunks().to_batches(max_chunksize=self.message_rows)):
            if number == most:
                context.abort(grpc.StatusCode.UNAVAILABLE, "the connection was lost")
            packed = types.ArrowRecordBatch(serialized_record_batch=batch.serialize().to_pybytes())
            message = types.ReadRowsResponse(arrow_record_batch=packed, row_count=len(batch))
            if number == 0:
                message.arrow_schema = types.ArrowSchema(serialized_schema=rows.schema.serialize().to_pybytes())
            yield message

    def _refuse(self, method: str, request: Any, context: grpc.ServicerContext) -> None:
        refused = self.refuse(method, request)
        if refused is not None:
            context.abort(*refused)

    def _rows(self, session: Any) -> pa.Table:
        """The selected columns of a table, in the table's order."""
        names = list(session.read_options.selected_fields)
        project, dataset, table = PATH.fullmatch(session.table).groups()
        if dataset.startswith("_"):
            found = self._result(table)
        else:
            moment = session.table_modifiers.snapshot_time
            found = self._table(f"{project}.{dataset}.{table}", moment)
        return found.select([name for name in found.column_names if name in names])

    def _result(self, table: str) -> pa.Table:
        """The result of the query that the emulator says it put into a hidden table."""
        (job,) = [job for job in self.client.list_jobs(max_results=1000) if _hides_in(job, table)]
        return job.result().to_arrow(create_bqstorage_client=False)

    def _table(self, table: str, moment: Any) -> pa.Table:
        if not moment:
            return self._emulators(table)
        time = moment.isoformat().replace("T", " ")
        if (table, time) not in self._copies:
            copy = f"{table}_{uuid4().hex}"
            past = f"`{table}` FOR SYSTEM_TIME AS OF TIMESTAMP '{time}'"
            self.client.query(f"CREATE TABLE `{copy}` AS SELECT * FROM {past}").result()
            self._copies[table, time] = self._emulators(copy)
            self.client.delete_table(copy)
        return self._copies[table, time]

    def _emulators(self, table: str) -> pa.Table:
        """A table through the emulator's own Storage Read API."""
        project, dataset, name = table.split(".")
        channel = grpc.insecure_channel(self.emulator, options=[("grpc.max_receive_message_length", -1)])
        client = BigQueryReadClient(transport=BigQueryReadGrpcTransport(channel=channel))
        session = client.create_read_session(
            parent=f"projects/{project}",
            read_session=types.ReadSession(
                table=f"projects/{project}/datasets/{dataset}/tables/{name}", data_format=types.DataFormat.ARROW
            ),
            max_stream_count=1,
        )
        schema = pa.ipc.read_schema(pa.py_buffer(session.arrow_schema.serialized_schema))
        batches = [
            pa.ipc.read_record_batch(pa.py_buffer(message.arrow_record_batch.serialized_record_batch), schema)
            for stream in session.streams
            for message in client.read_rows(stream.name)
        ]
        client.transport.close()
        return _with_geography(pa.Table.from_batches(batches, schema))


def _hides_in(job: Any, table: str) -> bool:
    destination = getattr(job, "destination", None)
    return destination is not None and destination.table_id == table


def _cuts(rows: int, streams: int) -> list[tuple[int, int]]:
    """Where streams begin and end; of a table without rows there is none."""
    if not rows:
        return []
    parts = max(1, streams - 1)
    shares = np.cumsum([0, *range(1, parts + 1)]) / (parts * (parts + 1) / 2)
    edges = np.round(shares * rows).astype(int).tolist()
    return [*pairwise(edges), *([(rows, rows)] if streams > 1 else [])]


def _with_geography(rows: pa.Table) -> pa.Table:
    """With WKT, as the service writes it, in place of the emulator's WKB."""
    for number, column in enumerate(rows.schema):
        if (column.metadata or {}).get(b"ARROW:extension:name") == b"geoarrow.wkb":
            shapes = shapely.from_wkb(rows.column(number).to_numpy())
            text = [one and one.replace(" (", "(", 1) for one in shapely.to_wkt(shapes, rounding_precision=-1)]
            rows = rows.set_column(
                number, pa.field(column.name, pa.string(), metadata=WKT), pa.array(text, pa.string())
            )
    return rows


class _Handler(grpc.GenericRpcHandler):
    def __init__(self, server: StorageRead):
        self.methods = {
            f"/{SERVICE}/CreateReadSession": grpc.unary_unary_rpc_method_handler(
                server.create_read_session, types.CreateReadSessionRequest.deserialize, types.ReadSession.serialize
            ),
            f"/{SERVICE}/ReadRows": grpc.unary_stream_rpc_method_handler(
                server.read_rows, types.ReadRowsRequest.deserialize, types.ReadRowsResponse.serialize
            ),
        }

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        return self.methods.get(details.method)


@contextmanager
def storage_read(client: bigquery.Client, emulator: str) -> Iterator[StorageRead]:
    """A running server, from when it answers until the end of the block."""
    state = StorageRead(client, emulator)
    server = grpc.server(ThreadPoolExecutor(4), handlers=[_Handler(state)])
    state.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield state
    finally:
        server.stop(None).wait()
