# make test       everything that must hold before a change is pushed (installs the servers that it needs, as root)
# make lint       formatting, Clippy, documentation, licences and sources of dependencies, unused dependencies
# make tools      installs the programs that make lint needs, where they are missing (2 minutes)
# make bench      figures of a release build (needs wrk); STORE=sled, redb, memory or postgres
# make faults     the tests with dying workers, servers and networks; makes their table in docs/faults.md anew
# make lives      200 random lives of workers and clients, 1,000 runs into a moody bucket (10 minutes)
# make power-cuts 200 power cuts of each embedded engine, twice: cut files, and a disk of its own (root)
# make fuzz       random requests by the description of the API, on sled and on Postgres; SECONDS_EACH=300, SEED=1
# make demo       the demo
# make demo-production   the same on Postgres, Redis and a fake GCS, started for it alone

CARGO ?= cargo

# rustc's own lint for unused dependencies is no choice here: it looks at each target by itself, so that the
# binary, which needs three of them, would have to name all others.
LINT_TOOLS = deny machete

.PHONY: test lint tools bench faults fuzz lives power-cuts demo demo-production

test:
	@command -v git >/dev/null && command -v python3 >/dev/null || { echo "the tests need git and python3"; exit 1; }
	@python3 tests/servers.py install
	@if $(CARGO) nextest --version >/dev/null 2>&1; then $(CARGO) nextest run --locked && $(CARGO) test --locked --doc; \
	else $(CARGO) test --locked; fi; \
	status=$$?; python3 tests/servers.py stop; exit $$status

lint: tools
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps --locked --document-private-items
	$(CARGO) deny --locked check bans licenses sources
	$(CARGO) machete

# Unoptimised, since they run for seconds and optimising them takes minutes.
tools:
	@for tool in $(LINT_TOOLS); do \
	$(CARGO) $$tool --version >/dev/null 2>&1 || $(CARGO) install --locked --debug cargo-$$tool || exit 1; done

bench:
	$(CARGO) build --release --locked
	python3 benches/bench.py --store $(or $(STORE),sled) $(BENCH)

faults:
	@python3 tests/servers.py install
	rm -rf target/fault-rows
	@if $(CARGO) nextest --version >/dev/null 2>&1; then $(CARGO) nextest run --locked -E 'test(faults::workers)'; else $(CARGO) test --locked --test it faults::workers; fi; \
	status=$$?; python3 tests/servers.py stop; [ $$status = 0 ] && python3 tests/faults_table.py

lives:
	@python3 tests/servers.py install
	LIVES=200 WORKER_LIVES=200 MOODY_RUNS=1000 $(CARGO) nextest run --locked -E 'test(lives) | test(moody_server)'; status=$$?; python3 tests/servers.py stop; exit $$status

power-cuts:
	POWER_CUTS=200 $(CARGO) nextest run --locked -E 'test(power_cuts)'

fuzz:
	$(CARGO) build --release --locked
	@python3 tests/servers.py install
	@for store in sled postgres; do \
	python3 tests/fuzz/requests.py --start $$store --seconds $(or $(SECONDS_EACH),120) $(if $(SEED),--seed $(SEED)) || exit 1; done

demo:
	$(CARGO) run --release --locked -- demo

demo-production:
	$(CARGO) build --release --locked
	@python3 tests/servers.py install
	python3 examples/deploy/demo_production.py
