"""`python -m conduit.engines`: what `conduit up` becomes. See conduit.engines.supervisor."""

from __future__ import annotations

import sys

from conduit.core.errors import ConfigurationError

if __name__ == "__main__":
    try:
        from conduit.engines import supervisor

        sys.exit(supervisor.main())
    except ConfigurationError as error:
        sys.stderr.write(f"conduit up: {error}\n")
        sys.exit(1)
