"""No secret can be found at rest, in logs, pages, answers or figures: after real traffic, errors included."""

from __future__ import annotations

import base64
import json
import re
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx

from tests.end_to_end.canaries import Canaries, disguises, dump
from tests.end_to_end.installation import Installation
from tests.harness.gateway import wait_for
from tests.harness.speakers import SPEAKERS

SHOWN_ONCE = ("administrator: ", "password: ", "key: ", "curl ")
LISTS = (
    "providers",
    "provider-kinds",
    "routes",
    "models",
    "prices",
    "teams",
    "keys",
    "budgets",
    "customers",
    "tokens",
    "users",
    "audit",
    "usage/events",
    "usage/summary?group_by=key",
    "usage/export?format=csv",
    "usage/export?format=jsonl",
    "ledger/verify",
)


def test_disguises_are_found_wherever_they_begin() -> None:
    secret = secrets.token_bytes(20)
    for lead in range(4):
        wrapped = base64.b64encode(bytes(lead) + secret + b"tail")
        assert any(form in wrapped for form in disguises(secret))
        assert any(form in base64.urlsafe_b64encode(bytes(lead) + secret) for form in disguises(secret))


class _Tactless(BaseHTTPRequestHandler):
    """A provider that repeats in its refusal the key it was given, as some do."""

    def do_POST(self) -> None:
        message = f"Incorrect API key provided: {self.headers['authorization'].removeprefix('Bearer ')}."
        body = json.dumps({"error": {"message": message, "type": "invalid_request_error"}}).encode()
        self.rfile.read(int(self.headers["content-length"] or 0))
        self.send_response(400 if self.command == "POST" else 401)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST  # noqa: N815 (the name that http.server calls)

    def log_message(self, format: str, *arguments: object) -> None:
        """The test's output is not its place."""


@contextmanager
def _tactless_provider() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Tactless) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/v1"
        finally:
            server.shutdown()


class Visit:
    """Everything that the installation ever answered, by what was asked."""

    def __init__(self, conduit: Installation) -> None:
        self.conduit = conduit
        self.answers: dict[str, bytes] = {}
        self.http = httpx.Client(base_url=conduit.url, timeout=30, trust_env=False, verify=False, follow_redirects=True)

    def keep(self, what: str, answer: httpx.Response) -> httpx.Response:
        headers = "\n".join(f"{name}: {text}" for name, text in answer.headers.items())
        self.answers[f"{len(self.answers)} {what} ({answer.status_code})"] = headers.encode() + answer.content
        return answer

    def api(self, method: str, path: str, body: Any = None) -> httpx.Response:
        return self.keep(f"{method} {path}", self.conduit.api(method, path, body))

    def form(self, path: str, fields: dict[str, str]) -> httpx.Response:
        page = self.http.get(path).text
        found = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page)
        assert found, page[:500]
        sent = {**fields, "csrfmiddlewaretoken": found[1]}
        return self.keep(f"form {path}", self.http.post(path, data=sent, headers={"referer": self.conduit.url + path}))

    def crawl(self) -> int:
        """All pages that can be reached by links from the overview."""
        open_, seen = ["/", "/login", "/api/schema/", "/metrics", "/readyz"], set()
        while open_ and len(seen) < 80:
            path = open_.pop(0).partition("#")[0]
            if not path or path in seen or path.startswith(("/static/", "/logout")):
                continue
            seen.add(path)
            answer = self.keep(f"page {path}", self.http.get(path))
            assert answer.status_code == 200, path
            if answer.headers["content-type"].startswith("text/html"):
                links = re.findall(r'(?:href|hx-get|src)="(/[^"]*)"', answer.text)
                open_ += [link.replace("&amp;", "&") for link in links]
        return len(seen)


def _configure(conduit: Installation, visit: Visit, tactless: str, good: str, wrong: str, typed: str) -> None:
    """Providers with a right and a wrong credential, one that cannot be reached, and refusals on the way."""
    sandbox = f"{conduit.sandbox}/v1"
    addresses = {"good": sandbox, "bad": sandbox, "gone": "http://127.0.0.1:9/v1", "tactless": tactless}
    for name, address in addresses.items():
        conduit.made("/providers", {"name": name, "kind": "custom", "base_url": address})
        secret = wrong if name == "bad" else good
        path = f"/providers/{name}/credentials"
        if name in ("bad", "tactless"):
            refused = visit.api("POST", path, {"name": "proved", "secret": secret})
            assert refused.status_code in (400, 422, 502), refused.text
        answer = visit.api("POST", path, {"name": "main", "secret": secret, "verify": name == "good"})
        assert answer.status_code == 201, answer.text
        assert visit.api("POST", path, {"name": "main", "secret": typed, "verify": False}).status_code == 409
        assert visit.api("POST", path, {"name": 5, "secret": typed}).status_code == 400
        assert visit.api("POST", path, {"name": "x", "secret": [typed]}).status_code == 400
        assert visit.api("POST", path, {"name": "x", "secert": typed}).status_code == 400
        visit.api("POST", f"/providers/{name}/test")
        visit.api("GET", f"/providers/{name}/models")
        conduit.made("/prices", {"model": "sandbox-echo", "provider": name, "rates": {"input": "1", "output": "1"}})
        conduit.made("/routes", {"name": f"to-{name}", "targets": [{"provider": name, "model": "sandbox-echo"}]})


def _is_known_everywhere(conduit: Installation, key: str, route: str) -> bool:
    """Asked over new connections, so that each web process answers some of them."""
    headers = {"authorization": f"Bearer {key}"}
    answers = [httpx.get(f"{conduit.url}/v1/models/{route}", headers=headers, trust_env=False) for _ in range(8)]
    return all(answer.status_code == 200 for answer in answers)


def _traffic(conduit: Installation, visit: Visit, key: str) -> None:
    wait_for(lambda: _is_known_everywhere(conduit, key, "to-tactless"), 30)
    for speaker in SPEAKERS.values():
        for route, status in ("to-good", 200), ("to-bad", 502), ("to-gone", 503), ("to-tactless", 400), ("none", 404):
            answer = visit.keep(f"{speaker.name} {route}", speaker.ask(conduit.url, key, model=route))
            assert answer.status_code == status, answer.text
            visit.keep(f"{speaker.name} {route}", speaker.stream(conduit.url, key, model=route)[0])
        for status in 400, 401, 429, 500, 503:
            faults = {"x-sandbox-status": str(status)}
            visit.keep(f"{speaker.name} {status}", speaker.ask(conduit.url, key, headers=faults))
        for broken in (key[:-1], key + "0", f"x{key}"):
            assert visit.keep(speaker.name, speaker.ask(conduit.url, broken)).status_code == 401
        path = speaker.address("sandbox-echo", False)
        assert visit.keep(speaker.name, speaker.post(conduit.url, path, key, b"{")).status_code == 400
        mark = "&" if "?" in path else "?"
        visit.keep("key in URL", speaker.post(conduit.url, f"{path}{mark}key={key}&api_key={key}", "", b"{}"))
    visit.keep("own view", visit.http.get("/v1/key", headers={"x-api-key": key}))
    visit.keep(
        "management with a virtual key", visit.http.get("/api/v1/keys", headers={"authorization": f"Bearer {key}"})
    )
    visit.keep("proxy with a token", SPEAKERS["openai"].ask(conduit.url, conduit.token))


def _console(conduit: Installation, visit: Visit, good: str, typed: str) -> None:
    """Signs in (after a wrong password) and sends forms that are refused: those come back filled in."""
    owner = {"email": conduit.first["administrator"]}
    visit.form("/login", {**owner, "password": typed})
    answer = visit.form("/login", {**owner, "password": conduit.first["password"]})
    assert answer.url.path != "/login"
    new = {"name": "by-hand", "credential": "main", "field-api_key": good}
    refused = visit.form("/providers/new?kind=custom", {**new, "base_url": "nowhere"})
    assert refused.status_code == 422
    assert "by-hand" in refused.text, "what was typed stays, but the secret"
    made = visit.form("/providers/new?kind=custom", {**new, "base_url": f"{conduit.sandbox}/v1"})
    assert made.status_code == 200, made.text[:500]


def _read_everything(conduit: Installation, visit: Visit) -> None:
    assert visit.crawl() > 15
    for name in LISTS:
        answer = visit.api("GET", f"/{name}")
        assert answer.status_code == 200, f"{name}: {answer.text}"
        if name in ("providers", "keys", "teams", "tokens", "users", "budgets"):
            for row in answer.json()["data"]:
                visit.api("GET", f"/{name}/{row['id']}")
    for provider in conduit.api("GET", "/providers").json()["data"]:
        for row in visit.api("GET", f"/providers/{provider['id']}/credentials").json()["data"]:
            visit.api("GET", f"/credentials/{row['id']}")
            visit.api("GET", f"/credentials/{row['id']}/versions")
    for event in conduit.events()[:20]:
        visit.api("GET", f"/requests/{event['request_id']}")


def test_no_secret_is_found_anywhere_after_traffic_and_errors(conduit: Installation) -> None:
    good, wrong, typed = (f"{head}{secrets.token_urlsafe(24)}" for head in ("sk-sandbox-", "sk-wrong-", "sk-typed-"))
    visit = Visit(conduit)
    with visit.http, _tactless_provider() as tactless:
        _configure(conduit, visit, tactless, good, wrong, typed)
        key = _key_with_retry(conduit)
        token = conduit.made("/tokens", {"name": "canary", "role": "auditor"})["token"]
        _traffic(conduit, visit, key)
        _console(conduit, visit, good, typed)
        _read_everything(conduit, visit)
    canaries = Canaries(
        {
            "provider secret": good.encode(),
            "refused provider secret": wrong.encode(),
            "mistyped secret": typed.encode(),
            "virtual key": key[17:49].encode(),
            "first key": conduit.first["key"][17:49].encode(),
            "management token": token[17:49].encode(),
            "first management token": conduit.token[17:49].encode(),
            "password": conduit.first["password"].encode(),
            "key-encryption key": base64.b64decode((conduit.home / "secrets" / "kek").read_text().split("=", 1)[1]),
            "Django's key": (conduit.home / "secrets" / "django_secret_key").read_text().strip().encode(),
        }
    )
    assert canaries.found_in((conduit.home / "secrets" / "kek").read_bytes()) == {"key-encryption key"}
    assert canaries.hits(visit.answers) == []
    assert canaries.hits(dump(conduit)) == []
    lines = {str(one.pid): " ".join(one.cmdline()).encode() for one in conduit.processes()}
    assert canaries.hits(lines) == []
    assert canaries.hits_in_files(conduit.home, but=conduit.home / "secrets") == []
    conduit.terminate()
    assert conduit.ended() == 0
    # Once more at rest: the last pages are written, the write-ahead log is whole, buffers of logs are flushed.
    assert canaries.hits_in_files(conduit.home, but=conduit.home / "secrets") == []
    printed = [line for line in conduit.out.read_text().splitlines() if not line.startswith(SHOWN_ONCE)]
    assert canaries.hits({"standard output": "\n".join(printed).encode(), "log": conduit.err.read_bytes()}) == []


def _key_with_retry(conduit: Installation) -> str:
    """A key made under an Idempotency-Key: the stored answer, which holds the key, must be sealed."""
    headers = {"authorization": f"Bearer {conduit.token}", "idempotency-key": secrets.token_hex(12)}
    answers = [
        httpx.post(
            f"{conduit.url}/api/v1/keys",
            json={"name": "canary", "budgets": [{"limit_usd": "1"}]},
            headers=headers,
            trust_env=False,
            verify=False,
        )
        for _ in range(2)
    ]
    assert [answer.status_code for answer in answers] == [201, 201]
    assert answers[0].json()["key"] == answers[1].json()["key"]
    raw: str = answers[0].json()["key"]
    return raw
