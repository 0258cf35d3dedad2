"""The ranges a page can show, all in UTC."""

from __future__ import annotations

from datetime import datetime


def today(at: datetime) -> datetime:
    return at.replace(hour=0, minute=0, second=0, microsecond=0)


def month_start(at: datetime) -> datetime:
    return today(at).replace(day=1)


def month_name(at: datetime) -> str:
    return f"{at:%B}"
