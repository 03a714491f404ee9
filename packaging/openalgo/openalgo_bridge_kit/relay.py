"""The app's side of the relay: what the daemon sends here goes to the page."""

import _thread
import hmac

from . import envelope
from .recent import Recent

NAMESPACE = "/openalgo-bridge"
BATCH = "bridge_batch"
REMEMBERED = 10_000


class Relay:
    """Takes batches from a daemon that knows the token, and shows each event at most once."""

    def __init__(self, bridge, request_sid, reports):
        self._bridge = bridge
        self._token = bridge.settings.token.encode()
        self._request_sid = request_sid
        self._reports = reports
        self._admitted = set()
        self._seen = Recent(REMEMBERED)
        # The C lock, held for the look at one event id only: see writer.py for why not a green one.
        self._lock = _thread.RLock()

    def register(self, socketio):
        """Adds the namespace; nobody can connect to it before."""
        socketio.on_event("connect", self.on_connect, namespace=NAMESPACE)
        socketio.on_event("disconnect", self.on_disconnect, namespace=NAMESPACE)
        socketio.on_event(BATCH, self.on_batch, namespace=NAMESPACE)

    def on_connect(self, auth=None):
        """False refuses the connection."""
        token = auth.get("token") if isinstance(auth, dict) else None
        if not isinstance(token, str):
            return False
        if not hmac.compare_digest(token.encode("utf-8", "replace"), self._token):
            self._reports.error("a client of the relay was refused: wrong token")
            return False
        self._admitted.add(self._request_sid())
        return True

    def on_disconnect(self, *_reason):
        """The daemon went away."""
        self._admitted.discard(self._request_sid())

    def on_batch(self, batch=None):
        """Shows the events of a batch. The answer is the acknowledgement that the daemon waits for."""
        batch_id = batch.get("batch_id") if isinstance(batch, dict) else None
        events = batch.get("events") if isinstance(batch, dict) else None
        if self._request_sid() not in self._admitted:
            return {"batch_id": batch_id, "ok": False, "error": "not admitted"}
        if not isinstance(batch_id, str) or not isinstance(events, list):
            return {"batch_id": batch_id, "ok": False, "error": "not a batch"}
        try:
            refused = [event["event_id"] for event in events if not self._show(event)]
        except Exception as error:
            # The daemon sends the batch again; what was shown already is remembered.
            self._reports.error(f"a batch of the relay failed: {type(error).__name__}")
            return {"batch_id": batch_id, "ok": False, "error": "failed"}
        return {"batch_id": batch_id, "ok": True, "refused": refused}

    def _show(self, event):
        """False if the event is refused: not listed, or it would break the page."""
        event_id, name, data = event["event_id"], event["event_type"], event["data"]
        if name not in self._bridge.settings.events or not page_can_show(name, data):
            return False
        settings = self._bridge.settings
        if event["source"] == envelope.SOURCE:
            # The app's own: shown when it was emitted, unless the relay is what feeds the page.
            if settings.emit_by_app or self._bridge.was_shown(name, event["timestamp"]):
                return True
        with self._lock:
            if event_id in self._seen:
                return True
            self._seen.add(event_id)
        try:
            self._bridge.show(name, data)
        except BaseException:
            with self._lock:
                self._seen.discard(event_id)
            raise
        return True


def page_can_show(name, data):
    """OpenAlgo's page reads these fields unguarded, and its JSON.parse knows no NaN and no infinity."""
    if not isinstance(data, dict):
        return False
    if name == "order_event" and not isinstance(data.get("action"), str):
        return False
    if name == "analyzer_update":
        if not isinstance(data.get("request"), dict) or not isinstance(data.get("response"), dict):
            return False
    return envelope.is_standard_json(data)
