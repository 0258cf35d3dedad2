"""The part of curl that the documentation uses: URL, -s, -H, -d. Fails on an error status, as `curl --fail` does."""

from __future__ import annotations

import argparse
import sys

import httpx


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("-s", action="store_true")
    parser.add_argument("-H", dest="headers", action="append", default=[])
    parser.add_argument("-d", dest="data")
    asked = parser.parse_args()
    headers = [tuple(header.split(": ", 1)) for header in asked.headers]
    method = "GET" if asked.data is None else "POST"
    with httpx.Client(trust_env=False, timeout=20) as client:
        answer = client.request(method, asked.url, headers=headers, content=asked.data)
    sys.stdout.write(answer.text + "\n")
    return 22 if answer.is_error else 0


if __name__ == "__main__":
    sys.exit(main())
