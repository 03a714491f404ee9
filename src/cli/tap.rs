//! `tap`: the events as they come, or the rejects, for a person at a terminal.
//!
//! Best effort: linemux follows by name, knows no offsets, and may tear a line that is written in pieces. What
//! has to arrive is the daemon's to bring.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::Path;
use std::time::Duration;

use linemux::MuxedLines;
use serde_json::Value;

use super::args::{Arguments, Tap};
use super::{Exit, complain, complain_config, follow, load, note};
use crate::config::Purpose;
use crate::domain::envelope::{EventTypes, Verdict, validate};
use crate::service::signals;
use crate::sink::rejects::{Entry, REJECTS};

/// Parts of names under which secrets stand, and whole names.
const SECRET_PARTS: [&str; 9] = [
    "password",
    "passwd",
    "secret",
    "token",
    "api_key",
    "apikey",
    "authorization",
    "cookie",
    "otp",
];
const SECRET_NAMES: [&str; 4] = ["pin", "pwd", "session", "session_id"];

/// What stands in the place of a secret.
const MASK: &str = "***";

/// How often it is looked whether there still is a directory to follow in.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Follows until Ctrl-C.
pub(super) fn tap(arguments: &Arguments, options: &Tap) -> Exit {
    let settings = match load(arguments, Purpose::State).for_common() {
        Ok(settings) => settings,
        Err(problems) => return complain_config(&problems),
    };
    let path = if options.rejects {
        settings.state_dir.join(REJECTS)
    } else {
        follow::followed(&settings)
    };
    // A person who has seen enough is no error.
    let ended = signals::listen(|| std::process::exit(Exit::Ok as i32), || ());
    if let Err(error) = ended {
        return complain(&error, Exit::Io);
    }
    note(format_args!("following {}; Ctrl-C ends", path.display()));
    let view = View { options, types: &settings.event_types, colour: io::stdout().is_terminal() };
    match follow_lines(&path, &view) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Ok,
        Err(error) => complain(&format_args!("{}: {error}", path.display()), Exit::Io),
        Ok(()) => Exit::Ok,
    }
}

fn follow_lines(path: &Path, view: &View<'_>) -> io::Result<()> {
    end_without_directory(path)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut lines = MuxedLines::new()?;
        lines.add_file(path).await?;
        loop {
            match lines.next_line().await {
                Ok(Some(line)) => {
                    if let Some(text) = view.show(line.line()) {
                        writeln!(io::stdout(), "{text}")?;
                    }
                }
                Ok(None) => return Ok(()),
                // A line that is no text.
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    writeln!(io::stdout(), "(a line that is not UTF-8)")?;
                }
                Err(error) => return Err(error),
            }
        }
    })
}

/// Where the directory is gone, linemux turns for ever and never comes back: a thread of its own ends that.
fn end_without_directory(path: &Path) -> io::Result<()> {
    let path = path.to_owned();
    let watch = move || {
        while path.parent().is_none_or(Path::is_dir) {
            std::thread::sleep(LOOK_INTERVAL);
        }
        let exit = complain(&format_args!("{}: its directory is gone", path.display()), Exit::Io);
        std::process::exit(exit as i32);
    };
    std::thread::Builder::new().name("directory".to_owned()).spawn(watch).map(drop)
}

/// How a person wants it.
struct View<'a> {
    options: &'a Tap,
    types: &'a EventTypes,
    colour: bool,
}

impl View<'_> {
    /// The line for a person; none if it is not asked for.
    fn show(&self, line: &str) -> Option<String> {
        if self.options.rejects { self.reject(line) } else { self.event(line) }
    }

    fn event(&self, line: &str) -> Option<String> {
        let event: Value = match serde_json::from_str(line) {
            Ok(event) => event,
            Err(_) if self.options.event_type.is_some() || self.options.user.is_some() => {
                return None;
            }
            Err(_) => return Some(self.bad(line)),
        };
        let field = |name: &str| event[name].as_str().unwrap_or("?").to_owned();
        let (event_type, user) = (field("event_type"), field("user_id"));
        let is_asked_for =
            |asked: &Option<String>, is: &str| asked.as_deref().is_none_or(|it| it == is);
        if !is_asked_for(&self.options.event_type, &event_type)
            || !is_asked_for(&self.options.user, &user)
        {
            return None;
        }
        let mut data = event["data"].clone();
        if !self.options.unmasked {
            mask(&mut data);
        }
        let mark = match validate(line.as_bytes(), self.types) {
            Verdict::Valid(_) => String::new(),
            Verdict::Filtered => self.paint("2", " (filtered)"),
            Verdict::Rejected(rejection) => {
                self.paint("31", &format!(" (rejected: {})", rejection.reason.as_str()))
            }
        };
        Some(format!(
            "{}  {}  {}  {}{mark}",
            self.paint("2", &harmless(&field("timestamp"))),
            self.paint("36", &harmless(&event_type)),
            self.paint("33", &harmless(&user)),
            harmless(&data.to_string()),
        ))
    }

    fn bad(&self, line: &str) -> String {
        let reason = match validate(line.as_bytes(), self.types) {
            Verdict::Rejected(rejection) => rejection.reason.as_str(),
            Verdict::Valid(_) | Verdict::Filtered => "not shown",
        };
        self.paint("31", &format!("({} bytes that are no event: {reason})", line.len()))
    }

    fn reject(&self, line: &str) -> Option<String> {
        let entry: Entry = serde_json::from_str(line).ok()?;
        Some(format!(
            "{}  {}  {}  offset {}, {} bytes: {}",
            self.paint("2", &harmless(&entry.rejected_at)),
            self.paint("31", &harmless(&entry.reason)),
            harmless(&entry.id),
            entry.offset,
            entry.length,
            harmless(&entry.detail),
        ))
    }

    fn paint(&self, colour: &str, text: &str) -> String {
        if self.colour { format!("\u{1b}[{colour}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

/// Hides what stands under the names of secrets, at any depth.
fn mask(value: &mut Value) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                if is_secret(name) {
                    *member = MASK.into();
                } else {
                    mask(member);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(mask),
        _ => {}
    }
}

fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase().replace('-', "_");
    SECRET_NAMES.contains(&name.as_str()) || SECRET_PARTS.iter().any(|part| name.contains(part))
}

/// What would move the cursor, or write from right to left, is shown as an escape.
fn harmless(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for char in text.chars() {
        let moves = char.is_control()
            || matches!(char, '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if moves {
            // Writing to a string can't fail.
            let _ = write!(shown, "\\u{:04x}", u32::from(char));
        } else {
            shown.push(char);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(line: &str, change: impl FnOnce(&mut Tap)) -> Option<String> {
        let mut options = Tap { rejects: false, event_type: None, user: None, unmasked: false };
        change(&mut options);
        View { options: &options, types: &EventTypes::default(), colour: false }.show(line)
    }

    const EVENT: &str = r#"{"event_type":"order_event","timestamp":"2026-01-29T10:30:45Z","user_id":"ann","source":"s","data":{"a":1,"Api-Key":"k","deep":[{"totp":"123"}]}}"#;

    #[test]
    fn secrets_in_data_are_masked_at_any_depth_unless_they_are_asked_for() {
        let text = shown(EVENT, |_| ()).unwrap();
        assert_eq!(
            text,
            r#"2026-01-29T10:30:45Z  order_event  ann  {"Api-Key":"***","a":1,"deep":[{"totp":"***"}]}"#
        );
        assert!(shown(EVENT, |tap| tap.unmasked = true).unwrap().contains(r#""totp":"123""#));
    }

    #[test]
    fn only_what_is_asked_for_is_shown() {
        let with = |event_type: Option<&str>, user: Option<&str>| {
            let owned = |it: Option<&str>| it.map(str::to_owned);
            shown(EVENT, |tap| (tap.event_type, tap.user) = (owned(event_type), owned(user)))
                .is_some()
        };
        assert!(with(Some("order_event"), Some("ann")));
        assert!(!with(Some("analyzer_update"), None));
        assert!(!with(None, Some("bob")));
    }

    #[test]
    fn what_is_no_event_is_told_and_not_shown_and_nothing_moves_the_cursor() {
        let text = shown("password=hunter2", |_| ()).unwrap();
        assert_eq!(text, "(16 bytes that are no event: not_json)");
        let evil = EVENT.replace("ann", "\\u001b[2J\\u009b2J\\u202e");
        let text = shown(&evil, |_| ()).unwrap();
        assert!(!text.chars().any(char::is_control), "{text}");
        assert!(text.contains(r"\u001b[2J"), "{text}");
        assert!(
            shown(&EVENT.replace("order_event", "new"), |_| ())
                .unwrap()
                .ends_with("(rejected: unknown_event_type)")
        );
    }
}
