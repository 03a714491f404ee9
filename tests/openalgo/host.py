"""A host that OpenAlgo's installer has set up, with the stand-in in OpenAlgo's place: gunicorn on a socket file
only, nginx before it, and the kit brought in by setup.sh as a package would bring it. For tests/e2e/host.rs.

    host.py --daemon 127.0.0.1:PORT --name NAME --token TOKEN

PORT is where nginx looks for the bridge's server, NAME the site's name over TLS, TOKEN the relay's. Prints where everything is, a
JSON object, and then obeys a JSON object a line, each answered with {"done":true}, until its input ends:

    {"setting":"OPENALGO_BRIDGE_EMIT=bridge"}   adds a line to the kit's settings; the next start sees it
    {"restart":true}                            stops the app and starts it again
    {"update":2}                                the same, with all of the app's files replaced meanwhile
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from support import KIT, App, Nginx

UNIT = """\
[Service]
User=www-data
WorkingDirectory=/var/python/openalgo
ExecStart=/bin/bash -c 'source .venv/bin/activate && .venv/bin/gunicorn --worker-class eventlet -w 1 app:app'
"""


class Host:
    """Below `directory` is `root`, where paths are as on a real machine."""

    def __init__(self, directory, token):
        self.directory = directory
        self.root = directory / "root"
        self.settings_file = self.root / "etc/openalgo-bridge/openalgo/openalgo.env"
        self.events = self.root / "var/lib/openalgo-events/order_events.jsonl"
        self._install()
        self.token = self.root / "etc/openalgo-bridge/relay-token"
        self.token.touch(mode=0o600)
        self.token.write_text(token + "\n")
        self._set(f"OPENALGO_BRIDGE_TOKEN_FILE={self.token}")
        directory.chmod(0o755)  # nginx's worker is another user, and has to reach the socket file
        self.version = 1
        self.app = self._start()

    def _install(self):
        units = self.root / "etc/systemd/system"
        units.mkdir(parents=True)
        (units / "openalgo.service").write_text(UNIT)
        kit = self.root / "usr/share/openalgo-bridge/openalgo"
        shutil.copytree(KIT, kit, ignore=shutil.ignore_patterns("__pycache__"))
        environment = {**os.environ, "ROOT": str(self.root)}
        subprocess.run([kit / "setup.sh"], env=environment, check=True, stdout=subprocess.DEVNULL)

    def _start(self):
        extensions = f"socketio.version = {self.version}\n"
        settings = {"KIT": False, "TCP": False, "ENV": self._environment(), "EXTENSIONS": extensions}
        return App(self.directory, settings)

    def _environment(self):
        """What systemd would make of the drop-in: later lines win, files with a dash may be missing."""
        found = {}
        for line in (self.root / "etc/systemd/system/openalgo.service.d/openalgo-bridge.conf").read_text().splitlines():
            key, _, value = line.partition("=")
            if key == "Environment":
                found.update([value.split("=", 1)])
            elif key == "EnvironmentFile":
                path = self.root / value.removeprefix("-/")
                lines = path.read_text().splitlines() if path.exists() else []
                found.update(entry.split("=", 1) for entry in lines if entry and not entry.startswith("#"))
        for path in ("/usr/share/openalgo-bridge", "/var/lib/openalgo-events"):
            found = {name: value.replace(path, f"{self.root}{path}") for name, value in found.items()}
        return found

    def _set(self, line):
        with open(self.settings_file, "a") as file:
            file.write(line + "\n")

    def obey(self, command):
        """Does one command."""
        if "setting" in command:
            self._set(command["setting"])
        if "restart" in command or "update" in command:
            self.app.stop()
            if "update" in command:
                shutil.rmtree(self.app.home)
                self.version = command["update"]
            self.app = self._start()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--daemon", required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--token", required=True)
    given = parser.parse_args()
    # So that what was started ends with it then too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with contextlib.ExitStack() as at_the_end:
        directory = Path(at_the_end.enter_context(tempfile.TemporaryDirectory(prefix="bridge-host-")))
        host = Host(directory, given.token)
        at_the_end.callback(lambda: host.app.stop())
        nginx = Nginx(directory, host.app.socket, given.daemon, given.name)
        at_the_end.callback(nginx.stop)
        facts = {
            "plain": f"127.0.0.1:{nginx.port}",
            "tls_port": nginx.tls_port,
            "app_socket": host.app.socket,
            "app_log": str(host.app.log),
            "events": str(host.events),
            "token": str(host.token),
        }
        print(json.dumps(facts), flush=True)
        for line in sys.stdin:
            host.obey(json.loads(line))
            print(json.dumps({"done": True}), flush=True)


if __name__ == "__main__":
    main()
