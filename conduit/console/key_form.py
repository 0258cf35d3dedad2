"""The form of a key: what was typed, as the fields of `POST /api/v1/keys` or of a PATCH, and what is wrong with it.

Rules live in keys.constraints and keys.budget_specs; here text becomes values, and each refusal finds its field.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from functools import partial
from typing import Any

from django.http import QueryDict

from conduit.console import budget_form
from conduit.core import clock, wording
from conduit.core.actor import Actor
from conduit.core.errors import InvalidInput
from keys import constraints
from keys.budget_specs import BudgetSpec
from keys.delegation import find_parent, find_user
from keys.models import VirtualKey
from keys.teams import find_team

PLAIN = (
    "name",
    "owner",
    "kind",
    "user",
    "parent",
    "rpm",
    "tpm",
    "max_parallel",
    "max_output_tokens",
    "expires_at",
    "tags",
    "models",
)
NUMBERS = ("rpm", "tpm", "max_parallel", "max_output_tokens")
_TITLES = {
    "chat": "Chat completions",
    "messages": "Messages (Anthropic)",
    "generate": "Generate content (Gemini)",
    "models": "List of models",
}
# All there are: a form without one of them would take it away from the key that it is saved for.
ENDPOINTS = tuple((name, _TITLES.get(name, name.replace("_", " ").capitalize())) for name in constraints.ENDPOINTS)
LABELS = {
    "name": "Name",
    "team": "Team",
    "owner": "Owner",
    "kind": "Kind",
    "user": "User",
    "parent": "Parent key",
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

    def lists(self) -> dict[str, list[str]]:
        """The fields that have several members; an empty one limits nothing."""
        return {
            "models": [*self.routes, *_split(self.values["models"])],
            "endpoints": self.endpoints,
            "ip_allowlist": _split(self.values["ip_allowlist"]),
            "tags": _split(self.values["tags"]),
        }


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
    for name in ("owner", "kind"):
        if form.values[name]:
            _put(form, name, form.values[name])
    form.body |= {name: form.values[name] for name in ("user", "parent") if form.values[name]}
    for name, members in form.lists().items():
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


def of_key(key: VirtualKey, routes: Iterable[str], *, parent: str) -> KeyForm:
    """The form as the key is. `routes` can be ticked on the page, `parent` is how it names the one above."""
    ticked = [name for name in key.allowed_models if name in set(routes)]
    numbers = {name: getattr(key, name) for name in NUMBERS}
    values = {
        "name": key.name,
        "team": str(key.team_id or ""),
        "owner": key.owner,
        "kind": key.kind,
        "user": key.user.email if key.user else "",
        "parent": parent,
        "expires_at": f"{key.expires_at:%Y-%m-%d}" if key.expires_at else "",
        "tags": ", ".join(key.tags),
        "models": ", ".join(name for name in key.allowed_models if name not in ticked),
        "ip_allowlist": ", ".join(key.ip_allowlist),
        **{name: "" if number is None else str(number) for name, number in numbers.items()},
    }
    return KeyForm(values, [], ticked, list(key.allowed_endpoints))


def changes(form: KeyForm, shown: KeyForm) -> dict[str, Any]:
    """What was typed otherwise than it was shown; emptied fields become null or an empty list.

    What stays as it is is not judged again: an end that has passed may stay while something else is changed.
    """
    found: dict[str, Any] = {}
    for name in ("name", "team", "owner", "kind", "user", "parent", "expires_at", *NUMBERS):
        if form.values[name] == shown.values[name]:
            form.errors.pop(name, None)
        else:
            found[name] = form.body.get(name, "" if name in ("name", "owner") else None)
    for name, members in form.lists().items():
        if set(members) == set(shown.lists()[name]):
            form.errors.pop(name, None)
        else:
            found[name] = members
    return found


def with_places(body: Mapping[str, Any], actor: Actor) -> dict[str, Any]:
    """The same with the rows that `team`, `user` and `parent` name. Raises InvalidInput of that field."""
    found = dict(body)
    places: dict[str, Callable[[object], Any]] = {
        "team": find_team,
        "user": partial(find_user, actor=actor),
        "parent": partial(find_parent, actor=actor),
    }
    for name, find in places.items():
        try:
            found |= {name: find(found[name])} if name in found else {}
        except InvalidInput as error:
            raise InvalidInput(name, error.detail, error.code) from None
    return found


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
        "user": form.body.get("user", ""),
        "parent": form.body.get("parent", ""),
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
