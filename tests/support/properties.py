"""Property tests: how many examples they try, all in the slow run and a sixteenth in the fast one, and no deadline."""

from hypothesis import settings

USUAL = 100
"""Examples of a test that does not give a number."""

_fast = False


def configure(*, fast: bool) -> None:
    """Before the test modules are imported. A busy machine is no fault of an example, so none has a deadline."""
    global _fast
    _fast = fast
    settings.register_profile("project", max_examples=examples(USUAL), deadline=None)
    settings.load_profile("project")


def examples(number: int, share: int = 16) -> int:
    """Of so many, those of this run: all in the slow one, and one of ``share`` in the fast one."""
    return max(number // share, 6) if _fast else number
