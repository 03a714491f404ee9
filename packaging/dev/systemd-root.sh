#!/usr/bin/env bash
# A Debian with systemd, to try units in: a real systemd as process 1, in namespaces of its own, with
# nothing of this machine but its kernel. As root.
#
#   systemd-root.sh make             makes .tools/systemd-root, from the archive that apt uses here
#   systemd-root.sh made             whether it is there, and of the present recipe
#   systemd-root.sh boot DIR         boots a copy of it; it is off when standard input ends
#   systemd-root.sh run DIR CMD...   runs a command in it
#   systemd-root.sh debootstrap DIR OPTION...   a Debian in DIR/root, with what it said in DIR/log, from that archive
#
# RELEASE=bullseye in the environment: that of Debian 11, in .tools/systemd-root-bullseye.
#
# The copy is an overlay in memory: what happens in it is forgotten with it. It has a network of its own,
# without a way out. DIR/pid says which process here is its systemd; its files are below /proc/PID/root.
set -euo pipefail

release=${RELEASE:-bookworm}
PACKAGES=systemd,systemd-sysv,dbus,procps,logrotate
# For what cargo builds on Debian 12; the packages need none.
[[ $release != bookworm ]] || PACKAGES+=,libssl3
STAMP="1 $release $PACKAGES"

self=$(realpath "${BASH_SOURCE[0]}")
base=$(realpath -m "$(dirname "$self")/../../.tools/systemd-root")
[[ $release == bookworm ]] || base+=-$release

usage() {
  sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$self" >&2
  exit 64
}
die() {
  printf 'systemd-root: %s\n' "$*" >&2
  exit 1
}

is_made() { [[ $(cat "$base/stamp" 2>/dev/null) == "$STAMP" ]]; }

bootstrap() {
  local dir=$1 archive proxy
  # If apt knows of no archive of that release, debootstrap knows one.
  # shellcheck disable=SC2016 # these are apt's variables
  archive=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' \
    "Codename: $release" 'Component: main' | head -n 1)
  proxy=$(apt-config dump --format '%v' Acquire::http::Proxy)
  rm -rf --one-file-system "$dir" && mkdir -p "$dir"
  env ${proxy:+http_proxy="$proxy"} debootstrap --variant=minbase "${@:2}" "$release" \
    "$dir/root" ${archive:+"$archive"} &>"$dir/log" || {
    tail -n 20 "$dir/log" >&2
    die "debootstrap fails"
  }
}

make_root() {
  local new=$base.new
  ! is_made || return 0
  bootstrap "$new" --include="$PACKAGES"
  rm -rf "$new"/root/var/cache/apt/* "$new"/root/var/lib/apt/lists/* "$new/root/etc/apt/sources.list"
  # Each machine that is booted from it is another one.
  : >"$new/root/etc/machine-id"
  printf '%s\n' "$STAMP" >"$new/stamp"
  rm -rf --one-file-system "$base" && mv "$new" "$base"
}

# Everything that is started or made here is gone when standard input ends, or this process does.
boot() {
  local dir=$1 groups
  is_made || die "there is no root: $self make"
  groups=$(findmnt -n -t cgroup2 -o TARGET | head -n 1)
  [[ -n $groups ]] || die "no cgroup2 is mounted"
  rm -f "$dir/pid"
  cgroup=$(mktemp -d "$groups/systemd-root-XXXXXX")
  setpriv --pdeathsig KILL unshare --pid --fork --kill-child --mount --uts --ipc --net \
    "$self" enter "$dir" "$cgroup" </dev/null &
  machine=$!
  trap end EXIT
  until [[ -s $dir/pid ]] || ! kill -0 "$machine" 2>/dev/null; do
    # Of its only child.
    tr -d ' ' <"/proc/$machine/task/$machine/children" >"$dir/pid" || true
    sleep 0.01
  done
  cat >/dev/null
}

end() {
  local tries=0
  kill -KILL "$machine" 2>/dev/null || true
  { wait "$machine" || true; } 2>/dev/null
  # Empty it is only when the last process that was killed is gone.
  until find "$cgroup" -depth -type d -exec rmdir {} + 2>/dev/null || ((++tries > 100)); do sleep 0.05; done
}

# As process 1 of the new namespaces.
enter() {
  local dir=$1 cgroup=$2
  # The cgroup that a process is in when it makes a namespace of cgroups is the root of that.
  echo 0 >"$cgroup/cgroup.procs"
  exec unshare --cgroup "$self" init "$dir"
}

init() {
  local dir=$1 device
  mount --make-rprivate /
  mount -t tmpfs -o mode=755 tmpfs "$dir"
  cd "$dir"
  mkdir upper work root
  mount -t overlay -o "lowerdir=$base/root,upperdir=upper,workdir=work" overlay root
  cd root
  mount -t proc proc proc
  mount -t sysfs sysfs sys
  mount -t cgroup2 cgroup2 sys/fs/cgroup
  mount -t tmpfs -o mode=755 tmpfs run
  mount -t tmpfs -o mode=1777 tmpfs tmp
  mount -t tmpfs -o mode=755 tmpfs dev
  for device in null zero full random urandom tty; do
    touch "dev/$device" && mount --bind "/dev/$device" "dev/$device"
  done
  mkdir dev/pts dev/shm
  mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
  mount -t tmpfs -o mode=1777 tmpfs dev/shm
  ln -s pts/ptmx dev/ptmx
  ln -s /proc/self/fd dev/fd
  # With a mere chroot every unit that is sandboxed fails: 226/NAMESPACE.
  mkdir run/old
  pivot_root . run/old
  # What is mounted on the machine outside is no concern of the one that boots.
  umount -l /run/old
  rmdir /run/old
  # systemd does this itself, but for containers. LoadCredential= mounts in a namespace of its own, and counts on it.
  mount --make-rshared /
  hostname systemd-root
  exec env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin container=lxc \
    /lib/systemd/systemd --system
}

command=${1:-}
(($# > 0)) && shift
case $command in
  make) make_root ;;
  made) is_made ;;
  debootstrap) (($# > 0)) && bootstrap "$@" ;;
  boot) (($# == 1)) && boot "$(realpath "$1")" ;;
  enter) enter "$@" ;;
  init) init "$@" ;;
  run)
    (($# > 1)) || usage
    pid=$(<"$1/pid")
    shift
    exec nsenter -t "$pid" -m -p -u -i -n -C "$@"
    ;;
  *) usage ;;
esac
