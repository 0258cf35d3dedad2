"""Where a vendor that speaks OpenAI's wire format departs from it, as data of its row; CompatibleAdapter heeds it."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Literal

import msgspec

from providers.errors import CannotCarry

_CAPS = ("max_tokens", "max_completion_tokens")
_SCHEMA = "response_format.json_schema"
# What says no more than its absence. Other numbers say something at any value, other values unless they are empty.
_DEFAULTS = {"n": 1, "presence_penalty": 0, "frequency_penalty": 0, "parallel_tool_calls": True}
_LOGPROBS = "message.output_text.logprobs"  # among what the Responses API is asked to include
_DENIED = {"tools": "this provider has no tools, and so no tool_choice"}
# Types of content parts, of chat completions and of the Responses API, by what `parts` calls them.
_MEDIA = {
    "image": ("image_url", "input_image"),
    "audio": ("input_audio",),
    "document": ("file", "input_file"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Quirks:
    """Members are top-level ones of a chat request or of /v1/completions, by OpenAI's names; `messages.name` is a
    message's.

    drops      members the vendor answers with an error or ignores: left out, and named to the client
    by_model   the same for models whose name matches a pattern (fnmatch)
    denies     members without which the answer would be another one: the request is refused; among them may be
               `response_format.json_schema`, where a vendor knows JSON but no schemas
    parts      what of "image", "audio" and "document" messages may hold; a request with others is refused
    thoughts   the fields in which an assistant's earlier reasoning goes back; none: it stays here
    reasoning  how it is asked for: the word `reasoning_effort`, OpenRouter's `reasoning` object, the switch `thinking`
    asks_usage whether streams have to be asked for their usage (`stream_options`)
    models     where models are listed, relative to the base URL (".." allowed)
    listed     the members under which the answer has the list and each entry its name; none: it lists no models
    """

    cap_field: str = "max_tokens"
    drops: frozenset[str] = frozenset()
    by_model: tuple[tuple[str, frozenset[str]], ...] = ()
    denies: frozenset[str] = frozenset()
    parts: frozenset[str] = frozenset({"image", "audio", "document"})
    thoughts: tuple[str, ...] = ("reasoning_content", "reasoning_details")
    reasoning: Literal["effort", "object", "thinking"] = "effort"
    asks_usage: bool = True
    models: str = "models"
    listed: tuple[str, ...] = ("data", "id")
    watched: frozenset[str] = field(init=False)  # all members that may have to go
    lacking: tuple[tuple[bytes, str], ...] = field(init=False)  # (type of a part as JSON, what it is) of no `parts`

    def __post_init__(self) -> None:
        everywhere = self.drops.union(self.denies, *[names for _, names in self.by_model])
        object.__setattr__(self, "watched", frozenset(name.partition(".json_")[0] for name in everywhere))
        lacking = [(name, wire) for name, wires in _MEDIA.items() if name not in self.parts for wire in wires]
        object.__setattr__(self, "lacking", tuple((f'"{wire}"'.encode(), name) for name, wire in lacking))

    def refused(self, model: str) -> frozenset[str]:
        """Members that `model` answers with an error or ignores."""
        return self.drops.union(*[names for pattern, names in self.by_model if fnmatchcase(model, pattern)])

    def trim(self, body: MutableMapping[str, Any], model: str) -> tuple[str, ...]:
        """Takes out of `body` what the vendor refuses, and names it. Values may be raw JSON.

        Raises CannotCarry for what is denied. What says no more than its absence goes without a word.
        """
        for name in _CAPS:
            if name in body and name != self.cap_field and self is not PLAIN:  # the caller's own, by the vendor's name
                body[self.cap_field] = body.pop(name)
        if self.watched.isdisjoint(body):
            return ()
        refused = self.refused(model)
        if _SCHEMA in self.denies and _has_schema(_plain(body.get("response_format"))):
            raise CannotCarry("response_format", "this provider answers in JSON, but follows no schema")
        gone: list[str] = []
        for name in [name for name in body if name in refused or name in self.denies]:
            says = not _is_default(name, body[name])
            if says and name in self.denies:
                raise CannotCarry(name, _DENIED.get(name, f"this provider knows no {name}"))
            del body[name]
            if says:
                gone.append(name)
        return tuple(gone)

    def trim_completion(self, body: MutableMapping[str, Any], model: str) -> tuple[str, ...]:
        """The same of /v1/completions, where the cap is `max_tokens` at every vendor. What a chat goes without, it goes
        without, but for `logprobs`: a number here, where a chat has a switch, and what rows tell is of the switch."""
        if self.watched.isdisjoint(body):
            return ()
        refused = self.refused(model) - {"logprobs"}
        gone = [name for name in body if name in refused]
        return tuple([name for name in gone if not _is_default(name, body.pop(name))])

    def trim_response(self, body: MutableMapping[str, Any], model: str) -> tuple[str, ...]:
        """The same of a request to the Responses API, whose members are others: of what rows claim it has the log
        probabilities, as a number and in `include`, and the effort in `reasoning`."""
        refused = self.refused(model)
        gone = _without_logprobs(body) if "logprobs" in refused else []
        if "reasoning_effort" in refused and _without_effort(body):
            gone.append("reasoning.effort")
        return tuple(gone)

    def check_parts(self, body: bytes, turns: msgspec.Raw | None) -> None:
        """`turns` is the member of `body` with the messages or input items. Raises CannotCarry for media in them that
        the vendor does not take. Only a body with a telling word in it is looked into: others cost a search."""
        lacking = {word[1:-1].decode(): name for word, name in self.lacking if word in body}
        if not lacking or turns is None:
            return
        for part in _parts_within(msgspec.json.decode(turns)):
            if isinstance(wire := part.get("type"), str) and wire in lacking:
                raise not_taken(lacking[wire])


PLAIN = Quirks()


def _without_logprobs(body: MutableMapping[str, Any]) -> list[str]:
    gone: list[str] = []
    if "top_logprobs" in body and _plain(body.pop("top_logprobs")):
        gone.append("top_logprobs")
    included = _plain(body.get("include"))
    if isinstance(included, list) and _LOGPROBS in included:
        body["include"] = [name for name in included if name != _LOGPROBS]
        gone.append(f"include.{_LOGPROBS}")
        if not body["include"]:
            del body["include"]
    return gone


def _without_effort(body: MutableMapping[str, Any]) -> bool:
    """Whether there was one."""
    reasoning = _plain(body.get("reasoning"))
    if not isinstance(reasoning, dict) or not reasoning.pop("effort", None):
        return False
    if reasoning:
        body["reasoning"] = reasoning
    else:
        del body["reasoning"]
    return True


def not_taken(name: str) -> CannotCarry:
    """The refusal of an "image", "audio" or "document": without it the answer would be to another question."""
    return CannotCarry(f"messages.{name}", f"this provider takes no {name}s")


def _parts_within(turns: Any) -> Iterator[dict[str, Any]]:
    """Content parts of messages or input items, and those of tools' results: objects all of them, as the dialects
    have checked. The content may be a text, and so may the input; other outputs have any shape."""
    for turn in turns if isinstance(turns, list) else ():
        for parts in (turn.get("content"), turn.get("output")):
            if isinstance(parts, list):
                yield from [part for part in parts if isinstance(part, dict)]


def _is_default(name: str, value: Any) -> bool:
    plain = _plain(value)
    if name in _DEFAULTS or type(plain) in (int, float):
        return plain is None or bool(plain == _DEFAULTS.get(name))
    return not plain


def _plain(value: Any) -> Any:
    return msgspec.json.decode(value) if isinstance(value, msgspec.Raw) else value


def _has_schema(wanted: object) -> bool:
    return isinstance(wanted, dict) and wanted.get("type") == "json_schema"
