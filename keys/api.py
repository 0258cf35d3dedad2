"""The management API's keys, teams and customers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

from django.db import transaction
from rest_framework.request import Request
from rest_framework.response import Response

from conduit.access.permissions import demand_scope, scope
from conduit.core import audit
from conduit.core.actor import Actor
from conduit.core.api import ResourceView, actor_of, described, page, parsed
from conduit.core.errors import InvalidInput, NotFound
from keys import customers, issuing, representation, rotation, teams
from keys.models import Customer, KeyState, Team, VirtualKey
from keys.serializers import (
    CustomerInput,
    CustomerOutput,
    ExtendInput,
    KeyCreated,
    KeyInput,
    KeyOutput,
    Nothing,
    RotateInput,
    SecretVersions,
    TeamInput,
    TeamOutput,
)


def find_key(actor: Actor, key_id: UUID, *, lock: bool = False) -> VirtualKey:
    """Raises NotFound for a key that is not there or not the actor's to see."""
    rows = VirtualKey.objects.select_related("team", "user", "parent")
    if lock:
        audit.lock()
        rows = rows.select_for_update(of=("self",), no_key=True)
    key = rows.filter(pk=key_id).first()
    if key is None:
        raise NotFound("")
    demand_scope(actor, key.team_id)
    return key


def _key_body(key: VirtualKey, actor: Actor) -> dict[str, Any]:
    return representation.keys([key], actor)[0]


class Keys(ResourceView):
    resource = "keys"
    query = frozenset({"team", "state", "name"})

    @described(
        "List keys",
        response=KeyOutput,
        many=True,
        query={"team": "id or name", "state": "active, disabled or revoked", "name": "part of the name"},
    )
    def get(self, request: Request) -> Response:
        actor, asked = actor_of(request), request.query_params
        rows = scope(VirtualKey.objects.select_related("team", "user", "parent"), actor)
        if "team" in asked:
            rows = rows.filter(team=teams.find_team(asked["team"]))
        if "state" in asked:
            if asked["state"] not in KeyState.values:
                raise InvalidInput("state", f"Must be one of {', '.join(KeyState.values)}.", "invalid_choice")
            rows = rows.filter(state=asked["state"])
        if "name" in asked:
            rows = rows.filter(name__icontains=asked["name"])
        return page(request, rows, serialize_all=lambda found: representation.keys(found, actor))

    @described("Issue a key", request=KeyInput, response=KeyCreated, status=201)
    def post(self, request: Request) -> Response:
        actor = actor_of(request)
        key, raw = issuing.create_key(actor=actor, **parsed(KeyInput, request))
        body = _key_body(key, actor)
        return self.one({**body, "key": raw.reveal()}, status=201, version=representation.version(body))


class OneKey(ResourceView):
    resource = "keys"

    @described("Read a key", response=KeyOutput)
    def get(self, request: Request, key_id: UUID) -> Response:
        actor = actor_of(request)
        body = _key_body(find_key(actor, key_id), actor)
        return self.one(body, version=representation.version(body))

    @described("Change a key", request=KeyInput, response=KeyOutput)
    def patch(self, request: Request, key_id: UUID) -> Response:
        actor, changes = actor_of(request), parsed(KeyInput, request, partial=True)
        with transaction.atomic():
            key = find_key(actor, key_id, lock=True)
            self.check_match(representation.version(_key_body(key, actor)))
            body = _key_body(issuing.update_key(key, actor=actor, changes=changes), actor)
        return self.one(body, version=representation.version(body))

    @described("Delete a key", status=204)
    def delete(self, request: Request, key_id: UUID) -> Response:
        actor = actor_of(request)
        with transaction.atomic():
            key = find_key(actor, key_id, lock=True)
            self.check_match(representation.version(_key_body(key, actor)))
            issuing.delete_key(key, actor=actor)
        return Response(status=204)


class KeyStep(ResourceView):
    """POST to /keys/{id}/disable, /enable, /expire, /revoke and /finish: one function each."""

    resource = "keys"
    step: Callable[..., VirtualKey] = staticmethod(issuing.disable_key)

    @described(
        "Disable, enable, expire or revoke a key, or finish its rotation",
        request=Nothing,
        response=KeyOutput,
    )
    def post(self, request: Request, key_id: UUID) -> Response:
        actor = actor_of(request)
        parsed(Nothing, request)
        body = _key_body(self.step(find_key(actor, key_id), actor=actor), actor)
        return self.one(body, version=representation.version(body))


class RotateKey(ResourceView):
    resource = "keys"

    @described("Give a key another secret; the old one works on for a while", request=RotateInput, response=KeyCreated)
    def post(self, request: Request, key_id: UUID) -> Response:
        actor = actor_of(request)
        key, raw = rotation.rotate_key(find_key(actor, key_id), actor=actor, **parsed(RotateInput, request))
        body = _key_body(key, actor)
        return self.one({**body, "key": raw.reveal()}, version=representation.version(body))


class ExtendKey(ResourceView):
    resource = "keys"

    @described("Let the old secret of a rotation work longer", request=ExtendInput, response=KeyOutput)
    def post(self, request: Request, key_id: UUID) -> Response:
        actor = actor_of(request)
        key = rotation.extend_rotation(find_key(actor, key_id), actor=actor, **parsed(ExtendInput, request))
        body = _key_body(key, actor)
        return self.one(body, version=representation.version(body))


class KeyVersions(ResourceView):
    resource = "keys"

    @described("A key's secrets, the newest first, and who uses them", response=SecretVersions)
    def get(self, request: Request, key_id: UUID) -> Response:
        actor = actor_of(request)
        return Response({"data": representation.versions(find_key(actor, key_id), actor), "next": None})


def find_own_team(actor: Actor, team_id: UUID, *, lock: bool = False) -> Team:
    if lock:
        teams.lock_tree()
    team = Team.objects.filter(pk=team_id).first()
    if team is None:
        raise NotFound("")
    demand_scope(actor, team.id)
    return team


def _team_body(team: Team, actor: Actor) -> dict[str, Any]:
    return representation.teams([team], actor)[0]


class Teams(ResourceView):
    resource = "teams"

    @described("List teams", response=TeamOutput, many=True)
    def get(self, request: Request) -> Response:
        actor = actor_of(request)
        rows = scope(Team.objects.all(), actor, "id")
        return page(request, rows, serialize_all=lambda found: representation.teams(found, actor))

    @described("Create a team", request=TeamInput, response=TeamOutput, status=201)
    def post(self, request: Request) -> Response:
        actor = actor_of(request)
        body = _team_body(teams.create_team(actor=actor, **parsed(TeamInput, request)), actor)
        return self.one(body, status=201, version=representation.version(body))


class OneTeam(ResourceView):
    resource = "teams"

    @described("Read a team", response=TeamOutput)
    def get(self, request: Request, team_id: UUID) -> Response:
        actor = actor_of(request)
        body = _team_body(find_own_team(actor, team_id), actor)
        return self.one(body, version=representation.version(body))

    @described("Change a team", request=TeamInput, response=TeamOutput)
    def patch(self, request: Request, team_id: UUID) -> Response:
        actor, changes = actor_of(request), parsed(TeamInput, request, partial=True)
        with transaction.atomic():
            team = find_own_team(actor, team_id, lock=True)
            self.check_match(representation.version(_team_body(team, actor)))
            body = _team_body(teams.update_team(team, actor=actor, changes=changes), actor)
        return self.one(body, version=representation.version(body))

    @described("Delete a team", status=204)
    def delete(self, request: Request, team_id: UUID) -> Response:
        actor = actor_of(request)
        with transaction.atomic():
            team = find_own_team(actor, team_id, lock=True)
            self.check_match(representation.version(_team_body(team, actor)))
            teams.delete_team(team, actor=actor)
        return Response(status=204)


class Customers(ResourceView):
    resource = "customers"
    query = frozenset({"team"})

    @described("List customers", response=CustomerOutput, many=True, query={"team": "id or name"})
    def get(self, request: Request) -> Response:
        rows = scope(Customer.objects.all(), actor_of(request))
        if "team" in request.query_params:
            rows = rows.filter(team=teams.find_team(request.query_params["team"]))
        return page(request, rows, serialize_all=representation.customers)


class OneCustomer(ResourceView):
    resource = "customers"

    @described("Set a customer's limits; what is left out has no limit", request=CustomerInput, response=CustomerOutput)
    def put(self, request: Request, name: str) -> Response:
        body = parsed(CustomerInput, request)
        team, specs = body.pop("team", None), body.pop("budgets", ())
        customer, created = customers.put_customer(
            actor=actor_of(request), name=name, team=team, limits=body, specs=specs
        )
        return self.one(representation.customers([customer])[0], status=201 if created else 200)
