"""One suite over kind × wire format × client dialect × feature × way of delivery, generated from the rows' claims.

facts.py      what is asked for and answered, feature by feature, without any wire format
wires/        the providers' side, one module per wire format, judged by the providers' own SDKs
dialects/     the clients' side, one module per dialect, written and read with the clients' own SDKs
cells.py      what became of one feature between a client and a kind of provider
"""
