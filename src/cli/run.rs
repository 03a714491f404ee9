//! `run`: builds the daemon and runs it in the foreground.

use std::io::{self, IsTerminal as _};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use tracing::level_filters::LevelFilter;
use tracing::{error, info, warn};

use super::args::Arguments;
use super::follow::{self, FollowError, follow};
use super::reload::Reload;
use super::sinks::{self, SinkError};
use super::{Exit, complain, complain_config, http, load, readiness, state_exit};
use crate::checkpoint::Checkpoint;
use crate::checkpoint::store::{Lock, StateError, Store};
use crate::checkpoint::writer::{RejectedLine, Requeued, Scribe, StateWriter};
use crate::config;
use crate::config::{Loaded, LogFormat, LogLevel, Mode, Purpose, Settings, Severity};
use crate::domain::acks::Limits;
use crate::pipeline::{self, Edges, Event, FileStore, Mailbox, Start, StartAt};
use crate::platform::clock::{Clock, SystemClock};
use crate::platform::fs::{Fs, InputFile, RealFs};
use crate::platform::vital;
use crate::service::descriptors::Descriptors;
use crate::service::{self, signals};
use crate::sink::rejects::RejectsFile;
use crate::sink::requeue::DoneList;
use crate::sink::socketio::THREADS;
use crate::source::watch::DirectoryWatch;
use crate::telemetry;
use crate::telemetry::log::{self, Format};
use crate::telemetry::snapshot::Latest;

/// Runs until SIGTERM or SIGINT.
pub(super) fn run(arguments: &Arguments) -> Exit {
    let loaded = load(arguments, Purpose::Run);
    let settings = match loaded.for_run() {
        Ok(settings) => settings,
        Err(problems) => return complain_config(&problems),
    };
    let log = match log::install(level(settings.log_level), format(settings.log_format)) {
        Ok(log) => log,
        Err(error) => return complain(&format_args!("cannot start the log: {error}"), Exit::Io),
    };
    // The journal would take a line without a priority for one of the least.
    let priority = if format(settings.log_format) == Format::Journal { "<2>" } else { "" };
    std::panic::set_hook(Box::new(move |info| panic_ends_the_process(info, priority)));
    let exit = daemon(arguments, &loaded, &settings);
    log.flush();
    exit
}

fn daemon(arguments: &Arguments, loaded: &Loaded, settings: &Settings) -> Exit {
    let (version, mode) = (env!("CARGO_PKG_VERSION"), settings.mode.as_str());
    info!(version, mode, sources = %loaded.sources, "starting");
    for problem in &loaded.problems {
        match problem.severity {
            Severity::Note => info!("{problem}"),
            Severity::Warning | Severity::Error => warn!("{problem}"),
        }
    }
    match build_and_run(settings, |mailbox| Reload::new(arguments, loaded, mailbox)) {
        Ok(()) => Exit::Ok,
        Err(failure) => {
            error!("{failure}");
            failure.exit()
        }
    }
}

/// Why the daemon could not start.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}")]
    State(#[from] StateError),
    #[error("{0}")]
    Sink(#[from] SinkError),
    #[error("{0}")]
    Follow(#[from] FollowError),
    #[error("cannot start: {0}")]
    Io(#[from] io::Error),
}

impl Failure {
    fn exit(&self) -> Exit {
        match self {
            Self::State(error) | Self::Follow(FollowError::State(error)) => state_exit(error),
            Self::Follow(FollowError::Taken(_)) => Exit::Held,
            Self::Sink(SinkError::Kafka(_)) => Exit::Config,
            Self::Sink(SinkError::SocketIo(_))
            | Self::Io(_)
            | Self::Follow(FollowError::Thread(_)) => Exit::Io,
        }
    }
}

fn build_and_run(settings: &Settings, reload: impl Fn(&Mailbox) -> Reload) -> Result<(), Failure> {
    // First of all, so that a stop that comes early is a clean one.
    let mailbox = Mailbox::default();
    let stop = mailbox.clone();
    let on_stop = move || {
        stop.post(Event::Stop);
        service::readiness::stopping();
    };
    let reload = reload(&mailbox);
    signals::listen(on_stop, move || reload.again())?;

    let fs: Arc<dyn Fs> = Arc::new(RealFs);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let store = Store::new(Arc::clone(&fs), &settings.state_dir);
    store.create()?;
    warn_if_others_may_enter(&settings.state_dir);
    let lock = store.lock()?;
    let start = Start::find(&store)?;

    let positions = store.clone();
    let sink = sinks::build(settings, &clock, &mailbox)?;
    let writer = state_writer(settings, &fs, store, lock, &mailbox)?;
    let latest = Latest::default();
    let _served = http::serve(settings, &latest, &mailbox);
    readiness::tell(&latest)?;
    let edges = Edges {
        watch: DirectoryWatch::none(Arc::clone(&fs), &settings.input),
        pipe: None,
        store: Box::new(Kept(Descriptors::of_this_process())),
        fs,
        clock,
        sink,
        committer: Box::new(writer),
        latest,
    };
    follow(settings, &pipeline_settings(settings), &positions, start, edges, &mailbox)?;
    Ok(())
}

/// What systemd keeps, as the owner wants it.
struct Kept(Descriptors);

impl FileStore for Kept {
    fn keep(&mut self, name: &str, file: BorrowedFd<'_>) {
        self.0.keep(name, file);
    }

    fn forget(&mut self, name: &str) {
        self.0.forget(name);
    }

    fn take(&mut self, name: &str) -> Option<Arc<dyn InputFile>> {
        self.0.take(name).map(|file| Arc::new(file) as Arc<dyn InputFile>)
    }

    fn names(&self) -> Vec<String> {
        self.0.names()
    }
}

/// Says that the state directory, which holds rejected events, is not for the daemon alone. It is
/// the admin's to change: the setting may name a directory that others need.
fn warn_if_others_may_enter(state_dir: &Path) {
    let mode = std::fs::metadata(state_dir).map_or(0, |there| there.permissions().mode() & 0o7777);
    if mode & 0o077 != 0 {
        let (path, mode) = (state_dir.display(), format!("{mode:04o}"));
        warn!(%path, mode, "others can get at the state directory, which holds rejected events: chmod 0700");
    }
}

fn state_writer(
    settings: &Settings,
    fs: &Arc<dyn Fs>,
    store: Store,
    lock: Lock,
    mailbox: &Mailbox,
) -> io::Result<StateWriter> {
    let mut rejects =
        RejectsFile::new(Arc::clone(fs), &settings.state_dir, settings.rejects_max_bytes);
    let append =
        move |lines: &[RejectedLine]| rejects.append(lines.iter().map(|line| line.text.as_slice()));
    let results = mailbox.clone();
    let report = move |event| results.post(Event::State(event));
    let requests = DoneList::new(Arc::clone(fs), &settings.state_dir);
    let note = move |it: &Requeued| requests.note(&it.outcomes, it.request.as_deref());
    let state_dir = http::absolute_state_dir(settings);
    let committed = move |checkpoint: &Checkpoint| follow::drop_settled(&state_dir, checkpoint);
    let scribe =
        Scribe::new(store, lock, Box::new(append), Box::new(note)).then(Box::new(committed));
    StateWriter::start(scribe, Box::new(report))
}

fn pipeline_settings(settings: &Settings) -> pipeline::Settings {
    pipeline::Settings {
        input: settings.input.clone(),
        pipe: None,
        state_dir: http::absolute_state_dir(settings),
        max_line_bytes: settings.max_line_bytes,
        in_flight: Limits { records: settings.in_flight_records, bytes: settings.in_flight_bytes },
        checkpoint_interval: settings.checkpoint_interval,
        start_at: match settings.start_at {
            config::StartAt::Beginning => StartAt::Beginning,
            config::StartAt::End => StartAt::End,
        },
        mode: settings.mode.as_str(),
        sink_name: match settings.mode {
            Mode::Kafka => "kafka",
            Mode::SocketIo => "socketio",
        },
        event_types: settings.event_types.clone(),
    }
}

fn level(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}

fn format(format: LogFormat) -> Format {
    // systemd says with this variable that it reads standard error.
    let for_journal =
        || std::env::var_os("JOURNAL_STREAM").is_some() && !io::stderr().is_terminal();
    match format {
        LogFormat::Json => Format::Json,
        LogFormat::Auto if for_journal() => Format::Journal,
        LogFormat::Auto | LogFormat::Text => Format::Text,
    }
}

/// A panic of ours is a mistake of ours: the process ends, systemd starts it again, and the
/// position is as good as the last commit. One on the threads of connections is a lost connection:
/// no stranger's packet may end the daemon; unless it is in what takes them, and nobody could connect
/// any more. The message of a panic may quote data, so only its place is told.
fn panic_ends_the_process(info: &std::panic::PanicHookInfo<'_>, priority: &str) {
    let place = info.location().map(ToString::to_string).unwrap_or_default();
    let thread = std::thread::current().name().unwrap_or("unnamed").to_owned();
    let of_connections = thread == THREADS || thread == telemetry::http::THREAD;
    if of_connections && !vital::is_running() {
        error!(place, "a bug: serving a connection panicked; the connection is lost");
        return;
    }
    let text = format!("{priority}openalgo-bridge: a bug: thread {thread} panicked at {place}\n");
    // A full pipe behind standard error must not keep the process.
    let (done, written) = std::sync::mpsc::sync_channel(1);
    let writer = std::thread::Builder::new().spawn(move || {
        let _ = io::Write::write_all(&mut io::stderr(), text.as_bytes());
        let _ = done.send(());
    });
    if writer.is_ok() {
        let _ = written.recv_timeout(std::time::Duration::from_secs(1));
    }
    std::process::exit(101);
}
