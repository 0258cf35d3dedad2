"""The Django project: settings, URLs, the ASGI entry and the packages every app builds on.

May hold: project wiring and the sub-packages core, engines, access, proxy, console, cli.
Imports: see the layers in pyproject.toml. The usual change: a new setting or URL prefix.
"""

__version__ = "0.1.0"
