"""`conduit tokens|keys|teams|users` as a person runs them: a process, its output and its exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from conduit.cli.main import app
from conduit.core import raw_keys

ROOT = Path(__file__).resolve().parents[2]


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


def test_every_command_also_works_through_manage_py(own_database: str) -> None:
    def manage(*words: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "DATABASE_URL": own_database}
        command = [sys.executable, str(ROOT / "manage.py"), *words]
        return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)

    made = manage("teams", "create", "--name", "search", "--json")
    assert (made.returncode, json.loads(made.stdout)["name"]) == (0, "search"), made.stderr
    assert "search" in conduit(own_database, "teams", "list").stdout
    assert manage("keys", "revoke", "nobody").returncode == 1
    assert manage("keys", "create").returncode == 2
    assert manage("migrate", "--check").returncode == 0  # Django's own commands stay


def test_a_database_that_is_away_is_one_line_and_exit_code_1() -> None:
    done = conduit("postgres://nobody@127.0.0.1:1/nothing", "teams", "list")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1].startswith("conduit: the database: ")
    assert "Traceback" not in done.stderr


def _leaves(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    names = command.list_commands(None) if hasattr(command, "list_commands") else []
    if not names:
        yield path, command
    for name in names:
        yield from _leaves(command.get_command(None, name), (*path, name))


def test_every_command_but_up_takes_json_and_no_option_takes_a_secret() -> None:
    leaves = dict(_leaves(typer.main.get_command(app)))
    assert len(leaves) > 20
    for path, command in leaves.items():
        options = {option for parameter in command.params for option in parameter.opts}
        # An export and the answers of a batch are JSON lines in any case.
        assert ("--json" in options) == (path not in (("up",), ("batch",), ("audit", "export"))), path
        taking = {o for p in command.params if not getattr(p, "is_flag", False) for o in p.opts}
        assert not {"--secret", "--password", "--api-key", "--key", "--token"} & taking, path
