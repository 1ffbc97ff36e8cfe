"""STAC items of odd shapes: what catalogs in the field leave out, write as text, or repeat."""

import json
from datetime import UTC, date
from datetime import datetime as Datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely

from pipelines import build_collection
from rasteret_beam import Access, build_from_stac
from rasteret_beam.errors import InputError
from tests.support.commands import execute
from tests.support.stac_items import UTM, write_raster

FACTS = {"proj:transform": list(UTM)[:6], "proj:shape": [64, 64], "proj:epsg": 32631, "data_type": "uint16"}


@pytest.fixture(scope="module")
def raster(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_raster(tmp_path_factory.mktemp("shapes") / "a.tif", [100, 200, 300]))


def odd(raster: str, name: str = "S1", asset: Any = None, **members: Any) -> dict[str, Any]:
    """An item with asset "a"."""
    return {
        "type": "Feature",
        "id": name,
        "properties": {"datetime": "2023-06-01T00:00:00Z"},
        "assets": {"a": {"href": raster, "type": "image/tiff", **(asset or {})}},
        **members,
    }


class TestDocuments:
    def test_a_list_of_paths(self, raster: str, tmp_path: Path) -> None:
        for name in ("S1", "S2"):
            (tmp_path / f"{name}.json").write_text(json.dumps(odd(raster, name)))
        built = build_from_stac([tmp_path / "S1.json", f"{tmp_path}/S2.json"])
        assert built.to_table()["id"].to_pylist() == ["S1", "S2"]

    def test_line_separators_within_texts_of_lines(self, raster: str, tmp_path: Path) -> None:
        items = [odd(raster, name, properties={"title": "one\u2028two\u0085"}) for name in ("S1", "S2")]
        lines = "\r\n".join(json.dumps(each, ensure_ascii=False) for each in items)
        (tmp_path / "a.ndjson").write_text(lines, encoding="utf-8", newline="")
        assert build_from_stac(tmp_path / "a.ndjson").to_table()["title"].to_pylist() == ["one\u2028two\u0085"] * 2

    @pytest.mark.parametrize("feature", [None, "S1", [1]])
    def test_features_that_are_no_objects(self, feature: Any) -> None:
        with pytest.raises(InputError, match="has a feature that is a JSON"):
            build_from_stac({"type": "FeatureCollection", "features": [feature]})

    @pytest.mark.parametrize(
        ("members", "text"),
        [
            ({"properties": [1]}, "item 'S1' has properties [1]; they have to be an object"),
            ({"properties": {"datetime": 5}}, "item 'S1' has datetime 5; it has to be text in ISO 8601"),
            ({"collection": 5}, "item 'S1' has collection 5; it has to be text"),
        ],
    )
    def test_members_of_another_form(self, raster: str, members: dict[str, Any], text: str) -> None:
        with pytest.raises(InputError) as error:
            build_from_stac([odd(raster, **members)])
        assert text in str(error.value)

    def test_dates_and_datetimes_in_memory(self, raster: str) -> None:
        given = [date(2023, 6, 1), Datetime(2023, 6, 1), Datetime(2023, 6, 1, tzinfo=UTC)]
        items = [odd(raster, f"S{number}", properties={"datetime": each}) for number, each in enumerate(given)]
        assert build_from_stac(items).to_table()["datetime"].to_pylist() == [Datetime(2023, 6, 1)] * 3

    def test_a_box_of_nulls(self, raster: str) -> None:
        assert len(build_from_stac([odd(raster, bbox=[None] * 4)])) == 1

    def test_numbers_that_floats_cannot_hold(self, raster: str) -> None:
        items = [odd(raster, name, properties={"n": number}) for name, number in (("S1", 1.5), ("S2", (1 << 60) + 1))]
        assert build_from_stac(items).to_table()["n"].to_pylist() == ["1.5", "1152921504606846977"]

    def test_lists_that_tell_scenes_apart(self, raster: str) -> None:
        properties = {"datetime": "2023-06-01T00:00:00Z", "grid:code": ["T31", "T32"]}
        assert len(build_from_stac([odd(raster, "S1", properties=properties)], newest=True)) == 1


class TestAssets:
    def test_null_assets_are_not_there(self, raster: str) -> None:
        item = odd(raster)
        item["assets"]["b"] = None
        assert build_from_stac([item]).bands == ["a"]

    @pytest.mark.parametrize("asset", [{"href": None}, {"type": "image/tiff"}])
    def test_assets_without_a_file(self, raster: str, asset: dict[str, Any]) -> None:
        item = odd(raster)
        item["assets"]["b"] = asset
        with pytest.raises(InputError, match="no item has band 'b'"):
            build_from_stac([item], bands=["b"])

    def test_an_href_of_another_type(self, raster: str) -> None:
        with pytest.raises(InputError, match="asset 'a' of item 'S1' has href 5; it has to be text"):
            build_from_stac([odd(raster, asset={"href": 5})], bands=["a"])

    def test_bands_of_an_asset_with_the_same_name(self, raster: str) -> None:
        bands = [{"name": "x"}, {"name": "x"}, {"name": "y"}]
        item = odd(raster, asset={"bands": bands})
        item["assets"]["a_y"] = {"href": raster, "type": "image/tiff"}
        assert build_from_stac([item]).bands == ["a_x", "a_2", "a_3", "a_y"]

    def test_names_of_the_default_may_be_asked_for(self, raster: str) -> None:
        item = odd(raster, asset={"bands": [{"name": "x"}, {"name": "y"}, {}]})
        every = build_from_stac([item])
        assert every.bands == ["a_x", "a_y", "a_3"]
        assert build_from_stac([item], bands=["a_3", "a_y"]).bands == ["a_3", "a_y"]

    @pytest.mark.parametrize(
        ("bands", "text"),
        [
            (5, "bands are 5; give names, or a mapping of names to assets"),
            ([], "bands are empty; name at least one, or omit them to take all"),
        ],
    )
    def test_bands_of_another_form(self, raster: str, bands: Any, text: str) -> None:
        with pytest.raises(InputError, match=text):
            build_from_stac([odd(raster)], bands=bands)


class TestUpdate:
    def test_bands_of_the_default_names(self, raster: str) -> None:
        bands = {"bands": [{"name": "x"}, {"name": "y"}]}
        built = build_from_stac([odd(raster, asset=bands)])
        updated = built.update_from_stac([odd(raster, name, asset=bands) for name in ("S1", "S2")])
        assert (updated.bands, len(updated)) == (["a_x", "a_y"], 2)

    def test_new_items_may_lack_bands(self, raster: str) -> None:
        both = odd(raster)
        both["assets"]["b"] = both["assets"]["a"]
        built = build_from_stac([both])
        assert len(built.update_from_stac([odd(raster, "S2")])) == 2
        with pytest.raises(InputError, match="no item has band 'a'"):
            built.update_from_stac([odd(raster, "S2", assets={"c": both["assets"]["a"]})])

    def test_a_source_without_items(self, raster: str) -> None:
        built = build_from_stac([odd(raster)])
        assert built.update_from_stac([]) is built
        assert built.update_from_stac([odd(raster, "S2")], datetime="1999") is built

    def test_an_id_in_two_collections(self, raster: str) -> None:
        one, two = (odd(raster, collection=name) for name in ("one", "two"))
        built = build_from_stac([one])
        assert built.update_from_stac([two]).to_table()["id"].to_pylist() == ["S1", "two/S1"]
        both = built.update_from_stac([one, two])
        assert both.to_table()["id"].to_pylist() == ["S1", "two/S1"]
        assert both.update_from_stac([two]) is both
        assert both.update_from_stac([one, two]) is both

    def test_an_id_without_a_collection(self, raster: str) -> None:
        built = build_from_stac([odd(raster)])
        assert built.update_from_stac([odd(raster, collection="one")]) is built

    def test_properties_that_were_null(self, raster: str) -> None:
        null, text = (odd(raster, name, properties={"p": value}) for name, value in (("S1", None), ("S2", "t")))
        assert build_from_stac([null]).update_from_stac([text]).to_table()["p"].to_pylist() == [None, "t"]
        assert build_from_stac([text]).update_from_stac([null]).to_table()["p"].to_pylist() == ["t", None]

    def test_properties_of_another_type(self, raster: str) -> None:
        number, text = (odd(raster, name, properties={"p": value}) for name, value in (("S1", 5), ("S2", "t")))
        with pytest.raises(InputError, match="property 'p' is string in the new items and int64 in the collection; bu"):
            build_from_stac([number]).update_from_stac([text])


class TestCommand:
    @pytest.mark.parametrize(
        ("flags", "text"),
        [
            (["--enrich=none"], "--enrich is none, but the header of band 'a' of item 'S1' has to be read"),
            (["--sign=planetary-computer"], "--sign planetary-computer needs planetary-computer"),
            (["--assets=b=a:9"], "or skip them with --on_error skip."),
        ],
    )
    def test_errors_name_flags(self, raster: str, tmp_path: Path, flags: list[str], text: str) -> None:
        (tmp_path / "a.json").write_text(json.dumps(odd(raster)))
        outcome = execute(build_collection.main, f"--stac={tmp_path}/a.json", f"--output={tmp_path}/c", *flags)
        assert outcome.code == 1
        assert text in outcome.err

    def test_no_item_is_wanted(self, raster: str, tmp_path: Path) -> None:
        (tmp_path / "a.json").write_text(json.dumps(odd(raster)))
        for flags in (["--datetime=2001"], ["--query=gsd>7", "--bbox=0,0,1,1"]):
            outcome = execute(build_collection.main, f"--stac={tmp_path}/a.json", f"--output={tmp_path}/c", *flags)
            assert outcome.code == 1
            assert (
                "none of the 1 items is of --stac_collections, --bbox, --datetime and --query asked for; widen them"
                in outcome.err
                or "no item has" in outcome.err
            )
        (tmp_path / "b.json").write_text(json.dumps({"type": "FeatureCollection", "features": []}))
        outcome = execute(build_collection.main, f"--stac={tmp_path}/b.json", f"--output={tmp_path}/c")
        assert "no item was found; widen --stac_collections, --bbox, --datetime or --query" in outcome.err

    def test_the_requester_pays(self, raster: str, tmp_path: Path) -> None:
        found = odd(raster, asset={"href": "s3://usgs-landsat/a.tif", "storage:requester_pays": True})
        (tmp_path / "a.json").write_text(json.dumps(found))
        outcome = execute(build_collection.main, f"--stac={tmp_path}/a.json", f"--output={tmp_path}/c")
        assert outcome.code == 1
        assert "item 'S1' says that the requester pays for asset 'a', s3://usgs-landsat/a.tif" in outcome.err
        assert "read it with --requester_pays, or take other hrefs with --alternate NAME" in outcome.err


SCHEMES = {
    "free": {"type": "aws-s3", "platform": "https://{bucket}.s3.{region}.amazonaws.com", "requester_pays": False},
    "paid": {"type": "aws-s3", "platform": "https://{bucket}.s3.{region}.amazonaws.com", "requester_pays": True},
}


class TestRequesterPays:
    """The storage extension, versions 1 and 2, and its forms in real catalogs."""

    @pytest.mark.parametrize(
        ("properties", "asset", "paid"),
        [
            ({}, {"storage:requester_pays": True}, True),
            ({"storage:requester_pays": True}, {}, True),
            ({"storage:requester_pays": True}, {"storage:requester_pays": False}, False),
            ({"storage:schemes": SCHEMES}, {"storage:refs": ["free"]}, False),
            ({"storage:schemes": SCHEMES}, {"storage:refs": ["free", "paid"]}, True),
            ({"storage:schemes": SCHEMES}, {}, False),
            ({"storage:schemes": []}, {"storage:refs": ["paid"]}, False),
            ({"storage:schemes": SCHEMES}, {"storage:refs": None}, False),
        ],
    )
    @pytest.mark.parametrize("place", ["s3", "gs", "https"])
    def test_is_known_before_a_file_is_read(
        self, raster: str, properties: dict[str, Any], asset: dict[str, Any], paid: bool, place: str
    ) -> None:
        found = odd(raster, asset=FACTS | asset | {"href": f"{place}://host/a.jp2", "type": "image/jp2"})
        found["properties"] |= properties
        if paid and place != "https":
            with pytest.raises(InputError, match=r"the requester pays for asset 'a', .* \(1 of 1 items are such\)"):
                build_from_stac([found], enrich=False)
        assert len(build_from_stac([found], enrich=False, access=Access(requester_pays="p"))) == 1
        if not paid or place == "https":
            assert len(build_from_stac([found], enrich=False)) == 1

    def test_another_href(self, raster: str) -> None:
        other = {"href": "https://host/a.jp2"}
        paid = {
            "href": "s3://host/a.jp2",
            "type": "image/jp2",
            "storage:requester_pays": True,
            "alternate": {"w": other},
        }
        found = odd(raster, asset=FACTS | paid)
        assert len(build_from_stac([found], enrich=False, alternate="w")) == 1
        found["assets"]["a"]["alternate"]["w"] = {"href": "s3://other/a.jp2", "storage:requester_pays": False}
        assert len(build_from_stac([found], enrich=False, alternate="w")) == 1


class TestTexts:
    def test_stac_geoparquet_with_members_as_json(self, raster: str, tmp_path: Path) -> None:
        first, second = odd(raster), odd(raster, "S2")
        rows = [
            {
                "id": each["id"],
                "assets": json.dumps(each["assets"]),
                "geometry": shapely.box(0, 0, 1, 1).wkb,
                "bbox": "[0, 0, 1, 1]",
                "links": "[]",
                "datetime": each["properties"]["datetime"],
                "properties": json.dumps({"gsd": 10}),
            }
            for each in (first, second)
        ]
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
        built = build_from_stac(tmp_path / "a.parquet")
        assert built.to_table().select(["id", "gsd"]).to_pylist() == [{"id": "S1", "gsd": 10}, {"id": "S2", "gsd": 10}]
        rows[1]["assets"] = "{'a': 1}"
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
        with pytest.raises(
            InputError, match=r"column 'assets' of item 'S2' in .*a.parquet is \"{'a': 1}\", which is not"
        ):
            build_from_stac(tmp_path / "a.parquet")


class TestFacts:
    @pytest.mark.parametrize(
        "facts",
        [
            {"proj:shape": ["64", "64"], "proj:transform": [str(value) for value in FACTS["proj:transform"]]},  # type: ignore[attr-defined]
            {"proj:epsg": 32631.0},
            {"proj:epsg": "32631"},
            {"proj:epsg": None, "proj:code": "EPSG:32631"},
            {"proj:transform": [*list(UTM)[:6], 0, 0, 1]},
        ],
    )
    def test_forms_of_numbers(self, raster: str, facts: dict[str, Any]) -> None:
        built = build_from_stac([odd(raster, asset=FACTS | facts)], enrich=False)
        points = pa.table({"x": [500_005.0], "y": [5_000_635.0]})
        assert built.sample_points(points, ["a"], geometry_crs=32631)["value"].to_pylist() == [100.0]

    @pytest.mark.parametrize(
        ("facts", "text"),
        [
            (
                {"proj:transform": [10, 0, None, 0, -10, 0]},
                "proj:transform is [10, 0, None, 0, -10, 0]; it has to have",
            ),
            ({"proj:transform": [10, 0, float("nan"), 0, -10, 0]}, "it has to have 6 or 9 finite numbers"),
            ({"proj:shape": ["wide", 5]}, "proj:shape is ['wide', 5]; it has to be height and width"),
            ({"data_type": "object"}, "data_type is 'object'; it has to be a type of numbers"),
        ],
    )
    def test_what_cannot_be_used(self, raster: str, facts: dict[str, Any], text: str) -> None:
        with pytest.raises(InputError) as error:
            build_from_stac([odd(raster, asset=FACTS | facts)], enrich=False)
        assert text in str(error.value)
