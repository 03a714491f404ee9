#!/usr/bin/env bash
# Installs the arm64 .deb of dist/ in an arm64 Debian, whose programs qemu runs, has the daemon read a file there, and
# purges it. No systemd runs in it: what has to do with the units, try.sh tries. As root.
#
#   RELEASE=bullseye try-arm64.sh   in Debian 11 instead of Debian 12
#
# The Debian is made once, in .tools/arm64-root-bookworm; what is tried happens in an overlay in memory, without a network.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

name=openalgo-bridge
release=${RELEASE:-bookworm}
base=$PWD/.tools/arm64-root-$release
# It does not run, but has the package's user and directories made.
PACKAGES=systemd
STAMP="1 $release $PACKAGES"
# What programs for arm64 begin with, which bits of that count, and who runs them.
INTERPRETER=':qemu-aarch64:M:'
INTERPRETER+=':\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00'
INTERPRETER+=':\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff'
INTERPRETER+=":/usr/bin/qemu-aarch64-static:F"

self=$PWD/packaging/package/try-arm64.sh
say() { printf 'try-arm64: %s\n' "$*"; }
die() {
  printf 'try-arm64: %s\n' "$*" >&2
  exit 1
}

# Runs a command in a root, or in an overlay of it; all of it is gone with this process.
run_in() { # plain|overlay ROOT CMD...
  setpriv --pdeathsig KILL unshare --mount --net --pid --fork --kill-child --mount-proc "$self" enter "$@"
}

# As process 1 of the new namespaces.
enter() {
  local how=$1 root=$2 pid
  # Of the daemon's ports, those of this machine may be taken.
  ip link set lo up
  if [[ $how == overlay ]]; then
    mount -t tmpfs -o mode=755 tmpfs /mnt
    mkdir /mnt/upper /mnt/work /mnt/root
    mount -t overlay -o "lowerdir=$root,upperdir=/mnt/upper,workdir=/mnt/work" overlay /mnt/root
    root=/mnt/root
    cp dist/"$name"_*_arm64.deb "$root/root/"
  fi
  mount -t proc proc "$root/proc"
  # A namespace of users may have interpreters of its own: this machine's stay as they are.
  unshare --user --mount "$self" unmapped "$root" "${@:3}" <&0 &
  pid=$!
  # Its users are those outside. Until it has its namespace, there is nothing to write that to.
  until echo '0 0 65536' 2>/dev/null >"/proc/$pid/uid_map"; do
    kill -0 "$pid" || die "no namespace of users can be made here"
    sleep 0.01
  done
  echo '0 0 65536' >"/proc/$pid/gid_map"
  wait "$pid"
}

# In the namespace of users, as nobody yet, who may do nothing; the next program is root's again.
unmapped() {
  until grep -q . /proc/self/gid_map; do sleep 0.01; done
  exec "$self" mapped "$@"
}

mapped() {
  local root=$1 interpreters=/proc/sys/fs/binfmt_misc
  # Linux 6.7 and later. Before that, they are those of the whole machine, and the package qemu-user-static brings one.
  if mount -t binfmt_misc binfmt_misc "$interpreters" 2>/dev/null; then
    printf '%s' "$INTERPRETER" >"$interpreters/register"
  fi
  chroot "$root" /bin/true || die "this machine runs no programs for arm64"
  # debootstrap makes no devices in such a container: they are there.
  exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin container=lxc LC_ALL=C DEBIAN_FRONTEND=noninteractive chroot "$root" "${@:2}"
}

make_root() {
  local new=$base.new
  [[ $(cat "$base/stamp" 2>/dev/null) != "$STAMP" ]] || return 0
  say "making an arm64 Debian in .tools/arm64-root-$release: some minutes, as qemu runs all that it does"
  packaging/dev/systemd-root.sh debootstrap "$new" --arch=arm64 --foreign --include="$PACKAGES"
  run_in plain "$new/root" /debootstrap/debootstrap --second-stage &>"$new/log" || {
    tail -n 20 "$new/log" >&2
    die "debootstrap's second stage fails"
  }
  rm -rf "$new"/root/var/cache/apt/* "$new"/root/var/lib/apt/lists/* "$new/root/etc/apt/sources.list"
  printf '%s\n' "$STAMP" >"$new/stamp"
  rm -rf --one-file-system "$base" && mv "$new" "$base"
}

# What is done there, by that Debian's own shell.
try() {
  local script
  script=$(
    cat <<'THERE'
name=openalgo-bridge
events=/var/lib/openalgo-events/order_events.jsonl
die() { echo "try-arm64: $*" >&2; exit 1; }
expect() { # WHAT IS IS TO BE
  [[ $2 == "$3" ]] || die "$1: expected '$3', is '$2'"
}
as_bridge=(setpriv --reuid "$name" --regid "$name" --clear-groups)
# Until it is so, or for a minute.
wait_for() { # WHAT CMD...
  local deadline=$((SECONDS + 60))
  until "${@:2}" >/dev/null 2>&1; do
    ((SECONDS < deadline)) || die "waited in vain for $1"
    sleep 0.2
  done
}

expect "the processor" "$(uname -m)" aarch64
expect "dpkg's processor" "$(dpkg --print-architecture)" arm64
cd /root
apt install -y ./"$name"_*_arm64.deb >log 2>&1 || { cat log >&2; die "apt install fails"; }
openalgo-bridge --version
expect "files that differ from the package's" "$(dpkg --verify $name)" ''
expect "the configuration" "$(stat -c '%U:%G %a' /etc/$name/.env)" "root:$name 640"
expect "the events' directory" "$(stat -c '%U:%G %a' /var/lib/openalgo-events)" "root:$name 2750"
expect "the state directory" "$(stat -c '%U:%G %a' /var/lib/$name)" "$name:$name 700"
# It was written by the amd64 program.
openalgo-bridge man | cmp - <(zcat /usr/share/man/man1/$name.1.gz)
"${as_bridge[@]}" openalgo-bridge check | tail -n 1

"${as_bridge[@]}" openalgo-bridge run 2>run.log &
wait_for "the daemon" openalgo-bridge status
for n in {1..100}; do
  echo '{"event_type":"order_event","timestamp":"2026-01-29T10:30:45Z","user_id":"u","source":"s","data":{"n":'"$n"'}}'
done >>$events
openalgo-bridge status --caught-up --wait 60
expect "lines delivered" "$(openalgo-bridge status --json | tr -d ' \n' | grep -oE '"lines":\{[^}]*\}' | grep -oE '"delivered":[0-9]+')" '"delivered":100'
kill %1
code=0
wait %1 || code=$?
expect "the daemon's exit code" "$code" 0
expect "the position" "$(openalgo-bridge checkpoint show | grep -c "$(stat -c %s $events)" || true)" 1

apt purge -y $name >log 2>&1 || { cat log >&2; die "apt purge fails"; }
expect "the app's events, purged" "$(wc -l <$events)" 100
rm -r /var/lib/openalgo-events
expect "left over" "$(find /etc /usr /var /run -xdev -name '*openalgo*' ! -path '/var/lib/dpkg/*' ! -path '/var/log/*')" ''
THERE
  )
  run_in overlay "$base/root" /bin/bash -euo pipefail -c "$script" </dev/null
  say "installed, 100 lines read, purged, in $(sed -n 's/^PRETTY_NAME=//p' "$base/root/etc/os-release") for arm64"
}

case ${1:-} in
  '')
    ((EUID == 0)) || die "making a Debian needs root"
    [[ -e $(echo dist/"$name"_*_arm64.deb) ]] || die 'there is no package: make package ARCH="amd64 arm64"'
    make_root
    try
    ;;
  enter | unmapped | mapped) "$@" ;;
  *) die "it takes no arguments" ;;
esac
