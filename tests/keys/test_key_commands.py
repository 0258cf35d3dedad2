"""`conduit keys` through a key's life; what a process adds to it is in tests/access/test_commands.py."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from typer.testing import CliRunner

from conduit.cli import keys
from conduit.core import raw_keys
from conduit.core.errors import ConduitError, InvalidInput
from keys.errors import OutOfStep

Said = Callable[..., str]


@pytest.fixture
def said(db: None) -> Said:
    """Runs `conduit keys …` in this process; what it printed. Raises what it raises."""

    def run(*words: str) -> str:
        done = CliRunner().invoke(keys.app, list(words))
        if done.exception is not None:
            raise done.exception
        return done.stdout

    return run


def refused(said: Said, error: type[ConduitError], *words: str) -> str:
    with pytest.raises(error) as told:
        said(*words)
    return str(told.value)


def test_a_key_is_rotated_extended_and_finished_from_the_command_line(said: Said) -> None:
    old = said("create", "--name", "app").strip()
    assert "v1 is the only live secret" in refused(said, OutOfStep, "finish", "app")
    new = said("rotate", "app", "--overlap", "600").strip()
    assert raw_keys.public_id("vk", new)
    assert new != old
    assert "v2 is active, v1 works until" in refused(said, OutOfStep, "rotate", "app")
    assert said("extend", "app", "--overlap", "86400").startswith("app: the old secret works until ")
    assert "overlap_seconds" in refused(said, InvalidInput, "extend", "app", "--overlap", "5")

    seen = json.loads(said("rotate", "app", "--replace", "--json"))
    assert raw_keys.public_id("vk", seen["key"])
    lines = said("versions", "app").splitlines()
    assert [line.split()[:2] for line in lines] == [["v3", "active"], ["v2", "retired"], ["v1", "retiring,"]]
    assert all(raw[17:49] not in "".join(lines) for raw in (old, new, seen["key"]))
    assert said("finish", "app") == "app: active\n"
    rows = json.loads(said("versions", "app", "--json"))["data"]
    assert [row["state"] for row in rows] == ["active", "retired", "retired"]


def test_a_key_s_end_is_brought_about_taken_away_and_set_from_the_command_line(said: Said) -> None:
    said("create", "--name", "app")
    assert said("expire", "app").startswith("app: expired, expires ")
    assert said("expire", "app", "--never") == "app: active, expires never\n"
    assert "app: active, expires 2999" in said("expire", "app", "--at", "2999-01-01T00:00:00Z")
    assert "at" in refused(said, InvalidInput, "expire", "app", "--at", "2999-01-01T00:00:00Z", "--never")
    assert "expires_at" in refused(said, InvalidInput, "expire", "app", "--at", "yesterday")


def test_personal_keys_and_keys_below_a_parent_are_made_from_the_command_line(said: Said) -> None:
    said("create", "--name", "app")
    assert json.loads(said("create", "--name", "child", "--parent", "app", "--json"))["parent_name"] == "app"
    for option in ("user", "parent"):
        assert option in refused(said, InvalidInput, "create", "--name", "x", f"--{option}", "nobody@example.org")


def test_terms_of_a_key_are_changed_and_taken_away_from_the_command_line(said: Said) -> None:
    wide = ("--ip-allowlist", "10.0.0.0/8", "--max-parallel", "3", "--max-output-tokens", "9", "--owner", "alice")
    made = json.loads(said("create", "--name", "app", *wide, "--budget", "1", "--soft", "--json"))
    assert (made["ip_allowlist"], made["max_parallel"], made["max_output_tokens"]) == (["10.0.0.0/8"], 3, 9)
    assert (made["owner"], made["budgets"][0]["kind"]) == ("alice", "soft")
    assert "soft" in refused(said, InvalidInput, "create", "--name", "x", "--soft")
    said("create", "--name", "above")

    told = said("update", "app", "--rpm", "5", "--model", "gpt-*", "--parent", "above", "--clear", "ip_allowlist")
    assert told == "app: ip_allowlist, parent, models, rpm changed\n"
    now = json.loads(said("update", "app", "--name", "new", "--clear", "owner", "--clear", "max_parallel", "--json"))
    assert (now["name"], now["rpm"], now["models"], now["parent_name"]) == ("new", 5, ["gpt-*"], "above")
    assert (now["ip_allowlist"], now["max_parallel"], now["max_output_tokens"], now["owner"]) == ([], None, 9, "")
    assert json.loads(said("update", "new", "--clear", "parent", "--json"))["parent"] is None


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ((), "at least one"), (("--clear", "name"), "--clear"), (("--clear", "rpm", "--rpm", "5"), "--clear"),
        (("--rpm", "0"), "rpm"), (("--parent", "nothing"), "parent"),
        (("--ip-allowlist", "10.0.0.0/33"), "ip_allowlist"),
    ],
)  # fmt: skip
def test_a_wrong_change_is_refused_by_name(said: Said, words: tuple[str, ...], named: str) -> None:
    said("create", "--name", "app")
    assert named in refused(said, InvalidInput, "update", "app", *words)


def test_a_key_is_deleted_only_when_it_is_confirmed(said: Said) -> None:
    said("create", "--name", "app")
    with pytest.raises(SystemExit):
        said("delete", "app")
    assert "app" in said("list")
    assert said("delete", "app", "--yes") == "app: deleted\n"
    assert said("list") == ""
