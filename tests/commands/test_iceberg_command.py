"""Commands that write to an Iceberg table: flags, rounds, and runs that are killed and resumed."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg.catalog import load_catalog

from pipelines import sample_points
from pipelines.cli.cleanup import UnderWay
from rasteret_beam import Collection
from rasteret_beam.errors import OutputError
from rasteret_beam.transforms.sinks import iceberg
from tests.support.commands import Outcome, as_flags, execute
from tests.support.paths import ROOT
from tests.support.pipelines import ORDER, XY

pytestmark = pytest.mark.usefixtures("same_signal_handlers")

SECRET = "s3cr3t-k3y"


@pytest.fixture
def inputs(scenes: Collection, points: pa.Table, tmp_path: Path) -> Path:
    """A collection ``c``, points ``p.parquet``, and a SQL catalog with a namespace ``ns``."""
    scenes.export(tmp_path / "c")
    pq.write_table(points.slice(0, 90), tmp_path / "p.parquet", row_group_size=30)
    catalog = load_catalog("cat", **properties(tmp_path))
    catalog.create_namespace("ns")
    catalog.close()
    return tmp_path


def properties(folder: Path) -> dict[str, str]:
    return {"type": "sql", "uri": f"sqlite:///{folder}/c.db", "warehouse": f"file://{folder}/warehouse"}


def flags_of(folder: Path, **more: object) -> list[str]:
    known = {**properties(folder), "s3.secret-access-key": SECRET}
    asked = {"points": folder / "p.parquet", "collection": folder / "c", "bands": "B10,B20", "iceberg": "cat.ns.t"}
    return [*as_flags(**{**XY, **asked, **more}), *(f"--iceberg_property={key}={known[key]}" for key in known)]


def sample(folder: Path, *words: str, **more: object) -> Outcome:
    return execute(sample_points.main, *flags_of(folder, **more), *words)


def rows_of(folder: Path) -> list[dict[str, Any]]:
    table = load_catalog("cat", **properties(folder)).load_table("ns.t")
    return table.scan().to_arrow().sort_by(ORDER).to_pylist()


def wanted(scenes: Collection, points: pa.Table) -> list[dict[str, Any]]:
    return scenes.sample_points(points.slice(0, 90), ["B10", "B20"], **XY).sort_by(ORDER).to_pylist()


def test_a_run_in_rounds_and_its_rerun(inputs: Path, scenes: Collection, points: pa.Table) -> None:
    outcome = sample(inputs, round_points=40, iceberg_run_id="one", unsampled=inputs / "left")
    assert (outcome.code, outcome.err) == (0, "")
    assert re.search(r"^output +cat\.ns\.t$", outcome.out, re.M)
    assert outcome.figures["rows"] == len(rows_of(inputs))
    assert rows_of(inputs) == wanted(scenes, points)
    assert [path for path in inputs.glob("warehouse/**/*") if path.name.startswith("_")] == []
    again = sample(inputs, round_points=40, iceberg_run_id="one", unsampled=inputs / "left")
    assert (again.code, again.err) == (0, "")
    assert again.out == "run one has its rows in cat.ns.t already; nothing was read or written\n"
    assert len(rows_of(inputs)) == outcome.figures["rows"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"iceberg": "ns.t"}, "error: Iceberg table is 'ns.t'; write it as CATALOG.NAMESPACE.TABLE\n"),
        ({"iceberg_run_id": "a b"}, "error: --iceberg_run_id is 'a b'; use at most 200"),
        ({"iceberg_partition_by": "datetime:week"}, "error: --iceberg_partition_by is 'datetime:week'; the transform"),
        ({"iceberg": "cat.no.t"}, "error: Iceberg catalog 'cat' has no namespace 'no'"),
        ({"iceberg_create_disposition": "CREATE_NEVER"}, "error: there is no table cat.ns.t; create it, or allow"),
        (
            {"iceberg": None, "output": "o/s", "iceberg_run_id": "a"},
            "--iceberg_property, --iceberg_run_id given",
        ),
        ({"bq_run_id": "a"}, "error: --bq_run_id given without --bigquery"),
    ],
)
def test_flags_that_are_wrong(more: dict[str, object], message: str, inputs: Path) -> None:
    outcome = sample(inputs, **more)
    assert (outcome.code, outcome.out) == (1, "")
    assert message.removesuffix("\n") in outcome.err
    assert SECRET not in outcome.err


def test_a_property_without_a_value(inputs: Path) -> None:
    outcome = sample(inputs, f"--iceberg_property={SECRET}")
    assert outcome.code == 2 and SECRET not in outcome.err
    assert "argument --iceberg_property: a property is not KEY=VALUE; give one such as uri=" in outcome.err


@pytest.mark.slow
def test_new_columns_name_their_flag(inputs: Path) -> None:
    assert sample(inputs, iceberg_partition_by="none", columns="plot").code == 0
    outcome = sample(inputs)
    assert (
        "kind (string) is not in the table" in outcome.err and "added with --iceberg_add_columns, alter" in outcome.err
    )
    assert sample(inputs, iceberg_add_columns="true").code == 0
    assert {row["kind"] for row in rows_of(inputs)} == {None, "a", "b"}


HOOKS = {
    "two rounds are recorded": "after(RoundRecords, 'finish', 2)",
    "the files are written and not added": "before(iceberg, 'add_files', 1)",
    "the files are added": "after(iceberg, 'add_files', 1)",
}
"""The moments at which a process is killed."""

PROGRAM = """
import os, signal, sys
from pipelines import sample_points
from pipelines.cli.process import command
from rasteret_beam.transforms.sinks import iceberg
from rasteret_beam.transforms.sinks.rounds import RoundRecords

def hook(owner, name, number, is_before):
    real, calls = getattr(owner, name), []
    def called(*args, **kwargs):
        calls.append(1)
        if is_before and len(calls) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        result = real(*args, **kwargs)
        if len(calls) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    setattr(owner, name, called)

def before(owner, name, number):
    hook(owner, name, number, True)

def after(owner, name, number):
    hook(owner, name, number, False)

{hook}
command(lambda: sample_points.main(sys.argv[1:]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("moment", HOOKS)
def test_a_killed_run_is_named_and_resumed(moment: str, inputs: Path, scenes: Collection, points: pa.Table) -> None:
    flags = flags_of(inputs, round_points=30)
    words = [sys.executable, "-c", PROGRAM.format(hook=HOOKS[moment]), *flags]
    ended = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    [folder] = inputs.glob("warehouse/**/rasteret_beam-*/")
    files = {path: path.stat().st_mtime_ns for path in folder.glob("*.parquet")}
    assert SECRET not in "".join(path.read_text() for path in folder.rglob("*.json"))
    outcome = sample(inputs, "--resume", round_points=30)
    assert outcome.code == 0, outcome.err
    assert rows_of(inputs) == wanted(scenes, points)
    assert {path: path.stat().st_mtime_ns for path in files} == files
    named = {
        True: f"was killed just after it had added {folder}/",
        False: f"{folder}/ has files of a run that is still",
    }
    assert named[moment == "the files are added"] in outcome.err
    assert "resuming the run that began" in outcome.err
    assert [path for path in folder.rglob("*") if path.suffix != ".parquet"] == []


def test_an_interrupt_deletes_no_file_of_the_table(inputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even where the catalog does not tell."""
    sinks: list[Any] = []
    real = iceberg.WriteSamplesToIceberg.check

    def check(self: Any, options: Any) -> None:
        sinks.append(self)
        real(self, options)

    monkeypatch.setattr(iceberg.WriteSamplesToIceberg, "check", check)
    assert sample(inputs).code == 0
    [sink] = sinks
    under_way = UnderWay([], lambda: sink.leftovers(None), "FnApiRunner", True)
    files = sorted(inputs.glob("warehouse/**/*.parquet"))
    under_way.interrupt()
    with monkeypatch.context() as patch:
        patch.setattr(iceberg, "is_in", lambda to, run: (_ for _ in ()).throw(OutputError("gone")))
        under_way.interrupt()
    assert files and sorted(inputs.glob("warehouse/**/*.parquet")) == files
    sink.token = "another"
    os.makedirs(sink.temporary())
    (Path(sink.temporary()) / "x.parquet").touch()
    assert sink.leftovers(None) == [sink.temporary()]
    under_way.interrupt()
    assert sorted(inputs.glob("warehouse/**/*.parquet")) == files
