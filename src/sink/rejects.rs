//! Lines that can't be delivered are kept aside, whole and with the reason: `rejects.jsonl`.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use serde::{Deserialize, Serialize};

use crate::domain::envelope::Rejection;
use crate::domain::position::{EventId, Generation, Sha256};
use crate::platform::clock::format_utc;
use crate::platform::fs::{Fs, StateFile};

/// The file that is appended to; full ones get a number.
pub const REJECTS: &str = "rejects.jsonl";

/// A line that was rejected, and where it came from.
pub struct Rejected<'a> {
    /// When: milliseconds since 1970.
    pub at_ms: i64,
    /// The sink at that time, `kafka` or `socketio`.
    pub sink: &'a str,
    /// Why.
    pub rejection: &'a Rejection,
    /// The input path.
    pub file: &'a Path,
    /// The life of the file.
    pub generation: Generation,
    /// Where the line begins.
    pub offset: u64,
    /// How many bytes it has.
    pub length: u64,
    /// Their hash.
    pub sha256: Sha256,
    /// The line, or its beginning if it is too long.
    pub line: &'a [u8],
}

/// One line of the rejects file.
#[derive(Debug, Serialize, Deserialize)]
pub struct Entry {
    /// The event id that the line would have had.
    pub id: String,
    /// When, RFC 3339.
    pub rejected_at: String,
    /// The sink at that time.
    pub sink: String,
    /// Why, in one word.
    pub reason: String,
    /// Why, in a sentence.
    pub detail: String,
    /// The input path.
    pub file: String,
    /// The life of the file.
    pub generation: Generation,
    /// Where the line begins.
    pub offset: u64,
    /// How many bytes it has.
    pub length: u64,
    /// Their hash.
    pub sha256: String,
    /// The line, where it is UTF-8.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub line: Option<String>,
    /// The line, where it is not.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub line_base64: Option<String>,
    /// Only the beginning of the line is kept.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub line_truncated: bool,
}

impl Entry {
    /// The line, or its beginning if only that is kept.
    pub fn bytes(&self) -> Vec<u8> {
        let encoded = self.line_base64.as_ref();
        let decoded =
            encoded.and_then(|text| base64::engine::general_purpose::STANDARD.decode(text).ok());
        decoded.or_else(|| self.line.clone().map(String::into_bytes)).unwrap_or_default()
    }

    /// Keeps the whole line in the place of its beginning.
    pub fn complete(&mut self, line: Vec<u8>) {
        self.line_truncated = false;
        match String::from_utf8(line) {
            Ok(line) => (self.line, self.line_base64) = (Some(line), None),
            Err(error) => {
                let encoded = base64::engine::general_purpose::STANDARD.encode(error.as_bytes());
                (self.line, self.line_base64) = (None, Some(encoded));
            }
        }
    }
}

/// The line of the rejects file for a rejected line, LF included.
///
/// # Errors
/// serde's, which does not occur for these types.
pub fn encode(rejected: &Rejected<'_>) -> Result<Vec<u8>, serde_json::Error> {
    let hash = rejected.sha256.first_u32();
    let id = EventId { generation: rejected.generation, offset: rejected.offset, hash };
    let text = std::str::from_utf8(rejected.line).ok();
    let entry = Entry {
        id: id.to_string(),
        rejected_at: format_utc(rejected.at_ms),
        sink: rejected.sink.to_owned(),
        reason: rejected.rejection.reason.as_str().to_owned(),
        detail: rejected.rejection.detail.clone(),
        file: rejected.file.to_string_lossy().into_owned(),
        generation: rejected.generation,
        offset: rejected.offset,
        length: rejected.length,
        sha256: rejected.sha256.to_string(),
        line: text.map(str::to_owned),
        line_base64: text
            .is_none()
            .then(|| base64::engine::general_purpose::STANDARD.encode(rejected.line)),
        line_truncated: rejected.length != rejected.line.len() as u64,
    };
    let mut line = serde_json::to_vec(&entry)?;
    line.push(b'\n');
    Ok(line)
}

/// Appends to the rejects file, whole lines only, and begins a new one when it is full.
pub struct RejectsFile {
    fs: Arc<dyn Fs>,
    directory: PathBuf,
    max_bytes: u64,
    open: Option<Open>,
    /// Device and inode of the file and how much of it is durable, kept over failures: what a
    /// failed attempt left behind is cut off before the next.
    durable: Option<((u64, u64), u64)>,
}

struct Open {
    file: Box<dyn StateFile>,
    /// What is durable and ends with LF.
    size: u64,
}

impl RejectsFile {
    /// The rejects of the state in `directory`, rotated at `max_bytes`.
    pub fn new(fs: Arc<dyn Fs>, directory: &Path, max_bytes: u64) -> Self {
        Self { fs, directory: directory.to_owned(), max_bytes, open: None, durable: None }
    }

    /// Makes `lines` durable, all of them or none.
    ///
    /// # Errors
    /// The system's. The file is then cut back before the next attempt, so that no torn line stays.
    pub fn append<'a>(&mut self, lines: impl Iterator<Item = &'a [u8]>) -> io::Result<()> {
        let batch = lines.collect::<Vec<_>>().concat();
        let open = match self.open.take() {
            Some(open) if self.is_at_its_path(&open) => open,
            _ => self.open()?,
        };
        let open = if open.size > 0 && open.size + batch.len() as u64 > self.max_bytes {
            drop(open);
            self.rotate()?;
            self.open()?
        } else {
            open
        };
        open.file.write_all_at(&batch, open.size)?;
        open.file.sync()?;
        let size = open.size + batch.len() as u64;
        let facts = open.file.facts()?;
        self.durable = Some(((facts.dev, facts.ino), size));
        self.open = Some(Open { size, ..open });
        Ok(())
    }

    /// Whether someone moved or deleted the file meanwhile: what is appended must be found again.
    fn is_at_its_path(&self, open: &Open) -> bool {
        match (open.file.facts(), self.fs.stat(&self.directory.join(REJECTS))) {
            (Ok(held), Ok(there)) => (held.dev, held.ino) == (there.dev, there.ino),
            _ => false,
        }
    }

    /// Opens the file and cuts off what a crash or a full disk left unfinished at its end. No
    /// checkpoint has passed that: it will be appended again.
    fn open(&self) -> io::Result<Open> {
        let file = self.fs.open_state(&self.directory.join(REJECTS))?;
        let facts = file.facts()?;
        let whole = match self.durable {
            Some((known, size)) if known == (facts.dev, facts.ino) && size <= facts.size => size,
            _ => whole_lines(file.as_ref())?,
        };
        if whole != file.size()? {
            file.set_size(whole)?;
        }
        self.fs.sync_directory(&self.directory)?;
        Ok(Open { file, size: whole })
    }

    /// Gives the full file the next free number. The admin deletes them when they are dealt with.
    fn rotate(&self) -> io::Result<()> {
        let newest =
            numbered(self.fs.as_ref(), &self.directory)?.last().map_or(0, |(number, _)| *number);
        let to = self.directory.join(format!("{REJECTS}.{}", newest + 1));
        self.fs.rename(&self.directory.join(REJECTS), &to)?;
        self.fs.sync_directory(&self.directory)
    }
}

/// The rejects files there are, oldest first, the one being appended to last.
///
/// # Errors
/// The system's, for the directory.
pub fn files(fs: &dyn Fs, directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files: Vec<_> = numbered(fs, directory)?.into_iter().map(|(_, path)| path).collect();
    files.push(directory.join(REJECTS));
    Ok(files)
}

fn numbered(fs: &dyn Fs, directory: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut found: Vec<_> = fs
        .list(directory)?
        .into_iter()
        .filter_map(|path| {
            let name = path.file_name()?.to_str()?;
            let number = name.strip_prefix(REJECTS)?.strip_prefix('.')?.parse().ok()?;
            Some((number, path))
        })
        .collect();
    found.sort_unstable();
    Ok(found)
}

/// The offset behind the last LF.
fn whole_lines(file: &dyn StateFile) -> io::Result<u64> {
    const BLOCK: u64 = 64 << 10;
    let mut end = file.size()?;
    while end > 0 {
        let from = end.saturating_sub(BLOCK);
        let mut block = vec![0; (end - from) as usize];
        let got = file.read_at(&mut block, from)?;
        if let Some(last) = memchr::memrchr(b'\n', &block[..got]) {
            return Ok(from + last as u64 + 1);
        }
        end = from;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::envelope::Reason;
    use crate::platform::fs::RealFs;

    fn entry(line: &[u8], length: u64) -> Entry {
        let rejection = Rejection::new(Reason::NotJson, "at byte 0 …");
        let text = encode(&Rejected {
            at_ms: 0,
            sink: "kafka",
            rejection: &rejection,
            file: Path::new("/in"),
            generation: Generation(255),
            offset: 9,
            length,
            sha256: Sha256::of(line),
            line,
        })
        .unwrap();
        assert_eq!(text.last(), Some(&b'\n'));
        serde_json::from_slice(&text).unwrap()
    }

    #[test]
    fn a_reject_keeps_the_exact_bytes() {
        let text = entry("₹ \"x\"".as_bytes(), 7);
        assert_eq!((text.line.as_deref(), text.line_base64), (Some("₹ \"x\""), None));
        assert!(text.id.starts_with("00000000000000ff:9:"), "{}", text.id);
        assert!(!text.line_truncated);
        let binary = entry(b"\xff\x00", 2);
        assert_eq!((binary.line, binary.line_base64.as_deref()), (None, Some("/wA=")));
        assert!(entry(b"begin", 9000).line_truncated);
    }

    fn rejects(max_bytes: u64) -> (tempfile::TempDir, RejectsFile) {
        let directory = tempfile::tempdir().unwrap();
        let rejects = RejectsFile::new(Arc::new(RealFs), directory.path(), max_bytes);
        (directory, rejects)
    }

    #[test]
    fn full_files_are_rotated_and_none_is_lost() {
        let (directory, mut rejects) = rejects(10);
        for line in ["aaaa\n", "bbbb\n", "cccc\n", "a line beyond the limit\n", "dddd\n"] {
            rejects.append([line.as_bytes()].into_iter()).unwrap();
        }
        let files = files(&RealFs, directory.path()).unwrap();
        let contents: Vec<_> =
            files.iter().map(|file| std::fs::read_to_string(file).unwrap()).collect();
        assert_eq!(contents, ["aaaa\nbbbb\n", "cccc\n", "a line beyond the limit\n", "dddd\n"]);
    }

    #[test]
    fn a_torn_end_is_cut_off_before_appending() {
        let (directory, mut rejects) = rejects(1000);
        std::fs::write(directory.path().join(REJECTS), "whole\ntor").unwrap();
        rejects.append([&b"next\n"[..]].into_iter()).unwrap();
        let content = std::fs::read_to_string(directory.path().join(REJECTS)).unwrap();
        assert_eq!(content, "whole\nnext\n");
    }
}
