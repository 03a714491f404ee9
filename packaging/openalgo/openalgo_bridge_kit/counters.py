"""order_events.writer.json beside the events file: what `openalgo-bridge status` shows of the app's side."""

import json
import os


def path_beside(events_file):
    """order_events.jsonl -> order_events.writer.json."""
    return os.path.splitext(events_file)[0] + ".writer.json"


def write(path, values):
    """Replaces the file as a whole, so that a reader never sees half of it. Raises OSError."""
    scratch = f"{path}.{os.getpid()}.tmp"
    try:
        with open(scratch, "w", encoding="ascii", opener=_private) as file:
            json.dump(values, file)
            file.write("\n")
        os.replace(scratch, path)
    except OSError:
        try:
            os.unlink(scratch)
        except OSError:
            pass
        raise


def _private(path, flags):
    return os.open(path, flags, 0o640)
