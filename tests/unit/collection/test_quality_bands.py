"""The index of a collection with bands that decide about quality, and points keyed by place."""

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest

from rasteret_beam import Collection, KeyByRecordAndTile, ReadPoints, metrics
from rasteret_beam.errors import InputError
from rasteret_beam.model import ALL_BANDS, MatchRules, TileKey
from tests.support.pipelines import XY, Kept, run

RULES = MatchRules("latest", places="point", quality=(("B20", "fail"), ("B10", "error")))


@pytest.mark.parametrize("left_out", [[], ["grids"]])
def test_quality_bands_are_known_but_not_sampled(scenes: Collection, left_out: list[str]) -> None:
    """Also to collections by other tools, which have no column of grids."""
    table = scenes.to_table()
    index = Collection.from_table(table.drop_columns(left_out), name="c").index(["B10"], RULES)
    routing = index.routing
    assert (routing.bands, routing.layers.bandsets, routing.places) == (("B10",), [("B10",)], "point")
    for record, assets in zip(table["id"].to_pylist(), table["assets"].to_pylist(), strict=True):
        for band, pixel in (("B10", 10), ("B20", 20)):
            grid = routing.grid_of_band(record, band)
            assert (grid is None) == (assets[band] is None) == (routing.band_grids(band)[routing.positions[record]] < 0)
            if grid is not None:
                assert grid.transform[0] == pixel
                (asset,) = index.assets(record, [band])
                assert asset.href == assets[band]["href"]
    both = Collection.from_table(table, name="c").index(["B20", "B10"], RULES).routing
    assert both.bands == ("B20", "B10") and both.bands_of(TileKey("", 0, ALL_BANDS, 0, 0)) == ("B20", "B10")


def test_records_and_collections_that_lack_a_quality_band(scenes: Collection) -> None:
    rules = MatchRules(places="record", quality=(("B20", "error"),))
    with pytest.raises(InputError, match=r"^quality band B20 is not in 1 of the 6 records to sample.* 'P1_1'; "):
        scenes.index(["B10"], rules)
    assert scenes.subset(ids="P0_0").index(["B10"], rules).routing.places == "record"
    assert scenes.index(["B20"], rules).routing.bands == ("B20",)
    rules = MatchRules(places="record", quality=(("B2O", "error"),))
    with pytest.raises(InputError, match=r"the collection lacks band\(s\) B2O \(did you mean 'B20'\?\); it has"):
        scenes.check_usable(["B10"], rules)
    may_be_missing = MatchRules(places="record", quality=(("B2O", "pass"),))
    assert scenes.check_usable(["B10"], may_be_missing) == ["B10"]
    assert set(scenes.index(["B10"], may_be_missing).routing.band_grids("B2O")) == {-1}


@pytest.mark.parametrize("option", [{"invalid": "drop"}, {"join": "left"}, {"skip_invalid": True}])
@pytest.mark.parametrize("bands", [["B10"], ["B10", "B20"]])
def test_points_travel_once(scenes: Collection, points: pa.Table, option: dict, bands: list[str]) -> None:
    """To a place; those who read pixels count the points that are sampled."""
    seen = Kept()

    def note(keyed: tuple[TileKey, pa.RecordBatch]) -> None:
        key, chunk = keyed
        assert (key.record_id, key.bandset) == ("", ALL_BANDS)
        seen.keep(chunk["point_index"].to_pylist())

    def build(pipeline: beam.Pipeline) -> None:
        keyed = pipeline | ReadPoints(points, **XY)
        keyed | KeyByRecordAndTile(scenes, bands, match="latest", **option) | beam.Map(note)

    counts = run(build)
    x, y = (points[name].to_numpy(zero_copy_only=False) for name in "xy")
    inside = (x >= 500_000) & (x < 505_000) & (y > 5_397_000) & (y <= 5_400_000)
    assert sorted(seen) == np.flatnonzero(inside).tolist()
    assert counts[metrics.VALUES_ROUTED] == len(seen) * len(bands)
    assert counts[metrics.POINTS_UNSAMPLED] == len(points) - len(seen) > 0
    assert not counts.get(metrics.POINTS_SAMPLED)
