SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
SCENARIO ?=
BACKEND ?= embedded
BENCH_ARGS ?=
SECONDS_OF_FAULTS ?= 600
.PHONY: help run test simulate chaos-programs chaos bench audit clean-components have-cargo

# rustup puts cargo there, but a shell that was open before does not know it.
export PATH := $(PATH):$(HOME)/.cargo/bin

CARGO_DENY_VERSION := 0.20.2
# Of everything that is built with the profile `simulate`, so that simulation and chaos share all but `reedi` itself: what
# runs as a process has none of the simulated parts.
SIMULATE_FLAGS := --cfg tokio_unstable

help: ## what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-18s %s\n", $$1, $$2 }' Makefile

have-cargo:
	@if ! command -v cargo >/dev/null; then
	  echo "cargo is not there. Install Rust with rustup (https://rustup.rs), then open a new shell:"
	  echo "  curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh"
	  exit 1
	fi

run: have-cargo ## build and start the service on 127.0.0.1:8080 with everything embedded
	@cargo build --release --bin reedi
	exec "$${CARGO_TARGET_DIR:-target}/release/reedi" dev

test: have-cargo ## every test, with the real components (installs them into .cache)
	@exec tests/run

bench: have-cargo ## the load test; SCENARIO=idle|strangers|direct|group|storm|history, BACKEND=embedded|cluster, BENCH_ARGS=--help
	@cargo build --release --locked --bin reedi
	cargo build --release --locked -p reedi-loadtest
	if [ "$(BACKEND)" = cluster ]; then tests/components/install.sh; fi
	# Ten thousand sockets are as many open files.
	ulimit -n "$$(ulimit -Hn)"
	exec "$${CARGO_TARGET_DIR:-target}/release/reedi-loadtest" $(SCENARIO) --backend $(BACKEND) $(BENCH_ARGS)

simulate: have-cargo ## a thousand seeded runs of a whole cluster on a clock of their own; SEED=n replays one, SEEDS=n runs so many
	@export RUSTFLAGS="$(SIMULATE_FLAGS)" REEDI_SIMULATE_SEED=$(SEED) REEDI_SIMULATE_SEEDS=$(SEEDS)
	exec cargo test --profile simulate --locked --features simulation --test simulation -- --nocapture

chaos-programs: have-cargo
	@RUSTFLAGS="$(SIMULATE_FLAGS)" cargo build --profile simulate --locked -p reedi -p reedi-chaos

chaos: chaos-programs ## real processes killed and held at random under load; SECONDS_OF_FAULTS=600, SEED=n, CHAOS_ARGS=--help
	@tests/components/install.sh
	built=$${CARGO_TARGET_DIR:-target}/simulate
	exec "$$built/reedi-chaos" --seconds $(SECONDS_OF_FAULTS) $(if $(SEED),--seed $(SEED)) --reedi "$$built/reedi" \
	  --components tests/components --folder .cache/chaos $(CHAOS_ARGS)

audit: have-cargo ## licences, bans and sources of the dependencies; advisories where their database can be fetched
	@deny=.cache/tools/cargo-deny-$(CARGO_DENY_VERSION)
	if [ ! -x "$$deny/bin/cargo-deny" ]; then
	  cargo install --locked --root "$$deny" --version $(CARGO_DENY_VERSION) cargo-deny
	fi
	"$$deny/bin/cargo-deny" --locked check licenses bans sources
	if "$$deny/bin/cargo-deny" --locked fetch db >"$$deny/fetch.log" 2>&1; then
	  "$$deny/bin/cargo-deny" --locked check --disable-fetch advisories
	else
	  tail -n 1 "$$deny/fetch.log"
	  echo "advisories: NOT CHECKED, their database could not be fetched (see the line above)"
	fi

clean-components: ## stop and remove the installed components and their data
	@tests/components/stop.sh
	rm -rf .cache/components .cache/components-state tests/socketio/node_modules
