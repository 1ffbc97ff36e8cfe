"""Run a limited number of tasks in threads and return their results in order."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from typing import Generic, TypeVar

from rasteret_beam.readers.jobs.cancellation import CancelToken

Result = TypeVar("Result")


class OrderedPool(Generic[Result]):
    """A queue of running tasks.

    Parameters
    ----------
    pool : Executor
    most : int
        Maximum number of tasks; ``most_cost`` limits the sum of their costs, except for a single task.
    stop : CancelToken, optional
        Tells tasks that check it that they are cancelled.
    """

    def __init__(self, pool: Executor, most: int, most_cost: float = float("inf"), stop: CancelToken | None = None):
        self.pool = pool
        self.most = most
        self.most_cost = most_cost
        self.stop = stop
        self._waiting: deque[tuple[Future[Result], float]] = deque()
        self._cost = 0.0

    def push(self, work: Callable[[], Result], cost: float = 0.0) -> Iterator[Result]:
        """Start a task; yields the results that make room for it.

        Raises
        ------
        Exception
            The error of a task; the tasks after it are cancelled.
        """
        while self._waiting and (len(self._waiting) >= self.most or self._cost + cost > self.most_cost):
            yield self._oldest()
        self._waiting.append((self.pool.submit(work), cost))
        self._cost += cost

    def drain(self) -> Iterator[Result]:
        """The results of all tasks."""
        while self._waiting:
            yield self._oldest()

    def _oldest(self) -> Result:
        future, cost = self._waiting.popleft()
        self._cost -= cost
        try:
            return future.result()
        except BaseException:
            self.cancel()
            raise

    def cancel(self) -> None:
        """Cancel tasks that have not begun, and wait for the others."""
        if self.stop is not None:
            self.stop.cancel()
        waiting, self._waiting, self._cost = self._waiting, deque(), 0.0
        for future, _ in waiting:
            future.cancel()
        for future, _ in waiting:
            if not future.cancelled():
                future.exception()
