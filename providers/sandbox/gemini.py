"""Gemini's generateContent family: request to Prompt, Answer to body and stream, errors.

Wire format: the API reference of `/v1beta/models/{model}:generateContent`; field names may be in camel or snake case.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

from providers.sandbox.answers import (
    Answer,
    Message,
    Prompt,
    Tool,
    embedding,
    joined,
    json_weight,
    media,
    tokens_of,
)
from providers.sandbox.delivery import Frame
from providers.sandbox.reading import (
    RequestError,
    count,
    mapping,
    optional_count,
    optional_mapping,
    optional_sequence,
    sequence,
    text,
    texts,
)
from providers.sandbox.seals import check, seal
from providers.sandbox.usage import Usage, with_usage

NAME = "gemini"
REQUEST_ID = "x-request-id"
_ERRORS = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
_FINISH = {"stop": "STOP", "length": "MAX_TOKENS", "tool_calls": "STOP"}
DEFAULT_DIMENSIONS = 8


def error(status: int, message: str, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    """`param` and `code` have no place in this dialect; the message names the field."""
    name = _ERRORS.get(status, "INTERNAL" if status >= 500 else "INVALID_ARGUMENT")
    return {"error": {"code": status, "message": message, "status": name}}


def error_event(message: str) -> bytes:
    return b"data: " + orjson.dumps(error(500, message)) + b"\r\n\r\n"


def _pick(given: dict[str, Any], name: str) -> Any:
    """The field by its camel-case name, else by its snake-case one."""
    if name in given:
        return given[name]
    return given.get("".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name))


def parse_generate(model: str, body: dict[str, Any], *, stream: bool) -> Prompt:
    """Raises RequestError."""
    messages = contents_of(body)
    system = _pick(body, "systemInstruction")
    if system is not None:
        messages.insert(0, _content(mapping(system, "systemInstruction"), "systemInstruction", "system"))
    options = optional_mapping(_pick(body, "generationConfig"), "generationConfig")
    wanted = _pick(options, "responseJsonSchema") or _pick(options, "responseSchema")
    choices = _pick(options, "candidateCount")
    return Prompt(
        model=model,
        messages=messages,
        tools=_tools(optional_sequence(body.get("tools"), "tools")),
        forced=_forced(optional_mapping(_pick(body, "toolConfig"), "toolConfig")),
        schema=None if wanted is None else mapping(wanted, "generationConfig.responseSchema"),
        cap=optional_count(_pick(options, "maxOutputTokens"), "generationConfig.maxOutputTokens"),
        n=1 if choices is None else count(choices, "generationConfig.candidateCount", 1, 8),
        stop=texts(_pick(options, "stopSequences"), "generationConfig.stopSequences"),
        stream=stream,
    )


# What Google has clients send with calls that another model made.
_UNSIGNED = "skip_thought_signature_validator"


def contents_of(body: dict[str, Any]) -> list[Message]:
    contents = sequence(body.get("contents"), "contents")
    if not contents:
        raise RequestError("contents is not specified", param="contents")
    return [_content(mapping(item, f"contents[{place}]"), f"contents[{place}]") for place, item in enumerate(contents)]


def _content(given: dict[str, Any], where: str, role: str = "") -> Message:
    named = role or given.get("role") or "user"
    if named not in ("user", "model", "function", "system"):
        raise RequestError(f"{where}.role: please use a valid role: user, model", param=f"{where}.role")
    message = Message(named, "")
    parts = sequence(given.get("parts"), f"{where}.parts")
    message.text = joined([_part(part, message, f"{where}.parts[{place}]") for place, part in enumerate(parts)])
    return message


def _part(part: object, message: Message, where: str) -> str:
    given = mapping(part, where)
    if (signature := _pick(given, "thoughtSignature")) not in (None, _UNSIGNED):
        check(signature, "gemini", f"{where}.thoughtSignature")
    if given.get("text") is not None:
        return text(given["text"], f"{where}.text")
    inline, address = _pick(given, "inlineData"), _pick(given, "fileData")
    call, result = _pick(given, "functionCall"), _pick(given, "functionResponse")
    if inline is not None:
        mime = text(_pick(mapping(inline, f"{where}.inlineData"), "mimeType"), f"{where}.inlineData.mimeType")
        kind = mime.partition("/")[0]
        mark, weight = media(kind, text(inline.get("data"), f"{where}.inlineData.data"), mime)
    elif address is not None:
        uri = text(_pick(mapping(address, f"{where}.fileData"), "fileUri"), f"{where}.fileData.fileUri")
        mark, weight = media("file", uri, "")
    elif call is not None:
        mark, weight = "", json_weight(mapping(call, f"{where}.functionCall"))
    elif result is not None:
        message.is_result = True
        mark, weight = _result_text(mapping(result, f"{where}.functionResponse").get("response")), 0
    else:
        raise RequestError(f"{where}: a part must have its data set", param=where)
    message.weight += weight
    return mark


def _result_text(response: object) -> str:
    """A response of one text, {"result": "…"}, is that text; else its JSON."""
    if isinstance(response, dict) and len(response) == 1:
        (value,) = response.values()
        if isinstance(value, str):
            return value
    return orjson.dumps(response).decode()


def _tools(given: list[Any]) -> list[Tool]:
    tools = []
    for place, item in enumerate(given):
        where = f"tools[{place}].functionDeclarations"
        for declared in optional_sequence(_pick(mapping(item, f"tools[{place}]"), "functionDeclarations"), where):
            function = mapping(declared, where)
            schema = _pick(function, "parametersJsonSchema") or function.get("parameters") or {"type": "object"}
            tools.append(
                Tool(text(function.get("name"), f"{where}.name"), mapping(schema, where), json_weight(function))
            )
    return tools


def _forced(config: dict[str, Any]) -> str:
    calling = optional_mapping(_pick(config, "functionCallingConfig"), "toolConfig.functionCallingConfig")
    if calling.get("mode") == "NONE":
        return "none"
    names = texts(_pick(calling, "allowedFunctionNames"), "toolConfig.functionCallingConfig.allowedFunctionNames")
    return names[0] if names else ""


def _told(usage: Usage, left: int, thought: int) -> dict[str, Any]:
    """Gemini's candidatesTokenCount leaves thought out; promptTokenCount includes the cached tokens."""
    told: dict[str, Any] = {
        "promptTokenCount": usage.say(usage.input_tokens),
        "candidatesTokenCount": usage.say(left - thought),
        "totalTokenCount": usage.say(usage.input_tokens + left),
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": usage.say(usage.input_tokens)}],
    }
    if usage.cached_tokens:
        told["cachedContentTokenCount"] = usage.say(usage.cached_tokens)
    if thought:
        told["thoughtsTokenCount"] = usage.say(thought)
    return told


def _call_part(name: str, tokens: list[str]) -> dict[str, Any]:
    try:
        return {"functionCall": {"name": name, "args": orjson.loads("".join(tokens))}}
    except orjson.JSONDecodeError:
        # Torn by the cap: this dialect has no place for half an object.
        return {"functionCall": {"name": name, "args": {}}}


def _steps(answer: Answer) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """Tokens, thought tokens among them, and the part they make; the part after thought carries its signature."""
    for token in answer.thought:
        yield 1, 1, {"text": token, "thought": True}
    signed: dict[str, Any] = {"thoughtSignature": seal("gemini")} if answer.thought else {}
    for token in answer.text:
        yield 1, 0, {"text": token, **signed}
        signed = {}
    for call in answer.calls:
        yield 1 + len(call.arguments), 0, {**_call_part(call.name, call.arguments), **signed}
        signed = {}


def generate_body(prompt: Prompt, answer: Answer, usage: Usage, identity: str) -> bytes:
    parts: list[dict[str, Any]] = []
    if answer.thought:
        parts.append({"text": "".join(answer.thought), "thought": True})
    if answer.text:
        signed = {"thoughtSignature": seal("gemini")} if answer.thought else {}
        parts.append({"text": "".join(answer.text), **signed})
    parts += [_call_part(call.name, call.arguments) for call in answer.calls]
    content = {"parts": parts or [{"text": ""}], "role": "model"}
    finish = _FINISH[answer.finish]
    candidates = [{"content": content, "finishReason": finish, "index": index} for index in range(prompt.n)]
    body: dict[str, object] = {"candidates": candidates, "modelVersion": prompt.model, "responseId": identity}
    return with_usage(body, "usageMetadata", _told(usage, usage.output_tokens, usage.thought_tokens), usage)


def _chunks(prompt: Prompt, answer: Answer, usage: Usage, identity: str) -> Iterator[Frame]:
    """Whole chunks as JSON. Each tells the usage so far; the last of a candidate has its finishReason, no text."""
    left = thought = 0

    def chunk(**fields: object) -> bytes:
        made: dict[str, Any] = {**fields, "modelVersion": prompt.model, "responseId": identity}
        if usage.told:
            made["usageMetadata"] = _told(usage, left, thought)
        return orjson.dumps(made)

    for index in range(prompt.n):
        for tokens, thinking, part in _steps(answer):
            left += tokens
            thought += thinking
            yield left, chunk(candidates=[{"content": {"parts": [part], "role": "model"}, "index": index}])
        ending = {"content": {"parts": [{"text": ""}], "role": "model"}, "finishReason": _FINISH[answer.finish]}
        yield left, chunk(candidates=[{**ending, "index": index}])
    if usage.twice:
        yield left, chunk()


def generate_frames(prompt: Prompt, answer: Answer, usage: Usage, identity: str) -> Iterator[Frame]:
    """Server-sent events, as with `alt=sse`. This dialect has no end marker."""
    for left, chunk in _chunks(prompt, answer, usage, identity):
        yield left, b"data: " + chunk + b"\r\n\r\n"


def generate_array(prompt: Prompt, answer: Answer, usage: Usage, identity: str) -> Iterator[Frame]:
    """One JSON array over time, as without `alt=sse`."""
    opening, left = b"[", 0
    for left, chunk in _chunks(prompt, answer, usage, identity):
        yield left, opening + chunk
        opening = b",\r\n"
    yield left, b"]"


def parse_embed(model: str, requests: list[Any], where: str) -> tuple[int, list[dict[str, Any]]]:
    """Input tokens and the embeddings, for one or many requests. Raises RequestError."""
    total, vectors = 0, []
    for place, item in enumerate(requests):
        given = mapping(item, f"{where}[{place}]")
        named = given.get("model")
        if named is not None and text(named, f"{where}[{place}].model").removeprefix("models/") != model:
            raise RequestError(f"{where}[{place}].model must be models/{model}", param=f"{where}[{place}].model")
        said = _content(mapping(given.get("content"), f"{where}[{place}].content"), f"{where}[{place}].content").text
        asked = optional_count(_pick(given, "outputDimensionality"), "outputDimensionality", 1, 4096)
        total += len(tokens_of(said))
        vectors.append({"values": embedding(said, asked or DEFAULT_DIMENSIONS)})
    return total, vectors


def model_entry(name: str) -> dict[str, Any]:
    methods = ["embedContent", "batchEmbedContents"] if name == "sandbox-embed" else ["generateContent", "countTokens"]
    return {
        "name": f"models/{name}",
        "version": "001",
        "displayName": name,
        "description": "Deterministic answers for trials and tests",
        "inputTokenLimit": 1_048_576,
        "outputTokenLimit": 1_000_000,
        "supportedGenerationMethods": methods,
    }


def models_body(names: list[str]) -> dict[str, Any]:
    return {"models": [model_entry(name) for name in names]}
