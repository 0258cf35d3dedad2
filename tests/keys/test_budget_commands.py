"""`conduit budgets` as a person runs it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

from tests.access.test_commands import conduit


def test_budgets_are_listed_shown_and_raised_from_the_command_line(own_database: str) -> None:
    conduit(own_database, "teams", "create", "--name", "search", "--budget", "9", "--window", "week")
    conduit(own_database, "keys", "create", "--name", "app", "--team", "search", "--budget", "2.50")
    listed = json.loads(conduit(own_database, "budgets", "list", "--json").stdout)["data"]
    assert [(row["owner"]["name"], row["limit_usd"]) for row in listed] == [("app", "2.50"), ("search", "9.00")]
    one = conduit(own_database, "budgets", "list", "--owner-kind", "team", "--owner", "search").stdout
    assert one.count("\n") == 1
    assert f"{listed[1]['id']}  team search  hard  $9.00 per week" in one

    until = (datetime.now(UTC) + timedelta(hours=1)).isoformat(timespec="seconds")
    raised = conduit(own_database, "budgets", "raise", listed[0]["id"], "--extra", "10", "--until", until, "--json")
    assert (raised.returncode, raised.stderr) == (0, "")
    assert json.loads(raised.stdout)["limit_usd"] == "12.50"
    shown = conduit(own_database, "budgets", "show", listed[0]["id"]).stdout
    assert "$12.50 per lifetime  $0.00 settled  $0.00 held  $12.50 free" in shown
    assert "raised by $10.00 until " in shown

    for words, named in [
        (("list", "--window", "hour"), "window: "),
        (("show", "app"), "budget: "),
        (("raise", listed[0]["id"], "--extra", "1,0", "--until", until), "extra_usd: "),
        (("raise", listed[0]["id"], "--extra", "1", "--until", "soon"), "until: "),
    ]:
        wrong = conduit(own_database, "budgets", *words)
        assert (wrong.returncode, named in wrong.stderr) == (2, True), words
    gone = conduit(own_database, "budgets", "show", "0190a0a0-0000-7000-8000-000000000000")
    assert (gone.returncode, gone.stderr.count("\n")) == (1, 1)
