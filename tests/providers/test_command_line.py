"""`conduit providers`, `routes`, `models` and `chat` as separate processes, with secrets on standard input only."""

from __future__ import annotations

import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.harness.sandbox import RunningSandbox

ROOT = Path(__file__).resolve().parents[2]
KEY = "sk-sandbox-canary-c41d7e90b2f5"
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def conduit(own_database: str, sandbox_process: RunningSandbox) -> Run:
    environment = {
        **os.environ,
        "DATABASE_URL": own_database,
        "CONDUIT_SANDBOX_PORT": str(urlsplit(sandbox_process.url).port),
    }

    def run(*arguments: str, given: str = "", **more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "conduit.cli", *arguments]
        env = {**environment, **more}
        return subprocess.run(command, input=given, capture_output=True, text=True, cwd=ROOT, env=env, timeout=60)

    return run


def test_a_provider_with_its_key_and_a_route_are_added_from_the_shell(conduit: Run) -> None:
    added = conduit("providers", "add", "Sandbox", "--kind", "sandbox", "--json", given=f"{KEY}\n")
    assert added.returncode == 0, added.stderr
    body = json.loads(added.stdout)
    assert body["credentials"][0]["health"] == "ok"
    assert KEY not in added.stdout + added.stderr

    tested = conduit("providers", "test", "Sandbox")
    assert tested.returncode == 0, tested.stderr
    assert "ok" in tested.stdout

    routed = conduit("routes", "add", "echo", "--target", "Sandbox=sandbox-echo,weight=5")
    assert routed.returncode == 0, routed.stderr
    (route,) = json.loads(conduit("routes", "list", "--json").stdout)
    assert (route["name"], route["targets"][0]["weight"]) == ("echo", 5)
    assert "main ok" in conduit("providers", "list").stdout
    assert json.loads(conduit("models", "catalogue", "--json").stdout) == []
    (listed,) = json.loads(conduit("models", "list", "--json").stdout)
    assert (listed["provider"], listed["problem"]) == ("Sandbox", "")
    assert "sandbox-echo" in listed["models"]


def test_a_broken_provider_does_not_hide_the_others(conduit: Run) -> None:
    options = ("--kind", "custom", "--no-verify", "--base-url", "http://127.0.0.1:9/v1")
    opened = {"CONDUIT_EGRESS_ALLOW": "127.0.0.1"}
    assert conduit("providers", "add", "Broken", *options, given=json.dumps({"api_key": "k"}), **opened).returncode == 0
    assert conduit("providers", "add", "Sandbox", "--kind", "sandbox", given=KEY).returncode == 0

    listed = conduit("models", "list", "--name", "echo", **opened)
    assert listed.returncode == 1
    broken, problem, sandbox, *models = listed.stdout.splitlines()
    assert (broken, sandbox) == ("Broken (custom)", "Sandbox (sandbox)")
    assert problem.startswith("  failed: ")
    assert "  sandbox-echo" in models
    assert all("echo" in model for model in models)

    tested = conduit("providers", "test", **opened)
    assert tested.returncode == 1
    assert "failed" in tested.stdout.split("Sandbox")[0]
    assert "ok" in tested.stdout.split("Sandbox")[1]
    assert conduit("models", "list", "--provider", "Sandbox").returncode == 0


def test_a_provider_may_bring_routes_for_its_models(conduit: Run) -> None:
    added = conduit("providers", "add", "Sandbox", "--kind", "sandbox", "--routes", "--json", given=f"{KEY}\n")
    assert added.returncode == 0, added.stderr
    assert json.loads(added.stdout)["routes"] == ["sandbox-*"]
    (route,) = json.loads(conduit("routes", "list", "--json").stdout)
    assert (route["name"], route["targets"][0]["model"]) == ("sandbox-*", "*")


def test_a_rejected_key_saves_nothing_and_ends_with_one(conduit: Run) -> None:
    refused = conduit("providers", "add", "Sandbox", "--kind", "sandbox", given="sk-wrong-0123456789abcdef")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.startswith("conduit: ")
    assert "Traceback" not in refused.stderr
    assert "sk-wrong-0123456789abcdef" not in refused.stderr
    assert json.loads(conduit("providers", "list", "--json").stdout) == []


def test_wrong_use_ends_with_two(conduit: Run) -> None:
    assert conduit("providers", "add", "X").returncode == 2
    assert conduit("providers", "add", "X", "--kind", "openai", "--option", "organization").returncode == 2
    assert conduit("routes", "add", "r", "--target", "Sandbox").returncode == 2
    assert conduit("providers", "add", "X", "--kind", "openai", "--secret", KEY).returncode == 2
    misspelt = conduit("providers", "add", "X", "--kind", "opneai", given=KEY)
    assert misspelt.returncode == 2
    assert "Did you mean openai?" in misspelt.stderr
    empty = conduit("providers", "add", "X", "--kind", "openai")
    assert empty.returncode == 2
    assert "This kind needs it" in empty.stderr


def test_kinds_are_listed_without_asking_anybody(conduit: Run) -> None:
    listed = conduit("providers", "kinds", "--json")
    assert listed.returncode == 0, listed.stderr
    assert {"openai", "anthropic", "gemini", "custom", "sandbox"} <= {row["kind"] for row in json.loads(listed.stdout)}


@pytest.fixture
def gateway() -> Iterator[tuple[str, list[tuple[str, str, str]]]]:
    """Answers as the proxy does (contract 3), for the key `good`; (path, authorization, body) of each request."""
    seen: list[tuple[str, str, str]] = []

    class Proxy(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"])).decode()
            seen.append((self.path, self.headers["authorization"], body))
            known = self.headers["authorization"] == "Bearer good"
            if known:
                message = {"role": "assistant", "content": "hello you"}
                answer = {
                    "id": "a",
                    "object": "chat.completion",
                    "created": 1,
                    "model": "echo",
                    "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
                }
            else:
                answer = {"error": {"message": "Unknown key", "code": "invalid_api_key"}}
            self.send_response(200 if known else 401)
            self.send_header("x-conduit-cost-usd", "0.000012")
            self.send_header("x-conduit-provider", "Sandbox")
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, *rest: object) -> None:
            return

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", seen
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_question_is_asked_with_the_key_of_the_environment_or_standard_input(
    conduit: Run, gateway: tuple[str, list[tuple[str, str, str]]]
) -> None:
    url, seen = gateway
    asked = conduit("chat", "echo", "hello", "--url", url, CONDUIT_KEY="good")
    assert (asked.returncode, asked.stdout) == (0, "hello you\n"), asked.stderr
    assert "$0.000012" in asked.stderr
    assert conduit("chat", "echo", "hello", "--url", url, "--key", given="good\n", CONDUIT_KEY="bad").returncode == 0
    path, _, body = seen[0]
    assert path == "/v1/chat/completions"
    sent = json.loads(body)
    assert (sent["model"], sent["messages"]) == ("echo", [{"role": "user", "content": "hello"}])
    refused = conduit("chat", "echo", "hello", "--url", url, CONDUIT_KEY="bad-key-text")
    assert refused.returncode == 1
    assert "Unknown key (401 invalid_api_key)" in refused.stderr
    assert "bad-key-text" not in refused.stderr


def test_a_gateway_that_is_not_there_is_named(conduit: Run) -> None:
    refused = conduit("chat", "echo", "hello", "--url", "http://127.0.0.1:1", CONDUIT_KEY="good")
    assert refused.returncode == 1
    assert "The gateway could not be reached" in refused.stderr
    assert "Start it with `make up`" in refused.stderr
    assert conduit("chat", "echo", "hello").returncode == 1


def test_a_credential_by_reference_is_added_from_the_shell_and_read_anew(conduit: Run, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(KEY)
    allowed = {"CONDUIT_SECRET_FILES": str(tmp_path)}
    reference = f"api_key=file:{tmp_path}/key"
    added = conduit("providers", "add", "Sandbox", "--kind", "sandbox", "--from", reference, "--json", **allowed)
    assert added.returncode == 0, added.stderr
    body = json.loads(added.stdout)["credentials"][0]
    assert (body["health"], body["sources"]) == ("ok", {"api_key": f"file:{tmp_path}/key"})
    assert KEY not in added.stdout + added.stderr

    done = conduit("credentials", "refresh", body["id"], "--json", **allowed)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["ok"] is True
    (tmp_path / "key").unlink()
    failed = conduit("credentials", "refresh", body["id"], **allowed)
    assert failed.returncode == 1
    assert "failed" in failed.stdout
    assert "No such file" in failed.stdout


def test_references_that_cannot_be_are_wrong_use(conduit: Run) -> None:
    for wrong in (
        "api_key",
        "api_key=",
        "=env:CONDUIT_SECRET_X",
        "api_key=env:DATABASE_URL",
        "other=env:CONDUIT_SECRET_X",
    ):
        refused = conduit("providers", "add", "X", "--kind", "openai", "--from", wrong)
        assert refused.returncode == 2, (wrong, refused.stderr)
    several = ("providers", "add", "B", "--kind", "bedrock", "--region", "us-east-1", "--from")
    both = conduit(*several, "secret_access_key=env:CONDUIT_SECRET_X", given='{"secret_access_key": "s"}')
    assert (both.returncode, "standard input too" in both.stderr) == (2, True)
    saved = conduit(
        *several, "secret_access_key=env:CONDUIT_SECRET_X", "--no-verify", given='{"access_key_id": "AKIA0123"}'
    )
    assert saved.returncode == 0, saved.stderr
