"""Threads of this package that a test leaves running."""

import threading

_before: set[threading.Thread] = set()


def begin() -> None:
    """What runs now was begun by others."""
    _before.clear()
    _before.update(threading.enumerate())


def own_threads() -> list[str]:
    """The names of those that began since and still run."""
    names = [thread.name for thread in threading.enumerate() if thread not in _before]
    return [name for name in names if name.startswith(("work-units_", "tiles_", "remote-tiles_", "route_", "write_"))]
