"""`conduit providers kinds|add|list|test`. Secrets come from standard input or a prompt, never from arguments."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from conduit.cli.credential_sources import From, read_fields
from conduit.cli.main import django_ready
from conduit.cli.output import Json, emit
from conduit.core.actor import COMMAND_LINE
from conduit.core.errors import ConduitError, Conflict

if TYPE_CHECKING:
    from providers.credentials import Outcome

app = typer.Typer(help="Providers and their credentials.", no_args_is_help=True)


def read_secret(label: str) -> str:
    """One secret: a hidden prompt on a terminal, else all of standard input. Arguments are visible to everyone."""
    if sys.stdin.isatty():
        text: str = typer.prompt(label, hide_input=True, default="", show_default=False, err=True)
        return text.strip()
    return sys.stdin.read().strip()


@app.command()
def kinds(as_json: Json = False) -> None:
    """List the kinds of providers and the fields each one needs."""
    django_ready()
    from providers.adapters.registry import KINDS  # noqa: PLC0415 (after django_ready, here and below)
    from providers.representations import kind_body  # noqa: PLC0415

    lines = [f"{row.kind:<12} {row.title:<20} {', '.join(spec.name for spec in row.fields)}" for row in KINDS.values()]
    emit([kind_body(row) for row in KINDS.values()], lines, as_json=as_json)


@app.command("list")
def show(as_json: Json = False) -> None:
    """List providers with the health of their credentials."""
    django_ready()
    from providers.models import Provider  # noqa: PLC0415
    from providers.representations import PREFETCH, credential_body, provider_body  # noqa: PLC0415

    parts = ["credentials__provider", *(f"credentials__{name}" for name in PREFETCH)]
    rows = Provider.objects.order_by("name").prefetch_related(*parts)
    found = [
        {**provider_body(row), "credentials": [credential_body(credential) for credential in row.credentials.all()]}
        for row in rows
    ]
    lines = []
    for body in found:
        health = ", ".join(f"{part['name']} {part['health']}" for part in body["credentials"]) or "no credential"
        lines.append(f"{body['name']:<24} {body['kind']:<12} {health}{'' if body['enabled'] else ' (disabled)'}")
    emit(found, lines, as_json=as_json)


@app.command()
def add(  # noqa: PLR0913 (each is an option of the command)
    name: Annotated[str, typer.Argument(help="How Conduit calls it.")],
    kind: Annotated[str, typer.Option(help="One of `conduit providers kinds`.")],
    base_url: Annotated[str, typer.Option(help="Where it lives, unless at the kind's own address.")] = "",
    region: Annotated[str, typer.Option(help="The region it is called in, where the kind has regions.")] = "",
    option: Annotated[list[str] | None, typer.Option(help="NAME=VALUE as the kind names it; JSON for objects.")] = None,
    credential: Annotated[str, typer.Option(help="Name of its first credential.")] = "main",
    source: From = None,
    verify: Annotated[bool, typer.Option(help="Prove the credential by a real call first.")] = True,
    routes: Annotated[
        bool, typer.Option("--routes", help="Add routes such as gpt-* for the models it serves.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Add a provider with its first credential, whose secret is read from standard input or a prompt, or by reference.

    Several fields: a JSON object on standard input. Nothing is saved unless the provider takes the credential.
    """
    options = dict(_pair(text) for text in option or [])
    django_ready()
    from conduit.core.fields import parse_choice  # noqa: PLC0415
    from providers.adapters.registry import KINDS  # noqa: PLC0415
    from providers.onboarding import NewCredential, add_with_credential  # noqa: PLC0415
    from providers.providers import field  # noqa: PLC0415
    from providers.representations import credential_body, provider_body  # noqa: PLC0415
    from providers.secret_fields import parse_fields  # noqa: PLC0415
    from providers.verification import VerificationFailed  # noqa: PLC0415

    row = KINDS[field("kind", parse_choice, kind, list(KINDS))]
    fields = parse_fields(row, fields=read_fields([spec.name for spec in row.fields], source))
    try:
        made = add_with_credential(
            actor=COMMAND_LINE,
            provider={"name": name, "kind": kind, "base_url": base_url, "region": region, "options": options},
            credential=NewCredential(credential, fields, verify),
            with_routes=routes,
        )
    except VerificationFailed as refused:  # the command was used rightly: it failed
        raise ConduitError(f"{refused.detail} {refused.guidance}".rstrip()) from None
    body = {**provider_body(made), "credentials": [credential_body(part) for part in made.credentials.all()]}
    if routes:
        body["routes"] = list(made.targets.values_list("route__name", flat=True).order_by("route__name"))
    proof = "verified" if verify else "not verified"
    emit(
        body,
        [
            f"{name}: added with credential {credential} ({proof})",
            *(f"route {name}" for name in body.get("routes", [])),
        ],
        as_json=as_json,
    )


def _pair(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise typer.BadParameter("must be NAME=VALUE", param_hint="--option")
    if not value.startswith("{"):
        return name, value
    try:
        return name, json.loads(value)
    except ValueError:
        raise typer.BadParameter(f"{name} is not JSON", param_hint="--option") from None


@app.command("test")
def check(
    name: Annotated[
        str, typer.Argument(help="Name or id of the provider. Without it: every one that is enabled.")
    ] = "",
    as_json: Json = False,
) -> None:
    """Call a provider, or all, with each of its credentials; exit 1 when one fails. One that fails hides no other."""
    django_ready()
    from providers.credentials import verify_all  # noqa: PLC0415
    from providers.models import Provider  # noqa: PLC0415
    from providers.providers import find  # noqa: PLC0415
    from providers.representations import verified_body  # noqa: PLC0415

    if name:
        outcomes = verify_all(find(name), actor=COMMAND_LINE)
        emit(verified_body(outcomes), [_outcome(outcome) for outcome in outcomes], as_json=as_json)
        failed = not all(outcome.ok for outcome in outcomes)
    else:
        bodies, lines, failed = [], [], False
        for provider in Provider.objects.filter(enabled=True).order_by("name"):
            found: list[Outcome] = []
            problem = ""
            try:
                found = verify_all(provider, actor=COMMAND_LINE)
            except Conflict as error:
                problem = str(error)
            failed = failed or bool(problem) or not all(outcome.ok for outcome in found)
            bodies.append({"provider": provider.name, "problem": problem, **verified_body(found)})
            lines += [provider.name, *(f"  {_outcome(outcome)}" for outcome in found)]
            lines += [f"  failed {problem}"] if problem else []
        emit(bodies, lines, as_json=as_json)
    if failed:
        raise typer.Exit(1)


def _outcome(outcome: Outcome) -> str:
    if outcome.ok:
        return f"{outcome.credential.name:<24} ok     {len(outcome.models)} models, {outcome.latency_ms} ms"
    return f"{outcome.credential.name:<24} failed {outcome.detail} {outcome.guidance}".rstrip()
