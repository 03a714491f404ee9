# Every target works from a fresh clone on Debian 12 with only Rust installed, as root or with sudo.

# `sudo make` would look for root's Rust: build as, and with that of, the user who called sudo.
ifneq ($(filter-out root,$(SUDO_USER)),)
USER_HOME := $(shell getent passwd $(SUDO_USER) | cut -d: -f6)
AS_USER := sudo -u $(SUDO_USER) -H env PATH="$(USER_HOME)/.cargo/bin:$$PATH"
else
export PATH := $(PATH):$(HOME)/.cargo/bin
endif
CARGO := $(AS_USER) cargo

SCRIPTS = $(wildcard packaging/dev/*.sh packaging/openalgo/*.sh packaging/package/*.sh packaging/package/deb/*) .ci/run

.DEFAULT_GOAL := help
.PHONY: help tools build demo check lint unit e2e test simulate soak bench package package-test package-twice deny clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

tools: ## install what is missing: system packages; Kafka, clients and references in .tools/
	@packaging/dev/install-tools.sh

build: ## the release binary, target/release/openalgo-bridge
	@packaging/dev/install-tools.sh build
	$(CARGO) build --release --locked

demo: build ## the daemon, a generator and a live page; SECONDS=20 ends by itself, KAFKA=1 with a real Kafka
ifeq ($(KAFKA),)
	@packaging/dev/demo.sh $(SECONDS)
else
	@packaging/dev/install-tools.sh kafka
	@packaging/dev/demo-kafka.sh $(SECONDS)
endif

check: lint unit ## the fast loop: format, lints, unit tests

lint: tools ## format, clippy and shellcheck, nothing tolerated
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	shellcheck -x $(SCRIPTS)
	shellcheck -s sh packaging/package/rpm/*

unit: tools ## unit tests only
	$(CARGO) test --locked --lib --bins

e2e: tools ## the daemon against a real Kafka
	$(CARGO) test --locked --test e2e

# The dev profile throughout: it has the debug assertions, and its dependencies are optimised.
test: lint ## everything, in less than 20 minutes on 2 cores
	$(CARGO) test --locked

simulate: tools ## the simulator with ever new seeds; HOURS=1
	$(AS_USER) env SIMULATE_HOURS=$(or $(HOURS),1) cargo test --locked --test simulation -- --nocapture a_million

soak: tools ## what takes longer than two minutes
	$(AS_USER) env BRIDGE_SOAK=1 cargo test --locked --test e2e -- --nocapture ka_02_ka_27 ka_04_ka_05 after_200_rotations fi_05_fi_06 pr_06

bench: build tools ## throughput, latency and CPU per line, next to others on this machine
	@packaging/dev/bench.sh

package: ## a .deb and an .rpm in dist/; ARCH="amd64 arm64" makes both
	@packaging/dev/install-tools.sh package
	$(AS_USER) packaging/package/package.sh $(ARCH)

package-test: package ## installs the .deb in Debian 12 and 11 with systemd, upgrades, removes and purges it; as root; ARCH as above
	@packaging/package/try.sh
	@RELEASE=bullseye packaging/dev/systemd-root.sh make
	@RELEASE=bullseye packaging/package/try.sh
ifneq ($(filter arm64,$(ARCH)),)
	@packaging/dev/install-tools.sh arm64
	@packaging/package/try-arm64.sh
	@RELEASE=bullseye packaging/package/try-arm64.sh
endif

package-twice: ## builds the packages of the last commit in two directories, and compares every byte
	@packaging/dev/install-tools.sh package
	$(AS_USER) packaging/package/twice.sh $(ARCH)

# Not in it: advisories, whose database is fetched from outside the package registries.
deny: ## licences, bans and sources of the dependencies; needs cargo-deny
	@command -v cargo-deny >/dev/null || { echo "cargo-deny is missing: cargo install --locked cargo-deny" >&2; exit 69; }
	$(CARGO) deny --all-features check licenses bans sources

clean: ## what cargo built, and .tools/
	$(CARGO) clean
	rm -rf .tools 2>/dev/null || sudo rm -rf .tools # one of the tools is root's
