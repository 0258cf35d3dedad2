"""The parts of the rotation cockpit: its stages, its rules in words, its versions. Nothing here asks the database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from conduit.core import wording
from providers.models import Credential, CredentialVersion, Rotation, RotationState, VersionState
from usage.rotation_watch import Figures as Watched

SHARES = (1, 10, 50, 100)
NBSP = wording.NBSP


@dataclass(frozen=True, slots=True)
class Stage:
    """`state`: done | current | ahead. `at` is a moment before `words`."""

    title: str
    state: str
    words: str = ""
    at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    """Something that happens without anybody. `at`: when, after the words."""

    icon: str
    words: str
    detail: str = ""
    at: datetime | None = None


@dataclass(frozen=True, slots=True)
class State:
    """As the template tag `status` takes it."""

    kind: str
    word: str
    icon: str = ""


STATES = {
    VersionState.PENDING: State("note", "Pending", "clock"),
    VersionState.VERIFYING: State("note", "Verifying", "clock"),
    VersionState.ACTIVE: State("ok", "Active"),
    VersionState.RETIRING: State("warn", "Retiring", "clock-pause"),
    VersionState.RETIRED: State("off", "Retired"),
    VersionState.REVOKED: State("off", "Revoked", "ban"),
}


def state_of(version: CredentialVersion) -> State:
    if version.state == VersionState.VERIFYING and version.share:
        return State("note", f"Canary {version.share}{NBSP}%", "arrows-split-2")
    return STATES[VersionState(version.state)]


def title_state(credential: Credential, rotation: Rotation | None) -> State | None:
    """What stands beside the name while something is under way."""
    if rotation is None or rotation.ended_at is not None:
        return None if credential.enabled else State("off", "Disabled", "player-pause")
    if rotation.state == RotationState.CANARY:
        return State("note", f"Canary {rotation.new.share}{NBSP}%", "arrows-split-2")
    return State("note", "Draining", "clock-pause")


# --- stages --------------------------------------------------------------------------------------------------------


def stages(rotation: Rotation, provider: str) -> list[Stage]:
    """From sealing the new secret to revoking the old one at the provider."""
    new, old = rotation.new, rotation.old
    canary = rotation.state == RotationState.CANARY
    found = [
        Stage("Sealed", "done", f"by {new.created_by or rotation.started_by or 'Conduit'}", new.created_at),
        Stage("Verified", "done", _account(new, old), new.verified_at),
        *(_share_stage(rotation, share) for share in _shares(rotation)),
        Stage("Active", "ahead", f"v{new.number} takes everything")
        if canary
        else Stage("Active", "done", f"v{new.number} takes everything", new.activated_at),
    ]
    if old is None:
        return found
    draining, finished = rotation.state == RotationState.DRAINING, rotation.state == RotationState.FINISHED
    if finished:
        words = "its secret is destroyed here"
    elif draining and old.retire_at:
        words = "kept for a way back"
    else:
        words = "open requests finish"
    ended = old.retired_at or old.revoked_at if finished else None
    found.append(
        Stage(f"Drain v{old.number}", "done" if finished else "current" if draining else "ahead", words, ended)
    )
    found.append(Stage(f"Revoke v{old.number}", "current" if finished else "ahead", f"at {provider}, when safe"))
    return found


def _account(new: CredentialVersion, old: CredentialVersion | None) -> str:
    if new.account and old is not None and old.account == new.account:
        return "same account"
    return f"account {new.account}" if new.account else "by a real call"


def _shares(rotation: Rotation) -> list[int]:
    """The canary's steps, and the share it has now where that is none of them."""
    present = {rotation.new.share} if rotation.state == RotationState.CANARY else set()
    return sorted({*rotation.steps, *present} - {0})


def _share_stage(rotation: Rotation, share: int) -> Stage:
    title = f"Canary {share}{NBSP}%"
    if rotation.state != RotationState.CANARY or share < rotation.new.share:
        return Stage(title, "done")
    if share == rotation.new.share:
        return Stage(title, "current", "since", rotation.share_since)
    return Stage(title, "ahead")


# --- what happens without anybody ----------------------------------------------------------------------------------


def rules(credential: Credential, rotation: Rotation | None, seen: Watched | None) -> list[Rule]:
    """`seen`: what the rules themselves look at, while a rotation is under way."""
    found = _rotation_rules(rotation, seen) if rotation and seen and rotation.ended_at is None else []
    if not found:
        found.append(Rule("ban", "Passed over for a while when the provider refuses it", "other credentials go on"))
    if credential.expires_at:
        found.append(Rule("hourglass", "Stops at its end", "reminders 30, 7 and 1 days before", credential.expires_at))
    return found


def _rotation_rules(rotation: Rotation, seen: Watched) -> list[Rule]:
    new, old = rotation.new, rotation.old
    failures = f"{wording.plural(seen.rejected, 'failure')} in {wording.plural(seen.attempts, 'request')}"
    back = Rule("arrow-back-up", f"Rolls back within 5{NBSP}s if v{new.number} fails authentication", failures)
    if rotation.state == RotationState.CANARY:
        return [back, _next_step(rotation, seen), _overlap(rotation)]
    if old is None:
        return [back]
    return [back, Rule("clock", f"Retires v{old.number} and destroys its secret", "", old.retire_at)]


def _next_step(rotation: Rotation, seen: Watched) -> Rule:
    share = rotation.new.share
    if not rotation.automatic:
        return Rule("player-pause", f"Stays at {share}{NBSP}% until somebody moves it")
    following = next((step for step in rotation.steps if step > share), 100)
    bound = f"{rotation.max_error_percent.normalize():f}{NBSP}%"
    at = rotation.share_since + timedelta(seconds=rotation.step_seconds) if rotation.share_since else None
    words = f"Goes to {following}{NBSP}% if errors stay under {bound}, else rolls back"
    return Rule("arrow-up", words, seen.words(rotation), at)


def _overlap(rotation: Rotation) -> Rule:
    kept = wording.span(timedelta(seconds=rotation.overlap_seconds))
    old = f"v{rotation.old.number}" if rotation.old else "the old version"
    return Rule("clock", f"Keeps {old} for {kept} after the change", "then destroys its secret")


# --- versions ------------------------------------------------------------------------------------------------------


def active_words(version: CredentialVersion, at: datetime) -> str:
    """`88 days, since 24 Aug`, `92 days, to 24 Aug`, `not yet`, `never`."""
    start = version.activated_at
    if start is None and version.state in (VersionState.ACTIVE, VersionState.RETIRING):
        start = version.created_at
    if start is None:
        return "never" if version.state in (VersionState.RETIRED, VersionState.REVOKED) else "not yet"
    end = version.retired_at or version.revoked_at
    if end is None:
        return f"{wording.span(at - start)}, since {_day(start)}"
    return f"{wording.span(end - start)}, to {_day(end)}"


def _day(at: datetime) -> str:
    return f"{at.day} {at:%b %Y}"


def why(version: CredentialVersion) -> str:
    return "; ".join(part for part in (version.reason, version.problem) if part)


def revocable(versions: Sequence[CredentialVersion]) -> list[int]:
    """Numbers of the versions that an emergency can still end."""
    ended = (VersionState.RETIRED, VersionState.REVOKED)
    return [version.number for version in versions if version.state not in ended]
