"""A real, cheap call to a provider that proves a credential, and the list of models that usually comes with it.

    check(provider, fields) -> Verified      raises VerificationFailed with the provider's own words, secrets masked

The call goes through the egress policy, follows no redirect, uses no proxy of the environment, ends after 10 seconds
and reads at most 4 MiB.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote

import httpx

from conduit.core.clock import monotonic
from conduit.core.errors import InvalidInput
from conduit.core.secret import Secret, mask
from providers import egress
from providers.adapters.base import Adapter, Upstream, UpstreamRequest
from providers.adapters.registry import adapter_for
from providers.errors import NotSent, UpstreamError
from providers.models import Provider
from providers.providers import allow_list, kind_of
from providers.routing import base_url

SECONDS = 10.0
MAX_ANSWER_BYTES = 4 * 1024 * 1024


class VerificationFailed(InvalidInput):
    """`detail` holds the provider's own words, masked; `guidance` what to do about it; `status` 0: no answer came."""

    def __init__(self, field: str, detail: str, code: str, *, status: int = 0, guidance: str = "") -> None:
        super().__init__(field, detail, code)
        self.status, self.guidance = status, guidance


@dataclass(frozen=True, slots=True)
class Verified:
    """The provider took the credential. `models`: names it lists, empty where it lists none."""

    models: tuple[str, ...]
    latency_ms: int


def check(provider: Provider, fields: Mapping[str, Secret]) -> Verified:
    """Calls the provider (saved or not) with these fields. Raises VerificationFailed; saves nothing."""
    row = kind_of(provider)
    secrets = [secret for secret in fields.values() if secret]
    try:
        adapter = adapter_for(provider.kind, provider.options)
    except ValueError as error:
        raise InvalidInput("options.dialect", str(error), "invalid_choice") from None
    upstream = Upstream(
        base_url=base_url(provider),
        model="",
        secrets={name: secret.reveal() for name, secret in fields.items()},
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
    return Verified(tuple(models), round((monotonic() - started) * 1000))


def _kind_of_refusal(error: UpstreamError) -> str:
    """The class's own code: `code` on the instance may be the provider's word."""
    return type(error).code


def masked(text: str, secrets: list[Secret]) -> str:
    """`text` without the secrets, also where it quotes them percent-encoded or as JSON; at most 500 characters."""
    forms = list(secrets)
    for secret in secrets:
        plain = secret.reveal()
        forms += [Secret(other) for other in {quote(plain, safe=""), json.dumps(plain)[1:-1]} - {plain}]
    return mask(text, forms)[:500]


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
            client.stream(request.method, request.url, headers=request.headers, content=request.body or None) as answer,
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
