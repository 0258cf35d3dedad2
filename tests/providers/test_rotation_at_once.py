"""Two rotations at once: one wins. And whatever order of steps somebody finds, the rules of the machine hold."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.db import OperationalError, connections, transaction
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from conduit.core import audit
from conduit.core.errors import ConduitError, Conflict, InvalidInput
from conduit.core.models import AuditEntry
from providers import rotation, vault, versions
from providers.canary import Canary
from providers.models import Credential, CredentialVersion, Rotation
from tests.harness.sandbox import RunningSandbox
from tests.providers.rotations import ALICE, BAD, FOREIGN, a_credential, destroyed, fields, states


def at_once(*works: Callable[[], Any]) -> list[Any]:
    """What each returned, or the ConduitError it raised, all started together."""
    gate, results = threading.Barrier(len(works)), [None] * len(works)

    def run(index: int) -> None:
        try:
            gate.wait(30)
            results[index] = works[index]()
        except ConduitError as error:
            results[index] = error
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return results


def a_beginning(credential: Credential, text: str) -> Callable[[], Rotation]:
    return lambda: rotation.begin(credential, actor=ALICE, fields=fields(text))


@pytest.mark.django_db(transaction=True)
def test_of_steps_at_the_same_moment_exactly_one_wins(sandbox: RunningSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "LOCK_WAIT", "30s")  # each has its turn, however slow the others are
    main = a_credential()
    found = at_once(*(a_beginning(main, f"sk-sandbox-new-{number}-51d0c7e8") for number in range(5)))
    (won,) = [one for one in found if isinstance(one, Rotation)]
    lost = [one for one in found if isinstance(one, Conflict)]
    assert len(lost) == 4, found
    assert all("pending" in str(one) or "draining" in str(one) for one in lost), lost
    assert states(main) == {1: "retiring", 2: "active"}
    assert rotation.under_way(main) == won

    same = at_once(
        *[lambda: rotation.roll_back(main, actor=ALICE)] * 2, *[lambda: rotation.finish(main, actor=ALICE)] * 2
    )
    assert sum(isinstance(one, Conflict) for one in same) == 2, same
    assert AuditEntry.objects.filter(action__in=("credential.roll_back", "credential.retire")).count() == 1

    assert sum(at_once(*[rotation.retire_due] * 3)) == 0
    again = f"sk-sandbox-again-{main.id.hex[:12]}"
    rotation.begin(main, actor=ALICE, fields=fields(again), canary=Canary())
    number = main.versions.get(state="verifying").number
    verdicts = at_once(*[lambda: rotation.roll_back_failed(main.id, number, "401")] * 4)
    assert sorted(verdicts) == [False, False, False, True]


@pytest.mark.django_db(transaction=True)
def test_the_data_planes_verdict_does_not_wait_long_for_its_turn(
    sandbox: RunningSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    main = a_credential()
    rotation.begin(main, actor=ALICE, fields=fields("sk-sandbox-new-51d0c7e8a2f4"), canary=Canary())
    monkeypatch.setattr(versions, "LOCK_WAIT", "100ms")
    held, over, free = threading.Event(), threading.Event(), threading.Event()

    def hold() -> None:
        with transaction.atomic():
            audit.lock()
            held.set()
            over.wait(60)
        free.set()

    def give_up() -> None:
        held.wait(30)
        try:
            with pytest.raises(OperationalError, match="lock timeout"):
                rotation.roll_back_failed(main.id, 2, "401")
        finally:
            over.set()
        free.wait(30)
        assert rotation.roll_back_failed(main.id, 2, "401")

    at_once(hold, give_up)
    assert states(main) == {1: "active", 2: "revoked"}


class Machine(RuleBasedStateMachine):
    """A credential under arbitrary steps. `proven` are numbers the provider took, `ended` those that ended."""

    def __init__(self) -> None:
        super().__init__()
        self.main = a_credential(name=f"c{Credential.objects.count()}")
        self.proven, self.ended, self.count = {1}, set[int](), 1

    def attempt(self, work: Callable[[], Any]) -> Any:
        try:
            return work()
        except (Conflict, InvalidInput):
            return None

    @rule(canary=st.booleans(), overlap=st.sampled_from([0, 60]))
    def begin_with_a_good_secret(self, canary: bool, overlap: int) -> None:
        self.count += 1
        secret = fields(f"sk-sandbox-{self.count}-51d0c7e8a2f4")
        rules = Canary() if canary else None
        made = self.attempt(
            lambda: rotation.begin(self.main, actor=ALICE, fields=secret, canary=rules, overlap_seconds=overlap)
        )
        if made:
            self.proven.add(made.new.number)

    @rule(text=st.sampled_from([BAD, FOREIGN]))
    def begin_with_a_secret_that_must_not_serve(self, text: str) -> None:
        served = any(state == "active" for state in states(self.main).values())
        with pytest.raises((Conflict, InvalidInput)):
            rotation.begin(self.main, actor=ALICE, fields=fields(text))
        assert served == any(state == "active" for state in states(self.main).values())

    @rule(share=st.integers(0, 100))
    def move_the_canary(self, share: int) -> None:
        self.attempt(lambda: rotation.set_share(self.main, actor=ALICE, share=share))

    @rule(step=st.sampled_from([rotation.promote, rotation.roll_back, rotation.finish]))
    def take_a_step(self, step: Callable[..., Any]) -> None:
        first = self.attempt(lambda: step(self.main, actor=ALICE))
        before = states(self.main)
        again = self.attempt(lambda: step(self.main, actor=ALICE))
        assert (first and first.id, before) == (again and again.id, states(self.main))

    @precondition(lambda self: len(states(self.main)) > 1)
    @rule(draw=st.data())
    def revoke_one(self, draw: st.DataObject) -> None:
        number = draw.draw(st.sampled_from(sorted(states(self.main))))
        self.attempt(lambda: rotation.revoke(self.main, actor=ALICE, number=number))

    @rule(back=st.integers(0, 2))
    def hear_that_one_fails(self, back: int) -> None:
        newest = max(states(self.main))
        rotation.roll_back_failed(self.main.id, newest - back, "401")

    @rule()
    def wait_for_the_end_of_the_overlap(self) -> None:
        CredentialVersion.objects.filter(credential=self.main, state="retiring").update(retire_at="2020-01-01T00:00Z")
        rotation.retire_due()

    @invariant()
    def the_rules_hold(self) -> None:
        found = states(self.main)
        live = {number for number, state in found.items() if state in ("active", "verifying", "retiring")}
        assert list(found.values()).count("active") <= 1
        assert list(found.values()).count("verifying") <= 1
        assert "pending" not in found.values()
        assert live <= self.proven
        assert not live & self.ended
        self.ended |= {number for number, state in found.items() if state in ("retired", "revoked")}
        assert all(destroyed(self.main, number) for number in self.ended)
        for version in self.main.versions.filter(number__in=live):
            vault.open_version(version)

    @invariant()
    def a_rotation_tells_the_same_as_its_versions(self) -> None:
        now = rotation.under_way(self.main)
        values = set(states(self.main).values())
        if now is None:
            assert not values & {"verifying", "retiring"}
        elif now.state == "canary":
            assert (now.old.state, now.new.state) == ("active", "verifying")
        else:
            assert (now.state, now.old.state, now.new.state) == ("draining", "retiring", "active")


@pytest.mark.django_db
def test_no_order_of_steps_breaks_the_rules(sandbox: RunningSandbox) -> None:
    few = settings(max_examples=10, stateful_step_count=15, deadline=None)
    run_state_machine_as_test(Machine, settings=few)


@pytest.mark.long
@pytest.mark.django_db
def test_no_order_of_many_steps_breaks_the_rules(sandbox: RunningSandbox) -> None:
    many = settings(max_examples=200, stateful_step_count=30, deadline=None)
    run_state_machine_as_test(Machine, settings=many)
