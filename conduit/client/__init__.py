"""The in-process client: scripts call any provider, or a gateway, without a server of their own.

    from conduit.client import connect

    with connect("gpt-4o-mini", api_key="sk-…") as model:
        print(model.call("Say hello.").text)
        for piece in model.stream("Count to three."):
            print(piece, end="")
        answers = model.batch(["One?", "Two?"], concurrency=4)
        print(model.list_models())

It speaks through the same adapters as the gateway, but holds no budget and keeps no record: with a virtual key
(`cdt_vk_…`) it calls the gateway, which does both.
"""

from __future__ import annotations

from conduit.client.answers import Answer, CallFailed, Failed, Stream
from conduit.client.model import Model, connect

__all__ = ["Answer", "CallFailed", "Failed", "Model", "Stream", "connect"]
