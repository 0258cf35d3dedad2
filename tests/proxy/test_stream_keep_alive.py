"""A client whose provider is silent hears something, between frames only, and before the answer begins too."""

from __future__ import annotations

import json

import pytest

from tests.harness.gateway import RunningGateway
from tests.harness.speakers import PREFIXES, SPEAKERS, Speaker
from tests.proxy.streams import MARKS, chunk, ending, paced, scripted

pytestmark = pytest.mark.usefixtures("module_books")
HELLO = 10 * 150 + 3 * 600
OFF = {"type": "disabled"}


@pytest.fixture(params=list(PREFIXES))
def echo(request: pytest.FixtureRequest) -> str:
    """The echo model behind each provider's wire format in turn."""
    return f"{PREFIXES[request.param]}sandbox-echo"


def test_a_client_hears_something_while_its_provider_is_silent(
    gateway: RunningGateway, speaker: Speaker, echo: str
) -> None:
    slow = {"x-sandbox-chunk-gap-ms": "200"}
    with paced(gateway, keep_alive=0.05):
        answer, seen = speaker.stream(gateway.url, gateway.raw_key, model=echo, headers=slow)
    assert (seen.text, seen.ended, seen.error) == ("hello big world", True, None)
    assert MARKS[speaker.name] in answer.content
    event = gateway.event(answer)
    assert (event.cost_nanos, event.exactness, event.outcome) == (HELLO, "exact", "ok")


def test_nothing_is_added_where_it_is_switched_off_or_nobody_is_slow(gateway: RunningGateway, speaker: Speaker) -> None:
    with paced(gateway, keep_alive=0):
        slow = {"x-sandbox-chunk-gap-ms": "100"}
        answer, seen = speaker.stream(gateway.url, gateway.raw_key, headers=slow)
        assert MARKS[speaker.name] not in answer.content
    with paced(gateway, keep_alive=15):
        answer, seen = speaker.stream(gateway.url, gateway.raw_key, headers=slow)
        assert (seen.text, MARKS[speaker.name] in answer.content) == ("hello big world", False)


@pytest.mark.parametrize("wire", list(PREFIXES))
def test_an_array_stays_valid_json(gateway: RunningGateway, wire: str) -> None:
    gemini = SPEAKERS["gemini"]
    model = f"{PREFIXES[wire]}sandbox-echo"
    slow = {"x-sandbox-delay-ms": "200", "x-sandbox-chunk-gap-ms": "150"}
    body = json.dumps(gemini.body(model, "hello big world", True, None)).encode()
    with paced(gateway, keep_alive=0.05):
        path = f"/v1beta/models/{model}:streamGenerateContent"
        answer = gemini.post(gateway.url, path, gateway.raw_key, body, slow)
    assert answer.content.startswith(b"\r\n")
    texts = [
        part.get("text", "")
        for frame in json.loads(answer.content)
        for one in frame.get("candidates", [])
        for part in one["content"]["parts"]
    ]
    assert "".join(texts) == "hello big world"
    assert gateway.event(answer).cost_nanos == HELLO


# --- before the answer's head


def test_the_head_leaves_although_the_provider_has_not_begun(
    gateway: RunningGateway, speaker: Speaker, echo: str
) -> None:
    late = {"x-sandbox-delay-ms": "400", "x-request-id": f"late-{speaker.name}-{echo.replace('/', '-')}"}
    with paced(gateway, keep_alive=0.1):
        answer, seen = speaker.stream(gateway.url, gateway.raw_key, model=echo, headers=late)
    assert (answer.status_code, seen.text, seen.ended) == (200, "hello big world", True)
    assert answer.content.startswith((MARKS[speaker.name], b"\r\n"))
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["request-id"] == late["x-request-id"]
    assert "x-conduit-provider" not in answer.headers, "another one may yet serve it"
    assert gateway.event(answer).cost_nanos == HELLO


def test_what_could_not_be_carried_is_told_in_that_head_too(gateway: RunningGateway) -> None:
    with scripted(gateway, "narrow") as upstream, paced(gateway, keep_alive=0.1):
        upstream.steps = (0.5, HEAD_AND_TEXT)
        answer, seen = SPEAKERS["anthropic"].stream(gateway.url, gateway.raw_key, model="narrow", thinking=OFF)
    assert (seen.text, answer.headers.get("x-conduit-provider")) == ("from the spare", None)
    assert answer.headers["x-conduit-dropped-params"] == "reasoning.off"


def test_a_failure_before_the_head_keeps_its_status(gateway: RunningGateway, speaker: Speaker) -> None:
    late = {"x-sandbox-delay-ms": "200", "x-sandbox-status": "422"}
    with paced(gateway, keep_alive=15):
        answer, _ = speaker.stream(gateway.url, gateway.raw_key, headers=late)
    assert answer.status_code == 422
    assert speaker.told(answer.json()).word == speaker.word(422)


def test_a_failure_after_the_head_is_told_in_the_stream(gateway: RunningGateway, speaker: Speaker) -> None:
    late = {"x-sandbox-delay-ms": "400", "x-sandbox-status": "503"}
    with paced(gateway, keep_alive=0.1):
        answer, seen = speaker.stream(gateway.url, gateway.raw_key, headers=late)
    assert (answer.status_code, seen.text, seen.ended) == (200, "", False)
    assert seen.error is not None
    assert seen.error.word == speaker.word_in_stream(503)
    event = gateway.event(answer)
    assert (event.outcome, event.status, event.cost_nanos) == ("error", 503, 0)


def test_a_failure_after_the_head_leaves_an_array_whole(gateway: RunningGateway) -> None:
    gemini = SPEAKERS["gemini"]
    late = {"x-sandbox-delay-ms": "400", "x-sandbox-status": "503"}
    body = json.dumps(gemini.body("sandbox-echo", "x", True, None)).encode()
    with paced(gateway, keep_alive=0.1):
        path = "/v1beta/models/sandbox-echo:streamGenerateContent"
        answer = gemini.post(gateway.url, path, gateway.raw_key, body, late)
    assert answer.status_code == 200
    assert gemini.told(json.loads(answer.content)[0]).word == gemini.word(503)


def test_another_candidate_still_serves_after_the_head(gateway: RunningGateway, speaker: Speaker) -> None:
    name = f"second-{speaker.name}"
    with scripted(gateway, f"spare-{speaker.name}") as spare:
        spare.steps = (HEAD_AND_TEXT,)
        gateway.route(
            name, (gateway.provider("sandbox"), "sandbox-echo"), (gateway.provider(f"spare-{speaker.name}"), "x")
        )
        late = {"x-sandbox-delay-ms": "400", "x-sandbox-status": "503"}
        with paced(gateway, keep_alive=0.1):
            answer, seen = speaker.stream(gateway.url, gateway.raw_key, model=name, headers=late)
    assert (answer.status_code, seen.text, seen.ended, seen.error) == (200, "from the spare", True, None)
    first, last = gateway.events(answer.headers["x-request-id"], 2)
    assert [(one.outcome, one.final) for one in (first, last)] == [("error", False), ("ok", True)]


HEAD_AND_TEXT = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
    + chunk("from the spare")
    + ending(10, 3)
)


def test_what_the_provider_sends_to_keep_alive_is_not_repeated(gateway: RunningGateway) -> None:
    """Comments of an upstream go through as they are; only real silence is filled."""
    with scripted(gateway, "chatty") as upstream:
        head, _, rest = HEAD_AND_TEXT.partition(b"\r\n\r\n")
        upstream.steps = (head + b"\r\n\r\n", *([b": working\n\n", 0.02] * 15), rest)
        with paced(gateway, keep_alive=3):
            answer, seen = SPEAKERS["openai"].stream(gateway.url, gateway.raw_key, model="chatty")
    assert (seen.text, answer.content.count(b": working"), MARKS["openai"] in answer.content) == (
        "from the spare",
        15,
        False,
    )
