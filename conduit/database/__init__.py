"""Django's PostgreSQL backend over psycopg's pool, for a database that restarts, fails over or is away for a while."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from psycopg_pool import ConnectionPool


def connect_for_waiters(pool: ConnectionPool[Any]) -> None:
    """When the pool gave up an attempt to connect: it makes the next for a newcomer only, and who waits already would
    wait in vain, though the database came back."""
    if pool.get_stats().get("requests_waiting"):
        pool.check()  # lets the pool grow
