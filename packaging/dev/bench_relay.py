"""`bench.sh relay`: events to a Flask-SocketIO, by the daemon and by python-socketio's own client.

Latency is from the making of an event (just before write(2) on the file, or just before the emit) to
its handler in the app, at a steady rate. A backlog is measured in the app, from the first batch to the
end of the last; both clients send batches of as many events, wait for each acknowledgement, and go over
a websocket. The app is most of the work.
"""

import json
import os
import time

import bench_fanout

PYTHON = bench_fanout.PYTHON
RATE, SECONDS = 200, 10
BACKLOG, BATCH = 50_000, 256


def relay(work, bench):
    say = bench.say
    say(f"Relay: append or emit to the app's handler at {RATE} events/s, in ms; a backlog of {BACKLOG:,} in")
    say(f"batches of {BATCH}, each acknowledged")
    say()
    say(f"{'':34}{'p50':>9}{'p95':>9}{'p99':>9}{'events/s':>10}{'CPU us/event':>14}{'peak MB':>9}")
    for mode in ("threading", "eventlet"):
        say(f"app: Flask-SocketIO, {mode}")
        for name in ("openalgo-bridge", "python-socketio's client"):
            samples, _, _ = run(work, bench, mode, name, RATE * SECONDS, RATE)
            samples.sort()
            p50, p95, p99 = (samples[int(len(samples) * share)] for share in (0.5, 0.95, 0.99))
            _, seconds, child = run(work, bench, mode, name, BACKLOG, 0)
            cpu, peak = child.cpu / BACKLOG * 1e6, child.peak_kb / 1024
            say(f"  {name:32}{p50:>9.2f}{p95:>9.2f}{p99:>9.2f}{BACKLOG / seconds:>10,.0f}{cpu:>14.1f}{peak:>9.0f}")
    say()


def run(work, bench, mode, name, count, rate):
    """Latencies in ms, seconds from first to last in the app, and the client's process, ended."""
    run.number += 1
    stem = os.path.join(work, f"relay-{run.number}")
    port, report = bench_fanout.free_port(), stem + ".report"
    with open(stem + ".log", "wb") as log:
        arguments = [PYTHON, "packaging/dev/bench_relay_app.py", mode, port, count, report]
        app = bench.Child([str(a) for a in arguments], stdout=log, stderr=log)
        bench_fanout.wait_for_port(port)
        appender = None
        if name == "openalgo-bridge":
            path = stem + ".jsonl"
            with open(path, "wb") as file:
                for number in range(0 if rate else count):
                    file.write(bench_fanout.line(number))
            settings = {"ORDER_EVENT_MODE": "SOCKETIO", "SOCKETIO_VIA": "relay"}
            settings |= {"SOCKETIO_URL": f"http://127.0.0.1:{port}", "SOCKETIO_BATCH_MAX_EVENTS": str(BATCH)}
            client = bench.Bridge(work, None, f"relay-{run.number}", path, **settings)
            if rate:
                appender = bench_fanout.append_events(path, rate, count)
        else:
            size = 1 if rate else BATCH
            arguments = [PYTHON, "packaging/dev/bench_relay_client.py", port, count, rate, size]
            client = bench.Child([str(a) for a in arguments], stdout=log, stderr=log)
        give_up = time.monotonic() + 120
        while not os.path.exists(report):
            if time.monotonic() > give_up:
                raise RuntimeError(f"{name}: not all events came, see {stem}.log")
            time.sleep(0.05)
    if appender:
        os.waitpid(appender, 0)
    client.end()
    app.end()
    with open(report, encoding="ascii") as file:
        result = json.load(file)
    return result["latencies"], result["seconds"], client


run.number = 0
