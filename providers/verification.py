"""A real, cheap call to a provider that proves a credential, and the list of models that usually comes with it.

    check(provider, fields) -> Verified      raises VerificationFailed with the provider's own words, secrets masked

The call goes through the egress policy, follows no redirect, uses no proxy of the environment, ends after 10 seconds
and reads at most 4 MiB.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import httpx

from conduit.core.clock import monotonic
from conduit.core.errors import InvalidInput
from conduit.core.secret import Secret, mask
from providers import egress, masks, supply, tokens, vault
from providers.adapters.base import Adapter, Upstream, UpstreamRequest
from providers.adapters.registry import ProviderKind, adapter_for
from providers.errors import NotSent, UpstreamError
from providers.kept import Unavailable
from providers.models import Provider
from providers.providers import allow_list, kind_of
from providers.routing import base_url
from providers.transport import signed

SECONDS = 10.0
MAX_ANSWER_BYTES = 4 * 1024 * 1024
MAX_ACCOUNT = 200


class VerificationFailed(InvalidInput):
    """`detail` holds the provider's own words, masked; `guidance` what to do about it; `status` 0: no answer came."""

    def __init__(self, field: str, detail: str, code: str, *, status: int = 0, guidance: str = "") -> None:
        super().__init__(field, detail, code)
        self.status, self.guidance = status, guidance


@dataclass(frozen=True, slots=True)
class Verified:
    """The provider took the credential. `models`: names it lists, empty where it lists none. `account`: whose the
    credential is, empty where the provider does not tell."""

    models: tuple[str, ...]
    latency_ms: int
    account: str = ""  # whose the credential is, where the provider tells


def destination(provider: Provider) -> tuple[str, str, object]:
    """Where and how a check asks: what was proven holds only for this."""
    return provider.base_url, provider.region, provider.options


def check(provider: Provider, fields: Mapping[str, Secret]) -> Verified:
    """Calls the provider (saved or not) with these fields. Raises VerificationFailed; saves nothing."""
    row = kind_of(provider)
    try:
        adapter = adapter_for(provider.kind, provider.options)
    except ValueError as error:
        raise InvalidInput("options.dialect", str(error), "invalid_choice") from None
    plain = supplied(provider, fields)
    secrets = masks.masks(plain)
    upstream = Upstream(
        base_url=base_url(provider),
        model="",
        secrets=plain,
        options=provider.options,
        region=provider.region,
    )
    started = monotonic()
    try:
        status, headers, body = _send(adapter.verification(upstream), allow_list(provider.kind))
        models = _judge(adapter, status, headers, body)
    except NotSent as error:
        raise VerificationFailed("base_url", masked(error.message, secrets), error.code) from None
    except UpstreamError as error:
        field = "secret" if error.status in (401, 403) else "base_url"
        words = masked(error.message, secrets)
        detail = f"{words} (HTTP {error.status})" if error.status else words
        raise VerificationFailed(
            field, detail, error.code, status=error.status, guidance=row.guidance.get(_kind_of_refusal(error), "")
        ) from None
    account = _told(row, headers, secrets) or _signed_in(row, plain, provider)
    return Verified(tuple(models), round((monotonic() - started) * 1000), account)


def supplied(provider: Provider, fields: Mapping[str, Secret]) -> dict[str, str]:
    """What the call carries, asked anew of sources and token services. Raises VerificationFailed."""
    try:
        return supply.complete(provider, fields, fresh=True)
    except vault.Unreadable as red:
        raise VerificationFailed("secret", red.reason, "source_unreadable", guidance=red.fix) from None


def _told(row: ProviderKind, headers: Mapping[str, str], secrets: list[Secret]) -> str:
    """Whose the answer says it is. Kept and shown, so it must not be a secret sent back."""
    text = headers.get(row.account_header, "") if row.account_header else ""
    return masked(text.strip(), secrets)[:MAX_ACCOUNT] if text.isprintable() else ""


def _signed_in(row: ProviderKind, plain: Mapping[str, str], provider: Provider) -> str:
    """Empty where it cannot be told: the call itself has proved the credential."""
    try:
        return tokens.account_of(row, plain, provider)[:MAX_ACCOUNT]
    except Unavailable:
        return ""


def _kind_of_refusal(error: UpstreamError) -> str:
    """The class's own code: `code` on the instance may be the provider's word."""
    return type(error).code


def masked(text: str, secrets: list[Secret]) -> str:
    """`text` without the secrets; at most 500 characters."""
    return mask(text, secrets)[:500]


def _judge(adapter: Adapter, status: int, headers: Mapping[str, str], body: bytes) -> list[str]:
    if 300 <= status < 400:
        raise UpstreamError(
            "The provider answers with a redirect, which is not followed. Check the base URL.", status=status
        )
    if status >= 400:
        raise adapter.parse_error(status, headers, body)
    return adapter.parse_models(body)


def _send(request: UpstreamRequest, allow: tuple[str, ...]) -> tuple[int, Mapping[str, str], bytes]:
    """(status, headers, body). Raises UpstreamError."""
    until = monotonic() + SECONDS
    try:
        with (
            egress.client(allow=allow, seconds=SECONDS) as client,
            client.stream(request.method, request.url, headers=signed(request), content=request.body or None) as answer,
        ):
            return answer.status_code, answer.headers, _read(answer, until)
    except httpx.TimeoutException:
        raise UpstreamError(
            f"The provider did not answer within {SECONDS:.0f} seconds.", code="upstream_timeout"
        ) from None
    except httpx.HTTPError as error:
        raise UpstreamError(f"The connection to the provider broke: {error}", code="upstream_cut") from None
    except (httpx.InvalidURL, UnicodeEncodeError):
        raise UpstreamError(
            "The request cannot be written: check base URL and options.", code="invalid_request"
        ) from None


def _read(answer: httpx.Response, until: float) -> bytes:
    if answer.headers.get("content-encoding", "identity") != "identity":
        raise UpstreamError(
            "The provider compresses its answer although it was asked not to.", status=answer.status_code
        )
    parts, size = [], 0
    for part in answer.iter_raw():
        size += len(part)
        if size > MAX_ANSWER_BYTES:
            raise UpstreamError("The provider's answer is too large.", status=answer.status_code)
        if monotonic() > until:
            raise UpstreamError(f"The provider's answer took over {SECONDS:.0f} seconds.", code="upstream_timeout")
        parts.append(part)
    return b"".join(parts)
