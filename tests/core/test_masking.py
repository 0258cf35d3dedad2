"""What a provider quotes of the key that it refuses is masked, however it writes or cuts it."""

from __future__ import annotations

import html
import json
import string
from urllib.parse import quote

from hypothesis import example, given
from hypothesis import strategies as st

from conduit.core.secret import Secret, mask

ODD = "sk-abcdefghijklmnop/qrst+uvwx=\"\\<&'>%4711"
KEYS = st.text(string.ascii_letters + string.digits + "-_+/=.", min_size=24, max_size=64)


def test_a_quoted_secret_shows_its_hint_only() -> None:
    assert mask(f"Incorrect API key provided: {ODD}.", [Secret(ODD)]) == "Incorrect API key provided: sk-…4711."


def test_every_way_to_write_it_is_masked() -> None:
    ways = [quote(ODD), quote(ODD, safe=""), json.dumps(ODD), json.dumps(ODD).replace("/", "\\/"), html.escape(ODD)]
    for way in [*ways, " ".join(html.unescape(ODD).split("<&'>")), json.dumps(json.dumps(ODD)), ODD.replace("+", " ")]:
        assert "abcdefgh" not in mask(f"for {way} only", [Secret(ODD)]), way


@given(KEYS, st.integers(0, 64), st.sampled_from(["", "…", "."]))
@example("x" * 40, 40, "…")
def test_a_message_that_is_cut_within_the_secret_keeps_no_more_than_a_prefix(key: str, cut: int, end: str) -> None:
    shown = mask(f"The key {key[:cut]}{end}", [Secret(key)])
    assert key[:12] not in shown
    assert shown.startswith("The key ")


def test_short_secrets_and_other_words_stay() -> None:
    text = "The model gpt-4o does not exist for the organization of this key"
    assert mask(text, [Secret("none"), Secret(ODD), Secret("key-of-another-account")]) == text
