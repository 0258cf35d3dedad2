"""Answers that are errors: of a request that cannot be read, and of a scripted status. Neither is ever billed."""

from __future__ import annotations

from collections.abc import Coroutine
from types import ModuleType
from typing import Any

import orjson

from providers.sandbox.connection import Exchange
from providers.sandbox.delivery import Errors
from providers.sandbox.faults import Faults
from providers.sandbox.reading import RequestError

_MESSAGES = {401: "Incorrect API key provided.", 429: "Rate limit reached.", 503: "The model is overloaded."}
_JSON = {"content-type": "application/json"}


def errors_of(dialect: ModuleType) -> Errors:
    return Errors(lambda status, message: orjson.dumps(dialect.error(status, message)), dialect.error_event)


def send_error(exchange: Exchange, dialect: ModuleType, error: Exception, headers: dict[str, str]) -> None:
    """`error` is a RequestError, or a FaultError, which is a 400."""
    if isinstance(error, RequestError):
        body = dialect.error(error.status, error.message, error.param, error.code)
        exchange.whole(error.status, {**_JSON, **headers}, orjson.dumps(body))
    else:
        exchange.whole(400, {**_JSON, **headers}, orjson.dumps(dialect.error(400, str(error))))


def send_scripted(
    exchange: Exchange, dialect: ModuleType, faults: Faults, headers: dict[str, str]
) -> Coroutine[Any, Any, None] | None:
    """The status fault, after its delay; `retry-after` beside it."""
    if faults.retry_after:
        headers["retry-after"] = faults.retry_after
    body = orjson.dumps(dialect.error(faults.status, _MESSAGES.get(faults.status, f"Scripted status {faults.status}.")))

    async def later() -> None:
        await exchange.pause(faults.delay_ms / 1000)
        exchange.whole(faults.status, {**_JSON, **headers}, body)

    if faults.delay_ms:
        return later()
    exchange.whole(faults.status, {**_JSON, **headers}, body)
    return None
