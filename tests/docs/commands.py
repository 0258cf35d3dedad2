"""Writes docs/commands.md from the command line itself: `.venv/bin/python -P -m tests.docs.commands`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer

from conduit.cli.main import app
from tests.docs import pages

PAGE = "docs/commands.md"
HEAD = """# Commands

`.venv/bin/conduit COMMAND`. Each command reads the same environment as `conduit up`
([configuration](configuration.md)); all but `up`, `doctor` and `chat --url` want a running installation. `--json`
prints JSON for programs, `--help` explains a command. Exit status: 0 done, 1 failed with one line on standard error, 2
used wrongly. Secrets are read from a prompt or standard input, never from arguments.

This page is written by `.venv/bin/python -P -m tests.docs.commands`.
"""


def commands(command: Any = None, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """("keys create", its click command), in the order of the help."""
    command = command or typer.main.get_command(app)
    context = typer.Context(command, info_name=path[-1] if path else "conduit")
    if not hasattr(command, "list_commands"):
        yield " ".join(path), command
        return
    for name in command.list_commands(context):
        yield from commands(command.get_command(context, name), (*path, name))


def _option(option: Any) -> str:
    text = f"`{'/'.join([*option.opts, *option.secondary_opts])}`" + (" (required)" if option.required else "")
    return f"- {text}: {option.help}" if option.help else f"- {text}"


def _section(name: str, command: Any) -> str:
    arguments = [f" {one.name.upper()}" for one in command.params if one.param_type_name == "argument"]
    common = {"--json", "--help", "--install-completion", "--show-completion"}
    options = [
        parameter
        for parameter in command.params
        if parameter.param_type_name == "option" and parameter.opts[0] not in common
    ]
    said = " ".join((command.help or "").split())
    lines = [f"## conduit {name}", "", f"`conduit {name}{''.join(arguments)}`", "", said, ""]
    lines += [_option(option) for option in options]
    return "\n".join(lines).rstrip() + "\n"


def page() -> str:
    return "\n".join([HEAD, *(_section(name, command) for name, command in commands())])


if __name__ == "__main__":
    (pages.ROOT / PAGE).write_text(page())
