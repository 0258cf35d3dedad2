"""`conduit credentials`: every step of a rotation with secrets on standard input only, and once as a process."""

from __future__ import annotations

import json
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from conduit.cli.main import app
from conduit.core.errors import Conflict, InvalidInput, NotFound
from tests.harness.sandbox import RunningSandbox
from tests.providers.rotations import BAD, FOREIGN, NEW, OLD, THIRD, a_credential
from tests.providers.test_command_line import Run, conduit

__all__ = ["conduit"]


def run(*words: str, given: str = "") -> Result:
    ran = CliRunner().invoke(app, ["credentials", *words], input=given)
    assert not any(secret in ran.output + str(ran.exception) for secret in (OLD, NEW, THIRD, BAD, FOREIGN))
    return ran


def done(*words: str, given: str = "") -> Any:
    ran = run(*words, "--json", given=given)
    assert ran.exception is None, ran.exception
    return json.loads(ran.stdout)


@pytest.mark.django_db
def test_a_credential_is_rotated_from_the_shell(sandbox: RunningSandbox) -> None:
    a_credential()
    begun = done("rotate", "Sandbox main/main", "--canary", "5,20", "--reason", "yearly", given=f"{NEW}\n")
    assert (begun["state"], begun["new"], begun["share"], begun["steps"]) == ("canary", 2, 5, [5, 20])
    assert done("rotate", "main", given=NEW)["id"] == begun["id"]
    assert "canary: version 2 has 5 %" in run("list").stdout
    assert done("promote", "main", "--share", "20")["share"] == 20
    assert done("verify", "main")["ok"] is True
    assert done("promote", "main")["state"] == "draining"
    kept = done("extend", "main", "--overlap-seconds", "7200")["retire_at"]
    assert f"draining: version 2 is active, version 1 until {kept}" in run("rotation", "main").stdout
    assert done("finish", "main")["state"] == "finished"
    shown = run("versions", "main").stdout.splitlines()
    assert [line.split()[:2] for line in shown] == [["v2", "active"], ["v1", "retired"]]
    assert "destroyed" in shown[1]

    done("rotate", "main", "--expires-at", "2099-01-31T00:00:00Z", given=THIRD)
    assert done("list")[0]["expires_at"] == "2099-01-31T00:00:00Z"
    assert done("revoke", "main", "--version", "3") == {"revoked": 3, "active": 2}
    assert done("rollback", "main")["state"] == "rolled_back"
    assert "version 2 is revoked, no version is left" in run("revoke", "main", "--version", "2").stdout
    assert run("verify", "main").exit_code == 1


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("words", "given", "error", "says"),
    [
        (("rotate", "main"), FOREIGN, InvalidInput, "account bob"),
        (("rotate", "main", "--canary", "20,10"), NEW, InvalidInput, "canary.steps"),
        (("rotate", "main", "--expires-at", "soon"), NEW, InvalidInput, "expires_at"),
        (("promote", "main"), "", Conflict, "No rotation of main is under way"),
        (("versions", "nobody"), "", NotFound, "no credential 'nobody'"),
        (("versions", "twin"), "", Conflict, "Say PROVIDER/NAME"),
        (("revoke", "main", "--version", "9"), "", NotFound, "no version 9"),
    ],
)
def test_what_is_refused_says_why(
    sandbox: RunningSandbox, words: tuple[str, ...], given: str, error: type[Exception], says: str
) -> None:
    a_credential()
    if "twin" in words:
        from providers.models import Credential

        for name in ("one", "two"):
            Credential.objects.filter(pk=a_credential(name=name).pk).update(name="twin")
    ran = run(*words, given=given)
    assert isinstance(ran.exception, error)
    assert says in str(ran.exception)


@pytest.mark.django_db
def test_shares_that_are_no_numbers_are_wrong_use(sandbox: RunningSandbox) -> None:
    a_credential()
    assert run("rotate", "main", "--canary", "ten", given=NEW).exit_code == 2


def test_as_a_process_a_refused_secret_ends_with_one(conduit: Run) -> None:
    assert conduit("providers", "add", "Sandbox", "--kind", "sandbox", given=OLD).returncode == 0
    assert conduit("credentials", "add", "Sandbox", "second", given=NEW).returncode == 0
    bad = conduit("credentials", "rotate", "second", given=BAD)
    assert (bad.returncode, bad.stdout) == (1, "")
    assert "Incorrect API key" in bad.stderr
    assert "Traceback" not in bad.stderr
