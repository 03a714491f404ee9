"""The app's side of the relay, asked by a real Socket.IO client in the daemon's place."""

import json
import shutil
import unittest

import socketio
from support import Case, Page, wait_for

NAMESPACE = "/openalgo-bridge"
TOKEN = "correct horse"


def event(number, name="order_event", source="other", data=None, timestamp="2026-01-29T10:30:45.123456Z"):
    data = {"symbol": "SBIN", "action": "BUY", "orderid": str(number)} if data is None else data
    event_id = f"0123456789abcdef:{number}:89abcdef"
    return {
        "event_id": event_id,
        "event_type": name,
        "timestamp": timestamp,
        "user_id": "u",
        "source": source,
        "data": data,
    }


class RelayTest(Case):
    def start(self, **settings):
        app = self.app(**{"TOKEN": TOKEN, **settings})
        page = Page(app)
        self.addCleanup(page.close)
        return app, page

    def daemon(self, app, token=TOKEN, **auth):
        client = socketio.Client(reconnection=False)
        self.addCleanup(client.disconnect)
        auth = auth or {"token": token}
        client.connect(f"http://127.0.0.1:{app.port}", namespaces=[NAMESPACE], auth=auth, wait_timeout=10)
        return client

    def send(self, client, *events, batch_id="b1"):
        batch = {"batch_id": batch_id, "events": list(events)}
        return client.call("bridge_batch", batch, namespace=NAMESPACE, timeout=10)

    def shown(self, app, page):
        """Order ids on the page once all that was sent has arrived."""
        before = sum(name == "fence" for name, _ in page.events())
        app.emit("fence", {})
        wait_for(lambda: sum(name == "fence" for name, _ in page.events()) > before, "the fence arrives")
        return [json.loads(text)["orderid"] for name, text in page.events() if name == "order_event"]

    def test_events_of_others_reach_the_page_once_and_are_not_appended(self):
        app, page = self.start()
        client = self.daemon(app)
        answer = self.send(client, event(1), event(2, source="openalgo"), event(3))
        self.assertEqual(answer, {"batch_id": "b1", "ok": True, "refused": []})
        self.assertEqual(self.send(client, event(1), event(3), event(4), batch_id="b2")["batch_id"], "b2")
        # With EMIT=app the page has the app's own already.
        self.assertEqual(self.shown(app, page), ["1", "3", "4"])
        self.assertEqual(app.lines(), [])

    def test_an_order_is_one_toast_in_bridge_mode_however_often_the_batch_is_sent(self):
        app, page = self.start(EMIT="bridge")
        app.post("/placeorder", {"action": "BUY", "orderid": "7"})
        self.assertEqual(self.shown(app, page), [])
        line = app.envelopes()[0]
        sent = {"event_id": "0123456789abcdef:0:89abcdef", **line}
        client = self.daemon(app)
        for _ in range(3):
            self.assertTrue(self.send(client, sent)["ok"])
        self.assertEqual(self.shown(app, page), ["7"])
        self.assertEqual(len(app.lines()), 1)

    def test_what_the_app_emitted_after_all_is_not_shown_again(self):
        app, page = self.start(EMIT="bridge", FILE=self.dir / "missing" / "order_events.jsonl")
        shutil.rmtree(app.events.parent)
        app.post("/placeorder", {"action": "BUY", "orderid": "7"})
        app.events.parent.mkdir()
        line = wait_for(app.envelopes, "it is appended later")[0]
        answer = self.send(self.daemon(app), {"event_id": "0123456789abcdef:0:89abcdef", **line})
        self.assertEqual(answer["refused"], [])
        self.assertEqual(self.shown(app, page), ["7"])

    def test_ids_are_remembered_up_to_ten_thousand(self):
        app, page = self.start()
        client = self.daemon(app)
        self.send(client, event(0))
        for start in range(1, 10_000, 1000):
            self.send(client, *(event(n) for n in range(start, start + 1000) if n < 10_000))
        self.send(client, event(0))
        self.assertEqual(self.shown(app, page).count("0"), 1)
        self.send(client, event(10_000), event(0))
        self.assertEqual(self.shown(app, page).count("0"), 2)

    def test_what_would_break_the_page_is_refused(self):
        app, page = self.start()
        bad = [
            event(1, data={"orderid": "1"}),
            event(2, data={"orderid": "2", "action": None}),
            event(3, "analyzer_update", data={"request": {}}),
            event(4, "analyzer_update", data={"request": {}, "response": []}),
            event(5, "force_logout", data={"message": "out"}),
            event(6, "active_sessions_update", data={"count": 1}),
            event(7, data={"orderid": "7", "action": "BUY", "price": float("inf")}),
            event(8, data=["BUY"]),
        ]
        answer = self.send(self.daemon(app), event(0), *bad, event(9))
        self.assertEqual(answer["refused"], [one["event_id"] for one in bad])
        self.assertEqual(self.shown(app, page), ["0", "9"])
        self.assertEqual({name for name, _ in page.events()}, {"order_event", "fence"})

    def test_what_is_no_batch_is_not_acknowledged(self):
        app, page = self.start()
        client = self.daemon(app)
        for batch in (None, [], {}, {"batch_id": "b", "events": {}}, {"batch_id": "b", "events": [{"event_id": "x"}]}):
            answer = client.call("bridge_batch", batch, namespace=NAMESPACE, timeout=10)
            self.assertIs(answer["ok"], False)

    def test_without_the_token_nobody_gets_in(self):
        app, page = self.start()
        for auth in ({"token": "wrong"}, {"token": ""}, {"token": None}, {"token": [TOKEN]}, {"other": TOKEN}):
            with self.assertRaises(socketio.exceptions.ConnectionError):
                self.daemon(app, **auth)
        # Neither does who sends without waiting for the answer, nor who uses the page's namespace.
        stranger = Page(app, NAMESPACE, {"token": "wrong"})
        self.addCleanup(stranger.close)
        batch = json.dumps(["bridge_batch", {"batch_id": "b", "events": [event(1)]}])
        other = Page(app)
        self.addCleanup(other.close)
        for path, packet in ((stranger._path, f"42{NAMESPACE},1{batch}"), (other._path, "421" + batch)):
            app.request_text("POST", path, packet)
        self.assertTrue(stranger.answer.startswith("44" + NAMESPACE), stranger.answer)
        self.assertEqual(self.shown(app, page), [])
        self.assertNotIn(TOKEN, app.log.read_text())

    def test_without_a_token_there_is_no_namespace(self):
        app, _ = self.start(TOKEN="")
        with self.assertRaises(socketio.exceptions.ConnectionError):
            self.daemon(app, token="")

    def test_the_token_can_be_in_a_file(self):
        token = self.dir / "token"
        token.write_text(TOKEN + "\n")
        app, page = self.start(TOKEN="", TOKEN_FILE=token)
        self.assertTrue(self.send(self.daemon(app), event(1))["ok"])


if __name__ == "__main__":
    unittest.main()
