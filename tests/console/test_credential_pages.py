"""The list of credentials and the rotation cockpit: what they show, what their forms do, what they refuse."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db.models.functions import Now
from django.test import Client

from conduit.access.models import Role
from conduit.console.context import VERSION
from conduit.core import clock
from conduit.core import live as live_processes
from conduit.core.actor import SYSTEM
from conduit.core.ids import uuid7
from conduit.core.models import AuditEntry, Epoch
from conduit.core.secret import Secret
from providers import rotation as rotations
from providers.credentials import add_credential
from providers.models import Credential, CredentialField, CredentialVersion, Provider, Rotation
from tests.access.clients import client_of
from tests.console.conftest import SECRET, World, attempt
from tests.console.pages import Markup
from tests.harness.sandbox import RunningSandbox, running_sandbox
from usage import ledger

OLD, NEW = "sk-sandbox-canary-old-0123", "sk-sandbox-canary-new-9876"


@pytest.fixture(scope="module")
def upstream() -> Iterator[RunningSandbox]:
    with running_sandbox() as sandbox:
        yield sandbox


@dataclass
class Rig:
    """A sandbox provider's credential with one active version, and the owner's browser."""

    credential: Credential
    client: Client

    @property
    def path(self) -> str:
        return f"/credentials/{self.credential.id}"

    def version(self, number: int) -> CredentialVersion:
        return self.credential.versions.get(number=number)

    def states(self) -> dict[int, str]:
        return dict(self.credential.versions.values_list("number", "state"))

    def rotate(self, **given: str) -> Any:
        form = {"field-api_key": NEW, "how": "canary", "steps": "1, 10", "step_minutes": "10", "overlap_hours": "24"}
        return self.client.post(f"{self.path}/rotate", {**form, "max_error_percent": "0.5", **given})

    def step(self, name: str, **form: str) -> Any:
        return self.client.post(f"{self.path}/step/{name}", form)


@pytest.fixture
def rig(world: World, owner: Client, upstream: RunningSandbox, settings: Any) -> Rig:
    settings.SANDBOX_URL = upstream.url
    provider = Provider.objects.create(name="box", kind="sandbox", options={"dialect": "openai"})
    credential = add_credential(provider, actor=SYSTEM, name="box-main", fields={"api_key": Secret(OLD)}, verify=False)
    return Rig(credential, owner)


def words(answer: Any) -> str:
    """The text of a page with single spaces."""
    return re.sub(r"[\s\u00a0]+", " ", " ".join(Markup(answer.content.decode()).text))


def web_process(**versions: Any) -> None:
    known = Epoch.objects.get(id=1).snapshot
    live_processes.report(uuid7(), kind="web", node="n1", pid=7, snapshot=known, versions=versions)


def said(**given: Any) -> dict[str, Any]:
    return {"open": 0, "last": 0.0, "tripped": 0.0, "why": "", **given}


# --- the list ------------------------------------------------------------------------------------------------------


def test_the_list_shows_each_credential_with_its_figures(world: World, owner: Client) -> None:
    answer = owner.get("/credentials")
    (row,) = answer.context["rows"]
    events = [event for event in world.events if event.credential_id == world.credential.id]
    assert row.recent == len(events)
    assert row.use.cost == sum(event.cost_nanos for event in events) == answer.context["total_cost"]
    assert (row.use.routes, row.use.keys) == (1, 2)
    text = words(answer)
    assert f"{len(events) / 10:.1f}" in text
    assert "1 route, 2 keys" in text
    assert SECRET not in answer.content.decode()


def test_health_says_the_worst_that_is_known(world: World, owner: Client) -> None:
    version = str(world.credential.versions.get().id)
    own = Credential.objects.filter(id=world.credential.id)

    def shown() -> str:
        return str(owner.get("/credentials").context["rows"][0].health.word)

    assert shown() == "Not tested"
    own.update(last_verified_at=Now())
    assert shown() == "Healthy"
    web_process(**{version: said(tripped=time.time() - 5)})
    assert shown() == "Half-open"
    own.update(last_error="HTTP 401 no such key")
    assert shown() == "Failed its test"
    web_process(**{version: said(tripped=time.time() + 60, why="HTTP 401 invalid")})
    assert shown() == "Tripped"
    assert "HTTP 401 invalid" in words(owner.get("/credentials"))
    own.update(expires_at=Now() - timedelta(days=1))
    assert shown() == "Expired"
    CredentialVersion.objects.filter(credential=world.credential).update(kek_id="K9")
    text = words(owner.get("/credentials"))
    assert shown() == "Unreadable"
    assert "K9" in text


def test_credentials_that_are_old_or_end_soon_need_attention(world: World, owner: Client, settings: Any) -> None:
    Credential.objects.filter(id=world.credential.id).update(last_verified_at=Now())
    assert owner.get("/credentials?show=attention").context["rows"] == []
    settings.CREDENTIAL_MAX_AGE_DAYS = 90
    versions = CredentialVersion.objects.filter(credential=world.credential)
    versions.update(activated_at=clock.now() - timedelta(days=91))
    answer = owner.get("/credentials?show=attention")
    assert [row.old for row in answer.context["rows"]] == [True]
    assert "91 days" in words(answer)
    settings.CREDENTIAL_MAX_AGE_DAYS = 0
    assert owner.get("/credentials?show=attention").context["rows"] == []
    Credential.objects.filter(id=world.credential.id).update(expires_at=clock.now() + timedelta(days=6, hours=1))
    answer = owner.get("/credentials?show=attention")
    assert [row.expires_soon for row in answer.context["rows"]] == [True]
    assert "in 6 days" in words(answer)


def test_the_list_is_narrowed_by_text_and_by_state(world: World, owner: Client) -> None:
    for query, number in (("q=OPENAI", 1), ("q=cdef", 1), ("q=nothing", 0), ("show=disabled", 0)):
        assert len(owner.get(f"/credentials?{query}").context["rows"]) == number, query
    Credential.objects.filter(id=world.credential.id).update(enabled=False)
    assert [len(owner.get(f"/credentials?{q}").context["rows"]) for q in ("", "show=disabled")] == [0, 1]


def test_who_is_narrowed_to_a_team_sees_its_own_spend_and_callers_and_changes_nothing(
    world: World, signed_in: Callable[..., Client]
) -> None:
    bob = signed_in(Role.OPERATOR, world.search)
    row = bob.get("/credentials").context["rows"][0]
    own = [event for event in world.events if event.team_id == world.search.id]
    assert row.use.cost == sum(event.cost_nanos for event in own)
    answer = bob.get(f"/credentials/{world.credential.id}")
    assert [one["caller"].key for one in answer.context["who"]["rows"]] == ["search-answers"]
    assert answer.context["may_change"] is False
    for path in ("rotate", "settings", "delete", "revoke/1", "rules"):
        assert bob.get(f"/credentials/{world.credential.id}/{path}").status_code == 403
    for path in ("rotate", "settings", "delete", "revoke/1", "rules", "test", "step/promote"):
        assert bob.post(f"/credentials/{world.credential.id}/{path}").status_code == 403, path


# --- the cockpit ---------------------------------------------------------------------------------------------------


def test_a_rotation_goes_from_canary_to_active_to_finished(rig: Rig) -> None:
    answer = rig.rotate(reason="quarterly", automatic="yes")
    assert (answer.status_code, answer["Location"]) == (303, rig.path)
    assert rig.states() == {1: "active", 2: "verifying"}
    (rotation,) = Rotation.objects.all()
    assert (rotation.steps, rotation.step_seconds, rotation.automatic) == ([1, 10], 600, True)
    assert (rotation.max_error_percent, rotation.overlap_seconds) == (Decimal("0.5"), 86_400)
    page = rig.client.get(rig.path)
    text = words(page)
    assert "Canary 1 %" in text
    assert "quarterly" in text
    assert "Goes to 10 % if errors stay under 0.5 %, else rolls back" in text
    assert "0 of 0 requests failed (0.00 %; at most 0.50 %)" in text
    assert "No, v1 is in force" in text
    assert NEW not in page.content.decode()
    assert OLD not in page.content.decode()
    assert "box-main, v2 canary 1 %" in words(rig.client.get("/credentials"))

    assert rig.step("share", share="50").status_code == 303
    assert rig.version(2).share == 50
    assert "Canary 50 %" in words(rig.client.get(rig.path))
    assert rig.step("hold").status_code == 303
    assert "Stays at 50 % until somebody moves it" in words(rig.client.get(rig.path))
    assert rig.step("follow").status_code == 303
    assert rig.step("promote").status_code == 303
    assert rig.states() == {1: "retiring", 2: "active"}
    text = words(rig.client.get(rig.path))
    assert "Draining" in text
    assert "Retires v1 and destroys its secret in 23 h" in text
    assert rig.step("finish").status_code == 303
    assert rig.states() == {1: "retired", 2: "active"}
    assert not CredentialField.objects.filter(version=rig.version(1)).exists()
    text = words(rig.client.get(rig.path))
    assert "destroyed" in text
    assert "Safe to revoke v1 at" in text
    assert rig.client.get(rig.path).context["light"].colour == "yellow"  # no web process reports in this test


def test_at_once_the_new_secret_is_active_and_the_old_one_kept(rig: Rig) -> None:
    assert rig.rotate(how="at_once", overlap_hours="0.5").status_code == 303
    assert rig.states() == {1: "retiring", 2: "active"}
    assert Rotation.objects.get().overlap_seconds == 1800
    assert rig.step("roll-back").status_code == 303
    assert rig.states() == {1: "active", 2: "revoked"}
    assert "v2 was rolled back" in words(rig.client.get(rig.path))


def test_a_secret_that_the_provider_refuses_changes_nothing_and_is_not_shown(rig: Rig) -> None:
    for headers in ({}, {"HX-Request": "true"}):
        form = {"field-api_key": "wrong-canary-1234567", "how": "canary", "steps": "1", "step_minutes": "1"}
        form |= {"overlap_hours": "1", "max_error_percent": "1", "reason": "leaked"}
        answer = rig.client.post(f"{rig.path}/rotate", form, headers=headers)
        page = answer.content.decode()
        assert answer.status_code == 422
        assert list(answer.context["errors"]) == ["field-api_key"]
        assert "The provider answered: " in page
        assert "wrong-canary" not in page
        assert ("<html" in page) is not bool(headers)
        assert ('value="leaked"' in page) is not bool(headers)
    assert rig.version(1).state == "active"
    assert set(rig.states().values()) == {"active", "revoked"}


@pytest.mark.parametrize(
    ("field", "typed", "place"),
    [
        ("steps", "10, 1", "steps"),
        ("steps", "0", "steps"),
        ("steps", "1; 2", "steps"),
        ("steps", "²", "steps"),
        ("step_minutes", "-1", "step_minutes"),
        ("step_minutes", "1e3", "step_minutes"),
        ("step_minutes", "9" * 12, "step_minutes"),
        ("overlap_hours", "", "overlap_hours"),
        ("overlap_hours", "9999999", "overlap_hours"),
        ("max_error_percent", "101", "max_error_percent"),
        ("max_error_percent", "NaN", "max_error_percent"),
        ("expires_at", "2001-01-01", "expires_at"),
        ("expires_at", "soon", "expires_at"),
        ("reason", "r" * 201, "reason"),
        ("field-api_key", "", "field-api_key"),
        ("field-api_key", "line\nbreak", "field-api_key"),
    ],
)
def test_a_wrong_field_of_a_rotation_is_named_and_nothing_is_sealed(
    field: str, typed: str, place: str, rig: Rig
) -> None:
    answer = rig.rotate(**{field: typed})
    assert (answer.status_code, list(answer.context["errors"])) == (422, [place])
    links = [a["href"] for tag, a in Markup(answer.content.decode()).tags if tag == "a" and a.get("href")]
    assert f"#{place}" in links
    assert f'id="{place}"' in answer.content.decode()
    assert rig.states() == {1: "active"}


def test_a_step_out_of_order_names_the_state(rig: Rig) -> None:
    for step, form in (("promote", {}), ("finish", {}), ("roll-back", {}), ("share", {"share": "10"}), ("hold", {})):
        answer = rig.step(step, **form)
        assert answer.status_code == 409, step
        assert "No rotation of box-main is under way" in words(answer)
    rig.rotate()
    twice = rig.rotate(**{"field-api_key": "sk-sandbox-another-0123"})
    assert twice.status_code == 409
    assert "box-main is in canary: version 2 has 1 %" in words(twice)
    assert rig.client.get(f"{rig.path}/rotate").status_code == 409
    assert rig.step("no-such-step").status_code == 404
    wrong = rig.client.post(f"{rig.path}/step/share", {"share": "101"}, follow=True)
    assert "share: " in words(wrong)
    assert rig.version(2).share == 1


def test_rules_are_changed_during_a_canary_and_the_overlap_while_it_drains(rig: Rig) -> None:
    assert rig.client.get(f"{rig.path}/rules").status_code == 409
    rig.rotate()
    form = {"steps": "5, 20", "step_minutes": "2.5", "max_error_percent": "2", "overlap_hours": "2", "automatic": "yes"}
    assert 'value="1, 10"' in rig.client.get(f"{rig.path}/rules").content.decode()
    assert rig.client.post(f"{rig.path}/rules", form).status_code == 303
    rotation = Rotation.objects.get()
    assert (rotation.steps, rotation.step_seconds, rotation.automatic) == ([5, 20], 150, True)
    assert (rotation.max_error_percent, rotation.overlap_seconds) == (2, 7200)
    answer = rig.client.post(f"{rig.path}/rules", {**form, "steps": "20, 5"})
    assert (answer.status_code, list(answer.context["errors"])) == (422, ["steps"])
    rig.step("promote")
    before = rig.version(1).retire_at
    assert "How long v1 is kept" in words(rig.client.get(f"{rig.path}/rules"))
    assert rig.client.post(f"{rig.path}/rules", {"overlap_hours": "48"}).status_code == 303
    after = rig.version(1).retire_at
    assert before is not None
    assert after is not None
    assert after - before > timedelta(hours=45)


def test_the_emergency_revoke_tells_its_figures_and_wants_the_name(rig: Rig, world: World) -> None:
    rig.rotate()
    ledger.apply([attempt(world.alice_key, rig.credential.provider, rig.credential) for _ in range(3)])
    web_process(**{str(rig.version(1).id): said(open=2, last=time.time())})
    page = rig.client.get(f"{rig.path}/revoke/1")
    text = words(page)
    assert page.context["version"] == VERSION  # the shell's own: no page may hide it
    assert "3 requests in the last 10 minutes" in text
    assert "2 open requests on it are cut" in text
    assert "v2 serves" in text
    assert rig.client.post(f"{rig.path}/revoke/1", {"confirm": "box"}).status_code == 409
    assert rig.states() == {1: "active", 2: "verifying"}
    assert rig.client.post(f"{rig.path}/revoke/1", {"confirm": "box-main"}).status_code == 303
    assert rig.states() == {1: "revoked", 2: "active"}
    assert rig.client.get(f"{rig.path}/revoke/1").status_code == 409
    assert rig.client.get(f"{rig.path}/revoke/9").status_code == 404
    assert "Nothing is left to serve with" in words(rig.client.get(f"{rig.path}/revoke/2"))


def test_figures_light_and_callers_are_those_of_the_events(rig: Rig, world: World) -> None:
    rig.rotate()
    provider = rig.credential.provider
    refusal = {"outcome": "error", "status": 502, "error_code": "upstream_auth_failed", "cost_nanos": 0}
    ledger.apply(
        [
            *(attempt(world.alice_key, provider, rig.credential) for _ in range(3)),
            attempt(world.bob_key, provider, rig.credential, credential_version=2, route="slow"),
            attempt(world.bob_key, provider, rig.credential, credential_version=2, **refusal),
        ]
    )
    web_process(**{str(rig.version(1).id): said(open=4, last=time.time())})
    context = rig.client.get(rig.path).context
    late = context["late"]
    rows = {row["version"].number: row for row in late["rows"]}
    assert {number: row["figures"].requests for number, row in rows.items()} == {1: 3, 2: 2}
    assert (rows[2]["figures"].auth_failures, rows[1]["open"], late["open"]) == (1, 4, 4)
    assert (late["requests"], late["auth_failures"], late["cost"]) == (5, 1, 4 * 135_000)
    assert context["month_cost"] == late["cost"]
    who = context["who"]
    assert who["totals"] == [3, 2]
    assert sum(row["caller"].total for row in who["rows"]) == who["all"] == 5
    assert context["light"].colour == "red"
    chart = context["chart"]
    assert [series.total for series in chart.series] == ["3", "2"]
    assert chart.total == "5"


def test_the_live_part_renews_figures_and_asks_for_the_whole_page_when_the_buttons_change(rig: Rig) -> None:
    page = rig.client.get(rig.path)
    polls = [a for tag, a in Markup(page.content.decode()).tags if a.get("hx-select-oob")]
    (poll,) = polls
    live = rig.client.get(str(poll["hx-get"]), headers={"HX-Request": "true"})
    assert "HX-Refresh" not in live
    found = {a.get("id") for _, a in Markup(live.content.decode()).tags}
    assert {part.removeprefix("#") for part in str(poll["hx-select-oob"]).split(",")} <= found
    rig.rotate()
    later = rig.client.get(str(poll["hx-get"]), headers={"HX-Request": "true"})
    assert (later["HX-Refresh"], later.content) == ("true", b"")


def test_settings_are_saved_or_named_and_the_end_stays_exact(rig: Rig) -> None:
    ends = clock.now() + timedelta(days=40)
    Credential.objects.filter(id=rig.credential.id).update(expires_at=ends)
    path = f"{rig.path}/settings"
    form = {"name": "box-eu", "weight": "30", "account": "eu", "expires_at": f"{ends:%Y-%m-%d}", "rpm": "1,000"}
    assert rig.client.post(path, form).status_code == 303
    saved = Credential.objects.get(id=rig.credential.id)
    assert (saved.name, saved.weight, saved.account, saved.rpm, saved.enabled) == ("box-eu", 30, "eu", 1000, False)
    assert saved.expires_at == ends
    assert rig.client.post(path, {**form, "expires_at": "", "enabled": "yes"}).status_code == 303
    saved.refresh_from_db()
    assert (saved.expires_at, saved.enabled) == (None, True)
    for wrong, place in (
        ({"name": ""}, "name"),
        ({"weight": "²"}, "weight"),
        ({"weight": "-1"}, "weight"),
        ({"rpm": "0"}, "rpm"),
        ({"tpm": "many"}, "tpm"),
        ({"expires_at": "soon"}, "expires_at"),
    ):
        answer = rig.client.post(path, {**form, **wrong})
        assert (answer.status_code, list(answer.context["errors"])) == (422, [place]), wrong
    saved.refresh_from_db()
    assert saved.rpm == 1000


def test_a_test_of_the_credential_says_what_the_provider_said(rig: Rig) -> None:
    assert "accepted in" in words(rig.client.post(f"{rig.path}/test", follow=True))
    CredentialVersion.objects.filter(credential=rig.credential).update(kek_id="K9")
    answer = rig.client.post(f"{rig.path}/test", follow=True)
    assert "cannot be opened" in words(answer)
    assert 'class="notice n-bad' in answer.content.decode()


def test_deleting_wants_the_name_and_a_provider_that_can_still_serve(rig: Rig, world: World) -> None:
    assert "It is the last one that serves support-fast" in words(
        rig.client.get(f"/credentials/{world.credential.id}/delete")
    )
    last = rig.client.post(f"/credentials/{world.credential.id}/delete", {"confirm": "main"})
    assert last.status_code == 409
    assert rig.client.post(f"{rig.path}/delete", {"confirm": "box"}).status_code == 409
    assert rig.client.post(f"{rig.path}/delete", {"confirm": "box-main"}).status_code == 303
    assert set(Credential.objects.values_list("name", flat=True)) == {"main"}


def test_every_act_of_the_cockpit_is_in_the_audit_log_without_secrets(rig: Rig) -> None:
    rig.rotate(reason="quarterly")
    rig.step("share", share="10")
    rig.step("promote")
    rig.step("finish")
    entries = AuditEntry.objects.filter(object_id=str(rig.credential.id)).exclude(actor_kind="system")
    actions = list(entries.order_by("id").values_list("action", flat=True))
    assert actions[0] == "credential.rotate"
    assert {"credential.promote", "credential.retire"} <= set(actions)
    for entry in entries:
        assert entry.actor_kind == "user"
        assert "sk-sandbox" not in f"{entry.before} {entry.after}"


def test_a_rollback_by_the_data_plane_tells_why(rig: Rig) -> None:
    rig.rotate()
    assert rotations.roll_back_failed(rig.credential.id, 2, "HTTP 401 the key was refused")
    text = words(rig.client.get(rig.path))
    assert "v2 was rolled back" in text
    assert "HTTP 401 the key was refused" in text
    assert "v1 serves" in text


def test_the_same_by_curl_is_what_the_api_takes(rig: Rig) -> None:
    """The body of the call on the page, with the secret that the shell would put in."""
    curl = next(
        tab["text"] for tab in rig.client.get(f"{rig.path}/rotate").context["same_as"] if tab["title"] == "curl"
    )
    body = curl.rpartition("-d '")[2].removesuffix("'").replace("'\"$NEW_SECRET\"'", NEW)
    address = re.findall(r"http://\S+?(/api/v1/\S+)", curl)[0]
    answer = client_of(Role.OWNER).client.post(
        address, body, content_type="application/json", headers={"Authorization": f"Bearer {client_of(Role.OWNER).raw}"}
    )
    assert answer.status_code in (200, 201), answer.content
    assert (answer.json()["state"], answer.json()["automatic"]) == ("canary", True)
    curl = rig.client.get(rig.path).context["same_as"][0]["text"]
    assert re.findall(r"/api/v1/credentials/\S+", curl)[0].endswith("/promote")
