"""What bench.sh runs: the measurements. Standard library only; see bench.sh for how to use it.

How things are measured:

- A run is timed from the start of the process to the moment at which the last line is visible in
  the topic: the high watermark, asked for over one kept connection every 5 ms (about 0.1 ms of
  work each, the same for everybody).
- CPU is user and system time of the whole process from start to end, from wait4(2). Memory is
  VmHWM, the kernel's own peak.
- Latency is from just before write(2) on the file to the moment at which the line comes out of a
  `kcat -C -u` into a pipe read here. A third process stamps it; both stamps are CLOCK_REALTIME of
  this machine, and the first one is the event's own `timestamp`. What the measuring itself costs is
  in the row "kcat, linger 0", which goes through the same consumer and the same pipe.
- Idle figures come from /proc/PID/task/*/schedstat (nanoseconds) and status.
"""

import os
import random
import re
import select
import signal
import socket
import statistics
import struct
import subprocess
import sys
import time
from datetime import datetime, timezone

import bench_fanout
import bench_relay

BRIDGE = os.environ["BRIDGE_BIN"]
KCAT = os.environ["KCAT_BIN"]
ROUNDS = int(os.environ.get("ROUNDS", "3"))
LINES = int(os.environ.get("LINES", "1000000"))
LATENCY_RATE = 500
LATENCY_SECONDS = 20
IDLE_SECONDS = 30
OUTAGE_SECONDS = 60
KAFKA = "packaging/dev/kafka.sh"

children = []


def say(text=""):
    print(text, flush=True)


# --- the events -----------------------------------------------------------------------------


def stamp(ns):
    """A time as OpenAlgo writes it, with microseconds."""
    seconds, rest = divmod(ns, 1_000_000_000)
    date = datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{date}.{rest // 1000:06d}Z"


USERS = ["asha", "ravi", "meera", "desk_2", "algo_trader"]
SYMBOLS = ["SBIN", "INFY", "TATAPOWER", "RELIANCE", "NIFTY26FEB24500CE", "BANKNIFTY26FEB52000PE"]


def event(number, when, rng):
    """One line of the kinds, and about in the shares, that the application writes."""
    user, symbol = rng.choice(USERS), rng.choice(SYMBOLS)
    action, order = rng.choice(("BUY", "SELL")), f"2601{number:011d}"
    kind = rng.random()
    if kind < 0.6:
        name = "order_event"
        data = (
            f'"symbol": "{symbol}", "action": "{action}", "orderid": "{order}", "exchange": "NSE", '
            f'"price_type": "LIMIT", "product_type": "MIS", "mode": "live"'
        )
    elif kind < 0.9:
        name = "analyzer_update"
        price, quantity = rng.randrange(10_000, 250_000) / 100, rng.randrange(1, 500)
        data = (
            f'"request": {{"strategy": "EMA_Cross", "exchange": "NSE", "symbol": "{symbol}", '
            f'"action": "{action}", "quantity": {quantity}, "pricetype": "LIMIT", "product": "MIS", '
            f'"price": {price}, "trigger_price": 0, "disclosed_quantity": 0}}, '
            f'"response": {{"status": "success", "orderid": "{order}", "mode": "analyze"}}'
        )
    else:
        name = "order_notification"
        data = f'"symbol": "{symbol}", "status": "info", "message": "Order {order} placed: {action} {symbol}"'
    return (
        f'{{"event_type": "{name}", "timestamp": "{stamp(when)}", "user_id": "{user}", '
        f'"source": "openalgo", "data": {{{data}}}}}\n'
    )


def write_events(path, count, seed=1):
    rng = random.Random(seed)
    start = time.time_ns() - count * 1_000_000
    with open(path, "w", encoding="ascii") as file:
        for first in range(0, count, 10_000):
            last = min(first + 10_000, count)
            file.write("".join(event(n, start + n * 1_000_000, rng) for n in range(first, last)))
    return os.path.getsize(path)


# --- Kafka, as far as it is needed here -----------------------------------------------------


class Broker:
    def __init__(self, directory):
        self.directory = directory
        self.bootstrap = None
        self.connection = None

    def start(self):
        # Of its own session: Ctrl-C is for bench.sh, which then stops the broker.
        run = subprocess.run(
            ["setsid", "-w", KAFKA, "start", self.directory], check=True, stdout=subprocess.PIPE, text=True
        )
        self.bootstrap = run.stdout.strip()

    def stop(self):
        if self.connection:
            self.connection.close()
            self.connection = None
        subprocess.run(["setsid", "-w", KAFKA, "stop", self.directory], check=True)

    def ask(self, api, version, body):
        if self.connection is None:
            host, port = self.bootstrap.split(":")
            self.connection = socket.create_connection((host, int(port)), timeout=30)
            self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        request = struct.pack(">hhi", api, version, 7) + text("bench") + body
        self.connection.sendall(struct.pack(">i", len(request)) + request)
        (length,) = struct.unpack(">i", self.receive(4))
        return self.receive(length)[4:]

    def receive(self, count):
        received = b""
        while len(received) < count:
            piece = self.connection.recv(count - len(received))
            if not piece:
                raise ConnectionError("the broker closed the connection")
            received += piece
        return received

    def create(self, topic):
        self.ask(19, 2, struct.pack(">i", 1) + text(topic) + struct.pack(">ihiiiB", 1, 1, 0, 0, 10_000, 0))
        while self.end(topic) is None:
            time.sleep(0.05)

    def delete(self, topic):
        self.ask(20, 1, struct.pack(">i", 1) + text(topic) + struct.pack(">i", 10_000))

    def end(self, topic):
        """The high watermark of partition 0; none while there is no leader."""
        answer = self.ask(
            2, 1, struct.pack(">ii", -1, 1) + text(topic) + struct.pack(">iiq", 1, 0, -1)
        )
        error, _, offset = struct.unpack(">hqq", answer[-18:])
        return offset if error == 0 else None

    def wait_for(self, topic, count, child, timeout=180, pause=0.005):
        """The moment at which `count` records are visible, looked at while `child` runs or ran."""
        give_up = time.monotonic() + timeout
        while True:
            if (self.end(topic) or 0) >= count:
                return time.monotonic()
            if time.monotonic() > give_up:
                raise RuntimeError(f"{self.end(topic)} of {count} lines in the topic after {timeout} s")
            child.look()
            time.sleep(pause)


def text(value):
    return struct.pack(">h", len(value)) + value.encode()


# --- processes ------------------------------------------------------------------------------


class Child:
    """A process of ours, its CPU and its peak memory."""

    def __init__(self, arguments, **options):
        self.started = time.monotonic()
        self.process = subprocess.Popen(arguments, **options)
        self.pid = self.process.pid
        self.peak_kb = 0
        self.cpu = None
        self.code = None
        children.append(self)

    def look(self):
        for line in read(f"/proc/{self.pid}/status").splitlines():
            if line.startswith("VmHWM:"):
                self.peak_kb = int(line.split()[1])

    def wait(self):
        if self.code is None:
            _, status, usage = os.wait4(self.pid, 0)
            self.code = self.process.returncode = os.waitstatus_to_exitcode(status)
            self.cpu = usage.ru_utime + usage.ru_stime
            children.remove(self)
        return self.code

    def end(self):
        """SIGTERM, and the seconds until it is gone."""
        self.look()
        asked = time.monotonic()
        if self.code is None:
            self.process.send_signal(signal.SIGTERM)
        self.wait()
        return time.monotonic() - asked

    def threads(self):
        """By thread: name, nanoseconds on a CPU, voluntary context switches."""
        threads = {}
        for task in os.listdir(f"/proc/{self.pid}/task"):
            base = f"/proc/{self.pid}/task/{task}"
            ran, status = read(f"{base}/schedstat"), read(f"{base}/status")
            if ran and status:
                facts = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
                switches = int(facts["voluntary_ctxt_switches"])
                threads[task] = (facts["Name"].strip(), int(ran.split()[0]), switches)
        return threads

    def cpu_ns(self):
        return sum(ran for _, ran, _ in self.threads().values())


def read(path):
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read()
    except (FileNotFoundError, ProcessLookupError):
        return ""


class Bridge(Child):
    """The daemon with a state of its own, following `path`."""

    def __init__(self, work, broker, topic, path, **settings):
        state = os.path.join(work, "state", topic)
        os.makedirs(state, mode=0o700)
        values = {
            "ORDER_EVENT_MODE": "KAFKA",
            "BRIDGE_INPUT": path,
            "BRIDGE_STATE_DIR": state,
            "BRIDGE_HTTP_LISTEN": "off",
            "KAFKA_BOOTSTRAP_SERVERS": broker.bootstrap if broker else "",
            "KAFKA_ORDER_EVENTS_TOPIC": topic,
            **settings,
        }
        env_file = os.path.join(state, "bench.env")
        with open(env_file, "w", encoding="ascii") as file:
            file.writelines(f"{key} = '{value}'\n" for key, value in values.items())
        self.log = os.path.join(state, "bench.log")
        with open(self.log, "wb") as log:
            # Not a notify socket or a journal of whoever runs this.
            super().__init__([BRIDGE, "--env-file", env_file, "run"], stderr=log, env={"PATH": os.environ["PATH"]})

    def end(self):
        seconds = super().end()
        if self.code != 0:
            raise RuntimeError(f"the daemon ended with {self.code}:\n{read(self.log)}")
        return seconds


def kcat_producer(broker, topic, *more, batch=16384, linger=10, **options):
    arguments = [KCAT, "-q", "-P", "-b", broker.bootstrap, "-t", topic, "-p", "0", "-z", "snappy"]
    for setting in ("enable.idempotence=true", "acks=all", f"linger.ms={linger}", f"batch.size={batch}"):
        arguments += ["-X", setting]
    return Child([*arguments, *more], **options)


# --- throughput -----------------------------------------------------------------------------


def throughput(work, broker, path):
    def kcat(topic, batch):
        return kcat_producer(broker, topic, "-l", path, batch=batch)

    def bridge(headers):
        def start(topic, batch):
            settings = {"KAFKA_PRODUCER_BATCH_SIZE": batch, "KAFKA_HEADERS": headers}
            return Bridge(work, broker, topic, path, **settings)

        return start

    contestants = {"kcat": kcat, "bridge, headers off": bridge("off"), "bridge, headers on": bridge("on")}
    say(f"Throughput: {LINES:,} lines, {os.path.getsize(path) / LINES:.0f} bytes a line on average; one")
    say("partition, snappy, linger 10 ms, acks=all, idempotent. kcat sends no keys and no timestamps")
    say("and validates nothing; the bridge sends the user as key and the event's time.")
    say(f"Medians of {ROUNDS} rounds, in brackets the range; ratios are of medians, to kcat's.")
    say()
    say(f"{'':28}{'lines/s':>20}{'':>7}{'CPU us/line':>20}{'':>7}{'peak MB':>9}")
    for batch in (16384, 1_000_000):
        runs = {name: [] for name in contestants}
        for turn in range(ROUNDS):
            for index, (name, start) in enumerate(contestants.items()):
                topic = f"throughput-{batch}-{turn}-{index}"
                broker.create(topic)
                child = start(topic, batch)
                try:
                    seconds = broker.wait_for(topic, LINES, child) - child.started
                finally:
                    child.look()
                    child.wait() if name == "kcat" else child.end()
                if broker.end(topic) != LINES:
                    raise RuntimeError(f"{name}: {broker.end(topic)} lines in the topic, not {LINES}")
                runs[name].append((LINES / seconds, child.cpu / LINES * 1e6, child.peak_kb / 1024))
                broker.delete(topic)
        say(f"batch.size {batch:,}")
        base = None
        for name, measured in runs.items():
            columns = [sorted(column) for column in zip(*measured)]
            medians = [statistics.median(column) for column in columns]
            base = base or medians
            rate, cpu, peak = columns
            of_rate, of_cpu = (ours / kcats for ours, kcats in zip(medians[:2], base[:2]))
            rates = f"{medians[0] / 1e3:.0f} k ({rate[0] / 1e3:.0f}-{rate[-1] / 1e3:.0f})"
            cpus = f"{medians[1]:.2f} ({cpu[0]:.2f}-{cpu[-1]:.2f})"
            say(f"  {name:26}{rates:>20}{of_rate:>6.2f}x{cpus:>20}{of_cpu:>6.2f}x{peak[-1]:>9.0f}")
    say()


# --- pipe -----------------------------------------------------------------------------------


def pipe(work, broker, path):
    say(f"Named pipe: the same {LINES:,} lines, written into it as fast as it takes them, next to the file")
    say(f"that holds them; headers off. Medians of {ROUNDS} rounds, in brackets the range.")
    say()
    say(f"{'':28}{'lines/s':>20}{'CPU us/line':>20}{'fsyncs/s':>10}{'peak MB':>9}")
    runs = {"file": [], "named pipe": []}
    for turn in range(ROUNDS):
        for name, measured in runs.items():
            topic = f"pipe-{turn}-{name.replace(' ', '-')}"
            broker.create(topic)
            measured.append(measure_pipe(work, broker, topic, path, name == "named pipe"))
            broker.delete(topic)
    for name, measured in runs.items():
        rate, cpu, syncs, peak = (sorted(column) for column in zip(*measured))
        rates = f"{statistics.median(rate) / 1e3:.0f} k ({rate[0] / 1e3:.0f}-{rate[-1] / 1e3:.0f})"
        cpus = f"{statistics.median(cpu):.2f} ({cpu[0]:.2f}-{cpu[-1]:.2f})"
        say(f"  {name:26}{rates:>20}{cpus:>20}{statistics.median(syncs):>10.0f}{peak[-1]:>9.0f}")
    say()


def measure_pipe(work, broker, topic, path, piped):
    fifo, http = os.path.join(work, topic), os.path.join(work, f"{topic}.sock")
    settings = {"KAFKA_HEADERS": "off", "BRIDGE_HTTP_LISTEN": f"unix:{http}"}
    if piped:
        os.mkfifo(fifo)
    child = Bridge(work, broker, topic, fifo if piped else path, **settings)
    writer = None
    try:
        began = child.started
        if piped:
            while not os.path.exists(http):
                time.sleep(0.01)
            began = time.monotonic()
            writer = subprocess.Popen(["cp", path, fifo])
        seconds = broker.wait_for(topic, LINES, child) - began
        syncs = journal_syncs(http) / seconds if piped else 0
    finally:
        child.look()
        child.end()
        if writer:
            writer.wait()
    return LINES / seconds, child.cpu / LINES * 1e6, syncs, child.peak_kb / 1024


def journal_syncs(path):
    with socket.socket(socket.AF_UNIX) as link:
        link.connect(path)
        link.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        page = link.makefile("r", encoding="utf-8").read()
    return int(re.search(r"^openalgo_bridge_journal_syncs_total (\d+)", page, re.MULTILINE)[1])


def warm_up(work, broker, path):
    """The broker's first million is slower than all others, and so are its first answers."""
    topic = "warm-up"
    broker.create(topic)
    child = kcat_producer(broker, topic, "-l", path)
    broker.wait_for(topic, LINES, child)
    child.wait()
    broker.delete(topic)


# --- latency --------------------------------------------------------------------------------


def latency(work, broker):
    say(f"Latency from append to consumer at {LATENCY_RATE} lines/s, batch.size 16,384, in ms")
    say()
    say(f"{'':28}{'p50':>8}{'p95':>8}{'p99':>8}{'max':>8}{'CPU us/line':>14}")

    def row(name, topic, start, seconds):
        broker.create(topic)
        path = os.path.join(work, f"{topic}.jsonl")
        with open(path, "wb"):
            pass
        child, sink = start(topic, path)
        samples = measure_latency(broker, topic, path if sink is None else sink, child, seconds)
        if sink is not None:
            os.close(sink)
            child.wait()
        else:
            child.end()
        samples.sort()
        count = len(samples)
        p50, p95, p99 = (samples[min(count - 1, int(count * share))] for share in (0.5, 0.95, 0.99))
        cpu = child.cpu / count * 1e6
        say(f"  {name:26}{p50:>8.2f}{p95:>8.2f}{p99:>8.2f}{samples[-1]:>8.2f}{cpu:>14.0f}")

    def bridge(topic, path):
        return Bridge(work, broker, topic, path), None

    def kcat(linger):
        def start(topic, _):
            ours, theirs = os.pipe()
            child = kcat_producer(broker, topic, linger=linger, stdin=ours)
            os.close(ours)
            return child, theirs

        return start

    row("bridge, linger 10", "latency-bridge", bridge, LATENCY_SECONDS)
    row("kcat from a pipe, linger 10", "latency-kcat-10", kcat(10), LATENCY_SECONDS // 2)
    row("kcat from a pipe, linger 0", "latency-kcat-0", kcat(0), LATENCY_SECONDS // 2)
    say()


def measure_latency(broker, topic, sink, child, seconds):
    """Appends to `sink`, a path or a descriptor, and gives the milliseconds of each line."""
    arguments = [KCAT, "-q", "-C", "-u", "-b", broker.bootstrap, "-t", topic, "-p", "0", "-o", "beginning"]
    consumer, appender = Child([*arguments, "-f", "%s\\n"], stdout=subprocess.PIPE), None
    output = consumer.process.stdout.fileno()
    try:
        # Two seconds first that do not count: connecting, and the first batch.
        uncounted, count = 2 * LATENCY_RATE, (2 + seconds) * LATENCY_RATE
        appender = os.fork()
        if appender == 0:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            append(sink, count)
            os._exit(0)
        samples, buffer = [], b""
        give_up = time.monotonic() + seconds + 30
        # kcat keeps the last line of a pipe until another follows it.
        while len(samples) < count - 1:
            if not select.select([output], [], [], max(0, give_up - time.monotonic()))[0]:
                raise RuntimeError(f"{topic}: only {len(samples)} of {count} lines came")
            piece = os.read(output, 1 << 16)
            now = time.time_ns()
            *lines, buffer = (buffer + piece).split(b"\n")
            samples.extend((now, line) for line in lines)
    finally:
        if appender:
            os.kill(appender, signal.SIGTERM)
            os.waitpid(appender, 0)
        consumer.end()
    child.look()
    return [(now - written_at(line)) / 1e6 for now, line in samples[uncounted:]]


def append(sink, count):
    """One line every 1/rate seconds by the clock, each stamped just before it is written."""
    file = os.open(sink, os.O_WRONLY | os.O_APPEND) if isinstance(sink, str) else sink
    rng = random.Random(2)
    start = time.monotonic()
    for number in range(count):
        pause = start + number / LATENCY_RATE - time.monotonic()
        if pause > 0:
            time.sleep(pause)
        os.write(file, event(number, time.time_ns(), rng).encode())


def written_at(line):
    """The nanoseconds of the event's own timestamp, whose place is found by its name."""
    at = line.index(b'"timestamp": "') + 14
    moment = datetime.strptime(line[at : at + 26].decode(), "%Y-%m-%dT%H:%M:%S.%f")
    seconds = int(moment.replace(tzinfo=timezone.utc, microsecond=0).timestamp())
    return seconds * 1_000_000_000 + moment.microsecond * 1000


# --- idle -----------------------------------------------------------------------------------


def idle(work, broker):
    topic, path = "idle", os.path.join(work, "idle.jsonl")
    broker.create(topic)
    write_events(path, 1000)
    child = Bridge(work, broker, topic, path)
    broker.wait_for(topic, 1000, child)
    time.sleep(3)
    before, began = child.threads(), time.monotonic()
    time.sleep(IDLE_SECONDS)
    after, seconds = child.threads(), time.monotonic() - began
    by_name = {}
    for task, (name, ran, switches) in after.items():
        _, ran_before, switches_before = before.get(task, (name, 0, 0))
        sums = by_name.setdefault(name, [0, 0])
        sums[0] += ran - ran_before
        sums[1] += switches - switches_before
    say(f"Idle for {IDLE_SECONDS} s, the topic connected, everything delivered")
    say()
    say(f"{'':28}{'% of a core':>14}{'wakeups/s':>12}")
    for name, (ran, switches) in sorted(by_name.items(), key=lambda item: -item[1][1]):
        if switches:
            say(f"  {name:26}{ran / seconds / 1e7:>14.3f}{switches / seconds:>12.1f}")
    ran, switches = (sum(column) for column in zip(*by_name.values()))
    say(f"  {'all threads':26}{ran / seconds / 1e7:>14.3f}{switches / seconds:>12.1f}")
    took = child.end()
    say(f"SIGTERM to exit, nothing pending: {took * 1e3:.0f} ms; peak memory {child.peak_kb / 1024:.0f} MB")
    say()


# --- outage ---------------------------------------------------------------------------------


def outage(work, broker, path):
    topic, input_path = "outage", os.path.join(work, "outage.jsonl")
    broker.create(topic)
    with open(path, "rb") as file:
        content = file.read()

    def append_all():
        with open(input_path, "ab") as file:
            file.write(content)

    append_all()
    child = Bridge(work, broker, topic, input_path)
    broker.wait_for(topic, LINES, child)  # warms everything up
    cpu, began = child.cpu_ns(), time.monotonic()
    append_all()
    normal = broker.wait_for(topic, 2 * LINES, child) - began
    normal_cpu = child.cpu_ns() - cpu
    time.sleep(1)

    say(f"Outage of {OUTAGE_SECONDS} s; {LINES:,} lines are appended meanwhile, so the in-flight limit is full")
    say()
    broker.stop()
    append_all()
    time.sleep(2)
    cpu, began = child.cpu_ns(), time.monotonic()
    while time.monotonic() < began + OUTAGE_SECONDS:
        time.sleep(1)
        child.look()
    share = (child.cpu_ns() - cpu) / (time.monotonic() - began) / 1e7
    cpu = child.cpu_ns()
    broker.start()
    back = time.monotonic()
    first = broker.wait_for(topic, 2 * LINES + 1, child)
    last = broker.wait_for(topic, 3 * LINES, child)
    catch_up_cpu = child.cpu_ns() - cpu
    child.end()
    if (extra := broker.end(topic) - 3 * LINES) > 0:
        say(f"  repeated lines: {extra}")
    broker.delete(topic)
    say(f"  CPU while the broker is away      {share:.2f} % of a core")
    say(f"  from the broker's return to the first line  {first - back:.1f} s")
    say(f"  {LINES:,} lines at the normal rate    {normal:.2f} s, {normal_cpu / LINES / 1e3:.2f} us/line")
    say(f"  {LINES:,} lines after the outage      {last - first:.2f} s, {catch_up_cpu / LINES / 1e3:.2f} us/line")
    say(f"  catch-up rate / normal rate       {normal / (last - first):.2f}")
    say(f"  peak memory                       {child.peak_kb / 1024:.0f} MB")
    say()


# --------------------------------------------------------------------------------------------


def main():
    work, *sections = sys.argv[1:]
    sections = sections or ["fanout", "relay", "throughput", "pipe", "latency", "idle", "outage"]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    broker = Broker(os.path.join(work, "kafka"))
    path = os.path.join(work, "events.jsonl")
    try:
        if "fanout" in sections:
            bench_fanout.fanout(work, sys.modules["__main__"])
        if "relay" in sections:
            bench_relay.relay(work, sys.modules["__main__"])
        if not set(sections) - {"fanout", "relay"}:
            return
        broker.start()
        write_events(path, LINES)
        warm_up(work, broker, path)
        if "throughput" in sections:
            throughput(work, broker, path)
        if "pipe" in sections:
            pipe(work, broker, path)
        if "latency" in sections:
            latency(work, broker)
        if "idle" in sections:
            idle(work, broker)
        if "outage" in sections:
            outage(work, broker, path)
    except (RuntimeError, ConnectionError) as problem:
        sys.exit(f"bench: {problem}")
    finally:
        for child in list(children):
            child.process.kill()
            child.wait()


if __name__ == "__main__":
    main()
