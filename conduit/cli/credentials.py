"""`conduit credentials`: providers' secrets, their versions, and each step of a rotation.

Secrets come from standard input or a prompt, never from arguments.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from conduit.cli.credential_sources import From, read_fields
from conduit.cli.main import django_ready
from conduit.cli.output import Json, emit
from conduit.core.actor import COMMAND_LINE
from conduit.core.errors import ConduitError

if TYPE_CHECKING:
    from providers.models import Credential, Rotation

app = typer.Typer(no_args_is_help=True, help="Credentials of providers: their versions and rotation.")
Reference = Annotated[str, typer.Argument(help="PROVIDER/NAME, or the name alone where only one has it, or the id.")]
Overlap = Annotated[int, typer.Option(help="Seconds that the old secret is kept once the new one is active.")]


@app.command("list")
def show_all(as_json: Json = False) -> None:
    """List credentials with their health, age and the rotation under way."""
    django_ready()
    from providers.models import Credential  # noqa: PLC0415 (after django_ready, here and below)
    from providers.representations import PREFETCH, credential_body  # noqa: PLC0415

    rows = Credential.objects.select_related("provider").prefetch_related(*PREFETCH)
    bodies = [credential_body(row) for row in rows.order_by("provider__name", "name")]
    emit(bodies, [_line(body) for body in bodies], as_json=as_json)


def _line(body: dict[str, Any]) -> str:
    version = f"v{body['version']}" if body["version"] else "none"
    turning = f"  {_words(body['rotation'])}" if body["rotation"] else ""
    return f"{body['provider']}/{body['name']:<24} {version:<6} {body['health']:<10} {body['hint']}{turning}"


def _words(rotation: dict[str, Any]) -> str:
    if rotation["state"] == "canary":
        return f"canary: version {rotation['new']} has {rotation['share']} %"
    if rotation["state"] == "draining":
        return f"draining: version {rotation['new']} is active, version {rotation['old']} until {rotation['retire_at']}"
    problem = f": {rotation['problem']}" if rotation["problem"] else ""
    return f"{rotation['state'].replace('_', ' ')}: version {rotation['new']}{problem}"


@app.command()
def versions(credential: Reference, as_json: Json = False) -> None:
    """List a credential's versions, newest first."""
    django_ready()
    from providers.rotation_shapes import version_body  # noqa: PLC0415

    bodies = [version_body(row) for row in _found(credential).versions.prefetch_related("fields")]
    lines = []
    for body in bodies:
        share = f" {body['share']} %" if body["state"] == "verifying" else ""
        hints = " ".join(body["hints"].values()) or "destroyed"
        lines.append(f"v{body['number']:<4} {body['state'] + share:<14} {hints}  {body['problem']}".rstrip())
    emit(bodies, lines, as_json=as_json)


@app.command()
def add(  # noqa: PLR0913 (each is an option of the command)
    provider: Annotated[str, typer.Argument(help="Name or id of the provider.")],
    name: Annotated[str, typer.Argument(help="How Conduit calls it.")],
    weight: Annotated[int, typer.Option(help="Its share among the provider's credentials.")] = 100,
    account: Annotated[str, typer.Option(help="Credentials of one account share a quota.")] = "",
    verify: Annotated[bool, typer.Option(help="Prove it by a real call first.")] = True,
    source: From = None,
    as_json: Json = False,
) -> None:
    """Add a credential to a provider; its secret is read from standard input or a prompt."""
    django_ready()
    from providers.credentials import add_credential, parse_fields  # noqa: PLC0415
    from providers.providers import find, kind_of  # noqa: PLC0415
    from providers.representations import credential_body  # noqa: PLC0415
    from providers.verification import VerificationFailed  # noqa: PLC0415

    row = find(provider)
    kind = kind_of(row)
    fields = parse_fields(kind, fields=read_fields([spec.name for spec in kind.fields], source))
    given: Any = {"weight": weight, "account": account, "verify": verify}
    try:
        made = add_credential(row, actor=COMMAND_LINE, name=name, fields=fields, **given)
    except VerificationFailed as refused:  # the command was used rightly: it failed
        raise ConduitError(f"{refused.detail} {refused.guidance}".rstrip()) from None
    body = credential_body(made)
    emit(body, [_line(body)], as_json=as_json)


@app.command()
def rotate(  # noqa: PLR0913 (each is an option of the command)
    credential: Reference,
    overlap_seconds: Overlap = 86_400,
    reason: Annotated[str, typer.Option(help="Why, for the history.")] = "",
    expires_at: Annotated[str, typer.Option(help='When it ends, such as "2030-01-31T12:00:00Z".')] = "",
    canary: Annotated[str, typer.Option(help="Shares in percent to take over by, such as 1,10; empty: at once.")] = "",
    step_seconds: Annotated[int, typer.Option(help="How long each share is held.")] = 600,
    max_error_percent: Annotated[str, typer.Option(help="Above it, an automatic canary is rolled back.")] = "1",
    automatic: Annotated[bool, typer.Option(help="Move the canary on by rule.")] = False,
    other_account: Annotated[bool, typer.Option(help="The new secret may belong to another account.")] = False,
    source: From = None,
    as_json: Json = False,
) -> None:
    """Give a credential a new secret, read from standard input or a prompt.

    It is proven by a real call first. The same secret again gives the same rotation.
    """
    django_ready()
    from conduit.core.fields import parse_time  # noqa: PLC0415
    from providers import rotation  # noqa: PLC0415
    from providers.canary import Canary, parse_rules  # noqa: PLC0415
    from providers.credentials import parse_fields  # noqa: PLC0415
    from providers.providers import field, kind_of  # noqa: PLC0415
    from providers.verification import VerificationFailed  # noqa: PLC0415

    row = _found(credential)
    rules = {"steps": _steps(canary), "step_seconds": step_seconds, "max_error_percent": max_error_percent}
    plan = Canary(**parse_rules({**rules, "automatic": automatic}, "canary.")) if canary else None
    until = field("expires_at", parse_time, expires_at) if expires_at else None
    kind = kind_of(row.provider)
    try:
        made = rotation.begin(
            row,
            actor=COMMAND_LINE,
            fields=parse_fields(kind, fields=read_fields([spec.name for spec in kind.fields], source)),
            canary=plan,
            overlap_seconds=overlap_seconds,
            reason=reason,
            expires_at=until,
            other_account=other_account,
        )
    except VerificationFailed as refused:
        raise ConduitError(f"{refused.detail} {refused.guidance}".rstrip()) from None
    _tell(made, as_json=as_json)


def _steps(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not all(part.isascii() and part.isdigit() for part in parts):
        raise typer.BadParameter("must be whole numbers with commas between, such as 1,10", param_hint="--canary")
    return [int(part[:4]) for part in parts]


@app.command()
def rotation(credential: Reference, as_json: Json = False) -> None:
    """Show the rotation under way, else the last one."""
    row = _found(credential)
    from providers.versions import latest  # noqa: PLC0415

    found = latest(row)
    if found is None:
        raise ConduitError(f"The credential {row.name} was never rotated.")
    _tell(found, as_json=as_json)


@app.command()
def verify(credential: Reference, as_json: Json = False) -> None:
    """Call the provider with the secrets that serve; exit 1 when the active one fails."""
    row = _found(credential)
    from providers.credentials import tested  # noqa: PLC0415
    from providers.representations import outcome_body  # noqa: PLC0415

    outcome = tested(row, actor=COMMAND_LINE)
    words = (
        f"ok     {len(outcome.models)} models, {outcome.latency_ms} ms" if outcome.ok else f"failed {outcome.detail}"
    )
    emit(outcome_body(outcome), [f"{row.name:<24} {words} {outcome.guidance}".rstrip()], as_json=as_json)
    if not outcome.ok:
        raise typer.Exit(1)


@app.command()
def promote(
    credential: Reference,
    share: Annotated[int, typer.Option(help="Percent for the canary; 100 lets it take over.")] = 100,
    as_json: Json = False,
) -> None:
    """Let the canary take over, or give it another share first."""
    row = _found(credential)
    from providers.rotation import set_share  # noqa: PLC0415

    _tell(set_share(row, actor=COMMAND_LINE, share=share), as_json=as_json)


@app.command()
def rollback(
    credential: Reference,
    problem: Annotated[str, typer.Option(help="Why, for the history.")] = "",
    as_json: Json = False,
) -> None:
    """Go back to the former version; the new secret is destroyed."""
    row = _found(credential)
    from providers.rotation import roll_back  # noqa: PLC0415

    _tell(roll_back(row, actor=COMMAND_LINE, problem=problem), as_json=as_json)


@app.command()
def finish(credential: Reference, as_json: Json = False) -> None:
    """End the overlap now; the old secret is destroyed."""
    row = _found(credential)
    from providers.rotation import finish as end  # noqa: PLC0415

    _tell(end(row, actor=COMMAND_LINE), as_json=as_json)


@app.command()
def extend(
    credential: Reference,
    overlap_seconds: Annotated[int, typer.Option(help="Seconds from now that the old secret is kept.")],
    as_json: Json = False,
) -> None:
    """Keep the old secret for longer, or less long."""
    row = _found(credential)
    from providers.rotation import extend as keep  # noqa: PLC0415

    _tell(keep(row, actor=COMMAND_LINE, overlap_seconds=overlap_seconds), as_json=as_json)


@app.command()
def revoke(
    credential: Reference,
    version: Annotated[int, typer.Option(help="Its number, as `conduit credentials versions` prints it.")],
    as_json: Json = False,
) -> None:
    """Emergency: revoke one version at once and destroy its secret."""
    row = _found(credential)
    from providers.rotation import revoke as end  # noqa: PLC0415

    left = end(row, actor=COMMAND_LINE, number=version)
    body = {"revoked": version, "active": left.number if left else None}
    serves = f"version {left.number} serves" if left else "no version is left: rotate it"
    emit(body, [f"{row.name}: version {version} is revoked, {serves}"], as_json=as_json)


@app.command()
def use(credential: Reference, as_json: Json = False) -> None:
    """Show how far each version is used, and whether it is safe to revoke at the provider."""
    row = _found(credential)
    from usage.version_use_api import use_body  # noqa: PLC0415

    body = use_body(row, COMMAND_LINE)
    lines = []
    for one in body["versions"]:
        light = one["safe_to_revoke"]
        lines.append(
            f"v{one['version']:<4} {one['state']:<10} {one['requests']:>8,} requests in 10 min, "
            f"{one['auth_failures']:,} rejected, {one['open_requests']:,} open  {light['colour']}: {light['sentence']}"
        )
        lines += [f"      {_MARKS[check['met']]} {check['found']}" for check in light["checks"]]
    emit(body, lines, as_json=as_json)


_MARKS = {True: "ok", False: "no", None: "? "}


def _found(reference: str) -> Credential:
    """By id, by PROVIDER/NAME, or by a name that only one has. Raises NotFound, Conflict."""
    django_ready()
    from conduit.core.errors import Conflict  # noqa: PLC0415
    from providers.credentials import find  # noqa: PLC0415
    from providers.models import Credential  # noqa: PLC0415

    rows = Credential.objects.select_related("provider")
    provider, _, name = reference.rpartition("/")
    named = list(rows.filter(name=reference)[:2]) or list(rows.filter(provider__name=provider, name=name))
    if len(named) > 1:
        raise Conflict(f"Several providers have a credential {reference[:120]!r}. Say PROVIDER/NAME.")
    return named[0] if named else find(reference)


def _tell(row: Rotation, *, as_json: bool) -> None:
    from providers.rotation_shapes import rotation_body  # noqa: PLC0415

    body = rotation_body(row)
    emit(body, [f"{row.credential.name}: {_words(body)}"], as_json=as_json)


@app.command()
def refresh(credential: Reference, as_json: Json = False) -> None:
    """Read a credential's external sources now, in every worker; exit 1 when one fails."""
    django_ready()
    from providers import supply  # noqa: PLC0415
    from providers.source_api import sources_body  # noqa: PLC0415

    found = supply.refresh(_found(credential), actor=COMMAND_LINE)
    lines = [f"{one.name:<24} {'ok    ' if one.ok else 'failed'} {one.source} {one.detail}".rstrip() for one in found]
    emit(sources_body(found), lines, as_json=as_json)
    if not all(one.ok for one in found):
        raise typer.Exit(1)
