"""What the sandbox answers: a pure function of the prompt, no clock and no chance.

Tokens: a token is a run of at most 16 characters that are no whitespace, with the whitespace before it; whitespace at
the end is one more. So a short word is one token, and text never has more tokens than characters. An image, sound or
file part counts one token for each 64 characters of its data or address begun; a tool definition or schema one for each
4 bytes of its JSON begun. A prompt adds 4 tokens for each message and 3 once, hence:
input tokens <= UTF-8 bytes of the prompt + 8 x messages + 16.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from providers.sandbox.faults import MAX_TOKENS, Faults

_TOKEN = re.compile(r"\s*\S{1,16}|\s+")
_WORDS = re.compile(r"\bwords:\s*([0-9]{1,7})\b")
_LOREM = [
    "lorem",
    "ipsum",
    "dolor",
    "sit",
    "amet",
    "consectetur",
    "adipiscing",
    "elit",
    "sed",
    "do",
    "eiusmod",
    "tempor",
]
_PER_MESSAGE = 4
_PER_PROMPT = 3
LOREM_DEFAULT = 20
THOUGHT = "The user wrote something. The honest thing is to say it back."
CHAT_MODELS = ("sandbox-echo", "sandbox-lorem", "sandbox-dear", "sandbox-tools", "sandbox-think", "sandbox-json")


@dataclass(slots=True)
class Message:
    """`text` is what the parts say, joined; `weight` the tokens of other parts; `is_result` marks a tool's result."""

    role: str
    text: str
    weight: int = 0
    is_result: bool = False


@dataclass(slots=True)
class Tool:
    name: str
    schema: dict[str, Any]
    weight: int = 0


@dataclass(slots=True)
class Prompt:
    """One chat request, whatever its dialect. `forced`: a tool's name, "none", or "" where the model may choose."""

    model: str
    messages: list[Message]
    tools: list[Tool] = field(default_factory=list)
    forced: str = ""
    schema: dict[str, Any] | None = None
    cap: int | None = None
    n: int = 1
    stop: list[str] = field(default_factory=list)
    stream: bool = False
    include_usage: bool = False


@dataclass(slots=True)
class Call:
    """A tool call; `arguments` is JSON text in tokens (cut by a cap it may be torn)."""

    id: str
    name: str
    arguments: list[str]


@dataclass(slots=True)
class Answer:
    """`finish`: stop, length or tool_calls; `stopped_by` the stop sequence that ended it."""

    thought: list[str] = field(default_factory=list)
    text: list[str] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    finish: str = "stop"
    stopped_by: str | None = None

    @property
    def tokens(self) -> int:
        # A call's name costs one token, as it leaves in one chunk.
        return len(self.thought) + len(self.text) + sum(1 + len(call.arguments) for call in self.calls)


def tokens_of(text: str) -> list[str]:
    """The text in tokens; joined they are the text again."""
    return _TOKEN.findall(text)


def media(kind: str, data: str, mime: str) -> tuple[str, int]:
    """What an attachment is echoed as, "[image 68 bytes image/png]", and its weight in tokens.

    `data` is base64; or an address, with `mime` empty. The mark is our own invention and so costs nothing: its tokens,
    counted with the text around it, are taken off again.
    """
    size = f"{len(data.rstrip('=')) * 3 // 4} bytes {mime}" if mime else "by address"
    mark = f"[{kind} {size}]"
    return mark, -(-len(data) // 64) - len(tokens_of(mark))


def json_weight(value: object) -> int:
    return -(-len(orjson.dumps(value)) // 4)


def count_input(prompt: Prompt) -> int:
    total = _PER_PROMPT + sum(tool.weight for tool in prompt.tools)
    for message in prompt.messages:
        total += _PER_MESSAGE + message.weight + len(_TOKEN.findall(message.text))
    if prompt.schema is not None:
        total += json_weight(prompt.schema)
    return total


def lorem(words: int) -> str:
    return " ".join(_LOREM[index % len(_LOREM)] for index in range(words))


def instance_of(schema: object, depth: int = 0) -> Any:
    """The smallest instance of a JSON schema (or Gemini's upper-case dialect of it), required properties only."""
    if not isinstance(schema, dict) or depth > 16:
        return "text"
    for name in ("const", "default"):
        if name in schema:
            return schema[name]
    if isinstance(schema.get("enum"), list) and schema["enum"]:
        return schema["enum"][0]
    for name in ("anyOf", "oneOf", "allOf"):
        if isinstance(schema.get(name), list) and schema[name]:
            return instance_of(schema[name][0], depth + 1)
    kind = schema.get("type", "object" if "properties" in schema else "string")
    if isinstance(kind, list):
        kind = next((name for name in kind if str(name).lower() != "null"), "null")
    return _instance_of_kind(str(kind).lower(), schema, depth)


def _instance_of_kind(kind: str, schema: dict[str, Any], depth: int) -> Any:
    match kind:
        case "object":
            properties = schema.get("properties")
            properties = properties if isinstance(properties, dict) else {}
            names = schema.get("required")
            names = names if isinstance(names, list) else list(properties)
            return {name: instance_of(properties.get(name, {}), depth + 1) for name in names if isinstance(name, str)}
        case "array":
            return [instance_of(schema.get("items", {}), depth + 1) for _ in range(_small(schema.get("minItems"), 1))]
        case "integer" | "number":
            return schema.get("minimum", 1)
        case "boolean":
            return True
        case "null":
            return None
        case _:
            return "text".ljust(_small(schema.get("minLength"), 0), "t")


def _small(value: object, default: int) -> int:
    return min(int(value), 10) if isinstance(value, (int, str)) and str(value).isdigit() else default


def _last_user(prompt: Prompt) -> str:
    said = (message.text for message in reversed(prompt.messages) if message.role == "user" and not message.is_result)
    return next(said, "")


def _wanted_calls(prompt: Prompt, identity: str) -> list[Call]:
    """What sandbox-tools calls: nothing after a result; else the forced tool, the first, or all for "parallel"."""
    if prompt.model != "sandbox-tools" or not prompt.tools or prompt.forced == "none" or prompt.messages[-1].is_result:
        return []
    chosen = [tool for tool in prompt.tools if tool.name == prompt.forced] or prompt.tools[:1]
    if not prompt.forced and "parallel" in _last_user(prompt).lower():
        chosen = prompt.tools
    return [
        Call(f"{identity}{place}", tool.name, tokens_of(orjson.dumps(instance_of(tool.schema)).decode()))
        for place, tool in enumerate(chosen)
    ]


def _text(prompt: Prompt, faults: Faults) -> str:
    if prompt.model == "sandbox-json":
        return orjson.dumps(instance_of(prompt.schema or {"type": "object", "properties": {"answer": {}}})).decode()
    said = _last_user(prompt)
    if faults.tokens is not None:
        return lorem(faults.tokens)
    if prompt.model in ("sandbox-lorem", "sandbox-dear"):
        asked = _WORDS.search(said)
        if asked:
            return lorem(min(int(asked[1]), MAX_TOKENS))
        # Without a number it would go on for ever: only the cap ends it.
        cap = min(prompt.cap or LOREM_DEFAULT - 1, MAX_TOKENS)
        return lorem(cap * 2 if faults.ignore_cap else cap + 1 if prompt.cap else LOREM_DEFAULT)
    results = []
    for message in reversed(prompt.messages):
        if not message.is_result:
            break
        results.append(message.text)
    return "\n".join(reversed(results)) if results else said


def _cut(answer: Answer, cap: int) -> None:
    """Keeps the first `cap` tokens."""
    left = cap
    answer.thought, left = answer.thought[:left], max(0, left - len(answer.thought))
    answer.text, left = answer.text[:left], max(0, left - len(answer.text))
    kept = []
    for call in answer.calls:
        if left < 1:
            break
        call.arguments = call.arguments[: left - 1]
        left -= 1 + len(call.arguments)
        kept.append(call)
    answer.calls = kept
    answer.finish = "length"
    answer.stopped_by = None


def compose(prompt: Prompt, faults: Faults, identity: str) -> Answer:
    """The answer to `prompt` (all `n` choices are alike); `identity` makes the ids of its tool calls."""
    answer = Answer(calls=_wanted_calls(prompt, identity))
    if prompt.model == "sandbox-think":
        answer.thought = tokens_of(THOUGHT)
    if answer.calls:
        answer.finish = "tool_calls"
    else:
        text = _text(prompt, faults)
        ends = [(text.find(stop), stop) for stop in prompt.stop if stop and stop in text]
        if ends:
            place, answer.stopped_by = min(ends)
            text = text[:place]
        answer.text = tokens_of(text)
    if prompt.cap is not None and not faults.ignore_cap and answer.tokens > prompt.cap:
        _cut(answer, prompt.cap)
    return answer


def embedding(text: str, dimensions: int) -> list[float]:
    """A unit vector made from the text's bytes: equal texts, equal vectors."""
    seed = sum((place + 1) * byte for place, byte in enumerate(text.encode())) or 1
    raw = [((seed * (index * 2_654_435_761 + 40_503)) % 2003) / 1001.5 - 1 for index in range(dimensions)]
    length = sum(value * value for value in raw) ** 0.5 or 1.0
    return [round(value / length, 6) for value in raw]


def joined(texts: Sequence[str]) -> str:
    return "\n".join(text for text in texts if text)
