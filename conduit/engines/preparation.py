"""What has to be done before the web processes start: migrations, static files, the first run.

`python -m conduit.engines.preparation` prints one JSON list on standard output, the lines that `conduit up` then
prints, and exits 0; or says on standard error why not and exits 1.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import sys
from pathlib import Path

import django
from django.conf import settings
from django.contrib.staticfiles.finders import get_finders
from django.core.management import call_command
from django.db import DatabaseError, connection
from django.db.migrations.executor import MigrationExecutor

from conduit.core.errors import ConfigurationError
from conduit.core.logs import configure


def migrate() -> None:
    """Applies what is missing. Two nodes that start at once take turns."""
    executor = MigrationExecutor(connection)
    if not executor.migration_plan(executor.loader.graph.leaf_nodes()):
        return
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(hashtext('conduit migrations'))")
        try:
            call_command("migrate", interactive=False, verbosity=0)
        finally:
            cursor.execute("SELECT pg_advisory_unlock(hashtext('conduit migrations'))")


def check_keys() -> None:
    """Says once, before any web process starts, which key-encryption key is missing or wrong."""
    importlib.import_module("conduit.core.keyring").check_database()  # has models: not before django.setup()


def collect_static() -> None:
    """Fills STATIC_ROOT when a source file changed since the last time."""
    stamp = Path(settings.CONDUIT_HOME) / "run" / "static.stamp"
    digest = _static_digest()
    if stamp.exists() and stamp.read_text() == digest and Path(settings.STATIC_ROOT).is_dir():
        return
    call_command("collectstatic", interactive=False, verbosity=0, clear=True)
    stamp.write_text(digest)


def _static_digest() -> str:
    known = hashlib.sha256(str(settings.STATIC_ROOT).encode())
    for finder in get_finders():
        for path, storage in finder.list(ignore_patterns=[]):
            found = os.stat(storage.path(path))
            known.update(f"{path}\0{found.st_size}\0{found.st_mtime_ns}\n".encode())
    return known.hexdigest()


def main() -> int:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "conduit.settings")
    try:
        configure()
        django.setup()
        migrate()
        check_keys()
        collect_static()
        lines: list[str] = importlib.import_module("conduit.console.bootstrap").bootstrap()  # needs the apps
    except ConfigurationError as error:
        sys.stderr.write(f"conduit up: {error}\n")
        return 1
    except DatabaseError as error:
        sys.stderr.write(
            f"conduit up: the database refuses: {str(error).strip().splitlines()[0]}. Check DATABASE_URL.\n"
        )
        return 1
    sys.stdout.write(json.dumps(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
