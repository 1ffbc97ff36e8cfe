"""Reports: the numbers of a pipeline, of rounds, of files and of the eager call are those of pandas."""

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import rasterio

import rasteret_beam
from pipelines import report as report_command
from pipelines import sample_points
from rasteret_beam import Collection, SampleOptions, build_from_cogs
from rasteret_beam.collection.eager.report import Report
from rasteret_beam.errors import InputError, OutputError
from rasteret_beam.kernels.summary.stored import from_bytes
from rasteret_beam.transforms.sinks import report as sink
from tests.support import rasters
from tests.support.commands import as_flags, execute

pytestmark = pytest.mark.usefixtures("same_signal_handlers")

BANDS = ["B1", "B2"]
SIZE, COUNT = 64, 400
BAD = '<img src=x onerror="alert(1)">'


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two rasters with nodata, their collection ``c``, and points, some outside, null or not finite."""
    folder = tmp_path_factory.mktemp("inputs")
    cases = [
        rasters.RasterCase(name=f"s{day}", dtype="int16", count=2, width=SIZE, height=SIZE, tile=(16, 16), nodata=-7)
        for day in (1, 2)
    ]
    paths = [case.write(folder) for case in cases]
    build_from_cogs(
        paths, bands=BANDS, datetime=[f"2023-0{1 + number}-15" for number in range(2)], name="<two>"
    ).export(folder / "c")
    with rasterio.open(paths[0]) as src:
        left, bottom, right, top = src.bounds
    rng = np.random.default_rng(4)
    x, y = rng.uniform(left - 100, right, COUNT), rng.uniform(bottom - 100, top, COUNT)
    x[5], y[9] = np.nan, np.inf
    columns = {"x": pa.array(x, mask=np.arange(COUNT) == 7), "y": y, "name": [f"n{number}" for number in range(COUNT)]}
    pq.write_table(pa.table(columns), folder / "p.parquet", row_group_size=90)
    return folder


def crs_of(inputs: Path) -> int:
    with rasterio.open(next(inputs.glob("s1*.tif"))) as src:
        return int(src.crs.to_epsg())


def sample(inputs: Path, out: Path, *words: str, **more: object) -> Any:
    usual = {"points": inputs / "p.parquet", "x_column": "x", "y_column": "y", "geometry_crs": crs_of(inputs)}
    outputs = {"output": out / "s", "unsampled": out / "left", "report": out / "report.html"}
    flags = usual | outputs | {"collection": inputs / "c", "bands": ",".join(BANDS)} | more
    return execute(sample_points.main, *as_flags(**flags), *words)


def eager(inputs: Path, bands: list[str] | None = None, **options: Any) -> tuple[pa.Table, pa.Table]:
    return rasteret_beam.load(inputs / "c").sample_points(
        pq.read_table(inputs / "p.parquet"),
        bands or BANDS,
        x_column="x",
        y_column="y",
        geometry_crs=crs_of(inputs),
        return_unsampled=True,
        **options,
    )


def made(inputs: Path, **options: Any) -> tuple[Report, pa.Table, pa.Table]:
    samples, left = eager(inputs, **options)
    given = rasteret_beam.load(inputs / "c")
    made = rasteret_beam.report(samples, left, given, bands=BANDS, options=SampleOptions(**options))
    return made, samples, left


def plain(document: str) -> str:
    """A page without what differs from run to run."""
    document = re.sub(r"<!--run-->.*?<!--/run-->", "", document, flags=re.S)
    document = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", "", document)
    return re.sub(r"<h2>Run</h2>.*", "", document, flags=re.S)


@pytest.fixture(scope="module")
def of_pipeline(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    out = tmp_path_factory.mktemp("out")
    return out, sample(inputs, out, round_points=150)


def test_numbers_against_pandas(inputs: Path) -> None:
    found, samples, left = made(inputs)
    numbers, frame = found.numbers(), samples.to_pandas()
    assert (numbers["points"], numbers["rows"]) == (COUNT, len(frame))
    assert (numbers["sampled"], numbers["unsampled"]) == (frame["point_index"].nunique(), len(left))
    assert numbers["reasons"] == left.to_pandas()["reason"].value_counts().to_dict()
    for band, of_band in frame.groupby("band"):
        good = of_band["value"][of_band["value"] != -7]
        values = numbers["values"][band]
        assert numbers["kinds"][band] == {"value": len(good), "nodata": len(of_band) - len(good)}
        assert values["count"] == len(good) < len(of_band)
        assert (values["mean"], values["std"]) == pytest.approx((good.mean(), good.std(ddof=0)))
        exact = np.quantile(good, list(values["quantiles"]), method="inverted_cdf")
        assert list(values["quantiles"].values()) == exact.tolist()
    expected = frame["datetime"].dt.date.value_counts().to_dict()
    assert numbers["dates"] == expected


def test_a_pipeline_in_rounds_gives_the_page_of_the_eager_call(inputs: Path, of_pipeline: tuple[Path, Any]) -> None:
    out, ended = of_pipeline
    assert ended.code == 0, ended.err
    document = (out / "report.html").read_text()
    assert plain(document) == plain(made(inputs)[0].html)
    assert "&lt;two&gt;" in document and "<two>" not in document
    assert str(out / "report.html") in ended.out
    assert sorted(path.suffix for path in out.iterdir() if "temporary" in path.name) == []


def test_the_page_has_the_plan_and_the_counters(inputs: Path, of_pipeline: tuple[Path, Any]) -> None:
    out, ended = of_pipeline
    document = (out / "report.html").read_text()
    part = re.search(r"<!--run-->.*?<!--/run-->", document, re.S)[0]
    cells = r'<tr><th scope="row">([^<]+)</th><td class="number">([^<]*)</td><td class="number">([^<]+)</td></tr>'
    rows = {name: (planned, read) for name, planned, read in re.findall(cells, part)}
    assert rows["tiles decoded"][1] == f"{ended.figures['tiles decoded']:,}"
    assert rows["rows"] == (f"{ended.figures['rows']:,}",) * 2
    assert int(rows["tiles decoded"][0].replace(",", "")) > 0
    assert "--round_points" in document and "Apache Beam" in document


def test_the_command_makes_the_page_of_files(inputs: Path, of_pipeline: tuple[Path, Any], tmp_path: Path) -> None:
    out, _ = of_pipeline
    flags = as_flags(samples=out / "s", unsampled=out / "left", collection=inputs / "c", output=tmp_path / "a/r.html")
    ended = execute(report_command.main, *flags, "--bands=B1,B2")
    assert ended.code == 0, ended.err
    assert plain((tmp_path / "a/r.html").read_text()) == plain(made(inputs)[0].html)


@pytest.mark.slow
def test_one_pipeline_with_dead_letters(inputs: Path, tmp_path: Path) -> None:
    """Without rounds, and with tiles that cannot be read."""
    case = rasters.RasterCase(
        name="z", dtype="int16", count=2, width=SIZE, height=SIZE, tile=(16, 16), options={"compress": "deflate"}
    )
    damaged = case.write(tmp_path)
    build_from_cogs([damaged], bands=BANDS, name="damaged").export(tmp_path / "c")
    before = damaged.stat()
    damaged.write_bytes(damaged.read_bytes()[:-3000] + b"\xff" * 3000)
    os.utime(damaged, ns=(before.st_atime_ns, before.st_mtime_ns))
    ended = sample(inputs, tmp_path, collection=tmp_path / "c", dead_letter=tmp_path / "dead")
    assert ended.code == 3, ended.err
    document = (tmp_path / "report.html").read_text()
    letters = pa.concat_tables(pq.read_table(path) for path in sorted(tmp_path.glob("dead-*.parquet")))
    values = sum(map(len, letters["point_indexes"].to_pylist()))
    assert f"tiles with {values:,} values" in document
    assert "Tiles that could not be read" in document


@pytest.mark.parametrize(
    "options",
    [
        {"layout": "values"},
        {"layout": "columns", "statistics": ["mean", "count"], "window_pixels": 3},
        {"extra_columns": ["status"], "invalid": "null"},
        {"join": "left", "extra_columns": ["status"]},
        {"join": "left", "layout": "columns"},
        {"value_type": "raw"},
        {"unscale": True},
    ],
    ids=lambda options: ",".join(options),
)
def test_layouts_and_options(inputs: Path, options: dict[str, Any]) -> None:
    found, samples, left = made(inputs, **options)
    numbers, frame = found.numbers(), samples.to_pandas()
    rows = frame[frame["record_id"].notna()]
    assert (numbers["points"], numbers["sampled"]) == (COUNT, rows["point_index"].nunique())
    assert numbers["unsampled"] == len(left)
    for place, band in enumerate(BANDS):
        values = numbers["values"][band]
        if "layout" not in options:
            of_band = rows[rows["band"] == band]["value"]
        else:
            of_band = rows[band] if options["layout"] == "columns" else rows["values"].map(lambda v, at=place: v[at])
        good = pd.to_numeric(of_band.astype("float64")).dropna()
        good = good[good != -7]
        assert values["count"] == len(good)
        assert values["mean"] == pytest.approx(good.mean())
    if "statistics" in options:
        means = frame["B1_mean"].dropna()
        assert numbers["values"]["B1 mean"]["mean"] == pytest.approx(means.mean())
        assert "B2 count" in found.html
    if "status" in options.get("extra_columns", ()):
        of_band = frame[frame["band"] == "B1"]["status"].value_counts()
        assert numbers["kinds"]["B1"] == {name: many for name, many in of_band.items() if many}
        assert "By column status" in found.html
    assert found.html.count("<h2>") >= 4
    assert "<svg" in found._repr_html_()


def test_samples_alone(inputs: Path) -> None:
    """A reader, without unsampled points and collection, and a pandas frame."""
    samples, left = eager(inputs)
    alone = rasteret_beam.report(samples.to_reader(70)).numbers()
    assert (alone["points"], alone["unsampled"]) == (None, None) or alone["unsampled"] == 0
    assert alone["sampled"] == made(inputs)[0].numbers()["sampled"]
    frame = rasteret_beam.report(samples.to_pandas(), left.to_pandas())
    assert frame.numbers()["points"] == COUNT
    assert frame.numbers()["kinds"]["B1"].keys() == {"value"}  # nodata is not known
    joined = rasteret_beam.report(eager(inputs, join="left")[0]).numbers()
    assert (joined["points"], joined["unsampled"]) == (COUNT, len(left))


def test_little_and_odd_tables(inputs: Path, tmp_path: Path) -> None:
    samples, left = eager(inputs)
    nothing = rasteret_beam.report(samples.slice(0, 0), left.slice(0, 0), title=BAD)
    assert "There are no sample rows" in nothing.html
    one = rasteret_beam.report(samples.slice(3, 1))
    assert one.numbers()["rows"] == 1
    odd = samples.set_column(
        samples.schema.get_field_index("value"),
        "value",
        pa.array([np.nan, np.inf, -np.inf, None] * 2 + [1e308, -1e308]).take(pa.array(np.arange(len(samples)) % 10)),
    )
    odd = odd.set_column(odd.schema.get_field_index("band"), "band", pa.array([BAD] * len(odd)))
    page = rasteret_beam.report(odd, title=BAD)
    assert page.numbers()["kinds"][BAD]["not finite"] > 0
    for each in (nothing, one, page):
        each.save(tmp_path / "new" / "r.html")
        assert "<img" not in each.html
        assert (tmp_path / "new" / "r.html").read_text() == each.html
    nowhere = samples.set_column(3, "point_crs", pa.nulls(len(samples), pa.int32()))
    assert "Coordinates are those of the points" in rasteret_beam.report(nowhere).html
    with pytest.raises(InputError, match="samples lack column"):
        rasteret_beam.report(left)
    with pytest.raises(InputError, match=r"unsampled lack column\(s\) reason"):
        rasteret_beam.report(samples, samples)


def test_an_empty_table_of_unsampled_points_is_known(inputs: Path) -> None:
    samples, left = eager(inputs)
    sampled = len(set(samples["point_index"].to_pylist()))
    found = rasteret_beam.report(samples, left.slice(0, 0))
    numbers = found.numbers()
    assert (numbers["points"], numbers["sampled"], numbers["unsampled"]) == (sampled, sampled, 0)
    assert f"{sampled} points = {sampled} sampled + 0 unsampled" in found.html
    alone = rasteret_beam.report(samples)
    assert alone.numbers()["points"] is None and "the samples alone" in alone.html


def test_footprints_are_noted_where_they_are_drawn(inputs: Path) -> None:
    """Not where the CRS of the points is unknown, so that no footprint can be placed."""
    samples, _ = eager(inputs)
    collection = rasteret_beam.load(inputs / "c")
    nowhere = samples.set_column(3, "point_crs", pa.nulls(len(samples), pa.int32()))
    for table, drawn in ((samples, True), (nowhere, False)):
        page = rasteret_beam.report(table, collection=collection).html
        assert ("Outlined areas are footprints" in page) == drawn


@pytest.mark.parametrize("crs", ["EPSG:3857", "IAU_2015:49900", 'LOCAL_CS["Site",UNIT["metre",1]]'])
def test_maps_of_other_crs(inputs: Path, crs: str) -> None:
    """Of metres on the Earth in degrees; of Mars in its own degrees; of a site as they are."""
    samples, _ = eager(inputs)
    small = samples.set_column(1, "point_x", pa.array(np.linspace(1, 40, len(samples))))
    small = small.set_column(2, "point_y", pa.array(np.linspace(-20, 60, len(samples))))
    small = small.set_column(3, "point_crs", pa.nulls(len(samples), pa.int32()))
    found = rasteret_beam.report(small, point_crs=crs).html
    axes = {*re.findall(r'class="over[^"]*">([^<]+)<', found)}
    assert any("°" in each for each in axes) == (not crs.startswith("LOCAL"))
    assert ("IAU_2015:49900" in found) == crs.startswith("IAU")


def test_embeddings_of_500_bands(inputs: Path) -> None:
    """The first are drawn, all are in a table, and the page stays small."""
    samples, _ = eager(inputs)
    rows = samples.slice(0, 300)
    rng = np.random.default_rng(3)
    lists = pa.FixedSizeListArray.from_arrays(pa.array(rng.normal(0, 1, 300 * 500)), 500)
    table = rows.drop_columns(["band", "value"]).add_column(7, "values", lists)
    found = rasteret_beam.report(table)
    assert len(found.numbers()["values"]) == 500
    assert "All 500 columns of values" in found.html
    assert found.html.count("Histogram of") <= 16
    assert len(found.html) < 3_000_000
    with pytest.raises(InputError, match=r"lists of 500 values, but there are 2 bands"):
        rasteret_beam.report(table, bands=BANDS)


@pytest.mark.slow
def test_a_failed_job_leaves_the_earlier_report(inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outputs are put in place together, or none."""
    assert sample(inputs, tmp_path, match="latest").code == 0
    before = (tmp_path / "report.html").read_bytes()
    rows = sorted(tmp_path.glob("s-*.parquet"))
    with monkeypatch.context() as patched:
        patched.setattr(sink, "report_page", _fails)
        ended = sample(inputs, tmp_path)
    assert ended.code == 1
    assert (tmp_path / "report.html").read_bytes() == before
    assert sorted(tmp_path.glob("s-*.parquet")) == rows
    assert "the disk of the report is full" in ended.err


def _fails(*given: object) -> str:
    raise OutputError("the disk of the report is full")


@pytest.mark.slow
def test_a_resumed_run_reports_all_rounds(inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The summaries of finished rounds are kept with their files."""
    with monkeypatch.context() as patched:
        patched.setattr(sink, "report_page", _fails)
        assert sample(inputs, tmp_path, round_points=150).code == 1
    kept = list(tmp_path.rglob("*.summary"))
    assert [from_bytes(path.read_bytes()).rows > 0 for path in kept] == [True] * len(kept)
    assert len(kept) > 2
    ended = sample(inputs, tmp_path, "--resume", round_points=150)
    assert ended.code == 0, ended.err
    assert plain((tmp_path / "report.html").read_text()) == plain(made(inputs)[0].html)
    assert not list(tmp_path.rglob("*.summary"))


def test_wrong_flags(inputs: Path, tmp_path: Path) -> None:
    for path in ("report.txt", "out/.html", ""):
        ended = sample(inputs, tmp_path, report=path)
        assert ended.code == 2 and "is not the path of a page; give one such as out/report.html" in ended.err
    ended = sample(inputs, tmp_path, output=tmp_path / "r.html", report=tmp_path / "r.html")
    assert ended.code == 2 and "argument --output" in ended.err and "or a prefix of Parquet files" in ended.err
    ended = execute(report_command.main, f"--samples={tmp_path}/s", f"--output={tmp_path}/r.html")
    assert ended.code == 1 and "nor are there files" in ended.err
    flags = as_flags(samples=inputs / "p.parquet", output=tmp_path / "r.html")
    ended = execute(report_command.main, *flags)
    assert ended.code == 1 and "the samples lack column(s)" in ended.err
    assert not (tmp_path / "r.html").exists()


def test_reports_take_collections_of_any_kind(scenes: Collection, points: pa.Table) -> None:
    """Grids of several sizes and CRSs, in memory."""
    samples, left = scenes.sample_points(
        points, scenes.bands[:2], x_column="x", y_column="y", geometry_crs=32631, return_unsampled=True
    )
    found = rasteret_beam.report(samples, left, scenes)
    assert found.numbers()["points"] == len(points)
    assert "Outlined areas are footprints" in found.html
