"""Work done ahead in threads, in bounded numbers, and taken in the order it was given."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from typing import Generic, TypeVar

from rasteret_beam.readers.jobs.cancellation import CancelToken

Result = TypeVar("Result")


class OrderedPool(Generic[Result]):
    """A queue of work under way.

    Parameters
    ----------
    pool : Executor
    most : int
        Pieces of work under way; ``most_cost`` bounds the sum of their costs, beyond a single piece.
    stop : Stop, optional
        Tells the work that it is cancelled, if it looks.
    """

    def __init__(self, pool: Executor, most: int, most_cost: float = float("inf"), stop: CancelToken | None = None):
        self.pool = pool
        self.most = most
        self.most_cost = most_cost
        self.stop = stop
        self._waiting: deque[tuple[Future[Result], float]] = deque()
        self._cost = 0.0

    def push(self, work: Callable[[], Result], cost: float = 0.0) -> Iterator[Result]:
        """Start a piece of work; gives the results that have to be taken to make room for it.

        Raises
        ------
        Exception
            What a piece of work raised; those after it are cancelled.
        """
        while self._waiting and (len(self._waiting) >= self.most or self._cost + cost > self.most_cost):
            yield self._oldest()
        self._waiting.append((self.pool.submit(work), cost))
        self._cost += cost

    def drain(self) -> Iterator[Result]:
        """The results of all that is under way."""
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
        """End what is under way: what has not begun is left undone, what has is waited for."""
        if self.stop is not None:
            self.stop.cancel()
        waiting, self._waiting, self._cost = self._waiting, deque(), 0.0
        for future, _ in waiting:
            future.cancel()
        for future, _ in waiting:
            if not future.cancelled():
                future.exception()
