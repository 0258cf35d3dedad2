"""What a key's holder may ask about: the models in each dialect's shape, its own limits and spend, token counts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from conduit.core.actor import SYSTEM
from keys.teams import create_team
from tests.harness.gateway import SANDBOX_MODELS, RunningGateway
from tests.harness.speakers import PREFIXES, SPEAKERS, Speaker, client

pytestmark = pytest.mark.usefixtures("module_books")
ALL = sorted(prefix + model for prefix in PREFIXES.values() for model in SANDBOX_MODELS)
VERSION = {"anthropic-version": "2023-06-01"}


def _get(gateway: RunningGateway, path: str, key: str = "", **headers: str) -> Any:
    return client().get(gateway.url + path, headers={"x-api-key": key or gateway.raw_key, **headers})


def test_models_in_openais_shape(gateway: RunningGateway) -> None:
    answer = _get(gateway, "/v1/models").json()
    assert answer["object"] == "list"
    assert [model["id"] for model in answer["data"]] == ALL
    assert {(model["object"], type(model["created"])) for model in answer["data"]} == {("model", int)}


def test_models_in_anthropics_shape(gateway: RunningGateway) -> None:
    answer = _get(gateway, "/v1/models", **VERSION).json()
    assert ([model["id"] for model in answer["data"]], answer["has_more"]) == (ALL, False)
    assert (answer["first_id"], answer["last_id"]) == (ALL[0], ALL[-1])
    assert {model["type"] for model in answer["data"]} == {"model"}


def test_models_in_geminis_shape(gateway: RunningGateway) -> None:
    answer = _get(gateway, "/v1beta/models").json()
    assert [model["name"] for model in answer["models"]] == [f"models/{name}" for name in ALL]


@pytest.mark.parametrize("name", ["sandbox-echo", "anthropic/sandbox-echo"])
def test_one_model_in_each_shape(gateway: RunningGateway, name: str) -> None:
    assert _get(gateway, f"/v1/models/{name}").json()["id"] == name
    assert _get(gateway, f"/v1/models/{name}", **VERSION).json()["id"] == name
    assert _get(gateway, f"/v1beta/models/{name}").json()["name"] == f"models/{name}"


def test_a_key_sees_only_the_models_it_may_use(gateway: RunningGateway) -> None:
    key = gateway.key(models=["gemini/*"])
    names = [model["id"] for model in _get(gateway, "/v1/models", key).json()["data"]]
    assert names == [name for name in ALL if name.startswith("gemini/")]
    refused = _get(gateway, "/v1/models/sandbox-echo", key)
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "model_not_allowed")
    missing = _get(gateway, "/v1/models/none")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "model_not_found")


def test_models_want_a_key_and_the_endpoint(gateway: RunningGateway) -> None:
    for path in ("/v1/models", "/v1beta/models", "/v1/key", "/v1/models/sandbox-echo"):
        assert _get(gateway, path, "cdt_vk_no").status_code == 401
    refused = _get(gateway, "/v1/models", gateway.key(endpoints=["chat"]))
    assert refused.json()["error"]["code"] == "endpoint_not_allowed"


def test_the_holders_own_view(gateway: RunningGateway) -> None:
    team = create_team(actor=SYSTEM, name="own-view", budgets=[{"limit_usd": "5.00"}])
    ends = datetime.now(UTC).replace(microsecond=0) + timedelta(days=1)
    budget = {"limit_usd": "1.00", "window": "day", "timezone": "Europe/Berlin"}
    key = gateway.key(
        team=team,
        models=["sandbox-echo"],
        endpoints=["chat", "models"],
        rpm=60,
        tpm=100_000,
        budgets=[budget],
        expires_at=ends,
        max_output_tokens=50,
        tags=["x"],
    )
    assert gateway.chat("hello big world", key=key).status_code == 200
    answer = _get(gateway, "/v1/key", key)
    shown = answer.json()
    assert answer.headers["cache-control"] == "no-store"
    assert key not in answer.text
    assert shown["key"] == f"{key[:17]}…"
    assert (shown["models"], shown["endpoints"], shown["tags"]) == (["sandbox-echo"], ["chat", "models"], ["x"])
    assert shown["expires_at"] == ends.isoformat().replace("+00:00", "Z")
    assert shown["limits"] == [{"scope": "key", "rpm": 60, "tpm": 100_000, "max_parallel": None}]
    own, teams = sorted(shown["budgets"], key=lambda one: one["scope"])
    assert (own["settled_usd"], own["remaining_usd"], own["limit_usd"]) == ("0.0000033", "0.9999967", "1.00")
    assert own["resets_at"].endswith("Z")
    assert (teams["scope"], teams["remaining_usd"], teams["resets_at"]) == ("team", "4.9999967", None)
    assert "limit_usd" not in teams, "a team's figures are not the holder's"


def test_the_holders_own_view_works_for_a_key_without_the_models_endpoint(gateway: RunningGateway) -> None:
    assert _get(gateway, "/v1/key", gateway.key(endpoints=["chat"])).status_code == 200


@pytest.mark.parametrize("name", ["anthropic", "gemini"])
def test_tokens_are_counted_without_a_call(gateway: RunningGateway, name: str) -> None:
    speaker: Speaker = SPEAKERS[name]
    path = "/v1/messages/count_tokens" if name == "anthropic" else "/v1beta/models/sandbox-echo:countTokens"
    body = speaker.body("sandbox-echo", "hello big world", False, None)
    body.pop("max_tokens", None)
    before = gateway.sandbox.invoice.read_bytes() if gateway.sandbox.invoice.exists() else b""
    answer = client().post(gateway.url + path, json=body, headers=speaker.headers(gateway.raw_key))
    counted = answer.json()["input_tokens" if name == "anthropic" else "totalTokens"]
    assert 10 <= counted <= 16
    assert (gateway.sandbox.invoice.read_bytes() if gateway.sandbox.invoice.exists() else b"") == before


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/startupz"])
def test_probes_answer_without_a_key(gateway: RunningGateway, path: str) -> None:
    answer = client().get(gateway.url + path)
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


def test_metrics_count_what_was_served_and_name_no_key(gateway: RunningGateway) -> None:
    gateway.chat("hello big world")
    text = client().get(f"{gateway.url}/metrics").text
    assert 'conduit_requests_total{endpoint="chat"' in text
    assert gateway.raw_key[:17] not in text
