"""Helpers of run.sh, standard library only.

tools.py pids FILE            process ids of all sessions listed in FILE
tools.py cpu FILE             CPU seconds those processes have used so far
tools.py meter FILE OUT SECS  write the peak memory of those processes to OUT until ended
tools.py check ...            one request; fails unless the answer is whole and the expected one
tools.py get PATH             read JSON on standard input, print the value at a.b.0.c
tools.py report FILE          the markdown tables
"""

import json
import os
import signal
import statistics
import sys
import time
import urllib.error
import urllib.request

TICK = os.sysconf("SC_CLK_TCK")


def stat(pid):
    with open(f"/proc/{pid}/stat") as f:
        return f.read().rpartition(")")[2].split()  # [0] state, [3] session, [11..14] times


def pids(path):
    try:
        with open(path) as f:
            sessions = set(f.read().split())
    except FileNotFoundError:
        return []
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            s = stat(pid)
        except OSError:
            continue
        if s[3] in sessions and s[0] != "Z":
            found.append(pid)
    return found


def cpu(path):
    total = 0
    for pid in pids(path):
        try:
            total += sum(map(int, stat(pid)[11:15]))
        except OSError:
            pass
    return total / TICK


def memory(path):
    """Resident memory in KiB, pages that several of the processes share counted once (sum of PSS)."""
    total = 0
    for pid in pids(path):
        try:
            with open(f"/proc/{pid}/smaps_rollup") as f:
                total += next(int(line.split()[1]) for line in f if line.startswith("Pss:"))
        except (OSError, StopIteration):
            try:
                with open(f"/proc/{pid}/statm") as f:
                    total += int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024
            except OSError:
                pass
    return total


def meter(path, out, seconds):
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    peak = 0
    first = memory(path)
    while True:
        peak = max(peak, memory(path))
        with open(out + ".new", "w") as f:
            json.dump({"start_mb": round(first / 1024, 1), "peak_mb": round(peak / 1024, 1)}, f)
        os.replace(out + ".new", out)
        time.sleep(float(seconds))


def check(url, model, key, headers, expect, end=True):
    """expect 0: a plain answer; else a stream with so many content chunks, and [DONE] unless told otherwise."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": "Why is the sky blue?"}],
        "temperature": 0.2,
        "max_tokens": 256,
    }
    if expect:
        body.update(stream=True)
        if not url.endswith("/v1/messages"):
            body["stream_options"] = {"include_usage": True}
    send = {"Content-Type": "application/json"}
    if key:
        send["Authorization"] = f"Bearer {key}"
    for line in headers.split("|"):
        name, _, value = line.partition(":")
        if name.strip():
            send[name.strip()] = value.strip()
    request = urllib.request.Request(url, json.dumps(body).encode(), send)
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=20) as answer:
            text = answer.read().decode()
    except urllib.error.HTTPError as e:
        sys.exit(f"{url}: status {e.code}: {e.read()[:300]!r}")
    except OSError as e:
        sys.exit(f"{url}: {e}")
    if expect:
        last = "message_stop" if url.endswith("/v1/messages") else "[DONE]"
        if text.count("zq7") != expect or (end and last not in text):
            sys.exit(f"{url}: {text.count('zq7')} of {expect} chunks, end marker {last in text}")
        return
    answer = json.loads(text)
    if not answer["choices"][0]["message"]["content"].startswith("Benchmark answer"):
        sys.exit(f"{url}: not the upstream's answer: {text[:300]}")
    if answer["usage"]["total_tokens"] != 53:
        sys.exit(f"{url}: usage lost: {text[:300]}")


def get(path):
    value = json.load(sys.stdin)
    for part in path.split("."):
        value = value[int(part)] if isinstance(value, list) else value[part]
    print(value)


# --- report -------------------------------------------------------------------------------------------------------


def median(values):
    values = [v for v in values if v is not None]
    return statistics.median(values) if values else None


def num(value, digits=0, plus=False):
    if value is None:
        return "–"
    text = f"{value:+,.{digits}f}" if plus else f"{value:,.{digits}f}"
    return text.replace(",", " ")


def us(value, plus=False):
    """Microseconds, shown in milliseconds."""
    if value is None:
        return "–"
    return num(value / 1000, 3 if abs(value) < 10000 else 1, plus)


def table(head, rows):
    print("| " + " | ".join(head) + " |")
    print("|" + "|".join(" --- " if i == 0 else " ---: " for i in range(len(head))) + "|")
    for row in rows:
        print("| " + " | ".join(row) + " |")
    print()


def report(path):
    with open(path) as f:
        lines = [json.loads(line) for line in f]
    order, by, notes, skipped = [], {}, {}, []
    for line in lines:
        name = line["gateway"]
        if line["kind"] == "skip":
            skipped.append(f"{name}: {line['reason']}")
            continue
        if line["kind"] == "about":
            notes[name] = line["version"]
            order.append(name)
            by[name] = {}
            continue
        by[name].setdefault(line["kind"], []).append(line)

    sums = {}
    for name in order:
        runs = by[name]
        m = lambda kind, key, runs=runs: median([r.get(key) for r in runs.get(kind, [])])  # noqa: E731
        bad = sum(r.get("errors", 0) + r.get("non_2xx", 0) + r.get("bad", 0) for k in runs.values() for r in k)
        rates = [r["requests"] / r["seconds"] for r in runs.get("c32", [])]
        sums[name] = {
            "rps": median(rates),
            "spread": (max(rates) - min(rates)) / median(rates) if rates else None,
            "c1_p50": m("c1", "p50_us"),
            "c1_p99": m("c1", "p99_us"),
            "c32_p50": m("c32", "p50_us"),
            "c32_p99": m("c32", "p99_us"),
            "chunks": m("fast", "chunks_per_s"),
            "ttfb_p50": m("paced", "ttfb_p50_us"),
            "ttfb_p99": m("paced", "ttfb_p99_us"),
            "paced": m("paced", "chunks_per_s"),
            "peak": m("memory", "peak_mb"),
            "start": m("memory", "start_mb"),
            "cpu": median(
                [1000 * r["cpu_s"] / r["requests"] for r in runs.get("c32", []) if r.get("cpu_s") is not None]
            ),
            "cpu_fast": median(
                [1e6 * r["cpu_s"] / r["chunks"] for r in runs.get("fast", []) if r.get("cpu_s") and r["chunks"]]
            ),
            "cpu_paced": median(
                [1e6 * r["cpu_s"] / r["chunks"] for r in runs.get("paced", []) if r.get("cpu_s") and r["chunks"]]
            ),
            "cpu_cross": median(
                [1e6 * r["cpu_s"] / r["chunks"] for r in runs.get("cross", []) if r.get("cpu_s") and r["chunks"]]
            ),
            "bad": bad,
        }
    base = sums.get("direct")
    diff = lambda s, key: None if not base or s is base or s[key] is None else s[key] - base[key]  # noqa: E731

    table(
        [
            "gateway",
            "req/s c=32",
            "p50 c=1 ms",
            "added",
            "p99 c=1 ms",
            "added",
            "p50 c=32 ms",
            "p99 c=32 ms",
            "chunks/s 16 streams",
            "TTFB added p50 ms",
            "TTFB added p99 ms",
            "peak memory MB",
            "CPU ms/request",
            "CPU us/chunk paced",
            "across dialects",
            "failed",
        ],
        [
            [
                name,
                num(s["rps"]),
                us(s["c1_p50"]),
                us(diff(s, "c1_p50"), True),
                us(s["c1_p99"]),
                us(diff(s, "c1_p99"), True),
                us(s["c32_p50"]),
                us(s["c32_p99"]),
                num(s["chunks"]),
                us(diff(s, "ttfb_p50"), True) if s is not base else f"({us(s['ttfb_p50'])})",
                us(diff(s, "ttfb_p99"), True) if s is not base else f"({us(s['ttfb_p99'])})",
                num(s["peak"]),
                num(s["cpu"] or None, 3),
                num(s["cpu_paced"]),
                num(s["cpu_cross"]),
                str(s["bad"]),
            ]
            for name, s in sums.items()
        ],
    )
    pivot = next(
        (n for n in (os.environ.get("BENCH_PIVOT"), "conduit", "bare-asgi", "litellm", "nginx") if n in sums), None
    )
    if pivot and len(sums) > 2:
        p = sums[pivot]

        def ratio(a, b):
            if a is None or b is None or b <= 0 or a <= 0:
                return "–"
            return f"{a / b:.2f}×"

        print(
            f"Ratios, {pivot} ÷ the other (first and fourth column: more is better for {pivot}; the rest: less is).\n"
        )
        table(
            [
                "against",
                "req/s",
                "added p50 c=1",
                "p99 c=32",
                "chunks/s",
                "TTFB added p50",
                "peak memory",
                "CPU/request",
                "CPU/chunk",
                "across dialects",
            ],
            [
                [
                    name,
                    ratio(p["rps"], s["rps"]),
                    ratio(diff(p, "c1_p50"), diff(s, "c1_p50")),
                    ratio(p["c32_p99"], s["c32_p99"]),
                    ratio(p["chunks"], s["chunks"]),
                    ratio(diff(p, "ttfb_p50"), diff(s, "ttfb_p50")),
                    ratio(p["peak"], s["peak"]),
                    ratio(p["cpu"], s["cpu"]),
                    ratio(p["cpu_paced"], s["cpu_paced"]),
                    ratio(p["cpu_cross"], s["cpu_cross"] or s["cpu_paced"]),
                ]
                for name, s in sums.items()
                if name not in (pivot, "direct")
            ],
        )
    for name, s in sums.items():
        extra = f"; CPU {num(s['cpu_fast'], 1)} us/chunk in the flood" if s["cpu_fast"] else ""
        print(
            f"- {name}: {notes[name]}; spread of req/s over the rounds {num(100 * (s['spread'] or 0), 1)} %; "
            f"paced chunks/s {num(s['paced'])}; memory at start {num(s['start'])} MB{extra}"
        )
    for line in skipped:
        print(f"- could not be run here: {line}")
    drift = [r for r in by.get("direct", {}).get("drift", [])]
    if drift and base:
        d = drift[-1]
        print(
            f"- drift: direct again at the end {num(d['requests'] / d['seconds'])} req/s "
            f"({num(100 * (d['requests'] / d['seconds'] / base['rps'] - 1), 1, True)} %); "
            "over 5 % either way: run again on a quieter machine"
        )


def main(argv):
    command, args = argv[0], argv[1:]
    if command == "pids":
        print(" ".join(pids(args[0])))
    elif command == "cpu":
        print(cpu(args[0]))
    elif command == "meter":
        meter(*args)
    elif command == "check":
        check(args[0], args[1], args[2], args[3], int(args[4]), args[5:] != ["no-end"])
    elif command == "get":
        get(args[0])
    elif command == "report":
        report(args[0])
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
