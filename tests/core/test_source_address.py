"""Headers count only where a trusted proxy wrote them, and only what it wrote."""

from __future__ import annotations

import pytest

from conduit.core.errors import ConfigurationError
from conduit.core.source_address import caller, parse_proxies

PROXIES = parse_proxies(["10.0.0.0/8", "2001:db8:1::/48"])
XFF, FORWARDED = "x-forwarded-for", "forwarded"


def seen(peer: str, *sent: tuple[str, str], trusted: object = PROXIES) -> str:
    return caller(peer, [(name.encode(), value.encode("latin-1")) for name, value in sent], trusted)  # type: ignore[arg-type]


def test_without_trusted_proxies_headers_are_not_looked_at() -> None:
    assert seen("10.0.0.1", (XFF, "192.0.2.7"), (FORWARDED, "for=192.0.2.7"), trusted=()) == "10.0.0.1"


def test_a_stranger_cannot_name_another_address() -> None:
    assert seen("198.51.100.9", (XFF, "192.0.2.7")) == "198.51.100.9"
    assert seen("198.51.100.9", (XFF, "10.0.0.2"), (FORWARDED, "for=10.0.0.2")) == "198.51.100.9"
    assert seen("", (XFF, "192.0.2.7")) == ""


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("192.0.2.7:4711", "192.0.2.7"),
        ("2001:db8:2::7", "2001:db8:2::7"),
        ("[2001:db8:2::7]:4711", "2001:db8:2::7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("192.0.2.7, 10.1.1.1, 2001:db8:1::5", "192.0.2.7"),  # through two more of our proxies
        ("203.0.113.1, 192.0.2.7", "192.0.2.7"),  # the left one is what the client wrote
        ("10.0.0.99, 192.0.2.7", "192.0.2.7"),  # also when it looks like one of ours
        ("unknown, 192.0.2.7", "192.0.2.7"),
        ("192.0.2.7, unknown", ""),
        ("192.0.2.7, _hidden, 10.1.1.1", ""),
        ("192.0.2.7,", ""),
        ("", ""),
        ("999.1.1.1", ""),
        ("10.0.0.5, 10.0.0.6", "10.0.0.5"),  # a caller among the trusted networks
        ("fe80::1%eth0", ""),
    ],
)
def test_the_right_most_address_that_is_no_proxy_counts(value: str, found: str) -> None:
    assert seen("10.0.0.1", (XFF, value)) == found


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("for=192.0.2.7", "192.0.2.7"),
        ('For="[2001:db8:2::7]:4711";proto=https', "2001:db8:2::7"),
        ("proto=https;for=192.0.2.7;by=10.0.0.1", "192.0.2.7"),
        ("for=203.0.113.1, for=192.0.2.7, for=10.2.2.2", "192.0.2.7"),
        ('for="203.0.113.1, for=192.0.2.7"', "192.0.2.7"),
        ("proto=https", ""),
        ("for=unknown", ""),
        ("for=_secret", ""),
    ],
)
def test_forwarded_is_read_alike(value: str, found: str) -> None:
    assert seen("10.0.0.1", (FORWARDED, value)) == found


def test_several_lines_of_a_header_are_one_list() -> None:
    assert seen("10.0.0.1", (XFF, "203.0.113.1"), ("accept", "*/*"), (XFF, "192.0.2.7")) == "192.0.2.7"


def test_where_the_two_headers_disagree_neither_is_believed() -> None:
    assert seen("10.0.0.1", (XFF, "192.0.2.7"), (FORWARDED, "for=203.0.113.1")) == ""
    assert seen("10.0.0.1", (XFF, "192.0.2.7"), (FORWARDED, "for=192.0.2.7")) == "192.0.2.7"
    assert seen("10.0.0.1") == "10.0.0.1"  # the proxy's own request


def test_an_endless_header_is_read_from_its_end() -> None:
    assert seen("10.0.0.1", (XFF, "203.0.113.1," * 5000 + "192.0.2.7")) == "192.0.2.7"


@pytest.mark.parametrize("text", ["proxy.internal", "10.0.0.1/8", "10.0.0.0/33", "*"])
def test_a_wrong_proxy_stops_the_start_and_is_named(text: str) -> None:
    with pytest.raises(ConfigurationError, match="CONDUIT_TRUSTED_PROXIES"):
        parse_proxies(["127.0.0.1", text])
