"""Jobs in Beam YAML: the transforms of ``providers.yaml``, their keys and errors, and the jobs of templates/yaml."""

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass, field
from importlib.resources import files
from pathlib import Path
from textwrap import indent
from typing import Any

import apache_beam as beam
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import shapely
import yaml
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.yaml import main, yaml_provider, yaml_transform
from apache_beam.yaml.yaml_mapping import create_mapping_providers

from pipelines import yaml_providers
from rasteret_beam import Access, Collection, ToBatches, ToRows, register
from rasteret_beam.chip_options import ChipOptions
from rasteret_beam.errors import InputError
from rasteret_beam.option_fields import options_of
from rasteret_beam.options import SampleOptions
from rasteret_beam.transforms.yaml.collections import collection_of
from rasteret_beam.transforms.yaml.listing import listing
from rasteret_beam.transforms.yaml.registry import TRANSFORMS
from rasteret_beam.transforms.yaml.sinks import sink
from rasteret_beam.zonal_options import ZonalOptions
from tests.support.paths import ROOT
from tests.support.pipelines import LOCAL, ORDER
from tests.support.ports import free_port

JOBS = ROOT / "templates" / "yaml"
PROVIDERS = ROOT / "rasteret_beam" / "transforms" / "yaml" / "providers.yaml"
OUTPUT = "out/samples"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, scenes: Collection, points: pa.Table) -> Path:
    """A folder with a collection, points and polygons."""
    folder = tmp_path_factory.mktemp("yaml")
    scenes.export(folder / "collection")
    pq.write_table(points, folder / "points.parquet")
    boxes = [shapely.box(x, 5_398_000, x + 300, 5_398_200) for x in range(500_200, 503_000, 400)]
    wkb = pa.array(shapely.to_wkb(boxes), pa.binary())
    pq.write_table(pa.table({"field": [*range(len(boxes))], "geometry": wkb}), folder / "fields.parquet")
    return folder


@pytest.fixture(autouse=True)
def few_providers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of Python alone: to load all of Beam's takes 10 s."""
    python = yaml_provider.YamlProviders.create_builtin_provider(), create_mapping_providers()
    few = yaml_provider.merge_providers(*python)
    monkeypatch.setattr(yaml_provider, "standard_providers", lambda: few)


def read(prefix: Path) -> pa.Table:
    """The numbered files of an output, in order."""
    table = pa.concat_tables(pq.read_table(path) for path in sorted(prefix.parent.glob(prefix.name + "-0*.parquet")))
    return table.sort_by([each for each in ORDER if each[0] in table.column_names])


def rows(table: pa.Table) -> list[dict[str, Any]]:
    """In order, dictionaries as their values."""
    return table.sort_by(ORDER).to_pylist()


def whole(transforms: str) -> dict[str, Any]:
    """A pipeline of transforms as YAML text."""
    text = "pipeline:\n  transforms:\n" + indent(transforms, "    ")
    return yaml.load(text, yaml_transform.SafeLineLoader)


def run_job(spec: str) -> None:
    """Run a pipeline of transforms as YAML text, with our providers."""
    providers = yaml_provider.merge_providers(yaml_provider.load_providers(str(PROVIDERS)))
    with beam.Pipeline(options=PipelineOptions(LOCAL)) as pipeline:
        yaml_transform.expand_pipeline(pipeline, whole(spec), providers)


READ = """
- type: ReadPoints
  config: {{path: {0}/points.parquet, x_column: x, y_column: y, geometry_crs: 32631, columns: [plot, kind]}}
"""
SAMPLE = """
- type: SamplePoints
  input: ReadPoints
  config: {{collection: {0}/collection, bands: [B10], match: latest}}
"""
WRITE = """
- type: WriteSamplesToParquet
  input: SamplePoints
  config: {{path: {1}/samples}}
"""

# The listing


def test_the_listing_has_all_transforms(capsys: pytest.CaptureFixture[str]) -> None:
    assert PROVIDERS.read_text() == listing(), "run `make templates`"
    assert yaml_providers.main([]) == 0
    assert capsys.readouterr().out == files("rasteret_beam").joinpath("transforms/yaml/providers.yaml").read_text()
    (python,) = yaml_provider.load_providers(str(PROVIDERS))
    assert {*python.provided_transforms()} == {*TRANSFORMS}


def test_a_listing_with_packages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    yaml_providers.main(["--packages", "gs://bucket/rasteret_beam-0.1.0-py3-none-any.whl, other"])
    (tmp_path / "providers.yaml").write_text(capsys.readouterr().out)
    (python,) = yaml_provider.load_providers(str(tmp_path / "providers.yaml"))
    assert isinstance(python, yaml_provider.ExternalPythonProvider)
    assert python._packages == ["gs://bucket/rasteret_beam-0.1.0-py3-none-any.whl", "other"]


@pytest.mark.parametrize("name", TRANSFORMS)
def test_beams_tools_know_the_keys(name: str) -> None:
    python = yaml_provider.InlineProvider(TRANSFORMS)
    assert [field.name for field in python.config_schema(name).fields] == [key.name for key in TRANSFORMS[name].keys]
    assert python.description(name)
    assert python.requires_inputs(name, {}) == (name not in ("ReadPoints", "ReadPolygons"))


@pytest.mark.parametrize(
    ("name", "definition"),
    [("SamplePoints", SampleOptions), ("ReadChips", ChipOptions), ("ZonalStatistics", ZonalOptions)],
)
def test_keys_are_the_options(name: str, definition: type) -> None:
    keys = {key.name: key for key in TRANSFORMS[name].keys}
    for option in options_of(definition):
        assert (keys[option.name].default, keys[option.name].help) == (option.default, option.facts.help)


# Jobs


def run_template(job: str, variables: dict[str, Any]) -> None:
    """Run a job of the templates by Beam's main, in this process."""
    main.run([*LOCAL, f"--yaml_pipeline_file={JOBS / job}", f"--jinja_variables={json.dumps(variables)}"])


def test_points_to_parquet(place: Path, points: pa.Table, scenes: Collection, tmp_path: Path) -> None:
    """The job of the templates, run by Beam's main: the rows of the eager call, and all other points."""
    variables = {
        "points": str(place / "points.parquet"),
        "collection": str(place / "collection"),
        "bands": "B10,B20",
        "x_column": "x",
        "y_column": "y",
        "geometry_crs": 32631,
        "output": str(tmp_path / OUTPUT),
    }
    run_template("points_to_parquet.yaml", variables)
    where = {"x_column": "x", "y_column": "y", "geometry_crs": 32631}
    expected = scenes.sample_points(points, ["B10", "B20"], match="latest", **where)
    found = read(tmp_path / OUTPUT)
    assert found.schema == expected.schema and rows(found) == rows(expected)
    unsampled = read(tmp_path / f"{OUTPUT}-unsampled")
    assert {*unsampled["point_index"].to_pylist()} == {*range(2000)} - {*expected["point_index"].to_pylist()}
    assert unsampled.schema.names[:5] == ["point_index", "point_x", "point_y", "point_crs", "reason"]


def test_rows_batches_and_several_inputs(place: Path, points: pa.Table, scenes: Collection, tmp_path: Path) -> None:
    """Rows are filtered by Beam's own step, become batches with all columns again, and two inputs one output."""
    spec = (
        READ
        + SAMPLE
        + """
- type: ToRows
  input: SamplePoints
- type: Filter
  name: High
  input: ToRows
  config: {{language: python, keep: value > 3000}}
- type: ToBatches
  input: High
- type: WriteSamplesToParquet
  input: ToBatches
  config: {{path: {1}/high}}
- type: WriteSamplesToParquet
  name: WriteTwice
  input: [SamplePoints, SamplePoints]
  config: {{path: {1}/twice, row_group_rows: 100}}
"""
    )
    run_job(spec.format(place, tmp_path))
    where = {"x_column": "x", "y_column": "y", "geometry_crs": 32631, "columns": ["plot", "kind"]}
    expected = scenes.sample_points(points, ["B10"], match="latest", **where)
    high = read(tmp_path / "high")
    assert high.schema == expected.schema and rows(high) == rows(expected.filter(pc.field("value") > 3000))
    assert high.schema.field("kind").type == pa.dictionary(pa.int32(), pa.string())
    assert len(read(tmp_path / "twice")) == 2 * len(expected)


def test_points_that_are_rows(place: Path, scenes: Collection, tmp_path: Path) -> None:
    """As a query or a stream gives them; dead letters go where error_handling says."""
    spec = """
- type: Create
  config:
    elements:
      - {{id: 70, x: 502000.5, y: 5398000.5, station: a}}
      - {{id: 80, x: 0.0, y: 0.0, station: b}}
- type: PointBatches
  input: Create
  config: {{index_column: id, x_column: x, y_column: y, geometry_crs: EPSG:32631}}
- type: SamplePoints
  input: PointBatches
  config:
    collection: {0}/collection
    bands: [B10]
    ids: [P0_2]
    quality: ["B20 >= 0"]
    extra_columns: [status]
    error_handling: {{output: unreadable}}
- type: WriteSamplesToParquet
  input: SamplePoints
  config: {{path: {1}/samples}}
- type: WriteSamplesToParquet
  name: WriteLetters
  input: SamplePoints.unreadable
  config: {{path: {1}/letters}}
"""
    run_job(spec.format(place, tmp_path))
    one = pa.table({"x": [502000.5], "y": [5398000.5]})
    at = {"x_column": "x", "y_column": "y", "geometry_crs": 32631}
    (value,) = scenes.subset(ids=["P0_2"]).sample_points(one, ["B10"], **at)["value"].to_pylist()
    (row,) = read(tmp_path / "samples").select(["point_index", "value", "station", "status"]).to_pylist()
    assert row == {"point_index": 70, "value": value, "station": "a", "status": "valid"}
    assert len(read(tmp_path / "letters")) == 0


def test_polygons_to_chips(place: Path, scenes: Collection, tmp_path: Path) -> None:
    spec = """
- type: ReadPolygons
  config: {{path: {0}/fields.parquet, geometry_crs: 32631}}
- type: ReadChips
  input: ReadPolygons
  config: {{collection: {0}/collection, bands: [B20], match: latest, all_touched: true, with_unmatched: true}}
- type: WriteChipsToParquet
  input: ReadChips.chips
  config: {{path: {1}/chips}}
- type: WriteChipsToGeoTiff
  input: ReadChips.chips
  config: {{path: {1}/tiffs}}
- type: ToRows
  input: ReadChips.unmatched
- type: LogForTesting
  input: ToRows
"""
    run_job(spec.format(place, tmp_path))
    fields = pq.read_table(place / "fields.parquet")
    chips = read(tmp_path / "chips")
    assert {*chips["field"].to_pylist()} <= {*fields["field"].to_pylist()} and len(chips) > 0
    assert len([*(tmp_path / "tiffs").glob("*.tif")]) == len(chips)


@pytest.mark.slow
def test_polygons_to_statistics(place: Path, scenes: Collection, tmp_path: Path) -> None:
    variables = {
        "polygons": str(place / "fields.parquet"),
        "geometry_crs": "EPSG:32631",
        "collection": str(place / "collection"),
        "bands": "B10,B20",
        "output": str(tmp_path / "statistics"),
    }
    run_template("polygons_to_statistics.yaml", variables)
    fields = pq.read_table(place / "fields.parquet")
    names = ["count", "mean", "std"]
    expected = scenes.zonal_statistics(fields, ["B10", "B20"], geometry_crs=32631, statistics=names)
    order = [("geometry_id", "ascending"), *ORDER[1:]]
    found = read(tmp_path / "statistics")
    assert found.sort_by(order).equals(expected.cast(found.schema).sort_by(order))
    assert len(read(tmp_path / "statistics-unreadable")) == 0


KEPT: list[Any] = []


@dataclass(eq=False)
class KeepColumns(beam.PTransform):
    """Keep the columns that batches should have.

    Another paragraph.
    """

    place: str
    _: KW_ONLY
    most: int = 7
    schema: pa.Schema | None = None
    token: str = field(default="", repr=False)

    def expand(self, batches: beam.PCollection) -> Any:
        KEPT.append((self.place, self.most, self.schema))
        return batches


def test_a_sink_is_one_line() -> None:
    step = sink(KeepColumns, place="path")
    assert [key.name for key in step.keys] == ["path", "most"]
    assert step.__doc__ == "Keep the columns that batches should have."
    schema = pa.schema([("a", pa.int64())])
    batch = pa.RecordBatch.from_pydict({"a": [1]})
    rows = beam.Pipeline() | beam.Create([batch]) | ToRows(schema) | ToBatches()
    rows | step(path="here", most=3)
    assert KEPT.pop() == ("here", 3, schema)


@pytest.mark.slow
def test_an_iceberg_catalog_is_described_in_yaml(place: Path, points: pa.Table, tmp_path: Path) -> None:
    from pyiceberg.catalog import load_catalog

    properties = {"type": "sql", "uri": f"sqlite:///{tmp_path}/c.db", "warehouse": f"file://{tmp_path}/warehouse"}
    catalog = load_catalog("lake", **properties)
    catalog.create_namespace("ns")
    job = READ + SAMPLE + WRITE + "- type: WriteSamplesToIceberg\n  input: SamplePoints\n  config: {2}"
    config = {"table": "lake.ns.samples", "catalog_properties": properties}
    run_job(job.format(place, tmp_path, json.dumps(config)))
    names = ["point_index", "record_id", "band", "value", "plot"]
    found = catalog.load_table("ns.samples").scan().to_arrow().select(names)
    catalog.close()
    assert found.num_rows > 0
    assert rows(found) == rows(read(tmp_path / "samples").select(names))


def test_the_collection_of_a_config(place: Path) -> None:
    """Its subset, and access beside that of the catalogue."""
    path = str(place / "collection")
    whole = collection_of({"collection": path})
    assert whole.access == Access()
    subset = {"bbox": list(whole.bounds or ()), "date_range": "2023", "ids": ["P0_0", "P0_2"], "drivers": ["netCDF"]}
    config = {"collection": path, **subset, "bands": ["B10"], "cloud_cover_lt": None}
    narrowed = collection_of(config)
    assert config == {"bands": ["B10"]} and narrowed.access == Access(drivers=("netCDF",))
    expected = whole.subset(bbox=whole.bounds, date_range="2023", ids=["P0_0", "P0_2"])
    assert narrowed.to_table(["id"]).equals(expected.to_table(["id"])) and 0 < len(narrowed) < len(whole)
    register("tests/yaml", path, region="eu-west-1")
    assert collection_of({"collection": "tests/yaml", "anonymous": True}).access == Access(
        anonymous=True, region="eu-west-1"
    )


# Errors

GIVEN = {"collection": "c", "bands": ["a"]}


@pytest.mark.parametrize(
    ("name", "config", "words"),
    [
        ("SamplePoints", {"macth": "latest", **GIVEN}, r"SamplePoints has no key 'macth' \(did you mean 'match'\?\); "),
        ("SamplePoints", {"cache_mb": 7, **GIVEN}, r"no key 'cache_mb' \(did you mean 'cache_bytes'\?\)"),
        ("SamplePoints", {"bands": ["a"]}, r"SamplePoints needs the key\(s\) collection"),
        ("WriteSamplesToParquet", {}, r"WriteSamplesToParquet needs the key\(s\) path"),
        ("ReadPoints", {}, "ReadPoints: give one of path, table and query; given: none"),
        ("ReadPoints", {"path": "a", "table": "b"}, "given: path, table"),
        ("ReadPoints", {"path": "a", "project": "b"}, "ReadPoints: project given without table or query"),
        ("ReadPoints", {"query": "a", "snapshot_time": "b"}, "snapshot_time goes with table"),
        ("SamplePoints", {"collection": 7, "bands": ["a"]}, "SamplePoints: collection is 7; give the path"),
        ("SamplePoints", {"collection": "no/such", "bands": ["a"]}, "SamplePoints: .*no/such"),
        ("WriteSamplesToIceberg", {"table": "c.n.t", "schema": "a"}, "WriteSamplesToIceberg has no key 'schema'"),
        ("WriteSamplesToIceberg", {"table": "c.n.t", "token": "a"}, "WriteSamplesToIceberg has no key 'token'"),
        ("ToRows", {"times": "iso"}, r"ToRows: times is 'iso'; it can be one of \('instant', 'nanos', 'text'\)"),
        ("ToBatches", {"batch_rows": "many"}, "ToBatches: batch_rows is 'many'"),
    ],
)  # fmt: skip
def test_configs_that_cannot_be(name: str, config: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        TRANSFORMS[name](**config)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"match": "newest"}, "SamplePoints: match is 'newest'; it can be one of"),
        ({"match": "nearest"}, "SamplePoints: match is 'nearest', but time_column is None"),
        ({"bands": ["B99"]}, r"SamplePoints: the collection lacks band\(s\) B99"),
        ({"date_range": yaml.safe_load("2023-06-01")}, 'date_range of SamplePoints has the date .* write "2023-06-01"'),
        ({"bbox": [1, 2, 3]}, "SamplePoints: bbox"),
        ({"error_handling": {}}, r"SamplePoints: error_handling of SamplePoints is \{\}; give \{output: NAME\}"),
        (
            {"error_handling": {"output": "a"}, "on_error": "raise"},
            "names an output, but on_error is 'raise'; leave it out",
        ),
        (
            {"error_handling": {"output": "unsampled"}, "with_unsampled": True},
            "names the output 'unsampled', which SamplePoints has for other rows; choose another name",
        ),
        ({"error_handling": {"output": "samples"}}, "names the output 'samples', which SamplePoints has"),
    ],
)
def test_keys_of_samples_that_cannot_be(place: Path, config: dict[str, Any], words: str) -> None:
    given = {"collection": str(place / "collection"), "bands": ["B10"], **config}
    with pytest.raises(InputError, match=words):
        beam.Pipeline() | beam.Create([]).with_output_types(pa.RecordBatch) | TRANSFORMS["SamplePoints"](**given)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("- type: ReadChips\n  config: {{collection: {0}/collection, bands: [B10]}}", "Missing inputs for .* line 3"),
        (READ + SAMPLE + "- type: Create\n  config: {{elements: [{{a: 1}}]}}\n- type: SamplePoints\n  name: Again\n"
         "  input: Create\n  config: {{collection: {0}/collection, bands: [B10]}}",
         '"Again" at line .*: SamplePoints: its input is rows with a; it takes batches of points, as ReadPoints'),
        (READ + "- type: ReadPolygons\n  config: {{path: {0}/fields.parquet, geometry_crs: 32631}}\n- type: ToRows\n"
         "  input: {{a: ReadPoints, b: ReadPolygons}}", "ToRows: it has the inputs a, b; it takes one"),
        (READ + "- type: Create\n  config: {{elements: [{{arrow_ipc: a}}]}}\n- type: WriteSamplesToParquet\n"
         "  input: Create\n  config: {{path: {0}/out}}", "the columns of its input are not known; put ToBatches"),
        ("\n- type: ReadPoints\n  config: {{path: {0}/none.parquet}}", '"ReadPoints" at line 4: ReadPoints: .*none'),
    ],
)  # fmt: skip
def test_pipelines_that_cannot_be(place: Path, spec: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        run_job(spec.format(place))


# As processes


def run_main(tmp_path: Path, job: str, variables: dict[str, Any], *flags: str) -> str:
    """Run a job as its users do, from another folder; gives its output."""
    words = [sys.executable, "-m", "apache_beam.yaml.main", f"--yaml_pipeline_file={JOBS / job}"]
    words += [*LOCAL, f"--jinja_variables={json.dumps(variables)}", *flags]
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout + done.stderr


@pytest.mark.slow
def test_stream_of_points(place: Path, scenes: Collection, tmp_path: Path) -> None:
    """With Beam's own tests of YAML: messages in place of the subscription, and what goes to the topic."""
    message = {"id": 3, "lon": 502_000.5, "lat": 5_398_000.5, "station": "a"}
    one = pa.table({"x": [message["lon"]], "y": [message["lat"]]})
    at = {"x_column": "x", "y_column": "y", "geometry_crs": 32631}
    samples = scenes.sample_points(one, ["B10", "B20"], match="latest", **at).to_pylist()
    above = min(row["value"] for row in samples)
    (high,) = (row for row in samples if row["value"] > above)
    time = high["datetime"].isoformat(timespec="microseconds")
    expected = {"id": 3, "station": "a", "record": high["record_id"], "time": time}
    expected |= {name: high[name] for name in ("band", "value")}
    test = {
        "name": "high",
        "mock_outputs": [{"name": "Messages", "elements": [message, {**message, "id": 4, "lon": 0.0}]}],
        "expected_inputs": [{"name": "Write", "elements": [expected]}],
    }
    (tmp_path / "suite.yaml").write_text(yaml.safe_dump({"tests": [test]}))
    variables = {
        "subscription": "projects/p/subscriptions/s",
        "topic": "/topics/p/t",
        "collection": str(place / "collection"),
        "bands": "B10,B20",
        "above": above,
        "geometry_crs": 32631,
        "providers": str(PROVIDERS),
    }
    said = run_main(tmp_path, "stream_of_points.yaml", variables, "--tests", "--test_suite=suite.yaml")
    assert re.search(r"Ran 1 test .*\n\nOK", said)


@contextmanager
def expansion_service() -> Iterator[str]:
    """What Beam starts in the environment of the packages of a provider."""
    port = free_port()
    words = ["-m", "apache_beam.runners.portability.expansion_service_main", f"--port={port}"]
    words += ["--fully_qualified_name_glob=*", "--pickle_library=cloudpickle", "--serve_loopback_worker"]
    service = subprocess.Popen([sys.executable, *words], stderr=subprocess.PIPE, text=True)
    try:
        assert service.stderr is not None
        assert any("Listening for expansion requests" in line for line in service.stderr)
        yield f"localhost:{port}"
    finally:
        service.send_signal(signal.SIGTERM)
        service.communicate(timeout=60)


@pytest.mark.slow
def test_steps_that_are_expanded_by_another_process(place: Path, scenes: Collection, tmp_path: Path) -> None:
    """As on Dataflow: the process of the pipeline does not see our classes, and columns are known all the same."""
    names = {name: f"rasteret_beam.transforms.yaml.provider.{name}" for name in TRANSFORMS}
    spec = (
        READ
        + SAMPLE.replace("match: latest", "scales: {{B10: [0.1, 2]}}, unscale: true, with_unsampled: true")
        + """
- type: ToRows
  input: SamplePoints.samples
- type: Filter
  input: ToRows
  config: {{language: python, keep: point_index >= 1000}}
- type: ToBatches
  input: Filter
- type: WriteSamplesToParquet
  input: ToBatches
  config: {{path: {1}/late}}
- type: WriteSamplesToParquet
  name: WriteUnsampled
  input: SamplePoints.unsampled
  config: {{path: {1}/unsampled}}
"""
    )
    with expansion_service() as address:
        external = yaml_provider.ExternalPythonProvider(names, None, ["rasteret_beam"])
        external._service = address
        external.to_json = lambda: {"type": "python"}
        with beam.Pipeline(options=PipelineOptions(LOCAL)) as pipeline:
            providers = {name: [external] for name in names}
            yaml_transform.expand_pipeline(pipeline, whole(spec.format(place, tmp_path)), providers)
    where = {"x_column": "x", "y_column": "y", "geometry_crs": 32631, "columns": ["plot", "kind"]}
    table = pq.read_table(place / "points.parquet")
    options = {"unscale": True, "scales": {"B10": (0.1, 2)}}
    expected = scenes.sample_points(table, ["B10"], **options, **where).filter(pc.field("point_index") >= 1000)
    late = read(tmp_path / "late")
    assert late.schema == expected.schema and rows(late) == rows(expected)
    assert "reason" in read(tmp_path / "unsampled").schema.names
