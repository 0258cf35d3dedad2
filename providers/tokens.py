"""What requests carry where a credential's fields are not sent themselves: access tokens and temporary keys.

    ready(kind, fields, provider)     the fields that adapters read: those given, and what was minted from them
    account_of(kind, fields, provider)    whose they are: AWS account, Google project, Entra tenant; "" where none tells
    minted                            the process's Kept tokens, renewed well before they end by the worker's thread

Tokens are bought through the egress policy, within SECONDS; no message quotes a secret or a token.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from urllib.parse import quote

import httpx
from django.conf import settings

from conduit.core.clock import now
from conduit.core.errors import InvalidInput
from conduit.core.secret import Secret, mask
from providers import egress, google, workload_identity
from providers.adapters.registry import ProviderKind
from providers.errors import UpstreamError
from providers.kept import Kept, Reading, Unavailable
from providers.models import Provider

SECONDS = 5.0
MAX_ANSWER_BYTES = 64 * 1024
AUTHORITY = "https://login.microsoftonline.com"
AUTHORITIES = ("login.microsoftonline.com", "login.microsoftonline.us", "login.partner.microsoftonline.cn")
AZURE_SCOPE = "https://cognitiveservices.azure.com/.default"


class Rejected(Unavailable):
    """Who mints the token does not take the credential."""


@dataclass(frozen=True, slots=True)
class Claim:
    """From what a token is minted. Equal claims share one token. `place`: where what is minted will be sent, "" for
    the kind's own address; `project`: which one pays, where the provider says so."""

    sign_in: str
    fields: tuple[tuple[str, str], ...]
    region: str
    authority: str
    place: str = ""
    project: str = ""

    def __repr__(self) -> str:
        return f"Claim({self.sign_in})"

    def plain(self) -> dict[str, str]:
        return dict(self.fields)


def claim(row: ProviderKind, fields: Mapping[str, str], provider: Provider) -> Claim | None:
    """None where the fields are sent as they are."""
    way = _WAYS.get(row.sign_in)
    if way is None or not way.needs & fields.keys():
        return None
    options = provider.options
    return Claim(
        row.sign_in,
        tuple(sorted(fields.items())),
        provider.region,
        str(options.get("authority") or AUTHORITY),
        provider.base_url,
        str(options.get("project") or ""),
    )


def ready(  # noqa: PLR0913 (a credential, and how to read it)
    row: ProviderKind, fields: Mapping[str, str], provider: Provider, *, wait: bool = True, fresh: bool = False
) -> dict[str, str]:
    """Raises Unavailable; Pending only when it must not wait."""
    wanted = claim(row, fields, provider)
    if wanted is None:
        return dict(fields)
    return {**fields, **minted.get(wanted, wait=wait, fresh=fresh)}


def account_of(row: ProviderKind, fields: Mapping[str, str], provider: Provider) -> str:
    """Asks where it must. Raises Unavailable."""
    way = _WAYS.get(row.sign_in)
    return way.account(fields, provider.region) if way and way.owner & fields.keys() else ""


def check_authority(text: str) -> None:
    """The client secret is sent there. Raises InvalidInput("options.authority", …)."""
    try:
        known = text.startswith("https://") and egress.host_of(text) in AUTHORITIES
        known = known or egress.opened(text, allow=settings.CONDUIT_EGRESS_ALLOW)
    except InvalidInput as refused:
        raise InvalidInput("options.authority", refused.detail, "invalid_url") from None
    if not known:
        raise InvalidInput(
            "options.authority",
            f"Must be https at one of {', '.join(AUTHORITIES)}, or at a host in CONDUIT_EGRESS_ALLOW.",
            "address_not_allowed",
        )


def _mint(wanted: Claim) -> Reading[dict[str, str]]:
    try:
        found, lasts = _WAYS[wanted.sign_in].mint(wanted)
    except InvalidInput as wrong:  # what was allowed when it was saved may not be any more
        raise Unavailable(str(wrong), "Correct the setting, or rotate the credential.") from None
    # A fifth of its life, and at most five minutes, is left when it is renewed; a minute is never used up.
    return Reading(found, renew=max(lasts - max(min(lasts / 5, 300.0), 60.0), lasts / 2), lasts=max(lasts - 10.0, 0.0))


# --- Google --------------------------------------------------------------------------------------------------------


def _google(wanted: Claim) -> tuple[dict[str, str], float]:
    fields = wanted.plain()
    if "service_account" not in fields:
        return _without_key(wanted, fields)
    account: dict[str, str] = json.loads(fields["service_account"])
    google.check_account("service_account", account)
    form = {"grant_type": google.GRANT, "assertion": google.assertion(account, now())}
    token, lasts = _bought(account["token_uri"], form, [Secret(form["assertion"])])
    return {"access_token": token, "project_id": account["project_id"]}, lasts


def _without_key(wanted: Claim, fields: Mapping[str, str]) -> tuple[dict[str, str], float]:
    """These tokens are of Conduit's own surroundings, not of who added the credential: they go to Google only."""
    if wanted.place:
        google.check_google("base_url", wanted.place)
    if "identity" in fields:
        token, lasts, project = workload_identity.attached()
    else:
        (token, lasts), project = workload_identity.exchanged(json.loads(fields["credential_config"])), ""
    project = wanted.project or project
    if not project:
        raise Unavailable("No project is known.", "Set the provider's option project.")
    return {"access_token": token, "project_id": project}, lasts


def _google_owner(fields: Mapping[str, str], region: str) -> str:
    if "identity" in fields:
        return "attached"
    if "service_account" in fields:
        return str(json.loads(fields["service_account"])["project_id"])
    return workload_identity.owner(json.loads(fields["credential_config"]))


# --- Entra ID ------------------------------------------------------------------------------------------------------


def _entra(wanted: Claim) -> tuple[dict[str, str], float]:
    fields = wanted.plain()
    check_authority(wanted.authority)
    url = f"{wanted.authority.rstrip('/')}/{quote(fields['tenant_id'], safe='')}/oauth2/v2.0/token"
    form = {
        "grant_type": "client_credentials",
        "client_id": fields["client_id"],
        "client_secret": fields["client_secret"],
        "scope": AZURE_SCOPE,
    }
    token, lasts = _bought(url, form, [Secret(fields["client_secret"])])
    return {"access_token": token}, lasts


# --- AWS -----------------------------------------------------------------------------------------------------------


def _aws(wanted: Claim) -> tuple[dict[str, str], float]:
    """botocore is loaded only where it is used."""
    assume: Callable[[Mapping[str, str], str], tuple[dict[str, str], float]] = import_module(
        "providers.aws"
    ).assume_role
    return assume(wanted.plain(), wanted.region)


def _aws_account(fields: Mapping[str, str], region: str) -> str:
    ask: Callable[[Mapping[str, str], str], str] = import_module("providers.aws").account_of
    return ask(fields, region)


# --- parts ---------------------------------------------------------------------------------------------------------


def _bought(url: str, form: Mapping[str, str], secrets: list[Secret]) -> tuple[str, float]:
    """(token, seconds it lasts). Raises Unavailable."""
    host = egress.host_of(url)
    try:
        with egress.client(allow=settings.CONDUIT_EGRESS_ALLOW, seconds=SECONDS) as client:
            answer = client.post(url, data=dict(form))
    except httpx.TimeoutException:
        raise Unavailable(f"{host} gave no token within {SECONDS:.0f} seconds.", "Check the network.") from None
    except (httpx.HTTPError, UpstreamError) as error:
        raise Unavailable(f"{host} could not be asked for a token: {error}.", "Check the network.") from None
    try:
        told = answer.json() if len(answer.content) <= MAX_ANSWER_BYTES else None
    except ValueError:
        told = None
    if answer.status_code != 200 or not isinstance(told, dict):
        raise _refused(host, answer.status_code, told, secrets)
    token, lasts = told.get("access_token"), told.get("expires_in")
    if not isinstance(token, str) or not token.isascii() or not token.isprintable() or not isinstance(lasts, int):
        raise Unavailable(f"{host} answered without a token.", "Check the address of the token service.")
    return token, float(lasts)


def _refused(host: str, status: int, told: object, secrets: list[Secret]) -> Unavailable:
    words = told.get("error_description") or told.get("error") if isinstance(told, dict) else ""
    text = mask(str(words or "no reason is told"), secrets).splitlines()[0][:300]
    kind = Rejected if status in (400, 401, 403) else Unavailable
    return kind(f"{host} refuses a token ({status}): {text}", "Check the credential, or make a new one and rotate.")


@dataclass(frozen=True, slots=True)
class _Way:
    """`needs`: fields of which any asks for a token; `owner`: those of which any tells whose the credential is."""

    needs: frozenset[str]
    owner: frozenset[str]
    mint: Callable[[Claim], tuple[dict[str, str], float]]
    account: Callable[[Mapping[str, str], str], str]


_GOOGLE = frozenset(["service_account", "credential_config", "identity"])
_WAYS: Mapping[str, _Way] = {
    "google": _Way(_GOOGLE, _GOOGLE, _google, _google_owner),
    "entra": _Way(
        frozenset(["client_secret"]), frozenset(["tenant_id"]), _entra, lambda fields, region: fields["tenant_id"]
    ),
    "aws": _Way(frozenset(["role_arn"]), frozenset(["access_key_id"]), _aws, _aws_account),
}
minted: Kept[Claim, dict[str, str]] = Kept(_mint, seconds=SECONDS + 1, grace=None, group=lambda wanted: wanted.sign_in)
