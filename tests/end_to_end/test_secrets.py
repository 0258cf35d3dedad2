"""No secret can be found at rest, in logs, pages, answers or figures: after real traffic, errors included."""

from __future__ import annotations

import base64
import html
import json
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import redis

from conduit.core import keyring
from tests.end_to_end.canaries import Canaries, disguises
from tests.end_to_end.installation import Installation
from tests.end_to_end.tactless import MODELS, tactless_provider
from tests.end_to_end.visit import Visit
from tests.end_to_end.watching import Watcher, database_dump, tables, valkey_dump, watched
from tests.harness.gateway import wait_for
from tests.harness.speakers import SPEAKERS

SHOWN_ONCE = ("administrator: ", "password: ", "key: ", "curl ")
ODD = "\"\\<&'>+/=%"  # what JSON, HTML, URLs, COPY and MONITOR each write in their own way


def test_disguises_are_found_wherever_they_begin() -> None:
    secret = secrets.token_bytes(20)
    for lead in range(4):
        wrapped = base64.b64encode(bytes(lead) + secret + b"tail")
        assert any(form in wrapped for form in disguises(secret))
        assert any(form in base64.urlsafe_b64encode(bytes(lead) + secret) for form in disguises(secret))


def test_every_way_to_write_a_secret_is_searched_for() -> None:
    odd = f"sk-{ODD}{secrets.token_hex(2)}"
    assert len(odd) < 24, "its halves are not looked for"
    ways = [odd, odd.encode().hex(), quote(odd, safe=""), json.dumps({"a": odd}), html.escape(odd), repr(odd)]
    ways += [json.dumps(odd).replace("/", "\\/"), json.dumps(odd).replace("<", "\\u003C").replace(">", "\\u003E")]
    ways[-1] = ways[-1].replace("&", "\\u0026")
    canaries = Canaries({"odd": odd.encode()})
    assert [way for way in ways if not canaries.found_in(f"before {way} after".encode())] == []


def _configure(conduit: Installation, visit: Visit, tactless: str, canaries: dict[str, str]) -> None:
    """Providers with a right and a wrong credential, one that cannot be reached, and refusals on the way."""
    sandbox, typed = f"{conduit.sandbox}/v1", canaries["mistyped secret"]
    addresses = {"good": sandbox, "bad": sandbox, "gone": "http://127.0.0.1:9/v1", "tactless": tactless}
    for name, address in addresses.items():
        conduit.made("/providers", {"name": name, "kind": "custom", "base_url": address})
        secret = canaries["refused provider secret" if name == "bad" else "provider secret"]
        path = f"/providers/{name}/credentials"
        if name in ("bad", "tactless"):
            refused = visit.api("POST", path, {"name": "proved", "secret": secret})
            assert refused.status_code in (400, 422, 502), refused.text
        answer = visit.api("POST", path, {"name": "main", "secret": secret, "verify": name == "good"})
        assert answer.status_code == 201, answer.text
        assert visit.api("POST", path, {"name": "main", "secret": typed, "verify": False}).status_code == 409
        assert visit.api("POST", path, {"name": 5, "secret": typed}).status_code == 400
        assert visit.api("POST", path, {"name": "x", "secret": [typed]}).status_code == 400
        assert visit.api("POST", path, {"name": "x", "secert": typed}).status_code == 400
        visit.api("POST", f"/providers/{name}/test")
        visit.api("GET", f"/providers/{name}/models")
        for model in MODELS if name == "tactless" else ("sandbox-echo",):
            conduit.made("/prices", {"model": model, "provider": name, "rates": {"input": "1", "output": "1"}})
            route = {"name": f"to-{name}" + f"-{model}" * (name == "tactless")}
            conduit.made("/routes", route | {"targets": [{"provider": name, "model": model}]})


def _traffic(conduit: Installation, visit: Visit, key: str) -> None:
    conduit.know_all()
    for speaker in SPEAKERS.values():
        for route, status in ("to-good", 200), ("to-bad", 502), ("to-gone", 503), ("none", 404):
            answer = visit.keep(f"{speaker.name} {route}", speaker.ask(conduit.url, key, model=route))
            assert answer.status_code == status, answer.text
            visit.keep(f"{speaker.name} {route}", speaker.stream(conduit.url, key, model=route)[0])
        for model in MODELS:
            visit.keep(f"{speaker.name} {model}", speaker.ask(conduit.url, key, model=f"to-tactless-{model}"))
            visit.keep(f"{speaker.name} {model}", speaker.stream(conduit.url, key, model=f"to-tactless-{model}")[0])
        for status in 400, 401, 429, 500, 503:
            faults = {"x-sandbox-status": str(status)}
            visit.keep(f"{speaker.name} {status}", speaker.ask(conduit.url, key, headers=faults))
        for broken in (key[:-1], key + "0", f"x{key}"):
            assert visit.keep(speaker.name, speaker.ask(conduit.url, broken)).status_code == 401
        path = speaker.address("sandbox-echo", False)
        assert visit.keep(speaker.name, speaker.post(conduit.url, path, key, b"{")).status_code == 400
        mark = "&" if "?" in path else "?"
        visit.keep("key in URL", speaker.post(conduit.url, f"{path}{mark}key={key}&api_key={key}", "", b"{}"))
    visit.keep("own view", visit.http.get("/v1/key", headers={"x-api-key": key}))
    bearer = {"authorization": f"Bearer {key}"}
    visit.keep("management with a virtual key", visit.http.get("/api/v1/keys", headers=bearer))
    visit.keep("proxy with a token", SPEAKERS["openai"].ask(conduit.url, conduit.token))


def _console(conduit: Installation, visit: Visit, canaries: dict[str, str]) -> None:
    """Signs in (after a wrong password) and sends forms that are refused: those come back filled in."""
    owner, good = {"email": conduit.first["administrator"]}, canaries["provider secret"]
    visit.form("/login", {**owner, "password": canaries["mistyped secret"]})
    answer = visit.form("/login", {**owner, "password": conduit.first["password"]})
    assert answer.url.path != "/login"
    new = {"name": "by-hand", "credential": "main", "field-api_key": good}
    refused = visit.form("/providers/new?kind=custom", {**new, "base_url": "nowhere"})
    assert refused.status_code == 422
    assert "by-hand" in refused.text, "what was typed stays, but the secret"
    made = visit.form("/providers/new?kind=custom", {**new, "base_url": f"{conduit.sandbox}/v1"})
    assert made.status_code == 200, made.text[:500]
    pages = {
        "no CSRF token": visit.http.post("/providers/new?kind=custom", data=new),
        "no such page": visit.http.get("/nowhere"),
        "no such key": visit.http.get("/keys/00000000-0000-0000-0000-000000000000"),
        "foreign host": visit.http.get("/keys", headers={"host": "foreign.example"}),
    }
    assert [visit.keep(what, page).status_code for what, page in pages.items()] == [403, 404, 404, 400]


def _key_with_retry(conduit: Installation) -> str:
    """A key made under an Idempotency-Key: the stored answer, which holds the key, must be sealed."""
    headers = {"authorization": f"Bearer {conduit.token}", "idempotency-key": secrets.token_hex(12)}
    body = {"name": "canary", "budgets": [{"limit_usd": "1"}]}
    answers = [
        httpx.post(f"{conduit.url}/api/v1/keys", json=body, headers=headers, trust_env=False, verify=False)
        for _ in range(2)
    ]
    assert [answer.status_code for answer in answers] == [201, 201]
    assert answers[0].json()["key"] == answers[1].json()["key"]
    raw: str = answers[0].json()["key"]
    return raw


def _rotations(conduit: Installation, visit: Visit, made: dict[str, str], key: str) -> dict[str, str]:
    """Each secret gets a successor, once refused and once taken; keys are looked for as after a leak. The new ones."""
    fresh = {"rotated provider secret": f"sk-sandbox-{secrets.token_urlsafe(24)}{ODD}"}
    (credential,) = conduit.api("GET", "/providers/good/credentials").json()["data"]
    path = f"/credentials/{credential['id']}"
    refused = visit.api("POST", f"{path}/rotate", {"secret": made["refused provider secret"]})
    assert refused.status_code == 400, refused.text
    visit.done(f"{path}/rotate", {"secret": fresh["rotated provider secret"], "overlap_seconds": 3600})
    visit.done(f"{path}/verify")
    visit.done(f"{path}/finish")
    leaked = f"found {key} and {made['provider secret']} and {fresh['rotated provider secret']}"
    assert visit.done("/keys/identify", {"text": leaked}).json()["data"][0]["ours"]
    (row,) = [row for row in conduit.api("GET", "/keys").json()["data"] if row["name"] == "canary"]
    for step in ("rotate", "replace"):  # their answers show the new secret, for once
        answer = conduit.api("POST", f"/keys/{row['id']}/{step}", {})
        assert answer.status_code == 200, answer.text
        fresh[f"virtual key after {step}"] = answer.json()["key"][17:49]
    wait_for(lambda: SPEAKERS["openai"].ask(conduit.url, key).status_code == 401)
    conduit.command("kek", "add", "K2")
    conduit.command("kek", "rotate", "K2")
    for purpose in ("pepper", "token-pepper"):
        conduit.command("kek", "rotate-purpose", purpose)
    return fresh


def _keks(conduit: Installation) -> dict[str, bytes]:
    """Key-encryption keys of the embedded installation, by id."""
    lines = (conduit.home / "secrets" / "kek").read_text().split()
    pairs = (line.split("=", 1) for line in lines)
    return {name: base64.b64decode(text) for name, text in pairs if name != "PRIMARY"}


def _unwrapped(conduit: Installation) -> Iterator[tuple[str, bytes]]:
    """Every key that the database holds wrapped: those of purposes, and of each credential's versions."""
    keks = _keks(conduit)

    def opened(kek_id: str, blob: Any, *parts: str | int | bytes) -> bytes:
        inner = keyring.context("wrapped-key", kek_id, keyring.context(*parts))
        return keyring.open_sealed(keks[kek_id], bytes(blob), inner)

    versions = """
        SELECT v.credential_id, v.number, v.kek_id, v.wrapped_key, array_agg(f.name ORDER BY f.name)
        FROM providers_credentialversion v JOIN providers_credentialfield f ON f.version_id = v.id GROUP BY v.id
    """
    with conduit.database() as connection:
        purposes = "SELECT purpose, version, kek_id, wrapped FROM core_purposekey"
        for purpose, version, kek_id, blob in connection.execute(purposes).fetchall():
            yield f"{purpose} {version}", opened(kek_id, blob, "purpose-key", purpose, version)
        for credential, number, kek_id, blob, names in connection.execute(versions).fetchall():
            key = opened(kek_id, blob, "conduit-credential-1", credential.bytes, number, "data-key", *names)
            yield f"data key of {credential} v{number}", key


def _looked_everywhere(canaries: Canaries, visit: Visit, watcher: Watcher) -> list[str]:
    """While it runs: what it answered, printed, told its engines, and holds in them. The cookie is in answers."""
    conduit, kept = visit.conduit, conduit_folders(visit.conduit)
    hits = canaries.but("session").hits("answer", visit.answers)
    hits += canaries.hits("command's output", visit.read_commands())
    hits += canaries.hits("table", tables(conduit))
    hits += canaries.hits("dump", {"of the database": database_dump(conduit)})
    hits += canaries.hits("Valkey's key", valkey_dump(conduit))
    hits += canaries.hits("stream", {"of Valkey's commands": bytes(watcher.commands)})
    hits += canaries.hits("stream", {"of notifications": "\n".join(watcher.announced).encode()})
    hits += canaries.hits("stream", {"of statements": "\n".join(watcher.statements).encode()})
    hits += canaries.hits("command line", watcher.processes)
    hits += canaries.but("metrics token").hits("environment", watcher.environments)
    return hits + canaries.hits_in_files(conduit.home, but=kept)


def conduit_folders(conduit: Installation) -> tuple[Path, ...]:
    """Where secrets belong, and what the tables have already shown while the server still writes it."""
    return (conduit.home / "secrets", conduit.home / "postgres" / "base")


def test_no_secret_is_found_anywhere_after_traffic_and_errors(conduit: Installation) -> None:
    made = {
        "provider secret": f"sk-sandbox-{secrets.token_urlsafe(24)}{ODD}",
        "refused provider secret": f"sk-wrong-{secrets.token_urlsafe(24)}{ODD}",
        "mistyped secret": f"sk-typed-{secrets.token_urlsafe(24)}{ODD}",
    }
    visit = Visit(conduit)
    with visit.http, tactless_provider() as tactless, watched(conduit) as watcher:
        _configure(conduit, visit, tactless, made)
        key = _key_with_retry(conduit)
        token = conduit.made("/tokens", {"name": "canary", "role": "auditor"})["token"]
        password = conduit.command("users", "create", "--email", "canary@example.org", "--role", "auditor").strip()
        _traffic(conduit, visit, key)
        _console(conduit, visit, made)
        before = dict(_unwrapped(conduit))
        made |= _rotations(conduit, visit, made, key)
        assert visit.crawl() > 15
        visit.read_api()
        session = visit.http.cookies["conduit_session"]
    made |= {"virtual key": key[17:49], "first key": conduit.first["key"][17:49]}
    made |= {"management token": token[17:49], "first management token": conduit.token[17:49]}
    made |= {"password": conduit.first["password"], "second password": password.split()[-1], "session": session}
    made |= {"Django's key": (conduit.home / "secrets" / "django_secret_key").read_text().strip()}
    made |= {"metrics token": conduit.environment["CONDUIT_METRICS_TOKEN"]}
    keys = {f"key-encryption key {name}": kek for name, kek in _keks(conduit).items()}
    keys |= before | dict(_unwrapped(conduit))
    canaries = Canaries({name: text.encode() for name, text in made.items()} | keys)
    assert canaries.found_in((conduit.home / "secrets" / "kek").read_bytes()) == {
        "key-encryption key K1",
        "key-encryption key K2",
    }
    assert "\n".join(_looked_everywhere(canaries, visit, watcher)) == ""
    assert set(watcher.cores.values()) == {"0"}, "a core file of a web process would hold what it opened"
    conduit.terminate()
    assert conduit.ended() == 0
    # Once more at rest: the last pages are written, the write-ahead log is whole, buffers of logs are flushed.
    assert canaries.hits_in_files(conduit.home, but=(conduit.home / "secrets",)) == []
    printed = [line for line in conduit.out.read_text().splitlines() if not line.startswith(SHOWN_ONCE)]
    told = {"standard output": "\n".join(printed).encode(), "standard error": conduit.err.read_bytes()}
    assert canaries.hits("log", told) == []
    places = ", ".join(f"{number} {kind}s" for kind, number in canaries.search.places.items())
    print(
        f"V1: {len(canaries.secrets)} secrets in {len(canaries.needles)} forms, hits 0 in "
        f"{sum(canaries.search.places.values())} places ({places}; {canaries.search.read >> 20} MiB)"
    )


def test_the_search_finds_what_is_planted_in_each_kind_of_place(conduit: Installation) -> None:
    """The negative control: the same search, on the same installation, with a secret that was left lying about."""
    planted = f"sk-planted-{secrets.token_urlsafe(24)}{ODD}"
    canaries = Canaries({"planted": planted.encode()})
    folder = conduit.home / "journal"
    file = folder / "planted"
    message = json.dumps({"body": base64.b64encode(json.dumps([planted]).encode()).decode()})
    with watched(conduit) as watcher, conduit.database() as connection:
        connection.execute("CREATE TABLE planted AS SELECT %s::text, convert_to(%s, 'UTF8')", [planted, planted])
        connection.commit()
        connection.execute("SELECT pg_notify('conduit', %s), pg_switch_wal()", [f"planted:{planted}"])
        connection.commit()
        url = json.loads((conduit.home / "run" / "engines.json").read_text())["valkey_url"]
        with redis.Redis.from_url(url) as valkey:
            valkey.lpush("planted", message)
            wait_for(lambda: b"planted" in watcher.commands and bool(watcher.announced))
            file.write_bytes(bytes(8000) + planted.encode().hex().encode() + bytes(9000))
            seen = {
                "table": canaries.hits("table", tables(conduit)),
                "dump": canaries.hits("dump", {"database": database_dump(conduit)}),
                "Valkey": canaries.hits("key", valkey_dump(conduit)),
                "commands": canaries.hits("stream", {"commands": bytes(watcher.commands)}),
                "notices": canaries.hits("stream", {"notices": "\n".join(watcher.announced).encode()}),
                "files": canaries.hits_in_files(conduit.home, but=(conduit.home / "postgres",)),
                "write-ahead log": canaries.hits_in_files(conduit.home / "postgres" / "pg_wal", but=()),
            }
            valkey.delete("planted")
        connection.execute("DROP TABLE planted")
    file.unlink()
    assert [kind for kind, hits in seen.items() if not hits] == []
    assert seen["files"] == ["planted in file journal/planted"]
