"""What the forms of a rotation hold: as typed, as providers/rotation.py takes it, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, date, datetime
from typing import Any

from conduit.core.errors import InvalidInput
from providers.canary import Canary
from providers.models import Rotation
from providers.rotation import Extras

NAMES = ("reason", "how", "steps", "step_minutes", "max_error_percent", "overlap_hours", "expires_at")
DEFAULTS = Canary()
LABELS = {
    "reason": "Reason",
    "steps": "Shares in percent",
    "step_minutes": "Each for",
    "max_error_percent": "Error bound",
    "overlap_hours": "Keep the old secret for",
    "expires_at": "Expires on",
    "other_account": "Another account",
}
# The functions' names of what a field holds → the field.
PLACES = {
    "canary.steps": "steps",
    "canary.step_seconds": "step_minutes",
    "canary.max_error_percent": "max_error_percent",
    "step_seconds": "step_minutes",
    "overlap_seconds": "overlap_hours",
    "canary": "how",
}
MINUTE, HOUR = 60, 3600


def blank() -> dict[str, str]:
    return {
        "reason": "",
        "how": "canary",
        "steps": _listed(DEFAULTS.steps),
        "step_minutes": str(DEFAULTS.step_seconds // MINUTE),
        "max_error_percent": str(DEFAULTS.max_error_percent),
        "overlap_hours": "24",
        "expires_at": "",
        "automatic": "",
        "other_account": "",
    }


def of_rotation(rotation: Rotation) -> dict[str, str]:
    """The rules in force."""
    return {
        "steps": _listed(rotation.steps),
        "step_minutes": _whole(rotation.step_seconds, MINUTE),
        "max_error_percent": f"{rotation.max_error_percent.normalize():f}",
        "overlap_hours": _whole(rotation.overlap_seconds, HOUR),
        "automatic": "yes" if rotation.automatic else "",
    }


def _listed(steps: Any) -> str:
    return ", ".join(str(step) for step in steps)


def _whole(seconds: int, unit: int) -> str:
    return f"{seconds / unit:.4f}".rstrip("0").rstrip(".")


def typed(form: Mapping[str, Any]) -> dict[str, str]:
    values = {name: str(form.get(name, "")).strip()[:400] for name in NAMES}
    return values | {name: "yes" if form.get(name) == "yes" else "" for name in ("automatic", "other_account")}


def canary(values: Mapping[str, str]) -> Canary | None:
    """None: at once. Raises InvalidInput naming the field."""
    return Canary(**canary_rules(values)) if values["how"] != "at_once" else None


def canary_rules(values: Mapping[str, str]) -> dict[str, Any]:
    steps = [part.strip().removesuffix("%").strip() for part in values["steps"].split(",")]
    if not all(part.isascii() and part.isdigit() and len(part) < 4 for part in steps):
        raise InvalidInput("steps", "Must be whole numbers with commas between them, such as 1, 10.", "invalid_number")
    return {
        **asdict(DEFAULTS),
        "steps": tuple(int(part) for part in steps),
        "step_seconds": _seconds(values, "step_minutes", MINUTE),
        "max_error_percent": values["max_error_percent"].removesuffix("%").strip() or "0",
        "automatic": values["automatic"] == "yes",
    }


def overlap(values: Mapping[str, str]) -> int:
    """Seconds. Raises InvalidInput."""
    return _seconds(values, "overlap_hours", HOUR)


def _seconds(values: Mapping[str, str], name: str, unit: int) -> int:
    text = values[name].replace(",", "")
    whole, _, rest = text.partition(".")
    if not (whole + rest).isascii() or not (whole + rest).isdigit() or len(text) > 12:
        raise InvalidInput(name, "Must be a number, such as 24.", "invalid_number")
    return round(float(text) * unit)


def extras(values: Mapping[str, str]) -> Extras:
    """Raises InvalidInput for a date that is none."""
    found: Extras = {"other_account": values["other_account"] == "yes"}
    if values["expires_at"]:
        try:
            day = date.fromisoformat(values["expires_at"])
        except ValueError:
            raise InvalidInput("expires_at", "Must be a date.", "invalid_time") from None
        found["expires_at"] = datetime(day.year, day.month, day.day, tzinfo=UTC)
    return found


def placed(error: InvalidInput) -> InvalidInput:
    """The same refusal under the form's name of the field."""
    if error.field in PLACES:
        return InvalidInput(PLACES[error.field], error.detail, error.code)
    return error
