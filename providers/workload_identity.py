"""Google access tokens without a key: an identity from elsewhere exchanged for one, or the machine's own.

    check_config(where, found)   what a configuration of workload identity federation must say
    exchanged(config)            (token, seconds it lasts)
    attached()                   (token, seconds it lasts, project) of the machine that Conduit runs on

Whoever adds credentials writes the configuration, so what it may set in motion is narrow. The proof of identity is a
file below CONDUIT_SECRET_FILES, an address that the egress policy allows, or Conduit's own AWS identity; it is never
what a program prints. It is shown to Google's token service only. google-auth, which does the exchange, reads no file
and opens no connection by itself. https://google.aip.dev/auth/4117
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import httpx
from django.conf import settings

from conduit.core.clock import now
from conduit.core.errors import InvalidInput
from conduit.core.secret import Secret, mask
from providers import egress, sources
from providers.errors import UpstreamError
from providers.google import SCOPE, check_google
from providers.kept import Unavailable

SECONDS = 5.0
MAX_ANSWER_BYTES = 64 * 1024
METADATA = "http://169.254.169.254"  # of Google's machines; an entry of CONDUIT_EGRESS_ALLOW must open it
_AWS_ID = "aws1"
_REFUSED = {
    "executable": "It would run a program of Conduit's machine, which no configuration may. Have the program write the "
    "token to a file below a directory of CONDUIT_SECRET_FILES, and name that.",
    "certificate": "Certificates are not taken here. Use a token from a file or an address.",
}
_FIX = "Check the configuration and the provider of the workload identity pool."


# --- what a configuration must say --------------------------------------------------------------------------------


def check_config(where: str, found: Mapping[str, Any]) -> None:
    """Raises InvalidInput naming the member."""
    if found.get("type") != "external_account":
        raise InvalidInput(
            where,
            "Must be a configuration of workload identity federation (type external_account), as "
            "`gcloud iam workload-identity-pools create-cred-config` writes it.",
            "invalid_credential_config",
        )
    for name in ("audience", "subject_token_type", "token_url"):
        _text(f"{where}.{name}", found.get(name))
    if not found["audience"].startswith("//iam.googleapis.com/"):
        raise InvalidInput(f"{where}.audience", "Must start with //iam.googleapis.com/.", "invalid_credential_config")
    check_google(f"{where}.token_url", found["token_url"])
    if (url := found.get("service_account_impersonation_url")) is not None:
        check_google(f"{where}.service_account_impersonation_url", _text(where, url))
    if found.get("universe_domain", "googleapis.com") != "googleapis.com":
        raise InvalidInput(f"{where}.universe_domain", "Must be googleapis.com.", "invalid_credential_config")
    _check_source(f"{where}.credential_source", found.get("credential_source"))


def _check_source(where: str, source: object) -> None:
    if not isinstance(source, Mapping):
        raise InvalidInput(where, "Must be an object that says where the proof of identity is.", "required")
    for name, reason in _REFUSED.items():
        if name in source:
            raise InvalidInput(f"{where}.{name}", reason, "source_not_allowed")
    if "environment_id" in source:
        if source["environment_id"] != _AWS_ID:
            raise InvalidInput(f"{where}.environment_id", f"Must be {_AWS_ID}.", "invalid_credential_config")
        return
    if len([name for name in ("file", "url") if name in source]) != 1:
        raise InvalidInput(where, "Must name either a file or a url.", "ambiguous")
    if "url" in source:
        _check_url(f"{where}.url", _text(f"{where}.url", source["url"]))
        _check_headers(f"{where}.headers", source.get("headers") or {})
    else:
        _text(f"{where}.file", source["file"])
    form = source.get("format") or {}
    if not isinstance(form, Mapping) or form.get("type", "text") not in ("text", "json"):
        raise InvalidInput(f"{where}.format", "Its type must be text or json.", "invalid_credential_config")
    if form.get("type") == "json":
        _text(f"{where}.format.subject_token_field_name", form.get("subject_token_field_name"))


def _text(where: str, value: object) -> str:
    if not isinstance(value, str) or not value:
        raise InvalidInput(where, "The configuration must have it as a text.", "required")
    return value


def _check_url(where: str, url: str) -> None:
    try:
        egress.check_call(url, allow=settings.CONDUIT_EGRESS_ALLOW)
    except UpstreamError as refused:
        raise InvalidInput(where, refused.message, "address_not_allowed") from None


def _check_headers(where: str, headers: object) -> None:
    if not isinstance(headers, Mapping) or len(headers) > 8:
        raise InvalidInput(where, "Must be an object of at most 8 headers.", "invalid_type")
    for name, value in headers.items():
        plain = isinstance(value, str) and value.isascii() and value.isprintable()
        if not plain or not str(name).replace("-", "").isalnum() or str(name).lower() in ("host", "content-length"):
            raise InvalidInput(
                f"{where}.{str(name)[:64]}", "Must be a plain header with an ASCII text.", "invalid_header"
            )


def owner(config: Mapping[str, Any]) -> str:
    """Whose tokens it gives: the service account that is impersonated, else the pool."""
    impersonated = str(config.get("service_account_impersonation_url") or "")
    if impersonated:
        return impersonated.rpartition("/")[2].partition(":")[0]
    return str(config["audience"]).removeprefix("//iam.googleapis.com/")


# --- the exchange -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Answer:
    """What google-auth wants of an answer."""

    status: int
    headers: Mapping[str, str]
    data: bytes


@dataclass(slots=True)
class _Calls:
    """google-auth's way out: our client, with the egress policy, a deadline and a bound. `shown`: the proofs of
    identity so far, which no message may quote."""

    shown: list[Secret] = field(default_factory=list)

    def __call__(  # noqa: PLR0913 (google-auth's own parameters)
        self,
        url: str,
        method: str = "GET",
        body: bytes | None = None,
        headers: Any = None,
        timeout: Any = None,
        **more: Any,
    ) -> _Answer:
        """Raises Unavailable."""
        status, told, data = _call(method, url, headers or {}, body)
        return _Answer(status, told, data)


@dataclass(frozen=True, slots=True)
class _Subject:
    """The proof of identity, from where the configuration says."""

    source: Mapping[str, Any]
    calls: _Calls

    def get_subject_token(self, context: object, request: object) -> str:
        """google-auth's name for it. Raises Unavailable."""
        text = self._read()
        form = self.source.get("format") or {}
        if form.get("type") == "json":
            name = form["subject_token_field_name"]
            try:
                found = json.loads(text)
            except ValueError:
                found = None
            inner = found.get(name) if isinstance(found, dict) else None
            if not isinstance(inner, str):
                raise Unavailable(f"The proof of identity is not a JSON object with a text named {name}.", _FIX)
            text = inner
        if not text.strip():
            raise Unavailable("The proof of identity is empty.", _FIX)
        self.calls.shown.append(Secret(text))
        return text.strip()

    def _read(self) -> str:
        if "file" in self.source:
            return sources.read_file(self.source["file"])
        status, _, data = _call("GET", self.source["url"], self.source.get("headers") or {}, None)
        if status != 200:
            raise Unavailable(f"The address of the proof of identity answers with status {status}.", _FIX)
        return data.decode("utf-8", "replace")


class _AwsIdentity:
    """Conduit's own AWS identity, found as botocore finds it: google-auth would ask metadata servers by itself."""

    def __init__(self) -> None:
        key, secret, token, self._region = import_module("providers.aws").own_keys()
        self.secrets = [Secret(text) for text in (secret, token) if text]
        self._keys = (key, secret, token or None)

    def get_aws_security_credentials(self, context: object, request: object) -> Any:
        return import_module("google.auth.aws").AwsSecurityCredentials(*self._keys)

    def get_aws_region(self, context: object, request: object) -> str:
        return str(self._region)


def exchanged(config: Mapping[str, Any]) -> tuple[str, float]:
    """Raises Unavailable; InvalidInput for what was allowed when it was saved and is not any more."""
    check_config("credential_config", config)
    calls = _Calls()
    credentials = _credentials(config, calls)
    problems = import_module("google.auth.exceptions").GoogleAuthError
    try:
        credentials.refresh(calls)
    except problems as error:
        words = mask(_words(error), calls.shown)[:300]
        raise Unavailable(f"Google refuses a token: {words}", _FIX) from None
    except (KeyError, TypeError, ValueError):
        raise Unavailable("Google's token service answered without a token.", _FIX) from None
    if not isinstance(credentials.token, str) or not credentials.token.isascii() or credentials.expiry is None:
        raise Unavailable("Google's token service answered without a token.", _FIX)
    lasts = (credentials.expiry.replace(tzinfo=now().tzinfo) - now()).total_seconds()
    return credentials.token, lasts


def _credentials(config: Mapping[str, Any], calls: _Calls) -> Any:
    """google-auth is loaded only where it is used. It gets what we checked, and no source to read by itself."""
    source = config["credential_source"]
    given: dict[str, Any] = {
        "audience": config["audience"],
        "subject_token_type": config["subject_token_type"],
        "token_url": config["token_url"],
        "service_account_impersonation_url": config.get("service_account_impersonation_url"),
        "service_account_impersonation_options": config.get("service_account_impersonation") or {},
        "client_id": config.get("client_id"),
        "client_secret": config.get("client_secret"),
        "workforce_pool_user_project": config.get("workforce_pool_user_project"),
        "scopes": [SCOPE],
    }
    if "environment_id" in source:
        identity = _AwsIdentity()
        calls.shown += identity.secrets
        return import_module("google.auth.aws").Credentials(**given, aws_security_credentials_supplier=identity)
    subject = _Subject(source, calls)
    return import_module("google.auth.identity_pool").Credentials(**given, subject_token_supplier=subject)


def _words(error: Exception) -> str:
    """google-auth's sentence, and the service's own where it lays it beside."""
    texts = [str(arg) for arg in error.args if isinstance(arg, str)]
    try:
        told = json.loads(texts[-1])["error"]
        return str(told.get("message") if isinstance(told, dict) else texts[0])
    except (IndexError, ValueError, KeyError, TypeError):
        return texts[0] if texts else type(error).__name__


def _call(
    method: str, url: str, headers: Mapping[str, str], body: bytes | None
) -> tuple[int, Mapping[str, str], bytes]:
    """(status, headers, body). Raises Unavailable."""
    host = httpx.URL(url).host
    try:
        with (
            egress.client(allow=settings.CONDUIT_EGRESS_ALLOW, seconds=SECONDS) as client,
            client.stream(method, url, headers=dict(headers), content=body) as answer,
        ):
            data = b""
            for part in answer.iter_raw():
                data += part
                if len(data) > MAX_ANSWER_BYTES:
                    raise Unavailable(f"{host} answers with more than a token.", _FIX)
            return answer.status_code, answer.headers, data
    except httpx.TimeoutException:
        raise Unavailable(f"{host} did not answer within {SECONDS:.0f} seconds.", "Check the network.") from None
    except (httpx.HTTPError, UpstreamError) as error:
        raise Unavailable(f"{host} could not be asked: {error}.", "Check the network.") from None


# --- the machine's own identity -----------------------------------------------------------------------------------


def check_attached(where: str) -> None:
    """Whoever gets the machine's token is the machine, so an operator of the installation must have opened it."""
    if not egress.opened(METADATA, allow=settings.CONDUIT_EGRESS_ALLOW):
        host = egress.host_of(METADATA)
        raise InvalidInput(
            where,
            f"The identity of Conduit's own machine is closed. Name {host} in CONDUIT_EGRESS_ALLOW to open it.",
            "address_not_allowed",
        )


def attached() -> tuple[str, float, str]:
    """Raises Unavailable; InvalidInput when it is closed."""
    check_attached("identity")
    told = json.loads(_metadata(f"instance/service-accounts/default/token?scopes={SCOPE}"))
    token, lasts = told.get("access_token"), told.get("expires_in")
    if not isinstance(token, str) or not token.isascii() or not isinstance(lasts, int):
        raise Unavailable("The metadata server answers without a token.", "Attach a service account to the machine.")
    return token, float(lasts), _metadata("project/project-id")


def _metadata(path: str) -> str:
    url = f"{METADATA}/computeMetadata/v1/{path}"
    status, headers, data = _call("GET", url, {"metadata-flavor": "Google"}, None)
    if status != 200 or headers.get("metadata-flavor") != "Google":
        raise Unavailable(
            f"The machine's metadata server answers with status {status}.",
            "Run Conduit on Google Cloud with a service account attached, or use another way to sign in.",
        )
    return data.decode("utf-8", "replace").strip()
