"""What of a request may cost more than its text: media, files, tools the provider runs, dearer tiers, other models.

find(dialect, wire, members) -> Found

It is read from the body itself, because that is what a provider of the same wire format gets; for another one `wire`
differs, and what cannot travel is left out. Anything that is not known to be harmless counts as bounded by the model's
context window only (a part) or as unbounded (a tool).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from conduit.proxy.media_tokens import audio_tokens, image_tokens
from providers.adapters.types import Dialect

Members = Mapping[str, msgspec.Raw]
# What vendors have added to OpenAI's dialects of their own accord: whoever is sent a body may be one of them.
_VENDORS_OWN: Mapping[str, str | None] = {
    "chat_template": None,
    "enable_thinking": None,
    "thinking_budget": None,
    "web_search_options": "web_search_options lets the provider search any number of times",
    "search_parameters": "search_parameters lets the provider search any number of times",
    "enable_search": "enable_search lets the provider search any number of times",
    "plugins": "plugins may be called any number of times",
    "provider": "provider lets a dearer vendor answer than the one whose price is known",
    "models": "models lets the provider answer with another model",
    "route": "route lets the provider answer with another model",
    "preset": "preset lets the provider answer with another model",
}
# Members of the body that may cost, with what there is to say about them; None: they are looked at below.
COSTLY: Mapping[Dialect, Mapping[str, str | None]] = {
    Dialect.OPENAI: {
        "tools": None,
        "functions": None,
        "service_tier": None,
        "prediction": None,
        "best_of": None,
        **_VENDORS_OWN,
    },
    Dialect.RESPONSES: {
        "tools": None,
        "service_tier": None,
        "prompt": "prompt names a template that the provider keeps, whose length and tools are not known",
        "context_management": "context_management may have the conversation summarised by the model",
        **_VENDORS_OWN,
    },
    Dialect.ANTHROPIC: {
        "tools": None,
        "service_tier": None,
        "inference_geo": None,
        "context_management": None,
        "speed": "the price of a speed is not known",
        "mcp_servers": "the tools of mcp_servers may be called any number of times",
        "container": "a container's code may run any number of times",
        "fallbacks": "fallbacks let the provider answer with another model",
    },
    Dialect.GEMINI: {"tools": None, "cachedContent": None, "cached_content": None, "serviceTier": None},
}
_ABSENT = (b"null", b"false", b"[]", b'""')
_DEARER = ("priority", "fast")
# Anthropic's tools that the client runs, and how many tokens their descriptions take at most; others run at Anthropic.
_CLIENT_TOOLS = ("bash_", "text_editor_", "computer_2", "memory_")
_TYPED_TOOL = 2_048
_TOOLSETS = ("computer_toolset_", "browser_toolset_")
_COUNTED_TOOLS = {"web_search_": "search", "web_fetch_": ""}  # which take max_uses, and the unit they are sold by
# Items and parts of OpenAI's responses that are nothing but text, and those whose output is parts.
_TEXT_ITEMS = ("function_call", "custom_tool_call", "reasoning", "item_reference")
_RESULT_ITEMS = ("function_call_output", "custom_tool_call_output")
_TEXT_PARTS = ("input_text", "output_text", "refusal")
_CLIENT_RUNS = ("local_shell", "apply_patch", "computer")  # described by the provider, run by the caller
_PLAIN_BLOCKS = ("text", "thinking", "redacted_thinking", "tool_use", "server_tool_use", "refusal", "tool_reference")
_OUTER_BLOCKS = ("tool_result", "search_result", "web_fetch_result")
_GEMINI_TEXT = ("text", "functionCall", "executableCode", "codeExecutionResult", "toolCall", "toolResponse")
_GEMINI_BESIDE = ("thought", "thoughtSignature", "videoMetadata", "mediaResolution", "partMetadata")
_GEMINI_CLIENT_TOOLS = ("functionDeclarations",)
_object = msgspec.json.Decoder(dict[str, Any])


class Found:
    """`media`: tokens of media. `replaced`: bytes of the body that they stand for. `window`: only the model's context
    window bounds the prompt. `rounds`: how often the model may be asked within one request. `units`: what is sold by
    the piece. `beside`: output tokens that no cap bounds. `tools`: whether there are tools at all."""

    def __init__(self) -> None:
        self.media = 0
        self.replaced = 0
        self.window = False
        self.rounds = 1
        self.units: dict[str, int] = {}
        self.beside = 0
        self.choices = 1
        self.tools = False
        self.unbounded = ""

    def refuse(self, reason: str) -> None:
        self.unbounded = self.unbounded or reason

    def image(self, wire: Dialect, data: str, *, low: bool = False) -> None:
        self._count(image_tokens(wire, data, low=low), data)

    def audio(self, data: str, kind: str) -> None:
        self._count(audio_tokens(data, kind), data)

    def _count(self, tokens: int | None, data: str) -> None:
        if tokens is None:
            self.window = True
        else:
            self.media += tokens
            self.replaced += len(data)


def find(dialect: Dialect, wire: Dialect, members: Members) -> Found:
    """`members` are the body's, in camelCase for Gemini."""
    found = Found()
    given = {name: raw for name, raw in members.items() if bytes(raw) not in _ABSENT}
    _find_tier(given, found)
    if dialect is Dialect.OPENAI:
        _openai_messages(_read(given.get("messages")), wire, found)
        found.tools = "tools" in given or "functions" in given
    elif dialect is Dialect.RESPONSES:
        _responses_items(_read(given.get("input")), wire, found)
        found.tools = "tools" in given
    elif dialect is Dialect.ANTHROPIC:
        for name in ("system", "messages"):
            _anthropic(_read(given.get(name)), wire, found)
        found.tools = "tools" in given
    else:
        for name in ("systemInstruction", "contents"):
            _gemini(_read(given.get(name)), wire, found)
        found.tools = "tools" in given
    if dialect is wire:  # another wire format's adapter carries none of what follows
        for name, reason in COSTLY[dialect].items():
            if reason and name in given:
                found.refuse(reason)
        _SAME_WIRE[dialect](given, found)
    return found


def _read(raw: msgspec.Raw | None) -> Any:
    return None if raw is None else msgspec.json.decode(raw)


def _find_tier(given: Members, found: Found) -> None:
    for name in ("service_tier", "serviceTier"):
        if name in given and (tier := str(_read(given[name])).lower().removeprefix("service_tier_")) in _DEARER:
            found.refuse(f"the prices of the service tier {tier} are not known")


# --- parts of messages ---------------------------------------------------------------------------------------------


def _openai_messages(messages: Any, wire: Dialect, found: Found) -> None:
    for message in messages or ():
        if message.get("audio"):  # an answer spoken earlier, which the provider kept
            found.window = True
        content = message.get("content")
        for part in content if isinstance(content, list) else ():
            _openai_part(part, wire, found)


def _openai_part(part: dict[str, Any], wire: Dialect, found: Found) -> None:
    kind = part.get("type")
    if kind == "image_url":
        image = part["image_url"]
        url, detail = (image, None) if isinstance(image, str) else (image["url"], image.get("detail"))
        found.image(wire, _data_of(url), low=detail == "low")
    elif kind == "input_audio":
        found.audio(part["input_audio"]["data"], part["input_audio"]["format"])
    elif kind not in ("text", "refusal"):
        found.window = True


def _responses_items(items: Any, wire: Dialect, found: Found) -> None:
    for item in items if isinstance(items, list) else ():
        kind = item.get("type") or "message"
        if kind == "image_generation_call" and isinstance(item.get("result"), str):
            found.image(wire, item["result"])
        elif kind == "message" or kind in _RESULT_ITEMS:
            content = item.get("content" if kind == "message" else "output")
            for part in content if isinstance(content, list) else ():
                _responses_part(part, wire, found)
        elif kind not in _TEXT_ITEMS:
            found.window = True


def _responses_part(part: dict[str, Any], wire: Dialect, found: Found) -> None:
    kind = part.get("type")
    if kind == "input_image":
        found.image(wire, _data_of(str(part.get("image_url") or "")), low=part.get("detail") == "low")
    elif kind == "input_audio":
        found.audio(part["input_audio"]["data"], part["input_audio"]["format"])
    elif kind not in _TEXT_PARTS:
        found.window = True


def _data_of(url: str) -> str:
    """The base64 text of a data URL; empty for any other."""
    return url.partition(";base64,")[2] if url.startswith("data:") else ""


def _anthropic(value: Any, wire: Dialect, found: Found) -> None:
    """Messages, blocks and what lies within blocks; a document given as text is text."""
    if isinstance(value, list):
        for item in value:
            _anthropic(item, wire, found)
    elif isinstance(value, dict):
        kind, source = value.get("type"), value.get("source")
        if kind == "image" and isinstance(source, dict):
            found.image(wire, str(source.get("data") or "") if source.get("type") == "base64" else "")
        elif kind == "document" and isinstance(source, dict) and source.get("type") in ("text", "content"):
            _anthropic(source.get("content"), wire, found)
        elif kind is None or kind in _OUTER_BLOCKS or str(kind).endswith(("_tool_result", "_tool_result_error")):
            _anthropic(value.get("content"), wire, found)
        elif kind not in _PLAIN_BLOCKS and kind != "web_search_result":
            found.window = True


def _gemini(value: Any, wire: Dialect, found: Found) -> None:
    for content in value if isinstance(value, list) else [value] if value else ():
        for part in content.get("parts") or ():
            _gemini_part(part, wire, found)


def _gemini_part(part: dict[str, Any], wire: Dialect, found: Found) -> None:
    for name, value in part.items():
        if name == "inlineData" and value:
            _gemini_blob(value, wire, found)
        elif name == "functionResponse" and value:
            for inner in value.get("parts") or ():
                _gemini_part(inner, wire, found)
        elif name not in _GEMINI_TEXT and name not in _GEMINI_BESIDE and value is not None:
            found.window = True


def _gemini_blob(blob: dict[str, Any], wire: Dialect, found: Found) -> None:
    kind, _, subtype = str(blob.get("mimeType") or "").lower().partition("/")
    data = str(blob.get("data") or "")
    if kind == "image":
        found.image(wire, data)
    elif kind == "audio":
        found.audio(data, subtype)
    elif kind != "text":  # whose bytes are its text
        found.window = True


# --- what only the same wire format carries ------------------------------------------------------------------------


def _openai_extras(given: Members, found: Found) -> None:
    for tool in _read(given.get("tools")) or ():
        if tool.get("type") not in ("function", "custom"):
            found.refuse(f"the tool {tool.get('type')} may be called any number of times")
    if "prediction" in given:  # what the answer does not take from it is billed as output all the same
        found.beside += len(bytes(given["prediction"]))
    if "best_of" in given:
        best = _read(given["best_of"])
        if type(best) is int and 1 <= best <= 128:
            found.choices = best
        else:
            found.refuse("best_of is not a whole number from 1 to 128")
    _vendors_extras(given, found)


def _vendors_extras(given: Members, found: Found) -> None:
    if "thinking_budget" in given or "enable_thinking" in given:  # Qwen's thinking, which the cap leaves out
        budget = _read(given.get("thinking_budget"))
        if type(budget) is int and 0 <= budget < 2**31:
            found.beside += budget
        else:
            found.refuse("enable_thinking lets the model think without end: give a thinking_budget")
    if "chat_template" in given:  # a program that renders the prompt
        found.window = True


def _responses_extras(given: Members, found: Found) -> None:
    _vendors_extras(given, found)
    calls = _read(given.get("max_tool_calls"))
    counted = type(calls) is int and 0 < calls <= 1_000
    for tool in _read(given.get("tools")) or ():
        kind = str(tool.get("type"))
        if kind.startswith("web_search") and counted:
            found.rounds = 1 + calls
            found.units["search"] = calls
        elif kind.startswith("web_search"):
            found.refuse(f"the tool {kind} without max_tool_calls may be called any number of times")
        elif kind.startswith(_CLIENT_RUNS):
            found.media += _TYPED_TOOL
        elif kind not in ("function", "custom"):
            found.refuse(f"the tool {kind} may be called any number of times")


def _anthropic_extras(given: Members, found: Found) -> None:
    for tool in _read(given.get("tools")) or ():
        _anthropic_tool(tool, found)
    if "context_management" in given and b"compact" in bytes(given["context_management"]):
        found.refuse("context_management may have the conversation summarised by the model")
    if "inference_geo" in given and _read(given["inference_geo"]) != "global":
        found.refuse("the prices of an inference_geo are not known")


def _anthropic_tool(tool: dict[str, Any], found: Found) -> None:
    kind = tool.get("type")
    if kind in (None, "custom"):
        return
    kind = str(kind)
    if kind.startswith(_CLIENT_TOOLS) and not kind.startswith(_TOOLSETS):
        found.media += _TYPED_TOOL
        return
    if kind.startswith(_TOOLSETS):
        found.window = True
        return
    name, uses = str(tool.get("name") or kind), tool.get("max_uses")
    prefix = next((prefix for prefix in _COUNTED_TOOLS if kind.startswith(prefix)), None)
    if prefix is None or type(uses) is not int or not 0 < uses <= 1_000:
        what = "" if prefix is None else " without max_uses"
        found.refuse(f"the tool {name}{what} may be called any number of times")
        return
    found.rounds += uses
    if unit := _COUNTED_TOOLS[prefix]:
        found.units[unit] = found.units.get(unit, 0) + uses


def _gemini_extras(given: Members, found: Found) -> None:
    for tool in _read(given.get("tools")) or ():
        for name, settings in tool.items():
            if name == "computerUse":
                found.window = True
            elif name not in _GEMINI_CLIENT_TOOLS and settings is not None:
                found.refuse(f"the tool {name} may be called any number of times")
    if "cachedContent" in given:
        found.window = True


_SAME_WIRE = {
    Dialect.OPENAI: _openai_extras,
    Dialect.RESPONSES: _responses_extras,
    Dialect.ANTHROPIC: _anthropic_extras,
    Dialect.GEMINI: _gemini_extras,
}
