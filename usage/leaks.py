"""Leak response, first question: is what was found out there ours, and does it still work?

    identify(text, actor=…)   every virtual key, management token and provider secret in a text

Nothing that was pasted is stored or shown again: a finding carries a public id or a hint. Each call leaves an audit
entry of what it found. Whose it is is told only to actors who may see that object; that it is ours is told to all who
may ask, because whoever holds the text could try it anyway.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from django.db import transaction

from conduit.access import permissions, tokens
from conduit.access.models import ManagementToken
from conduit.core import audit, raw_keys
from conduit.core.actor import COMMAND_LINE, Actor
from conduit.core.clock import now
from conduit.core.errors import InvalidInput
from conduit.core.raw_keys import Occurrence
from conduit.core.secret import Secret
from keys import leaks as key_leaks
from keys.leaks import KnownKey
from keys.representation import state_of
from providers import leaks as provider_leaks
from providers.leaks import KnownSecret
from providers.models import VersionState
from providers.secret_shapes import Lookalike, lookalikes

MOST = 100
LONGEST = 65_536
Kind = Literal["virtual_key", "management_token", "provider_secret"]
_SEPARATORS = re.compile(r"[\s\"'`,;(){}\[\]<>|\\]+")
_OPEN = frozenset({VersionState.PENDING, VersionState.VERIFYING, VersionState.ACTIVE, VersionState.RETIRING})


@dataclass(frozen=True, slots=True)
class Owner:
    """The object a secret belongs to. `version` counts a key's secrets; of a credential it is the version's number. Who
    sees no more of keys than their names is told neither it nor the state."""

    id: str
    name: str
    state: str | None
    team: str | None
    version: int | None
    provider: str | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """`live`: it works now; None where nobody can tell. `owner` None: not ours, or not this actor's to see."""

    kind: Kind
    hint: str
    public_id: str
    well_formed: bool
    ours: bool
    live: bool | None
    detail: str
    owner: Owner | None = None

    def outward(self) -> dict[str, Any]:
        owner = self.owner
        return {
            "kind": self.kind,
            "hint": self.hint,
            "public_id": self.public_id or None,
            "well_formed": self.well_formed,
            "ours": self.ours,
            "live": self.live,
            "detail": self.detail,
            "object": None
            if owner is None
            else {
                "id": owner.id,
                "name": owner.name,
                "state": owner.state,
                "team": owner.team,
                "version": owner.version,
                "provider": owner.provider,
            },
        }


def identify(text: str, *, actor: Actor) -> list[Found]:
    """What the text holds, in the order: our keys and tokens as they stand, then provider secrets.

    Raises Forbidden, and InvalidInput for an empty text, one that is too long or holds too many keys.
    """
    permissions.demand(actor, "keys", write=False)
    if not text.strip():
        raise InvalidInput("text", "Paste a key, or any text that holds keys.", "required")
    if len(text) > LONGEST:
        raise InvalidInput(
            "text", f"Must have at most {LONGEST} characters; scan files with `conduit secrets scan`.", "too_large"
        )
    with transaction.atomic():
        found = [*_ours(text, actor), *_providers(text, actor)]
        audit.record(
            actor=actor,
            action="leak.identify",
            kind="leak",
            id=next((one.owner.id for one in found if one.owner), ""),
            name=next((one.owner.name for one in found if one.owner), ""),
            after={"found": [_logged(one) for one in found]},
        )
    return found


def _logged(found: Found) -> dict[str, Any]:
    owner = found.owner
    return {"kind": found.kind, "hint": found.hint, "ours": found.ours, "object": owner.id if owner else None}


def _ours(text: str, actor: Actor) -> list[Found]:
    once = list({one.raw: one for one in raw_keys.occurrences(text)}.values())
    if len(once) > MOST:
        raise InvalidInput("text", f"Holds more than {MOST} keys; scan files with `conduit secrets scan`.", "too_many")
    return of_occurrences(once, actor)


def of_occurrences(given: Sequence[Occurrence], actor: Actor) -> list[Found]:
    """One finding for each."""
    keys = key_leaks.whose([one.raw for one in given])
    return [
        _malformed(one)
        if not one.well_formed
        else _key(one, known, actor)
        if one.kind == raw_keys.VIRTUAL_KEY
        else _token(one, actor)
        for one, known in zip(given, keys, strict=True)
    ]


def of_match(match: Occurrence | Lookalike) -> Found:
    """Of one finding of a scan at the command line. Nothing is logged: the files are the caller's own."""
    if isinstance(match, Occurrence):
        return of_occurrences([match], COMMAND_LINE)[0]
    (known,) = provider_leaks.whose([match.secret])
    return _credential(match.secret, known) if known else guess(match.secret, match.title)


def _kind(one: Occurrence) -> Kind:
    return "virtual_key" if one.kind == raw_keys.VIRTUAL_KEY else "management_token"


def _malformed(one: Occurrence) -> Found:
    detail = "Its checksum is wrong: a typing error, or made up. It opens nothing."
    return Found(_kind(one), one.hint, "", False, False, False, detail)


def _stranger(one: Occurrence) -> Found:
    detail = "Well-formed, but not of this installation, or its key was deleted. It opens nothing here."
    return Found(_kind(one), one.hint, one.public_id, True, False, False, detail)


def _key(one: Occurrence, known: KnownKey | None, actor: Actor) -> Found:
    if known is None:
        return _stranger(one)
    key, seen = known.key, permissions.in_scope(actor, known.key.team_id)
    if known.live:
        detail = "It works now: replace its secret, or revoke the key."
    elif permissions.names_only(actor):
        detail = "It is refused."
    elif state_of(key, now()) == "active":
        detail = "An earlier secret of a key that is in use: it is refused."
    else:
        detail = f"The key is {state_of(key, now())}: it is refused."
    team = key.team.name if key.team else None
    owner = Owner(str(key.id), key.name, state_of(key, now()), team, known.version)
    if permissions.names_only(actor):
        owner = replace(owner, state=None, version=None)
    if not seen:
        detail += " It belongs to a team that is not yours; tell an owner or admin."
    return Found("virtual_key", one.hint, one.public_id, True, True, known.live, detail, owner if seen else None)


def _token(one: Occurrence, actor: Actor) -> Found:
    token = tokens.whose(one.raw.reveal())
    if token is None:
        return _stranger(one)
    live = tokens.is_live(token)
    detail = "It works now: revoke the token." if live else "The token is revoked or has expired: it is refused."
    seen = permissions.may(actor, "tokens", write=False) and permissions.in_scope(actor, token.team_id)
    if not seen:
        detail += " Tokens are not yours to see; tell an owner or admin."
    owner = Owner(str(token.id), token.name, _token_state(token), None, None)
    return Found("management_token", one.hint, one.public_id, True, True, live, detail, owner if seen else None)


def _token_state(token: ManagementToken) -> str:
    if token.revoked_at is not None:
        return "revoked"
    return "active" if tokens.is_live(token) else "expired"


def _providers(text: str, actor: Actor) -> list[Found]:
    shaped = {one.secret: one.title for one in lookalikes(text)}
    candidates = [Secret(part) for part in _parts(text) if not raw_keys.PATTERN.search(part)]
    everything = list(dict.fromkeys([*shaped, *candidates]))
    if not permissions.may(actor, "credentials", write=False):
        return [guess(secret, title) for secret, title in shaped.items()]
    found = []
    for secret, known in zip(everything, provider_leaks.whose(everything), strict=True):
        if known is not None:
            found.append(_credential(secret, known))
        elif secret in shaped:
            found.append(guess(secret, shaped[secret]))
    return found


def _parts(text: str) -> Iterable[str]:
    """What in the text could be a secret: the whole of it, its words, and what follows `name=` or `name:` in a word."""
    words = [word for word in _SEPARATORS.split(text) if len(word) >= provider_leaks.SHORTEST]
    tails = [word[place + 1 :] for word in words for place, sign in enumerate(word[:64]) if sign in "=:"]
    parts = [text.strip(), *words, *tails]
    return [part for part in dict.fromkeys(parts) if len(part) >= provider_leaks.SHORTEST]


def guess(secret: Secret, title: str) -> Found:
    """A secret by its look alone."""
    detail = f"Looks like {title}, but is none that is stored here. If it is real, revoke it at its vendor."
    return Found("provider_secret", secret.hint(), "", True, False, None, detail)


def _credential(secret: Secret, known: KnownSecret) -> Found:
    version, credential = known.version, known.version.credential
    live = version.state in _OPEN
    detail = (
        f"The {known.field} of this credential: rotate it, then revoke the old secret at the provider."
        if live
        else f"The {known.field} of a {version.state} version: nothing here uses it. Revoke it at the provider."
    )
    owner = Owner(str(credential.id), credential.name, version.state, None, version.number, credential.provider.name)
    return Found("provider_secret", secret.hint(), "", True, True, live, detail, owner)
