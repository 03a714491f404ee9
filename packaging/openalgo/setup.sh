#!/usr/bin/env bash
# Connects the OpenAlgo installations of this machine with openalgo-bridge, without touching their files.
#
#   setup.sh             for each unit of OpenAlgo: a drop-in, a file of settings, a directory for events
#   setup.sh --dry-run   prints what that would do, and does nothing
#   setup.sh --undo      removes exactly what it wrote; events and edited settings stay
#
# Nothing is restarted; the last lines say what to run. ROOT=DIR works on a tree below DIR instead of /,
# without systemd: for tests and images.
set -euo pipefail

ROOT=${ROOT:-}
ROOT=${ROOT%/}
UNIT_DIRS=(/etc/systemd/system /usr/local/lib/systemd/system /usr/lib/systemd/system /lib/systemd/system)
KIT=/usr/share/openalgo-bridge/openalgo
SETTINGS_DIR=/etc/openalgo-bridge/openalgo
GROUP=openalgo-bridge
MARK='# Written by setup.sh of openalgo-bridge, and removed by its --undo.'

dry_run=
undo=

usage() {
    sed -n '2,9s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
}

say() { printf '%s\n' "$*"; }
warn() { printf 'warning: %s\n' "$*" >&2; }
die() {
    printf 'setup.sh: %s\n' "$2" >&2
    exit "$1"
}

# --- finding ----------------------------------------------------------------------------------

# openalgo.service, openalgo1.service of install-multi.sh, openalgo-NAME.service of older installs.
# Not the daemon's own units, whose names begin the same way.
find_units() {
    local dir file unit
    for dir in "${UNIT_DIRS[@]}"; do
        for file in "$ROOT$dir"/openalgo.service "$ROOT$dir"/openalgo[0-9]*.service "$ROOT$dir"/openalgo-*.service; do
            unit=${file##*/}
            [[ -f $file && $unit != openalgo-bridge* && $unit != *@* ]] || continue
            [[ $(exec_start "$file") == *gunicorn* ]] || continue
            printf '%s %s\n' "$unit" "$file"
        done
    done | sort -u -k1,1 -V
}

# The command, its continuation lines joined.
exec_start() {
    sed -e ':join' -e '/\\$/{N;s/\\\n/ /;b join' -e '}' "$1" | sed -n 's/^ExecStart=//p' | tail -n 1
}

# The last value of a key, as systemd takes it.
unit_value() {
    sed -n "s/^$2=//p" "$1" | tail -n 1
}

layout() {
    case $1 in
        openalgo.service) say single ;;
        openalgo-*) say 'older layout' ;;
        *) say multi-instance ;;
    esac
}

# A single installation has the directory that the daemon reads by default, each further one its own.
events_dir() {
    case $1 in
        openalgo.service) say /var/lib/openalgo-events ;;
        *) say "/var/lib/openalgo-events/${1%.service}" ;;
    esac
}

warn_about() {
    local unit=$1 file=$2 dir=$3 other options
    options=$(exec_start "$file")
    # What follows gunicorn: the command may be in a `bash -c`.
    options=${options#*gunicorn}
    # gunicorn takes one configuration file, and the command line wins over the variable.
    if [[ $options =~ [[:space:]](-c|--config)[[:space:]=] ]]; then
        warn "$unit: its ExecStart has a --config of its own, so the kit is not loaded"
    fi
    if [[ -n $dir && -e $ROOT$dir/gunicorn.conf.py ]]; then
        warn "$unit: $dir/gunicorn.conf.py is no longer read once the kit is loaded"
    fi
    for other in "$file" "$ROOT/etc/systemd/system/$unit.d"/*.conf; do
        [[ -f $other && $other != */openalgo-bridge.conf ]] || continue
        if grep -q GUNICORN_CMD_ARGS "$other"; then
            warn "$unit: ${other#"$ROOT"} sets GUNICORN_CMD_ARGS too; only one of the two has effect"
        fi
    done
}

# --- writing ----------------------------------------------------------------------------------

drop_in() {
    local settings=$1 events=$2
    cat <<END
$MARK
[Service]
# GUNICORN_CMD_ARGS=--config=$KIT/gunicorn.conf.py
# comes from a file of the kit, so that it is gone when the kit is: gunicorn would not start without its file.
EnvironmentFile=-$KIT/gunicorn.env
Environment=OPENALGO_BRIDGE_FILE=$events/order_events.jsonl
EnvironmentFile=-$settings
END
}

settings_file() {
    cat <<END
# Settings of the OpenAlgo kit for $1; restart that unit after a change. docs/openalgo.md explains each.
#OPENALGO_BRIDGE_EVENTS=order_event,analyzer_update,order_notification,master_contract_download,password_change
#OPENALGO_BRIDGE_EMIT=app
#OPENALGO_BRIDGE_USER_ID=
#OPENALGO_BRIDGE_TOKEN_FILE=
END
}

# Writes standard input to a file, if it differs from what is there.
put() {
    local path=$1 mode=$2 text
    text=$(cat)
    if [[ -f $ROOT$path ]] && printf '%s\n' "$text" | cmp -s - "$ROOT$path"; then
        say "  unchanged  $path"
        return
    fi
    say "  write      $path"
    [[ -z $dry_run ]] || return 0
    mkdir -p -- "$(dirname -- "$ROOT$path")"
    printf '%s\n' "$text" >"$ROOT$path.new"
    chmod "$mode" "$ROOT$path.new"
    mv -- "$ROOT$path.new" "$ROOT$path"
}

make_events_dir() {
    local path=$1 user=$2
    if [[ -d $ROOT$path && $(stat -c '%a %U %G' "$ROOT$path") == "2750 $(owner "$user") $(group)" ]]; then
        say "  unchanged  $path/"
        return
    fi
    say "  directory  $path/  2750 $user:$GROUP"
    [[ -z $dry_run ]] || return 0
    install -d -m 2750 -o "$(owner "$user")" -g "$(group)" -- "$ROOT$path"
    # install drops the setgid bit where it changes the owner after the mode.
    chmod 2750 -- "$ROOT$path"
}

# Below a scratch root the user and the group need not exist: there everything stays the caller's.
owner() {
    if [[ -n $ROOT ]]; then id -un; else say "$1"; fi
}
group() {
    if [[ -n $ROOT ]]; then id -gn; else say "$GROUP"; fi
}

set_up() {
    local unit=$1 file=$2 dir user events settings
    dir=$(unit_value "$file" WorkingDirectory)
    user=$(unit_value "$file" User)
    events=$(events_dir "$unit")
    settings=$SETTINGS_DIR/${unit%.service}.env
    say "$unit: $(layout "$unit"), ${dir:-no WorkingDirectory}, runs as ${user:-root}"
    warn_about "$unit" "$file" "$dir"
    # The parent of an instance's directory: the daemon's group may pass through, nobody else.
    if [[ $events != /var/lib/openalgo-events ]]; then make_parent; fi
    make_events_dir "$events" "${user:-root}"
    if [[ -e $ROOT$settings ]]; then
        say "  kept       $settings"
    else
        settings_file "$unit" | put "$settings" 640
    fi
    drop_in "$settings" "$events" | put "/etc/systemd/system/$unit.d/openalgo-bridge.conf" 644
    say "  for the daemon: BRIDGE_INPUT = '$events/order_events.jsonl'"
}

# The apps of several instances run as one user by default, but need not: each owns only its own directory.
make_parent() {
    local parent=/var/lib/openalgo-events
    if [[ ! -d $ROOT$parent ]]; then
        say "  directory  $parent/  0755 root"
        [[ -n $dry_run ]] || install -d -m 755 -- "$ROOT$parent"
    elif is_for_one_app "$parent" && ! find_units | grep '^openalgo\.service ' >/dev/null; then
        say "  directory  $parent/  2755 root"
        [[ -n $dry_run ]] || chmod 2755 -- "$ROOT$parent"
    fi
}

# As the package makes it: for the app of openalgo.service, whoever that is, and closed to all others.
is_for_one_app() {
    [[ $(stat -c '%a %U' "$ROOT$1") == "2750 $(owner root)" ]]
}

# --- undoing ----------------------------------------------------------------------------------

take() {
    say "  remove     $1"
    [[ -n $dry_run ]] || rm -f -- "$ROOT$1"
}

take_dir_if_empty() {
    [[ -d $ROOT$1 ]] || return 0
    if [[ -n $(ls -A -- "$ROOT$1") ]]; then
        [[ -n $dry_run ]] || say "  stays      $1/ is not empty"
        return 0
    fi
    say "  remove     $1/"
    [[ -n $dry_run ]] || rmdir -- "$ROOT$1"
}

# By what is there, not by the units: one may have been removed meanwhile.
undo_all() {
    local file unit settings events
    for file in "$ROOT"/etc/systemd/system/openalgo*.service.d/openalgo-bridge.conf; do
        [[ -f $file && $(head -n 1 "$file") == "$MARK" ]] || continue
        unit=$(basename -- "$(dirname -- "$file")" .d)
        say "$unit:"
        take "${file#"$ROOT"}"
        take_dir_if_empty "/etc/systemd/system/$unit.d"
        settings=$SETTINGS_DIR/${unit%.service}.env
        if [[ -f $ROOT$settings ]]; then
            if settings_file "$unit" | cmp -s - "$ROOT$settings"; then
                take "$settings"
            else
                say "  stays      $settings was edited"
            fi
        fi
        events=$(events_dir "$unit")
        take_dir_if_empty "$events"
    done
    take_dir_if_empty "$SETTINGS_DIR"
    take_dir_if_empty /var/lib/openalgo-events
}

# --- the command ------------------------------------------------------------------------------

for argument in "$@"; do
    case $argument in
        --dry-run) dry_run=1 ;;
        --undo) undo=1 ;;
        -h | --help)
            usage
            exit 0
            ;;
        *)
            usage >&2
            exit 64
            ;;
    esac
done

if [[ -z $ROOT && -z $dry_run ]]; then
    [[ $EUID -eq 0 ]] || die 77 'needs root; --dry-run does not'
    [[ -n $undo ]] || getent group "$GROUP" >/dev/null ||
        die 69 "the group $GROUP is missing: install openalgo-bridge first"
fi

if [[ -n $undo ]]; then
    undo_all
    [[ -z $dry_run ]] || exit 0
    say 'Then: systemctl daemon-reload, and restart the units of OpenAlgo named above.'
    exit 0
fi

units=()
while read -r unit file; do
    units+=("$unit")
    set_up "$unit" "$file"
done < <(find_units)
if [[ ${#units[@]} -eq 0 ]]; then
    die 69 'no unit of OpenAlgo found (openalgo.service, openalgoN.service, openalgo-NAME.service)'
fi
if [[ ! -e $ROOT$KIT/gunicorn.env ]]; then
    warn "$KIT/gunicorn.env is missing: until it is there, the units start without the kit"
fi
[[ -z $dry_run ]] || exit 0
say "Then: systemctl daemon-reload && systemctl restart ${units[*]}"
