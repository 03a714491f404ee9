"""One event as one line: the envelope, with `data` as the very text that Flask-SocketIO would send for it."""

import json
import math
from datetime import datetime, timezone

SOURCE = "openalgo"

# Deeper data is refused by the daemon (128 levels with the envelope). The bound also ends circular data.
LEVELS_MAX = 127

# Compact and ASCII, like python-socketio's packets. An encoder is made once: json.dumps would make one a call.
_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


class NotAnEvent(ValueError):
    """The payload fits no envelope. The message says why, without a byte of it."""


def now():
    """The time as envelopes have it: UTC, six digits after the point even when they are zeros, Z."""
    return datetime.now(timezone.utc).isoformat(timespec="microseconds")[: -len("+00:00")] + "Z"


def line(event, timestamp, user_id, source, data):
    """The line for an event, LF included. Raises NotAnEvent and nothing else."""
    if not isinstance(data, dict):
        raise NotAnEvent(f"its payload is of type {type(data).__name__}, not an object")
    text = "".join(
        (
            '{"event_type":',
            _encode(_text(event)),
            ',"timestamp":"',
            timestamp,
            '","user_id":',
            _encode(_text(user_id)),
            ',"source":',
            _encode(_text(source)),
            ',"data":',
            data_text(data),
            "}\n",
        )
    )
    return text.encode("ascii")


def is_standard_json(data):
    """Whether `data` can be sent as JSON that every parser reads."""
    try:
        _encode(data)
    except Exception:
        return False
    return True


def data_text(data):
    """The JSON text of a payload.

    What standard JSON can carry is byte for byte what python-socketio sends. What it cannot carry would
    reach the page broken, or raise in its emit; here it becomes the nearest JSON: NaN and the infinities
    null, a key the text of it, bytes the text in them, anything else its str().
    """
    try:
        return _encode(data)
    except Exception:
        pass  # mostly TypeError and ValueError, but a class of the app's may raise anything
    try:
        return _encode(_plain(data, LEVELS_MAX))
    except NotAnEvent:
        raise
    except Exception as error:
        raise NotAnEvent(f"its payload is no JSON: {type(error).__name__}") from None


def _plain(value, levels):
    """A copy of `value` made only of what JSON has."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if levels == 0:
        raise NotAnEvent("its payload is nested too deeply, or in itself")
    if isinstance(value, dict):
        return {_key(key): _plain(item, levels - 1) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(item, levels - 1) for item in value]
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value).decode("utf-8", "replace")
    return str(value)


def _key(key):
    if isinstance(key, (bytes, bytearray)):
        return bytes(key).decode("utf-8", "replace")
    # json turns these into text itself, the way that python-socketio's packets have it.
    if key is None or isinstance(key, (str, bool, int)) or (isinstance(key, float) and math.isfinite(key)):
        return key
    return str(key)


def _text(value):
    """A string that UTF-8 can carry; a lone surrogate in one of the four strings makes a line invalid."""
    return str(value).encode("utf-8", "replace").decode("utf-8")
