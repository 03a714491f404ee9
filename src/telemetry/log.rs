//! Log lines on standard error: sentences with fields, never a payload, never a secret.
//!
//! Three formats: text for people, `<N>`-prefixed text for the journal, JSON for collectors. A
//! log line that can't be written is dropped: a full pipe behind standard error must not stop
//! delivery, so lines go through a thread with a bounded queue.

use std::fmt::{self, Write as _};
use std::io::{self, Write as _};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::{Context, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::platform::clock::{Clock as _, SystemClock, format_utc};
use crate::platform::panics::on_purpose;

/// How many lines may wait for a slow reader.
const QUEUED_LINES: usize = 1024;

/// How a line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `2026-01-29T10:30:45.123Z  INFO message key=value`
    Text,
    /// `<6>message key=value`: the journal adds the time.
    Journal,
    /// One JSON object a line.
    Json,
}

/// Keeps the writing thread reachable; [`Log::flush`] before the process ends.
pub struct Log {
    lines: SyncSender<Job>,
}

enum Job {
    Line(String),
    Flush(SyncSender<()>),
}

/// Installs the log for the whole process.
///
/// # Errors
/// If the thread can't be started or a log is installed already.
pub fn install(level: LevelFilter, format: Format) -> io::Result<Log> {
    let (lines, jobs) = sync_channel(QUEUED_LINES);
    std::thread::Builder::new().name("log".to_owned()).spawn(move || write_lines(&jobs))?;
    let layer = Lines { lines: lines.clone(), format };
    tracing_subscriber::registry()
        .with(layer.with_filter(level))
        .try_init()
        .map_err(io::Error::other)?;
    Ok(Log { lines })
}

impl Log {
    /// Waits until what was logged is written, at most a second: the reader may be stuck.
    pub fn flush(&self) {
        let (done, wait) = sync_channel(1);
        if self.lines.try_send(Job::Flush(done)).is_ok() {
            let _ = wait.recv_timeout(Duration::from_secs(1));
        }
    }
}

fn write_lines(jobs: &Receiver<Job>) {
    while let Ok(job) = jobs.recv() {
        on_purpose("log");
        match job {
            // Nobody reads: nothing to do about it.
            Job::Line(line) => drop(io::stderr().write_all(line.as_bytes())),
            Job::Flush(done) => drop(done.try_send(())),
        }
    }
}

struct Lines {
    lines: SyncSender<Job>,
    format: Format,
}

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let level = *event.metadata().level();
        let line = match self.format {
            Format::Text => {
                let mut text = Text::default();
                event.record(&mut text);
                let time = format_utc(SystemClock.unix_ms());
                format!("{time} {level:>5} {}{}\n", text.message, text.fields)
            }
            Format::Journal => {
                let mut text = Text::default();
                event.record(&mut text);
                format!("<{}>{}{}\n", priority(level), text.message, text.fields)
            }
            Format::Json => {
                let mut json = Json::default();
                json.0.insert("time".into(), format_utc(SystemClock.unix_ms()).into());
                json.0.insert("level".into(), level.as_str().to_ascii_lowercase().into());
                event.record(&mut json);
                format!("{}\n", Value::Object(json.0))
            }
        };
        // A full queue means that nobody reads; waiting for it would stop delivery.
        let _ = self.lines.try_send(Job::Line(line));
    }
}

/// Syslog priorities, as `sd-daemon(3)` wants them.
fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        _ => 7,
    }
}

#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Visit for Text {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            escape_into(&mut self.message, value);
            return;
        }
        let _ = write!(self.fields, " {}=", field.name());
        let plain =
            !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"');
        if plain {
            self.fields.push_str(value);
        } else {
            self.fields.push('"');
            escape_into(&mut self.fields, &value.replace('"', "\\\""));
            self.fields.push('"');
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

/// Texts from outside (file names, a broker's words) must not forge lines or move cursors.
fn escape_into(line: &mut String, text: &str) {
    for character in text.chars() {
        if character.is_control() || matches!(character, '\u{2028}' | '\u{2029}') {
            line.extend(character.escape_default());
        } else {
            line.push(character);
        }
    }
}

#[derive(Default)]
struct Json(Map<String, Value>);

impl Visit for Json {
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.insert(field.name().into(), value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.insert(field.name().into(), value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.insert(field.name().into(), value.into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().into(), value.into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logged(format: Format, log: impl FnOnce()) -> Vec<String> {
        let (lines, jobs) = sync_channel(8);
        let subscriber = tracing_subscriber::registry().with(Lines { lines, format });
        tracing::subscriber::with_default(subscriber, log);
        jobs.try_iter()
            .filter_map(|job| if let Job::Line(line) = job { Some(line) } else { None })
            .collect()
    }

    #[test]
    fn sec_04_text_from_outside_stays_on_its_line() {
        let hostile = "a\nb\x1b[2J \u{2028}\"";
        let lines = logged(Format::Journal, || {
            tracing::warn!(path = hostile, n = 5, "cannot read {hostile}");
        });
        assert_eq!(
            lines,
            [
                "<4>cannot read a\\nb\\u{1b}[2J \\u{2028}\" path=\"a\\nb\\u{1b}[2J \\u{2028}\\\"\" n=5\n"
            ]
        );
    }

    #[test]
    fn json_lines_are_json() {
        let lines = logged(Format::Json, || tracing::info!(offset = 7, path = "a\nb", "resumed"));
        let line: Value = serde_json::from_str(&lines[0]).unwrap();
        assert_eq!(line["message"], "resumed");
        assert_eq!(
            (&line["offset"], &line["path"], &line["level"]),
            (&7.into(), &"a\nb".into(), &"info".into())
        );
    }

    #[test]
    fn pr_14_a_full_queue_drops_lines_and_does_not_wait() {
        let lines = logged(Format::Text, || (0..20).for_each(|n| tracing::info!(n, "line")));
        assert_eq!(lines.len(), 8);
    }
}
