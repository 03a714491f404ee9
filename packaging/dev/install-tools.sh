#!/usr/bin/env bash
# Installs what building, testing and the demos need, and nothing that is there already: Debian
# packages (this is the only list of them), then Kafka, Python and Node packages into .tools/, and a
# Debian with systemd.
#
#   install-tools.sh [build|kafka|all]   all, if nothing is said; each holds the one before
#   install-tools.sh package             what making and trying the packages needs, and that of build
#   install-tools.sh arm64               what trying those for arm64 needs, and that of package
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

KAFKA=4.3.1  # kafka-tools is published up to 4.3.1; broker and tools must match
SLF4J=1.7.36 # the API version Kafka uses; without a backend a broker that fails says nothing

PYTHON_LIST=packaging/dev/requirements.txt
NODE_LIST=tests/clients/package-lock.json
NODE_SCRIPTS=(client.mjs browser.mjs toasts.mjs)

# Commands, and the package that brings each. A command from elsewhere (say, another JDK) will do.
COMMANDS=(
  cc:build-essential make:build-essential # librdkafka is built from source
  pkg-config:pkg-config                   # finds OpenSSL, zlib and libsystemd
)
KAFKA_COMMANDS=(
  java:openjdk-17-jre-headless         # the broker; Kafka 4 needs 17 or later
  mvn:maven                            # fetches the broker
  kcat:kcat                            # an independent Kafka client
  setsid:util-linux flock:util-linux   # keep Ctrl-C away from children; locks
)
TEST_COMMANDS=(
  python3:python3                      # the .env reference, Socket.IO clients
  node:nodejs npm:npm                  # the standard Socket.IO client
  chromium:chromium                    # a browser
  nginx:nginx-light openssl:openssl    # stands before the app, with a certificate
  ip:iproute2 nsenter:util-linux       # networks that tests cut
  logrotate:logrotate                  # rotates the events
  shred:coreutils setpriv:util-linux   # overwrites them; other users
  mkfs.ext4:e2fsprogs mount:mount      # disks of a test's own
  strace:strace                        # tests look at system calls and inject errors
  debootstrap:debootstrap              # a Debian with systemd
  shellcheck:shellcheck                # make check
)
PACKAGE_COMMANDS=(
  python3:python3                      # zig comes as a Python package
  objdump:binutils                     # what the binary is linked to
  lintian:lintian rpm:rpm cpio:cpio    # look at the packages
  debootstrap:debootstrap              # a Debian with systemd, to install them in
  setpriv:util-linux mount:mount       # boots it
)
ARM64_COMMANDS=(
  qemu-aarch64-static:qemu-user-static # runs its programs
  ip:iproute2                          # a network for them
)
# What has no command to look for: headers, and the certificates that downloads need.
PACKAGES=(libssl-dev zlib1g-dev libsystemd-dev ca-certificates)

scope=${1:-all}
case $scope in
  build) ;;
  kafka) COMMANDS+=("${KAFKA_COMMANDS[@]}") ;;
  all) COMMANDS+=("${KAFKA_COMMANDS[@]}" "${TEST_COMMANDS[@]}") ;;
  package) COMMANDS+=("${PACKAGE_COMMANDS[@]}") ;;
  arm64)
    COMMANDS+=("${PACKAGE_COMMANDS[@]}" "${ARM64_COMMANDS[@]}")
    scope=package # beyond commands, the same
    ;;
  *)
    echo "install-tools: build, kafka, all, package or arm64, not '$scope'" >&2
    exit 64
    ;;
esac

# A stamp lives inside what it vouches for, so that deleting that is enough to get it again.
kafka_stamp=.tools/kafka/stamp-$KAFKA-$SLF4J
python_stamp=.tools/python/stamp
node_stamp=.tools/clients/node_modules/stamp

kafka_ready() { [[ $scope == build || $scope == package || -e $kafka_stamp ]]; }
# Asks the environment itself too: it breaks when the Python it was made with goes away.
python_ready() {
  [[ $scope != all ]] ||
    { cmp -s "$PYTHON_LIST" "$python_stamp" && .tools/python/bin/python -c 'import dotenv' 2>/dev/null; }
}
# Debian's `prometheus`, of which the tests need one program: taken out of the package, which is not
# installed, so that no service, user or web page comes with it.
promtool_ready() { [[ $scope != all || -x .tools/promtool ]]; }
node_ready() { [[ $scope != all ]] || { cmp -s "$NODE_LIST" "$node_stamp" && have_scripts; }; }
have_scripts() {
  local script
  for script in "${NODE_SCRIPTS[@]}"; do [[ -e .tools/clients/$script ]] || return; done
}
# It says itself whether it is the right one.
systemd_ready() { [[ $scope != all && $scope != package ]] || packaging/dev/systemd-root.sh made; }
everything_ready() {
  ((${#missing[@]} == 0)) && kafka_ready && python_ready && node_ready && promtool_ready && systemd_ready
}

say() { printf 'install-tools: %s\n' "$*" >&2; }
die() {
  say "$*"
  exit 1
}

as_root() {
  if ((EUID == 0)); then "$@"; else sudo "$@"; fi
}

apt_get() {
  # RUNLEVEL=1: an nginx for tests must not become this machine's web server.
  as_root env RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 "$@"
}

apt_update() {
  local tries=0
  # On a new machine the system's own daily update may hold the lists for a while.
  until apt_get update </dev/null; do
    ((++tries < 5)) || die "apt-get update fails"
    sleep 5
  done
}

apt_install() {
  command -v apt-get >/dev/null || die "not a Debian system; please install the equivalents of: $*"
  if ((EUID != 0)); then
    command -v sudo >/dev/null || die "please run as root: apt-get install $*"
  fi
  say "installing with apt-get: $*"
  apt_update
  apt_get install -y --no-install-recommends "$@" </dev/null >/dev/null
  # Nor from the next start of the machine on.
  if [[ " $* " == *' nginx-light '* ]] && command -v systemctl >/dev/null; then
    as_root systemctl disable nginx >/dev/null 2>&1 || say "nginx may start with this machine"
  fi
}

# Prints the packages that are missing, one a line.
missing_packages() {
  local entry
  { python_ready && [[ $scope != package ]]; } || venv_python >/dev/null || echo python3-venv
  for entry in "${COMMANDS[@]}"; do
    PATH=$PATH:/usr/sbin:/sbin command -v "${entry%%:*}" >/dev/null || echo "${entry#*:}"
  done
  command -v dpkg-query >/dev/null || return 0 # elsewhere the build says what it lacks
  for entry in "${PACKAGES[@]}"; do
    dpkg-query -W -f='${db:Status-Status}\n' "$entry" 2>/dev/null | grep -qx installed || echo "$entry"
  done
}

# The first Python that can make an environment with pip; on Debian that is a package of its own,
# and the python3 on PATH may be one that lacks it.
venv_python() {
  local python
  for python in python3 /usr/bin/python3; do
    if "$python" -c 'import ensurepip, venv' 2>/dev/null; then
      command -v "$python"
      return
    fi
  done
  return 1
}

install_kafka() {
  local work=$PWD/.tools/kafka.new
  say "fetching Kafka $KAFKA through Maven"
  rm -rf "$work" && mkdir -p "$work"
  cat >"$work/pom.xml" <<POM
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>dev</groupId><artifactId>kafka-for-tests</artifactId><version>1</version>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>$KAFKA</version></dependency>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka-tools</artifactId><version>$KAFKA</version></dependency>
    <dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>$SLF4J</version></dependency>
  </dependencies>
</project>
POM
  mvn -q -B -f "$work/pom.xml" dependency:copy-dependencies \
    -DoutputDirectory="$work/libs" -DincludeScope=runtime </dev/null &>"$work/log" || {
    cat "$work/log" >&2
    die "Maven could not fetch Kafka"
  }
  rm -rf .tools/kafka && mv "$work" .tools/kafka
  touch "$kafka_stamp"
}

install_python() {
  local python
  python=$(venv_python) || die "no python3 here can make a virtual environment"
  say "making a Python environment with what $PYTHON_LIST names"
  rm -rf .tools/python
  "$python" -m venv .tools/python
  .tools/python/bin/pip install --quiet --disable-pip-version-check -r "$PYTHON_LIST" </dev/null >&2
  cp "$PYTHON_LIST" "$python_stamp"
}

install_node() {
  say "installing what $NODE_LIST names"
  rm -rf .tools/clients && mkdir -p .tools/clients
  cp tests/clients/package.json "$NODE_LIST" .tools/clients/
  (cd .tools/clients && npm ci --silent --no-audit --no-fund </dev/null >&2)
  # Node looks for packages beside the script: run with --preserve-symlinks --preserve-symlinks-main.
  ln -s "${NODE_SCRIPTS[@]/#/../../tests/clients/}" .tools/clients/
  cp "$NODE_LIST" "$node_stamp"
}

install_promtool() {
  local work=$PWD/.tools/promtool.new
  command -v dpkg-deb >/dev/null || die "not a Debian system; please put Prometheus' promtool into .tools/"
  say "taking promtool out of Debian's prometheus"
  rm -rf "$work" && mkdir -p "$work"
  # The lists may be older than what the archive has.
  (cd "$work" && { apt-get -qq -o APT::Sandbox::User=root download prometheus || { apt_update && apt-get -qq -o APT::Sandbox::User=root download prometheus; }; } </dev/null >&2) ||
    die "prometheus can't be downloaded"
  dpkg-deb --fsys-tarfile "$work"/prometheus_*.deb | tar -x -C "$work" ./usr/bin/promtool
  mv "$work/usr/bin/promtool" .tools/promtool
  rm -rf "$work"
}

install_systemd() {
  say "making a Debian with systemd in .tools/systemd-root"
  as_root packaging/dev/systemd-root.sh make
}

mapfile -t missing < <(missing_packages | sort -u)
if everything_ready; then
  say "everything is there"
  exit
fi

mkdir -p .tools
exec 9>.tools/lock
flock 9 # another run: wait here, then find its work done
mapfile -t missing < <(missing_packages | sort -u)
if ((${#missing[@]} > 0)); then
  apt_install "${missing[@]}"
fi
kafka_ready || install_kafka
python_ready || install_python
node_ready || install_node
promtool_ready || install_promtool
systemd_ready || install_systemd
# Through sudo, what was made in the user's work tree stays the user's.
if ((EUID == 0)) && [[ -n ${SUDO_UID:-} ]]; then
  # But for the roots of machines, in which it matters whose each file is.
  find .tools -mindepth 1 -maxdepth 1 ! -name '*-root*' -exec chown -R "$SUDO_UID:${SUDO_GID:-$SUDO_UID}" {} +
  chown "$SUDO_UID:${SUDO_GID:-$SUDO_UID}" .tools
fi
say "done"
