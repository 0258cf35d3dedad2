"""A local server that answers as HashiCorp Vault and OpenBao do, for tests: no package offers the binary.

Token and AppRole sign-in with leases, KV version 2 at `secret/`, Transit (aes256-gcm96, associated data, key versions)
at `transit/`; status codes and error texts are those of Vault 1.15 and OpenBao 2.

    with running_vault() as vault:
        vault.kv["openai"] = {"api_key": "sk-…"}          # a new version of secret/openai
        vault.token(ttl=60, paths=["secret/*"])            # a token that may use these paths only
        vault.role("conduit", ttl=60)                      # (role id, secret id)
        vault.transit_key("conduit")
        vault.sealed = True; vault.delay = 5.0; vault.requests   # faults, and what was asked
"""

from __future__ import annotations

import base64
import json
import secrets
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import parse_qs, unquote, urlsplit

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

NONCE = 12


class Refused(Exception):
    def __init__(self, status: int, *errors: str) -> None:
        super().__init__(*errors)
        self.status, self.errors = status, list(errors)


@dataclass
class Token:
    paths: Sequence[str]
    ttl: int
    renewable: bool
    ends_at: float


@dataclass
class Version:
    values: dict[str, Any] | None
    created: str


class KeyValues(dict[str, dict[str, Any]]):
    """Name → values; an assignment writes a version more, `del` deletes the newest."""

    def __init__(self) -> None:
        super().__init__()
        self.versions: dict[str, list[Version]] = {}

    def __setitem__(self, name: str, values: dict[str, Any]) -> None:
        self.versions.setdefault(name, []).append(Version(dict(values), _now()))
        super().__setitem__(name, values)

    def __delitem__(self, name: str) -> None:
        self.versions[name][-1].values = None
        super().__delitem__(name)


@dataclass
class VaultServer:
    """`namespace`: the one all of it lies in; a request for another one finds nothing."""

    address: str = ""
    namespace: str = ""
    sealed: bool = False
    delay: float = 0.0
    root: str = field(default_factory=lambda: "hvs." + secrets.token_urlsafe(24))
    kv: KeyValues = field(default_factory=KeyValues)
    requests: list[tuple[str, str]] = field(default_factory=list)
    tokens: dict[str, Token] = field(default_factory=dict)
    roles: dict[str, tuple[str, Token]] = field(default_factory=dict)
    keys: dict[str, list[bytes]] = field(default_factory=dict)
    lock: Any = field(default_factory=threading.RLock)

    def __post_init__(self) -> None:
        self.tokens[self.root] = Token(["*"], 0, False, float("inf"))

    def token(self, *, ttl: int = 0, paths: Sequence[str] = ("*",), renewable: bool = True) -> str:
        """A token that lives `ttl` seconds (0: for ever)."""
        with self.lock:
            made = "hvs." + secrets.token_urlsafe(24)
            ends = time.monotonic() + ttl if ttl else float("inf")
            self.tokens[made] = Token([*paths, "auth/token/*"], ttl, renewable and ttl > 0, ends)
            return made

    def revoke(self, token: str) -> None:
        del self.tokens[token]

    def role(self, name: str, *, ttl: int = 3600, paths: Sequence[str] = ("*",)) -> tuple[str, str]:
        role_id, secret_id = f"{name}-{secrets.token_hex(8)}", secrets.token_hex(16)
        self.roles[role_id] = (secret_id, Token(paths, ttl, True, 0.0))
        return role_id, secret_id

    def transit_key(self, name: str) -> None:
        """Makes the key, or a version more of it."""
        self.keys.setdefault(name, []).append(secrets.token_bytes(32))

    def count(self, part: str) -> int:
        """Requests so far whose path has this part."""
        return sum(part in path for _, path in self.requests)

    # --- one request

    def answer(self, method: str, target: str, headers: Any, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        parts = urlsplit(target)
        path = unquote(parts.path).removeprefix("/v1/")
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        with self.lock:
            self.requests.append((method, path))
            if self.sealed:
                raise Refused(503, "Vault is sealed")
            if headers.get("x-vault-namespace", "").strip("/") != self.namespace:
                raise Refused(404, "no handler for route")
            if path == "auth/approle/login":
                return 200, self._log_in(body)
            raw = headers.get("x-vault-token", "")
            token = self._allowed(raw, path)
            if path.startswith("auth/token/"):
                return 200, self._about(raw, token, path)
            mount, _, rest = path.partition("/")
            if mount == "secret":
                return 200, {"data": self._kv(method, rest, query, body)}
            if mount == "transit":
                return 200, {"data": self._transit(method, rest, body)}
        raise Refused(404, f'no handler for route "{path}". route entry not found.')

    def _allowed(self, raw: str, path: str) -> Token:
        token = self.tokens.get(raw)
        if token is None or token.ends_at <= time.monotonic():
            raise Refused(403, "permission denied", "invalid token")
        if not any(fnmatchcase(path, pattern) for pattern in token.paths):
            raise Refused(403, "1 error occurred:\n\t* permission denied\n\n")
        return token

    def _log_in(self, body: dict[str, Any]) -> dict[str, Any]:
        secret, made = self.roles.get(body.get("role_id", ""), ("", None))
        if made is None or not secrets.compare_digest(secret, body.get("secret_id", "")):
            raise Refused(400, "invalid role or secret ID")
        token = self.token(ttl=made.ttl, paths=made.paths)
        return {"auth": {"client_token": token, "lease_duration": made.ttl, "renewable": True}}

    def _about(self, raw: str, token: Token, path: str) -> dict[str, Any]:
        left = 0 if token.ttl == 0 else max(int(token.ends_at - time.monotonic()), 0)
        if path == "auth/token/lookup-self":
            return {"data": {"ttl": left, "renewable": token.renewable, "creation_ttl": token.ttl}}
        if path == "auth/token/renew-self":
            if not token.renewable:
                raise Refused(400, "lease is not renewable")
            token.ends_at = time.monotonic() + token.ttl
            return {"auth": {"client_token": raw, "lease_duration": token.ttl, "renewable": True}}
        raise Refused(404, "unsupported path")

    def _kv(self, method: str, rest: str, query: dict[str, str], body: dict[str, Any]) -> dict[str, Any]:
        part, _, name = rest.partition("/")
        if part != "data" or not name:
            raise Refused(404)
        if method == "POST":
            self.kv[name] = body["data"]
        versions = self.kv.versions.get(name)
        if not versions:
            raise Refused(404)
        number = int(query.get("version", "0")) or len(versions)
        if not 1 <= number <= len(versions) or versions[number - 1].values is None:
            raise Refused(404)
        one = versions[number - 1]
        about = {"version": number, "created_time": one.created, "deletion_time": "", "destroyed": False}
        return about if method == "POST" else {"data": one.values, "metadata": about}

    def _transit(self, method: str, rest: str, body: dict[str, Any]) -> dict[str, Any]:
        act, _, name = rest.partition("/")
        if act == "keys" and name.endswith("/rotate") and method == "POST":
            self.transit_key(name.removesuffix("/rotate"))
            return {}
        if act == "keys" and method == "POST":
            if name not in self.keys:
                self.transit_key(name)
            return {}
        versions = self.keys.get(name)
        if versions is None:
            raise Refused(400 if method == "POST" else 404, *(["encryption key not found"] if method == "POST" else []))
        if act == "keys":
            return {"name": name, "type": "aes256-gcm96", "latest_version": len(versions), "supports_encryption": True}
        bound = base64.b64decode(body.get("associated_data", ""), validate=True) or None
        if act == "encrypt":
            nonce = secrets.token_bytes(NONCE)
            sealed = AESGCM(versions[-1]).encrypt(nonce, base64.b64decode(body["plaintext"], validate=True), bound)
            text = base64.b64encode(nonce + sealed).decode()
            return {"ciphertext": f"vault:v{len(versions)}:{text}", "key_version": len(versions)}
        if act == "decrypt":
            return {"plaintext": base64.b64encode(_opened(versions, body.get("ciphertext", ""), bound)).decode()}
        raise Refused(404, "unsupported path")


def _opened(versions: Sequence[bytes], ciphertext: str, bound: bytes | None) -> bytes:
    prefix, _, text = ciphertext.removeprefix("vault:v").partition(":")
    if not ciphertext.startswith("vault:v") or not prefix.isdigit():
        raise Refused(400, "invalid ciphertext: no prefix")
    if not 1 <= int(prefix) <= len(versions):
        raise Refused(400, "invalid ciphertext: version is too new")
    try:
        raw = base64.b64decode(text, validate=True)
    except ValueError:
        raise Refused(400, "invalid ciphertext: could not decode base64") from None
    try:
        return AESGCM(versions[int(prefix) - 1]).decrypt(raw[:NONCE], raw[NONCE:], bound)
    except (InvalidTag, ValueError):
        raise Refused(400, "cipher: message authentication failed") from None


def _now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


class _Connection(BaseHTTPRequestHandler):
    server_version, sys_version = "vault", ""
    protocol_version = "HTTP/1.1"
    vault: ClassVar[VaultServer]

    def _do(self) -> None:
        raw = self.rfile.read(int(self.headers.get("content-length") or 0))
        time.sleep(self.vault.delay)
        try:
            body = json.loads(raw) if raw else {}
            status, answer = self.vault.answer(self.command, self.path, self.headers, body)
        except Refused as refused:
            status, answer = refused.status, {"errors": refused.errors}
        except (ValueError, KeyError, TypeError) as error:
            status, answer = 400, {"errors": [f"failed to parse JSON input: {type(error).__name__}"]}
        text = json.dumps({"request_id": secrets.token_hex(8), **answer}).encode()
        try:
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)
        except OSError:
            self.close_connection = True  # the client's deadline passed while it was delayed

    do_GET = do_POST = do_PUT = do_DELETE = _do  # noqa: N815 (the names the library looks up)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Quiet."""


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


@contextmanager
def running_vault(namespace: str = "") -> Iterator[VaultServer]:
    """On a free loopback port, until the block ends."""
    vault = VaultServer(namespace=namespace)
    listener = _Listener(("127.0.0.1", 0), type("Connection", (_Connection,), {"vault": vault}))
    vault.address = f"http://127.0.0.1:{listener.server_address[1]}"
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield vault
    finally:
        listener.shutdown()
        listener.server_close()
        thread.join(5)
