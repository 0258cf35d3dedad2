"""Management API: usage events, summaries, exports, single requests, prices, the ledger's own checks (contract 4)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any, ClassVar

from asgiref.sync import sync_to_async
from django.http import StreamingHttpResponse
from django.http.response import HttpResponseBase
from rest_framework.request import Request
from rest_framework.response import Response

from conduit.core.api import ResourceView, actor_of, described, page, parsed
from conduit.core.errors import InvalidInput
from providers.providers import find
from usage import explanations, filters, overrides, reports, summaries
from usage import representations as shapes
from usage.models import Price, UsageEvent
from usage.verification import verify

_FILTERS = {name: filters.HELP[name] for name in filters.EVENTS}
_SUMMARY_FILTERS = {name: filters.HELP[name] for name in filters.SUMMARY}


def _given(request: Request, names: tuple[str, ...]) -> dict[str, str]:
    return {name: request.query_params[name] for name in names if request.query_params.get(name)}


class Events(ResourceView):
    resource = "usage"
    query: ClassVar[frozenset[str]] = frozenset(filters.EVENTS)

    @described("List usage events, newest first", response=shapes.EventOutput, many=True, query=_FILTERS)
    def get(self, request: Request) -> Response:
        found = reports.events(actor_of(request), _given(request, filters.EVENTS))
        return page(request, found, serialize=reports.event_body, key=reports.NEWEST_FIRST)


class Summary(ResourceView):
    resource = "usage"
    query: ClassVar[frozenset[str]] = frozenset({"group_by", "from", "to", *filters.SUMMARY})

    @described(
        "Sum usage by group",
        response=shapes.SummaryOutput,
        query={
            "group_by": f"{', '.join(summaries.GROUPS)}, day, hour; several with commas; tag with key, team, day, hour",
            "from": "30 days before `to`",
            "to": "now",
            **_SUMMARY_FILTERS,
        },
    )
    def get(self, request: Request) -> Response:
        groups = summaries.parse_groups(request.query_params.get("group_by", ""))
        span = reports.parse_span(_given(request, ("from", "to")))
        return Response(reports.summary(actor_of(request), groups, span, _given(request, filters.SUMMARY)))


_EXPORTED = {"format": "csv or jsonl", **_FILTERS}
_FORMATS = {
    "csv": ("text/csv; charset=utf-8", reports.as_csv),
    "jsonl": ("application/jsonl", reports.as_jsonl),
}


class Export(ResourceView):
    """Streamed: a chunk is read from the database when the client has taken the one before."""

    resource = "usage"
    query: ClassVar[frozenset[str]] = frozenset({"format", *filters.EVENTS})

    @described("Export usage events, oldest first", query=_EXPORTED)  # type: ignore[type-var]  # not DRF's Response
    def get(self, request: Request) -> HttpResponseBase:
        form = request.query_params.get("format", "csv")
        if form not in _FORMATS:
            raise InvalidInput("format", "Must be csv or jsonl.", "invalid_choice")
        media_type, render = _FORMATS[form]
        chunks = reports.chunks(reports.events(actor_of(request), _given(request, filters.EVENTS)))

        async def body() -> AsyncIterator[bytes]:
            yield render([], first=True)
            while (rows := await sync_to_async(_next)(chunks)) is not None:
                yield render(rows, first=False)

        reports.note_export(actor_of(request), form, _given(request, filters.EVENTS))
        headers = {"Content-Disposition": f'attachment; filename="usage.{form}"'}
        return StreamingHttpResponse(body(), content_type=media_type, headers=headers)


def _next(chunks: Iterator[list[UsageEvent]]) -> list[UsageEvent] | None:
    return next(chunks, None)


class OneRequest(ResourceView):
    resource = "requests"

    @described("Explain a request: its attempts, decision trace and cost arithmetic", response=shapes.RequestOutput)
    def get(self, request: Request, request_id: str) -> Response:
        return Response(explanations.request_body(actor_of(request), request_id))


class Prices(ResourceView):
    resource = "prices"
    query: ClassVar[frozenset[str]] = frozenset({"model", "provider", "source", "vendor"})

    @described(
        "List prices by model, newest first",
        response=shapes.PriceOutput,
        many=True,
        query={
            "model": "of this model",
            "provider": "overrides for this provider, by name or id",
            "source": "catalogue or override",
            "vendor": "of this vendor's price list",
        },
    )
    def get(self, request: Request) -> Response:
        given = _given(request, ("model", "source", "vendor"))
        where: dict[str, Any] = dict(given)
        if provider := request.query_params.get("provider"):
            where["provider_id"] = find(provider).id
        found = Price.objects.filter(**where)
        return page(request, found, serialize=overrides.outward, key=("model", "-effective_from", "id"))

    @described("Set a price from a time on", request=shapes.PriceInput, response=shapes.PriceOutput, status=201)
    def post(self, request: Request) -> Response:
        given = parsed(shapes.PriceInput, request)
        price = overrides.set_price(given.pop("model"), actor=actor_of(request), **given)
        return self.one(overrides.outward(price), status=201)


class LedgerVerify(ResourceView):
    resource = "ledger"

    @described("Check the ledger's invariants over all events", response=shapes.VerificationOutput)
    def get(self, request: Request) -> Response:
        return Response(shapes.verification_body(verify()))
