//! How the daemon is at one moment: made by the owner of the pipeline, read by everyone else.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::{Serialize, Serializer};

use crate::domain::envelope::Reason;
use crate::domain::latency::Latencies;
use crate::domain::ledger::{Amount, Ledger};
use crate::domain::position::Generation;

/// What `status.json` says (interface.md section 5). Times are milliseconds since 1970.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Snapshot {
    /// Of the bridge.
    pub version: &'static str,
    /// Of the daemon.
    pub pid: u32,
    /// Whose state it is.
    pub state_dir: PathBuf,
    /// `KAFKA` or `SOCKETIO`.
    pub mode: &'static str,
    /// Where others can connect.
    pub listen: ListenStatus,
    /// `waiting_for_input`, `following`, `draining` or `blocked`.
    pub state: &'static str,
    /// Why, where it is not `following`.
    pub reason: Option<String>,
    /// Since when the state is that.
    pub since: Option<String>,
    /// The file.
    pub input: Input,
    /// Where the bytes went.
    pub ledger: LedgerStatus,
    /// The other side.
    pub sink: SinkStatus,
    /// The durable position.
    pub checkpoint: CheckpointStatus,
    /// Refused lines.
    pub rejects: RejectsStatus,
    /// What was counted since the daemon started; for the metrics.
    #[serde(skip)]
    pub counted: Counted,
    /// Since when there is no input to follow.
    #[serde(skip)]
    pub waiting_since: Option<Instant>,
}

/// Where others can connect; none: nowhere, or not yet.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ListenStatus {
    /// Metrics, health and status: an address, or `unix:/path`.
    pub http: Option<String>,
    /// Why these can't be served there.
    pub http_alarm: Option<String>,
    /// Socket.IO clients.
    pub socketio: Option<SocketAddr>,
}

/// The input.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Input {
    /// The configured path.
    pub path: PathBuf,
    /// What is there: `file`, or why nothing is followed.
    pub kind: &'static str,
    /// The life that is followed.
    pub generation: Option<Generation>,
    /// Its size.
    pub size: u64,
    /// How far it was read.
    pub read: u64,
    /// Bytes that are in the files and not settled.
    pub lag_bytes: u64,
    /// Age of the oldest line that is read and not settled, in seconds.
    pub lag_seconds: f64,
    /// Files that are open, the live one included.
    pub held_files: usize,
    /// Files that are not read yet and wait until there are fewer open.
    pub waiting_files: usize,
    /// Of a named pipe, how much its journal holds, delivered or not.
    pub journal_bytes: Option<u64>,
    /// Why the pipe is not read, so that its writers wait.
    pub alarm: Option<String>,
}

/// The ledger, in bytes and lines.
#[derive(Clone, Debug, Default, Serialize)]
pub struct LedgerStatus {
    /// When it began: with the first start, or when the position was set by hand.
    pub since: String,
    /// Bytes by class.
    pub bytes: Classes,
    /// Lines by class.
    pub lines: Classes,
    /// Lines that were sent again after a reject; they stay counted as rejected.
    pub requeued: Requeued,
    /// Bytes that can no longer be read.
    pub lost: Vec<LostStatus>,
}

/// Lines that an admin had sent again.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Requeued {
    /// Lines.
    pub lines: u64,
    /// Those that are on their way.
    pub outstanding: u64,
}

/// Amounts by class: `read` is the sum of the others but `lost`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Classes {
    /// Everything read.
    pub read: u64,
    /// Acknowledged.
    pub delivered: u64,
    /// In the rejects.
    pub rejected: u64,
    /// Left out on purpose.
    pub filtered: u64,
    /// Holding nothing.
    pub blank: u64,
    /// Read and not settled.
    pub pending: u64,
    /// Never read, and gone.
    pub lost: u64,
}

/// A lost range.
#[derive(Clone, Debug, Serialize)]
pub struct LostStatus {
    /// Of which life.
    pub generation: Option<Generation>,
    /// First byte.
    pub from: u64,
    /// Behind the last byte known of.
    pub to: u64,
    /// Why.
    pub reason: &'static str,
}

/// The sink.
#[derive(Clone, Debug, Default, Serialize)]
pub struct SinkStatus {
    /// `kafka` or `socketio`.
    pub kind: &'static str,
    /// `up`, `degraded` or `down`.
    pub state: &'static str,
    /// Why it is not up.
    pub reason: Option<String>,
    /// Since when it is not up.
    pub since: Option<String>,
    /// Records handed over and not settled.
    pub in_flight: usize,
    /// Records sent again.
    pub retries: u64,
    /// Clients that get events; none where there is no such thing.
    pub clients: Option<usize>,
    /// Records that counted as delivered while there was no client.
    pub delivered_to_nobody: u64,
    /// Clients that were disconnected because they did not take what they were sent.
    pub clients_given_up: u64,
}

/// The durable position.
#[derive(Clone, Debug, Default, Serialize)]
pub struct CheckpointStatus {
    /// The live file's life in the last one that was committed.
    pub generation: Option<Generation>,
    /// Everything before was settled then.
    pub offset: u64,
    /// When the last one was committed.
    pub committed_at: Option<String>,
    /// The same in milliseconds since 1970.
    #[serde(skip)]
    pub committed_at_ms: Option<i64>,
    /// For how long there has been something that is not committed; 0 if there is nothing.
    pub age_seconds: f64,
    /// Why it can't be written.
    pub alarm: Option<String>,
    /// The last mode switches.
    pub mode_switches: Vec<ModeSwitchStatus>,
}

/// A mode switch.
#[derive(Clone, Debug, Serialize)]
pub struct ModeSwitchStatus {
    /// When.
    pub at: String,
    /// The mode before.
    pub from: String,
    /// The mode after.
    pub to: String,
}

/// Refused lines.
#[derive(Clone, Debug, Default, Serialize)]
pub struct RejectsStatus {
    /// Why they can't be put aside.
    pub alarm: Option<String>,
    /// Lines by reason, since the daemon started.
    pub since_start: Reasons,
}

/// Lines by reason, those with none left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reasons([u64; Reason::ALL.len()]);

impl Reasons {
    /// Counts a line.
    pub fn count(&mut self, reason: Reason) {
        self.0[reason as usize] += 1;
    }

    /// Every reason with its lines.
    pub fn iter(&self) -> impl Iterator<Item = (Reason, u64)> {
        Reason::ALL.into_iter().zip(self.0)
    }
}

impl Serialize for Reasons {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let there = self.iter().filter(|(_, lines)| *lines > 0);
        serializer.collect_map(there.map(|(reason, lines)| (reason.as_str(), lines)))
    }
}

/// What the owner counts beyond the ledger, since the daemon started.
#[derive(Clone, Debug, Default)]
pub struct Counted {
    /// From an event's own time to its acknowledgement.
    pub since_event: Latencies,
    /// From reading a line first to its acknowledgement.
    pub since_seen: Latencies,
    /// Positions that were made durable.
    pub commits: u64,
    /// Positions that could not be.
    pub commit_failures: u64,
}

impl LedgerStatus {
    /// The amounts of a ledger, with what is pending and lost beside it.
    pub fn new(since: String, ledger: &Ledger, pending: Amount, lost: Vec<LostStatus>) -> Self {
        let lost_bytes = lost.iter().map(|lost| lost.to - lost.from).sum();
        let classes = |amount: fn(&Amount) -> u64, lost| Classes {
            read: amount(&ledger.settled()) + amount(&pending),
            delivered: amount(&ledger.delivered),
            rejected: amount(&ledger.rejected),
            filtered: amount(&ledger.filtered),
            blank: amount(&ledger.blank),
            pending: amount(&pending),
            lost,
        };
        // How many lines were lost with the bytes, nobody knows.
        Self {
            since,
            bytes: classes(|a| a.bytes, lost_bytes),
            lines: classes(|a| a.lines, 0),
            requeued: Requeued::default(),
            lost,
        }
    }
}

/// Told when everything that was in the input is settled.
pub struct CaughtUp(Box<dyn Fn() + Send>);

impl CaughtUp {
    /// Calls `then` when it is so.
    pub fn new(then: impl Fn() + Send + 'static) -> Self {
        Self(Box::new(then))
    }

    /// It is so.
    pub fn tell(&self) {
        (self.0)();
    }
}

impl fmt::Debug for CaughtUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CaughtUp")
    }
}

/// Where the newest snapshot is, and how the owner shows that it lives. Cheap to clone.
#[derive(Clone)]
pub struct Latest {
    shared: Arc<Shared>,
}

struct Shared {
    snapshot: Mutex<Arc<Snapshot>>,
    began: Instant,
    /// When the owner's next turn is due, in milliseconds since `began`; 0 before its first one.
    due_ms: AtomicU64,
}

impl Default for Latest {
    fn default() -> Self {
        let (snapshot, due_ms) = (Mutex::default(), AtomicU64::new(0));
        Self { shared: Arc::new(Shared { snapshot, began: Instant::now(), due_ms }) }
    }
}

impl Latest {
    /// Replaces it.
    pub fn publish(&self, snapshot: Snapshot) {
        *self.lock() = Arc::new(snapshot);
    }

    /// The newest one.
    pub fn get(&self) -> Arc<Snapshot> {
        Arc::clone(&self.lock())
    }

    /// The owner has turned, and will do so again at this moment or before.
    pub fn turned(&self, next: Instant) {
        let due = next.saturating_duration_since(self.shared.began).as_millis();
        let due = u64::try_from(due).unwrap_or(u64::MAX).max(1);
        self.shared.due_ms.store(due, Ordering::Relaxed);
    }

    /// Whether the owner has turned at all.
    pub fn has_turned(&self) -> bool {
        self.shared.due_ms.load(Ordering::Relaxed) > 0
    }

    /// For how long the owner's next turn has been due.
    pub fn overdue(&self, now: Instant) -> Duration {
        let due = Duration::from_millis(self.shared.due_ms.load(Ordering::Relaxed));
        now.saturating_duration_since(self.shared.began).saturating_sub(due)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Arc<Snapshot>> {
        self.shared.snapshot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_owner_is_overdue_once_it_is_later_than_it_said() {
        let latest = Latest::default();
        let now = latest.shared.began + Duration::from_secs(100);
        assert_eq!(latest.overdue(now), Duration::from_secs(100), "it never turned");
        assert!(!latest.has_turned());
        latest.turned(latest.shared.began);
        assert!(latest.has_turned(), "however soon that was");
        latest.turned(now + Duration::from_hours(1));
        assert_eq!(latest.overdue(now + Duration::from_mins(59)), Duration::ZERO, "it waits");
        assert_eq!(latest.overdue(now + Duration::from_mins(61)), Duration::from_mins(1));
    }

    #[test]
    fn reasons_without_a_line_are_left_out() {
        let mut reasons = Reasons::default();
        reasons.count(Reason::NotJson);
        reasons.count(Reason::NotJson);
        reasons.count(Reason::Refused);
        let text = serde_json::to_string(&reasons).unwrap();
        assert_eq!(text, r#"{"not_json":2,"refused":1}"#);
    }
}
