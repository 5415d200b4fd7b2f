# The house commands. `make demo` and `make test` need a machine with Rust (rustup) and a package registry; they install what is
# missing.
#
#   make demo    index real vectors, serve them from disk, show their recall
#                DATA=file [QUERIES=file] [METRIC=l2|cos|dot|l1|hamming] for your own
#   make test    everything a change must pass
#   make bench   the micro benches [BENCH=name]
#   make kernels compile the CUDA kernels into kernels/built
#   make setup   install what `make test` needs and the machine lacks
#   make fmt     format all code
#   make clean   remove build outputs and .demo
#
# Build outputs lie outside the checkout, so that a second clone finds them warm; set CARGO_TARGET_DIR to have them elsewhere.
# All commands use the one profile `dev`, which is optimized (Cargo.toml): nothing is built twice.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo test bench kernels check-kernels nvrtc clients setup rust fmt clean
.NOTPARALLEL:

CARGO_TARGET_DIR ?= $(HOME)/.cache/roxanne-target
export CARGO_TARGET_DIR
# RocksDB, compiled once beside the build outputs.
export ROCKSDB_LIB_DIR := $(dir $(abspath $(CARGO_TARGET_DIR)))roxanne-rocksdb
export ROCKSDB_STATIC := 1
# Mesa has something to say on stderr where there is no screen.
export NODEVICE_SELECT := 1

# The kernels' compiler, installed once beside the build outputs. Its wheel is for x86-64 Linux with glibc; elsewhere `make test` holds the
# committed images against their hashes, and kernels cannot be built.
COMPILER := $(dir $(abspath $(CARGO_TARGET_DIR)))roxanne-python
HAS_WHEEL := $(shell test "$$(uname -sm)" = 'Linux x86_64' && getconf GNU_LIBC_VERSION 2>/dev/null)

CLIENTS := $(dir $(abspath $(CARGO_TARGET_DIR)))roxanne-clients

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
test: setup check-kernels clients
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
	$(call step,build of the tests)
	@cargo nextest run --locked --workspace --no-run
	$(call step,clients of others)
	@'$(CLIENTS)/bin/python' tests/clients/qdrant.py "$$CARGO_TARGET_DIR/debug/roxanne"
	@'$(CLIENTS)/bin/python' tests/clients/nightly.py "$$CARGO_TARGET_DIR/debug/roxanne"
	@'$(CLIENTS)/bin/python' tests/clients/traces.py "$$CARGO_TARGET_DIR/debug/roxanne"
	@'$(CLIENTS)/bin/python' tests/clients/integrations.py "$$CARGO_TARGET_DIR/debug/roxanne"
	@ROXANNE="$$CARGO_TARGET_DIR/debug/roxanne" '$(CLIENTS)/bin/python' -m pytest -q -p no:asyncio -p no:cacheprovider tests/clients/test_langchain.py
	@'$(CLIENTS)/bin/python' tests/clients/schema.py "$$CARGO_TARGET_DIR/debug/roxanne" '$(CLIENTS)/bin/schemathesis'
	@'$(CLIENTS)/bin/python' tests/clients/attacks.py "$$CARGO_TARGET_DIR/debug/roxanne"
	$(call step,browser)
	@'$(CLIENTS)/bin/python' tests/browser/dashboard.py "$$CARGO_TARGET_DIR/debug/roxanne"
	$(call step,python)
	@cd python && VIRTUAL_ENV='$(CLIENTS)' '$(CLIENTS)/bin/maturin' develop --profile dev --locked --quiet
	@'$(CLIENTS)/bin/python' -m pytest -q python/tests
	@ROXANNE="$$CARGO_TARGET_DIR/debug/roxanne" '$(CLIENTS)/bin/python' -m pytest -q -p no:asyncio -p no:cacheprovider tests/clients/test_own.py
	@cd python && '$(CLIENTS)/bin/python' -m mypy.stubtest roxanne._native --allowlist stubtest.allow && '$(CLIENTS)/bin/python' -m mypy --strict roxanne
	$(call step,tests)
	@cargo nextest run --locked --workspace

bench: rust
	$(call step,bench)
	@cargo bench --locked --profile dev --package roxanne-bench -- $(BENCH)

kernels: nvrtc
	$(call step,kernels)
	@'$(COMPILER)/bin/python' kernels/compile.py build

# Compiles again and compares with what is committed; remembers what it found good until a source changes.
check-kernels: $(if $(HAS_WHEEL),nvrtc)
	$(call step,kernels)
	@mkdir -p "$$CARGO_TARGET_DIR"
ifneq ($(HAS_WHEEL),)
	@'$(COMPILER)/bin/python' kernels/compile.py check --passed "$$CARGO_TARGET_DIR/kernels-passed"
else
	@python3 kernels/compile.py check --without-compiler
endif

nvrtc:
	@test -n '$(HAS_WHEEL)' || { echo 'kernels are built on x86-64 Linux with glibc: the NVRTC wheel of kernels/requirements.txt is for that alone' >&2; exit 1; }
	@cmp -s kernels/requirements.txt '$(COMPILER)/requirements.txt' || { \
	    python3 -c 'import ensurepip, venv' 2>/dev/null || { apt-get update && apt-get install --yes --no-install-recommends python3-venv; }; \
	    python3 -m venv --clear '$(COMPILER)'; \
	    '$(COMPILER)/bin/pip' install --quiet --disable-pip-version-check --require-hashes --no-deps --requirement kernels/requirements.txt; \
	    cp kernels/requirements.txt '$(COMPILER)/requirements.txt'; }

# Other people's clients, which must work with our server as they are.
clients:
	@cmp -s tests/clients/requirements.txt '$(CLIENTS)/requirements.txt' || { \
	    python3 -c 'import ensurepip, venv' 2>/dev/null || { apt-get update && apt-get install --yes --no-install-recommends python3-venv; }; \
	    python3 -m venv --clear '$(CLIENTS)'; \
	    '$(CLIENTS)/bin/pip' install --quiet --disable-pip-version-check --requirement tests/clients/requirements.txt; \
	    cp tests/clients/requirements.txt '$(CLIENTS)/requirements.txt'; }

# What the tests of the GPU backends run on where there is no GPU: a Vulkan driver that computes on the CPU; what reads the manifests of examples/; and
# a browser for the dashboard.
setup: rust
	@[ -n "$$(ls /usr/share/vulkan/icd.d/*.json /etc/vulkan/icd.d/*.json 2>/dev/null)" ] || { apt-get update && apt-get install --yes --no-install-recommends mesa-vulkan-drivers libvulkan1; }
	@python3 -c 'import yaml' 2>/dev/null || { apt-get update && apt-get install --yes --no-install-recommends python3-yaml; }
	@command -v chromium >/dev/null || { apt-get update && apt-get install --yes --no-install-recommends chromium; }
	@cargo fmt --version >/dev/null 2>&1 && cargo clippy --version >/dev/null 2>&1 || rustup component add rustfmt clippy
	@cargo nextest --version >/dev/null 2>&1 || cargo install --locked cargo-nextest --version $(NEXTEST_VERSION)
	@cargo deny --version >/dev/null 2>&1 || cargo install --locked cargo-deny --version $(DENY_VERSION)

# A linker; a C++ compiler for RocksDB, and the library of clang that reads its header; and the toolchain of rust-toolchain.toml.
rust:
	$(call step,setup)
	@command -v cc >/dev/null && command -v c++ >/dev/null || { apt-get update && apt-get install --yes --no-install-recommends g++ libc6-dev; }
	@[ -n "$${LIBCLANG_PATH:-}" ] || ls /usr/lib/llvm-*/lib/libclang.so* >/dev/null 2>&1 || { apt-get update && apt-get install --yes --no-install-recommends libclang-dev; }
	@command -v cargo >/dev/null || { echo 'cargo is missing: install Rust with rustup, then run make again' >&2; exit 1; }
	@cargo --version || { rustup toolchain install && cargo --version; }
	@scripts/rocksdb.sh '$(ROCKSDB_LIB_DIR)'

fmt:
	@cargo fmt --all

clean:
	@cargo clean
	@rm -rf .demo
