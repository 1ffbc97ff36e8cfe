"""The job server that a pipeline is given to: whether it answers, what its loss means, and ending what we started."""

import gc
import socket
import threading
from collections.abc import Sequence
from contextlib import suppress

from apache_beam.options.pipeline_options import FlinkRunnerOptions, PipelineOptions, PortableOptions, StandardOptions
from apache_beam.runners.portability.job_server import SubprocessJobServer
from grpc import RpcError

from rasteret_beam.errors import InputError, one_line

CONNECT_SECONDS = 20
END_SECONDS = 5


def check_server(options: PipelineOptions) -> None:
    """Refuse the address of a job server, or of a Flink cluster, where nobody listens.

    Raises
    ------
    InputError
        Names the flag, the address and the reason.
    """
    runner = str(options.view_as(StandardOptions).runner)
    endpoint = options.view_as(PortableOptions).job_endpoint
    if endpoint and endpoint != "embed":
        _check_listens("--job_endpoint", endpoint)
    elif runner.endswith("FlinkRunner"):
        master = options.view_as(FlinkRunnerOptions).flink_master
        if not master.startswith("["):
            _check_listens("--flink_master", master.rpartition("://")[2])


def _check_listens(flag: str, address: str) -> None:
    host, _, port = address.rstrip("/").rpartition(":")
    if not host or not port.isdigit():
        raise InputError(f"{flag} is {address!r}; give HOST:PORT")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()
    except OSError as error:
        raise InputError(
            f"{flag} is {address}, where no server answers: {one_line(error)}; start it, or correct the address"
        ) from error


def lost_server(error: RpcError) -> str:
    """What a failed call to a job server means, in one line."""
    code, details = getattr(error, "code", None), getattr(error, "details", None)
    if code is None or details is None:
        return f"the job server does not answer: {one_line(error)}"
    return f"the job server does not answer: {code().name}: {one_line(Exception(details()))}"


def end_children() -> None:
    """End the job servers that Beam has started for this process; Beam itself does so only at a normal exit."""
    # Beam keeps them in its runners, so the collector has to say where they are.
    started = [each for each in gc.get_objects() if issubclass(type(each), SubprocessJobServer)]
    ending = threading.Thread(target=_stop_all, args=(started,), name="end-children", daemon=True)
    ending.start()
    ending.join(END_SECONDS)


def _stop_all(servers: Sequence[SubprocessJobServer]) -> None:
    for server in servers:
        with suppress(Exception):  # one that was not started, or has ended
            server.stop()
