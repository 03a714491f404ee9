//! The status socket: HTTP on a Unix socket, without payloads, for `openalgo-bridge status`.
//!
//! Few requests, each answered and closed; slow or many clients cost a bounded number of threads
//! for a bounded time and nothing else. The TCP listener and `/metrics` come with the ledger.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::{Duration, Instant};

use super::snapshot::Latest;

/// How many clients are served at the same time.
const CLIENTS_MAX: usize = 16;
/// How many of them may wait for the bridge to catch up; the others can always ask how it is.
const WAITERS_MAX: usize = 8;
/// How often a waiting client is looked at.
const LOOK_AT_CLIENT: Duration = Duration::from_millis(500);
/// How long a client may take to ask, and to take the answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// The longest request.
const REQUEST_BYTES_MAX: u64 = 4096;
/// The longest wait for being caught up.
const WAIT_MAX: Duration = Duration::from_hours(1);

/// Asks the owner to say through the sender when everything that is in the input now is settled.
pub type AskCaughtUp = Arc<dyn Fn(SyncSender<()>) + Send + Sync>;

/// Serves on `path` until the process ends.
///
/// # Errors
/// The system's, if the socket can't be made; the path may be too long for one (107 bytes).
pub fn serve(path: &Path, latest: Latest, ask: AskCaughtUp) -> io::Result<()> {
    // Whoever made it is gone: the state directory's lock is ours.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    // Everyone on the machine may ask; nothing secret is answered.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))?;
    let (serving, waiting) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    std::thread::Builder::new().name("status".to_owned()).spawn(move || {
        for client in listener.incoming() {
            let Ok(client) = client else {
                // Out of descriptors, say: no reason to spin.
                std::thread::sleep(Duration::from_millis(100));
                continue;
            };
            if serving.fetch_add(1, Ordering::AcqRel) >= CLIENTS_MAX {
                serving.fetch_sub(1, Ordering::AcqRel);
                continue;
            }
            let (latest, ask, left) = (latest.clone(), Arc::clone(&ask), Arc::clone(&serving));
            let waiting = Arc::clone(&waiting);
            let served =
                std::thread::Builder::new().name("status-client".to_owned()).spawn(move || {
                    // A client that goes away in the middle is its own business.
                    let _ = answer(&client, &latest, &ask, &waiting);
                    left.fetch_sub(1, Ordering::AcqRel);
                });
            if served.is_err() {
                serving.fetch_sub(1, Ordering::AcqRel);
            }
        }
    })?;
    Ok(())
}

fn answer(
    client: &UnixStream,
    latest: &Latest,
    ask: &AskCaughtUp,
    waiting: &Arc<AtomicUsize>,
) -> io::Result<()> {
    client.set_read_timeout(Some(PATIENCE))?;
    client.set_write_timeout(Some(PATIENCE))?;
    let mut request = String::new();
    BufReader::new(client).take(REQUEST_BYTES_MAX).read_line(&mut request)?;
    let mut words = request.split_whitespace();
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let (status, body) = match (method, path) {
        ("GET", "/status.json") => ("200 OK", status(latest)?),
        ("GET", "/caught-up") => {
            let Some(_slot) = Slot::take(waiting) else {
                return write_answer(client, "503 Service Unavailable", "{}");
            };
            let caught_up = wait_until_caught_up(client, query, ask)?;
            (if caught_up { "200 OK" } else { "503 Service Unavailable" }, status(latest)?)
        }
        ("GET", _) => ("404 Not Found", "{}".to_owned()),
        _ => ("405 Method Not Allowed", "{}".to_owned()),
    };
    write_answer(client, status, &body)
}

fn write_answer(mut client: &UnixStream, status: &str, body: &str) -> io::Result<()> {
    let length = body.len();
    write!(
        client,
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n{body}"
    )
}

fn status(latest: &Latest) -> io::Result<String> {
    Ok(serde_json::to_string(latest.get().as_ref())?)
}

/// A place among those who wait, given back when dropped.
struct Slot(Arc<AtomicUsize>);

impl Slot {
    fn take(waiting: &Arc<AtomicUsize>) -> Option<Self> {
        let slot = Self(Arc::clone(waiting));
        (waiting.fetch_add(1, Ordering::AcqRel) < WAITERS_MAX).then_some(slot)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// `wait=SECONDS` in the query; 10 if there is none. Ends early when the client goes away.
fn wait_until_caught_up(client: &UnixStream, query: &str, ask: &AskCaughtUp) -> io::Result<bool> {
    let seconds = query.strip_prefix("wait=").and_then(|text| text.parse().ok()).unwrap_or(10.0);
    let wait = Duration::try_from_secs_f64(seconds).unwrap_or(WAIT_MAX).min(WAIT_MAX);
    let (answer, caught_up) = sync_channel(1);
    ask(answer);
    client.set_read_timeout(Some(Duration::from_millis(1)))?;
    let until = Instant::now() + wait;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if caught_up.recv_timeout(left.min(LOOK_AT_CLIENT)).is_ok() {
            return Ok(true);
        }
        // What the client still says does not matter, that it hung up does.
        let gone = matches!((&mut &*client).read(&mut [0; 512]), Ok(0));
        if gone || left.is_zero() {
            return Ok(false);
        }
    }
}

/// Asks a running daemon. Gives the HTTP status and the body.
///
/// # Errors
/// The system's; `InvalidData` if the answer is not one of ours.
pub fn request(socket: &Path, target: &str, patience: Duration) -> io::Result<(u16, String)> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(patience))?;
    write!(stream, "GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let wrong = || io::Error::new(io::ErrorKind::InvalidData, "the answer is not a bridge's");
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(wrong)?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(wrong)?;
    Ok((status, body.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::snapshot::Snapshot;

    #[test]
    fn answers_the_latest_snapshot_and_whether_the_bridge_caught_up() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("status.sock");
        std::fs::write(&path, "left behind").unwrap();
        let latest = Latest::default();
        let ask: AskCaughtUp = Arc::new(|answer: SyncSender<()>| answer.try_send(()).unwrap());
        serve(&path, latest.clone(), ask).unwrap();
        latest.publish(Snapshot { pid: 7, ..Snapshot::default() });
        let (status, body) = request(&path, "/status.json", PATIENCE).unwrap();
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!((status, &body["pid"]), (200, &7.into()));
        assert_eq!(request(&path, "/caught-up?wait=0", PATIENCE).unwrap().0, 200);
        assert_eq!(request(&path, "/nothing", PATIENCE).unwrap().0, 404);
    }

    #[test]
    fn a_bridge_that_is_behind_is_503() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("status.sock");
        serve(&path, Latest::default(), Arc::new(|_| ())).unwrap();
        assert_eq!(request(&path, "/caught-up?wait=0", PATIENCE).unwrap().0, 503);
    }

    #[test]
    fn sec_07_silent_clients_do_not_keep_others_out_for_long() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("status.sock");
        serve(&path, Latest::default(), Arc::new(|_| ())).unwrap();
        let _silent: Vec<_> =
            (0..4 * CLIENTS_MAX).map(|_| UnixStream::connect(&path).unwrap()).collect();
        let answered = (0..100).any(|_| {
            std::thread::park_timeout(Duration::from_millis(100));
            matches!(request(&path, "/status.json", PATIENCE), Ok((200, _)))
        });
        assert!(answered);
    }
}
