from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client

from conduit.access.actors import actor_of_user
from conduit.access.models import Role, User
from conduit.access.permissions import may, names_only
from conduit.core import wording
from conduit.core.actor import SYSTEM
from keys.issuing import create_key
from keys.models import VirtualKey
from providers.models import CredentialVersion, Provider, Route
from tests.console.conftest import SECRET, World, attempt
from tests.console.pages import Markup, pages
from tests.usage.events import now_us, refused
from usage import ledger
from usage.models import UsageEvent

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>{{ 791900007919|add:1 }}"


@pytest.mark.parametrize("role", Role.values)
def test_a_role_sees_exactly_the_pages_that_its_permissions_allow(
    role: str, world: World, person: Callable[..., User]
) -> None:
    user = person(role)
    client = Client()
    client.force_login(user)
    actor = actor_of_user(user)
    for path, resource, write in pages(world):
        answer = client.get(path)
        allowed = may(actor, resource, write=write) and not (names_only(actor) and path.startswith("/keys/review"))
        assert answer.status_code == (200 if allowed else 403), path
        if not allowed:
            assert "may" in answer.content.decode()
        assert answer["Cache-Control"] == "no-store", path


def test_without_signing_in_every_page_leads_to_the_sign_in(world: World, client: Client) -> None:
    for path, _, _ in pages(world):
        answer = client.get(path)
        assert answer.status_code == 302, path
        assert answer["Location"].startswith("/login?next=/"), path
    live = client.get("/", headers={"HX-Request": "true", "HX-Current-URL": "http://testserver/keys"})
    assert live["HX-Redirect"] == "/login?next=/keys"


def test_navigation_offers_only_pages_that_open(world: World, signed_in: Callable[..., Client]) -> None:
    for role in Role.values:
        client = signed_in(role)
        markup = Markup(client.get("/").content.decode())
        links = {a["href"] for tag, a in markup.tags if tag == "a" and a.get("href", "").startswith("/")}  # type: ignore[union-attr]
        assert links
        for link in links:
            assert client.get(str(link)).status_code == 200, (role, link)


def test_no_page_needs_more_than_the_strict_content_security_policy(world: World, owner: Client) -> None:
    for path, _, _ in pages(world):
        answer = owner.get(path)
        assert Markup(answer.content.decode()).offences() == [], path
        policy = answer["Content-Security-Policy"]
        assert "unsafe" not in policy
        assert "script-src 'self'" in policy


def test_hostile_names_and_messages_are_shown_as_text(world: World, owner: Client) -> None:
    VirtualKey.objects.filter(id=world.alice_key.id).update(name=HOSTILE, owner=HOSTILE, tags=[HOSTILE])
    Provider.objects.filter(id=world.provider.id).update(name=HOSTILE)
    Route.objects.filter(id=world.route.id).update(name=HOSTILE[:200])
    type(world.credential).objects.filter(id=world.credential.id).update(name=HOSTILE, last_error=HOSTILE)
    team = type(world.support).objects.filter(id=world.support.id)
    team.update(name=HOSTILE)
    hostile = {"error_message": HOSTILE, "error_code": HOSTILE[:64], "customer": HOSTILE}
    ids = {"key_id": world.alice_key.id.bytes, "team_id": world.support.id.bytes}
    ledger.apply(
        [
            refused(**ids, **hostile, trace=[{"check": "model", "ok": False, "model": HOSTILE}]),
            attempt(world.alice_key, world.provider, world.credential, model=HOSTILE, route=HOSTILE, **hostile),
            attempt(world.alice_key, world.provider, world.credential, outcome="error", status=502, **hostile),
        ]
    )
    world.events[:] = UsageEvent.objects.order_by("time", "id")
    seen = 0
    for path, _, _ in pages(world):
        page = owner.get(path).content.decode()
        assert Markup(page).offences() == [], path
        assert "791900007920" not in page
        seen += HOSTILE in "".join(Markup(page).text)
    assert seen > 10


def test_no_page_shows_a_secret_or_a_digest(world: World, owner: Client) -> None:
    for path, _, _ in pages(world):
        page = owner.get(path).content.decode()
        assert SECRET not in page, path
        assert SECRET[8:20] not in page, path
        assert world.alice_raw not in page, path
        assert world.alice_raw[17:49] not in page, path


def test_the_overview_sums_exactly_what_the_events_cost(world: World, owner: Client) -> None:
    spent = sum(event.cost_nanos for event in world.events)
    page = owner.get("/?range=month").content.decode()
    assert f"exactly {wording.usd_exact(spent)}" in page
    log = owner.get("/requests?range=24h")
    assert log.context["foot"]["cost"] == spent
    finals = [event for event in world.events if event.final]
    assert log.context["histogram_total"] == len(finals) == len(log.context["rows"])


def test_short_and_long_ranges_count_the_same_requests(world: World, owner: Client) -> None:
    short, long = (owner.get(f"/requests?range={name}").context for name in ("1h", "24h"))
    assert short["histogram_total"] == long["histogram_total"] == 7
    by_text = owner.get("/requests?range=24h&q=sandbox-echo").context
    assert by_text["histogram_total"] == len(by_text["rows"]) == 6


def test_a_narrowed_operator_sees_their_team_and_nothing_of_the_other(
    world: World, signed_in: Callable[..., Client]
) -> None:
    client = signed_in(Role.OPERATOR, world.support)
    listed = client.get("/keys").content.decode()
    assert "support-chat" in listed
    assert "search-answers" not in listed
    assert client.get(f"/keys/{world.bob_key.id}").status_code == 404
    assert client.post(f"/keys/{world.bob_key.id}/disable").status_code == 404
    foreign = next(event for event in world.events if event.team_id == world.search.id)
    assert client.get(f"/requests/{foreign.request_id}").status_code == 404
    own = sum(event.cost_nanos for event in world.events if event.team_id == world.support.id)
    assert client.get("/?range=month").context["month_total"].cost == own
    assert client.get("/providers/new").status_code == 403


def test_a_refused_request_names_the_check_that_stopped_it(world: World, owner: Client) -> None:
    stopped = next(event for event in world.events if event.attempt == 0)
    page = owner.get(f"/requests/{stopped.request_id}")
    assert "Stopped by the budget of key support-chat" in "".join(Markup(page.content.decode()).text)
    results = [check.result for check in page.context["checks"]]
    assert results == ["pass"] * 7 + ["stop", "ahead"], "behind the budget comes the dispatch, which was not reached"


def test_an_absorbed_failure_shows_both_attempts_and_one_row(world: World, owner: Client) -> None:
    second = next(event for event in world.events if event.attempt == 2)
    page = owner.get(f"/requests/{second.request_id}")
    assert [row["event"].attempt for row in page.context["waterfall"]] == [1, 2]
    assert "absorbed 1 failure" in page.content.decode()
    listed = [row for row in owner.get("/requests?range=24h").context["rows"] if row.request_id == second.request_id]
    assert [row.attempts for row in listed] == [2]


@pytest.mark.parametrize(("endpoint", "apart"), [("chat", False), ("responses", True)])
def test_a_request_tells_where_its_content_may_be(endpoint: str, apart: bool, world: World, owner: Client) -> None:
    served = next(event for event in world.events if event.attempt == 1)
    UsageEvent.objects.filter(request_id=served.request_id).update(endpoint=endpoint)
    text = " ".join("".join(Markup(owner.get(f"/requests/{served.request_id}").content.decode()).text).split())
    assert "Content not on record" in text
    assert ("sealed apart unless the request said" in text) is apart


def test_pages_of_the_log_neither_repeat_nor_leave_out_a_request(
    world: World, owner: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger.apply([attempt(world.alice_key, world.provider, world.credential) for _ in range(120)])
    seen: list[Any] = []
    query = "range=24h"
    while query:
        context = owner.get(f"/requests?{query}").context
        seen += [row.event.id for row in context["rows"]]
        query = context["older_query"]
    finals = set(UsageEvent.objects.filter(final=True).values_list("id", flat=True))
    assert len(seen) == len(finals)
    assert set(seen) == finals
    assert owner.get("/requests?range=24h&cursor=nonsense").status_code == 404


def test_the_list_of_keys_pages_by_a_hundred_and_finds_by_the_last_four(world: World, owner: Client) -> None:
    raws = [create_key(actor=SYSTEM, name=f"key-{number}")[1].reveal() for number in range(105)]
    first = owner.get("/keys").context
    second = owner.get(f"/keys?{first['older']}").context
    assert (len(first["rows"]), len(second["rows"])) == (100, 7)
    assert not {row["key"].id for row in first["rows"]} & {row["key"].id for row in second["rows"]}
    found = owner.get("/keys", {"q": raws[3][-4:]}).context["rows"]
    assert "key-3" in [row["key"].name for row in found]


def test_a_request_id_in_the_filter_leads_to_the_request(world: World, owner: Client) -> None:
    wanted = world.events[0].request_id
    assert owner.get("/requests", {"q": f" {wanted} "})["Location"] == f"/requests/{wanted}"


def test_new_requests_are_counted_and_the_list_holds_still(world: World, owner: Client) -> None:
    query = owner.get("/requests?range=24h").context["fresh_query"]
    assert "Nothing new" in owner.get(f"/requests/fresh?{query}").content.decode()
    # One of the world's events ends 0.6 s ahead of the clock: these come after it.
    later = now_us() + 1_000_000
    ledger.apply([attempt(world.alice_key, world.provider, world.credential, time_us=later) for _ in range(3)])
    assert "3 new, show" in owner.get(f"/requests/fresh?{query}").content.decode()


def test_the_palette_finds_a_pasted_key_without_showing_it(world: World, owner: Client) -> None:
    answer = owner.post("/palette", {"q": world.alice_raw}).content.decode()
    assert f"/keys/{world.alice_key.id}" in answer
    assert world.alice_raw not in answer
    assert owner.get("/palette", {"q": world.alice_raw}).status_code == 405
    assert "Create key" in owner.post("/palette", {"q": "create"}).content.decode()
    request_id = world.events[0].request_id
    assert f"/requests/{request_id}" in owner.post("/palette", {"q": request_id}).content.decode()


@pytest.mark.parametrize("path", ["/nothing", "/keys/00000000-0000-0000-0000-000000000000", "/requests/req_unknown1"])
def test_what_is_not_there_is_said_in_a_page(path: str, world: World, owner: Client) -> None:
    answer = owner.get(path)
    assert answer.status_code == 404
    assert "There is no such page" in answer.content.decode()


def test_the_theme_is_written_by_the_server(world: World, owner: Client) -> None:
    owner.cookies["theme"] = "dark"
    assert '<html lang="en" data-bs-theme="dark">' in owner.get("/").content.decode()
    owner.cookies["theme"] = '"><script>'
    assert "data-bs-theme" not in owner.get("/").content.decode()


def test_the_log_finds_requests_by_how_exact_they_are_and_marks_them(world: World, owner: Client) -> None:
    lost = attempt(world.alice_key, world.provider, world.credential, exactness="uncertain", cost_nanos=900_000)
    guessed = attempt(world.alice_key, world.provider, world.credential, exactness="estimated")
    # The first attempt was lost, the second one served: the request's sum is uncertain all the same.
    first = attempt(
        world.bob_key, world.provider, world.credential, final=False, exactness="uncertain", outcome="error", status=502
    )
    second = attempt(
        world.bob_key,
        world.provider,
        world.credential,
        request_id=first.request_id,
        attempt=2,
        time_us=first.time_us + 9,
    )
    ledger.apply([lost, guessed, first, second])
    every = {row.request_id for row in owner.get("/requests").context["rows"]}

    def found(exactness: str, span: str = "1h") -> set[str]:
        context = owner.get(f"/requests?range={span}&exactness={exactness}").context
        assert context["histogram_total"] == len(context["rows"])
        assert {row.exactness for row in context["rows"]} == {exactness}
        return {row.request_id for row in context["rows"]}

    for span in ("1h", "30d"):
        assert found("uncertain", span) == {lost.request_id, first.request_id}
        assert found("estimated", span) == {guessed.request_id}
        assert found("exact", span) == every - {lost.request_id, first.request_id, guessed.request_id}
    assert {row.request_id for row in owner.get("/requests?exactness=nonsense").context["rows"]} == every

    listed = Markup(owner.get("/requests?exactness=uncertain").content.decode())
    assert [text.strip() for text in listed.text].count("uncertain") == 2
    for event, words in ((second, "usage uncertain"), (lost, "usage uncertain"), (guessed, "usage estimated")):
        page = owner.get(f"/requests/{event.request_id}").content.decode()
        assert words in page
    assert "usage uncertain" not in owner.get(f"/requests/{world.events[0].request_id}").content.decode()


def test_lost_answers_wait_on_the_overview_and_lead_to_their_requests(
    world: World, owner: Client, signed_in: Callable[..., Client]
) -> None:
    def waiting(client: Client) -> list[str]:
        return [item["url"] for item in client.get("/").context["attention"] if "uncertain" in item["name"]]

    assert waiting(owner) == []
    ledger.apply([attempt(world.alice_key, world.provider, world.credential, exactness="uncertain")])
    (url,) = waiting(owner)
    assert len(owner.get(url).context["rows"]) == 1
    assert waiting(signed_in(Role.ANALYST, world.search)) == []


def test_a_credential_that_cannot_be_opened_is_marked_red(world: World, owner: Client) -> None:
    CredentialVersion.objects.filter(credential=world.credential).update(kek_id="K9")
    for path in ("/credentials", f"/providers/{world.provider.id}"):
        page = owner.get(path).content.decode()
        assert "st-bad" in page, path
        assert "Unreadable" in page, path
        assert "K9" in page, path
