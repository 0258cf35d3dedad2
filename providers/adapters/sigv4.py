"""AWS Signature Version 4 over a whole request. Pure: the time is given.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from datetime import datetime
from urllib.parse import SplitResult, quote, unquote, urlsplit

import msgspec

ALGORITHM = "AWS4-HMAC-SHA256"


class AwsKeys(msgspec.Struct, frozen=True):
    """With what and for which service a request is signed. Never log it."""

    access_key_id: str
    secret_access_key: str
    session_token: str
    region: str
    service: str

    def __repr__(self) -> str:
        return "AwsKeys(…)"


def signature_headers(  # noqa: PLR0913 (a request's parts, and what signs them)
    method: str, url: str, headers: Mapping[str, str], body: bytes, keys: AwsKeys, at: datetime
) -> dict[str, str]:
    """The headers to add. `at` is aware. Header names are lower case; all of them are signed, and the host."""
    parts = urlsplit(url)
    stamp, day = at.strftime("%Y%m%dT%H%M%SZ"), at.strftime("%Y%m%d")
    digest = hashlib.sha256(body).hexdigest()
    added = {"x-amz-date": stamp}
    if keys.session_token:
        added["x-amz-security-token"] = keys.session_token
    signed = {name: " ".join(text.split()) for name, text in {**headers, **added, "host": _host(parts)}.items()}
    names = ";".join(sorted(signed))
    canonical = "\n".join(
        (
            method,
            _path(parts.path),
            _query(parts.query),
            *(f"{name}:{signed[name]}" for name in sorted(signed)),
            "",
            names,
            digest,
        )
    )
    scope = f"{day}/{keys.region}/{keys.service}/aws4_request"
    text = "\n".join((ALGORITHM, stamp, scope, hashlib.sha256(canonical.encode()).hexdigest()))
    key = ("AWS4" + keys.secret_access_key).encode()
    for part in (day, keys.region, keys.service, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, text.encode(), "sha256").hex()
    authorization = f"{ALGORITHM} Credential={keys.access_key_id}/{scope}, SignedHeaders={names}, Signature={signature}"
    return {**added, "authorization": authorization}


def _host(parts: SplitResult) -> str:
    """As HTTP clients send it: without the scheme's own port."""
    return parts.netloc.removesuffix(":443" if parts.scheme == "https" else ":80")


def _path(path: str) -> str:
    """Each segment encoded once more than on the wire, as every service but S3 wants it."""
    return quote(path or "/", safe="/-_.~")


def _query(query: str) -> str:
    pairs = [pair.partition("=") for pair in query.split("&") if pair]
    encoded = [(quote(unquote(name), safe="-_.~"), quote(unquote(text), safe="-_.~")) for name, _, text in pairs]
    return "&".join(f"{name}={text}" for name, text in sorted(encoded))
