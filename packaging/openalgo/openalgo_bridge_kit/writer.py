"""Appends lines in order, keeps up to 1,000 of them when that fails, and counts every one.

Nothing here waits: a line is in the file, or kept for the next attempt, or given up and counted.
"""

import _thread
import atexit
import collections
import os
import time

from . import __version__, counters
from .events_file import EventsFile

KEPT_MAX = 1000
KEPT_BYTES_MAX = 16 * 1024 * 1024

_BETWEEN_COUNTERS = 1.0
_BETWEEN_ATTEMPTS = 0.1


class Writer:
    """The one way into the events file for all threads, green or not, of this process and its children."""

    def __init__(self, path, reports):
        self._path = path
        self._reports = reports
        self._begin()
        os.register_at_fork(after_in_child=self._begin_in_child)
        atexit.register(self.close)

    def _begin(self):
        # The C lock, which eventlet leaves alone. Nothing under it can switch green threads, so it is never
        # contended within one thread, and it also holds off real ones, which a green lock would not.
        self._lock = _thread.RLock()
        self._file = EventsFile(self._path)
        self._kept = collections.deque()
        self._kept_bytes = 0
        self._appended = 0
        self._failed = 0
        self._error = None
        self._loaded_at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self._written_counters = None
        self._counters_due = 0.0
        self._started = False

    def _begin_in_child(self):
        # What is kept is the parent's to append, and the lock may be held by a thread that is not here.
        self._file.close()
        self._begin()

    def append(self, line):
        """True if the line is in the file; False if it is kept or given up, both of which are counted."""
        self.start()
        with self._lock:
            error = self._append_kept() if self._kept else None
            if error is None:
                error = self._attempt(line)
            if error is None:
                return True
            given_up = not self._keep(line)
        self._report(error, given_up)
        return False

    def give_up(self, reason):
        """Counts an event that can never be a line."""
        self.start()
        with self._lock:
            self._failed += 1
            self._error = reason
        self._reports.error(f"an event was not appended: {reason}")

    def start(self):
        """Starts what retries and writes the counters; the first append does it if nobody else did."""
        with self._lock:
            if self._started:
                return
            self._started = True
        try:
            # Looked up now, so that it is a green thread under eventlet; unlike threading.Thread.start it
            # does not wait until the thread runs.
            _thread.start_new_thread(self._tick_for_ever, ())
        except RuntimeError:
            pass  # the interpreter is about to end: `close` makes the last attempt

    def counts(self):
        """What order_events.writer.json says."""
        with self._lock:
            return {
                "pid": os.getpid(),
                "version": __version__,
                "loaded_at": self._loaded_at,
                "appended": self._appended,
                "failed": self._failed,
                "kept": len(self._kept),
                "error": self._error,
            }

    def tick(self):
        """Tries again what is kept, and writes the counters if they changed and a second has passed."""
        error = None
        with self._lock:
            had_kept = bool(self._kept)
            if had_kept:
                error = self._append_kept()
        if error is not None:
            self._report(error, False)
        elif had_kept:
            self._reports.works_again(f"appending to {self._path} works again, nothing is kept any more")
        if time.monotonic() >= self._counters_due:
            self._write_counters()

    def close(self):
        """The last attempt, when the app exits: what is still kept then is lost, and counted."""
        if not self._started:
            return
        with self._lock:
            error = self._append_kept() if self._kept else None
            lost = len(self._kept)
            self._failed += lost
            self._kept.clear()
            self._kept_bytes = 0
            self._file.close()
        if lost:
            self._reports.final(f"{lost} events were never appended to {self._path}: {error}")
        self._write_counters()

    def _append_kept(self):
        """None once all that was kept is in the file, else what prevents it."""
        while self._kept:
            error = self._attempt(self._kept[0])
            if error is not None:
                return error
            self._kept_bytes -= len(self._kept.popleft())
        return None

    def _attempt(self, line):
        """None if the line is in the file, else why not."""
        try:
            self._file.append(line)
        except OSError as error:
            # The text, not the exception: that would hold on to frames, and the app's garbage collector,
            # which stops everything, would have more to do.
            self._error = error.strerror or type(error).__name__
            return self._error
        self._appended += 1
        self._error = None
        return None

    def _keep(self, line):
        # A single line is kept whatever its size: the beginning of it may be in the pipe already.
        full = len(self._kept) >= KEPT_MAX or self._kept_bytes + len(line) > KEPT_BYTES_MAX
        if full and self._kept:
            self._failed += 1
            return False
        self._kept.append(line)
        self._kept_bytes += len(line)
        return True

    def _report(self, error, given_up):
        counts = self.counts()
        message = f"appending to {self._path} fails: {error}; {counts['kept']} events kept"
        if given_up:
            message += f", no room for more: {counts['failed']} given up"
        self._reports.error(message)

    def _write_counters(self):
        self._counters_due = time.monotonic() + _BETWEEN_COUNTERS
        counts = self.counts()
        if counts == self._written_counters:
            return
        try:
            counters.write(counters.path_beside(self._path), counts)
        except OSError:
            return  # most likely for the same reason for which appending fails, and that is reported
        self._written_counters = counts

    def _tick_for_ever(self):
        while True:
            try:
                self.tick()
            except Exception as error:
                self._reports.error(f"{type(error).__name__} in the kit")
            time.sleep(_BETWEEN_ATTEMPTS if self._kept else _BETWEEN_COUNTERS)
