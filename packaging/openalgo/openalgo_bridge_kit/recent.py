"""The last keys that were seen, in bounded memory."""


class Recent:
    """Remembers the last `most` keys that were added."""

    def __init__(self, most):
        self._most = most
        self._keys = {}  # a dict keeps the order in which its keys came

    def __contains__(self, key):
        return key in self._keys

    def __len__(self):
        return len(self._keys)

    def add(self, key):
        """Remembers the key; the oldest one goes when there are too many."""
        self._keys[key] = None
        if len(self._keys) > self._most:
            del self._keys[next(iter(self._keys))]

    def discard(self, key):
        """Forgets the key."""
        self._keys.pop(key, None)
