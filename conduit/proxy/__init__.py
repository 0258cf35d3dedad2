"""The data plane: from a client's bytes to an upstream's and back, metered. Asynchronous; never touches the ORM.

May hold: the lean ASGI handler, the DRF view, the pipeline and its steps, dialects, snapshot, settlement.
Imports usage, keys, providers, conduit.core. The usual change: a dialect feature in dialects/.
"""
