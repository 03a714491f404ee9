//! A look at files for an answer: a file system that does not answer holds up one thread, and no
//! client for longer than a moment.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a look may take.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long what it gave holds: asking often makes nobody look often.
const HOLDS: Duration = Duration::from_secs(2);

/// See the module.
pub(super) struct Look<T> {
    at: Arc<dyn Fn() -> T + Send + Sync>,
    last: Arc<Mutex<Option<(Instant, T)>>>,
    looking: Arc<AtomicBool>,
}

/// Says, however it ends, that nobody is looking any more.
struct Looking(Arc<AtomicBool>);

impl Drop for Looking {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl<T: Clone + Send + 'static> Look<T> {
    pub(super) fn new(at: Arc<dyn Fn() -> T + Send + Sync>) -> Self {
        Self { at, last: Arc::default(), looking: Arc::default() }
    }

    /// What there is to see. None: it does not answer.
    pub(super) async fn take(&self) -> Option<T> {
        if let Some((at, seen)) = &*self.last()
            && at.elapsed() < HOLDS
        {
            return Some(seen.clone());
        }
        if self.looking.swap(true, Ordering::AcqRel) {
            return self.last().as_ref().map(|(_, seen)| seen.clone());
        }
        let looking = Looking(Arc::clone(&self.looking));
        let (at, last) = (Arc::clone(&self.at), Arc::clone(&self.last));
        let look = tokio::task::spawn_blocking(move || {
            let seen = at();
            let known = (Instant::now(), seen.clone());
            *last.lock().unwrap_or_else(PoisonError::into_inner) = Some(known);
            drop(looking);
            seen
        });
        tokio::time::timeout(PATIENCE, look).await.ok()?.ok()
    }

    fn last(&self) -> MutexGuard<'_, Option<(Instant, T)>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::sync::mpsc::channel;

    use super::*;

    fn run<T>(future: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let given = runtime.block_on(future);
        // One look may hang for ever.
        runtime.shutdown_background();
        given
    }

    #[test]
    fn asking_often_is_looking_once() {
        let count = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&count);
        let look = Look::new(Arc::new(move || counted.fetch_add(1, Ordering::SeqCst)));
        run(async {
            assert_eq!((look.take().await, look.take().await), (Some(0), Some(0)));
        });
        assert_eq!(count.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn sec_07_a_look_that_hangs_holds_nobody_up_for_long_and_nobody_else_looks() {
        let (let_go, gate) = channel::<()>();
        let (count, gate) = (Arc::new(AtomicUsize::new(0)), Mutex::new(gate));
        let counted = Arc::clone(&count);
        let look = Look::new(Arc::new(move || {
            counted.fetch_add(1, Ordering::SeqCst);
            let _ = gate.lock().unwrap().recv();
        }));
        let began = Instant::now();
        run(async {
            assert_eq!(look.take().await, None, "given up");
            assert_eq!(look.take().await, None, "at once");
        });
        assert!(began.elapsed() >= PATIENCE && began.elapsed() < 2 * PATIENCE + HOLDS);
        assert_eq!(count.load(Ordering::SeqCst), 1);
        drop(let_go);
    }
}
