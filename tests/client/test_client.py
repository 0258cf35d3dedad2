"""The in-process client against the sandbox in three wire formats, a counting server, and a gateway."""

from __future__ import annotations

import http.server
import json
import threading
import time
from collections.abc import Iterator

import pytest

from conduit.client import Answer, CallFailed, Failed, Model, connect
from conduit.core.errors import InvalidInput
from providers.errors import AuthRejected
from tests.harness.gateway import RunningGateway
from tests.harness.sandbox import KEY, RunningSandbox, running_sandbox
from tests.proxy.conftest import committed, gateway, module_books

__all__ = ["committed", "gateway", "module_books"]


@pytest.fixture(scope="module")
def sandbox() -> Iterator[RunningSandbox]:
    with running_sandbox() as running:
        yield running


@pytest.fixture(params=["openai", "anthropic", "gemini"])
def wire(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def echo(sandbox: RunningSandbox, wire: str = "openai", key: str = KEY, **scripted: str) -> Model:
    headers = {f"x-sandbox-{name.replace('_', '-')}": value for name, value in scripted.items()}
    options = {"dialect": wire, "sandbox_headers": headers}
    return connect("sandbox-echo", api_key=key, base_url=f"{sandbox.url}/v1", options=options, timeout=10)


def test_a_call_gives_text_usage_and_the_reason_it_ended(sandbox: RunningSandbox, wire: str) -> None:
    with echo(sandbox, wire) as model:
        answer = model.call("one two three", max_tokens=50)
    assert (answer.text, answer.finish) == ("one two three", "stop")
    assert answer.usage is not None
    assert answer.usage.input_tokens > 0 < answer.usage.output_tokens
    assert answer.seconds > 0


def test_a_stream_gives_the_same_in_pieces(sandbox: RunningSandbox, wire: str) -> None:
    with echo(sandbox, wire) as model:
        whole = model.call("one two three four", max_tokens=50)
        stream = model.stream("one two three four", max_tokens=50)
        pieces = list(stream)
    assert len(pieces) > 1
    assert "".join(pieces) == whole.text
    assert stream.answer is not None
    assert (stream.answer.text, stream.answer.finish, stream.answer.usage) == (whole.text, whole.finish, whole.usage)
    assert stream.answer.first_seconds is not None
    assert stream.answer.first_seconds <= stream.answer.seconds


def test_messages_and_parameters_are_those_of_chat_completions(sandbox: RunningSandbox) -> None:
    with echo(sandbox) as model:
        answer = model.call(
            [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hello there"}], n=2, seed=1
        )
        assert answer.texts == ("hello there", "hello there")
        with pytest.raises(CallFailed, match="temperature") as refused:
            model.call("hello", temperature="warm")
    assert refused.value.status == 400


def test_a_rejected_key_is_masked_and_says_what_to_do(sandbox: RunningSandbox, wire: str) -> None:
    with echo(sandbox, wire, key="sk-wrong-9f8e7d6c5b4a") as model, pytest.raises(CallFailed) as refused:
        model.call("hello")
    assert refused.value.status == 401
    assert "9f8e7d6c5b4a" not in str(refused.value)
    assert "takes any key that starts with sk-sandbox-" in str(refused.value)


def test_a_stream_that_breaks_raises_and_has_no_answer(sandbox: RunningSandbox) -> None:
    with echo(sandbox, cut_after_bytes="700") as model:
        stream = model.stream("word " * 100)
        with pytest.raises(CallFailed):
            list(stream)
    assert stream.answer is None


def test_a_batch_keeps_the_order_and_a_failure_stands_in_its_place(sandbox: RunningSandbox) -> None:
    prompts = ["first", [{"role": "nobody", "content": "x"}], "third"]
    with echo(sandbox) as model:
        first, second, third = model.batch(prompts, concurrency=3)
    assert isinstance(first, Answer)
    assert isinstance(third, Answer)
    assert (first.text, third.text) == ("first", "third")
    assert isinstance(second, Failed)
    assert second.error.status == 400


class Counting(http.server.ThreadingHTTPServer):
    """Answers after a while; counts how many it is answering at once, and refuses the first `limited` calls."""

    daemon_threads = True

    def __init__(self, limited: int = 0) -> None:
        super().__init__(("127.0.0.1", 0), _Counted)
        self.lock, self.now, self.most, self.calls, self.limited = threading.Lock(), 0, 0, 0, limited
        self.url = f"http://127.0.0.1:{self.server_address[1]}/v1"


class _Counted(http.server.BaseHTTPRequestHandler):
    server: Counting

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        server = self.server
        with server.lock:
            server.calls, server.now = server.calls + 1, server.now + 1
            server.most, limited = max(server.most, server.now), server.calls <= server.limited
        time.sleep(0.05)
        with server.lock:
            server.now -= 1
        answer = {
            "id": "a",
            "object": "chat.completion",
            "created": 1,
            "model": "m",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": "ok"}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
        }
        body = json.dumps({"error": {"message": "slow down"}} if limited else answer).encode()
        self.send_response(429 if limited else 200)
        self.send_header("retry-after", "0")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def counting(request: pytest.FixtureRequest) -> Iterator[Counting]:
    with Counting(getattr(request, "param", 0)) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_batch_never_has_more_calls_at_once_than_it_may(counting: Counting) -> None:
    with connect("m", kind="custom", base_url=counting.url) as model:
        results = model.batch([f"question {number}" for number in range(20)], concurrency=3)
    assert [result.text for result in results if isinstance(result, Answer)] == ["ok"] * 20
    assert (counting.calls, counting.most) == (20, 3)


@pytest.mark.parametrize("counting", [2], indirect=True)
def test_what_may_work_later_is_tried_again(counting: Counting) -> None:
    with connect("m", kind="custom", base_url=counting.url) as model:
        (patient,) = model.batch(["hello"], retries=2)
        assert isinstance(patient, Answer)
        counting.calls = 0
        (hasty,) = model.batch(["hello"], retries=1)
    assert isinstance(hasty, Failed)
    assert (hasty.error.status, hasty.error.again) == (429, True)


def test_a_batch_draws_its_progress_on_standard_error(counting: Counting, capfd: pytest.CaptureFixture[str]) -> None:
    with connect("m", kind="custom", base_url=counting.url) as model:
        model.batch(["one", "two"], progress=True)
    shown = capfd.readouterr()
    assert "2/2" in shown.err
    assert shown.out == ""


def test_the_provider_s_models_are_listed(sandbox: RunningSandbox, wire: str) -> None:
    with echo(sandbox, wire) as model:
        assert "sandbox-echo" in model.list_models()


@pytest.mark.parametrize(
    ("name", "kind", "model"),
    [
        ("gpt-4o-mini", "openai", "gpt-4o-mini"),
        ("claude-sonnet-4-5", "anthropic", "claude-sonnet-4-5"),
        ("gemini-2.5-flash", "gemini", "gemini-2.5-flash"),
        ("openai/whatever-is-new", "openai", "whatever-is-new"),
    ],
)
def test_the_name_chooses_the_kind_of_provider(name: str, kind: str, model: str) -> None:
    with connect(name, api_key="k") as chosen:
        assert (chosen.kind, chosen.name) == (kind, model)


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"model": "nobody-knows-it"}, "model"),
        ({"model": "m", "kind": "no-such-kind"}, "kind"),
        ({"model": "gpt-4o"}, "api_key"),
        ({"model": "m", "kind": "custom"}, "base_url"),
        ({"model": "m", "kind": "bedrock", "api_key": "k"}, "region"),
        ({"model": "m", "kind": "bedrock", "region": "us-east-1", "fields": {"access_key_id": "AKIA"}}, "fields"),
        ({"model": "cloudflare/@cf/meta/llama-3", "api_key": "k"}, "options.account"),
        ({"model": "gpt-4o", "fields": {"api_token": "k"}}, "fields"),
    ],
)
def test_what_is_missing_is_named(arguments: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        connect(**arguments)  # type: ignore[arg-type]
    assert refused.value.field == field


def test_an_option_may_be_a_part_of_the_address() -> None:
    with connect("cloudflare/@cf/meta/llama-3", api_key="k", options={"account": "0123abcd"}) as chosen:
        assert chosen._target.upstream.base_url == "https://api.cloudflare.com/client/v4/accounts/0123abcd/ai/v1"


def test_a_secret_within_a_field_is_masked_too() -> None:
    fields = {"headers": '{"X-Pass": "corr.ect.horse.7"}'}
    with connect("custom/x", base_url="http://127.0.0.1:9/v1", fields=fields) as chosen:
        failed = chosen._failed(AuthRejected("bad pass corr.ect.horse.7", status=401))
    assert "corr.ect.horse.7" not in str(failed)


def test_a_virtual_key_calls_the_gateway(gateway: RunningGateway) -> None:
    with connect("sandbox-echo", api_key=gateway.raw_key, base_url=f"{gateway.url}/v1") as model:
        answer = model.call("through the gateway")
        assert answer.text == "through the gateway"
        assert answer.headers["x-conduit-cost-usd"]
        assert "sandbox-echo" in model.list_models()
