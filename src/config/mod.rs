//! The configuration: what files and environment say, then what it means, and every problem at once.
//!
//! ```text
//! files ─┐
//!        ├─► vars: who said what ─► values: each key by itself ─► settings, kafka, socketio:
//! environment ─┘   files win         (keys: the table)            all keys together
//! ```
//!
//! One [`load`] serves every command. It never fails; what it found says what can be done with it:
//!
//! - `run` takes [`Loaded::for_run`]: problems of the common part and of the chosen mode stop it,
//!   those of the other mode are warnings, so that a broken Kafka setting never blocks the way back.
//! - commands on state and input take [`Loaded::for_common`]: only the common part can stop them.
//! - `check` prints [`Loaded::effective`] and [`Loaded::problems`].
//!
//! No secret is ever printed: not in a problem, not by `{:?}`, not in the list of what counts.

mod effective;
pub mod env_file;
mod files;
mod kafka;
mod kafka_properties;
mod keys;
mod parse;
mod problem;
mod sample;
mod settings;
mod socketio;
mod suggest;
mod values;
mod vars;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};

pub use self::effective::{Effective, changed};
pub use self::files::{Places, Purpose, Request, Sources};
pub use self::kafka::{EventTimestamp, KafkaSettings, Property};
pub use self::problem::{ConfigProblems, Origin, Problem, Scope, Severity};
pub use self::sample::sample_env;
pub use self::settings::{Listen, LogFormat, LogLevel, Mode, Settings, StartAt};
pub use self::socketio::{CorsOrigins, RelayUrl, Secret, SocketIoSettings, Via};
pub use self::vars::{Environment, ProcessEnvironment};

/// What was found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Loaded {
    /// The files it comes from; displayed, the first line of the log.
    pub sources: Sources,
    /// The chosen mode; `None`: `ORDER_EVENT_MODE` is neither, or a file could not be read.
    pub mode: Option<Mode>,
    /// Errors, warnings and notes, by file and line. Severities are those for the chosen mode.
    pub problems: Vec<Problem>,
    /// What counts, key by key: the common part, the chosen mode, and what was given for the other.
    /// Empty if a file could not be read.
    pub effective: Vec<Effective>,
    /// There whenever the common part has no error.
    settings: Option<Settings>,
}

impl Loaded {
    /// There is an error in `scope`.
    fn has_error(&self, scope: impl Fn(Scope) -> bool) -> bool {
        self.problems.iter().any(|p| p.severity == Severity::Error && scope(p.scope))
    }

    /// The settings for `run`: what is for the chosen mode is there.
    pub fn for_run(&self) -> Result<Settings, ConfigProblems> {
        self.settings_unless(self.has_error(|_| true))
    }

    /// The settings for a command that wants only the common part, `kafka` aside. Problems of both
    /// modes do not matter to it.
    pub fn for_common(&self) -> Result<Settings, ConfigProblems> {
        self.settings_unless(self.has_error(|scope| scope == Scope::Common))
    }

    fn settings_unless(&self, stopped: bool) -> Result<Settings, ConfigProblems> {
        match &self.settings {
            Some(settings) if !stopped => Ok(settings.clone()),
            _ => Err(ConfigProblems { problems: self.problems.clone() }),
        }
    }
}

/// Reads the files that `request` and `environment` name, and says what they mean.
pub fn load(request: &Request, environment: &dyn Environment) -> Loaded {
    let environment: BTreeMap<OsString, OsString> = environment.variables().into_iter().collect();
    let mut problems = Vec::new();
    let env_file = environment.get(OsStr::new(keys::ENV_FILE)).cloned();
    let (files, sources) = files::read(request, env_file, &mut problems);
    if problems.iter().any(|problem| problem.severity == Severity::Error) {
        // Half of a configuration means nothing: the mode itself may be in the other half.
        return Loaded { sources, mode: None, problems, effective: Vec::new(), settings: None };
    }
    let variables = vars::collect(&files, &environment, &mut problems);
    let too_open: BTreeSet<_> =
        files.into_iter().filter(|file| file.too_open).map(|file| file.path).collect();
    let mut values = values::check(&variables, &too_open, &mut problems);
    if let Some(instance) = &request.instance {
        values.state_dir = Some(format!("/var/lib/openalgo-bridge/{instance}"));
    }
    let mode = settings::mode(&values);
    let mut settings = settings::build(&values, mode, &mut problems);
    kafka::check(&values, mode == Some(Mode::Kafka), &mut problems);
    socketio::check(&values, &mut problems);

    for problem in &mut problems {
        let of_other_mode =
            mode.is_some_and(|mode| ![Scope::Common, mode.scope()].contains(&problem.scope));
        if of_other_mode && problem.severity == Severity::Error {
            problem.severity = Severity::Warning;
        }
    }
    problems.sort_by(|a, b| a.origin.cmp(&b.origin));
    let is_good = |scope| {
        !problems.iter().any(|p: &Problem| p.scope == scope && p.severity == Severity::Error)
    };
    if let (Some(settings), Some(mode)) = (&mut settings, mode)
        && is_good(mode.scope())
    {
        match mode {
            Mode::Kafka => settings.kafka = kafka::build(&values),
            Mode::SocketIo => settings.socketio = socketio::build(&values),
        }
    }
    let effective = effective::list(&variables, &values, mode);
    Loaded { sources, mode, problems, effective, settings }
}
