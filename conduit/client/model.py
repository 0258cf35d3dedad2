"""One model, ready to be called. `connect` makes it; nothing is sent before the first call."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from typing import Any

import httpx
import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from conduit.client.answers import Answer, CallFailed, Failed, Gathered, Stream, of_response
from conduit.client.target import Target, target
from conduit.core.secret import mask
from conduit.proxy.dialects.openai_chat import parse_chat
from conduit.proxy.errors import ApiError
from providers import masks
from providers.adapters.base import UpstreamRequest
from providers.adapters.types import ChatRequest, ChatResponse
from providers.errors import CannotCarry, NotSent, Overloaded, RateLimited, UpstreamCut, UpstreamError, UpstreamTimeout
from providers.transport import signed

# A text, or messages as OpenAI's chat completions take them, or these with parameters: {"messages": …, "seed": 1}.
Prompt = str | Sequence[Mapping[str, Any]] | Mapping[str, Any]
CONNECT_SECONDS = 10.0
LONGEST_PAUSE = 60.0
_AGAIN = (NotSent, RateLimited, Overloaded, UpstreamTimeout, UpstreamCut)


def connect(  # noqa: PLR0913 (each is a part of the address or of the credential)
    model: str,
    *,
    api_key: str = "",
    timeout: float = 120.0,
    region: str = "",
    base_url: str = "",
    kind: str = "",
    fields: Mapping[str, str] | None = None,
    options: Mapping[str, Any] | None = None,
) -> Model:
    """A model by its name: "claude-…" (the kind follows from the name), "groq/llama-…" (KIND/MODEL), or with `kind`.

    api_key    the provider's key, or a virtual key of the gateway (then `base_url` is the gateway's, ending in /v1)
    fields     further fields of the credential by name, such as access_key_id, secret_access_key or service_account
    timeout    seconds for a whole answer, and between the pieces of a stream

    Raises InvalidInput that names the argument which is missing or wrong.
    """
    chosen = target(
        model,
        api_key=api_key,
        fields=fields or {},
        kind=kind,
        base_url=base_url,
        region=region,
        options=options or {},
    )
    return Model(chosen, timeout=timeout)


class Model:
    """Safe to use from several threads. `parameters` of a call are those of OpenAI's chat completions."""

    def __init__(self, chosen: Target, *, timeout: float) -> None:
        self._target = chosen
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=20)
        waits = httpx.Timeout(timeout, connect=min(CONNECT_SECONDS, timeout))
        self._http = httpx.Client(timeout=waits, limits=limits, trust_env=False, follow_redirects=False)

    @property
    def name(self) -> str:
        return self._target.upstream.model

    @property
    def kind(self) -> str:
        return self._target.kind.kind

    def __enter__(self) -> Model:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def call(self, prompt: Prompt, **parameters: Any) -> Answer:
        """The whole answer. Raises CallFailed."""
        with self._failing():
            asked, request = self._built(prompt, {**parameters, "stream": False})
            began = time.perf_counter()
            with self._sent(request) as response:
                body = response.read()
            parsed = self._target.adapter.parse_response(asked, body)
            assert isinstance(parsed, ChatResponse)
            return of_response(
                parsed,
                dropped=request.dropped,
                headers=dict(response.headers),
                seconds=time.perf_counter() - began,
            )

    def stream(self, prompt: Prompt, **parameters: Any) -> Stream:
        """Pieces of text as they come; nothing is sent before the first one is asked for. They raise CallFailed."""

        def pieces(stream: Stream) -> Iterator[str]:
            with self._failing():
                asked, request = self._built(prompt, {**parameters, "stream": True})
                gathered, began, first = Gathered(), time.perf_counter(), None
                with self._sent(request) as response:
                    parser = self._target.adapter.stream_parser(asked)
                    for data in response.iter_raw():
                        for event in parser.feed(data):
                            if piece := gathered.add(event):
                                first = first or time.perf_counter() - began
                                yield piece
                    for event in parser.close():
                        if piece := gathered.add(event):
                            yield piece
                stream.answer = gathered.answer(
                    dropped=request.dropped,
                    headers=dict(response.headers),
                    seconds=time.perf_counter() - began,
                    first_seconds=first,
                )

        return Stream(pieces)

    def batch(  # noqa: PLR0913 (what is asked, and how)
        self,
        prompts: Iterable[Prompt],
        *,
        concurrency: int = 8,
        retries: int = 2,
        progress: bool = False,
        each: Callable[[int, Answer | Failed], None] | None = None,
        **parameters: Any,
    ) -> list[Answer | Failed]:
        """One result for each prompt, in their order; a failure stands in its place and does not end the others.

        At most `concurrency` calls at once. What may work later is tried `retries` times more, after the pause that
        the provider asked for. `progress` draws a bar on standard error; `each` is told every result as it comes,
        with the place of its prompt.
        """
        if concurrency < 1:
            raise ValueError("concurrency must be at least 1")
        asked = list(prompts)
        results: list[Answer | Failed | None] = [None] * len(asked)
        pool = ThreadPoolExecutor(max_workers=concurrency, thread_name_prefix="batch")
        try:
            running = {
                pool.submit(self._attempted, prompt, retries, parameters): index for index, prompt in enumerate(asked)
            }
            with _bar(len(asked), shown=progress) as advance:
                for done in as_completed(running):
                    result = done.result()
                    results[running[done]] = result
                    if each is not None:
                        each(running[done], result)
                    advance(isinstance(result, Failed))
        finally:  # also when the script is interrupted: what has not begun is not begun any more
            pool.shutdown(wait=True, cancel_futures=True)
        return [result for result in results if result is not None]

    def list_models(self) -> list[str]:
        """The names that the provider lists, sorted. Raises CallFailed."""
        with self._failing():
            with self._sent(self._target.adapter.verification(self._target.upstream)) as response:
                body = response.read()
            return sorted(self._target.adapter.parse_models(body))

    # --- parts

    def _built(self, prompt: Prompt, parameters: Mapping[str, Any]) -> tuple[ChatRequest, UpstreamRequest]:
        own: Mapping[str, Any] = {}
        if isinstance(prompt, str):
            own = {"messages": [{"role": "user", "content": prompt}]}
        else:
            own = prompt if isinstance(prompt, Mapping) else {"messages": list(prompt)}
        body = json.dumps({**own, **parameters, "model": self.name}).encode()
        asked = parse_chat(body).canonical()
        assert isinstance(asked, ChatRequest)
        cap = asked.max_output_tokens
        upstream = msgspec.structs.replace(self._target.upstream, max_output_tokens=cap)
        return asked, self._target.adapter.build_request(asked, upstream)

    @contextmanager
    def _sent(self, request: UpstreamRequest) -> Iterator[httpx.Response]:
        """The answer with its body still to be read. Raises UpstreamError."""
        with self._http.stream(
            request.method, request.url, headers=signed(request), content=request.body or None
        ) as response:
            if response.status_code >= 300:
                raise self._target.adapter.parse_error(response.status_code, dict(response.headers), response.read())
            yield response

    @contextmanager
    def _failing(self) -> Iterator[None]:
        """Whatever goes wrong becomes a CallFailed, with the credential masked."""
        try:
            yield
        except ApiError as error:  # the prompt or a parameter
            raise CallFailed(error.message, status=error.status, code=error.code) from None
        except CannotCarry as error:
            raise CallFailed(f"{self._target.kind.title}: {error}", status=400, code="invalid_value") from None
        except UpstreamError as error:
            raise self._failed(error) from None
        except httpx.TimeoutException:
            raise self._failed(UpstreamTimeout("The provider did not answer in time.")) from None
        except (httpx.ConnectError, httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise self._failed(NotSent(f"The provider could not be reached: {error}")) from None
        except httpx.HTTPError as error:
            raise self._failed(UpstreamCut(f"The connection to the provider broke: {error}")) from None

    def _failed(self, error: UpstreamError) -> CallFailed:
        return CallFailed(
            mask(error.message, masks.masks(self._target.upstream.secrets)),
            guidance=self._target.kind.guidance.get(type(error).code, ""),
            status=error.status,
            code=error.code,
            retry_after=error.retry_after,
            again=isinstance(error, _AGAIN),
        )

    def _attempted(self, prompt: Prompt, retries: int, parameters: Mapping[str, Any]) -> Answer | Failed:
        for attempt in range(retries + 1):
            try:
                return self.call(prompt, **parameters)
            except CallFailed as error:
                if not error.again or attempt == retries:
                    return Failed(error)
                pause = error.retry_after if error.retry_after is not None else 0.5 * 2**attempt
                time.sleep(min(pause, LONGEST_PAUSE))
        raise AssertionError("the last attempt returns")


@contextmanager
def _bar(total: int, *, shown: bool) -> Iterator[Any]:
    """Gives the function to call after each result."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[failed]} failed"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), disable=not shown) as progress:
        task, failed = progress.add_task("batch", total=total, failed=0), 0

        def advance(lost: bool) -> None:
            nonlocal failed
            failed += lost
            progress.update(task, advance=1, failed=failed)

        yield advance
