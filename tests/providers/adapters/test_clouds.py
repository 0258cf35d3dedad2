"""The clouds' endpoints in OpenAI's wire format: where requests go, and how they are signed."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given, settings
from hypothesis import strategies as st

from providers.adapters.base import Head, Upstream
from providers.adapters.registry import adapter_for
from providers.adapters.sigv4 import AwsKeys, signature_headers
from providers.adapters.types import ChatRequest, Endpoint, Message, Text
from providers.errors import InvalidResponse

HELLO = ChatRequest(model="r", messages=(Message(role="user", parts=(Text(text="Hello"),)),))
KEYS = {"access_key_id": "AKIAIOSFODNN7EXAMPLE", "secret_access_key": "wJalrXUtnFEMI/K7MDENG"}
AT = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)


def upstream(base_url: str, region: str = "us-east-1", secrets: Any = None, **options: Any) -> Upstream:
    return Upstream(base_url=base_url, model="m", secrets=secrets or {}, options=options, region=region)


def botocores(method: str, url: str, headers: dict[str, str], body: bytes, keys: AwsKeys) -> str:
    stamp = AT.strftime("%Y%m%dT%H%M%SZ")
    more = {"X-Amz-Date": stamp}
    if keys.session_token:
        more["X-Amz-Security-Token"] = keys.session_token
    request = AWSRequest(method=method, url=url, headers={**headers, **more}, data=body)
    request.context["timestamp"] = stamp
    auth = SigV4Auth(Credentials(keys.access_key_id, keys.secret_access_key), keys.service, keys.region)
    text = auth.string_to_sign(request, auth.canonical_request(request))
    return str(auth.signature(text, request))


@settings(deadline=None, max_examples=150)
@given(
    path=st.lists(st.sampled_from(["openai", "v1", "chat", "a%20b", "x~y", "m:0", "a+b"]), max_size=4),
    query=st.lists(st.sampled_from(["b=2", "a=1", "a=%20", "c=", "z~=1"]), unique=True, max_size=3),
    headers=st.dictionaries(
        st.sampled_from(["content-type", "x-one", "x-amz-other"]), st.sampled_from(["a", "a  b", " c "]), max_size=3
    ),
    body=st.binary(max_size=64),
    token=st.sampled_from(["", "session/token=="]),
    host=st.sampled_from(["bedrock.us-east-1.amazonaws.com", "127.0.0.1:8443"]),
)
def test_signatures_are_those_of_botocore(
    path: list[str], query: list[str], headers: dict[str, str], body: bytes, token: str, host: str
) -> None:
    url = f"https://{host}/{'/'.join(path)}" + (f"?{'&'.join(query)}" if query else "")
    keys = AwsKeys("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG", token, "us-east-1", "bedrock")
    made = signature_headers("POST", url, headers, body, keys, AT)
    assert made["authorization"].rpartition("Signature=")[2] == botocores("POST", url, headers, body, keys)
    assert made["x-amz-date"] == "20260304T050607Z"
    assert made.get("x-amz-security-token", "") == token


def test_any_change_of_a_request_changes_its_signature() -> None:
    keys = AwsKeys(*KEYS.values(), "", "us-east-1", "bedrock")
    url = "https://bedrock-runtime.us-east-1.amazonaws.com/openai/v1/chat/completions"
    variants = [
        signature_headers("POST", url, {"content-type": "a"}, b"{}", keys, AT),
        signature_headers("POST", url, {"content-type": "a"}, b"{ }", keys, AT),
        signature_headers("POST", url, {"content-type": "b"}, b"{}", keys, AT),
        signature_headers("PUT", url, {"content-type": "a"}, b"{}", keys, AT),
        signature_headers("POST", url + "x", {"content-type": "a"}, b"{}", keys, AT),
        signature_headers("POST", url, {"content-type": "a"}, b"{}", keys, AT.replace(second=8)),
    ]
    assert len({made["authorization"] for made in variants}) == len(variants)
    assert "wJalr" not in str(variants)
    assert "wJalr" not in repr(keys)


def test_bedrock_requests_carry_keys_to_sign_with_or_a_bearer() -> None:
    adapter = adapter_for("bedrock", {}, "openai.gpt-oss-20b-1:0")
    base = "https://bedrock-runtime.us-east-1.amazonaws.com/openai/v1"
    built = adapter.build_request(HELLO, upstream(base, secrets=KEYS))
    assert built.url == f"{base}/chat/completions"
    assert built.signing == AwsKeys(*KEYS.values(), "", "us-east-1", "bedrock")
    assert "authorization" not in built.headers
    passed = adapter.pass_through(
        b'{"model":"r","messages":[]}', Head(endpoint=Endpoint.CHAT, model="r"), upstream(base, secrets=KEYS)
    )
    assert passed.signing == built.signing
    key = adapter.build_request(HELLO, upstream(base, secrets={"api_key": "k-1"}))
    assert (key.signing, key.headers["authorization"]) == (None, "Bearer k-1")
    proof = adapter.verification(upstream(base, secrets=KEYS))
    assert proof.url == "https://bedrock.us-east-1.amazonaws.com/foundation-models"
    assert proof.signing == built.signing


def test_azure_takes_a_token_or_a_key_in_its_own_header() -> None:
    adapter = adapter_for("azure_openai", {})
    base = "https://house.openai.azure.com/openai/v1"
    built = adapter.build_request(HELLO, upstream(base, "", {"api_key": "k-1"}))
    assert built.url == f"{base}/chat/completions"
    assert (built.headers["api-key"], "authorization" in built.headers) == ("k-1", False)
    token = adapter.build_request(HELLO, upstream(base, "", {"access_token": "t-1", "client_secret": "s"}))
    assert (token.headers["authorization"], "api-key" in token.headers) == ("Bearer t-1", False)


@pytest.mark.parametrize("kind", ["bedrock", "vertex"])
@pytest.mark.parametrize("body", [b"", b"[]", b'{"modelSummaries": 3, "publisherModels": 3}', b"\xff"])
def test_a_list_of_models_that_is_none_is_told(kind: str, body: bytes) -> None:
    with pytest.raises(InvalidResponse):
        adapter_for(kind, {}).parse_models(body)
