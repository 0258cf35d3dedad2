"""Errors of the management API as `application/problem+json` (RFC 9457). The one place that picks a status for them.

{"type": "about:blank", "title": "Bad Request", "status": 400, "detail": "…", "errors": [{"field", "code", "detail"}]}
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any

from django.core.exceptions import ObjectDoesNotExist, PermissionDenied, RequestDataTooBig
from django.db import IntegrityError
from django.http import Http404
from rest_framework import exceptions
from rest_framework.response import Response

from conduit.core.errors import ConduitError, ConfigurationError, Conflict, Forbidden, InvalidInput, NotFound
from conduit.core.sealing import KekUnavailable
from conduit.core.strict_json import TooLarge

logger = logging.getLogger("conduit.api")
MEDIA_TYPE = "application/problem+json"
Item = dict[str, str]


class PreconditionFailed(ConduitError):
    """If-Match names another state than the present one."""


class Unprocessable(ConduitError):
    """An Idempotency-Key was used before with another request."""


class TooMany(ConduitError):
    """Too many tries; `retry_after` in seconds."""

    def __init__(self, detail: str, retry_after: int) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


STATUS: dict[type[Exception], int] = {
    InvalidInput: 400,
    Forbidden: 403,
    PermissionDenied: 403,
    NotFound: 404,
    Http404: 404,
    ObjectDoesNotExist: 404,
    Conflict: 409,
    IntegrityError: 409,
    PreconditionFailed: 412,
    TooLarge: 413,
    RequestDataTooBig: 413,
    Unprocessable: 422,
    TooMany: 429,
    ConfigurationError: 503,
    KekUnavailable: 503,
}
STANDARD = {
    403: "Not allowed.",
    404: "There is no such object, or not for this caller.",
    409: "Another change came in between. Read the objects again and repeat the change.",
}


def problem(
    status: int, detail: str, errors: list[Item] | None = None, headers: dict[str, str] | None = None
) -> Response:
    body = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "errors": errors or [],
    }
    return Response(body, status=status, headers=headers, content_type=MEDIA_TYPE)


def problem_handler(exc: Exception, context: Mapping[str, Any]) -> Response:
    """DRF's exception handler. What nobody foresaw is logged in full and answered with 500, without its text."""
    if isinstance(exc, exceptions.APIException):
        return _of_framework(exc)
    for kind in type(exc).__mro__:
        if kind in STATUS:
            return _of_ours(exc, STATUS[kind])
    logger.error("unforeseen error in the management API", exc_info=exc)
    return problem(500, "Conduit failed to answer this; its log has the details.")


def _of_ours(exc: Exception, status: int) -> Response:
    errors = [{"field": exc.field, "code": exc.code, "detail": exc.detail}] if isinstance(exc, InvalidInput) else []
    headers = {"Retry-After": str(exc.retry_after)} if isinstance(exc, TooMany) else None
    # Texts of Django's own errors may quote rows and constraints; ours are written to be read by the caller.
    detail = str(exc) if isinstance(exc, ConduitError) else ""
    return problem(status, detail or STANDARD.get(status, HTTPStatus(status).phrase), errors, headers)


def _of_framework(exc: exceptions.APIException) -> Response:
    headers = {}
    if auth_header := getattr(exc, "auth_header", None):
        headers["WWW-Authenticate"] = str(auth_header)
    if wait := getattr(exc, "wait", None):
        headers["Retry-After"] = str(int(wait) + 1)
    if isinstance(exc, exceptions.ValidationError):
        errors = list(flatten(exc.detail, ""))
        first = errors[0] if errors else {"field": "", "detail": "Invalid input."}
        return problem(
            400, f"{first['field']}: {first['detail']}" if first["field"] else first["detail"], errors, headers
        )
    return problem(exc.status_code, str(exc.detail), [], headers)


def flatten(detail: Any, field: str) -> Iterator[Item]:
    """DRF's nested details as one row per error; the field is a path such as `budgets.0.limit_usd`."""
    if isinstance(detail, Mapping):
        for name, inner in detail.items():
            here = field if name == "non_field_errors" else f"{field}.{name}" if field else str(name)
            yield from flatten(inner, here)
    elif isinstance(detail, list) and detail and not all(isinstance(part, str) for part in detail):
        for index, inner in enumerate(detail):
            yield from flatten(inner, f"{field}.{index}" if field else str(index))
    elif isinstance(detail, list):
        for inner in detail:
            yield from flatten(inner, field)
    else:
        yield {"field": field, "code": str(getattr(detail, "code", "invalid")), "detail": str(detail)}
