#!/usr/bin/env bash
# The demo of KAFKA mode: a generator appends events to a file, openalgo-bridge delivers them to a
# real Kafka, an independent consumer shows them arriving; halfway the broker goes away for a while.
#
#   demo-kafka.sh [SECONDS]   without SECONDS until Ctrl-C; exit 0 only if no event is missing
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=packaging/dev/demo-lib.sh
source packaging/dev/demo-lib.sh

kafka=packaging/dev/kafka.sh
topic=from_openalgo_order_events
broken_every=20    # one line in twenty is cut short, as by a crashing writer
broker_down_for=3  # seconds
generator_pid='' bridge_pid='' consumer_pid='' screen_pid=''

cleanup() {
  trap '' INT TERM
  end "$generator_pid"
  end "$bridge_pid"
  end "$consumer_pid"
  end "$screen_pid"
  "$kafka" stop "$work/kafka" || true
  keep_or_remove
}
trap cleanup EXIT

# --- the consumer's side -------------------------------------------------------------------

# One line per event from kcat's "record time in ms, key, headers, value".
show() {
  local stamp key headers value now type seconds clock subject colour width=60
  [[ -t 1 ]] && width=$(($(tput cols 2>/dev/null || echo 120) - 59))
  ((width >= 16)) || width=16
  while IFS=$'\t' read -r stamp key headers value; do
    now=${EPOCHREALTIME/./}
    [[ $headers =~ ce_type=([^,]*) ]] && type=${BASH_REMATCH[1]} || type='?'
    [[ $value =~ \"data\":\{(.*)\}\}$ ]] && subject=${BASH_REMATCH[1]} || subject=$value
    subject=${subject//\"+([a-z_])\":/} # the values will do
    subject=${subject//[\"\{\}]/}
    subject=${subject//,/ }
    seconds=$((stamp / 1000))
    printf -v clock '%(%H:%M:%S)T.%03d' "$seconds" $((stamp % 1000))
    colour=$green
    ((now / 1000 - stamp > 1000)) && colour=$yellow # held up by the broker's absence
    printf '%s  %-11s  %-18s  %s%6d ms%s  %s%.*s%s\n' \
      "$clock" "$key" "$type" "$colour" $((now / 1000 - stamp)) "$plain" "$dim" "$width" "$subject" "$plain"
    printf '.\n' >>"$work/arrived"
  done
}

start_consumer() {
  mkfifo "$work/consumer"
  # Its own session, like the daemon's and the broker's, so that Ctrl-C reaches this script only.
  # -E: it stays when the broker goes away.
  setsid kcat -C -q -u -E -b "$bootstrap" -t "$topic" -o beginning -f '%T\t%k\t%h\t%s\n' \
    -X reconnect.backoff.max.ms=500 -X fetch.wait.max.ms=100 -X topic.metadata.refresh.interval.ms=1000 \
    >"$work/consumer" 2>"$work/consumer.log" </dev/null &
  consumer_pid=$!
  show <"$work/consumer" &
  screen_pid=$!
}

# --- the daemon ----------------------------------------------------------------------------

start_bridge() {
  cat >"$work/.env" <<ENV
ORDER_EVENT_MODE = 'KAFKA'
BRIDGE_INPUT = '$input'
BRIDGE_STATE_DIR = '$state'
KAFKA_BOOTSTRAP_SERVERS = '$bootstrap'
KAFKA_ORDER_EVENTS_TOPIC = '$topic'
BRIDGE_HTTP_LISTEN = 'off'
ENV
  run_bridge
}

# The position as the daemon committed it, next to what is in the file.
show_state() {
  local checkpoint offset='?'
  checkpoint=$("$bridge" --env-file "$work/.env" checkpoint show --json 2>/dev/null) || true
  [[ $checkpoint =~ \"offset\":\ ?([0-9]+) ]] && offset=${BASH_REMATCH[1]}
  note "checkpoint at byte $offset of $(stat -c %s "$input" 2>/dev/null || echo 0)," \
    "$(lines_of "$input") lines written, $(lines_of "$work/arrived") arrived," \
    "$(lines_of "$state/rejects.jsonl") rejected"
}

# --- what arrived, asked of the broker afresh -------------------------------------------------

# Sets written, in_topic, ids, missing, duplicates.
take_stock() {
  kcat -C -e -q -b "$bootstrap" -t "$topic" -o beginning -f '%h\t%s\n' >"$work/topic" 2>/dev/null </dev/null || true
  sort "$work/broken" >"$work/broken.sorted"
  sort "$input" | comm -23 - "$work/broken.sorted" >"$work/expected"
  cut -f 2- "$work/topic" | sort -u | comm -23 "$work/expected" - >"$work/missing"
  sed -n 's/.*ce_id=\([^,\t]*\).*/\1/p' "$work/topic" | sort -u >"$work/ids"
  written=$(lines_of "$input") in_topic=$(lines_of "$work/topic") ids=$(lines_of "$work/ids")
  missing=$(lines_of "$work/missing") duplicates=$((in_topic - ids))
}

# --- the play ------------------------------------------------------------------------------

stopping=0
trap 'stopping=1' INT TERM

say "Starting Kafka (one node, real broker) ..."
# In a session of its own: Ctrl-C must not tear it apart halfway.
bootstrap=$(KAFKA_AUTO_CREATE=false setsid -w "$kafka" start "$work/kafka")
setsid -w "$kafka" topics "$work/kafka" --create --topic "$topic" --partitions 3 >/dev/null
say "Kafka listens on $bootstrap; topic $topic, 3 partitions."
start_bridge
say "openalgo-bridge follows $input"
start_consumer
if ((stopping)); then
  failed=0
  say "Stopped before the first event."
  exit
fi
generate &
generator_pid=$!
say "Five events a second are appended. $([[ -n $duration ]] && echo "Ends after $duration s." || echo "Ctrl-C ends it.")"
printf '\n%s%-12s  %-11s  %-18s  %9s  %s%s\n' "$bold" "event time" "key" "event type" "latency" "data" "$plain"

outage_at=12
if [[ -n $duration ]]; then
  outage_at=$((duration >= 15 ? duration / 2 : duration + 1))
fi
started=$SECONDS next_state=5
while ((!stopping)); do
  elapsed=$((SECONDS - started))
  if [[ -n $duration ]] && ((elapsed >= duration)); then
    break
  fi
  if ((outage_at >= 0 && elapsed >= outage_at)); then
    outage_at=-1
    say "The broker stops now for $broker_down_for seconds. Events go on being written; none may get lost."
    setsid -w "$kafka" stop "$work/kafka"
    sleep "$broker_down_for" || true
    show_state
    setsid -w "$kafka" start "$work/kafka" >/dev/null
    say "The broker is back, on the same data."
  elif ((elapsed >= next_state)); then
    show_state
    next_state=$((elapsed + 5))
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
while ((missing > 0 || $(lines_of "$work/arrived") < in_topic)) && ((SECONDS < deadline)); do
  sleep 0.5
  take_stock
done
check_bridge
show_state
stop_bridge
end "$consumer_pid"
take_stock # the last word: after the daemon's end

printf '\n%sSummary%s\n' "$bold" "$plain"
row "lines written" "$written"
row "of these broken on purpose" "$(lines_of "$work/broken")"
row "rejected (rejects.jsonl)" "$(lines_of "$state/rejects.jsonl")"
row "lines in the topic" "$in_topic"
row "distinct event ids (ce_id)" "$ids"
row "duplicates" "$duplicates"
row "missing" "$missing"
row "daemon's exit code on SIGTERM" "$bridge_code (after $stop_ms ms)"
if ((missing == 0 && written > 0)); then
  failed=0
  printf '\n%sEvery event arrived.%s\n' "$green$bold" "$plain"
else
  printf '\n%s%s events are missing.%s\n' "$red$bold" "$missing" "$plain"
  echo "They are in $work/missing."
fi
((!failed))
