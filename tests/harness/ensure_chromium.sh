#!/bin/sh
# The browser tests drive a system Chromium. Debian's is installed when we are root and there is none; they are never skipped.
set -e
for name in chromium chromium-browser google-chrome google-chrome-stable; do
  if command -v "$name" >/dev/null 2>&1; then exit 0; fi
done
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
  echo "installing chromium for the browser tests ..." >&2
  DEBIAN_FRONTEND=noninteractive
  export DEBIAN_FRONTEND
  apt-get update -qq >&2
  apt-get install -y -qq --no-install-recommends chromium >&2
  if command -v chromium >/dev/null 2>&1; then exit 0; fi
fi
echo "make test needs Chromium for the browser tests: install it (Debian: apt-get install chromium) and run again." >&2
exit 1
