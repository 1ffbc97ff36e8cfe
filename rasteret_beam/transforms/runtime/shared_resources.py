"""Resources shared by the DoFns of a process: created by the first setup, closed by the last teardown."""

from collections.abc import Callable, Hashable
from threading import Lock
from typing import Any

_lock = Lock()
_held: dict[Hashable, tuple[Any, int]] = {}


def acquire(key: Hashable, make: Callable[[], Any]) -> Any:
    """The resource of a key, created if no DoFn holds it; other threads wait during the creation."""
    with _lock:
        resource, holders = _held.get(key, (None, 0))
        if not holders:
            resource = make()
        _held[key] = (resource, holders + 1)
        return resource


def release(key: Hashable) -> None:
    """Release a resource; the last release calls its ``close`` method, if it has one."""
    with _lock:
        resource, holders = _held.pop(key)
        if holders > 1:
            _held[key] = (resource, holders - 1)
            return
    if hasattr(resource, "close"):
        resource.close()
