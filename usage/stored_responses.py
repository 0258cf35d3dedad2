"""Answers of `/v1/responses` that are kept for their tenant: to be fetched, continued, deleted, or made meanwhile.

    keep, begin      a row, with the answer or before there is one
    start, finish    an answer that is made in the background, by its worker
    load, chain      one of them, and the conversation that led to it
    cancel, remove   what a caller may do to one
    cancelled        asked by a worker about those it is making
    drop_old         retention

Every function takes the tenant, and nothing of another tenant is ever found: it is as if it were not there. The
content is sealed with the tenant, the id and the predecessor as associated data, so that a row that was moved to
another tenant, renamed or linked elsewhere does not open.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta
from uuid import UUID

import msgspec
from django.db import connection, transaction
from django.db.models.functions import Now

from conduit.core import keyring, live
from conduit.core.models import LiveProcess
from usage.models import StoredResponse

PURPOSE = "responses"
RUNNING = ("queued", "in_progress")
MOST_TURNS = 1_000  # of one conversation
_BATCH = 1_000

_CHAIN = """
WITH RECURSIVE chain AS (
  SELECT id, previous, state, content, key_version, 1 AS turn FROM usage_storedresponse
  WHERE id = %(id)s AND tenant = %(tenant)s
  UNION ALL
  SELECT earlier.id, earlier.previous, earlier.state, earlier.content, earlier.key_version, chain.turn + 1
  FROM usage_storedresponse AS earlier JOIN chain ON earlier.id = chain.previous
  WHERE earlier.tenant = %(tenant)s AND chain.turn < %(most)s
)
SELECT id, previous, state, content, key_version FROM chain ORDER BY turn DESC
"""


class Content(msgspec.Struct, frozen=True):
    """Two JSON texts: the request's own input items as an array, and the answer as an object."""

    input: bytes
    response: bytes


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """One stored response. `state` is `failed` for one whose worker is gone."""

    id: UUID
    previous: UUID | None
    state: str
    content: Content
    background: bool = False


class NotKept(Exception):
    """There is no such response for this tenant. `reason` in words for its caller."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def keep(tenant: UUID, turn: Turn, earlier: Collection[UUID] = ()) -> None:
    """A finished answer. `earlier` are the responses it continues: they are kept as long as this one."""
    with transaction.atomic():
        StoredResponse.objects.bulk_create([_row(tenant, turn)])
        if earlier:
            StoredResponse.objects.filter(tenant=tenant, id__in=earlier).update(used_at=Now())


def begin(tenant: UUID, turn: Turn, worker: UUID, earlier: Collection[UUID] = ()) -> None:
    """An answer that `worker` is going to make."""
    with transaction.atomic():
        StoredResponse.objects.bulk_create([_row(tenant, turn, worker)])
        if earlier:
            StoredResponse.objects.filter(tenant=tenant, id__in=earlier).update(used_at=Now())


def start(tenant: UUID, response: UUID) -> bool:
    """Its worker is at it now. False: it was cancelled or deleted meanwhile."""
    waiting = StoredResponse.objects.filter(tenant=tenant, id=response, state="queued")
    return bool(waiting.update(state="in_progress"))


def finish(tenant: UUID, turn: Turn) -> bool:
    """How it ended. False: it was cancelled or deleted meanwhile, and stays so."""
    version, content = _sealed(tenant, turn)
    running = StoredResponse.objects.filter(tenant=tenant, id=turn.id, state__in=RUNNING)
    return bool(running.update(state=turn.state, content=content, key_version=version))


def load(tenant: UUID, response: UUID) -> Turn:
    """Raises NotKept."""
    row = StoredResponse.objects.filter(tenant=tenant, id=response).first()
    if row is None:
        raise NotKept("not found")
    state = "failed" if row.state in RUNNING and not _made(row) else row.state
    content = _opened(tenant, row.id, row.previous, bytes(row.content), row.key_version)
    return Turn(id=row.id, previous=row.previous, state=state, content=content, background=row.worker is not None)


def chain(tenant: UUID, response: UUID) -> list[Turn]:
    """The conversation up to this response, oldest first. Raises NotKept where any of it is missing or unfinished."""
    with connection.cursor() as cursor:
        cursor.execute(_CHAIN, {"id": response, "tenant": tenant, "most": MOST_TURNS + 1})
        rows = cursor.fetchall()
    if not rows:
        raise NotKept("not found")
    if len(rows) > MOST_TURNS:
        raise NotKept(f"its conversation has more than {MOST_TURNS} turns")
    if rows[0][1] is not None:
        raise NotKept("an earlier response of its conversation was deleted")
    state = rows[-1][2]
    if state in RUNNING:
        state = load(tenant, response).state
    if state not in ("completed", "incomplete"):
        raise NotKept(f"it is {state}, so there is nothing to continue")
    return [
        Turn(id=id_, previous=previous, state=state, content=_opened(tenant, id_, previous, bytes(content), version))
        for id_, previous, state, content, version in rows
    ]


def cancel(tenant: UUID, response: UUID) -> Turn:
    """It as it is now: cancelled, unless it had ended. Raises NotKept."""
    rows = StoredResponse.objects.filter(tenant=tenant, id=response)
    rows.filter(state__in=RUNNING).update(state="cancelled")
    return load(tenant, response)


def remove(tenant: UUID, response: UUID) -> None:
    """Raises NotKept. One that is being made is given up by its worker."""
    if not StoredResponse.objects.filter(tenant=tenant, id=response).delete()[0]:
        raise NotKept("not found")


def cancelled(responses: Collection[UUID]) -> set[UUID]:
    """Those of them that nobody waits for any more."""
    wanted = StoredResponse.objects.filter(id__in=responses, state__in=RUNNING)
    return set(responses) - set(wanted.values_list("id", flat=True))


def drop_old(days: int) -> int:
    """Deletes what was neither made nor continued within so many days; how many. 0 days: all that have ended."""
    dropped = 0
    while True:
        old = StoredResponse.objects.filter(used_at__lte=Now() - timedelta(days=days))
        if not days:
            old = old.exclude(state__in=RUNNING)
        some = list(old.values_list("id", flat=True)[:_BATCH])
        if not some:
            return dropped
        dropped += StoredResponse.objects.filter(id__in=some).delete()[0]


def _row(tenant: UUID, turn: Turn, worker: UUID | None = None) -> StoredResponse:
    version, content = _sealed(tenant, turn)
    return StoredResponse(
        id=turn.id,
        tenant=tenant,
        previous=turn.previous,
        state=turn.state,
        worker=worker,
        content=content,
        key_version=version,
        created_at=Now(),
        used_at=Now(),
    )


def _made(row: StoredResponse) -> bool:
    """Whether its worker lives. One that began a moment ago may not have reported yet."""
    silent = timedelta(seconds=live.SILENT_SECONDS)
    if StoredResponse.objects.filter(id=row.id, created_at__gt=Now() - silent).exists():
        return True
    return row.worker is not None and LiveProcess.objects.filter(id=row.worker, seen_at__gt=Now() - silent).exists()


def _context(tenant: UUID, response: UUID, previous: UUID | None) -> bytes:
    return keyring.context("stored response", tenant.bytes, response.bytes, previous.bytes if previous else b"")


def _sealed(tenant: UUID, turn: Turn) -> tuple[int, bytes]:
    version, secret = keyring.purpose_key(PURPOSE)
    plain = msgspec.msgpack.encode(turn.content)
    return version, keyring.seal(secret, plain, _context(tenant, turn.id, turn.previous))


def _opened(tenant: UUID, response: UUID, previous: UUID | None, sealed: bytes, version: int) -> Content:
    """Raises KeyRingError."""
    _, secret = keyring.purpose_key(PURPOSE, version)
    plain = keyring.open_sealed(secret, sealed, _context(tenant, response, previous))
    return msgspec.msgpack.decode(plain, type=Content)
