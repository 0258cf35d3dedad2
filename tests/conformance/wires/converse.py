"""Amazon Bedrock's Converse, judged by botocore: its service model, its serializer and its parsers."""

from __future__ import annotations

import base64
import json
from functools import cache
from struct import pack
from typing import Any
from urllib.parse import unquote, urlsplit
from zlib import crc32

import botocore.session
from botocore.model import OperationModel, Shape
from botocore.serialize import create_serializer
from botocore.validate import ParamValidator

from providers.adapters.base import UpstreamRequest
from providers.adapters.types import ChatResponse, Finish, Image, JSONObject, Reasoning, Text, ToolCall, Usage

MODEL = "eu.anthropic.claude-sonnet-4-5-20250929-v1:0"
LACKS = frozenset({"seed", "penalties", "several", "logprobs", "audio_in", "audio_out", "embeddings"})
TELLS = frozenset({"input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens"})
_OPERATIONS = {"converse": "Converse", "converse-stream": "ConverseStream"}
_FINISH: dict[Finish, str] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "stop_sequence": "stop_sequence",
    "content_filter": "guardrail_intervened",
}


@cache
def operation(name: str) -> OperationModel:
    return botocore.session.get_session().get_service_model("bedrock-runtime").operation_model(name)


# --- requests -------------------------------------------------------------------------------------------------------


def parameters(request: UpstreamRequest) -> tuple[str, dict[str, Any]]:
    """The operation and its parameters as botocore takes them: it has checked them, and would send the same."""
    path = urlsplit(request.url).path
    _, model, call = path.rsplit("/", 2)
    name = _OPERATIONS[call]
    shape = operation(name).input_shape
    assert shape is not None
    sent = json.loads(request.body)
    found: dict[str, Any] = {"modelId": unquote(model), **_plain(sent, shape)}
    assert_valid(found, shape)
    serialized = create_serializer("rest-json").serialize_to_request(found, operation(name))
    assert (request.method, path) == (serialized["method"], serialized["url_path"])
    assert sent == json.loads(serialized["body"]), "botocore would send something else"
    return name, found


def assert_valid(params: dict[str, Any], shape: Shape) -> None:
    report = ParamValidator().validate(params, shape)
    assert not report.has_errors(), report.generate_report()


def _plain(value: Any, shape: Shape) -> Any:
    """JSON as botocore's own values: bytes out of base64. AssertionError for a member the model does not know."""
    if shape.type_name == "string":  # botocore leaves these to the service
        words, most = getattr(shape, "enum", ()), shape.metadata.get("max", len(value))
        assert not words or value in words, f"{shape.name} knows no {value!r}"
        assert len(value) <= most, f"{shape.name} takes {most} characters"
    if shape.type_name == "blob":
        return base64.b64decode(value, validate=True)
    if shape.type_name == "structure" and not getattr(shape, "is_document_type", False):
        unknown = set(value) - set(shape.members)
        assert not unknown, f"{shape.name} has no {unknown}"
        return {name: _plain(inner, shape.members[name]) for name, inner in value.items()}
    if shape.type_name == "list":
        return [_plain(inner, shape.member) for inner in value]
    if shape.type_name == "map":
        return {name: _plain(inner, shape.value) for name, inner in value.items()}
    return value


def facts(request: UpstreamRequest) -> dict[str, Any]:
    name, body = parameters(request)
    found: dict[str, Any] = {"stream": name == "ConverseStream"}
    found.update(_settings(body))
    found.update(_tools(body.get("toolConfig", {})))
    found.update(_conversation(body))
    return found


def _settings(body: dict[str, Any]) -> dict[str, Any]:
    config, fields = body.get("inferenceConfig", {}), body.get("additionalModelRequestFields", {})
    names = {"maxTokens": "cap", "temperature": "temperature", "topP": "top_p", "stopSequences": "stop"}
    found: dict[str, Any] = {ours: config[theirs] for theirs, ours in names.items() if theirs in config}
    if "seed" in fields:
        found["seed"] = fields["seed"]
    if "presence_penalty" in fields:
        found["penalties"] = [fields["presence_penalty"], fields["frequency_penalty"]]
    if wanted := body.get("outputConfig", {}).get("textFormat"):
        found["schema"] = json.loads(wanted["structure"]["jsonSchema"]["schema"])
    kinds = [fields.get(name, {}).get("type") for name in ("thinking", "reasoningConfig")]
    if {"enabled", "adaptive"} & set(kinds) or "reasoning_effort" in fields:
        found["reasoning"] = True
    return found


def _tools(config: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if "tools" in config:
        found["tools"] = [tool["toolSpec"]["name"] for tool in config["tools"] if "toolSpec" in tool]
        found["cache_marks"] = sum("cachePoint" in tool for tool in config["tools"])
    for mode, said in config.get("toolChoice", {}).items():
        found["tool_choice"] = {"any": "required", "tool": said.get("name")}.get(mode, mode)
    return found


def _conversation(body: dict[str, Any]) -> dict[str, Any]:
    marks = sum("cachePoint" in tool for tool in body.get("toolConfig", {}).get("tools", ()))
    found: dict[str, Any] = {"texts": [], "calls": [], "results": [], "signatures": [], "cache_marks": marks}
    found.update({"images": 0, "audio": 0, "documents": 0})
    roles = [turn["role"] for turn in body["messages"]]
    assert all(one != other for one, other in zip(roles, roles[1:], strict=False)), f"turns must alternate: {roles}"
    if "system" in body:
        found["system"] = "".join(block.get("text", "") for block in body["system"])
        found["cache_marks"] += sum("cachePoint" in block for block in body["system"])
    for turn in body["messages"]:
        for block in turn["content"]:
            _block(block, found)
    return found


def _block(block: dict[str, Any], found: dict[str, Any]) -> None:
    ((kind, said),) = block.items()
    if kind == "text":
        found["texts"].append(said)
    elif kind == "toolUse":
        found["calls"].append((said["name"], said["input"]))
    elif kind == "toolResult":
        found["results"] += [part["text"] for part in said["content"] if "text" in part]
        found["images"] += sum("image" in part for part in said["content"])
    elif kind == "reasoningContent":
        if "reasoningText" in said:
            found["signatures"].append(said["reasoningText"]["signature"])
    else:
        name = {"cachePoint": "cache_marks", "audio": "audio"}.get(kind, f"{kind}s")
        found[name] += 1


# --- answers --------------------------------------------------------------------------------------------------------


def whole(answer: ChatResponse) -> bytes:
    (choice,) = answer.choices
    body: JSONObject = {
        "output": {"message": {"role": "assistant", "content": [_answered(part) for part in choice.parts]}},
        "stopReason": _FINISH[choice.finish],
        "usage": usage_wire(answer.usage),
        "metrics": {"latencyMs": 12},
    }
    shape = operation("Converse").output_shape
    assert shape is not None
    assert_valid(_plain(body, shape), shape)
    return json.dumps(body).encode()


def stream(answer: ChatResponse) -> bytes:
    (choice,) = answer.choices
    events: list[tuple[str, JSONObject]] = [("messageStart", {"role": "assistant"})]
    for at, part in enumerate(choice.parts):
        events += _pieces(at, _answered(part))
    events.append(("messageStop", {"stopReason": _FINISH[choice.finish]}))
    events.append(("metadata", {"usage": usage_wire(answer.usage), "metrics": {"latencyMs": 12}}))
    return frames(*events)


def frames(*events: tuple[str, JSONObject]) -> bytes:
    """Named events with their payloads on the wire, each valid by botocore's model."""
    shape = operation("ConverseStream").output_shape
    assert shape is not None
    for name, payload in events:
        member = shape.members["stream"].members[name]
        assert_valid(_plain(payload, member), member)
    return b"".join(frame("event", name, json.dumps(payload).encode()) for name, payload in events)


def frame(kind: str, name: str, payload: bytes) -> bytes:
    """One frame: `kind` is "event", "exception" or "error" (of the transport: told in headers alone)."""
    texts = {
        ":error-code" if kind == "error" else f":{kind}-type": name,
        ":content-type": "application/json",
        ":message-type": kind,
    }
    headers = b"".join(
        pack(">B", len(key)) + key.encode() + pack(">BH", 7, len(text)) + text.encode() for key, text in texts.items()
    )
    prelude = pack(">II", 16 + len(headers) + len(payload), len(headers))
    message = prelude + pack(">I", crc32(prelude)) + headers + payload
    return message + pack(">I", crc32(message))


def _pieces(at: int, block: JSONObject) -> list[tuple[str, JSONObject]]:
    start: JSONObject | None = None
    deltas: list[JSONObject]
    if "text" in block:
        deltas = [{"text": letter} for letter in block["text"]]
    elif "citationsContent" in block:
        cited = block["citationsContent"]
        deltas = [{"text": letter} for letter in cited["content"][0]["text"]]
        deltas += [{"citation": found} for found in cited["citations"]]
    elif "reasoningContent" in block:
        deltas = _thoughts(block["reasoningContent"])
    elif "image" in block:
        start = {"image": {"format": block["image"]["format"]}}
        deltas = [{"image": {"source": block["image"]["source"]}}]
    else:
        call = block["toolUse"]
        start = {"toolUse": {"toolUseId": call["toolUseId"], "name": call["name"]}}
        deltas = [{"toolUse": {"input": letter}} for letter in json.dumps(call["input"])]
    events: list[tuple[str, JSONObject]] = []
    if start is not None:  # only these blocks are announced
        events.append(("contentBlockStart", {"start": start, "contentBlockIndex": at}))
    events += [("contentBlockDelta", {"delta": delta, "contentBlockIndex": at}) for delta in deltas]
    return [*events, ("contentBlockStop", {"contentBlockIndex": at})]


def _thoughts(said: JSONObject) -> list[JSONObject]:
    if "redactedContent" in said:
        return [{"reasoningContent": {"redactedContent": said["redactedContent"]}}]
    thought = said["reasoningText"]
    pieces = [{"reasoningContent": {"text": letter}} for letter in thought["text"]]
    return [*pieces, {"reasoningContent": {"signature": thought["signature"]}}]


def _answered(part: Any) -> JSONObject:
    if isinstance(part, Text) and part.citations:
        cited = [
            {"title": one.title, "sourceContent": [{"text": one.text}], "location": {"web": {"url": one.url}}}
            for one in part.citations
        ]
        return {"citationsContent": {"content": [{"text": part.text}], "citations": cited}}
    if isinstance(part, Text):
        return {"text": part.text}
    if isinstance(part, Reasoning) and part.redacted:
        return {"reasoningContent": {"redactedContent": part.redacted}}
    if isinstance(part, Reasoning):
        return {"reasoningContent": {"reasoningText": {"text": part.text, "signature": part.signature}}}
    if isinstance(part, Image):
        form = part.source.mime.removeprefix("image/")
        return {"image": {"format": form, "source": {"bytes": part.source.data}}}
    assert isinstance(part, ToolCall)
    return {"toolUse": {"toolUseId": part.id, "name": part.name, "input": json.loads(part.arguments)}}


def usage_wire(usage: Usage | None) -> JSONObject:
    """Cached input is counted beside the rest; the total holds everything."""
    assert usage is not None
    told: JSONObject = {
        "inputTokens": usage.input_tokens - usage.cache_read_tokens - usage.cache_write_tokens,
        "outputTokens": usage.output_tokens,
        "totalTokens": usage.input_tokens + usage.output_tokens,
        "cacheReadInputTokens": usage.cache_read_tokens,
        "cacheWriteInputTokens": usage.cache_write_tokens,
    }
    if long := usage.cache_write_1h_tokens:
        short = usage.cache_write_tokens - long
        lifetimes = [{"ttl": "1h", "inputTokens": long}, {"ttl": "5m", "inputTokens": short}]
        told["cacheDetails"] = [one for one in lifetimes if one["inputTokens"]]
    return told
