"""What is stored of a secret's text, read so that the time tells nobody whether there is such a row (V5)."""

from __future__ import annotations

from django.db import connection
from django.db.models import Model
from psycopg import sql

NOBODY = bytes(32)  # no HMAC-SHA256 that anybody will ever see
_QUERY = sql.SQL(
    "SELECT coalesce(found.pepper_version, 0), coalesce(found.digest, %s) "
    "FROM (VALUES (1)) AS always LEFT JOIN {} AS found ON found.public_id = %s"
)


def stored_digest(model: type[Model], public_id: str) -> tuple[int, bytes]:
    """(pepper version, digest) of the row with this public id; (0, NOBODY) where there is none. One statement gives one
    row of the same size in both cases: a row more to fetch and to convert takes a time that can be measured."""
    with connection.cursor() as cursor:
        cursor.execute(_QUERY.format(sql.Identifier(model._meta.db_table)), [NOBODY, public_id])
        ((version, digest),) = cursor.fetchall()
    return version, bytes(digest)
