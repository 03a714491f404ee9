//! The one table of all keys: names, defaults, kinds and meanings.
//!
//! What is checked, what is suggested for a mistyped key, what is masked, what `check` lists and
//! what `.sample.env` says all comes from here. Properties of librdkafka that have no key of their
//! own are in [`super::kafka_properties`].

use super::kafka_properties::{self, Property, Use};
use super::parse::{Kind, Unix};
use super::problem::{MASK, Scope, shown_text, without_credentials};
use super::suggest;

/// Keys that begin so are the bridge's: in a file, an unknown one of them is an error.
const PREFIXES: [(&str, Scope); 4] = [
    ("BRIDGE_", Scope::Common),
    ("ORDER_EVENT_", Scope::Common),
    ("KAFKA_", Scope::Kafka),
    ("SOCKETIO_", Scope::SocketIo),
];

/// Names the configuration file, so it can only come from the process environment.
pub(super) const ENV_FILE: &str = "BRIDGE_ENV_FILE";

/// Which of the modes it is.
pub(super) const MODE: &str = "ORDER_EVENT_MODE";

/// What is appended to the key of a secret for the path of a file that has it.
const SECRET_FILE_SUFFIX: &str = "_FILE";

/// A key and what it takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key {
    pub name: &'static str,
    pub scope: Scope,
    pub kind: Kind,
    /// As it would stand in a file; empty: none.
    pub default: &'static str,
    /// A value that makes sense; never empty.
    pub example: &'static str,
    /// One sentence for the one who sets it.
    pub meaning: &'static str,
    /// Why the kind is no wider; added to a refusal, may be empty.
    pub because: &'static str,
    /// One of the ten that `.sample.env` sets.
    pub open: bool,
    /// Accepted, without effect.
    pub ignored: bool,
}

/// What a name with one of our prefixes stands for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Named {
    Key(&'static Key),
    /// `<KEY>_FILE`, the path of a file that has the secret.
    SecretFile(&'static Key),
    Property(&'static Property),
    /// `<KEY>_FILE` of a secret property.
    PropertyFile(&'static Property),
    /// [`ENV_FILE`].
    EnvFile,
}

impl Key {
    pub(super) fn is_secret(&self) -> bool {
        self.kind == Kind::Secret
    }
}

/// The scope of a name, `None` if it is not one of ours.
pub(super) fn scope_of(name: &str) -> Option<Scope> {
    PREFIXES.iter().find(|(prefix, _)| name.starts_with(prefix)).map(|&(_, scope)| scope)
}

/// The name in `text` without a quote, a byte order mark or the like in front, and up to the first
/// character that no name has.
pub(super) fn plain(text: &str) -> &str {
    let foreign = |c: char| !c.is_ascii_alphanumeric() && c != '_';
    let text = text.trim_start_matches(foreign);
    &text[..text.find(foreign).unwrap_or(text.len())]
}

/// What `name` stands for; `None`: nothing.
pub(super) fn find(name: &str) -> Option<Named> {
    if name == ENV_FILE {
        return Some(Named::EnvFile);
    }
    if let Some(property) = kafka_properties::find(name) {
        return Some(Named::Property(property));
    }
    if let Some(key) = key(name) {
        return Some(Named::Key(key));
    }
    let secret = name.strip_suffix(SECRET_FILE_SUFFIX)?;
    if let Some(property) = kafka_properties::find(secret).filter(|found| found.is_secret()) {
        return Some(Named::PropertyFile(property));
    }
    key(secret).filter(|key| key.is_secret()).map(Named::SecretFile)
}

/// The key of exactly this name.
pub(super) fn key(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// What an unknown name was most likely meant to be.
pub(super) fn meant(name: &str) -> Option<String> {
    if name.starts_with(kafka_properties::PREFIX) {
        return kafka_properties::meant(name);
    }
    let secret_files: Vec<String> =
        KEYS.iter().filter(|key| key.is_secret()).map(|key| file_key(key.name)).collect();
    let names = KEYS.iter().map(|key| key.name).chain(secret_files.iter().map(String::as_str));
    suggest::nearest(name, names).map(str::to_owned)
}

/// A line with this name as it could stand in a file; `None`: it should not.
pub(super) fn example_line(name: &str) -> Option<String> {
    let example = match find(name)? {
        Named::Key(key) => key.example.to_owned(),
        Named::SecretFile(_) | Named::PropertyFile(_) => "/etc/openalgo-bridge/secret".to_owned(),
        Named::Property(Property { use_: Use::Free(kind), .. }) => kind.example(),
        Named::Property(_) | Named::EnvFile => return None,
    };
    Some(format!("{name} = '{example}'"))
}

/// The key that names a file for the secret `name`.
pub(super) fn file_key(name: &str) -> String {
    format!("{name}{SECRET_FILE_SUFFIX}")
}

/// As much of a name as can be printed: a secret may have been written right behind the key, with a
/// colon or with nothing in between.
pub(super) fn shown_name(name: &str) -> String {
    if find(name).is_some() {
        return name.to_owned();
    }
    let plain = plain(name);
    let secret_keys = KEYS.iter().filter(|key| key.is_secret()).map(|key| key.name.to_owned());
    let secret_properties =
        kafka_properties::PROPERTIES.iter().filter(|p| p.is_secret()).map(Property::key);
    let behind_secret = secret_keys
        .chain(secret_properties)
        .filter(|secret| plain.starts_with(secret.as_str()))
        .map(|secret| secret.len())
        .max();
    let shown = &plain[..behind_secret.unwrap_or(plain.len())];
    if shown == name { shown.to_owned() } else { format!("{shown}…") }
}

/// Values of `name` can be printed, with or without a part that is masked.
pub(super) fn is_printable(name: &str) -> bool {
    match find(name) {
        Some(Named::Key(key)) => !key.is_secret(),
        Some(Named::Property(Property { use_: Use::Free(kind), .. })) => *kind != Kind::Secret,
        _ => false,
    }
}

/// A value of `name` as it can be printed.
pub(super) fn shown_value(name: &str, text: &str) -> String {
    match find(name) {
        _ if !is_printable(name) => MASK.to_owned(),
        Some(Named::Key(Key { kind: Kind::Url { .. } | Kind::Servers, .. })) => {
            shown_text(&without_credentials(text))
        }
        Some(Named::Property(_)) => shown_text(&without_credentials(text)),
        _ => shown_text(text),
    }
}

const fn key_of(
    scope: Scope,
    name: &'static str,
    kind: Kind,
    default: &'static str,
    meaning: &'static str,
) -> Key {
    Key {
        name,
        scope,
        kind,
        default,
        example: default,
        meaning,
        because: "",
        open: false,
        ignored: false,
    }
}

const fn common(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    meaning: &'static str,
) -> Key {
    key_of(Scope::Common, name, kind, default, meaning)
}

const fn kafka(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    meaning: &'static str,
) -> Key {
    key_of(Scope::Kafka, name, kind, default, meaning)
}

const fn socketio(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    meaning: &'static str,
) -> Key {
    key_of(Scope::SocketIo, name, kind, default, meaning)
}

impl Key {
    const fn open(self) -> Self {
        Self { open: true, ..self }
    }

    const fn ignored(self) -> Self {
        Self { ignored: true, ..self }
    }

    const fn like(self, example: &'static str) -> Self {
        Self { example, ..self }
    }

    const fn because(self, because: &'static str) -> Self {
        Self { because, ..self }
    }
}

const MS: &str = "milliseconds";

/// What one key may take at most where only a slip would be larger: 1 TiB.
const HUGE: i64 = 1 << 40;

#[rustfmt::skip] // one key, one to three lines: this is a table
pub(super) const KEYS: &[Key] = &[
    common("ORDER_EVENT_MODE", Kind::OneOf(&["SOCKETIO", "KAFKA"]), "SOCKETIO",
        "Where the events go, SOCKETIO or KAFKA; to go back is to change this line and restart.").open(),
    common("BRIDGE_INPUT", Kind::Path, "/var/lib/openalgo-events/order_events.jsonl",
        "The file or named pipe that OpenAlgo writes its events to, one JSON object a line; it need not exist yet.").open(),
    kafka("KAFKA_BOOTSTRAP_SERVERS", Kind::Servers, "",
        "The brokers to ask first, host:port separated by commas; required in KAFKA mode.").like("localhost:9092").open(),
    kafka("KAFKA_ORDER_EVENTS_TOPIC", Kind::Topic, "from_openalgo_order_events",
        "The topic that gets the events.").open(),
    kafka("KAFKA_PRODUCER_COMPRESSION", Kind::OneOf(&["none", "gzip", "snappy", "lz4", "zstd"]), "snappy",
        "How batches are compressed: none, gzip, snappy, lz4 or zstd.").open(),
    kafka("KAFKA_PRODUCER_BATCH_SIZE", Kind::Number(1, 2_147_483_647, "bytes"), "16384",
        "The size in bytes at which a batch is full.").open(),
    kafka("KAFKA_PRODUCER_LINGER_MS", Kind::Number(0, 900_000, MS), "10",
        "How many milliseconds an event waits at most for its batch to become fuller.").open(),
    socketio("SOCKETIO_VIA", Kind::OneOf(&["server", "relay"]), "server",
        "Whether the bridge is the Socket.IO server itself (server) or hands events to the app's own (relay).").open(),
    socketio("SOCKETIO_LISTEN", Kind::Address, "127.0.0.1:5055",
        "Where the Socket.IO server listens.").open(),
    common("BRIDGE_LOG_LEVEL", Kind::OneOf(&["error", "warn", "warning", "info", "debug", "trace"]), "info",
        "How much is logged: error, warn, info, debug or trace.").open(),

    common("BRIDGE_START_AT", Kind::OneOf(&["beginning", "end"]), "beginning",
        "Where the very first start of a state directory begins to read, beginning or end."),
    common("BRIDGE_MAX_LINE_BYTES", Kind::Number(1, 268_435_456, "bytes"), "1048576",
        "The longest line in bytes, without its line end; a longer one is rejected.")
        .because("a line is held in memory whole, and more than once on its way"),
    common("BRIDGE_EVENT_TYPES", Kind::Names { or_none: false },
        "order_event,analyzer_update,order_notification,master_contract_download,password_change",
        "The event types that are delivered, separated by commas."),
    common("BRIDGE_IGNORE_EVENT_TYPES", Kind::Names { or_none: true },
        "modify_order_event,cancel_order_event,close_position_event,order_update,gtt_event,force_logout,\
         active_sessions_update,pending_order_created,pending_order_updated,app_mode_changed,cache_loaded,\
         download_progress,scalping_sl_update,historify_progress,historify_job_complete,historify_job_paused,\
         historify_job_cancelled,historify_schedule_created,historify_schedule_updated,\
         historify_schedule_deleted,historify_schedule_execution_started,whatsapp_qr,whatsapp_pair_code,\
         whatsapp_paired,whatsapp_pair_status,whatsapp_status",
        "The event types that are left out on purpose, or none; a type on neither list is rejected."),
    common("BRIDGE_STATE_DIR", Kind::Path, "/var/lib/openalgo-bridge",
        "The directory, mode 0700, that holds position, rejects and lock."),
    common("BRIDGE_CHECKPOINT_INTERVAL_MS", Kind::Number(1, 3_600_000, MS), "1000",
        "How often the position is made safe against power loss, in milliseconds."),
    common("BRIDGE_MAX_IN_FLIGHT", Kind::Number(1, 1_048_576, "records"), "16384",
        "How many lines may be read but not yet settled before reading pauses."),
    common("BRIDGE_MAX_IN_FLIGHT_BYTES", Kind::Number(1, 4_294_967_296, "bytes"), "8388608",
        "How many bytes of such lines may be held in memory; not less than BRIDGE_MAX_LINE_BYTES."),
    common("BRIDGE_REJECTS_MAX_BYTES", Kind::Number(1, HUGE, "bytes"), "67108864",
        "The size in bytes at which the file of rejected lines is rotated."),
    common("BRIDGE_SHUTDOWN_TIMEOUT_MS", Kind::Number(0, 3_600_000, MS), "10000",
        "How many milliseconds a stop waits for what is on its way, 2000 at most while the other side is down."),
    common("BRIDGE_FIFO_JOURNAL_MAX_BYTES", Kind::Number(65_536, HUGE, "bytes"), "268435456",
        "How many bytes read from a named pipe are kept on disk before the pipe is no longer read.")
        .because("a pipe alone holds 65536"),
    common("BRIDGE_HTTP_LISTEN", Kind::Listen, "127.0.0.1:9820",
        "Where metrics, health and status are served: an address, unix:/path or off."),
    common("BRIDGE_LOG_FORMAT", Kind::OneOf(&["auto", "text", "json"]), "auto",
        "How it is logged: text, json, or auto: text on a terminal, priorities under systemd."),

    kafka("KAFKA_PRODUCER_ACKS", Kind::Acks, "all",
        "Always all; anything weaker would break the guarantee and is refused."),
    kafka("KAFKA_PRODUCER_RETRIES", Kind::Number(0, 2_147_483_647, "retries"), "",
        "Without effect: what may heal is tried again without end.").like("2147483647"),
    kafka("KAFKA_PRODUCER_REQUEST_TIMEOUT_MS", Kind::Number(1, 900_000, MS), "30000",
        "How many milliseconds a broker may take for an answer."),
    kafka("KAFKA_ESB_EVENTS_TOPIC", Kind::Text, "",
        "Ignored: the topic of the other direction, accepted so that the file can be shared.").ignored().like("to_openalgo"),
    kafka("KAFKA_CONSUMER_GROUP", Kind::Text, "",
        "Ignored: a consumer's, accepted so that the file can be shared.").ignored().like("openalgo"),
    kafka("KAFKA_CONSUMER_AUTO_OFFSET_RESET", Kind::Text, "",
        "Ignored: a consumer's, accepted so that the file can be shared.").ignored().like("latest"),
    kafka("KAFKA_SECURITY_PROTOCOL", Kind::OneOf(&["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"]), "plaintext",
        "How to talk to the brokers: plaintext, ssl, sasl_plaintext or sasl_ssl."),
    kafka("KAFKA_SASL_MECHANISM", Kind::OneOf(&["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"]), "",
        "How to log in: PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER.")
        .like("SCRAM-SHA-512").because("Kerberos is not built in"),
    kafka("KAFKA_SASL_USERNAME", Kind::Text, "",
        "Who logs in, with PLAIN and SCRAM.").like("openalgo-bridge"),
    kafka("KAFKA_SASL_PASSWORD", Kind::Secret, "",
        "The password for it; better is KAFKA_SASL_PASSWORD_FILE, the path of a file that has it.").like("..."),
    kafka("KAFKA_SSL_CA_LOCATION", Kind::Path, "",
        "A file or directory of certificates that vouch for the brokers; without it, the system's.").like("/etc/ssl/certs/kafka-ca.pem"),
    kafka("KAFKA_SSL_CERTIFICATE_LOCATION", Kind::Path, "",
        "The file with the bridge's own certificate, where brokers ask for one.").like("/etc/openalgo-bridge/client.pem"),
    kafka("KAFKA_SSL_KEY_LOCATION", Kind::Path, "",
        "The file with the key of that certificate.").like("/etc/openalgo-bridge/client.key"),
    kafka("KAFKA_SSL_KEY_PASSWORD", Kind::Secret, "",
        "The password of that key; better is KAFKA_SSL_KEY_PASSWORD_FILE.").like("..."),
    kafka("KAFKA_HEADERS", Kind::Switch, "on",
        "Whether each message has CloudEvents headers, on or off."),
    kafka("KAFKA_TIMESTAMP", Kind::OneOf(&["event", "now"]), "event",
        "The time of a message, that of the event or now."),

    socketio("SOCKETIO_PATH", Kind::UrlPath, "/socket.io/",
        "Server: the path that clients connect to."),
    socketio("SOCKETIO_CORS_ORIGINS", Kind::Text, "",
        "Server: the other origins whose pages may connect, separated by commas, or *.").like("https://openalgo.example.org"),
    socketio("SOCKETIO_AUTH_TOKEN", Kind::Secret, "",
        "Server: what clients have to send as auth.token; relay: what is sent to the app; better is SOCKETIO_AUTH_TOKEN_FILE.").like("..."),
    socketio("SOCKETIO_AUTH_URL", Kind::Url { unix: Unix::SocketAndPage }, "",
        "Server: who is asked with a client's Cookie and Authorization whether to admit it; 2xx does; an http(s) URL or unix:/path:/page.")
        .like("unix:/var/python/openalgo/openalgo.sock:/openalgo-bridge/session"),
    socketio("SOCKETIO_AUTH_TIMEOUT_MS", Kind::Number(1, 600_000, MS), "2000",
        "Server: how many milliseconds that may take."),
    socketio("SOCKETIO_AUTH_CACHE_SECONDS", Kind::Number(0, 86_400, "seconds"), "10",
        "Server: how many seconds such an answer holds."),
    socketio("SOCKETIO_ALLOW_UNAUTHENTICATED", Kind::Switch, "false",
        "Server: true to listen beyond loopback with neither token nor URL."),
    socketio("SOCKETIO_MAX_CLIENTS", Kind::Number(1, 1_000_000, "clients"), "1000",
        "Server: how many clients are admitted at most."),
    socketio("SOCKETIO_CLIENT_TIMEOUT_MS", Kind::Number(1, 3_600_000, MS), "5000",
        "Server: how many milliseconds a client may leave an event unread in its full buffer."),
    socketio("SOCKETIO_START_GRACE_MS", Kind::Number(0, 3_600_000, MS), "10000",
        "Server: how many milliseconds events wait at most after a start for a first client."),
    socketio("SOCKETIO_MAX_EVENT_AGE_SECONDS", Kind::Number(0, 315_360_000, "seconds"), "0",
        "How many seconds old an event may be when catching up, older ones are left out; 0: any age."),
    socketio("SOCKETIO_LIVE_PAGE", Kind::Switch, "off",
        "Server: on to serve the page /live."),
    socketio("SOCKETIO_URL", Kind::Url { unix: Unix::Socket }, "http://127.0.0.1:5000",
        "Relay: where the app's server is, http(s)://host:port or unix:/path."),
    socketio("SOCKETIO_NAMESPACE", Kind::UrlPath, "/openalgo-bridge",
        "Relay: the namespace there."),
    socketio("SOCKETIO_ACK_TIMEOUT_MS", Kind::Number(1, 3_600_000, MS), "10000",
        "Relay: after how many milliseconds a batch that was not acknowledged is sent again."),
    socketio("SOCKETIO_BATCH_MAX_EVENTS", Kind::Number(1, 1_000_000, "events"), "256",
        "Relay: how many events one batch has at most."),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::domain::envelope::{DEFAULT_EVENT_TYPES, DEFAULT_IGNORED_EVENT_TYPES};

    #[test]
    fn every_default_and_example_is_valid() {
        let mut names = BTreeSet::new();
        for key in KEYS {
            assert!(names.insert(key.name), "{} twice", key.name);
            assert_eq!(scope_of(key.name), Some(key.scope), "{}", key.name);
            assert!(!key.example.is_empty() && key.meaning.ends_with('.'), "{}", key.name);
            for text in [key.default, key.example].into_iter().filter(|text| !text.is_empty()) {
                assert!(key.kind.canonical(text).is_ok(), "{} = {text}", key.name);
            }
        }
        assert_eq!(KEYS.iter().filter(|key| key.open).count(), 10);
    }

    #[test]
    fn the_default_lists_are_those_of_the_domain() {
        let default = |name| key(name).unwrap().default;
        assert_eq!(default("BRIDGE_EVENT_TYPES"), DEFAULT_EVENT_TYPES.join(","));
        assert_eq!(default("BRIDGE_IGNORE_EVENT_TYPES"), DEFAULT_IGNORED_EVENT_TYPES.join(","));
    }

    #[test]
    fn names() {
        let found = |name: &'static str| find(name).map(|named| format!("{named:?}"));
        let begins = |name, with: &str| found(name).unwrap().starts_with(with);
        assert!(begins("BRIDGE_INPUT", "Key("));
        assert!(begins("KAFKA_SASL_PASSWORD_FILE", "SecretFile("));
        assert!(begins("KAFKA_CONF_CLIENT_ID", "Property("));
        assert!(begins("KAFKA_CONF_SSL_KEY_PEM_FILE", "PropertyFile("));
        assert!(begins("BRIDGE_ENV_FILE", "EnvFile"));
        for unknown in ["BRIDGE_INPUT_FILE", "KAFKA_CONF_CLIENT_ID_FILE", "bridge_input", "X"] {
            assert_eq!(found(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn a_secret_behind_a_key_is_not_printed() {
        for (name, expected) in [
            ("KAFKA_SASL_PASWORD", "KAFKA_SASL_PASWORD"),
            ("KAFKA_SASL_PASSWORDhunter2", "KAFKA_SASL_PASSWORD…"),
            ("KAFKA_SASL_PASWORD:hunter2", "KAFKA_SASL_PASWORD…"),
            ("KAFKA_CONF_SSL_KEY_PEM_x", "KAFKA_CONF_SSL_KEY_PEM…"),
            ("BRIDGE_ä", "BRIDGE_…"),
        ] {
            assert_eq!(shown_name(name), expected);
        }
        assert_eq!(shown_value("KAFKA_SASL_PASWORD", "hunter2"), MASK);
        assert_eq!(shown_value("KAFKA_CONF_ACKS", "1"), MASK);
        assert_eq!(shown_value("KAFKA_CONF_CLIENT_ID", "me"), "me");
        assert_eq!(shown_value("SOCKETIO_URL", "http://u:hunter2@h"), "http://********@h");
    }
}
