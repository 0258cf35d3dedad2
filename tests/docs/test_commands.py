"""docs/commands.md has every command of `conduit` and its options; all pages name only commands that exist."""

from __future__ import annotations

import re

from tests.docs import commands, pages

_CALL = re.compile(r"(?<!from )(?<![\w./-])(?:\.venv/bin/)?conduit ([a-z]+(?: [a-z]+(?:-[a-z]+)*)?)")


def test_the_page_is_what_the_command_line_says() -> None:
    assert pages.read(commands.PAGE) == commands.page(), "run .venv/bin/python -P -m tests.docs.commands"


def test_every_command_is_there() -> None:
    names = [name for name, _ in commands.commands()]
    assert len(names) == len(set(names)) >= 20
    assert re.findall(r"^## conduit (.+)$", pages.read(commands.PAGE), re.MULTILINE) == names


def _called(text: str) -> list[str]:
    """What follows `conduit` in code, as far as it may name a command."""
    scripts = re.findall(r"^```(?:sh|bash)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [found for piece in [*pages.in_code(pages.without_blocks(text)), *scripts] for found in _CALL.findall(piece)]


def test_commands_in_code_on_any_page_exist() -> None:
    names = {name for name, _ in commands.commands()}
    groups = {name.split()[0] for name in names if " " in name}
    found = [(path.name, called) for path in pages.pages() for called in _called(path.read_text())]
    assert len(found) >= 50
    for page, called in found:
        assert called in names or called in groups or called.split()[0] in names - groups, f"{page}: conduit {called}"
