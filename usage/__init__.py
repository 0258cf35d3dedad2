"""What happened and what it cost: prices, journal, ledger, reports.

May hold: price tables and arithmetic, the journal format, the shipper, usage events and rollups, reports.
Imports keys, providers, conduit.core. The usual change: a unit of pricing or a grouping of reports.
"""
