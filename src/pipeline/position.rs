//! Keeping the position: when it is noted, when it is made durable, and what it says.

use std::io;
use std::time::{Duration, Instant};

use tracing::{error, info};

use super::lane::{Lane, LaneState};
use super::{Pipeline, Settings, StartAt};
use crate::checkpoint::{Checkpoint, GenerationState, ModeSwitch};
use crate::domain::identity::Fingerprint;
use crate::domain::position::Generation;
use crate::platform::mutants::{Mutant, makes};

/// How soon after the watermark moved a killed process finds it again.
const NOTE_INTERVAL: Duration = Duration::from_millis(10);

/// How often room is made in a journal where nothing is left to be delivered.
const ROOM_INTERVAL: Duration = Duration::from_secs(5);

/// How often a look is due even if nothing else is.
const IDLE: Duration = Duration::from_hours(1);

/// Knows what was last written and what has changed since.
pub(super) struct PositionKeeper {
    sequence: u64,
    /// The commit that the state writer is busy with.
    committing: Option<u64>,
    last_commit: Option<Instant>,
    last_note: Option<Instant>,
    /// Something changed since the last commit that was handed over.
    uncommitted: bool,
    /// The watermark moved since the last commit or note.
    unnoted: bool,
    /// The sizes in the last commit, to see that the file grew.
    sizes: Vec<u64>,
    /// Set until the first start's position is written, or failed to be.
    first_commit: bool,
    /// Why the last commit failed.
    pub(super) alarm: Option<String>,
    pub(super) committed_at_ms: Option<i64>,
    /// What the commit that the state writer is busy with says of the live file.
    handed_over: Live,
    /// What the last commit says of it.
    pub(super) committed: Live,
    /// Since when there has been something that is not committed, as far as anyone looked.
    behind_since: Option<Instant>,
    pub(super) mode_switches: Vec<ModeSwitch>,
    /// When the ledger began.
    pub(super) ledger_since_ms: i64,
}

/// A position in the live file: its generation and the offset.
type Live = (Option<Generation>, u64);

impl PositionKeeper {
    /// After a start from `checkpoint`. `changed`: what the start found differs from it.
    pub(super) fn new(
        checkpoint: Option<&Checkpoint>,
        changed: bool,
        first: bool,
        now_ms: i64,
    ) -> Self {
        let committed = checkpoint.map(live).unwrap_or_default();
        let ledger_since_ms = checkpoint.and_then(|checkpoint| checkpoint.ledger_since_ms);
        Self {
            sequence: checkpoint.map_or(0, |checkpoint| checkpoint.sequence),
            committing: None,
            last_commit: None,
            last_note: None,
            uncommitted: changed,
            unnoted: false,
            sizes: Vec::new(),
            first_commit: first,
            alarm: None,
            committed_at_ms: checkpoint.map(|checkpoint| checkpoint.committed_at_ms),
            handed_over: committed,
            committed,
            behind_since: None,
            ledger_since_ms: ledger_since_ms.unwrap_or(now_ms),
            mode_switches: checkpoint
                .map(|checkpoint| checkpoint.mode_switches.clone())
                .unwrap_or_default(),
        }
    }

    /// The watermark moved, or what a commit would say changed in another way.
    pub(super) fn moved(&mut self) {
        self.uncommitted = true;
        self.unnoted = true;
    }

    /// The start found exactly what was committed, a file of `size` bytes.
    pub(super) fn unchanged(&mut self, size: u64) {
        self.uncommitted = false;
        self.unnoted = false;
        self.sizes = vec![size];
    }

    /// Whether the very first position is still on its way to the disk.
    pub(super) fn waits_for_first_commit(&self) -> bool {
        self.first_commit
    }

    /// Whether everything there is to say is durable.
    pub(super) fn is_committed(&self) -> bool {
        !self.uncommitted && self.committing.is_none()
    }

    pub(super) fn on_committed(&mut self, sequence: u64, now_ms: i64) {
        if self.committing.is_some_and(|committing| committing <= sequence) {
            self.committing = None;
            self.committed = self.handed_over;
            // What came after it is no older than it.
            self.behind_since = self.behind_since.and(self.last_commit);
        }
        self.first_commit = false;
        self.committed_at_ms = Some(now_ms);
        if self.alarm.take().is_some() {
            info!("the checkpoint can be written again");
        }
    }

    pub(super) fn on_commit_failed(&mut self, error: &io::Error, now: Instant, at: StartAt) {
        self.committing = None;
        self.uncommitted |= !makes(Mutant::CommitGivenUp);
        self.last_commit = Some(now);
        // Without it a crash repeats more, but nothing is lost: delivery goes on. Only a first
        // start at the end has to wait: after a crash, the next one would begin at a later end.
        self.first_commit &= at == StartAt::End;
        if self.alarm.replace(error.to_string()).is_none() {
            error!(
                %error,
                "cannot write the checkpoint: delivery goes on, a crash now would repeat what was \
                 delivered since the last one; trying on"
            );
        }
    }

    /// For how long there has been something that is not committed.
    pub(super) fn age(&mut self, now: Instant) -> Duration {
        self.behind_since =
            if self.is_committed() { None } else { self.behind_since.or(Some(now)) };
        self.behind_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    /// When something is due.
    pub(super) fn deadline(&self, now: Instant, settings: &Settings) -> Instant {
        let mut deadline = now + IDLE;
        if self.unnoted {
            deadline = deadline.min(self.last_note.map_or(now, |last| last + NOTE_INTERVAL));
        }
        if self.uncommitted && self.committing.is_none() {
            let due = self.last_commit.map_or(now, |last| last + settings.checkpoint_interval);
            deadline = deadline.min(due);
        }
        deadline
    }
}

impl Pipeline {
    /// Notes and commits the position where that is due.
    pub(super) fn keep_position(&mut self) {
        let now = self.edges.clock.now();
        let due = |last: Option<Instant>, interval| last.is_none_or(|last| now >= last + interval);
        // Stopping, the last commit waits for nothing but the records before it.
        let last_commit = self.stopping && self.tracker.is_empty() && self.position.alarm.is_none();
        // A writer may wait for the room that a commit makes.
        let wanted = self.position.alarm.is_none()
            && self.position.uncommitted
            && self.pipe_alarm().is_some();
        if (last_commit
            || wanted
            || due(self.position.last_commit, self.settings.checkpoint_interval))
            && self.position.committing.is_none()
            && (self.position.uncommitted || self.has_grown() || self.is_full_of_settled(now))
        {
            self.commit(now);
        } else if self.position.unnoted && due(self.position.last_note, NOTE_INTERVAL) {
            self.position.last_note = Some(now);
            self.position.unnoted = false;
            let checkpoint = self.checkpoint();
            self.edges.committer.note(checkpoint);
        }
    }

    /// Whether the pipe is not read though all that came out of it is settled. A run that was killed before it
    /// removed what that takes up has left nothing to commit: it is removed after a commit.
    fn is_full_of_settled(&self, now: Instant) -> bool {
        self.pipe_alarm().is_some()
            && self.tracker.is_empty()
            && self.lanes.iter().all(Lane::is_settled_to_line)
            && self.position.last_commit.is_none_or(|last| now >= last + ROOM_INTERVAL)
    }

    /// Commits what is settled, unless a commit is under way.
    pub fn commit_now(&mut self) {
        if self.position.committing.is_none() && self.position.uncommitted {
            self.commit(self.edges.clock.now());
        }
    }

    /// Whether everything that is settled is durable.
    pub fn is_committed(&self) -> bool {
        self.position.is_committed()
    }

    fn commit(&mut self, now: Instant) {
        let checkpoint = self.checkpoint();
        self.position.sizes = self.lanes.iter().map(|lane| lane.file.size()).collect();
        self.position.committing = Some(checkpoint.sequence);
        self.position.handed_over = live(&checkpoint);
        self.position.last_commit = Some(now);
        self.position.uncommitted = false;
        self.position.unnoted = false;
        self.edges.committer.commit(checkpoint);
    }

    /// Whether a file is larger than the last commit says: what is not read yet would otherwise
    /// not be missed if it vanished while the bridge is down.
    fn has_grown(&self) -> bool {
        let sizes = self.lanes.iter().map(|lane| lane.file.size());
        !self.lanes.is_empty() && !sizes.eq(self.position.sizes.iter().copied())
    }

    fn generations(&self) -> Vec<GenerationState> {
        let untaken = self.untaken.iter().map(|(known, _)| known.clone());
        let waiting = untaken.chain(self.unopened());
        let lanes = self.lanes.iter().map(|lane| self.mutated(lane, lane.checkpoint()));
        let mut known: Vec<_> = lanes.collect();
        // What stands at the path is the newest.
        let live = self.lanes.iter().position(|lane| lane.state == LaneState::Live);
        let end = live.unwrap_or(known.len());
        known.splice(end..end, waiting.collect::<Vec<_>>());
        known.extend(self.remembered.iter().cloned());
        known
    }

    /// What a lane's state would be, were the position kept wrongly.
    fn mutated(&self, lane: &Lane, mut state: GenerationState) -> GenerationState {
        let oldest = self.tracker.iter().next().filter(|(oldest, _)| oldest.lane == lane.key);
        if makes(Mutant::CheckpointAhead)
            && let Some((oldest, _)) = oldest
        {
            state.offset = oldest.end;
            state.mark = Fingerprint::of_mark(&oldest.place.context());
        }
        if makes(Mutant::TailCommitted) && lane.settled() == lane.file.line_start() {
            state.offset = lane.file.position();
            state.mark = Fingerprint::of_mark(lane.file.tail());
        }
        state
    }

    fn checkpoint(&mut self) -> Checkpoint {
        self.position.sequence += 1;
        Checkpoint {
            sequence: self.position.sequence,
            committed_at_ms: self.edges.clock.unix_ms(),
            mode: self.settings.mode.to_owned(),
            generations: self.generations(),
            closed: self.closed,
            lost: self.lost.clone(),
            mode_switches: self.position.mode_switches.clone(),
            ledger_since_ms: Some(self.position.ledger_since_ms),
            requeued_lines: self.requeue.delivered,
        }
    }
}

fn live(checkpoint: &Checkpoint) -> Live {
    checkpoint.live().map(|live| (live.generation, live.offset)).unwrap_or_default()
}
