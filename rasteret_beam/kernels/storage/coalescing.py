"""Combine neighbouring byte ranges of a file into requests."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class CoalesceRules:
    """Limits for combining neighbouring ranges into one request.

    Attributes
    ----------
    max_gap : int
        Maximum bytes between two ranges, which cost less than another request: 30 ms at 30 MB/s.
    max_waste : float
        Maximum bytes in gaps, as a share of the needed bytes of a request.
    max_bytes : int
        Maximum size of a request, unless a single range is longer; limits memory and keeps threads busy.
    """

    max_gap: int = 1 << 20
    max_waste: float = 0.05
    max_bytes: int = 8 << 20


REMOTE = CoalesceRules()
LOCAL = CoalesceRules(max_gap=64 << 10, max_bytes=1 << 20)
"""For local disks, so that one read fits into a processor's cache."""


def coalesce(starts: Sequence[int], stops: Sequence[int], rules: CoalesceRules = REMOTE) -> list[list[int]]:
    """Combine ranges into requests.

    Parameters
    ----------
    starts, stops : [n] int
        Half open, in any order; ranges may overlap, and equal ranges (interleaved bands) count once.

    Returns
    -------
    list of list of int
        Positions of the ranges of each request, by start; each range is in one of them.
    """
    requests: list[list[int]] = []
    first = end = wanted = 0
    for at in sorted(range(len(starts)), key=lambda number: (starts[number], stops[number])):
        gap = max(0, starts[at] - end)
        grown = wanted + max(0, stops[at] - max(end, starts[at]))
        wasted = max(end, stops[at]) - first - grown
        contained = stops[at] <= end
        if requests and (
            contained
            or (
                gap <= rules.max_gap
                and wasted <= rules.max_waste * grown
                and max(end, stops[at]) - first <= rules.max_bytes
            )
        ):
            requests[-1].append(at)
            end, wanted = max(end, stops[at]), grown
        else:
            requests.append([at])
            first, end, wanted = starts[at], stops[at], stops[at] - starts[at]
    return requests
