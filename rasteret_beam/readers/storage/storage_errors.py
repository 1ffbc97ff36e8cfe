"""Describe obstore's errors on one line, and decide whether a retry may help.

obstore raises one class for most failures, with the status or the cause in a long text.
"""

import re

from obstore.exceptions import BaseError, NotSupportedError, PermissionDeniedError, UnauthenticatedError

from rasteret_beam.errors import one_line

PASSING = (408, 425, 429)
"""HTTP statuses below 500 that are worth a retry."""

NO_RANGES = "the server does not support byte ranges; move the file to one that does"
NOT_ALLOWED = "the server does not allow reading it"
MISSING = "no such file"

STATUS = re.compile(r"status code: (\d{3})([^:\n]*)")
REASON = re.compile(r"<(?:Code|Message)>([^<]*)</(?:Code|Message)>")
ON_THE_WAY = (
    (
        re.compile(r"performing \w+ \S*(?:169\.254\.169\.254|metadata\.google)"),
        "no credentials were found (the metadata service, the last place to look, does not answer)",
    ),
    (re.compile(r"[Cc]ertificate"), "the server's certificate is not accepted"),
    (re.compile(r"kind: Timeout|TimedOut"), "no answer, or no further data, within the time limit"),
    (re.compile(r"ConnectionReset|BrokenPipe"), "the connection was reset"),
    (re.compile(r"IncompleteBody|IncompleteMessage|UnexpectedEof"), "the answer ended early"),
    (re.compile(r"ConnectionRefused"), "the connection was refused"),
    (re.compile(r"dns error"), "the host's name is not known"),
)
WRONG_RANGE = re.compile(r"Requested (\d+)\.\.(\d+), got (\d+)\.\.(\d+)")
ENDS_EARLY = re.compile(r"object was only (\d+) bytes long")
PREAMBLE = re.compile(r"Generic \w+ error: |Error performing \w+ \S+ in \S+ - ")
CAUSE = re.compile(r'message: "([^"]+)"')
LONGEST = 300
"""Maximum length of an unknown text."""


def status_of(error: BaseException) -> int | None:
    """The HTTP status that the server answered with."""
    found = STATUS.search(str(error))
    return int(found[1]) if found else None


def size_of_short_file(error: BaseException) -> int | None:
    """Size of the file in an error about a range that starts after its end."""
    found = ENDS_EARLY.search(str(error))
    return int(found[1]) if found else None


def is_retryable(error: BaseException) -> bool:
    """Whether a retry may help."""
    if isinstance(error, FileNotFoundError | NotSupportedError):
        return False
    status = status_of(error)
    if status is not None:
        return status >= 500 or status in PASSING
    return not re.search("without LOCATION|[Cc]ertificate", str(error))


def describe(error: BaseException) -> str:
    """The cause of an error on one line."""
    text = str(error)
    if isinstance(error, NotSupportedError) and "Range" in text:
        return NO_RANGES
    what = _status_text(text) or _what_happened(text)
    if isinstance(error, PermissionDeniedError | UnauthenticatedError):
        return f"{NOT_ALLOWED}: {what}"
    if isinstance(error, FileNotFoundError) and status_of(error) in (None, 404):
        return f"{MISSING} ({what})"
    return what


def _status_text(text: str) -> str | None:
    found = STATUS.search(text)
    if found is None:
        return None
    told = ": ".join(dict.fromkeys(part.strip() for part in REASON.findall(text.split("Debug source:")[0])))
    return f"the server answered {found[1]}{found[2].rstrip()}" + (f" ({told[:LONGEST]})" if told else "")


def _what_happened(text: str) -> str:
    wrong = WRONG_RANGE.search(text)
    if wrong is not None:
        return f"the server sent bytes {wrong[3]} to {wrong[4]} instead of {wrong[1]} to {wrong[2]}"
    for pattern, meaning in ON_THE_WAY:
        if pattern.search(text):
            return meaning
    short = PREAMBLE.sub("", text.split("\n\nDebug source:")[0])
    causes = CAUSE.findall(text)
    return one_line(BaseError(f"{short} ({causes[-1]})" if causes else short))[:LONGEST]
