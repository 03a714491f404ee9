#!/usr/bin/env bash
# A real Kafka on 127.0.0.1, for tests and the demo: one node, whose everything is in DIR.
#
#   kafka.sh start DIR [PORT]     formats DIR if it is new, starts the broker, prints host:port
#   kafka.sh cluster DIR N        formats DIR/1 to DIR/N as N nodes of one cluster; `start` each, all at once
#   kafka.sh stop DIR             stops it; the data stays and `start DIR` brings it back
#   kafka.sh kill DIR             the same with SIGKILL, as a machine fails
#   kafka.sh topics DIR ARGS...   the kafka-topics tool
#   kafka.sh configs DIR ARGS...  the kafka-configs tool
#
# DIR/bootstrap, DIR/pid and DIR/broker.log say where, who and why not.
# For a new DIR, KAFKA_AUTO_CREATE (true) and KAFKA_NUM_PARTITIONS (1) say how topics come about;
# lines in KAFKA_SETTINGS come last and so count.
# KAFKA_JAVA_OPTS replaces the JVM's options, which favour a quick start over throughput.
set -euo pipefail

usage() {
  sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}" >&2
  exit 64
}
die() {
  printf 'kafka.sh: %s\n' "$*" >&2
  exit 1
}

(($# >= 2)) || usage
command=$1
dir=$(realpath -m -- "$2")
shift 2
libs=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)/.tools/kafka/libs
[[ -d $libs ]] || die "Kafka is not installed; run packaging/dev/install-tools.sh"
read -ra java_opts <<<"${KAFKA_JAVA_OPTS:--Xmx512m -XX:+UseSerialGC -XX:TieredStopAtLevel=1}"

# Warnings go to broker.log and explain a start that fails; of the rest only "Kafka Server started".
kafka=(
  "-XX:ErrorFile=$dir/crash.log"
  -Dorg.slf4j.simpleLogger.defaultLogLevel=warn
  -Dorg.slf4j.simpleLogger.log.kafka.server.KafkaRaftServer=info
  -cp "$libs/*"
)

# Whether the process in DIR/pid is our broker, and not one that got its number later.
running() {
  [[ -s $dir/pid ]] && grep -qaF -- "$dir/server.properties" "/proc/$(<"$dir/pid")/cmdline" 2>/dev/null
}

# The first of N free ports in a row, below the range from which the kernel takes outgoing ones, so
# that they are still free when the broker is stopped and started again.
free_ports() {
  local port next
  for _ in {1..100}; do
    port=$((RANDOM % 12000 + 20000))
    for ((next = port; next < port + $1; next++)); do
      if (exec 3<>"/dev/tcp/127.0.0.1/$next") 2>/dev/null; then
        continue 2
      fi
    done
    echo "$port"
    return
  done
  die "found no free port"
}

cluster_id() {
  local id
  # Of the URL's alphabet without `-`: one at the start would be taken for an option, one run in 64.
  id=$(head -c 16 /dev/urandom | base64 | tr '+/' 'xy')
  echo "${id%==}"
}

# format DIR ID NODES NODE PORT CONTROLLERS: the node's settings and its empty data. Controllers listen
# on ports in a row, and all nodes are one.
format() {
  local dir=$1 nodes=$3 node=$4 port=$5 controllers=$6 voters='' each
  for ((each = 1; each <= nodes; each++)); do
    voters+=${voters:+,}$each@127.0.0.1:$((controllers + each - 1))
  done
  mkdir -p "$dir"
  cat >"$dir/server.properties" <<PROPERTIES
process.roles=broker,controller
node.id=$node
controller.quorum.voters=$voters
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$((controllers + node - 1))
advertised.listeners=PLAINTEXT://127.0.0.1:$port
log.dirs=$dir/data
# Events carry their own, possibly old, time: with any retention they would vanish at once.
log.retention.ms=-1
# 128 MB by default, of a heap that is small.
log.cleaner.dedupe.buffer.size=8388608
auto.create.topics.enable=${KAFKA_AUTO_CREATE:-true}
num.partitions=${KAFKA_NUM_PARTITIONS:-1}
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
${KAFKA_SETTINGS:-}
PROPERTIES
  printf '127.0.0.1:%s\n' "$port" >"$dir/bootstrap"
  java "${kafka[@]}" kafka.tools.StorageTool format -t "$2" -c "$dir/server.properties" >"$dir/broker.log" 2>&1
}

configure() {
  local port=${1:-$(free_ports 1)}
  format "$dir" "$(cluster_id)" 1 1 "$port" "$(free_ports 1)" || fail
}

cluster() {
  local id ports node formatting=()
  id=$(cluster_id)
  ports=$(free_ports $((2 * $1)))
  for ((node = 1; node <= $1; node++)); do
    format "$dir/$node" "$id" "$1" "$node" $((ports + $1 + node - 1)) "$ports" &
    formatting+=($!)
  done
  for node in "${!formatting[@]}"; do
    wait "${formatting[node]}" || die "not formatted; see $dir/$((node + 1))/broker.log"
  done
}

# Starts the broker and waits until it answers; 1 if it ends or is silent.
launch() {
  local log_start
  log_start=$(stat -c %s "$dir/broker.log")
  # Of its own session: Ctrl-C in the caller's terminal is the caller's business.
  setsid java "${java_opts[@]}" "${kafka[@]}" kafka.Kafka "$dir/server.properties" \
    </dev/null >>"$dir/broker.log" 2>&1 &
  local pid=$! deadline=$((SECONDS + 120))
  echo "$pid" >"$dir/pid"
  while ((SECONDS < deadline)) && kill -0 "$pid" 2>/dev/null; do
    # An answer on the port alone could be another broker's, while ours failed to bind it.
    if tail -c "+$((log_start + 1))" "$dir/broker.log" | grep 'Kafka Server started' >/dev/null \
      && kcat -L -m 2 -b "$(<"$dir/bootstrap")" >/dev/null 2>&1; then
      return
    fi
    sleep 0.1
  done
  stop
  return 1
}

fail() {
  grep -E 'ERROR|Exception' "$dir/broker.log" | tail -n 4 >&2 || tail -n 4 "$dir/broker.log" >&2
  die "the broker did not start; see $dir/broker.log"
}

start() {
  if running; then
    die "already running in $dir"
  fi
  mkdir -p "$dir"
  if [[ -e $dir/server.properties ]]; then # again: same ports, same settings, same data
    [[ -z ${1:-} || $(<"$dir/bootstrap") == "127.0.0.1:$1" ]] || die "$dir belongs to $(<"$dir/bootstrap")"
    launch || fail
  else
    configure "$@"
    if ! launch; then
      # Someone may take a port between our look and the broker's bind: once more, with others.
      if [[ -n ${1:-} ]] || ! grep -q BindException "$dir/broker.log"; then
        fail
      fi
      rm -rf "$dir/data"
      configure
      launch || fail
    fi
  fi
  cat "$dir/bootstrap"
}

stop() {
  if running; then
    # A busy machine, and a node that has to be let go by others: both take their time.
    local pid deadline=$((SECONDS + 30))
    pid=$(<"$dir/pid")
    kill -"${1:-TERM}" "$pid"
    while running; do
      if ((SECONDS >= deadline)); then
        kill -KILL "$pid"
        deadline=$((SECONDS + 15))
      fi
      sleep 0.05
    done
  fi
  rm -f "$dir/pid"
}

tool() {
  [[ -e $dir/bootstrap ]] || die "no broker in $dir"
  java "${kafka[@]}" "$1" --bootstrap-server "$(<"$dir/bootstrap")" "${@:2}"
}

case $command in
  start) start "$@" ;;
  cluster) cluster "$@" ;;
  stop) stop ;;
  kill) stop KILL ;;
  topics) tool org.apache.kafka.tools.TopicCommand "$@" ;;
  configs) tool kafka.admin.ConfigCommand "$@" ;;
  *) usage ;;
esac
