"""Who may call us, and how much: virtual keys, teams, customers, limits and budgets.

May hold: issuing and authentication of keys, admission limits, budgets and their periods.
Imports conduit.core and conduit.access; never providers or usage. The usual change: a limit of a key.
"""
