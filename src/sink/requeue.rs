//! Requests to send rejected lines again, and what became of them: `requeue/` in the state directory.
//!
//! A request is a file of rejects, each line whole. It stays until every one of its lines is delivered or
//! refused again and `done.jsonl` says so durably; then it is removed. A daemon that dies in between
//! sends the request again.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::rejects::Entry;
use crate::platform::fs::{Fs, StateFile};

/// In the state directory.
const DIRECTORY: &str = "requeue";

/// What became of lines, one JSON object a line.
const DONE: &str = "done.jsonl";

/// The ending of a request, and of one that is being written.
const REQUEST: &str = "request";
const UNFINISHED: &str = "tmp";

/// How much one request holds at most, but for a single line: it is in memory while it is worked on.
pub const REQUEST_BYTES: usize = 4 << 20;

/// How much is read of a request, and of the list: lines may have 256 MiB, and escapes make six bytes of one.
const READ_MAX: u64 = 2 << 30;
const LIST_MAX: u64 = 256 << 20;

/// What became of a line that was sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Acknowledged by the sink.
    Delivered,
    /// Refused again; it is open again.
    Refused,
}

/// A line of the list of what became of lines.
#[derive(Debug, Serialize, Deserialize)]
struct Done {
    id: String,
    at: String,
    outcome: Outcome,
}

/// Lines for the list of what became of lines, at the time `at`.
pub fn encode(at: &str, outcomes: &[(String, Outcome)]) -> Vec<u8> {
    let mut text = Vec::new();
    for (id, outcome) in outcomes {
        let done = Done { id: id.clone(), at: at.to_owned(), outcome: *outcome };
        // These types can't fail.
        text.extend(serde_json::to_vec(&done).unwrap_or_default());
        text.push(b'\n');
    }
    text
}

/// Where requests of a state directory are.
pub fn directory_in(state_dir: &Path) -> PathBuf {
    state_dir.join(DIRECTORY)
}

/// The requests that are not finished, oldest first.
///
/// # Errors
/// The system's, but for a directory that is not there.
pub fn requests(fs: &dyn Fs, state_dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = match fs.list(&directory_in(state_dir)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        files => files?,
    };
    files.retain(|path| path.extension().is_some_and(|extension| extension == REQUEST));
    files.sort_unstable();
    Ok(files)
}

/// How many lines a request has, by its name.
pub fn lines_in(path: &Path) -> u64 {
    let name = path.file_stem().and_then(|name| name.to_str());
    name.and_then(|name| name.rsplit('-').next()?.parse().ok()).unwrap_or(0)
}

/// The rejects of a request.
///
/// # Errors
/// The system's; `InvalidData` for what is none.
pub fn read(fs: &dyn Fs, path: &Path) -> io::Result<Vec<Entry>> {
    let content = fs.read(path, READ_MAX)?;
    let lines = content.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let entries = lines.map(|line| serde_json::from_slice(line).map_err(io::Error::other));
    entries
        .collect::<io::Result<_>>()
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Writes a request, durably. `number` tells it from others that are written at `at_ms`.
///
/// # Errors
/// The system's.
pub fn write(
    fs: &dyn Fs,
    state_dir: &Path,
    (at_ms, number): (i64, usize),
    entries: &[&Entry],
) -> io::Result<PathBuf> {
    let directory = directory_in(state_dir);
    fs.create_directory(&directory)?;
    let (process, lines) = (std::process::id(), entries.len());
    let name = format!("{at_ms:015}-{process}-{number:06}-{lines}");
    let unfinished = directory.join(&name).with_extension(UNFINISHED);
    let path = directory.join(&name).with_extension(REQUEST);
    let mut text = Vec::new();
    for entry in entries {
        serde_json::to_writer(&mut text, entry)?;
        text.push(b'\n');
    }
    let file = fs.create_new(&unfinished)?;
    file.write_all_at(&text, 0)?;
    file.sync()?;
    fs.rename(&unfinished, &path)?;
    fs.sync_directory(&directory)?;
    Ok(path)
}

/// Puts a request aside that is none.
///
/// # Errors
/// The system's.
pub fn put_aside(fs: &dyn Fs, path: &Path) -> io::Result<()> {
    fs.rename(path, &path.with_extension("damaged"))
}

/// The last outcome of each line that was ever sent again.
///
/// # Errors
/// The system's, but for a list that is not there.
pub fn outcomes(fs: &dyn Fs, state_dir: &Path) -> io::Result<HashMap<String, Outcome>> {
    let content = match fs.read(&directory_in(state_dir).join(DONE), LIST_MAX) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        content => content?,
    };
    let lines = content.split(|byte| *byte == b'\n');
    let done = lines.filter_map(|line| serde_json::from_slice::<Done>(line).ok());
    Ok(done.map(|done| (done.id, done.outcome)).collect())
}

/// Appends to the list of what became of lines, and removes requests that are finished.
pub struct DoneList {
    fs: Arc<dyn Fs>,
    directory: PathBuf,
}

impl DoneList {
    /// That of a state directory.
    pub fn new(fs: Arc<dyn Fs>, state_dir: &Path) -> Self {
        Self { fs, directory: directory_in(state_dir) }
    }

    /// Notes what became of lines, durably, and then removes the request that is done with them.
    ///
    /// # Errors
    /// The system's. Then all of it can be done again: of outcomes that are listed twice, one counts.
    pub fn note(&self, outcomes: &[u8], request: Option<&Path>) -> io::Result<()> {
        let list = self.fs.open_state(&self.directory.join(DONE))?;
        let end = list.size()?;
        let text = if ends_with_line(list.as_ref(), end)? {
            outcomes.to_vec()
        } else {
            [b"\n", outcomes].concat()
        };
        list.write_all_at(&text, end)?;
        list.sync()?;
        let removed = request.map(|request| self.fs.remove(request));
        match removed {
            Some(Err(error)) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        self.fs.sync_directory(&self.directory)
    }
}

/// What a full disk or a crash left behind is a line of its own, which nobody understands.
fn ends_with_line(list: &dyn StateFile, end: u64) -> io::Result<bool> {
    let Some(before) = end.checked_sub(1) else { return Ok(true) };
    let mut last = [0];
    list.read_at(&mut last, before)?;
    Ok(last == [b'\n'])
}
