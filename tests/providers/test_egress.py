"""What upstream base URLs may name, however they are written (testing S5)."""

from __future__ import annotations

import asyncio
import http.server
import socket
import threading
from collections.abc import Iterator

import httpx
import pytest

from conduit.core.errors import InvalidInput
from providers import egress
from providers.errors import ConnectFailed, EgressRefused

PRIVATE_FORMS = [
    "https://127.0.0.1/v1",
    "https://127.1/",
    "https://127.0.1/",
    "https://127.255.255.254:8443/",
    "https://2130706433/",
    "https://017700000001/",
    "https://0x7f000001/",
    "https://0x7f.0.0.1/",
    "https://0177.0.0.1/",
    "https://0177.0.0.01/",
    "https://127.0.0.1./",
    "https://0/",
    "https://0.0.0.0/",
    "https://0x0/",
    "https://[::]/",
    "https://[::1]/",
    "https://[0:0:0:0:0:0:0:1]/",
    "https://[::ffff:127.0.0.1]/",
    "https://[::ffff:7f00:1]/",
    "https://[0:0:0:0:0:ffff:10.0.0.1]/",
    "https://[::127.0.0.1]/",
    "https://[64:ff9b::127.0.0.1]/",
    "https://[64:ff9b::a9fe:a9fe]/",
    "https://[64:ff9b:1::a00:1]/",
    "https://[2002:7f00:1::]/",
    "https://[2002:a9fe:a9fe::1]/",
    "https://[2001:0:4136:e378:8000:63bf:3fff:fdd2]/",
    "https://[fe80::1]/",
    "https://[fe80::1%25eth0]/",
    "https://[fe80::1%eth0]/",
    "https://[fec0::1]/",
    "https://[fc00::1]/",
    "https://[fd00:ec2::254]/",
    "https://[fd20:ce::254]/",
    "https://[ff02::1]/",
    "https://[2001:db8::1]/",
    "https://[100::1]/",
    "https://10.0.0.1/",
    "https://172.16.0.1/",
    "https://172.31.255.255/",
    "https://192.168.1.1/",
    "https://100.64.0.1/",
    "https://100.100.100.200/",
    "https://169.254.169.254/latest/meta-data/",
    "https://169.254.170.2/",
    "https://2852039166/",
    "https://0xA9FEA9FE/",
    "https://168.63.129.16/",
    "https://192.0.0.192/",
    "https://192.0.2.1/",
    "https://198.18.0.1/",
    "https://198.51.100.7/",
    "https://203.0.113.9/",
    "https://192.88.99.1/",
    "https://224.0.0.1/",
    "https://239.255.255.250/",
    "https://240.0.0.1/",
    "https://255.255.255.255/",
    "https://localhost/",
    "https://LOCALHOST/",
    "https://localhost./",
    "https://api.localhost/",
    "https://ip6-localhost/",
    "https://metadata.google.internal/",
    "https://metadata/",
    "https://①②⑦.⓪.⓪.①/",
    "https://127。0。0。1/",
    "https://127.0.0.1/",
    "https://ⓛⓞⓒⓐⓛⓗⓞⓢⓣ/",
    "https://user@127.0.0.1/",
    "https://api.openai.com@127.0.0.1/",
    "https://api.openai.com:443@10.0.0.1/",
    "https://api.openai.com\\@127.0.0.1/",
    "https://127.0.0.1\\.api.openai.com/",
    "https://127.0.0.1%2f.api.openai.com/",
    "https://127.0.0.1%00.api.openai.com/",
    "https://%31%32%37.0.0.1/",
    "https://api.openai.com\t.127.0.0.1/",
    "https://api.openai.com /",
    "https://api.openai.com\r\nHost: x/",
    "https://api..openai.com/",
    "https://api.openai.com./",
    "https://-api.openai.com/",
    "https://api.openai.com:0/",
    "https://api.openai.com:99999/",
    "https://api.openai.com:/",
    "https://api.openai.com/v1?x=1",
    "https://api.openai.com/v1#x",
    "https:///v1",
    "https://",
    "//127.0.0.1/",
    "api.openai.com/v1",
    "file:///etc/passwd",
    "gopher://127.0.0.1/",
    "ftp://api.openai.com/",
    "unix:///run/x.sock",
    "javascript:alert(1)",
    "",
    "https://api.openai.com/" + "a" * 2_000,
    "https://" + "a" * 64 + ".com/",
]


@pytest.mark.parametrize("url", PRIVATE_FORMS)
def test_no_form_of_a_private_or_odd_address_passes(url: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        egress.check_url(url, allow=[])
    assert refused.value.field == "base_url"


@pytest.mark.parametrize(
    "url",
    [
        "https://api.openai.com/v1",
        "https://API.OpenAI.com:8443/v1",
        "https://8.8.8.8/v1",
        "https://[2606:4700:4700::1111]/",
        "https://bücher.example/v1",
        "https://my_models.example.org",
    ],
)
def test_public_addresses_pass(url: str) -> None:
    egress.check_url(url, allow=[])


def test_a_calls_address_may_have_a_query_and_is_judged_like_a_base_url() -> None:
    egress.check_call(
        "https://generativelanguage.googleapis.com/v1beta/models/m:streamGenerateContent?alt=sse", allow=[]
    )
    for url in ("https://127.0.0.1/?x=https://api.openai.com", "https://10.0.0.1?a", "http://api.openai.com/?b"):
        with pytest.raises(EgressRefused):
            egress.check_call(url, allow=[])


def test_plain_http_is_refused_where_the_host_is_not_in_the_allow_list() -> None:
    with pytest.raises(InvalidInput, match="must be https"):
        egress.check_url("http://api.openai.com/v1", allow=[])
    with pytest.raises(InvalidInput, match="must be https"):
        egress.check_url("http://8.8.8.8/v1", allow=["127.0.0.1"])
    egress.check_url("http://api.openai.com/v1", allow=["api.openai.com"])


@pytest.mark.parametrize(
    ("url", "allow"),
    [
        ("http://127.0.0.1:9/v1", ["127.0.0.1"]),
        ("http://[::ffff:127.0.0.1]:9/v1", ["127.0.0.1"]),
        ("http://localhost:11434/v1", ["127.0.0.1"]),
        ("http://localhost:11434/v1", ["localhost"]),
        ("https://10.1.2.3/v1", ["10.0.0.0/8"]),
        ("http://10.1.2.3/v1", ["models.internal", "10.0.0.0/8"]),
        ("http://models.internal/v1", ["models.internal"]),
        ("http://MODELS.internal/v1", ["Models.Internal"]),
        ("http://[fd12::7]/v1", ["fd12::/16"]),
        ("http://127.0.0.1:8081/v1", ["127.0.0.1:8081"]),
        ("http://[::1]:8081/v1", ["[::1]:8081"]),
        ("https://169.254.169.254/", ["169.254.169.254"]),
        ("https://[64:ff9b::808:808]/", ["64:ff9b::/96"]),
    ],
)
def test_entries_of_the_allow_list_open_what_they_name(url: str, allow: list[str]) -> None:
    egress.check_url(url, allow=allow)


@pytest.mark.parametrize(
    ("url", "allow"),
    [
        ("https://127.0.0.2/", ["127.0.0.1"]),
        ("https://11.0.0.1.nip.internal./", ["10.0.0.0/8"]),
        ("http://127.0.0.1:8082/v1", ["127.0.0.1:8081"]),
        ("http://127.0.0.1/v1", ["127.0.0.1:8081"]),
        ("http://localhost:8082/v1", ["127.0.0.1:8081"]),
        ("https://169.254.169.254/", ["169.254.0.0/16"]),
        ("https://169.254.169.254/", ["0.0.0.0/0"]),
        ("https://100.100.100.200/", ["100.64.0.0/10"]),
        ("https://0.0.0.0/", ["0.0.0.0/0"]),
        ("https://[64:ff9b::7f00:1]/", ["64:ff9b::/96"]),
        ("https://evil.models.internal.localhost/", ["models.internal"]),
        ("https://10.0.0.1/", ["not a network/8", "", "10.0.0.1x"]),
    ],
)
def test_entries_of_the_allow_list_open_nothing_else(url: str, allow: list[str]) -> None:
    with pytest.raises(InvalidInput):
        egress.check_url(url, allow=allow)


def test_a_name_in_the_allow_list_reaches_private_addresses_but_never_metadata() -> None:
    found = ["10.0.0.5", "169.254.169.254", "fd00:ec2::254", "fe80::1", "fe80::1%eth0", "0.0.0.0", "100.100.100.200"]
    found.append("8.8.8.8")
    assert egress.permitted("models.internal", found, allow=["models.internal"]) == ["10.0.0.5", "8.8.8.8"]
    assert egress.permitted("models.internal", found, allow=[]) == ["8.8.8.8"]
    assert egress.permitted("other.internal", found, allow=["models.internal"]) == ["8.8.8.8"]


@pytest.fixture
def dns(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """What names resolve to in this test: the world outside is replaced at getaddrinfo."""
    names: dict[str, list[str]] = {}

    def lookup(host: str, port: int, *rest: object, **more: object) -> list[tuple[object, ...]]:
        if host != "127.0.0.1" and host not in names:
            raise socket.gaierror("no such name")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (found, port)) for found in names.get(host, [host])]

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    return names


def test_a_public_name_that_resolves_to_private_addresses_is_refused(dns: dict[str, list[str]]) -> None:
    dns["rebind.example"] = ["127.0.0.1", "::1", "169.254.169.254"]
    with pytest.raises(EgressRefused, match=r"rebind\.example"):
        egress.resolve("rebind.example", 443, allow=[])
    with pytest.raises(EgressRefused):
        asyncio.run(egress.resolve_async("rebind.example", 443, allow=[]))
    with pytest.raises(InvalidInput):
        egress.check_resolved("https://rebind.example/v1", allow=[])


def test_of_a_mixed_answer_only_permitted_addresses_remain(dns: dict[str, list[str]]) -> None:
    dns["mixed.example"] = ["10.0.0.1", "8.8.8.8", "::ffff:8.8.4.4"]
    assert egress.resolve("mixed.example", 443, allow=[]) == ["8.8.8.8", "8.8.4.4"]
    assert asyncio.run(egress.resolve_async("mixed.example", 443, allow=[])) == ["8.8.8.8", "8.8.4.4"]


def test_a_name_that_does_not_resolve_says_so_and_may_be_saved(dns: dict[str, list[str]]) -> None:
    with pytest.raises(ConnectFailed, match=r"nowhere\.example does not resolve"):
        egress.resolve("nowhere.example", 443, allow=[])
    egress.check_resolved("https://nowhere.example", allow=[])


class Upstream(http.server.BaseHTTPRequestHandler):
    seen: list[str]

    def do_GET(self) -> None:
        type(self).seen.append(self.headers["host"])
        self.send_response(302 if self.path == "/away" else 200)
        self.send_header("location", "http://127.0.0.1:1/")
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *rest: object) -> None:
        return


@pytest.fixture
def upstream() -> Iterator[tuple[int, list[str]]]:
    seen: list[str] = []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Seen", (Upstream,), {"seen": seen}))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.server_address[1], seen
    server.shutdown()
    server.server_close()
    thread.join()


def test_the_client_connects_to_the_checked_address_and_keeps_the_name(
    upstream: tuple[int, list[str]], dns: dict[str, list[str]]
) -> None:
    port, seen = upstream
    dns["models.internal"] = ["127.0.0.1"]
    with egress.client(allow=["models.internal"]) as client:
        assert client.get(f"http://models.internal:{port}/v1/models?limit=5").text == "ok"
    assert seen == [f"models.internal:{port}"]


def test_the_client_follows_no_redirect_and_ignores_proxies_of_the_environment(
    upstream: tuple[int, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    port, seen = upstream
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    with egress.client(allow=["127.0.0.1"]) as client:
        assert client.get(f"http://127.0.0.1:{port}/away").status_code == 302
    assert len(seen) == 1


def test_the_client_reaches_nothing_that_the_policy_refuses(
    upstream: tuple[int, list[str]], dns: dict[str, list[str]]
) -> None:
    port, seen = upstream
    dns["rebind.example"] = ["127.0.0.1"]
    with egress.client(allow=[]) as client:
        for url in (f"http://127.0.0.1:{port}/", f"https://rebind.example:{port}/", f"http://rebind.example:{port}/"):
            with pytest.raises(EgressRefused):
                client.get(url)
    assert seen == []


def test_a_name_that_changes_its_address_after_the_check_is_not_asked_again(
    upstream: tuple[int, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    port, seen = upstream
    answers = iter([["127.0.0.1"], ["127.0.0.2"], ["127.0.0.3"]])
    asked: list[str] = []

    def lookup(host: str, port: int, *rest: object, **more: object) -> list[tuple[object, ...]]:
        if host == "flip.internal":
            asked.append(host)
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in next(answers)]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port))]

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    with egress.client(allow=["flip.internal"]) as client:
        assert client.get(f"http://flip.internal:{port}/").status_code == 200
    assert asked == ["flip.internal"]
    assert len(seen) == 1


def test_an_upstream_that_is_not_there_is_reported_by_name() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        with (
            egress.client(allow=["127.0.0.1"]) as client,
            pytest.raises(ConnectFailed, match=r"127\.0\.0\.1 could not be reached"),
        ):
            client.get(f"http://127.0.0.1:{held.getsockname()[1]}/")


def test_tls_is_verified_against_the_name_not_the_address() -> None:
    request = httpx.Request("GET", "https://api.openai.com/v1/models")
    pinned = egress._pinned(request, "api.openai.com", "8.8.8.8")
    assert pinned.url.host == "8.8.8.8"
    assert pinned.extensions["sni_hostname"] == "api.openai.com"
    assert pinned.headers["host"] == "api.openai.com"
