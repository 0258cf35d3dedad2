"""The sandbox provider: a server of its own that answers like OpenAI, Anthropic and Gemini, and writes its own invoice.

May hold: wire formats, deterministic answers, scripted faults, the price list. Imports nothing of ours and no
Django, so that it stays an independent witness about money. The usual change: a fault in
faults.py, a model in answers.py.
"""
