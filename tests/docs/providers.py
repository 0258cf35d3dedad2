"""Writes docs/providers/ from the registry: `.venv/bin/python -P -m tests.docs.providers`.

A page has an example that tests/docs/test_provider_pages.py runs, and tables of what the registry says.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from providers.adapters.kinds import FieldSpec, ProviderKind
from providers.adapters.registry import KINDS
from tests.conformance.wires import lacks, wire_module
from tests.docs import pages
from tests.docs.provider_words import WORDS, Words

FOLDER = Path("docs/providers")
GATEWAY = "http://127.0.0.1:8080"
FEATURES = {
    "streaming": "streams",
    "tools": "tools",
    "parallel_tools": "several tool calls in one answer",
    "tool_choice": "tool choice",
    "vision": "images",
    "audio_in": "recordings",
    "audio_out": "spoken answers",
    "documents": "documents",
    "structured": "answers that follow a JSON schema",
    "reasoning": "reasoning",
    "citations": "citations",
    "prompt_cache": "marks for the prompt cache",
    "stop": "stop sequences",
    "seed": "seed",
    "penalties": "presence and frequency penalty",
    "several": "several choices (`n`)",
    "logprobs": "log probabilities",
    "embeddings": "embeddings",
}
CODES = {
    "upstream_auth_failed": "the credential is rejected",
    "upstream_rate_limited": "the account's limit is reached",
    "upstream_unavailable": "it cannot be reached",
    "egress_refused": "its address may not be called",
}


def variable(row: ProviderKind) -> str:
    return f"{row.kind.upper()}_KEY"


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    head = list(head)
    lines = [head, ["---"] * len(head), *rows]
    return ["", *(f"| {' | '.join(cells)} |" for cells in lines), ""]


def _fields(specs: Iterable[FieldSpec]) -> list[str]:
    def need(spec: FieldSpec) -> str:
        return "required" if spec.required else "optional"

    rows = [(f"`{spec.name}`", need(spec), "encrypted" if spec.secret else "readable", spec.help) for spec in specs]
    return _table(("name", "", "", "what"), rows)


def _example(row: ProviderKind, words: Words) -> list[str]:
    options = "".join(f" --option {option}" for option in words.options)
    place = f" --region {words.region}" if words.region else ""
    place += f" --base-url {words.base_url}" if words.base_url else ""
    name = f"my-{row.kind}" if row.own_process else row.kind  # `make up` has added that one
    add = f"conduit providers add {name} --kind {row.kind}{place}{options}"
    lines = ["## Add it", ""]
    if len(row.fields) == 1 and not row.fields[0].shape:
        lines += ["```sh", f'printf %s "${variable(row)}" | {add}']
    elif len(row.fields) == 1:
        lines += ["```sh", f"{add} < {row.fields[0].name.replace('_', '-')}.json"]
    else:
        named = words.way or tuple(spec.name for spec in row.fields if spec.required) or (row.fields[0].name,)
        shapes = {spec.name: spec.shape for spec in row.fields}
        given = {name: {} if shapes[name] else "…" for name in named}
        if any(shapes[name] == "service_account" for name in named):
            lines += ["`service_account` is the whole JSON key file, as Google gives it.", ""]
        lines += ["`credential.json`:", "", "```json", json.dumps(given, ensure_ascii=False), "```", ""]
        lines += ["```sh", f"{add} < credential.json"]
    lines += [f"conduit routes add {row.kind}-example --target {name}={words.model}", "```", ""]
    lines += [
        "The credential is proved by a real call before anything is saved. Then any client asks the route, in its own",
        "dialect:",
        "",
        "```python",
        "import os",
        "",
        "from openai import OpenAI",
        "",
        f'client = OpenAI(base_url="{GATEWAY}/v1", api_key=os.environ["CONDUIT_KEY"])',
        'question = [{"role": "user", "content": "Say hello."}]',
        f'answer = client.chat.completions.create(model="{row.kind}-example", messages=question)',
        "print(answer.choices[0].message.content)",
        "```",
        "",
    ]
    return lines


def _carried(row: ProviderKind) -> list[str]:
    has = asdict(row.capabilities)
    lines = ["## What it carries", ""]
    lines += ["What a dialect can say and this provider cannot is left out and named in `x-conduit-dropped-params`, or"]
    lines += ["refused with 400; a strict route refuses always. [The matrix](matrix.md) has every dialect."]
    lacking = [
        lacks(wire_module(row.kind, dialect)) if len(row.adapters) > 1 else frozenset() for dialect in row.adapters
    ]
    head = [f"in `{dialect}`" for dialect in row.adapters] if len(row.adapters) > 1 else [""]
    lines += _table(
        ("feature", *head),
        [
            (title, *("yes" if has[name] and name not in missing else "–" for missing in lacking))
            for name, title in FEATURES.items()
        ],
    )
    if row.quirks and row.quirks.drops:
        names = ", ".join(f"`{name}`" for name in sorted(row.quirks.drops))
        lines += [f"Parameters it does not take: {names}.", ""]
    besides: dict[frozenset[str], list[str]] = {}
    for pattern, names in row.quirks.by_model if row.quirks else ():
        besides.setdefault(names, []).append(f"`{pattern}`")
    for names, patterns in besides.items():
        lines += [f"Models {', '.join(patterns)} besides: {', '.join(f'`{name}`' for name in sorted(names))}.", ""]
    return lines


def page(row: ProviderKind) -> str:
    words = WORDS[row.kind]
    where = f"`{row.base_url}`" if row.base_url else "given by you"
    lines = [f"# {row.title}", "", f"Kind `{row.kind}`, address {where}."]
    lines += ["", *textwrap.wrap(words.remarks, 118, break_on_hyphens=False)] if words.remarks else []
    lines += ["", *_example(row, words), "## Credential", *_fields(row.fields)]
    if row.ways:
        ways = " or ".join(" and ".join(f"`{name}`" for name in way) for way in row.ways)
        lines += [f"Exactly one of: {ways}.", ""]
    if row.options:
        lines += ["## Options", *_fields(row.options)]
    lines += _carried(row)
    lines += ["## Wire formats and endpoints", ""]
    formats = [f"`{dialect}`" + (" (default)" if place == 0 else "") for place, dialect in enumerate(row.adapters)]
    lines += [f"It is spoken to in {', '.join(formats)}. The vendor serves: {', '.join(row.endpoints)}."]
    if row.by_model:
        chosen = ", ".join(f"`{pattern}` in `{dialect}`" for pattern, dialect in row.by_model)
        lines += ["", f"By the model's name: {chosen}."]
    lines += ["", "## When it refuses"]
    lines += _table(("what happens", "what to do"), [(CODES[code], text) for code, text in row.guidance.items()])
    lines += ["This page is written by `.venv/bin/python -P -m tests.docs.providers`.", ""]
    return "\n".join(lines)


def index() -> str:
    lines = [
        "# Providers",
        "",
        "One page for each kind; [the matrix](matrix.md) holds them side by side. A vendor that",
    ]
    lines += ["is not here and speaks OpenAI's or Anthropic's wire format is a [custom endpoint](custom.md);"]
    lines += ["[adding a kind](../adding-a-provider.md) takes one row."]
    rows = [(f"[{row.title}]({row.kind}.md)", f"`{row.kind}`", ", ".join(row.adapters)) for row in KINDS.values()]
    lines += _table(("provider", "kind", "wire formats"), rows)
    lines += ["This page is written by `.venv/bin/python -P -m tests.docs.providers`.", ""]
    return "\n".join(lines)


def written() -> dict[Path, str]:
    """Path below the repository to text."""
    found = {FOLDER / f"{row.kind}.md": page(row) for row in KINDS.values()}
    return {FOLDER / "README.md": index(), **found}


if __name__ == "__main__":
    for path, text in written().items():
        (pages.ROOT / path).parent.mkdir(exist_ok=True)
        (pages.ROOT / path).write_text(text)
