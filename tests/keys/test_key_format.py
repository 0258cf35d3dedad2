"""A mistyped key or token is refused by its checksum, without a question to the database (V5)."""

from __future__ import annotations

import random
import string
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from conduit.access import tokens
from conduit.core import raw_keys
from conduit.core.stored_digests import NOBODY
from keys.authentication import KeyCache
from keys.entries import KeyEntry

KINDS = (raw_keys.VIRTUAL_KEY, raw_keys.MANAGEMENT_TOKEN)
LENGTH = 55
# Every character that a keyboard or a copy from a document may leave instead: all of ASCII, and look-alikes beyond.
TYPED = [chr(code) for code in range(128)] + list("é٣０ＡаⅠ\u200b\u00a0€")  # noqa: RUF001 (that is their point)
KEYS = 5


def minted(kind: str = raw_keys.VIRTUAL_KEY) -> str:
    return raw_keys.mint(kind).raw.reveal()


def with_another_character(raw: str) -> Iterator[str]:
    """Each of the 55 positions with each other character."""
    for place in range(LENGTH):
        for typed in TYPED:
            if typed != raw[place]:
                yield raw[:place] + typed + raw[place + 1 :]


def with_another_pair(raw: str) -> Iterator[str]:
    """Each two neighbours behind the prefix replaced by each two other characters; exchanged ones are among them."""
    for place in range(7, LENGTH - 1):
        for one in raw_keys.ALPHABET:
            for other in raw_keys.ALPHABET:
                if one + other != raw[place : place + 2]:
                    yield raw[:place] + one + other + raw[place + 2 :]


def with_another_length(raw: str) -> Iterator[str]:
    """A character left out, doubled, or put in anywhere; cut, padded, in another case."""
    for place in range(LENGTH):
        yield raw[:place] + raw[place + 1 :]
        yield raw[: place + 1] + raw[place:]
        yield raw[:place]
    for space in string.whitespace:
        yield from (space + raw, raw + space)
    for changed in (raw.lower(), raw.upper(), raw.swapcase(), raw * 2, raw[::-1]):
        if changed != raw:
            yield changed


@pytest.mark.parametrize("kind", KINDS)
def test_a_typo_at_any_position_is_refused_by_the_checksum(kind: str) -> None:
    """CRC-32 finds every change within 32 neighbouring bits: four characters. Across the seam to the checksum, where
    that is no law, and of other lengths, every case is tried."""
    ways: dict[str, Callable[[str], Iterator[str]]] = {
        "one character": with_another_character,
        "two neighbours": with_another_pair,
        "length or case": with_another_length,
    }
    tried, passed = dict.fromkeys(ways, 0), []
    for number in range(KEYS):
        raw = minted(kind)
        assert raw_keys.public_id(kind, raw) == raw[7:17]
        for name, way in ways.items():
            if name == "two neighbours" and number:
                continue  # two hundred thousand of one key suffice
            for typo in way(raw):
                tried[name] += 1
                if raw_keys.public_id(kind, typo) is not None:
                    passed.append((raw, typo))
    assert passed == []
    told = ", ".join(f"{count:,} of {name}" for name, count in tried.items())
    what = "virtual keys" if kind == raw_keys.VIRTUAL_KEY else "management tokens"
    print(f"V5: typos in {what} at each of {LENGTH} positions refused by the checksum 100 % ({told})")


def test_four_neighbours_and_random_damage_are_found_too() -> None:
    dice = random.Random(4)
    raw = minted()
    for _ in range(50_000):
        place, count = dice.randrange(7, 46), dice.randrange(1, 5)
        fresh = "".join(dice.choices(raw_keys.ALPHABET, k=count))
        typo = raw[:place] + fresh + raw[place + count :]
        assert typo == raw or len(typo) == LENGTH
        assert typo == raw or raw_keys.public_id("vk", typo) is None


def test_a_key_is_no_token_and_a_token_no_key() -> None:
    for kind, other in (KINDS, KINDS[::-1]):
        head = f"cdt_{other}{minted(kind)[6:49]}"
        assert raw_keys.public_id(kind, head + raw_keys._checksum(head)) is None


async def test_a_mistyped_key_costs_no_query() -> None:
    asked: list[str] = []

    async def stored(public_id: str) -> tuple[int, bytes]:
        asked.append(public_id)
        return 0, NOBODY

    async def load(public_id: str) -> KeyEntry | None:
        raise AssertionError("nothing of an unproven key is read")

    cache, raw = KeyCache(load, {1: b"p" * 32}, stored), minted()
    for typo in (*with_another_character(raw), *with_another_length(raw)):
        assert await cache.find(typo) is None
    assert asked == []
    assert await cache.find(raw) is None
    assert asked == [raw[7:17]], "well-formed, it is asked for"


@pytest.mark.django_db
def test_a_mistyped_token_costs_no_query(django_assert_num_queries: Any) -> None:
    raw = minted(raw_keys.MANAGEMENT_TOKEN)
    with django_assert_num_queries(0):
        for typo in with_another_character(raw):
            assert tokens.find_token(typo) is None
    with CaptureQueriesContext(connection) as asked:
        assert tokens.find_token(raw) is None
    assert "access_managementtoken" in asked[0]["sql"], "well-formed, it is asked for"
