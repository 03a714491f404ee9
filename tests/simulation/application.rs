//! What the application does to the input, and what the file system does.

use std::path::Path;

use openalgo_bridge::platform::fs::FileKind;

use crate::disk::INPUT;
use crate::model::Model;
use crate::reading::CROWDED;
use crate::script::{Kind, Op};
use crate::world::World;

impl World {
    pub(crate) fn apply_to_input(&mut self, op: &Op) {
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
            Kind::CopyTruncate => self.copy_truncate(a),
            Kind::Rotations => self.rotations(a, b == 1),
            Kind::Save => self.save(a == 1),
            Kind::Truncate => self.with_input(|model, uid| {
                let size = model.disk.node(uid).data.len() * a as usize / 1000;
                model.write_from(uid, size, b"");
            }),
            Kind::Rewrite => self.rewrite(a, b),
            Kind::Trim => self.trim(a, b == 1),
            Kind::Unlink => {
                let mut model = self.shared.model();
                if model.disk.input().is_some() {
                    model.disturbed = true;
                    let _ = model.disk.remove(Path::new(INPUT));
                }
            }
            Kind::DeleteOldest => self.delete_oldest(),
            Kind::Late => self.late(a, b == 1),
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

    pub(crate) fn with_input(&mut self, change: impl FnOnce(&mut Model, u64)) {
        let mut model = self.shared.model();
        if let Some(uid) = model.disk.input() {
            change(&mut model, uid);
        }
    }

    pub(crate) fn create_input(&mut self, beginning: u64) {
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

    pub(crate) fn append(&mut self, kind: u64, around: u64, over: u64) {
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
        if model.ended_within_a_line(uid) {
            return;
        }
        if let Some(track) = model.tracks.get_mut(&uid) {
            let unfinished = std::mem::take(&mut track.unfinished);
            if !unfinished.is_empty() {
                model.append(uid, &unfinished);
            }
        }
    }

    /// Into the newest sibling, or into a file that was replaced.
    fn late(&mut self, kind: u64, replaced: bool) {
        let path = self.siblings.last().map_or(Path::new(""), |path| path);
        let mut model = self.shared.model();
        // Once nobody reads it any more, it is just gone.
        let run = model.run;
        let is_held = |it: &(u64, u64)| it.1 == run && model.disk.nodes.contains_key(&it.0);
        let found = match self.replaced.filter(|it| replaced && model.alive && is_held(it)) {
            Some((uid, _)) => Some(uid),
            None => model.disk.at(path),
        };
        let Some(uid) = found else { return };
        let is_replaced = model.disk.at(path) != Some(uid);
        let Some(track) = model.tracks.get(&uid) else { return };
        let finished = track.finished.is_some();
        // What was rotated before it was seen, and is no more than a copy then, is not looked at again.
        let unseen = track.replaces.is_some() && track.opens == 0 && !is_replaced;
        // A copy has no writer.
        if (track.copy && !is_replaced) || unseen || model.ended_within_a_line(uid) {
            return;
        }
        if is_replaced {
            let read = model.handles.values().any(|handle| handle.uid == uid && handle.is_lane);
            // Where others waited for its place, it may have been closed before its time.
            let crowded = model.counters.waited_for_a_place > 0 || model.handles.len() >= CROWDED;
            if !read && !finished && !crowded {
                model.violate("V1", format!("file {uid} is closed, its writer has it open"));
            }
            if !read {
                return;
            }
            model.counters.written_where_replaced += 1;
            model.disturbed = true;
            // What took its place is no copy of all of it any more.
            let others = model.tracks.values_mut().filter(|track| track.replaces == Some(uid));
            others.for_each(|track| track.differs_from_replaced = true);
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
}
