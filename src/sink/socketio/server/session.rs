//! A connection's life: opened, joined the namespace with a right to, gone.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use engineioxide::handler::EngineIoHandler;
use engineioxide::socket::DisconnectReason;
use engineioxide::{Socket, Str};
use tracing::debug;

use super::clients::Clients;
use super::gate::{Gate, Refusal};
use super::packet::{self, ROOT, Received};

/// How long a session may take to become a client.
const JOIN: Duration = Duration::from_secs(10);

/// What is kept with a connection.
#[derive(Debug, Default)]
pub(super) struct Session {
    /// It is being decided upon.
    joining: AtomicBool,
    joined: AtomicBool,
    refusals: AtomicUsize,
}

impl Session {
    fn is_client(&self) -> bool {
        self.joined.load(Ordering::Acquire)
    }
}

/// How often a session may be told no. More than this could fill its queue, which holds events too.
const REFUSALS_MAX: usize = 8;

/// A namespace is repeated in its refusal; nobody's is longer.
const NAMESPACE_BYTES_MAX: usize = 128;

/// What happens on connections.
pub(super) struct Sessions {
    clients: Arc<Clients>,
    gate: Arc<Gate>,
    open: AtomicUsize,
    /// Sessions that may be no clients yet, as they were opened.
    strangers: Mutex<VecDeque<Weak<Socket<Session>>>>,
}

impl Sessions {
    pub(super) fn new(clients: Arc<Clients>, gate: Gate) -> Self {
        let (open, strangers) = (AtomicUsize::new(0), Mutex::default());
        Self { clients, gate: Arc::new(gate), open, strangers }
    }

    pub(super) fn gate(&self) -> Arc<Gate> {
        Arc::clone(&self.gate)
    }

    pub(super) fn clients(&self) -> Arc<Clients> {
        Arc::clone(&self.clients)
    }

    /// How many sessions there are, clients or not yet.
    pub(super) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Ends the oldest session that is no client, if there is one: anyone can open sessions, and a
    /// client needs its own only for a moment before it is one.
    pub(super) fn make_room(&self) -> bool {
        let mut strangers = self.strangers();
        let stranger = std::iter::from_fn(|| strangers.pop_front())
            .find_map(|session| session.upgrade().filter(|socket| !socket.data.is_client()));
        drop(strangers);
        stranger.map(|socket| socket.close(DisconnectReason::TransportClose)).is_some()
    }

    fn strangers(&self) -> MutexGuard<'_, VecDeque<Weak<Socket<Session>>>> {
        self.strangers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn join(&self, auth: &str, socket: Arc<Socket<Session>>) {
        // One question at a time: an answer admits or not, and the next one may follow then.
        if socket.data.joining.swap(true, Ordering::AcqRel) {
            return;
        }
        let (gate, clients, auth) = (self.gate(), Arc::clone(&self.clients), auth.to_owned());
        tokio::spawn(async move {
            let answer = gate.client(&auth, &socket.req_parts.headers).await;
            match answer.and_then(|()| clients.admit(&socket)) {
                Ok(()) => {
                    socket.data.joined.store(true, Ordering::Release);
                    debug!(session = %socket.id, transport = ?socket.transport_type(), "a client joined");
                }
                Err(Refusal::ForNow(why)) => {
                    debug!(session = %socket.id, why, "a client was sent away for now");
                    socket.close(DisconnectReason::TransportClose);
                }
                Err(Refusal::Final(why)) => {
                    debug!(session = %socket.id, why, "a client was refused");
                    refuse(&socket, ROOT, why);
                    socket.data.joining.store(false, Ordering::Release);
                }
            }
        });
    }
}

/// Says no, but not without end: what is not read stays in memory.
fn refuse(socket: &Socket<Session>, namespace: &str, why: &str) {
    let refusals = socket.data.refusals.fetch_add(1, Ordering::AcqRel);
    if refusals < REFUSALS_MAX && namespace.len() <= NAMESPACE_BYTES_MAX {
        let _ = socket.emit(packet::refused(namespace, why));
    } else {
        socket.close(DisconnectReason::PacketParsingError);
    }
}

impl EngineIoHandler for Sessions {
    type Data = Session;

    fn on_connect(self: Arc<Self>, socket: Arc<Socket<Session>>) {
        self.open.fetch_add(1, Ordering::Relaxed);
        let mut strangers = self.strangers();
        while strangers
            .front()
            .is_some_and(|oldest| oldest.upgrade().is_none_or(|socket| socket.data.is_client()))
        {
            strangers.pop_front();
        }
        strangers.push_back(Arc::downgrade(&socket));
        drop(strangers);
        tokio::spawn(async move {
            tokio::time::sleep(JOIN).await;
            if !socket.data.is_client() {
                socket.close(DisconnectReason::TransportClose);
            }
        });
    }

    fn on_disconnect(&self, socket: Arc<Socket<Session>>, reason: DisconnectReason) {
        self.open.fetch_sub(1, Ordering::Relaxed);
        self.clients.remove(&socket);
        debug!(session = %socket.id, ?reason, "a session ended");
    }

    fn on_message(self: &Arc<Self>, message: Str, socket: Arc<Socket<Session>>) {
        match packet::parse(&message) {
            Received::Connect { namespace: ROOT, auth } => self.join(auth, socket),
            Received::Connect { namespace, .. } => refuse(&socket, namespace, "Invalid namespace"),
            Received::Disconnect { namespace: ROOT } => {
                socket.close(DisconnectReason::TransportClose);
            }
            Received::Disconnect { .. } | Received::Other => {}
            Received::Malformed => socket.close(DisconnectReason::PacketParsingError),
        }
    }

    fn on_binary(self: &Arc<Self>, _: Bytes, _: Arc<Socket<Session>>) {}
}

impl std::fmt::Debug for Sessions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sessions").field("open", &self.open).finish_non_exhaustive()
    }
}
