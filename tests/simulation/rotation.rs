//! The input is rotated, copied, cut and replaced, in the ways that programs and people have.

use std::path::{Path, PathBuf};

use openalgo_bridge::platform::fs::FileKind;

use crate::disk::INPUT;
use crate::model::{CopiedFrom, Model};
use crate::world::World;

/// What rotated files are called.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Naming {
    /// By a number of their own, in no order that the daemon knows.
    Number,
    /// The newest is 1, as logrotate does it: all others are renamed.
    Chain,
    Date,
    /// By a name that no rotation gives.
    Other,
}

impl World {
    fn naming(&self) -> Naming {
        match self.config.naming {
            1 => Naming::Chain,
            2 => Naming::Date,
            3 => Naming::Other,
            _ => Naming::Number,
        }
    }

    /// A name for what is rotated now, free.
    fn new_sibling(&mut self) -> PathBuf {
        self.next_sibling += 1;
        let number = self.next_sibling;
        let path = match self.naming() {
            Naming::Number => format!("{INPUT}.{number:06}"),
            Naming::Date => format!("{INPUT}-20260129-{number:06}"),
            Naming::Other => format!("/in/archive-{number:06}.log"),
            Naming::Chain => {
                self.shift_chain();
                format!("{INPUT}.1")
            }
        };
        self.siblings.push(path.clone().into());
        path.into()
    }

    fn shift_chain(&mut self) {
        for path in &mut self.siblings {
            let name = path.to_str().unwrap_or_default();
            let Some((stem, number)) = name.rsplit_once('.') else { continue };
            let Ok(number) = number.parse::<u64>() else { continue };
            let next = PathBuf::from(format!("{stem}.{}", number + 1));
            let _ = self.shared.model().disk.rename(path, &next);
            *path = next;
        }
    }

    /// Renamed, and no new one created.
    pub(crate) fn move_away(&mut self) {
        if self.shared.model().disk.input().is_none() {
            return;
        }
        let path = self.new_sibling();
        let mut model = self.shared.model();
        model.disturbed |= self.naming() == Naming::Other;
        let _ = model.disk.rename(Path::new(INPUT), &path);
        drop(model);
        self.keep_few();
    }

    fn keep_few(&mut self) {
        while self.siblings.len() as u64 > self.config.keep {
            self.delete_oldest();
        }
    }

    pub(crate) fn delete_oldest(&mut self) {
        if !self.siblings.is_empty() {
            let path = self.siblings.remove(0);
            let mut model = self.shared.model();
            model.disturbed = true;
            let _ = model.disk.remove(&path);
        }
    }

    pub(crate) fn move_back(&mut self) {
        if self.shared.model().disk.at(Path::new(INPUT)).is_some() {
            return;
        }
        let Some(path) = self.siblings.pop() else { return };
        self.next_order += 1;
        let mut model = self.shared.model();
        if model.disk.at(&path).is_some_and(|uid| model.ended_within_a_line(uid)) {
            return;
        }
        let _ = model.disk.rename(&path, Path::new(INPUT));
        model.counters.moved_back += 1;
        if let Some(uid) = model.disk.input() {
            let tick = model.tick;
            let track = model.tracks.entry(uid).or_default();
            track.moved_back = true;
            track.copy = false;
            track.cause = tick;
            track.order = self.next_order;
            model.place_lines(uid);
        }
    }

    /// So many rotations, each of a file with a line.
    pub(crate) fn rotations(&mut self, count: u64, turns: bool) {
        for _ in 0..count {
            self.append(31, 9, 0);
            self.move_away();
            if turns {
                self.poll(20, true, true);
            }
        }
        self.create_input(0);
    }

    /// Copied aside, then cut to nothing. Between the two: 1 the daemon looks; 2 a line is written,
    /// which is then in neither; 3 the daemon looks at half a copy.
    pub(crate) fn copy_truncate(&mut self, between: u64) {
        if self.shared.model().disk.input().is_none() {
            return;
        }
        let path = self.new_sibling();
        let mut model = self.shared.model();
        let Some(uid) = model.disk.input() else { return };
        let content = model.disk.node(uid).data.clone();
        let half = if between == 3 { content.len() / 2 } else { content.len() };
        let copy = create_copy(&mut model, &path, uid);
        model.append(copy, &content[..half]);
        drop(model);
        if between == 1 || between == 3 {
            self.poll(30, true, true);
        }
        if between == 2 {
            self.append(31, 9, 0);
        }
        let other = self.naming() == Naming::Other;
        let mut model = self.shared.model();
        if model.disk.nodes.contains_key(&copy) {
            model.append(copy, &content[half..]);
        }
        // What was copied is not gone.
        // Of which part nothing was read, the copy can't be known by its content.
        let known = model.tracks.get(&copy).is_some_and(|track| track.copied_from.is_some());
        let disturbed =
            model.disturbed || other || between == 2 || !known || !model.disk.node(uid).readable;
        model.write_from(uid, 0, b"");
        model.disturbed = disturbed;
        drop(model);
        self.keep_few();
    }

    /// An editor writes a new file with the same content and moves it to the path; with a line more.
    pub(crate) fn save(&mut self, more: bool) {
        let saved = Path::new("/in/.saved");
        let mut model = self.shared.model();
        let Some(uid) = model.disk.input() else { return };
        let content = model.disk.node(uid).data.clone();
        let copy = create_copy(&mut model, saved, uid);
        // What vanished from it before that, nobody can see any more.
        let gone = std::mem::take(&mut model.tracks.entry(uid).or_default().gone);
        model.owed.retain(|owed| !gone.contains(owed));
        self.next_order += 1;
        let track = model.tracks.entry(copy).or_default();
        (track.copy, track.order, track.replaces) = (false, self.next_order, Some(uid));
        // Half a line in it may be finished there by its writer, and else is lost.
        model.disturbed |= track.copied_from.is_none() || !content.ends_with(b"\n");
        model.append(copy, &content);
        let followed = model.handles.values().any(|handle| handle.uid == uid && handle.is_lane);
        let replaced = (followed && model.alive).then_some((uid, model.run));
        if replaced.is_some() {
            model.disk.opened(uid);
        }
        let _ = model.disk.rename(saved, Path::new(INPUT));
        drop(model);
        self.replaced = replaced;
        if more {
            self.append(31, 9, 0);
        }
    }

    pub(crate) fn rewrite(&mut self, lines: u64, longer: u64) {
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

    /// Its last lines in its place; the daemon may look while it is empty.
    pub(crate) fn trim(&mut self, lines: u64, looks: bool) {
        let mut kept = None;
        self.with_input(|model, uid| {
            let track = model.tracks.entry(uid).or_default();
            let from = track.placed.len().saturating_sub(lines as usize);
            let from = track.placed.get(from).map(|placed| placed.start as usize);
            if let Some(from) = from.filter(|from| *from > 0) {
                let content = model.disk.node(uid).data[from..].to_vec();
                model.write_from(uid, 0, b"");
                kept = Some((uid, content));
            }
        });
        let Some((uid, content)) = kept else { return };
        if looks {
            self.poll(10, true, true);
        }
        let mut model = self.shared.model();
        model.write_from(uid, 0, &content);
        let tick = model.tick;
        model.tracks.entry(uid).or_default().cause = tick;
    }

    pub(crate) fn obstacle(&mut self, what: u64, comes_back: u64) {
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

/// An empty file that is to become a copy of `original`, whose lines may come twice by that.
fn create_copy(model: &mut Model, path: &Path, original: u64) -> u64 {
    let now_ns = model.now_ns();
    let copy = model.disk.create(path, FileKind::Regular, now_ns);
    // Of what begins with the same line as others, a position behind that says nothing.
    let lane = model.handles.values().find(|handle| handle.uid == original && handle.is_lane);
    let data = &model.disk.node(original).data;
    let second = model.tracks.get(&original).and_then(|track| Some(track.placed.first()?.end));
    let read = lane.filter(|lane| {
        second.is_some_and(|second| lane.position - lane.unfinished > second)
            && lane.finds_itself_in(data)
    });
    let run = model.run;
    let copied_from = read.map(|lane| CopiedFrom { uid: original, read: lane.position, run });
    let was = model.tracks.entry(original).or_default();
    let unjudged = was.replaces.is_some() && was.opens == 0;
    let (skipped, before_start, ambiguous, ever_read) =
        (was.skipped, was.before_start, was.ambiguous, was.ever_read);
    let track = model.tracks.entry(copy).or_default();
    (track.copy, track.copied_from) = (true, copied_from);
    (track.skipped, track.before_start, track.ambiguous) = (skipped, before_start, ambiguous);
    (track.ever_read, track.unjudged) = (ever_read, unjudged);
    let tick = model.tick;
    for uid in [copy, original] {
        model.tracks.entry(uid).or_default().cause = tick;
    }
    copy
}
