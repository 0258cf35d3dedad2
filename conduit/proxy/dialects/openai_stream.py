"""Canonical events as chat.completion.chunk frames, a usage chunk where the client asked for it, and `[DONE]`."""

from __future__ import annotations

import msgspec

from conduit.proxy.dialects.openai_answer import (
    FINISH,
    annotation,
    audio,
    extra_content,
    image,
    logprobs,
    unix_now,
    usage,
)
from conduit.proxy.errors import ApiError, answer_failed
from providers.adapters.events import (
    CitationSeen,
    Ended,
    Finished,
    MediaDelta,
    ReasoningDelta,
    RefusalDelta,
    Started,
    StreamEvent,
    TextDelta,
    ToolDelta,
    ToolStarted,
    UsageSeen,
)
from providers.adapters.openai_wire_messages import reasoning_detail
from providers.adapters.types import Audio, JSONObject, Reasoning, Usage

_encode = msgspec.json.Encoder().encode
# What stands behind a text, where the client did not ask for usage and where it did.
_AFTER = (
    b'},"logprobs":null,"finish_reason":null}]}\n\n',
    b'},"logprobs":null,"finish_reason":null}],"usage":null}\n\n',
)


def error_object(error: ApiError) -> JSONObject:
    return {"error": {"message": error.message, "type": error.type, "param": error.param, "code": error.code}}


class OpenAIRenderer:
    """`model` and `request_id` name the answer until the provider does."""

    def __init__(self, *, model: str, request_id: str, include_usage: bool) -> None:
        self._model = model
        self._id = f"chatcmpl-{request_id}"
        self._created = 0
        self._texts: dict[int, bytes] = {}  # what stands before each text of a choice
        self._include_usage = include_usage
        self._usage: Usage | None = None
        self._spoke: set[int] = set()  # choices whose role was told
        self._written: dict[int, int] = {}  # characters of content by choice, for annotations
        self._failed: list[int] = []  # choices
        self._whole = False  # some other choice is
        self._block: dict[int, int] = {}  # number of the open reasoning block by choice

    def feed(self, events: list[StreamEvent]) -> bytes:
        if len(events) == 1:
            return self._event(events[0])
        return b"".join([self._event(event) for event in events])

    def broken(self, error: ApiError) -> bytes:
        return b"data: %b\n\n" % _encode(error_object(error))

    def _event(self, event: StreamEvent) -> bytes:
        if isinstance(event, TextDelta):
            return self._text(event)
        if isinstance(event, Started):
            self._id, self._model = event.id or self._id, event.model or self._model
            self._created = event.created
            self._texts.clear()
            return self._chunk(0, {"content": ""})
        if isinstance(event, Finished):
            return self._finish(event)
        if isinstance(event, UsageSeen):
            self._usage = event.usage
            return b""
        if isinstance(event, Ended):
            return self._end()
        delta = self._delta(event)
        return self._chunk(event.choice, delta) if delta else b""

    def _text(self, event: TextDelta) -> bytes:
        """Nearly all that comes: only the text differs, so the rest is encoded once."""
        choice = event.choice
        self._written[choice] = self._written.get(choice, 0) + len(event.text)
        if event.logprobs is not None or choice not in self._spoke:
            return self._chunk(choice, {"content": event.text}, told=logprobs(event.logprobs))
        before = self._texts.get(choice)
        if before is None:
            head = _encode(self._head())[:-1]
            before = self._texts[choice] = b'data: %b,"choices":[{"index":%d,"delta":{"content":' % (head, choice)
        return b"%b%b%b" % (before, _encode(event.text), _AFTER[self._include_usage])

    def _delta(self, event: StreamEvent) -> JSONObject:
        if isinstance(event, ToolStarted):
            call: JSONObject = {
                "index": event.index,
                "id": event.id,
                "type": "function",
                "function": {"name": event.name, "arguments": ""},
            }
            if event.signature:
                call["extra_content"] = extra_content(event.signature)
            return {"tool_calls": [call]}
        if isinstance(event, ToolDelta):
            return {"tool_calls": [{"index": event.index, "function": {"arguments": event.arguments}}]}
        if isinstance(event, ReasoningDelta):
            return self._thought(event)
        if isinstance(event, RefusalDelta):
            return {"refusal": event.text}
        if isinstance(event, MediaDelta):
            return {"audio": audio(event.part)} if isinstance(event.part, Audio) else {"images": [image(event.part)]}
        if isinstance(event, CitationSeen) and event.citation.url:
            end = self._written.get(event.choice, 0)
            return {"annotations": [annotation(event.citation, max(0, end - len(event.citation.text)), end)]}
        return {}

    def _thought(self, event: ReasoningDelta) -> JSONObject:
        """A signature, or redacted data, closes its block."""
        block = self._block.get(event.choice, 0)
        if event.signature or event.redacted:
            self._block[event.choice] = block + 1
        detail = reasoning_detail(Reasoning(text=event.text, signature=event.signature, redacted=event.redacted))
        detail["index"] = block
        delta: JSONObject = {"reasoning_details": [detail]}
        if event.text:
            delta["reasoning_content"] = event.text
        return delta

    def _finish(self, event: Finished) -> bytes:
        if event.finish == "error":  # told at the end, when it is known whether any choice is whole
            self._failed.append(event.choice)
            return b""
        self._whole = True
        return self._chunk(event.choice, {}, finish=FINISH[event.finish])

    def _end(self) -> bytes:
        if self._failed and not self._whole:
            return self.broken(answer_failed())
        failed = b"".join([self._chunk(choice, {}, finish=FINISH["error"]) for choice in self._failed])
        return failed + self._ending()

    def _ending(self) -> bytes:
        if not self._include_usage or self._usage is None:
            return b"data: [DONE]\n\n"
        chunk = {**self._head(), "choices": [], "usage": usage(self._usage)}
        return b"data: %b\n\ndata: [DONE]\n\n" % _encode(chunk)

    def _chunk(
        self, index: int, delta: JSONObject, *, finish: str | None = None, told: JSONObject | None = None
    ) -> bytes:
        if index not in self._spoke:
            self._spoke.add(index)
            delta = {"role": "assistant", **delta}
        choice = {"index": index, "delta": delta, "logprobs": told, "finish_reason": finish}
        chunk: JSONObject = {**self._head(), "choices": [choice]}
        if self._include_usage:
            chunk["usage"] = None
        return b"data: %b\n\n" % _encode(chunk)

    def _head(self) -> JSONObject:
        if not self._created:
            self._created = unix_now()
        return {
            "id": self._id,
            "object": "chat.completion.chunk",
            "created": self._created,
            "model": self._model,
        }
