"""Who operates Conduit: users, roles, management tokens, sign-in.

May hold: the user model, roles and permissions, token authentication. Imports conduit.core only.
The usual change: a permission of a role in permissions.py.
"""
