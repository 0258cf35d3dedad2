"""A data directory with a key file of its own, for tests that change the key ring."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conduit.core import keks, keyring


def random_text() -> str:
    return base64.b64encode(os.urandom(32)).decode()


@pytest.fixture
def key_file(tmp_path: Path, settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The file, with the key K1; changes of it are seen at once."""
    monkeypatch.setattr(keks, "SETTLED", 0.0)
    monkeypatch.setattr(keyring, "LOOKED_AT_EVERY", 0.0)
    settings.CONDUIT_HOME = tmp_path
    (tmp_path / "secrets").mkdir()
    path = tmp_path / "secrets" / "kek"
    path.write_text(f"# generated\nK1={random_text()}\n")
    path.chmod(0o600)
    keyring.reset()
    yield path
    monkeypatch.undo()
    keyring.reset()
