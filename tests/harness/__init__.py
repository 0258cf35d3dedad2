"""What tests stand on: engines, the sandbox provider as a process, the chaos proxy, the invoice reader.

May hold: rigs that several test folders use, each with a small test of its own. The usual change:
a new kind of weather.
"""
