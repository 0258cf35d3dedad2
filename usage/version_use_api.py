"""Management API: how far the versions of a credential are used, and whether one can be revoked at its provider."""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar
from uuid import UUID

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from conduit.core import clock
from conduit.core import live as live_processes
from conduit.core.actor import Actor
from conduit.core.api import ResourceView, RFC3339Field, actor_of, described
from conduit.core.clock import rfc3339
from conduit.core.errors import InvalidInput
from conduit.core.fields import parse_whole
from conduit.core.money import format_usd
from providers import credentials
from providers.models import Credential, CredentialVersion
from usage import revoke_light, version_use


class CheckMetOutput(serializers.Serializer[Any]):
    name = serializers.CharField()
    met = serializers.BooleanField(allow_null=True, help_text="null: it cannot be said now")
    found = serializers.CharField()
    needs = serializers.CharField()


class RevokeLightOutput(serializers.Serializer[Any]):
    colour = serializers.ChoiceField(["red", "yellow", "green"])
    sentence = serializers.CharField()
    checks = CheckMetOutput(many=True)


class VersionUseOutput(serializers.Serializer[Any]):
    version = serializers.IntegerField()
    state = serializers.CharField()
    share = serializers.IntegerField(help_text="percent of the requests it is meant to get while it is a canary")
    requests = serializers.IntegerField(help_text="attempts of the last 10 minutes")
    auth_failures = serializers.IntegerField()
    other_errors = serializers.IntegerField()
    latency_ms_p95 = serializers.FloatField(allow_null=True)
    cost_usd = serializers.CharField(help_text="of the last 10 minutes, of your teams")
    month_cost_usd = serializers.CharField(help_text="since the month began (UTC), of your teams")
    open_requests = serializers.IntegerField(help_text="under way in the web processes that report")
    last_used_at = RFC3339Field(allow_null=True)
    tripped_until = RFC3339Field(allow_null=True, help_text="passed over after the provider refused it")
    per_minute = serializers.ListField(child=serializers.IntegerField(), help_text="the last 60 minutes, oldest first")
    safe_to_revoke = RevokeLightOutput()


class CallerOutput(serializers.Serializer[Any]):
    key = serializers.CharField(allow_null=True)
    name = serializers.CharField()
    route = serializers.CharField()
    requests = serializers.DictField(child=serializers.IntegerField(), help_text="by version number")


class CredentialUseOutput(serializers.Serializer[Any]):
    credential = serializers.CharField()
    name = serializers.CharField()
    provider = serializers.CharField()
    time = RFC3339Field()
    web_processes = serializers.IntegerField(help_text="that reported lately: what is open is theirs")
    routes = serializers.ListField(child=serializers.CharField(), help_text="enabled ones that lead to its provider")
    versions = VersionUseOutput(many=True)
    callers = CallerOutput(many=True)


class CredentialUse(ResourceView):
    resource = "credentials"
    query: ClassVar[frozenset[str]] = frozenset({"version"})

    @described(
        "Show how far each version of a credential is used, and whether it is safe to revoke",
        response=CredentialUseOutput,
        query={"version": "number of one version; all that are not destroyed, and the newest, when it is left out"},
    )
    def get(self, request: Request, id: str) -> Response:
        credential = credentials.find(id)
        return Response(use_body(credential, actor_of(request), _wanted(request.query_params.get("version", ""))))


def _wanted(text: str) -> int | None:
    if not text:
        return None
    try:
        return parse_whole(int(text) if text.isascii() and text.isdigit() and len(text) < 10 else text, 1, 2**31 - 1)
    except InvalidInput as error:
        raise InvalidInput("version", error.detail, error.code) from None


def chosen(credential: Credential, wanted: int | None = None) -> list[CredentialVersion]:
    """Newest first: the one with this number, or the newest and all that may still be used. Raises InvalidInput."""
    rows = list(credential.versions.all())
    if wanted is not None:
        found = [row for row in rows if row.number == wanted]
        if not found:
            raise InvalidInput("version", f"The credential {credential.name} has no version {wanted}.", "unknown")
        return found
    return [row for row in rows if row is rows[0] or row.state not in ("retired", "revoked")]


def use_body(credential: Credential, actor: Actor, wanted: int | None = None) -> dict[str, Any]:
    at = clock.now()
    month = at.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    rows = chosen(credential, wanted)
    web = [process for process in live_processes.alive() if process.kind == "web"]
    late = version_use.figures(actor, credential.id, at - version_use.WINDOW)
    minutes, said = version_use.per_minute(credential.id, at), version_use.live(web)
    spent = version_use.spend_by_version(actor, credential.id, [row.number for row in credential.versions.all()], month)
    callers = version_use.callers(actor, credential.id, at - version_use.WINDOW)
    return {
        "credential": str(credential.id),
        "name": credential.name,
        "provider": credential.provider.name,
        "time": rfc3339(at),
        "web_processes": len(web),
        "routes": version_use.routes_to(credential),
        "versions": [
            {
                **_figures(late.get(row.number, version_use.Figures())),
                **_live(said.get(row.id, version_use.Live()), late.get(row.number)),
                "version": row.number,
                "state": row.state,
                "share": row.share,
                "month_cost_usd": format_usd(spent[row.number]),
                "per_minute": minutes.get(row.number, [0] * version_use.MINUTES),
                "safe_to_revoke": light_body(revoke_light.safe_to_revoke(row)),
            }
            for row in rows
        ],
        "callers": [
            {
                "key": _text(caller.key_id),
                "name": caller.key,
                "route": caller.route,
                "requests": {str(number): count for number, count in sorted(caller.requests.items())},
            }
            for caller in callers
        ],
    }


def _figures(late: version_use.Figures) -> dict[str, Any]:
    return {
        "requests": late.requests,
        "auth_failures": late.auth_failures,
        "other_errors": late.errors,
        "latency_ms_p95": None if late.p95_us is None else late.p95_us / 1000,
        "cost_usd": format_usd(late.cost),
    }


def _live(said: version_use.Live, late: version_use.Figures | None) -> dict[str, Any]:
    last = max((moment for moment in (said.last, late.last if late else None) if moment), default=None)
    return {
        "open_requests": said.open,
        "last_used_at": _moment(last),
        "tripped_until": _moment(said.tripped),
    }


def light_body(light: revoke_light.Light) -> dict[str, Any]:
    checks = [
        {"name": check.name, "met": check.met, "found": check.found, "needs": check.needs} for check in light.checks
    ]
    return {"colour": light.colour, "sentence": light.sentence, "checks": checks}


def _moment(at: datetime | None) -> str | None:
    return rfc3339(at) if at else None


def _text(ident: UUID | None) -> str | None:
    return str(ident) if ident else None
