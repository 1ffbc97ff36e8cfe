"""Run a command as the main function of its process: exit codes, and one line for an error.

Without Beam, which commands that run no job do not import.
"""

import gc
import logging
import os
import re
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

from pipelines.cli.arguments import spelt
from pipelines.cli.logs import NOISY, is_verbose, quiet, show_traceback
from pipelines.cli.subcommands import error_line
from rasteret_beam.errors import RasteretBeamError

FAILED, INCOMPLETE, INTERRUPTED = 1, 3, 130

# The error of a worker arrives as the text of its traceback.
OURS = re.compile(r"^rasteret_beam\.errors\.\w+Error: (.*?)(?= \[while running '|\n\n|\n\w+Error: |\Z)", re.M | re.S)
STEP = re.compile(r" \[while running '([^']*)'\]")
JAVA_FRAME = re.compile(r"\s*(at [\w.$/]+\(|\.\.\. \d+ more)")

HINTS = {
    "No space left on device": "free space on its disk, or write to another",
    "java.lang.OutOfMemoryError": "give TaskManagers more memory, see docs/flink.md",
    "MemoryError": "memory ran out; give the machine more, or lower --cache_mb",
}
"""Advice for errors of other libraries, by a part of their text."""


def command(main: Callable[[], int]) -> NoReturn:
    """Run a command's main function and exit with its code; our errors become one line."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    gc.freeze()
    gc.enable()  # :func:`pipelines.startup.prepare` has disabled it
    if signal.getsignal(signal.SIGINT) == signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with quiet(*NOISY):
            code = exit_code(main)
    finally:
        _flush()
    sys.exit(code)


def exit_code(main: Callable[[], int]) -> int:
    """Run a command's main function; gives its exit code, and prints a line for an error."""
    try:
        return main()
    except KeyboardInterrupt:
        print("interrupted before the job began", file=sys.stderr)
        return INTERRUPTED
    except RasteretBeamError as error:
        show_traceback()
        print(error_line(spelt(error)), file=sys.stderr)
    except Exception as error:
        show_traceback()
        print(error_line(f"{type(error).__name__}: {root_message(error)}{_more()}"), file=sys.stderr)
    return FAILED


def _more() -> str:
    """How to see more of an error of another library."""
    return "" if is_verbose() else "; --verbose shows the traceback"


def root_message(error: BaseException) -> str:
    """The message of our error that made a run fail, or the last line of any other error."""
    text = str(error)
    if isinstance(error, RasteretBeamError):
        return STEP.sub("", text)
    if "grpc" in sys.modules and isinstance(error, sys.modules["grpc"].RpcError):
        from pipelines.cli.job_servers import lost_server

        return lost_server(error)
    found = OURS.findall(text)
    if found:
        return str(found[-1]).strip()
    lines = [line for line in text.splitlines() if line.strip() and not JAVA_FRAME.match(line)]
    message = STEP.sub(r" (in step \1)", lines[-1].removeprefix("Caused by: ")) if lines else type(error).__name__
    return message + next((f"; {hint}" for mark, hint in HINTS.items() if mark in message), "")


def printed(text: str) -> int:
    """Print a text as the whole output of a command; returns exit code 0, also if its reader (``head``) has gone."""
    with suppress(BrokenPipeError):
        print(text)
    _flush()
    return 0


def _flush() -> None:
    """Write what is printed; if the reader has gone, Python need not tell so when it ends."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
