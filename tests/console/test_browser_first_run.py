"""The whole first hour of a new installation, in a real browser against the running product."""

from __future__ import annotations

import re
import shlex
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from urllib.parse import urlsplit

import httpx
import pytest
from playwright.sync_api import Browser, Error, Page, expect

from tests.console.running import RunningConduit, Watched, chromium, look, running_conduit
from tests.harness.sandbox import running_sandbox

pytestmark = pytest.mark.browser

RAW_KEY = re.compile(r"cdt_vk_[0-9A-Za-z]{48}")
# An input of 8 and an output of 1 tokens at $10 and $20 per million: 8 x 10_000 + 1 x 20_000 nano-dollars.
COST = "$0.000100000"
SET_PRICE = ("prices", "set", "sandbox-echo", "--rate", "input=10", "--rate", "output=20", "--provider", "acme")


def call(conduit: RunningConduit, key: str, model: str) -> httpx.Response:
    body = {"model": model, "messages": [{"role": "user", "content": "hello"}]}
    headers = {"Authorization": f"Bearer {key}"}
    return httpx.post(f"{conduit.url}/v1/chat/completions", json=body, headers=headers, trust_env=False, timeout=20)


def refused_at_length(conduit: RunningConduit, key: str) -> httpx.Response:
    """With the longest name of an error that the list of requests shows."""
    body = {"model": "acme-chat", "input": "hello", "previous_response_id": "resp_gone"}
    headers = {"Authorization": f"Bearer {key}"}
    return httpx.post(f"{conduit.url}/v1/responses", json=body, headers=headers, trust_env=False, timeout=20)


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)


def land(conduit: RunningConduit, page: Page, answer: httpx.Response) -> None:
    """Opens the request's page, once the ledger has it."""
    url = f"{conduit.url}/requests/{answer.headers['x-request-id']}"
    wait_until(lambda: page.request.get(url).status == 200)
    page.goto(url)


def sign_in(conduit: RunningConduit, watched: Watched) -> None:
    page = watched.page
    page.goto(f"{conduit.url}/keys")
    assert urlsplit(page.url).path == "/login"
    page.get_by_label("Email").fill(conduit.administrator)
    page.get_by_label("Password").fill(conduit.password)
    page.get_by_role("button", name="Continue").click()
    expect(page).to_have_url(f"{conduit.url}/keys")


def add_provider(conduit: RunningConduit, watched: Watched, upstream: str) -> str:
    """A wrong credential first: the provider's own words, and nothing saved. Returns the provider's id."""
    page = watched.page
    page.goto(f"{conduit.url}/providers/new")
    page.keyboard.press("/")  # the filter
    page.keyboard.type("custom")
    expect(page.get_by_role("link", name="Groq", exact=True)).to_have_count(0)
    expect(page).to_have_url(f"{conduit.url}/providers/new?q=custom")
    expect(page.locator("#live")).to_have_text("1 found")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Custom endpoint", exact=True)).to_be_focused()
    page.keyboard.press("Enter")
    page.get_by_label("Name", exact=True).fill("acme")
    page.get_by_label("Base URL").fill(f"{upstream}/v1")
    secret = page.get_by_label("API key")
    secret.fill("wrong-credential-0123456789")
    watched.expected.add(422)
    page.get_by_role("button", name="Test and save").click()
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("The provider answered:")
    expect(alert).to_contain_text("HTTP 401")
    assert "wrong-credential" not in alert.inner_text()
    assert secret.input_value() == "wrong-credential-0123456789"  # what was typed stays typed
    assert secret.get_attribute("aria-invalid") == "true"
    listed = page.request.get(f"{conduit.url}/providers").text()
    assert "acme" not in listed
    watched.expected.clear()

    secret.fill("sk-sandbox-0123456789abcdef")
    page.get_by_role("button", name="Test and save").click()
    expect(page.get_by_role("heading", name="acme")).to_be_visible()
    expect(page.get_by_text("took the credential")).to_be_visible()
    expect(page.get_by_text("Accepted", exact=True)).to_be_visible()
    assert "sk-sandbox-0123456789abcdef" not in page.content()
    return urlsplit(page.url).path.rsplit("/", 1)[1]


def create_route(conduit: RunningConduit, watched: Watched) -> None:
    page = watched.page
    page.get_by_role("link", name="Create route").click()
    page.get_by_label("Route", exact=True).fill("acme-chat")
    page.get_by_label("Model").fill("sandbox-echo")
    page.get_by_role("button", name="Create route").click()
    expect(page.get_by_text("Route acme-chat is in effect.")).to_be_visible()


def create_key(conduit: RunningConduit, watched: Watched) -> str:
    """The raw key, shown once."""
    page = watched.page
    page.goto(f"{conduit.url}/keys/new")
    page.get_by_label("Name", exact=True).fill("acme-app")
    page.get_by_label("acme-chat 1 target").check()
    page.get_by_label("Limit optional").fill("2.50")
    expect(page.locator("#preview")).to_contain_text("$2.50 each month (hard)")
    expect(page.locator("#preview")).to_contain_text("acme-chat")
    page.get_by_role("button", name="Create key").click()
    expect(page.get_by_role("heading", name="Key acme-app is ready")).to_be_visible()
    raw = page.locator("#secret").inner_text()
    assert RAW_KEY.fullmatch(raw)
    expect(page.get_by_text("Waiting for the first request")).to_be_visible()
    return raw


def leave_secret(conduit: RunningConduit, watched: Watched, raw: str) -> None:
    """The way on opens after "I stored the secret"; behind it the secret is gone, also by the back button."""
    page = watched.page
    on = page.get_by_role("link", name="Go to the key")
    assert on.get_attribute("aria-disabled") == "true"
    page.get_by_label("I stored the secret").check()
    on.click()
    expect(page.get_by_role("heading", name="acme-app")).to_be_visible()
    assert raw not in page.content()
    with suppress(Error):  # the browser keeps no copy and would have to send the form again
        page.go_back()
    page.wait_for_timeout(500)
    assert raw not in page.content()
    page.goto(f"{conduit.url}/keys")
    page.get_by_role("link", name="acme-app").click()
    expect(page.get_by_role("heading", name="acme-app")).to_be_visible()


def rotate(conduit: RunningConduit, watched: Watched, old: str) -> str:
    """A new secret beside the old one; who still uses the old one is seen before it is ended. Returns the new one."""
    page = watched.page
    page.get_by_role("button", name="Rotate…").click()
    page.get_by_label("Overlap").select_option("3600")
    page.get_by_role("button", name="Rotate key").click()
    expect(page.get_by_role("heading", name="Secret v2 of acme-app is ready")).to_be_visible()
    raw = page.locator("#secret").inner_text()
    assert RAW_KEY.fullmatch(raw)
    wait_until(lambda: call(conduit, raw, "acme-chat").status_code == 200)
    assert call(conduit, old, "acme-chat").status_code == 200
    page.get_by_label("I stored the secret").check()
    page.get_by_role("link", name="Go to the key").click()
    expect(page.get_by_role("heading", name="Versions")).to_be_visible()
    assert raw not in page.content()
    expect(page.get_by_text("Still used: 1 request in the last hour, from 127.0.0.1")).to_be_visible()
    page.get_by_role("button", name="End it now…").click()
    page.get_by_role("button", name="End v1").click()
    expect(page.get_by_text("The old secret of acme-app has ended")).to_be_visible()
    wait_until(lambda: call(conduit, old, "acme-chat").status_code == 401)
    assert call(conduit, raw, "acme-chat").status_code == 200
    return raw


def disable_and_undo(conduit: RunningConduit, watched: Watched, raw: str) -> None:
    page = watched.page
    page.get_by_role("button", name="Disable…").click()
    page.get_by_role("button", name="Disable key").click()
    expect(page.get_by_text("It is disabled. Its callers get 401.")).to_be_visible()
    wait_until(lambda: call(conduit, raw, "acme-chat").status_code == 401)
    page.get_by_role("button", name="Undo").click()
    expect(page.get_by_text("acme-app is enabled.")).to_be_visible()
    wait_until(lambda: call(conduit, raw, "acme-chat").status_code == 200)


def revoke(watched: Watched) -> None:
    page = watched.page
    page.get_by_role("button", name="Revoke…").click()
    button = page.get_by_role("button", name="Revoke key")
    page.locator("#confirm").fill("acme-ap")
    assert button.get_attribute("aria-disabled") == "true"
    page.locator("#confirm").fill("acme-app")
    button.click()
    expect(page.get_by_text("acme-app is revoked")).to_be_visible()


def explore(conduit: RunningConduit, watched: Watched) -> None:
    """A changed question is answered in place and has its own address; going back asks the former one again."""
    page = watched.page
    page.goto(f"{conduit.url}/usage")
    page.get_by_label("by", exact=True).select_option("key")
    expect(page.get_by_role("heading", name="Spend by key per day")).to_be_visible()
    expect(page.get_by_role("row", name=re.compile("acme-app"))).to_contain_text("$0.000")
    assert "group=key" in page.url
    assert "group=key" in page.locator("#state").inner_text()
    page.get_by_role("link", name="acme-app").click()
    expect(page.get_by_text("Key: acme-app")).to_be_visible()
    page.go_back()
    expect(page.get_by_role("heading", name="Spend by key per day")).to_be_visible()
    page.go_back()
    expect(page.get_by_role("heading", name="Spend by model per day")).to_be_visible()
    expect(page.get_by_role("link", name="Usage", exact=True)).to_be_visible()


def check_held(conduit: RunningConduit, browser: Browser, state: object, raw: str, key_page: str) -> None:
    """The key's page while an answer that is under way holds some of its budget."""
    body = {"model": "acme-chat", "messages": [{"role": "user", "content": "hello " * 600}], "stream": True}
    headers = {"Authorization": f"Bearer {raw}"}
    url = f"{conduit.url}/v1/chat/completions"
    with httpx.stream("POST", url, json=body, headers=headers, trust_env=False, timeout=30) as answer:
        assert answer.status_code == 200
        with look(browser, "light", state) as context:
            page = context.new_page()

            def held() -> bool:
                page.goto(f"{conduit.url}{key_page}")
                return page.get_by_role("heading", name="Held now").is_visible()

            wait_until(held)
        check_pages(conduit, browser, state, [key_page, "/", "/keys", "/budgets", "/system"])


def check_pages(conduit: RunningConduit, browser: Browser, state: object, pages: list[str]) -> None:
    """Every page in light, dark and at 360 pixels: nothing to scroll sideways, nothing in the console."""
    for mode in ("light", "dark", "360"):
        with look(browser, mode, state) as context:
            watched = Watched(context.new_page())
            for path in pages:
                watched.page.goto(f"{conduit.url}{path}")
                watched.page.wait_for_timeout(150)
                assert watched.sideways() == [], f"{path} ({mode})"
                assert watched.overlaps() == [], f"{path} ({mode})"
                assert watched.page.locator("h1").count() == 1, path
            assert watched.complaints == [], mode


def test_from_signing_in_to_a_revoked_key() -> None:
    with (
        running_conduit() as conduit,
        running_sandbox(faults={"chunk-gap-ms": 200}) as upstream,
        chromium() as browser,
        look(browser, "light") as own,
    ):
        watched = Watched(own.new_page())
        page = watched.page
        sign_in(conduit, watched)

        printed = subprocess.run(
            [*shlex.split(conduit.curl), "--silent", "--fail"], capture_output=True, text=True, check=True
        )
        assert '"content":"hello"' in printed.stdout.replace(" ", "")
        page.goto(f"{conduit.url}/first-run")
        expect(page.get_by_text("your request landed: 200")).to_be_visible()

        provider = add_provider(conduit, watched, upstream.url)
        conduit.command("-m", "conduit.cli", *SET_PRICE)
        create_route(conduit, watched)
        raw = create_key(conduit, watched)

        wait_until(lambda: call(conduit, raw, "acme-chat").status_code == 200)
        answer = call(conduit, raw, "acme-chat")
        assert answer.json()["choices"][0]["message"]["content"] == "hello"
        expect(page.get_by_text("The first request landed")).to_be_visible()
        leave_secret(conduit, watched, raw)

        expect(page.locator("#figures")).to_contain_text("exactly $0.000")
        land(conduit, page, answer)
        expect(page.get_by_text(f"exactly {COST}")).to_be_visible()
        expect(page.locator("tfoot").filter(has_text="Settled")).to_contain_text(COST)
        key_page = page.get_by_role("link", name="acme-app").get_attribute("href") or ""

        refused = call(conduit, raw, "no-such-model")
        assert refused.status_code == 403
        assert refused_at_length(conduit, raw).status_code == 400
        land(conduit, page, refused)
        expect(page.get_by_text("Stopped by the check: Model")).to_be_visible()

        explore(conduit, watched)

        page.goto(f"{conduit.url}{key_page}")
        raw = rotate(conduit, watched, raw)
        disable_and_undo(conduit, watched, raw)
        check_held(conduit, browser, own.storage_state(), raw, key_page)
        revoke(watched)
        wait_until(lambda: call(conduit, raw, "acme-chat").status_code == 401)
        assert watched.complaints == []

        pages = ["/", "/requests?range=24h", "/keys", "/keys/new", key_page, "/providers", f"/providers/{provider}"]
        pages += [
            "/providers/new",
            "/providers/new?q=nobody",
            "/providers/new?kind=openai",
            "/credentials",
            f"/credentials/new?provider={provider}",
        ]
        pages += ["/routes", "/routes/new", "/system", "/first-run", f"/requests/{answer.headers['x-request-id']}"]
        pages += ["/budgets", "/budgets?of=customers", "/budgets?of=providers", "/budgets/raise"]
        pages += [f"/providers/{provider}/limits"]
        pages += [
            f"/requests/{refused.headers['x-request-id']}",
            "/usage",
            "/usage?group=key&sub=model&metric=latency",
            "/usage?group=tag",
        ]
        pages += ["/requests?range=24h&model=sandbox-echo"]
        check_pages(conduit, browser, own.storage_state(), pages)
