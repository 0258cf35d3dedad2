"""docs/configuration.md names every variable that the product reads, and no other."""

from __future__ import annotations

import ast
import re

from conduit import settings
from conduit.cli import gateway_access
from conduit.core import keyring
from tests.docs import pages

PAGE = "docs/configuration.md"
READERS = {"str", "bool", "list", "int", "_int", "_choice"}


def _name(call: ast.Call) -> str | None:
    """The variable that `env.str("NAME", …)` or `_int("NAME", …)` reads."""
    reader = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    first = call.args[0] if call.args else None
    if reader in READERS and isinstance(first, ast.Constant) and isinstance(first.value, str):
        return first.value if re.fullmatch(r"[A-Z][A-Z0-9_]+", first.value) else None
    return None


def _read_by_settings() -> dict[str, str]:
    """Name to the text of its default, of each variable that conduit/settings.py reads."""
    found = {}
    for node in ast.walk(ast.parse(pages.read("conduit/settings.py"))):
        if isinstance(node, ast.Call) and (name := _name(node)):
            given = {word.arg: word.value for word in node.keywords}
            default = given.get("default", node.args[1] if len(node.args) > 1 else None)
            found[name] = ast.unparse(default) if default is not None else ""
    return found


def _documented(title: str) -> dict[str, str]:
    """Name to default of the table under this heading."""
    part = pages.read(PAGE).split(f"## {title}\n")[1].split("\n## ")[0]
    return {pages.in_code(cells[0])[0]: cells[1] for cells in pages.rows(part)}


def test_every_setting_is_documented_and_every_documented_setting_is_read() -> None:
    read = set(_read_by_settings())
    assert len(read) >= 15
    assert set(_documented("Settings")) == read


def test_documented_defaults_are_the_real_ones() -> None:
    documented = _documented("Settings")
    literal = re.compile(r"\d+|'[\w.:]+'|True|False")
    plain = {name: text for name, text in _read_by_settings().items() if literal.fullmatch(text)}
    assert len(plain) >= 6
    for name, default in plain.items():
        assert documented[name].strip("`") == default.strip("'").replace("True", "true").replace("False", "false"), name
    hosts = ast.literal_eval(_read_by_settings()["ALLOWED_HOSTS"])
    assert documented["ALLOWED_HOSTS"].strip("`").split(",") == hosts


def test_the_variables_of_the_key_ring_and_of_commands_are_documented() -> None:
    assert set(_documented("Key-encryption keys")) == {f"{keyring.VARIABLE}<ID>", keyring.PRIMARY}
    assert set(_documented("Of commands")) == {gateway_access.VARIABLE, "SANDBOX_FAULTS", "PROMETHEUS_MULTIPROC_DIR"}


def test_nothing_else_of_the_product_reads_the_environment() -> None:
    """A variable read elsewhere belongs into settings.py, or into the page and the test above."""
    known = {gateway_access.VARIABLE, "SANDBOX_FAULTS", "PROMETHEUS_MULTIPROC_DIR", "DJANGO_SETTINGS_MODULE", "PATH"}
    read = re.compile(r"""(?:environ(?:\.get|\.setdefault)?[\[(]\s*|getenv\(\s*)["']([A-Z_]+)["']""")
    for folder in ("conduit", "providers", "keys", "usage"):
        for path in (pages.ROOT / folder).rglob("*.py"):
            assert set(read.findall(path.read_text())) <= known, path


def test_the_sizes_in_the_table_are_those_of_the_settings() -> None:
    assert settings.MAX_BODY_BYTES == 32 * 1024 * 1024
