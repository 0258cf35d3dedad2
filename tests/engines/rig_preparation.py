"""Stands where conduit.engines.preparation does, for the rig: nothing to migrate, one line to print."""

import sys

sys.stdout.write('["console: rig"]\n')
