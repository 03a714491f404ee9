"""The app that `bench.sh relay` hands events to: Flask-SocketIO with a handler that does nothing else.

    bench_relay_app.py MODE PORT COUNT REPORT     MODE: threading or eventlet

When COUNT events are there, it writes to REPORT, as JSON: milliseconds from the making of each event to
its handler, seconds from the first batch to the end of the last, and the number of batches.
"""

import json
import os
import sys
import time

mode, port, count, report = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
if mode == "eventlet":
    import eventlet

    eventlet.monkey_patch()

from flask import Flask  # noqa: E402, after eventlet's patching
from flask_socketio import SocketIO  # noqa: E402

app = Flask(__name__)
server = SocketIO(app, async_mode=mode, async_handlers=False)
latencies, batches, first = [], 0, 0.0


@server.on("bridge_batch", namespace="/openalgo-bridge")
def on_batch(batch):
    global batches, first
    now = time.time_ns()
    first = first or time.monotonic()
    batches += 1
    latencies.extend((now - event["data"]["t"]) / 1e6 for event in batch["events"])
    if len(latencies) >= count:
        result = {"latencies": latencies, "seconds": time.monotonic() - first, "batches": batches}
        with open(report + ".new", "w", encoding="ascii") as file:
            json.dump(result, file)
        os.rename(report + ".new", report)
    return {"batch_id": batch["batch_id"], "ok": True}


options = {"allow_unsafe_werkzeug": True} if mode == "threading" else {}
server.run(app, host="127.0.0.1", port=port, log_output=False, **options)
