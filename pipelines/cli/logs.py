"""Logging of the commands: quiet by default, everything with ``--verbose``."""

import logging
import os
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

WORKER_THREADS = "apache_beam.utils.thread_pool_executor"
"""Module of the threads of Beam's workers."""

NOISY = ("apache_beam.utils.retry",)
"""Beam loggers that write a traceback for each failed attempt."""

ON_ROOT = ("s3io", "portable_runner")
"""Beam modules that write tracebacks to the root logger."""

_verbose = threading.Event()


def be_verbose() -> None:
    """Show all log lines and the tracebacks of errors until the command ends."""
    _verbose.set()
    logging.getLogger().setLevel(logging.INFO)
    for name in NOISY:
        logging.getLogger(name).setLevel(logging.NOTSET)


def is_verbose() -> bool:
    """Whether ``--verbose`` was given."""
    return _verbose.is_set()


def show_traceback() -> None:
    """Print the traceback of the error that is being handled, with ``--verbose``."""
    if is_verbose():
        traceback.print_exc(file=sys.stderr)


class quiet:
    """Suppress logs of failures on the terminal, which repeat the line that the command prints.

    Parameters
    ----------
    names : str
        Loggers to silence, unless the command is verbose.
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
    """A lost server ends the Beam threads that listen to it; the main thread reports the error."""
    from grpc import RpcError  # commands that run no job start without it

    if is_verbose() or not isinstance(failed.exc_value, RpcError):
        threading.__excepthook__(failed)


@contextmanager
def quiet_workers(in_processes: bool) -> Iterator[None]:
    """Suppress the tracebacks that Beam's workers on this machine print to the terminal.

    Parameters
    ----------
    in_processes : bool
        Workers are processes, which inherit the terminal; otherwise threads.
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
        of_worker = type(threading.current_thread()).__module__ == WORKER_THREADS
        return len(text) if of_worker else self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def _own_terminal() -> Iterator[None]:
    """Reserve standard error for this process: processes that it starts write to the null device."""
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
