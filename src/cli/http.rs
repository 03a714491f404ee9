//! `run`'s HTTP service: where it listens, how it reaches the owner, and what it says of an input
//! that can't be followed.

use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tracing::warn;

use super::connect::{User, likely_cause};
use crate::config::{self, Settings};
use crate::pipeline::{Event, Mailbox};
use crate::platform::access::may;
use crate::platform::fs::{Fs as _, RealFs};
use crate::sink::finding::{Finding, Level, quoted};
use crate::sink::rejects;
use crate::telemetry::http::{self, Address, Served};
use crate::telemetry::snapshot::{Latest, Snapshot};

/// The status socket's name.
pub(super) const STATUS_SOCKET: &str = "status.sock";

/// In systemd's runtime directory, where there is one.
fn status_socket(settings: &Settings) -> PathBuf {
    let directory = std::env::var_os("RUNTIME_DIRECTORY").map(PathBuf::from);
    directory.unwrap_or_else(|| settings.state_dir.clone()).join(STATUS_SOCKET)
}

/// As others may know it, whatever directory they are in.
pub(super) fn absolute_state_dir(settings: &Settings) -> PathBuf {
    std::path::absolute(&settings.state_dir).unwrap_or_else(|_| settings.state_dir.clone())
}

/// Begins to serve. A daemon that can't still delivers.
pub(super) fn serve(settings: &Settings, latest: &Latest, mailbox: &Mailbox) -> Option<Served> {
    // Whose answers these are is known before there is anything to tell.
    latest.publish(Snapshot {
        version: env!("CARGO_PKG_VERSION"),
        pid: std::process::id(),
        state_dir: absolute_state_dir(settings),
        mode: settings.mode.as_str(),
        ..Snapshot::default()
    });
    let (asked, input) = (mailbox.clone(), settings.input.clone());
    let state_dir = settings.state_dir.clone();
    let served = http::serve(http::Settings {
        socket: status_socket(settings),
        listen: address(&settings.http_listen),
        latest: latest.clone(),
        ask: Arc::new(move |answer| asked.post(Event::CaughtUpAsked(answer))),
        explain: Arc::new(move || explain(&input)),
        rejects_bytes: Arc::new(move || rejects_bytes(&state_dir)),
    });
    served.inspect_err(|error| warn!(%error, "cannot serve status, health and metrics")).ok()
}

fn address(listen: &config::Listen) -> Option<Address> {
    match listen {
        config::Listen::Off => None,
        config::Listen::Tcp(address) => Some(Address::Tcp(*address)),
        config::Listen::Unix(path) => Some(Address::Unix(path.clone())),
    }
}

/// Who looked, and what is in the way, to be read after the path.
fn explain(input: &Path) -> String {
    let user = User::current();
    format!(", looked at as {}; {}", user.name, likely_cause(input, &user))
}

/// The size of all files of rejected lines.
fn rejects_bytes(state_dir: &Path) -> u64 {
    let files = rejects::files(&RealFs, state_dir).unwrap_or_default();
    files.iter().filter_map(|file| RealFs.stat(file).ok()).map(|facts| facts.size).sum()
}

/// Tries where the service would listen. `ours` is where a running daemon of the same state does.
pub(super) fn inspect(settings: &Settings, ours: Option<&str>) -> Option<Finding> {
    let address = address(&settings.http_listen)?;
    let about = |level, text: &str| {
        Finding::new(level, format_args!("metrics: {address} (BRIDGE_HTTP_LISTEN): {text}"))
    };
    let port = match &address {
        Address::Tcp(address) => Some(address.port()),
        Address::Unix(_) => None,
    };
    if ours.is_some_and(|ours| port == Some(0) || ours == address.to_string()) {
        return Some(about(Level::Ok, "the running bridge listens there"));
    }
    let tried = match &address {
        Address::Tcp(address) => TcpListener::bind(address).map(drop),
        Address::Unix(path) => can_bind(path),
    };
    let Err(error) = tried else { return Some(about(Level::Ok, "is free")) };
    let remedy = match (&address, error.kind()) {
        (Address::Unix(path), _) => format!("ls -ld {}", quoted(&path.to_string_lossy())),
        (Address::Tcp(address), io::ErrorKind::AddrInUse) => {
            format!("sudo ss -ltnp 'sport = :{}'", address.port())
        }
        (Address::Tcp(address), io::ErrorKind::PermissionDenied) => {
            let ip = address.ip();
            format!("BRIDGE_HTTP_LISTEN = '{ip}:9820'    # ports below 1024 are root's")
        }
        _ => "ip -brief address    # an address that this machine has".to_owned(),
    };
    Some(about(Level::Error, &error.to_string()).mended_by(remedy))
}

/// Whether `run` could make a socket there. Looks only.
fn can_bind(path: &Path) -> io::Result<()> {
    http::is_left_behind(path)?;
    may(path.parent().unwrap_or(Path::new("/")), "wx")
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_socket_can_be_made_where_there_is_none_or_one_left_behind() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("http.sock");
        can_bind(&path).unwrap();
        let listener = UnixListener::bind(&path).unwrap();
        assert_eq!(can_bind(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(listener);
        can_bind(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "").unwrap();
        assert!(can_bind(&path).is_err(), "a file of someone's");
        assert!(can_bind(&directory.path().join("none/http.sock")).is_err());
    }

    #[test]
    fn what_is_said_of_the_input_names_the_user_and_the_cause() {
        let directory = tempfile::tempdir().unwrap();
        let text = explain(&directory.path().join("order_events.jsonl"));
        let user = User::current().name;
        assert!(text.starts_with(&format!(", looked at as {user}; does not exist yet")), "{text}");
        let text = explain(&directory.path().join("none/order_events.jsonl"));
        assert!(text.contains("nor does its directory"), "{text}");
    }
}
