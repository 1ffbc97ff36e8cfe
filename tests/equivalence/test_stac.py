"""Collections of STAC items: sources, bands, filters and quirks; values are those of rasterio."""

import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pystac
import pytest
import stac_geoparquet.arrow

import rasteret_beam
from pipelines import build_collection
from rasteret_beam import Access, Collection, build_from_stac
from rasteret_beam.errors import BuildError, InputError, MissingInputError
from tests.support.commands import execute
from tests.support.stac_items import (
    POINT,
    StacApi,
    feature_collection,
    item,
    scene,
    value_at,
    write_raster,
)

DAYS = (1, 2, 3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stac")


@pytest.fixture(scope="module")
def items(folder: Path) -> list[dict[str, Any]]:
    return [scene(folder, f"S{day}", day) for day in DAYS]


@pytest.fixture(scope="module")
def collection_file(folder: Path, items: list[dict[str, Any]]) -> Path:
    path = folder / "items.json"
    path.write_text(json.dumps(feature_collection(items)))
    return path


def red(collection: Collection, band: str = "red", **options: Any) -> dict[str, float]:
    """Values at the point by record."""
    points = pa.table({"x": [POINT[0]], "y": [POINT[1]]})
    rows = collection.sample_points(points, bands=[band], geometry_crs="EPSG:32631", **options)
    return dict(zip(rows["record_id"].to_pylist(), rows["value"].to_pylist(), strict=True))


def expected(folder: Path, key: str = "B04", band: int = 1) -> dict[str, float]:
    return {f"S{day}": value_at(folder / f"S{day}_{key}.tif", band) for day in DAYS}


class TestSources:
    @pytest.mark.parametrize("form", ["feature collection", "lines", "glob", "geoparquet", "catalog", "single"])
    def test_files(self, folder: Path, items: list[dict[str, Any]], tmp_path: Path, form: str) -> None:
        absolute = [with_folder(each, folder) for each in items]
        place = written(absolute, tmp_path, form)
        want = expected(folder) if form != "single" else {"S1": expected(folder)["S1"]}
        built = build_from_stac(place, bands=["red"])
        assert red(built) == want
        assert built.to_table()["eo:cloud_cover"].to_pylist() == [10.0 * day for day in DAYS][: len(want)]

    def test_relative_hrefs_start_at_the_document(self, collection_file: Path, folder: Path) -> None:
        assert red(build_from_stac(collection_file, bands=["red"])) == expected(folder)

    def test_memory(self, folder: Path, items: list[dict[str, Any]]) -> None:
        absolute = [with_folder(each, folder) for each in items]
        objects = [pystac.Item.from_dict(each) for each in absolute]
        catalog = pystac.Catalog("c", "items")
        catalog.add_items(objects)
        for source in (absolute, objects, pystac.ItemCollection(objects), catalog, feature_collection(absolute)):
            assert red(build_from_stac(source, bands=["red"])) == expected(folder)

    def test_an_api_is_asked_for_pages(self, folder: Path, items: list[dict[str, Any]]) -> None:
        with StacApi([with_url(each) for each in items], folder) as api:
            served = [with_url(each, api.url) for each in items]
            api.items = served
            built = build_from_stac(
                api.url,
                bands=["red"],
                collections="s2",
                bbox=(3.0, 45.0, 3.1, 45.2),
                datetime="2023-06",
                query={"eo:cloud_cover": {"lt": 25}},
            )
            assert red(built) == {name: value for name, value in expected(folder).items() if name != "S3"}
            api.searches.clear()
            assert len(build_from_stac(api.url, bands=["red"])) == len(DAYS)
            assert [body.get("token") for body in api.searches] == [None, "2"]

    def test_requests_are_repeated(self, folder: Path, items: list[dict[str, Any]]) -> None:
        with StacApi(items, folder) as api:
            (folder / "served.json").write_text(json.dumps(feature_collection([with_url(items[0], api.url)])))
            api.failures = 2
            assert list(red(build_from_stac(f"{api.url}/files/served.json", bands=["red"]))) == ["S1"]

    def test_assets_have_what_their_collection_says(self, folder: Path, items: list[dict[str, Any]]) -> None:
        bare = with_url(items[0])
        bare["assets"] = {"B04": {"href": "S1_B04.tif"}}
        with StacApi([bare], folder) as api:
            bare["assets"]["B04"]["href"] = f"{api.url}/files/S1_B04.tif"
            api.item_assets = {"B04": items[0]["assets"]["B04"] | {"href": "no"}}
            built = build_from_stac(api.url, bands=["red"])
            assert red(built, unscale=True) == {"S1": pytest.approx(value_at(folder / "S1_B04.tif") * 0.0001 - 0.1)}


class TestBands:
    def test_all_rasters_by_default(self, collection_file: Path) -> None:
        built = build_from_stac(collection_file)
        assert built.bands == ["B04", "B08", "visual_B04", "visual_B03", "visual_B02"]

    def test_by_asset_band_and_common_name(self, collection_file: Path, folder: Path) -> None:
        bands = {"r": "red", "n": "nir", "b4": "B04", "g": "green", "blue": ("visual", 2)}
        built = build_from_stac(collection_file, bands=bands)
        assert built.bands == list(bands)
        for band, key, index in (("r", "B04", 1), ("n", "B08", 1), ("g", "visual", 2), ("blue", "visual", 3)):
            assert red(built, band) == expected(folder, key, index)

    def test_scale_and_offset_of_both_forms(self, collection_file: Path, folder: Path) -> None:
        built = build_from_stac(collection_file, bands=["red", "nir"])
        want = {name: value * 0.0001 - 0.1 for name, value in expected(folder).items()}
        assert red(built, unscale=True) == pytest.approx(want)
        want = {name: value * 0.0002 for name, value in expected(folder, "B08").items()}
        assert red(built, "nir", unscale=True) == pytest.approx(want)

    def test_an_item_may_lack_an_asset(self, folder: Path, items: list[dict[str, Any]]) -> None:
        absolute = [with_folder(each, folder) for each in items]
        del absolute[1]["assets"]["B08"]
        built = build_from_stac(absolute, bands=["red", "nir"])
        assert sorted(red(built)) == ["S1", "S2", "S3"]
        assert sorted(red(built, "nir")) == ["S1", "S3"]

    def test_a_common_name_of_several_bands(self, folder: Path, items: list[dict[str, Any]]) -> None:
        absolute = with_folder(items[0], folder)
        absolute["assets"]["B08"]["bands"][0]["eo:common_name"] = "red"
        with pytest.raises(InputError, match=r"'red' is the common name of several bands of item 'S1': B04, B08; give"):
            build_from_stac([absolute], bands=["red"])

    def test_an_unknown_band(self, collection_file: Path) -> None:
        with pytest.raises(InputError, match=r"no item has band 'redd' \('redd'\) \(did you mean 'red'\?\); assets, "):
            build_from_stac(collection_file, bands=["redd"])


class TestSearch:
    def test_files_are_searched_as_an_api_is(self, folder: Path, items: list[dict[str, Any]]) -> None:
        searches: list[dict[str, Any]] = [
            {"collections": ["s2"]},
            {"datetime": "2023-06-02/2023-06-03"},
            {"datetime": ("2023-06-02T10:00:00Z", None)},
            {"bbox": (2.0, 45.0, 4.0, 46.0)},
            {"query": {"eo:cloud_cover": {"lte": 20}}},
            {"query": {"eo:cloud_cover": {"eq": 20}}, "datetime": "2023"},
        ]
        with StacApi([], folder) as api:
            api.items = [with_url(each, api.url) for each in items]
            for search in searches:
                of_api = build_from_stac(api.url, bands=["red"], **search)
                of_items = build_from_stac(api.items, bands=["red"], **search)
                assert red(of_api) == red(of_items) != {}

    @pytest.mark.parametrize(
        ("search", "text"),
        [
            ({"collections": ["landsat"]}, "none of the 3 items is of the collections, bbox, datetime and query asked"),
            ({"query": {"cloud": {"lt": 5}}}, "query names property 'cloud', which no item has"),
            ({"query": {"eo:cloud_cover": {"below": 5}}}, "query has operator 'below' for 'eo:cloud_cover'"),
            ({"query": {"eo:cloud_cover": 5}}, "query has 5 for 'eo:cloud_cover'; give conditions, such as"),
            ({"query": {"eo:cloud_cover": {"lt": "low"}}}, "query compares property 'eo:cloud_cover', which is double"),
            ({"bbox": (1, 2, 3)}, "bbox is (1, 2, 3); it has to be (west, south, east, north) in degrees"),
            ({"enrich": "some"}, "enrich is 'some'; it has to be \"auto\", True or False"),
        ],
    )
    def test_what_cannot_be_searched(self, collection_file: Path, search: dict[str, Any], text: str) -> None:
        with pytest.raises(InputError) as error:
            build_from_stac(collection_file, bands=["red"], **search)
        assert text in str(error.value)


class TestQuirks:
    def test_no_datetime_but_a_span(self, folder: Path, items: list[dict[str, Any]]) -> None:
        span = {"datetime": None, "start_datetime": "2023-06-01T00:00:00Z", "end_datetime": "2023-06-30T00:00:00Z"}
        absolute = with_folder(items[0], folder)
        absolute["properties"] |= span
        built = build_from_stac([absolute], bands=["red"], datetime="2023-06-15")
        assert built.to_table()["datetime"].to_pylist() == [None]
        with pytest.raises(InputError, match="none of the 1 items"):
            build_from_stac([absolute], bands=["red"], datetime="2023-07")

    def test_alternates(self, folder: Path, items: list[dict[str, Any]]) -> None:
        other = with_folder(items[0], folder)
        other["assets"]["B04"] |= {
            "href": "s3://no-such-bucket/B04.tif",
            "alternate": {"local": {"href": f"{folder}/S1_B04.tif"}},
        }
        assert list(red(build_from_stac([other], bands=["red"], alternate="local"))) == ["S1"]

    def test_the_newest_processing(self, folder: Path, items: list[dict[str, Any]]) -> None:
        first, second = (with_folder(items[0], folder) for _ in range(2))
        for each, name, baseline, href in (
            (first, "old", "02.09", "S2_B04.tif"),
            (second, "new", "05.10", "S1_B04.tif"),
        ):
            each["id"] = name
            each["properties"] |= {"s2:processing_baseline": baseline, "s2:mgrs_tile": "31TDL", "platform": "s2a"}
            each["assets"]["B04"]["href"] = f"{folder}/{href}"
        for order in ([first, second], [second, first]):
            assert red(build_from_stac(order, bands=["red"], newest=True)) == {"new": value_at(folder / "S1_B04.tif")}
        assert sorted(red(build_from_stac([first, second], bands=["red"]))) == ["new", "old"]

    def test_an_item_that_is_found_twice(self, folder: Path, items: list[dict[str, Any]]) -> None:
        first, second = (with_folder(items[0], folder) for _ in range(2))
        first["properties"]["updated"], second["properties"]["updated"] = "2024-01-01T00:00:00Z", "2023-01-01T00:00:00Z"
        second["assets"]["B04"]["href"] = f"{folder}/S2_B04.tif"
        assert red(build_from_stac([first, second], bands=["red"])) == {"S1": value_at(folder / "S1_B04.tif")}

    def test_an_id_in_two_collections(self, folder: Path, items: list[dict[str, Any]]) -> None:
        first, second = (with_folder(items[0], folder) for _ in range(2))
        second["collection"] = "landsat"
        assert sorted(red(build_from_stac([first, second], bands=["red"]))) == ["landsat/S1", "s2/S1"]

    def test_boxes_with_heights_and_across_the_antimeridian(self, folder: Path, items: list[dict[str, Any]]) -> None:
        high, across = (with_folder(items[day], folder) for day in (0, 1))
        high["bbox"] = [3.0, 45.14, -10.0, 3.01, 45.16, 900.0]
        across["bbox"] = [170.0, 45.14, -170.0, 45.16]
        assert list(red(build_from_stac([high, across], bands=["red"], bbox=(3, 45, 3.1, 46)))) == ["S1", "S2"]
        built = build_from_stac([high, across], bands=["red"], bbox=(175, 45, 176, 46))
        assert built.to_table()["id"].to_pylist() == ["S2"]

    def test_properties_become_columns(self, folder: Path, items: list[dict[str, Any]]) -> None:
        first, second = (with_folder(items[day], folder) for day in (0, 1))
        first["properties"] |= {"a:number": 1, "a:mixed": "x", "a:flag": True, "a:list": [1, 2], "proj:shape": [64, 64]}
        second["properties"] |= {"a:number": 2.5, "a:mixed": 7}
        table = build_from_stac([first, second], bands=["red"]).to_table()
        assert table["a:number"].to_pylist() == [1.0, 2.5]
        assert table["a:mixed"].to_pylist() == ['"x"', "7"]
        assert table["a:flag"].to_pylist() == [True, None]
        assert table["a:list"].to_pylist() == ["[1, 2]", None]
        assert "proj:shape" not in table.column_names
        kept = build_from_stac([first, second], bands=["red"]).where(pa.compute.field("eo:cloud_cover") < 15)
        assert list(red(kept, extra_columns=["record:a:number"])) == ["S1"]

    def test_files_that_cannot_be_read(self, folder: Path, items: list[dict[str, Any]]) -> None:
        absolute = [with_folder(each, folder) for each in items]
        absolute[1]["assets"]["B04"]["href"] = f"{folder}/missing.tif"
        with pytest.raises(BuildError, match=r"missing\.tif"):
            build_from_stac(absolute, bands=["red"])
        built = build_from_stac(absolute, bands=["red"], on_error="skip")
        assert sorted(red(built)) == ["S1", "S3"]
        assert [href for href, _ in built.failures] == [f"{folder}/missing.tif"]


FACTS = {"proj:code": "EPSG:32631", "proj:transform": [10, 0, 500000, 0, -10, 5000640], "proj:shape": [64, 64]}


class TestUpdate:
    def test_only_what_is_new_is_read(self, folder: Path, items: list[dict[str, Any]], tmp_path: Path) -> None:
        absolute = [with_folder(each, folder) for each in items]
        build_from_stac(absolute[:2], bands=["red"], name="s2").export(tmp_path / "c")
        absolute[0]["assets"]["B04"]["href"] = f"{folder}/missing.tif"
        absolute[2]["properties"]["a:new"] = 5
        loaded = rasteret_beam.load(tmp_path / "c")
        updated = loaded.update_from_stac(absolute)
        assert (updated.name, len(updated)) == ("s2", 3)
        assert red(updated) == expected(folder)
        updated.export(tmp_path / "c")
        again = rasteret_beam.load(tmp_path / "c")
        assert red(again) == expected(folder)
        assert sorted(again.to_table()["a:new"].to_pylist(), key=str) == [5, None, None]
        assert again.update_from_stac(absolute) is again


class TestEnrich:
    def test_no_file_is_opened(self, folder: Path, items: list[dict[str, Any]], tmp_path: Path) -> None:
        moved = with_folder(items[0], tmp_path)
        moved["properties"] |= FACTS
        built = build_from_stac([moved], bands=["red"], enrich=False)
        (tmp_path / "S1_B04.tif").write_bytes((folder / "S1_B04.tif").read_bytes())
        assert red(built) == {"S1": value_at(folder / "S1_B04.tif")}
        assert red(built, unscale=True) == {"S1": pytest.approx(value_at(folder / "S1_B04.tif") * 0.0001 - 0.1)}

    def test_other_files_are_not_opened_by_auto(self, tmp_path: Path) -> None:
        png = {"href": f"{tmp_path}/a.png", "type": "image/png", "roles": ["data"], "data_type": "uint16", **FACTS}
        tiff = {"href": str(write_raster(tmp_path / "b.tif", [50])), "type": "image/tiff"}
        built = build_from_stac([item("S", 1, {"a": png, "b": tiff})], bands=["a", "b"])
        write_raster(tmp_path / "a.png", [70], driver="PNG")
        assert red(built, "a") == {"S": value_at(tmp_path / "a.png")}
        extra = built.to_table()
        assert extra["a_metadata"].to_pylist()[0]["tile_offsets"] is None
        assert len(extra["b_metadata"].to_pylist()[0]["tile_offsets"]) == 4

    def test_what_an_item_lacks(self, folder: Path, items: list[dict[str, Any]]) -> None:
        with pytest.raises(InputError) as error:
            build_from_stac([with_folder(items[0], folder)], bands=["red"], enrich=False)
        assert str(error.value) == (
            "enrich is False, but the header of band 'red' of item 'S1' has to be read: the item has no proj:code for "
            'it; use enrich="auto"'
        )

    def test_a_file_of_another_size(self, folder: Path, items: list[dict[str, Any]]) -> None:
        other = with_folder(items[0], folder)
        other["properties"] |= FACTS | {"proj:shape": [32, 64]}
        built = build_from_stac([other], bands=["red"], enrich=False)
        with pytest.raises(rasteret_beam.errors.TileReadError, match="64 x 64 pixels in 1 band"):
            at_top(built)


class TestSigning:
    def test_urls_are_signed_when_they_are_requested(self, folder: Path, items: list[dict[str, Any]]) -> None:
        with StacApi([], folder, token="secret") as api:
            served = [with_url(each, api.url) for each in items]
            built = build_from_stac(served, bands=["red"], sign=Signer("secret"))
            assert red(built) == expected(folder)
            assert "secret" not in str(built.to_table().drop_columns(["red_metadata"]).to_pylist())
            again = pickle.loads(pickle.dumps(built))
            assert red(again) == expected(folder)
            with pytest.raises(BuildError, match="403"):
                build_from_stac(served, bands=["red"])

    def test_a_package_that_is_missing(self, folder: Path, items: list[dict[str, Any]]) -> None:
        with StacApi([], folder, token="secret") as api, pytest.raises(MissingInputError, match="planetary-computer"):
            build_from_stac([with_url(items[0], api.url)], bands=["red"], sign="planetary-computer")

    def test_a_name_that_is_unknown(self) -> None:
        with pytest.raises(InputError, match="sign is 'planetary'; give a function of a URL, or 'planetary-computer'"):
            Access(sign="planetary")


class TestBadSources:
    @pytest.mark.parametrize(
        ("text", "want"),
        [
            ("[1]", "is a JSON list; a STAC document is an object"),
            ("{", "is not JSON: "),
            ('{"type": "Polygon"}', "has type 'Polygon'; a STAC document has 'Feature', "),
            ('{"type": "FeatureCollection"}', "is a FeatureCollection without a list of features"),
            ('{"type": "FeatureCollection", "features": []}', "no item was found"),
            ('{"type": "Feature", "assets": {}}', "has id None; an id is text"),
            ('{"type": "Feature", "id": "a"}', "item 'a' has assets 'None'; they have to be an object of objects"),
        ],
    )
    def test_documents(self, tmp_path: Path, text: str, want: str) -> None:
        (tmp_path / "a.json").write_text(text)
        with pytest.raises(InputError) as error:
            build_from_stac(tmp_path / "a.json", bands=["red"])
        assert want in str(error.value)

    def test_values(self) -> None:
        with pytest.raises(InputError, match="source is a int; give the URL of a STAC API, the path or URL of"):
            build_from_stac(7)


class TestCommand:
    def test_equals_the_library(self, collection_file: Path, folder: Path, tmp_path: Path) -> None:
        outcome = execute(
            build_collection.main,
            f"--stac={collection_file}",
            "--assets=red=B04,green=visual:1",
            "--query=eo:cloud_cover<=20",
            "--datetime=2023-06",
            f"--output={tmp_path}/c",
        )
        assert outcome.code == 0, outcome.err
        assert "2 of 2 records in" in outcome.out
        built = rasteret_beam.load(tmp_path / "c")
        assert red(built) == {name: value for name, value in expected(folder).items() if name != "S3"}
        assert red(built, "green") == {f"S{day}": value_at(folder / f"S{day}_visual.tif", 2) for day in (1, 2)}

    @pytest.mark.parametrize(
        ("flags", "want"),
        [
            (("--cogs=a.tif", "--newest"), "--newest goes with --stac; omit it"),
            (("--stac=a.json", "--href_column=x"), "--href_column goes with another source of records than --stac"),
            (("--stac=a.json", "--query=cloud"), "'cloud' is not PROPERTY<VALUE, with one of ="),
            (("--stac=a.json", "--assets=red"), "'red' is not BAND=ASSET or BAND=ASSET:INDEX, such as red=B04"),
            (("--stac=a.json", "--assets=a=b", "--bands=a"), "--bands and --assets are given; give the bands with one"),
        ],
    )
    def test_mistakes(self, tmp_path: Path, flags: tuple[str, ...], want: str) -> None:
        outcome = execute(build_collection.main, *flags, f"--output={tmp_path}/c")
        assert outcome.code != 0
        assert want in outcome.err


class Signer:
    """Adds a token to a URL; workers get it with the collection."""

    def __init__(self, token: str):
        self.token = token

    def __call__(self, url: str) -> str:
        return f"{url}?sig={self.token}"


def at_top(collection: Collection) -> Iterator[Any]:
    """Sample at the upper left pixel."""
    points = pa.table({"x": [500_005.0], "y": [5_000_635.0]})
    return iter(collection.sample_points(points, bands=["red"], geometry_crs="EPSG:32631").to_pylist())


def with_folder(document: dict[str, Any], folder: Path) -> dict[str, Any]:
    """An item with absolute hrefs."""
    return _moved(document, lambda href: f"{folder}/{Path(href).name}")


def with_url(document: dict[str, Any], url: str = "http://127.0.0.1:1") -> dict[str, Any]:
    return _moved(document, lambda href: f"{url}/files/{Path(href).name}")


def _moved(document: dict[str, Any], place: Any) -> dict[str, Any]:
    copied = json.loads(json.dumps(document))
    for asset in copied["assets"].values():
        asset["href"] = place(asset["href"])
    return copied


def written(items: list[dict[str, Any]], folder: Path, form: str) -> str:
    """The items as files of a form; the place to read."""
    if form == "feature collection":
        (folder / "a.json").write_text(json.dumps(feature_collection(items)))
        return f"{folder}/a.json"
    if form == "lines":
        (folder / "a.ndjson").write_text("\n".join(map(json.dumps, items)))
        return f"{folder}/a.ndjson"
    if form == "glob":
        for number, each in enumerate(items):
            (folder / f"item{number}.json").write_text(json.dumps(each))
        return f"{folder}/item*.json"
    if form == "single":
        (folder / "a.json").write_text(json.dumps(items[0]))
        return f"{folder}/a.json"
    if form == "geoparquet":
        stac_geoparquet.arrow.to_parquet(stac_geoparquet.arrow.parse_stac_items_to_arrow(items), folder / "a.parquet")
        return f"{folder}/a.parquet"
    catalog = pystac.Catalog("top", "items")
    below = pystac.Catalog("below", "items")
    catalog.add_child(below)
    below.add_items(map(pystac.Item.from_dict, items))
    catalog.normalize_and_save(str(folder), pystac.CatalogType.SELF_CONTAINED)
    return f"{folder}/catalog.json"
