"""Records matched with the times of points, and one record of those that overlap, against brute force with pandas."""

from itertools import product

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rasteret_beam.kernels.routing import overlaps, search
from rasteret_beam.kernels.routing.chunks import ChunkRules, route
from rasteret_beam.model import MatchRules
from rasteret_beam.schema import PIXEL
from tests.support.properties import examples
from tests.support.time_match import (
    HOUR,
    ZONES,
    Scene,
    all_rules,
    candidates,
    collections,
    expected,
    grid_near,
    index_of,
    moments,
    points_of,
    projector,
)

QUICK = settings(deadline=None, derandomize=True, max_examples=examples(200))
Found = tuple[set[tuple[int, str, str]], dict[int, str]]


def routed(scenes: list[Scene], points: pa.RecordBatch, rules: MatchRules) -> Found:
    """What routing takes, each once and on its pixel; and the reasons of the other points."""
    index = index_of(scenes, rules)
    out = route(index, points, None, ChunkRules())
    by_id = {scene.id: scene for scene in scenes}
    x, y = (points[name].to_numpy() for name in ("point_x", "point_y"))
    found = []
    for key, chunk in out.chunks:
        grid, bands = index.grid_of(key)
        assert all(by_id[key.record_id].grids[band] == grid for band in bands)
        number = chunk["point_index"].to_numpy()
        east, north = projector(ZONES[0], grid.crs).transform(x[number], y[number])
        for name, place in zip(PIXEL, grid.to_pixel(east, north), strict=True):
            assert chunk[name].to_pylist() == np.floor(place).astype(int).tolist()
        found += product(number.tolist(), [key.record_id], bands)
    assert len(found) == len(set(found))
    reasons = dict(zip(out.unsampled["point_index"].to_pylist(), out.unsampled["reason"].to_pylist(), strict=True))
    assert out.sampled == len(points) - len(reasons) and sum(out.reasons.values()) == len(reasons)
    return set(found), reasons


@QUICK
@given(
    collections(),
    all_rules(),
    st.lists(st.tuples(st.tuples(st.integers(-400, 450), st.integers(-300, 350)), moments), min_size=1, max_size=12),
    st.sampled_from([3, search.MOST_CANDIDATES]),
    st.booleans(),
)
def test_brute_force(
    scenes: list[Scene], rules: MatchRules, points: list[tuple[tuple[int, int], int | None]], at_once: int, sparse: bool
) -> None:
    """Also where few records are compared at once, and where only those that can be taken are."""
    places, times = [place for place, _ in points], [time for _, time in points]
    batch = points_of(places, times)
    found = candidates(scenes, ZONES[0], *(batch[name].to_numpy() for name in ("point_x", "point_y")))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(search, "MOST_CANDIDATES", at_once)
        if sparse:
            patched.setattr(overlaps, "MANY_RECORDS", 0)
            patched.setattr(overlaps, "FEW_POINTS", 0)
        assert routed(scenes, batch, rules) == expected(found, times, rules)


@pytest.mark.parametrize("tolerance", [None, 5])
@pytest.mark.parametrize(("match", "direction"), [("nearest", "nearest"), ("before", "backward"), ("after", "forward")])
def test_merge_asof(match: str, direction: str, tolerance: int | None) -> None:
    """Of records that lie on one grid, pandas' as-of join gives the same."""
    rng = np.random.default_rng(3)
    dates = rng.choice(500, 60, replace=False)
    grid = grid_near(ZONES[0], -200, 200)
    scenes = [Scene(f"r{number}", int(date) * HOUR, {"A": grid}) for number, date in enumerate(dates)]
    times = rng.integers(-20, 520, 400)
    points = points_of([(int(x), int(y)) for x, y in rng.integers(-180, 180, (400, 2))], (times * HOUR).tolist())
    records = pd.DataFrame({"when": dates * HOUR, "record": [scene.id for scene in scenes]}).sort_values("when")
    left = pd.DataFrame({"when": times * HOUR, "point": range(400)}).sort_values("when")
    most = None if tolerance is None else tolerance * HOUR
    joined = pd.merge_asof(left, records, on="when", direction=direction, tolerance=most).dropna(subset="record")
    found, reasons = routed(scenes, points, MatchRules(match, "when", most))
    assert found == {(point, record, "A") for point, record in zip(joined["point"], joined["record"], strict=True)}
    assert set(reasons.values()) <= {"out_of_tolerance"} and len(found) + len(reasons) == 400
    assert bool(reasons) == (match != "nearest" or most is not None)


def test_records_of_one_moment() -> None:
    """The first of the collection; of two moments equally far away, the earlier."""
    grid = grid_near(ZONES[0], -200, 200)
    scenes = [Scene(f"{name}", hour * HOUR, {"A": grid}) for name, hour in (("x", 4), ("y", 2), ("z", 2), ("w", 4))]
    points = points_of([(0, 0)], [3 * HOUR])
    for rules, wanted in (
        (MatchRules("nearest", "when"), "y"),
        (MatchRules("before", "when"), "y"),
        (MatchRules("after", "when"), "x"),
        (MatchRules("nearest", "when", HOUR), "y"),
        (MatchRules("nearest", "when", None, 2), "yz"),
        (MatchRules("nearest", "when", None, 3), "xyz"),
        (MatchRules("after", "when", None, 9), "xw"),
        (MatchRules("all", "when", HOUR), "xyzw"),
        (MatchRules("all", "when", HOUR, 1), "y"),
        (MatchRules("all", "when", HOUR, 9, "first"), "xy"),
    ):
        assert routed(scenes, points, rules) == ({(0, name, "A") for name in wanted}, {}), rules
    assert routed(scenes, points, MatchRules("nearest", "when", HOUR - 1)) == (set(), {0: "out_of_tolerance"})
