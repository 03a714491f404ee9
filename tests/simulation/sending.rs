//! What the daemon sends: that it was written, once, in order, under one name.

use std::collections::{BTreeMap, VecDeque};

use openalgo_bridge::domain::acks::RecordId;
use openalgo_bridge::domain::delivery::Outcome;
use openalgo_bridge::domain::envelope::{Reason, Rejection};
use openalgo_bridge::domain::position::Generation;
use openalgo_bridge::sink::Message;

use crate::lines::{Class, Home, Line};
use crate::model::{Continued, Model};
use crate::rng::Rng;

/// A record at the sink.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Record {
    pub(crate) id: RecordId,
    pub(crate) line: usize,
    /// It was sent before, and the acknowledgement was lost.
    pub(crate) again: bool,
    /// When it was read, in ticks, and from which file.
    pub(crate) read: Option<(u64, u64)>,
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

/// A delivery: in which run, and when the line had been read for it, from which file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Delivered {
    run: u64,
    tick: u64,
    uid: u64,
}

/// The first deliveries of a key: for each file the earliest tick at which one that went out was read.
pub(crate) type Order = BTreeMap<(&'static str, u64), u64>;

/// Up to here files may be alike that all begin with the same line.
const ALIKE: u64 = 130;

impl Model {
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
        // A line without its end was read as none, and may have been moved.
        let was_read = self.read_at.get(&line).is_some_and(|reads| !reads.is_empty());
        if was_read && !expected.homes.iter().any(|home| home.offset == message.offset) {
            let text = format!("line {line} was published as from offset {}", message.offset);
            return self.violate("V2", text);
        }
        let mut reads = self.read_at.get_mut(&line);
        let read = reads.as_mut().and_then(|reads| reads.pop_front());
        self.name(place, line, read.map(|(_, uid)| uid));
        self.open.insert(place, (id, line));
        self.places.insert(id, place);
        self.in_flight.insert(id, line);
        // A line that is read once is sent once. What a cut left without its LF is sent as the last
        // line of a file that is over, and nobody saw it being read as a line.
        let uncut = |home: &Home| {
            self.tracks.get(&home.uid).is_some_and(|track| track.cuts == 0 && track.opens == 1)
        };
        let line_is = &self.lines.all[line];
        if read.is_none()
            && !self.sent.insert(line)
            && !line_is.header
            && line_is.homes.iter().all(uncut)
        {
            self.violate("V8", format!("line {line} was read once and sent twice"));
        }
        self.sent.insert(line);
        self.broker.queue.push_back(Record { id, line, again: false, read });
        self.happened("publish", &[id.0, line as u64, place.0.0, place.1]);
    }

    /// A generation and an offset are the name of one line for ever.
    pub(crate) fn name(&mut self, place: (Generation, u64), line: usize, from: Option<u64>) {
        let Line { homes, header, .. } = &self.lines.all[line];
        let home = homes.iter().rev().find(|home| home.offset == place.1);
        let uid = home.map(|home| home.uid);
        let ambiguous = uid
            .is_none_or(|uid| self.tracks.get(&uid).is_none_or(|it| it.ambiguous || it.moved_back));
        // Without births, two files with the same inode and first line are one.
        let alike = self.config.headers || self.config.reuses;
        // What is known of a file that is hardly more than the line that all have is true of others, too.
        let weak = self.config.headers && place.1 <= ALIKE;
        // A run that ended before it saw that a file was replaced does not know that both were written to.
        let differs = self.tracks.iter().any(|(other, track)| {
            track.differs_from_replaced
                && uid.is_some_and(|it| it == *other || track.replaces == uid)
        });
        if ambiguous || weak || differs || (!self.config.births && alike) {
            return;
        }
        // It may have been read from a copy of the file where it was written.
        if homes.len() == 1
            && !header
            && let Some(uid) = uid.filter(|uid| from.is_some_and(|from| from == *uid))
        {
            let uid = self.first_of(uid);
            let known = *self.generations.entry(place.0).or_insert(uid);
            // In a copy that was moved to the path the life of another file goes on.
            let is_back = self.tracks.get(&uid).is_some_and(|track| track.moved_back);
            let is_ambiguous = self.tracks.get(&known).is_none_or(|track| track.ambiguous);
            if known != uid && !is_back && !is_ambiguous {
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

    /// Whether files may overtake each other: one could not be read, or their times or
    /// inodes mislead.
    fn is_order_excused(&self) -> bool {
        let same_inode = self.config.reuses && !self.config.births;
        // By when it was written, a file with a late line is a later one.
        let misleads = self.config.naming == 0 && self.counters.late_lines > 0;
        // A file that begins like another one may be taken for a copy of that.
        let alike = self.config.headers;
        self.order_excused || self.clock_jumped || same_inode || misleads || alike
    }

    /// The file whose life goes on in this one.
    fn first_of(&self, mut uid: u64) -> u64 {
        while let Some(before) = self.tracks.get(&uid).and_then(|track| track.replaces) {
            uid = before;
        }
        uid
    }

    /// The sink's turn: sends what the window lets through and hands over what came back.
    pub(crate) fn on_settle(&mut self, outcomes: &mut Vec<(RecordId, Outcome)>) {
        self.send();
        for (id, outcome) in self.broker.outcomes.drain(..) {
            if !matches!(outcome, Outcome::Refused(_))
                && let Some(line) = self.in_flight.remove(&id)
            {
                self.lines.all[line].settled = true;
                self.run_delivered += u64::from(outcome == Outcome::Delivered);
                // A line that is read at two places may be in flight twice.
                let place = self.places.get(&id);
                if let Some(place) =
                    place.filter(|place| self.open.get(place).is_some_and(|it| it.0 == id))
                {
                    self.open.remove(place);
                }
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
        // The last line of a file that is over, without its LF, is in no order and was not seen as read.
        let Some(read) = record.read else { return };
        let (tick, uid) = read;
        let last = Delivered { run: self.run, tick, uid };
        let before = self.lines.all[line].last.replace(last);
        if header || record.again {
            self.counters.sent_again += u64::from(record.again);
            return;
        }
        if times == 0 {
            self.check_order(record);
            return;
        }
        self.counters.repeated += 1;
        if let Some(before) = before {
            self.check_repeated(line, before, uid);
        }
    }

    /// What was delivered before may come again, from the file `uid`, only for a reason.
    fn check_repeated(&mut self, line: usize, before: Delivered, uid: u64) {
        let homes = &self.lines.all[line].homes;
        let length = self.lines.all[line].content.len() as u64;
        let files = homes.iter().map(|home| home.uid).chain([uid]);
        let causes = files.filter_map(|uid| Some(self.tracks.get(&uid)?.cause));
        let cause = causes.max().unwrap_or_default();
        if before.run == self.run {
            let copy = self.tracks.get(&uid).filter(|it| it.life == 0 && !it.moved_back);
            let copy = copy.filter(|it| !it.differs_from_replaced);
            let copied = copy.and_then(|track| track.copied_from);
            let known = copied.filter(|copied| copied.run == self.run && !self.order_excused);
            let known = known.is_some_and(|copied| {
                homes
                    .iter()
                    .any(|home| home.uid == copied.uid && home.offset + length <= copied.read)
            });
            // Two files that have one name are kept as one.
            let alike = self.config.headers && self.config.reuses && !self.config.births;
            let twice = cause < before.tick && before.uid == uid && !(alike && self.took_kept);
            if known || twice {
                self.violate("V8", format!("line {line} was sent twice without a reason"));
            }
            return;
        }
        // Where it stands in several files, the run may have gone on before it in one of them.
        let behind = homes.iter().filter_map(|home| {
            let Some(there) = self.continued.get(&home.uid) else {
                let track = self.tracks.get(&home.uid);
                let is_other =
                    track.is_some_and(|it| it.life != home.life || it.differs_from_replaced);
                return is_other.then_some(None);
            };
            let Continued { from, life, tick } = *there;
            let is_before = home.life == life && home.offset + length <= from;
            // Another file that begins with the one line that was read may be any other.
            let first = self.tracks.get(&home.uid).and_then(|track| track.placed.first());
            let is_weak = home.uid != uid && first.is_some_and(|first| from <= first.end);
            Some((is_before && !is_weak && cause < tick).then_some(from))
        });
        let behind: Option<Vec<u64>> = behind.collect();
        let behind = behind.and_then(|all| all.first().copied());
        // Of what replaced a file and was rotated before the daemon saw it, it can't tell which it is of.
        let unseen = self.tracks.get(&uid).is_some_and(|it| it.replaces.is_some() && it.opens == 1);
        let unseen = unseen && self.disk.input() != Some(uid);
        // What was kept of a file has nothing by which to know copies of that.
        if let Some(from) = behind.filter(|_| !self.blind_start && !unseen && !self.took_kept) {
            let text = format!("line {line} ends before {from}, where the run went on");
            self.violate("V8", text);
        }
    }

    /// First deliveries of a key are in file order, files in the order in which they stood at the
    /// path. What was written to an older file after the newer one was read is late.
    fn check_order(&mut self, record: Record) {
        let line = record.line;
        let Some(Home { uid, life, offset }) = self.lines.all[line].origin else { return };
        let Some(track) = self.tracks.get(&uid) else { return };
        let key = self.lines.all[line].key;
        let Some((read, _)) = record.read else { return };
        let excused = self.is_order_excused();
        let furthest = self.furthest.entry((key, uid)).or_default();
        // Another life of it is another content, in another file by now.
        // What a first start at the end left out comes if the file is read from its start for some reason.
        // A file that took the inode of another one may be taken for that, which came before it.
        let same_inode = self.config.reuses && !self.config.births;
        let in_file =
            furthest.0 != life || furthest.1 <= offset || self.config.at_end || same_inode;
        *furthest = (life, offset);
        let written = track
            .placed
            .binary_search_by_key(&offset, |placed| placed.start)
            .ok()
            .map(|index| track.placed[index].written);
        let (order, moved_back, before_start) = (track.order, track.moved_back, track.before_start);
        if !in_file {
            self.violate(
                "V4",
                format!("line {line} at {offset} came after later lines of its file"),
            );
        }
        // What comes to a file that was replaced is late, and nobody asks for what was there before the start.
        let replaced = self.tracks.values().any(|track| track.replaces == Some(uid));
        if excused || moved_back || before_start || replaced {
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
