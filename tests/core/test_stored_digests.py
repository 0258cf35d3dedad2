"""What is stored of a secret is read alike whether it is there or not (V5)."""

from __future__ import annotations

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from conduit.access.models import ManagementToken
from conduit.access.tokens import create_token
from conduit.core.actor import SYSTEM
from conduit.core.stored_digests import NOBODY, stored_digest
from keys.issuing import create_key
from keys.models import KeySecret

pytestmark = pytest.mark.django_db


def test_a_secret_that_is_there_and_one_that_is_not_are_read_by_one_and_the_same_statement() -> None:
    _, key = create_key(actor=SYSTEM, name="app")
    _, token = create_token(actor=SYSTEM, name="deploy", role="auditor")
    for model, raw in ((KeySecret, key.reveal()), (ManagementToken, token.reveal())):
        with CaptureQueriesContext(connection) as seen:
            version, digest = stored_digest(model, raw[7:17])
            nothing = stored_digest(model, "NobodyHas1")
        assert (version, digest) == model.objects.values_list("pepper_version", "digest").get(public_id=raw[7:17])
        assert nothing == (0, NOBODY)
        assert (len(digest), version > 0) == (len(NOBODY), True)
        there, missing = [query["sql"] for query in seen.captured_queries]
        assert there.replace(raw[7:17], "NobodyHas1") == missing
        with connection.cursor() as cursor:
            cursor.execute(missing)
            assert cursor.fetchall() == [nothing], "a row to fetch there as well"
