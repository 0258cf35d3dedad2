"""`python -m providers.sandbox --port N [--host 127.0.0.1] --invoice PATH`.

Prints one line, `sandbox: URL`, when it chose its port itself (`--port 0`). Exit codes: 0 after SIGTERM
or SIGINT, 1 when it cannot listen, 2 for wrong use.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import time
from pathlib import Path

import uvloop

from providers.sandbox.connection import Connection
from providers.sandbox.faults import FaultError, Faults, faults_from_environment
from providers.sandbox.invoice import Invoice
from providers.sandbox.server import Sandbox


async def serve(host: str, port: int, invoice: Invoice, faults: Faults) -> None:
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    sandbox = Sandbox(invoice, faults, run=f"{time.time_ns() // 1000:x}")
    server = await loop.create_server(lambda: Connection(sandbox.answer), host, port, backlog=1024)
    address = server.sockets[0].getsockname()
    if not port:
        sys.stdout.write(f"sandbox: http://{host}:{address[1]}\n")
        sys.stdout.flush()
    await stopped.wait()
    server.close()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m providers.sandbox", description="The sandbox provider.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True, help="0 takes a free one")
    parser.add_argument("--invoice", type=Path, required=True, help="JSON lines, appended to")
    arguments = parser.parse_args()
    try:
        faults = faults_from_environment(os.environ.get("SANDBOX_FAULTS", ""))
        invoice = Invoice(arguments.invoice)
    except (FaultError, OSError) as error:
        sys.stderr.write(f"sandbox: {error}\n")
        return 2
    try:
        uvloop.run(serve(arguments.host, arguments.port, invoice, faults))
    except OSError as error:
        sys.stderr.write(f"sandbox: cannot listen on {arguments.host}:{arguments.port}: {error.strerror or error}\n")
        return 1
    finally:
        invoice.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
