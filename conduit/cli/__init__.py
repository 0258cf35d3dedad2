"""The `conduit` command: one module per noun, registered by name in `main.COMMANDS` and imported only when it is used.

May import anything of the project, Django only inside a command (`main.django_ready()`). The usual change: one
module with a typer `app` or one function, and its line in `main.COMMANDS`.
"""
