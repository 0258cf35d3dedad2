"""Callers of the management API: one client per role, each with a real token."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from django.conf import settings
from django.test import Client

from conduit.access.models import Role
from conduit.access.tokens import create_token
from conduit.core.actor import SYSTEM

API = "/api/v1"


class ApiClient:
    """Calls /api/v1 with one management token, or with none."""

    def __init__(self, raw: str | None) -> None:
        self.raw = raw
        self.client = Client(raise_request_exception=False)

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if self.raw:
            sent["Authorization"] = f"Bearer {self.raw}"
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        content = "application/json" if data else ""
        return self.client.generic(method, f"{API}{path}", data, content_type=content, headers=sent)

    def get(self, path: str, **headers: str) -> Any:
        return self.call("GET", path, **headers)

    def post(self, path: str, body: Any = None, **headers: str) -> Any:
        return self.call("POST", path, body, **headers)

    def patch(self, path: str, body: Any, **headers: str) -> Any:
        return self.call("PATCH", path, body, **headers)

    def put(self, path: str, body: Any) -> Any:
        return self.call("PUT", path, body)

    def delete(self, path: str, **headers: str) -> Any:
        return self.call("DELETE", path, **headers)


def client_of(role: str, team: UUID | None = None) -> ApiClient:
    _, raw = create_token(actor=SYSTEM, name=f"{role} of the test", role=role, team=team)
    return ApiClient(raw.reveal())


def faults(response: Any) -> dict[str, str]:
    """field → code of a problem answer."""
    assert response["Content-Type"] == "application/problem+json", response.content
    return {error["field"]: error["code"] for error in response.json()["errors"]}


@pytest.fixture(scope="session", autouse=True)
def static_root() -> None:
    """WhiteNoise warns, and warnings are errors, where `conduit up` has not collected the static files."""
    Path(settings.STATIC_ROOT).mkdir(parents=True, exist_ok=True)


@pytest.fixture
def owner(db: None) -> ApiClient:
    return client_of(Role.OWNER)


@pytest.fixture
def admin(db: None) -> ApiClient:
    return client_of(Role.ADMIN)


@pytest.fixture
def operator(db: None) -> ApiClient:
    return client_of(Role.OPERATOR)


@pytest.fixture
def analyst(db: None) -> ApiClient:
    return client_of(Role.ANALYST)


@pytest.fixture
def auditor(db: None) -> ApiClient:
    return client_of(Role.AUDITOR)


@pytest.fixture
def stranger(db: None) -> ApiClient:
    return ApiClient(None)
