"""Says in the app's log that something fails: at once, then at most once a minute, never with a payload."""

import time

INTERVAL = 60.0


class Reports:
    """At most one error a minute, which says how many were left out since the one before."""

    def __init__(self, log, now=time.monotonic):
        self.log = log
        self._now = now
        self._next = None
        self._left_out = 0
        self._failing = False

    def error(self, message):
        """Something failed."""
        now = self._now()
        if self._next is not None and now < self._next:
            self._left_out += 1
            return
        if self._left_out:
            message += f" ({self._left_out} more since the last report)"
        self._next = now + INTERVAL
        self._left_out = 0
        self._failing = True
        self.log.error("openalgo-bridge: %s", message)

    def works_again(self, message):
        """It works; said once after an error that was."""
        if self._failing:
            self._failing = False
            self.log.info("openalgo-bridge: %s", message)

    def final(self, message):
        """The last word when the app exits; nothing follows, so the minute does not matter."""
        self.log.error("openalgo-bridge: %s", message)
