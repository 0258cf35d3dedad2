"""What of a credential must not appear in any message. Pure: the in-process client masks what the gateway does."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from conduit.core.secret import Secret

_PUBLIC = frozenset(
    ["access_key_id", "role_arn", "tenant_id", "client_id", "project_id", "client_email", "type", "universe_domain"]
    + ["auth_uri", "token_uri", "auth_provider_x509_cert_url", "client_x509_cert_url"]
    + ["identity", "audience", "subject_token_type", "token_url", "token_info_url", "service_account_impersonation_url"]
    + ["quota_project_id", "workforce_pool_user_project", "environment_id", "file", "url", "subject_token_field_name"]
)


def masks(fields: Mapping[str, str]) -> list[Secret]:
    """Every value but what only says whose it is, and every text inside one that is a JSON object, however deep."""
    texts = [text for name, text in fields.items() if name not in _PUBLIC]
    for text in list(texts):
        if text.startswith("{"):
            with suppress(ValueError):
                texts += _inside(json.loads(text))
    return [Secret(text) for text in texts if text]


def _inside(found: Mapping[str, Any]) -> list[str]:
    """Texts of an object and of the objects in it."""
    texts: list[str] = []
    for name, part in found.items():
        if isinstance(part, Mapping):
            texts += _inside(part)
        elif isinstance(part, str) and name not in _PUBLIC:
            texts.append(part)
    return texts
