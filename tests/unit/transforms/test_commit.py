"""Outputs are put in place whole, or not at all, wherever a run is killed."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import apache_beam as beam
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from apache_beam.io.filesystems import FileSystems

import rasteret_beam
from rasteret_beam import BuildCollection
from rasteret_beam.collection.parquet.versions import look
from rasteret_beam.collection.records.record_tables import record_table, sources_from_table
from rasteret_beam.errors import CollectionError, MissingInputError, OutputError
from rasteret_beam.kernels.storage.manifests import Manifest
from rasteret_beam.transforms import build_collection as building
from rasteret_beam.transforms.runtime.files import find_files
from rasteret_beam.transforms.sinks import commit as committing
from rasteret_beam.transforms.sinks.commit import Output, Staged, abandon, commit, is_in_place
from rasteret_beam.transforms.sinks.owners import owner, remove_abandoned
from rasteret_beam.transforms.sinks.parquet import shards
from tests.support.kills import EARLY, LATE, Killed, cut_off, rows
from tests.support.scenes import scene_table

OPERATIONS = [(os, "replace"), (os, "remove"), (committing, "delete_folder")]


@pytest.fixture
def kill_after(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], list[str]]]:
    """Let so many file operations happen, and then no more; gives the list of those that happened."""

    def arm(most: int) -> list[str]:
        happened: list[str] = []

        def counted(name: str, real: Callable) -> Callable:
            def operation(*args, **kwargs):
                if len(happened) == most:
                    raise Killed
                happened.append(str(args[-1]))
                return real(*args, **kwargs)

            return operation

        for module, name in OPERATIONS:
            monkeypatch.setattr(module, name, counted(name, REAL[name]))
        return happened

    yield arm


REAL = {name: getattr(module, name) for module, name in OPERATIONS}


def staged(prefix: Path, run: str, files: int, started: float = LATE) -> Staged:
    """Files of a run, each with its name in it, that are to become the output."""
    output = Output(str(prefix), run, started)
    os.makedirs(output.temporary, exist_ok=True)
    moves = {}
    for number in range(files):
        fresh = f"{output.temporary}/{number}.parquet"
        pq.write_table(pa.table({"run": [run], "number": [number]}), fresh)
        moves[f"{prefix}-{number:05d}-of-{files:05d}.parquet"] = fresh
    return Staged(output, moves, shards)


def seen(prefix: Path, place: str = "") -> list[tuple[str, int]]:
    """The rows that this package reads, of the output's folder or of a glob."""
    try:
        names = find_files(place or f"{prefix.parent}/")
    except MissingInputError:
        return []
    rows = [row for name in names for row in pq.read_table(name).to_pylist()]
    return sorted((row["run"], row["number"]) for row in rows)


@pytest.mark.parametrize(("old", "new"), [(2, 2), (3, 1), (1, 3), (0, 2)])
@pytest.mark.parametrize("what", ["rerun", "same run", "abandon"])
def test_a_kill_after_each_file_operation(tmp_path: Path, kill_after, old: int, new: int, what: str) -> None:
    """A reader sees the old output whole or the new one whole, and the next run leaves no trace of the killed one."""
    steps = 0
    for killed_after in range(100):
        prefix = tmp_path / str(killed_after) / "out"
        if old:
            commit([staged(prefix, "old", old, EARLY)])
        happened = cut_off(kill_after, killed_after, [staged(prefix, "new", new)])
        if happened is None:
            break
        steps += 1
        decided = is_in_place(Output(str(prefix), "new"))
        assert decided == any(path.endswith("_out.manifest.json") for path in happened)
        moved = any(path.endswith(".parquet") for path in happened)
        expected = rows("new", new) if decided and (old or moved) else rows("old", old)
        assert seen(prefix) == seen(prefix, f"{prefix}-*.parquet") == expected
        if what == "rerun":
            commit([staged(prefix, "newer", new, LATE + 1)])
            assert seen(prefix) == rows("newer", new)
        elif what == "same run":
            commit(
                [staged(prefix, "new", new) if not decided else Staged(Output(str(prefix), "new", LATE), {}, shards)]
            )
            assert seen(prefix) == rows("new", new)
        else:
            assert abandon(Output(str(prefix), "new", LATE)) is decided
            assert seen(prefix) == (rows("new", new) if decided else rows("old", old))
        plain = pq.read_table(prefix.parent) if list(prefix.parent.glob("out-*")) else pa.table({"run": []})
        assert sorted(plain["run"].to_pylist()) == [run for run, _ in seen(prefix)]
        if what != "rerun":
            assert not list(prefix.parent.glob("_out.temporary-*"))
    assert steps >= new + 3, "each move is a step, and the decision, its end and the removal of the folder"


def test_several_outputs_are_decided_together(tmp_path: Path) -> None:
    """Where a file of one is gone, none is put in place."""
    samples, unsampled = staged(tmp_path / "samples", "new", 2), staged(tmp_path / "unsampled", "new", 1)
    (lost,) = unsampled.moves.values()
    os.remove(lost)
    with pytest.raises(OutputError, match=f"{tmp_path}/unsampled cannot be put in place: .*{lost} is gone"):
        commit([samples, unsampled])
    assert seen(tmp_path / "samples") == []
    assert not is_in_place(samples.output)


def test_of_two_runs_the_one_that_began_earlier_says_that_it_lost(tmp_path: Path) -> None:
    prefix = tmp_path / "out"
    slow, quick = staged(prefix, "slow", 3, EARLY), staged(prefix, "quick", 2, LATE)
    commit([quick])
    with pytest.raises(
        OutputError, match=r"another run, quick, which began later \(2027-01-15 08:00:00 UTC\), .* slow"
    ):
        commit([slow])
    assert seen(prefix) == rows("quick", 2)


def test_a_later_run_replaces_an_earlier_one_that_was_faster(tmp_path: Path) -> None:
    prefix = tmp_path / "out"
    first, second = staged(prefix, "first", 3, EARLY), staged(prefix, "second", 3, LATE)
    commit([first])
    commit([second])
    assert seen(prefix) == rows("second", 3)


def test_other_files_beside_the_output_stay(tmp_path: Path) -> None:
    others = [tmp_path / name for name in ("out-old.parquet", "out2-00000-of-00001.parquet", "notes.txt")]
    for path in others:
        path.write_text("mine")
    commit([staged(tmp_path / "out", "new", 2)])
    commit([staged(tmp_path / "out", "newer", 1, LATE + 1)])
    assert [path.read_text() for path in others] == ["mine"] * 3


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"{", "cannot be read as the manifest"), (b'{"version": 2}', "has version 2, but this release reads version 1")],
)
def test_a_manifest_that_cannot_be_read(tmp_path: Path, content: bytes, message: str) -> None:
    new = staged(tmp_path / "out", "new", 1)
    Path(new.output.manifest).write_bytes(content)
    with pytest.raises(OutputError, match=f"{new.output.manifest} {message}"):
        commit([new])


def test_folders_of_killed_runs_are_removed_and_those_of_living_ones_are_not(tmp_path: Path) -> None:
    mine, dead, alive, unknown = (
        staged(tmp_path / "out", run, 1).output for run in ("mine", "dead", "alive", "unknown")
    )
    with owner(dead):
        pass
    with owner(alive):
        removed, left = remove_abandoned(mine)
    assert (list(removed), list(left)) == ([dead.temporary], [alive.temporary, unknown.temporary])
    assert [Path(each.temporary).exists() for each in (mine, dead, alive, unknown)] == [True, False, True, True]


def test_a_folder_of_files_under_way_is_hidden_from_readers(tmp_path: Path) -> None:
    commit([staged(tmp_path / "out", "old", 1, EARLY)])
    staged(tmp_path / "out", "killed", 3)
    assert pq.read_table(tmp_path).to_pylist() == [{"run": "old", "number": 0}]


def test_manifests_pass_through_json(tmp_path: Path) -> None:
    manifest = Manifest("run", 1.5, {"a-0": "_a.temporary-run/x"}, ("a-1",), True)
    assert Manifest.from_json(manifest.to_json(), "m") == manifest
    assert FileSystems.exists(str(tmp_path))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Staged]:
    """A folder with a collection of three records and, staged beside it, the six that it is built anew of."""
    folder = tmp_path_factory.mktemp("built")
    table = scene_table(tmp_path_factory.mktemp("scenes"))
    staged: list[Staged] = []
    with beam.Pipeline() as pipeline:
        build(pipeline, table.slice(0, 3), folder / "old")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(building, "commit", staged.extend)
        with beam.Pipeline() as pipeline:
            build(pipeline, table, folder / "old")
    return folder, staged[0]


def build(pipeline: beam.Pipeline, table: pa.Table, place: Path) -> None:
    sources = sources_from_table(record_table(table), ["B10", "B20"])
    pipeline | "Records" >> beam.Create(sources) | "Build" >> BuildCollection(str(place), name="scenes")


def at(folder: Path, there: Path, staged: Staged) -> Staged:
    """Staged files as they are in a copy of their folder."""
    old, new = f"{there}/", f"{folder}/"
    moves = {final.replace(old, new): fresh.replace(old, new) for final, fresh in staged.moves.items()}
    return staged._replace(output=Output(str(folder / "old"), staged.output.run, staged.output.started), moves=moves)


@pytest.mark.parametrize("is_first", [False, True])
def test_a_collection_after_each_file_operation_of_its_build(tmp_path: Path, built, kill_after, is_first: bool) -> None:
    """It has the records of one build, with year and month, though files of the other lie in its folder."""
    there, template = built
    steps = mixed = 0
    for killed_after in range(100):
        folder = tmp_path / str(killed_after)
        shutil.copytree(there, folder)
        if is_first:
            shutil.rmtree(folder / "old")
            os.remove(folder / "_old.manifest.json")
        staged = at(folder, there, template)
        if cut_off(kill_after, killed_after, [staged]) is None:
            break
        steps += 1
        if not is_in_place(staged.output) and is_first:
            with pytest.raises(MissingInputError, match="there is no file or folder"):
                rasteret_beam.load(folder / "old")
            continue
        table = rasteret_beam.load(folder / "old").to_table()
        assert len(table) == (6 if is_in_place(staged.output) else 3)
        assert [moment.month for moment in table["datetime"].to_pylist()] == table["month"].to_pylist()
        manifest = committing.read_manifest(staged.output)
        if manifest is not None and manifest.run == staged.output.run and not manifest.done:
            mixed += 1
            for place in [] if is_first else [folder / "old" / "year=2023", folder / "old" / "*" / "*" / "*.parquet"]:
                with pytest.raises(CollectionError, match=r"holds files of two builds: one of the collection .*/old "):
                    rasteret_beam.load(place)
            with pytest.raises(CollectionError, match="Build it again before a stream uses it"):
                look(str(folder / "old"))
            with pytest.raises(OutputError, match="is not replaced: a build of it was killed"):
                rasteret_beam.load(folder / "old").export(folder / "old")
    assert steps >= 6
    assert mixed >= 4, "the decision and the three moves"
