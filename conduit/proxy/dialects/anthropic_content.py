"""Anthropic's content blocks as canonical parts, and its turns as canonical messages."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from conduit.proxy.dialects.anthropic_wire import (
    CALL_SIGNATURE,
    BlockWire,
    CacheWire,
    CitationsWire,
    SourceWire,
    absent,
    inner,
    required,
)
from conduit.proxy.errors import invalid_value
from providers.adapters.types import (
    CacheMark,
    Citation,
    Dialect,
    Document,
    Image,
    JSONObject,
    Media,
    Message,
    Opaque,
    Part,
    Reasoning,
    Role,
    Text,
    ToolCall,
    ToolResult,
)

_source = msgspec.json.Decoder(SourceWire)
_result_content = msgspec.json.Decoder(str | list[BlockWire])
_blocks = msgspec.json.Decoder(list[BlockWire])
_citations = msgspec.json.Decoder(list[JSONObject])
_citations_wanted = msgspec.json.Decoder(CitationsWire)
_object = msgspec.json.Decoder(dict[str, Any])
_text = msgspec.json.Decoder(str)


class Conversation:
    """Collects messages; remembers the names of calls, which some providers want beside their results."""

    def __init__(self) -> None:
        self._messages: list[Message] = []
        self._names: dict[str, str] = {}

    def messages(self) -> tuple[Message, ...]:
        return tuple(self._messages)

    def add(self, message: Message) -> None:
        self._messages.append(message)

    def add_turn(self, role: Role, content: str | list[BlockWire], field: str) -> None:
        """A user's turn falls into tool results (role `tool`) and what the user says, in the order given."""
        if role == "system":
            self.add(Message(role="system", parts=parts_of_system(content, field)))
            return
        run: list[Part] = []
        for part in self._parts(content, field):
            if run and isinstance(part, ToolResult) != isinstance(run[-1], ToolResult):
                self._flush(role, run)
                run = []
            run.append(part)
        self._flush(role, run)

    def _flush(self, role: Role, run: list[Part]) -> None:
        if run:
            self.add(Message(role="tool" if isinstance(run[0], ToolResult) else role, parts=tuple(run)))

    def _parts(self, content: str | list[BlockWire], field: str) -> Iterable[Part]:
        if isinstance(content, str):
            yield Text(text=content)
            return
        signature = ""
        for at, block in enumerate(content):
            where = f"{field}[{at}]"
            if block.type == "thinking" and (block.signature or "").startswith(CALL_SIGNATURE):
                signature = (block.signature or "").removeprefix(CALL_SIGNATURE)
                continue
            if block.type == "tool_use":
                yield self._call(block, where, signature)
                signature = ""
            elif block.type == "tool_result":
                yield self._result(block, where)
            else:
                yield _part(block, where)

    def _call(self, block: BlockWire, where: str, signature: str) -> ToolCall:
        call_id, name = required(block.id, f"{where}.id"), required(block.name, f"{where}.name")
        self._names[call_id] = name
        arguments = "{}"
        if not absent(block.input):
            inner(block.input, _object, f"{where}.input")
            arguments = bytes(block.input).decode()
        cache = cache_mark(block.cache_control)
        return ToolCall(id=call_id, name=name, arguments=arguments, signature=signature, cache=cache)

    def _result(self, block: BlockWire, where: str) -> ToolResult:
        call_id = required(block.tool_use_id, f"{where}.tool_use_id")
        return ToolResult(
            call_id=call_id,
            parts=_result_parts(block, where),
            name=self._names.get(call_id, ""),
            error=bool(block.is_error),
            cache=cache_mark(block.cache_control),
        )


def parts_of_system(content: str | list[BlockWire], field: str) -> tuple[Part, ...]:
    if isinstance(content, str):
        return (Text(text=content),)
    return tuple(_part(block, f"{field}[{at}]") for at, block in enumerate(content))


def cache_mark(wire: CacheWire | None) -> CacheMark | None:
    return CacheMark(ttl=wire.ttl) if wire else None


def _result_parts(block: BlockWire, where: str) -> tuple[Text | Image | Document | Opaque, ...]:
    if absent(block.content):
        return ()
    content = inner(block.content, _result_content, f"{where}.content")
    if isinstance(content, str):
        return (Text(text=content),)
    parts: list[Text | Image | Document | Opaque] = []
    for at, found in enumerate(content):
        part = _part(found, f"{where}.content[{at}]")
        if isinstance(part, Text | Image | Document | Opaque):
            parts.append(part)
    return tuple(parts)


def _part(block: BlockWire, where: str) -> Text | Image | Document | Reasoning | Opaque:
    cache = cache_mark(block.cache_control)
    if block.type == "text":
        return Text(text=required(block.text, f"{where}.text"), cache=cache, citations=_cited(block, where))
    if block.type == "image":
        return Image(source=_media(_read_source(block, where), where), cache=cache)
    if block.type == "document":
        return _document(block, where, cache)
    if block.type == "thinking":
        return Reasoning(text=required(block.thinking, f"{where}.thinking"), signature=block.signature or "")
    if block.type == "redacted_thinking":
        return Reasoning(redacted=required(block.data, f"{where}.data"))
    if block.type == "search_result":
        return _found(block, where, cache)
    return Opaque(dialect=Dialect.ANTHROPIC, raw=_whole(block), field=where)


def _found(block: BlockWire, where: str, cache: CacheMark | None) -> Opaque:
    """What the client's own search found; other providers read it as text, and cite nothing."""
    source = "" if absent(block.source) else inner(block.source, _text, f"{where}.source")
    content = [] if absent(block.content) else inner(block.content, _blocks, f"{where}.content")
    heading = "\n".join([text for text in (block.title, source) if text])
    said = "\n".join([found.text for found in content if found.text])
    cited = not absent(block.citations) and inner(block.citations, _citations_wanted, f"{where}.citations").enabled
    return Opaque(
        dialect=Dialect.ANTHROPIC,
        raw=_whole(block),
        field=where,
        plain=Text(text="\n\n".join([text for text in (heading, said) if text]), cache=cache),
        lost=("messages.content.citations",) if cited else (),
    )


def _whole(block: BlockWire) -> JSONObject:
    """The fields we know of a kind we do not: enough for providers of the same wire format."""
    known = {name: getattr(block, name) for name in BlockWire.__struct_fields__}
    whole: JSONObject = msgspec.json.decode(
        msgspec.json.encode(
            {
                name: value
                for name, value in known.items()
                if value is not None and not (isinstance(value, msgspec.Raw) and absent(value))
            }
        )
    )
    return whole


def _cited(block: BlockWire, where: str) -> tuple[Citation, ...]:
    if absent(block.citations):
        return ()
    found = inner(block.citations, _citations, f"{where}.citations")
    return tuple(
        Citation(
            text=str(raw.get("cited_text") or ""),
            url=str(raw.get("url") or ""),
            title=str(raw.get("title") or raw.get("document_title") or ""),
            raw=raw,
        )
        for raw in found
    )


def _read_source(block: BlockWire, where: str) -> SourceWire:
    if absent(block.source):
        raise invalid_value(f"{where}.source", f"{where}.source: this field is required.")
    return inner(block.source, _source, f"{where}.source")


def _media(source: SourceWire, where: str) -> Media:
    given = {"base64": source.data, "url": source.url, "file": source.file_id}.get(source.type)
    if not given:
        raise invalid_value(f"{where}.source", f"{where}.source: nothing is given for type {source.type!r}.")
    if source.type == "base64":
        return Media(mime=source.media_type, data=given)
    return Media(url=given) if source.type == "url" else Media(file_id=given)


def _document(block: BlockWire, where: str, cache: CacheMark | None) -> Document:
    source = _read_source(block, where)
    wanted = not absent(block.citations) and inner(block.citations, _citations_wanted, f"{where}.citations").enabled
    text = ""
    if source.type == "text":
        text, media = source.data, Media(mime="text/plain")
    elif source.type == "content":  # a document made of blocks: its text is what others can read
        text, media = _text_of(source, where), Media(mime="text/plain")
    else:
        media = _media(source, where)
    return Document(
        source=media,
        title=block.title or "",
        context=block.context or "",
        text=text,
        citations=bool(wanted),
        cache=cache,
    )


def _text_of(source: SourceWire, where: str) -> str:
    content = inner(source.content, _result_content, f"{where}.source.content")
    if isinstance(content, str):
        return content
    return "\n".join(block.text for block in content if block.text)
