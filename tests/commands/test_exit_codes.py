"""What --help says of exit code 1 is true: outputs are as they were, but for those that the error names."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines import build_collection, read_chips, sample_points, zonal_statistics
from pipelines.cli import runner
from pipelines.cli.cleanup import UnderWay
from rasteret_beam import Collection
from rasteret_beam.errors import OutputError
from rasteret_beam.transforms.sinks import commit as committing
from tests.support.commands import execute

pytestmark = pytest.mark.usefixtures("same_signal_handlers")


@pytest.fixture
def flags(scenes: Collection, points: pa.Table, tmp_path: Path) -> list[str]:
    pq.write_table(points, tmp_path / "p.parquet")
    scenes.export(tmp_path / "c")
    inputs = [f"--points={tmp_path}/p.parquet", "--x_column=x", "--y_column=y", "--geometry_crs=32631"]
    outputs = [f"--output={tmp_path}/out/s", f"--unsampled={tmp_path}/out/u"]
    return [*inputs, f"--collection={tmp_path}/c", "--bands=B10", *outputs]


@pytest.mark.parametrize("module", [sample_points, build_collection, read_chips, zonal_statistics])
def test_help(module) -> None:
    said = " ".join(module.parser().epilog.split())
    assert "1, the job failed, and " in said and " as before" in said
    assert "wrote nothing" not in said


def test_a_job_that_fails_between_two_outputs(flags: list[str], tmp_path: Path, monkeypatch) -> None:
    decide, decided = committing._write, []

    def first_only(output, manifest) -> None:
        if not manifest.done:
            if decided:
                raise OutputError("the disk is full")
            decided.append(output.path)
        decide(output, manifest)

    monkeypatch.setattr(committing, "_write", first_only)
    outcome = execute(sample_points.main, *flags)
    assert outcome.code == 1
    assert outcome.err.splitlines() == [
        "error: the disk is full",
        "2,000 of 2,000 points in 1 round(s) are finished and kept; run the command again with --resume to continue, "
        "or without it to start anew",
        f"already in place: {decided[0]}",
    ]
    assert outputs_in(tmp_path / "out") == {"u"}
    monkeypatch.setattr(committing, "_write", decide)
    assert execute(sample_points.main, *flags, "--resume").code == 0
    assert outputs_in(tmp_path / "out") == {"s", "u"}
    assert not list((tmp_path / "out").glob("*temporary*"))


def outputs_in(folder: Path) -> set[str]:
    return {path.name.partition("-")[0] for path in folder.iterdir() if not path.name.startswith("_")}


def test_a_job_whose_counts_are_lost(flags: list[str], tmp_path: Path, monkeypatch) -> None:
    def lost(result) -> dict[str, int]:
        raise RuntimeError("the server is gone")

    monkeypatch.setattr(runner, "counted", lost)
    outcome = execute(sample_points.main, *flags)
    assert outcome.code == 1
    assert outcome.err == "error: the job's counters cannot be read: the server is gone\n"
    assert list((tmp_path / "out").iterdir()) == []


def test_a_job_that_does_not_add_up(flags: list[str], tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(sample_points, "accounting_error", lambda *_, **__: "1 row is lost")
    outcome = execute(sample_points.main, *flags)
    assert outcome.code == 1
    assert outcome.err == (
        f"error: the output is in place but not complete: 1 row is lost; check {tmp_path}/out/s, {tmp_path}/out/u\n"
    )


def under_way(loaded) -> UnderWay:
    return UnderWay([], list, "FnApiRunner", True, loaded=loaded, has_begun=True)


def test_a_table_that_was_loaded(capsys: pytest.CaptureFixture) -> None:
    under_way(lambda: "p.d.t").fail("a tile")
    under_way(lambda: None).fail("a tile")
    assert capsys.readouterr().err == "error: a tile\nalready in place: p.d.t\nerror: a tile\n"


def test_a_table_of_which_nobody_knows(capsys: pytest.CaptureFixture) -> None:
    def unknown() -> str:
        raise OutputError("no connection")

    under_way(unknown).fail("a tile")
    assert capsys.readouterr().err == "cannot find out whether rows were loaded: no connection\nerror: a tile\n"
