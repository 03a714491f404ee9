//! Who is connected, and what is in the buffer of each.
//!
//! An event goes into the buffer of every client or of none: when one is full, the pipeline waits,
//! and the file is the buffer.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use engineioxide::socket::Sid;
use engineioxide::{Socket, TransportType};

use super::buffer::{Bell, Buffer, Parcel};
use super::packet;
use super::session::Session;
use crate::platform::clock::Clock;

/// Why a client is not let in.
pub(super) const TOO_MANY: &str = "too many clients";

/// Everyone who gets events.
pub(super) struct Clients {
    admitted: Mutex<Vec<Arc<Client>>>,
    max: usize,
    /// How long a full buffer may stay as it is.
    patience: Duration,
    clock: Arc<dyn Clock>,
    bell: Arc<Bell>,
}

/// How many events one answer to a polling client may have. Standard clients refuse more than 16
/// packets (python-engineio's `max_decode_packets`), and a ping and an answer may go along.
const EVENTS_PER_ANSWER: usize = 14;

/// How often it is looked whether a client is through with going over to websocket, which Engine.IO
/// does not tell.
const LOOK_AT_UPGRADE: Duration = Duration::from_millis(20);

struct Client {
    socket: Arc<Socket<Session>>,
    buffer: Arc<Buffer>,
    way_out: Mutex<WayOut>,
}

/// From a client's buffer into Engine.IO's queue: at once over websocket, in portions for polling.
#[derive(Default)]
struct WayOut {
    waiting: VecDeque<Parcel>,
    /// How many may go before the client asks again.
    allowed: usize,
}

/// What became of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// It is in the buffers of this many clients.
    To(usize),
    /// A buffer is full. Unless its client takes something, it is given up at this moment.
    Full(Instant),
}

impl Clients {
    pub(super) fn new(
        max: usize,
        patience: Duration,
        clock: Arc<dyn Clock>,
        bell: Arc<Bell>,
    ) -> Self {
        Self { admitted: Mutex::default(), max, patience, clock, bell }
    }

    /// Lets a client in: it gets every event from here on.
    ///
    /// # Errors
    /// Why not, to be told to the client.
    pub(super) fn admit(&self, socket: &Arc<Socket<Session>>) -> Result<(), &'static str> {
        let mut admitted = self.lock();
        if admitted.iter().any(|client| client.socket.id == socket.id) {
            return Ok(());
        }
        if admitted.len() >= self.max {
            return Err(TOO_MANY);
        }
        // Under the lock: no event comes before the answer, and none after it is missed.
        if socket.emit(packet::connected(&socket.id.to_string())).is_ok() {
            let buffer = Arc::new(Buffer::new(Arc::clone(&self.clock), Arc::clone(&self.bell)));
            let (socket, way_out) = (Arc::clone(socket), Mutex::default());
            admitted.push(Arc::new(Client { socket, buffer, way_out }));
        }
        drop(admitted);
        self.bell.ring();
        Ok(())
    }

    /// Forgets a client that is gone.
    pub(super) fn remove(&self, socket: &Socket<Session>) {
        self.lock().retain(|client| client.socket.id != socket.id);
        // It may have been the one that everybody waited for.
        self.bell.ring();
    }

    /// A client asks for what there is.
    pub(super) fn polled(&self, id: Sid) {
        if let Some(client) = self.find(id) {
            client.polled();
        }
    }

    /// A client goes over to websocket: what waits for it to ask goes out when it has.
    pub(super) async fn upgrading(self: Arc<Self>, id: Sid, at_most: Duration) {
        let Some(client) = self.find(id) else { return };
        let until = Instant::now() + at_most;
        while Instant::now() < until && !client.socket.is_closed() {
            tokio::time::sleep(LOOK_AT_UPGRADE).await;
            if client.socket.transport_type() == TransportType::Websocket {
                client.let_out(&mut client.way_out());
                return;
            }
        }
    }

    fn find(&self, id: Sid) -> Option<Arc<Client>> {
        self.lock().iter().find(|client| client.socket.id == id).cloned()
    }

    pub(super) fn count(&self) -> usize {
        self.lock().len()
    }

    /// Puts an event into every buffer, or into none.
    pub(super) fn broadcast(&self, name: &[u8], argument: &[u8]) -> Sent {
        let admitted = self.lock();
        let length = name.len() + argument.len();
        self.bell.for_room.store(true, Ordering::SeqCst);
        let full = admitted.iter().filter(|client| !client.buffer.has_room(length));
        if let Some(first) = full.map(|client| client.buffer.moved()).min() {
            return Sent::Full(first + self.patience);
        }
        self.bell.for_room.store(false, Ordering::SeqCst);
        if admitted.is_empty() {
            return Sent::To(0);
        }
        let text = Bytes::from(packet::event(name, argument));
        for client in admitted.iter() {
            client.push(text.clone());
        }
        Sent::To(admitted.len())
    }

    /// Takes out those that had no room for `length` bytes for too long and took nothing meanwhile.
    pub(super) fn take_stalled(&self, length: usize) -> Vec<Arc<Socket<Session>>> {
        let now = self.clock.now();
        let stalled = |client: &mut Arc<Client>| {
            !client.buffer.has_room(length) && now >= client.buffer.moved() + self.patience
        };
        self.lock().extract_if(.., stalled).map(|client| Arc::clone(&client.socket)).collect()
    }

    /// Whether everything is written out; if not, the bell rings when a buffer gets empty.
    pub(super) fn is_drained(&self) -> bool {
        self.bell.for_empty.store(true, Ordering::SeqCst);
        self.lock().iter().all(|client| client.buffer.is_empty())
    }

    /// Everyone, who is forgotten by this.
    pub(super) fn take_all(&self) -> Vec<Arc<Socket<Session>>> {
        std::mem::take(&mut *self.lock())
            .into_iter()
            .map(|client| Arc::clone(&client.socket))
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Client>>> {
        // The list is whole whenever its lock is free.
        self.admitted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Client {
    fn push(&self, text: Bytes) {
        let mut way_out = self.way_out();
        way_out.waiting.push_back(self.buffer.take(text));
        self.let_out(&mut way_out);
    }

    /// The client asks for the next portion.
    fn polled(&self) {
        let mut way_out = self.way_out();
        let queued = self.buffer.events().saturating_sub(way_out.waiting.len());
        way_out.allowed = EVENTS_PER_ANSWER.saturating_sub(queued);
        self.let_out(&mut way_out);
    }

    fn let_out(&self, way_out: &mut WayOut) {
        if self.socket.transport_type() == TransportType::Websocket {
            way_out.allowed = usize::MAX;
        }
        while way_out.allowed > 0
            && let Some(parcel) = way_out.waiting.pop_front()
        {
            way_out.allowed -= 1;
            // One that can't take it is closing, and will be removed; its parcels leave when dropped.
            let _ = self.socket.emit(parcel.packet());
        }
    }

    fn way_out(&self) -> MutexGuard<'_, WayOut> {
        self.way_out.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
