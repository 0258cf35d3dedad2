"""The proxy's paths in the OpenAPI document: what an application's SDK calls with a virtual key.

Bodies are the providers' own formats, which their documentation describes; here only what Conduit itself needs of
them. tests/proxy hold this list against the paths that are served.
"""

from __future__ import annotations

from typing import Any

TAG = "proxy"
_BEARER: list[dict[str, list[str]]] = [{"virtualKey": []}]
_ANTHROPIC: list[dict[str, list[str]]] = [{"virtualKeyHeader": []}, {"virtualKey": []}]
_GEMINI: list[dict[str, list[str]]] = [{"virtualKeyGoogle": []}, {"virtualKey": []}]
SCHEMES: dict[str, dict[str, str]] = {
    "virtualKey": {"type": "http", "scheme": "bearer", "bearerFormat": "cdt_vk_…"},
    "virtualKeyHeader": {"type": "apiKey", "in": "header", "name": "x-api-key"},
    "virtualKeyGoogle": {"type": "apiKey", "in": "header", "name": "x-goog-api-key"},
}
_MODEL = {"type": "string", "description": "a route's name, or a model's own"}
_RESPONSE = {"type": "string", "description": "id of an answer of /v1/responses, resp_…"}
_LIST = {"type": "array", "items": {"type": "object"}}
_STREAM = {"type": "boolean", "description": "true: server-sent events"}
_CAP = {"type": "integer", "minimum": 1}
_TEXTS = {"oneOf": [{"type": "string"}, {"type": "array", "items": {}}]}


def _body(required: list[str], **fields: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "required": required, "properties": fields, "additionalProperties": True}


_CHAT = _body(["model", "messages"], model=_MODEL, messages=_LIST, stream=_STREAM, max_completion_tokens=_CAP)
_RESPOND = _body(["model", "input"], model=_MODEL, input=_TEXTS, stream=_STREAM, max_output_tokens=_CAP)
_MESSAGES = _body(["model", "messages", "max_tokens"], model=_MODEL, messages=_LIST, stream=_STREAM, max_tokens=_CAP)
_COUNT = _body(["model", "messages"], model=_MODEL, messages=_LIST)
_COMPLETION = _body(["model", "prompt"], model=_MODEL, prompt=_TEXTS, stream=_STREAM, max_tokens=_CAP)
_EMBED = _body(["model", "input"], model=_MODEL, input=_TEXTS)
_CONTENTS = _body(["contents"], contents=_LIST, generationConfig={"type": "object"})
_ONE_CONTENT = _body(["content"], content={"type": "object"})
_MANY_CONTENTS = _body(["requests"], requests=_LIST)
_G = "/v1beta/models/{model}"
_STORED = "/v1/responses/{response_id}"
_PAGE: list[dict[str, Any]] = [
    {"name": "limit", "in": "query", "schema": {"type": "integer", "minimum": 1, "maximum": 100, "default": 20}},
    {"name": "order", "in": "query", "schema": {"type": "string", "enum": ["asc", "desc"], "default": "desc"}},
    {"name": "after", "in": "query", "schema": {"type": "string"}, "description": "id of the last item before"},
]
# What a caller may say in headers about a request that generates or embeds.
_HEADERS = [
    {"name": name, "in": "header", "required": False, "description": description, "schema": {"type": "string"}}
    for name, description in (
        ("x-conduit-tags", "at most 16 tags, separated by commas: usage is summed by them"),
        ("x-conduit-timeout", "seconds, at most 3600, that a provider may take"),
        ("x-conduit-dry-run", "1: every check is made and the decision answered; nobody is called"),
        ("idempotency-key", "the same key and body within a day get the same answer, billed once"),
    )
]

# (method, path, operationId, summary, body, credentials, whether it may stream)
_CALLS: tuple[tuple[str, str, str, str, dict[str, Any] | None, list[dict[str, list[str]]], bool], ...] = (
    ("post", "/v1/chat/completions", "proxy_chat", "OpenAI chat completions", _CHAT, _BEARER, True),
    ("post", "/v1/completions", "proxy_completions", "OpenAI completions", _COMPLETION, _BEARER, True),
    ("post", "/v1/responses", "proxy_respond", "OpenAI responses", _RESPOND, _BEARER, True),
    ("post", "/v1/embeddings", "proxy_embeddings", "OpenAI embeddings", _EMBED, _BEARER, False),
    ("get", _STORED, "proxy_response", "A kept response", None, _BEARER, False),
    ("delete", _STORED, "proxy_response_delete", "Deletes a kept response", None, _BEARER, False),
    ("post", f"{_STORED}/cancel", "proxy_response_cancel", "Ends a background response", None, _BEARER, False),
    ("get", f"{_STORED}/input_items", "proxy_response_input", "What a kept response was asked", None, _BEARER, False),
    ("get", "/v1/models", "proxy_models", "Models this key may use", None, _BEARER, False),
    ("get", "/v1/models/{model}", "proxy_model", "One model this key may use", None, _BEARER, False),
    ("get", "/v1/key", "proxy_key", "The key's own limits and spend", None, _BEARER, False),
    ("post", "/v1/messages", "proxy_messages", "Anthropic messages", _MESSAGES, _ANTHROPIC, True),
    ("post", "/v1/messages/count_tokens", "proxy_count", "Anthropic token count", _COUNT, _ANTHROPIC, False),
    ("get", "/v1beta/models", "proxy_gemini_models", "Models, in Gemini's shape", None, _GEMINI, False),
    ("get", _G, "proxy_gemini_model", "One model, in Gemini's shape", None, _GEMINI, False),
    ("post", f"{_G}:generateContent", "proxy_generate", "Gemini content", _CONTENTS, _GEMINI, False),
    ("post", f"{_G}:streamGenerateContent", "proxy_stream", "Gemini content as a stream", _CONTENTS, _GEMINI, True),
    ("post", f"{_G}:countTokens", "proxy_gemini_count", "Gemini token count", _CONTENTS, _GEMINI, False),
    ("post", f"{_G}:embedContent", "proxy_embed", "Gemini embedding", _ONE_CONTENT, _GEMINI, False),
    ("post", f"{_G}:batchEmbedContents", "proxy_embed_batch", "Gemini embeddings", _MANY_CONTENTS, _GEMINI, False),
)  # fmt: skip


def add(result: dict[str, Any], **_options: object) -> dict[str, Any]:
    """Adds the proxy's paths and credentials to an OpenAPI document (drf-spectacular calls it: see the settings)."""
    result.setdefault("components", {}).setdefault("securitySchemes", {}).update(SCHEMES)
    for method, path, name, summary, body, credentials, streams in _CALLS:
        operation: dict[str, Any] = {"operationId": name, "summary": summary, "tags": [TAG], "security": credentials}
        parameters: list[dict[str, Any]] = []
        for named, schema in (("model", _MODEL), ("response_id", _RESPONSE)):
            if f"{{{named}}}" in path:
                parameters.append({"name": named, "in": "path", "required": True, "schema": schema})
        if path.endswith("/input_items"):
            parameters += _PAGE
        if body is not None and body is not _COUNT and not path.endswith(":countTokens"):
            parameters += _HEADERS
        if parameters:
            operation["parameters"] = parameters
        if body is not None:
            operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": body}}}
        operation["responses"] = _answers(streams)
        result["paths"].setdefault(path, {})[method] = operation
    return result


def _answers(streams: bool) -> dict[str, Any]:
    anything: dict[str, Any] = {"application/json": {"schema": {"type": "object"}}}
    served = {**anything, "text/event-stream": {"schema": {"type": "string"}}} if streams else anything
    return {
        "200": {"description": "the answer, in the dialect of the path", "content": served},
        "default": {"description": "an error in the dialect's own shape", "content": anything},
    }
