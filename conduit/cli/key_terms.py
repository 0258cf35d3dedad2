"""`conduit keys update|delete`: what an existing key may do, and its end for good."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

import typer

from conduit.cli.main import django_ready
from conduit.cli.output import Json, emit
from conduit.core.errors import InvalidInput

Reference = Annotated[str, typer.Argument(help="Id of the key, or its name where no other has it.")]
Team = Annotated[str | None, typer.Option(help="Team it belongs to, by id or name.")]
Owner = Annotated[str | None, typer.Option(help="Who answers for it.")]
User = Annotated[str | None, typer.Option(help="Makes it a personal key of this user, by e-mail address.")]
Parent = Annotated[str | None, typer.Option(help="Key that it is delegated from, by id or name.")]
Models = Annotated[list[str] | None, typer.Option(help="Model or pattern it may use; may be given several times.")]
Endpoints = Annotated[list[str] | None, typer.Option(help="Endpoint it may call; may be given several times.")]
Networks = Annotated[
    list[str] | None, typer.Option(help="Address or network it is let in from; may be given several times.")
]
Tags = Annotated[list[str] | None, typer.Option(help="For reports; may be given several times.")]
RPM = Annotated[int | None, typer.Option(help="Requests per minute.")]
TPM = Annotated[int | None, typer.Option(help="Tokens per minute.")]
Parallel = Annotated[int | None, typer.Option(help="Requests at the same time.")]
Output = Annotated[int | None, typer.Option(help="Tokens in one answer.")]
Expiry = Annotated[str | None, typer.Option(help='Such as "2030-01-31T12:00:00Z".')]
CLEARED: dict[str, Any] = {
    "team": None, "owner": "", "user": None, "parent": None, "models": [], "endpoints": [], "ip_allowlist": [],
    "tags": [], "rpm": None, "tpm": None, "max_parallel": None, "max_output_tokens": None, "expires_at": None,
}  # fmt: skip


def add_to(app: typer.Typer) -> None:
    """Makes them commands of `conduit keys`."""
    app.command("update")(update)
    app.command("delete")(delete)


def update(  # noqa: PLR0913 (one parameter per option of the command)
    key: Reference,
    name: Annotated[str | None, typer.Option(help="What it is for.")] = None,
    team: Team = None,
    owner: Owner = None,
    user: User = None,
    parent: Parent = None,
    model: Models = None,
    endpoint: Endpoints = None,
    ip_allowlist: Networks = None,
    tag: Tags = None,
    rpm: RPM = None,
    tpm: TPM = None,
    max_parallel: Parallel = None,
    max_output_tokens: Output = None,
    expires_at: Expiry = None,
    clear: Annotated[
        list[str] | None,
        typer.Option(help=f"Take a limit away ({', '.join(CLEARED)}); may be given several times."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Change what a key is called, whose it is and what it may do; what is not named stays. A list is replaced."""
    django_ready()
    from conduit.core.actor import COMMAND_LINE  # noqa: PLC0415 (needs Django)
    from keys import issuing, representation  # noqa: PLC0415

    given = {
        "name": name, "team": team, "owner": owner, "user": user, "parent": parent, "models": model,
        "endpoints": endpoint, "ip_allowlist": ip_allowlist, "tags": tag, "rpm": rpm, "tpm": tpm,
        "max_parallel": max_parallel, "max_output_tokens": max_output_tokens, "expires_at": expires_at,
    }  # fmt: skip
    changes = {field: value for field, value in given.items() if value not in (None, [])}
    changes = _cleared(clear or [], changes) | rows_of(changes)
    if not changes:
        raise InvalidInput("", "Name at least one thing to change, such as --rpm 300.", "required")
    if "user" in changes:
        changes["kind"] = "personal" if changes["user"] else "service"
    row = issuing.update_key(issuing.find_key(key), actor=COMMAND_LINE, changes=changes)
    value = representation.keys([row], COMMAND_LINE)[0]
    emit(value, [f"{value['name']}: {', '.join(changes)} changed"], as_json=as_json)


def _cleared(fields: list[str], given: dict[str, Any]) -> dict[str, Any]:
    for field in fields:
        if field not in CLEARED:
            raise InvalidInput("--clear", f"Must be one of {', '.join(CLEARED)}.", "invalid_choice")
        if field in given:
            raise InvalidInput("--clear", f"Give {field} a value or clear it, not both.")
    return {field: CLEARED[field] for field in fields}


def rows_of(given: dict[str, Any]) -> dict[str, Any]:
    """The same with the rows that team, user and parent name. Raises InvalidInput that names the option."""
    from conduit.core.actor import COMMAND_LINE  # noqa: PLC0415 (needs Django)
    from keys import delegation, teams  # noqa: PLC0415

    finders: dict[str, Callable[[object], Any]] = {
        "team": teams.find_team,
        "user": partial(delegation.find_user, actor=COMMAND_LINE),
        "parent": partial(delegation.find_parent, actor=COMMAND_LINE),
    }
    found = dict(given)
    for field, find in finders.items():
        try:
            found |= {field: find(found[field])} if field in found else {}
        except InvalidInput as error:
            raise InvalidInput(field, error.detail, error.code) from None
    return found


def delete(
    key: Reference,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """Revoke a key and forget its limits, budgets and secrets. Usage and the audit log stay."""
    django_ready()
    from conduit.core.actor import COMMAND_LINE  # noqa: PLC0415 (needs Django)
    from keys import issuing  # noqa: PLC0415

    row = issuing.find_key(key)
    if not yes:
        typer.confirm(f"Delete the key {row.name}? It cannot be undone", abort=True, err=True)
    body = {"id": str(row.id), "name": row.name, "deleted": True}
    issuing.delete_key(row, actor=COMMAND_LINE)
    emit(body, [f"{row.name}: deleted"], as_json=as_json)
