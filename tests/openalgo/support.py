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
REPOSITORY = HERE.parent.parent
KIT = REPOSITORY / "packaging" / "openalgo"
NGINX = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin")
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


# What stands in the server block of OpenAlgo's site besides our snippet.
SITE = """\
location /socket.io/ {
    proxy_pass http://unix:APP_SOCKET;
    proxy_http_version 1.1;
    proxy_set_header Host $host;
    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    proxy_set_header X-Forwarded-Proto $scheme;
    proxy_set_header Upgrade $http_upgrade;
    proxy_set_header Connection $http_connection;
    proxy_buffering off;
    proxy_read_timeout 86400s;
    proxy_send_timeout 86400s;
}
location / {
    proxy_pass http://unix:APP_SOCKET;
    proxy_set_header Host $host;
    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    proxy_set_header X-Forwarded-Proto $scheme;
}
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


def free_port():
    """A port that was free a moment ago."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


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

    Settings are OPENALGO_BRIDGE_*; KIT, ENV, PREFIX, EXTENSIONS, WORKER and TCP are about how it is started.
    """

    def __init__(self, directory, settings):
        settings = dict(settings)
        self.home = directory / "app"
        self.home.mkdir(exist_ok=True)
        shutil.copy(HERE / "standin.py", self.home / "app.py")
        (self.home / "extensions.py").write_text(EXTENSIONS + settings.pop("EXTENSIONS", ""))
        (self.home / "static").mkdir(exist_ok=True)
        shutil.copy(HERE / "page.html", self.home / "static")
        shutil.copy(REPOSITORY / "src/sink/socketio/live/socket.io.min.js", self.home / "static")
        self.socket = str(directory / "app.sock")
        self.events = Path(settings.get("FILE", directory / "events" / "order_events.jsonl"))
        self.events.parent.mkdir(parents=True, exist_ok=True)
        prefix = settings.pop("PREFIX", [])
        self.log = directory / "app.log"
        # A stock install has no port. Tests that stand in for the daemon with a client for TCP need one.
        self.port = free_port() if settings.pop("TCP", True) else None
        env = {name: value for name, value in os.environ.items() if not name.startswith(("OPENALGO_", "GUNICORN_"))}
        env["PYTHONWARNINGS"] = "ignore"
        if settings.pop("KIT", True):
            env["GUNICORN_CMD_ARGS"] = f"--config={KIT / 'gunicorn.conf.py'}"
            env["OPENALGO_BRIDGE_FILE"] = str(self.events)
        env.update(settings.pop("ENV", {}))
        env.update({"OPENALGO_BRIDGE_" + name: str(value) for name, value in settings.items()})
        worker = settings.pop("WORKER", ["eventlet"])
        command = [sys.executable, "-m", "gunicorn", "--worker-class", *worker, "-w", "1", "--log-level", "info"]
        command += ["--bind", f"unix:{self.socket}", "--timeout", "300"]
        if self.port is not None:
            command += ["--bind", f"127.0.0.1:{self.port}"]
        # A poll that is under way would hold up the end of the app for longer than any test.
        command += ["--graceful-timeout", "1", "app:app"]
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(prefix + command, cwd=self.home, env=env, stdout=log, stderr=log)
        try:
            wait_for(self._answers, "the app answers")
        except AssertionError as error:
            self.stop()
            raise AssertionError(f"{error}: {self.log.read_text()}") from None

    def _answers(self):
        if self.process.poll() is not None:
            raise AssertionError("the app ended")
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


class Nginx:
    """A real nginx with a site like OpenAlgo's and our snippet, as shipped but for the addresses in it.

    With `name` the site is also served over TLS, under that name, with a certificate that nobody signed.
    """

    def __init__(self, directory, app_socket, daemon, name=None):
        self.port = free_port()
        self.tls_port = free_port() if name else None
        kit = (KIT / "nginx.conf").read_text().replace("127.0.0.1:5055", daemon)
        (directory / "site.conf").write_text((SITE + kit).replace("unix:APP_SOCKET", f"unix:{app_socket}"))
        tls = self._certificate(directory, name) if name else ""
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        temporary = "".join(f"{kind}_temp_path {directory}/{kind};\n" for kind in kinds)
        config = directory / "nginx.conf"
        config.write_text(
            f"daemon off; pid {directory}/nginx.pid; error_log {directory}/nginx.log;\n"
            f"events {{}}\nhttp {{ access_log off;\n{temporary}\nserver {{ listen 127.0.0.1:{self.port};\n"
            f"{tls}include {directory}/site.conf;\n}} }}\n"
        )
        directory.chmod(0o755)  # nginx's worker is another user
        self._process = subprocess.Popen([NGINX, "-c", str(config), "-e", str(directory / "nginx.log")])
        try:
            wait_for(self._listens, "nginx listens")
        except AssertionError:
            self.stop()
            raise

    def _certificate(self, directory, name):
        key, certificate = directory / "tls.key", directory / "tls.pem"
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        command += ["-days", "2", "-subj", f"/CN={name}", "-keyout", key, "-out", certificate]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
        return (
            f"listen 127.0.0.1:{self.tls_port} ssl; server_name {name};\n"
            f"ssl_certificate {certificate}; ssl_certificate_key {key};\n"
        )

    def _listens(self):
        assert self._process.poll() is None, "nginx ended"
        with socket.socket() as trial:
            return trial.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self):
        self._process.terminate()
        self._process.wait()


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
