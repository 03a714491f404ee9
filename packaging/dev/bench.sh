#!/usr/bin/env bash
# Measures the daemon next to Debian's kcat, on this machine, against a real one-node Kafka, and next to
# Flask-SocketIO.
#
#   bench.sh [fanout|relay|throughput|pipe|latency|idle|outage ...]   without a name: all, some ten minutes
#
# ROUNDS (3) is how often each throughput run is repeated, LINES (1000000) how long the file is.
# Broker and clients share the machine: only ratios within one run mean something.
# BRIDGE_BIN is the daemon, KCAT_BIN the kcat (kcat); both have to be there.
set -euo pipefail
export LC_ALL=C TZ=UTC
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

export BRIDGE_BIN=${BRIDGE_BIN:-${CARGO_TARGET_DIR:-target}/release/openalgo-bridge}
export KCAT_BIN=${KCAT_BIN:-kcat}
# As a broker in production: with the optimising compiler, and more room than a test needs.
export KAFKA_JAVA_OPTS="-Xmx1g -XX:+UseSerialGC"
python=.tools/python/bin/python

die() {
  echo "bench: $*" >&2
  exit "${code:-69}"
}

for section in "$@"; do
  [[ $section =~ ^(fanout|relay|throughput|pipe|latency|idle|outage)$ ]] || code=64 die "fanout, relay, throughput, pipe, latency, idle or outage, not '$section'"
done
[[ -x $BRIDGE_BIN ]] || die "$BRIDGE_BIN is not there; run: make bench"
[[ -x $python ]] || die "$python is not there; run: packaging/dev/install-tools.sh"
command -v "$KCAT_BIN" >/dev/null || die "$KCAT_BIN is not there; run: packaging/dev/install-tools.sh"

work=$(mktemp -d "${TMPDIR:-/tmp}/openalgo-bridge-bench.XXXXXX")
helper=''

cleanup() {
  trap '' INT TERM
  if [[ -n $helper ]]; then
    kill -TERM "$helper" 2>/dev/null || true # it ends what it started
    wait "$helper" || true
  fi
  packaging/dev/kafka.sh stop "$work/kafka" || true
  rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

"$python" packaging/dev/bench.py "$work" "$@" &
helper=$!
code=0
wait "$helper" || code=$?
helper=''
((code == 0)) || exit "$code"
