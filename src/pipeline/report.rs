//! What the owner tells: one snapshot when something may have changed, and who asked is answered.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::lane::{Lane, LaneState};
use super::waiting::{InputState, Waiting};
use super::{Next, Pipeline, Progress};
use crate::domain::acks::RecordId;
use crate::domain::ledger::Amount;
use crate::platform::clock::format_utc;
use crate::sink::{Health, State};
use crate::telemetry::snapshot::{
    CaughtUp, CheckpointStatus, Input, Latest, LedgerStatus, ListenStatus, LostStatus,
    ModeSwitchStatus, RejectsStatus, Requeued, SinkStatus, Snapshot,
};

/// How often a busy owner makes a snapshot; before it waits, it makes one anyway.
const SNAPSHOT_INTERVAL: Duration = Duration::from_millis(100);

/// How many may wait to be told that the bridge has caught up.
const ASKED_MAX: usize = 64;

/// What the owner remembers in order to tell.
pub(super) struct Reporter {
    latest: Latest,
    state_dir: PathBuf,
    last: Option<Instant>,
    state: (&'static str, Option<String>),
    since_ms: i64,
    /// Since when there is no input to follow.
    waiting_since: Option<Instant>,
    /// Who wants to know when what is in the input now is settled.
    asked: Vec<Asked>,
}

struct Asked {
    answer: CaughtUp,
    /// With this, what fills the journal knows what was in the pipe then.
    in_pipe: u64,
    /// Everything before is what was in the input; none until a look has read it.
    until: Option<RecordId>,
}

impl Reporter {
    pub(super) fn new(latest: Latest, state_dir: PathBuf, now_ms: i64) -> Self {
        let state = ("waiting_for_input", None);
        Self {
            latest,
            state_dir,
            last: None,
            state,
            since_ms: now_ms,
            waiting_since: None,
            asked: Vec::new(),
        }
    }

    /// Those who have no answer yet.
    pub(super) fn into_asked(self) -> Vec<CaughtUp> {
        self.asked.into_iter().map(|asked| asked.answer).collect()
    }
}

impl Pipeline {
    /// Remembers who asked, and looks at the input anew.
    pub(super) fn on_asked(&mut self, answer: CaughtUp) {
        // Who asked longest ago has most likely gone away.
        if self.reporter.asked.len() >= ASKED_MAX {
            self.reporter.asked.remove(0);
        }
        let in_pipe = self.edges.pipe.as_ref().map_or(0, |pipe| pipe.ask());
        self.reporter.asked.push(Asked { answer, in_pipe, until: None });
        self.input.look_again();
    }

    /// Answers those whose lines are settled. `progress` is that of the turn's reading.
    pub(super) fn answer(&mut self, progress: Progress) {
        if self.reporter.asked.is_empty() {
            return;
        }
        // What can't be read can't be said to be settled. Nor what is in a pipe that is not open yet.
        let readable = self.is_readable()
            && !(self.leaving && self.settings.pipe.is_none())
            && !matches!(&self.input.state, Some(InputState::Waiting(why)) if *why != Waiting::Missing);
        let (next, first) = (self.tracker.next(), self.tracker.first());
        let pipe = self.edges.pipe.as_ref();
        self.reporter.asked.retain_mut(|asked| {
            let is_here = pipe.is_none_or(|pipe| pipe.is_past(asked.in_pipe));
            if asked.until.is_none() && progress == Progress::CaughtUp && readable && is_here {
                asked.until = Some(next);
            }
            let settled = asked.until.is_some_and(|until| first >= until);
            if settled {
                asked.answer.tell();
            }
            !settled
        });
    }

    /// Whether everything that is known of can be read now.
    pub(super) fn is_readable(&self) -> bool {
        !self.rotations.is_undecided()
            && self.untaken.is_empty()
            && self.lanes.iter().all(|lane| lane.failing.is_none() && !lane.waits())
    }

    /// Publishes a snapshot, if one is due.
    pub(super) fn report(&mut self, progress: Progress) {
        let now = self.edges.clock.now();
        let busy = progress == Progress::More;
        if busy && self.reporter.last.is_some_and(|last| now < last + SNAPSHOT_INTERVAL) {
            return;
        }
        self.reporter.last = Some(now);
        let state = self.state(progress);
        if state != self.reporter.state {
            self.reporter.state = state;
            self.reporter.since_ms = self.edges.clock.unix_ms();
        }
        let waiting = self.input.state != Some(InputState::Following);
        let since = self.reporter.waiting_since.or(Some(now));
        self.reporter.waiting_since = since.filter(|_| waiting);
        let age = self.position.age(now);
        self.reporter.latest.publish(self.snapshot(age));
    }

    /// Says until when nothing has to be heard of the owner.
    pub(super) fn show_life(&self, next: Next) {
        let until = match next {
            Next::Again | Next::Done | Next::Left => self.edges.clock.now(),
            Next::WhenThereIsRoom(until) | Next::Wait(until) => until,
        };
        self.reporter.latest.turned(until);
    }

    fn state(&self, progress: Progress) -> (&'static str, Option<String>) {
        if self.stopping {
            return ("draining", None);
        }
        if self.pipe_alarm().is_some() {
            return ("blocked", Some("journal".to_owned()));
        }
        if progress == Progress::Full && self.rejects_failing.is_some() {
            return ("blocked", Some("rejects".to_owned()));
        }
        if progress == Progress::Full && self.edges.sink.health().state != State::Up {
            return ("blocked", Some("sink".to_owned()));
        }
        match &self.input.state {
            Some(InputState::Following) => ("following", None),
            Some(InputState::Waiting(why)) => ("waiting_for_input", Some(why.as_str().to_owned())),
            None => ("waiting_for_input", None),
        }
    }

    pub(super) fn pipe_alarm(&self) -> Option<String> {
        self.edges.pipe.as_ref().and_then(|pipe| pipe.alarm())
    }

    /// Whether what is pending by the ledger is what is on its way, counted line by line: then nothing that
    /// was read is in no class, or in two.
    fn is_accounted_for(&self) -> bool {
        let settled = self.lanes.iter().map(|lane| (lane.key, lane.settled()));
        let mut tracked_to: BTreeMap<u64, u64> = settled.collect();
        let mut on_its_way = 0;
        for (tracked, _) in self.tracker.iter() {
            on_its_way += if tracked.class.is_none() { tracked.amount.bytes } else { 0 };
            tracked_to.insert(tracked.lane, tracked.end);
        }
        let not_framed = |lane: &Lane| lane.file.position().saturating_sub(tracked_to[&lane.key]);
        on_its_way += self.lanes.iter().map(not_framed).sum::<u64>();
        on_its_way == self.pending().bytes
    }

    fn snapshot(&self, age: Duration) -> Snapshot {
        debug_assert!(self.is_accounted_for(), "the ledger does not add up");
        let (state, reason) = self.reporter.state.clone();
        let sink = self.edges.sink.health();
        Snapshot {
            version: env!("CARGO_PKG_VERSION"),
            pid: std::process::id(),
            state_dir: self.reporter.state_dir.clone(),
            mode: self.settings.mode,
            listen: ListenStatus { socketio: sink.listening, ..ListenStatus::default() },
            state,
            reason,
            since: Some(format_utc(self.reporter.since_ms)),
            input: self.input_status(),
            ledger: self.ledger_status(),
            sink: self.sink_status(sink),
            checkpoint: self.checkpoint_status(age),
            rejects: RejectsStatus {
                alarm: self.rejects_failing.clone(),
                since_start: self.reasons,
            },
            counted: self.counted.clone(),
            waiting_since: self.reporter.waiting_since,
        }
    }

    fn ledger_status(&self) -> LedgerStatus {
        let since = format_utc(self.position.ledger_since_ms);
        let (lines, outstanding) = (self.requeue.delivered, self.requeue.outstanding());
        LedgerStatus {
            requeued: Requeued { lines, outstanding },
            ..LedgerStatus::new(since, &self.ledger, self.pending(), self.lost_status())
        }
    }

    fn input_status(&self) -> Input {
        let live = self.lanes.last();
        let lag = |lane: &super::lane::Lane| lane.file.size().saturating_sub(lane.settled());
        let oldest = self.tracker.iter().find(|(tracked, _)| tracked.class.is_none());
        let age = oldest.map_or(0, |(tracked, _)| self.edges.clock.unix_ms() - tracked.seen_ms);
        let pipe = self.edges.pipe.as_ref();
        let in_pipe = pipe.map_or(0, |pipe| pipe.in_pipe());
        Input {
            path: self.settings.pipe.as_ref().unwrap_or(&self.settings.input).clone(),
            kind: match &self.input.state {
                Some(InputState::Waiting(why)) => why.as_str(),
                _ if self.settings.pipe.is_some() => "fifo",
                _ => "file",
            },
            generation: live.and_then(|lane| lane.file.generation()),
            size: live.map_or(0, |lane| lane.file.size()),
            read: live.map_or(0, |lane| lane.file.position()),
            lag_bytes: self.lanes.iter().map(lag).sum::<u64>() + in_pipe,
            lag_seconds: Duration::from_millis(age.max(0).unsigned_abs()).as_secs_f64(),
            waiting_files: self.rotations.waiting,
            journal_bytes: pipe.map(|pipe| pipe.in_journal()),
            journal_syncs: pipe.map(|pipe| pipe.syncs()),
            alarm: self.pipe_alarm(),
            held_files: self.lanes.iter().filter(|lane| lane.state != LaneState::Over).count(),
        }
    }

    fn lost_status(&self) -> Vec<LostStatus> {
        let status = |lost: &crate::checkpoint::Lost| LostStatus {
            generation: lost.generation,
            from: lost.from,
            to: lost.to,
            reason: lost.reason.as_str(),
        };
        self.lost.iter().map(status).collect()
    }

    fn sink_status(&self, health: Health) -> SinkStatus {
        SinkStatus {
            kind: self.settings.sink_name,
            state: health.state.as_str(),
            reason: health.reason,
            since: health.since_ms.map(format_utc),
            in_flight: health.in_flight,
            retries: health.retries,
            clients: health.clients,
            delivered_to_nobody: health.delivered_to_nobody,
            clients_given_up: health.clients_given_up,
        }
    }

    fn checkpoint_status(&self, age: Duration) -> CheckpointStatus {
        let (generation, offset) = self.position.committed;
        let switches = self.position.mode_switches.iter();
        CheckpointStatus {
            generation,
            offset,
            committed_at: self.position.committed_at_ms.map(format_utc),
            committed_at_ms: self.position.committed_at_ms,
            age_seconds: age.as_secs_f64(),
            alarm: self.position.alarm.clone(),
            mode_switches: switches
                .map(|switch| ModeSwitchStatus {
                    at: format_utc(switch.at_ms),
                    from: switch.from.clone(),
                    to: switch.to.clone(),
                })
                .collect(),
        }
    }

    /// What was read and is not settled: behind the watermark less what is acknowledged there, and
    /// the unterminated line.
    pub(super) fn pending(&self) -> Amount {
        let mut read = self.settled_so_far().settled();
        let mut unread_lines = self.lines_behind_watermark;
        for lane in &self.lanes {
            read.bytes += lane.file.position() - lane.settled();
            unread_lines += u64::from(lane.held.is_some()) + lane.file.lines_ready();
            unread_lines += u64::from(lane.file.position() > lane.file.line_start());
        }
        read.lines += unread_lines;
        let settled = self.ledger.settled();
        debug_assert!(read.bytes >= settled.bytes && read.lines >= settled.lines, "ledger");
        Amount { bytes: read.bytes - settled.bytes, lines: read.lines - settled.lines }
    }
}
