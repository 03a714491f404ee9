"""What happens to one event: a line, the page, or both, as OPENALGO_BRIDGE_EMIT says."""

import _thread

from . import envelope
from .recent import Recent

# What the app showed its page although the relay brings it too; see `was_shown`.
SHOWN_MAX = 10_000


class Bridge:
    """Joins settings, writer and users. `show` puts an event on the page; None where there is no page."""

    def __init__(self, settings, writer, users, show=None):
        self.settings = settings
        self.users = users
        self.show = show
        self._writer = writer
        self._shown = Recent(SHOWN_MAX)
        self._shown_lock = _thread.RLock()

    def append(self, event, data, user_id=None, source=envelope.SOURCE):
        """Appends a listed event. True if the relay will put it on the page, so the app need not."""
        if event not in self.settings.events:
            return False
        timestamp = envelope.now()
        try:
            line = envelope.line(event, timestamp, user_id or self.users.of(data), source, data)
        except envelope.NotAnEvent as error:
            self._writer.give_up(f"{event}: {error}")
            return False
        appended = self._writer.append(line)
        if self.settings.emit_by_app:
            return False
        if not appended:
            # The page gets it from the app after all. If the line is appended later the relay brings it
            # again; it is known by its time, which has microseconds.
            with self._shown_lock:
                self._shown.add((event, timestamp))
        return appended

    def give_up(self, event, error):
        """Counts an event at which the kit itself failed."""
        self._writer.give_up(f"{event}: {type(error).__name__} in the kit")

    def was_shown(self, event, timestamp):
        """Whether the app showed this event itself because appending it failed at first."""
        with self._shown_lock:
            return (event, timestamp) in self._shown

    def publish(self, event, data, user_id=None, source=envelope.SOURCE):
        """Append and emit in one call, for code that calls the facade instead of socketio.emit."""
        if not self.append(event, data, user_id, source) and self.show is not None:
            self.show(event, data)
