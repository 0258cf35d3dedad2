"""A POST with `Idempotency-Key` happens once; asking again gives the same answer again, for a day.

The change and its stored answer are one transaction, so there is never one without the other. While the first
request is under way an advisory lock makes the second one a conflict. The answer is sealed: it may hold a raw key.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Callable
from datetime import timedelta

from django.db import connection, transaction
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from conduit.core import audit, keyring
from conduit.core.actor import actor_of
from conduit.core.clock import now
from conduit.core.errors import Conflict, InvalidInput
from conduit.core.models import IdempotentReply
from conduit.core.problems import Unprocessable

HEADER = "Idempotency-Key"
PURPOSE = "replies"
KEPT = timedelta(hours=24)
KEY_RULE = "Must have 1 to 255 printable ASCII characters."
_KEY = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]{0,253}[\x21-\x7e])?", re.ASCII)


def once(request: Request, act: Callable[[], Response]) -> Response:
    """The answer of `act`, or the stored answer of the request that used the same key before.

    Raises InvalidInput for a malformed key, Conflict while the first request is under way, Unprocessable when the key
    was used with another body or path. An exception of `act` undoes everything, and the key is free again.
    """
    key = request.headers[HEADER]
    if not valid_key(key):
        raise InvalidInput(HEADER, KEY_RULE, "invalid_header")
    actor = actor_of(request).reference
    version, secret = keyring.purpose_key(PURPOSE)
    asked = _digest(secret, request)
    with transaction.atomic():
        if not _lock(keyring.context(actor, key)):
            raise Conflict("The first request with this Idempotency-Key is still under way.")
        IdempotentReply.objects.filter(created_at__lt=now() - KEPT).delete()
        row = IdempotentReply.objects.filter(actor=actor, key=key).first()
        if row is None:
            response = act()
            if response.status_code < 400:
                fresh = IdempotentReply(actor=actor, key=key, path=request.path, body_digest=asked)
                fresh.status = response.status_code
                fresh.reply = _sealed(fresh, version, secret, response)
                fresh.save(force_insert=True)
            return response
        if row.path != request.path or not hmac.compare_digest(bytes(row.body_digest), asked):
            raise Unprocessable("This Idempotency-Key was used before with another request.")
        again = _opened(row)
        # What was shown once is shown again, a secret perhaps: that is for the log.
        audit.record(actor=actor_of(request), action="reply.repeat", kind="reply", id=row.id, name=request.path[:254])
        return again


def once_by_itself(request: Request, act: Callable[[], Response]) -> Response:
    """Like `once` for an act that commits in several transactions and, repeated, gives the same result by itself.

    It asks somebody over the network: inside one transaction its locks would be held meanwhile, and what it notes about
    a failure would be undone. Two at the same time are told apart by the act's own states, not here.
    """

    def known() -> Response:
        raise _NotYet

    try:
        return once(request, known)
    except _NotYet:
        response = act()
    return once(request, lambda: response)


class _NotYet(Exception):
    """There is no stored answer."""


def valid_key(text: str) -> bool:
    return _KEY.fullmatch(text) is not None


def digest(secret: bytes, *parts: str | int | bytes) -> bytes:
    """Keyed: a plain hash of a body could be tried against guesses of what it held."""
    return hmac.new(secret, keyring.context(*parts), hashlib.sha256).digest()


def seal_reply(version: int, secret: bytes, plain: bytes, context: bytes) -> bytes:
    """An answer as it is stored: the version of the key before it, so that older ones open after a change of keys."""
    return version.to_bytes(4, "big") + keyring.seal(secret, plain, context)


def open_reply(stored: bytes, context: bytes) -> bytes:
    """The inverse of `seal_reply`. Raises KeyRingError."""
    _, secret = keyring.purpose_key(PURPOSE, int.from_bytes(stored[:4], "big"))
    return keyring.open_sealed(secret, stored[4:], context)


def _digest(secret: bytes, request: Request) -> bytes:
    body = json.dumps(request.data, sort_keys=True, separators=(",", ":"))
    return digest(secret, "body", request.path, body)


def _lock(name: bytes) -> bool:
    number = int.from_bytes(hashlib.sha256(b"idempotency" + name).digest()[:8], "big", signed=True)
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [number])
        return bool(cursor.fetchone()[0])


def _context(row: IdempotentReply) -> bytes:
    return keyring.context("reply", row.id.bytes, row.actor, row.key, row.path, row.status or 0)


def _sealed(row: IdempotentReply, version: int, secret: bytes, response: Response) -> bytes:
    headers = {name: value for name, value in response.items() if name in ("ETag", "Location")}
    body = JSONRenderer().render(response.data).decode() if response.data is not None else ""
    plain = json.dumps({"headers": headers, "body": body}).encode()
    return seal_reply(version, secret, plain, _context(row))


def _opened(row: IdempotentReply) -> Response:
    plain = json.loads(open_reply(bytes(row.reply or b""), _context(row)))
    body = json.loads(plain["body"]) if plain["body"] else None
    return Response(body, status=row.status, headers={**plain["headers"], "Idempotent-Replayed": "true"})
