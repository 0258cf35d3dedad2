from __future__ import annotations

from tests.access.clients import admin, analyst, auditor, operator, owner, static_root, stranger

__all__ = ["admin", "analyst", "auditor", "operator", "owner", "static_root", "stranger"]
