#!/usr/bin/env python
"""Django's own command line with Conduit's settings, and every command of `conduit` beside it."""

import os
import sys

from django.core.management import execute_from_command_line

from conduit.cli.main import COMMANDS, main

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "conduit.settings")
    if sys.argv[1:2] and sys.argv[1] in COMMANDS:
        main()
    else:
        execute_from_command_line(sys.argv)
