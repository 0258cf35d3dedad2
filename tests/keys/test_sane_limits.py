"""Limits and prices that are no limits or prices are refused by name, wherever they are given (L7)."""

from __future__ import annotations

from typing import Any

import pytest

from keys.models import Budget, Customer, Team, VirtualKey
from providers.models import Provider
from tests.access.clients import ApiClient, faults
from usage.models import Price

AMOUNTS = [
    "-1",
    "NaN",
    "Infinity",
    "1,0",
    "1e3",
    "1e400",
    "",
    " 1",
    "0x10",
    "1.0000000001",
    str(2**63),
    1.5,
    True,
    None,
]
COUNTS = [0, -1, 1.5, "10", "1e3", True, [], {}, 2**63, 10**30]
MISSPELT = {"bugdets": [], "rmp": 5, "limit": "1", "tpm_limit": 5, "max_paralel": 5}
RESOURCES: dict[str, tuple[str, str, dict[str, Any], tuple[str, ...]]] = {
    "keys": ("POST", "/keys", {"name": "n"}, ("rpm", "tpm", "max_parallel", "max_output_tokens")),
    "teams": ("POST", "/teams", {"name": "n"}, ("rpm", "tpm", "max_parallel")),
    "customers": ("PUT", "/customers/alice", {}, ("rpm", "tpm")),
    "providers": ("POST", "/providers", {"name": "n", "kind": "openai"}, ("rpm", "tpm", "max_parallel")),
}

WITH_BUDGETS = ("keys", "teams", "customers")


def call(client: ApiClient, resource: str, **more: Any) -> Any:
    method, path, body, _ = RESOURCES[resource]
    return client.call(method, path, {**body, **more})


def nothing_is_stored() -> bool:
    return not any(kind.objects.exists() for kind in (VirtualKey, Team, Customer, Provider, Budget, Price))


@pytest.mark.parametrize("resource", WITH_BUDGETS)
def test_an_amount_that_is_none_is_refused(owner: ApiClient, resource: str) -> None:
    for amount in AMOUNTS:
        answer = call(owner, resource, budgets=[{"limit_usd": amount}])
        assert (answer.status_code, faults(answer).keys()) == (400, {"budgets.0.limit_usd"}), amount
    assert nothing_is_stored()


@pytest.mark.parametrize("resource", list(RESOURCES))
def test_a_count_that_is_none_is_refused(owner: ApiClient, resource: str) -> None:
    for field in RESOURCES[resource][3]:
        for count in COUNTS:
            answer = call(owner, resource, **{field: count})
            assert answer.status_code == 400, (field, count, answer.content)
            assert all(name.split(".")[0] == field for name in faults(answer)), (field, count)
    assert nothing_is_stored()


@pytest.mark.parametrize("resource", list(RESOURCES))
def test_a_field_that_does_not_exist_is_refused(owner: ApiClient, resource: str) -> None:
    for name, value in MISSPELT.items():
        answer = call(owner, resource, **{name: value})
        assert (answer.status_code, faults(answer).keys()) == (400, {name})
    if resource in WITH_BUDGETS:
        answer = call(owner, resource, budgets=[{"limit_usd": "1", "windw": "day"}])
        assert (answer.status_code, faults(answer).keys()) == (400, {"budgets.0.windw"})
    assert nothing_is_stored()


@pytest.mark.parametrize("resource", list(RESOURCES))
def test_numbers_that_json_does_not_have_are_refused(owner: ApiClient, resource: str) -> None:
    method, path, _, _ = RESOURCES[resource]
    for text in ("NaN", "Infinity", "-Infinity", "1e400", "01", "1.", "+1"):
        raw = f'{{"name":"n","kind":"openai","rpm":{text}}}'.encode()
        answer = owner.call(method, path, raw)
        assert answer.status_code == 400, text
    twice = owner.call(method, path, b'{"name":"n","rpm":5,"rpm":500000}')
    assert (twice.status_code, faults(twice)) == (400, {"rpm": "duplicate_member"})
    assert nothing_is_stored()


@pytest.mark.parametrize("resource", WITH_BUDGETS)
def test_zero_blocks_and_absent_means_none(owner: ApiClient, resource: str) -> None:
    limited = call(owner, resource, budgets=[{"limit_usd": "0"}])
    assert limited.status_code in (200, 201), limited.content
    assert Budget.objects.get(removed_at=None).limit_nanos == 0
    other = {} if resource == "customers" else {"name": "other"}
    free = call(owner, resource, **other, budgets=[], rpm=None)
    assert free.status_code in (200, 201), free.content
    assert Budget.objects.filter(removed_at=None).count() == (0 if resource == "customers" else 1)


@pytest.mark.parametrize("place", ["rates", "per"])
def test_a_price_that_is_none_is_refused(owner: ApiClient, place: str) -> None:
    unit = "input" if place == "rates" else "image"
    for amount in (*(amount for amount in AMOUNTS if amount != "1.0000000001"), "0.0000000000000001", 2**63, [], {}):
        answer = owner.post("/prices", {"model": "m", place: {unit: amount}})
        assert (answer.status_code, faults(answer).keys()) == (400, {f"{place}.{unit}"}), amount
    for body, field in (
        ({"model": "m", place: {"inptu": "1"}}, f"{place}.inptu"),
        ({"model": "m", place: []}, place),
        ({"model": "m", place: {unit: "1"}, "rate": {}}, "rate"),
        ({"model": "", place: {unit: "1"}}, "model"),
        ({"model": None, place: {unit: "1"}}, "model"),
    ):
        answer = owner.post("/prices", body)
        assert (answer.status_code, faults(answer).keys()) == (400, {field}), body
    assert nothing_is_stored()


def test_a_price_of_zero_is_somebodys_word_and_kept(owner: ApiClient) -> None:
    assert owner.post("/prices", {"model": "m", "rates": {"input": "0", "output": "0.00"}}).status_code == 201
    assert Price.objects.get().rates == {"input": [[0, 0]], "output": [[0, 0]]}
