# `make test` checks everything; both it and the other targets install what they need.
SHELL := /bin/bash
.ONESHELL:
.SHELLFLAGS := -euo pipefail -c

CARGO ?= cargo
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)

# What a fresh Debian 12 with a Rust toolchain lacks, by what needs it. Each `PACKAGE[=PROGRAM]`: where a
# program is named, having it from anywhere is enough.
APT_BUILD := build-essential=cc pkg-config clang libclang-dev libavformat-dev libavcodec-dev libavutil-dev libswscale-dev
APT_STAND_INS := ffmpeg opencv-doc python3 python3-gi gir1.2-gst-rtsp-server-1.0 gir1.2-gstreamer-1.0 \
  gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-bad
APT_BROWSER := chromium nodejs=node npm=npm

.PHONY: help
help:
	@echo 'make demo         the whole way on this machine: a hub, four sites, stand-ins for their devices'
	@echo 'make demo-check   the same without a person: ends well when every device has delivered'
	@echo 'make test         formatting, lints, all tests, the browser, documentation'
	@echo 'make kills        kill -9 of agent, camera reader and hub, 50 rounds under load, with an oracle beside them'
	@echo 'make outage       the hub away for 10 minutes, then everything arrives and a punch is on the page at once'
	@echo 'make faults       the long forms of all fault tests, about two hours'
	@echo 'make faults-selftest  mutants of our own code, each of which must turn a named test red'
	@echo 'make fuzz         each decoder of foreign bytes against mutated input, MINUTES=10 each'
	@echo 'make bench-camera the camera path beside ffmpeg on the same stream'
	@echo 'make bench-link   how much of a slow and long link is used, and what a punch waits on it (10 minutes)'
	@echo 'make bench        all measurements beside what a county would build instead; QUICK=1 for a look'
	@echo 'make setup        install the Debian packages that all of this needs'

.PHONY: setup
setup:
	@missing=()
	for entry in $(APT_BUILD) $(APT_STAND_INS) $(APT_BROWSER); do
	  package=$${entry%%=*} program=
	  case $$entry in *=*) program=$${entry#*=};; esac
	  if [ -n "$$program" ] && command -v "$$program" >/dev/null; then continue; fi
	  dpkg-query -W -f '$${Status}\n' "$$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$$package")
	done
	if [ $${#missing[@]} -gt 0 ]; then
	  echo "installing $${missing[*]}"
	  $(SUDO) apt-get update -qq
	  DEBIAN_FRONTEND=noninteractive $(SUDO) apt-get install -y -qq --no-install-recommends "$${missing[@]}"
	fi

.PHONY: build demo demo-check kills outage faults faults-selftest fuzz bench-camera
build: setup
	$(CARGO) build --workspace --bins --locked

demo: build
	@exec target/debug/scc-demo

demo-check: build
	@exec target/debug/scc-demo --check

# `make kills ROUNDS=10 SEED=7`, `make outage MINUTES=1`
ROUNDS ?= 50
MINUTES ?= 10
kills: build
	@exec target/debug/scc-ordeal kills --rounds $(ROUNDS) $(if $(SEED),--seed $(SEED))

outage: build
	@exec target/debug/scc-ordeal outage --minutes $(MINUTES)

# `make faults SCALE=20` for a look, `make faults SEED=7`, `make faults PARTS="power-cuts corruption"`
faults: build
	@PARTS='$(PARTS)' tests/faults.sh

# every promise broken on purpose, one by one, in a copy of the tree; each must turn its test red
faults-selftest: setup
	$(CARGO) run --locked -p scc-tests --bin scc-mutants

# `make fuzz MINUTES=1 TARGETS="envelope gate_packet"`, `make fuzz KEEP=1`
fuzz: setup
	@MINUTES='$(MINUTES)' TARGETS='$(TARGETS)' KEEP='$(KEEP)' tests/fuzz.sh

bench-camera: setup
	tests/bench-camera.sh

# `make bench-link MINUTES=2`
bench-link: setup
	$(CARGO) build --release -p scc-tests --bin scc-bench-link --locked
	exec target/release/scc-bench-link --minutes $(MINUTES)

# each installs its peers and ends with one line of figures; `make bench-ingest QUICK=1` for a look
.PHONY: bench bench-ingest bench-idle bench-recovery bench-media bench-link
bench-ingest bench-idle bench-recovery bench-media: setup
	@QUICK=$(QUICK) tests/bench/run.sh $(@:bench-%=%)

bench: bench-ingest bench-idle bench-recovery bench-media bench-link

.PHONY: fmt-check clippy unit doc crates fuzz-check
fmt-check:
	$(CARGO) fmt --all -- --check

clippy: setup
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings

unit: setup
	$(CARGO) test --workspace --locked

# `make fuzz` runs them; here they are only held to the decoders that they drive
fuzz-check: setup
	for crate in agent hub; do
	  $(CARGO) check --manifest-path "$$crate/fuzz/Cargo.toml" --target-dir target/fuzz --locked
	done

# the readers are the developers, so private rooms are documented too
doc: setup
	RUSTDOCFLAGS='-D warnings -A rustdoc::private_intra_doc_links' $(CARGO) doc --workspace --no-deps --document-private-items --locked

# ring is the one TLS provider: a dependency that brings aws-lc back would need another C build on every box
crates:
	@if $(CARGO) tree --workspace --locked -i aws-lc-rs >/dev/null 2>&1; then
	  echo 'aws-lc-rs is in the tree; find who turned it on with `cargo tree -i aws-lc-rs`' >&2
	  exit 1
	fi

# axe-core and the browser's driver come from npm, pinned by the lock file; the browser is Debian's
.PHONY: browser units
browser: setup
	cd tests/browser && npm ci --no-audit --no-fund --silent
	cd ../.. && mkdir -p target/screenshots && $(CARGO) test -p scc-hub --locked --test browser -- --ignored

units:
	systemd/check

.PHONY: test
test: fmt-check crates units clippy fuzz-check unit browser doc
	@echo 'make test: everything passed'
