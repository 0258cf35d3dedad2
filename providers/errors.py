"""Errors of the upstream side. The HTTP status a client sees is chosen in conduit/proxy/errors.py alone.

UpstreamError                    anything that went wrong with one attempt
├── NotSent                      surely nothing was billed: the request never left
│   ├── ConnectFailed            DNS, TCP or TLS
│   └── EgressRefused            the address is not allowed by the egress policy
├── UpstreamTimeout              no answer in time; may be billed
├── UpstreamCut                  the connection broke while answering; may be billed
├── InvalidResponse              the answer is not what the wire format says; may be billed
└── UpstreamRefusal              the provider answered with an error (status >= 400 or an error in a stream)
    ├── AuthRejected             401/403: our credential
    ├── RateLimited              429: their limit
    ├── Overloaded               500, 502, 503, 529: their trouble
    └── RequestRejected          400, 404, 413, 422: the client's request
CannotCarry                      a request uses what this adapter cannot express (strict routes); names the field
"""

from __future__ import annotations

from conduit.core.errors import ConduitError


class UpstreamError(ConduitError):
    """`message` is safe to show (secrets masked by the caller). `billed` tells whether money may have been spent."""

    billed = "maybe"  # "no" | "maybe"
    code = "upstream_error"

    def __init__(self, message: str, *, status: int = 0, code: str = "", retry_after: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.code = code or type(self).code
        self.retry_after = retry_after


class NotSent(UpstreamError):
    billed = "no"
    code = "upstream_unavailable"


class ConnectFailed(NotSent):
    """DNS, TCP or TLS failed before a byte of the request left."""


class EgressRefused(NotSent):
    """The upstream's address is not one the egress policy allows."""

    code = "egress_refused"


class UpstreamTimeout(UpstreamError):
    code = "upstream_timeout"


class UpstreamCut(UpstreamError):
    code = "upstream_cut"


class InvalidResponse(UpstreamError):
    code = "upstream_invalid_response"


class UpstreamRefusal(UpstreamError):
    """The provider's own refusal: `status`, `message`, `code` and `param` are the provider's words."""

    billed = "no"

    def __init__(
        self, message: str, *, status: int, code: str = "", param: str | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message, status=status, code=code, retry_after=retry_after)
        self.param = param


class AuthRejected(UpstreamRefusal):
    code = "upstream_auth_failed"


class RateLimited(UpstreamRefusal):
    code = "upstream_rate_limited"


class Overloaded(UpstreamRefusal):
    code = "upstream_unavailable"


class RequestRejected(UpstreamRefusal):
    code = "invalid_request"


class CannotCarry(ConduitError):
    """`field` of the request has no counterpart in the adapter's wire format."""

    def __init__(self, field: str, detail: str) -> None:
        super().__init__(f"{field}: {detail}")
        self.field, self.detail = field, detail


def refusal(
    status: int, message: str, *, code: str = "", param: str | None = None, retry_after: float | None = None
) -> UpstreamRefusal:
    """The right class for an upstream's error status. Status decides; the message never does."""
    kind: type[UpstreamRefusal]
    if status in (401, 403):
        kind = AuthRejected
    elif status == 429:
        kind = RateLimited
    elif status >= 500:
        kind = Overloaded
    else:
        kind = RequestRejected
    return kind(message, status=status, code=code, param=param, retry_after=retry_after)
