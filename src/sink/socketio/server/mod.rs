//! The server sink: every client on `/` gets each event, with the text of its line.
//!
//! An event is delivered when it is in the send buffer of every client, and goes into all of them
//! or into none: when one is full, the sink waits, the pipeline stops reading, and the file is the
//! buffer. So a catch-up goes at the pace of the slowest client that keeps reading; one that does
//! not is given up. With no client an event goes to nobody, and is counted.
//!
//! It stands on engineioxide, the Engine.IO layer of socketioxide: an event's text is passed on as
//! it is and shared by all clients, and what is in a buffer can be counted.

mod buffer;
mod clients;
mod gate;
mod idle;
mod inspect;
mod listener;
mod packet;
mod page;
mod seldom;
mod session;
mod stream;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use engineioxide::Socket;
use engineioxide::socket::DisconnectReason;
use tokio::runtime::Runtime;
use tracing::{info, warn};

pub use self::gate::Origins;
pub use self::inspect::inspect;

use self::buffer::Bell;
use self::clients::{Clients, Sent};
use self::gate::Gate;
use self::listener::{Listener, Port};
use self::seldom::Seldom;
use self::session::{Session, Sessions};
use crate::domain::acks::RecordId;
use crate::domain::delivery::Outcome;
use crate::platform::clock::Clock;
use crate::platform::vital::vital;
use crate::sink::socketio::THREADS;
use crate::sink::{Health, Message, Secrets, Sink, State};

/// How long the connections may take for their farewell.
const FAREWELL: Duration = Duration::from_secs(2);

/// What the server needs to be told.
#[derive(Clone)]
pub struct Settings {
    /// Where it listens.
    pub listen: SocketAddr,
    /// The path that clients connect to.
    pub path: String,
    /// Pages that may connect.
    pub origins: Origins,
    /// What clients may show to be let in.
    pub auth_token: Option<String>,
    /// Who is asked about a client's cookies.
    pub auth_url: Option<String>,
    /// How long that may take.
    pub auth_timeout: Duration,
    /// How long the answer holds.
    pub auth_cache: Duration,
    /// How many clients there may be.
    pub max_clients: usize,
    /// How long a client may leave its full buffer as it is.
    pub client_timeout: Duration,
    /// How long events wait after a start for a first client.
    pub start_grace: Duration,
    /// How old an event may be when catching up.
    pub max_event_age: Option<Duration>,
    /// Whether the live page is served.
    pub live_page: bool,
    /// The longest line in bytes.
    pub max_line_bytes: usize,
}

/// See the module.
pub struct ServerSink {
    settings: Settings,
    clock: Arc<dyn Clock>,
    clients: Arc<Clients>,
    listener: Arc<Listener>,
    gate: Arc<Gate>,
    /// None once it was shut down.
    runtime: Option<Runtime>,
    /// Events that no buffer has, in file order.
    queue: VecDeque<(RecordId, Message)>,
    settled: Vec<(RecordId, Outcome)>,
    /// Until when events wait for a first client; none before the port is open.
    grace: Option<Instant>,
    /// A first client came, or the grace is over.
    begun: bool,
    /// Since when it is in trouble, and with what: milliseconds since 1970.
    trouble: Option<(State, String, i64)>,
    /// When the client that holds everyone up is given up.
    full_until: Option<Instant>,
    draining: bool,
    /// The port was busy, and what came meanwhile may still be coming.
    catching_up: bool,
    delivered_to_nobody: u64,
    given_up: u64,
    given_up_told: Seldom,
}

impl ServerSink {
    /// Starts the server; the port is opened behind it. `ring` is called when something changed.
    ///
    /// # Errors
    /// Why it can't be started.
    pub fn new(
        settings: Settings,
        clock: Arc<dyn Clock>,
        ring: Box<dyn Fn() + Send + Sync>,
    ) -> Result<Self, String> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(std::thread::available_parallelism().map_or(1, usize::from).min(4))
            .thread_name(THREADS)
            .enable_io()
            .enable_time()
            .build()
            .map_err(|error| format!("cannot start threads: {error}"))?;
        let bell = Arc::new(Bell::new(ring));
        let clients = Arc::new(Clients::new(
            settings.max_clients,
            settings.client_timeout,
            Arc::clone(&clock),
            Arc::clone(&bell),
        ));
        let gate = Gate::new(&settings)?;
        let sessions = Arc::new(Sessions::new(Arc::clone(&clients), gate));
        let gate = sessions.gate();
        let listener = Arc::new(Listener::new(&settings, sessions, bell));
        runtime.spawn(vital(Arc::clone(&listener).run()));
        Ok(Self {
            settings,
            clock,
            clients,
            listener,
            gate,
            runtime: Some(runtime),
            queue: VecDeque::new(),
            settled: Vec::new(),
            grace: None,
            begun: false,
            trouble: None,
            full_until: None,
            draining: false,
            catching_up: false,
            delivered_to_nobody: 0,
            given_up: 0,
            given_up_told: Seldom::default(),
        })
    }

    /// Puts events into the buffers as long as they fit into all of them.
    fn pump(&mut self) {
        self.full_until = None;
        if self.grace.is_none() {
            self.look_at_port();
        }
        while let Some((record, message)) = self.queue.pop_front() {
            let Some(outcome) = self.try_to_send(&message) else {
                self.queue.push_front((record, message));
                return;
            };
            self.settled.push((record, outcome));
        }
        if matches!(self.trouble, Some((State::Degraded, ..))) {
            self.trouble = None;
        }
    }

    /// None: not now.
    fn try_to_send(&mut self, message: &Message) -> Option<Outcome> {
        if self.is_too_old(message) {
            return Some(Outcome::LeftOut);
        }
        if !self.may_begin() {
            return None;
        }
        let (name, data) = (message.event_type(), message.data());
        loop {
            match self.clients.broadcast(name, data) {
                Sent::To(clients) => {
                    self.delivered_to_nobody += u64::from(clients == 0);
                    return Some(Outcome::Delivered);
                }
                Sent::Full(until) if self.clock.now() < until => {
                    self.full_until = Some(until);
                    let why = "a client's buffer is full: it reads too slowly, or not at all";
                    self.set_trouble(State::Degraded, why);
                    return None;
                }
                Sent::Full(_) => self.give_up(name.len() + data.len()),
            }
        }
    }

    fn is_too_old(&self, message: &Message) -> bool {
        let max_age = self.settings.max_event_age.filter(|_| message.backlog);
        max_age.is_some_and(|age| message.is_older_than(age, self.clock.unix_ms()))
    }

    /// After a start, events wait for a first client, but not for ever; without a port, they wait.
    fn may_begin(&mut self) -> bool {
        let Some(grace) = self.grace else { return false };
        if !self.begun && (self.clients.count() > 0 || self.clock.now() >= grace) {
            self.begun = true;
        }
        self.begun
    }

    /// The grace begins when the port opens; from then on it is open.
    fn look_at_port(&mut self) {
        match self.listener.port() {
            Port::Closed(why) => {
                self.catching_up = true;
                self.set_trouble(State::Down, &why);
            }
            Port::Open(_) => {
                self.grace = Some(self.clock.now() + self.settings.start_grace);
                self.trouble = None;
            }
            Port::Opening => {}
        }
    }

    fn set_trouble(&mut self, state: State, why: &str) {
        if self.trouble.as_ref().is_none_or(|(was, because, _)| *was != state || because != why) {
            self.trouble = Some((state, why.to_owned(), self.clock.unix_ms()));
        }
    }

    /// Disconnects those that had no room for `length` bytes for too long.
    fn give_up(&mut self, length: usize) {
        let stalled = self.clients.take_stalled(length);
        self.given_up += stalled.len() as u64;
        if !stalled.is_empty() && self.given_up_told.is_due(self.clock.now()) {
            warn!(
                clients = self.given_up,
                timeout_ms = self.settings.client_timeout.as_millis() as u64,
                "disconnected: a client left its full buffer unread for too long"
            );
        }
        self.close(stalled, &DisconnectReason::TransportError);
    }

    fn close(&self, sockets: Vec<Arc<Socket<Session>>>, reason: &DisconnectReason) {
        let Some(runtime) = &self.runtime else { return };
        // Closing starts tasks.
        let _inside = runtime.enter();
        for socket in sockets {
            socket.close(reason.clone());
        }
    }
}

impl Sink for ServerSink {
    fn publish(&mut self, id: RecordId, mut message: Message) {
        message.backlog |= self.catching_up;
        self.queue.push_back((id, message));
        // With events waiting already, it is not this one's turn.
        if self.queue.len() == 1 {
            self.pump();
        }
    }

    /// Nothing lingers here.
    fn caught_up(&mut self) {
        self.catching_up &= self.grace.is_none();
    }

    /// Before anyone was there, events don't go to nobody only because the daemon stops.
    fn stop(&mut self) -> bool {
        self.begun
    }

    fn settle(&mut self, outcomes: &mut Vec<(RecordId, Outcome)>) {
        self.pump();
        outcomes.append(&mut self.settled);
    }

    fn deadline(&self) -> Option<Instant> {
        if !self.settled.is_empty() {
            // What was published in this turn is settled already.
            return Some(self.clock.now());
        }
        let grace = self.grace.filter(|_| !self.begun && !self.queue.is_empty());
        let stall = if self.draining { self.clients.next_stall() } else { None };
        [self.full_until, grace, stall].into_iter().flatten().min()
    }

    fn drain(&mut self) -> bool {
        self.draining = true;
        self.give_up(usize::MAX);
        self.clients.is_drained()
    }

    fn renew(&mut self, secrets: &Secrets) {
        self.gate.renew(secrets.auth_token.as_deref());
    }

    fn health(&self) -> Health {
        let trouble = self.trouble.as_ref();
        Health {
            state: trouble.map_or(State::Up, |(state, ..)| *state),
            reason: trouble.map(|(_, reason, _)| reason.clone()),
            since_ms: trouble.map(|(.., since_ms)| *since_ms),
            in_flight: self.queue.len(),
            retries: 0,
            listening: match self.listener.port() {
                Port::Open(address) => Some(address),
                Port::Opening | Port::Closed(_) => None,
            },
            clients: Some(self.clients.count()),
            delivered_to_nobody: self.delivered_to_nobody,
            clients_given_up: self.given_up,
        }
    }
}

impl Drop for ServerSink {
    fn drop(&mut self) {
        let everyone = self.clients.take_all();
        if !everyone.is_empty() {
            info!(clients = everyone.len(), "closing the connections of Socket.IO clients");
        }
        self.close(everyone.clone(), &DisconnectReason::ClosingServer);
        if let Some(runtime) = self.runtime.take() {
            runtime.block_on(async {
                let closed = async {
                    for socket in everyone {
                        socket.closed().await;
                    }
                    self.listener.close().await;
                };
                // Who has not heard it by then notices that the connection is gone.
                let _ = tokio::time::timeout(FAREWELL, closed).await;
            });
            runtime.shutdown_background();
        }
    }
}
