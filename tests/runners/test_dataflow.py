"""The jobs that the commands give to Dataflow, as far as they go without it: checked, staged, and read back."""

import base64
import bz2
import io
import json
import re
import runpy
import sys
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.runners.dataflow.dataflow_runner import DataflowRunner
from apache_beam.runners.pipeline_context import PipelineContext
from apache_beam.yaml import main, yaml_provider

from pipelines import build_collection, read_chips, sample_points, zonal_statistics
from pipelines.cli.flags import LAUNCHER
from pipelines.cli.runner import is_waited_for
from rasteret_beam import build_from_table
from tests.support.commands import Outcome, as_flags, execute
from tests.support.front import Front
from tests.support.gcs_emulator import Gcs, gcs_emulator
from tests.support.paths import ROOT
from tests.support.scenes import scene_table

pytestmark = [pytest.mark.usefixtures("same_signal_handlers"), pytest.mark.slow]

MAINS: dict[str, Callable[[list[str]], int]] = {
    "sample_points": sample_points.main,
    "build_collection": build_collection.main,
    "read_chips": read_chips.main,
    "zonal_statistics": zonal_statistics.main,
}
IMAGE = "europe-west4-docker.pkg.dev/demo-project/rasteret-beam/sample_points:1"
OWN_GROUPS = {
    "sample_points": ("SamplePoints/GroupByTile", beam.coders.RowCoder),
    "read_chips": ("ReadChips/GroupByTile", beam.coders.RowCoder),
    "zonal_statistics": ("ZonalStatistics/GroupByTile", beam.coders.RowCoder),
    "build_collection": ("BuildCollection/Group", beam.coders.TupleCoder),
}
"""The one grouping of each job that is not Beam's own (files together, spreading), and the coder of its keys."""
TOKEN = re.compile(r"[0-9a-f]{8}|0x|\d{6}")
LAMBDA = re.compile(r"<lambda at (?!core\.py:\d+>)")  # those of Beam's own core.py change with Beam only


@dataclass(frozen=True)
class Data:
    """Inputs of the commands, in a folder of a bucket."""

    folder: str

    def flags(self, command: str, output: str) -> list[str]:
        """A command's flags, with every output that it has."""
        crs, collection = {"geometry_crs": 32631}, {"collection": f"{self.folder}/scenes", "bands": "B10,B20"}
        if command == "sample_points":
            points = {"points": f"{self.folder}/points.parquet", "x_column": "x", "y_column": "y"}
            return as_flags(**points, **crs, **collection, output=f"{output}/s", unsampled=f"{output}/u")
        if command == "read_chips":
            outputs = {"output": f"{output}/c", "unmatched": f"{output}/m", "geotiff": f"{output}/tiffs"}
            return as_flags(polygons=f"{self.folder}/polygons.parquet", **crs, **collection, **outputs)
        if command == "zonal_statistics":
            outputs = {"output": f"{output}/z", "unmatched": f"{output}/m"}
            return as_flags(polygons=f"{self.folder}/polygons.parquet", **crs, **collection, **outputs)
        return as_flags(cogs=f"{self.folder}/cogs/", bands="B10", output=f"{output}/collection")


@dataclass(frozen=True)
class Staged:
    """A job as Dataflow would get it."""

    gcs: Gcs
    job: dict[str, Any]

    @property
    def pool(self) -> dict[str, Any]:
        (pool,) = self.job["environment"]["workerPools"]
        return dict(pool)

    @property
    def packages(self) -> dict[str, str]:
        """URIs of the staged files by their name on the worker."""
        return {each["name"]: "gs://" + each["location"].split("/", 1)[1] for each in self.pool["packages"]}

    def pipeline(self) -> beam_runner_api_pb2.Pipeline:
        uri = self.job["environment"]["sdkPipelineOptions"]["options"]["pipelineUrl"]
        return beam_runner_api_pb2.Pipeline.FromString(self.gcs.file(uri).read_bytes())

    def steps(self) -> list[str]:
        pipeline = self.pipeline()
        roots = set(pipeline.root_transform_ids)
        return sorted(step.unique_name for id, step in pipeline.components.transforms.items() if id not in roots)


@pytest.fixture(scope="module")
def gcs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gcs]:
    """An emulator, behind what answers the requests for byte ranges that it does not know."""
    with (
        gcs_emulator(tmp_path_factory.mktemp("gcs")) as running,
        Front(f"http://127.0.0.1:{running.port}", gcs=True) as front,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("STORAGE_EMULATOR_HOST", front.url)
        yield running


@pytest.fixture(scope="module")
def data(gcs: Gcs, tmp_path_factory: pytest.TempPathFactory) -> Data:
    folder, place = tmp_path_factory.mktemp("dataflow"), f"{gcs.uri}/in"
    (folder / "cogs").mkdir()
    rows = scene_table(folder / "cogs").to_pylist()
    rng = np.random.default_rng(3)
    x, y = rng.uniform(500_000, 505_000, 200), rng.uniform(5_397_000, 5_400_000, 200)
    pq.write_table(pa.table({"x": x, "y": y}), folder / "points.parquet")
    boxes = shapely.to_wkb(shapely.box(x[:9], y[:9], x[:9] + 200, y[:9] + 100))
    pq.write_table(pa.table({"geometry": pa.array(boxes, pa.binary())}), folder / "polygons.parquet")
    for path in [*folder.glob("*.parquet"), *folder.glob("cogs/*.tif")]:
        with FileSystems.create(f"{place}/{path.relative_to(folder)}") as file:
            file.write(path.read_bytes())
    for asset in (asset for row in rows for asset in row["assets"].values() if asset):
        asset["href"] = asset["href"].replace(str(folder), place)
    build_from_table(pa.Table.from_pylist(rows), name="scenes").export(f"{place}/scenes")
    return Data(place)


def on_dataflow(gcs: Gcs, **other: object) -> list[str]:
    places = {"temp_location": f"{gcs.uri}/tmp", "staging_location": f"{gcs.uri}/staging"}
    return as_flags(runner="DataflowRunner", project="demo-project", region="europe-west4", **places, **other)


def stage(command: str, data: Data, gcs: Gcs, name: str, *flags: str) -> Staged:
    """Have a command write its job to the bucket in place of submitting it."""
    place = f"{gcs.uri}/templates/{name}.json"
    chosen = on_dataflow(gcs, template_location=place, sdk_container_image=IMAGE)
    outcome = execute(MAINS[command], *data.flags(command, f"{gcs.uri}/{name}"), *chosen, *flags)
    assert outcome.code == 0, outcome.err
    assert outcome.out == f"the job is written to {place}; nothing was submitted\n"
    return Staged(gcs, json.loads(gcs.file(place).read_bytes()))


@pytest.fixture(scope="module", params=list(MAINS))
def staged_twice(request: pytest.FixtureRequest, data: Data, gcs: Gcs) -> tuple[str, Staged, Staged]:
    command = request.param
    return command, stage(command, data, gcs, f"{command}_1"), stage(command, data, gcs, f"{command}_2")


def test_a_job_in_yaml(data: Data, gcs: Gcs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each element between the steps of YAML has a coder that other SDKs know too, and keys are deterministic."""
    python = yaml_provider.YamlProviders.create_builtin_provider()
    few = yaml_provider.merge_providers(python)  # to load all of Beam's takes 10 s
    monkeypatch.setattr(yaml_provider, "standard_providers", lambda: few)
    place = f"{gcs.uri}/templates/yaml.json"
    points = {"points": f"{data.folder}/points.parquet", "x_column": "x", "y_column": "y", "geometry_crs": 32631}
    variables = points | {"collection": f"{data.folder}/scenes", "bands": "B10,B20", "output": f"{gcs.uri}/yaml/s"}
    options, build, _ = main.build_pipeline_components_from_argv(
        [
            f"--yaml_pipeline_file={ROOT}/templates/yaml/points_to_parquet.yaml",
            f"--jinja_variables={json.dumps(variables)}",
            *on_dataflow(gcs, template_location=place, sdk_container_image=IMAGE),
        ]
    )
    FileSystems.set_options(options)
    pipeline = beam.Pipeline(options=options)
    build(pipeline)
    pipeline.run()
    staged = Staged(gcs, json.loads(gcs.file(place).read_bytes()))
    proto = staged.pipeline()
    outputs = {
        (step.unique_name, proto.components.coders[proto.components.pcollections[output].coder_id].spec.urn)
        for step in proto.components.transforms.values()
        if step.unique_name in ("Points", "Samples")
        for output in step.outputs.values()
    }
    assert outputs == {("Points", "beam:coder:row:v1"), ("Samples", "beam:coder:row:v1")}
    assert [name for name, coder in key_coders(proto).items() if not coder.is_deterministic()] == []
    assert {"WriteUnsampled", "Write"} < {*staged.steps()}


@pytest.mark.parametrize("command", list(MAINS))
class TestDryRun:
    def dry(self, command: str, data: Data, output: str, *flags: str) -> Outcome:
        return execute(MAINS[command], *data.flags(command, output), *flags, "--dry_run=True")

    def test_checks_the_job_and_leaves_nothing(self, command: str, data: Data, gcs: Gcs) -> None:
        before = gcs.objects(f"{gcs.uri}/")
        outcome = self.dry(command, data, f"{gcs.uri}/dry", *on_dataflow(gcs, sdk_container_image=IMAGE))
        assert (outcome.code, outcome.out) == (0, "dry run: the job can be built; nothing was submitted\n")
        assert outcome.err == ""
        assert gcs.objects(f"{gcs.uri}/") == before

    def test_warns_of_workers_without_this_package(self, command: str, data: Data, gcs: Gcs) -> None:
        outcome = self.dry(command, data, f"{gcs.uri}/dry", *on_dataflow(gcs))
        assert outcome.code == 0
        assert outcome.err.startswith("warning: Dataflow's workers lack this package: give ")
        assert outcome.err.count("\n") == 1

    def test_finds_what_dataflow_needs(self, command: str, data: Data, gcs: Gcs) -> None:
        outcome = self.dry(command, data, f"{gcs.uri}/dry", "--runner=DataflowRunner", "--region=europe-west4")
        assert outcome.code == 1
        assert "project" in outcome.err

    def test_in_this_process_runs_nothing(self, command: str, data: Data, tmp_path: Path) -> None:
        assert self.dry(command, data, str(tmp_path)).code == 0
        assert list(tmp_path.iterdir()) == []


def test_a_key_that_is_not_deterministic_is_refused(gcs: Gcs) -> None:
    """What a dry run checks: that it lets our keys pass says something."""
    pipeline = beam.Pipeline(argv=[*on_dataflow(gcs), "--dry_run=True"])
    keyed = pipeline | beam.Create([1]) | beam.Map(lambda one: (one, one)).with_output_types(tuple[pa.RecordBatch, int])
    _ = keyed | beam.GroupByKey()
    with pytest.raises(ValueError, match="deterministic"):
        pipeline.run()


class TestStagedJob:
    def test_step_names_are_unique_and_stable(self, staged_twice: tuple[str, Staged, Staged]) -> None:
        _, first, second = staged_twice
        names = first.steps()
        assert len(names) == len(set(names)) > 20
        assert names == second.steps()

    def test_step_names_hold_nothing_generated(self, staged_twice: tuple[str, Staged, Staged]) -> None:
        _, first, _ = staged_twice
        assert [name for name in first.steps() if TOKEN.search(name) or LAMBDA.search(name)] == []

    def test_key_coders_are_deterministic(self, staged_twice: tuple[str, Staged, Staged]) -> None:
        command, first, _ = staged_twice
        keys = key_coders(first.pipeline())
        assert len(keys) >= 3
        assert [name for name, coder in keys.items() if not coder.is_deterministic()] == []
        group, coder_type = OWN_GROUPS[command]
        assert [type(coder) for name, coder in keys.items() if name.startswith(group)] == [coder_type]

    def test_workers_run_the_image(self, staged_twice: tuple[str, Staged, Staged]) -> None:
        _, first, _ = staged_twice
        images = {each["containerImage"] for each in first.pool["sdkHarnessContainerImages"]}
        environments = first.pipeline().components.environments.values()
        payloads = [beam_runner_api_pb2.DockerPayload.FromString(each.payload) for each in environments]
        assert images == {payload.container_image for payload in payloads} == {IMAGE}

    def test_the_main_session_is_not_needed(self, staged_twice: tuple[str, Staged, Staged]) -> None:
        _, first, _ = staged_twice
        assert set(first.packages) == {"submission_environment_dependencies.txt"}

    def test_it_is_a_batch_job(self, staged_twice: tuple[str, Staged, Staged]) -> None:
        _, first, _ = staged_twice
        assert first.job["type"] == "JOB_TYPE_BATCH"

    def test_nothing_is_left_beside_the_outputs(self, staged_twice: tuple[str, Staged, Staged], gcs: Gcs) -> None:
        command, _, _ = staged_twice
        assert gcs.objects(f"{gcs.uri}/{command}_1/") == []


def key_coders(pipeline: beam_runner_api_pb2.Pipeline) -> dict[str, Any]:
    """Key coder of every GroupByKey, by the step's name."""
    context, found = PipelineContext(pipeline.components), {}
    for step in pipeline.components.transforms.values():
        if step.spec.urn == "beam:transform:group_by_key:v1":
            (keyed,) = step.inputs.values()
            coder = context.coders[pipeline.components.pcollections[keyed].coder_id]
            found[step.unique_name] = coder.key_coder()
    return found


def pickled_functions(pipeline: beam_runner_api_pb2.Pipeline) -> list[bytes]:
    """The pickles of all steps' functions, as Beam's pickler packs them."""
    specs = [step.spec for step in pipeline.components.transforms.values()]
    payloads = [spec.payload for spec in specs if spec.urn == "beam:transform:pardo:v1"]
    packed = [beam_runner_api_pb2.ParDoPayload.FromString(payload).do_fn.payload for payload in payloads]
    return [bz2.decompress(base64.b64decode(each)) for each in packed]


def test_setup_file_stages_the_whole_package(
    data: Data, gcs: Gcs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = copy_of_project(tmp_path / "project")
    monkeypatch.chdir(project)
    staged = stage("sample_points", data, gcs, "setup", "--setup_file=./setup.py")
    archive = gcs.file(staged.packages["workflow.tar.gz"]).read_bytes()
    with tarfile.open(fileobj=io.BytesIO(archive)) as packed:
        names = {name.split("/", 1)[-1] for name in packed.getnames()}
    wanted = {str(path.relative_to(project)) for path in source_files(project)}
    assert {"rasteret_beam/py.typed", "rasteret_beam/collection/catalogue.json", "pipelines/cli/runner.py"} <= wanted
    assert wanted <= names


def source_files(project: Path) -> list[Path]:
    """What has to be on a worker."""
    files = [*project.glob("rasteret_beam/**/*"), *project.glob("pipelines/**/*")]
    return [path for path in files if path.is_file() and path.suffix in (".py", ".json", ".typed")]


PACKAGING = ("setup.py", "pyproject.toml", "README.md", "LICENSE")


def copy_of_project(place: Path) -> Path:
    """Beam builds the source package in the project's own folder, and leaves its traces there."""
    for path in [
        *source_files(ROOT),
        *(ROOT / name for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE")),
    ]:
        target = place / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    return place


class TestLauncher:
    """As the launcher of a template runs a command: a file of its own, flags of the launcher's beside ours."""

    def test_file_outside_the_package(
        self, data: Data, gcs: Gcs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        script = tmp_path / "template/sample_points.py"
        script.parent.mkdir()
        script.write_bytes((ROOT / "pipelines/sample_points.py").read_bytes())
        place = f"{gcs.uri}/templates/launched.json"
        flags = [
            *data.flags("sample_points", f"{gcs.uri}/launched"),
            *on_dataflow(gcs, template_location=place, sdk_container_image=IMAGE, job_name="launched"),
            "--number_of_worker_harness_threads=2",
            "--a_flag_of_the_launcher=1",
        ]
        monkeypatch.setenv(LAUNCHER, str(script))
        monkeypatch.setattr(sys, "argv", [str(script), *flags])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(script), run_name="__main__")
        assert ended.value.code == 0, capsys.readouterr().err
        staged = Staged(gcs, json.loads(gcs.file(place).read_bytes()))
        assert staged.job["name"] == "launched"
        assert staged.pool["numThreadsPerWorker"] == 2
        assert set(staged.packages) == {"submission_environment_dependencies.txt"}
        pickles = pickled_functions(staged.pipeline())
        assert len(pickles) > 20
        assert [each for each in pickles if b"__main__" in each] == [], "the script is not on the workers"

    def test_unknown_flags_are_left_out_only_there(
        self, data: Data, gcs: Gcs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        flags = [*data.flags("read_chips", str(tmp_path)), "--all_touched=true", "--from_the_launcher=1", "--dry_run=1"]
        monkeypatch.delenv(LAUNCHER, raising=False)
        assert execute(read_chips.main, *flags).code == 2
        monkeypatch.setenv(LAUNCHER, "/template/read_chips.py")
        outcome = execute(read_chips.main, *flags)
        assert outcome.code == 0
        assert "--from_the_launcher=1" in outcome.err


class _Submitted:
    """What Dataflow answers to a job; waiting for it would take the launcher down."""

    metrics = None

    def job_id(self) -> str:
        return "2026-01-01_00_00_00-123"

    def wait_until_finish(self, duration: int | None = None) -> None:
        raise AssertionError("the job was waited for")


@pytest.mark.parametrize("command", list(MAINS))
def test_a_submitted_job_is_not_waited_for(command: str, data: Data, gcs: Gcs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DataflowRunner, "run_pipeline", lambda *_: _Submitted())
    outcome = execute(MAINS[command], *data.flags(command, f"{gcs.uri}/submitted"), *on_dataflow(gcs))
    assert outcome.code == 0, outcome.err
    assert outcome.out == (
        "submitted as job 2026-01-01_00_00_00-123 to project demo-project, region europe-west4; "
        "the output appears when the job has finished\n"
    )


def test_a_job_that_dataflow_refuses_is_an_error(data: Data, gcs: Gcs, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("403 the Dataflow API is not enabled")

    monkeypatch.setattr(DataflowRunner, "run_pipeline", refuse)
    flags = on_dataflow(gcs, sdk_container_image=IMAGE)
    outcome = execute(sample_points.main, *data.flags("sample_points", f"{gcs.uri}/refused"), *flags)
    assert (outcome.code, outcome.err) == (1, "error: 403 the Dataflow API is not enabled\n")


def test_other_runners_are_waited_for_unless_asked() -> None:
    flink = "--runner=FlinkRunner"
    assert is_waited_for(PipelineOptions([flink]))
    assert not is_waited_for(PipelineOptions([flink, "--no_wait_until_finish"]))
    local = "--runner=apache_beam.runners.portability.fn_api_runner.FnApiRunner"
    assert is_waited_for(PipelineOptions([local, "--no_wait_until_finish"])), "it has run by then in any case"
