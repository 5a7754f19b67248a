# make demo    two tmcp nodes, real clients, a cut connection and its replay      (BACKEND=memory, redis, postgres, cloudflare)
#              CLIENT=python: two workers of the Python SDK, one of which dies     (BACKEND=memory, redis, postgres)
#              CLIENT=kotlin: two nodes of the Kotlin SDK                          (BACKEND=memory, redis)
# make test    every test suite                                                  (ONLY="rust e2e" narrows)
# make lint    formatters, linters and type checkers
# make chaos   outages, and whether clients got everything once: SECONDS=60 SEED=… BACKEND=redis (or postgres)
# make soak    sessions that begin and end all the time: is memory flat, is anything left? SECONDS=600
#              SESSIONS=20000 BACKEND=redis (or postgres)
# make bench   this library beside its peers: target/bench.json                  (BACKEND=memory, redis, postgres)
# make bench-sessions   the second part of it: the registry and the event log with 100,000 sessions alive
# make rates   the registry alone, from Rust: URL=redis://… SESSIONS=100000
# make worker  the wasm of the Durable Object, and how large it is
# make bench-python   the same for Python: target/bench-python.json      (ONLY=redis,postgres,memory,flat EVENTS=)
# make bench-kotlin   what a call across the border and a stream cost on the JVM: target/bench-kotlin.json
# make fuzz    each parser of outside bytes for SECONDS (60); needs a nightly Rust and cargo-fuzz
# make semver  whether the crate keeps what its last version promised; needs cargo-semver-checks
# make advisories   known faults of the crates that are built in; offline with ADVISORIES=a clone of RustSec's list
#
# Each does its own set-up and only what has changed since. Logs: target/log.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules --no-print-directory

STEP := .ci/step
DONE := target/make
VENV := $(CURDIR)/target/venv/bin
JOBS ?= $(shell nproc 2>/dev/null || echo 2)
BACKEND ?= memory
# Whose demo: node, python, kotlin
CLIENT ?= node
# what a backend needs to be installed
SERVER = $(addprefix $(DONE)/,$(addsuffix -server,$(filter redis postgres,$(BACKEND))))
ONLY ?=
# Of `make chaos`; without a seed it is another run each time.
SECONDS ?= 60
SEED ?= random
# Of `make soak`.
SESSIONS ?= 20000
# `no` leaves the summary to the caller.
SUMMARY ?= yes


# What the suites are called; `conformance` names all of its runners.
SUITES := e2e rust node conformance-rust conformance-node types package runtimes loom redis redis-cluster \
	redis-versions redis-interop chaos node-redis e2e-redis e2e-postgres conformance-node-redis postgres postgres-polls \
	postgres-versions node-postgres conformance-node-postgres python conformance-python conformance-languages wheel \
	worker node-worker e2e-workers conformance-workers conformance-node-worker conformance-python-worker kotlin swift examples
LINTS := rustfmt clippy wasm32 features dependencies public-api npm e2e bench python
comma := ,
ASKED := $(subst $(comma), ,$(ONLY))
# `rust` tests the whole workspace, its conformance runner too; that one alone is for those who ask for it.
CHOSEN := $(strip $(if $(ASKED),\
	$(foreach it,$(ASKED),$(if $(filter conformance,$(it)),conformance-rust conformance-node conformance-python,$(it))),\
	$(filter-out conformance-rust,$(SUITES))))
UNKNOWN := $(filter-out $(SUITES),$(CHOSEN))
ABSENT = $(shell .ci/absent)
CHECKS = $(filter-out $(ABSENT:%=lint-%),$(LINTS:%=lint-%))

find_in = $(foreach folder,$(1),$(shell find $(folder) -type f $(2) 2>/dev/null))
# what is built of it: its tests and benches are nobody's but their own
CORE := Cargo.toml Cargo.lock core/Cargo.toml $(call find_in,core/src)
RUST := $(CORE) $(call find_in,bindings/node,-name '*.rs' -o -name Cargo.toml)
PYTHON := python/pyproject.toml $(CORE) $(call find_in,bindings/python,-name '*.rs' -o -name Cargo.toml)
WORKER := $(call find_in,bindings/worker/src bindings/worker/scripts bindings/worker/glue/src)
NPM := npm/package.json npm/tsconfig.json $(call find_in,npm/src npm/scripts)

.PHONY: demo demo-node demo-python demo-kotlin bench-python bench-kotlin test lint bench bench-sessions rates worker chaos soak fuzz semver advisories names clean $(SUITES:%=suite-%) $(LINTS:%=lint-%)

demo: demo-$(CLIENT)

demo-node: $(DONE)/e2e $(SERVER)
	@cd tests/e2e && BACKEND='$(BACKEND)' npm run --silent demo

demo-python: $(DONE)/python $(SERVER)
	@cd python && BACKEND='$(BACKEND)' $(VENV)/python -W ignore demo/main.py

demo-kotlin: $(DONE)/uniffi $(if $(filter redis,$(BACKEND)),$(DONE)/redis-server)
	@BACKEND='$(BACKEND)' .ci/kotlin-demo

test: ; $(if $(UNKNOWN),$(error ONLY: no such suite: $(UNKNOWN). There are: conformance $(SUITES)))
	@rm -f $(CHOSEN:%=target/log/%.json) $(if $(filter yes,$(SUMMARY)),$(CHOSEN:%=target/log/%.first.*))
	@$(MAKE) -k -j$(JOBS) $(CHOSEN:%=suite-%) || true
	@$(if $(filter yes,$(SUMMARY)),$(STEP) summary $(CHOSEN))

lint:
	@for it in $(ABSENT); do echo "not installed here, so not run: $$it"; done
	@rm -f $(CHECKS:%=target/log/%.json)
	@$(MAKE) -k -j$(JOBS) $(CHECKS) || true
	@$(if $(filter yes,$(SUMMARY)),$(STEP) summary $(CHECKS))

# what `lint` and `test` run here, for those who want one summary of both
names:
	@echo $(CHECKS) $(CHOSEN)

# `redis-forgetful` loses everything now and then; the same SEED makes the same troubles
chaos: $(DONE)/redis-server $(DONE)/postgres-server
	@cargo build --quiet --package mcp-sessions-chaos --features redis$(comma)postgres
	@target/debug/chaos run '$(if $(filter memory,$(BACKEND)),redis,$(BACKEND))' '$(SECONDS)' '$(SEED)'

soak: $(DONE)/redis-server $(DONE)/postgres-server
	@cargo build --quiet --release --package mcp-sessions-chaos --features redis$(comma)postgres
	@target/release/chaos soak '$(if $(filter memory,$(BACKEND)),redis,$(BACKEND))' '$(SECONDS)' '$(SESSIONS)'

# ROWS asks for rows of the first part
bench: $(DONE)/bench $(SERVER)
	@cd tests/bench && BACKEND='$(BACKEND)' npm run --silent bench
	@$(if $(ROWS)$(filter cloudflare,$(BACKEND)),,$(MAKE) bench-sessions)

bench-sessions: $(DONE)/bench $(SERVER)
	@cd tests/bench && BACKEND='$(BACKEND)' npm run --silent bench:sessions

rates:
	@cargo run --quiet --release --package mcp-sessions --features redis$(comma)postgres --example registry_rates -- \
		'$(or $(URL),memory://)' '$(or $(SESSIONS),100000)'

worker: $(DONE)/worker-modules
	@.ci/wasm --install
	@node bindings/worker/scripts/build.mjs

# with the library as it is published, on the embedded backend
bench-kotlin: $(DONE)/tools
	@.ci/kotlin-bench

# with the extension as it is published, beside the one the tests use
bench-python: $(DONE)/bench-python $(DONE)/redis-server $(DONE)/postgres-server
	@cd python && ONLY='$(ONLY)' EVENTS='$(EVENTS)' PYTHONPATH=$(CURDIR)/target/bench-python $(VENV)/python -W ignore bench/main.py

FUZZ := $(patsubst core/fuzz/fuzz_targets/%.rs,%,$(wildcard core/fuzz/fuzz_targets/*.rs))

fuzz: $(FUZZ:%=fuzz-%)

fuzz-%:
	@cd core && cargo +nightly fuzz run $* -- -max_total_time=$(or $(SECONDS),60)

semver:
	@.ci/semver

advisories: $(DONE)/venv
	@ADVISORIES='$(ADVISORIES)' .ci/advisories

clean:
	rm -rf target npm/node_modules npm/dist npm/worker bindings/worker/node_modules tests/*/node_modules

# --- test suites

# One set of features for all that tests the core: it is built once.
CORE_TEST := cargo test --no-fail-fast --package mcp-sessions --features redis$(comma)postgres$(comma)cloudflare

# what needs no server: units, properties, faults, the scenarios on the embedded backend, the examples in the docs
suite-rust: $(DONE)/tools
	@$(STEP) suite rust -- .ci/each '$(CORE_TEST) --lib --test conformance' '$(CORE_TEST) --doc'

# outages of servers, networks and nodes, by fixed seeds and by name; most of it is waiting
suite-chaos: $(DONE)/redis-server $(DONE)/postgres-server
	@$(STEP) suite chaos -- cargo test --no-fail-fast --package mcp-sessions-chaos --features redis$(comma)postgres \
		-- --test-threads=4

# a real server on a free port, as a child of the tests
suite-redis: $(DONE)/redis-server
	@$(STEP) suite redis -- env MCP_SESSIONS_TEST_URL=redis:// $(CORE_TEST) \
		--test conformance --test redis --test redis_live --test redis_lost --test redis_tracking \
		--test redis_tls

# three masters and their replicas, a master with sentinels: all on free ports, as children of the tests
suite-redis-cluster: $(DONE)/redis-server
	@$(STEP) suite redis-cluster -- env MCP_SESSIONS_TEST_URL=redis+cluster:// $(CORE_TEST) --test conformance --test redis_cluster

# a fleet with tmcp's own managers in it, in a process of their own
suite-redis-interop: $(DONE)/redis-server $(DONE)/interop-modules
	@$(STEP) suite redis-interop -- $(CORE_TEST) --test redis_interop

# the oldest Redis and a new Valkey, which come from PyPI; the suite above is on the one in between
suite-redis-versions: $(DONE)/redis-versions
	@$(STEP) suite redis-versions -- .ci/on-redis-versions $(CORE_TEST) \
		--test conformance --test redis --test redis_live --test redis_lost --test redis_tracking

# a cluster of its own on a free port, as a child of the tests
suite-postgres: $(DONE)/postgres-server
	@$(STEP) suite postgres -- env MCP_SESSIONS_TEST_URL=postgresql:// $(CORE_TEST) --test conformance --test postgres

# without LISTEN
suite-postgres-polls: $(DONE)/postgres-server
	@$(STEP) suite postgres-polls -- env MCP_SESSIONS_TEST_URL='postgresql://?listen=off&poll=10' \
		$(CORE_TEST) --test conformance

# the oldest and the newest, which come from npm; the suite above is on the one of this system
suite-postgres-versions: $(DONE)/postgres-server $(DONE)/postgres-versions
	@$(STEP) suite postgres-versions -- .ci/on-postgres-versions $(CORE_TEST) --test conformance --test postgres

# the sync layer in a real workerd, reached through its gateway
suite-worker: $(DONE)/worker
	@$(STEP) suite worker -- env MCP_SESSIONS_TEST_URL=cloudflare:// $(CORE_TEST) --test conformance --test cloudflare

# native nodes in Node and Python through the gateway of a real workerd
suite-node-worker: $(DONE)/worker
	@$(STEP) suite node-worker -- env -C npm npm run test:cloudflare

# tmcp's servers in Workers on the same objects, and what happens to the objects
suite-e2e-workers: $(DONE)/e2e
	@$(STEP) suite e2e-workers -- env -C tests/e2e npm run test:workers

# the scenarios inside workerd, on a Worker's own managers; what those lack is counted
suite-conformance-workers: $(DONE)/worker
	@$(STEP) suite conformance-workers -- env -C npm npm run test:conformance:workers

suite-conformance-node-worker: $(DONE)/worker
	@$(STEP) suite conformance-node-worker -- env -C npm npm run test:conformance:cloudflare

suite-conformance-python-worker: $(DONE)/worker $(DONE)/python
	@$(STEP) suite conformance-python-worker -- env -C python MCP_SESSIONS_TEST_URL=cloudflare:// $(VENV)/pytest tests/conformance

suite-conformance-rust: $(DONE)/tools
	@$(STEP) suite conformance-rust -- cargo test --package mcp-sessions --test conformance

# in its own target folder: other flags would have everything else compiled again
suite-loom: $(DONE)/tools
	@$(STEP) suite loom -- env RUSTFLAGS='--cfg loom' cargo test --package mcp-sessions --lib --target-dir target/loom loom

suite-node: $(DONE)/npm
	@$(STEP) suite node -- env -C npm npm test

# the managers on a real server
suite-node-redis suite-node-postgres: suite-node-%: $(DONE)/npm $(DONE)/%-server
	@$(STEP) suite node-$* -- env -C npm npm run test:$*

# nodes in processes of their own
suite-conformance-node-redis suite-conformance-node-postgres: suite-conformance-node-%: $(DONE)/npm $(DONE)/%-server
	@$(STEP) suite conformance-node-$* -- env -C npm npm run test:conformance:$*

suite-conformance-node: $(DONE)/npm
	@$(STEP) suite conformance-node -- env -C npm npm run test:conformance

suite-types: $(DONE)/npm
	@$(STEP) suite types -- env -C npm npm run test:types

# the tarball in an empty folder, and the README's example on a real server
suite-package: $(DONE)/npm $(DONE)/worker $(DONE)/redis-server
	@$(STEP) suite package -- env -C npm npm run test:package

# other versions of Node, Bun and Deno, which npm brings
suite-runtimes: $(DONE)/npm
	@$(STEP) suite runtimes -- env -C npm npm run test:runtimes

suite-e2e: $(DONE)/e2e
	@$(STEP) suite e2e -- env -C tests/e2e npm test

# on memory and on real servers, with asyncio's loop and uvloop
suite-python: $(DONE)/python $(DONE)/redis-server $(DONE)/postgres-server
	@$(STEP) suite python -- env -C python $(VENV)/pytest --ignore tests/conformance

suite-conformance-python: $(DONE)/python $(DONE)/redis-server $(DONE)/postgres-server
	@$(STEP) suite conformance-python -- env -C python bash -ec '$(VENV)/pytest tests/conformance; \
		MCP_SESSIONS_TEST_LOOP=uvloop $(VENV)/pytest tests/conformance; \
		MCP_SESSIONS_TEST_URL=redis:// $(VENV)/pytest tests/conformance; \
		MCP_SESSIONS_TEST_URL=postgresql:// $(VENV)/pytest tests/conformance'

# nodes in Node and in Python serve the same sessions: those scenarios that have several nodes
suite-conformance-languages: $(DONE)/npm $(DONE)/python $(DONE)/redis-server $(DONE)/postgres-server
	@$(STEP) suite conformance-languages -- env -C npm npm run test:conformance:languages

# the wheel in an empty environment of every Python that is here
suite-wheel: $(DONE)/python
	@$(STEP) suite wheel -- bash -ec '$(VENV)/python python/tests/wheel/run.py dev $$(.ci/pythons)'

# the same with nodes in processes of their own
suite-e2e-redis suite-e2e-postgres: suite-e2e-%: $(DONE)/e2e $(DONE)/%-server
	@$(STEP) suite e2e-$* -- env -C tests/e2e npm run test:$*

# the JVM, on the embedded backend and on real servers; and whether the generated sources are the library's
suite-kotlin: $(DONE)/uniffi $(DONE)/redis-server $(DONE)/postgres-server $(DONE)/npm
	@$(STEP) suite kotlin -- .ci/kotlin

# there is no Swift compiler here: that its sources parse, and are what the library says
suite-swift: $(DONE)/uniffi $(DONE)/tree-sitter
	@$(STEP) suite swift -- bash -ec '.ci/bindgen --check; $(VENV)/python .ci/swift-syntax'

# the examples of the Rust crate run: those of axum with a process a node, on a real Redis
suite-examples: $(DONE)/redis-server
	@$(STEP) suite examples -- .ci/each 'cargo test --package mcp-sessions-axum-examples' \
		'cargo test --package mcp-sessions --features redis$(comma)postgres$(comma)cloudflare --example resume'

# --- linters

lint-rustfmt: $(DONE)/tools
	@$(STEP) check $@ -- cargo fmt --all --check

lint-clippy: $(DONE)/tools
	@$(STEP) check $@ -- cargo clippy --workspace --all-targets -- -D warnings

# what a Worker needs of the core, without what only native targets have
lint-wasm32: $(DONE)/tools
	@$(STEP) check $@ -- .ci/wasm

lint-features: $(DONE)/tools
	@$(STEP) check $@ -- .ci/features

# licences, bans and sources as deny.toml has them; `cargo deny check` looks for advisories, too
lint-dependencies: $(DONE)/tools
	@$(STEP) check $@ -- .ci/dependencies

# what users of the crate see is what core/public-api.txt says, and ties them to no other crate
lint-public-api: $(DONE)/tools
	@$(STEP) check $@ -- .ci/public-api --check

lint-npm: $(DONE)/npm
	@$(STEP) check $@ -- env -C npm npm run lint

lint-e2e: $(DONE)/e2e
	@$(STEP) check $@ -- env -C tests/e2e npm run check

lint-bench: $(DONE)/bench $(SERVER)
	@$(STEP) check $@ -- env -C tests/bench npm run check

# what the extension has is what its stubs say, and what users write is checked as they would
lint-python: $(DONE)/python
	@$(STEP) check $@ -- env -C python bash -ec '$(VENV)/ruff format --check .; $(VENV)/ruff check .; \
		$(VENV)/mypy --no-incremental src; $(VENV)/stubtest mcp_sessions._native; \
		$(VENV)/python tests/typing/check.py'

# --- what they need

$(DONE)/uniffi: $(CORE) $(call find_in,bindings/uniffi,-name '*.rs' -o -name '*.toml') | $(DONE)/tools
	@$(STEP) build uniffi -- .ci/uniffi
	@touch $@

# a parser of Swift
$(DONE)/tree-sitter: | $(DONE)/venv
	@$(STEP) build tree-sitter -- $(VENV)/pip install --quiet --disable-pip-version-check --upgrade \
		--target target/tree-sitter tree-sitter==0.26.1 tree-sitter-swift==0.7.4
	@touch $@

$(DONE)/tools:
	@mkdir -p $(@D)
	@.ci/tools
	@touch $@

$(DONE)/redis-server: | $(DONE)/tools
	@.ci/redis-server
	@touch $@

$(DONE)/postgres-server: | $(DONE)/tools
	@.ci/postgres-server
	@touch $@

$(DONE)/postgres-versions: .ci/postgres-versions | $(DONE)/tools
	@$(STEP) build postgres-versions -- .ci/postgres-versions
	@touch $@

$(DONE)/redis-versions: .ci/redis-versions | $(DONE)/tools
	@$(STEP) build redis-versions -- .ci/redis-versions
	@touch $@

$(DONE)/worker-modules: bindings/worker/package.json bindings/worker/package-lock.json | $(DONE)/tools
	@$(STEP) build worker-modules -- env -C bindings/worker npm ci --no-audit --no-fund
	@touch $@

# the package's part for Workers: its wasm, and the TypeScript around it
$(DONE)/worker: $(CORE) $(WORKER) $(DONE)/npm $(DONE)/worker-modules
	@$(STEP) build wasm -- .ci/wasm --install
	@$(STEP) build worker -- node bindings/worker/scripts/build.mjs
	@touch $@

$(DONE)/npm-modules: npm/package.json npm/package-lock.json | $(DONE)/tools
	@$(STEP) build npm-modules -- env -C npm npm ci --no-audit --no-fund
	@touch $@

$(DONE)/e2e-modules: tests/e2e/package.json tests/e2e/package-lock.json | $(DONE)/tools
	@$(STEP) build e2e-modules -- env -C tests/e2e npm ci --no-audit --no-fund
	@touch $@

$(DONE)/interop-modules: tests/interop/package.json tests/interop/package-lock.json | $(DONE)/tools
	@$(STEP) build interop-modules -- env -C tests/interop npm ci --no-audit --no-fund
	@touch $@

$(DONE)/bench-modules: tests/bench/package.json tests/bench/package-lock.json | $(DONE)/tools
	@$(STEP) build bench-modules -- env -C tests/bench npm ci --no-audit --no-fund
	@touch $@

# the addon and the package around it
$(DONE)/npm: $(RUST) $(NPM) $(DONE)/npm-modules
	@$(STEP) build npm -- env -C npm npm run build
	@touch $@

# the suites outside npm/ use the package as it is published
$(DONE)/packed: $(DONE)/npm $(DONE)/worker
	@$(STEP) build packed -- .ci/pack
	@touch $@

$(DONE)/e2e: $(DONE)/e2e-modules $(DONE)/packed
	@.ci/unpack tests/e2e
	@touch $@

$(DONE)/bench: $(DONE)/bench-modules $(DONE)/packed
	@.ci/unpack tests/bench
	@touch $@

$(DONE)/venv: python/requirements.txt .ci/venv | $(DONE)/tools
	@$(STEP) build venv -- .ci/venv
	@touch $@

# the extension, beside its package's sources
$(DONE)/python: $(PYTHON) $(DONE)/venv
	@$(STEP) build python -- env -C python VIRTUAL_ENV=$(CURDIR)/target/venv $(VENV)/maturin develop --locked
	@touch $@

$(DONE)/bench-python: $(DONE)/python $(PYTHON) $(call find_in,python/src,-name '*.py')
	@rm -rf target/bench-python target/wheels
	@$(STEP) build bench-python -- bash -ec 'cd python; $(VENV)/maturin build --release --locked --out ../target/wheels; \
		$(VENV)/pip install --quiet --no-deps --target ../target/bench-python ../target/wheels/*.whl'
	@touch $@
