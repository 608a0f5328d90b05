# make test       everything that must hold before a change is pushed
# make lint       formatting and clippy
# make bench      figures of a release build (needs wrk)
# make demo       the demo

CARGO ?= cargo

.PHONY: test lint bench demo

test:
	@command -v git >/dev/null && command -v python3 >/dev/null || { echo "the tests need git and python3"; exit 1; }
	@if $(CARGO) nextest --version >/dev/null 2>&1; then $(CARGO) nextest run --locked; else $(CARGO) test --locked; fi

lint:
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings

bench:
	$(CARGO) build --release --locked
	python3 benches/bench.py $(BENCH)

demo:
	$(CARGO) run --release --locked -- demo
