from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import time_machine
from django.contrib.auth.hashers import PBKDF2PasswordHasher
from django.core.cache import caches
from django.test import RequestFactory

from conduit.access import signing_in
from conduit.access.errors import LockedOut, SignInRefused, SignInUnavailable
from conduit.access.models import Role, User
from conduit.access.users import create_user
from conduit.core.actor import SYSTEM
from conduit.core.models import AuditEntry
from conduit.core.secret import Secret

RIGHT, WRONG = Secret("correct horse battery"), Secret("not the password")
MIDDLE = 1_800_000_000 // 900 * 900 + 100


class QuickHasher(PBKDF2PasswordHasher):
    """The product's hasher with fewer rounds, so that ninety tries do not take a minute."""

    algorithm = "quick_pbkdf2"
    iterations = 1000


@pytest.fixture(autouse=True)
def _fresh_counters(settings: Any) -> Iterator[None]:
    """Far from where a window of counting ends."""
    settings.PASSWORD_HASHERS = ["tests.access.test_signing_in.QuickHasher"]
    caches["default"].clear()
    with time_machine.travel(MIDDLE):
        yield


@pytest.fixture
def alice(db: None) -> User:
    user, _ = create_user(actor=SYSTEM, email="alice@example.org", role=Role.ADMIN, password=RIGHT)
    return user


def attempt(password: Secret = RIGHT, email: str = "alice@example.org", address: str = "192.0.2.1") -> User:
    return signing_in.authenticate(RequestFactory().post("/login", REMOTE_ADDR=address), email, password)


def test_the_right_password_signs_in_and_is_on_record(alice: User) -> None:
    assert attempt(email=" Alice@Example.org ") == alice
    assert AuditEntry.objects.get(action="user.sign_in").actor_id == str(alice.id)


def test_every_other_case_is_refused_in_the_same_words(alice: User) -> None:
    User.objects.create(email="gone@example.org", is_active=False, password=alice.password)
    cases = [("alice@example.org", WRONG), ("nobody@example.org", RIGHT), ("gone@example.org", RIGHT), ("", RIGHT)]
    cases += [("a\x00@example.org", RIGHT), ("alice@example.org", Secret("x" * 5000))]
    words = set()
    for number, (email, password) in enumerate(cases):
        with pytest.raises(SignInRefused) as refused:
            attempt(password, email, f"192.0.2.{number}")
        assert type(refused.value) is SignInRefused
        words.add(str(refused.value))
    assert len(words) == 1


def test_an_unknown_address_costs_as_much_hashing_as_a_known_one(alice: User, monkeypatch: pytest.MonkeyPatch) -> None:
    rounds: list[int] = []
    encode = PBKDF2PasswordHasher.encode

    def counted(self: Any, password: str, salt: str, iterations: int | None = None) -> str:
        rounds.append(iterations or self.iterations)
        return encode(self, password, salt, iterations)

    monkeypatch.setattr(PBKDF2PasswordHasher, "encode", counted)
    for email in ("alice@example.org", "nobody@example.org"):
        with pytest.raises(SignInRefused):
            attempt(WRONG, email)
    assert len(rounds) == 2
    assert rounds[0] == rounds[1]


def test_ten_wrong_tries_lock_an_account_out_from_everywhere_even_with_the_right_password(alice: User) -> None:
    for number in range(10):
        with pytest.raises(SignInRefused, match="wrong"):
            attempt(WRONG, address=f"192.0.2.{number}")
    with pytest.raises(LockedOut) as locked:
        attempt(RIGHT, address="198.51.100.1")
    assert 0 < locked.value.retry_after <= 900
    with time_machine.travel(MIDDLE + 1800):
        assert attempt(RIGHT) == alice


def test_ten_wrong_tries_lock_an_address_out_whatever_account_it_tries(alice: User) -> None:
    for number in range(10):
        with pytest.raises(SignInRefused, match="wrong"):
            attempt(WRONG, f"guess{number}@example.org")
    with pytest.raises(LockedOut):
        attempt(RIGHT)
    assert attempt(RIGHT, address="198.51.100.1") == alice


def test_the_addresses_of_one_ipv6_network_count_as_one(alice: User) -> None:
    for number in range(10):
        with pytest.raises(SignInRefused, match="wrong"):
            attempt(WRONG, f"guess{number}@example.org", f"2001:db8:0:1::{number:x}")
    with pytest.raises(LockedOut):
        attempt(RIGHT, address="2001:db8:0:1:ffff:ffff:ffff:ffff")
    assert attempt(RIGHT, address="2001:db8:0:2::1") == alice


def test_right_passwords_do_not_use_tries_up_and_do_not_win_any(alice: User) -> None:
    for _ in range(15):
        attempt(RIGHT)
    for _ in range(10):
        with pytest.raises(SignInRefused, match="wrong"):
            attempt(WRONG)
    with pytest.raises(LockedOut):
        attempt(WRONG)


@pytest.mark.django_db(transaction=True)
def test_tries_at_the_same_time_count_too() -> None:
    create_user(actor=SYSTEM, email="alice@example.org", role=Role.ADMIN, password=RIGHT)

    def guess(number: int) -> type[Exception] | None:
        from django.db import connections

        try:
            attempt(WRONG, address=f"192.0.2.{number}")
        except SignInRefused as refused:
            return type(refused)
        finally:
            connections.close_all()
        return None

    with ThreadPoolExecutor(6) as pool:
        outcomes = list(pool.map(guess, range(30)))
    assert outcomes.count(SignInRefused) == 10
    assert outcomes.count(LockedOut) == 20


def test_nobody_is_let_in_while_tries_cannot_be_counted(alice: User, settings: Any) -> None:
    settings.CACHES = {
        "default": {
            "BACKEND": "django.core.cache.backends.redis.RedisCache",
            "LOCATION": "unix:///nonexistent/valkey.sock",
        }
    }
    with pytest.raises(SignInUnavailable):
        attempt(RIGHT)
