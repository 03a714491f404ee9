"""Wraps socketio.emit: plain broadcasts of listed events also become lines."""

import functools

# Keywords that say nothing as long as they are unset: the emit still goes to everyone.
_UNSET = ("to", "room", "skip_sid", "callback", "ignore_queue")


def wrap(socketio, bridge):
    """Replaces `socketio.emit`, and returns the one that was there."""
    plain_emit = socketio.emit

    @functools.wraps(plain_emit)
    def emit(event, *args, **kwargs):
        try:
            shown_by_relay = _take(bridge, event, args, kwargs)
        except Exception as error:
            # Whatever it is, it must not become the app's problem.
            bridge.give_up(event, error)
            shown_by_relay = False
        if not shown_by_relay:
            return plain_emit(event, *args, **kwargs)
        return None

    socketio.emit = emit
    return plain_emit


def _take(bridge, event, args, kwargs):
    """Appends what is to be appended; True if the app must not emit it as well."""
    bridge.users.of_request()  # every emit in a request tells whose instance this is
    if event not in bridge.settings.events:
        return False
    if not args and "data" in kwargs:
        kwargs = dict(kwargs)
        args = (kwargs.pop("data"),)
    # With a second argument, Flask-SocketIO's emit raises, so nothing was broadcast.
    if len(args) > 1 or not is_plain_broadcast(kwargs):
        return False
    return bridge.append(event, args[0] if args else None)


def is_plain_broadcast(kwargs):
    """Whether an emit with these keywords goes to every client on "/", and to nobody in particular."""
    for keyword, value in kwargs.items():
        if keyword == "namespace":
            plain = not value or value == "/"
        elif keyword == "include_self":
            plain = bool(value)
        else:
            plain = keyword in _UNSET and not value
        if not plain:
            return False
    return True
