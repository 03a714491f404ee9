//! What must be true, of every checkpoint, every reject, and whenever everything came to rest.

use std::collections::BTreeMap;
use std::path::Path;

use openalgo_bridge::checkpoint::writer::RejectedLine;
use openalgo_bridge::checkpoint::{Checkpoint, GenerationState};
use openalgo_bridge::domain::acks::RecordId;
use openalgo_bridge::domain::identity::Fingerprint;
use openalgo_bridge::domain::position::Generation;
use openalgo_bridge::telemetry::snapshot::{LostStatus, Snapshot};

use crate::disk::{INPUT, INPUT_DIRECTORY};
use crate::lines::Class;
use crate::model::Model;

/// What the daemon can't do yet. Of each, told as lost is enough for now, where it can know of it;
/// set to false, the lines have to arrive.
pub(crate) struct NotYet {
    /// To read a file to its end that was moved away while the daemon was down.
    pub(crate) moved_while_down: bool,
    /// To find a file that came to the path and went between two looks.
    pub(crate) between_looks: bool,
}

pub(crate) const NOT_YET: NotYet = NotYet { moved_while_down: true, between_looks: true };

/// Bytes that the daemon has to tell as lost. No generation: any.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expected {
    pub(crate) generation: Option<Generation>,
    pub(crate) from: u64,
    pub(crate) to: u64,
}

impl Expected {
    /// Whether the ranges that were told cover all of it.
    fn is_within(&self, told: &[LostStatus]) -> bool {
        let mut from = self.from;
        let mut next = || {
            let mut told = told.iter().filter(|lost| {
                (self.generation.is_none() || self.generation == lost.generation)
                    && lost.from <= from
                    && lost.to > from
            });
            from = told.next().map(|lost| lost.to)?;
            (from < self.to).then_some(())
        };
        while next().is_some() {}
        from >= self.to
    }
}

/// What the daemon wrote of itself.
#[derive(Default)]
pub(crate) struct Checkpoints {
    /// By sequence number: of which file each generation was, and how many cuts it had seen.
    handed: BTreeMap<u64, Vec<(Option<u64>, u64)>>,
    /// The last one that was reported as durable.
    pub(crate) committed: u64,
    /// The last one that was handed over, and its live position.
    pub(crate) newest: u64,
    pub(crate) newest_offset: u64,
    /// Someone else damaged or removed the state.
    pub(crate) excused: bool,
    pub(crate) epoch_at_start: u64,
    /// Commits and notes of this run.
    pub(crate) written: u64,
    offsets: BTreeMap<Generation, u64>,
    /// The texts of rejects on their way to the disk.
    texts: BTreeMap<RecordId, (Vec<u8>, usize)>,
}

impl Checkpoints {
    pub(crate) fn new_run(&mut self) {
        self.offsets.clear();
        self.texts.clear();
        self.written = 0;
    }

    pub(crate) fn forget(&mut self) {
        self.handed.clear();
        self.committed = 0;
    }
}

fn contains(text: &[u8], word: &[u8]) -> bool {
    memchr::memmem::find(text, word).is_some()
}

impl Model {
    /// The file that an identity means now.
    fn uid_of(&self, state: &GenerationState) -> Option<u64> {
        let found = self.disk.nodes.iter().rev().find(|(uid, node)| {
            self.tracks.contains_key(uid)
                && node.ino == state.identity.ino
                && state.identity.born_ns.is_none_or(|born| born == node.born_ns)
        });
        found.map(|(uid, _)| *uid)
    }

    // --- checkpoints ------------------------------------------------------------------------

    /// V5 of a checkpoint that is handed over to be written.
    pub(crate) fn on_checkpoint(&mut self, checkpoint: &Checkpoint, commit: bool) {
        self.check_not_ahead(checkpoint);
        let mut known = Vec::new();
        for state in &checkpoint.generations {
            let uid = self.uid_of(state);
            let track = uid.and_then(|uid| self.tracks.get(&uid));
            known.push((uid, track.map_or(0, |track| track.cuts)));
            let named = self.config.births || !self.config.headers;
            let simple = named && track.is_some_and(|track| track.cuts == 0 && track.opens == 1);
            if simple && let Some(generation) = state.generation {
                let before = self.checkpoints.offsets.insert(generation, state.offset);
                if before.is_some_and(|before| before > state.offset) {
                    self.violate("V5", format!("the position of {generation} went back"));
                }
            }
        }
        if let Some(live) = checkpoint.generations.last() {
            self.check_at_line_end(live);
            self.checkpoints.newest_offset = live.offset;
        }
        let checkpoints = &mut self.checkpoints;
        checkpoints.handed.insert(checkpoint.sequence, known);
        if checkpoints.handed.len() > 64 {
            checkpoints.handed.pop_first();
        }
        checkpoints.newest = checkpoint.sequence;
        checkpoints.written += 1;
        *(if commit { &mut self.counters.commits } else { &mut self.counters.notes }) += 1;
        let offset = checkpoint.generations.last().map_or(0, |live| live.offset);
        self.happened("checkpoint", &[checkpoint.sequence, offset]);
    }

    fn check_not_ahead(&mut self, checkpoint: &Checkpoint) {
        for state in &checkpoint.generations {
            let Some(generation) = state.generation else { continue };
            // One that is sent again may be behind the position: it was settled before.
            let mut before = self.open.range((generation, 0)..(generation, state.offset));
            let unsettled = before.find(|(_, (_, line))| !self.lines.all[*line].settled);
            if let Some(((_, offset), _)) = unsettled {
                let text = format!(
                    "checkpoint {} says {} of {generation}, but the line at {offset} is not settled",
                    checkpoint.sequence, state.offset
                );
                return self.violate("V5", text);
            }
        }
    }

    /// 0, or just behind an LF.
    fn check_at_line_end(&mut self, live: &GenerationState) {
        let Some(uid) = self.disk.input() else { return };
        let (node, track) = (self.disk.node(uid), &self.tracks[&uid]);
        if node.ino != live.identity.ino || track.cuts > 0 || live.offset == 0 {
            return;
        }
        if live.identity.born_ns.is_some_and(|born| born != node.born_ns) || !self.config.births {
            return;
        }
        if node.data.get(live.offset as usize - 1) != Some(&b'\n') {
            let text = format!("the position {} of file {uid} is within a line", live.offset);
            self.violate("V5", text);
        }
    }

    /// V5 of the checkpoint that a start found, or found none.
    pub(crate) fn on_loaded(&mut self, loaded: Option<&Checkpoint>) {
        let sequence = loaded.map_or(0, |checkpoint| checkpoint.sequence);
        if sequence < self.checkpoints.committed && !self.checkpoints.excused {
            let text = format!(
                "checkpoint {} was reported as durable, the start found {sequence}",
                self.checkpoints.committed
            );
            self.violate("V5", text);
        }
        let live = loaded.and_then(Checkpoint::live).map_or(0, |live| live.offset);
        self.counters.starts_behind_a_commit +=
            u64::from(sequence > self.checkpoints.committed && live > 0);
        match loaded {
            Some(checkpoint) => self.check_not_ahead(checkpoint),
            None => self.checkpoints.forget(),
        }
        if self.checkpoints.excused {
            self.checkpoints.committed = 0;
            self.checkpoints.excused = false;
            self.must_be_told.clear();
        }
        self.open.clear();
        self.places.clear();
    }

    /// After the start: where it has to have gone on, and what it has to tell as lost.
    pub(crate) fn on_started(&mut self, loaded: Option<&Checkpoint>) {
        self.continued = None;
        if let (None, Some(uid)) = (loaded, self.disk.input()) {
            self.goes_on_behind(uid, self.tracks[&uid].skipped, 0);
        }
        let Some(checkpoint) = loaded else { return };
        let Some(known) = self.checkpoints.handed.get(&checkpoint.sequence).cloned() else {
            return;
        };
        let at_path = self.disk.at(Path::new(INPUT));
        let opened = self.handles.values().next().map(|handle| handle.uid);
        let last = checkpoint.generations.len().saturating_sub(1);
        for (index, (state, (uid, cuts))) in checkpoint.generations.iter().zip(known).enumerate() {
            let Some(uid) = uid else { continue };
            let cuts_now = self.tracks.get(&uid).map_or(cuts + 1, |track| track.cuts);
            let sibling = self.sibling_size(uid);
            let mut expected =
                Expected { generation: state.generation, from: state.offset, to: state.size };
            // Without a birth time, a file that got the same inode may pass for it.
            let same = at_path.filter(|there| {
                *there == uid
                    || (!self.config.births && self.disk.node(*there).ino == state.identity.ino)
            });
            if index == last
                && let Some(uid) = same
                && self.looks_the_same(uid, state)
            {
                let size = self.disk.node(uid).data.len() as u64;
                if opened != Some(uid) {
                    self.remembered = Some(state.clone());
                    continue;
                }
                self.goes_on_behind(
                    uid,
                    state.offset,
                    state.head.map_or(0, |head| u64::from(head.length)),
                );
                if cuts_now == cuts {
                    self.continued = Some((uid, state.offset));
                    self.checkpoints.epoch_at_start = cuts_now + self.tracks[&uid].opens;
                }
                if size < state.size {
                    let expected = Expected { from: size, ..expected };
                    self.must_be_told.push(expected);
                }
                continue;
            }
            if index == last && opened.is_none() && sibling.is_none() {
                // Until something is there to compare it with.
                self.remembered = Some(state.clone());
                continue;
            }
            if index == last && !self.blind_start {
                if sibling.is_some() && !NOT_YET.moved_while_down {
                    continue;
                }
                expected.to = expected.to.max(sibling.unwrap_or(0));
            }
            if expected.from < expected.to {
                self.must_be_told.push(expected);
            }
        }
    }

    /// The file that the start did not find is there, or another one is.
    pub(crate) fn on_adopted(&mut self, uid: u64) {
        let Some(state) = self.remembered.clone() else { return };
        let node = self.disk.node(uid);
        let born = state.identity.born_ns.is_none_or(|born| born == node.born_ns);
        let size = node.data.len() as u64;
        let mut lost =
            Expected { generation: state.generation, from: state.offset, to: state.size };
        if node.ino == state.identity.ino && born && self.looks_the_same(uid, &state) {
            let head = state.head.map_or(0, |head| u64::from(head.length));
            self.goes_on_behind(uid, state.offset, head);
            lost.from = lost.from.max(size);
        }
        if lost.from < lost.to {
            self.must_be_told.push(lost);
        }
    }

    /// Whether all that a checkpoint knows of a file is still true of it.
    fn looks_the_same(&self, uid: u64, state: &GenerationState) -> bool {
        let data = &self.disk.node(uid).data;
        let head = |head: &Fingerprint| {
            data.get(..head.length as usize).is_some_and(|start| head.matches(start))
        };
        data.get(..state.offset as usize)
            .is_some_and(|before| Fingerprint::of_mark(before) == state.mark)
            && state.head.as_ref().is_none_or(head)
    }

    /// Files that stood at the path and stand beside it now; not copies of such.
    fn moved_files(&self) -> impl Iterator<Item = u64> {
        let names = self.disk.names.iter().filter(|(name, _)| name.starts_with(INPUT_DIRECTORY));
        let uids = names.map(|(_, uid)| *uid);
        uids.filter(|uid| self.tracks.get(uid).is_some_and(|track| track.order > 0))
    }

    /// The size of a file that stands beside the input now, where the daemon can see it.
    fn sibling_size(&self, uid: u64) -> Option<u64> {
        let mut names = self.disk.names.iter();
        let beside = names.any(|(name, node)| *node == uid && name != Path::new(INPUT));
        (beside && !self.disk.directory_closed).then(|| self.disk.node(uid).data.len() as u64)
    }

    // --- rejects ----------------------------------------------------------------------------

    /// V3 of a line that is handed over to be put aside.
    pub(crate) fn on_reject(&mut self, rejected: &RejectedLine) {
        let Ok(entry) = serde_json::from_slice::<serde_json::Value>(&rejected.text) else {
            return self.violate("V3", "a reject is not JSON".to_owned());
        };
        let (hash, reason) = (entry["sha256"].as_str(), entry["reason"].as_str());
        let (hash, reason) = (hash.unwrap_or_default(), reason.unwrap_or_default().to_owned());
        let content = entry["line"].as_str().unwrap_or_default().as_bytes();
        let mut found = self.lines.find_hash(hash).or_else(|| self.lines.find(content));
        if found.is_none() && reason == "truncated_at_eof" {
            self.counters.unterminated_last_lines += 1;
            found =
                Some(self.lines.judge(if content.is_empty() { hash.as_bytes() } else { content }));
        }
        let Some(line) = found else {
            let text =
                format!("rejected as {reason} what nobody wrote: {}", content.escape_ascii());
            return self.violate("V3", text);
        };
        let known = &self.lines.all[line];
        let fits = match known.class {
            Class::Invalid(expected) => expected == reason || reason == "truncated_at_eof",
            Class::Torn => true,
            Class::Poison => reason == "refused",
            _ => false,
        };
        let generation = entry["generation"].as_str().and_then(|text| text.parse().ok());
        let offset = entry["offset"].as_u64();
        let (Some(generation), Some(offset)) = (generation, offset) else { return };
        if !fits {
            let text = format!("line {line} ({:?}) was rejected as {reason}", known.class);
            return self.violate("V3", text);
        }
        let length = entry["length"].as_u64().unwrap_or_default();
        if known.content.len() as u64 != length && known.content.len() != 64 {
            return self.violate("V3", format!("line {line} has another length than {length}"));
        }
        let elsewhere = reason != "truncated_at_eof"
            && !known.homes.is_empty()
            && !known.homes.iter().any(|(_, at)| *at == offset);
        if elsewhere {
            return self.violate("V3", format!("line {line} was rejected as from offset {offset}"));
        }
        self.name((generation, offset), line);
        self.open.insert((generation, offset), (rejected.record, line));
        self.places.insert(rejected.record, (generation, offset));
        self.checkpoints.texts.insert(rejected.record, (rejected.text.clone(), line));
        self.happened("reject", &[rejected.record.0, line as u64]);
    }

    /// What is reported as durable has to survive a power cut.
    pub(crate) fn on_rejects_durable(&mut self, records: &[RecordId]) {
        let rotated = self.disk.names.contains_key(Path::new("/state/rejects.jsonl.1"));
        self.counters.rejects_rotated += u64::from(rotated);
        for record in records {
            let Some((text, line)) = self.checkpoints.texts.remove(record) else { continue };
            let names = self.disk.names.keys();
            let mut files = names.filter(|name| {
                name.to_str().is_some_and(|name| name.starts_with("/state/rejects.jsonl"))
            });
            if !files
                .any(|name| memchr::memmem::find(self.disk.durable_content(name), &text).is_some())
            {
                self.violate("V3", format!("the reject of line {line} is not durable"));
            }
            self.lines.all[line].settled = true;
            self.counters.rejected += 1;
            if let Some(place) = self.places.get(record) {
                self.open.remove(place);
            }
        }
    }

    // --- turns and rest ---------------------------------------------------------------------

    fn is_settled(&self, line: usize) -> bool {
        let line = &self.lines.all[line];
        match line.class {
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

    /// Who asked was told that these are settled.
    pub(crate) fn check_caught_up(&mut self, asked: &[usize]) {
        if let Some(line) = asked.iter().find(|line| !self.is_settled(**line)) {
            self.violate("V9", format!("caught up was told before line {line} was settled"));
        }
    }

    /// V7: every byte read in this run is in one class, on top of what the checkpoint said.
    pub(crate) fn check_ledger(&mut self, snapshot: &Snapshot, before: u64, delivered: u64) {
        let bytes = &snapshot.ledger.bytes;
        let sum = bytes.delivered + bytes.rejected + bytes.filtered + bytes.blank + bytes.pending;
        if bytes.read != sum || bytes.read != before + self.run_read {
            let text = format!(
                "read {}, of which {sum} are accounted for; {} were read before, {} since",
                bytes.read, before, self.run_read
            );
            self.violate("V7", text);
        }
        let lines = snapshot.ledger.lines.delivered;
        if lines != delivered + self.run_delivered {
            let text = format!(
                "{lines} lines count as delivered; {delivered} before, {} acknowledged since",
                self.run_delivered
            );
            self.violate("V7", text);
        }
    }

    /// Everything is healed and has come to rest.
    pub(crate) fn check_rest(&mut self, snapshot: &Snapshot) {
        self.counters.quiescences += 1;
        let mut files: Vec<u64> = self.handles.values().map(|handle| handle.uid).collect();
        files.extend(self.disk.input());
        files.extend(self.moved_files().filter(|uid| {
            let known = self.tracks[uid].opens > 0;
            if known { !NOT_YET.moved_while_down } else { !NOT_YET.between_looks }
        }));
        files.sort_unstable();
        files.dedup();
        for uid in &files {
            let Some(track) = self.tracks.get(uid) else { continue };
            let late = track.finished.unwrap_or(u64::MAX);
            let asked_for = track.skipped..late;
            let behind = track.placed.iter().filter(|placed| asked_for.contains(&placed.start));
            let missing = behind
                .filter_map(|placed| Some((placed.start, placed.line?)))
                .find(|(_, line)| !self.is_settled(*line));
            if let Some((offset, line)) = missing {
                let text = format!("line {line} at {offset} of file {uid} is missing");
                return self.violate("V1", text);
            }
        }
        if let Some(line) = self.consumed.iter().find(|line| !self.is_settled(**line)) {
            return self.violate("V1", format!("line {line} was read and is missing"));
        }
        let told = &snapshot.ledger.lost;
        let untold = self.must_be_told.iter().find(|expected| !expected.is_within(told));
        if let Some(expected) = untold {
            return self.violate("V1", format!("{expected:?} was not told as lost, but {told:?}"));
        }
        self.must_be_told.clear();
        let moved = told.iter().filter(|lost| lost.reason == "moved_away").count() as u64;
        self.counters.moved_away_told += moved;
        self.counters.cut_and_told += told.len() as u64 - moved;
        self.counters.filtered_and_blank +=
            snapshot.ledger.lines.filtered.min(1) * snapshot.ledger.lines.blank.min(1);
        if !told.is_empty() && !self.disturbed {
            return self.violate("V1", format!("nothing was lost, but {told:?}"));
        }
        let tails: u64 = self
            .handles
            .values()
            .map(|handle| {
                let track = &self.tracks[&handle.uid];
                let whole = track.placed.last().map_or(0, |placed| placed.end);
                let end = handle.position.min(self.disk.node(handle.uid).data.len() as u64);
                end.saturating_sub(whole)
            })
            .sum();
        if snapshot.ledger.bytes.pending != tails {
            let pending = snapshot.ledger.bytes.pending;
            return self.violate("V7", format!("{pending} bytes are pending, not {tails}"));
        }
        self.check_position_at_rest();
    }

    /// V6: the durable position is the end of the last whole line.
    fn check_position_at_rest(&mut self) {
        let Some(uid) = self.disk.input() else { return };
        let end = self.tracks[&uid].placed.last().map_or(0, |placed| placed.end);
        let skipped = self.tracks[&uid].skipped;
        let (offset, newest) = (self.checkpoints.newest_offset, self.checkpoints.newest);
        if self.checkpoints.written > 0 && offset != end.max(skipped) {
            return self
                .violate("V6", format!("the position is {offset}, the last line ends at {end}"));
        }
        if self.checkpoints.written > 0 && self.checkpoints.committed < newest {
            let text =
                format!("checkpoint {newest} is not durable, {} is", self.checkpoints.committed);
            self.violate("V6", text);
        }
    }
}
