"""Writes docs/providers/matrix.md from what the conformance suite finds: `.venv/bin/python -P -m tests.docs.matrix`."""

from __future__ import annotations

import os
from collections.abc import Iterator

import django

from tests.docs import pages

PAGE = "docs/providers/matrix.md"
MARKS = {"carried": "✓", "named": "–", "unsaid": ""}
HEAD = """# What reaches whom

A client speaks one dialect, a provider one wire format; this page says what survives the way between them, there and
back, streamed and whole. It is written by `.venv/bin/python -P -m tests.docs.matrix` out of the conformance suite: each
mark is a test's finding, and the suite fails when the page is out of date.

- ✓ it reaches the provider, judged by the provider's own types, and its answer the client, read by the client's own SDK
- – the provider's kind does not do it: the field is named in `x-conduit-dropped-params`, or the request is refused with
  400 and the field's name. Two marks mean less: a citation or a second call in one answer is what a provider never
  sends, and a mark for the prompt cache is left out without a word, because no answer changes by it.
- empty: the dialect has no words for it

A kind with several wire formats has a row for each. What a kind can do, a single model may not.

## The test behind a mark

The row KIND, WIRE in the table of a DIALECT is proved by two tests, one for whole answers and one for streams; a
failure
lists the features (the columns) that are wrong:

```sh
.venv/bin/pytest -n0 tests/conformance/test_conformance.py -k "KIND-WIRE-DIALECT-"
```

For example `-k "anthropic-anthropic-gemini-"` is Claude called by Google's SDK. Embeddings have tests of their own:
`tests/conformance/test_conformance.py -k test_embeddings`.
"""
COLUMNS = {
    "one_tool_at_a_time": "one tool at a time",
    "ends_at_cap": "ends at the cap",
    "ends_filtered": "ends filtered",
    "best_of": "best_of",
}
TITLES = {
    "openai": "Chat completions",
    "responses": "Responses",
    "anthropic": "Messages",
    "gemini": "generateContent",
    "completions": "Completions",
}
NOTES = {
    "completions": """\
Only what this endpoint has words for has a column. A provider that serves it gets the request as it is, less what its
kind does not do; of any other one the prompt is asked as a chat. Where only some models of a kind have the endpoint,
the row of one of them stands last, with the model in its tests' names: `-k "KIND-WIRE-MODEL-completions-"`.
"""
}


def _tables() -> Iterator[str]:
    from conduit.proxy.dialects.registry import DIALECTS
    from providers.adapters.types import Endpoint
    from tests.conformance import cells
    from tests.conformance.facts import EVERY, FEATURES

    for dialect in cells.CLIENTS:
        lines = [line for line in cells.lines_for(dialect) if Endpoint.CHAT in line.row.endpoints]
        asked = cells.client(dialect).asked
        features = list(FEATURES.values())
        if dialect not in DIALECTS:
            features = [feature for name, feature in EVERY.items() if asked(name, stream=False) is not None]
        names = [COLUMNS.get(one.name, one.name.replace("_", " ")) for one in features]
        rows = [["kind, wire", *names], ["---", *([":-:"] * len(names))]]
        for line in lines:
            found = [MARKS[cells.outcome(line, dialect, feature, feature.modes[-1])] for feature in features]
            rows.append([", ".join(filter(None, (line.kind, line.dialect.value, line.model))), *found])
        table = "\n".join("| " + " | ".join(row) + " |" for row in rows)
        notes = f"{NOTES[dialect]}\n" if dialect in NOTES else ""
        yield f"## {TITLES[dialect]} (`{dialect}`)\n\n{notes}{table}\n"


def page() -> str:
    return "\n".join([HEAD, *_tables()])


if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "conduit.settings")
    django.setup()
    (pages.ROOT / PAGE).parent.mkdir(exist_ok=True)
    (pages.ROOT / PAGE).write_text(page())
