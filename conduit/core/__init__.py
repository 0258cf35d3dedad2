"""The kernel: money, ids, secrets, clock, key ring, audit, epoch. Every app may import it; it imports none of them.

May hold: small types and functions that mean the same everywhere. The usual change: none; add here last.
"""
