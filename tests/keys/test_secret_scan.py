"""`conduit secrets scan` and `conduit keys identify` as a person runs them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from conduit.cli.secrets import _places
from conduit.core import raw_keys
from providers.secret_shapes import lookalikes

VENDORS = {
    "an Anthropic key": "sk-ant-api03-" + "Ab1_-" * 18,
    "an OpenRouter key": "sk-or-v1-" + "0123456789abcdef" * 4,
    "an OpenAI key": "sk-proj-" + "aB3dE6gH9j" * 4,
    "a key of OpenAI's shape": "sk-" + "0a1b2c3d" * 4,
    "a Google API key": "AIza" + "Sy0-_" * 7,
    "an AWS access key id": "AKIA" + "ABCD0123EFGH4567",
    "a Groq key": "gsk_" + "aB3dE6gH9j" * 5,
    "an xAI key": "xai-" + "aB3dE6gH9j" * 8,
    "a Hugging Face token": "hf_" + "aBcDeFgHiJ" * 3,
    "a Perplexity key": "pplx-" + "aB3dE6gH9j" * 5,
}


def a_week_ago() -> str:
    return (datetime.now(UTC) - timedelta(days=7)).strftime("%Y-%m-%dT%H:%M:%SZ")


def conduit(*words: str, url: str = "", given: str = "") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "DATABASE_URL": url}
    command = [sys.executable, "-m", "conduit.cli", *words]
    return subprocess.run(command, input=given, capture_output=True, text=True, env=environment, check=False)


@pytest.mark.parametrize("title", VENDORS)
def test_a_vendors_shape_is_recognised_alone_and_in_an_assignment(title: str) -> None:
    secret = VENDORS[title]
    for text in (secret, f'KEY="{secret}"', f"x={secret}\n", f"({secret})"):
        assert [(one.title, one.secret.reveal()) for one in lookalikes(text)] == [(title, secret)]
    assert not list(lookalikes(f"x{secret}"))


@pytest.mark.parametrize(
    "text",
    [
        "sk-learn-is-a-library-with-a-long-name-indeed", "class sk-circle-fade-dot", "sk-short1", "AKIAlower0123456",
        "AIzaTooShort", "task-0a1b2c3d0a1b2c3d0a1b2c3d0a1b2c3d", "hf_model_name_with_words_in_it_all", "xai-grok",
    ],
)  # fmt: skip
def test_ordinary_words_are_no_secrets(text: str) -> None:
    assert not list(lookalikes(text))


def test_a_scan_names_file_line_and_column_and_only_the_public_id(own_database: str, tmp_path: Path) -> None:
    made = json.loads(conduit("keys", "create", "--name", "app", "--json", url=own_database).stdout)
    raw, stranger = made["key"], raw_keys.mint("mk").raw.reveal()
    wrong = raw[:-1] + ("a" if raw[-1] != "a" else "b")
    (tmp_path / "deep").mkdir()
    env = tmp_path / "deep" / ".env"
    env.write_text(f"# {wrong}\nCONDUIT_KEY={raw}\nTOKEN={stranger}\n")
    (tmp_path / "clean.txt").write_text("nothing here")
    seen = conduit("secrets", "scan", str(tmp_path), url=own_database)
    assert seen.returncode == 1
    assert seen.stdout.splitlines() == [
        f"{env}:2:13: virtual key cdt_vk_{raw[7:17]}…, ours: app (it works now)",
        f"{env}:3:7: management token cdt_mk_{stranger[7:17]}…, not of this installation",
    ]
    assert seen.stderr == "2 found\n"
    as_json = conduit("secrets", "scan", "--json", str(env), url=own_database)
    row, other = json.loads(as_json.stdout)["data"]
    assert (row["line"], row["column"], row["ours"], row["live"]) == (2, 13, True, True)
    assert row["object"]["id"] == made["id"]
    assert (other["ours"], other["object"]) == (False, None)
    asked = conduit("keys", "identify", url=own_database, given=f"see {raw}\n")
    assert asked.returncode == 0
    assert asked.stdout == f"virtual key cdt_vk_{raw[7:17]}…, ours: app (it works now)\n"
    for output in (seen, as_json, asked):
        assert raw[18:-5] not in output.stdout + output.stderr
        assert stranger[18:-5] not in output.stdout + output.stderr


def test_a_key_is_looked_into_replaced_and_reviewed_from_the_command_line(own_database: str) -> None:
    made = json.loads(conduit("keys", "create", "--name", "app", "--budget", "2", "--json", url=own_database).stdout)
    radius = conduit("keys", "blast-radius", "app", "--since", a_week_ago(), url=own_database)
    assert radius.stdout.startswith("app: a caller with it is let in\n")
    assert "left       $2.00" in radius.stdout
    assert radius.stdout.count("0 requests, 0 refused, $0.00") == 2
    assert conduit("keys", "blast-radius", "app", "--since", "monday", url=own_database).returncode == 2
    fresh = conduit("keys", "replace", made["id"], url=own_database)
    assert raw_keys.public_id("vk", fresh.stdout.strip())
    old = json.loads(conduit("keys", "identify", "--json", url=own_database, given=made["key"]).stdout)["data"][0]
    assert (old["ours"], old["live"], old["object"]["id"]) == (True, False, made["id"])
    assert conduit("keys", "review", url=own_database).stdout == (
        f"{made['id']}  app: It has neither owner nor team. Name who answers for it.\n"
    )
    idle = conduit("keys", "shrink", "app", "--dry-run", url=own_database)
    assert (idle.returncode, "served nothing in the last 30 days" in idle.stderr) == (1, True)


def test_a_scan_says_what_it_could_not_read_and_goes_on(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "env").write_text(raw_keys.mint("vk").raw.reveal())
    (tmp_path / "first.txt").write_text(raw_keys.mint("vk").raw.reveal())
    places = _places([tmp_path], everything=False)
    found = [next(places)]
    shutil.rmtree(tmp_path / "b")
    found += places
    assert [one for one in found if isinstance(one, str)] == [
        f"{tmp_path / 'b'} cannot be read: No such file or directory"
    ]
    files = [one.path.relative_to(tmp_path).as_posix() for one in found if not isinstance(one, str)]
    assert files == ["first.txt", "a/env", "c/env"]


def test_a_scan_needs_no_database(tmp_path: Path) -> None:
    raw = raw_keys.mint("vk").raw.reveal()
    (tmp_path / "a.txt").write_text(f"{raw} {VENDORS['a Groq key']}")
    for url in ("", "postgres://nobody@127.0.0.1:1/none"):
        seen = conduit("secrets", "scan", str(tmp_path / "a.txt"), url=url)
        assert seen.returncode == 1, seen.stderr
        assert seen.stdout.splitlines() == [
            f"{tmp_path / 'a.txt'}:1:1: virtual key cdt_vk_{raw[7:17]}…",
            f"{tmp_path / 'a.txt'}:1:57: looks like a Groq key …gH9j",
        ]
    piped = conduit("secrets", "scan", "--offline", "--json", "-", given=f"\n {raw}")
    assert [(row["path"], row["line"], row["column"]) for row in json.loads(piped.stdout)["data"]] == [("-", 2, 2)]


def test_nothing_found_is_zero_a_wrong_path_two_and_a_file_that_cannot_be_read_one(tmp_path: Path) -> None:
    (tmp_path / "clean.txt").write_text("cdt_vk_ is how keys begin")
    clean = conduit("secrets", "scan", "--offline", str(tmp_path))
    assert (clean.returncode, clean.stdout, clean.stderr) == (0, "", "0 found\n")
    missing = conduit("secrets", "scan", str(tmp_path / "nothing"))
    assert (missing.returncode, "no file or folder" in missing.stderr) == (2, True)
    unread = conduit("secrets", "scan", "--offline", str(tmp_path), "/proc/self/mem")  # its first page is not mapped
    assert (unread.returncode, "1 not readable" in unread.stderr) == (1, True)
