"""Rasters, points and collections at az://, against Azurite, which npm installs; skipped where there is no npm."""

import base64
import hashlib
import hmac
import shutil
import subprocess
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path
from urllib.parse import unquote
from urllib.request import Request, urlopen

import obstore
import pytest
from obstore.store import from_url

import rasteret_beam
from rasteret_beam import Access, build_from_cogs
from rasteret_beam.readers.storage.listing import find_rasters
from tests.support.bucket_contents import CASES, points, same
from tests.support.emulators import FOLDER, serving
from tests.support.front import Front
from tests.support.pipelines import XY
from tests.support.ports import free_port

AZURITE = "azurite@3.37.0"
ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""Azurite's own, which its documentation gives."""

PLAIN = {"allow_http": True}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (shutil.which("npm") and shutil.which("node")), reason="Azurite needs node and npm"),
]


def program() -> Path:
    """Azurite's blob service; a half-made installation is made again."""
    folder = FOLDER / "azurite"
    complete = folder / "complete"
    if not complete.exists() or complete.read_text() != AZURITE:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        words = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(folder), AZURITE]
        done = subprocess.run(words, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"Azurite cannot be installed: {done.stderr[-500:]}")
        complete.write_text(AZURITE)
    return folder / "node_modules" / ".bin" / "azurite-blob"


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    folder, port = tmp_path_factory.mktemp("azurite"), free_port()
    words = [program(), "--blobHost", "127.0.0.1", "--blobPort", port, "--location", folder, "--skipApiVersionCheck"]
    with (
        pytest.MonkeyPatch.context() as patch,
        serving(words, port, folder / "azurite.log"),
        Front(f"http://127.0.0.1:{port}") as found,
    ):
        patch.setenv("AZURE_STORAGE_ACCOUNT", ACCOUNT)
        patch.setenv("AZURE_STORAGE_ACCESS_KEY", KEY)
        create_container(f"http://127.0.0.1:{port}/{ACCOUNT}")
        yield found


def create_container(endpoint: str) -> None:
    """A container that anyone may read; obstore makes none. Signed as Azure's "Authorize with Shared Key" says."""
    sent = {"x-ms-blob-public-access": "container", "x-ms-date": formatdate(usegmt=True), "x-ms-version": "2021-12-02"}
    named = "".join(f"{name}:{value}\n" for name, value in sent.items())
    text = "PUT" + "\n" * 12 + named + f"/{ACCOUNT}/{ACCOUNT}/box\nrestype:container"
    digest = base64.b64encode(hmac.new(base64.b64decode(KEY), text.encode(), hashlib.sha256).digest()).decode()
    headers = {**sent, "Authorization": f"SharedKey {ACCOUNT}:{digest}"}
    with urlopen(Request(f"{endpoint}/box?restype=container", method="PUT", headers=headers), timeout=30) as answer:
        assert answer.status == 201


@pytest.mark.parametrize("anonymous", [False, True])
def test_rasters_and_collections(
    front: Front, tmp_path: Path, anonymous: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint, folder = f"{front.url}/{ACCOUNT}", f"a folder {anonymous}"
    store = from_url("az://box", config={"endpoint": endpoint, "account_name": ACCOUNT}, client_options=PLAIN)
    paths = [case.write(tmp_path) for case in CASES]
    hrefs = [f"az://box/{folder}/{path.name}" for path in paths]
    for path in paths:
        obstore.put(store, f"{folder}/{path.name}", path.read_bytes())
    build_from_cogs(paths).export(tmp_path / "c.parquet")
    obstore.put(store, f"{folder}/collection/c.parquet", (tmp_path / "c.parquet").read_bytes())
    if anonymous:
        monkeypatch.delenv("AZURE_STORAGE_ACCESS_KEY")
    front.log()
    access = Access(endpoint=endpoint, anonymous=anonymous)
    assert find_rasters([f"az://box/{folder}/*.tif"], access) == sorted(hrefs)
    expected = build_from_cogs(paths).sample_points(points(), ["B1", "B2"], **XY)
    loaded = rasteret_beam.load(f"az://box/{folder}/collection", access=access, allow_local=True)
    for collection in (build_from_cogs(hrefs, access=access), loaded):
        assert same(collection.sample_points(points(), ["B1", "B2"], **XY), expected)
    seen = front.log()
    assert {"authorization" in request["headers"] for request in seen} == {not anonymous}
    for part in ("indexed.tif", "by_gdal.tif", "c.parquet", "comp=list"):
        assert any(part in unquote(str(request["path"])) for request in seen)
