"""The `conduit` command's root: finds a command's module by name and turns our errors into exit codes.

Exit codes: 0 done, 1 failed (one line on standard error), 2 wrong usage.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
from typing import Any

import typer
from typer.core import TyperGroup

from conduit.core.errors import ConduitError, ConfigurationError, InvalidInput

# Each is conduit.cli.<name> (a hyphen becomes an underscore) with a typer `app`. One command in the app runs directly;
# a noun with one verb needs `@app.callback()` to stay a group.
COMMANDS = (
    "up",
    "doctor",
    "providers",
    "credentials",
    "routes",
    "models",
    "chat",
    "batch",
    "tokens",
    "keys",
    "teams",
    "budgets",
    "users",
    "kek",
    "usage",
    "ledger",
    "audit",
    "uncertain",
    "leases",
    "prices",
    "secrets",
)


class LazyGroup(TyperGroup):
    """Imports a command's module when that command, or the whole help, is asked for."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"conduit.cli.{cmd_name.replace('-', '_')}")
        command = typer.main.get_command(module.app)
        command.name = cmd_name
        return command


app = typer.Typer(
    cls=LazyGroup, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None
)


@app.callback()
def root() -> None:
    """Conduit: a gateway between your applications and the LLM providers you pay."""


def django_ready(*, database: bool = True) -> None:
    """Sets Django up for a command. Raises ConfigurationError when it needs the database and has none to talk to."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "conduit.settings")
    import django  # noqa: PLC0415 (`up` and every help text work without it)
    from django.conf import settings  # noqa: PLC0415

    from conduit.core.logs import configure  # noqa: PLC0415

    if database and not settings.DATABASE_URL:
        raise ConfigurationError("Conduit is not running: start it with `make up`, or set DATABASE_URL.")
    configure(least=logging.WARNING)  # a command says what it did by itself
    django.setup()


def main() -> None:
    """Entry point of the script."""
    try:
        app(prog_name="conduit")
    except ConduitError as error:
        sys.stderr.write(f"conduit: {error}\n")
        sys.exit(2 if isinstance(error, InvalidInput) else 1)
    except _database_errors() as error:
        sys.stderr.write(f"conduit: the database: {str(error).strip().splitlines()[0]}; `conduit doctor` says more\n")
        sys.exit(1)


def _database_errors() -> tuple[type[Exception], ...]:
    """What a database that is away or of another version raises; asked for only when something was raised."""
    from django.db.utils import InterfaceError, OperationalError, ProgrammingError  # noqa: PLC0415

    return (OperationalError, InterfaceError, ProgrammingError)
