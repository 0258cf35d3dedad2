"""Whom we call, with which secret, in which wire format.

May hold: providers, credentials and their vault, routes, the adapter layer, upstream transport and egress policy.
Imports conduit.core and conduit.access; never keys or usage. The usual change: a row in adapters/registry.py.
"""
