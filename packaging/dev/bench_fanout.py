"""`bench.sh fanout`: one event to many websocket clients, the daemon next to Flask-SocketIO.

The clients are bare sockets in one process that reads frames and nothing more; its own CPU is
printed, so that it can be seen that it was not what was measured. Each event carries the time of
its making (just before emit, or just before write(2) on the file), so a latency is from there to
the moment at which a client has the frame. CPU is that of the whole server process while events
flow, by delivered event; memory is its peak.
"""

import os
import resource
import select
import socket
import time

PYTHON = ".tools/python/bin/python"
# Clients and events a second: what Flask-SocketIO keeps up with.
LOADS = ((1, 200), (100, 50), (1000, 4))
SECONDS = 10


class Clients:
    """Joined websocket clients."""

    def __init__(self, port, count):
        self.poll = select.epoll()
        self.sockets = {}
        self.buffers = {}
        for _ in range(count):
            client = self.join(port)
            self.sockets[client.fileno()] = client
            self.buffers[client.fileno()] = b""
            self.poll.register(client, select.EPOLLIN)

    @staticmethod
    def join(port):
        client = socket.create_connection(("127.0.0.1", port), timeout=30)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.sendall(
            b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n"
            b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n" % port
        )
        got = b""
        while b"\r\n\r\n" not in got or b'"sid"' not in got:
            got += receive(client)
        client.sendall(frame(b"40"))
        got = b""
        while b"40{" not in got:
            got += receive(client)
        return client

    def latencies(self, expected, seconds):
        """Milliseconds of each event at each client, and the CPU that reading them took."""
        samples, began = [], cpu()
        give_up = time.monotonic() + seconds
        while len(samples) < expected and time.monotonic() < give_up:
            for number, _ in self.poll.poll(1):
                piece = self.sockets[number].recv(1 << 16)
                now = time.time_ns()
                if not piece:
                    raise RuntimeError("the server closed a connection")
                payloads, self.buffers[number] = frames(self.buffers[number] + piece)
                for payload in payloads:
                    if payload == b"2":
                        self.sockets[number].sendall(frame(b"3"))
                    elif payload.startswith(b"42"):
                        at = payload.index(b'"t":') + 4
                        samples.append((now - int(payload[at:].strip(b" ]}"))) / 1e6)
        if len(samples) < expected:
            raise RuntimeError(f"only {len(samples)} of {expected} events came")
        return samples, cpu() - began

    def close(self):
        for client in self.sockets.values():
            client.close()


def receive(client):
    piece = client.recv(4096)
    if not piece:
        raise RuntimeError("the server closed a connection that was joining")
    return piece


def frame(text):
    """A masked text frame, with a mask that changes nothing."""
    return bytes((0x81, 0x80 | len(text), 0, 0, 0, 0)) + text


def frames(data):
    """The payloads of the whole frames, and what is left."""
    payloads, at = [], 0
    while len(data) >= at + 4:
        length, head = data[at + 1] & 0x7F, 2
        if length == 126:
            length, head = int.from_bytes(data[at + 2 : at + 4], "big"), 4
        if len(data) < at + head + length:
            break
        payloads.append(data[at + head : at + head + length])
        at += head + length
    return payloads, data[at:]


def cpu():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def process_cpu(pid):
    """Seconds of a process, threads that ended included."""
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def wait_for_port(port):
    give_up = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if time.monotonic() > give_up:
                raise
            time.sleep(0.05)


def line(number):
    return (
        b'{"event_type":"order_event","timestamp":"2026-01-29T10:30:45Z","user_id":"u","source":"openalgo",'
        b'"data":{"symbol":"SBIN","action":"BUY","orderid":"%d","t":%d}}\n' % (number, time.time_ns())
    )


def append_events(path, rate, count):
    """In a process of its own, as the app."""
    child = os.fork()
    if child == 0:
        file = os.open(path, os.O_WRONLY | os.O_APPEND)
        start = time.monotonic() + 1
        for number in range(count):
            pause = start + number / rate - time.monotonic()
            if pause > 0:
                time.sleep(pause)
            os.write(file, line(number))
        os._exit(0)
    return child


def measure(child, port, clients, rate, emit):
    """p50, p99, CPU by delivered event in us, peak MB, share of a core of the harness."""
    count = max(10, rate * SECONDS)
    wait_for_port(port)
    joined = Clients(port, clients)
    before, began = process_cpu(child.pid), time.monotonic()
    appender = emit(count)
    samples, harness = joined.latencies(count * clients, 3 * SECONDS + 60)
    used, seconds = process_cpu(child.pid) - before, time.monotonic() - began
    if appender:
        os.waitpid(appender, 0)
    joined.close()
    child.look()
    child.end()
    samples.sort()
    p50, p99 = (samples[int(len(samples) * share)] for share in (0.5, 0.99))
    return p50, p99, used / len(samples) * 1e6, child.peak_kb / 1024, harness / seconds


def fanout(work, bench):
    say = bench.say
    say("Fan-out over websocket: one event to all clients, emit or append to received, in ms")
    say()
    say(f"{'':34}{'p50':>9}{'p99':>9}{'CPU us/event':>14}{'peak MB':>9}{'harness':>9}")
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    for clients, rate in LOADS:
        say(f"{clients} clients, {rate} events/s")
        for name in ("openalgo-bridge", "Flask-SocketIO, threads", "Flask-SocketIO, eventlet"):
            port = free_port()
            if name == "openalgo-bridge":
                path = os.path.join(work, f"fanout-{clients}.jsonl")
                open(path, "wb").close()
                settings = {"ORDER_EVENT_MODE": "SOCKETIO", "SOCKETIO_LISTEN": f"127.0.0.1:{port}"}
                child = bench.Bridge(work, None, f"fanout-{clients}", path, **settings)
                emit = lambda count: append_events(path, rate, count)  # noqa: E731
            else:
                mode = "threading" if "threads" in name else "eventlet"
                count = max(10, rate * SECONDS)
                arguments = [PYTHON, "packaging/dev/bench_flask.py", mode, port, clients, rate, count]
                with open(os.path.join(work, f"flask-{mode}-{clients}.log"), "wb") as log:
                    child = bench.Child([str(a) for a in arguments], stdout=log, stderr=log)
                emit = lambda _: None  # noqa: E731, it counts its clients and begins by itself
            p50, p99, used, peak, harness = measure(child, port, clients, rate, emit)
            say(f"  {name:32}{p50:>9.2f}{p99:>9.2f}{used:>14.1f}{peak:>9.0f}{harness * 100:>8.0f}%")
    say()
