# make demo    two tmcp nodes, real clients, a cut connection and its replay      (BACKEND=memory)
# make test    every test suite                                                  (ONLY="rust e2e" narrows)
# make lint    formatters, linters and type checkers
# make bench   this library beside its peers: target/bench.json
#
# Each does its own set-up and only what has changed since. Logs: target/log.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules --no-print-directory

STEP := .ci/step
DONE := target/make
JOBS ?= $(shell nproc 2>/dev/null || echo 2)
BACKEND ?= memory
ONLY ?=
# `no` leaves the summary to the caller.
SUMMARY ?= yes


# What the suites are called; `conformance` names both of its runners.
SUITES := e2e rust node conformance-rust conformance-node types package runtimes loom redis
LINTS := rustfmt clippy wasm32 npm e2e bench
comma := ,
ASKED := $(subst $(comma), ,$(ONLY))
# `rust` tests the whole workspace, its conformance runner too; that one alone is for those who ask for it.
CHOSEN := $(strip $(if $(ASKED),\
	$(foreach it,$(ASKED),$(if $(filter conformance,$(it)),conformance-rust conformance-node,$(it))),\
	$(filter-out conformance-rust,$(SUITES))))
UNKNOWN := $(filter-out $(SUITES),$(CHOSEN))
ABSENT = $(shell .ci/absent)
CHECKS = $(filter-out $(ABSENT:%=lint-%),$(LINTS:%=lint-%))

find_in = $(foreach folder,$(1),$(shell find $(folder) -type f $(2) 2>/dev/null))
RUST := Cargo.toml Cargo.lock $(call find_in,core bindings,-name '*.rs' -o -name Cargo.toml)
NPM := npm/package.json npm/tsconfig.json $(call find_in,npm/src npm/scripts)

.PHONY: demo test lint bench names clean $(SUITES:%=suite-%) $(LINTS:%=lint-%)

demo: $(DONE)/e2e
	@cd tests/e2e && BACKEND='$(BACKEND)' npm run --silent demo

test: ; $(if $(UNKNOWN),$(error ONLY: no such suite: $(UNKNOWN). There are: conformance $(SUITES)))
	@rm -f $(CHOSEN:%=target/log/%.json)
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

bench: $(DONE)/bench
	@cd tests/bench && BACKEND='$(BACKEND)' npm run --silent bench

clean:
	rm -rf target npm/node_modules npm/dist tests/*/node_modules

# --- test suites

suite-rust: $(DONE)/tools
	@$(STEP) suite rust -- cargo test --workspace --no-fail-fast

# a real server on a free port, as a child of the tests
suite-redis: $(DONE)/redis-server
	@$(STEP) suite redis -- env MCP_SESSIONS_TEST_URL=redis:// cargo test --package mcp-sessions --features redis \
		--test conformance --test redis

suite-conformance-rust: $(DONE)/tools
	@$(STEP) suite conformance-rust -- cargo test --package mcp-sessions --test conformance

# in its own target folder: other flags would have everything else compiled again
suite-loom: $(DONE)/tools
	@$(STEP) suite loom -- env RUSTFLAGS='--cfg loom' cargo test --package mcp-sessions --lib --target-dir target/loom loom

suite-node: $(DONE)/npm
	@$(STEP) suite node -- env -C npm npm test

suite-conformance-node: $(DONE)/npm
	@$(STEP) suite conformance-node -- env -C npm npm run test:conformance

suite-types: $(DONE)/npm
	@$(STEP) suite types -- env -C npm npm run test:types

suite-package: $(DONE)/npm
	@$(STEP) suite package -- env -C npm npm run test:package

# other versions of Node, Bun and Deno, which npm brings
suite-runtimes: $(DONE)/npm
	@$(STEP) suite runtimes -- env -C npm npm run test:runtimes

suite-e2e: $(DONE)/e2e
	@$(STEP) suite e2e -- env -C tests/e2e npm test

# --- linters

lint-rustfmt: $(DONE)/tools
	@$(STEP) check $@ -- cargo fmt --all --check

lint-clippy: $(DONE)/tools
	@$(STEP) check $@ -- cargo clippy --workspace --all-targets -- -D warnings

# what a Worker needs of the core, without what only native targets have
lint-wasm32: $(DONE)/tools
	@$(STEP) check $@ -- cargo check --package mcp-sessions --lib --no-default-features --target wasm32-unknown-unknown

lint-npm: $(DONE)/npm
	@$(STEP) check $@ -- env -C npm npm run lint

lint-e2e: $(DONE)/e2e
	@$(STEP) check $@ -- env -C tests/e2e npm run check

lint-bench: $(DONE)/bench
	@$(STEP) check $@ -- env -C tests/bench npm run check

# --- what they need

$(DONE)/tools:
	@mkdir -p $(@D)
	@.ci/tools
	@touch $@

$(DONE)/redis-server: | $(DONE)/tools
	@.ci/redis-server
	@touch $@

$(DONE)/npm-modules: npm/package.json npm/package-lock.json | $(DONE)/tools
	@$(STEP) build npm-modules -- env -C npm npm ci --no-audit --no-fund
	@touch $@

$(DONE)/e2e-modules: tests/e2e/package.json tests/e2e/package-lock.json | $(DONE)/tools
	@$(STEP) build e2e-modules -- env -C tests/e2e npm ci --no-audit --no-fund
	@touch $@

$(DONE)/bench-modules: tests/bench/package.json tests/bench/package-lock.json | $(DONE)/tools
	@$(STEP) build bench-modules -- env -C tests/bench npm ci --no-audit --no-fund
	@touch $@

# the addon and the package around it
$(DONE)/npm: $(RUST) $(NPM) $(DONE)/npm-modules
	@$(STEP) build npm -- env -C npm npm run build
	@touch $@

# the suites outside npm/ use the package as it is published
$(DONE)/packed: $(DONE)/npm
	@$(STEP) build packed -- .ci/pack
	@touch $@

$(DONE)/e2e: $(DONE)/e2e-modules $(DONE)/packed
	@.ci/unpack tests/e2e
	@touch $@

$(DONE)/bench: $(DONE)/bench-modules $(DONE)/packed
	@.ci/unpack tests/bench
	@touch $@
