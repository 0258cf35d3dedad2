"""A visitor who asks an installation for everything it shows, and keeps every answer."""

from __future__ import annotations

import re
from typing import Any

import httpx

from tests.end_to_end.installation import Installation

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
    "audit/verify",
    "keks",
    "keys/review",
    "usage/events",
    "usage/summary?group_by=key",
    "usage/export?format=csv",
    "usage/export?format=jsonl",
    "ledger/verify",
    "uncertain",
    "leases",
    "workers",
)
COMMANDS = (
    "doctor",
    "providers list --json",
    "keys list --json",
)
ALIKE = 12  # pages of single requests: the API tells one of each kind besides


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

    def done(self, path: str, body: Any = None) -> httpx.Response:
        """A POST that must succeed."""
        answer = self.api("POST", path, body)
        assert answer.status_code in (200, 201), f"{path}: {answer.text}"
        return answer

    def form(self, path: str, fields: dict[str, str]) -> httpx.Response:
        page = self.http.get(path).text
        found = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page)
        assert found, page[:500]
        sent = {**fields, "csrfmiddlewaretoken": found[1]}
        return self.keep(f"form {path}", self.http.post(path, data=sent, headers={"referer": self.conduit.url + path}))

    def crawl(self) -> int:
        """All pages that can be reached by links from the overview."""
        open_ = ["/", "/login", "/api/schema/", "/metrics", "/readyz", "/system/support-bundle"]
        seen: set[str] = set()
        while open_ and len(seen) < 80:
            path = open_.pop(0).partition("#")[0]
            alike = sum(one.startswith("/requests/") for one in seen) if path.startswith("/requests/") else 0
            if not path or path in seen or path.startswith(("/static/", "/logout")) or alike >= ALIKE:
                continue
            seen.add(path)
            answer = self.keep(f"page {path}", self.http.get(path))
            assert answer.status_code == 200, path
            if answer.headers["content-type"].startswith("text/html"):
                links = re.findall(r'(?:href|hx-get|src)="(/[^"]*)"', answer.text)
                open_ += [link.replace("&amp;", "&") for link in links]
        return len(seen)

    def read_api(self) -> None:
        for name in LISTS:
            answer = self.api("GET", f"/{name}")
            assert answer.status_code == 200, f"{name}: {answer.text}"
            if name in ("providers", "keys", "teams", "tokens", "users", "budgets"):
                for row in answer.json()["data"]:
                    self.api("GET", f"/{name}/{row['id']}")
        for provider in self.conduit.api("GET", "/providers").json()["data"]:
            for row in self.api("GET", f"/providers/{provider['id']}/credentials").json()["data"]:
                self.api("GET", f"/credentials/{row['id']}")
                self.api("GET", f"/credentials/{row['id']}/versions")
        kinds = {(event["route"], event["dialect"], event["error_code"]): event for event in self.conduit.events()}
        for event in kinds.values():
            self.api("GET", f"/requests/{event['request_id']}")

    def read_commands(self) -> dict[str, bytes]:
        """What the read-only commands print, errors included."""
        printed = {}
        for line in COMMANDS:
            done = self.conduit.run(*line.split())
            printed[line] = (done.stdout + done.stderr).encode()
            assert done.stdout, f"{line}: {done.stderr}"
        return printed
