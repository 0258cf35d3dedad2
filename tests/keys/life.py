"""Steps of a virtual key's life over the API, for the tests beside."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from conduit.core.clock import now
from keys import entries
from keys.models import KeySecret
from tests.access.clients import ApiClient


def issue(client: ApiClient, **body: Any) -> dict[str, Any]:
    response = client.post("/keys", {"name": "app", **body})
    assert response.status_code == 201, response.content
    answer: dict[str, Any] = response.json()
    return answer


def rotate(client: ApiClient, key: dict[str, Any], **body: Any) -> dict[str, Any]:
    response = client.post(f"/keys/{key['id']}/rotate", body)
    assert response.status_code == 200, response.content
    answer: dict[str, Any] = response.json()
    return answer


def alive(raw: str) -> bool:
    """Whether the data plane would take it."""
    entry = entries.load(raw[7:17])
    return entry is not None and entry.public_id == raw[7:17]


def detail(response: Any) -> str:
    assert response.status_code == 409, response.content
    text: str = response.json()["detail"]
    return text


def states(client: ApiClient, key: dict[str, Any]) -> list[tuple[int, str]]:
    rows = client.get(f"/keys/{key['id']}/versions").json()["data"]
    return [(row["number"], row["state"]) for row in rows]


def past(key: dict[str, Any], **fields: Any) -> None:
    """As if the overlap had ended."""
    KeySecret.objects.filter(key=key["id"], destroyed_at=None).exclude(expires_at=None).update(
        expires_at=now() - timedelta(seconds=1), **fields
    )
