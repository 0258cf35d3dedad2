"""A provider's credential rotates while requests and long streams run: nobody notices (V4)."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import uuid4

import aiohttp

from tests.end_to_end.installation import Installation

PER_SECOND = 200
AT_ONCE = 20  # a machine that cannot keep up is not drowned: it also has to answer whoever rotates
LISTING = "sk-sandbox-listing-only"  # passes its check, is refused at work
WORDS = " ".join(f"w{number}" for number in range(60))
Act = Callable[[str], Awaitable[None]]


class Load:
    """Requests at a steady pace and long streams, counted by outcome, while something is done."""

    def __init__(self, conduit: Installation) -> None:
        self.counts: Counter[str] = Counter()
        self.streams: Counter[str] = Counter()
        self.last_stream = 0.0  # when the last one ended
        self._under_way = 0
        self._conduit = conduit
        self._key = conduit.made("/keys", {"name": f"load-{uuid4().hex[:8]}"})["key"]

    async def during(self, act: Callable[[], Awaitable[None]], *, streams: int = 10, pace: int = PER_SECOND) -> float:
        """Returns the requests a second that were reached. It begins when every process serves what was configured."""
        await asyncio.to_thread(self._conduit.know_all)
        connector = aiohttp.TCPConnector(limit=0)
        headers = {"authorization": f"Bearer {self._key}"}
        async with aiohttp.ClientSession(self._conduit.url, connector=connector, headers=headers) as http:
            long = [asyncio.create_task(self._stream(http)) for _ in range(streams)]
            ended = asyncio.Event()
            paced = asyncio.create_task(self._paced(http, ended, pace))
            began = time.monotonic()
            await act()
            took = time.monotonic() - began
            ended.set()
            await paced
            await asyncio.gather(*long)
        return sum(self.counts.values()) / took

    async def _paced(self, http: aiohttp.ClientSession, ended: asyncio.Event, pace: int) -> None:
        began, sent = time.monotonic(), 0
        async with asyncio.TaskGroup() as group:
            while not ended.is_set():
                due = int((time.monotonic() - began) * pace)
                for _ in range(min(due - sent, AT_ONCE - self._under_way)):
                    self._under_way += 1
                    group.create_task(self._one(http)).add_done_callback(self._ended)
                sent = due
                await asyncio.sleep(0.01)

    def _ended(self, one: asyncio.Task[None]) -> None:
        self._under_way -= 1

    async def _one(self, http: aiohttp.ClientSession) -> None:
        body = {"model": "sandbox-echo", "messages": [{"role": "user", "content": "hello"}]}
        try:
            async with http.post("/v1/chat/completions", json=body) as answer:
                told = await answer.json()
                if answer.status == 200:
                    self.counts["200"] += 1
                else:
                    self.counts[f"{told['error']['code']}: {told['error']['message']}"] += 1
        except aiohttp.ClientError as error:
            self.counts[type(error).__name__] += 1

    async def _stream(self, http: aiohttp.ClientSession) -> None:
        body = {"model": "sandbox-echo", "stream": True, "messages": [{"role": "user", "content": WORDS}]}
        async with http.post("/v1/chat/completions", json=body, headers={"x-sandbox-chunk-gap-ms": "100"}) as answer:
            text = (await answer.read()).decode()
            self.streams["whole" if answer.status == 200 and "[DONE]" in text else "broken"] += 1
            self.last_stream = time.monotonic()


def _credential(conduit: Installation) -> str:
    provider = next(row for row in conduit.api("GET", "/providers").json()["data"] if row["kind"] == "sandbox")
    (row,) = conduit.api("GET", f"/providers/{provider['id']}/credentials").json()["data"]
    found: str = row["id"]
    return found


async def _step(conduit: Installation, id: str, step: str, body: Any = None) -> dict[str, Any]:
    answer = await asyncio.to_thread(conduit.api, "POST", f"/credentials/{id}/{step}", body or {})
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


def _states(conduit: Installation, id: str) -> dict[str, str]:
    """Secret's last characters to the state of its version, and `active` to its number."""
    rows = conduit.api("GET", f"/credentials/{id}/versions").json()["data"]
    return {str(row["number"]): row["state"] for row in rows}


async def test_a_rotation_by_canary_under_load_fails_nobody(conduit: Installation) -> None:
    id, load = _credential(conduit), Load(conduit)

    async def rotate() -> None:
        canary = {"steps": [1, 10], "step_seconds": 3600}
        await _step(conduit, id, "rotate", {"secret": f"sk-sandbox-{uuid4().hex}", "canary": canary})
        for share in (10, 50):
            await asyncio.sleep(0.7)
            await _step(conduit, id, "promote", {"share": share})
        await asyncio.sleep(0.7)
        await _step(conduit, id, "promote")
        await asyncio.sleep(0.7)
        await _step(conduit, id, "finish")
        await asyncio.sleep(0.7)

    reached = await load.during(rotate)
    states = _states(conduit, id)
    assert list(states.values()).count("active") == 1
    assert states[max(states, key=int)] == "active"
    assert set(load.counts) == {"200"}, load.counts
    assert set(load.streams) == {"whole"}, load.streams
    print(
        f"V4: rotation by canary at {reached:.0f} requests/s with {load.streams['whole']} long streams: "
        f"{load.counts['200']} requests, failed 0, streams cut 0"
    )


async def test_a_bad_or_foreign_secret_is_never_active_and_two_at_once_are_one_conflict(conduit: Installation) -> None:
    id = _credential(conduit)
    active = {number for number, state in _states(conduit, id).items() if state == "active"}
    secrets = {"wrong-from-the-start": "invalid_api_key", "sk-sandbox-of-other-1": "foreign_account"}
    for secret, code in secrets.items():
        refused = await asyncio.to_thread(conduit.api, "POST", f"/credentials/{id}/rotate", {"secret": secret})
        assert refused.status_code == 400, refused.text
        assert refused.json()["errors"][0]["code"] == code
        assert secret not in refused.text
    states = _states(conduit, id)
    assert {number for number, state in states.items() if state == "active"} == active
    assert [states[number] for number in sorted(states, key=int)[-2:]] == ["revoked", "revoked"]
    rotations = [{"secret": f"sk-sandbox-{uuid4().hex}", "canary": {"steps": [1]}} for _ in range(2)]
    answers = await asyncio.gather(
        *(asyncio.to_thread(conduit.api, "POST", f"/credentials/{id}/rotate", body) for body in rotations)
    )
    assert sorted(answer.status_code for answer in answers) == [200, 409]
    (conflict,) = (answer for answer in answers if answer.status_code == 409)
    assert any(state in conflict.text for state in ("pending", "canary"))
    await _step(conduit, id, "rollback")
    print("V4: a bad secret and one of another account: never active; two rotations at once: one 409")


async def test_a_canary_that_the_provider_rejects_at_work_is_rolled_back_and_fails_nobody(
    conduit: Installation,
) -> None:
    id, load, back = _credential(conduit), Load(conduit), 0.0

    async def fail() -> None:
        nonlocal back
        await _step(conduit, id, "rotate", {"secret": LISTING, "canary": {"steps": [50], "step_seconds": 3600}})
        began = time.monotonic()
        while time.monotonic() < began + 20:
            row = (await asyncio.to_thread(conduit.api, "GET", f"/credentials/{id}/rotation")).json()
            if row["state"] == "rolled_back":
                break
            await asyncio.sleep(0.05)
        back = time.monotonic() - began
        await asyncio.sleep(0.5)

    await load.during(fail, streams=3)
    row = conduit.api("GET", f"/credentials/{id}/rotation").json()
    assert row["state"] == "rolled_back"
    assert "may list models only" in row["problem"]
    assert LISTING not in str(row)
    assert set(load.counts) == {"200"}, load.counts
    assert set(load.streams) == {"whole"}, load.streams
    print(f"V4: a canary that fails at work: rolled back after {back:.1f} s, {load.counts['200']} requests, failed 0")


async def test_an_emergency_revocation_cuts_within_seconds(conduit: Installation) -> None:
    id, load = _credential(conduit), Load(conduit)
    struck = 0.0

    async def strike() -> None:
        nonlocal struck
        await asyncio.sleep(1.5)
        await _step(conduit, id, "revoke")
        struck = time.monotonic()

    await load.during(strike, streams=6, pace=5)
    took = load.last_stream - struck
    assert load.streams == {"broken": 6}
    assert {name.partition(":")[0] for name in load.counts} <= {"200", "upstream_unavailable"}
    told = await _step(conduit, id, "rotate", {"secret": f"sk-sandbox-{uuid4().hex}"})
    assert told["state"] == "finished"
    await asyncio.to_thread(conduit.know_all)  # the next test finds providers that serve
    print(f"V4: an emergency revocation: 6 open streams cut after {took * 1000:.0f} ms")
    assert took < 5
