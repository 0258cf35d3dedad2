"""Sealed credentials open only where they were put, and only whole (testing V1, V2)."""

from __future__ import annotations

import os

import pytest
from django.db import connection
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.django import TestCase

from conduit.core import keyring
from conduit.core.secret import Secret
from providers import vault
from providers.models import Credential, CredentialField, CredentialVersion, Provider, VersionState

CANARY = "sk-canary-51d3f0a7b2c94e6e8f10"
pytestmark = pytest.mark.django_db


def sealed(name: str = "main", *, number: int = 1, **fields: str) -> CredentialVersion:
    provider, _ = Provider.objects.get_or_create(name="OpenAI", kind="openai")
    credential, _ = Credential.objects.get_or_create(provider=provider, name=name)
    plain = {key: Secret(text) for key, text in (fields or {"api_key": CANARY}).items()}
    return vault.seal_version(credential, plain, number=number, state=VersionState.RETIRED)


def opened(version: CredentialVersion) -> dict[str, str]:
    fresh = CredentialVersion.objects.get(pk=version.pk)
    return {name: secret.reveal() for name, secret in vault.open_version(fresh).items()}


def test_what_was_sealed_opens_with_all_its_fields() -> None:
    version = sealed(access_key_id="AKIA0123456789ABCDEF", secret_access_key="wJalr/π🔑", session="")
    assert opened(version) == {"access_key_id": "AKIA0123456789ABCDEF", "secret_access_key": "wJalr/π🔑", "session": ""}


def test_a_version_without_fields_opens_empty() -> None:
    provider = Provider.objects.create(name="Open endpoint", kind="custom")
    credential = Credential.objects.create(provider=provider, name="none")
    assert opened(vault.seal_version(credential, {}, number=1)) == {}


def test_equal_secrets_have_nothing_in_common_at_rest() -> None:
    one, two = sealed("one"), sealed("two")
    assert bytes(one.fields.get().ciphertext) != bytes(two.fields.get().ciphertext)
    assert bytes(one.wrapped_key) != bytes(two.wrapped_key)


def test_every_flipped_byte_of_a_ciphertext_is_refused() -> None:
    row = sealed().fields.get()
    whole = bytes(row.ciphertext)
    for position in range(len(whole)):
        for mask in (0x01, 0x80, 0xFF):
            damaged = bytearray(whole)
            damaged[position] ^= mask
            CredentialField.objects.filter(pk=row.pk).update(ciphertext=bytes(damaged))
            with pytest.raises(vault.Unreadable):
                opened(row.version)
    CredentialField.objects.filter(pk=row.pk).update(ciphertext=whole)
    assert opened(row.version) == {"api_key": CANARY}


def test_every_flipped_byte_of_a_wrapped_key_is_refused() -> None:
    version = sealed()
    whole = bytes(version.wrapped_key)
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 0x01
        CredentialVersion.objects.filter(pk=version.pk).update(wrapped_key=bytes(damaged))
        with pytest.raises(vault.Unreadable):
            opened(version)


@pytest.mark.parametrize("length", [0, 1, 12, 13, 28, 29])
def test_a_shortened_ciphertext_is_refused(length: int) -> None:
    row = sealed().fields.get()
    CredentialField.objects.filter(pk=row.pk).update(ciphertext=bytes(row.ciphertext)[:length])
    with pytest.raises(vault.Unreadable):
        opened(row.version)


def move(source: CredentialVersion, target: CredentialVersion) -> None:
    """Copies every blob of one version over another, as somebody who can write to the database would."""
    CredentialVersion.objects.filter(pk=target.pk).update(wrapped_key=source.wrapped_key, kek_id=source.kek_id)
    target.fields.update(ciphertext=source.fields.get().ciphertext)


def test_blobs_moved_to_another_credential_do_not_open() -> None:
    alice, bob = sealed("Alice"), sealed("Bob", api_key="sk-bob-0123456789abcdef")
    move(alice, bob)
    with pytest.raises(vault.Unreadable):
        opened(bob)


def test_blobs_moved_to_another_version_do_not_open() -> None:
    old, new = sealed(number=1), sealed(number=2, api_key="sk-new-0123456789abcdef")
    move(old, new)
    with pytest.raises(vault.Unreadable):
        opened(new)


def test_a_version_row_renumbered_or_given_to_another_credential_does_not_open() -> None:
    version, other = sealed("Alice"), sealed("Bob")
    CredentialVersion.objects.filter(pk=version.pk).update(number=9)
    with pytest.raises(vault.Unreadable):
        opened(version)
    CredentialVersion.objects.filter(pk=version.pk).update(number=7, credential=other.credential)
    with pytest.raises(vault.Unreadable):
        opened(version)


def test_only_the_ciphertext_moved_between_versions_does_not_open() -> None:
    old, new = sealed(number=1), sealed(number=2)
    new.fields.update(ciphertext=old.fields.get().ciphertext)
    with pytest.raises(vault.Unreadable):
        opened(new)


def test_fields_of_one_version_swapped_or_renamed_do_not_open() -> None:
    version = sealed(key_id="AKIA0123456789ABCDEF", secret="0123456789abcdef0123")
    one, two = version.fields.order_by("name")
    CredentialField.objects.filter(pk=one.pk).update(ciphertext=two.ciphertext)
    CredentialField.objects.filter(pk=two.pk).update(ciphertext=one.ciphertext)
    with pytest.raises(vault.Unreadable):
        opened(version)
    CredentialField.objects.filter(pk=one.pk).update(ciphertext=one.ciphertext, name="endpoint")
    CredentialField.objects.filter(pk=two.pk).update(ciphertext=two.ciphertext)
    with pytest.raises(vault.Unreadable):
        opened(version)


def test_a_field_taken_away_or_added_is_noticed() -> None:
    version = sealed(key_id="AKIA0123456789ABCDEF", secret="0123456789abcdef0123")
    extra = CredentialField.objects.create(version=version, name="extra", ciphertext=b"")
    with pytest.raises(vault.Unreadable):
        opened(version)
    extra.delete()
    assert set(opened(version)) == {"key_id", "secret"}
    version.fields.get(name="secret").delete()
    with pytest.raises(vault.Unreadable):
        opened(version)


def test_a_missing_kek_is_named_with_the_fix(ring: pytest.MonkeyPatch) -> None:
    version = sealed()
    ring.setenv("CONDUIT_KEK_OTHER", "A" * 43 + "=")
    keyring.reset()
    with pytest.raises(vault.Unreadable) as red:
        opened(version)
    assert f"CONDUIT_KEK_{version.kek_id}" in red.value.fix
    assert "not set" in red.value.reason


def test_a_wrong_kek_of_the_right_name_is_told_from_a_missing_one(ring: pytest.MonkeyPatch) -> None:
    version = sealed()
    ring.setenv(f"CONDUIT_KEK_{version.kek_id}", "A" * 43 + "=")
    keyring.reset()
    with pytest.raises(vault.Unreadable) as red:
        opened(version)
    assert "another key" in red.value.reason
    assert CANARY not in str(red.value)


def database_text() -> str:
    """Every row of every table, as text, with binary columns also in hexadecimal."""
    out: list[str] = []
    with connection.cursor() as cursor:
        for table in connection.introspection.table_names(cursor):
            cursor.execute(f'SELECT coalesce(string_agg(t::text, chr(10)), $$$$) FROM "{table}" t')
            out.append(cursor.fetchone()[0])
    return "\n".join(out)


def test_no_row_of_the_database_holds_the_plain_secret() -> None:
    version = sealed()
    text = database_text()
    assert str(version.id) in text  # the scan sees the row
    assert CANARY not in text
    assert CANARY.encode().hex() not in text
    assert CANARY[8:20] not in text


def test_secrets_show_themselves_nowhere() -> None:
    (secret,) = vault.open_version(sealed()).values()
    assert CANARY not in f"{secret} {secret!r} {vars(sealed('x').fields.get())}"


class AnySecret(TestCase):
    """Properties over arbitrary texts and field names; each example in its own transaction."""

    @given(
        st.dictionaries(
            st.text("abcdefghijklmnopqrstuvwxyz_", min_size=1, max_size=64),
            st.text(st.characters(exclude_categories=["Cs"]), max_size=4000),
            max_size=4,
        ),
        st.integers(1, 2**31 - 1),
    )
    @example({"_": "000000000000000\x00"}, 1)
    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
    def test_any_text_under_any_field_name_comes_back(self, fields: dict[str, str], number: int) -> None:
        provider = Provider.objects.create(name=os.urandom(8).hex(), kind="openai")
        credential = Credential.objects.create(provider=provider, name="main")
        version = vault.seal_version(credential, {k: Secret(v) for k, v in fields.items()}, number=number)
        assert opened(version) == fields


def test_even_under_one_data_key_a_ciphertext_opens_only_at_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vault.secrets, "token_bytes", lambda length: b"k" * length)
    alice = sealed("Alice", one="0123456789abcdef", two="fedcba9876543210")
    bob = sealed("Bob", one="0123456789abcdef", two="fedcba9876543210")
    later = sealed("Alice", number=2, one="0123456789abcdef", two="fedcba9876543210")
    blob = bytes(alice.fields.get(name="one").ciphertext)
    for version, name in ((bob, "one"), (later, "one"), (alice, "two")):
        version.fields.filter(name=name).update(ciphertext=blob)
        with pytest.raises(vault.Unreadable):
            opened(version)


def test_a_data_key_that_was_prepared_is_used_only_while_it_fits(ring: pytest.MonkeyPatch) -> None:
    provider = Provider.objects.create(name="OpenAI", kind="openai")
    credential = Credential.objects.create(provider=provider, name="main")
    fields = {"api_key": Secret(CANARY)}
    first, other, third = [vault.prepare(credential.id, fields, number=number) for number in (1, 9, 3)]
    made = vault.seal_version(
        credential, fields, number=vault.next_number(credential), state=VersionState.RETIRED, data_key=first
    )
    assert bytes(made.wrapped_key) == first.wrapped
    assert opened(made) == {"api_key": CANARY}
    made = vault.seal_version(
        credential, fields, number=vault.next_number(credential), state=VersionState.RETIRED, data_key=other
    )
    assert opened(made) == {"api_key": CANARY}
    ring.setenv("CONDUIT_KEK_OTHER", "A" * 43 + "=")
    keyring.reset()
    made = vault.seal_version(
        credential, fields, number=vault.next_number(credential), state=VersionState.RETIRED, data_key=third
    )
    assert (made.number, made.kek_id) == (3, "OTHER")
    assert opened(made) == {"api_key": CANARY}
