"""The kit in the stand-in app: what reaches the page, what becomes a line, and what stays as it was."""

import json
import sys
import unittest
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from support import KIT, Case, Page, wait_for

SAMPLES = Path(__file__).resolve().parent.parent / "samples" / "openalgo-samples.jsonl"
ORDER = {"symbol": "SBIN", "action": "BUY", "orderid": "1"}


def data_text(line):
    """The text of `data` in a line of the kit."""
    return line.decode("ascii").split(',"data":', 1)[1][:-1]


class AppTest(Case):
    def page(self, app):
        page = Page(app)
        self.addCleanup(page.close)
        return page

    def test_data_is_byte_for_byte_what_the_page_gets(self):
        app = self.app()
        page = self.page(app)
        payloads = [(e["event_type"], e["data"]) for e in map(json.loads, SAMPLES.read_text().splitlines())]
        odd = {
            "action": "SELL \u20b9 \U0001f600 \u2028 </script> \" \\ / \x00 \x7f",
            "numbers": [0.1, 1e300, -0.0, 100.0, 10**30, 1e-7],
            "nested": {"z": 1, "a": [{}, [], None, True]},
            "": "",
        }
        payloads.append(("order_event", odd))
        for name, data in payloads:
            app.emit(name, data)
        page.wait(len(payloads))
        expected = [(json.loads(line)["event_type"], data_text(line)) for line in app.lines()]
        self.assertEqual(len(expected), len(payloads))
        self.assertEqual(page.events(), expected)

    def test_one_order_is_one_emit_and_one_line(self):
        app = self.app()
        page = self.page(app)
        for _ in range(3):
            app.post("/placeorder")
        app.emit("force_logout", {"message": "end"})
        page.wait(4)
        self.assertEqual([name for name, _ in page.events()], ["order_event"] * 3 + ["force_logout"])
        self.assertEqual([e["event_type"] for e in app.envelopes()], ["order_event"] * 3)
        counts = wait_for(lambda: app.counters().get("appended") == 3 and app.counters(), "three are counted")
        self.assertEqual((counts["failed"], counts["kept"], counts["version"]), (0, 0, "1.0"))

    def test_only_plain_broadcasts_of_listed_events_are_appended(self):
        app = self.app(EVENTS="order_event,active_sessions_update,whatsapp_qr")
        page = self.page(app)
        app.emit("order_event", ORDER, to="nobody")
        app.emit("order_event", ORDER, room="nobody")
        app.emit("order_event", ORDER, namespace="/market")
        app.emit("order_event", ORDER, skip_sid="nobody")
        app.emit("analyzer_update", {"request": {}, "response": {}})
        app.emit("active_sessions_update", {"count": 1})
        app.emit("whatsapp_qr", {"data_url": "secret"})
        app.emit("order_event", ORDER, namespace="/", to=None, include_self=True)
        page.wait(5)
        names = [name for name, _ in page.events()]
        expected = ["order_event", "analyzer_update", "active_sessions_update", "whatsapp_qr", "order_event"]
        self.assertEqual(names, expected)
        self.assertEqual(len(app.lines()), 1)
        self.assertIn("they carry secrets: active_sessions_update, whatsapp_qr", "\n".join(app.kit_log()))

    def test_data_given_by_keyword_is_appended_and_a_bare_string_is_counted(self):
        app = self.app(EVENTS="order_event,download_progress")
        page = self.page(app)
        app.emit("order_event", data=ORDER)
        app.emit("download_progress", "50 %")
        app.emit("order_event")
        page.wait(3)
        self.assertEqual([e["data"] for e in app.envelopes()], [ORDER])
        wait_for(lambda: app.counters().get("failed") == 2, "what fits no envelope is counted")

    def test_a_fault_of_the_kit_itself_is_not_the_apps(self):
        broken = "from openalgo_bridge_kit import bridge\nbridge.envelope.now = None\n"
        app = self.app(EXTENSIONS=f"import sys\nsys.path.append({str(KIT)!r})\n{broken}")
        page = self.page(app)
        app.post("/placeorder")
        page.wait(1)
        wait_for(lambda: app.counters().get("failed") == 1, "it is counted")
        self.assertIn("TypeError in the kit", app.kit_log()[-1])

    def test_nan_and_odd_keys_are_a_valid_line(self):
        app = self.app()
        app.post("/emit-nan")
        self.assertEqual(data_text(app.lines()[0]), '{"action":"BUY","ltp":null,"7":{"null":null}}')

    def test_whose_event_it_is(self):
        app = self.app(USER_ID="configured")
        app.post("/placeorder")
        cookie = {"Cookie": app.cookie("aromal")}
        body = {"args": [ORDER]}
        app.post("/emit/order_event", body, cookie)
        app.post("/placeorder")  # from the bus: no request, but only one user was ever there
        app.post("/emit/order_event", {"args": [{**ORDER, "user_id": "named"}]}, cookie)
        app.post("/emit/order_event", body, {"Cookie": app.cookie("second")})
        app.post("/placeorder")  # two users: nobody can tell
        users = [e["user_id"] for e in app.envelopes()]
        self.assertEqual(users, ["configured", "aromal", "aromal", "named", "second", "configured"])

    def test_the_instances_user_is_asked_of_the_apps_own_table(self):
        package = self.dir / "app" / "database"
        package.mkdir(parents=True)
        (package / "__init__.py").touch()
        (package / "user_db.py").write_text(
            "class _Query:\n"
            "    def with_entities(self, column): return self\n"
            "    def limit(self, most): return [('trader',)]\n"
            "class User: query, username = _Query(), 'a column'\n"
            "class db_session: remove = staticmethod(lambda: None)\n"
        )
        app = self.app(EXTENSIONS="import database.user_db")
        app.post("/placeorder")
        self.assertEqual(app.envelopes()[0]["user_id"], "trader")

    def test_the_answers_of_the_app_have_the_same_headers(self):
        """Reading flask.session would add Vary."""
        found = []
        for kit in (False, True):
            app = self.app(KIT=kit)
            headers, _ = app.post("/emit/order_event", {"args": [ORDER]}, {"Cookie": app.cookie("u?once")})
            varies = ("Date", "Content-Length", "Set-Cookie")
            found.append(sorted((name, value) for name, value in headers.items() if name not in varies))
            app.stop()
        self.assertEqual(found[0], found[1])

    def test_without_the_kit_the_app_is_as_before(self):
        app = self.app(KIT=False)
        page = self.page(app)
        app.post("/placeorder")
        page.wait(1)
        self.assertFalse(app.events.exists())
        self.assertEqual(app.kit_log(), [])
        self.assertEqual(app.get("/openalgo-bridge/session")[0], 404)

    def test_a_kit_that_cannot_load_is_one_line_in_the_log(self):
        broken = self.dir / "kit"
        (broken / "openalgo_bridge_kit").mkdir(parents=True)
        (broken / "gunicorn.conf.py").write_text((KIT / "gunicorn.conf.py").read_text())
        (broken / "openalgo_bridge_kit" / "__init__.py").write_text("raise RuntimeError('of another Python')\n")
        app = self.app(ENV={"GUNICORN_CMD_ARGS": f"--config={broken / 'gunicorn.conf.py'}"})
        page = self.page(app)
        app.post("/placeorder")
        page.wait(1)
        self.assertEqual(len(app.kit_log()), 1)
        self.assertIn("the kit is not active, the app runs without it: RuntimeError", app.kit_log()[0])

    def test_bridge_appends_instead_of_emitting(self):
        app = self.app(EMIT="bridge")
        page = self.page(app)
        app.post("/placeorder")
        app.emit("force_logout", {"message": "end"})
        page.wait(1)
        self.assertEqual([name for name, _ in page.events()], ["force_logout"])
        self.assertEqual(len(app.lines()), 1)
        self.assertIn("without the relay: the page gets none", "\n".join(app.kit_log()))

    def test_the_designs_call_works_verbatim(self):
        app = self.app()
        page = self.page(app)
        app.post("/publish")
        page.wait(1)
        text = '{"symbol":"SBIN-EQ","action":"BUY","orderid":"ORD123","mode":"live"}'
        self.assertEqual(page.events(), [("order_event", text)])
        line = app.lines()[0]
        self.assertEqual(data_text(line), text)
        self.assertEqual(json.loads(line)["user_id"], "user123")

    def test_the_worker_counts_its_last_events_when_it_stops(self):
        app = self.app()
        app.emit("order_event", ORDER, times=50)
        app.stop()
        self.assertEqual(app.counters()["appended"], 50)

    def test_many_requests_at_once_under_real_and_under_green_threads(self):
        for worker in (["gthread", "--threads", "8"], ["eventlet"]):
            with self.subTest(worker[0]):
                app = self.app(WORKER=worker)
                before = len(app.lines())
                with ThreadPoolExecutor(8) as clients:
                    for number in range(400):
                        clients.submit(app.post, "/placeorder", {"action": "BUY", "orderid": str(number)})
                orders = [envelope["data"]["orderid"] for envelope in app.envelopes()[before:]]
                self.assertEqual(sorted(orders, key=int), [str(number) for number in range(400)])
                wait_for(lambda: app.counters().get("appended") == 400, "all are counted")
                app.stop()

    def test_what_an_emit_costs(self):
        costs = {}
        for kit in (False, True):
            app = self.app(KIT=kit)
            page = self.page(app)
            app.emit("order_event", ORDER, times=200)
            costs[kit] = min(app.emit("order_event", ORDER, times=1000) for _ in range(5)) * 1000
            page.close()
            app.stop()
        extra = costs[True] - costs[False]
        print(f"\nan emit: {costs[False]:.1f} us without the kit, {extra:.1f} us more with it", file=sys.stderr)
        self.assertLess(extra, 500)


if __name__ == "__main__":
    unittest.main()
