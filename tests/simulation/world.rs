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
use openalgo_bridge::platform::fs::{FileKind, Fs};
use openalgo_bridge::sink::rejects::RejectsFile;
use openalgo_bridge::source::watch::DirectoryWatch;
use openalgo_bridge::telemetry::snapshot::{CaughtUp, Latest};

use crate::disk::{CALLS, EIO, ENOSPC, EROFS, Fault, INPUT, STATE};
use crate::edges::{Shared, SimSink, Tray};
use crate::model::Model;
use crate::rng::Rng;
use crate::script::{Config, Kind, Op};

/// How long everything may take to come to rest once it is healed, in steps of virtual time.
const STEPS_TO_REST: usize = 400;

pub(crate) struct World {
    config: Config,
    pub(crate) shared: Shared,
    daemon: Option<Daemon>,
    /// Files that stood at the path, oldest first.
    siblings: Vec<PathBuf>,
    next_sibling: u64,
    next_order: u64,
    /// The last stop was a clean one, and nothing was changed since.
    untouched: bool,
}

struct Daemon {
    pipeline: Pipeline,
    scribe: Scribe,
    tray: Tray,
    latest: Latest,
    /// What the state writer reported and the pipeline does not know yet.
    reports: Vec<StateEvent>,
    /// Bytes and lines delivered before this run, by its checkpoint.
    read_before: u64,
    delivered_before: u64,
    /// The last turn had nothing more to do.
    rests: bool,
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
                self.shared.model().wall_jump_ms += if b == 1 { jump } else { -jump };
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

    fn apply_to_input(&mut self, op: &Op) {
        self.untouched = false;
        let [a, b, c] = op.numbers;
        match op.kind {
            Kind::Append => self.append(a, b, c),
            Kind::Piece => self.piece(a, b),
            Kind::Finish => self.finish(Path::new(INPUT)),
            Kind::Fsync => self.input_synced(),
            Kind::Rotate => {
                self.move_away();
                self.create_input(0);
            }
            Kind::MoveAway => self.move_away(),
            Kind::Create => self.create_input(a),
            Kind::MoveBack => self.move_back(),
            Kind::CopyTruncate => self.copy_truncate(),
            Kind::Truncate => self.with_input(|model, uid| {
                let size = model.disk.node(uid).data.len() * a as usize / 1000;
                model.write_from(uid, size, b"");
            }),
            Kind::Rewrite => self.rewrite(a, b),
            Kind::Trim => self.trim(a),
            Kind::Unlink => {
                let mut model = self.shared.model();
                if model.disk.input().is_some() {
                    model.disturbed = true;
                    let _ = model.disk.remove(Path::new(INPUT));
                }
            }
            Kind::DeleteOldest => self.delete_oldest(),
            Kind::Late => self.late(a),
            Kind::LateFinish => {
                if let Some(path) = self.siblings.last().cloned() {
                    self.finish(&path);
                }
            }
            Kind::Chmod => self.with_input(|model, uid| {
                model.disk.node_mut(uid).readable = a > 0;
            }),
            Kind::ChmodDirectory => {
                self.shared.model().disk.directory_closed = a == 0;
            }
            Kind::Obstacle => self.obstacle(a, b),
            Kind::Nuls => self.with_input(|model, uid| {
                // Two runs that touch could stand for each other.
                if model.disk.node(uid).data.last().is_some_and(|last| *last != 0) {
                    model.append(uid, &vec![0; 1 + a as usize % 200]);
                }
            }),
            _ => {}
        }
    }

    // --- the daemon ---------------------------------------------------------------------------

    fn start(&mut self) {
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
        let scribe = Scribe::new(store, lock, Box::new(append));
        let tray = Tray { work: Arc::new(Mutex::new(Work::default())), shared: shared.clone() };
        let latest = Latest::default();
        let edges = Edges {
            watch: DirectoryWatch::none(Arc::clone(&fs), Path::new(INPUT)),
            fs,
            clock: Arc::new(shared.clone()),
            sink: Box::new(SimSink(shared.clone())),
            committer: Box::new(tray.clone()),
            latest: latest.clone(),
        };
        let blind = shared.model().disk.input_faults.iter().any(|left| *left > 0);
        shared.model().blind_start = blind;
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
        shared.model().on_started(checkpoint.as_ref());
    }

    fn before_start(&mut self, start: &Start, checkpoint: Option<&Checkpoint>) {
        let mut model = self.shared.model();
        model.on_loaded(checkpoint);
        match start {
            Start::First => model.counters.starts_first += 1,
            Start::From(_) => model.counters.starts_resumed += 1,
            Start::Unreadable => model.counters.starts_unreadable += 1,
        }
        if matches!(start, Start::First) && self.config.at_end {
            // What is there before the very first start is not asked for. A start is not the first
            // once something was read.
            let first =
                model.tracks.values().all(|track| track.ever_read == 0) || model.state_was_lost;
            if let Some(uid) = model.disk.input().filter(|_| first) {
                let track = model.tracks.entry(uid).or_default();
                track.skipped = track.placed.last().map_or(0, |placed| placed.end);
            }
        }
        model.begin_run();
    }

    fn settings(&self) -> Settings {
        Settings {
            input: PathBuf::from(INPUT),
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

    fn poll(&mut self, ms: u64, hint: bool, disk: bool) {
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
        let uids: Vec<u64> = model.tracks.keys().copied().collect();
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
            model.write_from(uid, kept, &vec![0; nuls]);
            let node = model.disk.node_mut(uid);
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
                match index as u64 + rng.below(3) {
                    0 => data.truncate(at),
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
    fn stop(&mut self) {
        let Some(daemon) = &mut self.daemon else { return };
        daemon.pipeline.on(Event::Stop);
        for _ in 0..60 {
            let Some(daemon) = &mut self.daemon else { return };
            let done = daemon.turn(&self.shared, self.config.records) == Next::Done;
            if done {
                let mut model = self.shared.model();
                model.counters.clean_stops += 1;
                model.alive = false;
                drop(model);
                self.daemon = None;
                self.untouched = true;
                self.shared.model().end_run(true);
                return;
            }
            self.disk_works();
            let mut model = self.shared.model();
            model.acknowledge(16, 0);
            model.now += Duration::from_millis(20);
        }
        self.kill(None);
    }

    // --- rest -----------------------------------------------------------------------------------

    /// Everything heals; whatever can be read must arrive.
    pub(crate) fn quiesce(&mut self) {
        self.heal();
        for attempt in 0..3 {
            if self.daemon.is_none() {
                self.start();
                self.shared.model().now += Duration::from_secs(attempt);
            }
        }
        if self.daemon.is_none() {
            return self.shared.model().violate("V9", "no start succeeds any more".to_owned());
        }
        let (answer, answered) = std::sync::mpsc::sync_channel(1);
        if let Some(daemon) = &mut self.daemon {
            // Nobody need wait for the answer.
            let tell = CaughtUp::new(move || {
                let _ = answer.try_send(());
            });
            daemon.pipeline.on(Event::CaughtUpAsked(tell));
        }
        let asked = self.shared.model().lines_in_input();
        let mut told = false;
        let mut at_rest = 0;
        for _ in 0..STEPS_TO_REST {
            let before = self.shared.model().trace;
            // Without hints: the timer alone must do.
            self.poll(500, false, true);
            if answered.try_recv().is_ok() {
                told = true;
                self.shared.model().check_caught_up(&asked);
            }
            if self.shared.model().violation.is_some() {
                return;
            }
            let rests = self.daemon.as_ref().is_some_and(|daemon| daemon.rests);
            let still = rests && self.shared.model().trace == before;
            self.shared.model().acknowledge(3, 0);
            at_rest = if still { at_rest + 1 } else { 0 };
            // Longer than the commit interval and the look at the path.
            if at_rest >= 6 {
                break;
            }
        }
        let Some(daemon) = &self.daemon else { return };
        let snapshot = daemon.latest.get();
        let in_flight = daemon.pipeline.in_flight();
        let mut model = self.shared.model();
        if at_rest < 6 || in_flight > 0 || snapshot.state != "following" {
            let (state, reason) = (snapshot.state, &snapshot.reason);
            let text = format!("no rest: {state} {reason:?}, {in_flight} lines in flight");
            return model.violate("V9", text);
        }
        if !told {
            let text = "who asked when it has caught up got no answer".to_owned();
            return model.violate("V9", text);
        }
        model.check_rest(&snapshot);
    }

    fn heal(&mut self) {
        let mut model = self.shared.model();
        model.disk.faults.clear();
        model.disk.input_faults = [0; 3];
        model.disk.short_reads.clear();
        model.disk.directory_closed = false;
        model.disk.nodes.values_mut().for_each(|node| node.readable = true);
        model.broker.up = true;
        let missing = model.disk.input().is_none();
        if missing && model.disk.at(Path::new(INPUT)).is_some() {
            let _ = model.disk.remove(Path::new(INPUT));
        }
        drop(model);
        if missing {
            self.create_input(0);
        }
    }

    /// V15: a clean stop and a start with nothing new sends nothing and writes nothing.
    pub(crate) fn stop_and_start(&mut self) {
        self.quiesce();
        let held = self.shared.model().handles.len();
        // Who removed the state meanwhile has removed the position.
        let lost = self.shared.model().checkpoints.excused;
        self.stop();
        if !self.untouched || self.shared.model().violation.is_some() {
            return;
        }
        self.start();
        for _ in 0..4 {
            self.poll(700, true, true);
        }
        let mut model = self.shared.model();
        // Files that were moved away are given up by a start, which it writes down.
        let same = held == 1 && !lost;
        if same && (model.run_published > 0 || model.checkpoints.written > 0) {
            let text = format!(
                "after a clean stop {} lines were sent and {} checkpoints written",
                model.run_published, model.checkpoints.written
            );
            model.violate("V15", text);
        }
        model.counters.clean_stops_changing_nothing += u64::from(same);
    }

    // --- the application ------------------------------------------------------------------------

    fn with_input(&mut self, change: impl FnOnce(&mut Model, u64)) {
        let mut model = self.shared.model();
        if let Some(uid) = model.disk.input() {
            change(&mut model, uid);
        }
    }

    fn create_input(&mut self, beginning: u64) {
        let mut model = self.shared.model();
        if model.disk.at(Path::new(INPUT)).is_some() {
            return;
        }
        let now_ns = model.now_ns();
        let uid = model.disk.create(Path::new(INPUT), FileKind::Regular, now_ns);
        self.next_order += 1;
        model.tracks.entry(uid).or_default().order = self.next_order;
        if beginning == 1 {
            model.append(uid, b"\xef\xbb\xbf");
        }
        if self.config.headers {
            let header = model.lines.header();
            let line = [model.lines.all[header].content.as_slice(), b"\n"].concat();
            model.append(uid, &line);
        }
    }

    fn append(&mut self, kind: u64, around: u64, over: u64) {
        self.create_input(0);
        let long = self.config.max_line as usize + 1;
        self.with_input(|model, uid| {
            let unfinished = std::mem::take(&mut model.tracks.entry(uid).or_default().unfinished);
            // Mostly by the same writer, else by another one in the middle of that one's line.
            if !unfinished.is_empty() && over > 0 {
                model.append(uid, &unfinished);
            }
            let line = model.lines.make(kind, long);
            let content = model.lines.all[line].content.clone();
            let text: Vec<u8> = match around {
                0 => [content.as_slice(), b"\r\n"].concat(),
                1 => [b"\n", content.as_slice(), b"\n"].concat(),
                2 => [content.as_slice(), b"\n \t\n\n"].concat(),
                3 => [b"\0\0\0", content.as_slice(), b"\n"].concat(),
                _ => [content.as_slice(), b"\n"].concat(),
            };
            model.append(uid, &text);
        });
    }

    fn piece(&mut self, kind: u64, length: u64) {
        self.with_input(|model, uid| {
            let mut unfinished =
                std::mem::take(&mut model.tracks.entry(uid).or_default().unfinished);
            if unfinished.is_empty() {
                // A valid one: the beginning of another could be taken for a line of another kind.
                let line = model.lines.make(kind | 31, 0);
                model.expect_at_end(uid, line);
                unfinished = [model.lines.all[line].content.as_slice(), b"\n"].concat();
            }
            let now = (1 + length as usize).min(unfinished.len());
            let rest = unfinished.split_off(now);
            model.append(uid, &unfinished);
            model.tracks.entry(uid).or_default().unfinished = rest;
        });
    }

    fn finish(&mut self, path: &Path) {
        let mut model = self.shared.model();
        let Some(uid) = model.disk.at(path) else { return };
        if let Some(track) = model.tracks.get_mut(&uid) {
            let unfinished = std::mem::take(&mut track.unfinished);
            if !unfinished.is_empty() {
                model.append(uid, &unfinished);
            }
        }
    }

    fn late(&mut self, kind: u64) {
        let Some(path) = self.siblings.last() else { return };
        let mut model = self.shared.model();
        let Some(uid) = model.disk.at(path) else { return };
        // A copy has no writer.
        if !model.tracks.contains_key(&uid) {
            return;
        }
        let unfinished = std::mem::take(&mut model.tracks.entry(uid).or_default().unfinished);
        model.append(uid, &unfinished);
        let line = model.lines.make(kind, self.config.max_line as usize + 1);
        let text = [model.lines.all[line].content.as_slice(), b"\n"].concat();
        model.append(uid, &text);
        model.counters.late_lines += 1;
    }

    fn input_synced(&mut self) {
        self.with_input(|model, uid| {
            let node = model.disk.node_mut(uid);
            node.durable_length = node.data.len();
        });
    }

    fn new_sibling(&mut self) -> PathBuf {
        self.next_sibling += 1;
        let path = PathBuf::from(format!("{INPUT}.{:06}", self.next_sibling));
        self.siblings.push(path.clone());
        path
    }

    fn move_away(&mut self) {
        if self.shared.model().disk.input().is_none() {
            return;
        }
        let path = self.new_sibling();
        let mut model = self.shared.model();
        model.disturbed = true;
        let _ = model.disk.rename(Path::new(INPUT), &path);
        drop(model);
        if self.siblings.len() > 3 {
            self.delete_oldest();
        }
    }

    fn delete_oldest(&mut self) {
        if !self.siblings.is_empty() {
            let path = self.siblings.remove(0);
            let _ = self.shared.model().disk.remove(&path);
        }
    }

    fn move_back(&mut self) {
        if self.shared.model().disk.at(Path::new(INPUT)).is_some() {
            return;
        }
        let Some(path) = self.siblings.pop() else { return };
        let mut model = self.shared.model();
        let _ = model.disk.rename(&path, Path::new(INPUT));
        model.counters.moved_back += 1;
        if let Some(uid) = model.disk.input() {
            let track = model.tracks.entry(uid).or_default();
            track.moved_back = true;
            self.next_order += 1;
            track.order = self.next_order;
            model.place_lines(uid);
        }
    }

    fn copy_truncate(&mut self) {
        if self.shared.model().disk.input().is_none() {
            return;
        }
        let path = self.new_sibling();
        self.with_input(|model, uid| {
            let now_ns = model.now_ns();
            let copy = model.disk.create(&path, FileKind::Regular, now_ns);
            let content = model.disk.node(uid).data.clone();
            model.disk.node_mut(copy).data = content;
            model.write_from(uid, 0, b"");
        });
        if self.siblings.len() > 3 {
            self.delete_oldest();
        }
    }

    fn rewrite(&mut self, lines: u64, longer: u64) {
        let headers = self.config.headers;
        self.with_input(|model, uid| {
            let size = model.disk.node(uid).data.len();
            model.tracks.entry(uid).or_default().unfinished.clear();
            let mut content = Vec::new();
            if headers {
                let header = model.lines.header();
                content.extend_from_slice(&model.lines.all[header].content);
                content.push(b'\n');
            }
            let mut written = 0;
            while written < lines || (longer == 1 && content.len() <= size) {
                let line = model.lines.make(31, 0);
                content.extend_from_slice(&model.lines.all[line].content);
                content.push(b'\n');
                written += 1;
            }
            model.write_from(uid, 0, &content);
        });
    }

    fn trim(&mut self, lines: u64) {
        self.with_input(|model, uid| {
            let track = model.tracks.entry(uid).or_default();
            let from = track.placed.len().saturating_sub(lines as usize);
            let from = track.placed.get(from).map(|placed| placed.start as usize);
            if let Some(from) = from.filter(|from| *from > 0) {
                let content = model.disk.node(uid).data[from..].to_vec();
                model.write_from(uid, 0, &content);
            }
        });
    }

    fn obstacle(&mut self, what: u64, comes_back: u64) {
        let model = self.shared.model();
        let kind = model.disk.at(Path::new(INPUT)).map(|uid| model.disk.node(uid).kind);
        drop(model);
        match kind {
            Some(FileKind::Regular) | None => {
                self.move_away();
                let kind = if what == 0 { FileKind::Fifo } else { FileKind::Directory };
                let mut model = self.shared.model();
                let now_ns = model.now_ns();
                model.disk.create(Path::new(INPUT), kind, now_ns);
            }
            Some(_) => {
                let _ = self.shared.model().disk.remove(Path::new(INPUT));
                if comes_back == 1 {
                    self.move_back();
                }
            }
        }
    }
}

impl Daemon {
    /// Hands over what was reported and turns until there is nothing to do at once.
    fn turn(&mut self, shared: &Shared, records: u64) -> Next {
        for report in self.reports.drain(..) {
            self.pipeline.on(Event::State(report));
        }
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
