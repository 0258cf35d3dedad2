"""An answer of the Responses API that failed late: its error is told like any other, and what it used is billed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from conduit.core.actor import SYSTEM
from conduit.core.secret import Secret
from providers.credentials import add_credential
from providers.models import Provider
from tests.harness.gateway import RunningGateway
from tests.harness.stub_upstream import Asked, Said, Stub, stub_upstream

pytestmark = pytest.mark.usefixtures("module_books")
MESSAGE = {
    "type": "message",
    "id": "msg_1",
    "role": "assistant",
    "status": "incomplete",
    "content": [{"type": "output_text", "text": "Half of an answer", "annotations": []}],
}
USED = {"input_tokens": 21, "output_tokens": 5, "total_tokens": 26}
LATE = {"code": "server_error", "message": "It broke late."}
BODIES: dict[str, dict[str, Any]] = {
    "/v1/responses": {"input": "hi"},
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "hi"}]},
}


def failed(**fields: Any) -> dict[str, Any]:
    base = {"id": "resp_1", "object": "response", "created_at": 1, "model": "gpt-5-pro", "status": "failed"}
    return {**base, "error": LATE, "output": [MESSAGE], "usage": USED, **fields}


def saying(answer: dict[str, Any]) -> Any:
    """Whole, or as the one event of a stream."""

    def says(asked: Asked) -> Said:
        if not (asked.body or {}).get("stream"):
            return Said(body=answer)
        event: dict[str, Any] = {"type": f"response.{answer['status']}", "sequence_number": 0, "response": answer}
        told = b"event: %b\ndata: %b\n\n" % (event["type"].encode(), json.dumps(event).encode())
        return Said(body=told, headers={"content-type": "text/event-stream"})

    return says


@pytest.fixture(scope="module")
def vendor(gateway: RunningGateway) -> Iterator[Stub]:
    """A provider whose model is served by the Responses API only."""
    with stub_upstream() as stub:
        provider: Any = Provider.objects.create(name="late", kind="openai", base_url=f"{stub.url}/v1")
        add_credential(provider, actor=SYSTEM, name="main", fields={"api_key": Secret("sk-late")}, verify=False)
        gateway.route("late", (provider, "gpt-5-pro"))
        yield stub


def ask(gateway: RunningGateway, path: str, *, stream: bool) -> httpx.Response:
    with gateway.client() as client:
        return client.post(path, json={"model": "late", "stream": stream, **BODIES[path]})


@pytest.mark.parametrize("path", list(BODIES))
@pytest.mark.parametrize("stream", [False, True])
def test_what_a_failed_answer_used_is_billed(gateway: RunningGateway, vendor: Stub, path: str, stream: bool) -> None:
    vendor.says = saying(failed())
    answer = ask(gateway, path, stream=stream)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "upstream_unavailable")
    event = gateway.event(answer)
    assert (event.outcome, event.exactness) == ("error", "exact")
    assert (event.input_tokens, event.output_tokens) == (21, 5)


@pytest.mark.parametrize("path", list(BODIES))
@pytest.mark.parametrize("stream", [False, True])
def test_what_failed_before_anything_was_made_is_free(
    gateway: RunningGateway, vendor: Stub, path: str, stream: bool
) -> None:
    vendor.says = saying(failed(output=[], usage=None, error={"code": "rate_limit_exceeded", "message": "Later."}))
    answer = ask(gateway, path, stream=stream)
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "upstream_rate_limited")
    event = gateway.event(answer)
    assert (event.outcome, event.input_tokens, event.output_tokens) == ("error", 0, 0)


@pytest.mark.parametrize("path", list(BODIES))
def test_what_was_made_without_figures_is_estimated(gateway: RunningGateway, vendor: Stub, path: str) -> None:
    vendor.says = saying(failed(usage=None))
    answer = ask(gateway, path, stream=False)
    assert answer.status_code == 503
    event = gateway.event(answer)
    assert (event.outcome, event.exactness) == ("error", "estimated")
    assert min(event.input_tokens, event.output_tokens) > 0


@pytest.mark.parametrize("path", list(BODIES))
def test_an_answer_that_was_cut_is_no_failure(gateway: RunningGateway, vendor: Stub, path: str) -> None:
    vendor.says = saying(failed(status="incomplete", error=None, incomplete_details={"reason": "max_output_tokens"}))
    answer = ask(gateway, path, stream=False)
    assert answer.status_code == 200
    event = gateway.event(answer)
    assert (event.outcome, event.exactness, event.input_tokens, event.output_tokens) == ("ok", "exact", 21, 5)
