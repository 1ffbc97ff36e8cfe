"""What is made of obstore's errors; those of a web server are tested over HTTP in ``test_http``."""

import pytest
from obstore.exceptions import GenericError

from rasteret_beam.readers.storage.storage_errors import describe, is_retryable

SLOW_DOWN = "<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
ASKED = "Generic S3 error: Error performing GET https://host/bucket/key in 3.1ms - "
REDIRECT = "Received redirect without LOCATION, this normally indicates an incorrectly configured region"
DEBUG = '\n\nDebug source:\nGeneric {\n    store: "S3",\n'


@pytest.mark.parametrize(
    ("text", "expected", "passing"),
    [
        (
            f"{ASKED}Server returned non-2xx status code: 503 Slow Down: {SLOW_DOWN}{DEBUG} body: {SLOW_DOWN}",
            "the server answered 503 Slow Down (SlowDown: Please reduce your request rate.)",
            True,
        ),
        (
            f"{ASKED}{REDIRECT}{DEBUG}",
            REDIRECT,
            False,
        ),
        (
            f"{ASKED}HTTP error: error sending request{DEBUG} InvalidCertificate(Expired)",
            "the server's certificate is not accepted",
            False,
        ),
        (
            f'{ASKED}HTTP error: error sending request{DEBUG} message: "No route to host",',
            "HTTP error: error sending request (No route to host)",
            True,
        ),
        (
            "Generic S3 error: Error performing PUT http://169.254.169.254/latest/api/token in 1s - "
            f"HTTP error: error sending request{DEBUG} kind: Timeout",
            "no credentials were found (the metadata service, the last place to look, does not answer)",
            True,
        ),
    ],
)
def test_errors_of_buckets_are_put_in_a_line(text: str, expected: str, passing: bool) -> None:
    assert describe(GenericError(text)) == expected
    assert is_retryable(GenericError(text)) is passing
