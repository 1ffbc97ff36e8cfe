"""Recognize local hosts, which untrusted sources must not reach: loopback, link-local, and metadata services.

One address has many spellings, and libraries parse the host of a URL differently. So all IPv4 spellings of C libraries
are recognized (``127.1``, ``0x7f.1``, ``2130706433``), as are IPv4 addresses in IPv6; a host that libraries may parse
differently is :data:`UNREADABLE`.
"""

import re
import socket
import unicodedata
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from urllib.parse import unquote

LOOPBACK = "a loopback host"
LINK_LOCAL = "a link-local host"
METADATA = "the metadata service of a machine"
UNREADABLE = "a host that can be read in more than one way"

LOOPBACK_NAMES = ("localhost", "localhost.localdomain", "localhost4", "localhost6", "ip6-localhost", "ip6-loopback")
METADATA_NAMES = (
    "metadata",
    "metadata.google.internal",
    "metadata.goog",
    "instance-data",
    "instance-data.ec2.internal",
)
METADATA_ADDRESSES = frozenset(
    map(
        ip_address,
        ("169.254.169.254", "169.254.170.2", "fd00:ec2::254", "100.100.100.200", "168.63.129.16", "192.0.0.192"),
    )
)
"""Metadata services of Amazon (machines and containers), Alibaba, Azure and Oracle; others use the first one too."""

NAT64 = IPv6Network("64:ff9b::/96")
DOTS = re.compile("[\u3002\uff0e\uff61]")
"""Characters that count as a dot in a host (RFC 3490, section 3.1)."""

HOST = re.compile(r"[\w.~-]*|\[[0-9a-f:.]+(%[a-z0-9._~-]+)?\]")


def host_of(url: str) -> str | None:
    """The host of a URL in lower case, IPv6 in brackets; None if libraries may parse it differently."""
    authority = re.split(r"[/?#]", url.partition("://")[2], maxsplit=1)[0]
    host = authority.rpartition("@")[2]
    host = DOTS.sub(".", unicodedata.normalize("NFKC", unquote(re.sub(r":\d*$", "", host)))).lower()
    if "\\" in authority or re.search(r"[\s\x00-\x1f]", authority) or not HOST.fullmatch(host):
        return None
    return host


def nearness(host: str | None) -> str | None:
    """The kind of a local host, one of the texts above; None for all others, including private networks.

    Parameters
    ----------
    host : str or None
        A result of :func:`host_of`, or an address.
    """
    if host is None:
        return UNREADABLE
    name = host.strip("[]").partition("%")[0].rstrip(".")
    if name in METADATA_NAMES:
        return METADATA
    if name in LOOPBACK_NAMES or name.endswith(".localhost"):
        return LOOPBACK
    address = _address(name)
    if address is None:
        return None
    if address in METADATA_ADDRESSES:
        return METADATA
    if address.is_loopback or address.is_unspecified or (address.version == 4 and address.packed[0] == 0):
        return LOOPBACK
    return LINK_LOCAL if address.is_link_local else None


def _address(name: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(name)
    except ValueError:
        try:
            return IPv4Address(socket.inet_aton(name)) if name else None
        except OSError:
            return None
    return _inner(address) or address if isinstance(address, IPv6Address) else address


def _inner(address: IPv6Address) -> IPv4Address | None:
    """The IPv4 address in an IPv6 address: mapped, compatible, 6to4, Teredo or NAT64."""
    if address in NAT64 or (not int(address) >> 32 and int(address) > 1):
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1]
