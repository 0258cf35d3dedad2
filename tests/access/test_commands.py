"""`conduit tokens|keys|teams|users` as a person runs them: a process, its output and its exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from conduit.core import raw_keys


def conduit(url: str, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "DATABASE_URL": url}
    command = [sys.executable, "-m", "conduit.cli", *words]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def test_tokens_keys_teams_and_users_from_the_command_line(own_database: str) -> None:
    token = conduit(own_database, "tokens", "create", "--name", "ci", "--role", "admin")
    assert (token.returncode, token.stderr) == (0, "")
    assert raw_keys.public_id("mk", token.stdout.strip())
    assert token.stdout == token.stdout.strip() + "\n"

    team = json.loads(conduit(own_database, "teams", "create", "--name", "search", "--json").stdout)
    made = conduit(
        own_database,
        "keys",
        "create",
        "--name",
        "app",
        "--team",
        "search",
        "--budget",
        "2.50",
        "--window",
        "day",
        "--json",
    )
    key = json.loads(made.stdout)
    assert raw_keys.public_id("vk", key["key"])
    assert (key["team"], key["budgets"][0]["limit_usd"]) == (team["id"], "2.50")

    assert conduit(own_database, "keys", "disable", "app").stdout == "app: disabled\n"
    assert conduit(own_database, "keys", "revoke", key["id"]).stdout == "app: revoked\n"
    assert conduit(own_database, "keys", "enable", "app").returncode == 1
    listed = conduit(own_database, "keys", "list").stdout
    assert key["id"] in listed
    assert key["key"] not in listed

    user = conduit(own_database, "users", "create", "--email", "alice@example.org", "--role", "owner", "--json")
    assert len(json.loads(user.stdout)["password"]) == 20
    assert "alice@example.org" in conduit(own_database, "users", "list").stdout


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["tokens", "create", "--name", "x"], 2),
        (["tokens", "create", "--name", "x", "--role", "boss"], 2),
        (["keys", "create", "--name", "x", "--budget", "1,0"], 2),
        (["keys", "revoke", "nobody"], 1),
        (["keys", "frobnicate"], 2),
    ],
)
def test_failures_have_the_exit_codes_of_the_contract_and_one_line(
    own_database: str, words: list[str], code: int
) -> None:
    done = conduit(own_database, *words)
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
