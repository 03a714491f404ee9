//! A look at the app from here: whether it can be reached, and whether it lets the bridge in.

use std::net::{TcpStream, ToSocketAddrs as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use super::Settings;
use super::handshake;
use super::link::{Link as _, Report, Reports, Said, SocketIo, Target};
use crate::sink::finding::{Finding, Level, quoted};

/// How long reaching the app may take.
const REACH: Duration = Duration::from_secs(3);

/// How long joining may take; the link itself gives up earlier.
const JOIN: Duration = Duration::from_secs(15);

/// Reaches for the app and joins its namespace, which sends no event.
pub fn inspect(settings: &Settings) -> Vec<Finding> {
    let reached = reach(&settings.target);
    if reached.level == Level::Error {
        return vec![reached];
    }
    vec![reached, join(settings)]
}

fn reach(target: &Target) -> Finding {
    match target {
        Target::Unix(path) => reach_socket(path),
        Target::Url(url) => reach_url(url),
    }
}

fn reach_socket(path: &Path) -> Finding {
    let about = |level, text: &str| {
        let path = path.display();
        Finding::new(level, format_args!("relay: unix:{path} (SOCKETIO_URL): {text}"))
    };
    match UnixStream::connect(path) {
        Ok(_) => about(Level::Ok, "the app's server is there"),
        Err(error) => about(Level::Error, &error.to_string()).mended_by(format!(
            "namei -l {}    # is it there, and may the daemon's user write to it?",
            quoted(&path.to_string_lossy())
        )),
    }
}

fn reach_url(url: &str) -> Finding {
    let (host, port) = host_and_port(url);
    let about = |level, text: &str| {
        Finding::new(level, format_args!("relay: {host}:{port} (SOCKETIO_URL): {text}"))
    };
    let addresses = match (host.as_str(), port).to_socket_addrs() {
        Ok(addresses) => addresses,
        Err(error) => {
            return about(Level::Error, &error.to_string())
                .mended_by(format!("getent hosts {}", quoted(&host)));
        }
    };
    let mut why = "it has no address".to_owned();
    for address in addresses {
        match TcpStream::connect_timeout(&address, REACH) {
            Ok(_) => return about(Level::Ok, "the app's server is there"),
            Err(error) => why = error.to_string(),
        }
    }
    about(Level::Error, &why).mended_by(format!(
        "sudo ss -ltnp 'sport = :{port}'    # on the app's machine: a stock install listens on a socket \
         file, SOCKETIO_URL = 'unix:/path'"
    ))
}

/// Of a URL whose scheme is known; the port that goes without saying, too.
fn host_and_port(url: &str) -> (String, u16) {
    let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
    let default = if scheme == "https" { 443 } else { 80 };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    // An IPv6 address has colons, and brackets around it.
    let end_of_host = authority.rfind(']').map_or(0, |bracket| bracket + 1);
    let (host, port) = match authority[end_of_host..].rfind(':') {
        Some(colon) => {
            let colon = end_of_host + colon;
            (&authority[..colon], authority[colon + 1..].parse().unwrap_or(default))
        }
        None => (authority, default),
    };
    (host.trim_matches(['[', ']']).to_owned(), port)
}

fn join(settings: &Settings) -> Finding {
    let namespace = &settings.namespace;
    let about = |level, text: &str| {
        Finding::new(level, format_args!("relay: {namespace} (SOCKETIO_NAMESPACE): {text}"))
    };
    let (bell, rung) = channel();
    let reports = Reports::new(Box::new(move || {
        let _ = bell.send(());
    }));
    let mut link = SocketIo::new(settings, reports.clone());
    link.connect(1);
    let until = Instant::now() + JOIN;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if rung.recv_timeout(left).is_err() {
            return about(Level::Error, "no answer").mended_by(mend(settings, ""));
        }
        let mut said = Vec::new();
        reports.take(&mut said);
        for Report { said, .. } in said {
            return match said {
                Said::Joined { .. } if settings.auth_token.is_some() => {
                    about(Level::Ok, "the app lets the bridge in with its token")
                }
                Said::Joined { .. } => about(
                    Level::Warning,
                    "the app lets in whoever asks: everyone who can reach it can hand events in",
                )
                .mended_by("SOCKETIO_AUTH_TOKEN = '...'    # and the same where the app reads it"),
                Said::Refused(why) => about(
                    Level::Error,
                    &format!("the app does not let the bridge in: {why}"),
                )
                .mended_by(
                    "SOCKETIO_AUTH_TOKEN = '...'    # the one that the app knows; and does the app \
                     have this namespace?",
                ),
                Said::Lost(why) => about(Level::Error, &why).mended_by(mend(settings, &why)),
                Said::Answered(_) => continue,
            };
        }
    }
}

/// What shows how the app's Socket.IO answers.
fn mend(settings: &Settings, why: &str) -> String {
    if why.contains("certificate") {
        return "sudo cp CA.crt /usr/local/share/ca-certificates/ && sudo update-ca-certificates    # if \
                it is of a certificate authority of your own; or SSL_CERT_FILE=CA.crt in the daemon's \
                environment"
            .to_owned();
    }
    let socket = match &settings.target {
        Target::Url(_) => String::new(),
        Target::Unix(path) => format!("--unix-socket {} ", quoted(&path.to_string_lossy())),
    };
    format!("curl -i {socket}{}", quoted(&handshake::address(&settings.target)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_url_leads() {
        for (url, host, port) in [
            ("http://a", "a", 80),
            ("https://a.b/c", "a.b", 443),
            ("http://127.0.0.1:5000/x:1", "127.0.0.1", 5000),
            ("https://[::1]:8443?x", "::1", 8443),
            ("http://[::1]", "::1", 80),
        ] {
            assert_eq!(host_and_port(url), (host.to_owned(), port), "{url}");
        }
    }

    #[test]
    fn si_01_an_app_that_is_not_there_is_found_with_a_remedy() {
        let scratch = tempfile::tempdir().unwrap();
        let missing = scratch.path().join("app.sock");
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        for target in [Target::Unix(missing), Target::Url(format!("http://{free}"))] {
            let found = reach(&target);
            assert_eq!(found.level, Level::Error, "{found}");
            assert!(found.remedy.is_some());
        }
    }
}
