"""What the tests share: the stand-in app under a real gunicorn, clients, and waiting for conditions."""

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from pathlib import Path

HERE = Path(__file__).resolve().parent
KIT = HERE.parent.parent / "packaging" / "openalgo"
DEADLINE = 20.0

sys.path.insert(0, str(KIT))

# The server set-up of OpenAlgo's extensions.py, see the stand-in.
EXTENSIONS = """\
from flask_socketio import SocketIO

socketio = SocketIO(
    cors_allowed_origins="*", async_mode="threading", ping_timeout=60, ping_interval=25,
    logger=False, engineio_logger=False,
)
"""


def wait_for(condition, what, deadline=DEADLINE):
    """Waits until `condition` gives something, and returns that."""
    end = time.monotonic() + deadline
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > end:
            raise AssertionError(f"not within {deadline} s: {what}")
        time.sleep(0.01)


class Log:
    """Takes what the kit logs."""

    def __init__(self):
        self.lines = []

    def error(self, message, *args):
        self.lines.append(("error", message % args))

    def info(self, message, *args):
        self.lines.append(("info", message % args))

    warning = info

    def errors(self):
        return [text for level, text in self.lines if level == "error"]


class Case(unittest.TestCase):
    """A test with a directory of its own."""

    def setUp(self):
        self.dir = Path(tempfile.mkdtemp(prefix="kit-test-"))
        self.addCleanup(shutil.rmtree, self.dir, ignore_errors=True)

    def app(self, **settings):
        app = App(self.dir, settings)
        self.addCleanup(app.stop)
        return app


class UnixConnection(http.client.HTTPConnection):
    """HTTP over the socket file on which a stock install listens."""

    def __init__(self, path):
        super().__init__("localhost", timeout=DEADLINE)
        self._path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class App:
    """The stand-in under gunicorn with one eventlet worker, as OpenAlgo's unit runs it.

    Settings are OPENALGO_BRIDGE_*; KIT, ENV, PREFIX, EXTENSIONS and WORKER are about how it is started.
    """

    def __init__(self, directory, settings):
        settings = dict(settings)
        self.home = directory / "app"
        self.home.mkdir(exist_ok=True)
        shutil.copy(HERE / "standin.py", self.home / "app.py")
        (self.home / "extensions.py").write_text(EXTENSIONS + settings.pop("EXTENSIONS", ""))
        self.socket = str(directory / "app.sock")
        self.events = Path(settings.get("FILE", directory / "events" / "order_events.jsonl"))
        self.events.parent.mkdir(parents=True, exist_ok=True)
        prefix = settings.pop("PREFIX", [])
        self.log = directory / "app.log"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        env = {name: value for name, value in os.environ.items() if not name.startswith(("OPENALGO_", "GUNICORN_"))}
        env["PYTHONWARNINGS"] = "ignore"
        if settings.pop("KIT", True):
            env["GUNICORN_CMD_ARGS"] = f"--config={KIT / 'gunicorn.conf.py'}"
            env["OPENALGO_BRIDGE_FILE"] = str(self.events)
        env.update(settings.pop("ENV", {}))
        env.update({"OPENALGO_BRIDGE_" + name: str(value) for name, value in settings.items()})
        worker = settings.pop("WORKER", ["eventlet"])
        command = [sys.executable, "-m", "gunicorn", "--worker-class", *worker, "-w", "1", "--log-level", "info"]
        command += ["--bind", f"unix:{self.socket}", "--bind", f"127.0.0.1:{self.port}", "--timeout", "300"]
        # A poll that is under way would hold up the end of the app for longer than any test.
        command += ["--graceful-timeout", "1", "app:app"]
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(prefix + command, cwd=self.home, env=env, stdout=log, stderr=log)
        wait_for(self._answers, "the app answers: " + self.log.read_text())

    def _answers(self):
        if self.process.poll() is not None:
            raise AssertionError("the app ended: " + self.log.read_text())
        try:
            return self.get("/seen")[0] == 200
        except OSError:
            return False

    def request(self, method, path, body=None, headers=None):
        """Status, headers and body of an answer, over the socket file."""
        with contextlib.closing(UnixConnection(self.socket)) as connection:
            headers = {"Content-Type": "application/json", **(headers or {})}
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()

    def request_text(self, method, path, text):
        """Sends a body that is not JSON, as Socket.IO's polling does."""
        with contextlib.closing(UnixConnection(self.socket)) as connection:
            connection.request(method, path, text, {"Content-Type": "text/plain"})
            return connection.getresponse().read()

    def get(self, path, headers=None):
        return self.request("GET", path, headers=headers)

    def post(self, path, body=None, headers=None):
        status, headers, text = self.request("POST", path, body, headers)
        assert status in (200, 204), (status, text)
        return headers, text

    def emit(self, event, *args, **kwargs):
        """Has the app emit; returns the seconds that it took."""
        times = kwargs.pop("times", 1)
        return json.loads(self.post("/emit/" + event, {"args": args, "kwargs": kwargs, "times": times})[1])["seconds"]

    def cookie(self, user):
        """The session cookie of a user who has logged in."""
        return self.post("/login/" + user)[0]["Set-Cookie"].split(";")[0]

    def lines(self):
        """The lines of the events file, as bytes."""
        return self.events.read_bytes().splitlines() if self.events.exists() else []

    def envelopes(self):
        return [json.loads(line) for line in self.lines()]

    def counters(self):
        """What order_events.writer.json says, {} before there is one."""
        try:
            return json.loads(self.events.with_name("order_events.writer.json").read_text())
        except OSError:
            return {}

    def kit_log(self):
        return [line for line in self.log.read_text().splitlines() if "openalgo-bridge" in line]

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


class Page:
    """A polling Socket.IO client that keeps the packets as text, as they came over the wire."""

    def __init__(self, app, namespace="/", auth=None):
        self._path = "/socket.io/?EIO=4&transport=polling"
        self._connection = UnixConnection(app.socket)
        opened = json.loads(self._ask("GET")[0][1:])
        self._path += "&sid=" + opened["sid"]
        prefix = "" if namespace == "/" else namespace + ","
        self._ask("POST", "40" + prefix + (json.dumps(auth) if auth is not None else ""))
        self.packets = []
        self._changed = threading.Condition()
        self.answer = self._ask("GET")[0]
        self._closing = False
        self._thread = threading.Thread(target=self._poll, daemon=True)
        self._thread.start()

    def _ask(self, method, body=None):
        self._connection.request(method, self._path, body, {"Content-Type": "text/plain"})
        answer = self._connection.getresponse()
        text = answer.read().decode()
        assert answer.status == 200, text
        return text.split("\x1e")

    def _poll(self):
        while not self._closing:
            try:
                packets = self._ask("GET")
            except (OSError, AssertionError, http.client.HTTPException):
                return
            with self._changed:
                self.packets += [packet for packet in packets if packet.startswith("4")]
                self._changed.notify_all()

    def wait(self, count):
        """The first `count` packets, once they have come."""
        with self._changed:
            if not self._changed.wait_for(lambda: len(self.packets) >= count, DEADLINE):
                raise AssertionError(f"{len(self.packets)} packets of {count}: {self.packets}")
            return list(self.packets)

    def events(self):
        """Name and payload text of what came."""
        found = []
        for packet in list(self.packets):
            if packet.startswith("42["):
                name = json.JSONDecoder().raw_decode(packet, 3)[0]
                found.append((name, packet[3 + len(json.dumps(name)) + 1 : -1]))
        return found

    def close(self):
        self._closing = True
        if self._connection.sock is not None:
            with contextlib.suppress(OSError):
                self._connection.sock.shutdown(socket.SHUT_RDWR)
        self._thread.join(DEADLINE)
        self._connection.close()
