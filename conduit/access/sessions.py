"""Console sessions in the database, under a digest of the cookie: who reads the table, a dump or the write-ahead log
cannot continue anybody's session with it.

The cookie has 165 random bits, so a plain digest suffices: there is nothing to guess and no salt to want. 160 bits of
it fill Django's column of 40 characters.
"""

from __future__ import annotations

import hashlib
from typing import Any

from asgiref.sync import sync_to_async
from django.contrib.sessions.backends import db
from django.contrib.sessions.base_session import AbstractBaseSession
from django.contrib.sessions.models import Session
from django.db.models import QuerySet

from conduit.core.clock import now


def stored(session_key: str | None) -> str:
    """What the table holds for this cookie."""
    return hashlib.blake2b((session_key or "").encode(), digest_size=20, person=b"conduit-session").hexdigest()


def _row(session_key: str | None) -> QuerySet[Session]:
    return Session.objects.filter(session_key=stored(session_key))


class SessionStore(db.SessionStore):
    """Django's store but for the name of the row. The asynchronous half goes the synchronous way."""

    def _get_session_from_db(self) -> Session | None:
        found = _row(self.session_key).filter(expire_date__gt=now()).first()
        if found is None:
            self._session_key = None
        return found

    def exists(self, session_key: str) -> bool:
        return _row(session_key).exists()

    def create_model_instance(self, data: dict[str, Any]) -> AbstractBaseSession:
        made = super().create_model_instance(data)
        made.session_key = stored(made.session_key)
        return made

    def delete(self, session_key: str | None = None) -> None:
        if session_key is None:
            session_key = self.session_key
        if session_key is not None:
            _row(session_key).delete()

    async def _aget_session_from_db(self) -> Session | None:
        return await sync_to_async(self._get_session_from_db)()

    async def aexists(self, session_key: str) -> bool:
        return await sync_to_async(self.exists)(session_key)

    async def acreate_model_instance(self, data: dict[str, Any]) -> AbstractBaseSession:
        return await sync_to_async(self.create_model_instance)(data)

    async def adelete(self, session_key: str | None = None) -> None:
        await sync_to_async(self.delete)(session_key)
