"""docs/adding-a-provider.md, done as told in a copy of the repository, which the conformance suite then judges."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs import pages

PAGE = "docs/adding-a-provider.md"
COPIED = ("conduit", "providers", "keys", "usage", "tests", "templates", "manage.py", "pyproject.toml")
_WHERE = re.compile(r"# (?P<path>\S+\.py)(, into (?P<name>[A-Z]+))?\n")


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository with every block of the page where its first line says."""
    folder = tmp_path_factory.mktemp("copy")
    skipped = shutil.ignore_patterns("__pycache__", "node_modules", "aimock")
    for name in COPIED:
        source = pages.ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=skipped)
        else:
            shutil.copy(source, folder / name)
    for block in pages.blocks(PAGE, "python"):
        where = _WHERE.match(block)
        assert where, block
        path, text = folder / where["path"], block[where.end() :]
        if where["name"]:
            path.write_text(_inserted(path.read_text(), where["name"], text))
        else:
            assert not path.exists()
            path.write_text(text)
    return folder


def _inserted(source: str, name: str, text: str) -> str:
    """`text` behind the opening bracket of the assignment to `name`."""
    opened = re.search(rf"^{name}\b.*= [({{]\n", source, re.MULTILINE)
    assert opened, name
    return source[: opened.end()] + text + source[opened.end() :]


def run(copy: Path, *command: str) -> subprocess.CompletedProcess[str]:
    env = {name: text for name, text in os.environ.items() if not name.startswith("PYTEST_")}
    env["PYTHONPATH"] = str(copy)
    return subprocess.run([sys.executable, *command], capture_output=True, text=True, cwd=copy, env=env, timeout=300)


def test_one_row_and_one_file_pass_the_conformance_suite(copy: Path) -> None:
    done = run(
        copy, "-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", "tests/conformance", "-k", "example- or plainwire-"
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed
    assert int(passed[1]) >= 16, "two kinds, four dialects, whole and streamed"


def test_the_new_kinds_appear_by_themselves(copy: Path) -> None:
    done = run(copy, "-c", "from tests.docs import providers; print('|'.join(map(str, providers.written())))")
    assert done.returncode == 0, done.stderr
    assert "docs/providers/example.md" in done.stdout


def test_a_false_claim_in_the_row_is_found(copy: Path, tmp_path: Path) -> None:
    vendors = copy / "providers/adapters/rows/vendors.py"
    before = vendors.read_text()
    vendors.write_text(
        before.replace(
            "Capabilities(vision=False, seed=False, logprobs=True)", "Capabilities(logprobs=True, prompt_cache=True)", 1
        )
    )
    try:
        done = run(copy, "-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", "tests/conformance", "-k", "example-")
        assert done.returncode == 1, done.stdout[-2000:]
    finally:
        vendors.write_text(before)
