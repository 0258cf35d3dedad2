"""The API reference: the OpenAPI document and a page that shows it, without a script and without another host.

Both are public: they are the same for every installation of a version and tell nothing about this one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe
from drf_spectacular.drainage import GENERATOR_STATS
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.views import APIView

from conduit.core import proxy_reference
from conduit.core.api import OneRenderer
from conduit.core.errors import NotFound

METHODS = ("get", "post", "put", "patch", "delete")


@cache
def document() -> dict[str, Any]:
    """The OpenAPI 3.1 document; made once per process."""
    generator = SchemaGenerator()  # type: ignore[no-untyped-call]  # the library is not typed
    with GENERATOR_STATS.silence():
        made: dict[str, Any] = generator.get_schema(request=None, public=True)  # type: ignore[no-untyped-call]
    return made


@cache
def _text() -> bytes:
    return json.dumps(document(), ensure_ascii=False, separators=(",", ":")).encode()


@require_safe
def schema(request: HttpRequest) -> HttpResponse:
    return HttpResponse(_text(), content_type="application/json")


@require_safe
def docs(request: HttpRequest) -> HttpResponse:
    return render(request, "core/reference.html", {"document": document(), "groups": groups()})


@cache
def groups() -> list[dict[str, Any]]:
    """Operations by resource: [{"name", "operations": [{"method", "path", "summary", "fields", "parameters", …}]}]."""
    found: dict[str, list[dict[str, Any]]] = {}
    for path, methods in document()["paths"].items():
        name = path.removeprefix("/api/v1/").split("/")[0] or proxy_reference.TAG
        for method in METHODS:
            if method in methods:
                found.setdefault(name, []).append(_operation(method, path, methods[method]))
    return [{"name": name, "operations": operations} for name, operations in sorted(found.items())]


def _operation(method: str, path: str, operation: dict[str, Any]) -> dict[str, Any]:
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
    good = {status: answer for status, answer in operation.get("responses", {}).items() if status.startswith("2")}
    status: str = next(iter(good), "")
    answer: dict[str, Any] = good.get(status, {})
    shown = answer.get("content", {}).get("application/json", {}).get("schema", {})
    return {
        "method": method.upper(),
        "path": path,
        "anchor": f"{method}{path}".replace("/", "-").replace("{", "").replace("}", "").strip("-"),
        "summary": operation.get("summary", ""),
        "parameters": operation.get("parameters", []),
        "fields": list(_fields(body)),
        "status": status,
        "answer": list(_fields(shown)),
    }


def _fields(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    resolved = _resolve(schema)
    required = resolved.get("required", [])
    for name, field in resolved.get("properties", {}).items():
        yield {
            "name": name,
            "type": _type(field),
            "required": name in required,
            "description": field.get("description", ""),
        }


def _resolve(schema: dict[str, Any]) -> dict[str, Any]:
    if "$ref" in schema:
        named: dict[str, Any] = document()["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
        return named
    return schema


def _type(field: dict[str, Any]) -> str:
    """One short text: `array of string`, `string or null`, the allowed names."""
    field = _resolve(field.get("allOf", [field])[0]) if "allOf" in field else field
    if "oneOf" in field or "anyOf" in field:
        return " or ".join(_type(part) for part in field.get("oneOf") or field["anyOf"])
    if "$ref" in field:
        named = _resolve(field)
        return _type(named) if "enum" in named else field["$ref"].rpartition("/")[2]
    if "enum" in field:
        return " | ".join(str(value) for value in field["enum"])
    kind = field.get("type", "any")
    if kind == "array":
        return f"array of {_type(field.get('items', {}))}"
    return " or ".join(kind) if isinstance(kind, list) else str(kind)


@extend_schema(exclude=True)
class Nowhere(APIView):
    """Every other path below /api/: 404 as a problem document, whoever asks."""

    authentication_classes = ()
    permission_classes = ()
    content_negotiation_class = OneRenderer

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        raise NotFound("There is no such path in this version of the API.")
