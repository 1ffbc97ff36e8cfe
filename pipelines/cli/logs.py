"""What stands on the terminal beside a command's own lines: nothing, or with ``--verbose`` all that is logged."""

import logging
import os
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from apache_beam.utils import thread_pool_executor
from grpc import RpcError

NOISY = ("apache_beam.utils.retry",)
"""Beam's loggers that write a traceback for each try that fails."""

ON_ROOT = ("s3io", "portable_runner")
"""Modules of Beam's that write tracebacks to the root log."""

_verbose = threading.Event()


def be_verbose() -> None:
    """Show from now on what is logged, and the tracebacks of errors, until the command ends."""
    _verbose.set()
    logging.getLogger().setLevel(logging.INFO)
    for name in NOISY:
        logging.getLogger(name).setLevel(logging.NOTSET)


def is_verbose() -> bool:
    """Whether the user has asked for everything."""
    return _verbose.is_set()


def show_traceback() -> None:
    """Print the traceback of the error that is being handled, where the user has asked for everything."""
    if is_verbose():
        traceback.print_exc(file=sys.stderr)


class quiet:
    """Keep other logs of what fails off the terminal: they repeat the one line we print.

    Parameters
    ----------
    names : str
        Loggers that are silent meanwhile, but for a verbose command.
    """

    def __init__(self, *names: str):
        self.names = names

    def __enter__(self) -> None:
        root = logging.getLogger()
        self.outermost = _is_not_repeated not in root.filters
        root.addFilter(_is_not_repeated)
        self.hook, threading.excepthook = threading.excepthook, _quiet_hook
        self.before = {name: logging.getLogger(name).level for name in ("", *self.names)}
        for name in () if is_verbose() else self.names:
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)

    def __exit__(self, *_: object) -> None:
        threading.excepthook = self.hook
        if self.outermost:
            logging.getLogger().removeFilter(_is_not_repeated)
            _verbose.clear()
        for name, level in self.before.items():
            logging.getLogger(name).setLevel(level)


def _is_not_repeated(record: logging.LogRecord) -> bool:
    return is_verbose() or record.module not in ON_ROOT


def _quiet_hook(failed: threading.ExceptHookArgs) -> None:
    """A lost server ends Beam's threads that listen to it; the main thread tells of it."""
    if is_verbose() or not isinstance(failed.exc_value, RpcError):
        threading.__excepthook__(failed)


@contextmanager
def quiet_workers(in_processes: bool) -> Iterator[None]:
    """Keep off the terminal what Beam's workers on this machine print there: the traceback of each error.

    Parameters
    ----------
    in_processes : bool
        Workers are processes, which have inherited the terminal; else threads.
    """
    if is_verbose():
        yield
        return
    with _own_terminal() if in_processes and sys.stderr is sys.__stderr__ else _stderr(_NotOfWorkers(sys.stderr)):
        yield


class _NotOfWorkers:
    """A text stream that drops what Beam's worker threads write."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> int:
        of_worker = type(threading.current_thread()).__module__ == thread_pool_executor.__name__
        return len(text) if of_worker else self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def _own_terminal() -> Iterator[None]:
    """Leave standard error to this process alone: those that it starts meanwhile write to nowhere."""
    before = sys.stderr
    before.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    handlers = [each for each in logging.getLogger().handlers if getattr(each, "stream", None) is before]
    with open(kept, "w", buffering=1, encoding=before.encoding, errors=before.errors, closefd=False) as terminal:
        try:
            for handler in handlers:
                handler.setStream(terminal)  # type: ignore[attr-defined]
            with _stderr(terminal):
                yield
        finally:
            for handler in handlers:
                handler.setStream(before)  # type: ignore[attr-defined]
            os.dup2(kept, 2)
            os.close(kept)


@contextmanager
def _stderr(stream: Any) -> Iterator[None]:
    before, sys.stderr = sys.stderr, stream
    try:
        yield
    finally:
        sys.stderr = before
