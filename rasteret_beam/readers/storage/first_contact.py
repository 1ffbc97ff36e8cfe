"""The first contact with a service: it has a limit, so that one that is away is told of soon.

Clients try again for minutes, each in its own way and without a word. Once a service has answered, their patience is
right; before that it is silence.
"""

import queue
import threading
from collections.abc import Callable
from contextvars import copy_context
from math import ceil
from time import monotonic
from typing import TypeVar

from rasteret_beam.errors import NoAnswerError

FIRST_SECONDS = 20.0

WAY_OUT = "see that the network and the proxy let this machine reach it, and that the address is right"

Answer = TypeVar("Answer")

_answered: set[str] = set()


def within(who: str, ask: Callable[[], Answer], way_out: str = WAY_OUT) -> Answer:
    """What a service answers when it is asked for the first time.

    It is asked in a thread, which is left behind where it does not end in time.

    Parameters
    ----------
    who : str
        What is waited for.
    ask : function

    Raises
    ------
    NoAnswerError
        There is no answer in :data:`FIRST_SECONDS`.
    """
    came: queue.SimpleQueue[tuple[Answer | None, BaseException | None]] = queue.SimpleQueue()
    context = copy_context()

    def run() -> None:
        try:
            came.put((context.run(ask), None))
        except BaseException as error:
            came.put((None, error))

    threading.Thread(target=run, name=f"ask {who}", daemon=True).start()
    try:
        answer, error = came.get(timeout=FIRST_SECONDS)
    except queue.Empty:
        raise NoAnswerError(no_answer(who, way_out)) from None
    if error is not None:
        raise error
    return answer  # type: ignore[return-value]


def no_answer(who: str, way_out: str = WAY_OUT) -> str:
    """An error's text about a service that has not answered."""
    return f"{who} has not answered in {FIRST_SECONDS:.0f} s; {way_out}"


class Contact:
    """Requests to one host or bucket, of which the first have to be answered in time.

    Parameters
    ----------
    root : str
        Such as ``s3://bucket``.
    """

    def __init__(self, root: str):
        self.root = root
        self.until = monotonic() + FIRST_SECONDS

    def timeout(self, usual: float) -> float:
        """Seconds that the next request may take, whole ones, of which each makes a client for itself."""
        return usual if self.root in _answered else min(usual, max(1, ceil(self.until - monotonic())))

    def is_over(self) -> bool:
        """Whether there is no time for another request, as none of this process has been answered."""
        return self.root not in _answered and monotonic() >= self.until

    def is_answered(self) -> None:
        """The service has answered, now and for all requests."""
        _answered.add(self.root)
