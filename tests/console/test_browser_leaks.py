"""A leaked key in a real browser: its holder's page, whose it is, a fresh secret; and the review of what it may."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from tests.console.running import RunningConduit, Watched, chromium, look, running_conduit
from tests.console.test_browser_first_run import call, check_pages, sign_in, wait_until

pytestmark = pytest.mark.browser
WIDTHS = (360, 1440)


def fits(watched: Watched) -> None:
    """Nothing to scroll sideways at either width: of answers to forms, which have no address of their own."""
    for width in WIDTHS:
        watched.page.set_viewport_size({"width": width, "height": 900})
        assert watched.sideways() == [], f"{watched.page.url} at {width}"


def enter_as_holder(conduit: RunningConduit, watched: Watched) -> None:
    page = watched.page
    page.goto(f"{conduit.url}/self")
    watched.expected.add(422)
    page.get_by_label("Key", exact=True).fill("cdt_vk_typo")
    page.get_by_role("button", name="Show my key").click()
    expect(page.get_by_role("alert")).to_contain_text("This key opens nothing from here")
    watched.expected.clear()
    page.get_by_label("Key", exact=True).fill(conduit.key)
    page.get_by_role("button", name="Show my key").click()
    expect(page.get_by_role("heading", name="Latest requests")).to_be_visible()
    expect(page).to_have_url(f"{conduit.url}/self")
    assert conduit.key not in page.content()


def replace(conduit: RunningConduit, watched: Watched) -> str:
    """The new secret."""
    page = watched.page
    page.goto(f"{conduit.url}/keys/leak")
    page.get_by_label("Key or text").fill(f"OPENAI_API_KEY={conduit.key}\n")
    page.get_by_role("button", name="Whose is it?").click()
    expect(page.get_by_text("Ours, works now")).to_be_visible()
    expect(page.get_by_role("heading", name="Blast radius of")).to_be_visible()
    assert conduit.key not in page.content()
    fits(watched)
    page.get_by_role("button", name="Revoke and replace…").click()
    expect(page.get_by_role("dialog")).to_contain_text("gets 401 within 1 second")
    page.get_by_role("dialog").get_by_role("button", name="Revoke and replace").click()
    expect(page.get_by_role("heading", name="has a new secret")).to_be_visible()
    fits(watched)
    raw = page.locator("#secret").inner_text()
    page.get_by_label("I stored the secret").check()
    page.get_by_role("link", name="Go to the key").click()
    expect(page.get_by_role("button", name="Revoke…")).to_be_visible()
    assert raw not in page.content()
    return raw


def shrink(conduit: RunningConduit, watched: Watched) -> None:
    page = watched.page
    page.goto(f"{conduit.url}/keys/review")
    page.get_by_role("checkbox", name="Shrink", exact=False).first.check()
    page.get_by_role("button", name="Show the cuts…").click()
    expect(page.get_by_role("heading", name="Shrink 1 key to what was used")).to_be_visible()
    fits(watched)
    page.get_by_role("button", name="Shrink 1 key").click()
    expect(page.get_by_text("1 key shrunk to what was used")).to_be_visible()


def test_a_leaked_key_is_found_replaced_and_shrunk() -> None:
    with running_conduit() as conduit, chromium() as browser, look(browser, "light") as own:
        watched = Watched(own.new_page())
        wait_until(lambda: call(conduit, conduit.key, "sandbox-echo").status_code == 200)
        enter_as_holder(conduit, watched)
        check_pages(conduit, browser, own.storage_state(), ["/self"])
        sign_in(conduit, watched)
        raw = replace(conduit, watched)
        wait_until(lambda: call(conduit, conduit.key, "sandbox-echo").status_code == 401)
        assert call(conduit, raw, "sandbox-echo").status_code == 200
        watched.page.goto(f"{conduit.url}/self")
        expect(watched.page.get_by_role("button", name="Show my key")).to_be_visible()
        wait_until(lambda: "Shrink" in watched.page.request.get(f"{conduit.url}/keys/review").text())
        check_pages(conduit, browser, own.storage_state(), ["/self", "/keys/leak", "/keys/review"])
        shrink(conduit, watched)
        assert watched.complaints == []
