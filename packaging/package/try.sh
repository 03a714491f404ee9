#!/usr/bin/env bash
# Installs the .deb of dist/ in a Debian with systemd, runs it, upgrades it, removes and purges it, and
# looks after each step whether everything is as it should be. Then looks into the .rpm. As root.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

name=openalgo-bridge
unit=$name.service
events=/var/lib/openalgo-events/order_events.jsonl
deb=$(echo dist/"$name"_*_amd64.deb)
rpm=$(echo dist/"$name"-*.x86_64.rpm)
work=$(mktemp -d)
checks=0

say() { printf 'try: %s\n' "$*"; }
die() {
  printf 'try: %s\n' "$*" >&2
  exit 1
}
# In the machine.
run() { packaging/dev/systemd-root.sh run "$work" "$@"; }
sh_() { run bash -euo pipefail -c "$1"; }

# What is expected, what it is about, and the command whose output that is.
expect() {
  local expected=$1 what=$2 is
  shift 2
  is=$(run "$@" 2>&1) || true
  [[ $is == "$expected" ]] || die "$what: expected '$expected', is '$is'"
  ((++checks))
}

boot() {
  # It is off when this pipe ends, and that ends with this process.
  exec {power}> >(exec packaging/dev/systemd-root.sh boot "$work" >/dev/null)
  until [[ -s $work/pid ]] && run systemctl is-system-running --wait >/dev/null 2>&1; do sleep 0.1; done
}
# The machine sees it go, and takes what is mounted below along.
finish() {
  exec {power}>&- || true
  sleep 1
  rm -rf --one-file-system "$work" || true
}

# The same package once more, as a later version that brings another conffile.
later_version() {
  local tree=$work/later
  dpkg-deb -R "$deb" "$tree"
  sed -i 's/^Version: .*/&.1/' "$tree/DEBIAN/control"
  echo '# A later version says more.' >>"$tree/etc/$name/.env"
  dpkg-deb --root-owner-group -b "$tree" "$work/later.deb" >/dev/null
}

install_deb() { # FILE OPTION...
  local file=$1
  shift
  cp "$file" "/proc/$(<"$work/pid")/root/root/package.deb"
  run env DEBIAN_FRONTEND=noninteractive dpkg "$@" -i /root/package.deb </dev/null >"$work/log" 2>&1 || {
    cat "$work/log" >&2
    die "dpkg -i $file fails"
  }
}

# Whatever is called like the package, but what dpkg notes about it.
leftovers() {
  sh_ "find /etc /usr /var /run -xdev -name '*openalgo*' ! -path '/var/lib/dpkg/*' ! -path '/var/log/*' | sort"
}

line='{"event_type":"order_event","timestamp":"2026-01-29T10:30:45Z","user_id":"u","source":"s","data":{}}'
append() {
  sh_ "for n in \$(seq $1); do echo '$line'; done >>$events"
}
# The app, a line every few milliseconds.
begin_load() {
  sh_ "rm -f /run/enough; until [[ -e /run/enough ]]; do echo '$line' >>$events; sleep 0.005; done" &
  load=$!
}
end_load() {
  run touch /run/enough
  wait "$load"
}
written() { sh_ "wc -l <$events"; }
# What the ids of its events begin with.
generation() {
  run openalgo-bridge status --json | python3 -c 'import json, sys; print(json.load(sys.stdin)["input"]["generation"])'
}
delivered() {
  sh_ "openalgo-bridge status --caught-up --wait 30 >/dev/null && openalgo-bridge status --json" |
    python3 -c 'import json, sys; print(json.load(sys.stdin)["ledger"]["lines"]["delivered"])'
}

installed() {
  install_deb "$deb"
  expect "root:$name 640" "the configuration" stat -c '%U:%G %a' /etc/$name/.env
  expect "root:$name 2750" "the events' directory" stat -c '%U:%G %a' /var/lib/openalgo-events
  expect disabled "installed" systemctl is-enabled $unit
  expect inactive "installed" systemctl is-active $unit
  expect '' "files that differ from the package's" dpkg --verify $name
  expect 0 "the user may read the configuration" setpriv --reuid $name --regid $name --clear-groups \
    sh -c 'openalgo-bridge check >/dev/null; echo $?'
  # The app is another user, and reads the relay's token there (docs/openalgo.md).
  run install -m 640 -o www-data -g $name /dev/null /etc/$name/relay-token
  expect 0 "the app may read the relay's token" setpriv --reuid www-data --regid www-data --clear-groups \
    sh -c "test -r /etc/$name/relay-token; echo \$?"
  # Once more, as after an interrupted installation.
  run dpkg-reconfigure $name 2>/dev/null || run /var/lib/dpkg/info/$name.postinst configure ''
  expect "root:$name 2750" "the events' directory, configured again" stat -c '%U:%G %a' /var/lib/openalgo-events
  say "installed: a user, a configuration, directories, nothing started"
}

running() {
  run systemctl enable --quiet --now $unit
  expect active "started" systemctl is-active $unit
  append 100
  [[ $(delivered) == 100 ]] || die "not all lines are delivered"
  expect "$name:$name 700" "the state directory" stat -c '%U:%G %a' /var/lib/$name
  say "running: 100 lines read"
}

upgraded() {
  local before after named lines
  sh_ "echo \"BRIDGE_LOG_LEVEL = 'debug'\" >>/etc/$name/.env"
  sh_ "install -m 640 -g $name /etc/$name/.env /etc/$name/second.env &&
    printf \"BRIDGE_INPUT = '/var/lib/openalgo-events/second.jsonl'\nSOCKETIO_LISTEN = '127.0.0.1:5056'\nBRIDGE_HTTP_LISTEN = '127.0.0.1:9821'\nBRIDGE_STATE_DIR = '/var/lib/openalgo-bridge/second'\n\" >>/etc/$name/second.env"
  run systemctl start $name@second.service
  run systemctl stop $unit
  install_deb "$deb"
  expect inactive "stopped by hand, and reinstalled" systemctl is-active $unit
  expect active "the instance, reinstalled" systemctl is-active $name@second.service
  run systemctl start $unit
  before=$(run systemctl show -P MainPID $unit)
  append 100
  later_version
  named=$(generation)
  begin_load
  until (($(written) > 300)); do sleep 0.05; done
  install_deb "$work/later.deb" --force-confdef --force-confold
  after=$(run systemctl show -P MainPID $unit)
  expect active "upgraded" systemctl is-active $unit
  [[ $before != "$after" ]] || die "the upgrade left the old binary running"
  lines=$(written)
  until (($(written) > lines + 100)); do sleep 0.05; done
  end_load
  [[ $(delivered) == $(written) ]] || die "an upgrade lost or repeated lines: $(delivered) of $(written)"
  [[ $(generation) == "$named" ]] || die "the ids of events do not go on"
  expect "BRIDGE_LOG_LEVEL = 'debug'" "the edited configuration" tail -n 1 /etc/$name/.env
  expect "root:$name 640" "the configuration, upgraded" stat -c '%U:%G %a' /etc/$name/.env
  expect enabled "upgraded" systemctl is-enabled $unit
  say "upgraded: the edited configuration stays, what ran goes on, what was stopped stays stopped"
}

removed() {
  run mkdir -p /var/python/openalgo
  sh_ "printf '[Service]\nUser=root\nWorkingDirectory=/var/python/openalgo\nExecStart=/usr/bin/gunicorn app:app\n' \
    >/etc/systemd/system/openalgo.service"
  run /usr/share/$name/openalgo/setup.sh >/dev/null
  sh_ "test -e /etc/systemd/system/openalgo.service.d/openalgo-bridge.conf"
  run dpkg -r $name >/dev/null 2>&1
  expect inactive "removed" systemctl is-active $unit
  expect inactive "the instance, removed" systemctl is-active $name@second.service
  expect "BRIDGE_LOG_LEVEL = 'debug'" "the edited configuration, removed" tail -n 1 /etc/$name/.env
  sh_ "test -s /var/lib/$name/checkpoint.json"
  say "removed: stopped; configuration and position stay"
}

purged() {
  run dpkg -P $name >/dev/null 2>&1
  expect "$events" "the app's events" ls "$events"
  run rm -r /etc/systemd/system/openalgo.service /var/python /var/lib/openalgo-events
  [[ -z $(leftovers) ]] || die "purged, and there is still: $(leftovers)"
  # Never run and purged at once: also the directory that only the package made is gone.
  install_deb "$deb"
  run dpkg -P $name >/dev/null 2>&1
  [[ -z $(leftovers) ]] || die "purged at once, and there is still: $(leftovers)"
  expect '' "units that are gone and still known" sh -c "systemctl list-units --all --plain --no-legend 'openalgo*'"
  say "purged: nothing is left but the user and the app's events"
}

rpm_has_everything() {
  local path
  rpm -qlp "$rpm" 2>/dev/null >"$work/listed"
  # It writes everything, and then fails: cargo-generate-rpm leaves out a size that it compares that with.
  rpm2cpio "$rpm" >"$work/cpio" || true
  cpio -t --quiet <"$work/cpio" | sed 's,^\.,,' | sort >"$work/packed"
  cmp <(sort "$work/listed") "$work/packed"
  for path in /usr/bin/$name /etc/$name/.env /usr/lib/systemd/system/$unit /usr/lib/systemd/system/$name@.service \
    /usr/lib/sysusers.d/$name.conf /usr/lib/tmpfiles.d/$name.conf /usr/share/man/man1/$name.1.gz \
    /usr/share/$name/openalgo/setup.sh /usr/share/$name/openalgo/openalgo_bridge_kit/kit.py \
    /usr/share/bash-completion/completions/$name /usr/share/doc/$name/README.md; do
    grep -qx "$path" "$work/listed" || die "the rpm lacks $path"
  done
  rpm -qp --qf '[%{FILENAMES} %{FILEMODES:octal} %{FILEUSERNAME}:%{FILEGROUPNAME} %{FILEFLAGS}\n]' "$rpm" 2>/dev/null |
    grep -x "/etc/$name/.env 100640 root:$name 17" >/dev/null || die "the rpm's .env is not config(noreplace), 0640"
  cmp <(cpio -i --quiet --to-stdout "./usr/bin/$name" <"$work/cpio") <(dpkg-deb --fsys-tarfile "$deb" | tar -xO "./usr/bin/$name")
  say "the rpm has what it should"
}

# There is no Red Hat here: Debian's rpm installs it in a copy of the same root, whatever it requires.
rpm_is_installed_and_erased() {
  mkdir "$work/rpm"
  unshare --mount bash -euo pipefail -s -- "$work/rpm" "$PWD/.tools/systemd-root/root" "$PWD/$rpm" <<'END'
dir=$1
mount -t tmpfs tmpfs "$dir"
cd "$dir"
mkdir upper work root
mount -t overlay -o "lowerdir=$2,upperdir=upper,workdir=work" overlay root
# systemd-tmpfiles wants it.
mount -t proc proc root/proc
is() { [[ $(chroot root "${@:2}") == "$1" ]] || { echo "try: not $1: $(chroot root "${@:2}")" >&2; exit 1; }; }
rpm() { command rpm --root "$dir/root" --nosignature "$@" 2>"$dir/said" || { cat "$dir/said" >&2; exit 1; }; }
rpm --nodeps -i "$3"
is 'root:openalgo-bridge 640' stat -c '%U:%G %a' /etc/openalgo-bridge/.env
is 'openalgo-bridge:openalgo-bridge 700' stat -c '%U:%G %a' /var/lib/openalgo-bridge
is 'root:openalgo-bridge 2750' stat -c '%U:%G %a' /var/lib/openalgo-events
is '0' sh -c 'openalgo-bridge check >/dev/null; echo $?'
rpm -V --nodeps openalgo-bridge
echo '# edited' >>root/etc/openalgo-bridge/.env
rpm -e openalgo-bridge
is '# edited' tail -n 1 /etc/openalgo-bridge/.env.rpmsave
is '' find /usr -name '*openalgo-bridge*'
END
  say "the rpm is installed and erased, and keeps an edited configuration"
}

[[ $EUID -eq 0 ]] || die "booting a machine needs root"
trap finish EXIT
boot
installed
running
upgraded
removed
purged
rpm_has_everything
rpm_is_installed_and_erased
say "$checks values checked"
