"""A request's way, in one direction (design 4): each step is called from here and none calls back.

parse → check key → route → customer → rates → for each candidate: rates → price → hold → dispatched → send → relay or
parse and render → settled. An attempt that failed without a byte for the client moves on to the next candidate; beside
what may have been billed a second hold must fit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

import msgspec
from django.conf import settings

from conduit.core.ids import uuid7
from conduit.proxy import admission, answer_headers, errors, held_back, reservation, streaming
from conduit.proxy.call import EVENTS, JSON, Answer, Call
from conduit.proxy.errors import ApiError
from conduit.proxy.seals import Seals
from conduit.proxy.settlement import Attempt, untold
from providers.adapters.base import CONTENT, Adapter, Rates, Relay, Upstream, UpstreamRequest
from providers.adapters.foreign import readable
from providers.adapters.types import ChatRequest, ChatResponse
from providers.candidates import Candidate, candidates
from providers.errors import TOO_LONG, CannotCarry, InvalidResponse, UpstreamError
from providers.routing import RouteEntry
from providers.transport import IDLE_SECONDS, UpstreamAnswer
from usage.errors import JournalFull

if TYPE_CHECKING:
    from conduit.proxy.gateway import Gateway

MAX_ATTEMPTS = 3
MAX_ERROR_BYTES = 256 * 1024


async def run(gateway: Gateway, call: Call) -> Answer:
    """The answer for the client. Raises ApiError; a refusal of ours leaves no attempt behind."""
    admission.check_key(call)
    admission.read_tags(call)
    call.inbound = call.dialect.parse(call.path.endpoint, call.body, model=call.path.model, stream=call.path.stream)
    route = admission.find_route(gateway, call, call.inbound.head.model)
    await admission.check_customer(gateway, call, call.inbound.head.user)
    await gateway.rates.admit(call)
    return await _try_candidates(gateway, call, route)


class _Begun(NamedTuple):
    """An attempt that is held for and on record as dispatched."""

    candidate: Candidate
    attempt: Attempt
    request: UpstreamRequest


async def _try_candidates(gateway: Gateway, call: Call, route: RouteEntry) -> Answer:
    drawn = candidates(route, gateway.rng, watch=gateway.watch, at=gateway.now())
    begun = await _following(gateway, call, drawn, route)
    for left in range(MAX_ATTEMPTS - 1, -1, -1):
        attempt = begun.attempt
        try:
            await gateway.journal.durable()
            return await _deliver(gateway, call, begun, route)
        except UpstreamError as error:
            drawn.failed(begun.candidate, error)
            begun = await _after(gateway, call, attempt, error, drawn if left else None, route)
        except JournalFull as error:  # nothing was sent
            refused = errors.not_ready("The gateway cannot record requests: its journal's disk failed.")
            attempt.fail(refused, None, final=True)
            raise refused from error
        except asyncio.CancelledError:
            attempt.cancel(None, answer_bytes=0)
            raise
        except Exception as error:
            attempt.judge(None)  # a fault of ours
            attempt.fail(errors.internal(call.request_id), InvalidResponse(type(error).__name__), final=True)
            raise
    raise AssertionError("the last candidate returns or raises")


async def _following(gateway: Gateway, call: Call, drawn: candidates, route: RouteEntry) -> _Begun:
    """The next candidate that is not at its limits and that the budgets carry. Raises ApiError."""
    refused: ApiError | None = None
    while (candidate := await gateway.rates.next_open(call, drawn)) is not None:
        held_back.note(call, drawn)
        try:
            return await _begin(gateway, call, candidate, route)
        except BaseException as error:
            drawn.give_back(candidate)
            if not isinstance(error, ApiError) or not error.elsewhere:
                raise
            refused = errors.telling(refused, error)
    if refused is not None and not (call.limited and refused.code == TOO_LONG):
        raise refused
    raise held_back.nobody(call, drawn, route)


async def _after(  # noqa: PLR0913 (the failed attempt and what the next one needs)
    gateway: Gateway, call: Call, attempt: Attempt, error: UpstreamError, drawn: candidates | None, route: RouteEntry
) -> _Begun:
    """The next attempt, begun before the failed one is on record as final or not. What surely was not billed gives its
    hold back first; beside what may have been, a second hold must fit. Raises the failure when there is no other."""
    shown, begun = attempt.shown(error), None
    gateway.rejections.note(attempt.candidate, error)
    attempt.judge(error)
    call.whole = False
    try:
        if drawn is not None and error.elsewhere and not call.left:
            if error.billed == "no":
                attempt.give_back()
            with suppress(ApiError):
                begun = await _following(gateway, call, drawn, route)
    finally:  # the client may leave meanwhile
        attempt.fail(shown, error, final=begun is None)
    if begun is None:
        raise shown from error
    return begun


async def _begin(gateway: Gateway, call: Call, candidate: Candidate, route: RouteEntry) -> _Begun:
    """Holds the worst case and records the attempt as dispatched. Raises ApiError; then nothing is held."""
    target, attempt_id = candidate.target, uuid7()
    price = gateway.price(target)
    budgets = (*call.budgets, *gateway.provider_budgets(target.provider))
    reserved = await reservation.reserve(gateway, call, target, price, budgets)
    try:
        request = build(call, candidate, route, reserved.cap, attempt_id, reserved.rates)
        return _Begun(candidate, Attempt(gateway, call, candidate, price, reserved, attempt_id), request)
    except BaseException:
        gateway.holds.settle(reserved.hold, 0)
        raise


def build(
    call: Call,
    candidate: Candidate,
    route: RouteEntry,
    cap: int | None,
    attempt_id: UUID,
    rates: Rates | None = None,
) -> UpstreamRequest:
    """The upstream's bytes. Pass-through where the provider speaks the client's dialect."""
    assert call.inbound is not None
    target, provider = candidate.target, candidate.target.provider
    seals = Seals(call.path.dialect, target)
    upstream = Upstream(
        base_url=provider.base_url,
        model=target.model,
        secrets=candidate.credential.secrets,
        options=options(call, candidate),
        region=provider.region,
        max_output_tokens=cap,
        attempt=str(attempt_id),
        held_at=rates,
    )
    try:
        if call.speaks in target.native:
            body, lost = seals.body(call.body)
            request = target.adapter.pass_through(body, call.inbound.head, upstream)
        else:
            asked, lost = readable(call.inbound.canonical(), target.adapter.wire)
            asked, unread = seals.request(asked)
            lost += unread
            request = target.adapter.build_request(asked, upstream)
        if lost:
            request = msgspec.structs.replace(request, dropped=tuple(dict.fromkeys((*request.dropped, *lost))))
    except CannotCarry as error:
        raise errors.cannot_carry(error.field, f"{error} (provider {provider.name!r})") from error
    if request.dropped:
        _check_dropped(request.dropped, provider.name, strict=route.strict)
    call.dropped = request.dropped
    return request


def _check_dropped(dropped: tuple[str, ...], provider: str, *, strict: bool) -> None:
    """Raises ApiError for content that would be missing, whatever the route says."""
    lost = next((field for field in dropped if field in CONTENT), None)
    if lost is not None:
        raise errors.cannot_carry(lost, f"{lost}: the provider {provider!r} cannot take it with this request.")
    if strict:
        message = f"{dropped[0]}: the provider {provider!r} cannot carry it, and the route is strict."
        raise errors.cannot_carry(dropped[0], message)


def options(call: Call, candidate: Candidate) -> Mapping[str, Any]:
    """The provider's options. Client headers reach an adapter only where its kind names them, as options."""
    provider = candidate.target.provider
    if not provider.client_headers:
        return provider.options
    sent: dict[str, Any] = {}
    for prefix, option in provider.client_headers.items():
        found = {
            name.decode(): text.decode("latin-1") for name, text in call.headers.items() if name.startswith(prefix)
        }
        if found:
            sent[option] = found if prefix.endswith(b"-") else next(iter(found.values()))
    return {**provider.options, **sent} if sent else provider.options


async def _deliver(gateway: Gateway, call: Call, begun: _Begun, route: RouteEntry) -> Answer:
    candidate, attempt, request = begun
    assert call.inbound is not None
    adapter, streamed = candidate.target.adapter, call.inbound.head.stream
    call.whole = attempt.limited and not streamed
    upstream = await _send(gateway, call, route, request)
    try:
        if upstream.status >= 400:
            body = await upstream.read(MAX_ERROR_BYTES)
            raise adapter.parse_error(upstream.status, upstream.headers, body)
        if upstream.status >= 300:
            raise InvalidResponse(f"The provider answered with status {upstream.status}.", status=upstream.status)
        if gateway.breaker.trips:
            gateway.breaker.works(candidate.credential.version_id)
        if streamed:
            return await _stream(gateway, call, candidate, upstream, attempt)
        began = perf_counter()
        body = await upstream.read()
        call.upstream += perf_counter() - began
        return _whole(gateway, call, candidate, body, attempt)
    finally:
        if not attempt.streaming:
            upstream.close()


async def _send(gateway: Gateway, call: Call, route: RouteEntry, request: UpstreamRequest) -> UpstreamAnswer:
    assert call.inbound is not None
    began, idle, timeout = perf_counter(), IDLE_SECONDS, call.timeout or route.timeout
    if call.inbound.head.stream:  # its whole time is the watch's
        idle = settings.CONDUIT_STREAM_IDLE_TIMEOUT or IDLE_SECONDS
    else:
        timeout = timeout or settings.CONDUIT_STREAM_TOTAL_TIMEOUT or None
    try:
        return await gateway.transport.send(request, timeout=timeout, idle=idle)
    finally:
        call.upstream += perf_counter() - began


def _whole(gateway: Gateway, call: Call, candidate: Candidate, body: bytes, attempt: Attempt) -> Answer:
    """A complete answer: metered, then rendered in the client's dialect."""
    assert call.inbound is not None
    adapter, response, shown = candidate.target.adapter, None, body
    attempt.unread = len(body)
    if call.speaks in candidate.target.native:
        usage = adapter.read_usage(call.path.endpoint, body)
    else:
        response = adapter.parse_response(call.inbound.canonical(), body)
        usage = response.usage
        if isinstance(response, ChatResponse):
            response = Seals(call.path.dialect, candidate.target).response(response)
        try:
            shown = call.dialect.render(call.inbound, response)
        except ApiError as error:  # billed all the same
            attempt.fail(error, UpstreamError(error.message), usage=usage, final=True)
            raise
    generated = 0
    if untold(usage):
        generated = streaming.generated_in(call.inbound, adapter, body, response)
    attempt.succeed(usage, answer_bytes=generated)
    return Answer(200, [JSON, *answer_headers.of_attempt(gateway, call, candidate, attempt)], shown)


async def _stream(
    gateway: Gateway, call: Call, candidate: Candidate, upstream: UpstreamAnswer, attempt: Attempt
) -> Answer:
    """Answers once the first piece is there: until then a failure can still be told by its status, or retried."""
    relay = _relay(call, candidate)
    attempt.flight.streams(upstream)
    first = await streaming.first_piece(call, upstream, relay)
    gateway.health.begins(candidate.target.key)
    headers = [*([JSON] if call.path.array else EVENTS), *answer_headers.of_attempt(gateway, call, candidate, attempt)]
    body = streaming.pieces(call, attempt, upstream, relay, first)
    attempt.streaming = True
    await anext(body)  # now it runs: whatever happens before the client reads, its `finally` settles
    return Answer(200, headers, body)


def _relay(call: Call, candidate: Candidate) -> Relay:
    assert call.inbound is not None
    adapter: Adapter = candidate.target.adapter
    if call.speaks in candidate.target.native:
        relay = adapter.relay(call.inbound.head)
    else:
        request = call.inbound.canonical()
        assert isinstance(request, ChatRequest)
        parser = adapter.stream_parser(request)
        renderer = call.dialect.stream(call.inbound, call.request_id)
        relay = streaming.Translation(parser, renderer, Seals(call.path.dialect, candidate.target))
    return streaming.AsArray(relay) if call.path.array else relay
