"""Wire formats, pure: bytes and canonical types in and out. No I/O, no clock, no Django.

May hold: one module per protocol, the canonical types, the SSE reader, the registry of provider kinds.
Imports nothing of ours but adapters.* and providers.errors. The usual change: one row in registry.py.
"""
