"""A time limit for the first answer of a service, so that an unreachable one is reported soon.

Clients retry for minutes without a log line. That is right once a service has answered, but not before.
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

WAY_OUT = "check the network, the proxy and the address"

Answer = TypeVar("Answer")

_answered: set[str] = set()


def within(who: str, ask: Callable[[], Answer], way_out: str = WAY_OUT) -> Answer:
    """The answer of a service to its first request.

    The request runs in a thread, which is abandoned if it does not end in time.

    Parameters
    ----------
    who : str
        Name of the service, for errors.
    ask : function

    Raises
    ------
    NoAnswerError
        The service does not answer within :data:`FIRST_SECONDS`.
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
    """The error text about a service that has not answered."""
    return f"{who} has not answered in {FIRST_SECONDS:.0f} s; {way_out}"


class Contact:
    """Requests to one host or bucket, with a time limit for its first answer.

    Parameters
    ----------
    root : str
        The bucket or host, such as ``s3://bucket``.
    """

    def __init__(self, root: str):
        self.root = root
        self.until = monotonic() + FIRST_SECONDS

    def timeout(self, usual: float) -> float:
        """Time limit of the next request in whole seconds, as each different limit needs a new client."""
        return usual if self.root in _answered else min(usual, max(1, ceil(self.until - monotonic())))

    def is_over(self) -> bool:
        """Whether the time limit has passed without an answer to this process."""
        return self.root not in _answered and monotonic() >= self.until

    def is_answered(self) -> None:
        """Record that the service has answered."""
        _answered.add(self.root)
