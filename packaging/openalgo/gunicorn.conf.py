"""Loads the kit into a stock OpenAlgo: gunicorn reads this file because GUNICORN_CMD_ARGS names it.

OpenAlgo's own command line stays as it is, and what is given there wins over this file. Whatever goes
wrong here is one line in gunicorn's error log: the app starts and works as it would without the kit.
"""

import os
import sys

_HERE = os.path.dirname(os.path.abspath(__file__))


def post_worker_init(worker):
    """gunicorn calls this in the worker, after it has loaded the app and before the first request."""
    try:
        # At the end: a module of the app must never be hidden by one of the kit's.
        if _HERE not in sys.path:
            sys.path.append(_HERE)
        from extensions import socketio

        import openalgo_bridge_kit

        openalgo_bridge_kit.load(socketio, log=worker.log)
    except (Exception, SystemExit) as error:
        worker.log.error(
            "openalgo-bridge: the kit is not active, the app runs without it: %s: %s", type(error).__name__, error
        )
