"""The project's own benchmarks: `make bench`. The rig and its rules are in README.md beside this file."""
