//! Files that were seen and found no place among the open ones: what becomes of them is told too.

use std::io;

use super::Pipeline;
use crate::checkpoint::{GenerationState, Lost, LostReason};
use crate::domain::identity::Fingerprint;
use crate::domain::ledger::Ledger;
use crate::source::siblings::{Sibling, Siblings};

impl Pipeline {
    /// What the next start must know of files that nobody has read.
    pub(super) fn unopened(&self) -> impl Iterator<Item = GenerationState> {
        let unopened = self.rotations.unopened.iter();
        unopened.filter(|file| !self.is_open(&file.identity)).map(unread)
    }

    /// How many they are, and their bytes: the next start must know of each.
    pub(super) fn amount_unopened(&self) -> (usize, u64) {
        let unopened = &self.rotations.unopened;
        (unopened.len(), unopened.iter().map(|file| file.size).sum())
    }

    /// The file at the path has no place either: it may be cut or deleted before it gets one.
    pub(super) fn wait_at_path(&mut self) {
        let at_path = Sibling::at(self.edges.fs.as_ref(), &self.settings.input);
        let Ok(Some(file)) = at_path else { return };
        let mut untaken = self.untaken.iter().map(|(known, _)| &known.identity);
        if !untaken.any(|known| known.is_same_file(&file.identity)) && !self.is_open(&file.identity)
        {
            self.rotations.unopened.push(file);
        }
    }

    /// Files that were seen and found no place are lost if they are gone by now, and so is what was cut
    /// off them.
    pub(super) fn miss_the_unopened(&mut self, siblings: &Siblings) {
        for file in std::mem::take(&mut self.rotations.unopened) {
            if self.is_open(&file.identity) {
                continue;
            }
            let there = siblings.by_identity(&file.identity).cloned();
            // That one can't look says nothing of it.
            let Ok(now) = there.map_or_else(|| self.after_all(&file), |it| Ok(Some(it))) else {
                self.rotations.unopened.push(file);
                continue;
            };
            let Some(now) = now else {
                let (from, to, reason) = (0, file.size, LostReason::MovedAway);
                self.lose(Lost { generation: None, from, to, reason });
                continue;
            };
            let between = file.modified_ns..=now.modified_ns;
            // Or it was copied before.
            if now.size < file.size && !self.has_unseen_of_size(file.size, &between) {
                let (from, to, reason) = (now.size, file.size, LostReason::TruncatedUnread);
                self.lose(Lost { generation: None, from, to, reason });
            }
        }
    }

    /// One that is not beside the path is at it; or it went from there while the directory was listed.
    fn after_all(&self, file: &Sibling) -> io::Result<Option<Sibling>> {
        let is_it = |it: &Sibling| it.identity.is_same_file(&file.identity);
        let at_path = Sibling::at(self.edges.fs.as_ref(), &self.settings.input)?.filter(is_it);
        if at_path.is_some() || file.path != self.settings.input {
            return Ok(at_path);
        }
        Ok(self.siblings()?.by_identity(&file.identity).cloned())
    }
}

/// What the next start must know of a file of which nothing was read.
pub(super) fn unread(file: &Sibling) -> GenerationState {
    GenerationState {
        generation: None,
        path: file.path.clone(),
        identity: file.identity,
        after: None,
        head: None,
        mark: Fingerprint::of_mark(b""),
        offset: 0,
        size: file.size,
        modified_ns: file.modified_ns,
        ledger: Ledger::default(),
    }
}
