"""Checks of Google services before a job begins: credentials, and a time limit for BigQuery's first answer."""

import os
from collections.abc import Callable
from typing import TypeVar

from rasteret_beam.errors import OutputError, one_line
from rasteret_beam.model import DEFAULT_ACCESS
from rasteret_beam.readers.storage.access import GS, is_anonymous
from rasteret_beam.readers.storage.first_contact import within

Answer = TypeVar("Answer")


def ask_bigquery(about: str, ask: Callable[[], Answer]) -> Answer:
    """Send a request to BigQuery before a job begins and return its answer.

    Raises
    ------
    NoAnswerError
    """
    host = os.environ.get("BIGQUERY_EMULATOR_HOST")
    return within(f"BigQuery{f' at {host}' if host else ''}, asked about {about},", ask)


def look_for_credentials() -> None:
    """Check for Google credentials, for which Beam would search silently for half a minute.

    An emulator needs no credentials; Beam is then told not to search.

    Raises
    ------
    OutputError
        There are no credentials.
    """
    from apache_beam.internal.gcp.auth import _Credentials

    if _Credentials._credentials_init:
        return
    import google.auth
    from google.auth.exceptions import DefaultCredentialsError

    try:
        google.auth.default()
    except DefaultCredentialsError as error:
        if not is_anonymous(GS, DEFAULT_ACCESS):
            raise OutputError(
                f"no usable Google credentials: {one_line(error)}; run 'gcloud auth application-default login', or "
                "set GOOGLE_APPLICATION_CREDENTIALS to a key file"
            ) from error
        _Credentials._credentials_init = True
