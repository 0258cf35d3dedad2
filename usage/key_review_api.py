"""Management API: the stale-access review and its "shrink to what it used"."""

from __future__ import annotations

from typing import Any, ClassVar
from uuid import UUID

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from conduit.core.api import Flag, ResourceView, RFC3339Field, Strict, WholeNumber, actor_of, described, parsed
from conduit.core.clock import now, rfc3339
from conduit.core.errors import InvalidInput
from conduit.core.paging import DEFAULT, LARGEST
from keys.api import find_key
from keys.representation import state_of
from usage import key_review
from usage.key_review import DAYS, MOST_DAYS, Proposal, Reviewed


class ShrinkInput(Strict):
    days = WholeNumber(low=1, high=MOST_DAYS, required=False, help_text=f"{DAYS} when left out")
    budgets = Flag(required=False, help_text="tighten budgets too; else models and endpoints only")
    dry_run = Flag(required=False, help_text="only show what would change")


class ReviewRemark(serializers.Serializer[Any]):
    code = serializers.CharField(help_text=", ".join(key_review.CODES))
    detail = serializers.CharField()


class ReviewedKey(serializers.Serializer[Any]):
    id = serializers.UUIDField()
    name = serializers.CharField()
    team = serializers.UUIDField(allow_null=True)
    owner = serializers.CharField()
    state = serializers.CharField()
    created_at = RFC3339Field()
    expires_at = RFC3339Field(allow_null=True)
    last_used_at = RFC3339Field(allow_null=True)
    requests = serializers.IntegerField(help_text="served in these days")
    remarks = ReviewRemark(many=True)
    shrinkable = serializers.BooleanField()


class ShrinkOutput(serializers.Serializer[Any]):
    id = serializers.UUIDField()
    name = serializers.CharField()
    days = serializers.IntegerField()
    applied = serializers.BooleanField()
    before = serializers.DictField(help_text="the fields that change, as they are; a PATCH with it takes it back")
    after = serializers.DictField(help_text="as they become")


def reviewed_body(row: Reviewed) -> dict[str, Any]:
    key = row.key
    return {
        "id": str(key.id),
        "name": key.name,
        "team": str(key.team_id) if key.team_id else None,
        "owner": key.owner,
        "state": state_of(key, now()),
        "created_at": rfc3339(key.created_at),
        "expires_at": rfc3339(key.expires_at) if key.expires_at else None,
        "last_used_at": rfc3339(row.last_used_at) if row.last_used_at else None,
        "requests": row.used.requests,
        "remarks": [{"code": remark.code, "detail": remark.detail} for remark in row.remarks],
        "shrinkable": row.shrinkable,
    }


def proposal_body(proposal: Proposal, *, applied: bool) -> dict[str, Any]:
    return {
        "id": str(proposal.key.id),
        "name": proposal.key.name,
        "days": proposal.days,
        "applied": applied,
        "before": dict(proposal.before),
        "after": dict(proposal.after),
    }


class ReviewKeys(ResourceView):
    resource = "keys"
    query: ClassVar[frozenset[str]] = frozenset({"days"})

    @described(
        "List keys that are unused, about to end, wider than their use, or nobody's",
        response=ReviewedKey,
        many=True,
        query={"days": f"how far back use counts, {DAYS} when left out"},
    )
    def get(self, request: Request) -> Response:
        actor, asked = actor_of(request), request.query_params
        days = key_review.parse_days(asked["days"]) if "days" in asked else DAYS
        found = key_review.review(actor, days=days, before=_cursor(asked.get("cursor")), limit=_limit(asked))
        rows = [reviewed_body(row) for row in found.rows]
        return Response({"data": rows, "next": found.cursor.hex if found.cursor else None})


def _cursor(text: str | None) -> UUID | None:
    if not text:
        return None
    try:
        return UUID(text)
    except ValueError:
        raise InvalidInput("cursor", "Is not a cursor of this list.", "invalid_cursor") from None


def _limit(asked: Any) -> int:
    text = asked.get("limit", str(DEFAULT))
    if not (text.isascii() and text.isdigit() and len(text) <= 4 and 1 <= int(text) <= LARGEST):
        raise InvalidInput("limit", f"Must be a whole number from 1 to {LARGEST}.", "out_of_range")
    return int(text)


class ShrinkKey(ResourceView):
    resource = "keys"

    @described("Shrink a key to what it used", request=ShrinkInput, response=ShrinkOutput)
    def post(self, request: Request, key_id: UUID) -> Response:
        actor, body = actor_of(request), parsed(ShrinkInput, request)
        key, days, with_budgets = find_key(actor, key_id), body.get("days", DAYS), body.get("budgets", False)
        if body.get("dry_run", False):
            shown = key_review.proposal(key, days=days, with_budgets=with_budgets)
            return Response(proposal_body(shown, applied=False))
        done = key_review.shrink(key, actor=actor, days=days, with_budgets=with_budgets)
        return Response(proposal_body(done, applied=bool(done.after)))
