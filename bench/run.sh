#!/usr/bin/env bash
# Side-by-side benchmark of LLM gateways. Usage: run.sh [GATEWAY...]; the gateways are the names in gateways/.
# `direct` is always measured first: everything "added" is against it. See README.md.
set -u
BENCH=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
: "${BENCH_CACHE:=${XDG_CACHE_HOME:-$HOME/.cache}/gateway-bench}" "${GW_CORE:=0}" "${LOAD_CORE:=1}" "${PORT:=19400}"
: "${ROUNDS:=3}" "${WARM_S:=5}" "${C1_S:=5}" "${C32_S:=8}" "${FAST_S:=6}" "${PACED_S:=8}" "${STREAMS:=16}"
: "${FAST_TOKENS:=200}" "${PACED_TOKENS:=25}" "${PACED_RATE:=50}"
CHAT_PORT=$((PORT + 1)) FAST_PORT=$((PORT + 2)) PACED_PORT=$((PORT + 3)) GW_PORT=$((PORT + 10))
RUN=$(mktemp -d -t gateway-bench.XXXXXX)
OUT=${OUT:-$RUN/results.jsonl}
export BENCH BENCH_CACHE GW_CORE LOAD_CORE RUN CHAT_PORT FAST_PORT PACED_PORT GW_PORT FAST_TOKENS PACED_TOKENS PACED_RATE
# what a gateway script points its gateway at
export CHAT_UP=http://127.0.0.1:$CHAT_PORT FAST_UP=http://127.0.0.1:$FAST_PORT PACED_UP=http://127.0.0.1:$PACED_PORT
unset http_proxy https_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY all_proxy
. "$BENCH/lib.sh"

for tool in wrk nginx node python3 curl taskset setsid; do
  command -v $tool >/dev/null || { say "run.sh needs $tool"; exit 2; }
done
mkdir -p "$BENCH_CACHE"
end_meter() { [ -s "$RUN/meter.pid" ] && kill "$(cat "$RUN/meter.pid")" 2>/dev/null; rm -f "$RUN/meter.pid"; }
cleanup() {
  end_meter
  end_sessions "$RUN/sessions"; end_sessions "$RUN/rig"
  [ -n "${KEEP:-}" ] || rm -rf "$RUN"
}
trap cleanup EXIT
trap 'exit 130' INT TERM
: >"$OUT"

# --- the rig: both upstreams on the load core
sed -e "s#@PORT@#$CHAT_PORT#; s#@RUN@#$RUN#g" "$BENCH/upstream.conf" >"$RUN/upstream.conf"
chmod 755 "$RUN"
rig "$RUN/upstream.log" nginx -p "$RUN" -c "$RUN/upstream.conf"
rig "$RUN/sse.log" env FAST_PORT=$FAST_PORT PACED_PORT=$PACED_PORT node "$BENCH/sse_upstream.js"
wait_http "$CHAT_UP/" 20 && wait_http "$FAST_UP/" 20 || { say "the upstreams did not start, see $RUN"; KEEP=1; exit 1; }

record() {                                          # GATEWAY KIND JSON [CPU SECONDS]
  printf '%s\n' "$3" | python3 -c '
import json, sys
line = json.loads(sys.stdin.read()); line.update(gateway=sys.argv[1], kind=sys.argv[2])
if len(sys.argv) > 3: line["cpu_s"] = float(sys.argv[3])
print(json.dumps(line))' "$1" "$2" ${4:+"$4"} >>"$OUT"
}
cpu() { python3 "$BENCH/tools.py" cpu "$RUN/metered"; }
load() {                                            # CONNECTIONS SECONDS: wrk's result as JSON
  BENCH_KEY=$KEY BENCH_MODEL=$CHAT_MODEL BENCH_HEADERS=$CHAT_HEADERS taskset -c "$LOAD_CORE" \
    wrk -t1 -c"$1" -d"$2s" --timeout 20s -s "$BENCH/chat.lua" "$CHAT_URL" | sed -n 's/^@@//p'
}
streams() {                                         # URL MODEL HEADERS EXPECT SECONDS STAGGER
  taskset -c "$LOAD_CORE" python3 "$BENCH/stream_client.py" --url "$1" --model "$2" --key "$KEY" --headers "$3" \
    --expect "$4" --seconds "$5" --stagger "$6" --streams "$STREAMS" ${NO_END:+--no-end} | sed -n 's/^@@//p'
}
metered() {                                         # GATEWAY KIND COMMAND...: record it with the CPU seconds it cost
  local gw=$1 kind=$2 before after out; shift 2
  before=$(cpu); out=$("$@"); after=$(cpu)
  [ -n "$out" ] || { say "  $kind gave no result"; return 1; }
  record "$gw" "$kind" "$out" "$(python3 -c 'import sys; print(float(sys.argv[2]) - float(sys.argv[1]))' "$before" "$after")"
}

one() {                                             # GATEWAY: in a subshell, so that a gateway's names stay its own
  local gw=$1 r stagger; rm -f "$RUN/skip"; : >"$RUN/sessions"; : >"$RUN/metered"
  KEY= BASE=http://127.0.0.1:$GW_PORT VERSION= READY_S=60
  CHAT_MODEL=bench-chat FAST_MODEL=bench-fast PACED_MODEL=bench-paced
  CHAT_URL= FAST_URL= PACED_URL= CHAT_HEADERS= FAST_HEADERS= PACED_HEADERS= NO_END= CROSS_URL=
  gw_install() { :; }; gw_ready() { wait_http "$BASE/" "$READY_S"; }; gw_setup() { :; }; gw_stop() { :; }
  . "$BENCH/gateways/$gw.sh"
  say "$gw: installing"; gw_install
  say "$gw: starting"; gw_start
  gw_ready || { say "$(tail -n 5 "$RUN"/*.log 2>/dev/null)"; skip "did not get ready in $READY_S s"; }
  gw_setup
  : "${CHAT_URL:=$BASE/v1/chat/completions}" "${FAST_URL:=$BASE/v1/chat/completions}" "${PACED_URL:=$BASE/v1/chat/completions}"
  for r in 1 2 3 4 5; do                            # the right answers, or it is not measured
    python3 "$BENCH/tools.py" check "$CHAT_URL" "$CHAT_MODEL" "$KEY" "$CHAT_HEADERS" 0 2>"$RUN/why" &&
      python3 "$BENCH/tools.py" check "$FAST_URL" "$FAST_MODEL" "$KEY" "$FAST_HEADERS" "$FAST_TOKENS" $NO_END 2>"$RUN/why" &&
      python3 "$BENCH/tools.py" check "$PACED_URL" "$PACED_MODEL" "$KEY" "$PACED_HEADERS" "$PACED_TOKENS" $NO_END 2>"$RUN/why" &&
      { [ -z "$CROSS_URL" ] || python3 "$BENCH/tools.py" check "$CROSS_URL" "$PACED_MODEL" "$KEY" "$PACED_HEADERS" "$PACED_TOKENS" 2>"$RUN/why"; } && break
    [ "$r" = 5 ] && skip "wrong answers: $(tail -n 1 "$RUN/why")"
    sleep 1
  done
  record "$gw" about "$(python3 -c 'import json, sys; print(json.dumps({"version": sys.argv[1]}))' "${VERSION:-$gw}")"
  stagger=$(python3 -c "print($PACED_TOKENS / $PACED_RATE)")
  rm -f "$RUN/memory.json"
  if [ -s "$RUN/metered" ]; then
    taskset -c "$LOAD_CORE" python3 "$BENCH/tools.py" meter "$RUN/metered" "$RUN/memory.json" 1 & echo $! >"$RUN/meter.pid"
  fi
  say "$gw: warming up"
  load 32 "$WARM_S" >/dev/null; streams "$FAST_URL" "$FAST_MODEL" "$FAST_HEADERS" "$FAST_TOKENS" 2 0 >/dev/null
  for r in $(seq "$ROUNDS"); do
    say "$gw: round $r of $ROUNDS"
    metered "$gw" c1 load 1 "$C1_S"
    metered "$gw" c32 load 32 "$C32_S"
    metered "$gw" fast streams "$FAST_URL" "$FAST_MODEL" "$FAST_HEADERS" "$FAST_TOKENS" "$FAST_S" 0
    metered "$gw" paced streams "$PACED_URL" "$PACED_MODEL" "$PACED_HEADERS" "$PACED_TOKENS" "$PACED_S" "$stagger"
    [ -z "$CROSS_URL" ] || metered "$gw" cross streams "$CROSS_URL" "$PACED_MODEL" "$PACED_HEADERS" "$PACED_TOKENS" "$PACED_S" "$stagger"
  done
  end_meter
  [ -s "$RUN/memory.json" ] && record "$gw" memory "$(cat "$RUN/memory.json")"
  gw_stop
}

drift() {                                           # direct once more, to tell whether the machine kept its pace
  KEY= CHAT_MODEL=bench-chat CHAT_HEADERS= CHAT_URL=$CHAT_UP/v1/chat/completions
  load 32 2 >/dev/null; record direct drift "$(load 32 "$C32_S")"
}

asked=("$@"); [ ${#asked[@]} -gt 0 ] || asked=(nginx bare-asgi portkey litellm conduit)
for gw in direct "${asked[@]}"; do
  [ "$gw" = direct ] && [ -n "${did_direct:-}" ] && continue; did_direct=1
  [ -f "$BENCH/gateways/$gw.sh" ] || { say "no gateways/$gw.sh"; continue; }
  ( one "$gw" ) || { [ -s "$RUN/skip" ] && record "$gw" skip "$(python3 -c 'import json, sys; print(json.dumps({"reason": open(sys.argv[1]).read()}))' "$RUN/skip")"; }
  [ -n "${KEEP:-}" ] && { mkdir -p "$RUN/logs-$gw"; mv "$RUN"/gw*.log "$RUN/logs-$gw/" 2>/dev/null; }
  end_sessions "$RUN/sessions"; sleep 1
done
drift
printf '\n%s, %s x %s, Linux %s; gateway on core %s, load and upstream on core %s; median of %s rounds\n\n' \
  "$(date -u +%Y-%m-%d)" "$(nproc)" "$(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -1)" "$(uname -r)" "$GW_CORE" "$LOAD_CORE" "$ROUNDS"
python3 "$BENCH/tools.py" report "$OUT"
