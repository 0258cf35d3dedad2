"""Management API: providers, their kinds, credentials and routes (contract 4)."""

from __future__ import annotations

from typing import Any, ClassVar

from django.db import transaction
from rest_framework.request import Request
from rest_framework.response import Response

from conduit.core.api import ResourceView, actor_of, described, page, parsed
from conduit.core.budgeting import decided
from providers import credentials, listing, providers, routes
from providers import representations as shapes
from providers.adapters.registry import KINDS
from providers.models import Credential, Provider, Route
from providers.rotation_shapes import VersionOutput, version_body
from providers.secret_fields import parse_fields
from providers.versions import locked_credential


class Providers(ResourceView):
    resource = "providers"
    query: ClassVar[frozenset[str]] = frozenset({"kind"})

    @described("List providers", response=shapes.ProviderOutput, many=True, query={"kind": "only of this kind"})
    def get(self, request: Request) -> Response:
        rows = Provider.objects.all()
        if kind := request.query_params.get("kind"):
            rows = rows.filter(kind=kind)
        actor = actor_of(request)
        return page(request, rows, serialize_all=lambda found: shapes.provider_bodies(found, actor), key=("name",))

    @described("Add a provider", request=shapes.ProviderInput, response=shapes.ProviderOutput, status=201)
    def post(self, request: Request) -> Response:
        row = providers.add_provider(actor=actor_of(request), **parsed(shapes.ProviderInput, request))
        body = _body(row, request)
        return self.one(body, status=201, version=decided(body))


def _body(row: Provider, request: Request) -> dict[str, Any]:
    return shapes.provider_bodies([row], actor_of(request))[0]


class OneProvider(ResourceView):
    resource = "providers"

    @described("Read a provider", response=shapes.ProviderOutput)
    def get(self, request: Request, id: str) -> Response:  # noqa: A002  # the contract's name
        body = _body(providers.find(id), request)
        return self.one(body, version=decided(body))

    @described("Change a provider", request=shapes.ProviderChanges, response=shapes.ProviderOutput)
    def patch(self, request: Request, id: str) -> Response:  # noqa: A002
        changes = parsed(shapes.ProviderChanges, request, partial=True)
        with transaction.atomic():
            row = providers.locked(providers.find(id))
            self.check_match(decided(_body(row, request)))
            body = _body(providers.update_provider(row, actor=actor_of(request), changes=changes), request)
        return self.one(body, version=decided(body))

    @described("Delete a provider that nothing uses", status=204)
    def delete(self, request: Request, id: str) -> Response:  # noqa: A002
        with transaction.atomic():
            row = providers.locked(providers.find(id))
            self.check_match(decided(_body(row, request)))
            providers.delete_provider(row, actor=actor_of(request))
        return Response(status=204)


class ProviderTest(ResourceView):
    resource = "providers"

    @described("Verify every enabled credential", request=shapes.Nothing, response=shapes.VerifiedAllOutput)
    def post(self, request: Request, id: str) -> Response:  # noqa: A002
        parsed(shapes.Nothing, request)
        return Response(shapes.verified_body(credentials.verify_all(providers.find(id), actor=actor_of(request))))


class ProviderModels(ResourceView):
    resource = "providers"

    @described("Ask the provider for its models", response=shapes.ListedModels)
    def get(self, request: Request, id: str) -> Response:  # noqa: A002
        return Response({"data": [{"id": name} for name in listing.list_models(providers.find(id))]})


class ProviderKinds(ResourceView):
    resource = "providers"

    @described("List the kinds of providers", response=shapes.KindsOutput)
    def get(self, request: Request) -> Response:
        return Response({"data": [shapes.kind_body(row) for row in KINDS.values()]})


class Credentials(ResourceView):
    resource = "credentials"

    @described("List a provider's credentials", response=shapes.CredentialOutput, many=True)
    def get(self, request: Request, id: str) -> Response:  # noqa: A002
        provider = providers.find(id)
        rows = Credential.objects.filter(provider=provider).select_related("provider")
        return page(request, rows.prefetch_related(*shapes.PREFETCH), serialize=shapes.credential_body, key=("name",))

    @described(
        f"Add a credential. {shapes.NEVER_SHOWN} `verify` false saves it without a call.",
        request=shapes.CredentialInput,
        response=shapes.CredentialOutput,
        status=201,
    )
    def post(self, request: Request, id: str) -> Response:  # noqa: A002
        provider = providers.find(id)
        given = parsed(shapes.CredentialInput, request)
        given["fields"] = parse_fields(
            providers.kind_of(provider), secret=given.pop("secret", None), fields=given.pop("fields", None)
        )
        row = credentials.add_credential(provider, actor=actor_of(request), **given)
        return self.one(shapes.credential_body(row), status=201, version=_version(row))


def _version(row: Credential) -> dict[str, Any]:
    """What If-Match protects: what a PATCH may change, not what checks and use note down."""
    return {"id": row.id, **credentials.describe(row)}


class OneCredential(ResourceView):
    resource = "credentials"

    @described("Read a credential, without its secret", response=shapes.CredentialOutput)
    def get(self, request: Request, id: str) -> Response:  # noqa: A002
        row = credentials.find(id)
        return self.one(shapes.credential_body(row), version=_version(row))

    @described(
        "Change a credential, not its secret", request=shapes.CredentialChanges, response=shapes.CredentialOutput
    )
    def patch(self, request: Request, id: str) -> Response:  # noqa: A002
        changes = parsed(shapes.CredentialChanges, request, partial=True)
        with transaction.atomic():
            row = locked_credential(credentials.find(id))
            self.check_match(_version(row))
            row = credentials.update_credential(row, actor=actor_of(request), changes=changes)
        return self.one(shapes.credential_body(row), version=_version(row))

    @described("Delete a credential with its secrets", status=204)
    def delete(self, request: Request, id: str) -> Response:  # noqa: A002
        with transaction.atomic():
            row = credentials.find(id)
            self.check_match(_version(row))
            credentials.delete_credential(row, actor=actor_of(request))
        return Response(status=204)


class Versions(ResourceView):
    resource = "credentials"

    @described("List a credential's versions, newest first", response=VersionOutput, many=True)
    def get(self, request: Request, id: str) -> Response:  # noqa: A002
        rows = credentials.find(id).versions.prefetch_related("fields")
        return page(request, rows, serialize=version_body, key=("-number",))


class Routes(ResourceView):
    resource = "routes"

    @described("List routes", response=shapes.RouteOutput, many=True)
    def get(self, request: Request) -> Response:
        rows = Route.objects.prefetch_related("targets__provider")
        return page(request, rows, serialize=shapes.route_body, key=("name",))

    @described("Add a route", request=shapes.RouteInput, response=shapes.RouteOutput, status=201)
    def post(self, request: Request) -> Response:
        row = routes.add_route(actor=actor_of(request), **parsed(shapes.RouteInput, request))
        return self.one(shapes.route_body(row), status=201)


class OneRoute(ResourceView):
    resource = "routes"

    @described("Read a route", response=shapes.RouteOutput)
    def get(self, request: Request, name: str) -> Response:
        return self.one(shapes.route_body(routes.find(name)))

    @described("Change a route", request=shapes.RouteInput, response=shapes.RouteOutput)
    def patch(self, request: Request, name: str) -> Response:
        changes = parsed(shapes.RouteInput, request, partial=True)
        with transaction.atomic():
            row = routes.locked(routes.find(name))
            self.check_match(shapes.route_body(row))
            row = routes.update_route(row, actor=actor_of(request), changes=changes)
        return self.one(shapes.route_body(row))

    @described("Delete a route", status=204)
    def delete(self, request: Request, name: str) -> Response:
        with transaction.atomic():
            row = routes.locked(routes.find(name))
            self.check_match(shapes.route_body(row))
            routes.delete_route(row, actor=actor_of(request))
        return Response(status=204)
