//! Tasks that everybody depends on, among those of connections: a panic in one of them is not a lost connection.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::pin;

thread_local! {
    static RUNNING: Cell<bool> = const { Cell::new(false) };
}

/// Does work without which the daemon would live on by halves, such as taking connections. The runtime keeps a
/// panic to the task that it happens in; the process' hook, which is called before that, asks [`is_running`].
pub async fn vital<T>(work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    poll_fn(|context| {
        RUNNING.set(true);
        let polled = work.as_mut().poll(context);
        // Not reached by a panic: then the hook has ended the process.
        RUNNING.set(false);
        polled
    })
    .await
}

/// Whether this thread is in the middle of such work.
pub fn is_running() -> bool {
    RUNNING.get()
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll, Waker};

    use super::*;

    #[test]
    fn a_thread_does_vital_work_only_while_it_is_at_it() {
        let mut turns = 0;
        let mut work = pin!(vital(poll_fn(|_| {
            assert!(is_running());
            turns += 1;
            if turns == 2 { Poll::Ready(()) } else { Poll::Pending }
        })));
        let mut context = Context::from_waker(Waker::noop());
        for polled in [Poll::Pending, Poll::Ready(())] {
            assert!(!is_running(), "in a pause the thread does something else");
            assert_eq!(work.as_mut().poll(&mut context), polled);
        }
        assert!(!is_running());
    }
}
