"""A request's way, in one direction (design 4): each step is called from here and none calls back.

parse → check key → route → customer → rates → for each candidate: rates → price → hold → dispatched → send → relay or
parse and render → settled. An attempt that failed without a byte for the client moves on to the next candidate; beside
what may have been billed a second hold must fit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import suppress
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

from conduit.core.ids import uuid7
from conduit.proxy import admission, answer_headers, errors, reservation, streaming
from conduit.proxy.call import EVENTS, JSON, Answer, Call
from conduit.proxy.errors import ApiError
from conduit.proxy.settlement import Attempt, untold
from providers.adapters.base import Adapter, Relay, Upstream, UpstreamRequest
from providers.adapters.types import ChatRequest
from providers.errors import CannotCarry, InvalidResponse, RequestRejected, UpstreamError
from providers.routing import Candidate, RouteEntry, candidates
from providers.transport import UpstreamAnswer
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
    drawn = candidates(route, gateway.rng)
    begun = await _following(gateway, call, drawn, route)
    for left in range(MAX_ATTEMPTS - 1, -1, -1):
        attempt = begun.attempt
        try:
            await gateway.journal.durable()
            return await _deliver(gateway, call, begun, route)
        except UpstreamError as error:
            begun = await _after(gateway, call, attempt, error, drawn if left else iter(()), route)
        except JournalFull as error:  # nothing was sent
            refused = errors.not_ready("The gateway cannot record requests: its journal's disk failed.")
            attempt.fail(refused, None, final=True)
            raise refused from error
        except asyncio.CancelledError:
            attempt.cancel(None, answer_bytes=0)
            raise
        except Exception as error:
            attempt.fail(errors.internal(call.request_id), InvalidResponse(type(error).__name__), final=True)
            raise
    raise AssertionError("the last candidate returns or raises")


async def _following(gateway: Gateway, call: Call, drawn: Iterator[Candidate], route: RouteEntry) -> _Begun:
    """The next candidate that is not at its limits and that the budgets carry. Raises ApiError."""
    refused: ApiError | None = None
    while (candidate := await gateway.rates.next_open(call, drawn)) is not None:
        try:
            return await _begin(gateway, call, candidate, route)
        except ApiError as error:
            if not error.elsewhere:
                raise
            refused = refused or error
    if refused is not None:
        raise refused
    raise errors.candidates_limited(route.name, call.retry_after) if call.limited else errors.no_credential(route.name)


async def _after(  # noqa: PLR0913 (the failed attempt and what the next one needs)
    gateway: Gateway, call: Call, attempt: Attempt, error: UpstreamError, drawn: Iterator[Candidate], route: RouteEntry
) -> _Begun:
    """The next attempt, begun before the failed one is on record as final or not. What surely was not billed gives its
    hold back first; beside what may have been, a second hold must fit. Raises the failure when there is no other."""
    shown, begun = attempt.shown(error), None
    call.whole = False
    try:
        if not isinstance(error, RequestRejected) and not call.left:
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
        request = build(call, candidate, route, reserved.cap, attempt_id)
        return _Begun(candidate, Attempt(gateway, call, candidate, price, reserved, attempt_id), request)
    except BaseException:
        gateway.holds.settle(reserved.hold, 0)
        raise


def build(call: Call, candidate: Candidate, route: RouteEntry, cap: int | None, attempt_id: UUID) -> UpstreamRequest:
    """The upstream's bytes. Pass-through where the provider speaks the client's dialect."""
    assert call.inbound is not None
    provider = candidate.target.provider
    upstream = Upstream(
        base_url=provider.base_url,
        model=candidate.target.model,
        secrets=candidate.credential.secrets,
        options=_options(call, candidate),
        region=provider.region,
        max_output_tokens=cap,
        attempt=str(attempt_id),
    )
    try:
        if provider.adapter.wire is call.path.dialect:
            request = provider.adapter.pass_through(call.body, call.inbound.head, upstream)
        else:
            request = provider.adapter.build_request(call.inbound.canonical(), upstream)
    except CannotCarry as error:
        raise errors.invalid_value(error.field, f"{provider.name}: {error}") from error
    if request.dropped and route.strict:
        field = request.dropped[0]
        raise errors.invalid_value(
            field, f"{field}: the provider {provider.name!r} cannot carry it, and the route is strict."
        )
    call.dropped = request.dropped
    return request


def _options(call: Call, candidate: Candidate) -> Mapping[str, Any]:
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
    adapter, streamed = candidate.target.provider.adapter, call.inbound.head.stream
    call.whole = attempt.limited and not streamed
    upstream = await _send(gateway, call, route, request)
    try:
        if upstream.status >= 400:
            body = await upstream.read(MAX_ERROR_BYTES)
            raise adapter.parse_error(upstream.status, upstream.headers, body)
        if upstream.status >= 300:
            raise InvalidResponse(f"The provider answered with status {upstream.status}.", status=upstream.status)
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
    began = perf_counter()
    try:
        return await gateway.transport.send(request, timeout=call.timeout or route.timeout)
    finally:
        call.upstream += perf_counter() - began


def _whole(gateway: Gateway, call: Call, candidate: Candidate, body: bytes, attempt: Attempt) -> Answer:
    """A complete answer: metered, then rendered in the client's dialect."""
    assert call.inbound is not None
    adapter, response, shown = candidate.target.provider.adapter, None, body
    attempt.unread = len(body)
    if adapter.wire is call.path.dialect:
        usage = adapter.read_usage(call.path.endpoint, body)
    else:
        response = adapter.parse_response(call.inbound.canonical(), body)
        usage = response.usage
        shown = call.dialect.render(call.inbound, response)
    generated = 0
    if untold(usage):
        generated = streaming.text_bytes(response or adapter.parse_response(call.inbound.canonical(), body))
    attempt.succeed(usage, answer_bytes=generated)
    return Answer(200, [JSON, *answer_headers.of_attempt(gateway, call, candidate, attempt)], shown)


async def _stream(
    gateway: Gateway, call: Call, candidate: Candidate, upstream: UpstreamAnswer, attempt: Attempt
) -> Answer:
    """Answers once the first piece is there: until then a failure can still be told by its status, or retried."""
    relay = _relay(call, candidate)
    first = await streaming.first_piece(call, upstream, relay)
    headers = [*([JSON] if call.path.array else EVENTS), *answer_headers.of_attempt(gateway, call, candidate, attempt)]
    body = streaming.pieces(call, attempt, upstream, relay, first)
    attempt.streaming = True
    await anext(body)  # now it runs: whatever happens before the client reads, its `finally` settles
    return Answer(200, headers, body)


def _relay(call: Call, candidate: Candidate) -> Relay:
    assert call.inbound is not None
    adapter: Adapter = candidate.target.provider.adapter
    if adapter.wire is call.path.dialect:
        relay = adapter.relay(call.inbound.head)
    else:
        request = call.inbound.canonical()
        assert isinstance(request, ChatRequest)
        parser = adapter.stream_parser(request)
        relay = streaming.Translation(parser, call.dialect.stream(call.inbound, call.request_id))
    return streaming.AsArray(relay) if call.path.array else relay
