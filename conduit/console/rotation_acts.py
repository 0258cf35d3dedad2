"""What the rotation cockpit does: the form of a new secret, each step by hand, the rules, and the emergency."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse

from conduit.access.pages import go, page
from conduit.console import rotation_form, snippets
from conduit.console.cockpit_parts import revocable
from conduit.console.credential_pages import BOTH, crumbs, find_credential
from conduit.core import clock, wording
from conduit.core import live as live_processes
from conduit.core.actor import Actor
from conduit.core.errors import ConfigurationError, Conflict, InvalidInput, NotFound
from providers import rotation as rotations
from providers.credentials import routes_that_need
from providers.models import Credential, CredentialVersion, Rotation, RotationState, VersionState
from providers.providers import kind_of
from providers.secret_fields import posted
from providers.versions import latest, standing
from providers.views import error_of, labels, refused, secret_fields
from usage import version_use
from usage.version_use import Figures, Live


def _back(request: HttpRequest, credential: Credential) -> HttpResponse:
    return go(request, reverse("credential", args=[credential.id]))


# --- a new secret --------------------------------------------------------------------------------------------------


@page("credentials", write=True, methods=BOTH)
def credential_rotate(request: HttpRequest, actor: Actor, credential_id: UUID) -> HttpResponse:
    """The form; sent rightly it leads to the cockpit, sent wrongly it answers with itself (422) and all serves on."""
    credential = find_credential(credential_id)
    row = kind_of(credential.provider)
    under_way = rotations.under_way(credential)
    if under_way is not None:
        raise Conflict(standing(credential, under_way))
    values = rotation_form.typed(request.POST) if request.method == "POST" else rotation_form.blank()
    values |= {f"field-{s.name}": request.POST.get(f"field-{s.name}", "")[:4000] for s in row.fields if not s.secret}
    context = {
        "crumbs": crumbs(credential, "Rotate"),
        "credential": credential,
        "values": values,
        "labels": labels(row) | rotation_form.LABELS,
        "secret_fields": secret_fields(row),
        "errors": {},
        "same_as": _same_as(request, credential),
        "first": not any(version.state == VersionState.ACTIVE for version in credential.versions.all()),
        **_present(credential),
    }
    if request.method != "POST":
        return render(request, "providers/credential_rotate.html", context)
    try:
        begun = rotations.begin(
            credential,
            actor=actor,
            fields=posted(request.POST, row),
            canary=None if context["first"] else rotation_form.canary(values),
            overlap_seconds=rotation_form.overlap(values),
            reason=values["reason"],
            **rotation_form.extras(values),
        )
    except (InvalidInput, Conflict, ConfigurationError) as error:
        found = rotation_form.placed(error) if isinstance(error, InvalidInput) else error
        context["errors"] = error_of(found, row.fields)
        return refused(request, "providers/credential_rotate.html", context)
    messages.success(request, _begun(begun))
    return _back(request, credential)


def _begun(rotation: Rotation) -> str:
    number = rotation.new.number
    if rotation.state == RotationState.CANARY:
        return f"v{number} is sealed and verified; it gets {rotation.new.share} % of the requests."
    return f"v{number} is sealed, verified and active."


def _present(credential: Credential) -> dict[str, Any]:
    """What moves when the new secret takes over: requests of the last ten minutes."""
    recent = version_use.recent([credential.id], clock.now() - version_use.WINDOW).get(credential.id, 0)
    active = next((one for one in credential.versions.all() if one.state == VersionState.ACTIVE), None)
    newest = max((one.number for one in credential.versions.all()), default=0)
    return {"recent": recent, "active": active, "next_number": newest + 1}


def _same_as(request: HttpRequest, credential: Credential) -> list[dict[str, str]]:
    base = f"{snippets.address(request)}/api/v1/credentials/{credential.id}/rotate"
    body = (
        '{"secret": "\'"$NEW_SECRET"\'", "reason": "quarterly", '
        '"canary": {"steps": [1, 10], "step_seconds": 600, "automatic": true}, "overlap_seconds": 86400}'
    )
    headers = '-H "Authorization: Bearer $CONDUIT_TOKEN" -H "Content-Type: application/json"'
    name = f"{credential.provider.name}/{credential.name}"
    cli = f"printenv NEW_SECRET | conduit credentials rotate {name} \\\n  --reason quarterly --canary 1,10 --automatic"
    return [
        {"ident": "1", "title": "curl", "text": f"curl {base} \\\n  {headers} \\\n  -d '{body}'"},
        {"ident": "2", "title": "CLI", "text": cli},
    ]


# --- single steps --------------------------------------------------------------------------------------------------


def _share(request: HttpRequest, credential: Credential, actor: Actor) -> str:
    text = request.POST.get("share", "")
    if not (text.isascii() and text.isdigit() and len(text) < 4):
        raise InvalidInput("share", "Must be a whole number from 0 to 100.", "invalid_number")
    done = rotations.set_share(credential, actor=actor, share=int(text))
    if done.state == RotationState.CANARY:
        return f"v{done.new.number} gets {done.new.share} % of the requests."
    return f"v{done.new.number} is active."


def _promote(request: HttpRequest, credential: Credential, actor: Actor) -> str:
    done = rotations.promote(credential, actor=actor)
    kept = f"; v{done.old.number} is kept for a way back" if done.old and done.ended_at is None else ""
    return f"v{done.new.number} is active{kept}."


def _roll_back(request: HttpRequest, credential: Credential, actor: Actor) -> str:
    done = rotations.roll_back(credential, actor=actor)
    old = f"v{done.old.number} is active again" if done.old else "Nothing serves"
    return f"{old}; v{done.new.number} is revoked and its secret destroyed."


def _finish(request: HttpRequest, credential: Credential, actor: Actor) -> str:
    done = rotations.finish(credential, actor=actor)
    old = f"v{done.old.number}" if done.old else "The old version"
    return f"{old} is retired and its secret destroyed here. Revoke it at the provider when the light is green."


def _hold(request: HttpRequest, credential: Credential, actor: Actor) -> str:
    done = rotations.change_rules(credential, actor=actor, changes={"automatic": False})
    return f"v{done.new.number} stays at {done.new.share} % until somebody moves it."


def _follow(request: HttpRequest, credential: Credential, actor: Actor) -> str:
    done = rotations.change_rules(credential, actor=actor, changes={"automatic": True})
    return f"v{done.new.number} moves on by its rules."


Step = Callable[[HttpRequest, Credential, Actor], str]
STEPS: dict[str, Step] = {
    "share": _share,
    "promote": _promote,
    "roll-back": _roll_back,
    "finish": _finish,
    "hold": _hold,
    "follow": _follow,
}


@page("credentials", write=True, methods=("POST",))
def credential_step(request: HttpRequest, actor: Actor, credential_id: UUID, step: str) -> HttpResponse:
    """One step by hand. A step out of order is a page that names the state (409)."""
    act = STEPS.get(step)
    if act is None:
        raise NotFound("")
    credential = find_credential(credential_id)
    try:
        messages.success(request, f"{credential.name}: {act(request, credential, actor)}")
    except InvalidInput as error:
        messages.error(request, f"{error.field}: {error.detail} Nothing was changed.")
    return _back(request, credential)


@page("credentials", write=True, methods=BOTH)
def credential_rules(request: HttpRequest, actor: Actor, credential_id: UUID) -> HttpResponse:
    """The rules of a canary; once the new version is active, only how long the old one is kept."""
    credential = find_credential(credential_id)
    rotation = latest(credential)
    if rotation is None or rotation.ended_at is not None:
        raise Conflict(standing(credential, rotation))
    canary = rotation.state == RotationState.CANARY
    context = {
        "crumbs": crumbs(credential, "Rules"),
        "credential": credential,
        "rotation": rotation,
        "canary": canary,
        "labels": rotation_form.LABELS,
        "errors": {},
        "values": rotation_form.of_rotation(rotation),
    }
    if request.method != "POST":
        return render(request, "providers/credential_rules.html", context)
    context["values"] = values = rotation_form.typed(request.POST)
    try:
        seconds = rotation_form.overlap(values)
        if canary:
            changes = {**rotation_form.canary_rules(values), "overlap_seconds": seconds}
            rotations.change_rules(credential, actor=actor, changes=changes)
        else:
            rotations.extend(credential, actor=actor, overlap_seconds=seconds)
    except InvalidInput as error:
        found = rotation_form.placed(error)
        context["errors"] = {found.field: found.detail}
        return render(request, "providers/credential_rules.html", context, status=422)
    messages.success(request, f"{credential.name}: the rules are changed.")
    return _back(request, credential)


# --- the emergency -------------------------------------------------------------------------------------------------


@page("credentials", write=True, methods=BOTH)
def credential_revoke(request: HttpRequest, actor: Actor, credential_id: UUID, number: int) -> HttpResponse:
    """One version, at once: says first in figures what that does; the credential's name must be typed."""
    credential = find_credential(credential_id)
    version = next((one for one in credential.versions.all() if one.number == number), None)
    if version is None:
        raise NotFound("")
    if request.method != "POST":
        if number not in revocable(list(credential.versions.all())):
            raise Conflict(f"v{number} of {credential.name} is {version.state}: its secret is destroyed already.")
        context = {
            "crumbs": crumbs(credential, f"Revoke v{number}"),
            "credential": credential,
            "leaked": version,
            "number_text": str(number),
            **_consequences(actor, credential, version),
        }
        return render(request, "providers/credential_revoke.html", context)
    if request.POST.get("confirm") != credential.name:
        raise Conflict(f"Type {credential.name} to confirm. Nothing was changed.")
    serving = rotations.revoke(credential, actor=actor, number=number)
    left = f"v{serving.number} serves." if serving else "Nothing serves: rotate it to a new secret."
    messages.success(request, f"v{number} of {credential.name} is revoked and its secret destroyed. {left}")
    return _back(request, credential)


def _consequences(actor: Actor, credential: Credential, version: CredentialVersion) -> dict[str, Any]:
    at = clock.now()
    figures = version_use.figures(actor, credential.id, at - version_use.WINDOW).get(version.number, Figures())
    said = version_use.live(live_processes.alive()).get(version.id, Live())
    others = [one for one in credential.versions.all() if one.id != version.id]
    heirs = (VersionState.ACTIVE, VersionState.RETIRING, VersionState.VERIFYING)
    heir = next((one for state in heirs for one in others if one.state == state), None)
    return {
        "requests": wording.plural(figures.requests, "request"),
        "open": said.open,
        "heir": heir,
        "routes": routes_that_need(credential) if heir is None else [],
        "own_teams_only": actor.teams is not None,
    }
