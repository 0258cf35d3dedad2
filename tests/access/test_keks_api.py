"""The key ring by API and by command: each step, what it answers, and who may."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from uuid import UUID

import pytest
from django.conf import settings as django_settings

from conduit.access import keks_api
from conduit.access.models import ManagementToken, Role
from conduit.access.tokens import find_token
from conduit.core import keks, live
from conduit.core.models import AuditEntry, PurposeKey
from tests.access.clients import ApiClient, client_of, faults
from tests.access.test_commands import ROOT
from tests.harness.key_file import key_file

__all__ = ["key_file"]


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keks_api, "PATIENCE_SECONDS", 0.0)


def test_a_whole_change_of_keys_by_api(key_file: Path, owner: ApiClient) -> None:
    body = owner.get("/keks").json()
    assert body["source"] == str(key_file)
    assert [(one["id"], one["primary"], one["needed"]) for one in body["data"]] == [("K1", True, 2)]
    assert [(one["purpose"], one["version"], one["rows"]) for one in body["purposes"]] == [
        ("audit", 1, None),
        ("token-pepper", 1, 1),
    ]

    added = owner.post("/keks", {})
    assert (added.status_code, added.json()["id"], added.json()["needed"]) == (201, "K2", 0)
    assert owner.post("/keks/K2/retire", {}).status_code == 200
    assert owner.post("/keks", {"id": "blue"}).json()["id"] == "blue"
    done = owner.post("/keks/blue/rotate", {}).json()
    assert done == {"to": "blue", "total": 2, "done": 2, "left": 0, "unopened": [], "behind": []}
    assert owner.get("/keks/progress").json() == {"to": "blue", "total": 2, "done": 2, "left": 0}
    refused = owner.post("/keks/blue/retire", {})
    assert (refused.status_code, "primary" in refused.json()["detail"]) == (409, True)
    assert "K1" in owner.post("/keks/K1/retire", {}).json()["detail"]
    assert [one["id"] for one in owner.get("/keks").json()["data"]] == ["blue"]
    assert set(AuditEntry.objects.filter(object_kind="kek").values_list("action", flat=True)) == {
        "kek.add",
        "kek.rotate",
        "kek.retire",
    }


def test_no_answer_holds_a_key(key_file: Path, owner: ApiClient) -> None:
    answers = [owner.post("/keks", {}), owner.get("/keks"), owner.post("/keks/K2/rotate", {}), owner.get("/audit")]
    answers.append(owner.post("/keks/K1/retire", {}))
    for line in key_file.read_text().splitlines():
        value = line.partition("=")[2]
        assert len(value) < 20 or not any(value in answer.content.decode() for answer in answers)


def test_a_step_out_of_order_says_what_stands_in_the_way(key_file: Path, owner: ApiClient) -> None:
    owner.post("/keks", {})
    live.report(UUID(int=1), kind="web", node="node-9", pid=4711, keks={"K1": "of another node"}, primary="K1")
    refused = owner.post("/keks/K2/rotate", {})
    assert refused.status_code == 409
    assert "web process 4711 on node-9" in refused.json()["detail"]
    assert owner.post("/keks/K7/rotate", {}).status_code == 404
    assert owner.post("/keks/K7/retire", {}).status_code == 404
    assert owner.post("/keks/purposes/salt/rotate", {}).status_code == 404
    assert faults(owner.post("/keks", {"id": "a b"})) == {"id": "invalid_id"}
    assert owner.post("/keks", {"name": "K3"}).status_code == 400
    assert owner.post("/keks/K2/rotate", {"force": True}).status_code == 400


@pytest.mark.parametrize("role", [Role.ADMIN, Role.OPERATOR, Role.ANALYST, Role.AUDITOR])
def test_only_an_owner_changes_keys(db: None, key_file: Path, role: str) -> None:
    caller, before = client_of(role), key_file.read_text()
    for path in ("/keks", "/keks/K1/rotate", "/keks/K1/retire", "/keks/purposes/token-pepper/rotate"):
        assert caller.post(path, {}).status_code == 403
    assert caller.get("/keks").status_code == (200 if role == Role.AUDITOR else 403)
    assert key_file.read_text() == before


def test_a_repeated_rotation_with_its_reply_lost_gives_the_same_answer(key_file: Path, owner: ApiClient) -> None:
    owner.post("/keks", {})
    first = owner.post("/keks/K2/rotate", {}, Idempotency_Key="rotate-1")
    again = owner.post("/keks/K2/rotate", {}, Idempotency_Key="rotate-1")
    assert (first.status_code, first.json()) == (again.status_code, again.json())
    assert first.json()["left"] > 0  # its transaction does not do the work, the recurring job does
    resumed = keks.resume()
    assert resumed is not None
    assert resumed.progress.left == 0


def test_a_token_moves_to_the_newest_pepper_when_it_is_used(db: None) -> None:
    old, idle = client_of(Role.OWNER), client_of(Role.AUDITOR)
    assert old.post("/keks/purposes/token-pepper/rotate", {}).json() == {"purpose": "token-pepper", "version": 2}
    fresh = client_of(Role.OWNER)
    assert [caller.get("/keks").status_code for caller in (old, fresh, old)] == [200, 200, 200]
    used = {find_token(caller.raw or "").pepper_version for caller in (old, fresh)}  # type: ignore[union-attr]
    assert used == {2}
    assert ManagementToken.objects.filter(pepper_version=1).count() == 1
    assert idle.get("/keks").status_code == 200
    assert ManagementToken.objects.filter(pepper_version=1).count() == 0
    assert PurposeKey.objects.filter(purpose="token-pepper").count() == 2
    forged = (old.raw or "")[:-1] + ("a" if (old.raw or "")[-1] != "a" else "b")
    assert ApiClient(forged).get("/keks").status_code == 401


def conduit(url: str, home: Path, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "DATABASE_URL": url, "CONDUIT_HOME": str(home), **more}
    command = [sys.executable, "-m", "conduit.cli", "kek", *words]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False, cwd=ROOT)


def test_a_whole_change_of_keys_from_the_command_line(own_database: str, tmp_path: Path) -> None:
    home = tmp_path / "home"
    shutil.copytree(django_settings.CONDUIT_HOME, home, ignore=shutil.ignore_patterns("run", "log*", "static"))
    environment = {**os.environ, "DATABASE_URL": own_database, "CONDUIT_HOME": str(home)}
    make = [sys.executable, "-m", "conduit.cli", "tokens", "create", "--name", "t", "--role", "owner"]
    subprocess.run(make, env=environment, check=True, capture_output=True, cwd=ROOT)

    added = conduit(own_database, home, "add")
    assert (added.returncode, added.stdout, added.stderr) == (0, "K2\n", "")
    refused = conduit(own_database, home, "retire", "K1")
    assert (refused.returncode, "K1 is primary" in refused.stderr) == (1, True)
    rotated = conduit(own_database, home, "rotate")
    assert (rotated.returncode, rotated.stdout) == (0, "2 of 2 wrapped keys lie under K2\n"), rotated.stderr
    shown = json.loads(conduit(own_database, home, "status", "--json").stdout)
    assert [(one["id"], one["needed"]) for one in shown["data"]] == [("K2", 2), ("K1", 0)]
    assert conduit(own_database, home, "rotate-purpose", "token-pepper").stdout == "token-pepper version 2\n"
    assert "K1 is removed" in conduit(own_database, home, "retire", "K1").stdout
    lines = conduit(own_database, home, "status").stdout.splitlines()
    assert lines[1] == "K2  primary  local  3 in core.PurposeKey"
    assert conduit(own_database, home, "rotate", "K9").returncode == 1
    assert conduit(own_database, home, "add", "a b").returncode == 2

    kek = next(line for line in (home / "secrets" / "kek").read_text().splitlines() if line.startswith("K2="))
    given = {"CONDUIT_KEK_K2": kek.partition("=")[2]}
    line = conduit(own_database, home, "add", **given)
    assert (line.returncode, line.stdout.startswith("CONDUIT_KEK_K3=")) == (0, True), line.stderr
    assert "Set it on every node" in line.stderr
