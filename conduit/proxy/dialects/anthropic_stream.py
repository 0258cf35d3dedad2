"""Canonical events as Anthropic's event stream.

message_start · per block: content_block_start, content_block_delta…, content_block_stop · message_delta · message_stop.
Blocks follow one another. Usage is known last, so message_start tells zeros and message_delta, which is cumulative, the
figures. Calls whose arguments come interleaved wait until the one before them is whole.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from conduit.proxy.dialects.anthropic_render import (
    STOP_REASONS,
    blocks,
    call_signature,
    citation_body,
    stop_details,
    usage_body,
)
from conduit.proxy.errors import answer_failed
from providers.adapters.events import (
    CitationSeen,
    Ended,
    Finished,
    MediaDelta,
    OpaqueSeen,
    ReasoningDelta,
    RefusalDelta,
    Started,
    StreamEvent,
    TextDelta,
    ToolDelta,
    ToolStarted,
    UsageSeen,
)
from providers.adapters.types import Audio, JSONObject, Usage

_json = msgspec.json.Encoder()


_TEXT = (
    b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,"delta":{"type":"text_delta","text":'
)


def frame(name: str, body: JSONObject) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), _json.encode({"type": name, **body}))


class AnthropicStream:
    """`error_frame` renders an ApiError; the dialect has one choice, so events of others are left out."""

    def __init__(self, model: str, error_frame: Callable[[Any], bytes]) -> None:
        self._model = model
        self._error_frame = error_frame
        self._index = -1  # of the newest block
        self._open = ""  # its type; empty when it is closed
        self._texts = b""  # what stands before each of its texts
        self._tools: dict[int, int] = {}  # block of each tool call
        self._calling = -1  # the newest of them
        self._arguments: list[str] = []  # its own so far
        self._waiting: dict[int, tuple[ToolStarted, list[str]]] = {}  # calls behind it, and their arguments
        self._started = False
        self._finished = Finished(finish="stop")
        self._refusal = ""
        self._usage = Usage()
        self._renderers: dict[type, Callable[[Any], Iterable[bytes]]] = {
            Started: self._start,
            TextDelta: self._text,
            RefusalDelta: self._refuse,
            ReasoningDelta: self._think,
            ToolStarted: self._start_tool,
            ToolDelta: self._tool_arguments,
            MediaDelta: self._media,
            CitationSeen: self._cite,
            OpaqueSeen: self._opaque,
            Finished: self._finish,
            UsageSeen: self._see_usage,
            Ended: self._end,
        }

    def feed(self, events: list[StreamEvent]) -> bytes:
        out: list[bytes] = []
        for event in events:
            if type(event) is TextDelta and self._open == "text" and event.text and not event.choice:
                out.append(b"%b%b}}\n\n" % (self._texts, _json.encode(event.text)))  # nearly all that comes
            elif not getattr(event, "choice", 0):
                if self._waiting and not _is_among_calls(event):
                    out += self._call_all()
                out += self._renderers[type(event)](event)
        return out[0] if len(out) == 1 else b"".join(out)

    def broken(self, error: Any) -> bytes:
        return self._error_frame(error)

    def _start(self, event: Started) -> Iterable[bytes]:
        self._started = True
        message: JSONObject = {
            "id": event.id or f"msg_{uuid.uuid4().hex}",
            "type": "message",
            "role": "assistant",
            "model": event.model or self._model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": usage_body(self._usage),
        }
        return [frame("message_start", {"message": message})]

    def _see_usage(self, event: UsageSeen) -> Iterable[bytes]:
        self._usage = event.usage
        return ()

    def _text(self, event: TextDelta) -> Iterable[bytes]:
        if not event.text:
            return ()
        opened = self._ensure("text", {"type": "text", "text": ""})
        return [*opened, self._delta({"type": "text_delta", "text": event.text})]

    def _think(self, event: ReasoningDelta) -> Iterable[bytes]:
        if event.redacted:
            return self._whole({"type": "redacted_thinking", "data": event.redacted})
        out = self._ensure("thinking", {"type": "thinking", "thinking": "", "signature": ""})
        if event.text:
            out.append(self._delta({"type": "thinking_delta", "thinking": event.text}))
        if event.signature:  # the signature ends its block
            out.append(self._delta({"type": "signature_delta", "signature": event.signature}))
            out += self._close()
        return out

    def _start_tool(self, event: ToolStarted) -> Iterable[bytes]:
        if self._open == "tool_use" and not _is_whole(self._arguments):
            self._waiting[event.index] = event, []
            return ()
        return self._call(event)

    def _call(self, event: ToolStarted) -> list[bytes]:
        signed = self._signed(event.signature)
        opened = self._begin("tool_use", {"type": "tool_use", "id": event.id, "name": event.name, "input": {}})
        self._tools[event.index] = self._index
        self._calling, self._arguments = event.index, []
        return [*signed, *opened]

    def _signed(self, signature: str) -> list[bytes]:
        if not signature:
            return []
        thought = call_signature(signature)
        out = self._begin("thinking", {**thought, "signature": ""})
        out.append(self._delta({"type": "signature_delta", "signature": thought["signature"]}))
        return out + self._close()

    def _tool_arguments(self, event: ToolDelta) -> Iterable[bytes]:
        if event.index in self._waiting:
            self._waiting[event.index][1].append(event.arguments)
            return ()
        index = self._tools.get(event.index)
        if index is None or not event.arguments:
            return ()
        delta = {"type": "input_json_delta", "partial_json": event.arguments}
        out = [frame("content_block_delta", {"index": index, "delta": delta})]
        if event.index == self._calling:
            self._arguments.append(event.arguments)
        while self._waiting and _is_whole(self._arguments):
            out += self._call_next()
        return out

    def _call_next(self) -> list[bytes]:
        started, arguments = self._waiting.pop(next(iter(self._waiting)))
        out = self._call(started)
        if text := "".join(arguments):
            self._arguments.append(text)
            out.append(self._delta({"type": "input_json_delta", "partial_json": text}))
        return out

    def _call_all(self) -> list[bytes]:
        """Something else comes, or the end: no more arguments are to be expected."""
        out: list[bytes] = []
        while self._waiting:
            out += self._call_next()
        return out

    def _media(self, event: MediaDelta) -> Iterable[bytes]:
        """Of media only what was spoken can be shown."""
        if isinstance(event.part, Audio) and event.part.transcript:
            return self._text(TextDelta(event.part.transcript))
        return ()

    def _cite(self, event: CitationSeen) -> Iterable[bytes]:
        citation = citation_body(event.citation)
        if citation is None:
            return ()
        opened = self._ensure("text", {"type": "text", "text": ""})
        return [*opened, self._delta({"type": "citations_delta", "citation": citation})]

    def _opaque(self, event: OpaqueSeen) -> Iterable[bytes]:
        return [piece for block in blocks(event.part) for piece in self._whole(block)]

    def _refuse(self, event: RefusalDelta) -> Iterable[bytes]:
        self._refusal += event.text
        return ()

    def _finish(self, event: Finished) -> Iterable[bytes]:
        self._finished = event
        return self._close()

    def _end(self, event: Ended) -> Iterable[bytes]:
        if self._finished.finish == "error":
            return [self.broken(answer_failed())]
        delta: JSONObject = {
            "stop_reason": "refusal" if self._refusal else STOP_REASONS[self._finished.finish],
            "stop_sequence": self._finished.stop_sequence or None,
        }
        if self._refusal:
            delta["stop_details"] = stop_details(self._refusal)
        usage = usage_body(self._usage)
        usage.pop("cache_creation", None)  # told at the start or not at all
        begun = () if self._started else self._start(Started(id="", model=""))
        closed = self._close()
        return [*begun, *closed, frame("message_delta", {"delta": delta, "usage": usage}), frame("message_stop", {})]

    def _ensure(self, kind: str, block: JSONObject) -> list[bytes]:
        return [] if self._open == kind else self._begin(kind, block)

    def _begin(self, kind: str, block: JSONObject) -> list[bytes]:
        closed = self._close()
        self._index += 1
        self._open = kind
        self._texts = _TEXT % self._index
        return [*closed, frame("content_block_start", {"index": self._index, "content_block": block})]

    def _whole(self, block: JSONObject) -> list[bytes]:
        return [*self._begin(str(block["type"]), block), *self._close()]

    def _close(self) -> list[bytes]:
        if not self._open:
            return []
        self._open = ""
        return [frame("content_block_stop", {"index": self._index})]

    def _delta(self, delta: JSONObject) -> bytes:
        return frame("content_block_delta", {"index": self._index, "delta": delta})


def _is_among_calls(event: StreamEvent) -> bool:
    return isinstance(event, ToolStarted | ToolDelta | UsageSeen) or (isinstance(event, TextDelta) and not event.text)


def _is_whole(arguments: list[str]) -> bool:
    if not arguments or not arguments[-1].rstrip().endswith("}"):
        return False
    try:
        return isinstance(msgspec.json.decode("".join(arguments)), dict)
    except (msgspec.DecodeError, RecursionError):
        return False
