//! `check --connect`: tries the input, the state directory and the broker, a line each, with the
//! command that mends what is wrong.
//!
//! It leaves nothing behind and takes no lock: a running daemon does not notice it.

mod input;

use std::fs::{self, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;

pub(super) use self::input::likely_cause;
use self::input::{input, refusing, writer};
use super::args::Arguments;
use super::{Exit, print, state_exit};
use crate::checkpoint::store::{StateError, Store};
use crate::config::{Settings, Via};
use crate::platform::access::{free_bytes, may, user_id};
use crate::platform::fs::{Fs as _, RealFs};
use crate::sink::finding::{Finding, Level, quoted};
use crate::sink::kafka;
use crate::sink::socketio::{relay, server};

/// The lock's name in the state directory.
const LOCK: &str = "lock";

/// Tries everything and prints what it finds. 78 where `run` would not start, else 69 if something
/// does not work.
pub(super) fn connect(arguments: &Arguments, settings: &Settings) -> Exit {
    let user = User::current();
    let mut exit = show(&input(&settings.input, &user)).max(show(&[writer(&settings.input)]));
    let state = state(settings, &user, How::Try);
    exit = exit.max(show(&state.found));
    if !state.starts {
        exit = Exit::Config;
    }
    let running = running(arguments, settings);
    let http = running.as_ref().and_then(|status| status["listen"]["http"].as_str());
    exit = exit.max(show(super::http::inspect(settings, http).as_slice()));
    let found = match (&settings.kafka, &settings.socketio) {
        (Some(kafka), _) => kafka::inspect(&super::sinks::kafka_settings(settings, kafka)),
        (None, Some(socketio)) if socketio.via == Via::Server => {
            let server = super::sinks::server_settings(settings, socketio);
            let ours = running.as_ref().and_then(|status| status["listen"]["socketio"].as_str());
            server::inspect(&server, ours.and_then(|address| address.parse().ok()))
        }
        (None, Some(socketio)) => relay::inspect(&super::sinks::relay_settings(socketio)),
        (None, None) => Vec::new(),
    };
    exit.max(show(&found))
}

/// What the running daemon of this state directory says of itself, wherever it has its socket.
fn running(arguments: &Arguments, settings: &Settings) -> Option<serde_json::Value> {
    let (_, status) = super::status::answering(arguments, Some(settings))?;
    let state_dir = super::http::absolute_state_dir(settings);
    (status["state_dir"].as_str().map(Path::new) == Some(&state_dir)).then_some(status)
}

/// What is wrong with the state directory, if it keeps `run` from starting. Touches nothing.
pub(super) fn what_stops(settings: &Settings) -> Vec<Finding> {
    let user = User::current();
    let state = state(settings, &user, How::Look);
    if state.starts {
        return Vec::new();
    }
    state.found.into_iter().filter(|finding| finding.level == Level::Error).collect()
}

fn show(findings: &[Finding]) -> Exit {
    let mut exit = Exit::Ok;
    for finding in findings {
        exit = exit.max(print(finding));
        if finding.level == Level::Error {
            exit = exit.max(Exit::Unavailable);
        }
    }
    exit
}

/// Who tries.
pub(super) struct User {
    id: u32,
    /// The number, if there is no name.
    pub(super) name: String,
}

impl User {
    pub(super) fn current() -> Self {
        let id = user_id();
        Self { id, name: name_of(id, "/etc/passwd").unwrap_or_else(|| id.to_string()) }
    }

    /// The command that gives this user the `wanted` one of `rwx` on `path`.
    fn grant(&self, path: &Path, wanted: &str) -> String {
        let bits = if wanted.contains('r') { 0o040 } else { 0 }
            | if wanted.contains('w') { 0o020 } else { 0 }
            | if wanted.contains('x') { 0o010 } else { 0 };
        let by_group = fs::metadata(path).ok().filter(|there| there.mode() & bits == bits);
        let group = by_group.filter(|there| there.gid() != 0);
        let user = quoted(&self.name);
        match group.and_then(|there| name_of(there.gid(), "/etc/group")) {
            Some(group) => format!(
                "sudo usermod -aG {} {user}    # counts from the next login or start",
                quoted(&group)
            ),
            None => format!("sudo setfacl -m u:{user}:{wanted} {}", shell(path)),
        }
    }
}

/// The name of a user or group by its number.
fn name_of(id: u32, list: &str) -> Option<String> {
    let list = fs::read_to_string(list).ok()?;
    list.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, number) = (fields.next()?, fields.nth(1)?);
        (number.parse() == Ok(id)).then(|| name.to_owned())
    })
}

fn shell(path: &Path) -> String {
    quoted(&path.to_string_lossy())
}

/// Looks at the state directory as `run` would.
fn state<'a>(settings: &'a Settings, user: &'a User, how: How) -> StateLook<'a> {
    let path = settings.state_dir.as_path();
    let mut look = StateLook { path, user, how, found: Vec::new(), starts: true };
    match fs::metadata(path) {
        Ok(there) if there.is_dir() => {
            look.permissions(&there);
            if look.can_write() {
                look.room(settings.rejects_max_bytes);
            }
            look.holder();
            look.checkpoint();
        }
        Ok(_) => look.fail("is not a directory", ErrorKind::NotADirectory, None),
        Err(error) if error.kind() == ErrorKind::NotFound => look.missing(),
        Err(error) => look.refused(&error),
    }
    look
}

/// How it is found out whether a directory can be written to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    /// By its permissions.
    Look,
    /// By creating a file, which also shows that there is room.
    Try,
}

struct StateLook<'a> {
    path: &'a Path,
    user: &'a User,
    how: How,
    found: Vec<Finding>,
    /// Whether `run` would start with what was found.
    starts: bool,
}

impl StateLook<'_> {
    fn about(&self, level: Level, text: &str) -> Finding {
        Finding::new(level, format_args!("state directory: {}: {text}", self.path.display()))
    }

    fn say(&mut self, level: Level, text: &str, remedy: Option<String>) {
        let finding = self.about(level, text);
        self.found.push(Finding { remedy, ..finding });
    }

    /// An error; some of them keep `run` from starting, as [`StateError::Forbidden`] has it.
    fn fail(&mut self, text: &str, kind: ErrorKind, remedy: Option<String>) {
        use ErrorKind::{AlreadyExists, NotADirectory, PermissionDenied, ReadOnlyFilesystem};
        if matches!(kind, AlreadyExists | NotADirectory | PermissionDenied | ReadOnlyFilesystem) {
            self.starts = false;
        }
        self.say(Level::Error, text, remedy);
    }

    /// A directory of this user's own, for nobody else.
    fn own(&self) -> String {
        format!("sudo install -d -m 0700 -o {} {}", quoted(&self.user.name), shell(self.path))
    }

    fn missing(&mut self) {
        let existing = self.path.ancestors().find(|ancestor| ancestor.exists());
        let existing = existing.unwrap_or(Path::new("/"));
        match may(existing, "wx") {
            _ if !existing.is_dir() => {
                let text = format!("{} is not a directory", existing.display());
                self.fail(&text, ErrorKind::NotADirectory, None);
            }
            Ok(()) => self.say(Level::Ok, "does not exist yet; `run` creates it", None),
            Err(error) => {
                let text = format!(
                    "does not exist, and {} may not create it in {}: {error}",
                    self.user.name,
                    existing.display()
                );
                self.fail(&text, error.kind(), Some(self.own()));
            }
        }
    }

    fn refused(&mut self, error: &io::Error) {
        let (text, remedy) = match refusing(self.path) {
            Some(directory) => (
                format!("{} may not pass {}", self.user.name, directory.display()),
                self.user.grant(directory, "x"),
            ),
            None => (error.to_string(), format!("namei -l {}", shell(self.path))),
        };
        self.fail(&text, error.kind(), Some(remedy));
    }

    fn permissions(&mut self, there: &Metadata) {
        let mode = there.mode() & 0o7777;
        if mode & 0o077 != 0 {
            let text =
                format!("its mode is {mode:04o}: others get at the rejects, which hold events");
            self.say(Level::Warning, &text, Some(format!("sudo chmod 0700 {}", shell(self.path))));
        }
        if self.user.id == 0 && there.uid() != 0 {
            let owner =
                name_of(there.uid(), "/etc/passwd").unwrap_or_else(|| there.uid().to_string());
            let text = format!("is {owner}'s, and root may do anything: try as {owner} as well");
            self.say(Level::Note, &text, Some(as_other(&owner)));
        }
    }

    /// The same two things that `run` needs: to open the lock, and to create files.
    fn can_write(&mut self) -> bool {
        let lock = self.path.join(LOCK);
        let has_lock = match may(&lock, "rw") {
            Ok(()) => true,
            Err(error) if error.kind() == ErrorKind::NotFound => false,
            Err(error) => {
                let text = format!("{} may not write to {LOCK} in it: {error}", self.user.name);
                self.fail(&text, error.kind(), Some(self.chown()));
                return false;
            }
        };
        let written = match self.how {
            How::Look => may(self.path, "wx"),
            How::Try => create_and_remove(self.path),
        };
        match written {
            Ok(()) => {
                let text = format!("{} can write to it", self.user.name);
                self.say(Level::Ok, &text, None);
                true
            }
            Err(error) => {
                let text = format!("{} cannot write to it: {error}", self.user.name);
                // With its lock, `run` starts, delivers and alarms.
                let kind = if has_lock { ErrorKind::Other } else { error.kind() };
                let remedy = match error.kind() {
                    ErrorKind::ReadOnlyFilesystem => format!("findmnt -T {}", shell(self.path)),
                    ErrorKind::StorageFull => format!("df -h {0}; df -i {0}", shell(self.path)),
                    _ => self.chown(),
                };
                self.fail(&text, kind, Some(remedy));
                false
            }
        }
    }

    fn chown(&self) -> String {
        format!("sudo chown -R {} {}", quoted(&self.user.name), shell(self.path))
    }

    fn room(&mut self, wanted: u64) {
        let Ok(free) = free_bytes(self.path) else { return };
        if free < wanted {
            let text = format!(
                "{free} bytes are free, less than the rejects may need (BRIDGE_REJECTS_MAX_BYTES, {wanted})"
            );
            self.say(Level::Warning, &text, Some(format!("df -h {}", shell(self.path))));
        } else {
            self.say(Level::Ok, &format!("{} MiB are free", free >> 20), None);
        }
    }

    /// Says which daemon works with it. To ask the lock would be to take it.
    fn holder(&mut self) {
        let lock = self.path.join(LOCK);
        let (Ok(there), Ok(locks)) = (fs::metadata(&lock), fs::read_to_string("/proc/locks"))
        else {
            return;
        };
        let holder = fs::read_to_string(&lock).unwrap_or_default();
        let pid = holder.trim().trim_start_matches("pid ");
        if is_held(&locks, pid, there.ino()) {
            self.say(Level::Ok, &format!("a running bridge (pid {pid}) works with it"), None);
        }
    }

    fn checkpoint(&mut self) {
        let store = Store::new(Arc::new(RealFs), self.path);
        let loaded = match store.load() {
            Ok(loaded) => loaded,
            Err(error) => return self.no_checkpoint(&error),
        };
        for (name, damage) in &loaded.damaged {
            let text = format!("{name} is not used: {damage}; another copy is");
            self.say(Level::Warning, &text, None);
        }
        let text = match (&loaded.checkpoint, loaded.from) {
            (Some(checkpoint), Some(from)) => {
                let offset = checkpoint.live().map_or(0, |live| live.offset);
                format!("the position is {offset} ({from})")
            }
            _ => "no position yet: the first start decides it (BRIDGE_START_AT)".to_owned(),
        };
        self.say(Level::Ok, &text, None);
    }

    fn no_checkpoint(&mut self, error: &StateError) {
        let (level, text, remedy) = match error {
            StateError::Unreadable { .. } => (
                Level::Warning,
                "no copy of the position is readable: `run` begins at the start of the input, events \
                 are repeated"
                    .to_owned(),
                format!("ls -l {}/checkpoint*", shell(self.path)),
            ),
            StateError::Newer { path, .. } => (
                Level::Error,
                error.to_string(),
                format!("sudo mv {0} {0}.newer", shell(path)),
            ),
            _ => (Level::Error, error.to_string(), self.chown()),
        };
        if level == Level::Error && state_exit(error) == Exit::Config {
            self.starts = false;
        }
        self.say(level, &text, Some(remedy));
    }
}

/// Creates a file under a name of its own and takes it away again.
fn create_and_remove(directory: &Path) -> io::Result<()> {
    let path = directory.join(format!(".check-{}", std::process::id()));
    let created = RealFs.create_new(&path)?;
    let written = created.write_all_at(b"x", 0);
    RealFs.remove(&path)?;
    written
}

/// Whether `/proc/locks` has a lock of this process on this inode.
fn is_held(locks: &str, pid: &str, inode: u64) -> bool {
    locks.lines().any(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, "FLOCK", _, _, holder, file, ..] = words[..] else { return false };
        holder == pid && file.rsplit(':').next() == Some(&inode.to_string())
    })
}

/// This command as another user.
fn as_other(user: &str) -> String {
    let words = std::env::args_os().map(|word| quoted(&word.to_string_lossy()));
    format!("sudo -u {} {}", quoted(user), words.collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_its_holders_only_on_that_file() {
        let locks = "1: FLOCK  ADVISORY  WRITE 4242 fe:00:131 0 EOF\n\
                     2: -> FLOCK  ADVISORY  WRITE 77 fe:00:131 0 EOF\n\
                     3: POSIX  ADVISORY  READ 99 fe:00:131 0 EOF\n";
        for (pid, inode, expected) in [
            ("4242", 131, true),
            ("4242", 31, false),
            ("77", 131, false),
            ("99", 131, false),
            ("", 131, false),
        ] {
            assert_eq!(is_held(locks, pid, inode), expected, "{pid} {inode}");
        }
    }

    #[test]
    fn names_of_users_come_from_the_list() {
        assert_eq!(name_of(0, "/etc/passwd").as_deref(), Some("root"));
        assert_eq!(name_of(u32::MAX - 7, "/etc/passwd"), None);
        assert_eq!(name_of(0, "/no/such/list"), None);
    }

    #[test]
    fn a_file_is_tried_and_gone() {
        let directory = tempfile::tempdir().unwrap();
        create_and_remove(directory.path()).unwrap();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
        assert!(create_and_remove(&directory.path().join("none")).is_err());
    }
}
