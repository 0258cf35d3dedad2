"""What clients speak to us: parse their requests into canonical ones, render answers, streams and errors back.

May hold: one module per dialect and base.py. Pure: no I/O. Imports providers.adapters.types and proxy.errors.
The usual change: a new field of a dialect's request or answer.
"""
