"""`conduit chat MODEL [TEXT]`: a question, or a conversation, through the gateway as any client application would."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from conduit.cli.gateway_access import AskForKey, Url, explained, reach
from conduit.cli.output import Json, emit
from conduit.client import Answer, CallFailed, Model
from conduit.core.errors import ConfigurationError

app = typer.Typer(help="Ask a model through the gateway.")


@app.command()
def chat(  # noqa: PLR0913 (each is an option of the command)
    model: Annotated[str, typer.Argument(help="A route, as in `conduit routes list`.")],
    text: Annotated[str, typer.Argument(help="What to ask. Without it: a conversation, until an empty line.")] = "",
    system: Annotated[str, typer.Option(help="How the model shall behave.")] = "",
    stream: Annotated[
        bool | None, typer.Option(help="Print the answer as it comes. On a terminal that is the default.")
    ] = None,
    key: AskForKey = False,
    url: Url = "",
    as_json: Json = False,
) -> None:
    """Print the answer, and on standard error what it took. The key: CONDUIT_KEY, standard input, or a prompt."""
    messages: list[dict[str, Any]] = [{"role": "system", "content": system}] if system else []
    streamed = not as_json and (sys.stdout.isatty() if stream is None else stream)
    with reach(model, key=key, url=url) as reached:
        if text:
            _ask(reached, [*messages, {"role": "user", "content": text}], streamed=streamed, as_json=as_json)
        elif sys.stdin.isatty() and not as_json:
            _converse(reached, messages)
        else:
            raise ConfigurationError("There is nothing to ask: give the text, or start a conversation on a terminal.")


def _ask(model: Model, messages: list[dict[str, Any]], *, streamed: bool, as_json: bool = False) -> Answer:
    try:
        answer = _printed(model, messages) if streamed else model.call(messages)
    except CallFailed as error:
        raise explained(error) from None
    if not streamed:
        emit(_body(answer), [answer.text], as_json=as_json)
    if not as_json:
        sys.stderr.write(f"[{', '.join(_took(answer))}]\n")
    return answer


def _printed(model: Model, messages: list[dict[str, Any]]) -> Answer:
    stream = model.stream(messages)
    for piece in stream:
        typer.echo(piece, nl=False)
    typer.echo()
    assert stream.answer is not None
    return stream.answer


def _converse(model: Model, messages: list[dict[str, Any]]) -> None:
    """What was said before goes along with each question. A question that failed is forgotten."""
    while True:
        try:
            text = input("> ").strip()
        except (EOFError, KeyboardInterrupt):
            return
        if not text:
            return
        asked = [*messages, {"role": "user", "content": text}]
        try:
            answer = _ask(model, asked, streamed=True)
        except CallFailed as error:
            sys.stderr.write(f"{error}\n")
            continue
        except KeyboardInterrupt:
            sys.stderr.write("\n[stopped]\n")
            continue
        messages = [*asked, {"role": "assistant", "content": answer.text}]


def _took(answer: Answer) -> list[str]:
    usage, spent = answer.usage, answer.headers.get("x-conduit-cost-usd")
    parts = [answer.headers.get("x-conduit-provider", "?")]
    if usage is not None:
        parts.append(f"{usage.input_tokens} + {usage.output_tokens} tokens")
    return [*parts, f"${spent}"] if spent else parts


def _body(answer: Answer) -> dict[str, Any]:
    usage = answer.usage
    return {
        "text": answer.text,
        "finish": answer.finish,
        "model": answer.headers.get("x-conduit-model", answer.model),
        "provider": answer.headers.get("x-conduit-provider", ""),
        "request_id": answer.headers.get("x-request-id", ""),
        "cost_usd": answer.headers.get("x-conduit-cost-usd"),
        "input_tokens": usage.input_tokens if usage else None,
        "output_tokens": usage.output_tokens if usage else None,
        "tool_calls": [{"id": call.id, "name": call.name, "arguments": call.arguments} for call in answer.tool_calls],
    }
