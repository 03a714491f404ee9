//! `checkpoint`: shows the committed position, or moves it while the daemon is stopped.

use std::fmt::Write as _;
use std::io;
use std::sync::Arc;

use serde_json::{Value, json};

use super::args::{Arguments, Checkpoint as Options, CheckpointCommand};
use super::{Exit, complain, complain_config, load, note, print, state_exit};
use crate::checkpoint::store::{LOCK, StateError, Store};
use crate::checkpoint::{Checkpoint, GenerationState};
use crate::config::{Purpose, Settings, Sources};
use crate::domain::ledger::Ledger;
use crate::pipeline::state_at;
use crate::platform::access::give_to_owner_of;
use crate::platform::clock::{Clock as _, SystemClock, format_utc};
use crate::platform::fs::RealFs;

/// Runs one of the subcommands.
pub(super) fn checkpoint(arguments: &Arguments, options: &Options) -> Exit {
    let loaded = load(arguments, Purpose::State);
    let settings = match loaded.for_common() {
        Ok(settings) => settings,
        Err(problems) => return complain_config(&problems),
    };
    let store = Store::new(Arc::new(RealFs), &settings.state_dir);
    match options.command {
        CheckpointCommand::Show { json } => show(&store, json),
        CheckpointCommand::Set { offset } => {
            name_what_changes(&loaded.sources, &settings);
            move_to(&store, &settings, Some(offset))
        }
        CheckpointCommand::Reset => {
            name_what_changes(&loaded.sources, &settings);
            move_to(&store, &settings, None)
        }
    }
}

fn name_what_changes(sources: &Sources, settings: &Settings) {
    note(sources);
    note(format_args!("input: {}", settings.input.display()));
    note(format_args!("state directory: {}", settings.state_dir.display()));
}

fn show(store: &Store, as_json: bool) -> Exit {
    let loaded = match store.load() {
        Ok(loaded) => loaded,
        Err(error) => return complain(&error, state_exit(&error)),
    };
    for (name, damage) in &loaded.damaged {
        note(format_args!("{name} is not used: {damage}"));
    }
    let checkpoint = loaded.checkpoint.unwrap_or_default();
    let from = loaded.from.unwrap_or("none");
    if as_json { print(to_json(&checkpoint, from)) } else { print(to_text(&checkpoint, from)) }
}

fn to_json(checkpoint: &Checkpoint, from: &str) -> Value {
    let live = checkpoint.live();
    let generations: Vec<_> = checkpoint
        .generations
        .iter()
        .map(|state| {
            json!({
                "generation": state.generation, "path": state.path,
                "offset": state.offset, "size": state.size,
            })
        })
        .collect();
    let switches: Vec<_> = checkpoint
        .mode_switches
        .iter()
        .map(|switch| json!({"at": format_utc(switch.at_ms), "from": switch.from, "to": switch.to}))
        .collect();
    let committed_at = (from != "none").then(|| format_utc(checkpoint.committed_at_ms));
    json!({
        "version": 1,
        "generation": live.and_then(|state| state.generation),
        "offset": live.map_or(0, |state| state.offset),
        "size": live.map(|state| state.size),
        "path": live.map(|state| &state.path),
        "committed_at": committed_at,
        "generations": generations,
        "lost": checkpoint.lost,
        "mode_switches": switches,
        "from": from,
    })
}

fn to_text(checkpoint: &Checkpoint, from: &str) -> String {
    if from == "none" {
        return "no position yet".to_owned();
    }
    let mut text = String::new();
    for state in &checkpoint.generations {
        let name = name(state);
        let behind = state.size.saturating_sub(state.offset);
        let _ = writeln!(text, "{}", state.path.display());
        let _ = writeln!(text, "  generation {name}");
        let _ = writeln!(
            text,
            "  offset     {} of {} bytes ({behind} behind)",
            state.offset, state.size
        );
    }
    if checkpoint.generations.is_empty() {
        text.push_str("no file was seen yet: the next one is read from its start\n");
    }
    for lost in &checkpoint.lost {
        let (from, to, why) = (lost.from, lost.to, lost.reason.as_str());
        let _ = writeln!(text, "lost: bytes {from} to {to}: {why}");
    }
    let _ = write!(text, "committed {} ({from})", format_utc(checkpoint.committed_at_ms));
    text
}

fn name(state: &GenerationState) -> String {
    state.generation.map_or_else(|| "unknown".to_owned(), |generation| generation.to_string())
}

/// Moves to `offset` of the live file, or resets to its start.
fn move_to(store: &Store, settings: &Settings, offset: Option<u64>) -> Exit {
    match try_move_to(store, settings, offset) {
        Ok(text) => print(text),
        Err((text, exit)) => complain(&text, exit),
    }
}

fn try_move_to(
    store: &Store,
    settings: &Settings,
    offset: Option<u64>,
) -> Result<String, (String, Exit)> {
    let refuse = |error: &StateError| (error.to_string(), state_exit(error));
    store.create().map_err(|error| refuse(&error))?;
    let _lock = store.lock().map_err(|error| refuse(&error))?;
    let before = match store.load() {
        Ok(loaded) => loaded.checkpoint.unwrap_or_default(),
        // A reset is how an admin gets out of a damaged state.
        Err(StateError::Unreadable { .. }) if offset.is_none() => Checkpoint::default(),
        Err(error) => return Err(refuse(&error)),
    };
    let input = settings.input.display();
    let wrong = |error: io::Error| (format!("{input}: {error}"), Exit::Io);
    let target = offset.unwrap_or(0);
    let state = state_at(
        &RealFs,
        &super::follow::followed(settings),
        settings.max_line_bytes,
        target,
        before.live(),
    )
    .map_err(wrong)?;
    let Some(state) = state else {
        if offset.is_some() {
            return Err((format!("{input}: there is no such file"), Exit::Unavailable));
        }
        commit(store, &before, Vec::new(), settings)?;
        return Ok("reset: the next file is read from its start".to_owned());
    };
    if target > state.size {
        let size = state.size;
        return Err((
            format!("offset {target} is beyond the end of {input} ({size} bytes)"),
            Exit::Usage,
        ));
    }
    let text = describe(&before, &state, target);
    commit(store, &before, vec![state], settings)?;
    Ok(text)
}

fn describe(before: &Checkpoint, after: &GenerationState, target: u64) -> String {
    let mut text = String::new();
    if after.offset != target {
        let _ = writeln!(
            text,
            "moved back to the line end before: {} instead of {target}",
            after.offset
        );
    }
    let known = before.live().filter(|known| known.generation == after.generation);
    let committed = known.map_or(0, |known| known.offset);
    let _ = match after.offset.cmp(&committed) {
        std::cmp::Ordering::Less => {
            writeln!(text, "repeats {} bytes", committed - after.offset)
        }
        std::cmp::Ordering::Equal => writeln!(text, "repeats and skips nothing"),
        std::cmp::Ordering::Greater => {
            writeln!(text, "skips {} bytes", after.offset - committed)
        }
    };
    let dropped = before.generations.iter().filter(|known| known.generation != after.generation);
    for known in dropped {
        let unread = known.size.saturating_sub(known.offset);
        let _ = writeln!(text, "drops generation {}: {unread} bytes unread", name(known));
    }
    let _ = write!(text, "the next start reads from offset {}", after.offset);
    text
}

fn commit(
    store: &Store,
    before: &Checkpoint,
    generations: Vec<GenerationState>,
    settings: &Settings,
) -> Result<(), (String, Exit)> {
    let now_ms = SystemClock.unix_ms();
    let checkpoint = Checkpoint {
        sequence: before.sequence + 1,
        committed_at_ms: now_ms,
        mode: if before.mode.is_empty() {
            settings.mode.as_str().into()
        } else {
            before.mode.clone()
        },
        generations,
        closed: Ledger::default(),
        lost: Vec::new(),
        mode_switches: before.mode_switches.clone(),
        ledger_since_ms: Some(now_ms),
        requeued_lines: 0,
    };
    let directory = store.directory();
    let written = store.commit_to_both(&checkpoint).and_then(|()| {
        // Root sets, the service's user reads.
        let files = store.copies().into_iter().chain([LOCK]);
        files.map(|name| directory.join(name)).try_for_each(|it| give_to_owner_of(directory, &it))
    });
    written.map_err(|error| (format!("{}: {error}", directory.display()), Exit::Io))
}
