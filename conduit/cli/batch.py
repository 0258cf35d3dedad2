"""`conduit batch MODEL INPUT`: many questions through the gateway, a bounded number of them at once."""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from conduit.cli.gateway_access import AskForKey, Url, reach
from conduit.client import Answer, Failed
from conduit.core.errors import InvalidInput

app = typer.Typer(help="Ask a model many questions through the gateway.")


@app.command()
def batch(  # noqa: PLR0913 (each is an option of the command)
    model: Annotated[str, typer.Argument(help="A route, as in `conduit routes list`.")],
    questions: Annotated[
        Path, typer.Argument(help='Lines of JSON: a text, or {"id", "prompt" or "messages", …parameters}.')
    ],
    output: Annotated[
        Path | None, typer.Option(help="Where answers go, a JSON line each; else standard output.")
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, max=256, help="How many at once.")] = 8,
    retries: Annotated[int, typer.Option(min=0, max=10, help="How often a call that may work later is repeated.")] = 2,
    key: AskForKey = False,
    url: Url = "",
) -> None:
    """Answer each line. Exit 1 when one has no answer; its line says why.

    Lines are written as answers come, each with the id of its question (its number where it has none). What the file
    of --output answers already is not asked again: start an interrupted run once more.
    """
    asked = _read(questions)
    done = _answered(output) if output else set()
    left = {name: question for name, question in asked.items() if name not in done}
    names, failed = list(left), 0

    def written(index: int, result: Answer | Failed) -> None:
        nonlocal failed
        failed += isinstance(result, Failed)
        file.write(f"{json.dumps(_line(names[index], result), ensure_ascii=False)}\n")
        file.flush()

    with (
        reach(model, key=key, url=url) as reached,
        output.open("a", encoding="utf-8") if output else nullcontext(sys.stdout) as file,
    ):
        reached.batch(
            left.values(), concurrency=concurrency, retries=retries, progress=sys.stderr.isatty(), each=written
        )
    sys.stderr.write(f"{len(left) - failed} answered, {failed} failed, {len(done)} answered before\n")
    if failed:
        raise typer.Exit(1)


def _read(path: Path) -> dict[str, Any]:
    """Questions by id. Raises InvalidInput that names the line."""
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(str(path), f"cannot be read: {error}") from None
    found: dict[str, Any] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            name, question = _question(json.loads(line), number)
        except ValueError as error:
            raise InvalidInput(f"{path}:{number}", str(error)) from None
        if name in found:
            raise InvalidInput(f"{path}:{number}", f"the id {name!r} stands on another line too.")
        found[name] = question
    return found


def _question(told: Any, number: int) -> tuple[str, Any]:
    """(id, prompt). Raises ValueError."""
    if isinstance(told, str):
        return str(number), told
    if not isinstance(told, dict) or ("prompt" in told) == ("messages" in told):
        raise ValueError('must be a text, or an object with either "prompt" or "messages".')
    name, prompt = str(told.pop("id", number)), told.pop("prompt", None)
    messages = told.pop("messages", None) or [{"role": "user", "content": prompt}]
    return name, {**told, "messages": messages}


def _answered(path: Path) -> set[str]:
    """Ids of what an earlier run answered; what failed then is asked again."""
    if not path.exists():
        return set()
    found = set()
    for line in path.read_text("utf-8").splitlines():
        with suppress(ValueError):  # the last line of a run that was killed
            told = json.loads(line)
            if "error" not in told:
                found.add(str(told["id"]))
    return found


def _line(name: str, result: Answer | Failed) -> dict[str, Any]:
    if isinstance(result, Failed):
        error = result.error
        return {"id": name, "error": {"status": error.status, "code": error.code, "message": error.message}}
    usage = result.usage
    return {
        "id": name,
        "text": result.text,
        "finish": result.finish,
        "cost_usd": result.headers.get("x-conduit-cost-usd"),
        "input_tokens": usage.input_tokens if usage else None,
        "output_tokens": usage.output_tokens if usage else None,
    }
