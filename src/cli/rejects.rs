//! `rejects list`: what was refused, and why.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, BufWriter, Write as _};
use std::path::Path;

use super::args::{Arguments, Rejects, RejectsCommand};
use super::{Exit, complain, complain_config, load, note};
use crate::config::Purpose;
use crate::platform::fs::RealFs;
use crate::sink::rejects::{self, Entry};

/// Runs one of the subcommands.
pub(super) fn rejects(arguments: &Arguments, options: &Rejects) -> Exit {
    let settings = match load(arguments, Purpose::State).for_common() {
        Ok(settings) => settings,
        Err(problems) => return complain_config(&problems),
    };
    // `--all` will show what was delivered since; until lines can be requeued, all are open.
    let RejectsCommand::List { json, all: _ } = options.command;
    match list(&settings.state_dir, json) {
        Ok(0) => Exit::Ok,
        Ok(damaged) => complain(&format!("{damaged} lines of the rejects are damaged"), Exit::Data),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Ok,
        Err(error) => complain(&format!("{}: {error}", settings.state_dir.display()), Exit::Io),
    }
}

/// Prints each reject once, oldest first. Gives how many lines could not be read.
fn list(state_dir: &Path, json: bool) -> io::Result<u64> {
    let mut out = BufWriter::new(io::stdout().lock());
    let mut seen = std::collections::HashSet::new();
    let mut reasons: BTreeMap<String, u64> = BTreeMap::new();
    let mut damaged = 0;
    for path in files(state_dir)? {
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            file => file?,
        };
        for line in BufReader::new(file).split(b'\n') {
            let line = line?;
            let Ok(entry) = serde_json::from_slice::<Entry>(&line) else {
                damaged += 1;
                continue;
            };
            // A line that was rejected again after a crash is still one line.
            if !seen.insert(entry.id.clone()) {
                continue;
            }
            if json {
                out.write_all(&line)?;
                writeln!(out)?;
            } else {
                let Entry { id, rejected_at, reason, offset, length, detail, .. } = &entry;
                writeln!(
                    out,
                    "{id}  {rejected_at}  {reason}  offset {offset}, {length} bytes: {detail}"
                )?;
            }
            *reasons.entry(entry.reason).or_default() += 1;
        }
    }
    out.flush()?;
    if !json {
        let reasons: Vec<_> =
            reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        let summary = if reasons.is_empty() { "none".to_owned() } else { reasons.join(", ") };
        note(format_args!("{} rejects: {summary}", seen.len()));
    }
    Ok(damaged)
}

fn files(state_dir: &Path) -> io::Result<Vec<std::path::PathBuf>> {
    match rejects::files(&RealFs, state_dir) {
        // Nothing was ever rejected there.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        files => files,
    }
}
