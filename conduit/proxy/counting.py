"""How many tokens is this prompt? Asked of the provider that would serve it, where it has such a call; else estimated.

Nobody bills such a question, so nothing is held or journalled. It takes its place in the rate limits, and credentials
that their provider rejected are passed over as for any request. Whatever goes wrong upstream, the answer is the
estimate: a client that only wants a figure is not failed. `x-conduit-count` says which of the two it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from conduit.core.secret import mask
from conduit.proxy import admission, answer_headers, pipeline
from conduit.proxy.call import JSON, Answer, Call, Headers
from conduit.proxy.dialects.base import CountingDialect
from conduit.proxy.dialects.prompt_tokens import prompt_tokens
from conduit.proxy.seals import Seals
from providers.adapters.base import Counting, Upstream, UpstreamRequest
from providers.adapters.foreign import readable
from providers.adapters.types import ChatRequest
from providers.candidates import Candidate, Watch, candidates
from providers.errors import CannotCarry, UpstreamError
from providers.routing import RouteEntry

if TYPE_CHECKING:
    from conduit.proxy.gateway import Gateway

PATIENCE = 10.0  # seconds; an estimate is there at once
MAX_COUNT_BYTES = 64 * 1024
HEADER = b"x-conduit-count"
log = structlog.get_logger("conduit.counting")


async def run(gateway: Gateway, call: Call) -> Answer:
    """Raises ApiError for what the key may not ask."""
    admission.check_key(call)
    dialect = call.dialect
    assert isinstance(dialect, CountingDialect), "paths.py names `count` for dialects that have it only"
    call.inbound = dialect.parse_count(call.body, model=call.path.model)
    route = admission.find_route(gateway, call, call.inbound.head.model)
    await admission.check_customer(gateway, call, call.inbound.head.user)
    await gateway.rates.admit(call)
    request = call.inbound.canonical()
    assert isinstance(request, ChatRequest)
    candidate = await _first(gateway, call, route)
    tokens = await _asked(gateway, call, candidate, request) if candidate is not None else None
    headers: Headers = [JSON, *answer_headers.of_limits(call)]
    if tokens is None or candidate is None:
        return Answer(200, [*headers, (HEADER, b"estimated")], dialect.render_count(prompt_tokens(request)))
    headers += [(HEADER, b"provider"), *answer_headers.of_target(candidate.target)]
    return Answer(200, headers, dialect.render_count(tokens))


async def _first(gateway: Gateway, call: Call, route: RouteEntry) -> Candidate | None:
    """Who would serve the prompt, where that provider can count."""
    watch = Watch(gateway.breaker, gateway.health, claims=False)
    drawn = candidates(route, gateway.rng, watch=watch, at=gateway.now())
    candidate = await gateway.rates.next_open(call, drawn)
    if candidate is None or not _counts(candidate):
        return None
    return candidate


def _counts(candidate: Candidate) -> bool:
    adapter = candidate.target.adapter
    return isinstance(adapter, Counting) and adapter.can_count


async def _asked(gateway: Gateway, call: Call, candidate: Candidate, request: ChatRequest) -> int | None:
    """None when the provider did not tell."""
    adapter = candidate.target.adapter
    assert isinstance(adapter, Counting)
    try:
        upstream = await gateway.transport.send(_build(adapter, call, candidate, request), timeout=PATIENCE)
        try:
            body = await upstream.read(MAX_COUNT_BYTES)
        finally:
            upstream.close()
        if upstream.status != 200:
            raise candidate.target.adapter.parse_error(upstream.status, upstream.headers, body)
        return adapter.read_count(body)
    except CannotCarry:
        return None
    except UpstreamError as error:
        error.message = mask(error.message, candidate.credential.masks())
        gateway.rejections.note(candidate, error)
        log.info("count_failed", provider=candidate.target.provider.name, reason=error.message)
        return None


def _build(adapter: Counting, call: Call, candidate: Candidate, request: ChatRequest) -> UpstreamRequest:
    provider = candidate.target.provider
    upstream = Upstream(
        base_url=provider.base_url,
        model=candidate.target.model,
        secrets=candidate.credential.secrets,
        options=pipeline.options(call, candidate),
        region=provider.region,
    )
    seals = Seals(call.path.dialect, candidate.target)
    if call.path.dialect is candidate.target.adapter.wire:
        return adapter.count_tokens(seals.body(call.body)[0], upstream)
    asked, _ = seals.request(readable(request, candidate.target.adapter.wire)[0])
    assert isinstance(asked, ChatRequest)
    return adapter.count_request(asked, upstream)
