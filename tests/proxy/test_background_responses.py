"""`"background": true`: answers that are made while nobody waits, ended from any worker, never lost without a word."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import openai
import psycopg
import pytest
from django.db.models.functions import Now
from openai.types.responses import Response

from conduit.core import live
from conduit.proxy import gateway as gateways
from conduit.proxy import responses_background
from conduit.proxy.call import Call
from conduit.proxy.snapshot import ANSWER_SECONDS
from tests.harness.gateway import RunningGateway, serving, wait_for
from tests.harness.invoice import read_lines
from tests.harness.speakers import PREFIXES
from tests.proxy.streams import HEAD, chunk, paced, scripted
from usage.models import StoredResponse, UsageEvent

pytestmark = pytest.mark.usefixtures("module_books")
SLOW = {"x-sandbox-chunk-gap-ms": "100"}


def client(url: str, key: str) -> openai.OpenAI:
    return openai.OpenAI(api_key=key, base_url=f"{url}/v1", max_retries=0, timeout=20)


@pytest.fixture(scope="module")
def second(gateway: RunningGateway) -> Iterator[str]:
    """Another worker of the same installation."""
    from conduit.asgi import Application

    with serving(Application()) as url:
        yield url


@pytest.fixture(scope="module")
def gpt(gateway: RunningGateway) -> Iterator[openai.OpenAI]:
    with client(gateway.url, gateway.raw_key) as made:
        yield made


@pytest.fixture(scope="module")
def other(gateway: RunningGateway, second: str) -> Iterator[openai.OpenAI]:
    with client(second, gateway.raw_key) as made:
        yield made


def begin(gpt: openai.OpenAI, text: str = "one two three", model: str = "sandbox-echo", **more: Any) -> Response:
    return gpt.responses.create(model=model, input=text, background=True, **more)


def slowly(gpt: openai.OpenAI, **more: Any) -> Response:
    """Three hundred words, ten a second: half a minute, far longer than any test waits."""
    return begin(gpt, "words: 300", "anthropic/sandbox-lorem", extra_headers=SLOW, **more)


def ended(gpt: openai.OpenAI, response: Response) -> Response:
    found: list[Response] = []

    def there() -> bool:
        found[:] = [gpt.responses.retrieve(response.id)]
        return found[0].status not in ("queued", "in_progress")

    wait_for(there)
    return found[0]


def under_way(gpt: openai.OpenAI, response: Response) -> None:
    wait_for(lambda: gpt.responses.retrieve(response.id).status == "in_progress")


@pytest.mark.parametrize("wire", list(PREFIXES))
def test_it_is_answered_at_once_and_made_meanwhile(
    gateway: RunningGateway, gpt: openai.OpenAI, other: openai.OpenAI, wire: str
) -> None:
    raw = gpt.responses.with_raw_response.create(
        model=f"{PREFIXES[wire]}sandbox-echo", input="one two three", background=True, metadata={"a": "b"}
    )
    first = raw.parse()
    assert (first.status, first.output, first.background, first.metadata) == ("queued", [], True, {"a": "b"})
    done = ended(other, first)
    assert (done.id, done.status, done.output_text, done.background) == (first.id, "completed", "one two three", True)
    assert done.usage is not None
    assert (done.usage.input_tokens, done.usage.output_tokens) == (10, 3)
    (event,) = gateway.events(raw.headers["x-request-id"])
    assert (event.outcome, event.exactness, event.cost_nanos) == ("ok", "exact", 10 * 150 + 3 * 600)
    then = gpt.responses.create(model="sandbox-echo", input="four", previous_response_id=first.id)
    assert then.usage is not None
    assert then.usage.input_tokens == 22  # the whole conversation


@pytest.mark.parametrize(
    ("pace", "steps", "told"),
    [
        ({"idle": 0.4, "keep_alive": 0.1}, [chunk("one"), 30.0], "silent for 0.4"),
        ({"total": 0.4}, [chunk("one"), 0.1] * 150, "longer than 0.4"),
    ],
    ids=["silent", "endless"],
)
def test_a_provider_that_does_not_end_is_not_waited_for(
    gateway: RunningGateway, gpt: openai.OpenAI, pace: Any, steps: list[Any], told: str
) -> None:
    with scripted(gateway, f"endless by {told}") as upstream, paced(gateway, **pace):
        upstream.steps = [HEAD, *steps]
        found = ended(gpt, begin(gpt, model=f"endless by {told}"))
    assert found.status == "failed"
    assert found.error is not None
    assert told in found.error.message
    wait_for(lambda: not gateway.app.gateway.streams._clients)


@pytest.mark.parametrize("place", ["same worker", "other worker", "deleted"])
def test_it_ends_when_it_is_cancelled_or_deleted_anywhere(
    gateway: RunningGateway, gpt: openai.OpenAI, other: openai.OpenAI, place: str
) -> None:
    made = slowly(gpt)
    under_way(gpt, made)
    if place == "deleted":
        other.responses.delete(made.id)
    else:
        told = (gpt if place == "same worker" else other).responses.cancel(made.id)
        assert told.status == "cancelled"
    wait_for(lambda: gateway.app.gateway.tally.in_flight == 0)
    if place != "deleted":
        again = gpt.responses.cancel(made.id)
        assert (again.status, ended(gpt, made).status) == ("cancelled", "cancelled")
        with pytest.raises(openai.BadRequestError, match="cancelled"):
            gpt.responses.create(model="sandbox-echo", input="on", previous_response_id=made.id)
    gateway.ship()
    event = UsageEvent.objects.filter(route="anthropic/sandbox-lorem").order_by("-time")[0]
    assert event.outcome == "cancelled"
    assert event.output_tokens < 300  # the provider was stopped, and the oracle holds what came against its invoice


def test_what_has_ended_stays_as_it_ended(gpt: openai.OpenAI) -> None:
    made = begin(gpt)
    ended(gpt, made)
    assert gpt.responses.cancel(made.id).status == "completed"
    plain = gpt.responses.create(model="sandbox-echo", input="x")
    with pytest.raises(openai.BadRequestError, match="background"):
        gpt.responses.cancel(plain.id)
    with pytest.raises(openai.NotFoundError):
        gpt.responses.cancel(f"resp_{uuid4().hex}")


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({"model": "none"}, 404, "model"),
        ({"input": [{"role": "x", "content": "y"}]}, 400, "input[0].role"),
        ({"store": False}, 400, "background"),
        ({"stream": True}, 400, "stream"),
        ({"background": "yes"}, 400, "background"),
    ],
)
def test_what_can_be_refused_at_once_is(
    gateway: RunningGateway, fields: dict[str, Any], status: int, param: str
) -> None:
    before = StoredResponse.objects.count()
    with gateway.client() as sender:
        body = {"model": "sandbox-echo", "input": "x", "background": True, **fields}
        answer = sender.post("/v1/responses", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (status, param)
    assert StoredResponse.objects.count() == before


def test_a_failure_is_told_by_the_response(gateway: RunningGateway, gpt: openai.OpenAI) -> None:
    for headers, code in (
        ({"x-sandbox-status": "500"}, "server_error"),
        ({"x-sandbox-status": "400"}, "invalid_prompt"),
    ):
        failed = ended(gpt, begin(gpt, extra_headers=headers))
        assert failed.error is not None
        assert (failed.status, failed.error.code) == ("failed", code)
    cut = ended(gpt, _cut(gpt))
    assert (cut.status, cut.error and cut.error.code) == ("failed", "server_error")
    poor = gateway.key(budgets=[{"limit_usd": "0.000001"}])
    with client(gateway.url, poor) as sender:
        refused = ended(sender, begin(sender))
    assert refused.error is not None
    assert (refused.status, refused.error.code) == ("failed", "rate_limit_exceeded")
    assert "budget_exceeded" in refused.error.message


def _cut(gpt: openai.OpenAI) -> Response:
    return begin(gpt, "words: 30", "gemini/sandbox-lorem", extra_headers={"x-sandbox-cut-after-bytes": "900"})


def test_it_counts_among_what_a_key_does_at_once(gateway: RunningGateway) -> None:
    with client(gateway.url, gateway.key(max_parallel=1)) as sender:
        billed = len(read_lines(gateway.sandbox.invoice))
        made = slowly(sender)
        wait_for(lambda: len(read_lines(gateway.sandbox.invoice)) > billed)
        with pytest.raises(openai.RateLimitError):
            sender.responses.create(model="sandbox-echo", input="x", store=False)
        StoredResponse.objects.filter(id=UUID(hex=made.id[5:])).update(state="cancelled")
        wait_for(lambda: gateway.app.gateway.tally.in_flight == 0)
        assert sender.responses.create(model="sandbox-echo", input="x", store=False).output_text == "x"


@pytest.mark.usefixtures("minute")
def test_a_rate_refuses_it_at_once_and_is_taken_once(gateway: RunningGateway) -> None:
    with client(gateway.url, gateway.key(rpm=2, max_parallel=5)) as sender:
        made = [begin(sender, extra_headers={"x-sandbox-delay-ms": "300"}) for _ in range(2)]
        rows = StoredResponse.objects.count()
        with pytest.raises(openai.RateLimitError, match="2 requests a minute") as refused:
            begin(sender)
        assert 1 <= int(refused.value.response.headers["retry-after"]) <= 61
        assert StoredResponse.objects.count() == rows
        (event,) = gateway.events(refused.value.response.headers["x-request-id"])
        assert (event.attempt, event.error_code) == (0, "rate_limit_exceeded")
        wait_for(lambda: gateway.app.gateway.tally.in_flight == 0)
    assert {row.state for row in StoredResponse.objects.filter(id__in=[UUID(hex=one.id[5:]) for one in made])} == {
        "completed"
    }


@pytest.mark.usefixtures("minute")
def test_its_tokens_are_given_back_when_it_has_ended(gateway: RunningGateway) -> None:
    with client(gateway.url, gateway.key(tpm=1_000)) as sender:
        for _ in range(3):  # each is estimated at more than half of them, and uses thirteen
            begin(sender, max_output_tokens=600)
            wait_for(lambda: gateway.app.gateway.tally.in_flight == 0)


@pytest.mark.usefixtures("minute")
def test_one_that_is_cancelled_before_its_first_step_gives_everything_back(
    gateway: RunningGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait_for(lambda: gateway.app.gateway.tally.in_flight == 0)
    background = gateway.app.gateway.background
    streamed = responses_background._streamed

    def cancelled(call: Call) -> Call:
        """Its task is made before the loop comes to this, and comes after it."""
        asyncio.get_running_loop().call_soon(lambda: [background.cancel(one) for one in list(background._tasks)])
        return streamed(call)

    monkeypatch.setattr(responses_background, "_streamed", cancelled)
    with client(gateway.url, gateway.key(tpm=1_000)) as sender:
        for _ in range(3):
            made = begin(sender, max_output_tokens=600)
            wait_for(lambda: gateway.app.gateway.tally.in_flight == 0)
            assert StoredResponse.objects.get(id=UUID(hex=made.id[5:])).state == "queued", "not a step was made"
    assert not background._tasks
    assert not background._busy


def test_no_more_are_made_at_once_than_there_is_room_for(
    gateway: RunningGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait_for(lambda: gateway.app.gateway.tally.in_flight == 0)
    monkeypatch.setattr(responses_background, "MOST_OF_A_KEY", 2)
    monkeypatch.setattr(responses_background, "MOST", 3)
    with client(gateway.url, gateway.key(rpm=3)) as sender, client(gateway.url, gateway.key()) as another:
        made = [slowly(sender), slowly(sender)]
        with pytest.raises(openai.RateLimitError, match="2 answers for this key") as refused:
            begin(sender)
        assert refused.value.response.headers["retry-after"] == "5"
        made.append(slowly(another))
        with pytest.raises(openai.RateLimitError, match="3 answers for anybody"):
            begin(another)
        for one in made:
            StoredResponse.objects.filter(id=UUID(hex=one.id[5:])).update(state="cancelled")
        wait_for(lambda: gateway.app.gateway.tally.in_flight == 0)
        assert begin(sender).status == "queued", "the refused one took no request of the minute"


def test_an_idempotent_repeat_makes_no_second_one(gateway: RunningGateway, gpt: openai.OpenAI) -> None:
    sent = {"idempotency-key": uuid4().hex}
    first, again = (begin(gpt, extra_headers=sent) for _ in range(2))
    assert first.id == again.id
    assert ended(gpt, first).output_text == "one two three"


def test_a_result_waits_for_a_database_that_hangs(gpt: openai.OpenAI, database_url: str) -> None:
    made = begin(gpt, extra_headers={"x-sandbox-delay-ms": "1500"})
    with psycopg.connect(database_url) as holder:
        holder.execute("LOCK TABLE usage_storedresponse IN ACCESS EXCLUSIVE MODE")
        time.sleep(ANSWER_SECONDS + 1.5)  # the first try to write it has failed by then
        holder.rollback()
    assert ended(gpt, made).output_text == "one two three"


# --- workers that end ------------------------------------------------------------------------------------------------


def test_a_worker_that_stops_finishes_what_it_makes(gateway: RunningGateway, gpt: openai.OpenAI) -> None:
    from conduit.asgi import Application

    with serving(Application()) as url, client(url, gateway.raw_key) as leaving:
        made = begin(leaving, extra_headers={"x-sandbox-delay-ms": "700"})
    assert gpt.responses.retrieve(made.id).output_text == "one two three"


def test_what_takes_too_long_for_a_worker_that_stops_has_failed(
    gateway: RunningGateway, gpt: openai.OpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    from conduit.asgi import Application

    monkeypatch.setattr(gateways, "STOP_SECONDS", 0.2)
    with serving(Application()) as url, client(url, gateway.raw_key) as leaving:
        made = slowly(leaving)
        under_way(gpt, made)
    failed = gpt.responses.retrieve(made.id)
    assert failed.error is not None
    assert (failed.status, failed.error.code) == ("failed", "server_error")
    assert "stopped" in failed.error.message


def test_a_worker_stops_while_its_result_cannot_be_kept(
    gateway: RunningGateway, gpt: openai.OpenAI, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from conduit.asgi import Application

    monkeypatch.setattr(gateways, "STOP_SECONDS", 0.2)
    app = Application()
    with psycopg.connect(database_url) as holder:
        with serving(app) as url, client(url, gateway.raw_key) as leaving:
            made = slowly(leaving)
            under_way(gpt, made)
            holder.execute("LOCK TABLE usage_storedresponse IN ACCESS EXCLUSIVE MODE")
        assert app.gateway.tally.in_flight == 0
        assert not live.LiveProcess.objects.filter(pk=app.gateway.worker).exists(), "it went on to its end"
        holder.rollback()
    rows = StoredResponse.objects.filter(id=UUID(hex=made.id[5:]))
    assert rows.get().state in ("in_progress", "failed")


def test_what_a_dead_worker_was_making_is_shown_as_failed(gpt: openai.OpenAI) -> None:
    made = begin(gpt, extra_headers={"x-sandbox-delay-ms": "1500"})
    rows = StoredResponse.objects.filter(id=UUID(hex=made.id[5:]))
    long_ago = Now() - live.timedelta(seconds=live.SILENT_SECONDS + 1)
    rows.update(created_at=long_ago)
    assert gpt.responses.retrieve(made.id).status in ("queued", "in_progress")  # its worker lives
    rows.update(worker=uuid4())  # one that nobody has heard of lately
    lost = gpt.responses.retrieve(made.id)
    assert lost.error is not None
    assert (lost.status, lost.error.code) == ("failed", "server_error")
    assert "ended" in lost.error.message
    wait_for(lambda: rows.get().state == "completed")  # it was alive after all
