//! Whole configurations: what is said about bad ones, which mode they stop, and what never shows.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use super::keys::{self, KEYS};
use super::*;

const KAFKA: &str = "ORDER_EVENT_MODE=KAFKA\nKAFKA_BOOTSTRAP_SERVERS=b1:9092\n";
const SASL: &str = "ORDER_EVENT_MODE=KAFKA\nKAFKA_BOOTSTRAP_SERVERS=b1:9092\n\
    KAFKA_SECURITY_PROTOCOL=sasl_ssl\n";

/// A directory that stands for the whole machine.
struct World {
    dir: TempDir,
    environment: BTreeMap<OsString, OsString>,
    request: Request,
}

impl World {
    fn new(purpose: Purpose) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for place in ["etc", "here"] {
            fs::create_dir(dir.path().join(place)).unwrap();
        }
        let places = Places { etc: dir.path().join("etc"), here: dir.path().join("here") };
        let request = Request { places, ..Request::new(purpose) };
        Self { dir, environment: BTreeMap::new(), request }
    }

    /// One file, named on the command line.
    fn of(text: &str) -> Self {
        let mut world = Self::new(Purpose::Check);
        let path = world.file("a.env", text);
        world.request.env_files.push(path);
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn file(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        self.file_of_mode(name, text, 0o600)
    }

    fn file_of_mode(&self, name: &str, text: impl AsRef<[u8]>, mode: u32) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    fn variable(mut self, name: &str, value: &str) -> Self {
        self.environment.insert(name.into(), value.into());
        self
    }

    fn load(&self) -> Loaded {
        load(&self.request, &self.environment)
    }
}

fn shown(loaded: &Loaded) -> String {
    ConfigProblems { problems: loaded.problems.clone() }.to_string()
}

fn effective<'a>(loaded: &'a Loaded, key: &str) -> Option<&'a Effective> {
    loaded.effective.iter().find(|effective| effective.key == key)
}

fn property<'a>(settings: &'a Settings, name: &str) -> Option<&'a str> {
    let properties = &settings.kafka.as_ref().unwrap().properties;
    assert!(properties.iter().filter(|p| p.key == name).count() <= 1, "{name} twice");
    properties.iter().find(|p| p.key == name).map(|p| p.value.as_str())
}

/// `text` has this problem and no other one.
#[track_caller]
fn check(text: &str, key: Option<&str>, line: Option<usize>, why: &str, as_: (Severity, Scope)) {
    let loaded = World::of(text).load();
    let [problem] = loaded.problems.as_slice() else {
        panic!("{text:?}: {}", shown(&loaded));
    };
    let at = match &problem.origin {
        Origin::File { line, .. } => *line,
        Origin::Default => None,
        other => panic!("{text:?}: {other}"),
    };
    assert_eq!(problem.key.as_deref(), key, "{text:?}: {problem}");
    assert_eq!(at, line, "{text:?}: {problem}");
    assert!(problem.why.contains(why), "{text:?}: {problem}");
    assert_eq!((problem.severity, problem.scope), as_, "{text:?}: {problem}");
    assert_eq!(loaded.for_run().is_err(), problem.severity == Severity::Error, "{text:?}");
}

const COMMON: (Severity, Scope) = (Severity::Error, Scope::Common);
const IN_KAFKA: (Severity, Scope) = (Severity::Error, Scope::Kafka);
const WARNED: (Severity, Scope) = (Severity::Warning, Scope::Common);
const KAFKA_WARNED: (Severity, Scope) = (Severity::Warning, Scope::Kafka);

#[test]
fn bad_settings_of_the_common_part() {
    for (text, key, line, why) in [
        ("ORDER_EVENT_MODE=both", "ORDER_EVENT_MODE", 1, "not one of SOCKETIO, KAFKA"),
        ("\n\nBRIDGE_INPUT=~/x", "BRIDGE_INPUT", 3, "not expanded"),
        ("BRIDGE_INPUT=/srv/", "BRIDGE_INPUT", 1, "not a directory"),
        ("BRIDGE_INPUT='/a\tb'", "BRIDGE_INPUT", 1, "control character"),
        ("BRIDGE_INPUT='/a\nb'", "BRIDGE_INPUT", 1, "line break: is a quote not closed?"),
        ("BRIDGE_START_AT=start", "BRIDGE_START_AT", 1, "not one of beginning, end"),
        ("BRIDGE_MAX_LINE_BYTES=1MiB", "BRIDGE_MAX_LINE_BYTES", 1, "not a number of bytes (1 to"),
        ("BRIDGE_MAX_LINE_BYTES=0", "BRIDGE_MAX_LINE_BYTES", 1, "out of range"),
        ("BRIDGE_MAX_LINE_BYTES=268435457", "BRIDGE_MAX_LINE_BYTES", 1, "in memory whole"),
        ("BRIDGE_MAX_LINE_BYTES=9000000", "BRIDGE_MAX_LINE_BYTES", 1, "BRIDGE_MAX_IN_FLIGHT_BYTES"),
        ("BRIDGE_MAX_IN_FLIGHT_BYTES=9", "BRIDGE_MAX_IN_FLIGHT_BYTES", 1, "BRIDGE_MAX_LINE_BYTES"),
        ("BRIDGE_MAX_IN_FLIGHT=-1", "BRIDGE_MAX_IN_FLIGHT", 1, "out of range"),
        ("BRIDGE_EVENT_TYPES=a b", "BRIDGE_EVENT_TYPES", 1, "separated by commas"),
        ("BRIDGE_EVENT_TYPES=,", "BRIDGE_EVENT_TYPES", 1, "names no event type"),
        ("BRIDGE_IGNORE_EVENT_TYPES=[]", "BRIDGE_IGNORE_EVENT_TYPES", 1, "separated by commas"),
        ("BRIDGE_CHECKPOINT_INTERVAL_MS=1s", "BRIDGE_CHECKPOINT_INTERVAL_MS", 1, "milliseconds"),
        ("BRIDGE_REJECTS_MAX_BYTES=x", "BRIDGE_REJECTS_MAX_BYTES", 1, "number of bytes"),
        ("BRIDGE_SHUTDOWN_TIMEOUT_MS=", "", 0, ""),
        ("BRIDGE_SHUTDOWN_TIMEOUT_MS=1.5", "BRIDGE_SHUTDOWN_TIMEOUT_MS", 1, "milliseconds"),
        ("BRIDGE_FIFO_JOURNAL_MAX_BYTES=1", "BRIDGE_FIFO_JOURNAL_MAX_BYTES", 1, "65536"),
        ("BRIDGE_HTTP_LISTEN=9820", "BRIDGE_HTTP_LISTEN", 1, "unix:/path and off"),
        ("BRIDGE_HTTP_LISTEN=unix:x", "BRIDGE_HTTP_LISTEN", 1, "absolute path of a socket"),
        ("BRIDGE_LOG_LEVEL=loud", "BRIDGE_LOG_LEVEL", 1, "not one of error, warn"),
        ("BRIDGE_LOG_FORMAT=xml", "BRIDGE_LOG_FORMAT", 1, "not one of auto, text, json"),
        ("BRIDGE_INPT=/x", "BRIDGE_INPT", 1, "did you mean BRIDGE_INPUT?"),
        ("ORDER_EVENTS_MODE=KAFKA", "", 0, ""),
        ("ORDER_EVENT_MODUS=KAFKA", "ORDER_EVENT_MODUS", 1, "did you mean ORDER_EVENT_MODE?"),
        ("BRIDGE_COLOUR=red", "BRIDGE_COLOUR", 1, "is unknown"),
        ("export BRIDGE_TOPIC=", "BRIDGE_TOPIC", 1, "is unknown"),
        ("\"BRIDGE_INPUT\"=/x", "BRIDGE_INPUT…", 1, "another key"),
        ("A=1\n\u{feff}BRIDGE_INPUT=/x", "BRIDGE_INPUT…", 2, "another key"),
        ("BRIDGE_INPUT:/x", "BRIDGE_INPUT…", 1, "another key"),
        ("A=1\nBRIDGE_INPUT=/x' y'\nBRIDGE_LOG_LEVEL='info", "BRIDGE_LOG_LEVEL", 3, "not closed"),
        (" export BRIDGE_INPUT /x", "BRIDGE_INPUT", 1, "cannot be read"),
        ("BRIDGE_INPUT='/x' y", "BRIDGE_INPUT", 1, "something behind the value"),
        (
            "BRIDGE_STATE_DIR=/s\nBRIDGE_INPUT=/s/rejects.jsonl",
            "BRIDGE_INPUT",
            2,
            "read what it writes",
        ),
        ("BRIDGE_STATE_DIR=/s\nBRIDGE_INPUT=/s/../s/./a", "BRIDGE_INPUT", 2, "read what it writes"),
        ("BRIDGE_STATE_DIR=/s/x\nBRIDGE_INPUT=/s/x", "BRIDGE_INPUT", 2, "read what it writes"),
        ("BRIDGE_STATE_DIR=/s/x/y\nBRIDGE_INPUT=/s/x", "BRIDGE_STATE_DIR", 1, "has to be a file"),
        ("BRIDGE_HTTP_LISTEN=unix:/s\nBRIDGE_INPUT=/s", "BRIDGE_HTTP_LISTEN", 1, "is the input"),
    ] {
        if key.is_empty() {
            assert_eq!(shown(&World::of(text).load()), "", "{text:?}");
        } else {
            check(text, Some(key), Some(line), why, COMMON);
        }
    }
}

#[test]
fn lines_that_warn() {
    for (text, key, line, why) in [
        ("=x\nBRIDGE_START_AT=end", None, 1, "skipped"),
        ("A=1\nB 'x'", None, 2, "skipped"),
        ("A='x\n# BRIDGE_INPUT = '/x'\nB=1", None, 1, "skipped"),
        ("BRIDGE_START_AT=x\nA=1\nBRIDGE_START_AT=end", Some("BRIDGE_START_AT"), 3, "line 1"),
        ("BRIDGE_ENV_FILE=/x", Some("BRIDGE_ENV_FILE"), 1, "no effect in a file"),
    ] {
        check(text, key, Some(line), why, WARNED);
    }
    check(
        "APP_KEY='x\nBRIDGE_INPUT=/x\nY='",
        None,
        Some(1),
        "BRIDGE_INPUT is inside the value that begins here",
        COMMON,
    );
}

#[test]
fn bad_settings_of_kafka() {
    for (text, key, line, why) in [
        (
            "KAFKA_PRODUCER_LINGER_MS=fast",
            "KAFKA_PRODUCER_LINGER_MS",
            3,
            "milliseconds (0 to 900000)",
        ),
        ("KAFKA_PRODUCER_LINGER_MS=900001", "KAFKA_PRODUCER_LINGER_MS", 3, "out of range"),
        ("KAFKA_PRODUCER_BATCH_SIZE=16k", "KAFKA_PRODUCER_BATCH_SIZE", 3, "number of bytes"),
        ("KAFKA_PRODUCER_COMPRESSION=brotli", "KAFKA_PRODUCER_COMPRESSION", 3, "snappy"),
        ("KAFKA_ORDER_EVENTS_TOPIC=a b", "KAFKA_ORDER_EVENTS_TOPIC", 3, "not a topic name"),
        ("KAFKA_ORDER_EVENTS_TOPIC=..", "KAFKA_ORDER_EVENTS_TOPIC", 3, "not a topic name"),
        ("KAFKA_PRODUCER_ACKS=1", "KAFKA_PRODUCER_ACKS", 3, "weaker"),
        ("KAFKA_PRODUCER_RETRIES=many", "KAFKA_PRODUCER_RETRIES", 3, "number of retries"),
        ("KAFKA_PRODUCER_REQUEST_TIMEOUT_MS=0", "KAFKA_PRODUCER_REQUEST_TIMEOUT_MS", 3, "range"),
        ("KAFKA_HEADERS=maybe", "KAFKA_HEADERS", 3, "neither on nor off"),
        ("KAFKA_TIMESTAMP=later", "KAFKA_TIMESTAMP", 3, "not one of event, now"),
        ("KAFKA_SECURITY_PROTOCOL=tls", "KAFKA_SECURITY_PROTOCOL", 3, "sasl_ssl"),
        ("KAFKA_SASL_MECHANISM=GSSAPI", "KAFKA_SASL_MECHANISM", 3, "Kerberos is not built in"),
        ("KAFKA_TOPIC=x", "KAFKA_TOPIC", 3, "did you mean KAFKA_ORDER_EVENTS_TOPIC?"),
        ("KAFKA_PRODUCER_LINGERMS=1", "KAFKA_PRODUCER_LINGERMS", 3, "KAFKA_PRODUCER_LINGER_MS?"),
        (
            "KAFKA_SSL_CA_LOCATION=/no\nKAFKA_SECURITY_PROTOCOL=ssl",
            "KAFKA_SSL_CA_LOCATION",
            3,
            "No such file",
        ),
        (
            "KAFKA_SSL_CERTIFICATE_LOCATION=/\nKAFKA_SSL_KEY_LOCATION=/dev/null\nKAFKA_SECURITY_PROTOCOL=ssl",
            "KAFKA_SSL_CERTIFICATE_LOCATION",
            3,
            "s a directory",
        ),
        ("KAFKA_SASL_PASSWORD_FILE=/no", "KAFKA_SASL_PASSWORD_FILE", 3, "No such file"),
        ("KAFKA_SASL_PASSWORD='a\0b'", "", 0, "NUL"),
        ("KAFKA_SASL_PASSWORD='x' y", "KAFKA_SASL_PASSWORD", 3, "cannot be read"),
    ] {
        let text = format!("{KAFKA}{text}");
        if key.is_empty() {
            check(&text, None, None, why, COMMON);
        } else {
            check(&text, Some(key), Some(line), why, IN_KAFKA);
        }
    }
}

#[test]
fn bad_properties_of_librdkafka() {
    for (text, key, why) in [
        ("KAFKA_CONF_CLEINT_ID=x", "KAFKA_CONF_CLEINT_ID", "mean KAFKA_CONF_CLIENT_ID?"),
        ("KAFKA_CONF_GROUP_ID=x", "KAFKA_CONF_GROUP_ID", "no property of librdkafka's producer"),
        ("KAFKA_CONF_TEST_MOCK_NUM_BROKERS=3", "KAFKA_CONF_TEST_MOCK_NUM_BROKERS", "no property"),
        ("KAFKA_CONF_LINGER_MS=5", "KAFKA_CONF_LINGER_MS", "use KAFKA_PRODUCER_LINGER_MS"),
        ("KAFKA_CONF_SASL_PASSWORD=x", "KAFKA_CONF_SASL_PASSWORD", "use KAFKA_SASL_PASSWORD"),
        ("KAFKA_CONF_ACKS=all", "KAFKA_CONF_ACKS", "always all"),
        ("KAFKA_CONF_ENABLE_IDEMPOTENCE=0", "KAFKA_CONF_ENABLE_IDEMPOTENCE", "order"),
        ("KAFKA_CONF_RETRIES=3", "KAFKA_CONF_RETRIES", "never given up"),
        ("KAFKA_CONF_MESSAGE_TIMEOUT_MS=3", "KAFKA_CONF_MESSAGE_TIMEOUT_MS", "never given up"),
        ("KAFKA_CONF_MAX_IN_FLIGHT=3", "KAFKA_CONF_MAX_IN_FLIGHT", "idempotence"),
        ("KAFKA_CONF_TRANSACTIONAL_ID=x", "KAFKA_CONF_TRANSACTIONAL_ID", "no transactions"),
        ("KAFKA_CONF_PARTITIONER=random", "KAFKA_CONF_PARTITIONER", "murmur2"),
        (
            "KAFKA_CONF_QUEUE_BUFFERING_MAX_KBYTES=1",
            "KAFKA_CONF_QUEUE_BUFFERING_MAX_KBYTES",
            "BRIDGE_MAX_IN_FLIGHT",
        ),
        ("KAFKA_CONF_PLUGIN_LIBRARY_PATHS=x", "KAFKA_CONF_PLUGIN_LIBRARY_PATHS", "code"),
        ("KAFKA_CONF_ERROR_CB=x", "KAFKA_CONF_ERROR_CB", "callback"),
        (
            "KAFKA_CONF_DELIVERY_REPORT_ONLY_ERROR=1",
            "KAFKA_CONF_DELIVERY_REPORT_ONLY_ERROR",
            "report for every event",
        ),
        ("KAFKA_CONF_SOCKET_TIMEOUT_MS=5", "KAFKA_CONF_SOCKET_TIMEOUT_MS", "from 10 to 300000"),
        ("KAFKA_CONF_DEBUG=msg,everything", "KAFKA_CONF_DEBUG", "some of generic"),
        ("KAFKA_CONF_SOCKET_KEEPALIVE_ENABLE=si", "KAFKA_CONF_SOCKET_KEEPALIVE_ENABLE", "neither"),
    ] {
        check(&format!("{KAFKA}{text}"), Some(key), Some(3), why, IN_KAFKA);
    }
}

#[test]
fn settings_of_kafka_that_want_others() {
    let servers = "KAFKA_BOOTSTRAP_SERVERS";
    check("ORDER_EVENT_MODE=KAFKA", Some(servers), None, "required in KAFKA mode", IN_KAFKA);
    let text = "ORDER_EVENT_MODE=kafka\nKAFKA_BOOTSTRAP_SERVERS=a:1,b";
    check(text, Some(servers), Some(2), "number 2 of 2", IN_KAFKA);
    for (text, key, line, why) in [
        ("", "KAFKA_SASL_MECHANISM", None, "asks for a login"),
        ("KAFKA_SASL_MECHANISM=oauthbearer", "KAFKA_SASL_MECHANISM", Some(4), "UNSECURE_JWT"),
        ("KAFKA_SASL_MECHANISM=PLAIN\nKAFKA_SASL_USERNAME=u", "KAFKA_SASL_PASSWORD", None, "PLAIN"),
        (
            "KAFKA_SASL_MECHANISM=scram-sha-256\nKAFKA_SASL_PASSWORD=p",
            "KAFKA_SASL_USERNAME",
            None,
            "SCRAM-SHA-256",
        ),
    ] {
        check(&format!("{SASL}{text}"), Some(key), line, why, IN_KAFKA);
    }
    for (text, key, line, why) in [
        (
            "KAFKA_SSL_CERTIFICATE_LOCATION=/dev/null",
            "KAFKA_SSL_KEY_LOCATION",
            None,
            "no key for it",
        ),
        (
            "KAFKA_SSL_KEY_LOCATION=/dev/null",
            "KAFKA_SSL_CERTIFICATE_LOCATION",
            None,
            "no certificate",
        ),
        (
            "KAFKA_SSL_CA_LOCATION=/etc\nKAFKA_CONF_SSL_CA_PEM=x",
            "KAFKA_SSL_CA_LOCATION",
            Some(4),
            "take one out",
        ),
        (
            "KAFKA_CONF_SSL_KEYSTORE_LOCATION=/x",
            "KAFKA_CONF_SSL_KEYSTORE_PASSWORD",
            None,
            "keystore",
        ),
    ] {
        let text = format!("{KAFKA}KAFKA_SECURITY_PROTOCOL=ssl\n{text}");
        check(&text, Some(key), line, why, IN_KAFKA);
    }
}

#[test]
fn settings_of_kafka_without_effect_or_safety() {
    for (text, key, line, why) in [
        ("KAFKA_SASL_PASSWORD=x", "KAFKA_SASL_PASSWORD", 3, "is plaintext"),
        ("KAFKA_SSL_CA_LOCATION=/etc", "KAFKA_SSL_CA_LOCATION", 3, "is plaintext"),
        (
            "KAFKA_SECURITY_PROTOCOL=ssl\nKAFKA_SSL_KEY_PASSWORD=x",
            "KAFKA_SSL_KEY_PASSWORD",
            4,
            "no key",
        ),
        (
            "KAFKA_SECURITY_PROTOCOL=sasl_plaintext\nKAFKA_SASL_MECHANISM=PLAIN\nKAFKA_SASL_USERNAME=u\nKAFKA_SASL_PASSWORD=x",
            "KAFKA_SECURITY_PROTOCOL",
            3,
            "for anyone to read",
        ),
        (
            "KAFKA_SECURITY_PROTOCOL=ssl\nKAFKA_CONF_ENABLE_SSL_CERTIFICATE_VERIFICATION=no",
            "KAFKA_CONF_ENABLE_SSL_CERTIFICATE_VERIFICATION",
            4,
            "pose as the broker",
        ),
        ("KAFKA_PRODUCER_RETRIES=5", "KAFKA_PRODUCER_RETRIES", 3, "without end"),
    ] {
        check(&format!("{KAFKA}{text}"), Some(key), Some(line), why, KAFKA_WARNED);
    }
    let text = format!("{KAFKA}KAFKA_CONSUMER_GROUP=g");
    let note = (Severity::Note, Scope::Kafka);
    check(&text, Some("KAFKA_CONSUMER_GROUP"), Some(3), "ignored", note);
}

#[test]
fn bad_settings_of_socketio() {
    let in_socketio = (Severity::Error, Scope::SocketIo);
    for (text, key, why) in [
        ("SOCKETIO_VIA=proxy", "SOCKETIO_VIA", "not one of server, relay"),
        ("SOCKETIO_LISTEN=:5055", "SOCKETIO_LISTEN", "IP address and a port"),
        ("SOCKETIO_LISTEN=127.0.0.1:9820", "SOCKETIO_LISTEN", "port of BRIDGE_HTTP_LISTEN"),
        ("SOCKETIO_LISTEN=0.0.0.0:5055", "SOCKETIO_LISTEN", "says who may read the events"),
        ("SOCKETIO_CORS_ORIGINS='*, https://a'", "SOCKETIO_CORS_ORIGINS", "has * among others"),
        ("SOCKETIO_CORS_ORIGINS=https://a,b", "SOCKETIO_CORS_ORIGINS", "number 2 of 2"),
        ("SOCKETIO_CORS_ORIGINS=https://a/b", "SOCKETIO_CORS_ORIGINS", "number 1 of 1"),
        ("BRIDGE_EVENT_TYPES=a,disconnect", "BRIDGE_EVENT_TYPES", "keeps for itself"),
        ("SOCKETIO_PATH=/a?b", "SOCKETIO_PATH", "a path does not have"),
        ("SOCKETIO_PATH=/live/\nSOCKETIO_LIVE_PAGE=on", "SOCKETIO_PATH", "where the live page is"),
        ("SOCKETIO_MAX_CLIENTS=all", "SOCKETIO_MAX_CLIENTS", "number of clients"),
        ("SOCKETIO_URL=127.0.0.1:5000", "SOCKETIO_URL", "unix:/path"),
        ("SOCKETIO_AUTH_URL=unix:/a.sock", "SOCKETIO_AUTH_URL", "does not name a page"),
        ("SOCKETIO_LIVE_PAGE=sure", "SOCKETIO_LIVE_PAGE", "neither on nor off"),
        ("SOCKETIO_PATH=socket.io", "SOCKETIO_PATH", "begin with /"),
        ("SOCKETIO_TOKEN=x", "SOCKETIO_TOKEN", "did you mean SOCKETIO_AUTH_TOKEN?"),
    ] {
        check(text, Some(key), Some(1), why, in_socketio);
        let other = (Severity::Warning, Scope::SocketIo);
        let text = format!("{text}\n{KAFKA}");
        check(&text, Some(key), Some(1), why, other);
    }
}

#[test]
fn bad_settings_of_the_relay() {
    const URL: &str = "SOCKETIO_URL";
    const NAMESPACE: &str = "SOCKETIO_NAMESPACE";
    for (key, value, why) in [
        (URL, "ftp://a", "neither http"),
        (URL, "unix:app.sock", "absolute"),
        (URL, "http://bridge@app", "has a user name"),
        (URL, "http://app/?x=1", "has a query"),
        (URL, "http://app:x", "not http(s)://host:port"),
        (URL, "http://app:0", "not http(s)://host:port"),
        (URL, "http://:80", "not http(s)://host:port"),
        (NAMESPACE, "bridge", "begin with /"),
        (NAMESPACE, "/", "one of its own"),
        (NAMESPACE, "/a,b", "a namespace does not have"),
        ("SOCKETIO_ACK_TIMEOUT_MS", "0", "out of range"),
        ("SOCKETIO_BATCH_MAX_EVENTS", "0", "out of range"),
    ] {
        let text = format!("{key}={value}\nSOCKETIO_VIA=relay");
        check(&text, Some(key), Some(1), why, (Severity::Error, Scope::SocketIo));
    }
    // What only the relay minds is no matter for the server, nor the other way round.
    for text in ["SOCKETIO_NAMESPACE=/", "SOCKETIO_VIA=relay\nSOCKETIO_LISTEN=0.0.0.0:5055"] {
        assert_eq!(shown(&World::of(text).load()), "");
    }
}

#[test]
fn the_relay_set() {
    let text = "SOCKETIO_VIA=relay\nSOCKETIO_URL=unix:/run/app.sock\nSOCKETIO_NAMESPACE=/b\n\
                SOCKETIO_ACK_TIMEOUT_MS=5\nSOCKETIO_BATCH_MAX_EVENTS=7\nSOCKETIO_AUTH_TOKEN=t\n";
    let loaded = World::of(text).load();
    let relay = loaded.for_run().unwrap().socketio.unwrap();
    assert_eq!((relay.via, relay.url), (Via::Relay, RelayUrl::Unix("/run/app.sock".into())));
    assert_eq!((relay.namespace.as_str(), relay.batch_max_events), ("/b", 7));
    assert_eq!(relay.ack_timeout, Duration::from_millis(5));
    assert_eq!(relay.auth_token, Some(Secret("t".to_owned())));
    for url in ["https://[::1]:8443/app/socket.io/", "http://app"] {
        let loaded = World::of(&format!("SOCKETIO_VIA=relay\nSOCKETIO_URL={url}")).load();
        let relay = loaded.for_run().unwrap().socketio.unwrap();
        assert_eq!(relay.url, RelayUrl::Http(Secret(url.to_owned())));
    }
}

#[test]
fn a_broken_setting_of_the_other_mode_is_a_warning() {
    let broken = "KAFKA_PRODUCER_LINGER_MS=fast\nKAFKA_TOPIC=x\nKAFKA_SASL_PASSWORD='\n";
    let world = World::of(broken);
    let loaded = world.load();
    assert_eq!(loaded.mode, Some(Mode::SocketIo));
    assert_eq!(loaded.problems.len(), 3, "{}", shown(&loaded));
    assert!(loaded.problems.iter().all(|problem| problem.severity == Severity::Warning));
    let settings = loaded.for_run().unwrap();
    assert_eq!((settings.mode, &settings.kafka), (Mode::SocketIo, &None));

    let loaded = World::of(&format!("{KAFKA}{broken}")).load();
    let problems = loaded.for_run().unwrap_err();
    assert_eq!(problems.problems.len(), 3, "{problems}");
    let settings = loaded.for_common().unwrap();
    assert_eq!((settings.mode, settings.kafka), (Mode::Kafka, None));

    let loaded = World::of("BRIDGE_LOG_LEVEL=loud").load();
    assert!(loaded.for_common().is_err());
}

#[test]
fn all_problems_come_at_once_in_the_order_of_the_file() {
    let text = "KAFKA_TOPIC=x\nBRIDGE_LOG_LEVEL=loud\nORDER_EVENT_MODE=KAFKA\nBRIDGE_INPT=x\n";
    let world = World::of(text);
    let loaded = world.load();
    let file = world.path("a.env");
    let file = file.display();
    let expected = format!(
        "error: {file}:1: KAFKA_TOPIC: is unknown; did you mean KAFKA_ORDER_EVENTS_TOPIC?\n\
         \u{20}   example: KAFKA_ORDER_EVENTS_TOPIC = 'from_openalgo_order_events'\n\
         error: {file}:2: BRIDGE_LOG_LEVEL = 'loud': is not one of error, warn, warning, info, \
         debug, trace\n\
         \u{20}   example: BRIDGE_LOG_LEVEL = 'info'\n\
         error: {file}:4: BRIDGE_INPT: is unknown; did you mean BRIDGE_INPUT?\n\
         \u{20}   example: BRIDGE_INPUT = '/var/lib/openalgo-events/order_events.jsonl'\n\
         error: KAFKA_BOOTSTRAP_SERVERS: is required in KAFKA mode\n\
         \u{20}   example: KAFKA_BOOTSTRAP_SERVERS = 'localhost:9092'"
    );
    assert_eq!(shown(&loaded), expected);
    assert_eq!(loaded.for_run().unwrap_err().to_string(), expected);
}

#[test]
fn defaults() {
    let loaded = World::of("").load();
    assert_eq!(shown(&loaded), "");
    let settings = loaded.for_run().unwrap();
    let expected = Settings {
        mode: Mode::SocketIo,
        input: "/var/lib/openalgo-events/order_events.jsonl".into(),
        state_dir: "/var/lib/openalgo-bridge".into(),
        start_at: StartAt::Beginning,
        max_line_bytes: 1_048_576,
        event_types: crate::domain::envelope::EventTypes::default(),
        in_flight_records: 16_384,
        in_flight_bytes: 8_388_608,
        checkpoint_interval: Duration::from_secs(1),
        rejects_max_bytes: 67_108_864,
        shutdown_timeout: Duration::from_secs(10),
        http_listen: Listen::Tcp(([127, 0, 0, 1], 9820).into()),
        log_level: LogLevel::Info,
        log_format: LogFormat::Auto,
        fifo_journal_max_bytes: 268_435_456,
        kafka: None,
        socketio: Some(SocketIoSettings {
            via: Via::Server,
            listen: ([127, 0, 0, 1], 5055).into(),
            path: "/socket.io/".to_owned(),
            cors_origins: CorsOrigins::These(Vec::new()),
            auth_token: None,
            auth_url: None,
            auth_timeout: Duration::from_secs(2),
            auth_cache: Duration::from_secs(10),
            max_clients: 1000,
            client_timeout: Duration::from_secs(5),
            start_grace: Duration::from_secs(10),
            max_event_age: None,
            live_page: false,
            url: RelayUrl::Http(Secret("http://127.0.0.1:5000".to_owned())),
            namespace: "/openalgo-bridge".to_owned(),
            ack_timeout: Duration::from_secs(10),
            batch_max_events: 256,
        }),
    };
    assert_eq!(settings, expected);
}

#[test]
fn everything_set() {
    let text = "\
        ORDER_EVENT_MODE = 'Kafka'  # back: SOCKETIO\n\
        KAFKA_BOOTSTRAP_SERVERS = ' b1:9092, [::1]:9093 '\n\
        export BRIDGE_INPUT=/srv/x/../in.jsonl\n\
        BRIDGE_STATE_DIR=/srv/state\n\
        BRIDGE_START_AT=END\nBRIDGE_LOG_LEVEL=WARNING\nBRIDGE_LOG_FORMAT=json\n\
        BRIDGE_HTTP_LISTEN=off\nBRIDGE_EVENT_TYPES=a, b\nBRIDGE_IGNORE_EVENT_TYPES=none\n\
        KAFKA_HEADERS=off\nKAFKA_TIMESTAMP=now\nKAFKA_PRODUCER_LINGER_MS=007\n\
        KAFKA_CONF_DEBUG=Broker,MSG\nKAFKA_CONF_SOCKET_KEEPALIVE_ENABLE=yes\n\
        KAFKA_PRODUCER_RETRIES=2147483647\nKAFKA_PRODUCER_ACKS=-1\nLOG_LEVEL=?\n";
    let loaded = World::of(text).load();
    assert_eq!(shown(&loaded), "");
    let settings = loaded.for_run().unwrap();
    assert_eq!(settings.input, Path::new("/srv/x/../in.jsonl"));
    assert_eq!(settings.start_at, StartAt::End);
    assert_eq!(settings.log_level, LogLevel::Warn);
    assert_eq!(settings.log_format, LogFormat::Json);
    assert_eq!(settings.http_listen, Listen::Off);
    assert_eq!(settings.event_types.allowed(), ["a", "b"]);
    assert!(settings.event_types.ignored().is_empty());
    let kafka = settings.kafka.as_ref().unwrap();
    assert!(!kafka.headers);
    assert_eq!(kafka.timestamp, EventTimestamp::Now);
    let expected = [
        ("bootstrap.servers", "b1:9092,[::1]:9093"),
        ("compression.codec", "snappy"),
        ("batch.size", "16384"),
        ("linger.ms", "7"),
        ("request.timeout.ms", "30000"),
        ("security.protocol", "plaintext"),
        ("debug", "broker,msg"),
        ("socket.keepalive.enable", "true"),
    ];
    for (name, value) in expected {
        assert_eq!(property(&settings, name), Some(value), "{name}");
    }
    assert_eq!(kafka.properties.len(), expected.len());
}

#[test]
fn an_empty_value_takes_the_default_whatever_the_environment_says() {
    for text in ["BRIDGE_LOG_LEVEL=", "BRIDGE_LOG_LEVEL", "BRIDGE_LOG_LEVEL = ' ' # x"] {
        let loaded = World::of(text).variable("BRIDGE_LOG_LEVEL", "debug").load();
        assert_eq!(loaded.for_run().unwrap().log_level, LogLevel::Info, "{text}");
        assert!(shown(&loaded).starts_with("note: "), "{}", shown(&loaded));
    }
}

#[test]
fn files_win_over_the_environment_and_later_files_over_earlier_ones() {
    let mut world = World::of("BRIDGE_LOG_LEVEL=debug\nBRIDGE_START_AT=end\nBASE=/srv\nHID=/x")
        .variable("BRIDGE_LOG_LEVEL", "error")
        .variable("BRIDGE_LOG_FORMAT", "json")
        .variable("BRIDGE_START_AT", "end")
        .variable("BASE", "/environment");
    let second = world.file("b.env", "BRIDGE_LOG_LEVEL=trace\nBRIDGE_INPUT=${BASE}/in${NONE:-.x}");
    world.request.env_files.push(second.clone());
    let loaded = world.load();
    let settings = loaded.for_run().unwrap();
    assert_eq!(settings.log_level, LogLevel::Trace);
    assert_eq!(settings.start_at, StartAt::End);
    assert_eq!(settings.log_format, LogFormat::Json);
    assert_eq!(settings.input, Path::new("/srv/in.x"));
    let expected = format!(
        "note: {}:1: BRIDGE_LOG_LEVEL: differs from the process environment; the file wins",
        second.display()
    );
    assert_eq!(shown(&loaded), expected);
    let origin = |key| effective(&loaded, key).unwrap().origin.to_string();
    assert_eq!(origin("BRIDGE_START_AT"), format!("{}:2", world.path("a.env").display()));
    assert_eq!(origin("BRIDGE_LOG_FORMAT"), "environment");
    assert_eq!(origin("BRIDGE_STATE_DIR"), "default");
}

#[test]
fn a_mode_that_a_later_file_changes_is_told() {
    let said = |first: &str, second: &str| {
        let mut world = World::of(first);
        let second = world.file("b.env", second);
        world.request.env_files.push(second);
        let loaded = world.load();
        let own = world.path("").display().to_string();
        (loaded.for_run().unwrap().mode, shown(&loaded).replace(&own, ""))
    };
    let kafka = "\nORDER_EVENT_MODE=KAFKA\nKAFKA_BOOTSTRAP_SERVERS=b:1";
    let (mode, warned) = said(kafka, "ORDER_EVENT_MODE = 'SOCKETIO'");
    assert_eq!(mode, Mode::SocketIo);
    let why = "a.env:2 has another one; this, of the later file, counts";
    assert_eq!(warned, format!("warning: b.env:1: ORDER_EVENT_MODE = 'SOCKETIO': {why}"));
    for agreeing in ["ORDER_EVENT_MODE=kafka", "BRIDGE_LOG_LEVEL=debug"] {
        assert_eq!(said(kafka, agreeing), (Mode::Kafka, String::new()));
    }
}

#[test]
fn the_environment_alone() {
    let loaded = World::of("")
        .variable("ORDER_EVENT_MODE", "KAFKA")
        .variable("KAFKA_BOOTSTRAP_SERVERS", "b:1")
        .variable("KAFKA_OPTS", "-Dsecret=hunter2")
        .variable("KAFKA_CONF_CLIENT_ID", "me")
        .variable("_KAFKA_X", "1")
        .load();
    assert_eq!(shown(&loaded), "warning: environment: KAFKA_OPTS: is unknown");
    assert_eq!(property(&loaded.for_run().unwrap(), "client.id"), Some("me"));

    let loaded = World::of("").variable("BRIDGE_LOG_LEVEL", "loud").load();
    assert!(shown(&loaded).starts_with("error: environment: BRIDGE_LOG_LEVEL = 'loud': is not"));
    assert!(loaded.for_run().is_err());

    let mut world = World::of("BRIDGE_INPUT=/x");
    let odd = || OsString::from_vec(b"\xff".to_vec());
    for name in ["BRIDGE_INPUT", "BRIDGE_LOG_LEVEL", "OTHER"] {
        world.environment.insert(name.into(), odd());
    }
    world.environment.insert(odd(), odd());
    let loaded = world.load();
    let [note, error] = loaded.problems.as_slice() else { panic!("{}", shown(&loaded)) };
    assert!(note.severity == Severity::Note && note.why.contains("differs"), "{note}");
    assert_eq!(error.to_string(), "environment: BRIDGE_LOG_LEVEL: is not UTF-8");
}

#[test]
fn which_file_counts() {
    let start = |loaded: &Loaded| loaded.for_run().unwrap().log_level;
    let write = |world: &World, name: &str, level: &str| {
        world.file(name, format!("BRIDGE_LOG_LEVEL={level}"))
    };
    let mut world = World::new(Purpose::Run);
    let here = world.path("here/.env");
    let looked_for = [world.path("etc/.env"), here.clone()];

    let loaded = world.load();
    assert_eq!(loaded.sources.looked_for, looked_for);
    assert!(shown(&loaded).starts_with("note: no configuration file, looked for "));
    assert_eq!(start(&loaded), LogLevel::Info);

    write(&world, "here/.env", "error");
    assert_eq!(start(&world.load()), LogLevel::Error);
    world.request.purpose = Purpose::State;
    assert_eq!(start(&world.load()), LogLevel::Info);
    world.request.purpose = Purpose::Check;
    write(&world, "etc/.env", "warn");
    let loaded = world.load();
    assert_eq!(start(&loaded), LogLevel::Warn);
    assert_eq!((loaded.sources.read, loaded.sources.named), (vec![world.path("etc/.env")], false));

    let named = write(&world, "named.env", "debug");
    let mut world = world.variable("BRIDGE_ENV_FILE", named.to_str().unwrap());
    assert_eq!(start(&world.load()), LogLevel::Debug);

    write(&world, "etc/one.env", "trace");
    world.request.instance = Some("one".to_owned());
    let loaded = world.load();
    assert_eq!(start(&loaded), LogLevel::Trace);
    let state_dir = effective(&loaded, "BRIDGE_STATE_DIR").unwrap();
    assert_eq!(
        state_dir.to_string(),
        "BRIDGE_STATE_DIR = '/var/lib/openalgo-bridge/one'  (command line)"
    );
    assert_eq!(loaded.for_run().unwrap().state_dir, Path::new("/var/lib/openalgo-bridge/one"));

    world.request.env_files = vec![write(&world, "x.env", "error"), here];
    let loaded = world.load();
    assert_eq!(loaded.sources.read, world.request.env_files);
    assert!(loaded.sources.to_string().starts_with("configuration from "), "{}", loaded.sources);
}

#[test]
fn files_that_cannot_be_read() {
    let only = |world: &World| {
        let loaded = world.load();
        assert!(loaded.for_run().is_err() && loaded.for_common().is_err());
        let [problem] = loaded.problems.as_slice() else { panic!("{}", shown(&loaded)) };
        problem.to_string()
    };
    let mut world = World::new(Purpose::Ask);
    let missing = world.path("none.env");
    world.request.env_files = vec![missing.clone()];
    let expected = "cannot be read: No such file or directory (os error 2)";
    assert_eq!(only(&world), format!("{}: {expected}", missing.display()));

    world.request.env_files = vec![world.dir.path().to_owned()];
    assert!(only(&world).contains("Is a directory"));
    for (bytes, why) in [
        (&b"A=1\nB=\xff\n"[..], "line 2 is not UTF-8"),
        (b"\xff\xfeB\0", "is UTF-16: save it as UTF-8"),
        (b"B\0R\0", "has NUL bytes: is it UTF-16?"),
        (&"#".repeat((1 << 20) + 1).into_bytes(), "more than 1048576 bytes"),
    ] {
        world.request.env_files = vec![world.file("odd.env", bytes)];
        let problem = only(&world);
        assert!(problem.contains(why), "{problem}");
    }
    world.request.env_files.clear();
    world.request.instance = Some("none".to_owned());
    assert!(only(&world).contains("etc/none.env: cannot be read"));
    for name in ["", "../x", ".x", "a/b", "a b"] {
        world.request.instance = Some(name.to_owned());
        assert!(only(&world).starts_with("command line: --instance: is not a name"), "{name}");
    }
    world.request.instance = None;
    let world = world.variable("BRIDGE_ENV_FILE", "/no/such.env");
    assert!(only(&world).starts_with("/no/such.env: "));
}

#[test]
fn a_file_that_nobody_named_and_this_user_may_not_read() {
    let mut world = World::new(Purpose::Ask);
    let path = world.file_of_mode("etc/.env", "BRIDGE_LOG_LEVEL=debug", 0);
    if fs::read(&path).is_ok() {
        eprintln!("skipped: root may read everything");
        return;
    }
    let loaded = world.load();
    assert_eq!(loaded.sources.unreadable, Some(path));
    assert_eq!(loaded.for_common().unwrap().log_level, LogLevel::Info);
    for purpose in [Purpose::Run, Purpose::Check, Purpose::State] {
        world.request.purpose = purpose;
        let loaded = world.load();
        assert!(loaded.for_common().is_err() && shown(&loaded).contains("Permission denied"));
    }
}

#[test]
fn the_input_is_not_the_bridges_own_file_under_another_name() {
    let world = World::new(Purpose::Check);
    let state = world.path("state");
    fs::create_dir(&state).unwrap();
    std::os::unix::fs::symlink(&state, world.path("link")).unwrap();
    let text = format!(
        "BRIDGE_STATE_DIR={}\nBRIDGE_INPUT={}",
        state.display(),
        world.path("link/new/rejects.jsonl").display()
    );
    check(&text, Some("BRIDGE_INPUT"), Some(2), "read what it writes", COMMON);
    let beside = format!("BRIDGE_STATE_DIR={0}\nBRIDGE_INPUT={0}.jsonl", state.display());
    assert_eq!(shown(&World::of(&beside).load()), "");
}

#[test]
fn secrets_from_files() {
    let world = World::new(Purpose::Check);
    let login = "KAFKA_SASL_MECHANISM=PLAIN\nKAFKA_SASL_USERNAME=u\n";
    let load = |text: &str| World::of(&format!("{SASL}{login}{text}")).load();
    for (content, expected) in
        [("pa ss\n", "pa ss"), ("x\r\n", "x"), (" y ", " y "), ("z\n\n", "z\n")]
    {
        let path = world.file("secret", content);
        let loaded = load(&format!("KAFKA_SASL_PASSWORD_FILE = '{}'", path.display()));
        assert_eq!(shown(&loaded), "");
        assert_eq!(property(&loaded.for_run().unwrap(), "sasl.password"), Some(expected));
        let effective = effective(&loaded, "KAFKA_SASL_PASSWORD_FILE").unwrap();
        assert_eq!(effective.shown, "********");
        assert!(super::tests::effective(&loaded, "KAFKA_SASL_PASSWORD").is_none());
    }
    let pem = world.file("pem", "-----BEGIN\nx\n-----END\n");
    let text = format!(
        "KAFKA_SASL_PASSWORD=p\nKAFKA_CONF_SSL_KEY_PEM_FILE={0}\nKAFKA_CONF_SSL_CERTIFICATE_PEM_FILE={0}",
        pem.display()
    );
    let loaded = load(&text);
    assert_eq!(shown(&loaded), "");
    let settings = loaded.for_run().unwrap();
    assert_eq!(property(&settings, "ssl.key.pem"), Some("-----BEGIN\nx\n-----END"));

    for (content, mode, why) in [
        (&b"x\n"[..], 0o604, "others can read"),
        (b"\n", 0o600, "is empty"),
        (b"a\0b", 0o600, "has a NUL"),
        (b"\xff", 0o600, "not UTF-8"),
    ] {
        let path = world.file_of_mode("secret", content, mode);
        let loaded = load(&format!("KAFKA_SASL_PASSWORD_FILE={}", path.display()));
        let [problem] = loaded.problems.as_slice() else { panic!("{}", shown(&loaded)) };
        assert!(problem.why.contains(why), "{problem}");
    }
    let path = world.file("secret", "x");
    let loaded =
        load(&format!("KAFKA_SASL_PASSWORD=x\nKAFKA_SASL_PASSWORD_FILE={}", path.display()));
    assert!(shown(&loaded).contains("KAFKA_SASL_PASSWORD_FILE: stands beside KAFKA_SASL_PASSWORD"));
    assert!(loaded.for_run().is_err());
}

#[test]
fn a_file_with_a_secret_that_others_can_read() {
    let text =
        format!("{SASL}KAFKA_SASL_MECHANISM=PLAIN\nKAFKA_SASL_USERNAME=u\nKAFKA_SASL_PASSWORD=x\n");
    for (mode, expected) in [(0o600, 0), (0o640, 0), (0o644, 1), (0o660, 1), (0o602, 1)] {
        let mut world = World::new(Purpose::Check);
        world.request.env_files = vec![world.file_of_mode("a.env", &text, mode)];
        let loaded = world.load();
        assert_eq!(loaded.problems.len(), expected, "{mode:o}: {}", shown(&loaded));
        assert!(loaded.for_run().is_ok());
    }
    let mut world = World::new(Purpose::Check);
    world.request.env_files = vec![world.file_of_mode("a.env", KAFKA, 0o644)];
    assert_eq!(shown(&world.load()), "");
}

/// Everything that a configuration can be printed as.
fn printed(loaded: &Loaded) -> String {
    let list: Vec<String> = loaded.effective.iter().map(Effective::to_string).collect();
    format!(
        "{}\n{}\n{}\n{loaded:?}\n{:?}\n{:?}",
        loaded.sources,
        shown(loaded),
        list.join("\n"),
        loaded.for_run(),
        loaded.for_common()
    )
}

#[test]
fn no_secret_is_ever_printed() {
    let secret_keys: Vec<String> =
        KEYS.iter().filter(|key| key.is_secret()).map(|key| key.name.to_owned()).collect();
    let secret_properties = kafka_properties::PROPERTIES.iter().filter(|p| p.is_secret());
    let secrets: Vec<String> = secret_keys
        .into_iter()
        .chain(secret_properties.map(kafka_properties::Property::key))
        .collect();
    assert!(secrets.len() >= 7, "{secrets:?}");
    let beside = World::new(Purpose::Check);
    let file = beside.file("secret", "CANARY-file\n").display().to_string();
    let broken = beside.file("broken", "CANARY-\0").display().to_string();
    for mode in ["KAFKA", "SOCKETIO", "CANARY-mode-is-no-secret"] {
        let mode = mode.replace("CANARY-mode-is-no-secret", "neither");
        for secret in &secrets {
            for line in [
                format!("{secret}=CANARY-1"),
                format!("{secret}='CANARY-1' CANARY-2"),
                format!("{secret}='CANARY-1"),
                format!("{secret}:CANARY-1"),
                format!("{secret} CANARY-1"),
                format!("{secret}CANARY_1"),
                format!("{secret}CANARY_1=CANARY-2"),
                format!("'{secret}CANARY-1'=x"),
                format!("\"{secret}\"=CANARY-1"),
                format!("{secret}S=CANARY-1\n{secret}S=CANARY-2"),
                format!("{secret}=\"CANARY-1\\0\x07\""),
                format!("{secret}_FILE={file}"),
                format!("{secret}_FILE={broken}"),
                format!("{secret}_FILE=CANARY-1"),
                format!("{secret}_FILE=/CANARY-1"),
                format!("{secret}=CANARY-1\n{secret}_FILE={file}"),
                format!("BRIDGE_LOG_LEVEL='x\n{secret}=CANARY-1\nA='"),
                format!("APP_KEY='x\n{secret}=CANARY-1\nA='"),
                format!("KAFKA_CONF_CLIENT_ID='x\n{secret}=CANARY-1\nA='"),
                format!("A='\n{secret}='CANARY-1'\n"),
            ] {
                let text = format!(
                    "ORDER_EVENT_MODE={mode}\nKAFKA_BOOTSTRAP_SERVERS=b:1\n\
                     KAFKA_SECURITY_PROTOCOL=sasl_ssl\nKAFKA_SASL_MECHANISM=PLAIN\n\
                     KAFKA_SASL_USERNAME=u\n{line}\n"
                );
                let world = World::of(&text).variable(secret, "CANARY-environment");
                let printed = printed(&world.load());
                assert!(!printed.contains("CANARY"), "{line}: {printed}");
            }
        }
    }
}

#[test]
fn credentials_in_addresses_are_not_printed() {
    for line in [
        "KAFKA_BOOTSTRAP_SERVERS=u:CANARY@b:1",
        "KAFKA_BOOTSTRAP_SERVERS=u:CANARY,CANARY@b:1,c:1",
        "SOCKETIO_URL=http://u:CANARY@h/x",
        "SOCKETIO_URL=u:CANARY@h",
        "SOCKETIO_AUTH_URL=https://h/x?token=CANARY",
        "SOCKETIO_AUTH_URL=unix:/a.sock:/x?token=CANARY",
        "SOCKETIO_AUTH_URL='https://u:CANARY @h'",
        "KAFKA_CONF_BOOTSTRAP_SERVERS=CANARY",
        "KAFKA_CONF_SASL_OAUTHBEARER_CLIENT_SECRET=CANARY",
        "KAFKA_SASL_PASWORD=CANARY",
        "SOCKETIO_AUTH_TOKN=CANARY",
    ] {
        for mode in ["SOCKETIO", "KAFKA"] {
            let printed = printed(&World::of(&format!("ORDER_EVENT_MODE={mode}\n{line}")).load());
            assert!(!printed.contains("CANARY"), "{line}: {printed}");
        }
    }
}

#[test]
fn the_list_of_what_counts() {
    let text = "ORDER_EVENT_MODE=KAFKA\nKAFKA_BOOTSTRAP_SERVERS=b:1\nKAFKA_CONF_CLIENT_ID=me\n\
        SOCKETIO_MAX_CLIENTS=5\nSOCKETIO_PATH=\nAPP_KEY=x\nKAFKA_CONF_SSL_KEY_PEM=x\n";
    let world = World::of(text);
    let loaded = world.load();
    let keys: Vec<&str> = loaded.effective.iter().map(|effective| effective.key.as_str()).collect();
    let expected: Vec<&str> = KEYS
        .iter()
        .filter(|key| {
            !key.ignored && (key.scope != Scope::SocketIo || key.name == "SOCKETIO_MAX_CLIENTS")
        })
        .map(|key| key.name)
        .chain(["KAFKA_CONF_CLIENT_ID", "KAFKA_CONF_SSL_KEY_PEM"])
        .collect();
    assert_eq!(keys, expected);
    let line = |key| effective(&loaded, key).unwrap().to_string();
    let file = world.path("a.env");
    assert_eq!(
        line("KAFKA_CONF_CLIENT_ID"),
        format!("KAFKA_CONF_CLIENT_ID = 'me'  ({}:3)", file.display())
    );
    assert_eq!(line("BRIDGE_LOG_LEVEL"), "BRIDGE_LOG_LEVEL = 'info'  (default)");
    assert_eq!(line("KAFKA_SASL_PASSWORD"), "KAFKA_SASL_PASSWORD = ''  (default)");
    assert!(line("KAFKA_CONF_SSL_KEY_PEM").contains("= '********'"));
}

const SAMPLE: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/.sample.env"));

#[test]
fn the_sample_is_what_the_table_says() {
    assert_eq!(SAMPLE, sample_env());
}

#[test]
fn the_sample_has_every_key_once_and_is_valid_with_all_of_them() {
    let assigned = |text: &str| -> Vec<(String, String)> {
        let file = env_file::parse(text);
        assert!(file.unparseable.is_empty());
        file.assignments.into_iter().map(|a| (a.key, a.value.unwrap())).collect()
    };
    let open = assigned(SAMPLE);
    let expected = |open: bool| {
        let keys = KEYS.iter().filter(move |key| key.open == open);
        keys.map(|key| (key.name.to_owned(), key.default.to_owned())).collect::<Vec<_>>()
    };
    assert_eq!(open, expected(true));
    // What is commented out becomes an assignment; sentences stay comments.
    let is_key =
        |line: &&str| line.split(' ').next().is_some_and(|word| keys::find(word).is_some());
    let commented: Vec<&str> =
        SAMPLE.lines().filter_map(|line| line.strip_prefix("# ")).filter(is_key).collect();
    let uncommented = commented.join("\n");
    let mut commented = assigned(&uncommented);
    commented.retain(|(key, _)| key != "KAFKA_CONF_CLIENT_ID");
    assert_eq!(commented, expected(false));

    for text in [SAMPLE.to_owned(), format!("{SAMPLE}{uncommented}")] {
        let loaded = World::of(&text).load();
        assert_eq!(shown(&loaded), "");
        assert_eq!(loaded.for_run(), World::of("").load().for_run());
    }
}
