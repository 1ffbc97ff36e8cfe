"""Jobs for other machines: paths of this one are refused, or warned of where a filesystem may be shared."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from apache_beam.options.pipeline_options import PipelineOptions

from pipelines import build_collection, read_chips, sample_points, zonal_statistics
from pipelines.cli.flags import LOCAL_RUNNER
from pipelines.cli.remote_workers import check_hrefs, check_packages, check_paths, is_on_this_machine, workers_elsewhere
from rasteret_beam import Collection, register
from rasteret_beam.collection import catalogue
from rasteret_beam.errors import InputError
from tests.support.commands import execute

DATAFLOW = ["--runner=DataflowRunner", "--project=p", "--region=europe-west4", "--temp_location=gs://b/t"]
FLINK = ["--runner=FlinkRunner", "--flink_master=flink.example.org:8081"]


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ([f"--runner={LOCAL_RUNNER}"], None),
        (["--runner=DirectRunner"], None),
        (["--runner=PrismRunner"], None),
        (["--runner=DataflowRunner"], "Dataflow's workers"),
        (["--runner=apache_beam.runners.dataflow.dataflow_runner.DataflowRunner"], "Dataflow's workers"),
        (["--runner=FlinkRunner"], None),
        (["--runner=FlinkRunner", "--flink_master=[local]"], None),
        (["--runner=FlinkRunner", "--flink_master=localhost:8081"], None),
        (["--runner=FlinkRunner", "--flink_master=http://127.0.0.1:8081"], None),
        (["--runner=FlinkRunner", "--flink_master=10.0.0.5:8081"], "the workers behind 10.0.0.5:8081"),
        (["--runner=FlinkRunner", "--flink_master=10.0.0.5:8081", "--environment_type=LOOPBACK"], None),
        (["--runner=FlinkRunner", "--flink_master=10.0.0.5:8081", "--job_endpoint=localhost:8099"], None),
        (["--runner=SparkRunner"], None),
        (
            ["--runner=SparkRunner", "--spark_master_url=spark://a.example:7077"],
            "the workers behind spark://a.example:7077",
        ),
        (["--runner=PortableRunner", "--job_endpoint=embed"], None),
        (["--runner=PortableRunner", "--job_endpoint=[::1]:8099"], None),
        (
            ["--runner=PortableRunner", "--job_endpoint=jobs.example.org:8099"],
            "the workers behind jobs.example.org:8099",
        ),
        (
            [
                "--runner=PortableRunner",
                "--job_endpoint=localhost:8099",
                "--environment_type=EXTERNAL",
                "--environment_config=pool.example.org:50000",
            ],
            "the workers behind pool.example.org:50000",
        ),
        (
            [
                "--runner=PortableRunner",
                "--job_endpoint=localhost:8099",
                "--environment_type=EXTERNAL",
                "--environment_options=external_service_address=localhost:50000",
            ],
            None,
        ),
    ],
)
def test_where_workers_are(words: list[str], name: str | None) -> None:
    found = workers_elsewhere(PipelineOptions(words))
    assert (found and found.name) == name


@pytest.mark.parametrize(
    ("href", "is_local"),
    [
        ("/data/a.tif", True),
        ("data/a.tif", True),
        ("~/a.tif", True),
        ("file:///data/a.tif", True),
        ("FILE:/data/a.tif", True),
        ("/vsizip//data/a.zip/a.tif", True),
        ("/vsitar/data/a.tar/a.tif", True),
        ("NETCDF:/data/a.nc:t2m", True),
        ('HDF5:"/data/a.h5"://group/a', True),
        ('HDF5:"s3://b/a.h5"://group/a', False),
        ("GTIFF_DIR:2:/data/a.tif", True),
        ("GTIFF_DIR:2:https://h/a.tif", False),
        ("gs://b/a.tif", False),
        ("https://h/a.tif?sig=1", False),
        ("s3://b/a.tif", False),
        ("/vsigs/b/a.tif", False),
        ("/vsis3_streaming/b/a.tif", False),
        ("/vsizip//vsicurl/https://h/a.zip/a.tif", False),
        ("NETCDF:/vsis3/b/a.nc:t2m", False),
    ],
)
def test_hrefs_of_this_machine(href: str, is_local: bool) -> None:
    assert is_on_this_machine(href) is is_local


def test_flags_are_named_together(capsys: pytest.CaptureFixture) -> None:
    given = {"--points": ["/d/p.parquet", "gs://b/p.parquet"], "--output": "out/s", "--unsampled": None}
    check_paths(PipelineOptions([]), given)
    with pytest.raises(InputError) as refused:
        check_paths(PipelineOptions(DATAFLOW), given)
    assert str(refused.value) == (
        "--points /d/p.parquet, --output out/s are on this machine, which Dataflow's workers cannot read; put it in a "
        "bucket, such as gs://my-bucket/..."
    )
    check_paths(PipelineOptions(FLINK), given)
    assert capsys.readouterr().err == (
        "warning: --points /d/p.parquet, --output out/s are on this machine, and the workers behind "
        "flink.example.org:8081 are not: this works only if each worker has it under the same path, as on a shared "
        "filesystem\n"
    )


def test_hrefs_are_counted_once_and_one_is_named(capsys: pytest.CaptureFixture) -> None:
    hrefs = ["gs://b/1.tif", "/d/2.tif", "/d/2.tif", "/d/3.tif", None]
    with pytest.raises(InputError, match=r"^2 of 3 rasters of the collection, such as /d/2.tif, are on this machine"):
        check_hrefs(PipelineOptions(DATAFLOW), "the collection", hrefs)
    check_hrefs(PipelineOptions(DATAFLOW), "the collection", ["gs://b/1.tif", "/vsis3/b/2.tif"])
    check_hrefs(PipelineOptions(DATAFLOW), "the collection", [])
    check_hrefs(PipelineOptions(FLINK), "the collection", hrefs)
    assert capsys.readouterr().err.startswith(
        "warning: 2 of 3 rasters of the collection, such as /d/2.tif, are on this"
    )


@pytest.mark.parametrize(
    ("words", "warning"),
    [
        (DATAFLOW, "give --sdk_container_image IMAGE"),
        ([*DATAFLOW, "--sdk_container_image=i"], ""),
        ([*DATAFLOW, "--requirements_file=r.txt"], ""),
        ([*DATAFLOW, "--extra_package=p.whl"], ""),
        (FLINK, "give --environment_config=IMAGE"),
        ([*FLINK, "--environment_config=i"], ""),
        ([*FLINK, "--environment_options=docker_container_image=i"], ""),
        ([*FLINK, "--environment_type=EXTERNAL", "--environment_config=localhost:50000"], ""),
        ([], ""),
    ],
)
def test_workers_without_this_package(words: list[str], warning: str, capsys: pytest.CaptureFixture) -> None:
    check_packages(PipelineOptions(words))
    err = capsys.readouterr().err
    assert (warning in err and err.startswith("warning: ")) if warning else not err


def test_the_file_that_brings_this_package_is_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"--setup_file is {tmp_path}/setup.py, which does not exist"):
        check_packages(PipelineOptions([*DATAFLOW, f"--setup_file={tmp_path}/setup.py"]))


@pytest.fixture(scope="module")
def folder(scenes: Collection, points: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("elsewhere")
    pq.write_table(points, folder / "p.parquet")
    scenes.export(folder / "c")
    return folder


SAMPLE = ["--x_column=x", "--y_column=y", "--geometry_crs=32631", "--bands=B10"]
COMMANDS = {
    "points": (sample_points, [*SAMPLE, "--points={}/p.parquet", "--collection=gs://b/c", "--output=gs://b/o"]),
    "collection": (sample_points, [*SAMPLE, "--points=gs://b/p", "--collection={}/c", "--output=gs://b/o"]),
    "registered": (sample_points, [*SAMPLE, "--points=gs://b/p", "--collection=team/scenes", "--output=gs://b/o"]),
    "output": (sample_points, [*SAMPLE, "--points=gs://b/p", "--collection=gs://b/c", "--output={}/o"]),
    "retry": (sample_points, ["--retry={}/d", "--collection=gs://b/c", "--output=gs://b/o"]),
    "dead_letter": (
        sample_points,
        [*SAMPLE, "--points=gs://b/p", "--collection=gs://b/c", "--output=gs://b/o", "--dead_letter={}/d"],
    ),
    "polygons": (read_chips, ["--polygons={}/f", "--collection=gs://b/c", "--bands=B10", "--output=gs://b/o"]),
    "unmatched": (
        zonal_statistics,
        ["--polygons=gs://b/f", "--collection=gs://b/c", "--bands=B10", "--output=gs://b/o", "--unmatched={}/u"],
    ),
    "geotiff": (
        read_chips,
        ["--polygons=gs://b/f", "--collection=gs://b/c", "--bands=B10", "--output=gs://b/o", "--geotiff={}/t"],
    ),
    "cogs": (build_collection, ["--cogs={}", "--output=gs://b/o"]),
    "built": (build_collection, ["--cogs=gs://b/a.tif", "--output={}/o"]),
}


@pytest.mark.parametrize("dry", [[], ["--dry_run=True"]], ids=["run", "dry run"])
@pytest.mark.parametrize("name", COMMANDS)
def test_commands_refuse_paths_of_this_machine(folder: Path, name: str, dry: list[str], monkeypatch) -> None:
    """Before anything is asked of a bucket."""
    monkeypatch.setattr(catalogue, "_registered", {})
    register("team/scenes", folder / "c")
    module, words = COMMANDS[name]
    outcome = execute(module.main, *(word.format(folder) for word in words), *DATAFLOW, "--sdk_container_image=i", *dry)
    assert outcome.code == 1
    flag = {"registered": "collection", "built": "output"}.get(name, name)
    assert outcome.err.startswith(f"error: --{flag} {folder}") and outcome.err.count("\n") == 1
    counted = " (and 11 of 11 rasters of the collection, such as /" if flag == "collection" else ", which Dataflow's"
    assert f" is on this machine{counted}" in outcome.err
    assert ", which Dataflow's workers cannot read; put it in a bucket" in outcome.err


def test_a_record_table_names_rasters_of_this_machine(folder: Path, scenes: Collection) -> None:
    """The table itself is read here."""
    pq.write_table(scenes.to_table(["id", "datetime", "assets"]), folder / "items.parquet")
    words = [f"--table={folder}/items.parquet", "--output=gs://b/o", *DATAFLOW, "--sdk_container_image=i"]
    outcome = execute(build_collection.main, *words)
    assert outcome.code == 1
    assert "error: 11 of 11 rasters of the records, such as " in outcome.err


def test_a_plan_reads_here(folder: Path) -> None:
    words = [*SAMPLE, f"--points={folder}/p.parquet", f"--collection={folder}/c", "--plan", *DATAFLOW]
    assert execute(sample_points.main, *words).code == 0
