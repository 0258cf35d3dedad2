"""What must hold when several processes do the same thing at the same moment."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import connections

from conduit.access.models import Role
from conduit.core.actor import SYSTEM
from conduit.core.errors import Conflict
from keys import teams
from keys.models import Team, VirtualKey
from tests.access.clients import ApiClient, client_of


def at_once(count: int, act: Callable[[int], Any]) -> list[Any]:
    def closing(number: int) -> Any:
        try:
            return act(number)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(closing, range(count)))


@pytest.mark.django_db(transaction=True)
def test_one_idempotency_key_sent_many_times_at_once_makes_one_key() -> None:
    raw = client_of(Role.OWNER).raw

    def post(_: int) -> Any:
        return ApiClient(raw).post("/keys", {"name": "billing"}, Idempotency_Key="same")

    answers = at_once(6, post)
    assert {answer.status_code for answer in answers} <= {201, 409}
    shown = {answer.json()["key"] for answer in answers if answer.status_code == 201}
    assert len(shown) == 1
    assert VirtualKey.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_two_moves_at_once_never_close_a_circle() -> None:
    left = teams.create_team(actor=SYSTEM, name="left")
    right = teams.create_team(actor=SYSTEM, name="right")

    def move(number: int) -> str:
        team, above = (left, right) if number % 2 else (right, left)
        try:
            teams.update_team(team, actor=SYSTEM, changes={"parent": above})
        except Conflict:
            return "refused"
        return "moved"

    assert sorted(at_once(2, move)) == ["moved", "refused"]
    assert Team.objects.filter(parent=None).count() == 1
