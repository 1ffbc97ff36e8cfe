"""Access to buckets: the settings of each storage library.

obstore and google-cloud-storage find the platform's credentials by themselves. This module sets what they handle
differently: endpoints, unsigned requests, and requester pays.
"""

import os
from configparser import ConfigParser
from configparser import Error as ConfigError
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from rasteret_beam.errors import InputError, MissingInputError, how_to_install
from rasteret_beam.model import Access

S3, GS = "s3", "gs"
AZURE = ("az", "abfs", "abfss")

MISSING_GCS = (
    f"listing and writing on gs:// needs google-cloud-storage, which is not installed: {how_to_install('gcp')}"
)
PROFILE_SECONDS = timedelta(minutes=30)
"""Interval at which the file of AWS profiles is read again."""


def endpoint_of(scheme: str, access: Access) -> str | None:
    """URL of the service for a scheme's buckets; None for the platform's default."""
    if access.endpoint:
        return access.endpoint.rstrip("/")
    if scheme == GS:
        host = os.environ.get("STORAGE_EMULATOR_HOST")
        return (host if not host or "://" in host else f"http://{host}") or None
    if scheme == S3:
        return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    return None


def is_anonymous(scheme: str, access: Access) -> bool:
    """Whether requests are unsigned; Google's emulator has no accounts."""
    return access.anonymous or (scheme == GS and not access.endpoint and bool(os.environ.get("STORAGE_EMULATOR_HOST")))


def billed_project(access: Access) -> str | None:
    """The project to bill for requests to a Google bucket; None if its owner pays.

    Raises
    ------
    InputError
        The requester pays, but no project is given.
    """
    if isinstance(access.requester_pays, str) or not access.requester_pays:
        return access.requester_pays or None
    project = os.environ.get("GOOGLE_CLOUD_PROJECT")
    if not project:
        raise InputError(
            "a requester-pays bucket on gs:// needs a project to bill: requester_pays='my-project', "
            "or GOOGLE_CLOUD_PROJECT in the environment"
        )
    return project


def obstore_settings(scheme: str, access: Access) -> tuple[dict[str, Any], dict[str, str]]:
    """The configuration of a store and the headers of its requests."""
    config: dict[str, Any] = {}
    headers: dict[str, str] = {}
    endpoint = endpoint_of(scheme, access)
    if is_anonymous(scheme, access):
        config["skip_signature"] = True
    if scheme == GS:
        config |= {"base_url": endpoint} if endpoint else {}
        project = billed_project(access)
        headers |= {"x-goog-user-project": project} if project else {}
        return config, headers
    config |= {"endpoint": endpoint} if endpoint else {}
    if scheme == S3:
        config |= {"region": access.region} if access.region else {}
        config |= {"request_payer": True} if access.requester_pays else {}
    elif os.environ.get("AZURE_STORAGE_ACCOUNT"):  # the variable that GDAL reads
        config["account_name"] = os.environ["AZURE_STORAGE_ACCOUNT"]
    return config, headers


def gcs_client(access: Access) -> Any:
    """A google-cloud-storage client for everything but reading bytes; one per process and setting.

    Raises
    ------
    MissingInputError
        It is not installed.
    """
    credentials = os.environ.get("GOOGLE_APPLICATION_CREDENTIALS", "")
    return _gcs_client(endpoint_of(GS, access), is_anonymous(GS, access), credentials)


@cache
def _gcs_client(endpoint: str | None, anonymous: bool, credentials: str) -> Any:
    """The client finds its credentials; ``credentials`` is a key of the cache, as another file needs another client."""
    try:
        from google.auth.credentials import AnonymousCredentials
        from google.cloud import storage  # type: ignore[attr-defined]
    except ImportError as error:
        raise MissingInputError(MISSING_GCS) from error
    # The client requires a project, though objects do not have one and user credentials may not name one.
    return storage.Client(
        project="none",
        credentials=AnonymousCredentials() if anonymous else None,
        client_options={"api_endpoint": endpoint} if endpoint else None,
    )


def aws_credentials(access: Access) -> Any:
    """A provider of an AWS profile's keys for obstore; None if obstore finds credentials by itself or needs none.

    obstore reads environment variables and the metadata service of AWS, but not the files of ``aws configure``, which
    GDAL and boto3 read. boto3 is used if it is installed, as it supports all kinds of profiles; otherwise the keys in
    the file are used.
    """
    if access.anonymous or {"AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE"} & set(os.environ):
        return None
    if not any(map(os.path.exists, _aws_files())):
        return None
    try:
        from obstore.auth.boto3 import Boto3CredentialProvider
    except ImportError:
        return _profile_keys if _keys_of_profile() else None
    try:
        return Boto3CredentialProvider()
    except ValueError:  # the profile has no credentials
        return None


def _aws_files() -> list[str]:
    files = {"AWS_SHARED_CREDENTIALS_FILE": "~/.aws/credentials", "AWS_CONFIG_FILE": "~/.aws/config"}
    return [os.path.expanduser(os.environ.get(name, usual)) for name, usual in files.items()]


def _keys_of_profile() -> dict[str, str]:
    """Keys of the profile in the shared credentials file; empty if there are none."""
    parser = ConfigParser(interpolation=None)
    profile = os.environ.get("AWS_PROFILE", "default")
    try:
        parser.read(_aws_files()[0])
        found = dict(parser[profile]) if profile in parser else {}
    except (ConfigError, OSError):
        return {}
    return found if {"aws_access_key_id", "aws_secret_access_key"} <= set(found) else {}


def _profile_keys() -> dict[str, Any]:
    found = _keys_of_profile()
    return {
        "access_key_id": found.get("aws_access_key_id", ""),
        "secret_access_key": found.get("aws_secret_access_key", ""),
        "token": found.get("aws_session_token"),
        "expires_at": datetime.now(UTC) + PROFILE_SECONDS,
    }
