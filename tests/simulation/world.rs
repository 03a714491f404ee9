//! The daemon in the model: started, driven turn by turn, killed, and everything done to its input.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use openalgo_bridge::checkpoint::Checkpoint;
use openalgo_bridge::checkpoint::store::Store;
use openalgo_bridge::checkpoint::writer::{RejectedLine, Scribe, StateEvent, Work};
use openalgo_bridge::domain::acks::Limits;
use openalgo_bridge::domain::envelope::EventTypes;
use openalgo_bridge::domain::ledger::Ledger;
use openalgo_bridge::pipeline::{Edges, Event, Next, Pipeline, Settings, Start, StartAt};
use openalgo_bridge::platform::fs::Fs;
use openalgo_bridge::sink::rejects::RejectsFile;
use openalgo_bridge::source::watch::DirectoryWatch;
use openalgo_bridge::telemetry::snapshot::Latest;

use crate::disk::{CALLS, EIO, ENOSPC, EROFS, Fault, INPUT, STATE};
use crate::edges::{Shared, SimSink, Tray};
use crate::model::Model;
use crate::rng::Rng;
use crate::script::{Config, Kind, Op};

pub(crate) struct World {
    pub(crate) config: Config,
    pub(crate) shared: Shared,
    pub(crate) daemon: Option<Daemon>,
    /// Files that stood at the path, oldest first.
    pub(crate) siblings: Vec<PathBuf>,
    /// A file that an editor replaced while the daemon followed it, and in which run that was. Its writer
    /// has it still open.
    pub(crate) replaced: Option<(u64, u64)>,
    pub(crate) next_sibling: u64,
    pub(crate) next_order: u64,
    /// The last stop was a clean one, and nothing was changed since.
    pub(crate) untouched: bool,
}

pub(crate) struct Daemon {
    pub(crate) pipeline: Pipeline,
    scribe: Scribe,
    tray: Tray,
    pub(crate) latest: Latest,
    /// What the state writer reported and the pipeline does not know yet.
    reports: Vec<StateEvent>,
    /// Bytes and lines delivered before this run, by its checkpoint.
    read_before: u64,
    delivered_before: u64,
    /// The last turn had nothing more to do.
    pub(crate) rests: bool,
}

impl World {
    pub(crate) fn new(config: Config) -> Self {
        let shared = Shared::new(Model::new(config));
        let siblings = Vec::new();
        let mut world = Self {
            config,
            shared,
            daemon: None,
            siblings,
            replaced: None,
            next_sibling: 0,
            next_order: 0,
            untouched: false,
        };
        world.create_input(0);
        world
    }

    pub(crate) fn apply(&mut self, op: &Op) {
        let [a, b, c] = op.numbers;
        self.shared.model().tick();
        match op.kind {
            Kind::Poll => self.poll(a, b == 1, c > 0),
            Kind::Disk => self.disk_works(),
            Kind::Acks => self.shared.model().acknowledge(a, b),
            Kind::AckAgain => self.acknowledge_again(),
            Kind::Nack => self.shared.model().connection_lost(),
            Kind::SinkDown => self.sink_goes(false),
            Kind::SinkUp => self.sink_goes(true),
            Kind::Kill => self.kill(Some(a)),
            Kind::PowerCut => self.power_cut(a, b),
            Kind::Damage => self.damage(a, b),
            Kind::Start => self.start(),
            Kind::Stop => self.stop(),
            Kind::Quiesce => self.quiesce(),
            Kind::Minutes => self.shared.model().now += Duration::from_secs(60 * a),
            Kind::WallClock => {
                let jump = a.cast_signed() * 1_000;
                let mut model = self.shared.model();
                model.latest_ns = model.latest_ns.max(model.now_ns());
                model.wall_jump_ms += if b == 1 { jump } else { -jump };
                model.clock_jumped = true;
            }
            Kind::StateErrors => self.state_errors(a, b, c),
            Kind::StateHealed => self.shared.model().disk.faults.clear(),
            Kind::StateRemoved => {
                let mut model = self.shared.model();
                model.disk.remove_state();
                model.state_was_lost = true;
                model.checkpoints.excused = true;
            }
            Kind::ReadErrors => {
                let mut model = self.shared.model();
                model.disk.input_faults[a as usize] = b;
                model.counters.input_errors += b;
            }
            Kind::ShortReads => {
                let reads = &mut self.shared.model().disk.short_reads;
                reads.extend(std::iter::repeat_n(b, a as usize));
            }
            _ => self.apply_to_input(op),
        }
    }

    // --- the daemon ---------------------------------------------------------------------------

    pub(crate) fn start(&mut self) {
        if self.daemon.is_some() {
            return;
        }
        let shared = self.shared.clone();
        let fs: Arc<dyn Fs> = Arc::new(shared.clone());
        let store = Store::new(Arc::clone(&fs), Path::new(STATE));
        shared.model().disk.calls_left = None;
        let found = store.create().and_then(|()| store.lock()).and_then(|lock| {
            let start = Start::find(&store)?;
            Ok((lock, start))
        });
        let Ok((lock, start)) = found else {
            shared.model().counters.starts_refused += 1;
            return;
        };
        let checkpoint = match &start {
            Start::From(checkpoint) => Some((**checkpoint).clone()),
            Start::First | Start::Unreadable => None,
        };
        self.before_start(&start, checkpoint.as_ref());
        let mut rejects =
            RejectsFile::new(Arc::clone(&fs), Path::new(STATE), self.config.rejects_bytes);
        let append = move |lines: &[RejectedLine]| {
            rejects.append(lines.iter().map(|line| line.text.as_slice()))
        };
        let scribe = Scribe::new(store, lock, Box::new(append), Box::new(|_| Ok(())));
        let tray = Tray { work: Arc::new(Mutex::new(Work::default())), shared: shared.clone() };
        let latest = Latest::default();
        let edges = Edges {
            watch: DirectoryWatch::none(Arc::clone(&fs), Path::new(INPUT)),
            pipe: None,
            store: Box::new(()),
            fs,
            clock: Arc::new(shared.clone()),
            sink: Box::new(SimSink(shared.clone())),
            committer: Box::new(tray.clone()),
            latest: latest.clone(),
        };
        let mut model = shared.model();
        model.blind_start =
            model.disk.input_faults.iter().any(|left| *left > 0) || model.disk.directory_closed;
        drop(model);
        shared.model().is_starting = true;
        let pipeline = Pipeline::new(self.settings(), edges, &start);
        let ledger = checkpoint.as_ref().map(ledger_of).unwrap_or_default();
        self.daemon = Some(Daemon {
            pipeline,
            scribe,
            tray,
            latest,
            reports: Vec::new(),
            read_before: ledger.settled().bytes,
            delivered_before: ledger.delivered.lines,
            rests: false,
        });
        let mut model = shared.model();
        model.on_turned();
        model.is_starting = false;
        let input = model.disk.input();
        let moved = model.handles.values().filter(|handle| Some(handle.uid) != input);
        let resumed = moved.filter(|handle| model.continued.contains_key(&handle.uid)).count();
        model.counters.resumed_after_a_rotation_while_down += resumed as u64;
    }

    fn before_start(&mut self, start: &Start, checkpoint: Option<&Checkpoint>) {
        let mut model = self.shared.model();
        model.on_loaded(checkpoint);
        match start {
            Start::First => model.counters.starts_first += 1,
            Start::From(_) => model.counters.starts_resumed += 1,
            Start::Unreadable => model.counters.starts_unreadable += 1,
        }
        if matches!(start, Start::First) {
            model.forget_what_was_before(i64::MAX);
        }
        if let Some(checkpoint) = checkpoint.filter(|it| it.generations.is_empty()) {
            // Nothing was there yet: only what was written since then can be told from what was before.
            model.forget_what_was_before(checkpoint.committed_at_ms * 1_000_000);
        }
        if matches!(start, Start::First) && self.config.at_end {
            // What is there before the very first start is not asked for. A start is not the first
            // once something was read.
            let first =
                model.tracks.values().all(|track| track.ever_read == 0) || model.state_was_lost;
            if let Some(uid) = model.disk.input().filter(|_| first) {
                let track = model.tracks.entry(uid).or_default();
                track.skipped = track.placed.last().map_or(0, |placed| placed.end);
                let before: Vec<usize> = track.placed.iter().filter_map(|it| it.line).collect();
                for line in before {
                    model.lines.all[line].before_start = true;
                }
            }
        }
        model.begin_run();
    }

    fn settings(&self) -> Settings {
        Settings {
            input: PathBuf::from(INPUT),
            pipe: None,
            state_dir: PathBuf::from(STATE),
            max_line_bytes: self.config.max_line as usize,
            in_flight: Limits {
                records: self.config.records as usize,
                bytes: self.config.bytes as usize,
            },
            checkpoint_interval: Duration::from_millis(self.config.interval_ms),
            start_at: if self.config.at_end { StartAt::End } else { StartAt::Beginning },
            mode: "KAFKA",
            sink_name: "kafka",
            event_types: EventTypes::default(),
        }
    }

    pub(crate) fn poll(&mut self, ms: u64, hint: bool, disk: bool) {
        self.shared.model().now += Duration::from_millis(ms);
        let Some(daemon) = &mut self.daemon else { return };
        if hint {
            daemon.pipeline.on(Event::InputChanged);
        } else {
            self.shared.model().counters.hints_lost += 1;
        }
        daemon.turn(&self.shared, self.config.records);
        if disk {
            self.disk_works();
        }
    }

    fn disk_works(&mut self) {
        let Some(daemon) = &mut self.daemon else { return };
        let work = daemon.tray.take();
        if work.is_idle() && !daemon.scribe.is_behind() {
            return;
        }
        let mut reports = Vec::new();
        daemon.scribe.work(work, &mut |report| reports.push(report));
        let mut model = self.shared.model();
        if model.disk.is_dead() {
            return;
        }
        for report in &reports {
            match report {
                StateEvent::Committed(sequence) => model.checkpoints.committed = *sequence,
                StateEvent::CommitFailed(_) => model.counters.commits_failed += 1,
                StateEvent::RequeueNoted | StateEvent::RequeueFailed(_) => {}
                StateEvent::RejectsDurable(records) => model.on_rejects_durable(records),
                StateEvent::RejectsFailed(_) => model.counters.rejects_failed += 1,
            }
        }
        drop(model);
        daemon.reports.append(&mut reports);
    }

    /// The process dies. `calls`: so many calls on the state directory later.
    fn kill(&mut self, calls: Option<u64>) {
        if self.daemon.is_none() {
            return;
        }
        if let Some(calls) = calls {
            self.shared.model().disk.calls_left = Some(calls);
            self.disk_works();
            let mut model = self.shared.model();
            model.counters.kills += 1;
            model.counters.kills_within_a_write += u64::from(model.disk.is_dead());
        }
        self.shared.model().alive = false;
        self.daemon = None;
        self.untouched = false;
        self.shared.model().end_run(false);
    }

    fn power_cut(&mut self, luck: u64, calls: u64) {
        self.kill(Some(calls));
        let mut rng = Rng::new(luck);
        let mut model = self.shared.model();
        model.counters.power_cuts += 1;
        model.disk.power_cut(&mut rng);
        let inputs = model.tracks.iter().filter(|(_, track)| !track.kept);
        let uids: Vec<u64> = inputs.map(|(uid, _)| *uid).collect();
        for uid in
            uids.into_iter().filter(|uid| model.disk.nodes.contains_key(uid)).collect::<Vec<_>>()
        {
            let node = model.disk.node(uid);
            let (durable, size) = (node.durable_length, node.data.len());
            if durable == size || rng.percent(50) {
                continue;
            }
            let kept = durable + rng.below((size - durable) as u64 + 1) as usize;
            let nuls = if rng.percent(25) && kept > 0 { (size - kept).min(100) } else { 0 };
            let modified_ns = model.disk.node(uid).modified_ns;
            model.write_from(uid, kept, &vec![0; nuls]);
            let node = model.disk.node_mut(uid);
            node.modified_ns = modified_ns;
            node.durable_length = node.data.len();
        }
        self.untouched = false;
    }

    fn damage(&mut self, which: u64, luck: u64) {
        if self.daemon.is_some() {
            return;
        }
        let mut rng = Rng::new(luck);
        let mut model = self.shared.model();
        let store =
            ["checkpoint.json", "checkpoint.prev.json", "checkpoint.note.0", "checkpoint.note.1"];
        for (index, name) in store.iter().enumerate().filter(|(index, _)| which >> index & 1 == 1) {
            let Some(uid) = model.disk.at(&Path::new(STATE).join(name)) else { continue };
            let data = &mut model.disk.node_mut(uid).data;
            if !data.is_empty() {
                let at = rng.below(data.len() as u64) as usize;
                // A later version's checkpoint is never put aside: nothing would start any more.
                let is_version = data[..at].ends_with(b"\"version\":");
                match index as u64 + rng.below(3) {
                    0 => data.truncate(at),
                    _ if is_version => data[at] = b'x',
                    _ => data[at] ^= 1 << rng.below(8),
                }
            }
            model.counters.copies_damaged += 1;
            model.state_was_lost = true;
            model.checkpoints.excused = true;
        }
        self.untouched = false;
    }

    fn state_errors(&mut self, call: u64, how: u64, calls: u64) {
        let errno = [EIO, ENOSPC, EROFS, EIO][how as usize];
        let call = CALLS[call as usize];
        self.shared.model().disk.faults.push(Fault { call, errno, left: calls });
    }

    fn acknowledge_again(&mut self) {
        let mut model = self.shared.model();
        let again = model.broker.last_outcome.clone();
        model.broker.outcomes.extend(again);
    }

    fn sink_goes(&mut self, up: bool) {
        let mut model = self.shared.model();
        if !up {
            model.connection_lost();
        }
        model.broker.up = up;
    }

    /// SIGTERM. What can't be settled is left to the next start.
    pub(crate) fn stop(&mut self) {
        let Some(daemon) = &mut self.daemon else { return };
        daemon.pipeline.on(Event::Stop);
        let mut done = false;
        for _ in 0..60 {
            let Some(daemon) = &mut self.daemon else { return };
            done = daemon.turn(&self.shared, self.config.records) == Next::Done;
            if done {
                break;
            }
            self.disk_works();
            let mut model = self.shared.model();
            model.acknowledge(16, 0);
            model.now += Duration::from_millis(20);
        }
        self.leave(done);
    }

    /// As the owner's loop ends.
    fn leave(&mut self, done: bool) {
        let Some(daemon) = &mut self.daemon else { return };
        daemon.pipeline.keep_pending();
        self.shared.model().on_turned();
        for _ in 0..3 {
            let Some(daemon) = &mut self.daemon else { return };
            if daemon.pipeline.is_committed() {
                break;
            }
            daemon.pipeline.commit_now();
            self.disk_works();
            if let Some(daemon) = &mut self.daemon {
                daemon.hand_over_reports();
            }
        }
        let is_written = self.daemon.as_ref().is_some_and(|it| it.pipeline.is_committed());
        let mut model = self.shared.model();
        model.stop_unwritten = !is_written;
        // Where it can't look for copies, it tells too much.
        model.disturbed |= model.disk.directory_closed;
        model.counters.clean_stops += u64::from(done);
        model.counters.kills += u64::from(!done);
        model.alive = false;
        drop(model);
        self.daemon = None;
        self.untouched = done;
        self.shared.model().end_run(done);
    }
}

impl Daemon {
    fn hand_over_reports(&mut self) {
        for report in self.reports.drain(..) {
            self.pipeline.on(Event::State(report));
        }
    }

    /// Hands over what was reported and turns until there is nothing to do at once.
    fn turn(&mut self, shared: &Shared, records: u64) -> Next {
        self.hand_over_reports();
        let mut next = Next::Again;
        for _ in 0..8 {
            next = self.pipeline.turn();
            if next != Next::Again {
                break;
            }
        }
        self.rests = matches!(next, Next::Wait(_));
        let snapshot = self.latest.get();
        let mut model = shared.model();
        model.on_turned();
        model.waiting = snapshot.input.waiting_files;
        model.counters.waited_for_a_place +=
            u64::from(snapshot.input.waiting_files > 0 && snapshot.input.held_files >= 64);
        model.counters.turns_without_room += u64::from(matches!(next, Next::WhenThereIsRoom(_)));
        model.counters.turns_reading_several_files += u64::from(snapshot.input.held_files > 1);
        model.counters.waited_for_input += u64::from(snapshot.state == "waiting_for_input");
        if next != Next::Again && next != Next::Done {
            model.check_ledger(&snapshot, self.read_before, self.delivered_before);
        }
        if self.pipeline.in_flight() as u64 > records {
            let in_flight = self.pipeline.in_flight();
            model.violate("V10", format!("{in_flight} lines in flight, the limit is {records}"));
        }
        next
    }
}

/// Where all bytes went, by a checkpoint.
fn ledger_of(checkpoint: &Checkpoint) -> Ledger {
    let mut sum = checkpoint.closed;
    checkpoint.generations.iter().for_each(|state| sum += state.ledger);
    sum
}
