//! Where the service is reached: a TCP port or a Unix socket, opened however long that takes.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tracing::{error, info};

/// How long to wait before trying to listen again.
const LISTEN_AGAIN: Duration = Duration::from_secs(1);

/// Where something is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// Port 0: a free one.
    Tcp(SocketAddr),
    /// A socket's path.
    Unix(PathBuf),
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// An open one.
pub(super) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// A connection, whatever it came through.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Listener {
    /// Tries until it is open. What is in the way is told once, and each time it changes: to `alarm`
    /// and to the log.
    pub(super) async fn open(
        at: &Address,
        what: &'static str,
        alarm: impl Fn(String),
    ) -> (Self, Address) {
        let mut told = None;
        loop {
            match try_to_open(at) {
                Ok((listener, address)) => {
                    info!(%address, "{what} can be asked for");
                    return (listener, address);
                }
                Err(error) => {
                    let why = error.to_string();
                    if told.as_ref() != Some(&why) {
                        error!(address = %at, %error, "cannot serve {what}: delivery goes on; trying on");
                        alarm(why.clone());
                        told = Some(why);
                    }
                }
            }
            tokio::time::sleep(LISTEN_AGAIN).await;
        }
    }

    pub(super) async fn accept(&self) -> io::Result<Box<dyn Stream>> {
        Ok(match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                let _ = stream.set_nodelay(true);
                Box::new(stream)
            }
            Self::Unix(listener) => Box::new(listener.accept().await?.0),
        })
    }
}

fn try_to_open(at: &Address) -> io::Result<(Listener, Address)> {
    match at {
        Address::Tcp(address) => {
            let listener = std::net::TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            let address = listener.local_addr()?;
            Ok((Listener::Tcp(TcpListener::from_std(listener)?), Address::Tcp(address)))
        }
        Address::Unix(path) => {
            if is_left_behind(path)? {
                std::fs::remove_file(path)?;
            }
            let listener = UnixListener::bind(path)?;
            // Everyone on the machine may ask, as over loopback; nothing secret is answered.
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))?;
            Ok((Listener::Unix(listener), at.clone()))
        }
    }
}

/// Whether a socket is there that a process left behind.
///
/// # Errors
/// `AddrInUse` if it is in use, or another file is there.
pub fn is_left_behind(path: &Path) -> io::Result<bool> {
    match std::fs::symlink_metadata(path) {
        Ok(there) if there.file_type().is_socket() => {
            match std::os::unix::net::UnixStream::connect(path) {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(true),
                Ok(_) => Err(io::ErrorKind::AddrInUse.into()),
                Err(error) => Err(error),
            }
        }
        Ok(_) => Err(io::Error::new(io::ErrorKind::AddrInUse, "another file is there")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_left_behind_is_told_from_one_in_use_and_from_another_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("http.sock");
        assert!(!is_left_behind(&path).unwrap());
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert_eq!(is_left_behind(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(listener);
        assert!(is_left_behind(&path).unwrap());
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "someone's").unwrap();
        assert_eq!(is_left_behind(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }
}
