"""Puts the parts together: `load` in the app, `current` for whoever calls the facade."""

import logging
import os

from . import __version__, hook, session
from .bridge import Bridge
from .relay import NAMESPACE, Relay
from .reports import Reports
from .settings import from_environment
from .user import Users
from .writer import Writer

_current = None


def load(socketio, log, environ=None):
    """Wraps the app's socketio object. A part that cannot be loaded is one line in the log, no more."""
    global _current
    if getattr(socketio.emit, "_openalgo_bridge", False):
        return
    settings = from_environment(os.environ if environ is None else environ)
    reports = Reports(log)
    bridge = _bridge(settings, reports)
    for problem in settings.problems:
        log.error("openalgo-bridge: %s", problem)

    bridge.show = hook.wrap(socketio, bridge)
    socketio.emit._openalgo_bridge = True
    _current = bridge, reports
    bridge.users.look_up()
    relay = _part(log, "the relay", _add_relay, socketio, bridge, reports) if settings.token else False
    _part(log, "the session check", lambda: session.install(socketio.sockio_mw.flask_app))
    _say_loaded(log, settings, relay)


def current():
    """The loaded kit's bridge and reports; outside the app ones that append and show nothing."""
    global _current
    if _current is None:
        reports = Reports(logging.getLogger("openalgo_bridge_kit"))
        _current = _bridge(from_environment(os.environ), reports), reports
    return _current


def _bridge(settings, reports):
    writer = Writer(settings.file, reports)
    writer.start()
    return Bridge(settings, writer, Users(settings.user_id))


def _add_relay(socketio, bridge, reports):
    import flask

    Relay(bridge, lambda: flask.request.sid, Reports(reports.log)).register(socketio)


def _part(log, name, add, *args):
    try:
        add(*args)
    except Exception as error:
        log.error("openalgo-bridge: %s is not active: %s: %s", name, type(error).__name__, error)
        return False
    return True


def _say_loaded(log, settings, relay):
    log.info(
        "openalgo-bridge: kit %s loaded: %s to %s; the page is fed by %s; relay %s",
        __version__,
        ",".join(sorted(settings.events)),
        settings.file,
        "the app" if settings.emit_by_app else "the bridge",
        NAMESPACE if relay else "off",
    )
    if not settings.emit_by_app and not relay:
        log.warning(
            "openalgo-bridge: OPENALGO_BRIDGE_EMIT=bridge without the relay: the page gets none of these events"
        )
