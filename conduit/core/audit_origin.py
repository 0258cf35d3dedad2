"""Tells the audit log from where a control-plane request came. The proxy's requests never pass here."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from inspect import iscoroutinefunction
from typing import Any

from django.http import HttpRequest, HttpResponseBase
from django.utils.decorators import sync_and_async_middleware

from conduit.core import audit
from conduit.core.ids import request_id
from conduit.core.source_address import client_address


@contextmanager
def _origin(request: HttpRequest) -> Iterator[None]:
    came_from = audit.address.set(client_address(request))
    called = audit.request_id.set(request_id(request.headers.get("x-request-id")))
    try:
        yield
    finally:
        audit.address.reset(came_from)
        audit.request_id.reset(called)


@sync_and_async_middleware
def audit_origin(get_response: Callable[[HttpRequest], Any]) -> Callable[[HttpRequest], Any]:
    """Middleware: address and request id of the entries that this request leaves, and of no later one's."""
    if iscoroutinefunction(get_response):
        waiting: Callable[[HttpRequest], Awaitable[HttpResponseBase]] = get_response

        async def told(request: HttpRequest) -> HttpResponseBase:
            with _origin(request):
                return await waiting(request)

        return told

    def plainly(request: HttpRequest) -> HttpResponseBase:
        with _origin(request):
            answer: HttpResponseBase = get_response(request)
            return answer

    return plainly
