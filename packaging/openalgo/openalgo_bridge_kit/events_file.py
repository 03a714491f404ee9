"""The events file or named pipe: whole lines, each by one write(), and never a wait.

Calls go to `posix`, not `os`: eventlet replaces os.write by one that waits where write() would say EAGAIN,
which is exactly what must not happen inside an emit of the app.
"""

import errno
import os
import posix
import stat

# O_NONBLOCK matters for a pipe: without it, opening one that nobody reads, or writing to one that is full,
# would stop the whole app, since under eventlet all of it runs in one thread.
_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
_MODE = 0o640


class EventsFile:
    """Appends lines to what is at `path` now. Not for use by two threads at once."""

    def __init__(self, path):
        self._path = path
        self._fd = None
        self._identity = None
        self._is_pipe = False
        self._unfinished = False  # the file ends, or may end, within a line
        self._rest = b""  # what a full pipe did not take of the line that it began

    def append(self, line):
        """Appends the line, or raises OSError; then the same line must come again before any other.

        A short write leaves the beginning of a line behind. In a pipe, which only grows emptier, the rest
        follows and the line is whole. In a file, others may have appended meanwhile, so the rest could end
        up anywhere: the next write starts with LF, which turns the beginning into a line of its own that
        the daemon rejects as not JSON, and the event's line is written again, whole. Truncating the file
        instead could cut off what others appended, and to a follower looks like a new file.
        """
        self._follow_path()
        if self._rest:
            pending = self._rest
        elif self._unfinished:
            pending = b"\n" + line
        else:
            pending = line
        written = posix.write(self._fd, pending)
        if written == len(pending):
            self._rest = b""
            self._unfinished = False
            return
        if self._is_pipe:
            self._rest = pending[written:]
            raise OSError(errno.EAGAIN, "the pipe is full")
        self._unfinished = self._unfinished or written > 0
        raise OSError(errno.ENOSPC, "the disk is full: only a part of a line was written")

    def close(self):
        """Lets go of the file; the next append opens it again."""
        if self._fd is not None:
            try:
                posix.close(self._fd)
            except OSError:
                pass  # nothing is buffered on our side, so there is nothing to lose
        self._fd = None
        self._rest = b""

    def _follow_path(self):
        """Opens what is at the path, unless it is what is open already: logrotate may have renamed it."""
        if self._fd is not None:
            try:
                at_path = posix.stat(self._path)
                if (at_path.st_dev, at_path.st_ino) == self._identity:
                    return
            except FileNotFoundError:
                pass
            self.close()
        # A pipe that is gone for a moment must not come back as a file: its reader would never find it.
        create = 0 if self._is_pipe else os.O_CREAT
        self._fd = posix.open(self._path, _FLAGS | create, _MODE)
        opened = posix.fstat(self._fd)
        self._identity = (opened.st_dev, opened.st_ino)
        self._is_pipe = stat.S_ISFIFO(opened.st_mode)
        # Whoever wrote before may have died within a line. A superfluous LF is a blank line, which costs nothing.
        self._unfinished = self._is_pipe or (stat.S_ISREG(opened.st_mode) and self._ends_within_a_line())

    def _ends_within_a_line(self):
        try:
            fd = posix.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        except OSError:
            return True  # not readable for us; be on the safe side
        try:
            found = posix.fstat(fd)
            if (found.st_dev, found.st_ino) != self._identity:
                return True
            return found.st_size > 0 and posix.pread(fd, 1, found.st_size - 1) != b"\n"
        except OSError:
            return True
        finally:
            posix.close(fd)
