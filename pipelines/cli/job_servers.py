"""Job servers: check that they answer, describe a lost connection, and end those that Beam started."""

import gc
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from http.client import HTTPConnection, HTTPException

import grpc
from apache_beam.io.filesystem import BeamIOError
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import (
    FlinkRunnerOptions,
    GoogleCloudOptions,
    PipelineOptions,
    PortableOptions,
    StandardOptions,
    TestOptions,
)
from apache_beam.portability.api import beam_job_api_pb2, beam_job_api_pb2_grpc
from apache_beam.runners.portability.job_server import SubprocessJobServer

from rasteret_beam.errors import InputError, NoAnswerError, one_line
from rasteret_beam.readers.storage.first_contact import within
from rasteret_beam.readers.storage.stores import service_name
from rasteret_beam.transforms.runtime.google_services import look_for_credentials

CONNECT_SECONDS = 20.0
"""Seconds to wait for a server before the job begins."""

END_SECONDS = 5


def check_server(options: PipelineOptions) -> None:
    """Refuse the address of a job server or Flink cluster that does not answer.

    Raises
    ------
    InputError
        Names the flag, the address and the reason.
    """
    runner = str(options.view_as(StandardOptions).runner)
    endpoint = options.view_as(PortableOptions).job_endpoint
    if endpoint and endpoint != "embed":
        with _channel(endpoint):
            pass
    elif runner.endswith("FlinkRunner"):
        master = options.view_as(FlinkRunnerOptions).flink_master
        if not master.startswith("["):
            _check_flink(master)


def check_buckets(options: PipelineOptions) -> None:
    """Refuse staging buckets of a Dataflow job that do not answer; Beam would retry for minutes.

    Raises
    ------
    InputError
        Names the flag.
    OutputError
        There are no credentials.
    """
    cloud = options.view_as(GoogleCloudOptions)
    is_submitted = not options.view_as(TestOptions).dry_run
    if not (is_submitted and str(options.view_as(StandardOptions).runner).lower().endswith("dataflowrunner")):
        return
    for flag in ("temp_location", "staging_location"):
        place = getattr(cloud, flag)
        if isinstance(place, str) and place.startswith("gs://"):
            try:
                within(service_name(place), partial(_ask_for, place))
            except NoAnswerError as error:
                raise InputError(f"--{flag} is {place}, but {error}") from None


def _ask_for(place: str) -> None:
    look_for_credentials()
    with suppress(BeamIOError):  # Beam reports it when it stages the job
        FileSystems.exists(place)


def described_options(endpoint: str) -> Sequence[beam_job_api_pb2.PipelineOptionDescriptor]:
    """The options of the job server's runner; empty if the server does not describe them.

    Raises
    ------
    InputError
        The job server does not answer.
    """
    with _channel(endpoint) as channel:
        try:
            answer = beam_job_api_pb2_grpc.JobServiceStub(channel).DescribePipelineOptions(
                beam_job_api_pb2.DescribePipelineOptionsRequest(), timeout=CONNECT_SECONDS
            )
        except grpc.RpcError as error:
            if error.code() == grpc.StatusCode.UNIMPLEMENTED:
                return []
            raise InputError(f"--job_endpoint is {endpoint}, but {lost_server(error)}") from error
    return list(answer.options)


@contextmanager
def _channel(endpoint: str) -> Iterator[grpc.Channel]:
    """A connection to a job server, after its first answer."""
    _check_listens("--job_endpoint", endpoint)
    with grpc.insecure_channel(endpoint) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=CONNECT_SECONDS)
        except grpc.FutureTimeoutError as error:
            raise InputError(
                f"--job_endpoint is {endpoint}, which accepts connections but did not answer as a job server within "
                f"{CONNECT_SECONDS:.0f} s; correct the address (Flink's job server has port 8099 by default), or "
                "start it again"
            ) from error
        yield channel


def _check_flink(master: str) -> None:
    """Request the configuration of a Flink cluster from its REST interface."""
    scheme, _, address = master.rpartition("://")
    address = address.partition("/")[0]
    _check_listens("--flink_master", address)
    if scheme == "https":  # certificates and authorization are left to the runner
        return
    connection = HTTPConnection(address, timeout=CONNECT_SECONDS)
    try:
        connection.request("GET", "/config")
        connection.getresponse()
    except (OSError, HTTPException) as error:
        raise InputError(
            f"--flink_master is {address}, which accepts connections but did not answer as Flink's REST API within "
            f"{CONNECT_SECONDS:.0f} s: {one_line(error)}; correct the address (port 8081 by default), or start it again"
        ) from error
    finally:
        connection.close()


def _check_listens(flag: str, address: str) -> None:
    host, _, port = address.rstrip("/").rpartition(":")
    if not host or not port.isdigit():
        raise InputError(f"{flag} is {address!r}; give HOST:PORT")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()
    except OSError as error:
        raise InputError(
            f"{flag} is {address}, but no server answers there: {one_line(error)}; start it, or correct the address"
        ) from error


def lost_server(error: grpc.RpcError) -> str:
    """One line about a failed call to a job server."""
    code, details = getattr(error, "code", None), getattr(error, "details", None)
    if code is None or details is None:
        return f"the job server does not answer: {one_line(error)}"
    away = code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED)
    what = "the job server does not answer" if away else "the job server answers with an error"
    return f"{what}: {code().name}: {one_line(Exception(details()))}"


def end_children() -> None:
    """End the job servers that Beam has started; Beam itself does so only at a normal exit."""
    # Beam has no list of them, so find them among all objects.
    started = [each for each in gc.get_objects() if issubclass(type(each), SubprocessJobServer)]
    ending = threading.Thread(target=_stop_all, args=(started,), name="end-children", daemon=True)
    ending.start()
    ending.join(END_SECONDS)


def _stop_all(servers: Sequence[SubprocessJobServer]) -> None:
    for server in servers:
        with suppress(Exception):  # not started, or already ended
            server.stop()
