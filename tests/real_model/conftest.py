"""One gateway for the tests of a module, and the SDKs pointed at it, as in tests/sdk."""

from tests.sdk.conftest import committed, gateway, talkers

__all__ = ["committed", "gateway", "talkers"]
