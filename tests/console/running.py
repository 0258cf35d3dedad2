"""`conduit up` as a user starts it, on a data directory of its own, and a system Chromium to look at it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, expect, sync_playwright

from tests.harness.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
expect.set_options(timeout=30_000)  # milliseconds: the machine may be busy


@dataclass(frozen=True)
class RunningConduit:
    """What `conduit up` printed, and the environment that its commands need."""

    url: str
    administrator: str
    password: str
    key: str
    curl: str
    environment: dict[str, str]

    def command(self, *arguments: str, text: str = "") -> str:
        """Standard output of a command that works on this installation."""
        done = subprocess.run(
            [sys.executable, "-P", *arguments],
            cwd=ROOT,
            env={**self.environment, "PYTHONPATH": str(ROOT)},
            input=text,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@contextmanager
def running_conduit() -> Iterator[RunningConduit]:
    """Starts it, waits until it is ready, and ends it with SIGTERM; it must end by itself."""
    folder = Path(tempfile.mkdtemp(prefix="cdt-up-"))
    port, sandbox_port = free_port(), free_port()
    kept = {
        name: text for name, text in os.environ.items() if not name.startswith(("CONDUIT_", "DATABASE_", "VALKEY_"))
    }
    environment = kept | {
        "CONDUIT_HOME": str(folder / "home"),
        "CONDUIT_PORT": str(port),
        "CONDUIT_SANDBOX_PORT": str(sandbox_port),
        "CONDUIT_WORKERS": "1",
        "CONDUIT_EGRESS_ALLOW": "127.0.0.1",
        "DJANGO_SETTINGS_MODULE": "conduit.settings",
        "PYTHONPATH": str(ROOT),
    }
    printed, log = folder / "printed", folder / "log"
    with printed.open("wb") as out, log.open("wb") as err:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "conduit.cli", "up"], cwd="/", env=environment, stdout=out, stderr=err
        )
        try:
            yield _ready(process, printed, log, environment)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
            finally:
                shutil.rmtree(folder, ignore_errors=True)


def _ready(process: subprocess.Popen[bytes], printed: Path, log: Path, environment: dict[str, str]) -> RunningConduit:
    deadline = time.monotonic() + 120
    while "curl " not in printed.read_text():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, f"not ready in time: {log.read_text()[-2000:]}"
        time.sleep(0.1)
    lines = dict(line.split(": ", 1) for line in printed.read_text().splitlines() if ": " in line[:16])
    curl = next(line for line in printed.read_text().splitlines() if line.startswith("curl "))
    return RunningConduit(
        lines["console"].rstrip("/"), lines["administrator"], lines["password"], lines["key"], curl, environment
    )


@dataclass
class Watched:
    """A page whose console, errors and refused loads are kept: a page that is right has none."""

    page: Page
    complaints: list[str] = field(default_factory=list)
    expected: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        self.page.on("requestfailed", lambda request: self._failed(request.url, request.failure or ""))

    def _console(self, message: ConsoleMessage) -> None:
        if message.type not in ("error", "warning"):
            return
        # A refused form (422) is also reported as a failed load; the test that provokes one says so.
        if any(f"status of {status}" in message.text for status in self.expected):
            return
        self.complaints.append(f"{message.type}: {message.text}")

    def _failed(self, url: str, why: str) -> None:
        # A live part that was asked for while the page was left, or a form that going back does not send again.
        if "ERR_ABORTED" not in why and "ERR_CACHE_MISS" not in why:
            self.complaints.append(f"failed: {url} {why}")

    def sideways(self) -> list[str]:
        """What can be scrolled sideways, the page or a table in it, with its pixels; a chart's figures may."""
        found: list[str] = self.page.evaluate(
            """[document.documentElement, ...document.querySelectorAll('.tw')].filter(part =>
                !part.closest('details') && part.scrollWidth > part.clientWidth).map(part =>
                `${part.scrollWidth} in ${part.clientWidth} pixels: ${part.innerText}`)"""
        )
        return found

    def overlaps(self) -> list[str]:
        """Statuses that lie on the name of their row."""
        found: list[str] = self.page.evaluate(
            """[...document.querySelectorAll('tbody tr:has(th):has(.at-top)')].filter(row => {
                const name = row.querySelector('th > *')?.getBoundingClientRect()
                const status = row.querySelector('.at-top > *')?.getBoundingClientRect()
                return name && status && name.right > status.left && status.right > name.left
                    && name.bottom > status.top && status.bottom > name.top
            }).map(row => row.innerText)"""
        )
        return found


@contextmanager
def chromium() -> Iterator[Browser]:
    path = next((found for name in CHROMIUM if (found := shutil.which(name))), None)
    assert path, "the browser tests need Chromium: install it (Debian: apt-get install chromium)"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


def look(browser: Browser, mode: str, state: object = None) -> BrowserContext:
    """A window: `light`, `dark`, or `360` pixels wide."""
    return browser.new_context(
        viewport={"width": 360 if mode == "360" else 1440, "height": 900},
        color_scheme="dark" if mode == "dark" else "light",
        storage_state=state,  # type: ignore[arg-type]
    )
