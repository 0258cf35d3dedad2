"""What `conduit up` runs: the embedded engines, the supervisor, and the entry point of each child process.

May import conduit.settings and conduit.core; the supervisor itself never imports Django (it lives as long as
the installation and its memory counts). The usual change: one more child in `supervisor.children()`.
"""
