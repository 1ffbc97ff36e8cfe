"""Collections that workers build of STAC items, against the same items in one process."""

import json
from pathlib import Path
from typing import Any

import apache_beam as beam
import pyarrow as pa
import pyarrow.parquet
import pytest

import rasteret_beam
from pipelines import build_collection
from rasteret_beam import BuildCollection, Collection, StacRecords, build_from_stac
from rasteret_beam.transforms import stac_records
from tests.support.commands import execute
from tests.support.stac_items import UTM, write_raster

FACTS = {"proj:transform": list(UTM)[:6], "proj:shape": [64, 64], "proj:epsg": 32631, "data_type": "uint16"}


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Items with two processings of a scene, an id in two collections, a repeated item, and properties of odd types."""
    folder = tmp_path_factory.mktemp("rasters")
    found = []
    for number in range(6):
        write_raster(folder / f"{number}.tif", [100 * number], nodata=0)
        assets = {"red": {"href": f"{folder}/{number}.tif", "type": "image/tiff"}}
        if number != 2:
            assets["nir"] = {"href": f"{folder}/{number}.jp2", "type": "image/jp2", **FACTS}
        properties = {"datetime": f"2023-06-0{number + 1}T10:00:00Z", "cloud": number, "platform": "s2a"}
        found.append(
            {"type": "Feature", "id": f"S{number}", "collection": "s2", "properties": properties, "assets": assets}
        )
    found[3]["properties"] |= {"cloud": 3.5, "mixed": "x"}
    found[4]["properties"] |= {"mixed": 7, "start_datetime": "2023-06-05T00:00:00Z"}
    found[5] |= {"collection": "landsat", "id": "S1"}
    scene = {"grid:code": "MGRS-31TDL", "datetime": "2023-06-01T10:00:00Z"}
    found[0]["properties"] |= scene | {"processing:version": "02.09"}
    newer = json.loads(json.dumps(found[0])) | {"id": "S0_again"}
    newer["properties"]["processing:version"] = "05.10"
    return [*found, newer, found[2]]


def as_lines(items: list[dict[str, Any]], folder: Path) -> str:
    """Two files of lines, the second with the last items."""
    for name, some in (("a", items[:4]), ("b", items[4:])):
        (folder / f"{name}.ndjson").write_text("".join(json.dumps(each) + "\n" for each in some))
    return f"{folder}/*.ndjson"


def as_files(items: list[dict[str, Any]], folder: Path) -> str:
    for number, each in enumerate(items):
        (folder / f"{number}.json").write_text(json.dumps(each))
    (folder / "catalog.json").write_text(json.dumps({"type": "Catalog", "id": "c", "links": []}))
    return str(folder)


def as_parquet(items: list[dict[str, Any]], folder: Path) -> str:
    members = ("id", "collection", "assets", "properties")
    rows = [{name: json.dumps(each[name]) if name in members[2:] else each[name] for name in members} for each in items]
    pa.parquet.write_table(pa.Table.from_pylist(rows), folder / "items.parquet", row_group_size=3)
    return f"{folder}/items.parquet"


FORMS = {"lines": as_lines, "files": as_files, "parquet": as_parquet, "memory": lambda items, _: items}


def built_by_workers(source: Any, folder: Path, **settings: Any) -> Collection:
    with beam.Pipeline(runner="apache_beam.runners.portability.fn_api_runner.FnApiRunner") as pipeline:
        pipeline | StacRecords(source, **settings) | BuildCollection(str(folder))
    return rasteret_beam.load(folder)


def rows(collection: Collection) -> list[dict[str, Any]]:
    table = collection.to_table().sort_by("id")
    return table.select(sorted(set(table.column_names) - {"checksums"})).to_pylist()


@pytest.mark.parametrize(
    ("form", "settings"),
    [
        ("lines", {}),
        ("files", {"newest": True, "bands": {"r": "red"}}),
        ("parquet", {"datetime": "2023-06-02/2023-06-04", "query": {"cloud": {"gte": 1}}}),
        ("memory", {"newest": True}),
    ],
)
def test_equals_one_process(
    items: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, settings: dict[str, Any]
) -> None:
    monkeypatch.setattr(stac_records, "LINES", 2)
    monkeypatch.setattr(stac_records, "ITEMS", 2)
    (tmp_path / "items").mkdir()
    source = FORMS[form](items, tmp_path / "items")
    found = built_by_workers(source, tmp_path / "c", **settings)
    build_from_stac(items, **settings).export(tmp_path / "wanted")
    wanted = rasteret_beam.load(tmp_path / "wanted")
    assert sorted(found.bands) == sorted(wanted.bands)
    assert rows(found) == rows(wanted)
    kinds = {field.name: field.type for field in wanted.to_table().schema}
    assert all(kinds[field.name] == field.type for field in found.to_table().schema if field.name in ("cloud", "mixed"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"datetime": "2001"}, "none of the 7 items is of the collections, bbox, datetime and query"),
        ({"bands": ["rde"]}, r"no item has band 'rde' .*did you mean 'red'"),
        ({"query": {"clout": {"lt": 1}}}, r"query names property 'clout' \(did you mean 'cloud'\?\)"),
        ({"enrich": False}, "enrich is False, but the header of band 'red' of item"),
    ],
)
def test_errors(items: list[dict[str, Any]], tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(Exception, match=message):
        built_by_workers(items, tmp_path / "c", **settings)


def test_without_items(tmp_path: Path) -> None:
    (tmp_path / "a.ndjson").write_text("\n")
    with pytest.raises(Exception, match="no item was found"):
        built_by_workers(f"{tmp_path}/a.ndjson", tmp_path / "c")
    (tmp_path / "a.ndjson").write_text("{}\n{")
    with pytest.raises(Exception, match=r"line 2 of .*a.ndjson is not JSON|a.ndjson has type None"):
        built_by_workers(f"{tmp_path}/a.ndjson", tmp_path / "c")


def test_the_command(items: list[dict[str, Any]], tmp_path: Path) -> None:
    (tmp_path / "items").mkdir()
    place = as_lines(items, tmp_path / "items")
    outcome = execute(build_collection.main, f"--stac={place}", "--bands=red", f"--output={tmp_path}/c")
    assert outcome.code == 0, outcome.err
    assert "7 of 7 records in" in outcome.out
    build_from_stac(items, bands=["red"]).export(tmp_path / "wanted")
    assert rows(rasteret_beam.load(tmp_path / "c")) == rows(rasteret_beam.load(tmp_path / "wanted"))
    outcome = execute(build_collection.main, f"--stac={place}", "--datetime=2001", f"--output={tmp_path}/c")
    assert outcome.code == 1
    assert "is of --stac_collections, --bbox, --datetime and --query asked for" in outcome.err
