//! Who is connected, and what is in the buffer of each.
//!
//! An event goes into the buffer of every client or of none: when one is full, the pipeline waits,
//! and the file is the buffer.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use engineioxide::socket::Sid;
use engineioxide::{Socket, TransportType};

use super::buffer::{Bell, Buffer, Parcel};
use super::gate::Refusal;
use super::packet;
use super::session::Session;
use super::stream::Switch;
use crate::platform::clock::Clock;
use crate::platform::vital::vital;

/// Why a client is not let in.
const TOO_MANY: Refusal = Refusal::ForNow("too many clients");

/// Everyone who gets events.
pub(super) struct Clients {
    admitted: Mutex<Vec<Arc<Client>>>,
    max: usize,
    /// How long a full buffer may stay as it is.
    patience: Duration,
    clock: Arc<dyn Clock>,
    bell: Arc<Bell>,
    /// Sessions that go over to websocket, until when, and on which connection.
    upgrades: Mutex<HashMap<Sid, (Instant, Switch)>>,
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
    /// Of its websocket. Those of polling it may share with others behind a proxy.
    switch: Mutex<Option<Switch>>,
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
        let (admitted, upgrades) = (Mutex::default(), Mutex::default());
        Self { admitted, max, patience, clock, bell, upgrades }
    }

    /// Lets a client in: it gets every event from here on.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn admit(&self, socket: &Arc<Socket<Session>>) -> Result<(), Refusal> {
        let mut admitted = self.lock();
        if admitted.iter().any(|client| client.socket.id == socket.id) {
            return Ok(());
        }
        if admitted.len() >= self.max {
            return Err(TOO_MANY);
        }
        // Not the id of the session, which is a secret of its holder's: whoever knows it may speak for it.
        let public = Sid::new().to_string();
        // Under the lock: no event comes before the answer, and none after it is missed.
        if socket.emit(packet::connected(&public)).is_ok() {
            let buffer = Arc::new(Buffer::new(Arc::clone(&self.clock), Arc::clone(&self.bell)));
            let switch = Mutex::new(socket.req_parts.extensions.get().cloned());
            let (socket, way_out) = (Arc::clone(socket), Mutex::default());
            admitted.push(Arc::new(Client { socket, buffer, way_out, switch }));
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

    /// A session goes over to websocket on this connection: what waits for it to ask goes out when
    /// it has. It may still join meanwhile.
    pub(super) fn upgrading(self: &Arc<Self>, id: Sid, at_most: Duration, switch: Switch) {
        let mut upgrades = self.upgrades();
        let nobody_looks = upgrades.is_empty();
        // A session has one; more requests for it are refused by Engine.IO.
        upgrades.entry(id).or_insert((Instant::now() + at_most, switch));
        if nobody_looks {
            tokio::spawn(vital(Arc::clone(self).look_at_upgrades()));
        }
    }

    /// Runs as long as there is something to look at.
    async fn look_at_upgrades(self: Arc<Self>) {
        loop {
            tokio::time::sleep(LOOK_AT_UPGRADE).await;
            let mut upgrades = self.upgrades();
            upgrades.retain(|id, (until, switch)| {
                let client = self.find(*id).filter(|client| client.is_on_websocket());
                if let Some(client) = &client {
                    client.switch().get_or_insert_with(|| switch.clone());
                    client.let_out(&mut client.way_out());
                }
                client.is_none() && Instant::now() < *until
            });
            if upgrades.is_empty() {
                return;
            }
        }
    }

    fn upgrades(&self) -> MutexGuard<'_, HashMap<Sid, (Instant, Switch)>> {
        self.upgrades.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// Takes out those that had no room for `length` bytes for too long and took nothing meanwhile,
    /// and ends their websockets.
    pub(super) fn take_stalled(&self, length: usize) -> Vec<Arc<Socket<Session>>> {
        let now = self.clock.now();
        let stalled = |client: &mut Arc<Client>| {
            !client.buffer.has_room(length) && now >= client.buffer.moved() + self.patience
        };
        let taken: Vec<_> = self.lock().extract_if(.., stalled).collect();
        for client in &taken {
            if let Some(switch) = client.switch().take() {
                switch.turn_off();
            }
        }
        taken.iter().map(|client| Arc::clone(&client.socket)).collect()
    }

    /// When the next one is given up that has anything in its buffer.
    pub(super) fn next_stall(&self) -> Option<Instant> {
        let admitted = self.lock();
        let waiting = admitted.iter().filter(|client| !client.buffer.is_empty());
        waiting.map(|client| client.buffer.moved() + self.patience).min()
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
        if self.is_on_websocket() {
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

    fn is_on_websocket(&self) -> bool {
        self.socket.transport_type() == TransportType::Websocket
    }

    fn switch(&self) -> MutexGuard<'_, Option<Switch>> {
        self.switch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn way_out(&self) -> MutexGuard<'_, WayOut> {
        self.way_out.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
