"""Signing in to the console: the password check and its lock-out.

Tries are counted in Valkey per address typed and per network address (of IPv6 the /64), before the password is looked
at, so that many tries at once count too. A right password gives its tries back: colleagues behind one address do not
lock each other out. When nothing can be counted, nobody is let in.
"""

from __future__ import annotations

import hashlib
import ipaddress
import time
from dataclasses import dataclass
from typing import Any

from django.contrib.auth.hashers import make_password
from django.core.cache import caches
from django.db import transaction
from django.http import HttpRequest
from django_ratelimit import ALL
from django_ratelimit.core import get_usage
from redis.exceptions import RedisError

from conduit.access.actors import actor_of_user
from conduit.access.errors import LockedOut, SignInRefused, SignInUnavailable
from conduit.access.models import User
from conduit.core import audit
from conduit.core.actor import Actor
from conduit.core.secret import Secret
from conduit.core.source_address import client_address

TRIES = "10/15m"
LONGEST_PASSWORD = 1024
NOBODY = Actor("user", "", "not signed in", "", frozenset())
WINDOW_SECONDS = 15 * 60


@dataclass(frozen=True, slots=True)
class _Try:
    """A counted try. `credit_key` counts what right passwords gave back in the same window."""

    credit_key: str


def authenticate(request: HttpRequest, email: str, password: Secret) -> User:
    """The person; the caller opens the session. Writes an audit entry.

    Raises LockedOut, SignInUnavailable, or SignInRefused, which does not tell which part was wrong.
    """
    text = email.strip().lower()[:254]
    try:
        tries = [
            _count(request, "sign-in-email", text),
            _count(request, "sign-in-address", _network(client_address(request))),
        ]
        user = _verified(text, password)
        for each in tries:
            _give_back(each)
    except LockedOut as locked:
        if locked.first:
            _note(text, "user.locked_out")
        raise
    except SignInUnavailable:
        raise
    except SignInRefused:
        _note(text, "user.sign_in_failed")
        raise
    except (RedisError, OSError) as error:
        raise SignInUnavailable("Signing in is not possible at the moment. Try again shortly.") from error
    with transaction.atomic():
        audit.record(actor=actor_of_user(user), action="user.sign_in", kind="user", id=user.id, name=user.email)
    return user


def note_sign_out(user: User) -> None:
    with transaction.atomic():
        audit.record(actor=actor_of_user(user), action="user.sign_out", kind="user", id=user.id, name=user.email)


def _note(text: str, action: str) -> None:
    """A try that failed. How many entries that makes is bounded by the counted tries.

    What was typed is kept only where it is somebody's address: people type their password into the wrong field.
    """
    user = None if "\x00" in text else User.objects.filter(email=text).first()
    name = user.email if user else "an unknown address"
    with transaction.atomic():
        audit.record(actor=NOBODY, action=action, kind="user", id=user.id if user else "", name=name)


def _network(address: str) -> str:
    """What one customer of a network has: an IPv4 address, or the /64 of an IPv6 address, of which each host picks."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv4Address):
        return address
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(found), 64), strict=False))


def _count(request: HttpRequest, group: str, value: str) -> _Try:
    def counted(group: str, request: HttpRequest) -> str:
        return value

    usage: dict[str, Any] = get_usage(request, group=group, key=counted, rate=TRIES, method=ALL, increment=True)
    if usage["limit"] == 0:
        raise SignInUnavailable("Signing in is not possible at the moment. Try again shortly.")
    # Windows of one counter end a whole number of windows apart, so half a window of slack names each of them.
    window = (int(time.time()) + usage["time_left"] + WINDOW_SECONDS // 2) // WINDOW_SECONDS
    mark = hashlib.sha256(f"{group}:{value}".encode("utf-8", "replace")).hexdigest()
    credit_key = f"signed-in:{mark}:{window}"
    if usage["count"] - int(caches["default"].get(credit_key, 0)) > usage["limit"]:
        refused = usage["count"] - int(caches["default"].get(credit_key, 0)) - usage["limit"]
        raise LockedOut(max(1, usage["time_left"]), first=refused == 1)
    return _Try(credit_key)


def _give_back(counted: _Try) -> None:
    cache = caches["default"]
    if not cache.add(counted.credit_key, 1, WINDOW_SECONDS):
        cache.incr(counted.credit_key)


def _verified(email: str, password: Secret) -> User:
    raw = password.reveal()
    user = None if "\x00" in email else User.objects.filter(email=email).first()
    if user is None or len(raw) > LONGEST_PASSWORD:
        # The same work as for an account that exists, so that time does not tell which addresses have one.
        make_password(raw[:LONGEST_PASSWORD])
        raise SignInRefused("The e-mail address or the password is wrong.")
    if not user.check_password(raw) or not user.is_active:
        raise SignInRefused("The e-mail address or the password is wrong.")
    return user
