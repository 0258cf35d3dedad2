"""HashiCorp Vault and OpenBao over HTTP: reads and writes of one path, with a token that is kept alive.

    VaultClient("https://vault:8200").read("secret/data/openai")["data"]
    VaultClient(address, namespace="team").write("transit/encrypt/conduit", {"plaintext": …})

Signing in: CONDUIT_VAULT_TOKEN, else AppRole with CONDUIT_VAULT_ROLE_ID and CONDUIT_VAULT_SECRET_ID; each also as
NAME_FILE, which is read again when Vault refuses, so that an agent may replace it. CONDUIT_VAULT_CA names a file with
the certificate authority of a private one. Neither tokens nor answers are ever part of an error or a log line.

VaultError
├── VaultUnreachable   no answer in DEADLINE seconds, no connection, no valid certificate, or sealed
├── VaultDenied        the token or the AppRole is not accepted, or its policy does not allow the path
├── VaultMissing       nothing lies at the path
└── VaultRefused       any other answer; quotes what Vault says
"""

from __future__ import annotations

import ipaddress
import os
import ssl
import threading
import time
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
import orjson

from conduit.core.errors import ConduitError, ConfigurationError

TOKEN, ROLE_ID, SECRET_ID = "CONDUIT_VAULT_TOKEN", "CONDUIT_VAULT_ROLE_ID", "CONDUIT_VAULT_SECRET_ID"  # noqa: S105
CA = "CONDUIT_VAULT_CA"
LOGIN = "auth/approle/login"
DEADLINE = 2.0  # seconds
MAX_ANSWER = 2**20
SEALED = 503


class VaultError(ConduitError):
    """Vault did not give what was asked for; the message names the address, the path and the cause."""


class VaultUnreachable(VaultError):
    """No answer in time, no connection, or sealed: another try may succeed."""


class VaultDenied(VaultError):
    """Not signed in, or not allowed."""


class VaultMissing(VaultError):
    """Nothing lies at this path."""


class VaultRefused(VaultError):
    """Any other answer that is not a success."""


@dataclass(slots=True)
class _Session:
    """`renew_at` and `ends_at` in monotonic seconds; both None for a token whose end is unknown."""

    token: str
    renew_at: float | None = None
    ends_at: float | None = None


class VaultClient:
    """One server. Safe to share between threads, and after a fork."""

    def __init__(self, address: str, namespace: str = "", *, environment: Mapping[str, str] | None = None) -> None:
        """Raises ConfigurationError for an address that is not https (http only to this machine)."""
        self.address, self.namespace = check_address(address), namespace
        self._environment = os.environ if environment is None else environment
        self._lock = threading.Lock()
        self._session: _Session | None = None
        self._http: httpx.Client | None = None
        self._process = 0

    def __repr__(self) -> str:
        return f"VaultClient({self.address})"

    def read(self, path: str, **parameters: str | int) -> dict[str, Any]:
        """The `data` of what lies at the path (without /v1/). Raises VaultError."""
        return self._call("GET", path, None, parameters)

    def write(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """The `data` of the answer, empty where there is none. Raises VaultError."""
        return self._call("POST", path, body, {})

    # --- one call

    def _call(
        self, method: str, path: str, body: Mapping[str, Any] | None, parameters: Mapping[str, str | int]
    ) -> dict[str, Any]:
        session = self._signed_in()
        try:
            answer = self._send(method, path, body, session.token, parameters)
        except VaultDenied:
            fresh = self._signed_in(refused=session)
            if fresh.token == session.token:
                raise
            answer = self._send(method, path, body, fresh.token, parameters)
        found = answer.get("data")
        return found if isinstance(found, dict) else {}

    def _send(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None,
        token: str,
        parameters: Mapping[str, str | int] | None = None,
    ) -> dict[str, Any]:
        """The whole JSON answer."""
        headers = {"x-vault-request": "true"}
        if token:
            headers["x-vault-token"] = token
        if self.namespace:
            headers["x-vault-namespace"] = self.namespace
        url = f"{self.address}/v1/{_path(path)}"
        until = time.monotonic() + DEADLINE
        try:
            with self._client().stream(
                method, url, json=body, headers=headers, params=dict(parameters or {})
            ) as response:
                raw = b""
                for part in response.iter_bytes():
                    raw += part
                    if time.monotonic() > until or len(raw) > MAX_ANSWER:
                        raise VaultUnreachable(f"Vault at {self.address} took too long to answer for {path}.")
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise VaultUnreachable(f"Vault at {self.address} cannot be reached: {_cause(error)}.") from None
        return self._read_answer(path, response.status_code, raw, token)

    def _read_answer(self, path: str, status: int, raw: bytes, token: str) -> dict[str, Any]:
        try:
            answer = orjson.loads(raw) if raw else {}
        except orjson.JSONDecodeError:
            answer = None
        if 200 <= status < 300 and isinstance(answer, dict):
            return answer
        errors = answer.get("errors") if isinstance(answer, dict) else None
        said = "; ".join(str(one) for one in errors) if isinstance(errors, list) else ""
        if token:
            said = said.replace(token, "…")
        told = f" It says: {said[:300]}" if said else ""
        where = f"Vault at {self.address}"
        if status in (401, 403) or (status == 400 and path == LOGIN):
            raise VaultDenied(f"{where} does not allow {path}. Check the token or the AppRole, and its policy.{told}")
        if status == 404 and not said:
            raise VaultMissing(f"{where} has nothing at {path}. Check the mount and the name.")
        if status in (429, 472, 473, SEALED):
            raise VaultUnreachable(f"{where} is sealed, in standby or overloaded (status {status}).{told}")
        raise VaultRefused(f"{where} refused {path} with status {status}.{told}")

    def _client(self) -> httpx.Client:
        with self._lock:
            if self._http is None or self._process != os.getpid():
                # Connections that a parent process opened must not be used by two.
                self._http, self._process = self._fresh_client(), os.getpid()
                weakref.finalize(self, self._http.close).atexit = False
            return self._http

    def _fresh_client(self) -> httpx.Client:
        verify: ssl.SSLContext | bool = True
        authority = self._environment.get(CA, "")
        if authority:
            try:
                verify = ssl.create_default_context(cafile=authority)
            except (OSError, ssl.SSLError):
                raise ConfigurationError(
                    f"{CA} names {authority}, which holds no certificate that can be read. Correct the path."
                ) from None
        return httpx.Client(timeout=DEADLINE, verify=verify, trust_env=False, follow_redirects=False)

    # --- the token

    def _signed_in(self, refused: _Session | None = None) -> _Session:
        """The session to use. `refused`: Vault no longer takes this one."""
        now = time.monotonic()
        session = self._session
        ended = session is not None and session.ends_at is not None and session.ends_at <= now
        if session is None or session is refused or ended:
            self._session = session = self._sign_in()
        elif session.renew_at is not None and session.renew_at <= now:
            self._session = session = self._renewed(session)
        return session

    def _sign_in(self) -> _Session:
        token = _setting(self._environment, TOKEN)
        if token:
            return self._looked_up(token)
        role, secret = _setting(self._environment, ROLE_ID), _setting(self._environment, SECRET_ID)
        if not role:
            raise ConfigurationError(
                f"Nothing says how to sign in to Vault at {self.address}: set {TOKEN}, or {ROLE_ID} and {SECRET_ID}."
            )
        answer = self._send("POST", LOGIN, {"role_id": role, "secret_id": secret}, "")
        return self._session_of(answer, LOGIN)

    def _looked_up(self, token: str) -> _Session:
        try:
            about = self._send("GET", "auth/token/lookup-self", None, token).get("data") or {}
        except VaultDenied:
            return _Session(token)  # its policy may forbid the question; the call itself will tell
        return _session(token, about.get("ttl"), bool(about.get("renewable")))

    def _renewed(self, session: _Session) -> _Session:
        try:
            answer = self._send("POST", "auth/token/renew-self", {}, session.token)
            return self._session_of(answer, "auth/token/renew-self")
        except VaultUnreachable:
            return session  # still good until it ends
        except VaultError:
            return self._sign_in()

    def _session_of(self, answer: Mapping[str, Any], path: str) -> _Session:
        about = answer.get("auth")
        if not isinstance(about, dict) or not isinstance(about.get("client_token"), str):
            raise VaultRefused(f"Vault at {self.address} answered {path} without a token.")
        return _session(about["client_token"], about.get("lease_duration"), bool(about.get("renewable")))


def _session(token: str, seconds: object, renewable: bool) -> _Session:
    if not isinstance(seconds, int) or isinstance(seconds, bool) or seconds <= 0:
        return _Session(token)
    now = time.monotonic()
    return _Session(token, now + seconds * 2 / 3 if renewable else None, now + seconds)


def _setting(environment: Mapping[str, str], name: str) -> str:
    path = environment.get(f"{name}_FILE", "")
    if not path:
        return environment.get(name, "").strip()
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        raise ConfigurationError(f"{name}_FILE names {path}, which cannot be read. Correct the path.") from None


def check_address(address: str) -> str:
    """Without a final slash or /v1. Raises ConfigurationError: only https keeps what is sent secret."""
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query or parts.fragment:
        raise ConfigurationError(f"{address!r} is not an address. Write https://HOST or https://HOST:PORT.")
    if parts.scheme == "http" and not _loopback(parts.hostname):
        raise ConfigurationError(f"{address!r} would send secrets in clear text. Write https://.")
    return address.rstrip("/").removesuffix("/v1")


def _loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _path(path: str) -> str:
    segments = path.strip("/").split("/")
    if any(segment in ("", ".", "..") for segment in segments):
        raise VaultRefused(f"{path[:200]!r} is not a path in Vault. Write MOUNT/NAME.")
    return "/".join(quote(segment, safe="") for segment in segments)


def _cause(error: Exception) -> str:
    if isinstance(error, httpx.TimeoutException):
        return f"no answer within {DEADLINE:.0f} seconds"
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
