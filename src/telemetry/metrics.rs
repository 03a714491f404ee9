//! Which metrics there are: everything that a snapshot says in numbers. docs/metrics.md lists them.

use std::time::Duration;

use super::openmetrics::{Dialect, Page};
use super::snapshot::Snapshot;
use crate::platform::process::Usage;

/// What the page says beyond the snapshot.
pub(super) struct Beyond {
    /// Nothing is in the way.
    pub ready: bool,
    /// For how long the owner's turn has been due.
    pub overdue: Duration,
    /// What the process takes.
    pub usage: Usage,
    /// Size of all files of rejected lines; none: their file system does not answer.
    pub rejects_bytes: Option<u64>,
    /// When it began, in seconds since 1970.
    pub began: f64,
}

/// The page.
pub(super) fn page(snapshot: &Snapshot, beyond: &Beyond, dialect: Dialect) -> String {
    let mut page = Page::new(dialect);
    about(&mut page, snapshot, beyond);
    ledger(&mut page, snapshot);
    rejects(&mut page, snapshot, beyond);
    input(&mut page, snapshot);
    sink(&mut page, snapshot);
    checkpoint(&mut page, snapshot);
    latency(&mut page, snapshot);
    process(&mut page, beyond);
    page.end()
}

macro_rules! name {
    ($name:literal) => {
        concat!("openalgo_bridge_", $name)
    };
}

fn about(page: &mut Page, snapshot: &Snapshot, beyond: &Beyond) {
    page.info(name!("build"), "The version that runs.").sample(&[("version", snapshot.version)], 1);
    page.gauge(name!("mode"), "Where events go: 1 for the mode that is set.").states(
        "mode",
        &["SOCKETIO", "KAFKA"],
        snapshot.mode,
    );
    page.gauge(name!("state"), "What the daemon does: 1 for the state that it is in.").states(
        "state",
        &["waiting_for_input", "following", "draining", "blocked"],
        snapshot.state,
    );
    page.gauge(
        name!("ready"),
        "1 while neither input nor sink nor state is in trouble, as /readyz.",
    )
    .value(u8::from(beyond.ready));
    page.gauge(
        name!("owner_overdue_seconds"),
        "For how long the owner's loop should have turned; 0 while it turns in time.",
    )
    .value(beyond.overdue.as_secs_f64());
}

fn ledger(page: &mut Page, snapshot: &Snapshot) {
    let (bytes, lines) = (&snapshot.ledger.bytes, &snapshot.ledger.lines);
    page.counter(name!("read_bytes"), "Bytes read, over all restarts.").value(bytes.read);
    page.counter(name!("read_lines"), "Lines read, over all restarts.").value(lines.read);
    page.counter(
        name!("settled_bytes"),
        "Bytes that reached their end, by class; with the pending ones the sum is what was read.",
    )
    .sample(&[("class", "delivered")], bytes.delivered)
    .sample(&[("class", "rejected")], bytes.rejected)
    .sample(&[("class", "filtered")], bytes.filtered)
    .sample(&[("class", "blank")], bytes.blank);
    page.counter(name!("settled_lines"), "Lines that reached their end, by class.")
        .sample(&[("class", "delivered")], lines.delivered)
        .sample(&[("class", "rejected")], lines.rejected)
        .sample(&[("class", "filtered")], lines.filtered)
        .sample(&[("class", "blank")], lines.blank);
    page.gauge(name!("pending_bytes"), "Bytes read and not settled.").value(bytes.pending);
    page.gauge(name!("pending_lines"), "Lines read and not settled.").value(lines.pending);
    page.counter(name!("lost_bytes"), "Bytes that were never read and can no longer be.")
        .value(bytes.lost);
    let requeued = &snapshot.ledger.requeued;
    page.counter(name!("requeued_lines"), "Rejected lines that were sent again.")
        .value(requeued.lines);
}

fn rejects(page: &mut Page, snapshot: &Snapshot, beyond: &Beyond) {
    let mut rejects =
        page.counter(name!("rejects"), "Lines put aside since the daemon started, by reason.");
    for (reason, lines) in snapshot.rejects.since_start.iter() {
        rejects = rejects.sample(&[("reason", reason.as_str())], lines);
    }
    page.gauge(name!("rejects_alarm"), "1 while rejected lines can't be written.")
        .value(u8::from(snapshot.rejects.alarm.is_some()));
    if let Some(bytes) = beyond.rejects_bytes {
        page.gauge(
            name!("rejects_files_bytes"),
            "Size of all files of rejected lines; an admin deletes those that are full.",
        )
        .value(bytes);
    }
}

fn input(page: &mut Page, snapshot: &Snapshot) {
    let input = &snapshot.input;
    page.gauge(name!("input_size_bytes"), "Size of the file that is followed.").value(input.size);
    page.gauge(name!("input_read_offset_bytes"), "How far it was read.").value(input.read);
    page.gauge(name!("lag_bytes"), "Bytes in the files that are not settled.")
        .value(input.lag_bytes);
    page.gauge(
        name!("lag_seconds"),
        "Age of the oldest line that was read and is not settled; 0 if there is none.",
    )
    .value(input.lag_seconds);
    page.gauge(name!("held_files"), "Input files that are open, the live one included.")
        .value(input.held_files);
    page.gauge(name!("waiting_files"), "Rotated files that wait until fewer are open.")
        .value(input.waiting_files);
    page.gauge(name!("input_alarm"), "1 while a named pipe is not read and its writers wait.")
        .value(u8::from(input.alarm.is_some()));
    if let Some(syncs) = input.journal_syncs {
        page.counter(
            name!("journal_syncs"),
            "How often the journal of a named pipe was made durable.",
        )
        .value(syncs);
    }
    if let Some(bytes) = input.journal_bytes {
        page.gauge(
            name!("journal_bytes"),
            "What the journal of a named pipe holds, delivered or not.",
        )
        .value(bytes);
    }
}

fn sink(page: &mut Page, snapshot: &Snapshot) {
    let sink = &snapshot.sink;
    page.gauge(name!("sink_state"), "How the other side is: 1 for the state that holds.").states(
        "state",
        &["up", "degraded", "down"],
        sink.state,
    );
    page.gauge(name!("in_flight_lines"), "Lines handed to the sink and not settled.")
        .value(sink.in_flight);
    page.counter(name!("retries"), "Lines sent again since the daemon started.")
        .value(sink.retries);
    if let Some(clients) = sink.clients {
        page.gauge(name!("clients"), "Socket.IO clients that get events.").value(clients);
        page.counter(
            name!("delivered_to_nobody_lines"),
            "Lines that counted as delivered while there was no client, since the daemon started.",
        )
        .value(sink.delivered_to_nobody);
        page.counter(
            name!("clients_given_up"),
            "Clients that were disconnected because they did not take what they were sent.",
        )
        .value(sink.clients_given_up);
    }
}

fn checkpoint(page: &mut Page, snapshot: &Snapshot) {
    let checkpoint = &snapshot.checkpoint;
    page.gauge(name!("checkpoint_offset_bytes"), "The position that is safe against power loss.")
        .value(checkpoint.offset);
    if let Some(at_ms) = checkpoint.committed_at_ms {
        page.gauge(
            name!("checkpoint_timestamp_seconds"),
            "When the position was last made safe, since 1970.",
        )
        .value(Duration::from_millis(at_ms.max(0).unsigned_abs()).as_secs_f64());
    }
    page.gauge(
        name!("checkpoint_age_seconds"),
        "For how long something has been settled and its position not made safe; 0 if nothing is.",
    )
    .value(checkpoint.age_seconds);
    page.gauge(name!("checkpoint_alarm"), "1 while the position can't be written.")
        .value(u8::from(checkpoint.alarm.is_some()));
    page.counter(name!("checkpoint_commits"), "Positions made safe since the daemon started.")
        .value(snapshot.counted.commits);
    page.counter(
        name!("checkpoint_commit_failures"),
        "Positions that could not be written since the daemon started.",
    )
    .value(snapshot.counted.commit_failures);
}

fn latency(page: &mut Page, snapshot: &Snapshot) {
    page.histogram(
        name!("event_to_acknowledged_seconds"),
        "From an event's own time to its acknowledgement.",
        &snapshot.counted.since_event,
    );
    page.histogram(
        name!("seen_to_acknowledged_seconds"),
        "From reading a line first to its acknowledgement.",
        &snapshot.counted.since_seen,
    );
}

/// Under the names that every exporter uses.
fn process(page: &mut Page, beyond: &Beyond) {
    let usage = &beyond.usage;
    page.counter("process_cpu_seconds", "CPU time, of user and system.").value(usage.cpu_seconds);
    page.gauge("process_resident_memory_bytes", "Resident memory.").value(usage.resident_bytes);
    page.gauge("process_open_fds", "Open file descriptors.").value(usage.open_files);
    page.gauge("process_max_fds", "Open file descriptors at most.").value(usage.max_files);
    page.gauge("process_start_time_seconds", "When the process began, since 1970.")
        .value(beyond.began);
}
