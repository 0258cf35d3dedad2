"""Lists by keyset: a page costs the same however deep it lies, and rows that arrive meanwhile shift nothing."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

from django.core.exceptions import ValidationError
from django.db.models import Model, Q, QuerySet
from rest_framework.request import Request
from rest_framework.response import Response

from conduit.core.clock import rfc3339
from conduit.core.errors import InvalidInput

Row = TypeVar("Row", bound=Model)
DEFAULT, LARGEST = 50, 200


def page(
    request: Request,
    queryset: QuerySet[Row],
    *,
    serialize: Callable[[Row], Any] | None = None,
    serialize_all: Callable[[Sequence[Row]], list[Any]] | None = None,
    key: Sequence[str] = ("-id",),
) -> Response:
    """`{"data": […], "next": CURSOR | null}` for `?limit=&cursor=`.

    `key` orders the list by fields that are together unique and never null, each with `-` for descending. Give
    `serialize` for one row, or `serialize_all` where a page's rows share queries.
    """
    rows, cursor = slice_of(request, queryset, key)
    if serialize_all is not None:
        data = serialize_all(rows)
    elif serialize is not None:
        data = [serialize(row) for row in rows]
    else:
        raise TypeError("page needs serialize or serialize_all")
    return Response({"data": data, "next": cursor})


def slice_of(request: Request, queryset: QuerySet[Row], key: Sequence[str]) -> tuple[list[Row], str | None]:
    """The rows of the asked page and the cursor of the next one."""
    limit = _limit(request.query_params.get("limit"))
    text = request.query_params.get("cursor")
    if text:
        queryset = queryset.filter(_after(queryset.model, key, _decode(text, len(key))))
    rows = list(queryset.order_by(*key)[: limit + 1])
    if len(rows) <= limit:
        return rows, None
    rows = rows[:limit]
    return rows, _encode([getattr(rows[-1], name.lstrip("-")) for name in key])


def _limit(text: str | None) -> int:
    if text is None:
        return DEFAULT
    if not text.isascii() or not text.isdigit() or len(text) > 4 or not 1 <= int(text) <= LARGEST:
        raise InvalidInput("limit", f"Must be a whole number from 1 to {LARGEST}.", "out_of_range")
    return int(text)


def _after(model: type[Model], key: Sequence[str], values: list[Any]) -> Q:
    """(a, b) after (x, y): a after x, or a = x and b after y."""
    condition, equal = Q(), Q()
    for name, value in zip(key, values, strict=True):
        field = name.lstrip("-")
        try:
            typed = model._meta.get_field(field).to_python(value)  # type: ignore[union-attr]
        except (ValidationError, ValueError, TypeError, OverflowError):
            raise _bad_cursor() from None
        condition |= equal & Q((f"{field}__{'lt' if name.startswith('-') else 'gt'}", typed))
        equal &= Q((field, typed))
    return condition


def _encode(values: list[Any]) -> str:
    plain = [rfc3339(v) if isinstance(v, datetime) else str(v) if isinstance(v, UUID) else v for v in values]
    return base64.urlsafe_b64encode(json.dumps(plain).encode()).decode().rstrip("=")


def _decode(text: str, length: int) -> list[Any]:
    try:
        values = json.loads(base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True))
    except (binascii.Error, ValueError, RecursionError):
        raise _bad_cursor() from None
    if not isinstance(values, list) or len(values) != length:
        raise _bad_cursor()
    for value in values:
        if (
            not isinstance(value, (str, int))
            or isinstance(value, bool)
            or "\x00" in str(value)
            or len(str(value)) > 300
        ):
            raise _bad_cursor()
    return values


def _bad_cursor() -> InvalidInput:
    return InvalidInput("cursor", "Is not a cursor of this list.", "invalid_cursor")
