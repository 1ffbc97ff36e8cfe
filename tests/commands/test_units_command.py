"""The command with ``--unscale`` and ``--scales``: rows, dead letters tried again, runs resumed, and errors."""

import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.cli.flags import Parser, option_flags, option_values
from pipelines.cli.run_identity import check_same, identity
from pipelines.sample_points import main, parser
from rasteret_beam import SampleOptions, build_from_cogs, load
from rasteret_beam.errors import InputError
from rasteret_beam.model import DEFAULT_ACCESS
from tests.support.commands import execute
from tests.support.pipelines import ORDER, XY, read
from tests.support.rasters import RasterCase, damage_tile

GRAMMAR = "is not BAND=SCALE,OFFSET[;BAND=SCALE,OFFSET...], such as B04=0.0001,-0.1"
SCALES = {"B1": (0.5, 1.0), "B2": (0.01, -40.0)}
"""Of ``B1`` as the flags say, of ``B2`` as the file's tags do."""


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a file of two bands, scaled by its tags, its collection, and 300 points."""
    folder = tmp_path_factory.mktemp("scaled")
    options = {"COMPRESS": "DEFLATE", "INTERLEAVE": "BAND"}
    case = RasterCase(name="s", dtype="int16", count=2, nodata=7, gaps=7, scale=0.01, offset=-40.0, options=options)
    build_from_cogs([case.write(folder)]).export(folder / "collection")
    rng = np.random.default_rng(8)
    x, y = 500_000 + rng.uniform(0, 203 * 16, 300), 4_500_000 - rng.uniform(0, 157 * 16, 300)
    pq.write_table(pa.table({"x": x, "y": y, "plot": np.arange(300)}), folder / "points.parquet")
    return folder


def flags_of(folder: Path) -> list[str]:
    place = [f"--points={folder}/points.parquet", "--x_column=x", "--y_column=y", "--geometry_crs=32631"]
    return [*place, f"--collection={folder}/collection", "--bands=B1,B2"]


def scaled(folder: Path) -> pa.Table:
    """The eager rows without scaling, scaled here."""
    plain = (
        load(folder / "collection")
        .sample_points(pq.read_table(folder / "points.parquet"), ["B1", "B2"], **XY)
        .sort_by(ORDER)
    )
    rows = zip(plain["value"].to_pylist(), plain["band"].to_pylist(), strict=True)
    values = [None if raw == 7 else raw * SCALES[band][0] + SCALES[band][1] for raw, band in rows]
    assert values.count(None) > 20
    place = plain.column_names.index("value")
    return plain.set_column(place, "value", pa.array(values))


def test_rows_and_dead_letters_tried_again(scene: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(scene, folder)
    path = folder / "s.tif"
    build_from_cogs([path]).export(folder / "collection")
    expected = scaled(folder)
    damage_tile(path, 5)
    units = ["--unscale", "--scales=B1=0.5,1"]
    done = execute(main, *flags_of(folder), *units, f"--output={tmp_path}/out", f"--dead_letter={tmp_path}/dead")
    assert done.code == 3
    shutil.copy(scene / "s.tif", path)
    collection = f"--collection={folder}/collection"
    again = execute(main, f"--retry={tmp_path}/dead-*.parquet", collection, *units, f"--output={tmp_path}/again")
    assert (again.code, again.err) == (0, "") and 0 < again.figures["rows"] < 60
    both = pa.concat_tables([read(tmp_path / "out"), read(tmp_path / "again")]).sort_by(ORDER)
    names = ["point_index", "band", "value"]
    assert both.select(names).equals(expected.select(names))


def test_a_run_with_other_scales_is_not_resumed(scene: Path) -> None:
    """The order of the flags does not matter."""

    def of(*words: str) -> dict[str, str]:
        flags, _ = parser().parse([*flags_of(scene), f"--output={scene}/out", *words])
        return identity(flags, load(scene / "collection"), DEFAULT_ACCESS, [300])

    first = of("--unscale", "--scales=B1=2,0", "--scales=B2=3,0")
    assert first == of("--scales=B2=3,0;B1=2,0", "--unscale")
    check_same(first, first, "today")
    with pytest.raises(InputError, match=re.escape("--scales was B1:(2.0, 0.0),B2:(3.0, 0.0) and is B1:(2.0, 0.0); ")):
        check_same(first, of("--unscale", "--scales=B1=2,0"), "today")
    with pytest.raises(InputError, match="--unscale was not given and is True; "):
        check_same(of(), of("--unscale"), "today")


def test_the_flag_in_one_word_and_in_several() -> None:
    made = Parser("test", "Test.")
    option_flags(made, SampleOptions)
    several = ["--scales", "B04=0.0001,-0.1", "--scales=B08=1,2"]
    for words in (["--scales=B04=0.0001,-0.1;B08=1,2"], several):
        given = option_values(made.parse_args([*words, "--unscale"]), SampleOptions)
        assert SampleOptions(**given).scales == {"B04": (0.0001, -0.1), "B08": (1.0, 2.0)}


@pytest.mark.parametrize(
    ("flags", "error"),
    [
        (["--scales=B1:2,1", "--unscale"], f"argument --scales: 'B1:2,1' {GRAMMAR}"),
        (
            ["--scales=B1=0,1", "--unscale"],
            "argument --scales: 'B1=0,1' cannot be used: scale 0 makes all values equal",
        ),
        (
            ["--scales=B1=1,0", "--scales=B1=1,0", "--unscale"],
            "argument --scales: band 'B1' is given twice; give each band once",
        ),
        (
            ["--scales=B1=2,1"],
            "--scales is {'B1': (2.0, 1.0)}, but --unscale is False; scale the values with --unscale, or leave scales "
            "out",
        ),
        (
            ["--unscale", "--value_type=raw"],
            "--unscale is True, but --value_type is 'raw', the type of the stored numbers; use --value_type float64 or "
            "--value_type float32",
        ),
        (
            ["--unscale", "--scales=b1=2,1"],
            "--scales is {'b1': (2.0, 1.0)}, but band 'b1' (did you mean 'B1'?) is not among the bands that are read: "
            "B1, B2; leave it out, or read it too",
        ),
    ],
)
def test_flags_that_cannot_be_used(scene: Path, tmp_path: Path, flags: list[str], error: str) -> None:
    done = execute(main, *flags_of(scene), *flags, f"--output={tmp_path}/out")
    assert done.err == f"error: {error}\n" and done.code in (1, 2)
    assert not list(tmp_path.glob("out*"))
