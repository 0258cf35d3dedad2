"""`conduit keys identify|blast-radius|replace|review|shrink`: leaked keys, and keys that may more than they do."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from conduit.cli.key_terms import Reference
from conduit.cli.main import django_ready
from conduit.cli.output import Json, emit
from conduit.core.errors import InvalidInput

Expected = Annotated[
    int | None, typer.Option(help="Number of the newest secret as you saw it; refused where it is another by now.")
]
Days = Annotated[int, typer.Option(help="How far back use counts.", min=1, max=366)]
TITLES = {"virtual_key": "virtual key", "management_token": "management token", "provider_secret": "provider secret"}


def add_to(app: typer.Typer) -> None:
    """Makes them commands of `conduit keys`."""
    for name, command in (
        ("identify", identify),
        ("blast-radius", blast_radius),
        ("replace", replace),
        ("review", review),
        ("shrink", shrink),
    ):
        app.command(name)(command)


def identify(as_json: Json = False) -> None:
    """Tell which keys, tokens and provider secrets the text on standard input holds, and whose they are."""
    django_ready()
    from conduit.core.actor import COMMAND_LINE  # noqa: PLC0415 (needs Django)
    from usage import leaks  # noqa: PLC0415

    rows = [one.outward() for one in leaks.identify(sys.stdin.read(leaks.LONGEST + 1), actor=COMMAND_LINE)]
    lines = [f"{TITLES[row['kind']]} {row['hint']}{whose(row)}" for row in rows]
    emit({"data": rows}, lines or ["No key in this text."], as_json=as_json)


def whose(row: dict[str, Any]) -> str:
    """`, ours: NAME (it works now)`; empty where nobody can tell."""
    if row["ours"] is None:
        return ""
    if not row["ours"]:
        return "" if row["kind"] == "provider_secret" else ", not of this installation"
    owner = row["object"] or {}
    return f", ours: {owner.get('name', '')} ({'it works now' if row['live'] else 'it is refused'})"


def blast_radius(
    key: Reference,
    since: Annotated[
        str | None, typer.Option(help='Use from this time on too, such as "2030-01-31T12:00:00Z".')
    ] = None,
    as_json: Json = False,
) -> None:
    """Tell what a key opens, what is left to spend with it, and what was done with it."""
    django_ready()
    from conduit.core.actor import COMMAND_LINE  # noqa: PLC0415 (needs Django)
    from conduit.core.fields import parse_time  # noqa: PLC0415
    from keys import issuing  # noqa: PLC0415
    from usage import blast_radius as radius  # noqa: PLC0415

    try:
        start = parse_time(since) if since else None
    except InvalidInput as error:
        raise InvalidInput("--since", error.detail, error.code) from None
    found = radius.outward(radius.blast_radius(issuing.find_key(key), actor=COMMAND_LINE, since=start))
    emit(found, _radius_lines(found), as_json=as_json)


def _radius_lines(found: dict[str, Any]) -> list[str]:
    left = "nothing bounds it" if found["left_usd"] is None else f"${found['left_usd']}"
    lines = [
        f"{found['name']}: {'a caller with it is let in' if found['usable'] else 'it is refused'}",
        f"models     {', '.join(found['models']) or 'none'}",
        f"endpoints  {', '.join(found['endpoints']) or 'none'}",
        f"providers  {', '.join(found['providers'] or []) or 'none'}",
        f"addresses  {'every' if found['ip_allowlist'] is None else ', '.join(found['ip_allowlist']) or 'none'}",
        f"left       {left}",
    ]
    for name in ("last_24h", "since"):
        use = found[name]
        if use is not None:
            lines.append(
                f"from {use['from']}: {use['requests']} requests, {use['refused']} refused, ${use['spend_usd']}"
            )
            lines += [f"  refused from {address}" for address in use["refused_from"]]
    return lines


def replace(
    key: Reference,
    expected: Expected = None,
    as_json: Json = False,
) -> None:
    """Give a key a new secret and print it: the only time it can be seen. The old ones are refused at once."""
    django_ready()
    from conduit.core.actor import COMMAND_LINE  # noqa: PLC0415 (needs Django)
    from keys import issuing, representation  # noqa: PLC0415
    from keys.rotation import replace_secret  # noqa: PLC0415

    row, raw = replace_secret(issuing.find_key(key), actor=COMMAND_LINE, expected=expected)
    body = {**representation.keys([row], COMMAND_LINE)[0], "key": raw.reveal()}
    emit(body, [raw.reveal()], as_json=as_json)


def review(days: Days = 30, as_json: Json = False) -> None:
    """List keys that are unused, about to end, wider than their use, or nobody's."""
    django_ready()
    from conduit.core.actor import COMMAND_LINE  # noqa: PLC0415 (needs Django)
    from usage import key_review  # noqa: PLC0415
    from usage.key_review_api import reviewed_body  # noqa: PLC0415

    rows, before = [], None
    while True:
        found = key_review.review(COMMAND_LINE, days=days, before=before, limit=200)
        rows += [reviewed_body(row) for row in found.rows]
        before = found.cursor
        if before is None:
            break
    lines = [f"{row['id']}  {row['name']}: {remark['detail']}" for row in rows for remark in row["remarks"]]
    emit({"data": rows}, lines or ["Nothing to say about any key."], as_json=as_json)


def shrink(
    key: Reference,
    days: Days = 30,
    budgets: Annotated[bool, typer.Option("--budgets", help="Tighten budgets too.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would change.")] = False,
    as_json: Json = False,
) -> None:
    """Let a key do only what it did: the models and endpoints it used."""
    django_ready()
    from conduit.core.actor import COMMAND_LINE  # noqa: PLC0415 (needs Django)
    from keys import issuing  # noqa: PLC0415
    from usage import key_review  # noqa: PLC0415
    from usage.key_review_api import proposal_body  # noqa: PLC0415

    row = issuing.find_key(key)
    if dry_run:
        found = key_review.proposal(row, days=days, with_budgets=budgets)
    else:
        found = key_review.shrink(row, actor=COMMAND_LINE, days=days, with_budgets=budgets)
    body = proposal_body(found, applied=not dry_run and bool(found.after))
    lines = [f"{name}: {_short(body['before'][name])} -> {_short(body['after'][name])}" for name in body["after"]]
    emit(body, lines or ["It may already do only what it did."], as_json=as_json)


def _short(value: list[Any]) -> str:
    return ", ".join(f"${one['limit_usd']} {one['window']}" if isinstance(one, dict) else one for one in value) or "all"
