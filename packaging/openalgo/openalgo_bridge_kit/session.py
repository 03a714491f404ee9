"""GET /openalgo-bridge/session: 204 to a browser that is logged in, 401 to anybody else.

For nginx's auth_request and the daemon's SOCKETIO_AUTH_URL. It sits before Flask, because passing through
the app would refresh the session's cookie, count as traffic, and run whatever the app does before a
request, such as logging out a session that has expired.
"""

import sys

PATH = "/openalgo-bridge/session"


class SessionCheck:
    """WSGI middleware that answers this one path itself."""

    def __init__(self, app, inner):
        self._app = app
        self._inner = inner

    def __call__(self, environ, start_response):
        if environ.get("PATH_INFO") != PATH or environ.get("REQUEST_METHOD") not in ("GET", "HEAD"):
            return self._inner(environ, start_response)
        status = "204 No Content" if self._is_logged_in(environ) else "401 Unauthorized"
        headers = [("Cache-Control", "no-store")]
        if status.startswith("401"):
            headers.append(("Content-Length", "0"))
        start_response(status, headers)
        return []

    def _is_logged_in(self, environ):
        try:
            # The context opens the session and, since no response is made, never saves it.
            with self._app.request_context(dict(environ)):
                from flask import session

                if not session.get("user") or session.get("logged_in") is False:
                    return False
                # The app's own rule, which also knows when a session has expired. It is asked only where the
                # app has loaded it.
                rule = getattr(sys.modules.get("utils.session"), "is_session_valid", None)
                return bool(rule()) if callable(rule) else True
        except Exception:
            return False


def install(app):
    """Puts the check before everything else in the app."""
    app.wsgi_app = SessionCheck(app, app.wsgi_app)
