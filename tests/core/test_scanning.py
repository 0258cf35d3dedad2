"""Reading files for secrets: blocks, lines, encodings, what is skipped. The command: tests/keys/test_secret_scan.py."""

from __future__ import annotations

import io
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from conduit.core import raw_keys, scanning


def find(text: str) -> Iterator[tuple[int, str]]:
    for match in re.finditer(r"(?<![a-z])KEY[0-9]{8}", text):
        yield match.start(), match[0]


def found(content: bytes, encoding: str = "utf-8") -> list[tuple[int, int, str]]:
    return list(scanning.scan_stream(io.BytesIO(content), find, encoding))


@pytest.mark.parametrize("block", [1, 2, 3, 7, 11, 64, 1 << 20])
def test_line_and_column_are_right_wherever_the_blocks_divide(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scanning, "BLOCK", block)
    monkeypatch.setattr(scanning, "LONGEST", 16)
    text = "KEY00000001 xKEY00000002\n\néü KEY00000003,KEY00000004\n" + "é" * 100 + "KEY00000005\r\nKEY00000006"
    assert found(text.encode()) == [
        (1, 1, "KEY00000001"),
        (3, 4, "KEY00000003"),
        (3, 16, "KEY00000004"),
        (4, 101, "KEY00000005"),
        (5, 1, "KEY00000006"),
    ]


def test_a_file_of_one_long_line_is_read_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scanning, "BLOCK", 4096)
    text = b" " * 10_000 + b"KEY00000001" + b"-" * 50_000 + b"KEY00000002"
    assert found(text) == [(1, 10_001, "KEY00000001"), (1, 60_012, "KEY00000002")]


def test_bytes_that_are_no_text_hide_nothing() -> None:
    assert found(b"\xff\xfe\x00KEY00000001\xc3") == [(1, 4, "KEY00000001")]


def test_every_key_is_found_and_none_that_has_a_typing_error() -> None:
    raws = [raw_keys.mint(kind).raw.reveal() for kind in ("vk", "mk") for _ in range(50)]
    text = "".join(f"a{raw}b" for raw in raws)
    assert [one.raw.reveal() for one in raw_keys.occurrences(text)] == raws
    wrong = text.replace("cdt_vk_", "cdt_mk_", 1)
    assert [one.well_formed for one in raw_keys.occurrences(wrong)].count(False) == 1


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("b/two.txt", "a.txt", ".git/config", "b/.env"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("KEY00000001")
    (tmp_path / "link.txt").symlink_to(tmp_path / "a.txt")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "picture.bin").write_bytes(b"\x00\x01KEY00000001")
    (tmp_path / "windows.txt").write_bytes("KEY00000001".encode("utf-16"))
    return tmp_path


def names(tree: Path, *, everything: bool) -> list[str]:
    return [
        place.path.relative_to(tree).as_posix()
        for path in scanning.files([tree], everything=everything, refused=pytest.fail)
        for place in scanning.scan(path, find, everything=everything)
    ]


def test_links_version_control_and_binary_files_are_left_out(tree: Path) -> None:
    assert names(tree, everything=False) == ["a.txt", "windows.txt", "b/.env", "b/two.txt"]


def test_everything_means_version_control_and_binary_files_too(tree: Path) -> None:
    assert set(names(tree, everything=True)) == {
        "a.txt", "windows.txt", "picture.bin", ".git/config", "b/.env", "b/two.txt",
    }  # fmt: skip


def test_a_pipe_in_a_folder_is_not_opened(tree: Path) -> None:
    os.mkfifo(tree / "pipe")
    assert "pipe" not in names(tree, everything=True)


def test_a_folder_that_cannot_be_read_is_told_and_the_walk_goes_on(tree: Path) -> None:
    (tree / "c").mkdir()
    (tree / "c" / "three.txt").write_text("KEY00000001")
    told: list[OSError] = []
    walked = scanning.files([tree, tree / "c"], everything=False, refused=told.append)
    first = next(walked)  # the folders below it are known by now
    shutil.rmtree(tree / "b")
    assert [first, *walked][-2:] == [tree / "c" / "three.txt"] * 2
    assert [error.filename for error in told] == [str(tree / "b")]
