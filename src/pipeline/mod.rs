//! The owner of every line between the file and the checkpoint.
//!
//! One thread owns all of it: what is open, what was read, what is in flight, what is settled.
//! Others only post [`Event`]s. A turn settles what came back, reads and publishes what there is
//! room for, and keeps the position; nothing in a turn waits for a disk or a broker. This is the
//! only place that knows source, sink and checkpoint.

mod beside_pipe;
mod copies;
mod cut;
mod found;
mod input;
mod lane;
mod lines;
mod mailbox;
mod missed;
mod moved;
mod owner;
mod pending;
mod position;
mod reading;
mod report;
mod requeue;
mod rotations;
mod start;
mod stored;
mod unopened;
mod waiting;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::{error, info};

pub use self::mailbox::Mailbox;
pub use self::owner::{Stopped, run};
pub use self::start::{Start, StartAt, state_at};
pub use self::stored::FileStore;

use self::beside_pipe::BesidePipe;
use self::input::InputWatch;
use self::lane::{Lane, Tracked};
use self::position::PositionKeeper;
use self::report::Reporter;
use self::requeue::{REQUEUED, Requeue};
use self::rotations::Rotations;
use crate::checkpoint::writer::StateEvent;
use crate::checkpoint::{Committer, GenerationState, Lost, LostReason};
use crate::domain::acks::{AckTracker, Limits, RecordId};
use crate::domain::delivery::Outcome;
use crate::domain::envelope::EventTypes;
use crate::domain::ledger::{Class, Ledger};
use crate::platform::clock::Clock;
use crate::platform::fs::Fs;
use crate::platform::mutants::{Mutant, makes};
use crate::sink::{Secrets, Sink, State};
use crate::source::fifo::{PipeState, journal};
use crate::source::watch::DirectoryWatch;
use crate::telemetry::snapshot::{CaughtUp, Counted, Latest, Reasons};

/// Everything that can happen to the owner. The list is closed.
#[derive(Debug)]
pub enum Event {
    /// The input's directory changed in some way.
    InputChanged,
    /// The sink has reports.
    SinkReported,
    /// The state writer finished something, or failed.
    State(StateEvent),
    /// Someone wants to know when everything that is in the input now is settled.
    CaughtUpAsked(CaughtUp),
    /// Nothing more comes to this input: settle all there is, commit, and leave it for the next one.
    Leave,
    /// More may come to it after all.
    Stay,
    /// Secrets, and maybe certificates, are others than before.
    SecretsRead(Secrets),
    /// Stop: settle what is in flight, commit, end.
    Stop,
}

/// What the pipeline needs to be told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The file that is followed.
    pub input: PathBuf,
    /// The named pipe whose journal that is. Then segments are ended by no one but the journal, are never
    /// copied, and are removed when they are settled.
    pub pipe: Option<PathBuf>,
    /// Where positions and rejects are kept.
    pub state_dir: PathBuf,
    /// The longest line that is delivered, in bytes.
    pub max_line_bytes: usize,
    /// What may be read and not yet settled.
    pub in_flight: Limits,
    /// How often the position is made durable.
    pub checkpoint_interval: Duration,
    /// Where the first start begins.
    pub start_at: StartAt,
    /// `KAFKA` or `SOCKETIO`.
    pub mode: &'static str,
    /// The sink's name in rejects.
    pub sink_name: &'static str,
    /// What passes the filter.
    pub event_types: EventTypes,
}

impl Settings {
    /// Whether this is a part of a pipe's journal.
    fn is_segment(&self, path: &Path) -> bool {
        path.starts_with(journal::directory_in(&self.state_dir))
    }
}

/// The doors to the world.
pub struct Edges {
    /// Files.
    pub fs: Arc<dyn Fs>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Where records go.
    pub sink: Box<dyn Sink>,
    /// Where positions and rejects are made durable.
    pub committer: Box<dyn Committer>,
    /// Calls the owner when the input may have changed.
    pub watch: DirectoryWatch,
    /// What fills the journal that is followed.
    pub pipe: Option<Arc<PipeState>>,
    /// Who keeps deleted files that are open over the end of this process.
    pub store: Box<dyn FileStore>,
    /// Where the owner tells how it is.
    pub latest: Latest,
}

/// What the owner does after a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// There is more to do at once.
    Again,
    /// Nothing more fits in; some reports later there is room for a good deal.
    WhenThereIsRoom(Instant),
    /// Nothing to do before an event or this moment.
    Wait(Instant),
    /// Stopped, and nothing is in flight.
    Done,
    /// This input is settled and committed, and another one takes its place.
    Left,
}

/// See the module.
pub struct Pipeline {
    settings: Settings,
    edges: Edges,
    /// Lives of the input that are not settled, oldest first; the live file is the last one.
    lanes: Vec<Lane>,
    /// What is known of the input while nothing was there yet to compare it with.
    remembered: Option<GenerationState>,
    rotations: Rotations,
    beside_pipe: BesidePipe,
    /// Lives whose files could not be looked for yet, and why what is missing of them is.
    untaken: Vec<(GenerationState, LostReason)>,
    next_lane: u64,
    tracker: AckTracker<Tracked>,
    /// Where all bytes went so far.
    ledger: Ledger,
    /// The part of it that belongs to lanes that are gone.
    closed: Ledger,
    lost: Vec<Lost>,
    input: InputWatch,
    position: PositionKeeper,
    outcomes: Vec<(RecordId, Outcome)>,
    /// When this turn began, milliseconds since 1970.
    turn_ms: i64,
    /// The same in microseconds since `began`, on the clock that does not jump.
    turn_us: u64,
    began: Instant,
    /// What is counted for the metrics: plain numbers, which go out with the snapshot.
    counted: Counted,
    reasons: Reasons,
    /// Lines between the watermark and the last one read.
    lines_behind_watermark: u64,
    stopping: bool,
    /// Another kind of input takes the place of this one.
    leaving: bool,
    /// What is in flight when stopping is left to the next start.
    left: bool,
    /// Why rejects can't be written.
    rejects_failing: Option<String>,
    /// The buffer that was last counted: which lane's, and where it began.
    counted_buffer: Option<(u64, u64)>,
    /// Rejected lines since the log was last told of them, and when that was.
    rejects_untold: u64,
    rejects_told: Option<Instant>,
    requeue: Requeue,
    reporter: Reporter,
}

impl Pipeline {
    /// Takes an event.
    pub fn on(&mut self, event: Event) {
        match event {
            Event::InputChanged => self.input.look_again(),
            // A turn settles in any case.
            Event::SinkReported => {}
            Event::State(event) => self.on_state(event),
            Event::CaughtUpAsked(answer) => self.on_asked(answer),
            Event::Leave => self.leaving = self.settings.pipe.is_some(),
            Event::Stay => self.leaving = false,
            Event::SecretsRead(secrets) => self.edges.sink.renew(&secrets),
            Event::Stop => self.on_stop(),
        }
    }

    /// Does what can be done now.
    pub fn turn(&mut self) -> Next {
        self.turn_ms = self.edges.clock.unix_ms();
        let since = self.edges.clock.now().saturating_duration_since(self.began);
        self.turn_us = since.as_micros() as u64;
        self.settle();
        let progress = if self.may_read() { self.read() } else { Progress::NothingToRead };
        if progress == Progress::CaughtUp {
            self.edges.sink.caught_up();
        }
        self.close_lanes();
        self.keep_position();
        self.report(progress);
        // After the report, so that who is told finds in it what it is told of.
        self.answer(progress);
        let next = self.next(progress);
        self.show_life(next);
        next
    }

    fn next(&mut self, progress: Progress) -> Next {
        if self.stopping
            && (self.left || self.tracker.is_empty())
            && self.position.is_committed()
            && self.is_requeue_noted()
            && self.edges.sink.drain()
        {
            return Next::Done;
        }
        if self.has_left(progress) {
            return Next::Left;
        }
        match progress {
            Progress::More => Next::Again,
            Progress::Full => Next::WhenThereIsRoom(self.deadline()),
            Progress::CaughtUp | Progress::NothingToRead => Next::Wait(self.deadline()),
        }
    }

    /// Whether nothing is left to be read of an input that another one replaced, and all is committed.
    fn has_left(&self, progress: Progress) -> bool {
        // A line that is open may be ended yet; whatever comes next goes on with it.
        self.leaving
            && !self.stopping
            && matches!(progress, Progress::CaughtUp | Progress::NothingToRead)
            && self.tracker.is_empty()
            && self.is_readable()
            && self.remembered.as_ref().is_none_or(|known| known.offset >= known.size)
            && self.lanes.iter().all(Lane::is_settled_to_line)
            && self.position.is_committed()
    }

    /// What the next pipeline can go on with, and who waits for an answer of it.
    pub fn into_edges(self) -> (Edges, Vec<CaughtUp>) {
        (self.edges, self.reporter.into_asked())
    }

    /// How many lines were read and are not settled.
    pub fn in_flight(&self) -> usize {
        self.tracker.len()
    }

    /// Whether the sink can deliver nothing now.
    fn is_sink_down(&self) -> bool {
        self.edges.sink.health().state == State::Down
    }

    fn may_read(&self) -> bool {
        !self.stopping && !self.position.waits_for_first_commit()
    }

    /// Takes the outcomes that the sink has.
    fn settle(&mut self) {
        let mut outcomes = std::mem::take(&mut self.outcomes);
        self.edges.sink.settle(&mut outcomes);
        for (record, outcome) in outcomes.drain(..) {
            match outcome {
                Outcome::Delivered => self.acknowledge(record, Class::Delivered),
                Outcome::Refused(_) if makes(Mutant::FailureDropped) => {
                    self.acknowledge(record, Class::Delivered);
                }
                Outcome::Refused(rejection) => self.reject_sent(record, &rejection),
                Outcome::LeftOut => self.acknowledge(record, Class::Filtered),
            }
        }
        self.outcomes = outcomes;
    }

    /// The one door through which lines leave: counts the line and moves the watermark.
    fn acknowledge(&mut self, record: RecordId, class: Class) {
        let Some(tracked) = self.tracker.get_mut(record) else { return };
        if tracked.lane == REQUEUED {
            let index = tracked.end;
            if tracked.class.replace(class).is_none() {
                self.on_requeued(index, class);
            }
        } else if tracked.class.replace(class).is_none() {
            self.ledger.settle(class, tracked.amount, tracked.skipped);
            match (class, &tracked.line, tracked.reason) {
                (Class::Delivered, Some(line), _) => {
                    let since_event = self.turn_ms.saturating_sub(line.event_ms).max(0);
                    self.counted
                        .since_event
                        .observe(since_event.unsigned_abs().saturating_mul(1_000));
                    self.counted.since_seen.observe(self.turn_us.saturating_sub(line.seen_us));
                }
                (Class::Rejected, _, Some(reason)) => self.reasons.count(reason),
                _ => {}
            }
        }
        let (lanes, position) = (&mut self.lanes, &mut self.position);
        let lines = &mut self.lines_behind_watermark;
        self.tracker.acknowledge(record, |passed| {
            position.moved();
            *lines -= passed.amount.lines;
            let other = makes(Mutant::AckOfAnotherLife);
            if let Some(lane) = lanes.iter_mut().rfind(|lane| other || lane.key == passed.lane) {
                lane.settle(passed);
            }
        });
    }

    fn on_state(&mut self, event: StateEvent) {
        match event {
            StateEvent::RejectsDurable(records) => {
                if self.rejects_failing.take().is_some() {
                    info!("rejects can be written again");
                }
                for record in records {
                    self.acknowledge(record, Class::Rejected);
                }
            }
            StateEvent::RejectsFailed(error) => self.on_rejects_failed(&error),
            StateEvent::RequeueNoted => self.on_requeue_noted(),
            StateEvent::RequeueFailed(error) => self.on_requeue_failed(&error),
            StateEvent::Committed(sequence) => {
                self.counted.commits += 1;
                if let Some(pipe) = &self.edges.pipe {
                    pipe.committed();
                }
                self.position.on_committed(sequence, self.edges.clock.unix_ms());
            }
            StateEvent::CommitFailed(error) => {
                self.counted.commit_failures += 1;
                let (now, start_at) = (self.edges.clock.now(), self.settings.start_at);
                self.position.on_commit_failed(&error, now, start_at);
            }
        }
    }

    fn on_rejects_failed(&mut self, error: &io::Error) {
        if self.rejects_failing.replace(error.to_string()).is_none() {
            error!(
                %error,
                "cannot write a rejected line: it stays pending, and reading stops when the \
                 in-flight limit is reached; trying on"
            );
        }
    }

    fn on_stop(&mut self) {
        if !std::mem::replace(&mut self.stopping, true) {
            info!(in_flight = self.tracker.len(), "stopping: settling what is in flight");
            self.left = !self.edges.sink.stop();
            // What can't be read again is kept under its name, which the position has to know.
            for lane in self.lanes.iter_mut().filter(|lane| lane.file.is_deleted()) {
                // What can't be read can't be kept either, and is told then.
                let _ = lane.file.learn_name();
                self.position.moved();
            }
        }
    }

    /// Forgets lives that are over and settled.
    fn close_lanes(&mut self) {
        if self.lanes.iter().all(|lane| lane.state != lane::LaneState::Over) {
            return;
        }
        let is_done = |lane: &Lane| lane.state == lane::LaneState::Over && lane.is_settled();
        // The newest life is remembered: what follows it at the path is compared with it.
        if self.remembered.is_none()
            && let Some(lane) = self.lanes.pop_if(|lane| is_done(lane))
        {
            Self::forget_kept(&self.edges.fs, &lane);
            Self::forget_stored(self.edges.store.as_mut(), &lane);
            self.remembered = Some(lane.checkpoint());
            self.position.moved();
        }
        let (closed, position, fs) = (&mut self.closed, &mut self.position, &self.edges.fs);
        let store = self.edges.store.as_mut();
        self.lanes.retain(|lane| {
            let done = is_done(lane);
            if done {
                *closed += lane.ledger;
                Self::forget_kept(fs, lane);
                Self::forget_stored(store, lane);
                position.moved();
            }
            !done
        });
    }

    /// When the next turn is due if nothing happens.
    fn deadline(&self) -> Instant {
        let mut deadline = self.position.deadline(self.edges.clock.now(), &self.settings);
        if self.may_read() {
            deadline = deadline.min(self.input.next_look());
        }
        self.edges.sink.deadline().map_or(deadline, |sink| deadline.min(sink))
    }

    /// Records bytes that can no longer be read, loudly.
    fn lose(&mut self, lost: Lost) {
        if lost.from == lost.to || makes(Mutant::LossUntold) {
            return;
        }
        error!(
            generation = %lost.generation.map_or_else(|| "unknown".to_owned(), |generation| generation.to_string()),
            from = lost.from,
            to = lost.to,
            bytes = lost.to - lost.from,
            reason = lost.reason.as_str(),
            "bytes of the input are lost: they can no longer be read"
        );
        self.lost.push(lost);
        self.position.moved();
    }
}

/// How far a turn of reading came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// There is more to read.
    More,
    /// There is more, but no room for it.
    Full,
    /// Everything there is was read just now.
    CaughtUp,
    /// There was nothing new.
    NothingToRead,
}
