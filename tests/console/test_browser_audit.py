"""The audit log in a real browser, on an installation with real changes: filter, verify, export, and a broken chain."""

from __future__ import annotations

import json
import re
from pathlib import Path

import psycopg
import pytest
from playwright.sync_api import expect

from tests.console.running import Watched, chromium, look, running_conduit
from tests.console.test_browser_first_run import check_pages, sign_in

pytestmark = pytest.mark.browser

CLI = ("-m", "conduit.cli")
ADDRESS = """
import os
os.environ["DJANGO_SETTINGS_MODULE"] = "conduit.settings"
from django.conf import settings
print(settings.DATABASE_URL)
"""


def test_the_log_is_filtered_verified_exported_and_shows_when_it_is_broken(tmp_path: Path) -> None:
    with running_conduit() as conduit, chromium() as browser, look(browser, "light") as own:
        watched = Watched(own.new_page())
        page = watched.page
        sign_in(conduit, watched)
        conduit.command(*CLI, "keys", "create", "--name", "acme-app", "--budget", "2.50")
        conduit.command(*CLI, "keys", "disable", "acme-app")

        page.goto(f"{conduit.url}/")
        page.get_by_role("link", name="Audit log").click()
        expect(page.get_by_role("heading", name="Audit log")).to_be_visible()
        row = page.get_by_role("row", name=re.compile("disabled key"))
        expect(row).to_contain_text("command line")
        expect(row.locator("del")).to_have_text("active")
        expect(row.locator("ins")).to_have_text("disabled")
        expect(page.get_by_role("row", name=re.compile("signed in"))).to_contain_text("127.0.0.1")

        page.get_by_role("link", name="Sign-ins", exact=True).click()
        expect(page.get_by_role("row", name=re.compile("disabled key"))).to_have_count(0)
        page.get_by_label("Filter by person, object or action").fill("invited")
        expect(page.get_by_text("Nothing like that")).to_be_visible()
        page.get_by_role("link", name="Show all of it").click()
        page.get_by_label("Filter by person, object or action").fill("disabled k")
        expect(page.locator("tbody tr")).to_have_count(1)
        assert "q=disabled" in page.url
        page.get_by_role("link", name="acme-app").click()
        expect(page.get_by_role("heading", name="acme-app")).to_be_visible()

        page.goto(f"{conduit.url}/audit")
        page.get_by_role("button", name="Verify now").click()
        expect(page.get_by_text("Chain intact")).to_be_visible()
        with page.expect_download() as waiting:
            page.get_by_role("link", name="Export with proof").click()
        waiting.value.save_as(tmp_path / "audit.jsonl")
        told = conduit.command(*CLI, "audit", "verify", "--file", str(tmp_path / "audit.jsonl"), "--json")
        assert json.loads(told)["ok"]
        page.reload()
        expect(page.get_by_role("row", name=re.compile("exported audit log"))).to_be_visible()
        check_pages(conduit, browser, own.storage_state(), ["/audit", "/audit?of=keys&range=all", "/audit?q=nothing"])

        with psycopg.connect(conduit.command("-c", ADDRESS).strip()) as connection:
            connection.execute("SET session_replication_role = replica")
            connection.execute("UPDATE core_auditentry SET actor_name = 'nobody' WHERE id = 2")
        page.goto(f"{conduit.url}/audit")
        page.get_by_role("button", name="Verify now").click()
        expect(page.get_by_role("alert")).to_contain_text("Chain broken at entry 2: edited")
        page.goto(f"{conduit.url}/")
        expect(page.get_by_text("is broken at entry 2")).to_be_visible()
        page.goto(f"{conduit.url}/system")
        expect(page.get_by_role("row", name=re.compile("Audit log"))).to_contain_text("Broken")
        check_pages(conduit, browser, own.storage_state(), ["/audit", "/"])
        assert watched.complaints == []
