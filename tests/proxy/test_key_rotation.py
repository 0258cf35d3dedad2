"""A key's life as its callers see it: rotation under load, parents, users, and addresses behind a proxy."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from django.db.models import Sum

from conduit.access.models import Role
from conduit.access.tokens import create_token
from conduit.access.users import create_user, update_user
from conduit.core.actor import SYSTEM
from conduit.core.source_address import parse_proxies
from keys.budgets import current
from keys.issuing import disable_key, enable_key, revoke_key, update_key
from keys.models import KeySecret, OwnerKind, VirtualKey
from keys.rotation import finish_rotation, rotate_key
from tests.harness.gateway import RunningGateway, wait_for
from usage.models import UsageEvent

pytestmark = pytest.mark.usefixtures("books")


def row(raw: str) -> VirtualKey:
    return VirtualKey.objects.get(secrets__public_id=raw[7:17])


def settled(key: VirtualKey) -> int:
    (state,) = current(OwnerKind.KEY, key.id)
    return state.settled_nanos


@pytest.fixture(scope="module")
def api(gateway: RunningGateway) -> Iterator[httpx.Client]:
    """The management API of the running gateway, as an owner."""
    _, token = create_token(actor=SYSTEM, name="test", role=Role.OWNER)
    with gateway.client(token.reveal()) as client:
        yield client


def refused_soon(gateway: RunningGateway, raw: str) -> bool:
    """Whether the key is refused within a second, and ten requests' time on a machine that is busy."""
    began = time.monotonic()
    gateway.chat()
    allowed = 1.0 + 10 * (time.monotonic() - began)
    began = time.monotonic()
    wait_for(lambda: gateway.chat(key=raw).status_code == 401, 20)
    return time.monotonic() - began <= allowed


def test_rotation_under_requests_fails_none_and_keeps_id_budget_and_history(gateway: RunningGateway) -> None:
    old = gateway.key(budgets=[{"limit_usd": "1.00"}])
    key, held, ended = row(old), {"raw": old}, threading.Event()
    answers: list[httpx.Response] = []

    def call() -> None:
        while not ended.is_set():
            answers.append(gateway.chat(key=held["raw"]))

    threads = [threading.Thread(target=call) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        wait_for(lambda: len(answers) >= 4)
        _, new = rotate_key(key, actor=SYSTEM, overlap_seconds=3600)
        wait_for(lambda: gateway.chat(key=new.reveal()).status_code == 200)
        answers.append(gateway.chat(key=old))  # the overlap
        held["raw"] = new.reveal()
        update_key(key, actor=SYSTEM, changes={"budgets": [{"limit_usd": "2.00"}], "name": "renamed"})
        reached = len(answers) + 4
        wait_for(lambda: len(answers) >= reached)
    finally:
        ended.set()
        for thread in threads:
            thread.join(20)
    assert {answer.status_code for answer in answers} == {200}
    events = [gateway.event(answer) for answer in answers]
    assert {event.key_id for event in events} == {key.id}
    spent = UsageEvent.objects.filter(key_id=key.id).aggregate(Sum("cost_nanos"))["cost_nanos__sum"]
    assert settled(key) == spent >= sum(event.cost_nanos for event in events) > 0
    finish_rotation(key, actor=SYSTEM)
    assert refused_soon(gateway, old)
    assert gateway.chat(key=held["raw"]).status_code == 200


def test_a_rotation_whose_reply_was_lost_is_repeated_with_the_same_secret(
    gateway: RunningGateway, api: httpx.Client
) -> None:
    old = gateway.key()
    path = f"/api/v1/keys/{row(old).id}/rotate"
    lost = {"Idempotency-Key": "rotation-of-the-month"}
    first, again = (api.post(path, json={}, headers=lost) for _ in range(2))
    assert (first.status_code, again.status_code) == (200, 200)
    assert first.json()["key"] == again.json()["key"]
    assert api.post(path, json={}).status_code == 409
    wait_for(lambda: gateway.chat(key=again.json()["key"]).status_code == 200)
    assert gateway.chat(key=old).status_code == 200
    assert KeySecret.objects.filter(key__secrets__public_id=old[7:17]).count() == 2


def test_the_overlap_ends_by_itself(gateway: RunningGateway) -> None:
    old = gateway.key()
    _, new = rotate_key(row(old), actor=SYSTEM, overlap_seconds=2)
    wait_for(lambda: gateway.chat(key=new.reveal()).status_code == 200)
    wait_for(lambda: gateway.chat(key=old).status_code == 401)
    assert gateway.chat(key=new.reveal()).status_code == 200


def test_who_still_calls_with_the_old_secret_is_told(gateway: RunningGateway, api: httpx.Client) -> None:
    old = gateway.key()
    key = row(old)
    rotate_key(key, actor=SYSTEM)
    gateway.refresh()
    for _ in range(3):
        assert gateway.chat(key=old).status_code == 200
    assert gateway.chat(key=old, model="no-such-model").status_code == 404  # refused, and still somebody's call

    def told() -> Any:
        return api.get(f"/api/v1/keys/{key.id}/versions").json()["data"][1]

    wait_for(lambda: told()["requests_last_hour"] == 4)
    assert [(one["address"], one["requests"]) for one in told()["callers"]] == [("127.0.0.1", 4)]
    key.refresh_from_db()
    assert key.last_used_at is not None


def test_a_child_spends_of_its_parent_s_budget_and_stops_with_it(gateway: RunningGateway) -> None:
    above = gateway.key(budgets=[{"limit_usd": "1.00"}], models=["sandbox-echo"])
    parent = row(above)
    raw = gateway.key(parent=parent, budgets=[{"limit_usd": "5.00"}], models=["sandbox-*"])
    answer = gateway.chat(key=raw)
    assert answer.status_code == 200
    assert gateway.chat(key=raw, model="sandbox-think").status_code == 403
    cost = gateway.event(answer).cost_nanos
    assert cost > 0
    assert (settled(row(raw)), settled(parent)) == (cost, cost)
    with gateway.client(raw) as client:
        shown = client.get("/v1/key").json()["budgets"]
    assert [budget["scope"] for budget in shown] == ["parent", "key"]
    assert "settled_usd" not in shown[0]  # what others spend of it is not the child's to see
    update_key(parent, actor=SYSTEM, changes={"budgets": [{"limit_usd": "0.000001"}]})
    wait_for(lambda: gateway.chat(key=raw).status_code == 429)
    refused = gateway.chat(key=raw)
    assert refused.json()["error"]["code"] == "budget_exceeded"
    update_key(parent, actor=SYSTEM, changes={"budgets": []})
    wait_for(lambda: gateway.chat(key=raw).status_code == 200)
    disable_key(parent, actor=SYSTEM)
    assert refused_soon(gateway, raw)
    enable_key(parent, actor=SYSTEM)
    wait_for(lambda: gateway.chat(key=raw).status_code == 200)
    revoke_key(parent, actor=SYSTEM)
    assert refused_soon(gateway, raw)


def test_a_personal_key_stops_when_its_user_is_deactivated(gateway: RunningGateway) -> None:
    alice, _ = create_user(actor=SYSTEM, email="alice@example.org", role=Role.OPERATOR)
    raw = gateway.key(kind="personal", user=alice)
    assert gateway.chat(key=raw).status_code == 200
    update_user(alice, actor=SYSTEM, active=False)
    assert refused_soon(gateway, raw)


def test_a_forged_address_counts_nothing_unless_a_trusted_proxy_wrote_it(
    gateway: RunningGateway, settings: Any
) -> None:
    raw = gateway.key(ip_allowlist=["192.0.2.0/24", "2001:db8::/32"])

    def status(**headers: str) -> int:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return gateway.chat(key=raw, headers=sent).status_code

    assert status() == 403
    assert status(x_forwarded_for="192.0.2.7") == 403
    assert status(forwarded="for=192.0.2.7") == 403
    settings.TRUSTED_PROXIES = parse_proxies(["127.0.0.1"])
    assert status(x_forwarded_for="192.0.2.7") == 200
    assert status(forwarded='for="[2001:db8::7]:443"') == 200
    assert status(x_forwarded_for="192.0.2.7, 198.51.100.1") == 403  # the client wrote the left one
    assert status(x_forwarded_for="198.51.100.1", forwarded="for=192.0.2.7") == 403
    assert status(x_forwarded_for="192.0.2.7, unknown") == 403
    assert status() == 403  # the proxy's own
