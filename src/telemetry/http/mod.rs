//! Health, readiness, metrics and status over HTTP: on the status socket and where
//! `BRIDGE_HTTP_LISTEN` says. Without payloads and secrets.
//!
//! One thread with a runtime of its own serves both. Slow, many or malformed clients cost a bounded
//! number of connections for a bounded time; the owner is only asked for the newest snapshot, and
//! now and then whether it has caught up.

mod answers;
mod connections;
mod listener;
mod look;

use std::convert::Infallible;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};

pub use self::listener::{Address, is_left_behind};

use self::answers::{Answers, Door};
use self::connections::{Connections, Place};
use self::listener::{Listener, Stream};
use super::snapshot::{CaughtUp, Latest};
use crate::platform::panics::on_purpose;
use crate::platform::vital::vital;

/// The name of its thread.
pub const THREAD: &str = "http";

/// How many clients are connected at most, at each of the two doors.
const CLIENTS_MAX: usize = 64;

/// How long the head of a request may take, and a connection without one may stay.
const HEAD: Duration = Duration::from_secs(10);

/// How long an answer may take to be taken.
const ANSWER: Duration = Duration::from_secs(15);

/// The longest head of a request.
const HEAD_BYTES_MAX: usize = 8 << 10;

/// How long to wait when no connection can be taken, such as without free descriptors.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// Asks the owner to tell when everything that is in the input now is settled.
pub type AskCaughtUp = Arc<dyn Fn(CaughtUp) + Send + Sync>;

/// Looks why the input can't be followed. May wait for the file system.
pub type Explain = Arc<dyn Fn() -> String + Send + Sync>;

/// Looks how large all files of rejected lines are together. May wait for the file system.
pub type RejectsBytes = Arc<dyn Fn() -> u64 + Send + Sync>;

/// What the service needs to be told.
pub struct Settings {
    /// The status socket.
    pub socket: PathBuf,
    /// Where else.
    pub listen: Option<Address>,
    /// Where the owner tells how it is.
    pub latest: Latest,
    /// How to ask it more.
    pub ask: AskCaughtUp,
    /// How to look at the input.
    pub explain: Explain,
    /// How to look at the rejects.
    pub rejects_bytes: RejectsBytes,
}

/// Serves until the process ends; removes its sockets when dropped.
pub struct Served {
    sockets: Vec<PathBuf>,
}

/// Begins to serve. What can't be opened is tried again and again.
///
/// # Errors
/// The system's, if there can be no thread.
pub fn serve(settings: Settings) -> io::Result<Served> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(2)
        .thread_name(THREAD)
        .build()?;
    // Whoever made it is gone: the state directory's lock is ours.
    match std::fs::remove_file(&settings.socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(path = %settings.socket.display(), %error, "cannot replace the status socket");
        }
        _ => {}
    }
    let mut sockets = vec![settings.socket.clone()];
    if let Some(Address::Unix(path)) = &settings.listen {
        sockets.push(path.clone());
    }
    std::thread::Builder::new().name(THREAD.to_owned()).spawn(move || {
        let Settings { socket, listen, latest, ask, explain, rejects_bytes } = settings;
        let answers = Arc::new(Answers::new(latest, ask, explain, rejects_bytes));
        let at_socket = at(Door::Socket, Address::Unix(socket), Arc::clone(&answers));
        runtime.block_on(async move {
            let elsewhere = async {
                if let Some(address) = listen {
                    at(Door::Http, address, answers).await;
                }
            };
            vital(async { tokio::join!(at_socket, elsewhere) }).await;
        });
    })?;
    Ok(Served { sockets })
}

impl Drop for Served {
    fn drop(&mut self) {
        for socket in &self.sockets {
            remove_if_ours(socket);
        }
    }
}

/// The next start would replace it; until then nobody should wait for an answer from it.
fn remove_if_ours(socket: &Path) {
    use std::os::unix::fs::FileTypeExt as _;
    let is_socket = |there: std::fs::Metadata| there.file_type().is_socket();
    if std::fs::symlink_metadata(socket).is_ok_and(is_socket) {
        let _ = std::fs::remove_file(socket);
    }
}

/// Serves at one address for ever.
async fn at(door: Door, address: Address, answers: Arc<Answers>) {
    let alarm = |why| answers.cannot_listen(door, format!("{address}: {why}"));
    let (listener, address) = Listener::open(&address, door.what(), alarm).await;
    answers.listens(door, &address);
    let loopback = matches!(&address, Address::Tcp(address) if address.ip().is_loopback());
    let connections = Connections::new(CLIENTS_MAX);
    loop {
        match listener.accept().await {
            Ok(stream) => {
                on_purpose("http");
                if let Some(place) = connections.admit(Instant::now()) {
                    tokio::spawn(connection(stream, place, door, loopback, Arc::clone(&answers)));
                }
                // Whoever made room goes, and whoever came is heard, before the next one comes.
                tokio::task::yield_now().await;
            }
            Err(_) => tokio::time::sleep(ACCEPT_AGAIN).await,
        }
    }
}

/// A connection's life.
async fn connection(
    stream: Box<dyn Stream>,
    place: Place,
    door: Door,
    loopback: bool,
    answers: Arc<Answers>,
) {
    on_purpose("http-connection");
    let place = &place;
    let service = service_fn(|request| {
        let answers = Arc::clone(&answers);
        async move {
            place.works();
            let answer = answers.answer(&request, door, loopback).await;
            place.waits(Instant::now());
            Ok::<_, Infallible>(answer)
        }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    // A client that goes away in the middle is its own business.
    tokio::select! {
        _ = pin!(served) => {}
        () = place.over(ANSWER) => {}
    }
}

#[cfg(test)]
mod tests;
