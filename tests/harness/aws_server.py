"""AWS services as moto answers them, on a loopback port."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import httpx


@contextmanager
def running_aws() -> Iterator[str]:
    """The endpoint's URL. Nothing is asked of AWS itself; any access key is taken."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        server.stop()


def kms_key(endpoint: str, region: str) -> str:
    """The ARN of a new symmetric key."""
    scope = f"AKIDEXAMPLE/20260101/{region}/kms/aws4_request"
    headers = {
        "X-Amz-Target": "TrentService.CreateKey",
        "Content-Type": "application/x-amz-json-1.1",
        "Authorization": f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=0",
    }
    answer = httpx.post(endpoint, json={}, headers=headers, timeout=30, trust_env=False)
    arn: str = answer.json()["KeyMetadata"]["Arn"]
    return arn
