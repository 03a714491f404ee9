"""Whose event it is. OpenAlgo's payloads rarely say, but one installation has one user."""

import sys

from .settings import USER


class Users:
    """Finds the user id of an event; never fails, and never makes the app do anything for it."""

    def __init__(self, configured=""):
        self._configured = configured
        self._seen = None
        self._several = False
        self._looked_up = None

    def of(self, data):
        """The event's user, else the request's, else the instance's one user, else the configured one."""
        return _named_in(data) or self.of_request() or self._of_instance() or self._configured or USER

    def look_up(self):
        """Asks the app's user table, if there is one, for the only user in it.

        Only a table that the app has loaded itself is asked, and whatever differs from what is expected
        means "not known": the session, the setting and the default remain.
        """
        try:
            database = sys.modules.get("database.user_db")
            if database is None:
                return
            try:
                user = database.User
                names = [name for (name,) in user.query.with_entities(user.username).limit(2)]
            finally:
                database.db_session.remove()
            self._looked_up = _text(names[0]) if len(names) == 1 else None
        except Exception:
            self._looked_up = None

    def of_request(self):
        """The user in the session of the request that is being served, if any; remembered for later."""
        try:
            user = _in_session()
        except Exception:  # another Flask than the ones this was written for
            return None
        if user is None:
            return None
        if self._seen not in (None, user):
            self._several = True
        self._seen = user
        return user

    def _of_instance(self):
        # Most events come from background threads, which have no request.
        return self._looked_up or (None if self._several else self._seen)


def _named_in(data):
    return _text(data.get("user_id")) if isinstance(data, dict) else None


def _in_session():
    """Reads the stored session past flask.session: going through it would mark the session as used, and the
    app's answers would then carry another Vary header than without the kit.
    """
    flask_globals = sys.modules.get("flask.globals")
    context = getattr(flask_globals, "_cv_request", None) or getattr(flask_globals, "_cv_app", None)
    context = context.get(None) if context is not None else None
    stored = getattr(context, "_session", None)  # Flask 3.1.3 and later
    if stored is None:
        stored = getattr(context, "__dict__", {}).get("session")
    return _text(dict.get(stored, "user")) if isinstance(stored, dict) else None


def _text(value):
    return value if isinstance(value, str) and value else None
