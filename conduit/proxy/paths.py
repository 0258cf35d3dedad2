"""The proxy's paths (contract 3): which dialect and endpoint a method and path mean."""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from providers.adapters.types import Dialect, Endpoint


class Path(msgspec.Struct, frozen=True):
    """`action` names the view's method; `model` and `stream` come from the path where the dialect puts them there.

    In paths about a stored response `model` is its id, and `query` what stands behind the question mark.
    """

    dialect: Dialect
    endpoint: Endpoint
    action: str
    method: str
    model: str = ""
    stream: bool = False
    array: bool = False  # the stream as one JSON array instead of events (Gemini without `alt=sse`)
    query: bytes = b""


_POSTS = {
    "/v1/chat/completions": Path(Dialect.OPENAI, Endpoint.CHAT, "generate", "POST"),
    "/v1/completions": Path(Dialect.OPENAI, Endpoint.COMPLETIONS, "generate", "POST"),
    "/v1/responses": Path(Dialect.RESPONSES, Endpoint.RESPONSES, "respond", "POST"),
    "/v1/embeddings": Path(Dialect.OPENAI, Endpoint.EMBEDDINGS, "generate", "POST"),
    "/v1/messages": Path(Dialect.ANTHROPIC, Endpoint.MESSAGES, "generate", "POST"),
    "/v1/messages/count_tokens": Path(Dialect.ANTHROPIC, Endpoint.MESSAGES, "count", "POST"),
}
_GETS = {
    "/v1/models": Path(Dialect.OPENAI, Endpoint.MODELS, "models", "GET"),
    "/v1beta/models": Path(Dialect.GEMINI, Endpoint.MODELS, "models", "GET"),
    "/v1/key": Path(Dialect.OPENAI, Endpoint.MODELS, "holder", "GET"),
}
_ANTHROPIC_MODELS = Path(Dialect.ANTHROPIC, Endpoint.MODELS, "models", "GET")
_GEMINI = re.compile(
    r"/v1(?:beta)?/models/(?P<model>[^:]+):"
    r"(?P<call>generateContent|streamGenerateContent|countTokens|embedContent|batchEmbedContents)"
)
_GEMINI_CALLS = {
    "generateContent": (Endpoint.GENERATE, "generate", False),
    "streamGenerateContent": (Endpoint.GENERATE, "generate", True),
    "countTokens": (Endpoint.GENERATE, "count", False),
    "embedContent": (Endpoint.EMBEDDINGS, "generate", False),
    "batchEmbedContents": (Endpoint.EMBEDDINGS, "generate", False),
}
_ONE_MODEL = re.compile(r"/(?P<version>v1|v1beta)/models/(?P<model>[^:]+)")

_STORED = re.compile(r"/v1/responses/(?P<id>[^/:]+)(?P<what>/cancel|/input_items)?")
# By what follows the id, and the method where that decides: action and method.
_STORED_CALLS = {"/cancel": ("cancel", "POST"), "/input_items": ("input_items", "GET"), "DELETE": ("delete", "DELETE")}


def is_proxy(path: str) -> bool:
    return path.startswith(("/v1/", "/v1beta/", "/v2/"))


def dialect_of(path: str) -> Dialect:
    """Whose error shape a path that means nothing gets."""
    if path.startswith("/v1/messages"):
        return Dialect.ANTHROPIC
    if path.startswith("/v1beta/") or _GEMINI.fullmatch(path):
        return Dialect.GEMINI
    return Dialect.OPENAI


def find(path: str, headers: Mapping[bytes, bytes], query: bytes = b"", *, method: str = "") -> Path | None:
    """The meaning of a path; None for an unknown one. Where a path has several methods, an odd one means the first."""
    found = _POSTS.get(path)
    if found is not None:
        return found
    found = _GETS.get(path)
    if found is not None:
        return _ANTHROPIC_MODELS if path == "/v1/models" and b"anthropic-version" in headers else found
    call = _GEMINI.fullmatch(path)
    if call is not None:
        endpoint, action, stream = _GEMINI_CALLS[call["call"]]
        array = stream and b"alt=sse" not in query.split(b"&")
        return Path(Dialect.GEMINI, endpoint, action, "POST", call["model"], stream, array)
    stored = _STORED.fullmatch(path)
    if stored is not None:
        action, known = _STORED_CALLS.get(stored["what"] or method, ("stored", "GET"))
        return Path(Dialect.RESPONSES, Endpoint.RESPONSES, action, known, stored["id"], query=query)
    one = _ONE_MODEL.fullmatch(path)
    if one is not None:
        if one["version"] == "v1beta":
            dialect = Dialect.GEMINI
        else:
            dialect = Dialect.ANTHROPIC if b"anthropic-version" in headers else Dialect.OPENAI
        return Path(dialect, Endpoint.MODELS, "model", "GET", one["model"])
    return None
