//! Which configuration files count, and their text.

use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::problem::{Origin, Problem, Severity, shown_path};

/// More than any `.env` file has, in bytes: a path that was mistyped may name anything.
const ENV_FILE_BYTES_MAX: u64 = 1 << 20;

/// More than any password, token or key has, in bytes.
const SECRET_FILE_BYTES_MAX: u64 = 1 << 16;

/// Read by users who are neither owner nor in the group, or written by anyone but the owner. The
/// group may read: the packages install `.env` as 0640 root:openalgo-bridge.
const TOO_OPEN: u32 = 0o026;

/// What a command wants of the configuration, which decides what it does without one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// `run`.
    Run,
    /// `check`: the files of `run`.
    Check,
    /// Commands that touch the state or the input (`checkpoint`, `rejects`, `probe`): they must not
    /// guess it, so a file that they are not allowed to read stops them.
    State,
    /// Commands that can do without (`validate`, `status`, `tap`): a file that nobody named and that
    /// they are not allowed to read is only noted in [`Sources::unreadable`].
    Ask,
}

/// Where configuration files are looked for when none is named.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Places {
    /// Has `.env` and `NAME.env`.
    pub etc: PathBuf,
    /// Has `.env`; asked last, by `run` and `check` only.
    pub here: PathBuf,
}

impl Default for Places {
    fn default() -> Self {
        Self { etc: "/etc/openalgo-bridge".into(), here: ".".into() }
    }
}

/// What the command line says about the configuration.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Request {
    /// What it is for.
    pub purpose: Purpose,
    /// `--env-file`, in this order.
    pub env_files: Vec<PathBuf>,
    /// `--instance`: names the file unless `env_files` do, and the default of `BRIDGE_STATE_DIR`.
    pub instance: Option<String>,
    /// Other ones than usual in tests only.
    pub places: Places,
}

impl Request {
    /// The one of a command line that says nothing.
    pub fn new(purpose: Purpose) -> Self {
        Self { purpose, env_files: Vec::new(), instance: None, places: Places::default() }
    }
}

/// Where the settings come from. Displayed, it is the first line of the log.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Sources {
    /// The files that were read, the last one decides.
    pub read: Vec<PathBuf>,
    /// The files were named, by an option or by `BRIDGE_ENV_FILE`.
    pub named: bool,
    /// Nobody named one, and these do not exist.
    pub looked_for: Vec<PathBuf>,
    /// Nobody named it, it exists, and this user is not allowed to read it. Only for
    /// [`Purpose::Ask`]; for others that is a problem.
    pub unreadable: Option<PathBuf>,
}

impl fmt::Display for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |paths: &[PathBuf]| {
            let shown: Vec<String> = paths.iter().map(|path| shown_path(path)).collect();
            shown.join(", ")
        };
        if let Some(path) = &self.unreadable {
            return write!(f, "{} is not readable, so defaults count", shown_path(path));
        }
        match self.read.as_slice() {
            [] if self.named => f.write_str("no configuration file could be read"),
            [] => write!(f, "no configuration file, looked for {}", list(&self.looked_for)),
            read => write!(f, "configuration from {}", list(read)),
        }
    }
}

/// A file that was read.
pub(super) struct TextFile {
    pub path: Arc<Path>,
    pub text: String,
    /// Others than owner and group can read it, or others than the owner write.
    pub too_open: bool,
}

/// The files that count, read, with what is wrong about them as a whole.
pub(super) fn read(
    request: &Request,
    env_file: Option<OsString>,
    problems: &mut Vec<Problem>,
) -> (Vec<TextFile>, Sources) {
    let mut sources = Sources::default();
    let mut files = Vec::new();
    if let Some(named) = named(request, env_file, problems) {
        sources.named = true;
        for path in named {
            match read_env_file(&path) {
                Ok(file) => {
                    sources.read.push(path);
                    files.push(file);
                }
                Err(error) => problems.push(unreadable(&path, &error)),
            }
        }
        return (files, sources);
    }
    for path in unnamed(request) {
        match read_env_file(&path) {
            Ok(file) => {
                sources.read.push(path);
                files.push(file);
                return (files, sources);
            }
            Err(error) if is_missing(&error) => sources.looked_for.push(path),
            Err(error) if request.purpose == Purpose::Ask && is_forbidden(&error) => {
                sources.unreadable = Some(path);
                return (files, sources);
            }
            Err(error) => {
                problems.push(unreadable(&path, &error));
                return (files, sources);
            }
        }
    }
    let why = format!("{sources}: only the environment and defaults count");
    problems.push(Problem::at(Origin::Default, why).with_severity(Severity::Note));
    (files, sources)
}

/// The files that someone named, `None`: nobody did.
fn named(
    request: &Request,
    env_file: Option<OsString>,
    problems: &mut Vec<Problem>,
) -> Option<Vec<PathBuf>> {
    if let Some(name) = &request.instance
        && !is_instance_name(name)
    {
        let why = "--instance: is not a name (letters, digits and .-_@:, no dot in front)";
        problems.push(Problem::at(Origin::CommandLine, why));
        return Some(Vec::new());
    }
    if !request.env_files.is_empty() {
        return Some(request.env_files.clone());
    }
    if let Some(name) = &request.instance {
        return Some(vec![request.places.etc.join(format!("{name}.env"))]);
    }
    let path = env_file.filter(|path| !path.is_empty())?;
    Some(vec![path.into()])
}

/// It becomes a part of paths, so it must not lead elsewhere.
fn is_instance_name(name: &str) -> bool {
    let legal = |b: u8| b.is_ascii_alphanumeric() || b".-_@:".contains(&b);
    !name.is_empty() && name.len() <= 64 && !name.starts_with('.') && name.bytes().all(legal)
}

fn unnamed(request: &Request) -> Vec<PathBuf> {
    let Places { etc, here } = &request.places;
    match request.purpose {
        Purpose::Run | Purpose::Check => vec![etc.join(".env"), here.join(".env")],
        Purpose::State | Purpose::Ask => vec![etc.join(".env")],
    }
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn is_forbidden(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied
}

fn unreadable(path: &Path, error: &io::Error) -> Problem {
    let origin = Origin::File { path: path.into(), line: None };
    Problem::at(origin, format!("cannot be read: {error}"))
}

fn read_env_file(path: &Path) -> io::Result<TextFile> {
    let (bytes, too_open) = read_up_to(path, ENV_FILE_BYTES_MAX)?;
    let text = match String::from_utf8(bytes) {
        // UTF-16 without a mark is valid UTF-8, and none of its keys would be found.
        Ok(text) if text.contains('\0') => return Err(invalid("has NUL bytes: is it UTF-16?")),
        Ok(text) => text,
        Err(error) => return Err(not_utf8(&error)),
    };
    Ok(TextFile { path: path.into(), text, too_open })
}

fn not_utf8(error: &std::string::FromUtf8Error) -> io::Error {
    let (bytes, good) = (error.as_bytes(), error.utf8_error().valid_up_to());
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return invalid("is UTF-16: save it as UTF-8");
    }
    let line = 1 + bytes.iter().take(good).filter(|&&byte| byte == b'\n').count();
    invalid(&format!("line {line} is not UTF-8"))
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.to_owned())
}

/// The text of a file that holds a secret, without the line end that editors leave behind, and
/// whether the file is too open.
pub(super) fn read_secret(path: &Path) -> io::Result<(String, bool)> {
    let (bytes, too_open) = read_up_to(path, SECRET_FILE_BYTES_MAX)?;
    let mut text = String::from_utf8(bytes).map_err(|_| invalid("is not UTF-8"))?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok((text, too_open))
}

fn read_up_to(path: &Path, bytes_max: u64) -> io::Result<(Vec<u8>, bool)> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    // What a pipe or a descriptor of the shell says about its mode means nothing.
    let too_open = metadata.is_file() && metadata.permissions().mode() & TOO_OPEN != 0;
    let mut bytes = Vec::new();
    file.take(bytes_max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        return Err(invalid(&format!("has more than {bytes_max} bytes")));
    }
    Ok((bytes, too_open))
}
