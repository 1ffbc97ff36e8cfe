"""Options of portable runners: each documented form is taken, and reaches the job as it is meant."""

from collections.abc import Iterator, Sequence
from concurrent import futures
from contextlib import contextmanager
from typing import Any

import grpc
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from apache_beam.options import pipeline_options as beam_options
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions
from apache_beam.portability.api import beam_job_api_pb2, beam_job_api_pb2_grpc
from apache_beam.runners.portability.portable_runner import JobServiceHandle

from pipelines import sample_points
from pipelines.cli.flags import Parser, pipeline_options
from pipelines.cli.runner_options import FLINK, RunnerOption
from rasteret_beam import Collection
from tests.support.commands import Outcome, execute

TYPES = {"switch": "BOOLEAN", "integer": "INTEGER", "list": "ARRAY", "text": "STRING"}
DOCUMENTED = (
    "disable_metrics attached_mode use_data_stream_for_batch num_concurrent_checkpoints "
    "force_unaligned_checkpoint_enabled enable_stable_input_drain report_checkpoint_duration "
    "job_check_interval_in_secs file_input_split_max_size_m_b state_backend_factory load_balance_bundles "
    "environment_expiration_millis enable_heap_dumps object_reuse faster_copy operator_chaining "
    "fail_on_checkpointing_errors parallelism checkpointing_interval max_bundle_size state_backend "
    "savepoint_path"
).split()


def described(option: RunnerOption) -> Any:
    kind = beam_job_api_pb2.PipelineOptionType.Enum.Value(TYPES[option.kind])
    default = str(option.is_on).lower() if option.kind == "switch" else ""
    return beam_job_api_pb2.PipelineOptionDescriptor(name=option.name, type=kind, default_value=default)


class Servicer(beam_job_api_pb2_grpc.JobServiceServicer):
    """A job server that describes its options, and refuses each job once it knows the options of it."""

    def __init__(self, options: Sequence[RunnerOption] = ()):
        self.options = [described(option) for option in options]
        self.jobs: list[dict[str, Any]] = []

    def DescribePipelineOptions(self, request: Any, context: Any = None, timeout: Any = None) -> Any:
        return beam_job_api_pb2.DescribePipelineOptionsResponse(options=self.options)

    def Prepare(self, request: Any, context: Any) -> Any:
        self.jobs.append(dict(request.pipeline_options.items()))
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "no slot is free")


@contextmanager
def serving(servicer: Servicer) -> Iterator[str]:
    server = grpc.server(futures.ThreadPoolExecutor(4))
    beam_job_api_pb2_grpc.add_JobServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


def sent(words: Sequence[str], servicer: Servicer) -> dict[str, Any]:
    """The options that Beam sends to a job server for a command's flags."""
    _, rest = Parser("test", "").parse(words)
    options = pipeline_options(rest)
    return dict(JobServiceHandle(servicer, options).get_pipeline_options().items())


def key(name: str) -> str:
    return f"beam:option:{name}:v1"


SWITCHES = [option for option in FLINK if option.kind == "switch"]


@pytest.mark.parametrize("known", [FLINK, ()], ids=["described", "not described"])
def test_switches(known: Sequence[RunnerOption]) -> None:
    assert len(SWITCHES) >= 19
    forms = {"": True, "=true": True, "=True": True, "=false": False, "=FALSE": False}
    for form, value in forms.items():
        got = sent([f"--{option.name}{form}" for option in SWITCHES], Servicer(known))
        assert {option.name: got[key(option.name)] for option in SWITCHES} == dict.fromkeys(
            (option.name for option in SWITCHES), value
        )


@pytest.mark.parametrize("known", [FLINK, ()], ids=["described", "not described"])
@pytest.mark.parametrize("form", ["--{}={}", "--{} {}"])
def test_values(known: Sequence[RunnerOption], form: str) -> None:
    values = {option.name: "7" if option.kind == "integer" else "some" for option in FLINK if option.kind != "switch"}
    got = sent([word for each in values.items() for word in form.format(*each).split()], Servicer(known))
    assert {name: got[key(name)] for name in values} == values


def test_what_is_not_given_is_as_the_server_has_it() -> None:
    """Beam sends the server's own defaults of switches that it describes."""
    got = sent(["--object_reuse=false"], Servicer(FLINK))
    assert {option.name: got[key(option.name)] for option in SWITCHES} == {
        option.name: option.is_on for option in SWITCHES
    }
    rest = {key(option.name) for option in SWITCHES} & set(sent(["--object_reuse=false"], Servicer()))
    assert rest == {key("object_reuse")}


def test_every_documented_option_is_known() -> None:
    names = {option.name for option in FLINK}
    assert set(DOCUMENTED) <= names
    assert len(names) == len(FLINK)


def test_a_switch_that_is_on_already(caplog: pytest.LogCaptureFixture) -> None:
    Parser("test", "").parse(["--operator_chaining", "--object_reuse"])
    assert [record.getMessage() for record in caplog.records] == [
        "--operator_chaining is on by default; turn it off with --operator_chaining=false"
    ]


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("--object_reuse=maybe", "'maybe' is neither true nor false"),
        ("--max_bundle_size=many", "invalid int value: 'many'"),
        ("--objct_reuse", "unknown flag --objct_reuse; did you mean --object_reuse?"),
        ("--zzzzzz", "unknown flag --zzzzzz; see --help"),
    ],
)
def test_wrong_flags(word: str, message: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as ended:
        Parser("test", "").parse([word])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("word", "value"), [("--streaming", True), ("--streaming=true", True), ("--streaming=false", False)]
)
def test_beams_own_switches(word: str, value: bool) -> None:
    _, rest = Parser("test", "").parse([word])
    assert pipeline_options(rest).view_as(StandardOptions).streaming is value


@pytest.mark.parametrize(
    ("words", "value"),
    [
        (["--dry_run"], True),
        (["--dry_run", "--streaming"], True),
        (["--dry_run=True"], True),
        (["--dry_run", "true"], True),
        (["--dry_run=false"], False),
        (["--dry_run", "False"], False),
    ],
)
def test_dry_runs(words: list[str], value: bool) -> None:
    _, rest = Parser("test", "").parse(words)
    assert bool(pipeline_options(rest).view_as(beam_options.TestOptions).dry_run) is value


@pytest.fixture(scope="module")
def flags(scenes: Collection, points: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("runner")
    pq.write_table(points, folder / "p.parquet")
    scenes.export(folder / "c")
    inputs = [f"--points={folder}/p.parquet", "--x_column=x", "--y_column=y", "--geometry_crs=32631"]
    return [*inputs, f"--collection={folder}/c", "--bands=B10", f"--output={folder}/out/s"]


def run_at(address: str, flags: Sequence[str], *more: str) -> Outcome:
    runner = ["--runner=PortableRunner", f"--job_endpoint={address}", "--environment_type=LOOPBACK"]
    return execute(sample_points.main, *flags, *runner, *more)


@pytest.mark.usefixtures("same_signal_handlers")
class TestJobServer:
    OWN = (
        RunnerOption("brand_new", "switch"),
        RunnerOption("spare_parts", "list"),
        RunnerOption("object_reuse", "switch"),
    )

    def test_is_asked_for_its_options(self, flags: list[str]) -> None:
        servicer = Servicer(self.OWN)
        with serving(servicer) as address:
            outcome = run_at(
                address, flags, "--brand_new", "--spare_parts=a", "--spare_parts=b", "--object_reuse=false"
            )
        assert outcome.code == 1
        assert outcome.err == "error: the job server answers with an error: FAILED_PRECONDITION: no slot is free\n"
        (job,) = servicer.jobs
        assert (job[key("brand_new")], job[key("object_reuse")]) == (True, False)
        assert list(job[key("spare_parts")]) == ["a", "b"]

    def test_decides_what_is_unknown(self, flags: list[str]) -> None:
        with serving(Servicer(self.OWN)) as address:
            near = run_at(address, flags, "--brand_nwe")
            lacking = run_at(address, flags, "--faster_copy")
        assert (near.code, near.err) == (2, "error: unknown flag --brand_nwe; did you mean --brand_new?\n")
        assert lacking.code == 2
        assert lacking.err.startswith("error: unknown flag --faster_copy;")

    def test_that_describes_nothing_gets_what_the_list_has(self, flags: list[str]) -> None:
        servicer = Servicer()
        with serving(servicer) as address:
            assert run_at(address, flags, "--faster_copy").code == 1
        assert servicer.jobs[0][key("faster_copy")] is True

    def test_that_is_away(self, flags: list[str]) -> None:
        with serving(Servicer()) as address:
            pass
        for flag in ("--brand_new", "--faster_copy"):
            outcome = run_at(address, flags, flag)
            assert outcome.code == 1
            assert outcome.err.startswith(f"error: --job_endpoint is {address}, but no server answers there: ")
            assert outcome.err.count("\n") == 1


def test_a_plan_needs_no_job_server(flags: list[str]) -> None:
    words = [word for word in flags if not word.startswith("--output")]
    with serving(Servicer()) as address:
        pass
    outcome = execute(sample_points.main, *words, "--plan", f"--job_endpoint={address}", "--faster_copy")
    assert outcome.code == 0, outcome.err


def test_beams_options_stay_as_they_are() -> None:
    """Options of a runner are known only as far as the command was given them."""
    Parser("test", "").parse(["--object_reuse"])
    assert PipelineOptions(["--object_reuse"]).get_all_options()["object_reuse"] is True
    Parser("test", "").parse([])
    assert "object_reuse" not in PipelineOptions([]).get_all_options()
