//! What has to arrive, by where it stands: nothing else of how the daemon finds it is asked.
//!
//! Of rotated files that are not open, it is not asked for
//!
//! - where there are no births and only the last write gives the order, after a late writer changed that;
//! - what came while the directory could not be looked at, if the daemon ended before it could;
//! - a copy of a file that had replaced another one since the last look;
//! - what came in the place of content that was cut, and was cut again before the first cut was judged;
//! - what was beside the input at the first start, or before anything was known of it;
//! - where the file system gives inodes again and knows no births: a new file may be the old one, and what
//!   is gone may have another one in its place;
//! - whether the loss of what was read of no more than a first line that all files have is told;
//! - files that were written while the wall clock was behind a time that it had shown before;
//! - what was written to a file after it was quiet for long, or closed for others, and finished.

use std::path::Path;

use openalgo_bridge::checkpoint::{Checkpoint, Lost};
use openalgo_bridge::platform::fs::FileKind;
use openalgo_bridge::telemetry::snapshot::LostStatus;

use crate::disk::{INPUT, INPUT_DIRECTORY};
use crate::lines::Class;
use crate::model::Model;

/// A line that the daemon has seen: it arrives, or these bytes are told as lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Owed {
    pub(crate) line: usize,
    pub(crate) uid: u64,
    pub(crate) start: u64,
    pub(crate) end: u64,
}

/// Whether a name is one that rotations give.
pub(crate) fn is_rotated(path: &Path) -> bool {
    let name = path.to_str().and_then(|path| path.strip_prefix(INPUT));
    name.is_some_and(|rest| rest.starts_with(['.', '-']))
}

fn contains(text: &[u8], word: &[u8]) -> bool {
    memchr::memmem::find(text, word).is_some()
}

impl Model {
    /// The daemon sees how much there is of a file.
    pub(crate) fn see(&mut self, uid: u64) {
        if !self.alive {
            return;
        }
        self.forget_unnoticed(uid);
        let Some(track) = self.tracks.get_mut(&uid).filter(|track| !track.before_start) else {
            return;
        };
        let size = self.disk.nodes[&uid].data.len() as u64;
        let mut lanes = self.handles.values().filter(|it| it.is_lane && it.uid == uid);
        // What comes in the place of content that was cut counts once it is read.
        if !lanes.all(|lane| lane.life == track.life) {
            return;
        }
        let (skipped, finished) = (track.skipped, track.finished.unwrap_or(u64::MAX));
        let first = track.placed.partition_point(|placed| placed.end <= track.seen);
        let new = track.placed[first..].iter();
        let new = new.filter(|placed| placed.start >= skipped && placed.end <= finished);
        let new = new.filter_map(|placed| {
            Some(Owed { line: placed.line?, uid, start: placed.start, end: placed.end })
        });
        self.owed.extend(new);
        track.seen = size;
    }

    /// What vanished and was replaced by as much before the daemon looked, without a byte that it had read
    /// being another one, nobody can notice.
    fn forget_unnoticed(&mut self, uid: u64) {
        let Some(track) = self.tracks.get_mut(&uid) else { return };
        let gone = std::mem::take(&mut track.gone);
        if gone.is_empty() {
            return;
        }
        let data = &self.disk.nodes[&uid].data;
        let size = data.len() as u64;
        let mut lanes = self.handles.values().filter(|handle| handle.is_lane && handle.uid == uid);
        if lanes.all(|lane| lane.finds_itself_in(data)) {
            let is_unnoticed = |owed: &Owed| owed.end <= size && gone.contains(owed);
            self.unnoticed.extend(self.owed.iter().copied().filter(is_unnoticed));
            // Of a file that was replaced, it is in the copy that it was to be read.
            let unnoticed = &self.unnoticed;
            let is_same = |owed: &Owed| unnoticed.iter().any(|other| other.line == owed.line);
            self.owed.retain(|owed| !is_same(owed));
        }
    }

    /// The daemon looks at what stands at a path. Of what it has not open it notes what waits for a place.
    pub(crate) fn on_stat(&mut self, path: &Path, uid: u64) {
        if self.waiting > 0 && is_rotated(path) && self.is_judged(uid) {
            self.see(uid);
        }
    }

    /// What a checkpoint that is handed over promises: it is behind a position and was seen.
    pub(crate) fn promised(&self, checkpoint: &Checkpoint, files: &[Option<u64>]) -> Vec<Owed> {
        let told = checkpoint.lost.get(self.told_before..).unwrap_or_default();
        let is_told = |owed: &Owed| told.iter().any(|lost| covers(lost.from, lost.to, owed));
        let states = checkpoint.generations.iter().zip(files);
        let states: Vec<_> = states.map(|(state, uid)| (*uid, state.offset, state.size)).collect();
        let is_known = |owed: &Owed| {
            states.iter().any(|(uid, from, to)| {
                *uid == Some(owed.uid) && *from <= owed.start && owed.end <= *to
            })
        };
        let open = self.owed.iter().filter(|owed| !self.is_settled(owed.line));
        open.filter(|owed| is_known(owed) && !is_told(owed)).copied().collect()
    }

    pub(crate) fn is_settled(&self, line: usize) -> bool {
        let line = &self.lines.all[line];
        line.before_start
            || match line.class {
                // Where a first start begins behind it, nobody can tell it from its sisters.
                Class::Valid => line.delivered > 0 || (line.header && self.config.at_end),
                Class::Filtered => true,
                Class::Torn => {
                    line.delivered > 0 || line.settled || contains(&line.content, b"force_logout")
                }
                Class::Old | Class::Poison | Class::Invalid(_) => line.settled,
            }
    }

    /// The lines that stand in the input now.
    pub(crate) fn lines_in_input(&self) -> Vec<usize> {
        let track = self.disk.input().and_then(|uid| self.tracks.get(&uid));
        let placed = track
            .iter()
            .flat_map(|track| track.placed.iter().filter(|placed| placed.start >= track.skipped));
        placed.filter_map(|placed| placed.line).collect()
    }

    /// Files beside the input, by the name under which the daemon may find them.
    fn beside(&self) -> impl Iterator<Item = (&Path, u64)> {
        let names = self.disk.names.iter().filter(|(name, uid)| {
            name.parent() == Some(Path::new(INPUT_DIRECTORY))
                && *name != Path::new(INPUT)
                && self.disk.node(**uid).kind == FileKind::Regular
        });
        names.map(|(name, uid)| (name.as_path(), *uid))
    }

    /// What is beside the input when the daemon starts for the first time is not asked for, if it was
    /// written before that moment.
    pub(crate) fn forget_what_was_before(&mut self, ns: i64) {
        let beside = self.beside().map(|(_, uid)| uid);
        let before: Vec<u64> = beside.filter(|uid| self.disk.node(*uid).modified_ns < ns).collect();
        for uid in before {
            self.tracks.entry(uid).or_default().before_start = true;
        }
    }

    /// Whether the daemon has to find a rotated file that it has not open: see the module.
    pub(crate) fn is_judged(&self, uid: u64) -> bool {
        let Some(track) = self.tracks.get(&uid) else { return false };
        let is_known = self.config.births || !self.config.reuses;
        // Where only the time of the last write tells the order, and a late writer changes that.
        let is_ordered =
            self.config.births || self.config.naming != 0 || self.counters.late_lines == 0;
        !track.before_start && is_known && is_ordered && !track.in_the_past && !track.unjudged
    }

    /// A line that stands where it can be read, and has not arrived: its file, offset and number.
    pub(crate) fn missing(&self) -> Option<(u64, u64, usize)> {
        let mut files: Vec<u64> = self.handles.values().map(|handle| handle.uid).collect();
        let moved = self.beside().filter(|(name, _)| is_rotated(name)).map(|(_, uid)| uid);
        files.extend(moved.filter(|uid| self.is_judged(*uid)));
        files.extend(self.disk.input());
        files.into_iter().find_map(|uid| {
            let track = self.tracks.get(&uid)?;
            let (skipped, finished) = (track.skipped, track.finished.unwrap_or(u64::MAX));
            let mut there = track.placed.iter();
            there.find_map(|it| {
                let line = it.line.filter(|line| !self.is_settled(*line))?;
                (it.start >= skipped && it.end <= finished).then_some((uid, it.start, line))
            })
        })
    }

    /// V1: what stands where it can be read has arrived, what was read too, and what is gone was told.
    pub(crate) fn check_arrived(&mut self, told: &[LostStatus]) {
        if let Some((uid, offset, line)) = self.missing() {
            let class = &self.lines.all[line].class;
            let text = format!("line {line}, {class:?}, at {offset} of file {uid} is missing");
            return self.violate("V1", text);
        }
        if let Some(line) = self.consumed.iter().find(|line| !self.is_settled(**line)) {
            return self.violate("V1", format!("line {line} was read and is missing"));
        }
        if self.config.reuses && !self.config.births {
            // What is gone, and has another file in the place of its inode, nobody can miss.
            let nodes = &self.disk.nodes;
            self.owed.retain(|owed| nodes.contains_key(&owed.uid));
        }
        let new = told.get(self.told_before..).unwrap_or_default();
        let is_told = |owed: &Owed| new.iter().any(|lost| covers(lost.from, lost.to, owed));
        let open = self.owed.iter().filter(|owed| !self.is_settled(owed.line));
        // It may have been seen at several places: one that is told is enough.
        let mut untold = open
            .clone()
            .filter(|owed| !self.is_like_others(owed.uid))
            .filter(|owed| !open.clone().any(|other| other.line == owed.line && is_told(other)));
        if let Some(owed) = untold.next() {
            return self.violate("V1", format!("{owed:?} was not told as lost, but {new:?}"));
        }
        self.owed.clear();
        self.told_before = told.len();
        if !told.is_empty() && !self.disturbed {
            self.violate("V1", format!("nothing was lost, but {told:?}"));
        }
    }

    /// Whether nothing was read of a file but a first line that all files have: any may be a copy of it.
    fn is_like_others(&self, uid: u64) -> bool {
        let track = self.tracks.get(&uid).filter(|_| self.config.headers);
        track.is_some_and(|it| it.placed.first().is_none_or(|first| it.ever_read <= first.end))
    }

    /// What was told before this run is not told for what it misses.
    pub(crate) fn count_told(&mut self, lost: &[Lost]) {
        self.told_before = lost.len();
    }
}

/// Whether a loss of these bytes takes the line with it: without its end it is none.
fn covers(from: u64, to: u64, owed: &Owed) -> bool {
    from < owed.end && owed.end <= to
}
