"""Points keyed by place, and the records in question there, against brute force with pandas."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rasteret_beam.kernels.geo.crs import Floats
from rasteret_beam.kernels.routing import search
from rasteret_beam.kernels.routing.index import RoutingIndex, locate
from rasteret_beam.kernels.tables.point_times import point_times
from rasteret_beam.model import MatchRules
from tests.support.properties import examples
from tests.support.time_match import (
    ZONES,
    Scene,
    all_rules,
    candidates,
    collections,
    index_of,
    moments,
    points_of,
    ranked,
)

QUICK = settings(deadline=None, derandomize=True, max_examples=examples(150))
PLACES_AND_TIMES = st.lists(
    st.tuples(st.tuples(st.integers(-400, 450), st.integers(-300, 350)), moments), min_size=1, max_size=12
)


def coordinates_of(points: pa.RecordBatch) -> tuple[Floats, Floats]:
    return points["point_x"].to_numpy(), points["point_y"].to_numpy()


def best_first(index: RoutingIndex, points: pa.RecordBatch, most: int | None) -> dict[tuple[int, str], list[str]]:
    """The records in question for each point and band, the best one first, as the matcher gives them."""
    times = point_times(points, "when")
    x, y = coordinates_of(points)
    hits = locate(index, ZONES[0], x, y)
    in_time = index.matcher.time_column is not None
    if in_time:
        hits = hits.take(points["when"].is_valid().to_numpy(zero_copy_only=False)[hits.point])
    found: dict[tuple[int, str], list[str]] = {}
    for group in index.matcher.candidates(hits, len(points), times if in_time else None, most):
        assert np.array_equal(group.point, hits.point[group.hit])
        for band in group.bands:
            assert np.array_equal(hits.grid[group.hit], index.band_grids(band)[group.record])
            for point, record, depth in zip(group.point, group.record, group.depth, strict=True):
                records = found.setdefault((int(point), band), [])
                assert depth == len(records)
                records.append(index.record_ids[record])
    return found


@QUICK
@given(
    collections(),
    all_rules(),
    PLACES_AND_TIMES,
    st.sampled_from([1, 2, 3, 10, None]),
    st.sampled_from(["", "point"]),
    st.sampled_from([3, search.MOST_CANDIDATES]),
)
def test_candidates(
    scenes: list[Scene],
    rules: MatchRules,
    points: list[tuple[tuple[int, int], int | None]],
    most: int | None,
    places: str,
    at_once: int,
) -> None:
    """The best first, without the limit; each band once, also where few records are compared at once."""
    index = index_of(scenes, replace(rules, places=places))
    times = [time for _, time in points]
    batch = points_of([place for place, _ in points], times)
    wanted = ranked(candidates(scenes, ZONES[0], *coordinates_of(batch)), times, rules)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(search, "MOST_CANDIDATES", at_once)
        found = best_first(index, batch, most)
    assert found == {at: records[:most] for at, records in wanted.items() if records}
