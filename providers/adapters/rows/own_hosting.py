"""Models with open weights: Meta's own service, and servers that one runs oneself.

Servers take no key unless one is set, live on private addresses (CONDUIT_EGRESS_ALLOW must name them), and have no
price in any list: under a hard budget an operator gives their models one, be it 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from providers.adapters.kinds import COMPATIBLE, Capabilities, FieldSpec, ProviderKind, optional
from providers.adapters.quirks import PLAIN
from providers.adapters.rows.compatible import LEGACY, claimed, compatible
from providers.adapters.types import Dialect

_KEY = (optional("api_key", "Key that the server was started with; none when it needs none"),)

_LLAMA = Capabilities(reasoning=False, stop=False, seed=False, penalties=False, several=False)
_VLLM = Capabilities(audio_in=True, logprobs=True, embeddings=True)
_LLAMACPP = Capabilities(audio_in=True, several=False, logprobs=True, embeddings=True)
_LMSTUDIO = Capabilities(several=False, logprobs=False, embeddings=True)


def _own(how: str) -> Mapping[str, str]:
    return MappingProxyType(
        {
            "upstream_auth_failed": f"The server rejected the key: {how}",
            "egress_refused": "Name the server's address in CONDUIT_EGRESS_ALLOW: private ones are closed otherwise.",
            "upstream_unavailable": "Is the server running, does it listen on this address, and has it loaded a model?",
        }
    )


def _server(kind: str, title: str, base_url: str, claims: Capabilities, key_from: str) -> ProviderKind:
    """A server that speaks OpenAI's wire format. `key_from`: in words, where its key is found."""
    return ProviderKind(
        kind=kind,
        title=title,
        base_url=base_url,
        adapters={Dialect.OPENAI: COMPATIBLE},
        fields=_KEY,
        endpoints=LEGACY,
        capabilities=claims,
        quirks=claimed(PLAIN, claims),
        price_provider="",
        key_hint="",
        guidance=_own(key_from),
    )


ROWS = (
    compatible(
        "llama",
        "Meta Llama API",
        "https://api.llama.com/compat/v1",
        key="LLM|",
        pages=("https://llama.developer.meta.com", "https://llama.developer.meta.com/docs/rate-limits"),
        capabilities=_LLAMA,
        prices="meta",
        models=("Llama-*",),
    ),
    ProviderKind(
        kind="ollama",
        title="Ollama",
        base_url="http://127.0.0.1:11434",
        adapters={
            Dialect.OLLAMA: "providers.adapters.ollama:OllamaAdapter",
            Dialect.OPENAI: "providers.adapters.ollama_compatible:OllamaCompatibleAdapter",
        },
        fields=(optional("api_key", "Key of a proxy before the server, or of Ollama's cloud; none otherwise"),),
        options=(
            FieldSpec("dialect", secret=False, required=False, help="ollama (its own API, default) or openai"),
            FieldSpec(
                "num_ctx", secret=False, required=False, help="Tokens of context to load models with", shape="number"
            ),
            FieldSpec(
                "keep_alive", secret=False, required=False, help="How long models stay loaded, e.g. 5m, 24h or -1m"
            ),
        ),
        endpoints=LEGACY,
        capabilities=Capabilities(tool_choice=False, several=False, logprobs=True, embeddings=True),
        price_provider="",
        key_hint="",
        guidance=_own("Ollama itself takes none, so look at the proxy before it, or make one at ollama.com."),
    ),
    _server(
        "vllm",
        "vLLM",
        "http://127.0.0.1:8000/v1",
        _VLLM,
        "it is the one given to vllm serve by --api-key or VLLM_API_KEY.",
    ),
    _server(
        "llamacpp",
        "llama.cpp server",
        "",
        _LLAMACPP,
        "it is the one given to llama-server by --api-key or --api-key-file.",
    ),
    _server(
        "lmstudio",
        "LM Studio",
        "http://127.0.0.1:1234/v1",
        _LMSTUDIO,
        "see Developer, Server Settings in LM Studio.",
    ),
)
