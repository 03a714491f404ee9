"""A stand-in for OpenAlgo's app: the same module names, server set-up and events, none of its code.

Run as `gunicorn --worker-class eventlet -w 1 app:app`; support.py lays it out as `app.py` and `extensions.py`.
"""

import os
import time
from concurrent.futures import ThreadPoolExecutor

from extensions import socketio
from flask import Flask, abort, jsonify, request, session

app = Flask(__name__)
app.secret_key = "only for tests"
app.config["PERMANENT_SESSION_LIFETIME"] = 3600
socketio.init_app(app)

bus = ThreadPoolExecutor(10)
ORDER = {"symbol": "SBIN", "action": "BUY", "orderid": "1", "exchange": "NSE", "price": 100.0, "note": "\u20b9"}


@app.before_request
def before():
    app.config["SEEN"] = app.config.get("SEEN", 0) + 1


@app.post("/login/<user>")
def login(user):
    # A permanent session is saved with every answer; others only when they change.
    session.permanent = "once" not in request.args
    session["user"] = user
    session["logged_in"] = True
    return "", 204


@app.post("/placeorder")
def placeorder():
    """Like OpenAlgo: the emit comes from a bus thread, without a request."""
    bus.submit(socketio.emit, "order_event", request.get_json(silent=True) or ORDER).result(10)
    return jsonify(status="success")


@app.post("/emit/<event>")
def emit(event):
    """Emits what the test asks for, in the request; answers how long the emit took."""
    body = request.get_json()
    started = time.perf_counter()
    for _ in range(body.get("times", 1)):
        socketio.emit(event, *body["args"], **body.get("kwargs", {}))
    return jsonify(seconds=time.perf_counter() - started, pid=os.getpid())


@app.post("/emit-nan")
def emit_nan():
    """What no JSON body can carry."""
    socketio.emit("order_event", {"action": "BUY", "ltp": float("nan"), 7: {None: float("inf")}})
    return "", 204


@app.post("/publish")
def publish():
    from openalgo_bridge_kit import EventPublisherFactory

    publisher = EventPublisherFactory.create_publisher()
    publisher.publish_order_event(user_id="user123", symbol="SBIN-EQ", action="BUY", orderid="ORD123", mode="live")
    return "", 204


@app.get("/seen")
def seen():
    return jsonify(app.config["SEEN"])


@app.get("/dashboard")
def dashboard():
    """The page, which opens its sockets only when somebody is logged in."""
    if "user" not in session:
        abort(401)
    return app.send_static_file("page.html")


@app.get("/version")
def version():
    """Which of the app's versions this is; support.py can write another into extensions.py."""
    return jsonify(getattr(socketio, "version", 1))


@socketio.on("connect", namespace="/market")
def connect_market(auth=None):
    if "user" not in session:
        return False
    socketio.emit("connected", {"status": "ok"}, namespace="/market", to=request.sid)
