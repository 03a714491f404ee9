"""The other side of `bench.sh fanout`: Flask-SocketIO as OpenAlgo uses it, emitting to everyone.

    bench_flask.py MODE PORT CLIENTS RATE COUNT     MODE: threading or eventlet

Emits COUNT events, RATE a second, a second after CLIENTS clients are there.
"""

import sys
import time

mode, port, clients, rate, count = sys.argv[1], *map(int, sys.argv[2:])
if mode == "eventlet":
    import eventlet

    eventlet.monkey_patch()

from flask import Flask  # noqa: E402, after eventlet's patching
from flask_socketio import SocketIO  # noqa: E402

app = Flask(__name__)
server = SocketIO(app, async_mode=mode, cors_allowed_origins="*", ping_interval=25, ping_timeout=60)
there = 0


def emit_all():
    server.sleep(1)
    start = time.monotonic()
    for number in range(count):
        pause = start + number / rate - time.monotonic()
        if pause > 0:
            server.sleep(pause)
        server.emit("order_event", {"symbol": "SBIN", "action": "BUY", "orderid": str(number), "t": time.time_ns()})


@server.on("connect")
def connected():
    global there
    there += 1
    if there == clients:
        server.start_background_task(emit_all)


options = {"allow_unsafe_werkzeug": True} if mode == "threading" else {}
server.run(app, host="127.0.0.1", port=port, log_output=False, **options)
