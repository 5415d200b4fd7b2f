# The house commands. `make demo` and `make test` need a machine with Rust (rustup) and a package registry; they install what is
# missing.
#
#   make demo    index real vectors, serve them from disk, show their recall
#                DATA=file [QUERIES=file] [METRIC=l2|cos|dot|l1|hamming] for your own
#   make test    everything a change must pass
#   make bench   the micro benches [BENCH=name]
#   make setup   install what `make test` needs and the machine lacks
#   make fmt     format all code
#   make clean   remove build outputs and .demo
#
# Build outputs lie outside the checkout, so that a second clone finds them warm; set CARGO_TARGET_DIR to have them elsewhere.
# All commands use the one profile `dev`, which is optimized (Cargo.toml): nothing is built twice.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo test bench setup rust fmt clean
.NOTPARALLEL:

CARGO_TARGET_DIR ?= $(HOME)/.cache/roxanne-target
export CARGO_TARGET_DIR

# The versions that are installed where there is none; any other that is there serves as well.
NEXTEST_VERSION := 0.9.143
DENY_VERSION := 0.20.2

step = @printf '== %s\n' '$(1)'

help:
	@sed -n 's/^#   //p' Makefile

# DATA, QUERIES and METRIC reach the script through the environment.
demo: rust
	$(call step,build)
	@cargo build --locked --package roxanne --bin roxanne
	$(call step,demo)
	@ROXANNE="$$CARGO_TARGET_DIR/debug/roxanne" scripts/demo.sh

# nextest comes last: its closing line is the verdict.
test: setup
	$(call step,format)
	@cargo fmt --all --check
	$(call step,clippy)
	@cargo clippy --locked --workspace --all-targets -- -D warnings
	$(call step,documentation)
	@RUSTDOCFLAGS='-D warnings' cargo doc --locked --workspace --no-deps
	$(call step,dependencies)
	@cargo fetch --locked --quiet
	@cargo deny --offline check licenses bans sources
	$(call step,documentation examples)
	@cargo test --locked --workspace --doc --quiet
	$(call step,tests)
	@cargo nextest run --locked --workspace

bench: rust
	$(call step,bench)
	@cargo bench --locked --profile dev --package roxanne-bench -- $(BENCH)

setup: rust
	@cargo fmt --version >/dev/null 2>&1 && cargo clippy --version >/dev/null 2>&1 || rustup component add rustfmt clippy
	@cargo nextest --version >/dev/null 2>&1 || cargo install --locked cargo-nextest --version $(NEXTEST_VERSION)
	@cargo deny --version >/dev/null 2>&1 || cargo install --locked cargo-deny --version $(DENY_VERSION)

# A linker, and the toolchain of rust-toolchain.toml.
rust:
	$(call step,setup)
	@command -v cc >/dev/null || { apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev; }
	@command -v cargo >/dev/null || { echo 'cargo is missing: install Rust with rustup, then run make again' >&2; exit 1; }
	@cargo --version || { rustup toolchain install && cargo --version; }

fmt:
	@cargo fmt --all

clean:
	@cargo clean
	@rm -rf .demo
