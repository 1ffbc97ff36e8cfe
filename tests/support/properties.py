"""Property tests: how many examples they try, all in the slow run and an eighth in the fast one, and no deadline."""

from hypothesis import settings

USUAL = 100
"""Examples of a test that does not give a number."""

_share = 1


def configure(*, fast: bool) -> None:
    """Before the test modules are imported. A busy machine is no fault of an example, so none has a deadline."""
    global _share
    _share = 8 if fast else 1
    settings.register_profile("project", max_examples=examples(USUAL), deadline=None)
    settings.load_profile("project")


def examples(number: int) -> int:
    """Of so many, those of this run."""
    return max(number // _share, 6)
