"""kill -9 of the web process that makes an answer in the background: it is told as failed, and its bill is not lost."""

from __future__ import annotations

import os
import signal
import time
from typing import Any
from uuid import UUID, uuid4

import httpx

from tests.end_to_end.installation import Installation
from tests.harness.gateway import wait_for

NANOS = 1_000_000_000
FAILED_WITHIN = 45  # seconds: its worker is silent after 15
BOOKED_WITHIN = 90


def test_what_a_killed_process_was_making_is_found_failed_and_booked(conduit: Installation) -> None:
    name = f"background-{uuid4().hex[:8]}"
    made = conduit.made("/keys", {"name": name, "budgets": [{"limit_usd": "5"}]})
    headers = {"authorization": f"Bearer {made['key']}"}
    before = conduit.invoice().keys()
    slow = {"x-request-id": name, "x-sandbox-chunk-gap-ms": "200", "x-sandbox-tokens": "600"}  # two minutes
    with httpx.Client(base_url=conduit.url, headers=headers, timeout=20, trust_env=False, verify=False) as client:
        body = {"model": "sandbox-echo", "input": "a long story", "background": True}
        begun = client.post("/v1/responses", json=body, headers=slow)
        assert (begun.status_code, begun.json()["status"]) == (200, "queued"), begun.text
        path = f"/v1/responses/{begun.json()['id']}"

        def status() -> str:
            """A connection to the process that died is made anew, and a process that just began may refuse."""
            try:
                return str(client.get(path).json().get("status"))
            except httpx.TransportError:
                return ""

        wait_for(lambda: status() == "in_progress" and bool(conduit.invoice().keys() - before), 30)
        blow = time.monotonic()
        os.kill(_maker(conduit, begun.json()["id"]), signal.SIGKILL)
        wait_for(lambda: status() == "failed", FAILED_WITHIN)
        found = client.get(path).json()
        assert found["error"]["code"] == "server_error"
        assert "ended before it was complete" in found["error"]["message"]
        told = time.monotonic() - blow
        event = _booked(conduit, name, blow)
        # The process restarts beside the others: what comes next is served, and continues nothing that failed.
        again = client.post("/v1/responses", json={"model": "sandbox-echo", "input": "hello"})
        assert again.status_code == 200, again.text
        ahead = client.post("/v1/responses", json={**body, "previous_response_id": begun.json()["id"]})
        assert (ahead.status_code, ahead.json()["error"]["code"]) == (400, "previous_response_not_found"), ahead.text
        assert "it is failed" in ahead.json()["error"]["message"]
    assert (event["outcome"], event["exactness"]) == ("error", "uncertain")
    _held(conduit, made["budgets"][0]["id"], event["id"])
    conduit.verified()
    print(f"J1: kill -9 under an answer in the background: told as failed after {told:.0f} s, its hold kept, lost 0")


def _maker(conduit: Installation, response: str) -> int:
    """The process that makes it."""
    query = "SELECT pid FROM core_liveprocess p JOIN usage_storedresponse s ON s.worker = p.id WHERE s.id = %s"
    with conduit.database() as session:
        row = session.execute(query, [UUID(hex=response.removeprefix("resp_"))]).fetchone()
    assert row is not None
    return int(row[0])


def _booked(conduit: Installation, request_id: str, blow: float) -> dict[str, Any]:
    found: list[dict[str, Any]] = []

    def there() -> bool:
        found[:] = [event for event in conduit.events() if event["request_id"] == request_id]
        return bool(found)

    wait_for(there, BOOKED_WITHIN - (time.monotonic() - blow))
    (event,) = found
    return event


def _held(conduit: Installation, budget: str, attempt: str) -> None:
    """What the provider billed meanwhile is covered by what stays set aside."""
    billed = conduit.invoice()[attempt].nanos
    query = "SELECT uncertain_nanos FROM keys_budgetperiod WHERE budget_id = %s"
    with conduit.database() as session:
        row = session.execute(query, [budget]).fetchone()
    assert row is not None
    assert row[0] >= billed > 0
