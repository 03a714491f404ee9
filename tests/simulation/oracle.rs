//! What must be true, of every checkpoint, every reject, and whenever everything came to rest.

use std::collections::BTreeMap;
use std::path::Path;

use openalgo_bridge::checkpoint::writer::RejectedLine;
use openalgo_bridge::checkpoint::{Checkpoint, GenerationState};
use openalgo_bridge::domain::acks::RecordId;
use openalgo_bridge::domain::identity::Fingerprint;
use openalgo_bridge::domain::position::Generation;
use openalgo_bridge::telemetry::snapshot::Snapshot;

use crate::lines::Class;
use crate::model::{Continued, Model};
use crate::owed::Owed;

/// A checkpoint as it was handed over.
#[derive(Clone)]
struct Handed {
    /// Of which file each generation was, how many cuts that had seen,
    files: Vec<(Option<u64>, u64)>,
    /// and when that was, in ticks.
    tick: u64,
    promised: Vec<Owed>,
}

/// What the daemon wrote of itself.
#[derive(Default)]
pub(crate) struct Checkpoints {
    /// By sequence number, which comes again where newer ones were lost, and time.
    handed: BTreeMap<(u64, i64), Handed>,
    /// The last one that was reported as durable.
    pub(crate) committed: u64,
    /// The last one that was handed over, and its live position.
    pub(crate) newest: u64,
    pub(crate) newest_offset: u64,
    /// Someone else damaged or removed the state.
    pub(crate) excused: bool,
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
            // Half a line that was kept, and taken for a line of its own, is read again in a copy.
            let simple = named
                && !self.took_kept
                && track.is_some_and(|track| track.cuts == 0 && track.opens == 1);
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
        let files: Vec<Option<u64>> = known.iter().map(|(uid, _)| *uid).collect();
        let promised = self.promised(checkpoint, &files);
        let handed = Handed { files: known, tick: self.tick, promised };
        let checkpoints = &mut self.checkpoints;
        checkpoints.handed.insert((checkpoint.sequence, checkpoint.committed_at_ms), handed);
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
        // Without births two files may have one name.
        if self.config.headers && self.config.reuses && !self.config.births {
            return;
        }
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
        // What a stop told, when it kept the rest, is lost with the newest checkpoint.
        let is_kept = |name: &Path| name.starts_with("/state/pending");
        let is_lost = self.checkpoints.excused || std::mem::take(&mut self.stop_unwritten);
        let untold = is_lost && self.disk.names.keys().any(|name| is_kept(name));
        if self.checkpoints.excused {
            self.checkpoints.committed = 0;
            self.checkpoints.excused = false;
        }
        self.open.clear();
        self.places.clear();
        self.owed.clear();
        self.continued.clear();
        self.count_told(loaded.map_or(&[], |checkpoint| &checkpoint.lost));
        let key = |it: &Checkpoint| (it.sequence, it.committed_at_ms);
        let handed = loaded.and_then(|it| self.checkpoints.handed.get(&key(it)).cloned());
        let (Some(checkpoint), Some(handed)) = (loaded, handed) else { return };
        let promised = handed.promised.into_iter().filter(|owed| !self.unnoticed.contains(owed));
        let kept = promised.filter(|owed| !self.is_unnoticed(owed, checkpoint, &handed.files));
        self.owed = kept.filter(|_| !untold).collect();
        // Where all files have the same first line, and no more of it was settled, any may be it.
        for (state, (uid, _)) in checkpoint.generations.iter().zip(&handed.files) {
            let weak = state.head.is_none_or(|head| state.offset <= u64::from(head.length));
            if weak && self.config.headers {
                self.owed.retain(|owed| Some(owed.uid) != *uid);
            }
        }
        // Before the daemon looks, as much may have come in the place of what is gone.
        for owed in &self.owed {
            if let Some(track) = self.tracks.get_mut(&owed.uid)
                && !track.placed.iter().any(|it| it.line == Some(owed.line))
            {
                track.gone.push(*owed);
            }
        }
        for (state, (uid, cuts)) in checkpoint.generations.iter().zip(handed.files) {
            let Some(uid) = uid else { continue };
            let track = self.tracks.get(&uid).filter(|track| track.cuts == cuts);
            if let Some(life) = track.map(|track| track.life)
                && self.looks_the_same(uid, state)
            {
                let there = Continued { from: state.offset, life, tick: handed.tick };
                self.continued.insert(uid, there);
            }
        }
    }

    /// Whether a line vanished, and nothing that the checkpoint knows of its file tells that.
    fn is_unnoticed(
        &self,
        owed: &Owed,
        checkpoint: &Checkpoint,
        files: &[(Option<u64>, u64)],
    ) -> bool {
        let mut states = checkpoint.generations.iter().zip(files);
        let Some((state, _)) = states.find(|(_, (uid, _))| *uid == Some(owed.uid)) else {
            return false;
        };
        // In the file itself, or in a copy that was made after that.
        self.tracks.iter().any(|(uid, track)| {
            let Some(node) = self.disk.nodes.get(uid) else { return false };
            let mut placed = track.placed.iter();
            (*uid == owed.uid || track.copy || track.replaces == Some(owed.uid))
                && !placed.any(|it| it.line == Some(owed.line) && it.start == owed.start)
                && node.data.len() as u64 >= owed.end
                && self.looks_the_same(*uid, state)
        })
    }

    /// Whether all that a checkpoint knows of a file is true of it now.
    fn looks_the_same(&self, uid: u64, state: &GenerationState) -> bool {
        let Some(node) = self.disk.nodes.get(&uid) else { return false };
        let head = |head: &Fingerprint| {
            node.data.get(..head.length as usize).is_some_and(|start| head.matches(start))
        };
        let before = node.data.get(..state.offset as usize);
        before.is_some_and(|before| Fingerprint::of_mark(before) == state.mark)
            && state.head.as_ref().is_none_or(head)
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
            && !known.homes.iter().any(|home| home.offset == offset);
        if elsewhere {
            return self.violate("V3", format!("line {line} was rejected as from offset {offset}"));
        }
        self.name((generation, offset), line, None);
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

    /// Who asked was told that these are settled.
    pub(crate) fn check_caught_up(&mut self, asked: &[usize]) {
        if let Some(line) = asked.iter().find(|line| !self.is_settled(**line)) {
            self.violate("V9", format!("caught up was told before line {line} was settled"));
        }
    }

    /// V7: every byte read in this run is in one class, on top of what the checkpoint said.
    pub(crate) fn check_ledger(&mut self, snapshot: &Snapshot, before: u64, delivered: u64) {
        let bytes = &snapshot.ledger.bytes;
        self.settle_doubts(bytes.read.saturating_sub(before));
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
        // What could not be looked at may have been taken for gone, where it is not known well.
        self.disturbed |= std::mem::take(&mut self.order_excused);
        let told = &snapshot.ledger.lost;
        self.check_arrived(told);
        let moved = told.iter().filter(|lost| lost.reason == "moved_away").count() as u64;
        self.counters.moved_away_told += moved;
        self.counters.cut_and_told += told.len() as u64 - moved;
        self.counters.filtered_and_blank +=
            snapshot.ledger.lines.filtered.min(1) * snapshot.ledger.lines.blank.min(1);
        // A file that goes on where another one stood may not have been read itself.
        let (mut least, mut most) = (0, 0);
        for handle in self.handles.values() {
            let track = &self.tracks[&handle.uid];
            let whole = track.placed.last().map_or(0, |placed| placed.end);
            let size = self.disk.node(handle.uid).data.len() as u64;
            let read = if handle.was_read { handle.position.min(size) } else { size };
            let tail = read.saturating_sub(whole);
            most += tail;
            least += if handle.was_read { tail } else { 0 };
        }
        let pending = snapshot.ledger.bytes.pending;
        if pending < least || pending > most {
            self.violate("V7", format!("{pending} bytes are pending, not {least} to {most}"));
        }
        self.check_position_at_rest();
    }

    /// V6: the durable position is the end of the last whole line.
    fn check_position_at_rest(&mut self) {
        let Some(uid) = self.disk.input() else { return };
        let end = self.tracks[&uid].placed.last().map_or(0, |placed| placed.end);
        // What was left out at the first start and was cut since is read from its start.
        let skipped = if self.tracks[&uid].life == 0 { self.tracks[&uid].skipped } else { 0 };
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
