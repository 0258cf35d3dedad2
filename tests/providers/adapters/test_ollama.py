"""Ollama's own API: what requests say, read by the `ollama` package's types, and what answers and streams mean."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

import msgspec
import pytest
from ollama import _types as ollama

from providers import errors
from providers.adapters.base import Head, Upstream
from providers.adapters.registry import KINDS, adapter_for
from providers.adapters.types import (
    Audio,
    ChatRequest,
    ChatResponse,
    Choice,
    Dialect,
    Document,
    EmbeddingRequest,
    EmbeddingResponse,
    Endpoint,
    Image,
    Media,
    Message,
    Opaque,
    Part,
    Reasoning,
    ReasoningSettings,
    ResponseFormat,
    ServerTool,
    Text,
    TokenLogprob,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
    Usage,
)
from tests.conformance.wires import ollama as wire
from tests.providers.adapters.assembly import assemble, parse_in_pieces

ADAPTER = adapter_for("ollama", {})
PNG = base64.b64encode(b"\x89PNG").decode()
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS = (Tool(name="weather", description="Weather of a city", parameters=SCHEMA), Tool(name="tides"))


def user(*parts: Part) -> Message:
    return Message(role="user", parts=parts or (Text(text="Hello"),))


def asking(*messages: Message, **settings: Any) -> ChatRequest:
    return ChatRequest(model="r", messages=messages or (user(),), **settings)


def upstream(cap: int | None = None, secrets: Any = None, **options: Any) -> Upstream:
    return Upstream(
        base_url="http://127.0.0.1:11434",
        model="qwen3",
        secrets=secrets or {},
        options=options,
        max_output_tokens=cap,
    )


def built(request: ChatRequest, **settings: Any) -> tuple[dict[str, Any], dict[str, Any], tuple[str, ...]]:
    """(what the SDK's types read in it, the body, what was dropped)"""
    made = ADAPTER.build_request(request, upstream(**settings))
    return wire.facts(made), json.loads(made.body), made.dropped


def test_a_conversation_says_the_same_in_its_words() -> None:
    request = asking(
        Message(role="system", parts=(Text(text="Be kind."),)),
        user(Text(text="Look."), Image(source=Media(mime="image/png", data=PNG))),
        Message(
            role="assistant",
            parts=(
                Reasoning(text="They ask for weather."),
                Text(text="One moment."),
                ToolCall(id="c1", name="weather", arguments='{"city": "Paris"}'),
                ToolCall(id="c2", name="tides", arguments=""),
            ),
        ),
        Message(role="tool", parts=(ToolResult("c1", (Text(text="sunny"),)), ToolResult("c2", (Text(text="high"),)))),
        tools=TOOLS,
    )
    facts, body, dropped = built(request)
    assert facts["system"] == "Be kind."
    assert facts["texts"] == ["Look.", "One moment."]
    assert facts["images"] == 1
    assert facts["calls"] == [("weather", {"city": "Paris"}), ("tides", {})]
    assert facts["results"] == ["sunny", "high"]
    assert facts["tools"] == ["weather", "tides"]
    assert body["messages"][2]["thinking"] == "They ask for weather."
    results = body["messages"][3:]
    assert [(found["tool_name"], found["tool_call_id"]) for found in results] == [("weather", "c1"), ("tides", "c2")]
    assert ollama.ChatRequest.model_validate(body).messages is not None
    assert dropped == ()


def test_settings_become_options_with_one_cap_and_the_operators_own() -> None:
    request = asking(
        max_output_tokens=50,
        temperature=0.5,
        top_p=0.9,
        top_k=40,
        seed=7,
        stop=("END",),
        presence_penalty=0.5,
        frequency_penalty=0.25,
        logprobs=True,
        top_logprobs=2,
        stream=True,
        extra={"min_p": 0.1, "num_ctx": 10**9, "num_predict": 10**9, "keep_alive": -1},
        extra_dialect=Dialect.OPENAI,
    )
    facts, body, dropped = built(request, cap=9, num_ctx="8192", keep_alive="24h")
    assert (facts["cap"], facts["temperature"], facts["penalties"]) == (9, 0.5, [0.5, 0.25])
    assert (facts["seed"], facts["stop"], facts["logprobs"], facts["stream"]) == (7, ["END"], True, True)
    assert body["options"]["num_ctx"] == 8192
    assert (body["options"]["top_k"], body["options"]["min_p"], body["top_logprobs"]) == (40, 0.1, 2)
    assert body["keep_alive"] == "24h"
    assert dropped == ("num_ctx", "num_predict", "keep_alive")  # a client loads no model its own way
    assert built(request)[1]["options"]["num_predict"] == 50


@pytest.mark.parametrize(
    ("settings", "think", "dropped"),
    [
        (ReasoningSettings(effort="high"), "high", ()),
        (ReasoningSettings(effort="minimal"), "low", ()),
        (ReasoningSettings(effort="xhigh"), "high", ()),
        (ReasoningSettings(effort="none"), False, ()),
        (ReasoningSettings(off=True), False, ()),
        (ReasoningSettings(budget_tokens=2000), "low", ("reasoning.budget_tokens",)),
        (ReasoningSettings(budget_tokens=50_000), "high", ("reasoning.budget_tokens",)),
        (ReasoningSettings(adaptive=True, show=False), True, ("reasoning.show",)),
        (ReasoningSettings(show=True), True, ()),
        (ReasoningSettings(), None, ()),
    ],
)
def test_thinking_is_a_word_or_a_yes_or_no(settings: ReasoningSettings, think: Any, dropped: tuple[str, ...]) -> None:
    _, body, told = built(asking(reasoning=settings))
    assert (body.get("think"), told) == (think, dropped)


@pytest.mark.parametrize(
    ("wanted", "written"),
    [
        (ResponseFormat(kind="json_schema", schema=SCHEMA), SCHEMA),
        (ResponseFormat(kind="json"), "json"),
        (ResponseFormat(kind="text"), None),
    ],
)
def test_a_format_is_a_schema_or_a_word(wanted: ResponseFormat, written: Any) -> None:
    assert built(asking(response_format=wanted))[1].get("format") == written


@pytest.mark.parametrize(
    ("choice", "offered", "dropped"),
    [
        (None, ["weather", "tides"], ()),
        (ToolChoice("auto"), ["weather", "tides"], ()),
        (ToolChoice("auto", allowed=("tides",)), ["tides"], ()),
        (ToolChoice("none"), None, ()),
        (ToolChoice("required"), ["weather", "tides"], ("tool_choice",)),
        (ToolChoice("tool", name="tides"), ["tides"], ("tool_choice",)),
    ],
)
def test_tools_that_must_not_be_called_are_not_offered(choice: Any, offered: Any, dropped: tuple[str, ...]) -> None:
    facts, _, told = built(asking(tools=TOOLS, tool_choice=choice))
    assert (facts.get("tools"), told) == (offered, dropped)


def test_what_has_no_counterpart_is_named() -> None:
    thought = Reasoning(text="Hm.", signature="c2ln")
    result = ToolResult("c1", (Text(text="no"),), error=True)
    request = asking(
        Message(role="user", parts=(Text(text="Hi"), Opaque(Dialect.ANTHROPIC, {})), name="alice"),
        Message(role="assistant", parts=(thought, Reasoning(redacted="x"), ToolCall(id="c1", name="a", arguments="7"))),
        Message(role="tool", parts=(result,)),
        tools=(ServerTool(Dialect.OPENAI, {"type": "web_search"}), Tool(name="a", strict=True)),
        parallel_tools=False,
        n=2,
        logit_bias={"1": 1.0},
        user="bob",
        verbosity="low",
        service_tier="flex",
        metadata={"a": "b"},
        store=True,
        modalities=("text", "audio"),
    )
    facts, _, dropped = built(request)
    assert set(dropped) == {
        "messages.name",
        "messages.content",
        "messages.reasoning.signature",
        "messages.reasoning",
        "messages.tool_result.error",
        "tools",
        "tools.strict",
        "parallel_tool_calls",
        "n",
        "logit_bias",
        "user",
        "verbosity",
        "service_tier",
        "metadata",
        "store",
        "modalities",
    }
    assert facts["calls"] == [("a", {"arguments": "7"})]


@pytest.mark.parametrize(
    ("part", "field"),
    [
        (Image(source=Media(url="https://example.org/cat.png")), "messages.image"),
        (Image(source=Media(file_id="f-1")), "messages.image"),
        (Audio(source=Media(data=PNG), format="wav"), "messages.audio"),
        (Document(source=Media(mime="application/pdf", data=PNG)), "messages.document"),
    ],
)
def test_media_it_cannot_take_is_refused_by_field(part: Part, field: str) -> None:
    with pytest.raises(errors.CannotCarry, match="Ollama") as refused:
        ADAPTER.build_request(asking(user(part)), upstream())
    assert refused.value.field == field


def test_a_document_of_plain_text_is_read_with_its_title() -> None:
    document = Document(source=Media(), title="Rules", text="Be kind.", citations=True)
    facts, _, dropped = built(asking(user(document, Text(text="Sum up."))))
    assert facts["texts"] == ["Rules\n\nBe kind.\n\nSum up."]
    assert dropped == ("messages.document.citations",)


# --- answers and streams ------------------------------------------------------------------------------------------

TOKENS = (TokenLogprob("Yes", -0.25, bytes=(89, 101, 115), top=(TokenLogprob("No", -1.5),)), TokenLogprob("!", -0.5))
ANSWERS = {
    "text": Choice(parts=(Text(text="It is sunny. ünïcode 🙂"),)),
    "thinking": Choice(parts=(Reasoning(text="Paris…"), Text(text="Sunny."))),
    "calls": Choice(
        parts=(Text(text="So:"), ToolCall("c1", "weather", '{"city":"Paris"}'), ToolCall("c2", "tides", "{}")),
        finish="tool_calls",
    ),
    "cut": Choice(parts=(Text(text="It is"),), finish="length"),
    "logprobs": Choice(parts=(Text(text="Yes!"),), logprobs=TOKENS),
}


def answer_of(name: str) -> ChatResponse:
    usage = Usage(input_tokens=100, output_tokens=20)
    return ChatResponse(id="x", model="qwen3", choices=(ANSWERS[name],), usage=usage)


def comparable(answer: ChatResponse) -> list[Any]:
    """Arguments as values: they are an object on the wire."""
    parts = [
        (part.id, part.name, json.loads(part.arguments)) if isinstance(part, ToolCall) else part
        for part in answer.choices[0].parts
    ]
    return [answer.model, answer.usage, answer.choices[0].finish, parts]


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_is_read_whole_and_streamed_alike_wherever_it_is_cut(name: str) -> None:
    said = answer_of(name)
    whole = ADAPTER.parse_response(asking(), wire.whole(said))
    assert isinstance(whole, ChatResponse)
    assert comparable(whole) == comparable(said)
    assert whole.choices[0].logprobs == said.choices[0].logprobs
    assert whole.created == 1767323045  # date -u -d 2026-01-02T03:04:05Z +%s
    stream = wire.stream(said)
    events = parse_in_pieces(ADAPTER.stream_parser(asking()), stream, len(stream))
    streamed = assemble(events)
    assert comparable(streamed) == comparable(said)
    assert (streamed.id, streamed.created) == (whole.id, whole.created)
    for at in range(len(stream)):
        parser = ADAPTER.stream_parser(asking())
        assert parser.feed(stream[:at]) + parser.feed(stream[at:]) + parser.close() == events
    assert parse_in_pieces(ADAPTER.stream_parser(asking()), stream.rstrip(b"\n"), 1) == events


def test_calls_without_ids_get_ones_that_stay_and_differ() -> None:
    told = json.loads(wire.whole(answer_of("calls")))
    for call in told["message"]["tool_calls"]:
        del call["id"]
    told["message"]["tool_calls"].append(told["message"]["tool_calls"][1])

    def ids(body: bytes) -> list[str]:
        read = ADAPTER.parse_response(asking(), body)
        assert isinstance(read, ChatResponse)
        return [part.id for part in read.choices[0].parts if isinstance(part, ToolCall)]

    first = ids(json.dumps(told).encode())
    assert len(set(first)) == 3
    assert ids(json.dumps(told).encode()) == first
    told["created_at"] = "2026-01-02T03:04:06Z"
    assert not set(ids(json.dumps(told).encode())) & set(first)


@pytest.mark.parametrize("cut", [0, 1, 40, 300])
def test_a_stream_without_its_last_line_is_told_apart(cut: int) -> None:
    stream = wire.stream(answer_of("text"))
    parser = ADAPTER.stream_parser(asking())
    parser.feed(stream[:cut])
    with pytest.raises(errors.UpstreamCut):
        parser.close()


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_an_error_in_a_stream_comes_after_the_good_lines(size: int) -> None:
    good = wire.stream(answer_of("text")).splitlines(keepends=True)[:2]
    stream = b"".join(good) + b'{"error":"model runner has unexpectedly stopped"}\n'
    parser, seen = ADAPTER.stream_parser(asking()), list[Any]()

    def read() -> None:
        for at in range(0, len(stream) + size, size):
            seen.extend(parser.feed(stream[at : at + size]))

    with pytest.raises(errors.Overloaded, match="unexpectedly stopped"):
        read()
    assert len(seen) == 3  # Started and two pieces of text
    with pytest.raises(errors.UpstreamError):
        parser.close()


@pytest.mark.parametrize("body", [b"", b"[]", b"<html>", b"\xff", b"{}", b'{"message":{"content":"a"},"done":false}'])
def test_rubbish_is_no_answer(body: bytes) -> None:
    with pytest.raises(errors.InvalidResponse):
        ADAPTER.parse_response(asking(), body)
    if body:
        with pytest.raises((errors.InvalidResponse, errors.UpstreamCut)):
            parse_in_pieces(ADAPTER.stream_parser(asking()), body + b"\n", 1)


def test_a_line_without_end_is_bounded() -> None:
    parser = ADAPTER.stream_parser(asking())
    for _ in range(10):
        parser.feed(b"x" * 100_000)
    with pytest.raises(errors.InvalidResponse, match="line too long"):
        parser.feed(b"x" * 100_000)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, errors.RequestRejected),
        (404, errors.RequestRejected),
        (401, errors.AuthRejected),
        (429, errors.RateLimited),
        (500, errors.Overloaded),
        (503, errors.Overloaded),
    ],
)
def test_their_errors_keep_status_and_words(status: int, kind: type[errors.UpstreamRefusal]) -> None:
    error = ADAPTER.parse_error(status, {}, b'{"error":"model \\"x\\" not found, try pulling it first"}')
    assert type(error) is kind
    assert (error.status, "try pulling it first" in error.message) == (status, True)
    assert "502" in ADAPTER.parse_error(502, {}, b"<html></html>").message


@pytest.mark.parametrize(
    ("counts", "flags"),
    [
        ({}, ()),
        ({"prompt_eval_count": None}, ("missing",)),
        ({"eval_count": -1}, ("negative",)),
        ({"eval_count": 0}, ("zero",)),
        ({"prompt_eval_count": "9"}, ("text",)),
    ],
)
def test_counts_that_are_none_are_flagged(counts: dict[str, Any], flags: tuple[str, ...]) -> None:
    told = {**json.loads(wire.whole(answer_of("text"))), **counts}
    read = ADAPTER.parse_response(asking(), json.dumps(told).encode())
    assert read.usage is not None
    assert read.usage.flags == flags


# --- embeddings, models, keys -------------------------------------------------------------------------------------


def test_embeddings_are_asked_for_and_read_as_numbers_or_base64() -> None:
    request = EmbeddingRequest(model="r", inputs=("one", "two"), dimensions=2, user="bob")
    made = ADAPTER.build_request(request, upstream(keep_alive="5m"))
    asked = ollama.EmbedRequest.model_validate_json(made.body)
    assert (made.url, asked.input, asked.dimensions) == ("http://127.0.0.1:11434/api/embed", ["one", "two"], 2)
    assert made.dropped == ("user",)
    body = ollama.EmbedResponse(model="e", embeddings=[[0.5, 1.0], [0.0, -2.0]], prompt_eval_count=6)
    answer = ADAPTER.parse_response(request, body.model_dump_json().encode())
    assert isinstance(answer, EmbeddingResponse)
    assert answer.vectors == ((0.5, 1.0), (0.0, -2.0))
    assert answer.usage == Usage(input_tokens=6)
    coded = msgspec.structs.replace(request, encoding="base64")
    packed = ADAPTER.parse_response(coded, body.model_dump_json().encode())
    assert isinstance(packed, EmbeddingResponse)
    assert struct.unpack("<2f", base64.b64decode(str(packed.vectors[0]))) == (0.5, 1.0)
    with pytest.raises(errors.InvalidResponse):
        ADAPTER.parse_response(request, b'{"embeddings":[[1.0]]}')
    with pytest.raises(errors.CannotCarry, match="input"):
        ADAPTER.build_request(EmbeddingRequest(model="r", inputs=((1, 2),)), upstream())


def test_models_are_listed_and_a_key_is_sent_only_where_there_is_one() -> None:
    listed = ollama.ListResponse(models=[ollama.ListResponse.Model(model="qwen3:8b")])
    assert ADAPTER.parse_models(listed.model_dump_json().encode()) == ["qwen3:8b"]
    assert ADAPTER.parse_models(b'{"models":null}') == []
    with pytest.raises(errors.InvalidResponse):
        ADAPTER.parse_models(b"[]")
    proof = ADAPTER.verification(upstream())
    assert (proof.method, proof.url, proof.headers) == ("GET", "http://127.0.0.1:11434/api/tags", {})
    keyed = ADAPTER.build_request(asking(), upstream(secrets={"api_key": "k-1"}))
    assert keyed.headers["authorization"] == "Bearer k-1"


def test_nobody_speaks_it_to_us() -> None:
    assert ADAPTER.native == frozenset()
    with pytest.raises(errors.CannotCarry):
        ADAPTER.pass_through(b"{}", Head(endpoint=Endpoint.CHAT, model="r"), upstream())


@pytest.mark.parametrize("base", ["http://127.0.0.1:11434", "http://127.0.0.1:11434/v1"])
def test_its_openai_style_lies_under_v1(base: str) -> None:
    adapter = adapter_for("ollama", {"dialect": "openai"})
    target = Upstream(base_url=base, model="qwen3", secrets={})
    assert adapter.build_request(asking(), target).url == "http://127.0.0.1:11434/v1/chat/completions"
    assert adapter.verification(target).url == "http://127.0.0.1:11434/v1/models"
    head = Head(endpoint=Endpoint.CHAT, model="r")
    passed = adapter.pass_through(b'{"model":"r","messages":[]}', head, target)
    assert passed.url == "http://127.0.0.1:11434/v1/chat/completions"
    assert KINDS["ollama"].price_provider == ""
