//! The world around the daemon, as it really is: files with every byte ever written, a broker, time.
//! The doors call in here; what they see is compared with what must be true.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use openalgo_bridge::domain::acks::RecordId;
use openalgo_bridge::domain::position::{Generation, Sha256};

use crate::counters::Counters;
use crate::disk::Disk;
use crate::lines::Lines;
use crate::oracle::Checkpoints;
use crate::owed::Owed;
use crate::reading::Handle;
use crate::script::Config;
use crate::sending::{Broker, Order};

/// What a rule that was broken says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Violation {
    /// Of the catalogue, section 2; `id`: two lines have one name; `panic`.
    pub(crate) rule: &'static str,
    pub(crate) text: String,
}

/// A whole line that stands in a file now.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Placed {
    pub(crate) start: u64,
    pub(crate) end: u64,
    /// None: blank.
    pub(crate) line: Option<usize>,
    /// When its LF was written, in ticks.
    pub(crate) written: u64,
}

/// What is known of a life of an inode that stood at the input path.
#[allow(clippy::struct_excessive_bools)] // they are facts, not states of one thing
#[derive(Default)]
pub(crate) struct Track {
    pub(crate) placed: Vec<Placed>,
    /// The rest of a line that someone began to write.
    pub(crate) unfinished: Vec<u8>,
    /// How often bytes that were or may have been read were replaced.
    pub(crate) cuts: u64,
    /// How often the daemon opened it.
    pub(crate) opens: u64,
    /// When it came to the path: later files have a larger number.
    pub(crate) order: u64,
    pub(crate) moved_back: bool,
    /// A life of it may be known to nobody any more.
    pub(crate) ambiguous: bool,
    /// The first start began behind these bytes, as it was told to.
    pub(crate) skipped: u64,
    /// It was quiet for so long that it counted as finished here: what comes behind is not read.
    pub(crate) finished: Option<u64>,
    /// And that was within a line: what followed it would be no line of the model's, so nothing does.
    pub(crate) ended_within_a_line: bool,
    /// How far it was read at all, by any run.
    pub(crate) ever_read: u64,
    /// How much of it the present run saw, since it was last cut.
    pub(crate) seen: u64,
    /// How often content was destroyed: the number of the life that is written now.
    pub(crate) life: u64,
    /// It was made from another file, and nobody has it open to write to it.
    pub(crate) copy: bool,
    /// It stands in the state directory.
    pub(crate) kept: bool,
    /// It was beside the input before the first start: nobody asks for it.
    pub(crate) before_start: bool,
    /// Whether it is found is left open, see `owed.rs`.
    pub(crate) unjudged: bool,
    /// It was written when the wall clock was behind what it had shown before.
    pub(crate) in_the_past: bool,
    /// When its lines last got a reason to come again, in ticks.
    pub(crate) cause: u64,
    /// What was owed and vanished since the last look.
    pub(crate) gone: Vec<Owed>,
    /// It goes on with the content of another one, which it replaced.
    pub(crate) replaces: Option<u64>,
    /// And more was written to that one since.
    pub(crate) differs_from_replaced: bool,
    /// It is a copy of this file, of which that run had read so much already.
    pub(crate) copied_from: Option<CopiedFrom>,
}

/// Where a file is to be read on: behind `from` in that life; and when that was written down, in ticks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Continued {
    pub(crate) from: u64,
    pub(crate) life: u64,
    pub(crate) tick: u64,
}

/// How far a file had been read when a copy was made of it, where that is beyond doubt.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CopiedFrom {
    pub(crate) uid: u64,
    pub(crate) read: u64,
    pub(crate) run: u64,
}

#[allow(clippy::struct_excessive_bools)] // they are facts, not states of one thing
pub(crate) struct Model {
    pub(crate) config: Config,
    pub(crate) now: Duration,
    pub(crate) wall_jump_ms: i64,
    pub(crate) clock_jumped: bool,
    /// The latest time that a file got.
    pub(crate) latest_ns: i64,
    pub(crate) disk: Disk,
    pub(crate) broker: Broker,
    pub(crate) lines: Lines,
    pub(crate) tracks: BTreeMap<u64, Track>,
    pub(crate) handles: BTreeMap<u64, Handle>,
    pub(crate) next_handle: u64,
    /// Counts what happens, to say what came before what.
    pub(crate) tick: u64,
    /// Which life of the daemon this is.
    pub(crate) run: u64,
    pub(crate) alive: bool,
    /// Records that are not settled, by place, of the present run or the one that just died.
    pub(crate) open: BTreeMap<(Generation, u64), (RecordId, usize)>,
    pub(crate) places: BTreeMap<RecordId, (Generation, u64)>,
    /// What the sink has not reported on.
    pub(crate) in_flight: BTreeMap<RecordId, usize>,
    /// The present run reads what was kept of a file that is gone.
    pub(crate) took_kept: bool,
    /// Which line a place holds, and which file a generation is of.
    pub(crate) named: BTreeMap<(Generation, u64), usize>,
    pub(crate) generations: BTreeMap<Generation, u64>,
    /// Lines that the present run has read.
    pub(crate) consumed: BTreeSet<usize>,
    /// When they were read, in ticks, and from which file, until they are sent.
    pub(crate) read_at: BTreeMap<usize, VecDeque<(u64, u64)>>,
    /// Lines that the present run handed to the sink.
    pub(crate) sent: BTreeSet<usize>,
    pub(crate) order: Order,
    /// The life and the offset that were first delivered last, by key and file.
    pub(crate) furthest: BTreeMap<(&'static str, u64), (u64, u64)>,
    /// The input or what is beside it could not be looked at, and was not since.
    pub(crate) is_blind: bool,
    /// Since a read failed, files may overtake each other.
    pub(crate) order_excused: bool,
    /// Where the present run had to go on, by file.
    pub(crate) continued: BTreeMap<u64, Continued>,
    pub(crate) checkpoints: Checkpoints,
    /// What must arrive or be told as lost, because the present run has seen it.
    pub(crate) owed: BTreeSet<Owed>,
    /// What was, and vanished so that nobody could see it.
    pub(crate) unnoticed: BTreeSet<Owed>,
    /// How many losses were told before those.
    pub(crate) told_before: usize,
    /// Files that found no place among the open ones, at the end of the last turn.
    pub(crate) waiting: usize,
    /// Bytes read in this run, records acknowledged, rejects durable.
    pub(crate) run_read: u64,
    pub(crate) run_delivered: u64,
    pub(crate) run_published: u64,
    pub(crate) disturbed: bool,
    /// Someone removed or damaged the state.
    pub(crate) state_was_lost: bool,
    /// A stop could not write down what it did last.
    pub(crate) stop_unwritten: bool,
    /// The daemon is starting.
    pub(crate) is_starting: bool,
    /// Calls on the input failed while the daemon started.
    pub(crate) blind_start: bool,
    pub(crate) violation: Option<Violation>,
    pub(crate) counters: Counters,
    /// The hash of everything that happened.
    pub(crate) trace: u64,
    /// Said aloud, when one seed is replayed.
    pub(crate) loud: bool,
}

impl Model {
    pub(crate) fn new(config: Config) -> Self {
        Self {
            now: Duration::from_secs(1_000),
            wall_jump_ms: 0,
            clock_jumped: false,
            latest_ns: 0,
            disk: Disk::new(config.reuses, config.births),
            broker: Broker { up: true, window: config.window as usize, ..Broker::default() },
            lines: Lines::new(config.headers),
            tracks: BTreeMap::new(),
            handles: BTreeMap::new(),
            next_handle: 0,
            tick: 0,
            run: 0,
            alive: false,
            open: BTreeMap::new(),
            places: BTreeMap::new(),
            in_flight: BTreeMap::new(),
            took_kept: false,
            named: BTreeMap::new(),
            generations: BTreeMap::new(),
            consumed: BTreeSet::new(),
            read_at: BTreeMap::new(),
            sent: BTreeSet::new(),
            order: Order::new(),
            furthest: BTreeMap::new(),
            is_blind: false,
            order_excused: false,
            continued: BTreeMap::new(),
            checkpoints: Checkpoints::default(),
            owed: BTreeSet::new(),
            unnoticed: BTreeSet::new(),
            told_before: 0,
            waiting: 0,
            run_read: 0,
            run_delivered: 0,
            run_published: 0,
            disturbed: false,
            state_was_lost: false,
            stop_unwritten: false,
            is_starting: false,
            blind_start: false,
            violation: None,
            counters: Counters::default(),
            trace: 0xcbf2_9ce4_8422_2325,
            loud: false,
            config,
        }
    }

    /// A life of the daemon begins.
    pub(crate) fn begin_run(&mut self) {
        self.run += 1;
        self.alive = true;
        self.broker.queue.clear();
        self.broker.flight.clear();
        self.broker.outcomes.clear();
        self.broker.last_outcome = None;
        self.in_flight.clear();
        self.took_kept = false;
        self.consumed.clear();
        self.read_at.clear();
        self.sent.clear();
        self.order.clear();
        self.waiting = 0;
        (self.run_read, self.run_delivered, self.run_published) = (0, 0, 0);
        self.checkpoints.new_run();
        self.happened("start", &[self.run]);
    }

    /// It ended, by itself or not.
    pub(crate) fn end_run(&mut self, clean: bool) {
        self.disk.calls_left = None;
        if !clean {
            // Lives that it knew of may be known to nobody now.
            self.tracks.values_mut().for_each(|track| track.ambiguous |= track.cuts > 0);
        }
        for track in self.tracks.values_mut() {
            track.unjudged |= self.is_blind && track.opens == 0;
            track.seen = 0;
            track.gone.clear();
        }
        self.owed.clear();
        self.happened("end", &[u64::from(clean)]);
    }

    pub(crate) fn unix_ms(&self) -> i64 {
        1_769_682_645_000 + self.now.as_millis() as i64 + self.wall_jump_ms
    }

    /// What files get as their times: the wall clock, which may go back. No two are the same.
    pub(crate) fn now_ns(&self) -> i64 {
        self.unix_ms() * 1_000_000 + self.tick.cast_signed()
    }

    /// Records the first rule that was broken.
    pub(crate) fn violate(&mut self, rule: &'static str, text: String) {
        if self.violation.is_none() {
            self.violation = Some(Violation { rule, text });
        }
    }

    /// Adds what happened to the trace.
    pub(crate) fn happened(&mut self, what: &str, numbers: &[u64]) {
        for byte in what.bytes().chain(numbers.iter().flat_map(|number| number.to_le_bytes())) {
            self.trace = (self.trace ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        if self.loud {
            println!("    {what} {numbers:?}");
        }
    }

    pub(crate) fn tick(&mut self) -> u64 {
        self.tick += 1;
        self.tick
    }

    // --- what the application does ----------------------------------------------------------

    /// Replaces everything from `from` on.
    pub(crate) fn write_from(&mut self, uid: u64, from: usize, bytes: &[u8]) {
        let tick = self.tick();
        let modified_ns = self.now_ns();
        self.tracks.entry(uid).or_default().in_the_past |= modified_ns < self.latest_ns;
        self.latest_ns = self.latest_ns.max(modified_ns);
        let destroyed = {
            let node = self.disk.node_mut(uid);
            let destroyed = from < node.data.len();
            node.data.truncate(from);
            node.data.extend_from_slice(bytes);
            node.durable_length = node.durable_length.min(from);
            node.modified_ns = modified_ns;
            destroyed
        };
        if destroyed {
            self.destroyed(uid, from as u64, tick);
        }
        let track = self.tracks.entry(uid).or_default();
        let kept = track.placed.partition_point(|placed| placed.end <= from as u64);
        track.placed.truncate(kept);
        self.place_lines(uid);
    }

    /// What stood behind `from` is not there any more.
    fn destroyed(&mut self, uid: u64, from: u64, tick: u64) {
        let handle = self.handles.values().rfind(|handle| handle.uid == uid && handle.is_lane);
        // Where it was not read yet, it may be behind what it found.
        let read = handle.map(|it| if it.was_read { it.position } else { u64::MAX });
        let data = &self.disk.nodes[&uid].data;
        let unnoticed = handle.is_some_and(|handle| handle.finds_itself_in(data));
        let track = self.tracks.entry(uid).or_default();
        self.disturbed = true;
        track.life += 1;
        track.cause = tick;
        if let Some(read) = read.filter(|_| self.alive) {
            if from < read.max(track.ever_read) {
                track.cuts += 1;
                // An earlier run read it, and this one does not know that.
                track.ambiguous |= unnoticed;
            }
        } else {
            track.cuts += 1;
            // Where what is known of it is still there, nobody can tell that the rest is new.
            track.ambiguous |= from > 0 || self.config.headers;
        }
        let gone = self.owed.iter().filter(|owed| owed.uid == uid && owed.end > from);
        track.gone.extend(gone.copied());
        for mark in [&mut track.ever_read, &mut track.skipped, &mut track.seen] {
            *mark = from.min(*mark);
        }
        track.finished = track.finished.map(|finished| from.min(finished));
    }

    /// Finds the lines behind the last one that is known.
    pub(crate) fn place_lines(&mut self, uid: u64) {
        let tick = self.tick;
        let (data, max_line) = (&self.disk.nodes[&uid].data, self.config.max_line as usize);
        let track = self.tracks.entry(uid).or_default();
        let mut start = track.placed.last().map_or(0, |placed| placed.end as usize);
        let mut fresh = Vec::new();
        while let Some(length) = memchr::memchr(b'\n', &data[start..]) {
            fresh.push((start, start + length + 1));
            start += length + 1;
        }
        for (start, end) in fresh {
            let (skipped, content) = content_of(&data[..end], start);
            let blank = content.iter().all(|byte| matches!(byte, b' ' | b'\t' | b'\r'));
            let line = (!blank || content.len() > max_line).then(|| self.lines.judge(content));
            if let Some(line) = line.filter(|_| !track.copy) {
                self.lines.all[line].stands_at(uid, track.life, (start + skipped) as u64);
            }
            let (start, end) = (start as u64, end as u64);
            track.placed.push(Placed { start, end, line, written: tick });
        }
    }

    pub(crate) fn append(&mut self, uid: u64, bytes: &[u8]) {
        let end = self.disk.node(uid).data.len();
        self.write_from(uid, end, bytes);
    }

    /// Notes where a line will stand that is being written piece by piece.
    pub(crate) fn expect_at_end(&mut self, uid: u64, line: usize) {
        let life = self.tracks.entry(uid).or_default().life;
        let end = self.disk.node(uid).data.len() as u64;
        self.lines.all[line].stands_at(uid, life, end);
    }
}

/// What a line is without its end, and how many bytes at its start are no content.
fn content_of(data: &[u8], start: usize) -> (usize, &[u8]) {
    let line = data[start..].strip_suffix(b"\n").unwrap_or(&data[start..]);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let bom = if start == 0 && line.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
    let skipped = bom + line[bom..].iter().take_while(|byte| **byte == 0).count();
    (skipped, &line[skipped..])
}

/// A hash as the rejects show it.
pub(crate) fn sha(content: &[u8]) -> String {
    Sha256::of(content).to_string()
}
