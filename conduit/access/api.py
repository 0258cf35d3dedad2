"""The management API's tokens and users."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from django.db import transaction
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from conduit.access import teams, tokens, users
from conduit.access.models import ManagementToken, Role, User
from conduit.core.api import (
    Choice,
    Flag,
    Parsed,
    ResourceView,
    RFC3339Field,
    Strict,
    Text,
    actor_of,
    described,
    page,
    parsed,
)
from conduit.core.clock import now, rfc3339
from conduit.core.errors import InvalidInput, NotFound


def parse_id(value: object) -> UUID:
    """Raises InvalidInput."""
    if isinstance(value, str):
        try:
            return UUID(value)
        except ValueError:
            pass
    raise InvalidInput("", "Must be an id.", "invalid_id")


@extend_schema_field(OpenApiTypes.UUID)
class IdField(Parsed):
    def parse(self, value: object) -> UUID:
        return parse_id(value)


@extend_schema_field({"type": "array", "items": {"type": "string", "format": "uuid"}})
class IdsField(Parsed):
    def parse(self, value: object) -> list[UUID]:
        if not isinstance(value, list) or len(value) > 100:
            raise InvalidInput("", "Must be a list of at most 100 ids.", "invalid_list")
        found = []
        for index, member in enumerate(value):
            try:
                found.append(parse_id(member))
            except InvalidInput as error:
                raise InvalidInput(f".{index}", error.detail, error.code) from None
        return found


class TokenInput(Strict):
    name = Text(longest=120, shortest=1)
    role = Choice(choices=Role.values)
    team = IdField(required=False, allow_null=True)
    expires_at = RFC3339Field(required=False, allow_null=True)


class TokenOutput(serializers.Serializer[Any]):
    id = serializers.UUIDField()
    name = serializers.CharField()
    role = serializers.ChoiceField(choices=Role.values)
    team = serializers.UUIDField(allow_null=True)
    state = serializers.CharField(help_text="active, revoked or expired")
    hint = serializers.CharField()
    created_by = serializers.CharField()
    created_at = RFC3339Field()
    expires_at = RFC3339Field(allow_null=True)
    revoked_at = RFC3339Field(allow_null=True)
    last_used_at = RFC3339Field(allow_null=True)


class TokenCreated(TokenOutput):
    token = serializers.CharField(help_text="the raw token; this is the only time it is shown")


class UserInput(Strict):
    email = Text(longest=254, shortest=3)
    role = Choice(choices=Role.values)
    name = Text(longest=120, required=False)
    teams = IdsField(required=False)


class UserChange(Strict):
    role = Choice(choices=Role.values, required=False)
    name = Text(longest=120, required=False)
    teams = IdsField(required=False)
    active = Flag(required=False)


class UserOutput(serializers.Serializer[Any]):
    id = serializers.UUIDField()
    email = serializers.EmailField()
    name = serializers.CharField()
    role = serializers.ChoiceField(choices=Role.values)
    active = serializers.BooleanField()
    teams = serializers.ListField(child=serializers.UUIDField())
    created_at = RFC3339Field()
    last_sign_in_at = RFC3339Field(allow_null=True)


class UserCreated(UserOutput):
    password = serializers.CharField(help_text="generated; this is the only time it is shown")


def _token(row: ManagementToken) -> dict[str, Any]:
    state = "active"
    if row.revoked_at is not None:
        state = "revoked"
    elif row.expires_at is not None and row.expires_at <= now():
        state = "expired"
    return {
        "id": str(row.id),
        "name": row.name,
        "role": row.role,
        "team": str(row.team_id) if row.team_id else None,
        "state": state,
        "hint": f"cdt_mk_{row.public_id}…",
        "created_by": row.created_by,
        "created_at": rfc3339(row.created_at),
        "expires_at": rfc3339(row.expires_at) if row.expires_at else None,
        "revoked_at": rfc3339(row.revoked_at) if row.revoked_at else None,
        "last_used_at": rfc3339(row.last_used_at) if row.last_used_at else None,
    }


def _users(rows: Sequence[User]) -> list[dict[str, Any]]:
    members = teams.of_users(rows)
    return [
        {
            "id": str(row.id),
            **users.describe(row, members[row.id]),
            "created_at": rfc3339(row.created_at),
            "last_sign_in_at": rfc3339(row.last_login) if row.last_login else None,
        }
        for row in rows
    ]


def _user_version(body: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in body.items() if name not in ("last_sign_in_at", "password")}


class Tokens(ResourceView):
    resource = "tokens"

    @described("List management tokens", response=TokenOutput, many=True)
    def get(self, request: Request) -> Response:
        return page(request, ManagementToken.objects.all(), serialize=_token)

    @described("Issue a management token", request=TokenInput, response=TokenCreated, status=201)
    def post(self, request: Request) -> Response:
        token, raw = tokens.create_token(actor=actor_of(request), **parsed(TokenInput, request))
        return Response({**_token(token), "token": raw.reveal()}, status=201)


class OneToken(ResourceView):
    resource = "tokens"

    @described("Revoke a management token", status=204)
    def delete(self, request: Request, token_id: UUID) -> Response:
        token = ManagementToken.objects.filter(pk=token_id).first()
        if token is None:
            raise NotFound("")
        tokens.revoke_token(token, actor=actor_of(request))
        return Response(status=204)


class Users(ResourceView):
    resource = "users"

    @described("List users", response=UserOutput, many=True)
    def get(self, request: Request) -> Response:
        return page(request, User.objects.all(), serialize_all=_users)

    @described("Invite a user", request=UserInput, response=UserCreated, status=201)
    def post(self, request: Request) -> Response:
        body = parsed(UserInput, request)
        user, password = users.create_user(actor=actor_of(request), in_teams=body.pop("teams", ()), **body)
        shown = _users([user])[0]
        return self.one({**shown, "password": password.reveal()}, status=201, version=_user_version(shown))


class OneUser(ResourceView):
    resource = "users"

    @described("Read a user", response=UserOutput)
    def get(self, request: Request, user_id: UUID) -> Response:
        body = _users([self._find(user_id)])[0]
        return self.one(body, version=_user_version(body))

    @described("Change or disable a user", request=UserChange, response=UserOutput)
    def patch(self, request: Request, user_id: UUID) -> Response:
        changes = parsed(UserChange, request, partial=True)
        with transaction.atomic():
            users.lock_owners()
            user = self._find(user_id)
            self.check_match(_user_version(_users([user])[0]))
            body = _users([users.update_user(user, actor=actor_of(request), **changes)])[0]
        return self.one(body, version=_user_version(body))

    def _find(self, user_id: UUID) -> User:
        user = User.objects.filter(pk=user_id).first()
        if user is None:
            raise NotFound("")
        return user
