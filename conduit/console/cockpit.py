"""The page of one credential: live traffic by version, its rotation step by step, and whether the old secret can go."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from conduit.access.pages import page
from conduit.access.permissions import may
from conduit.console import cockpit_parts as parts
from conduit.console import credential_rows, snippets
from conduit.console.credential_pages import crumbs, find_credential
from conduit.console.spans import month_name, month_start
from conduit.core import clock, wording
from conduit.core import live as live_processes
from conduit.core.actor import Actor
from providers import credentials
from providers.adapters.registry import KINDS
from providers.models import Credential, CredentialVersion, Rotation, RotationState, VersionState
from providers.versions import latest
from usage import charts, revoke_light, rotation_watch, version_use
from usage.version_use import Caller, Figures, Live

AFTERWARDS = timedelta(days=7)  # how long an ended rotation is still told of
CURRENT, FORMER, OTHER = 1, 6, 5  # colours of the newest version that may serve, of the one before, of the oldest
MOST_VERSIONS = 20


def last_rotation(credential: Credential, at: datetime) -> Rotation | None:
    """The one under way, else the last one while it is news."""
    found = latest(credential)
    if found is None or (found.ended_at is not None and found.ended_at < at - AFTERWARDS):
        return None
    return found


def signature(rotation: Rotation | None, credential: Credential) -> str:
    """Changes when the page's buttons do; the live part then asks for the whole page."""
    versions = ",".join(f"{version.number}{version.state}" for version in credential.versions.all()[:MOST_VERSIONS])
    step = f"{rotation.state}{rotation.new.share}{rotation.automatic}" if rotation else ""
    return f"{step}|{credential.enabled}|{versions}"


@page("credentials")
def credential_detail(request: HttpRequest, actor: Actor, credential_id: UUID) -> HttpResponse:
    credential = find_credential(credential_id)
    at = clock.now()
    context = _live(actor, credential, at)
    rotation: Rotation | None = context["rotation"]
    under_way = rotation if rotation and rotation.ended_at is None else None
    context |= {
        "crumbs": crumbs(credential),
        "under_way": under_way,
        "title_state": parts.title_state(credential, rotation),
        "hint": credentials.hint(credential),
        "chart": _chart(credential, at),
        "shares": parts.SHARES,
        "may_change": may(actor, "credentials", write=True),
        "max_age": settings.CREDENTIAL_MAX_AGE_DAYS,
        "same_as": _same_as(request, credential, under_way),
        "signature": signature(rotation, credential),
        **_dialogs(context["late"], under_way),
    }
    return render(request, "providers/credential.html", context)


def _dialogs(late: dict[str, Any], under_way: Rotation | None) -> dict[str, Any]:
    """Figures of the dialogs, as they are when the page is asked for."""
    web = sum(process.kind == "web" for process in live_processes.alive())
    old = under_way.old if under_way else None
    return {
        "web": wording.plural(web, "web process", "web processes") if web else "",
        "open_on_old": sum(row["open"] for row in late["rows"] if old is not None and row["version"].id == old.id),
    }


@page("credentials")
def credential_live(request: HttpRequest, actor: Actor, credential_id: UUID) -> HttpResponse:
    """The parts that change by themselves. When the page's buttons would, the whole page is asked for again."""
    credential = find_credential(credential_id)
    at = clock.now()
    rotation = last_rotation(credential, at)
    if "seen" in request.GET and request.GET["seen"] != signature(rotation, credential):
        return HttpResponse(headers={"HX-Refresh": "true"})
    context = _live(actor, credential, at) | {"may_change": may(actor, "credentials", write=True)}
    return render(request, "providers/credential_live.html", context)


@page("credentials")
def credential_chart(request: HttpRequest, actor: Actor, credential_id: UUID) -> HttpResponse:
    credential = find_credential(credential_id)
    return render(request, "providers/credential_chart.html", {"chart": _chart(credential, clock.now())})


def _live(actor: Actor, credential: Credential, at: datetime) -> dict[str, Any]:
    rotation = last_rotation(credential, at)
    versions = list(credential.versions.all())[:MOST_VERSIONS]
    late = version_use.figures(actor, credential.id, at - version_use.WINDOW)
    said = version_use.live(live_processes.alive())
    leaving = _leaving(versions, rotation)
    shown = [version for version in versions if _in_use(version, late, rotation)]
    return {
        "credential": credential,
        "provider_title": _title(credential),
        "row": credential_rows.row_of(credential, at, said=said, rotation=None),
        "rotation": rotation,
        "rolled_back": rotation is not None and rotation.state == RotationState.ROLLED_BACK,
        "stages": parts.stages(rotation, _title(credential))
        if rotation and rotation.state != RotationState.ROLLED_BACK
        else [],
        "rules": parts.rules(credential, rotation, _watched(rotation)),
        "late": _late(credential, shown, late, said),
        "who": _who(actor, credential, at, [version.number for version in shown]),
        "leaving": leaving,
        "light": revoke_light.safe_to_revoke(leaving) if leaving else None,
        **_versions(actor, credential, versions, at),
    }


def _watched(rotation: Rotation | None) -> rotation_watch.Figures | None:
    """The new version's attempts since its present share began."""
    if rotation is None or rotation.ended_at is not None:
        return None
    return rotation_watch.figures(rotation, rotation.share_since or rotation.started_at)


def _title(credential: Credential) -> str:
    """The vendor's name, else the provider's own."""
    kind = KINDS.get(credential.provider.kind)
    return kind.title if kind and kind.base_url else credential.provider.name


def _leaving(versions: list[CredentialVersion], rotation: Rotation | None) -> CredentialVersion | None:
    """Whose safety is asked about: the version that a rotation replaces, else the last one that was replaced."""
    if rotation is not None and rotation.old is not None and rotation.state != RotationState.ROLLED_BACK:
        return rotation.old
    gone = (VersionState.RETIRING, VersionState.RETIRED)
    return next((version for version in versions if version.state in gone), None)


def _in_use(version: CredentialVersion, late: dict[int, Figures], rotation: Rotation | None) -> bool:
    ended = (VersionState.RETIRED, VersionState.REVOKED)
    if version.state not in ended or version.number in late:
        return True
    return rotation is not None and rotation.ended_at is None and version.id in (rotation.old_id, rotation.new_id)


def _colors(credential: Credential) -> dict[int, int]:
    """By number, of every version that ever could serve: the newest has the current colour, the one before the
    former's, older ones others."""
    served = [one.number for one in credential.versions.all() if one.verified_at or one.state != VersionState.REVOKED]
    palette = (CURRENT, FORMER, 2, 3, 4, 5)
    return {number: palette[min(place, len(palette) - 1)] for place, number in enumerate(sorted(served, reverse=True))}


def _late(
    credential: Credential, shown: list[CredentialVersion], late: dict[int, Figures], said: dict[UUID, Live]
) -> dict[str, Any]:
    """The last ten minutes, oldest version first, with their sum."""
    known = {version.id: late.get(version.number, Figures()) for version in shown}
    colors = _colors(credential)
    rows = [
        {
            "version": version,
            "color": colors.get(version.number, OTHER),
            "hint": _short(version),
            "state": parts.state_of(version),
            "figures": known[version.id],
            "open": said.get(version.id, Live()).open,
        }
        for version in reversed(shown)
    ]
    return {
        "rows": rows,
        "requests": sum(one.requests for one in known.values()),
        "auth_failures": sum(one.auth_failures for one in known.values()),
        "errors": sum(one.errors for one in known.values()),
        "open": sum(row["open"] for row in rows),
        "cost": sum(one.cost for one in known.values()),
        "digits": wording.digits_for(one.cost for one in known.values()),
    }


def _short(version: CredentialVersion) -> str:
    """The end of the hint, such as `…Tq7d`; empty once the secret is destroyed."""
    hint = _hint(version)
    return f"…{hint.rpartition('…')[2]}" if "…" in hint else hint


def _hint(version: CredentialVersion) -> str:
    return next((part.hint for part in version.fields.all() if part.hint), "")


def _who(actor: Actor, credential: Credential, at: datetime, numbers: list[int]) -> dict[str, Any]:
    """Who used which version of late; the newest is the last column and has a share."""
    columns = sorted(numbers)
    found = version_use.callers(actor, credential.id, at - version_use.WINDOW)
    newest = columns[-1] if columns else 0
    totals = {number: sum(caller.requests.get(number, 0) for caller in found) for number in columns}
    return {
        "columns": columns,
        "newest": newest,
        "rows": [_caller(caller, columns, newest) for caller in found],
        "totals": [totals[number] for number in columns],
        "on_newest": totals.get(newest, 0),
        "all": sum(totals.values()),
        "shared": len(columns) > 1,
        "own_teams_only": actor.teams is not None,
    }


def _caller(caller: Caller, columns: list[int], newest: int) -> dict[str, Any]:
    return {
        "caller": caller,
        "counts": [(number, caller.requests.get(number, 0)) for number in columns],
        "on_newest": caller.requests.get(newest, 0),
    }


def _versions(actor: Actor, credential: Credential, versions: list[CredentialVersion], at: datetime) -> dict[str, Any]:
    spent = version_use.spend_by_version(
        actor, credential.id, [version.number for version in versions], month_start(at)
    )
    revocable = parts.revocable(versions)
    return {
        "versions": [
            {
                "version": version,
                "state": parts.state_of(version),
                "hint": _hint(version),
                "active": parts.active_words(version, at),
                "why": parts.why(version),
                "cost": spent[version.number],
                "revocable": version.number in revocable,
            }
            for version in versions
        ],
        "month": month_name(at),
        "month_cost": sum(spent.values()),
        "month_digits": wording.digits_for(spent.values()),
    }


def _chart(credential: Credential, at: datetime) -> charts.Chart | None:
    """Requests per minute; None where there were none."""
    found = version_use.per_minute(credential.id, at)
    if not found:
        return None
    first = version_use.first_minute(at)
    labels = [f"{first + timedelta(minutes=n):%H:%M}" for n in range(version_use.MINUTES)]
    colors = _colors(credential)
    numbers = sorted(found)
    return charts.stacked(
        "cr-traffic",
        "Requests per minute by version",
        ("Minute (UTC)", labels),
        [(f"v{number}", found[number]) for number in numbers],
        unit="count",
        colors=[colors.get(number, OTHER) for number in numbers],
    )


# --- the same by API and command line ------------------------------------------------------------------------------

_HEADERS = '  -H "Authorization: Bearer $CONDUIT_TOKEN" -H "Content-Type: application/json"'


def _same_as(request: HttpRequest, credential: Credential, under_way: Rotation | None) -> list[dict[str, str]]:
    base = f"{snippets.address(request)}/api/v1/credentials/{credential.id}"
    name = f"{credential.provider.name}/{credential.name}"
    if under_way is None:
        body = '{"secret": "\'"$NEW_SECRET"\'", "canary": {"steps": [1, 10]}}'
        curl = f"curl {base}/rotate \\\n{_HEADERS} \\\n  -d '{body}'"
        cli = f"printenv NEW_SECRET | conduit credentials rotate {name} --canary 1,10"
    elif under_way.state == RotationState.CANARY:
        curl = f"curl -X POST {base}/promote \\\n{_HEADERS} -d '{{}}'"
        cli = f"conduit credentials promote {name}"
    else:
        curl = f"curl -X POST {base}/finish \\\n{_HEADERS} -d '{{}}'"
        cli = f"conduit credentials finish {name}"
    use = f'curl {base}/use \\\n  -H "Authorization: Bearer $CONDUIT_TOKEN"'
    return [
        {"ident": "1", "title": "curl", "text": f"{curl}\n\n{use}"},
        {"ident": "2", "title": "CLI", "text": f"{cli}\n\nconduit credentials use {name}"},
    ]
