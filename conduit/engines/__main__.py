"""`python -m conduit.engines`: what `conduit up` becomes. See conduit.engines.supervisor."""

from __future__ import annotations

import resource
import sys

from conduit.core.errors import ConfigurationError


def forbid_core_files() -> None:
    """For this process and all it starts: a core file of a web process would hold every provider's opened secret.

    Only the soft limit, so that whoever hunts a crash can still allow them to one process (`prlimit --core`).
    """
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))


if __name__ == "__main__":
    forbid_core_files()
    try:
        from conduit.engines import supervisor

        sys.exit(supervisor.main())
    except ConfigurationError as error:
        sys.stderr.write(f"conduit up: {error}\n")
        sys.exit(1)
