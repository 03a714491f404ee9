//! A connection that can be ended from outside, and does not wait for ever for the other side.
//!
//! Engine.IO's writer waits in the middle of a packet for as long as the peer's window is closed,
//! can't be told to stop, and goes on with the next packet after an error. So an error has to end
//! the connection as a whole, reading too, or a client would stay with a gap in what it got.

use std::future::Future as _;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;

/// Ends a connection. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Switch {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    off: AtomicBool,
    waiting: Mutex<Waiting>,
}

/// Who has to hear of it.
#[derive(Default)]
struct Waiting {
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Switch {
    pub(super) fn turn_off(&self) {
        self.shared.off.store(true, Ordering::SeqCst);
        let waiting = self.wait(std::mem::take);
        [waiting.reader, waiting.writer].into_iter().flatten().for_each(Waker::wake);
    }

    pub(super) fn is_off(&self) -> bool {
        self.shared.off.load(Ordering::SeqCst)
    }

    fn wait<T>(&self, with: impl FnOnce(&mut Waiting) -> T) -> T {
        with(&mut self.shared.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// See the module.
pub(super) struct Patient {
    stream: TcpStream,
    switch: Switch,
    /// How long a write may wait.
    patience: Duration,
    /// Runs while a write waits.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Patient {
    pub(super) fn new(stream: TcpStream, switch: Switch, patience: Duration) -> Self {
        Self { stream, switch, patience, stalled: None }
    }

    /// What became of a read: nothing, if the connection was ended meanwhile.
    fn after_read<T>(&self, read: Poll<io::Result<T>>, cx: &Context<'_>) -> Poll<io::Result<T>> {
        if read.is_pending() {
            self.switch.wait(|waiting| waiting.reader = Some(cx.waker().clone()));
        }
        if self.switch.is_off() { ended() } else { read }
    }

    /// The same of a write; one that waits for too long ends the connection.
    fn after_write<T>(
        &mut self,
        wrote: Poll<io::Result<T>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if wrote.is_ready() {
            self.stalled = None;
            return wrote;
        }
        self.switch.wait(|waiting| waiting.writer = Some(cx.waker().clone()));
        let patience = self.patience;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
        if stalled.as_mut().poll(cx).is_ready() {
            self.switch.turn_off();
        }
        if self.switch.is_off() { ended() } else { wrote }
    }
}

fn ended<T>() -> Poll<io::Result<T>> {
    Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read")))
}

impl AsyncRead for Patient {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        self.after_read(read, cx)
    }
}

impl AsyncWrite for Patient {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.switch.is_off() {
            return ended();
        }
        let wrote = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.after_write(wrote, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.switch.is_off() {
            return ended();
        }
        let wrote = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.after_write(wrote, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// A connection to nobody who reads, and what keeps it open.
    async fn unread(switch: Switch, patience: Duration) -> (Patient, TcpStream) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let other = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        (Patient::new(stream, switch, patience), other)
    }

    async fn fill(connection: &mut Patient) -> io::Error {
        let block = vec![0; 1 << 16];
        loop {
            if let Err(error) = connection.write_all(&block).await {
                return error;
            }
        }
    }

    fn run(test: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
    }

    #[test]
    fn a_write_that_waits_for_too_long_ends_reading_too() {
        run(async {
            let (mut connection, _other) =
                unread(Switch::default(), Duration::from_millis(50)).await;
            assert_eq!(fill(&mut connection).await.kind(), io::ErrorKind::TimedOut);
            assert!(connection.write_all(b"more").await.is_err(), "a gap in what the client gets");
            assert!(connection.read(&mut [0; 16]).await.is_err());
        });
    }

    #[test]
    fn a_switch_ends_a_write_that_waits() {
        run(async {
            let switch = Switch::default();
            let (mut connection, _other) = unread(switch.clone(), Duration::from_hours(1)).await;
            let writes = tokio::spawn(async move { fill(&mut connection).await.kind() });
            tokio::task::yield_now().await;
            switch.turn_off();
            assert_eq!(writes.await.unwrap(), io::ErrorKind::TimedOut);
        });
    }
}
