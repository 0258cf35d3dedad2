"""Every URL there is, taken from the URL configuration, against no credentials and against each role."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver

from conduit.access import permissions
from conduit.access.models import Role
from tests.access.clients import ApiClient, client_of

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
# Public on purpose, each with its reason.
PUBLIC = {
    "api/schema/": "the same for every installation of a version",
    "api/docs/": "the same for every installation of a version",
    "login": "where people sign in",
    "logout": "ends a session if there is one",
    "self": "asks for a key; shows what the holder of that key may see anyway",
}
SAMPLES = {"uuid": str(uuid.UUID(int=7)), "int": "7", "path": "someone", "str": "someone", "slug": "someone"}
ROLES = list(Role.values)


def walk(patterns: list[URLPattern | URLResolver], prefix: str = "") -> Iterator[tuple[str, URLPattern]]:
    for pattern in patterns:
        here = prefix + str(pattern.pattern)
        if isinstance(pattern, URLResolver):
            yield from walk(pattern.url_patterns, here)
        else:
            yield here, pattern


def sample(route: str, pattern: URLPattern) -> str:
    """The route with its placeholders filled."""
    for name, converter in pattern.pattern.converters.items():
        kind = type(converter).__name__.removesuffix("Converter").lower()
        value = SAMPLES.get({"string": "str"}.get(kind, kind), "someone")
        route = route.replace(f"<{kind if kind != 'string' else 'str'}:{name}>", value).replace(f"<{name}>", value)
    return "/" + route


ROUTES = sorted(
    {(route, sample(route, pattern)): pattern for route, pattern in walk(get_resolver().url_patterns)}.items()
)
API_VIEWS = [
    (path.removeprefix("/api/v1"), pattern.callback.view_class)  # type: ignore[attr-defined]
    for (route, path), pattern in ROUTES
    if route.startswith("api/v1/") and hasattr(pattern.callback, "view_class")
]


def has_method(view: Any, method: str) -> bool:
    return hasattr(view, method.lower())


CALLS = [(method, path, view) for path, view in API_VIEWS for method in METHODS if has_method(view, method)]


NAMES_ONLY = {(Role.ANALYST, "/keys/review")}  # who sees what keys are called sees no more of them


def test_there_are_routes_to_speak_of() -> None:
    assert len(API_VIEWS) >= 15
    assert len(CALLS) >= 25


@pytest.mark.parametrize(("route", "path"), [names for names, _ in ROUTES])
@pytest.mark.parametrize("method", METHODS)
def test_without_credentials_only_the_public_pages_answer(db: None, route: str, path: str, method: str) -> None:
    if route in PUBLIC:
        pytest.skip(PUBLIC[route])
    response = Client(raise_request_exception=False).generic(method, path, content_type="application/json")
    if route == "api/<path:rest>":
        assert response.status_code == 404
    elif route.startswith("api/"):
        assert response.status_code == 401, (method, path, response.content)
        assert response["WWW-Authenticate"].startswith("Bearer")
    else:
        signing_in = response.status_code in (301, 302) and "/login" in response["Location"]
        assert signing_in or response.status_code in (401, 403, 405), (method, path, response.status_code)


@pytest.mark.parametrize(("method", "path", "view"), CALLS, ids=[f"{method} {path}" for method, path, _ in CALLS])
@pytest.mark.parametrize("role", ROLES)
def test_each_endpoint_answers_exactly_the_roles_of_the_table(
    db: None, role: str, method: str, path: str, view: Any
) -> None:
    write = method not in permissions.SAFE and method not in view.reads
    table = permissions.WRITES if write else permissions.READS
    allowed = view.resource in table[role] and (role, path) not in NAMES_ONLY
    status = client_of(role).call(method, path, {} if method in ("POST", "PUT", "PATCH") else None).status_code
    if allowed:
        assert status not in (401, 403), (role, method, path)
        assert status < 500, (role, method, path)
    else:
        assert status == 403, (role, method, path, status)


@pytest.mark.parametrize(("path", "view"), API_VIEWS, ids=[path for path, _ in API_VIEWS])
def test_every_endpoint_names_a_resource_of_the_table(path: str, view: Any) -> None:
    assert view.resource in permissions.RESOURCES


@pytest.mark.parametrize("role", [Role.ANALYST, Role.AUDITOR])
def test_analyst_and_auditor_write_nothing_but_their_own_account(role: str) -> None:
    assert permissions.WRITES[role] == {"account"}


def test_the_contract_s_roles() -> None:
    reads, writes = permissions.READS, permissions.WRITES
    assert reads[Role.AUDITOR] == permissions.RESOURCES
    assert "audit" not in reads[Role.OPERATOR] | reads[Role.ANALYST]
    assert not {"providers", "credentials", "users", "tokens"} & reads[Role.ANALYST]
    assert "keks" not in writes[Role.ADMIN]
    assert not {"users", "tokens", "prices", "config"} & writes[Role.OPERATOR]
    assert not any("audit" in allowed for allowed in writes.values())


def test_a_virtual_key_or_a_session_cookie_made_up_opens_nothing(owner: ApiClient) -> None:
    raw = owner.post("/keys", {"name": "app"}).json()["key"]
    assert ApiClient(raw).get("/keys").status_code == 401
    assert owner.client.get("/api/v1/keys", headers={"Cookie": "conduit_session=made-up"}).status_code == 401
    assert owner.client.get(f"/api/v1/keys?token={owner.raw}").status_code == 401


def test_paths_below_api_that_do_not_exist_answer_as_problems(stranger: ApiClient) -> None:
    response = stranger.get("/nothing")
    assert (response.status_code, response["Content-Type"]) == (404, "application/problem+json")
