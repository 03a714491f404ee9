"""The session check, asked directly and by a real nginx with the shipped snippet."""

import http.client
import http.server
import threading
import unittest

from support import NGINX, Case, Nginx

PATH = "/openalgo-bridge/session"


class SessionTest(Case):
    def test_204_with_a_session_and_401_without(self):
        app = self.app()
        cookie = app.cookie("trader")
        for headers, status in (({}, 401), ({"Cookie": cookie}, 204), ({"Cookie": cookie[:-2] + "xx"}, 401)):
            found, _, body = app.get(PATH, headers)
            self.assertEqual((found, body), (status, b""))

    def test_it_leaves_no_trace(self):
        app = self.app()
        cookie = {"Cookie": app.cookie("trader")}
        # The app itself refreshes the cookie of a permanent session with every answer.
        self.assertIn("Set-Cookie", app.get("/seen", cookie)[1])
        before = int(app.get("/seen")[2])
        for _ in range(5):
            status, headers, _ = app.get(PATH, cookie)
            self.assertEqual(status, 204)
            self.assertEqual(set(headers) - {"Server", "Date", "Connection"}, {"Cache-Control"})
        self.assertEqual(int(app.get("/seen")[2]), before + 1, "the app's own hooks did not run")

    def test_the_apps_rule_for_expired_sessions_decides_where_it_has_one(self):
        utils = self.dir / "app" / "utils"
        utils.mkdir(parents=True)
        (utils / "__init__.py").touch()
        rule = "from flask import session\ndef is_session_valid(): return session['user'] != 'expired'\n"
        (utils / "session.py").write_text(rule)
        app = self.app(EXTENSIONS="import utils.session")
        self.assertEqual(app.get(PATH, {"Cookie": app.cookie("trader")})[0], 204)
        self.assertEqual(app.get(PATH, {"Cookie": app.cookie("expired")})[0], 401)

    def test_other_methods_and_paths_are_the_apps(self):
        app = self.app()
        self.assertEqual(app.request("POST", PATH)[0], 404)
        self.assertEqual(app.get(PATH + "/")[0], 404)


@unittest.skipUnless(NGINX, "needs nginx")
class NginxTest(Case):
    def setUp(self):
        super().setUp()
        self.app_ = self.app()
        self.daemon = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Daemon)
        self.addCleanup(self.daemon.server_close)
        threading.Thread(target=self.daemon.serve_forever, daemon=True).start()
        self.addCleanup(self.daemon.shutdown)
        nginx = Nginx(self.dir, self.app_.socket, f"127.0.0.1:{self.daemon.server_port}")
        self.addCleanup(nginx.stop)
        self.port = nginx.port

    def ask(self, path, headers):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        self.addCleanup(connection.close)
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()

    def test_the_daemon_behind_nginx_needs_a_session(self):
        cookie = {"Cookie": self.app_.cookie("trader")}
        path = "/bridge/socket.io/?EIO=4&transport=polling"
        self.assertEqual(self.ask(path, {})[0], 401)
        status, text = self.ask(path, cookie)
        self.assertEqual((status, text), (200, "/socket.io/?EIO=4&transport=polling Upgrade:None"))
        upgrade = {"Connection": "Upgrade", "Upgrade": "websocket"}
        self.assertEqual(self.ask(path, {**cookie, **upgrade})[1].split()[-1], "Upgrade:websocket")
        # The app's own Socket.IO is still the app's, and nobody can ask about sessions from outside.
        self.assertIn('"sid"', self.ask("/socket.io/?EIO=4&transport=polling", {})[1])
        self.assertEqual(self.ask(PATH, cookie)[0], 404)


class _Daemon(http.server.BaseHTTPRequestHandler):
    """In the daemon's place: answers with what it was asked."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        text = f"{self.path} Upgrade:{self.headers.get('Upgrade')}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    unittest.main()
