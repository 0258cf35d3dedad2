"""What became of one feature between a client's dialect and a kind of provider, without a socket.

lines()             every (kind, wire format) of the registry
lines_for(dialect)  the same, and models that have an endpoint of the client's own
outcome(line, dialect, feature, mode)   "carried", "named" or "unsaid" (the dialect has no words for it)

A `dialect` is the name of a module in dialects/: a Dialect, or "completions", the OpenAI dialect's second endpoint.

Wrong is what raises AssertionError: something claimed that did not arrive, or arrived at the wrong end; something that
works and is not claimed; something lost without a word.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any

import msgspec

from conduit.proxy import paths
from conduit.proxy.dialects.base import DialectModule, Inbound
from conduit.proxy.dialects.registry import DIALECTS
from conduit.proxy.errors import ApiError
from conduit.proxy.streaming import Translation
from providers.adapters.base import Adapter, Relay, Upstream, UpstreamRequest
from providers.adapters.kinds import ProviderKind
from providers.adapters.registry import KINDS, adapter_for
from providers.adapters.types import ChatRequest, ChatResponse, Dialect, Endpoint, Usage
from providers.errors import CannotCarry
from tests.conformance.dialects.transport import Sent
from tests.conformance.facts import EVERY, FEATURES, THOUGHT, VECTORS, Feature
from tests.conformance.wires import lacks, wire_module

MODES = ("whole", "stream")
CLIENTS: tuple[str, ...] = (*DIALECTS, "completions")
CARRIED, NAMED, UNSAID = "carried", "named", "unsaid"
_FULL = frozenset({"input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "reasoning_tokens"})
_SECRETS = {"api_key": "k", "access_token": "t", "project_id": "p"}


@dataclass(frozen=True)
class Line:
    """A kind of provider by one of its wire formats."""

    kind: str
    dialect: Dialect  # of the kind's `adapters`
    model: str = ""  # where it is not the wire format's own one

    @property
    def row(self) -> ProviderKind:
        return KINDS[self.kind]

    @property
    def adapter(self) -> Adapter:
        return adapter_for(self.kind, {"dialect": self.dialect})

    @property
    def wire(self) -> ModuleType:
        return wire_module(self.kind, self.adapter.wire)

    def wire_for(self, dialect: str) -> ModuleType:
        """What reaches the provider from this client: its own wire format where it is passed through."""
        return wire_module(self.kind, dialect) if native(self, dialect) else self.wire

    @property
    def id(self) -> str:
        return "-".join(filter(None, (self.kind, self.dialect.value, self.model)))

    def claims(self, feature: Feature, wire: ModuleType) -> bool | None:
        """Whether the feature must arrive over this wire format; None where either is right."""
        if feature.capability is None:
            return None
        if feature.capability in ("", *getattr(wire, "HAS", ())):
            return True
        claimed: bool = getattr(self.row.capabilities, feature.capability)
        several = len(self.row.adapters) > 1 or wire is not self.wire
        return claimed and not (several and feature.capability in lacks(wire))


def lines() -> Iterator[Line]:
    for kind, row in KINDS.items():
        for dialect in row.adapters:
            yield Line(kind, Dialect(dialect))


def lines_for(dialect: str) -> Iterator[Line]:
    """Where only some models of a kind have the client's endpoint, there is a line for one that has and one without."""
    yield from lines()
    called = (client(dialect).DIALECT, client(dialect).ENDPOINT)
    for line in lines():
        patterns = line.row.only_models.get(called[1])
        if patterns and called in line.adapter.native:
            yield Line(line.kind, line.dialect, patterns[0].rstrip("*"))


@cache
def client(dialect: str) -> ModuleType:
    return import_module(f"tests.conformance.dialects.{dialect}")


def upstream(line: Line, cap: int | None = None) -> Upstream:
    base = line.row.base_url.replace("{region}", "eu-west-1") or "https://provider.example.org/v1"
    return Upstream(
        base_url=re.sub(r"\{\w+\}", "some", base),
        model=line.model or getattr(line.wire, "MODEL", "some-model"),
        secrets=_SECRETS,
        region="eu-west-1",
        max_output_tokens=cap,
    )


def outcome(line: Line, dialect: str, feature: Feature, mode: str) -> str:
    stream = mode == "stream"
    wire = line.wire_for(dialect)
    sent = _asked(dialect, feature.name, stream, None)
    if sent is None:
        return UNSAID
    if feature.name == "thoughts_back":
        before = answered(line, dialect, FEATURES["reasoning"], stream=stream)
        sent = _asked(dialect, feature.name, stream, before)
        assert sent is not None
    claimed = line.claims(feature, wire)
    if (feature.answers and not claimed) or (feature.capability is None and feature.name in lacks(wire)):
        return NAMED
    arrived = _request(line, dialect, feature, sent, stream=stream)
    if claimed is not None and not (feature.hint and native(line, dialect)):  # a relayed hint changes no answer
        assert arrived == claimed, f"claimed: {claimed}, arrived: {arrived}"
    assert not claimed or arrived, "claimed, and yet it did not arrive"
    if arrived and (claimed or feature.capability is None):
        shown = answered(line, dialect, feature, stream=stream)
        _compare(line, dialect, feature, shown, stream=stream)
    return CARRIED if arrived else NAMED


def gateway(dialect: str) -> DialectModule:
    """What the gateway speaks with this client."""
    return DIALECTS[client(dialect).DIALECT]


@cache
def _asked(dialect: str, feature: str, stream: bool, before: bytes | None) -> Sent | None:  # noqa: FBT001
    found: Sent | None = client(dialect).asked(feature, stream=stream, before=before)
    return found


def parsed(dialect: str, sent: Sent) -> Inbound:
    path = paths.find(sent.path, {b"anthropic-version": b"1"}, sent.query)
    assert path is not None, sent.path
    assert path.dialect is client(dialect).DIALECT
    assert path.endpoint in (client(dialect).ENDPOINT, Endpoint.EMBEDDINGS)
    return gateway(dialect).parse(path.endpoint, sent.body, model=path.model, stream=path.stream)


def native(line: Line, dialect: str) -> bool:
    """As TargetEntry.native has it."""
    called = (client(dialect).DIALECT, client(dialect).ENDPOINT)
    return called in line.adapter.native and line.row.serves(called[1], upstream(line).model)


# --- there --------------------------------------------------------------------------------------------------------


def _request(line: Line, dialect: str, feature: Feature, sent: Sent, *, stream: bool) -> bool:
    """Whether the provider is asked for it. What is not must be named; what is must not."""
    try:
        request = build(line, dialect, sent)
    except CannotCarry as error:
        _assert_named(feature, (error.field, str(error)))
        return False
    except ApiError as error:
        if error.status != 400:
            raise
        _assert_named(feature, (error.param or "", error.message))
        return False
    facts: dict[str, Any] = line.wire_for(dialect).facts(request)
    assert bool(facts.get("stream")) is stream, "the way of delivery"
    missing = {name: facts.get(name) for name, wanted in feature.facts.items() if not _says(line, facts, name, wanted)}
    if missing and (feature.hint or any(_is_named(feature, name) for name in request.dropped)):
        return False
    assert not missing, f"the provider is told {missing}, not {dict(feature.facts)}; dropped: {request.dropped}"
    named = [name for name in request.dropped if name.endswith(feature.named)]
    assert not named, f"named as dropped, and yet it arrived: {named}"
    return True


def build(line: Line, dialect: str, sent: Sent) -> UpstreamRequest:
    inbound = parsed(dialect, sent)
    if native(line, dialect):
        return line.adapter.pass_through(sent.body, inbound.head, upstream(line))
    return line.adapter.build_request(inbound.canonical(), upstream(line))


def _says(line: Line, facts: dict[str, Any], name: str, wanted: Any) -> bool:
    found = facts.get(name)
    if name == "signatures":
        found = [one.replace("-", "+").replace("_", "/") for one in found or ()]  # Google's client: base64 for URLs
        quirks = line.row.quirks
        if not found and quirks is not None and "reasoning_details" not in quirks.thoughts:  # they have no signatures
            return bool(facts.get("thoughts") == THOUGHT)
    if name in ("results", "texts") and found is not None:
        return all(any(text in one for one in found) for text in wanted)
    return bool(found == wanted)


def _is_named(feature: Feature, name: str) -> bool:
    name = name.lower()
    return any(word == name if len(word) == 1 else word in name for word in feature.named)


def _assert_named(feature: Feature, words: tuple[str, ...]) -> None:
    assert any(_is_named(feature, word) for word in words), f"refused without naming the field: {words}"


def vectors(line: Line, dialect: Dialect) -> None:
    """Embeddings there and back. Raises AssertionError."""
    client_side = client(dialect)
    sent = client_side.asked_vectors(VECTORS.inputs, VECTORS.dimensions)
    inbound = parsed(dialect, sent)
    relayed = (dialect, Endpoint.EMBEDDINGS) in line.adapter.native
    if relayed:
        request = line.adapter.pass_through(sent.body, inbound.head, upstream(line))
    else:
        request = line.adapter.build_request(inbound.canonical(), upstream(line))
    asked: dict[str, Any] = line.wire.vectors_asked(request)
    assert asked["inputs"] == list(VECTORS.inputs)
    assert asked["dimensions"] == VECTORS.dimensions
    body = line.wire.vectors(VECTORS.vectors, VECTORS.tokens, asked=asked)
    if relayed:
        usage, shown = line.adapter.read_usage(Endpoint.EMBEDDINGS, body), body
    else:
        response = line.adapter.parse_response(inbound.canonical(), body)
        usage, shown = response.usage, DIALECTS[dialect].render(inbound, response)
    assert usage is None or usage == Usage(input_tokens=VECTORS.tokens)
    assert client_side.seen_vectors(shown) == [list(vector) for vector in VECTORS.vectors]


# --- and back -----------------------------------------------------------------------------------------------------


def answered(line: Line, dialect: str, feature: Feature, *, stream: bool) -> bytes:
    """What the client gets of the feature's answer. The usage that is metered must be exact."""
    answer, wire = feature.answer, line.wire_for(dialect)
    sent = _asked(dialect, feature.name, stream, None)
    assert sent is not None
    inbound = parsed(dialect, sent)
    if stream:
        relay = relay_for(line, dialect, inbound)
        streamed = _streamed(wire, feature.name)
        shown = b"".join(relay.feed(streamed[at : at + 97]) for at in range(0, len(streamed), 97)) + relay.close()
        assert relay.ended
        _metered(wire, answer, relay.usage)
        return shown
    body = _whole(wire, feature.name)
    if native(line, dialect):
        _metered(wire, answer, line.adapter.read_usage(client(dialect).ENDPOINT, body))
        return body
    response = line.adapter.parse_response(inbound.canonical(), body)
    _metered(wire, answer, response.usage)
    return gateway(dialect).render(inbound, response)


def relay_for(line: Line, dialect: str, inbound: Inbound) -> Relay:
    if native(line, dialect):
        return line.adapter.relay(inbound.head)
    request = inbound.canonical()
    assert isinstance(request, ChatRequest)
    return Translation(line.adapter.stream_parser(request), gateway(dialect).stream(inbound, "r"))


@cache
def _whole(wire: ModuleType, feature: str) -> bytes:
    body: bytes = wire.whole(EVERY[feature].answer)
    return body


@cache
def _streamed(wire: ModuleType, feature: str) -> bytes:
    body: bytes = wire.stream(EVERY[feature].answer)
    return body


def told(wire: ModuleType, usage: Usage) -> Usage:
    """What of a usage this wire format can say."""
    names: frozenset[str] = getattr(wire, "TELLS", _FULL)
    return msgspec.structs.replace(Usage(), **{name: getattr(usage, name) for name in names})


def _metered(wire: ModuleType, answer: ChatResponse, usage: Usage | None) -> None:
    assert answer.usage is not None
    assert usage == told(wire, answer.usage), "the usage that is metered"


def _compare(line: Line, dialect: str, feature: Feature, shown: bytes, *, stream: bool) -> None:
    assert feature.answer.usage is not None
    answer = msgspec.structs.replace(feature.answer, usage=told(line.wire_for(dialect), feature.answer.usage))
    wanted = client(dialect).expected(answer)
    found = _seen(dialect, shown, stream)
    for name in feature.shows:
        if name in wanted:
            assert found[name] == wanted[name], f"the client sees {name}: {found[name]!r}, not {wanted[name]!r}"


@cache
def _seen(dialect: str, shown: bytes, stream: bool) -> dict[str, Any]:  # noqa: FBT001
    found: dict[str, Any] = client(dialect).seen(shown, stream=stream)
    return found
