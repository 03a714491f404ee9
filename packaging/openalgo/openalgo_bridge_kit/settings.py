"""The kit's settings, read from the environment (OpenAlgo puts its .env there before the kit loads)."""

from dataclasses import dataclass, field

EVENTS = ("order_event", "analyzer_update", "order_notification", "master_contract_download", "password_change")
FILE = "/var/lib/openalgo-events/order_events.jsonl"
USER = "openalgo"

APP = "app"
BRIDGE = "bridge"


@dataclass(frozen=True)
class Settings:
    """What the OPENALGO_BRIDGE_* variables say."""

    events: frozenset = frozenset(EVENTS)
    emit: str = APP
    file: str = FILE
    token: str = field(default="", repr=False)
    user_id: str = ""
    problems: tuple = ()

    @property
    def emit_by_app(self):
        """Whether the app itself feeds its page, as it does without the kit."""
        return self.emit == APP


def from_environment(environ):
    """Reads the settings. What is wrong takes its default and is named in `problems`, never with a secret."""
    problems = []
    return Settings(
        events=_events(environ, problems),
        emit=_emit(environ, problems),
        file=_value(environ, "FILE") or FILE,
        token=_token(environ, problems),
        user_id=_value(environ, "USER_ID"),
        problems=tuple(problems),
    )


def _value(environ, name):
    return environ.get("OPENALGO_BRIDGE_" + name, "").strip()


def _events(environ, problems):
    listed = {name.strip() for name in _value(environ, "EVENTS").split(",")} - {""}
    secret = {name for name in listed if carries_secrets(name)}
    if secret:
        problems.append("OPENALGO_BRIDGE_EVENTS: never appended, they carry secrets: " + ", ".join(sorted(secret)))
    if not listed:
        listed = set(EVENTS)
    return frozenset(listed - secret)


def carries_secrets(event):
    """Session ids and addresses, or codes that pair a phone: such events do not leave the app, listed or not."""
    return event == "active_sessions_update" or event.startswith("whatsapp_")


def _emit(environ, problems):
    emit = _value(environ, "EMIT").lower() or APP
    if emit not in (APP, BRIDGE):
        problems.append("OPENALGO_BRIDGE_EMIT is neither app nor bridge; taken as app")
        return APP
    return emit


def _token(environ, problems):
    token = _value(environ, "TOKEN")
    path = _value(environ, "TOKEN_FILE")
    if token or not path:
        return token
    try:
        with open(path, encoding="utf-8") as file:
            token = file.read().strip()
    except (OSError, ValueError) as error:
        problems.append(f"OPENALGO_BRIDGE_TOKEN_FILE: {type(error).__name__} while reading {path}; no relay")
        return ""
    if not token:
        problems.append(f"OPENALGO_BRIDGE_TOKEN_FILE: {path} is empty; no relay")
    return token
