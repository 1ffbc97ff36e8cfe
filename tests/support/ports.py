"""Ports for servers that tests start."""

import fcntl
import random
import socket
import tempfile
from pathlib import Path

_PORTS = range(20_000, 30_000)
"""Below those that the system gives to clients, and to servers that ask for any: a server may end and come back."""

_free = random.SystemRandom().sample(_PORTS, len(_PORTS))
_locks = (Path(tempfile.gettempdir()) / "rasteret_beam-ports.lock").open("a")
"""Its byte at the number of a port is locked by the process of the tests that has the port."""


def free_port() -> int:
    """A port on loopback that is given once, to one process of the tests on this machine."""
    while _free:
        port = _free.pop()
        try:
            fcntl.lockf(_locks, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return port
    raise RuntimeError(f"no port of {_PORTS.start} to {_PORTS.stop} is free")
