"""The harness itself: every worker works on a real, migrated database of its own."""

from __future__ import annotations

import os

import psycopg
import pytest
import redis

from conduit import settings


def test_settings_point_at_the_workers_own_engines(database_url: str, valkey_url: str) -> None:
    assert database_url == settings.DATABASE_URL
    assert valkey_url == settings.VALKEY_URL
    worker = os.environ.get("PYTEST_XDIST_WORKER", "main")
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT current_database()").fetchone() == (f"conduit_{worker}",)
        assert connection.execute("SELECT count(*) > 0 FROM django_migrations").fetchone() == (True,)
    with redis.Redis.from_url(valkey_url) as valkey:
        assert valkey.ping()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("turn", [1, 2])
def test_a_transactional_test_finds_what_the_migrations_made_and_nothing_of_the_one_before(turn: int) -> None:
    from django.contrib.sessions.models import Session
    from django.db import connection
    from django.utils import timezone

    assert Session.objects.count() == 0
    Session.objects.create(session_key=str(turn), session_data="", expire_date=timezone.now())
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM django_migrations")
        assert cursor.fetchone()[0] > 0


def test_a_database_of_its_own_is_migrated_and_separate(own_database: str, database_url: str) -> None:
    assert own_database != database_url
    with psycopg.connect(own_database) as connection:
        assert connection.execute("SELECT count(*) > 0 FROM django_migrations").fetchone() == (True,)
