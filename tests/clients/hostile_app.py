"""The app's own Socket.IO server as the relay meets it: a real Flask-SocketIO that misbehaves as told.

It writes each batch to a file, a JSON object a line, before it answers, and again when it is about to
acknowledge it, so that a test can compare what arrived with what was sent; and each CONNECT.
"""

import argparse
import json
import os
import random
import socket
import time

parser = argparse.ArgumentParser()
parser.add_argument("--host", default="127.0.0.1")
parser.add_argument("--port", type=int)
parser.add_argument("--unix")
parser.add_argument("--log", required=True)
parser.add_argument("--namespace", default="/openalgo-bridge")
parser.add_argument("--token")
parser.add_argument(
    "--ack", default="good", choices=["good", "never", "raise", "late", "twice", "foreign", "false", "empty"]
)
parser.add_argument("--late-ms", type=int, default=0)
# It misbehaves for so many batches, counted over restarts by the file.
parser.add_argument("--times", type=int, default=10**9)
parser.add_argument("--refuse-connects", type=int, default=0)
parser.add_argument("--disconnect-every", type=int, default=0)
parser.add_argument("--refuse-every", type=int, default=0)
parser.add_argument("--noise", action="store_true")
parser.add_argument("--max-packet", type=int, default=1_000_000)
# Asked without a websocket it answers 400, so that nobody learns what it takes.
parser.add_argument("--websocket-only", action="store_true")
# Its handler raises when it gets the event of this number.
parser.add_argument("--trips-over", type=int)
# Where the text of each packet goes, as it came over the wire.
parser.add_argument("--raw")
# From this seed it sends what no server should, before every other acknowledgement.
parser.add_argument("--garbage", type=int)
# It begins a packet with an attachment, and ends the connection before that comes: rust_socketio 0.6
# panics over it.
parser.add_argument("--panics", type=int, default=0)
args = parser.parse_args()

if args.unix:
    import eventlet
    import eventlet.wsgi

    eventlet.monkey_patch()

from flask import Flask, request  # noqa: E402
from flask_socketio import ConnectionRefusedError, SocketIO, disconnect, emit  # noqa: E402
from socketio import packet  # noqa: E402

log = os.open(args.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


def note(**what):
    # One write, so that a kill leaves whole lines.
    os.write(log, (json.dumps({"at": time.time(), **what}) + "\n").encode())


with open(args.log) as before:
    kinds = [json.loads(line)["kind"] for line in before]
batches, connects, earlier = kinds.count("batch"), kinds.count("connect"), "0000000000000000-1"

app = Flask(__name__)
# In order, as the kit has it: otherwise Flask-SocketIO handles each event in a thread of its own.
socketio = SocketIO(
    app,
    async_mode="eventlet" if args.unix else "threading",
    async_handlers=False,
    max_http_buffer_size=args.max_packet,
    transports=["websocket"] if args.websocket_only else ["polling", "websocket"],
)

send_packet = socketio.server._send_packet


def send_twice(eio_sid, pkt):
    send_packet(eio_sid, pkt)
    if pkt.packet_type == packet.ACK:
        send_packet(eio_sid, pkt)


decode = packet.Packet.decode


def decode_noted(pkt, encoded):
    with open(args.raw, "a", encoding="utf-8") as raw:
        raw.write(encoded + "\n")
    return decode(pkt, encoded)


if args.raw:
    packet.Packet.decode = decode_noted

if args.ack == "twice":
    socketio.server._send_packet = send_twice


class Raw:
    """In the place of a packet: what goes over the wire as it is."""

    def __init__(self, what):
        self.what = what

    def encode(self):
        return self.what


def send_raw(*packets):
    # Behind the namespace's back: the queue of the connection itself.
    for what in packets:
        queue_of_connection().put(Raw(what))


def queue_of_connection():
    eio_sid = socketio.server.manager.eio_sid_from_sid(request.sid, args.namespace)
    return socketio.server.eio.sockets[eio_sid].queue


dice = random.Random(args.garbage)
PLACEHOLDER = '["x",{"_placeholder":true,"num":0}]'


def garbage(batch_id):
    answer = json.dumps([{"batch_id": batch_id, "ok": False}])
    numbered = f"43{args.namespace},{dice.randrange(999)}"
    return dice.choice(
        [
            ["4"],
            ["b!no base64"],
            [dice.randbytes(50)],
            [dice.randbytes(50).decode("latin-1")],
            [f"43{args.namespace},99999999999999999999{answer}"],
            [numbered + answer, numbered, numbered + "[" * 100_000],
            [f"451-{args.namespace},{PLACEHOLDER}", "3"],
            [f"451-{args.namespace},{PLACEHOLDER}", b"\x00" * 20],
            [f"461-{args.namespace},{dice.randrange(999)}{PLACEHOLDER}", b"\x00"],
            [f"45999-{args.namespace},[]"],
            [f"44{args.namespace},{answer}"],
            [f"40{args.namespace},"],
            ['0{"sid":"y","upgrades":[],"pingInterval":1,"pingTimeout":1}'],
            ["2"] * 1_000,
            [f'42{args.namespace},["x","{"x" * 20_000_000}"]'],
        ]
    )


@socketio.on("connect", namespace=args.namespace)
def on_connect(auth=None):
    global connects
    connects += 1
    note(kind="connect")
    if connects <= args.refuse_connects:
        raise ConnectionRefusedError("not now, says the app")
    if args.token and (auth or {}).get("token") != args.token:
        raise ConnectionRefusedError("no such token")


@socketio.on("bridge_batch", namespace=args.namespace)
def on_batch(batch):
    global batches, earlier
    batches += 1
    bad = batches <= args.times
    events, batch_id = batch["events"], batch["batch_id"]
    numbers = [int(event["data"]["orderid"]) for event in events]
    size = len(json.dumps(batch, separators=(",", ":")))
    note(kind="batch", batch=batch_id, numbers=numbers, size=size, port=args.port)
    if args.trips_over in numbers:
        raise RuntimeError("a bug in the app")
    if args.noise:
        # Names that mean something to a client, what has attachments, and much of it.
        for name in ["error", "open", "close?", "message", "connect_error"]:
            emit(name, {"batch_id": batch_id, "ok": True})
        emit("bytes", b"\x00" * 100_000)
        emit("large", "x" * 500_000)
    if batches <= args.panics:
        # Past everybody: a text frame, one that closes, and no more.
        text = f"451-{args.namespace},{PLACEHOLDER}".encode()
        connection = request.environ["werkzeug.socket"]
        connection.sendall(bytes((0x81, len(text))) + text + b"\x88\x02\x03\xe8")
        connection.shutdown(socket.SHUT_WR)
        return socketio.server.not_handled
    if args.garbage is not None and batches % 2:
        send_raw(*garbage(batch_id))
    if args.disconnect_every and batches % args.disconnect_every == 0:
        disconnect()
        return socketio.server.not_handled
    answer = {"batch_id": batch_id, "ok": True}
    if args.refuse_every:
        refused = [event["event_id"] for event, n in zip(events, numbers) if n % args.refuse_every == 0]
        answer["refused"] = [*refused, "0000000000000000:1:00000000"]
    if bad and args.ack == "never":
        return socketio.server.not_handled
    if bad and args.ack == "raise":
        raise RuntimeError("a bug in the app")
    if bad and args.ack == "late":
        socketio.sleep(args.late_ms / 1000)
    elif bad and args.ack == "foreign":
        # That of an attempt before.
        answer["batch_id"], earlier = earlier, batch_id
        return answer
    elif bad and args.ack == "false":
        return {**answer, "ok": False}
    elif bad and args.ack == "empty":
        return None
    if not (bad and args.ack == "late"):
        note(kind="acknowledged", batch=batch_id, numbers=numbers)
    return answer


if args.unix:
    eventlet.wsgi.server(eventlet.listen(args.unix, family=socket.AF_UNIX), app, log_output=False)
else:
    socketio.run(app, host=args.host, port=args.port, allow_unsafe_werkzeug=True)
