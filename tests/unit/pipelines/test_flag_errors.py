"""Errors of the commands name flags, never arguments of Python."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import rasterio
from affine import Affine

from pipelines import build_collection, inspect_collection, read_chips, report, sample_points, zonal_statistics
from pipelines.cli.arguments import Spelling
from rasteret_beam import build_from_cogs
from tests.support.commands import Outcome, execute

COMMANDS = {"sample": sample_points, "build": build_collection, "chips": read_chips, "zones": zonal_statistics}


def check_words(command: str, outcome: Outcome) -> None:
    """Nothing that the command has a flag for is named as in Python."""
    module = COMMANDS[command]
    actions = [action.dest for action in module.parser()._actions if action.dest != "help"]
    for name in {*actions, *(name for name in module.ARGUMENTS if name.isidentifier())}:
        assert not re.search(rf"(?<![\w'\"/.-]){name}=", outcome.err), (name, outcome.err)
        if "_" in name:
            assert not re.search(rf"(?<![\w'\"/.-]){name}(?![\w'\"/])", outcome.err), (name, outcome.err)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("flags")
    place = Affine(10, 0, 500000, 0, -10, 5000160)
    with rasterio.open(
        folder / "s.tif",
        "w",
        driver="GTiff",
        width=16,
        height=16,
        count=2,
        dtype="uint8",
        crs="EPSG:32631",
        transform=place,
    ) as out:
        out.write(np.zeros((2, 16, 16), "uint8"))
    build_from_cogs(folder / "s.tif").export(folder / "c")
    (folder / "broken.tif").write_bytes(b"no raster")
    points = pa.table({"lon": [2.0], "lat": [45.0], "value": [1.0], "a": [1], "x": ["t"], "geom": [b"1"]})
    pq.write_table(points, folder / "p.parquet")
    pq.write_table(points.select(["lon", "lat", "a"]), folder / "q.parquet")
    pq.write_table(pa.table({"lon": [2.0], "lat": [45.0], "a": ["t"]}), folder / "r.parquet")
    pq.write_table(pa.table({"lon": [2.0], "lat": [45.0], "when": ["2023-01-05"]}), folder / "w.parquet")
    pq.write_table(pa.table({"lon": [2.0], "lat": [45.0], "run_id": ["t"]}), folder / "named.parquet")
    pq.write_table(pa.table({"id": ["a"], "datetime": ["2023-01-05"]}), folder / "items.parquet")
    (folder / "f.csv").write_text('wkt,band\n"POLYGON ((0 0, 1 0, 1 1, 0 0))",1\n')
    (folder / "f.geojson").write_text('{"type": "Polygon", "coordinates": [[[0,0],[1,0],[1,1],[0,0]]]}')
    return folder


SAMPLE = {
    "no columns": (["--points={}/q.parquet", "--x_column=lon"], "--x_column and --y_column go together"),
    "both": (
        ["--points={}/p.parquet", "--x_column=lon", "--y_column=lat", "--geometry_column=geom"],
        "either --geometry_column or --x_column and --y_column",
    ),
    "no CRS": (["--points={}/q.parquet"], "give it with --geometry_crs"),
    "ambiguous": (["--points={}/items.parquet", "--geometry_crs=4326"], "Give --x_column and --y_column, or --geom"),
    "reserved": (["--points={}/p.parquet", "--geometry_crs=4326"], "columns to keep with --columns A,B"),
    "unlike": (
        ["--points={}/[qr].parquet", "--geometry_crs=4326", "--bands=B1"],
        "or leave the column out with --columns A,B",
    ),
    "negative": (
        ["--points={}/q.parquet", "--geometry_crs=4326", "--max_distance_pixels=-1"],
        "--max_distance_pixels is -1",
    ),
    "no window": (
        ["--points={}/q.parquet", "--geometry_crs=4326", "--return_neighbourhood=always"],
        "--return_neighbourhood is 'always', but --max_distance_pixels is 0",
    ),
    "layout and dead letters": (
        ["--points={}/q.parquet", "--geometry_crs=4326", "--layout=values", "--dead_letter={}/dead/d"],
        "--layout is 'values', but --dead_letter is given",
    ),
    "dates": (["--points={}/q.parquet", "--geometry_crs=4326", "--date_range=2024,2023"], "argument --date_range: "),
    "box": (["--points={}/q.parquet", "--geometry_crs=4326", "--bbox=0,50,5,40"], ""),
    "rule": (
        ["--points={}/q.parquet", "--geometry_crs=4326", "--quality=SCL nott in 0"],
        "error: argument --quality: quality rule 'SCL nott in 0': expected 'not', 'in', 'no', 'bits', '<=' or '>=', but"
        " found 'nott' at character 5 (did you mean 'not'?); a rule is BAND not in 0,1,3,8-10 or ",
    ),
    "second rule": (
        ["--points={}/q.parquet", "--geometry_crs=4326", "--quality=CLD <= 40", "--quality=CLD <= 40;preset:hsl"],
        "error: argument --quality: quality rule 'preset:hsl': quality has no preset 'hsl' (did you mean 'hls'?)",
    ),
    "quality band": (
        ["--points={}/q.parquet", "--geometry_crs=4326", "--quality=B3 <= 40"],
        "the collection lacks band(s) B3; it has B1, B2; --quality RULE needs all bands of its "
        "rules, but those of rules that have missing pass or missing fail",
    ),
    "candidates": (
        ["--points={}/q.parquet", "--geometry_crs=4326", "--match=latest", "--max_candidates=3"],
        "--max_candidates is 3, but --skip_invalid is False, so the best record is taken",
    ),
    "limit and candidates": (
        [
            "--points={}/w.parquet",
            "--geometry_crs=4326",
            "--match=nearest",
            "--time_column=when",
            "--skip_invalid",
            "--limit=12",
        ],
        "--limit is 12, but --max_candidates is 10: --skip_invalid looks at no more records of a point; use "
        "--max_candidates 12, or --limit 10",
    ),
    "cache": (
        ["--points={}/q.parquet", "--geometry_crs=4326", "--cache_mb=1"],
        "argument --cache_mb: '1' is not a whole",
    ),
    "partition": (["--points={}/q.parquet", "--geometry_crs=4326", "--bigquery=p:d.t", "--bq_partition_by=a:Q"], ""),
    "clusters": (
        ["--points={}/q.parquet", "--geometry_crs=4326", "--bigquery=p:d.t", "--bq_cluster_by=band,a,lon,lat,value"],
        "--bq_cluster_by names column",
    ),
    "run": (
        ["--points={}/q.parquet", "--geometry_crs=4326", "--bigquery=p:d.t", "--bq_run_id=a b"],
        "--bq_run_id is 'a b'",
    ),
    "no temporary": (
        ["--points={}/q.parquet", "--geometry_crs=4326", "--bigquery=p:d.t"],
        "but --temp_location is None",
    ),
    "snapshot": (["--points_table=p:d.t", "--points_snapshot=yesterday"], "--points_snapshot is 'yesterday'"),
    "both ways to read": (
        ["--points=gs://b/q.parquet", "--points_anonymous", "--points_requester_pays=p", "--geometry_crs=4326"],
        "",
    ),
    "nobody is billed": (
        ["--points={}/q.parquet", "--anonymous", "--requester_pays=p"],
        "--anonymous is True and --requester_pays is 'p'",
    ),
}


@pytest.mark.parametrize("name", SAMPLE)
def test_sampling(folder: Path, name: str) -> None:
    words, expected = SAMPLE[name]
    common = [f"--collection={folder}/c"]
    common += [] if any(word.startswith("--bigquery") for word in words) else [f"--output={folder}/out/s"]
    common += [] if any(word.startswith("--bands") for word in words) else ["--bands=B1"]
    outcome = execute(sample_points.main, *(word.format(folder) for word in words), *common)
    assert outcome.code in (1, 2)
    assert expected in outcome.err
    check_words("sample", outcome)


BUILD = {
    "broken": (["--cogs={}/broken.tif"], "or skip them with --on_error skip."),
    "no columns": (
        ["--table={}/items.parquet"],
        "Map columns with --column_map THEIRS:OURS,..., and files with --href_column and --bands.",
    ),
    "no such href": (["--table={}/items.parquet", "--href_column=q"], "--href_column is 'q'"),
    "no such column": (["--table={}/items.parquet", "--column_map=q:id"], "--column_map names column 'q'"),
    "dates": (["--cogs={}/s.tif", "--datetime_regex=s"], "--datetime_regex 's' has no group"),
}


@pytest.mark.parametrize("name", BUILD)
def test_building(folder: Path, name: str) -> None:
    words, expected = BUILD[name]
    outcome = execute(build_collection.main, *(word.format(folder) for word in words), f"--output={folder}/new")
    assert outcome.code in (1, 2)
    assert expected in outcome.err
    check_words("build", outcome)


CHIPS = {
    "no CRS": (["--polygons={}/f.csv", "--geometry_column=wkt"], "give it with --geometry_crs"),
    "no geometry": (["--polygons={}/f.csv"], "has no CRS; give it with --geometry_crs"),
    "reserved": (["--polygons={}/f.csv", "--geometry_column=wkt", "--geometry_crs=4326"], "with --columns A,B"),
    "pixels": (["--polygons={}/f.geojson", "--max_chip_pixels=0"], "--max_chip_pixels is 0"),
    "named": (["--polygons={}/f.geojson", "--geometry_column=q"], "has no column 'q'"),
    "two CRSs": (["--polygons={}/f.geojson", "--geometry_crs=32631"], "--geometry_crs"),
    "fill": (["--polygons={}/f.geojson", "--fill=1000"], ""),
}


@pytest.mark.parametrize("name", CHIPS)
def test_chips(folder: Path, name: str) -> None:
    words, expected = CHIPS[name]
    common = [f"--collection={folder}/c", "--bands=B1", f"--output={folder}/out/c"]
    outcome = execute(read_chips.main, *(word.format(folder) for word in words), *common)
    assert outcome.code in (1, 2) or name == "fill"
    assert expected in outcome.err
    check_words("chips", outcome)


ZONES = {
    "no CRS": (["--polygons={}/f.csv", "--geometry_column=wkt"], "give it with --geometry_crs"),
    "no geometry": (["--polygons={}/f.csv"], "has no CRS; give it with --geometry_crs"),
    "reserved": (["--polygons={}/f.csv", "--geometry_column=wkt", "--geometry_crs=4326"], "with --columns A,B"),
    "held": (["--polygons={}/f.geojson", "--max_exact_values=0"], "--max_exact_values is 0"),
    "statistic": (["--polygons={}/f.geojson", "--statistics=maen"], "--statistics have 'maen'"),
    "twice": (["--polygons={}/f.geojson", "--statistics=sum,sum"], "--statistics are sum, sum"),
    "merged": (
        ["--polygons={}/f.geojson", "--merge=datetime", "--skip_invalid", "--match=latest"],
        "--skip_invalid is True, but --merge is 'datetime'",
    ),
    "merged columns": (
        ["--polygons={}/f.geojson", "--merge=datetime", "--extra_columns=record:a"],
        "use --merge record, or leave --extra_columns out",
    ),
    "no such column": (["--polygons={}/f.geojson", "--extra_columns=record:a"], "--extra_columns have 'record:a'"),
    "scales": (["--polygons={}/f.geojson", "--scales=B1=2,0"], "but --unscale is False"),
    "table": (["--polygons={}/f.geojson", "--bigquery=p"], "write it as PROJECT:DATASET.TABLE"),
    "clusters": (["--polygons={}/f.geojson", "--bigquery=p:d.t", "--bq_cluster_by=q"], "--bq_cluster_by names"),
}


@pytest.mark.parametrize("name", ZONES)
def test_zones(folder: Path, name: str) -> None:
    words, expected = ZONES[name]
    common = [f"--collection={folder}/c", "--bands=B1"]
    common += [] if any(word.startswith("--bigquery") for word in words) else [f"--output={folder}/out/z"]
    outcome = execute(zonal_statistics.main, *(word.format(folder) for word in words), *common)
    assert outcome.code in (1, 2)
    assert expected in outcome.err
    check_words("zones", outcome)


def test_names_of_the_users_columns_stay_as_they_are(folder: Path) -> None:
    words = [f"--points={folder}/named.parquet", "--geometry_crs=4326", "--columns=q", "--bands=B1"]
    outcome = execute(sample_points.main, *words, f"--collection={folder}/c", f"--output={folder}/out/s")
    assert "has no column 'q'; it has lon, lat, run_id" in outcome.err


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('leave it out with on_error="skip".', "leave it out with --on_error skip."),
        ("give columns=[...] or columns=['a']; no", "give --columns A,B or --columns A,B; no"),
        ("with anonymous=True, or", "with --anonymous (the files of --points: --points_anonymous), or"),
        (
            "requester_pays='my-project', say",
            "--requester_pays PROJECT (for --points: --points_requester_pays PROJECT), say",
        ),
        ("layout is 'values', but layout is good", "--layout is 'values', but layout is good"),
        ("the layout of columns and bands", "the layout of columns and bands"),
        ("column 'x_column' in /a/x_column/b; x_column.tif", "column 'x_column' in /a/x_column/b; x_column.tif"),
        (
            "it has x_column, y_column; give x_column and y_column.",
            "it has x_column, y_column; give --x_column and --y_column.",
        ),
        ("x_column has to be a number", "--x_column has to be a number"),
        ("lower cache_bytes; --cache_mb", "lower --cache_mb; --cache_mb"),
    ],
)
def test_spelling(text: str, expected: str) -> None:
    parser = sample_points.parser()
    parser.add_argument("--on_error", metavar="HOW")
    arguments = {name: to for name, to in sample_points.ARGUMENTS.items() if "on_error" not in name}
    assert Spelling.of(parser, arguments).spell(text) == expected


def test_missing_columns_keep_their_names() -> None:
    spelling = Spelling({"point_crs": "--geometry_crs"})
    missing = "the samples lack column(s) point_index, point_crs; they have lon, point_crs"
    assert spelling.spell(missing) == missing
    assert spelling.spell("t.csv lacks column(s) point_crs; give point_crs=4326").endswith("give --geometry_crs 4326")


@pytest.mark.parametrize("command", [*COMMANDS.values(), inspect_collection, report], ids=lambda each: each.__name__)
def test_every_argument_stands_for_a_flag(command: Any) -> None:
    flags = Spelling.of(command.parser(), command.ARGUMENTS).flags
    assert not [flag for flag in flags.values() if not re.fullmatch(r"--[a-z]\w+", flag)]
