//! Is the daemon alive, is it ready: decided from what the owner says and from the time alone.

use std::time::{Duration, Instant};

use super::snapshot::{SinkStatus, Snapshot};

/// How much later than it said the owner may turn. Idle, it turns once a second.
const OVERDUE_MAX: Duration = Duration::from_secs(5);

/// How long an input may be missing before that is trouble: the app creates it with its first event.
const MISSING_MAX: Duration = Duration::from_mins(1);

/// Whether the owner's loop turns.
///
/// # Errors
/// What to tell, if it does not.
pub fn alive(overdue: Duration) -> Result<(), String> {
    if overdue <= OVERDUE_MAX {
        return Ok(());
    }
    let seconds = overdue.as_secs();
    Err(format!("the owner's loop does not turn: its turn has been due for {seconds} s"))
}

/// Everything that keeps events from getting through, or would repeat them.
pub(super) fn troubles(snapshot: &Snapshot, overdue: Duration, now: Instant) -> Vec<Trouble> {
    let mut found = Vec::new();
    let mut other = |text: String| found.push(Trouble::Other(text));
    if let Err(text) = alive(overdue) {
        other(text);
    }
    match snapshot.state {
        "" => other("starting".to_owned()),
        "draining" => other("stopping".to_owned()),
        _ => {}
    }
    if snapshot.sink.state == "down" {
        other(format!("sink: {}", sink(&snapshot.sink)));
    }
    if let Some(alarm) = &snapshot.checkpoint.alarm {
        other(format!("checkpoint: it can't be written: {alarm}"));
    }
    if let Some(alarm) = &snapshot.rejects.alarm {
        other(format!("rejects: they can't be written: {alarm}"));
    }
    if let Some(alarm) = &snapshot.input.alarm {
        other(format!("input: {alarm}"));
    }
    found.extend(input(snapshot, now));
    found
}

/// Something in the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// Told whole.
    Other(String),
    /// The input, which is worth a closer look: who may what on the way to it.
    Input(String),
}

impl Trouble {
    pub(super) fn text(&self) -> &str {
        match self {
            Self::Other(text) | Self::Input(text) => text,
        }
    }
}

fn sink(sink: &SinkStatus) -> String {
    let reason = sink.reason.as_deref().unwrap_or("down");
    let since = sink.since.as_ref().map(|since| format!(", since {since}"));
    format!("{} is down: {reason}{}", sink.kind, since.unwrap_or_default())
}

/// A file that is not there yet is waited for; one that can't be read is trouble at once.
fn input(snapshot: &Snapshot, now: Instant) -> Option<Trouble> {
    let waited = now.saturating_duration_since(snapshot.waiting_since?);
    let kind = snapshot.input.kind;
    let patience = match kind {
        "wrong_type" | "permission_denied" | "io_error" => Duration::ZERO,
        _ => MISSING_MAX,
    };
    (waited >= patience).then(|| {
        let (path, seconds) = (snapshot.input.path.display(), waited.as_secs());
        Trouble::Input(format!("input: {path}: {kind} for {seconds} s"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn following() -> Snapshot {
        let mut snapshot = Snapshot { state: "following", ..Snapshot::default() };
        snapshot.input.kind = "file";
        snapshot.sink.state = "up";
        snapshot
    }

    fn texts(snapshot: &Snapshot, now: Instant) -> Vec<String> {
        let found = troubles(snapshot, Duration::ZERO, now);
        found.iter().map(|trouble| trouble.text().to_owned()).collect()
    }

    #[test]
    fn alive_is_who_turns_when_it_is_due_or_a_little_later() {
        assert_eq!(alive(Duration::ZERO), Ok(()));
        assert_eq!(alive(Duration::from_secs(5)), Ok(()));
        assert!(alive(Duration::from_secs(6)).unwrap_err().contains("for 6 s"));
    }

    #[test]
    fn each_trouble_is_told_and_a_slow_client_is_none() {
        let now = Instant::now();
        assert_eq!(texts(&following(), now), [""; 0]);
        let mut snapshot = following();
        snapshot.sink.state = "degraded";
        assert_eq!(texts(&snapshot, now), [""; 0], "the file is the buffer");
        snapshot.sink.state = "down";
        snapshot.sink.kind = "kafka";
        snapshot.sink.reason = Some("no broker".to_owned());
        snapshot.checkpoint.alarm = Some("no space".to_owned());
        snapshot.rejects.alarm = Some("no room".to_owned());
        snapshot.input.alarm = Some("the journal is full".to_owned());
        let told = texts(&snapshot, now);
        assert_eq!(
            told,
            [
                "sink: kafka is down: no broker",
                "checkpoint: it can't be written: no space",
                "rejects: they can't be written: no room",
                "input: the journal is full",
            ]
        );
        assert_eq!(texts(&Snapshot::default(), now), ["starting"]);
        assert_eq!(texts(&Snapshot { state: "draining", ..following() }, now), ["stopping"]);
        let late = troubles(&following(), Duration::from_mins(1), now);
        assert!(late[0].text().contains("does not turn"));
    }

    #[test]
    fn a_missing_input_is_trouble_after_a_minute_and_an_unreadable_one_at_once() {
        let now = Instant::now();
        let mut snapshot = following();
        snapshot.state = "waiting_for_input";
        snapshot.input.path = "/events/order_events.jsonl".into();
        snapshot.input.kind = "missing";
        snapshot.waiting_since = Some(now);
        for (later, kind, expected) in [
            (59, "missing", None),
            (60, "missing", Some("missing for 60 s")),
            (0, "permission_denied", Some("permission_denied for 0 s")),
            (0, "wrong_type", Some("wrong_type for 0 s")),
            (0, "io_error", Some("io_error for 0 s")),
        ] {
            snapshot.input.kind = kind;
            let told = texts(&snapshot, now + Duration::from_secs(later));
            let expected: Vec<String> = expected
                .map(|text| format!("input: /events/order_events.jsonl: {text}"))
                .into_iter()
                .collect();
            assert_eq!(told, expected, "{kind} after {later} s");
        }
        snapshot.waiting_since = None;
        assert_eq!(texts(&snapshot, now + Duration::from_mins(5)), [""; 0], "it is back");
    }
}
