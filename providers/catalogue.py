"""What is known of vendors' models, and the matching of names to it. catalogue_sync.py fills the rows.

    matcher()          a Matcher over the present rows, for the snapshot
    match(vendor, m)   one look-up in the table, for pages and the API

Vendors name one model in many ways (dated, with a prefix, as an alias): each row carries a match expression, tried in
the data's order. `vendor` is the price data's provider id, which a kind names as `price_provider`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from providers.models import CatalogueModel, CatalogueVendor

CATALOGUE, OVERRIDE = "catalogue", "override"  # the sources of a row
_CACHED_NAMES = 4096
_COMPACT_DATE = re.compile(r"(?<=-)(20\d{2})(\d{2})(\d{2})(?!\d)", re.ASCII)
Test = Callable[[str], bool]


# --- matching ------------------------------------------------------------------------------------------------------


def compile_match(expression: Mapping[str, Any]) -> Test:
    """A test of lower-case names. Raises ValueError for an expression that is not one."""
    if len(expression) != 1:
        raise ValueError("a match expression has exactly one operator")
    ((operator, operand),) = expression.items()
    if operator in ("or", "and"):
        return _compile_all(operator, operand)
    if not isinstance(operand, str):
        raise ValueError(f"{operator} takes a text")
    text = operand.lower()
    tests: dict[str, Test] = {
        "equals": lambda name: name == text,
        "starts_with": lambda name: name.startswith(text),
        "ends_with": lambda name: name.endswith(text),
        "contains": lambda name: text in name,
    }
    if operator == "regex":
        return _compile_regex(operand)
    if operator not in tests:
        raise ValueError(f"there is no match operator {operator!r}")
    return tests[operator]


def _compile_all(operator: str, operand: object) -> Test:
    if not isinstance(operand, list):
        raise ValueError(f"{operator} takes a list")
    parts = tuple(compile_match(part) for part in operand)
    if operator == "or":
        return lambda name: any(part(name) for part in parts)
    return lambda name: all(part(name) for part in parts)


def _compile_regex(text: str) -> Test:
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise ValueError(f"the regular expression does not compile: {error}") from None
    return lambda name: pattern.search(name) is not None


class Matcher:
    """Pure look-up of model names over a fixed set of rows; vendors are compiled when first asked for.

    `fallbacks` names vendors whose models another one resells (Google and AWS sell Anthropic's): tried after its own.
    """

    def __init__(self, rows: Iterable[CatalogueModel], fallbacks: Mapping[str, Sequence[str]] | None = None) -> None:
        self._rows: dict[str, list[CatalogueModel]] = {}
        for row in rows:
            self._rows.setdefault(row.vendor, []).append(row)
        for vendor_rows in self._rows.values():
            vendor_rows.sort(key=lambda row: (row.source != OVERRIDE, row.position, row.name))
        self._fallbacks = dict(fallbacks or {})
        self._tests: dict[str, list[tuple[Test, CatalogueModel]]] = {}
        self._found: dict[tuple[str, str], CatalogueModel | None] = {}

    def match(self, vendor: str, model: str) -> CatalogueModel | None:
        """The row that describes a vendor's model of this name, or None."""
        key = (vendor, model)
        if key not in self._found:
            if len(self._found) >= _CACHED_NAMES:
                self._found.clear()
            self._found[key] = self._search(vendor, model.lower())
        return self._found[key]

    def rows(self, vendor: str) -> Sequence[CatalogueModel]:
        """Everything that is known of a vendor's own models, in the order of matching."""
        return self._rows.get(vendor, ())

    def names(self, vendor: str, model: str) -> tuple[str, str] | None:
        """The catalogue's (vendor, name) for a vendor's model, or None: what prices are filed under."""
        row = self.match(vendor, model)
        return (row.vendor, row.name) if row else None

    def _search(self, vendor: str, name: str) -> CatalogueModel | None:
        name = name.rpartition("/")[2] if name.startswith("arn:") else name  # the model's own name ends an ARN
        dashed = _COMPACT_DATE.sub(r"\1-\2-\3", name)
        for text in dict.fromkeys((name, dashed)):
            for source in (vendor, *self._fallbacks.get(vendor, ())):
                for test, row in self._compiled(source):
                    if test(text):
                        return row
        return None

    def _compiled(self, vendor: str) -> list[tuple[Test, CatalogueModel]]:
        if vendor not in self._tests:
            rows = self._rows.get(vendor, [])
            self._tests[vendor] = [(compile_match(row.match or {"equals": row.name}), row) for row in rows]
        return self._tests[vendor]


def _fallbacks() -> dict[str, tuple[str, ...]]:
    """Vendor to the vendors whose models it serves too."""
    return {vendor.name: tuple(vendor.fallbacks) for vendor in CatalogueVendor.objects.all()}


def matcher() -> Matcher:
    """A Matcher over the table as it is now."""
    return Matcher(CatalogueModel.objects.all(), _fallbacks())


def match(vendor: str, model: str) -> CatalogueModel | None:
    """One look-up in the table; for many names make one `matcher()`."""
    fallbacks = _fallbacks()
    vendors = (vendor, *fallbacks.get(vendor, ()))
    return Matcher(CatalogueModel.objects.filter(vendor__in=vendors), fallbacks).match(vendor, model)
