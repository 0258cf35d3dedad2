"""The form that creates a key: what was typed, as the fields of `POST /api/v1/keys`, and what is wrong with it.

Rules live in keys.constraints and keys.budget_specs; here text becomes values, and each refusal finds its field.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any

from django.http import QueryDict

from conduit.console import budget_form
from conduit.core import clock, wording
from conduit.core.errors import InvalidInput
from keys import constraints
from keys.budget_specs import BudgetSpec

PLAIN = ("name", "owner", "rpm", "tpm", "max_parallel", "max_output_tokens", "expires_at", "tags", "models")
NUMBERS = ("rpm", "tpm", "max_parallel", "max_output_tokens")
ENDPOINTS = (
    ("chat", "Chat completions"),
    ("messages", "Messages (Anthropic)"),
    ("generate", "Generate content (Gemini)"),
    ("embeddings", "Embeddings"),
    ("models", "List of models"),
)
LABELS = {
    "name": "Name",
    "team": "Team",
    "owner": "Owner",
    "tags": "Tags",
    "models": "Other models",
    "ip_allowlist": "Source addresses",
    "rpm": "Requests / min",
    "tpm": "Tokens / min",
    "max_parallel": "Parallel",
    "max_output_tokens": "Output cap",
    "expires_at": "Until when",
    "budget-0": "Limit",
    "budget-1": "Second limit",
    "budget-2": "Third limit",
}


@dataclass(slots=True)
class KeyForm:
    """`values` as typed, `body` as the API takes it, `errors` by the id of the field on the page."""

    values: dict[str, str]
    budgets: list[dict[str, str]]
    routes: list[str]
    endpoints: list[str]
    body: dict[str, Any] = field(default_factory=dict)
    specs: list[BudgetSpec] = field(default_factory=list)
    errors: dict[str, str] = field(default_factory=dict)


def blank(route: str = "") -> KeyForm:
    """An empty form; the preview reads it too."""
    values = dict.fromkeys((*PLAIN, "team", "ip_allowlist"), "")
    form = KeyForm(values, [budget_form.blank_row()], [route] if route else [], [])
    form.body = {"name": "", **({"models": [route]} if route else {})}
    return form


def read(post: QueryDict) -> KeyForm:
    """The form as sent. Wrong fields stand in `errors`; the others are in `body` and `specs`."""
    form = KeyForm(
        {name: post.get(name, "").strip()[:4000] for name in (*PLAIN, "team", "ip_allowlist")},
        budget_form.typed_rows(post),
        post.getlist("route")[:256],
        post.getlist("endpoint")[:32],
    )
    _put(form, "name", form.values["name"])
    if form.values["owner"]:
        _put(form, "owner", form.values["owner"])
    models = [*form.routes, *_split(form.values["models"])]
    lists = {"models": models, "endpoints": form.endpoints}
    lists |= {name: _split(form.values[name]) for name in ("ip_allowlist", "tags")}
    for name, members in lists.items():
        if members:
            _put(form, name, members)
    for name in NUMBERS:
        if form.values[name]:
            _put(form, name, _number(form.values[name]))
    if form.values["expires_at"]:
        _put(form, "expires_at", _midnight(form.values["expires_at"]))
    if form.values["team"]:
        form.body["team"] = form.values["team"]
    own = budget_form.read(form.budgets)
    form.specs = own.specs
    form.errors |= own.errors
    if own.items:
        form.body["budgets"] = own.items
    return form


def _put(form: KeyForm, name: str, value: object) -> None:
    try:
        constraints.parse_field(name, value)
    except InvalidInput as error:
        form.errors.setdefault(name, error.detail)
        return
    form.body[name] = value


def _split(text: str) -> list[str]:
    return [part.strip() for part in re.split(r"[,\n]", text) if part.strip()]


def _number(text: str) -> object:
    plain = budget_form.plain_amount(text)
    return int(plain) if plain.isascii() and plain.isdigit() and len(plain) < 19 else text


def _midnight(text: str) -> str:
    try:
        day = date.fromisoformat(text)
    except ValueError:
        return text
    return clock.rfc3339(datetime(day.year, day.month, day.day, tzinfo=UTC))


def _each(window: str) -> str:
    return "in all" if window == "lifetime" else f"each {window}"


def preview(form: KeyForm) -> dict[str, Any]:
    """What the key would be allowed, in words."""
    amounts = [f"{wording.usd(spec.limit_nanos)} {_each(spec.window)} ({spec.kind})" for spec in form.specs]
    expires = form.body.get("expires_at")
    return {
        "budgets": amounts,
        "unset": any(row["error"] for row in form.budgets),
        "models": ", ".join(form.body.get("models", [])),
        "endpoints": ", ".join(form.body.get("endpoints", [])),
        "addresses": ", ".join(form.body.get("ip_allowlist", [])),
        "expires": f"{datetime.fromisoformat(expires):%d %b %Y}".lstrip("0") if expires else "",
        "rates": rates(form.body),
        "problems": [f"{LABELS.get(name, name)}: {detail}" for name, detail in form.errors.items() if name != "name"],
    }


def rates(limits: Mapping[str, Any]) -> str:
    """`300 requests and 400,000 tokens per minute, 20 parallel`."""
    parts = []
    if limits.get("rpm"):
        parts.append(f"{limits['rpm']:,} requests")
    if limits.get("tpm"):
        parts.append(f"{limits['tpm']:,} tokens")
    words = f"{' and '.join(parts)} per minute" if parts else ""
    if limits.get("max_parallel"):
        words += f"{', ' if words else ''}{limits['max_parallel']:,} parallel"
    return words


def same_as(form: KeyForm, address: str) -> list[dict[str, str]]:
    """The same key by curl, for what is on screen. Never with a real secret."""
    body = {"name": form.values["name"] or "NAME"} | {k: v for k, v in form.body.items() if k != "name"}
    text = json.dumps(body, indent=2, ensure_ascii=False)
    command = (
        f"curl {address}/api/v1/keys \\\n"
        '  -H "Authorization: Bearer $CONDUIT_TOKEN" \\\n'
        '  -H "Content-Type: application/json" \\\n'
        f"  -d {shlex.quote(text)}"
    )
    return [{"ident": "1", "title": "curl", "text": command}]
