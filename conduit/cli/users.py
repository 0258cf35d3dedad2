"""`conduit users`: people who sign in to the console."""

from __future__ import annotations

from typing import Annotated

import typer

from conduit.cli.main import django_ready
from conduit.cli.output import Json, emit

app = typer.Typer(no_args_is_help=True, help="People who sign in to the console.")


@app.command()
def create(
    email: Annotated[str, typer.Option(help="E-mail address, the name to sign in with.")],
    role: Annotated[str, typer.Option(help="owner, admin, operator, analyst or auditor.")],
    name: Annotated[str, typer.Option(help="What the person is called.")] = "",
    as_json: Json = False,
) -> None:
    """Create a user and print the generated password: the only time it can be seen."""
    django_ready()
    from conduit.access.users import create_user  # noqa: PLC0415 (needs Django)
    from conduit.core.actor import COMMAND_LINE  # noqa: PLC0415

    user, password = create_user(actor=COMMAND_LINE, email=email, role=role, name=name)
    value = {"id": str(user.id), "email": user.email, "role": user.role, "password": password.reveal()}
    emit(value, [password.reveal()], as_json=as_json)


@app.command("list")
def list_users(as_json: Json = False) -> None:
    """List every user."""
    django_ready()
    from conduit.access import teams, users  # noqa: PLC0415 (needs Django)
    from conduit.access.models import User  # noqa: PLC0415

    found = list(User.objects.order_by("email"))
    members = teams.of_users(found)
    rows = [{"id": str(user.id), **users.describe(user, members[user.id])} for user in found]
    lines = [f"{row['id']}  {row['role']:<8}  {row['email']}{'' if row['active'] else '  (disabled)'}" for row in rows]
    emit({"data": rows}, lines, as_json=as_json)
