"""Answers of /v1/responses that are kept: continued by any worker, seen by their tenant only, sealed, gone in time."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID, uuid4

import httpx
import openai
import psycopg
import pytest
from django.conf import settings
from django.db.models import F
from django.db.models.functions import Now
from hypothesis import HealthCheck, given
from hypothesis import settings as trials
from hypothesis import strategies as st
from openai.types.responses import Response

from conduit.core.sealing import KeyRingError
from keys.models import Team
from tests.harness import sandbox
from tests.harness.gateway import RunningGateway, serving, wait_for
from tests.harness.speakers import PREFIXES
from tests.sdk.tap import tapped
from usage import stored_responses
from usage.models import StoredResponse
from usage.tasks import drop_old_responses

pytestmark = pytest.mark.usefixtures("module_books")
NO_ONES = "resp_0123456789abcdef0123456789abcdef"
Ask = Callable[..., httpx.Response]


@pytest.fixture(scope="module")
def second(gateway: RunningGateway) -> Iterator[str]:
    """Another worker of the same installation: its memory is its own."""
    from conduit.asgi import Application

    with serving(Application()) as url:
        yield url


@pytest.fixture(scope="module")
def gpt(gateway: RunningGateway) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(api_key=gateway.raw_key, base_url=f"{gateway.url}/v1", max_retries=0, timeout=20) as made:
        yield made


@pytest.fixture(scope="module")
def other(gateway: RunningGateway, second: str) -> Iterator[openai.OpenAI]:
    """The same key at the other worker."""
    with openai.OpenAI(api_key=gateway.raw_key, base_url=f"{second}/v1", max_retries=0, timeout=20) as made:
        yield made


@pytest.fixture(scope="module")
def ask(gateway: RunningGateway) -> Iterator[Ask]:
    """ask(method, path below /v1/responses, key=…, json=…)"""
    with httpx.Client(timeout=20, trust_env=False, verify=False) as client:

        def send(method: str, path: str, *, key: str = gateway.raw_key, **more: Any) -> httpx.Response:
            headers = {"authorization": f"Bearer {key}", **more.pop("headers", {})}
            return client.request(method, f"{gateway.url}/v1/responses{path}", headers=headers, **more)

        yield send


def row(name: str) -> StoredResponse:
    return StoredResponse.objects.get(id=UUID(hex=name.removeprefix("resp_")))


def events_of(answer: httpx.Response) -> list[dict[str, Any]]:
    return [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: ")]


# --- conversations ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wire", list(PREFIXES))
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
def test_a_conversation_goes_on_at_another_worker(
    gpt: openai.OpenAI, other: openai.OpenAI, wire: str, streamed: bool
) -> None:
    model = f"{PREFIXES[wire]}sandbox-echo"

    def say(client: openai.OpenAI, text: str, **more: Any) -> Response:
        if not streamed:
            return client.responses.create(model=model, input=text, **more)
        with client.responses.stream(model=model, input=text, **more) as stream:
            list(stream)
            return stream.get_final_response()

    first = say(gpt, "one two three")
    then = say(other, "four", previous_response_id=first.id)
    last = say(gpt, "five six", previous_response_id=then.id)
    assert [turn.output_text for turn in (first, then, last)] == ["one two three", "four", "five six"]
    assert [turn.previous_response_id for turn in (first, then, last)] == [None, first.id, then.id]
    # 3 for the prompt; each message 4 and its words: 4+3 · then answer 4+3, user 4+1 · then answer 4+1, user 4+2
    assert [turn.usage and turn.usage.input_tokens for turn in (first, then, last)] == [10, 22, 33]
    fetched = other.responses.retrieve(last.id)
    assert (fetched.id, fetched.output_text, fetched.usage) == (last.id, last.output_text, last.usage)
    assert (fetched.status, fetched.model_dump()["store"]) == ("completed", True)


def test_tools_and_thoughts_come_back_with_the_conversation(gpt: openai.OpenAI) -> None:
    tool: Any = {"type": "function", "name": "weather", "parameters": {"type": "object", "properties": {}}}
    called = gpt.responses.create(model="anthropic/sandbox-tools", input="which?", tools=[tool])
    (call,) = [item for item in called.output if item.type == "function_call"]
    result: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "rainy"}
    told = gpt.responses.create(
        model="anthropic/sandbox-tools", input=[result], tools=[tool], previous_response_id=called.id
    )
    assert told.output_text == "rainy"
    thought = gpt.responses.create(model="anthropic/sandbox-think", input="think", reasoning={"effort": "low"})
    assert any(item.type == "reasoning" for item in thought.output)
    again = gpt.responses.create(model="sandbox-think", input="again", previous_response_id=thought.id)
    assert again.output_text == "again"


def test_instructions_are_not_inherited(gpt: openai.OpenAI) -> None:
    first = gpt.responses.create(model="sandbox-echo", input="one", instructions="a b c d e f g h")
    then = gpt.responses.create(model="sandbox-echo", input="two", previous_response_id=first.id)
    assert first.usage is not None
    assert then.usage is not None
    assert (first.usage.input_tokens, then.usage.input_tokens) == (3 + 4 + 8 + 4 + 1, 3 + 5 + 5 + 5)


def test_nothing_is_left_to_the_vendors_memory(gateway: RunningGateway, ask: Ask) -> None:
    from conduit.core.actor import SYSTEM
    from conduit.core.secret import Secret
    from providers.credentials import add_credential
    from providers.models import Provider

    with sandbox.running_sandbox() as spare, tapped("127.0.0.1", int(spare.url.rsplit(":", 1)[1])) as tap:
        vendor = Provider.objects.create(name="vendor", kind="openai", base_url=f"{tap.url}/v1")
        add_credential(vendor, actor=SYSTEM, name="main", fields={"api_key": Secret(sandbox.KEY)}, verify=False)
        gateway.route("vendor/echo", (vendor, "sandbox-echo"))
        first = ask("POST", "", json={"model": "vendor/echo", "input": "one", "store": True}).json()
        tap.sent.clear()
        body = {"model": "vendor/echo", "input": "two", "previous_response_id": first["id"], "reasoning": {}}
        assert ask("POST", "", json=body).status_code == 200
        sent = json.loads(b"".join(tap.sent).split(b"\r\n\r\n", 1)[1])
    assert (sent["store"], sent["include"]) == (False, ["reasoning.encrypted_content"])
    assert not {"previous_response_id", "background"} & sent.keys()
    assert [item["role"] for item in sent["input"]] == ["user", "assistant", "user"]
    assert first["id"].encode() not in b"".join(tap.sent)
    assert not any("id" in item for item in sent["input"])


def test_a_fault_is_told_by_the_clients_own_place(gpt: openai.OpenAI) -> None:
    first = gpt.responses.create(model="sandbox-echo", input="one")
    wrong: Any = [{"role": "user", "content": "two"}, {"role": "nobody", "content": "x"}]
    with pytest.raises(openai.BadRequestError) as refused:
        gpt.responses.create(model="sandbox-echo", input=wrong, previous_response_id=first.id)
    assert refused.value.param == "input[1].role"
    assert refused.value.message.count("input[1].role") == 1


@pytest.mark.parametrize("name", [NO_ONES, "resp_x", "chatcmpl-1", "resp_" + "Z" * 32, "resp_" + "٣" * 32])
def test_what_is_not_there_cannot_be_continued(ask: Ask, name: str) -> None:
    answer = ask("POST", "", json={"model": "sandbox-echo", "input": "x", "previous_response_id": name})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (400, "previous_response_not_found")
    assert error["param"] == "previous_response_id"


def test_a_conversation_with_a_gap_is_not_continued(gpt: openai.OpenAI) -> None:
    first = gpt.responses.create(model="sandbox-echo", input="one")
    then = gpt.responses.create(model="sandbox-echo", input="two", previous_response_id=first.id)
    gpt.responses.delete(first.id)
    assert gpt.responses.retrieve(then.id).output_text == "two"
    with pytest.raises(openai.BadRequestError, match="was deleted"):
        gpt.responses.create(model="sandbox-echo", input="three", previous_response_id=then.id)


def test_one_that_is_not_to_be_kept_is_not(gpt: openai.OpenAI) -> None:
    first = gpt.responses.create(model="sandbox-echo", input="one")
    before = StoredResponse.objects.count()
    loose = gpt.responses.create(model="sandbox-echo", input="two", previous_response_id=first.id, store=False)
    assert (loose.output_text, loose.previous_response_id) == ("two", first.id)
    assert loose.model_dump()["store"] is False
    plain = gpt.responses.create(model="sandbox-echo", input="two", store=False)
    for one in (loose, plain):
        with pytest.raises(openai.NotFoundError):
            gpt.responses.retrieve(one.id)
    assert StoredResponse.objects.count() == before


def test_an_answer_that_was_cut_is_kept_and_one_that_failed_is_not(gpt: openai.OpenAI, ask: Ask) -> None:
    cut = gpt.responses.create(model="sandbox-lorem", input="words: 30", max_output_tokens=16)
    assert cut.status == "incomplete"
    assert gpt.responses.retrieve(cut.id).status == "incomplete"
    before = StoredResponse.objects.count()
    body = {"model": "gemini/sandbox-lorem", "input": "words: 30", "stream": True}
    broken = events_of(ask("POST", "", json=body, headers={"x-sandbox-cut-after-bytes": "900"}))
    assert broken[-1]["type"] == "error"
    assert ask("POST", "", json={**body, "stream": False}, headers={"x-sandbox-status": "500"}).status_code >= 500
    assert StoredResponse.objects.count() == before


def test_a_stream_names_one_response_in_all_its_events(ask: Ask) -> None:
    for wire in PREFIXES.values():
        told = events_of(ask("POST", "", json={"model": f"{wire}sandbox-echo", "input": "a b", "stream": True}))
        carrying = [event["response"] for event in told if "response" in event]
        assert len(carrying) == 3
        assert len({one["id"] for one in carrying}) == 1
        assert {one["store"] for one in carrying} == {True}
        assert told[-1]["type"] == "response.completed"
        assert row(carrying[0]["id"]).state == "completed"
        assert [event["sequence_number"] for event in told] == list(range(len(told)))


def test_an_idempotent_repeat_names_the_same_response(ask: Ask) -> None:
    sent = {"idempotency-key": uuid4().hex}
    body = {"model": "sandbox-echo", "input": "once"}
    first, again = (ask("POST", "", json=body, headers=sent) for _ in range(2))
    assert again.content == first.content
    assert ask("GET", f"/{first.json()['id']}").json() == first.json()


def test_a_dry_run_takes_the_conversation_into_account_and_keeps_nothing(gpt: openai.OpenAI, ask: Ask) -> None:
    first = gpt.responses.create(model="sandbox-echo", input="word " * 300)
    before = StoredResponse.objects.count()
    body = {"model": "sandbox-echo", "input": "x"}
    alone = ask("POST", "", json=body, headers={"x-conduit-dry-run": "1"}).json()
    on = ask("POST", "", json={**body, "previous_response_id": first.id}, headers={"x-conduit-dry-run": "1"}).json()
    assert on["input_tokens_bound"] > alone["input_tokens_bound"]
    assert StoredResponse.objects.count() == before


def test_conversations_of_the_vendors_are_refused(ask: Ask) -> None:
    answer = ask("POST", "", json={"model": "sandbox-echo", "input": "x", "conversation": "conv_1"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "conversation")


# --- what a caller may ask about them --------------------------------------------------------------------------------


def test_input_items_are_paged_both_ways(gpt: openai.OpenAI) -> None:
    said: Any = [{"role": "user", "content": f"line {number}"} for number in range(5)]
    made = gpt.responses.create(model="sandbox-echo", input=said)
    newest = gpt.responses.input_items.list(made.id, limit=2)
    assert [item.content[0].text for item in newest.data] == ["line 4", "line 3"]  # type: ignore[union-attr]
    assert newest.has_next_page()
    every = list(gpt.responses.input_items.list(made.id, limit=2, order="asc"))
    assert [item.content[0].text for item in every] == [f"line {number}" for number in range(5)]  # type: ignore[union-attr]
    assert len({item.id for item in every}) == 5
    text = gpt.responses.create(model="sandbox-echo", input="only text")
    (only,) = gpt.responses.input_items.list(text.id).data
    assert (only.type, only.role, only.content[0].text) == ("message", "user", "only text")  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("query", "param"),
    [("limit=0", "limit"), ("limit=101", "limit"), ("limit=x", "limit"), ("order=up", "order"), ("after=no", "after")],
)
def test_a_wrong_page_is_named(gpt: openai.OpenAI, ask: Ask, query: str, param: str) -> None:
    made = gpt.responses.create(model="sandbox-echo", input="x")
    answer = ask("GET", f"/{made.id}/input_items?{query}")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


def test_a_kept_answer_is_not_told_as_a_stream(gpt: openai.OpenAI, ask: Ask) -> None:
    made = gpt.responses.create(model="sandbox-echo", input="x")
    answer = ask("GET", f"/{made.id}?stream=true")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "stream")


def test_what_is_deleted_is_gone(gpt: openai.OpenAI, ask: Ask) -> None:
    made = gpt.responses.create(model="sandbox-echo", input="x")
    assert ask("DELETE", f"/{made.id}").json() == {"id": made.id, "object": "response", "deleted": True}
    assert [ask(method, f"/{made.id}").status_code for method in ("GET", "DELETE")] == [404, 404]
    assert not StoredResponse.objects.filter(id=UUID(hex=made.id[5:])).exists()


@pytest.mark.usefixtures("minute")
def test_reading_counts_as_a_request_and_costs_nothing(gateway: RunningGateway, ask: Ask) -> None:
    key = gateway.key(rpm=3)
    made = ask("POST", "", key=key, json={"model": "sandbox-echo", "input": "x"})
    codes = [ask("GET", f"/{made.json()['id']}", key=key).status_code for _ in range(3)]
    assert (made.status_code, codes) == (200, [200, 200, 429])
    assert gateway.event(made).cost_nanos > 0


def test_a_key_without_the_endpoint_reads_nothing(gateway: RunningGateway, ask: Ask) -> None:
    team = Team.objects.create(name=f"team-{uuid4().hex[:8]}")
    made = ask("POST", "", key=gateway.key(team=team), json={"model": "sandbox-echo", "input": "x"}).json()
    narrow = gateway.key(team=team, endpoints=["chat"])
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/cancel"), ("GET", "/input_items")):
        answer = ask(method, f"/{made['id']}{path}", key=narrow)
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "endpoint_not_allowed")


def test_another_method_is_refused(ask: Ask) -> None:
    assert [ask(method, f"/{NO_ONES}").status_code for method in ("PUT", "POST", "PATCH")] == [405] * 3
    assert ask("GET", f"/{NO_ONES}/cancel").status_code == 405


# --- tenants ---------------------------------------------------------------------------------------------------------

TENANTS = ("team's key", "team's other key", "other team's key", "key alone", "other key alone")


@pytest.fixture(scope="module")
def tenants(gateway: RunningGateway) -> dict[str, str]:
    one, two = (Team.objects.create(name=f"team-{uuid4().hex[:8]}") for _ in range(2))
    teams = (one, one, two, None, None)
    return {name: gateway.key(team=team) for name, team in zip(TENANTS, teams, strict=True)}


@pytest.fixture(scope="module")
def belongings(tenants: dict[str, str], ask: Ask) -> dict[str, str]:
    """A response of each tenant's key."""
    body = {"model": "sandbox-echo", "input": "mine"}
    return {name: ask("POST", "", key=key, json=body).json()["id"] for name, key in tenants.items()}


def same_tenant(one: str, other: str) -> bool:
    return one == other or {one, other} == set(TENANTS[:2])


@trials(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(TENANTS), st.sampled_from(TENANTS), st.sampled_from(["GET", "items", "cancel", "continue"]))
def test_tenants_never_meet(
    tenants: dict[str, str], belongings: dict[str, str], ask: Ask, caller: str, owner: str, verb: str
) -> None:
    key, theirs = tenants[caller], belongings[owner]

    def told(name: str) -> tuple[int, str]:
        if verb == "continue":
            body = {"model": "sandbox-echo", "input": "and?", "previous_response_id": name, "store": False}
            answer = ask("POST", "", key=key, json=body)
        else:
            method, path = {"GET": ("GET", ""), "items": ("GET", "/input_items"), "cancel": ("POST", "/cancel")}[verb]
            answer = ask(method, f"/{name}{path}", key=key)
        return answer.status_code, answer.text.replace(name, "ID")

    if not same_tenant(caller, owner):
        assert told(theirs) == told(NO_ONES)
        assert told(theirs)[0] == (400 if verb == "continue" else 404)
    else:
        assert told(theirs)[0] == (400 if verb == "cancel" else 200)


def test_a_strangers_deletion_deletes_nothing(tenants: dict[str, str], ask: Ask) -> None:
    made = ask("POST", "", key=tenants["key alone"], json={"model": "sandbox-echo", "input": "mine"}).json()
    for name, key in tenants.items():
        if name != "key alone":
            assert ask("DELETE", f"/{made['id']}", key=key).status_code == 404
    assert ask("GET", f"/{made['id']}", key=tenants["key alone"]).status_code == 200


# --- at rest ---------------------------------------------------------------------------------------------------------


def test_a_dump_has_none_of_the_text(gpt: openai.OpenAI, database_url: str) -> None:
    canary = f"canary{uuid4().hex}"
    made = gpt.responses.create(model="sandbox-echo", input=canary, instructions=f"say {canary}")
    assert canary in made.output_text
    with psycopg.connect(database_url) as connection:
        dumped = connection.execute("SELECT string_agg(r::text, '') FROM usage_storedresponse r").fetchone()
    assert dumped is not None
    assert made.id[5:] in dumped[0].replace("-", "")
    assert canary not in dumped[0]
    assert canary.encode().hex() not in dumped[0]


def test_a_row_that_was_moved_does_not_open(gpt: openai.OpenAI) -> None:
    first, then = (row(gpt.responses.create(model="sandbox-echo", input=text).id) for text in ("one", "two"))
    stranger = uuid4()
    StoredResponse.objects.filter(id=first.id).update(tenant=stranger)
    with pytest.raises(KeyRingError):
        stored_responses.load(stranger, first.id)
    StoredResponse.objects.filter(id=first.id).update(tenant=first.tenant)
    StoredResponse.objects.filter(id=then.id).update(previous=first.id)
    with pytest.raises(KeyRingError):
        stored_responses.chain(then.tenant, then.id)
    StoredResponse.objects.filter(id=then.id).update(previous=None, content=first.content)
    with pytest.raises(KeyRingError):
        stored_responses.load(then.tenant, then.id)
    StoredResponse.objects.filter(id=then.id).delete()


def test_what_was_not_used_for_long_is_dropped_and_what_is_continued_stays(gpt: openai.OpenAI) -> None:
    old = gpt.responses.create(model="sandbox-echo", input="old")
    root = gpt.responses.create(model="sandbox-echo", input="root")
    days = settings.RESPONSES_RETENTION_DAYS
    StoredResponse.objects.update(used_at=Now() - stored_responses.timedelta(days=days, minutes=1))
    leaf = gpt.responses.create(model="sandbox-echo", input="leaf", previous_response_id=root.id)
    drop_old_responses()
    assert {str(one) for one in StoredResponse.objects.all()} == {root.id, leaf.id}
    assert gpt.responses.create(model="sandbox-echo", input="on", previous_response_id=leaf.id).output_text == "on"
    with pytest.raises(openai.NotFoundError):
        gpt.responses.retrieve(old.id)


def test_where_nothing_is_kept_every_answer_says_so(gpt: openai.OpenAI) -> None:
    kept = gpt.responses.create(model="sandbox-echo", input="kept")
    settings.RESPONSES_RETENTION_DAYS = 0
    try:
        before = StoredResponse.objects.count()
        assert gpt.responses.create(model="sandbox-echo", input="x").model_dump()["store"] is False
        assert gpt.responses.create(model="sandbox-echo", input="x", store=True).model_dump()["store"] is False
        assert StoredResponse.objects.count() == before
        with pytest.raises(openai.BadRequestError) as refused:
            gpt.responses.create(model="sandbox-echo", input="x", background=True)
        assert refused.value.param == "background"
        drop_old_responses()
        assert not StoredResponse.objects.exists()
    finally:
        settings.RESPONSES_RETENTION_DAYS = 30
    with pytest.raises(openai.NotFoundError):
        gpt.responses.retrieve(kept.id)


# --- the database away -----------------------------------------------------------------------------------------------


@pytest.fixture
def locked(gpt: openai.OpenAI, database_url: str) -> Iterator[None]:
    """The table hangs: another connection holds it."""
    gpt.responses.create(model="sandbox-echo", input="its key is known from here on")
    with psycopg.connect(database_url) as holder:
        holder.execute("LOCK TABLE usage_storedresponse IN ACCESS EXCLUSIVE MODE")
        yield
        holder.rollback()


def test_an_answer_goes_out_unkept_while_the_database_hangs(gpt: openai.OpenAI, ask: Ask, locked: None) -> None:
    seen: list[Any] = []

    def whole() -> None:
        seen.append(gpt.responses.create(model="sandbox-echo", input="one").model_dump())

    thread = threading.Thread(target=whole)  # both at once: each waits for as long as a look-up may take
    thread.start()
    last = events_of(ask("POST", "", json={"model": "sandbox-echo", "input": "two", "stream": True}))[-1]
    thread.join()
    assert [one["store"] for one in (seen[0], last["response"])] == [False, False]
    assert (last["type"], last["response"]["output"][0]["content"][0]["text"]) == ("response.completed", "two")


def test_what_was_told_to_be_unkept_is_not_kept_later(gpt: openai.OpenAI, database_url: str) -> None:
    with psycopg.connect(database_url) as holder:
        holder.execute("LOCK TABLE usage_storedresponse IN ACCESS EXCLUSIVE MODE")
        made = gpt.responses.create(model="sandbox-echo", input="one")
        holder.rollback()
    assert made.model_dump()["store"] is False
    wait_for(lambda: not _waiting(database_url))
    wait_for(lambda: not StoredResponse.objects.filter(id=UUID(hex=made.id[5:])).exists())


def _waiting(database_url: str) -> bool:
    """In this database: others on the same server wait for locks of their own."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    with psycopg.connect(database_url) as connection:
        found = connection.execute(query).fetchone()
    return bool(found and found[0])


def test_a_conversation_cannot_be_taken_up_while_the_database_hangs(ask: Ask, locked: None) -> None:
    answer = ask("POST", "", json={"model": "sandbox-echo", "input": "x", "previous_response_id": NO_ONES})
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "responses_unavailable")
    assert "retry-after" in answer.headers


def test_state_of_rows_is_counted_by_the_databases_clock(gpt: openai.OpenAI) -> None:
    made = row(gpt.responses.create(model="sandbox-echo", input="x").id)
    assert StoredResponse.objects.filter(id=made.id, used_at=F("created_at")).exists()


def test_a_new_version_of_the_key_opens_what_the_older_one_sealed(gpt: openai.OpenAI) -> None:
    from conduit.core import keks
    from conduit.core.actor import SYSTEM

    made = gpt.responses.create(model="sandbox-echo", input="before")
    version = row(made.id).key_version
    assert keks.rotate_purpose("responses", actor=SYSTEM) == version + 1
    assert gpt.responses.retrieve(made.id).output_text == "before"
    assert gpt.responses.create(model="sandbox-echo", input="on", previous_response_id=made.id).output_text == "on"
