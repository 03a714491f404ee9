"""The other client of `bench.sh relay`: python-socketio's own, emitting batches, each acknowledged.

    bench_relay_client.py PORT COUNT RATE SIZE     RATE 0: as fast as it goes, in batches of SIZE
"""

import sys
import time

import socketio

port, count, rate, size = map(int, sys.argv[1:])
NAMESPACE = "/openalgo-bridge"
client = socketio.Client(reconnection=False)
client.connect(f"http://127.0.0.1:{port}", namespaces=[NAMESPACE], transports=["websocket"], wait_timeout=30)
start = time.monotonic() + 1
for begin in range(0, count, size):
    pause = start + begin / rate - time.monotonic() if rate else 0
    if pause > 0:
        time.sleep(pause)
    events = [
        {
            "event_id": f"0123456789abcdef:{number}:89abcdef",
            "event_type": "order_event",
            "timestamp": "2026-01-29T10:30:45Z",
            "user_id": "u",
            "source": "openalgo",
            "data": {"symbol": "SBIN", "action": "BUY", "orderid": str(number), "t": time.time_ns()},
        }
        for number in range(begin, min(begin + size, count))
    ]
    answer = client.call("bridge_batch", {"batch_id": str(begin), "events": events}, namespace=NAMESPACE)
    assert answer["ok"]
client.disconnect()
