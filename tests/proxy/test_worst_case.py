"""The most a request can cost, in counts: never less than what a provider may count, never without end (L3, L5)."""

from __future__ import annotations

import base64
import json
import struct
import timeit
import unicodedata
import zlib
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conduit.proxy import worst_case
from conduit.proxy.dialects.registry import DIALECTS
from conduit.proxy.worst_case import PER_REQUEST, Bound, bound
from providers.adapters.base import Upstream
from providers.adapters.registry import adapter_for
from providers.adapters.types import ChatRequest, Dialect, Endpoint
from providers.catalogue import Matcher
from providers.routing import ProviderEntry, TargetEntry, aimed
from tests.proxy.byte_pairs import tokens

ENDPOINTS = {
    Dialect.OPENAI: Endpoint.CHAT,
    Dialect.RESPONSES: Endpoint.RESPONSES,
    Dialect.ANTHROPIC: Endpoint.MESSAGES,
    Dialect.GEMINI: Endpoint.GENERATE,
}
WINDOW = 128_000


def target(kind: str = "openai", window: int | None = None, most: int | None = None, **options: Any) -> TargetEntry:
    provider = ProviderEntry(
        id=uuid4(),
        name=kind,
        kind=kind,
        vendor=kind,
        base_url="https://api.example.com",
        region="",
        options=options,
        client_headers={},
        credentials=(),
        unreadable=(),
    )
    adapter = adapter_for(kind, {})
    return TargetEntry(
        provider=provider,
        model="m",
        adapter=adapter,
        native=adapter.native,
        weight=1,
        priority=0,
        max_output_tokens=most,
        context_window=window,
    )


def of(dialect: Dialect, body: Any, to: TargetEntry | None = None, endpoint: Endpoint | None = None) -> Bound:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    inbound = DIALECTS[dialect].parse(endpoint or ENDPOINTS[dialect], raw, model="m")
    return bound(inbound, to or target(dialect.value), raw)


def openai(content: Any, **more: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": content}], **more}


def anthropic(content: Any, **more: Any) -> dict[str, Any]:
    return {"model": "m", "max_tokens": 50, "messages": [{"role": "user", "content": content}], **more}


def gemini(*parts: Any, **more: Any) -> dict[str, Any]:
    return {"contents": [{"role": "user", "parts": list(parts)}], **more}


# --- text ------------------------------------------------------------------------------------------------------------

MARKERS = 6  # tokens around a turn: more than any published template takes
texts = st.one_of(
    st.text(max_size=60),
    st.text(alphabet="🙂👩‍👩‍👧‍👦🚀️‍漢字かなﷺﷻ㌖¼\U0001d160\U0001d163ʻ؀", max_size=40),
    st.text(alphabet=" \t\n\r\x0b\u00a0\u2003\u3000", max_size=60),
    st.binary(max_size=60).map(lambda raw: raw.decode("latin-1")),
    st.text(alphabet='"\\{}[]<>&/', max_size=60),
    st.sampled_from(["a" * 500, "hello " * 40, '","type":"image_url","x":"', "\\u0061" * 20]),
).map(lambda text: text.encode("utf-8", "replace").decode())
roles = st.sampled_from(["user", "assistant"])
conversations = st.lists(st.tuples(roles, texts), min_size=1, max_size=6)


def _bodies(turns: list[tuple[str, str]]) -> dict[Dialect, dict[str, Any]]:
    plain = [{"role": role, "content": text} for role, text in turns]
    google = [{"role": "model" if role == "assistant" else "user", "parts": [{"text": text}]} for role, text in turns]
    return {
        Dialect.OPENAI: {"model": "m", "messages": plain},
        Dialect.ANTHROPIC: {"model": "m", "max_tokens": 9, "messages": plain},
        Dialect.GEMINI: {"contents": google},
    }


@given(conversations, st.booleans(), st.sampled_from([(",", ":"), (", ", ": ")]))
def test_no_text_has_more_tokens_than_its_bound(
    turns: list[tuple[str, str]], ascii_only: bool, separators: tuple[str, str]
) -> None:
    counted = sum(tokens(text) + MARKERS for _, text in turns)
    normalised = sum(tokens(unicodedata.normalize("NFKC", text)) for _, text in turns)
    for dialect, body in _bodies(turns).items():
        raw = json.dumps(body, ensure_ascii=ascii_only, separators=separators).encode()
        found = of(dialect, raw)
        assert found.unbounded == ""
        assert max(counted, normalised) <= found.input_tokens - PER_REQUEST


@given(conversations, st.lists(st.tuples(st.sampled_from("abcd"), texts), max_size=4))
def test_a_translated_prompt_keeps_within_the_bound_of_what_came(
    turns: list[tuple[str, str]], functions: list[tuple[str, str]]
) -> None:
    """Whatever texts the other provider is sent, with the introduction of its tools and the markers of its turns."""
    tools = [{"type": "function", "function": {"name": name, "description": text}} for name, text in functions]
    body = {**_bodies(turns)[Dialect.OPENAI], **({"tools": tools} if tools else {})}
    raw = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
    inbound = DIALECTS[Dialect.OPENAI].parse(Endpoint.CHAT, raw)
    request = inbound.canonical()
    assert isinstance(request, ChatRequest)
    for kind in ("openai", "anthropic", "gemini"):
        upstream = Upstream(base_url="https://x", model="m", secrets={"api_key": "k"}, max_output_tokens=9)
        sent = json.loads(adapter_for(kind, {}).build_request(request, upstream).body)
        prompt = [sent.get(name) for name in ("system", "messages", "contents", "systemInstruction")]
        rendered = sum(tokens(text) for text in _strings(prompt)) + MARKERS * len(turns)
        introduced = sum(tokens(json.dumps(tool)) for tool in sent.get("tools", ()))
        assert rendered + introduced <= bound(inbound, target(kind), raw).input_tokens


def _strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for name, item in value.items() if name not in ("role", "type") for text in _strings(item)]
    return [text for item in value or () for text in _strings(item)] if isinstance(value, list) else []


def test_an_escaped_text_is_bounded_by_the_text_and_not_by_its_escapes() -> None:
    text = "漢字" * 200  # 6 bytes in UTF-8 where the escapes take 12
    escaped, plain = (json.dumps(openai(text), ensure_ascii=ascii_only).encode() for ascii_only in (True, False))
    assert of(Dialect.OPENAI, escaped).input_tokens < len(plain) + PER_REQUEST <= len(escaped)


def test_a_character_that_normalisation_makes_longer_counts_as_the_longer_one() -> None:
    ligature = "\ufdfa"  # 3 bytes, 33 once normalised
    for ascii_only in (True, False):
        raw = json.dumps(openai(ligature * 100), ensure_ascii=ascii_only).encode()
        assert of(Dialect.OPENAI, raw).input_tokens >= 33 * 100


def test_the_context_window_bounds_a_prompt_whatever_its_bytes() -> None:
    for dialect, body in _bodies([("user", "x " * 200_000)]).items():
        assert of(dialect, body, target(dialect.value, WINDOW)).input_tokens == WINDOW
        assert of(dialect, body).input_tokens > 400_000


def test_a_wider_window_that_the_client_opens_counts() -> None:
    raw = json.dumps(anthropic("x " * 400_000)).encode()
    inbound = DIALECTS[Dialect.ANTHROPIC].parse(Endpoint.MESSAGES, raw)
    narrow = target("anthropic", 200_000)
    assert bound(inbound, narrow, raw).input_tokens == 200_000
    assert bound(inbound, narrow, raw, beta="tools-1,context-1m-2025-08-07").input_tokens > 800_000
    opened = target("anthropic", 200_000, anthropic_beta="context-1m-2025-08-07")
    assert bound(inbound, opened, raw).input_tokens > 800_000


def test_embeddings_are_input_only_and_each_has_the_window_to_itself() -> None:
    body = {"model": "m", "input": ["x " * 20_000] * 3}
    assert of(Dialect.OPENAI, body, target(window=8_000), Endpoint.EMBEDDINGS) == Bound(
        input_tokens=24_000, output_tokens=0
    )
    listed = of(Dialect.OPENAI, {"model": "m", "input": [[1, 2, 3]]}, None, Endpoint.EMBEDDINGS)
    assert listed.input_tokens >= 3
    body = {"content": {"parts": [{"inlineData": {"mimeType": "video/mp4", "data": "AAAA"}}]}}
    assert of(Dialect.GEMINI, body, target("gemini", 8_000), Endpoint.EMBEDDINGS).input_tokens == 8_000
    assert of(Dialect.GEMINI, body, target("gemini"), Endpoint.EMBEDDINGS).unbounded


# --- output ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "most", "expected"),
    [
        ({}, None, (None, 1, 0)),
        ({}, 400, (400, 1, 0)),
        ({"max_tokens": 30}, 400, (30, 1, 0)),
        ({"max_tokens": 30, "max_completion_tokens": 20, "n": 3}, 400, (20, 3, 0)),
        ({"max_tokens": 3_000}, 400, (400, 1, 0)),
        ({"max_tokens": 30, "n": 2, "best_of": 5}, None, (30, 5, 0)),
        ({"max_tokens": 30, "best_of": None}, None, (30, 1, 0)),
        ({"max_tokens": 30, "enable_thinking": True, "thinking_budget": 500}, None, (530, 1, 500)),
        ({"max_tokens": 30, "n_predict": 20, "max_new_tokens": 25}, None, (20, 1, 0)),
    ],
)
def test_output_is_bounded_by_the_caller_and_the_model_times_the_choices(
    fields: dict[str, Any], most: int | None, expected: tuple[int | None, int, int]
) -> None:
    found = of(Dialect.OPENAI, openai("x", **fields), target(most=most))
    assert (found.output_tokens, found.n, found.beyond_cap) == expected


def test_a_prediction_comes_on_top_of_the_cap() -> None:
    prediction = {"type": "content", "content": "word " * 100}
    found = of(Dialect.OPENAI, openai("x", max_tokens=30, prediction=prediction))
    assert found.beyond_cap >= 500
    assert found.output_tokens == 30 + found.beyond_cap
    assert of(Dialect.OPENAI, openai("x", prediction=prediction)).beyond_cap >= 500
    assert of(Dialect.OPENAI, openai("x", max_tokens=30, prediction=prediction), target("anthropic")).beyond_cap == 0


def test_gemini_counts_its_candidates_in_either_spelling() -> None:
    for config in ({"maxOutputTokens": 7, "candidateCount": 4}, {"max_output_tokens": 7, "candidate_count": 4}):
        found = of(Dialect.GEMINI, gemini({"text": "x"}, generationConfig=config))
        assert (found.output_tokens, found.n) == (7, 4)


# --- media -----------------------------------------------------------------------------------------------------------


def png(width: int, height: int) -> str:
    """A picture of one colour: a few bytes, whatever its size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes((width + 15) // 8 + 1) * height, 9)
    picture = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    return base64.b64encode(picture).decode()


def wav(rate: int = 16_000, seconds: int = 2) -> str:
    head = b"RIFF" + struct.pack("<I", 36) + b"WAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 1, rate, rate * 2, 2, 16)
    return base64.b64encode(head + b"data" + struct.pack("<I", 0) + bytes(rate * 2 * seconds)).decode()


SMALL = png(1000, 1000)
PICTURES = {
    Dialect.OPENAI: openai([{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{SMALL}"}}]),
    Dialect.ANTHROPIC: anthropic(
        [{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": SMALL}}]
    ),
    Dialect.GEMINI: gemini({"inlineData": {"mimeType": "image/png", "data": SMALL}}),
}


@pytest.mark.parametrize("dialect", list(PICTURES))
@pytest.mark.parametrize(("kind", "most"), [("openai", 48_169), ("anthropic", 4_784), ("gemini", 2_240)])
def test_a_picture_counts_as_much_as_its_provider_may_ask_and_its_bytes_do_not(
    dialect: Dialect, kind: str, most: int
) -> None:
    found = of(dialect, PICTURES[dialect], target(kind))
    assert found.unbounded == ""
    assert most < found.input_tokens < most + PER_REQUEST + 300


def test_a_picture_of_few_bytes_and_many_pixels_counts_its_tiles() -> None:
    # Tiles of 768: 14 x 14 and one of the whole, 258 tokens each; a strip's tiles are as small as 256.
    large = gemini({"inlineData": {"mimeType": "image/png", "data": png(10_000, 10_000)}})
    assert of(Dialect.GEMINI, large).input_tokens > (14 * 14 + 1) * 258
    strip = gemini({"inline_data": {"mime_type": "image/png", "data": png(20_000, 100)}})
    assert of(Dialect.GEMINI, strip).input_tokens > (79 + 1) * 258


@pytest.mark.parametrize("head", ["gif", "webp", "jpeg"])
def test_the_size_is_read_from_every_usual_format(head: str) -> None:
    data = {
        "gif": b"GIF89a" + struct.pack("<HH", 5000, 3000),
        "webp": b"RIFF\0\0\0\0WEBPVP8X" + bytes(8) + (4999).to_bytes(3, "little") + (2999).to_bytes(3, "little"),
        "jpeg": b"\xff\xd8\xff\xe0\x00\x10" + bytes(14) + b"\xff\xc2\x00\x11\x08" + struct.pack(">HH", 3000, 5000),
    }[head]
    body = gemini({"inlineData": {"mimeType": f"image/{head}", "data": base64.b64encode(data).decode()}})
    tiles = 7 * 4 + 1  # of 768
    assert tiles * 258 < of(Dialect.GEMINI, body).input_tokens < tiles * 258 + PER_REQUEST + 200


def test_detail_low_counts_less_where_the_provider_knows_it() -> None:
    low = openai([{"type": "image_url", "image_url": {"url": "https://example.com/a.png", "detail": "low"}}])
    assert 2_833 < of(Dialect.OPENAI, low).input_tokens < 4_000
    assert of(Dialect.OPENAI, low, target("anthropic")).input_tokens > 4_784


def test_pictures_in_results_of_tools_count() -> None:
    block = PICTURES[Dialect.ANTHROPIC]["messages"][0]["content"][0]
    nested = anthropic([{"type": "tool_result", "tool_use_id": "t", "content": [block, block]}])
    assert 2 * 4_784 < of(Dialect.ANTHROPIC, nested).input_tokens < 2 * 4_784 + 1_000
    part = PICTURES[Dialect.GEMINI]["contents"][0]["parts"][0]
    answered = gemini({"functionResponse": {"name": "f", "response": {}, "parts": [part, part]}})
    assert 2 * 2_240 < of(Dialect.GEMINI, answered).input_tokens < 2 * 2_240 + 1_000


def test_a_name_hidden_behind_an_escape_is_found() -> None:
    raw = json.dumps(PICTURES[Dialect.OPENAI]).replace('"type"', '"typ\\u0065"').encode()
    assert of(Dialect.OPENAI, raw).input_tokens > 48_169
    raw = json.dumps(PICTURES[Dialect.GEMINI]).replace("inlineData", "inl\\u0069neData").encode()
    assert of(Dialect.GEMINI, raw).input_tokens > 2_240


@pytest.mark.parametrize("kind", ["wav", "mp3"])
def test_a_recording_is_bounded_by_its_bytes(kind: str) -> None:
    data = wav() if kind == "wav" else base64.b64encode(bytes(5_000)).decode()
    body = openai([{"type": "input_audio", "input_audio": {"data": data, "format": kind}}])
    found = of(Dialect.OPENAI, body, target(window=10**6))
    assert len(data) < found.input_tokens < len(data) + PER_REQUEST + 200


ONLY_THE_WINDOW: list[tuple[Dialect, dict[str, Any], str]] = [
    (Dialect.OPENAI, openai([{"type": "file", "file": {"file_data": "data:application/pdf;base64,AAAA"}}]), "openai"),
    (Dialect.OPENAI, openai([{"type": "file", "file": {"file_id": "file-1"}}]), "openai"),
    (Dialect.OPENAI, openai([{"type": "video_url", "video_url": {"url": "https://example.com/a"}}]), "custom"),
    (Dialect.OPENAI, openai([{"type": "input_audio", "input_audio": {"data": wav(4), "format": "wav"}}]), "openai"),
    (Dialect.OPENAI, openai([{"type": "input_audio", "input_audio": {"data": "AAAA", "format": "flac"}}]), "gemini"),
    (Dialect.OPENAI, openai([{"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}]), "gemini"),
    (Dialect.OPENAI, {"model": "m", "messages": [{"role": "assistant", "audio": {"id": "audio_1"}}]}, "openai"),
    (Dialect.OPENAI, openai("x", chat_template="{{ messages }}"), "custom"),
    (
        Dialect.ANTHROPIC,
        anthropic([{"type": "document", "source": {"type": "url", "url": "https://x/a"}}]),
        "anthropic",
    ),
    (Dialect.ANTHROPIC, anthropic([{"type": "document", "source": {"type": "file", "file_id": "f"}}]), "anthropic"),
    (Dialect.ANTHROPIC, anthropic([{"type": "container_upload", "file_id": "f"}]), "anthropic"),
    (Dialect.ANTHROPIC, anthropic("x", tools=[{"type": "computer_toolset_20260801", "name": "c"}]), "anthropic"),
    (Dialect.GEMINI, gemini({"fileData": {"fileUri": "https://example.com/a", "mimeType": "video/mp4"}}), "gemini"),
    (Dialect.GEMINI, gemini({"inlineData": {"mimeType": "application/pdf", "data": "AAAA"}}), "gemini"),
    (Dialect.GEMINI, gemini({"inlineData": {"mimeType": "image/png", "data": "AAAA"}}), "gemini"),
    (Dialect.GEMINI, gemini({"newKindOfPart": {"uri": "x"}}), "gemini"),
    (Dialect.GEMINI, gemini({"text": "x"}, cachedContent="cachedContents/1"), "gemini"),
]


@pytest.mark.parametrize(("dialect", "body", "kind"), ONLY_THE_WINDOW)
def test_what_has_no_bound_of_its_own_counts_as_the_whole_window(
    dialect: Dialect, body: dict[str, Any], kind: str
) -> None:
    known = of(dialect, body, target(kind, WINDOW))
    assert (known.input_tokens, known.unbounded) == (WINDOW, "")
    assert "window is unknown" in of(dialect, body, target(kind)).unbounded


def test_a_document_that_is_text_counts_as_text() -> None:
    source = {"type": "text", "media_type": "text/plain", "data": "words " * 50}
    found = of(Dialect.ANTHROPIC, anthropic([{"type": "document", "source": source}]))
    assert (found.unbounded, found.input_tokens < 800) == ("", True)


# --- tools the provider runs -----------------------------------------------------------------------------------------

UNBOUNDED: list[tuple[Dialect, dict[str, Any], str, str]] = [
    (Dialect.OPENAI, openai("x", web_search_options={}), "openai", "web_search_options"),
    (Dialect.OPENAI, openai("x", tools=[{"type": "web_search"}]), "openai", "web_search"),
    (Dialect.OPENAI, openai("x", search_parameters={"mode": "on"}), "custom", "search_parameters"),
    (Dialect.OPENAI, openai("x", plugins=[{"id": "web"}]), "custom", "plugins"),
    (Dialect.OPENAI, openai("x", models=["other"]), "custom", "another model"),
    (Dialect.OPENAI, openai("x", models=["a/dear-one"]), "openrouter", "another model"),
    (Dialect.OPENAI, openai("x", provider={"order": ["dear"]}), "openrouter", "dearer vendor"),
    (Dialect.OPENAI, openai("x", enable_thinking=True), "custom", "thinking_budget"),
    (Dialect.OPENAI, openai("x", best_of=1e3), "custom", "best_of"),
    (Dialect.OPENAI, openai("x", service_tier="priority"), "openai", "priority"),
    (Dialect.OPENAI, openai("x", service_tier="priority"), "custom", "priority"),
    (
        Dialect.ANTHROPIC,
        anthropic("x", tools=[{"type": "web_search_20250305", "name": "web_search"}]),
        "anthropic",
        "s",
    ),
    (
        Dialect.ANTHROPIC,
        anthropic("x", tools=[{"type": "code_execution_20250825", "name": "c"}]),
        "anthropic",
        "tool c",
    ),
    (Dialect.ANTHROPIC, anthropic("x", tools=[{"type": "mcp_toolset", "name": "m"}]), "anthropic", "tool m"),
    (Dialect.ANTHROPIC, anthropic("x", mcp_servers=[{"url": "https://x"}]), "anthropic", "mcp_servers"),
    (Dialect.ANTHROPIC, anthropic("x", speed="fast"), "anthropic", "speed"),
    (Dialect.ANTHROPIC, anthropic("x", inference_geo="us"), "anthropic", "inference_geo"),
    (Dialect.GEMINI, gemini({"text": "x"}, tools=[{"googleSearch": {}}]), "gemini", "googleSearch"),
    (Dialect.GEMINI, gemini({"text": "x"}, tools=[{"google_search": {}}]), "gemini", "googleSearch"),
    (Dialect.GEMINI, gemini({"text": "x"}, tools=[{"codeExecution": {}}]), "gemini", "codeExecution"),
    (Dialect.GEMINI, gemini({"text": "x"}, tools=[{"urlContext": {}}]), "gemini", "urlContext"),
]


@pytest.mark.parametrize(("dialect", "body", "kind", "words"), UNBOUNDED)
def test_what_nothing_bounds_says_so_in_words(dialect: Dialect, body: dict[str, Any], kind: str, words: str) -> None:
    assert words in of(dialect, body, target(kind, WINDOW)).unbounded


SPENDING = [
    ("perplexity", "sonar-deep-research", "deep research"),
    ("perplexity", "Sonar-Deep-Research", "deep research"),
    ("perplexity", "sonar-pro-search", "searches any number"),
    ("perplexity", "perplexity/sonar", "Agent API"),
    ("openrouter", "perplexity/sonar-deep-research", "deep research"),
    ("openrouter", "perplexity/sonar-pro", "Perplexity"),  # its fee is in no price list
    ("openrouter", "openai/gpt-4o:online", ":online"),
    ("openrouter", "openai/o3-deep-research", "deep research"),
    ("openrouter", "openai/gpt-4o-search-preview", "searches any number"),
    ("openrouter", "x-ai/grok-4.20-multi-agent", "several agents"),
    ("openrouter", "openrouter/auto", "any price"),
    ("openai", "gpt-4o-mini-search-preview-2025-03-11", "searches any number"),
    ("openai", "gpt-5-search-api", "searches any number"),
    ("xai", "grok-4.20-multi-agent-0309", "several agents"),
    ("groq", "groq/compound-mini", "compound system"),
]


@pytest.mark.parametrize(("kind", "model", "words"), SPENDING)
def test_a_model_that_spends_by_itself_is_unbounded_however_plain_the_request(
    kind: str, model: str, words: str
) -> None:
    known = Matcher([], {})
    chosen = aimed(target(kind, WINDOW), model, known)
    assert words in of(Dialect.OPENAI, openai("x", max_tokens=50), chosen).unbounded
    claude = of(Dialect.ANTHROPIC, anthropic("x"), chosen)
    assert words in claude.unbounded, "whatever dialect asks it"


@pytest.mark.parametrize(
    ("kind", "model"),
    [
        ("perplexity", "sonar"),
        ("perplexity", "sonar-reasoning-pro"),
        ("openrouter", "anthropic/claude-sonnet-4.5"),
        ("openai", "gpt-4o"),
        ("openai", "o3-deep-research"),  # searches by tools, which the request names and bounds
        ("xai", "grok-4"),
        ("groq", "openai/gpt-oss-120b"),
    ],
)
def test_other_models_of_the_same_vendors_are_bounded(kind: str, model: str) -> None:
    chosen = aimed(target(kind, WINDOW), model, Matcher([], {}))
    assert of(Dialect.OPENAI, openai("x", max_tokens=50), chosen).unbounded == ""


@pytest.mark.parametrize(("dialect", "body", "kind", "words"), UNBOUNDED)
def test_a_provider_of_another_wire_format_is_not_sent_it(
    dialect: Dialect, body: dict[str, Any], kind: str, words: str
) -> None:
    other = "anthropic" if dialect is not Dialect.ANTHROPIC else "gemini"
    tier = "service_tier" in body  # which does travel
    assert bool(of(dialect, body, target(other, WINDOW)).unbounded) is tier


def test_a_search_that_may_run_so_often_is_sold_so_often_and_read_each_time() -> None:
    tools = [
        {"type": "web_search_20250305", "name": "web_search", "max_uses": 3},
        {"type": "web_fetch_20250910", "name": "web_fetch", "max_uses": 2},
    ]
    body = anthropic("x", tools=tools)
    found = of(Dialect.ANTHROPIC, body, target("anthropic", WINDOW))
    assert found == Bound(input_tokens=6 * WINDOW, output_tokens=50, n=6, units={"search": 3})
    assert "window is unknown" in of(Dialect.ANTHROPIC, body).unbounded


@pytest.mark.parametrize("uses", [0, -1, 2.5, "3", True, 10**9, None])
def test_a_number_of_uses_that_is_none_bounds_nothing(uses: Any) -> None:
    tools = [{"type": "web_search_20250305", "name": "web_search", "max_uses": uses}]
    assert "without max_uses" in of(Dialect.ANTHROPIC, anthropic("x", tools=tools)).unbounded


def test_functions_and_the_clients_own_tools_are_bounded() -> None:
    function = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    client = [{"type": "bash_20250124", "name": "bash"}, {"type": "text_editor_20250728", "name": "edit"}]
    declared = [{"functionDeclarations": [{"name": "f"}]}]
    for found in (
        of(Dialect.OPENAI, openai("x", tools=[function, {"type": "custom", "custom": {"name": "c"}}])),
        of(Dialect.OPENAI, openai("x", functions=[{"name": "f"}])),
        of(Dialect.ANTHROPIC, anthropic("x", tools=[{"name": "f", "input_schema": {"type": "object"}}, *client])),
        of(Dialect.GEMINI, gemini({"text": "x"}, tools=declared)),
    ):
        assert found.unbounded == ""
        assert worst_case.WITH_TOOLS + worst_case.PER_TOOL < found.input_tokens < 8_000


# --- cost of asking --------------------------------------------------------------------------------------------------


def test_an_ordinary_request_is_bounded_faster_than_it_is_parsed() -> None:
    raw = json.dumps(openai("hello big world " * 30, max_tokens=50, temperature=0.2)).encode()
    dialect, chosen = DIALECTS[Dialect.OPENAI], target(window=WINDOW)
    inbound = dialect.parse(Endpoint.CHAT, raw)
    ours = min(timeit.repeat(lambda: bound(inbound, chosen, raw), number=500, repeat=9))
    theirs = min(timeit.repeat(lambda: dialect.parse(Endpoint.CHAT, raw), number=500, repeat=9))
    assert ours < 1.5 * theirs


SCHEMA: dict[str, Any] = {"type": "json_schema", "json_schema": {"name": "place", "schema": {"type": "object"}}}
CALLED: list[dict[str, Any]] = [
    {"role": "user", "content": "x"},
    {
        "role": "assistant",
        "tool_calls": [{"id": "c", "type": "function", "function": {"name": "weather", "arguments": "{}"}}],
    },
    {"role": "tool", "tool_call_id": "c", "content": "sunny"},
]


@pytest.mark.parametrize("body", [openai("x", response_format=SCHEMA), {**openai("x"), "messages": CALLED}])
def test_tools_that_the_adapter_offers_by_itself_are_paid_for(body: dict[str, Any]) -> None:
    """Converse is told of a tool where a schema is to be followed, or where earlier turns called one."""
    to_openai, to_bedrock = (of(Dialect.OPENAI, body, target(kind)).input_tokens for kind in ("openai", "bedrock"))
    assert to_bedrock >= to_openai + 1_000
    plain = [of(Dialect.OPENAI, openai("x"), target(kind)).input_tokens for kind in ("openai", "bedrock")]
    assert plain[0] == plain[1]
