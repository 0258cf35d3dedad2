"""Every error a client of the proxy can see, with its HTTP status (contract 3). No status is chosen anywhere else.

ApiError is what the pipeline raises; each dialect renders it in its own shape. `type` and `code` are the OpenAI
dialect's words; the other dialects map `status` and `type`.
"""

from __future__ import annotations

from conduit.core.errors import ConduitError
from providers import errors as upstream


class ApiError(ConduitError):
    """`param` names the request's field. `headers` go on the answer (`retry-after`, `x-should-retry`).

    `elsewhere`: another candidate of the route may do what this one was refused.
    """

    elsewhere = False

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


def customer_blocked(name: str) -> ApiError:
    return ApiError(403, "permission_error", "customer_blocked", f"The customer {name!r} is blocked.", param="user")


def no_credential(route: str) -> ApiError:
    message = f"No provider of the route {route!r} has a usable credential right now."
    return ApiError(503, "api_error", "upstream_unavailable", message, retry_after=5)


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
    return ApiError(503, "api_error", "upstream_unavailable", error.message, retry_after=error.retry_after or 1)
