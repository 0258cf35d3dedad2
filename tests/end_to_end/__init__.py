"""Tests of the whole installation: `conduit up` as its own processes, on a data directory of its own."""
