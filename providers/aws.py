"""AWS beside the model calls: secrets from Secrets Manager, temporary keys of a role, and whose keys they are.

Calls go through botocore with a deadline, once, with no proxy of the environment and no redirect. The gateway's own
identity (environment, profile, container or instance role: botocore's usual chain) reads secrets; a credential's own
keys assume its role. CONDUIT_AWS_ENDPOINT replaces AWS's addresses, for a private endpoint or a local server.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Mapping
from contextlib import closing
from datetime import datetime
from functools import lru_cache
from typing import Any

import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError
from botocore.parsers import ResponseParserError
from django.conf import settings

from conduit.core.clock import now
from conduit.core.secret import Secret, mask
from providers.kept import Unavailable

SECONDS = 2.0
SESSION_NAME = "conduit"
_REGION = re.compile(r"[a-z0-9-]{3,32}", re.ASCII)
_PUBLIC = frozenset(["access_key_id", "role_arn"])
_REJECTED = frozenset(
    ["AuthFailure", "ExpiredToken", "ExpiredTokenException"]
    + ["InvalidClientTokenId", "SignatureDoesNotMatch", "UnrecognizedClientException"]
)
_DENIED = frozenset(["AccessDenied", "AccessDeniedException"])  # the keys are good, and may not do this


class Rejected(Unavailable):
    """AWS does not take these keys, or there are none."""


def _client(service: str, region: str, endpoint: str, keys: Mapping[str, str] | None = None) -> Any:
    """Of Conduit's own identity without `keys`."""
    if not _REGION.fullmatch(region):
        raise Unavailable("No AWS region is known.", "Set the provider's region, or AWS_REGION for Secrets Manager.")
    # The defaults of the machine's AWS configuration must not move a call elsewhere.
    config = Config(
        connect_timeout=SECONDS,
        read_timeout=SECONDS,
        retries={"total_max_attempts": 1},
        proxies={},
        ignore_configured_endpoint_urls=True,
        parameter_validation=True,
    )
    try:
        return botocore.session.get_session().create_client(
            service,
            region_name=region,
            endpoint_url=endpoint or None,
            config=config,
            aws_access_key_id=keys["access_key_id"] if keys else None,
            aws_secret_access_key=keys["secret_access_key"] if keys else None,
            aws_session_token=(keys.get("session_token") or None) if keys else None,
        )
    except (BotoCoreError, ValueError) as error:
        raise _set_up_wrongly(error) from None


def _set_up_wrongly(error: Exception) -> Unavailable:
    return Unavailable(
        f"AWS cannot be asked: {error}"[:300], "Correct the AWS_… variables or the profile of Conduit's processes."
    )


def _own_region() -> str:
    try:
        return str(botocore.session.get_session().get_config_variable("region") or "")
    except BotoCoreError as error:
        raise _set_up_wrongly(error) from None


_own_client = lru_cache(maxsize=16)(_client)
_making = threading.Lock()


def _as_itself(service: str, region: str, operation: str, **arguments: Any) -> dict[str, Any]:
    """With Conduit's own identity. Its client is kept: making one costs more than the call, and it renews a role's keys
    by itself. Keys that are refused are looked for anew by the next call, for they may have been replaced on disk."""
    with _making:
        client = _own_client(service, region, settings.CONDUIT_AWS_ENDPOINT)
    try:
        return _call(client, operation, [], **arguments)
    except Rejected:
        _own_client.cache_clear()
        raise


def _with_keys(keys: Mapping[str, str], region: str, operation: str, **arguments: Any) -> dict[str, Any]:
    """Asks STS with a credential's own keys."""
    told = [Secret(text) for name, text in keys.items() if name not in _PUBLIC]
    with closing(_client("sts", region, settings.CONDUIT_AWS_ENDPOINT, keys)) as client:
        return _call(client, operation, told, **arguments)


def _call(client: Any, operation: str, secrets: list[Secret], **arguments: Any) -> dict[str, Any]:
    """`secrets`: what no message may quote."""
    try:
        answer: dict[str, Any] = getattr(client, operation)(**arguments)
    except ClientError as error:
        told = error.response.get("Error", {})
        code, message = str(told.get("Code", "")), mask(str(told.get("Message", "")), secrets)[:300]
        kind = Rejected if code in _REJECTED else Unavailable
        raise kind(f"AWS answers {code}: {message}", _fix(code)) from None
    except NoCredentialsError:
        raise Rejected(
            "Conduit has no AWS identity of its own.", "Give its processes a role, or AWS_ACCESS_KEY_ID and its secret."
        ) from None
    except (BotoCoreError, ResponseParserError) as error:
        raise Unavailable(
            f"AWS could not be asked ({type(error).__name__}).",
            "Check the network, the region and CONDUIT_AWS_ENDPOINT.",
        ) from None
    return answer


def _fix(code: str) -> str:
    if code == "ResourceNotFoundException":
        return "Check the secret's name and region."
    return "Check the keys and the policy that they need." if code in _REJECTED | _DENIED else ""


# --- Secrets Manager -----------------------------------------------------------------------------------------------


def read_secret(place: str) -> str:
    """The text of `NAME-OR-ARN`, or of one key of it with `#KEY`. Raises Unavailable."""
    name, _, key = place.partition("#")
    region = name.split(":")[3] if name.startswith("arn:") and name.count(":") >= 6 else ""
    found = _as_itself("secretsmanager", region or _own_region(), "get_secret_value", SecretId=name)
    text = found.get("SecretString")
    if not isinstance(text, str):
        raise Unavailable("The secret is binary.", "Store it as text.")
    if not key:
        return text
    try:
        inner = json.loads(text)
    except ValueError:
        inner = None
    value = inner.get(key) if isinstance(inner, dict) else None
    if not isinstance(value, str):
        raise Unavailable(f"The secret is not a JSON object with a text named {key}.", "Check the key's name after #.")
    return value


# --- its own identity ----------------------------------------------------------------------------------------------


def own_keys() -> tuple[str, str, str, str]:
    """(key id, secret, session token, region) of Conduit's own AWS identity, for a proof of who it is. Raises
    Unavailable."""
    try:
        found = botocore.session.get_session().get_credentials()
        keys = found.get_frozen_credentials() if found is not None else None
    except BotoCoreError as error:
        raise _set_up_wrongly(error) from None
    if keys is None:
        raise Rejected(
            "Conduit has no AWS identity of its own.", "Give its processes a role, or AWS_ACCESS_KEY_ID and its secret."
        )
    region = _own_region()
    if not region:
        raise Unavailable("No AWS region is known.", "Set AWS_REGION for Conduit's processes.")
    return keys.access_key, keys.secret_key, keys.token or "", region


# --- STS -----------------------------------------------------------------------------------------------------------


def assume_role(keys: Mapping[str, str], region: str) -> tuple[dict[str, str], float]:
    """Temporary keys of `role_arn`, and the seconds that they last. Raises Unavailable."""
    more = {"ExternalId": keys["external_id"]} if keys.get("external_id") else {}
    answer = _with_keys(keys, region, "assume_role", RoleArn=keys["role_arn"], RoleSessionName=SESSION_NAME, **more)
    found = answer["Credentials"]
    ends: datetime = found["Expiration"]
    temporary = {
        "access_key_id": found["AccessKeyId"],
        "secret_access_key": found["SecretAccessKey"],
        "session_token": found["SessionToken"],
    }
    return temporary, max(0.0, (ends - now()).total_seconds())


def account_of(keys: Mapping[str, str], region: str) -> str:
    """The number of the AWS account that the keys belong to. Raises Unavailable."""
    return str(_with_keys(keys, region, "get_caller_identity")["Account"])
