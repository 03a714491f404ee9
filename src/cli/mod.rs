//! The commands, one file each, and what they share: arguments, exit codes, output.

mod args;
mod check;
mod checkpoint;
mod completions;
mod connect;
mod follow;
mod http;
mod man;
mod probe;
mod readiness;
mod rejects;
mod reload;
mod run;
mod schema;
mod sinks;
mod status;
mod tap;
mod validate;
mod writer;

use std::fmt::Display;
use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::Parser as _;

use self::args::{Arguments, Command};
use crate::checkpoint::store::StateError;
use crate::config::{self, ConfigProblems, Loaded, ProcessEnvironment, Purpose, Request};

/// How a command ends (interface.md section 1; the numbers are those of `sysexits.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exit {
    /// Done.
    Ok = 0,
    /// `status --caught-up`: not within the wait.
    Behind = 1,
    /// Wrong usage.
    Usage = 64,
    /// Invalid data.
    Data = 65,
    /// The other side is unusable.
    Unavailable = 69,
    /// An I/O error.
    Io = 74,
    /// Another process holds the state directory.
    Held = 75,
    /// Configuration.
    Config = 78,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Parses the command line, does what it says, and gives the exit code.
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse_from(std::env::args_os()) {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            let exit = if error.use_stderr() { Exit::Usage } else { Exit::Ok };
            return exit.into();
        }
    };
    let exit = match &arguments.command {
        Command::Run => run::run(&arguments),
        Command::Check(check) => check::check(&arguments, check),
        Command::Validate(validate) => validate::validate(&arguments, validate),
        Command::Schema => schema::schema(),
        Command::Status(status) => status::status(&arguments, status),
        Command::Rejects(rejects) => rejects::rejects(&arguments, rejects),
        Command::Probe(options) => probe::probe(&arguments, options),
        Command::Tap(options) => tap::tap(&arguments, options),
        Command::Checkpoint(checkpoint) => checkpoint::checkpoint(&arguments, checkpoint),
        Command::Completions { shell } => completions::completions(*shell),
        Command::Man { dir } => man::man(dir.as_deref()),
    };
    exit.into()
}

/// Prints to standard output. A reader that went away (`| head`) is no error.
fn print(text: impl Display) -> Exit {
    print_raw(format!("{text}\n").as_bytes())
}

/// Prints what is a file by itself, as it is.
fn print_raw(bytes: &[u8]) -> Exit {
    let mut out = io::stdout();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => complain(&error, Exit::Io),
        _ => Exit::Ok,
    }
}

/// Says on standard error what went wrong, and gives the exit code.
fn complain(error: &dyn Display, exit: Exit) -> Exit {
    let _ = writeln!(io::stderr(), "openalgo-bridge: {error}");
    exit
}

/// Says on standard error what a person may want to know.
fn note(text: impl Display) {
    let _ = writeln!(io::stderr(), "openalgo-bridge: {text}");
}

/// Prints every problem of the configuration.
fn complain_config(problems: &ConfigProblems) -> Exit {
    let _ = writeln!(io::stderr(), "{problems}");
    Exit::Config
}

/// The exit code for a state directory that can't be used.
fn state_exit(error: &StateError) -> Exit {
    match error {
        StateError::Held { .. } => Exit::Held,
        StateError::Newer { .. } | StateError::Forbidden { .. } => Exit::Config,
        StateError::Unreadable { .. } => Exit::Data,
        StateError::Io { .. } => Exit::Io,
    }
}

/// The configuration as the command line names it.
fn load(arguments: &Arguments, purpose: Purpose) -> Loaded {
    config::load(&request(arguments, purpose), &ProcessEnvironment)
}

fn request(arguments: &Arguments, purpose: Purpose) -> Request {
    Request {
        env_files: arguments.env_files.clone(),
        instance: arguments.instance.clone(),
        ..Request::new(purpose)
    }
}
