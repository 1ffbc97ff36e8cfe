"""The examples run, find what they have hidden in their rasters, and draw it."""

import sys
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from examples import embedding_classes, field_plots, field_series, fields_over_time
from rasteret_beam import build_from_table
from tests.support import stack
from tests.support.documents import blocks_of, commands_of
from tests.support.paths import ROOT


def run(example: Any, picture: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    monkeypatch.setattr(sys, "argv", ["example", "--picture", str(picture)])
    example.main()
    return picture.read_bytes()


def test_fields_over_a_season(tmp_path: Path) -> None:
    """Means follow the curves; under clouds there are no values."""
    found = field_series.series(tmp_path).to_pandas()
    assert len(found) == 180 * len(field_series.DATES) and 2000 < found.NDVI.count() < len(found)
    means = found.groupby(["crop", found.datetime.dt.date]).NDVI.agg(["mean", "count"])
    assert {*means.index} == {(crop, day) for crop in field_series.FIELDS for day in field_series.DATES}
    for (crop, day), row in means.iterrows():
        expected = field_series.ndvi(crop, (day - date(2023, 3, 1)).days)
        assert row["count"] < 10 or abs(row["mean"] - expected) < 0.03, (crop, day)


def test_embeddings_into_a_classifier(tmp_path: Path) -> None:
    """Nine in ten points are right, and most of each class; points without data are left out."""
    found = embedding_classes.classify(tmp_path)
    assert found.accuracy > 0.9
    assert 5_500 < len(found.truth) < 6_000
    for number in range(len(embedding_classes.CLASSES)):
        of_class = found.truth == number
        assert np.mean(found.guess[of_class] == number) > 0.7


@pytest.mark.slow
def test_clear_scenes_show_the_ground(tmp_path: Path) -> None:
    """NDVI of clear scenes is that of the ground; of scenes that are merely near it often is not."""
    collection = build_from_table(stack.write_stack(tmp_path))
    nearest, clear = (field_plots.sampled(collection, **options) for options in ({}, field_plots.CLEAR))
    off = [(frame.ndvi - field_plots.truth(frame)).abs().dropna() for frame in (nearest, clear)]
    assert len(off[1]) > 350 and off[1].quantile(0.95) < 0.001  # the others lie at the edges of fields
    assert off[0].quantile(0.75) > 0.1
    assert (clear.time_difference.abs().dropna() <= 10 * 86_400).all()
    assert clear.ndvi.notna().equals(clear.status == "valid") and len(clear) == 500


@pytest.mark.slow
def test_means_of_clear_pixels_show_the_ground(tmp_path: Path) -> None:
    """NDVI of the clear pixels of a field is that of the ground, also where little of it is clear; of all it is not."""
    collection = build_from_table(stack.write_stack(tmp_path))
    every, clear = (fields_over_time.means(collection, **options) for options in ({}, fields_over_time.CLEAR))
    off = [np.abs(frame.ndvi - fields_over_time.truth(frame)) for frame in (every, clear)]
    assert len(clear) == len(every) == 467 * 12
    assert (clear.valid >= fields_over_time.LEAST).sum() > 3000
    assert off[1][clear.valid > 0].max() < 0.001 and clear.ndvi.isna().equals(clear.valid == 0)
    assert off[0].quantile(0.75) > 0.15


@pytest.mark.slow
@pytest.mark.parametrize(
    "example", [field_series, embedding_classes, field_plots, fields_over_time], ids=lambda each: each.__name__
)
def test_pictures(
    example: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn = run(example, tmp_path / "picture.png", monkeypatch)
    assert drawn.startswith(b"\x89PNG") and 20_000 < len(drawn) < 200_000
    assert str(tmp_path / "picture.png") in capsys.readouterr().out
    kept = getattr(example, "PICTURE", Path(example.__file__).with_suffix(".png")).read_bytes()
    assert kept.startswith(b"\x89PNG") and len(kept) < 200_000


def test_commands_of_the_page() -> None:
    commands = [words for block in blocks_of(ROOT / "examples" / "README.md") for words in commands_of(block)]
    assert [words[2] for words in commands] == [
        each.__name__ for each in (field_series, embedding_classes, field_plots, fields_over_time)
    ]
