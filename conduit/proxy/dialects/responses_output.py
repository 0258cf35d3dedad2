"""An answer as the output items of OpenAI's responses, and each step of its making as an event.

One way for both kinds of answer: a whole one goes through the same steps and nobody listens to the events, so a stream
and a whole answer say the same. Calls stay open until the end, because their arguments may arrive in turns.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from conduit.core.ids import uuid7
from conduit.proxy.dialects.openai_answer import extra_content
from conduit.proxy.dialects.responses_reasoning import sealed
from providers.adapters.types import (
    Citation,
    Dialect,
    Finish,
    Image,
    JSONObject,
    Opaque,
    Part,
    Reasoning,
    Refusal,
    Text,
    TokenLogprob,
    ToolCall,
)

Tell = Callable[[str, JSONObject], None]  # an event's type and members, without its number
INCOMPLETE: dict[Finish, str] = {
    "length": "max_output_tokens",
    "content_filter": "content_filter",
    "refusal": "content_filter",
}


def identity(kind: str) -> str:
    return f"{kind}_{uuid7().hex}"


class _Open:
    """An item that is still growing. `place` is its output_index."""

    def __init__(self, item: JSONObject, place: int) -> None:
        self.item, self.place = item, place
        self.pieces: list[str] = []  # of the part that is being written
        self.size = 0  # characters in them
        self.logprobs: list[JSONObject] = []
        self.sealed = ""

    def where(self, **more: Any) -> JSONObject:
        return {"item_id": self.item["id"], "output_index": self.place, **more}


class Output:
    """`custom` names the tools whose calls are told as free text."""

    def __init__(self, tell: Tell, *, custom: frozenset[str]) -> None:
        self.items: list[JSONObject] = []
        self._tell = tell
        self._custom = custom
        self._message: _Open | None = None
        self._thought: _Open | None = None
        self._calls: dict[int, _Open] = {}

    # --- whole answers ----------------------------------------------------------------------------------------------

    def part(self, part: Part, logprobs: tuple[TokenLogprob, ...] | None) -> None:
        if isinstance(part, Text):
            self.text(part.text, logprobs)
            for citation in part.citations:
                self.citation(citation, len(part.text))
        elif isinstance(part, Refusal):
            self.refusal(part.text)
        elif isinstance(part, Reasoning):
            self.thought(part.text, part.signature, part.redacted)
        elif isinstance(part, ToolCall):
            index = len(self._calls)
            self.call(index, part.id, part.name, part.signature)
            self.arguments(index, part.arguments)
        elif isinstance(part, Image):
            self.image(part)
        elif isinstance(part, Opaque):
            self.opaque(part)

    # --- steps ------------------------------------------------------------------------------------------------------

    def text(self, text: str, logprobs: tuple[TokenLogprob, ...] | None = None) -> None:
        if not text and not logprobs:
            return
        told = [_logprob(token) for token in logprobs or ()]
        message, at = self._writing("output_text")
        message.pieces.append(text)
        message.size += len(text)
        message.logprobs += told
        self._tell("response.output_text.delta", message.where(content_index=at, delta=text, logprobs=told))

    def refusal(self, text: str) -> None:
        if not text:
            return
        message, at = self._writing("refusal")
        message.pieces.append(text)
        self._tell("response.refusal.delta", message.where(content_index=at, delta=text))

    def citation(self, citation: Citation, length: int) -> None:
        """Belongs to the last `length` characters of what was written."""
        message = self._message
        if not citation.url or message is None or message.item["content"][-1]["type"] != "output_text":
            return
        at = len(message.item["content"]) - 1
        notes = message.item["content"][at]["annotations"]
        notes.append(_annotation(citation, max(0, message.size - length), message.size))
        where = message.where(content_index=at, annotation_index=len(notes) - 1, annotation=notes[-1])
        self._tell("response.output_text.annotation.added", where)

    def thought(self, text: str, signature: str, redacted: str) -> None:
        """A signature, or redacted data, closes its thought."""
        if not (text or signature or redacted):
            return
        self._end_message()
        thought = self._thought
        if thought is None:
            item: JSONObject = {"id": identity("rs"), "type": "reasoning", "summary": []}
            thought = self._thought = self._begin(item)
        if text:
            if not thought.item["summary"]:
                thought.item["summary"].append({"type": "summary_text", "text": ""})
                added = thought.where(summary_index=0, part={"type": "summary_text", "text": ""})
                self._tell("response.reasoning_summary_part.added", added)
            thought.pieces.append(text)
            self._tell("response.reasoning_summary_text.delta", thought.where(summary_index=0, delta=text))
        if signature or redacted:
            thought.sealed = sealed(signature, redacted)
            self._end_thought()

    def call(self, index: int, call_id: str, name: str, signature: str = "") -> None:
        self._end_message()
        self._end_thought()
        if name in self._custom:
            item: JSONObject = {"id": identity("ctc"), "type": "custom_tool_call", "input": ""}
        else:
            item = {"id": identity("fc"), "type": "function_call", "arguments": ""}
        item |= {"call_id": call_id, "name": name, "status": "in_progress"}
        if signature:
            item["extra_content"] = extra_content(signature)
        self._calls[index] = self._begin(item)

    def arguments(self, index: int, text: str) -> None:
        call = self._calls.get(index)
        if call is None or not text:
            return
        call.pieces.append(text)
        if call.item["type"] == "function_call":
            self._tell("response.function_call_arguments.delta", call.where(delta=text))

    def image(self, image: Image) -> None:
        self._whole({"id": identity("ig"), "type": "image_generation_call", "result": image.source.data})

    def opaque(self, part: Opaque) -> None:
        """An item of this very format that a provider made."""
        if part.dialect is Dialect.RESPONSES:
            self._whole(part.raw)

    def finish(self, finish: Finish) -> None:
        """Closes what is open, in order. The last item of an answer that was cut is incomplete."""
        cut = finish in INCOMPLETE or finish == "error"
        still = [one for one in (self._message, self._thought, *self._calls.values()) if one is not None]
        for one in sorted(still, key=lambda one: one.place):
            status = "incomplete" if cut and one.place == len(self.items) - 1 else "completed"
            if one is self._message:
                self._end_message(status)
            elif one is self._thought:
                self._end_thought()
            else:
                self._end_call(one, status)
        self._calls.clear()

    # --- items and parts ----------------------------------------------------------------------------------------------

    def _begin(self, item: JSONObject) -> _Open:
        opened = _Open(item, len(self.items))
        self.items.append(item)
        self._tell("response.output_item.added", {"output_index": opened.place, "item": _copy(item)})
        return opened

    def _end(self, opened: _Open) -> None:
        self._tell("response.output_item.done", {"output_index": opened.place, "item": opened.item})

    def _whole(self, item: JSONObject) -> None:
        self._end_message()
        self._end_thought()
        opened = self._begin({**item, "status": "in_progress"})
        opened.item["status"] = item.get("status", "completed")
        self._end(opened)

    def _writing(self, kind: str) -> tuple[_Open, int]:
        """The message with a part of this kind open, and the part's content_index."""
        self._end_thought()
        message = self._message
        if message is None:
            item: JSONObject = {"id": identity("msg"), "type": "message", "status": "in_progress"}
            message = self._message = self._begin(item | {"role": "assistant", "content": []})
        content: list[JSONObject] = message.item["content"]
        if not content or content[-1]["type"] != kind:
            self._end_part(message)
            part: JSONObject = {"type": kind}
            part |= {"text": "", "annotations": [], "logprobs": []} if kind == "output_text" else {"refusal": ""}
            content.append(part)
            added = message.where(content_index=len(content) - 1, part=_copy(part))
            self._tell("response.content_part.added", added)
        return message, len(content) - 1

    def _end_part(self, message: _Open) -> None:
        content: list[JSONObject] = message.item["content"]
        if not content:
            return
        part, where = content[-1], message.where(content_index=len(content) - 1)
        said, message.pieces, message.size = "".join(message.pieces), [], 0
        if part["type"] == "refusal":
            part["refusal"] = said
            self._tell("response.refusal.done", {**where, "refusal": said})
        else:
            part["text"], part["logprobs"], message.logprobs = said, message.logprobs, []
            self._tell("response.output_text.done", {**where, "text": said, "logprobs": part["logprobs"]})
        self._tell("response.content_part.done", {**where, "part": part})

    def _end_message(self, status: str = "completed") -> None:
        message, self._message = self._message, None
        if message is not None:
            self._end_part(message)
            message.item["status"] = status
            self._end(message)

    def _end_thought(self) -> None:
        thought, self._thought = self._thought, None
        if thought is None:
            return
        if thought.sealed:
            thought.item["encrypted_content"] = thought.sealed
        if thought.item["summary"]:
            said, part = "".join(thought.pieces), thought.item["summary"][0]
            part["text"] = said
            where = thought.where(summary_index=0)
            self._tell("response.reasoning_summary_text.done", {**where, "text": said})
            self._tell("response.reasoning_summary_part.done", {**where, "part": part})
        self._end(thought)

    def _end_call(self, call: _Open, status: str) -> None:
        written = "".join(call.pieces)
        call.item["status"] = status
        if call.item["type"] == "function_call":
            call.item["arguments"] = written or "{}"
            done = call.where(name=call.item["name"], arguments=call.item["arguments"])
            self._tell("response.function_call_arguments.done", done)
        else:
            call.item["input"] = text = _free_text(written)
            self._tell("response.custom_tool_call_input.delta", call.where(delta=text))
            self._tell("response.custom_tool_call_input.done", call.where(input=text))
        self._end(call)


def _copy(item: JSONObject) -> JSONObject:
    """As it is now; its lists grow."""
    return {name: list(value) if isinstance(value, list) else value for name, value in item.items()}


def _free_text(arguments: str) -> str:
    """What a model wrote for the one argument `input`; its own words where it wrote anything else."""
    try:
        decoded = msgspec.json.decode(arguments or "{}")
    except msgspec.DecodeError:
        return arguments
    text = decoded.get("input", "") if isinstance(decoded, dict) else None
    return text if isinstance(text, str) else arguments


def _annotation(citation: Citation, start: int, end: int) -> JSONObject:
    raw = citation.raw.get("url_citation")  # as chat completions nest it
    place = raw if isinstance(raw, dict) else {}
    return {
        "type": "url_citation",
        "url": citation.url,
        "title": citation.title,
        "start_index": place.get("start_index", start),
        "end_index": place.get("end_index", end),
    }


def _logprob(token: TokenLogprob) -> JSONObject:
    top = [_one_logprob(other) for other in token.top]
    return {**_one_logprob(token), "top_logprobs": top}


def _one_logprob(token: TokenLogprob) -> JSONObject:
    coded = token.token.encode() if token.bytes is None else token.bytes
    return {"token": token.token, "logprob": token.logprob, "bytes": list(coded)}
