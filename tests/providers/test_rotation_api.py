"""Rotation over the management API: each step, repeated, out of order, and with wrong bodies."""

from __future__ import annotations

import json
from typing import Any

import pytest

from conduit.core.models import IdempotentReply
from providers.models import CredentialVersion, Rotation
from tests.harness.sandbox import RunningSandbox
from tests.providers.rotations import BAD, FOREIGN, NEW, THIRD, a_credential, states
from tests.providers.test_api import Api, fields_of

pytestmark = pytest.mark.django_db


@pytest.fixture
def api(sandbox: RunningSandbox) -> Api:
    return Api("operator")


class Steps:
    """POSTs to the steps of one credential."""

    def __init__(self, api: Api) -> None:
        self.credential = a_credential()
        self.api, self.path = api, f"credentials/{self.credential.id}"

    def __call__(self, step: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        return self.api("POST", f"{self.path}/{step}", {} if body is None else body, **headers)

    def done(self, step: str, body: Any = None, **headers: str) -> dict[str, Any]:
        status, answer = self(step, body, **headers)
        assert status == 200, answer
        return dict(answer)


@pytest.fixture
def steps(api: Api) -> Steps:
    return Steps(api)


def test_a_rotation_goes_its_whole_way(api: Api, steps: Steps) -> None:
    canary = {"steps": [5, 25], "step_seconds": 60, "max_error_percent": "0.5", "automatic": False}
    begun = steps.done("rotate", {"secret": NEW, "canary": canary, "overlap_seconds": 600, "reason": "yearly"})
    assert (begun["state"], begun["old"], begun["new"], begun["share"]) == ("canary", 1, 2, 5)
    assert (begun["steps"], begun["max_error_percent"], begun["overlap_seconds"]) == ([5, 25], "0.50", 600)
    assert api("GET", f"{steps.path}/rotation")[1] == begun
    assert api("GET", steps.path)[1]["rotation"] == begun
    listed = api("GET", f"providers/{steps.credential.provider_id}/credentials")[1]["data"][0]
    assert (listed["rotation"], listed["version"]) == (begun, 1)

    checked = steps.done("verify")
    assert (checked["ok"], checked["account"], checked["rotation"]) == (True, "main", begun)
    assert steps.done("promote", {"share": 25})["share"] == 25
    changed = api("PATCH", f"{steps.path}/rotation", {"automatic": True, "max_error_percent": "2"})
    assert (changed[0], changed[1]["automatic"], changed[1]["max_error_percent"]) == (200, True, "2.00")

    promoted = steps.done("promote")
    assert (promoted["id"], promoted["state"], promoted["share"]) == (begun["id"], "draining", 100)
    assert promoted["retire_at"]
    assert steps.done("promote") == promoted
    assert steps.done("extend", {"overlap_seconds": 7200})["retire_at"] > promoted["retire_at"]
    finished = steps.done("finish")
    assert (finished["state"], steps.done("finish")) == ("finished", finished)

    new, old = api("GET", f"{steps.path}/versions")[1]["data"]
    assert (new["state"], new["reason"], new["account"], new["created_by"]) == ("active", "yearly", "main", "operator")
    assert (old["state"], old["hints"]) == ("retired", {})
    assert old["retired_at"]
    assert api("GET", steps.path)[1]["rotation"] is None
    assert api("GET", f"{steps.path}/rotation")[1]["id"] == begun["id"]


def test_going_back_and_the_emergency_exit(api: Api, steps: Steps) -> None:
    steps.done("rotate", {"fields": {"api_key": NEW}})
    back = steps.done("rollback", {"problem": "the bill doubled"})
    assert (back["state"], back["problem"], steps.done("rollback")) == ("rolled_back", "the bill doubled", back)
    steps.done("rotate", {"secret": THIRD})
    status, problem = steps("revoke")
    assert (status, problem["detail"]) == (400, "version: Name one of 1, 3.")
    for _ in range(2):
        assert steps.done("revoke", {"version": 1}) == {"revoked": 1, "active": 3}
    for _ in range(2):
        assert steps.done("revoke") == {"revoked": 3, "active": None}
    body = api("GET", steps.path)[1]
    assert (body["health"], body["version"]) == ("revoked", None)
    assert "Rotate the credential" in body["problem"]["fix"]
    assert steps("verify")[1]["ok"] is False
    assert steps.done("rotate", {"secret": NEW})["state"] == "finished"


def test_refusals_name_the_cause_and_hold_no_secret(api: Api, steps: Steps) -> None:
    status, problem = steps("rotate", {"secret": BAD})
    assert (status, fields_of(problem)) == (400, ["secret"])
    assert "Incorrect API key" in problem["detail"]
    assert BAD not in json.dumps(problem)
    status, problem = steps("rotate", {"secret": FOREIGN})
    assert (status, problem["errors"][0]["code"]) == (400, "foreign_account")
    assert steps.done("rotate", {"secret": FOREIGN, "other_account": True})["new"] == 4
    for step, body, words in (
        ("rotate", {"secret": THIRD}, "draining"),
        ("promote", {"share": 5}, "draining"),
    ):
        status, problem = steps(step, body)
        assert status == 409
        assert words in problem["detail"]
    steps.done("finish")
    for step in ("rollback", "promote"):
        status, problem = steps(step, {"share": 3} if step == "promote" else {})
        assert status == 409
        assert "finished; version 4 is active" in problem["detail"]
    assert api("GET", f"credentials/{a_credential(name='new').id}/rotation")[0] == 404


@pytest.mark.parametrize(
    ("step", "body", "fields"),
    [
        ("rotate", {}, ["secret"]),
        ("rotate", {"secret": NEW, "fields": {"api_key": NEW}}, ["fields"]),
        ("rotate", {"secret": ""}, ["secret"]),
        ("rotate", {"secret": NEW, "overlap_seconds": -1}, ["overlap_seconds"]),
        ("rotate", {"secret": NEW, "overlap_seconds": "1h"}, ["overlap_seconds"]),
        ("rotate", {"secret": NEW, "expires_at": "2001-01-01T00:00:00Z"}, ["expires_at"]),
        ("rotate", {"secret": NEW, "canary": True}, ["canary"]),
        ("rotate", {"secret": NEW, "canary": {"steps": [50, 10]}}, ["canary.steps"]),
        ("rotate", {"secret": NEW, "canary": {"stps": [1]}}, ["canary.stps"]),
        ("rotate", {"secret": NEW, "canary": {"max_error_percent": 1.5}}, ["canary.max_error_percent"]),
        ("rotate", {"secret": NEW, "other_account": "yes"}, ["other_account"]),
        ("rotate", {"secret": NEW, "weight": 3}, ["weight"]),
        ("promote", {"share": 101}, ["share"]),
        ("promote", {"share": True}, ["share"]),
        ("revoke", {"version": 0}, ["version"]),
        ("extend", {}, ["overlap_seconds"]),
        ("finish", {"now": True}, ["now"]),
        ("verify", {"secret": NEW}, ["secret"]),
        ("rollback", {"problem": 5}, ["problem"]),
    ],
)
def test_wrong_bodies_are_refused_by_field(steps: Steps, step: str, body: Any, fields: list[str]) -> None:
    status, problem = steps(step, body)
    assert (status, fields_of(problem)) == (400, fields)
    assert states(steps.credential) == {1: "active"}


def test_a_change_of_rules_can_demand_the_state_it_was_made_for(api: Api, steps: Steps) -> None:
    steps.done("rotate", {"secret": NEW, "canary": {}})
    read = api.raw("GET", f"{steps.path}/rotation")
    assert api("PATCH", f"{steps.path}/rotation", {"automatic": True}, If_Match=read["ETag"])[0] == 200
    assert api("PATCH", f"{steps.path}/rotation", {"automatic": False}, If_Match=read["ETag"])[0] == 412
    status, problem = api("PATCH", f"{steps.path}/rotation", {"steps": [9, 3]})
    assert (status, fields_of(problem)) == (400, ["steps"])


def test_an_idempotency_key_holds_for_a_rotation_too(steps: Steps) -> None:
    first = steps.done("rotate", {"secret": NEW}, Idempotency_Key="one")
    steps.done("finish")
    again = steps.api.raw("POST", f"{steps.path}/rotate", {"secret": NEW}, Idempotency_Key="one")
    assert (again["Idempotent-Replayed"], json.loads(again.content)) == ("true", first)
    assert steps("rotate", {"secret": THIRD}, Idempotency_Key="one")[0] == 422
    assert Rotation.objects.count() == 1
    # What was noted about a refused secret stays, although the call is answered with an error.
    assert steps("rotate", {"secret": BAD}, Idempotency_Key="two")[0] == 400
    assert CredentialVersion.objects.get(number=3).state == "revoked"
    assert steps.done("verify", {}, Idempotency_Key="three")["ok"] is True
    assert IdempotentReply.objects.count() == 2
    assert NEW not in str(list(IdempotentReply.objects.values()))
