"""The clouds' sides on loopback: token services that check what they are shown, model endpoints that check tokens and
recompute signatures with botocore. One server plays all of them; paths tell which."""

from __future__ import annotations

import base64
import http.server
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

SCOPES = "https://www.googleapis.com/auth"
AUDIENCE = "//iam.googleapis.com/projects/123/locations/global/workloadIdentityPools/pool/providers/one"
TENANT, CLIENT, CLIENT_SECRET = "11111111-2222-3333-4444-555555555555", "app-1", "entra-canary~7Yq8Q0d3c1b2a9"
ANSWER = {
    "id": "c1",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "hello"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
}
CLAUDES = {
    "id": "msg_vrtx_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-sonnet-4-5",
    "content": [{"type": "text", "text": "hello"}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {
        "input_tokens": 30,
        "output_tokens": 20,
        "cache_read_input_tokens": 60,
        "cache_creation_input_tokens": 10,
        "cache_creation": {"ephemeral_5m_input_tokens": 4, "ephemeral_1h_input_tokens": 6},
    },
}
PREDICTIONS = {
    "predictions": [{"embeddings": {"values": [0.25, 0.5], "statistics": {"token_count": 4, "truncated": False}}}],
    "metadata": {"billableCharacterCount": 4},
}


def _events() -> bytes:
    """CLAUDES as the stream of it."""
    usage = CLAUDES["usage"]
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": {**CLAUDES, "content": [], "stop_reason": None}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        *(
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": letter}}
            for letter in "hello"
        ),
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": usage},
        {"type": "message_stop"},
    ]
    return b"".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in events)


CLAUDES_STREAM = _events()
_rsa = rsa.generate_private_key(public_exponent=65537, key_size=2048)


def private_key() -> str:
    form = serialization.PrivateFormat.PKCS8
    pem = _rsa.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    return pem.decode()


@dataclass
class Clouds:
    """`lasts`: seconds of the tokens it gives out; `refuses`: the answer of token services instead; `aws`: secrets by
    access key id; `sent`: (path, headers, body) of calls to model endpoints that were let in."""

    url: str = ""
    lasts: int = 3600
    refuses: tuple[int, dict[str, Any]] | None = None
    aws: dict[str, str] = field(default_factory=dict)
    tokens: list[str] = field(default_factory=list)
    sent: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    api_keys: set[str] = field(default_factory=set)
    quotes: str = ""  # a text that refusals of model endpoints quote, with status 400
    says: bytes = b""  # what AWS answers to a POST, with status 403
    subjects: set[str] = field(default_factory=set)  # proofs of identity that Google's token service takes
    denies: bool = False  # to impersonate a service account
    asked: list[str] = field(default_factory=list)  # paths of everything that was asked, in order

    def account(self, **changes: Any) -> dict[str, Any]:
        """A service account's key file."""
        return {
            "type": "service_account",
            "project_id": "project-one",
            "private_key_id": "kid-1",
            "private_key": private_key(),
            "client_email": "bot@project-one.iam.gserviceaccount.com",
            "token_uri": f"{self.url}/google/token",
            **changes,
        }

    def federation(self, **changes: Any) -> dict[str, Any]:
        """A configuration of workload identity federation whose proof of identity lies at this server."""
        return {
            "type": "external_account",
            "audience": AUDIENCE,
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
            "token_url": f"{self.url}/google/sts/token",
            "credential_source": {"url": f"{self.url}/subject", "headers": {"X-Proof": "proof-canary-71c2"}},
            **changes,
        }

    # --- token services

    def token(self, path: str, form: dict[str, str]) -> tuple[int, dict[str, Any]]:
        if self.refuses:
            return self.refuses
        checks = {"/google/token": self._google, "/google/sts/token": self._exchange}
        if path.startswith("/computeMetadata/"):
            trouble = ""
        else:
            trouble = checks[path](form) if path in checks else self._entra(path, form)
        if trouble:
            return 400, {"error": "invalid_grant", "error_description": trouble}
        self.tokens.append(f"token-{len(self.tokens) + 1}-canary-5e3f")
        return 200, {"access_token": self.tokens[-1], "token_type": "Bearer", "expires_in": self.lasts}

    def _google(self, form: dict[str, str]) -> str:
        if form.get("grant_type") != "urn:ietf:params:oauth:grant-type:jwt-bearer":
            return "grant_type"
        signed, _, signature = form.get("assertion", "").rpartition(".")
        try:
            _rsa.public_key().verify(_raw(signature), signed.encode(), padding.PKCS1v15(), hashes.SHA256())
        except InvalidSignature:
            return "Invalid JWT Signature."
        header, claims = (json.loads(_raw(part)) for part in signed.split("."))
        right = {
            "alg": (header["alg"], "RS256"),
            "kid": (header["kid"], "kid-1"),
            "iss": (claims["iss"], "bot@project-one.iam.gserviceaccount.com"),
            "aud": (claims["aud"], f"{self.url}/google/token"),
            "scope": (claims["scope"], "https://www.googleapis.com/auth/cloud-platform"),
        }
        wrong = [name for name, (told, wanted) in right.items() if told != wanted]
        timely = abs(claims["iat"] - time.time()) < 300 and claims["exp"] - claims["iat"] <= 3600
        return ", ".join(wrong) or ("" if timely else "time frame")

    def _exchange(self, form: dict[str, str]) -> str:
        """RFC 8693, as https://cloud.google.com/iam/docs/reference/sts/rest/v1/TopLevel/token has it."""
        right = {
            "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
            "audience": AUDIENCE,
            "requested_token_type": "urn:ietf:params:oauth:token-type:access_token",
        }
        wrong = [name for name, wanted in right.items() if form.get(name) != wanted]
        if form.get("scope") not in (f"{SCOPES}/cloud-platform", f"{SCOPES}/iam"):
            wrong.append("scope")
        subject = form.get("subject_token", "")
        if form.get("subject_token_type") == "urn:ietf:params:aws:token-type:aws4_request":
            wrong += [] if self._signed_by_aws(subject) else ["aws4_request"]
        elif subject not in self.subjects:
            wrong.append(f"subject_token {subject}")
        return ", ".join(wrong)

    def _signed_by_aws(self, subject: str) -> bool:
        """Whether the request to GetCallerIdentity that the proof consists of is signed by keys that are known."""
        request = json.loads(unquote(subject))
        headers = {header["key"].lower(): header["value"] for header in request["headers"]}
        host = urlsplit(request["url"])
        return (
            headers.get("x-goog-cloud-target-resource") == AUDIENCE
            and host.netloc.startswith("sts.")
            and self.signed(
                request["method"], f"{host.path or '/'}?{host.query}", headers, b"", f"https://{host.netloc}"
            )
        )

    def impersonated(self, authorization: str, body: bytes) -> tuple[int, dict[str, Any]]:
        """iamcredentials.generateAccessToken."""
        known = authorization.removeprefix("Bearer ") in self.tokens
        if not known or self.denies or f"{SCOPES}/cloud-platform" not in json.loads(body)["scope"]:
            return 403, {"error": {"message": "Permission 'iam.serviceAccounts.getAccessToken' denied", "code": 403}}
        self.tokens.append(f"token-{len(self.tokens) + 1}-canary-5e3f")
        ends = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + self.lasts))
        return 200, {"accessToken": self.tokens[-1], "expireTime": ends}

    def _entra(self, path: str, form: dict[str, str]) -> str:
        wanted = {
            "grant_type": "client_credentials",
            "client_id": CLIENT,
            "client_secret": CLIENT_SECRET,
            "scope": "https://cognitiveservices.azure.com/.default",
        }
        if path != f"/{TENANT}/oauth2/v2.0/token":
            return "AADSTS90002: no such tenant"
        return "" if form == wanted else f"AADSTS7000215: Invalid client secret {form.get('client_secret')}"

    # --- model endpoints

    def refusal(self, method: str) -> tuple[int, bytes] | None:
        if self.says and method == "POST":
            return 403, self.says
        told = {"error": {"message": f"Not let in with {self.quotes}.", "code": "bad"}}
        return (400, json.dumps(told).encode()) if self.quotes else None

    def let_in(self, method: str, path: str, headers: dict[str, str], body: bytes) -> bool:
        given = headers.get("authorization", "")
        if given.startswith("AWS4-HMAC-SHA256 "):
            return self.signed(method, path, headers, body)
        known = {*self.tokens, *self.api_keys}
        return given.removeprefix("Bearer ") in known or headers.get("api-key") in self.api_keys

    def signed(  # noqa: PLR0913 (the parts of a request)
        self, method: str, path: str, headers: dict[str, str], body: bytes, origin: str = ""
    ) -> bool:
        """Whether botocore comes to the same signature from what arrived."""
        parts = dict(part.split("=", 1) for part in headers["authorization"].split(" ", 1)[1].split(", "))
        key, day, region, service, _ = parts["Credential"].split("/")
        secret = self.aws.get(key)
        stamp = headers["x-amz-date"]
        if secret is None or not stamp.startswith(day) or "host" not in parts["SignedHeaders"].split(";"):
            return False
        kept = {name: headers[name] for name in parts["SignedHeaders"].split(";")}
        request = AWSRequest(method=method, url=(origin or self.url) + path, headers=kept, data=body)
        request.context["timestamp"] = stamp
        auth = SigV4Auth(Credentials(key, secret), service, region)
        text = auth.string_to_sign(request, auth.canonical_request(request))
        return bool(auth.signature(text, request) == parts["Signature"])


def _raw(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _listed(path: str) -> dict[str, Any]:
    if path.startswith("/foundation-models"):
        return {"modelSummaries": [{"modelId": "openai.gpt-oss-20b-1:0"}]}
    if path.startswith("/v1beta1/publishers/google/models"):
        return {"publisherModels": [{"name": "publishers/google/models/gemini-2.5-flash"}]}
    return {"object": "list", "data": [{"id": "gpt-4o"}]}


class _Reply(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    clouds: Clouds

    def do_GET(self) -> None:
        self._answer(b"")

    def do_POST(self) -> None:
        self._answer(self.rfile.read(int(self.headers.get("content-length", 0))))

    def _answer(self, body: bytes) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.clouds.asked.append(self.path)
        if self.path.startswith(("/subject", "/computeMetadata/v1/")):
            self._metadata(headers)
        elif self.path.endswith(":generateAccessToken"):
            self._say(*self.clouds.impersonated(headers.get("authorization", ""), body))
        elif self.path.endswith("/token"):
            form = {name: values[0] for name, values in parse_qs(body.decode()).items()}
            self._say(*self.clouds.token(self.path, form))
        elif refusal := self.clouds.refusal(self.command):
            self._send(*refusal)
        elif not self.clouds.let_in(self.command, self.path, headers, body):
            self._say(401, {"error": {"message": "Not let in.", "code": "401"}})
        else:
            self.clouds.sent.append((self.path, headers, body))
            self._serve()

    def _serve(self) -> None:
        method = self.path.rpartition(":")[2]
        if self.command == "GET":
            self._say(200, _listed(self.path))
        elif method == "streamRawPredict":
            self._send(200, CLAUDES_STREAM, "text/event-stream")
        else:
            self._say(200, {"rawPredict": CLAUDES, "predict": PREDICTIONS}.get(method, ANSWER))

    def _metadata(self, headers: dict[str, str]) -> None:
        if self.path.startswith("/subject"):
            allowed = headers.get("x-proof") == "proof-canary-71c2"
            self._send(200 if allowed else 403, b"subject-canary-9d1e")
        elif headers.get("metadata-flavor") != "Google":
            self._send(403, b"Missing Metadata-Flavor:Google header.")
        elif self.path.endswith("/project/project-id"):
            self._send(200, b"project-two")
        else:
            self._say(*self.clouds.token(self.path, {}))

    def _say(self, status: int, answer: dict[str, Any]) -> None:
        self._send(status, json.dumps(answer).encode())

    def _send(self, status: int, raw: bytes, kind: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        if self.path.startswith("/computeMetadata/"):
            self.send_header("metadata-flavor", "Google")
        self.send_header("content-length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, *rest: object) -> None:
        return


@contextmanager
def running_clouds() -> Iterator[Clouds]:
    clouds = Clouds()

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Reply", (_Reply,), {"clouds": clouds}))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    clouds.url = f"http://127.0.0.1:{server.server_address[1]}"
    yield clouds
    server.shutdown()
    server.server_close()
    thread.join()
