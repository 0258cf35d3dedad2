"""`conduit keys`: virtual keys, which applications call the proxy with."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from conduit.cli import key_leaks, key_terms
from conduit.cli.key_terms import (
    RPM,
    TPM,
    Endpoints,
    Expiry,
    Models,
    Networks,
    Output,
    Owner,
    Parallel,
    Parent,
    Reference,
    Tags,
    Team,
    User,
)
from conduit.cli.main import django_ready
from conduit.cli.output import Json, emit
from conduit.core.errors import InvalidInput

if TYPE_CHECKING:
    from keys.models import VirtualKey

app = typer.Typer(no_args_is_help=True, help="Virtual keys, for the proxy.")


@app.command()
def create(  # noqa: PLR0913 (one parameter per option of the command)
    name: Annotated[str, typer.Option(help="What it is for.")],
    team: Team = None,
    owner: Owner = None,
    model: Models = None,
    endpoint: Endpoints = None,
    budget: Annotated[str | None, typer.Option(help="Limit in US dollars.")] = None,
    window: Annotated[str, typer.Option(help="lifetime, day, week or month.")] = "lifetime",
    soft: Annotated[bool, typer.Option("--soft", help="The budget only counts and refuses nothing.")] = False,
    rpm: RPM = None,
    tpm: TPM = None,
    max_parallel: Parallel = None,
    max_output_tokens: Output = None,
    expires_at: Expiry = None,
    ip_allowlist: Networks = None,
    tag: Tags = None,
    user: User = None,
    parent: Parent = None,
    as_json: Json = False,
) -> None:
    """Issue a key and print it: the only time it can be seen."""
    django_ready()
    from conduit.core.actor import COMMAND_LINE  # noqa: PLC0415 (needs Django)
    from keys import issuing, representation  # noqa: PLC0415

    key, raw = issuing.create_key(
        actor=COMMAND_LINE,
        name=name,
        owner=owner or "",
        models=model or [],
        endpoints=endpoint or [],
        budgets=_budgets(budget, window, soft),
        rpm=rpm,
        tpm=tpm,
        max_parallel=max_parallel,
        max_output_tokens=max_output_tokens,
        expires_at=expires_at,
        ip_allowlist=ip_allowlist or [],
        tags=tag or [],
        kind="service" if user is None else "personal",
        **key_terms.rows_of({"team": team, "user": user, "parent": parent}),
    )
    value = {**representation.keys([key], COMMAND_LINE)[0], "key": raw.reveal()}
    emit(value, [raw.reveal()], as_json=as_json)


def _budgets(limit: str | None, window: str, soft: bool) -> list[dict[str, Any]]:
    """Raises InvalidInput for --soft without a budget."""
    if limit is None:
        if soft:
            raise InvalidInput("soft", "Is said of a budget: give --budget too.", "unexpected")
        return []
    return [{"limit_usd": limit, "window": window, "kind": "soft" if soft else "hard"}]


@app.command("list")
def list_keys(as_json: Json = False) -> None:
    """List every key, newest first."""
    django_ready()
    from conduit.core.actor import COMMAND_LINE  # noqa: PLC0415 (needs Django)
    from keys import representation  # noqa: PLC0415
    from keys.models import VirtualKey  # noqa: PLC0415

    rows = representation.keys(
        list(VirtualKey.objects.select_related("team", "user", "parent").order_by("-id")), COMMAND_LINE
    )
    lines = [f"{row['id']}  {row['state']:<8}  {row['hint']}  {row['name']}" for row in rows]
    emit({"data": rows}, lines, as_json=as_json)


@app.command()
def rotate(
    key: Reference,
    overlap: Annotated[int, typer.Option(help="Seconds that the old secret works on; 0 ends it at once.")] = 86_400,
    replace: Annotated[
        bool, typer.Option("--replace", help="Another secret in place of the new one of the rotation under way.")
    ] = False,
    expected: key_leaks.Expected = None,
    as_json: Json = False,
) -> None:
    """Give a key another secret and print it: the only time it can be seen. Id, budgets and history stay."""
    django_ready()
    from conduit.core.actor import COMMAND_LINE  # noqa: PLC0415 (needs Django)
    from keys import issuing, representation, rotation  # noqa: PLC0415

    row, raw = rotation.rotate_key(
        issuing.find_key(key), actor=COMMAND_LINE, overlap_seconds=overlap, replace=replace, expected=expected
    )
    value = {**representation.keys([row], COMMAND_LINE)[0], "key": raw.reveal()}
    emit(value, [raw.reveal()], as_json=as_json)


@app.command()
def finish(key: Reference, as_json: Json = False) -> None:
    """End the old secret of a rotation now."""
    _step("finish_rotation", key, as_json)


@app.command()
def extend(
    key: Reference,
    overlap: Annotated[int, typer.Option(help="Seconds from now that the old secret works on.")],
    as_json: Json = False,
) -> None:
    """Let the old secret of a rotation work longer."""
    django_ready()
    from conduit.core.actor import COMMAND_LINE  # noqa: PLC0415 (needs Django)
    from keys import issuing, representation, rotation  # noqa: PLC0415

    row = rotation.extend_rotation(issuing.find_key(key), actor=COMMAND_LINE, overlap_seconds=overlap)
    value = representation.keys([row], COMMAND_LINE)[0]
    emit(value, [f"{value['name']}: the old secret works until {value['rotating_until']}"], as_json=as_json)


@app.command()
def versions(key: Reference, as_json: Json = False) -> None:
    """List a key's secrets, the newest first, and who still uses them."""
    django_ready()
    from conduit.core.actor import COMMAND_LINE  # noqa: PLC0415 (needs Django)
    from keys import issuing, representation  # noqa: PLC0415

    rows = representation.versions(issuing.find_key(key), COMMAND_LINE)
    emit({"data": rows}, [line for row in rows for line in _version(row)], as_json=as_json)


@app.command()
def expire(
    key: Reference,
    at: Annotated[str | None, typer.Option(help='When, such as "2030-01-31T12:00:00Z"; now unless given.')] = None,
    never: Annotated[bool, typer.Option("--never", help="Take its end away.")] = False,
    as_json: Json = False,
) -> None:
    """End a key now or at a moment. A later moment, or none, makes it work again."""
    django_ready()
    from conduit.core.actor import COMMAND_LINE  # noqa: PLC0415 (needs Django)
    from keys import issuing, representation  # noqa: PLC0415

    if at is not None and never:
        raise InvalidInput("at", "Give either --at or --never.")
    row = issuing.find_key(key)
    if at is None and not never:
        row = issuing.expire_key(row, actor=COMMAND_LINE)
    else:
        row = issuing.update_key(row, actor=COMMAND_LINE, changes={"expires_at": at})
    value = representation.keys([row], COMMAND_LINE)[0]
    emit(value, [f"{value['name']}: {value['state']}, expires {value['expires_at'] or 'never'}"], as_json=as_json)


@app.command()
def revoke(key: Reference, as_json: Json = False) -> None:
    """Refuse a key for good, on every worker within a second."""
    _step("revoke_key", key, as_json)


@app.command()
def disable(key: Reference, as_json: Json = False) -> None:
    """Refuse a key until it is enabled again."""
    _step("disable_key", key, as_json)


@app.command()
def enable(key: Reference, as_json: Json = False) -> None:
    """Let a disabled key work again."""
    _step("enable_key", key, as_json)


def _step(verb: str, reference: str, as_json: bool) -> None:
    django_ready()
    from conduit.core.actor import COMMAND_LINE  # noqa: PLC0415 (needs Django)
    from keys import issuing, representation, rotation  # noqa: PLC0415

    step: Callable[..., VirtualKey] = getattr(rotation if verb == "finish_rotation" else issuing, verb)
    row: dict[str, Any] = representation.keys([step(issuing.find_key(reference), actor=COMMAND_LINE)], COMMAND_LINE)[0]
    emit(row, [f"{row['name']}: {row['state']}"], as_json=as_json)


def _version(row: dict[str, Any]) -> list[str]:
    used = f"last used {row['last_used_at']}" if row["last_used_at"] else "never used"
    until = f", until {row['ends_at']}" if row["state"] == "retiring" else ""
    lines = [f"v{row['number']}  {row['state']}{until}  {row['hint']}  since {row['created_at']}  {used}"]
    callers = [f"  {one['address'] or 'others'}: {one['requests']} in the last hour" for one in row["callers"]]
    return lines + (callers if row["state"] != "retired" else [])


key_terms.add_to(app)
key_leaks.add_to(app)
