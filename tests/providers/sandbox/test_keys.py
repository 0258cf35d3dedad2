"""Keys of the sandbox: whose they are, and one that passes its check and fails at work."""

from __future__ import annotations

import httpx

from tests.harness.sandbox import RunningSandbox

CHAT = {"model": "sandbox-echo", "messages": [{"role": "user", "content": "hi"}]}


async def test_a_key_tells_its_account_and_a_listing_key_may_only_list(sandbox: RunningSandbox) -> None:
    async def asked(key: str) -> list[tuple[int, str]]:
        headers = {"authorization": f"Bearer {key}"}
        async with httpx.AsyncClient(base_url=sandbox.url, trust_env=False, headers=headers, timeout=20) as client:
            answers = [await client.get("/v1/models"), await client.post("/v1/chat/completions", json=CHAT)]
        return [(answer.status_code, answer.headers.get("x-sandbox-account", "")) for answer in answers]

    assert await asked("sk-sandbox-of-bob-1") == [(200, "bob"), (200, "bob")]
    assert await asked("sk-sandbox-plain") == [(200, "main"), (200, "main")]
    assert await asked("sk-sandbox-listing-1") == [(200, "main"), (401, "main")]
    assert await asked("sk-other") == [(401, ""), (401, "")]
