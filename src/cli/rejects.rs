//! `rejects list`: what was refused, why, and what became of it; `rejects requeue`: sends it again.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, BufWriter, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};

use super::args::{Arguments, Rejects, RejectsCommand};
use super::{Exit, complain, complain_config, load, note, print};
use crate::config::Purpose;
use crate::domain::position::Sha256;
use crate::platform::access::give_to_owner_of;
use crate::platform::clock::{Clock as _, SystemClock};
use crate::platform::fs::RealFs;
use crate::sink::rejects::{self, Entry};
use crate::sink::requeue::{self, Outcome};

/// Runs one of the subcommands.
pub(super) fn rejects(arguments: &Arguments, options: &Rejects) -> Exit {
    let settings = match load(arguments, Purpose::State).for_common() {
        Ok(settings) => settings,
        Err(problems) => return complain_config(&problems),
    };
    let state_dir = &settings.state_dir;
    let done = match &options.command {
        RejectsCommand::List { json, all } => list(state_dir, *json, *all),
        RejectsCommand::Requeue { all, ids } => requeue(state_dir, *all, ids),
    };
    match done {
        Ok(exit) => exit,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Ok,
        Err(error) => complain(&format!("{}: {error}", state_dir.display()), Exit::Io),
    }
}

/// What a reject is at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    Requested,
    Delivered,
}

/// What is known of rejects beside their files.
struct States {
    requested: HashSet<String>,
    outcomes: HashMap<String, Outcome>,
}

impl States {
    fn read(state_dir: &Path) -> io::Result<Self> {
        // Requests first: one that is finished meanwhile is in the list then.
        let mut requested = HashSet::new();
        for request in requeue::requests(&RealFs, state_dir)? {
            // One that is gone by now is in the list, and one that is none is put aside by the daemon.
            let entries = requeue::read(&RealFs, &request).unwrap_or_default();
            requested.extend(entries.into_iter().map(|entry| entry.id));
        }
        Ok(Self { requested, outcomes: requeue::outcomes(&RealFs, state_dir)? })
    }

    fn of(&self, id: &str) -> State {
        match self.outcomes.get(id) {
            Some(Outcome::Delivered) => State::Delivered,
            _ if self.requested.contains(id) => State::Requested,
            _ => State::Open,
        }
    }
}

/// Calls `each` with every reject once, oldest first, and its line. Gives how many lines can't be understood.
fn for_each(
    state_dir: &Path,
    mut each: impl FnMut(Entry, &[u8]) -> io::Result<()>,
) -> io::Result<u64> {
    let mut seen = HashSet::new();
    let mut damaged = 0;
    for path in files(state_dir)? {
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            file => file?,
        };
        for line in BufReader::new(file).split(b'\n') {
            let line = line?;
            match serde_json::from_slice::<Entry>(&line) {
                // A line that was rejected again after a crash is still one line.
                Ok(entry) if seen.insert(entry.id.clone()) => each(entry, &line)?,
                Ok(_) => {}
                Err(_) => damaged += 1,
            }
        }
    }
    Ok(damaged)
}

/// Prints each reject once, oldest first; with `all` those as well that were delivered since.
fn list(state_dir: &Path, json: bool, all: bool) -> io::Result<Exit> {
    let mut out = BufWriter::new(io::stdout().lock());
    let states = States::read(state_dir)?;
    let mut reasons: BTreeMap<String, u64> = BTreeMap::new();
    let (mut shown, mut delivered) = (0_u64, 0_u64);
    let damaged = for_each(state_dir, |entry, line| {
        let state = states.of(&entry.id);
        delivered += u64::from(state == State::Delivered);
        if state == State::Delivered && !all {
            return Ok(());
        }
        shown += 1;
        if json {
            out.write_all(line)?;
            writeln!(out)?;
        } else {
            let Entry { id, rejected_at, reason, offset, length, detail, .. } = &entry;
            let state = match state {
                State::Open => "",
                State::Requested => "  (sent again soon)",
                State::Delivered => "  (delivered since)",
            };
            writeln!(
                out,
                "{id}  {rejected_at}  {reason}  offset {offset}, {length} bytes: {detail}{state}"
            )?;
        }
        *reasons.entry(entry.reason).or_default() += 1;
        Ok(())
    })?;
    out.flush()?;
    if !json {
        let reasons: Vec<_> =
            reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        let summary = if reasons.is_empty() { "none".to_owned() } else { reasons.join(", ") };
        let since =
            if delivered > 0 { format!("; {delivered} delivered since") } else { String::new() };
        note(format_args!("{shown} rejects: {summary}{since}"));
    }
    Ok(exit_for(damaged))
}

fn exit_for(damaged: u64) -> Exit {
    match damaged {
        0 => Exit::Ok,
        damaged => complain(&format!("{damaged} lines of the rejects are damaged"), Exit::Data),
    }
}

fn files(state_dir: &Path) -> io::Result<Vec<PathBuf>> {
    match rejects::files(&RealFs, state_dir) {
        // Nothing was ever rejected there.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        files => files,
    }
}

/// Asks for rejects to be sent again: the running daemon does it, or the next one.
fn requeue(state_dir: &Path, all: bool, ids: &[String]) -> io::Result<Exit> {
    note(format_args!("state directory: {}", state_dir.display()));
    let states = States::read(state_dir)?;
    let mut wanted: HashSet<&str> = ids.iter().map(String::as_str).collect();
    let mut requests = Requests::new(state_dir);
    let (mut skipped, mut unreadable) = (0_u64, 0_u64);
    let damaged = for_each(state_dir, |mut entry, _| {
        let is_named = wanted.remove(entry.id.as_str());
        if !all && !is_named {
            return Ok(());
        }
        match states.of(&entry.id) {
            State::Open => {}
            state if is_named => {
                let state =
                    if state == State::Requested { "asked for already" } else { "delivered" };
                note(format_args!("{}: {state}, skipped", entry.id));
                skipped += 1;
                return Ok(());
            }
            _ => return Ok(()),
        }
        if entry.line_truncated {
            let Some(line) = read_again(&entry) else {
                note(format_args!(
                    "{}: only its beginning was kept, and {} does not hold it at offset {} any more",
                    entry.id, entry.file, entry.offset
                ));
                unreadable += 1;
                return Ok(());
            };
            entry.complete(line);
        }
        requests.add(entry)
    })?;
    requests.write()?;
    for id in wanted {
        note(format_args!("{id}: no such reject, skipped"));
    }
    let lines = requests.lines;
    let printed = print(format_args!(
        "{lines} lines will be sent again, by the running daemon or the next one; see: openalgo-bridge status"
    ));
    let exit = if unreadable > 0 { Exit::Data } else { printed };
    Ok(exit.max(exit_for(damaged)))
}

/// Requests of a size that a daemon can have in memory.
struct Requests<'a> {
    state_dir: &'a Path,
    at_ms: i64,
    entries: Vec<Entry>,
    bytes: usize,
    written: usize,
    lines: usize,
}

impl<'a> Requests<'a> {
    fn new(state_dir: &'a Path) -> Self {
        let at_ms = SystemClock.unix_ms();
        Self { state_dir, at_ms, entries: Vec::new(), bytes: 0, written: 0, lines: 0 }
    }

    fn add(&mut self, entry: Entry) -> io::Result<()> {
        let bytes = entry.bytes().len();
        if self.bytes + bytes > requeue::REQUEST_BYTES {
            self.write()?;
        }
        self.bytes += bytes;
        self.lines += 1;
        self.entries.push(entry);
        Ok(())
    }

    fn write(&mut self) -> io::Result<()> {
        if self.entries.is_empty() {
            return Ok(());
        }
        let entries: Vec<&Entry> = self.entries.iter().collect();
        let name = (self.at_ms, self.written);
        let request = requeue::write(&RealFs, self.state_dir, name, &entries)?;
        // Root asks, the service's user reads.
        for path in [request.as_path(), &requeue::directory_in(self.state_dir)] {
            give_to_owner_of(self.state_dir, path)?;
        }
        self.entries.clear();
        (self.bytes, self.written) = (0, self.written + 1);
        Ok(())
    }
}

/// The whole line, if its file still has it.
fn read_again(entry: &Entry) -> Option<Vec<u8>> {
    let mut file = File::open(&entry.file).ok()?;
    file.seek(io::SeekFrom::Start(entry.offset)).ok()?;
    let mut line = Vec::new();
    file.take(entry.length).read_to_end(&mut line).ok()?;
    (Sha256::of(&line).to_string() == entry.sha256).then_some(line)
}
