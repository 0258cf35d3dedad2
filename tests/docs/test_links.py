"""Links lead somewhere, decisions are short and listed, and the tests that the documentation points at exist."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

from tests.docs import pages

_LINK = re.compile(r"(?<!\\)\[[^\]]*\]\(([^)\s]+)\)")
_TESTS = re.compile(r"(tests/[\w/]+\.py)(?: -k (?:\"([^\"]+)\"|(\w+)))?")
DECISIONS = sorted(path for path in (pages.DOCS / "adr").glob("*.md"))


@cache
def _anchors(path: Path) -> set[str]:
    """The anchors that a page's headings make, in the usual way: lower case, hyphens for spaces, no punctuation."""
    heads = re.findall(r"^#+ (.+)$", pages.without_blocks(path.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def _links(path: Path) -> list[str]:
    return _LINK.findall(pages.without_blocks(path.read_text()))


@pytest.mark.parametrize("path", pages.pages(), ids=lambda path: str(path.relative_to(pages.ROOT)))
def test_every_relative_link_and_anchor_resolves(path: Path) -> None:
    for link in _links(path):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        assert target.exists(), link
        assert target.is_relative_to(pages.ROOT), link
        if anchor:
            assert anchor in _anchors(target), link


def test_there_are_links_to_speak_of() -> None:
    assert sum(len(_links(path)) for path in pages.pages()) >= 50


def test_every_page_is_reached_from_the_index() -> None:
    """Directly, or by the page of a folder."""
    linked: set[Path] = set()
    for index in (pages.DOCS / "index.md", pages.DOCS / "providers" / "README.md"):
        linked |= {(index.parent / link.partition("#")[0]).resolve() for link in _links(index)}
    assert set(pages.DOCS.rglob("*.md")) - {pages.DOCS / "index.md"} <= linked


@pytest.mark.parametrize("path", DECISIONS, ids=lambda path: path.stem)
def test_a_decision_is_short_and_says_how_to_repeat_it(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 60
    number, title = re.findall(r"\A# (\d+)\. (.+)\n", text)[0]
    assert path.stem.startswith(f"{int(number):04d}-")
    assert "\n## Decision\n" in text
    assert "\n## Repeat\n" in text
    assert f"[{title}](adr/{path.name})" in pages.read("docs/index.md")


def test_there_are_decisions() -> None:
    assert len(DECISIONS) >= 8


def _tests_of(path: str) -> list[str]:
    return re.findall(r"^ *(?:async )?def (test_\w+)", pages.read(path), re.MULTILINE)


@pytest.mark.parametrize("path", pages.pages(), ids=lambda path: str(path.relative_to(pages.ROOT)))
def test_every_test_that_a_page_points_at_exists(path: Path) -> None:
    for name, quoted, plain in _TESTS.findall(pages.without_blocks(path.read_text())):
        assert (pages.ROOT / name).exists(), name
        words = (quoted or plain).split(" or ") if quoted or plain else []
        for word in words:
            assert any(word in test for test in _tests_of(name)), f"{name} -k {word}"


def test_no_page_names_a_path_of_somebodys_machine() -> None:
    for path in pages.pages():
        assert not re.search(r"(?<![\w.])/(?:work|home|root|Users|tmp)/", path.read_text()), path


def test_functions_that_a_page_places_in_a_file_are_there() -> None:
    found = []
    for path in pages.pages():
        for names, file in re.findall(r"((?:`\w+`(?:, | and | or )?)+) in `([\w/]+\.py)`", path.read_text()):
            found += [(path.name, name, file) for name in pages.in_code(names)]
    assert len(found) >= 20
    for page, name, file in found:
        assert re.search(rf"\b(?:def|class) {name}\b", pages.read(file)), f"{page}: {name} in {file}"
