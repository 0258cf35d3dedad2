"""The figures that tests make, shown at the end of the run, so that `make test` prints them all: the lines of passing
tests that begin with an id of the catalogue ("L1: …"), and how many cases of a table passed."""

from __future__ import annotations

import re
from collections import Counter

import pytest

_FIGURE = re.compile(r"^(?:COST|[A-Z]\d{1,2}): .+$", re.MULTILINE)
TABLES = {
    "tests/proxy/test_one_cap.py": "L3: cases of contradicting, duplicate and missing caps with one cap upstream",
    "tests/proxy/test_worst_case.py": "L5: cases and properties of what a request may cost, none above its bound",
    "tests/proxy/test_unpriced.py": "L6: cases of unpriced models, aliases and variants, none for $0",
    "tests/keys/test_sane_limits.py": "L7: tables of senseless limits and prices, each refused by name",
    "tests/providers/adapters/test_usage_shapes.py": "U2: shapes of usage read sanely or flagged",
    "tests/proxy/test_usage_faults.py": "U2: false usage through the gateway, flagged and never free",
}
_lines: set[str] = set()
_passed: Counter[str] = Counter()
_failed: Counter[str] = Counter()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    file = report.nodeid.split("::")[0]
    if report.failed:
        _failed[file] += 1
    elif report.passed:
        _lines.update(_FIGURE.findall(report.capstdout))
        _passed[file] += report.when == "call"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    tables = [f"{words}: {_passed[file]} of {_passed[file] + _failed[file]}" for file, words in TABLES.items()]
    shown = [line for line, file in zip(tables, TABLES, strict=True) if _passed[file] or _failed[file]]
    if shown or _lines:
        terminalreporter.section("figures")
    for line in sorted([*shown, *_lines], key=_place):
        terminalreporter.write_line(line)


def _place(line: str) -> tuple[str, int, str]:
    name = line.split(":")[0]
    return name[0], int(re.sub(r"\D", "", name) or 0), line
