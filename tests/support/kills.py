"""Commits that are killed after so many operations."""

from collections.abc import Callable, Sequence

from rasteret_beam.transforms.sinks.commit import Staged, commit

EARLY, LATE = 1_700_000_000.0, 1_800_000_000.0
"""When runs began, in seconds since 1970."""

NEVER = 10_000


class Killed(BaseException):
    """The process ends here: no handler of the code under test sees it."""


def cut_off(kill_after: Callable[[int], list[str]], most: int, staged: Sequence[Staged]) -> list[str] | None:
    """Commit staged files and let so many operations happen; gives these, or None where the commit came to its end."""
    happened = kill_after(most)
    try:
        commit(staged)
    except Killed:
        return list(happened)
    finally:
        kill_after(NEVER)
    return None


def rows(run: str, files: int) -> list[tuple[str, int]]:
    """What the files of a run hold, one row each."""
    return [(run, number) for number in range(files)]
