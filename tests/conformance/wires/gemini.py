"""Google's generateContent, judged by the `google-genai` package (whose types forbid what they do not know)."""

from __future__ import annotations

import base64
import json
from typing import Any

from google.genai import types as genai

from providers.adapters.base import UpstreamRequest
from providers.adapters.types import (
    Audio,
    ChatResponse,
    Choice,
    Finish,
    JSONObject,
    Reasoning,
    Text,
    TokenLogprob,
    ToolCall,
    Usage,
)

MODEL = "gemini-2.5-pro"
LACKS = frozenset({"prompt_cache"})
TELLS = frozenset({"input_tokens", "output_tokens", "cache_read_tokens", "reasoning_tokens"})
_FINISH: dict[Finish, str] = {
    "stop": "STOP",
    "tool_calls": "STOP",
    "length": "MAX_TOKENS",
    "content_filter": "SAFETY",
}
_BODY = {"contents", "systemInstruction", "tools", "toolConfig", "generationConfig", "safetySettings", "labels"}

_LATER = ("responseJsonSchema",)  # younger than the package


def facts(request: UpstreamRequest) -> dict[str, Any]:
    assert request.method == "POST"
    method = request.url.rpartition(":")[2]
    assert method in ("generateContent", "streamGenerateContent?alt=sse"), request.url
    body = json.loads(request.body)
    assert body.keys() <= _BODY, body.keys() - _BODY
    for content in (*body["contents"], *([body["systemInstruction"]] if "systemInstruction" in body else ())):
        genai.Content.model_validate(content)
    for tool in body.get("tools") or ():
        genai.Tool.model_validate(_known(tool))
    genai.ToolConfig.model_validate(body.get("toolConfig") or {})
    config = body.get("generationConfig") or {}
    genai.GenerationConfig.model_validate({name: found for name, found in config.items() if name not in _LATER})
    return {**_settings(config), **_conversation(body), **_tools(body), "stream": method.startswith("stream")}


def _known(tool: JSONObject) -> JSONObject:
    """Functions with their schema where the package knows it: `parametersJsonSchema` is younger."""
    declared = tool.get("functionDeclarations")
    if declared is None:
        return tool
    renamed = [{"parameters" if k == "parametersJsonSchema" else k: v for k, v in one.items()} for one in declared]
    return {**tool, "functionDeclarations": renamed}


def _settings(config: JSONObject) -> dict[str, Any]:
    names = {
        "cap": "maxOutputTokens",
        "seed": "seed",
        "temperature": "temperature",
        "top_p": "topP",
        "stop": "stopSequences",
        "n": "candidateCount",
        "logprobs": "responseLogprobs",
        "schema": "responseJsonSchema",
    }
    found = {fact: config[name] for fact, name in names.items() if name in config}
    if "responseSchema" in config:
        found["schema"] = _lowered(config["responseSchema"])
    if "schema" in found:
        assert config["responseMimeType"] == "application/json"
    if "presencePenalty" in config or "frequencyPenalty" in config:
        found["penalties"] = [config.get("presencePenalty"), config.get("frequencyPenalty")]
    thinking = config.get("thinkingConfig") or {}
    if thinking.get("thinkingBudget") or thinking.get("thinkingLevel") or thinking.get("includeThoughts"):
        found["reasoning"] = True
    if "AUDIO" in (config.get("responseModalities") or ()):
        found["audio_out"] = True
    return found


def _lowered(schema: Any) -> Any:
    """Google's own way to write a schema, with types in capitals, as JSON schema."""
    if not isinstance(schema, dict):
        return schema
    return {name: value.lower() if name == "type" else _lowered(value) for name, value in schema.items()}


def _tools(body: JSONObject) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if "tools" in body:
        found["tools"] = [one["name"] for tool in body["tools"] for one in tool.get("functionDeclarations") or ()]
    calling = (body.get("toolConfig") or {}).get("functionCallingConfig")
    if calling:
        names = calling.get("allowedFunctionNames")
        found["tool_choice"] = names[0] if names else {"ANY": "required"}.get(calling["mode"], calling["mode"].lower())
    return found


def _conversation(body: JSONObject) -> dict[str, Any]:
    found: dict[str, Any] = {"texts": [], "calls": [], "results": [], "images": 0, "audio": 0, "documents": 0}
    found["signatures"] = []
    if "systemInstruction" in body:
        found["system"] = "".join(part["text"] for part in body["systemInstruction"]["parts"])
    for content in body["contents"]:
        for part in content["parts"]:
            _part(part, found)
    return found


def _part(part: JSONObject, found: dict[str, Any]) -> None:
    if "thoughtSignature" in part:
        found["signatures"].append(part["thoughtSignature"])
    if "functionCall" in part:
        found["calls"].append((part["functionCall"]["name"], part["functionCall"]["args"]))
    elif "functionResponse" in part:
        (value,) = part["functionResponse"]["response"].values()
        found["results"].append(value)
    elif "text" in part and not part.get("thought"):
        found["texts"].append(part["text"])
    elif "inlineData" in part or "fileData" in part:
        kind = (part.get("inlineData") or part.get("fileData"))["mimeType"].partition("/")[0]
        found[{"image": "images", "audio": "audio"}.get(kind, "documents")] += 1


# --- answers ------------------------------------------------------------------------------------------------------


def whole(answer: ChatResponse) -> bytes:
    body = _body(answer, [_candidate(choice) for choice in answer.choices])
    genai.GenerateContentResponse.model_validate(body)
    return json.dumps(body, indent=2).encode()


def stream(answer: ChatResponse) -> bytes:
    """Texts and thoughts come in pieces, calls and media whole; what closes a candidate comes with its last chunk."""
    chunks: list[JSONObject] = []
    for choice in answer.choices:
        last = _candidate(choice)
        for part in last["content"]["parts"]:
            pieces = [{**part, "text": letter} for letter in part["text"]] if _is_text(part) else [part]
            if "thoughtSignature" in part and len(pieces) > 1:
                for piece in pieces[:-1]:
                    del piece["thoughtSignature"]
            for piece in pieces:
                content = {"role": "model", "parts": [piece]}
                chunks.append({"candidates": [{"index": choice.index, "content": content}]})
        if choice.logprobs is not None:
            chunks = [{"candidates": [{"index": 0, "content": last["content"]}]}]
            chunks[0]["candidates"][0]["logprobsResult"] = last.pop("logprobsResult")
        last["content"] = {"role": "model", "parts": [{"text": ""}]}
        chunks.append({"candidates": [last]})
    bodies = [_body(answer, chunk["candidates"]) for chunk in chunks]
    for body in bodies[:-1]:
        body["usageMetadata"] = {"promptTokenCount": body["usageMetadata"]["promptTokenCount"]}
    for body in bodies:
        genai.GenerateContentResponse.model_validate(body)
    return b"".join(b"data: %b\r\n\r\n" % json.dumps(body).encode() for body in bodies)


def _is_text(part: JSONObject) -> bool:
    return bool(part.get("text"))


def _body(answer: ChatResponse, candidates: list[JSONObject]) -> JSONObject:
    usage = answer.usage
    assert usage is not None
    return {
        "candidates": candidates,
        "usageMetadata": _usage(usage),
        "modelVersion": answer.model,
        "responseId": answer.id,
    }


def _usage(usage: Usage) -> JSONObject:
    """Thoughts are counted beside the candidates."""
    body: JSONObject = {
        "promptTokenCount": usage.input_tokens,
        "candidatesTokenCount": usage.output_tokens - usage.reasoning_tokens,
        "totalTokenCount": usage.input_tokens + usage.output_tokens,
    }
    if usage.reasoning_tokens:
        body["thoughtsTokenCount"] = usage.reasoning_tokens
    if usage.cache_read_tokens:
        body["cachedContentTokenCount"] = usage.cache_read_tokens
    return body


def _candidate(choice: Choice) -> JSONObject:
    parts: list[JSONObject] = []
    candidate: JSONObject = {"index": choice.index, "finishReason": _FINISH[choice.finish]}
    for part in choice.parts:
        if isinstance(part, Text):
            parts.append({"text": part.text})
            if part.citations:
                chunks = [{"web": {"uri": found.url, "title": found.title}} for found in part.citations]
                candidate["groundingMetadata"] = {"groundingChunks": chunks}
        elif isinstance(part, Reasoning):
            parts.append({"text": part.text, "thought": True, "thoughtSignature": part.signature})
        elif isinstance(part, ToolCall):
            parts.append({"functionCall": {"id": part.id, "name": part.name, "args": json.loads(part.arguments)}})
        elif isinstance(part, Audio):
            base64.b64decode(part.source.data, validate=True)
            parts.append({"text": part.transcript})
            parts.append({"inlineData": {"mimeType": part.source.mime, "data": part.source.data}})
    candidate["content"] = {"role": "model", "parts": parts}
    if choice.logprobs is not None:
        candidate["logprobsResult"] = {
            "chosenCandidates": [_logprob(token) for token in choice.logprobs],
            "topCandidates": [{"candidates": [_logprob(other) for other in token.top]} for token in choice.logprobs],
        }
    return candidate


def _logprob(token: TokenLogprob) -> JSONObject:
    return {"token": token.token, "logProbability": token.logprob}


# --- embeddings ---------------------------------------------------------------------------------------------------


def vectors_asked(request: UpstreamRequest) -> dict[str, Any]:
    assert request.url.endswith(":batchEmbedContents"), request.url
    body = json.loads(request.body)
    assert body.keys() == {"requests"}
    for one in body["requests"]:
        genai.Content.model_validate(one["content"])
        assert one["model"].startswith("models/")
        assert one.keys() <= {"model", "content", "outputDimensionality", "taskType", "title"}
    (dimensions,) = {one["outputDimensionality"] for one in body["requests"]}
    return {"inputs": [one["content"]["parts"][0]["text"] for one in body["requests"]], "dimensions": dimensions}


def vectors(values: tuple[tuple[float, ...], ...], tokens: int, *, asked: dict[str, Any]) -> bytes:
    """Google tells no usage for them."""
    return json.dumps({"embeddings": [{"values": vector} for vector in values]}).encode()
