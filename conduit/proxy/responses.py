"""`POST /v1/responses` around the pipeline: what a request takes up again, and what is kept of its answer.

The pipeline and the providers see requests that stand alone: `previous_response_id` is replaced by the items of the
conversation, and `store` is always false there, because what a vendor keeps belongs to its whole account, where our
tenants must not meet. The client sees its own words again, and ids of ours.

An answer is in the database before its last bytes leave: the next request may go to another process at once. Where it
cannot be kept, it goes out all the same and says `"store": false`.
"""

from __future__ import annotations

import re
import threading
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec
import structlog
from django.conf import settings
from django.db import DatabaseError

from conduit.core.errors import ConduitError
from conduit.core.ids import uuid7
from conduit.proxy import admission, errors, pipeline
from conduit.proxy.call import Answer, Call
from conduit.proxy.dialects.json_body import decode
from conduit.proxy.errors import ApiError
from conduit.proxy.snapshot import Database
from providers.adapters.sse import FrameSplitter, SSEReader
from usage import stored_responses
from usage.stored_responses import Content, NotKept, Turn

if TYPE_CHECKING:
    from conduit.proxy.gateway import Gateway

PREFIX = "resp_"
ENDED = ("completed", "incomplete")  # what is kept of an answer that somebody waits for
log = structlog.get_logger("conduit.responses")
_ENCRYPTED = "reasoning.encrypted_content"
# Without its id an item is what it says; with it a vendor might look for a copy of its own, which it has not.
_NAMELESS = ("message", "function_call", "custom_tool_call")
_CARRYING = frozenset(f"response.{name}" for name in ("created", "queued", "in_progress", "failed", *ENDED))
_INPUT = re.compile(r"input\[(\d+)\]")
_FRAME_LIMIT = 64 * 1024 * 1024
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_items = msgspec.json.Decoder(list[msgspec.Raw])
_object = msgspec.json.Decoder(dict[str, Any])
_encode = msgspec.json.Encoder().encode


class _Body(msgspec.Struct):
    """The members that concern what is kept; the dialect reads the rest."""

    background: bool | None = None
    previous_response_id: str | None = None
    store: bool | None = None
    stream: bool | None = None


_body = msgspec.json.Decoder(_Body)


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """`told` is what the client called the response it continues, `items` its own input as a JSON array, `offset` how
    many items of the conversation stand before them in the body that is sent, `earlier` whose they are."""

    id: UUID
    tenant: UUID
    store: bool
    background: bool
    told: str | None
    items: bytes
    offset: int = 0
    earlier: tuple[UUID, ...] = ()

    @property
    def previous(self) -> UUID | None:
        return self.earlier[-1] if self.earlier else None


class Responses:
    """One worker's way to what is kept. Every call raises DatabaseError when the database is away."""

    def __init__(self) -> None:
        self.database = Database()

    def close(self) -> None:
        self.database.close()

    async def chain(self, tenant: UUID, response: UUID) -> list[Turn]:
        return await self.database.read(stored_responses.chain, tenant, response)

    async def keep(self, asked: Asked, state: str, response: bytes) -> bool:
        """False: it is not kept, and the reason is in the log."""
        turn = Turn(id=asked.id, previous=asked.previous, state=state, content=Content(asked.items, response))
        late = threading.Event()
        try:
            await self.database.soon(_keep, asked, turn, late)
        except (DatabaseError, ConduitError) as error:
            late.set()  # the thread may yet succeed
            log.warning("response_not_kept", reason=(str(error).strip() or type(error).__name__).splitlines()[0])
            return False
        return True


def _keep(asked: Asked, turn: Turn, late: threading.Event) -> None:
    stored_responses.keep(asked.tenant, turn, asked.earlier)
    if late.is_set():  # the client was told that nothing is kept
        stored_responses.remove(asked.tenant, turn.id)


def tenant_of(call: Call) -> UUID:
    return call.key.team_id or call.key.id


def id_of(text: str) -> UUID | None:
    """None for what is no id of ours."""
    digits = text.removeprefix(PREFIX)
    if len(digits) != 32 or digits == text or not digits.isascii() or not digits.isalnum():
        return None
    try:
        return UUID(hex=digits)
    except ValueError:
        return None


def name_of(response: UUID) -> str:
    return f"{PREFIX}{response.hex}"


# --- the request -----------------------------------------------------------------------------------------------------


async def prepare(gateway: Gateway, call: Call) -> Asked | None:
    """Makes the call's body one that stands alone. None: nothing is to be kept or taken up. Raises ApiError."""
    admission.check_key(call)  # before anything is looked up
    body = decode(_body, call.body)
    store = body.store is not False and settings.RESPONSES_RETENTION_DAYS > 0
    background = bool(body.background)
    if background:
        _check_background(body, store=store)
    if body.store is False and not body.previous_response_id:
        return None
    members: dict[str, Any] = _members.decode(call.body)
    own, tenant = _own_items(members.get("input")), tenant_of(call)
    turns = await _conversation(gateway, tenant, body.previous_response_id) if body.previous_response_id else []
    earlier = _earlier_items(turns)
    if turns and own is not None:
        members["input"] = [*earlier, *own]
    _stand_alone(members, reasons=any(item.get("type") == "reasoning" for item in earlier if isinstance(item, dict)))
    call.body = _encode(members)
    if len(call.body) > settings.MAX_BODY_BYTES:
        raise errors.conversation_too_large(settings.MAX_BODY_BYTES)
    return Asked(
        id=uuid7(),
        tenant=tenant,
        store=store,
        background=background,
        told=body.previous_response_id or None,
        items=_encode(own or []),
        offset=len(earlier),
        earlier=tuple([turn.id for turn in turns]),
    )


def _check_background(body: _Body, *, store: bool) -> None:
    if not store:
        why = "leave out store" if body.store is False else "this installation keeps none"
        raise errors.invalid_value("background", f"background: an answer made meanwhile has to be kept; {why}.")
    if body.stream:
        message = "stream: an answer made in the background is fetched by its id; leave out stream or background."
        raise errors.invalid_value("stream", message)


async def _conversation(gateway: Gateway, tenant: UUID, told: str) -> list[Turn]:
    response = id_of(told)
    if response is None:
        raise errors.previous_response_not_found(told, "not found")
    try:
        return await gateway.responses.chain(tenant, response)
    except NotKept as error:
        raise errors.previous_response_not_found(told, error.reason) from None
    except DatabaseError as error:
        raise errors.responses_unavailable() from error


def _own_items(given: msgspec.Raw | None) -> list[msgspec.Raw] | None:
    """The client's input as items; None when it is neither text nor items, which the dialect will say."""
    raw = b"null" if given is None else bytes(given)
    if raw == b"null":
        return []
    if raw[:1] == b'"':
        return [msgspec.Raw(b'{"type":"message","role":"user","content":' + raw + b"}")]
    return _items.decode(raw) if raw[:1] == b"[" else None


def _earlier_items(turns: list[Turn]) -> list[Any]:
    items: list[Any] = []
    for turn in turns:
        items += _items.decode(turn.content.input)
        items += [
            again for item in _object.decode(turn.content.response).get("output") or () if (again := _again(item))
        ]
    return items


def _again(item: dict[str, Any]) -> dict[str, Any] | None:
    """An item of an answer as input. Thoughts that are not sealed were kept by their vendor only, if at all."""
    if item.get("type") == "reasoning" and not item.get("encrypted_content"):
        return None
    if item.get("type") in _NAMELESS:
        return {name: value for name, value in item.items() if name != "id"}
    return item


def _stand_alone(members: dict[str, Any], *, reasons: bool) -> None:
    """Nothing of the request is left to a vendor's memory; so thoughts must come sealed, to be sent again."""
    for name in ("previous_response_id", "background"):
        members.pop(name, None)
    members["store"] = False
    if not reasons and bytes(members.get("reasoning", b"null")) == b"null":
        return
    include = msgspec.json.decode(members.get("include", b"null"))
    if include is None or (isinstance(include, list) and _ENCRYPTED not in include):
        members["include"] = [*(include or ()), _ENCRYPTED]


# --- the answer ------------------------------------------------------------------------------------------------------


async def respond(gateway: Gateway, call: Call) -> Answer:
    """What the pipeline answers, kept where that is wanted. Raises ApiError."""
    asked = await prepare(gateway, call)
    if asked is None:
        return await pipeline.run(gateway, call)
    if asked.background:
        return await gateway.background.begin(gateway, call, asked)
    try:
        answer = await pipeline.run(gateway, call)
    except ApiError as error:
        raise placed(error, asked.offset) from error
    if isinstance(answer.body, bytes):
        answer.body = await _finished(gateway, asked, answer.body)
    else:
        answer.body = _recorded(gateway, asked, answer.body)
        await anext(answer.body)  # now it runs, and closes the stream behind it whatever happens
    return answer


def placed(error: ApiError, offset: int) -> ApiError:
    """The client counts its own items only."""
    found = _INPUT.match(error.param or "")
    if not offset or found is None:
        return error
    before, place = found[0], int(found[1]) - offset
    if place >= 0:
        error.param = f"input[{place}]{(error.param or '').removeprefix(before)}"
        error.message = error.message.replace(before, f"input[{place}]", 1)
    else:
        error.param = "previous_response_id"
        error.message = f"previous_response_id: an item of its conversation cannot be sent again. {error.message}"
    error.args = (error.message,)
    return error


def shown(members: dict[str, Any], asked: Asked, *, kept: bool) -> bytes:
    """The answer's object with the client's own words."""
    changed: dict[str, Any] = {**members, "previous_response_id": asked.told, "store": kept}
    if asked.store:
        changed["id"] = name_of(asked.id)
    if asked.background:
        changed["background"] = True
    return _encode(changed)


def state_in(members: dict[str, msgspec.Raw]) -> str:
    return str(msgspec.json.decode(members.get("status", b"null")))


async def _finished(gateway: Gateway, asked: Asked, response: bytes) -> bytes:
    members = _members.decode(response)
    state = state_in(members)
    if asked.store and state in ENDED:
        told = shown(members, asked, kept=True)
        if len(asked.items) + len(told) <= settings.MAX_BODY_BYTES and await gateway.responses.keep(asked, state, told):
            return told
    return shown(members, asked, kept=False)


async def _recorded(gateway: Gateway, asked: Asked, body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The stream as it is but for the events that carry the whole object. The last one waits until that is kept."""
    async with aclosing(body) as stream:  # type: ignore[type-var]
        yield b""
        async for piece in stream:
            if b'"response"' not in piece:  # in no text: there its quotes are escaped
                yield piece
                continue
            for frame in frames(piece):
                kind, event = event_of(frame)
                if kind in _CARRYING:
                    response = event["response"]
                    if kind.removeprefix("response.") in ENDED:
                        told = await _finished(gateway, asked, response)
                    else:
                        told = shown(_members.decode(response), asked, kept=asked.store and kind != "response.failed")
                    frame = frame_of(kind, {**event, "response": msgspec.Raw(told)})
                yield frame


def frames(piece: bytes) -> list[bytes]:
    """The events of a piece of the stream. A relay gives whole ones; only the stream's rest may lack its blank line."""
    splitter = FrameSplitter(_FRAME_LIMIT)
    found = splitter.feed(piece)
    rest = splitter.close()
    return [*found, rest] if rest else found


def event_of(frame: bytes) -> tuple[str, dict[str, msgspec.Raw]]:
    """An event's type and members; none for what is no such event."""
    reader = SSEReader(_FRAME_LIMIT)
    for event in (*reader.feed(frame), *reader.close()):
        try:
            members = _members.decode(event.data)
        except msgspec.DecodeError:
            break
        kind = msgspec.json.decode(members.get("type", b"null"))
        if isinstance(kind, str) and "response" in members:
            return kind, members
    return "", {}


def frame_of(kind: str, members: dict[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), _encode(members))
