//! What is answered to which question.

use std::os::unix::ffi::OsStrExt as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{
    ACCEPT, ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HOST, HeaderMap, HeaderValue, VARY,
    X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Method, Request, Response, StatusCode};
use tokio::sync::Notify;

use super::look::Look;
use super::{Address, AskCaughtUp, Explain, RejectsBytes};
use crate::platform::process::usage;
use crate::telemetry::health::{self, Trouble};
use crate::telemetry::metrics::{self, Beyond};
use crate::telemetry::openmetrics::Dialect;
use crate::telemetry::snapshot::{CaughtUp, Latest, Snapshot};

/// How many may wait for the bridge to catch up; the others can always ask how it is.
const WAITERS_MAX: usize = 8;

/// The longest wait for being caught up, and the one without a word about it.
const WAIT_MAX: Duration = Duration::from_hours(1);
const WAIT: Duration = Duration::from_secs(10);

/// How often the owner is asked at most, however many ask us: each time it looks at the input.
const ASK_INTERVAL: Duration = Duration::from_millis(10);

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

pub(super) type Answer = Response<Full<Bytes>>;

/// Which way in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Door {
    /// The status socket.
    Socket,
    /// `BRIDGE_HTTP_LISTEN`.
    Http,
}

impl Door {
    /// What is served there.
    pub(super) fn what(self) -> &'static str {
        match self {
            Self::Socket => "status",
            Self::Http => "metrics, health and status",
        }
    }
}

/// See the module.
pub(super) struct Answers {
    latest: Latest,
    ask: AskCaughtUp,
    explain: Look<String>,
    rejects_bytes: Look<u64>,
    /// When the process began, more or less: seconds since 1970.
    began: f64,
    waiting: AtomicUsize,
    last_asked: tokio::sync::Mutex<Option<tokio::time::Instant>>,
    listening: Mutex<Listening>,
}

#[derive(Clone, Default)]
struct Listening {
    http: Option<String>,
    alarm: Option<String>,
}

impl Answers {
    pub(super) fn new(
        latest: Latest,
        ask: AskCaughtUp,
        explain: Explain,
        rejects_bytes: RejectsBytes,
    ) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            latest,
            ask,
            explain: Look::new(explain),
            rejects_bytes: Look::new(rejects_bytes),
            began: since.as_secs_f64(),
            waiting: AtomicUsize::new(0),
            last_asked: tokio::sync::Mutex::new(None),
            listening: Mutex::default(),
        }
    }

    /// The door is open.
    pub(super) fn listens(&self, door: Door, address: &Address) {
        if door == Door::Http {
            *lock(&self.listening) = Listening { http: Some(address.to_string()), alarm: None };
        }
    }

    /// The door can't be opened.
    pub(super) fn cannot_listen(&self, door: Door, why: String) {
        if door == Door::Http {
            *lock(&self.listening) = Listening { http: None, alarm: Some(why) };
        }
    }

    /// `loopback`: over TCP, on an address that only this machine has.
    pub(super) async fn answer<B>(
        &self,
        request: &Request<B>,
        door: Door,
        loopback: bool,
    ) -> Answer {
        let snapshot = self.latest.get();
        let answer = self.to(request, door, loopback, &snapshot).await;
        with_sender(answer, &snapshot)
    }

    async fn to<B>(
        &self,
        request: &Request<B>,
        door: Door,
        loopback: bool,
        snapshot: &Snapshot,
    ) -> Answer {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return wrong_method();
        }
        // No page may get at it through a name of its own that leads here.
        if loopback && !is_of_this_machine(request.headers()) {
            return answer(StatusCode::FORBIDDEN, TEXT, "not by this name\n");
        }
        match (request.uri().path(), door) {
            ("/healthz", _) => self.healthz(),
            ("/readyz", _) => self.readyz(snapshot).await,
            ("/metrics", _) => self.metrics(request.headers(), snapshot).await,
            ("/status.json", _) => self.status(StatusCode::OK, snapshot),
            // Only for `openalgo-bridge status`: it makes the owner look.
            ("/caught-up", Door::Socket) => self.caught_up(request.uri().query()).await,
            _ => {
                let text = "not found: /healthz /readyz /metrics /status.json\n";
                answer(StatusCode::NOT_FOUND, TEXT, text)
            }
        }
    }

    fn healthz(&self) -> Answer {
        match health::alive(self.latest.overdue(Instant::now())) {
            Ok(()) => answer(StatusCode::OK, TEXT, "ok\n"),
            Err(why) => answer(StatusCode::SERVICE_UNAVAILABLE, TEXT, why + "\n"),
        }
    }

    fn troubles(&self, snapshot: &Snapshot) -> Vec<Trouble> {
        let now = Instant::now();
        health::troubles(snapshot, self.latest.overdue(now), now)
    }

    async fn readyz(&self, snapshot: &Snapshot) -> Answer {
        let troubles = self.troubles(snapshot);
        if troubles.is_empty() {
            return answer(StatusCode::OK, TEXT, "ready\n");
        }
        let mut text = String::new();
        for trouble in &troubles {
            text.push_str(trouble.text());
            if matches!(trouble, Trouble::Input(_)) {
                let cause = self.explain.take().await;
                text.push_str(cause.as_deref().unwrap_or("; its file system does not answer"));
            }
            text.push('\n');
        }
        answer(StatusCode::SERVICE_UNAVAILABLE, TEXT, text)
    }

    async fn metrics(&self, headers: &HeaderMap, snapshot: &Snapshot) -> Answer {
        let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let dialect = Dialect::of(accept);
        let beyond = Beyond {
            ready: self.troubles(snapshot).is_empty(),
            overdue: self.latest.overdue(Instant::now()),
            usage: usage(),
            rejects_bytes: self.rejects_bytes.take().await,
            began: self.began,
        };
        let page = metrics::page(snapshot, &beyond, dialect);
        let mut answer = answer(StatusCode::OK, dialect.content_type(), page);
        answer.headers_mut().insert(VARY, HeaderValue::from_static("Accept"));
        answer
    }

    fn status(&self, status: StatusCode, snapshot: &Snapshot) -> Answer {
        let mut snapshot = snapshot.clone();
        let listening = lock(&self.listening).clone();
        snapshot.listen.http = listening.http;
        snapshot.listen.http_alarm = listening.alarm;
        match serde_json::to_string(&snapshot) {
            Ok(text) => answer(status, JSON, text),
            Err(error) => answer(StatusCode::INTERNAL_SERVER_ERROR, TEXT, error.to_string()),
        }
    }

    /// `wait=SECONDS` in the query. Who goes away in the meantime is no longer waited for: hyper
    /// drops this with the connection.
    async fn caught_up(&self, query: Option<&str>) -> Answer {
        let Some(_slot) = Slot::take(&self.waiting) else {
            let text = "too many are waiting already\n";
            return answer(StatusCode::TOO_MANY_REQUESTS, TEXT, text);
        };
        let wait = query.and_then(|query| query.strip_prefix("wait=")).map_or(WAIT, wait);
        let until = tokio::time::Instant::now() + wait;
        let mut last_asked = self.last_asked.lock().await;
        if let Some(last) = *last_asked {
            tokio::time::sleep_until(last + ASK_INTERVAL).await;
        }
        *last_asked = Some(tokio::time::Instant::now());
        drop(last_asked);
        let told = Arc::new(Notify::new());
        let tell = Arc::clone(&told);
        (self.ask)(CaughtUp::new(move || tell.notify_one()));
        let caught_up = tokio::time::timeout_at(until, told.notified()).await.is_ok();
        let code = if caught_up { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        self.status(code, &self.latest.get())
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Seconds in a query.
fn wait(text: &str) -> Duration {
    let seconds = text.parse().unwrap_or(0.0_f64);
    if seconds > 0.0 {
        Duration::try_from_secs_f64(seconds).unwrap_or(WAIT_MAX).min(WAIT_MAX)
    } else {
        Duration::ZERO
    }
}

/// Whether the client calls this machine by an address or by the name that it has for itself.
fn is_of_this_machine(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(HOST) else { return true };
    let Ok(host) = host.to_str() else { return false };
    // Up to the port; an IPv6 address stands in brackets.
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.parse::<std::net::IpAddr>().is_ok()
        || name.eq_ignore_ascii_case("localhost")
        || name.to_ascii_lowercase().ends_with(".localhost")
}

fn wrong_method() -> Answer {
    let mut answer = answer(StatusCode::METHOD_NOT_ALLOWED, TEXT, "GET or HEAD\n");
    let headers = answer.headers_mut();
    headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    // What it brings is not read.
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    answer
}

fn answer(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}

/// Every answer says whose it is.
fn with_sender(mut answer: Answer, snapshot: &Snapshot) -> Answer {
    let headers = answer.headers_mut();
    headers.insert("bridge-pid", HeaderValue::from(snapshot.pid));
    let directory = snapshot.state_dir.as_os_str().as_bytes();
    if let Ok(directory) = HeaderValue::from_bytes(directory) {
        headers.insert("bridge-state-dir", directory);
    }
    answer
}

/// A place among those who wait, given back when dropped.
struct Slot<'a>(&'a AtomicUsize);

impl<'a> Slot<'a> {
    fn take(waiting: &'a AtomicUsize) -> Option<Self> {
        let slot = Self(waiting);
        (waiting.fetch_add(1, Ordering::AcqRel) < WAITERS_MAX).then_some(slot)
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_bounded() {
        for (text, seconds) in [("2.5", 2.5), ("0", 0.0), ("-1", 0.0), ("x", 0.0), ("nan", 0.0)] {
            assert_eq!(wait(text), Duration::from_secs_f64(seconds), "{text}");
        }
        assert_eq!(wait("inf"), WAIT_MAX);
        assert_eq!(wait("1e300"), WAIT_MAX);
    }

    #[test]
    fn names_of_this_machine_are_addresses_and_localhost() {
        for (host, expected) in [
            ("127.0.0.1:9820", true),
            ("[::1]:9820", true),
            ("10.0.0.7", true),
            ("LocalHost:9820", true),
            ("a.localhost", true),
            ("evil.example:9820", false),
            ("127.0.0.1.evil.example", false),
            ("localhost.evil.example", false),
            ("", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, HeaderValue::from_static(host));
            assert_eq!(is_of_this_machine(&headers), expected, "{host}");
        }
        assert!(is_of_this_machine(&HeaderMap::new()));
    }
}
