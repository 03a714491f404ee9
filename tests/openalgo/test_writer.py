"""The writer by itself: order, rotation, faults, forks, threads."""

import errno
import json
import os
import posix
import shutil
import subprocess
import sys
import threading
import time
import unittest
import warnings

from support import HERE, Case, Log, wait_for
from openalgo_bridge_kit import envelope, events_file
from openalgo_bridge_kit.reports import Reports
from openalgo_bridge_kit.writer import KEPT_MAX, Writer

EVENTS = int(os.environ.get("KIT_EVENTS", "5000"))
PROCESSES = 4


def line(number, padding=0):
    data = {"action": "BUY", "orderid": str(number), "padding": "x" * padding}
    return envelope.line("order_event", envelope.now(), "u", "openalgo", data)


def orders(text):
    """The order ids in whole lines; fails on a line that is no envelope."""
    return [json.loads(one)["data"]["orderid"] for one in text.splitlines() if one]


class WriterCase(Case):
    def setUp(self):
        super().setUp()
        self.path = self.dir / "order_events.jsonl"
        self.log = Log()

    def writer(self):
        writer = Writer(str(self.path), Reports(self.log))
        self.addCleanup(writer.close)
        return writer


class FileTest(WriterCase):
    def counters(self):
        try:
            return json.loads((self.dir / "order_events.writer.json").read_text())
        except OSError:
            return {}

    def test_a_line_is_one_write(self):
        writes = []

        def write(fd, data):
            writes.append(data)
            return real(fd, data)

        real, events_file.posix = posix.write, _Posix(write=write)
        self.addCleanup(setattr, events_file, "posix", posix)
        self.writer().append(line(1, 100_000))
        self.assertEqual(len(writes), 1)
        self.assertEqual(os.stat(self.path).st_mode & 0o777, 0o640 & ~_umask())

    def test_a_renamed_file_is_followed_and_a_deleted_one_comes_back(self):
        writer = self.writer()
        writer.append(line(1))
        self.path.rename(self.dir / "rotated")
        writer.append(line(2))
        self.path.rename(self.dir / "rotated-2")
        self.path.touch()  # as logrotate's `create` does
        writer.append(line("2b"))
        self.assertEqual(orders(self.path.read_bytes()), ["2b"])
        self.path.unlink()
        writer.append(line(3))
        with open(self.path, "r+") as file:
            file.truncate(0)
        writer.append(line(4))
        self.assertEqual(orders((self.dir / "rotated").read_bytes()), ["1"])
        self.assertEqual(orders(self.path.read_bytes()), ["4"])

    def test_up_to_a_thousand_are_kept_in_order_and_retried(self):
        self.path.mkdir()
        writer = self.writer()
        for number in range(KEPT_MAX + 5):
            self.assertFalse(writer.append(line(number)))
        counts = writer.counts()
        self.assertEqual((counts["appended"], counts["failed"], counts["kept"]), (0, 5, KEPT_MAX))
        self.assertEqual(len(self.log.errors()), 1, "one error a minute")
        self.assertNotIn("BUY", self.log.errors()[0])
        self.path.rmdir()
        # By the next append, or by itself.
        wait_for(lambda: writer.counts()["kept"] == 0, "they are appended")
        self.assertTrue(writer.append(line("last")))
        expected = [str(number) for number in range(KEPT_MAX)] + ["last"]
        self.assertEqual(orders(self.path.read_bytes()), expected)
        wait_for(lambda: self.counters().get("appended") == KEPT_MAX + 1, "counters are written")
        self.assertEqual(self.counters()["failed"], 5)
        wait_for(lambda: any("works again" in text for _, text in self.log.lines), "it says that it works again")

    def test_a_new_line_waits_behind_what_is_kept(self):
        self.path.mkdir()
        writer = self.writer()
        writer._started = True  # so that nothing retries in the background
        writer.append(line(1))
        self.path.rmdir()
        writer.append(line(2))
        self.assertEqual(orders(self.path.read_bytes()), ["1", "2"])

    def test_what_is_kept_at_the_end_is_lost_and_counted(self):
        self.path.mkdir()
        writer = self.writer()
        for number in range(3):
            writer.append(line(number))
        writer.close()
        self.assertEqual((writer.counts()["kept"], writer.counts()["failed"]), (0, 3))
        self.assertIn("3 events were never appended", self.log.errors()[-1])

    def test_a_line_that_was_begun_is_ended_and_written_again(self):
        """A full disk can take the beginning of a line."""
        short = [7]

        def write(fd, data):
            return real(fd, data[: short.pop()] if short else data)

        real, events_file.posix = posix.write, _Posix(write=write)
        self.addCleanup(setattr, events_file, "posix", posix)
        writer = self.writer()
        first, second = line(1), line(2)
        self.assertFalse(writer.append(first))
        self.assertTrue(writer.append(second))
        self.assertEqual(self.path.read_bytes(), first[:7] + b"\n" + first + second)

    def test_a_line_that_somebody_else_left_unfinished_is_ended(self):
        self.path.write_bytes(b'{"event_type":"order_')
        self.writer().append(line(1))
        self.assertEqual(orders(self.path.read_bytes().split(b"\n", 1)[1]), ["1"])

    def test_counters_are_written_at_most_once_a_second_and_whole(self):
        writer = self.writer()
        seen = set()
        end = time.monotonic() + 2.5
        number = 0
        while time.monotonic() < end:
            writer.append(line(number))
            number += 1
            seen.add(self.counters().get("appended"))  # raises on half a file
        self.assertLessEqual(len(seen - {None}), 4)
        wait_for(lambda: self.counters().get("appended") == number, "the last state is written")
        self.assertEqual(
            list(self.counters()), ["pid", "version", "loaded_at", "appended", "failed", "kept", "error"]
        )
        self.assertEqual([p.name for p in self.dir.iterdir() if p.suffix == ".tmp"], [])

    def test_a_forked_child_appends_its_own_and_not_what_the_parent_kept(self):
        self.path.mkdir()
        writer = self.writer()
        writer.append(line("kept"))
        writer._lock.acquire()  # as if another thread were appending at that moment
        with warnings.catch_warnings():
            # Python warns of forking with threads; that it is safe here is what this test shows.
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            ended = 1
            try:
                self.path.rmdir()
                appended = writer.append(line("child"))
                ended = 0 if appended and writer.counts()["appended"] == 1 else 2
            finally:
                os._exit(ended)
        self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), 0)
        writer._lock.release()
        self.assertTrue(writer.append(line("parent")))
        self.assertEqual(orders(self.path.read_bytes()), ["child", "kept", "parent"])

    def test_threads_append_whole_lines(self):
        writer = self.writer()

        def append(thread):
            for number in range(1000):
                writer.append(line(f"{thread}-{number}", number))

        threads = [threading.Thread(target=append, args=(thread,)) for thread in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(len(set(orders(self.path.read_bytes()))), 8000)
        self.assertEqual(writer.counts()["appended"], 8000)


class PipeTest(WriterCase):
    def setUp(self):
        super().setUp()
        os.mkfifo(self.path)

    def reader(self):
        fd = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)
        self.addCleanup(os.close, fd)
        return fd

    def test_without_a_reader_nothing_waits_and_nothing_is_lost(self):
        writer = self.writer()
        self.assertFalse(writer.append(line(1)))
        fd = self.reader()
        wait_for(lambda: writer.counts()["kept"] == 0, "it is appended once there is a reader")
        self.assertEqual(orders(os.read(fd, 65536)), ["1"])

    def test_a_full_pipe_keeps_and_then_goes_on_in_order(self):
        writer = self.writer()
        fd = self.reader()
        sizes = [0, 100, 5000, 70_000, 3000]  # some larger than PIPE_BUF, one than the pipe
        started = time.monotonic()
        for number in range(400):
            writer.append(line(number, sizes[number % 5]))
        self.assertLess(time.monotonic() - started, 2)
        self.assertGreater(writer.counts()["kept"], 300)
        got = b""
        while writer.counts()["kept"]:
            got += _read(fd)
            writer.tick()
        got += _read(fd)
        self.assertEqual(orders(got), [str(number) for number in range(400)])

    def test_a_pipe_that_is_gone_does_not_come_back_as_a_file(self):
        writer = self.writer()
        self.reader()
        writer.append(line(1))
        self.path.unlink()
        self.assertFalse(writer.append(line(2)))
        self.assertFalse(self.path.exists())
        os.mkfifo(self.path)
        fd = self.reader()
        wait_for(lambda: writer.counts()["kept"] == 0, "the new pipe is found")
        self.assertEqual(orders(os.read(fd, 65536)), ["2"])


class ProcessesTest(Case):
    """Several processes append to one file while it is rotated."""

    def setUp(self):
        super().setUp()
        self.path = self.dir / "order_events.jsonl"

    def run_appenders(self, rotate):
        command = [sys.executable, str(HERE / "appender.py"), str(self.path)]
        processes = [subprocess.Popen([*command, str(p), str(EVENTS)]) for p in range(PROCESSES)]
        rotations = 0
        while any(process.poll() is None for process in processes):
            if self.path.exists() and self.path.stat().st_size > 100_000:
                rotate(rotations)
                rotations += 1
            time.sleep(0.02)
        self.assertEqual([process.wait() for process in processes], [0] * PROCESSES)
        self.assertGreater(rotations, 0)
        files = [path for path in self.dir.iterdir() if path.name.startswith("order_events.jsonl")]
        return rotations, {path: path.read_bytes() for path in files}

    def report(self, how, rotations, found):
        print(f"\n{PROCESSES} x {EVENTS} events, {rotations} x {how}: {found} lines, none torn", file=sys.stderr)

    def assert_all_once(self, how, rotations, texts):
        found = [order for text in texts.values() for order in orders(text)]
        self.assertEqual(len(found), PROCESSES * EVENTS)
        self.assertEqual(len(set(found)), PROCESSES * EVENTS)
        self.report(how, rotations, len(found))

    def test_rename(self):
        rotations, texts = self.run_appenders(lambda n: self.path.rename(f"{self.path}.{n}"))
        self.assert_all_once("rename", rotations, texts)

    def test_copytruncate(self):
        def rotate(number):
            shutil.copyfile(self.path, f"{self.path}.{number}")
            os.truncate(self.path, 0)

        rotations, texts = self.run_appenders(rotate)
        found = 0
        for path, text in texts.items():
            if path != self.path:
                # A copy ends wherever copying was overtaken, which is copytruncate's doing.
                text = text[: text.rfind(b"\n") + 1]
            found += len(orders(text))
        self.assertLessEqual(found, PROCESSES * EVENTS)
        self.report("copytruncate", rotations, found)

    @unittest.skipUnless(shutil.which("logrotate", path="/usr/sbin:/usr/bin"), "needs logrotate")
    def test_logrotate(self):
        for option in ("nocopytruncate", "copytruncate"):
            with self.subTest(option):
                self.path.unlink(missing_ok=True)
                config = self.dir / "logrotate.conf"
                config.write_text(f"{self.path} {{\n  rotate 1000\n  size 1\n  missingok\n  nocreate\n  {option}\n}}\n")
                config.chmod(0o600)
                command = ["/usr/sbin/logrotate", "-f", "-s", str(self.dir / "state"), str(config)]
                rotations, texts = self.run_appenders(lambda n: subprocess.run(command, check=True))
                if option == "nocopytruncate":
                    self.assert_all_once("logrotate", rotations, texts)
                else:
                    texts = [text[: text.rfind(b"\n") + 1] for text in texts.values()]
                    self.report("logrotate copytruncate", rotations, sum(len(orders(text)) for text in texts))
                for path in texts:
                    if option == "nocopytruncate":
                        path.unlink()


class _Posix:
    """The posix module with one call replaced."""

    def __init__(self, **replaced):
        self.__dict__.update(vars(posix), **replaced)


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _read(fd):
    try:
        return os.read(fd, 1 << 20)
    except OSError as error:
        if error.errno != errno.EAGAIN:
            raise
        return b""


if __name__ == "__main__":
    unittest.main()
