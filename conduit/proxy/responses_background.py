"""`"background": true`: an answer that is made while nobody waits, in this process, by the pipeline like any other.

It is asked for as a stream, so that one that is cancelled costs what it had said by then. Its row says how far it is;
whoever cancels it changes the row, in any process, and the worker that makes it looks every WATCH_SECONDS. A worker
that ends in order waits for its answers as it does for requests in flight; one that dies leaves rows which are shown as
failed once it is silent (conduit/core/live.py).
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec
import structlog
from django.db import DatabaseError

from conduit.proxy import admission, errors, pipeline, responses, settlement
from conduit.proxy.call import JSON, Answer, Call
from conduit.proxy.dialects.responses_answer import begun
from conduit.proxy.errors import ApiError
from conduit.proxy.responses import Asked
from usage import stored_responses
from usage.stored_responses import Content, Turn

if TYPE_CHECKING:
    from conduit.proxy.gateway import Gateway

WATCH_SECONDS = 0.3
AGAIN_SECONDS = 1.0  # until a result that could not be written is written again
MOST, MOST_OF_A_KEY = 512, 128  # answers that one worker makes at once: each holds its request and a connection
FULL_SECONDS = 5.0  # until somebody who was refused for want of room asks again
_FINAL = tuple(f"response.{state}" for state in (*responses.ENDED, "failed"))
log = structlog.get_logger("conduit.responses")
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_object = msgspec.json.Decoder(dict[str, Any])
_encode = msgspec.json.Encoder().encode


class Failed(Exception):
    """The provider's stream ended with an error of its own. `error` is what the response says of it."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(error["message"])
        self.error = error


class Background:
    """What one worker makes meanwhile."""

    def __init__(self) -> None:
        self._tasks: dict[UUID, asyncio.Task[None]] = {}
        self._busy: Counter[UUID] = Counter()  # how many of each key, those that just begin among them
        self._watching: asyncio.Task[None] | None = None
        self._stopping = False

    async def begin(self, gateway: Gateway, call: Call, asked: Asked) -> Answer:
        """Answers at once. Raises ApiError for what can be said at once, the rates among it; the rest the response says
        when it has failed: budgets are asked by the pipeline."""
        admission.read_tags(call)
        call.inbound = call.dialect.parse(call.path.endpoint, call.body)
        route = admission.find_route(gateway, call, call.inbound.head.model)
        await admission.check_customer(gateway, call, call.inbound.head.user)
        first = begun(_object.decode(call.body), route.name, 0) | {"status": "queued"}
        told = responses.shown(first, asked, kept=True)
        turn = Turn(id=asked.id, previous=asked.previous, state="queued", content=Content(asked.items, told))
        self._take_room(call.key.id)
        try:
            await gateway.rates.admit(call)
            store = gateway.responses.database.soon
            await store(stored_responses.begin, asked.tenant, turn, gateway.worker, asked.earlier)
        except BaseException as error:
            self._give_room(call.key.id)
            if isinstance(error, DatabaseError):
                raise errors.responses_unavailable() from error
            raise
        making = _streamed(call)
        call.taken = None  # it is the other's now, until its end
        task = asyncio.get_running_loop().create_task(
            self._make(gateway, making, asked, told), name=f"response {asked.id}"
        )
        self._tasks[asked.id] = task
        gateway.tally.in_flight += 1
        task.add_done_callback(lambda _: self._ended(gateway, making, asked))
        if self._watching is None or self._watching.done():
            self._watching = asyncio.get_running_loop().create_task(self._watch(gateway), name="cancelled responses")
        return Answer(200, [JSON], told)

    def _take_room(self, key: UUID) -> None:
        """Raises ApiError 429."""
        for busy, most, whose in ((self._busy[key], MOST_OF_A_KEY, "this key"), (self._busy.total(), MOST, "anybody")):
            if busy >= most:
                message = f"No more than {most} answers for {whose} are made in the background at once by one process."
                raise errors.rate_limited(f"{message} Wait until one has ended, or cancel it.", FULL_SECONDS)
        self._busy[key] += 1

    def _give_room(self, key: UUID) -> None:
        self._busy[key] -= 1
        if not self._busy[key]:
            del self._busy[key]

    def cancel(self, response: UUID) -> None:
        """If it is made here."""
        if task := self._tasks.get(response):
            task.cancel()

    async def close(self, seconds: float) -> None:
        """Waits so long for what is being made, and ends the rest."""
        waiting = set(self._tasks.values())
        if waiting:
            _, late = await asyncio.wait(waiting, timeout=max(0.0, seconds))
            self._stopping = True
            for task in late:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)

    async def _watch(self, gateway: Gateway) -> None:
        """While anything is being made: who cancelled or deleted it did so in the database."""
        while self._tasks:
            with suppress(DatabaseError):  # asked again soon
                for response in await gateway.responses.database.read(stored_responses.cancelled, list(self._tasks)):
                    self.cancel(response)
            await asyncio.sleep(WATCH_SECONDS)

    def _ended(self, gateway: Gateway, call: Call, asked: Asked) -> None:
        """Also for one that was cancelled before its first step, of which nothing else has run."""
        del self._tasks[asked.id]
        self._give_room(call.key.id)
        gateway.rates.release(call)
        gateway.tally.in_flight -= 1

    async def _make(self, gateway: Gateway, call: Call, asked: Asked, told: bytes) -> None:
        result = await self._result(gateway, call, asked, told)
        if result is not None:
            await self._finish(gateway, asked, *result)

    async def _result(self, gateway: Gateway, call: Call, asked: Asked, told: bytes) -> tuple[str, bytes] | None:
        """(state, the answer's object); None for one that nobody waits for any more."""
        try:
            with suppress(DatabaseError):
                if not await gateway.responses.database.soon(stored_responses.start, asked.tenant, asked.id):
                    return None
            with gateway.streams.unattended(gateway, call):
                result = await _answered(gateway, call, asked)
        except asyncio.CancelledError:
            if not self._stopping:  # somebody cancelled or deleted it, and the row says so
                return None
            result = _failure(told, {"code": "server_error", "message": "The gateway was stopped meanwhile."})
        except Failed as error:
            result = _failure(told, error.error)
        except Exception as error:  # noqa: BLE001 (the task's edge)
            result = _failure(told, self._refused(gateway, call, asked, error))
        finally:
            gateway.rates.release(call)
        return result

    async def _finish(self, gateway: Gateway, asked: Asked, state: str, response: bytes) -> None:
        """However long the database is away; once the worker stops by one try, and the row is shown as failed when the
        worker is silent."""
        turn = Turn(id=asked.id, previous=asked.previous, state=state, content=Content(asked.items, response))
        while True:
            try:
                await gateway.responses.database.soon(stored_responses.finish, asked.tenant, turn)
                return
            except DatabaseError as error:
                reason = (str(error).strip() or type(error).__name__).splitlines()[0]
                log.warning("response_not_kept" if self._stopping else "response_not_kept_yet", reason=reason)
            if self._stopping:
                return
            await asyncio.sleep(AGAIN_SECONDS)

    def _refused(self, gateway: Gateway, call: Call, asked: Asked, error: Exception) -> dict[str, Any]:
        if not isinstance(error, ApiError):
            log.error("background_response_failed", request_id=call.request_id, exc_info=error)
            error = errors.internal(call.request_id)
        if not call.ended:
            settlement.refuse(gateway, call, error)
        return _error(error.code, responses.placed(error, asked.offset).message, error.status)


def _streamed(call: Call) -> Call:
    """A call of its own: what belongs to the first one ends with the first answer."""
    members: dict[str, Any] = {**_members.decode(call.body), "stream": True}
    members.pop("stream_options", None)
    return msgspec.structs.replace(
        call, body=_encode(members), started=time.perf_counter(), trace=[], tags=list(call.tags), inbound=None
    )


async def _answered(gateway: Gateway, call: Call, asked: Asked) -> tuple[str, bytes]:
    """(state, the answer's object). Raises ApiError, Failed."""
    answer = await pipeline.run(gateway, call)
    assert not isinstance(answer.body, bytes)
    last: dict[str, Any] | None = None
    wrong: dict[str, Any] = {"code": None, "message": "The provider's answer broke off."}
    async with aclosing(answer.body) as stream:  # type: ignore[type-var]
        async for piece in stream:
            if b'"response"' in piece:
                for frame in responses.frames(piece):
                    kind, event = responses.event_of(frame)
                    if kind in _FINAL:
                        last = _members.decode(event["response"])
            elif b'"error"' in piece:
                wrong = _told(piece) or wrong
    if call.broken or last is None:
        raise Failed(_error(str(wrong.get("code")), str(wrong.get("message")), 500))
    return responses.state_in(last), responses.shown(last, asked, kept=True)


def _told(piece: bytes) -> dict[str, Any] | None:
    """The error event that ends a broken stream."""
    for frame in responses.frames(piece):
        for line in frame.splitlines():
            if line.startswith(b"data: "):
                told = msgspec.json.decode(line[6:])
                if told.get("type") == "error":
                    return dict(told)
    return None


def _error(code: str, message: str, status: int) -> dict[str, Any]:
    """The three codes that a client can act upon, out of those that the API has."""
    word = "rate_limit_exceeded" if status == 429 else "invalid_prompt" if 400 <= status < 500 else "server_error"
    return {"code": word, "message": f"{message} ({code})" if code else message}


def _failure(told: bytes, error: dict[str, Any]) -> tuple[str, bytes]:
    return "failed", _encode({**_object.decode(told), "status": "failed", "error": error})
