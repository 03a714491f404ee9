//! Which input is followed: the file at the path, or the journal of the named pipe that stands there.
//!
//! One may take the place of the other while the daemon runs. Then what came before is settled first.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tracing::info;

use crate::checkpoint::Checkpoint;
use crate::checkpoint::store::{StateError, Store};
use crate::config::Settings;
use crate::pipeline::{self, Edges, Event, Mailbox, Pipeline, Start, StartAt, Stopped};
use crate::platform::fs::{FileKind, Fs as _, RealFs};
use crate::platform::pipe::Pipe;
use crate::source::fifo::journal::{self, Durable, JournalFs};
use crate::source::fifo::{self, Fifo, Notice};
use crate::source::watch::DirectoryWatch;

/// What is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Input {
    File,
    Journal,
}

/// Whether a named pipe stands at the path.
fn is_pipe(path: &Path) -> bool {
    RealFs.stat(path).is_ok_and(|facts| facts.kind == FileKind::Fifo)
}

/// The file that is followed where a pipe may stand at the path.
pub(super) fn followed(settings: &Settings) -> PathBuf {
    if is_pipe(&settings.input) {
        journal::live_in(&super::http::absolute_state_dir(settings))
    } else {
        settings.input.clone()
    }
}

/// Removes the segments of the journal that a durable commit does not need.
pub(super) fn drop_settled(state_dir: &Path, committed: &Checkpoint) {
    // Without a pipe there is nothing to look for. With one, the newest life is in the journal, or nothing
    // can be said of what is older.
    let directory = journal::directory_in(state_dir);
    if !committed.live().is_some_and(|live| live.path.starts_with(&directory)) {
        return;
    }
    let open: Vec<_> = committed.generations.iter().map(|state| state.identity).collect();
    // What is left is tried again after the next commit, and counts as full until then.
    let _ = journal::drop_settled(state_dir, &open);
}

/// Why the input can't be followed.
#[derive(Debug, thiserror::Error)]
pub(super) enum FollowError {
    #[error("{path}: another process reads this named pipe: two bridges would share its lines out between them", path = .0.display())]
    Taken(PathBuf),
    #[error("{0}")]
    State(#[from] StateError),
    #[error("cannot start the thread that reads the pipe: {0}")]
    Thread(#[from] io::Error),
}

/// Follows the input until the daemon is to stop.
///
/// # Errors
/// The system's, or those of the state directory.
pub(super) fn follow(
    settings: &Settings,
    basic: &pipeline::Settings,
    store: &Store,
    mut start: Start,
    mut edges: Edges,
    mailbox: &Mailbox,
) -> Result<(), FollowError> {
    let is_pipe_now = is_pipe(&settings.input);
    if is_pipe_now && Pipe::is_taken(&settings.input) {
        return Err(FollowError::Taken(settings.input.clone()));
    }
    let fs = Arc::clone(&edges.fs);
    let mut input = first(is_pipe_now, &basic.state_dir, &start);
    let mut fifo: Option<Journaled> = None;
    loop {
        fifo = match (input, fifo) {
            (Input::File, _) => None,
            // A pipe that came back was never let go.
            (Input::Journal, Some(fifo)) => Some(fifo),
            (Input::Journal, None) => Some(Journaled::start(settings, basic, mailbox)?),
        };
        edges.pipe = fifo.as_ref().map(|fifo| fifo.fifo.state());
        let durable = fifo.as_ref().map(|fifo| Arc::clone(&fifo.durable)).unwrap_or_default();
        let settings_of_it = match input {
            Input::File => {
                let hint = mailbox.clone();
                let wake = Arc::new(move || hint.post(Event::InputChanged));
                edges.fs = Arc::clone(&fs);
                edges.watch = DirectoryWatch::new(Arc::clone(&fs), &settings.input, wake);
                basic.clone()
            }
            Input::Journal => {
                edges.fs = Arc::new(JournalFs::new(Arc::clone(&fs), durable));
                let live = journal::live_in(&basic.state_dir);
                edges.watch = DirectoryWatch::none(Arc::clone(&fs), &live);
                let pipe = Some(settings.input.clone());
                // A journal begins with the first byte that comes.
                pipeline::Settings {
                    input: live,
                    pipe,
                    start_at: StartAt::Beginning,
                    ..basic.clone()
                }
            }
        };
        let pipe = edges.pipe.clone();
        let segments = pipe.as_ref().map(|pipe| pipe.keep_segments());
        let mut pipeline = Pipeline::new(settings_of_it, edges, &start);
        drop(segments);
        if pipeline::run(&mut pipeline, mailbox, settings.shutdown_timeout) != Stopped::Left {
            return Ok(());
        }
        let asked;
        (edges, asked) = pipeline.into_edges();
        for answer in asked {
            mailbox.post(Event::CaughtUpAsked(answer));
        }
        start = Start::find(store)?;
        input = if is_pipe(&settings.input) { Input::Journal } else { Input::File };
        info!(to = ?input, "the input is of another kind now; what came before is settled");
    }
}

/// What was followed last comes first, as long as something of it may be missing.
fn first(is_pipe: bool, state_dir: &Path, start: &Start) -> Input {
    let journal = journal::directory_in(state_dir);
    let known = match start {
        Start::From(checkpoint) => checkpoint.live().map(|live| live.path.starts_with(&journal)),
        Start::First | Start::Unreadable => None,
    };
    let in_journal = known.unwrap_or(true) && journal::holds_anything(state_dir);
    if in_journal || (is_pipe && known != Some(false)) { Input::Journal } else { Input::File }
}

/// What comes out of the pipe, and how much of it may be read.
struct Journaled {
    fifo: Fifo,
    durable: Arc<Durable>,
}

impl Journaled {
    fn start(
        settings: &Settings,
        basic: &pipeline::Settings,
        mailbox: &Mailbox,
    ) -> io::Result<Self> {
        let (owner, durable) = (mailbox.clone(), Arc::new(Durable::default()));
        let tell = move |notice| {
            owner.post(match notice {
                Notice::Journaled | Notice::Moved => Event::InputChanged,
                Notice::Opened => Event::Stay,
                Notice::Ended => Event::Leave,
            });
        };
        let settings = fifo::Settings {
            path: settings.input.clone(),
            state_dir: basic.state_dir.clone(),
            max_bytes: settings.fifo_journal_max_bytes,
            max_line_bytes: settings.max_line_bytes,
        };
        let fifo = Fifo::start(settings, &durable, Box::new(tell))?;
        Ok(Self { fifo, durable })
    }
}
