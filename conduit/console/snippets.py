"""Calls to paste: what a caller writes to use a key. A secret stands in them only on the page that shows it once."""

from __future__ import annotations

from django.http import HttpRequest

Snippet = dict[str, str]
FIRST_MODEL = "sandbox-echo"


def address(request: HttpRequest) -> str:
    """The address this console was opened at: callers reach the proxy at the same one."""
    return f"{request.scheme}://{request.get_host()}"


def curl(base: str, model: str, secret: str) -> str:
    return (
        f"curl {base}/v1/chat/completions \\\n"
        f'  -H "Authorization: Bearer {secret}" \\\n'
        '  -H "Content-Type: application/json" \\\n'
        f'  -d \'{{"model": "{model}", "messages": [{{"role": "user", "content": "hello"}}]}}\''
    )


def _python(base: str, model: str, secret: str) -> str:
    return (
        "from openai import OpenAI\n\n"
        f'client = OpenAI(base_url="{base}/v1", api_key={secret})\n'
        "answer = client.chat.completions.create(\n"
        f'    model="{model}",\n'
        '    messages=[{"role": "user", "content": "hello"}],\n'
        ")\n"
        "print(answer.choices[0].message.content)"
    )


def _anthropic(base: str, model: str, secret: str) -> str:
    return (
        "from anthropic import Anthropic\n\n"
        f'client = Anthropic(base_url="{base}", api_key={secret})\n'
        "answer = client.messages.create(\n"
        f'    model="{model}", max_tokens=256,\n'
        '    messages=[{"role": "user", "content": "hello"}],\n'
        ")\n"
        "print(answer.content[0].text)"
    )


def _gemini(base: str, model: str, secret: str) -> str:
    return (
        "from google import genai\n\n"
        f'client = genai.Client(api_key={secret}, http_options={{"base_url": "{base}"}})\n'
        f'answer = client.models.generate_content(model="{model}", contents="hello")\n'
        "print(answer.text)"
    )


def _tabs(tabs: list[tuple[str, str]]) -> list[Snippet]:
    return [{"ident": str(number), "title": title, "text": text} for number, (title, text) in enumerate(tabs, 1)]


def with_secret(base: str, model: str, secret: str) -> list[Snippet]:
    """For the one page that shows the secret."""
    env = (
        f"OPENAI_BASE_URL={base}/v1\nOPENAI_API_KEY={secret}\n\n"
        f"# the same key for Anthropic's SDK\nANTHROPIC_BASE_URL={base}\nANTHROPIC_API_KEY={secret}"
    )
    return _tabs(
        [
            (".env", env),
            ("curl", curl(base, model, secret)),
            ("Python", _python(base, model, f'"{secret}"')),
            ("Python, Anthropic", _anthropic(base, model, f'"{secret}"')),
            ("Python, Gemini", _gemini(base, model, f'"{secret}"')),
        ]
    )


def without_secret(base: str, model: str) -> list[Snippet]:
    """The key's secret comes from the environment variable CONDUIT_KEY."""
    read = 'os.environ["CONDUIT_KEY"]'
    return _tabs(
        [
            ("curl", curl(base, model, "$CONDUIT_KEY")),
            ("Python", "import os\n\n" + _python(base, model, read)),
            ("conduit", f"conduit chat {model} hello"),
        ]
    )
