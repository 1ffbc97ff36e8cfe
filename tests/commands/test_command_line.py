"""The two commands from end to end: what they write and print, their flags, exit codes and Ctrl-C."""

import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import ModuleType

import numpy as np
import pyarrow as pa
import pyarrow.csv as pv
import pyarrow.parquet as pq
import pytest
import rasterio
import shapely
import tifffile
from affine import Affine
from pyproj import Transformer

import rasteret_beam as rasteret
from pipelines import build_collection, sample_points
from pipelines.cli import logs, sample_job
from pipelines.cli.flags import access
from rasteret_beam import Access
from rasteret_beam.readers.storage import byte_ranges
from tests.support import rasters
from tests.support.commands import Outcome, as_flags, execute
from tests.support.paths import ROOT
from tests.support.scenes import elsewhere

pytestmark = pytest.mark.usefixtures("same_signal_handlers")

BANDS = ("red", "nir")
TILE = 64

# Two scenes on one grid, and one half a scene further east.
SCENES = {"a_20230101": 500_000.0, "b_20230601": 500_000.0, "c_20240301": 501_024.0}
DATES = {"a_20230101": datetime(2023, 1, 1), "b_20230601": datetime(2023, 6, 1), "c_20240301": datetime(2024, 3, 1)}

TO_LONLAT = Transformer.from_crs(32631, 4326, always_xy=True)
TO_UTM = Transformer.from_crs(4326, 32631, always_xy=True)

SAMPLE_TYPES = [
    ("point_index", pa.int64()),
    ("point_x", pa.float64()),
    ("point_y", pa.float64()),
    ("point_crs", pa.int32()),
    ("record_id", pa.string()),
    ("datetime", pa.timestamp("us")),
    ("collection", pa.string()),
    ("band", pa.string()),
    ("value", pa.float64()),
    ("raster_crs", pa.int32()),
]
KEPT_TYPES = [
    ("lon", pa.float64()),
    ("lat", pa.float64()),
    ("site", pa.string()),
    ("plot", pa.int32()),
    ("seen", pa.timestamp("ms")),
]

Truth = dict[tuple[int, str, str], float]


def scene(name: str, west: float, **other: object) -> rasters.RasterCase:
    options = {"COMPRESS": "DEFLATE", "INTERLEAVE": "BAND"}
    transform = Affine(16.0, 0.0, west, 0.0, -16.0, 4_500_000.0)
    shape = {"count": 2, "width": 128, "height": 96, "tile": (TILE, TILE)}
    return rasters.RasterCase(name=name, dtype="int16", transform=transform, options=options, **(shape | other))


@pytest.fixture(scope="module")
def scene_files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("scene_files")
    return [scene(name, west).write(folder) for name, west in SCENES.items()]


@pytest.fixture(scope="module")
def collection(scene_files: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("collections") / "tiny"
    rasteret.build_from_cogs(scene_files, bands=BANDS, datetime=list(DATES.values()), name="tiny").export(folder)
    return folder


def point_table(n: int, seed: int = 1) -> pa.Table:
    """Points in and about the scenes in degrees, then four that cannot have a sample."""
    rng = np.random.default_rng(seed)
    lon, lat = TO_LONLAT.transform(rng.uniform(499_900, 503_200, n), rng.uniform(4_498_400, 4_500_100, n))
    return pa.table(
        {
            "lon": pa.array([*lon, None, 3.0, 3.0, 0.0], type=pa.float64()),
            "lat": pa.array([*lat, 40.6, float("nan"), 95.0, 0.0], type=pa.float64()),
            "site": [f"s{number}" for number in range(n + 4)],
            "plot": pa.array(range(n + 4), type=pa.int32()),
            "seen": pa.array(range(n + 4), type=pa.timestamp("ms")),
        }
    )


def truth(scene_files: list[Path], points: pa.Table, match: str = "all") -> Truth:
    """(point_index, record_id, band) to value, by rasterio; of the scenes, which are in order of time."""
    lon, lat = (points[name].to_numpy() for name in ("lon", "lat"))
    unusable = ~(np.isfinite(lon) & (np.abs(lat) <= 90))
    x, y = TO_UTM.transform(np.where(unusable, 0.0, lon), np.where(unusable, 0.0, lat))
    found: Truth = {}
    newest: dict[tuple[int, str], str] = {}
    for path in scene_files:
        for number, band in enumerate(BANDS):
            values, inside = rasters.oracle(path, number, x, y)
            for point in np.flatnonzero(inside & ~unusable).tolist():
                found[point, path.stem, band] = values[point]
                newest[point, band] = path.stem
    if match == "latest":
        return {key: value for key, value in found.items() if newest[key[0], key[2]] == key[1]}
    return found


def written(prefix: Path) -> pa.Table:
    return pa.concat_tables(pq.read_table(path) for path in sorted(prefix.parent.glob(f"{prefix.name}-*-of-*.parquet")))


def as_truth(samples: pa.Table) -> Truth:
    rows = samples.select(["point_index", "record_id", "band", "value"]).to_pylist()
    found = {(row["point_index"], row["record_id"], row["band"]): row["value"] for row in rows}
    assert len(found) == len(rows), "a point has two rows of one record and band"
    return found


@dataclass(frozen=True)
class Job:
    """A finished run over 200 points, and the four that cannot be sampled."""

    points: pa.Table
    outcome: Outcome
    samples: pa.Table
    unsampled: pa.Table


@pytest.fixture(scope="module")
def job(collection: Path, tmp_path_factory: pytest.TempPathFactory) -> Job:
    folder = tmp_path_factory.mktemp("job")
    points = point_table(200)
    pq.write_table(points, folder / "points.parquet")
    flags = as_flags(
        points=folder / "points.parquet",
        geometry_crs=4326,
        collection=collection,
        bands="red,nir",
        output=folder / "out" / "samples",
        unsampled=folder / "out" / "left",
    )
    outcome = execute(sample_points.main, *flags)
    assert (outcome.code, outcome.err) == (0, "")
    assert not list(folder.glob("out/*temporary*"))
    return Job(points, outcome, written(folder / "out" / "samples"), written(folder / "out" / "left"))


Sample = Callable[..., Outcome]


@pytest.fixture
def sample(collection: Path, tmp_path: Path) -> Sample:
    """Run ``sample_points`` on a table (or a path) into ``out/samples``."""

    def run(points: pa.Table | Path, *more: str, **flags: object) -> Outcome:
        if isinstance(points, pa.Table):
            pq.write_table(points, tmp_path / "points.parquet")
            points = tmp_path / "points.parquet"
        usual = {"geometry_crs": 4326, "collection": collection, "bands": "red,nir", "output": tmp_path / "out/samples"}
        return execute(sample_points.main, *as_flags(**({"points": points} | usual | flags)), *more)

    return run


class TestSamples:
    def test_values_are_those_of_rasterio(self, job: Job, scene_files: list[Path]):
        expected = truth(scene_files, job.points)
        assert 400 < len(expected) < 1200
        assert as_truth(job.samples) == expected

    def test_schema(self, job: Job):
        assert job.samples.schema == pa.schema([*SAMPLE_TYPES, *KEPT_TYPES])

    def test_other_columns_of_a_row_belong_to_its_point_and_record(self, job: Job):
        points = job.points.to_pylist()
        for row in job.samples.to_pylist():
            point = points[row["point_index"]]
            kept = {name: row[name] for name, _ in KEPT_TYPES}
            assert kept == {name: point[name] for name in kept}
            assert (row["point_x"], row["point_y"], row["point_crs"]) == (point["lon"], point["lat"], 4326)
            assert (row["datetime"], row["raster_crs"]) == (DATES[row["record_id"]], 32631)
            assert row["collection"] == "tiny"

    def test_unsampled_points_have_a_reason(self, job: Job, scene_files: list[Path]):
        sampled = {point for point, _, _ in truth(scene_files, job.points)}
        expected = {number: "no_record" for number in range(200) if number not in sampled}
        expected |= {200: "null", 201: "not_finite", 202: "out_of_range", 203: "no_record"}
        rows = job.unsampled.to_pylist()
        assert {row["point_index"]: row["reason"] for row in rows} == expected
        assert len(rows) == len(expected)
        kept = job.unsampled.select([name for name, _ in KEPT_TYPES]).to_pylist()
        given = job.points.take([row["point_index"] for row in rows]).to_pylist()
        assert str(kept) == str(given)  # NaN is not equal to itself
        assert job.unsampled.schema == pa.schema([*SAMPLE_TYPES[:4], ("reason", pa.string()), *KEPT_TYPES])

    def test_summary_is_the_truth(self, job: Job, scene_files: list[Path]):
        expected = truth(scene_files, job.points)
        sampled = len({point for point, _, _ in expected})
        tiles, stored = self.touched(scene_files, job.points)
        figures = job.outcome.figures
        figures.pop("seconds", None)
        assert figures == {
            "points read": 204,
            "sampled": sampled,
            "unsampled": 204 - sampled,
            "null": 1,
            "not_finite": 1,
            "out_of_range": 1,
            "no_record": 204 - sampled - 3,
            "rows": len(expected),
            "tiles decoded": tiles,
            "bytes of tiles read": stored,
        }
        assert re.search(r"^seconds +\d+\.\d$", job.outcome.out, re.M)

    @staticmethod
    def touched(scene_files: list[Path], points: pa.Table) -> tuple[int, int]:
        """How many tiles hold a point, both bands counted, and their compressed bytes."""
        x, y = TO_UTM.transform(points["lon"][:200].to_numpy(), points["lat"][:200].to_numpy())
        tiles = stored = 0
        for path in scene_files:
            with rasterio.open(path) as dataset:
                row, col = rasters.pixel_of(dataset.transform, x, y)
            inside = (row >= 0) & (row < 96) & (col >= 0) & (col < 128)
            numbers = np.unique(row[inside] // TILE * 2 + col[inside] // TILE)
            with tifffile.TiffFile(path) as file:
                counts = np.reshape(file.pages[0].databytecounts, (2, -1))
            tiles += 2 * len(numbers)
            stored += int(counts[:, numbers].sum())
        return tiles, stored


class TestChoices:
    def test_columns(self, sample: Sample, tmp_path: Path):
        assert sample(point_table(20), "--columns=plot,site").code == 0
        assert written(tmp_path / "out/samples").schema == pa.schema([*SAMPLE_TYPES, KEPT_TYPES[3], KEPT_TYPES[2]])

    def test_no_column_at_all(self, sample: Sample, tmp_path: Path):
        assert sample(point_table(20), "--columns=").code == 0
        assert written(tmp_path / "out/samples").schema == pa.schema(SAMPLE_TYPES)

    def test_one_band(self, sample: Sample, scene_files: list[Path], tmp_path: Path):
        points = point_table(60)
        assert sample(points, bands="nir").code == 0
        expected = {key: value for key, value in truth(scene_files, points).items() if key[2] == "nir"}
        assert as_truth(written(tmp_path / "out/samples")) == expected

    def test_latest(self, sample: Sample, scene_files: list[Path], tmp_path: Path):
        points = point_table(200)
        outcome = sample(points, "--match", "latest")
        expected = truth(scene_files, points, "latest")
        assert {record for _, record, _ in expected} == {"b_20230601", "c_20240301"}
        assert as_truth(written(tmp_path / "out/samples")) == expected
        assert outcome.figures["rows"] == len(expected)

    @pytest.mark.parametrize(
        ("flag", "records"),
        [
            ("--date_range=2023-06-01,2024-03-01", ["b_20230601", "c_20240301"]),
            ("--date_range=2022-01-01/2023-01-01", ["a_20230101"]),
            ("--bbox=3.0245,40,3.04,41", ["c_20240301"]),
            ("--bbox=-10,40,3.01,41", ["a_20230101", "b_20230601"]),
        ],
    )
    def test_part_of_the_collection(
        self, sample: Sample, scene_files: list[Path], tmp_path: Path, flag: str, records: list[str]
    ):
        points = point_table(100)
        assert sample(points, flag).code == 0
        chosen = [path for path in scene_files if path.stem in records]
        assert as_truth(written(tmp_path / "out/samples")) == truth(chosen, points)


class TestRerun:
    @pytest.mark.parametrize("numbers", [(60, 5), (5, 60)])
    def test_replaces_the_rows(self, sample: Sample, scene_files: list[Path], tmp_path: Path, numbers: tuple[int, int]):
        for n in numbers:
            points = point_table(n, seed=n)
            assert sample(points).code == 0
            assert as_truth(written(tmp_path / "out/samples")) == truth(scene_files, points)

    def test_replaces_shards_of_another_number_and_nothing_else(self, sample: Sample, tmp_path: Path):
        out = tmp_path / "out"
        stale = [f"samples-0000{number}-of-00003.parquet" for number in range(3)]
        others = [
            "notes.txt",
            "samples.parquet",
            "samples-00000-of-00003.csv",
            "samples-2023-00000-of-00001.parquet",
            "my-samples-00000-of-00001.parquet",
            "samples-a-of-b.parquet",
        ]
        (out / "deeper").mkdir(parents=True)
        for name in [*stale, *others, f"deeper/{stale[0]}"]:
            (out / name).write_text(name)
        assert sample(point_table(20)).code == 0
        names = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
        assert names == {"_samples.manifest.json", "samples-00000-of-00001.parquet", *others, f"deeper/{stale[0]}"}
        assert all((out / name).read_text() == name for name in others)

    def test_in_a_folder_with_brackets(self, sample: Sample, scene_files: list[Path], tmp_path: Path):
        out = tmp_path / "run[1]"
        out.mkdir()
        (out / "samples-00001-of-00002.parquet").write_text("stale")
        points = point_table(20)
        outcome = sample(points, output=out / "samples")
        assert (outcome.code, outcome.err) == (0, "")
        assert sorted(path.name for path in out.iterdir()) == [
            "_samples.manifest.json",
            "samples-00000-of-00001.parquet",
        ]
        assert as_truth(pq.read_table(out / "samples-00000-of-00001.parquet")) == truth(scene_files, points)


class TestNothingSampled:
    @pytest.fixture
    def outcome(self, sample: Sample, tmp_path: Path) -> Outcome:
        exchanged = {"x_column": "lat", "y_column": "lon", "unsampled": tmp_path / "out/left"}
        return sample(point_table(50).slice(0, 50), **exchanged)

    def test_exit_code_and_hint(self, outcome: Outcome):
        assert outcome.code == 0
        assert outcome.err.splitlines() == [
            "warning: none of the points lies in the collection, but they do with x and y exchanged: "
            "x has to be the longitude (or easting), y the latitude (or northing)"
        ]
        assert outcome.figures["points read"] == outcome.figures["unsampled"] == 50
        assert outcome.figures["rows"] == outcome.figures["sampled"] == 0

    def test_files_have_the_schema(self, outcome: Outcome, tmp_path: Path):
        samples = written(tmp_path / "out/samples")
        assert samples.schema == pa.schema([*SAMPLE_TYPES, *KEPT_TYPES])
        assert (len(samples), len(written(tmp_path / "out/left"))) == (0, 50)


class TestPointFiles:
    def test_csv(self, sample: Sample, scene_files: list[Path], tmp_path: Path):
        points = point_table(40).slice(0, 40)
        pv.write_csv(points.drop_columns(["seen"]), tmp_path / "points.csv")
        assert sample(tmp_path / "points.csv").code == 0
        samples = written(tmp_path / "out/samples")
        assert as_truth(samples) == truth(scene_files, points)
        assert samples.schema == pa.schema([*SAMPLE_TYPES, *KEPT_TYPES[:3], ("plot", pa.int64())])
        assert all(row["site"] == f"s{row['point_index']}" for row in samples.to_pylist())

    @pytest.mark.parametrize("crs", ["absent", "projected"])
    def test_geoparquet(self, sample: Sample, scene_files: list[Path], tmp_path: Path, crs: str):
        points = point_table(40).slice(0, 40)
        x, y = points["lon"].to_numpy(), points["lat"].to_numpy()
        described = {"encoding": "WKB", "geometry_types": ["Point"]}
        if crs == "projected":
            x, y = TO_UTM.transform(x, y)
            described["crs"] = json.loads(TO_UTM.target_crs.to_json())
        geo = {"version": "1.1.0", "primary_column": "where", "columns": {"where": described}}
        wkb = [*shapely.to_wkb(shapely.points(x, y)), None]
        table = pa.table({"where": pa.array(wkb, type=pa.binary()), "site": [f"s{n}" for n in range(41)]})
        outcome = sample(table.replace_schema_metadata({"geo": json.dumps(geo)}), geometry_crs=None)
        samples = written(tmp_path / "out/samples")
        assert (outcome.code, outcome.figures["null"]) == (0, 1)
        assert as_truth(samples) == truth(scene_files, points)
        assert samples.schema == pa.schema([*SAMPLE_TYPES, ("site", pa.string())])
        assert set(samples["point_crs"].to_pylist()) == {32631 if crs == "projected" else 4326}

    def test_empty_wkb_point_is_unsampled(self, sample: Sample, tmp_path: Path):
        wkb = pa.array(shapely.to_wkb([shapely.Point(3.005, 40.645), shapely.Point()]), type=pa.binary())
        outcome = sample(pa.table({"where": wkb}), "--geometry_column=where")
        assert outcome.code == 0
        assert (outcome.figures["sampled"], outcome.figures["not_finite"]) == (1, 1)

    @pytest.mark.parametrize("place", ["", "*.parquet"])
    def test_point_index_is_the_row_over_all_files(
        self, sample: Sample, scene_files: list[Path], tmp_path: Path, place: str
    ):
        points = point_table(300)
        folder = tmp_path / "points"
        folder.mkdir()
        parts = {"a.parquet": (0, 130), "b.parquet": (130, 1), "c.parquet": (131, 0), "d.parquet": (131, 173)}
        for name in reversed(parts):
            pq.write_table(points.slice(*parts[name]), folder / name, row_group_size=40)
        (folder / "_SUCCESS").write_text("")
        assert sample(folder / place).code == 0
        samples = written(tmp_path / "out/samples")
        assert as_truth(samples) == truth(scene_files, points)
        assert samples["plot"].to_pylist() == samples["point_index"].to_pylist()


REQUIRED = ("--points=p", "--collection=c", "--bands=b", "--output=o")


class TestFlags:
    @pytest.mark.parametrize(
        ("wrong", "near"),
        [
            ("--pionts=p", "--points"),
            ("--poin=p", "--points"),
            ("--band=b", "--bands"),
            ("--colection=c", "--collection"),
            ("--outptu=o", "--output"),
            ("--x-column=x", "--x_column"),
            ("--geometry_csr=4326", "--geometry_crs"),
            ("--date-range=2023,2024", "--date_range"),
            ("--tmp_location=/tmp/x", "--temp_location"),
            ("--runer=DirectRunner", "--runner"),
        ],
    )
    def test_typo_is_refused_with_the_nearest_flag(self, wrong: str, near: str):
        outcome = execute(sample_points.main, *REQUIRED, wrong)
        flag = wrong.split("=")[0]
        assert (outcome.code, outcome.out) == (2, "")
        assert outcome.err == f"error: unknown flag {flag}; did you mean {near}?\n"

    def test_typo_with_its_value_after_a_blank(self):
        outcome = execute(sample_points.main, "--pionts", "p", *REQUIRED[1:])
        assert (outcome.code, outcome.err) == (2, "error: unknown flag --pionts; did you mean --points?\n")

    @pytest.mark.parametrize(
        ("wrong", "near"),
        [("--cog=c", "--cogs"), ("--datetime_regexp=x", "--datetime_regex"), ("--on-error=skip", "--on_error")],
    )
    def test_typo_in_build_collection(self, wrong: str, near: str):
        outcome = execute(build_collection.main, "--cogs=c", "--output=o", wrong)
        flag = wrong.split("=")[0]
        assert (outcome.code, outcome.err) == (2, f"error: unknown flag {flag}; did you mean {near}?\n")

    def test_flag_like_no_other(self):
        outcome = execute(sample_points.main, *REQUIRED, "--zzzzzzzz=1")
        assert (outcome.code, outcome.err) == (2, "error: unknown flag --zzzzzzzz; see --help\n")

    def test_stray_word(self):
        outcome = execute(sample_points.main, *REQUIRED[:2], "--bands", "red", "nir", "--output=o")
        assert outcome.code == 2
        assert outcome.err.splitlines() == [
            "error: 'nir' does not belong to a flag; write lists with commas and without blanks"
        ]

    @pytest.mark.parametrize("left_out", REQUIRED)
    def test_missing_flag_is_named(self, left_out: str):
        outcome = execute(sample_points.main, *(flag for flag in REQUIRED if flag != left_out))
        assert outcome.code == 2
        name = left_out.split("=")[0]
        points = "--points --points_table --points_query --retry"
        pairs = {"--points": points, "--output": "--output --bigquery --iceberg"}
        needed = f"the following arguments are required: {name}"
        if name in pairs:
            needed = f"one of the arguments {pairs[name]} is required"
        assert outcome.err == f"error: {needed}\n"

    @pytest.mark.parametrize(
        ("flag", "message"),
        [
            ("--match=newest", "invalid choice: 'newest' (choose from "),
            ("--bbox=1,2,3", "'1,2,3' is not west,south,east,north in degrees"),
            ("--date_range=2023/2024/2025", "--date_range: '2023/2024/2025'; give (first, last) or 'FIRST/LAST'"),
            ("--direct_num_workers=x", "argument --direct_num_workers: invalid int value: 'x'"),
            ("--requester_pays=", "'' is neither a project, true nor false"),
        ],
    )
    def test_unusable_value_is_a_usage_error(self, flag: str, message: str):
        outcome = execute(sample_points.main, *REQUIRED, flag)
        assert outcome.code == 2
        assert message in outcome.err
        assert len(outcome.err.splitlines()) == 1

    @pytest.mark.parametrize(("text", "payer"), [("true", True), ("False", False), ("my-project", "my-project")])
    def test_who_pays(self, text: str, payer: bool | str):
        flags, _ = sample_points.parser().parse([*REQUIRED, f"--requester_pays={text}"])
        assert access(flags) == (Access(requester_pays=payer) if payer else None)

    @pytest.mark.parametrize("flag", ["points", "points_table", "points_query", "retry"])
    def test_a_source_without_a_name(self, collection: Path, flag: str):
        bands = [] if flag == "retry" else ["--bands=red"]
        outcome = execute(sample_points.main, f"--{flag}=", *bands, f"--collection={collection}", "--output=o/s")
        assert outcome.code == 2
        assert outcome.err == f"error: argument --{flag}: it is empty\n"

    def test_flags_of_beam_are_taken(self, sample: Sample, tmp_path: Path):
        flags = [f"--temp_location={tmp_path}/t", "--job_name=a", "--parallelism=2", "--experiments", "use_x"]
        outcome = sample(point_table(5), *flags)
        assert (outcome.code, outcome.err) == (0, "")
        assert outcome.figures["points read"] == 9

    @pytest.mark.parametrize("main", [sample_points.main, build_collection.main])
    @pytest.mark.parametrize(
        "words", [["--direct_running_mode=multi_threading"], ["--direct_running_mode", "multi_threading"]]
    )
    def test_threaded_mode_is_refused(self, main: Callable[[list[str]], int], words: list[str]):
        required = REQUIRED if main is sample_points.main else ["--cogs=c", "--output=o"]
        outcome = execute(main, *required, *words)
        assert outcome.code == 2
        assert "--direct_running_mode=multi_threading is refused: Beam's local runner loses data" in outcome.err
        assert len(outcome.err.splitlines()) == 1

    @pytest.mark.parametrize(
        ("module", "flags"),
        [
            (
                sample_points,
                "points x_column y_column geometry_column geometry_crs columns collection bands bbox date_range match "
                "output unsampled help",
            ),
            (
                build_collection,
                "cogs table bands datetime_regex href_column column_map name data_source on_error shards output help",
            ),
        ],
    )
    def test_help_names_every_flag(self, module: ModuleType, flags: str):
        outcome = execute(module.main, "--help")
        assert (outcome.code, outcome.err) == (0, "")
        shown = set(re.findall(r"^  (?:-h, )?--(\w+)", outcome.out, re.M))
        assert set(flags.split()) <= shown


def wait_for(condition: Callable[[], object], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "nothing happened in time"
        time.sleep(0.02)


@dataclass(frozen=True)
class Running:
    """A sampling job under way, into a place with an earlier output."""

    process: subprocess.Popen
    out: Path
    earlier: dict[str, bytes]

    def temporary(self) -> list[Path]:
        return list(self.out.glob("_*.temporary-*"))

    def signal(self, number: int) -> str:
        """Send a signal while the job has files under way; gives what it prints to standard error."""
        wait_for(lambda: self.temporary() or self.process.poll() is not None)
        assert self.process.poll() is None, "the job was too short"
        self.process.send_signal(number)
        return self.process.communicate(timeout=30)[1]


def test_logs_stay_quiet_while_a_failed_run_is_cleaned_up() -> None:
    """After the block of the run, that of the whole command still holds."""
    root = logging.getLogger()
    before = list(root.filters)
    with logs.quiet("apache_beam.utils.retry"):
        with logs.quiet("apache_beam"):
            assert logging.getLogger("apache_beam").level > logging.CRITICAL
        assert len(root.filters) == len(before) + 1
        warning = root.makeRecord("rasterio._env", logging.WARNING, "", 0, "CPLE_AppDefined in a bad tag", (), None)
        of_s3 = root.makeRecord("root", logging.ERROR, "s3io.py", 0, "a traceback", (), None)
        assert root.filter(warning) and not root.filter(of_s3)
    assert list(root.filters) == before


def test_ctrl_c_while_a_command_is_loaded() -> None:
    """The module is found, and its imports are under way, when the signal comes: no traceback of one of them."""
    words = [sys.executable, "-v", "-m", "pipelines.sample_points", "--help"]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "import 'apache_beam.coders" in line:
                break
        process.send_signal(signal.SIGINT)
        _, rest = process.communicate(timeout=30)
    assert process.returncode == -signal.SIGINT and "Traceback" not in rest


def test_points_that_the_output_would_replace(sample: Sample, tmp_path: Path) -> None:
    pq.write_table(point_table(20), tmp_path / "s-00000-of-00001.parquet")
    before = (tmp_path / "s-00000-of-00001.parquet").read_bytes()
    outcome = sample(tmp_path / "s-00000-of-00001.parquet", output=tmp_path / "s")
    assert outcome.code == 1
    assert f"--output {tmp_path}/s would replace --points {tmp_path}/s-00000-of-00001.parquet" in outcome.err
    assert (tmp_path / "s-00000-of-00001.parquet").read_bytes() == before


class TestInterrupt:
    @pytest.fixture
    def start(self, tmp_path: Path) -> Iterator[Callable[..., Running]]:
        out = tmp_path / "out"
        out.mkdir()
        earlier = {f"{name}-00000-of-00001.parquet": name.encode() for name in ("samples", "left")}
        for name, content in earlier.items():
            (out / name).write_bytes(content)
        started = []

        def run(points: pa.Table, collection: rasteret.Collection) -> Running:
            pq.write_table(points, tmp_path / "points.parquet")
            collection.export(tmp_path / "collection")
            outputs = {"output": out / "samples", "unsampled": out / "left"}
            inputs = {"points": tmp_path / "points.parquet", "collection": tmp_path / "collection"}
            flags = as_flags(**inputs, **outputs, geometry_crs=4326, bands="red,nir", columns="")
            words = [sys.executable, "-m", "pipelines.sample_points", *flags]
            pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
            (tmp_path / "tmp").mkdir()
            here = {"TMPDIR": str(tmp_path / "tmp")}
            environment = os.environ | {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"} | here
            started.append(subprocess.Popen(words, cwd=ROOT, env=environment, **pipes))
            return Running(started[0], out, earlier)

        yield run
        for process in started:
            if process.poll() is None:
                process.kill()
                process.communicate()

    @staticmethod
    def check_clean(running: Running, err: str) -> None:
        assert (running.process.returncode, err.count("\n")) == (130, 1), err
        assert err == "interrupted: the job did not finish; its unfinished files are removed\n"
        assert {path.name: path.read_bytes() for path in running.out.iterdir()} == running.earlier
        assert list((running.out.parent / "tmp").iterdir()) == []

    @pytest.mark.slow
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_while_tiles_are_sampled(self, start: Callable[..., Running], scene_files: list[Path], number: int):
        # The unsampled points are written before sampling begins, which takes seconds for so many records.
        many = rasteret.build_from_cogs([scene_files[0]] * 64, bands=BANDS)
        running = start(point_table(50_000), many)
        wait_for(lambda: list(running.out.glob("_left.temporary-*/*.parquet")) or running.process.poll() is not None)
        self.check_clean(running, running.signal(number))

    @pytest.fixture
    def waiting(self, start: Callable[..., Running], scene_files: list[Path]) -> Iterator[Running]:
        """A job that waits for a server which does not answer."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            server.settimeout(60)
            href = f"http://127.0.0.1:{server.getsockname()[1]}/scene.tif"
            running = start(point_table(50), elsewhere(rasteret.build_from_cogs(scene_files[:1], bands=BANDS), href))
            connection, _ = server.accept()
            with connection:
                yield running

    def test_while_a_server_does_not_answer(self, waiting: Running):
        """SIGHUP is what a closed terminal sends."""
        self.check_clean(waiting, waiting.signal(signal.SIGHUP))

    @pytest.mark.slow
    def test_killed_and_run_again(self, waiting: Running, sample: Sample):
        """Readers see the earlier output; the next run removes what the killed one has left, and says so."""
        waiting.process.kill()
        waiting.process.communicate()
        left = sorted(path for path in waiting.out.iterdir() if path.name not in waiting.earlier)
        assert [path.name.rpartition("-")[0] for path in left] == ["_left.temporary", "_samples.temporary"]
        assert {name: (waiting.out / name).read_bytes() for name in waiting.earlier} == waiting.earlier
        outcome = sample(point_table(50), output=waiting.out / "samples", unsampled=waiting.out / "left")
        assert (outcome.code, sorted(outcome.err.splitlines())) == (
            0,
            [f"removed {folder}/, left by a killed run" for folder in left],
        )
        there = {path.name for path in waiting.out.iterdir() if not path.name.endswith(".manifest.json")}
        assert there == set(waiting.earlier)
        assert len(pq.read_table(waiting.out / "samples-00000-of-00001.parquet")) > 0

    def test_where_nobody_reads_what_it_prints(self, waiting: Running):
        """``2>&1 | tee log``: Ctrl-C ends the reader of the pipe too."""
        waiting.process.stderr.close()
        waiting.process.send_signal(signal.SIGINT)
        assert waiting.process.wait(timeout=30) == 130
        assert {path.name: path.read_bytes() for path in waiting.out.iterdir()} == waiting.earlier

    def test_before_the_job_runs(self, monkeypatch: pytest.MonkeyPatch, sample: Sample):
        def interrupted(path: str, **options: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(sample_job, "load", interrupted)
        try:
            outcome = sample(point_table(5))
        except KeyboardInterrupt:
            pytest.fail("Ctrl-C while the collection is opened ends in a traceback")
        assert outcome.code == 130
        assert len(outcome.err.splitlines()) == 1


Build = Callable[..., Outcome]


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """Run ``build_collection`` into ``built``."""

    def run(**flags: object) -> Outcome:
        return execute(build_collection.main, *as_flags(**({"output": tmp_path / "built"} | flags)))

    return run


def check_same(built: Path, eager: rasteret.Collection) -> None:
    """The collection on disk is the one in memory: columns, types, records."""
    expected = eager.to_table().sort_by("id")
    found = rasteret.load(built).to_table().sort_by("id")
    assert sorted(found.column_names) == sorted([*expected.column_names, "checksums"])
    for name in expected.column_names:
        assert found[name].type == expected[name].type, name
        assert found[name].to_pylist() == expected[name].to_pylist(), name


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class TestBuildFromCogs:
    @pytest.mark.parametrize("kind", ["folder", "glob", "list"])
    def test_is_what_the_eager_function_builds(self, build: Build, scene_files: list[Path], tmp_path: Path, kind: str):
        folder = scene_files[0].parent
        cogs = {"folder": folder, "glob": f"{folder}/*.tif", "list": ",".join(map(str, scene_files))}[kind]
        outcome = build(cogs=cogs, datetime_regex=r"_(\d{8})", bands="red,nir", name="tiny", data_source="made up")
        assert (outcome.code, outcome.err) == (0, "")
        assert outcome.out == f"3 of 3 records in {tmp_path}/built, bands red, nir\n"
        eager = rasteret.build_from_cogs(scene_files, bands=BANDS, datetime=list(DATES.values()))
        check_same(tmp_path / "built", eager)
        built = rasteret.load(tmp_path / "built")
        assert (built.name, built.data_source) == ("tiny", "made up")

    def test_bands_by_index(self, build: Build, scene_files: list[Path], tmp_path: Path):
        assert build(cogs=scene_files[0].parent, bands="swir:1").code == 0
        check_same(tmp_path / "built", rasteret.build_from_cogs(scene_files, bands={"swir": 1}))

    def test_all_bands_and_no_date(self, build: Build, scene_files: list[Path], tmp_path: Path):
        assert build(cogs=scene_files[0].parent).code == 0
        check_same(tmp_path / "built", rasteret.build_from_cogs(scene_files))
        assert rasteret.load(tmp_path / "built").bands == ["B1", "B2"]

    def test_in_several_files(self, build: Build, scene_files: list[Path], tmp_path: Path):
        assert build(cogs=scene_files[0].parent, bands="red,nir", shards=8).code == 0
        assert len(list((tmp_path / "built").rglob("*.parquet"))) > 1
        check_same(tmp_path / "built", rasteret.build_from_cogs(scene_files, bands=BANDS))

    def test_url(self, build: Build, monkeypatch: pytest.MonkeyPatch):
        """Nothing listens there: the file is named with that, as any other that cannot be opened."""
        monkeypatch.setattr(byte_ranges, "RETRY_POLICY", byte_ranges.RetryPolicy(tries=2, first_pause=0.01))
        outcome = build(cogs="http://127.0.0.1:9/scene.tif")
        assert outcome.code == 1
        why = "its size could not be read in 2 attempt(s); last error: the connection was refused"
        assert f"http://127.0.0.1:9/scene.tif: {why}" in outcome.err

    @pytest.mark.parametrize(
        ("flags", "message"),
        [
            ({"datetime_regex": "("}, "--datetime_regex '(' is not a regular expression: "),
            ({"datetime_regex": r"_\d{8}"}, r"--datetime_regex '_\\d{8}' has no group; "),
            ({"datetime_regex": r"x(\d{8})"}, r"--datetime_regex 'x(\\d{8})' does not match "),
            ({"shards": 0}, "--shards is 0; it has to be 1 or more"),
            ({"bands": "red,red"}, "red"),
            ({"href_column": "path"}, "--href_column goes with --table, not with --cogs"),
            ({"column_map": "a:id"}, "--column_map goes with --table, not with --cogs"),
        ],
    )
    def test_unusable_value(self, build: Build, scene_files: list[Path], tmp_path: Path, flags: dict, message: str):
        outcome = build(cogs=scene_files[0].parent, **flags)
        assert outcome.code in (1, 2)
        assert message in outcome.err
        assert len(outcome.err.splitlines()) == 1
        assert not (tmp_path / "built").exists()

    @pytest.mark.parametrize("flags", [{}, {"cogs": "a.tif", "table": "b.parquet"}, {"cogs": ","}])
    def test_either_cogs_or_table(self, build: Build, flags: dict):
        outcome = build(**flags)
        assert outcome.code == 2
        assert "--cogs" in outcome.err
        assert len(outcome.err.splitlines()) == 1

    def test_no_file(self, build: Build, tmp_path: Path):
        (tmp_path / "empty").mkdir()
        outcome = build(cogs=tmp_path / "empty")
        expected = f"error: there is no *.tif file in {tmp_path}/empty; names that begin with . or _ are skipped\n"
        assert (outcome.code, outcome.err) == (1, expected)


class TestBuildFromTable:
    @pytest.fixture
    def items(self, scene_files: list[Path], tmp_path: Path) -> Path:
        table = pa.table(
            {
                "key": list("abc"),
                "when": ["2023-01-01", "2023-06-01", "2024-03-01"],
                "path": [str(path) for path in scene_files],
                "eo:cloud_cover": [1.0, 2.0, 3.0],
            }
        )
        pq.write_table(table, tmp_path / "items.parquet")
        return tmp_path / "items.parquet"

    def test_is_what_the_eager_function_builds(self, build: Build, items: Path, tmp_path: Path):
        mapped = {"key": "id", "when": "datetime"}
        column_map = ",".join(f"{theirs}:{ours}" for theirs, ours in mapped.items())
        outcome = build(table=items, href_column="path", bands="nir:1,red:0", column_map=column_map)
        assert (outcome.code, outcome.err) == (0, "")
        assert outcome.out == f"3 of 3 records in {tmp_path}/built, bands nir, red\n"
        eager = rasteret.build_from_table(
            str(items), href_column="path", band_index_map={"nir": 1, "red": 0}, column_map=mapped
        )
        check_same(tmp_path / "built", eager)
        assert rasteret.load(tmp_path / "built").to_table().sort_by("id")["eo:cloud_cover"].to_pylist() == [1, 2, 3]

    @pytest.mark.parametrize(
        ("flags", "names"),
        [
            ({"href_column": "paths"}, ["'paths'", "key, when, path"]),
            ({"href_column": "path"}, ["id, datetime", "column_map"]),
            ({"href_column": "path", "column_map": "ky:id"}, ["'ky'", "key, when, path"]),
            ({"href_column": "path", "column_map": "key"}, ["'key'", "THEIRS:OURS"]),
        ],
    )
    def test_unknown_column(self, build: Build, items: Path, tmp_path: Path, flags: dict, names: list[str]):
        outcome = build(table=items, **flags)
        assert outcome.code == 1
        assert all(name in outcome.err for name in names)
        assert len(outcome.err.splitlines()) == 1
        assert not (tmp_path / "built").exists()

    def test_record_without_a_file_does_not_get_lost(self, build: Build, scene_files: list[Path], tmp_path: Path):
        table = pa.table({"id": ["a", "b"], "datetime": ["2023", "2024"], "path": [str(scene_files[0]), None]})
        pq.write_table(table, tmp_path / "items.parquet")
        outcome = build(table=tmp_path / "items.parquet", href_column="path")
        assert outcome.code == 1, "exit code 0 means that the collection is complete"
        assert "b" in re.findall(r"\w+", outcome.err)


class TestFailingFiles:
    @pytest.fixture
    def folder(self, scene_files: list[Path], tmp_path: Path) -> Path:
        """One good file, and three that fail in three ways."""
        place = tmp_path / "cogs"
        place.mkdir()
        (place / "good_20230101.tif").write_bytes(scene_files[0].read_bytes())
        (place / "cut_20230101.tif").write_bytes(scene_files[0].read_bytes()[:100])
        (place / "text_20230101.tif").write_text("this is no raster")
        scene("nowhere_20230101", 0.0, crs=None).write(place)
        return place

    def test_all_are_listed_and_nothing_is_written(self, build: Build, folder: Path, tmp_path: Path):
        outcome = build(cogs=folder)
        assert outcome.code == 1
        lines = outcome.err.splitlines()
        assert lines[0] == "error: 3 raster file(s) could not be read:"
        failed = dict(line.strip().split(": ", 1) for line in lines[1:4])
        assert list(failed) == [f"{folder}/{name}_20230101.tif" for name in ("cut", "nowhere", "text")]
        assert failed[f"{folder}/nowhere_20230101.tif"].startswith("the file has no CRS")
        assert "not recognized" in failed[f"{folder}/text_20230101.tif"]
        assert "TIFF" in failed[f"{folder}/cut_20230101.tif"]
        assert "on_error" in lines[4] and len(lines) == 5
        assert sorted(path.name for path in tmp_path.iterdir()) == ["cogs"]

    def test_every_one_of_many_is_listed(self, build: Build, tmp_path: Path):
        (tmp_path / "cogs").mkdir()
        for number in range(25):
            (tmp_path / f"cogs/{number}.tif").write_text("no raster")
        outcome = build(cogs=tmp_path / "cogs")
        assert outcome.code == 1
        named = re.findall(rf"^  {tmp_path}/cogs/(\d+)\.tif: ", outcome.err, re.M)
        assert sorted(map(int, named)) == list(range(25))

    def test_skip_leaves_them_out_and_names_them(self, build: Build, folder: Path, tmp_path: Path):
        outcome = build(cogs=folder, on_error="skip", output=tmp_path / "built")
        assert outcome.code == 0
        assert outcome.out.startswith("1 of 4 records in ")
        lines = outcome.err.splitlines()
        names = ("cut", "nowhere", "text")
        assert all(f"{name}_20230101.tif: " in line for name, line in zip(names, lines[:3], strict=True))
        assert len(lines) == 4
        assert lines[3] == "warning: 3 records were skipped, see above"
        assert rasteret.load(tmp_path / "built").to_table()["id"].to_pylist() == ["good_20230101"]

    def test_skip_of_all_is_an_error(self, build: Build, folder: Path, tmp_path: Path):
        (folder / "good_20230101.tif").unlink()
        outcome = build(cogs=folder, on_error="skip")
        assert outcome.code == 1
        assert outcome.err.startswith("error: 3 raster file(s) could not be read:\n")
        assert not (tmp_path / "built").exists()

    def test_earlier_collection_stays(self, build: Build, folder: Path, scene_files: list[Path], tmp_path: Path):
        assert build(cogs=scene_files[0].parent).code == 0
        before = files_in(tmp_path / "built")
        assert build(cogs=folder).code == 1
        assert files_in(tmp_path / "built") == before


class TestBuildAgain:
    def test_replaces_the_whole_collection(self, build: Build, scene_files: list[Path], tmp_path: Path):
        dated = {"datetime_regex": r"_(\d{8})", "bands": "red,nir"}
        assert build(cogs=scene_files[0].parent, **dated, shards=3).code == 0
        assert build(cogs=scene_files[1], **dated).code == 0
        check_same(tmp_path / "built", rasteret.build_from_cogs(scene_files[1:2], bands=BANDS, datetime=["2023-06-01"]))
        assert list(files_in(tmp_path / "built")) == ["year=2023/month=6/part-0.parquet"]

    def test_leaves_what_is_not_the_collection(self, build: Build, scene_files: list[Path], tmp_path: Path):
        """A folder may hold other Parquet by mistake: the command refuses it, or leaves it alone."""
        mine = tmp_path / "built/project/raw/mine.parquet"
        mine.parent.mkdir(parents=True)
        pq.write_table(pa.table({"x": [1]}), mine)
        before = mine.read_bytes()
        build(cogs=scene_files[0])
        assert mine.exists() and mine.read_bytes() == before

    def test_refuses_a_folder_with_other_parquet(self, build: Build, scene_files: list[Path], tmp_path: Path):
        (tmp_path / "built").mkdir()
        pq.write_table(pa.table({"x": [1]}), tmp_path / "built/points.parquet")
        before = files_in(tmp_path / "built")
        outcome = build(cogs=scene_files[0])
        assert outcome.code == 1
        assert str(tmp_path / "built") in outcome.err and "not a collection" in outcome.err
        assert files_in(tmp_path / "built") == before
