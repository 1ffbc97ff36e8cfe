"""How many examples the property tests try: all in the slow run, a quarter in the fast one."""

from hypothesis import settings

USUAL = 100
"""Examples of a test that does not give a number."""

_share = 1


def reduce() -> None:
    """Before the test modules are imported."""
    global _share
    _share = 4
    settings.register_profile("fast", max_examples=examples(USUAL))
    settings.load_profile("fast")


def examples(number: int) -> int:
    """Of so many, those of this run."""
    return max(number // _share, 6)
