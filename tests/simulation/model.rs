//! The world around the daemon, as it really is: files with every byte ever written, a broker, time.
//! The doors call in here; what they see is compared with what must be true.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use openalgo_bridge::checkpoint::GenerationState;
use openalgo_bridge::domain::acks::RecordId;
use openalgo_bridge::domain::delivery::Outcome;
use openalgo_bridge::domain::envelope::{Reason, Rejection};
use openalgo_bridge::domain::framing::CONTEXT_BYTES;
use openalgo_bridge::domain::position::{Generation, Sha256};
use openalgo_bridge::platform::fs::FileFacts;
use openalgo_bridge::sink::Message;

use crate::counters::Counters;
use crate::disk::Disk;
use crate::lines::{Class, Lines};
use crate::rng::Rng;
use crate::script::Config;

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
    /// How far it was read at all, by any run.
    pub(crate) ever_read: u64,
    /// The largest size that the daemon saw since it last shrank.
    pub(crate) seen: u64,
    /// Unread bytes that vanished: they count as lost if the daemon can notice that.
    pub(crate) vanished: Option<(u64, u64)>,
}

/// An open input file of the daemon.
pub(crate) struct Handle {
    pub(crate) uid: u64,
    /// How far it was read, and the bytes before that.
    pub(crate) position: u64,
    tail: Option<Vec<u8>>,
    /// What the file has to begin with, while nothing was read.
    head: Option<Vec<u8>>,
    /// When something new was last read, or it was opened.
    pub(crate) last_data: Duration,
}

impl Handle {
    /// Whether what is known of the file is still there.
    fn finds_itself_in(&self, data: &[u8]) -> bool {
        let tail = self.tail.as_deref().unwrap_or_default();
        let before = data.get(self.position as usize - tail.len()..self.position as usize);
        self.head.as_ref().is_none_or(|head| data.starts_with(head))
            && before.is_some_and(|before| before == tail)
    }
}

/// When a line was read, and how many cuts and openings its file had seen.
#[derive(Clone, Copy, Debug)]
struct WhenRead {
    tick: u64,
    cuts: u64,
    opens: u64,
}

/// A record at the sink.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Record {
    pub(crate) id: RecordId,
    pub(crate) line: usize,
    /// It was sent before, and the acknowledgement was lost.
    again: bool,
    read: Option<WhenRead>,
}

/// The other side, behind a sink that keeps the order.
#[derive(Default)]
pub(crate) struct Broker {
    pub(crate) up: bool,
    pub(crate) window: usize,
    pub(crate) queue: VecDeque<Record>,
    pub(crate) flight: Vec<Record>,
    pub(crate) outcomes: Vec<(RecordId, Outcome)>,
    pub(crate) last_outcome: Option<(RecordId, Outcome)>,
}

/// The first deliveries of a key: for each file the earliest tick at which one that went out was read.
type Order = BTreeMap<(&'static str, u64), u64>;

#[allow(clippy::struct_excessive_bools)] // they are facts, not states of one thing
pub(crate) struct Model {
    pub(crate) config: Config,
    pub(crate) now: Duration,
    pub(crate) wall_jump_ms: i64,
    pub(crate) disk: Disk,
    pub(crate) broker: Broker,
    pub(crate) lines: Lines,
    pub(crate) tracks: BTreeMap<u64, Track>,
    pub(crate) handles: BTreeMap<u64, Handle>,
    next_handle: u64,
    /// Counts what happens, to say what came before what.
    pub(crate) tick: u64,
    /// Which life of the daemon this is.
    pub(crate) run: u64,
    pub(crate) alive: bool,
    /// Records that are not settled, by place, of the present run or the one that just died.
    pub(crate) open: BTreeMap<(Generation, u64), (RecordId, usize)>,
    pub(crate) places: BTreeMap<RecordId, (Generation, u64)>,
    /// Which line a place holds, and which file a generation is of.
    named: BTreeMap<(Generation, u64), usize>,
    pub(crate) generations: BTreeMap<Generation, u64>,
    /// Lines that the present run has read.
    pub(crate) consumed: BTreeSet<usize>,
    read_at: BTreeMap<usize, WhenRead>,
    order: Order,
    /// The largest offset first delivered, by key, file and cut.
    furthest: BTreeMap<(&'static str, u64, u64), u64>,
    /// Since a read failed, files may overtake each other.
    pub(crate) order_excused: bool,
    /// Where the present run went on, if it had to.
    pub(crate) continued: Option<(u64, u64)>,
    pub(crate) checkpoints: crate::oracle::Checkpoints,
    /// What the present run knows of a file that was not there when it started.
    pub(crate) remembered: Option<GenerationState>,
    /// Bytes that must be told as lost.
    pub(crate) must_be_told: Vec<crate::oracle::Expected>,
    /// Bytes read in this run, records acknowledged, rejects durable.
    pub(crate) run_read: u64,
    pub(crate) run_delivered: u64,
    pub(crate) run_published: u64,
    pub(crate) disturbed: bool,
    /// Someone removed or damaged the state.
    pub(crate) state_was_lost: bool,
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
            disk: Disk::new(config.reuses, config.births),
            broker: Broker { up: true, window: config.window as usize, ..Broker::default() },
            lines: Lines::default(),
            tracks: BTreeMap::new(),
            handles: BTreeMap::new(),
            next_handle: 0,
            tick: 0,
            run: 0,
            alive: false,
            open: BTreeMap::new(),
            places: BTreeMap::new(),
            named: BTreeMap::new(),
            generations: BTreeMap::new(),
            consumed: BTreeSet::new(),
            read_at: BTreeMap::new(),
            order: Order::new(),
            furthest: BTreeMap::new(),
            order_excused: false,
            continued: None,
            checkpoints: crate::oracle::Checkpoints::default(),
            remembered: None,
            must_be_told: Vec::new(),
            run_read: 0,
            run_delivered: 0,
            run_published: 0,
            disturbed: false,
            state_was_lost: false,
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
        self.consumed.clear();
        self.read_at.clear();
        self.order.clear();
        self.order_excused = false;
        self.remembered = None;
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
            self.must_be_told.clear();
        }
        for track in self.tracks.values_mut() {
            track.vanished = None;
            track.seen = 0;
        }
        self.happened("end", &[u64::from(clean)]);
    }

    pub(crate) fn unix_ms(&self) -> i64 {
        1_769_682_645_000 + self.now.as_millis() as i64 + self.wall_jump_ms
    }

    pub(crate) fn now_ns(&self) -> i64 {
        self.now.as_nanos() as i64
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
        self.tick();
        let alive = self.alive;
        let destroyed = {
            let node = self.disk.node_mut(uid);
            let destroyed = from < node.data.len();
            node.data.truncate(from);
            node.data.extend_from_slice(bytes);
            node.durable_length = node.durable_length.min(from);
            destroyed
        };
        let handle = self.handles.values().rfind(|handle| handle.uid == uid);
        let read = handle.map(|handle| handle.position);
        let data = &self.disk.nodes[&uid].data;
        let unnoticed = handle.is_some_and(|handle| handle.finds_itself_in(data));
        let track = self.tracks.entry(uid).or_default();
        if destroyed {
            self.disturbed = true;
            if alive && let Some(read) = read {
                let before = track.vanished.map_or(track.seen, |(_, seen)| seen);
                track.vanished = (track.seen > 0).then_some((read.min(from as u64), before));
                if (from as u64) < read.max(track.ever_read) {
                    track.cuts += 1;
                    // An earlier run read it, and this one does not know that.
                    track.ambiguous |= unnoticed;
                }
            } else {
                track.cuts += 1;
                // Where what is known of it is still there, nobody can tell that the rest is new.
                track.ambiguous |= from > 0 || self.config.headers;
            }
            track.ever_read = track.ever_read.min(from as u64);
            track.skipped = track.skipped.min(from as u64);
        }
        let kept = track.placed.partition_point(|placed| placed.end <= from as u64);
        track.placed.truncate(kept);
        self.place_lines(uid);
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
            if let Some(line) = line {
                let home = (uid, (start + skipped) as u64);
                let homes = &mut self.lines.all[line].homes;
                if !homes.contains(&home) {
                    homes.push(home);
                }
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
        let home = (uid, self.disk.node(uid).data.len() as u64);
        self.lines.all[line].homes.push(home);
    }

    // --- what the daemon reads --------------------------------------------------------------

    pub(crate) fn on_opened(&mut self, uid: u64) -> u64 {
        self.next_handle += 1;
        let handle = Handle { uid, position: 0, tail: None, head: None, last_data: self.now };
        self.handles.insert(self.next_handle, handle);
        let track = self.tracks.entry(uid).or_default();
        track.opens += 1;
        track.finished = None;
        // What it knew of an earlier life may be forgotten.
        track.ambiguous |= track.cuts > 0;
        track.seen = 0;
        track.vanished = None;
        self.happened("open", &[uid]);
        self.on_adopted(uid);
        self.next_handle
    }

    /// The daemon goes on with a file that it opened behind `position`.
    pub(crate) fn goes_on_behind(&mut self, uid: u64, position: u64, head: u64) {
        let data = &self.disk.nodes[&uid].data;
        let end = (position as usize).min(data.len());
        let tail = data[end.saturating_sub(CONTEXT_BYTES)..end].to_vec();
        let head = data.get(..head as usize).filter(|_| position == 0).map(<[u8]>::to_vec);
        if let Some(handle) = self.handles.values_mut().find(|handle| handle.uid == uid) {
            (handle.position, handle.tail, handle.head) = (end as u64, Some(tail), head);
        }
    }

    /// The daemon sees the size of a file that it has open.
    pub(crate) fn on_facts(&mut self, uid: u64) -> FileFacts {
        let facts = self.disk.facts(uid);
        let mut handles = self.handles.values_mut();
        let Some(handle) = handles.rfind(|handle| handle.uid == uid) else { return facts };
        let (read, data) = (handle.position, &self.disk.nodes[&uid].data);
        let differs = !handle.finds_itself_in(data);
        // The daemon finds that out by itself, and begins anew.
        handle.head.take_if(|_| facts.size == 0);
        let track = self.tracks.entry(uid).or_default();
        if let Some((from, seen)) = track.vanished.take() {
            // Shorter than it was, or other bytes where it was read: that can be noticed.
            if differs || facts.size < seen {
                let from = if differs { read } else { from.max(facts.size) };
                if from < seen {
                    let expected = crate::oracle::Expected { generation: None, from, to: seen };
                    self.must_be_told.push(expected);
                }
            }
            self.tracks.entry(uid).or_default().seen = facts.size;
        } else {
            track.seen = track.seen.max(facts.size);
        }
        facts
    }

    /// The daemon read `count` bytes at `offset`, of which `wanted` should be known to it already.
    pub(crate) fn on_read(&mut self, handle: u64, wanted: usize, offset: u64, count: usize) {
        let tick = self.tick();
        let Some(handle) = self.handles.get_mut(&handle) else { return };
        let position = offset + wanted as u64;
        if count < wanted {
            return;
        }
        let (uid, mut from) = (handle.uid, offset as usize);
        let data = &self.disk.nodes[&uid].data;
        if handle.position == position
            && let Some(tail) = &handle.tail
        {
            from = position as usize - tail.len();
            if data[from..position as usize] != tail[..] {
                self.counters.cuts_noticed += 1;
                return;
            }
        }
        if handle.head.take().is_some_and(|head| !data.starts_with(&head)) {
            return;
        }
        let fresh = count - wanted;
        handle.position = position + fresh as u64;
        let end = handle.position as usize;
        let from = end.saturating_sub(CONTEXT_BYTES).max(from);
        handle.tail = Some(data[from..end].to_vec());
        if fresh == 0 {
            return;
        }
        handle.last_data = self.now;
        self.remembered = None;
        self.run_read += fresh as u64;
        let track = self.tracks.entry(uid).or_default();
        track.ever_read = track.ever_read.max(end as u64);
        let first = track.placed.partition_point(|placed| placed.end <= position);
        for placed in track.placed[first..].iter().take_while(|placed| placed.end <= end as u64) {
            if let Some(line) = placed.line {
                self.consumed.insert(line);
                let (cuts, opens) = (track.cuts, track.opens);
                self.read_at.insert(line, WhenRead { tick, cuts, opens });
            }
        }
        self.happened("read", &[uid, position, fresh as u64]);
    }

    /// The daemon closes a file.
    pub(crate) fn on_closed(&mut self, handle: u64) {
        let Some(handle) = self.handles.remove(&handle) else { return };
        if !self.alive || self.handles.values().any(|other| other.uid == handle.uid) {
            return;
        }
        let quiet = self.now.saturating_sub(handle.last_data) >= Duration::from_mins(5);
        let unread =
            self.tracks[&handle.uid].placed.last().is_some_and(|last| last.end > handle.position);
        self.happened("close", &[handle.uid]);
        // One that was opened only to be compared is looked at again.
        let is_input = self.disk.input() == Some(handle.uid);
        if unread && !quiet && !is_input && handle.tail.is_some() {
            self.violate("V1", format!("file {} was closed with unread lines", handle.uid));
        }
        self.counters.closed_after_quiet += u64::from(quiet);
        if quiet
            && !is_input
            && let Some(track) = self.tracks.get_mut(&handle.uid)
        {
            track.finished = Some(handle.position);
        }
    }

    // --- what the daemon sends --------------------------------------------------------------

    pub(crate) fn on_published(&mut self, id: RecordId, message: &Message) {
        self.run_published += 1;
        let Some(line) = self.lines.find(message.payload()) else {
            let text = format!("published what nobody wrote: {}", message.payload().escape_ascii());
            return self.violate("V2", text);
        };
        let place = (message.generation, message.offset);
        let expected = &self.lines.all[line];
        let fits = match expected.class {
            Class::Valid | Class::Old | Class::Poison => {
                expected.key.as_bytes() == message.user_id()
            }
            Class::Torn => true,
            Class::Filtered | Class::Invalid(_) => false,
        };
        if !fits {
            let text = format!("line {line} ({:?}) was published with another key", expected.class);
            return self.violate("V2", text);
        }
        if !expected.homes.iter().any(|(_, offset)| *offset == message.offset) {
            let text = format!("line {line} was published as from offset {}", message.offset);
            return self.violate("V2", text);
        }
        self.name(place, line);
        self.open.insert(place, (id, line));
        self.places.insert(id, place);
        let read = self.read_at.get(&line).copied();
        self.broker.queue.push_back(Record { id, line, again: false, read });
        self.happened("publish", &[id.0, line as u64, place.0.0, place.1]);
    }

    /// A generation and an offset are the name of one line for ever.
    pub(crate) fn name(&mut self, place: (Generation, u64), line: usize) {
        let Line { homes, header, .. } = &self.lines.all[line];
        let uid = homes.iter().rev().find(|(_, offset)| *offset == place.1).map(|(uid, _)| *uid);
        let ambiguous =
            uid.is_none_or(|uid| self.tracks.get(&uid).is_none_or(|track| track.ambiguous));
        // Without births, two files with the same inode and first line are one.
        let alike = self.config.headers || self.config.reuses;
        if ambiguous || (!self.config.births && alike) {
            return;
        }
        if homes.len() == 1
            && !header
            && let Some(uid) = uid
        {
            let known = *self.generations.entry(place.0).or_insert(uid);
            if known != uid && !self.tracks.get(&known).is_none_or(|track| track.ambiguous) {
                let text = format!("files {known} and {uid} have the same generation {}", place.0);
                self.violate("id", text);
            }
        }
        let known = *self.named.entry(place).or_insert(line);
        let (a, b) = (&self.lines.all[known].content, &self.lines.all[line].content);
        // What was taken for the last line of a file that was over may go on after all.
        if a != b && !a.starts_with(b) && !b.starts_with(a) {
            let (generation, offset) = place;
            let text = format!("{generation}:{offset} names the lines {known} and {line}");
            self.violate("id", text);
        }
        self.named.insert(place, line);
    }

    /// The sink's turn: sends what the window lets through and hands over what came back.
    pub(crate) fn on_settle(&mut self, outcomes: &mut Vec<(RecordId, Outcome)>) {
        self.send();
        for (id, outcome) in self.broker.outcomes.drain(..) {
            if !matches!(outcome, Outcome::Refused(_))
                && let Some(place) = self.places.get(&id)
                && let Some((_, line)) = self.open.get(place).filter(|(open, _)| *open == id)
            {
                self.lines.all[*line].settled = true;
                self.open.remove(place);
                self.run_delivered += u64::from(outcome == Outcome::Delivered);
            }
            outcomes.push((id, outcome));
        }
    }

    pub(crate) fn send(&mut self) {
        while self.broker.up && self.broker.flight.len() < self.broker.window {
            let Some(mut record) = self.broker.queue.pop_front() else { return };
            if matches!(self.lines.all[record.line].class, Class::Valid | Class::Torn) {
                self.deliver(record);
            }
            record.again = true;
            self.broker.flight.push(record);
        }
    }

    fn deliver(&mut self, record: Record) {
        let line = record.line;
        self.happened("deliver", &[line as u64]);
        self.counters.delivered += 1;
        let (times, header) = (self.lines.all[line].delivered, self.lines.all[line].header);
        self.lines.all[line].delivered += 1;
        let home = self.lines.all[line].homes.clone();
        let [(uid, offset)] = home[..] else { return };
        let Some(track) = self.tracks.get(&uid) else { return };
        let epoch = record.read.map_or(0, |read| read.cuts + read.opens);
        let before = self.lines.all[line].last.replace((self.run, epoch));
        if header || record.again {
            self.counters.sent_again += u64::from(record.again);
            return;
        }
        if times == 0 {
            self.check_order(record, uid, offset);
            return;
        }
        self.counters.repeated += 1;
        let end = offset + self.lines.all[line].content.len() as u64;
        match before {
            Some((run, known)) if run == self.run && known == epoch => {
                self.violate("V8", format!("line {line} was sent twice without a reason"));
            }
            Some((run, _)) if run != self.run => {
                if let Some((continued, from)) = self.continued
                    && continued == uid
                    && end <= from
                    && track.opens + track.cuts == self.checkpoints.epoch_at_start
                {
                    let text = format!("line {line} ends before {from}, where the run went on");
                    self.violate("V8", text);
                }
            }
            _ => {}
        }
    }

    /// First deliveries of a key are in file order, files in the order in which they stood at the
    /// path. What was written to an older file after the newer one was read is late.
    fn check_order(&mut self, record: Record, uid: u64, offset: u64) {
        let line = record.line;
        let Some(track) = self.tracks.get(&uid) else { return };
        let key = self.lines.all[line].key;
        // The unfinished last line of a file is in no other order than behind all others.
        let Some(WhenRead { tick: read, cuts, .. }) = record.read else { return };
        let furthest = self.furthest.entry((key, uid, cuts)).or_default();
        let in_file = *furthest <= offset;
        *furthest = offset;
        let written = track
            .placed
            .binary_search_by_key(&offset, |placed| placed.start)
            .ok()
            .map(|index| track.placed[index].written);
        let (order, moved_back) = (track.order, track.moved_back);
        if !in_file {
            self.violate(
                "V4",
                format!("line {line} at {offset} came after later lines of its file"),
            );
        }
        if self.order_excused || moved_back {
            return;
        }
        let overtaken = self
            .order
            .range((key, order + 1)..(key, u64::MAX))
            .find(|(_, other)| written.is_some_and(|written| written < **other));
        if let Some(((_, newer), _)) = overtaken {
            let text =
                format!("line {line} of file number {order} came after lines of number {newer}");
            self.violate("V4", text);
        }
        let earliest = self.order.entry((key, order)).or_insert(read);
        *earliest = read.min(*earliest);
    }

    pub(crate) fn acknowledge(&mut self, count: u64, luck: u64) {
        let mut rng = Rng::new(luck);
        self.send();
        for _ in 0..count.min(self.broker.flight.len() as u64) {
            let at = rng.below(self.broker.flight.len() as u64) as usize;
            // Half of the scripts' acknowledgements come in order.
            let record = self.broker.flight.remove(if luck.is_multiple_of(2) { 0 } else { at });
            let outcome = match self.lines.all[record.line].class {
                Class::Old => Outcome::LeftOut,
                Class::Poison => {
                    self.counters.refused += 1;
                    Outcome::Refused(Rejection::new(Reason::Refused, "poison"))
                }
                _ => Outcome::Delivered,
            };
            self.counters.left_out += u64::from(outcome == Outcome::LeftOut);
            self.happened("ack", &[record.id.0]);
            self.broker.last_outcome = Some((record.id, outcome.clone()));
            self.broker.outcomes.push((record.id, outcome));
        }
    }

    /// What was sent and is not acknowledged is to be sent again, in its order.
    pub(crate) fn connection_lost(&mut self) {
        let mut again = std::mem::take(&mut self.broker.flight);
        again.sort_by_key(|record| record.id);
        for record in again.into_iter().rev() {
            self.broker.queue.push_front(record);
        }
    }
}

use crate::lines::Line;

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
