"""A credential's fields as callers give them: texts, objects where the kind says so, references to other places.

parse_fields(kind, secret=…, fields=…)     checked, by name; a Reference for {"from": "vault:…"}
check_value(spec, where, value)            one field's text in its stored form
posted(form, kind)                         the same from a posted page
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from conduit.core.errors import InvalidInput
from conduit.core.fields import nearest
from conduit.core.secret import Secret
from providers import google, workload_identity
from providers.adapters.registry import FieldSpec, ProviderKind
from providers.providers import header_problem
from providers.references import Reference, parse_reference

MAX_SECRET = 16_384
MAX_HEADERS = 32


def parse_fields(
    row: ProviderKind, *, secret: str | None = None, fields: Mapping[str, Any] | None = None
) -> dict[str, Secret]:
    """The kind's fields from either one secret or all by name. Raises InvalidInput naming the field."""
    specs = {spec.name: spec for spec in row.fields}
    first = next((spec.name for spec in row.fields if spec.secret), "")
    if secret is not None and fields is not None:
        raise InvalidInput("fields", "Give either secret or fields.", "ambiguous")
    given: Mapping[str, Any] = fields if fields is not None else {first: secret} if secret is not None and first else {}
    parsed: dict[str, Secret] = {}
    for name, value in given.items():
        where = "secret" if secret is not None else f"fields.{str(name)[:64]}"
        if name not in specs:
            raise InvalidInput(
                where, f"The kind {row.kind} has no such field.{nearest(str(name), specs)}", "unknown_field"
            )
        if (found := _field(specs[name], where, value)) is not None:
            parsed[name] = found
    for spec in row.fields:
        if spec.required and spec.name not in parsed:
            where = "secret" if spec.name == first and not fields else f"fields.{spec.name}"
            raise InvalidInput(where, f"This kind needs it: {spec.help}.", "required")
    _check_ways(row, parsed)
    return parsed


def _check_ways(row: ProviderKind, parsed: Mapping[str, Secret]) -> None:
    """Where a kind takes one of several sets of fields: exactly one of them, whole."""
    if not row.ways:
        return
    listed = ", or ".join(" and ".join(way) for way in row.ways)
    begun = [way for way in row.ways if any(name in parsed for name in way)]
    if len(begun) != 1:
        problem = "Give only one of" if begun else "Give one of"
        raise InvalidInput("fields", f"{problem}: {listed}.", "ambiguous" if begun else "required")
    for name in begun[0]:
        if name not in parsed:
            raise InvalidInput(f"fields.{name}", f"Give {listed}.", "required")


def _field(spec: FieldSpec, where: str, value: object) -> Secret | None:
    """None for an empty one."""
    if isinstance(value, Reference):
        return value
    if isinstance(value, Mapping) and set(value) == {"from"}:
        return parse_reference(where, value["from"])
    text = check_value(spec, where, value)
    return Secret(text) if text else None


def check_value(spec: FieldSpec, where: str, value: object) -> str:
    """The text as it is stored; empty for none. Raises InvalidInput(where, …) that never quotes the value."""
    if isinstance(value, Secret):
        value = value.reveal()
    if spec.shape:
        return _SHAPES[spec.shape](where, value)
    if not isinstance(value, str):
        raise InvalidInput(where, 'Must be a text, or {"from": REFERENCE}.', "invalid_text")
    return _plain(where, value.strip())


def _plain(where: str, text: str) -> str:
    if len(text) > MAX_SECRET:
        raise InvalidInput(where, f"Must have at most {MAX_SECRET} characters.", "invalid_length")
    if not text.isascii() or not text.isprintable():
        raise InvalidInput(where, "Holds a line break or a character outside ASCII.", "invalid_text")
    return text


def _object(where: str, value: object) -> Mapping[str, Any] | None:
    """A JSON object, given as such or as its text; None for an empty text."""
    if isinstance(value, str):
        if not value.strip():
            return None
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise InvalidInput(where, "Must be a JSON object; this is not JSON.", "invalid_json") from None
    if not isinstance(value, Mapping):
        raise InvalidInput(where, "Must be a JSON object.", "invalid_type")
    return value


def _headers(where: str, value: object) -> str:
    found = _object(where, value)
    if not found:
        return ""
    if len(found) > MAX_HEADERS:
        raise InvalidInput(where, f"Must have at most {MAX_HEADERS} headers.", "invalid_length")
    for name, text in found.items():
        if problem := header_problem(str(name), text):
            raise InvalidInput(f"{where}.{str(name)[:64]}", problem, "invalid_header")
    return _plain(where, json.dumps(dict(found), separators=(",", ":")))


def _service_account(where: str, value: object) -> str:
    found = _object(where, value)
    if not found:
        return ""
    google.check_account(where, found)
    return _plain(where, json.dumps(dict(found), separators=(",", ":")))


def _credential_config(where: str, value: object) -> str:
    found = _object(where, value)
    if not found:
        return ""
    workload_identity.check_config(where, found)
    return _plain(where, json.dumps(dict(found), separators=(",", ":")))


def _attached(where: str, value: object) -> str:
    if value == "":
        return ""
    if value != "attached":
        raise InvalidInput(
            where, "Must be attached: the identity of the machine that Conduit runs on.", "invalid_choice"
        )
    workload_identity.check_attached(where)
    return value


_SHAPES = {
    "headers": _headers,
    "service_account": _service_account,
    "credential_config": _credential_config,
    "attached": _attached,
}


def posted(form: Mapping[str, str], row: ProviderKind) -> dict[str, Any]:
    """Inputs named `field-NAME` hold a value, `source-NAME` a reference; an empty one is none. For parse_fields."""
    found: dict[str, Any] = {}
    for spec in row.fields:
        text, reference = form.get(f"field-{spec.name}", ""), form.get(f"source-{spec.name}", "")
        if text.strip() and reference.strip():
            raise InvalidInput(f"fields.{spec.name}", "Give either a value or a reference.", "ambiguous")
        if reference.strip():
            found[spec.name] = {"from": reference}
        elif text.strip():
            found[spec.name] = Secret(text)
    return found
