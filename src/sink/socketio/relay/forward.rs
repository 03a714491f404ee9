//! A way to a socket file for a client that only knows TCP: a port on loopback, for one connection.
//!
//! Everyone on this machine can reach that port, and the socket file's permissions say who may
//! reach the app. So whoever comes has to know a key, which is drawn for each connection and is in
//! the address that our own client asks for.

use std::hash::{BuildHasher as _, RandomState};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixStream};

/// How long whoever connects may take to show the key.
const SHOW: Duration = Duration::from_secs(5);

/// The longest first line that is read.
const LINE_MAX: usize = 1024;

/// See the module.
pub(super) struct Forwarder {
    listener: TcpListener,
    port: u16,
    key: Arc<str>,
    socket: PathBuf,
}

impl Forwarder {
    /// Opens a port.
    pub(super) async fn bind(socket: &Path) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let port = listener.local_addr()?.port();
        // std's hasher is keyed with the system's randomness, and its key can't be told from this.
        let key = format!("{:016x}{:016x}", drawn(), drawn()).into();
        Ok(Self { listener, port, key, socket: socket.to_owned() })
    }

    /// What our client has to connect to.
    pub(super) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/socket.io/?forward={}", self.port, self.key)
    }

    /// Forwards our own connection, and says why it ended.
    pub(super) async fn run(self, ended: impl Fn(String) + Clone + Send + 'static) {
        loop {
            let Ok((stream, _)) = self.listener.accept().await else {
                // Such as without free descriptors; the client's time-out ends it.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let (key, socket, ended) = (Arc::clone(&self.key), self.socket.clone(), ended.clone());
            tokio::spawn(async move {
                if let Some(why) = forward(stream, &key, &socket).await {
                    ended(why);
                }
            });
        }
    }
}

fn drawn() -> u64 {
    RandomState::new().hash_one(std::process::id())
}

/// Forwards a connection to its end. None: it was not ours.
async fn forward(mut stream: TcpStream, key: &str, socket: &Path) -> Option<String> {
    let line = tokio::time::timeout(SHOW, first_line(&mut stream)).await.ok()?.ok()?;
    if !line.windows(key.len()).any(|window| window == key.as_bytes()) {
        return None;
    }
    let through = async {
        // Answers are small and waited for.
        stream.set_nodelay(true)?;
        let mut app = UnixStream::connect(socket).await?;
        app.write_all(&line).await?;
        tokio::io::copy_bidirectional(&mut stream, &mut app).await
    };
    Some(match through.await {
        Ok(_) => "the app closed the connection".to_owned(),
        Err(error) => format!("{}: {error}", socket.display()),
    })
}

/// What has come up to the end of the first line, and perhaps more.
async fn first_line(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut read = Vec::new();
    while !read.contains(&b'\n') {
        let mut piece = [0; LINE_MAX];
        let length = stream.read(&mut piece).await?;
        if length == 0 || read.len() + length > LINE_MAX {
            return Err(ErrorKind::InvalidData.into());
        }
        read.extend_from_slice(&piece[..length]);
    }
    Ok(read)
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixListener;
    use std::sync::mpsc::channel;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    #[test]
    fn only_who_knows_the_key_is_forwarded() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("app.sock");
        let app = UnixListener::bind(&path).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_io()
            .enable_time()
            .build()
            .unwrap();
        let forwarder = runtime.block_on(Forwarder::bind(&path)).unwrap();
        let (port, url) = (forwarder.port, forwarder.url());
        let (sender, ended) = channel();
        runtime.spawn(forwarder.run(move |why| sender.send(why).unwrap()));
        let connect = || {
            let stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream
        };

        let mut stranger = connect();
        stranger.write_all(b"GET /socket.io/?forward=0 HTTP/1.1\r\n").unwrap();
        assert_eq!(stranger.read(&mut [0; 8]).unwrap_or(0), 0, "a stranger is not answered");
        let _silent = connect();

        let mut ours = connect();
        let path = url.split_once("/socket.io/").unwrap().1;
        let request = format!("GET /socket.io/{path} HTTP/1.1\r\n\r\n");
        ours.write_all(request.as_bytes()).unwrap();
        let (mut there, _) = app.accept().unwrap();
        let mut got = vec![0; request.len()];
        there.read_exact(&mut got).unwrap();
        assert_eq!(got, request.as_bytes());
        there.write_all(b"hello").unwrap();
        let mut answer = [0; 5];
        ours.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"hello");
        drop(there);
        drop(ours);
        assert!(ended.recv_timeout(PATIENCE).unwrap().contains("closed"));
        app.set_nonblocking(true).unwrap();
        assert!(app.accept().is_err(), "the strangers were not forwarded");
    }
}
