//! The files that the input was rotated to, beside it.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};

use super::file::{FollowedFile, identity_of};
use crate::domain::identity::Identity;
use crate::domain::rotation::{self, Packing, Rotated};
use crate::platform::fs::{FileFacts, FileKind, Fs, is_out_of_descriptors};

/// A file beside the input.
#[derive(Clone, Debug)]
pub struct Sibling {
    /// Where it is.
    pub path: PathBuf,
    /// Who it is.
    pub identity: Identity,
    /// Size in bytes, packed if it is.
    pub size: u64,
    /// When it was last written, nanoseconds since 1970, by the file system's clock.
    pub modified_ns: i64,
}

/// A rotation is under way, and what was listed has other names by now; or one can't look at it now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moved;

impl Sibling {
    fn new(path: PathBuf, facts: &FileFacts) -> Self {
        let (identity, size, modified_ns) = (identity_of(facts), facts.size, facts.modified_ns);
        Self { path, identity, size, modified_ns }
    }

    /// The regular file at a path, if there is one.
    ///
    /// # Errors
    /// The system's.
    pub fn at(fs: &dyn Fs, path: &Path) -> io::Result<Option<Self>> {
        match fs.stat(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
            Ok(facts) => {
                Ok((facts.kind == FileKind::Regular).then(|| Self::new(path.to_owned(), &facts)))
            }
        }
    }

    /// Opens it, to be read from its start. None: it is not there any more, but perhaps elsewhere.
    ///
    /// # Errors
    /// The system's; `InvalidData` for what can't be unpacked.
    pub fn open(&self, fs: &dyn Fs, max_line: usize) -> io::Result<Option<FollowedFile>> {
        let file = FollowedFile::open_rotated(fs, &self.path, max_line)?;
        Ok(file.filter(|file| file.identity().is_same_file(&self.identity)))
    }
}

/// One whose name is that of a rotated file.
#[derive(Clone, Debug)]
pub struct RotatedSibling {
    /// The name, taken apart.
    pub name: Rotated,
    /// The file.
    pub file: Sibling,
}

/// What is beside the input.
#[derive(Debug, Default)]
pub struct Siblings {
    /// By their names rotated from it, oldest first.
    pub rotated: Vec<RotatedSibling>,
    others: Vec<Sibling>,
}

impl Siblings {
    /// Looks at the input's directory, and at that of the file that the input is a link to: what rotates it
    /// knows it by that name.
    ///
    /// # Errors
    /// The system's.
    pub fn of(fs: &dyn Fs, input: &Path) -> io::Result<Self> {
        let mut siblings = Self::default();
        siblings.add(fs, input)?;
        let target = fs.target(input);
        if target != input {
            siblings.add(fs, &target)?;
        }
        siblings.drop_halves();
        rotation::sort(&mut siblings.rotated, |it| (&it.name, it.file.modified_ns));
        Ok(siblings)
    }

    fn add(&mut self, fs: &dyn Fs, input: &Path) -> io::Result<()> {
        let (Some(directory), Some(input)) = (input.parent(), input.file_name()) else {
            return Ok(());
        };
        let input = input.to_string_lossy();
        let mut below = Vec::new();
        for path in fs.list(directory)? {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name == input {
                continue;
            }
            let facts = match fs.stat(&path) {
                Ok(facts) => facts,
                // What goes away meanwhile was listed under another name, or is gone.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            match (facts.kind, Rotated::of(&input, &name)) {
                (FileKind::Regular, Some(name)) => {
                    self.rotated.push(RotatedSibling { name, file: Sibling::new(path, &facts) });
                }
                (FileKind::Regular, None) => self.others.push(Sibling::new(path, &facts)),
                (FileKind::Directory, _) => below.push(path),
                _ => {}
            }
        }
        for directory in below {
            self.add_below(fs, &directory, &input);
        }
        Ok(())
    }

    /// Files that were rotated into a directory below the input's own: logrotate's `olddir`. One that may not
    /// be looked at is none.
    fn add_below(&mut self, fs: &dyn Fs, directory: &Path, input: &str) {
        for path in fs.list(directory).unwrap_or_default() {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let Some(name) = Rotated::of(input, &name) else { continue };
            let facts = fs.stat(&path).ok().filter(|facts| facts.kind == FileKind::Regular);
            let file = facts.map(|facts| Sibling::new(path, &facts));
            self.rotated.extend(file.map(|file| RotatedSibling { name, file }));
        }
    }

    /// The one that is this file, whatever its name.
    pub fn by_identity(&self, identity: &Identity) -> Option<&Sibling> {
        let rotated = self.rotated.iter().map(|it| &it.file);
        rotated.chain(&self.others).find(|file| file.identity.is_same_file(identity))
    }

    /// The newest rotated one that `goes_on` accepts, which puts the file in its place. `is_other`: is
    /// known to be something else.
    ///
    /// # Errors
    /// They were moved meanwhile.
    pub fn newest(
        &self,
        fs: &dyn Fs,
        max_line: usize,
        is_other: impl Fn(&Sibling) -> bool,
        goes_on: impl Fn(&mut FollowedFile) -> io::Result<bool>,
    ) -> Result<Option<FollowedFile>, Moved> {
        self.accepted(fs, max_line, is_other, goes_on).next().transpose()
    }

    /// The same, if there is only one.
    ///
    /// # Errors
    /// They were moved meanwhile.
    pub fn only(
        &self,
        fs: &dyn Fs,
        max_line: usize,
        is_other: impl Fn(&Sibling) -> bool,
        goes_on: impl Fn(&mut FollowedFile) -> io::Result<bool>,
    ) -> Result<Option<FollowedFile>, Moved> {
        let mut accepted = self.accepted(fs, max_line, is_other, goes_on);
        let first = accepted.next().transpose()?;
        Ok(first.filter(|_| accepted.next().is_none()))
    }

    fn accepted(
        &self,
        fs: &dyn Fs,
        max_line: usize,
        is_other: impl Fn(&Sibling) -> bool,
        goes_on: impl Fn(&mut FollowedFile) -> io::Result<bool>,
    ) -> impl Iterator<Item = Result<FollowedFile, Moved>> {
        let rotated = self.rotated.iter().rev();
        rotated.filter_map(move |RotatedSibling { name, file }| {
            if name.packing == Packing::Other || is_other(file) {
                return None;
            }
            let mut file = match file.open(fs, max_line) {
                Ok(Some(file)) => file,
                Ok(None) => return Some(Err(Moved)),
                // Without a descriptor nothing can be said of it.
                Err(error) if is_out_of_descriptors(&error) => return Some(Err(Moved)),
                // One that can't be read is told of where it is missed.
                Err(_) => return None,
            };
            goes_on(&mut file).unwrap_or(false).then_some(Ok(file))
        })
    }

    /// While a file is being packed, there are both; the whole one is the one to read.
    fn drop_halves(&mut self) {
        let is_plain = |it: &RotatedSibling| it.name.packing == Packing::Plain;
        let plain = self.rotated.iter().filter(|it| is_plain(it));
        let plain: HashSet<String> = plain.map(|it| it.name.tag().to_owned()).collect();
        self.rotated.retain(|it| is_plain(it) || !plain.contains(it.name.tag()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::identity::Fingerprint;
    use crate::platform::fs::RealFs;
    use crate::source::file::Known;

    const MAX_LINE: usize = 1 << 20;

    fn names(siblings: &Siblings) -> Vec<String> {
        let name = |it: &RotatedSibling| it.file.path.file_name()?.to_str().map(str::to_owned);
        siblings.rotated.iter().filter_map(name).collect()
    }

    #[test]
    fn rotated_files_come_oldest_first_and_half_packed_ones_once() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["e", "e.1", "e.2", "e.2.gz", "e.3.gz", "e.bak", "e.10.xz", "other.1"] {
            std::fs::write(directory.path().join(name), name).unwrap();
        }
        std::fs::create_dir(directory.path().join("e.4")).unwrap();
        let siblings = Siblings::of(&RealFs, &directory.path().join("e")).unwrap();
        assert_eq!(names(&siblings), ["e.10.xz", "e.3.gz", "e.2", "e.1"]);
        let other = std::fs::File::open(directory.path().join("e.bak")).unwrap();
        let identity = identity_of(&crate::platform::fs::InputFile::facts(&other).unwrap());
        assert!(siblings.by_identity(&identity).is_some(), "its name does not matter");
        assert!(Siblings::of(&RealFs, Path::new("/nowhere/e")).is_err());
    }

    #[test]
    fn in_09_a_copy_is_known_by_its_content_and_read_from_the_offset() {
        let directory = tempfile::tempdir().unwrap();
        let input = directory.path().join("e");
        std::fs::write(&input, "one\ntwo\nthree\n").unwrap();
        let original = FollowedFile::open(&RealFs, &input, MAX_LINE, None).unwrap().unwrap();
        let (head, mark) = (Fingerprint::of_head(b"one\n"), Fingerprint::of_mark(b"one\ntwo\n"));
        let known = Known {
            identity: original.identity(),
            head: head.as_ref(),
            mark: &mark,
            offset: 8,
            size: 14,
            generation: original.generation(),
            after: None,
        };
        let find = |content: &str| {
            std::fs::write(directory.path().join("e.1"), content).unwrap();
            let siblings = Siblings::of(&RealFs, &input).unwrap();
            let found = siblings.newest(
                &RealFs,
                MAX_LINE,
                |_| false,
                |file| file.resume_as_copy(&known, MAX_LINE),
            );
            found.unwrap().map(|file| file.position())
        };
        assert_eq!(find("one\ntwo\nthree\n"), Some(8));
        assert_eq!(find("one\ntwo\n"), Some(8));
        for other in ["one\ntwx\nthree\n", "ane\ntwo\nthree\n", "one\n", ""] {
            assert_eq!(find(other), None, "{other}");
        }
    }
}
