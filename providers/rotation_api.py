"""Management API: the steps of a credential's rotation (contract 4). Each may be repeated when its reply was lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.db import transaction
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from conduit.core import idempotency
from conduit.core.api import Flag, Parsed, ResourceView, RFC3339Field, Strict, Text, WholeNumber, actor_of, described
from conduit.core.api import parsed as parse_body
from conduit.core.errors import InvalidInput, NotFound
from providers import credentials, rotation, versions
from providers import representations as shapes
from providers.canary import MAX_OVERLAP_SECONDS, Canary, parse_rules
from providers.models import Credential, Rotation
from providers.providers import kind_of
from providers.rotation_shapes import RotationOutput, rotation_body

# --- inputs --------------------------------------------------------------------------------------------------------


class CanaryShape(serializers.Serializer[Any]):
    steps = serializers.ListField(
        child=serializers.IntegerField(), required=False, help_text="rising shares in percent, without the last 100"
    )
    step_seconds = serializers.IntegerField(required=False, default=600)
    max_error_percent = serializers.CharField(required=False, default="1")
    automatic = serializers.BooleanField(required=False, default=False)


@extend_schema_field(CanaryShape())
class CanaryField(Parsed):
    def parse(self, value: object) -> Canary:
        if not isinstance(value, dict):
            raise InvalidInput("", "Must be an object.", "invalid_type")
        return Canary(**parse_rules(value, "canary."))


def _overlap() -> WholeNumber:
    return WholeNumber(low=0, high=MAX_OVERLAP_SECONDS, required=False)


class CredentialRotateInput(Strict):
    secret = shapes.SecretText(required=False)
    fields = shapes.PlainObject(required=False)  # type: ignore[assignment]  # the contract's name
    overlap_seconds = _overlap()
    reason = Text(longest=200, required=False)
    expires_at = RFC3339Field(required=False, allow_null=True)
    canary = CanaryField(required=False, allow_null=True)
    other_account = Flag(required=False)


class PromoteInput(Strict):
    share = WholeNumber(low=0, high=100, required=False)


class RollbackInput(Strict):
    problem = Text(longest=500, required=False)


class RevokeInput(Strict):
    version = WholeNumber(low=1, high=2**31 - 1, required=False)


class CredentialExtendInput(Strict):
    overlap_seconds = WholeNumber(low=0, high=MAX_OVERLAP_SECONDS)


class AsGiven(Parsed):
    """The rules' own parser names what is wrong."""

    def parse(self, value: object) -> Any:
        return value


@extend_schema_field({"type": "array", "items": {"type": "integer"}})
class StepsField(AsGiven):
    """Rising shares in percent."""


@extend_schema_field({"type": "string", "examples": ["0.5"]})
class PercentField(AsGiven):
    """A decimal text."""


class RotationChanges(Strict):
    steps = StepsField(required=False)
    step_seconds = WholeNumber(low=1, required=False)
    max_error_percent = PercentField(required=False)
    automatic = Flag(required=False)
    overlap_seconds = _overlap()


class CheckedOutput(shapes.OutcomeOutput):
    account = serializers.CharField(help_text="whose it is, where the provider tells")
    rotation = RotationOutput(allow_null=True, help_text="under way after this check")


class RevokedOutput(serializers.Serializer[Any]):
    revoked = serializers.IntegerField(help_text="number of the revoked version")
    active = serializers.IntegerField(allow_null=True, help_text="number of the version that serves now; null: none")


# --- calls ---------------------------------------------------------------------------------------------------------


class Asking(ResourceView):
    """Asks the provider in between: its work is not one transaction."""

    resource = "credentials"

    def _once(self, act: Callable[..., Response], request: Request, *args: Any, **kwargs: Any) -> Response:
        return idempotency.once_by_itself(request, lambda: act(request, *args, **kwargs))


class Rotate(Asking):
    @described(
        f"Give a credential a new secret. {shapes.NEVER_SHOWN}",
        request=CredentialRotateInput,
        response=RotationOutput,
    )
    def post(self, request: Request, id: str) -> Response:  # noqa: A002  # the contract's name
        credential = credentials.find(id)
        given = parse_body(CredentialRotateInput, request)
        given["fields"] = credentials.parse_fields(
            kind_of(credential.provider), secret=given.pop("secret", None), fields=given.pop("fields", None)
        )
        return self.one(rotation_body(rotation.begin(credential, actor=actor_of(request), **given)))


class Verify(Asking):
    @described(
        "Call the provider with the secrets that serve",
        request=shapes.Nothing,
        response=CheckedOutput,
    )
    def post(self, request: Request, id: str) -> Response:  # noqa: A002
        parse_body(shapes.Nothing, request)
        credential = credentials.find(id)
        outcome = credentials.tested(credential, actor=actor_of(request))
        row, version = versions.under_way(credential), versions.serving(credential)
        return Response(
            {
                **shapes.outcome_body(outcome),
                "account": version.account if version else "",
                "rotation": rotation_body(row) if row else None,
            }
        )


class Step(ResourceView):
    """One step by hand; answers the rotation as it is afterwards."""

    resource = "credentials"

    def answer(self, row: Rotation) -> Response:
        return self.one(rotation_body(row))


class Promote(Step):
    @described(
        "Let the canary take over, or give it a larger share first", request=PromoteInput, response=RotationOutput
    )
    def post(self, request: Request, id: str) -> Response:  # noqa: A002
        share = parse_body(PromoteInput, request).get("share", 100)
        return self.answer(rotation.set_share(credentials.find(id), actor=actor_of(request), share=share))


class Rollback(Step):
    @described("Go back to the former version", request=RollbackInput, response=RotationOutput)
    def post(self, request: Request, id: str) -> Response:  # noqa: A002
        given = parse_body(RollbackInput, request)
        return self.answer(rotation.roll_back(credentials.find(id), actor=actor_of(request), **given))


class Finish(Step):
    @described("End the overlap now and destroy the old secret", request=shapes.Nothing, response=RotationOutput)
    def post(self, request: Request, id: str) -> Response:  # noqa: A002
        parse_body(shapes.Nothing, request)
        return self.answer(rotation.finish(credentials.find(id), actor=actor_of(request)))


class Extend(Step):
    @described("Keep the old secret for so long from now", request=CredentialExtendInput, response=RotationOutput)
    def post(self, request: Request, id: str) -> Response:  # noqa: A002
        given = parse_body(CredentialExtendInput, request)
        return self.answer(rotation.extend(credentials.find(id), actor=actor_of(request), **given))


class Revoke(ResourceView):
    resource = "credentials"

    @described(
        "Revoke one version at once and destroy its secret; name it while there are several",
        request=RevokeInput,
        response=RevokedOutput,
    )
    def post(self, request: Request, id: str) -> Response:  # noqa: A002
        credential = credentials.find(id)
        number = parse_body(RevokeInput, request).get("version") or versions.only(credential)
        left = rotation.revoke(credential, actor=actor_of(request), number=number)
        return Response({"revoked": number, "active": left.number if left else None})


class OneRotation(ResourceView):
    resource = "credentials"

    @described("Read the rotation under way, else the last one", response=RotationOutput)
    def get(self, request: Request, id: str) -> Response:  # noqa: A002
        return self.one(rotation_body(_last(credentials.find(id))))

    @described("Change the rules of a canary", request=RotationChanges, response=RotationOutput)
    def patch(self, request: Request, id: str) -> Response:  # noqa: A002
        changes = parse_body(RotationChanges, request, partial=True)
        with transaction.atomic():
            credential = versions.locked_credential(credentials.find(id))
            self.check_match(rotation_body(_last(credential)))
            row = rotation.change_rules(credential, actor=actor_of(request), changes=changes)
        return self.one(rotation_body(row))


def _last(credential: Credential) -> Rotation:
    row = versions.latest(credential)
    if row is None:
        raise NotFound(f"The credential {credential.name} was never rotated.")
    return row
