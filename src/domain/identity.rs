//! Which file is this, and is it still the same life of it?
//!
//! A name says nothing (rotation), an inode little (reuse), a head not enough (equal first lines).
//! What resumes a file is all of them *and* the bytes just before the offset; where anything
//! differs it is another life, read from its start: duplicates are preferred to loss.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use sha2::Digest as _;

use super::framing::CONTEXT_BYTES;
use super::position::{Generation, Sha256};

/// How much of the first line counts for the head of a file.
pub const HEAD_BYTES: usize = 4096;

/// What the file system says about who a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The device. Changes over a remount, so it only counts where there is no birth time.
    pub dev: u64,
    /// The inode. Reused by the kernel as soon as the file is gone.
    pub ino: u64,
    /// Nanoseconds from 1970 to the inode's birth, where the file system records it.
    pub born_ns: Option<i64>,
}

impl Identity {
    /// Whether both are the same inode in the same use.
    pub fn is_same_file(&self, other: &Self) -> bool {
        self.ino == other.ino
            && match (self.born_ns, other.born_ns) {
                (Some(here), Some(there)) => here == there,
                _ => self.dev == other.dev,
            }
    }
}

/// Some files, each once. There may be tens of thousands: all that were ever rotated.
#[derive(Clone, Debug, Default)]
pub struct Files(HashMap<u64, Vec<Identity>>);

impl Files {
    /// Whether this file is among them.
    pub fn contains(&self, file: &Identity) -> bool {
        self.0.get(&file.ino).is_some_and(|uses| uses.iter().any(|it| it.is_same_file(file)))
    }

    /// Adds a file.
    pub fn add(&mut self, file: Identity) {
        if !self.contains(&file) {
            self.0.entry(file.ino).or_default().push(file);
        }
    }

    /// Takes a file out.
    pub fn remove(&mut self, file: &Identity) {
        let Some(uses) = self.0.get_mut(&file.ino) else { return };
        uses.retain(|it| !it.is_same_file(file));
        if uses.is_empty() {
            self.0.remove(&file.ino);
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<Identity> for Files {
    fn from_iter<T: IntoIterator<Item = Identity>>(files: T) -> Self {
        let mut found = Self::default();
        files.into_iter().for_each(|file| found.add(file));
        found
    }
}

/// A stretch of content, remembered by its hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// How many bytes.
    pub length: u32,
    /// Their hash.
    pub sha256: Sha256,
}

impl Fingerprint {
    /// The head of a file that begins with `content`: its first line, at most [`HEAD_BYTES`] of
    /// it. None as long as that line is not complete.
    pub fn of_head(content: &[u8]) -> Option<Self> {
        let content = &content[..content.len().min(HEAD_BYTES)];
        let head = match memchr::memchr(b'\n', content) {
            Some(end) => &content[..=end],
            None if content.len() == HEAD_BYTES => content,
            None => return None,
        };
        Some(Self::of(head))
    }

    /// The mark of an offset: the last [`CONTEXT_BYTES`] of what comes before it.
    pub fn of_mark(before: &[u8]) -> Self {
        Self::of(&before[before.len().saturating_sub(CONTEXT_BYTES)..])
    }

    /// All of these bytes.
    pub fn of_stretch(content: &[u8]) -> Self {
        Self::of(content)
    }

    /// Whether these are exactly the bytes remembered.
    pub fn matches(&self, content: &[u8]) -> bool {
        *self == Self::of(content)
    }

    fn of(content: &[u8]) -> Self {
        Self { length: content.len() as u32, sha256: Sha256::of(content) }
    }
}

/// Names a life of a file by its inode, birth and first line.
///
/// `after` is the life that the same inode had before (it was truncated or rewritten in place):
/// its first line may be the same one again.
pub fn generation(
    identity: &Identity,
    head: &Fingerprint,
    after: Option<Generation>,
) -> Generation {
    let mut hasher = sha2::Sha256::new();
    hasher.update(b"openalgo-bridge generation 1\0");
    hasher.update(identity.ino.to_le_bytes());
    hasher.update(identity.born_ns.unwrap_or(0).to_le_bytes());
    hasher.update(head.length.to_le_bytes());
    hasher.update(head.sha256.to_string().as_bytes());
    if let Some(after) = after {
        hasher.update(after.0.to_le_bytes());
    }
    Generation(Sha256::finish(hasher).first_u64())
}

/// How the file at the path relates to the life that a checkpoint describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resume {
    /// The same life: go on at the committed offset.
    Continue,
    /// The same inode, shorter than the offset: a new life.
    Truncated,
    /// The same inode with other content before the offset: a new life.
    Rewritten,
    /// Another file: the one known was moved away or deleted.
    Replaced,
}

/// What was found at the path, compared with what a checkpoint remembers.
#[derive(Clone, Copy, Debug)]
pub struct Comparison {
    /// Inode and birth are the same.
    pub same_file: bool,
    /// Size now.
    pub size: u64,
    /// The least size that it has if it was not cut: the committed offset; the size that was last seen
    /// where too little was read to tell its content from that of others.
    pub least: u64,
    /// The head is the remembered one.
    pub same_head: bool,
    /// The bytes before the offset are the remembered ones.
    pub same_mark: bool,
}

/// Decides where reading starts after a restart.
pub fn plan_resume(found: Comparison) -> Resume {
    if !found.same_file {
        Resume::Replaced
    } else if found.size < found.least {
        Resume::Truncated
    } else if found.same_head && found.same_mark {
        Resume::Continue
    } else {
        Resume::Rewritten
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: Identity = Identity { dev: 1, ino: 7, born_ns: Some(5) };

    #[test]
    fn an_inode_is_the_same_file_while_its_birth_is() {
        let remounted = Identity { dev: 2, ..FILE };
        let reused = Identity { born_ns: Some(6), ..FILE };
        let unborn = Identity { born_ns: None, ..FILE };
        assert!(FILE.is_same_file(&remounted));
        assert!(!FILE.is_same_file(&reused));
        assert!(FILE.is_same_file(&unborn));
        assert!(!remounted.is_same_file(&unborn), "without a birth time the device counts");
        assert!(!FILE.is_same_file(&Identity { ino: 8, ..FILE }));
    }

    #[test]
    fn files_are_told_apart_by_who_they_are() {
        let mut files: Files = [FILE, FILE].into_iter().collect();
        assert!(files.contains(&Identity { dev: 2, ..FILE }));
        assert!(!files.contains(&Identity { ino: 8, ..FILE }));
        files.remove(&FILE);
        assert!(files.is_empty());
    }

    #[test]
    fn a_head_is_known_once_its_line_is_complete_or_long_enough() {
        assert_eq!(Fingerprint::of_head(b""), None);
        assert_eq!(Fingerprint::of_head(b"{\"a\":"), None);
        let head = Fingerprint::of_head(b"first\nsecond\n");
        assert_eq!(head, Fingerprint::of_head(b"first\n"));
        assert_eq!(head.map(|head| head.length), Some(6));
        let long = vec![b'x'; HEAD_BYTES + 1];
        assert_eq!(Fingerprint::of_head(&long), Fingerprint::of_head(&long[..HEAD_BYTES]));
        assert_eq!(Fingerprint::of_head(&long[..HEAD_BYTES - 1]), None);
    }

    #[test]
    fn a_generation_depends_on_inode_birth_head_and_former_life() {
        let head = Fingerprint::of_mark(b"first\n");
        let first = generation(&FILE, &head, None);
        assert_eq!(first, generation(&Identity { dev: 9, ..FILE }, &head, None));
        let others = [
            generation(&Identity { ino: 8, ..FILE }, &head, None),
            generation(&Identity { born_ns: Some(6), ..FILE }, &head, None),
            generation(&FILE, &Fingerprint::of_mark(b"other\n"), None),
            generation(&FILE, &head, Some(first)),
        ];
        assert!(others.iter().all(|other| *other != first), "{others:?}");
    }

    #[track_caller]
    fn check(found: Comparison, expected: Resume) {
        assert_eq!(plan_resume(found), expected);
    }

    #[test]
    fn resume() {
        let same =
            Comparison { same_file: true, size: 10, least: 10, same_head: true, same_mark: true };
        check(same, Resume::Continue);
        check(Comparison { size: 11, ..same }, Resume::Continue);
        check(Comparison { size: 9, ..same }, Resume::Truncated);
        check(Comparison { same_mark: false, ..same }, Resume::Rewritten);
        check(Comparison { same_head: false, ..same }, Resume::Rewritten);
        check(Comparison { same_file: false, ..same }, Resume::Replaced);
    }
}
