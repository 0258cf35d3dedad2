from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
from django.test import Client
from drf_spectacular.drainage import GENERATOR_STATS
from drf_spectacular.generators import SchemaGenerator

from conduit.core import reference
from conduit.proxy import paths
from tests.access.clients import ApiClient


@pytest.fixture
def client(settings: Any) -> Client:
    plain = {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}
    settings.STORAGES = {**settings.STORAGES, "staticfiles": plain}
    return Client()


def test_the_schema_is_openapi_3_1_and_holds_every_resource(client: Client) -> None:
    document = client.get("/api/schema/").json()
    assert document["openapi"].startswith("3.1")
    operations = {(path, method) for path, methods in document["paths"].items() for method in methods}
    for wanted in [
        ("/api/v1/keys", "post"),
        ("/api/v1/keys/{key_id}/revoke", "post"),
        ("/api/v1/keys/{key_id}/budgets", "get"),
        ("/api/v1/customers/{name}", "put"),
        ("/api/v1/tokens/{token_id}", "delete"),
        ("/api/v1/audit", "get"),
    ]:
        assert wanted in operations
    ids = [m["operationId"] for methods in document["paths"].values() for m in methods.values()]
    assert len(ids) == len(set(ids))
    body = document["components"]["schemas"]["KeyInput"]
    assert body["required"] == ["name"]
    assert "key" not in document["components"]["schemas"]["KeyOutput"]["properties"]
    assert {"managementToken", "consoleSession"} <= set(document["components"]["securitySchemes"])


def test_what_the_api_answers_is_what_the_schema_says(client: Client, owner: ApiClient) -> None:
    document = client.get("/api/schema/").json()
    budgets = [{"limit_usd": "1.50", "window": "day"}]
    team = owner.post("/teams", {"name": "search", "budgets": budgets}).json()
    key = owner.post("/keys", {"name": "x", "team": "search", "budgets": budgets, "tags": ["a"]}).json()
    answers = {
        "TeamOutput": team,
        "KeyCreated": key,
        "KeyOutput": owner.get(f"/keys/{key['id']}").json(),
        "BudgetOutput": owner.get("/budgets").json()["data"][0],
        "CustomerOutput": owner.put("/customers/eve", {"team": "search", "rpm": 1}).json(),
        "TokenCreated": owner.post("/tokens", {"name": "x", "role": "analyst"}).json(),
        "UserCreated": owner.post("/users", {"email": "a@example.org", "role": "analyst"}).json(),
        "AuditOutput": owner.get("/audit").json()["data"][0],
        "Problem": owner.get("/keys?limit=0").json(),
    }
    for name, answer in answers.items():
        schema = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
        jsonschema.Draft202012Validator(schema).validate(answer)
        assert set(answer) == set(document["components"]["schemas"][name]["properties"]), name


def test_the_page_needs_no_script_no_style_attribute_and_no_other_host(client: Client) -> None:
    response = client.get("/api/docs/")
    page = response.content.decode()
    assert "/api/v1/keys/{key_id}/revoke" in page
    for forbidden in ("<script", "style=", "<style", "http://", "https://", " onclick"):
        assert forbidden not in page
    policy = response["Content-Security-Policy"]
    assert "unsafe" not in policy
    assert "default-src 'self'" in policy


def test_the_document_names_no_installation() -> None:
    text = json.dumps(reference.document())
    assert "127.0.0.1" not in text
    assert "servers" not in reference.document()


def test_no_two_operations_share_a_name_and_the_library_has_nothing_to_warn_of(client: Client) -> None:
    GENERATOR_STATS.reset()
    made = SchemaGenerator().get_schema(request=None, public=True)
    assert not GENERATOR_STATS._warn_cache
    assert not GENERATOR_STATS._error_cache
    named = {m["operationId"] for methods in made["paths"].values() for m in methods.values()}
    assert {"keys_list", "keys_retrieve", "models_list", "models_retrieve"} <= named
    assert "keys_retrieve_2" not in named


def test_the_document_lists_the_proxys_paths_and_no_path_that_is_not_served(client: Client) -> None:
    document = client.get("/api/schema/").json()
    listed = {
        (method.upper(), path)
        for path, methods in document["paths"].items()
        for method in methods
        if not path.startswith("/api/")
    }
    served = {(row.method, path) for path, row in {**paths._POSTS, **paths._GETS}.items()}
    served |= {("GET", f"/{version}/models/{{model}}") for version in ("v1", "v1beta")}
    served |= {("POST", f"/v1beta/models/{{model}}:{call}") for call in paths._GEMINI_CALLS}
    served |= {(method, "/v1/responses/{response_id}") for method in ("GET", "DELETE")}
    served |= {("POST", "/v1/responses/{response_id}/cancel"), ("GET", "/v1/responses/{response_id}/input_items")}
    assert listed == served
    for method, path in listed:
        meaning = paths.find(path.replace("{model}", "gpt-4o"), {}, method=method)
        assert meaning is not None
        assert meaning.method == method, path
    schemes = document["components"]["securitySchemes"]
    used = {name for path, m in document["paths"].items() for op in m.values() for s in op["security"] for name in s}
    assert used <= set(schemes)
    assert 'id="proxy"' in client.get("/api/docs/").content.decode()
