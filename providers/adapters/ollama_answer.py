"""What Ollama answers: whole answers, the lines of streams, usage, embeddings, lists of models.

Reference: the `ollama` package's ChatResponse, EmbedResponse and ListResponse; `reasoning_content` beside its
`thinking` is what servers of the same API say. A call's id and an answer's id are made up where the server gives none:
from the time and the content, so that the same bytes always give the same ones.
"""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Any

import msgspec

from providers.adapters.counts import Counts, checked
from providers.adapters.refusals import shortened
from providers.adapters.types import (
    ChatResponse,
    Choice,
    EmbeddingRequest,
    EmbeddingResponse,
    Finish,
    Part,
    Reasoning,
    Text,
    TokenLogprob,
    ToolCall,
    Usage,
)
from providers.errors import InvalidResponse, UpstreamRefusal, refusal

_FINISH: dict[str, Finish] = {"stop": "stop", "length": "length", "load": "stop", "unload": "stop"}
FAULTS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class FunctionWire(msgspec.Struct):
    name: str = ""
    arguments: msgspec.Raw = msgspec.Raw(b"{}")


class CallWire(msgspec.Struct):
    function: FunctionWire
    id: str | None = None


class MessageWire(msgspec.Struct):
    content: str | None = None
    thinking: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[CallWire] | None = None


class LogprobWire(msgspec.Struct):
    token: str = ""
    logprob: float = 0.0
    bytes: list[int] | None = None
    top_logprobs: list[LogprobWire] | None = None


class ChatWire(msgspec.Struct):
    """A whole answer, or a line of a stream."""

    model: str = ""
    created_at: str = ""
    message: MessageWire | None = None
    done: bool = False
    done_reason: str | None = None
    prompt_eval_count: Any = None
    eval_count: Any = None
    logprobs: list[LogprobWire] | None = None
    error: Any = None


class _EmbedWire(msgspec.Struct):
    model: str = ""
    embeddings: list[tuple[float, ...]] | None = None
    prompt_eval_count: Any = None
    error: Any = None


class _ModelWire(msgspec.Struct):
    model: str = ""
    name: str = ""


class _ModelsWire(msgspec.Struct):
    models: list[_ModelWire] | None


_chat = msgspec.json.Decoder(ChatWire)
_embed = msgspec.json.Decoder(_EmbedWire)
_models = msgspec.json.Decoder(_ModelsWire)


def read_line(data: bytes) -> ChatWire:
    """Raises InvalidResponse for what is no answer, UpstreamRefusal for an error in its place."""
    try:
        wire = _chat.decode(data)
    except FAULTS as error:
        raise InvalidResponse("The provider's answer is not what Ollama's API says.") from error
    if wire.error:
        raise _refused(wire.error)
    return wire


def _refused(words: object) -> UpstreamRefusal:
    """An error that came with status 200, or within a stream: the server's own trouble, whatever it says."""
    return refusal(500, shortened(str(words)))


def read_chat(body: bytes) -> ChatResponse:
    wire = read_line(body)
    if wire.message is None or not wire.done:
        raise InvalidResponse("The provider's answer has no message, or is not finished.")
    message, parts = wire.message, list[Part]()
    if thought := thought_of(message):
        parts.append(Reasoning(text=thought))
    if message.content:
        parts.append(Text(text=message.content))
    calls = [call_of(wire, call, place) for place, call in enumerate(message.tool_calls or ())]
    parts += calls
    choice = Choice(parts=tuple(parts), finish=finish_of(wire, calls=bool(calls)), logprobs=logprobs_of(wire))
    return ChatResponse(
        id=answer_id(wire),
        model=wire.model,
        created=created_of(wire),
        choices=(choice,),
        usage=checked(usage_of(wire), generated=bool(parts)),
    )


# --- parts of answers and lines -----------------------------------------------------------------------------------


def thought_of(message: MessageWire) -> str:
    return message.thinking or message.reasoning_content or ""


def call_of(wire: ChatWire, call: CallWire, place: int) -> ToolCall:
    """`place`: how many calls came before it in the answer."""
    raw = bytes(call.function.arguments)
    arguments = "{}" if raw == b"null" else raw.decode("utf-8", "replace")
    made_up = _digest(wire.created_at, wire.model, str(place), call.function.name, arguments)
    return ToolCall(id=call.id or f"call_{made_up}", name=call.function.name, arguments=arguments)


def answer_id(wire: ChatWire) -> str:
    return f"ollama-{_digest(wire.created_at, wire.model)}"


def _digest(*texts: str) -> str:
    return hashlib.blake2b("\0".join(texts).encode(), digest_size=10).hexdigest()


def created_of(wire: ChatWire) -> int:
    """Unix seconds; 0 for what is no time."""
    try:
        return int(datetime.fromisoformat(wire.created_at).timestamp())
    except (ValueError, OverflowError):
        return 0


def finish_of(wire: ChatWire, *, calls: bool) -> Finish:
    return "tool_calls" if calls else _FINISH.get(wire.done_reason or "stop", "stop")


def logprobs_of(wire: ChatWire) -> tuple[TokenLogprob, ...] | None:
    return None if wire.logprobs is None else tuple([_logprob(item) for item in wire.logprobs])


def _logprob(item: LogprobWire) -> TokenLogprob:
    return TokenLogprob(
        token=item.token,
        logprob=item.logprob,
        bytes=None if item.bytes is None else tuple(item.bytes),
        top=tuple([_logprob(other) for other in item.top_logprobs or ()]),
    )


def usage_of(wire: ChatWire) -> Usage:
    """Of the last line. Thinking is counted with the rest of what was generated, and not told apart."""
    counts = Counts()
    given = counts.read(wire.prompt_eval_count, required=True)
    written = counts.read(wire.eval_count, required=True)
    return Usage(input_tokens=given, output_tokens=written, flags=counts.flags)


# --- embeddings and models ----------------------------------------------------------------------------------------


def embedding_response(request: EmbeddingRequest, body: bytes) -> EmbeddingResponse:
    try:
        wire = _embed.decode(body)
    except FAULTS as error:
        raise InvalidResponse("The provider's embeddings cannot be read.") from error
    if wire.error:
        raise _refused(wire.error)
    if wire.embeddings is None or len(wire.embeddings) != len(request.inputs):
        raise InvalidResponse("The provider's answer has not one embedding for each input.")
    counts = Counts()
    usage = Usage(input_tokens=counts.read(wire.prompt_eval_count, required=True), flags=counts.flags)
    return EmbeddingResponse(
        model=wire.model or request.model, vectors=tuple(wire.embeddings), usage=checked(usage, generated=False)
    )


def model_names(body: bytes) -> list[str]:
    try:
        found = _models.decode(body).models
    except FAULTS as error:
        raise InvalidResponse(f"The provider's list of models cannot be read: {error}") from error
    return [model.model or model.name for model in found or ()]
