"""Every command and every call that docs/security.md tells somebody to type on a bad day exists, with its options."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from django.urls import Resolver404, resolve

from tests.docs import commands, pages

PAGE = "docs/security.md"
_CALL = re.compile(r"(?:\.venv/bin/)?conduit ([a-z].*)", re.DOTALL)
UsageError: Any = typer.BadParameter.__base__  # typer brings its own click
_ENDS = {"|", "<", ">", "&&", ";"}
_METHODS = re.compile(r"^(GET|POST|DELETE|PATCH|PUT) (/\S+)$")


def _lines() -> Iterator[str]:
    """Lines of shell blocks, joined where they go on, and what stands between back quotes."""
    text = pages.read(PAGE)
    for block in re.findall(r"^ *```sh\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL):
        yield from block.replace("\\\n", " ").splitlines()
    yield from pages.in_code(re.sub(r"^ *```.*?^ *```", "", text, flags=re.MULTILINE | re.DOTALL))


def _called() -> list[list[str]]:
    """The arguments of every `conduit …`, up to where the shell takes over."""
    found = []
    for line in _lines():
        if match := _CALL.fullmatch(line.strip()):
            words = shlex.split(match[1], comments=True)
            ends = [place for place, word in enumerate(words) if word in _ENDS]
            found.append(words[: ends[0]] if ends else words)
    return found


def parse(words: list[str]) -> None:
    """Raises UsageError for what the command line would not take. A command alone is a mention of it."""
    known = dict(commands.commands())
    name = next((" ".join(words[:size]) for size in (2, 1) if " ".join(words[:size]) in known), None)
    if name is None:
        raise UsageError(f"there is no command {' '.join(words[:2])}")
    rest = words[len(name.split()) :]
    if rest:
        known[name].make_context(name, rest).close()


def _refusal(words: list[str]) -> str:
    try:
        parse(words)
    except UsageError as refused:
        return refused.format_message()
    return ""


def test_every_command_of_the_page_parses() -> None:
    called = _called()
    assert len(called) >= 50
    wrong = [f"conduit {' '.join(words)}: {told}" for words in called if (told := _refusal(words))]
    assert "\n".join(wrong) == ""


@pytest.mark.parametrize(
    "line", ["keys list --no-such-option", "keys revoke one too many", "teams create --name", "no"]
)
def test_a_wrong_command_would_be_noticed(line: str) -> None:
    assert _refusal(line.split())


def test_every_call_of_the_management_api_has_an_endpoint() -> None:
    text = pages.read(PAGE)
    one = "01a1fff7-c686-76aa-a136-d7e2fd2cbae7"
    named = [found[2] for line in _lines() if (found := _METHODS.match(line))]
    named += re.findall(r"\$CONDUIT(/[^\"\s]+)", text)
    assert len(named) >= 12
    for path in named:
        real = path.replace("$ID", one).replace("ID", one)
        try:
            assert "<path:rest>" not in str(resolve(f"/api/v1{real}").route), f"{path} is nowhere"
        except Resolver404:
            pytest.fail(f"{path} is nowhere")
