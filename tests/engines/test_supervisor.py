"""The supervisor with real engines and real web processes: start, refusal, crash, recovery, orderly end."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from urllib.request import urlopen

import psutil
import psycopg
import pytest

from tests.harness.ports import free_port

ROOT = Path(__file__).resolve().parents[2]


class Rig:
    """One `python -m tests.engines.rig` at a time on one CONDUIT_HOME."""

    def __init__(self, home: Path) -> None:
        self.home, self.port = home, free_port()
        self.process: subprocess.Popen[str] | None = None
        self.seen: list[psutil.Process] = []

    def launch(self, **environment: str) -> subprocess.Popen[str]:
        foreign = ("DATABASE_URL", "VALKEY_URL", "CONDUIT_KEK", "COV_")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        own = {"CONDUIT_HOME": str(self.home), "CONDUIT_PORT": str(self.port), "CONDUIT_SANDBOX": "off"}
        return subprocess.Popen(
            [sys.executable, "-m", "tests.engines.rig"],
            cwd=ROOT,
            env={**kept, **own, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def start(self) -> float:
        """Starts and waits for the console line; returns the seconds it took."""
        began = time.monotonic()
        self.process = self.launch()
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if line != "console: rig\n":
            raise AssertionError(self.process.communicate(timeout=10))
        self.seen = psutil.Process(self.process.pid).children(recursive=True)
        return time.monotonic() - began

    def get(self, path: str) -> str:
        with urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
            return str(answer.read().decode())

    def refuses(self) -> bool:
        try:
            self.get("/readyz")
        except OSError as error:
            return bool(re.search("refused|reset", str(error)))
        return False

    def survivors(self, within: float) -> list[str]:
        _, alive = psutil.wait_procs(self.seen, timeout=within)
        return [command(process) for process in alive if process.status() != psutil.STATUS_ZOMBIE]

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
        if self.process is not None:
            self.process.communicate(timeout=20)
        psutil.wait_procs(self.seen, timeout=10)


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    one = Rig(tmp_path / "home")
    yield one
    one.close()


def command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:  # gone or a zombie by now
        return ""


def eventually(condition: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.05)


def test_everything_starts_is_private_and_sigterm_leaves_no_process_behind(rig: Rig) -> None:
    rig.start()
    assert rig.get("/readyz") == "0"
    assert oct((rig.home).stat().st_mode & 0o777) == "0o700"
    for name in ("kek", "django_secret_key"):
        assert oct((rig.home / "secrets" / name).stat().st_mode & 0o777) == "0o600"
    names = {process.name() for process in rig.seen}
    assert {"postgres", "valkey-server"} <= names
    assert rig.process is not None
    rig.process.send_signal(signal.SIGTERM)
    assert rig.process.communicate(timeout=20) == ("", "")
    assert rig.process.returncode == 0
    assert rig.survivors(0) == []
    assert not (rig.home / "run" / "engines.json").exists()
    assert not (rig.home / "postgres" / "postmaster.pid").exists()


def test_sigterm_lets_an_answer_in_flight_end_and_refuses_new_connections(rig: Rig) -> None:
    rig.start()
    assert rig.process is not None
    with urlopen(f"http://127.0.0.1:{rig.port}/begun", timeout=20) as answer:
        rig.process.send_signal(signal.SIGTERM)
        eventually(rig.refuses)
        assert rig.process.poll() is None
        assert answer.read() == b"0"
    assert rig.process.wait(20) == 0


def test_a_second_start_on_the_same_home_is_refused_in_one_line(rig: Rig) -> None:
    rig.start()
    second = rig.launch(CONDUIT_PORT=str(free_port()))
    out, err = second.communicate(timeout=20)
    assert (second.returncode, out) == (1, "")
    assert err.count("\n") == 1
    assert "already runs" in err
    assert rig.process is not None
    assert str(rig.process.pid) in err
    assert rig.get("/readyz") == "0"


def test_a_busy_port_is_one_line_naming_the_variable(rig: Rig) -> None:
    with socket.create_server(("127.0.0.1", rig.port)):
        refused = rig.launch()
        _, err = refused.communicate(timeout=20)
    assert refused.returncode == 1
    assert err.count("\n") == 1
    assert "CONDUIT_PORT" in err


def test_kill_9_of_the_supervisor_takes_everything_along_and_the_next_start_recovers_the_data(rig: Rig) -> None:
    rig.start()
    url = json.loads((rig.home / "run" / "engines.json").read_text())["database_url"]
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE kept (n int)")
        connection.execute("INSERT INTO kept VALUES (42)")
    kek = (rig.home / "secrets" / "kek").read_text()
    assert rig.process is not None
    os.killpg(rig.process.pid, signal.SIGKILL)
    rig.process.communicate(timeout=20)
    rig.start()  # at once: what the kill left is still going down
    url = json.loads((rig.home / "run" / "engines.json").read_text())["database_url"]
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT n FROM kept").fetchone() == (42,)
    assert (rig.home / "secrets" / "kek").read_text() == kek


def test_kill_9_of_everything_at_once_is_recovered(rig: Rig) -> None:
    rig.start()
    assert rig.process is not None
    everything = [psutil.Process(rig.process.pid), *rig.seen]
    for process in everything:
        with suppress(psutil.NoSuchProcess):
            process.suspend()  # nobody may react to another's death: PostgreSQL would end in order
    for process in everything:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    rig.process.communicate(timeout=20)
    assert (rig.home / "postgres" / "postmaster.pid").exists()
    # The worst case: the dead server's number now belongs to another program.
    stale = (rig.home / "postgres" / "postmaster.pid").read_text().split("\n", 1)
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as other:
        (rig.home / "postgres" / "postmaster.pid").write_text(f"{other.pid}\n{stale[1]}")
        rig.start()
        assert other.poll() is None
        other.kill()


def test_what_dies_is_started_again(rig: Rig) -> None:
    rig.start()
    web = [process for process in rig.seen if "conduit.engines.web" in command(process)]
    engine = next(process for process in rig.seen if process.name() == "valkey-server")
    assert len(web) == 2
    web[0].kill()
    engine.kill()
    assert rig.process is not None
    parent = psutil.Process(rig.process.pid)

    def whole() -> bool:
        lines = [command(process) for process in parent.children()]
        return sum("conduit.engines.web" in line for line in lines) == 2 and any(
            "valkey-server" in line for line in lines
        )

    psutil.wait_procs([web[0], engine], timeout=10)
    eventually(whole)
    rig.seen = parent.children(recursive=True)
    assert rig.get("/readyz") == "0"


def test_a_missing_key_encryption_key_beside_a_database_stops_the_start_and_is_not_replaced(rig: Rig) -> None:
    rig.start()
    assert rig.process is not None
    rig.process.terminate()
    rig.process.communicate(timeout=20)
    (rig.home / "secrets" / "kek").unlink()
    refused = rig.launch()
    _, err = refused.communicate(timeout=20)
    assert refused.returncode == 1
    assert err.count("\n") == 1
    assert "CONDUIT_KEK_<ID>" in err
    assert not (rig.home / "secrets" / "kek").exists()


def test_a_home_too_deep_for_a_socket_works_through_a_short_directory_that_is_removed(tmp_path: Path) -> None:
    one = Rig(tmp_path / ("d" * 60) / ("e" * 60))
    try:
        one.start()
        sockets = Path(json.loads((one.home / "run" / "engines.json").read_text())["sockets"])
        assert not sockets.is_relative_to(one.home)
        assert oct(sockets.stat().st_mode & 0o777) == "0o700"
        assert one.process is not None
        one.process.terminate()
        assert one.process.wait(20) == 0
        assert not sockets.exists()
    finally:
        one.close()
