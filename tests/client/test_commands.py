"""`conduit chat` and `conduit batch` as separate processes against a gateway."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness.gateway import RunningGateway
from tests.proxy.conftest import committed, gateway, module_books

__all__ = ["committed", "gateway", "module_books"]
ROOT = Path(__file__).resolve().parents[2]
SECONDS = 60


def command(gateway: RunningGateway, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "conduit.cli", *arguments, "--url", gateway.url]


def run(gateway: RunningGateway, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "CONDUIT_KEY": gateway.raw_key}
    return subprocess.run(
        command(gateway, *arguments), capture_output=True, text=True, cwd=ROOT, env=env, timeout=SECONDS
    )


def test_a_question_is_answered_whole_or_as_it_comes(gateway: RunningGateway) -> None:
    whole = run(gateway, "chat", "sandbox-echo", "hello there")
    assert (whole.returncode, whole.stdout) == (0, "hello there\n"), whole.stderr
    assert "$0.0" in whole.stderr
    streamed = run(gateway, "chat", "sandbox-echo", "hello there", "--stream")
    assert (streamed.returncode, streamed.stdout) == (0, "hello there\n"), streamed.stderr
    assert "tokens" in streamed.stderr
    body = json.loads(run(gateway, "chat", "sandbox-echo", "hello there", "--json").stdout)
    assert (body["text"], body["finish"]) == ("hello there", "stop")
    assert body["request_id"]


def test_a_conversation_remembers_until_an_empty_line(gateway: RunningGateway) -> None:
    """On a terminal: each answer stands below its question."""
    master, slave = pty.openpty()
    env = {**os.environ, "CONDUIT_KEY": gateway.raw_key}
    with subprocess.Popen(
        command(gateway, "chat", "sandbox-echo"),
        stdin=slave,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        env=env,
    ) as talk:
        os.close(slave)
        os.write(master, b"first question\nsecond question\n\n")
        out, errors = talk.communicate(timeout=SECONDS)
    os.close(master)
    assert talk.returncode == 0, errors
    assert b"first question" in out
    assert out.index(b"first question") < out.index(b"second question")
    took = [line for line in errors.decode().splitlines() if "tokens" in line]
    first, second = (int(line.split(", ")[1].split(" + ")[0]) for line in took)
    assert second > first, "the second prompt carries the first question and its answer"


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    path = tmp_path / "questions.jsonl"
    lines = ["one", {"id": "b", "prompt": "two"}, {"id": "c", "messages": [{"role": "nobody", "content": "x"}]}]
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return path


def test_a_batch_answers_each_line_and_asks_only_what_is_left(
    gateway: RunningGateway, questions: Path, tmp_path: Path
) -> None:
    output = tmp_path / "answers.jsonl"
    done = run(gateway, "batch", "sandbox-echo", str(questions), "--output", str(output), "--concurrency", "2")
    assert done.returncode == 1
    assert "2 answered, 1 failed, 0 answered before" in done.stderr
    found = {line["id"]: line for line in map(json.loads, output.read_text().splitlines())}
    assert (found["1"]["text"], found["b"]["text"]) == ("one", "two")
    assert found["c"]["error"]["status"] == 400

    again = run(gateway, "batch", "sandbox-echo", str(questions), "--output", str(output))
    assert "0 answered, 1 failed, 2 answered before" in again.stderr
    assert len(output.read_text().splitlines()) == 4


@pytest.mark.parametrize(
    ("line", "said"),
    [('{"prompt": "a", "messages": []}', "either"), ("{", "questions.jsonl:2"), ('{"id": "1", "prompt": "x"}', "too")],
)
def test_a_line_that_is_no_question_is_named(gateway: RunningGateway, tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "questions.jsonl"
    path.write_text(f'"fine"\n{line}\n')
    refused = run(gateway, "batch", "sandbox-echo", str(path))
    assert refused.returncode == 2
    assert said in refused.stderr
