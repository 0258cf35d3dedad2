"""A credential's rotation in a real browser against the running product: canary, promotion, drain, end."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.console.running import RunningConduit, Watched, chromium, look, running_conduit

pytestmark = pytest.mark.browser

NEW = "sk-sandbox-canary-0123456789"


def call(conduit: RunningConduit) -> int:
    body = {"model": "sandbox-echo", "messages": [{"role": "user", "content": "hello"}]}
    headers = {"Authorization": f"Bearer {conduit.key}"}
    return httpx.post(
        f"{conduit.url}/v1/chat/completions", json=body, headers=headers, trust_env=False, timeout=20
    ).status_code


def sign_in(conduit: RunningConduit, page: Page) -> None:
    page.goto(f"{conduit.url}/credentials")
    page.get_by_label("Email").fill(conduit.administrator)
    page.get_by_label("Password").fill(conduit.password)
    page.get_by_role("button", name="Continue").click()
    expect(page.get_by_role("heading", name="Credentials", exact=True)).to_be_visible()


def picture(page: Page, name: str) -> None:
    """Kept where CONDUIT_PICTURES names a directory, for a person to look at."""
    if folder := os.environ.get("CONDUIT_PICTURES"):
        page.screenshot(path=str(Path(folder) / f"{name}.png"), full_page=True)


def start(watched: Watched) -> None:
    """A wrong secret first: the provider's own words, nothing changed, and what was typed stays typed."""
    page = watched.page
    page.get_by_role("link", name="Rotate main").click()
    secret = page.get_by_label("API key")
    secret.fill("wrong-secret-0123456789")
    watched.expected.add(422)
    page.get_by_role("button", name="Test and rotate").click()
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("The provider answered:")
    assert "wrong-secret" not in alert.inner_text()
    assert secret.input_value() == "wrong-secret-0123456789"
    assert secret.get_attribute("aria-invalid") == "true"
    watched.expected.clear()
    secret.fill(NEW)
    page.get_by_label("Reason optional").fill("quarterly rotation")
    page.get_by_role("button", name="Test and rotate").click()
    expect(page.get_by_role("heading", name=re.compile(r"main\s+Canary 1"))).to_be_visible()
    assert NEW not in page.content()


def versions(page: Page) -> str:
    return page.locator("#cr-versions").inner_text()


def check_looks(conduit: RunningConduit, browser: Browser, state: object, paths: dict[str, str]) -> None:
    """Light, dark and at 360 pixels: nothing to scroll sideways, nothing in the console, one heading of the page."""
    for mode in ("light", "dark", "360"):
        with look(browser, mode, state) as context:
            watched = Watched(context.new_page())
            for name, path in paths.items():
                watched.page.goto(f"{conduit.url}{path}")
                watched.page.wait_for_timeout(150)
                assert watched.sideways() == [], f"{path} ({mode})"
                assert watched.page.locator("h1").count() == 1, path
                picture(watched.page, f"{name}-{mode}")
            assert watched.complaints == [], mode


def test_a_credential_is_rotated_by_a_canary_until_the_old_secret_is_destroyed() -> None:
    with running_conduit() as conduit, chromium() as browser, look(browser, "light") as own:
        watched = Watched(own.new_page())
        page = watched.page
        sign_in(conduit, page)
        assert [call(conduit) for _ in range(5)] == [200] * 5
        start(watched)
        cockpit = urlsplit(page.url).path
        number = int(re.findall(r"v(\d+) replaces v1", page.locator(".ph").inner_text())[0])

        page.get_by_role("button", name="10 %").click()
        expect(page.get_by_role("heading", name=re.compile(r"main\s+Canary 10"))).to_be_visible()
        late = page.locator("#cr-late tbody tr").filter(has_text="v1")
        before = int(late.locator("td[data-l=Requests]").inner_text())
        assert [call(conduit) for _ in range(5)] == [200] * 5
        expect(page.locator("#cr-late tfoot td[data-l=Requests]")).not_to_have_text(str(before))
        expect(page.locator("#cr-lamp")).to_contain_text("No, v1 is in force")
        state = own.storage_state()
        check_looks(
            conduit,
            browser,
            state,
            {
                "credentials": "/credentials",
                "cockpit": cockpit,
                "rules": f"{cockpit}/rules",
                "settings": f"{cockpit}/settings",
                "revoke": f"{cockpit}/revoke/1",
                "delete": f"{cockpit}/delete",
            },
        )

        # Somebody else moves it: the page follows by itself.
        conduit.command("-m", "conduit.cli", "credentials", "promote", "main", "--share", "50")
        expect(page.get_by_role("heading", name=re.compile(r"main\s+Canary 50"))).to_be_visible()

        page.locator(".ph").get_by_role("button", name=f"Send 100 % to v{number}").click()
        dialog = page.get_by_role("dialog")
        expect(dialog).to_contain_text("Roll back stays one click")
        picture(page, "promote")
        page.keyboard.press("Escape")
        expect(dialog).not_to_be_visible()
        page.locator(".ph").get_by_role("button", name=f"Send 100 % to v{number}").press("Enter")
        dialog.get_by_role("button", name=f"Send 100 % to v{number}").click()
        expect(page.get_by_role("heading", name=re.compile(r"main\s+Draining"))).to_be_visible()
        assert call(conduit) == 200

        page.get_by_role("button", name="Finish, destroy v1").click()
        page.get_by_role("dialog").get_by_role("button", name="Destroy v1").click()
        expect(page.locator("#cr-versions tbody tr").filter(has_text="v1")).to_contain_text("Retired")
        expect(page.locator("#cr-stages")).to_contain_text("Revoke v1")
        expect(page.locator("#cr-lamp")).to_contain_text("Safe to revoke v1")
        assert "destroyed" in versions(page)
        assert call(conduit) == 200
        check_looks(conduit, browser, state, {"finished": cockpit, "rotate": f"{cockpit}/rotate"})
        assert watched.complaints == []
