"""Google service accounts: what a key file must say, and the signed assertion that buys an access token.

https://developers.google.com/identity/protocols/oauth2/service-account#authorizingrequests
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from django.conf import settings

from conduit.core.errors import InvalidInput
from providers import egress

SCOPE = "https://www.googleapis.com/auth/cloud-platform"
GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
LASTS = 3600  # seconds, the most that Google takes
_TEXTS = ("project_id", "client_email", "private_key", "token_uri")
_OTHERS = {
    "authorized_user": "These are a person's own credentials (gcloud auth application-default login).",
    "external_account": "This is a configuration of workload identity federation: it belongs into credential_config.",
}


def check_account(where: str, found: Mapping[str, Any]) -> None:
    """Raises InvalidInput naming the member; quotes none of the secret ones."""
    kind = found.get("type")
    if kind != "service_account":
        told = _OTHERS.get(str(kind), "This is not the key file of a service account: its member type must say so.")
        raise InvalidInput(where, f"{told} Here goes a JSON key of a service account.", "invalid_service_account")
    for name in _TEXTS:
        if not isinstance(found.get(name), str) or not found[name]:
            raise InvalidInput(f"{where}.{name}", "The key file must have it as a text.", "required")
    if "@" not in found["client_email"]:
        raise InvalidInput(f"{where}.client_email", "Must be the service account's address.", "invalid_service_account")
    check_google(f"{where}.token_uri", found["token_uri"])
    _private_key(where, found["private_key"])


def check_google(where: str, url: str) -> None:
    """What proves who we are buys a token from whoever receives it, so it goes to Google only, or where an operator of
    the installation allows. Raises InvalidInput(where, …)."""
    try:
        host = egress.host_of(url)
        own = url.startswith("https://") and (host == "googleapis.com" or host.endswith(".googleapis.com"))
        own = own or egress.opened(url, allow=settings.CONDUIT_EGRESS_ALLOW)
    except InvalidInput as refused:
        raise InvalidInput(where, refused.detail, "invalid_url") from None
    if not own:
        raise InvalidInput(
            where,
            f"Must be https at googleapis.com; {host} is neither that nor in CONDUIT_EGRESS_ALLOW.",
            "address_not_allowed",
        )


def _private_key(where: str, pem: str) -> RSAPrivateKey:
    try:
        key = load_pem_private_key(pem.encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, RSAPrivateKey):
        raise InvalidInput(
            f"{where}.private_key",
            "Must be an RSA key as PEM, whole and without a password. Download the key file again.",
            "invalid_service_account",
        )
    return key


def assertion(account: Mapping[str, str], at: datetime) -> str:
    """The signed claim, for the body of the request to `token_uri`."""
    began = int(at.timestamp())
    header: dict[str, Any] = {"alg": "RS256", "typ": "JWT"}
    if account.get("private_key_id"):
        header["kid"] = account["private_key_id"]
    claims = {
        "iss": account["client_email"],
        "scope": SCOPE,
        "aud": account["token_uri"],
        "iat": began,
        "exp": began + LASTS,
    }
    signed = f"{_segment(header)}.{_segment(claims)}"
    key = _private_key("service_account", account["private_key"])
    return f"{signed}.{_encoded(key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256()))}"


def _segment(part: Mapping[str, Any]) -> str:
    return _encoded(json.dumps(part, separators=(",", ":")).encode())


def _encoded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
