"""Changing and deleting an existing key from its page."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from conduit.core.actor import SYSTEM
from keys.issuing import create_key, expire_key, revoke_key, update_key
from keys.models import VirtualKey
from tests.console.conftest import World
from tests.console.pages import Markup


def sent(client: Client, key: VirtualKey, **typed: Any) -> dict[str, Any]:
    """What the browser sends of the open form, with `typed` in place of what it showed."""
    answer = client.get(f"/keys/{key.id}/edit")
    assert answer.status_code == 200, answer.content
    assert Markup(answer.content.decode()).offences() == []
    shown = answer.context
    form = {**shown["values"], "route": shown["chosen_routes"], "endpoint": shown["chosen_endpoints"]}
    return {**form, "seen": shown["seen"], **typed}


@pytest.fixture
def key(world: World) -> VirtualKey:
    made, _ = create_key(
        actor=SYSTEM,
        name="acme-app",
        team=world.support,
        owner="alice",
        models=["support-fast", "gpt-*"],
        endpoints=["chat", "responses"],
        rpm=300,
        max_output_tokens=512,
        expires_at="2099-01-31T12:34:56Z",
        ip_allowlist=["10.0.0.0/8"],
        tags=["prod"],
        budgets=[{"limit_usd": "5"}],
        metadata={"cost_centre": "7"},
    )
    return made


def test_a_form_sent_as_it_was_shown_changes_nothing(key: VirtualKey, owner: Client) -> None:
    before = VirtualKey.objects.values().get(id=key.id)
    assert owner.post(f"/keys/{key.id}/edit", sent(owner, key)).status_code == 303
    assert VirtualKey.objects.values().get(id=key.id) == before


def test_limits_addresses_team_and_parent_are_changed_and_taken_away(
    key: VirtualKey, world: World, owner: Client
) -> None:
    typed = {
        "rpm": "", "tpm": "4,000", "ip_allowlist": "", "models": "", "endpoint": ["chat"], "parent": "support-chat",
        "team": str(world.search.id), "tags": "prod, eu", "owner": "", "expires_at": "",
    }  # fmt: skip
    assert owner.post(f"/keys/{key.id}/edit", sent(owner, key, **typed)).status_code == 303
    now = VirtualKey.objects.get(id=key.id)
    assert (now.rpm, now.tpm, now.max_output_tokens, now.expires_at) == (None, 4_000, 512, None)
    assert (now.ip_allowlist, now.allowed_models, now.allowed_endpoints) == ([], ["support-fast"], ["chat"])
    assert (now.parent, now.team, now.owner) == (world.alice_key, world.search, "")
    assert (now.tags, now.metadata) == (["prod", "eu"], {"cost_centre": "7"})
    assert owner.post(f"/keys/{key.id}/edit", sent(owner, key, parent="", kind="service")).status_code == 303
    assert VirtualKey.objects.get(id=key.id).parent is None


@pytest.mark.parametrize(
    ("field", "typed"),
    [("name", ""), ("rpm", "0"), ("ip_allowlist", "10.0.0.0/33"), ("parent", "nothing"), ("team", "none"),
     ("expires_at", "2001-01-01"), ("models", "bad name"), ("user", "alice@example.org")],
)  # fmt: skip
def test_a_wrong_field_is_named_and_nothing_is_saved(field: str, typed: str, key: VirtualKey, owner: Client) -> None:
    before = VirtualKey.objects.values().get(id=key.id)
    answer = owner.post(f"/keys/{key.id}/edit", sent(owner, key, **{"tpm": "7", field: typed}))
    assert (answer.status_code, set(answer.context["errors"])) == (422, {field})
    assert VirtualKey.objects.values().get(id=key.id) == before


def test_what_somebody_else_changed_meanwhile_is_not_overwritten(key: VirtualKey, owner: Client) -> None:
    open_form = sent(owner, key, tpm="7")
    update_key(key, actor=SYSTEM, changes={"rpm": 5})
    assert owner.post(f"/keys/{key.id}/edit", open_form).status_code == 409
    assert VirtualKey.objects.get(id=key.id).rpm == 5


def test_an_end_that_has_passed_may_stay_while_something_else_is_changed(key: VirtualKey, owner: Client) -> None:
    expire_key(key, actor=SYSTEM)
    assert owner.post(f"/keys/{key.id}/edit", sent(owner, key, rpm="7")).status_code == 303
    assert VirtualKey.objects.get(id=key.id).rpm == 7


def test_a_revoked_key_has_no_form_but_can_be_deleted_by_its_typed_name(key: VirtualKey, owner: Client) -> None:
    assert f"/keys/{key.id}/edit" in owner.get(f"/keys/{key.id}").content.decode()
    revoke_key(key, actor=SYSTEM)
    assert owner.get(f"/keys/{key.id}/edit").status_code == 409
    page = owner.get(f"/keys/{key.id}").content.decode()
    assert f"/keys/{key.id}/edit" not in page
    assert f'action="/keys/{key.id}/delete"' in page
    assert owner.post(f"/keys/{key.id}/delete", {"confirm": "acme"}).status_code == 409
    assert VirtualKey.objects.filter(id=key.id).exists()
    assert owner.post(f"/keys/{key.id}/delete", {"confirm": "acme-app"}).status_code == 303
    assert not VirtualKey.objects.filter(id=key.id).exists()


def test_a_key_that_others_stand_below_is_not_deleted(world: World, owner: Client) -> None:
    create_key(actor=SYSTEM, name="child", parent=world.alice_key)
    answer = owner.post(f"/keys/{world.alice_key.id}/delete", {"confirm": "support-chat"})
    assert (answer.status_code, b"child stand" in answer.content) == (409, True)
    assert VirtualKey.objects.filter(id=world.alice_key.id).exists()
