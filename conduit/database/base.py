"""The backend that settings.DATABASES names."""

from __future__ import annotations

from time import monotonic
from typing import Any

import psycopg
from django.db.backends.postgresql import base


class DatabaseWrapper(base.DatabaseWrapper):
    """A connection is looked at when it leaves the pool, and a dead one costs that look only. The pool's own check
    (CONN_HEALTH_CHECKS) pauses 1, 2 and 4 seconds after each dead one: with three of them no question was answered."""

    def get_new_connection(self, conn_params: dict[str, Any]) -> psycopg.Connection[Any]:
        """Raises psycopg.OperationalError (PoolTimeout after the pool's timeout)."""
        began = monotonic()
        while True:
            connection: psycopg.Connection[Any] = super().get_new_connection(conn_params)
            if self.pool is None:  # maintenance, beside the database
                return connection
            try:
                self.pool.check_connection(connection)
            except psycopg.Error:
                self.pool.putconn(connection)  # replaces it
                if monotonic() - began > self.pool.timeout:
                    raise
            else:
                return connection
