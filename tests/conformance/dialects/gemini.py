"""generateContent as the `google-genai` package writes and reads it."""

from __future__ import annotations

import base64
import json
from contextlib import suppress
from functools import cache
from typing import Any

import httpx
from google import genai
from google.genai import types

from providers.adapters.types import Audio, ChatResponse, Dialect, Endpoint, Finish, Reasoning, Text, ToolCall, Usage
from tests.conformance import facts as yard
from tests.conformance.dialects.transport import Kept, Line, Sent

DIALECT = Dialect.GEMINI
ENDPOINT = Endpoint.GENERATE
_FINISH: dict[Finish, str] = {
    "stop": "STOP",
    "length": "MAX_TOKENS",
    "tool_calls": "STOP",
    "content_filter": "SAFETY",
}


def _user(*parts: types.Part) -> list[types.Content]:
    return [types.Content(role="user", parts=[types.Part.from_text(text=yard.QUESTION), *parts])]


def _media(mime: str, data: str) -> list[types.Content]:
    return _user(types.Part.from_bytes(data=base64.b64decode(data), mime_type=mime))


def _choosing(**calling: Any) -> dict[str, Any]:
    return {**_TOOLS, "tool_config": {"function_calling_config": calling}}


_WEATHER = {"name": "weather", "description": "Tells the weather", "parameters": yard.SCHEMA}
_TOOLS: dict[str, Any] = {"tools": [{"function_declarations": [_WEATHER]}]}
_RESULTS = [
    *_user(),
    types.Content(
        role="model",
        parts=[types.Part(function_call=types.FunctionCall(id="call_1", name="weather", args=yard.ARGUMENTS))],
    ),
    types.Content(
        role="user",
        parts=[
            types.Part(
                function_response=types.FunctionResponse(id="call_1", name="weather", response={"result": yard.RESULT})
            )
        ],
    ),
]
_SPEECH = {"voice_config": {"prebuilt_voice_config": {"voice_name": "Kore"}}}
_CONFIGS: dict[str, dict[str, Any]] = {
    "text": {"max_output_tokens": 500},
    "system": {"system_instruction": yard.SYSTEM},
    "sampling": {"temperature": 0.5, "top_p": 0.9},
    "tools": _TOOLS,
    "parallel_tools": _TOOLS,
    "tool_choice": _choosing(mode="ANY"),
    "named_tool": _choosing(mode="ANY", allowed_function_names=["weather"]),
    "tool_results": _TOOLS,
    "audio_out": {"response_modalities": ["AUDIO"], "speech_config": _SPEECH},
    "structured": {"response_mime_type": "application/json", "response_schema": yard.SCHEMA},
    "reasoning": {"thinking_config": {"thinking_budget": 2048, "include_thoughts": True}, "max_output_tokens": 4000},
    "stop": {"stop_sequences": ["END"]},
    "seed": {"seed": 7},
    "penalties": {"presence_penalty": 0.5, "frequency_penalty": 0.25},
    "several": {"candidate_count": 2},
    "logprobs": {"response_logprobs": True, "logprobs": 1},
}
_CONTENTS: dict[str, list[types.Content]] = {
    "tool_results": _RESULTS,
    "vision": _media("image/png", yard.PNG),
    "audio_in": _media("audio/wav", yard.WAV),
    "documents": _media("application/pdf", yard.PDF),
}
_SAYABLE = {"streaming", "citations", "usage", "ends_at_cap", "ends_filtered", "thoughts_back"}


def asked(feature: str, *, stream: bool, before: bytes | None = None) -> Sent | None:
    if not (feature in _CONFIGS or feature in _CONTENTS or feature in _SAYABLE):
        return None
    contents = _CONTENTS.get(feature, _user())
    if before is not None:
        contents = [*_user(), _turn(before, stream=stream), types.Content(role="user", parts=[types.Part(text="And?")])]
    manual = types.AutomaticFunctionCallingConfig(disable=True)
    config = types.GenerateContentConfig(**_CONFIGS.get(feature, {}), automatic_function_calling=manual)
    line, client = _line()
    line.reply = None
    with suppress(Kept):
        if stream:
            list(client.models.generate_content_stream(model="some-model", contents=contents, config=config))
        else:
            client.models.generate_content(model="some-model", contents=contents, config=config)
    return line.take()


@cache
def _line() -> tuple[Line, genai.Client]:
    line = Line(httpx)
    options = types.HttpOptions(base_url="http://conduit", client_args={"transport": line.transport})
    return line, genai.Client(api_key="k", http_options=options)


def _read(body: bytes, *, stream: bool) -> list[types.GenerateContentResponse]:
    line, client = _line()
    line.reply = body
    if stream:
        return list(client.models.generate_content_stream(model="some-model", contents="x"))
    return [client.models.generate_content(model="some-model", contents="x")]


def seen(body: bytes, *, stream: bool) -> dict[str, Any]:
    found: dict[str, Any] = {"calls": [], "finish": None, "citations": [], "logprobs": [], "thoughts": ""}
    found.update(signatures=[], audio="")
    texts: dict[int, str] = {}
    for answer in _read(body, stream=stream):
        for candidate in answer.candidates or ():
            place = candidate.index or 0
            parts = (candidate.content.parts if candidate.content else None) or []
            texts[place] = texts.get(place, "") + "".join(p.text for p in parts if p.text and not p.thought)
            _parts(parts, found)
            if candidate.finish_reason and place == 0:
                assert found["finish"] is None, "finished twice"
                found["finish"] = candidate.finish_reason.value
            if candidate.grounding_metadata:
                chunks = candidate.grounding_metadata.grounding_chunks or ()
                found["citations"] += [chunk.web.uri for chunk in chunks if chunk.web]
            if candidate.logprobs_result:
                found["logprobs"] += _probabilities(candidate.logprobs_result)
        if answer.usage_metadata is not None:
            found.update(_spent(answer.usage_metadata))
    found["texts"] = [text for _, text in sorted(texts.items())]
    found["transcript"] = "".join(found["texts"][:1])
    return found


def _parts(parts: list[types.Part], found: dict[str, Any]) -> None:
    for part in parts:
        if part.thought and part.text:
            found["thoughts"] += part.text
        if part.thought_signature:
            found["signatures"].append(part.thought_signature)
        if part.function_call:
            found["calls"].append((part.function_call.name, part.function_call.args))
        if part.inline_data and part.inline_data.data:
            found["audio"] += base64.b64encode(part.inline_data.data).decode()


def _probabilities(result: types.LogprobsResult) -> list[Any]:
    tops = result.top_candidates or []
    return [
        (
            one.token,
            one.log_probability,
            [(top.token, top.log_probability) for top in (tops[at].candidates or () if at < len(tops) else ())],
        )
        for at, one in enumerate(result.chosen_candidates or ())
    ]


def _spent(usage: types.GenerateContentResponseUsageMetadata) -> dict[str, int]:
    thoughts = usage.thoughts_token_count or 0
    return {
        "input": usage.prompt_token_count or 0,
        "output": (usage.candidates_token_count or 0) + thoughts,
        "cached": usage.cached_content_token_count or 0,
        "reasoning_tokens": thoughts,
    }


def expected(answer: ChatResponse) -> dict[str, Any]:
    """Usage has no place for what was written to a cache."""
    parts = [part for choice in answer.choices for part in choice.parts]
    usage = answer.usage or Usage()
    spoken = [part for part in parts if isinstance(part, Audio)]
    return {
        "texts": ["".join(p.text for p in choice.parts if isinstance(p, Text)) for choice in answer.choices],
        "calls": [(part.name, json.loads(part.arguments)) for part in parts if isinstance(part, ToolCall)],
        "finish": _FINISH[answer.choices[0].finish],
        "thoughts": "".join(part.text for part in parts if isinstance(part, Reasoning)),
        "citations": [found.url for part in parts if isinstance(part, Text) for found in part.citations],
        "audio": "".join(part.source.data for part in spoken),
        "transcript": "".join(part.transcript for part in spoken),
        "logprobs": [
            (one.token, one.logprob, [(top.token, top.logprob) for top in one.top])
            for choice in answer.choices
            for one in choice.logprobs or ()
        ],
        "input": usage.input_tokens,
        "output": usage.output_tokens,
        "cached": usage.cache_read_tokens,
        "reasoning_tokens": usage.reasoning_tokens,
    }


def _turn(before: bytes, *, stream: bool) -> types.Content:
    answers = _read(before, stream=stream)
    candidates = [answer.candidates[0] for answer in answers if answer.candidates]
    return types.Content(role="model", parts=[p for one in candidates if one.content for p in one.content.parts or ()])


# --- embeddings ---------------------------------------------------------------------------------------------------


def asked_vectors(inputs: tuple[str, ...], dimensions: int) -> Sent:
    line, client = _line()
    line.reply = None
    config = types.EmbedContentConfig(output_dimensionality=dimensions)
    with suppress(Kept):
        client.models.embed_content(model="some-model", contents=list(inputs), config=config)
    return line.take()


def seen_vectors(body: bytes) -> list[list[float]]:
    line, client = _line()
    line.reply = body
    answer = client.models.embed_content(model="some-model", contents=["x", "y"])
    return [list(one.values or ()) for one in answer.embeddings or ()]
