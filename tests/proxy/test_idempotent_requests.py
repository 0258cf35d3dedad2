"""`idempotency-key` on a request (B18): one upstream call, one bill, the same bytes again; never another tenant's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import httpx
import psycopg
import pytest
from django.db.models import F

from conduit.core import clock
from conduit.core.models import IdempotentCall
from keys.models import KeySecret
from tests.harness.gateway import RunningGateway, serving, wait_for
from tests.harness.invoice import read_lines
from tests.harness.speakers import Speaker, client
from usage.models import UsageEvent
from usage.tasks import drop_old_replies

pytestmark = pytest.mark.usefixtures("books")
SLOW = {"x-sandbox-delay-ms": "1500"}


@pytest.fixture
def key(gateway: RunningGateway) -> str:
    return gateway.key()


@pytest.fixture(scope="module")
def second(gateway: RunningGateway) -> Iterator[str]:
    """Another worker of the same installation: its memory is its own."""
    from conduit.asgi import Application

    with serving(Application()) as url:
        yield url


def named(text: str | None = None, **more: str) -> dict[str, str]:
    return {"idempotency-key": text or uuid4().hex, **{name.replace("_", "-"): value for name, value in more.items()}}


def billed(gateway: RunningGateway, key: str) -> int:
    """Attempts of this key in the ledger: what the provider was asked for it."""
    gateway.ship()
    owner = KeySecret.objects.get(public_id=key.removeprefix("cdt_vk_")[:10]).key_id
    return UsageEvent.objects.filter(key_id=owner, attempt__gt=0).count()


def replayed(answer: httpx.Response) -> bool:
    return answer.headers.get("x-conduit-idempotent-replay") == "true"


def under_way() -> bool:
    return IdempotentCall.objects.filter(status=None).exists()


def test_a_repeat_gets_the_same_bytes_and_is_not_billed(gateway: RunningGateway, key: str, speaker: Speaker) -> None:
    sent = named()
    invoiced = len(read_lines(gateway.sandbox.invoice))
    first = speaker.ask(gateway.url, key, headers=sent)
    wait_for(lambda: len(read_lines(gateway.sandbox.invoice)) > invoiced)
    invoiced = len(read_lines(gateway.sandbox.invoice))
    again = speaker.ask(gateway.url, key, headers=sent)
    assert (first.status_code, again.status_code) == (200, 200)
    assert (replayed(first), replayed(again)) == (False, True)
    assert again.content == first.content
    for name in ("content-type", "x-conduit-cost-usd", "x-conduit-model"):
        assert again.headers[name] == first.headers[name]
    assert again.headers["x-conduit-original-request-id"] == first.headers["x-request-id"]
    assert again.headers["x-request-id"] != first.headers["x-request-id"]
    assert billed(gateway, key) == 1
    assert len(read_lines(gateway.sandbox.invoice)) == invoiced


def test_a_stream_is_replayed_as_the_same_bytes(gateway: RunningGateway, key: str, speaker: Speaker) -> None:
    sent = named()
    first, seen = speaker.stream(gateway.url, key, headers=sent)
    again, same = speaker.stream(gateway.url, key, headers=sent)
    assert (seen.text, seen.ended, same.ended) == ("hello big world", True, True)
    assert again.content == first.content
    assert again.headers["content-type"] == first.headers["content-type"]
    assert (replayed(first), replayed(again)) == (False, True)
    assert billed(gateway, key) == 1


def test_twenty_at_once_make_one_request(gateway: RunningGateway, key: str, second: str, speaker: Speaker) -> None:
    sent = named(x_sandbox_delay_ms="500")
    with ThreadPoolExecutor(20) as threads:
        places = [gateway.url, second] * 10
        answers = list(threads.map(lambda url: speaker.ask(url, key, headers=sent), places))
    assert [answer.status_code for answer in answers] == [200] * 20
    assert sum(replayed(answer) for answer in answers) == 19
    assert len({answer.content for answer in answers}) == 1
    wait_for(lambda: billed(gateway, key) == 1)


def test_another_request_under_the_same_key_is_refused(gateway: RunningGateway, key: str, speaker: Speaker) -> None:
    sent = named()
    assert speaker.ask(gateway.url, key, headers=sent).status_code == 200
    other = speaker.ask(gateway.url, key, "something else", headers=sent)
    told = speaker.told(other.json())
    assert (other.status_code, told.word) == (422, speaker.word(422))
    if speaker.name == "openai":
        assert (told.code, told.param) == ("idempotency_key_reused", "idempotency-key")
    assert speaker.stream(gateway.url, key, headers=sent)[0].status_code == 422
    assert billed(gateway, key) == 1


def test_another_virtual_key_never_sees_the_answer(gateway: RunningGateway, key: str) -> None:
    sent, stranger = named(), gateway.key()
    first = gateway.chat("hello", key=key, headers=sent)
    theirs = gateway.chat("something else", key=stranger, headers=sent)
    assert (first.status_code, theirs.status_code) == (200, 200)
    assert not replayed(theirs)
    assert (billed(gateway, key), billed(gateway, stranger)) == (1, 1)


def test_neither_the_keys_text_nor_the_answer_is_stored_in_the_clear(
    gateway: RunningGateway, key: str, database_url: str
) -> None:
    text = f"order-{uuid4().hex}"
    assert gateway.chat("canaryword", key=key, headers=named(text)).status_code == 200
    with psycopg.connect(database_url) as connection:
        rows = connection.execute("SELECT scope, request, reply FROM core_idempotentcall").fetchall()
    stored = b"".join(bytes(part) for row in rows for part in row if part)
    assert rows
    assert text.encode() not in stored
    assert b"canaryword" not in stored


@pytest.mark.parametrize(
    "faults", [{"x-sandbox-status": "500"}, {"x-sandbox-status": "429"}, {"x-sandbox-status": "400"}]
)
def test_a_failed_answer_frees_the_key(gateway: RunningGateway, key: str, faults: dict[str, str]) -> None:
    sent = named()
    assert gateway.chat(key=key, headers={**sent, **faults}).status_code >= 400
    after = gateway.chat(key=key, headers=sent)
    assert (after.status_code, replayed(after)) == (200, False)
    assert replayed(gateway.chat(key=key, headers=sent))


def test_a_broken_stream_frees_the_key_and_the_repeat_is_billed_as_its_own(
    gateway: RunningGateway, key: str, speaker: Speaker
) -> None:
    sent = named()
    text = "one two three four five six seven eight"
    _, broken = speaker.stream(gateway.url, key, text, headers={**sent, "x-sandbox-error-200": "1"})
    assert not broken.ended
    again, whole = speaker.stream(gateway.url, key, text, headers=sent)
    assert (whole.text, whole.ended, replayed(again)) == (text, True, False)
    wait_for(lambda: billed(gateway, key) >= 2)


def test_a_client_that_leaves_frees_the_key(gateway: RunningGateway, key: str) -> None:
    sent = named()
    body = {"model": "sandbox-echo", "messages": [{"role": "user", "content": "hello"}]}
    with pytest.raises(httpx.ReadTimeout), gateway.client(key) as leaving:
        leaving.post("/v1/chat/completions", json=body, headers={**sent, **SLOW}, timeout=0.4)
    wait_for(lambda: not under_way())
    assert not replayed(gateway.chat(key=key, headers=sent))


def start_slowly(threads: ThreadPoolExecutor, gateway: RunningGateway, key: str, sent: Any) -> Future[httpx.Response]:
    first = threads.submit(gateway.chat, key=key, headers={**sent, **SLOW})
    wait_for(under_way)
    return first


def test_whoever_will_not_wait_longer_is_told_when_to_come_back(
    gateway: RunningGateway, key: str, second: str, speaker: Speaker
) -> None:
    sent = named()
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(speaker.ask, gateway.url, key, headers={**sent, **SLOW})
        wait_for(under_way)
        for url in (gateway.url, second):
            early = speaker.ask(url, key, headers={**sent, "x-conduit-timeout": "0.1"})
            assert (early.status_code, int(early.headers["retry-after"]) >= 1) == (409, True)
            if speaker.name == "openai":
                assert early.json()["error"]["code"] == "idempotency_in_flight"
        assert first.result().status_code == 200
    assert replayed(speaker.ask(second, key, headers=sent))
    assert billed(gateway, key) == 1


def test_the_record_of_a_dead_worker_is_taken_over_and_its_late_answer_ignored(
    gateway: RunningGateway, key: str, second: str
) -> None:
    sent = named()
    with ThreadPoolExecutor(1) as threads:
        first = start_slowly(threads, gateway, key, sent)
        IdempotentCall.objects.filter(status=None).update(alive_until=clock.now())  # as when nobody renews it
        taken = client().post(
            f"{second}/v1/chat/completions",
            json={"model": "sandbox-echo", "messages": [{"role": "user", "content": "hello"}]},
            headers={**sent, "authorization": f"Bearer {key}"},
        )
        assert (taken.status_code, replayed(taken)) == (200, False)
        late = first.result()
    again = gateway.chat(key=key, headers=sent)
    assert replayed(again)
    assert again.headers["x-conduit-original-request-id"] == taken.headers["x-request-id"]
    assert late.headers["x-request-id"] != taken.headers["x-request-id"]


def test_a_running_request_keeps_its_record_alive(gateway: RunningGateway, key: str) -> None:
    """The renewal itself: what a worker does every fifteen seconds."""
    from conduit.proxy import idempotency

    sent = named()
    with ThreadPoolExecutor(1) as threads:
        first = start_slowly(threads, gateway, key, sent)
        (row,) = IdempotentCall.objects.filter(status=None)
        IdempotentCall.objects.filter(run=row.run).update(alive_until=clock.now())
        wait_for(lambda: gateway.app.gateway.idempotent._claims == {row.run})  # its row is there a moment sooner
        idempotency._renewed([row.run])
        row.refresh_from_db()
        assert row.alive_until > clock.now()
        assert first.result().status_code == 200
    wait_for(lambda: not gateway.app.gateway.idempotent._claims)


def test_an_answer_holds_for_a_day(gateway: RunningGateway, key: str) -> None:
    from conduit.core.idempotency import KEPT

    sent = named()
    assert gateway.chat(key=key, headers=sent).status_code == 200
    IdempotentCall.objects.update(created_at=F("created_at") - KEPT)
    assert not replayed(gateway.chat(key=key, headers=sent))
    IdempotentCall.objects.update(created_at=F("created_at") - KEPT)
    drop_old_replies()
    assert not IdempotentCall.objects.exists()


@pytest.mark.parametrize("text", ["", "x" * 256, "with\ttab"])
def test_a_malformed_key_is_refused_by_name(gateway: RunningGateway, key: str, text: str) -> None:
    refused = gateway.chat(key=key, headers={"idempotency-key": text})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "idempotency-key")


def test_without_the_database_a_request_with_the_header_is_refused_and_one_without_is_served(
    gateway: RunningGateway, key: str, database_url: str
) -> None:
    assert gateway.chat(key=key).status_code == 200
    with psycopg.connect(database_url) as holder:
        holder.execute("LOCK TABLE core_idempotentcall IN ACCESS EXCLUSIVE MODE")
        refused = gateway.chat(key=key, headers=named())
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "idempotency_unavailable")
        assert int(refused.headers["retry-after"]) >= 1
        assert gateway.chat(key=key).status_code == 200
        holder.rollback()
    wait_for(lambda: not under_way())  # what the database did after all is undone
    assert billed(gateway, key) == 2


def test_embeddings_are_replayed_too(gateway: RunningGateway, key: str) -> None:
    sent, body = named(), {"model": "sandbox-embed", "input": "hello"}
    with gateway.client(key) as asking:
        first, again = (asking.post("/v1/embeddings", json=body, headers=sent) for _ in range(2))
    assert (first.status_code, replayed(again)) == (200, True)
    assert json.loads(again.content) == first.json()
    assert billed(gateway, key) == 1


def test_a_request_without_the_header_touches_no_record(gateway: RunningGateway, key: str) -> None:
    before = IdempotentCall.objects.count()
    assert gateway.chat(key=key).status_code == 200
    assert IdempotentCall.objects.count() == before
