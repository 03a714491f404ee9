//! What is in the way of following the input: a file, a named pipe, or nothing yet.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::{User, shell};
use crate::cli::writer::{SILENCE, Writer};
use crate::platform::access::{may, open_without_waiting};
use crate::platform::fs::{FileKind, Fs as _, RealFs};
use crate::sink::finding::{Finding, Level};

/// The outermost directory on the way to `path` that this user may not pass.
pub(super) fn refusing(path: &Path) -> Option<&Path> {
    let way: Vec<&Path> = path.ancestors().skip(1).collect();
    way.into_iter().rev().find(|directory| {
        may(directory, "x").is_err_and(|error| error.kind() == ErrorKind::PermissionDenied)
    })
}

/// What is in the way of following the input, in one sentence, and what its writer says.
pub(in crate::cli) fn likely_cause(path: &Path, user: &User) -> String {
    let path_text = format!("input: {}: ", path.display());
    let found = input(path, user);
    let causes = found.iter().filter(|finding| finding.level > Level::Ok).map(|finding| {
        let text = finding.text.strip_prefix(&path_text).unwrap_or(&finding.text).to_owned();
        match &finding.remedy {
            Some(remedy) => format!("{text} ({remedy})"),
            None => text,
        }
    });
    causes.chain([writer(path).text]).collect::<Vec<_>>().join("; ")
}

pub(super) fn input(path: &Path, user: &User) -> Vec<Finding> {
    let about = |level, text: String| {
        Finding::new(level, format_args!("input: {}: {text}", path.display()))
    };
    let parent = path.parent().unwrap_or(Path::new("/"));
    let facts = match RealFs.stat(path) {
        Ok(facts) => facts,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return vec![missing_input(path, parent)];
        }
        Err(error) => return vec![unreachable(&about, path, &error, user)],
    };
    if facts.kind == FileKind::Fifo {
        return pipe(&about, path, user);
    }
    if facts.kind != FileKind::Regular {
        let text =
            format!("is a {}; only a file or a named pipe can be followed", facts.kind.as_str());
        let remedy = match facts.kind {
            FileKind::Directory => {
                let file = path.join("order_events.jsonl");
                format!("BRIDGE_INPUT = '{}'    # the file in it", file.display())
            }
            _ => format!("ls -l {}", shell(path)),
        };
        return vec![about(Level::Error, text).mended_by(remedy)];
    }
    if let Err(error) = RealFs.open(path) {
        return vec![unreachable(&about, path, &error, user)];
    }
    let size = facts.size;
    let text = format!("a file of {size} bytes, {} can read it", user.name);
    let mut found = vec![about(Level::Ok, text)];
    if let Err(error) = may(parent, "r") {
        let text = format!(
            "{} may not list its directory ({error}): new events are seen late, and a file that was moved \
             aside is not found again",
            user.name
        );
        found.push(about(Level::Warning, text).mended_by(user.grant(parent, "rx")));
    }
    found
}

/// What the app's side says. Other programs than the app may write, so silence is no error.
pub(super) fn writer(path: &Path) -> Finding {
    match Writer::of(path) {
        Some(writer) if writer.is_in_trouble() => {
            Finding::new(Level::Warning, format_args!("writer: {writer}"))
        }
        Some(writer) => Finding::new(Level::Ok, format_args!("writer: {writer}")),
        None => Finding::new(Level::Note, format_args!("writer: {SILENCE}")),
    }
}

pub(super) fn missing_input(path: &Path, parent: &Path) -> Finding {
    let about = |text: String| {
        Finding::new(Level::Warning, format_args!("input: {}: {text}", path.display()))
    };
    if let Ok(target) = fs::read_link(path) {
        let text = format!(
            "is a link to {}, which does not exist; the bridge waits for it",
            target.display()
        );
        return about(text);
    }
    if parent.is_dir() {
        return about("does not exist yet; the bridge waits for it".to_owned());
    }
    about("does not exist, nor does its directory; the bridge waits for it".to_owned()).mended_by(
        format!(
            "sudo install -d -m 0755 -o APP {}    # APP: the user that OpenAlgo runs as",
            shell(parent)
        ),
    )
}

/// Why a path that may exist can't be opened.
fn unreachable(
    about: &dyn Fn(Level, String) -> Finding,
    path: &Path,
    error: &io::Error,
    user: &User,
) -> Finding {
    if error.kind() != ErrorKind::PermissionDenied {
        return about(Level::Error, error.to_string())
            .mended_by(format!("namei -l {}", shell(path)));
    }
    match refusing(path) {
        Some(directory) => {
            let text = format!("{} may not pass {}", user.name, directory.display());
            about(Level::Error, text).mended_by(user.grant(directory, "x"))
        }
        None => about(Level::Error, format!("{} may not read it", user.name))
            .mended_by(user.grant(path, "r")),
    }
}

/// A pipe is held open for writing too, so that it never ends for want of a writer.
fn pipe(about: &dyn Fn(Level, String) -> Finding, path: &Path, user: &User) -> Vec<Finding> {
    if let Err(error) = may(path, "rw") {
        if error.kind() != ErrorKind::PermissionDenied {
            return vec![unreachable(about, path, &error, user)];
        }
        let text = format!("a named pipe, which {} may not read and write", user.name);
        return vec![about(Level::Error, text).mended_by(user.grant(path, "rw"))];
    }
    let text = format!("a named pipe, {} can read it and hold it open", user.name);
    let mut found = vec![about(Level::Ok, text)];
    // Somebody else has it open for reading, or this is refused.
    if open_without_waiting(path).is_err() {
        let text = "nobody holds it open: while no bridge does, writers wait or get errors, and what is \
                    in it is lost with its last user";
        found.push(about(Level::Note, text.to_owned()));
    }
    if fs::metadata(path).is_ok_and(|there| there.mode() & 0o002 != 0) {
        let text = "every user can write into it, and so forge events".to_owned();
        let remedy = format!("sudo chmod o-w {}", shell(path));
        found.push(about(Level::Warning, text).mended_by(remedy));
    }
    found
}
