"""The optional lane: a real model behind the gateway (`make test-real`). Skipped where there is none."""
