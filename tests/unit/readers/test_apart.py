"""Outputs at, in or above inputs are refused, and others are not."""

from pathlib import Path

import pytest

from rasteret_beam.errors import InputError
from rasteret_beam.readers.storage.output_conflicts import Read, Written, check_apart


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for folder in ("collection/year=2023", "points", "tables"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "tables/points.parquet").write_text("")
    (tmp_path / "tables/out-00003-of-00007.parquet").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "collection")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("output", "kind", "read", "how"),
    [
        ("collection/samples", "files", "collection", "lies in"),
        ("collection/year=2023/samples", "files", "collection/", "lies in"),
        ("link/samples", "files", "collection", "lies in"),
        ("collection/samples", "files", "link", "lies in"),
        ("points/samples", "files", "points", "lies in"),
        ("./points/../points/samples", "files", "points", "lies in"),
        ("points", "chips", "points", "lies in"),
        ("points/tiffs", "chips", "points", "lies in"),
        (".", "chips", "points", "would replace"),
        ("tables", "chips", "tables/points.parquet", "would replace"),
        ("tables", "chips", "tables/*.parquet", "is above"),
        (".", "collection", "tables/points.parquet", "would replace"),
        ("tables/points", "files", "tables/points.parquet", "would replace"),
        ("tables/out", "files", "tables/out-00003-of-00007.parquet", "would replace"),
        ("tables/samples", "files", "tables/*.parquet", "would be found again by"),
        ("tables/samples", "files", "**/*.parquet", "would be found again by"),
        ("gs://b/collection/samples", "files", "gs://b/collection/", "lies in"),
        ("gs://b/tables/samples", "files", "gs://b/tables/*.parquet", "would be found again by"),
        ("gs://b/tables", "chips", "gs://b/tables/points.parquet", "would replace"),
    ],
)
def test_refused(place: Path, output: str, kind: str, read: str, how: str) -> None:
    elsewhere = Read("--collection", ["/elsewhere/collection"])
    with pytest.raises(InputError) as caught:
        check_apart([Written("--output", output, kind)], [elsewhere, Read("--points", [read])])
    assert str(caught.value) == (f"--output {output} {how} --points {read}, which the job reads; give a path outside")


@pytest.mark.parametrize(
    ("output", "kind", "read"),
    [
        ("samples", "files", "collection"),
        ("collection2/samples", "files", "collection"),
        ("collection-samples", "files", "collection"),
        ("tables/samples", "files", "tables/points.parquet"),
        ("tables/samples", "files", "tables/points*.parquet"),
        ("tables/tiffs", "chips", "tables/points.parquet"),
        ("tables/tiffs", "chips", "tables/*.parquet"),
        ("tables/ou", "files", "tables/out-00003-of-00007.parquet"),
        ("gs://b/samples", "files", "gs://b/collection"),
        ("gs://b/collection", "files", "s3://b/collection"),
        ("_temporary/samples", "files", "**/*.parquet"),
    ],
)
def test_taken(place: Path, output: str, kind: str, read: str) -> None:
    check_apart([Written("--output", output, kind)], [Read("--points", [read])])
