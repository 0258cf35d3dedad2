"""The proxy endpoint: one DRF view with its own asynchronous dispatch.

It keeps DRF's shape (authentication classes, permission classes, exception handler) but never leaves the event loop:
no middleware, no signals, no thread (design 2 has the measurements). The lean handler in asgi.py calls it.
"""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import structlog
from rest_framework.authentication import BaseAuthentication
from rest_framework.permissions import BasePermission
from rest_framework.views import APIView

from conduit.proxy import (
    answer_headers,
    counting,
    dry_run,
    errors,
    holder,
    idempotency,
    pipeline,
    responses,
    responses_reading,
    settlement,
)
from conduit.proxy.call import JSON, Answer, Call, Headers, Incoming
from conduit.proxy.dialects.registry import DIALECTS
from conduit.proxy.errors import ApiError
from conduit.proxy.gateway import Gateway
from conduit.proxy.paths import Path
from keys.entries import KeyEntry

log = structlog.get_logger("conduit.proxy")
_KEY_HEADERS = (b"x-api-key", b"api-key", b"x-goog-api-key")


class VirtualKeyAuthentication(BaseAuthentication):
    """Finds the virtual key in the headers that SDKs use (contract 3). One answer for everything that is wrong."""

    async def authenticate(  # type: ignore[override]
        self, gateway: Gateway, headers: dict[bytes, bytes]
    ) -> KeyEntry:
        """The live key. Raises ApiError 401, or 503 when an unknown key cannot be looked up."""
        raw = _raw_key(headers)
        entry = await gateway.keys.find(raw) if raw else None
        if entry is None:
            raise errors.bad_key()
        return entry


def _raw_key(headers: dict[bytes, bytes]) -> str:
    bearer = headers.get(b"authorization", b"")
    if bearer[:7].lower() == b"bearer ":
        return bearer[7:].strip().decode("latin-1")
    for name in _KEY_HEADERS:
        if name in headers:
            return headers[name].strip().decode("latin-1")
    return ""


class Serving(BasePermission):
    """The gateway is able to admit requests at all."""

    def has_permission(self, request: Any, view: APIView) -> bool:
        """True, or ApiError 503 with the reason."""
        assert isinstance(view, ProxyView)
        view.gateway.check_serving()
        return True


class ProxyView(APIView):
    """`gateway` and `path` are given by the handler.

    `dispatch` takes an Incoming and returns an Answer, not Django's request and response: building those costs more
    than checking the key, and nothing here reads them.
    """

    authentication_classes: Any = [VirtualKeyAuthentication]  # noqa: RUF012 (DRF's own shape)
    permission_classes: Any = [Serving]  # noqa: RUF012
    gateway: Gateway = cast(Gateway, None)
    path: Path = cast(Path, None)
    error: ApiError | None = None  # what the request failed with
    call: Call | None = None  # once it is known whose request it is; its limits are to be given back

    async def dispatch(self, request: Incoming) -> Answer:  # type: ignore[override]
        self.incoming = request
        try:
            self.check_permissions(cast(Any, request))
            authenticator: Any = self.get_authenticators()[0]
            changes = self.gateway.in_use.changes
            key = await authenticator.authenticate(self.gateway, request.headers)
            self.gateway.uses.note(key, request.address)
            self.call = Call(
                path=self.path,
                dialect=DIALECTS[self.path.dialect],
                key=key,
                changes=changes,
                request_id=request.request_id,
                body=request.body,
                headers=request.headers,
                address=request.address,
                started=request.started,
            )
            answer = await self._act(self.call)
        except Exception as error:  # noqa: BLE001 (the pipeline's edge)
            answer = self.answer_exception(error)
        answer.headers += answer_headers.of_request(request)
        return answer

    async def _act(self, call: Call) -> Answer:
        action = call.path.action
        if action in ("generate", "respond"):
            return await self._generate(call)
        if action in ("stored", "input_items", "cancel", "delete"):
            return await responses_reading.answer(self.gateway, call)
        if action == "count":
            return await counting.run(self.gateway, call)
        if action == "holder":
            return await holder.own_view(self.gateway, call)
        return holder.models(self.gateway, call)

    async def _generate(self, call: Call) -> Answer:
        keeps, dry = call.path.action == "respond", dry_run.asked(call)
        call.timeout = _timeout(call.headers)
        if dry:
            if keeps:
                await responses.prepare(self.gateway, call)
            return await dry_run.run(self.gateway, call)
        act = partial(responses.respond if keeps else pipeline.run, self.gateway, call)
        if idempotency.HEADER in call.headers:
            return await self.gateway.idempotent.run(self.gateway, call, act)
        return await act()

    def answer_exception(self, error: Exception) -> Answer:
        """Errors of ours in the dialect's shape; anything else is counted, logged and answered as 500."""
        if not isinstance(error, ApiError):
            log.error("request_failed", request_id=self.incoming.request_id, exc_info=error)
            error = errors.internal(self.incoming.request_id)
        self.error, call = error, self.call
        if call is not None and not call.ended:
            settlement.refuse(self.gateway, call, error)
        return failure(self.path, error, self.incoming.request_id, extra=answer_headers.of_limits(call) if call else [])


def failure(path: Path, error: ApiError, request_id: str, extra: Headers | None = None) -> Answer:
    """An error in the dialect's own shape."""
    headers = [(name.encode(), value.encode("latin-1", "replace")) for name, value in error.headers.items()]
    body = DIALECTS[path.dialect].error(error, request_id)
    return Answer(error.status, [JSON, *headers, *(extra or [])], body)


def _timeout(headers: Any) -> float | None:
    """`x-conduit-timeout` in seconds, at most an hour."""
    sent = headers.get(b"x-conduit-timeout")
    if sent is None:
        return None
    text = sent.decode("latin-1").strip()
    if not text.replace(".", "", 1).isdigit() or not text.isascii() or not 0 < float(text) <= 3600:
        raise errors.invalid_value("x-conduit-timeout", "x-conduit-timeout: must be seconds from 0 to 3600.")
    return float(text)
