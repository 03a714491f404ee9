"""setup.sh on a scratch root."""

import os
import shlex
import shutil
import subprocess
import unittest

from support import KIT, Case

UNIT = """\
[Unit]
Description=OpenAlgo
[Service]
User=www-data
WorkingDirectory={dir}
ExecStart=/bin/bash -c 'source {dir}/.venv/bin/activate && {dir}/.venv/bin/gunicorn \\
    --worker-class eventlet -w 1 {more} \\
    app:app'
"""
UNITS = "etc/systemd/system"


class SetupTest(Case):
    def setUp(self):
        super().setUp()
        (self.dir / UNITS).mkdir(parents=True)
        (self.dir / "usr/share/openalgo-bridge").mkdir(parents=True)
        shutil.copytree(KIT, self.dir / "usr/share/openalgo-bridge/openalgo")

    def unit(self, name, directory, more=""):
        (self.dir / UNITS / name).write_text(UNIT.format(dir=directory, more=more))

    def run_setup(self, *arguments, status=0):
        env = {**os.environ, "ROOT": str(self.dir)}
        ran = subprocess.run([KIT / "setup.sh", *arguments], env=env, capture_output=True, text=True)
        self.assertEqual(ran.returncode, status, ran.stderr)
        return ran.stdout, ran.stderr

    def tree(self):
        """Every path with its mode and content."""
        found = {}
        for path in self.dir.rglob("*"):
            stat = path.stat()
            found[str(path.relative_to(self.dir))] = (stat.st_mode, path.read_bytes() if path.is_file() else b"")
        return found

    def test_each_layout_gets_its_drop_in_and_its_directory(self):
        self.unit("openalgo.service", "/var/python/openalgo")
        self.unit("openalgo2.service", "/var/python/openalgo-flask/openalgo2")
        self.unit("openalgo-fyers.service", "/var/python/openalgo-flask/fyers/openalgo")
        self.unit("openalgo-bridge.service", "/")
        self.unit("openalgo-bridge@.service", "/")
        (self.dir / UNITS / "openalgo-other.service").write_text("[Service]\nExecStart=/bin/true\n")
        said, warned = self.run_setup()
        self.assertEqual(warned, "")
        self.assertIn("openalgo.service: single, /var/python/openalgo, runs as www-data", said)
        self.assertIn("openalgo2.service: multi-instance", said)
        self.assertIn("openalgo-fyers.service: older layout", said)
        restart = said.splitlines()[-1].split("systemctl restart ")[1].split()
        self.assertEqual(set(restart), {"openalgo.service", "openalgo2.service", "openalgo-fyers.service"})
        drop_ins = sorted(path.parent.name for path in (self.dir / UNITS).glob("*.d/openalgo-bridge.conf"))
        self.assertEqual(drop_ins, ["openalgo-fyers.service.d", "openalgo.service.d", "openalgo2.service.d"])
        for unit, events in (("openalgo", ""), ("openalgo2", "/openalgo2"), ("openalgo-fyers", "/openalgo-fyers")):
            text = (self.dir / UNITS / f"{unit}.service.d/openalgo-bridge.conf").read_text()
            self.assertIn(f"OPENALGO_BRIDGE_FILE=/var/lib/openalgo-events{events}/order_events.jsonl\n", text)
            self.assertEqual((self.dir / f"var/lib/openalgo-events{events}").stat().st_mode & 0o7777, 0o2750)
            self.assertTrue((self.dir / f"etc/openalgo-bridge/openalgo/{unit}.env").is_file())

    def test_the_packages_directory_lets_the_apps_of_instances_pass(self):
        parent = self.dir / "var/lib/openalgo-events"
        parent.mkdir(parents=True)
        parent.chmod(0o2750)
        self.unit("openalgo2.service", "/var/python/openalgo-flask/openalgo2")
        self.run_setup("--dry-run")
        self.assertEqual(parent.stat().st_mode & 0o7777, 0o2750)
        self.run_setup()
        self.assertEqual(parent.stat().st_mode & 0o7777, 0o2755)
        self.assertEqual((parent / "openalgo2").stat().st_mode & 0o7777, 0o2750)
        before = self.tree()
        self.run_setup()
        self.assertEqual(self.tree(), before)

    def test_the_drop_in_names_what_the_kit_ships(self):
        self.unit("openalgo.service", "/var/python/openalgo")
        self.run_setup()
        text = (self.dir / UNITS / "openalgo.service.d/openalgo-bridge.conf").read_text()
        env_file = text.split("EnvironmentFile=-")[1].split()[0]
        # With the dash: without the kit there is no variable, and the app starts.
        variable = next(x for x in (self.dir / env_file[1:]).read_text().splitlines() if not x.startswith("#"))
        name, _, value = variable.partition("=")
        self.assertEqual(name, "GUNICORN_CMD_ARGS")
        config = shlex.split(value)[0].removeprefix("--config=")
        self.assertEqual(config, "/usr/share/openalgo-bridge/openalgo/gunicorn.conf.py")
        self.assertTrue((self.dir / config[1:]).is_file())

    def test_a_dry_run_changes_nothing_and_names_everything(self):
        self.unit("openalgo.service", "/var/python/openalgo")
        before = self.tree()
        said, _ = self.run_setup("--dry-run")
        self.assertEqual(self.tree(), before)
        self.run_setup()
        for path in set(self.tree()) - set(before):
            if (self.dir / path).is_file():
                self.assertIn("/" + path, said)

    def test_again_changes_nothing_and_keeps_settings(self):
        self.unit("openalgo.service", "/var/python/openalgo")
        self.run_setup()
        settings = self.dir / "etc/openalgo-bridge/openalgo/openalgo.env"
        settings.write_text("OPENALGO_BRIDGE_EMIT=bridge\n")
        before = self.tree()
        said, _ = self.run_setup()
        self.assertEqual(self.tree(), before)
        self.assertNotIn("  write ", said)

    def test_undo_removes_what_was_written_and_nothing_else(self):
        self.unit("openalgo.service", "/var/python/openalgo")
        self.unit("openalgo2.service", "/var/python/openalgo-flask/openalgo2")
        own = self.dir / UNITS / "openalgo2.service.d"
        own.mkdir()
        (own / "limits.conf").write_text("[Service]\nLimitNOFILE=4096\n")
        before = self.tree()
        self.run_setup()
        (self.dir / UNITS / "openalgo.service").unlink()  # a unit may be gone meanwhile
        after = self.tree()
        self.run_setup("--undo", "--dry-run")
        self.assertEqual(self.tree(), after)
        self.run_setup("--undo")
        left = set(self.tree()) - set(before)
        self.assertEqual(left, {"etc/openalgo-bridge", "var", "var/lib"})
        self.run_setup("--undo")

    def test_undo_keeps_events_and_edited_settings(self):
        self.unit("openalgo.service", "/var/python/openalgo")
        self.run_setup()
        events = self.dir / "var/lib/openalgo-events/order_events.jsonl"
        events.write_text("{}\n")
        settings = self.dir / "etc/openalgo-bridge/openalgo/openalgo.env"
        settings.write_text("OPENALGO_BRIDGE_EMIT=bridge\n")
        self.run_setup("--undo")
        self.assertTrue(events.exists() and settings.exists())
        self.assertFalse((self.dir / UNITS / "openalgo.service.d").exists())

    def test_it_warns_of_what_would_keep_the_kit_from_loading(self):
        self.unit("openalgo.service", "/srv/app", more="--config mine.py")
        (self.dir / "srv/app").mkdir(parents=True)
        (self.dir / "srv/app/gunicorn.conf.py").touch()
        other = self.dir / UNITS / "openalgo.service.d"
        other.mkdir()
        (other / "mine.conf").write_text("[Service]\nEnvironment=GUNICORN_CMD_ARGS=--threads=2\n")
        _, warned = self.run_setup("--dry-run")
        for part in ("has a --config of its own", "gunicorn.conf.py is no longer read", "sets GUNICORN_CMD_ARGS too"):
            self.assertIn(part, warned)

    def test_no_unit_and_wrong_usage(self):
        self.assertIn("no unit of OpenAlgo found", self.run_setup(status=69)[1])
        self.assertIn("--undo", self.run_setup("--what", status=64)[1])


if __name__ == "__main__":
    unittest.main()
