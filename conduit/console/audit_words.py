"""The audit log in words: what an action is called, and what changed from what to what.

An action is `noun.verb`. What is not listed reads as its verb in the past and its noun, so a new action needs nothing
here unless that reads badly.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from conduit.core import wording
from conduit.core.money import MoneyError, parse_usd

WORDS = {
    "user.sign_in": "signed in",
    "user.sign_out": "signed out",
    "user.sign_in_failed": "failed to sign in",
    "user.locked_out": "was locked out",
    "user.create": "invited user",
    "user.password": "changed password",
    "token.create": "issued token",
    "budget.set": "set budgets",
    "budget.raise": "raised for a while",
    "budget.raise_end": "ended a raise",
    "attempt.resolve": "resolved attempt",
    "worker.release": "released leases",
    "catalogue.sync": "synced catalogue",
    "price.set": "set price",
    "prices.sync": "synced prices",
    "audit.export": "exported audit log",
    "usage.export": "exported usage",
    "bundle.export": "took a support bundle",
    "reply.repeat": "was shown a reply again",
    "model.update": "changed model",
}
PAST = {
    "add": "added",
    "begin": "began to rotate",
    "begin_rotation": "began to rotate",
    "canary": "started canary of",
    "set_share": "moved canary of",
    "share": "moved canary of",
    "update": "changed",
    "set": "set",
    "put": "changed",
    "send": "sent",
    "shrink": "shrank",
    "roll_back": "rolled back",
    "rollback": "rolled back",
    "verify": "verified",
    "apply": "applied",
    "deny": "denied",
    "begin_retire": "began to retire",
}
SHOWN = 3
LONGEST = 60
EMPTY: tuple[Any, ...] = (None, "", [], {})
MONEY = "_usd"


@dataclass(frozen=True, slots=True)
class Change:
    """`before` and `after` as they are read; empty for what is not told."""

    name: str
    before: str
    after: str


def did(action: str) -> str:
    """`rotated key` for `key.rotate`."""
    if action in WORDS:
        return WORDS[action]
    noun, _, verb = action.partition(".")
    return f"{_past(verb)} {noun.replace('_', ' ')}".strip()


def _past(verb: str) -> str:
    if verb in PAST:
        return PAST[verb]
    first, *rest = verb.split("_")
    past = PAST.get(first) or (f"{first}d" if first.endswith("e") else f"{first}ed")
    return " ".join([past, *rest])


def actions_like(text: str, known: list[str]) -> list[str]:
    """Those of `known` whose name or words hold the text."""
    wanted = text.casefold()
    return [action for action in known if wanted in action or wanted in did(action).casefold()]


def changes(before: Mapping[str, Any] | None, after: Mapping[str, Any] | None, name: str = "") -> list[Change]:
    """What differs, member by member, in the order in which it was told; not what the object's `name` says already."""
    old, new = before or {}, after or {}
    found = []
    for member in {**old, **new}:
        was, now = old.get(member), new.get(member)
        if (member in old and member in new and was == now) or (was in EMPTY and now in EMPTY):
            continue
        # A created or deleted object is named beside it.
        if member == "id" or (member == "name" and name in (was, now) and not (old and new)):
            continue
        title = member.removesuffix(MONEY).replace("_", " ")
        found.append(
            Change(title, _text(member, was) if member in old else "", _text(member, now) if member in new else "")
        )
    return found


def _text(name: str, value: Any) -> str:
    if value in EMPTY:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if name.endswith(MONEY):
        return _dollars(value)
    if name == "budgets" and isinstance(value, list):
        return _cut(", ".join(_budget(each) for each in value))
    if name == "targets" and isinstance(value, list):
        return _cut(", ".join(_target(each) for each in value))
    if isinstance(value, dict) and all(isinstance(each, str | int) for each in value.values()):
        return _cut(", ".join(f"{key} {each}" for key, each in value.items()))
    if isinstance(value, list) and all(isinstance(each, str | int) for each in value):
        return _cut(", ".join(str(each) for each in value))
    if isinstance(value, dict | list):
        return _cut(json.dumps(value, ensure_ascii=False))
    return _cut(str(value))


def _target(value: Any) -> str:
    if not isinstance(value, dict) or not {"provider", "model"} <= set(value):
        return str(value)
    return f"{value['model']} of {value['provider']}"


def _budget(value: Any) -> str:
    if not isinstance(value, dict) or "limit_usd" not in value:
        return str(value)
    window = value.get("window", "lifetime")
    soft = " (soft)" if value.get("kind") == "soft" else ""
    return f"{_dollars(value['limit_usd'])} {'in all' if window == 'lifetime' else f'per {window}'}{soft}"


def _dollars(value: Any) -> str:
    try:
        return wording.usd(parse_usd(str(value)))
    except MoneyError:
        return _cut(str(value))


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
