//! What the daemon reads: which bytes it asked for, which of them are new to it, and when.
//!
//! Only what the doors show counts: a call that gives the bytes before the position into one buffer and
//! new ones into another reads lines, one with a single buffer compares. How the daemon came to that
//! position, in which file, is its own affair.

use std::io;
use std::time::Duration;

use openalgo_bridge::domain::framing::CONTEXT_BYTES;
use openalgo_bridge::domain::identity::HEAD_BYTES;
use openalgo_bridge::platform::fs::FileFacts;

use crate::model::Model;

/// An open input file of the daemon.
#[allow(clippy::struct_excessive_bools)] // they are facts, not states of one thing
pub(crate) struct Handle {
    pub(crate) uid: u64,
    /// It is followed, not only compared: lines were read from it, or it stays open.
    pub(crate) is_lane: bool,
    /// How far lines were read from it; 0 before that.
    pub(crate) position: u64,
    /// Whether any were.
    pub(crate) was_read: bool,
    /// The bytes of the line that was read in part.
    pub(crate) unfinished: u64,
    /// What it holds is read on in a copy.
    goes_on_elsewhere: bool,
    /// Its size was asked for, and nothing read from it since.
    was_asked: bool,
    /// The life of the file that it was read in.
    pub(crate) life: u64,
    /// A read that gave less than the bytes before the position gave others.
    is_other: bool,
    /// The bytes before the position were others, and it was not read since.
    pub(crate) is_cut: bool,
    /// The bytes before the position, as they were read.
    tail: Vec<u8>,
    /// The file's bytes as the daemon saw them last, by offset.
    known: Vec<u8>,
    /// So much from the start on is known without a gap.
    prefix: usize,
    /// A first read, from where to where and when, before which stands other content than was known. Only the
    /// daemon knows whether it still had to be that.
    doubt: Option<(u64, u64, u64)>,
    /// When something new was last read, or it was opened.
    pub(crate) last_data: Duration,
}

impl Handle {
    /// Whether what is known of the file before the position is still there.
    pub(crate) fn finds_itself_in(&self, data: &[u8]) -> bool {
        let end = self.position as usize;
        !self.is_cut && data.get(end - self.tail.len()..end) == Some(&self.tail[..])
    }

    fn learn(&mut self, offset: usize, bytes: &[u8]) {
        let end = offset + bytes.len();
        self.known.resize(self.known.len().max(end), 0);
        self.known[offset..end].copy_from_slice(bytes);
    }

    /// The same, of what the file is known to begin with.
    fn learn_beginning(&mut self, offset: usize, bytes: &[u8]) {
        self.learn(offset, bytes);
        if offset <= self.prefix {
            self.prefix = self.prefix.max(offset + bytes.len());
        }
    }
}

impl Model {
    pub(crate) fn on_opened(&mut self, uid: u64) -> u64 {
        self.next_handle += 1;
        let handle = Handle {
            uid,
            is_lane: false,
            position: 0,
            was_read: false,
            life: 0,
            is_other: false,
            is_cut: false,
            unfinished: 0,
            goes_on_elsewhere: false,
            was_asked: false,
            tail: Vec::new(),
            known: Vec::new(),
            prefix: 0,
            doubt: None,
            last_data: self.now,
        };
        self.handles.insert(self.next_handle, handle);
        self.happened("open", &[uid]);
        self.next_handle
    }

    /// What an earlier run kept of a file that is gone: its lines, each where it stood.
    pub(crate) fn on_kept_opened(&mut self, uid: u64) {
        self.took_kept = true;
        self.counters.resumed_from_what_was_kept += 1;
        let track = self.tracks.entry(uid).or_default();
        (track.copy, track.kept) = (true, true);
        track.placed.clear();
        self.place_lines(uid);
    }

    /// The daemon follows a file that it opened.
    fn on_followed(&mut self, id: u64) {
        let Some(handle) = self.handles.get_mut(&id) else { return };
        if std::mem::replace(&mut handle.is_lane, true) {
            return;
        }
        let uid = handle.uid;
        self.see(uid);
        let life = self.tracks.entry(uid).or_default().life;
        self.handles.entry(id).and_modify(|handle| handle.life = life);
        let track = self.tracks.entry(uid).or_default();
        track.opens += 1;
        track.finished = None;
        // What it knew of an earlier life may be forgotten.
        track.ambiguous |= track.cuts > 0;
        let is_input = self.disk.input() == Some(uid);
        self.counters.unseen_life_opened +=
            u64::from(!is_input && track.opens == 1 && !self.is_starting);
    }

    /// A turn or a start is over: what is still open is followed.
    pub(crate) fn on_turned(&mut self) {
        let handles: Vec<u64> = self.handles.keys().copied().collect();
        for handle in handles {
            self.on_followed(handle);
            self.see_if_asked(handle);
        }
    }

    /// The daemon sees the size of a file that it has open.
    pub(crate) fn on_facts(&mut self, id: u64) -> io::Result<FileFacts> {
        let Some(handle) = self.handles.get(&id) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let uid = handle.uid;
        if handle.is_lane {
            self.see_if_asked(id);
            self.handles.entry(id).and_modify(|handle| handle.was_asked = true);
        }
        Ok(self.disk.facts(uid))
    }

    /// What was asked for the size of a lane, and not only to compare it, is noted by the daemon.
    fn see_if_asked(&mut self, id: u64) {
        let Some(handle) = self.handles.get_mut(&id) else { return };
        let uid = handle.uid;
        if std::mem::take(&mut handle.was_asked) {
            self.see(uid);
        }
    }

    /// The daemon read at `offset`: `wanted` bytes that should be known to it already, and behind them
    /// new ones, together `count`. Without room for new ones it only compares.
    pub(crate) fn on_read(&mut self, id: u64, wanted: usize, offset: u64, count: usize, new: bool) {
        let tick = self.tick();
        let Some(handle) = self.handles.get_mut(&id) else { return };
        handle.was_asked &= new || offset > 0 || wanted != HEAD_BYTES;
        self.see_if_asked(id);
        // Who goes on behind it has taken it.
        let position = offset + wanted as u64;
        let doubt = self.handles.get(&id).and_then(|handle| handle.doubt);
        if let Some((from, end, tick)) = doubt.filter(|(_, end, _)| new && *end == position) {
            self.takes(id, from, end, tick);
        }
        let Some(handle) = self.handles.get_mut(&id) else { return };
        let (uid, start) = (handle.uid, offset as usize);
        let data = self.disk.nodes[&uid].data.get(start..start + count).unwrap_or_default();
        let wanted_data = &data[..wanted.min(count)];
        let known = handle.known.get(start..start + wanted.min(count)).unwrap_or_default();
        let goes_on = handle.was_read && handle.position == offset + wanted as u64;
        let same = if goes_on {
            // A retry asks for what is left of it.
            let from = handle.tail.len().saturating_sub(wanted);
            let same = handle.tail[from..].starts_with(wanted_data);
            let begins = offset + handle.tail.len() as u64 == handle.position;
            handle.is_other = new && !same || (handle.is_other && !begins);
            !handle.is_other && same
        } else {
            known == wanted_data
        };
        let end = offset + count as u64;
        let differs = position == 0 && !handle.was_read && {
            let both = handle.prefix.min(data.len());
            handle.known[..both] != data[..both]
        };
        // What a lane knows before its first read it knows from when it was opened; or, of a copy and of
        // what it replaced, from when they were compared.
        let is_copy =
            self.tracks[&uid].copy || self.tracks.values().any(|track| track.replaces == Some(uid));
        // A short look at what was read teaches nothing: it is compared with what is known.
        let is_look = !new && handle.is_lane && wanted <= HEAD_BYTES.max(CONTEXT_BYTES);
        let known = if is_look { handle.known.len().saturating_sub(start).min(count) } else { 0 };
        let (from, fresh) = (start + known, &data[known..]);
        if !handle.is_lane || handle.was_read {
            handle.learn_beginning(from, fresh);
        } else if !new && is_copy {
            handle.learn(from, fresh);
        }
        if !new || count < wanted {
            return;
        }
        if !same {
            if !handle.was_read && handle.is_lane {
                handle.doubt = Some((position, end, tick));
            }
            handle.is_cut = true;
            self.counters.cuts_noticed += 1;
            return;
        }
        if differs {
            handle.doubt = Some((0, end, tick));
            return;
        }
        self.takes(id, position, end, tick);
    }

    /// The daemon takes the bytes of a file from `position` to `end` as read.
    fn takes(&mut self, id: u64, position: u64, end: u64, tick: u64) {
        self.on_followed(id);
        let Some(handle) = self.handles.get_mut(&id) else { return };
        let (uid, before) = (handle.uid, handle.position);
        let first = !std::mem::replace(&mut handle.was_read, true);
        if first && position > 0 {
            let others = self.handles.iter_mut().filter(|(other, _)| **other != id);
            let same = others.filter(|(_, it)| it.is_lane && it.position == position);
            same.for_each(|(_, it)| it.goes_on_elsewhere = true);
        }
        let Some(handle) = self.handles.get_mut(&id) else { return };
        // An unfinished line of content that was cut to its last lines is one of those.
        // NULs are read again where a line may be stored in their place.
        let nuls =
            before > 0 && handle.unfinished == before && handle.tail.iter().all(|it| *it == 0);
        let moved = !first && position != before && (position > 0 || nuls);
        // Of a file that was replaced, a line that goes on there and in its place is two, unless it was cut.
        let replaced = std::mem::take(&mut handle.goes_on_elsewhere)
            || self.tracks.values().any(|track| track.replaces == Some(uid));
        let was_cut = self.tracks.get(&uid).is_some_and(|track| track.life != handle.life);
        let forgotten = if moved && (was_cut || !replaced) { handle.unfinished } else { 0 };
        handle.position = end;
        let data = &self.disk.nodes[&uid].data[..end as usize];
        let line_start = memchr::memrchr(b'\n', data).map_or(0, |end| end + 1);
        handle.unfinished = (data.len() - line_start) as u64;
        handle.tail = data[data.len().saturating_sub(CONTEXT_BYTES)..].to_vec();
        handle.learn(position as usize, &data[position as usize..]);
        handle.doubt = None;
        handle.is_cut = false;
        handle.life = self.tracks.entry(uid).or_default().life;
        if end == position {
            return;
        }
        handle.last_data = self.now;
        let is_input = self.disk.input() == Some(uid);
        let track = self.tracks.entry(uid).or_default();
        let counters = &mut self.counters;
        counters.resumed_from_a_copy += u64::from(first && position > 0 && track.copy && !is_input);
        counters.cut_to_its_tail += u64::from(moved);
        self.run_read = self.run_read + (end - position) - forgotten;
        track.ever_read = track.ever_read.max(end);
        let from = track.placed.partition_point(|placed| placed.end <= position);
        for placed in track.placed[from..].iter().take_while(|placed| placed.end <= end) {
            if let Some(line) = placed.line {
                self.consumed.insert(line);
                self.read_at.entry(line).or_default().push_back((tick, uid));
            }
        }
        self.happened("read", &[uid, position, end - position]);
    }

    /// What reads in doubt have to have been, if the daemon counts `read` bytes as read in this run.
    pub(crate) fn settle_doubts(&mut self, read: u64) {
        let doubts: Vec<_> =
            self.handles.iter().filter_map(|(id, it)| Some((*id, it.doubt?))).collect();
        let doubted: u64 = doubts.iter().map(|(_, (from, end, _))| end - from).sum();
        if read == self.run_read + doubted {
            for (id, (from, end, tick)) in doubts {
                self.takes(id, from, end, tick);
            }
        }
        self.handles.values_mut().for_each(|handle| handle.doubt = None);
        // Cut to its last lines, and nothing new behind them: the unfinished line is forgotten.
        let less = self.run_read.saturating_sub(read);
        let mut lanes = self.handles.values_mut().filter(|handle| handle.is_lane);
        if less > 0
            && let Some(lane) = lanes.find(|handle| handle.unfinished == less)
        {
            lane.unfinished = 0;
            self.run_read -= less;
        }
    }

    /// Whether a file counts as finished, or is about to, within a line: what followed that would be no line
    /// of the model's.
    pub(crate) fn ended_within_a_line(&self, uid: u64) -> bool {
        let is_quiet = |handle: &Handle| {
            handle.unfinished > 0 && self.now.saturating_sub(handle.last_data) >= QUIET
        };
        self.tracks.get(&uid).is_some_and(|track| track.ended_within_a_line)
            || self.handles.values().any(|handle| handle.uid == uid && is_quiet(handle))
    }

    /// The daemon closes a file.
    pub(crate) fn on_closed(&mut self, handle: u64) {
        let Some(handle) = self.handles.remove(&handle) else { return };
        let again = self.handles.values().any(|other| other.uid == handle.uid && other.is_lane);
        if !self.alive || !handle.is_lane || again {
            return;
        }
        self.happened("close", &[handle.uid]);
        let quiet = self.now.saturating_sub(handle.last_data) >= QUIET;
        // Where others wait for its place.
        let early = self.waiting > 0 && self.handles.len() >= CROWDED;
        let is_input = self.disk.input() == Some(handle.uid);
        self.counters.closed_after_quiet += u64::from(quiet);
        if (quiet || early)
            && !is_input
            && let Some(track) = self.tracks.get_mut(&handle.uid)
        {
            track.finished = Some(handle.position);
            track.ended_within_a_line |= handle.unfinished > 0;
        }
    }
}

/// When a file that was moved away counts as finished.
const QUIET: Duration = Duration::from_mins(5);

/// With so many files open, one that was read to its end may be closed for another one.
pub(crate) const CROWDED: usize = 60;
