//! A look at what the server needs: its port, and who says who may connect.

use std::io;
use std::net::{SocketAddr, TcpListener};

use super::Settings;
use super::gate::{SessionCheck, socket_and_page};
use crate::sink::finding::{Finding, Level};

/// Tries port and session check. `ours` is where a running daemon of the same state listens.
pub fn inspect(settings: &Settings, ours: Option<SocketAddr>) -> Vec<Finding> {
    let mut found = vec![port(settings.listen, ours)];
    found.extend(settings.auth_url.as_ref().map(|_| session_check(settings)));
    found
}

fn port(address: SocketAddr, ours: Option<SocketAddr>) -> Finding {
    let about = |level, text: &str| {
        Finding::new(level, format_args!("Socket.IO: {address} (SOCKETIO_LISTEN): {text}"))
    };
    if ours.is_some_and(|ours| address.port() == 0 || ours == address) {
        return about(Level::Ok, "the running bridge listens there");
    }
    match TcpListener::bind(address) {
        Ok(_) => about(Level::Ok, "is free"),
        Err(error) => {
            let remedy = match error.kind() {
                io::ErrorKind::AddrInUse => format!("sudo ss -ltnp 'sport = :{}'", address.port()),
                io::ErrorKind::PermissionDenied => {
                    format!(
                        "SOCKETIO_LISTEN = '{}:5055'    # ports below 1024 are root's",
                        address.ip()
                    )
                }
                _ => "ip -brief address    # an address that this machine has".to_owned(),
            };
            about(Level::Error, &error.to_string()).mended_by(remedy)
        }
    }
}

/// Someone without a session must not be let in.
fn session_check(settings: &Settings) -> Finding {
    let about = |level, text: &str| {
        Finding::new(level, format_args!("Socket.IO: SOCKETIO_AUTH_URL: {text}"))
    };
    match SessionCheck::of(settings)
        .and_then(|check| check.map_or(Ok(false), |it| it.ask_as_a_stranger()))
    {
        Ok(false) => about(Level::Ok, "answers, and does not let in who shows no session"),
        Ok(true) => about(
            Level::Warning,
            "lets in who shows no session: everyone who can reach the port gets the events",
        ),
        Err(error) => about(Level::Error, &error).mended_by(format!(
            "{}    # has to answer 401 without a cookie, 2xx with a session's",
            ask(settings.auth_url.as_deref().unwrap_or_default())
        )),
    }
}

/// What asks as we do. The page may hold a secret, so it is left to the shell.
fn ask(url: &str) -> String {
    match socket_and_page(url) {
        Some((socket, _)) => {
            format!(
                "curl -i --unix-socket '{socket}' \"http://localhost${{SOCKETIO_AUTH_URL#*:*:}}\""
            )
        }
        None => "curl -i \"$SOCKETIO_AUTH_URL\"".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_remedy_asks_as_we_do_and_shows_no_page() {
        let unix = ask("unix:/run/a.sock:/b?secret");
        assert!(
            unix.starts_with("curl -i --unix-socket '/run/a.sock' ") && !unix.contains("secret")
        );
        assert_eq!(ask("http://a/b?secret"), "curl -i \"$SOCKETIO_AUTH_URL\"");
    }

    #[test]
    fn a_port_is_free_taken_or_ours() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        assert_eq!(port(address, None).level, Level::Error);
        assert!(port(address, None).remedy.unwrap().contains(&address.port().to_string()));
        assert_eq!(port(address, Some(address)).level, Level::Ok);
        drop(taken);
        assert_eq!(port(address, None).level, Level::Ok);
        // Documentation's own network: no machine has it.
        assert_eq!(port("192.0.2.1:5055".parse().unwrap(), None).level, Level::Error);
    }
}
