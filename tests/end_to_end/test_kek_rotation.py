"""V3: the key-encryption key changes under load, with a thousand credentials, killed midway: nobody notices."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import aiohttp
import pytest

from tests.end_to_end.installation import ROOT, Installation, installation
from tests.harness.gateway import wait_for

CREDENTIALS = 1000
SENDERS = 4
# Rows are made as the vault makes them, in one process of the installation's own settings.
MAKE = f"""
import django; django.setup()
from django.db import transaction
from conduit.core.secret import Secret
from providers import vault
from providers.models import Credential, Provider, VersionState
provider = Provider.objects.get(name="thousand")
with transaction.atomic():
    for number in range({CREDENTIALS}):
        credential = Credential.objects.create(provider=provider, name=f"c-{{number}}")
        fields = {{"api_key": Secret("sk-sandbox-1")}}
        vault.seal_version(credential, fields, number=1, state=VersionState.ACTIVE)
"""
FAKE = """
INSERT INTO core_liveprocess (id, kind, node, pid, started_at, seen_at, snapshot, keks, "primary", versions)
VALUES (%s, 'web', 'node-without', 1, now(), now() + interval '10 minutes', 0, '{"K1": "of another node"}', 'K1', '{}')
"""


@pytest.fixture
def conduit() -> Iterator[Installation]:
    """One of its own: it ends with other keys than it began with."""
    with installation() as one:
        yield one


class Load:
    """Requests one after another from a few senders until it is stopped, counted by outcome."""

    def __init__(self, conduit: Installation) -> None:
        self.counts: Counter[str] = Counter()
        self._conduit, self._ended = conduit, False
        self._key = conduit.made("/keys", {"name": f"load-{uuid4().hex[:8]}"})["key"]

    async def run(self) -> None:
        headers = {"authorization": f"Bearer {self._key}"}
        async with aiohttp.ClientSession(self._conduit.url, headers=headers) as http, asyncio.TaskGroup() as senders:
            for _ in range(SENDERS):
                senders.create_task(self._send(http))

    def stop(self) -> None:
        self._ended = True

    async def _send(self, http: aiohttp.ClientSession) -> None:
        body = {"model": "thousand", "messages": [{"role": "user", "content": "hello"}]}
        while not self._ended:
            try:
                async with http.post("/v1/chat/completions", json=body) as answer:
                    told = await answer.json()
                    self.counts["200" if answer.status == 200 else told["error"]["message"]] += 1
            except aiohttp.ClientError as error:
                self.counts[type(error).__name__] += 1
            await asyncio.sleep(0.01)


def _prepare(conduit: Installation) -> None:
    conduit.made("/providers", {"name": "thousand", "kind": "sandbox"})
    conduit.made("/routes", {"name": "thousand", "targets": [{"provider": "thousand", "model": "sandbox-echo"}]})
    subprocess.run([sys.executable, "-c", MAKE], env=conduit.environment, cwd=ROOT, check=True, timeout=300)


def _under(conduit: Installation, kek: str) -> int:
    with conduit.database() as session:
        row = session.execute("SELECT count(*) FROM providers_credentialversion WHERE kek_id = %s", [kek]).fetchone()
    assert row is not None
    found: int = row[0]
    return found


def _gate(conduit: Installation) -> None:
    """A node that has not the new key closes the gate; nothing is changed."""
    ident = uuid4()
    with conduit.database() as session:
        session.execute(FAKE, [ident])
    refused = conduit.api("POST", "/keks/K2/rotate", {})
    assert refused.status_code == 409, refused.text
    assert "web process 1 on node-without" in refused.json()["detail"]
    assert _under(conduit, "K2") == 0
    with conduit.database() as session:
        session.execute("DELETE FROM core_liveprocess WHERE id = %s", [ident])


def _killed_midway(conduit: Installation) -> int:
    """`conduit kek rotate K2`, killed with SIGKILL while it waits for a row in the middle; how many it had moved."""
    with conduit.database() as session:
        middle = session.execute(
            "SELECT id FROM providers_credentialversion ORDER BY id LIMIT 1 OFFSET %s", [CREDENTIALS // 2]
        ).fetchone()
        session.execute("SELECT 1 FROM providers_credentialversion WHERE id = %s FOR UPDATE", middle)
        command = [sys.executable, "-P", "-m", "conduit.cli", "kek", "rotate", "K2"]
        process = subprocess.Popen(
            command, cwd=ROOT, env=conduit.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        try:
            moved = -1

            def stands_still() -> bool:
                nonlocal moved
                assert process.poll() is None, process.stdout.read() if process.stdout else ""
                before, moved = moved, _under(conduit, "K2")
                time.sleep(0.5)
                return moved == before > 0

            wait_for(stands_still, 120)
        finally:
            os.kill(process.pid, signal.SIGKILL)
            process.communicate()
        refused = conduit.api("POST", "/keks/K1/retire", {})  # the row is still held, so it still needs K1
        assert refused.status_code == 409, refused.text
        assert "K1 is in use" in refused.json()["detail"] or "still encrypts" in refused.json()["detail"]
    return moved


def _unreadable(conduit: Installation) -> int:
    return conduit.err.read_text().count("credential_unreadable")


async def test_the_key_encryption_key_changes_under_load_and_is_killed_midway(conduit: Installation) -> None:
    await asyncio.to_thread(_prepare, conduit)
    load = Load(conduit)
    await asyncio.to_thread(conduit.know_all)
    running = asyncio.create_task(load.run())
    try:
        began = time.monotonic()
        assert (await asyncio.to_thread(conduit.command, "kek", "add")).strip() == "K2"
        await asyncio.to_thread(_gate, conduit)
        moved = await asyncio.to_thread(_killed_midway, conduit)
        done = await asyncio.to_thread(conduit.command, "kek", "rotate")
        assert "lie under K2" in done
        assert "does not open" not in done
        retired = await asyncio.to_thread(conduit.command, "kek", "retire", "K1")  # opens everything first
        assert "K1 is removed" in retired
        await asyncio.sleep(1.0)
        took = time.monotonic() - began
    finally:
        load.stop()
        await running
    assert 0 < moved < CREDENTIALS
    assert await asyncio.to_thread(_under, conduit, "K2") >= CREDENTIALS
    assert "K1=" not in (conduit.home / "secrets" / "kek").read_text()
    assert set(load.counts) == {"200"}, load.counts
    assert _unreadable(conduit) == 0, conduit.err.read_text()[-2000:]
    status: Any = (await asyncio.to_thread(conduit.api, "GET", "/keks")).json()
    assert [one["id"] for one in status["data"]] == ["K2"]
    print(
        f"V3: a new key-encryption key over {CREDENTIALS} credentials at {load.counts['200'] / took:.0f} requests/s, "
        f"killed after {moved} and resumed: failed 0, undecryptable 0"
    )
