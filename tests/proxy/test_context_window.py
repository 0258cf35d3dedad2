"""A prompt that a model cannot hold is refused with the numbers, or goes to a target that can hold it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db import transaction

from conduit.core.actor import SYSTEM
from conduit.core.secret import Secret
from conduit.proxy.context_window import cap_within, least_tokens
from conduit.proxy.simulation import Asked as AskedOfSimulation
from conduit.proxy.simulation import simulate
from conduit.proxy.worst_case import window_of
from keys.models import VirtualKey
from providers.adapters.estimate import tokens_in
from providers.catalogue_overrides import locked, update_model
from providers.credentials import add_credential
from providers.models import CatalogueModel, Provider
from tests.harness.gateway import RunningGateway
from tests.harness.invoice import read_invoice
from tests.harness.speakers import Speaker
from tests.harness.stub_upstream import Said, Stub, stub_upstream
from tests.proxy.test_worst_case import target

pytestmark = pytest.mark.usefixtures("module_books")
DRY = {"x-conduit-dry-run": "1"}
SMALL, MIDDLE = 100, 1_000
LONG = "word " * 400  # 400 words: 400 tokens at least


def window(gateway: RunningGateway, model: str, tokens: int | None) -> None:
    """As an operator sets it: PATCH /models/{id}."""
    row = CatalogueModel.objects.get(vendor="sandbox", name=model)
    update_model(locked(row), actor=SYSTEM, changes={"context_window": tokens})


@pytest.fixture(scope="module", autouse=True)
def windows(gateway: RunningGateway) -> None:
    with transaction.atomic():
        window(gateway, "sandbox-lorem", SMALL)
        window(gateway, "sandbox-tools", MIDDLE)
    provider = gateway.provider("sandbox")
    gateway.route("small then middle", (provider, "sandbox-lorem"), (provider, "sandbox-tools"))


def calls(gateway: RunningGateway) -> int:
    return len(read_invoice(gateway.sandbox.invoice))


def test_a_prompt_that_surely_does_not_fit_is_refused_with_the_numbers(
    gateway: RunningGateway, speaker: Speaker
) -> None:
    before = calls(gateway)
    answer = speaker.ask(gateway.url, gateway.raw_key, LONG, model="sandbox-lorem", cap=50)
    assert answer.status_code == 400
    error = speaker.told(answer.json())
    theirs = "This model's maximum context length is 100 tokens. However, your "
    expected = {
        "openai": f"{theirs}messages have about",
        "responses": theirs,
        "anthropic": "prompt is too long: ",
        "gemini": "The input token count (",
    }[speaker.name]
    assert error.message.startswith(expected)
    for number in ("100", "50", "sandbox-lorem"):
        assert number in error.message
    assert error.code in ("context_length_exceeded", None)
    assert (error.code, error.param) == ("context_length_exceeded", "messages") or speaker.name != "openai"
    assert calls(gateway) == before, "no provider was asked"
    event = gateway.event(answer)
    (line,) = [line for line in event.trace if line["check"] == "context"]
    assert (line["window"], line["ok"], event.error_code) == (100, False, "context_length_exceeded")
    assert 400 <= line["at_least"] <= 500


def test_a_window_that_the_client_opens_wider_counts_as_wide_as_it_is(gateway: RunningGateway) -> None:
    body = {"model": "sandbox-lorem", "max_tokens": 5, "messages": [{"role": "user", "content": LONG}]}
    with gateway.client() as client:
        narrow = client.post("/v1/messages", json=body)
        wide = client.post("/v1/messages", json=body, headers={"anthropic-beta": "tools-1,context-1m-2025-08-07"})
    assert (narrow.status_code, wide.status_code) == (400, 200), wide.text


def test_a_cap_that_nobody_asked_for_fits_into_the_window_that_is_open() -> None:
    for option, cap in (("", 2_000), ("context-1m-2025-08-07", 5_000)):
        window = window_of(target("anthropic", 3_000, anthropic_beta=option), "")
        assert cap_within(window, 3_000, 5_000, least=16) == cap


def test_what_may_fit_is_never_refused(gateway: RunningGateway, speaker: Speaker) -> None:
    """Between what it has at least and what it may have at most, the provider decides."""
    text = "weather " * (SMALL - 10)
    assert tokens_in(text) > 1.5 * SMALL, "the usual estimate is far over the window"
    assert speaker.ask(gateway.url, gateway.raw_key, text, model="sandbox-lorem").status_code == 200
    blanks = " " * 20_000  # some vocabularies have tokens of a hundred blanks
    assert speaker.ask(gateway.url, gateway.raw_key, blanks, model="sandbox-lorem").status_code == 200


def test_media_and_what_the_provider_is_told_to_leave_out_do_not_count(gateway: RunningGateway) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "iVBOR" * 2_000}}
    content = [{"type": "text", "text": "what is this?"}, image]
    answer = gateway.chat(model="sandbox-lorem", messages=[{"role": "user", "content": content}])
    assert answer.status_code == 200, answer.text
    assert gateway.chat(LONG, model="sandbox-lorem", truncation="auto").status_code == 200
    assert gateway.chat(LONG, model="sandbox-lorem", transforms=["middle-out"]).status_code == 200


def test_a_routes_larger_target_takes_it(gateway: RunningGateway, speaker: Speaker) -> None:
    answer = speaker.ask(gateway.url, gateway.raw_key, LONG, model="small then middle")
    assert answer.status_code == 200, answer.text
    assert (answer.headers["x-conduit-model"], answer.headers["x-conduit-attempts"]) == ("sandbox-tools", "1")
    (line,) = [line for line in gateway.event(answer).trace if line["check"] == "context"]
    assert (line["model"], line["window"], line["ok"]) == ("sandbox-lorem", SMALL, False)
    short = speaker.ask(gateway.url, gateway.raw_key, "hi", model="small then middle")
    assert short.headers["x-conduit-model"] == "sandbox-lorem"
    too_long = speaker.ask(gateway.url, gateway.raw_key, LONG * 3, model="small then middle")
    assert (too_long.status_code, "1000" in speaker.told(too_long.json()).message) == (400, True)


@pytest.mark.parametrize(("model", "status"), [("sandbox-lorem", 400), ("small then middle", 200)])
def test_dry_run_and_simulation_say_the_same(gateway: RunningGateway, model: str, status: int) -> None:
    dry = gateway.chat(LONG, model=model, headers=DRY).json()
    key = VirtualKey.objects.get(secrets__public_id=gateway.raw_key[7:17])
    body = {"messages": [{"role": "user", "content": LONG}]}
    simulated = simulate(AskedOfSimulation(key=key, model=model, body=body), actor=SYSTEM)
    real = gateway.chat(LONG, model=model)
    code = "context_length_exceeded" if status == 400 else None
    assert (dry["status"], dry["code"]) == (simulated["status"], simulated["code"]) == (status, code)
    assert real.status_code == status
    for told in (dry, simulated):
        (line,) = [line for line in told["checks"] if line["check"] == "context"]
        assert (line["model"], line["window"]) == ("sandbox-lorem", SMALL)
    (line,) = [line for line in simulated["checks"] if line["check"] == "context"]
    assert "Shorten the prompt" in line["would_let_it_pass"]


# --- the provider itself says so


@pytest.fixture(scope="module")
def stub() -> Iterator[Stub]:
    with stub_upstream() as running:
        yield running


TOO_LONG = {"error": {"message": "This model's maximum context length is 8 tokens.", "code": None, "param": "messages"}}


@pytest.fixture(scope="module")
def refusing(gateway: RunningGateway, stub: Stub) -> str:
    """A route over a model whose server refuses, one of the same size, and one of the sandbox with a larger window."""
    provider = Provider.objects.create(name="refusing", kind="custom", base_url=stub.url)
    fields = {"api_key": Secret("sk-x")}
    add_credential(provider, actor=SYSTEM, name="main", fields=fields, verify=False)
    sandbox = gateway.provider("sandbox")
    gateway.route("refused", (provider, "unknown-size"), (provider, "as-unknown"), (sandbox, "sandbox-tools"))
    gateway.route("refused alone", (provider, "unknown-size"), (provider, "as-unknown"))
    return "refused"


def test_a_refusal_of_the_provider_goes_to_a_larger_window_only(
    gateway: RunningGateway, stub: Stub, refusing: str
) -> None:
    stub.says = lambda asked: Said(400, TOO_LONG)
    stub.asked.clear()
    answer = gateway.chat("hello", model="refused")
    assert (answer.status_code, answer.headers["x-conduit-model"]) == (200, "sandbox-tools")
    assert [asked.body["model"] for asked in stub.asked] == ["unknown-size"], "what is not larger was left out"
    first, last = gateway.events(answer.headers["x-request-id"], 2)
    assert (first.error_code, first.cost_nanos, last.outcome) == ("context_length_exceeded", 0, "ok")


def test_where_none_is_larger_the_providers_refusal_is_the_answer(
    gateway: RunningGateway, stub: Stub, refusing: str
) -> None:
    stub.says = lambda asked: Said(400, TOO_LONG)
    stub.asked.clear()
    answer = gateway.chat("hello", model="refused alone")
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (400, "context_length_exceeded", "messages")
    assert len(stub.asked) == 1


def test_any_other_refusal_ends_the_request(gateway: RunningGateway, stub: Stub, refusing: str) -> None:
    stub.says = lambda asked: Said(400, {"error": {"message": "temperature is too high", "param": "temperature"}})
    stub.asked.clear()
    assert gateway.chat("hello", model="refused").status_code == 400
    assert len(stub.asked) == 1


# --- the lower bound


def texts(times: int = 20) -> list[str]:
    here = Path(__file__).parents[2]
    files = ("README.md", "conduit/proxy/pipeline.py", "templates/base.html", "static/js/console.js")
    own = [(here / name).read_text() for name in files if (here / name).exists()]
    return [
        *own,
        "Das Donaudampfschifffahrtsgesellschaftskapitänspatent verlangt Aufmerksamkeit. " * times,
        "Съешь же ещё этих мягких французских булок, да выпей чаю. " * times,
        "我们的网关在请求离开之前检查上下文窗口的大小。" * times,
        "यह एक लंबा वाक्य है जिसमें कई शब्द हैं। " * times,
        json.dumps([{"id": n, "value": n * n, "ok": True} for n in range(200)], indent=2),
        "-" * 5_000 + " " * 5_000 + "=" * 5_000 + "0" * 5_000,
    ]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    """A byte-level vocabulary learned from these very texts: as coarse as one can be for them."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=2_000, initial_alphabet=alphabet, show_progress=False)
    trained.train_from_iterator(texts(times=1), trainer)  # a sentence said twenty times would become one token
    return trained


@pytest.mark.parametrize("number", range(len(texts())))
def test_no_tokenizer_counts_fewer_tokens_than_the_bound(tokenizer: Any, number: int) -> None:
    text = texts()[number]
    assert 0 < least_tokens(text) <= len(tokenizer.encode(text).ids)


def test_the_bound_is_no_more_than_four_times_too_low_for_prose() -> None:
    """A bound of nothing would refuse nothing."""
    for text in texts()[:1]:
        assert least_tokens(text) > len(text) / 16
