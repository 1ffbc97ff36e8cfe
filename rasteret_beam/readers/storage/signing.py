"""Signed URLs: made when a request is sent, and never stored."""

from collections.abc import Callable
from functools import cache

from rasteret_beam.errors import InputError, MissingInputError, how_to_install, without_secrets
from rasteret_beam.model import Access
from rasteret_beam.readers.storage.location import Location

Sign = Callable[[str], str]


def signed(href: str, access: Access) -> str:
    """The URL that is requested for an href of the web: signed, where ``access`` has a way to do so.

    Raises
    ------
    InputError, MissingInputError
        What signs is not installed, or does not give a URL.
    """
    if access.sign is None or not Location.of(href).is_web:
        return href
    sign = _named(access.sign) if isinstance(access.sign, str) else access.sign
    url = sign(href)
    if not isinstance(url, str) or not Location.of(url).is_web:
        raise InputError(
            f"sign gave {without_secrets(str(url))[:80]!r} for {without_secrets(href)}; it has to give a URL of the web"
        )
    return url


def check_sign(access: Access) -> None:
    """Refuse access by a package that is not installed.

    Raises
    ------
    MissingInputError
    """
    if isinstance(access.sign, str):
        _named(access.sign)


@cache
def _named(name: str) -> Sign:
    assert name == "planetary-computer"
    try:
        import planetary_computer
    except ImportError as error:
        raise MissingInputError(
            f"sign={name!r} needs planetary-computer, which is not installed: {how_to_install('planetary-computer')}"
        ) from error
    sign: Sign = planetary_computer.sign_url
    return sign
