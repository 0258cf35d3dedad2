"""The key ring's pages: what they show, the steps, and what they refuse."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from django.test import Client

from conduit.access.models import Role
from conduit.console import kek_pages
from conduit.core import keks, keyring, live
from conduit.core.actor import SYSTEM
from tests.console.conftest import World
from tests.console.pages import Markup
from tests.harness.key_file import key_file, random_text

__all__ = ["key_file"]


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch, key_file: Path) -> None:
    monkeypatch.setattr(kek_pages, "PATIENCE_SECONDS", 0.0)


def words(answer: Any) -> str:
    markup = Markup(answer.content.decode())
    assert markup.offences() == []
    return " ".join("".join(markup.text).split())


def test_a_whole_change_of_keys_in_the_console(world: World, owner: Client, key_file: Path) -> None:
    assert "Key ring" in words(owner.get("/system"))
    text = words(owner.get("/keks"))
    needed = keks.status()[0].needed
    for said in ("K1 Primary local 0 of 0 processes", "pepper digests of virtual keys 1 K1", "lie beside the data"):
        assert said in text, said
    assert f"All 1 key {needed}" in text

    assert owner.post("/keks/add").status_code == 303
    live.report(UUID(int=1), kind="web", node="node-9", pid=4711, keks={"K1": "of another node"}, primary="K1")
    text = words(owner.get("/keks"))
    assert "K2 Opens only local 0 of 1 process not web process 4711 on node-9 0" in text
    text = words(owner.get("/keks/K2/rotate"))
    assert "1 process without K2: web process 4711 on node-9" in text
    assert f"{needed} wrapped keys of {needed} move under K2" in text
    refused = owner.post("/keks/K2/rotate")
    assert (refused.status_code, "do not hold K2 yet" in words(refused)) == (409, True)

    live.leave(UUID(int=1))
    assert owner.post("/keks/K2/rotate").status_code == 303
    text = words(owner.get("/keks"))
    assert f"{needed} wrapped keys of {needed} lie under K2." in text
    assert f"K2 Primary local 0 of 0 processes {needed}" in text

    assert "Type K1 to confirm" in words(owner.get("/keks/K1/retire"))
    wrong = owner.post("/keks/K1/retire", {"confirm": "K2"})
    assert (wrong.status_code, "Type K1 to retire it." in words(wrong)) == (422, True)
    assert owner.post("/keks/K1/retire", {"confirm": "K1"}).status_code == 303
    assert "K1=" not in key_file.read_text()
    assert "K1 is removed from" in words(owner.get("/keks"))


def test_what_stands_in_the_way_is_said_before_the_act(world: World, owner: Client) -> None:
    page = words(owner.get("/keks/K1/retire"))
    assert "It encrypts. Change to another key first." in page
    assert "Type K1" not in page
    refused = owner.post("/keks/K1/retire", {"confirm": "K1"})
    assert (refused.status_code, "K1 is primary" in words(refused)) == (409, True)
    assert owner.get("/keks/K7/rotate").status_code == 404


def test_an_unfinished_move_and_a_missing_key_are_shown(world: World, owner: Client) -> None:
    keks.add(actor=SYSTEM)
    keks.rotate(actor=SYSTEM, to="K2", until=0.0)
    assert "are not under K2 yet" in words(owner.get("/keks"))
    world.credential.versions.update(kek_id="LOST")
    assert "LOST Missing not set on this node" in words(owner.get("/keks"))


def test_keys_of_the_environment_have_no_button_to_add_one(
    world: World, owner: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONDUIT_KEK_E1", random_text())
    monkeypatch.setenv("CONDUIT_KEK_E2", random_text())
    monkeypatch.setenv("CONDUIT_KEK_PRIMARY", "E1")
    keyring.reset()
    text = words(owner.get("/keks"))
    assert "The keys come from the environment" in text
    assert "Add a key" not in text
    assert "CONDUIT_KEK_PRIMARY is E1. Set it to E2" in words(owner.get("/keks/E2/rotate"))
    refused = owner.post("/keks/E2/rotate")
    assert (refused.status_code, "Set it to E2 on every node" in words(refused)) == (409, True)
    assert owner.post("/keks/add").status_code == 409


def test_a_purpose_gets_a_new_version(world: World, owner: Client) -> None:
    assert owner.post("/keks/purposes/pepper/new-version").status_code == 303
    text = words(owner.get("/keks"))
    assert "pepper has version 2." in text
    assert "pepper digests of virtual keys 2 K1 0" in text
    assert owner.post("/keks/purposes/salt/new-version").status_code == 404


@pytest.mark.parametrize("role", [Role.ADMIN, Role.AUDITOR, Role.OPERATOR])
def test_who_may_not_change_the_ring_sees_no_act(world: World, signed_in: Callable[..., Client], role: str) -> None:
    client = signed_in(role)
    shown = client.get("/keks")
    assert shown.status_code == (200 if role == Role.AUDITOR else 403)
    assert ("Key ring" in words(client.get("/system"))) == (role == Role.AUDITOR)
    assert b"<form method" not in shown.content.split(b"<main")[-1]
    for path in ("/keks/add", "/keks/K1/rotate", "/keks/K1/retire", "/keks/purposes/pepper/new-version"):
        assert client.post(path, {"confirm": "K1"}).status_code == 403
