"""Hosts that a stranger must not send requests to, in all the ways that they are written."""

from ipaddress import IPv4Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rasteret_beam.kernels.storage.hosts import LINK_LOCAL, LOOPBACK, METADATA, UNREADABLE, host_of, nearness


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST",
        "localhost.",
        "a.b.localhost",
        "ip6-localhost",
        "127.0.0.1",
        "127.1",
        "127.0.0.1.",
        "2130706433",
        "0x7f000001",
        "0x7f.1",
        "0177.0.0.1",
        "017700000001",
        "0",
        "0.0.0.0",
        "127.255.1.2",
        "[::1]",
        "[::]",
        "[0:0:0:0:0:0:0:1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "%6c%6fcalhost",
        "127。0。0。1",
        "①②⑦.0.0.1",
        "\uff11\uff12\uff17.0.0.1",
        "ⓛocalhost",
    ],
)
def test_loopback_hosts(host: str) -> None:
    for url in (f"http://{host}/a.tif", f"https://me:secret@{host}:8080/a.tif", f"http://{host}?q", f"http://{host}#f"):
        assert nearness(host_of(url)) == LOOPBACK


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("169.254.1.2", LINK_LOCAL),
        ("0xa9fe0102", LINK_LOCAL),
        ("[fe80::1]", LINK_LOCAL),
        ("[fe80::1%25eth0]", LINK_LOCAL),
        ("[febf::1]", LINK_LOCAL),
        ("[::ffff:169.254.1.2]", LINK_LOCAL),
        ("169.254.169.254", METADATA),
        ("2852039166", METADATA),
        ("metadata.google.internal", METADATA),
        ("Metadata.Google.Internal.", METADATA),
        ("[fd00:ec2::254]", METADATA),
        ("[::ffff:169.254.169.254]", METADATA),
        ("a\\@localhost", UNREADABLE),
        ("a b", UNREADABLE),
        ("local\thost", UNREADABLE),
        ("[::1", UNREADABLE),
        ("[v1.a]", UNREADABLE),
        ("example.org", None),
        ("localhost.example.org", None),
        ("metadata.example.org", None),
        ("10.0.0.1", None),
        ("192.168.1.1", None),
        ("128.0.0.1", None),
        ("169.253.255.255", None),
        ("[2001:db8::1]", None),
        ("bücher.example", None),
        ("local\u00adhost", UNREADABLE),
        ("local\u200bhost", UNREADABLE),
    ],
)
def test_other_hosts(host: str, expected: str | None) -> None:
    assert nearness(host_of(f"http://{host}/a.tif")) == expected


def spelt(address: IPv4Address, parts: int, bases: list[str]) -> str:
    """One of the spellings of inet_aton: the last of so many parts holds the rest of the address."""
    number = int(address)
    values = [(number >> (24 - 8 * part)) & 0xFF for part in range(parts - 1)]
    values.append(number & ((1 << (8 * (5 - parts))) - 1))
    forms = {"d": "{}", "x": "0x{:x}", "o": "0{:o}"}
    return ".".join(forms[base].format(value) for base, value in zip(bases, values, strict=False))


@given(st.ip_addresses(v=4), st.integers(1, 4), st.lists(st.sampled_from("dxo"), min_size=4, max_size=4))
def test_all_spellings_of_an_address_are_the_address(address: IPv4Address, parts: int, bases: list[str]) -> None:
    expected = nearness(str(address))
    assert nearness(host_of(f"http://{spelt(address, parts, bases)}/")) == expected
    assert nearness(host_of(f"http://[::ffff:{address}]/")) == expected
    near = address.is_loopback or address.is_link_local or int(address) >> 24 == 0
    assert (expected is not None) == (near or str(address) in ("100.100.100.200", "168.63.129.16", "192.0.0.192"))
    assert expected != LOOPBACK or ip_address(str(address)).is_loopback or int(address) >> 24 == 0
