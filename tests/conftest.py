"""Fixtures that several test modules share."""

import gc
import signal
from collections.abc import Iterator
from typing import TYPE_CHECKING
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pytest

from rasteret_beam import Collection, build_from_table
from tests.support import beam_reflection, properties, threads
from tests.support.emulators import PROJECT, Cloud, Proxy, cloud, credentials_file
from tests.support.scenes import scene_table

if TYPE_CHECKING:
    from google.cloud import bigquery


def pytest_configure(config: pytest.Config) -> None:
    gc.disable()  # until all tests are there: what is loaded with them stays, and looking for garbage in it takes long
    fast = config.option.markexpr == "not slow"
    properties.configure(fast=fast)
    if fast:
        beam_reflection.keep()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of properties run in the slow run too, with all of their examples."""
    for item in items:
        if getattr(getattr(item, "obj", None), "is_hypothesis_test", False):
            item.add_marker("property")


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)  # a small pipeline makes a hundred thousand objects
    gc.enable()


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Collection:
    """The collection of :func:`scene_table`, in memory."""
    return build_from_table(scene_table(tmp_path_factory.mktemp("scenes")), name="scenes")


@pytest.fixture(scope="session")
def points() -> pa.Table:
    """2,000 points in EPSG:32631 over the scenes and a little beyond, the last three unusable."""
    rng = np.random.default_rng(7)
    x, y = rng.uniform(499_800, 505_200, 2000), rng.uniform(5_396_800, 5_400_200, 2000)
    x[-1], y[-2] = np.nan, np.inf
    columns = {
        "plot": pa.array([f"plot-{number}" for number in range(2000)]),
        "x": pa.array([*x[:-3], None, *x[-2:]], type=pa.float64()),
        "y": pa.array(y),
        "kind": pa.array(rng.choice(["a", "b"], 2000)).dictionary_encode(),
    }
    return pa.table(columns)


@pytest.fixture
def same_signal_handlers() -> Iterator[None]:
    """What a command in this process does to the handlers of signals is undone."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(autouse=True)
def threads_of_the_test_alone() -> None:
    """Threads that an earlier test of this process left running count against none of the later ones."""
    threads.begin()


@pytest.fixture(scope="session")
def emulated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """The emulators of BigQuery and Cloud Storage."""
    with cloud(tmp_path_factory.mktemp("cloud")) as found:
        yield found


@pytest.fixture(scope="module")
def service(emulated: Cloud, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """The emulators, as this process meets them; BigQuery behind the proxy."""
    from apache_beam.internal.gcp import auth
    from apache_beam.io.gcp.internal.clients.bigquery.bigquery_v2_client import BigqueryV2

    from rasteret_beam.transforms.runtime import bigquery_client as client_of_bigquery

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BIGQUERY_EMULATOR_HOST", emulated.proxy.address)
        patch.setenv("STORAGE_EMULATOR_HOST", emulated.storage)
        credentials = credentials_file(tmp_path_factory.mktemp("credentials"))
        patch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(credentials))
        patch.setenv("GOOGLE_CLOUD_PROJECT", PROJECT)
        patch.setattr(auth._Credentials, "_credentials_init", False)
        patch.setattr(BigqueryV2, "BASE_URL", f"{emulated.proxy.address}/bigquery/v2/")
        for name in ("CHECK_SECONDS", "LOAD_SECONDS"):
            patch.setattr(client_of_bigquery, name, 5)
        yield emulated


@pytest.fixture(scope="module")
def client(service: Cloud) -> "bigquery.Client":
    """A client of BigQuery's emulator, past our own code."""
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import bigquery

    return bigquery.Client(project=PROJECT, credentials=AnonymousCredentials())


@pytest.fixture
def proxy(service: Cloud) -> Iterator[Proxy]:
    """The proxy, which refuses nothing before and after."""
    service.proxy.seen.clear()
    yield service.proxy
    service.proxy.refuse = lambda request: None


@pytest.fixture
def dataset(client: "bigquery.Client", proxy: Proxy) -> str:
    """The name of a new dataset."""
    name = f"d{uuid4().hex[:8]}"
    client.create_dataset(f"{PROJECT}.{name}")
    return f"{PROJECT}.{name}"
