"""Resources that the DoFns of one process share: the first to set up makes one, the last to tear down ends it."""

from collections.abc import Callable, Hashable
from threading import Lock
from typing import Any

_lock = Lock()
_held: dict[Hashable, tuple[Any, int]] = {}


def acquire(key: Hashable, make: Callable[[], Any]) -> Any:
    """The resource of this key, made if no DoFn holds it yet; others wait while it is made."""
    with _lock:
        resource, holders = _held.get(key, (None, 0))
        if not holders:
            resource = make()
        _held[key] = (resource, holders + 1)
        return resource


def release(key: Hashable) -> None:
    """Give a resource back; the last holder's ends it by its ``close``, if it has one."""
    with _lock:
        resource, holders = _held.pop(key)
        if holders > 1:
            _held[key] = (resource, holders - 1)
            return
    if hasattr(resource, "close"):
        resource.close()
