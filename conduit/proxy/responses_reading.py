"""What a caller may ask about answers that are kept: one of them, its input, its end, its deletion.

They cost nothing and count as requests. Another tenant's response is answered like one that never was.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import parse_qsl
from uuid import UUID

import msgspec
from django.db import DatabaseError

from conduit.proxy import admission, errors
from conduit.proxy.call import JSON, Answer, Call
from conduit.proxy.responses import PREFIX, id_of, name_of, tenant_of
from usage import stored_responses
from usage.stored_responses import NotKept, Turn

if TYPE_CHECKING:
    from conduit.proxy.gateway import Gateway

Found = TypeVar("Found")
MOST_ITEMS, USUAL_ITEMS = 100, 20
_LOST = {"code": "server_error", "message": "The process that made this answer ended before it was complete."}
_PREFIXES = {"message": "msg", "function_call": "fc", "function_call_output": "fco", "reasoning": "rs"}
_object = msgspec.json.Decoder(dict[str, Any])
_items = msgspec.json.Decoder(list[dict[str, Any]])
_encode = msgspec.json.Encoder().encode


async def answer(gateway: Gateway, call: Call) -> Answer:
    """By the path's action. Raises ApiError."""
    admission.check_key(call)
    admission.take_customer(call, None)
    query = dict(parse_qsl(call.path.query.decode("latin-1")))
    page = _page(query) if call.path.action == "input_items" else None
    if query.get("stream") in ("true", "1"):
        raise errors.invalid_value("stream", "stream: a kept answer is not told as a stream; fetch it whole.")
    await gateway.rates.admit(call, tokens=0)
    response = id_of(call.path.model)
    if response is None:
        raise errors.response_not_found(call.path.model)
    if page is not None:
        turn = await _asked(gateway, call, stored_responses.load, response)
        return Answer(200, [JSON], _listed(turn, *page))
    if call.path.action == "delete":
        await _asked(gateway, call, stored_responses.remove, response)
        gateway.background.cancel(response)
        return Answer(200, [JSON], _encode({"id": name_of(response), "object": "response", "deleted": True}))
    turn = await _asked(gateway, call, stored_responses.load, response)
    if call.path.action == "cancel":
        if not turn.background:
            message = f"{PREFIX}…: only an answer that is made in the background can be cancelled."
            raise errors.invalid_value("response_id", message)
        turn = await _asked(gateway, call, stored_responses.cancel, response)
        gateway.background.cancel(response)
    return Answer(200, [JSON], _told(turn))


async def _asked(gateway: Gateway, call: Call, act: Callable[[UUID, UUID], Found], response: UUID) -> Found:
    try:
        return await gateway.responses.database.soon(act, tenant_of(call), response)
    except NotKept:
        raise errors.response_not_found(call.path.model) from None
    except DatabaseError as error:
        raise errors.responses_unavailable() from error


def _told(turn: Turn) -> bytes:
    """The object as it was kept, in the state it has now."""
    body = _object.decode(turn.content.response)
    if body.get("status") == turn.state:
        return turn.content.response
    body["status"] = turn.state
    if turn.state == "failed":
        body["error"] = _LOST
    return _encode(body)


# --- input items -----------------------------------------------------------------------------------------------------


def _page(query: dict[str, str]) -> tuple[int, bool, str]:
    """(how many, oldest first, id of the item before)."""
    limit, order = query.get("limit", str(USUAL_ITEMS)), query.get("order", "desc")
    if not limit.isascii() or not limit.isdigit() or not 1 <= int(limit[:4]) <= MOST_ITEMS:
        raise errors.invalid_value("limit", f"limit: must be a whole number from 1 to {MOST_ITEMS}.")
    if order not in ("asc", "desc"):
        raise errors.invalid_value("order", "order: must be asc or desc.")
    return int(limit), order == "asc", query.get("after", "")


def _listed(turn: Turn, limit: int, ascending: bool, after: str) -> bytes:
    items = [_item(item, turn.id, index) for index, item in enumerate(_items.decode(turn.content.input))]
    if not ascending:
        items.reverse()
    if after:
        places = [index for index, item in enumerate(items) if item["id"] == after]
        if not places:
            raise errors.invalid_value("after", "after: this response has no input item of this id.")
        items = items[places[0] + 1 :]
    page = items[:limit]
    return _encode(
        {
            "object": "list",
            "data": page,
            "first_id": page[0]["id"] if page else None,
            "last_id": page[-1]["id"] if page else None,
            "has_more": len(items) > limit,
        }
    )


def _item(item: dict[str, Any], response: UUID, index: int) -> dict[str, Any]:
    """As the API tells it: with an id, and a message's text as a part."""
    kind = item.get("type") or "message"
    told = {"type": kind, **item}
    told.setdefault("id", f"{_PREFIXES.get(kind, 'item')}_{response.hex}{index:04x}")
    if kind == "message" and isinstance(item.get("content"), str):
        part = "output_text" if item.get("role") == "assistant" else "input_text"
        told["content"] = [{"type": part, "text": item["content"]}]
        if part == "output_text":
            told["content"][0]["annotations"] = []
    told.setdefault("status", "completed")
    return told
