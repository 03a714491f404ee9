#!/usr/bin/env bash
# The demo of the default mode: a generator appends events to a file, openalgo-bridge is the
# Socket.IO server that re-emits them, a page in the browser and this terminal show them arriving.
# Halfway the daemon is restarted. Nothing is needed but the daemon and bash.
#
#   demo.sh [SECONDS]   without SECONDS until Ctrl-C; exit 0 only if no event is missing
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=packaging/dev/demo-lib.sh
source packaging/dev/demo-lib.sh

port=${PORT:-5055} # where the page is
generator_pid='' screen_pid=''

cleanup() {
  trap '' INT TERM
  end "$generator_pid"
  end "$bridge_pid"
  end "$screen_pid"
  keep_or_remove
}
trap cleanup EXIT

start_bridge() {
  cat >"$work/.env" <<ENV
BRIDGE_INPUT = '$input'
BRIDGE_STATE_DIR = '$state'
BRIDGE_HTTP_LISTEN = 'off'
SOCKETIO_LISTEN = '127.0.0.1:$port'
SOCKETIO_LIVE_PAGE = 'on'
ENV
  run_bridge
}

# Waits for the port, and sets `port` to the one that was chosen if it was 0.
wait_for_port() {
  local status
  for _ in {1..100}; do
    check_bridge
    status=$("$bridge" --env-file "$work/.env" status --json 2>/dev/null) || true
    if [[ $status =~ \"socketio\":\"127.0.0.1:([0-9]+)\" ]]; then
      port=${BASH_REMATCH[1]}
      return
    fi
    sleep 0.1
  done
  tail -n 5 "$work/bridge.log" >&2
  echo "demo: port $port can't be opened; another one: PORT=5056 make demo" >&2
  exit 1
}

# --- a client, in bash: Engine.IO 4 by polling ------------------------------------------------

# request METHOD QUERY [BODY]: sets `answer`; fails without a connection or a 200.
request() {
  local connection head status='' body=${3:-}
  { exec {connection}<>"/dev/tcp/127.0.0.1/$port"; } 2>/dev/null || return 1
  printf '%s /socket.io/?EIO=4&transport=polling%s HTTP/1.1\r\nHost: 127.0.0.1:%s\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s' \
    "$1" "$2" "$port" "${#body}" "$body" 1>&"$connection" || true
  # A connection that breaks off, as at a restart, is an answer too: none.
  {
    read -r _ status _ <&"$connection" || true
    while IFS= read -r head <&"$connection" && [[ $head != $'\r' ]]; do :; done
    IFS= read -r -d '' answer <&"$connection" || true
  } 2>/dev/null
  exec {connection}>&-
  [[ $status == 200 ]]
}

# Shows each event as it comes; comes back when the server does.
show() {
  local answer session packet packets
  while :; do
    # An open session, then into the namespace: `40` both ways.
    if request GET '' && [[ $answer =~ \"sid\":\"([^\"]+)\" ]] && session=${BASH_REMATCH[1]} &&
      request POST "&sid=$session" 40; then
      while request GET "&sid=$session"; do
        IFS=$'\x1e' read -r -d '' -a packets <<<"$answer" || true
        for packet in "${packets[@]}"; do
          case $packet in
            2*) request POST "&sid=$session" 3 || break ;; # a ping
            42*) show_event "${packet%$'\n'}" ;;
          esac
        done
      done
    fi
    sleep 0.3
  done
}

# One line for a packet such as 42["order_event",{...}].
show_event() {
  local now=$EPOCHREALTIME clock type subject width=80
  [[ $1 =~ ^42\[\"([a-z_]+)\",\{(.*)\}\]$ ]] || return 0
  type=${BASH_REMATCH[1]} subject=${BASH_REMATCH[2]}
  printf '%s\n' "${subject}" >>"$work/arrived"
  subject=${subject//\"+([a-z_])\":/} # the values will do
  subject=${subject//[\"\{\}]/}
  subject=${subject//,/ }
  printf -v clock '%(%H:%M:%S)T.%.3s' "${now%.*}" "${now#*.}"
  printf '%s  %-18s  %s%.*s%s\n' "$clock" "$type" "$dim" "$width" "$subject" "$plain"
}

# --- the play ------------------------------------------------------------------------------

# Sets written, arrived, missing: what is in the file and did not come out, and the other way round.
take_stock() {
  sed -n 's/.*"data":{\(.*\)}}$/\1/p' "$input" | sort >"$work/expected"
  sort "$work/arrived" >"$work/arrived.sorted"
  written=$(lines_of "$work/expected") arrived=$(lines_of "$work/arrived.sorted")
  missing=$(comm -23 "$work/expected" "$work/arrived.sorted" | wc -l)
}

stopping=0
trap 'stopping=1' INT TERM

start_bridge
wait_for_port
say "openalgo-bridge follows $input"
say "Open in a browser:  http://127.0.0.1:$port/live"
show &
screen_pid=$!
generate &
generator_pid=$!
say "Five events a second are appended. $([[ -n $duration ]] && echo "Ends after $duration s." || echo "Ctrl-C ends it.")"
printf '\n%s%-12s  %-18s  %s%s\n' "$bold" "arrived" "event" "data" "$plain"

restart_at=12
if [[ -n $duration ]]; then
  restart_at=$((duration >= 6 ? duration / 2 : duration + 1))
fi
started=$SECONDS
while ((!stopping)); do
  elapsed=$((SECONDS - started))
  if [[ -n $duration ]] && ((elapsed >= duration)); then
    break
  fi
  if ((restart_at >= 0 && elapsed >= restart_at)); then
    restart_at=-1
    say "The daemon is restarted now. Events go on being written; none may get lost."
    end "$bridge_pid"
    sleep 1 || true
    start_bridge
    wait_for_port
  fi
  check_bridge
  sleep 0.25 || true
done

trap 'echo; exit 130' INT TERM # asked a second time: leave at once
printf '\n'
say "Stopping: the generator first, then the daemon when everything has arrived (at most $drain_deadline s) ..."
end "$generator_pid"
deadline=$((SECONDS + drain_deadline))
take_stock
while ((missing > 0)) && ((SECONDS < deadline)); do
  sleep 0.25
  take_stock
done
check_bridge
stop_bridge
take_stock

printf '\n%sSummary%s\n' "$bold" "$plain"
row "events written" "$written"
row "events that arrived here" "$arrived"
row "missing" "$missing"
row "daemon's exit code on SIGTERM" "$bridge_code (after $stop_ms ms)"
if ((missing == 0 && written > 0 && arrived == written)); then
  failed=0
  printf '\n%sEvery event arrived, once.%s\n' "$green$bold" "$plain"
else
  printf '\n%s%s events are missing, %s arrived for %s written.%s\n' "$red$bold" "$missing" "$arrived" "$written" "$plain"
fi
((!failed))
