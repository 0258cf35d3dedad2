"""Forms and acts on providers and credentials. The pages that show their usage are in conduit/console."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse

from conduit.access.pages import go, page
from conduit.core.actor import Actor
from conduit.core.errors import ConduitError, ConfigurationError, Conflict, InvalidInput, NameTaken, NotFound
from providers import credentials
from providers.adapters.registry import KINDS, REGION, FieldSpec, ProviderKind
from providers.models import Credential, Provider
from providers.onboarding import NewCredential, add_with_credential, pattern_routes
from providers.providers import SANDBOX, kind_of, update_provider
from providers.secret_fields import posted
from providers.vault import Unreadable
from providers.verification import VerificationFailed

SOON = timedelta(days=14)
BOTH = ("GET", "HEAD", "POST")
LABELS = {
    "name": "Name",
    "base_url": "Base URL",
    "region": "Region",
    "credential": "Name of the credential",
    "weight": "Weight",
}


def refused(request: HttpRequest, template: str, context: dict[str, Any]) -> HttpResponse:
    """The form again, or only its list of errors where htmx asked: then what was typed, a secret too, stays typed."""
    if request.headers.get("HX-Request"):
        template = "parts/errors.html"
    return render(request, template, context, status=422)


def error_of(error: ConduitError, fields: tuple[FieldSpec, ...]) -> dict[str, str]:
    """The refusal under the id of the field on the page; a provider's own words are quoted as such."""
    if not isinstance(error, InvalidInput):
        return {"name" if isinstance(error, NameTaken) else "": str(error)}
    place = error.field
    if place == "secret":
        first = next((spec.name for spec in fields if spec.secret), "")
        place = f"field-{first}" if first else ""
    elif place == "fields":
        place = f"field-{fields[0].name}" if fields else ""
    elif place.startswith("fields."):
        place = f"field-{place.removeprefix('fields.').partition('.')[0]}"
    elif place.startswith("options."):
        place = f"option-{place.removeprefix('options.').partition('.')[0]}"
    detail = error.detail
    if isinstance(error, VerificationFailed):
        said = "The provider answered" if error.status else "The test failed"
        detail = f"{said}: {detail} {error.guidance}".strip()
    return {place: detail}


def labels(row: ProviderKind) -> dict[str, str]:
    """What the form calls its fields."""
    own = {f"field-{spec.name}": _title(spec) for spec in row.fields}
    return LABELS | own | {f"option-{spec.name}": _title(spec) for spec in row.options}


def _title(spec: FieldSpec) -> str:
    return spec.name.replace("_", " ").capitalize().replace("Api ", "API ")


def secret_fields(row: ProviderKind) -> list[dict[str, Any]]:
    """What templates/providers/secret_fields.html asks for."""
    return [
        {"name": spec.name, "title": _title(spec), "secret": spec.secret, "required": spec.required, "help": spec.help}
        for spec in row.fields
    ]


def _options(row: ProviderKind, *, needed: bool) -> list[dict[str, str]]:
    return [
        {"name": spec.name, "title": _title(spec), "help": spec.help} for spec in row.options if spec.required is needed
    ]


def _ways(row: ProviderKind) -> str:
    """Of which fields exactly one set is given, in the form's words; empty where there is one way only."""
    titles = {spec.name: _title(spec) for spec in row.fields}
    return ", or ".join(" with ".join(titles[name] for name in way) for way in row.ways)


# --- providers -----------------------------------------------------------------------------------------------------


@page("providers", write=True, methods=BOTH)
def provider_create(request: HttpRequest, actor: Actor) -> HttpResponse:
    """First which kind, then its form. The provider and its credential are saved together or not at all."""
    row = KINDS.get(request.GET.get("kind", ""))
    crumbs = [{"title": "Providers", "url": reverse("providers")}, {"title": "Add provider"}]
    if row is None:
        q = request.GET.get("q", "").strip()[:200]
        return render(request, "providers/kinds.html", {"crumbs": crumbs, "kinds": _kinds(q), "q": q})
    values = _typed(request, row) if request.method == "POST" else {"name": row.kind, "credential": "main"}
    context = {
        "crumbs": crumbs,
        "kind": row,
        "values": values,
        "labels": labels(row),
        "secret_fields": secret_fields(row),
        "ways": _ways(row),
        "needed_options": _options(row, needed=True),
        "other_options": _options(row, needed=False),
        "base_url_required": not row.base_url,
        "region_required": REGION in row.base_url,
        "patterns": pattern_routes(row),
        "errors": {},
    }
    if request.method != "POST":
        return render(request, "providers/create.html", context)
    try:
        provider = add_with_credential(
            actor=actor,
            provider=_provider_values(values, row),
            credential=NewCredential(values["credential"], posted(request.POST, row)),
            with_routes=bool(values["routes"]),
        )
    except (InvalidInput, Conflict, ConfigurationError) as error:
        context["errors"] = error_of(error, row.fields)
        return refused(request, "providers/create.html", context)
    messages.success(request, f"{provider.name} took the credential and is ready. Next: a route to it, or a key.")
    return go(request, reverse("provider-detail", args=[provider.id]))


def _kinds(q: str) -> list[dict[str, Any]]:
    """Every kind one can add, by title; of a filter each word must be in what is shown of it, or in its name."""
    found = [
        {
            "kind": row.kind,
            "title": row.title,
            "words": f"{row.base_url or 'an address of your own'}{', key ' + row.key_hint if row.key_hint else ''}",
        }
        for row in sorted(KINDS.values(), key=lambda row: row.title.lower())
        if row.kind != SANDBOX
    ]
    return [one for one in found if all(word in " ".join(one.values()).lower() for word in q.lower().split())]


def _typed(request: HttpRequest, row: ProviderKind) -> dict[str, str]:
    """What was typed, without secrets: those are never written into a page again."""
    names = ["name", "base_url", "region", "credential", "routes", *(f"option-{spec.name}" for spec in row.options)]
    names += [f"field-{spec.name}" for spec in row.fields if not spec.secret]
    names += [f"source-{spec.name}" for spec in row.fields]
    return {name: request.POST.get(name, "").strip()[:4000] for name in names}


def _provider_values(values: Mapping[str, str], row: ProviderKind) -> dict[str, Any]:
    given: dict[str, Any] = {"name": values["name"], "kind": row.kind}
    given |= {name: values[name] for name in ("base_url", "region") if values[name]}
    options = {spec.name: _option(spec.name, values.get(f"option-{spec.name}", "")) for spec in row.options}
    given["options"] = {name: value for name, value in options.items() if value != ""}
    return given


def _option(name: str, text: str) -> Any:
    """Options that are objects are typed as JSON."""
    if not text.startswith("{"):
        return text
    try:
        return json.loads(text)
    except ValueError:
        raise InvalidInput(f"options.{name}", "Is not valid JSON.") from None


def _provider(provider_id: UUID) -> Provider:
    provider = Provider.objects.filter(id=provider_id).first()
    if provider is None:
        raise NotFound("")
    return provider


@page("providers", write=True, methods=("POST",))
def provider_test(request: HttpRequest, actor: Actor, provider_id: UUID) -> HttpResponse:
    """One real call with each enabled credential."""
    provider = _provider(provider_id)
    own = list(provider.credentials.filter(enabled=True).select_related("provider"))
    for credential in own:
        try:
            verified = credentials.verify(credential, actor=actor)
        except (VerificationFailed, Unreadable) as error:
            detail = error.detail if isinstance(error, VerificationFailed) else str(error)
            messages.error(request, f"{credential.name}: {detail}")
        else:
            messages.success(request, f"{credential.name}: accepted in {verified.latency_ms} ms.")
    if not own:
        messages.error(request, "There is no enabled credential to test with.")
    return go(request, reverse("provider-detail", args=[provider.id]))


@page("providers", write=True, methods=("POST",))
def provider_switch(request: HttpRequest, actor: Actor, provider_id: UUID) -> HttpResponse:
    enabled = request.POST.get("enabled") == "yes"
    provider = update_provider(_provider(provider_id), actor=actor, changes={"enabled": enabled})
    words = "takes requests again." if enabled else "is disabled: routes go to their next target."
    messages.success(request, f"{provider.name} {words}")
    return go(request, reverse("provider-detail", args=[provider.id]))


# --- credentials ---------------------------------------------------------------------------------------------------


def credential_rows(own: list[Credential], at: datetime) -> list[dict[str, Any]]:
    """What a page may show of credentials: hints and states, never a secret."""
    rows = []
    for credential in own:
        version, red = credentials.active(credential), credentials.problem(credential)
        ends = credential.expires_at
        rows.append(
            {
                "credential": credential,
                "hint": credentials.hint(credential),
                "version": version.number if version else None,
                "kek_id": version.kek_id if version else "",
                "unreadable": f"{red.reason} {red.fix}" if red else "",
                "age": at - (version.created_at if version else credential.created_at),
                "expires_soon": bool(ends and ends - at < SOON),
            }
        )
    return rows


@page("credentials", write=True, methods=BOTH)
def credential_create(request: HttpRequest, actor: Actor) -> HttpResponse:
    """For one provider; without one the page asks which."""
    crumbs = [{"title": "Credentials", "url": reverse("credentials")}, {"title": "Add credential"}]
    try:
        provider = _provider(UUID(request.GET.get("provider", "")))
    except ValueError:
        choice: dict[str, Any] = {"crumbs": crumbs, "providers": Provider.objects.order_by("name")}
        return render(request, "providers/credential_pick.html", choice)
    row = kind_of(provider)
    names = ["name", "weight", "account", "expires_at", *(f"field-{s.name}" for s in row.fields if not s.secret)]
    names += [f"source-{spec.name}" for spec in row.fields]
    values = {name: request.POST.get(name, "").strip()[:4000] for name in names}
    context = {
        "crumbs": crumbs,
        "provider": provider,
        "values": values,
        "labels": labels(row) | {"account": "Account", "expires_at": "Expires on"},
        "secret_fields": secret_fields(row),
        "errors": {},
    }
    if request.method != "POST":
        return render(request, "providers/credential_create.html", context)
    try:
        credential = credentials.add_credential(
            provider,
            actor=actor,
            name=values["name"],
            fields=posted(request.POST, row),
            **credential_settings(values),
        )
    except (InvalidInput, Conflict, ConfigurationError) as error:
        context["errors"] = error_of(error, row.fields)
        return refused(request, "providers/credential_create.html", context)
    messages.success(request, f"{provider.name} took {credential.name}; it is sealed and in use.")
    return go(request, reverse("credential", args=[credential.id]))


def credential_settings(values: Mapping[str, str]) -> Any:
    """`account`, and `weight` and `expires_at` where they were typed. Raises InvalidInput."""
    settings: dict[str, Any] = {"account": values["account"]}
    if values["weight"]:
        if not (values["weight"].isascii() and values["weight"].isdigit()):
            raise InvalidInput("weight", "Must be a whole number.")
        settings["weight"] = int(values["weight"][:12])
    if values["expires_at"]:
        try:
            day = date.fromisoformat(values["expires_at"])
        except ValueError:
            raise InvalidInput("expires_at", "Must be a date.") from None
        settings["expires_at"] = datetime(day.year, day.month, day.day, tzinfo=UTC)
    return settings
