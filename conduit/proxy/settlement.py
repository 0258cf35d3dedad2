"""Turns an attempt's end into money: exactly one journal record, however it ends.

Making an `Attempt` writes `dispatched` before the first upstream byte; one of `succeed`, `fail` or `cancel` writes
`settled`. All of them are plain synchronous code, so a cancellation cannot come between: that is what makes settling
safe in a `finally`. A second call changes nothing.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any
from uuid import UUID

from conduit.core.ids import uuid7
from conduit.core.secret import mask
from conduit.proxy import metrics
from conduit.proxy.call import Call
from conduit.proxy.dialects.prompt_tokens import estimated_prompt
from conduit.proxy.errors import ApiError, from_upstream
from conduit.proxy.reservation import Reserved
from providers.adapters.estimate import BYTES_PER_TOKEN, tokens_in, tokens_in_bytes
from providers.adapters.types import Usage
from providers.candidates import Candidate
from providers.errors import UpstreamError, UpstreamTimeout
from usage import records
from usage.pricing import Cost, PriceRow, cost

if TYPE_CHECKING:
    from conduit.proxy.gateway import Gateway


def _now_us() -> int:
    return time.time_ns() // 1000


class Attempt:
    """One upstream attempt between its dispatch and its end."""

    def __init__(  # noqa: PLR0913 (what an attempt is)
        self,
        gateway: Gateway,
        call: Call,
        candidate: Candidate,
        price: PriceRow | None,
        reserved: Reserved,
        attempt_id: UUID,
    ) -> None:
        self._gateway, self._call, self.candidate, self._price = gateway, call, candidate, price
        self._hold, self.cap = reserved.hold, reserved.cap
        self.id = attempt_id
        self.open = True
        self.unread = 0  # bytes of a whole answer that came and was not understood
        self._judged = False
        self.streaming = False  # the stream's generator owns the upstream connection and the attempt's end
        self._time_us = reserved.time_us
        self._began = time.perf_counter()
        self._first: float | None = None
        self._output = 0  # tokens
        self.cost: Cost | None = None
        call.attempts += 1
        self._columns = self._identify()
        gateway.journal.append(records.encode(records.Dispatched(**self._columns)))
        self.flight = gateway.in_use.begin(call.key, candidate.credential, self._time_us, changes=call.changes)

    def _identify(self) -> dict[str, Any]:
        call, target, credential = self._call, self.candidate.target, self.candidate.credential
        assert call.inbound is not None
        return {
            "attempt_id": self.id.bytes,
            "time_us": self._time_us,
            "request_id": call.request_id,
            "attempt": call.attempts,
            "key_id": call.key.id.bytes,
            "team_id": call.key.team_id.bytes if call.key.team_id else None,
            "customer": call.customer,
            "provider_id": target.provider.id.bytes,
            "credential_id": credential.id.bytes,
            "credential_version": credential.version,
            "route": call.inbound.head.model,
            "model": target.model,
            "dialect": call.path.dialect.value,
            "endpoint": call.path.endpoint.value,
            "stream": call.inbound.head.stream,
            "held_nanos": self._hold.nanos,
            "budgets": [budget.bytes for budget in self._hold.budgets],
            "periods": self._hold.periods,
            "worker": self._gateway.worker.bytes,
            "tags": call.tags,
            "price_id": self._price.id.bytes if self._price else None,
        }

    def shown(self, error: UpstreamError) -> ApiError:
        """The client's view of the error, with this attempt's secrets masked in the provider's words."""
        error.message = mask(error.message, self.candidate.credential.masks())
        return from_upstream(error)

    @property
    def limited(self) -> bool:
        """Whether a hard budget stands behind it."""
        return self._hold.limited

    def give_back(self) -> None:
        """What it held: surely nothing was billed."""
        self._gateway.holds.settle(self._hold, 0)

    def most_frames(self) -> float:
        """Each frame of a stream carries a token at least: more than the cap's is more than was asked for."""
        assert self._call.inbound is not None
        head = self._call.inbound.head
        return math.inf if self.cap is None else self.cap * head.n + head.echoed

    def first_byte(self) -> None:
        """The first streamed bytes are about to leave for the client."""
        if self._first is None:
            self._first = time.perf_counter()
            self._gateway.tally.observe(
                metrics.FIRST_TOKEN, self._call.path.endpoint.value, self._first - self._call.started
            )

    def stream_opened(self) -> None:
        self._gateway.tally.streams += 1

    def stream_closed(self, why: str) -> None:
        """All that is measured of a stream, once. `why` it ended: a label of metrics.STREAMS_ENDED."""
        tally, target = self._gateway.tally, self.candidate.target
        labels = tally.bounded(target.provider.name, target.model)
        tally.streams -= 1
        tally.add(metrics.STREAMS_ENDED, (why, *labels))
        if self._first is None:
            return
        tally.observe(metrics.STREAM_FIRST, labels, self._first - self._call.started)
        seconds = time.perf_counter() - self._first
        if self._output > 1 and seconds > 0:
            tally.observe(metrics.STREAM_RATE, labels, self._output / seconds)

    def noted(self, error: UpstreamError) -> None:
        """Tells the breaker of a failure in the middle of a stream. `error.message` is masked already."""
        self._gateway.rejections.note(self.candidate, error)

    def succeed(self, usage: Usage | None, *, answer_bytes: int) -> None:
        """The whole answer came. Without usage it is estimated: `answer_bytes` are those of the generated text."""
        if usage is not None and untold(usage) and not usage.flags:
            usage.flags = ("usage_missing",)
        if self.open:
            self._judged = True
            self._gateway.health.works(self.candidate.target.key)
        if self._call.left:
            self._end(usage, answer_bytes, status=499, outcome="cancelled")
        else:
            self._end(usage, answer_bytes, status=200, outcome="ok")

    def cancel(self, usage: Usage | None, *, answer_bytes: int, ended: bool = False) -> None:
        """The client left. What was streamed until then is billed, and the token that was on its way meanwhile."""
        self.judge(None)
        if ended and usage is not None:
            self._end(usage, answer_bytes, status=499, outcome="cancelled")
        else:
            self._end(usage, answer_bytes + BYTES_PER_TOKEN, status=499, outcome="cancelled", partial=True)

    def fail(
        self,
        error: ApiError,
        cause: UpstreamError | None,
        *,
        usage: Usage | None = None,
        answer_bytes: int = 0,
        final: bool,
    ) -> None:
        """The attempt failed. What surely was not billed costs nothing; of what may have been, what came is estimated.
        Where nothing came and a hard budget applies, its hold stays: the cost is uncertain until somebody knows it."""
        self.judge(cause)
        uncertain = False
        if usage is None and cause is not None:
            usage = cause.usage
        if usage is None and answer_bytes == 0:
            if cause is None or cause.billed == "no":
                usage = Usage()
            else:
                answer_bytes = self.unread
            uncertain = usage is None and not answer_bytes and self.limited
        elif answer_bytes:
            answer_bytes += BYTES_PER_TOKEN  # the token that was torn, or on its way
        self._end(
            Usage() if uncertain else usage,
            answer_bytes,
            status=error.status,
            outcome="error",
            final=final,
            error=error,
            partial=True,
            uncertain=uncertain,
        )

    def judge(self, cause: UpstreamError | None) -> None:
        """Once, as soon as it failed: the next attempt may be at the same target. A caller that has no patience says
        nothing about the provider."""
        if self._judged:
            return
        self._judged = True
        health, target = self._gateway.health, self.candidate.target.key
        if cause is None or (isinstance(cause, UpstreamTimeout) and self._call.timeout is not None):
            health.unknown(target)
        else:
            health.failed(target, self.candidate.credential.id, cause)

    def _end(  # noqa: PLR0913 (private: the three public ends fill it)
        self,
        usage: Usage | None,
        answer_bytes: int,
        *,
        status: int,
        outcome: str,
        final: bool = True,
        error: ApiError | None = None,
        partial: bool = False,
        uncertain: bool = False,
    ) -> None:
        if not self.open:
            return
        self.open = False
        self._gateway.in_use.end(self.flight)
        self._call.ended = self._call.ended or final
        call, now = self._call, time.perf_counter()
        exactness = "uncertain" if uncertain else "exact"
        if usage is None:
            usage = self._estimate(answer_bytes)
            exactness = "estimated"
        elif usage.flags:
            usage = self._mended(usage, answer_bytes)
            exactness = "estimated"
        elif partial and answer_bytes:
            usage.output_tokens = max(usage.output_tokens, tokens_in_bytes(answer_bytes))
            exactness = "estimated"
        self.cost = priced = cost(usage, self._price)
        self._output = usage.output_tokens
        self._gateway.journal.append(
            records.encode(
                records.Settled(
                    **self._columns,
                    status=status,
                    outcome=outcome,
                    exactness=exactness,
                    final=final,
                    input_tokens=usage.input_tokens,
                    output_tokens=usage.output_tokens,
                    cache_read_tokens=usage.cache_read_tokens,
                    cache_write_tokens=usage.cache_write_tokens,
                    reasoning_tokens=usage.reasoning_tokens,
                    units=records.unit_counts(usage),
                    cost_nanos=priced.nanos,
                    arithmetic=priced.lines,
                    latency_us=int((now - self._began) * 1e6),
                    ttft_us=int((self._first - call.started) * 1e6) if self._first is not None else None,
                    overhead_us=call.overhead_us(),
                    error_code=error.code if error else "",
                    error_message=(error.cause or error.message)[:500] if error else "",
                    flags=[*usage.flags, *priced.flags],
                    trace=call.trace if final else [],
                )
            )
        )
        call.tokens += usage.input_tokens + usage.output_tokens
        if uncertain:
            self._gateway.holds.keep(self._hold)
        else:
            self._gateway.holds.settle(self._hold, priced.nanos)
        self._count(usage, priced, status, outcome, final=final)

    def _mended(self, usage: Usage, answer_bytes: int) -> Usage:
        """Figures that make no sense came as 0 with a flag: those are estimated, sane ones stay."""
        estimate = self._estimate(answer_bytes)
        usage.input_tokens = usage.input_tokens or estimate.input_tokens
        usage.output_tokens = usage.output_tokens or estimate.output_tokens
        return usage

    def _estimate(self, answer_bytes: int) -> Usage:
        """No figures from the provider: the request's text and what was generated, by the documented heuristic."""
        call = self._call
        prompt = estimated_prompt(call.inbound) if call.inbound else tokens_in(call.body)
        return Usage(input_tokens=prompt, output_tokens=tokens_in_bytes(answer_bytes), flags=("usage_missing",))

    def _count(self, usage: Usage, priced: Cost, status: int, outcome: str, *, final: bool) -> None:
        call, target = self._call, self.candidate.target
        provider, model, endpoint = target.provider.name, target.model, call.path.endpoint.value
        tally = self._gateway.tally
        tally.add(metrics.ATTEMPTS, (provider, outcome))
        tally.add(metrics.TOKENS, (provider, model, "input"), max(0, usage.input_tokens))
        tally.add(metrics.TOKENS, (provider, model, "output"), max(0, usage.output_tokens))
        tally.add(metrics.COST, (provider, model), priced.nanos)
        if not final:
            return
        seconds = time.perf_counter() - call.started
        tally.add(metrics.REQUESTS, (endpoint, provider, model, str(status)))
        tally.observe(metrics.DURATION, endpoint, seconds)
        tally.observe(metrics.ADDED, endpoint, call.overhead_us() / 1e6)
        self._gateway.request_log.write(
            {
                "time_us": self._time_us,
                "request_id": call.request_id,
                "key": call.key.public_id,
                "route": self._columns["route"],
                "provider": provider,
                "model": model,
                "endpoint": endpoint,
                "status": status,
                "outcome": outcome,
                "attempts": call.attempts,
                "input_tokens": usage.input_tokens,
                "output_tokens": usage.output_tokens,
                "cost_nanos": priced.nanos,
                "ms": round(seconds * 1000, 2),
            }
        )


def untold(usage: Usage | None) -> bool:
    """Whether the provider's figures cannot be taken as they are: none, senseless ones, or no tokens at all."""
    return usage is None or bool(usage.flags) or not (usage.input_tokens or usage.output_tokens or usage.units)


def refuse(gateway: Gateway, call: Call, error: ApiError) -> None:
    """We refused the request ourselves: one row without cost, so that "why was this blocked" has an answer."""
    head = call.inbound.head if call.inbound else None
    gateway.journal.append(
        records.encode(
            records.Refused(
                attempt_id=uuid7().bytes,
                time_us=_now_us(),
                request_id=call.request_id,
                attempt=0,
                key_id=call.key.id.bytes,
                team_id=call.key.team_id.bytes if call.key.team_id else None,
                customer=call.customer,
                route=head.model[:200] if head else "",
                dialect=call.path.dialect.value,
                endpoint=call.path.endpoint.value,
                stream=head.stream if head else False,
                tags=call.tags,
                status=error.status,
                outcome="error",
                latency_us=int((time.perf_counter() - call.started) * 1e6),
                overhead_us=call.overhead_us(),
                error_code=error.code,
                error_message=error.message[:500],
                trace=call.trace,
            )
        )
    )
    gateway.tally.add(metrics.REFUSED, (call.path.endpoint.value, error.code))
    gateway.request_log.write(
        {
            "time_us": _now_us(),
            "request_id": call.request_id,
            "key": call.key.public_id,
            "route": head.model if head else "",
            "endpoint": call.path.endpoint.value,
            "status": error.status,
            "outcome": "refused",
            "code": error.code,
        }
    )
