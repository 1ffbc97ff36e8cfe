"""A flag that takes a list may be given several times: nothing of what the user wrote is left out."""

from typing import Any

import pytest

from pipelines import build_collection, read_chips, sample_points, zonal_statistics

NEEDED = {
    sample_points: ["--points", "p", "--collection", "c", "--output", "o"],
    read_chips: ["--polygons", "p", "--collection", "c", "--output", "o"],
    zonal_statistics: ["--polygons", "p", "--collection", "c", "--output", "o", "--bands", "Z"],
    build_collection: ["--cogs", "c", "--output", "o"],
}


@pytest.mark.parametrize(
    "command, flag, given, expected",
    [
        (sample_points, "bands", ["A,B", "C"], ["A", "B", "C"]),
        (sample_points, "statistics", ["mean", "max,min"], ["mean", "max", "min"]),
        (sample_points, "extra_columns", ["href", "status"], ["href", "status"]),
        (sample_points, "columns", ["plot", "crop"], ["plot", "crop"]),
        (sample_points, "drivers", ["netCDF", "HDF5"], ["netCDF", "HDF5"]),
        (sample_points, "column_types", ["plot:string", "n:int64"], {"plot": "string", "n": "int64"}),
        (read_chips, "bands", ["A", "B"], ["A", "B"]),
        (read_chips, "columns", ["plot", "crop"], ["plot", "crop"]),
        (zonal_statistics, "statistics", ["mean", "max"], ["mean", "max"]),
        (build_collection, "stac_collections", ["a", "b,c"], ["a", "b", "c"]),
        (build_collection, "column_map", ["a:id", "b:datetime"], ["a:id", "b:datetime"]),
    ],
)
def test_lists_grow(command: Any, flag: str, given: list[str], expected: Any) -> None:
    repeated = [word for value in given for word in (f"--{flag}", value)]
    known, _ = command.parser().parse(NEEDED[command] + repeated)
    assert getattr(known, flag) == expected


def test_a_column_has_one_type(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--column_types", "plot:string", "--column_types", "plot:int64"]
    with pytest.raises(SystemExit):
        sample_points.parser().parse(NEEDED[sample_points] + words)
    assert "column 'plot' is given twice; give each column once" in capsys.readouterr().err
