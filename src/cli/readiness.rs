//! `run` under systemd: when it is ready, whether it lives, and its line in `systemctl status`.

use std::fmt::Write as _;
use std::io;
use std::time::Instant;

use crate::platform::panics::on_purpose;
use crate::service::readiness::{self, Condition};
use crate::telemetry::health::alive;
use crate::telemetry::snapshot::{Latest, Snapshot};

/// Begins to tell. Ready is who has turned once: by then the configuration is accepted, the lock is
/// held and the input was looked at; the other side may be down for days. Alive is who would be so
/// for `/healthz`.
pub(super) fn tell(latest: &Latest) -> io::Result<()> {
    let latest = latest.clone();
    readiness::start(move || {
        on_purpose("systemd");
        Condition {
            ready: latest.has_turned(),
            alive: alive(latest.overdue(Instant::now())).is_ok(),
            status: line(&latest.get()),
        }
    })
}

/// What it does, how far behind it is, and what is wrong.
fn line(snapshot: &Snapshot) -> String {
    let (input, sink) = (&snapshot.input, &snapshot.sink);
    let mut line = format!("{}: {}", snapshot.mode, snapshot.state.replace('_', " "));
    // Writing into a text does not fail.
    if let Some(reason) = &snapshot.reason {
        let _ = write!(line, " ({reason})");
    }
    let _ = write!(line, ", {} bytes behind, sink {}", input.lag_bytes, sink.state);
    if let Some(reason) = &sink.reason {
        let _ = write!(line, ": {reason}");
    }
    if snapshot.checkpoint.alarm.is_some() {
        line.push_str("; ALARM: the checkpoint can't be written");
    }
    if snapshot.rejects.alarm.is_some() {
        line.push_str("; ALARM: rejects can't be written");
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_what_it_does_how_far_behind_it_is_and_what_is_wrong() {
        let mut snapshot = Snapshot { mode: "KAFKA", state: "following", ..Snapshot::default() };
        snapshot.sink.state = "up";
        assert_eq!(line(&snapshot), "KAFKA: following, 0 bytes behind, sink up");
        snapshot.state = "waiting_for_input";
        snapshot.reason = Some("missing".to_owned());
        snapshot.input.lag_bytes = 12;
        snapshot.sink.state = "down";
        snapshot.sink.reason = Some("no broker".to_owned());
        snapshot.checkpoint.alarm = Some("no space".to_owned());
        assert_eq!(
            line(&snapshot),
            "KAFKA: waiting for input (missing), 12 bytes behind, sink down: no broker; \
             ALARM: the checkpoint can't be written"
        );
    }
}
