//! The settings as the rest of the bridge means them: every value checked, every default filled in.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use crate::domain::envelope::EventTypes;

use super::kafka::KafkaSettings;
use super::keys;
use super::problem::{Problem, Scope};
use super::socketio::SocketIoSettings;
use super::values::Values;

/// Where the events go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// To Socket.IO clients or to the app's own Socket.IO server.
    SocketIo,
    /// To a Kafka topic.
    Kafka,
}

impl Mode {
    /// `SOCKETIO` or `KAFKA`, as in `.env` and in the checkpoint's list of mode switches.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SocketIo => "SOCKETIO",
            Self::Kafka => "KAFKA",
        }
    }

    pub(super) fn scope(self) -> Scope {
        match self {
            Self::SocketIo => Scope::SocketIo,
            Self::Kafka => Scope::Kafka,
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where the first start of a state directory begins to read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StartAt {
    /// At the first byte.
    Beginning,
    /// Just after the last LF.
    End,
}

/// Where something is served.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Listen {
    /// Nowhere.
    Off,
    /// Port 0: a free one.
    Tcp(SocketAddr),
    /// Absolute, short enough for a socket.
    Unix(PathBuf),
}

/// The least important kind of line that is logged.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum LogLevel {
    /// What went wrong.
    Error,
    /// What may go wrong.
    Warn,
    /// What is worth knowing once.
    Info,
    /// What helps to find a fault.
    Debug,
    /// Everything.
    Trace,
}

/// How lines are logged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogFormat {
    /// Text on a terminal, lines with a priority under systemd.
    Auto,
    /// Text.
    Text,
    /// One JSON object a line.
    Json,
}

/// Everything that was set or not set, in the types that it is used in. Printing it with `{:?}`
/// shows no secret.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// `ORDER_EVENT_MODE`.
    pub mode: Mode,
    /// `BRIDGE_INPUT`, absolute: a file or named pipe that may not exist yet. Outside `state_dir`.
    pub input: PathBuf,
    /// `BRIDGE_STATE_DIR`, absolute.
    pub state_dir: PathBuf,
    /// `BRIDGE_START_AT`.
    pub start_at: StartAt,
    /// `BRIDGE_MAX_LINE_BYTES`: the longest line that passes, without its line end.
    pub max_line_bytes: usize,
    /// `BRIDGE_EVENT_TYPES` and `BRIDGE_IGNORE_EVENT_TYPES`.
    pub event_types: EventTypes,
    /// `BRIDGE_MAX_IN_FLIGHT`: what is read but not yet terminal, in records.
    pub in_flight_records: usize,
    /// `BRIDGE_MAX_IN_FLIGHT_BYTES`: the same in bytes; never less than `max_line_bytes`.
    pub in_flight_bytes: usize,
    /// `BRIDGE_CHECKPOINT_INTERVAL_MS`.
    pub checkpoint_interval: Duration,
    /// `BRIDGE_REJECTS_MAX_BYTES`: the size at which the rejects are rotated.
    pub rejects_max_bytes: u64,
    /// `BRIDGE_SHUTDOWN_TIMEOUT_MS`.
    pub shutdown_timeout: Duration,
    /// `BRIDGE_HTTP_LISTEN`.
    pub http_listen: Listen,
    /// `BRIDGE_LOG_LEVEL`.
    pub log_level: LogLevel,
    /// `BRIDGE_LOG_FORMAT`.
    pub log_format: LogFormat,
    /// `BRIDGE_FIFO_JOURNAL_MAX_BYTES`.
    pub fifo_journal_max_bytes: u64,
    /// What is for Kafka alone: in KAFKA mode, and then `None` only if something in it is wrong,
    /// which `run` never sees.
    pub kafka: Option<KafkaSettings>,
    /// What is for Socket.IO alone, likewise.
    pub socketio: Option<SocketIoSettings>,
}

/// The chosen mode; `None`: it is neither, which is reported.
pub(super) fn mode(values: &Values) -> Option<Mode> {
    match values.get("ORDER_EVENT_MODE")?.as_str() {
        "KAFKA" => Some(Mode::Kafka),
        _ => Some(Mode::SocketIo),
    }
}

/// The common part; `None`: something in it is wrong, which is reported.
pub(super) fn build(
    values: &Values,
    mode: Option<Mode>,
    problems: &mut Vec<Problem>,
) -> Option<Settings> {
    check_limits(values, problems);
    let input = absolute(values, "BRIDGE_INPUT", problems);
    let state_dir = absolute(values, "BRIDGE_STATE_DIR", problems);
    if let (Some(input), Some(state_dir)) = (&input, &state_dir) {
        check_paths(values, input, state_dir, problems);
    }
    let millis = |name| values.number(name).map(Duration::from_millis);
    Some(Settings {
        mode: mode?,
        input: input?,
        state_dir: state_dir?,
        start_at: match values.get("BRIDGE_START_AT")?.as_str() {
            "end" => StartAt::End,
            _ => StartAt::Beginning,
        },
        max_line_bytes: values.number("BRIDGE_MAX_LINE_BYTES")?,
        event_types: EventTypes::new(
            list(values, "BRIDGE_EVENT_TYPES")?,
            list(values, "BRIDGE_IGNORE_EVENT_TYPES")?,
        ),
        in_flight_records: values.number("BRIDGE_MAX_IN_FLIGHT")?,
        in_flight_bytes: values.number("BRIDGE_MAX_IN_FLIGHT_BYTES")?,
        checkpoint_interval: millis("BRIDGE_CHECKPOINT_INTERVAL_MS")?,
        rejects_max_bytes: values.number("BRIDGE_REJECTS_MAX_BYTES")?,
        shutdown_timeout: millis("BRIDGE_SHUTDOWN_TIMEOUT_MS")?,
        http_listen: listen(&values.get("BRIDGE_HTTP_LISTEN")?)?,
        log_level: log_level(&values.get("BRIDGE_LOG_LEVEL")?),
        log_format: match values.get("BRIDGE_LOG_FORMAT")?.as_str() {
            "text" => LogFormat::Text,
            "json" => LogFormat::Json,
            _ => LogFormat::Auto,
        },
        fifo_journal_max_bytes: values.number("BRIDGE_FIFO_JOURNAL_MAX_BYTES")?,
        kafka: None,
        socketio: None,
    })
}

fn list(values: &Values, name: &str) -> Option<Vec<String>> {
    let text = values.get(name)?;
    Some(text.split(',').filter(|item| !item.is_empty()).map(str::to_owned).collect())
}

fn log_level(word: &str) -> LogLevel {
    match word {
        "error" => LogLevel::Error,
        "warn" | "warning" => LogLevel::Warn,
        "debug" => LogLevel::Debug,
        "trace" => LogLevel::Trace,
        _ => LogLevel::Info,
    }
}

/// The meaning of a canonical listen address.
pub(super) fn listen(text: &str) -> Option<Listen> {
    match text.strip_prefix("unix:") {
        Some(path) => Some(Listen::Unix(path.into())),
        None if text == "off" => Some(Listen::Off),
        None => text.parse().ok().map(Listen::Tcp),
    }
}

/// An error about a well-formed value of `name`, with the value and an example.
pub(super) fn problem(values: &Values, name: &str, scope: Scope, why: String) -> Problem {
    let problem = Problem::about(name, scope, &values.origin(name), why)
        .with_example(keys::example_line(name));
    match values.get(name) {
        Some(value) if keys::is_printable(name) => {
            problem.with_value(&keys::shown_value(name, &value))
        }
        _ => problem,
    }
}

fn check_limits(values: &Values, problems: &mut Vec<Problem>) {
    let (limit, line) = ("BRIDGE_MAX_IN_FLIGHT_BYTES", "BRIDGE_MAX_LINE_BYTES");
    let (Some(limit_bytes), Some(line_bytes)) = (values.number::<u64>(limit), values.number(line))
    else {
        return;
    };
    if limit_bytes < line_bytes {
        // The one that somebody wrote is the one to look at; the limit, if it was both or none.
        let (at, other, bytes) = if values.was_given(limit) || !values.was_given(line) {
            (limit, line, line_bytes)
        } else {
            (line, limit, limit_bytes)
        };
        let relation = if at == limit { "less" } else { "more" };
        let why = format!(
            "is {relation} than {other} ({bytes}, {}): the longest line would never fit",
            values.origin(other)
        );
        let example = format!("{limit} = '{}'", line_bytes.saturating_mul(8));
        problems.push(problem(values, at, Scope::Common, why).with_example(Some(example)));
    }
}

/// A relative path counts from the working directory, as for any other program.
fn absolute(values: &Values, name: &str, problems: &mut Vec<Problem>) -> Option<PathBuf> {
    let text = values.get(name)?;
    let path = std::path::absolute(&text)
        .map_err(|error| format!("is relative to a directory that cannot be found: {error}"));
    match path {
        Ok(path) => Some(path),
        Err(why) => {
            problems.push(problem(values, name, Scope::Common, why));
            None
        }
    }
}

/// The bridge must not read what it writes: it would feed itself without end.
fn check_paths(values: &Values, input: &Path, state_dir: &Path, problems: &mut Vec<Problem>) {
    let mut report = |name: &str, why: String| {
        problems.push(problem(values, name, Scope::Common, why));
    };
    if values.get("BRIDGE_INPUT").is_some_and(|text| text.ends_with('/')) {
        report("BRIDGE_INPUT", "ends with /: it has to name a file, not a directory".to_owned());
        return;
    }
    let (input, state_dir) = (real(input), real(state_dir));
    if input.starts_with(&state_dir) {
        let why = format!(
            "is in the bridge's own state directory (BRIDGE_STATE_DIR, {}): it would read what it writes",
            values.origin("BRIDGE_STATE_DIR")
        );
        report("BRIDGE_INPUT", why);
    } else if state_dir.starts_with(&input) {
        let why = "is in a directory that is the input (BRIDGE_INPUT): that has to be a file";
        report("BRIDGE_STATE_DIR", why.to_owned());
    }
    let http = values.get("BRIDGE_HTTP_LISTEN").and_then(|text| listen(&text));
    if let Some(Listen::Unix(socket)) = http
        && real(&socket) == input
    {
        report("BRIDGE_HTTP_LISTEN", "is the input (BRIDGE_INPUT)".to_owned());
    }
}

/// The path without links, `.` and `..`, as far as it exists.
fn real(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            // A link has to be followed before its `..` can be taken.
            Component::ParentDir => {
                plain = plain.canonicalize().unwrap_or(plain);
                plain.pop();
            }
            other => plain.push(other),
        }
    }
    for existing in plain.ancestors() {
        if let (Ok(existing_real), Ok(rest)) =
            (existing.canonicalize(), plain.strip_prefix(existing))
        {
            // Joining an empty rest would add a slash.
            return if rest == Path::new("") { existing_real } else { existing_real.join(rest) };
        }
    }
    plain
}
