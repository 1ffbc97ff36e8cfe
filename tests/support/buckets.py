"""A bucket of Google's and one of Amazon's on loopback, each behind a front that keeps a list and can refuse."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import boto3
import pytest
from apache_beam.internal.gcp import auth
from botocore.config import Config
from google.cloud import storage

from tests.support.emulators import BUCKET, environment, serving
from tests.support.front import Front
from tests.support.paths import ROOT
from tests.support.ports import free_port

REGION = "eu-west-1"
KEYS = {"AWS_ACCESS_KEY_ID": "AKIAPUBLICNAME", "AWS_SECRET_ACCESS_KEY": "hush-hush-secret", "AWS_REGION": REGION}


@dataclass(frozen=True)
class Place:
    """A bucket, the front before its server, and a client that goes past the front."""

    uri: str
    front: Front
    put: Callable[[str, bytes], object]
    names: Callable[[], list[str]]
    get: Callable[[str], bytes]

    def upload(self, path: Path, name: str) -> str:
        self.put(name, path.read_bytes())
        return f"{self.uri}/{name}"


@contextmanager
def google(folder: Path, patch: pytest.MonkeyPatch) -> Iterator[Place]:
    """gcp-storage-emulator, as Beam, google-cloud-storage, obstore and GDAL meet it."""
    port = free_port()
    command = [environment("storage") / "gcp-storage-emulator", "-d", folder, "start", "--port", port]
    address = f"http://127.0.0.1:{port}"
    with (
        serving([*command, "-H", "127.0.0.1", "--default-bucket", BUCKET], port, folder / "storage.log"),
        Front(address, gcs=True) as front,
    ):
        patch.setenv("STORAGE_EMULATOR_HOST", front.url)
        # Else each client looks for credentials on the network for half a minute.
        patch.setattr(auth._Credentials, "_credentials", None)
        patch.setattr(auth._Credentials, "_credentials_init", True)
        client = storage.Client.create_anonymous_client()
        client._connection.API_BASE_URL = address
        bucket = client.bucket(BUCKET)
        yield Place(
            f"gs://{BUCKET}",
            front,
            lambda name, data: bucket.blob(name).upload_from_string(data),
            lambda: sorted(blob.name for blob in client.list_blobs(bucket)),
            lambda name: bucket.blob(name).download_as_bytes(),
        )


@contextmanager
def amazon(folder: Path, patch: pytest.MonkeyPatch) -> Iterator[Place]:
    """moto's server, as Beam, obstore and GDAL meet it."""
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    with (
        serving([sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", port], port, folder / "moto.log"),
        Front(address) as front,
    ):
        for name, value in {**KEYS, "AWS_ENDPOINT_URL": front.url}.items():
            patch.setenv(name, value)
        client = boto3.client("s3", endpoint_url=address, region_name=REGION, config=Config(proxies={}))
        client.create_bucket(Bucket=BUCKET, ACL="public-read", CreateBucketConfiguration={"LocationConstraint": REGION})
        yield Place(
            f"s3://{BUCKET}",
            front,
            lambda name, data: client.put_object(Bucket=BUCKET, Key=name, Body=data, ACL="public-read"),
            lambda: sorted(item["Key"] for item in client.list_objects_v2(Bucket=BUCKET).get("Contents", [])),
            lambda name: client.get_object(Bucket=BUCKET, Key=name)["Body"].read(),
        )


SERVICES = {"gs": google, "s3": amazon}


def in_process(module: str, *argv: object) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own, with this one's environment."""
    words = [sys.executable, "-m", f"pipelines.{module}", *map(str, argv)]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, env=os.environ)
