"""The code of the README and of the documentation runs as shown."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import chdir, redirect_stdout
from functools import cache
from importlib import import_module
from io import StringIO
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import rasterio
import rasterio.mask
import shapely
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.yaml import yaml_provider, yaml_transform
from apache_beam.yaml.yaml_mapping import create_mapping_providers

import rasteret_beam.schema
from pipelines import demo
from pipelines.cli.subcommands import SUBCOMMANDS
from rasteret_beam.transforms.yaml.listing import listing
from tests.support.documents import PAGES, Block, blocks_of, check_calls, commands_of, run_command, run_page
from tests.support.paths import ROOT

README = blocks_of(ROOT / "README.md")
EAGER, BEAM, POLYGONS = (block.code for block in README if block.language == "python")
(COMMAND,) = (words for block in README if "rasteret-beam sample" in block.code for words in commands_of(block))
BUILT = [block for page in PAGES for block in blocks_of(page) if block.language == "python" and not block.runs]
RUN = [page for page in PAGES if page.parent == ROOT / "docs" and any(block.runs for block in blocks_of(page))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which ``make demo`` has run."""
    place = tmp_path_factory.mktemp("readme")
    assert demo.main(["--folder", str(place / "demo")]) == 0
    return place


def run_here(code: str, folder: Path) -> dict[str, Any]:
    """Run code in this process, which saves the imports; gives its names."""
    names: dict[str, Any] = {}
    with chdir(folder):
        exec(code, names)
    return names


def run(command: list[str], folder: Path) -> str:
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def rows(prefix: Path) -> pa.Table:
    return pa.concat_tables(pq.read_table(path) for path in sorted(prefix.parent.glob(prefix.name + "-*.parquet")))


def of_the_demo(folder: Path, bands: list[str]) -> pa.Table:
    """The rows that the demo has written, of some bands."""
    whole = rows(folder / "demo" / "samples")
    return in_order(whole.filter(pa.compute.is_in(whole["band"], pa.array(bands))))


def in_order(samples: pa.Table) -> pa.Table:
    return samples.sort_by([("point_index", "ascending"), ("band", "ascending"), ("record_id", "ascending")])


def test_the_demo_draws_its_map(folder: Path) -> None:
    """The README shows that map, in few bytes."""
    png = (folder / "demo" / "map.png").read_bytes()
    assert png.startswith(b"\x89PNG") and 50_000 < len(png) < 200_000
    points = f"{rows(folder / 'demo' / 'samples').num_rows // 3:,} points"
    assert points in (ROOT / "README.md").read_text() and points in (ROOT / "docs" / "index.md").read_text()


def test_the_beam_example(folder: Path) -> None:
    assert len([line for line in BEAM.splitlines() if line.strip()]) <= 15
    run_here(BEAM, folder)
    assert in_order(rows(folder / "demo" / "readme")).equals(of_the_demo(folder, ["A00", "A01"]))


def test_the_command(folder: Path, same_signal_handlers: None) -> None:
    assert COMMAND[:2] == ["rasteret-beam", "sample"]
    with chdir(folder):
        assert run_command(COMMAND) == 0
    assert in_order(rows(folder / "demo" / "latest")).equals(of_the_demo(folder, ["A00", "A01"]))
    assert len(rows(folder / "demo" / "latest")) == 2 * (60_000 - len(rows(folder / "demo" / "left")))


def test_the_example_in_one_process(folder: Path) -> None:
    printed = run([sys.executable, "-c", f"{EAGER}\n{POLYGONS}\nprint(means.num_rows, *means.column_names)"], folder)
    number, shown = printed.split(" ", 1)
    assert int(number) > 100_000  # two years
    assert shown.startswith("Collection('demo', 8 records, bands A00, A01")
    statistics = printed.splitlines()[1].split()
    assert int(statistics[0]) > 400 and statistics[7:10] == ["count", "mean", "std"]


Found = dict[str, Any]


def inputs(found: Found, folder: Path) -> None:
    names = rasteret_beam.schema.samples_schema().names
    assert found["by_columns"].select(names).equals(found["by_frame"].select(names))
    assert found["by_columns"].num_rows > 1000
    assert len(found["by_geojson"]) == 2  # both years
    kept = found["reading"].point_columns().schema.field("plot")
    assert kept.type == pa.string()
    of_file = found["from_file"].point_columns()
    assert of_file.schema.field("plot").type == pa.int64() and of_file.crs == "EPSG:4326"


def collections(found: Found, folder: Path) -> None:
    assert found["two"].bands == ["A00", "A15"] and len(found["two"]) == 2
    assert rasteret_beam.load(str(folder / "demo" / "exported")).describe()["records"] == 8
    built = rasteret_beam.load(str(folder / "demo" / "two_bands")).to_table(["id", "datetime"])
    assert built.sort_by("id").equals(found["collection"].to_table(["id", "datetime"]).sort_by("id"))
    assert rasteret_beam.load(str(folder / "demo" / "from_items")).bands == ["A00", "A01"]
    assert {row["id"] for row in found["recent"].to_table(["id"]).to_pylist()} == {
        "embedding_32632_2023",
        "embedding_32633_2023",
    }


def sampling(found: Found, folder: Path) -> None:
    assert in_order(found["samples"]).equals(of_the_demo(folder, ["A00", "A01"]))
    assert in_order(rows(folder / "demo" / "sampled")).equals(of_the_demo(folder, ["A00", "A01"]))
    assert len(rows(folder / "demo" / "first_run")) == len(found["located"]) and not len(
        rows(folder / "demo" / "letters")
    )
    _check_pixels(found["located"].slice(0, 500))
    assert found["located"]["record:year"].equals(pa.compute.year(found["located"]["datetime"]).cast(pa.int32()))
    assert sorted(found["every"]["point_index"].to_pylist()) == [*range(len(found["points"]))]
    filled, nodata = found["filled"]["value"].to_numpy(), of_the_demo(folder, ["A00"])["value"].to_numpy()
    assert 0 < np.count_nonzero(filled == demo.NODATA) < np.count_nonzero(nodata == demo.NODATA)
    assert found["wide"].column_names[7:9] == ["A00", "A01"]
    assert sum(found["tiles"]["points"].to_pylist()) == len(found["located"])
    assert found["clear"] == found["usual"] and found["cloud_free"].quality == (found["clear"], found["unlikely"])


def _check_pixels(located: pa.Table) -> None:
    """Values are those that rasterio reads at the named pixels of the named files."""
    for href in located["href"].unique().to_pylist():
        of_file = located.filter(pa.compute.equal(located["href"], href))
        with rasterio.open(href) as dataset:
            pixels = dataset.read(1)
        expected = pixels[of_file["pixel_row"].to_numpy(), of_file["pixel_col"].to_numpy()]
        assert of_file["value"].to_numpy().tolist() == expected.tolist()


def chips(found: Found, folder: Path) -> None:
    written = rows(folder / "demo" / "fields")
    assert len(written) == len(list((folder / "demo" / "tiffs").glob("*.tif"))) >= 200
    (west, south, east, north), arrays = found["squares"][0], found["arrays"]
    with rasterio.open(folder / "demo" / "rasters" / "embedding_32633_2023.tif") as dataset:
        box = shapely.segmentize(shapely.box(west, south, east, north), 1e-5)
        lon, lat = shapely.get_coordinates(box).T
        x, y = demo.transform("OGC:CRS84", dataset.crs.to_string(), lon, lat)
        polygon = shapely.polygons(np.column_stack([x, y]))
        expected, _ = rasterio.mask.mask(dataset, [polygon], crop=True, indexes=[1, 2])
    assert arrays.shape == (1, *expected.shape)
    assert np.count_nonzero(arrays[0] != expected) <= 4  # corners, as this box has more of them


def zonal(found: Found, folder: Path) -> None:
    order = [("geometry_id", "ascending"), ("record_id", "ascending"), ("band", "ascending")]
    means = found["means"].sort_by(order)
    assert len(means) > 100 and means["count"].null_count == 0
    for written in ("means", "field_means"):
        assert rows(folder / "demo" / written).sort_by(order).equals(means)
    assert len(rows(folder / "demo" / "no_means")) + len(set(means["geometry_id"].to_pylist())) == len(found["fields"])
    row = means.filter(pa.compute.greater(means["count"], 20)).slice(0, 1).to_pylist()[0]
    shape = shapely.from_wkb(found["fields"]["geometry"][row["geometry_id"]].as_py())
    with rasterio.open(folder / "demo" / "rasters" / f"{row['record_id']}.tif") as dataset:
        lon, lat = shapely.get_coordinates(shapely.segmentize(shape, 1e-5)).T
        x, y = demo.transform("OGC:CRS84", dataset.crs.to_string(), lon, lat)
        pixels, _ = rasterio.mask.mask(
            dataset, [shapely.polygons(np.column_stack([x, y]))], crop=True, filled=False, indexes=[1]
        )
    assert abs(row["count"] - pixels.count()) <= 1 and abs(row["mean"] - pixels.mean()) < 0.5
    assert found["shares"]["count"].type == pa.float64()
    assert set(found["merged"]["record_id"].to_pylist()) == {None} and min(found["merged"]["records"].to_pylist()) >= 1
    best = rows(folder / "demo" / "best_means")
    assert len(best) == len(found["fields"])


def field_plots(found: Found, folder: Path) -> None:
    frame, samples = found["frame"], found["samples"]
    assert len(frame) == 500 and set(frame.status) >= {"valid", "masked", "no_time", "no_record", "out_of_tolerance"}
    assert frame[["B04", "B08", "B11"]].notna().all(axis=1).equals(frame.status == "valid")
    assert 350 < frame.ndvi.notna().sum() == len(frame.ndvi[frame.ndvi.between(0.15, 0.86)])
    assert found["days"].max() <= 10 and 0 < len(found["one_scene"]) <= len(frame)
    for written in ("by_pipeline", "by_command"):
        table = rows(folder / "demo" / "stack" / written).sort_by("point_index")
        assert {*samples.column_names} - {*table.column_names} == {
            "time_difference",
            "B11_record_id",
            "record:platform",
        }
        assert table.equals(samples.sort_by("point_index").select(table.column_names).replace_schema_metadata(None))


def fields_over_time(found: Found, folder: Path) -> None:
    means, order = found["means"], [(name, "ascending") for name in ("geometry_id", "datetime", "band")]
    assert len(means) == 467 * 12 * 2 and set(means["records"].to_pylist()) == {1, 2}
    assert 3000 < len(found["clear"]) < 467 * 12 and found["clear"].ndvi.between(0.15, 0.86).all()
    assert len(found["peak"]) == len(found["seen"]) > 450
    assert found["newest"].num_rows == 467 and found["spread"]["std"].null_count < len(found["spread"])
    for written in ("means_by_pipeline", "means_by_command"):
        table = rows(folder / "demo" / "stack" / written).sort_by(order)
        for name in table.column_names:
            pair = [each[name].to_pylist() for each in (table, means.sort_by(order))]
            if name in ("mean", "valid_fraction"):  # sums of shares are rounded in the order of tiles
                np.testing.assert_allclose(*(np.array(each, dtype=float) for each in pair), rtol=1e-9)
            else:
                assert pair[0] == pair[1], name


def command_line(found: Found, folder: Path) -> None:
    assert "<title>Collection demo</title>" in (folder / "demo" / "collection.html").read_text()
    assert in_order(rows(folder / "demo" / "latest")).equals(of_the_demo(folder, ["A00", "A01"]))


def elevation(found: Found, folder: Path) -> None:
    frame, spread = found["frame"], found["spread"]
    void = frame.value.isna()
    assert len(frame) == 1000 and void.equals(frame.status == "nodata") and 0 < void.sum() < 20
    assert spread["cubic"] < spread["bilinear"] < 0.3 * spread["nearest"]
    alone, whole = found["alone"], found["whole"]
    assert (alone.isna() & whole.notna()).sum() > 50
    assert ((alone - whole).abs().dropna() < 1e-9).all()
    assert (folder / "demo" / "dem" / "elevation.png").stat().st_size > 20_000
    for written in ("by_pipeline", "by_command"):
        table = rows(folder / "demo" / "dem" / written).sort_by("point_index").to_pandas()
        assert table.value.equals(frame.value.reset_index(drop=True))


def sinks(found: Found, folder: Path) -> None:
    latest = of_the_demo(folder, ["A00"])
    frame, near = found["frame"], found["near"]
    assert len(frame) == len(latest) and 0 < len(near) < len(frame)
    located = rows(folder / "demo" / "located")
    assert in_order(located.select(latest.column_names)).equals(latest)
    points = shapely.from_wkb(located["geometry"].to_numpy())
    np.testing.assert_array_equal(shapely.get_coordinates(points)[:, 0], located["point_x"])
    written = pa.csv.read_csv(folder / "demo" / "samples.csv")
    assert sorted(written["A00"].to_pylist()) == sorted(latest["value"].to_pylist())
    assert found["wide"].height == len(latest) and len(found["means"]) == 4


def yaml(found: Found, folder: Path) -> None:
    """The jobs of the page give what its pipeline gives, and the demo."""
    (folder / "providers.yaml").write_text(listing())
    python = yaml_provider.YamlProviders.create_builtin_provider(), create_mapping_providers()
    few = yaml_provider.merge_providers(*python)  # to load all of Beam's takes 10 s
    jobs = [block.code for block in blocks_of(ROOT / "docs" / "yaml.md") if block.code.startswith("pipeline:")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(yaml_provider, "standard_providers", lambda: few)
        for job in jobs:
            local = PipelineOptions(runner="apache_beam.runners.portability.fn_api_runner.FnApiRunner")
            with beam.Pipeline(options=local) as pipeline:
                yaml_transform.expand_pipeline(pipeline, job)
    assert len(jobs) == 2
    latest = in_order(rows(folder / "demo" / "yaml" / "samples"))
    assert len(latest) + 2 * len(rows(folder / "demo" / "yaml" / "unsampled")) == 2 * 60_000
    high = latest.filter((pa.compute.field("band") == "A00") & (pa.compute.field("value") > 50))
    for written in ("high", "high_rows"):
        assert len(high) > 0 and in_order(rows(folder / "demo" / "yaml" / written)).equals(high)


def plots(found: Found, folder: Path) -> None:
    """The pictures show what pandas finds in the samples."""
    for name in ("points", "series", "explore"):
        assert (folder / "demo" / "stack" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    frame = found["samples"].to_pandas().query("status == 'valid'")
    newest = frame.sort_values("datetime").groupby("point_index").value.last()
    (shown,) = found["plot"].points(found["samples"]).collections
    assert sorted(shown.get_array().tolist()) == sorted(newest.tolist()) and 450 < len(newest) <= 500


def report(found: Found, folder: Path) -> None:
    """The numbers of the page are those of the valid samples."""
    values = found["samples"].to_pandas().query("value != -128").groupby("band").value
    numbers = found["report"].numbers()["values"]
    assert set(numbers) == {"A00", "A01"}
    for band, mean in values.mean().items():
        assert numbers[band]["mean"] == pytest.approx(mean)
    for page in ("latest", "again", "samples"):
        assert (folder / "demo" / f"{page}.html").read_text().startswith("<!doctype html>")


CHECKS: dict[str, Callable[[Found, Path], None]] = {
    check.__name__: check
    for check in (
        inputs,
        collections,
        sampling,
        sinks,
        report,
        field_plots,
        elevation,
        chips,
        zonal,
        fields_over_time,
        plots,
        command_line,
        yaml,
    )
}


LONG = {
    *("sampling", "field_plots", "fields_over_time", "elevation", "chips", "zonal"),
    *("sinks", "plots", "report", "command_line", "yaml"),
}
"""Pages that take long: those of a stack of scenes a quarter of a minute. Of them the fast run checks the calls."""


@pytest.mark.parametrize(
    "page",
    [pytest.param(page, marks=pytest.mark.slow if page.stem in LONG else ()) for page in RUN],
    ids=lambda page: page.stem,
)
def test_the_code_of_a_page(
    page: Path, folder: Path, same_signal_handlers: None, capfd: pytest.CaptureFixture[str]
) -> None:
    """Blocks of Python and commands; a block of text shows lines that the commands have printed."""
    with chdir(folder):
        found = run_page(page)
        CHECKS.get(page.stem, lambda found, folder: None)(found, folder)
    printed = capfd.readouterr().out.splitlines()
    shown = [line for block in blocks_of(page) if block.language == "text" for line in block.code.splitlines()]
    assert page.stem == "architecture" or set(shown) <= set(printed)


@pytest.mark.parametrize("page", [page for page in RUN if page.stem in LONG], ids=lambda page: page.stem)
def test_calls_of_a_long_page(page: Path) -> None:
    """Names, arguments and flags exist."""
    names: dict[str, Any] = {}
    blocks = [block for block in blocks_of(page) if block.runs]
    checked = sum(check_calls(block, names) for block in blocks if block.language == "python")
    commands = [words for block in blocks if block.language == "sh" for words in commands_of(block)]
    for words in commands:
        module = f"pipelines.{SUBCOMMANDS[words[1]].module}" if words[0] == "rasteret-beam" else words[2]
        help_text = help_of(module)
        given = [word.partition("=")[0] for word in words if word.startswith("--")]
        assert not [flag for flag in given if not re.search(rf"{flag}\b", help_text)]
    assert checked + len(commands) > 2


@cache
def help_of(module: str) -> str:
    with redirect_stdout(StringIO()) as shown, pytest.raises(SystemExit) as ended:
        import_module(module).main(["--help"])
    assert ended.value.code == 0
    return shown.getvalue()


def test_each_page_with_python_or_commands_is_checked() -> None:
    runs = {
        page.stem for page in RUN if any(block.runs and block.language in ("python", "sh") for block in blocks_of(page))
    }
    assert runs == set(CHECKS)


@pytest.mark.parametrize("block", BUILT, ids=lambda block: block.place)
def test_calls_of_a_block_that_does_not_run(block: Block) -> None:
    """It needs a service; names and arguments exist."""
    assert check_calls(block, {}) > 0


def test_the_stream_example_can_be_built(folder: Path) -> None:
    """It reads from Pub/Sub, so it does not run; what is wrong with a stream is an error while it is built."""
    (example,) = [block.code for block in BUILT if "PointBatches" in block.code]
    names = run_here(example, folder)
    pipeline = beam.Pipeline(options=PipelineOptions(["--streaming"]))
    with chdir(folder):
        written = names["build"](pipeline)
        pipeline.to_runner_api()
    assert not written.is_bounded and written.element_type is str


def test_the_readme_is_short() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 130
    table = re.search(r"## The sample table\n\n(.*?)\n\n", text, re.DOTALL)
    assert table is not None and len(table[1].splitlines()) == 2 + 10
