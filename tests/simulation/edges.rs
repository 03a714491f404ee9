//! The daemon's doors to the world, opened onto the model: files, clock, sink, committer.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use openalgo_bridge::checkpoint::writer::{RejectedLine, Requeued, Work};
use openalgo_bridge::checkpoint::{Checkpoint, Committer};
use openalgo_bridge::domain::acks::RecordId;
use openalgo_bridge::domain::delivery::Outcome;
use openalgo_bridge::platform::clock::Clock;
use openalgo_bridge::platform::fs::{FileFacts, Fs, InputFile, StateFile};
use openalgo_bridge::sink::{Health, Message, Secrets, Sink, State};

use crate::disk::{Call, Disk, INPUT_DIRECTORY, STATE};
use crate::model::Model;

/// The model, as all doors share it. Only one thread ever uses it.
#[derive(Clone)]
pub(crate) struct Shared(Arc<Mutex<Model>>);

impl Shared {
    pub(crate) fn new(model: Model) -> Self {
        Self(Arc::new(Mutex::new(model)))
    }

    pub(crate) fn model(&self) -> MutexGuard<'_, Model> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Where monotonic time begins. Only differences are ever seen.
static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

pub(crate) fn instant(since_start: Duration) -> Instant {
    *ORIGIN + since_start
}

impl Clock for Shared {
    fn now(&self) -> Instant {
        instant(self.model().now)
    }

    fn unix_ms(&self) -> i64 {
        self.model().unix_ms()
    }
}

// --- files --------------------------------------------------------------------------------------

struct OpenInput {
    shared: Shared,
    uid: u64,
    handle: u64,
}

struct OpenState {
    shared: Shared,
    uid: u64,
    /// Whether this one holds the lock.
    locked: std::sync::atomic::AtomicBool,
}

impl Shared {
    fn state_file(&self, uid: u64) -> Box<dyn StateFile> {
        Box::new(OpenState { shared: self.clone(), uid, locked: false.into() })
    }
}

/// A call on the disk; where it fails, files may overtake each other.
fn excusing<T>(model: &mut Model, call: impl Fn(&mut Disk) -> io::Result<T>) -> io::Result<T> {
    let called = call(&mut model.disk);
    let failed = called.as_ref().is_err_and(|error| error.kind() != io::ErrorKind::NotFound);
    model.order_excused |= failed;
    model.is_blind |= failed;
    called
}

impl Fs for Shared {
    fn stat(&self, path: &Path) -> io::Result<FileFacts> {
        let mut model = self.model();
        let uid = excusing(&mut model, |disk| disk.look(path))?;
        model.on_stat(path, uid);
        Ok(model.disk.facts(uid))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn InputFile>> {
        let mut model = self.model();
        let uid = excusing(&mut model, |disk| disk.open_input(path))?;
        let handle = model.on_opened(uid);
        if path.starts_with(STATE) {
            model.on_kept_opened(uid);
        }
        drop(model);
        Ok(Arc::new(OpenInput { shared: self.clone(), uid, handle }))
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>> {
        let mut model = self.model();
        let listed = excusing(&mut model, |disk| disk.list(directory))?;
        model.is_blind &= directory != Path::new(INPUT_DIRECTORY);
        Ok(listed)
    }

    fn read(&self, path: &Path, _limit: u64) -> io::Result<Vec<u8>> {
        let disk = &mut self.model().disk;
        let uid = disk.look(path)?;
        Ok(disk.node(uid).data.clone())
    }

    fn create_new(&self, path: &Path) -> io::Result<Box<dyn StateFile>> {
        let mut model = self.model();
        let now_ns = model.now_ns();
        let uid = model.disk.open_state(path, true, now_ns)?;
        drop(model);
        Ok(self.state_file(uid))
    }

    fn open_state(&self, path: &Path) -> io::Result<Box<dyn StateFile>> {
        let mut model = self.model();
        let now_ns = model.now_ns();
        let uid = model.disk.open_state(path, false, now_ns)?;
        drop(model);
        Ok(self.state_file(uid))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let disk = &mut self.model().disk;
        disk.state_call(Call::Rename)?;
        disk.rename(from, to)
    }

    fn hard_link(&self, original: &Path, link: &Path) -> io::Result<()> {
        let disk = &mut self.model().disk;
        disk.state_call(Call::Link)?;
        disk.link(original, link)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let disk = &mut self.model().disk;
        disk.state_call(Call::Remove)?;
        disk.remove(path)
    }

    fn create_directory(&self, path: &Path) -> io::Result<()> {
        let mut model = self.model();
        let now_ns = model.now_ns();
        model.disk.create_directory(path, now_ns)
    }

    fn sync_directory(&self, _path: &Path) -> io::Result<()> {
        let disk = &mut self.model().disk;
        disk.state_call(Call::SyncDirectory)?;
        disk.sync_directory();
        Ok(())
    }
}

impl InputFile for OpenInput {
    fn facts(&self) -> io::Result<FileFacts> {
        let mut model = self.shared.model();
        if let Err(error) = model.disk.input_call(0) {
            model.order_excused = true;
            return Err(error);
        }
        model.on_facts(self.handle)
    }

    fn read_at(&self, first: &mut [u8], second: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut model = self.shared.model();
        if let Err(error) = model.disk.input_call(2) {
            model.order_excused = true;
            return Err(error);
        }
        let data = &model.disk.node(self.uid).data;
        let there = data.get(offset as usize..).unwrap_or_default();
        let whole = there.len().min(first.len() + second.len());
        let count = match model.disk.short_reads.pop_front() {
            // A short read gives something: nothing at all is the end of the file.
            Some(most) if whole > 0 => whole.min(most.max(1) as usize),
            _ => whole,
        };
        let data = &model.disk.node(self.uid).data;
        let bytes = &data.get(offset as usize..).unwrap_or_default()[..count];
        let split = count.min(first.len());
        first[..split].copy_from_slice(&bytes[..split]);
        second[..count - split].copy_from_slice(&bytes[split..]);
        model.counters.short_reads += u64::from(count < whole);
        model.on_read(self.handle, first.len(), offset, count, !second.is_empty());
        Ok(count)
    }
}

impl Drop for OpenInput {
    fn drop(&mut self) {
        let mut model = self.shared.model();
        model.on_closed(self.handle);
        model.disk.closed(self.uid, false);
    }
}

impl StateFile for OpenState {
    fn size(&self) -> io::Result<u64> {
        Ok(self.shared.model().disk.node(self.uid).data.len() as u64)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.shared.model().disk.write(self.uid, bytes, offset)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let model = self.shared.model();
        let there = model.disk.node(self.uid).data.get(offset as usize..).unwrap_or_default();
        let count = there.len().min(buffer.len());
        buffer[..count].copy_from_slice(&there[..count]);
        Ok(count)
    }

    fn set_size(&self, size: u64) -> io::Result<()> {
        self.shared.model().disk.set_size(self.uid, size)
    }

    fn sync(&self) -> io::Result<()> {
        self.shared.model().disk.sync(self.uid)
    }

    fn try_lock(&self) -> io::Result<()> {
        self.shared.model().disk.lock(self.uid)?;
        self.locked.store(true, std::sync::atomic::Ordering::Relaxed);
        Ok(())
    }

    fn facts(&self) -> io::Result<FileFacts> {
        Ok(self.shared.model().disk.facts(self.uid))
    }
}

impl Drop for OpenState {
    fn drop(&mut self) {
        let locked = self.locked.load(std::sync::atomic::Ordering::Relaxed);
        self.shared.model().disk.closed(self.uid, locked);
    }
}

// --- sink and committer -------------------------------------------------------------------------

pub(crate) struct SimSink(pub(crate) Shared);

impl Sink for SimSink {
    fn publish(&mut self, id: RecordId, message: Message) {
        self.0.model().on_published(id, &message);
    }

    fn caught_up(&mut self) {}

    fn settle(&mut self, outcomes: &mut Vec<(RecordId, Outcome)>) {
        self.0.model().on_settle(outcomes);
    }

    fn deadline(&self) -> Option<Instant> {
        None
    }

    fn renew(&mut self, _: &Secrets) {}

    fn health(&self) -> Health {
        let model = self.0.model();
        Health {
            state: if model.broker.up { State::Up } else { State::Down },
            reason: None,
            since_ms: None,
            in_flight: model.broker.queue.len() + model.broker.flight.len(),
            retries: 0,
            listening: None,
            clients: None,
            delivered_to_nobody: 0,
            clients_given_up: 0,
        }
    }
}

/// What waits for the state writer, which here works when the script says so.
#[derive(Clone)]
pub(crate) struct Tray {
    pub(crate) work: Arc<Mutex<Work>>,
    pub(crate) shared: Shared,
}

impl Tray {
    fn work(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub(crate) fn take(&self) -> Work {
        std::mem::take(&mut *self.work())
    }
}

impl Committer for Tray {
    fn commit(&mut self, checkpoint: Checkpoint) {
        self.shared.model().on_checkpoint(&checkpoint, true);
        self.work().commit(checkpoint);
    }

    fn note(&mut self, checkpoint: Checkpoint) {
        self.shared.model().on_checkpoint(&checkpoint, false);
        self.work().note(checkpoint);
    }

    fn reject(&mut self, line: RejectedLine) {
        self.shared.model().on_reject(&line);
        self.work().reject(line);
    }

    fn requeued(&mut self, requeued: Requeued) {
        self.work().requeued(requeued);
    }
}
