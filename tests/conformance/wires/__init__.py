"""The providers' side, a module per wire format, found by its name; kind_wire.py where a kind has ways of its own.

facts(request)   validates an UpstreamRequest with the provider's own types, and says what it says (tests.conformance)
whole(answer)    the provider's JSON for a canonical answer
stream(answer)   the provider's whole stream for the same answer

Wire formats with embeddings: vectors_asked(request) -> {"inputs": [text], "dimensions": n}, and
vectors(values, tokens, asked=what vectors_asked said) -> the provider's JSON.

MODEL   the provider's own name of a model that can do most; "some-model" where it is absent
LACKS   capabilities that this wire format has no place for, for kinds that speak several; and features that no
        capability names, such as "thoughts_back" where thoughts have no signature
HAS     capabilities that it has at every vendor that offers it, whatever the vendor's row claims of chats
TELLS   what of a usage it can say: names of `Usage` fields; everything but one-hour writes where it is absent
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from types import ModuleType


def lacks(wire: ModuleType) -> frozenset[str]:
    return getattr(wire, "LACKS", frozenset())


@cache
def wire_module(kind: str, wire: str) -> ModuleType:
    """The module of a kind's own way with a wire format (kind_wire.py) where there is one, else of the wire format.
    Raises AssertionError without any."""
    for name in (f"{kind}_{wire}", str(wire)):
        try:
            return import_module(f"tests.conformance.wires.{name}")
        except ModuleNotFoundError as error:
            if error.name != f"tests.conformance.wires.{name}":
                raise
    raise AssertionError(f"no module tests/conformance/wires/{wire}.py judges what goes to {kind}")
