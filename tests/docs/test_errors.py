"""Every error that the proxy can answer is in docs/errors.md, with its status and type."""

from __future__ import annotations

import ast
from collections import defaultdict

from conduit.engines import deadlines
from tests.docs import pages

Told = dict[str, set[tuple[str, str]]]


def _constants(call: ast.Call) -> list[object]:
    return [argument.value if isinstance(argument, ast.Constant) else None for argument in call.args]


def _of_the_module() -> Told:
    """Code to (status, type) of every ApiError that conduit/proxy/errors.py makes."""
    found: Told = defaultdict(set)
    for node in ast.walk(ast.parse(pages.read("conduit/proxy/errors.py"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "ApiError":
            status, kind, code, *_ = _constants(node)
            if isinstance(code, str):
                found[code].add((str(status), str(kind)))
    return found


def _of_the_page() -> Told:
    found: Told = defaultdict(set)
    for cells in pages.rows(pages.read("docs/errors.md")):
        if len(cells) == 5 and pages.in_code(cells[0]):
            (code,), (kind,) = pages.in_code(cells[0]), pages.in_code(cells[2])
            found[code].add((cells[1], kind))
    return found


def test_the_module_makes_errors_in_the_way_this_test_reads() -> None:
    assert len(_of_the_module()) >= 20


def test_every_error_of_the_proxy_is_documented_with_its_status_and_type() -> None:
    told = _of_the_page()
    for code, meant in _of_the_module().items():
        assert told[code] == meant, code


def test_every_documented_error_exists() -> None:
    others = {"request_timeout", "upstream_rejected"}  # made by the web server's deadlines, and from a provider's words
    assert set(_of_the_page()) - set(_of_the_module()) == others
    assert b'"code":"request_timeout"' in deadlines.ANSWER
    assert '"upstream_rejected"' in pages.read("conduit/proxy/errors.py")


def test_no_error_of_the_proxy_is_made_elsewhere() -> None:
    made = [
        path.name
        for path in (pages.ROOT / "conduit" / "proxy").rglob("*.py")
        if path.name != "errors.py" and "ApiError(" in path.read_text()
    ]
    assert made == []
