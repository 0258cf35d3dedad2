"""A prompt that is too long has one code, whoever says it and however."""

from __future__ import annotations

import json

import pytest

from providers.adapters.registry import adapter_for
from providers.errors import TOO_LONG, RequestRejected, refusal

SAID = {
    "openai": "This model's maximum context length is 8192 tokens. However, your messages resulted in 9000 tokens.",
    "responses": "Your input exceeds the context window of this model. Please adjust your input and try again.",
    "anthropic": "prompt is too long: 210000 tokens > 200000 maximum",
    "anthropic, both": "input length and `max_tokens` exceed context limit: 188240 + 21333 > 200000, decrease one",
    "gemini": "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).",
    "vertex": "The input token count is 30720 but model only supports up to 20480.",
    "bedrock": "Input is too long for requested model.",
    "mistral": "Prompt contains 40000 tokens and 0 draft tokens, too large for model with 32768 maximum context length",
    "cohere": "too many tokens: size limit exceeded by 8326 tokens. Try using shorter or fewer inputs.",
    "vllm": "max_tokens is too large: 5000. This model's maximum context length is 4096 tokens and your request has 9",
    "llama.cpp": "the request exceeds the available context size, try increasing it",
    "ollama": "the input length exceeds the context length",
    "lm studio": "the model is loaded with context length of only 4096 tokens",
    "tgi": "Input validation error: `inputs` must have less than 1024 tokens. Given: 1500",
    "together": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 8193. Given: 9000",
    "fireworks": "The prompt is too long: 40000, model maximum context length: 32768",
    "xai": "This model's maximum prompt length is 131072 but the request contains 537812 tokens.",
    "groq": "Please reduce the length of the messages or completion.",
    "sglang": "The input (5000 tokens) is longer than the model's context length (4096 tokens).",
}
OTHER = [
    "max_tokens is too large: 5000. This model supports at most 4096 completion tokens.",
    "Request too large for model on tokens per minute (TPM): Limit 6000, Requested 7000",
    "temperature: must be at most 2",
    "Invalid 'input': string too long. Expected a string with maximum length 256000.",
]


@pytest.mark.parametrize("who", SAID)
def test_every_servers_words_are_understood(who: str) -> None:
    for status in (400, 413, 422):
        error = refusal(status, SAID[who], code="validation_error")
        assert (type(error), error.code, error.elsewhere) == (RequestRejected, TOO_LONG, True)
    assert refusal(429, SAID[who]).code == "upstream_rate_limited", "the status decides what kind of refusal it is"


@pytest.mark.parametrize("message", OTHER)
def test_other_refusals_keep_their_code_and_end_the_request(message: str) -> None:
    error = refusal(400, message, code="theirs")
    assert (error.code, error.elsewhere) == ("theirs", False)


@pytest.mark.parametrize("kind", ["openai", "anthropic", "gemini", "custom"])
def test_the_adapters_pass_it_on(kind: str) -> None:
    for words in SAID.values():
        body = json.dumps({"type": "error", "error": {"message": words, "code": 400, "type": "invalid_request_error"}})
        assert adapter_for(kind, {}).parse_error(400, {}, body.encode()).code == TOO_LONG
