"""PostgreSQL was restarted: every pooled connection is dead. In a module of its own, whose teardown renews them all."""

from __future__ import annotations

import time

import psycopg
from django.db import connections

from tests.harness.gateway import RunningGateway

_END_ALL = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
)


def test_a_key_is_found_although_the_database_ended_all_our_connections(
    gateway: RunningGateway, database_url: str
) -> None:
    key = gateway.key()
    with psycopg.connect(database_url, autocommit=True) as other:
        other.execute(_END_ALL)
    connections["default"].close()
    assert gateway.chat(key=key).status_code == 200


def test_a_reload_that_the_database_cuts_short_is_made_up_for(gateway: RunningGateway, database_url: str) -> None:
    from providers.models import Route

    with psycopg.connect(database_url, autocommit=True) as other:
        for number in range(5):
            Route.objects.create(name=f"cut-{number}")  # makes the gateway reload
            connections["default"].close()
            for _ in range(10):
                other.execute(_END_ALL)
                time.sleep(0.01)
    Route.objects.create(name="after-all")
    gateway.refresh()
    assert "after-all" in gateway.app.gateway.snapshot.routing.routes
