"""Canonical request and response: what every dialect is parsed into and every adapter is built from.

A union of what the wire formats can say, named after none of them. What one lacks is dropped by its adapter and named
in UpstreamRequest.dropped; a strict route refuses it. Tool arguments and schemas stay text or plain objects. Tokens:
`input_tokens` includes cached ones, `output_tokens` includes reasoning, whatever the provider's own habit.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Literal

import msgspec

JSONObject = dict[str, Any]


class Dialect(StrEnum):
    """A wire format. As inbound: what the client speaks to us. As an adapter's `wire`: what the provider speaks."""

    OPENAI = "openai"
    RESPONSES = "responses"
    ANTHROPIC = "anthropic"
    GEMINI = "gemini"
    COHERE = "cohere"
    CONVERSE = "converse"  # Amazon Bedrock's
    OLLAMA = "ollama"
    OTHER = "other"


class Endpoint(StrEnum):
    """What is asked for; the names a key's `endpoints` uses (contract 4)."""

    CHAT = "chat"
    COMPLETIONS = "completions"
    RESPONSES = "responses"
    MESSAGES = "messages"
    GENERATE = "generate"
    EMBEDDINGS = "embeddings"
    IMAGES = "images"
    AUDIO = "audio"
    MODERATIONS = "moderations"
    RERANK = "rerank"
    FILES = "files"
    BATCHES = "batches"
    FINE_TUNING = "fine_tuning"
    REALTIME = "realtime"
    MODELS = "models"


class Media(msgspec.Struct, frozen=True):
    """Where bytes come from: exactly one of `data` (base64 text), `url`, `file_id`."""

    mime: str = ""  # "image/png"; empty when unknown (a URL)
    data: str = ""
    url: str = ""
    file_id: str = ""


class CacheMark(msgspec.Struct, frozen=True):
    """Ask the provider to cache the prompt up to and including this part."""

    ttl: str = "5m"  # or "1h"


class Citation(msgspec.Struct, frozen=True):
    """Where a piece of answer comes from. `raw` is the provider's own object, kept for its own dialect."""

    text: str = ""
    url: str = ""
    title: str = ""
    raw: JSONObject = msgspec.field(default_factory=dict)


class Text(msgspec.Struct, frozen=True, tag="text"):
    text: str
    cache: CacheMark | None = None
    citations: tuple[Citation, ...] = ()


class Image(msgspec.Struct, frozen=True, tag="image"):
    source: Media
    detail: str = ""  # "low" | "high" | "auto"
    cache: CacheMark | None = None


class Audio(msgspec.Struct, frozen=True, tag="audio"):
    """Input audio, or audio an assistant spoke (`transcript` set, `id` of the provider's copy)."""

    source: Media
    format: str = ""  # "wav" | "mp3" | …
    transcript: str = ""
    id: str = ""
    expires_at: int = 0  # Unix seconds; assistants' audio only


class Document(msgspec.Struct, frozen=True, tag="document"):
    source: Media
    title: str = ""
    context: str = ""
    text: str = ""  # a plain-text document
    citations: bool = False
    cache: CacheMark | None = None


class ToolCall(msgspec.Struct, frozen=True, tag="tool_call"):
    """The model asks for a tool. `arguments` is JSON text exactly as the model wrote it."""

    id: str
    name: str
    arguments: str = "{}"
    signature: str = ""  # opaque reasoning signature that must travel back with it (Gemini)
    cache: CacheMark | None = None


class Opaque(msgspec.Struct, frozen=True, tag="opaque"):
    """A block only one wire format knows (a search the provider ran): it goes back unchanged there, nowhere else."""

    dialect: Dialect
    raw: JSONObject
    field: str = ""  # its place in the client's body
    plain: Text | None = None  # what others can read of it
    lost: tuple[str, ...] = ()  # and what they cannot


class ToolResult(msgspec.Struct, frozen=True, tag="tool_result"):
    call_id: str
    parts: tuple[Text | Image | Document | Opaque, ...] = ()
    name: str = ""  # needed by Gemini; filled by dialects from the matching call
    error: bool = False
    cache: CacheMark | None = None


class Reasoning(msgspec.Struct, frozen=True, tag="reasoning"):
    """Visible thinking with its signature, or `redacted` opaque data. Both must be sent back unchanged."""

    text: str = ""
    signature: str = ""
    redacted: str = ""
    id: str = ""


class Refusal(msgspec.Struct, frozen=True, tag="refusal"):
    text: str


Part = Text | Image | Audio | Document | ToolCall | ToolResult | Reasoning | Refusal | Opaque
Role = Literal["system", "user", "assistant", "tool"]


class Message(msgspec.Struct, frozen=True):
    """`system` covers OpenAI's developer role; `tool` holds ToolResult parts only."""

    role: Role
    parts: tuple[Part, ...]
    name: str = ""


class Tool(msgspec.Struct, frozen=True):
    name: str
    description: str = ""
    parameters: JSONObject = msgspec.field(default_factory=dict)  # a JSON schema
    strict: bool | None = None
    cache: CacheMark | None = None


class ServerTool(msgspec.Struct, frozen=True):
    """A tool the provider runs itself (web search, code, …): its own object, for its own wire format only."""

    dialect: Dialect
    raw: JSONObject


class ToolChoice(msgspec.Struct, frozen=True):
    mode: Literal["auto", "none", "required", "tool"]  # required: any tool; tool: the one in `name`
    name: str = ""
    allowed: tuple[str, ...] = ()  # restricts `auto` and `required` to these


class ResponseFormat(msgspec.Struct, frozen=True):
    kind: Literal["text", "json", "json_schema"]
    name: str = "answer"
    schema: JSONObject = msgspec.field(default_factory=dict)
    strict: bool | None = None
    description: str = ""


class ReasoningSettings(msgspec.Struct, frozen=True):
    """`effort` where the caller gave a word, `budget_tokens` where a number; off means explicitly none."""

    effort: str = ""  # "none" | "minimal" | "low" | "medium" | "high" | "xhigh"
    budget_tokens: int | None = None
    off: bool = False
    adaptive: bool = False
    show: bool | None = None  # return thoughts / summaries


class AudioOutput(msgspec.Struct, frozen=True):
    voice: str = ""
    format: str = "wav"


class ChatRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One generation, dialect-free. `model` is what the caller named; the adapter is told the upstream's name."""

    model: str
    messages: tuple[Message, ...]
    tools: tuple[Tool | ServerTool, ...] = ()
    tool_choice: ToolChoice | None = None
    parallel_tools: bool | None = None
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop: tuple[str, ...] = ()
    n: int = 1
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    response_format: ResponseFormat | None = None
    reasoning: ReasoningSettings | None = None
    verbosity: str = ""
    modalities: tuple[str, ...] = ()  # "text", "audio", "image" wanted in the answer
    audio: AudioOutput | None = None
    user: str = ""
    metadata: dict[str, str] | None = None
    service_tier: str = ""
    store: bool | None = None
    stream: bool = False
    extra: JSONObject = msgspec.field(default_factory=dict)  # top-level fields only the inbound dialect knows
    extra_dialect: Dialect = Dialect.OTHER  # whose fields `extra` holds


class EmbeddingRequest(msgspec.Struct, frozen=True, kw_only=True):
    """`inputs` are texts or token lists."""

    model: str
    inputs: tuple[str | tuple[int, ...], ...]
    dimensions: int | None = None
    encoding: Literal["float", "base64"] = "float"
    task: str = ""  # Gemini's taskType
    title: str = ""
    user: str = ""


Finish = Literal["stop", "length", "tool_calls", "content_filter", "refusal", "stop_sequence", "pause", "error", ""]


class Usage(msgspec.Struct, kw_only=True):
    """Units of one attempt. `units` holds what has no column of its own, e.g. {"image": 1, "search": 2, "second": 3}.
    `reported_cost` (nano-dollars) is what the provider says it charged, where it says so (OpenRouter); else None.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0  # all lifetimes together
    cache_write_1h_tokens: int = 0  # of which one-hour
    reasoning_tokens: int = 0
    audio_input_tokens: int = 0
    audio_output_tokens: int = 0
    image_output_tokens: int = 0
    units: dict[str, int] = msgspec.field(default_factory=dict)
    reported_cost: int | None = None
    flags: tuple[str, ...] = ()  # what was wrong with the provider's figures, e.g. ("negative",)


class TokenLogprob(msgspec.Struct, frozen=True):
    token: str
    logprob: float
    bytes: tuple[int, ...] | None = None
    top: tuple[TokenLogprob, ...] = ()


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    index: int = 0
    parts: tuple[Part, ...] = ()
    finish: Finish = "stop"
    stop_sequence: str = ""
    logprobs: tuple[TokenLogprob, ...] | None = None


class ChatResponse(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    model: str
    choices: tuple[Choice, ...]
    usage: Usage | None
    created: int = 0  # Unix seconds; 0 when the provider does not say
    service_tier: str = ""


class EmbeddingResponse(msgspec.Struct, frozen=True, kw_only=True):
    """`vectors[i]` answers `inputs[i]`; floats, or base64 of little-endian float32 when that was asked for."""

    model: str
    vectors: tuple[tuple[float, ...] | str, ...]
    usage: Usage | None
