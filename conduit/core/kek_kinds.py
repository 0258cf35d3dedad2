"""The kinds of key-encryption keys, behind one interface: wrap(key, context), unwrap(blob, context).

    BASE64                                                 32 bytes, held by this process
    aws-kms:ARN-or-alias[?region=…&endpoint=…]             AWS KMS; the key never leaves it
    vault-transit:https://HOST/v1/MOUNT/KEY[?namespace=…]  HashiCorp Vault or OpenBao; core/vault_http.py signs in

The context is bound twice where the key lies elsewhere: the service gets it as encryption context or associated data,
and its digest is part of what is encrypted, so that an older service that ignores the former is noticed too.
What a service opened is remembered by digest, so that a reload does not ask once for each credential again.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import threading
from abc import ABC, abstractmethod
from collections import OrderedDict
from typing import Any, Protocol
from urllib.parse import parse_qs, urlsplit

import httpx
import orjson

from conduit.core.errors import ConfigurationError
from conduit.core.sealing import KEY_BYTES, KekUnavailable, Tampered, open_sealed, seal
from conduit.core.vault_http import VaultClient, VaultError, VaultRefused, check_address

KMS, TRANSIT = "aws-kms", "vault-transit"
REMEMBERED = 20_000
DEADLINE = 2.0  # seconds
_CHECKED = b"conduit key check"
_BLOB = b"\x02"  # the first byte of what a service wrapped; sealing.FORMAT is that of a local key
_opened: OrderedDict[bytes, bytes] = OrderedDict()
_opened_lock = threading.Lock()


class Digest(Protocol):
    """What hashlib and hmac give."""

    def digest(self) -> bytes: ...


class Kek(Protocol):
    """`kind` is for people: local, AWS KMS or Vault Transit, with where it lies; never the key.

    `check` tells two keys of the same name apart and nothing about either: a digest under the key, or of the line that
    names a service's key.
    """

    kind: str
    check: str

    def wrap(self, key: bytes, context: bytes) -> bytes:
        """Raises KekUnavailable."""
        ...

    def unwrap(self, blob: bytes, context: bytes) -> bytes:
        """Raises Tampered, KekUnavailable."""
        ...


class LocalKek:
    kind = "local"

    def __init__(self, key: bytes) -> None:
        self._key = key
        self.check = _check(hmac.new(key, _CHECKED, hashlib.sha256))

    def wrap(self, key: bytes, context: bytes) -> bytes:
        return seal(self._key, key, context)

    def unwrap(self, blob: bytes, context: bytes) -> bytes:
        return open_sealed(self._key, blob, context)


class _RemoteKek(ABC):
    """What the services have in common: binding and remembering."""

    kind = ""

    def __init__(self, spec: str) -> None:
        self._name = hashlib.sha256(spec.encode()).digest()
        self.check = _check(hashlib.sha256(_CHECKED + spec.encode()))

    def wrap(self, key: bytes, context: bytes) -> bytes:
        return _BLOB + self._encrypt(key + hashlib.sha256(context).digest(), context)

    def unwrap(self, blob: bytes, context: bytes) -> bytes:
        blob = bytes(blob)
        known = _opened.get(self._place(blob, context))
        if known is not None:
            return known
        if blob[:1] != _BLOB:
            raise Tampered("A wrapped key has an unknown format.")
        plain = self._decrypt(blob[1:], context)
        key, digest = plain[:KEY_BYTES], plain[KEY_BYTES:]
        if not hmac.compare_digest(digest, hashlib.sha256(context).digest()):
            raise Tampered("A wrapped key belongs to another place.")
        self._remember(blob, context, key)
        return key

    def _place(self, blob: bytes, context: bytes) -> bytes:
        return hashlib.sha256(self._name + hashlib.sha256(context).digest() + blob).digest()

    def _remember(self, blob: bytes, context: bytes, key: bytes) -> None:
        with _opened_lock:
            _opened[self._place(blob, context)] = key
            while len(_opened) > REMEMBERED:
                _opened.popitem(last=False)

    @abstractmethod
    def _encrypt(self, plain: bytes, context: bytes) -> bytes: ...

    @abstractmethod
    def _decrypt(self, blob: bytes, context: bytes) -> bytes: ...


def forget() -> None:
    """What was opened so far is asked for again: before a check that must see the services themselves."""
    with _opened_lock:
        _opened.clear()


class TransitKek(_RemoteKek):
    """https://developer.hashicorp.com/vault/api-docs/secret/transit: encrypt and decrypt with associated_data."""

    def __init__(self, spec: str, name: str) -> None:
        super().__init__(spec)
        url = urlsplit(spec.removeprefix(f"{TRANSIT}:"))
        mount, _, key = url.path.removeprefix("/v1/").strip("/").rpartition("/")
        options = _options(name, url.query, {"namespace"})
        if not url.path.startswith("/v1/") or not mount or not key:
            raise ConfigurationError(f"{name} must be {TRANSIT}:https://HOST/v1/MOUNT/KEY. Correct {name}.")
        self._mount, self._key = mount, key
        self._vault = VaultClient(f"{url.scheme}://{url.netloc}", options.get("namespace", ""))
        self.kind = f"Vault Transit {key} at {url.netloc}"

    def _encrypt(self, plain: bytes, context: bytes) -> bytes:
        body = {"plaintext": _text(plain), "associated_data": _text(context)}
        return str(self._ask("encrypt", body, "ciphertext")).encode()

    def _decrypt(self, blob: bytes, context: bytes) -> bytes:
        try:
            ciphertext = blob.decode("ascii")
        except UnicodeDecodeError:
            raise Tampered("A wrapped key is not a ciphertext of Vault.") from None
        answer = self._ask("decrypt", {"ciphertext": ciphertext, "associated_data": _text(context)}, "plaintext")
        return _bytes(answer)

    def _ask(self, act: str, body: dict[str, str], wanted: str) -> Any:
        try:
            answer = self._vault.write(f"{self._mount}/{act}/{self._key}", body)
        except VaultRefused as error:
            if act == "decrypt" and any(said in str(error) for said in ("authentication failed", "invalid ciphertext")):
                raise Tampered("Vault does not open a wrapped key: altered, moved, or of another key.") from None
            raise KekUnavailable(str(error)) from None
        except (VaultError, ConfigurationError) as error:
            raise KekUnavailable(str(error)) from None
        if not isinstance(answer.get(wanted), str):
            raise KekUnavailable(f"Vault answered {act} without {wanted}.")
        return answer[wanted]


class KmsKek(_RemoteKek):
    """https://docs.aws.amazon.com/kms/latest/APIReference: Encrypt and Decrypt, signed with Signature Version 4.

    Credentials come from where the AWS tools take them: environment, shared files, web identity, container, instance.
    """

    def __init__(self, spec: str, name: str) -> None:
        super().__init__(spec)
        self._id, _, query = spec.removeprefix(f"{KMS}:").partition("?")
        options = _options(name, query, {"region", "endpoint"})
        arn = re.fullmatch(r"arn:(aws[\w-]*):kms:([\w-]+):\d*:(?:key|alias)/[\w/-]+", self._id, re.ASCII)
        self._region = options.get("region") or (arn[2] if arn else "")
        if not self._region or not re.fullmatch(r"[\w:/-]+", self._id, re.ASCII):
            raise ConfigurationError(f"{name} must be {KMS}:ARN, or {KMS}:alias/NAME?region=REGION. Correct {name}.")
        domain = "amazonaws.com.cn" if self._region.startswith("cn-") else "amazonaws.com"
        self._endpoint = check_address(options.get("endpoint", f"https://kms.{self._region}.{domain}"))
        self._lock = threading.Lock()
        self._session: Any = None
        self.kind = f"AWS KMS {self._id}"

    def _encrypt(self, plain: bytes, context: bytes) -> bytes:
        return self._ask("Encrypt", {"Plaintext": _text(plain)}, context, "CiphertextBlob")

    def _decrypt(self, blob: bytes, context: bytes) -> bytes:
        return self._ask("Decrypt", {"CiphertextBlob": _text(blob)}, context, "Plaintext")

    def _ask(self, act: str, body: dict[str, str], context: bytes, wanted: str) -> bytes:
        # A digest, because encryption contexts are written to the account's own log in clear text.
        bound = {"conduit": hashlib.sha256(context).hexdigest()}
        raw = orjson.dumps({"KeyId": self._id, "EncryptionContext": bound, **body})
        try:
            with httpx.Client(timeout=DEADLINE, trust_env=False, follow_redirects=False) as client:
                response = client.post(self._endpoint + "/", content=raw, headers=self._signed(act, raw))
        except (httpx.HTTPError, OSError) as error:
            raise KekUnavailable(f"AWS KMS at {self._endpoint} cannot be reached: {type(error).__name__}.") from None
        try:
            answer = orjson.loads(response.content)
        except orjson.JSONDecodeError:
            answer = None
        if not isinstance(answer, dict):
            raise KekUnavailable(f"AWS KMS at {self._endpoint} answered status {response.status_code} without JSON.")
        if response.status_code == 200 and isinstance(answer.get(wanted), str):
            return _bytes(answer[wanted])
        fault = str(answer.get("__type", "")).rpartition("#")[2]
        if fault in ("InvalidCiphertextException", "IncorrectKeyException"):
            raise Tampered("AWS KMS does not open a wrapped key: altered, moved, or of another key.")
        said = str(answer.get("message") or answer.get("Message") or "")[:300]
        raise KekUnavailable(f"AWS KMS refused {act} with {self._id}: {fault or response.status_code}. {said}".strip())

    def _signed(self, act: str, raw: bytes) -> dict[str, str]:
        # Imported where it is needed: most installations have no KMS, and it takes a while.
        from botocore.auth import SigV4Auth  # noqa: PLC0415
        from botocore.awsrequest import AWSRequest  # noqa: PLC0415
        from botocore.exceptions import BotoCoreError  # noqa: PLC0415
        from botocore.session import Session  # noqa: PLC0415

        headers = {"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": f"TrentService.{act}"}
        request = AWSRequest("POST", self._endpoint + "/", headers=headers, data=raw)
        with self._lock:
            try:
                if self._session is None:
                    self._session = Session().get_credentials()
                frozen = self._session.get_frozen_credentials() if self._session is not None else None
            except BotoCoreError as error:
                raise KekUnavailable(f"The credentials for AWS KMS cannot be had: {type(error).__name__}.") from None
        if frozen is None:
            raise KekUnavailable("There are no credentials for AWS KMS: set AWS_ACCESS_KEY_ID or give a role.")
        SigV4Auth(frozen, "kms", self._region).add_auth(request)
        return dict(request.headers.items())


def kek_of(text: str, name: str, place: str = "") -> Kek:
    """The key that a variable's text describes. Raises ConfigurationError that names `place` and never quotes a key."""
    text = text.strip()
    if text.startswith(f"{TRANSIT}:"):
        return TransitKek(text, place or name)
    if text.startswith(f"{KMS}:"):
        return KmsKek(text, place or name)
    try:
        key = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != KEY_BYTES:
        # The text itself is never quoted: it may be a key with one typing error.
        raise ConfigurationError(
            f"{place or name} must be the base64 text of exactly {KEY_BYTES} bytes, "
            f"{KMS}:… or {TRANSIT}:…. Correct {name}."
        )
    return LocalKek(key)


def _check(digest: Digest) -> str:
    """64 bits, in hexadecimal: enough to tell keys apart."""
    return digest.digest()[:8].hex()


def _options(name: str, query: str, known: set[str]) -> dict[str, str]:
    options = {key: values[-1] for key, values in parse_qs(query, keep_blank_values=True).items()}
    if set(options) - known:
        raise ConfigurationError(f"{name} knows only the options {', '.join(sorted(known))}. Correct {name}.")
    return options


def _text(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Tampered("A service answered a wrapped key that is not base64.") from None
