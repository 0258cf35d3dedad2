"""Every error a client of the proxy can see, with its HTTP status (contract 3). No status is chosen anywhere else.

ApiError is what the pipeline raises; each dialect renders it in its own shape. `type` and `code` are the OpenAI
dialect's words; the other dialects map `status` and `type`.
"""

from __future__ import annotations

from conduit.core.errors import ConduitError
from providers import errors as upstream


class ApiError(ConduitError):
    """`param` names the request's field. `headers` go on the answer (`retry-after`, `x-should-retry`).

    `elsewhere`: another candidate of the route may do what this one was refused. `cause`: what the books tell where the
    client is not to know.
    """

    elsewhere = False
    cause = ""

    def __init__(
        self,
        status: int,
        kind: str,
        code: str,
        message: str,
        *,
        param: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.type, self.code, self.message, self.param = status, kind, code, message, param
        self.headers: dict[str, str] = {}
        if retry_after is not None:
            self.headers["retry-after"] = str(max(1, -int(-retry_after // 1)))


class Withdrawn(upstream.UpstreamError):
    """What served a stream was revoked while it ran. `shown` is what the client is told."""

    def __init__(self, shown: ApiError) -> None:
        super().__init__(shown.message, status=shown.status, code=shown.code)
        self.shown = shown


class KeyWithdrawn(Withdrawn):
    """The caller's own key: no other attempt is made."""

    elsewhere = False


def key_withdrawn() -> KeyWithdrawn:
    message = "The API key was revoked or disabled while its answer was being streamed."
    return KeyWithdrawn(ApiError(401, "authentication_error", "invalid_api_key", message))


def credential_withdrawn() -> Withdrawn:
    message = "The gateway's credential behind this stream was revoked. Send the request again."
    return Withdrawn(ApiError(502, "api_error", "credential_revoked", message))


def bad_key() -> ApiError:
    """No key, unknown, disabled, expired and revoked are told alike."""
    return ApiError(401, "authentication_error", "invalid_api_key", "The API key is missing or not valid.")


def address_not_allowed() -> ApiError:
    return ApiError(403, "permission_error", "ip_not_allowed", "This key may not be used from your address.")


def model_not_allowed(model: str) -> ApiError:
    message = f"This key may not use the model {model!r}. GET /v1/models lists what it may use."
    return ApiError(403, "permission_error", "model_not_allowed", message, param="model")


def endpoint_not_allowed(endpoint: str) -> ApiError:
    return ApiError(403, "permission_error", "endpoint_not_allowed", f"This key may not use the endpoint {endpoint!r}.")


def model_not_found(model: str) -> ApiError:
    message = f"There is no model or route named {model!r}. GET /v1/models lists what this key may use."
    return ApiError(404, "invalid_request_error", "model_not_found", message, param="model")


def unknown_path(path: str) -> ApiError:
    return ApiError(404, "invalid_request_error", "unknown_url", f"There is no endpoint at {path}.")


def method_not_allowed(method: str) -> ApiError:
    return ApiError(405, "invalid_request_error", "method_not_allowed", f"{method} is not allowed here.")


def invalid_json(message: str) -> ApiError:
    return ApiError(400, "invalid_request_error", "invalid_json", message)


def invalid_value(field: str, message: str) -> ApiError:
    return ApiError(400, "invalid_request_error", "invalid_value", message, param=field or None)


def context_length_exceeded(message: str, field: str) -> ApiError:
    error = ApiError(400, "invalid_request_error", "context_length_exceeded", message, param=field)
    error.elsewhere = True
    return error


def cannot_carry(field: str, message: str) -> ApiError:
    """The provider has nothing like it; another one of the route may."""
    error = invalid_value(field, message)
    error.elsewhere = True
    return error


def telling(first: ApiError | None, second: ApiError) -> ApiError:
    """Which of two candidates' refusals the client is told: the first one, but a window that is too small says nothing
    where another model's would have done."""
    return second if first is None or first.code == upstream.TOO_LONG else first


def too_large(limit: int) -> ApiError:
    return ApiError(
        413, "invalid_request_error", "request_too_large", f"The request body is larger than {limit} bytes."
    )


def rate_limited(message: str, retry_after: float | None) -> ApiError:
    """`retry_after` None: waiting does not help."""
    error = ApiError(429, "rate_limit_error", "rate_limit_exceeded", message, retry_after=retry_after)
    if retry_after is None:
        error.headers["x-should-retry"] = "false"
    return error


def candidates_limited(route: str, retry_after: float | None) -> ApiError:
    """Every candidate is at the limit that an operator set for its provider or credential. None: it never fits."""
    message = f"Every provider of the route {route!r} is at its rate limit."
    error = ApiError(429, "rate_limit_error", "upstream_rate_limited", message, retry_after=retry_after)
    error.elsewhere = True
    if retry_after is None:
        error.headers["x-should-retry"] = "false"
    return error


def budget_exceeded(message: str) -> ApiError:
    error = ApiError(429, "insufficient_quota", "budget_exceeded", message)
    error.elsewhere = True
    error.headers["x-should-retry"] = "false"
    return error


def budget_busy(message: str) -> ApiError:
    return ApiError(429, "rate_limit_error", "budget_busy", message, retry_after=1)


def idempotency_key_reused() -> ApiError:
    message = "This idempotency key was used before with another request. Use a new one for a new request."
    return ApiError(422, "invalid_request_error", "idempotency_key_reused", message, param="idempotency-key")


def idempotency_in_flight(retry_after: float) -> ApiError:
    message = "The first request with this idempotency key is still under way. Repeat it later to get its answer."
    return ApiError(
        409, "invalid_request_error", "idempotency_in_flight", message, param="idempotency-key", retry_after=retry_after
    )


def idempotency_unavailable() -> ApiError:
    message = (
        "The gateway cannot tell whether this idempotency key was used before: its database cannot be reached. "
        "Nothing was sent to a provider."
    )
    return ApiError(503, "api_error", "idempotency_unavailable", message, retry_after=5)


def response_not_found(name: str) -> ApiError:
    """Deleted, past its time, never there and another tenant's are told alike."""
    return ApiError(404, "invalid_request_error", "not_found", f"Response with id {name[:100]!r} not found.")


def previous_response_not_found(name: str, reason: str) -> ApiError:
    message = f"Previous response with id {name[:100]!r} cannot be continued: {reason}. Send its items in input."
    return ApiError(400, "invalid_request_error", "previous_response_not_found", message, param="previous_response_id")


def conversation_too_large(limit: int) -> ApiError:
    message = f"The request with the conversation it continues is larger than {limit} bytes. Start a new one."
    return ApiError(413, "invalid_request_error", "request_too_large", message, param="previous_response_id")


def responses_unavailable() -> ApiError:
    message = (
        "Responses that are kept cannot be reached right now: the database is away. Nothing was sent to a provider."
    )
    return ApiError(503, "api_error", "responses_unavailable", message, retry_after=5)


def customer_blocked(name: str) -> ApiError:
    return ApiError(403, "permission_error", "customer_blocked", f"The customer {name!r} is blocked.", param="user")


def no_credential(route: str) -> ApiError:
    message = f"No provider of the route {route!r} has a usable credential right now."
    return ApiError(503, "api_error", "upstream_unavailable", message, retry_after=5)


def upstream_failing(route: str, seconds: float) -> ApiError:
    message = (
        f"The providers of the route {route!r} failed several times in a row and are left alone for the moment; one is "
        f"tried again in {max(1, round(seconds))} s."
    )
    return ApiError(503, "api_error", "upstream_unavailable", message, retry_after=seconds)


def upstream_waits(route: str, seconds: float) -> ApiError:
    message = (
        f"The providers of the route {route!r} are limiting requests and asked to wait, for {max(1, round(seconds))} s "
        "more."
    )
    return ApiError(429, "rate_limit_error", "upstream_rate_limited", message, retry_after=seconds)


def price_unknown(model: str) -> ApiError:
    message = (
        f"The model {model!r} has no price, and a hard budget applies. An operator can set one at POST /api/v1/prices."
    )
    error = ApiError(429, "insufficient_quota", "price_unknown", message, param="model")
    error.elsewhere = True
    error.headers["x-should-retry"] = "false"
    return error


def budget_unavailable() -> ApiError:
    message = "The gateway cannot decide about this key's budget right now: its database cannot be reached."
    return ApiError(503, "api_error", "budget_unavailable", message, retry_after=5)


def not_ready(message: str) -> ApiError:
    return ApiError(503, "api_error", "unavailable", message, retry_after=2)


def internal(request_id: str) -> ApiError:
    return ApiError(
        500, "api_error", "internal_error", f"The gateway failed; its log has the cause under {request_id}."
    )


def from_upstream(error: upstream.UpstreamError) -> ApiError:
    """The client's view of a failed attempt. Messages have their secrets masked before they come here."""
    if isinstance(error, Withdrawn):
        return error.shown
    if isinstance(error, upstream.AuthRejected):
        message = f"The provider rejected the gateway's credential: {error.message}"
        return ApiError(502, "api_error", "upstream_auth_failed", message)
    if isinstance(error, upstream.RateLimited):
        message = f"The provider is limiting requests: {error.message}"
        return ApiError(429, "rate_limit_error", "upstream_rate_limited", message, retry_after=error.retry_after or 1)
    if isinstance(error, upstream.RequestRejected):
        code = error.code if error.code != "invalid_request" else "upstream_rejected"
        return ApiError(error.status, "invalid_request_error", code, error.message, param=error.param)
    if isinstance(error, upstream.UpstreamTimeout):
        return ApiError(504, "api_error", "upstream_timeout", error.message)
    if isinstance(error, upstream.InvalidResponse | upstream.UpstreamCut):
        return ApiError(502, "api_error", "upstream_invalid_response", error.message)
    if isinstance(error, upstream.AccountEmpty):
        return _account_empty(error)
    return ApiError(503, "api_error", "upstream_unavailable", error.message, retry_after=error.retry_after or 1)


def answer_failed() -> ApiError:
    """The provider says itself that its answer came to nothing, without an error."""
    message = "The provider's model failed to make an answer. Send the request again."
    return ApiError(502, "api_error", "upstream_invalid_response", message)


def _account_empty(error: upstream.AccountEmpty) -> ApiError:
    message = "The provider does not serve the gateway's account at the moment; the operator can see why."
    shown = ApiError(503, "api_error", "upstream_unavailable", message, retry_after=error.retry_after or 60)
    shown.cause = error.message
    return shown
