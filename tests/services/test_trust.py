"""What an href, or a file, may make this machine read."""

import io
import re
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import rasterio
import rasterio.shutil
from rasterio.transform import from_origin

import rasteret_beam
from pipelines import build_collection, sample_points
from rasteret_beam import Access, build_from_cogs, build_from_table
from rasteret_beam.collection.collection import Collection
from rasteret_beam.errors import BuildError, CollectionError, InputError, TileReadError, without_secrets
from rasteret_beam.metrics import Counters
from rasteret_beam.model import DEFAULT_ACCESS
from rasteret_beam.readers.gdal.rasters import Raster, RasterPool
from rasteret_beam.readers.storage.byte_ranges import FileState, RangeError, RangeReader
from rasteret_beam.readers.storage.href_policy import named_in, why_refused
from rasteret_beam.readers.tiles.source import TileSource
from tests.support import tiles
from tests.support.commands import execute
from tests.support.server import Fault, RasterServer, Request

SIZE = 64
GRID = {"width": SIZE, "height": SIZE, "crs": "EPSG:32631", "transform": from_origin(500_000, 4_500_000, 10, 10)}
POINT = {"x": [500_105.0], "y": [4_499_895.0]}
XY = {"x_column": "x", "y_column": "y", "geometry_crs": 32631}
ELSEWHERE = "s3://stranger/collection"
SECRET = bytes(range(33, 123)) * 50
PIXEL = 77
VRT = Access(vrt=True)


def write(path: Path, value: int = PIXEL, driver: str = "GTiff", **options: object) -> Path:
    with rasterio.open(path, "w", driver=driver, count=1, dtype="uint8", **(GRID | options)) as dataset:
        dataset.write(np.full((1, SIZE, SIZE), value, "uint8"))
    return path


def vrt_of(source: str, relative: int = 0, band: str = "", root: str = "") -> str:
    return (
        f'<VRTDataset rasterXSize="{SIZE}" rasterYSize="{SIZE}"{root}><SRS>EPSG:32631</SRS>'
        f'<GeoTransform>500000, 10, 0, 4500000, 0, -10</GeoTransform><VRTRasterBand dataType="Byte" band="1"{band}>'
        f'<SimpleSource><SourceFilename relativeToVRT="{relative}">{source}</SourceFilename><SourceBand>1</SourceBand>'
        "</SimpleSource></VRTRasterBand></VRTDataset>"
    )


def raw_vrt(path: Path) -> str:
    """The bytes of any file as pixels."""
    return (
        f'<VRTDataset rasterXSize="{SIZE}" rasterYSize="{SIZE}"><SRS>EPSG:32631</SRS>'
        "<GeoTransform>500000, 10, 0, 4500000, 0, -10</GeoTransform>"
        '<VRTRasterBand dataType="Byte" band="1" subClass="VRTRawRasterBand">'
        f"<SourceFilename>{path}</SourceFilename><ImageOffset>0</ImageOffset><PixelOffset>1</PixelOffset>"
        f"<LineOffset>{SIZE}</LineOffset></VRTRasterBand></VRTDataset>"
    )


def wms(url: str) -> str:
    return (
        f'<GDAL_WMS><Service name="TMS"><ServerUrl>{url}/secret/${{z}}</ServerUrl></Service><DataWindow>'
        "<UpperLeftX>0</UpperLeftX><UpperLeftY>1</UpperLeftY><LowerRightX>1</LowerRightX><LowerRightY>0</LowerRightY>"
        "<SizeX>64</SizeX><SizeY>64</SizeY></DataWindow><Projection>EPSG:32631</Projection><BandsCount>1</BandsCount>"
        "<UserPwd>me:password</UserPwd></GDAL_WMS>"
    )


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_bytes(SECRET)
    return path


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RasterServer]:
    folder = tmp_path / "served"
    folder.mkdir()
    with RasterServer(folder) as found:
        yield found


def built(path: Path | str, access: Access = DEFAULT_ACCESS) -> Collection:
    return build_from_cogs([path], access=access)


def reason(href: Path | str, access: Access = DEFAULT_ACCESS) -> str:
    """Why a file is not built from."""
    with pytest.raises(BuildError) as raised:
        built(href, access)
    return raised.value.failures[0][1]


def naming(collection: Collection, href: str) -> Collection:
    """The same collection in memory, but that it names another file."""
    table = collection.to_table()
    assets = [{"B1": {"href": href, "band_index": 0}}]
    at = table.column_names.index("assets")
    return Collection.from_table(table.set_column(at, "assets", pa.array(assets, table.schema.field("assets").type)))


def from_elsewhere(collection: Collection, href: str, access: Access = DEFAULT_ACCESS) -> Collection:
    return replace(naming(collection, href), path=ELSEWHERE, access=access)


def value(collection: Collection) -> float:
    return collection.sample_points(pa.table(POINT), ["B1"], **XY)["value"].to_pylist()[0]


class TestDrivers:
    @pytest.mark.parametrize("driver", ["GTiff", "COG", "PNG", "JPEG", "JP2OpenJPEG"])
    def test_usual_formats_need_no_option(self, driver: str, tmp_path: Path) -> None:
        path = tmp_path / "s.x"
        rasterio.shutil.copy(write(tmp_path / "s.tif"), path, driver=driver, WORLDFILE="YES")
        if driver in ("PNG", "JPEG"):
            with rasterio.open(path, "r+") as dataset:
                dataset.crs = GRID["crs"]
        with rasterio.open(path) as dataset:
            expected = dataset.read(1)[10, 10]
        assert value(built(path)) == expected

    @pytest.mark.parametrize("driver", ["netCDF", "HFA", "ENVI", "GIF", "AAIGrid"])
    def test_others_need_their_name(self, driver: str, tmp_path: Path) -> None:
        ending = {"netCDF": ".nc", "HFA": ".img", "GIF": ".gif", "AAIGrid": ".asc"}.get(driver, ".raw")
        path = tmp_path / f"s{ending}"
        rasterio.shutil.copy(write(tmp_path / "s.tif"), path, driver=driver)
        why = reason(path)
        assert "GeoTIFF, JPEG 2000, PNG and JPEG" in why and "access=Access(drivers='" in why
        assert f"drivers='{driver}'" in why or driver in ("AAIGrid", "ENVI")
        for name in (driver, driver.lower()):
            assert value(built(path, Access(drivers=[name]))) == PIXEL

    def test_a_dataset_within_a_file_is_named_with_its_driver(self, tmp_path: Path) -> None:
        rasterio.shutil.copy(write(tmp_path / "s.tif"), tmp_path / "s.nc", driver="netCDF")
        for name in (f"NETCDF:{tmp_path}/s.nc:Band1", f"GTIFF_DIR:1:{tmp_path}/s.tif"):
            assert value(built(name)) == PIXEL

    @pytest.mark.parametrize("href", ["WCS:{}/x", "WMS:{}/x", "STACIT:{}/x", "ZARR:{}/x", "MVT:{}/x", "EEDAI:x"])
    def test_other_drivers_by_prefix(self, href: str, server: RasterServer) -> None:
        href = href.format(server.url)
        driver = href.partition(":")[0]
        assert f"needs GDAL's driver {driver}" in reason(href) and f"drivers='{driver}'" in reason(href)
        assert server.log == []

    def test_descriptions_in_place_of_a_name(self, secret: Path, server: RasterServer) -> None:
        described = {"VRT": raw_vrt(secret), "WMS": wms(server.url)}
        for driver, xml in described.items():
            for href in (xml, f" \n{xml}"):
                assert f"needs GDAL's driver {driver}" in reason(href)
                table = {"id": ["a"], "datetime": ["2023-01-01"], "path": [href]}
                with pytest.raises(BuildError, match=f"needs GDAL's driver {driver}"):
                    build_from_table(table, href_column="path")
        assert server.log == []

    @pytest.mark.parametrize("name", ["s.vrt", "s.tif", "s"])
    def test_virtual_rasters_are_told_by_what_they_hold(self, name: str, tmp_path: Path) -> None:
        source = write(tmp_path / "source.tif")
        (tmp_path / name).write_text(vrt_of(str(source)))
        assert "access=Access(vrt=True)" in reason(tmp_path / name)
        for access in (VRT, Access(drivers="VRT")):
            assert value(built(tmp_path / name, access)) == PIXEL

    def test_a_file_that_became_another_is_not_read_by_its_driver(self, secret: Path, tmp_path: Path) -> None:
        """Built from, and read later, by the drivers that are allowed now."""
        source = write(tmp_path / "source.tif")
        (tmp_path / "s.vrt").write_text(vrt_of(str(source)))
        table = built(tmp_path / "s.vrt", VRT).to_table()
        with pytest.raises(TileReadError, match=r"s\.vrt.*needs GDAL's driver VRT.*access=Access\(vrt=True\)"):
            value(Collection.from_table(table))
        assert value(Collection.from_table(table, access=VRT)) == PIXEL

    def test_one_pool_serves_each_as_it_may(self, tmp_path: Path) -> None:
        source = write(tmp_path / "source.tif")
        (tmp_path / "s.vrt").write_text(vrt_of(str(source)))
        pool, href = RasterPool(), str(tmp_path / "s.vrt")
        with pool.borrow(FileState(href, access=VRT), Counters()):
            pass
        for access in (Access(), named_in(ELSEWHERE, VRT)):
            with pytest.raises(RangeError), pool.borrow(FileState(href, access=access), Counters()):
                pass
        pool.close()

    @pytest.mark.parametrize("value", ["x", 3, (1,), [""], {"netCDF"}])
    def test_drivers_are_a_list_of_names(self, value: object) -> None:
        if value == "x":
            assert Access(drivers="x").drivers == ("x",)
            return
        with pytest.raises(InputError, match=r"drivers is .*; it has to be a list of names of GDAL's drivers"):
            Access(drivers=value)  # type: ignore[arg-type]


class TestFileSystems:
    def test_archives_are_read(self, tmp_path: Path) -> None:
        source = write(tmp_path / "s.tif")
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
            archive.write(source, "s.tif")
        with tarfile.open(tmp_path / "a.tar", "w") as archive:
            archive.add(source, "s.tif")
        for href in (
            f"/vsizip/{tmp_path}/a.zip/s.tif",
            f"/vsitar/{tmp_path}/a.tar/s.tif",
            f"zip://{tmp_path}/a.zip!s.tif",
        ):
            assert value(built(href)) == PIXEL

    @pytest.mark.parametrize("access", [Access(), VRT])
    def test_a_virtual_raster_in_an_archive(self, access: Access, secret: Path, tmp_path: Path) -> None:
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
            archive.writestr("s.vrt", raw_vrt(secret))
            archive.writestr("s.tif", vrt_of(str(write(tmp_path / "source.tif"))))
        why = "cannot be checked; unpack it" if access.vrt else "access=Access(vrt=True)"
        assert why in reason(f"/vsizip/{tmp_path}/a.zip/s.vrt", access)
        assert "not recognized" in reason(f"/vsizip/{tmp_path}/a.zip/s.tif", access)

    @pytest.mark.parametrize(
        "path",
        ["/vsisubfile/0,{}", "/vsistdin/", "/vsisparse/{}", "/vsimem/x", "/vsicrypt/key=x,file={}", "/vsi7z/{}/x"],
    )
    def test_other_file_systems_need_their_name(self, path: str, tmp_path: Path) -> None:
        source = write(tmp_path / "s.tif")
        name = path.split("/")[1]
        for href in (path.format(source), f"/vsizip/{path.format(source)}"):
            assert f"/{name}/ is not allowed" in reason(href) and f"drivers='/{name}/'" in reason(href)
        if name == "vsisubfile":
            assert value(built(path.format(source), Access(drivers=["/vsisubfile/"]))) == PIXEL


class TestSidecars:
    @pytest.mark.parametrize("ending", [".msk", ".MSK", ".ovr"])
    def test_a_mask_beside_a_file_is_a_tiff(
        self, ending: str, secret: Path, tmp_path: Path, server: RasterServer
    ) -> None:
        """GDAL opens it by any driver: a mask of a secret's bits, or a request to a server."""
        for folder in (tmp_path, server.folder):
            path = write(folder / "s.tif")
            for content in (raw_vrt(secret), vrt_of("secret"), wms(server.url), '{"type": "FeatureCollection"}'):
                Path(f"{path}{ending}").write_text(content)
                href = f"{server.url}/s.tif" if folder == server.folder else path
                if folder == server.folder and ending != ".msk":
                    continue  # GDAL does not ask for it
                why = reason(href)
                assert f"s.tif{ending}" in why and "not TIFF" in why
        assert not [request for request in server.log if "secret" in request.target]

    def test_of_a_file_in_an_archive(self, secret: Path, tmp_path: Path) -> None:
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
            archive.write(write(tmp_path / "s.tif"), "s.tif")
            archive.writestr("s.tif.msk", raw_vrt(secret))
        assert "s.tif.msk, are not TIFF" in reason(f"/vsizip/{tmp_path}/a.zip/s.tif")

    def test_masks_and_world_files_still_count(self, tmp_path: Path) -> None:
        path = tmp_path / "s.tif"
        with (
            rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False),
            rasterio.open(path, "w", driver="GTiff", count=1, dtype="uint8", **GRID) as dataset,
        ):
            dataset.write(np.full((1, SIZE, SIZE), PIXEL, "uint8"))
            dataset.write_mask(np.zeros((SIZE, SIZE), bool))
        assert Path(f"{path}.msk").exists()
        assert built(path).get_numpy([(500_000, 4_499_360, 500_640, 4_500_000)], ["B1"], geometry_crs=32631).max() == 0

    def test_overviews_that_a_tiff_names_are_not_opened(self, server: RasterServer, tmp_path: Path) -> None:
        path = write(tmp_path / "s.tif")
        with rasterio.open(path, "r+") as dataset:
            dataset.update_tags(ns="OVERVIEWS", OVERVIEW_FILE=f"/vsicurl/{server.url}/secret.ovr")
        Path(f"{path}.aux.xml").write_text(
            '<PAMDataset><Metadata domain="OVERVIEWS"><MDI key="OVERVIEW_FILE">'
            f"/vsicurl/{server.url}/secret.ovr</MDI></Metadata></PAMDataset>"
        )
        assert value(built(path)) == PIXEL and server.log == []


class TestVirtualRasters:
    def test_raw_bands_are_never_read(self, secret: Path, tmp_path: Path) -> None:
        (tmp_path / "raw.vrt").write_text(raw_vrt(secret))
        (tmp_path / "deep.vrt").write_text(vrt_of("raw.vrt", 1))
        (tmp_path / "inline.vrt").write_text(vrt_of(raw_vrt(secret).replace("<", "&lt;")))
        for name in ("raw.vrt", "deep.vrt", "inline.vrt"):
            assert "a raw band, which can read any file as pixels" in reason(tmp_path / name, VRT)
        assert "a raw band" in reason(raw_vrt(secret), VRT)

    def test_raw_bands_are_found_however_they_are_written(self, secret: Path, tmp_path: Path) -> None:
        """GDAL takes elements for attributes, and names in any case."""
        raw = raw_vrt(secret)
        band = raw[raw.index("<VRTRasterBand") : raw.index("</VRTDataset>")]
        plain = '<VRTRasterBand dataType="Byte" band="2" subClass="VRTSourcedRasterBand"/>'
        for content in (
            raw.replace("</VRTDataset>", plain + "</VRTDataset>"),
            raw.replace(' subClass="VRTRawRasterBand">', "><subClass>VRTRawRasterBand</subClass>"),
            raw.replace("subClass", "SUBCLASS").replace("VRTRawRasterBand", "vrtrawrasterband"),
            raw.replace(band, f"<MaskBand>{band}</MaskBand>{plain}"),
            raw.replace("<SourceFilename>", '<SourceFilename SourceFilename="/x">'),
        ):
            (tmp_path / "s.vrt").write_text(content)
            found = reason(tmp_path / "s.vrt", VRT)
            assert "a raw band" in found or "in an unexpected place" in found

    def test_names_are_found_however_they_are_written(self, tmp_path: Path, server: RasterServer) -> None:
        local = write(tmp_path / "local.tif")
        write(server.folder / "a.tif")
        good = vrt_of("a.tif", 1)
        for content, why in (
            (good.replace("<SimpleSource>", f'<SimpleSource SourceFilename="{local}">'), "in an unexpected place"),
            (good.replace("a.tif", "a.tif<relativeToVRT>0</relativeToVRT>"), "in an unexpected place"),
            (good.replace("a.tif", f"{local}<b/>"), "in an unexpected place"),
            (good.replace('relativeToVRT="1"', 'relativeToVRT="yes"'), "a file of this machine"),
            (good.replace('relativeToVRT="1"', 'RelativeToVRT="1" relativetovrt="0"'), "in an unexpected place"),
            (good.replace("SourceFilename", "sourceFILENAME").replace("a.tif", str(local)), "a file of this machine"),
            (good.replace("a.tif", f"<!-- -->{local}"), "a file of this machine|markup"),
            (good.replace("a.tif", f"{local}<!-- -->x"), "a file of this machine|markup"),
            (good.replace("a.tif", f"<![CDATA[{local}]]>"), "a file of this machine|markup"),
            (good.replace("a.tif", "&#47;etc&#x2f;x"), "a file of this machine"),
            (f'<!DOCTYPE x [<!ENTITY e "{local}">]>' + good.replace("a.tif", "&e;"), "a file of this machine|markup"),
            (f"{good}{vrt_of(str(local))}", "not XML"),
        ):
            (server.folder / "s.vrt").write_text(content)
            assert re.search(why, reason(f"{server.url}/s.vrt", VRT)), content

    def test_masks_beside_what_it_names(self, secret: Path, tmp_path: Path) -> None:
        write(tmp_path / "s.tif")
        (tmp_path / "s.tif.msk").write_text(raw_vrt(secret))
        (tmp_path / "s.vrt").write_text(vrt_of("s.tif", 1).replace("<SourceBand>1", "<SourceBand>mask,1"))
        assert "s.tif.msk, are not TIFF" in reason(tmp_path / "s.vrt", VRT)

    def test_what_a_local_one_names_is_opened_by_the_same_drivers(self, tmp_path: Path, server: RasterServer) -> None:
        rasterio.shutil.copy(write(tmp_path / "s.tif"), tmp_path / "s.nc", driver="netCDF")
        (tmp_path / "map.tif").write_text(wms(server.url))
        (tmp_path / "junk.tif").write_text("{}")
        for source, why in (
            (f"{tmp_path}/s.nc", "drivers='netCDF'|drivers='HDF5'"),
            ("map.tif", "drivers='WMS'"),
            ("junk.tif", "first bytes"),
            (f"WMS:{server.url}/x", "drivers='WMS'"),
            (wms(server.url).replace("<", "&lt;"), "drivers='WMS'"),
            (f"/vsisubfile/0_9,{tmp_path}/s.tif", "/vsisubfile/ is not allowed"),
        ):
            (tmp_path / "s.vrt").write_text(vrt_of(source, int("/" not in source)))
            found = reason(tmp_path / "s.vrt", VRT)
            assert "virtual raster that names" in found and any(each in found for each in why.split("|"))
        assert server.log == []

    def test_those_in_each_other(self, tmp_path: Path) -> None:
        write(tmp_path / "0.vrt.tif")
        (tmp_path / "0.vrt").write_text(vrt_of("0.vrt.tif", 1))
        for number in range(1, 12):
            (tmp_path / f"{number}.vrt").write_text(vrt_of(f"{number - 1}.vrt", 1))
        assert value(built(tmp_path / "3.vrt", VRT)) == PIXEL
        assert "more than 8 levels deep" in reason(tmp_path / "11.vrt", VRT)
        (tmp_path / "loop.vrt").write_text(vrt_of("loop.vrt", 1))
        assert "more than 8 levels deep" in reason(tmp_path / "loop.vrt", VRT)

    def test_one_from_a_server_stays_there(self, secret: Path, tmp_path: Path, server: RasterServer) -> None:
        write(server.folder / "source.tif")
        local = write(tmp_path / "local.tif")
        (server.folder / "good.vrt").write_text(vrt_of("source.tif", 1))
        assert value(built(f"{server.url}/good.vrt", VRT)) == PIXEL
        (server.folder / "deep.vrt").write_text(vrt_of("leads.tif", 1))
        (server.folder / "leads.tif").write_text(vrt_of(str(local)))
        for content, why in (
            (vrt_of(str(local)), "a file of this machine"),
            (vrt_of(str(local), 1), "a file of this machine"),
            (vrt_of(f"file://localhost{local}"), "a file of this machine"),
            (vrt_of("local.tif"), "a file of this machine"),
            (vrt_of(f"/vsizip/{local}"), "a file of this machine"),
            (vrt_of("http://169.254.169.254/latest"), "metadata service"),
            (vrt_of("/vsicurl/http://metadata.google.internal/"), "metadata service"),
            (vrt_of("s.tif", 1, root=' subClass="VRTWarpedDataset"'), "of kind vrtwarpeddataset"),
            (raw_vrt(secret), "raw band"),
            (vrt_of("deep.vrt", 1), "a file of this machine"),
        ):
            (server.folder / "s.vrt").write_text(content)
            href = f"{server.url}/{'deep.vrt' if 'deep' in content else 's.vrt'}"
            with pytest.raises(Exception, match=why):
                value(built(href, VRT))
        (server.folder / "s.vrt").write_text(vrt_of(str(local)))
        assert value(built(f"{server.url}/s.vrt", Access(vrt=True, allow_local=True))) == PIXEL

    def test_is_read_as_it_was_looked_at(self, tmp_path: Path, server: RasterServer) -> None:
        """A server may send another description to the second request."""
        write(server.folder / "source.tif")
        good, evil = vrt_of("source.tif", 1), vrt_of(str(write(tmp_path / "local.tif", 1)))
        path, asked = server.folder / "s.vrt", []
        path.write_text(good.ljust(2000))

        def turn(request: Request) -> Fault | None:
            if request.name == "s.vrt" and request.method == "GET":
                asked.append(request)
                path.write_text((good if len(asked) == 1 else evil).ljust(2000))
            return Fault(etag='"same"')

        server.plan = turn
        raster = Raster(FileState(f"{server.url}/s.vrt", access=VRT), Counters())
        assert set(raster.read(lambda dataset: np.unique(dataset.read(1)), Counters()).tolist()) == {PIXEL}
        raster.close()
        with pytest.raises(RangeError, match="it is a file of this machine"):
            Raster(FileState(f"{server.url}/s.vrt", access=VRT), Counters())

    def test_more_than_its_xml(self, tmp_path: Path) -> None:
        (tmp_path / "s.vrt").write_text("<VRTDataset><broken>")
        assert "is not XML" in reason(tmp_path / "s.vrt", VRT)


class TestCollectionsFromElsewhere:
    LOCAL = (
        "{}",
        "file://{}",
        "file://localhost{}",
        "FILE:{}",
        "/vsizip/{}/x",
        "/vsizip/{{{}}}/x",
        "/vsigzip/{}",
        "/vsitar//vsizip/{}/x",
        "/vsicurl/file://{}",
        "/vsicurl?url=file%3A%2F%2F{}",
        "zip://{}!x",
        "GTIFF_DIR:1:{}",
        "GTIFF_RAW:{}",
        "secret.tif",
        "../secret.tif",
        "~/secret.tif",
    )

    @pytest.mark.parametrize("form", LOCAL)
    def test_name_no_file_of_this_machine(self, form: str, tmp_path: Path) -> None:
        local = built(write(tmp_path / "s.tif"))
        collection = from_elsewhere(local, form.format(tmp_path / "s.tif"))
        with pytest.raises(TileReadError, match="access=Access\\(allow_local=True\\)"):
            value(collection)
        with pytest.raises(CollectionError, match=rf"{ELSEWHERE} names .*allow_local"):
            collection.check_files()
        with pytest.raises(CollectionError, match=rf"{ELSEWHERE} names .*allow_local"):
            collection.export(tmp_path / "mine")

    def test_whatever_the_type_of_their_texts_is(self, tmp_path: Path) -> None:
        collection = from_elsewhere(built(write(tmp_path / "s.tif")), str(tmp_path / "s.tif"))
        table = collection.to_table()
        kind = pa.struct([("B1", pa.struct([("href", pa.large_string()), ("band_index", pa.int32())]))])
        at = table.column_names.index("assets")
        large = replace(collection, table=table.set_column(at, "assets", table["assets"].cast(kind)))
        with pytest.raises(CollectionError, match=rf"{ELSEWHERE} names .*allow_local"):
            large.check_files()

    def test_nor_by_an_index_of_their_own(self, secret: Path, tmp_path: Path) -> None:
        """Tiles are read by the collection's offsets: any file's bytes could be pixels."""
        local = naming(built(write(tmp_path / "s.tif", tiled=True, blockxsize=16, blockysize=16)), str(secret))
        with pytest.raises(TileReadError, match="it is a file of this machine"):
            value(replace(local, path=ELSEWHERE))

    def test_but_where_the_user_allows_it(self, tmp_path: Path) -> None:
        path = write(tmp_path / "s.tif")
        assert value(from_elsewhere(built(path), str(path), Access(allow_local=True))) == PIXEL
        link = tmp_path / "link.tif"
        link.symlink_to(path)
        assert value(naming(built(path), str(link))) == PIXEL

    def test_a_folder_of_this_machine_may(self, tmp_path: Path) -> None:
        built(write(tmp_path / "s.tif")).export(tmp_path / "c")
        assert value(rasteret_beam.load(tmp_path / "c")) == PIXEL
        assert value(rasteret_beam.load((tmp_path / "c").as_uri())) == PIXEL

    @pytest.mark.parametrize(
        "host",
        ["127.1", "localhost", "[::1]", "2130706433", "169.254.169.254", "metadata.google.internal", "[fe80::1]"],
    )
    @pytest.mark.parametrize("form", ["http://{}/x.tif", "https://me:pw@{}:1/x.tif?sig=1", "/vsicurl/http://{}/x.tif"])
    def test_name_no_host_that_is_near(self, host: str, form: str, tmp_path: Path) -> None:
        local = built(write(tmp_path / "s.tif"))
        collection = from_elsewhere(local, form.format(host))
        with pytest.raises(TileReadError, match="which does not lie there") as raised:
            value(collection)
        assert "pw" not in str(raised.value) and "sig=1" not in str(raised.value)
        with pytest.raises(CollectionError, match="which does not lie there"):
            collection.check_files()
        allowed = why_refused(form.format(host), Access(allow_local=True, origin=ELSEWHERE))
        assert (allowed is None) == (host in ("127.1", "localhost", "[::1]", "2130706433"))

    def test_unless_they_lie_there(self, tmp_path: Path, server: RasterServer) -> None:
        write(server.folder / "s.tif")
        built(f"{server.url}/s.tif").export(tmp_path / "c.parquet")
        (server.folder / "c.parquet").write_bytes((tmp_path / "c.parquet").read_bytes())
        assert value(rasteret_beam.load(f"{server.url}/c.parquet")) == PIXEL
        built(write(tmp_path / "s.tif")).export(tmp_path / "d.parquet")
        (server.folder / "d.parquet").write_bytes((tmp_path / "d.parquet").read_bytes())
        with pytest.raises(TileReadError, match=r"named by http://127.0.0.1:\d+/d.parquet, from elsewhere"):
            value(rasteret_beam.load(f"{server.url}/d.parquet"))
        assert value(rasteret_beam.load(f"{server.url}/d.parquet", allow_local=True)) == PIXEL
        assert value(rasteret_beam.load(f"{server.url}/d.parquet", access=Access(allow_local=True))) == PIXEL

    def test_one_on_a_loopback_host_leads_to_no_other_kind(self, tmp_path: Path, server: RasterServer) -> None:
        local = built(write(tmp_path / "s.tif"))
        there = replace(naming(local, "http://169.254.169.254/x.tif"), path=f"{server.url}/c.parquet")
        with pytest.raises(TileReadError, match="it leads to the metadata service of a machine"):
            value(there)

    def test_gdals_own_requests(self, tmp_path: Path) -> None:
        """They follow redirects unseen; the URL alone is read with care."""
        local = built(write(tmp_path / "s.tif"))
        for href in (
            "/vsicurl/https://example.org/x.tif",
            "zip+https://example.org/x.zip!a",
            "ftp://example.org/x.tif",
        ):
            with pytest.raises(TileReadError, match="GDAL would send the requests itself"):
                value(from_elsewhere(local, href))
        for href in ("https://example.org/x.tif", "/vsis3/b/x.tif", "gs://b/x.tif", "/vsizip//vsigs/b/a.zip/x.tif"):
            assert why_refused(href, Access(origin=ELSEWHERE)) is None

    def test_their_subdatasets_need_a_driver_by_name(self, tmp_path: Path) -> None:
        for href in ("NETCDF:/vsis3/b/x.nc:v", 'HDF5:"/vsis3/b/x.h5"://v'):
            assert "GDAL's driver" in str(why_refused(href, Access(origin=ELSEWHERE)))
            assert why_refused(href, Access(drivers=["netCDF", "HDF5"], origin=ELSEWHERE)) is None
        for href in ("NETCDF:/x.nc:v", 'NETCDF:"/x.nc":v', "NETCDF:file:///x.nc:v"):
            assert "allow_local" in str(why_refused(href, Access(drivers=["netCDF"], origin=ELSEWHERE)))
        for href in ("NETCDF:http://127.0.0.1/x.nc:v", 'NETCDF:"http://169.254.169.254/x.nc":v'):
            assert "does not lie there" in str(why_refused(href, Access(drivers=["netCDF"], origin=ELSEWHERE)))

    def test_tiles_of_others_are_not_theirs(self, tmp_path: Path) -> None:
        """A cache of decoded tiles serves several collections."""
        want = tiles.wants_of(write(tmp_path / "s.tif", tiled=True, blockxsize=16, blockysize=16))[0]
        strange = replace(want, asset=replace(want.asset, access=Access(origin=ELSEWHERE)))
        with closing(TileSource()) as source:
            for each, expected in ((want, np.ndarray), (strange, TileReadError), (want, np.ndarray)):
                found: list[object] = []
                source.each([each], lambda _, tile, found=found: found.append(tile), Counters())
                assert [type(tile) for tile in found] == [expected]

    def test_every_reader_asks_first(self, secret: Path) -> None:
        file = FileState(str(secret), size=len(SECRET), access=Access(origin=ELSEWHERE))
        for read in (
            lambda: RangeReader().read(file, 0, 4, Counters()),
            lambda: RangeReader().check(file),
            lambda: Raster(file, Counters()),
        ):
            with pytest.raises(RangeError, match="it is a file of this machine"):
                read()


class TestRecordTablesFromElsewhere:
    @pytest.fixture
    def table(self, tmp_path: Path, server: RasterServer) -> str:
        write(server.folder / "near.tif")
        hrefs = [write(tmp_path / "s.tif").as_uri(), "near.tif"]
        rows = {"id": ["local", "near"], "datetime": ["2023-01-01", "2023-01-02"], "path": hrefs}
        sink = io.BytesIO()
        pq.write_table(pa.table(rows), sink)
        (server.folder / "items.parquet").write_bytes(sink.getvalue())
        return f"{server.url}/items.parquet"

    def test_name_no_file_of_this_machine(self, table: str) -> None:
        with pytest.raises(BuildError, match=r"s.tif: it is a file of this machine, named by http://.*items.parquet"):
            build_from_table(table, href_column="path")
        kept = build_from_table(table, href_column="path", on_error="skip")
        assert kept.to_table()["id"].to_pylist() == ["near"] and value(kept) == PIXEL
        both = build_from_table(table, href_column="path", access=Access(allow_local=True))
        assert both.to_table()["id"].to_pylist() == ["local", "near"]

    def test_also_without_headers(self, table: str) -> None:
        with pytest.raises(InputError, match=r"record 'local' names .*s.tif: it is a file of this machine"):
            build_from_table(table, href_column="path", enrich_cog=False)

    def test_a_file_that_is_not_there_is_not_told_from_one_that_is(self, table: str, tmp_path: Path) -> None:
        (tmp_path / "s.tif").unlink()
        with pytest.raises(BuildError, match=r"s.tif: it is a file of this machine"):
            build_from_table(table, href_column="path")


def test_the_commands_have_flags(tmp_path: Path) -> None:
    write(tmp_path / "s.tif")
    (tmp_path / "s.vrt").write_text(vrt_of("s.tif", 1))
    rasterio.shutil.copy(tmp_path / "s.tif", tmp_path / "s.nc", driver="netCDF")
    pq.write_table(pa.table(POINT), tmp_path / "p.parquet")
    for name, flag in (("s.vrt", "--vrt"), ("s.nc", "--drivers=netCDF")):
        words = [f"--cogs={tmp_path / name}", f"--output={tmp_path / name}-c"]
        done = execute(build_collection.main, *words)
        assert done.code == 1 and flag.replace("=", " ") in done.err and "Access" not in done.err
        assert execute(build_collection.main, *words, flag).code == 0
        words = ["--x_column=x", "--y_column=y", "--geometry_crs=32631", "--bands=B1", f"--points={tmp_path}/p.parquet"]
        words += [f"--collection={tmp_path / name}-c", f"--output={tmp_path / name}-out"]
        done = execute(sample_points.main, *words)
        assert done.code == 1 and flag.replace("=", " ") in done.err and "Access" not in done.err
        assert execute(sample_points.main, *words, flag).code == 0
        (written,) = tmp_path.glob(f"{name}-out-*")
        assert pq.read_table(written)["value"].to_pylist() == [PIXEL]


def test_descriptions_are_not_shown() -> None:
    shown = without_secrets(f"1 file: {wms('http://host')}: refused")
    assert shown == "1 file: <GDAL_WMS ...>: refused"
    assert without_secrets(f"{raw_vrt(Path('/x'))} is refused") == "<VRTDataset ...> is refused"
