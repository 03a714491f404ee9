//! How the daemon is at one moment: made by the owner of the pipeline, read by everyone else.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;

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
}

/// Where others can connect; none: nowhere, or not yet.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ListenStatus {
    /// Metrics, health and status; not served yet.
    pub http: Option<SocketAddr>,
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
}

/// The ledger, in bytes and lines.
#[derive(Clone, Debug, Default, Serialize)]
pub struct LedgerStatus {
    /// Bytes by class.
    pub bytes: Classes,
    /// Lines by class.
    pub lines: Classes,
    /// Bytes that can no longer be read.
    pub lost: Vec<LostStatus>,
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
    /// The live file's life.
    pub generation: Option<Generation>,
    /// Everything before is settled.
    pub offset: u64,
    /// When the last one was committed.
    pub committed_at: Option<String>,
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

impl LedgerStatus {
    /// The amounts of a ledger, with what is pending and lost beside it.
    pub fn new(ledger: &Ledger, pending: Amount, lost: Vec<LostStatus>) -> Self {
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
        Self { bytes: classes(|a| a.bytes, lost_bytes), lines: classes(|a| a.lines, 0), lost }
    }
}

/// Where the newest snapshot is. Cheap to clone.
#[derive(Clone, Default)]
pub struct Latest {
    snapshot: Arc<Mutex<Arc<Snapshot>>>,
}

impl Latest {
    /// Replaces it.
    pub fn publish(&self, snapshot: Snapshot) {
        *self.snapshot.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(snapshot);
    }

    /// The newest one.
    pub fn get(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshot.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
