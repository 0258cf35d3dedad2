"""The clients' side, a module per dialect, found by its name: the clients' own SDK over a transport without a network.

`completions` is the OpenAI dialect again, by another endpoint, with shapes of its own there and back.

DIALECT, ENDPOINT               what the path of its requests says

asked(feature, stream, before)  what the SDK sends for a feature, or None where the dialect has no words for it;
                                `before` is an earlier answer that goes back as the assistant's turn
seen(body, stream)              what the SDK makes of an answer: texts, calls, finish, usage, … (SHOWS)
expected(answer)                the same keys, of a canonical answer
"""
