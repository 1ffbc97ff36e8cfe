"""Cooperative cancellation of the threads of one job."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event


class Cancelled(Exception):
    """Work was cancelled because its job has ended."""


class CancelToken:
    """A thread-safe token that tells the threads of a job when it has ended, and by which error.

    Attributes
    ----------
    error : BaseException, optional
        The first error that ended the job.
    """

    def __init__(self) -> None:
        self.error: BaseException | None = None
        self._event = Event()

    def cancel(self, error: BaseException | None = None) -> None:
        """End the job and wake waiting threads."""
        self.error = self.error or error
        self._event.set()

    def check(self) -> None:
        """Raise :class:`Cancelled` if the job has ended."""
        if self._event.is_set():
            raise Cancelled("the job has ended")

    @contextmanager
    def ending(self) -> Iterator[None]:
        """End the job by the first error of the block.

        Raises
        ------
        BaseException
            That error; where the block was stopped by a failure elsewhere, that failure: whichever of a job's results
            is asked for first, the failure is what matters.
        """
        try:
            yield
        except Cancelled as stopped:
            raise self.error or stopped from None
        except BaseException as error:
            self.cancel(error)
            raise

    def wait(self, seconds: float) -> None:
        """Wait; raise :class:`Cancelled` as soon as the job ends."""
        self._event.wait(seconds)
        self.check()
