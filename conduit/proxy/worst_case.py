"""The most that a request can cost, in counts; usage/rates.py makes money of them. Pure, and on every request's way.

bound(inbound, target, body) -> Bound

Text: a tokenizer over bytes gives at most one token a byte, so the bytes of the body bound the tokens of all texts in
it. What a provider adds when it renders the prompt is paid for by the JSON around the texts: a turn takes about five
tokens of markers and at least 13 bytes of names, quotes and brackets, in each dialect and so in each translation. What
is not there in proportion has figures of its own: PER_REQUEST (the template's own sentences), WITH_TOOLS and PER_TOOL
(how tools are introduced). Escapes only make the body longer than its text. A tokenizer may normalise its input (NFKC),
which can make rare characters longer: then the longer form counts.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from conduit.proxy.costly_parts import COSTLY, Found, find
from conduit.proxy.dialects.base import Inbound
from conduit.proxy.dialects.gemini_wire import camel_body
from providers.adapters.types import Dialect, Endpoint
from providers.routing import TargetEntry

PER_REQUEST = 256  # tokens; the longest known templates add about a hundred
WITH_TOOLS = 1_024  # tokens; introductions of tools are documented with up to about five hundred
PER_TOOL = 64
# Converse's adapter may offer tools that the body does not: an answer held to a schema, or calls of earlier turns.
_BY_TOOLS = re.compile(rb"schema|tool|function", re.IGNORECASE)
_WIDER = ("context-1m", 1_000_000)  # Anthropic's header `anthropic-beta`, and the window it opens

_SCHEMA_TYPES = (b"object", b"string", b"number", b"integer", b"boolean", b"array", b"null")
_TYPES = re.compile(rb'"type"\s*:\s*"([^"]*)"')
_NAMES = re.compile(rb'"(\w+)"\s*:')
_ESCAPED_LETTER = re.compile(rb"\\u00[4-7]")  # no encoder escapes letters, but names and types may hide behind it
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_json = msgspec.json.Encoder()


@dataclass(frozen=True, slots=True)
class _Harmless:
    """What a body of nothing but text and functions may hold: values of `type`, or names where parts have no type."""

    costly: frozenset[str]
    types: frozenset[bytes] = frozenset()
    names: frozenset[bytes] = frozenset()


_OPENAI = _Harmless(
    costly=frozenset(COSTLY[Dialect.OPENAI]) - {"tools", "functions"},
    types=frozenset((*_SCHEMA_TYPES, *b"text refusal function custom json_object json_schema ephemeral".split())),
)
_RESPONSES = _Harmless(
    costly=frozenset(COSTLY[Dialect.RESPONSES]) - {"tools"},
    types=frozenset(
        b"message input_text output_text refusal function_call function_call_output custom_tool_call "
        b"custom_tool_call_output reasoning summary_text reasoning_text function custom allowed_tools text json_object "
        b"json_schema".split()
    ).union(_SCHEMA_TYPES),
)
_ANTHROPIC = _Harmless(
    costly=frozenset(COSTLY[Dialect.ANTHROPIC]) - {"tools"},
    types=frozenset(
        b"text thinking redacted_thinking tool_use tool_result custom auto any tool none enabled disabled adaptive "
        b"json_schema ephemeral".split()
    ).union(_SCHEMA_TYPES),
)
_GEMINI = _Harmless(
    costly=frozenset(COSTLY[Dialect.GEMINI]),
    names=frozenset(
        b"contents role parts text systemInstruction system_instruction safetySettings category threshold model "
        b"content generationConfig generation_config maxOutputTokens max_output_tokens temperature topP topK seed "
        b"candidateCount stopSequences presencePenalty frequencyPenalty responseMimeType thinkingConfig requests "
        b"thinkingBudget thinkingLevel includeThoughts taskType title outputDimensionality".split()
    ),
)
# Compared by identity: an enumeration's own hash and attributes take longer than the rest of a look-up.
_OPENAI_DIALECT, _ANTHROPIC_DIALECT, _EMBEDDINGS = Dialect.OPENAI, Dialect.ANTHROPIC, Endpoint.EMBEDDINGS
_RESPONSES_DIALECT = Dialect.RESPONSES


class Bound(msgspec.Struct, frozen=True, kw_only=True):
    """At most so many of each.

    `output_tokens` is one choice's, as the caller and the model's own maximum bound it, None where neither does;
    `beyond_cap` of them come on top of whatever cap is written upstream. `n`: how many times that much may be
    generated (choices, times the rounds of tools the provider runs). `units`: what is sold by the piece. `unbounded`
    says in words for the client why nothing bounds the request; empty when the counts do.
    """

    input_tokens: int
    output_tokens: int | None
    n: int = 1
    units: dict[str, int] = {}
    unbounded: str = ""
    beyond_cap: int = 0


def bound(inbound: Inbound, target: TargetEntry, body: bytes, *, beta: str = "") -> Bound:
    """`body` is the validated request as it came, `beta` the client's `anthropic-beta` header."""
    head, window = inbound.head, window_of(target, beta)
    text = _text_bytes(body) + PER_REQUEST
    if target.adapter.wire is Dialect.CONVERSE and _BY_TOOLS.search(body):
        text += WITH_TOOLS
    if head.endpoint is _EMBEDDINGS:
        return _of_embeddings(inbound, window, text, body)
    if window is not None:
        window *= head.inputs  # prompts, each for itself
    members = _members.decode(body)
    cap, most_output = head.max_output_tokens, target.max_output_tokens
    if cap is None or (most_output is not None and most_output < cap):
        cap = most_output
    if not target.spends and _is_plain(inbound.dialect, members, body):
        if "tools" in members or "functions" in members:
            text += WITH_TOOLS + PER_TOOL * body.count(b'"name"')
        most = text if window is None else min(text, window)
        return Bound(input_tokens=most, output_tokens=cap, n=head.n)
    if inbound.dialect is Dialect.GEMINI:
        members = _members.decode(camel_body(body))
    relayed = (inbound.dialect, head.endpoint) in target.native
    found = find(inbound.dialect, inbound.dialect if relayed else target.adapter.wire, members)
    if found.tools:
        text += WITH_TOOLS + PER_TOOL * body.count(b'"name"')
    found.choices *= head.inputs
    found.refuse(target.spends)
    return _bounded(found, text, window, cap, head.n)


def _of_embeddings(inbound: Inbound, window: int | None, text: int, body: bytes) -> Bound:
    """Each input has the window to itself. Only Gemini embeds anything but text."""
    most = None if window is None else window * inbound.head.inputs
    if inbound.dialect is Dialect.GEMINI and not _is_plain(Dialect.GEMINI, {}, body):
        unbounded = "" if most else "what is embedded may have any length, and the model's window is unknown"
        return Bound(input_tokens=most or text, output_tokens=0, unbounded=unbounded)
    return Bound(input_tokens=text if most is None else min(text, most), output_tokens=0)


def _bounded(found: Found, text: int, window: int | None, cap: int | None, n: int) -> Bound:
    once = text - found.replaced + found.media
    unbounded = found.unbounded
    if window is None:
        if found.window:
            unbounded = unbounded or "a file, video or recording may have any length, and the model's window is unknown"
        elif found.rounds > 1:
            unbounded = unbounded or "what the provider's tools find is read by the model, whose window is unknown"
    elif found.window or found.rounds > 1:  # what tools find comes on top of the body, round by round
        once = window
    else:
        once = min(once, window)
    return Bound(
        input_tokens=once * found.rounds,
        output_tokens=None if cap is None else cap + found.beside,
        n=max(n, found.choices) * found.rounds,
        units=found.units,
        unbounded=unbounded,
        beyond_cap=found.beside,
    )


def window_of(target: TargetEntry, beta: str) -> int | None:
    """The model's window in tokens, as wide as the client's or the provider's `anthropic-beta` makes it."""
    window, options = target.context_window, target.provider.options
    if window is None or not (beta or options):
        return window
    sent = (beta, str(options.get("anthropic_beta") or ""))
    return max(window, _WIDER[1]) if any(_WIDER[0] in header for header in sent) else window


def _text_bytes(body: bytes) -> int:
    if b"\\u" in body:  # an escaped character takes six bytes for at most three: the text itself is the better measure
        body = _json.encode(msgspec.json.decode(body))
    if body.isascii():
        return len(body)
    text = body.decode()
    if unicodedata.is_normalized("NFKC", text):
        return len(body)
    return max(len(body), len(unicodedata.normalize("NFKC", text).encode()))


def _is_plain(dialect: Dialect, members: Mapping[str, msgspec.Raw], body: bytes) -> bool:
    """Whether there is surely nothing but text and functions. Quick: it looks for signs of anything else anywhere."""
    harmless = _OPENAI if dialect is _OPENAI_DIALECT else _ANTHROPIC if dialect is _ANTHROPIC_DIALECT else _GEMINI
    if dialect is _RESPONSES_DIALECT:
        harmless = _RESPONSES
    if not harmless.costly.isdisjoint(members) or (b"\\u00" in body and _ESCAPED_LETTER.search(body)):
        return False
    if harmless is _GEMINI:
        return harmless.names.issuperset(_NAMES.findall(body))
    if b'"audio"' in body:
        return False
    return b'"type"' not in body or harmless.types.issuperset(_TYPES.findall(body))
