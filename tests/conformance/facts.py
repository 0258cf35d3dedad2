"""What is asked for and what is answered, feature by feature: the yardstick of every wire format and dialect.

FEATURES    name -> Feature, of every dialect
COMPLETING  the same, of what only /v1/completions has words for
A feature's `facts` are what the provider's request must say (the keys are those of wires/*.py's `facts`), its `answer`
what the provider says then, `shows` the parts of that answer a client must see (the keys of dialects/*.py's `seen`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from providers.adapters.types import (
    Audio,
    ChatResponse,
    Choice,
    Citation,
    Finish,
    Media,
    Part,
    Reasoning,
    Text,
    TokenLogprob,
    ToolCall,
    Usage,
)

SYSTEM = "Be kind. ünïcode 🙂"
QUESTION = "What is the weather in Paris?"
SAID = "It is sunny. ünïcode 🙂"
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
}
ARGUMENTS = {"city": "Paris"}
RESULT = "Sunny, 21 degrees"
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
WAV = "UklGRiQAAABXQVZFZm10IBAAAAABAAEARKwAAIhYAQACABAAZGF0YQAAAAA="
PDF = "JVBERi0xLjQKJSVFT0YK"
THOUGHT = "Paris lies in France."
SIGNATURE = "c2lnbmF0dXJlK29mL3Rob3VnaHRz"  # base64, since one wire format has bytes here
PAGE = "https://weather.example.org/paris"


@dataclass(frozen=True)
class Feature:
    """`capability` is the field of Capabilities that claims it: "" where every provider of chat must, None where the
    rows claim nothing and it is carried or named. `named` are words of which one stands in what is named as dropped or
    refused. `hint`: losing it changes no answer: it need not be named. `answers`: no request asks for it, so that a
    row without the claim means that the provider never answers so. `modes`: ways of delivery it is asked in.
    """

    name: str
    capability: str | None
    facts: Mapping[str, Any]
    answer: ChatResponse
    shows: tuple[str, ...] = ("texts",)
    named: tuple[str, ...] = ()
    hint: bool = False
    answers: bool = False
    modes: tuple[str, ...] = ("whole", "stream")


def spoken(
    *parts: Part, finish: Finish = "stop", stop_sequence: str = "", usage: Usage | None = None, **more: Any
) -> ChatResponse:
    choice = Choice(parts=parts or (Text(SAID),), finish=finish, stop_sequence=stop_sequence, **more)
    spent = usage or Usage(input_tokens=100, output_tokens=20)
    return ChatResponse(id="answer-1", model="some-model", choices=(choice,), usage=spent)


TOLD = spoken()
CALL = ToolCall("call_1", "weather", '{"city":"Paris"}')
SECOND_CALL = ToolCall("call_2", "weather", '{"city":"Rome"}')
THOUGHT_SPENT = Usage(input_tokens=100, output_tokens=20, reasoning_tokens=7)
THINKING = spoken(Reasoning(text=THOUGHT, signature=SIGNATURE), Text(SAID), usage=THOUGHT_SPENT)
TWO = ChatResponse(
    id="answer-1",
    model="some-model",
    choices=(Choice(parts=(Text("Heads"),)), Choice(index=1, parts=(Text("Tails"),))),
    usage=Usage(input_tokens=100, output_tokens=20),
)
TOKENS = (
    TokenLogprob("Yes", -0.25, bytes=(89, 101, 115), top=(TokenLogprob("No", -1.5, bytes=(78, 111)),)),
    TokenLogprob("!", -0.5, bytes=(33,), top=()),
)
AUDIO = Audio(source=Media(mime="audio/wav", data=WAV), format="wav", transcript=SAID, id="audio-1", expires_at=1)
CITED = Text(SAID, citations=(Citation(text="sunny", url=PAGE, title="Paris"),))
# 100 tokens in: 60 of them from the cache, 10 written to it (all for five minutes); 20 out, 7 of them thoughts.
DETAILED = Usage(input_tokens=100, output_tokens=20, cache_read_tokens=60, cache_write_tokens=10, reasoning_tokens=7)
ASKED = {"texts": [QUESTION]}
_CALLED = {"answer": spoken(CALL, finish="tool_calls"), "shows": ("calls", "finish")}

_ALL = (
    Feature("text", "", {**ASKED, "cap": 500}, TOLD, shows=("texts", "finish", "input", "output")),
    Feature("system", "", {**ASKED, "system": SYSTEM}, TOLD, named=("system",)),
    Feature("streaming", "streaming", {**ASKED, "stream": True}, TOLD, shows=("texts", "input"), modes=("stream",)),
    Feature("sampling", None, {"temperature": 0.5, "top_p": 0.9}, TOLD, named=("temperature", "top_p")),
    Feature("tools", "tools", {"tools": ["weather"]}, named=("tools",), **_CALLED),
    Feature(
        "parallel_tools",
        "parallel_tools",
        {"tools": ["weather"]},
        spoken(CALL, SECOND_CALL, finish="tool_calls"),
        shows=("calls", "finish"),
        named=("tools", "tool"),
        answers=True,
    ),
    Feature(
        "one_tool_at_a_time",
        None,
        {"parallel_tools": False},
        spoken(CALL, finish="tool_calls"),
        shows=("calls",),
        named=("parallel_tool", "disable_parallel", "tool"),
    ),
    Feature("tool_choice", "tool_choice", {"tool_choice": "required"}, named=("tool_choice", "tools"), **_CALLED),
    Feature("named_tool", None, {"tool_choice": "weather"}, named=("tool_choice", "tools"), **_CALLED),
    Feature("tool_results", "tools", {"calls": [("weather", ARGUMENTS)], "results": [RESULT]}, TOLD, named=("tool",)),
    Feature("vision", "vision", {**ASKED, "images": 1}, TOLD, named=("image", "inline", "content")),
    Feature("audio_in", "audio_in", {**ASKED, "audio": 1}, TOLD, named=("audio", "inline", "content")),
    Feature(
        "audio_out",
        "audio_out",
        {"audio_out": True},
        spoken(AUDIO),
        shows=("audio", "transcript"),
        named=("audio", "modalities"),
    ),
    Feature("documents", "documents", {**ASKED, "documents": 1}, TOLD, named=("document", "file", "content")),
    Feature(
        "structured",
        "structured",
        {"schema": SCHEMA},
        spoken(Text('{"city":"Paris"}')),
        named=("response_format", "format", "schema"),
    ),
    Feature(
        "reasoning",
        "reasoning",
        {"reasoning": True},
        THINKING,
        shows=("texts", "thoughts", "reasoning_tokens"),
        named=("reasoning", "thinking", "think"),
    ),
    Feature("thoughts_back", None, {"signatures": [SIGNATURE]}, TOLD, named=("reasoning", "thinking", "thought")),
    Feature("citations", "citations", ASKED, spoken(CITED), shows=("texts", "citations"), answers=True),
    Feature("prompt_cache", "prompt_cache", {**ASKED, "cache_marks": 1}, TOLD, named=("cache",), hint=True),
    Feature("stop", "stop", {"stop": ["END"]}, TOLD, named=("stop",)),
    Feature("seed", "seed", {"seed": 7}, TOLD, named=("seed",)),
    Feature("penalties", "penalties", {"penalties": [0.5, 0.25]}, TOLD, named=("penalty",)),
    Feature("several", "several", {"n": 2}, TWO, named=("n", "candidate")),
    Feature(
        "logprobs",
        "logprobs",
        {"logprobs": True},
        spoken(Text("Yes!"), logprobs=TOKENS),
        shows=("texts", "logprobs"),
        named=("logprobs",),
    ),
    Feature(
        "usage",
        "",
        ASKED,
        spoken(usage=DETAILED),
        shows=("input", "output", "cached", "written", "reasoning_tokens"),
    ),
    Feature("ends_at_cap", "", ASKED, spoken(finish="length"), shows=("texts", "finish")),
    Feature("ends_filtered", None, ASKED, spoken(finish="content_filter"), shows=("finish",)),
)
FEATURES: Mapping[str, Feature] = {feature.name: feature for feature in _ALL}

SECOND_QUESTION = "And in Rome?"
TOKEN_IDS = [3923, 374, 279]
_COMPLETING = (
    Feature("user", None, {"user": "bob"}, TOLD, named=("user",)),
    Feature("echo", None, {"echo": True}, spoken(Text(QUESTION + SAID)), named=("echo",)),
    Feature("suffix", None, {"suffix": "The end."}, TOLD, named=("suffix",)),
    Feature("best_of", None, {"best_of": 3}, TOLD, named=("best_of",), modes=("whole",)),
    Feature("several_prompts", None, {"texts": [QUESTION, SECOND_QUESTION]}, TWO, named=("prompt",)),
    Feature("token_prompt", None, {"tokens": TOKEN_IDS}, TOLD, named=("prompt",)),
)
COMPLETING: Mapping[str, Feature] = {feature.name: feature for feature in _COMPLETING}
EVERY: Mapping[str, Feature] = {**FEATURES, **COMPLETING}


@dataclass(frozen=True)
class Vectors:
    """Embeddings: the texts asked for and what comes back, exact in 32 bits."""

    inputs: tuple[str, ...] = ("one", "two")
    dimensions: int = 4
    vectors: tuple[tuple[float, ...], ...] = field(default=((0.5, -0.25, 1.0, 0.0), (0.0, 0.125, -1.0, 2.0)))
    tokens: int = 6


VECTORS = Vectors()
