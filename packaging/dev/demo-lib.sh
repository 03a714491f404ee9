# shellcheck shell=bash
# What the two demos share: a scratch directory, a daemon, and events as the app writes them.
# Sourced from the top of the repository, with the demo's own argument.
# shellcheck disable=SC2034 # what is set here is used by the demos

shopt -s extglob
export LC_ALL=C TZ=UTC # EPOCHREALTIME with a point; timestamps in UTC; lengths in bytes

duration=${1:-}
[[ $duration =~ ^[0-9]*$ ]] || {
  echo "usage: ${0##*/} [SECONDS]" >&2
  exit 64
}
bridge=${BRIDGE_BIN:-${CARGO_TARGET_DIR:-target}/release/openalgo-bridge}
[[ -x $bridge ]] || {
  echo "demo: $bridge is not there; run: make demo" >&2
  exit 69
}
rate_pause=0.2     # five events a second
broken_every=0     # every n-th line is cut short; 0: none
drain_deadline=20  # seconds

if [[ -t 1 && -z ${NO_COLOR:-} ]]; then
  bold=$'\e[1m' dim=$'\e[2m' red=$'\e[31m' green=$'\e[32m' yellow=$'\e[33m' plain=$'\e[0m'
else
  bold='' dim='' red='' green='' yellow='' plain=''
fi
say() { printf '%s%s%s\n' "$bold" "$*" "$plain"; }
note() { printf '%s-- %s%s\n' "$dim" "$*" "$plain"; }
row() { printf '  %-34s %s\n' "$1" "$2"; }
lines_of() { if [[ -e $1 ]]; then wc -l <"$1"; else echo 0; fi; }

work=$(mktemp -d "${TMPDIR:-/tmp}/openalgo-bridge-demo.XXXXXX")
input=$work/order_events.jsonl
state=$work/state
bridge_pid=''
failed=1 # until the summary says otherwise
touch "$input" "$work/broken" "$work/arrived"

# Ends one of our children by its id: TERM, then KILL after ten seconds.
end() {
  local pid=$1
  [[ -n $pid ]] && kill -TERM "$pid" 2>/dev/null || return 0
  for _ in {1..100}; do
    kill -0 "$pid" 2>/dev/null || return 0
    sleep 0.1
  done
  kill -KILL "$pid" 2>/dev/null || true
}

# The last thing that a demo does.
keep_or_remove() {
  if ((failed)); then
    echo "demo: everything is kept in $work (the daemon's log: bridge.log)" >&2
  else
    rm -rf "$work"
  fi
}

# --- the daemon ----------------------------------------------------------------------------

# In a session of its own: Ctrl-C is for the demo, which then stops it.
run_bridge() {
  chmod 600 "$work/.env"
  setsid "$bridge" --env-file "$work/.env" run >>"$work/bridge.log" 2>&1 </dev/null &
  bridge_pid=$!
}

# Sets bridge_code and stop_ms.
stop_bridge() {
  local stopped_at=${EPOCHREALTIME/./}
  end "$bridge_pid"
  bridge_code=0
  wait "$bridge_pid" || bridge_code=$?
  bridge_pid=''
  stop_ms=$(((${EPOCHREALTIME/./} - stopped_at) / 1000))
}

check_bridge() {
  kill -0 "$bridge_pid" 2>/dev/null && return
  local code=0
  wait "$bridge_pid" || code=$?
  bridge_pid=''
  tail -n 20 "$work/bridge.log" >&2
  echo "demo: the daemon ended by itself, exit code $code; above is its log" >&2
  exit 1
}

# --- the application's side: events as OpenAlgo writes them ---------------------------------

users=(asha ravi meera desk_2 algo_trader)
symbols=(SBIN INFY TATAPOWER RELIANCE NIFTY26FEB24500CE BANKNIFTY26FEB52000PE)
actions=(BUY SELL)

# Sets `line` to event number $1, stamped now.
make_event() {
  local now=$EPOCHREALTIME timestamp id price data type
  local user=${users[RANDOM % ${#users[@]}]} symbol=${symbols[RANDOM % ${#symbols[@]}]} action=${actions[RANDOM % 2]}
  printf -v timestamp '%(%Y-%m-%dT%H:%M:%S)T.%sZ' "${now%.*}" "${now#*.}"
  printf -v id '2601%08d' "$1"
  printf -v price '%d.%02d' $((RANDOM % 2400 + 100)) $((RANDOM % 20 * 5))
  case $((RANDOM % 10)) in
    [0-5])
      type=order_event
      data='"symbol":"'$symbol'","action":"'$action'","orderid":"'$id'","exchange":"NSE","price_type":"LIMIT","product_type":"MIS","mode":"live"'
      ;;
    6)
      type=order_event
      data='"symbol":"Momentum_Basket","action":"4/4 orders","orderid":"basket_4","exchange":"MULTI","price_type":"BASKET","product_type":"BASKET","mode":"live","batch_order":true,"is_last_order":true'
      ;;
    [7-8])
      type=analyzer_update
      data='"request":{"strategy":"EMA_Cross","exchange":"NSE","symbol":"'$symbol'","action":"'$action'","quantity":10,"pricetype":"LIMIT","product":"MIS","price":'$price'},"response":{"status":"success","orderid":"'$id'","mode":"analyze"}'
      ;;
    9)
      type=order_notification
      data='"symbol":"'$symbol'","status":"info","message":" Positions Already Matched. No Action needed."'
      ;;
  esac
  line='{"event_type":"'$type'","timestamp":"'$timestamp'","user_id":"'$user'","source":"openalgo","data":{'$data'}}'
}

generate() {
  local n=0 stop=0 line
  trap 'stop=1' TERM # between two lines, never within one
  while ((!stop)); do
    ((n += 1))
    make_event "$n"
    if ((broken_every > 0 && n % broken_every == 0)); then
      line=${line:0:90}
      printf '%s\n' "$line" >>"$work/broken"
    fi
    printf '%s\n' "$line" >>"$input"
    sleep "$rate_pause" || true
  done
}
