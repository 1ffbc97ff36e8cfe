"""Quality rules against a collection: bits that a band does not have, and rules that decide nothing."""

from pathlib import Path

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import rasterio
from affine import Affine

from pipelines import sample_points
from rasteret_beam import Collection, Quality, SampleOptions, SamplePoints, build_from_table
from rasteret_beam.collection.index.quality_checks import check_rules, warn_of_unused_rules
from rasteret_beam.errors import InputError
from tests.support.commands import as_flags, execute
from tests.support.pipelines import XY

UNUSED = (
    "the quality rules (SCL in 4,5) change no row: samples that fail them keep their values, as invalid is 'keep'; use "
    "invalid='null' or 'drop', skip_invalid, max_distance_pixels, resampling, statistics, or status as one of the "
    "extra_columns"
)


@pytest.mark.parametrize(
    ("given", "logged"),
    [
        ({"quality": "SCL in 4,5"}, [UNUSED]),
        ({"quality": "SCL in 4,5", "invalid": "null"}, []),
        ({"quality": "SCL in 4,5", "invalid": "drop"}, []),
        ({"quality": "SCL in 4,5", "skip_invalid": True, "match": "latest"}, []),
        ({"quality": "SCL in 4,5", "max_distance_pixels": 1}, []),
        ({}, []),
    ],
)
def test_rules_that_change_nothing_are_logged(
    given: dict[str, object], logged: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    warn_of_unused_rules(SampleOptions(**given))
    assert [each.getMessage() for each in caplog.records] == logged


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Collection:
    """Two records: the band ``QA`` is uint16 in ``a`` and uint8 in ``b``, which alone has ``P``, of float32."""
    folder = tmp_path_factory.mktemp("types")
    assets = []
    for dtypes in ({"B": "uint8", "QA": "uint16"}, {"B": "uint8", "QA": "uint8", "P": "float32"}):
        made = {}
        for band, dtype in dtypes.items():
            path = folder / f"{len(assets)}{band}.tif"
            place = {"crs": "EPSG:32631", "transform": Affine(10, 0, 500_000, 0, -10, 4_500_000)}
            with rasterio.open(path, "w", "GTiff", 16, 16, 1, dtype=dtype, tiled=True, **place) as out:
                out.write(np.zeros((1, 16, 16), dtype))
            made[band] = {"href": str(path), "band_index": 0}
        assets.append(made | ({} if "P" in made else {"P": None}))
    fields = [(band, pa.struct([("href", pa.string()), ("band_index", pa.int32())])) for band in ("B", "QA", "P")]
    table = pa.table({"id": ["a", "b"], "assets": pa.array(assets, pa.struct(fields))})
    return build_from_table(table.append_column("datetime", pa.array([0, 1], pa.timestamp("us"))), name="types")


POINTS = pa.table({"x": [500_005.0], "y": [4_499_995.0]})


def test_bits_that_a_band_lacks(collection: Collection, caplog: pytest.LogCaptureFixture) -> None:
    """Known before anything is read, with the first record; types of records without the band do not matter."""
    beyond = "quality of band 'QA': bit 9 is beyond the band's uint8, which has bits 0 to 7 (record 'b')"
    with pytest.raises(InputError) as raised:
        collection.sample_points(POINTS, ["B"], **XY, quality="QA bits 8-9 not in 3", invalid="null")
    assert str(raised.value) == beyond
    with pytest.raises(InputError) as raised:
        beam.Pipeline() | beam.Create([]) | SamplePoints(collection, ["B"], quality="QA no bits 9", invalid="null")
    assert str(raised.value) == beyond
    with pytest.raises(InputError) as raised:
        collection.plan(POINTS, ["B"], **XY, quality="QA no bits 9")
    assert str(raised.value) == beyond
    with pytest.raises(InputError, match=r"^quality of band 'P': bits are those of .* float32; .* \(record 'b'\)$"):
        check_rules(collection, SampleOptions(quality="P no bits 0 missing pass", invalid="null"))
    check_rules(collection.subset(ids="a"), SampleOptions(quality="QA no bits 15", invalid="null"))
    check_rules(collection, SampleOptions(quality=["QA no bits 7", "P <= 3", "Q no bits 9"], invalid="null"))
    assert not caplog.records


def test_bands_that_no_record_has(collection: Collection, caplog: pytest.LogCaptureFixture) -> None:
    """Those that a record must have are an error of the index."""
    rules = ["QB <= 3 missing pass", "Z in 4 missing fail", "QA in 4 missing fail", "Y in 4"]
    check_rules(collection, SampleOptions(quality=rules, invalid="null"))
    assert [each.getMessage() for each in caplog.records] == [
        "no record has the quality band 'QB' (did you mean 'B'?): each pixel passes, as missing is 'pass'",
        "no record has the quality band 'Z': not one pixel passes, as missing is 'fail'",
    ]


def test_each_face_logs_rules_that_change_nothing(collection: Collection, caplog: pytest.LogCaptureFixture) -> None:
    rule = Quality("QA", exclude=[1])
    beam.Pipeline() | beam.Create([]) | SamplePoints(collection, ["B"], quality=rule)
    logged = UNUSED.replace("SCL in 4,5", "QA not in 1")
    assert [each.getMessage() for each in caplog.records] == [logged]
    caplog.clear()
    assert collection.sample_points(POINTS, ["B"], **XY, quality=rule)["value"].to_pylist() == [0, 0]
    assert [each.getMessage() for each in caplog.records] == [logged]


def test_the_command_s_plan_refuses_bits_that_a_band_lacks(
    collection: Collection, tmp_path: Path, same_signal_handlers: None
) -> None:
    collection.export(tmp_path / "collection")
    pq.write_table(POINTS, tmp_path / "points.parquet")
    flags = as_flags(points=tmp_path / "points.parquet", **XY, collection=tmp_path / "collection", bands="B")
    outcome = execute(sample_points.main, *flags, "--quality=QA no bits 9", "--invalid=null", "--plan")
    assert (outcome.code, outcome.out) == (1, "")
    assert "quality of band 'QA': bit 9 is beyond the band's uint8" in outcome.err
