//! The listening port: connections, what may be asked of them, and how much of it.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use engineioxide::TransportType;
use engineioxide::config::EngineIoConfig;
use engineioxide::service::EngineIoService;
use http_body_util::{BodyExt as _, Full, Limited, combinators::BoxBody};
use hyper::body::Incoming;
use hyper::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_MAX_AGE, HeaderValue, VARY,
};
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tracing::{error, info, warn};

use super::Settings;
use super::buffer::{BYTES_MAX, Bell, EVENTS_MAX};
use super::clients::Clients;
use super::gate::Admission;
use super::idle::Idle;
use super::page::Page;
use super::seldom::Seldom;
use super::session::Sessions;
use super::stream::{Patient, Switch};
use crate::platform::panics::on_purpose;

/// As the app's own server has them.
const PING_INTERVAL: Duration = Duration::from_secs(25);
const PING_TIMEOUT: Duration = Duration::from_mins(1);

/// How long the head of a request may take, and a connection without one may stay.
const HEAD: Duration = Duration::from_secs(10);

/// How long going over to websocket may take.
const UPGRADE: Duration = Duration::from_secs(10);

/// How long a request may take that brings something.
const POST: Duration = Duration::from_secs(20);

/// How much a client may send at once. It has nothing to say but who it is.
const RECEIVED_MAX: usize = 64 << 10;

/// Places in a client's queue beyond its events: pings, answers, the end. With a full queue a ping
/// would count as unanswered.
const OTHER_PACKETS: usize = 16;

/// Sessions and connections beyond those of the clients: some clients have two, some are on their
/// way in or out.
const SPARE: usize = 256;

/// Bytes, before the kernel doubles them for its own needs.
const SEND_BUFFER: u32 = 128 << 10;

/// Connections that wait to be taken.
const BACKLOG: u32 = 1024;

/// How long to wait before trying to listen again.
const LISTEN_AGAIN: Duration = Duration::from_secs(1);

/// How long to wait when no connection can be taken, such as without free descriptors.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

type Answer = Response<BoxBody<Bytes, Infallible>>;

/// Whether the port is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Port {
    /// Not tried yet.
    Opening,
    /// Clients can connect here.
    Open(SocketAddr),
    /// It can't be opened, for this reason; tried again.
    Closed(String),
}

/// See the module.
pub(super) struct Listener {
    address: SocketAddr,
    sessions: Arc<Sessions>,
    clients: Arc<Clients>,
    engine: EngineIoService<Sessions>,
    socketio_path: String,
    page: Option<Page>,
    sessions_max: usize,
    connections: Arc<Semaphore>,
    connections_max: usize,
    idle: Idle,
    full_told: Seldom,
    closing: watch::Sender<bool>,
    port: Mutex<Port>,
    bell: Arc<Bell>,
}

impl Listener {
    pub(super) fn new(settings: &Settings, sessions: Arc<Sessions>, bell: Arc<Bell>) -> Self {
        let path = settings.path.trim_end_matches('/').to_owned();
        let sessions_max = settings.max_clients.saturating_add(SPARE);
        let connections_max = (2 * sessions_max).min(Semaphore::MAX_PERMITS);
        let engine = EngineIoService::with_config(Arc::clone(&sessions), engine(settings, &path));
        Self {
            address: settings.listen,
            clients: sessions.clients(),
            sessions,
            engine,
            page: settings.live_page.then(|| Page::new(&settings.path)),
            socketio_path: path,
            sessions_max,
            connections: Arc::new(Semaphore::new(connections_max)),
            connections_max,
            idle: Idle::default(),
            full_told: Seldom::default(),
            closing: watch::Sender::new(false),
            port: Mutex::new(Port::Opening),
            bell,
        }
    }

    pub(super) fn port(&self) -> Port {
        self.port.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_port(&self, port: Port) {
        *self.port.lock().unwrap_or_else(PoisonError::into_inner) = port;
        self.bell.ring();
    }

    /// Takes connections until the runtime ends.
    pub(super) async fn run(self: Arc<Self>) {
        let listener = self.listen().await;
        tokio::select! {
            () = self.clone().accept(listener) => {}
            () = self.is_closing() => {}
        }
    }

    async fn accept(self: Arc<Self>, listener: TcpListener) {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    on_purpose("socketio");
                    let Some(permit) = self.place().await else { return };
                    tokio::spawn(Arc::clone(&self).serve(stream, permit));
                }
                Err(error) => {
                    self.tell_full(&format_args!("cannot take a connection: {error}"));
                    self.idle.evict();
                    tokio::time::sleep(ACCEPT_AGAIN).await;
                }
            }
        }
    }

    /// A place among the connections. If there is none, who waits in vain has to go.
    async fn place(&self) -> Option<OwnedSemaphorePermit> {
        if self.connections.available_permits() == 0 {
            self.tell_full(&"too many connections");
            self.idle.evict();
        }
        Arc::clone(&self.connections).acquire_owned().await.ok()
    }

    fn tell_full(&self, what: &dyn std::fmt::Display) {
        if self.full_told.is_due(Instant::now()) {
            let (sessions, clients) = (self.sessions.open(), self.clients.count());
            warn!(
                sessions,
                clients, "{what}; the oldest that nobody uses are ended: see SOCKETIO_MAX_CLIENTS"
            );
        }
    }

    /// Ends when what is being written over HTTP is written; websockets are not counted.
    pub(super) async fn close(&self) {
        self.closing.send_replace(true);
        let all = u32::try_from(self.connections_max).unwrap_or(u32::MAX);
        let _ = self.connections.acquire_many(all).await;
    }

    /// Opens the port, however long that takes: a busy one is an alarm, never an end.
    async fn listen(&self) -> TcpListener {
        let mut told = None;
        loop {
            match open(self.address).and_then(|listener| Ok((listener.local_addr()?, listener))) {
                Ok((address, listener)) => {
                    info!(%address, path = %format_args!("{}/", self.socketio_path), "Socket.IO clients can connect");
                    self.set_port(Port::Open(address));
                    return listener;
                }
                Err(error) => {
                    let why = error.to_string();
                    if told.as_ref() != Some(&why) {
                        error!(
                            address = %self.address, %error,
                            "cannot listen for Socket.IO clients: events wait in the file; trying on"
                        );
                        self.set_port(Port::Closed(format!(
                            "cannot listen on {}: {why}",
                            self.address
                        )));
                        told = Some(why);
                    }
                }
            }
            tokio::time::sleep(LISTEN_AGAIN).await;
        }
    }

    async fn serve(self: Arc<Self>, stream: TcpStream, _permit: OwnedSemaphorePermit) {
        let _ = stream.set_nodelay(true);
        let switch = Switch::default();
        // Who does not read does not answer pings either.
        let patience = PING_INTERVAL + PING_TIMEOUT;
        let io = TokioIo::new(Patient::new(stream, switch.clone(), patience));
        let waits = Arc::new(AtomicU64::new(self.idle.enter(&switch)));
        let service = service_fn(|request| {
            let (listener, switch, waits) = (Arc::clone(&self), switch.clone(), Arc::clone(&waits));
            async move {
                listener.idle.leave(waits.load(Ordering::Relaxed));
                let answer = listener.answer(request, switch.clone()).await;
                waits.store(listener.idle.enter(&switch), Ordering::Relaxed);
                Ok::<_, Infallible>(answer)
            }
        });
        let mut connection = pin!(
            http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD)
                .max_buf_size(16 << 10)
                .serve_connection(io, service)
                .with_upgrades()
        );
        let ended = tokio::select! {
            _ = connection.as_mut() => true,
            () = self.is_closing() => false,
        };
        // A client that goes away in the middle is its own business.
        if !ended {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
        self.idle.leave(waits.load(Ordering::Relaxed));
    }

    async fn is_closing(&self) {
        let mut closing = self.closing.subscribe();
        // The sender is this listener's own: it outlives the wait.
        let _ = closing.wait_for(|closing| *closing).await;
    }

    async fn answer(&self, request: Request<Incoming>, switch: Switch) -> Answer {
        let path = request.uri().path();
        if let Some(page) = self.page.as_ref().and_then(|page| page.answer(request.method(), path))
        {
            return page.map(Full::boxed);
        }
        let rest = path.strip_prefix(self.socketio_path.as_str());
        if rest != Some("/") && rest != Some("") {
            return plain(StatusCode::NOT_FOUND, "not found\n");
        }
        if !self.sessions.gate().host(request.headers()) {
            return plain(StatusCode::FORBIDDEN, "not by this name: see SOCKETIO_CORS_ORIGINS\n");
        }
        match self.sessions.gate().page(request.headers()) {
            Admission::Refused => plain(StatusCode::FORBIDDEN, "this origin may not connect\n"),
            Admission::Silent => self.engine_answer(request, switch).await,
            Admission::Said(origin) => {
                let mut answer = if request.method() == Method::OPTIONS {
                    preflight()
                } else {
                    self.engine_answer(request, switch).await
                };
                allow(origin, &mut answer);
                answer
            }
        }
    }

    /// Whether there is no place for another session, not even that of one which is no client.
    fn is_full(&self) -> bool {
        if self.sessions.open() < self.sessions_max {
            return false;
        }
        self.tell_full(&"too many sessions");
        !self.sessions.make_room()
    }

    async fn engine_answer(&self, mut request: Request<Incoming>, switch: Switch) -> Answer {
        let query = request.uri().query().unwrap_or_default();
        let websocket = parameter(query, "transport") == Some("websocket");
        match parameter(query, "sid").map(str::parse) {
            None if self.is_full() => {
                return plain(StatusCode::SERVICE_UNAVAILABLE, "too many sessions\n");
            }
            None if websocket => {
                request.extensions_mut().insert(switch);
            }
            Some(Ok(id)) if websocket => self.clients.upgrading(id, UPGRADE, switch),
            Some(Ok(id)) if request.method() == Method::GET => self.clients.polled(id),
            _ => {}
        }
        let brings = request.method() == Method::POST;
        let answer = self.engine.call(request.map(|body| Limited::new(body, RECEIVED_MAX)));
        let answer = if brings {
            match tokio::time::timeout(POST, answer).await {
                Ok(answer) => answer,
                Err(_) => return plain(StatusCode::REQUEST_TIMEOUT, "too slow\n"),
            }
        } else {
            answer.await
        };
        match answer {
            Ok(answer) => answer.map(|body| body.map_err(|never| match never {}).boxed()),
            Err(never) => match never {},
        }
    }
}

/// A small send buffer, so that a client that reads slowly is seen to read: the kernel tells of room
/// only when a third of it is free.
fn open(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.set_send_buffer_size(SEND_BUFFER)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Engine.IO as the app's server speaks it, with queues that hold what a client's buffer may.
fn engine(settings: &Settings, path: &str) -> EngineIoConfig {
    EngineIoConfig::builder()
        .req_path(path.to_owned())
        .ping_interval(PING_INTERVAL)
        .ping_timeout(PING_TIMEOUT)
        .upgrade_timeout(UPGRADE)
        .max_buffer_size(EVENTS_MAX + OTHER_PACKETS)
        // One answer to a polling client takes its whole buffer: what did not fit would be lost if
        // the client went over to websocket then (engineioxide 0.17.9 forgets a peeked packet).
        .max_payload((BYTES_MAX + settings.max_line_bytes + (1 << 20)) as u64)
        .ws_max_message_size(RECEIVED_MAX)
        .ws_max_frame_size(RECEIVED_MAX)
        .transports([TransportType::Polling, TransportType::Websocket])
        .build()
}

/// The value of a parameter, as it stands there.
fn parameter<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
}

fn plain(status: StatusCode, text: &'static str) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from_static(text.as_bytes())).boxed());
    *answer.status_mut() = status;
    answer
}

/// The answer to a browser that asks what it may ask.
fn preflight() -> Answer {
    let mut answer = plain(StatusCode::NO_CONTENT, "");
    let headers = answer.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST"));
    headers.insert(
        ACCESS_CONTROL_ALLOW_HEADERS,
        HeaderValue::from_static("content-type, authorization"),
    );
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    answer
}

/// Says that a page may read the answer; a named origin with its cookies.
fn allow(origin: HeaderValue, answer: &mut Answer) {
    let headers = answer.headers_mut();
    if origin != "*" {
        headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        headers.append(VARY, HeaderValue::from_static("Origin"));
    }
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
}
