"""Answers of `/v1/completions`: the text_completion object, whole and in pieces.

There is text only: refusals are told as text, thoughts and citations are left out. Log probabilities have this
endpoint's older shape, four lists side by side.
"""

from __future__ import annotations

import msgspec

from conduit.proxy.dialects.openai_answer import unix_now, usage
from conduit.proxy.dialects.openai_stream import error_object
from conduit.proxy.errors import ApiError, answer_failed
from providers.adapters.events import Ended, Finished, RefusalDelta, Started, StreamEvent, TextDelta, UsageSeen
from providers.adapters.types import ChatResponse, Choice, Finish, JSONObject, Refusal, Text, TokenLogprob, Usage

# Three words are known. An answer that failed midway is incomplete, which "length" says best.
_FINISH: dict[Finish, str] = {"length": "length", "error": "length"}
_FINISH |= {"content_filter": "content_filter", "refusal": "content_filter"}
_encode = msgspec.json.Encoder().encode


def text_completion(response: ChatResponse) -> bytes:
    body: JSONObject = {
        "id": response.id or "cmpl",
        "object": "text_completion",
        "created": response.created or unix_now(),
        "model": response.model,
        "choices": [_whole(choice) for choice in response.choices],
    }
    if response.usage is not None:
        body["usage"] = usage(response.usage)
    return _encode(body)


def _whole(choice: Choice) -> JSONObject:
    text = "".join([part.text for part in choice.parts if isinstance(part, Text | Refusal)])
    return _choice(choice.index, text, told=_logprobs(choice.logprobs, 0), finish=_FINISH.get(choice.finish, "stop"))


def _choice(index: int, text: str, *, told: JSONObject | None = None, finish: str | None = None) -> JSONObject:
    return {"text": text, "index": index, "logprobs": told, "finish_reason": finish}


def _logprobs(tokens: tuple[TokenLogprob, ...] | None, offset: int) -> JSONObject | None:
    """`offset`: characters of the choice's text that came before."""
    if tokens is None:
        return None
    offsets: list[int] = []
    for token in tokens:
        offsets.append(offset)
        offset += len(token.token)
    return {
        "tokens": [token.token for token in tokens],
        "token_logprobs": [token.logprob for token in tokens],
        "top_logprobs": [{other.token: other.logprob for other in token.top} for token in tokens],
        "text_offset": offsets,
    }


class CompletionRenderer:
    """`model` and `request_id` name the answer until the provider does."""

    def __init__(self, *, model: str, request_id: str, include_usage: bool) -> None:
        self._model, self._id, self._created = model, f"cmpl-{request_id}", 0
        self._include_usage = include_usage
        self._usage: Usage | None = None
        self._written: dict[int, int] = {}  # characters of text by choice
        self._failed: list[int] = []  # choices
        self._whole = False  # some other choice is

    def feed(self, events: list[StreamEvent]) -> bytes:
        return b"".join([self._event(event) for event in events])

    def broken(self, error: ApiError) -> bytes:
        return b"data: %b\n\n" % _encode(error_object(error))

    def _event(self, event: StreamEvent) -> bytes:
        if isinstance(event, Started):
            self._id, self._model = event.id or self._id, event.model or self._model
            self._created = event.created
        elif isinstance(event, TextDelta):
            return self._text(event.choice, event.text, event.logprobs)
        elif isinstance(event, RefusalDelta):
            return self._text(event.choice, event.text, None)
        elif isinstance(event, Finished):
            return self._finish(event)
        elif isinstance(event, UsageSeen):
            self._usage = event.usage
        elif isinstance(event, Ended):
            return self._end()
        return b""

    def _text(self, choice: int, text: str, tokens: tuple[TokenLogprob, ...] | None) -> bytes:
        before = self._written.get(choice, 0)
        self._written[choice] = before + len(text)
        return self._chunk([_choice(choice, text, told=_logprobs(tokens, before))])

    def _finish(self, event: Finished) -> bytes:
        if event.finish == "error":  # told at the end, when it is known whether any choice is whole
            self._failed.append(event.choice)
            return b""
        self._whole = True
        return self._chunk([_choice(event.choice, "", finish=_FINISH.get(event.finish, "stop"))])

    def _end(self) -> bytes:
        if self._failed and not self._whole:
            return self.broken(answer_failed())
        last = b"".join([self._chunk([_choice(choice, "", finish=_FINISH["error"])]) for choice in self._failed])
        if self._include_usage and self._usage is not None:
            last += self._chunk([], told=usage(self._usage))
        return last + b"data: [DONE]\n\n"

    def _chunk(self, choices: list[JSONObject], *, told: JSONObject | None = None) -> bytes:
        if not self._created:
            self._created = unix_now()
        chunk: JSONObject = {"id": self._id, "object": "text_completion", "created": self._created}
        chunk |= {"model": self._model, "choices": choices}
        if self._include_usage:
            chunk["usage"] = told
        return b"data: %b\n\n" % _encode(chunk)
