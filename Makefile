# `make test` checks everything; both it and the other targets install what they need.
SHELL := /bin/bash
.ONESHELL:
.SHELLFLAGS := -euo pipefail -c

CARGO ?= cargo
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)

# What a fresh Debian 12 with a Rust toolchain lacks. One list, also read by `.ci/run`.
APT_BUILD := build-essential pkg-config clang libclang-dev libavformat-dev libavcodec-dev libavutil-dev libswscale-dev \
  ffmpeg opencv-doc python3 python3-gi gir1.2-gst-rtsp-server-1.0 gir1.2-gstreamer-1.0 \
  gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-bad

.PHONY: help
help:
	@echo 'make test   formatting, lints, all tests, documentation'
	@echo 'make setup  install the Debian packages that building needs'

.PHONY: setup
setup:
	@missing=()
	for package in $(APT_BUILD); do
	  dpkg-query -W -f '$${Status}\n' "$$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$$package")
	done
	if [ $${#missing[@]} -gt 0 ]; then
	  echo "installing $${missing[*]}"
	  $(SUDO) apt-get update -qq
	  DEBIAN_FRONTEND=noninteractive $(SUDO) apt-get install -y -qq --no-install-recommends "$${missing[@]}"
	fi

.PHONY: fmt-check clippy unit doc crates
fmt-check:
	$(CARGO) fmt --all -- --check

clippy: setup
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings

unit: setup
	$(CARGO) test --workspace --locked

doc: setup
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --workspace --no-deps --locked

# ring is the one TLS provider: a dependency that brings aws-lc back would need another C build on every box
crates:
	@if $(CARGO) tree --workspace --locked -i aws-lc-rs >/dev/null 2>&1; then
	  echo 'aws-lc-rs is in the tree; find who turned it on with `cargo tree -i aws-lc-rs`' >&2
	  exit 1
	fi

.PHONY: test
test: fmt-check crates clippy unit doc
	@echo 'make test: everything passed'
